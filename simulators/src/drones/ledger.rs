//! What the server has acknowledged, and what it is therefore held to. Its size does not grow with the missions flown.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    audit::Expected,
    deliveries::{Acknowledgement, Event, EventType, History, model::Delivery},
    tally::Tally,
};

/// Missions whose whole history is compared at the end: the last ones that began.
const COMPARED_MAX: usize = 200;
/// The server retains the history of this many ended deliveries.
const KEPT_BY_SERVER: u64 = 1000;

pub(super) const SEQUENCES: &str = "sequences";
pub(super) const ACKNOWLEDGEMENTS: &str = "acknowledgements";
pub(super) const DUPLICATES: &str = "duplicates";
pub(super) const HISTORIES: &str = "histories of the last missions";
/// Missions that the server no longer stores, as it may.
pub(super) const GONE: &str = "gone";
/// Events whose acknowledgement was a replay: an earlier try had been accepted after all.
pub(super) const REPLAYS: &str = "replays";
pub(super) const DELIVERED: &str = "delivered";
pub(super) const CRASHED: &str = "crashed";
/// From when an event was due to its acknowledgement.
pub(super) const LATENCY: &str = "event";

/// One mission, as far as it got.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) delivery_id: String,
    acknowledged: Delivery,
    /// The last event, when it was sent and the server may or may not have accepted it.
    unknown: Option<EventType>,
    /// The mission's place among those that began, from 1; none while the server cannot have accepted its first event.
    place: Option<u64>,
    /// Missions that had begun, and those that had ended, when this one was over.
    begun_before_over: u64,
    ended_before_over: u64,
}

impl Log {
    pub(super) fn of(delivery_id: String) -> Self {
        Self {
            delivery_id,
            ..Self::default()
        }
    }

    /// Whether its end was acknowledged.
    pub(super) fn has_ended(&self) -> bool {
        self.acknowledged.is_over()
    }

    /// Whether the server may hold the mission for ended.
    fn may_have_ended(&self) -> bool {
        self.has_ended() || self.unknown.is_some_and(EventType::is_final)
    }

    /// What is wrong with the server's history: it must list the acknowledged events in order, and beyond them at most the one
    /// of unknown outcome.
    fn difference(&self, history: &History) -> Option<String> {
        if history.delivery_id != self.delivery_id {
            return Some(format!("got the history of {}", history.delivery_id));
        }
        let mut expected: Vec<_> = self.acknowledged.events().map(EventType::name).collect();
        let took_unknown = history.events.len() > expected.len();
        expected.extend(self.unknown.filter(|_| took_unknown).map(EventType::name));
        let listed: Vec<_> = history.events.iter().map(|event| &*event.kind).collect();
        if listed != expected {
            let (listed, expected) = (listed.join(" "), expected.join(" "));
            return Some(format!("lists [{listed}], acknowledged [{expected}]"));
        }
        let mut places = (1..).zip(&history.events);
        if let Some((place, event)) = places.find(|(place, event)| event.sequence != *place) {
            return Some(format!("lists event {place} as {}", event.sequence));
        }
        let ended = self.has_ended() || (took_unknown && self.may_have_ended());
        if history.ongoing == ended {
            let is = if ended { "ongoing" } else { "over" };
            return Some(format!("is called {is} after {}", listed.last()?));
        }
        None
    }
}

/// The missions of a run.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) tally: Tally,
    /// Missions whose first event was acknowledged.
    pub(super) begun: u64,
    /// Missions that may or may not have begun, or ended.
    begin_unknown: u64,
    end_unknown: u64,
    /// By place; the last ones that began.
    recent: BTreeMap<u64, Log>,
}

impl Ledger {
    /// `wait` is measured, from when the event was due. `may_be_replay`: an earlier try may have been accepted.
    pub(super) fn acknowledged(
        &mut self,
        log: &mut Log,
        event: &Event,
        acknowledgement: &Acknowledgement,
        wait: Duration,
        may_be_replay: bool,
    ) {
        let tally = &mut self.tally;
        tally.record(LATENCY, wait);
        tally.add(REPLAYS, u64::from(acknowledgement.replayed));
        let place = log
            .acknowledged
            .record(event.kind, Some(&event.key))
            .sequence();
        let sequence = acknowledgement.sequence();
        tally.expect(SEQUENCES, sequence == place, || {
            let of = |number: Option<u64>| number.map_or("none".to_owned(), |it| it.to_string());
            format!(
                "{}: event {} got sequence {}",
                event.delivery_id,
                of(place),
                of(sequence)
            )
        });
        let is_named = acknowledgement.names(event);
        let is_right = is_named && (may_be_replay || !acknowledgement.replayed);
        tally.expect(ACKNOWLEDGEMENTS, is_right, || {
            describe(
                event,
                if is_named {
                    "a replay of what was never sent"
                } else {
                    "the 201 does not name it"
                },
            )
        });
        if place == Some(1) {
            self.begun += 1;
            log.place = Some(self.begun_at_most());
        }
        match event.kind {
            EventType::Crashed => self.tally.count(CRASHED),
            EventType::ParcelDelivered => self.tally.count(DELIVERED),
            EventType::ParcelCollected | EventType::TakenOff | EventType::Landed => {}
        }
    }

    /// `may_be_taken`: the server may have accepted one of the tries.
    pub(super) fn given_up(&mut self, log: &mut Log, event: &Event, may_be_taken: bool, why: &str) {
        self.tally.given_up(may_be_taken, || describe(event, why));
        if !may_be_taken {
            return;
        }
        log.unknown = Some(event.kind);
        if log.place.is_none() {
            self.begin_unknown += 1;
            log.place = Some(self.begun_at_most());
        }
        self.end_unknown += u64::from(event.kind.is_final());
    }

    /// An acknowledged event was sent again; `second` is none when nothing came of it.
    pub(super) fn repeated(
        &mut self,
        event: &Event,
        first: &Acknowledgement,
        second: Option<&Acknowledgement>,
    ) {
        let fault = match second {
            None => Some("the repetition was not acknowledged"),
            Some(second) if !second.replayed => Some("the repetition was not marked replayed"),
            Some(second) if !second.says_the_same_as(first) => {
                Some("the repetition got another answer")
            }
            Some(_) => None,
        };
        let what = || describe(event, fault.unwrap_or_default());
        self.tally.expect(DUPLICATES, fault.is_none(), what);
    }

    /// Takes note of a mission that is over or was left as it is.
    pub(super) fn close(&mut self, mut log: Log) {
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

    /// Compares the server's history of a mission; none when the server does not know the mission. Where other clients use the
    /// server too (`shared`), the number of newer missions is unknown.
    pub(super) fn compare(&mut self, log: &Log, history: Option<&History>, shared: bool) {
        let is_evicted = self.may_be_evicted(log) || (shared && log.may_have_ended());
        let fault = match history {
            Some(history) => log.difference(history),
            // It is unknown whether the mission began.
            None if log.acknowledged.events().next().is_none() => None,
            None if is_evicted => {
                self.tally.count(GONE);
                None
            }
            None => Some("the server does not know it".to_owned()),
        };
        let what = || format!("{}: {}", log.delivery_id, fault.clone().unwrap_or_default());
        self.tally.expect(HISTORIES, fault.is_none(), what);
    }

    /// Missions whose end was acknowledged.
    pub(super) fn ended(&self) -> u64 {
        self.tally.get(DELIVERED) + self.tally.get(CRASHED)
    }

    fn begun_at_most(&self) -> u64 {
        self.begun + self.begin_unknown
    }

    fn ended_at_most(&self) -> u64 {
        self.ended() + self.end_unknown
    }

    /// The last missions that began, oldest first.
    pub(super) fn take_recent(&mut self) -> Vec<Log> {
        std::mem::take(&mut self.recent).into_values().collect()
    }

    /// Whether the server may no longer store this mission: it has ended, and as many others as the server stores began or ended
    /// after it. The contract leaves open which of the two counts.
    fn may_be_evicted(&self, log: &Log) -> bool {
        let began_later = self.begun_at_most() - log.begun_before_over;
        let ended_later = self.ended_at_most() - log.ended_before_over;
        log.may_have_ended() && began_later.max(ended_later) >= KEPT_BY_SERVER
    }

    /// By how much the server's number of deliveries must have grown.
    pub(super) fn total_growth(&self) -> Expected {
        Expected::of(self.begun, self.begin_unknown)
    }

    /// By how much the server's number of ongoing deliveries must have changed.
    pub(super) fn ongoing_growth(&self) -> Expected {
        let known = i128::from(self.begun) - i128::from(self.ended());
        Expected {
            least: known - i128::from(self.end_unknown),
            most: known + i128::from(self.begin_unknown),
        }
    }
}

fn describe(event: &Event, what: &str) -> String {
    format!("{} {}: {what}", event.delivery_id, event.kind)
}
