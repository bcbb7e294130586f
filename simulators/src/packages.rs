//! The contract of packages as a sender sees it: what is sent, and what the answers mean.

use std::{fmt, net::Ipv4Addr};

use hyper::{
    Method, StatusCode,
    header::{CONTENT_TYPE, HeaderValue, LOCATION},
};
use jiff::{Timestamp, tz::Offset};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    connection::{Address, Answer},
    resend::{Reply, Resender, Sent},
    shop::{Caller, Failure, read},
};

/// What is in a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PackageType {
    Personal,
    Marketing,
}

impl PackageType {
    /// As the contract writes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Personal => "personal",
            Self::Marketing => "marketing",
        }
    }

    pub(crate) fn other(self) -> Self {
        match self {
            Self::Personal => Self::Marketing,
            Self::Marketing => Self::Personal,
        }
    }
}

/// What became of a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Delivered,
    Dropped,
}

impl Fate {
    /// As the contract writes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Dropped => "dropped",
        }
    }

    /// What a body's `status` says; none when it is neither.
    fn of(body: &Value) -> Option<Self> {
        let fates = [Self::Delivered, Self::Dropped];
        fates.into_iter().find(|fate| body["status"] == fate.name())
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A whole second, in one of the forms that the contract accepts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// Seconds since 1970; those that a [`Timestamp`] has.
    pub(crate) second: i64,
    pub(crate) form: Form,
}

/// How a time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    UnixSeconds,
    Utc,
    /// RFC 3339 as well, two hours east.
    WithOffset,
}

impl Form {
    pub(crate) const ALL: [Self; 3] = [Self::UnixSeconds, Self::Utc, Self::WithOffset];
}

impl Moment {
    fn json(self) -> Value {
        let time = Timestamp::from_second(self.second).unwrap_or_default();
        match self.form {
            Form::UnixSeconds => json!(self.second),
            Form::Utc => json!(time.to_string()),
            Form::WithOffset => json!(time.display_with_offset(Offset::constant(2)).to_string()),
        }
    }

    /// Whether this text or number is the same time, in whichever form.
    fn is(self, written: &Value) -> bool {
        let second = match written {
            Value::String(text) => text.parse().ok().map(Timestamp::as_second),
            other => other.as_i64(),
        };
        second == Some(self.second)
    }
}

/// Who sends a package: an id that is text, or a number that the server keeps as text.
#[derive(Debug, Clone)]
pub(crate) enum SenderId {
    Text(String),
    Number(u64),
}

impl SenderId {
    fn json(&self) -> Value {
        match self {
            Self::Text(text) => json!(text),
            Self::Number(number) => json!(number),
        }
    }
}

impl fmt::Display for SenderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

/// A package to be sent. Ids are 1 to 128 characters of `[A-Za-z0-9-]`.
#[derive(Debug, Clone)]
#[expect(clippy::struct_field_names, reason = "as the contract names it")]
pub(crate) struct Package {
    pub(crate) timestamp: Moment,
    pub(crate) sender: SenderId,
    pub(crate) recipient_id: String,
    pub(crate) package_id: String,
    pub(crate) kind: PackageType,
}

impl Package {
    pub(crate) fn json(&self) -> Value {
        json!({
            "timestamp": self.timestamp.json(),
            "sender_id": self.sender.json(),
            "recipient_id": self.recipient_id,
            "package_id": self.package_id,
            "package_type": self.kind.name(),
        })
    }
}

/// What a recipient wants, as of a time.
#[derive(Debug, Clone)]
pub(crate) struct Update {
    pub(crate) timestamp: Moment,
    pub(crate) recipient_id: String,
    pub(crate) personal: bool,
    pub(crate) marketing: bool,
}

impl Update {
    pub(crate) fn json(&self) -> Value {
        json!({
            "timestamp": self.timestamp.json(),
            "recipient_id": self.recipient_id,
            "personal_preference": self.personal,
            "marketing_preference": self.marketing,
        })
    }
}

/// A 200 or 201 to a package.
#[derive(Debug, Clone)]
pub(crate) struct Handled {
    /// Whether it was a 201: the server says that it has not seen the package before.
    pub(crate) created: bool,
    pub(crate) location: Option<String>,
    /// Null when it is not JSON.
    pub(crate) body: Value,
}

impl Handled {
    pub(crate) fn fate(&self) -> Option<Fate> {
        Fate::of(&self.body)
    }

    pub(crate) fn is_mismatch(&self) -> bool {
        self.body["mismatch"] == true
    }

    /// Whether status, body and location agree with each other and name this package and a fate.
    pub(crate) fn names(&self, package: &Package) -> bool {
        // The base URL may have a prefix that the server behind it knows or not.
        let place = format!("/packages/{}", package.package_id);
        let located = |location: &String| location.ends_with(&place);
        self.body["package_id"] == package.package_id.as_str()
            && self.fate().is_some()
            && self.body["duplicate"] == !self.created
            && (!self.created || self.location.as_ref().is_some_and(located))
    }
}

impl Reply<Handled> {
    fn of(answer: &Answer) -> Self {
        let status = answer.status;
        match status {
            StatusCode::OK | StatusCode::CREATED => Self::Acknowledged {
                status,
                answer: Handled {
                    created: status == StatusCode::CREATED,
                    location: answer.header(LOCATION.as_str()).map(str::to_owned),
                    body: read(answer).unwrap_or_default(),
                },
            },
            _ => Self::unless_acknowledged(answer),
        }
    }
}

/// A 200 to a preference; null when it is not JSON.
#[derive(Debug)]
pub(crate) struct Updated(pub(crate) Value);

impl Reply<Updated> {
    fn of(answer: &Answer) -> Self {
        match answer.status {
            StatusCode::OK => Self::Acknowledged {
                status: answer.status,
                answer: Updated(read(answer).unwrap_or_default()),
            },
            _ => Self::unless_acknowledged(answer),
        }
    }
}

/// Whether the server counts requests that it answers so as rejected.
pub(crate) fn is_rejection(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_REQUEST
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
            | StatusCode::UNPROCESSABLE_ENTITY
    )
}

/// A request that the server must not take.
#[derive(Debug, Clone)]
pub(crate) struct Malformed {
    /// What is wrong with it.
    pub(crate) name: String,
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
}

/// A rejection, which is what a malformed request must get.
#[derive(Debug)]
pub(crate) struct Rejected {
    pub(crate) is_problem: bool,
}

impl Reply<Rejected> {
    fn of(answer: &Answer) -> Self {
        let status = answer.status;
        if !is_rejection(status) {
            return Self::unless_acknowledged(answer);
        }
        let content_type = answer.header(CONTENT_TYPE.as_str()).unwrap_or_default();
        let is_object = read(answer).is_ok_and(|body: Value| body.is_object());
        Self::Acknowledged {
            status,
            answer: Rejected {
                is_problem: content_type.starts_with("application/problem+json") && is_object,
            },
        }
    }
}

/// `GET /statistics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub(crate) struct Statistics {
    pub(crate) packages_delivered: u64,
    pub(crate) packages_dropped: u64,
    /// Malformed requests to `POST /packages` and `PUT /preferences`.
    pub(crate) requests_rejected: u64,
    pub(crate) by_type: ByType,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub(crate) struct ByType {
    pub(crate) personal: Fates,
    pub(crate) marketing: Fates,
}

/// Packages by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub(crate) struct Fates {
    pub(crate) delivered: u64,
    pub(crate) dropped: u64,
}

/// `GET /preferences/{recipient_id}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Preferences {
    pub(crate) recipient_id: String,
    pub(crate) personal_preference: bool,
    pub(crate) marketing_preference: bool,
}

/// `GET /packages/{package_id}`, as it is.
#[derive(Debug)]
pub(crate) struct Stored(pub(crate) Value);

/// What a server may keep to itself.
const PRIVATE: [&str; 2] = ["sender_id", "recipient_id"];

impl Stored {
    /// What of it is not as it was sent, or not as it was answered. A server need not tell who sent it to whom and when.
    pub(crate) fn difference(&self, package: &Package, fate: Fate) -> Option<&'static str> {
        let Self(body) = self;
        let fields = [
            ("package_id", package.package_id.clone()),
            ("sender_id", package.sender.to_string()),
            ("recipient_id", package.recipient_id.clone()),
            ("package_type", package.kind.name().to_owned()),
            ("status", fate.name().to_owned()),
        ];
        let wrong = fields
            .into_iter()
            .filter(|(field, _)| !(PRIVATE.contains(field) && body[*field].is_null()))
            .find(|(field, sent)| body[*field] != sent.as_str());
        match wrong {
            Some((field, _)) => Some(field),
            None if body["timestamp"].is_null() => None,
            None if package.timestamp.is(&body["timestamp"]) => None,
            None => Some("timestamp"),
        }
    }
}

/// A sender's link to the server: one connection, replaced when it has gone.
#[derive(Debug)]
pub(crate) struct Link(Caller);

impl Link {
    pub(crate) fn new(server: Address) -> Self {
        Self(Caller::new(server))
    }

    /// It comes from this address of ours.
    pub(crate) fn coming_from(self, from: Option<Ipv4Addr>) -> Self {
        Self(self.0.coming_from(from))
    }

    /// `POST /packages`, until it is acknowledged or there is no hope.
    pub(crate) async fn send(
        &mut self,
        package: &Package,
        resender: &mut Resender,
    ) -> Sent<Handled> {
        let body = package.json().to_string();
        let request = self.0.request(Method::POST, "/packages", Some(body.into()));
        let meaning = Reply::<Handled>::of;
        resender.send(&mut self.0, &request, meaning).await
    }

    /// `PUT /preferences`, until it is acknowledged or there is no hope.
    pub(crate) async fn update(
        &mut self,
        update: &Update,
        resender: &mut Resender,
    ) -> Sent<Updated> {
        let body = Some(update.json().to_string().into());
        let request = self.0.request(Method::PUT, "/preferences", body);
        let meaning = Reply::<Updated>::of;
        resender.send(&mut self.0, &request, meaning).await
    }

    /// Sends what the server must not take, until it is rejected or there is no hope of that.
    pub(crate) async fn send_malformed(
        &mut self,
        malformed: &Malformed,
        resender: &mut Resender,
    ) -> Sent<Rejected> {
        let body = Some(malformed.body.clone().into());
        let method = malformed.method.clone();
        let mut request = self.0.request(method, malformed.path, body);
        let content_type = HeaderValue::from_static(malformed.content_type);
        request.headers_mut().insert(CONTENT_TYPE, content_type);
        let meaning = Reply::<Rejected>::of;
        resender.send(&mut self.0, &request, meaning).await
    }

    /// `GET /statistics`, once.
    pub(crate) async fn statistics(&mut self) -> Result<Statistics, Failure> {
        self.get("/statistics").await
    }

    /// `GET /preferences/{recipient_id}`, once.
    pub(crate) async fn preferences(&mut self, recipient_id: &str) -> Result<Preferences, Failure> {
        self.get(&format!("/preferences/{recipient_id}")).await
    }

    /// `GET /packages/{package_id}`, once. None for a package that the server does not know.
    pub(crate) async fn package(&mut self, package_id: &str) -> Result<Option<Stored>, Failure> {
        match self.get(&format!("/packages/{package_id}")).await {
            Ok(body) => Ok(Some(Stored(body))),
            Err(Failure::Status(StatusCode::NOT_FOUND)) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    async fn get<T: serde::de::DeserializeOwned>(&mut self, path: &str) -> Result<T, Failure> {
        let answer = self.0.call(Method::GET, path).await?;
        match answer.status {
            StatusCode::OK => read(&answer),
            other => Err(Failure::Status(other)),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use hyper::HeaderMap;

    use super::*;

    pub(crate) fn package(kind: PackageType) -> Package {
        Package {
            timestamp: Moment {
                second: 1_700_000_000,
                form: Form::Utc,
            },
            sender: SenderId::Number(17),
            recipient_id: "recipient-1".to_owned(),
            package_id: "package-1".to_owned(),
            kind,
        }
    }

    /// A proper answer to `package-1`.
    pub(crate) fn handled(created: bool, fate: Fate) -> Handled {
        Handled {
            created,
            location: created.then(|| "/packages/package-1".to_owned()),
            body: json!({ "package_id": "package-1", "status": fate.name(), "duplicate": !created }),
        }
    }

    fn answer(status: u16, content_type: &'static str, body: &Value) -> Answer {
        let content_type = HeaderValue::from_static(content_type);
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::from_iter([(CONTENT_TYPE, content_type)]),
            body: body.to_string().into(),
        }
    }

    #[test]
    fn a_time_is_the_same_in_every_form() {
        let written = Form::ALL.map(|form| {
            let second = 1_700_000_000;
            Moment { second, form }.json()
        });
        let [unix, utc, with_offset] = &written;
        assert_eq!(*unix, 1_700_000_000);
        assert_eq!(*utc, "2023-11-14T22:13:20Z");
        assert_eq!(*with_offset, "2023-11-15T00:13:20+02:00");
        let [same, other] = [1_700_000_000, 1_700_000_001].map(|second| Moment {
            second,
            form: Form::Utc,
        });
        assert!(written.iter().all(|written| same.is(written)));
        assert!(!written.iter().any(|written| other.is(written)));
        assert!(!same.is(&Value::Null));
    }

    #[test]
    fn an_answer_to_a_package_must_agree_with_itself() {
        let package = package(PackageType::Personal);
        for created in [true, false] {
            let proper = handled(created, Fate::Dropped);
            assert!(proper.names(&package), "{proper:?}");
            for (field, wrong) in [
                ("package_id", json!("package-2")),
                ("status", json!("lost")),
                ("duplicate", json!(created)),
                ("duplicate", Value::Null),
            ] {
                let mut other = proper.clone();
                other.body[field] = wrong;
                assert!(!other.names(&package), "{other:?}");
            }
            // Only a new package has a location.
            let without = Handled {
                location: None,
                ..proper
            };
            assert_eq!(without.names(&package), !created);
        }
    }

    #[test]
    fn a_malformed_request_must_be_rejected_with_a_problem() {
        let problem = json!({ "title": "No" });
        for (status, content_type, expected) in [
            (422, "application/problem+json", Some(true)),
            (415, "application/problem+json; charset=utf-8", Some(true)),
            (400, "application/json", Some(false)),
            (201, "application/json", None),
            (404, "application/problem+json", None),
        ] {
            let reply = Reply::<Rejected>::of(&answer(status, content_type, &problem));
            let is_problem = match reply {
                Reply::Acknowledged { answer, .. } => Some(answer.is_problem),
                _ => None,
            };
            assert_eq!(is_problem, expected, "{status} {content_type}");
        }
    }

    #[test]
    fn a_package_must_be_kept_as_it_was_sent() {
        let package = package(PackageType::Marketing);
        let mut kept = Stored(package.json());
        kept.0["sender_id"] = json!("17");
        kept.0["status"] = json!("dropped");
        assert_eq!(kept.difference(&package, Fate::Dropped), None);
        assert_eq!(kept.difference(&package, Fate::Delivered), Some("status"));
        for field in ["sender_id", "recipient_id", "package_type", "timestamp"] {
            let mut other = Stored(kept.0.clone());
            other.0[field] = json!("other");
            assert_eq!(other.difference(&package, Fate::Dropped), Some(field));
        }
        let stored = json!({"package_id": package.package_id, "package_type": "marketing", "status": "dropped"});
        assert_eq!(Stored(stored).difference(&package, Fate::Dropped), None);
        let silent = json!({"package_id": package.package_id, "status": "dropped"});
        let difference = Stored(silent).difference(&package, Fate::Dropped);
        assert_eq!(difference, Some("package_type"));
    }
}
