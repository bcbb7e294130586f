//! Deliveries, their events, and which event may follow which. Pure.

use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::error::Refusal;

/// The longest id of a delivery, in characters.
pub const ID_CHARS_MAX: usize = 128;
/// The longest key of an event, in bytes: the same as for orders.
pub const KEY_BYTES_MAX: usize = 255;

/// A delivery's name: 1 to [`ID_CHARS_MAX`] of the characters that stand for themselves in a URL (RFC 3986, section 2.3).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeliveryId(Box<str>);

impl DeliveryId {
    /// The id, or nothing if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let unreserved = |b: u8| b.is_ascii_alphanumeric() || b"._~-".contains(&b);
        let fits = (1..=ID_CHARS_MAX).contains(&text.len()) && text.bytes().all(unreserved);
        fits.then(|| Self(text.into()))
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a drone reports, and the state its delivery is in afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventType {
    /// The first event of every delivery.
    ParcelCollected,
    /// In the air.
    TakenOff,
    /// On the ground.
    Landed,
    /// Final: lost.
    Crashed,
    /// Final: done.
    ParcelDelivered,
}

impl EventType {
    /// All of them, in the order in which a story goes.
    pub const ALL: [Self; 5] = [
        Self::ParcelCollected,
        Self::TakenOff,
        Self::Landed,
        Self::Crashed,
        Self::ParcelDelivered,
    ];

    /// The word the API uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ParcelCollected => "PARCEL_COLLECTED",
            Self::TakenOff => "TAKEN_OFF",
            Self::Landed => "LANDED",
            Self::Crashed => "CRASHED",
            Self::ParcelDelivered => "PARCEL_DELIVERED",
        }
    }

    /// Nothing follows.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Crashed | Self::ParcelDelivered)
    }
}

/// A kept event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Its place in the delivery, from 1.
    pub sequence: u32,
    /// What happened.
    pub event_type: EventType,
    /// When it was received; never before the event it follows.
    pub received_at: Timestamp,
}

/// Where a delivery stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its name.
    pub id: DeliveryId,
    /// The type of its latest event.
    pub state: EventType,
    /// How many events it has.
    pub events: u32,
    /// When the first was received.
    pub started_at: Timestamp,
    /// When the latest was received.
    pub updated_at: Timestamp,
}

impl Delivery {
    /// Not in a final state.
    pub fn is_ongoing(&self) -> bool {
        !self.state.is_final()
    }

    /// From when on it is stale, unless it says something; nothing if it never will be.
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
    /// Where it stands.
    pub delivery: Delivery,
    /// How it came there.
    pub events: Vec<Event>,
}

/// How many deliveries there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Not in a final state.
    pub ongoing: u64,
    /// Since the beginning, whether kept or not.
    pub total: u64,
}

/// Which event may follow which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Graph {
    /// Between the first and the final one, any.
    Free,
    /// Take-off first, landings and take-offs in turn, a crash in the air only, delivered on the ground only.
    Strict,
}

/// What the desk goes by.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Which event may follow which.
    pub graph: Graph,
    /// Events of one delivery; beyond it only a final one.
    pub events_max: u32,
    /// Ongoing deliveries.
    pub ongoing_max: u64,
    /// Deliveries that are kept after they are over, counted from the latest by their first event.
    pub kept: u64,
}

impl Rules {
    /// The types of event that are accepted next: of a delivery that is in this state after so many events, or of one
    /// that has not begun.
    pub fn allowed(&self, so_far: Option<(EventType, u32)>) -> Vec<EventType> {
        use EventType::{Crashed, Landed, ParcelCollected, ParcelDelivered, TakenOff};
        let Some((state, events)) = so_far else {
            return vec![ParcelCollected];
        };
        if state.is_final() {
            return Vec::new();
        }
        if events >= self.events_max {
            return vec![Crashed, ParcelDelivered];
        }
        match (self.graph, state) {
            (Graph::Free, _) => vec![TakenOff, Landed, Crashed, ParcelDelivered],
            (Graph::Strict, ParcelCollected) => vec![TakenOff],
            (Graph::Strict, TakenOff) => vec![Landed, Crashed],
            (Graph::Strict, _) => vec![TakenOff, ParcelDelivered],
        }
    }

    /// The sequence this event gets.
    ///
    /// # Errors
    /// [`Refusal::Illegal`] if it may not follow.
    pub fn next(
        &self,
        so_far: Option<(EventType, u32)>,
        event_type: EventType,
    ) -> Result<u32, Refusal> {
        let allowed = self.allowed(so_far);
        if allowed.contains(&event_type) {
            return Ok(so_far.map_or(0, |(_, events)| events) + 1);
        }
        Err(Refusal::Illegal {
            state: so_far.map(|(state, _)| state),
            allowed,
        })
    }

    /// Whether one more delivery may begin.
    ///
    /// # Errors
    /// [`Refusal::TooManyOngoing`] if not.
    pub fn begin(&self, counts: Counts) -> Result<(), Refusal> {
        if counts.ongoing < self.ongoing_max {
            Ok(())
        } else {
            Err(Refusal::TooManyOngoing)
        }
    }

    /// Of deliveries numbered by their first event, from 1: the last number whose delivery is no longer kept once it is
    /// over, when so many have begun.
    pub fn outlived(&self, total: u64) -> u64 {
        total.saturating_sub(self.kept)
    }
}

#[cfg(test)]
mod tests {
    use super::EventType::{Crashed, Landed, ParcelCollected, ParcelDelivered, TakenOff};
    use super::*;

    fn rules(graph: Graph) -> Rules {
        Rules {
            graph,
            events_max: 10,
            ongoing_max: 2,
            kept: 1000,
        }
    }

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
        ] {
            assert_eq!(DeliveryId::parse(text).is_some(), fits, "{text:?}");
        }
        assert!(DeliveryId::parse(&"x".repeat(128)).is_some());
        assert!(DeliveryId::parse(&"x".repeat(129)).is_none());
    }

    #[test]
    fn the_first_event_is_the_collection_and_nothing_follows_a_final_one() {
        for graph in [Graph::Free, Graph::Strict] {
            let rules = rules(graph);
            assert_eq!(rules.allowed(None), [ParcelCollected]);
            for state in [Crashed, ParcelDelivered] {
                assert!(rules.allowed(Some((state, 3))).is_empty());
            }
            for state in EventType::ALL {
                assert!(!rules.allowed(Some((state, 3))).contains(&ParcelCollected));
            }
        }
    }

    #[test]
    fn the_free_graph_takes_any_order_and_the_strict_one_does_not() {
        let free = rules(Graph::Free);
        let strict = rules(Graph::Strict);
        for (state, next, is_strict) in [
            (ParcelCollected, TakenOff, true),
            (ParcelCollected, Landed, false),
            (ParcelCollected, Crashed, false),
            (ParcelCollected, ParcelDelivered, false),
            (TakenOff, Landed, true),
            (TakenOff, Crashed, true),
            (TakenOff, TakenOff, false),
            (TakenOff, ParcelDelivered, false),
            (Landed, TakenOff, true),
            (Landed, ParcelDelivered, true),
            (Landed, Landed, false),
            (Landed, Crashed, false),
        ] {
            assert_eq!(free.next(Some((state, 4)), next), Ok(5));
            let answer = strict.next(Some((state, 4)), next);
            assert_eq!(answer.is_ok(), is_strict, "{state:?} -> {next:?}");
            if let Err(Refusal::Illegal {
                state: told,
                allowed,
            }) = answer
            {
                assert_eq!(told, Some(state));
                assert!(!allowed.contains(&next));
            }
        }
    }

    #[test]
    fn a_delivery_that_has_too_much_to_tell_may_only_end() {
        let rules = rules(Graph::Free);
        assert_eq!(rules.next(Some((Landed, 9)), TakenOff), Ok(10));
        assert_eq!(
            rules.next(Some((TakenOff, 10)), Landed),
            Err(Refusal::Illegal {
                state: Some(TakenOff),
                allowed: vec![Crashed, ParcelDelivered]
            })
        );
        assert_eq!(rules.next(Some((TakenOff, 10)), Crashed), Ok(11));
    }

    #[test]
    fn only_so_many_are_ongoing_and_only_so_many_are_kept() {
        let rules = rules(Graph::Free);
        let counts = |ongoing| Counts { ongoing, total: 7 };
        assert_eq!(rules.begin(counts(1)), Ok(()));
        assert_eq!(rules.begin(counts(2)), Err(Refusal::TooManyOngoing));
        for (total, outlived) in [(1, 0), (1000, 0), (1001, 1), (2500, 1500)] {
            assert_eq!(rules.outlived(total), outlived);
        }
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
