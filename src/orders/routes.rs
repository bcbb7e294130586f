//! The order line over HTTP: paths, what goes over the wire, and which problem each error is.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRef, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use garde::Validate;
use http_body_util::Full;
use hyper::body::{Frame, SizeHint};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::error::{CancelError, FenceError, FinishError, PlaceError};
use super::hold::HandOver as Handing;
use super::model::{
    BARISTA_CHARS_MAX, CUSTOMER_CHARS_MAX, DRINK, Handed, IdempotencyKey, Keyed, Order, OrderId,
    Outcome, View,
};
use super::service::{Counter, Orders, Placement, Report};
use crate::flood::routes::purged;
use crate::flood::{Admission, Flood};
use crate::http::Problem;
use crate::http::body::{BodyLimits, Ignored, OptionalJson};
use crate::http::params::{Path, Query};

/// The longest a request may ask to be held for with `wait`, in seconds: below the 60 s after which proxies give up.
pub const WAIT_SECS_MAX: u64 = 55;

type HandOver = Handing<Mutex<Counter>>;

/// What the handlers share.
#[derive(Debug, Clone)]
pub struct Desk {
    /// The line.
    pub orders: Orders,
    /// Who may place an order.
    pub flood: Flood,
    /// Bounds of request bodies.
    pub limits: BodyLimits,
}

impl FromRef<Desk> for Flood {
    fn from_ref(desk: &Desk) -> Self {
        desk.flood.clone()
    }
}

impl FromRef<Desk> for BodyLimits {
    fn from_ref(desk: &Desk) -> Self {
        desk.limits
    }
}

/// What customers may do.
pub fn customer_routes(desk: &Desk) -> [UtoipaMethodRouter; 2] {
    [routes!(place_order), routes!(get_order, delete_order)]
        .map(|(schemas, paths, methods)| (schemas, paths, methods.with_state(desk.clone())))
}

/// What baristas may do.
pub fn staff_routes(desk: &Desk) -> [UtoipaMethodRouter; 4] {
    let (schemas, paths, methods) = routes!(start_order);
    // Where there is GET, axum answers HEAD too, by calling the handler and dropping its body. Here that takes an order.
    let refuse = async || Problem::no_such_method().allow("GET");
    let methods = methods.head(refuse).fallback(refuse);
    [
        (schemas, paths, methods),
        routes!(finish_order),
        routes!(extend_order),
        routes!(release_order),
    ]
    .map(|(schemas, paths, methods)| (schemas, paths, methods.with_state(desk.clone())))
}

// --- Customers -----------------------------------------------------------------------------------------------------

/// An order, as a customer sends it.
#[derive(Debug, Deserialize, Validate, ToSchema)]
struct NewOrder {
    /// The customer's name, 1 to 200 characters.
    #[garde(length(chars, min = 1, max = CUSTOMER_CHARS_MAX))]
    #[schema(min_length = 1, max_length = 200, example = "Ada")]
    customer: Option<String>,
}

/// A coffee that is ready.
#[derive(Debug, Serialize, ToSchema)]
struct ReadyOrder {
    /// UUID version 7.
    order_id: Uuid,
    #[schema(example = "americano")]
    drink: &'static str,
    #[schema(example = "ready")]
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    customer: Option<Box<str>>,
    /// How often it was handed to a barista.
    #[schema(minimum = 1)]
    attempts: u32,
    #[schema(value_type = String, format = DateTime)]
    placed_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    finished_at: Timestamp,
    /// Time in line, milliseconds.
    waited_ms: u64,
    /// From the last start to the finish, milliseconds.
    brew_ms: u64,
}

impl ReadyOrder {
    fn of(order: &Order) -> Self {
        // A ready order has both moments; its placing stands in for a moment that were missing.
        let started = order.started.unwrap_or(order.placed);
        let ended = order.ended.unwrap_or(order.placed);
        Self {
            order_id: order.id.0,
            drink: DRINK,
            status: order.stage.as_str(),
            customer: order.customer.clone(),
            attempts: order.attempts,
            placed_at: order.placed.wall,
            started_at: started.wall,
            finished_at: ended.wall,
            waited_ms: millis(order.waited(ended)),
            brew_ms: millis(order.brewed(ended)),
        }
    }
}

/// An order, as somebody who asks sees it.
#[derive(Debug, Serialize, ToSchema)]
struct OrderState {
    /// UUID version 7.
    order_id: Uuid,
    #[schema(example = "americano")]
    drink: &'static str,
    /// waiting, brewing, ready or cancelled.
    #[schema(example = "waiting")]
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    customer: Option<Box<str>>,
    /// Place in line while waiting; 1 is next.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, nullable = false)]
    position: Option<usize>,
    /// Until it is ready, by the crew's measured pace, milliseconds; absent while nothing is measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    estimated_wait_ms: Option<u64>,
    /// How often it was handed to a barista.
    attempts: u32,
    #[schema(value_type = String, format = DateTime)]
    placed_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = DateTime, nullable = false)]
    started_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = DateTime, nullable = false)]
    finished_at: Option<Timestamp>,
}

impl From<View> for OrderState {
    fn from(view: View) -> Self {
        let order = view.order;
        Self {
            order_id: order.id.0,
            drink: DRINK,
            status: order.stage.as_str(),
            customer: order.customer,
            position: view.position,
            estimated_wait_ms: view.estimated_wait.map(millis),
            attempts: order.attempts,
            placed_at: order.placed.wall,
            started_at: order.started.map(|at| at.wall),
            finished_at: order.ended.map(|at| at.wall),
        }
    }
}

/// Order an americano
///
/// The request is held until the coffee is ready, however long it takes. Leaving before a barista has started takes the
/// order out of the line; with an `Idempotency-Key` the place is kept for a while, and sending the request again takes
/// it up. With `Prefer: wait=N` the answer is 202 after N seconds, with `Prefer: respond-async` at once; the order then
/// stays in line whatever happens, and is asked for at its `Location`.
#[utoipa::path(
    post, path = "/order/", tag = "orders",
    request_body(content = Option<NewOrder>, content_type = "application/json"),
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "Names the order; 1 to 255 visible ASCII characters, hard to guess: whoever knows it gets the order",
            min_length = 1, max_length = 255, pattern = "^[!-~]+$"),
        ("Prefer" = Option<String>, Header, description = "wait=N or respond-async (RFC 7240)"),
    ),
    responses(
        (status = 200, description = "The coffee is ready", body = ReadyOrder),
        (status = 202, description = "In line, as preferred", body = OrderState, headers(("Location" = String, description = "Where to ask for the order"))),
        (status = 400, description = "Not JSON, or a malformed Idempotency-Key", body = Problem, content_type = "application/problem+json"),
        (status = 408, description = "The body took too long", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The order was cancelled", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON by its type", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is not acceptable, or the key came with another body", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many orders from this address, or it is cut off", body = Problem, content_type = "application/problem+json",
            headers(("Retry-After" = u32, description = "Seconds, at least 1"), ("RateLimit" = String), ("RateLimit-Policy" = String))),
        (status = 503, description = "The line is full, or the server is stopping", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn place_order(
    // First, so that who is cut off costs least.
    admission: Admission,
    State(desk): State<Desk>,
    headers: HeaderMap,
    body: OptionalJson<NewOrder>,
) -> Response {
    // Everything of the request is dropped before the wait: a held customer costs memory for each byte kept.
    let (placement, wait) = match placement(&desk.orders, &admission, headers, body) {
        Ok(placed) => placed,
        Err(problem) => return problem.into_response(),
    };
    match (placement, wait) {
        (Placement::Replayed(outcome), _) => {
            let mut response = outcome_response(&outcome);
            let replayed = HeaderValue::from_static("true");
            response
                .headers_mut()
                .insert("idempotency-replayed", replayed);
            response
        }
        (Placement::Promised(id), wait) => promised(&desk.orders, admission, id, wait),
        (Placement::Held(held), None) => {
            // The handle is not needed while waiting.
            drop(desk);
            outcome_response(&held.await)
        }
        (Placement::Held(held), Some(wait)) => {
            Box::pin(held_for(desk.orders, admission, held, wait)).await
        }
    }
}

type Held = super::hold::Held<Mutex<Counter>>;

async fn held_for(
    orders: Orders,
    admission: Admission,
    mut held: Held,
    wait: Duration,
) -> Response {
    if let Ok(outcome) = tokio::time::timeout(wait, &mut held).await {
        return outcome_response(&outcome);
    }
    let id = held.order();
    match held.promise() {
        Ok(()) => promised(&orders, admission, id, Some(wait)),
        Err(held) => outcome_response(&held.await),
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the request ends here; see place_order"
)]
fn placement(
    orders: &Orders,
    admission: &Admission,
    headers: HeaderMap,
    body: OptionalJson<NewOrder>,
) -> Result<(Placement<Mutex<Counter>>, Option<Duration>), Problem> {
    let keyed = keyed(&headers, &body.raw)?;
    let wait = preferred_wait(&headers);
    let customer = body
        .value
        .and_then(|order| order.customer)
        .map(String::into_boxed_str);
    let hold = wait.is_none_or(|wait| !wait.is_zero());
    let placement = orders.place(customer, admission.address(), keyed, hold)?;
    // From here on a purge would find it; one that came between the admission and this moment did not.
    admission.settled();
    Ok((placement, wait))
}

fn keyed(headers: &HeaderMap, body: &Bytes) -> Result<Option<Keyed>, Problem> {
    let Some(key) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let key = IdempotencyKey::parse(key.as_bytes()).ok_or_else(|| {
        Problem::unreadable("Idempotency-Key must be 1 to 255 visible ASCII characters.")
    })?;
    let mut fingerprint = DefaultHasher::new();
    body.hash(&mut fingerprint);
    Ok(Some(Keyed {
        key,
        fingerprint: fingerprint.finish(),
    }))
}

/// How long the client prefers to be held (RFC 7240, sections 4.1 and 4.3); nothing means for ever. What cannot be
/// understood is ignored, as the RFC wants it.
fn preferred_wait(headers: &HeaderMap) -> Option<Duration> {
    let mut wait = None;
    let mut respond_async = false;
    for header in headers.get_all("prefer") {
        for preference in header.to_str().unwrap_or_default().split(',') {
            let preference = preference.split(';').next().unwrap_or_default();
            let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "respond-async" => respond_async = true,
                "wait" => wait = value.trim().trim_matches('"').parse().ok().or(wait),
                _ => {}
            }
        }
    }
    wait.map(|secs: u32| Duration::from_secs(u64::from(secs)))
        .or(respond_async.then_some(Duration::ZERO))
}

/// The order goes on counting as its address's for as long as it is not ready, though nobody holds it.
fn promised(
    orders: &Orders,
    admission: Admission,
    id: OrderId,
    wait: Option<Duration>,
) -> Response {
    orders.keep(id, Box::new(admission));
    accepted(orders, id, wait)
}

fn accepted(orders: &Orders, id: OrderId, wait: Option<Duration>) -> Response {
    let Some(view) = orders.view(id) else {
        // Promised, finished and forgotten, all within this call: the answer is where it would have been.
        return unknown_order().into_response();
    };
    let applied = match wait {
        Some(wait) if !wait.is_zero() => format!("wait={}", wait.as_secs()),
        _ => "respond-async".to_owned(),
    };
    let headers = [
        (header::LOCATION, format!("/orders/{id}")),
        (
            header::HeaderName::from_static("preference-applied"),
            applied,
        ),
    ];
    (
        StatusCode::ACCEPTED,
        headers,
        no_store(&OrderState::from(view)),
    )
        .into_response()
}

fn outcome_response(outcome: &Outcome) -> Response {
    match outcome {
        Outcome::Ready(order) => no_store(&ReadyOrder::of(order)),
        Outcome::Cancelled(order) => cancelled(order).into_response(),
        Outcome::CutOff(time) => purged(*time).into_response(),
        Outcome::Closing => Problem::stopping().into_response(),
    }
}

fn cancelled(order: &Order) -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "order-cancelled",
        "The order was cancelled",
        "The order was taken out of the line before anybody brewed it.",
    )
    .with("order_id", order.id.to_string())
    .with("state", order.stage.as_str())
}

/// `wait` of a request that asks.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Waiting {
    /// Hold the request until there is something to tell, for so many seconds at most.
    #[serde(default)]
    #[param(minimum = 0, maximum = 55, default = 0)]
    wait: u64,
}

/// Where an order stands
///
/// With `wait` the request is held until the order is ready or cancelled, or the time is over; the order as it stands
/// then is the answer.
#[utoipa::path(
    get, path = "/orders/{order_id}", tag = "orders",
    params(("order_id" = Uuid, Path), Waiting),
    responses(
        (status = 200, body = OrderState),
        (status = 400, description = "Not an order id, or an unreadable query", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "Unknown, or no longer remembered", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`wait` is out of bounds", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn get_order(
    State(desk): State<Desk>,
    Path(id): Path<String>,
    Query(Waiting { wait }): Query<Waiting>,
    _: Ignored,
) -> Result<Response, Problem> {
    let id = order_id(&id)?;
    let wait = bounded_wait("wait", wait)?;
    let view = if wait.is_zero() {
        desk.orders.view(id)
    } else {
        Box::pin(desk.orders.view_within(id, wait)).await
    };
    let view = view.ok_or_else(unknown_order)?;
    Ok(no_store(&OrderState::from(view)))
}

/// Cancel an order
///
/// While it waits. Requests held for it are answered 409.
#[utoipa::path(
    delete, path = "/orders/{order_id}", tag = "orders",
    params(("order_id" = Uuid, Path)),
    responses(
        (status = 200, body = OrderState),
        (status = 400, description = "Not an order id", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "Unknown, or no longer remembered", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Being brewed, or ready", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn delete_order(
    State(desk): State<Desk>,
    Path(id): Path<String>,
    _: Ignored,
) -> Result<Response, Problem> {
    let order = desk.orders.cancel(order_id(&id)?)?;
    let view = View {
        order: Order::clone(&order),
        position: None,
        estimated_wait: None,
    };
    Ok(no_store(&OrderState::from(view)))
}

// --- Baristas ------------------------------------------------------------------------------------------------------

/// An order, as a barista gets it.
#[derive(Debug, Serialize, ToSchema)]
struct StartedOrder {
    /// UUID version 7.
    order_id: Uuid,
    #[schema(example = "americano")]
    drink: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    customer: Option<Box<str>>,
    /// Which hand-over of this order it is.
    #[schema(minimum = 1)]
    attempt: u32,
    #[schema(value_type = String, format = DateTime)]
    placed_at: Timestamp,
    /// Time in line, milliseconds.
    waited_ms: u64,
    /// Until then it is this barista's, unless extended.
    #[schema(value_type = String, format = DateTime)]
    lease_expires_at: Timestamp,
    /// Whether somebody is waiting for it right now.
    customer_waiting: bool,
}

impl StartedOrder {
    fn of(handed: &Handed) -> Self {
        Self {
            order_id: handed.id.0,
            drink: DRINK,
            customer: handed.customer.clone(),
            attempt: handed.attempt,
            placed_at: handed.placed_at,
            waited_ms: millis(handed.waited),
            lease_expires_at: handed.lease_expires_at,
            customer_waiting: handed.customer_waiting,
        }
    }
}

/// A coffee reported ready.
#[derive(Debug, Serialize, ToSchema)]
struct FinishedOrder {
    /// UUID version 7.
    order_id: Uuid,
    #[schema(example = "ready")]
    status: &'static str,
    /// Whether somebody was there to receive it.
    delivered: bool,
    /// It had been reported before; nothing has changed.
    already: bool,
    /// How often it was handed to a barista.
    #[schema(minimum = 1)]
    attempts: u32,
    /// The latest barista it was handed to, if they gave a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    barista: Option<Box<str>>,
    #[schema(value_type = String, format = DateTime)]
    finished_at: Timestamp,
    /// Time in line, milliseconds.
    waited_ms: u64,
    /// From the last start to the finish, milliseconds.
    brew_ms: u64,
}

impl FinishedOrder {
    fn of(Report { order, already }: &Report) -> Self {
        let ended = order.ended.unwrap_or(order.placed);
        Self {
            order_id: order.id.0,
            status: order.stage.as_str(),
            delivered: order.delivered,
            already: *already,
            attempts: order.attempts,
            barista: order.barista.clone(),
            finished_at: ended.wall,
            waited_ms: millis(order.waited(ended)),
            brew_ms: millis(order.brewed(ended)),
        }
    }
}

/// The answer to a finish with `next`.
#[derive(Debug, Serialize, ToSchema)]
struct FinishedAndNext {
    finished: FinishedOrder,
    /// The next order, as from `/start/`; null if nobody waits.
    next: Option<StartedOrder>,
}

/// Parameters of a pull.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Pull {
    /// Hold the request until there is an order, for so many seconds at most.
    #[serde(default)]
    #[param(minimum = 0, maximum = 55, default = 0)]
    wait: u64,
    /// The barista's name, recorded with the order; 1 to 64 characters.
    #[param(min_length = 1, max_length = 64)]
    barista: Option<String>,
}

/// Take the oldest order
///
/// It is the barista's for the time of the lease. If the request ends before the answer is on its way, the order keeps
/// its place.
#[utoipa::path(
    get, path = "/start/", tag = "orders", params(Pull),
    responses(
        (status = 200, body = StartedOrder),
        (status = 204, description = "Nobody waits"),
        (status = 400, description = "Unreadable query", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A parameter is out of bounds", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn start_order(
    State(desk): State<Desk>,
    version: Version,
    Query(pull): Query<Pull>,
    _: Ignored,
) -> Result<Response, Problem> {
    let wait = bounded_wait("wait", pull.wait)?;
    let barista = barista_name(pull.barista)?;
    Ok(match take(&desk.orders, barista, wait).await {
        Some(hand_over) => {
            let json = to_json(&StartedOrder::of(hand_over.handed()));
            handing_over(json, Some(hand_over), version)
        }
        None => (no_store_header(), StatusCode::NO_CONTENT).into_response(),
    })
}

async fn take(orders: &Orders, barista: Option<Box<str>>, wait: Duration) -> Option<HandOver> {
    if wait.is_zero() {
        return orders.pull(barista);
    }
    orders.pull_within(barista, wait).await
}

/// Parameters of a finish.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Finish {
    /// The order.
    #[param(value_type = Uuid, required = true)]
    order_id: Option<String>,
    /// Only if this hand-over is still the current one.
    #[param(minimum = 1)]
    attempt: Option<u32>,
    /// Then take the next order, as `/start/?wait=` would.
    #[param(minimum = 0, maximum = 55)]
    next: Option<u64>,
    /// The barista's name, recorded with the next order; 1 to 64 characters.
    #[param(min_length = 1, max_length = 64)]
    barista: Option<String>,
}

/// Report an order ready
///
/// Everybody held for it is answered 200. The first report counts, whoever brings it; with `attempt` only if that
/// hand-over is still the current one. With `next` the answer is `{"finished": …, "next": …}`.
#[utoipa::path(
    post, path = "/finish/", tag = "orders", params(Finish),
    responses(
        (status = 200, body = inline(FinishAnswer)),
        (status = 400, description = "No order id, or not one, or an unreadable query", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "Unknown, or no longer remembered", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Never started, or another attempt is current", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A parameter is out of bounds", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn finish_order(
    State(desk): State<Desk>,
    version: Version,
    Query(finish): Query<Finish>,
    _: Ignored,
) -> Result<Response, Problem> {
    let id = order_id(finish.order_id.as_deref().unwrap_or_default())?;
    let next = finish
        .next
        .map(|next| bounded_wait("next", next))
        .transpose()?;
    let barista = barista_name(finish.barista)?;
    let finished = FinishedOrder::of(&desk.orders.finish(id, finish.attempt)?);
    let Some(wait) = next else {
        return Ok(no_store(&finished));
    };
    let hand_over = take(&desk.orders, barista, wait).await;
    let json = to_json(&FinishedAndNext {
        finished,
        next: hand_over
            .as_ref()
            .map(|next| StartedOrder::of(next.handed())),
    });
    Ok(handing_over(json, hand_over, version))
}

/// The answer to a finish: plain, or with `next`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes the two forms to readers of the API")]
enum FinishAnswer {
    Plain(FinishedOrder),
    WithNext(FinishedAndNext),
}

/// Parameters that name a hand-over.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Lease {
    /// The order.
    #[param(value_type = Uuid, required = true)]
    order_id: Option<String>,
    /// Only if this hand-over is still the current one.
    #[param(minimum = 1)]
    attempt: Option<u32>,
}

/// A renewed lease.
#[derive(Debug, Serialize, ToSchema)]
struct ExtendedOrder {
    /// UUID version 7.
    order_id: Uuid,
    /// Which hand-over of this order it is.
    #[schema(minimum = 1)]
    attempt: u32,
    #[schema(value_type = String, format = DateTime)]
    lease_expires_at: Timestamp,
    /// Whether somebody is waiting for it right now.
    customer_waiting: bool,
}

/// Renew the lease
///
/// From now, for its full length.
#[utoipa::path(
    post, path = "/extend/", tag = "orders", params(Lease),
    responses(
        (status = 200, body = ExtendedOrder),
        (status = 400, description = "No order id, or not one, or an unreadable query", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "Unknown, or no longer remembered", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Not being brewed, or another attempt is current", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn extend_order(
    State(desk): State<Desk>,
    Query(lease): Query<Lease>,
    _: Ignored,
) -> Result<Response, Problem> {
    let id = order_id(lease.order_id.as_deref().unwrap_or_default())?;
    let handed = desk.orders.extend(id, lease.attempt)?;
    Ok(no_store(&ExtendedOrder {
        order_id: handed.id.0,
        attempt: handed.attempt,
        lease_expires_at: handed.lease_expires_at,
        customer_waiting: handed.customer_waiting,
    }))
}

/// An order given back.
#[derive(Debug, Serialize, ToSchema)]
struct ReleasedOrder {
    /// UUID version 7.
    order_id: Uuid,
}

/// Give an order back
///
/// It returns to its original place at once.
#[utoipa::path(
    post, path = "/release/", tag = "orders", params(Lease),
    responses(
        (status = 200, body = ReleasedOrder),
        (status = 400, description = "No order id, or not one, or an unreadable query", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "Unknown, or no longer remembered", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Not being brewed, or another attempt is current", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn release_order(
    State(desk): State<Desk>,
    Query(lease): Query<Lease>,
    _: Ignored,
) -> Result<Response, Problem> {
    let id = order_id(lease.order_id.as_deref().unwrap_or_default())?;
    desk.orders.release(id, lease.attempt)?;
    Ok(no_store(&ReleasedOrder { order_id: id.0 }))
}

// --- The answer that carries an order ------------------------------------------------------------------------------

/// A body that carries an order to its barista. Until the connection has taken the bytes the order can still go back.
///
/// Over HTTP/1.1 hyper asks for the bytes when it has room for them, and not again once it has them all: the moment it
/// asks is the moment. Over HTTP/2 it asks before the client has granted any window, and asks again after the bytes have
/// gone: there the second time is the moment.
struct Carrying {
    json: Option<Bytes>,
    hand_over: Option<HandOver>,
    asks_again: bool,
}

impl HttpBody for Carrying {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let json = self.json.take();
        if (!self.asks_again || json.is_none())
            && let Some(hand_over) = self.hand_over.take()
        {
            hand_over.confirm();
        }
        Poll::Ready(json.map(|json| Ok(Frame::data(json))))
    }

    fn is_end_stream(&self) -> bool {
        self.json.is_none() && self.hand_over.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.json.as_ref().map_or(0, |json| json.len() as u64))
    }
}

fn handing_over(json: Bytes, hand_over: Option<HandOver>, version: Version) -> Response {
    let carrying = Carrying {
        json: Some(json),
        hand_over,
        asks_again: version == Version::HTTP_2,
    };
    json_response(Body::new(carrying))
}

// --- Reading and writing -------------------------------------------------------------------------------------------

fn order_id(text: &str) -> Result<OrderId, Problem> {
    if text.is_empty() {
        return Err(Problem::unreadable("The parameter order_id is missing."));
    }
    Uuid::try_parse(text)
        .map(OrderId)
        .map_err(|_| Problem::unreadable("The order id is not a UUID."))
}

fn bounded_wait(parameter: &'static str, secs: u64) -> Result<Duration, Problem> {
    if secs > WAIT_SECS_MAX {
        let detail = format!("`{parameter}` must be from 0 to {WAIT_SECS_MAX} seconds.");
        return Err(Problem::invalid_parameter(parameter, detail));
    }
    Ok(Duration::from_secs(secs))
}

fn barista_name(name: Option<String>) -> Result<Option<Box<str>>, Problem> {
    let Some(name) = name else { return Ok(None) };
    if (1..=BARISTA_CHARS_MAX).contains(&name.chars().count()) {
        return Ok(Some(name.into_boxed_str()));
    }
    let detail = format!("`barista` must be 1 to {BARISTA_CHARS_MAX} characters long.");
    Err(Problem::invalid_parameter("barista", detail))
}

fn to_json(value: &impl Serialize) -> Bytes {
    // Room for any of this desk's answers, so that writing one does not move it.
    let mut json = Vec::with_capacity(512);
    serde_json::to_writer(&mut json, value)
        .expect("structs of numbers and strings always serialize");
    json.into()
}

fn no_store_header() -> [(header::HeaderName, HeaderValue); 1] {
    [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))]
}

fn no_store(value: &impl Serialize) -> Response {
    json_response(Body::new(Full::new(to_json(value))))
}

fn json_response(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    let json = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

// --- Errors --------------------------------------------------------------------------------------------------------

fn unknown_order() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "order-unknown",
        "No such order",
        "The order does not exist, or was finished too long ago to be remembered.",
    )
}

fn conflict(
    slug: &'static str,
    title: &'static str,
    detail: String,
    state: &'static str,
) -> Problem {
    Problem::new(StatusCode::CONFLICT, slug, title, detail).with("state", state)
}

fn fenced(state: &'static str, current: u32) -> Problem {
    let detail = format!("The order has moved on: its current attempt is {current}.");
    conflict(
        "attempt-outdated",
        "Another attempt is current",
        detail,
        state,
    )
    .with("current_attempt", current)
}

impl From<PlaceError> for Problem {
    fn from(error: PlaceError) -> Self {
        match error {
            PlaceError::KeyReused { .. } => Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency-key-reused",
                "The idempotency key is taken",
                "This Idempotency-Key came with a different body before; use a new key for a new order.",
            ),
            PlaceError::Full { retry_after } => Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "line-full",
                "The line is full",
                "As many orders are waiting as the shop can keep; try again later.",
            )
            .retry_after(retry_after.unwrap_or(Duration::from_secs(30))),
            PlaceError::Closing => Problem::stopping(),
        }
    }
}

impl From<CancelError> for Problem {
    fn from(error: CancelError) -> Self {
        match error {
            CancelError::Unknown => unknown_order(),
            CancelError::TooLate { stage } => {
                let state = stage.as_str();
                let detail = format!("Only a waiting order can be cancelled; this one is {state}.");
                conflict("too-late", "Too late to cancel", detail, state)
            }
        }
    }
}

impl From<FinishError> for Problem {
    fn from(error: FinishError) -> Self {
        match error {
            FinishError::Unknown => unknown_order(),
            FinishError::NotStarted { stage } => {
                let state = stage.as_str();
                let detail = format!("No barista has started this order; it is {state}.");
                conflict("not-started", "The order was never started", detail, state)
            }
            FinishError::Fenced { stage, current } => fenced(stage.as_str(), current),
        }
    }
}

impl From<FenceError> for Problem {
    fn from(error: FenceError) -> Self {
        match error {
            FenceError::Unknown => unknown_order(),
            FenceError::NotBrewing { stage } => {
                let state = stage.as_str();
                let detail =
                    format!("Only an order that is being brewed has a lease; this one is {state}.");
                conflict("not-brewing", "Nobody is brewing the order", detail, state)
            }
            FenceError::Fenced { stage, current } => fenced(stage.as_str(), current),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preferences_are_read_as_rfc_7240_says() {
        let secs = |n| Some(Duration::from_secs(n));
        for (prefer, wait) in [
            (&["wait=5"][..], secs(5)),
            (&["respond-async"], secs(0)),
            (&["respond-async, wait=10"], secs(10)),
            (&["respond-async", "WAIT = 3"], secs(3)),
            (&["wait=\"7\"; x=y"], secs(7)),
            (&["wait=soon"], None),
            (&["wait=-1"], None),
            (&["handling=lenient"], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in prefer {
                headers.append("prefer", HeaderValue::from_static(value));
            }
            assert_eq!(preferred_wait(&headers), wait, "{prefer:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_that_never_reached_the_connection_puts_the_order_back() {
        let registry = crate::telemetry::Registry::new(&[]).unwrap();
        let rules = super::super::line::tests::rules();
        let orders = Orders::new(rules, registry.register(super::super::Metrics::register));
        let held = orders.place(None, None, None, true).unwrap();
        let hand_over = orders.pull(None).unwrap();
        let response = handing_over(Bytes::from_static(b"{}"), Some(hand_over), Version::HTTP_11);
        assert_eq!(orders.figures().brewing, 1);
        drop(response);
        assert_eq!((orders.figures().brewing, orders.figures().waiting), (0, 1));

        let again = orders.pull(None).unwrap();
        assert_eq!(
            again.handed().attempt,
            1,
            "a hand-over that did not happen is not counted"
        );
        let response = handing_over(Bytes::from_static(b"{}"), Some(again), Version::HTTP_11);
        let body = http_body_util::BodyExt::collect(response.into_body());
        drop(body.await);
        assert_eq!(
            orders.figures().brewing,
            1,
            "the bytes were taken: now the lease decides"
        );
        drop(held);
    }
}
