//! The section `packages`.

use std::time::Duration;

use garde::Validate;
use serde::{Deserialize, Serialize};

use crate::values::config::{text, within};

#[derive(Debug, Clone, Deserialize, Serialize, Validate)]
#[garde(allow_unvalidated)]
pub struct Config {
    pub types: Vec<String>,
    pub opt_in: Vec<String>,
    /// None: forever.
    #[serde(with = "text")]
    #[garde(custom(within("1s", "240000h")))]
    pub remember: Option<Duration>,
    /// None: forever.
    #[serde(with = "text")]
    #[garde(custom(within("1s", "240000h")))]
    pub future_max: Option<Duration>,
}
