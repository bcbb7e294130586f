//! Leases: expired, extended, released, and given back.

use super::*;

#[test]
fn a_lease_that_runs_out_returns_the_order_to_its_original_place() {
    let (mut line, mut clock) = (TestLine::new(rules()), Clock::new());
    place(&mut line, clock.0, 1);
    pull(&mut line, clock.0).unwrap();
    place(&mut line, clock.0, 2);
    assert!(line.elapse(clock.pass(119)).expired.is_empty());
    assert_eq!(
        line.next_deadline(),
        Some(clock.0.instant + Duration::from_secs(1))
    );
    let elapsed = line.elapse(clock.pass(1));
    assert_eq!(
        (elapsed.expired[0].id, elapsed.expired[0].attempt),
        (id(1), 1)
    );
    let again = pull(&mut line, clock.0).unwrap();
    assert_eq!((again.id, again.attempt), (id(1), 2));
}

#[test]
fn a_late_finish_counts_while_nobody_else_has_finished() {
    let (mut line, mut clock) = (TestLine::new(rules()), Clock::new());
    place(&mut line, clock.0, 1);
    pull(&mut line, clock.0).unwrap();
    line.elapse(clock.pass(120));
    assert!(
        matches!(
            line.finish(clock.0, id(1), Some(1), None),
            Err(FinishError::Fenced {
                stage: Stage::Waiting,
                current: 2
            })
        ),
        "who names an attempt is fenced off"
    );
    let finished = line.finish(clock.pass(5), id(1), None, None).unwrap();
    assert!(finished.order.delivered);
    assert_eq!(finished.order.brewed(clock.0), Duration::from_secs(125));
    assert!(pull(&mut line, clock.0).is_none(), "it is not brewed again");
}

#[test]
fn an_order_that_wears_out_its_baristas_goes_behind_the_line() {
    let (mut line, mut clock) = (TestLine::new(rules()), Clock::new());
    place(&mut line, clock.0, 1);
    place(&mut line, clock.0, 2);
    for attempt in 1..=3 {
        let lease = pull(&mut line, clock.0).unwrap();
        assert_eq!((lease.id, lease.attempt), (id(1), attempt));
        let elapsed = line.elapse(clock.pass(120));
        assert_eq!(elapsed.expired[0].moved_back, attempt == 3);
    }
    assert_eq!(pulled_ids(&mut line, clock.0), [id(2), id(1)]);
}

#[test]
fn an_extended_lease_counts_from_now() {
    let (mut line, mut clock) = (TestLine::new(rules()), Clock::new());
    place(&mut line, clock.0, 1);
    pull(&mut line, clock.0).unwrap();
    let lease = line.extend(clock.pass(100), id(1), Some(1)).unwrap();
    assert_eq!(
        lease.lease_expires_at,
        clock.0.wall_after(Duration::from_secs(120))
    );
    assert!(line.elapse(clock.pass(119)).expired.is_empty());
    assert_eq!(line.elapse(clock.pass(1)).expired.len(), 1);
    assert!(matches!(
        line.extend(clock.0, id(1), None),
        Err(FenceError::NotBrewing {
            stage: Stage::Waiting
        })
    ));
}

#[test]
fn a_released_order_goes_to_the_longest_idle_barista_or_its_own_place() {
    let (mut line, clock) = (TestLine::new(rules()), Clock::new());
    place(&mut line, clock.0, 1);
    pull(&mut line, clock.0).unwrap();
    place(&mut line, clock.0, 2);
    assert!(matches!(
        line.release(clock.0, id(1), None),
        Ok(Returned::ToLine)
    ));
    assert_eq!(pulled_ids(&mut line, clock.0), [id(1), id(2)]);
    idle(&mut line, clock.0, 5);
    let Ok(Returned::Offered(offer)) = line.release(clock.0, id(1), Some(2)) else {
        panic!("a barista is idle")
    };
    assert_eq!((offer.barista, offer.lease.attempt), (5, 3));
    assert!(matches!(
        line.release(clock.0, id(1), Some(2)),
        Err(FenceError::Fenced { current: 3, .. })
    ));
}

#[test]
fn a_hand_over_that_did_not_happen_is_not_counted() {
    let (mut line, clock) = (TestLine::new(rules()), Clock::new());
    place(&mut line, clock.0, 1);
    place(&mut line, clock.0, 2);
    let lease = pull(&mut line, clock.0).unwrap();
    let mut back = || line.give_back(clock.0, lease.id, lease.attempt, None);
    assert!(matches!(back(), Some(Returned::ToLine)));
    assert!(back().is_none(), "twice is harmless");
    let again = pull(&mut line, clock.0).unwrap();
    assert_eq!((again.id, again.attempt), (id(1), 1));
    assert!(matches!(
        line.finish(clock.0, id(2), None, None),
        Err(FinishError::NotStarted { .. })
    ));
}

#[test]
fn a_hand_over_that_did_not_happen_leaves_the_order_with_its_previous_barista() {
    let (mut line, mut clock) = (TestLine::new(rules()), Clock::new());
    place(&mut line, clock.0, 1);
    let pull_as =
        |line: &mut TestLine, now, name: &str| match line.pull(now, Some(name.into()), None) {
            Pulled::Order(lease) => lease,
            other => panic!("{other:?}"),
        };
    pull_as(&mut line, clock.0, "Ann");
    line.elapse(clock.pass(120));
    let lease = pull_as(&mut line, clock.0, "Bo");
    line.give_back(clock.0, lease.id, lease.attempt, lease.previous);
    let finished = line.finish(clock.pass(5), id(1), None, None).unwrap();
    assert_eq!(finished.order.barista.as_deref(), Some("Ann"));
    assert_eq!(finished.order.brewed(clock.0), Duration::from_secs(125));
}

#[test]
fn a_barista_sees_whether_the_customer_is_held_watching_or_gone() {
    let (mut line, clock) = (TestLine::new(rules()), Clock::new());
    let presence = |line: &mut TestLine| line.extend(clock.0, id(1), None).unwrap().presence;
    let attachment = place(&mut line, clock.0, 1);
    assert_eq!(pull(&mut line, clock.0).unwrap().presence, Presence::Held);
    line.leave(clock.0, attachment);
    assert_eq!(presence(&mut line), Presence::Gone);
    let watcher = line.watch(id(1), 9).unwrap();
    assert_eq!(presence(&mut line), Presence::Watching);
    line.leave(clock.0, watcher);
    assert_eq!(presence(&mut line), Presence::Gone);
    line.place(clock.0, order(2, clock.0), None, None).unwrap();
    let promised = pull(&mut line, clock.0).unwrap();
    assert_eq!(
        (promised.presence, promised.customer_waiting),
        (Presence::Watching, false)
    );
}

#[test]
fn an_idle_barista_who_quits_is_not_offered_anything() {
    let (mut line, clock) = (TestLine::new(rules()), Clock::new());
    let first = idle(&mut line, clock.0, 1);
    idle(&mut line, clock.0, 2);
    assert!(line.quit(first));
    assert!(!line.quit(first));
    let Placed::New {
        offer: Some(offer), ..
    } = line
        .place(clock.0, order(1, clock.0), None, Some(1))
        .unwrap()
    else {
        panic!()
    };
    assert_eq!(offer.barista, 2);
}
