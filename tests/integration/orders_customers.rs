//! What a customer can ask for, and every answer to it.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::{Ask, delete, get, order, post};
use crate::shop::{Shop, text};

const UNKNOWN: &str = "0191d5c8-7a9b-7000-8000-000000000000";

fn time(json: &Value) -> jiff::Timestamp {
    text(json).parse().unwrap()
}

// --- Ordering ------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn an_order_is_held_until_it_is_finished_and_told_everything_about_itself() {
    let shop = Shop::open(&[]).await;
    let visitor = shop
        .customer(
            order()
                .prefer("wait=50")
                .json(&json!({"customer": "Ada", "unknown": [1]})),
        )
        .await;
    let started = shop.start().await;
    assert_eq!(started.customer.as_deref(), Some("Ada"));
    assert!(visitor.is_held());
    shop.finish(&started.id).await;

    let answer = visitor.answer().await;
    let ready = answer.expect(200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("idempotency-replayed"), None);
    let id = Uuid::parse_str(&text(&ready["order_id"])).unwrap();
    assert_eq!((id.get_version_num(), id.to_string()), (7, started.id));
    for (field, value) in [
        ("drink", json!("americano")),
        ("status", json!("ready")),
        ("customer", json!("Ada")),
        ("attempts", json!(1)),
    ] {
        assert_eq!(ready[field], value, "{field} of {ready}");
    }
    let [placed, start, finish] =
        ["placed_at", "started_at", "finished_at"].map(|at| time(&ready[at]));
    assert!(placed <= start && start <= finish, "{ready}");
    // The times are shown cut to milliseconds, the durations are measured on another clock.
    let near = |shown: &Value, from: jiff::Timestamp, to: jiff::Timestamp| {
        let apart = to.as_millisecond() - from.as_millisecond();
        (shown.as_i64().unwrap() - apart).abs() <= 20
    };
    assert!(near(&ready["waited_ms"], placed, start), "{ready}");
    assert!(near(&ready["brew_ms"], start, finish), "{ready}");
    shop.close().await;
}

#[tokio::test]
async fn an_order_without_a_name_or_a_body_and_with_any_slash_is_as_good() {
    let shop = Shop::open(&[]).await;
    let json_type = |ask: Ask, kind: &str| ask.header("Content-Type", kind);
    for ask in [
        order(),
        post("/order"),
        order().header("Content-Length", "0"),
        json_type(order(), "text/plain"),
        order().json(&json!({})),
        order().json(&json!({"customer": null})),
        post("/order").json(&json!({"size": "large"})),
        order().body("{}"),
        json_type(order(), "application/json; charset=utf-8").body(" {} "),
        json_type(order(), "Application/JSON").body("{}"),
        json_type(order(), "application/vnd.shop+json").body("{}"),
    ] {
        let what = format!("{ask:?}");
        let visitor = shop.customer(ask).await;
        let started = shop.start().await;
        assert_eq!(started.customer, None, "{what}");
        shop.finish(&started.id).await;
        let ready = visitor.answer().await.expect(200);
        assert_eq!(ready.get("customer"), None, "{what}: a name nobody gave");
    }
    shop.close().await;
}

#[tokio::test]
async fn a_name_of_any_letters_comes_back_as_it_was_and_is_bounded() {
    let shop = Shop::open(&[]).await;
    let named = |name: Value| order().json(&json!({"customer": name}));
    let name = format!(" \u{1f980} \"quoted\" \\ \n{}", "\u{e9}".repeat(185));
    let visitor = shop.customer(named(json!(name))).await;
    assert_eq!(shop.serve_all().await, [name.as_str()]);
    assert_eq!(visitor.answer().await.expect(200)["customer"], name);
    for wrong in [json!(""), json!("x".repeat(201)), json!(["Ada"])] {
        let answer = shop.customers.ask(named(wrong)).await;
        let problem = answer.expect_problem(422, "invalid");
        assert_eq!(problem["errors"][0]["pointer"], "/customer", "{problem}");
    }
    shop.close().await;
}

#[tokio::test]
async fn a_body_of_exactly_the_largest_size_is_taken() {
    let shop = Shop::open(&[]).await;
    let mut body = br#"{"customer":"Ada"}"#.to_vec();
    body.resize(65_536, b' ');
    let visitor = shop.customer(order().body(body.clone())).await;
    let started = shop.start().await;
    shop.finish(&started.id).await;
    visitor.answer().await.expect(200);

    body.push(b' ');
    let answer = shop.customers.ask(order().body(body)).await;
    answer.expect_problem(413, "body-too-large");
    shop.close().await;
}

#[tokio::test]
async fn a_request_id_is_taken_over_if_it_is_sane_and_made_otherwise() {
    let shop = Shop::open(&[]).await;
    let ask = |id: &str| get("/healthz").header("X-Request-Id", id);
    let taken = shop.customers.ask(ask("visit-42")).await;
    assert_eq!(taken.header("x-request-id"), Some("visit-42"));
    let mut made = BTreeSet::new();
    for ask in [ask("two words"), ask(""), get("/healthz")] {
        let answer = shop.customers.ask(ask).await;
        let id = answer.header("x-request-id").unwrap();
        assert!(Uuid::parse_str(id).is_ok(), "{id}");
        made.insert(id.to_owned());
    }
    assert_eq!(made.len(), 3, "each is new: {made:?}");
    let log = shop.close().await;
    assert!(log.contains("visit-42"), "the log has the request's id");
}

#[tokio::test]
async fn a_full_line_says_503_and_when_to_come_back_until_a_place_is_free() {
    let shop = Shop::open(&[("orders.waiting_max", "2")]).await;
    let first = shop.customer(order().key("first")).await;
    let second = shop.customer(order()).await;
    for _ in 0..3 {
        let full = shop.customers.ask(order()).await;
        full.expect_problem(503, "line-full");
        assert!(full.retry_after() >= 1, "{full}");
    }
    // A customer who is in line already is not turned away.
    let again = shop.customer(order().key("first")).await;
    let started = shop.start().await;
    let third = shop.customer(order()).await;
    shop.finish(&started.id).await;
    first.answer().await.expect(200);
    again.answer().await.expect(200);
    shop.serve_all().await;
    second.answer().await.expect(200);
    third.answer().await.expect(200);
    assert_eq!(shop.metrics().await.placed(), 3);
    shop.close().await;
}

#[tokio::test]
async fn a_customer_who_speaks_http_1_0_is_held_and_served_like_the_others() {
    let shop = Shop::open(&[]).await;
    let mut raw = shop.customers.raw().await;
    raw.write("POST /order/ HTTP/1.0\r\n\r\n").await;
    shop.until("the order is placed", |now| now.held() == 1)
        .await;
    let started = shop.start().await;
    shop.finish(&started.id).await;
    let answer = raw.rest().await;
    assert!(
        answer.starts_with("HTTP/1.0 200") && answer.contains(&started.id),
        "{answer}"
    );
    shop.close().await;
}

// --- Idempotency-Key -----------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_second_request_with_the_key_attaches_and_both_get_the_same_answer() {
    let shop = Shop::open(&[]).await;
    let ask = order().key("k-1").json(&json!({"customer": "Ada"}));
    let first = shop.customer(ask.clone()).await;
    let second = shop.customer(ask.clone()).await;
    let started = shop.start().await;
    // Attaching while it is brewed is the same.
    let third = shop.customer(ask).await;
    let metrics = shop.metrics().await;
    assert_eq!(
        (metrics.placed(), metrics.attached(), metrics.held()),
        (1, 2, 3)
    );
    assert_eq!(shop.pull("wait=0").await.status, 204, "it is one order");
    assert_eq!(shop.finish(&started.id).await["delivered"], true);
    let first = first.answer().await;
    first.expect(200);
    for other in [second, third] {
        let other = other.answer().await;
        assert_eq!((other.status, &other.body), (200, &first.body));
    }
    shop.close().await;
}

#[tokio::test]
async fn an_answer_is_replayed_for_its_key_and_says_so() {
    let shop = Shop::open(&[]).await;
    let ask = order().key("k-1").json(&json!({"customer": "Ada"}));
    let first = shop.customer(ask.clone()).await;
    let started = shop.start().await;
    shop.finish(&started.id).await;
    let first = first.answer().await;
    for ask in [
        ask.clone(),
        ask.clone().prefer("respond-async"),
        ask.prefer("wait=5"),
    ] {
        let replayed = shop.customers.ask(ask).await;
        assert_eq!((replayed.status, &replayed.body), (200, &first.body));
        assert_eq!(replayed.header("idempotency-replayed"), Some("true"));
        assert_ne!(
            replayed.header("x-request-id"),
            first.header("x-request-id")
        );
    }
    let other = shop.customers.ask(order().key("k-1")).await;
    other.expect_problem(422, "idempotency-key-reused");
    let metrics = shop.metrics().await;
    assert_eq!(metrics.count("odyssey_orders_replayed_total"), 3);
    assert_eq!((metrics.placed(), metrics.waiting()), (1, 0));
    shop.close().await;
}

#[tokio::test]
async fn an_answer_is_forgotten_after_the_replay_time_and_the_key_is_free_again() {
    let shop = Shop::open(&[("orders.replay", "1s")]).await;
    let visitor = shop.customer(order().key("k-1")).await;
    let started = shop.start().await;
    shop.finish(&started.id).await;
    visitor.answer().await.expect(200);
    shop.until("the order is forgotten", |now| {
        now.count("odyssey_orders{stage=\"ready\"}") == 0
    })
    .await;
    let gone = shop
        .customers
        .ask(get(format!("/orders/{}", started.id)))
        .await;
    gone.expect_problem(404, "order-unknown");
    shop.try_finish(&started.id, "")
        .await
        .expect_problem(404, "order-unknown");
    let again = shop.customer(order().key("k-1")).await;
    assert_eq!(shop.metrics().await.placed(), 2);
    shop.serve_all().await;
    assert_ne!(
        text(&again.answer().await.expect(200)["order_id"]),
        started.id
    );
    shop.close().await;
}

// --- Prefer --------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_customer_who_prefers_to_wait_a_second_gets_202_and_the_order_is_made_without_them() {
    let shop = Shop::open(&[]).await;
    let accepted = shop
        .customers
        .ask(order().prefer("wait=1").json(&json!({"customer": "Ada"})))
        .await;
    let waiting = accepted.expect(202);
    let id = text(&waiting["order_id"]);
    assert_eq!(
        accepted.header("location"),
        Some(format!("/orders/{id}").as_str())
    );
    assert_eq!(accepted.header("preference-applied"), Some("wait=1"));
    assert_eq!(accepted.header("cache-control"), Some("no-store"));
    assert_eq!(
        (&waiting["status"], &waiting["position"]),
        (&json!("waiting"), &json!(1))
    );

    let alone = shop
        .until("nobody is attached", |now| {
            now.connections("customers") == 0
        })
        .await;
    assert_eq!((alone.waiting(), alone.held()), (1, 0), "it stays in line");
    let started = shop.start().await;
    assert_eq!(
        (started.id.as_str(), started.customer_waiting),
        (id.as_str(), false)
    );
    let finished = shop.finish(&id).await;
    assert_eq!(finished["delivered"], false, "nobody was there");
    let ready = shop
        .customers
        .expect(get(accepted.header("location").unwrap()), 200)
        .await;
    assert_eq!(
        (&ready["status"], &ready["customer"]),
        (&json!("ready"), &json!("Ada"))
    );
    shop.close().await;
}

#[tokio::test]
async fn a_customer_who_prefers_not_to_wait_gets_202_at_once() {
    let shop = Shop::open(&[]).await;
    for preference in ["respond-async", "wait=0", "handling=lenient, Respond-Async"] {
        let answer = shop.customers.ask(order().prefer(preference)).await;
        assert_eq!(answer.expect(202)["status"], "waiting", "{preference}");
        assert_eq!(answer.header("preference-applied"), Some("respond-async"));
    }
    assert_eq!(shop.metrics().await.waiting(), 3);
    assert_eq!(shop.serve_all().await.len(), 3);
    shop.close().await;
}

// --- Asking --------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn an_order_tells_its_place_and_stage_and_once_a_pace_is_known_its_time() {
    let shop = Shop::open(&[]).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(shop.promised().await);
    }
    for (place, id) in ids.iter().enumerate() {
        let mut state = shop.state(id).await;
        for time in ["placed_at", "ask_before"] {
            assert!(state.as_object_mut().unwrap().remove(time).is_some());
        }
        let expected = json!({
            "order_id": id, "number": format!("A0{place}"), "drink": "americano", "status": "waiting",
            "position": place + 1, "attempts": 0, "crew": "away",
        });
        assert_eq!(state, expected, "nothing was measured yet");
    }
    assert_eq!(shop.start().await.id, ids[0]);
    let brewing = shop.state(&ids[0]).await;
    assert_eq!(brewing["status"], "brewing");
    assert_eq!(brewing.get("position"), None);
    assert!(time(&brewing["placed_at"]) <= time(&brewing["started_at"]));
    assert_eq!(shop.state(&ids[1]).await["position"], 1, "it moved up");

    shop.finish(&ids[0]).await;
    let ready = shop.state(&ids[0]).await;
    assert_eq!(ready["status"], "ready");
    assert_eq!(ready["attempts"], 1);
    assert!(time(&ready["started_at"]) <= time(&ready["finished_at"]));
    let [second, third] = [shop.state(&ids[1]).await, shop.state(&ids[2]).await];
    let estimate = |state: &Value| state["estimated_wait_ms"].as_u64().unwrap();
    assert!(estimate(&second) <= estimate(&third), "{second} {third}");
    let slashed = get(format!("/orders/{}/", ids[2]));
    let slashed = shop.customers.ask(slashed).await;
    assert_eq!(slashed.header("cache-control"), Some("no-store"));
    assert_eq!(slashed.expect(200)["position"], 2);
    shop.serve_all().await;
    shop.close().await;
}

#[tokio::test]
async fn somebody_who_asks_with_wait_is_held_until_the_order_is_ready() {
    let shop = Shop::open(&[]).await;
    let id = shop.promised().await;
    let asking = shop.customers.hold(get(format!("/orders/{id}?wait=25")));
    shop.until("the question is held", |now| now.held() == 1)
        .await;
    shop.start().await;
    assert!(asking.is_held(), "brewing is not ready");
    shop.finish(&id).await;
    assert_eq!(asking.answer().await.expect(200)["status"], "ready");
    let at_once = shop
        .customers
        .ask(get(format!("/orders/{id}?wait=25")))
        .await;
    assert_eq!(at_once.expect(200)["status"], "ready");
    shop.close().await;
}

#[tokio::test]
async fn an_unknown_order_is_404_and_a_malformed_one_400() {
    let shop = Shop::open(&[]).await;
    for (id, status, kind) in [
        (UNKNOWN, 404, "order-unknown"),
        ("1", 400, "unreadable"),
        (&UNKNOWN[1..], 400, "unreadable"),
        ("%ff", 400, "unreadable"),
    ] {
        for ask in [get, delete].map(|ask| ask(format!("/orders/{id}"))) {
            shop.customers.ask(ask).await.expect_problem(status, kind);
        }
    }
    let wait = get(format!("/orders/{UNKNOWN}?wait=56"));
    shop.customers.expect_problem(wait, 422, "invalid").await;
    shop.close().await;
}

// --- Cancelling ----------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_cancelled_order_leaves_the_line_and_whoever_is_held_for_it_gets_409() {
    let shop = Shop::open(&[]).await;
    let promised = shop
        .customers
        .ask(order().key("k-1").prefer("respond-async"))
        .await;
    let id = text(&promised.expect(202)["order_id"]);
    let held = [
        shop.customer(order().key("k-1")).await,
        shop.customer(order().key("k-1")).await,
    ];
    let asking = shop.customers.hold(get(format!("/orders/{id}?wait=25")));
    shop.until("all are held", |now| now.held() == 3).await;
    let behind = shop.customer(order()).await;

    let cancelled = shop
        .customers
        .expect(delete(format!("/orders/{id}")), 200)
        .await;
    assert_eq!(
        (&cancelled["order_id"], &cancelled["status"]),
        (&json!(id), &json!("cancelled"))
    );
    for visitor in held {
        let problem = visitor
            .answer()
            .await
            .expect_problem(409, "order-cancelled");
        assert_eq!(
            (&problem["state"], &problem["order_id"]),
            (&json!("cancelled"), &json!(id))
        );
    }
    assert_eq!(asking.answer().await.expect(200)["status"], "cancelled");
    for _ in 0..2 {
        let again = shop.customers.ask(delete(format!("/orders/{id}/"))).await;
        assert_eq!(
            again.expect(200)["status"],
            "cancelled",
            "cancelling twice is fine"
        );
    }
    let replayed = shop.customers.ask(order().key("k-1")).await;
    replayed.expect_problem(409, "order-cancelled");
    assert_eq!(replayed.header("idempotency-replayed"), Some("true"));
    let problem = shop
        .try_finish(&id, "")
        .await
        .expect_problem(409, "not-started");
    assert_eq!(problem["state"], "cancelled");

    assert_ne!(shop.start().await.id, id, "the one behind is next");
    let metrics = shop.metrics().await;
    assert_eq!((metrics.waiting(), metrics.cancelled("deleted")), (0, 1));
    behind.leave().await;
    shop.close().await;
}

#[tokio::test]
async fn an_order_that_is_brewed_or_ready_cannot_be_cancelled() {
    let shop = Shop::open(&[]).await;
    let visitor = shop.customer(order()).await;
    let started = shop.start().await;
    for state in ["brewing", "ready"] {
        let cancel = delete(format!("/orders/{}", started.id));
        let refused = shop.customers.ask(cancel).await;
        assert_eq!(refused.expect_problem(409, "too-late")["state"], state);
        shop.finish(&started.id).await;
    }
    visitor.answer().await.expect(200);
    shop.close().await;
}

#[tokio::test]
async fn a_short_key_is_its_address_s_own_and_a_long_one_names_the_same_order_from_anywhere() {
    let shop = Shop::open(&[("flood.trusted_proxies", "127.0.0.1")]).await;
    let by = |customer: &str, address: &str, key: &str| {
        let ask = order().json(&json!({"customer": customer}));
        ask.key(key).header("x-forwarded-for", address)
    };
    // A key that any customer might choose: a squatter does not get another customer's coffee.
    let squatter = shop.customer(by("Eve", "192.0.2.66", "1")).await;
    let regular = shop.customer(by("Ada", "192.0.2.1", "1")).await;
    let again = shop.customer(by("Ada", "192.0.2.1", "1")).await;
    assert_eq!(shop.serve_all().await, ["Eve", "Ada"]);
    assert_eq!(squatter.answer().await.expect(200)["customer"], "Eve");
    for held in [regular, again] {
        assert_eq!(held.answer().await.expect(200)["customer"], "Ada");
    }
    // A phone leaves its network, and is still brewed for.
    let key = "sixteen-letters!";
    let at_home = shop.customer(by("Bo", "192.0.2.1", key)).await;
    at_home.leave().await;
    shop.until("the connection is gone", |now| now.held() == 0)
        .await;
    let started = shop.start().await;
    assert!(!started.customer_waiting);
    let under_way = shop.customer(by("Bo", "2001:db8::1", key)).await;
    assert_eq!(shop.finish(&started.id).await["delivered"], true);
    under_way.answer().await.expect(200);
    let replayed = shop.customers.ask(by("Bo", "198.51.100.7", key)).await;
    assert_eq!(replayed.header("idempotency-replayed"), Some("true"));
    shop.close().await;
}

#[tokio::test]
async fn where_nobody_is_counted_a_short_key_is_its_connection_s_address_s() {
    let shop = Shop::open(&[("flood.mode", "off")]).await;
    let first = shop.customer(order().key("1")).await;
    let again = shop.customer(order().key("1")).await;
    let elsewhere = shop.customers.connect_from("127.0.66.6").await;
    let other = shop.customer_over(elsewhere, order().key("1")).await;
    shop.serve_on_one_connection(2).await;
    for held in [first, again, other] {
        held.answer().await.expect(200);
    }
    shop.close().await;
}
