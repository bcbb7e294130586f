//! Errors of the desk, without HTTP: the store or the topic does not answer, or the topic refuses an event. Malformed events
//! are rejected before, and whatever happens to a well-formed one is an outcome.

use thiserror::Error;

pub use crate::storage::Unavailable;

/// Why events were not published.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PublishError {
    /// The topic never accepts the events at these indices; all others were published.
    #[error("the topic refuses some of the events")]
    Refused(Vec<usize>),
    /// The topic does not answer. Some events may have been published.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}
