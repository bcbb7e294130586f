//! What must hold after a run: the server's account of it against what it has acknowledged.

use super::ledger::{Ledger, Log, Tally};
use crate::{
    audit::{Check, Counted, Faults, Figure},
    deliveries::{Counts, EventType, History},
};

/// The server's histories of the last missions, compared with the ledger.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    pub(crate) missions: usize,
    /// Missions that it no longer keeps, as it may.
    pub(crate) gone: usize,
    pub(crate) faults: Faults,
    /// Why not all could be looked up.
    pub(crate) broken_off: Option<String>,
}

/// All that must hold.
pub(crate) fn all(tally: &Tally, counted: &Counted<Counts>, compared: &Compared) -> Vec<Check> {
    let [total, ongoing] = counts(tally, counted);
    let of = |name, faults: &Faults, all| Check::without(name, faults, all);
    vec![
        Check::nothing_given_up(
            "every event acknowledged",
            "events",
            tally.acknowledged,
            &tally.given_up,
            tally.fate_unknown,
        ),
        of("sequences", &tally.out_of_sequence, tally.acknowledged),
        of("acknowledgements", &tally.misnamed, tally.acknowledged),
        of("duplicates", &tally.unequal, tally.repeated),
        total,
        ongoing,
        histories(compared),
    ]
}

/// Total and ongoing.
fn counts(tally: &Tally, counted: &Counted<Counts>) -> [Check; 2] {
    let total: Figure<Counts> = |counts| counts.total;
    let ongoing: Figure<Counts> = |counts| counts.ongoing;
    counted.changes(
        "GET /counts",
        [
            ("total of deliveries", total, tally.total_growth()),
            ("ongoing deliveries", ongoing, tally.ongoing_growth()),
        ],
    )
}

fn histories(compared: &Compared) -> Check {
    let mut check = Check::looked_up(
        "histories of the last missions",
        "GET /deliveries/…/events",
        &compared.faults,
        compared.missions as u64,
        compared.broken_off.as_deref(),
    );
    if compared.broken_off.is_none() && compared.gone > 0 {
        let gone = compared.gone;
        check.finding = format!("{}; {gone} no longer kept, as may be", check.finding);
    }
    check
}

impl Compared {
    /// Compares the server's history of a mission; none when the server does not know the mission. `pushed_out`: the server
    /// may have evicted it.
    pub(crate) fn add(&mut self, log: &Log, history: Option<&History>, pushed_out: bool) {
        self.missions += 1;
        let fault = match history {
            Some(history) => difference(log, history),
            // It is unknown whether the mission began.
            None if log.acknowledged.is_empty() => None,
            None if pushed_out => {
                self.gone += 1;
                None
            }
            None => Some("the server does not know it".to_owned()),
        };
        if let Some(fault) = fault {
            self.faults.note(|| format!("{}: {fault}", log.delivery_id));
        }
    }
}

impl Ledger {
    /// Whether a 404 for this mission is no fault. Where other clients use the server too, the number of newer missions is
    /// unknown.
    pub(crate) fn may_be_unknown(&self, log: &Log, shared: bool) -> bool {
        self.can_have_been_pushed_out(log) || (shared && log.may_have_ended())
    }
}

/// What is wrong with a mission's history: it must list the acknowledged events in order, and beyond them at most the
/// one of unknown fate.
fn difference(log: &Log, history: &History) -> Option<String> {
    if history.delivery_id != log.delivery_id {
        return Some(format!("got the history of {}", history.delivery_id));
    }
    let known = log.acknowledged.len();
    let mut expected: Vec<_> = log.acknowledged.iter().map(|kind| kind.name()).collect();
    if history.events.len() > known {
        expected.extend(log.unknown.map(EventType::name));
    }
    let listed: Vec<_> = history.events.iter().map(|event| &*event.kind).collect();
    if listed != expected {
        let (listed, expected) = (listed.join(" "), expected.join(" "));
        return Some(format!("lists [{listed}], acknowledged [{expected}]"));
    }
    let gap = (1..)
        .zip(&history.events)
        .find(|(place, event)| event.sequence != *place);
    if let Some((place, event)) = gap {
        return Some(format!("lists event {place} as {}", event.sequence));
    }
    let took_unknown = listed.len() > known;
    let ended = log.has_ended() || (took_unknown && log.may_have_ended());
    if history.ongoing == ended {
        let is = if ended { "ongoing" } else { "over" };
        return Some(format!("is called {is} after {}", listed.last()?));
    }
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        audit::Outcome,
        deliveries::{
            HistoryEvent,
            tests::{acknowledgement, event},
        },
        drones::ledger::tests::WHOLE,
    };

    const COUNTS: Counts = Counts {
        ongoing: 5,
        total: 100,
    };

    /// Three missions: delivered, crashed, and still in the air.
    fn flown() -> Ledger {
        let mut ledger = Ledger::default();
        for kinds in [
            &WHOLE[..],
            &[WHOLE[0], WHOLE[1], EventType::Crashed],
            &WHOLE[..2],
        ] {
            let log = ledger.fly(kinds);
            ledger.close(log);
        }
        ledger
    }

    fn history(kinds: &[EventType]) -> History {
        let events = (1..).zip(kinds).map(|(sequence, kind)| HistoryEvent {
            sequence,
            kind: kind.name().to_owned(),
        });
        History {
            delivery_id: "drone-1".to_owned(),
            ongoing: !kinds.last().unwrap().is_final(),
            events: events.collect(),
        }
    }

    fn after(total: u64, ongoing: u64) -> Counted<Counts> {
        Counted::BeforeAndAfter(COUNTS, Counts { ongoing, total })
    }

    fn failed(
        ledger: &Ledger,
        counted: &Counted<Counts>,
        compared: &Compared,
    ) -> Vec<&'static str> {
        let checks = all(&ledger.tally, counted, compared);
        let failed = checks
            .iter()
            .filter(|check| check.outcome == Outcome::Failed);
        failed.map(|check| check.name).collect()
    }

    #[test]
    fn a_proper_run_holds_in_everything() {
        let failed = failed(&flown(), &after(103, 6), &Compared::default());
        assert_eq!(failed, [""; 0]);
    }

    #[test]
    fn counts_that_are_off_by_one_fail() {
        for (total, ongoing, expected) in [
            (102, 6, "total of deliveries"),
            (104, 6, "total of deliveries"),
            (103, 5, "ongoing deliveries"),
            (103, 7, "ongoing deliveries"),
        ] {
            let failed = failed(&flown(), &after(total, ongoing), &Compared::default());
            assert_eq!(failed, [expected]);
        }
        let lost = failed(&flown(), &after(0, 0), &Compared::default());
        assert_eq!(lost.len(), 2);
    }

    #[test]
    fn counts_that_could_not_be_read_fail_and_those_of_a_shared_server_are_skipped() {
        let unreadable = Counted::Unreadable("connection refused".to_owned());
        let both = failed(&flown(), &unreadable, &Compared::default());
        assert_eq!(both, ["total of deliveries", "ongoing deliveries"]);
        let checks = all(&flown().tally, &Counted::NotCompared, &Compared::default());
        let skipped = checks
            .iter()
            .filter(|check| check.outcome == Outcome::Skipped);
        assert_eq!(skipped.count(), 2);
    }

    #[test]
    fn an_event_of_unknown_fate_admits_both_counts_and_no_third_and_says_so() {
        let mut ledger = flown();
        let mut log = ledger.fly(&WHOLE[..3]);
        let last = event(EventType::ParcelDelivered);
        ledger.given_up(&mut log, &last, true, "reset");
        for (ongoing, holds) in [(5, false), (6, true), (7, true), (8, false)] {
            let failed = failed(&ledger, &after(104, ongoing), &Compared::default());
            assert_eq!(!failed.contains(&"ongoing deliveries"), holds, "{ongoing}");
            assert!(failed.contains(&"every event acknowledged"));
        }
        let checks = all(&ledger.tally, &after(104, 6), &Compared::default());
        let finding = &checks[5].finding;
        assert_eq!(finding, "5 to 6: +1, expected +1 to +2 (1 of unknown fate)");
        let finding = &checks[0].finding;
        assert!(
            finding.contains("1 were not (1 may have been taken"),
            "{finding}"
        );
    }

    #[test]
    fn faults_of_the_answers_fail_under_their_names() {
        let first = acknowledgement(EventType::ParcelCollected, 1);
        let event = event(EventType::ParcelCollected);
        let counted = after(104, 7);

        let mut ledger = flown();
        let second = acknowledgement(EventType::ParcelCollected, 2);
        let mut log = Log::of("drone-1".to_owned());
        ledger.acknowledged(&mut log, &event, &second, Duration::ZERO, false);
        assert_eq!(
            failed(&ledger, &counted, &Compared::default()),
            ["sequences"]
        );

        let mut ledger = flown();
        let other = acknowledgement(EventType::TakenOff, 1);
        let mut log = Log::of("drone-1".to_owned());
        ledger.acknowledged(&mut log, &event, &other, Duration::ZERO, false);
        let wrong = failed(&ledger, &counted, &Compared::default());
        assert_eq!(wrong, ["acknowledgements"]);

        let mut ledger = flown();
        ledger.repeated(&event, &first, Some(&first));
        let wrong = failed(&ledger, &after(103, 6), &Compared::default());
        assert_eq!(wrong, ["duplicates"]);
    }

    #[test]
    fn a_history_must_list_the_acknowledged_events_and_nothing_else() {
        let mut ledger = Ledger::default();
        let log = ledger.fly(&WHOLE[..3]);
        let proper = history(&WHOLE[..3]);
        assert_eq!(difference(&log, &proper), None);
        let mut renumbered = proper.clone();
        renumbered.events[2].sequence = 4;
        let mut of_another = proper.clone();
        of_another.delivery_id = "drone-2".to_owned();
        let mut over = proper.clone();
        over.ongoing = false;
        for (wrong, words) in [
            (history(&WHOLE[..2]), "lists [PARCEL_COLLECTED TAKEN_OFF], "),
            (history(&WHOLE), "PARCEL_DELIVERED], acknowledged ["),
            (
                history(&[WHOLE[1], WHOLE[0], WHOLE[2]]),
                "lists [TAKEN_OFF PARCEL_COLLECTED",
            ),
            (renumbered, "lists event 3 as 4"),
            (of_another, "got the history of drone-2"),
            (over, "is called over after LANDED"),
        ] {
            let difference = difference(&log, &wrong).unwrap();
            assert!(difference.contains(words), "{difference}");
            let mut compared = Compared::default();
            compared.add(&log, Some(&wrong), false);
            let failed = failed(&flown(), &after(103, 6), &compared);
            assert_eq!(failed, ["histories of the last missions"]);
        }
    }

    #[test]
    fn a_history_may_or_may_not_have_the_event_of_unknown_fate() {
        let mut ledger = Ledger::default();
        let mut log = ledger.fly(&WHOLE[..3]);
        let last = event(EventType::ParcelDelivered);
        ledger.given_up(&mut log, &last, true, "reset");
        assert_eq!(difference(&log, &history(&WHOLE[..3])), None);
        assert_eq!(difference(&log, &history(&WHOLE)), None);
        let other = [WHOLE[0], WHOLE[1], WHOLE[2], WHOLE[1]];
        assert!(difference(&log, &history(&other)).is_some());
        let mut still_ongoing = history(&WHOLE);
        still_ongoing.ongoing = true;
        assert!(difference(&log, &still_ongoing).is_some());
    }

    #[test]
    fn a_mission_that_the_server_does_not_know_fails_unless_it_may_be_gone() {
        let mut ledger = Ledger::default();
        let log = ledger.fly(&WHOLE);
        for (pushed_out, faults, gone) in [(false, 1, 0), (true, 0, 1)] {
            let mut compared = Compared::default();
            compared.add(&log, None, pushed_out);
            assert_eq!((compared.faults.times, compared.gone), (faults, gone));
        }
        assert!(ledger.may_be_unknown(&log, true));
        assert!(!ledger.may_be_unknown(&log, false));
        let ongoing = ledger.fly(&WHOLE[..2]);
        assert!(!ledger.may_be_unknown(&ongoing, true));
        let mut never_acknowledged = ledger.fly(&[]);
        let first = event(EventType::ParcelCollected);
        ledger.given_up(&mut never_acknowledged, &first, true, "reset");
        let mut compared = Compared::default();
        compared.add(&never_acknowledged, None, false);
        assert_eq!(compared.faults.times, 0);
    }

    #[test]
    fn histories_that_could_not_be_looked_up_fail() {
        let compared = Compared {
            broken_off: Some("connection refused".to_owned()),
            ..Compared::default()
        };
        let failed = failed(&flown(), &after(103, 6), &compared);
        assert_eq!(failed, ["histories of the last missions"]);
    }
}
