//! The order line over HTTP: paths and handlers. `wire` has the JSON types, `problems` maps errors, `lease_body` is the
//! answer that carries a lease.

mod lease_body;
mod problems;
mod wire;

use std::any::Any;
use std::sync::Mutex;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRef, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::Full;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::debug;
use utoipa::IntoParams;
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use self::lease_body::{LeaseGuard, lease_response};
use self::problems::{cancelled, unknown_order};
use self::wire::{
    ExtendedOrder, FinishAnswer, FinishedAndNext, FinishedOrder, NewOrder, OrderState, ReadyOrder,
    ReleasedOrder, StartedOrder,
};
use super::model::{BARISTA_CHARS_MAX, IdempotencyKey, Keyed, Order, OrderId, Outcome, View};
use super::service::{LockedLine, Orders, Placement, Wanted};
use crate::flood::routes::{Asker, Newcomer, purged};
use crate::flood::{Admission, Ask, Flood};
use crate::http::Problem;
use crate::http::api::with_state;
use crate::http::body::{BodyLimits, Ignored, OptionalJson};
use crate::http::caching::no_store_json;
use crate::http::params::{LoggedRequestId, Path, Query};
use crate::http::responses::{IgnoredBody, JsonBody, Limited};
use crate::values::json;

/// The longest `wait`, in seconds: below the usual 60 s timeout of proxies.
pub const WAIT_SECS_MAX: u64 = 55;

#[derive(Debug, Clone)]
pub struct Desk {
    /// The line.
    pub orders: Orders,
    pub flood: Flood,
    /// Bounds of request bodies.
    pub limits: BodyLimits,
    /// Default `wait` of `/start/`.
    pub start_wait: Duration,
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

pub fn customer_routes(desk: &Desk) -> [UtoipaMethodRouter; 2] {
    let routes = [routes!(place_order), routes!(get_order, delete_order)];
    with_state(routes, desk)
}

pub fn staff_routes(desk: &Desk) -> [UtoipaMethodRouter; 5] {
    let (schemas, paths, methods) = routes!(start_order, start_order_by_get);
    // axum answers HEAD by calling the GET handler and dropping its body, which would take an order.
    let refuse = async || Problem::no_such_method().allow("GET,POST");
    let methods = methods.head(refuse).fallback(refuse);
    let routes = [
        (schemas, paths, methods),
        routes!(look_up_order),
        routes!(finish_order),
        routes!(extend_order),
        routes!(release_order),
    ];
    with_state(routes, desk)
}

// --- Customers -----------------------------------------------------------------------------------------------------

/// Order an americano
///
/// The request is held until the coffee is ready, however long it takes. Disconnecting before a barista has started cancels
/// the order; with an `Idempotency-Key` it keeps its place for a while, and the same request again joins it. With `Prefer:
/// wait=N` the answer is 202 after N seconds, with `Prefer: respond-async` at once; the order then stays in line as long as
/// its `Location` is polled before `ask_before`.
#[utoipa::path(
    post, path = "/order/", tag = "orders",
    request_body(content = Option<NewOrder>, content_type = "application/json"),
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "Names the order; 1 to 255 visible ASCII characters, hard to guess: it gives access to the order. One of fewer than 16 characters names an order of the client's address only",
            min_length = 1, max_length = 255, pattern = "^[!-~]+$"),
        ("Prefer" = Option<String>, Header, description = "wait=N or respond-async (RFC 7240)"),
    ),
    responses(
        JsonBody,
        Limited,
        (status = 200, description = "The coffee is ready", body = ReadyOrder),
        (status = 202, description = "In line, as preferred", body = OrderState, headers(("Location" = String, description = "Where to ask for the order"))),
        (status = 400, description = "Not JSON, or a malformed Idempotency-Key", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The order was cancelled", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is not acceptable, or the key came with another body", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The line is full, or the server is stopping", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn place_order(
    // First, so that blocked clients cost least.
    Newcomer(asker): Newcomer,
    State(desk): State<Desk>,
    request_id: LoggedRequestId,
    headers: HeaderMap,
    body: OptionalJson<NewOrder>,
) -> Response {
    // The request's parts are dropped before the wait: they would cost memory per held customer.
    let placed = placement(&desk, &asker, request_id, headers, body);
    let (placement, wait, _joined) = match placed {
        Ok(placed) => placed,
        Err(refusal) => return Err::<Response, _>(refusal).into_response(),
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
        (Placement::Promised(id), wait) => accepted(&desk.orders, id, wait),
        (Placement::Held(held), None) => {
            // Not needed while waiting.
            drop(desk);
            outcome_response(&held.await)
        }
        (Placement::Held(held), Some(wait)) => Box::pin(held_for(desk.orders, held, wait)).await,
    }
}

type Held = super::hold::Held<Mutex<LockedLine>>;

async fn held_for(orders: Orders, mut held: Held, wait: Duration) -> Response {
    if let Ok(outcome) = tokio::time::timeout(wait, &mut held).await {
        return outcome_response(&outcome);
    }
    let id = held.order();
    match held.promise() {
        Ok(()) => accepted(&orders, id, Some(wait)),
        Err(held) => outcome_response(&held.await),
    }
}

#[expect(
    clippy::needless_pass_by_value,
    clippy::result_large_err,
    reason = "the request ends here; see place_order"
)]
fn placement(
    desk: &Desk,
    asker: &Asker,
    LoggedRequestId(request_id): LoggedRequestId,
    headers: HeaderMap,
    body: OptionalJson<NewOrder>,
) -> axum::response::Result<Placing> {
    let keyed = keyed(&headers, asker.address(), &body.json)?;
    let joins = keyed
        .as_ref()
        .is_some_and(|keyed| desk.orders.is_pending(&keyed.key));
    // Joining takes no further place in line, but holds a request.
    let admission = asker.admit(if joins { Ask::Watch } else { Ask::Order })?;
    let origin = admission.address();
    // A new order counts as long as it is pending, even without its customer; a request that joins one, until it is
    // answered.
    let (permit, joined) = if joins {
        (None, Some(admission))
    } else {
        (
            origin.map(|_| Box::new(admission) as Box<dyn Any + Send + Sync>),
            None,
        )
    };
    let wait = preferred_wait(&headers);
    let customer = body.value.and_then(|order| order.customer);
    let wanted = Wanted {
        customer: customer.map(String::into_boxed_str),
        origin,
        request_id,
        keyed,
        permit,
    };
    let is_held = wait.is_none_or(|wait| !wait.is_zero());
    let placed = desk.orders.place(wanted, is_held);
    // From here on a purge finds the order; one between the admission and this moment did not.
    asker.recheck();
    Ok((placed.map_err(Problem::from)?, wait, joined))
}

/// The placement, how long its request is held, and the admission of a request that joined.
type Placing = (
    Placement<Mutex<LockedLine>>,
    Option<Duration>,
    Option<Admission>,
);

fn keyed(headers: &HeaderMap, origin: IpNet, body: &Value) -> Result<Option<Keyed>, Problem> {
    let Some(key) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let key = IdempotencyKey::parse(key.as_bytes(), origin).ok_or_else(|| {
        Problem::unreadable("Idempotency-Key must be 1 to 255 visible ASCII characters.")
    })?;
    Ok(Some(Keyed {
        key,
        // Of the value, not the bytes: clients may serialize it differently each time.
        fingerprint: json::fingerprint(body),
    }))
}

/// `Prefer: wait` and `respond-async` (RFC 7240, sections 4.1 and 4.3); none means until the order is final. Unparseable
/// preferences are ignored, as the RFC requires.
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

fn accepted(orders: &Orders, id: OrderId, wait: Option<Duration>) -> Response {
    let Some(view) = orders.view(id) else {
        // Promised, finished and evicted within this call.
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
        Outcome::Blocked(time) => purged(*time).into_response(),
        Outcome::Closing => Problem::stopping().into_response(),
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Waiting {
    /// Hold the request until the order is final, for so many seconds at most.
    #[serde(default)]
    #[param(minimum = 0, maximum = 55, default = 0)]
    wait: u64,
}

/// Where an order stands
///
/// With `wait` the request is held until the order is ready or cancelled, or the time is over.
#[utoipa::path(
    get, path = "/orders/{order_id}", tag = "orders",
    params(("order_id" = Uuid, Path), Waiting),
    responses(
        IgnoredBody,
        Limited,
        (status = 200, description = "The order as it is", body = OrderState),
        (status = 400, description = "Not an order id, or an unreadable query", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "Unknown, or evicted", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`wait` is out of bounds", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn get_order(
    asker: Asker,
    State(desk): State<Desk>,
    Path(id): Path<String>,
    Query(Waiting { wait }): Query<Waiting>,
    _: Ignored,
) -> axum::response::Result<Response> {
    let id = order_id(&id)?;
    let wait = bounded_wait("wait", wait)?;
    let view = if wait.is_zero() {
        desk.orders.ask(id)
    } else {
        // Flood control counts it while it is held.
        let _held = asker.admit(Ask::Watch)?;
        Box::pin(desk.orders.ask_within(id, wait)).await
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
        IgnoredBody,
        Limited,
        (status = 200, description = "The order as it is", body = OrderState),
        (status = 400, description = "Not an order id", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "Unknown, or evicted", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Being brewed, or ready", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn delete_order(
    asker: Asker,
    State(desk): State<Desk>,
    Path(id): Path<String>,
    _: Ignored,
) -> axum::response::Result<Response> {
    let id = order_id(&id)?;
    let order = match desk.orders.cancel(id) {
        // Not counted by flood control: it frees a place.
        Ok(order) => order,
        Err(error) => {
            asker.admit(Ask::Write)?;
            return Err(Problem::from(error).into());
        }
    };
    let view = View::of(Order::clone(&order));
    Ok(no_store(&OrderState::from(view)))
}

// --- Baristas ------------------------------------------------------------------------------------------------------

/// Look an order up
///
/// As its customer sees it, without waiting.
#[utoipa::path(
    get, path = "/orders/{order_id}", tag = "orders",
    params(("order_id" = Uuid, Path)),
    responses(
        IgnoredBody,
        (status = 200, description = "The order as it is", body = OrderState),
        (status = 400, description = "Not an order id", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "Unknown, or evicted", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn look_up_order(
    State(desk): State<Desk>,
    Path(id): Path<String>,
    _: Ignored,
) -> Result<Response, Problem> {
    let view = desk.orders.view(order_id(&id)?);
    Ok(no_store(&OrderState::from(view.ok_or_else(unknown_order)?)))
}

/// Parameters of a pull.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Pull {
    /// Hold the request until there is an order, for so many seconds at most; 0 answers at once. Default:
    /// `orders.start_wait`.
    #[param(minimum = 0, maximum = 55)]
    wait: Option<u64>,
    /// The barista's name, recorded with the order; 1 to 64 characters.
    #[param(min_length = 1, max_length = 64)]
    barista: Option<String>,
}

/// Take the oldest order
///
/// The barista has it for the time of the lease. If the client disconnects before the answer is sent, the order keeps its
/// place.
#[utoipa::path(
    post, path = "/start/", tag = "orders", params(Pull),
    responses(
        IgnoredBody,
        (status = 200, description = "The order", body = StartedOrder),
        (status = 204, description = "No order came in time"),
        (status = 422, description = "A parameter is out of bounds", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn start_order(
    State(desk): State<Desk>,
    version: Version,
    Query(pull): Query<Pull>,
    _: Ignored,
) -> Result<Response, Problem> {
    let wait = pull.wait.map(|wait| bounded_wait("wait", wait));
    let wait = wait.transpose()?.unwrap_or(desk.start_wait);
    let barista = barista_name(pull.barista)?;
    Ok(match take(&desk.orders, barista, wait).await {
        Some(guard) => {
            let json = to_json(&StartedOrder::of(guard.lease()));
            lease_response(json, Some(guard), version)
        }
        None => (no_store_header(), StatusCode::NO_CONTENT).into_response(),
    })
}

/// Take the oldest order, for scripts
///
/// The same as POST. Browsers must use POST: a GET by navigation or prefetch is answered 403.
#[utoipa::path(
    get, path = "/start/", tag = "orders", params(Pull),
    responses(
        IgnoredBody,
        (status = 200, description = "The order", body = StartedOrder),
        (status = 204, description = "No order waits"),
        (status = 422, description = "A parameter is out of bounds", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn start_order_by_get(
    desk: State<Desk>,
    version: Version,
    pull: Query<Pull>,
    body: Ignored,
) -> Result<Response, Problem> {
    start_order(desk, version, pull, body).await
}

async fn take(orders: &Orders, barista: Option<Box<str>>, wait: Duration) -> Option<LeaseGuard> {
    let guard = if wait.is_zero() {
        orders.pull(barista)
    } else {
        orders.pull_within(barista, wait).await
    };
    if let Some(guard) = &guard {
        let lease = guard.lease();
        let (attempt, customer_request_id) = (lease.attempt, lease.request_id.as_deref());
        debug!(order_id = %lease.id, attempt, customer_request_id, "a barista gets an order");
    }
    guard
}

/// Parameters of a finish.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Finish {
    /// The order.
    #[param(value_type = Uuid, required = true)]
    order_id: Option<String>,
    /// Only if this attempt is still the current one.
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
/// Requests held for it are answered 200. The first report counts, from any barista; with `attempt` only if that attempt is
/// still the current one. With `next` the answer is `{"finished": …, "next": …}`.
#[utoipa::path(
    post, path = "/finish/", tag = "orders", params(Finish),
    responses(
        IgnoredBody,
        (status = 200, description = "Finished, by this report or before", body = inline(FinishAnswer)),
        (status = 400, description = "No order id, or not one, or an unreadable query", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "Unknown, or evicted", body = Problem, content_type = "application/problem+json"),
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
    let guard = take(&desk.orders, barista, wait).await;
    let json = to_json(&FinishedAndNext {
        finished,
        next: guard.as_ref().map(|next| StartedOrder::of(next.lease())),
    });
    Ok(lease_response(json, guard, version))
}

/// Parameters that name a lease.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct LeaseParams {
    /// The order.
    #[param(value_type = Uuid, required = true)]
    order_id: Option<String>,
    /// Only if this attempt is still the current one.
    #[param(minimum = 1)]
    attempt: Option<u32>,
}

/// Renew the lease
///
/// From now, for its full length.
#[utoipa::path(
    post, path = "/extend/", tag = "orders", params(LeaseParams),
    responses(
        IgnoredBody,
        (status = 200, description = "The new end of the lease", body = ExtendedOrder),
        (status = 400, description = "No order id, or not one, or an unreadable query", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "Unknown, or evicted", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Not being brewed, or another attempt is current", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn extend_order(
    State(desk): State<Desk>,
    Query(params): Query<LeaseParams>,
    _: Ignored,
) -> Result<Response, Problem> {
    let id = order_id(params.order_id.as_deref().unwrap_or_default())?;
    let lease = desk.orders.extend(id, params.attempt)?;
    Ok(no_store(&ExtendedOrder {
        order_id: lease.id.0,
        attempt: lease.attempt,
        lease_expires_at: lease.lease_expires_at.into(),
        customer_waiting: lease.customer_waiting,
        customer_presence: lease.presence.as_str(),
    }))
}

/// Give an order back
///
/// It returns to its original place at once.
#[utoipa::path(
    post, path = "/release/", tag = "orders", params(LeaseParams),
    responses(
        IgnoredBody,
        (status = 200, description = "Back in line", body = ReleasedOrder),
        (status = 400, description = "No order id, or not one, or an unreadable query", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "Unknown, or evicted", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Not being brewed, or another attempt is current", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn release_order(
    State(desk): State<Desk>,
    Query(params): Query<LeaseParams>,
    _: Ignored,
) -> Result<Response, Problem> {
    let id = order_id(params.order_id.as_deref().unwrap_or_default())?;
    desk.orders.release(id, params.attempt)?;
    Ok(no_store(&ReleasedOrder { order_id: id.0 }))
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
    // Fits any of this desk's answers, to avoid reallocation.
    let mut json = Vec::with_capacity(512);
    serde_json::to_writer(&mut json, value)
        .expect("structs of numbers and strings always serialize");
    json.into()
}

fn no_store_header() -> [(header::HeaderName, HeaderValue); 1] {
    [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))]
}

fn no_store(value: &impl Serialize) -> Response {
    no_store_json(Body::new(Full::new(to_json(value))))
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
        let registry = crate::telemetry::Registry::new(&[]);
        let rules = super::super::line::tests::rules();
        let orders = Orders::new(rules, registry.register(super::super::Metrics::register));
        let held = orders.place(Wanted::default(), true).unwrap();
        let guard = orders.pull(None).unwrap();
        let response = lease_response(Bytes::from_static(b"{}"), Some(guard), Version::HTTP_11);
        assert_eq!(orders.figures().brewing, 1);
        drop(response);
        assert_eq!((orders.figures().brewing, orders.figures().waiting), (0, 1));

        let again = orders.pull(None).unwrap();
        assert_eq!(
            again.lease().attempt,
            1,
            "a lease that was not delivered is not counted"
        );
        let response = lease_response(Bytes::from_static(b"{}"), Some(again), Version::HTTP_11);
        let body = http_body_util::BodyExt::collect(response.into_body());
        drop(body.await);
        assert_eq!(
            orders.figures().brewing,
            1,
            "the bytes were taken: now the lease's deadline counts"
        );
        drop(held);
    }
}
