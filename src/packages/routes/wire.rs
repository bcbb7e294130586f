//! The wire format of the package desk. The fields of a request depend on the configured types, so they are parsed one by one;
//! all mistakes are reported at once.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::super::model::{
    ALWAYS_REQUIRED, ID_CHARS_MAX, Id, Outcome, Package, PackageType, Processed, Sent, Statistics,
    Types, Update,
};
use crate::http::Problem;
use crate::values::json::{self, Fields, not_an_id};
use crate::values::time::Moment;

/// A package to be sent. Only for the API description.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only for the API description")]
pub(super) struct NewPackage {
    /// RFC 3339, or seconds since 1970; to the microsecond, finer digits are truncated. A leap second is read as the last
    /// microsecond before midnight.
    #[schema(value_type = Instant)]
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

/// An update of preferences: a field for each of `packages.types`. Only for the API description.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only for the API description")]
pub(super) struct NewPreferences {
    /// RFC 3339, or seconds since 1970; to the microsecond, finer digits are truncated. A leap second is read as the last
    /// microsecond before midnight. The latest preference holds, in whatever order updates arrive.
    #[schema(value_type = Instant)]
    timestamp: Timestamp,
    #[schema(value_type = Name)]
    recipient_id: String,
    personal_preference: bool,
    marketing_preference: bool,
}

/// A point in time.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only for the API description")]
pub(super) enum Instant {
    /// RFC 3339.
    #[schema(value_type = String, format = DateTime, example = "2142-05-01T12:00:00Z")]
    Text(String),
    /// Seconds since 1970.
    Seconds(f64),
}

/// An id: 1 to 128 characters and at most 256 bytes of UTF-8, no control characters, compared in Unicode's NFC; or a whole
/// number, which is stored as its decimal text.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only for the API description")]
pub(super) enum Name {
    /// As it is.
    Text(NameText),
    /// A whole number.
    #[schema(value_type = i64, format = "whole")]
    Number(i64),
}

/// 1 to 128 characters and at most 256 bytes of UTF-8, no control characters.
#[derive(Serialize, ToSchema)]
#[schema(min_length = 1, max_length = 128, example = "ada")]
pub(super) struct NameText(String);

fn id(fields: &mut Fields<'_>, name: &str) -> Option<Id> {
    let detail = || {
        format!(
            "{} It must not have `.` or `..` alone between slashes.",
            not_an_id(ID_CHARS_MAX)
        )
    };
    fields.id(name, Id::parse, detail)
}

fn package_type(fields: &mut Fields<'_>, types: &Types) -> Option<PackageType> {
    let known = || {
        let known: Vec<_> = types.all().map(|(_, name)| name).collect();
        format!("The types are {}.", known.join(", "))
    };
    fields.word("package_type", |word| types.find(word), known)
}

fn preference(fields: &mut Fields<'_>, type_name: &str) -> Option<bool> {
    let name = format!("{type_name}_preference");
    let optional = !ALWAYS_REQUIRED.contains(&type_name);
    if optional && fields.look(&name).is_none() {
        return None;
    }
    fields.flag(&name)
}

pub(super) fn package(json: &Value, types: &Types) -> Result<Package, Problem> {
    let package = json::all(json, |fields| {
        let (timestamp, sender) = (fields.time("timestamp", true), id(fields, "sender_id"));
        let (recipient, name) = (id(fields, "recipient_id"), id(fields, "package_id"));
        let package_type = package_type(fields, types);
        Some(Package {
            id: name?,
            timestamp: timestamp?,
            sender: sender?,
            recipient: recipient?,
            package_type: package_type?,
        })
    });
    Ok(package?)
}

/// The update in a request; its timestamp must not be after `latest`.
pub(super) fn update(
    json: &Value,
    types: &Types,
    latest: Option<Timestamp>,
) -> Result<Update, Problem> {
    let update = json::all(json, |fields| {
        let timestamp = fields.time("timestamp", true);
        let timestamp = match latest.filter(|latest| timestamp.is_some_and(|at| at > *latest)) {
            Some(latest) => {
                let detail = format!(
                    "It is too far in the future: a preference's timestamp may now be at most {latest:.0} (packages.future_max)."
                );
                fields.wrong("timestamp", detail)
            }
            None => timestamp,
        };
        let recipient = id(fields, "recipient_id");
        let takes: BTreeMap<_, _> = types
            .all()
            .filter_map(|(package_type, name)| Some((package_type, preference(fields, name)?)))
            .collect();
        let (timestamp, recipient) = (timestamp?, recipient?);
        if takes.is_empty() {
            return fields.wrong("", "There is no preference in it.");
        }
        Some(Update {
            recipient,
            timestamp,
            takes,
        })
    });
    Ok(update?)
}

/// The outcome of a package that was sent.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SentPackage {
    #[serde(flatten)]
    package: PackageState,
    /// It was sent before; this is its first outcome.
    duplicate: bool,
    /// It was sent before with other fields; these were ignored.
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

/// The outcome of a package.
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
    /// Timestamp of the preference that decided, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = DateTime, required = false)]
    preference_timestamp: Option<Moment>,
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
            preference_timestamp: processed.preference_timestamp.map(Moment::from),
            package_type: processed.type_name,
        }
    }
}

/// A recipient's preferences: a field for each of `packages.types`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only for the API description")]
pub(super) struct Preferences {
    recipient_id: String,
    personal_preference: bool,
    marketing_preference: bool,
    /// In the answer to an update: whether all of it was applied. An older preference is not, nor is a consent with the same
    /// timestamp as a refusal.
    #[schema(required = false)]
    applied: bool,
}

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

/// Counts since the beginning.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PackageStatistics {
    packages_delivered: u64,
    packages_dropped: u64,
    /// Malformed requests.
    requests_rejected: u64,
    by_type: BTreeMap<String, TypeTally>,
}

/// Packages of one type by outcome.
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
