//! Maps errors to problems.

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::Value;

use super::super::error::{RecordError, Refusal};
use super::super::model::EventType;
use crate::http::Problem;
use crate::http::responses::problems;

/// A delivery takes minutes.
const RETRY_ONGOING: Duration = Duration::from_secs(30);

pub(super) fn unknown_delivery() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "delivery-unknown",
        "No such delivery",
        "No event of this delivery was ever received, or it was evicted.",
    )
}

pub(super) fn unknown_event() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "event-unknown",
        "No such event",
        "The delivery has no event of this sequence, or it was evicted.",
    )
}

fn illegal(state: Option<EventType>, allowed: &[EventType]) -> Problem {
    let words: Vec<_> = allowed.iter().map(|allowed| allowed.as_str()).collect();
    let detail = match (state, words.as_slice()) {
        (None, [first, ..]) => format!("The delivery has not begun; it begins with {first}."),
        (Some(state), []) => format!("{} is final; nothing follows it.", state.as_str()),
        (state, words) => format!(
            "After {} only {} may follow.",
            state.map_or("nothing", EventType::as_str),
            words.join(", ")
        ),
    };
    Problem::new(
        StatusCode::CONFLICT,
        "event-out-of-order",
        "The event may not follow",
        detail,
    )
    .with(
        "state",
        state
            .map(EventType::as_str)
            .map_or(Value::Null, Value::from),
    )
    .with("allowed", words)
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Illegal { state, allowed } => illegal(state, &allowed),
            Refusal::KeyReused { before } => Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency-key-reused",
                "The key is taken",
                format!(
                    "This Idempotency-Key or event_id was used for {}; use a new one for a new event.",
                    before.as_str()
                ),
            ),
            Refusal::TooManyOngoing => Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "too-many-ongoing",
                "Too many deliveries are ongoing",
                "The maximum of ongoing deliveries is reached; others must end first.",
            )
            .retry_after(RETRY_ONGOING),
        }
    }
}

problems! {
    impl RecordError {
        409: "It may not follow; `state` and `allowed` say why",
        422: "An unknown type, an invalid id, or the key was used for another event",
        503: "Too many deliveries are ongoing, or the storage is busy or down",
    }
}

impl From<RecordError> for Problem {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Refused(refusal) => refusal.into(),
            RecordError::Unavailable(unavailable) => unavailable.into(),
        }
    }
}
