//! The wire format of the courier desk. All mistakes of events are reported at once.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::error::PublishError;
use super::super::model::{
    AddCourier, AddOrder, Courier, CourierId, Event, Outcome, Whereabouts, ZoneSummary,
};
use super::super::reading;
use super::super::store::Recorded;
use crate::http::Problem;
use crate::http::responses::problems;
use crate::values::json::Mistake;
use crate::values::time::Moment;

/// One event, or a list of up to 1,000. Only for the API description.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only for the API description")]
pub(super) enum NewCourierEvents {
    Courier(NewCourier),
    Order(NewCourierOrder),
    Several(Vec<NewCourierEvent>),
}

/// An event of a courier or of an order.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only for the API description")]
pub(super) enum NewCourierEvent {
    Courier(NewCourier),
    Order(NewCourierOrder),
}

/// A courier's report: it replaces the previous one.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct NewCourier {
    courier_id: Uuid,
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// N, S, E or W.
    #[schema(example = "S", pattern = "^[NSEW]$")]
    zone: String,
    /// Whether they accept further orders.
    is_available: bool,
}

/// An order that needs a courier.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct NewCourierOrder {
    order_id: Uuid,
    #[schema(max_length = 10_000)]
    details: String,
    /// N, S, E or W.
    #[schema(example = "S", pattern = "^[NSEW]$")]
    zone: String,
    /// RFC 3339, to the microsecond; finer digits are truncated.
    #[schema(value_type = String, format = DateTime)]
    added_at: Timestamp,
}

/// # Errors
/// 422 with pointers to all mistakes.
pub(super) fn events(body: &Value) -> Result<Vec<Event>, Problem> {
    Ok(reading::events(body)?)
}

problems! {
    impl PublishError {
        422: "An event is invalid, and none was applied; or the topic refuses it, and the others were published",
        503: "The storage is busy or down; sent again, what was applied is a duplicate",
    }
}

/// 422 with pointers to events that the topic refuses, in a list or alone.
pub(super) fn not_published(error: PublishError, of_list: bool) -> Problem {
    let places = match error {
        PublishError::Unavailable(unavailable) => return unavailable.into(),
        PublishError::Refused(places) => places,
    };
    let mistakes = places.into_iter().map(|place| {
        let pointer = if of_list {
            format!("/{place}")
        } else {
            String::new()
        };
        Mistake::new(
            pointer,
            "The topic refuses this event; all others were published.",
        )
    });
    Problem::from(mistakes.collect::<Vec<_>>())
}

/// A request with one event.
impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Self {
        not_published(error, false)
    }
}

/// The outcome of an event.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct EventOutcome {
    /// assigned, parked, updated or duplicate; announced, if another process decides.
    #[schema(example = "assigned")]
    outcome: &'static str,
    /// The order's courier, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    courier_id: Option<Uuid>,
    /// Of a courier: how many parked orders they got.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    unparked: Option<u64>,
}

impl EventOutcome {
    /// Another process decides, after it received the event.
    pub(super) fn announced() -> Self {
        Self {
            outcome: "announced",
            courier_id: None,
            unparked: None,
        }
    }
}

impl From<Outcome> for EventOutcome {
    fn from(outcome: Outcome) -> Self {
        let outcome_of = |outcome, courier_id, unparked| Self {
            outcome,
            courier_id,
            unparked,
        };
        match outcome {
            Outcome::Assigned(CourierId(id)) => outcome_of("assigned", Some(id), None),
            Outcome::Parked => outcome_of("parked", None, None),
            Outcome::Updated { unparked } => outcome_of("updated", None, Some(unparked)),
            Outcome::Duplicate(Whereabouts::With(CourierId(id))) => {
                outcome_of("duplicate", Some(id), None)
            }
            Outcome::Duplicate(Whereabouts::Parked) => outcome_of("duplicate", None, None),
        }
    }
}

/// A change of a courier; missing fields stay as they are.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only for the API description")]
pub(super) struct CourierPatch {
    #[schema(min_length = 1, max_length = 200, required = false, nullable = false)]
    name: Option<String>,
    /// N, S, E or W.
    #[schema(
        example = "S",
        pattern = "^[NSEW]$",
        required = false,
        nullable = false
    )]
    zone: Option<String>,
    /// Whether they accept further orders.
    #[schema(required = false, nullable = false)]
    available: Option<bool>,
}

/// A courier after a patch; a new courier needs all fields.
///
/// # Errors
/// 422 with pointers.
pub(super) fn patched(
    id: CourierId,
    patch: &Value,
    before: Option<&Courier>,
) -> Result<AddCourier, Problem> {
    Ok(reading::patched(
        id,
        patch,
        before.map(|before| &before.said),
    )?)
}

/// A courier.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CourierState {
    courier_id: Uuid,
    name: Box<str>,
    #[schema(example = "S")]
    zone: &'static str,
    is_available: bool,
    /// Orders they were assigned so far; a newcomer may have started with more (`couriers.join`).
    count: u64,
}

impl From<Courier> for CourierState {
    fn from(courier: Courier) -> Self {
        Self {
            courier_id: courier.said.id.0,
            name: courier.said.name,
            zone: courier.said.zone.as_str(),
            is_available: courier.said.is_available,
            count: courier.count,
        }
    }
}

/// Couriers, by id.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CourierList {
    pub(super) couriers: Vec<CourierState>,
}

/// Parked orders.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ParkedOrders {
    /// By zone, the longest waiting first; at most 1,000.
    orders: Vec<ParkedOrder>,
    /// How many there are.
    total: u64,
}

/// A parked order.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ParkedOrder {
    order_id: Uuid,
    details: Box<str>,
    #[schema(example = "S")]
    zone: &'static str,
    #[schema(value_type = String, format = DateTime)]
    added_at: Moment,
}

impl ParkedOrders {
    pub(super) fn of(orders: Vec<AddOrder>, total: u64) -> Self {
        let order = |order: AddOrder| ParkedOrder {
            order_id: order.id.0,
            details: order.details,
            zone: order.zone.as_str(),
            added_at: order.added_at.into(),
        };
        Self {
            orders: orders.into_iter().map(order).collect(),
            total,
        }
    }
}

/// A part of the event log.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EventPage {
    events: Vec<LoggedEvent>,
    /// The `after` of the next page, if there may be one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next: Option<u64>,
}

/// An entry of the event log.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LoggedEvent {
    /// Its place, from 1 on, growing.
    number: u64,
    /// When it was stored.
    #[schema(value_type = String, format = DateTime)]
    at: Moment,
    #[schema(value_type = NewCourierEvent)]
    event: Event,
    #[serde(flatten)]
    outcome: EventOutcome,
}

impl EventPage {
    pub(super) fn of(events: Vec<Recorded>, limit: usize) -> Self {
        let next = events.last().filter(|_| events.len() == limit);
        let next = next.map(|recorded| recorded.number);
        let logged = |recorded: Recorded| LoggedEvent {
            number: recorded.number,
            at: recorded.at.into(),
            event: recorded.event,
            outcome: recorded.outcome.into(),
        };
        Self {
            events: events.into_iter().map(logged).collect(),
            next,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OrderQuery {
    pub(super) order_id: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CourierQuery {
    pub(super) courier_id: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ZoneQuery {
    pub(super) zone: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct LogQuery {
    pub(super) after: Option<String>,
    pub(super) limit: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CourierDeskStatus {
    #[schema(example = "ok")]
    pub(super) status: &'static str,
}

/// The couriers and the parked orders of a zone.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ZoneState {
    #[schema(example = "S")]
    zone: &'static str,
    /// Couriers who accept orders.
    available: u64,
    unavailable: u64,
    /// Orders that its couriers were assigned so far, and the counts with which they started.
    given: u64,
    /// The least that an available courier has.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    min: Option<u64>,
    /// The most.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    max: Option<u64>,
    /// Orders that wait for a courier.
    parked: u64,
    /// When the longest waiting one was placed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = DateTime, nullable = false)]
    oldest_parked_at: Option<Moment>,
}

impl From<ZoneSummary> for ZoneState {
    fn from(summary: ZoneSummary) -> Self {
        Self {
            zone: summary.zone.as_str(),
            available: summary.available,
            unavailable: summary.unavailable,
            given: summary.given,
            min: summary.least,
            max: summary.most,
            parked: summary.parked,
            oldest_parked_at: summary.oldest_parked.map(Moment::from),
        }
    }
}

/// All zones.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ZoneList {
    pub(super) zones: Vec<ZoneState>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_the_topic_refuses_is_named_by_its_place_in_the_request() {
        for (of_list, pointer) in [(true, "/7"), (false, "")] {
            let problem = not_published(PublishError::Refused(vec![7]), of_list);
            let problem = serde_json::to_value(&problem).unwrap();
            assert_eq!(problem["status"], 422);
            assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
        }
    }
}
