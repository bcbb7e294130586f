//! HTTP paths and handlers. The wire format is in `wire`.

mod wire;

use axum::extract::{FromRef, State};
use axum::http::StatusCode;
use axum::response::Response;
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use self::wire::{
    CourierDeskStatus, CourierList, CourierPatch, CourierQuery, CourierState, EventOutcome,
    EventPage, LogQuery, NewCourierEvents, OrderQuery, ParkedOrders, ZoneList, ZoneQuery,
    ZoneState,
};
use super::error::PublishError;
use super::model::{Courier, CourierId, OrderId, Whereabouts, Zone};
use super::reading::known_zones;
use super::service::{Couriers, Submitted};
use crate::http::Problem;
use crate::http::body::{AnyJson, BodyLimits};
use crate::http::caching::{no_store, no_store_list};
use crate::http::params::{Path, Query, page_limit, parsed, uuid};
use crate::http::responses::{JsonBody, NotFound, Parameters, Stored};

/// Most orders of a list.
const PARKED_MAX: usize = 1000;

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

pub fn staff_routes() -> [UtoipaMethodRouter<Desk>; 9] {
    [
        routes!(take_in_events),
        routes!(get_orders),
        routes!(get_courier),
        routes!(patch_courier),
        routes!(list_couriers),
        routes!(list_zones),
        routes!(list_parked),
        routes!(list_courier_events),
        routes!(get_status),
    ]
}

/// Report couriers and orders
///
/// One event, or a list of up to 1,000, which are applied in order. If one of them is malformed, none is applied. An order goes to
/// the available courier of its zone with the fewest orders; without one it is parked until there is one. An order that is sent
/// again stays with its courier.
#[utoipa::path(
    post, path = "/events", tag = "couriers", security(("token" = ["courier-feed"])),
    request_body(content = NewCourierEvents, content_type = "application/json"),
    responses(
        JsonBody,
        PublishError,
        (status = 202, description = "Stored; the outcome of each", body = Vec<EventOutcome>),
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
    get, path = "/orders", tag = "couriers", security(("token" = ["courier-feed"])),
    params(("courierId" = Uuid, Query)),
    responses(
        Stored,
        Parameters,
        (status = 200, description = "Their ids; none if the courier is unknown", body = Vec<Uuid>),
    ),
)]
async fn get_orders(
    State(desk): State<Desk>,
    Query(query): Query<CourierQuery>,
) -> Result<Response, Problem> {
    let courier = CourierId(uuid("courierId", &query.courier_id.unwrap_or_default())?);
    let orders = desk.couriers.orders_of(courier).await?;
    Ok(no_store_list(orders.len(), orders).await)
}

/// The courier of an order
///
/// Without one the problem has a `state`: parked or unknown.
#[utoipa::path(
    get, path = "/courier", tag = "couriers", security(("token" = ["courier-feed"])),
    params(("orderId" = Uuid, Query)),
    responses(
        Stored,
        Parameters,
        NotFound,
        (status = 200, description = "The courier's id", body = Uuid, content_type = "application/json"),
    ),
)]
async fn get_courier(
    State(desk): State<Desk>,
    Query(query): Query<OrderQuery>,
) -> Result<Response, Problem> {
    let order = OrderId(uuid("orderId", &query.order_id.unwrap_or_default())?);
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
    patch, path = "/courier/{courier_id}", tag = "couriers", security(("token" = ["courier-feed"])),
    params(("courier_id" = Uuid, Path)),
    request_body(content = CourierPatch, content_type = "application/json"),
    responses(
        JsonBody,
        PublishError,
        (status = 200, description = "Stored", body = bool, content_type = "application/json"),
    ),
)]
async fn patch_courier(
    State(desk): State<Desk>,
    Path(courier): Path<String>,
    AnyJson(patch): AnyJson,
) -> Result<Response, Problem> {
    let courier = CourierId(uuid("courier_id", &courier)?);
    let change = |before: Option<&Courier>| wire::patched(courier, &patch, before);
    desk.couriers.change(courier, change).await?;
    Ok(no_store(&true))
}

/// List couriers, of all zones or of one
#[utoipa::path(
    get, path = "/couriers", tag = "couriers", security(("token" = ["courier-feed"])),
    params(("zone" = Option<String>, Query, description = "N, S, E or W", pattern = "^[NSEW]$")),
    responses(
        Stored,
        Parameters,
        (status = 200, description = "The couriers", body = CourierList),
    ),
)]
async fn list_couriers(
    State(desk): State<Desk>,
    Query(query): Query<ZoneQuery>,
) -> Result<Response, Problem> {
    let zone = query
        .zone
        .map(|letter| parsed("zone", &letter, Zone::parse, known_zones));
    let couriers = desk.couriers.couriers(zone.transpose()?).await?;
    let couriers: Vec<_> = couriers.into_iter().map(CourierState::from).collect();
    Ok(no_store_list(couriers.len(), CourierList { couriers }).await)
}

/// The couriers of each zone
///
/// How many there are, how evenly orders are spread over them, and how many orders are parked.
#[utoipa::path(
    get, path = "/couriers/zones", tag = "couriers", security(("token" = ["courier-feed"])),
    responses(
        Stored,
        (status = 200, description = "The zones", body = ZoneList),
    ),
)]
async fn list_zones(State(desk): State<Desk>) -> Result<Response, Problem> {
    let zones = desk.couriers.zones().await?;
    let zones = zones.into_iter().map(ZoneState::from).collect();
    Ok(no_store(&ZoneList { zones }))
}

/// List parked orders
#[utoipa::path(
    get, path = "/couriers/parked", tag = "couriers", security(("token" = ["courier-feed"])),
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
    get, path = "/couriers/events", tag = "couriers", security(("token" = ["courier-feed"])),
    params(
        ("after" = Option<u64>, Query, description = "The number after which the page begins; 0 by default", format = "whole"),
        ("limit" = Option<u32>, Query, description = "Events on a page at most; 100 by default", minimum = 1, maximum = 1000),
    ),
    responses(
        Stored,
        Parameters,
        (status = 200, description = "A part of the log", body = EventPage),
    ),
)]
async fn list_courier_events(
    State(desk): State<Desk>,
    Query(query): Query<LogQuery>,
) -> Result<Response, Problem> {
    let after = query.after.map_or(Ok(0), |text| {
        let detail = || "It must be a number from 0.";
        parsed("after", &text, |text| text.parse().ok(), detail)
    })?;
    let limit = page_limit(query.limit)?;
    let events = desk.couriers.events(after, limit).await?;
    Ok(no_store_list(events.len(), EventPage::of(events, limit)).await)
}

/// Alive? (of the courier desk)
#[utoipa::path(get, path = "/status", tag = "couriers", security(()), responses((status = 200, description = "`{\"status\":\"ok\"}`", body = CourierDeskStatus)))]
async fn get_status() -> Response {
    no_store(&CourierDeskStatus { status: "ok" })
}
