//! The server stops: in order, when the time is over, and at once.

use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::until;

use crate::client::{get, order, post};
use crate::shop::{Shop, Started, text};

/// Sends SIGTERM and waits until the customers' side has closed.
async fn stop(shop: &Shop) {
    shop.signal(Signal::TERM);
    until("the customers' listener is closed", async || {
        shop.customers.refuses().await
    })
    .await;
}

#[tokio::test]
async fn after_sigterm_everybody_held_is_served_and_nobody_new_comes_in() {
    let shop = Shop::open(&[]).await;
    let brewed = shop.customer(order()).await;
    let waiting = shop.customer(order().key("k-1")).await;
    let started = shop.start().await;

    stop(&shop).await;
    let ready = shop.staff.ask(get("/readyz")).await;
    let problem = ready.expect_problem(503, "stopping");
    assert_eq!(problem["components"].as_array().unwrap().len(), 6);
    assert!(ready.retry_after() >= 1);
    let desk = shop.staff.ask(get("/readyz/packages")).await;
    desk.expect_problem(503, "stopping");
    shop.staff.ask(get("/healthz")).await.expect(200);
    let metrics = shop.metrics().await;
    assert_eq!((metrics.held(), metrics.waiting()), (2, 1));

    shop.finish(&started.id).await;
    let answer = brewed.answer().await;
    answer.expect(200);
    assert_eq!(
        answer.header("connection"),
        Some("close"),
        "there will be no next request: {answer}"
    );
    assert!(waiting.is_held());
    // A barista who comes only now is welcome: a customer is still held.
    let last = shop.start().await;
    let finish = shop
        .staff
        .hold(post(format!("/finish/?order_id={}&next=50", last.id)));
    waiting.answer().await.expect(200);
    let both = finish.answer().await.expect(200);
    assert_eq!(
        (&both["finished"]["delivered"], &both["next"]),
        (&json!(true), &Value::Null)
    );
    let log = shop.ended_well().await;
    assert!(!log.contains("did not close in time"), "{log}");
}

#[tokio::test]
async fn a_crew_at_work_serves_a_long_line_after_sigterm() {
    let shop = Shop::open(&[]).await;
    let mut customers = Vec::new();
    for _ in 0..50 {
        customers.push(shop.customer(order()).await);
    }
    let crew: Vec<_> = (0..5)
        .map(|_| {
            let staff = shop.staff;
            tokio::spawn(async move {
                let mut connection = staff.connect().await;
                // Until the server has no order left to serve, and closes the connection.
                while let Ok(answer) = connection.try_ask(&get("/start/?wait=20")).await {
                    if answer.status == 204 {
                        continue;
                    }
                    let started = Started::of(&answer.expect(200));
                    let finish = post(format!("/finish/?order_id={}", started.id));
                    // The answer to the very last finish may be cut off by nothing but a bug.
                    connection.ask(&finish).await.expect(200);
                }
            })
        })
        .collect();
    shop.signal(Signal::TERM);
    for customer in customers {
        customer.answer().await.expect(200);
    }
    let log = shop.ended_well().await;
    assert!(log.contains("\"message\":\"closed\""), "{log}");
    for barista in crew {
        barista.await.unwrap();
    }
}

#[tokio::test]
async fn whoever_is_still_held_when_the_drain_is_over_is_sent_away_with_503() {
    let shop = Shop::open(&[("shutdown.drain", "1s")]).await;
    let waiting = shop.customer(order()).await;
    let brewed = shop.customer(order().key("k-1")).await;
    let promised = shop.promised().await;
    let asking = shop
        .customers
        .hold(get(format!("/orders/{promised}?wait=50")));
    shop.until("all are held", |now| now.held() == 3).await;
    shop.start().await;
    shop.signal(Signal::TERM);
    for visitor in [waiting, brewed] {
        let answer = visitor.answer().await;
        answer.expect_problem(503, "stopping");
        assert!(answer.retry_after() >= 1);
    }
    assert_eq!(
        asking.answer().await.expect(200)["status"],
        "waiting",
        "it is told how things stand"
    );
    let log = shop.ended_well().await;
    let warning = log.lines().find(|line| line.contains("\"level\":\"WARN\""));
    assert!(
        warning.is_some_and(|line| line.contains("`shutdown.drain` is over")),
        "{log}"
    );
}

#[tokio::test]
async fn idle_baristas_are_sent_home_with_204() {
    let shop = Shop::open(&[]).await;
    let one = shop.idle_barista("barista=one").await;
    let two = shop.idle_barista("barista=two").await;
    shop.signal(Signal::TERM);
    for barista in [one, two] {
        let answer = barista.answer().await;
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{answer}");
    }
    shop.ended_well().await;
}

#[tokio::test]
async fn orders_that_nobody_is_held_for_do_not_hold_up_the_end() {
    let shop = Shop::open(&[("shutdown.drain", "24h"), ("orders.reconnect_grace", "24h")]).await;
    shop.promised().await;
    shop.customer(order().key("k-1")).await.leave().await;
    shop.until("nobody is held", |now| {
        now.held() == 0 && now.waiting() == 2
    })
    .await;
    shop.signal(Signal::TERM);
    shop.ended_well().await;
}

#[tokio::test]
async fn a_customer_who_leaves_during_the_drain_lets_it_end() {
    let shop = Shop::open(&[("shutdown.drain", "24h")]).await;
    let visitor = shop.customer(order()).await;
    stop(&shop).await;
    assert!(visitor.is_held());
    visitor.leave().await;
    shop.ended_well().await;
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    for (second, code) in [(Signal::INT, 130), (Signal::QUIT, 131), (Signal::TERM, 143)] {
        let mut shop = Shop::open(&[("shutdown.drain", "24h")]).await;
        let visitor = shop.customer(order()).await;
        stop(&shop).await;
        shop.signal(second);
        assert_eq!(shop.ended().await.code(), Some(code));
        assert!(shop.log().contains("a second signal"));
        visitor.leave().await;
    }
}

#[tokio::test]
async fn connections_without_a_request_end_at_once() {
    let shop = Shop::open(&[]).await;
    let mut used = shop.customers.connect().await;
    used.ask(&get("/healthz")).await.expect(200);
    let mut staff = shop.staff.connect().await;
    staff.ask(&get("/healthz")).await.expect(200);
    let mut silent = shop.customers.raw().await;
    shop.until("both are connected", |now| {
        now.connections("customers") == 2
    })
    .await;
    shop.signal(Signal::TERM);
    used.closed().await;
    staff.closed().await;
    assert_eq!(silent.rest().await, "");
    let log = shop.ended_well().await;
    assert!(!log.contains("did not close in time"), "{log}");
}

#[tokio::test]
async fn somebody_in_the_middle_of_a_header_does_not_keep_the_server_from_ending() {
    let shop = Shop::open(&[("http.header_timeout", "5m")]).await;
    let mut slow = shop.customers.raw().await;
    slow.write("POST /order/ HT").await;
    shop.until("they are connected", |now| {
        now.connections("customers") == 1
    })
    .await;
    shop.signal(Signal::TERM);
    slow.rest().await;
    shop.ended_well().await;
}

#[tokio::test]
async fn an_order_whose_body_arrives_after_the_shop_has_closed_gets_503() {
    let shop = Shop::open(&[]).await;
    let mut late = shop.customers.raw().await;
    late.write(
        "POST /order/ HTTP/1.1\r\nhost: shop\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n",
    )
    .await;
    let go_on = late.one_answer().await;
    assert!(go_on.starts_with("HTTP/1.1 100"), "{go_on}");
    late.write("{").await;
    shop.signal(Signal::TERM);
    until("the staff's side is closed too", async || {
        shop.log().contains("draining")
    })
    .await;
    while !shop.staff.refuses().await {}
    late.write("}").await;
    let answer = late.rest().await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("\r\nretry-after: "), "{answer}");
    shop.ended_well().await;
}

#[tokio::test]
async fn an_order_is_the_baristas_until_the_end_even_if_its_customer_is_promised() {
    let shop = Shop::open(&[("shutdown.drain", "24h")]).await;
    let id = shop.promised().await;
    let asking = shop.customers.hold(get(format!("/orders/{id}?wait=50")));
    shop.until("the question is held", |now| now.held() == 1)
        .await;
    stop(&shop).await;
    assert_eq!(shop.start().await.id, id);
    shop.finish(&id).await;
    assert_eq!(text(&asking.answer().await.expect(200)["status"]), "ready");
    shop.ended_well().await;
}
