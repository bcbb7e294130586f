//! Between "taken from the line" and "answer handed to the connection": baristas who come and go at random moments.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use crate::client::{Door, Visitor, get, order, post, within};
use crate::shop::{Shop, Started, text};

const ORDERS: usize = 150;
const UNSTEADY: u64 = 30;

fn moment(random: &mut fastrand::Rng) -> Duration {
    Duration::from_micros(random.u64(0..6000))
}

/// Asks for work and hangs up at any moment: before the request is out, while idle, when the answer is on its way, or
/// with the order in hand. Only sometimes does it get as far as finishing one.
async fn unsteady_barista(staff: Door, seed: u64, open: tokio::sync::watch::Receiver<bool>) {
    let mut random = fastrand::Rng::with_seed(seed);
    while *open.borrow() {
        let stream = tokio::net::TcpStream::connect(staff.address).await.unwrap();
        if random.bool() {
            // Hanging up is a reset then, not a goodbye.
            stream.set_zero_linger().unwrap();
        }
        let mut connection = staff.over(stream).await;
        let patience = moment(&mut random);
        let start = get("/start/?wait=5");
        let asking = connection.ask(&start);
        let Ok(answer) = tokio::time::timeout(patience, asking).await else {
            continue;
        };
        let careless = random.bool();
        if answer.status == 204 || careless {
            continue;
        }
        let started = Started::of(&answer.expect(200));
        let finish = post(format!(
            "/finish/?order_id={}&attempt={}",
            started.id, started.attempt
        ));
        let patience = moment(&mut random);
        drop(tokio::time::timeout(patience, connection.ask(&finish)).await);
    }
}

/// Serves until `open` is false.
async fn steady_barista(staff: Door, open: tokio::sync::watch::Receiver<bool>) {
    let mut connection = staff.connect().await;
    while *open.borrow() {
        let answer = connection.ask(&get("/start/?wait=1")).await;
        if answer.status == 204 {
            continue;
        }
        let started = Started::of(&answer.expect(200));
        let finish = post(format!("/finish/?order_id={}", started.id));
        connection.ask(&finish).await.expect(200);
    }
}

#[tokio::test]
async fn every_order_is_served_exactly_once_while_baristas_hang_up_at_random_moments() {
    let shop = Shop::open(&[
        ("orders.lease", "1s"),
        // Vanished baristas would otherwise move orders behind the line, which is right, but not what this is about.
        ("orders.attempts_max", "1000"),
        ("log.level", "info"),
    ])
    .await;
    let open = tokio::sync::watch::Sender::new(true);
    let unsteady = tokio::sync::watch::Sender::new(true);
    let mut staff = Vec::new();
    for seed in 0..UNSTEADY {
        let barista = unsteady_barista(shop.staff, seed, unsteady.subscribe());
        staff.push(tokio::spawn(barista));
    }
    let mut random = fastrand::Rng::with_seed(4711);
    let mut visitors: Vec<Visitor> = Vec::new();
    for number in 0..ORDERS {
        if number == ORDERS / 2 {
            for _ in 0..3 {
                staff.push(tokio::spawn(steady_barista(shop.staff, open.subscribe())));
            }
        }
        let ask = order().json(&json!({"customer": number.to_string()}));
        visitors.push(shop.customers.hold(ask));
        sleep(moment(&mut random)).await;
    }
    // Enough of it: from here on every order is served at the latest when the last lease has run out.
    shop.until("most orders changed hands more than once", |now| {
        let finished = now.finished(true) + now.finished(false);
        finished == ORDERS || now.count("odyssey_orders_started_total") >= 2 * ORDERS
    })
    .await;
    unsteady.send_replace(false);
    let mut ids = BTreeSet::new();
    for (number, visitor) in visitors.into_iter().enumerate() {
        let ready = visitor.answer().await.expect(200);
        assert_eq!(
            ready["customer"],
            number.to_string(),
            "somebody else's coffee"
        );
        ids.insert(text(&ready["order_id"]));
    }
    assert_eq!(ids.len(), ORDERS);
    open.send_replace(false);
    for barista in staff {
        within("a barista goes home", barista).await.unwrap();
    }
    let after = shop.metrics().await;
    assert_eq!(
        (after.placed(), after.waiting(), after.brewing()),
        (ORDERS, 0, 0)
    );
    let delivered = after.finished(true);
    assert_eq!(
        (delivered, after.finished(false)),
        (ORDERS, 0),
        "finished once each"
    );
    // Every hand-over ended in a finish or in a return to the line.
    let started = after.count("odyssey_orders_started_total");
    let returned =
        after.requeued("expired") + after.requeued("undelivered") + after.requeued("released");
    assert!(
        started <= ORDERS + returned,
        "{started} hand-overs, {returned} returns"
    );
    shop.close().await;
}

#[tokio::test]
async fn a_barista_who_asks_twice_ahead_on_one_connection_gets_two_orders_in_turn() {
    let shop = Shop::open(&[]).await;
    let ids = [shop.promised().await, shop.promised().await];
    let mut raw = shop.staff.raw().await;
    raw.write("GET /start/?wait=0 HTTP/1.1\r\nhost: bar\r\n\r\n".repeat(3))
        .await;
    for id in &ids {
        let answer = raw.one_answer().await;
        assert!(answer.contains(id), "{answer}");
    }
    let answer = raw.one_answer().await;
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    drop(raw);
    for id in &ids {
        shop.finish(id).await;
    }
    shop.close().await;
}
