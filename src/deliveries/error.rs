//! What can go wrong with a delivery, without HTTP.

use thiserror::Error;

use super::model::EventType;
pub use crate::storage::{SpaceLow, Unavailable};

/// Why an event is not accepted. Nothing of it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// It may not follow.
    #[error("the event may not follow in the present state")]
    Illegal {
        /// The delivery's state; nothing if it has not begun.
        state: Option<EventType>,
        /// What may follow instead.
        allowed: Vec<EventType>,
    },
    /// Its key came with another event of this delivery before.
    #[error("the key came with another event before")]
    KeyReused {
        /// The type it came with.
        before: EventType,
    },
    /// As many deliveries are ongoing as may be.
    #[error("too many deliveries are ongoing")]
    TooManyOngoing,
}

/// Why an event was not recorded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RecordError {
    /// It is not accepted.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nobody could be asked.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}
