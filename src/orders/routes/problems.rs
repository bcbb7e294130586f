//! Maps the order line's errors to problems.

use std::time::Duration;

use axum::http::StatusCode;

use super::super::error::{CancelError, FenceError, FinishError, PlaceError, Unavailable};
use super::super::model::{Closed, Order};
use crate::flood::routes::purged;
use crate::http::Problem;
use crate::http::responses::problems;

problems! {
    impl PlaceError {
        // While its request is held.
        409: "The order was cancelled",
        422: "A field is not acceptable, or the key came with another body",
        503: "The line is full or closed, or the server is stopping",
    }

    impl Unavailable {
        503: "The line's store does not answer",
    }

    impl CancelError {
        404: "Unknown, or evicted",
        409: "Being brewed, or ready",
        503: "The line's store does not answer",
    }

    impl FinishError {
        404: "Unknown, or evicted",
        409: "Never started, or another attempt is current",
        503: "The line's store does not answer",
    }

    impl FenceError {
        404: "Unknown, or evicted",
        409: "Not being brewed, or another attempt is current",
        503: "The line's store does not answer",
    }
}

pub(super) fn unknown_order() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "order-unknown",
        "No such order",
        "The order does not exist, or was evicted after it was finished.",
    )
}

/// How long a client waits before it looks again whether the line is open.
const CLOSED_RETRY: Duration = Duration::from_secs(60);

fn no_orders_taken(closed: &Closed) -> Problem {
    let problem = Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "closed",
        "The line is closed",
        "No new orders are taken at the moment.",
    )
    .with("message", serde_json::json!(closed.message))
    .retry_after(CLOSED_RETRY);
    match closed.until {
        Some(until) => problem.with("until", until.to_string()),
        None => problem,
    }
}

fn conflict(
    slug: &'static str,
    title: &'static str,
    detail: String,
    state: &'static str,
) -> Problem {
    Problem::new(StatusCode::CONFLICT, slug, title, detail).with("state", state)
}

fn fenced(state: &'static str, current: u32) -> Problem {
    let detail = format!("The order has moved on: its current attempt is {current}.");
    conflict(
        "attempt-outdated",
        "Another attempt is current",
        detail,
        state,
    )
    .with("current_attempt", current)
}

impl From<Unavailable> for Problem {
    fn from(_: Unavailable) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "line-unavailable",
            "The line does not answer",
            "The store of the order line does not answer; try again in a moment. A report is not counted twice.",
        )
        .retry_after(Duration::from_secs(1))
    }
}

impl From<PlaceError> for Problem {
    fn from(error: PlaceError) -> Self {
        match error {
            PlaceError::KeyReused { .. } => Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency-key-reused",
                "The idempotency key is taken",
                "This Idempotency-Key was sent with a different body before; use a new key for a new order.",
            ),
            PlaceError::Full { retry_after } => Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "line-full",
                "The line is full",
                "The line has as many orders as it may have; try again later.",
            )
            .retry_after(retry_after.unwrap_or(Duration::from_secs(30))),
            PlaceError::Closed(closed) => no_orders_taken(&closed),
            PlaceError::Closing | PlaceError::HandedOver => Problem::stopping(),
            PlaceError::Blocked { remaining } => purged(remaining),
            PlaceError::Unavailable(unavailable) => unavailable.into(),
        }
    }
}

impl From<CancelError> for Problem {
    fn from(error: CancelError) -> Self {
        match error {
            CancelError::Unknown => unknown_order(),
            CancelError::Unavailable(unavailable) => unavailable.into(),
            CancelError::TooLate { stage } => {
                let state = stage.as_str();
                let detail = format!("Only a waiting order can be cancelled; this one is {state}.");
                conflict("too-late", "Too late to cancel", detail, state)
            }
        }
    }
}

impl From<FinishError> for Problem {
    fn from(error: FinishError) -> Self {
        match error {
            FinishError::Unknown => unknown_order(),
            FinishError::NotStarted { stage } => {
                let state = stage.as_str();
                let detail = format!("No barista has started this order; it is {state}.");
                conflict("not-started", "The order was never started", detail, state)
            }
            FinishError::Fenced { stage, current } => fenced(stage.as_str(), current),
            FinishError::Unavailable(unavailable) => unavailable.into(),
        }
    }
}

impl From<FenceError> for Problem {
    fn from(error: FenceError) -> Self {
        match error {
            FenceError::Unknown => unknown_order(),
            FenceError::NotBrewing { stage } => {
                let state = stage.as_str();
                let detail =
                    format!("Only an order that is being brewed has a lease; this one is {state}.");
                conflict(
                    "not-brewing",
                    "The order is not being brewed",
                    detail,
                    state,
                )
            }
            FenceError::Fenced { stage, current } => fenced(stage.as_str(), current),
            FenceError::Unavailable(unavailable) => unavailable.into(),
        }
    }
}

pub(super) fn cancelled(order: &Order) -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "order-cancelled",
        "The order was cancelled",
        "The order was cancelled before it was ready.",
    )
    .with("order_id", order.id.to_string())
    .with("state", order.stage.as_str())
}
