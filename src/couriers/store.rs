//! The store's port.

use std::fmt;
use std::pin::Pin;

use jiff::Timestamp;

use super::error::Unavailable;
use super::model::{
    AddOrder, Assignment, Courier, CourierId, Event, OrderId, Outcome, Whereabouts, Zone,
    ZoneSummary,
};
use crate::storage::State;

/// Boxed, so that the service is independent of the store's type.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Unavailable>> + Send + 'a>>;

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Its place in the log, from 1 on, growing.
    pub number: u64,
    /// When it was stored, to the microsecond.
    pub at: Timestamp,
    pub event: Event,
    pub outcome: Outcome,
}

/// An assignment in the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing {
    /// Its place in the outbox, growing.
    pub number: u64,
    pub assignment: Assignment,
}

/// Stores couriers, orders, the event log, and the outbox. Every answered write is durable. A store is created with the desk's
/// [`Join`](super::model::Join).
pub trait Store: fmt::Debug + Send + Sync {
    /// Applies events in order, each in one transaction with its decision, its log entry and its outbox entry. After a failure
    /// the first of them may be stored; applied again, they are duplicates. Each has the time at which it was received.
    fn apply(&self, events: Vec<(Event, Timestamp)>) -> Answer<'_, Vec<Outcome>>;

    /// Stores replicated assignments. An order that has a courier already keeps it.
    fn replicate(&self, assignments: Vec<Assignment>) -> Answer<'_, ()>;

    /// Where an order is, decided here or replicated; None if it is unknown.
    fn order(&self, order: OrderId) -> Answer<'_, Option<Whereabouts>>;

    /// Every order that was decided here, by id: to compare stores.
    fn orders(&self) -> Answer<'_, Vec<(OrderId, Whereabouts)>>;

    /// The orders of a courier, decided here or replicated, by id.
    fn orders_of(&self, courier: CourierId) -> Answer<'_, Vec<OrderId>>;

    /// None if the courier is unknown.
    fn courier(&self, courier: CourierId) -> Answer<'_, Option<Courier>>;

    /// The couriers of a zone, or all, by id.
    fn couriers(&self, zone: Option<Zone>) -> Answer<'_, Vec<Courier>>;

    /// Parked orders, by zone, then the longest waiting first; at most `limit`, and how many there are.
    fn parked(&self, limit: usize) -> Answer<'_, (Vec<AddOrder>, u64)>;

    /// Every zone, in the order of [`Zone::ALL`]. Costs the same however many couriers there are.
    fn zones(&self) -> Answer<'_, Vec<ZoneSummary>>;

    /// At most `limit` entries of the log after a number.
    fn events(&self, after: u64, limit: usize) -> Answer<'_, Vec<Recorded>>;

    /// The outbox, the oldest of each zone first, at most `limit`.
    fn outgoing(&self, limit: usize) -> Answer<'_, Vec<Outgoing>>;

    /// Removes published assignments from the outbox.
    fn mark_published(&self, numbers: Vec<u64>) -> Answer<'_, ()>;

    /// Whether the engine's last operation succeeded. Databases in the data directory are watched by themselves.
    fn is_healthy(&self) -> bool {
        self.state().down.is_none()
    }

    /// As [`Store::is_healthy`], with time and reason.
    fn state(&self) -> State;
}

/// The contract of every store.
#[cfg(test)]
pub(super) mod contract;
