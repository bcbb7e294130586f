//! The section `flood`.

use std::time::Duration;

use garde::Validate;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::values::config::{networks, refuse_if, text, within};

#[derive(Debug, Clone, Deserialize, Serialize, Validate)]
#[garde(allow_unvalidated)]
pub struct Config {
    pub mode: Mode,
    /// Networks of proxies that overwrite or append to `X-Forwarded-For`.
    #[serde(deserialize_with = "networks")]
    pub trusted_proxies: Vec<IpNet>,
    /// Always admitted, uncounted.
    #[serde(deserialize_with = "networks")]
    pub exempt: Vec<IpNet>,
    /// Bits of an IPv6 address that make one client: a subscriber usually has a /64 (RFC 6177).
    #[garde(custom(within(32, 128)))]
    pub ipv6_prefix: u8,
    #[garde(custom(within(1, 1_000_000)))]
    pub outstanding_max: u32,
    #[garde(custom(within(1, 1_000_000)))]
    pub network_max: u32,
    #[garde(custom(within(1, 1_000_000)))]
    pub connections_max: u32,
    /// Orders at once.
    #[garde(custom(within(1, 1_000_000)))]
    pub burst: u32,
    /// Time after which one more is admitted.
    #[serde(with = "text")]
    #[garde(
        custom(within("1us", "24h")),
        custom(refuse_if(
            self.refill.saturating_mul(self.burst) > REFILLED_MAX,
            format_args!("it must refill a burst of {} within 24000h", self.burst)
        ))
    )]
    pub refill: Duration,
    /// Refusals that block an address, ...
    #[garde(custom(within(1, 1_000_000)))]
    pub cutoff_after: u32,
    /// ... within this time, ...
    #[serde(with = "text")]
    #[garde(custom(within("1s", "24h")))]
    pub cutoff_window: Duration,
    /// ... for this time.
    #[serde(with = "text")]
    #[garde(custom(within("1s", "24h")))]
    pub cutoff_for: Duration,
    /// Tracked addresses: half IPv4, half IPv6.
    #[garde(custom(within(16, 10_000_000)))]
    pub addresses_max: usize,
}

/// Far below the range of 64-bit nanoseconds, in which the rate is counted.
const REFILLED_MAX: Duration = Duration::from_hours(24_000);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Refusals are answered 429.
    Enforce,
    /// Everything is admitted; refusals are counted, and blocks are logged.
    Observe,
    /// Nothing is counted.
    Off,
}
