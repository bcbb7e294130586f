//! The short way of a cycle's three requests: `POST /order/`, `/start/` and `POST /finish/`, without a body and with plain
//! parameters. See [`FastPath`]; everything else goes through the router.
//!
//! Each request is read as its handler's extractors would read it, in their order, and then answered by the same function.

use axum::http::Method;

use super::Desk;
use super::baristas::{By, Finish, Pull, finish, start};
use super::customers::{Client, place};
use super::proxied::Proxied;
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
            Ok(Newcomer(asker)) => {
                let client = Client {
                    request_id: caller.logged_request_id(),
                    proxied: Proxied::of(desk, caller, request.headers),
                    actor: &caller.actor(),
                    headers: request.headers,
                };
                place(desk, &asker, client, OptionalJson::none())
            }
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
        let caller = request.caller;
        let actor = caller.actor();
        let by = || By {
            version: request.version,
            proxied: Proxied::of(desk, caller, request.headers),
            actor: &actor,
        };
        let query = request.uri.query().unwrap_or_default();
        let reply = match (request.uri.path(), request.method) {
            ("/start/" | "/start", &Method::GET | &Method::POST) => {
                start(desk, by(), Pull::plain(query)?)
            }
            ("/finish/" | "/finish", &Method::POST) => {
                finish(desk, by(), Finish::plain(query)?, None)
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

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Duration;

    use axum::http::{HeaderMap, HeaderValue, Version};

    use super::*;
    use crate::config::Config;
    use crate::flood::{self, Flood};
    use crate::http::connection::Shutdown;
    use crate::http::feed::Feeds;
    use crate::http::params::Caller;
    use crate::orders::screens::Screens;
    use crate::orders::{self, Orders};
    use crate::telemetry::Registry;

    fn desk() -> Desk {
        let config = Config::defaults();
        let registry = Registry::new(&[]);
        let limits = flood::table::Limits::new(config.flood, 100, 100);
        let metrics = registry.register(flood::Metrics::register);
        let orders = Orders::in_memory(config.orders, registry.register(orders::Metrics::register));
        Desk {
            screens: Screens::new(orders.clone()),
            feeds: Feeds::new(&config.pages, Shutdown::default()),
            pages: config.pages,
            keep_max: Duration::ZERO,
            orders,
            flood: Flood::new(limits, metrics, |_, _, _| 0),
            limits: config.http.body_limits(),
            start_wait: Duration::ZERO,
            details_max_bytes: 0,
        }
    }

    fn is_fast(fast_path: &impl FastPath, method: &Method, uri: &str) -> bool {
        let caller = Caller {
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            request_id: HeaderValue::from_static("1"),
            granted: None,
        };
        let request = Bare {
            method,
            uri: &uri.parse().unwrap(),
            version: Version::HTTP_11,
            headers: &HeaderMap::new(),
            caller: &caller,
        };
        fast_path.reply(&request).is_some()
    }

    #[tokio::test]
    async fn the_usual_requests_are_answered_here_and_no_others() {
        let (customers, staff) = (CustomersFastPath(desk()), StaffFastPath(desk()));
        let (get, post) = (Method::GET, Method::POST);
        let id = uuid::Uuid::nil();
        for path in ["/order/", "/order"] {
            assert!(is_fast(&customers, &post, path), "{path}");
            assert!(!is_fast(&customers, &get, path), "{path}");
            assert!(!is_fast(&customers, &post, &format!("{path}?")), "{path}");
            assert!(!is_fast(&customers, &post, &format!("{path}?&")), "{path}");
        }
        assert!(!is_fast(&customers, &post, "/orders/"));
        for (uri, by_get, by_post) in [
            ("/start/", true, true),
            ("/start?wait=5&barista=Bo", true, true),
            ("/start/?wait=99", true, true),
            ("/start/?wait=x", false, false),
            ("/start/?&wait=5", false, false),
            ("/start/?barista=B%C3%B6", false, false),
            ("/finish/", false, true),
            (
                &format!("/finish/?order_id={id}&attempt=1&next=0"),
                false,
                true,
            ),
            (&format!("/finish/?order_id={id}&attempt=-1"), false, false),
            ("/extend/", false, false),
        ] {
            assert_eq!(is_fast(&staff, &get, uri), by_get, "{uri}");
            assert_eq!(is_fast(&staff, &post, uri), by_post, "{uri}");
        }
        assert!(!is_fast(&staff, &Method::HEAD, "/start/"));
    }
}
