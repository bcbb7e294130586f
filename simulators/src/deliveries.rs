//! The contract of deliveries as a drone sees it: what is sent, and what the answers mean.

pub mod model;

use hyper::{StatusCode, header::LOCATION};
use serde::Deserialize;
use serde_json::Value;

pub use self::model::{EventType, Model};
use crate::connection::Answer;

pub(crate) const IDEMPOTENCY_KEY: &str = "idempotency-key";
const IDEMPOTENCY_REPLAYED: &str = "idempotency-replayed";

/// An event to be sent. Sent again it is the same: its key says so.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    /// 1 to 128 characters of `[A-Za-z0-9._~-]`.
    pub(crate) delivery_id: String,
    pub(crate) kind: EventType,
    /// Unlike that of any other event; visible ASCII.
    pub(crate) key: String,
}

impl Event {
    pub(crate) fn path(&self) -> String {
        format!("/deliveries/{}/events", self.delivery_id)
    }

    pub(crate) fn body(&self) -> String {
        serde_json::json!({ "type": self.kind.name() }).to_string()
    }
}

/// A 201.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Acknowledgement {
    location: Option<String>,
    /// Null when it is not JSON.
    body: Value,
    /// Whether the server says that it has answered this key before.
    pub(crate) replayed: bool,
}

impl Acknowledgement {
    pub(crate) fn read(answer: &Answer) -> Option<Self> {
        (answer.status == StatusCode::CREATED).then(|| Self {
            location: answer.header(LOCATION.as_str()).map(str::to_owned),
            body: answer.value(),
            replayed: answer.header(IDEMPOTENCY_REPLAYED) == Some("true"),
        })
    }

    /// The event's place among those of its delivery, from 1.
    pub(crate) fn sequence(&self) -> Option<u64> {
        self.body["sequence"].as_u64()
    }

    /// Whether body and location name this event, and the body a time.
    pub(crate) fn names(&self, event: &Event) -> bool {
        let Some(sequence) = self.sequence() else {
            return false;
        };
        // The base URL may have a prefix that the server behind it knows or not.
        let place = format!("{}/{sequence}", event.path());
        let located = |location: &String| location.ends_with(&place);
        self.body["delivery_id"] == event.delivery_id.as_str()
            && self.body["type"] == event.kind.name()
            && self.body["received_at"].is_string()
            && self.location.as_ref().is_some_and(located)
    }

    /// Whether this is the same answer, whichever of them is the replay.
    pub(crate) fn says_the_same_as(&self, other: &Self) -> bool {
        (&self.location, &self.body) == (&other.location, &other.body)
    }
}

/// `GET /counts`.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Counts {
    /// Deliveries that have begun and not ended.
    pub(crate) ongoing: u64,
    /// Deliveries since the beginning of the server's data.
    pub(crate) total: u64,
}

/// `GET /deliveries/{id}/events`.
#[derive(Debug, Deserialize)]
pub(crate) struct History {
    pub(crate) delivery_id: String,
    pub(crate) ongoing: bool,
    pub(crate) events: Vec<HistoryEvent>,
}

/// A stored event.
#[derive(Debug, Deserialize)]
pub(crate) struct HistoryEvent {
    pub(crate) sequence: u64,
    /// Not parsed: an unknown type is a finding, not an unreadable answer.
    #[serde(rename = "type")]
    pub(crate) kind: String,
}
