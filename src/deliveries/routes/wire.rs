//! What goes over the wire at the delivery desk, and how the model becomes it.

use garde::Validate;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::super::model::{self, Counts, Delivery, DeliveryId, EventType, History, KEY_BYTES_MAX};

/// What a drone reports.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", try_from = "serde_json::Value")]
pub(super) enum Type {
    ParcelCollected,
    TakenOff,
    Landed,
    Crashed,
    ParcelDelivered,
}

impl TryFrom<Value> for Type {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let mut types = EventType::ALL.into_iter();
        let found = types.find(|event_type| value == event_type.as_str());
        found.map(Self::from).ok_or_else(|| {
            let known = EventType::ALL.map(EventType::as_str);
            format!("The types are {}.", known.join(", "))
        })
    }
}

impl From<Type> for EventType {
    fn from(word: Type) -> Self {
        match word {
            Type::ParcelCollected => Self::ParcelCollected,
            Type::TakenOff => Self::TakenOff,
            Type::Landed => Self::Landed,
            Type::Crashed => Self::Crashed,
            Type::ParcelDelivered => Self::ParcelDelivered,
        }
    }
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

/// An event, as a drone sends it.
#[derive(Debug, Deserialize, Validate, ToSchema)]
pub(super) struct NewEvent {
    /// What happened.
    #[serde(rename = "type")]
    #[garde(skip)]
    pub(super) event_type: Type,
    /// By which the event is recognised when it is sent again; 1 to 255 bytes. An `Idempotency-Key` header wins over it.
    #[garde(length(bytes, min = 1, max = KEY_BYTES_MAX))]
    #[schema(min_length = 1, max_length = 255)]
    pub(super) event_id: Option<String>,
}

/// An event that is kept.
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
    pub(super) received_at: Timestamp,
}

impl KeptEvent {
    pub(super) fn of(delivery: &DeliveryId, event: &model::Event) -> Self {
        Self {
            delivery_id: delivery.to_string(),
            sequence: event.sequence,
            event_type: event.event_type.into(),
            received_at: event.received_at,
        }
    }
}

/// An event among those of its delivery.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ListedEvent {
    #[schema(minimum = 1)]
    sequence: u32,
    #[serde(rename = "type")]
    event_type: Type,
    #[schema(value_type = String, format = DateTime)]
    received_at: Timestamp,
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
            received_at: event.received_at,
        };
        Self {
            delivery_id: history.delivery.id.to_string(),
            state: history.delivery.state.into(),
            ongoing: history.delivery.is_ongoing(),
            events: history.events.into_iter().map(listed).collect(),
        }
    }
}

/// Where a delivery stands.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeliveryState {
    #[schema(example = "drone-7")]
    delivery_id: String,
    /// The type of the latest event.
    state: Type,
    /// Not in a final state.
    ongoing: bool,
    /// How many there are.
    #[schema(minimum = 1)]
    events: u32,
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    /// Ongoing, and silent for longer than `deliveries.stale_after`.
    stale: bool,
}

impl DeliveryState {
    /// `stale_from`: when it becomes stale, if it does.
    pub(super) fn of(delivery: &Delivery, stale_from: Option<Timestamp>, now: Timestamp) -> Self {
        Self {
            delivery_id: delivery.id.to_string(),
            state: delivery.state.into(),
            ongoing: delivery.is_ongoing(),
            events: delivery.events,
            started_at: delivery.started_at,
            updated_at: delivery.updated_at,
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

/// How many deliveries there are.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeliveryCounts {
    /// Not in a final state.
    ongoing: u64,
    /// Since the beginning, whether kept or not.
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
