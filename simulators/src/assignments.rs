//! The contract of assignments as a dispatcher and a driver see it: what is sent, and what the answers mean.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use hyper::{Method, StatusCode, header::CONTENT_TYPE};
use jiff::{Timestamp, civil::Date};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use crate::{
    connection::{Address, Answer},
    resend::{Reply, Resender, Sent},
    shop::{Caller, Failure, encoded, read},
};

/// The largest manifest is 32 MiB; the server may return its numbers with more digits.
const ANSWER_MAX_BYTES: usize = 64 * 1024 * 1024;

/// A day's lists, as a file has them and as they are sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) drivers: Vec<Driver>,
    pub(crate) packages: Vec<Package>,
}

/// A driver; a package must satisfy all of the rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Driver {
    #[serde(rename = "driver_id")]
    pub(crate) id: String,
    pub(crate) rules: Vec<Rule>,
}

/// A rule as it is written; what it says is read in `day/rules.rs`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rule {
    #[serde(rename = "rule_id", default, skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    pub(crate) code: String,
    #[serde(default)]
    pub(crate) params: Map<String, Value>,
}

/// A package of the day.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Package {
    #[serde(rename = "package_id")]
    pub(crate) id: String,
    pub(crate) weight_kg: f64,
    pub(crate) is_perishable: bool,
    pub(crate) region: String,
    pub(crate) distance_km: f64,
    pub(crate) is_express: bool,
    pub(crate) is_fragile: bool,
    /// None when it is not dangerous.
    pub(crate) hazmat_class: Option<u8>,
    pub(crate) temperature_c: f64,
    /// 0 to 23.
    pub(crate) delivery_hour: u8,
    pub(crate) volume_m3: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) destination: Option<String>,
}

/// How far a package has come with its driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Stored {
    pub(crate) date: Date,
    pub(crate) drivers: usize,
    pub(crate) packages: usize,
}

/// A 200 to `GET /manifest`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Told {
    pub(crate) date: Date,
    #[serde(flatten)]
    pub(crate) manifest: Manifest,
}

/// A 200 to `POST /assign`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Plan {
    pub(crate) assignments: BTreeMap<String, Vec<String>>,
    pub(crate) unassigned_packages: Vec<String>,
    pub(crate) unassigned_drivers: Vec<String>,
}

/// A record of a package with its driver.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Item {
    pub(crate) driver_id: String,
    pub(crate) package_id: String,
    pub(crate) date: Date,
    pub(crate) status: Status,
    pub(crate) assigned_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    /// What else it says, above all of the package.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Item {
    /// What it says of the package otherwise than the manifest did; the name of the first such attribute.
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
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Page {
    pub(crate) assignments: Vec<Item>,
    /// Where the list goes on, if it does.
    #[serde(default)]
    pub(crate) next: Option<String>,
}

/// A refusal that was asked for, with the status that it must have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refusal {
    pub(crate) is_problem: bool,
}

/// A 200 is an acknowledgement; none when it does not say what it should.
fn taken<T: DeserializeOwned>(answer: &Answer) -> Reply<Option<T>> {
    match answer.status {
        StatusCode::OK => Reply::Acknowledged {
            status: answer.status,
            answer: read(answer).ok(),
        },
        _ => Reply::unless_acknowledged(answer),
    }
}

fn refused(answer: &Answer, expected: StatusCode) -> Reply<Refusal> {
    if answer.status != expected {
        return Reply::unless_acknowledged(answer);
    }
    let content_type = answer.header(CONTENT_TYPE.as_str()).unwrap_or_default();
    Reply::Acknowledged {
        status: expected,
        answer: Refusal {
            is_problem: content_type.starts_with("application/problem+json"),
        },
    }
}

/// A call of `POST /assign`, as JSON.
pub(crate) fn call(drivers: &[&str], max_per_driver: u32, date: Date, dry_run: bool) -> Value {
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

/// A link to the server: one connection, replaced when it has gone.
#[derive(Debug)]
pub(crate) struct Link(Caller);

impl Link {
    pub(crate) fn new(server: Address) -> Self {
        Self(Caller::new(server).taking_answers_up_to(ANSWER_MAX_BYTES))
    }

    /// `PUT /manifest`, until it is acknowledged or there is no hope. For today, as the server has it, unless a date is
    /// given.
    pub(crate) async fn put_manifest(
        &mut self,
        manifest: &Manifest,
        date: Option<Date>,
        resender: &mut Resender,
    ) -> Sent<Option<Stored>> {
        let mut body = json!(manifest);
        if let Some(date) = date {
            body["date"] = json!(date);
        }
        let body = Some(Bytes::from(body.to_string()));
        let request = self.0.request(Method::PUT, "/manifest", body);
        resender.send(&mut self.0, &request, taken).await
    }

    /// `GET /manifest`, once. None when the day has none.
    pub(crate) async fn manifest(&mut self, date: Option<Date>) -> Result<Option<Told>, Failure> {
        let path = date.map_or_else(
            || "/manifest".to_owned(),
            |date| format!("/manifest?date={date}"),
        );
        match self.get(&path).await {
            Err(Failure::Status(StatusCode::NOT_FOUND)) => Ok(None),
            other => other.map(Some),
        }
    }

    /// `POST /assign`, until it is acknowledged or there is no hope.
    pub(crate) async fn assign(
        &mut self,
        call: &Value,
        resender: &mut Resender,
    ) -> Sent<Option<Plan>> {
        let request = self.post("/assign", call);
        resender.send(&mut self.0, &request, taken).await
    }

    /// `POST /assign` by a client that disconnects after `after`, perhaps before the answer.
    pub(crate) async fn assign_and_leave(&mut self, call: &Value, after: Duration) {
        let request = self.post("/assign", call);
        // Whatever came of it: the same is asked for again.
        drop(timeout(after, Box::pin(self.0.send(request))).await);
    }

    /// `POST /assign` for a driver of whom the day does not know, until that is refused or there is no hope.
    pub(crate) async fn assign_unknown(
        &mut self,
        call: &Value,
        resender: &mut Resender,
    ) -> Sent<Refusal> {
        let request = self.post("/assign", call);
        let meaning = |answer: &Answer| refused(answer, StatusCode::UNPROCESSABLE_ENTITY);
        resender.send(&mut self.0, &request, meaning).await
    }

    /// `POST /update`, until it is acknowledged or there is no hope.
    pub(crate) async fn update(
        &mut self,
        driver: &str,
        package: &str,
        status: Status,
        resender: &mut Resender,
    ) -> Sent<Option<Item>> {
        let request = self.post("/update", &update(driver, package, status));
        resender.send(&mut self.0, &request, taken).await
    }

    /// `POST /update` for a driver who has not got the package, until that is refused or there is no hope.
    pub(crate) async fn update_unknown(
        &mut self,
        driver: &str,
        package: &str,
        resender: &mut Resender,
    ) -> Sent<Refusal> {
        let request = self.post("/update", &update(driver, package, Status::Accepted));
        let meaning = |answer: &Answer| refused(answer, StatusCode::NOT_FOUND);
        resender.send(&mut self.0, &request, meaning).await
    }

    /// `GET /assignments`, once: a page of those that fit.
    pub(crate) async fn list(
        &mut self,
        filter: &[(&str, &str)],
        cursor: Option<&str>,
    ) -> Result<Page, Failure> {
        let cursor = cursor.map(|cursor| ("cursor", cursor));
        let query: Vec<_> = filter.iter().copied().chain(cursor).collect();
        let query = query
            .iter()
            .map(|(name, value)| format!("{name}={}", encoded(value)));
        let query = query.collect::<Vec<_>>().join("&");
        self.get(&format!("/assignments?{query}")).await
    }

    fn post(&self, path: &str, body: &Value) -> crate::connection::Outgoing {
        let body = Some(Bytes::from(body.to_string()));
        self.0.request(Method::POST, path, body)
    }

    async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, Failure> {
        let answer = self.0.call(Method::GET, path).await?;
        match answer.status {
            StatusCode::OK => read(&answer),
            other => Err(Failure::Status(other)),
        }
    }
}

fn update(driver: &str, package: &str, status: Status) -> Value {
    json!({ "driver_id": driver, "package_id": package, "status": status })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn package(id: &str) -> Package {
        Package {
            id: id.to_owned(),
            weight_kg: 10.0,
            is_perishable: false,
            region: "north".to_owned(),
            distance_km: 50.0,
            is_express: true,
            is_fragile: true,
            hazmat_class: None,
            temperature_c: 5.0,
            delivery_hour: 12,
            volume_m3: 0.5,
            destination: None,
        }
    }

    /// A record as the server would tell it.
    pub(crate) fn item(driver: &str, package: &Package, status: Status) -> Item {
        let mut item = json!(package);
        item["driver_id"] = json!(driver);
        item["date"] = json!("2026-11-21");
        item["status"] = json!(status);
        item["assigned_at"] = json!("2026-11-21T06:00:00Z");
        item["updated_at"] = json!("2026-11-21T06:00:00.000001Z");
        serde_json::from_value(item).unwrap()
    }

    #[test]
    fn statuses_are_written_as_they_are_named() {
        for status in Status::ALL {
            assert_eq!(json!(status), status.name());
        }
    }

    #[test]
    fn a_record_tells_of_the_package_as_the_manifest_did() {
        let package = package("p1");
        let mut reported = item("d1", &package, Status::Assigned);
        assert_eq!(reported.difference(&package), None);
        reported.rest["weight_kg"] = json!(10);
        assert_eq!(reported.difference(&package), None);
        for (name, wrong) in [
            ("weight_kg", json!(9.99)),
            ("is_express", json!(false)),
            ("region", json!("south")),
            ("hazmat_class", json!(1)),
            ("volume_m3", Value::Null),
        ] {
            let mut other = reported.clone();
            other.rest[name] = wrong;
            assert_eq!(other.difference(&package).as_deref(), Some(name));
        }
    }

    #[test]
    fn only_the_refusal_that_was_asked_for_counts() {
        let answer = |status, content_type: &'static str| Answer {
            status,
            headers: hyper::HeaderMap::from_iter([(CONTENT_TYPE, content_type.parse().unwrap())]),
            body: Bytes::new(),
        };
        let not_found = StatusCode::NOT_FOUND;
        for (status, content_type, expected) in [
            (not_found, "application/problem+json", Some(true)),
            (not_found, "text/plain", Some(false)),
            (StatusCode::OK, "application/json", None),
            (StatusCode::CONFLICT, "application/problem+json", None),
        ] {
            let is_problem = match refused(&answer(status, content_type), not_found) {
                Reply::Acknowledged { answer, .. } => Some(answer.is_problem),
                _ => None,
            };
            assert_eq!(is_problem, expected, "{status} {content_type}");
        }
    }
}
