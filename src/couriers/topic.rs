//! The port to which events are published for the dispatcher.

use std::fmt;
use std::pin::Pin;

use super::error::PublishError;
use super::model::Event;

pub type Published<'a> = Pin<Box<dyn Future<Output = Result<(), PublishError>> + Send + 'a>>;

pub trait Topic: fmt::Debug + Send + Sync {
    /// Publishes each event as a message of its own; returns once all are confirmed. After a failure some may be.
    fn publish(&self, events: Vec<Event>) -> Published<'_>;
}
