//! A queue of an emulator, and a store of many moods.

mod fickle;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use aws_sdk_sqs::types::{MessageSystemAttributeName, QueueAttributeName};
use jiff::Timestamp;
use testkit::aws::{Service, endpoint};
use testkit::until;
use tokio::time::sleep;
use uuid::Uuid;

use super::super::config::Source;
use super::super::error::{PublishError, Unavailable};
use super::super::model::{
    AddOrder, Assignment, Courier, CourierId, Event, OrderId, Outcome, Whereabouts, Zone,
    ZoneSummary,
};
use super::super::store::{Answer, Outgoing, Recorded, Store};
use super::*;
use crate::couriers;
use crate::storage::State;
use crate::storage::aws::Aws;
use crate::storage::preflight::Preflight;
use crate::telemetry::Registry;
use fickle::Fickle;

/// How long anything may take that a test waits for.
const PATIENCE: Duration = Duration::from_secs(30);

/// A store that has only the orders it received, and fails while `mood` is set.
#[derive(Debug, Default)]
struct Moody {
    mood: Mutex<Option<Unavailable>>,
    /// It breaks over this order.
    breaks_over: Option<OrderId>,
    tries: AtomicUsize,
    kept: Mutex<Vec<OrderId>>,
    outbox: Mutex<Vec<Outgoing>>,
}

impl Moody {
    fn is_now(&self, mood: Option<Unavailable>) {
        *self.mood.lock().unwrap() = mood;
    }

    fn kept(&self) -> Vec<OrderId> {
        let mut kept = self.kept.lock().unwrap().clone();
        kept.sort_unstable();
        kept
    }

    fn tries(&self) -> usize {
        self.tries.load(Ordering::Relaxed)
    }

    fn told(&self, events: &[(Event, Timestamp)]) -> Result<Vec<Outcome>, Unavailable> {
        self.tries.fetch_add(1, Ordering::Relaxed);
        if let Some(mood) = *self.mood.lock().unwrap() {
            return Err(mood);
        }
        let orders = events.iter().map(|(event, _)| match event {
            Event::Order(order) => order.id,
            Event::Courier(_) => panic!("only orders are told of here"),
        });
        let orders: Vec<OrderId> = orders.collect();
        if self.breaks_over.is_some_and(|one| orders.contains(&one)) {
            return Err(Unavailable::Failed);
        }
        let outcomes = vec![Outcome::Parked; orders.len()];
        self.kept.lock().unwrap().extend(orders);
        Ok(outcomes)
    }
}

/// What this desk does not ask for.
fn stopped<T: Send + 'static>() -> Answer<'static, T> {
    Box::pin(std::future::ready(Err(Unavailable::Stopped)))
}

impl Store for Moody {
    fn apply(&self, events: Vec<(Event, Timestamp)>) -> Answer<'_, Vec<Outcome>> {
        Box::pin(std::future::ready(self.told(&events)))
    }

    fn replicate(&self, _: Vec<Assignment>) -> Answer<'_, ()> {
        stopped()
    }

    fn order(&self, _: OrderId) -> Answer<'_, Option<Whereabouts>> {
        stopped()
    }

    fn orders(&self) -> Answer<'_, Vec<(OrderId, Whereabouts)>> {
        stopped()
    }

    fn orders_of(&self, _: CourierId) -> Answer<'_, Vec<OrderId>> {
        stopped()
    }

    fn courier(&self, _: CourierId) -> Answer<'_, Option<Courier>> {
        stopped()
    }

    fn couriers(&self, _: Option<Zone>) -> Answer<'_, Vec<Courier>> {
        stopped()
    }

    fn parked(&self, _: usize) -> Answer<'_, (Vec<AddOrder>, u64)> {
        stopped()
    }

    fn zones(&self) -> Answer<'_, Vec<ZoneSummary>> {
        stopped()
    }

    fn events(&self, _: u64, _: usize) -> Answer<'_, Vec<Recorded>> {
        stopped()
    }

    fn outgoing(&self, _: usize) -> Answer<'_, Vec<Outgoing>> {
        let outbox = self.outbox.lock().unwrap().clone();
        Box::pin(std::future::ready(Ok(outbox)))
    }

    fn mark_published(&self, numbers: Vec<u64>) -> Answer<'_, ()> {
        let mut outbox = self.outbox.lock().unwrap();
        outbox.retain(|one| !numbers.contains(&one.number));
        Box::pin(std::future::ready(Ok(())))
    }

    fn state(&self) -> State {
        State::well()
    }
}

/// A topology of a test's own, and a dispatcher on it.
struct Town {
    topology: Topology,
    store: Arc<Moody>,
    registry: Registry,
    queues: Queues,
}

/// The configuration of a process that only dispatches.
fn dispatcher(visibility: Duration) -> Config {
    Config {
        events: Source::Sqs,
        roles: vec![Role::Dispatcher],
        visibility,
        ..crate::config::Config::defaults().couriers
    }
}

impl Town {
    async fn open(store: Moody, visibility: Duration) -> Self {
        let address = endpoint();
        let own = Uuid::new_v4();
        let topic = |of: &str| format!("arn:aws:sns:eu-west-2:123450000001:{of}-{own}");
        let queue = |of: &str| format!("{address}/123450000001/{of}-{own}");
        let places = Endpoints {
            events_topic: topic("events-topic"),
            events_queue: queue("events-queue"),
            assignments_topic: topic("assignments-topic"),
            assignments_queue: queue("assignments-queue"),
            dead_letters: queue("dead-letter-queue"),
        };
        let aws = Aws::emulated(&address).await;
        let topology = Topology::open(&aws, places, true).await.unwrap();
        Self::on(topology, store, visibility)
    }

    /// A dispatcher on this topology.
    fn on(topology: Topology, store: Moody, visibility: Duration) -> Self {
        let store = Arc::new(store);
        let registry = Registry::new(&[]);
        let couriers = Couriers::new(
            Arc::<Moody>::clone(&store),
            registry.register(couriers::Metrics::register),
        );
        let metrics = registry.register(Metrics::register);
        let queues = Queues::start(
            &topology,
            &couriers,
            &dispatcher(visibility),
            &metrics,
            &Overview::default(),
            &Findings::default(),
        );
        Self {
            topology,
            store,
            registry,
            queues,
        }
    }

    /// Publishes one event for each order, in one request.
    async fn orders(&self, ids: &[OrderId]) {
        let topic = event_publisher(&self.topology, &self.registry.register(Metrics::register));
        let events = ids.iter().copied().map(event);
        topic.publish(events.collect()).await.unwrap();
    }

    /// The events queue: how many messages are visible, and how many are in flight.
    async fn messages(&self) -> [usize; 2] {
        let names = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
        ];
        let get = self.topology.sqs().get_queue_attributes();
        let get = get.queue_url(&self.topology.endpoints().events_queue);
        let get = get.set_attribute_names(Some(names.to_vec()));
        let got = Box::pin(get.send()).await.unwrap().attributes.unwrap();
        names.map(|name| got[&name].parse().unwrap())
    }

    /// Messages that came this far, retries included.
    fn came(&self, step: &str) -> u64 {
        let series =
            format!("odyssey_couriers_messages_total{{queue=\"events\",step=\"{step}\"}} ");
        let page = self.registry.render();
        let line = page.lines().find_map(|line| line.strip_prefix(&*series));
        line.unwrap().parse().unwrap()
    }
}

fn event(id: OrderId) -> Event {
    event_about(id, "Buy something")
}

fn event_about(id: OrderId, details: &str) -> Event {
    Event::Order(AddOrder {
        id,
        details: details.into(),
        zone: Zone::E,
        added_at: Timestamp::UNIX_EPOCH,
    })
}

fn ids(count: u128) -> Vec<OrderId> {
    let first = Uuid::new_v4().as_u128() & !0xFF;
    let id = |number| OrderId(Uuid::from_u128(first + number));
    (0..count).map(id).collect()
}

#[tokio::test]
async fn what_the_store_cannot_keep_is_held_however_long_that_takes_and_received_once() {
    let store = Moody::default();
    store.is_now(Some(Unavailable::Engine));
    // Extended after each third of it: on a busy machine an extension may be late.
    let visibility = Duration::from_secs(5);
    let town = Town::open(store, visibility).await;
    let orders = ids(15);
    town.orders(&orders).await;
    until("all are held", async || town.messages().await == [0, 15]).await;
    // Longer than messages are invisible by themselves.
    let deadline = Instant::now() + visibility + Duration::from_secs(1);
    while Instant::now() < deadline {
        assert_eq!(town.messages().await, [0, 15]);
        sleep(Duration::from_millis(50)).await;
    }
    assert!(town.store.kept().is_empty());
    town.store.is_now(None);
    until("all are deleted", async || town.messages().await == [0, 0]).await;
    assert_eq!(town.store.kept(), orders);
    assert_eq!(town.came("received"), 15);
    until("it is counted", async || town.came("deleted") == 15).await;
    town.queues.stop(PATIENCE).await;
}

#[tokio::test]
async fn what_is_not_kept_when_the_process_ends_is_given_back_at_once() {
    let store = Moody::default();
    store.is_now(Some(Unavailable::Busy));
    let town = Town::open(store, Duration::from_secs(600)).await;
    town.orders(&ids(3)).await;
    until("all are held", async || town.messages().await == [0, 3]).await;
    until("it was tried", async || town.store.tries() > 0).await;
    let (topology, began) = (town.topology.clone(), Instant::now());
    town.queues.stop(PATIENCE).await;
    assert!(began.elapsed() < PATIENCE);
    let mut again = 0;
    while again < 3 {
        let receive = topology.sqs().receive_message().wait_time_seconds(1);
        let receive = receive
            .queue_url(&topology.endpoints().events_queue)
            .max_number_of_messages(10)
            .message_system_attribute_names(MessageSystemAttributeName::All);
        let received = Box::pin(receive.send()).await.unwrap();
        again += received.messages.unwrap_or_default().len();
        assert!(began.elapsed() < PATIENCE, "{again} were given back");
    }
}

#[tokio::test]
async fn a_message_that_breaks_the_program_keeps_none_of_its_neighbours_back() {
    let orders = ids(9);
    let store = Moody {
        breaks_over: Some(orders[4]),
        ..Moody::default()
    };
    let town = Town::open(store, Duration::from_secs(600)).await;
    town.orders(&orders).await;
    let others: Vec<OrderId> = orders
        .iter()
        .filter(|id| **id != orders[4])
        .copied()
        .collect();
    until("the others are kept", async || town.store.kept() == others).await;
    // It stays in flight: neither deleted nor dead-lettered, and its visibility timeout is not shortened.
    until("the others are deleted", async || {
        town.messages().await == [0, 1]
    })
    .await;
    assert_eq!(town.came("poison"), 0);
    town.queues.stop(PATIENCE).await;
}

/// An operator deleted the queue, or an emulator lost it.
#[tokio::test]
async fn a_dead_letter_queue_that_is_gone_is_made_anew_and_nobody_waits_for_it() {
    let town = Town::open(Moody::default(), Duration::from_secs(1)).await;
    let (sqs, places) = (town.topology.sqs(), town.topology.endpoints().clone());
    let delete = sqs.delete_queue().queue_url(&places.dead_letters);
    Box::pin(delete.send()).await.unwrap();
    let poison = sqs.send_message().queue_url(&places.events_queue);
    Box::pin(poison.message_body("nonsense").send())
        .await
        .unwrap();
    let orders = ids(5);
    town.orders(&orders).await;
    until("all good ones are kept", async || {
        town.store.kept() == orders
    })
    .await;
    until("nothing is left", async || town.messages().await == [0, 0]).await;
    let receive = sqs.receive_message().queue_url(&places.dead_letters);
    let receive = receive.message_attribute_names("All").wait_time_seconds(2);
    let received = Box::pin(receive.send()).await.unwrap().messages.unwrap();
    assert_eq!(received[0].body(), Some("nonsense"));
    let attributes = received[0].message_attributes().unwrap();
    let queue = attributes["queue"].string_value().unwrap();
    assert!(places.events_queue.ends_with(queue), "{queue}");
    town.queues.stop(PATIENCE).await;
}

#[tokio::test]
async fn a_chain_that_is_there_is_taken_as_it_is() {
    let town = Town::open(Moody::default(), Duration::from_secs(1)).await;
    let aws = Aws::emulated(&endpoint()).await;
    let places = town.topology.endpoints().clone();
    let again = Topology::open(&aws, places.clone(), true).await.unwrap();
    assert_eq!(*again.endpoints(), places);
    let subscriptions = aws.sns().list_subscriptions_by_topic();
    let subscriptions = subscriptions.topic_arn(&places.events_topic).send();
    let subscriptions = Box::pin(subscriptions).await.unwrap();
    assert_eq!(subscriptions.subscriptions().len(), 1);
    let elsewhere = Endpoints {
        events_topic: "arn:aws:sns:eu-west-1:123450000001:events-topic".to_owned(),
        ..places
    };
    let refused = Topology::open(&aws, elsewhere, true).await.unwrap_err();
    let said = refused.to_string();
    assert!(said.starts_with("events-topic: it would be arn:"), "{said}");
    town.queues.stop(PATIENCE).await;
}

/// The topology of services that do a part of each batch.
async fn fickle(queue: Vec<String>) -> (Fickle, Topology) {
    let fickle = Fickle::open(queue).await;
    let places = Endpoints {
        events_topic: "arn:aws:sns:eu-west-2:123450000001:events-topic".to_owned(),
        events_queue: format!("{}/123450000001/events-queue", fickle.service.endpoint),
        assignments_topic: "arn:aws:sns:eu-west-2:123450000001:assignments-topic".to_owned(),
        dead_letters: format!("{}/123450000001/dead-letter-queue", fickle.service.endpoint),
        ..Endpoints::default()
    };
    let aws = Aws::emulated(&fickle.service.endpoint).await;
    let topology = Topology::open(&aws, places, false).await.unwrap();
    (fickle, topology)
}

#[tokio::test]
async fn what_a_topic_has_not_confirmed_is_published_again_and_nothing_else() {
    let (fickle, topology) = fickle(Vec::new()).await;
    let registry = Registry::new(&[]);
    let topic = event_publisher(&topology, &registry.register(Metrics::register));
    let orders = ids(25);
    let events: Vec<Event> = orders.iter().copied().map(event).collect();
    topic.publish(events.clone()).await.unwrap();
    let book = fickle.book.lock().unwrap();
    let mut sizes: Vec<usize> = book.publications.iter().map(Vec::len).collect();
    sizes.sort_unstable();
    // 10, 10 and 5; every second one of each failed, 12 in all, and went in batches of 10 and 2.
    assert_eq!(sizes, [2, 5, 10, 10, 10]);
    let again: Vec<&String> = book.publications[3..].iter().flatten().collect();
    let first: Vec<&String> = book.publications[..3].iter().flatten().collect();
    assert_eq!(again.len(), 12);
    for event in &events {
        let written = serde_json::to_string(event).unwrap();
        assert_eq!(first.iter().filter(|one| ***one == written).count(), 1);
    }
    let published = registry.render();
    let series = "odyssey_couriers_published_total{topic=\"events\"} 25";
    assert!(published.lines().any(|line| line == series), "{published}");
}

/// So many events; the one at `place` is about what is not wanted.
fn events_with(count: u128, place: usize, details: &str) -> Vec<Event> {
    let ids = ids(count).into_iter().enumerate();
    let each = ids.map(|(number, id)| {
        let about = if number == place {
            details
        } else {
            "Buy something"
        };
        event_about(id, about)
    });
    each.collect()
}

#[tokio::test]
async fn an_event_with_characters_that_xml_does_not_know_is_announced() {
    let (fickle, topology) = fickle(Vec::new()).await;
    let topic = event_publisher(&topology, &Registry::new(&[]).register(Metrics::register));
    let events = events_with(3, 1, "\u{FFFE} and \u{FFFF}");
    topic.publish(events.clone()).await.unwrap();
    let book = fickle.book.lock().unwrap();
    let published = book.publications.iter().flatten();
    let read = |text: &String| serde_json::from_str::<Event>(text).unwrap();
    let published: Vec<Event> = published.map(read).collect();
    assert!(published.contains(&events[1]), "{published:?}");
}

#[tokio::test]
async fn an_event_that_a_topic_refuses_is_said_at_once_and_holds_no_other_up() {
    for wholly in [false, true] {
        let (fickle, topology) = fickle(Vec::new()).await;
        {
            let mut book = fickle.book.lock().unwrap();
            (book.refused, book.refuses_wholly) = (Some("contraband".to_owned()), wholly);
        }
        let registry = Registry::new(&[]);
        let topic = event_publisher(&topology, &registry.register(Metrics::register));
        let events = events_with(25, 7, "contraband");
        let began = Instant::now();
        let told = topic.publish(events).await;
        assert_eq!(told, Err(PublishError::Refused(vec![7])));
        assert!(began.elapsed() < Duration::from_secs(10));
        let series = "odyssey_couriers_published_total{topic=\"events\"} 24";
        let published = registry.render();
        assert!(published.lines().any(|line| line == series), "{published}");
        let book = fickle.book.lock().unwrap();
        let tries = book.publications.iter().flatten();
        let tries = tries.filter(|one| one.contains("contraband")).count();
        // With its batch, and alone; never again.
        assert_eq!(tries, 1 + usize::from(wholly));
    }
}

#[tokio::test]
async fn a_topic_that_the_operator_must_see_to_is_said_at_once() {
    for (code, message, status) in [
        ("NotFound", "Topic does not exist", 404),
        ("AuthorizationError", "no", 403),
        ("InvalidParameter", "Invalid parameter: TopicArn", 400),
    ] {
        let sns = Service::refusing(code, message, status).await;
        let places = Endpoints {
            events_topic: "arn:aws:sns:eu-west-2:123450000001:events-topic".to_owned(),
            ..Endpoints::default()
        };
        let aws = Aws::emulated(&sns.endpoint).await;
        let topology = Topology::open(&aws, places, false).await.unwrap();
        let topic = event_publisher(&topology, &Registry::new(&[]).register(Metrics::register));
        let told = topic.publish(events_with(25, 0, "")).await;
        assert_eq!(told, Err(Unavailable::Engine.into()), "{code}");
        // One for each batch.
        assert_eq!(sns.requests(), 3, "{code}");
    }
}

#[tokio::test]
async fn an_assignment_that_its_topic_refuses_goes_to_the_dead_letter_queue() {
    let (fickle, topology) = fickle(Vec::new()).await;
    let orders = ids(3);
    let outgoing = orders.iter().zip(1..).map(|(order_id, number)| Outgoing {
        number,
        assignment: Assignment {
            order_id: *order_id,
            courier_id: CourierId(Uuid::nil()),
        },
    });
    let outgoing: Vec<Outgoing> = outgoing.collect();
    fickle.book.lock().unwrap().refused = Some(orders[1].to_string());
    let store = Moody {
        outbox: Mutex::new(outgoing.clone()),
        ..Moody::default()
    };
    let town = Town::on(topology, store, Duration::from_secs(60));
    until("the outbox is empty", async || {
        town.store.outbox.lock().unwrap().is_empty()
    })
    .await;
    {
        let book = fickle.book.lock().unwrap();
        let [letter] = &book.sent[..] else {
            panic!("{:?}", book.sent)
        };
        let url = letter["QueueUrl"].as_str().unwrap();
        assert!(url.ends_with("/dead-letter-queue"), "{letter}");
        let written = serde_json::to_string(&outgoing[1].assignment).unwrap();
        assert_eq!(letter["MessageBody"], written);
        let reason = &letter["MessageAttributes"]["reason"]["StringValue"];
        let reason = reason.as_str().unwrap();
        assert!(
            reason.starts_with("SNS refuses it: InvalidParameter"),
            "{reason}"
        );
    }
    town.queues.stop(PATIENCE).await;
}

#[tokio::test]
async fn what_a_queue_has_not_deleted_is_deleted_by_itself() {
    let orders = ids(9);
    let bodies = orders.iter().copied().map(event);
    let bodies = bodies.map(|event| serde_json::to_string(&event).unwrap());
    let (fickle, topology) = fickle(bodies.collect()).await;
    let town = Town::on(topology, Moody::default(), Duration::from_secs(60));
    until("all are deleted", async || town.came("deleted") == 9).await;
    assert_eq!(town.store.kept(), orders);
    let deletions: Vec<usize> = fickle
        .book
        .lock()
        .unwrap()
        .deletions
        .iter()
        .map(Vec::len)
        .collect();
    assert_eq!(deletions, [9, 4]);
    town.queues.stop(PATIENCE).await;
}

#[tokio::test]
async fn one_queue_under_two_urls_stops_the_consumers_until_each_key_has_its_own() {
    let (fickle, topology) = fickle(Vec::new()).await;
    let arn = "arn:aws:sqs:eu-west-2:123450000001:a-queue";
    fickle.book.lock().unwrap().queue_arn = Some(arn.to_owned());
    let mut preflight = Preflight::default();
    let [_, queues] = probes(&topology, &dispatcher(Duration::from_secs(1)));
    preflight.add(queues);
    let findings = preflight.findings().clone();
    let reason = || findings.state(ENGINES).and_then(|state| state.down);
    assert!(reason().is_some_and(|it| it.ends_with("not answered yet")));
    let running = tokio::spawn(preflight.run());
    until("the check fails", async || {
        reason().is_some_and(|it| !it.ends_with("not answered yet"))
    })
    .await;
    let named = reason().unwrap();
    for part in [
        "couriers.dead_letter_queue_url",
        "`couriers.events_queue_url`",
        arn,
    ] {
        assert!(named.contains(part), "{named}");
    }
    let passed = tokio::spawn({
        let findings = findings.clone();
        async move { findings.pass(ENGINES).await }
    });
    tokio::task::yield_now().await;
    assert!(!passed.is_finished());
    fickle.book.lock().unwrap().queue_arn = None;
    timeout(PATIENCE, passed).await.unwrap().unwrap();
    assert_eq!(reason(), None);
    assert!(!running.is_finished(), "its end would end the server");
    running.abort();
}
