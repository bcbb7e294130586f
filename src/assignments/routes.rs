//! HTTP paths and handlers. Manifests are parsed in `manifest`, the other wire formats are in `wire`, the mapping of errors in
//! `problems`.

mod manifest;
mod problems;
mod wire;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRef, Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use jiff::civil::Date;
use tokio::sync::Semaphore;
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use self::problems::no_manifest;
use self::wire::{
    AssignQuery, AssignRequest, AssignmentPage, AssignmentState, DayPlan, DaySummary, KeptManifest,
    ListQuery, NewManifest, NewStatus, ShownManifest,
};
use super::error::{AssignError, Refusal, Unavailable, UpdateError};
use super::manifest::Manifest;
use super::oplog::Cause;
use super::service::{Assignments, today};
use crate::access::Role;
use crate::http::Problem;
use crate::http::body::{self, BodyLimits, Json, stream};
use crate::http::caching::{CachedJson, no_store, no_store_list};
use crate::http::params::{Actor, Query, RequestId};
use crate::http::responses::{JsonBody, NotFound, NotModified, Parameters, Stored};

/// Parses a manifest: its day, if it has one, and its lists.
///
/// # Errors
/// A problem with all mistakes and their places.
pub fn read_manifest(json: &mut dyn io::Read) -> Result<(Option<Date>, Manifest), Problem> {
    manifest::read(json)
}

/// Manifests that are received at once.
const MANIFESTS_AT_ONCE: usize = 2;
/// How long a further one waits; then the desk is busy.
const MANIFEST_TURN: Duration = Duration::from_secs(10);
/// The largest request for a plan, in bytes: ten thousand drivers with the longest names.
const ASSIGN_BYTES_MAX: usize = 2 << 20;

/// State of the handlers.
#[derive(Debug, Clone)]
pub struct Desk {
    assignments: Assignments,
    limits: BodyLimits,
    manifest_limits: BodyLimits,
    manifests: Arc<Semaphore>,
}

impl Desk {
    pub fn new(assignments: Assignments, limits: BodyLimits, manifest_limits: BodyLimits) -> Self {
        Self {
            assignments,
            limits,
            manifest_limits,
            manifests: Arc::new(Semaphore::new(MANIFESTS_AT_ONCE)),
        }
    }
}

impl FromRef<Desk> for BodyLimits {
    fn from_ref(desk: &Desk) -> Self {
        desk.limits
    }
}

pub fn staff_routes() -> [UtoipaMethodRouter<Desk>; 5] {
    [
        routes!(put_manifest, get_manifest),
        routes!(assign),
        routes!(update),
        routes!(list_assignments),
        routes!(summarize),
    ]
}

/// Set a day's manifest
///
/// Replaces the lists of that day. Existing assignments stay. Of a manifest with mistakes nothing is stored; `errors` has up to 100
/// of them.
#[utoipa::path(
    put, path = "/manifest", tag = "assignments", security(("token" = ["dispatcher"])),
    request_body(content = NewManifest, content_type = "application/json"),
    responses(
        JsonBody,
        Stored,
        (status = 200, description = "Stored", body = KeptManifest),
    ),
)]
async fn put_manifest(State(desk): State<Desk>, request: Request) -> Result<Response, Problem> {
    // Each takes memory and a thread while it is received.
    let turn = tokio::time::timeout(MANIFEST_TURN, desk.manifests.acquire());
    let _turn = turn
        .await
        .ok()
        .and_then(Result::ok)
        .ok_or(Unavailable::Busy)?;
    let (date, manifest) = stream(request, desk.manifest_limits, manifest::read).await?;
    let date = date.unwrap_or_else(today);
    let stored = desk.assignments.store_manifest(date, manifest).await?;
    Ok(no_store(&KeptManifest::from(stored)))
}

/// Get a day's manifest
#[utoipa::path(
    get, path = "/manifest", tag = "assignments", security(("token" = ["dispatcher"])),
    params(
        ("date" = Option<String>, Query, description = "The day; today (UTC) by default", format = Date),
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of lists that the client has"),
    ),
    responses(
        Stored,
        Parameters,
        NotFound,
        NotModified,
        (status = 200, description = "The lists", body = ShownManifest, headers(("ETag" = String))),
    ),
)]
async fn get_manifest(
    State(desk): State<Desk>,
    Query(query): Query<ManifestQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let date = query.date()?;
    let shown = desk.assignments.manifest(date).await?;
    let shown = shown.ok_or_else(|| no_manifest(date))?;
    let page = CachedJson::of(shown.json.into(), &shown.version);
    Ok(page.answer(&headers))
}

#[derive(Debug, serde::Deserialize)]
struct ManifestQuery {
    date: Option<String>,
}

impl ManifestQuery {
    /// Today by default.
    ///
    /// # Errors
    /// 422 if it is invalid.
    fn date(self) -> Result<Date, Problem> {
        let date = self.date.map(|text| wire::date("date", &text));
        Ok(date.transpose()?.unwrap_or_else(today))
    }
}

/// Plan a day, and assign its packages to drivers
///
/// As many packages as any plan could carry; of such plans one whose load is as even as possible; of those one that takes
/// perishable, express and early packages first. Earlier assignments stay, and count. Idempotent.
#[utoipa::path(
    post, path = "/assign", tag = "assignments", security(("token" = ["dispatcher"])),
    request_body(content = AssignRequest, content_type = "application/json"),
    params(("explain" = Option<bool>, Query, description = "Explain why packages stay behind, and what would help most")),
    responses(
        JsonBody,
        AssignError,
        (status = 200, description = "The plan; assigned, unless it was a dry run", body = DayPlan),
    ),
)]
async fn assign(
    State(desk): State<Desk>,
    Query(AssignQuery { explain }): Query<AssignQuery>,
    RequestId(request_id): RequestId,
    actor: Actor,
    request: Request,
) -> Result<Response, Problem> {
    let limits = BodyLimits {
        max_bytes: desk.limits.max_bytes.max(ASSIGN_BYTES_MAX),
        ..desk.limits
    };
    let body: AssignRequest = body::json(request, limits).await?;
    let listed = body.driver_ids.clone();
    let request = body.into_request(explain);
    let assigned = desk
        .assignments
        .assign(request, cause(&request_id, &actor))
        .await;
    let assigned = assigned.map_err(|error| problems::of_assign(error, &listed))?;
    let items = assigned.plan.items();
    Ok(no_store_list(items, DayPlan::from(assigned)).await)
}

/// Update a package's status
///
/// Of a pair of driver and package with several days, the latest is updated.
#[utoipa::path(
    post, path = "/update", tag = "assignments", security(("token" = ["dispatcher", "driver"])),
    request_body(content = NewStatus, content_type = "application/json"),
    responses(
        JsonBody,
        UpdateError,
        (status = 200, description = "Stored; the assignment now", body = AssignmentState),
    ),
)]
async fn update(
    State(desk): State<Desk>,
    RequestId(request_id): RequestId,
    actor: Actor,
    Json(body): Json<NewStatus>,
) -> Result<Response, Problem> {
    let unknown = UpdateError::Refused(Refusal::NoSuchAssignment);
    let pair = body.driver_id.zip(body.package_id);
    let (driver, package) = pair.ok_or(unknown)?;
    actor.may_act_for(Role::Driver, driver.as_str())?;
    let cause = cause(&request_id, &actor);
    let updated = desk.assignments.update(driver, package, body.status, cause);
    Ok(no_store(&AssignmentState::from(updated.await?.assignment)))
}

fn cause(request_id: &str, actor: &Actor) -> Cause {
    Cause {
        identity: actor.name().map(Arc::from),
        ..request_id.into()
    }
}

/// List assignments
///
/// All that match the filter, page by page: until there is no `next`. A page may have fewer than `limit`, even none.
#[utoipa::path(
    get, path = "/assignments", tag = "assignments", security(("token" = ["dispatcher"])),
    params(
        ("driver_id" = Option<String>, Query, description = "Of this driver"),
        ("package_id" = Option<String>, Query, description = "Of this package"),
        ("status" = Option<String>, Query, description = "Of this status: assigned, accepted, in_progress, delivered or failed_to_deliver"),
        ("date" = Option<String>, Query, description = "Of this day", format = Date),
        ("limit" = Option<u32>, Query, description = "On a page at most; 100 by default", minimum = 1, maximum = 1000),
        ("cursor" = Option<String>, Query, description = "Where the page begins: the `next` of the one before"),
    ),
    responses(
        Stored,
        Parameters,
        (status = 200, description = "A page of them", body = AssignmentPage),
    ),
)]
async fn list_assignments(
    State(desk): State<Desk>,
    Query(query): Query<ListQuery>,
) -> Result<Response, Problem> {
    let Some((filter, after, limit)) = query.into_wanted()? else {
        return Ok(no_store(&AssignmentPage::EMPTY));
    };
    let listing = desk.assignments.list(filter, after, limit).await?;
    let items = listing.assignments.len();
    Ok(no_store_list(items, AssignmentPage::from(listing)).await)
}

/// Summarize a day
///
/// How many packages each driver has, by status, and how many of the day's list have no driver.
#[utoipa::path(
    get, path = "/assignments/summary", tag = "assignments", security(("token" = ["dispatcher"])),
    params(("date" = Option<String>, Query, description = "The day; today (UTC) by default", format = Date)),
    responses(
        Stored,
        Parameters,
        (status = 200, description = "The day", body = DaySummary),
    ),
)]
async fn summarize(
    State(desk): State<Desk>,
    Query(query): Query<ManifestQuery>,
) -> Result<Response, Problem> {
    let day = desk.assignments.day(query.date()?).await?;
    Ok(no_store_list(day.drivers.len(), DaySummary::from(day)).await)
}
