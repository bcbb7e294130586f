//! The port: what the desk needs kept.

use std::fmt;
use std::pin::Pin;

use jiff::Timestamp;

use super::error::Unavailable;
use super::model::{
    AddOrder, Assignment, Courier, CourierId, Event, OrderId, Outcome, Whereabouts, Zone,
};
use crate::storage::State;

/// An answer that takes its time. Boxed, so that the service need not know which store it has.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Unavailable>> + Send + 'a>>;

/// An event of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Its place in the log, from 1 on, growing.
    pub number: u64,
    /// When it was kept, to the microsecond.
    pub at: Timestamp,
    /// What happened.
    pub event: Event,
    /// What it came to then.
    pub outcome: Outcome,
}

/// An assignment that is still to be told to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing {
    /// Its place, growing.
    pub number: u64,
    /// The assignment.
    pub assignment: Assignment,
}

/// Keeps couriers, orders, the event log, and what is to be told to others. Whatever is answered is kept: no crash can take it
/// away. A store is made with the desk's [`Join`](super::model::Join), by which newcomers begin.
pub trait Store: fmt::Debug + Send + Sync {
    /// Applies events one after the other: each with its decision, its place in the log and what is to be told of it at once
    /// or not at all. If it fails, the first of them may be kept; applied again, they are duplicates. With each goes the
    /// time at which it was heard of.
    fn apply(&self, events: Vec<(Event, Timestamp)>) -> Answer<'_, Vec<Outcome>>;

    /// Keeps assignments that were decided elsewhere. Of an order that has a courier already, the first one stands.
    fn learn(&self, assignments: Vec<Assignment>) -> Answer<'_, ()>;

    /// Where an order is, decided here or learned; nothing if nobody ever heard of it.
    fn order(&self, order: OrderId) -> Answer<'_, Option<Whereabouts>>;

    /// Where every order is that was decided about here, by their ids: for comparing stores.
    fn orders(&self) -> Answer<'_, Vec<(OrderId, Whereabouts)>>;

    /// The orders of a courier, decided here or learned, by their ids.
    fn orders_of(&self, courier: CourierId) -> Answer<'_, Vec<OrderId>>;

    /// A courier; nothing if nobody ever heard of them.
    fn courier(&self, courier: CourierId) -> Answer<'_, Option<Courier>>;

    /// The couriers of a zone, or all, by their ids.
    fn couriers(&self, zone: Option<Zone>) -> Answer<'_, Vec<Courier>>;

    /// Orders that wait for a courier, by zone, then the longest waiting first; `limit` at most, and how many there are.
    fn parked(&self, limit: usize) -> Answer<'_, (Vec<AddOrder>, u64)>;

    /// The log after a place, `limit` events at most.
    fn events(&self, after: u64, limit: usize) -> Answer<'_, Vec<Recorded>>;

    /// What is still to be told to others, the oldest of each zone first, `limit` at most.
    fn outgoing(&self, limit: usize) -> Answer<'_, Vec<Outgoing>>;

    /// These were told.
    fn told(&self, numbers: Vec<u64>) -> Answer<'_, ()>;

    /// Whether the engine did its work the last time it was asked. Databases in the data directory are watched as such.
    fn is_healthy(&self) -> bool {
        self.state().down.is_none()
    }

    /// As [`Store::is_well`], with its time and reason.
    fn state(&self) -> State;
}

/// A store that was never opened: for describing the desk's API.
#[derive(Debug, Clone, Copy)]
pub struct Closed;

fn closed<T: Send + 'static>() -> Answer<'static, T> {
    Box::pin(std::future::ready(Err(Unavailable::Stopped)))
}

impl Store for Closed {
    fn apply(&self, _: Vec<(Event, Timestamp)>) -> Answer<'_, Vec<Outcome>> {
        closed()
    }

    fn learn(&self, _: Vec<Assignment>) -> Answer<'_, ()> {
        closed()
    }

    fn orders(&self) -> Answer<'_, Vec<(OrderId, Whereabouts)>> {
        closed()
    }

    fn order(&self, _: OrderId) -> Answer<'_, Option<Whereabouts>> {
        closed()
    }

    fn orders_of(&self, _: CourierId) -> Answer<'_, Vec<OrderId>> {
        closed()
    }

    fn courier(&self, _: CourierId) -> Answer<'_, Option<Courier>> {
        closed()
    }

    fn couriers(&self, _: Option<Zone>) -> Answer<'_, Vec<Courier>> {
        closed()
    }

    fn parked(&self, _: usize) -> Answer<'_, (Vec<AddOrder>, u64)> {
        closed()
    }

    fn events(&self, _: u64, _: usize) -> Answer<'_, Vec<Recorded>> {
        closed()
    }

    fn outgoing(&self, _: usize) -> Answer<'_, Vec<Outgoing>> {
        closed()
    }

    fn told(&self, _: Vec<u64>) -> Answer<'_, ()> {
        closed()
    }

    fn state(&self) -> State {
        State::down("the store was never opened")
    }
}

/// What every store must do, whatever its engine.
#[cfg(test)]
pub(super) mod contract;
