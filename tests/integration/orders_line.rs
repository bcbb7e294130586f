//! The line as a whole: first come, first served, and every customer is served once.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::client::{Connection, Door, Visitor, delete, get, order, post, within};
use crate::metrics::Metrics;
use crate::shop::{Shop, Started, text};

const CUSTOMERS: usize = 200;
const BARISTAS: usize = 10;

/// Works on one connection until all customers are served; returns the orders it took, in that order.
async fn barista(
    staff: Door,
    name: usize,
    served: tokio::sync::watch::Sender<usize>,
) -> Vec<Started> {
    let mut brew = fastrand::Rng::with_seed(name as u64);
    let mut connection = staff.connect().await;
    let mut taken = Vec::new();
    while *served.borrow() < CUSTOMERS {
        let ask = get(format!("/start/?wait=1&barista=barista-{name}"));
        let answer = connection.ask(&ask).await;
        if answer.status == 204 {
            continue;
        }
        let started = Started::of(&answer.expect(200));
        sleep(Duration::from_millis(brew.u64(0..10))).await;
        let finish = post(format!("/finish/?order_id={}&attempt=1", started.id));
        let finished = connection.ask(&finish).await.expect(200);
        assert_eq!(finished["delivered"], true);
        assert_eq!(finished["already"], false);
        assert_eq!(finished["barista"], format!("barista-{name}"));
        served.send_modify(|served| *served += 1);
        taken.push(started);
    }
    taken
}

/// Lets the whole crew work until all customers are served.
async fn crew(shop: &Shop) -> Vec<Vec<Started>> {
    let served = tokio::sync::watch::Sender::new(0);
    let baristas =
        (0..BARISTAS).map(|name| tokio::spawn(barista(shop.staff, name, served.clone())));
    let baristas: Vec<_> = baristas.collect();
    let mut taken = Vec::new();
    for barista in baristas {
        taken.push(within("a barista goes home", barista).await.unwrap());
    }
    taken
}

fn number(customer: &Value) -> usize {
    text(customer)
        .strip_prefix("customer-")
        .unwrap()
        .parse()
        .unwrap()
}

fn named(number: usize) -> Value {
    json!({"customer": format!("customer-{number:03}")})
}

/// Each order was handed out once, and each customer's own was finished.
fn everybody_was_served_once(taken: &[Vec<Started>], answers: &[Value]) {
    let handed: Vec<_> = taken
        .iter()
        .flatten()
        .map(|order| order.id.clone())
        .collect();
    let distinct: BTreeSet<_> = handed.iter().cloned().collect();
    assert_eq!((handed.len(), distinct.len()), (CUSTOMERS, CUSTOMERS));
    let answered: BTreeSet<_> = answers
        .iter()
        .map(|answer| text(&answer["order_id"]))
        .collect();
    assert_eq!(answered, distinct);
    assert!(answers.iter().all(|answer| answer["attempts"] == 1));
}

#[tokio::test]
async fn two_hundred_customers_in_line_are_started_in_order_of_arrival_by_ten_baristas() {
    let shop = Shop::open(&[]).await;
    let mut visitors: Vec<Visitor> = Vec::new();
    for number in 0..CUSTOMERS {
        visitors.push(shop.customer(order().json(&named(number))).await);
    }
    let full = shop.metrics().await;
    assert_eq!((full.waiting(), full.held()), (CUSTOMERS, CUSTOMERS));

    let taken = crew(&shop).await;
    for orders in &taken {
        let numbers: Vec<_> = orders
            .iter()
            .map(|order| order.customer.clone().unwrap())
            .collect();
        assert!(
            numbers.is_sorted(),
            "a barista got a later order first: {numbers:?}"
        );
    }
    let mut answers = Vec::new();
    for (customer, visitor) in visitors.into_iter().enumerate() {
        let answer = visitor.answer().await.expect(200);
        assert_eq!(
            number(&answer["customer"]),
            customer,
            "somebody else's coffee"
        );
        answers.push(answer);
    }
    everybody_was_served_once(&taken, &answers);
    let starts: Vec<_> = answers
        .iter()
        .map(|answer| text_time(&answer["started_at"]))
        .collect();
    assert!(starts.is_sorted(), "started out of order: {starts:#?}");

    let after = shop.metrics().await;
    assert_eq!(
        (after.placed(), after.finished(true)),
        (CUSTOMERS, CUSTOMERS)
    );
    assert_eq!(after.answers("customers", 200), CUSTOMERS);
    shop.close().await;
}

#[tokio::test]
async fn two_hundred_customers_who_arrive_while_ten_baristas_work_are_all_served_once() {
    let shop = Shop::open(&[]).await;
    let arriving = async {
        let mut visitors: Vec<Visitor> = Vec::new();
        for number in 0..CUSTOMERS {
            visitors.push(shop.customers.hold(order().json(&named(number))));
            if number % 10 == 9 {
                sleep(Duration::from_millis(5)).await;
            }
        }
        let mut answers = Vec::new();
        for (customer, visitor) in visitors.into_iter().enumerate() {
            let answer = visitor.answer().await.expect(200);
            assert_eq!(
                number(&answer["customer"]),
                customer,
                "somebody else's coffee"
            );
            answers.push(answer);
        }
        answers
    };
    let (mut answers, taken) = tokio::join!(arriving, crew(&shop));
    everybody_was_served_once(&taken, &answers);
    // Whole milliseconds are shown; within one, any order is right.
    answers.sort_by_key(|answer| text_time(&answer["placed_at"]));
    for pair in answers.windows(2) {
        let [first, second] = pair else { continue };
        let apart = text_time(&first["placed_at"]) < text_time(&second["placed_at"]);
        let overtaken = text_time(&first["started_at"]) > text_time(&second["started_at"]);
        assert!(!(apart && overtaken), "overtaken: {first} by {second}");
    }
    shop.close().await;
}

#[tokio::test]
async fn baristas_who_take_the_next_order_with_the_finish_serve_the_line_in_order() {
    let shop = Shop::open(&[]).await;
    let mut visitors: Vec<Visitor> = Vec::new();
    for number in 0..50 {
        visitors.push(shop.customer(order().json(&named(number))).await);
    }
    let mut barista: Connection = shop.staff.connect().await;
    let mut next = barista.ask(&get("/start/")).await.expect(200);
    for expected in 0..50 {
        assert_eq!(number(&next["customer"]), expected);
        let id = text(&next["order_id"]);
        let finish = post(format!("/finish/?order_id={id}&next=0"));
        let both = barista.ask(&finish).await.expect(200);
        assert_eq!(both["finished"]["order_id"], id.as_str());
        next = both["next"].clone();
    }
    assert_eq!(next, Value::Null);
    drop(barista);
    for visitor in visitors {
        visitor.answer().await.expect(200);
    }
    shop.close().await;
}

/// RFC 3339 in UTC; the number of fractional digits varies, so the texts themselves do not sort.
pub(crate) fn text_time(json: &Value) -> jiff::Timestamp {
    text(json).parse().unwrap()
}

/// Leaves without being served, in each way there is, and is counted once.
#[tokio::test]
async fn every_order_that_was_placed_is_finished_or_cancelled_or_pending() {
    let shop = Shop::open(&[
        ("orders.lease", "1s"),
        ("orders.reconnect_grace", "1s"),
        ("flood.outstanding_max", "3"),
        ("flood.cutoff_after", "2"),
    ])
    .await;
    let leave = async |ask| shop.customer(ask).await.leave().await;

    leave(order()).await;
    leave(order().key("away")).await;
    let deleted = shop.promised().await;
    shop.customers
        .ask(delete(format!("/orders/{deleted}")))
        .await
        .expect(200);
    shop.until("nobody is in line", |now| now.waiting() == 0)
        .await;

    // Left while it was brewed: once the lease runs out, once it is released, once with a key.
    let brewing = shop.customer(order()).await;
    shop.start().await;
    brewing.leave().await;
    shop.until("the lease has run out", |now| now.brewing() == 0)
        .await;
    let brewing = shop.customer(order()).await;
    let started = shop.start().await;
    brewing.leave().await;
    shop.until("nobody is held", |now| now.held() == 0).await;
    shop.staff
        .ask(post(format!("/release/?order_id={}", started.id)))
        .await
        .expect(200);
    let brewing = shop.customer(order().key("gone")).await;
    shop.start().await;
    brewing.leave().await;
    let all = shop
        .until("nothing is pending", |now| {
            now.waiting() + now.brewing() == 0 && now.orders_add_up()
        })
        .await;
    let reasons = ["left", "unwanted", "abandoned", "deleted", "cut_off"];
    assert_eq!(reasons.map(|reason| all.cancelled(reason)), [1, 2, 2, 1, 0]);
    assert_eq!(
        (all.requeued("expired"), all.requeued("released")),
        (1, 0),
        "only what is in line again was requeued"
    );
    assert_eq!(all.count("odyssey_orders_abandoned_requests_total"), 5);
    assert_eq!(all.count("odyssey_orders{stage=\"ready\"}"), 0);
    assert_eq!(all.count("odyssey_orders{stage=\"cancelled\"}"), 4);

    // Brewing, waiting, and cut off.
    let finished = shop.promised().await;
    shop.start().await;
    shop.finish(&finished).await;
    let pending = [shop.customer(order()).await, shop.customer(order()).await];
    shop.start().await;
    let third = shop.customer(order()).await;
    shop.customers.ask(order()).await.expect(429);
    third.leave().await;
    shop.until("there is room for one", |now| now.waiting() == 1)
        .await;
    let excess = shop.customer(order()).await;
    shop.customers.ask(order()).await.expect(429);
    excess.answer().await.expect_problem(429, "cut-off");
    let all = shop.until("it adds up", Metrics::orders_add_up).await;
    assert_eq!(all.cancelled("cut_off"), 1);
    assert_eq!(all.finished(false), 1);
    drop(pending);
    shop.close().await;
}
