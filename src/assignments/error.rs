//! What can go wrong with an assignment, without HTTP.

use jiff::civil::Date;
use thiserror::Error;

use super::model::{DriverId, Status};
pub use crate::storage::Unavailable;

/// Too many plan or wait for their turn; see [`turns`](super::turns). Worth trying again soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("too many plans at once")]
pub struct Crowded;

/// Why there is no plan. Nothing of it is kept, except where [`Unavailable`] says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AssignError {
    /// The day has no lists.
    #[error("there is no manifest for {0}")]
    NoManifest(Date),
    /// These drivers are not in the day's list.
    #[error("some drivers are not in the day's list")]
    UnknownDrivers(Vec<DriverId>),
    /// It is not its turn.
    #[error(transparent)]
    Crowded(#[from] Crowded),
    /// Nobody could be asked. What was given until then stays given; asked again, the rest follows.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Why a status is not accepted. Nothing of it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The driver does not have the package.
    #[error("the driver does not have the package")]
    NoSuchAssignment,
    /// A final status stays.
    #[error("the status is final")]
    Final {
        /// Which it is.
        status: Status,
    },
}

/// Why a status was not updated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum UpdateError {
    /// It is not accepted.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nobody could be asked.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}
