//! Deliveries and their events. Pure.

use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::values::id;

/// Longest id of a delivery, in characters.
pub const ID_CHARS_MAX: usize = 128;
/// Longest key of an event, in bytes: as for orders.
pub const KEY_BYTES_MAX: usize = 255;

/// A delivery's id: 1 to [`ID_CHARS_MAX`] of RFC 3986's unreserved characters (section 2.3). Not `.` or `..`, which are special
/// path segments.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeliveryId(Box<str>);

impl DeliveryId {
    pub fn parse(text: &str) -> Option<Self> {
        let unreserved = |b: u8| b.is_ascii_alphanumeric() || b"._~-".contains(&b);
        let fits = (1..=ID_CHARS_MAX).contains(&text.len()) && text.bytes().all(unreserved);
        (fits && id::is_addressable(text)).then(|| Self(text.into()))
    }

    /// A stored id, valid by the rules of its time.
    pub fn stored(text: &str) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A drone's report, and the state of its delivery after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventType {
    /// The first event of every delivery.
    ParcelCollected,
    TakenOff,
    Landed,
    Crashed,
    ParcelDelivered,
}

impl EventType {
    /// In the order of a typical delivery.
    pub const ALL: [Self; 5] = [
        Self::ParcelCollected,
        Self::TakenOff,
        Self::Landed,
        Self::Crashed,
        Self::ParcelDelivered,
    ];

    /// The API's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ParcelCollected => "PARCEL_COLLECTED",
            Self::TakenOff => "TAKEN_OFF",
            Self::Landed => "LANDED",
            Self::Crashed => "CRASHED",
            Self::ParcelDelivered => "PARCEL_DELIVERED",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|event_type| event_type.as_str() == word)
    }

    /// No event may follow.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Crashed | Self::ParcelDelivered)
    }
}

/// A stored event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Its place in the delivery, from 1.
    pub sequence: u32,
    pub event_type: EventType,
    /// When it was received; never before its predecessor.
    pub received_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub id: DeliveryId,
    /// The type of its latest event.
    pub state: EventType,
    pub events: u32,
    /// When the first event was received.
    pub started_at: Timestamp,
    /// When the latest event was received.
    pub updated_at: Timestamp,
}

impl Delivery {
    pub fn is_ongoing(&self) -> bool {
        !self.state.is_final()
    }

    /// From when on it is stale without a further event; None if it never will be.
    pub fn stale_from(&self, after: Duration) -> Option<Timestamp> {
        if !self.is_ongoing() {
            return None;
        }
        let after = SignedDuration::try_from(after).unwrap_or(SignedDuration::MAX);
        self.updated_at.checked_add(after).ok()
    }
}

/// A delivery with all its events, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    pub delivery: Delivery,
    pub events: Vec<Event>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Not in a final state.
    pub ongoing: u64,
    /// Since the beginning, evicted ones included.
    pub total: u64,
}

#[cfg(test)]
mod tests {
    use super::EventType::{Crashed, TakenOff};
    use super::*;

    #[test]
    fn an_id_is_made_of_unreserved_characters() {
        for (text, fits) in [
            ("a", true),
            ("drone-7.A_~9", true),
            ("", false),
            ("a/b", false),
            ("a b", false),
            ("ü", false),
            ("a\0", false),
            ("...", true),
            (".", false),
            ("..", false),
        ] {
            assert_eq!(DeliveryId::parse(text).is_some(), fits, "{text:?}");
        }
        assert!(DeliveryId::parse(&"x".repeat(128)).is_some());
        assert!(DeliveryId::parse(&"x".repeat(129)).is_none());
    }

    #[test]
    fn only_an_ongoing_delivery_becomes_stale() {
        let mut delivery = Delivery {
            id: DeliveryId::parse("a").unwrap(),
            state: TakenOff,
            events: 2,
            started_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
        };
        let minute = Duration::from_secs(60);
        let from = delivery.stale_from(minute).unwrap();
        assert_eq!(from.as_second(), 60);
        assert_eq!(delivery.stale_from(Duration::MAX), None);
        delivery.state = Crashed;
        assert_eq!(delivery.stale_from(minute), None);
    }
}
