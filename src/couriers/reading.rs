//! What is told, as JSON: read field by field, so that all that is wrong with it is told at once. Pure.

use jiff::Timestamp;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::model::{
    AddCourier, AddOrder, Assignment, CourierId, DETAILS_CHARS_MAX, Event, NAME_CHARS_MAX, OrderId,
    Zone,
};

/// Events of one list at most.
pub const EVENTS_MAX: usize = 1000;
/// Mistakes that are told at most.
const MISTAKES_MAX: usize = 100;

/// Something that is not acceptable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where, as a JSON pointer (RFC 6901).
    pub pointer: String,
    /// What is wrong there.
    pub detail: String,
}

/// One event.
///
/// # Errors
/// All that is wrong with it.
pub fn event(value: &Value) -> Result<Event, Vec<Mistake>> {
    one(value)
}

/// An assignment, told as it is told to others.
///
/// # Errors
/// All that is wrong with it.
pub fn assignment(value: &Value) -> Result<Assignment, Vec<Mistake>> {
    one(value)
}

/// One event, or a list of [`EVENTS_MAX`] at most.
///
/// # Errors
/// All that is wrong with any of them, up to some length.
pub fn events(value: &Value) -> Result<Vec<Event>, Vec<Mistake>> {
    let Value::Array(list) = value else {
        return Ok(vec![event(value)?]);
    };
    if list.len() > EVENTS_MAX {
        return Err(vec![Mistake {
            pointer: String::new(),
            detail: format!("There may be {EVENTS_MAX} events at most."),
        }]);
    }
    let mut mistakes = Vec::new();
    let mut events = Vec::with_capacity(list.len());
    for (place, value) in list.iter().enumerate() {
        events.extend(object(value, &format!("/{place}"), &mut mistakes));
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

/// How a courier is after a patch. What is not said stays as it was `before`; a stranger's must say everything.
///
/// # Errors
/// All that is wrong with it.
pub fn patched(
    id: CourierId,
    patch: &Map<String, Value>,
    before: Option<&AddCourier>,
) -> Result<AddCourier, Vec<Mistake>> {
    let mut mistakes = Vec::new();
    let mut fields = Fields {
        object: patch,
        pointer: "",
        mistakes: &mut mistakes,
    };
    let said = |name| patch.contains_key(name);
    let name = match before {
        Some(before) if !said("name") => Some(before.name.clone()),
        _ => fields.text("name", 1, NAME_CHARS_MAX),
    };
    let zone = match before {
        Some(before) if !said("zone") => Some(before.zone),
        _ => fields.zone("zone"),
    };
    let is_available = match before {
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
        _ => Err(mistakes),
    }
}

/// What is written as an object.
trait Written: Sized {
    /// What is said if it is none.
    const NO_OBJECT: &str;

    fn read(fields: &mut Fields<'_>) -> Option<Self>;
}

fn one<T: Written>(value: &Value) -> Result<T, Vec<Mistake>> {
    let mut mistakes = Vec::new();
    object(value, "", &mut mistakes).ok_or(mistakes)
}

fn object<T: Written>(value: &Value, pointer: &str, mistakes: &mut Vec<Mistake>) -> Option<T> {
    let Some(object) = value.as_object() else {
        mistakes.push(Mistake {
            pointer: pointer.to_owned(),
            detail: T::NO_OBJECT.to_owned(),
        });
        return None;
    };
    T::read(&mut Fields {
        object,
        pointer,
        mistakes,
    })
}

/// Reads the fields of one object, and tells what is wrong with them.
struct Fields<'a> {
    object: &'a Map<String, Value>,
    pointer: &'a str,
    mistakes: &'a mut Vec<Mistake>,
}

impl<'a> Fields<'a> {
    fn wrong<T>(&mut self, name: &str, detail: impl Into<String>) -> Option<T> {
        let pointer = if name.is_empty() {
            self.pointer.to_owned()
        } else {
            format!("{}/{name}", self.pointer)
        };
        if self.mistakes.len() < MISTAKES_MAX {
            let detail = detail.into();
            self.mistakes.push(Mistake { pointer, detail });
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
}

impl Written for Event {
    const NO_OBJECT: &str = "An event is an object.";

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let has = |name| fields.object.contains_key(name);
        match (has("courierId"), has("orderId")) {
            (true, false) => {
                let (id, name) = (
                    fields.id("courierId"),
                    fields.text("name", 1, NAME_CHARS_MAX),
                );
                let (zone, is_available) = (fields.zone("zone"), fields.flag("isAvailable"));
                Some(Self::Courier(AddCourier {
                    id: CourierId(id?),
                    name: name?,
                    zone: zone?,
                    is_available: is_available?,
                }))
            }
            (false, true) => {
                let (id, details) = (
                    fields.id("orderId"),
                    fields.text("details", 0, DETAILS_CHARS_MAX),
                );
                let (zone, added_at) = (fields.zone("zone"), fields.moment("addedAt"));
                Some(Self::Order(AddOrder {
                    id: OrderId(id?),
                    details: details?,
                    zone: zone?,
                    added_at: added_at?,
                }))
            }
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

impl Written for Assignment {
    const NO_OBJECT: &str = "An assignment is an object.";

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let (order, courier) = (fields.id("orderId"), fields.id("courierId"));
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
