//! The package desk: its answers to senders and recipients, by situation.

use std::collections::BTreeSet;
use std::sync::Arc;

use hyper::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::Barrier;

use crate::client::{Answer, Ask, Door, delete, get, post, put, send, within};
use crate::durability::open;
use crate::shop::{Shop, odyssey, variable};

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
async fn an_id_of_any_characters_is_found_where_the_answer_says() {
    let shop = Shop::open(&[]).await;
    let longest = "ü".repeat(128);
    let ids = [
        "a/b c?ü",
        "a%2Fb",
        "%",
        "#",
        "...",
        "a/..b",
        "/",
        "a+b",
        "a&b=c",
        "{id}",
        "\"'\\",
        "日本",
        "p",
        "P",
        " p",
        "'; DROP TABLE packages",
        &longest,
    ];
    let mut locations = BTreeSet::new();
    for id in ids {
        let (location, found) = first(&shop, &package(id)).await;
        assert_eq!(found["package_id"], id);
        let encoded = |c: char| c.is_ascii_alphanumeric() || "%/-_~".contains(c);
        assert!(location.chars().all(encoded), "{location}");
        // Nor does a recipient's name matter.
        let name = location.replace("/packages/", "/preferences/");
        let found = shop.customers.ask(get(name)).await.expect(200);
        assert_eq!(found["recipient_id"], id);
        assert!(locations.insert(location), "{id:?}");
    }
    assert_eq!(
        statistics(&shop).await["packages_delivered"],
        ids.len(),
        "each is a package of its own"
    );
    shop.close().await;
}

#[tokio::test]
async fn a_package_nobody_has_sent_and_an_id_that_is_none_are_told_apart() {
    let shop = Shop::open(&[]).await;
    first(&shop, &package("p")).await;
    for path in ["/packages/q", "/packages/P", "/packages/p%20"] {
        let answer = shop.customers.ask(get(path)).await;
        answer.expect_problem(404, "package-unknown");
    }
    let too_long = "x".repeat(129);
    for (path, parameter) in [
        (format!("/packages/{too_long}"), "package_id"),
        (format!("/preferences/{too_long}"), "recipient_id"),
    ] {
        let answer = shop.customers.ask(get(path)).await;
        let problem = answer.expect_problem(422, "invalid");
        assert_eq!(problem["errors"][0]["parameter"], parameter, "{answer}");
    }
    for path in ["/packages/%FF", "/preferences/%FF"] {
        let answer = shop.customers.ask(get(path)).await;
        answer.expect_problem(400, "unreadable");
    }
    // These are questions: nothing was to be processed, so nothing was rejected.
    assert_eq!(statistics(&shop).await, counted([0, 0], [1, 0], 0));
    shop.close().await;
}

#[tokio::test]
async fn a_number_is_an_id_as_its_decimal_text() {
    let shop = Shop::open(&[]).await;
    for (number, digits) in [
        (json!(42), "42"),
        (json!(0), "0"),
        (json!(-7), "-7"),
        (json!(u64::MAX), "18446744073709551615"),
        (json!(i64::MIN), "-9223372036854775808"),
    ] {
        let (_, found) = first(&shop, &package(number.clone())).await;
        assert_eq!(found["package_id"], digits);
        again(&shop, &package(digits), &found, false).await;
        again(&shop, &package(number), &found, false).await;
    }
    let mut numbers = with(&package("p"), "sender_id", 7);
    numbers["recipient_id"] = json!(8);
    let (_, found) = first(&shop, &numbers).await;
    let mut digits = with(&numbers, "sender_id", "7");
    digits["recipient_id"] = json!("8");
    again(&shop, &digits, &found, false).await;
    let refusal = with(&preferences(1, true, false), "recipient_id", 8);
    let message = shop
        .customers
        .ask(put_preferences(&refusal))
        .await
        .expect(200);
    assert_eq!(message["recipient_id"], "8");
    let (_, dropped) = first(&shop, &with(&package("q"), "recipient_id", "8")).await;
    assert_eq!(dropped["status"], "dropped");
    shop.close().await;
}

#[tokio::test]
async fn a_time_is_written_as_in_rfc_3339_or_in_seconds() {
    let shop = Shop::open(&[]).await;
    let noon: Timestamp = NOON.parse().unwrap();
    let noon = noon.as_second();
    let shown = "2142-05-01T12:00:00.000000Z";
    for (index, (written, meant)) in [
        (json!(NOON), shown),
        (json!(noon), shown),
        (json!(format!("{noon}.0").parse::<f64>().unwrap()), shown),
        (json!("2142-05-01T14:30:00+02:30"), shown),
        (json!("2142-05-01t12:00:00z"), shown),
        (
            json!("2142-05-01T12:00:00.250Z"),
            "2142-05-01T12:00:00.250000Z",
        ),
        (
            json!("2142-05-01T12:00:00.123456789Z"),
            "2142-05-01T12:00:00.123456Z",
        ),
        (json!(1.5), "1970-01-01T00:00:01.500000Z"),
        (json!(0.000_001), "1970-01-01T00:00:00.000001Z"),
        (json!(1_767_225_600.123_456), "2026-01-01T00:00:00.123456Z"),
        (json!(0), "1970-01-01T00:00:00.000000Z"),
        (json!(-0.5), "1969-12-31T23:59:59.500000Z"),
    ]
    .into_iter()
    .enumerate()
    {
        let recipient = format!("recipient-{index}");
        let refusal = with(
            &preferences(written.clone(), true, false),
            "recipient_id",
            recipient.as_str(),
        );
        shop.customers
            .ask(put_preferences(&refusal))
            .await
            .expect(200);
        let id = format!("p-{index}");
        let sent = with(&package(id), "timestamp", written.clone());
        let sent = with(&sent, "recipient_id", recipient.as_str());
        let (_, dropped) = first(&shop, &sent).await;
        assert_eq!(dropped["preference_timestamp"], meant, "{written}");
        // A package's time is the same however it is written.
        again(&shop, &with(&sent, "timestamp", meant), &dropped, false).await;
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
        (10, [true, false], [true, false], true),
        (9, [false, true], [true, false], false),
        (10, [true, true], [true, false], false),
        (10, [false, true], [false, false], false),
        (11, [true, true], [true, true], true),
        (10, [true, false], [true, true], false),
        (11, [false, true], [false, true], true),
        (11, [true, true], [false, true], false),
        (12, [true, false], [true, false], true),
    ] {
        let ask = put_preferences(&preferences(second, message[0], message[1]));
        let answer = shop.customers.ask(ask).await;
        let mut holding = json!({
            "recipient_id": "ada", "personal_preference": holds[0], "marketing_preference": holds[1],
        });
        let body = answer.expect(200);
        assert_eq!(
            body,
            with(&holding, "applied", applied),
            "{second} {message:?}"
        );
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(
            shop.customers
                .ask(get("/preferences/ada"))
                .await
                .expect(200),
            holding
        );
        // Another recipient is not affected.
        holding["recipient_id"] = json!("Ada");
        let other = shop
            .customers
            .ask(get("/preferences/Ada"))
            .await
            .expect(200);
        assert_eq!(other["marketing_preference"], true);
    }
    let now = shop.metrics().await;
    for (result, count) in [("applied", 5), ("outdated", 5)] {
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
    let applied = shop
        .customers
        .ask(put_preferences(&early))
        .await
        .expect(200);
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
    let holds = async |newsletter: bool| {
        let found = shop
            .customers
            .ask(get("/preferences/ada"))
            .await
            .expect(200);
        assert_eq!(found["newsletter_preference"], newsletter);
    };
    holds(false).await;
    let (_, dropped) = first(&shop, &newsletter("a")).await;
    assert_eq!(
        dropped,
        json!({
            "package_id": "a", "package_type": "newsletter", "status": "dropped",
            "reason": "recipient did not ask for newsletter",
        })
    );
    // Who does not speak of it has not asked for it.
    for unsaid in [
        preferences(1, true, false),
        with(
            &preferences(2, true, false),
            "newsletter_preference",
            json!(null),
        ),
    ] {
        let message = shop
            .customers
            .ask(put_preferences(&unsaid))
            .await
            .expect(200);
        assert_eq!(
            (&message["applied"], &message["newsletter_preference"]),
            (&json!(true), &json!(false))
        );
    }
    let asked = with(&preferences(3, true, true), "newsletter_preference", true);
    shop.customers
        .ask(put_preferences(&asked))
        .await
        .expect(200);
    holds(true).await;
    let (_, delivered) = first(&shop, &newsletter("b")).await;
    assert_eq!(delivered["status"], "delivered");
    assert_eq!(
        delivered["preference_timestamp"],
        "1970-01-01T00:00:03.000000Z"
    );
    again(&shop, &newsletter("a"), &dropped, false).await;
    // Left out of a later word it stays as it is.
    shop.customers
        .ask(put_preferences(&preferences(4, false, false)))
        .await
        .expect(200);
    holds(true).await;
    let declined = with(&preferences(5, true, true), "newsletter_preference", false);
    shop.customers
        .ask(put_preferences(&declined))
        .await
        .expect(200);
    let (_, declined) = first(&shop, &newsletter("c")).await;
    assert_eq!(declined["reason"], "recipient declined newsletter");
    let wrong = with(&preferences(6, true, true), "newsletter_preference", "yes");
    let problem = shop
        .customers
        .ask(put_preferences(&wrong))
        .await
        .expect_problem(422, "invalid");
    assert_eq!(problem["errors"][0]["pointer"], "/newsletter_preference");
    let mut expected = counted([0, 0], [0, 0], 1);
    expected["packages_delivered"] = json!(1);
    expected["packages_dropped"] = json!(2);
    expected["by_type"]["newsletter"] = json!({"delivered": 1, "dropped": 2});
    assert_eq!(statistics(&shop).await, expected);
    shop.close().await;
}

#[test]
fn types_that_cannot_be_are_told_at_the_start_with_their_key() {
    let dir = tempfile::tempdir().unwrap();
    for (text, named) in [
        ("types = []", "`packages.types`"),
        ("types = [\"\"]", "`packages.types`"),
        ("types = [\"Personal\"]", "`packages.types`"),
        ("types = [\"a\", \"a\"]", "`packages.types`"),
        ("types = \"personal\"", "`packages.types`"),
        ("opt_in = [\"newsletter\"]", "`packages.opt_in`"),
        ("kinds = [\"personal\"]", "kinds"),
    ] {
        let file = dir.path().join("shop.toml");
        std::fs::write(&file, format!("[packages]\n{text}\n")).unwrap();
        let mut command = odyssey();
        command.args(["serve", "--config"]).arg(&file);
        command.env(variable("data_dir"), dir.path().join("data"));
        for listener in ["customers.listen", "staff.listen"] {
            command.env(variable(listener), "127.0.0.1:0");
        }
        let output = command.env_remove("RUST_BACKTRACE").output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}: {output:?}");
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(
            message.contains(named) && !message.contains("panicked"),
            "{text}: {message}"
        );
        assert!(!dir.path().join("data").exists(), "{text}");
    }
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

#[tokio::test]
async fn every_path_of_the_desk_answers_with_and_without_a_slash_and_to_head() {
    let shop = Shop::open(&[]).await;
    let answer = shop
        .customers
        .ask(post("/packages/").json(&package("p")))
        .await;
    answer.expect(201);
    assert_eq!(answer.header("location"), Some("/packages/p"));
    let answer = shop
        .customers
        .ask(put("/preferences/").json(&preferences(1, true, true)))
        .await;
    assert_eq!(answer.expect(200)["applied"], true);
    for path in [
        "/packages/p",
        "/packages/q",
        "/preferences/ada",
        "/statistics",
    ] {
        let plain = shop.customers.ask(get(path)).await;
        let lines = |answer: &Answer| {
            let mut headers = answer.headers.clone();
            // Each answer has an id and a time of its own.
            for own in ["x-request-id", "date"] {
                assert!(headers.remove(own).is_some(), "{own}: {answer}");
            }
            (answer.status, headers)
        };
        for path in [path.to_owned(), format!("{path}/")] {
            let again = shop.customers.ask(get(path.as_str())).await;
            assert_eq!((again.status, &again.body), (plain.status, &plain.body));
            let head = shop.customers.ask(Ask::new(Method::HEAD, path)).await;
            assert_eq!(lines(&head), lines(&plain));
            assert_eq!(head.body.len(), 0, "{head}");
        }
    }
    shop.close().await;
}

#[tokio::test]
async fn a_wrong_method_at_the_package_desk_is_told_the_right_ones_and_the_staff_only_looks() {
    let shop = Shop::open(&[]).await;
    for (path, allowed) in [
        ("/packages", "POST"),
        ("/packages/", "POST"),
        ("/packages/p", "GET,HEAD"),
        ("/preferences", "PUT"),
        ("/preferences/", "PUT"),
        ("/preferences/ada", "GET,HEAD"),
        ("/statistics", "GET,HEAD"),
    ] {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "BREW"] {
            if allowed.split(',').any(|preferences| preferences == method) {
                continue;
            }
            let ask = Ask::new(method.parse().unwrap(), path);
            let answer = shop.customers.ask(ask.json(&package("p"))).await;
            assert_eq!(answer.status, 405, "{method} {path}: {answer}");
            assert_eq!(answer.header("allow"), Some(allowed), "{method} {path}");
        }
    }
    for ask in [
        send(&package("p")),
        put_preferences(&preferences(1, true, true)),
    ] {
        let answer = shop.staff.ask(ask).await;
        answer.expect_problem(404, "no-such-path");
    }
    let answer = shop.staff.ask(get("/packages/p")).await;
    answer.expect_problem(404, "package-unknown");
    shop.staff.ask(get("/preferences/ada")).await.expect(200);
    assert_eq!(statistics(&shop).await, counted([0, 0], [0, 0], 0));
    shop.close().await;
}
