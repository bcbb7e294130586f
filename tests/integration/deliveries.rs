//! The delivery desk: what drones report, and what the staff sees of it.

use serde_json::{Value, json};
use testkit::{found, until};

use crate::client::{Answer, Door, event, get, post, within};
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
        last = shop.staff.expect(event(delivery, event_type), 201).await;
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
    for id in ["A-Za-z0-9._~-", "drone%2D7", &longest] {
        let body = begin(&shop, id).await;
        assert_eq!(body["delivery_id"], id.replace("%2D", "-"));
    }
    for id in [
        "..",
        "a%2Fb",
        "a+b",
        "%C3%BC",
        "a%0D%0Ab",
        &format!("{longest}x"),
    ] {
        for ask in [
            event(id, "PARCEL_COLLECTED"),
            get(format!("/deliveries/{id}/events")),
            get(format!("/deliveries/{id}/events/1")),
            get(format!("/deliveries/{id}")),
        ] {
            let what = format!("{ask:?}");
            let problem = shop.staff.ask(ask).await.expect_problem(422, "invalid");
            let errors = problem["errors"].as_array().unwrap();
            assert_eq!(errors.len(), 1, "{what}: {problem}");
            assert_eq!(errors[0]["parameter"], "delivery_id", "{what}: {problem}");
        }
    }
    // Not even text.
    let answer = shop.staff.ask(event("%FF", "PARCEL_COLLECTED")).await;
    answer.expect_problem(400, "unreadable");
    assert_eq!(counts(&shop).await, (3, 3), "nothing else has begun");
    shop.close().await;
}

#[tokio::test]
async fn a_body_that_is_no_event_is_told_what_is_wrong_with_it() {
    let shop = Shop::open(&[]).await;
    begin(&shop, "a").await;
    let events = |body: &Value| post("/deliveries/a/events").json(body);
    let with_id = |id: Value| json!({"type": "TAKEN_OFF", "event_id": id});
    for (body, pointer) in [
        (json!({"type": "EXPLODED"}), "/type"),
        (json!({"type": null}), "/type"),
        (json!({}), "/type"),
        (with_id(json!("")), "/event_id"),
        (with_id(json!(7)), "/event_id"),
        (with_id(json!("x".repeat(256))), "/event_id"),
    ] {
        let answer = shop.staff.ask(events(&body)).await;
        let problem = answer.expect_problem(422, "invalid");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}: {answer}");
        for event_type in TYPES {
            let names = text(&problem["detail"]).contains(event_type);
            assert!(names || body["type"] != "EXPLODED", "{answer}");
        }
    }
    // None of these was stored, and unknown fields are ignored.
    let more = json!({"type": "TAKEN_OFF", "event_id": null, "battery": 71});
    let answer = shop.staff.ask(events(&more)).await;
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
    begin(&shop, "a").await;
    let landed = shop.staff.ask(event("a", "LANDED")).await;
    expect_illegal(&landed, Some("PARCEL_COLLECTED"), &["TAKEN_OFF"]);
    fly(&shop, "a", &["TAKEN_OFF", "LANDED", "PARCEL_DELIVERED"]).await;
    shop.close().await;
}

#[tokio::test]
async fn the_public_s_drones_fill_half_of_the_room_and_the_staff_s_have_the_rest() {
    let settings = [
        ("deliveries.ongoing_max", "4"),
        ("customers.deliveries", "true"),
    ];
    let shop = Shop::open(&settings).await;
    let collects = |id| event(id, "PARCEL_COLLECTED");
    for (door, id, begins) in [
        (shop.customers, "a", true),
        (shop.customers, "b", true),
        (shop.customers, "c", false),
        (shop.staff, "c", true),
        (shop.staff, "d", true),
        (shop.staff, "e", false),
    ] {
        let answer = door.ask(collects(id)).await;
        if begins {
            answer.expect(201);
        } else {
            answer.expect_problem(503, "too-many-ongoing");
            assert!(answer.retry_after() >= 1);
        }
    }
    // A delivery under way continues, whichever client began it; one that ends lets the next begin.
    let landed = shop.customers.ask(event("c", "TAKEN_OFF")).await;
    landed.expect(201);
    fly(&shop, "a", &["CRASHED"]).await;
    begin(&shop, "e").await;
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
    let key = "k".repeat(255);
    let collected = event("a", "PARCEL_COLLECTED").key(&key);
    let first = shop.staff.ask(collected.clone()).await;
    let last = shop.staff.ask(with_id("CRASHED", "2 ü")).await;
    for answer in [&first, &last] {
        answer.expect(201);
        assert_eq!(answer.header("idempotency-replayed"), None, "{answer}");
    }
    // In any order, even when it is over; and a key is the same in the header and in the body.
    for (ask, first) in [
        (with_id("CRASHED", "2 ü"), &last),
        (with_id("PARCEL_COLLECTED", &key), &first),
        (collected, &first),
    ] {
        expect_replay(&shop.staff.ask(ask).await, first);
    }
    let history = shop.staff.ask(get("/deliveries/a/events")).await;
    let history = history.expect(200);
    assert_eq!(history["events"].as_array().unwrap().len(), 2);
    let now = shop.metrics().await;
    assert_eq!(now.count("odyssey_deliveries_replayed_total"), 3);
    shop.close().await;
}

#[tokio::test]
async fn a_key_belongs_to_one_event_of_one_delivery() {
    let shop = Shop::open(&[]).await;
    let both = |header: &str, body: &str| {
        let json = json!({"type": "TAKEN_OFF", "event_id": body});
        post("/deliveries/a/events").json(&json).key(header)
    };
    let collected = event("a", "PARCEL_COLLECTED").key("k");
    shop.staff.ask(collected).await.expect(201);
    let reused = shop.staff.ask(event("a", "TAKEN_OFF").key("k")).await;
    let problem = reused.expect_problem(422, "idempotency-key-reused");
    assert!(text(&problem["detail"]).contains("PARCEL_COLLECTED"));
    // Another delivery may use it for whatever it likes; what was refused has not used its key up.
    let early = shop.staff.ask(event("b", "LANDED").key("k")).await;
    expect_illegal(&early, None, &["PARCEL_COLLECTED"]);
    let other = event("b", "PARCEL_COLLECTED").key("k");
    shop.staff.ask(other).await.expect(201);
    // The header wins: in the body the key is a used one, then a new one.
    let first = shop.staff.ask(both("m", "k")).await;
    assert_eq!(first.expect(201)["sequence"], 2);
    expect_replay(&shop.staff.ask(both("m", "n")).await, &first);
    for key in ["", "two words", &"k".repeat(256)] {
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
async fn the_list_has_all_that_are_ongoing_oldest_first_and_the_counts_agree() {
    let shop = Shop::open(&[]).await;
    let (empty, list) = page(shop.staff, "/deliveries").await;
    assert_eq!(list, json!({"deliveries": []}));
    let (none, body) = page(shop.staff, "/counts").await;
    assert_eq!(body, json!({"ongoing": 0, "total": 0}));
    for id in ["z", "a"] {
        begin(&shop, id).await;
    }
    let (two, list) = page(shop.staff, "/deliveries").await;
    assert_ne!(two, empty);
    for delivery in list["deliveries"].as_array().unwrap() {
        let path = format!("/deliveries/{}", text(&delivery["delivery_id"]));
        assert_eq!(&shop.staff.ask(get(path)).await.expect(200), delivery);
    }
    let (counted, _) = page(shop.staff, "/counts").await;
    assert_ne!(counted, none);
    // A later report does not move a delivery in the list, and counts nothing.
    fly(&shop, "z", &["TAKEN_OFF"]).await;
    let (moved, list) = page(shop.staff, "/deliveries").await;
    assert_ne!(moved, two);
    assert_eq!(list["deliveries"][0]["state"], "TAKEN_OFF");
    assert_eq!(ongoing(&shop).await, ["z", "a"]);
    assert_eq!(page(shop.staff, "/counts").await.0, counted);
    fly(&shop, "z", &["PARCEL_DELIVERED"]).await;
    assert_eq!(ongoing(&shop).await, ["a"]);
    assert_eq!(counts(&shop).await, (1, 2));
    fly(&shop, "a", &["CRASHED"]).await;
    let (again, _) = page(shop.staff, "/deliveries").await;
    assert_eq!(again, empty, "the same page has the same tag");
    shop.close().await;
}

#[tokio::test]
async fn a_delivery_that_is_silent_for_long_is_listed_as_stale_until_it_reports() {
    let shop = Shop::open(&[("deliveries.stale_after", "1s")]).await;
    begin(&shop, "a").await;
    let is_stale = |list: &Value| list["deliveries"][0]["stale"] == true;
    for _ in 0..2 {
        // However busy the machine is, it lists a delivery within a second of its event some time.
        let fresh = found("a delivery that reports is not stale", async || {
            fly(&shop, "a", &["LANDED"]).await;
            let (etag, list) = page(shop.staff, "/deliveries").await;
            (!is_stale(&list)).then_some(etag)
        });
        let fresh = fresh.await;
        // Nothing is reported: the list changes by itself.
        until("the silent delivery is stale", async || {
            let known = get("/deliveries").header("If-None-Match", &*fresh);
            let answer = shop.staff.ask(known).await;
            answer.status == 200 && is_stale(&answer.json())
        })
        .await;
        let delivery = shop.staff.ask(get("/deliveries/a")).await.expect(200);
        assert_eq!(delivery["stale"], true);
    }
    // What is over is not stale, however long it is silent.
    fly(&shop, "a", &["CRASHED"]).await;
    let delivery = shop.staff.ask(get("/deliveries/a")).await.expect(200);
    assert_eq!(delivery["stale"], false);
    shop.close().await;
}

// --- Retention -----------------------------------------------------------------------------------------------------

#[tokio::test]
async fn of_those_that_are_over_the_last_are_kept_and_of_those_under_way_all() {
    let shop = Shop::open(&[("deliveries.kept", "2")]).await;
    begin(&shop, "old").await;
    for id in ["b", "c"] {
        fly(&shop, id, &["PARCEL_COLLECTED", "TAKEN_OFF", "CRASHED"]).await;
    }
    begin(&shop, "d").await;
    for id in ["old", "c", "d"] {
        let path = format!("/deliveries/{id}/events");
        shop.staff.ask(get(path)).await.expect(200);
    }
    for path in ["/deliveries/b", "/deliveries/b/events"] {
        let answer = shop.staff.ask(get(path)).await;
        answer.expect_problem(404, "delivery-unknown");
    }
    let first = shop.staff.ask(get("/deliveries/b/events/1")).await;
    first.expect_problem(404, "event-unknown");
    assert_eq!(ongoing(&shop).await, ["old", "d"]);
    assert_eq!(counts(&shop).await, (2, 4));
    // An evicted id begins again.
    assert_eq!(begin(&shop, "b").await["sequence"], 1);
    shop.close().await;
}

// --- Who may do what -----------------------------------------------------------------------------------------------

#[tokio::test]
async fn customers_drones_may_report_only_where_they_are_let_in_and_never_look() {
    for lets_in in [false, true] {
        let shop = Shop::open(&[("customers.deliveries", &lets_in.to_string())]).await;
        let asked = shop.customers.ask(get("/deliveries/a/events/")).await;
        let answer = shop.customers.ask(event("a", "PARCEL_COLLECTED")).await;
        if lets_in {
            asked.expect_problem(405, "no-such-method");
            assert_eq!(asked.header("allow"), Some("POST"), "{asked}");
            assert_eq!(answer.expect(201)["sequence"], 1);
        } else {
            asked.expect_problem(404, "no-such-path");
            answer.expect_problem(404, "no-such-path");
        }
        for path in ["/deliveries", "/deliveries/a", "/deliveries/a/events/1"] {
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
