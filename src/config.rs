//! Configuration: `config.default.toml`, then a file, then the environment. The only reader of the environment. Each section,
//! with its bounds, belongs to the module that uses it.

mod changes;
mod contradictions;
mod layers;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::Duration;

use garde::Validate;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::debug;

use self::layers::Layers;
use crate::access::config::{Access, CustomersAuth, StaffAuth, Tls};
use crate::assignments::{self, oplog};
use crate::http::config::{Http, Pages, connections_within, each_is_host, is_origin};
use crate::storage::config::{Aws, Redis, Storage};
use crate::telemetry::config::Log;
use crate::values::config::{auto, each, refuse_if, text, within};
use crate::{couriers, deliveries, flood, orders, packages, shutdown};

/// Every key, commented, with its default, unit and bounds.
pub const DEFAULTS: &str = include_str!("config.default.toml");

/// The server's URL for commands. Not a key: it configures no server.
const CLIENT_URL: &str = "ODYSSEY_URL";
/// The token of commands. No key either.
const CLIENT_TOKEN: &str = "ODYSSEY_TOKEN";

#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("configuration file `{file}`: {detail}")]
    Unreadable { file: String, detail: String },
    #[error("configuration file `{file}`, line {line}: {detail}")]
    Malformed {
        file: String,
        /// From 1.
        line: usize,
        detail: String,
    },
    #[error("configuration key `{key}`: {detail}")]
    Key {
        /// With dots.
        key: String,
        /// The wrong value, and the right form.
        detail: String,
    },
}

/// The effective configuration.
#[derive(Debug, Clone, Deserialize, Serialize, Validate)]
#[garde(allow_unvalidated)]
pub struct Config {
    #[garde(custom(refuse_if(self.data_dir.as_os_str().is_empty(), "it must name a directory")))]
    pub data_dir: PathBuf,
    #[garde(dive)]
    pub customers: Customers,
    #[garde(dive)]
    pub staff: Staff,
    #[garde(dive)]
    pub access: Access,
    #[garde(dive)]
    pub tls: Tls,
    #[garde(dive)]
    pub http: Http,
    #[garde(dive)]
    pub pages: Pages,
    #[garde(dive)]
    pub runtime: Runtime,
    #[garde(dive)]
    pub storage: Storage,
    #[garde(dive)]
    pub orders: orders::Config,
    #[garde(dive)]
    pub deliveries: deliveries::Config,
    #[garde(dive)]
    pub packages: packages::Config,
    #[garde(dive)]
    pub assignments: assignments::Config,
    #[garde(dive)]
    pub couriers: couriers::Config,
    #[garde(dive)]
    pub redis: Redis,
    #[garde(dive)]
    pub oplog: oplog::Config,
    #[garde(dive)]
    pub aws: Aws,
    #[garde(dive)]
    pub flood: flood::Config,
    #[garde(dive)]
    pub shutdown: shutdown::Config,
    #[garde(dive)]
    pub log: Log,
    /// Environment variables with our prefix that name no key.
    #[serde(skip)]
    pub passed_over: Vec<String>,
}

/// The customers' listener. What it has in common with the staff's is not flattened into both: errors would not name the key.
#[derive(Debug, Clone, Deserialize, Serialize, Validate)]
#[garde(allow_unvalidated)]
pub struct Customers {
    #[serde(with = "text")]
    pub listen: SocketAddr,
    /// Also serve HTTP/2 with prior knowledge.
    pub h2c: bool,
    /// None: as many as the limit of open files allows.
    #[serde(with = "auto")]
    #[garde(custom(connections_within()))]
    pub connections_max: Option<usize>,
    #[garde(custom(each_is_host()))]
    pub hosts: Vec<String>,
    /// CORS origins.
    #[garde(custom(each(
        is_origin,
        "an origin such as https://shop.example or http://localhost:3000"
    )))]
    pub origins: Vec<String>,
    /// Whether drones may report here.
    pub deliveries: bool,
    pub auth: CustomersAuth,
}

/// The staff's listener.
#[derive(Debug, Clone, Deserialize, Serialize, Validate)]
#[garde(allow_unvalidated)]
pub struct Staff {
    #[serde(with = "text")]
    pub listen: SocketAddr,
    pub h2c: bool,
    #[serde(with = "auto")]
    #[garde(custom(connections_within()))]
    pub connections_max: Option<usize>,
    #[garde(custom(each_is_host()))]
    pub hosts: Vec<String>,
    pub auth: StaffAuth,
    /// How long a browser stays logged in.
    #[serde(with = "text")]
    #[garde(custom(within("1m", "720h")))]
    pub session: Duration,
}

#[derive(Debug, Clone, Deserialize, Serialize, Validate)]
pub struct Runtime {
    /// None: half of the processors.
    #[serde(with = "auto")]
    #[garde(custom(within(1, 1024)))]
    pub workers: Option<usize>,
}

impl Config {
    /// Merges the defaults, the file if any, and the process's environment.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::read(file, std::env::vars_os())
    }

    /// The defaults, independent of the environment.
    ///
    /// # Panics
    /// Never: a test reads them.
    pub(crate) fn defaults() -> Self {
        Self::read(None, []).expect("config.default.toml is a configuration")
    }

    fn read(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let mut layers = Layers::new();
        if let Some(path) = file {
            layers.add_file(path)?;
        }
        layers.add_environment(environment)?;
        let merged = layers.finish()?;
        let mut config: Self = serde_path_to_error::deserialize(merged).map_err(|error| {
            let key = error.path().to_string();
            layers.with_value(wrong(&key, &plain(&key, error.inner().message())))
        })?;
        config.check().map_err(|error| layers.with_value(error))?;
        config.passed_over = layers.passed_over;
        Ok(config)
    }

    /// Logs environment variables with our prefix that name no key, such as those that Kubernetes sets for a service named
    /// odyssey.
    pub fn log_passed_over(&self) {
        for variable in &self.passed_over {
            debug!(
                variable,
                "an environment variable with our prefix names no key and is ignored"
            );
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        if let Err(report) = self.validate()
            && let Some((key, error)) = report.iter().next()
        {
            return Err(wrong(&key.to_string(), error.message()));
        }
        self.check_contradictions()
    }

    pub fn workers(&self) -> usize {
        let half = || available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        self.runtime.workers.unwrap_or_else(half)
    }

    /// All keys, as TOML.
    ///
    /// # Panics
    /// Never: every value of this type has a TOML form.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a tree of strings, numbers and booleans is TOML")
    }
}

fn wrong(key: &str, detail: &str) -> ConfigError {
    ConfigError::Key {
        key: key.to_owned(),
        detail: detail.to_owned(),
    }
}

/// serde's error in terms of the configuration.
fn plain(key: &str, said: &str) -> String {
    if let Some((_, words)) = said
        .split_once(", expected ")
        .filter(|_| said.starts_with("unknown variant"))
    {
        return format!("it must be {}", words.replace('`', "\""));
    }
    if said.starts_with("invalid ") {
        // Overflow of its type: the manual has the bounds.
        return format!("it is out of bounds; the manual says: {}", manual(key));
    }
    said.to_owned()
}

/// A key's description in the manual: the comment before it.
fn manual(key: &str) -> String {
    let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
    let (mut here, mut comment) = (section.is_empty(), Vec::new());
    for line in DEFAULTS.lines() {
        if let Some(words) = line.strip_prefix('#') {
            comment.push(words.trim());
            continue;
        }
        if here && line.split_once(" = ").is_some_and(|(key, _)| key == name) {
            break;
        }
        comment.clear();
        if line.starts_with('[') {
            here = line.trim_matches(['[', ']']) == section;
        }
    }
    comment.join(" ")
}

pub fn client_url() -> Option<String> {
    variable(CLIENT_URL)
}

pub fn client_token() -> Option<String> {
    variable(CLIENT_TOKEN)
}

/// An empty variable is none.
fn variable(name: &str) -> Option<String> {
    let value = std::env::var(name).ok();
    value.filter(|value| !value.trim().is_empty())
}

#[cfg(test)]
mod tests;
