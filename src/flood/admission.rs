//! The handle for admission, and the guards of admitted items.

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
use super::config::Mode;
use super::metrics::Metrics;
use super::table::{Ask, Counted, Limits, Refused, Table};
use crate::http::server::Pass;

const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// At most one log line about malformed headers in this time.
const MALFORMED_LOG_EVERY_MS: u64 = 60_000;

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
    on_block: Box<Purge>,
    on_unblock: OnceLock<Box<dyn Fn(IpNet) + Send + Sync>>,
}

/// Given an address, since when it was refused, and for how long it is blocked; returns how many orders were cancelled.
type Purge = dyn Fn(IpNet, Instant, Duration) -> usize + Send + Sync;

impl fmt::Debug for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flood").finish_non_exhaustive()
    }
}

/// An open item. Dropping it releases its count.
#[derive(Debug)]
pub struct Admission {
    /// None if it is not counted.
    counted: Option<(Flood, Counted)>,
}

impl Flood {
    /// `on_block` cancels what a blocked address placed since it was first refused.
    pub fn new(
        limits: Limits,
        metrics: Metrics,
        on_block: impl Fn(IpNet, Instant, Duration) -> usize + Send + Sync + 'static,
    ) -> Self {
        let config = &limits.config;
        Self {
            shared: Arc::new(Shared {
                mode: config.mode,
                proxies: Proxies::new(&config.trusted_proxies, config.ipv6_prefix),
                exempt: config.exempt.iter().copied().map(canonical).collect(),
                table: Table::new(limits),
                metrics,
                began: Instant::now(),
                malformed_logged_ms: AtomicU64::new(0),
                on_block: Box::new(on_block),
                on_unblock: OnceLock::new(),
            }),
        }
    }

    /// Calls `on_unblock` when an address is unblocked here. Only the first call counts.
    pub fn when_unblocked(&self, on_unblock: impl Fn(IpNet) + Send + Sync + 'static) {
        let _ = self.shared.on_unblock.set(Box::new(on_unblock));
    }

    /// Blocks an address for so long, or unblocks it, as another server of a shared line has.
    pub fn follow(&self, address: IpNet, blocked: Option<Duration>) {
        if self.shared.mode != Mode::Enforce {
            return;
        }
        match blocked {
            Some(time) => self.shared.table.block(address, time),
            None => {
                self.shared.table.unblock(address);
            }
        }
    }

    /// Whether what this peer says of requests is believed (`flood.trusted_proxies`).
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.shared.proxies.is_trusted(peer.to_canonical())
    }

    /// The client's address or network, for other limits and for logs.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpNet {
        self.shared.proxies.origin(peer, headers).address
    }

    pub fn origin(&self, peer: IpAddr, headers: &HeaderMap) -> Origin {
        let origin = self.shared.proxies.origin(peer, headers);
        if origin.malformed && self.shared.mode != Mode::Off {
            self.log_malformed(peer);
        }
        origin
    }

    /// Refuses a blocked client before its request is read. Counts nothing else.
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
        // An exempt network may be narrower than the client's key, or name the IPv4 address of a NAT64 client.
        let is_exempt =
            |network: &IpNet| network.contains(&origin.client) || network.contains(&origin.address);
        self.shared.exempt.iter().any(is_exempt)
    }

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

    /// Admits a connection, which counts for its peer until the [`Pass`] is dropped. None if the peer, or a network around
    /// it, is at its limit. Connections of trusted and exempt peers are not counted.
    pub fn connect(&self, peer: IpAddr) -> Option<Pass> {
        let shared = &*self.shared;
        let Some(address) = self.counted(peer).filter(|_| shared.mode != Mode::Off) else {
            return Some(None);
        };
        if shared.table.connect(address) {
            let flood = self.clone();
            return Some(Some(Box::new(Connected { flood, address })));
        }
        let enforced = shared.mode == Mode::Enforce;
        shared.metrics.refused_connection(enforced);
        (!enforced).then_some(None)
    }

    /// What a peer's connections count for; none if it is a trusted proxy or exempt.
    pub fn counted(&self, peer: IpAddr) -> Option<IpNet> {
        let shared = &*self.shared;
        let peer = peer.to_canonical();
        let is_counted = !shared.proxies.is_trusted(peer)
            && !shared.exempt.iter().any(|network| network.contains(&peer));
        is_counted.then(|| shared.proxies.key(peer))
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

    /// Call once a purge can find what was admitted: if its address was blocked since the admission, the purge may have
    /// come too early, and is repeated.
    pub fn recheck(&self, origin: &Origin) {
        if let Some((since, time)) = self.shared.table.blocked_since(origin.address)
            && self.shared.mode == Mode::Enforce
        {
            self.purge(origin.address, since, time);
        }
    }

    /// Outside of any lock: the purge takes the line's.
    fn block(&self, address: IpNet, since: Instant, time: Duration) {
        let enforced = self.shared.mode == Mode::Enforce;
        let purged = if enforced {
            self.purge(address, since, time)
        } else {
            0
        };
        let address = display(address);
        warn!(%address, for_s = time.as_secs(), purged, enforced, "an address is blocked");
    }

    fn purge(&self, address: IpNet, since: Instant, time: Duration) -> usize {
        let purged = (self.shared.on_block)(address, since, time);
        self.shared.metrics.purged.increment(purged as u64);
        purged
    }

    fn log_malformed(&self, proxy: IpAddr) {
        let shared = &*self.shared;
        shared.metrics.malformed.increment(1);
        let since_began = shared.began.elapsed().as_millis();
        // 0 means never.
        let now_ms = u64::try_from(since_began).unwrap_or(u64::MAX).max(1);
        let last_ms = shared.malformed_logged_ms.load(Ordering::Relaxed);
        // Saturating: another request may have stored a later time.
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

    /// `flood.mode`.
    pub fn mode(&self) -> Mode {
        self.shared.mode
    }

    pub fn table(&self) -> &Table {
        &self.shared.table
    }

    /// Blocked addresses, most refused first.
    pub fn blocked(&self) -> Vec<Blocked> {
        let (now, all) = (Instant::now(), self.table().blocked());
        let blocked = all.into_iter().map(|one| Blocked {
            address: display(one.address),
            reason: one.reason.as_str(),
            left: one.until.saturating_duration_since(now),
            refused: one.refused,
        });
        blocked.collect()
    }

    /// False if it was not blocked. `identity`: the name of who unblocks it, for the log.
    pub fn unblock(&self, address: IpNet, identity: Option<&str>) -> bool {
        // By an address of the client, or by the entry's key as listed.
        let address = canonical(address);
        let key = self.shared.proxies.key(address.addr());
        let table = &self.shared.table;
        let back = [address, key]
            .into_iter()
            .find(|&address| table.unblock(address));
        if let Some(address) = back {
            if let Some(on_unblock) = self.shared.on_unblock.get() {
                on_unblock(address);
            }
            info!(address = %display(address), identity, "an address is unblocked");
        }
        back.is_some()
    }

    /// Evicts idle addresses. Never returns.
    pub async fn sweep(&self) {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            self.shared.table.sweep();
        }
    }

    pub fn update_gauges(&self) {
        self.shared.metrics.update(&self.shared.table);
    }
}

/// A blocked address.
#[derive(Debug, Clone)]
pub struct Blocked {
    /// An address, or a network.
    pub address: String,
    /// Why it was last refused.
    pub reason: &'static str,
    /// For how long it stays blocked.
    pub left: Duration,
    /// Refusals since it is tracked.
    pub refused: u64,
}

/// A counted connection.
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
    /// None if it is not counted.
    pub fn address(&self) -> Option<IpNet> {
        let counted = self.counted.as_ref();
        counted.map(|(_, counted)| counted.address)
    }

    /// Writes left of the rate, and its limits; none if it is not counted.
    pub(super) fn left(&self) -> Option<(&Limits, u32)> {
        let (flood, counted) = self.counted.as_ref()?;
        Some((flood.table().limits(), counted.left?))
    }

    /// The request was malformed: it leaves no entry behind.
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

/// A single address without its prefix length.
pub(super) fn display(address: IpNet) -> String {
    if address.prefix_len() == address.max_prefix_len() {
        address.addr().to_string()
    } else {
        address.to_string()
    }
}
