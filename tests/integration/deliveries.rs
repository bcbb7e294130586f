//! The delivery desk: what drones report, and what the staff sees of it.

use std::collections::BTreeSet;

use hyper::Method;
use serde_json::{Value, json};

use crate::client::{Answer, Ask, Door, event, get, post, within};
use crate::shop::{Shop, text};

const TYPES: [&str; 5] = [
    "PARCEL_COLLECTED",
    "TAKEN_OFF",
    "LANDED",
    "CRASHED",
    "PARCEL_DELIVERED",
];

/// Reports these events, each of which must be accepted; the answer to the last.
async fn fly(shop: &Shop, delivery: &str, events: &[&str]) -> Value {
    let mut last = Value::Null;
    for event_type in events {
        last = shop
            .staff
            .ask(event(delivery, event_type))
            .await
            .expect(201);
    }
    last
}

async fn begin(shop: &Shop, delivery: &str) -> Value {
    fly(shop, delivery, &["PARCEL_COLLECTED"]).await
}

/// The delivery that a 409 is about is in this state, and goes on with one of these.
#[track_caller]
fn expect_illegal(answer: &Answer, state: Option<&str>, allowed: &[&str]) {
    let problem = answer.expect_problem(409, "event-out-of-order");
    assert_eq!(problem["state"], json!(state), "{answer}");
    assert_eq!(problem["allowed"], json!(allowed), "{answer}");
    assert!(
        problem.as_object().unwrap().contains_key("state"),
        "it is null, not missing: {answer}"
    );
}

/// The ids of all that are ongoing, in the order of the list.
async fn ongoing(shop: &Shop) -> Vec<String> {
    let list = shop.staff.ask(get("/deliveries")).await.expect(200);
    let deliveries = list["deliveries"].as_array().unwrap();
    let ids = deliveries
        .iter()
        .map(|delivery| text(&delivery["delivery_id"]));
    ids.collect()
}

async fn counts(shop: &Shop) -> (u64, u64) {
    let counts = shop.staff.ask(get("/counts")).await.expect(200);
    let count = |name: &str| counts[name].as_u64().unwrap();
    (count("ongoing"), count("total"))
}

// --- Reporting -----------------------------------------------------------------------------------------------------

#[tokio::test]
async fn an_event_is_answered_with_its_place_and_where_to_find_it() {
    let shop = Shop::open(&[]).await;
    for (index, event_type) in TYPES.iter().enumerate() {
        if *event_type == "CRASHED" {
            continue;
        }
        let answer = shop.staff.ask(event("drone-7", event_type)).await;
        let body = answer.expect(201);
        let sequence = if index < 3 { index + 1 } else { index };
        assert_eq!(body["delivery_id"], "drone-7");
        assert_eq!(body["sequence"], sequence);
        assert_eq!(body["type"], *event_type);
        let received_at: jiff::Timestamp = text(&body["received_at"]).parse().unwrap();
        assert!(received_at <= jiff::Timestamp::now(), "{answer}");
        assert_eq!(body.as_object().unwrap().len(), 4, "{answer}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer}");
        assert_eq!(answer.header("idempotency-replayed"), None, "{answer}");
        let location = answer.header("location").unwrap().to_owned();
        assert_eq!(location, format!("/deliveries/drone-7/events/{sequence}"));
        let found = shop.staff.ask(get(location)).await;
        assert_eq!(found.expect(200), body);
    }
    shop.close().await;
}

#[tokio::test]
async fn an_id_is_1_to_128_characters_that_need_no_encoding() {
    let shop = Shop::open(&[]).await;
    let longest = "x".repeat(128);
    for id in ["a", "7", "~", "A-Za-z0-9._~-", "...", "drone%2D7", &longest] {
        let body = begin(&shop, id).await;
        assert_eq!(body["delivery_id"], id.replace("%2D", "-"));
    }
    let too_long = "x".repeat(129);
    for id in [
        "..", "%2E", "a%2Fb", "a%20b", "a+b", "a%00b", "%C3%BC", "a:b", "a@b", "%7Bid%7D", "%25",
        "a%0D%0Ab", &too_long,
    ] {
        let asks = [
            event(id, "PARCEL_COLLECTED"),
            get(format!("/deliveries/{id}/events")),
            get(format!("/deliveries/{id}/events/1")),
            get(format!("/deliveries/{id}")),
        ];
        for ask in asks {
            let what = format!("{ask:?}");
            let problem = shop.staff.ask(ask).await.expect_problem(422, "invalid");
            let errors = problem["errors"].as_array().unwrap();
            assert_eq!(errors.len(), 1, "{what}: {problem}");
            assert_eq!(errors[0]["parameter"], "delivery_id", "{what}: {problem}");
        }
    }
    // Not even text.
    shop.staff
        .ask(event("%FF", "PARCEL_COLLECTED"))
        .await
        .expect_problem(400, "unreadable");
    assert_eq!(counts(&shop).await, (7, 7), "nothing else has begun");
    shop.close().await;
}

#[tokio::test]
async fn a_body_that_is_no_event_is_told_what_is_wrong_with_it() {
    let shop = Shop::open(&[("http.body_max_bytes", "1000")]).await;
    begin(&shop, "a").await;
    let events = || post("/deliveries/a/events");
    let unacceptable = [
        (json!({"type": "EXPLODED"}), "/type"),
        (json!({"type": "taken_off"}), "/type"),
        (json!({"type": null}), "/type"),
        (json!({"type": 2}), "/type"),
        (json!({}), "/type"),
        (json!("TAKEN_OFF"), ""),
        (json!(null), ""),
        (json!({"type": "TAKEN_OFF", "event_id": ""}), "/event_id"),
        (json!({"type": "TAKEN_OFF", "event_id": 7}), "/event_id"),
        (
            json!({"type": "TAKEN_OFF", "event_id": "x".repeat(256)}),
            "/event_id",
        ),
    ];
    for (body, pointer) in unacceptable {
        let answer = shop.staff.ask(events().json(&body)).await;
        let problem = answer.expect_problem(422, "invalid");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}: {answer}");
        if body["type"] == "EXPLODED" {
            for event_type in TYPES {
                assert!(text(&problem["detail"]).contains(event_type), "{answer}");
            }
        }
    }
    for (ask, status, kind) in [
        (events(), 400, "unreadable"),
        (events().body("{\"type\": "), 400, "unreadable"),
        (events().body("TAKEN_OFF"), 400, "unreadable"),
        (events().body(&b"\xff\xfe"[..]), 400, "unreadable"),
        (
            events()
                .header("Content-Type", "text/plain")
                .body("{\"type\": \"TAKEN_OFF\"}"),
            415,
            "not-json",
        ),
        (
            events()
                .header("Content-Type", "application/x-www-form-urlencoded")
                .body("type=TAKEN_OFF"),
            415,
            "not-json",
        ),
        (
            events().json(&json!({"type": "TAKEN_OFF", "more": "x".repeat(1000)})),
            413,
            "body-too-large",
        ),
    ] {
        shop.staff.ask(ask).await.expect_problem(status, kind);
    }
    // None of these was stored, and unknown fields are ignored.
    let more = json!({"type": "TAKEN_OFF", "event_id": null, "battery": 71});
    let answer = shop.staff.ask(events().json(&more)).await;
    assert_eq!(answer.expect(201)["sequence"], 2);
    shop.close().await;
}

#[tokio::test]
async fn an_event_that_may_not_follow_is_told_the_state_and_what_may() {
    let shop = Shop::open(&[]).await;
    let between = ["TAKEN_OFF", "LANDED", "CRASHED", "PARCEL_DELIVERED"];
    for event_type in between {
        let answer = shop.staff.ask(event("a", event_type)).await;
        expect_illegal(&answer, None, &["PARCEL_COLLECTED"]);
    }
    begin(&shop, "a").await;
    let answer = shop.staff.ask(event("a", "PARCEL_COLLECTED")).await;
    expect_illegal(&answer, Some("PARCEL_COLLECTED"), &between);
    fly(&shop, "a", &["LANDED", "LANDED", "TAKEN_OFF", "CRASHED"]).await;
    for event_type in TYPES {
        let answer = shop.staff.ask(event("a", event_type)).await;
        expect_illegal(&answer, Some("CRASHED"), &[]);
    }
    let refused = "odyssey_deliveries_refused_total{reason=\"illegal\"}";
    assert_eq!(shop.metrics().await.count(refused), 10);
    assert_eq!(counts(&shop).await, (0, 1));
    shop.close().await;
}

#[tokio::test]
async fn a_strict_desk_wants_a_flight_that_is_possible() {
    let shop = Shop::open(&[("deliveries.graph", "strict")]).await;
    let refused = async |event_type: &str, state: &str, allowed: &[&str]| {
        let answer = shop.staff.ask(event("a", event_type)).await;
        expect_illegal(&answer, Some(state), allowed);
    };
    begin(&shop, "a").await;
    for event_type in ["LANDED", "CRASHED", "PARCEL_DELIVERED"] {
        refused(event_type, "PARCEL_COLLECTED", &["TAKEN_OFF"]).await;
    }
    fly(&shop, "a", &["TAKEN_OFF"]).await;
    for event_type in ["TAKEN_OFF", "PARCEL_DELIVERED"] {
        refused(event_type, "TAKEN_OFF", &["LANDED", "CRASHED"]).await;
    }
    fly(&shop, "a", &["LANDED"]).await;
    for event_type in ["LANDED", "CRASHED"] {
        refused(event_type, "LANDED", &["TAKEN_OFF", "PARCEL_DELIVERED"]).await;
    }
    fly(&shop, "a", &["TAKEN_OFF", "LANDED", "PARCEL_DELIVERED"]).await;
    shop.close().await;
}

#[tokio::test]
async fn a_delivery_that_has_too_much_to_tell_may_only_end() {
    let shop = Shop::open(&[("deliveries.events_max", "3")]).await;
    fly(&shop, "a", &["PARCEL_COLLECTED", "TAKEN_OFF", "LANDED"]).await;
    for event_type in ["TAKEN_OFF", "LANDED", "PARCEL_COLLECTED"] {
        let answer = shop.staff.ask(event("a", event_type)).await;
        expect_illegal(&answer, Some("LANDED"), &["CRASHED", "PARCEL_DELIVERED"]);
    }
    assert_eq!(fly(&shop, "a", &["PARCEL_DELIVERED"]).await["sequence"], 4);
    shop.close().await;
}

#[tokio::test]
async fn when_too_many_are_ongoing_one_that_ends_lets_the_next_begin() {
    let shop = Shop::open(&[("deliveries.ongoing_max", "2")]).await;
    begin(&shop, "a").await;
    begin(&shop, "b").await;
    let refused = shop.staff.ask(event("c", "PARCEL_COLLECTED")).await;
    refused.expect_problem(503, "too-many-ongoing");
    assert!(refused.retry_after() >= 1);
    // Those that are under way are not concerned.
    fly(&shop, "a", &["TAKEN_OFF", "CRASHED"]).await;
    begin(&shop, "c").await;
    let refused = shop.staff.ask(event("d", "PARCEL_COLLECTED")).await;
    refused.expect_problem(503, "too-many-ongoing");
    assert_eq!(ongoing(&shop).await, ["b", "c"]);
    shop.close().await;
}

#[tokio::test]
async fn the_public_s_drones_fill_half_of_the_room_and_the_staff_s_have_the_rest() {
    let settings = [
        ("deliveries.ongoing_max", "4"),
        ("customers.deliveries", "true"),
    ];
    let shop = Shop::open(&settings).await;
    for id in ["a", "b"] {
        let answer = shop.customers.ask(event(id, "PARCEL_COLLECTED")).await;
        answer.expect(201);
    }
    let refused = shop.customers.ask(event("c", "PARCEL_COLLECTED")).await;
    refused.expect_problem(503, "too-many-ongoing");
    begin(&shop, "c").await;
    begin(&shop, "d").await;
    let refused = shop.staff.ask(event("e", "PARCEL_COLLECTED")).await;
    refused.expect_problem(503, "too-many-ongoing");
    // A delivery under way continues, whichever client began it.
    let landed = shop.customers.ask(event("c", "TAKEN_OFF")).await;
    landed.expect(201);
    shop.close().await;
}

// --- Reporting again -----------------------------------------------------------------------------------------------

/// A repeated event gets the first answer, marked as a replay.
#[track_caller]
fn expect_replay(answer: &Answer, first: &Answer) {
    assert_eq!(answer.expect(201), first.expect(201));
    assert_eq!(answer.header("idempotency-replayed"), Some("true"));
    assert_eq!(answer.header("location"), first.header("location"));
}

#[tokio::test]
async fn an_event_that_is_sent_again_with_its_key_is_kept_once() {
    let shop = Shop::open(&[]).await;
    let with_id = |event_type: &str, id: &str| {
        let body = json!({"type": event_type, "event_id": id});
        post("/deliveries/a/events").json(&body)
    };
    let longest = "k".repeat(255);
    let first = shop
        .staff
        .ask(event("a", "PARCEL_COLLECTED").key("1"))
        .await;
    let second = shop.staff.ask(with_id("TAKEN_OFF", "2 ü")).await;
    let third = shop.staff.ask(event("a", "LANDED").key(&longest)).await;
    let last = shop.staff.ask(with_id("CRASHED", "4")).await;
    for answer in [&first, &second, &third, &last] {
        answer.expect(201);
        assert_eq!(answer.header("idempotency-replayed"), None, "{answer}");
    }
    // In any order, even when it is over; and a key is the same in the header and in the body.
    for (ask, first) in [
        (event("a", "CRASHED").key("4"), &last),
        (event("a", "LANDED").key(&longest), &third),
        (with_id("LANDED", &longest), &third),
        (with_id("TAKEN_OFF", "2 ü"), &second),
        (with_id("PARCEL_COLLECTED", "1"), &first),
        (event("a", "PARCEL_COLLECTED").key("1"), &first),
    ] {
        expect_replay(&shop.staff.ask(ask).await, first);
    }
    let history = shop.staff.ask(get("/deliveries/a/events")).await;
    let history = history.expect(200);
    assert_eq!(history["events"].as_array().unwrap().len(), 4);
    let now = shop.metrics().await;
    assert_eq!(now.count("odyssey_deliveries_replayed_total"), 6);
    shop.close().await;
}

#[tokio::test]
async fn a_key_belongs_to_one_event_of_one_delivery() {
    let shop = Shop::open(&[]).await;
    let both = |header: &str, body: &str| {
        let json = json!({"type": "TAKEN_OFF", "event_id": body});
        post("/deliveries/a/events").json(&json).key(header)
    };
    shop.staff
        .ask(event("a", "PARCEL_COLLECTED").key("k"))
        .await
        .expect(201);
    let reused = shop.staff.ask(event("a", "TAKEN_OFF").key("k")).await;
    let problem = reused.expect_problem(422, "idempotency-key-reused");
    assert!(text(&problem["detail"]).contains("PARCEL_COLLECTED"));
    // Another delivery may use it for whatever it likes.
    for event_type in ["PARCEL_COLLECTED", "TAKEN_OFF"] {
        let key = if event_type == "TAKEN_OFF" { "k" } else { "l" };
        let answer = shop.staff.ask(event("b", event_type).key(key)).await;
        answer.expect(201);
        assert_eq!(answer.header("idempotency-replayed"), None, "{answer}");
    }
    // The header wins: in the body the key is a used one, then a new one.
    let first = shop.staff.ask(both("m", "k")).await;
    assert_eq!(first.expect(201)["sequence"], 2);
    expect_replay(&shop.staff.ask(both("m", "n")).await, &first);
    assert_eq!(
        shop.staff.ask(both("n", "m")).await.expect(201)["sequence"],
        3
    );
    // What was refused has not used its key up.
    let early = shop.staff.ask(event("c", "LANDED").key("o")).await;
    expect_illegal(&early, None, &["PARCEL_COLLECTED"]);
    shop.staff
        .ask(event("c", "PARCEL_COLLECTED").key("o"))
        .await
        .expect(201);
    for key in ["", "two words", "k\tk", "ü", &"k".repeat(256)] {
        let answer = shop.staff.ask(event("a", "LANDED").key(key)).await;
        answer.expect_problem(400, "unreadable");
    }
    shop.close().await;
}

#[tokio::test]
async fn of_64_drones_on_one_delivery_each_event_gets_a_place_of_its_own() {
    const EACH: usize = 5;
    let shop = Shop::open(&[]).await;
    begin(&shop, "a").await;
    let drones: Vec<_> = (0..64)
        .map(|drone| {
            let staff = shop.staff;
            tokio::spawn(async move {
                let mut connection = staff.connect().await;
                let mut places = Vec::new();
                for turn in 0..EACH {
                    let event_type = ["TAKEN_OFF", "LANDED"][turn % 2];
                    let ask = event("a", event_type).key(format!("{drone}-{turn}"));
                    let answer = connection.ask(&ask).await.expect(201);
                    places.push((answer["sequence"].as_u64().unwrap(), event_type));
                }
                assert!(places.is_sorted(), "{places:?}");
                places
            })
        })
        .collect();
    let mut acknowledged = vec![(1, "PARCEL_COLLECTED")];
    for drone in drones {
        acknowledged.extend(within("a drone is done", drone).await.unwrap());
    }
    acknowledged.sort_unstable();
    let places: Vec<u64> = acknowledged.iter().map(|(place, _)| *place).collect();
    assert_eq!(places, (1..=64 * EACH as u64 + 1).collect::<Vec<_>>());
    let history = shop.staff.ask(get("/deliveries/a/events")).await;
    let history = history.expect(200);
    let stored = history["events"].as_array().unwrap().iter();
    let stored: Vec<_> = stored
        .map(|stored| (stored["sequence"].as_u64().unwrap(), text(&stored["type"])))
        .collect();
    let acknowledged = acknowledged
        .iter()
        .map(|(place, word)| (*place, (*word).to_owned()));
    assert_eq!(stored, acknowledged.collect::<Vec<_>>());
    shop.close().await;
}

// --- Looking -------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_delivery_can_be_asked_for_while_it_is_ongoing_and_when_it_is_over() {
    let shop = Shop::open(&[]).await;
    let first = begin(&shop, "a").await;
    let second = fly(&shop, "a", &["TAKEN_OFF"]).await;
    for (ends, state) in [(false, "TAKEN_OFF"), (true, "PARCEL_DELIVERED")] {
        let latest = if ends {
            fly(&shop, "a", &["PARCEL_DELIVERED"]).await
        } else {
            second.clone()
        };
        let answer = shop.staff.ask(get("/deliveries/a")).await;
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer}");
        assert_eq!(
            answer.expect(200),
            json!({
                "delivery_id": "a", "state": state, "ongoing": !ends, "events": latest["sequence"],
                "started_at": first["received_at"], "updated_at": latest["received_at"], "stale": false,
            })
        );
        let answer = shop.staff.ask(get("/deliveries/a/events")).await;
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer}");
        let mut events = vec![first.clone(), second.clone()];
        events.extend(ends.then(|| latest.clone()));
        for event in &mut events {
            event.as_object_mut().unwrap().remove("delivery_id");
        }
        assert_eq!(
            answer.expect(200),
            json!({"delivery_id": "a", "state": state, "ongoing": !ends, "events": events})
        );
        let answer = shop.staff.ask(get("/deliveries/a/events/2")).await;
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer}");
        assert_eq!(answer.expect(200), second);
    }
    shop.close().await;
}

#[tokio::test]
async fn what_is_not_there_says_whether_it_is_the_delivery_or_the_event() {
    let shop = Shop::open(&[]).await;
    begin(&shop, "a").await;
    for (path, status, kind) in [
        ("/deliveries/b", 404, "delivery-unknown"),
        ("/deliveries/A", 404, "delivery-unknown"),
        ("/deliveries/b/events", 404, "delivery-unknown"),
        ("/deliveries/b/events/1", 404, "event-unknown"),
        ("/deliveries/a/events/0", 404, "event-unknown"),
        ("/deliveries/a/events/2", 404, "event-unknown"),
        ("/deliveries/a/events/4294967295", 404, "event-unknown"),
        ("/deliveries/a/events/4294967296", 400, "unreadable"),
        ("/deliveries/a/events/-1", 400, "unreadable"),
        ("/deliveries/a/events/1.0", 400, "unreadable"),
        ("/deliveries/a/events/first", 400, "unreadable"),
        ("/deliveries/a/state", 404, "no-such-path"),
        ("/deliveries/a/events/1/type", 404, "no-such-path"),
    ] {
        let answer = shop.staff.ask(get(path)).await;
        answer.expect_problem(status, kind);
    }
    shop.close().await;
}

#[tokio::test]
async fn every_path_answers_with_and_without_a_slash_and_to_head() {
    let shop = Shop::open(&[]).await;
    let slashed = shop
        .staff
        .ask(post("/deliveries/a/events/").json(&json!({"type": "PARCEL_COLLECTED"})))
        .await;
    assert_eq!(slashed.header("location"), Some("/deliveries/a/events/1"));
    for path in [
        "/deliveries",
        "/deliveries/a",
        "/deliveries/a/events",
        "/deliveries/a/events/1",
        "/deliveries/a/events/2",
        "/counts",
    ] {
        let plain = shop.staff.ask(get(path)).await;
        let lines = |answer: &Answer| {
            let mut headers = answer.headers.clone();
            // Each answer has an id and a time of its own.
            for own in ["x-request-id", "date"] {
                assert!(headers.remove(own).is_some(), "{own}: {answer}");
            }
            (answer.status, headers)
        };
        for path in [path.to_owned(), format!("{path}/")] {
            let again = shop.staff.ask(get(path.as_str())).await;
            assert_eq!((again.status, &again.body), (plain.status, &plain.body));
            let head = shop.staff.ask(Ask::new(Method::HEAD, path)).await;
            assert_eq!(lines(&head), lines(&plain));
            assert_eq!(head.body.len(), 0, "{head}");
        }
    }
    shop.close().await;
}

/// The `ETag` of a page, and what is on it.
async fn page(door: Door, path: &str) -> (String, Value) {
    let answer = door.ask(get(path)).await;
    let body = answer.expect(200);
    assert_eq!(answer.header("cache-control"), Some("no-cache"), "{answer}");
    let etag = answer.header("etag").unwrap().to_owned();
    let known = get(path).header("If-None-Match", etag.as_str());
    let unchanged = door.ask(known).await;
    // Between the two a delivery may have become stale by itself.
    if unchanged.status == 304 {
        assert_eq!(unchanged.body.len(), 0, "{unchanged}");
        assert_eq!(unchanged.header("etag"), Some(etag.as_str()), "{unchanged}");
        assert_eq!(unchanged.header("cache-control"), Some("no-cache"));
    } else {
        assert_ne!(unchanged.expect(200), body);
    }
    (etag, body)
}

#[tokio::test]
async fn the_list_has_all_that_are_ongoing_oldest_first() {
    let shop = Shop::open(&[]).await;
    let (empty, list) = page(shop.staff, "/deliveries").await;
    assert_eq!(list, json!({"deliveries": []}));
    for id in ["z", "m", "a"] {
        begin(&shop, id).await;
    }
    let (three, list) = page(shop.staff, "/deliveries").await;
    assert_ne!(three, empty);
    for delivery in list["deliveries"].as_array().unwrap() {
        let path = format!("/deliveries/{}", text(&delivery["delivery_id"]));
        assert_eq!(&shop.staff.ask(get(path)).await.expect(200), delivery);
    }
    // A later report does not move a delivery in the list.
    fly(&shop, "z", &["TAKEN_OFF"]).await;
    let (moved, list) = page(shop.staff, "/deliveries").await;
    assert_ne!(moved, three);
    assert_eq!(list["deliveries"][0]["state"], "TAKEN_OFF");
    assert_eq!(ongoing(&shop).await, ["z", "m", "a"]);
    fly(&shop, "m", &["CRASHED"]).await;
    fly(&shop, "z", &["PARCEL_DELIVERED"]).await;
    assert_eq!(ongoing(&shop).await, ["a"]);
    fly(&shop, "a", &["PARCEL_DELIVERED"]).await;
    let (again, _) = page(shop.staff, "/deliveries").await;
    assert_eq!(again, empty, "the same page has the same tag");
    shop.close().await;
}

#[tokio::test]
async fn the_counts_are_of_those_under_way_and_of_all_since_the_beginning() {
    let shop = Shop::open(&[]).await;
    let (nothing, body) = page(shop.staff, "/counts").await;
    assert_eq!(body, json!({"ongoing": 0, "total": 0}));
    begin(&shop, "a").await;
    begin(&shop, "b").await;
    let (two, body) = page(shop.staff, "/counts").await;
    assert_eq!(body, json!({"ongoing": 2, "total": 2}));
    fly(&shop, "a", &["TAKEN_OFF"]).await;
    let (still_two, _) = page(shop.staff, "/counts").await;
    assert_eq!(still_two, two);
    fly(&shop, "a", &["CRASHED"]).await;
    let (one, body) = page(shop.staff, "/counts").await;
    assert_eq!(body, json!({"ongoing": 1, "total": 2}));
    assert_ne!(nothing, two);
    assert_ne!(two, one);
    shop.close().await;
}

#[tokio::test]
async fn a_delivery_that_is_silent_for_long_is_listed_as_stale_until_it_reports() {
    let shop = Shop::open(&[("deliveries.stale_after", "1s")]).await;
    begin(&shop, "a").await;
    let mut fresh = Vec::new();
    for _ in 0..2 {
        // However busy the machine is, it lists a delivery within a second of its event some time.
        let listed_fresh = async {
            loop {
                fly(&shop, "a", &["LANDED"]).await;
                let (etag, list) = page(shop.staff, "/deliveries").await;
                if list["deliveries"][0]["stale"] == false {
                    return etag;
                }
            }
        };
        let etag = within("a delivery that reports is not stale", listed_fresh).await;
        // Nothing is reported: the list changes by itself.
        let (stale, list) = within("the silent delivery is stale", async {
            loop {
                let known = get("/deliveries").header("If-None-Match", etag.as_str());
                let answer = shop.staff.ask(known).await;
                if answer.status != 304 {
                    let list = answer.expect(200);
                    return (answer.header("etag").unwrap().to_owned(), list);
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
        assert_eq!(list["deliveries"][0]["stale"], true);
        assert_ne!(stale, etag);
        let delivery = shop.staff.ask(get("/deliveries/a")).await.expect(200);
        assert_eq!(delivery["stale"], true);
        fresh.push(etag);
    }
    assert_ne!(fresh[0], fresh[1]);
    // What is over is not stale, however long it is silent.
    fly(&shop, "a", &["CRASHED"]).await;
    let delivery = shop.staff.ask(get("/deliveries/a")).await.expect(200);
    assert_eq!(delivery["stale"], false);
    shop.close().await;
}

// --- Retention -----------------------------------------------------------------------------------------------------

#[tokio::test]
async fn of_those_that_are_over_the_last_are_kept_and_of_those_under_way_all() {
    let shop = Shop::open(&[("deliveries.kept", "3")]).await;
    let gone = async |id: &str| {
        for path in ["", "/events"] {
            let answer = shop.staff.ask(get(format!("/deliveries/{id}{path}"))).await;
            answer.expect_problem(404, "delivery-unknown");
        }
        let first = get(format!("/deliveries/{id}/events/1"));
        shop.staff
            .ask(first)
            .await
            .expect_problem(404, "event-unknown");
    };
    let stored = async |ids: &[&str]| {
        for id in ids {
            let answer = shop
                .staff
                .ask(get(format!("/deliveries/{id}/events")))
                .await;
            answer.expect(200);
        }
    };
    begin(&shop, "old").await;
    for id in ["b", "c", "d"] {
        fly(&shop, id, &["PARCEL_COLLECTED", "TAKEN_OFF", "CRASHED"]).await;
    }
    // Only the one under way is beyond the last three.
    stored(&["old", "b", "c", "d"]).await;
    begin(&shop, "e").await;
    gone("b").await;
    stored(&["old", "c", "d", "e"]).await;
    assert_eq!(ongoing(&shop).await, ["old", "e"]);
    assert_eq!(counts(&shop).await, (2, 5));
    // It ends, and goes when the next one begins.
    fly(&shop, "old", &["TAKEN_OFF", "PARCEL_DELIVERED"]).await;
    stored(&["old"]).await;
    begin(&shop, "f").await;
    gone("old").await;
    gone("c").await;
    // An evicted id begins again, with new keys.
    let anew = shop
        .staff
        .ask(event("b", "PARCEL_COLLECTED").key("k"))
        .await;
    assert_eq!(anew.expect(201)["sequence"], 1);
    assert_eq!(anew.header("idempotency-replayed"), None);
    assert_eq!(ongoing(&shop).await, ["e", "f", "b"]);
    assert_eq!(counts(&shop).await, (3, 7));
    shop.close().await;
}

// --- Who may do what -----------------------------------------------------------------------------------------------

/// Methods that `Allow` names for a request that is refused.
async fn allowed(door: Door, method: Method, path: &str) -> BTreeSet<String> {
    let answer = door.ask(Ask::new(method, path)).await;
    answer.expect_problem(405, "no-such-method");
    let allow = answer.header("allow").unwrap();
    allow
        .split(',')
        .map(|word| word.trim().to_owned())
        .collect()
}

#[tokio::test]
async fn a_wrong_method_at_the_delivery_desk_is_told_the_right_ones() {
    let shop = Shop::open(&[]).await;
    let words = |words: &[&str]| -> BTreeSet<_> { words.iter().map(ToString::to_string).collect() };
    for method in [Method::PUT, Method::DELETE, Method::PATCH] {
        let staff = async |path: &str| allowed(shop.staff, method.clone(), path).await;
        let reads = words(&["GET", "HEAD"]);
        for path in ["/deliveries", "/deliveries/a", "/counts"] {
            assert_eq!(staff(path).await, reads, "{path}");
        }
        assert_eq!(staff("/deliveries/a/events/1").await, reads);
        assert_eq!(
            staff("/deliveries/a/events").await,
            words(&["GET", "HEAD", "POST"])
        );
    }
    for path in ["/deliveries", "/deliveries/a", "/counts/"] {
        allowed(shop.staff, Method::POST, path).await;
    }
    shop.close().await;
}

#[tokio::test]
async fn customers_drones_may_report_only_where_they_are_let_in_and_never_look() {
    for lets_in in [false, true] {
        let setting = if lets_in { "true" } else { "false" };
        let shop = Shop::open(&[("customers.deliveries", setting)]).await;
        for path in ["/deliveries/a/events", "/deliveries/a/events/"] {
            let asked = shop.customers.ask(get(path)).await;
            if lets_in {
                asked.expect_problem(405, "no-such-method");
                assert_eq!(asked.header("allow"), Some("POST"), "{asked}");
            } else {
                asked.expect_problem(404, "no-such-path");
            }
        }
        let answer = shop.customers.ask(event("a", "PARCEL_COLLECTED")).await;
        if lets_in {
            assert_eq!(answer.expect(201)["sequence"], 1);
            assert_eq!(ongoing(&shop).await, ["a"]);
        } else {
            answer.expect_problem(404, "no-such-path");
        }
        for path in [
            "/deliveries",
            "/deliveries/a",
            "/deliveries/a/events/1",
            "/counts",
        ] {
            let asked = shop.customers.ask(get(path)).await;
            asked.expect_problem(404, "no-such-path");
        }
        let api = shop.customers.ask(get("/openapi.json")).await.expect(200);
        let path = &api["paths"]["/deliveries/{delivery_id}/events"];
        assert_eq!(path["post"].is_object(), lets_in);
        // Reading the events is the staff's; it may not even be described here.
        assert!(path["get"].is_null(), "{path}");
        shop.close().await;
    }
}

#[tokio::test]
async fn the_desk_and_its_database_are_in_the_metrics() {
    let shop = Shop::open(&[]).await;
    let recorded =
        |event_type: &str| format!("odyssey_deliveries_events_total{{type=\"{event_type}\"}}");
    let stored = |name: &str| format!("odyssey_storage_{name}{{database=\"deliveries\"}}");
    let before = shop.metrics().await;
    assert_eq!(before.count(&stored("commits_total")), 0);
    assert_eq!(before.count(&stored("well")), 1);
    fly(&shop, "a", &["PARCEL_COLLECTED", "TAKEN_OFF", "LANDED"]).await;
    fly(&shop, "a", &["TAKEN_OFF", "PARCEL_DELIVERED"]).await;
    let keyed = || event("b", "PARCEL_COLLECTED").key("k");
    for _ in 0..3 {
        shop.staff.ask(keyed()).await.expect(201);
    }
    let other = event("b", "LANDED").key("k");
    shop.staff.ask(other).await.expect(422);
    shop.staff.ask(event("c", "LANDED")).await.expect(409);
    let now = shop.metrics().await;
    for (event_type, count) in TYPES.iter().zip([2, 2, 1, 0, 1]) {
        assert_eq!(now.count(&recorded(event_type)), count, "{event_type}");
    }
    assert_eq!(now.count("odyssey_deliveries_replayed_total"), 2);
    for (reason, count) in [("illegal", 1), ("key_reused", 1), ("unavailable", 0)] {
        let refused = format!("odyssey_deliveries_refused_total{{reason=\"{reason}\"}}");
        assert_eq!(now.count(&refused), count, "{reason}");
    }
    // One after the other, so each has a commit of its own; what changes nothing has none.
    assert_eq!(now.count(&stored("commits_total")), 6);
    assert_eq!(now.count(&stored("commit_seconds_count")), 6);
    assert_eq!(now.count(&stored("operations_per_commit_count")), 6);
    assert_eq!(now.count(&stored("operations_total")), 10);
    assert_eq!(now.count(&stored("queue_depth")), 0);
    shop.close().await;
}
