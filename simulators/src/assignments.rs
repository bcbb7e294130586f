//! The contract of assignments as a dispatcher and a driver see it: what is sent, and what the answers mean.

pub mod model;

use std::collections::BTreeMap;

use hyper::{StatusCode, header::CONTENT_TYPE};
use jiff::{Timestamp, civil::Date};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

pub use self::model::Model;
use crate::{client::Failure, connection::Answer};

/// A day's lists, as a file has them and as they are sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub drivers: Vec<Driver>,
    pub packages: Vec<Package>,
}

/// A driver; a package must satisfy all of the rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Driver {
    #[serde(rename = "driver_id")]
    pub id: String,
    pub rules: Vec<Rule>,
}

/// A rule as it is written; [`model`] reads it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    #[serde(rename = "rule_id", default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    pub code: String,
    #[serde(default)]
    pub params: Map<String, Value>,
}

/// A package of the day.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Package {
    #[serde(rename = "package_id")]
    pub id: String,
    pub weight_kg: f64,
    pub is_perishable: bool,
    pub region: String,
    pub distance_km: f64,
    pub is_express: bool,
    pub is_fragile: bool,
    /// None when it is not dangerous.
    pub hazmat_class: Option<u8>,
    pub temperature_c: f64,
    /// 0 to 23.
    pub delivery_hour: u8,
    pub volume_m3: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
}

/// How far a package has come with its driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Assigned,
    Accepted,
    InProgress,
    Delivered,
    FailedToDeliver,
}

impl Status {
    pub(crate) const ALL: [Self; 5] = [
        Self::Assigned,
        Self::Accepted,
        Self::InProgress,
        Self::Delivered,
        Self::FailedToDeliver,
    ];

    /// As the contract writes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Assigned => "assigned",
            Self::Accepted => "accepted",
            Self::InProgress => "in_progress",
            Self::Delivered => "delivered",
            Self::FailedToDeliver => "failed_to_deliver",
        }
    }
}

/// A 200 to `PUT /manifest`.
#[derive(Debug, Deserialize)]
pub(crate) struct Stored {
    pub(crate) date: Date,
    pub(crate) drivers: usize,
    pub(crate) packages: usize,
}

/// A 200 to `GET /manifest`.
#[derive(Debug, Deserialize)]
pub(crate) struct Reported {
    pub(crate) date: Date,
    #[serde(flatten)]
    pub(crate) manifest: Manifest,
}

/// A 200 to `POST /assign`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Plan {
    pub assignments: BTreeMap<String, Vec<String>>,
    pub unassigned_packages: Vec<String>,
    pub unassigned_drivers: Vec<String>,
}

/// A record of a package with its driver.
#[derive(Debug, Deserialize)]
pub(crate) struct Item {
    pub(crate) driver_id: String,
    pub(crate) package_id: String,
    pub(crate) date: Date,
    pub(crate) status: Status,
    pub(crate) assigned_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    /// Further fields, above all of the package.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Item {
    /// The first attribute of the package that differs from the manifest.
    pub(crate) fn difference(&self, package: &Package) -> Option<String> {
        let sent = serde_json::to_value(package).unwrap_or_default();
        let sent = sent.as_object()?.iter();
        let mut attributes = sent.filter(|(name, _)| *name != "package_id");
        let different = attributes.find(|(name, value)| {
            // The server may return an integer as a fraction.
            let reported = self.rest.get(*name).unwrap_or(&Value::Null);
            reported != *value
                && (reported.as_f64().is_none() || reported.as_f64() != value.as_f64())
        });
        different.map(|(name, _)| name.clone())
    }
}

/// A 200 to `GET /assignments`.
#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    pub(crate) assignments: Vec<Item>,
    /// Where the list goes on, if it does.
    #[serde(default)]
    pub(crate) next: Option<String>,
}

/// A 200 is an acknowledgement, also when its body is not the contract's.
pub(crate) fn accepted<T: DeserializeOwned>(answer: &Answer) -> Option<Result<T, Failure>> {
    (answer.status == StatusCode::OK).then(|| answer.json())
}

/// A refusal with this status, which is expected: whether it is a problem+json.
pub(crate) fn refused(answer: &Answer, expected: StatusCode) -> Option<bool> {
    (answer.status == expected).then(|| {
        let content_type = answer.header(CONTENT_TYPE.as_str()).unwrap_or_default();
        content_type.starts_with("application/problem+json")
    })
}

/// A call of `POST /assign`, as JSON.
pub(crate) fn assign(drivers: &[&str], max_per_driver: u32, date: Date, dry_run: bool) -> Value {
    let mut call = json!({
        "driver_ids": drivers,
        "max_per_driver": max_per_driver,
        "date": date,
    });
    if dry_run {
        call["dry_run"] = json!(true);
    }
    call
}

/// A call of `POST /update`, as JSON.
pub(crate) fn update(driver: &str, package: &str, status: Status) -> Value {
    json!({ "driver_id": driver, "package_id": package, "status": status.name() })
}
