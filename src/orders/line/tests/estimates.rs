//! Positions, estimated waits, and whether the crew is away.

use super::*;

#[test]
fn a_position_comes_with_an_estimate_once_the_pace_is_known() {
    let (mut line, mut clock) = (TestLine::new(rules()), Clock::new());
    for n in 1..=30 {
        place(&mut line, clock.0, n);
    }
    assert_eq!(line.view(clock.0, id(30)).unwrap().estimated_wait, None);
    for n in 1..=10 {
        pull(&mut line, clock.0).unwrap();
        line.finish(clock.pass(20), id(n), None, None).unwrap();
    }
    let view = line.view(clock.0, id(30)).unwrap();
    assert_eq!(view.position, Some(20));
    let estimate = view.estimated_wait.unwrap().as_secs_f64();
    assert!(
        (419.0..421.0).contains(&estimate),
        "20 turns of 20 s, and a brew of 20 s: got {estimate}"
    );
}

/// A line of five whose crew of one has finished four brews of 20 s.
fn line_with_a_measured_crew() -> (TestLine, Clock) {
    let (mut line, mut clock) = (TestLine::new(rules()), Clock::new());
    for n in 1..=5 {
        place(&mut line, clock.0, n);
    }
    for n in 1..=4 {
        pull(&mut line, clock.0).unwrap();
        line.finish(clock.pass(20), id(n), None, None).unwrap();
    }
    (line, clock)
}

fn estimate(line: &mut TestLine, now: Now) -> (Option<Crew>, Option<Duration>) {
    let view = line.view(now, id(5)).unwrap();
    (view.crew, view.estimated_wait)
}

#[test]
fn while_no_barista_shows_there_is_no_estimate_and_the_crew_is_away() {
    let (mut line, mut clock) = (TestLine::new(rules()), Clock::new());
    place(&mut line, clock.0, 9);
    assert_eq!(
        line.view(clock.0, id(9)).unwrap().crew,
        Some(Crew::Away),
        "no barista has come yet"
    );
    (line, clock) = line_with_a_measured_crew();
    let mut last = Duration::ZERO;
    for _ in 0..59 {
        let (crew, wait) = estimate(&mut line, clock.pass(1));
        assert_eq!(crew, Some(Crew::Present));
        assert!(wait.unwrap() >= last, "it grows while nothing happens");
        last = wait.unwrap();
    }
    assert!(
        last >= Duration::from_secs(59),
        "the time since the last finish"
    );
    assert_eq!(estimate(&mut line, clock.pass(1)), (Some(Crew::Away), None));
}

#[test]
fn the_time_without_a_crew_does_not_slow_its_measured_pace() {
    let (mut line, mut clock) = line_with_a_measured_crew();
    clock.pass(8 * 3600);
    assert_eq!(estimate(&mut line, clock.0), (Some(Crew::Away), None));
    place(&mut line, clock.0, 6);
    let first = pull(&mut line, clock.pass(3600)).unwrap();
    line.finish(clock.pass(20), first.id, None, None).unwrap();
    let view = line.view(clock.0, id(6)).unwrap();
    let estimate = view.estimated_wait.unwrap().as_secs();
    assert!(
        (40..60).contains(&estimate),
        "turns of 20 s and the minute until the crew was away, and a brew of 20 s: got {estimate}"
    );
}

#[test]
fn a_crew_that_brews_is_present_however_long_it_takes() {
    let (mut line, mut clock) = line_with_a_measured_crew();
    place(&mut line, clock.0, 6);
    pull(&mut line, clock.0).unwrap();
    let view = line.view(clock.pass(110), id(6)).unwrap();
    assert_eq!(view.crew, Some(Crew::Present));
    assert!(view.estimated_wait.unwrap() >= Duration::from_secs(110));
}
