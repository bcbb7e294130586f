//! Unparseable messages: each is in the dead-letter queue once, with its reason, and can be brought back.

use std::collections::BTreeSet;

use aws_sdk_sqs::types::{MessageAttributeValue, QueueAttributeName};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{ACCOUNT, Town, enveloped, ids, whose};
use crate::couriers::{courier, order};
use crate::shop::Shop;

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
    let elsewhere = attribute("String", "of-another-town");
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
