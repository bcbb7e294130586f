//! The HTTP contract of couriers as a client that reports events sees it: the requests, and what the answers mean.

use hyper::{Method, StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    connection::{Address, Answer},
    resend::{Reply, Resender, Sent},
    shop::{Caller, Failure, read},
};

/// A list of orders or couriers has no pages.
const ANSWER_MAX_BYTES: usize = 256 * 1024 * 1024;
/// Events of one request at most.
pub(crate) const EVENTS_MAX: usize = 1000;
/// Events of the log that are asked for at once.
const PAGE: usize = 1000;

/// A part of the town.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Zone {
    N,
    S,
    E,
    W,
}

impl Zone {
    pub(crate) const ALL: [Self; 4] = [Self::N, Self::S, Self::E, Self::W];
}

/// What is said of a courier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Courier {
    #[serde(rename = "courierId")]
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) zone: Zone,
    pub(crate) is_available: bool,
}

/// An order that needs a courier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Order {
    #[serde(rename = "orderId")]
    pub(crate) id: String,
    pub(crate) details: String,
    pub(crate) zone: Zone,
    /// To the microsecond, as the server stores it.
    pub(crate) added_at: Timestamp,
}

/// An event; its fields decide which variant it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Event {
    Courier(Courier),
    Order(Order),
}

impl Event {
    /// As it is sent.
    pub(crate) fn json(&self) -> String {
        serde_json::to_string(self).expect("an event is plain data")
    }
}

/// The kind of an event's outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Assigned,
    Parked,
    Updated,
    Duplicate,
}

/// The outcome of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Outcome {
    #[serde(rename = "outcome")]
    pub(crate) kind: Kind,
    /// The order's courier, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) courier_id: Option<String>,
    /// Orders that had waited and are given with this event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unparked: Option<u64>,
}

impl Outcome {
    pub(crate) fn of_order(kind: Kind, courier_id: Option<String>) -> Self {
        Self {
            kind,
            courier_id,
            unparked: None,
        }
    }

    pub(crate) fn updated(unparked: u64) -> Self {
        Self {
            kind: Kind::Updated,
            courier_id: None,
            unparked: Some(unparked),
        }
    }
}

/// An event of the log.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Recorded {
    pub(crate) number: u64,
    pub(crate) event: Event,
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
}

/// A page of the log.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Page {
    pub(crate) events: Vec<Recorded>,
    /// Where the log goes on, if it may.
    #[serde(default)]
    pub(crate) next: Option<u64>,
}

/// A courier as the shop shows them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Shown {
    #[serde(flatten)]
    pub(crate) latest: Courier,
    pub(crate) count: u64,
}

#[derive(Debug, Deserialize)]
struct Couriers {
    couriers: Vec<Shown>,
}

/// The orders that wait, as far as they are listed.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Parked {
    pub(crate) orders: Vec<Order>,
    /// How many there are.
    pub(crate) total: u64,
}

/// Where an order is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Whereabouts {
    With(String),
    Parked,
    /// The shop does not know the order.
    Unknown,
}

/// A 202 is an acknowledgement; none when it lacks the outcome of an event.
fn taken(answer: &Answer) -> Reply<Option<Vec<Outcome>>> {
    match answer.status {
        StatusCode::ACCEPTED => Reply::Acknowledged {
            status: answer.status,
            answer: read(answer).ok(),
        },
        _ => Reply::unless_acknowledged(answer),
    }
}

/// A link to the shop: one connection, replaced when it has gone.
#[derive(Debug)]
pub(crate) struct Link(Caller);

impl Link {
    pub(crate) fn new(shop: Address) -> Self {
        Self(Caller::new(shop).taking_answers_up_to(ANSWER_MAX_BYTES))
    }

    /// `POST /events` with this body, until it is acknowledged or there is no hope.
    pub(crate) async fn post(
        &mut self,
        body: String,
        resender: &mut Resender,
    ) -> Sent<Option<Vec<Outcome>>> {
        let request = self.0.request(Method::POST, "/events", Some(body.into()));
        resender.send(&mut self.0, &request, taken).await
    }

    /// `GET /courier`, once.
    pub(crate) async fn courier_of(&mut self, order: &str) -> Result<Whereabouts, Failure> {
        let path = format!("/courier?orderId={order}");
        let answer = self.0.call(Method::GET, &path).await?;
        match answer.status {
            StatusCode::OK => Ok(Whereabouts::With(read(&answer)?)),
            StatusCode::NOT_FOUND => {
                let problem: Value = read(&answer)?;
                match problem["state"].as_str() {
                    Some("parked") => Ok(Whereabouts::Parked),
                    Some("unknown") => Ok(Whereabouts::Unknown),
                    _ => Err(Failure::Unreadable),
                }
            }
            status => Err(Failure::Status(status)),
        }
    }

    /// `GET /orders`, once.
    pub(crate) async fn orders_of(&mut self, courier: &str) -> Result<Vec<String>, Failure> {
        self.get(&format!("/orders?courierId={courier}")).await
    }

    /// `GET /couriers`, once.
    pub(crate) async fn couriers(&mut self) -> Result<Vec<Shown>, Failure> {
        let Couriers { couriers } = self.get("/couriers").await?;
        Ok(couriers)
    }

    /// `GET /couriers/parked`, once.
    pub(crate) async fn parked(&mut self) -> Result<Parked, Failure> {
        self.get("/couriers/parked").await
    }

    /// `GET /couriers/events`, once: a page of the log.
    pub(crate) async fn events(&mut self, after: u64) -> Result<Page, Failure> {
        let path = format!("/couriers/events?after={after}&limit={PAGE}");
        self.get(&path).await
    }

    async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, Failure> {
        let answer = self.0.call(Method::GET, path).await?;
        match answer.status {
            StatusCode::OK => read(&answer),
            status => Err(Failure::Status(status)),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    pub(crate) fn courier(id: &str, zone: Zone, is_available: bool) -> Event {
        Event::Courier(Courier {
            id: id.to_owned(),
            name: "Ada".to_owned(),
            zone,
            is_available,
        })
    }

    /// Added at this second.
    pub(crate) fn order(id: &str, zone: Zone, second: i64) -> Event {
        Event::Order(Order {
            id: id.to_owned(),
            details: "two coffees".to_owned(),
            zone,
            added_at: Timestamp::from_second(second).unwrap(),
        })
    }

    #[test]
    fn events_are_told_apart_by_their_fields_and_read_as_they_are_written() {
        for event in [courier("a", Zone::N, true), order("b", Zone::W, 7)] {
            let read: Event = serde_json::from_str(&event.json()).unwrap();
            assert_eq!(read, event);
        }
        let written: Value = serde_json::from_str(&order("b", Zone::W, 7).json()).unwrap();
        let expected = json!({
            "orderId": "b", "details": "two coffees", "zone": "W", "addedAt": "1970-01-01T00:00:07Z",
        });
        assert_eq!(written, expected);
    }

    #[test]
    fn a_line_of_the_log_has_its_event_and_what_it_came_to() {
        let line = json!({
            "number": 7, "at": "2026-11-21T12:00:00Z", "outcome": "duplicate", "courierId": "a",
            "event": {"orderId": "b", "details": "", "zone": "E", "addedAt": "2026-11-21T12:00:00.000001Z"},
        });
        let read: Recorded = serde_json::from_value(line).unwrap();
        assert_eq!(read.number, 7);
        let expected = Outcome::of_order(Kind::Duplicate, Some("a".to_owned()));
        assert_eq!(read.outcome, expected);
        assert!(matches!(read.event, Event::Order(order) if order.id == "b"));
    }
}
