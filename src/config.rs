//! Configuration: `config.default.toml`, then a file, then the environment. The only reader of the environment.

mod changes;
mod couriers;
mod layers;
mod log;
mod places;
mod secret;

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::Duration;

use ipnet::IpNet;
use jiff::SignedDuration;
use jiff::fmt::friendly::{Designator, Spacing, SpanParser, SpanPrinter};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;
use tracing::debug;

pub use self::couriers::{CourierEvents, CourierJoin, CourierRole, CourierStore, Couriers, Redis};
use self::layers::Layers;
pub use self::log::{Log, LogFormat};
pub use self::secret::Secret;

/// Every key, commented, with its default, unit and bounds.
pub const DEFAULTS: &str = include_str!("config.default.toml");

/// The server's URL for commands. Not a key: it configures no server.
const CLIENT_URL: &str = "ODYSSEY_URL";

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
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub data_dir: PathBuf,
    pub customers: Customers,
    pub staff: Listener,
    pub http: Http,
    pub runtime: Runtime,
    pub storage: Storage,
    pub orders: Orders,
    pub deliveries: Deliveries,
    pub packages: Packages,
    pub assignments: Assignments,
    pub couriers: Couriers,
    pub redis: Redis,
    pub oplog: Oplog,
    pub aws: Aws,
    pub flood: Flood,
    pub shutdown: Shutdown,
    pub log: Log,
    /// Environment variables with our prefix that name no key.
    #[serde(skip)]
    pub passed_over: Vec<String>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Customers {
    #[serde(deserialize_with = "listen_address")]
    pub listen: SocketAddr,
    /// HTTP/2 without TLS.
    pub h2c: bool,
    pub connections_max: Count,
    pub hosts: Vec<String>,
    /// CORS origins.
    pub origins: Vec<String>,
    /// Whether drones may report here.
    pub deliveries: bool,
}

impl Customers {
    pub fn listener(&self) -> Listener {
        Listener {
            listen: self.listen,
            h2c: self.h2c,
            connections_max: self.connections_max,
            hosts: self.hosts.clone(),
        }
    }
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    #[serde(deserialize_with = "listen_address")]
    pub listen: SocketAddr,
    /// HTTP/2 without TLS.
    pub h2c: bool,
    pub connections_max: Count,
    pub hosts: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// See the key's description.
    Auto,
    Exactly(usize),
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    #[serde(with = "duration")]
    pub header_timeout: Duration,
    #[serde(with = "duration")]
    pub write_timeout: Duration,
    #[serde(with = "duration")]
    pub body_timeout: Duration,
    pub body_max_bytes: usize,
    pub backlog: u32,
    pub h2_streams_max: u32,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Runtime {
    pub workers: Count,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Storage {
    pub queue_max: usize,
    pub batch_max: usize,
    pub readers: usize,
    /// Zero: no periodic checks.
    #[serde(with = "duration")]
    pub check_every: Duration,
    /// Bytes.
    pub free_min: u64,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Deliveries {
    pub kept: u64,
    pub ongoing_max: u64,
    pub events_max: u32,
    #[serde(with = "duration")]
    pub stale_after: Duration,
    pub graph: DeliveryGraph,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Packages {
    pub types: Vec<String>,
    pub opt_in: Vec<String>,
    pub remember: Time,
    pub future_max: Time,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Assignments {
    pub store: AssignmentStore,
    pub table: String,
    pub packages_table: String,
    /// Loaded at the start; empty: none.
    pub manifest: PathBuf,
    pub manifest_max_bytes: usize,
    #[serde(with = "duration")]
    pub manifest_timeout: Duration,
    pub strict: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AssignmentStore {
    Sqlite,
    DynamoDb,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Oplog {
    pub sink: OplogSink,
    pub instance: String,
    /// In bytes of uncompressed lines.
    pub file_max_bytes: u64,
    pub files_max: usize,
    pub bucket: String,
    pub prefix: String,
    pub sse: OplogSse,
    /// Empty: the account's own key for S3.
    pub kms_key: String,
    /// In bytes of uncompressed lines.
    pub batch_max_bytes: u64,
    #[serde(with = "duration")]
    pub batch_age: Duration,
    pub spool_max_bytes: u64,
    /// Lines in memory.
    pub waiting_max: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OplogSink {
    Files,
    S3,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub enum OplogSse {
    /// The bucket's default.
    #[serde(rename = "none")]
    None,
    #[serde(rename = "AES256")]
    Aes256,
    #[serde(rename = "aws:kms")]
    AwsKms,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Aws {
    pub provision: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    Forever,
    For(Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryGraph {
    /// Any order between the first and the final event.
    Free,
    /// Only transitions a drone can make.
    Strict,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Orders {
    /// Default `wait` of `/start/`.
    #[serde(with = "duration")]
    pub start_wait: Duration,
    #[serde(with = "duration")]
    pub lease: Duration,
    pub attempts_max: u32,
    #[serde(with = "duration")]
    pub reconnect_grace: Duration,
    #[serde(with = "duration")]
    pub promise_grace: Duration,
    #[serde(with = "duration")]
    pub replay: Duration,
    pub remembered_max: usize,
    pub waiting_max: usize,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Flood {
    pub mode: FloodMode,
    /// Proxies whose `X-Forwarded-For` is trusted.
    #[serde(with = "networks")]
    pub trusted_proxies: Vec<IpNet>,
    #[serde(with = "networks")]
    pub exempt: Vec<IpNet>,
    pub ipv6_prefix: u8,
    pub outstanding_max: u32,
    pub network_max: u32,
    pub connections_max: u32,
    pub burst: u32,
    #[serde(with = "duration")]
    pub refill: Duration,
    pub cutoff_after: u32,
    #[serde(with = "duration")]
    pub cutoff_window: Duration,
    #[serde(with = "duration")]
    pub cutoff_for: Duration,
    pub addresses_max: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FloodMode {
    Enforce,
    Observe,
    Off,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Shutdown {
    #[serde(with = "duration")]
    pub drain: Duration,
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
    #[cfg(test)]
    pub(crate) fn defaults() -> Self {
        Self::read(None, []).unwrap()
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
        const DAY: Duration = Duration::from_hours(24);
        /// Far below the range of flood control's 64-bit nanoseconds.
        const REFILLED_MAX: Duration = Duration::from_hours(24_000);
        let second = Duration::from_secs(1);
        let minutes = Duration::from_mins(5);
        let (http, orders) = (&self.http, &self.orders);
        let connections = [
            ("customers", self.customers.connections_max),
            ("staff", self.staff.connections_max),
        ];
        for (key, connections_max) in connections {
            if let Count::Exactly(count) = connections_max {
                within(&format!("{key}.connections_max"), count, 1, 10_000_000)?;
            }
        }
        self.check_browsers()?;
        if let Count::Exactly(count) = self.runtime.workers {
            within("runtime.workers", count, 1, 1024)?;
        }
        time_within("http.header_timeout", http.header_timeout, second, minutes)?;
        time_within("http.write_timeout", http.write_timeout, second, minutes)?;
        let tenth = Duration::from_millis(100);
        time_within("http.body_timeout", http.body_timeout, tenth, minutes)?;
        within("http.body_max_bytes", http.body_max_bytes, 1, 64 << 20)?;
        within("http.backlog", http.backlog, 1, 65_535)?;
        within("http.h2_streams_max", http.h2_streams_max, 1, 1_000_000)?;
        let longest = Duration::from_secs(55);
        time_within(
            "orders.start_wait",
            orders.start_wait,
            Duration::ZERO,
            longest,
        )?;
        time_within("orders.lease", orders.lease, second, DAY)?;
        within("orders.attempts_max", orders.attempts_max, 1, 1000)?;
        time_within(
            "orders.reconnect_grace",
            orders.reconnect_grace,
            second,
            DAY,
        )?;
        time_within("orders.promise_grace", orders.promise_grace, second, DAY)?;
        time_within("orders.replay", orders.replay, second, DAY)?;
        within(
            "orders.remembered_max",
            orders.remembered_max,
            1,
            10_000_000,
        )?;
        within("orders.waiting_max", orders.waiting_max, 1, 10_000_000)?;
        let flood = &self.flood;
        within("flood.ipv6_prefix", flood.ipv6_prefix, 32, 128)?;
        within("flood.outstanding_max", flood.outstanding_max, 1, 1_000_000)?;
        within("flood.network_max", flood.network_max, 1, 1_000_000)?;
        within("flood.connections_max", flood.connections_max, 1, 1_000_000)?;
        within("flood.burst", flood.burst, 1, 1_000_000)?;
        let micro = Duration::from_micros(1);
        time_within("flood.refill", flood.refill, micro, DAY)?;
        if flood.refill * flood.burst > REFILLED_MAX {
            let most = duration::text(REFILLED_MAX);
            let detail = format!("it must refill a burst of {} within {most}", flood.burst);
            return Err(wrong("flood.refill", &detail));
        }
        within("flood.cutoff_after", flood.cutoff_after, 1, 1_000_000)?;
        time_within("flood.cutoff_window", flood.cutoff_window, second, DAY)?;
        time_within("flood.cutoff_for", flood.cutoff_for, second, DAY)?;
        within("flood.addresses_max", flood.addresses_max, 16, 10_000_000)?;
        self.check_kept()?;
        self.check_assignments()?;
        self.couriers.check(self.aws.provision)?;
        self.redis.check()?;
        self.check_places()?;
        time_within("shutdown.drain", self.shutdown.drain, Duration::ZERO, DAY)?;
        self.log.targets().map_err(|detail| ConfigError::Key {
            key: "log.level".to_owned(),
            detail,
        })?;
        Ok(())
    }

    /// Of hosts and origins.
    fn check_browsers(&self) -> Result<(), ConfigError> {
        for (key, hosts) in [
            ("customers.hosts", &self.customers.hosts),
            ("staff.hosts", &self.staff.hosts),
        ] {
            check_each(key, hosts, is_host, "a host name, *. before one, ip, or *")?;
        }
        let what = "an origin such as https://shop.example or http://localhost:3000";
        check_each(
            "customers.origins",
            &self.customers.origins,
            is_origin,
            what,
        )?;
        Ok(())
    }

    /// Of stored data.
    fn check_kept(&self) -> Result<(), ConfigError> {
        const DAYS_1000: Duration = Duration::from_hours(24_000);
        if self.data_dir.as_os_str().is_empty() {
            return Err(wrong("data_dir", "it must name a directory"));
        }
        let storage = &self.storage;
        within("storage.queue_max", storage.queue_max, 1, 1_000_000)?;
        within("storage.batch_max", storage.batch_max, 1, 100_000)?;
        within("storage.readers", storage.readers, 1, 64)?;
        let every = storage.check_every;
        time_within("storage.check_every", every, Duration::ZERO, DAYS_1000)?;
        within("storage.free_min", storage.free_min, 0, 1 << 50)?;
        let deliveries = &self.deliveries;
        within("deliveries.kept", deliveries.kept, 1, 10_000_000)?;
        let ongoing = deliveries.ongoing_max;
        within("deliveries.ongoing_max", ongoing, 1, 1_000_000)?;
        let events = deliveries.events_max;
        within("deliveries.events_max", events, 2, 1_000_000)?;
        let stale_after = deliveries.stale_after;
        let second = Duration::from_secs(1);
        time_within("deliveries.stale_after", stale_after, second, DAYS_1000)?;
        if let Time::For(time) = self.packages.remember {
            time_within("packages.remember", time, second, 10 * DAYS_1000)?;
        }
        if let Time::For(time) = self.packages.future_max {
            time_within("packages.future_max", time, second, 10 * DAYS_1000)?;
        }
        Ok(())
    }

    fn check_assignments(&self) -> Result<(), ConfigError> {
        const GIB: u64 = 1 << 30;
        let (assignments, oplog) = (&self.assignments, &self.oplog);
        for (key, name) in [
            ("assignments.table", &assignments.table),
            ("assignments.packages_table", &assignments.packages_table),
        ] {
            let known = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
            if !(3..=255).contains(&name.len()) || !name.bytes().all(known) {
                let detail = "it must be 3 to 255 letters, digits, _ . or -";
                return Err(wrong(key, detail));
            }
        }
        let largest = assignments.manifest_max_bytes as u64;
        within("assignments.manifest_max_bytes", largest, 1024, GIB)?;
        let (second, hour) = (Duration::from_secs(1), Duration::from_hours(1));
        let timeout = assignments.manifest_timeout;
        time_within("assignments.manifest_timeout", timeout, second, hour)?;
        within("oplog.file_max_bytes", oplog.file_max_bytes, 4096, GIB)?;
        within("oplog.files_max", oplog.files_max, 1, 100_000)?;
        within("oplog.batch_max_bytes", oplog.batch_max_bytes, 4096, GIB)?;
        let tenth = Duration::from_millis(100);
        time_within("oplog.batch_age", oplog.batch_age, tenth, hour)?;
        let spool = oplog.spool_max_bytes;
        within("oplog.spool_max_bytes", spool, 65_536, 1024 * GIB)?;
        within("oplog.waiting_max", oplog.waiting_max, 1, 100_000_000)?;
        if oplog.sink == OplogSink::S3 && oplog.bucket.is_empty() {
            let detail = "with `oplog.sink = \"s3\"` it must name a bucket";
            return Err(wrong("oplog.bucket", detail));
        }
        if !oplog.kms_key.is_empty() && oplog.sse != OplogSse::AwsKms {
            let detail = "it is used with `oplog.sse = \"aws:kms\"` only";
            return Err(wrong("oplog.kms_key", detail));
        }
        if cfg!(not(feature = "aws")) {
            let detail = "this build is without the feature `aws`";
            if assignments.store == AssignmentStore::DynamoDb {
                return Err(wrong("assignments.store", detail));
            }
            if oplog.sink == OplogSink::S3 {
                return Err(wrong("oplog.sink", detail));
            }
        }
        Ok(())
    }

    pub fn workers(&self) -> usize {
        match self.runtime.workers {
            Count::Exactly(count) => count,
            Count::Auto => available_parallelism().map_or(1, |cores| cores.get().div_ceil(2)),
        }
    }

    /// All keys, as TOML.
    ///
    /// # Panics
    /// Never: every value of this type has a TOML form.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a tree of strings, numbers and booleans is TOML")
    }
}

fn check_each(
    key: &str,
    values: &[String],
    fits: fn(&str) -> bool,
    what: &str,
) -> Result<(), ConfigError> {
    // An empty variable is an empty list.
    let mut values = values.iter().filter(|value| !value.is_empty());
    values.find(|value| !fits(value)).map_or(Ok(()), |value| {
        Err(wrong(key, &format!("{value:?} is not {what}")))
    })
}

/// A pattern for a host name, without a port.
fn is_host(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let known = |b: u8| b.is_ascii_alphanumeric() || b"-._[:]".contains(&b);
    let port = !name.starts_with('[') && name.contains(':');
    text == "*" || !name.is_empty() && name.bytes().all(known) && !port
}

/// As browsers write it (RFC 6454, section 6.2): no path, no default port.
fn is_origin(text: &str) -> bool {
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

fn wrong(key: &str, detail: &str) -> ConfigError {
    ConfigError::Key {
        key: key.to_owned(),
        detail: detail.to_owned(),
    }
}

fn within<N: Copy + PartialOrd + std::fmt::Display>(
    key: &str,
    value: N,
    least: N,
    most: N,
) -> Result<(), ConfigError> {
    if value >= least && value <= most {
        return Ok(());
    }
    Err(wrong(key, &format!("it must be from {least} to {most}")))
}

fn time_within(
    key: &str,
    value: Duration,
    least: Duration,
    most: Duration,
) -> Result<(), ConfigError> {
    if value >= least && value <= most {
        return Ok(());
    }
    let [least, most] = [least, most].map(duration::text);
    Err(wrong(key, &format!("it must be from {least} to {most}")))
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "forever" {
            return Ok(Self::Forever);
        }
        duration::parse(&text).map(Self::For)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Forever => serializer.serialize_str("forever"),
            Self::For(time) => serializer.serialize_str(&duration::text(*time)),
        }
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Number(usize),
            Word(String),
        }
        let expected = || de::Error::custom("it must be a number from 1, or \"auto\"");
        match Raw::deserialize(deserializer).map_err(|_| expected())? {
            Raw::Number(count) => Ok(Self::Exactly(count)),
            Raw::Word(word) if word == "auto" => Ok(Self::Auto),
            // The environment has only text.
            Raw::Word(word) => word.parse().map(Self::Exactly).map_err(|_| expected()),
        }
    }
}

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Exactly(count) => count.serialize(serializer),
        }
    }
}

/// An address with a port. Names are not resolved: DNS must not decide where this process listens.
fn listen_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    let local = text.strip_prefix("localhost:");
    let local = local.map(|port| format!("127.0.0.1:{port}"));
    local.as_deref().unwrap_or(&text).parse().map_err(|_| {
        de::Error::custom(
            "it must be an IP address with a port, such as 127.0.0.1:8000, 0.0.0.0:8000 or [::1]:8000; \
             localhost:8000 is 127.0.0.1:8000, other names are not looked up",
        )
    })
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
    std::env::var(CLIENT_URL)
        .ok()
        .filter(|url| !url.trim().is_empty())
}

/// A duration such as `90s`, `2m`, `1h 30m`.
///
/// # Errors
/// If it is not a duration.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    duration::parse::<de::value::Error>(text).map_err(|error| error.to_string())
}

/// Networks such as `10.0.0.0/8`, or single addresses.
mod networks {
    use super::{Deserialize, Deserializer, IpAddr, IpNet, Serialize, Serializer, de};

    pub(super) fn serialize<S: Serializer>(
        networks: &[IpNet],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        networks.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<IpNet>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts
            .iter()
            .map(|text| text.trim())
            // An empty variable is an empty list.
            .filter(|text| !text.is_empty())
            .map(|text| {
                text.parse::<IpNet>()
                    .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
                    .map_err(|_| {
                        de::Error::custom(format!(
                            "{text:?} is neither an address nor a network such as 10.0.0.0/8"
                        ))
                    })
            })
            .collect()
    }
}

/// Durations such as `90s`, `2m`, `1h 30m`.
mod duration {
    use super::{
        Deserialize, Deserializer, Designator, Duration, Serializer, SignedDuration, Spacing,
        SpanParser, SpanPrinter, de,
    };

    pub(super) fn text(duration: Duration) -> String {
        let printer = SpanPrinter::new()
            .designator(Designator::Compact)
            .spacing(Spacing::BetweenUnits);
        SignedDuration::try_from(duration).map_or_else(
            |_| format!("{}s", duration.as_secs()),
            |d| printer.duration_to_string(&d),
        )
    }

    pub(super) fn serialize<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text(*duration))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        parse(&String::deserialize(deserializer)?)
    }

    pub(super) fn parse<E: de::Error>(text: &str) -> Result<Duration, E> {
        SpanParser::new()
            .parse_duration(text)
            .ok()
            .and_then(|duration| Duration::try_from(duration).ok())
            .ok_or_else(|| {
                E::custom(format!(
                    "{text:?} is not a duration such as 90s, 2m or 1h 30m"
                ))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let environment = environment.iter();
        Config::read(
            None,
            environment.map(|(key, value)| (key.into(), value.into())),
        )
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let config = with(&[]).unwrap();
        assert_eq!(config.customers.listen, "127.0.0.1:8000".parse().unwrap());
        assert_eq!(config.staff.listen, "127.0.0.1:8001".parse().unwrap());
        assert_eq!(config.orders.lease, Duration::from_secs(120));
        assert_eq!(config.orders.reconnect_grace, Duration::from_secs(60));
        assert_eq!(config.orders.replay, Duration::from_secs(600));
        assert_eq!(config.shutdown.drain, Duration::from_secs(60));
        assert_eq!(config.customers.connections_max, Count::Auto);
    }

    #[test]
    fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("odyssey.toml");
        std::fs::write(&file, "[orders]\nlease = \"90s\"\nattempts_max = 7\n").unwrap();
        let environment = [("ODYSSEY_ORDERS__LEASE".into(), "1h 30m".into())];
        let config = Config::read(Some(&file), environment).unwrap();
        assert_eq!(config.orders.lease, Duration::from_secs(5400));
        assert_eq!(config.orders.attempts_max, 7);
        assert_eq!(config.orders.waiting_max, 10_000);
    }

    #[test]
    fn every_kind_of_value_can_come_from_the_environment() {
        let config = with(&[
            ("ODYSSEY_CUSTOMERS__H2C", "true"),
            ("ODYSSEY_CUSTOMERS__CONNECTIONS_MAX", "77"),
            ("ODYSSEY_HTTP__BODY_MAX_BYTES", "1000"),
            ("ODYSSEY_LOG__FORMAT", "json"),
            ("ODYSSEY_STAFF__LISTEN", "[::1]:0"),
        ])
        .unwrap();
        assert!(config.customers.h2c);
        assert_eq!(config.customers.connections_max, Count::Exactly(77));
        assert_eq!(config.http.body_max_bytes, 1000);
        assert_eq!(config.log.format, LogFormat::Json);
        assert!(config.staff.listen.is_ipv6());
        let config = with(&[
            ("ODYSSEY_FLOOD__TRUSTED_PROXIES", "10.0.0.0/8, 192.0.2.1"),
            ("ODYSSEY_FLOOD__EXEMPT", ""),
        ])
        .unwrap();
        assert_eq!(
            config.flood.trusted_proxies,
            [
                "10.0.0.0/8".parse().unwrap(),
                "192.0.2.1/32".parse().unwrap()
            ]
        );
        assert!(config.flood.exempt.is_empty());
    }

    #[test]
    fn a_mistake_is_refused_with_the_key_named() {
        for (key, value, named) in [
            ("ODYSSEY_ORDERS__LEESE", "1s", "leese"),
            ("ODYSSEY_ORDER__LEASE", "1s", "order"),
            ("ODYSSEY_ORDERS__START_WAIT", "56s", "orders.start_wait"),
            ("ODYSSEY_ORDERS__LEASE", "soon", "orders.lease"),
            ("ODYSSEY_ORDERS__LEASE", "-5s", "orders.lease"),
            ("ODYSSEY_ORDERS__LEASE", "10ms", "orders.lease"),
            ("ODYSSEY_ORDERS__WAITING_MAX", "0", "orders.waiting_max"),
            ("ODYSSEY_ORDERS__WAITING_MAX", "many", "orders.waiting_max"),
            ("ODYSSEY_CUSTOMERS__LISTEN", "localhost", "customers.listen"),
            (
                "ODYSSEY_CUSTOMERS__CONNECTIONS_MAX",
                "0",
                "customers.connections_max",
            ),
            (
                "ODYSSEY_CUSTOMERS__CONNECTIONS_MAX",
                "lots",
                "customers.connections_max",
            ),
            ("ODYSSEY_RUNTIME__WORKERS", "0", "runtime.workers"),
            ("ODYSSEY_FLOOD__MODE", "panic", "flood.mode"),
            ("ODYSSEY_FLOOD__EXEMPT", "10.0.0.0/8,nobody", "flood.exempt"),
            ("ODYSSEY_FLOOD__BURST", "0", "flood.burst"),
            ("ODYSSEY_DATA_DIR", "", "data_dir"),
            ("ODYSSEY_STORAGE__READERS", "0", "storage.readers"),
            ("ODYSSEY_DELIVERIES__KEPT", "0", "deliveries.kept"),
            ("ODYSSEY_DELIVERIES__GRAPH", "loose", "deliveries.graph"),
            (
                "ODYSSEY_DELIVERIES__STALE_AFTER",
                "0s",
                "deliveries.stale_after",
            ),
            ("ODYSSEY_PACKAGES__REMEMBER", "always", "packages.remember"),
            ("ODYSSEY_PACKAGES__REMEMBER", "0s", "packages.remember"),
            ("ODYSSEY_PACKAGES__FUTURE_MAX", "0s", "packages.future_max"),
            ("ODYSSEY_STORAGE__FREE_MIN", "-1", "storage.free_min"),
            ("ODYSSEY_ASSIGNMENTS__STORE", "paper", "assignments.store"),
            ("ODYSSEY_ASSIGNMENTS__TABLE", "a b", "assignments.table"),
            (
                "ODYSSEY_ASSIGNMENTS__PACKAGES_TABLE",
                "DeliveryAssignments",
                "assignments.packages_table",
            ),
            ("ODYSSEY_COURIERS__STORE", "paper", "couriers.store"),
            ("ODYSSEY_COURIERS__ROLES", "boss", "couriers.roles"),
            (
                "ODYSSEY_COURIERS__EVENTS_TOPIC_ARN",
                "events",
                "couriers.events_topic_arn",
            ),
            (
                "ODYSSEY_COURIERS__EVENTS_QUEUE_URL",
                "events",
                "couriers.events_queue_url",
            ),
            ("ODYSSEY_REDIS__URL", "localhost:6379", "redis.url"),
            #[cfg(feature = "aws")]
            (
                "ODYSSEY_COURIERS__EVENTS",
                "sqs",
                "couriers.events_topic_arn",
            ),
            #[cfg(not(feature = "aws"))]
            ("ODYSSEY_COURIERS__EVENTS", "sqs", "couriers.events"),
            #[cfg(not(feature = "redis"))]
            ("ODYSSEY_COURIERS__STORE", "redis", "couriers.store"),
            ("ODYSSEY_OPLOG__SINK", "s3", "oplog.bucket"),
            ("ODYSSEY_OPLOG__FILES_MAX", "0", "oplog.files_max"),
            ("ODYSSEY_OPLOG__SSE", "aes256", "oplog.sse"),
            ("ODYSSEY_OPLOG__KMS_KEY", "alias/odyssey", "oplog.kms_key"),
            ("ODYSSEY_AWS__PROVISION", "perhaps", "aws.provision"),
            ("ODYSSEY_LOG__FORMAT", "xml", "log.format"),
            ("ODYSSEY_LOG__LEVEL", "odyssey=loud", "log.level"),
        ] {
            let error = with(&[(key, value)]).expect_err(key).to_string();
            assert!(error.contains(named), "{key}={value} said: {error}");
        }
    }

    #[test]
    fn what_is_printed_can_be_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("printed.toml");
        let printed = with(&[("ODYSSEY_ORDERS__LEASE", "1h 30m")])
            .unwrap()
            .to_toml();
        std::fs::write(&file, &printed).unwrap();
        let again = Config::read(Some(&file), []).unwrap();
        assert_eq!(again.to_toml(), printed);
    }
}
