//! The line by situations, and against a naive model.

mod estimates;
mod leases;
#[cfg(feature = "redis")]
pub(in crate::orders) mod loopback;
mod model_based;

use std::net::IpAddr;

use jiff::Timestamp;
use uuid::Uuid;

use super::super::config::StoreKind;
use super::*;

/// Receivers and baristas are numbers.
type TestLine = Line<u32, u32>;

pub(in crate::orders) fn rules() -> Config {
    Config {
        store: StoreKind::Memory,
        line: "main".to_owned(),
        start_wait: Duration::from_secs(25),
        lease: Duration::from_secs(120),
        attempts_max: 3,
        reconnect_grace: Duration::from_secs(60),
        keep_max: Duration::from_secs(900),
        promise_grace: Duration::from_secs(300),
        replay: Duration::from_secs(600),
        remembered_max: 100,
        waiting_max: 1000,
        details_max_bytes: 16_384,
    }
}

/// A clock that the test advances.
struct Clock(Now);

impl Clock {
    fn new() -> Self {
        Self(Now {
            instant: Instant::now(),
            wall: Timestamp::UNIX_EPOCH,
        })
    }

    fn pass(&mut self, secs: u64) -> Now {
        let ahead = Duration::from_secs(secs);
        self.0 = Now {
            instant: self.0.instant + ahead,
            wall: self.0.wall_after(ahead),
        };
        self.0
    }
}

fn id(n: u128) -> OrderId {
    OrderId(Uuid::from_u128(n))
}

fn order(n: u128, now: Now) -> Order {
    Order::new(id(n), None, now)
}

fn key(name: &str) -> Keyed {
    Keyed {
        key: IdempotencyKey::parse(name.as_bytes(), IpAddr::from([127, 0, 0, 1]).into()).unwrap(),
        fingerprint: 7,
        keep: None,
    }
}

/// Places order `n`, held by receiver `n`, in a line without idle baristas.
fn place(line: &mut TestLine, now: Now, n: u128) -> Attachment {
    let receiver = u32::try_from(n).unwrap();
    match line.place(now, order(n, now), None, Some(receiver)) {
        Ok(Placed::New {
            attachment: Some(attachment),
            offer: None,
            ..
        }) => attachment,
        other => panic!("expected a held place in line, got {other:?}"),
    }
}

fn place_keyed(line: &mut TestLine, now: Now, n: u128, name: &str) -> Placed<u32, u32> {
    let receiver = u32::try_from(n).unwrap();
    line.place(now, order(n, now), Some(key(name)), Some(receiver))
        .unwrap()
}

fn pull(line: &mut TestLine, now: Now) -> Option<Lease> {
    match line.pull(now, None, None) {
        Pulled::Order(lease) => Some(lease),
        Pulled::Nothing => None,
        Pulled::Idle(_) => panic!("not asked to wait"),
    }
}

fn pulled_ids(line: &mut TestLine, now: Now) -> Vec<OrderId> {
    std::iter::from_fn(|| pull(line, now).map(|lease| lease.id)).collect()
}

fn idle(line: &mut TestLine, now: Now, barista: u32) -> Idle {
    match line.pull(now, None, Some(barista)) {
        Pulled::Idle(idle) => idle,
        other => panic!("expected to wait, got {other:?}"),
    }
}

#[test]
fn the_oldest_order_is_taken_first() {
    let (mut line, clock) = (TestLine::new(rules()), Clock::new());
    for n in 1..=5 {
        place(&mut line, clock.0, n);
    }
    assert_eq!(
        pulled_ids(&mut line, clock.0),
        (1..=5).map(id).collect::<Vec<_>>()
    );
}

#[test]
fn the_longest_idle_barista_is_served_first() {
    let (mut line, clock) = (TestLine::new(rules()), Clock::new());
    for barista in 1..=3 {
        idle(&mut line, clock.0, barista);
    }
    for n in 1..=3 {
        let Placed::New {
            offer: Some(offer), ..
        } = line
            .place(clock.0, order(u128::from(n), clock.0), None, Some(n))
            .unwrap()
        else {
            panic!("an idle barista gets the order at once");
        };
        assert_eq!(offer.barista, n);
        assert_eq!(offer.lease.id, id(u128::from(n)));
    }
    assert_eq!(line.figures(clock.0.instant).idle_baristas, 0);
}

#[test]
fn a_finish_tells_everybody_attached_and_says_it_was_delivered() {
    let (mut line, mut clock) = (TestLine::new(rules()), Clock::new());
    let Placed::New { id: first, .. } = place_keyed(&mut line, clock.0, 1, "k") else {
        panic!()
    };
    let Placed::Joined { id: joined, .. } = place_keyed(&mut line, clock.0, 2, "k") else {
        panic!()
    };
    assert_eq!(first, joined);
    line.watch(first, 3).unwrap();
    let started = clock.pass(10);
    pull(&mut line, started).unwrap();
    let now = clock.pass(40);
    let finished = line.finish(now, first, Some(1), None).unwrap();
    assert_eq!(finished.receivers.as_slice(), [1, 2, 3]);
    assert!(finished.order.delivered && !finished.already);
    assert_eq!(finished.order.waited(now), Duration::from_secs(10));
    assert_eq!(finished.order.brewed(now), Duration::from_secs(40));
    assert_eq!(line.figures(now.instant).held, 0);
}

#[test]
fn a_repeated_finish_changes_nothing_and_says_so() {
    let (mut line, mut clock) = (TestLine::new(rules()), Clock::new());
    place(&mut line, clock.0, 1);
    pull(&mut line, clock.0).unwrap();
    let first = line.finish(clock.pass(30), id(1), None, None).unwrap();
    let again = line.finish(clock.pass(30), id(1), Some(1), None).unwrap();
    assert!(again.already && again.receivers.is_empty());
    assert!(again.order.delivered);
    assert_eq!(
        again.order.ended.unwrap().wall,
        first.order.ended.unwrap().wall
    );
    assert!(matches!(
        line.finish(clock.0, id(1), Some(2), None),
        Err(FinishError::Fenced {
            stage: Stage::Ready,
            current: 1
        })
    ));
}

#[test]
fn what_was_never_started_cannot_be_finished() {
    let (mut line, clock) = (TestLine::new(rules()), Clock::new());
    place(&mut line, clock.0, 1);
    assert!(matches!(
        line.finish(clock.0, id(1), None, None),
        Err(FinishError::NotStarted {
            stage: Stage::Waiting
        })
    ));
    assert!(matches!(
        line.finish(clock.0, id(2), None, None),
        Err(FinishError::Unknown)
    ));
    line.cancel(clock.0, id(1)).unwrap();
    assert!(matches!(
        line.finish(clock.0, id(1), None, None),
        Err(FinishError::NotStarted {
            stage: Stage::Cancelled
        })
    ));
}

#[test]
fn a_customer_who_leaves_before_brewing_takes_the_order_along() {
    let (mut line, clock) = (TestLine::new(rules()), Clock::new());
    place(&mut line, clock.0, 1);
    let second = place(&mut line, clock.0, 2);
    place(&mut line, clock.0, 3);
    assert_eq!(line.leave(clock.0, second), Some(Left::Cancelled));
    assert_eq!(
        line.leave(clock.0, second),
        None,
        "leaving twice is harmless"
    );
    assert!(line.view(clock.0, id(2)).is_none());
    assert_eq!(line.view(clock.0, id(3)).unwrap().position, Some(2));
    assert_eq!(pulled_ids(&mut line, clock.0), [id(1), id(3)]);
}

#[test]
fn a_customer_who_leaves_while_it_is_brewed_is_missed_at_the_finish() {
    let (mut line, mut clock) = (TestLine::new(rules()), Clock::new());
    let attachment = place(&mut line, clock.0, 1);
    pull(&mut line, clock.0).unwrap();
    assert_eq!(line.leave(clock.0, attachment), Some(Left::Kept));
    let finished = line.finish(clock.pass(30), id(1), None, None).unwrap();
    assert!(!finished.order.delivered);
}

#[test]
fn nobody_brews_again_for_a_customer_who_is_gone() {
    let (mut line, mut clock) = (TestLine::new(rules()), Clock::new());
    let attachment = place(&mut line, clock.0, 1);
    pull(&mut line, clock.0).unwrap();
    line.leave(clock.0, attachment);
    let elapsed = line.elapse(clock.pass(120));
    let [expired] = elapsed.expired.as_slice() else {
        panic!("one lease ran out")
    };
    assert!(matches!(expired.returned, Returned::Cancelled));
    assert!(pull(&mut line, clock.0).is_none());
    assert_eq!(
        line.view(clock.0, id(1)).unwrap().order.stage,
        Stage::Cancelled
    );
}

#[test]
fn a_late_finish_of_an_order_nobody_wants_any_more_gets_one_answer_keyed_or_not() {
    for keyed in [false, true] {
        let (mut line, mut clock) = (TestLine::new(rules()), Clock::new());
        let attachment = if keyed {
            match place_keyed(&mut line, clock.0, 1, "k") {
                Placed::New {
                    attachment: Some(attachment),
                    ..
                } => attachment,
                other => panic!("{other:?}"),
            }
        } else {
            place(&mut line, clock.0, 1)
        };
        pull(&mut line, clock.0).unwrap();
        line.leave(clock.0, attachment);
        line.elapse(clock.pass(120));
        line.elapse(clock.pass(60));
        assert!(
            matches!(
                line.finish(clock.0, id(1), None, None),
                Err(FinishError::NotStarted {
                    stage: Stage::Cancelled
                })
            ),
            "keyed: {keyed}"
        );
        assert!(
            matches!(place_keyed(&mut line, clock.0, 2, "k"), Placed::New { .. }),
            "the key is free again"
        );
    }
}

#[test]
fn a_keyed_order_keeps_its_place_for_the_grace() {
    let (mut line, mut clock) = (TestLine::new(rules()), Clock::new());
    let Placed::New {
        attachment: Some(attachment),
        ..
    } = place_keyed(&mut line, clock.0, 1, "k")
    else {
        panic!()
    };
    place(&mut line, clock.0, 2);
    assert_eq!(line.leave(clock.0, attachment), Some(Left::Graced));
    assert_eq!(line.elapse(clock.pass(59)).abandoned, 0);
    let Placed::Joined { id: joined, .. } = place_keyed(&mut line, clock.0, 3, "k") else {
        panic!("back in time")
    };
    assert_eq!(joined, id(1));
    assert_eq!(
        line.elapse(clock.pass(600)).abandoned,
        0,
        "coming back ends the grace"
    );
    assert_eq!(line.view(clock.0, id(1)).unwrap().position, Some(1));
}

#[test]
fn a_keyed_order_nobody_comes_back_for_leaves_after_the_grace() {
    let (mut line, mut clock) = (TestLine::new(rules()), Clock::new());
    let Placed::New {
        attachment: Some(attachment),
        ..
    } = place_keyed(&mut line, clock.0, 1, "k")
    else {
        panic!()
    };
    line.leave(clock.0, attachment);
    assert_eq!(line.elapse(clock.pass(60)).abandoned, 1);
    assert!(line.view(clock.0, id(1)).is_none());
    assert!(
        matches!(place_keyed(&mut line, clock.0, 2, "k"), Placed::New { .. }),
        "the key is free again"
    );
}

#[test]
fn a_key_gets_the_same_answer_until_it_is_forgotten() {
    let (mut line, mut clock) = (TestLine::new(rules()), Clock::new());
    place_keyed(&mut line, clock.0, 1, "k");
    pull(&mut line, clock.0).unwrap();
    line.finish(clock.0, id(1), None, None).unwrap();
    line.elapse(clock.pass(599));
    assert!(matches!(
        place_keyed(&mut line, clock.0, 2, "k"),
        Placed::Replayed(Outcome::Ready(order), Some(2)) if order.id == id(1)
    ));
    line.elapse(clock.pass(1));
    assert!(matches!(
        place_keyed(&mut line, clock.0, 3, "k"),
        Placed::New { .. }
    ));
}

#[test]
fn a_key_with_another_body_is_refused() {
    let (mut line, clock) = (TestLine::new(rules()), Clock::new());
    place_keyed(&mut line, clock.0, 1, "k");
    let other = Keyed {
        fingerprint: 8,
        keep: None,
        ..key("k")
    };
    assert!(matches!(
        line.place(clock.0, order(2, clock.0), Some(other), Some(2)),
        Err(PlaceError::KeyReused { id }) if id == super::tests::id(1)
    ));
}

#[test]
fn a_promised_order_stays_whoever_leaves() {
    let (mut line, clock) = (TestLine::new(rules()), Clock::new());
    let attachment = place(&mut line, clock.0, 1);
    assert!(line.promise(clock.0, attachment));
    assert!(!line.promise(clock.0, attachment), "its request is gone");
    assert_eq!(line.leave(clock.0, attachment), None);
    line.place(clock.0, order(2, clock.0), None, None).unwrap();
    let watcher = line.watch(id(2), 9).unwrap();
    assert_eq!(line.leave(clock.0, watcher), None);
    assert_eq!(pulled_ids(&mut line, clock.0), [id(1), id(2)]);
}

#[test]
fn a_promised_order_nobody_asks_about_leaves_and_one_that_is_asked_about_stays() {
    let (mut line, mut clock) = (TestLine::new(rules()), Clock::new());
    for n in 1..=4 {
        line.place(clock.0, order(n, clock.0), None, None).unwrap();
    }
    let unasked = |line: &mut TestLine, now| line.elapse(now).unasked;
    assert_eq!(unasked(&mut line, clock.pass(299)), 0);
    assert!(line.ask(clock.0, id(2)).is_some());
    assert!(line.view(clock.0, id(3)).is_some(), "the staff looks");
    let watcher = line.watch(id(4), 9).unwrap();
    assert_eq!(unasked(&mut line, clock.pass(1)), 2);
    let stage = |line: &mut TestLine, n| line.view(clock.0, id(n)).unwrap().order.stage;
    assert_eq!(
        stage(&mut line, 1),
        Stage::Cancelled,
        "and can be looked up"
    );
    assert_eq!(stage(&mut line, 3), Stage::Cancelled);
    // Of those two, one is held for.
    assert_eq!(unasked(&mut line, clock.pass(299)), 1);
    line.leave(clock.0, watcher);
    assert_eq!(pulled_ids(&mut line, clock.0), [id(4)]);
    // It need not be polled while it is brewed; back in line, its grace starts again.
    assert_eq!(unasked(&mut line, clock.pass(120)), 0);
    assert_eq!(unasked(&mut line, clock.pass(299)), 0);
    assert_eq!(unasked(&mut line, clock.pass(1)), 1);
    assert_eq!(line.figures(clock.0.instant).waiting, 0);
}

#[test]
fn a_full_line_refuses_until_somebody_is_served() {
    let rules = Config {
        waiting_max: 2,
        ..rules()
    };
    let (mut line, clock) = (TestLine::new(rules), Clock::new());
    place(&mut line, clock.0, 1);
    place(&mut line, clock.0, 2);
    assert!(matches!(
        line.place(clock.0, order(3, clock.0), None, Some(3)),
        Err(PlaceError::Full { .. })
    ));
    pull(&mut line, clock.0).unwrap();
    place(&mut line, clock.0, 3);
}

#[test]
fn cancelling_tells_the_held_and_is_too_late_once_brewing() {
    let (mut line, clock) = (TestLine::new(rules()), Clock::new());
    place(&mut line, clock.0, 1);
    place(&mut line, clock.0, 2);
    let first = line.cancel(clock.0, id(1)).unwrap();
    assert_eq!(
        (first.order.stage, first.already, first.receivers.as_slice()),
        (Stage::Cancelled, false, &[1][..])
    );
    let again = line.cancel(clock.0, id(1)).unwrap();
    assert!(again.already && again.receivers.is_empty());
    pull(&mut line, clock.0).unwrap();
    assert!(matches!(
        line.cancel(clock.0, id(2)),
        Err(CancelError::TooLate {
            stage: Stage::Brewing
        })
    ));
    line.finish(clock.0, id(2), None, None).unwrap();
    assert!(matches!(
        line.cancel(clock.0, id(2)),
        Err(CancelError::TooLate {
            stage: Stage::Ready
        })
    ));
    assert!(matches!(
        line.cancel(clock.0, id(3)),
        Err(CancelError::Unknown)
    ));
}

#[test]
fn only_so_many_finished_orders_are_remembered() {
    let rules = Config {
        remembered_max: 2,
        ..rules()
    };
    let (mut line, clock) = (TestLine::new(rules), Clock::new());
    for n in 1..=3 {
        place(&mut line, clock.0, n);
        pull(&mut line, clock.0).unwrap();
        line.finish(clock.0, id(n), None, None).unwrap();
    }
    assert!(
        line.view(clock.0, id(1)).is_none(),
        "the oldest is evicted first"
    );
    assert!(line.view(clock.0, id(2)).is_some() && line.view(clock.0, id(3)).is_some());
}

#[test]
fn closing_hands_out_everybody_and_takes_nobody() {
    let (mut line, clock) = (TestLine::new(rules()), Clock::new());
    idle(&mut line, clock.0, 8);
    let (receivers, baristas) = line.close();
    assert_eq!((receivers, baristas), (vec![], vec![8]));
    let mut line = TestLine::new(rules());
    let attachment = place(&mut line, clock.0, 1);
    assert_eq!(line.close().0, [1]);
    assert_eq!(
        line.leave(clock.0, attachment),
        None,
        "their request was answered already"
    );
    assert!(matches!(
        line.place(clock.0, order(2, clock.0), None, Some(2)),
        Err(PlaceError::Closing)
    ));
    assert!(
        matches!(line.pull(clock.0, None, Some(1)), Pulled::Order(_)),
        "what is in line may still be brewed"
    );
    assert!(
        matches!(line.pull(clock.0, None, Some(1)), Pulled::Nothing),
        "but no request waits"
    );
}

fn place_from(line: &mut TestLine, now: Now, n: u128, from: &str) -> Attachment {
    let placed = Order {
        origin: Some(from.parse().unwrap()),
        ..order(n, now)
    };
    match line.place(now, placed, None, Some(u32::try_from(n).unwrap())) {
        Ok(Placed::New {
            attachment: Some(attachment),
            offer: None,
            ..
        }) => attachment,
        other => panic!("expected a held place in line, got {other:?}"),
    }
}

#[test]
fn a_purge_takes_what_nobody_has_started_and_leaves_what_was_there_before_and_everybody_elses_place()
 {
    let (mut line, mut clock) = (TestLine::new(rules()), Clock::new());
    let (flooder, regular) = ("192.0.2.7/32", "192.0.2.8/32");
    place_from(&mut line, clock.0, 6, flooder);
    let since = clock.0.instant;
    clock.pass(1);
    place_from(&mut line, clock.0, 1, flooder);
    assert_eq!(pull(&mut line, clock.0).unwrap().id, id(6));
    assert_eq!(pull(&mut line, clock.0).unwrap().id, id(1));
    line.release(clock.0, id(6), None).unwrap();
    place_from(&mut line, clock.0, 2, regular);
    place_from(&mut line, clock.0, 3, flooder);
    place_from(&mut line, clock.0, 4, regular);
    place_from(&mut line, clock.0, 5, flooder);
    let network = flooder.parse().unwrap();
    let (receivers, count) = line.purge(clock.0, network, since);
    assert_eq!((receivers.as_slice(), count), (&[3, 5][..], 2));
    assert_eq!(line.purge(clock.0, network, since).1, 0);
    assert_eq!(line.view(clock.0, id(4)).unwrap().position, Some(3));
    assert_eq!(
        line.view(clock.0, id(3)).unwrap().order.stage,
        Stage::Cancelled
    );
    assert!(
        line.finish(clock.0, id(1), None, None)
            .unwrap()
            .order
            .delivered,
        "what was started is finished"
    );
    assert_eq!(pulled_ids(&mut line, clock.0), [id(6), id(2), id(4)]);
}

#[test]
fn what_is_kept_with_a_promised_order_is_dropped_when_it_is_final() {
    let (mut line, clock) = (TestLine::new(rules()), Clock::new());
    let count = Arc::new(());
    let permit = |count: &Arc<()>| -> Permit { Box::new(Arc::clone(count)) };
    for (n, ends) in [(1, true), (2, false)] {
        line.place(clock.0, order(n, clock.0), None, None).unwrap();
        assert!(line.store_permit(id(n), permit(&count)).is_none());
        assert!(
            line.store_permit(id(n), permit(&count)).is_some(),
            "one is enough"
        );
        assert_eq!(Arc::strong_count(&count), 2);
        if ends {
            pull(&mut line, clock.0).unwrap();
            line.finish(clock.0, id(n), None, None).unwrap();
        } else {
            line.cancel(clock.0, id(n)).unwrap();
        }
        line.take_released();
        assert_eq!(Arc::strong_count(&count), 1);
        assert!(
            line.store_permit(id(n), permit(&count)).is_some(),
            "too late"
        );
    }
    // With a held customer the permit stays until the order has left the line, and through the grace of a key.
    let attachment = place(&mut line, clock.0, 3);
    assert!(line.store_permit(id(3), permit(&count)).is_none());
    line.leave(clock.0, attachment);
    line.take_released();
    assert_eq!(Arc::strong_count(&count), 1);
    let Placed::New {
        attachment: Some(attachment),
        ..
    } = place_keyed(&mut line, clock.0, 4, "k")
    else {
        panic!("a new order, held");
    };
    assert!(line.store_permit(id(4), permit(&count)).is_none());
    assert!(line.is_pending(&key("k").key));
    assert_eq!(line.leave(clock.0, attachment), Some(Left::Graced));
    line.take_released();
    assert_eq!(Arc::strong_count(&count), 2, "it is still in line");
    let mut clock = clock;
    line.elapse(clock.pass(60));
    line.take_released();
    assert_eq!(Arc::strong_count(&count), 1);
    assert!(!line.is_pending(&key("k").key));
}
