//! The words of the order line, and what they may hold. Pure: time comes in as an argument.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use jiff::Timestamp;
use uuid::Uuid;

/// What every order is for. The customers drink nothing else.
pub const DRINK: &str = "americano";

/// The longest name of a customer, in characters.
pub const CUSTOMER_CHARS_MAX: usize = 200;
/// The longest name of a barista, in characters.
pub const BARISTA_CHARS_MAX: usize = 64;
/// The longest idempotency key, in characters.
pub const KEY_CHARS_MAX: usize = 255;
/// The shortest idempotency key that is the same wherever it comes from, in characters: a shorter one can be guessed, as
/// `1` or `order-1` can, and whoever used it first would get the orders of all others.
pub const KEY_ANYWHERE_CHARS_MIN: usize = 16;

/// One moment on both clocks: the monotonic one for how long things take, the wall clock for what is written down.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Monotonic; leases, graces and durations are counted on it.
    pub instant: Instant,
    /// UTC; recorded in the order and shown to people.
    pub wall: Timestamp,
}

impl Now {
    /// The wall-clock time that is `ahead` of this moment; the end of time where that cannot be written.
    pub fn wall_after(self, ahead: Duration) -> Timestamp {
        self.wall.checked_add(ahead).unwrap_or(Timestamp::MAX)
    }
}

/// Names an order: a version 7 UUID (RFC 9562), so that ids sort by the time of placing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OrderId(pub Uuid);

/// By the bytes, as one number: the line compares ids more often than it does anything else.
impl Ord for OrderId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.as_u128().cmp(&other.0.as_u128())
    }
}

impl PartialOrd for OrderId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a client calls an order before it has an id: 1 to 255 visible ASCII characters
/// (the `Idempotency-Key` header of draft-ietf-httpapi-idempotency-key-header). A short one names an order of the origin
/// that it came from; one of [`KEY_ANYWHERE_CHARS_MIN`] or more names the same order from anywhere: a phone changes networks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey {
    text: Arc<str>,
    /// Whose it is, if it is short.
    origin: Option<IpNet>,
}

impl IdempotencyKey {
    /// The key as it came from `origin`, or nothing if it is empty, too long, or holds anything but visible ASCII.
    pub fn parse(text: &[u8], origin: IpNet) -> Option<Self> {
        let fits = (1..=KEY_CHARS_MAX).contains(&text.len());
        let visible = text.iter().all(u8::is_ascii_graphic);
        if !(fits && visible) {
            return None;
        }
        let origin = (text.len() < KEY_ANYWHERE_CHARS_MIN).then_some(origin);
        std::str::from_utf8(text).ok().map(|text| Self {
            text: Arc::from(text),
            origin,
        })
    }
}

/// A keyed order: its key, and a digest of the body it came with. The same key with another body is a mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyed {
    /// The client's name for the order.
    pub key: IdempotencyKey,
    /// Digest of the request's body, byte for byte.
    pub fingerprint: u64,
}

/// Where an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// In line.
    Waiting,
    /// With a barista, under a lease.
    Brewing,
    /// Finished; remembered for `orders.replay`.
    Ready,
    /// Taken out of the line; remembered for `orders.replay`.
    Cancelled,
}

impl Stage {
    /// The word the API uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Brewing => "brewing",
            Self::Ready => "ready",
            Self::Cancelled => "cancelled",
        }
    }

    /// Nothing will change any more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Ready | Self::Cancelled)
    }
}

/// A coffee somebody asked for, and what has happened to it so far.
#[derive(Debug, Clone)]
pub struct Order {
    /// Its name.
    pub id: OrderId,
    /// The customer's name, if one was given.
    pub customer: Option<Box<str>>,
    /// The network address it came from, if that counts.
    pub origin: Option<IpNet>,
    /// The id of the request that placed it, for the log; only where the log has a use for it.
    pub request_id: Option<Box<str>>,
    /// Where it stands.
    pub stage: Stage,
    /// When it joined the line.
    pub placed: Now,
    /// When the latest barista took it. Kept when it returns to the line: that barista may still finish it.
    pub started: Option<Now>,
    /// When it became final.
    pub ended: Option<Now>,
    /// The latest barista's name, if one was given.
    pub barista: Option<Box<str>>,
    /// How often it was handed to a barista. Doubles as the fence: each hand-over has its own number.
    pub attempts: u32,
    /// Whether somebody was there to receive it when it became ready.
    pub delivered: bool,
}

impl Order {
    /// A new order, in line since `now`.
    pub fn new(id: OrderId, customer: Option<Box<str>>, now: Now) -> Self {
        Self {
            id,
            customer,
            origin: None,
            request_id: None,
            stage: Stage::Waiting,
            placed: now,
            started: None,
            ended: None,
            barista: None,
            attempts: 0,
            delivered: false,
        }
    }

    /// How long it stood in line: until the latest start, or until now while it stands there.
    pub fn waited(&self, now: Now) -> Duration {
        let until = match self.stage {
            Stage::Waiting => now,
            Stage::Brewing | Stage::Ready => self.started.unwrap_or(now),
            Stage::Cancelled => self.ended.unwrap_or(now),
        };
        until.instant.saturating_duration_since(self.placed.instant)
    }

    /// From the latest start to the end; until `now` if it has not ended; zero if it never started.
    pub fn brewed(&self, now: Now) -> Duration {
        let until = self.ended.unwrap_or(now);
        self.started.map_or(Duration::ZERO, |started| {
            until.instant.saturating_duration_since(started.instant)
        })
    }

    /// The number a barista must name to prove that the order is still theirs. While the order is back in line this
    /// is the *next* hand-over's number, so that whoever had it before is fenced off.
    pub fn current_attempt(&self) -> u32 {
        match self.stage {
            Stage::Waiting => self.attempts + 1,
            Stage::Brewing | Stage::Ready | Stage::Cancelled => self.attempts,
        }
    }
}

/// What a held request is told in the end.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The coffee is ready.
    Ready(Arc<Order>),
    /// The order was taken out of the line.
    Cancelled(Arc<Order>),
    /// Its address was cut off before anybody had started; for how long.
    Blocked(Duration),
    /// The shop closes before the order was ready.
    Closing,
}

/// An order as a barista gets it.
#[derive(Debug, Clone)]
pub struct Lease {
    /// The order.
    pub id: OrderId,
    /// The customer's name, if one was given.
    pub customer: Option<Box<str>>,
    /// As [`Order::request_id`].
    pub request_id: Option<Box<str>>,
    /// Which hand-over of the order this is, from 1.
    pub attempt: u32,
    /// When it joined the line.
    pub placed_at: Timestamp,
    /// How long it stood there.
    pub waited: Duration,
    /// Until when it is this barista's, unless extended.
    pub lease_expires_at: Timestamp,
    /// Whether a request is attached to it right now.
    pub customer_waiting: bool,
    /// Who would receive it.
    pub presence: Presence,
    /// The hand-over before this one, which counts again if this one does not reach its barista.
    pub previous: Option<Box<Previous>>,
}

/// An earlier hand-over of an order.
#[derive(Debug, Clone, Default)]
pub struct Previous {
    /// When it was.
    pub started: Option<Now>,
    /// To whom, if they gave a name.
    pub barista: Option<Box<str>>,
}

/// Who would receive an order if it became ready now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// A customer's request is held for it.
    Held,
    /// No request is held; its customer was answered 202 and asks for it, or a request waits to see its state change.
    Watching,
    /// The customer has left. One with a key may come back.
    Gone,
}

impl Presence {
    /// The word the API uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Watching => "watching",
            Self::Gone => "gone",
        }
    }
}

/// Whether there are baristas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crew {
    /// At least one is idle or brewing, or has just asked for an order or reported one.
    Present,
    /// Not one has shown for a while.
    Away,
}

impl Crew {
    /// The word the API uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Away => "away",
        }
    }
}

/// An order as somebody who asks sees it.
#[derive(Debug, Clone)]
pub struct View {
    /// The order.
    pub order: Order,
    /// Its place in line, from 1 (next), while it waits.
    pub position: Option<usize>,
    /// How long until it is ready, by the crew's measured pace; while it waits or brews, and the crew is present.
    pub estimated_wait: Option<Duration>,
    /// Whether there are baristas, while it waits.
    pub crew: Option<Crew>,
    /// When it leaves the line if nobody asks about it until then, while it waits and was promised.
    pub ask_before: Option<Timestamp>,
}

impl View {
    /// Of an order that does not wait.
    pub fn of(order: Order) -> Self {
        Self {
            order,
            position: None,
            estimated_wait: None,
            crew: None,
            ask_before: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &[u8]) -> Option<IdempotencyKey> {
        IdempotencyKey::parse(text, "192.0.2.1/32".parse().unwrap())
    }

    #[test]
    fn a_key_is_1_to_255_visible_ascii_characters() {
        for (text, fits) in [
            ("k", true),
            ("0191d5c8-7a9b", true),
            ("~!\"#", true),
            ("", false),
            ("with space", false),
            ("tab\t", false),
            ("naïve", false),
            ("\u{7f}", false),
        ] {
            assert_eq!(parse(text.as_bytes()).is_some(), fits, "{text:?}");
        }
        assert!(parse(&[b'x'; 255]).is_some());
        assert!(parse(&[b'x'; 256]).is_none());
    }

    #[test]
    fn a_short_key_is_its_origin_s_and_a_long_one_the_same_from_anywhere() {
        let elsewhere =
            |text| IdempotencyKey::parse(text, "2001:db8::/64".parse().unwrap()).unwrap();
        for (text, same) in [
            (&b"1"[..], false),
            (b"fifteen-letters", false),
            (b"sixteen-letters!", true),
        ] {
            assert_eq!(parse(text).unwrap() == elsewhere(text), same);
            assert_eq!(elsewhere(text), elsewhere(text));
        }
    }
}
