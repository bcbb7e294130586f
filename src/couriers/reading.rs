//! Events and assignments as JSON: parsed field by field, so that all mistakes are reported at once. Pure.

use serde_json::Value;
use uuid::Uuid;

use super::model::{
    AddCourier, AddOrder, Assignment, CourierId, DETAILS_CHARS_MAX, Event, NAME_CHARS_MAX, OrderId,
    Zone,
};
use crate::values::json::{self, Fields, MISTAKES_MAX, Mistake, Read};

/// Most events of a list.
pub const EVENTS_MAX: usize = 1000;

/// # Errors
/// All its mistakes.
pub fn event(value: &Value) -> Result<Event, Vec<Mistake>> {
    json::get(value)
}

/// A published assignment.
///
/// # Errors
/// All its mistakes.
pub fn assignment(value: &Value) -> Result<Assignment, Vec<Mistake>> {
    json::get(value)
}

/// One event, or a list of at most [`EVENTS_MAX`].
///
/// # Errors
/// The mistakes of all events, up to a limit.
pub fn events(value: &Value) -> Result<Vec<Event>, Vec<Mistake>> {
    let Value::Array(list) = value else {
        return Ok(vec![event(value)?]);
    };
    if list.len() > EVENTS_MAX {
        let detail = format!("There may be {EVENTS_MAX} events at most.");
        return Err(vec![Mistake::new("", detail)]);
    }
    let mut mistakes = Vec::new();
    let mut events = Vec::with_capacity(list.len());
    for (place, value) in list.iter().enumerate() {
        let pointer = format!("/{place}");
        events.extend(Event::read(&mut Fields::of(value, &pointer, &mut mistakes)));
        if mistakes.len() >= MISTAKES_MAX {
            break;
        }
    }
    if mistakes.is_empty() {
        Ok(events)
    } else {
        Err(mistakes)
    }
}

/// A courier after a patch. Missing fields stay as they were `before`; a new courier needs all of them.
///
/// # Errors
/// All its mistakes.
pub fn patched(
    id: CourierId,
    patch: &Value,
    before: Option<&AddCourier>,
) -> Result<AddCourier, Vec<Mistake>> {
    json::all(patch, |fields| {
        let name = match before {
            Some(before) if !fields.has("name") => Some(before.name.clone()),
            _ => name(fields),
        };
        let zone = match before {
            Some(before) if !fields.has("zone") => Some(before.zone),
            _ => zone(fields),
        };
        let is_available = match before {
            Some(before) if !fields.has("available") => Some(before.is_available),
            _ => fields.flag("available"),
        };
        Some(AddCourier {
            id,
            name: name?,
            zone: zone?,
            is_available: is_available?,
        })
    })
}

fn uuid(fields: &mut Fields<'_>, name: &str) -> Option<Uuid> {
    let parse = |text: &str| text.parse().ok();
    fields.word(name, parse, || "It must be a UUID.".to_owned())
}

fn name(fields: &mut Fields<'_>) -> Option<Box<str>> {
    fields.text("name", 1..=NAME_CHARS_MAX).map(Box::from)
}

fn zone(fields: &mut Fields<'_>) -> Option<Zone> {
    fields.word("zone", Zone::parse, known_zones)
}

pub fn known_zones() -> String {
    format!("The zones are {}.", Zone::ALL.map(Zone::as_str).join(", "))
}

impl Read for Event {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        match (fields.has("courierId"), fields.has("orderId")) {
            (true, false) => {
                let (id, name) = (uuid(fields, "courierId"), name(fields));
                let (zone, is_available) = (zone(fields), fields.flag("isAvailable"));
                Some(Self::Courier(AddCourier {
                    id: CourierId(id?),
                    name: name?,
                    zone: zone?,
                    is_available: is_available?,
                }))
            }
            (false, true) => {
                let id = uuid(fields, "orderId");
                let details = fields.text("details", 0..=DETAILS_CHARS_MAX);
                let (zone, added_at) = (zone(fields), fields.time("addedAt", false));
                Some(Self::Order(AddOrder {
                    id: OrderId(id?),
                    details: details?.into(),
                    zone: zone?,
                    added_at: added_at?,
                }))
            }
            // That it is not an object is reported already.
            (false, false) if !fields.is_object() => None,
            (false, false) => fields.wrong(
                "",
                "It is no event: it has neither `courierId` nor `orderId`.",
            ),
            (true, true) => {
                fields.wrong("", "It is no event: it has both `courierId` and `orderId`.")
            }
        }
    }
}

impl Read for Assignment {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let (order, courier) = (uuid(fields, "orderId"), uuid(fields, "courierId"));
        Some(Self {
            order_id: OrderId(order?),
            courier_id: CourierId(courier?),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_assignment_is_read_as_it_is_written() {
        let assignment = Assignment {
            order_id: OrderId(Uuid::from_u128(1)),
            courier_id: CourierId(Uuid::from_u128(2)),
        };
        let written = serde_json::to_value(assignment).unwrap();
        assert_eq!(super::assignment(&written), Ok(assignment));
        let mistakes = super::assignment(&json!({"orderId": 7})).unwrap_err();
        let pointers: Vec<&str> = mistakes.iter().map(|it| it.pointer.as_str()).collect();
        assert_eq!(pointers, ["/orderId", "/courierId"]);
        assert!(super::assignment(&json!([])).is_err());
    }

    #[test]
    fn an_event_that_is_written_is_read_as_it_was() {
        let event = Event::Order(AddOrder {
            id: OrderId(Uuid::from_u128(1)),
            details: "Buy something".into(),
            zone: Zone::S,
            added_at: "2142-07-18T10:22:10.170682Z".parse().unwrap(),
        });
        let written = serde_json::to_value(&event).unwrap();
        assert_eq!(super::event(&written), Ok(event.clone()));
        assert_eq!(
            events(&json!([written, written])),
            Ok(vec![event.clone(), event])
        );
    }
}
