//! The package desk: its answers to senders and recipients, by situation.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::Barrier;

use crate::client::{Ask, Door, delete, get, put, send, within};
use crate::durability::open;
use crate::shop::Shop;

const NOON: &str = "2142-05-01T12:00:00Z";

/// A package that is in order: marketing, from berta to ada.
pub(crate) fn package(id: impl Into<Value>) -> Value {
    json!({
        "timestamp": NOON, "sender_id": "berta", "recipient_id": "ada", "package_id": id.into(),
        "package_type": "marketing",
    })
}

/// An object with one field changed.
pub(crate) fn with(object: &Value, field: &str, value: impl Into<Value>) -> Value {
    let mut changed = object.clone();
    changed[field] = value.into();
    changed
}

/// What ada says of personal packages and of marketing.
pub(crate) fn preferences(timestamp: impl Into<Value>, personal: bool, marketing: bool) -> Value {
    json!({
        "timestamp": timestamp.into(), "recipient_id": "ada", "personal_preference": personal,
        "marketing_preference": marketing,
    })
}

pub(crate) fn put_preferences(preferences: &Value) -> Ask {
    put("/preferences").json(preferences)
}

/// What both listeners say, which is the same.
pub(crate) async fn statistics(shop: &Shop) -> Value {
    let customers = shop.customers.ask(get("/statistics")).await.expect(200);
    let staff = shop.staff.ask(get("/statistics")).await.expect(200);
    assert_eq!(customers, staff);
    customers
}

/// The statistics of the usual two types: delivered and dropped of each, and what was rejected.
pub(crate) fn counted(personal: [u64; 2], marketing: [u64; 2], rejected: u64) -> Value {
    let tally =
        |[delivered, dropped]: [u64; 2]| json!({"delivered": delivered, "dropped": dropped});
    json!({
        "packages_delivered": personal[0] + marketing[0],
        "packages_dropped": personal[1] + marketing[1],
        "requests_rejected": rejected,
        "by_type": {"personal": tally(personal), "marketing": tally(marketing)},
    })
}

/// Sends it for the first time; where to ask for it.
async fn first(shop: &Shop, package: &Value) -> (String, Value) {
    let answer = shop.customers.ask(send(package)).await;
    let mut body = answer.expect(201);
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer}");
    assert_eq!(remove(&mut body, "duplicate"), json!(false), "{answer}");
    let location = answer.header("location").unwrap().to_owned();
    let found = shop.customers.ask(get(location.as_str())).await;
    assert_eq!(found.expect(200), body, "{location}");
    assert_eq!(found.header("cache-control"), Some("no-store"), "{found}");
    (location, body)
}

/// Sends it again: nothing happens, and the answer is the first one's.
async fn again(shop: &Shop, package: &Value, first: &Value, mismatch: bool) {
    let before = statistics(shop).await;
    let answer = shop.customers.ask(send(package)).await;
    let mut expected = with(first, "duplicate", true);
    if mismatch {
        expected["mismatch"] = json!(true);
    }
    assert_eq!(answer.expect(200), expected);
    assert_eq!(answer.header("location"), None, "{answer}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer}");
    assert_eq!(statistics(shop).await, before);
}

fn remove(object: &mut Value, field: &str) -> Value {
    let removed = object.as_object_mut().unwrap().remove(field);
    removed.unwrap_or_else(|| panic!("{field} is missing: {object}"))
}

// --- Sending -------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_package_is_delivered_once_however_often_it_is_sent() {
    let shop = Shop::open(&[]).await;
    let (location, delivered) = first(&shop, &package("p-1")).await;
    assert_eq!(location, "/packages/p-1");
    assert_eq!(
        delivered,
        json!({"package_id": "p-1", "package_type": "marketing", "status": "delivered"})
    );
    for _ in 0..3 {
        again(&shop, &package("p-1"), &delivered, false).await;
    }
    first(&shop, &with(&package("p-2"), "package_type", "personal")).await;
    assert_eq!(statistics(&shop).await, counted([1, 0], [1, 0], 0));
    let now = shop.metrics().await;
    for (result, count) in [("delivered", 2), ("duplicate", 3), ("mismatch", 0)] {
        let sent = format!("odyssey_packages_sent_total{{result=\"{result}\"}}");
        assert_eq!(now.count(&sent), count, "{result}");
    }
    shop.close().await;
}

#[tokio::test]
async fn a_package_that_is_sent_again_with_other_fields_is_told_so_and_nothing_changes() {
    let shop = Shop::open(&[]).await;
    let sent = package("p");
    let (_, delivered) = first(&shop, &sent).await;
    for (field, other) in [
        ("timestamp", "2142-05-01T12:00:00.000001Z"),
        ("sender_id", "Berta"),
        ("recipient_id", "carla"),
        ("package_type", "personal"),
    ] {
        again(&shop, &with(&sent, field, other), &delivered, true).await;
    }
    // The same in other words, and what the desk does not know, are no mismatch.
    let noon: Timestamp = NOON.parse().unwrap();
    for (field, same) in [
        ("timestamp", json!(noon.as_second())),
        (
            "timestamp",
            json!(format!("{}.0", noon.as_second()).parse::<f64>().unwrap()),
        ),
        ("timestamp", json!("2142-05-01T14:00:00+02:00")),
        ("weight", json!(7)),
    ] {
        again(&shop, &with(&sent, field, same), &delivered, false).await;
    }
    assert_eq!(statistics(&shop).await, counted([0, 0], [1, 0], 0));
    shop.close().await;
}

#[tokio::test]
async fn what_its_recipient_has_declined_is_dropped_and_stays_dropped() {
    let shop = Shop::open(&[]).await;
    let ask = put_preferences(&preferences(NOON, true, false));
    shop.customers.ask(ask).await.expect(200);
    let (_, dropped) = first(&shop, &package("p")).await;
    assert_eq!(
        dropped,
        json!({
            "package_id": "p", "package_type": "marketing", "status": "dropped",
            "reason": "recipient declined marketing", "preference_timestamp": "2142-05-01T12:00:00.000000Z",
        })
    );
    // Of the other type, or to another recipient, it is delivered.
    let (_, personal) = first(&shop, &with(&package("q"), "package_type", "personal")).await;
    assert_eq!(personal["status"], "delivered");
    assert_eq!(
        personal["preference_timestamp"],
        dropped["preference_timestamp"]
    );
    let (_, other) = first(&shop, &with(&package("r"), "recipient_id", "carla")).await;
    assert_eq!(other["status"], "delivered");
    let later = "2142-05-01T12:00:01.000000Z";
    let ask = put_preferences(&preferences(later, true, true));
    assert_eq!(shop.customers.ask(ask).await.expect(200)["applied"], true);
    again(&shop, &package("p"), &dropped, false).await;
    let (_, delivered) = first(&shop, &package("s")).await;
    assert_eq!(delivered["status"], "delivered");
    assert_eq!(delivered["preference_timestamp"], later);
    assert_eq!(statistics(&shop).await, counted([1, 0], [2, 1], 0));
    shop.close().await;
}

#[tokio::test]
async fn of_64_who_send_the_same_package_at_once_one_is_told_that_it_was_the_first() {
    let shop = Shop::open(&[]).await;
    let start = Arc::new(Barrier::new(64));
    let senders: Vec<_> = (0..64)
        .map(|_| {
            let (door, start) = (shop.customers, Arc::clone(&start));
            tokio::spawn(async move {
                let mut connection = door.connect().await;
                start.wait().await;
                connection.ask(&send(&package("p"))).await
            })
        })
        .collect();
    let mut first = 0;
    for sender in senders {
        let answer = within("a sender is answered", sender).await.unwrap();
        let created = answer.status == 201;
        let body = answer.expect(if created { 201 } else { 200 });
        assert_eq!(body["status"], "delivered", "{answer}");
        assert_eq!(body["duplicate"], !created, "{answer}");
        first += u64::from(created);
    }
    assert_eq!(first, 1);
    assert_eq!(statistics(&shop).await, counted([0, 0], [1, 0], 0));
    shop.close().await;
}

// --- Ids and times -------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_package_nobody_has_sent_and_an_id_that_is_none_are_told_apart() {
    let shop = Shop::open(&[]).await;
    first(&shop, &package("p")).await;
    let answer = shop.customers.ask(get("/packages/P")).await;
    answer.expect_problem(404, "package-unknown");
    for (of, parameter) in [("packages", "package_id"), ("preferences", "recipient_id")] {
        let too_long = format!("/{of}/{}", "x".repeat(129));
        let answer = shop.customers.ask(get(too_long)).await;
        let problem = answer.expect_problem(422, "invalid");
        assert_eq!(problem["errors"][0]["parameter"], parameter, "{answer}");
        let answer = shop.customers.ask(get(format!("/{of}/%FF"))).await;
        answer.expect_problem(400, "unreadable");
    }
    // These are questions: nothing was to be processed, so nothing was rejected.
    assert_eq!(statistics(&shop).await, counted([0, 0], [1, 0], 0));
    shop.close().await;
}

#[tokio::test]
async fn a_number_is_an_id_as_its_decimal_text() {
    let shop = Shop::open(&[]).await;
    let refusal = with(&preferences(1, true, false), "recipient_id", 8);
    let taken = shop.customers.ask(put_preferences(&refusal)).await;
    assert_eq!(taken.expect(200)["recipient_id"], "8");
    for (number, digits) in [
        (json!(u64::MAX), "18446744073709551615"),
        (json!(i64::MIN), "-9223372036854775808"),
    ] {
        let mut sent = with(&package(number), "sender_id", 7);
        sent["recipient_id"] = json!(8);
        let (_, found) = first(&shop, &sent).await;
        assert_eq!(found["package_id"], digits);
        assert_eq!(found["status"], "dropped");
        let mut same = with(&package(digits), "sender_id", "7");
        same["recipient_id"] = json!("8");
        again(&shop, &same, &found, false).await;
    }
    shop.close().await;
}

// --- Preferences ---------------------------------------------------------------------------------------------------

#[tokio::test]
async fn the_latest_word_holds_and_of_two_at_the_same_time_the_refusal() {
    let shop = Shop::open(&[]).await;
    let stranger = shop.customers.ask(get("/preferences/ada")).await;
    assert_eq!(stranger.header("cache-control"), Some("no-store"));
    assert_eq!(
        stranger.expect(200),
        json!({"recipient_id": "ada", "personal_preference": true, "marketing_preference": true})
    );
    // Time, what is said of personal and of marketing, what holds of them then, and whether all of it does.
    for (second, message, holds, applied) in [
        (10, [true, false], [true, false], true),
        (9, [false, true], [true, false], false),
        (10, [true, true], [true, false], false),
        (10, [false, true], [false, false], false),
        (11, [true, true], [true, true], true),
    ] {
        let ask = put_preferences(&preferences(second, message[0], message[1]));
        let answer = shop.customers.ask(ask).await;
        let holding = json!({
            "recipient_id": "ada", "personal_preference": holds[0], "marketing_preference": holds[1],
        });
        let body = answer.expect(200);
        assert_eq!(body, with(&holding, "applied", applied), "{second}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let found = shop.customers.ask(get("/preferences/ada")).await;
        assert_eq!(found.expect(200), holding);
    }
    let now = shop.metrics().await;
    for (result, count) in [("applied", 2), ("outdated", 3)] {
        let updates = format!("odyssey_packages_preferences_total{{result=\"{result}\"}}");
        assert_eq!(now.count(&updates), count, "{result}");
    }
    assert_eq!(statistics(&shop).await, counted([0, 0], [0, 0], 0));
    shop.close().await;
}

#[tokio::test]
async fn a_recipient_who_is_shut_out_by_a_far_timestamp_is_let_in_by_a_reset_that_a_crash_does_not_undo()
 {
    let data = tempfile::tempdir().unwrap();
    let shop = open(data.path(), &[]).await;
    let taken = |answer: &Value| {
        let takes = |name: &str| answer[name].as_bool().unwrap();
        (takes("personal_preference"), takes("marketing_preference"))
    };
    let far = preferences("9999-01-01T00:00:00Z", false, false);
    shop.customers.ask(put_preferences(&far)).await.expect(200);
    let own = preferences(NOON, true, false);
    let shut_out = shop.customers.ask(put_preferences(&own)).await.expect(200);
    assert_eq!(shut_out["applied"], false);
    // The public listener has no reset.
    let answer = shop.customers.ask(delete("/preferences/ada")).await;
    assert_eq!(answer.status, 405, "{answer}");
    let answer = shop.staff.ask(delete("/preferences/..")).await;
    answer.expect_problem(422, "invalid");
    for recipient in ["ada", "ada", "stranger"] {
        let path = format!("/preferences/{recipient}");
        let defaults = shop.staff.ask(delete(path.as_str())).await.expect(200);
        assert_eq!(
            defaults,
            json!({"recipient_id": recipient, "personal_preference": true, "marketing_preference": true})
        );
    }
    let resets = "odyssey_packages_preferences_total{result=\"reset\"}";
    assert_eq!(shop.metrics().await.count(resets), 3);
    shop.crash().await;
    let shop = open(data.path(), &[]).await;
    let found = shop.customers.ask(get("/preferences/ada")).await;
    assert_eq!(taken(&found.expect(200)), (true, true));
    // Even one that was on its way when the register was reset.
    let early = preferences(1, false, true);
    let applied = shop.customers.expect(put_preferences(&early), 200).await;
    assert_eq!(
        (&applied["applied"], taken(&applied)),
        (&json!(true), (false, true))
    );
    let applied = shop.customers.ask(put_preferences(&own)).await.expect(200);
    assert_eq!(
        (&applied["applied"], taken(&applied)),
        (&json!(true), (true, false))
    );
    shop.close().await;
}

#[tokio::test]
async fn a_preference_from_further_in_the_future_than_is_configured_is_refused() {
    let shop = Shop::open(&[("packages.future_max", "1h")]).await;
    let in_hours = |hours: i64| {
        let then = Timestamp::now() + SignedDuration::from_mins(60 * hours - 30);
        preferences(then.to_string(), false, false)
    };
    for far in [in_hours(2), preferences(NOON, false, false)] {
        let answer = shop.customers.ask(put_preferences(&far)).await;
        let problem = answer.expect_problem(422, "invalid");
        assert_eq!(problem["errors"][0]["pointer"], "/timestamp", "{problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("packages.future_max"), "{detail}");
    }
    for near in [preferences(1, true, true), in_hours(1)] {
        let answer = shop.customers.ask(put_preferences(&near)).await.expect(200);
        assert_eq!(answer["applied"], true);
    }
    // What orders nothing may be of any time.
    first(&shop, &package("p")).await;
    shop.close().await;
}

// --- Types ---------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_further_type_is_a_line_of_configuration_and_may_want_to_be_asked_for() {
    let settings = [
        ("packages.types", "personal,marketing,newsletter"),
        ("packages.opt_in", "newsletter"),
    ];
    let shop = Shop::open(&settings).await;
    let newsletter = |id: &str| with(&package(id), "package_type", "newsletter");
    // Left out it stays as it is; null asks for nothing.
    let unsaid = |second: u64| preferences(second, true, false);
    let said = |second: u64, wish: Value| with(&unsaid(second), "newsletter_preference", wish);
    for (update, holds, reason) in [
        (unsaid(1), false, "recipient did not ask for newsletter"),
        (
            said(2, json!(null)),
            false,
            "recipient did not ask for newsletter",
        ),
        (said(3, json!(true)), true, ""),
        (unsaid(4), true, ""),
        (
            said(5, json!(false)),
            false,
            "recipient declined newsletter",
        ),
    ] {
        let taken = shop.customers.ask(put_preferences(&update)).await;
        let taken = taken.expect(200);
        assert_eq!(taken["applied"], true);
        assert_eq!(taken["newsletter_preference"], holds, "{update}");
        let id = update["timestamp"].to_string();
        let (_, sent) = first(&shop, &newsletter(&id)).await;
        let status = if holds { "delivered" } else { "dropped" };
        assert_eq!(sent["status"], status);
        assert_eq!(sent["reason"].as_str().unwrap_or_default(), reason);
    }
    let wrong = put_preferences(&said(6, json!("yes")));
    let problem = shop.customers.expect_problem(wrong, 422, "invalid").await;
    assert_eq!(problem["errors"][0]["pointer"], "/newsletter_preference");
    let mut expected = counted([0, 0], [0, 0], 1);
    expected["packages_delivered"] = json!(2);
    expected["packages_dropped"] = json!(3);
    expected["by_type"]["newsletter"] = json!({"delivered": 2, "dropped": 3});
    assert_eq!(statistics(&shop).await, expected);
    shop.close().await;
}

// --- Looking -------------------------------------------------------------------------------------------------------

/// The statistics' `ETag`, and what they are.
async fn page(door: Door) -> (String, Value) {
    let answer = door.ask(get("/statistics")).await;
    let body = answer.expect(200);
    assert_eq!(answer.header("cache-control"), Some("no-cache"), "{answer}");
    let etag = answer.header("etag").unwrap().to_owned();
    let known = get("/statistics").header("If-None-Match", etag.as_str());
    let unchanged = door.ask(known).await;
    assert_eq!(unchanged.status, 304, "{unchanged}");
    assert_eq!(unchanged.body.len(), 0, "{unchanged}");
    assert_eq!(unchanged.header("etag"), Some(etag.as_str()), "{unchanged}");
    (etag, body)
}

#[tokio::test]
async fn the_statistics_begin_with_zeros_and_are_told_once_to_who_has_them() {
    let shop = Shop::open(&[]).await;
    let (empty, body) = page(shop.customers).await;
    assert_eq!(body, counted([0, 0], [0, 0], 0));
    assert_eq!(page(shop.staff).await, (empty.clone(), body));
    first(&shop, &package("p")).await;
    for door in [shop.customers, shop.staff] {
        let known = get("/statistics").header("If-None-Match", empty.as_str());
        let changed = door.ask(known).await;
        assert_eq!(changed.expect(200), counted([0, 0], [1, 0], 0));
    }
    let (one, _) = page(shop.customers).await;
    assert_ne!(one, empty);
    // A repetition changes nothing; a malformed request does.
    shop.customers.ask(send(&package("p"))).await.expect(200);
    assert_eq!(page(shop.staff).await.0, one);
    shop.customers.ask(send(&json!({}))).await.expect(422);
    assert_eq!(page(shop.staff).await.1, counted([0, 0], [1, 0], 1));
    shop.close().await;
}
