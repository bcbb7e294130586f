//! Couriers, orders, and the events about them. Pure.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::values::time;

pub const NAME_CHARS_MAX: usize = 200;
pub const DETAILS_CHARS_MAX: usize = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CourierId(pub Uuid);

impl fmt::Display for CourierId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OrderId(pub Uuid);

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A part of the town: north, south, east, west.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Zone {
    N,
    S,
    E,
    W,
}

impl Zone {
    pub const ALL: [Self; 4] = [Self::N, Self::S, Self::E, Self::W];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::N => "N",
            Self::S => "S",
            Self::E => "E",
            Self::W => "W",
        }
    }

    pub fn parse(letter: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|zone| zone.as_str() == letter)
    }
}

/// A report about a courier; it replaces the previous one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddCourier {
    #[serde(rename = "courierId")]
    pub id: CourierId,
    /// At most [`NAME_CHARS_MAX`] characters.
    pub name: Box<str>,
    pub zone: Zone,
    /// Whether they accept further orders.
    pub is_available: bool,
}

/// An order that needs a courier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddOrder {
    #[serde(rename = "orderId")]
    pub id: OrderId,
    /// At most [`DETAILS_CHARS_MAX`] characters.
    pub details: Box<str>,
    pub zone: Zone,
    /// When it was placed, to the microsecond.
    #[serde(serialize_with = "time::shown")]
    pub added_at: Timestamp,
}

/// On the wire the variants are distinguished by their fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Event {
    Courier(AddCourier),
    Order(AddOrder),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Courier {
    /// The latest report.
    pub said: AddCourier,
    /// Orders they were assigned so far; a newcomer may start with more (see [`Join`]).
    pub count: u64,
}

/// The couriers and the parked orders of a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneSummary {
    pub zone: Zone,
    /// Couriers who accept orders.
    pub available: u64,
    pub unavailable: u64,
    /// The sum of all counts.
    pub given: u64,
    /// The lowest count of the available couriers.
    pub least: Option<u64>,
    /// The highest.
    pub most: Option<u64>,
    pub parked: u64,
    /// When the longest waiting parked order was placed.
    pub oldest_parked: Option<Timestamp>,
}

/// The count with which a new courier starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Join {
    /// 0: a newcomer gets all orders until they have as many as the others.
    Zero,
    /// The lowest count of the zone's available couriers: a newcomer takes turns at once.
    Min,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    pub order_id: OrderId,
    pub courier_id: CourierId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whereabouts {
    With(CourierId),
    /// No courier of its zone is available.
    Parked,
}

/// The result of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The order has this courier.
    Assigned(CourierId),
    /// The order waits for a courier.
    Parked,
    /// The courier was updated; `unparked` parked orders were assigned to them.
    Updated { unparked: u64 },
    /// The order was reported before; nothing changes.
    Duplicate(Whereabouts),
}
