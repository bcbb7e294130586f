//! The order line's errors, without HTTP.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use super::model::{Closed, OrderId, Stage};

/// Why an order was not placed.
#[derive(Debug, Error)]
pub enum PlaceError {
    /// The key was used for another order.
    #[error("the idempotency key was used with a different body, for order {id}")]
    KeyReused { id: OrderId },
    /// `orders.waiting_max` are in line.
    #[error("the line is full")]
    Full {
        /// By the crew's pace, if known.
        retry_after: Option<Duration>,
    },
    /// The staff have closed the line.
    #[error("no new orders are taken")]
    Closed(Arc<Closed>),
    #[error("the server is stopping")]
    Closing,
    /// The proxy sends the request to another server of the line.
    #[error("the request is handed over to another server")]
    HandedOver,
    /// The client's address was blocked, by another server of the line.
    #[error("the address is blocked")]
    Blocked { remaining: Duration },
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// A shared line's store does not answer. It may have been done, or will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the line's store does not answer")]
pub struct Unavailable;

/// Why an order was not cancelled.
#[derive(Debug, Error)]
pub enum CancelError {
    #[error("no such order")]
    Unknown,
    /// A barista has it, or it is ready.
    #[error("the order is {}", .stage.as_str())]
    TooLate { stage: Stage },
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Why an order was not finished.
#[derive(Debug, Error)]
pub enum FinishError {
    #[error("no such order")]
    Unknown,
    /// No barista ever had it, or it was cancelled.
    #[error("the order was never started: it is {}", .stage.as_str())]
    NotStarted { stage: Stage },
    /// Another attempt is current.
    #[error("attempt {current} is the current one")]
    Fenced { stage: Stage, current: u32 },
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Why a barista could not extend or release an order.
#[derive(Debug, Error)]
pub enum FenceError {
    #[error("no such order")]
    Unknown,
    #[error("the order is {}", .stage.as_str())]
    NotBrewing { stage: Stage },
    /// Another attempt is current.
    #[error("attempt {current} is the current one")]
    Fenced { stage: Stage, current: u32 },
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}
