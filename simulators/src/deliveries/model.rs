//! The rules of deliveries, written down a second time. Pure: no I/O, no clock.

use std::{collections::BTreeMap, fmt};

/// The type of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    ParcelCollected,
    TakenOff,
    Landed,
    Crashed,
    ParcelDelivered,
}

impl EventType {
    pub const ALL: [Self; 5] = [
        Self::ParcelCollected,
        Self::TakenOff,
        Self::Landed,
        Self::Crashed,
        Self::ParcelDelivered,
    ];

    /// As the contract writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ParcelCollected => "PARCEL_COLLECTED",
            Self::TakenOff => "TAKEN_OFF",
            Self::Landed => "LANDED",
            Self::Crashed => "CRASHED",
            Self::ParcelDelivered => "PARCEL_DELIVERED",
        }
    }

    /// Whether no event can follow.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Crashed | Self::ParcelDelivered)
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The outcome of an event, with its place in its delivery, from 1, if it is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    New(u64),
    Replayed(u64),
    /// It may not follow, there are too many ongoing deliveries, or its key is that of an event of another type.
    Refused,
}

impl Recorded {
    pub fn sequence(self) -> Option<u64> {
        match self {
            Self::New(sequence) | Self::Replayed(sequence) => Some(sequence),
            Self::Refused => None,
        }
    }
}

/// One delivery.
#[derive(Debug, Clone, Default)]
pub struct Delivery {
    /// With their keys.
    events: Vec<(EventType, Option<String>)>,
}

impl Delivery {
    /// The first event is a collection and no other is; nothing follows a final event; a key identifies its event.
    pub fn record(&mut self, kind: EventType, key: Option<&str>) -> Recorded {
        let same_key = |(_, other): &(_, Option<String>)| key.is_some() && other.as_deref() == key;
        if let Some(place) = self.events.iter().position(same_key) {
            let is_same = self.events[place].0 == kind;
            return if is_same {
                Recorded::Replayed(place as u64 + 1)
            } else {
                Recorded::Refused
            };
        }
        if self.is_over() || self.events.is_empty() != (kind == EventType::ParcelCollected) {
            return Recorded::Refused;
        }
        self.events.push((kind, key.map(str::to_owned)));
        Recorded::New(self.events.len() as u64)
    }

    pub fn events(&self) -> impl Iterator<Item = EventType> {
        self.events.iter().map(|(kind, _)| *kind)
    }

    pub fn is_over(&self) -> bool {
        self.events.last().is_some_and(|(kind, _)| kind.is_final())
    }
}

/// All deliveries of a desk with these bounds.
#[derive(Debug, Clone)]
pub struct Model {
    ongoing_max: u64,
    /// The last so many deliveries are stored, and those that are ongoing.
    kept: u64,
    /// By number, in the order in which they began.
    deliveries: BTreeMap<u64, (String, Delivery)>,
    total: u64,
}

impl Model {
    pub fn new(ongoing_max: u64, kept: u64) -> Self {
        Self {
            ongoing_max,
            kept,
            deliveries: BTreeMap::new(),
            total: 0,
        }
    }

    pub fn record(&mut self, id: &str, kind: EventType, key: Option<&str>) -> Recorded {
        let mut deliveries = self.deliveries.values_mut();
        if let Some((_, delivery)) = deliveries.find(|(other, _)| other == id) {
            return delivery.record(kind, key);
        }
        let is_full = self.ongoing().count() as u64 >= self.ongoing_max;
        let mut delivery = Delivery::default();
        let recorded = delivery.record(kind, key);
        if is_full || recorded == Recorded::Refused {
            return Recorded::Refused;
        }
        self.total += 1;
        self.deliveries
            .insert(self.total, (id.to_owned(), delivery));
        let last_evicted = self.total.saturating_sub(self.kept);
        self.deliveries
            .retain(|number, (_, delivery)| *number > last_evicted || !delivery.is_over());
        recorded
    }

    /// Deliveries since the beginning.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The ids of those that have not ended, in the order in which they began.
    pub fn ongoing(&self) -> impl Iterator<Item = &str> {
        let deliveries = self.deliveries.values();
        let ongoing = deliveries.filter(|(_, delivery)| !delivery.is_over());
        ongoing.map(|(id, _)| &id[..])
    }

    /// None for one that never began or was evicted.
    pub fn delivery(&self, id: &str) -> Option<&Delivery> {
        let mut deliveries = self.deliveries.values();
        let found = deliveries.find(|(other, _)| other == id);
        found.map(|(_, delivery)| delivery)
    }
}

#[cfg(test)]
mod tests {
    use super::{EventType::*, *};

    #[test]
    fn events_follow_the_first_up_to_the_last_and_a_key_identifies_one() {
        let mut delivery = Delivery::default();
        for (kind, key, expected) in [
            (TakenOff, None, Recorded::Refused),
            (ParcelCollected, Some("a"), Recorded::New(1)),
            (ParcelCollected, None, Recorded::Refused),
            (Landed, Some("b"), Recorded::New(2)),
            (ParcelCollected, Some("a"), Recorded::Replayed(1)),
            (Landed, Some("a"), Recorded::Refused),
            (Crashed, Some("c"), Recorded::New(3)),
            (Landed, None, Recorded::Refused),
            (Crashed, Some("c"), Recorded::Replayed(3)),
        ] {
            assert_eq!(delivery.record(kind, key), expected, "{kind} {key:?}");
        }
    }

    #[test]
    fn the_oldest_that_is_over_is_evicted_when_another_begins() {
        let mut model = Model::new(2, 1);
        for (id, kind, accepted) in [
            ("a", ParcelCollected, true),
            ("b", ParcelCollected, true),
            ("c", ParcelCollected, false),
            ("b", Crashed, true),
            ("c", ParcelCollected, true),
        ] {
            let recorded = model.record(id, kind, None);
            assert_eq!(recorded != Recorded::Refused, accepted, "{id} {kind}");
        }
        assert!(model.delivery("b").is_none() && model.delivery("a").is_some());
        assert_eq!(model.ongoing().collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(model.total(), 3);
    }
}
