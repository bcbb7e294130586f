//! The sections `http` and `pages`, and what the sections of both listeners have in common.

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

/// The section `pages`: what browsers show, and the event streams.
#[derive(Debug, Clone, Deserialize, Serialize, Validate)]
#[garde(allow_unvalidated)]
pub struct Pages {
    pub enabled: bool,
    pub board: BoardKind,
    /// How long a ready order is on the board.
    #[serde(with = "text")]
    #[garde(custom(within("1s", "1h")))]
    pub ready_for: Duration,
    /// Open event streams of a listener.
    #[garde(custom(within(1, 1_000_000)))]
    pub streams_max: usize,
    /// Between two comments of an event stream. The pages take 20 s of silence for a lost connection.
    #[serde(with = "text")]
    #[garde(custom(within("1s", "15s")))]
    pub beat: Duration,
    /// Problems that are stored for operators.
    #[garde(custom(within(1, 10_000)))]
    pub problems_max: usize,
    /// A customer who waits longer is marked as late, ...
    #[serde(with = "text")]
    #[garde(custom(within("1s", "24h")))]
    pub late_after: Duration,
    /// ... and longer than this as very late.
    #[serde(with = "text")]
    #[garde(custom(within("1s", "24h")))]
    pub very_late_after: Duration,
    /// On the operator's page, each a name and a URL.
    #[garde(custom(each(is_link, "a link such as Grafana=https://grafana.example")))]
    pub links: Vec<String>,
}

/// What the board shows of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BoardKind {
    Numbers,
    /// Names of those that are ready, too.
    Names,
    /// There is no board.
    Off,
}

impl Pages {
    /// Name and URL of each link.
    pub fn links(&self) -> impl Iterator<Item = (&str, &str)> {
        self.links.iter().filter_map(|link| named_link(link))
    }
}

fn named_link(text: &str) -> Option<(&str, &str)> {
    let (name, url) = text.split_once('=')?;
    let is_url = url.starts_with("https://") || url.starts_with("http://") || url.starts_with('/');
    let is_plain = |part: &str| !part.is_empty() && !part.chars().any(char::is_control);
    (is_plain(name.trim()) && is_plain(url) && is_url).then(|| (name.trim(), url))
}

fn is_link(text: &str) -> bool {
    named_link(text).is_some()
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
