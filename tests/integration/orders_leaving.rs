//! A client leaves: at every stage, in every way a connection can end.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Raw, order, post, within};
use crate::shop::Shop;

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
        .expect_problem(order(), 503, "line-full")
        .await;
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
async fn a_customer_who_resets_the_connection_or_closes_their_sending_side_counts_as_gone() {
    let shop = Shop::open(&[]).await;
    let reset = raw_customer(&shop, ORDER).await;
    reset.0.set_zero_linger().unwrap();
    let mut half = raw_customer(&shop, ORDER).await;
    drop(reset);
    half.0.shutdown().await.unwrap();
    let after = shop.until("both are gone", |now| now.held() == 0).await;
    assert_eq!((after.waiting(), after.cancelled("left")), (0, 2));
    assert_eq!(half.rest().await, "", "nothing was answered");
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

#[tokio::test]
async fn a_barista_who_sent_thousands_of_requests_at_once_gets_every_answer() {
    const COUNT: usize = 3000;
    let shop = Shop::open(&[("log.level", "info")]).await;
    let (mut answers, mut requests) = shop.staff.raw().await.0.into_split();
    let request = "GET /start/?wait=0 HTTP/1.1\r\nhost: shop\r\n\r\n";
    // The socket is full before the first answer: more than is ever read ahead.
    let sending = tokio::spawn(async move {
        let sent = requests.write_all(request.repeat(COUNT).as_bytes()).await;
        (sent, requests)
    });
    let (mut text, mut count) = (Vec::new(), 0);
    within("every request is answered", async {
        while count < COUNT {
            let read = answers.read_buf(&mut text).await.unwrap();
            assert_ne!(read, 0, "closed after {count} answers");
            count = String::from_utf8_lossy(&text)
                .matches("HTTP/1.1 204")
                .count();
        }
    })
    .await;
    let (sent, requests) = sending.await.unwrap();
    sent.unwrap();
    drop((answers, requests));
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
    let after = shop
        .until("the order is gone", |now| {
            now.held() == 0 && now.cancelled("left") > 0
        })
        .await;
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
