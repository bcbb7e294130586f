//! Couriers, orders, and the events that tell of them. Pure.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::values::time;

/// The longest name of a courier, in characters.
pub const NAME_CHARS_MAX: usize = 200;
/// The longest details of an order, in characters.
pub const DETAILS_CHARS_MAX: usize = 10_000;

/// A courier's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CourierId(pub Uuid);

impl fmt::Display for CourierId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An order's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OrderId(pub Uuid);

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A part of the town.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Zone {
    /// North.
    N,
    /// South.
    S,
    /// East.
    E,
    /// West.
    W,
}

impl Zone {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::N, Self::S, Self::E, Self::W];

    /// The letter the API uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::N => "N",
            Self::S => "S",
            Self::E => "E",
            Self::W => "W",
        }
    }

    /// The zone of this letter.
    pub fn parse(letter: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|zone| zone.as_str() == letter)
    }
}

/// What somebody says of a courier: the first time they are new, afterwards it is how they are from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddCourier {
    /// Who.
    #[serde(rename = "courierId")]
    pub id: CourierId,
    /// What they are called; at most [`NAME_CHARS_MAX`] characters.
    pub name: Box<str>,
    /// Where they ride.
    pub zone: Zone,
    /// Whether they take further orders.
    pub is_available: bool,
}

/// An order that needs a courier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddOrder {
    /// Which.
    #[serde(rename = "orderId")]
    pub id: OrderId,
    /// What it is about; at most [`DETAILS_CHARS_MAX`] characters.
    pub details: Box<str>,
    /// Where it goes.
    pub zone: Zone,
    /// When it was placed, to the microsecond.
    #[serde(serialize_with = "time::shown")]
    pub added_at: Timestamp,
}

/// What happened. On the wire the two are told apart by their fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Event {
    /// Of a courier.
    Courier(AddCourier),
    /// Of an order.
    Order(AddOrder),
}

/// A courier as the desk knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Courier {
    /// What was said of them last.
    pub said: AddCourier,
    /// Orders they were ever given; a newcomer may begin with more (see [`Join`]).
    pub count: u64,
}

/// With which count a courier begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// With none: whoever is new gets all orders until they have as many as the others.
    Zero,
    /// With the least of those who are available in the zone: whoever is new takes turns at once.
    Min,
}

/// An order has its courier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    /// Which order.
    pub order_id: OrderId,
    /// Whose it is.
    pub courier_id: CourierId,
}

/// Where an order is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whereabouts {
    /// A courier has it.
    With(CourierId),
    /// Its zone has nobody who is available.
    Parked,
}

/// What an event came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The order has this courier.
    Assigned(CourierId),
    /// The order waits for a courier.
    Parked,
    /// The courier is as was said; so many orders that had waited are theirs.
    Updated {
        /// How many.
        unparked: u64,
    },
    /// The order was there before; nothing changes.
    Duplicate(Whereabouts),
}
