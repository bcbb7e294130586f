//! Customers' paths: an order is placed, asked for and cancelled.

use std::any::Any;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use super::super::error::{CancelError, PlaceError, Unavailable};
use super::super::hold::Held;
use super::super::idempotency::{IdempotencyKey, Keyed};
use super::super::model::{Order, OrderId, Outcome, View};
use super::super::requests::{Placement, Wanted};
use super::super::service::Orders;
use super::problems::{cancelled, unknown_order};
use super::proxied::Proxied;
use super::screens::board_routes;
use super::stream::{held_stream, outcome_stream, watching_stream};
use super::wire::{NewOrder, OrderState, ReadyOrder};
use super::{Desk, bounded_wait, order_id, quick_json};
use crate::flood::routes::{Asker, Newcomer, purged};
use crate::flood::{Admission, Ask};
use crate::http::Problem;
use crate::http::body::{Ignored, OptionalJson};
use crate::http::caching::no_store;
use crate::http::feed::{Feed, accepts_events};
use crate::http::params::{Actor, LoggedRequestId, Path, Query, idempotency_key};
use crate::http::reply::{HangUp, Reply};
use crate::http::responses::{IgnoredBody, JsonBody, Limited, NotFound, Parameters};
use crate::values::json;
use crate::values::soon::Soon;

pub fn customer_routes() -> [UtoipaMethodRouter<Desk>; 3] {
    let [board] = board_routes();
    [
        board,
        routes!(place_order),
        routes!(get_order, delete_order),
    ]
}

/// Order an americano
///
/// The request is held until the coffee is ready, however long it takes. Disconnecting before a barista has started cancels
/// the order; with an `Idempotency-Key` it keeps its place for a while, and the same request again joins it. With `Prefer:
/// wait=N` the answer is 202 after N seconds, with `Prefer: respond-async` at once; the order then stays in line as long as
/// its `Location` is polled before `ask_before`. With `Accept: text/event-stream` the request is held likewise, and the answer is
/// a stream: `waiting` and `brewing`, each an `OrderState`, whenever something changes, at the end `ready`, a `ReadyOrder`, or a
/// problem: `cancelled`, `blocked` or `stopping`.
#[utoipa::path(
    post, path = "/order/", tag = "orders", security((), ("token" = [])),
    request_body(content = Option<NewOrder>, content_type = "application/json"),
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "Names the order; 1 to 255 visible ASCII characters, hard to guess: it gives access to the order. One of fewer than 16 characters names an order of the client's address only",
            min_length = 1, max_length = 255, pattern = "^[!-~]+$"),
        ("Prefer" = Option<String>, Header, description = "wait=N or respond-async (RFC 7240); keep=N: how many seconds an order with a key keeps its place without a connection, at most `orders.keep_max`"),
        ("Accept" = Option<String>, Header, description = "`text/event-stream` for a stream"),
    ),
    responses(
        JsonBody,
        Limited,
        PlaceError,
        (status = 200, description = "The coffee is ready; or the stream", content(
            (ReadyOrder = "application/json"),
            (String = "text/event-stream"),
        )),
        (status = 202, description = "In line, as preferred", body = OrderState, headers(("Location" = String, description = "Where to ask for the order"))),
    ),
)]
async fn place_order(
    // First, so that blocked clients cost least.
    Newcomer(asker): Newcomer,
    State(desk): State<Desk>,
    request_id: LoggedRequestId,
    actor: Actor,
    proxied: Proxied,
    headers: HeaderMap,
    body: OptionalJson<NewOrder>,
) -> Response {
    let client = Client {
        request_id,
        proxied,
        actor: &actor,
        headers: &headers,
    };
    let reply = place(&desk, &asker, client, body);
    // The request's parts are dropped before the wait: they would cost memory per held customer.
    drop((desk, asker, actor, headers));
    reply.get().await
}

/// The answer to an order, or what waits for it.
pub(super) fn place(
    desk: &Desk,
    asker: &Asker,
    client: Client<'_>,
    body: OptionalJson<NewOrder>,
) -> Reply {
    let (placement, how) = match placement(desk, asker, client, body) {
        Ok(placed) => placed,
        Err(refusal) => return Reply::now(Err::<Response, _>(refusal)),
    };
    match placement {
        Soon::Now(placement) => placed_reply(desk.orders.clone(), placement, how),
        later @ Soon::Later(_) => {
            let orders = desk.orders.clone();
            later.then(move |placement| placed_reply(orders, placement, how))
        }
    }
}

/// Who orders, and how.
pub(super) struct Client<'a> {
    pub(super) request_id: LoggedRequestId,
    pub(super) proxied: Proxied,
    pub(super) actor: &'a Actor,
    pub(super) headers: &'a HeaderMap,
}

fn placed_reply(orders: Orders, placement: Result<Placement, PlaceError>, how: How) -> Reply {
    let How { wait, joined, feed } = how;
    let placement = match placement {
        Ok(placement) => placement,
        Err(PlaceError::HandedOver) => return Reply::now(HangUp),
        Err(error) => return Reply::now(Problem::from(error)),
    };
    let (placement, wait) = match (placement, feed) {
        (Placement::Held(held), Some(feed)) => {
            return Reply::Now(held_stream(feed, orders, held, joined));
        }
        (Placement::Replayed(outcome @ Outcome::Ready(_)), Some(feed)) => {
            return Reply::Now(outcome_stream(feed, outcome));
        }
        (placement, _) => (placement, wait),
    };
    match (placement, wait) {
        (Placement::Replayed(outcome), _) => {
            let mut response = outcome_response(&outcome);
            let replayed = HeaderValue::from_static("true");
            response
                .headers_mut()
                .insert("idempotency-replayed", replayed);
            Reply::Now(response)
        }
        (Placement::Promised(id), wait) => accepted(&orders, id, wait),
        // Each held customer has this future in memory: most need no more than the order.
        (Placement::Held(held), None) if joined.is_none() => {
            Reply::later(async move { outcome_response(&held.await) })
        }
        (Placement::Held(held), None) => Reply::later(async move {
            let _joined = joined;
            outcome_response(&held.await)
        }),
        (Placement::Held(held), Some(wait)) => Reply::later(async move {
            let _joined = joined;
            held_for(orders, held, wait).await
        }),
    }
}

async fn held_for(orders: Orders, mut held: Held, wait: Duration) -> Response {
    if let Ok(outcome) = tokio::time::timeout(wait, &mut held).await {
        return outcome_response(&outcome);
    }
    let id = held.order();
    match held.promise().get().await {
        Ok(()) => accepted(&orders, id, Some(wait)).get().await,
        Err(held) => outcome_response(&held.await),
    }
}

#[expect(
    clippy::result_large_err,
    reason = "axum's error, which is made into the answer at once"
)]
fn placement(
    desk: &Desk,
    asker: &Asker,
    client: Client<'_>,
    body: OptionalJson<NewOrder>,
) -> axum::response::Result<Placing> {
    let Client {
        request_id: LoggedRequestId(request_id),
        proxied,
        actor,
        headers,
    } = client;
    let feed = accepts_events(headers).then(|| desk.feeds.open());
    let feed = feed.transpose()?;
    let preferred = Preferred::read(headers);
    let keyed = keyed(headers, asker.address(), actor, &body.json)?.map(|keyed| Keyed {
        keep: preferred.keep.map(|keep| keep.min(desk.keep_max)),
        ..keyed
    });
    let details = body.value.as_ref().and_then(|order| order.details.as_ref());
    desk.check_length("details", details)?;
    let joins = keyed
        .as_ref()
        .is_some_and(|keyed| desk.orders.is_pending(&keyed.key));
    // Joining takes no further place in line, but holds a request.
    let admission = asker.admit(match (joins, proxied.is_resent) {
        (true, _) => Ask::Watch,
        (false, true) => Ask::Again,
        (false, false) => Ask::Order,
    })?;
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
    // A stream is held as long as it takes.
    let wait = preferred.wait.filter(|_| feed.is_none());
    let (customer, details) = body
        .value
        .map_or((None, None), |order| (order.customer, order.details));
    let wanted = Wanted {
        customer: customer.map(String::into_boxed_str),
        details,
        origin,
        request_id,
        keyed,
        proxied: proxied.id,
        permit,
    };
    let is_held = wait.is_none_or(|wait| !wait.is_zero());
    let placed = desk.orders.place(wanted, is_held);
    // From here on a purge finds the order; one between the admission and this moment did not.
    asker.recheck();
    Ok((placed, How { wait, joined, feed }))
}

type Placing = (Soon<Result<Placement, PlaceError>>, How);

/// How a request for an order is answered.
struct How {
    /// How long it is held; none: as long as it takes.
    wait: Option<Duration>,
    /// The admission of a request that joined.
    joined: Option<Admission>,
    /// As a stream.
    feed: Option<Feed>,
}

fn keyed(
    headers: &HeaderMap,
    origin: IpNet,
    actor: &Actor,
    body: &Value,
) -> Result<Option<Keyed>, Problem> {
    let key = idempotency_key(headers, |key| match actor.name() {
        Some(identity) => IdempotencyKey::of_identity(key, identity),
        None => IdempotencyKey::parse(key, origin),
    })?;
    Ok(key.map(|key| Keyed {
        key,
        // Of the value, not the bytes: clients may serialize it differently each time.
        fingerprint: json::fingerprint(body),
        keep: None,
    }))
}

/// What a client prefers (RFC 7240). Unparseable preferences are ignored, as the RFC requires.
#[derive(Debug, Default, PartialEq, Eq)]
struct Preferred {
    /// How long the request is held; none: until the order is final.
    wait: Option<Duration>,
    /// How long the order stays without a connection.
    keep: Option<Duration>,
}

impl Preferred {
    fn read(headers: &HeaderMap) -> Self {
        let mut new = Self::default();
        let mut respond_async = false;
        for header in headers.get_all("prefer") {
            for preference in header.to_str().unwrap_or_default().split(',') {
                let preference = preference.split(';').next().unwrap_or_default();
                let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
                let secs = || value.trim().trim_matches('"').parse::<u32>().ok();
                let time = || secs().map(|secs| Duration::from_secs(secs.into()));
                match name.trim().to_ascii_lowercase().as_str() {
                    "respond-async" => respond_async = true,
                    "wait" => new.wait = time().or(new.wait),
                    "keep" => new.keep = time().or(new.keep),
                    _ => {}
                }
            }
        }
        new.wait = new.wait.or(respond_async.then_some(Duration::ZERO));
        new
    }
}

fn accepted(orders: &Orders, id: OrderId, wait: Option<Duration>) -> Reply {
    orders.view_promised(id).map(move |view| match view {
        Ok(Some(view)) => accepted_response(id, wait, view),
        // Promised, finished and evicted within this call.
        Ok(None) => unknown_order().into_response(),
        Err(unavailable) => Problem::from(unavailable).into_response(),
    })
}

fn accepted_response(id: OrderId, wait: Option<Duration>, view: View) -> Response {
    let applied = match wait {
        Some(wait) if !wait.is_zero() => format!("wait={}", wait.as_secs()),
        _ => "respond-async".to_owned(),
    };
    let headers = [
        (header::LOCATION, format!("/orders/{id}")),
        (HeaderName::from_static("preference-applied"), applied),
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
        Outcome::Ready(order) => quick_json(&ReadyOrder::of(order)),
        Outcome::Cancelled(order) => cancelled(order).into_response(),
        Outcome::Blocked(time) => purged(*time).into_response(),
        Outcome::Closing => Problem::stopping().into_response(),
        Outcome::HandedOver => HangUp.into_response(),
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
/// With `wait` the request is held until the order is ready or cancelled, or the time is over. With `Accept: text/event-stream` the
/// answer is a stream as for `POST /order/`, of one who only watches; `gone` ends it when the order is unknown.
#[utoipa::path(
    get, path = "/orders/{order_id}", tag = "orders", security(()),
    params(("order_id" = Uuid, Path), Waiting, ("Accept" = Option<String>, Header, description = "`text/event-stream` for a stream")),
    responses(
        IgnoredBody,
        Limited,
        Parameters,
        NotFound,
        Unavailable,
        (status = 200, description = "The order as it is; or the stream", content(
            (OrderState = "application/json"),
            (String = "text/event-stream"),
        )),
    ),
)]
async fn get_order(
    asker: Asker,
    State(desk): State<Desk>,
    Path(id): Path<String>,
    Query(Waiting { wait }): Query<Waiting>,
    headers: HeaderMap,
    _: Ignored,
) -> axum::response::Result<Response> {
    let id = order_id(&id)?;
    let wait = bounded_wait("wait", wait)?;
    if accepts_events(&headers) {
        return watch_order(&asker, &desk, id).await;
    }
    let view = if wait.is_zero() {
        desk.orders.ask(id).get().await
    } else {
        // Flood control counts it while it is held.
        let _held = asker.admit(Ask::Watch)?;
        Box::pin(desk.orders.ask_within(id, wait)).await
    };
    let view = view.map_err(Problem::from)?.ok_or_else(unknown_order)?;
    Ok(no_store(&OrderState::from(view)))
}

/// The order as a stream.
async fn watch_order(asker: &Asker, desk: &Desk, id: OrderId) -> axum::response::Result<Response> {
    // Flood control counts it while it is open.
    let admission = asker.admit(Ask::Watch)?;
    let feed = desk.feeds.open()?;
    let view = desk.orders.ask(id).get().await.map_err(Problem::from)?;
    let view = view.ok_or_else(unknown_order)?;
    Ok(watching_stream(feed, desk.orders.clone(), view, admission))
}

/// Cancel an order
///
/// While it waits. Requests held for it are answered 409.
#[utoipa::path(
    delete, path = "/orders/{order_id}", tag = "orders", security(()),
    params(("order_id" = Uuid, Path)),
    responses(
        IgnoredBody,
        Limited,
        CancelError,
        (status = 200, description = "The order as it is", body = OrderState),
    ),
)]
async fn delete_order(
    asker: Asker,
    State(desk): State<Desk>,
    Path(id): Path<String>,
    _: Ignored,
) -> axum::response::Result<Response> {
    let id = order_id(&id)?;
    let order = match desk.orders.cancel(id).get().await {
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
            assert_eq!(Preferred::read(&headers).wait, wait, "{prefer:?}");
        }
        let keep = [("prefer", "keep=900, wait=5")];
        let keep =
            keep.map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
        let preferred = Preferred::read(&HeaderMap::from_iter(keep));
        assert_eq!((preferred.wait, preferred.keep), (secs(5), secs(900)));
    }
}
