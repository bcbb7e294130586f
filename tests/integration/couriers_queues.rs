//! Couriers whose events arrive through SNS and SQS, of an emulator: no event is lost, and no good one is
//! dead-lettered.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry, Message, MessageAttributeValue, QueueAttributeName,
    SendMessageBatchRequestEntry,
};
use serde_json::{Value, json};
use testkit::aws::{Emulator, emulator, endpoint};
use testkit::proxy::{Proxy, Way};
use testkit::{found, until};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::client::{Door, get};
use crate::couriers::{
    courier, order, orders_of, patch, post_events, publish_events, scenarios_to_run,
};
use crate::emulator::odyssey_at;
use crate::shop::{Shop, text, variable};

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
        let anybody = || Credentials::new("test", "test", None, None, "test");
        let region = || Region::from_static("eu-west-2");
        let sns = aws_sdk_sns::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .credentials_provider(anybody())
            .region(region())
            .endpoint_url(endpoint);
        let sqs = aws_sdk_sqs::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .credentials_provider(anybody())
            .region(region())
            .endpoint_url(endpoint);
        Self {
            endpoint: endpoint.to_owned(),
            own,
            direct: endpoint.to_owned(),
            sns: aws_sdk_sns::Client::from_conf(sns.build()),
            sqs: aws_sdk_sqs::Client::from_conf(sqs.build()),
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

// --- Poison --------------------------------------------------------------------------------------------------------

/// Unparseable events, each with the beginning of its reason.
fn poisonous_events() -> Vec<(String, &'static str)> {
    let with = |name: &str, value: Value| {
        let mut event = order(Uuid::new_v4(), "N");
        event[name] = value;
        event.to_string()
    };
    let mut half = order(Uuid::new_v4(), "N");
    half.as_object_mut().unwrap().remove("addedAt");
    vec![
        ("nonsense".to_owned(), "It is not JSON: "),
        ("{\"orderId\": \"".to_owned(), "It is not JSON: "),
        ("[]".to_owned(), "It must be an object."),
        ("{}".to_owned(), "It is no event: it has neither"),
        (
            with("courierId", json!(Uuid::nil())),
            "It is no event: it has both",
        ),
        (with("orderId", json!("seven")), "/orderId: "),
        (with("zone", json!("north")), "/zone: "),
        (with("addedAt", json!("yesterday")), "/addedAt: "),
        (half.to_string(), "/addedAt: This field is missing."),
        (enveloped("nonsense"), "In the envelope: It is not JSON: "),
    ]
}

/// Assignments of that kind.
fn poisonous_assignments() -> Vec<(String, &'static str)> {
    let [order_id, courier_id] = ids();
    let of =
        |order: Value, courier: Value| json!({"orderId": order, "courierId": courier}).to_string();
    vec![
        ("nonsense".to_owned(), "It is not JSON: "),
        ("\u{feff}{}".to_owned(), "It is not JSON: "),
        ("7".to_owned(), "It must be an object."),
        (
            "{}".to_owned(),
            "/orderId: This field is missing. /courierId: This",
        ),
        (json!({"orderId": order_id}).to_string(), "/courierId: "),
        (json!({"courierId": courier_id}).to_string(), "/orderId: "),
        (
            of(json!("x"), json!(courier_id)),
            "/orderId: It must be a UUID.",
        ),
        (
            of(json!(order_id), json!(null)),
            "/courierId: This field is missing.",
        ),
        (of(json!([order_id]), json!(courier_id)), "/orderId: "),
        (enveloped("{}"), "/orderId: "),
    ]
}

/// Each in the dead-letter queue once, unchanged, with its reason and where it was.
#[track_caller]
fn expect_buried(
    buried: &[(String, Option<String>, Option<String>)],
    queue: &str,
    poison: &[(String, &str)],
) {
    for (body, begins) in poison {
        let is = |found: &&(String, Option<String>, Option<String>)| {
            found.0 == *body && found.2.as_deref() == Some(queue)
        };
        let [(_, reason, _)] = buried.iter().filter(is).collect::<Vec<_>>()[..] else {
            panic!("once: {body} of {queue} in {buried:?}")
        };
        let reason = reason.as_deref().unwrap();
        assert!(reason.starts_with(begins), "{body}: {reason}");
    }
}

/// What was put into the queues.
struct Poisoned {
    events: Vec<(String, &'static str)>,
    assignments: Vec<(String, &'static str)>,
    /// The courier who gets every order.
    ada: Uuid,
    /// The courier of the good assignments; no event was sent of them.
    stranger: Uuid,
}

impl Poisoned {
    /// Poison and good messages by turns in both queues; returns once the good ones are answered.
    async fn drunk(town: &Town, shop: &Shop) -> Self {
        let [ada, stranger] = ids();
        let (events, assignments) = (poisonous_events(), poisonous_assignments());
        let first = courier(ada, "N", true).to_string();
        town.put("events-queue", &[first]).await;
        let (mut into_events, mut into_assignments) = (Vec::new(), Vec::new());
        let (orders, learned): ([Uuid; 10], [Uuid; 10]) = (ids(), ids());
        for number in 0..10 {
            into_events.push(events[number].0.clone());
            into_events.push(order(orders[number], "N").to_string());
            into_assignments.push(assignments[number].0.clone());
            let good = json!({"orderId": learned[number], "courierId": stranger});
            into_assignments.push(good.to_string());
        }
        town.put("events-queue", &into_events).await;
        town.put("assignments-queue", &into_assignments).await;
        for number in 0..10 {
            assert_eq!(whose(shop.staff, orders[number]).await, ada.to_string());
            let courier = whose(shop.staff, learned[number]).await;
            assert_eq!(courier, stranger.to_string());
        }
        Self {
            events,
            assignments,
            ada,
            stranger,
        }
    }

    /// All of it is buried, once, beside so many others.
    async fn expect_buried(&self, town: &Town, others: usize) {
        let buried = town.buried(20 + others).await;
        expect_buried(&buried, &town.name("events-queue"), &self.events);
        expect_buried(&buried, &town.name("assignments-queue"), &self.assignments);
    }
}

#[tokio::test]
async fn poison_of_ten_kinds_is_buried_with_its_reason_and_holds_nobody_up() {
    let town = Town::new();
    let shop = town.open(&[]).await;
    let poison = Poisoned::drunk(&town, &shop).await;
    poison.expect_buried(&town, 0).await;
    let now = shop.metrics().await;
    let of = |queue, step| {
        let series = "odyssey_couriers_messages_total";
        now.count(&format!("{series}{{queue=\"{queue}\",step=\"{step}\"}}"))
    };
    assert_eq!(of("events", "poison"), 10, "{now}");
    assert_eq!(of("assignments", "poison"), 10, "{now}");
    assert_eq!(of("events", "kept"), 11, "{now}");
    shop.close().await;
}

#[tokio::test]
async fn what_is_brought_back_goes_through_if_it_was_mended_and_comes_back_once_if_not() {
    let town = Town::new();
    let shop = town.open(&[]).await;
    let poison = Poisoned::drunk(&town, &shop).await;
    poison.expect_buried(&town, 0).await;

    // Listed, they stay.
    let listed = town.redrive(&["--dry-run"]).await;
    assert_eq!(listed.len(), 21, "{listed:#?}");
    for (queue, reason) in [
        ("events-queue", "It is no event: it has both"),
        ("assignments-queue", "/orderId: It must be a UUID."),
    ] {
        let queue = town.name(queue);
        let mut lines = listed.iter();
        let publish_events = lines.any(|line| line.contains(&queue) && line.contains(reason));
        assert!(publish_events, "{listed:#?}");
    }
    let last = "would go 10 to the queue of events, 10 to the queue of assignments; left: 0 of unknown queues, \
                0 that came during the run";
    assert_eq!(listed[20], last);
    poison.expect_buried(&town, 0).await;

    // Two messages were corrected by hand, and one names another deployment's queue.
    let [mended, publish_events] = ids();
    let by_hand = [
        order(mended, "N").to_string(),
        json!({"orderId": publish_events, "courierId": poison.stranger}).to_string(),
    ];
    town.put("dead-letter-queue", &by_hand).await;
    let elsewhere = MessageAttributeValue::builder().data_type("String");
    let elsewhere = elsewhere.string_value("of-another-town").build().unwrap();
    let send = town.sqs.send_message().message_body("{}");
    let send = send.queue_url(town.queue("dead-letter-queue"));
    Box::pin(send.message_attributes("queue", elsewhere).send())
        .await
        .unwrap();
    let message = town.redrive(&[]).await;
    let [message] = &message[..] else {
        panic!("{message:#?}")
    };
    let begins =
        "11 to the queue of events, 11 to the queue of assignments; left: 1 of unknown queues";
    assert!(message.starts_with(begins), "{message}");
    assert_eq!(whose(shop.staff, mended).await, poison.ada.to_string());
    assert_eq!(
        whose(shop.staff, publish_events).await,
        poison.stranger.to_string()
    );
    poison.expect_buried(&town, 1).await;
    shop.close().await;
}

/// An attribute of a message.
fn attribute(kind: &str, value: &str) -> MessageAttributeValue {
    let attribute = MessageAttributeValue::builder().data_type(kind);
    attribute.string_value(value).build().unwrap()
}

#[tokio::test]
async fn poison_has_its_own_attributes_in_the_dead_letter_queue_and_when_it_is_brought_back() {
    let town = Town::new();
    let shop = town.open(&[]).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let own = [
        ("traceparent", attribute("String", trace)),
        ("attempt", attribute("Number", "7")),
    ];
    let mut send = town.sqs.send_message().message_body("nonsense");
    send = send.queue_url(town.queue("events-queue"));
    for (name, value) in own.clone() {
        send = send.message_attributes(name, value);
    }
    Box::pin(send.send()).await.unwrap();
    let buried = town.shown("dead-letter-queue").await;
    assert_eq!(buried.body(), Some("nonsense"));
    let attributes = buried.message_attributes.unwrap();
    for (name, value) in &own {
        let found = &attributes[*name];
        assert_eq!(
            (found.string_value(), found.data_type()),
            (value.string_value(), value.data_type())
        );
    }
    let text = |name: &str| attributes[name].string_value().unwrap();
    assert!(text("reason").starts_with("It is not JSON: "));
    assert_eq!(text("queue"), town.name("events-queue"));
    // The shop closes first, so that it does not receive the message from that queue.
    shop.close().await;
    town.redrive(&[]).await;
    let back = town.shown("events-queue").await;
    assert_eq!(back.body(), Some("nonsense"));
    let back = back.message_attributes.unwrap();
    let names: BTreeSet<&str> = back.keys().map(String::as_str).collect();
    assert_eq!(names, ["attempt", "traceparent"].into());
    assert_eq!(back["traceparent"].string_value(), Some(trace));
}

#[tokio::test]
async fn a_dead_letter_queue_that_gives_messages_up_itself_is_not_looked_into() {
    let town = Town::new();
    town.open(&[]).await.close().await;
    let queue = town.queue("dead-letter-queue");
    town.put("dead-letter-queue", &["nonsense".to_owned()])
        .await;
    let spare = town.sqs.create_queue().queue_name(town.name("spare"));
    Box::pin(spare.send()).await.unwrap();
    let target = format!("arn:aws:sqs:eu-west-2:{ACCOUNT}:{}", town.name("spare"));
    let policy = json!({"deadLetterTargetArn": target, "maxReceiveCount": 1}).to_string();
    let set = town.sqs.set_queue_attributes().queue_url(&queue);
    let set = set.attributes(QueueAttributeName::RedrivePolicy, policy);
    Box::pin(set.send()).await.unwrap();
    for _ in 0..3 {
        let output = town.try_redrive(&["--dry-run"]).await;
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(
            message.contains("redrive policy") && message.contains("--dry-run"),
            "{message}"
        );
    }
    assert_eq!(town.count("dead-letter-queue").await, 1);
    assert_eq!(town.count("spare").await, 0);
}

/// There is no room for a reason beside it.
#[tokio::test]
async fn poison_as_large_as_a_message_may_be_is_buried_too() {
    let town = Town::new();
    let shop = town.open(&[]).await;
    let [ada, order_id] = ids();
    let large = "x".repeat(256 << 10);
    let large = std::slice::from_ref(&large);
    town.put("events-queue", large).await;
    let good = [courier(ada, "N", true), order(order_id, "N")];
    town.put("events-queue", &good.map(|event| event.to_string()))
        .await;
    assert_eq!(whose(shop.staff, order_id).await, ada.to_string());
    let buried = town.buried(1).await;
    assert!(buried[0].0 == large[0]);
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
    let [of_dispatcher, of_directory] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let dispatcher = town.open_as("dispatcher", of_dispatcher.path(), &[]).await;
    let directory = town.open_as("directory", of_directory.path(), &[]).await;
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

// --- Outages -------------------------------------------------------------------------------------------------------

const UNPUBLISHED: &str = "odyssey_couriers_message_retries_total{step=\"publish\"}";
/// An outage that is longer than one try of a call may take, and than messages are invisible.
const OUTAGE: Duration = Duration::from_secs(6);

#[tokio::test]
async fn an_emulator_that_is_stopped_in_the_midst_of_a_stream_loses_nothing() {
    let emulator = Emulator::start().await;
    let town = Town::at(&emulator.endpoint(), None);
    let shop = town.open(&[("couriers.visibility", "2s")]).await;
    let couriers: [Uuid; 4] = ids();
    for (id, zone) in couriers.iter().zip(["N", "S", "E", "W"]) {
        town.publish(&courier(*id, zone, true)).await;
    }
    let (published, posted): ([Uuid; 120], [Uuid; 40]) = (ids(), ids());
    let stream = {
        let town = town.clone();
        tokio::spawn(async move {
            for id in published {
                town.publish(&order(id, "N")).await;
            }
        })
    };
    whose(shop.staff, published[20]).await;
    emulator.process.freeze();
    let began = Instant::now();
    for id in posted {
        publish_events(shop.staff, &order(id, "S")).await;
    }
    sleep(OUTAGE.saturating_sub(began.elapsed())).await;
    emulator.process.thaw();
    timeout(LONG, stream).await.unwrap().unwrap();
    let all = [&published[..], &posted[..]].concat();
    expect_consistent(shop.staff, &all).await;
    town.expect_empty().await;
    shop.close().await;
}

/// All calls go to the SDK's region, whatever the configuration names.
#[tokio::test]
async fn a_region_that_is_not_the_topics_stops_the_start() {
    let town = Town::new();
    let dir = tempfile::tempdir().unwrap();
    let mut command = odyssey_at(&town.endpoint);
    command.arg("serve").current_dir(dir.path());
    for (key, value) in town.settings() {
        command.env(variable(key), value);
    }
    command.env("AWS_REGION", "eu-west-1");
    let run = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = timeout(LONG, run).await.unwrap().unwrap();
    assert!(!output.status.success(), "{output:?}");
    let message = String::from_utf8(output.stderr).unwrap();
    for word in ["`couriers.events_topic_arn`", "`AWS_REGION=eu-west-2`"] {
        assert!(message.contains(word), "{message}");
    }
}

/// Waits until readiness has this status for the queues.
async fn until_messages_are(shop: &Shop, status: u16) {
    until("readiness tells how messages are", async || {
        let ready = shop.staff.ask(get("/readyz/messages")).await;
        ready.status == status
    })
    .await;
}

#[tokio::test]
async fn what_is_decided_while_the_emulator_is_gone_is_told_when_it_is_back() {
    let emulator = Emulator::start().await;
    let town = Town::at(&emulator.endpoint(), None);
    let [of_dispatcher, of_directory] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let dispatcher = town.open_as("dispatcher", of_dispatcher.path(), &[]).await;
    let directory = town.open_as("directory", of_directory.path(), &[]).await;
    scenario(&town, dispatcher.staff, directory.staff).await;
    let address = emulator.address;
    drop(emulator);
    let [ada] = ids();
    publish_events(dispatcher.staff, &courier(ada, "W", true)).await;
    let orders: [Uuid; 30] = ids();
    for id in orders {
        let outcomes = publish_events(dispatcher.staff, &order(id, "W")).await;
        assert_eq!(outcomes, [json!({"outcome": "assigned", "courierId": ada})]);
    }
    until("it is noticed", async || {
        dispatcher.metrics().await.count(UNPUBLISHED) > 0
    })
    .await;
    for shop in [&dispatcher, &directory] {
        until_messages_are(shop, 503).await;
        // Events over HTTP are still decided.
        shop.staff.ask(get("/readyz/couriers")).await.expect(200);
    }
    // It has forgotten every topic and queue.
    let emulator = Emulator::start_at(address).await;
    for id in orders {
        assert_eq!(whose(directory.staff, id).await, ada.to_string());
    }
    for shop in [&dispatcher, &directory] {
        until_messages_are(shop, 200).await;
    }
    scenario(&town, dispatcher.staff, directory.staff).await;
    town.expect_empty().await;
    dispatcher.close().await;
    directory.close().await;
    drop(emulator);
}

#[tokio::test]
async fn servers_that_are_killed_in_the_midst_of_a_stream_lose_nothing() {
    let town = Town::new();
    let [of_dispatcher, of_directory] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let soon = [("couriers.visibility", "1s")];
    let mut dispatcher = town
        .open_as("dispatcher", of_dispatcher.path(), &soon)
        .await;
    let mut directory = town.open_as("directory", of_directory.path(), &soon).await;
    let [ada, bo] = ids();
    for id in [ada, bo] {
        town.publish(&courier(id, "N", true)).await;
    }
    let mut random = fastrand::Rng::with_seed(2142);
    let mut orders = Vec::new();
    for round in 0..8 {
        let some: [Uuid; 25] = ids();
        let stream = {
            let town = town.clone();
            tokio::spawn(async move {
                for id in some {
                    town.publish(&order(id, "N")).await;
                }
            })
        };
        orders.extend(some);
        // The first of the round is known: the stream is under way.
        whose(directory.staff, some[random.usize(..5)]).await;
        sleep(Duration::from_millis(random.u64(..50))).await;
        if round % 2 == 0 {
            dispatcher.crash().await;
            dispatcher = town
                .open_as("dispatcher", of_dispatcher.path(), &soon)
                .await;
        } else {
            directory.crash().await;
            directory = town.open_as("directory", of_directory.path(), &soon).await;
        }
        timeout(LONG, stream).await.unwrap().unwrap();
    }
    let holders = expect_consistent(dispatcher.staff, &orders).await;
    for (order, courier) in holders {
        assert_eq!(whose(directory.staff, order).await, courier);
    }
    town.expect_empty().await;
    dispatcher.close().await;
    directory.close().await;
}
