//! The other port: where events are announced, so that whoever decides hears of them.

use std::fmt;
use std::pin::Pin;

use super::error::AnnounceError;
use super::model::Event;

/// Whether events are announced, an answer that takes its time.
pub type Announced<'a> = Pin<Box<dyn Future<Output = Result<(), AnnounceError>> + Send + 'a>>;

/// Announces events.
pub trait Topic: fmt::Debug + Send + Sync {
    /// Announces events, each in a message of its own; answered once all of them are kept there. If it fails, some may be.
    fn announce(&self, events: Vec<Event>) -> Announced<'_>;
}
