//! Couriers whose events arrive through SNS and SQS, of an emulator: no event is lost, and no good one is
//! dead-lettered.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry, Message, MessageAttributeValue, QueueAttributeName,
    SendMessageBatchRequestEntry,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::aws::{Emulator, emulator, endpoint};
use testkit::proxy::{Proxy, Way};
use testkit::{found, until};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::client::{Door, get};
use crate::couriers::{
    courier, order, orders_of, patch, post_events, publish_events, scenarios_to_run,
};
use crate::emulator::{odyssey_at, sdk};
use crate::shop::{Shop, text, variable};

mod outages;
mod poison;

/// How long a condition may take that waits for messages to be received again.
const LONG: Duration = Duration::from_secs(60);
/// The emulator's account.
const ACCOUNT: &str = "123450000001";

// --- The fixture ---------------------------------------------------------------------------------------------------

/// Topics and queues, and the way to them.
#[derive(Debug, Clone)]
struct Town {
    endpoint: String,
    /// The end of every name; without one they are the seed's, and nothing is configured.
    own: Option<Uuid>,
    /// Where the test itself goes, whatever stands in the servers' way.
    direct: String,
    sns: aws_sdk_sns::Client,
    sqs: aws_sdk_sqs::Client,
}

impl Town {
    /// With names of this test's own, at the emulator that all share.
    fn new() -> Self {
        Self::at(&endpoint(), Some(Uuid::new_v4()))
    }

    fn at(endpoint: &str, own: Option<Uuid>) -> Self {
        let sdk = sdk(endpoint);
        Self {
            endpoint: endpoint.to_owned(),
            own,
            direct: endpoint.to_owned(),
            sns: aws_sdk_sns::Client::new(&sdk),
            sqs: aws_sdk_sqs::Client::new(&sdk),
        }
    }

    fn name(&self, of: &str) -> String {
        self.own.map_or(of.to_owned(), |own| format!("{of}-{own}"))
    }

    fn topic(&self, of: &str) -> String {
        format!("arn:aws:sns:eu-west-2:{ACCOUNT}:{}", self.name(of))
    }

    fn queue(&self, of: &str) -> String {
        format!("{}/{ACCOUNT}/{}", self.direct, self.name(of))
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = vec![
            ("couriers.events", "sqs".to_owned()),
            ("aws.provision", "true".to_owned()),
        ];
        if self.own.is_some() {
            settings.extend([
                ("couriers.events_topic_arn", self.topic("events-topic")),
                ("couriers.events_queue_url", self.queue("events-queue")),
                (
                    "couriers.assignments_topic_arn",
                    self.topic("assignments-topic"),
                ),
                (
                    "couriers.assignments_queue_url",
                    self.queue("assignments-queue"),
                ),
                (
                    "couriers.dead_letter_queue_url",
                    self.queue("dead-letter-queue"),
                ),
            ]);
        }
        settings
    }

    async fn open(&self, settings: &[(&str, &str)]) -> Shop {
        let ours = self.settings();
        let ours = ours.iter().map(|(key, value)| (*key, value.as_str()));
        let all: Vec<_> = ours.chain(settings.iter().copied()).collect();
        Shop::run(odyssey_at(&self.endpoint), &all).await
    }

    /// A server of one role that keeps its data here.
    async fn open_as(&self, role: &str, data: &Path, settings: &[(&str, &str)]) -> Shop {
        let ours = [
            ("couriers.roles", role),
            ("data_dir", data.to_str().unwrap()),
        ];
        self.open(&[settings, &ours].concat()).await
    }

    /// A dispatcher and a directory, each with data of its own, and where that is.
    async fn open_both(&self, settings: &[(&str, &str)]) -> ([Shop; 2], [TempDir; 2]) {
        let data = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let dispatcher = self.open_as("dispatcher", data[0].path(), settings).await;
        let directory = self.open_as("directory", data[1].path(), settings).await;
        ([dispatcher, directory], data)
    }

    /// Publishes to the events topic, as the seed's command does.
    async fn publish(&self, event: &Value) {
        let publish = self.sns.publish().topic_arn(self.topic("events-topic"));
        let sent = Box::pin(publish.message(event.to_string()).send()).await;
        sent.unwrap();
    }

    /// Puts messages into a queue as they are.
    async fn put(&self, queue: &str, bodies: &[String]) {
        let sqs = &self.sqs;
        for bodies in bodies.chunks(10) {
            let entries = bodies.iter().enumerate().map(|(number, body)| {
                let entry = SendMessageBatchRequestEntry::builder().id(number.to_string());
                entry.message_body(body).build().unwrap()
            });
            let send = sqs.send_message_batch().queue_url(self.queue(queue));
            let send = send.set_entries(Some(entries.collect())).send();
            let done = Box::pin(send).await.unwrap();
            assert!(done.failed.is_empty(), "{done:?}");
        }
    }

    /// How many messages a queue has, received or not.
    async fn count(&self, queue: &str) -> usize {
        let counts = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
        ];
        let sqs = &self.sqs;
        let get = sqs.get_queue_attributes().queue_url(self.queue(queue));
        let got = get.set_attribute_names(Some(counts.to_vec())).send();
        let got = Box::pin(got).await.unwrap().attributes.unwrap();
        let count = |name| got[name].parse::<usize>().unwrap();
        counts.iter().map(count).sum()
    }

    /// Every message of the dead-letter queue, once there are so many: its body, its reason, and where it was.
    async fn buried(&self, count: usize) -> Vec<(String, Option<String>, Option<String>)> {
        until("so many are buried", async || {
            let has = self.count("dead-letter-queue").await;
            assert!(has <= count, "{has} are buried instead of {count}");
            has == count
        })
        .await;
        let (sqs, url) = (&self.sqs, self.queue("dead-letter-queue"));
        let (mut buried, mut receipts) = (Vec::new(), Vec::new());
        while buried.len() < count {
            let receive = sqs.receive_message().queue_url(&url);
            let receive = receive
                .max_number_of_messages(10)
                .message_attribute_names("All")
                .visibility_timeout(60)
                .wait_time_seconds(2);
            for message in Box::pin(receive.send()).await.unwrap().messages.unwrap() {
                let attributes = message.message_attributes.unwrap_or_default();
                let attribute_of = |name| {
                    let attribute: Option<&MessageAttributeValue> = attributes.get(name);
                    attribute.map(|value| value.string_value.clone().unwrap())
                };
                buried.push((
                    message.body.unwrap(),
                    attribute_of("reason"),
                    attribute_of("queue"),
                ));
                receipts.push(message.receipt_handle.unwrap());
            }
        }
        for (number, receipt) in receipts.iter().enumerate() {
            let entry = ChangeMessageVisibilityBatchRequestEntry::builder()
                .id(number.to_string())
                .receipt_handle(receipt)
                .visibility_timeout(0);
            let change = sqs.change_message_visibility_batch().queue_url(&url);
            let changed = change.entries(entry.build().unwrap()).send();
            assert!(Box::pin(changed).await.unwrap().failed.is_empty());
        }
        buried
    }

    /// A message of a queue, once there is one; others may receive it at once.
    async fn shown(&self, queue: &str) -> Message {
        let receive = self.sqs.receive_message().queue_url(self.queue(queue));
        let receive = receive
            .message_attribute_names("All")
            .visibility_timeout(0)
            .wait_time_seconds(1);
        found("there is a message", async || {
            let received = Box::pin(receive.clone().send()).await.unwrap();
            received.messages.unwrap_or_default().pop()
        })
        .await
    }

    /// Runs `odyssey couriers redrive`.
    async fn try_redrive(&self, arguments: &[&str]) -> Output {
        let mut command: Command = odyssey_at(&self.endpoint);
        command.args(["couriers", "redrive"]).args(arguments);
        for (key, value) in self.settings() {
            command.env(variable(key), value);
        }
        let run = tokio::task::spawn_blocking(move || command.output().unwrap());
        timeout(LONG, run).await.unwrap().unwrap()
    }

    /// What `odyssey couriers redrive` prints, line by line.
    async fn redrive(&self, arguments: &[&str]) -> Vec<String> {
        let output = self.try_redrive(arguments).await;
        assert!(output.status.success(), "{output:?}");
        let printed = String::from_utf8(output.stdout).unwrap();
        printed.lines().map(str::to_owned).collect()
    }

    /// Nothing is left anywhere.
    async fn expect_empty(&self) {
        for queue in ["events-queue", "assignments-queue"] {
            until("every message is deleted", async || {
                self.count(queue).await == 0
            })
            .await;
        }
        assert_eq!(self.count("dead-letter-queue").await, 0);
    }
}

/// The courier of an order, as soon as they are known.
async fn whose(door: Door, order: Uuid) -> String {
    found("the order has a courier", async || {
        let answer = door.ask(get(format!("/courier?orderId={order}"))).await;
        (answer.status == 200).then(|| text(&answer.json()))
    })
    .await
}

/// Waits until a courier is as described.
async fn courier_is(door: Door, id: Uuid, described: impl Fn(&Value) -> bool) {
    until("the courier is as described", async || {
        let couriers = door.ask(get("/couriers")).await.expect(200);
        let couriers = couriers["couriers"].as_array().unwrap().clone();
        let known = couriers
            .iter()
            .find(|known| known["courierId"] == json!(id));
        known.is_some_and(&described)
    })
    .await;
}

fn ids<const N: usize>() -> [Uuid; N] {
    std::array::from_fn(|_| Uuid::new_v4())
}

/// As SNS delivers it where nothing is said of raw delivery.
fn enveloped(message: &str) -> String {
    let envelope = json!({
        "Type": "Notification",
        "MessageId": Uuid::new_v4(),
        "TopicArn": "arn:aws:sns:eu-west-2:123450000001:events-topic",
        "Message": message,
        "Timestamp": "2021-07-18T10:22:10.170Z",
    });
    envelope.to_string()
}

// --- The scenario --------------------------------------------------------------------------------------------------

/// Four orders, two in the north and two in the south, before John and Fred; asked at the directory.
async fn scenario(town: &Town, dispatcher: Door, directory: Door) {
    let orders: [Uuid; 4] = ids();
    for (id, zone) in orders.iter().zip(["N", "S", "N", "S"]) {
        town.publish(&order(*id, zone)).await;
    }
    let [john, fred] = ids();
    for (id, zone) in [(john, "N"), (fred, "S")] {
        town.publish(&courier(id, zone, true)).await;
    }
    for (place, id) in orders.iter().enumerate() {
        let expected = [john, fred][place % 2].to_string();
        assert_eq!(whose(directory, *id).await, expected, "of order {place}");
    }
    let of = |places: [usize; 2]| -> BTreeSet<String> {
        places.map(|place| orders[place].to_string()).into()
    };
    assert_eq!(orders_of(directory, john).await, of([0, 2]));
    assert_eq!(orders_of(directory, fred).await, of([1, 3]));
    // Both become unavailable, so that the scenario can run again.
    for id in [john, fred] {
        let gone = patch(id, &json!({"available": false}));
        assert_eq!(dispatcher.ask(gone).await.expect(200), json!(true));
    }
    for id in [john, fred] {
        courier_is(dispatcher, id, |known| known["isAvailable"] == false).await;
    }
}

/// Plays the scenario again and again with the same two servers.
pub(crate) async fn scenarios(dispatching: &[(&str, &str)], directing: &[(&str, &str)]) {
    let town = Town::new();
    let [of_dispatcher, of_directory] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let dispatcher = town
        .open_as("dispatcher", of_dispatcher.path(), dispatching)
        .await;
    let directory = town
        .open_as("directory", of_directory.path(), directing)
        .await;
    for _ in 0..scenarios_to_run() {
        scenario(&town, dispatcher.staff, directory.staff).await;
    }
    town.expect_empty().await;
    dispatcher.close().await;
    directory.close().await;
    // After the end as before it: what was received is not lost.
    assert_eq!(town.count("dead-letter-queue").await, 0);
}

#[tokio::test]
async fn orders_published_before_their_couriers_find_them_many_times_in_a_row() {
    scenarios(&[], &[]).await;
}

/// The same with two dispatchers, who share their store.
#[cfg(feature = "redis")]
pub(crate) async fn scenarios_of_two(dispatching: &[(&str, &str)]) {
    let town = Town::new();
    let data = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let mut dispatchers = Vec::new();
    for data in &data[..2] {
        dispatchers.push(town.open_as("dispatcher", data.path(), dispatching).await);
    }
    let directory = town.open_as("directory", data[2].path(), &[]).await;
    for round in 0..scenarios_to_run() {
        let asked = if round % 2 == 0 {
            &dispatchers[0]
        } else {
            &dispatchers[1]
        };
        scenario(&town, asked.staff, directory.staff).await;
    }
    town.expect_empty().await;
    for shop in dispatchers {
        shop.close().await;
    }
    directory.close().await;
    assert_eq!(town.count("dead-letter-queue").await, 0);
}

#[tokio::test]
async fn one_server_makes_what_is_missing_under_its_own_names_and_does_everything() {
    let emulator = Emulator::start().await;
    let town = Town::at(&emulator.endpoint(), None);
    // What the emulator hands to a server that is gone is received again soon.
    let soon = [("couriers.visibility", "1s")];
    let shop = town.open(&soon).await;
    scenario(&town, shop.staff, shop.staff).await;
    town.expect_empty().await;
    shop.close().await;
    // What is there already is taken as it is.
    let shop = town.open(&soon).await;
    scenario(&town, shop.staff, shop.staff).await;
    town.expect_empty().await;
    shop.close().await;
}

// --- Deliveries as a queue may make them ---------------------------------------------------------------------------

/// Every order has one courier, and counts are what couriers were given.
async fn expect_consistent(door: Door, orders: &[Uuid]) -> BTreeMap<Uuid, String> {
    let mut holders = BTreeMap::new();
    for id in orders {
        holders.insert(*id, whose(door, *id).await);
    }
    let couriers = door.ask(get("/couriers")).await.expect(200);
    let mut given = 0;
    for courier in couriers["couriers"].as_array().unwrap() {
        let count = courier["count"].as_u64().unwrap();
        let id = text(&courier["courierId"]).parse().unwrap();
        assert_eq!(orders_of(door, id).await.len() as u64, count, "{courier}");
        given += count;
    }
    assert_eq!(given, orders.len() as u64);
    holders
}

#[tokio::test]
async fn deliveries_raw_and_enveloped_doubled_and_shuffled_come_to_one_courier_each() {
    let town = Town::new();
    let shop = town.open(&[]).await;
    let mut random = fastrand::Rng::with_seed(2142);
    let (couriers, orders): ([Uuid; 8], [Uuid; 60]) = (ids(), ids());
    let zones = ["N", "S", "E", "W"];
    let mut deliveries = Vec::new();
    let events = couriers.iter().enumerate();
    let events = events.map(|(number, id)| courier(*id, zones[number % 4], true));
    let events = events.chain(
        orders
            .iter()
            .enumerate()
            .map(|(number, id)| order(*id, zones[number % 4])),
    );
    for event in events {
        for _ in 0..random.usize(1..4) {
            let raw = event.to_string();
            deliveries.push(if random.bool() { enveloped(&raw) } else { raw });
        }
    }
    random.shuffle(&mut deliveries);
    town.put("events-queue", &deliveries).await;
    let holders = expect_consistent(shop.staff, &orders).await;
    // Assignments, too.
    let mut deliveries = Vec::new();
    for (order, courier) in &holders {
        let raw = json!({"orderId": order, "courierId": courier}).to_string();
        deliveries.extend([enveloped(&raw), raw]);
    }
    random.shuffle(&mut deliveries);
    town.put("assignments-queue", &deliveries).await;
    town.expect_empty().await;
    assert_eq!(expect_consistent(shop.staff, &orders).await, holders);
    shop.close().await;
}

// --- Announcing ----------------------------------------------------------------------------------------------------

#[tokio::test]
async fn what_a_directory_is_told_is_announced_and_decided_elsewhere() {
    let town = Town::new();
    let proxy = Proxy::before_emulator(emulator()).await;
    let hindered = Town {
        endpoint: proxy.endpoint(),
        ..town.clone()
    };
    let [of_dispatcher, of_directory] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let dispatcher = town.open_as("dispatcher", of_dispatcher.path(), &[]).await;
    let directory = hindered
        .open_as("directory", of_directory.path(), &[])
        .await;
    let [ada, bo] = ids();
    let orders: [Uuid; 25] = ids();
    let mut events: Vec<Value> = orders.iter().map(|id| order(*id, "E")).collect();
    events.push(courier(ada, "E", true));
    let outcomes = publish_events(directory.staff, &json!(events)).await;
    assert_eq!(outcomes, vec![json!({"outcome": "announced"}); 26]);
    for id in orders {
        assert_eq!(whose(directory.staff, id).await, ada.to_string());
        assert_eq!(whose(dispatcher.staff, id).await, ada.to_string());
    }
    // A courier's state is announced, whichever server receives it.
    for (door, id) in [(directory.staff, bo), (dispatcher.staff, ada)] {
        let message = json!({"name": "Bo", "zone": "W", "available": false});
        assert_eq!(door.ask(patch(id, &message)).await.expect(200), json!(true));
        courier_is(dispatcher.staff, id, |known| {
            known["name"] == "Bo" && known["zone"] == "W" && known["isAvailable"] == false
        })
        .await;
    }
    // A dispatcher decides the events that it receives.
    let outcomes = publish_events(dispatcher.staff, &order(Uuid::new_v4(), "S")).await;
    assert_eq!(outcomes, [json!({"outcome": "parked"})]);
    // An event that cannot be announced is not acknowledged.
    proxy.is_now(Way::Refused);
    let publish_events = async {
        directory
            .staff
            .connect()
            .await
            .ask(&post_events(&events[0]))
            .await
    };
    let answer = timeout(LONG, Box::pin(publish_events)).await.unwrap();
    answer.expect_problem(503, "storage-down");
    proxy.is_now(Way::Open);
    town.expect_empty().await;
    dispatcher.close().await;
    directory.close().await;
}

#[tokio::test]
async fn characters_that_xml_does_not_know_come_through_topics_and_queues_as_they_were() {
    let town = Town::new();
    let ([dispatcher, directory], _data) = town.open_both(&[]).await;
    let [id] = ids();
    let mut event = order(id, "N");
    event["details"] = json!("\u{FFFE}\u{FFFF}\u{1}\u{7F} 日本 \u{1FFFF}😀");
    let outcomes = publish_events(directory.staff, &event).await;
    assert_eq!(outcomes, [json!({"outcome": "announced"})]);
    let page = found("it is decided", async || {
        let page = dispatcher
            .staff
            .ask(get("/couriers/events"))
            .await
            .expect(200);
        (page["events"] != json!([])).then_some(page)
    })
    .await;
    assert_eq!(page["events"][0]["event"]["details"], event["details"]);
    town.expect_empty().await;
    dispatcher.close().await;
    directory.close().await;
}

/// A missing topic needs a repair first, so the answer does not wait for retries.
#[tokio::test]
async fn a_directory_without_its_topic_says_at_once_that_it_cannot_announce() {
    let town = Town::new();
    let data = tempfile::tempdir().unwrap();
    let missing = town.topic("nowhere");
    let settings = [
        ("couriers.events_topic_arn", missing.as_str()),
        ("aws.provision", "false"),
    ];
    let directory = town.open_as("directory", data.path(), &settings).await;
    let began = Instant::now();
    let answer = directory
        .staff
        .ask(post_events(&order(Uuid::new_v4(), "N")))
        .await;
    answer.expect_problem(503, "storage-down");
    assert!(began.elapsed() < Duration::from_secs(10));
    directory.close().await;
}
