//! The types of the order line. Pure: time is an argument.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::values::json::Opaque;

/// The only drink.
pub const DRINK: &str = "americano";

/// The longest name of a customer, in characters.
pub const CUSTOMER_CHARS_MAX: usize = 200;
/// The longest name of a barista, in characters.
pub const BARISTA_CHARS_MAX: usize = 64;

/// How many pick-up numbers there are: a letter and two digits.
pub const PICKUP_NUMBERS: u16 = 2600;

/// What is called at the counter; below [`PICKUP_NUMBERS`]. No two pending orders have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PickupNumber(pub u16);

/// A pick-up number as it is shown, A00 to Z99; of an order without one, the last four digits of its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// ASCII.
    text: [u8; 4],
    length: u8,
}

impl Label {
    pub fn of(number: Option<PickupNumber>, id: OrderId) -> Self {
        let digit = |value: u16| b"0123456789ABCDEF"[usize::from(value % 16)];
        if let Some(PickupNumber(number)) = number {
            let letter = b'A' + u8::try_from(number / 100 % 26).unwrap_or_default();
            return Self {
                text: [letter, digit(number / 10 % 10), digit(number % 10), 0],
                length: 3,
            };
        }
        let [.., high, low] = id.0.into_bytes();
        let last = u16::from_be_bytes([high, low]);
        Self {
            text: [12, 8, 4, 0].map(|shift| digit(last >> shift)),
            length: 4,
        }
    }

    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.text[..usize::from(self.length)]).unwrap_or_default()
    }
}

/// Why no new orders are taken. Kept with the line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// By language, such as `en`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub message: BTreeMap<String, String>,
    /// When it is expected to open again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// One moment on both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Monotonic: leases, graces and durations.
    pub instant: Instant,
    /// UTC: recorded and shown.
    pub wall: Timestamp,
}

impl Now {
    /// The wall-clock time `ahead` from now; saturates.
    pub fn wall_after(self, ahead: Duration) -> Timestamp {
        self.wall.checked_add(ahead).unwrap_or(Timestamp::MAX)
    }
}

/// A version 7 UUID (RFC 9562), so that ids sort by the time of placing.
///
/// Stored as 32 hexadecimal digits: stores compare ids as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OrderId(#[serde(with = "uuid::serde::simple")] pub Uuid);

/// As one number: comparing ids is the line's most frequent operation.
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// In line.
    Waiting,
    /// With a barista, under a lease.
    Brewing,
    /// Finished; in memory for `orders.replay`.
    Ready,
    /// Cancelled; in memory for `orders.replay`.
    Cancelled,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Brewing => "brewing",
            Self::Ready => "ready",
            Self::Cancelled => "cancelled",
        }
    }

    pub fn is_final(self) -> bool {
        matches!(self, Self::Ready | Self::Cancelled)
    }
}

#[derive(Debug, Clone)]
pub struct Order {
    pub id: OrderId,
    /// None if all were taken when it was placed.
    pub number: Option<PickupNumber>,
    pub customer: Option<Box<str>>,
    /// The client's address, if flood control counts it.
    pub origin: Option<IpNet>,
    /// The id of the request that placed it; only at log level debug.
    pub request_id: Option<Box<str>>,
    /// For its barista; none once it is final.
    pub details: Option<Opaque>,
    /// For its customer, with the report that it is ready.
    pub result: Option<Opaque>,
    pub stage: Stage,
    pub placed: Now,
    /// When the latest barista took it. Still set after it returned to the line: that barista may finish it.
    pub started: Option<Now>,
    /// When it became final.
    pub ended: Option<Now>,
    /// The latest barista's name.
    pub barista: Option<Box<str>>,
    /// Leases so far. Doubles as the fencing token: each lease has its own number.
    pub attempts: u32,
    /// Whether a request was attached when it became ready.
    pub delivered: bool,
}

impl Order {
    pub fn new(id: OrderId, customer: Option<Box<str>>, now: Now) -> Self {
        Self {
            id,
            number: None,
            customer,
            origin: None,
            request_id: None,
            details: None,
            result: None,
            stage: Stage::Waiting,
            placed: now,
            started: None,
            ended: None,
            barista: None,
            attempts: 0,
            delivered: false,
        }
    }

    pub fn label(&self) -> Label {
        Label::of(self.number, self.id)
    }

    /// Time in line: until the latest start, or until `now` while it waits.
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

    /// The fencing token that a barista must name. While the order is back in line it is the *next* lease's, so that the
    /// barista before is fenced off.
    pub fn current_attempt(&self) -> u32 {
        match self.stage {
            Stage::Waiting => self.attempts + 1,
            Stage::Brewing | Stage::Ready | Stage::Cancelled => self.attempts,
        }
    }
}

/// How a held request ends.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The coffee is ready.
    Ready(Arc<Order>),
    /// The order was taken out of the line.
    Cancelled(Arc<Order>),
    /// Its address was blocked for this long before the order was started.
    Blocked(Duration),
    /// The line closed before the order was ready.
    Closing,
    /// The connection ends without an answer: the proxy sends the request again, to another server of the shared line.
    HandedOver,
}

/// An order under a lease.
#[derive(Debug, Clone)]
pub struct Lease {
    /// The order.
    pub id: OrderId,
    /// As [`Order::number`].
    pub number: Option<PickupNumber>,
    pub customer: Option<Box<str>>,
    /// As [`Order::request_id`].
    pub request_id: Option<Box<str>>,
    pub details: Option<Opaque>,
    /// From 1.
    pub attempt: u32,
    pub placed_at: Timestamp,
    /// Time in line.
    pub waited: Duration,
    pub lease_expires_at: Timestamp,
    /// Until then, when the lease was given or extended.
    pub remaining: Duration,
    pub customer_waiting: bool,
    pub presence: Presence,
    /// The lease before this one, restored if this one does not reach its barista; in a shared line the store has it.
    pub previous: Option<Box<Previous>>,
    /// In a shared line the number of its pull at this server.
    pub pull: u64,
}

/// An earlier lease of an order.
#[derive(Debug, Clone, Default)]
pub struct Previous {
    pub started: Option<Now>,
    pub barista: Option<Box<str>>,
}

/// Who would receive an order if it became ready now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// A customer's request is held for it.
    Held,
    /// No customer is held; its customer was answered 202 and polls, or a request waits for its state to change.
    Watching,
    /// The customer left; one with a key may reconnect.
    Gone,
}

impl Presence {
    /// `customers`, `watchers`: attached requests.
    pub fn new(customers: bool, watchers: bool, promised: bool) -> Self {
        if customers {
            Self::Held
        } else if promised || watchers {
            Self::Watching
        } else {
            Self::Gone
        }
    }

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
    /// At least one is idle or brewing, or has recently pulled or reported.
    Present,
    Away,
}

impl Crew {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Away => "away",
        }
    }
}

/// An order as a client sees it.
#[derive(Debug, Clone)]
pub struct View {
    /// The order.
    pub order: Order,
    /// Place in line while it waits, from 1 (next).
    pub position: Option<usize>,
    /// By the crew's measured throughput; while it waits or brews, and the crew is present.
    pub estimated_wait: Option<Duration>,
    /// While it waits.
    pub crew: Option<Crew>,
    /// While it waits and was promised: the time at which it is cancelled unless it is polled.
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

/// The line as its screens show it: who is next, who works on what, and what was ready last.
#[derive(Debug, Clone)]
pub struct Survey {
    pub now: Now,
    pub waiting: usize,
    pub idle_baristas: usize,
    /// Age of the first in line; none if none waits.
    pub oldest_waiting: Option<Duration>,
    /// Of a new order, by the crew's pace.
    pub estimated_wait: Option<Duration>,
    pub crew: Crew,
    /// None if it is open.
    pub closed: Option<Arc<Closed>>,
    /// The first in line, at most [`NEXT_MAX`]. Without details.
    pub next: Vec<Order>,
    /// Orders under a lease, at most [`CUPS_MAX`], the lease that ends first before the others.
    pub cups: Vec<Cup>,
    /// Those that are ready among the latest [`RECENT_MAX`] final orders, the latest first. Without results.
    pub recent: Vec<Order>,
}

/// Orders in line that a survey names.
pub const NEXT_MAX: usize = 24;
/// Orders under a lease that a survey names.
pub const CUPS_MAX: usize = 100;
/// Final orders that a survey looks at.
pub const RECENT_MAX: usize = 100;

/// An order under a lease, in a survey.
#[derive(Debug, Clone)]
pub struct Cup {
    pub order: Order,
    /// Of its lease.
    pub remaining: Duration,
    pub presence: Presence,
}
