//! The section `orders`.

use std::time::Duration;

use garde::Validate;
use serde::{Deserialize, Serialize};

use crate::values::config::{refuse_if, text, within};

#[derive(Debug, Clone, Deserialize, Serialize, Validate)]
pub struct Config {
    #[garde(custom(refuse_if(
        cfg!(not(feature = "redis")) && self.store == StoreKind::Redis,
        "this build is without the feature `redis`"
    )))]
    pub store: StoreKind,
    /// The shared line's name in Redis.
    #[garde(custom(refuse_if(
        !is_name(&self.line),
        "it must be 1 to 64 letters, digits, hyphens and underscores"
    )))]
    pub line: String,
    /// Default `wait` of `/start/`.
    #[serde(with = "text")]
    #[garde(custom(within("0s", "55s")))]
    pub start_wait: Duration,
    #[serde(with = "text")]
    #[garde(custom(within("1s", "24h")))]
    pub lease: Duration,
    /// Expired leases after which an order goes to the end of the line.
    #[garde(custom(within(1, 1000)))]
    pub attempts_max: u32,
    /// How long a keyed order keeps its place after its customer disconnected.
    #[serde(with = "text")]
    #[garde(custom(within("1s", "24h")))]
    pub reconnect_grace: Duration,
    /// The longest such time that a client may prefer.
    #[serde(with = "text")]
    #[garde(custom(within("1s", "24h")))]
    pub keep_max: Duration,
    /// How long a promised order stays in line without being polled.
    #[serde(with = "text")]
    #[garde(custom(within("1s", "24h")))]
    pub promise_grace: Duration,
    /// How long a final order can be looked up.
    #[serde(with = "text")]
    #[garde(custom(within("1s", "24h")))]
    pub replay: Duration,
    /// Final orders in memory; the oldest is evicted first.
    #[garde(custom(within(1, 10_000_000)))]
    pub remembered_max: usize,
    #[garde(custom(within(1, 10_000_000)))]
    pub waiting_max: usize,
    /// The longest details of an order, and the longest result, as compact JSON.
    #[garde(custom(within(0, 65_536)))]
    pub details_max_bytes: usize,
}

/// Where the line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    Memory,
    /// Shared by several servers.
    Redis,
}

fn is_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=64).contains(&text.len()) && text.bytes().all(is_plain)
}
