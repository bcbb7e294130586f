//! Errors of the desk, without HTTP.

use jiff::civil::Date;
use thiserror::Error;

use super::model::{DriverId, Status};
pub use crate::storage::Unavailable;

/// Too many requests plan or wait; see [`turns`](super::turns). A retry soon can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("too many plans at once")]
pub struct Crowded;

/// Why there is no plan. Nothing of it is stored, except where [`Unavailable`] says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AssignError {
    #[error("there is no manifest for {0}")]
    NoManifest(Date),
    #[error("some drivers are not in the day's list")]
    UnknownDrivers(Vec<DriverId>),
    #[error(transparent)]
    Crowded(#[from] Crowded),
    /// Assignments up to the failure stay; a repeated request completes them.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Why a status is rejected. Nothing of it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("the driver does not have the package")]
    NoSuchAssignment,
    #[error("the status is final")]
    Final {
        /// The current status.
        status: Status,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum UpdateError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}
