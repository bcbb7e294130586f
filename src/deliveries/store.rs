//! The store's port.

use std::fmt;
use std::pin::Pin;

use jiff::Timestamp;

use super::error::{RecordError, Unavailable};
use super::model::{Counts, Delivery, DeliveryId, Event, EventType, History};

/// Boxed, so that the service is independent of the store's type.
pub type Answer<'a, T, E = Unavailable> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>;

/// A reported event.
#[derive(Debug, Clone)]
pub struct NewEvent {
    pub delivery: DeliveryId,
    pub event_type: EventType,
    /// Identifies a repeated event; 1 to 255 bytes.
    pub key: Option<Box<str>>,
    pub received_at: Timestamp,
    /// It came from the public network.
    pub is_public: bool,
}

/// The result of an accepted event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    New(Event),
    /// It was stored before.
    Replayed(Event),
}

/// Stores deliveries. A store is created with the desk's [`Config`](super::config::Config), by which it decides about an event; it
/// stores the event and the counts and evicts deliveries in one transaction.
pub trait Store: fmt::Debug + Send + Sync {
    /// Stores an event. Durable once it has answered.
    fn record(&self, event: NewEvent) -> Answer<'_, Recorded, RecordError>;

    /// All ongoing deliveries, oldest first by their first event.
    fn ongoing(&self) -> Answer<'_, Vec<Delivery>>;

    /// None if it is unknown or evicted.
    fn delivery(&self, id: DeliveryId) -> Answer<'_, Option<Delivery>>;

    /// A delivery with all its events; None if it is unknown or evicted.
    fn history(&self, id: DeliveryId) -> Answer<'_, Option<History>>;

    /// None if there is none, or its delivery was evicted.
    fn event(&self, id: DeliveryId, sequence: u32) -> Answer<'_, Option<Event>>;

    fn counts(&self) -> Answer<'_, Counts>;

    /// Changes with every commit. Read before a query it is a lower bound of what the query saw.
    fn version(&self) -> u64;
}

/// The contract of every store.
#[cfg(test)]
pub(super) mod contract;
