//! What goes over the wire at the package desk, and how it becomes the model. The fields of a request depend on the types
//! that are configured, so they are looked up one by one; all that is wrong is told at once.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::super::model::{
    ALWAYS_SAID, ID_CHARS_MAX, Id, Outcome, Package, PackageType, Processed, Sent, Statistics,
    Types, Update,
};
use crate::http::Problem;
use crate::http::problem::FieldError;

/// A package, as a sender sends it. Only described by this; it is read field by field.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what is read field by field")]
pub(super) struct NewPackage {
    /// RFC 3339, or seconds since 1970.
    #[schema(value_type = Moment)]
    timestamp: Timestamp,
    #[schema(value_type = Name)]
    sender_id: String,
    #[schema(value_type = Name)]
    recipient_id: String,
    #[schema(value_type = Name)]
    package_id: String,
    /// One of `packages.types`.
    #[schema(example = "personal")]
    package_type: String,
}

/// What a recipient takes, as they say it: a field for each of `packages.types`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what is read field by field")]
pub(super) struct NewPreferences {
    /// RFC 3339, or seconds since 1970. The latest word holds, in whatever order they arrive.
    #[schema(value_type = Moment)]
    timestamp: Timestamp,
    #[schema(value_type = Name)]
    recipient_id: String,
    personal_preference: bool,
    marketing_preference: bool,
}

/// A point in time.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what is read field by field")]
pub(super) enum Moment {
    /// RFC 3339.
    #[schema(value_type = String, format = DateTime, example = "2142-05-01T12:00:00Z")]
    Text(String),
    /// Seconds since 1970.
    Seconds(f64),
}

/// An id: 1 to 128 characters, or a number, which is kept as its decimal text.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what is read field by field")]
pub(super) enum Name {
    /// As it is.
    Text(NameText),
    /// A whole number.
    Number(i64),
}

/// 1 to 128 characters.
#[derive(Serialize, ToSchema)]
#[schema(min_length = 1, max_length = 128, example = "ada")]
pub(super) struct NameText(String);

/// Reads the fields of a request, and keeps what is wrong with them.
struct Fields<'a> {
    object: &'a Map<String, Value>,
    errors: Vec<FieldError>,
}

impl<'a> Fields<'a> {
    fn of(object: &'a Map<String, Value>) -> Self {
        Self {
            object,
            errors: Vec::new(),
        }
    }

    fn wrong<T>(&mut self, name: &str, detail: impl Into<String>) -> Option<T> {
        self.errors.push(FieldError {
            pointer: Some(format!("/{name}")),
            parameter: None,
            detail: detail.into(),
        });
        None
    }

    fn get(&mut self, name: &str) -> Option<&'a Value> {
        match self.object.get(name) {
            None | Some(Value::Null) => self.wrong(name, "This field is missing."),
            Some(value) => Some(value),
        }
    }

    fn id(&mut self, name: &str) -> Option<Id> {
        let id = match self.get(name)? {
            Value::String(text) => Id::parse(text),
            Value::Number(number) if number.is_i64() || number.is_u64() => {
                Id::parse(&number.to_string())
            }
            _ => None,
        };
        if id.is_some() {
            return id;
        }
        let detail =
            format!("An id is a text of 1 to {ID_CHARS_MAX} characters, or a whole number.");
        self.wrong(name, detail)
    }

    fn moment(&mut self, name: &str) -> Option<Timestamp> {
        let moment = match self.get(name)? {
            Value::String(text) => text.parse().ok(),
            Value::Number(number) => number.as_f64().and_then(from_seconds),
            _ => None,
        };
        // As precisely as it is kept.
        let moment = moment.and_then(|moment: Timestamp| {
            Timestamp::from_microsecond(moment.as_microsecond()).ok()
        });
        if moment.is_some() {
            return moment;
        }
        self.wrong(
            name,
            "A time is written as in RFC 3339, such as 2142-05-01T12:00:00Z, or in seconds since 1970.",
        )
    }

    fn package_type(&mut self, name: &str, types: &Types) -> Option<PackageType> {
        let found = self.get(name)?.as_str().and_then(|text| types.find(text));
        if found.is_some() {
            return found;
        }
        let known: Vec<_> = types.all().map(|(_, name)| name).collect();
        self.wrong(name, format!("The types are {}.", known.join(", ")))
    }

    fn preference(&mut self, type_name: &str) -> Option<bool> {
        let name = format!("{type_name}_preference");
        let optional = !ALWAYS_SAID.contains(&type_name);
        if optional && self.object.get(&name).is_none_or(Value::is_null) {
            return None;
        }
        match self.get(&name)? {
            Value::Bool(takes) => Some(*takes),
            _ => self.wrong(&name, "A preference is true or false."),
        }
    }

    fn end<T>(self, read: Option<T>) -> Result<T, Problem> {
        match read {
            Some(read) if self.errors.is_empty() => Ok(read),
            _ => Err(Problem::invalid(self.errors)),
        }
    }
}

/// Seconds since 1970, to the microsecond.
fn from_seconds(seconds: f64) -> Option<Timestamp> {
    let micros = (seconds * 1e6).round();
    // Beyond this no timestamp is; within it the conversion is exact.
    if !(-1e18..1e18).contains(&micros) {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "it was checked, and rounded"
    )]
    Timestamp::from_microsecond(micros as i64).ok()
}

/// The package in a request.
pub(super) fn package(object: &Map<String, Value>, types: &Types) -> Result<Package, Problem> {
    let mut fields = Fields::of(object);
    let (timestamp, sender) = (fields.moment("timestamp"), fields.id("sender_id"));
    let (recipient, id) = (fields.id("recipient_id"), fields.id("package_id"));
    let package_type = fields.package_type("package_type", types);
    let read = || {
        Some(Package {
            id: id?,
            timestamp: timestamp?,
            sender: sender?,
            recipient: recipient?,
            package_type: package_type?,
        })
    };
    let read = read();
    fields.end(read)
}

/// The preferences in a request.
pub(super) fn update(object: &Map<String, Value>, types: &Types) -> Result<Update, Problem> {
    let mut fields = Fields::of(object);
    let (timestamp, recipient) = (fields.moment("timestamp"), fields.id("recipient_id"));
    let takes: BTreeMap<_, _> = types
        .all()
        .filter_map(|(package_type, name)| Some((package_type, fields.preference(name)?)))
        .collect();
    if takes.is_empty() && fields.errors.is_empty() {
        fields.wrong::<()>("", "There is no preference in it.");
    }
    let read = timestamp.zip(recipient);
    let read = read.map(|(timestamp, recipient)| Update {
        recipient,
        timestamp,
        takes,
    });
    fields.end(read)
}

/// What became of a package that was sent.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SentPackage {
    #[serde(flatten)]
    package: PackageState,
    /// It had been sent before; this is what became of it then.
    duplicate: bool,
    /// It had been sent before with other fields; these were ignored.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    mismatch: bool,
}

impl SentPackage {
    pub(super) fn of(id: &Id, sent: Sent) -> Self {
        Self {
            package: PackageState::of(id, sent.processed),
            duplicate: sent.duplicate,
            mismatch: sent.mismatch,
        }
    }
}

/// What became of a package.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PackageState {
    package_id: String,
    #[schema(example = "personal")]
    package_type: Box<str>,
    /// delivered or dropped.
    #[schema(example = "delivered")]
    status: &'static str,
    /// Why it was dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "recipient declined marketing")]
    reason: Option<String>,
    /// When the preference was said that decided, if one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = DateTime, required = false)]
    preference_timestamp: Option<Timestamp>,
}

impl PackageState {
    pub(super) fn of(id: &Id, processed: Processed) -> Self {
        let name = &processed.type_name;
        let reason = match (processed.outcome, processed.preference_timestamp) {
            (Outcome::Delivered, _) => None,
            (Outcome::Dropped, Some(_)) => Some(format!("recipient declined {name}")),
            (Outcome::Dropped, None) => Some(format!("recipient did not ask for {name}")),
        };
        Self {
            package_id: id.to_string(),
            status: processed.outcome.as_str(),
            reason,
            preference_timestamp: processed.preference_timestamp,
            package_type: processed.type_name,
        }
    }
}

/// What a recipient takes: a field for each of `packages.types`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what is written field by field")]
pub(super) struct Preferences {
    recipient_id: String,
    personal_preference: bool,
    marketing_preference: bool,
    /// In the answer to an update: whether all that was said holds. An older word does not, nor does a consent at the same
    /// time as a refusal.
    #[schema(required = false)]
    applied: bool,
}

/// A recipient's preferences, as they are written.
pub(super) fn preferences(
    recipient: &Id,
    types: &Types,
    taken: Vec<(PackageType, bool)>,
    applied: Option<bool>,
) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("recipient_id".to_owned(), recipient.as_str().into());
    for (package_type, takes) in taken {
        let name = format!("{}_preference", types.name(package_type));
        object.insert(name, takes.into());
    }
    if let Some(applied) = applied {
        object.insert("applied".to_owned(), applied.into());
    }
    object
}

/// How many there were since the beginning.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PackageStatistics {
    packages_delivered: u64,
    packages_dropped: u64,
    /// Malformed requests.
    requests_rejected: u64,
    by_type: BTreeMap<String, TypeTally>,
}

/// How many there were of one type.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TypeTally {
    delivered: u64,
    dropped: u64,
}

impl From<Statistics> for PackageStatistics {
    fn from(statistics: Statistics) -> Self {
        let total = statistics.total();
        let tallies = statistics.by_type.into_iter();
        Self {
            packages_delivered: total.delivered,
            packages_dropped: total.dropped,
            requests_rejected: statistics.rejected,
            by_type: tallies
                .map(|(name, tally)| {
                    let tally = TypeTally {
                        delivered: tally.delivered,
                        dropped: tally.dropped,
                    };
                    (name, tally)
                })
                .collect(),
        }
    }
}
