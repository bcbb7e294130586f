//! Races, explored by a model checker under thousands of schedules. A lost order shows as a deadlock: its customer
//! waits forever.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use shuttle::future::block_on;
use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;

use super::super::idempotency::Keyed;
use super::super::line::tests::rules;
use super::super::model::Stage;
use super::*;

type Lock = shuttle::sync::Mutex<LockedLine>;
type Shop = Desk<Lock>;

impl LineLock for Lock {
    fn new(line: LockedLine) -> Self {
        Self::new(line)
    }

    fn with<R>(&self, step: impl FnOnce(&mut LockedLine) -> R) -> R {
        let result = step(&mut self.lock().unwrap());
        // A send or drop after a step, outside the lock, may be overtaken.
        thread::yield_now();
        result
    }
}

const SCHEDULES: usize = 3000;

/// Random schedules, and schedules with few preemptions (PCT), which find deep races that random ones miss.
fn explore(scenario: impl Fn() + Send + Sync + Copy + 'static) {
    shuttle::check_random(scenario, SCHEDULES);
    shuttle::check_pct(scenario, SCHEDULES, 3);
}

fn shop() -> Shop {
    Desk::new(rules(), Metrics::register())
}

fn place(shop: &Shop) -> Held {
    match shop.place(Wanted::default(), true) {
        Ok(Placement::Held(held)) => held,
        other => panic!("expected to be held, got {other:?}"),
    }
}

fn place_keyed(shop: &Shop) -> Placement {
    let key = IdempotencyKey::parse(b"k", IpAddr::from([127, 0, 0, 1]).into()).unwrap();
    let keyed = Keyed {
        key,
        fingerprint: 0,
        keep: None,
    };
    let wanted = Wanted {
        keyed: Some(keyed),
        ..Wanted::default()
    };
    shop.place(wanted, true).unwrap()
}

fn pull(shop: &Shop) -> LeaseGuard {
    let taken = shop.pull(None, true);
    received(taken).expect("the shop is open")
}

fn received(taken: Taken) -> Option<LeaseGuard> {
    match taken {
        Taken::Idle(idle) => block_on(idle),
        other => other.lease(),
    }
}

fn later(secs: u64) -> Now {
    let ahead = Duration::from_secs(secs);
    let now = now();
    Now {
        instant: now.instant + ahead,
        wall: now.wall_after(ahead),
    }
}

fn assert_empty(shop: &Shop) {
    let figures = shop.figures();
    assert_eq!(
        (
            figures.waiting,
            figures.brewing,
            figures.held,
            figures.idle_baristas
        ),
        (0, 0, 0, 0)
    );
}

#[test]
fn whoever_drops_a_hand_over_the_order_is_served_in_the_end() {
    explore(|| {
        let shop = shop();
        let customers: Vec<_> = (0..2)
            .map(|_| {
                let shop = shop.clone();
                thread::spawn(move || block_on(place(&shop)))
            })
            .collect();
        // Two baristas whose connections break: while idle, with a lease sent, or with one received.
        let leavers: Vec<_> = (0..2)
            .map(|_| {
                let shop = shop.clone();
                thread::spawn(move || match shop.pull(None, true) {
                    Taken::Idle(idle) if thread_rng().gen_bool(0.5) => {
                        drop(block_on(idle.stop()));
                    }
                    other => drop(other),
                })
            })
            .collect();
        for _ in 0..2 {
            let guard = pull(&shop);
            let lease = guard.lease().clone();
            guard.confirm();
            assert_eq!(
                lease.attempt, 1,
                "what did not reach a barista is not counted"
            );
            assert!(!shop.finish(lease.id, Some(1), None).unwrap().already);
        }
        for leaver in leavers {
            leaver.join().unwrap();
        }
        for customer in customers {
            assert!(matches!(customer.join().unwrap(), Outcome::Ready(order) if order.delivered));
        }
        assert_empty(&shop);
    });
}

#[test]
fn an_order_is_never_with_two_baristas_while_its_lease_holds() {
    explore(|| {
        let shop = shop();
        let at_work = Arc::new(AtomicUsize::new(0));
        let held = place(&shop);
        let baristas: Vec<_> = (0..3)
            .map(|_| {
                let (shop, at_work) = (shop.clone(), Arc::clone(&at_work));
                thread::spawn(move || {
                    let Some(guard) = shop.pull(None, false).lease() else {
                        return 0;
                    };
                    assert_eq!(at_work.fetch_add(1, Ordering::SeqCst), 0, "two at once");
                    thread::yield_now();
                    let lease = guard.lease().clone();
                    at_work.fetch_sub(1, Ordering::SeqCst);
                    if thread_rng().gen_bool(0.5) {
                        drop(guard);
                        return 0;
                    }
                    guard.confirm();
                    shop.finish(lease.id, Some(lease.attempt), None).unwrap();
                    1
                })
            })
            .collect();
        let finishes: usize = baristas
            .into_iter()
            .map(|barista| barista.join().unwrap())
            .sum();
        assert!(finishes <= 1);
        if finishes == 1 {
            assert!(matches!(block_on(held), Outcome::Ready(_)));
        } else {
            drop(held);
        }
        assert_empty(&shop);
    });
}

#[test]
fn a_customer_who_leaves_is_either_gone_or_brewed_for_never_both() {
    explore(|| {
        let shop = shop();
        let held = place(&shop);
        let order = held.order();
        let leaving = thread::spawn(move || drop(held));
        let barista = {
            let shop = shop.clone();
            thread::spawn(move || {
                let guard = shop.pull(None, false).lease()?;
                guard.confirm();
                Some(shop.finish(order, None, None).unwrap())
            })
        };
        leaving.join().unwrap();
        match barista.join().unwrap() {
            Some(report) => assert!(!report.already),
            None => assert!(
                shop.view(order).is_none(),
                "it left the line with its customer"
            ),
        }
        assert_empty(&shop);
    });
}

#[test]
fn when_a_lease_runs_out_only_the_first_finish_counts_and_one_answer_is_given() {
    explore(|| {
        let shop = shop();
        let held = place(&shop);
        let order = held.order();
        pull(&shop).confirm();
        let slow = {
            let shop = shop.clone();
            thread::spawn(move || shop.finish(order, None, None).unwrap().already)
        };
        let clock = {
            let shop = shop.clone();
            thread::spawn(move || shop.elapse(later(121)))
        };
        let second = {
            let shop = shop.clone();
            thread::spawn(move || {
                let guard = shop.pull(None, false).lease()?;
                let attempt = guard.lease().attempt;
                guard.confirm();
                assert_eq!(attempt, 2);
                // Fenced or already done if the slow one was faster in the end.
                Some(
                    shop.finish(order, Some(2), None)
                        .is_ok_and(|report| !report.already),
                )
            })
        };
        let first_counted = !slow.join().unwrap();
        clock.join().unwrap();
        let second_counted = second.join().unwrap().unwrap_or(false);
        assert!(first_counted ^ second_counted, "exactly one finish counts");
        assert!(matches!(block_on(held), Outcome::Ready(_)));
        assert_empty(&shop);
    });
}

#[test]
fn a_lease_that_runs_out_meets_an_idle_barista_who_leaves() {
    explore(|| {
        let shop = shop();
        let held = place(&shop);
        pull(&shop).confirm();
        let clock = {
            let shop = shop.clone();
            thread::spawn(move || shop.elapse(later(121)))
        };
        let leaver = {
            let shop = shop.clone();
            thread::spawn(move || drop(shop.pull(None, true)))
        };
        clock.join().unwrap();
        leaver.join().unwrap();
        let again = pull(&shop);
        assert_eq!(again.lease().attempt, 2);
        again.confirm();
        shop.finish(held.order(), Some(2), None).unwrap();
        assert!(matches!(block_on(held), Outcome::Ready(_)));
        assert_empty(&shop);
    });
}

#[test]
fn two_requests_with_one_key_make_one_order_and_get_one_answer_each() {
    explore(|| {
        let shop = shop();
        let requests: Vec<_> = (0..2)
            .map(|_| {
                let shop = shop.clone();
                thread::spawn(move || match place_keyed(&shop) {
                    Placement::Held(held) => block_on(held),
                    Placement::Replayed(outcome) => outcome,
                    Placement::Promised(_) => panic!("not asked for"),
                })
            })
            .collect();
        let guard = pull(&shop);
        let id = guard.lease().id;
        guard.confirm();
        shop.finish(id, None, None).unwrap();
        for request in requests {
            assert!(matches!(request.join().unwrap(), Outcome::Ready(order) if order.id == id));
        }
        assert!(
            shop.pull(None, false).lease().is_none(),
            "there was one order"
        );
        assert_empty(&shop);
    });
}

#[test]
fn a_keyed_customer_who_leaves_and_one_who_comes_back_keep_the_order_alive() {
    explore(|| {
        let shop = shop();
        let Placement::Held(first) = place_keyed(&shop) else {
            panic!("new")
        };
        let id = first.order();
        let leaving = thread::spawn(move || drop(first));
        let back = {
            let shop = shop.clone();
            thread::spawn(move || match place_keyed(&shop) {
                Placement::Held(held) => block_on(held),
                other => panic!("the order is pending: {other:?}"),
            })
        };
        let clock = {
            let shop = shop.clone();
            thread::spawn(move || shop.elapse(later(30)))
        };
        leaving.join().unwrap();
        clock.join().unwrap();
        // Within the grace, in any order of leaving and coming back: it is one order, and it is served.
        let guard = pull(&shop);
        assert_eq!(guard.lease().id, id);
        guard.confirm();
        // The one who comes back may come after the finish: then the answer is replayed, which this scenario excludes by
        // finishing only once they are attached.
        while shop.figures().held == 0 {
            thread::yield_now();
        }
        shop.finish(id, None, None).unwrap();
        assert!(matches!(back.join().unwrap(), Outcome::Ready(_)));
        assert_empty(&shop);
    });
}

#[test]
fn a_promise_and_a_finish_at_once_give_one_of_the_two_answers() {
    explore(|| {
        let shop = shop();
        let held = place(&shop);
        let id = held.order();
        pull(&shop).confirm();
        let promising = thread::spawn(move || held.promise());
        let report = shop.finish(id, None, None).unwrap();
        match block_on(promising.join().unwrap().get()) {
            Ok(()) => assert!(!report.order.delivered, "they were answered 202"),
            Err(held) => {
                assert!(matches!(block_on(held), Outcome::Ready(_)));
                assert!(report.order.delivered);
            }
        }
        assert!(matches!(shop.view(id), Some(view) if view.order.stage == Stage::Ready));
        assert_empty(&shop);
    });
}

#[test]
fn closing_leaves_nobody_held() {
    explore(|| {
        let shop = shop();
        let customer = {
            let shop = shop.clone();
            thread::spawn(move || match shop.place(Wanted::default(), true) {
                Ok(Placement::Held(held)) => block_on(held),
                Ok(other) => panic!("expected to be held, got {other:?}"),
                Err(_) => Outcome::Closing,
            })
        };
        let barista = {
            let shop = shop.clone();
            thread::spawn(move || {
                let guard = received(shop.pull(None, true))?;
                let id = guard.lease().id;
                guard.confirm();
                shop.finish(id, None, None).ok()
            })
        };
        shop.close();
        let told = customer.join().unwrap();
        let report = barista.join().unwrap();
        if matches!(told, Outcome::Ready(_)) {
            assert!(report.unwrap().order.delivered);
        }
        assert_eq!((shop.figures().held, shop.figures().idle_baristas), (0, 0));
    });
}
