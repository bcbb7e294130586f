//! What can go wrong with a courier or an order, without HTTP: that nobody could be asked, or that a topic refuses an event.
//! Malformed events never come this far, and everything that can happen to a well-formed one is an outcome.

use thiserror::Error;

pub use crate::storage::Unavailable;

/// Why events were not announced.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AnnounceError {
    /// The topic never accepts those at these places; all others were announced.
    #[error("the topic refuses some of the events")]
    Refused(Vec<usize>),
    /// Nobody could be asked. Some may have been announced.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}
