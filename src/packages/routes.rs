//! HTTP paths and handlers. The wire format is in `wire`.

mod wire;

use axum::extract::{FromRef, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use self::wire::{
    NewPackage, NewPreferences, PackageState, PackageStatistics, Preferences, SentPackage,
};
use super::model::{ID_CHARS_MAX, Id};
use super::service::Packages;
use crate::access::Role;
use crate::http::Problem;
use crate::http::body::{AnyJson, BodyLimits, Ignored};
use crate::http::caching::{CachedJson, JsonCache, no_store};
use crate::http::params::{Actor, Path, Query, parsed};
use crate::http::responses::{IgnoredBody, JsonBody, NotFound, NotModified, Parameters, Stored};
use crate::values::id::bytes_max;

/// Escapes all but RFC 3986's unreserved characters (section 2.3), and the dot: `..` would be another path.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~');

/// State of the handlers.
#[derive(Debug, Clone)]
pub struct Desk {
    packages: Packages,
    limits: BodyLimits,
    /// Senders are known by their tokens: each has package ids of their own.
    by_sender: bool,
    statistics: JsonCache,
}

impl Desk {
    pub fn new(packages: Packages, limits: BodyLimits, by_sender: bool) -> Self {
        Self {
            packages,
            limits,
            by_sender,
            statistics: JsonCache::default(),
        }
    }

    /// Counts malformed requests, and refuses the others while space is low.
    fn checked<T>(&self, read: Result<T, Problem>) -> Result<T, Problem> {
        if read.is_err() {
            self.packages.reject();
        }
        let read = read?;
        self.packages.check_space()?;
        Ok(read)
    }

    /// What the ledger calls a package.
    fn ledger_id(&self, id: &Id, sender: Option<&Id>) -> Id {
        let sender = sender.filter(|_| self.by_sender);
        sender.map_or_else(|| id.clone(), |sender| id.of_sender(sender))
    }
}

impl FromRef<Desk> for BodyLimits {
    fn from_ref(desk: &Desk) -> Self {
        desk.limits
    }
}

pub fn customer_routes() -> [UtoipaMethodRouter<Desk>; 5] {
    [
        routes!(send_package),
        routes!(get_package),
        routes!(update_preferences),
        routes!(get_preferences),
        routes!(get_statistics),
    ]
}

pub fn staff_routes() -> [UtoipaMethodRouter<Desk>; 3] {
    [
        routes!(get_package),
        routes!(get_preferences, reset_preferences),
        routes!(get_statistics),
    ]
}

/// Send a package
///
/// Delivered, or dropped if its recipient has declined its type: 201. The `package_id` alone identifies it: if it was sent before,
/// by any sender, it is not processed again, and the answer is 200 with the first outcome. Where tokens are required, by this sender:
/// each has ids of their own, and sends as itself.
#[utoipa::path(
    post, path = "/packages", tag = "packages", security(("token" = ["sender"])),
    request_body(content = NewPackage, content_type = "application/json"),
    responses(
        JsonBody,
        Stored,
        (status = 201, description = "Processed", body = SentPackage, headers(("Location" = String, description = "Its URL"))),
        (status = 200, description = "Processed before; its first outcome", body = SentPackage),
    ),
)]
async fn send_package(
    State(desk): State<Desk>,
    actor: Actor,
    body: Result<AnyJson, Problem>,
) -> Result<Response, Problem> {
    let types = desk.packages.types();
    let package = body.and_then(|AnyJson(json)| wire::package(&json, types));
    let mut package = desk.checked(package)?;
    actor.may_act_for(Role::Sender, package.sender.as_str())?;
    let id = package.id.clone();
    // Of a token for several senders, the sender must be named.
    let named = desk.by_sender && actor.bound_to(Role::Sender).is_none();
    let sender = named.then(|| package.sender.clone());
    package.id = desk.ledger_id(&id, Some(&package.sender));
    let sent = desk.packages.send(package).await?;
    let first = !sent.duplicate;
    let mut response = no_store(&SentPackage::of(&id, sent));
    if first {
        *response.status_mut() = StatusCode::CREATED;
        let encoded = |id: &Id| utf8_percent_encode(id.as_str(), RESERVED).to_string();
        let query = sender.map(|sender| format!("?sender={}", encoded(&sender)));
        let location = format!("/packages/{}{}", encoded(&id), query.unwrap_or_default());
        if let Ok(location) = HeaderValue::try_from(location) {
            response.headers_mut().insert(header::LOCATION, location);
        }
    }
    Ok(response)
}

#[derive(Debug, serde::Deserialize)]
struct PackageQuery {
    sender: Option<String>,
}

/// Get a package's outcome
#[utoipa::path(
    get, path = "/packages/{package_id}", tag = "packages", security(("token" = ["sender"])),
    params(
        ("package_id" = String, Path, min_length = 1, max_length = 128),
        ("sender" = Option<String>, Query, description = "Whose package, where tokens are required; default: the subject of a sender's token"),
    ),
    responses(
        Stored,
        Parameters,
        NotFound,
        (status = 200, description = "What became of it", body = PackageState),
    ),
)]
async fn get_package(
    State(desk): State<Desk>,
    actor: Actor,
    Path(id): Path<String>,
    Query(PackageQuery { sender }): Query<PackageQuery>,
) -> Result<Response, Problem> {
    let id = parsed_id("package_id", &id)?;
    let own = actor.bound_to(Role::Sender);
    let sender = sender
        .as_deref()
        .or(own)
        .map(|sender| parsed_id("sender", sender));
    let sender = sender.transpose()?;
    if let Some(sender) = &sender {
        actor.may_act_for(Role::Sender, sender.as_str())?;
    }
    let named = desk.ledger_id(&id, sender.as_ref());
    let processed = desk.packages.package(named).await?;
    let processed = processed.ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            "package-unknown",
            "No such package",
            "No package with this id was ever sent, or it has expired.",
        )
    })?;
    Ok(no_store(&PackageState::of(&id, processed)))
}

/// Set preferences
///
/// Per type the preference with the latest `timestamp` holds, in whatever order updates arrive; of two with the same timestamp, the
/// refusal. A type that is not in the update keeps its preference; `personal_preference` and `marketing_preference` are required.
/// With `packages.future_max` a `timestamp` further ahead of the server's clock is answered 422.
#[utoipa::path(
    put, path = "/preferences", tag = "packages", security(("token" = ["recipient-service"])),
    request_body(content = NewPreferences, content_type = "application/json"),
    responses(
        JsonBody,
        Stored,
        (status = 200, description = "The preferences after it", body = Preferences),
    ),
)]
async fn update_preferences(
    State(desk): State<Desk>,
    actor: Actor,
    body: Result<AnyJson, Problem>,
) -> Result<Response, Problem> {
    let types = desk.packages.types();
    let latest = desk.packages.latest(Timestamp::now());
    let update = body.and_then(|AnyJson(json)| wire::update(&json, types, latest));
    let update = desk.checked(update)?;
    actor.may_act_for(Role::RecipientService, update.recipient.as_str())?;
    let recipient = update.recipient.clone();
    let (taken, applied) = desk.packages.update(update).await?;
    let preferences = wire::preferences(&recipient, types, taken, Some(applied));
    Ok(no_store(&preferences))
}

/// Get preferences
///
/// Without preferences: the defaults.
#[utoipa::path(
    get, path = "/preferences/{recipient_id}", tag = "packages", security(("token" = ["recipient-service"])),
    params(("recipient_id" = String, Path, min_length = 1, max_length = 128)),
    responses(
        Stored,
        Parameters,
        (status = 200, description = "What they take", body = Preferences),
    ),
)]
async fn get_preferences(
    State(desk): State<Desk>,
    actor: Actor,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let recipient = parsed_id("recipient_id", &id)?;
    actor.may_act_for(Role::RecipientService, recipient.as_str())?;
    let taken = desk.packages.preferences(recipient.clone()).await?;
    let preferences = wire::preferences(&recipient, desk.packages.types(), taken, None);
    Ok(no_store(&preferences))
}

/// Reset a recipient's preferences
///
/// For a recipient who is locked out by a preference with a `timestamp` far in the future. The defaults hold from now on, and the
/// next preference is applied whatever its `timestamp`, also an older one that arrives late: let the recipient set their preferences
/// again. Idempotent. Packages that were processed before keep their outcome.
#[utoipa::path(
    delete, path = "/preferences/{recipient_id}", tag = "packages", security(("token" = ["operator"])),
    params(("recipient_id" = String, Path, min_length = 1, max_length = 128)),
    responses(
        IgnoredBody,
        Stored,
        Parameters,
        (status = 200, description = "The preferences now: the defaults", body = Preferences),
    ),
)]
async fn reset_preferences(
    State(desk): State<Desk>,
    Path(id): Path<String>,
    _: Ignored,
) -> Result<Response, Problem> {
    let recipient = parsed_id("recipient_id", &id)?;
    let taken = desk.packages.reset(recipient.clone()).await?;
    let preferences = wire::preferences(&recipient, desk.packages.types(), taken, None);
    Ok(no_store(&preferences))
}

/// Get statistics
///
/// Since the beginning. Dropped packages are valid ones that their recipients had declined.
#[utoipa::path(
    get, path = "/statistics", tag = "packages", security(("token" = ["sender", "recipient-service"])),
    params(("If-None-Match" = Option<String>, Header, description = "The `ETag` of statistics that the client has")),
    responses(
        Stored,
        NotModified,
        (status = 200, description = "The numbers", body = PackageStatistics, headers(("ETag" = String))),
    ),
)]
async fn get_statistics(State(desk): State<Desk>, headers: HeaderMap) -> Result<Response, Problem> {
    let version = desk.packages.version();
    if let Some(page) = desk.statistics.get(version, Timestamp::now()) {
        return Ok(page.answer(&headers));
    }
    let statistics = desk.packages.statistics().await?;
    let page = CachedJson::render(&PackageStatistics::from(statistics));
    desk.statistics
        .put(version, Timestamp::MIN..Timestamp::MAX, &page);
    Ok(page.answer(&headers))
}

fn parsed_id(parameter: &'static str, text: &str) -> Result<Id, Problem> {
    parsed(parameter, text, Id::parse, || {
        format!(
            "An id has 1 to {ID_CHARS_MAX} characters and at most {} bytes of UTF-8, no control characters, and no `.` or \
             `..` alone between slashes.",
            bytes_max(ID_CHARS_MAX)
        )
    })
}
