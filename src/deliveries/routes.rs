//! HTTP paths and handlers. The wire format is in `wire`, the mapping of errors in `problems`.

mod problems;
mod wire;

use axum::extract::{FromRef, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use jiff::Timestamp;
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use self::problems::{unknown_delivery, unknown_event};
use self::wire::{
    DeliveryCounts, DeliveryEvents, DeliveryState, KeptEvent, NewEvent, OngoingDeliveries,
};
use super::error::RecordError;
use super::model::{DeliveryId, ID_CHARS_MAX};
use super::service::Deliveries;
use super::store::Recorded;
use crate::access::Role;
use crate::http::Problem;
use crate::http::body::{BodyLimits, Json};
use crate::http::caching::{CachedJson, JsonCache, no_store, no_store_list};
use crate::http::guard::not_its_subject;
use crate::http::params::{Actor, Path, idempotency_key, parsed};
use crate::http::responses::{JsonBody, NotFound, NotModified, Parameters, Stored};
use crate::values::id;

/// State of the handlers.
#[derive(Debug, Clone)]
pub struct Desk {
    deliveries: Deliveries,
    limits: BodyLimits,
    ongoing: JsonCache,
    counts: JsonCache,
}

impl Desk {
    pub fn new(deliveries: Deliveries, limits: BodyLimits) -> Self {
        Self {
            deliveries,
            limits,
            ongoing: JsonCache::default(),
            counts: JsonCache::default(),
        }
    }
}

impl FromRef<Desk> for BodyLimits {
    fn from_ref(desk: &Desk) -> Self {
        desk.limits
    }
}

/// What drones may do on the public listener, if it admits them.
pub fn customer_routes() -> [UtoipaMethodRouter<Desk>; 1] {
    [routes!(record_event)]
}

pub fn staff_routes() -> [UtoipaMethodRouter<Desk>; 5] {
    [
        routes!(record_event, list_events),
        routes!(get_event),
        routes!(get_delivery),
        routes!(list_ongoing),
        routes!(get_counts),
    ]
}

/// Report an event
///
/// Answered once the event is durable. With an `Idempotency-Key`, or an `event_id` in the body, the same event can be sent again,
/// and gets the first answer.
#[utoipa::path(
    post, path = "/deliveries/{delivery_id}/events", tag = "deliveries", security(("token" = ["drone"])),
    request_body(content = NewEvent, content_type = "application/json"),
    params(
        ("delivery_id" = String, Path, description = "The drone's name for its mission", min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9._~-]+$"),
        ("Idempotency-Key" = Option<String>, Header, description = "Names the event within its delivery; 1 to 255 visible ASCII characters",
            min_length = 1, max_length = 255, pattern = "^[!-~]+$"),
    ),
    responses(
        JsonBody,
        RecordError,
        (status = 201, description = "Stored", body = KeptEvent, headers(
            ("Location" = String, description = "The event's URL"),
            ("Idempotency-Replayed" = String, description = "\"true\" if it was stored before"))),
    ),
)]
async fn record_event(
    State(desk): State<Desk>,
    actor: Actor,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(event): Json<NewEvent>,
) -> Result<Response, Problem> {
    let id = own_delivery(&id, &actor)?;
    let key = idempotency_key(&headers, |key| id::key(key).map(Box::from))?
        .or(event.event_id.map(String::into_boxed_str));
    desk.deliveries.check_space()?;
    let recorded = desk
        .deliveries
        .record(id.clone(), event.event_type, key)
        .await?;
    let (event, replayed) = match recorded {
        Recorded::New(event) => (event, false),
        Recorded::Replayed(event) => (event, true),
    };
    let location = format!("/deliveries/{id}/events/{}", event.sequence);
    let mut response = no_store(&KeptEvent::of(&id, &event));
    *response.status_mut() = StatusCode::CREATED;
    let headers = response.headers_mut();
    let location = HeaderValue::try_from(location).expect("an id is made of URL characters");
    headers.insert(header::LOCATION, location);
    if replayed {
        let name = HeaderName::from_static("idempotency-replayed");
        headers.insert(name, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// List a delivery's events
///
/// In order, whether it is ongoing or over.
#[utoipa::path(
    get, path = "/deliveries/{delivery_id}/events", tag = "deliveries", security(("token" = ["drone"])),
    params(("delivery_id" = String, Path, min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9._~-]+$")),
    responses(
        Stored,
        Parameters,
        NotFound,
        (status = 200, description = "All of them", body = DeliveryEvents),
    ),
)]
async fn list_events(
    State(desk): State<Desk>,
    actor: Actor,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let history = desk.deliveries.history(own_delivery(&id, &actor)?).await?;
    let history = history.ok_or_else(unknown_delivery)?;
    let events = history.events.len();
    Ok(no_store_list(events, DeliveryEvents::from(history)).await)
}

/// Get an event
#[utoipa::path(
    get, path = "/deliveries/{delivery_id}/events/{sequence}", tag = "deliveries", security(("token" = ["drone"])),
    params(
        ("delivery_id" = String, Path, min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9._~-]+$"),
        ("sequence" = u32, Path, description = "Its place in the delivery, from 1"),
    ),
    responses(
        Stored,
        Parameters,
        NotFound,
        (status = 200, description = "The event", body = KeptEvent),
    ),
)]
async fn get_event(
    State(desk): State<Desk>,
    actor: Actor,
    Path((id, sequence)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let id = own_delivery(&id, &actor)?;
    let digits = sequence.bytes().all(|b| b.is_ascii_digit());
    let number = sequence.parse().ok().filter(|_| digits);
    let sequence = number.ok_or_else(|| Problem::unreadable("A sequence is a number from 1."))?;
    let event = desk.deliveries.event(id.clone(), sequence).await?;
    let event = event.ok_or_else(unknown_event)?;
    Ok(no_store(&KeptEvent::of(&id, &event)))
}

/// Get a delivery's state
#[utoipa::path(
    get, path = "/deliveries/{delivery_id}", tag = "deliveries", security(("token" = ["drone"])),
    params(("delivery_id" = String, Path, min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9._~-]+$")),
    responses(
        Stored,
        Parameters,
        NotFound,
        (status = 200, description = "Its state", body = DeliveryState),
    ),
)]
async fn get_delivery(
    State(desk): State<Desk>,
    actor: Actor,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let delivery = desk.deliveries.delivery(own_delivery(&id, &actor)?).await?;
    let delivery = delivery.ok_or_else(unknown_delivery)?;
    let stale_from = delivery.stale_from(desk.deliveries.stale_after());
    let state = DeliveryState::of(&delivery, stale_from, desk.deliveries.time());
    Ok(no_store(&state))
}

/// List ongoing deliveries
///
/// Oldest first. Finished ones are available by id.
#[utoipa::path(
    get, path = "/deliveries", tag = "deliveries", security(("token" = ["operator"])),
    params(("If-None-Match" = Option<String>, Header, description = "The `ETag` of a list that the client has")),
    responses(
        Stored,
        NotModified,
        (status = 200, description = "Ongoing deliveries", body = OngoingDeliveries, headers(("ETag" = String))),
    ),
)]
async fn list_ongoing(State(desk): State<Desk>, headers: HeaderMap) -> Result<Response, Problem> {
    let (version, now) = (desk.deliveries.version(), desk.deliveries.time());
    if let Some(page) = desk.ongoing.get(version, now) {
        return Ok(page.answer(&headers));
    }
    let stale_after = desk.deliveries.stale_after();
    // The list changes without an event when the next delivery becomes stale.
    let mut until = Timestamp::MAX;
    let deliveries = desk.deliveries.ongoing().await?;
    let deliveries = deliveries.iter().map(|delivery| {
        let stale_from = delivery.stale_from(stale_after);
        if let Some(from) = stale_from.filter(|&from| from > now) {
            until = until.min(from);
        }
        DeliveryState::of(delivery, stale_from, now)
    });
    let deliveries: Vec<DeliveryState> = deliveries.collect();
    let page = CachedJson::render_list(deliveries.len(), OngoingDeliveries { deliveries }).await?;
    desk.ongoing.put(version, now..until, &page);
    Ok(page.answer(&headers))
}

/// Count deliveries
///
/// Ongoing ones, and all since the beginning.
#[utoipa::path(
    get, path = "/counts", tag = "deliveries", security(("token" = ["operator"])),
    params(("If-None-Match" = Option<String>, Header, description = "The `ETag` of counts that the client has")),
    responses(
        Stored,
        NotModified,
        (status = 200, description = "The numbers", body = DeliveryCounts, headers(("ETag" = String))),
    ),
)]
async fn get_counts(State(desk): State<Desk>, headers: HeaderMap) -> Result<Response, Problem> {
    let (version, now) = (desk.deliveries.version(), Timestamp::now());
    if let Some(page) = desk.counts.get(version, now) {
        return Ok(page.answer(&headers));
    }
    let counts = desk.deliveries.counts().await?;
    let page = CachedJson::render(&DeliveryCounts::from(counts));
    desk.counts
        .put(version, Timestamp::MIN..Timestamp::MAX, &page);
    Ok(page.answer(&headers))
}

/// The delivery, which must be the drone's own: its id is the token's subject, or begins with that and a dot.
fn own_delivery(text: &str, actor: &Actor) -> Result<DeliveryId, Problem> {
    let id = delivery_id(text)?;
    if let Some(drone) = actor.bound_to(Role::Drone) {
        let rest = text.strip_prefix(drone);
        let is_own = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        if !is_own {
            return Err(not_its_subject(drone));
        }
    }
    Ok(id)
}

fn delivery_id(text: &str) -> Result<DeliveryId, Problem> {
    parsed("delivery_id", text, DeliveryId::parse, || {
        format!(
            "An id is 1 to {ID_CHARS_MAX} characters of A-Z, a-z, 0-9 and ._~-, but not . or .. alone."
        )
    })
}
