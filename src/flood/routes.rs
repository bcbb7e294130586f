//! Flood control over HTTP: the 429 answer, and the staff's routes.

use std::cmp::Reverse;
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::{FromRef, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{Route, future::RouteFuture};
use ipnet::IpNet;
use jiff::Timestamp;
use pin_project_lite::pin_project;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tower::Service;
use tower::layer::layer_fn;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use super::admission::{Admission, Flood, display};
use super::client::Origin;
use super::config::Mode;
use super::networks::{Kind, Level};
use super::table::{Ask, Block, Limits, Reason, Refused, WRITES_PER_ORDER};
use crate::http::Problem;
use crate::http::caching::no_store_list;
use crate::http::params::{Actor, Caller, Path, Query, page_cursor, page_limit};
use crate::http::responses::{NotFound, Parameters, describe_limits};
use crate::values::time::Moment;

/// Present when a trusted proxy sends a request again, because its server was lost.
pub const PROXY_RESENT: HeaderName = HeaderName::from_static("proxy-resent");

/// The client of a request, before admission.
#[derive(Debug)]
pub struct Asker {
    flood: Flood,
    origin: Origin,
}

impl Asker {
    fn of(flood: Flood, extensions: &Extensions, headers: &HeaderMap) -> Self {
        let Some(&Caller { peer, .. }) = extensions.get() else {
            unreachable!("the edge adds a `Caller` to every request")
        };
        Self::at(flood, peer, headers)
    }

    fn at(flood: Flood, peer: IpAddr, headers: &HeaderMap) -> Self {
        let origin = flood.origin(peer, headers);
        Self { flood, origin }
    }

    /// The address that the request counts for, or would count for.
    pub fn address(&self) -> IpNet {
        self.origin.address
    }

    /// # Errors
    /// [`Refusal`].
    pub fn admit(&self, ask: Ask) -> Result<Admission, Refusal> {
        let limits = self.flood.table().limits();
        let refused = |refused| Refusal::new(&refused, ask, limits);
        self.flood.admit(&self.origin, ask).map_err(refused)
    }

    /// See [`Flood::recheck`].
    pub fn recheck(&self) {
        self.flood.recheck(&self.origin);
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Asker
where
    Flood: FromRef<S>,
{
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let flood = Flood::from_ref(state);
        Ok(Self::of(flood, &parts.extensions, &parts.headers))
    }
}

/// A client that is not blocked. Nothing is counted before the request is known to be well-formed.
#[derive(Debug)]
pub struct Newcomer(pub Asker);

impl Newcomer {
    /// # Errors
    /// [`Refusal`] if it is blocked.
    pub fn of(flood: Flood, peer: IpAddr, headers: &HeaderMap) -> Result<Self, Refusal> {
        let is_resent = headers.contains_key(PROXY_RESENT) && flood.trusts(peer);
        let asker = Asker::at(flood, peer, headers);
        if is_resent {
            // It may be for an order that is in line: where a server may know, admission or the line refuses what is new.
            return Ok(Self(asker));
        }
        Self::checked(asker)
    }

    fn checked(asker: Asker) -> Result<Self, Refusal> {
        let limits = asker.flood.table().limits();
        let refused = |refused| Refusal::new(&refused, Ask::Order, limits);
        asker.flood.look(&asker.origin).map_err(refused)?;
        Ok(Self(asker))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Newcomer
where
    Flood: FromRef<S>,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let flood = Flood::from_ref(state);
        let Some(&Caller { peer, .. }) = parts.extensions.get() else {
            unreachable!("the edge adds a `Caller` to every request")
        };
        Self::of(flood, peer, &parts.headers)
    }
}

/// Adds admission to the unsafe methods of these routes. Without `flood` it is only described.
pub fn limited<S: Clone + Send + Sync + 'static, const N: usize>(
    routes: [UtoipaMethodRouter<S>; N],
    flood: Option<&Flood>,
) -> [UtoipaMethodRouter<S>; N] {
    routes.map(|(schemas, mut paths, methods)| {
        describe_limits(&mut paths);
        let methods = match flood.cloned() {
            Some(flood) => {
                let policy = Quota::of(Ask::Write, flood.table().limits()).policy();
                methods.layer(layer_fn(move |route| Limited {
                    flood: flood.clone(),
                    policy: policy.clone(),
                    route,
                }))
            }
            None => methods,
        };
        (schemas, paths, methods)
    })
}

/// A route whose unsafe requests are admitted first. Axum's `from_fn` copies the route twice more, and allocates.
#[derive(Clone)]
struct Limited {
    flood: Flood,
    /// Of writes; see [`Quota::policy`].
    policy: HeaderValue,
    route: Route,
}

impl Service<Request> for Limited {
    type Response = Response;
    type Error = Infallible;
    type Future = LimitedAnswer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Routes always are.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> LimitedAnswer {
        let mut admission = None;
        if !request.method().is_safe() {
            let flood = self.flood.clone();
            let asker = Asker::of(flood, request.extensions(), request.headers());
            match asker.admit(Ask::Write) {
                Ok(admitted) => admission = Some((admitted, self.policy.clone())),
                Err(refusal) => {
                    let refusal = Some(refusal);
                    return LimitedAnswer::Refused { refusal };
                }
            }
        }
        LimitedAnswer::Admitted {
            answer: self.route.call(request),
            admission,
        }
    }
}

pin_project! {
    /// The answer to an admitted request, or its refusal.
    #[project = LimitedAnswerNow]
    enum LimitedAnswer {
        Refused {
            refusal: Option<Refusal>,
        },
        Admitted {
            #[pin]
            answer: RouteFuture<Infallible>,
            // None if the request is safe.
            admission: Option<(Admission, HeaderValue)>,
        },
    }
}

impl Future for LimitedAnswer {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            LimitedAnswerNow::Refused { refusal } => {
                let refusal = refusal.take().expect("not polled after its end");
                Poll::Ready(Ok(refusal.into_response()))
            }
            LimitedAnswerNow::Admitted { answer, admission } => {
                let mut response = ready!(answer.poll(cx))?;
                if let Some((admission, policy)) = admission.take() {
                    admission.answered(&mut response, policy);
                }
                Poll::Ready(Ok(response))
            }
        }
    }
}

impl Admission {
    fn answered(mut self, response: &mut Response, policy: HeaderValue) {
        if is_malformed(response.status()) {
            self.malformed();
        }
        if let Some((limits, left)) = self.left() {
            let limit = Quota::of(Ask::Write, limits).limit(left, None);
            add_limit(response, policy, limit);
        }
    }
}

fn is_malformed(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_REQUEST
            | StatusCode::REQUEST_TIMEOUT
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
            | StatusCode::UNPROCESSABLE_ENTITY
    )
}

/// 429 with the limit and when to retry.
#[derive(Debug)]
pub struct Refusal {
    problem: Box<Problem>,
    limit: Box<(Quota, Duration)>,
}

impl Refusal {
    fn new(refused: &Refused, ask: Ask, limits: &Limits) -> Self {
        let shares = &limits.shares;
        let what = match ask {
            Ask::Order | Ask::Again => "orders",
            Ask::Watch => "held requests",
            Ask::Write => "requests",
        };
        let quota = match refused.reason {
            Reason::Outstanding | Reason::Scarce => Quota::open(shares.max(Level::Address)),
            Reason::Network if ask != Ask::Write => Quota::open(shares.max(Level::Provider)),
            Reason::Network | Reason::Rate | Reason::Blocked => Quota::of(ask, limits),
        };
        let problem = |slug, title, detail: String| {
            Problem::new(StatusCode::TOO_MANY_REQUESTS, slug, title, detail)
        };
        let problem = match refused.reason {
            _ if refused.blocked_since.is_some() => blocked_problem(),
            Reason::Blocked => blocked_problem(),
            Reason::Outstanding => problem(
                "too-many-outstanding",
                "Too many at once",
                format!(
                    "At most {} {what} from one address may be open.",
                    shares.address_max
                ),
            ),
            Reason::Network => problem(
                "too-many-from-network",
                "Too many at once from the networks around this address",
                match ask {
                    Ask::Write => {
                        "All addresses of one subscriber or provider share a rate.".to_owned()
                    }
                    Ask::Order | Ask::Again | Ask::Watch => format!(
                        "At most {} {what} from one provider's network may be open, and fewer from a part of it.",
                        shares.max(Level::Provider)
                    ),
                },
            ),
            Reason::Scarce => problem(
                "line-nearly-full",
                "The line is nearly full",
                "The places left are for addresses that have fewer orders in it.".to_owned(),
            ),
            Reason::Rate => problem(
                "too-many-requests",
                "Too many in too short a time",
                format!(
                    "{} {what} at once, then {} every {} s.",
                    quota.most,
                    quota.most,
                    quota.window_secs.unwrap_or_default()
                ),
            ),
        };
        Self {
            problem: Box::new(problem.retry_after(refused.retry_after)),
            limit: Box::new((quota, refused.retry_after)),
        }
    }
}

/// A limit per window, or on open items.
#[derive(Debug)]
struct Quota {
    name: &'static str,
    most: u32,
    window_secs: Option<u64>,
}

impl Quota {
    fn open(most: u32) -> Self {
        Self {
            name: "open",
            most,
            window_secs: None,
        }
    }

    fn of(ask: Ask, limits: &Limits) -> Self {
        let orders = limits.config.burst;
        let (name, most) = match ask {
            Ask::Order | Ask::Again | Ask::Watch => ("orders", orders),
            Ask::Write => ("writes", orders.saturating_mul(WRITES_PER_ORDER.get())),
        };
        Self {
            name,
            most,
            window_secs: Some(whole_secs(limits.config.refill * orders)),
        }
    }

    /// `RateLimit-Policy`: quota and window.
    fn policy(&self) -> HeaderValue {
        let window = self.window_secs.map(|secs| format!(";w={secs}"));
        quoted(self.name, 'q', self.most, window)
    }

    /// `RateLimit`: what remains, and when that changes.
    fn limit(&self, left: u32, changes_in: Option<Duration>) -> HeaderValue {
        let changes = changes_in.map(|time| format!(";t={}", whole_secs(time)));
        quoted(self.name, 'r', left, changes)
    }
}

fn quoted(name: &str, parameter: char, value: u32, rest: Option<String>) -> HeaderValue {
    let text = format!("\"{name}\";{parameter}={value}{}", rest.unwrap_or_default());
    HeaderValue::try_from(text).expect("printable ASCII is a header value")
}

/// The headers of draft-ietf-httpapi-ratelimit-headers-10.
fn add_limit(response: &mut Response, policy: HeaderValue, limit: HeaderValue) {
    let headers = response.headers_mut();
    headers.insert(HeaderName::from_static("ratelimit-policy"), policy);
    headers.insert(HeaderName::from_static("ratelimit"), limit);
}

fn blocked_problem() -> Problem {
    Problem::new(
        StatusCode::TOO_MANY_REQUESTS,
        "cut-off",
        "This address is blocked",
        "Too many requests were refused; nothing new is accepted from this address for a while.",
    )
}

/// The answer to a held request whose order was cancelled because its address was blocked.
pub fn purged(time: Duration) -> Problem {
    blocked_problem().retry_after(time)
}

fn whole_secs(time: Duration) -> u64 {
    (time.as_secs() + u64::from(time.subsec_nanos() > 0)).max(1)
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = self.problem.into_response();
        let (quota, retry_after) = *self.limit;
        let limit = quota.limit(0, Some(retry_after));
        add_limit(&mut response, quota.policy(), limit);
        response
    }
}

/// The state of flood control.
#[derive(Debug, Serialize, ToSchema)]
struct FloodState {
    /// enforce, observe or off.
    #[schema(value_type = String, example = "enforce")]
    mode: Mode,
    limits: FloodLimits,
    /// How many addresses are tracked.
    addresses: usize,
    /// Open orders.
    open_orders: usize,
    /// Requests held until an order's state changes.
    held_requests: usize,
    /// How many addresses are blocked.
    cut_off_count: usize,
    /// Most refused first.
    cut_off: Vec<BlockedAddress>,
    /// The `cursor` of the next page, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next: Option<String>,
}

/// The limits.
#[derive(Debug, Serialize, ToSchema)]
struct FloodLimits {
    /// Orders of one address, or one IPv6 /56, that may be open.
    #[schema(example = 250)]
    address_max: u32,
    /// Of an IPv4 /24 or an IPv6 /48.
    #[schema(example = 325)]
    site_max: u32,
    /// Of an IPv4 /16 or an IPv6 /32.
    #[schema(example = 400)]
    provider_max: u32,
    /// Orders at once; another write costs a tenth of one.
    #[schema(example = 250)]
    burst: u32,
    /// Seconds after which one more is admitted.
    #[schema(example = 1.0)]
    refill_s: f64,
    /// Connections of one address.
    #[schema(example = 600)]
    connections_max: u32,
    /// Of one provider's network.
    #[schema(example = 9000)]
    network_connections_max: u32,
}

/// A blocked address.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CutOffAddress)]
struct BlockedAddress {
    #[schema(example = "192.0.2.7")]
    address: String,
    /// Why it was last refused: rate, or outstanding.
    #[schema(example = "rate")]
    reason: &'static str,
    /// Since when it was refused; waiting orders it placed later were cancelled.
    #[schema(value_type = String, format = DateTime)]
    since: Moment,
    #[schema(value_type = String, format = DateTime)]
    until: Moment,
    /// Refusals since it is tracked.
    refused: u64,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct BlockedQuery {
    /// On a page at most; default 100.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    limit: Option<String>,
    /// Where the page begins: the `next` of the page before.
    cursor: Option<String>,
}

/// Blocked addresses
///
/// Why, and until when; most refused first, page by page. An address refused between two pages may move to an earlier one.
#[utoipa::path(
    get, path = "/flood", tag = "flood", security(("token" = ["operator"])), operation_id = "list_cut_off", params(BlockedQuery),
    responses(Parameters, (status = 200, description = "The limits, and the blocked addresses", body = FloodState)),
)]
async fn list_blocked(
    State(flood): State<Flood>,
    Query(BlockedQuery { limit, cursor }): Query<BlockedQuery>,
) -> Result<Response, Problem> {
    let limit = page_limit(limit)?;
    let after = page_cursor(cursor, place)?;
    let (now, wall) = (Instant::now(), Timestamp::now());
    let table = flood.table();
    let all = table.blocked();
    let cut_off_count = all.len();
    let mut rest = all
        .into_iter()
        .skip_while(|entry| after.is_some_and(|after| rank(entry) <= after));
    let page: Vec<Block> = rest.by_ref().take(limit).collect();
    let next = page
        .last()
        .filter(|_| rest.next().is_some())
        .map(|last| format!("{}-{}", last.refused, last.address));
    let state = FloodState {
        mode: flood.mode(),
        limits: FloodLimits::of(table.limits()),
        addresses: table.len(),
        open_orders: table.networks().total(Kind::Order),
        held_requests: table.networks().total(Kind::Watch),
        cut_off_count,
        cut_off: page
            .into_iter()
            .map(|entry| BlockedAddress {
                address: display(entry.address),
                reason: entry.reason.as_str(),
                since: wall
                    .checked_sub(now.saturating_duration_since(entry.since))
                    .unwrap_or(Timestamp::MIN)
                    .into(),
                until: wall
                    .checked_add(entry.until.saturating_duration_since(now))
                    .unwrap_or(Timestamp::MAX)
                    .into(),
                refused: entry.refused,
            })
            .collect(),
        next,
    };
    Ok(no_store_list(state.cut_off.len(), state).await)
}

impl FloodLimits {
    fn of(limits: &Limits) -> Self {
        Self {
            address_max: limits.shares.max(Level::Address),
            site_max: limits.shares.max(Level::Site),
            provider_max: limits.shares.max(Level::Provider),
            burst: limits.config.burst,
            refill_s: limits.config.refill.as_secs_f64(),
            connections_max: limits.connections.max(Level::Address),
            network_connections_max: limits.connections.max(Level::Provider),
        }
    }
}

/// A place in the list of [`Table::blocked`](super::table::Table::blocked).
type Rank = (Reverse<u64>, IpNet);

fn rank(entry: &Block) -> Rank {
    (Reverse(entry.refused), entry.address)
}

fn place(cursor: &str) -> Option<Rank> {
    let (refused, address) = cursor.split_once('-')?;
    Some((Reverse(refused.parse().ok()?), address.parse().ok()?))
}

/// An unblocked address.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LetBackIn)]
struct Unblocked {
    /// The address, or the network that shares an entry.
    #[schema(example = "192.0.2.7")]
    address: String,
}

/// Unblock an address
///
/// At once; its refusals are reset.
#[utoipa::path(
    delete, path = "/flood/{address}", tag = "flood", security(("token" = ["operator"])), operation_id = "let_back_in",
    params(("address" = String, Path, description = "An address, or a network as it is listed, its slash written %2F")),
    responses(NotFound, (status = 200, description = "Unblocked", body = Unblocked)),
)]
async fn unblock(
    State(flood): State<Flood>,
    actor: Actor,
    Path(address): Path<String>,
) -> Result<Response, Problem> {
    let parsed = address
        .parse::<IpNet>()
        .or_else(|_| address.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| Problem::unreadable("This is neither an address nor a network."))?;
    if !flood.unblock(parsed, actor.name()) {
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            "not-cut-off",
            "Not blocked",
            "This address is not blocked.",
        ));
    }
    let address = display(parsed);
    Ok((
        [("cache-control", "no-store")],
        axum::Json(Unblocked { address }),
    )
        .into_response())
}

pub fn staff_routes() -> [UtoipaMethodRouter<Flood>; 2] {
    [routes!(list_blocked), routes!(unblock)]
}
