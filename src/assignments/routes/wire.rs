//! The wire format of the assignment desk.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::matching::explain::{Explanation, Relaxed};
use super::super::model::{
    Assignment, DriverCounts, DriverId, Filter, ID_CHARS_MAX, MAX_PER_DRIVER, Package, PackageId,
    Place, Status, parse_day,
};
use super::super::service::{Assigned, Day, ManifestSummary, Request, today};
use super::super::store::Listing;
use crate::http::Problem;
use crate::http::params::{page_cursor, page_limit, parsed};
use crate::values::json::{Fields, Read, not_an_id, text_of_id};
use crate::values::time::Moment;

/// The detail for an invalid date.
pub(super) const NO_DAY: &str = "A date is written as in RFC 3339, such as 2142-05-01.";

/// The lists of a day. Only for the API description; they are parsed as a stream.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only for the API description")]
pub(super) struct NewManifest {
    /// The day; today (UTC) by default.
    #[schema(value_type = Option<String>, format = Date, required = false)]
    date: Option<Date>,
    drivers: Vec<ListedDriver>,
    packages: Vec<ListedPackage>,
}

/// A driver of the day.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only for the API description")]
pub(super) struct ListedDriver {
    #[schema(min_length = 1, max_length = 128, example = "driver_1")]
    driver_id: String,
    /// All of them must be satisfied.
    rules: Vec<ListedRule>,
}

/// What a driver may carry.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only for the API description")]
pub(super) struct ListedRule {
    #[schema(max_length = 128, required = false)]
    rule_id: Option<String>,
    /// `MAX_WEIGHT`, `NO_PERISHABLE`, `REGION_ONLY`, `MAX_DISTANCE`, `EXPRESS_ONLY`, `FRAGILE_ONLY`, `HAZMAT_ALLOWED`,
    /// `TEMP_CONTROL`, `TIME_WINDOW` or `OVERSIZED`.
    #[schema(example = "MAX_WEIGHT")]
    code: String,
    /// By the code: `limit_kg`; `allowed_regions`; `max_km`; `allowed_classes`; `min_c` and `max_c`; `start_hour` and
    /// `end_hour`; `min_volume_m3`; nothing.
    #[schema(value_type = Object, required = false)]
    params: (),
}

/// A package of the day.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only for the API description")]
pub(super) struct ListedPackage {
    #[schema(min_length = 1, max_length = 128)]
    package_id: String,
    #[schema(minimum = 0)]
    weight_kg: f64,
    is_perishable: bool,
    /// north, east, south or west.
    #[schema(example = "north")]
    region: String,
    #[schema(minimum = 0)]
    distance_km: f64,
    is_express: bool,
    is_fragile: bool,
    /// Class of dangerous goods; null if it is none.
    #[schema(minimum = 1, maximum = 9, required = false)]
    hazmat_class: Option<u8>,
    #[schema(minimum = -273.15)]
    temperature_c: f64,
    #[schema(minimum = 0, maximum = 23)]
    delivery_hour: u8,
    #[schema(minimum = 0)]
    volume_m3: f64,
    #[schema(max_length = 1000, required = false)]
    destination: Option<String>,
}

/// The stored lists of a day.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only for the API description")]
pub(super) struct ShownManifest {
    #[schema(value_type = String, format = Date)]
    date: Date,
    drivers: Vec<ListedDriver>,
    packages: Vec<ListedPackage>,
}

/// A stored manifest.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct KeptManifest {
    #[schema(value_type = String, format = Date)]
    date: Date,
    drivers: usize,
    packages: usize,
}

impl From<ManifestSummary> for KeptManifest {
    fn from(
        ManifestSummary {
            date,
            drivers,
            packages,
        }: ManifestSummary,
    ) -> Self {
        Self {
            date,
            drivers,
            packages,
        }
    }
}

/// A request for a plan.
#[derive(Debug, ToSchema)]
pub(super) struct AssignRequest {
    /// All of them in the day's list, or with `reset` holding packages of the day. Duplicates are ignored.
    #[schema(min_items = 1, value_type = Vec<String>)]
    pub(super) driver_ids: Vec<DriverId>,
    /// Most packages of one driver that day, earlier ones included.
    #[schema(minimum = 0, maximum = 10_000)]
    max_per_driver: u32,
    /// The day; today (UTC) by default.
    #[schema(value_type = Option<String>, format = Date, required = false)]
    date: Date,
    /// Plan without assigning.
    #[schema(required = false)]
    dry_run: bool,
    /// Give up first what these drivers have that is still `assigned`; also of drivers who are no longer in the day's list.
    #[schema(required = false)]
    reset: bool,
}

impl Read for AssignRequest {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let driver_ids = driver_ids(fields);
        let max_per_driver = fields.whole("max_per_driver", 0..=MAX_PER_DRIVER.into());
        let date = fields.maybe("date", |fields| {
            fields.word("date", parse_day, || NO_DAY.to_owned())
        });
        let dry_run = fields.maybe("dry_run", |fields| fields.flag("dry_run"));
        let reset = fields.maybe("reset", |fields| fields.flag("reset"));
        Some(Self {
            driver_ids: driver_ids?,
            max_per_driver: max_per_driver?,
            date: date?.unwrap_or_else(today),
            dry_run: dry_run?.unwrap_or_default(),
            reset: reset?.unwrap_or_default(),
        })
    }
}

fn driver_ids(fields: &mut Fields<'_>) -> Option<Vec<DriverId>> {
    const NAME: &str = "driver_ids";
    let list = fields.list(NAME)?;
    if list.is_empty() {
        return fields.wrong(NAME, "There must be at least one driver.");
    }
    let named = list.iter().enumerate().map(|(place, value)| {
        let id = text_of_id(value).and_then(|text| DriverId::parse(&text));
        id.or_else(|| fields.wrong(&format!("{NAME}/{place}"), not_an_id(ID_CHARS_MAX)))
    });
    // All of them, so that every mistake is reported.
    let named: Vec<Option<DriverId>> = named.collect();
    named.into_iter().collect()
}

/// Query parameters of a plan.
#[derive(Debug, Deserialize)]
pub(super) struct AssignQuery {
    #[serde(default)]
    pub(super) explain: bool,
}

impl AssignRequest {
    pub(super) fn into_request(self, explain: bool) -> Request {
        Request {
            drivers: self.driver_ids.into_iter().collect(),
            max_per_driver: self.max_per_driver,
            date: self.date,
            dry_run: self.dry_run,
            reset: self.reset,
            explain,
        }
    }
}

/// A day's plan.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DayPlan {
    /// Each requested driver, with their packages of the day; the most urgent first.
    #[schema(value_type = BTreeMap<String, Vec<String>>)]
    assignments: BTreeMap<DriverId, Vec<PackageId>>,
    /// Packages of the day's list without a driver; the most urgent first.
    #[schema(value_type = Vec<String>)]
    unassigned_packages: Vec<PackageId>,
    /// Requested drivers without packages.
    #[schema(value_type = Vec<String>)]
    unassigned_drivers: Vec<DriverId>,
    /// Why packages stay behind, if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    explanation: Option<PlanExplanation>,
}

impl From<Assigned> for DayPlan {
    fn from(Assigned { plan, explanation }: Assigned) -> Self {
        let idle = plan
            .assignments
            .iter()
            .filter(|(_, packages)| packages.is_empty());
        Self {
            unassigned_drivers: idle.map(|(driver, _)| driver.clone()).collect(),
            assignments: plan.assignments,
            unassigned_packages: plan.unassigned,
            explanation: explanation.map(PlanExplanation::from),
        }
    }
}

/// Why packages stay behind.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PlanExplanation {
    /// Each package without a driver.
    packages: Vec<PackageLeft>,
    /// The single relaxation that would assign the most further packages; null if none would.
    relaxation: Option<PlanRelaxation>,
}

/// Why one package stays behind.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PackageLeft {
    #[schema(value_type = String)]
    package_id: PackageId,
    /// "capacity": drivers could take it, but have as many as they may; in every best plan some package has to stay behind.
    /// "rules": no driver may take it.
    #[schema(example = "rules")]
    reason: &'static str,
    /// Drivers whose rules permit it.
    able_drivers: usize,
    /// Drivers whose rules refuse it, by the rule's code. A driver with several such rules counts for each.
    #[schema(value_type = BTreeMap<String, usize>)]
    refused_by: BTreeMap<&'static str, usize>,
}

/// A single relaxation.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PlanRelaxation {
    /// The driver with one rule less.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    driver_id: Option<DriverId>,
    /// The rule's id, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    rule_id: Option<Box<str>>,
    /// The rule's code.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    code: Option<&'static str>,
    /// The new `max_per_driver`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    max_per_driver: Option<u32>,
    /// How many more packages would be assigned.
    gain: u64,
}

impl From<Explanation> for PlanExplanation {
    fn from(explanation: Explanation) -> Self {
        let packages = explanation.packages.into_iter().map(|left| PackageLeft {
            package_id: left.package,
            reason: if left.able > 0 { "capacity" } else { "rules" },
            able_drivers: left.able,
            refused_by: left.refused,
        });
        let relaxation = explanation.relaxation.map(|relaxation| {
            let gain = relaxation.gain;
            let mut told = PlanRelaxation {
                driver_id: None,
                rule_id: None,
                code: None,
                max_per_driver: None,
                gain,
            };
            match relaxation.what {
                Relaxed::MaxPerDriver { to } => told.max_per_driver = Some(to),
                Relaxed::Rule { driver, rule, code } => {
                    (told.driver_id, told.rule_id, told.code) = (Some(driver), rule, Some(code));
                }
            }
            told
        });
        Self {
            packages: packages.collect(),
            relaxation,
        }
    }
}

/// An update of a package's status.
#[derive(Debug, ToSchema)]
pub(super) struct NewStatus {
    #[schema(value_type = String)]
    pub(super) driver_id: Option<DriverId>,
    #[schema(value_type = String)]
    pub(super) package_id: Option<PackageId>,
    /// assigned, accepted, `in_progress`, delivered or `failed_to_deliver`.
    #[schema(value_type = String, example = "in_progress")]
    pub(super) status: Status,
}

/// An invalid id exists nowhere: 404, as for an unknown one.
impl Read for NewStatus {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let mut id = |name: &str| {
            let text = text_of_id(fields.get(name)?);
            text.or_else(|| fields.wrong(name, not_an_id(ID_CHARS_MAX)))
        };
        let (driver, package) = (id("driver_id"), id("package_id"));
        let status = fields.word("status", Status::parse, known_statuses);
        Some(Self {
            driver_id: DriverId::parse(&driver?),
            package_id: PackageId::parse(&package?),
            status: status?,
        })
    }
}

fn known_statuses() -> String {
    let known = Status::ALL.map(Status::as_str).join(", ");
    format!("The statuses are {known}.")
}

/// A package's assignment.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AssignmentState {
    #[schema(value_type = String)]
    driver_id: DriverId,
    #[schema(value_type = String, format = Date)]
    date: Date,
    #[schema(value_type = String, example = "assigned")]
    status: Status,
    #[schema(value_type = String, format = DateTime)]
    assigned_at: Moment,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Moment,
    #[serde(flatten)]
    #[schema(value_type = ListedPackage)]
    package: Package,
}

impl From<Assignment> for AssignmentState {
    fn from(assignment: Assignment) -> Self {
        Self {
            driver_id: assignment.driver,
            date: assignment.date,
            status: assignment.status,
            assigned_at: assignment.assigned_at.into(),
            updated_at: assignment.updated_at.into(),
            package: assignment.package,
        }
    }
}

/// Query parameters of a list.
#[derive(Debug, Deserialize)]
pub(super) struct ListQuery {
    driver_id: Option<String>,
    package_id: Option<String>,
    status: Option<String>,
    date: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

/// A query of the list; None if nothing can match.
pub(super) type Wanted = Option<(Filter, Option<Place>, usize)>;

impl ListQuery {
    /// # Errors
    /// 422 for an invalid status, day, limit or cursor.
    pub(super) fn into_wanted(self) -> Result<Wanted, Problem> {
        let status = self.status;
        let status = status.map(|word| parsed("status", &word, Status::parse, known_statuses));
        let limit = page_limit(self.limit);
        let after = page_cursor(self.cursor, place);
        let filter = Filter {
            driver: None,
            package: None,
            status: status.transpose()?,
            date: self.date.map(|text| date("date", &text)).transpose()?,
        };
        let (limit, after) = (limit?, after?);
        // An invalid name matches nothing.
        let driver = self.driver_id.map(|name| DriverId::parse(&name).ok_or(()));
        let package = self
            .package_id
            .map(|name| PackageId::parse(&name).ok_or(()));
        let (Ok(driver), Ok(package)) = (driver.transpose(), package.transpose()) else {
            return Ok(None);
        };
        Ok(Some((
            Filter {
                driver,
                package,
                ..filter
            },
            after,
            limit,
        )))
    }
}

/// A date in a query.
///
/// # Errors
/// 422 if it is invalid.
pub(super) fn date(parameter: &'static str, text: &str) -> Result<Date, Problem> {
    parsed(parameter, text, parse_day, || NO_DAY)
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AssignmentPage {
    assignments: Vec<AssignmentState>,
    /// The `cursor` of the next page, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next: Option<String>,
}

impl AssignmentPage {
    pub(super) const EMPTY: Self = Self {
        assignments: Vec::new(),
        next: None,
    };
}

impl From<Listing> for AssignmentPage {
    fn from(listing: Listing) -> Self {
        Self {
            assignments: listing
                .assignments
                .into_iter()
                .map(AssignmentState::from)
                .collect(),
            next: listing.next.map(|place| cursor(&place)),
        }
    }
}

/// A day's packages by driver.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DaySummary {
    #[schema(value_type = String, format = Date)]
    date: Date,
    /// By name; those with packages only.
    drivers: Vec<DriverSummary>,
    /// Packages of the day's list without a driver; missing without a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    unassigned: Option<usize>,
    /// Of the latest plan for this day that this server stored since its start.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    max_per_driver: Option<u32>,
}

impl From<Day> for DaySummary {
    fn from(day: Day) -> Self {
        Self {
            date: day.date,
            drivers: day.drivers.into_iter().map(DriverSummary::from).collect(),
            unassigned: day.unassigned,
            max_per_driver: day.max_per_driver,
        }
    }
}

/// A driver's packages of a day.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DriverSummary {
    #[schema(value_type = String, example = "driver_1")]
    driver_id: DriverId,
    /// All of them.
    held: u32,
    assigned: u32,
    accepted: u32,
    in_progress: u32,
    delivered: u32,
    failed_to_deliver: u32,
}

impl From<DriverCounts> for DriverSummary {
    fn from(counts: DriverCounts) -> Self {
        Self {
            held: counts.held(),
            assigned: counts.of(Status::Assigned),
            accepted: counts.of(Status::Accepted),
            in_progress: counts.of(Status::InProgress),
            delivered: counts.of(Status::Delivered),
            failed_to_deliver: counts.of(Status::FailedToDeliver),
            driver_id: counts.driver,
        }
    }
}

fn cursor(
    Place {
        driver,
        date,
        package,
    }: &Place,
) -> String {
    let json = serde_json::json!([driver, date, package]);
    URL_SAFE_NO_PAD.encode(json.to_string())
}

fn place(cursor: &str) -> Option<Place> {
    let json = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let (driver, date, package): (String, Option<Date>, String) =
        serde_json::from_slice(&json).ok()?;
    Some(Place {
        driver: DriverId::parse(&driver)?,
        date,
        package: PackageId::parse(&package)?,
    })
}
