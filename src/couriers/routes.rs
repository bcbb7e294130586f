//! HTTP paths and handlers. The wire format is in `wire`.

mod wire;

use axum::extract::{FromRef, State};
use axum::http::StatusCode;
use axum::response::Response;
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use self::wire::{
    CourierDeskStatus, CourierList, CourierPatch, CourierQuery, CourierState, EventOutcome,
    EventPage, LogQuery, NewCourierEvents, OrderQuery, ParkedOrders, ZoneQuery,
};
use super::model::{Courier, CourierId, OrderId, Whereabouts, Zone};
use super::service::{Couriers, Submitted};
use crate::http::Problem;
use crate::http::api::with_state;
use crate::http::body::{AnyJson, BodyLimits};
use crate::http::caching::{no_store, no_store_list};
use crate::http::params::{Path, Query};
use crate::http::responses::{JsonBody, NamedById, Stored};

/// Most orders of a list.
const PARKED_MAX: usize = 1000;
/// Events of a page by default, and at most.
const LOG_PAGE: usize = 100;
const LOG_PAGE_MAX: usize = 1000;

/// State of the handlers.
#[derive(Debug, Clone)]
pub struct Desk {
    pub couriers: Couriers,
    pub limits: BodyLimits,
}

impl FromRef<Desk> for BodyLimits {
    fn from_ref(desk: &Desk) -> Self {
        desk.limits
    }
}

pub fn staff_routes(desk: &Desk) -> [UtoipaMethodRouter; 8] {
    let routes = [
        routes!(take_in_events),
        routes!(get_orders),
        routes!(get_courier),
        routes!(patch_courier),
        routes!(list_couriers),
        routes!(list_parked),
        routes!(list_courier_events),
        routes!(get_status),
    ];
    with_state(routes, desk)
}

/// Report couriers and orders
///
/// One event, or a list of up to 1,000, which are applied in order. If one of them is malformed, none is applied. An order goes to
/// the available courier of its zone with the fewest orders; without one it is parked until there is one. An order that is sent
/// again stays with its courier.
#[utoipa::path(
    post, path = "/events", tag = "couriers",
    request_body(content = NewCourierEvents, content_type = "application/json"),
    responses(
        JsonBody,
        (status = 202, description = "Stored; the outcome of each", body = Vec<EventOutcome>),
        (status = 422, description = "An event is invalid, and none was applied; or the topic refuses it, and the others were published", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The storage is busy or down; sent again, what was applied is a duplicate", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn take_in_events(
    State(desk): State<Desk>,
    AnyJson(body): AnyJson,
) -> Result<Response, Problem> {
    let events = wire::events(&body)?;
    let submitted = desk.couriers.submit(events).await;
    let submitted = submitted.map_err(|error| wire::not_published(error, body.is_array()))?;
    let outcomes: Vec<EventOutcome> = match submitted {
        Submitted::Applied(outcomes) => outcomes.into_iter().map(EventOutcome::from).collect(),
        Submitted::Published(count) => (0..count).map(|_| EventOutcome::announced()).collect(),
    };
    let mut response = no_store(&outcomes);
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

/// The orders of a courier
#[utoipa::path(
    get, path = "/orders", tag = "couriers",
    params(("courierId" = Uuid, Query)),
    responses(
        Stored,
        NamedById,
        (status = 200, description = "Their ids; none if the courier is unknown", body = Vec<Uuid>),
    ),
)]
async fn get_orders(
    State(desk): State<Desk>,
    Query(query): Query<CourierQuery>,
) -> Result<Response, Problem> {
    let courier = CourierId(id("courierId", query.courier_id)?);
    let orders = desk.couriers.orders_of(courier).await?;
    Ok(no_store_list(orders.len(), orders).await)
}

/// The courier of an order
#[utoipa::path(
    get, path = "/courier", tag = "couriers",
    params(("orderId" = Uuid, Query)),
    responses(
        Stored,
        NamedById,
        (status = 200, description = "The courier's id", body = Uuid, content_type = "application/json"),
        (status = 404, description = "The order is parked, or unknown; `state` says which", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn get_courier(
    State(desk): State<Desk>,
    Query(query): Query<OrderQuery>,
) -> Result<Response, Problem> {
    let order = OrderId(id("orderId", query.order_id)?);
    match desk.couriers.order(order).await? {
        Some(Whereabouts::With(courier)) => Ok(no_store(&courier)),
        Some(Whereabouts::Parked) => Err(Problem::new(
            StatusCode::NOT_FOUND,
            "order-parked",
            "The order has no courier yet",
            "The order is parked: no courier is available in its zone.",
        )
        .with("state", "parked")),
        None => Err(Problem::new(
            StatusCode::NOT_FOUND,
            "courier-order-unknown",
            "No such order",
            "No order with this id was ever reported.",
        )
        .with("state", "unknown")),
    }
}

/// Change a courier
///
/// Missing fields stay as they are; a new courier needs all of them. Equivalent to an event of this courier. If events go through
/// a queue, the change is published there, and visible after it was received: send all fields if changes follow one another
/// quickly.
#[utoipa::path(
    patch, path = "/courier/{courier_id}", tag = "couriers",
    params(("courier_id" = Uuid, Path)),
    request_body(content = CourierPatch, content_type = "application/json"),
    responses(
        JsonBody,
        Stored,
        (status = 200, description = "Stored", body = bool, content_type = "application/json"),
        (status = 422, description = "Not an id, or a field is missing or not acceptable", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn patch_courier(
    State(desk): State<Desk>,
    Path(courier): Path<String>,
    AnyJson(patch): AnyJson,
) -> Result<Response, Problem> {
    let courier = CourierId(id("courier_id", Some(courier))?);
    let change = |before: Option<&Courier>| wire::patched(courier, &patch, before);
    desk.couriers.change(courier, change).await?;
    Ok(no_store(&true))
}

/// List couriers, of all zones or of one
#[utoipa::path(
    get, path = "/couriers", tag = "couriers",
    params(("zone" = Option<String>, Query, description = "N, S, E or W", pattern = "^[NSEW]$")),
    responses(
        Stored,
        (status = 200, description = "The couriers", body = CourierList),
        (status = 422, description = "Not a zone", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn list_couriers(
    State(desk): State<Desk>,
    Query(query): Query<ZoneQuery>,
) -> Result<Response, Problem> {
    let zone = query.zone.map(|letter| {
        let known = Zone::ALL.map(Zone::as_str).join(", ");
        let wrong = || Problem::invalid_parameter("zone", format!("The zones are {known}."));
        Zone::parse(&letter).ok_or_else(wrong)
    });
    let couriers = desk.couriers.couriers(zone.transpose()?).await?;
    let couriers: Vec<_> = couriers.into_iter().map(CourierState::from).collect();
    Ok(no_store_list(couriers.len(), CourierList { couriers }).await)
}

/// List parked orders
#[utoipa::path(
    get, path = "/couriers/parked", tag = "couriers",
    responses(
        Stored,
        (status = 200, description = "Parked orders", body = ParkedOrders),
    ),
)]
async fn list_parked(State(desk): State<Desk>) -> Result<Response, Problem> {
    let (orders, total) = desk.couriers.parked(PARKED_MAX).await?;
    Ok(no_store_list(orders.len(), ParkedOrders::of(orders, total)).await)
}

/// List the event log
///
/// Every event with its outcome, in the order in which they were applied.
#[utoipa::path(
    get, path = "/couriers/events", tag = "couriers",
    params(
        ("after" = Option<u64>, Query, description = "The number after which the page begins; 0 by default", format = "whole"),
        ("limit" = Option<u32>, Query, description = "Events on a page at most; 100 by default", minimum = 1, maximum = 1000),
    ),
    responses(
        Stored,
        (status = 200, description = "A part of the log", body = EventPage),
        (status = 422, description = "Not a number", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn list_courier_events(
    State(desk): State<Desk>,
    Query(query): Query<LogQuery>,
) -> Result<Response, Problem> {
    let after = query.after.map_or(Ok(0), |text| {
        let wrong = |_| Problem::invalid_parameter("after", "It must be a number from 0.");
        text.parse().map_err(wrong)
    })?;
    let limit = query.limit.map_or(Ok(LOG_PAGE), |text| {
        let limit = text.parse().ok();
        let limit = limit.filter(|limit| (1..=LOG_PAGE_MAX).contains(limit));
        let detail = format!("It must be a number from 1 to {LOG_PAGE_MAX}.");
        limit.ok_or_else(|| Problem::invalid_parameter("limit", detail))
    })?;
    let events = desk.couriers.events(after, limit).await?;
    Ok(no_store_list(events.len(), EventPage::of(events, limit)).await)
}

/// Alive? (of the courier desk)
#[utoipa::path(get, path = "/status", tag = "couriers", responses((status = 200, description = "`{\"status\":\"ok\"}`", body = CourierDeskStatus)))]
async fn get_status() -> Response {
    no_store(&CourierDeskStatus { status: "ok" })
}

fn id(parameter: &'static str, text: Option<String>) -> Result<Uuid, Problem> {
    let text = text.unwrap_or_default();
    let wrong = |_| Problem::invalid_parameter(parameter, "It must be a UUID.");
    text.parse().map_err(wrong)
}
