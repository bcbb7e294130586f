//! What a barista can ask for, and every answer to it.

use serde_json::{Value, json};

use hyper::Method;

use rustix::process::Signal;

use crate::client::{Ask, Door, Visitor, delete, get, order, post, send};
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
    for (start_wait, query) in [
        ("25s", "wait=0"),
        ("25s", "wait=1"),
        ("1s", ""),
        ("0s", ""),
        ("0s", "wait=1"),
    ] {
        let shop = Shop::open(&[("orders.start_wait", start_wait)]).await;
        let answer = shop.pull(query).await;
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{query}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(shop.metrics().await.idle_baristas(), 0);
        shop.close().await;
    }
}

#[tokio::test]
async fn scripts_that_ask_again_at_once_do_not_spin_on_an_empty_line() {
    let shop = Shop::open(&[]).await;
    let script = async |staff: Door| {
        let mut connection = staff.connect().await;
        loop {
            let answer = connection.try_ask(&get("/start/")).await;
            match answer {
                Ok(answer) if answer.status == 200 => return Ok(answer),
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
    };
    let scripts: Vec<_> = (0..10).map(|_| Visitor::new(script(shop.staff))).collect();
    let all = shop
        .until("all are held", |now| now.idle_baristas() == 10)
        .await;
    assert_eq!(all.answers("staff", 204), 0);
    let id = shop.promised().await;
    shop.until("one of them has it", |now| now.idle_baristas() == 9)
        .await;
    shop.finish(&id).await;
    assert_eq!(shop.metrics().await.answers("staff", 204), 0);
    shop.signal(Signal::TERM);
    let mut took = 0;
    for script in scripts {
        took += usize::from(script.outcome().await.is_ok());
    }
    assert_eq!(took, 1, "the others were sent home");
    shop.ended_well().await;
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
    let unknown = "/orders/0191d5c8-7a9b-7000-8000-000000000000";
    let answer = shop.staff.ask(get(unknown)).await;
    answer.expect_problem(404, "order-unknown");
    let answer = shop.staff.ask(delete(format!("/orders/{id}"))).await;
    answer.expect_problem(405, "no-such-method");
    shop.serve_all().await;
    shop.close().await;
}

#[tokio::test]
async fn a_barista_who_waits_gets_the_order_the_moment_it_is_placed() {
    let shop = Shop::open(&[]).await;
    let barista = shop.idle_barista("barista=Bo").await;
    let visitor = named_customer(&shop, "Ada").await;
    let started = Started::of(&barista.answer().await.expect(200));
    assert_eq!(started.customer.as_deref(), Some("Ada"));
    assert_eq!(shop.metrics().await.waiting(), 0);
    shop.finish(&started.id).await;
    visitor.answer().await.expect(200);
    shop.close().await;
}

#[tokio::test]
async fn the_longest_idle_barista_is_served_first() {
    let shop = Shop::open(&[]).await;
    let mut idle = Vec::new();
    for name in ["one", "two", "three"] {
        idle.push((name, shop.idle_barista(&format!("barista={name}")).await));
    }
    for (name, barista) in idle {
        let visitor = named_customer(&shop, name).await;
        let started = Started::of(&barista.answer().await.expect(200));
        assert_eq!(started.customer.as_deref(), Some(name));
        assert_eq!(shop.finish(&started.id).await["barista"], name);
        visitor.answer().await.expect(200);
    }
    shop.close().await;
}

#[tokio::test]
async fn a_look_at_the_headers_takes_no_order() {
    let shop = Shop::open(&[]).await;
    let visitor = shop.customer(order()).await;
    for path in ["/start/", "/start", "/start/?wait=20"] {
        let answer = shop.staff.ask(Ask::new(Method::HEAD, path)).await;
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, Some("GET,POST")),
            "{path}"
        );
    }
    let after = shop.metrics().await;
    assert_eq!((after.waiting(), after.brewing()), (1, 0));
    shop.serve_all().await;
    visitor.answer().await.expect(200);
    shop.close().await;
}

#[tokio::test]
async fn parameters_of_a_start_are_bounded() {
    let shop = Shop::open(&[]).await;
    let visitor = shop.customer(order()).await;
    let long = format!("barista={}", "x".repeat(65));
    for (query, status, kind) in [
        ("wait=56", 422, "invalid"),
        ("wait=99999999999999999999", 400, "unreadable"),
        ("wait=-1", 400, "unreadable"),
        ("wait=1.5", 400, "unreadable"),
        ("wait=", 400, "unreadable"),
        ("barista=", 422, "invalid"),
        (long.as_str(), 422, "invalid"),
        ("barista=a&barista=b", 400, "unreadable"),
        ("wait=55&unknown=1", 400, "unreadable"),
    ] {
        let problem = shop.pull(query).await.expect_problem(status, kind);
        if status == 422 {
            let name = query.split('=').next().unwrap();
            assert_eq!(problem["errors"][0]["parameter"], name, "{problem}");
        }
    }
    assert_eq!(shop.metrics().await.waiting(), 1, "no order was taken");
    let longest = format!("wait=55&barista={}", "%C3%A9".repeat(64));
    let started = Started::of(&shop.pull(&longest).await.expect(200));
    assert_eq!(
        shop.finish(&started.id).await["barista"],
        "\u{e9}".repeat(64)
    );
    visitor.answer().await.expect(200);
    shop.close().await;
}

// --- Finishing -----------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_finish_is_told_whether_it_was_delivered_and_a_repeat_that_it_was_already() {
    let shop = Shop::open(&[]).await;
    let visitor = shop.customer(order()).await;
    let started = shop.start().await;
    let first = shop.finish(&started.id).await;
    assert_eq!(first["order_id"], started.id.as_str());
    for (field, value) in [
        ("status", json!("ready")),
        ("delivered", json!(true)),
        ("already", json!(false)),
        ("attempts", json!(1)),
    ] {
        assert_eq!(first[field], value, "{field} of {first}");
    }
    assert!(
        first["waited_ms"].is_u64() && first["brew_ms"].is_u64(),
        "{first}"
    );
    visitor.answer().await.expect(200);
    for more in ["", "&attempt=1"] {
        let answer = shop.try_finish(&started.id, more).await;
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let again = answer.expect(200);
        assert_eq!(
            (&again["already"], &again["delivered"]),
            (&json!(true), &json!(true))
        );
        assert_eq!(again["finished_at"], first["finished_at"]);
    }
    let without_slash = shop
        .staff
        .ask(post(format!("/finish?order_id={}", started.id)))
        .await;
    assert_eq!(without_slash.expect(200)["already"], true);
    assert_eq!(shop.metrics().await.finished(true), 1, "counted once");
    shop.close().await;
}

#[tokio::test]
async fn a_finish_extend_or_release_without_a_proper_order_id_is_400_and_of_a_stranger_404() {
    let shop = Shop::open(&[]).await;
    for path in ["/finish/", "/extend/", "/release/"] {
        for query in [
            "",
            "?order_id=",
            "?order_id=7",
            "?id=x",
            "?order_id=%00",
            "?attempt=1",
        ] {
            let answer = shop.staff.ask(post(format!("{path}{query}"))).await;
            answer.expect_problem(400, "unreadable");
        }
        for more in ["attempt=0x1", "attempt=-1", "attempt=4294967296"] {
            let answer = shop
                .staff
                .ask(post(format!("{path}?order_id={UNKNOWN}&{more}")))
                .await;
            answer.expect_problem(400, "unreadable");
        }
        let answer = shop
            .staff
            .ask(post(format!("{path}?order_id={UNKNOWN}")))
            .await;
        answer.expect_problem(404, "order-unknown");
    }
    shop.close().await;
}

#[tokio::test]
async fn an_order_nobody_has_started_cannot_be_finished_extended_or_released() {
    let shop = Shop::open(&[]).await;
    let id = shop.promised().await;
    let problem = shop
        .try_finish(&id, "")
        .await
        .expect_problem(409, "not-started");
    assert_eq!(problem["state"], "waiting");
    for path in ["/extend/", "/release/"] {
        let answer = shop.staff.ask(post(format!("{path}?order_id={id}"))).await;
        assert_eq!(
            answer.expect_problem(409, "not-brewing")["state"],
            "waiting"
        );
    }
    assert_eq!(shop.state(&id).await["position"], 1, "it is where it was");
    shop.serve_all().await;
    for path in ["/extend/", "/release/"] {
        let answer = shop.staff.ask(post(format!("{path}?order_id={id}"))).await;
        assert_eq!(answer.expect_problem(409, "not-brewing")["state"], "ready");
    }
    shop.close().await;
}

#[tokio::test]
async fn a_finish_that_names_another_attempt_is_fenced_off() {
    let shop = Shop::open(&[]).await;
    let visitor = shop.customer(order()).await;
    let started = shop.start().await;
    for attempt in [0, 2, 7] {
        let answer = shop
            .try_finish(&started.id, &format!("&attempt={attempt}"))
            .await;
        let problem = answer.expect_problem(409, "attempt-outdated");
        assert_eq!(
            (&problem["state"], &problem["current_attempt"]),
            (&json!("brewing"), &json!(1))
        );
    }
    shop.staff
        .ask(post(format!("/release/?order_id={}&attempt=1", started.id)))
        .await
        .expect(200);
    let answer = shop.try_finish(&started.id, "&attempt=1").await;
    assert_eq!(
        answer.expect_problem(409, "attempt-outdated")["state"],
        "waiting"
    );
    let again = shop.start().await;
    assert_eq!((again.id.as_str(), again.attempt), (started.id.as_str(), 2));
    for path in ["/finish/", "/extend/", "/release/"] {
        let outdated = post(format!("{path}?order_id={}&attempt=1", started.id));
        let problem = shop
            .staff
            .ask(outdated)
            .await
            .expect_problem(409, "attempt-outdated");
        assert_eq!(problem["current_attempt"], 2);
    }
    assert!(visitor.is_held());
    assert_eq!(
        shop.try_finish(&started.id, "&attempt=2").await.expect(200)["attempts"],
        2
    );
    visitor.answer().await.expect(200);
    shop.close().await;
}

#[tokio::test]
async fn without_an_attempt_the_first_finish_wins_whoever_brings_it() {
    let shop = Shop::open(&[]).await;
    let visitor = shop.customer(order()).await;
    let first = shop.start().await;
    shop.staff
        .ask(post(format!("/release/?order_id={}", first.id)))
        .await
        .expect(200);
    let second = Started::of(&shop.pull("barista=second").await.expect(200));
    assert_eq!(second.attempt, 2);
    let finished = shop.finish(&first.id).await;
    assert_eq!(
        (&finished["already"], &finished["attempts"]),
        (&json!(false), &json!(2))
    );
    let late = shop.try_finish(&second.id, "&attempt=2").await.expect(200);
    assert_eq!(late["already"], true);
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
    shop.try_finish(&taken.id, "&next=0&attempt=9")
        .await
        .expect_problem(409, "attempt-outdated");
    shop.try_finish(UNKNOWN, "&next=0")
        .await
        .expect_problem(404, "order-unknown");
    shop.try_finish(&waiting, "&next=0")
        .await
        .expect_problem(409, "not-started");
    // These are refused before anything is finished.
    shop.try_finish(&taken.id, "&next=56")
        .await
        .expect_problem(422, "invalid");
    shop.try_finish(&taken.id, "&next=0&barista=")
        .await
        .expect_problem(422, "invalid");
    assert!(visitor.is_held());
    assert_eq!(shop.state(&waiting).await["position"], 1);
    shop.finish(&taken.id).await;
    visitor.answer().await.expect(200);
    shop.serve_all().await;
    shop.close().await;
}

// --- Leases --------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn an_order_whose_lease_ran_out_is_back_at_its_place_and_a_late_finish_is_accepted() {
    let shop = Shop::open(&[("orders.lease", "1s")]).await;
    let visitor = shop.customer(order()).await;
    let behind = shop.promised().await;
    let started = shop.start().await;
    let after = shop
        .until("the lease has run out", |now| now.waiting() == 2)
        .await;
    assert_eq!(
        (
            after.requeued("expired"),
            after.count("odyssey_orders_expired_total")
        ),
        (1, 1)
    );
    let state = shop.state(&started.id).await;
    assert_eq!(
        (&state["status"], &state["position"]),
        (&json!("waiting"), &json!(1))
    );
    assert_eq!(shop.state(&behind).await["position"], 2);
    let finished = shop.finish(&started.id).await;
    assert_eq!(
        (&finished["already"], &finished["delivered"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(visitor.answer().await.expect(200)["attempts"], 1);
    assert_eq!(
        shop.start().await.id,
        behind,
        "nobody gets the finished one"
    );
    shop.finish(&behind).await;
    shop.close().await;
}

#[tokio::test]
async fn an_order_whose_lease_ran_out_too_often_goes_behind_the_line_and_is_still_served() {
    let shop = Shop::open(&[("orders.lease", "1s"), ("orders.attempts_max", "2")]).await;
    let visitor = named_customer(&shop, "unlucky").await;
    let behind = named_customer(&shop, "behind").await;
    for attempt in [1, 2] {
        let started = shop.start().await;
        assert_eq!(
            (started.customer.as_deref(), started.attempt),
            (Some("unlucky"), attempt)
        );
        shop.until("the lease has run out", |now| now.brewing() == 0)
            .await;
    }
    let after = shop.metrics().await;
    assert_eq!(
        (after.requeued("moved_back"), after.requeued("expired")),
        (1, 1)
    );
    assert_eq!(after.count("odyssey_orders_expired_total"), 2);
    assert_eq!(shop.serve_all().await, ["behind", "unlucky"]);
    assert_eq!(visitor.answer().await.expect(200)["attempts"], 3);
    behind.answer().await.expect(200);
    let log = shop.close().await;
    let warning = log.lines().find(|line| line.contains("\"level\":\"WARN\""));
    assert!(
        warning.is_some_and(|line| line.contains("goes to the end of the line")),
        "{warning:?}"
    );
}

#[tokio::test]
async fn a_barista_who_extends_the_lease_keeps_the_order() {
    let shop = Shop::open(&[("orders.lease", "2s")]).await;
    let visitor = shop.customer(order()).await;
    let extended = shop.start().await;
    let first = shop.state(&extended.id).await;
    // The clock of this test is another order's lease: it is as long, and begins no earlier than the first one.
    let other = shop.promised().await;
    let clock = shop.start().await;
    assert_eq!(clock.id, other);
    let path = format!("/extend/?order_id={}&attempt=1", extended.id);
    while shop.metrics().await.count("odyssey_orders_expired_total") == 0 {
        let answer = shop.staff.ask(post(&path)).await;
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let renewed = answer.expect(200);
        assert_eq!(
            (&renewed["attempt"], &renewed["customer_waiting"]),
            (&json!(1), &json!(true))
        );
        let ahead = time(&renewed["lease_expires_at"]).as_millisecond()
            - time(&first["started_at"]).as_millisecond();
        assert!(ahead >= 2000, "{renewed}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(
        shop.state(&other).await["status"],
        "waiting",
        "that one ran out"
    );
    assert_eq!(shop.state(&extended.id).await["status"], "brewing");
    assert_eq!(
        shop.try_finish(&extended.id, "&attempt=1")
            .await
            .expect(200)["delivered"],
        true
    );
    visitor.answer().await.expect(200);
    shop.serve_all().await;
    shop.close().await;
}

#[tokio::test]
async fn a_released_order_is_back_at_its_own_place_or_with_an_idle_barista_at_once() {
    let shop = Shop::open(&[]).await;
    let first = named_customer(&shop, "first").await;
    let second = named_customer(&shop, "second").await;
    let started = shop.start().await;
    let release = post(format!("/release/?order_id={}", started.id));
    let answer = shop.staff.ask(release.clone()).await;
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.expect(200)["order_id"], started.id.as_str());
    assert_eq!(shop.state(&started.id).await["position"], 1);
    let again = shop.start().await;
    assert_eq!((again.id.as_str(), again.attempt), (started.id.as_str(), 2));
    let other = shop.start().await;
    assert_eq!(other.customer.as_deref(), Some("second"));

    let idle = shop.idle_barista("").await;
    shop.staff.ask(release).await.expect(200);
    let handed = Started::of(&idle.answer().await.expect(200));
    assert_eq!(
        (handed.id.as_str(), handed.attempt),
        (started.id.as_str(), 3)
    );
    assert_eq!(shop.metrics().await.requeued("released"), 2);
    shop.finish(&handed.id).await;
    shop.finish(&other.id).await;
    first.answer().await.expect(200);
    second.answer().await.expect(200);
    shop.close().await;
}
