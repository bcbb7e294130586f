//! Baristas' paths: an order is taken under a lease, and reported ready.

use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tracing::debug;
use utoipa::IntoParams;
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use super::super::error::{FenceError, FinishError, Unavailable};
use super::super::hold::LeaseGuard;
use super::super::requests::{Finishing, Pulling, Report, Taken};
use super::super::service::Orders;
use super::lease_body::lease_response;
use super::problems::unknown_order;
use super::proxied::Proxied;
use super::screens::line_routes;
use super::wire::{
    ExtendedOrder, FinishAnswer, FinishReport, FinishedAndNext, FinishedOrder, OrderState,
    ReleasedOrder, StartedOrder, millis,
};
use super::{Desk, bounded_wait, checked_name, order_id, quick_json, to_json};
use crate::http::Problem;
use crate::http::body::{Ignored, OptionalJson};
use crate::http::caching::no_store;
use crate::http::params::{Actor, Path, Query};
use crate::http::reply::Reply;
use crate::http::responses::{IgnoredBody, JsonBody, NotFound, Parameters};
use crate::values::json::Opaque;
use crate::values::soon::Soon;

pub fn staff_routes() -> [UtoipaMethodRouter<Desk>; 7] {
    let (schemas, paths, methods) = routes!(start_order, start_order_by_get);
    // axum answers HEAD by calling the GET handler and dropping its body, which would take an order.
    let refuse = async || Problem::no_such_method().allow("GET,POST");
    let methods = methods.head(refuse).fallback(refuse);
    let [line, door] = line_routes();
    [
        line,
        door,
        (schemas, paths, methods),
        routes!(look_up_order),
        routes!(finish_order),
        routes!(extend_order),
        routes!(release_order),
    ]
}

/// Look an order up
///
/// As its customer sees it, without waiting.
#[utoipa::path(
    get, path = "/orders/{order_id}", tag = "orders", security(("token" = ["barista"])),
    params(("order_id" = Uuid, Path)),
    responses(
        IgnoredBody,
        NotFound,
        Unavailable,
        (status = 200, description = "The order as it is", body = OrderState),
    ),
)]
async fn look_up_order(
    State(desk): State<Desk>,
    Path(id): Path<String>,
    _: Ignored,
) -> Result<Response, Problem> {
    let view = desk.orders.view(order_id(&id)?).get().await?;
    Ok(no_store(&OrderState::from(view.ok_or_else(unknown_order)?)))
}

/// Parameters of a pull.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Pull {
    /// Hold the request until there is an order, for so many seconds at most; 0 answers at once. Default:
    /// `orders.start_wait`.
    #[param(minimum = 0, maximum = 55)]
    pub(super) wait: Option<u64>,
    /// The barista's name, recorded with the order; 1 to 64 characters. Default: the token's subject.
    #[param(min_length = 1, max_length = 64)]
    pub(super) barista: Option<String>,
}

/// Take the oldest order
///
/// The barista has it for the time of the lease. If the client disconnects before the answer is sent, the order keeps its
/// place.
#[utoipa::path(
    post, path = "/start/", tag = "orders", security(("token" = ["barista"])), params(Pull),
    responses(
        IgnoredBody,
        Parameters,
        Unavailable,
        (status = 200, description = "The order", body = StartedOrder),
        (status = 204, description = "No order came in time"),
    ),
)]
async fn start_order(
    State(desk): State<Desk>,
    version: Version,
    actor: Actor,
    proxied: Proxied,
    Query(pull): Query<Pull>,
    _: Ignored,
) -> Result<Response, Problem> {
    let by = By {
        version,
        proxied,
        actor: &actor,
    };
    Ok(start(&desk, by, pull)?.get().await)
}

/// The oldest order, or what waits for one.
pub(super) fn start(desk: &Desk, by: By<'_>, pull: Pull) -> Result<Reply, Problem> {
    let wait = pull.wait.map(|wait| bounded_wait("wait", wait));
    let wait = wait.transpose()?.unwrap_or(desk.start_wait);
    let version = by.version;
    let barista = barista_name(pull.barista, by.actor)?;
    let answer = move |pulled: Pulled| match pulled {
        Ok(Some(guard)) => {
            let json = to_json(&StartedOrder::of(guard.lease()));
            lease_response(json, Some(guard), version)
        }
        Ok(None) => (
            [(header::CACHE_CONTROL, "no-store")],
            StatusCode::NO_CONTENT,
        )
            .into_response(),
        Err(problem) => problem.into_response(),
    };
    let pulling = Pulling {
        barista,
        proxied: by.proxied.id,
        waits: !wait.is_zero(),
    };
    Ok(taken(&desk.orders, pulling, wait, by.actor, answer))
}

/// Which barista asks, and how.
pub(super) struct By<'a> {
    pub(super) version: Version,
    pub(super) proxied: Proxied,
    pub(super) actor: &'a Actor,
}

/// Take the oldest order, for scripts
///
/// The same as POST. Browsers must use POST: a GET by navigation or prefetch is answered 403.
#[utoipa::path(
    get, path = "/start/", tag = "orders", security(("token" = ["barista"])), params(Pull),
    responses(
        IgnoredBody,
        Parameters,
        Unavailable,
        (status = 200, description = "The order", body = StartedOrder),
        (status = 204, description = "No order waits"),
    ),
)]
async fn start_order_by_get(
    desk: State<Desk>,
    version: Version,
    actor: Actor,
    proxied: Proxied,
    pull: Query<Pull>,
    body: Ignored,
) -> Result<Response, Problem> {
    start_order(desk, version, actor, proxied, pull, body).await
}

/// What a pull results in: 401 if the barista's token is revoked while no order waits, 503 if the line's store does not answer.
type Pulled = Result<Option<LeaseGuard>, Problem>;

/// The answer with the oldest order, or with none after `wait`.
fn taken(
    orders: &Orders,
    pulling: Pulling,
    wait: Duration,
    actor: &Actor,
    answer: impl FnOnce(Pulled) -> Response + Send + 'static,
) -> Reply {
    let answer = move |pulled: Pulled| {
        if let Ok(Some(guard)) = &pulled {
            let lease = guard.lease();
            let (attempt, customer_request_id) = (lease.attempt, lease.request_id.as_deref());
            debug!(order_id = %lease.id, attempt, customer_request_id, "a barista gets an order");
        }
        answer(pulled)
    };
    match orders.pull(pulling) {
        Soon::Now(taken) => taken_reply(taken, wait, actor, answer),
        later @ Soon::Later(_) => {
            let actor = actor.clone();
            later.then(move |taken| taken_reply(taken, wait, &actor, answer))
        }
    }
}

fn taken_reply(
    taken: Result<Taken, Unavailable>,
    wait: Duration,
    actor: &Actor,
    answer: impl FnOnce(Pulled) -> Response + Send + 'static,
) -> Reply {
    let pulled = match taken {
        Ok(Taken::Idle(idle)) => {
            let actor = actor.clone();
            return Reply::later(async move {
                let pulled = tokio::select! {
                    biased;
                    guard = idle.within(wait) => Ok(guard),
                    refused = actor.revoked() => Err(refused),
                };
                answer(pulled)
            });
        }
        Ok(other) => Ok(other.lease()),
        Err(unavailable) => Err(unavailable.into()),
    };
    Reply::Now(answer(pulled))
}

/// Parameters of a finish.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Finish {
    /// The order.
    #[param(value_type = Uuid, required = true)]
    pub(super) order_id: Option<String>,
    /// Only if this attempt is still the current one.
    #[param(minimum = 1)]
    pub(super) attempt: Option<u32>,
    /// Then take the next order, as `/start/?wait=` would.
    #[param(minimum = 0, maximum = 55)]
    pub(super) next: Option<u64>,
    /// The barista's name, recorded with the next order; 1 to 64 characters.
    #[param(min_length = 1, max_length = 64)]
    pub(super) barista: Option<String>,
}

/// Report an order ready
///
/// Requests held for it are answered 200, with the `result` if the report has one. The first report counts, from any barista; with `attempt` only if that attempt is
/// still the current one. With `next` the answer is `{"finished": …, "next": …}`.
#[utoipa::path(
    post, path = "/finish/", tag = "orders", security(("token" = ["barista"])), params(Finish),
    request_body(content = Option<FinishReport>, content_type = "application/json"),
    responses(
        JsonBody,
        Parameters,
        FinishError,
        (status = 200, description = "Finished, by this report or before", body = inline(FinishAnswer)),
    ),
)]
async fn finish_order(
    State(desk): State<Desk>,
    version: Version,
    actor: Actor,
    proxied: Proxied,
    Query(report): Query<Finish>,
    body: OptionalJson<FinishReport>,
) -> Result<Response, Problem> {
    let result = body.value.and_then(|report| report.result);
    let by = By {
        version,
        proxied,
        actor: &actor,
    };
    Ok(finish(&desk, by, report, result)?.get().await)
}

/// The report of a finished order, with the next one if it is asked for.
pub(super) fn finish(
    desk: &Desk,
    by: By<'_>,
    report: Finish,
    result: Option<Opaque>,
) -> Result<Reply, Problem> {
    desk.check_length("result", result.as_ref())?;
    let id = order_id(report.order_id.as_deref().unwrap_or_default())?;
    let wait = report
        .next
        .map(|next| bounded_wait("next", next))
        .transpose()?;
    let barista = barista_name(report.barista, by.actor)?;
    let finishing = Finishing {
        attempt: report.attempt,
        result,
        proxied: by.proxied.id.clone(),
    };
    let next = wait.map(|wait| {
        let pulling = Pulling {
            barista,
            proxied: by.proxied.id,
            waits: !wait.is_zero(),
        };
        (pulling, wait)
    });
    let (version, actor) = (by.version, by.actor);
    Ok(match desk.orders.finish(id, finishing) {
        Soon::Now(report) => finish_reply(&desk.orders, report, next, version, actor),
        later @ Soon::Later(_) => {
            let (orders, actor) = (desk.orders.clone(), actor.clone());
            later.then(move |report| finish_reply(&orders, report, next, version, &actor))
        }
    })
}

fn finish_reply(
    orders: &Orders,
    report: Result<Report, FinishError>,
    next: Option<(Pulling, Duration)>,
    version: Version,
    actor: &Actor,
) -> Reply {
    let finished = match report {
        Ok(report) => FinishedOrder::of(&report),
        Err(error) => return Reply::now(Problem::from(error)),
    };
    let Some((pulling, wait)) = next else {
        return Reply::Now(quick_json(&finished));
    };
    let answer = move |pulled: Pulled| {
        // The report counts, also if there is no next order for another reason than an empty line.
        let guard = pulled.unwrap_or_default();
        let json = to_json(&FinishedAndNext {
            finished,
            next: guard.as_ref().map(|next| StartedOrder::of(next.lease())),
        });
        lease_response(json, guard, version)
    };
    taken(orders, pulling, wait, actor, answer)
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
    post, path = "/extend/", tag = "orders", security(("token" = ["barista"])), params(LeaseParams),
    responses(
        IgnoredBody,
        FenceError,
        (status = 200, description = "The new end of the lease", body = ExtendedOrder),
    ),
)]
async fn extend_order(
    State(desk): State<Desk>,
    Query(params): Query<LeaseParams>,
    _: Ignored,
) -> Result<Response, Problem> {
    let id = order_id(params.order_id.as_deref().unwrap_or_default())?;
    let lease = desk.orders.extend(id, params.attempt).get().await?;
    Ok(no_store(&ExtendedOrder {
        order_id: lease.id.0,
        attempt: lease.attempt,
        lease_expires_at: lease.lease_expires_at.into(),
        lease_remaining_ms: millis(lease.remaining),
        customer_waiting: lease.customer_waiting,
        customer_presence: lease.presence.as_str(),
    }))
}

/// Give an order back
///
/// It returns to its original place at once.
#[utoipa::path(
    post, path = "/release/", tag = "orders", security(("token" = ["barista"])), params(LeaseParams),
    responses(
        IgnoredBody,
        FenceError,
        (status = 200, description = "Back in line", body = ReleasedOrder),
    ),
)]
async fn release_order(
    State(desk): State<Desk>,
    Query(params): Query<LeaseParams>,
    _: Ignored,
) -> Result<Response, Problem> {
    let id = order_id(params.order_id.as_deref().unwrap_or_default())?;
    desk.orders.release(id, params.attempt).get().await?;
    Ok(no_store(&ReleasedOrder { order_id: id.0 }))
}

/// The given name, else the token's subject.
fn barista_name(name: Option<String>, actor: &Actor) -> Result<Option<Box<str>>, Problem> {
    let name = name.map(|name| checked_name(&name)).transpose()?;
    Ok(name.or_else(|| actor.subject().map(Box::from)))
}

#[cfg(test)]
mod tests {
    use super::super::super::memory::Memory;
    use super::super::super::requests::Wanted;
    use super::*;

    #[tokio::test]
    async fn an_answer_that_never_reached_the_connection_puts_the_order_back() {
        let registry = crate::telemetry::Registry::new(&[]);
        let rules = crate::orders::line::tests::rules();
        let orders = Memory::new(rules, registry.register(crate::orders::Metrics::register));
        let held = orders.place(Wanted::default(), true).unwrap();
        let guard = orders.pull(None, false).lease().unwrap();
        let response = lease_response(to_json(""), Some(guard), Version::HTTP_11);
        assert_eq!(orders.figures().brewing, 1);
        drop(response);
        assert_eq!((orders.figures().brewing, orders.figures().waiting), (0, 1));

        let again = orders.pull(None, false).lease().unwrap();
        assert_eq!(
            again.lease().attempt,
            1,
            "a lease that was not delivered is not counted"
        );
        let response = lease_response(to_json(""), Some(again), Version::HTTP_11);
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
