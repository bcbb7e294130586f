//! The types of the order line. Pure: time is an argument.

use std::cmp::Ordering;
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
