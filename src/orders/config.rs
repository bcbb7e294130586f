//! The section `orders`.

use std::time::Duration;

use garde::Validate;
use serde::{Deserialize, Serialize};

use crate::values::config::{text, within};

#[derive(Debug, Clone, Deserialize, Serialize, Validate)]
pub struct Config {
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
}
