//! Leases, graces and waits, under tokio's paused clock.

use std::net::IpAddr;

use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::super::idempotency::Keyed;
use super::super::line::tests::rules;
use super::*;

fn open() -> (Memory, JoinHandle<()>) {
    let orders = Memory::new(rules(), Metrics::register());
    let keeper = tokio::spawn({
        let orders = orders.clone();
        async move { orders.run_timers().await }
    });
    (orders, keeper)
}

fn place(orders: &Memory, key: Option<&str>) -> Held {
    let keyed = key.map(|key| Keyed {
        key: IdempotencyKey::parse(key.as_bytes(), IpAddr::from([127, 0, 0, 1]).into()).unwrap(),
        fingerprint: 0,
        keep: None,
    });
    let wanted = Wanted {
        keyed,
        ..Wanted::default()
    };
    match orders.place(wanted, true) {
        Ok(Placement::Held(held)) => held,
        other => panic!("expected to be held, got {other:?}"),
    }
}

async fn pass(secs: u64) {
    sleep(Duration::from_secs(secs)).await;
}

#[tokio::test(start_paused = true)]
async fn a_barista_who_vanishes_loses_the_order_after_the_lease() {
    let (orders, _keeper) = open();
    let held = place(&orders, None);
    pass(7).await;
    orders.pull(None, false).lease().unwrap().confirm();
    pass(119).await;
    assert_eq!(orders.figures().brewing, 1);
    pass(2).await;
    assert_eq!(orders.figures().waiting, 1);
    let again = orders.pull(None, false).lease().unwrap();
    assert_eq!(again.lease().attempt, 2);
    again.confirm();
    orders.finish(held.order(), Some(2), None).unwrap();
    assert!(matches!(held.await, Outcome::Ready(order) if order.attempts == 2));
}

#[tokio::test(start_paused = true)]
async fn an_order_given_up_by_its_lease_goes_to_a_barista_who_waits_for_it() {
    let (orders, _keeper) = open();
    let held = place(&orders, None);
    orders.pull(None, false).lease().unwrap().confirm();
    let next = orders
        .pull(None, true)
        .within(Duration::from_secs(1000))
        .await
        .unwrap();
    assert_eq!((next.lease().id, next.lease().attempt), (held.order(), 2));
}

#[tokio::test(start_paused = true)]
async fn a_keyed_customer_may_be_away_for_the_grace_and_no_longer() {
    let (orders, _keeper) = open();
    let order = place(&orders, Some("k")).order();
    pass(59).await;
    let back = place(&orders, Some("k"));
    assert_eq!(back.order(), order);
    drop(back);
    pass(62).await;
    assert_eq!(orders.figures().waiting, 0);
    assert_ne!(place(&orders, Some("k")).order(), order);
}

#[tokio::test(start_paused = true)]
async fn a_barista_who_has_waited_long_enough_goes_with_empty_hands() {
    let (orders, _keeper) = open();
    let before = Instant::now();
    assert!(
        orders
            .pull(None, true)
            .within(Duration::from_secs(55))
            .await
            .is_none()
    );
    assert_eq!(before.elapsed(), Duration::from_secs(55));
    assert_eq!(orders.figures().idle_baristas, 0);
}

#[tokio::test(start_paused = true)]
async fn a_held_customer_is_held_for_days() {
    let (orders, _keeper) = open();
    let held = place(&orders, None);
    pass(3 * 24 * 3600).await;
    let guard = orders.pull(None, false).lease().unwrap();
    assert_eq!(guard.lease().waited, Duration::from_secs(3 * 24 * 3600));
    guard.confirm();
    orders.finish(held.order(), None, None).unwrap();
    assert!(matches!(held.await, Outcome::Ready(_)));
}

#[tokio::test(start_paused = true)]
async fn who_watches_an_order_sees_it_ready_or_sees_it_as_it_is_in_the_end() {
    let (orders, _keeper) = open();
    let held = place(&orders, None);
    let view = orders
        .ask_within(held.order(), Duration::from_secs(25))
        .await
        .unwrap();
    assert_eq!(view.position, Some(1));
    orders.pull(None, false).lease().unwrap().confirm();
    let finish = async {
        pass(10).await;
        orders.finish(held.order(), None, None).unwrap()
    };
    let (view, _) = tokio::join!(
        orders.ask_within(held.order(), Duration::from_secs(25)),
        finish
    );
    assert_eq!(view.unwrap().order.stage.as_str(), "ready");
    assert_eq!(orders.figures().held, 0, "all were answered");
}

#[tokio::test(start_paused = true)]
async fn a_finished_order_is_forgotten_after_a_while() {
    let (orders, _keeper) = open();
    let held = place(&orders, None);
    let order = held.order();
    orders.pull(None, false).lease().unwrap().confirm();
    orders.finish(order, None, None).unwrap();
    drop(held);
    pass(598).await;
    assert!(orders.finish(order, None, None).unwrap().already);
    pass(3).await;
    assert!(matches!(
        orders.finish(order, None, None),
        Err(FinishError::Unknown)
    ));
}

#[tokio::test(start_paused = true)]
async fn at_closing_time_nobody_is_left_holding() {
    let (orders, _keeper) = open();
    let held = place(&orders, None);
    orders.pull(None, false).lease().unwrap().confirm();
    let Taken::Idle(idle) = orders.pull(None, true) else {
        panic!("no other order waits")
    };
    assert_eq!(orders.close(), 1);
    assert!(matches!(held.await, Outcome::Closing));
    assert!(idle.await.is_none());
    assert!(matches!(
        orders.place(Wanted::default(), true),
        Err(PlaceError::Closing)
    ));
    assert_eq!(orders.figures().held, 0);
}
