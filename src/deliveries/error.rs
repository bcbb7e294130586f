//! Errors of the desk, without HTTP.

use thiserror::Error;

use super::model::EventType;
pub use crate::storage::{SpaceLow, Unavailable};

/// Why an event is rejected. Nothing of it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("the event may not follow in the present state")]
    Illegal {
        /// The delivery's state; None if it has not begun.
        state: Option<EventType>,
        /// The types that may follow.
        allowed: Vec<EventType>,
    },
    #[error("the key was used for another event")]
    KeyReused {
        /// The first event's type.
        before: EventType,
    },
    #[error("too many deliveries are ongoing")]
    TooManyOngoing,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RecordError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}
