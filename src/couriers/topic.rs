//! The other port: where events are announced, so that whoever decides hears of them.

use std::fmt;

use super::model::Event;
use super::store::Answer;

/// Announces events.
pub trait Topic: fmt::Debug + Send + Sync {
    /// Announces events, each in a message of its own; answered once all of them are kept there. If it fails, some may be.
    fn announce(&self, events: Vec<Event>) -> Answer<'_, ()>;
}
