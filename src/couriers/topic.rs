//! The port to which events are published for the dispatcher.

use std::fmt;
use std::pin::Pin;

use super::error::AnnounceError;
use super::model::Event;

pub type Announced<'a> = Pin<Box<dyn Future<Output = Result<(), AnnounceError>> + Send + 'a>>;

pub trait Topic: fmt::Debug + Send + Sync {
    /// Publishes each event as a message of its own; returns once all are confirmed. After a failure some may be.
    fn announce(&self, events: Vec<Event>) -> Announced<'_>;
}
