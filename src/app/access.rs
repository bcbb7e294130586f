//! Access to both listeners: reads tokens and certificates, keeps them up to date, and builds the guards.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use dashmap::DashMap;
use ipnet::IpNet;
use jiff::Timestamp;
use metrics::{Gauge, describe_gauge, gauge};
use tracing::warn;

use crate::access::config::{CustomersAuth, StaffAuth};
use crate::access::session::Sessions;
use crate::access::tls::{Acceptor, Loaded};
use crate::access::tokens::{TokenSet, Tokens};
use crate::access::tokens_file;
use crate::access::watch::Watched;
use crate::config::Config;
use crate::flood::Flood;
use crate::http::guard::{Credentials, Guard, outdated};
use crate::http::security::{Kind, Security};
use crate::http::server::ConnectionLimit;
use crate::http::status::Component;
use crate::storage::State;
use crate::telemetry::Registry;

/// In the data directory: signs the sessions of browsers.
const SESSION_KEY: &str = "session.key";

/// # Errors
/// If the staff's listener would be open to others by mistake, or keys contradict each other. Names the key.
pub(super) fn check(config: &Config) -> anyhow::Result<()> {
    let ip = config.staff.listen.ip();
    if let Some(refusal) = config.staff.auth.refusal(ip, &config.access, &config.tls) {
        bail!("configuration key `staff.auth`: {refusal}");
    }
    if config.customers.auth == CustomersAuth::Tokens && !config.access.has_tokens() {
        bail!(
            "configuration key `customers.auth`: it needs `access.tokens_file`; `odyssey token new` creates one"
        );
    }
    Ok(())
}

#[derive(Debug)]
pub(super) struct Access {
    /// Of customers and staff.
    pub(super) guards: [Arc<Guard>; 2],
    /// Of customers and staff; None: plain HTTP.
    pub(super) acceptors: Option<[Acceptor; 2]>,
    pub(super) watched: Vec<Arc<Watched>>,
    tokens: TokenSet,
    gauges: Gauges,
}

impl Access {
    /// # Errors
    /// If a file cannot be read. Names the key.
    pub(super) fn open(
        config: &Config,
        data: &Path,
        flood: &Flood,
        registry: &Registry,
    ) -> anyhow::Result<Self> {
        let (auth, ip) = (config.staff.auth, config.staff.listen.ip());
        let for_customers = config.customers.auth == CustomersAuth::Tokens;
        let gauges = registry.register(Gauges::register);
        gauges.required[0].set(f64::from(for_customers));
        gauges.required[1].set(f64::from(auth.is_required()));
        let tokens = TokenSet::default();
        let mut watched = Vec::new();
        if for_customers || auth == StaffAuth::Tokens {
            let (path, set) = (config.access.tokens_file.clone(), tokens.clone());
            let read = move || {
                set.replace(Tokens::new(tokens_file::read(&path)?));
                Ok(())
            };
            let files = vec![config.access.tokens_file.clone()];
            let watch = Watched::open("the tokens", files, read);
            watched.push(watch.context("configuration key `access.tokens_file`")?);
        }
        let acceptors = open_tls(config, &gauges, &mut watched)?;
        let sessions = match auth {
            StaffAuth::Tokens => {
                let path = data.join(SESSION_KEY);
                let open = Sessions::open(&path, config.staff.session);
                Some(open.with_context(|| format!("the key of sessions, {}", path.display()))?)
            }
            _ => None,
        };
        let staff = match auth {
            StaffAuth::Tokens => Some(Credentials::Tokens(tokens.clone(), sessions)),
            StaffAuth::Mtls => Some(Credentials::Certificates),
            StaffAuth::Auto | StaffAuth::None => None,
        };
        let customers = for_customers.then(|| Credentials::Tokens(tokens.clone(), None));
        let guard = |listener, credentials| {
            let flood = flood.clone();
            let client_of = move |peer, headers: &_| flood.client(peer, headers);
            Arc::new(Guard::new(listener, credentials, client_of, registry))
        };
        if auth == StaffAuth::None && !ip.to_canonical().is_loopback() {
            warn!(%ip, "everyone who reaches the staff's listener may act as staff (configuration key `staff.auth`)");
        }
        Ok(Self {
            guards: [guard("customers", customers), guard("staff", staff)],
            acceptors,
            watched,
            tokens,
            gauges,
        })
    }

    /// Updates the gauges of files and tokens at each scrape: the next token to expire changes with time.
    pub(super) fn update_gauges(&self) -> Box<dyn Fn() + Send + Sync> {
        let (tokens, gauges) = (self.tokens.clone(), self.gauges.clone());
        let watched = self.watched.clone();
        Box::new(move || {
            gauges.take(&tokens.now());
            let well = watched.iter().all(|files| files.condition().is_healthy());
            gauges.well.set(f64::from(well));
        })
    }

    /// Where staff must prove who they are, others must not take all connections: a quarter at most is one address's, a trusted
    /// proxy's and an exempt one's apart.
    pub(super) fn gate(limit: ConnectionLimit, flood: &Flood) -> ConnectionLimit {
        let most = (limit.max() / 4).max(1);
        let (open, flood) = (Arc::<DashMap<IpNet, usize>>::default(), flood.clone());
        limit.with_gate(move |peer| {
            let Some(address) = flood.counted(peer) else {
                return Some(None);
            };
            let mut count = open.entry(address).or_default();
            if *count >= most {
                return None;
            }
            *count += 1;
            let open = Arc::clone(&open);
            Some(Some(Box::new(Seat { open, address })))
        })
    }

    /// Whether tokens and certificates are those of the files.
    pub(super) fn component(&self) -> Option<Component> {
        let watched = self.watched.clone();
        let look = move || {
            let states = watched.iter().map(|watched| watched.condition().state());
            let mut states: Vec<State> = states.collect();
            states.sort_by_key(|state| state.down.is_none());
            states.into_iter().next().unwrap_or_else(State::well)
        };
        let component = || Component::new("access", look).answering(outdated);
        (!self.watched.is_empty()).then(component)
    }
}

/// An open connection of an address.
struct Seat {
    open: Arc<DashMap<IpNet, usize>>,
    address: IpNet,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(mut count) = self.open.get_mut(&self.address) {
            *count -= 1;
        }
        self.open.remove_if(&self.address, |_, count| *count == 0);
    }
}

fn open_tls(
    config: &Config,
    gauges: &Gauges,
    watched: &mut Vec<Arc<Watched>>,
) -> anyhow::Result<Option<[Acceptor; 2]>> {
    let tls = config.tls.clone();
    if !tls.is_on() {
        return Ok(None);
    }
    let verify = config.staff.auth == StaffAuth::Mtls;
    let acceptors = Loaded::read(&tls, verify)?.acceptors(config.workers());
    let files = [&tls.certificate_file, &tls.key_file, &tls.client_ca_file];
    let files = files
        .into_iter()
        .filter(|file| !file.as_os_str().is_empty());
    let files: Vec<PathBuf> = files.cloned().collect();
    let (replaced, gauges) = (acceptors.clone(), gauges.clone());
    let read = move || {
        let loaded = Loaded::read(&tls, verify)?;
        if loaded.not_after <= Timestamp::now() {
            warn!(not_after = %loaded.not_after, "the server's certificate has expired");
        }
        gauges.certificate.set(seconds(loaded.not_after));
        loaded.replace(&replaced);
        Ok(())
    };
    watched.push(Watched::open("the certificates", files, read)?);
    Ok(Some(acceptors))
}

/// How the listeners of customers and staff describe their credentials.
pub(super) fn securities(config: &Config) -> [Security; 2] {
    let customers = Security {
        kind: Kind::Tokens,
        required: config.customers.auth == CustomersAuth::Tokens,
    };
    let staff = Security {
        kind: match config.staff.auth {
            StaffAuth::Mtls => Kind::Certificates,
            _ => Kind::TokensAndSessions,
        },
        required: config.staff.auth.is_required(),
    };
    [customers, staff]
}

#[derive(Debug, Clone)]
struct Gauges {
    /// Of customers and staff.
    required: [Gauge; 2],
    well: Gauge,
    tokens: Gauge,
    token: Gauge,
    certificate: Gauge,
}

impl Gauges {
    fn register() -> Self {
        const REQUIRED: &str = "odyssey_access_required";
        const WELL: &str = "odyssey_access_well";
        const TOKENS: &str = "odyssey_access_tokens";
        const TOKEN: &str = "odyssey_access_token_not_after_seconds";
        const CERTIFICATE: &str = "odyssey_tls_certificate_not_after_seconds";
        describe_gauge!(
            REQUIRED,
            "1 if the listener's requests need a credential, else 0"
        );
        describe_gauge!(
            WELL,
            "1 while the tokens and certificates in force are those of the files, else 0"
        );
        describe_gauge!(TOKENS, "Tokens in the file");
        describe_gauge!(
            TOKEN,
            "When the next valid token expires, in seconds since 1970; +Inf if none does"
        );
        describe_gauge!(
            CERTIFICATE,
            "When the server's certificate expires, in seconds since 1970; +Inf without TLS"
        );
        let gauges = Self {
            required: ["customers", "staff"]
                .map(|listener| gauge!(REQUIRED, "listener" => listener)),
            well: gauge!(WELL),
            tokens: gauge!(TOKENS),
            token: gauge!(TOKEN),
            certificate: gauge!(CERTIFICATE),
        };
        gauges.token.set(f64::INFINITY);
        gauges.certificate.set(f64::INFINITY);
        gauges
    }

    fn take(&self, tokens: &Tokens) {
        self.tokens
            .set(f64::from(u32::try_from(tokens.count()).unwrap_or(u32::MAX)));
        let next = tokens.next_expiry(Timestamp::now());
        self.token.set(next.map_or(f64::INFINITY, seconds));
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "seconds until the year 9999 have 39 bits"
)]
fn seconds(time: Timestamp) -> f64 {
    time.as_second() as f64
}
