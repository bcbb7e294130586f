//! The section `deliveries`.

use std::time::Duration;

use garde::Validate;
use serde::{Deserialize, Serialize};

use crate::values::config::{text, within};

#[derive(Debug, Clone, Deserialize, Serialize, Validate)]
pub struct Config {
    /// Finished deliveries that are retained, counted from the latest by their first event.
    #[garde(custom(within(1, 10_000_000)))]
    pub kept: u64,
    #[garde(custom(within(1, 1_000_000)))]
    pub ongoing_max: u64,
    /// Events of one delivery; beyond it only a final one.
    #[garde(custom(within(2, 1_000_000)))]
    pub events_max: u32,
    #[serde(with = "text")]
    #[garde(custom(within("1s", "24000h")))]
    pub stale_after: Duration,
    #[garde(skip)]
    pub graph: Graph,
}

/// Which event may follow which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Graph {
    /// Any, between the first and the final one.
    Free,
    /// Take-off first, then landings and take-offs in turn; a crash in the air only, delivered on the ground only.
    Strict,
}
