//! The contract of packages as a sender sees it: what is sent, and what the answers mean.

pub mod model;

use std::fmt;

use hyper::{
    Method, StatusCode,
    header::{CONTENT_TYPE, LOCATION},
};
use jiff::{Timestamp, tz::Offset};
use serde_json::{Value, json};

pub use self::model::{Fate, Model};
use crate::connection::Answer;

/// What a recipient wants, by type.
pub type Preferences = model::Preferences<PackageType>;

/// What is in a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PackageType {
    Personal,
    Marketing,
}

impl PackageType {
    pub const ALL: [Self; 2] = [Self::Personal, Self::Marketing];

    /// As the contract writes it.
    pub fn name(self) -> &'static str {
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

impl Fate {
    pub const ALL: [Self; 2] = [Self::Delivered, Self::Dropped];

    /// As the contract writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Dropped => "dropped",
        }
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
#[derive(Debug, Clone, Copy)]
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

/// A package to be sent. Ids are 1 to 128 characters of `[A-Za-z0-9-]`.
#[derive(Debug, Clone)]
#[expect(clippy::struct_field_names, reason = "as the contract names it")]
pub(crate) struct Package {
    pub(crate) timestamp: Moment,
    /// A text, or a number that the server stores as text.
    pub(crate) sender_id: Value,
    pub(crate) recipient_id: String,
    pub(crate) package_id: String,
    pub(crate) kind: PackageType,
}

/// What a server need not tell.
const PRIVATE: [&str; 3] = ["sender_id", "recipient_id", "timestamp"];

impl Package {
    pub(crate) fn json(&self) -> Value {
        json!({
            "timestamp": self.timestamp.json(),
            "sender_id": self.sender_id,
            "recipient_id": self.recipient_id,
            "package_id": self.package_id,
            "package_type": self.kind.name(),
        })
    }

    /// The sender's id as the server stores it.
    pub(crate) fn sender(&self) -> String {
        let text = self.sender_id.as_str().map(str::to_owned);
        text.unwrap_or_else(|| self.sender_id.to_string())
    }

    /// The first field of `GET /packages/{id}` that is not as it was sent, or not as it was answered.
    pub(crate) fn difference(&self, fate: Fate, stored: &Value) -> Option<String> {
        let mut expected = self.json();
        expected["status"] = json!(fate.name());
        let is_same = |field: &str, sent: &Value| match (field, sent) {
            ("timestamp", _) => self.timestamp.is(&stored[field]),
            (_, Value::Number(number)) => stored[field] == number.to_string(),
            _ => stored[field] == *sent,
        };
        let fields = expected.as_object()?.iter();
        let mut wrong = fields.filter(|(field, sent)| {
            let is_private = PRIVATE.contains(&field.as_str()) && stored[*field].is_null();
            !is_private && !is_same(field, sent)
        });
        wrong
            .next()
            .map(|(field, _)| format!("{field} is {}", stored[field]))
    }
}

/// What a recipient wants, as of a time.
#[derive(Debug, Clone)]
pub(crate) struct Update {
    pub(crate) timestamp: Moment,
    pub(crate) recipient_id: String,
    /// Personal, marketing.
    pub(crate) takes: [bool; 2],
}

impl Update {
    pub(crate) fn json(&self) -> Value {
        json!({
            "timestamp": self.timestamp.json(),
            "recipient_id": self.recipient_id,
            "personal_preference": self.takes[0],
            "marketing_preference": self.takes[1],
        })
    }

    pub(crate) fn takes(&self) -> impl Iterator<Item = (PackageType, bool)> {
        PackageType::ALL.into_iter().zip(self.takes)
    }
}

/// A 200 or 201 to a package.
#[derive(Debug, Clone)]
pub(crate) struct Handled {
    /// Whether it was a 201: the server says that it has not seen the package before.
    pub(crate) created: bool,
    location: Option<String>,
    /// Null when it is not JSON.
    pub(crate) body: Value,
}

impl Handled {
    pub(crate) fn read(answer: &Answer) -> Option<Self> {
        let created = answer.status == StatusCode::CREATED;
        (created || answer.status == StatusCode::OK).then(|| Self {
            created,
            location: answer.header(LOCATION.as_str()).map(str::to_owned),
            body: answer.value(),
        })
    }

    pub(crate) fn fate(&self) -> Option<Fate> {
        Fate::ALL
            .into_iter()
            .find(|fate| self.body["status"] == fate.name())
    }

    pub(crate) fn is_mismatch(&self) -> bool {
        self.body["mismatch"] == true
    }

    /// Whether status, body and location agree with each other and name this package and a fate.
    pub(crate) fn names(&self, package: &Package) -> bool {
        // The base URL may have a prefix that the server behind it knows or not.
        let place = format!("/packages/{}", package.package_id);
        // For a token that may read several senders' packages, the query has the sender.
        let path = |location: &String| location.split('?').next().map(str::to_owned);
        let located = |location: &String| path(location).is_some_and(|path| path.ends_with(&place));
        self.body["package_id"] == package.package_id.as_str()
            && self.fate().is_some()
            && self.body["duplicate"] == !self.created
            && (!self.created || self.location.as_ref().is_some_and(located))
    }
}

/// A 200 to a preference; null when it is not JSON.
pub(crate) fn updated(answer: &Answer) -> Option<Value> {
    (answer.status == StatusCode::OK).then(|| answer.value())
}

/// Whether the server counts requests that it answers so as rejected.
pub(crate) fn is_rejection(status: StatusCode) -> bool {
    [400, 413, 415, 422].contains(&status.as_u16())
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

/// A rejection, which is what a malformed request must get: whether it is a problem+json.
pub(crate) fn rejected(answer: &Answer) -> Option<bool> {
    is_rejection(answer.status).then(|| {
        let content_type = answer.header(CONTENT_TYPE.as_str()).unwrap_or_default();
        content_type.starts_with("application/problem+json") && answer.value().is_object()
    })
}
