//! The order line over HTTP, for `customers` and `baristas`. `wire` has the JSON types, `problems` maps errors, `lease_body` is
//! the answer that carries a lease, `proxied` is what a proxy says about a request, `stream` and `screens` are event streams (`shown` has their JSON types), `fast_path` is the short way of a cycle's
//! three requests.

mod baristas;
mod customers;
mod fast_path;
mod lease_body;
mod problems;
mod proxied;
mod screens;
mod shown;
mod stream;
mod wire;

use std::time::Duration;

use axum::body::Body;
use axum::extract::FromRef;
use axum::response::Response;
use bytes::Bytes;
use http_body_util::Full;
use uuid::Uuid;

pub use self::baristas::staff_routes;
pub use self::customers::customer_routes;
pub use self::fast_path::{CustomersFastPath, StaffFastPath};
pub use self::shown::LineState;
use super::model::{BARISTA_CHARS_MAX, OrderId};
use super::screens::Screens;
use super::service::Orders;
use crate::flood::Flood;
use crate::http::Problem;
use crate::http::body::BodyLimits;
use crate::http::caching::no_store_json;
use crate::http::config::Pages;
use crate::http::feed::Feeds;
use crate::http::params::parsed;
use crate::values::json::{Mistake, Opaque};
use crate::values::object::WriteJson;

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
    /// Of an order's details and of its result, as text.
    pub details_max_bytes: usize,
    /// See `orders.keep_max`.
    pub keep_max: Duration,
    pub screens: Screens,
    pub pages: Pages,
    /// Of the listener.
    pub feeds: Feeds,
}

impl Desk {
    /// Checks the length of a field that is passed on.
    ///
    /// # Errors
    /// 422 if it is longer than `orders.details_max_bytes`.
    fn check_length(&self, field: &str, value: Option<&Opaque>) -> Result<(), Problem> {
        let (length, most) = (
            value.map_or(0, |value| value.text().len()),
            self.details_max_bytes,
        );
        if length <= most {
            return Ok(());
        }
        let detail = format!("As compact JSON it has {length} bytes; {most} are accepted.");
        Err(vec![Mistake::new(format!("/{field}"), detail)].into())
    }
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

/// A barista's name.
///
/// # Errors
/// 422 if it is too short or too long.
fn checked_name(name: &str) -> Result<Box<str>, Problem> {
    let parse = |name: &str| {
        let fits = (1..=BARISTA_CHARS_MAX).contains(&name.chars().count());
        fits.then(|| name.into())
    };
    let detail = || format!("`barista` must be 1 to {BARISTA_CHARS_MAX} characters long.");
    parsed("barista", name, parse, detail)
}

fn to_json(value: &(impl WriteJson + ?Sized)) -> Bytes {
    // Fits any of a cycle's answers, to avoid reallocation.
    let mut json = Vec::with_capacity(512);
    value.write(&mut json);
    json.into()
}

/// 200 with one of a cycle's answers.
fn quick_json(value: &impl WriteJson) -> Response {
    no_store_json(Body::new(Full::new(to_json(value))))
}
