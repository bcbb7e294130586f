//! The section `http`, and what the sections of both listeners have in common.

use std::time::Duration;

use garde::Validate;
use serde::{Deserialize, Serialize};

use super::body::BodyLimits;
use crate::values::config::{each, text, within};

#[derive(Debug, Clone, Deserialize, Serialize, Validate)]
pub struct Http {
    /// Time for a request's header, including the first byte and idle keep-alive; over HTTP/2, time without a request.
    #[serde(with = "text")]
    #[garde(custom(within("1s", "5m")))]
    pub header_timeout: Duration,
    /// Time in which a client must read some bytes of an answer; over HTTP/2, of each answer.
    #[serde(with = "text")]
    #[garde(custom(within("1s", "5m")))]
    pub write_timeout: Duration,
    #[serde(with = "text")]
    #[garde(custom(within("100ms", "5m")))]
    pub body_timeout: Duration,
    #[garde(custom(within(1, 64 << 20)))]
    pub body_max_bytes: usize,
    #[garde(custom(within(1, 65_535)))]
    pub backlog: u32,
    /// Concurrent requests on one HTTP/2 connection.
    #[garde(custom(within(1, 1_000_000)))]
    pub h2_streams_max: u32,
}

impl Http {
    /// Of all requests except those with limits of their own.
    pub fn body_limits(&self) -> BodyLimits {
        BodyLimits {
            max_bytes: self.body_max_bytes,
            timeout: self.body_timeout,
        }
    }
}

/// The bounds of `connections_max` of both listeners.
pub fn connections_within() -> impl FnOnce(&Option<usize>, &()) -> garde::Result {
    within(1, 10_000_000)
}

/// What `hosts` of both listeners may name.
pub fn each_is_host() -> impl FnOnce(&[String], &()) -> garde::Result {
    each(is_host, "a host name, *. before one, ip, or *")
}

/// A pattern for a host name, without a port.
pub fn is_host(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let known = |b: u8| b.is_ascii_alphanumeric() || b"-._[:]".contains(&b);
    let port = !name.starts_with('[') && name.contains(':');
    text == "*" || !name.is_empty() && name.bytes().all(known) && !port
}

/// As browsers write it (RFC 6454, section 6.2): no path, no default port.
pub fn is_origin(text: &str) -> bool {
    let rest = text.strip_prefix("https://").map(|rest| (rest, ":443"));
    let rest = rest.or_else(|| text.strip_prefix("http://").map(|rest| (rest, ":80")));
    rest.is_some_and(|(rest, default)| {
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (rest, None),
        };
        let port = port.is_none_or(|port| port.parse::<u16>().is_ok());
        host != "*" && is_host(host) && port && !rest.ends_with(default)
    })
}
