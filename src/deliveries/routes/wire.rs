//! The wire format of the delivery desk.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::model::{self, Counts, Delivery, DeliveryId, EventType, History, KEY_BYTES_MAX};
use crate::values::id;
use crate::values::json::{Fields, Read};
use crate::values::time::Moment;

/// A drone's report.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum Type {
    ParcelCollected,
    TakenOff,
    Landed,
    Crashed,
    ParcelDelivered,
}

impl From<EventType> for Type {
    fn from(event_type: EventType) -> Self {
        match event_type {
            EventType::ParcelCollected => Self::ParcelCollected,
            EventType::TakenOff => Self::TakenOff,
            EventType::Landed => Self::Landed,
            EventType::Crashed => Self::Crashed,
            EventType::ParcelDelivered => Self::ParcelDelivered,
        }
    }
}

/// An event to be reported.
#[derive(Debug, ToSchema)]
pub(super) struct NewEvent {
    /// What happened.
    #[schema(value_type = Type, rename = "type")]
    pub(super) event_type: EventType,
    /// Identifies a repeated event; 1 to 255 bytes, no control characters. An `Idempotency-Key` header takes precedence.
    #[schema(min_length = 1, max_length = 255)]
    pub(super) event_id: Option<String>,
}

impl Read for NewEvent {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let event_type = fields.word("type", EventType::parse, || {
            let known = EventType::ALL.map(EventType::as_str);
            format!("The types are {}.", known.join(", "))
        });
        let event_id = fields.maybe("event_id", |fields| {
            let detail = || {
                format!("It must be a text of 1 to {KEY_BYTES_MAX} bytes, no control characters.")
            };
            fields.word("event_id", event_id, detail)
        });
        Some(Self {
            event_type: event_type?,
            event_id: event_id?,
        })
    }
}

fn event_id(text: &str) -> Option<String> {
    let id = id::parse(text, KEY_BYTES_MAX).filter(|id| id.len() <= KEY_BYTES_MAX);
    id.map(Cow::into_owned)
}

/// A stored event.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct KeptEvent {
    #[schema(example = "drone-7")]
    pub(super) delivery_id: String,
    /// Its place in the delivery, from 1.
    #[schema(minimum = 1)]
    pub(super) sequence: u32,
    #[serde(rename = "type")]
    pub(super) event_type: Type,
    #[schema(value_type = String, format = DateTime)]
    pub(super) received_at: Moment,
}

impl KeptEvent {
    pub(super) fn of(delivery: &DeliveryId, event: &model::Event) -> Self {
        Self {
            delivery_id: delivery.to_string(),
            sequence: event.sequence,
            event_type: event.event_type.into(),
            received_at: event.received_at.into(),
        }
    }
}

/// An event of a delivery.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ListedEvent {
    #[schema(minimum = 1)]
    sequence: u32,
    #[serde(rename = "type")]
    event_type: Type,
    #[schema(value_type = String, format = DateTime)]
    received_at: Moment,
}

/// A delivery with all its events.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeliveryEvents {
    #[schema(example = "drone-7")]
    delivery_id: String,
    /// The type of the latest event.
    state: Type,
    ongoing: bool,
    /// In order.
    events: Vec<ListedEvent>,
}

impl From<History> for DeliveryEvents {
    fn from(history: History) -> Self {
        let listed = |event: model::Event| ListedEvent {
            sequence: event.sequence,
            event_type: event.event_type.into(),
            received_at: event.received_at.into(),
        };
        Self {
            delivery_id: history.delivery.id.to_string(),
            state: history.delivery.state.into(),
            ongoing: history.delivery.is_ongoing(),
            events: history.events.into_iter().map(listed).collect(),
        }
    }
}

/// A delivery's state.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeliveryState {
    #[schema(example = "drone-7")]
    delivery_id: String,
    /// The type of the latest event.
    state: Type,
    /// Not in a final state.
    ongoing: bool,
    /// Number of events.
    #[schema(minimum = 1)]
    events: u32,
    #[schema(value_type = String, format = DateTime)]
    started_at: Moment,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Moment,
    /// Ongoing, and without an event for longer than `deliveries.stale_after`.
    stale: bool,
}

impl DeliveryState {
    pub(super) fn of(delivery: &Delivery, stale_from: Option<Timestamp>, now: Timestamp) -> Self {
        Self {
            delivery_id: delivery.id.to_string(),
            state: delivery.state.into(),
            ongoing: delivery.is_ongoing(),
            events: delivery.events,
            started_at: delivery.started_at.into(),
            updated_at: delivery.updated_at.into(),
            stale: stale_from.is_some_and(|from| from <= now),
        }
    }
}

/// All ongoing deliveries.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OngoingDeliveries {
    /// Oldest first.
    pub(super) deliveries: Vec<DeliveryState>,
}

/// Number of deliveries.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeliveryCounts {
    /// Not in a final state.
    ongoing: u64,
    /// Since the beginning, evicted ones included.
    total: u64,
}

impl From<Counts> for DeliveryCounts {
    fn from(counts: Counts) -> Self {
        Self {
            ongoing: counts.ongoing,
            total: counts.total,
        }
    }
}
