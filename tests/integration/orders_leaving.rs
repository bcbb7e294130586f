//! A client leaves: at every stage, in every way a connection can end.

use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::client::{Raw, get, order, post};
use crate::shop::{Shop, Started};

/// The bytes of an order, for customers who do something odd with their connection.
const ORDER: &str = "POST /order/ HTTP/1.1\r\nhost: shop\r\ncontent-length: 0\r\n\r\n";

async fn raw_customer(shop: &Shop, bytes: &str) -> Raw {
    let before = shop.metrics().await.placed();
    let mut raw = shop.customers.raw().await;
    raw.write(bytes).await;
    shop.until("the order is placed", |now| now.placed() > before)
        .await;
    raw
}

#[tokio::test]
async fn a_promised_order_nobody_asks_about_leaves_the_line_and_its_customer_can_learn_so() {
    let shop = Shop::open(&[("orders.promise_grace", "1s")]).await;
    let unasked = shop.promised().await;
    let all = shop
        .until("nobody has asked", |now| now.cancelled("unasked") == 1)
        .await;
    assert!(all.waiting() == 0 && all.orders_add_up());
    let order = shop.customers.ask(get(format!("/orders/{unasked}"))).await;
    assert_eq!(order.expect(200)["status"], "cancelled");
    shop.close().await;
}

#[tokio::test]
async fn a_customer_who_leaves_before_brewing_frees_the_place() {
    let shop = Shop::open(&[("orders.waiting_max", "3")]).await;
    let first = shop
        .customer(order().json(&json!({"customer": "first"})))
        .await;
    let second = shop
        .customer(order().json(&json!({"customer": "second"})))
        .await;
    let third = shop
        .customer(order().json(&json!({"customer": "third"})))
        .await;
    shop.customers
        .ask(order())
        .await
        .expect_problem(503, "line-full");
    second.leave().await;
    let after = shop
        .until("the place is free", |now| now.waiting() == 2)
        .await;
    assert_eq!((after.held(), after.cancelled("left")), (2, 1));
    let fourth = shop
        .customer(order().json(&json!({"customer": "fourth"})))
        .await;
    assert_eq!(shop.serve_all().await, ["first", "third", "fourth"]);
    for visitor in [first, third, fourth] {
        visitor.answer().await.expect(200);
    }
    shop.close().await;
}

#[tokio::test]
async fn a_customer_with_a_key_who_comes_back_within_the_grace_has_kept_the_place() {
    let shop = Shop::open(&[("orders.reconnect_grace", "1h")]).await;
    let ask = |name: &str| order().key(name).json(&json!({"customer": name}));
    let first = shop.customer(ask("first")).await;
    let second = shop.customer(ask("second")).await;
    let third = shop.customer(ask("third")).await;
    second.leave().await;
    let away = shop
        .until("the connection is gone", |now| now.held() == 2)
        .await;
    assert_eq!(
        (away.waiting(), away.cancelled("left")),
        (3, 0),
        "the place is kept"
    );
    let second = shop.customer(ask("second")).await;
    let back = shop.metrics().await;
    assert_eq!(
        (back.waiting(), back.held(), back.placed(), back.attached()),
        (3, 3, 3, 1)
    );
    assert_eq!(shop.serve_all().await, ["first", "second", "third"]);
    for visitor in [first, second, third] {
        visitor.answer().await.expect(200);
    }
    shop.close().await;
}

#[tokio::test]
async fn a_customer_with_a_key_who_is_away_is_still_brewed_for_and_gets_the_answer_later() {
    let shop = Shop::open(&[("orders.reconnect_grace", "1h")]).await;
    let visitor = shop.customer(order().key("k-1")).await;
    visitor.leave().await;
    shop.until("the connection is gone", |now| now.held() == 0)
        .await;
    let started = shop.start().await;
    assert!(!started.customer_waiting);
    let back = shop.customer(order().key("k-1")).await;
    assert_eq!(shop.finish(&started.id).await["delivered"], true);
    assert_eq!(
        back.answer().await.expect(200)["order_id"],
        started.id.as_str()
    );
    shop.close().await;
}

#[tokio::test]
async fn a_customer_with_a_key_who_stays_away_beyond_the_grace_has_lost_the_place() {
    let shop = Shop::open(&[("orders.reconnect_grace", "1s")]).await;
    let first = shop.customer(order().key("first")).await;
    let second = shop
        .customer(order().json(&json!({"customer": "second"})))
        .await;
    first.leave().await;
    let after = shop
        .until("the place is free", |now| now.waiting() == 1)
        .await;
    assert_eq!(
        (after.cancelled("abandoned"), after.cancelled("left")),
        (1, 0)
    );
    // The key is free again: this is a new order, behind the others.
    let first = shop
        .customer(order().key("first").json(&json!({"customer": "first"})))
        .await;
    assert_eq!(shop.metrics().await.placed(), 3);
    assert_eq!(shop.serve_all().await, ["second", "first"]);
    first.answer().await.expect(200);
    second.answer().await.expect(200);
    shop.close().await;
}

#[tokio::test]
async fn of_two_customers_with_one_key_one_may_leave_without_any_grace_running() {
    let shop = Shop::open(&[("orders.reconnect_grace", "1s")]).await;
    let one = shop.customer(order().key("k-1")).await;
    let other = shop.customer(order().key("k-1")).await;
    one.leave().await;
    shop.until("one is gone", |now| now.held() == 1).await;
    // Longer than the grace: another key's grace, begun later, runs out first.
    let passing = shop.customer(order().key("k-2")).await;
    passing.leave().await;
    let after = shop
        .until("a grace has run out", |now| now.cancelled("abandoned") == 1)
        .await;
    assert_eq!((after.waiting(), after.held()), (1, 1));
    shop.serve_all().await;
    other.answer().await.expect(200);
    shop.close().await;
}

#[tokio::test]
async fn a_customer_who_leaves_during_brewing_does_not_stop_it_and_the_finish_says_so() {
    let shop = Shop::open(&[]).await;
    let visitor = shop.customer(order()).await;
    let started = shop.start().await;
    assert!(started.customer_waiting);
    visitor.leave().await;
    let alone = shop
        .until("the customer is gone", |now| now.held() == 0)
        .await;
    assert_eq!((alone.brewing(), alone.cancelled("left")), (1, 0));
    let extend = shop
        .staff
        .ask(post(format!("/extend/?order_id={}", started.id)))
        .await;
    assert_eq!(extend.expect(200)["customer_waiting"], false);
    let finished = shop.finish(&started.id).await;
    assert_eq!(finished["delivered"], false);
    assert_eq!(shop.state(&started.id).await["status"], "ready");
    let after = shop.metrics().await;
    assert_eq!((after.finished(false), after.finished(true)), (1, 0));
    shop.close().await;
}

#[tokio::test]
async fn an_order_whose_customer_left_during_brewing_is_not_put_back_in_line() {
    let shop = Shop::open(&[]).await;
    let visitor = shop.customer(order()).await;
    let started = shop.start().await;
    visitor.leave().await;
    shop.until("the customer is gone", |now| now.held() == 0)
        .await;
    shop.staff
        .ask(post(format!("/release/?order_id={}", started.id)))
        .await
        .expect(200);
    assert_eq!(shop.pull("wait=0").await.status, 204);
    assert_eq!(shop.state(&started.id).await["status"], "cancelled");
    let problem = shop
        .try_finish(&started.id, "")
        .await
        .expect_problem(409, "not-started");
    assert_eq!(problem["state"], "cancelled");
    shop.close().await;
}

#[tokio::test]
async fn a_customer_whose_connection_is_reset_has_left_too() {
    let shop = Shop::open(&[]).await;
    let raw = raw_customer(&shop, ORDER).await;
    raw.0.set_zero_linger().unwrap();
    drop(raw);
    shop.until("the place is free", |now| {
        now.waiting() == 0 && now.cancelled("left") == 1
    })
    .await;
    shop.close().await;
}

#[tokio::test]
async fn a_customer_who_closes_only_their_sending_side_counts_as_gone() {
    let shop = Shop::open(&[]).await;
    let mut raw = raw_customer(&shop, ORDER).await;
    raw.0.shutdown().await.unwrap();
    shop.until("the place is free", |now| {
        now.waiting() == 0 && now.cancelled("left") == 1
    })
    .await;
    assert_eq!(raw.rest().await, "", "nothing was answered");
    shop.close().await;
}

#[tokio::test]
async fn a_customer_who_sent_two_orders_at_once_gets_both_coffees_one_after_the_other() {
    let shop = Shop::open(&[]).await;
    let mut raw = raw_customer(&shop, &ORDER.repeat(2)).await;
    assert_eq!(
        shop.metrics().await.placed(),
        1,
        "the second is read after the first is answered"
    );
    let first = shop.start().await;
    shop.finish(&first.id).await;
    let answer = raw.one_answer().await;
    assert!(answer.contains(&first.id), "{answer}");
    shop.until("the second is placed", |now| now.placed() == 2)
        .await;
    let second = shop.start().await;
    shop.finish(&second.id).await;
    let answer = raw.one_answer().await;
    assert!(answer.contains(&second.id), "{answer}");
    drop(raw);
    shop.close().await;
}

/// What old clients, proxies and tests send behind a request without waiting for its answer.
const BEHIND: [&str; 4] = [
    "\r\n",
    "\r\n\r\n\r\n",
    "GET /healthz HTTP/1.1\r\nhost: shop\r\n\r\n",
    "GET /heal",
];

#[tokio::test]
async fn a_customer_who_sent_more_behind_the_order_and_left_has_left() {
    let shop = Shop::open(&[]).await;
    for (count, behind) in BEHIND.iter().enumerate() {
        let at_once = raw_customer(&shop, &format!("{ORDER}{behind}")).await;
        let mut later = raw_customer(&shop, ORDER).await;
        later.write(behind).await;
        drop((at_once, later));
        let after = shop.until("both have left", |now| now.held() == 0).await;
        let left = 2 * (count + 1);
        assert_eq!(
            (after.waiting(), after.cancelled("left")),
            (0, left),
            "{behind:?}"
        );
    }
    shop.close().await;
}

#[tokio::test]
async fn a_customer_who_sent_more_behind_the_order_and_stays_is_answered_in_turn() {
    let shop = Shop::open(&[]).await;
    let mut raw = raw_customer(&shop, &format!("{ORDER}\r\nGET /healthz HTTP/1.1\r\n")).await;
    // In pieces, and more than the server reads at once.
    let padding = "x".repeat(9000);
    for piece in ["host: shop\r\nx-padding: ", &padding, "\r\n\r\n\r\n"] {
        raw.write(piece).await;
    }
    assert_eq!(shop.metrics().await.held(), 1);
    shop.serve_all().await;
    let coffee = raw.one_answer().await;
    assert!(coffee.contains("\"ready\""), "{coffee}");
    let health = raw.one_answer().await;
    assert!(health.ends_with("{\"status\":\"ok\"}"), "{health}");
    drop(raw);
    shop.close().await;
}

#[tokio::test]
async fn a_customer_who_sends_without_end_behind_the_order_is_sent_away() {
    let shop = Shop::open(&[]).await;
    let mut raw = raw_customer(&shop, ORDER).await;
    let flood = ORDER.repeat(2000);
    // It may be closed while it writes.
    drop(raw.0.write_all(flood.as_bytes()).await);
    let after = shop.until("the order is gone", |now| now.held() == 0).await;
    assert_eq!((after.placed(), after.cancelled("left")), (1, 1));
    drop(raw);
    shop.close().await;
}

#[tokio::test]
async fn an_idle_barista_who_sent_more_behind_the_request_and_left_is_handed_nothing() {
    let shop = Shop::open(&[]).await;
    for behind in BEHIND {
        let mut raw = shop.staff.raw().await;
        raw.write(format!(
            "GET /start/?wait=50 HTTP/1.1\r\nhost: shop\r\n\r\n{behind}"
        ))
        .await;
        shop.until("the barista is idle", |now| now.idle_baristas() == 1)
            .await;
        drop(raw);
        shop.until("nobody is idle", |now| now.idle_baristas() == 0)
            .await;
    }
    let id = shop.promised().await;
    let started = shop.start().await;
    assert_eq!((started.id.as_str(), started.attempt), (id.as_str(), 1));
    shop.finish(&id).await;
    shop.close().await;
}

#[tokio::test]
async fn a_customer_whose_body_breaks_off_has_ordered_nothing() {
    let shop = Shop::open(&[]).await;
    let mut raw = shop.customers.raw().await;
    raw.write("POST /order/ HTTP/1.1\r\nhost: shop\r\ncontent-length: 100\r\n\r\n{\"customer\":")
        .await;
    shop.until("the connection is there", |now| {
        now.connections("customers") == 1
    })
    .await;
    drop(raw);
    let after = shop
        .until("the connection is gone", |now| {
            now.connections("customers") == 0
        })
        .await;
    assert_eq!((after.placed(), after.held()), (0, 0));
    shop.close().await;
}

#[tokio::test]
async fn a_customer_who_leaves_one_order_can_use_the_next_connection_at_once() {
    let shop = Shop::open(&[]).await;
    for _ in 0..20 {
        shop.customer(order()).await.leave().await;
    }
    let after = shop.until("everybody is gone", |now| now.held() == 0).await;
    assert_eq!(
        (after.placed(), after.cancelled("left"), after.waiting()),
        (20, 20, 0)
    );
    assert_eq!(shop.pull("wait=0").await.status, 204);
    shop.close().await;
}

#[tokio::test]
async fn a_barista_who_leaves_while_idle_gets_no_order_and_the_next_one_does() {
    let shop = Shop::open(&[]).await;
    let leaving = shop.idle_barista("barista=leaving").await;
    let staying = shop.idle_barista("barista=staying").await;
    leaving.leave().await;
    shop.until("one is gone", |now| now.idle_baristas() == 1)
        .await;
    let visitor = shop.customer(order()).await;
    let started = Started::of(&staying.answer().await.expect(200));
    assert_eq!(started.attempt, 1);
    assert_eq!(shop.finish(&started.id).await["barista"], "staying");
    visitor.answer().await.expect(200);
    shop.close().await;
}
