//! The handle that others ask, and the guard they hold while what they admitted is not over.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::http::HeaderMap;
use ipnet::IpNet;
use tokio::time::Instant;
use tracing::{info, warn};

use super::client::{Origin, Proxies, canonical};
use super::metrics::Metrics;
use super::table::{Ask, Counted, Limits, Refused, Table};
use crate::http::server::Pass;

/// How often idle addresses are swept.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// How often a malformed header is worth a log line.
const MALFORMED_LOG_EVERY_MS: u64 = 60_000;

/// Whether refusals are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They are.
    Enforce,
    /// Everybody is admitted; what would have been refused is counted, and cut-offs are logged.
    Observe,
    /// Nobody is even counted.
    Off,
}

impl Mode {
    /// The word the API and the configuration use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Observe => "observe",
            Self::Off => "off",
        }
    }
}

/// What flood control works with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whether refusals are meant.
    pub mode: Mode,
    /// Who is asking.
    pub proxies: Proxies,
    /// Who is always admitted, uncounted.
    pub exempt: Vec<IpNet>,
    /// What an origin may do.
    pub limits: Limits,
}

/// A handle to flood control; cheap to clone.
#[derive(Clone)]
pub struct Flood {
    shared: Arc<Shared>,
}

struct Shared {
    mode: Mode,
    proxies: Proxies,
    exempt: Vec<IpNet>,
    table: Table,
    metrics: Metrics,
    began: Instant,
    malformed_logged_ms: AtomicU64,
    on_block: OnceLock<Box<Purge>>,
}

/// Given an address, since when it had been refused, and for how long it is cut off; says how much was taken away.
type Purge = dyn Fn(IpNet, Instant, Duration) -> usize + Send + Sync;

impl fmt::Debug for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flood").finish_non_exhaustive()
    }
}

/// Something that was admitted and is not over. Dropping it ends it.
#[derive(Debug)]
pub struct Admission {
    /// Nothing if nobody counts.
    counted: Option<(Flood, Counted)>,
}

impl Flood {
    /// Flood control with nobody tracked.
    pub fn new(settings: Settings, metrics: Metrics) -> Self {
        Self {
            shared: Arc::new(Shared {
                mode: settings.mode,
                proxies: settings.proxies,
                exempt: settings.exempt.into_iter().map(canonical).collect(),
                table: Table::new(settings.limits),
                metrics,
                began: Instant::now(),
                malformed_logged_ms: AtomicU64::new(0),
                on_block: OnceLock::new(),
            }),
        }
    }

    /// What is done when an address is cut off: what it placed since it was first refused is taken away. Set once.
    pub fn on_block(
        &self,
        purge: impl Fn(IpNet, Instant, Duration) -> usize + Send + Sync + 'static,
    ) {
        let set = self.shared.on_block.set(Box::new(purge));
        debug_assert!(set.is_ok(), "there is one composition root");
    }

    /// Whom a request is counted for, as the log names them.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> String {
        let network = self.shared.proxies.origin(peer, headers).address;
        if network.prefix_len() == network.max_prefix_len() {
            return network.addr().to_string();
        }
        network.to_string()
    }

    /// Where a request comes from.
    pub fn origin(&self, peer: IpAddr, headers: &HeaderMap) -> Origin {
        let origin = self.shared.proxies.origin(peer, headers);
        if origin.malformed && self.shared.mode != Mode::Off {
            self.log_malformed(peer);
        }
        origin
    }

    /// Refuses whoever is cut off, before their request is read. Nobody is counted.
    ///
    /// # Errors
    /// [`Refused`].
    pub(super) fn look(&self, origin: &Origin) -> Result<(), Refused> {
        let shared = &*self.shared;
        if shared.mode != Mode::Enforce || self.is_exempt(origin) {
            return Ok(());
        }
        shared.table.look(origin.address).inspect_err(|refused| {
            shared.metrics.refused(refused.reason, true);
        })
    }

    fn is_exempt(&self, origin: &Origin) -> bool {
        // The client, which a network narrower than its key may name, or the IPv4 address that it counts as.
        let is_exempt =
            |network: &IpNet| network.contains(&origin.client) || network.contains(&origin.address);
        self.shared.exempt.iter().any(is_exempt)
    }

    /// Asks for admission.
    ///
    /// # Errors
    /// [`Refused`], with the time after which to try again.
    pub fn admit(&self, origin: &Origin, ask: Ask) -> Result<Admission, Refused> {
        let shared = &*self.shared;
        if shared.mode == Mode::Off {
            return Ok(Admission { counted: None });
        }
        if self.is_exempt(origin) {
            shared.metrics.exempt.increment(1);
            return Ok(Admission { counted: None });
        }
        match shared.table.admit(origin.address, ask) {
            Ok(counted) => {
                shared.metrics.admitted.increment(1);
                Ok(Admission {
                    counted: Some((self.clone(), counted)),
                })
            }
            Err(refused) => self.refused(refused),
        }
    }

    /// Lets a connection in, which counts for its peer until what is returned is dropped; nothing is returned where nobody
    /// counts. A trusted proxy's connections are those of many. Without [`Pass`] the peer, or a network that contains it,
    /// has as many as it may.
    pub fn connect(&self, peer: IpAddr) -> Option<Pass> {
        let shared = &*self.shared;
        let peer = peer.to_canonical();
        let address = shared.proxies.key(peer);
        let is_counted = shared.mode != Mode::Off
            && !shared.proxies.is_trusted(peer)
            && !shared.exempt.iter().any(|network| network.contains(&peer));
        if !is_counted {
            return Some(None);
        }
        if shared.table.connect(address) {
            let flood = self.clone();
            return Some(Some(Box::new(Connected { flood, address })));
        }
        let enforced = shared.mode == Mode::Enforce;
        shared.metrics.refused_connection(enforced);
        (!enforced).then_some(None)
    }

    fn refused(&self, refused: Refused) -> Result<Admission, Refused> {
        let shared = &*self.shared;
        let enforce = shared.mode == Mode::Enforce;
        shared.metrics.refused(refused.reason, enforce);
        if let Some(since) = refused.blocked_since {
            self.block(refused.address, since, refused.retry_after);
        }
        if enforce {
            return Err(refused);
        }
        Ok(Admission { counted: None })
    }

    /// To be called once what was admitted is where a purge finds it: if its address was cut off since the admission, the
    /// purge may have come too early, and is repeated.
    pub fn recheck(&self, origin: &Origin) {
        if let Some((since, time)) = self.shared.table.blocked_since(origin.address)
            && self.shared.mode == Mode::Enforce
        {
            self.purge(origin.address, since, time);
        }
    }

    /// Outside of any lock: the purge takes others.
    fn block(&self, address: IpNet, since: Instant, time: Duration) {
        let enforced = self.shared.mode == Mode::Enforce;
        let purged = if enforced {
            self.purge(address, since, time)
        } else {
            0
        };
        let address = display(address);
        warn!(%address, for_s = time.as_secs(), purged, enforced, "an address is cut off");
    }

    fn purge(&self, address: IpNet, since: Instant, time: Duration) -> usize {
        let purge = self.shared.on_block.get();
        let purged = purge.map_or(0, |purge| purge(address, since, time));
        self.shared.metrics.purged.increment(purged as u64);
        purged
    }

    fn log_malformed(&self, proxy: IpAddr) {
        let shared = &*self.shared;
        shared.metrics.malformed.increment(1);
        let since_began = shared.began.elapsed().as_millis();
        // From 1, so that 0 means never.
        let now_ms = u64::try_from(since_began).unwrap_or(u64::MAX).max(1);
        let last_ms = shared.malformed_logged_ms.load(Ordering::Relaxed);
        // Another request may have read the clock later and be here first.
        let due = last_ms == 0 || now_ms.saturating_sub(last_ms) >= MALFORMED_LOG_EVERY_MS;
        let exchanged = due
            && shared
                .malformed_logged_ms
                .compare_exchange(last_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if exchanged {
            warn!(%proxy, "a trusted proxy sends an X-Forwarded-For that cannot be read; its requests count for itself");
        }
    }

    /// Whether refusals are meant.
    pub fn mode(&self) -> Mode {
        self.shared.mode
    }

    /// The tracked addresses.
    pub fn table(&self) -> &Table {
        &self.shared.table
    }

    /// Lets an address in again. False if it was not cut off.
    pub fn unblock(&self, address: IpNet) -> bool {
        // By the address that a client would be counted for, or by the entry's own name as it is listed.
        let address = canonical(address);
        let key = self.shared.proxies.key(address.addr());
        let table = &self.shared.table;
        let back = table.unblock(address) || table.unblock(key);
        if back {
            info!(address = %display(address), "an address is let back in");
        }
        back
    }

    /// Forgets idle addresses, for as long as it is polled.
    pub async fn sweep(&self) {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            self.shared.table.sweep();
        }
    }

    /// Sets the gauges to this moment's figures.
    pub fn update_gauges(&self) {
        self.shared.metrics.update(&self.shared.table);
    }
}

/// A connection that is counted. Dropping it ends it.
#[derive(Debug)]
struct Connected {
    flood: Flood,
    address: IpNet,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.flood.table().disconnect(self.address);
    }
}

impl Admission {
    /// Whose it is; nothing if nobody counts.
    pub fn address(&self) -> Option<IpNet> {
        let counted = self.counted.as_ref();
        counted.map(|(_, counted)| counted.address)
    }

    /// What is left of the rate, in writes; nothing if nobody counts.
    pub(super) fn left(&self) -> Option<u32> {
        self.counted.as_ref()?.1.left
    }

    /// What was admitted has turned out to be malformed: nothing is remembered of an address that was not known before.
    pub(super) fn malformed(&mut self) {
        if let Some((_, counted)) = &mut self.counted {
            counted.malformed = true;
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some((flood, counted)) = self.counted.take() {
            flood.table().release(&counted);
        }
    }
}

/// An address as people write it: a single one without its length.
pub(super) fn display(address: IpNet) -> String {
    if address.prefix_len() == address.max_prefix_len() {
        address.addr().to_string()
    } else {
        address.to_string()
    }
}
