//! Commands that call a running server: as customer, barista or operator.

use std::io::{IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use axum::http::{Method, StatusCode};
use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::http::{Answer, Ask, Url};
use super::output::{self, Format};
use super::tls::{Presented, Trust};
use super::{Misuse, Source};
use crate::config::{self, Config};
use crate::values::config::Text;

const HEALTH_PATIENCE: Duration = Duration::from_secs(3);
/// Timeout of a request that the server does not hold.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest `wait` of a barista's request, in seconds; a longer one is several requests.
const HELD_SECS_MAX: u64 = 55;
/// The longest wait; it fits into every clock and header.
const WAIT_MAX: Duration = Duration::from_hours(30 * 24);
/// The least time between two requests of one wait.
const PAUSE: Duration = Duration::from_secs(1);

/// `odyssey health`.
#[derive(Debug, Args)]
pub struct Health {
    /// URL to request [default: /healthz at the customers' listener of the configuration]
    url: Option<Url>,
    #[command(flatten)]
    credentials: Credentials,
    #[command(flatten)]
    source: Source,
}

impl Health {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let ask = if let Some(url) = self.url {
            self.credentials.add_to(Ask::new(Method::GET, url), None)?
        } else {
            let (url, _) = Listener::Customers.of(&self.source.load()?)?;
            Ask::new(Method::GET, url.join("/healthz")?).trusting(Trust::Any)
        };
        let answer = ask.within(HEALTH_PATIENCE).await?;
        let status = answer.status;
        anyhow::ensure!(status.is_success(), "{} answered {status}", answer.url);
        Ok(())
    }
}

/// `odyssey order`.
#[derive(Debug, Args)]
pub struct Order {
    /// The customer's name
    #[arg(long)]
    name: Option<String>,
    /// JSON for its barista, such as '{"milk": "oat"}'
    #[arg(long, value_name = "JSON", value_parser = json_value)]
    details: Option<Value>,
    /// Wait at most this long, such as 90s; the order then stays in line
    #[arg(long, value_name = "DURATION", value_parser = bounded_wait)]
    wait: Option<Duration>,
    #[command(flatten)]
    server: Server,
}

impl Order {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        const READY: &[&str] = &[
            "order_id",
            "status",
            "customer",
            "position",
            "estimated_wait_ms",
            "waited_ms",
            "brew_ms",
            "result",
        ];
        let mut ask = self
            .server
            .ask(Listener::Customers, Method::POST, "/order/")?;
        if self.name.is_some() || self.details.is_some() {
            ask = ask.json(&json!({"customer": self.name, "details": self.details}));
        }
        if let Some(wait) = self.wait {
            ask = ask.header("prefer", &format!("wait={}", whole_secs(wait)));
        }
        if std::io::stderr().is_terminal() {
            let _ = writeln!(
                std::io::stderr(),
                "Waiting until the order is ready. Ctrl-C leaves the line."
            );
        }
        let answer = ask.answer().await?.success()?;
        self.server
            .show(&answer, |order| output::members(order, READY))
    }
}

/// `odyssey start`.
#[derive(Debug, Args)]
pub struct Start {
    /// The barista's name, recorded with the order
    #[arg(long, value_name = "NAME")]
    barista: Option<String>,
    /// Wait for an order at most this long, such as 90s
    #[arg(long, value_name = "DURATION", value_parser = bounded_wait)]
    wait: Option<Duration>,
    #[command(flatten)]
    server: Server,
}

impl Start {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        const STARTED: &[&str] = &[
            "order_id",
            "customer",
            "details",
            "attempt",
            "waited_ms",
            "lease_expires_at",
            "customer_presence",
        ];
        let answer = self.take().await?;
        if answer.status == StatusCode::NO_CONTENT {
            return output::print(match self.server.output {
                Format::Table => "No order is waiting.\n",
                Format::Json => "null\n",
            });
        }
        self.server
            .show(&answer, |order| output::members(order, STARTED))
    }

    async fn take(&self) -> anyhow::Result<Answer> {
        let until = Instant::now() + self.wait.unwrap_or_default();
        loop {
            let asked = Instant::now();
            let wait = whole_secs(until - asked).min(HELD_SECS_MAX);
            let mut path = format!("/start/?wait={wait}");
            if let Some(barista) = &self.barista {
                path = format!("{path}&barista={}", encoded(barista));
            }
            let ask = self.server.ask(Listener::Staff, Method::POST, &path)?;
            let patience = Duration::from_secs(wait) + PATIENCE;
            let answer = ask.within(patience).await?.success()?;
            if answer.status != StatusCode::NO_CONTENT || Instant::now() >= until {
                return Ok(answer);
            }
            sleep_until(until.min(asked + PAUSE)).await;
        }
    }
}

/// `odyssey finish`.
#[derive(Debug, Args)]
pub struct Finish {
    /// The order, as `odyssey start` printed it
    order_id: Uuid,
    /// Only if this attempt is still the current one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    attempt: Option<u32>,
    /// JSON for its customers, such as '{"cup": 7}'
    #[arg(long, value_name = "JSON", value_parser = json_value)]
    result: Option<Value>,
    #[command(flatten)]
    server: Server,
}

impl Finish {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        const FINISHED: &[&str] = &[
            "order_id",
            "status",
            "delivered",
            "already",
            "attempts",
            "barista",
            "waited_ms",
            "brew_ms",
        ];
        let mut path = format!("/finish/?order_id={}", self.order_id);
        if let Some(attempt) = self.attempt {
            path = format!("{path}&attempt={attempt}");
        }
        let mut ask = self.server.ask(Listener::Staff, Method::POST, &path)?;
        if let Some(result) = &self.result {
            ask = ask.json(&json!({"result": result}));
        }
        let answer = ask.within(PATIENCE).await?.success()?;
        self.server
            .show(&answer, |order| output::members(order, FINISHED))
    }
}

fn json_value(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(text)
}

/// `odyssey line`.
#[derive(Debug, Args)]
pub struct Line {
    #[command(flatten)]
    server: Server,
}

/// The printed figures and their metrics.
const LINE: [(&str, &str); 5] = [
    ("waiting", "odyssey_orders{stage=\"waiting\"}"),
    ("brewing", "odyssey_orders{stage=\"brewing\"}"),
    ("oldest_waiting_ms", "odyssey_orders_oldest_waiting_seconds"),
    ("held_requests", "odyssey_orders_held_requests"),
    ("idle_baristas", "odyssey_orders_idle_baristas"),
];

impl Line {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let ask = self.server.ask(Listener::Staff, Method::GET, "/metrics")?;
        let answer = ask.within(PATIENCE).await?.success()?;
        let line = line(answer.text()?)?;
        output::print(&match self.server.output {
            Format::Table => output::members(&line, &LINE.map(|(name, _)| name)),
            Format::Json => format!("{line}\n"),
        })
    }
}

fn line(metrics: &str) -> anyhow::Result<Value> {
    let mut line = Value::default();
    for (name, series) in LINE {
        let sample = metrics
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        // Numbers in Prometheus' text format are valid JSON.
        let sample: Option<Value> = sample.and_then(|sample| serde_json::from_str(sample).ok());
        let value = if name.ends_with("_ms") {
            sample.and_then(|secs| secs.as_f64()).and_then(millis)
        } else {
            sample
        };
        line[name] = value.with_context(|| {
            format!("/metrics has no {series}: is it Odyssey's staff listener?")
        })?;
    }
    Ok(line)
}

fn millis(secs: f64) -> Option<Value> {
    let millis = Duration::try_from_secs_f64(secs).ok()?.as_millis();
    u64::try_from(millis).ok().map(Value::from)
}

/// `odyssey flood`.
#[derive(Debug, Subcommand)]
pub enum Flood {
    /// List the blocked addresses, most refused first
    List {
        /// At most this many
        #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        #[command(flatten)]
        server: Server,
    },
    /// Unblock an address at once and reset its refusals
    Unblock {
        /// An address, or a network as it is listed
        address: String,
        #[command(flatten)]
        server: Server,
    },
}

impl Flood {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List { limit, server } => {
                let path = format!("/flood?limit={limit}");
                let ask = server.ask(Listener::Staff, Method::GET, &path)?;
                let answer = ask.within(PATIENCE).await?.success()?;
                server.show(&answer, flood)
            }
            Self::Unblock { address, server } => {
                let path = format!("/flood/{}", encoded(&address));
                let ask = server.ask(Listener::Staff, Method::DELETE, &path)?;
                let answer = ask.within(PATIENCE).await?.success()?;
                server.show(&answer, |unblocked| {
                    output::members(unblocked, &["address"])
                })
            }
        }
    }
}

fn flood(flood: &Value) -> String {
    let summary = output::members(
        flood,
        &["mode", "addresses", "open_orders", "cut_off_count"],
    );
    let cut_off = match flood["cut_off"].as_array() {
        Some(cut_off) if !cut_off.is_empty() => {
            output::rows(cut_off, &["address", "reason", "until", "refused"])
        }
        _ => "No address is blocked.\n".to_owned(),
    };
    format!("{summary}\n{cut_off}")
}

#[derive(Debug, Args)]
pub struct Server {
    /// The listener's URL [environment: `ODYSSEY_URL`] [default: the listener of the configuration]
    #[arg(long, value_name = "URL")]
    url: Option<Url>,
    #[command(flatten)]
    credentials: Credentials,
    #[command(flatten)]
    source: Source,
    /// Output format
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    output: Format,
}

/// What the server is shown, and whom it is taken for.
#[derive(Debug, Args)]
#[expect(clippy::struct_field_names, reason = "they name the options")]
pub(super) struct Credentials {
    /// A file with a token [environment: the token itself in `ODYSSEY_TOKEN`]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// A PEM file of whom to trust over https [default: the configured certificate for the server of the configuration, else the
    /// system's authorities]
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// A PEM file with a client certificate, for a staff listener with `staff.auth = "mtls"`
    #[arg(long, value_name = "FILE", requires = "key_file")]
    certificate_file: Option<PathBuf>,
    /// A PEM file with its key
    #[arg(long, value_name = "FILE", requires = "certificate_file")]
    key_file: Option<PathBuf>,
}

impl Credentials {
    /// Adds them to a request. `configured`: the certificate of the server of the configuration.
    pub(super) fn add_to(&self, ask: Ask, configured: Option<PathBuf>) -> anyhow::Result<Ask> {
        let trust = match (&self.ca_file, configured) {
            (Some(file), _) => Trust::Authorities(file.clone()),
            (None, Some(certificate)) => Trust::Certificate(certificate),
            (None, None) => Trust::System,
        };
        let token = match &self.token_file {
            Some(file) => {
                let read = std::fs::read_to_string(file);
                Some(read.with_context(|| format!("--token-file: cannot read {}", file.display()))?)
            }
            None => config::client_token(),
        };
        let token = token.map(|token| Zeroizing::new(token.trim().to_owned()));
        if token
            .as_ref()
            .is_some_and(|token| !token.bytes().all(|b| b.is_ascii_graphic()))
        {
            anyhow::bail!("what was given as a token is none");
        }
        let files = self.certificate_file.clone().zip(self.key_file.clone());
        let presented = files.map(|(certificate, key)| Presented { certificate, key });
        let ask = ask.trusting(trust).presenting(presented);
        Ok(ask.with_token(token.as_ref()))
    }
}

impl Server {
    fn ask(&self, listener: Listener, method: Method, path: &str) -> anyhow::Result<Ask> {
        let (url, certificate) = match (&self.url, config::client_url()) {
            (Some(url), _) => (url.clone(), None),
            (None, Some(url)) => {
                let url = url.parse::<Url>();
                (
                    url.map_err(|wrong| Misuse(format!("ODYSSEY_URL: {wrong}")))?,
                    None,
                )
            }
            (None, None) => listener.of(&self.source.load()?)?,
        };
        self.credentials
            .add_to(Ask::new(method, url.join(path)?), certificate)
    }

    fn show(&self, answer: &Answer, table: impl FnOnce(&Value) -> String) -> anyhow::Result<()> {
        let json = answer.json()?;
        output::print(&match self.output {
            Format::Table => table(&json),
            // Unparsed: members stay in the server's order.
            Format::Json => format!("{}\n", answer.text()?.trim_end()),
        })
    }
}

/// The listener that a command calls.
#[derive(Debug, Clone, Copy)]
enum Listener {
    Customers,
    Staff,
}

impl Listener {
    /// Its URL, and the certificate that it has.
    fn of(self, config: &Config) -> anyhow::Result<(Url, Option<PathBuf>)> {
        let (name, address) = match self {
            Self::Customers => ("customers", config.customers.listen),
            Self::Staff => ("staff", config.staff.listen),
        };
        anyhow::ensure!(
            address.port() != 0,
            "the port in `{name}.listen` is 0 (any free port): name the URL"
        );
        let certificate = config
            .tls
            .is_on()
            .then(|| config.tls.certificate_file.clone());
        let scheme = if certificate.is_some() {
            "https"
        } else {
            "http"
        };
        let url = format!("{scheme}://{}", reachable(address));
        Ok((url.parse::<Url>().map_err(anyhow::Error::msg)?, certificate))
    }
}

/// The loopback address for a server that listens on all addresses.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

fn bounded_wait(text: &str) -> Result<Duration, String> {
    let wait = Duration::read(text)?;
    if wait > WAIT_MAX {
        return Err("it must be 30 days (720h) at most".to_owned());
    }
    Ok(wait)
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Rounded up.
fn whole_secs(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_asked_at_the_loopback_one() {
        for (listen, asked) in [
            ("0.0.0.0:9000", "127.0.0.1:9000"),
            ("[::]:9000", "[::1]:9000"),
            ("192.0.2.1:80", "192.0.2.1:80"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()), asked.parse().unwrap());
        }
    }

    #[test]
    fn the_line_is_read_from_the_metrics_and_nothing_is_made_up() {
        let metrics = "# HELP odyssey_orders Orders\nodyssey_orders{stage=\"waiting\"} 3\nodyssey_orders{stage=\"brewing\"} 1\n\
            odyssey_orders_oldest_waiting_seconds 1.5\nodyssey_orders_held_requests 4\nodyssey_orders_idle_baristas 0\n";
        let expected = json!({"waiting": 3, "brewing": 1, "oldest_waiting_ms": 1500, "held_requests": 4, "idle_baristas": 0});
        assert_eq!(line(metrics).unwrap(), expected);
        let missing = metrics.replace("idle", "tired");
        let said = line(&missing).unwrap_err().to_string();
        assert!(said.contains("odyssey_orders_idle_baristas"), "{said}");
    }
}
