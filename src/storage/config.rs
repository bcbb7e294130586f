//! The sections `storage`, `redis` and `aws`.

use std::path::PathBuf;
use std::time::Duration;

use garde::Validate;
use serde::{Deserialize, Serialize};

use crate::values::config::{refuse_if, text, within};
use crate::values::secret::Secret;

#[derive(Debug, Clone, Deserialize, Serialize, Validate)]
pub struct Storage {
    #[garde(custom(within(1, 1_000_000)))]
    pub queue_max: usize,
    #[garde(custom(within(1, 100_000)))]
    pub batch_max: usize,
    #[garde(custom(within(1, 64)))]
    pub readers: usize,
    /// Zero: no periodic checks.
    #[serde(with = "text")]
    #[garde(custom(within("0s", "24000h")))]
    pub check_every: Duration,
    /// Bytes.
    #[garde(custom(within(0, 1 << 50)))]
    pub free_min: u64,
}

/// How Redis is reached.
#[derive(Debug, Clone, Deserialize, Serialize, Validate)]
#[garde(allow_unvalidated)]
pub struct Redis {
    /// A server, or a node of a cluster; with Sentinels only its user, password, database and TLS are used.
    #[garde(
        custom(refuse_if(
            !is_redis(&self.url),
            "it must be like redis://127.0.0.1:6379, rediss://redis:6379 or redis+unix:///run/redis.sock"
        )),
        custom(refuse_if(
            !self.sentinels.is_empty() && !is_remote(&self.url),
            "with `redis.sentinels` it must be like redis://127.0.0.1:6379: they name servers on the network"
        ))
    )]
    pub url: Secret,
    /// The file that `url` was read from; empty: none.
    pub url_file: PathBuf,
    /// URLs of Sentinels; none if Redis is connected directly.
    #[garde(custom(refuse_if(
        !self.sentinels.iter().all(is_remote),
        "they must be like redis://127.0.0.1:26379"
    )))]
    pub sentinels: Vec<Secret>,
    /// The Sentinels' name for the primary.
    #[garde(custom(refuse_if(
        !self.sentinels.is_empty() && self.sentinel_primary.is_empty(),
        "with `redis.sentinels` it must be set"
    )))]
    pub sentinel_primary: String,
}

impl Redis {
    /// Without Sentinels.
    pub fn at(url: &str) -> Self {
        Self {
            url: url.into(),
            url_file: PathBuf::new(),
            sentinels: Vec::new(),
            sentinel_primary: String::new(),
        }
    }
}

fn begins(url: &Secret, schemes: [&str; 2]) -> bool {
    schemes
        .iter()
        .any(|scheme| url.expose().starts_with(scheme))
}

fn is_remote(url: &Secret) -> bool {
    begins(url, ["redis://", "rediss://"])
}

fn is_redis(url: &Secret) -> bool {
    is_remote(url) || begins(url, ["redis+unix://", "unix://"])
}

#[derive(Debug, Clone, Deserialize, Serialize, Validate)]
#[garde(allow_unvalidated)]
pub struct Aws {
    /// Create what is missing.
    pub provision: bool,
}
