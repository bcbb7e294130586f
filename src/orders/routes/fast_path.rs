//! The short way of a cycle's three requests: `POST /order/`, `/start/` and `POST /finish/`, without a body and with plain
//! parameters. See [`FastPath`]; everything else goes through the router.
//!
//! Each request is read as its handler's extractors would read it, in their order, and then answered by the same function.

use axum::http::Method;

use super::Desk;
use super::baristas::{Finish, Pull, finish, start};
use super::customers::place;
use crate::flood::routes::Newcomer;
use crate::http::body::OptionalJson;
use crate::http::reply::{Bare, FastPath, Reply, plain_query};

/// Of the customers' listener.
#[derive(Debug)]
pub struct CustomersFastPath(pub Desk);

impl FastPath for CustomersFastPath {
    fn reply(&self, request: &Bare<'_>) -> Option<Reply> {
        let is_order = matches!(request.uri.path(), "/order/" | "/order");
        if !is_order || request.method != Method::POST || request.uri.query().is_some() {
            return None;
        }
        let Self(desk) = self;
        let caller = request.caller;
        let newcomer = Newcomer::of(desk.flood.clone(), caller.peer, request.headers);
        Some(match newcomer {
            Ok(Newcomer(asker)) => place(
                desk,
                &asker,
                caller.logged_request_id(),
                &caller.actor(),
                request.headers,
                OptionalJson::none(),
            ),
            Err(refusal) => Reply::now(refusal),
        })
    }
}

/// Of the staff's listener.
#[derive(Debug)]
pub struct StaffFastPath(pub Desk);

impl FastPath for StaffFastPath {
    fn reply(&self, request: &Bare<'_>) -> Option<Reply> {
        let Self(desk) = self;
        let actor = request.caller.actor();
        let query = request.uri.query().unwrap_or_default();
        let reply = match (request.uri.path(), request.method) {
            ("/start/" | "/start", &Method::GET | &Method::POST) => {
                start(desk, request.version, &actor, Pull::plain(query)?)
            }
            ("/finish/" | "/finish", &Method::POST) => {
                finish(desk, request.version, &actor, Finish::plain(query)?)
            }
            _ => return None,
        };
        Some(reply.unwrap_or_else(Reply::now))
    }
}

impl Pull {
    /// None if the router must read it.
    fn plain(query: &str) -> Option<Self> {
        let [wait, barista] = plain_query(query, ["wait", "barista"])?;
        Some(Self {
            wait: number(wait)?,
            barista: barista.map(str::to_owned),
        })
    }
}

impl Finish {
    /// None if the router must read it.
    fn plain(query: &str) -> Option<Self> {
        let names = ["order_id", "attempt", "next", "barista"];
        let [order_id, attempt, next, barista] = plain_query(query, names)?;
        Some(Self {
            order_id: order_id.map(str::to_owned),
            attempt: number(attempt)?,
            next: number(next)?,
            barista: barista.map(str::to_owned),
        })
    }
}

/// The number, if there is one. None if it cannot be read as one: the router has the problem for that.
#[expect(clippy::option_option, reason = "as explained")]
fn number<T: std::str::FromStr>(text: Option<&str>) -> Option<Option<T>> {
    text.map(str::parse).transpose().ok()
}
