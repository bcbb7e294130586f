//! The port: what the desk needs kept.

use std::fmt;
use std::pin::Pin;

use jiff::Timestamp;

use super::error::{RecordError, Unavailable};
use super::model::{Counts, Delivery, DeliveryId, Event, EventType, History};

/// An answer that takes its time. Boxed, so that the service need not know which store it has.
pub type Answer<'a, T, E = Unavailable> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>;

/// An event as it came in.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// Of which delivery.
    pub delivery: DeliveryId,
    /// What happened.
    pub event_type: EventType,
    /// By which it is recognised when it is sent again; 1 to 255 bytes.
    pub key: Option<Box<str>>,
    /// When it came in.
    pub received_at: Timestamp,
    /// It came from the public network.
    pub is_public: bool,
}

/// What became of an event that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// It is kept.
    New(Event),
    /// It had been kept before.
    Replayed(Event),
}

/// Keeps deliveries. A store is made with the desk's [`Rules`](super::rules::Rules), asks them whether an event is
/// accepted, and keeps the event, the counts and what is pushed out together, or nothing of it.
pub trait Store: fmt::Debug + Send + Sync {
    /// Keeps an event; answers once no crash can take it away.
    fn record(&self, event: NewEvent) -> Answer<'_, Recorded, RecordError>;

    /// All ongoing deliveries, oldest first by their first event.
    fn ongoing(&self) -> Answer<'_, Vec<Delivery>>;

    /// One delivery; nothing if it is not kept.
    fn delivery(&self, id: DeliveryId) -> Answer<'_, Option<Delivery>>;

    /// One delivery with all its events; nothing if it is not kept.
    fn history(&self, id: DeliveryId) -> Answer<'_, Option<History>>;

    /// One event; nothing if there is none, or its delivery is not kept.
    fn event(&self, id: DeliveryId, sequence: u32) -> Answer<'_, Option<Event>>;

    /// How many deliveries there are.
    fn counts(&self) -> Answer<'_, Counts>;

    /// A number that changes whenever something was kept. Taken before a read it stands for what the read saw, or less.
    fn version(&self) -> u64;
}

/// A store that was never opened: for describing the desk's API.
#[derive(Debug, Clone, Copy)]
pub struct Closed;

fn closed<T: Send + 'static, E: From<Unavailable> + Send + 'static>() -> Answer<'static, T, E> {
    Box::pin(std::future::ready(Err(Unavailable::Stopped.into())))
}

impl Store for Closed {
    fn record(&self, _: NewEvent) -> Answer<'_, Recorded, RecordError> {
        closed()
    }

    fn ongoing(&self) -> Answer<'_, Vec<Delivery>> {
        closed()
    }

    fn delivery(&self, _: DeliveryId) -> Answer<'_, Option<Delivery>> {
        closed()
    }

    fn history(&self, _: DeliveryId) -> Answer<'_, Option<History>> {
        closed()
    }

    fn event(&self, _: DeliveryId, _: u32) -> Answer<'_, Option<Event>> {
        closed()
    }

    fn counts(&self) -> Answer<'_, Counts> {
        closed()
    }

    fn version(&self) -> u64 {
        0
    }
}

/// What every store must do, whatever its engine.
#[cfg(test)]
pub(super) mod contract;
