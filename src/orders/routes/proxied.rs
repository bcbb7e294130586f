//! What a trusted proxy says about a request: its id there, and whether it is sent again.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};

use super::Desk;
use crate::flood::routes::PROXY_RESENT;
use crate::http::params::Caller;
use crate::http::request_id::REQUEST_ID_CHARS_MAX;

/// The proxy's id of the request. It sends the request again when its server is lost, with the same id.
pub(super) const PROXY_REQUEST: HeaderName = HeaderName::from_static("proxy-request");

/// See [the module](self). Nothing is known with a line in memory, or from a peer that is not in `flood.trusted_proxies`.
#[derive(Debug, Default)]
pub(super) struct Proxied {
    pub(super) id: Option<Box<str>>,
    /// It was admitted when it was sent first.
    pub(super) is_resent: bool,
}

impl Proxied {
    pub(super) fn of(desk: &Desk, caller: &Caller, headers: &HeaderMap) -> Self {
        if !desk.orders.is_shared() || !desk.flood.trusts(caller.peer) {
            return Self::default();
        }
        let id = headers.get(PROXY_REQUEST).and_then(|id| id.to_str().ok());
        let id = id.filter(|id| {
            (1..=REQUEST_ID_CHARS_MAX).contains(&id.len())
                && id.bytes().all(|byte| byte.is_ascii_graphic())
        });
        Self {
            is_resent: id.is_some() && headers.contains_key(PROXY_RESENT),
            id: id.map(Box::from),
        }
    }
}

impl FromRequestParts<Desk> for Proxied {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, desk: &Desk) -> Result<Self, Infallible> {
        let caller = parts.extensions.get::<Caller>();
        Ok(caller.map_or_else(Self::default, |caller| {
            Self::of(desk, caller, &parts.headers)
        }))
    }
}
