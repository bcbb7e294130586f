//! What can go wrong at the order line, without HTTP.

use std::time::Duration;

use thiserror::Error;

use super::model::{OrderId, Stage};

/// Why an order was not placed.
#[derive(Debug, Error)]
pub enum PlaceError {
    /// The key was used for another order.
    #[error("the idempotency key was used with a different body, for order {id}")]
    KeyReused {
        /// The order it names.
        id: OrderId,
    },
    /// `orders.waiting_max` are in line.
    #[error("the line is full")]
    Full {
        /// When a place may be free, if the crew's pace is known.
        retry_after: Option<Duration>,
    },
    /// The shop closes.
    #[error("the shop is closing")]
    Closing,
}

/// Why an order was not cancelled.
#[derive(Debug, Error)]
pub enum CancelError {
    /// No such order, or no longer remembered.
    #[error("no such order")]
    Unknown,
    /// A barista has it, or it is ready.
    #[error("the order is {}", .stage.as_str())]
    TooLate {
        /// Where it stands.
        stage: Stage,
    },
}

/// Why an order was not finished.
#[derive(Debug, Error)]
pub enum FinishError {
    /// No such order, or no longer remembered.
    #[error("no such order")]
    Unknown,
    /// No barista ever had it, or it was cancelled.
    #[error("the order was never started: it is {}", .stage.as_str())]
    NotStarted {
        /// Where it stands.
        stage: Stage,
    },
    /// Another attempt is current.
    #[error("attempt {current} is the current one")]
    Fenced {
        /// Where the order stands.
        stage: Stage,
        /// The attempt that counts.
        current: u32,
    },
}

/// Why a barista could not extend or release an order.
#[derive(Debug, Error)]
pub enum FenceError {
    /// No such order, or no longer remembered.
    #[error("no such order")]
    Unknown,
    /// Nobody brews it.
    #[error("the order is {}", .stage.as_str())]
    NotBrewing {
        /// Where it stands.
        stage: Stage,
    },
    /// Another attempt is current.
    #[error("attempt {current} is the current one")]
    Fenced {
        /// Where the order stands.
        stage: Stage,
        /// The attempt that counts.
        current: u32,
    },
}
