//! What goes over the wire at the courier desk, and how it becomes the model. All that is wrong with events is told at once.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::model::{
    AddCourier, AddOrder, Courier, CourierId, DETAILS_CHARS_MAX, Event, NAME_CHARS_MAX, OrderId,
    Outcome, Whereabouts, Zone,
};
use super::super::store::Recorded;
use crate::http::Problem;
use crate::http::problem::FieldError;

/// Events of one request at most.
pub(super) const EVENTS_MAX: usize = 1000;
/// Mistakes that are told at most.
const MISTAKES_MAX: usize = 100;

/// One event, or a list of up to 1,000 of them. Only described by this; they are read one by one.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what is read field by field")]
pub(super) enum NewEvents {
    /// Of a courier.
    Courier(NewCourier),
    /// Of an order.
    Order(NewOrder),
    /// Several, one after the other.
    Several(Vec<NewEvent>),
}

/// An event of a courier or of an order.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what is read field by field")]
pub(super) enum NewEvent {
    /// Of a courier.
    Courier(NewCourier),
    /// Of an order.
    Order(NewOrder),
}

/// How a courier is from now on.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct NewCourier {
    courier_id: Uuid,
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// N, S, E or W.
    #[schema(example = "S")]
    zone: String,
    /// Whether they take further orders.
    is_available: bool,
}

/// An order that needs a courier.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct NewOrder {
    order_id: Uuid,
    #[schema(max_length = 10_000)]
    details: String,
    /// N, S, E or W.
    #[schema(example = "S")]
    zone: String,
    /// RFC 3339.
    #[schema(value_type = String, format = DateTime)]
    added_at: Timestamp,
}

/// Reads the fields of one object, and tells what is wrong with them.
struct Fields<'a> {
    object: &'a Map<String, Value>,
    pointer: &'a str,
    mistakes: &'a mut Vec<FieldError>,
}

impl<'a> Fields<'a> {
    fn wrong<T>(&mut self, name: &str, detail: impl Into<String>) -> Option<T> {
        let pointer = if name.is_empty() {
            self.pointer.to_owned()
        } else {
            format!("{}/{name}", self.pointer)
        };
        if self.mistakes.len() < MISTAKES_MAX {
            self.mistakes.push(FieldError {
                pointer: Some(pointer),
                parameter: None,
                detail: detail.into(),
            });
        }
        None
    }

    fn get(&mut self, name: &str) -> Option<&'a Value> {
        let value = self.object.get(name);
        if value.is_none() {
            return self.wrong(name, "This field is missing.");
        }
        value
    }

    fn id(&mut self, name: &str) -> Option<Uuid> {
        let id = self.get(name)?.as_str().and_then(|text| text.parse().ok());
        if id.is_some() {
            return id;
        }
        self.wrong(name, "It must be a UUID.")
    }

    fn text(&mut self, name: &str, least: usize, most: usize) -> Option<Box<str>> {
        let text = self.get(name)?.as_str();
        let fits = |text: &&str| (least..=most).contains(&text.chars().count());
        if let Some(text) = text.filter(fits) {
            return Some(text.into());
        }
        self.wrong(
            name,
            format!("It must be a text of {least} to {most} characters."),
        )
    }

    fn zone(&mut self, name: &str) -> Option<Zone> {
        let zone = self.get(name)?.as_str().and_then(Zone::parse);
        if zone.is_some() {
            return zone;
        }
        let known = Zone::ALL.map(Zone::as_str).join(", ");
        self.wrong(name, format!("The zones are {known}."))
    }

    fn flag(&mut self, name: &str) -> Option<bool> {
        match self.get(name)? {
            Value::Bool(flag) => Some(*flag),
            _ => self.wrong(name, "It must be true or false."),
        }
    }

    fn moment(&mut self, name: &str) -> Option<Timestamp> {
        let moment = self
            .get(name)?
            .as_str()
            .and_then(|text| text.parse::<Timestamp>().ok());
        // As precisely as it is kept.
        let moment =
            moment.and_then(|moment| Timestamp::from_microsecond(moment.as_microsecond()).ok());
        if moment.is_some() {
            return moment;
        }
        self.wrong(
            name,
            "A time is written as in RFC 3339, such as 2142-05-01T12:00:00Z.",
        )
    }

    fn event(&mut self) -> Option<Event> {
        let has = |name| self.object.contains_key(name);
        match (has("courierId"), has("orderId")) {
            (true, false) => {
                let (id, name) = (self.id("courierId"), self.text("name", 1, NAME_CHARS_MAX));
                let (zone, is_available) = (self.zone("zone"), self.flag("isAvailable"));
                Some(Event::Courier(AddCourier {
                    id: CourierId(id?),
                    name: name?,
                    zone: zone?,
                    is_available: is_available?,
                }))
            }
            (false, true) => {
                let (id, details) = (
                    self.id("orderId"),
                    self.text("details", 0, DETAILS_CHARS_MAX),
                );
                let (zone, added_at) = (self.zone("zone"), self.moment("addedAt"));
                Some(Event::Order(AddOrder {
                    id: OrderId(id?),
                    details: details?,
                    zone: zone?,
                    added_at: added_at?,
                }))
            }
            (false, false) => self.wrong(
                "",
                "It is no event: it has neither `courierId` nor `orderId`.",
            ),
            (true, true) => {
                self.wrong("", "It is no event: it has both `courierId` and `orderId`.")
            }
        }
    }
}

fn read_event(value: &Value, pointer: &str, mistakes: &mut Vec<FieldError>) -> Option<Event> {
    let Some(object) = value.as_object() else {
        mistakes.push(FieldError {
            pointer: Some(pointer.to_owned()),
            parameter: None,
            detail: "An event is an object.".to_owned(),
        });
        return None;
    };
    Fields {
        object,
        pointer,
        mistakes,
    }
    .event()
}

/// The events in a request.
///
/// # Errors
/// 422 with pointers, if any of them is not acceptable.
pub(super) fn events(body: &Value) -> Result<Vec<Event>, Problem> {
    let mut mistakes = Vec::new();
    let events: Vec<Event> = match body {
        Value::Array(list) if list.len() > EVENTS_MAX => {
            mistakes.push(FieldError {
                pointer: Some(String::new()),
                parameter: None,
                detail: format!("There may be {EVENTS_MAX} events at most."),
            });
            Vec::new()
        }
        Value::Array(list) => {
            let mut events = Vec::with_capacity(list.len());
            for (place, value) in list.iter().enumerate() {
                events.extend(read_event(value, &format!("/{place}"), &mut mistakes));
                if mistakes.len() >= MISTAKES_MAX {
                    break;
                }
            }
            events
        }
        value => read_event(value, "", &mut mistakes).into_iter().collect(),
    };
    if mistakes.is_empty() {
        Ok(events)
    } else {
        Err(Problem::invalid(mistakes))
    }
}

/// What an event came to.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct EventOutcome {
    /// assigned, parked, updated or duplicate.
    #[schema(example = "assigned")]
    outcome: &'static str,
    /// The order's courier, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    courier_id: Option<Uuid>,
    /// Of a courier: how many orders that had waited are theirs now.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    unparked: Option<u64>,
}

impl From<Outcome> for EventOutcome {
    fn from(outcome: Outcome) -> Self {
        let told = |outcome, courier_id, unparked| Self {
            outcome,
            courier_id,
            unparked,
        };
        match outcome {
            Outcome::Assigned(CourierId(id)) => told("assigned", Some(id), None),
            Outcome::Parked => told("parked", None, None),
            Outcome::Updated { unparked } => told("updated", None, Some(unparked)),
            Outcome::Duplicate(Whereabouts::With(CourierId(id))) => {
                told("duplicate", Some(id), None)
            }
            Outcome::Duplicate(Whereabouts::Parked) => told("duplicate", None, None),
        }
    }
}

/// How a courier is from now on; what is not said stays as it is.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what is read field by field")]
pub(super) struct CourierPatch {
    #[schema(min_length = 1, max_length = 200, required = false)]
    name: Option<String>,
    /// N, S, E or W.
    #[schema(example = "S", required = false)]
    zone: Option<String>,
    /// Whether they take further orders.
    #[schema(required = false)]
    available: Option<bool>,
}

/// A courier after a patch. A stranger's must say everything.
///
/// # Errors
/// 422 with pointers.
pub(super) fn patched(
    id: CourierId,
    patch: &Map<String, Value>,
    before: Option<Courier>,
) -> Result<AddCourier, Problem> {
    let mut mistakes = Vec::new();
    let mut fields = Fields {
        object: patch,
        pointer: "",
        mistakes: &mut mistakes,
    };
    let said = |name| patch.contains_key(name);
    let before = before.map(|before| before.said);
    let name = match &before {
        Some(before) if !said("name") => Some(before.name.clone()),
        _ => fields.text("name", 1, NAME_CHARS_MAX),
    };
    let zone = match &before {
        Some(before) if !said("zone") => Some(before.zone),
        _ => fields.zone("zone"),
    };
    let is_available = match &before {
        Some(before) if !said("available") => Some(before.is_available),
        _ => fields.flag("available"),
    };
    match (name, zone, is_available) {
        (Some(name), Some(zone), Some(is_available)) => Ok(AddCourier {
            id,
            name,
            zone,
            is_available,
        }),
        _ => Err(Problem::invalid(mistakes)),
    }
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
    /// Orders they were ever given; a newcomer may have begun with more (`couriers.join`).
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

/// Couriers, by their ids.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CourierList {
    pub(super) couriers: Vec<CourierState>,
}

/// Orders that wait for a courier.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ParkedOrders {
    /// By zone, the longest waiting first; 1,000 at most.
    orders: Vec<ParkedOrder>,
    /// How many there are.
    total: u64,
}

/// An order that waits for a courier.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ParkedOrder {
    order_id: Uuid,
    details: Box<str>,
    #[schema(example = "S")]
    zone: &'static str,
    #[schema(value_type = String, format = DateTime)]
    added_at: Timestamp,
}

impl ParkedOrders {
    pub(super) fn of(orders: Vec<AddOrder>, total: u64) -> Self {
        let order = |order: AddOrder| ParkedOrder {
            order_id: order.id.0,
            details: order.details,
            zone: order.zone.as_str(),
            added_at: order.added_at,
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

/// An event of the log.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LoggedEvent {
    /// Its place, from 1 on, growing.
    number: u64,
    /// When it was kept.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    #[schema(value_type = NewEvent)]
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
            at: recorded.at,
            event: recorded.event,
            outcome: recorded.outcome.into(),
        };
        Self {
            events: events.into_iter().map(logged).collect(),
            next,
        }
    }
}

/// Which order is asked for.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OrderQuery {
    pub(super) order_id: Option<String>,
}

/// Whose orders are asked for.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CourierQuery {
    pub(super) courier_id: Option<String>,
}

/// Which couriers are asked for.
#[derive(Debug, Deserialize)]
pub(super) struct ZoneQuery {
    pub(super) zone: Option<String>,
}

/// Which part of the log is asked for.
#[derive(Debug, Deserialize)]
pub(super) struct LogQuery {
    pub(super) after: Option<String>,
    pub(super) limit: Option<String>,
}

/// An answer of one word.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CourierDeskStatus {
    /// The word.
    #[schema(example = "ok")]
    pub(super) status: &'static str,
}
