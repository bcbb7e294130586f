//! What the server has acknowledged, and what it is therefore held to. Its size does not grow with the missions flown.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    audit::{Expected, Faults},
    deliveries::{Acknowledgement, Event, EventType},
    resend::Tries,
    visits::Recorder,
};

/// Missions whose whole history is compared at the end: the last ones that began.
pub(crate) const COMPARED_MAX: usize = 200;
/// The server retains the history of this many ended deliveries.
pub(crate) const KEPT_BY_SERVER: u64 = 1000;

/// One mission, as far as it got.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log {
    pub(crate) delivery_id: String,
    pub(crate) acknowledged: Vec<EventType>,
    /// The last event, when it was sent and the server may or may not have taken it.
    pub(crate) unknown: Option<EventType>,
    /// The mission's place among those that began, from 1; none while the server cannot have taken its first event.
    place: Option<u64>,
    /// Missions that had begun, and those that had ended, when this one was over.
    begun_before_over: u64,
    ended_before_over: u64,
}

impl Log {
    pub(crate) fn of(delivery_id: String) -> Self {
        Self {
            delivery_id,
            ..Self::default()
        }
    }

    /// Whether its end was acknowledged.
    pub(crate) fn has_ended(&self) -> bool {
        self.acknowledged.last().is_some_and(|kind| kind.is_final())
    }

    /// Whether the server may hold the mission for ended.
    pub(crate) fn may_have_ended(&self) -> bool {
        self.has_ended() || self.unknown.is_some_and(EventType::is_final)
    }
}

/// Counts of events and missions.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Missions whose first event was acknowledged.
    pub(crate) begun: u64,
    pub(crate) delivered: u64,
    pub(crate) crashed: u64,
    /// Missions that may or may not have begun.
    pub(crate) begin_unknown: u64,
    /// Missions that may or may not have ended.
    pub(crate) end_unknown: u64,
    pub(crate) acknowledged: u64,
    pub(crate) tries: Tries,
    /// Events whose acknowledgement was a replay: an earlier try had been taken after all.
    pub(crate) replays: u64,
    /// Events that were sent again although they had been acknowledged.
    pub(crate) repeated: u64,
    /// Events that were given up: refused, or not acknowledged before the patience was at an end or the run stopped.
    pub(crate) given_up: Faults,
    /// Of these, those that the server may have taken.
    pub(crate) fate_unknown: u64,
    /// Acknowledgements whose sequence is not the event's place in its mission.
    pub(crate) out_of_sequence: Faults,
    /// Acknowledgements that name another event than the one sent, or claim to be a replay of nothing.
    pub(crate) misnamed: Faults,
    /// Repetitions that were not answered like the first time, or not as a replay.
    pub(crate) unequal: Faults,
}

/// The missions of a run.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) tally: Tally,
    pub(crate) latencies: Recorder,
    /// By place; the last ones that began.
    recent: BTreeMap<u64, Log>,
}

impl Ledger {
    /// `wait` is measured, from when the event was due. `may_be_replay`: an earlier try may have been taken.
    pub(crate) fn acknowledged(
        &mut self,
        log: &mut Log,
        event: &Event,
        acknowledgement: &Acknowledgement,
        wait: Duration,
        may_be_replay: bool,
    ) {
        let tally = &mut self.tally;
        self.latencies.record(wait);
        tally.acknowledged += 1;
        tally.replays += u64::from(acknowledgement.replayed);
        log.acknowledged.push(event.kind);
        let place = log.acknowledged.len() as u64;
        let sequence = acknowledgement.sequence();
        if sequence != Some(place) {
            tally.out_of_sequence.note(|| {
                let found = sequence.map_or("none".to_owned(), |sequence| sequence.to_string());
                format!("{}: event {place} got sequence {found}", event.delivery_id)
            });
        }
        if !acknowledgement.names(event) {
            tally
                .misnamed
                .note(|| describe(event, "the 201 does not name it"));
        } else if acknowledgement.replayed && !may_be_replay {
            tally
                .misnamed
                .note(|| describe(event, "a replay of what was never sent"));
        }
        if place == 1 {
            tally.begun += 1;
            log.place = Some(tally.begun + tally.begin_unknown);
        }
        match event.kind {
            EventType::Crashed => tally.crashed += 1,
            EventType::ParcelDelivered => tally.delivered += 1,
            EventType::ParcelCollected | EventType::TakenOff | EventType::Landed => {}
        }
    }

    /// `may_be_taken`: the server may have taken one of the tries.
    pub(crate) fn given_up(&mut self, log: &mut Log, event: &Event, may_be_taken: bool, why: &str) {
        let tally = &mut self.tally;
        tally.given_up.note(|| describe(event, why));
        if !may_be_taken {
            return;
        }
        tally.fate_unknown += 1;
        log.unknown = Some(event.kind);
        if log.acknowledged.is_empty() {
            tally.begin_unknown += 1;
            log.place = Some(tally.begun + tally.begin_unknown);
        }
        tally.end_unknown += u64::from(event.kind.is_final());
    }

    /// An acknowledged event was sent again; `second` is none when nothing came of it.
    pub(crate) fn repeated(
        &mut self,
        event: &Event,
        first: &Acknowledgement,
        second: Option<&Acknowledgement>,
    ) {
        self.tally.repeated += 1;
        let fault = match second {
            None => "the repetition was not acknowledged",
            Some(second) if !second.replayed => "the repetition was not marked replayed",
            Some(second) if !second.says_the_same_as(first) => "the repetition got another answer",
            Some(_) => return,
        };
        self.tally.unequal.note(|| describe(event, fault));
    }

    /// Takes note of a mission that is over or was left as it is.
    pub(crate) fn close(&mut self, mut log: Log) {
        let Some(place) = log.place else {
            return;
        };
        log.begun_before_over = self.begun_at_most();
        log.ended_before_over = self.ended_at_most();
        self.recent.insert(place, log);
        if self.recent.len() > COMPARED_MAX {
            self.recent.pop_first();
        }
    }

    fn begun_at_most(&self) -> u64 {
        self.tally.begun + self.tally.begin_unknown
    }

    fn ended_at_most(&self) -> u64 {
        self.tally.ended() + self.tally.end_unknown
    }

    /// The last missions that began, oldest first; not more than [`COMPARED_MAX`].
    pub(crate) fn recent(&self) -> impl Iterator<Item = &Log> {
        self.recent.values()
    }

    /// Whether the server may no longer keep this mission: it has ended, and as many others as the server keeps began
    /// or ended after it. The contract leaves open which of the two counts.
    pub(crate) fn can_have_been_pushed_out(&self, log: &Log) -> bool {
        let began_later = self.begun_at_most() - log.begun_before_over;
        let ended_later = self.ended_at_most() - log.ended_before_over;
        log.may_have_ended() && began_later.max(ended_later) >= KEPT_BY_SERVER
    }
}

fn describe(event: &Event, what: &str) -> String {
    format!("{} {}: {what}", event.delivery_id, event.kind)
}

impl Tally {
    /// Missions whose end was acknowledged.
    pub(crate) fn ended(&self) -> u64 {
        self.delivered + self.crashed
    }

    /// By how much the server's number of deliveries must have grown.
    pub(crate) fn total_growth(&self) -> Expected {
        Expected::of(self.begun, self.begin_unknown)
    }

    /// By how much the server's number of ongoing deliveries must have changed.
    pub(crate) fn ongoing_growth(&self) -> Expected {
        let known = i128::from(self.begun) - i128::from(self.ended());
        Expected {
            least: known - i128::from(self.end_unknown),
            most: known + i128::from(self.begin_unknown),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::deliveries::tests::{acknowledgement, event};

    pub(crate) const WHOLE: [EventType; 4] = [
        EventType::ParcelCollected,
        EventType::TakenOff,
        EventType::Landed,
        EventType::ParcelDelivered,
    ];

    impl Ledger {
        /// A mission that got this far, each event properly acknowledged.
        pub(crate) fn fly(&mut self, kinds: &[EventType]) -> Log {
            let mut log = Log::of("drone-1".to_owned());
            for (number, kind) in (1..).zip(kinds) {
                let answer = acknowledgement(*kind, number);
                self.acknowledged(&mut log, &event(*kind), &answer, Duration::ZERO, false);
            }
            log
        }
    }

    #[test]
    fn missions_are_counted_by_their_first_and_last_events() {
        let mut ledger = Ledger::default();
        for kinds in [
            &WHOLE[..],
            &[
                EventType::ParcelCollected,
                EventType::TakenOff,
                EventType::Crashed,
            ],
            &WHOLE[..2],
        ] {
            let log = ledger.fly(kinds);
            ledger.close(log);
        }
        let tally = &ledger.tally;
        assert_eq!((tally.begun, tally.delivered, tally.crashed), (3, 1, 1));
        assert_eq!(tally.acknowledged, 9);
        assert_eq!(tally.total_growth(), Expected { least: 3, most: 3 });
        assert_eq!(tally.ongoing_growth(), Expected { least: 1, most: 1 });
        for faults in [&tally.out_of_sequence, &tally.misnamed, &tally.unequal] {
            assert_eq!(faults.times, 0, "{faults:?}");
        }
    }

    #[test]
    fn what_nobody_knows_widens_what_is_expected_by_just_that() {
        let mut ledger = Ledger::default();
        let mut log = ledger.fly(&[]);
        ledger.given_up(&mut log, &event(EventType::ParcelCollected), true, "reset");
        ledger.close(log);
        let mut log = ledger.fly(&WHOLE[..3]);
        ledger.given_up(&mut log, &event(EventType::ParcelDelivered), true, "reset");
        ledger.close(log);
        let tally = &ledger.tally;
        assert_eq!(tally.total_growth(), Expected { least: 1, most: 2 });
        assert_eq!(tally.ongoing_growth(), Expected { least: 0, most: 2 });
        assert_eq!((tally.given_up.times, tally.fate_unknown), (2, 2));
        let unknown: Vec<_> = ledger.recent().map(|log| log.unknown).collect();
        assert_eq!(unknown, [Some(WHOLE[0]), Some(WHOLE[3])]);
    }

    #[test]
    fn what_was_refused_or_never_sent_leaves_nothing_unknown() {
        let mut ledger = Ledger::default();
        let mut log = ledger.fly(&[]);
        ledger.given_up(&mut log, &event(EventType::ParcelCollected), false, "409");
        ledger.close(log);
        assert_eq!(ledger.tally.total_growth(), Expected { least: 0, most: 0 });
        assert_eq!(ledger.tally.given_up.times, 1);
        assert_eq!(ledger.recent().count(), 0);
        let first = ledger.tally.given_up.first.as_deref();
        assert_eq!(first, Some("drone-1 PARCEL_COLLECTED: 409"));
    }

    #[test]
    fn a_gap_in_the_sequence_is_found() {
        let mut ledger = Ledger::default();
        let mut log = ledger.fly(&WHOLE[..1]);
        let answer = acknowledgement(EventType::TakenOff, 3);
        let event = event(EventType::TakenOff);
        ledger.acknowledged(&mut log, &event, &answer, Duration::ZERO, false);
        let faults = &ledger.tally.out_of_sequence;
        assert_eq!(faults.times, 1);
        let first = faults.first.as_deref();
        assert_eq!(first, Some("drone-1: event 2 got sequence 3"));
        assert_eq!(ledger.tally.misnamed.times, 0);
    }

    #[test]
    fn an_answer_to_another_event_is_found() {
        let mut ledger = Ledger::default();
        let mut log = ledger.fly(&[]);
        let answer = acknowledgement(EventType::Landed, 1);
        let event = event(EventType::ParcelCollected);
        ledger.acknowledged(&mut log, &event, &answer, Duration::ZERO, false);
        assert_eq!(ledger.tally.misnamed.times, 1);
        assert_eq!(ledger.tally.out_of_sequence.times, 0);
    }

    #[test]
    fn a_replay_is_expected_only_after_a_try_that_may_have_been_taken() {
        for (may_be_replay, faults) in [(true, 0), (false, 1)] {
            let mut ledger = Ledger::default();
            let mut log = ledger.fly(&[]);
            let mut answer = acknowledgement(EventType::ParcelCollected, 1);
            answer.replayed = true;
            let event = event(EventType::ParcelCollected);
            ledger.acknowledged(&mut log, &event, &answer, Duration::ZERO, may_be_replay);
            assert_eq!(ledger.tally.misnamed.times, faults);
            assert_eq!(ledger.tally.replays, 1);
        }
    }

    #[test]
    fn a_repetition_must_be_the_same_and_say_that_it_is_one() {
        let first = acknowledgement(EventType::Landed, 3);
        let mut replay = first.clone();
        replay.replayed = true;
        let mut other = acknowledgement(EventType::Landed, 4);
        other.replayed = true;
        for (second, faults) in [
            (Some(&replay), 0),
            (Some(&first), 1),
            (Some(&other), 1),
            (None, 1),
        ] {
            let mut ledger = Ledger::default();
            ledger.repeated(&event(EventType::Landed), &first, second);
            assert_eq!(ledger.tally.unequal.times, faults, "{second:?}");
            assert_eq!(ledger.tally.repeated, 1);
        }
    }

    #[test]
    fn the_last_missions_that_began_are_kept_for_comparison() {
        let mut ledger = Ledger::default();
        let slow = ledger.fly(&WHOLE);
        for _ in 0..COMPARED_MAX {
            let log = ledger.fly(&WHOLE);
            ledger.close(log);
        }
        // Over last, but the first that began.
        ledger.close(slow);
        let places: Vec<_> = ledger.recent().map(|log| log.place.unwrap()).collect();
        assert_eq!(places.len(), COMPARED_MAX);
        assert_eq!((places[0], places[199]), (2, 201));
    }

    #[test]
    fn a_mission_can_be_pushed_out_by_a_thousand_newer_ones_if_it_has_ended() {
        let mut ledger = Ledger::default();
        let (ended, ongoing) = (ledger.fly(&WHOLE), ledger.fly(&WHOLE[..1]));
        ledger.close(ended);
        ledger.close(ongoing);
        let logs: Vec<_> = ledger.recent().cloned().collect();
        let pushed_out = |ledger: &Ledger| {
            let pushed_out = logs.iter().map(|log| ledger.can_have_been_pushed_out(log));
            pushed_out.collect::<Vec<_>>()
        };
        for _ in 1..KEPT_BY_SERVER {
            ledger.fly(&WHOLE);
        }
        assert_eq!(pushed_out(&ledger), [false, false]);
        ledger.fly(&WHOLE);
        assert_eq!(pushed_out(&ledger), [true, false]);
    }
}
