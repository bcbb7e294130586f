//! The contract of deliveries as a drone sees it: what is sent, and what the answers mean.

use std::fmt;

use hyper::{
    Method, StatusCode,
    header::{HeaderValue, LOCATION},
};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    connection::{Address, Answer},
    resend::{self, Resender, Sent},
    shop::{Caller, Failure, read},
};

const IDEMPOTENCY_KEY: &str = "idempotency-key";
const IDEMPOTENCY_REPLAYED: &str = "idempotency-replayed";

/// The type of an event that a drone reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventType {
    ParcelCollected,
    TakenOff,
    Landed,
    Crashed,
    ParcelDelivered,
}

impl EventType {
    /// As the contract writes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ParcelCollected => "PARCEL_COLLECTED",
            Self::TakenOff => "TAKEN_OFF",
            Self::Landed => "LANDED",
            Self::Crashed => "CRASHED",
            Self::ParcelDelivered => "PARCEL_DELIVERED",
        }
    }

    /// Whether no event can follow.
    pub(crate) fn is_final(self) -> bool {
        matches!(self, Self::Crashed | Self::ParcelDelivered)
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An event to be sent. Sent again it is the same: its key says so.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    /// 1 to 128 characters of `[A-Za-z0-9._~-]`.
    pub(crate) delivery_id: String,
    pub(crate) kind: EventType,
    /// Unlike that of any other event; visible ASCII.
    pub(crate) key: String,
}

/// What the server made of an event; a 201 acknowledges it.
pub(crate) type Reply = resend::Reply<Acknowledgement>;

/// A 201, as it was.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Acknowledgement {
    pub(crate) location: Option<String>,
    /// Null when it is not JSON.
    pub(crate) body: Value,
    /// Whether the server says that it has answered this key before.
    pub(crate) replayed: bool,
}

impl Acknowledgement {
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
        let place = format!("/deliveries/{}/events/{sequence}", event.delivery_id);
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

impl Reply {
    fn of(answer: &Answer) -> Self {
        if answer.status != StatusCode::CREATED {
            return Self::unless_acknowledged(answer);
        }
        Self::Acknowledged {
            status: answer.status,
            answer: Acknowledgement {
                location: answer.header(LOCATION.as_str()).map(str::to_owned),
                body: read(answer).unwrap_or_default(),
                replayed: answer.header(IDEMPOTENCY_REPLAYED) == Some("true"),
            },
        }
    }
}

/// `GET /counts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct Counts {
    /// Deliveries that have begun and not ended.
    pub(crate) ongoing: u64,
    /// Deliveries since the beginning of the server's data.
    pub(crate) total: u64,
}

/// `GET /deliveries/{id}/events`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct History {
    pub(crate) delivery_id: String,
    pub(crate) ongoing: bool,
    pub(crate) events: Vec<HistoryEvent>,
}

/// An event as the server keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct HistoryEvent {
    pub(crate) sequence: u64,
    /// Not parsed: an unknown type is a finding, not an unreadable answer.
    #[serde(rename = "type")]
    pub(crate) kind: String,
}

/// A drone's link to the server: one connection, replaced when it has gone.
#[derive(Debug)]
pub(crate) struct Link(Caller);

impl Link {
    pub(crate) fn new(server: Address) -> Self {
        Self(Caller::new(server))
    }

    /// `POST /deliveries/{id}/events`, until it is acknowledged or there is no hope.
    pub(crate) async fn report(
        &mut self,
        event: &Event,
        resender: &mut Resender,
    ) -> Sent<Acknowledgement> {
        let path = format!("/deliveries/{}/events", event.delivery_id);
        let body = serde_json::json!({ "type": event.kind.name() }).to_string();
        let mut request = self.0.request(Method::POST, &path, Some(body.into()));
        let key = HeaderValue::from_str(&event.key).expect("a key is visible ASCII");
        request.headers_mut().insert(IDEMPOTENCY_KEY, key);
        resender.send(&mut self.0, &request, Reply::of).await
    }

    /// `GET /counts`, once.
    pub(crate) async fn counts(&mut self) -> Result<Counts, Failure> {
        let answer = self.0.call(Method::GET, "/counts").await?;
        match answer.status {
            StatusCode::OK => read(&answer),
            other => Err(Failure::Status(other)),
        }
    }

    /// `GET /deliveries/{id}/events`, once. None for a delivery that the server does not know or no longer keeps.
    pub(crate) async fn history(&mut self, delivery_id: &str) -> Result<Option<History>, Failure> {
        let path = format!("/deliveries/{delivery_id}/events");
        let answer = self.0.call(Method::GET, &path).await?;
        match answer.status {
            StatusCode::OK => read(&answer).map(Some),
            StatusCode::NOT_FOUND => Ok(None),
            other => Err(Failure::Status(other)),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use hyper::HeaderMap;
    use serde_json::json;

    use super::*;

    pub(crate) fn event(kind: EventType) -> Event {
        Event {
            delivery_id: "drone-1".to_owned(),
            kind,
            key: "drone-1-1".to_owned(),
        }
    }

    /// A proper answer to an event of `drone-1`.
    pub(crate) fn acknowledgement(kind: EventType, sequence: u64) -> Acknowledgement {
        Acknowledgement {
            location: Some(format!("/deliveries/drone-1/events/{sequence}")),
            body: json!({
                "delivery_id": "drone-1",
                "sequence": sequence,
                "type": kind.name(),
                "received_at": "2026-01-01T00:00:00Z",
            }),
            replayed: false,
        }
    }

    fn reply(status: u16, headers: &[(&'static str, &'static str)], body: &Value) -> Reply {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
        Reply::of(&Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers.collect::<HeaderMap>(),
            body: body.to_string().into(),
        })
    }

    #[test]
    fn an_acknowledgement_names_its_event_in_body_and_location() {
        let expected = acknowledgement(EventType::Landed, 3);
        let headers = [("location", "/deliveries/drone-1/events/3")];
        let Reply::Acknowledged { answer: read, .. } = reply(201, &headers, &expected.body) else {
            panic!("a 201 acknowledges")
        };
        assert_eq!(read, expected);
        assert!(read.names(&event(EventType::Landed)));
        assert!(!read.names(&event(EventType::Crashed)));
        let with_prefix = Acknowledgement {
            location: Some("/shop/deliveries/drone-1/events/3".to_owned()),
            ..read.clone()
        };
        assert!(with_prefix.names(&event(EventType::Landed)));
        for location in [None, Some("/deliveries/drone-1/events/4".to_owned())] {
            let wrong = Acknowledgement {
                location,
                ..read.clone()
            };
            assert!(!wrong.names(&event(EventType::Landed)), "{wrong:?}");
        }
        for field in ["delivery_id", "sequence", "type", "received_at"] {
            let mut wrong = read.clone();
            wrong.body[field] = Value::Null;
            assert!(!wrong.names(&event(EventType::Landed)), "{field}");
        }
    }

    #[test]
    fn a_replay_says_the_same_and_that_it_is_one() {
        let first = acknowledgement(EventType::Landed, 3);
        let headers = [
            ("location", "/deliveries/drone-1/events/3"),
            ("idempotency-replayed", "true"),
        ];
        let Reply::Acknowledged { answer: second, .. } = reply(201, &headers, &first.body) else {
            panic!("a 201 acknowledges")
        };
        assert!(second.replayed && second.says_the_same_as(&first));
        assert!(!second.says_the_same_as(&acknowledgement(EventType::Landed, 4)));
    }

    #[test]
    fn an_unwell_server_says_when_to_come_again() {
        for (headers, expected_s) in [
            (&[("retry-after", "7")][..], Some(7)),
            (&[("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT")], None),
            (&[], None),
        ] {
            let Reply::Later { retry_after, .. } = reply(503, headers, &Value::Null) else {
                panic!("a 503 is temporary")
            };
            assert_eq!(retry_after, expected_s.map(Duration::from_secs));
        }
    }

    #[test]
    fn a_refusal_tells_what_would_have_been_allowed() {
        let body = json!({ "title": "Conflict", "state": "LANDED", "allowed": ["TAKEN_OFF"] });
        let Reply::Refused { status, problem } = reply(409, &[], &body) else {
            panic!("a 409 is for good")
        };
        assert_eq!(status, StatusCode::CONFLICT);
        assert_eq!(
            problem,
            r#"Conflict, state "LANDED", allowed ["TAKEN_OFF"]"#
        );
        let no_problem = reply(200, &[], &Value::Null);
        assert!(matches!(no_problem, Reply::Refused { problem, .. } if problem.is_empty()));
    }
}
