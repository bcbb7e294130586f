//! Flood control over HTTP: how a refusal looks, and what the staff can see and do.

use std::net::IpAddr;
use std::time::Duration;

use axum::extract::{FromRef, FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use ipnet::IpNet;
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use super::admission::{Admission, Flood, shown};
use super::table::{Limits, Reason, Refused};
use crate::http::Problem;
use crate::http::api::with_state;
use crate::http::edge::Caller;
use crate::http::page::not_kept_list;
use crate::http::params::Path;
use crate::values::time::Moment;

impl<S: Send + Sync> FromRequestParts<S> for Admission
where
    Flood: FromRef<S>,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let flood = Flood::from_ref(state);
        let Some(&Caller { peer, .. }) = parts.extensions.get() else {
            unreachable!("the edge tells every request's peer")
        };
        let limits = |refused| Refusal::new(&refused, flood.table().limits());
        flood.admit(peer, &parts.headers).map_err(limits)
    }
}

/// 429, with what the client may do and when.
#[derive(Debug)]
pub struct Refusal {
    problem: Problem,
    policy: String,
    limit: String,
}

impl Refusal {
    fn new(refused: &Refused, limits: &Limits) -> Self {
        let (slug, title, detail) = match refused.reason {
            Reason::Outstanding => (
                "too-many-outstanding",
                "Too many orders at once",
                format!(
                    "At most {} orders from one address may be open.",
                    limits.outstanding_max
                ),
            ),
            Reason::Rate => (
                "too-many-requests",
                "Too many orders in too short a time",
                format!(
                    "{} orders at once, then one every {:?}.",
                    limits.burst, limits.refill
                ),
            ),
            Reason::CutOff => return cut_off(refused.retry_after, limits),
        };
        if refused.cut_off_now {
            return cut_off(refused.retry_after, limits);
        }
        Self::with(
            Problem::new(StatusCode::TOO_MANY_REQUESTS, slug, title, detail),
            refused.retry_after,
            limits,
        )
    }

    /// `RateLimit-Policy` and `RateLimit` as of draft-ietf-httpapi-ratelimit-headers-10: quota and window, what remains
    /// and when that changes.
    fn with(problem: Problem, retry_after: Duration, limits: &Limits) -> Self {
        let burst = limits.burst;
        let window = whole_secs(limits.refill * burst.get());
        Self {
            problem: problem.retry_after(retry_after),
            policy: format!("\"orders\";q={burst};w={window}"),
            limit: format!("\"orders\";r=0;t={}", whole_secs(retry_after)),
        }
    }
}

fn cut_off(time: Duration, limits: &Limits) -> Refusal {
    Refusal::with(cut_off_problem(), time, limits)
}

fn cut_off_problem() -> Problem {
    Problem::new(
        StatusCode::TOO_MANY_REQUESTS,
        "cut-off",
        "This address is cut off",
        "Too many requests were refused; orders from this address are not accepted for a while.",
    )
}

/// What somebody is told whose waiting order is taken away because their address is cut off.
pub fn purged(time: Duration) -> Problem {
    cut_off_problem().retry_after(time)
}

fn whole_secs(time: Duration) -> u64 {
    (time.as_secs() + u64::from(time.subsec_nanos() > 0)).max(1)
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = self.problem.into_response();
        for (name, value) in [("ratelimit-policy", self.policy), ("ratelimit", self.limit)] {
            if let Ok(value) = HeaderValue::try_from(value) {
                response
                    .headers_mut()
                    .insert(HeaderName::from_static(name), value);
            }
        }
        response
    }
}

/// Who is cut off.
#[derive(Debug, Serialize, ToSchema)]
struct FloodState {
    /// enforce, observe or off.
    #[schema(example = "enforce")]
    mode: &'static str,
    /// How many addresses are tracked.
    addresses: usize,
    /// Most refused first.
    cut_off: Vec<CutOffAddress>,
}

/// An address that is cut off.
#[derive(Debug, Serialize, ToSchema)]
struct CutOffAddress {
    /// The address, or the network that shares an entry.
    #[schema(example = "192.0.2.7")]
    address: String,
    #[schema(value_type = String, format = DateTime)]
    until: Moment,
    /// Refusals since it is known.
    refused: u64,
}

/// Who is cut off
///
/// And until when, most refused first.
#[utoipa::path(get, path = "/flood", tag = "flood", responses((status = 200, description = "Those that are cut off", body = FloodState)))]
async fn list_cut_off(State(flood): State<Flood>) -> Response {
    let (now, wall) = (Instant::now(), Timestamp::now());
    let table = flood.table();
    let cut_off = table
        .cut_off()
        .into_iter()
        .map(|entry| CutOffAddress {
            address: shown(entry.address),
            until: wall
                .checked_add(entry.until - now)
                .unwrap_or(Timestamp::MAX)
                .into(),
            refused: entry.refused,
        })
        .collect();
    let state = FloodState {
        mode: flood.mode().as_str(),
        addresses: table.len(),
        cut_off,
    };
    not_kept_list(state.cut_off.len(), state).await
}

/// An address let back in.
#[derive(Debug, Serialize, ToSchema)]
struct LetBackIn {
    /// The address, or the network that shares an entry.
    #[schema(example = "192.0.2.7")]
    address: String,
}

/// Let an address back in
///
/// At once, with a clean slate.
#[utoipa::path(
    delete, path = "/flood/{address}", tag = "flood",
    params(("address" = String, Path, description = "An address, or a network as it is listed, its slash written %2F")),
    responses(
        (status = 200, description = "Let back in", body = LetBackIn),
        (status = 400, description = "Not an address", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "Not cut off", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn let_back_in(
    State(flood): State<Flood>,
    Path(address): Path<String>,
) -> Result<Response, Problem> {
    let parsed = address
        .parse::<IpNet>()
        .or_else(|_| address.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| Problem::unreadable("This is neither an address nor a network."))?;
    if !flood.let_back_in(parsed) {
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            "not-cut-off",
            "Not cut off",
            "This address is not cut off.",
        ));
    }
    let address = shown(parsed);
    Ok((
        [("cache-control", "no-store")],
        axum::Json(LetBackIn { address }),
    )
        .into_response())
}

/// What the staff may do.
pub fn staff_routes(flood: &Flood) -> [UtoipaMethodRouter; 2] {
    with_state([routes!(list_cut_off), routes!(let_back_in)], flood)
}
