//! What a barista can ask for, and every answer to it.

use hyper::Method;
use serde_json::{Value, json};

use crate::client::{Ask, Visitor, get, order, post, send, within};
use crate::packages::package;
use crate::shop::{Shop, Started, text};

const UNKNOWN: &str = "0191d5c8-7a9b-7000-8000-000000000000";

async fn named_customer(shop: &Shop, name: &str) -> Visitor {
    shop.customer(order().json(&json!({"customer": name})))
        .await
}

fn time(json: &Value) -> jiff::Timestamp {
    text(json).parse().unwrap()
}

// --- Starting ------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_barista_gets_the_oldest_order_with_everything_about_it() {
    let shop = Shop::open(&[("orders.lease", "90s")]).await;
    let first = named_customer(&shop, "first").await;
    let second = shop.promised().await;
    let answer = shop.pull("barista=Bo").await;
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let started = answer.expect(200);
    for (field, value) in [
        ("drink", json!("americano")),
        ("customer", json!("first")),
        ("attempt", json!(1)),
        ("customer_waiting", json!(true)),
    ] {
        assert_eq!(started[field], value, "{field} of {started}");
    }
    assert!(started["waited_ms"].is_u64());
    let id = text(&started["order_id"]);
    let state = shop.state(&id).await;
    assert_eq!(started["placed_at"], state["placed_at"]);
    let lease = time(&started["lease_expires_at"]).as_millisecond()
        - time(&state["started_at"]).as_millisecond();
    assert_eq!(lease, 90_000);

    let other = shop.staff.ask(get("/start")).await.expect(200);
    assert_eq!(
        (text(&other["order_id"]), &other["customer_waiting"]),
        (second.clone(), &json!(false))
    );
    assert_eq!(other.get("customer"), None);
    assert_eq!(shop.finish(&id).await["barista"], "Bo");
    assert_eq!(shop.finish(&second).await.get("barista"), None);
    first.answer().await.expect(200);
    shop.close().await;
}

#[tokio::test]
async fn a_barista_is_told_204_when_nobody_waits() {
    for (start_wait, query) in [("25s", "wait=0"), ("1s", "")] {
        let shop = Shop::open(&[("orders.start_wait", start_wait)]).await;
        let answer = shop.pull(query).await;
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{query}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(shop.metrics().await.idle_baristas(), 0);
        shop.close().await;
    }
}

#[tokio::test]
async fn the_staff_looks_up_orders_packages_and_preferences() {
    let shop = Shop::open(&[]).await;
    let id = shop.promised().await;
    let sent = shop.customers.ask(send(&package("p-1"))).await;
    for path in [
        format!("/orders/{id}"),
        "/packages/p-1".to_owned(),
        "/preferences/ada".to_owned(),
    ] {
        let theirs = shop.customers.ask(get(&path)).await.expect(200);
        assert_eq!(shop.staff.ask(get(&path)).await.expect(200), theirs);
    }
    assert_eq!(sent.status, 201, "{sent}");
    let unknown = get(format!("/orders/{UNKNOWN}"));
    let unknown = shop.staff.ask(unknown).await;
    unknown.expect_problem(404, "order-unknown");
    shop.serve_all().await;
    shop.close().await;
}

#[tokio::test]
async fn a_barista_who_waits_gets_the_order_the_moment_it_is_placed() {
    let shop = Shop::open(&[]).await;
    // Without `wait` too: a script that asks again at once does not spin on an empty line.
    let barista = shop.staff.hold(get("/start/"));
    shop.until("the barista is idle", |now| now.idle_baristas() == 1)
        .await;
    let visitor = named_customer(&shop, "Ada").await;
    let started = Started::of(&barista.answer().await.expect(200));
    assert_eq!(started.customer.as_deref(), Some("Ada"));
    assert_eq!(shop.metrics().await.waiting(), 0);
    shop.finish(&started.id).await;
    visitor.answer().await.expect(200);
    shop.close().await;
}

#[tokio::test]
async fn a_look_at_the_headers_takes_no_order() {
    let shop = Shop::open(&[]).await;
    shop.promised().await;
    let head = Ask::new(Method::HEAD, "/start/?wait=20");
    let answer = shop.staff.ask(head).await;
    assert_eq!(answer.status, 405);
    assert_eq!(answer.header("allow"), Some("GET,POST"));
    let after = shop.metrics().await;
    assert_eq!((after.waiting(), after.brewing()), (1, 0));
    shop.serve_all().await;
    shop.close().await;
}

#[tokio::test]
async fn parameters_of_a_start_are_bounded() {
    let shop = Shop::open(&[]).await;
    shop.promised().await;
    let long = format!("barista={}", "x".repeat(65));
    for query in ["wait=56", "barista=", &long] {
        let problem = shop.pull(query).await.expect_problem(422, "invalid");
        let name = query.split('=').next().unwrap();
        assert_eq!(problem["errors"][0]["parameter"], name, "{problem}");
    }
    assert_eq!(shop.metrics().await.waiting(), 1, "no order was taken");
    let longest = format!("wait=55&barista={}", "%C3%A9".repeat(64));
    let started = Started::of(&shop.pull(&longest).await.expect(200));
    let finished = shop.finish(&started.id).await;
    assert_eq!(finished["barista"], "\u{e9}".repeat(64));
    shop.close().await;
}

// --- Finishing -----------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_finish_is_told_whether_it_was_delivered_and_a_repeat_that_it_was_already() {
    let shop = Shop::open(&[]).await;
    let visitor = shop.customer(order()).await;
    let started = shop.start().await;
    let first = shop.finish(&started.id).await;
    let mut expected = json!({
        "order_id": started.id, "status": "ready", "delivered": true, "already": false, "attempts": 1,
    });
    for measured in ["waited_ms", "brew_ms", "finished_at"] {
        expected[measured] = first[measured].clone();
    }
    assert_eq!(first, expected);
    assert!(
        first["waited_ms"].is_u64() && first["brew_ms"].is_u64(),
        "{first}"
    );
    visitor.answer().await.expect(200);
    expected["already"] = json!(true);
    for query in ["?order_id=", "/?attempt=1&order_id="] {
        let again = post(format!("/finish{query}{}", started.id));
        let answer = shop.staff.ask(again).await;
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.expect(200), expected);
    }
    assert_eq!(shop.metrics().await.finished(true), 1, "counted once");
    shop.close().await;
}

#[tokio::test]
async fn a_finish_extend_or_release_without_a_proper_order_id_is_400_and_of_a_stranger_404() {
    let shop = Shop::open(&[]).await;
    let stranger = format!("order_id={UNKNOWN}");
    for path in ["/finish/", "/extend/", "/release/"] {
        for query in [
            "",
            "order_id=7",
            "order_id=%00",
            &format!("{stranger}&attempt=-1"),
            &format!("{stranger}&attempt=4294967296"),
        ] {
            let answer = shop.staff.ask(post(format!("{path}?{query}"))).await;
            answer.expect_problem(400, "unreadable");
        }
        let answer = shop.staff.ask(post(format!("{path}?{stranger}"))).await;
        answer.expect_problem(404, "order-unknown");
    }
    shop.close().await;
}

#[tokio::test]
async fn an_order_nobody_has_started_cannot_be_finished_extended_or_released() {
    let shop = Shop::open(&[]).await;
    let id = shop.promised().await;
    let refused = async |path: &str, kind: &str, state: &str| {
        let answer = shop
            .staff
            .ask(post(format!("/{path}/?order_id={id}")))
            .await;
        assert_eq!(answer.expect_problem(409, kind)["state"], state, "{path}");
    };
    refused("finish", "not-started", "waiting").await;
    for path in ["extend", "release"] {
        refused(path, "not-brewing", "waiting").await;
    }
    assert_eq!(shop.state(&id).await["position"], 1, "it is where it was");
    shop.serve_all().await;
    for path in ["extend", "release"] {
        refused(path, "not-brewing", "ready").await;
    }
    shop.close().await;
}

#[tokio::test]
async fn a_finish_that_names_another_attempt_is_fenced_off() {
    let shop = Shop::open(&[]).await;
    let visitor = shop.customer(order()).await;
    let started = shop.start().await;
    let outdated = async |path: &str, attempt: u64, state: &str, current: u64| {
        let query = format!("order_id={}&attempt={attempt}", started.id);
        let answer = shop.staff.ask(post(format!("/{path}/?{query}"))).await;
        let problem = answer.expect_problem(409, "attempt-outdated");
        assert_eq!(problem["state"], state, "{path}: {answer}");
        assert_eq!(problem["current_attempt"], current, "{path}: {answer}");
    };
    outdated("finish", 0, "brewing", 1).await;
    outdated("finish", 2, "brewing", 1).await;
    let release = post(format!("/release/?order_id={}&attempt=1", started.id));
    shop.staff.ask(release).await.expect(200);
    let again = shop.start().await;
    assert_eq!((again.id.as_str(), again.attempt), (started.id.as_str(), 2));
    for path in ["finish", "extend", "release"] {
        outdated(path, 1, "brewing", 2).await;
    }
    assert!(visitor.is_held());
    let finished = shop.try_finish(&started.id, "&attempt=2").await;
    assert_eq!(finished.expect(200)["attempts"], 2);
    visitor.answer().await.expect(200);
    shop.close().await;
}

// --- Finishing with the next order in the same breath --------------------------------------------------------------

#[tokio::test]
async fn a_finish_with_next_brings_the_next_order_or_null() {
    let shop = Shop::open(&[]).await;
    let first = named_customer(&shop, "first").await;
    let second = named_customer(&shop, "second").await;
    let started = shop.start().await;
    let both = shop
        .try_finish(&started.id, "&next=0&barista=Bo")
        .await
        .expect(200);
    assert_eq!(
        (
            &both["finished"]["order_id"],
            &both["finished"]["delivered"]
        ),
        (&json!(started.id), &json!(true))
    );
    let next = Started::of(&both["next"]);
    assert_eq!(
        (next.customer.as_deref(), next.attempt),
        (Some("second"), 1)
    );
    first.answer().await.expect(200);
    let none = shop.try_finish(&next.id, "&next=1").await.expect(200);
    assert_eq!(
        (&none["finished"]["barista"], none.get("next")),
        (&json!("Bo"), Some(&Value::Null))
    );
    second.answer().await.expect(200);
    shop.close().await;
}

#[tokio::test]
async fn a_finish_with_next_waits_for_work_while_its_customer_is_served_at_once() {
    let shop = Shop::open(&[]).await;
    let first = named_customer(&shop, "first").await;
    let started = shop.start().await;
    let barista = shop
        .staff
        .hold(post(format!("/finish/?order_id={}&next=50", started.id)));
    first.answer().await.expect(200);
    shop.until("the barista is idle", |now| now.idle_baristas() == 1)
        .await;
    let second = named_customer(&shop, "second").await;
    let both = barista.answer().await.expect(200);
    let next = Started::of(&both["next"]);
    assert_eq!(next.customer.as_deref(), Some("second"));
    let repeat = shop.try_finish(&started.id, "&next=0").await.expect(200);
    assert_eq!(
        (&repeat["finished"]["already"], &repeat["next"]),
        (&json!(true), &Value::Null)
    );
    shop.finish(&next.id).await;
    second.answer().await.expect(200);
    shop.close().await;
}

#[tokio::test]
async fn a_finish_with_next_that_is_refused_takes_no_order() {
    let shop = Shop::open(&[]).await;
    let visitor = shop.customer(order()).await;
    let taken = shop.start().await;
    let waiting = shop.promised().await;
    for (id, more, status, kind) in [
        (
            taken.id.as_str(),
            "&next=0&attempt=9",
            409,
            "attempt-outdated",
        ),
        (UNKNOWN, "&next=0", 404, "order-unknown"),
        (&waiting, "&next=0", 409, "not-started"),
        // These are refused before anything is finished.
        (&taken.id, "&next=56", 422, "invalid"),
        (&taken.id, "&next=0&barista=", 422, "invalid"),
    ] {
        shop.try_finish(id, more).await.expect_problem(status, kind);
    }
    assert!(visitor.is_held());
    assert_eq!(shop.state(&waiting).await["position"], 1);
    shop.finish(&taken.id).await;
    visitor.answer().await.expect(200);
    shop.serve_all().await;
    shop.close().await;
}

// --- Leases --------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn an_order_whose_lease_ran_out_is_back_in_line_and_a_late_finish_is_accepted() {
    // Once too often, it goes behind the others.
    for (attempts_max, place, reason) in [("5", 1, "expired"), ("1", 2, "moved_back")] {
        let settings = [
            ("orders.lease", "1s"),
            ("orders.attempts_max", attempts_max),
        ];
        let shop = Shop::open(&settings).await;
        let visitor = shop.customer(order()).await;
        let behind = shop.promised().await;
        let started = shop.start().await;
        let after = shop
            .until("the lease has run out", |now| now.waiting() == 2)
            .await;
        assert_eq!(after.requeued(reason), 1);
        assert_eq!(after.count("odyssey_orders_expired_total"), 1);
        let state = shop.state(&started.id).await;
        assert_eq!(state["status"], "waiting");
        assert_eq!(state["position"], place);
        let finished = shop.finish(&started.id).await;
        assert_eq!(
            (&finished["already"], &finished["delivered"]),
            (&json!(false), &json!(true))
        );
        assert_eq!(visitor.answer().await.expect(200)["attempts"], 1);
        let next = shop.start().await;
        assert_eq!(next.id, behind, "nobody gets the finished one");
        shop.finish(&behind).await;
        let log = shop.close().await;
        let warned = log.contains("goes to the end of the line");
        assert_eq!(warned, reason == "moved_back", "{log}");
    }
}

#[tokio::test]
async fn a_barista_who_extends_the_lease_has_it_from_then_on() {
    let shop = Shop::open(&[("orders.lease", "1h")]).await;
    let visitor = shop.customer(order()).await;
    let started = shop.pull("").await.expect(200);
    let id = text(&started["order_id"]);
    let path = format!("/extend/?order_id={id}&attempt=1");
    let extended = async || {
        let answer = shop.staff.ask(post(&path)).await;
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let renewed = answer.expect(200);
        assert_eq!(renewed["attempt"], 1);
        assert_eq!(renewed["customer_waiting"], true);
        time(&renewed["lease_expires_at"])
    };
    let before = time(&started["lease_expires_at"]);
    // Times are shown to the millisecond.
    within("the lease ends later", async {
        while extended().await <= before {}
    })
    .await;
    shop.finish(&id).await;
    visitor.answer().await.expect(200);
    shop.close().await;
}

#[tokio::test]
async fn a_released_order_is_back_at_its_own_place_or_with_an_idle_barista_at_once() {
    let shop = Shop::open(&[]).await;
    let id = shop.promised().await;
    let other = shop.promised().await;
    shop.start().await;
    let release = post(format!("/release/?order_id={id}"));
    let answer = shop.staff.ask(release.clone()).await;
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.expect(200)["order_id"], id.as_str());
    assert_eq!(shop.state(&id).await["position"], 1);
    shop.start().await;
    assert_eq!(shop.start().await.id, other);

    let idle = shop.idle_barista("").await;
    shop.staff.ask(release).await.expect(200);
    let handed = Started::of(&idle.answer().await.expect(200));
    assert_eq!((handed.id.as_str(), handed.attempt), (id.as_str(), 3));
    assert_eq!(shop.metrics().await.requeued("released"), 2);
    shop.finish(&id).await;
    shop.finish(&other).await;
    shop.close().await;
}
