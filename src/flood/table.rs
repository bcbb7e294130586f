//! The tracked addresses: rates, refusals and blocks. Bounded.

mod entry;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;
use foldhash::fast::RandomState;
use governor::Quota;
use ipnet::IpNet;
use tokio::time::Instant;

use self::entry::Entry;
use super::client::network;
use super::config::Config;
use super::networks::{Denied, Kind, Level, Networks, Shares, levels};

/// Limits of an origin. No time is zero.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open orders, and held requests.
    pub shares: Shares,
    /// Open connections.
    pub connections: Shares,
    pub config: Config,
}

impl Limits {
    /// `places`: in line. `connections_max`: of the customers' listener; no network or address has more than half of it.
    pub fn new(config: Config, places: usize, connections_max: usize) -> Self {
        let half = u32::try_from(connections_max / 2).unwrap_or(u32::MAX);
        Self {
            shares: Shares {
                address_max: config.outstanding_max,
                network_max: config.network_max,
                places,
            },
            connections: Shares {
                address_max: config.connections_max.min(half.max(1)),
                network_max: half,
                places: connections_max,
            },
            config,
        }
    }
}

/// Other writes are cheaper than an order: they use no barista's time.
pub const WRITES_PER_ORDER: NonZeroU32 = NonZeroU32::new(10).expect("it is not zero");

/// What is asked admission for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// An order: costs rate, and is open until it is ready or cancelled.
    Order,
    /// A request held for an order: open until it is answered.
    Watch,
    /// An order that another server of a shared line has admitted, and whose request its proxy has sent again: only counted.
    Again,
    /// Any other unsafe request: costs a tenth of an order.
    Write,
}

impl Ask {
    fn kind(self) -> Option<Kind> {
        match self {
            Self::Order | Self::Again => Some(Kind::Order),
            Self::Watch => Some(Kind::Watch),
            Self::Write => None,
        }
    }

    /// In cells of the rate.
    fn cost(self) -> Option<NonZeroU32> {
        match self {
            Self::Order => Some(WRITES_PER_ORDER),
            Self::Watch | Self::Again => None,
            Self::Write => Some(NonZeroU32::MIN),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The address has too many open items.
    Outstanding,
    /// A network around it has.
    Network,
    /// The line is nearly full, and reserved for those who have less of it.
    Scarce,
    /// Over its rate.
    Rate,
    /// Blocked after earlier refusals.
    Blocked,
}

impl Reason {
    pub(super) const ALL: [Self; 5] = [
        Self::Outstanding,
        Self::Network,
        Self::Scarce,
        Self::Rate,
        Self::Blocked,
    ];

    /// The name in metrics and the API.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Outstanding => "outstanding",
            Self::Network => "network",
            Self::Scarce => "scarce",
            Self::Rate => "rate",
            Self::Blocked => "cut_off",
        }
    }
}

/// An admitted item; see [`Table::release`].
#[derive(Debug)]
#[must_use = "it counts until it is released"]
pub struct Counted {
    pub address: IpNet,
    /// The entry with its rate: the address's own, or a shared one.
    pub entry: IpNet,
    /// Writes left of the rate; none if it cost nothing.
    pub left: Option<u32>,
    kind: Option<Kind>,
    pub(super) malformed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    pub address: IpNet,
    pub reason: Reason,
    pub retry_after: Duration,
    /// Set by the refusal that blocks the address: since when its refusals count.
    pub blocked_since: Option<Instant>,
}

/// A blocked address.
#[derive(Debug, Clone, Copy)]
pub struct Block {
    pub address: IpNet,
    /// The first refusal that counted.
    pub since: Instant,
    /// Of the last refusal.
    pub reason: Reason,
    pub until: Instant,
    /// Refusals since it is tracked.
    pub refused: u64,
}

/// `Retry-After` with too many open items: about the time of a brew.
const OUTSTANDING_RETRY: Duration = Duration::from_secs(30);

/// Per address family, so that a flood of one does not evict the other.
#[derive(Debug)]
struct Family {
    entries: DashMap<IpNet, Entry, RandomState>,
    /// The map's length; its own `len` locks every shard.
    len: AtomicUsize,
    /// When it was last swept to make room, in milliseconds since `began`.
    swept_ms: AtomicU64,
}

/// The least time between sweeps of a full table: scanning 50,000 entries takes some milliseconds.
const ROOM_SWEPT_EVERY_MS: u64 = 100;

#[derive(Debug)]
pub struct Table {
    limits: Limits,
    quota: Quota,
    wide_quota: Quota,
    began: Instant,
    /// IPv4, IPv6.
    families: [Family; 2],
    /// The latest end of any block, in milliseconds since `began`, rounded up; 0 if there was none. Saves a lookup per
    /// request while no address is blocked.
    blocked_until_ms: AtomicU64,
    networks: Networks,
}

impl Table {
    /// # Panics
    /// If `burst` or `refill` is zero, or a whole burst takes centuries to refill; the configuration's bounds exclude all three.
    pub fn new(limits: Limits) -> Self {
        let burst = NonZeroU32::new(limits.config.burst).expect("the burst is not zero");
        let cells = burst.saturating_mul(WRITES_PER_ORDER);
        let refill = limits.config.refill / WRITES_PER_ORDER.get();
        let quota = |period: Duration, burst| {
            Quota::with_period(period)
                .expect("the refill is longer than nothing")
                .allow_burst(burst)
        };
        // A provider's network has as much more of the rate than an address as it may have more open by default.
        let wide = NonZeroU32::new(cells.get().saturating_mul(8) / 5).unwrap_or(cells);
        let wide_quota = quota((refill * 5 / 8).max(Duration::from_nanos(1)), wide);
        let quota = quota(refill, cells);
        let family = |()| Family {
            entries: DashMap::default(),
            len: AtomicUsize::new(0),
            swept_ms: AtomicU64::new(0),
        };
        Self {
            limits,
            quota,
            wide_quota,
            began: Instant::now(),
            families: [(), ()].map(family),
            blocked_until_ms: AtomicU64::new(0),
            networks: Networks::default(),
        }
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub fn networks(&self) -> &Networks {
        &self.networks
    }

    /// Admits a request, and counts it as open until it is released.
    ///
    /// # Errors
    /// [`Refused`]; nothing is counted as open then.
    pub fn admit(&self, address: IpNet, ask: Ask) -> Result<Counted, Refused> {
        let now = Instant::now();
        let refused = |(reason, retry_after), blocked_since| Refused {
            address,
            reason,
            retry_after,
            blocked_since,
        };
        let Some(cost) = ask.cost() else {
            // A blocked client may still poll its orders: no entry is needed.
            self.open(address, ask).map_err(|why| refused(why, None))?;
            return Ok(Counted {
                address,
                entry: address,
                left: None,
                kind: ask.kind(),
                malformed: false,
            });
        };
        let counted = self.with_entry(address, now, self.quota, |entry, key| {
            if let Some(left) = entry.refuse_if_blocked(now) {
                return Err(refused((Reason::Blocked, left), None));
            }
            entry.forget_past_block();
            match self.take(entry, address, ask, cost, now) {
                Ok(left) => {
                    if ask == Ask::Write {
                        entry.pending += 1;
                    } else {
                        entry.known = true;
                    }
                    Ok(Counted {
                        address,
                        entry: key,
                        left: Some(left),
                        kind: ask.kind(),
                        malformed: false,
                    })
                }
                Err((reason, retry_after)) => {
                    let config = &self.limits.config;
                    let since = entry.refuse(reason, key != address, now, config);
                    if since.is_some() {
                        self.blocks_until(now + config.cutoff_for);
                    }
                    let retry_after = since.map_or(retry_after, |_| config.cutoff_for);
                    Err(refused((reason, retry_after), since))
                }
            }
        })?;
        // Last, so that a client over its own limit takes nothing of its neighbours'.
        if let Err(why) = self.take_of_networks(address, ask, cost, now) {
            self.release(&counted);
            return Err(refused(why, None));
        }
        Ok(counted)
    }

    /// Counts a connection until [`Table::disconnect`]. False at the limit.
    pub fn connect(&self, address: IpNet) -> bool {
        let shares = &self.limits.connections;
        self.networks
            .take(address, Kind::Connection, shares)
            .is_ok()
    }

    pub fn disconnect(&self, address: IpNet) {
        self.networks.give_back(address, Kind::Connection);
    }

    fn open(&self, address: IpNet, ask: Ask) -> Result<(), (Reason, Duration)> {
        let Some(kind) = ask.kind() else {
            return Ok(());
        };
        if ask == Ask::Again {
            self.networks.add(address, kind);
            return Ok(());
        }
        let taken = self.networks.take(address, kind, &self.limits.shares);
        taken.map_err(|denied| match denied {
            Denied::Itself => (Reason::Outstanding, OUTSTANDING_RETRY),
            Denied::Network => (Reason::Network, OUTSTANDING_RETRY),
            Denied::Scarce => (Reason::Scarce, OUTSTANDING_RETRY),
        })
    }

    /// Takes an open item and rate. Returns what is left of the rate.
    fn take(
        &self,
        entry: &mut Entry,
        address: IpNet,
        ask: Ask,
        cost: NonZeroU32,
        now: Instant,
    ) -> Result<u32, (Reason, Duration)> {
        // Count first, then check: a check before the count can be passed by many at once.
        self.open(address, ask)?;
        entry.take(self.quota, cost, now).map_err(|wait| {
            if let Some(kind) = ask.kind() {
                self.networks.give_back(address, kind);
            }
            (Reason::Rate, wait)
        })
    }

    pub fn release(&self, counted: &Counted) {
        if let Some(kind) = counted.kind {
            self.networks.give_back(counted.address, kind);
        }
        if counted.kind.is_some() {
            return;
        }
        let family = self.family(counted.entry);
        let forgettable = family
            .entries
            .get_mut(&counted.entry)
            .is_some_and(|mut entry| {
                entry.pending = entry.pending.saturating_sub(1);
                entry.known |= !counted.malformed;
                entry.is_forgettable()
            });
        let forget = |_: &IpNet, entry: &Entry| entry.is_forgettable();
        if forgettable && family.entries.remove_if(&counted.entry, forget).is_some() {
            family.len.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Of a blocked entry: since when its refusals count, and for how much longer it is blocked.
    pub fn blocked_since(&self, key: IpNet) -> Option<(Instant, Duration)> {
        let now = self.now_if_any_blocked()?;
        let entry = self.family(key).entries.get(&key)?;
        entry.blocked_since(now)
    }

    /// Refuses a blocked address.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn look(&self, address: IpNet) -> Result<(), Refused> {
        let Some(now) = self.now_if_any_blocked() else {
            return Ok(());
        };
        let Some(mut entry) = self.family(address).entries.get_mut(&address) else {
            return Ok(());
        };
        match entry.refuse_if_blocked(now) {
            Some(left) => Err(Refused {
                address,
                reason: Reason::Blocked,
                retry_after: left,
                blocked_since: None,
            }),
            None => Ok(()),
        }
    }

    /// Keeps the latest end of any block.
    fn blocks_until(&self, until: Instant) {
        let until_ms = self.ms(until).saturating_add(1);
        self.blocked_until_ms.fetch_max(until_ms, Ordering::Relaxed);
    }

    /// The time, if any address may be blocked.
    ///
    /// Relaxed is enough: a purge too early for an order takes the line's lock after the block was stored; the order's
    /// placement takes that lock later, and reads this after it.
    fn now_if_any_blocked(&self) -> Option<Instant> {
        let until_ms = self.blocked_until_ms.load(Ordering::Relaxed);
        if until_ms == 0 {
            return None;
        }
        let now = Instant::now();
        (self.ms(now) < until_ms).then_some(now)
    }

    /// A moment in milliseconds since `began`.
    fn ms(&self, moment: Instant) -> u64 {
        let since_began = moment.saturating_duration_since(self.began);
        u64::try_from(since_began.as_millis()).unwrap_or(u64::MAX)
    }

    /// Takes a write's cost of the rates of the subscriber and the provider, too, so that many addresses have no higher
    /// rate. Orders are bounded by the open ones.
    fn take_of_networks(
        &self,
        address: IpNet,
        ask: Ask,
        cost: NonZeroU32,
        now: Instant,
    ) -> Result<(), (Reason, Duration)> {
        if ask != Ask::Write {
            return Ok(());
        }
        for (level, network) in levels(address) {
            let quota = match level {
                Level::Subscriber => self.quota,
                Level::Provider => self.wide_quota,
                Level::Address | Level::Site => continue,
            };
            self.with_entry(network, now, quota, |entry, _| {
                let checked = entry.take(quota, cost, now);
                checked.map_err(|wait| (Reason::Network, wait))
            })?;
        }
        Ok(())
    }

    /// Blocked addresses, most refused first.
    pub fn blocked(&self) -> Vec<Block> {
        let now = Instant::now();
        let entries = self.families.iter().flat_map(|family| &family.entries);
        let mut blocked: Vec<_> = entries
            .filter_map(|entry| {
                let (since, left) = entry.blocked_since(now)?;
                Some(Block {
                    address: *entry.key(),
                    since,
                    reason: entry.reason(),
                    until: now + left,
                    refused: entry.refused(),
                })
            })
            .collect();
        blocked.sort_unstable_by_key(|entry| (std::cmp::Reverse(entry.refused), entry.address));
        blocked
    }

    /// Blocks an address, as another server of a shared line has. Not if it shares its entry with others.
    pub fn block(&self, address: IpNet, time: Duration) {
        let now = Instant::now();
        self.blocks_until(now + time);
        self.with_entry(address, now, self.quota, |entry, key| {
            if key == address {
                entry.block(now, time);
            }
        });
    }

    /// Unblocks an address and resets its entry. False if it was not blocked.
    pub fn unblock(&self, key: IpNet) -> bool {
        let now = Instant::now();
        let entry = self.family(key).entries.get_mut(&key);
        entry.is_some_and(|mut entry| {
            let was_blocked = entry.is_blocked(now);
            if was_blocked {
                *entry = Entry::new(self.quota, now);
            }
            was_blocked
        })
    }

    /// Evicts entries that are in their initial state again.
    pub fn sweep(&self) {
        for family in &self.families {
            self.sweep_family(family);
        }
    }

    fn sweep_family(&self, family: &Family) {
        let now = Instant::now();
        let mut swept = 0;
        family.entries.retain(|_, entry| {
            let keep = !entry.is_as_new(now, &self.limits.config);
            swept += usize::from(!keep);
            keep
        });
        let before = family.len.fetch_sub(swept, Ordering::Relaxed);
        if swept > before / 2 {
            family.entries.shrink_to_fit();
        }
    }

    pub fn len(&self) -> usize {
        let lens = self.families.iter();
        lens.map(|family| family.len.load(Ordering::Relaxed)).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn family(&self, address: IpNet) -> &Family {
        &self.families[usize::from(address.addr().is_ipv6())]
    }

    /// Runs `step` on the entry of this address, or of the narrowest network around it that has an entry or room for one.
    fn with_entry<R>(
        &self,
        address: IpNet,
        now: Instant,
        quota: Quota,
        step: impl FnOnce(&mut Entry, IpNet) -> R,
    ) -> R {
        let family = self.family(address);
        let most = self.limits.config.addresses_max / 2;
        // An eighth of the room for each wider ring, so that a flood of addresses cannot take it all at one width; the
        // widest ring always has room.
        let rings = wider(address);
        let rooms = [most - most / 4, most - most / 8, most - 1, usize::MAX];
        for (key, room) in rings.into_iter().zip(rooms) {
            if let Some(mut entry) = family.entries.get_mut(&key) {
                return step(&mut entry, key);
            }
            if family.take_room(room) || self.make_room(family, now) && family.take_room(room) {
                return match family.entries.entry(key) {
                    Slot::Occupied(mut taken) => {
                        // Another thread was faster.
                        family.len.fetch_sub(1, Ordering::Relaxed);
                        step(taken.get_mut(), key)
                    }
                    Slot::Vacant(free) => step(&mut free.insert(Entry::new(quota, now)), key),
                };
            }
        }
        unreachable!("the widest ring always has room")
    }

    /// Sweeps a full table at most every [`ROOM_SWEPT_EVERY_MS`].
    fn make_room(&self, family: &Family, now: Instant) -> bool {
        let now_ms = self.ms(now);
        let due = |swept_ms| (now_ms >= swept_ms + ROOM_SWEPT_EVERY_MS).then_some(now_ms);
        let relaxed = Ordering::Relaxed;
        let is_due = family.swept_ms.fetch_update(relaxed, relaxed, due).is_ok();
        if is_due {
            self.sweep_family(family);
        }
        is_due
    }
}

impl Family {
    fn take_room(&self, room: usize) -> bool {
        self.len
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |len| {
                (len < room).then_some(len + 1)
            })
            .is_ok()
    }
}

/// The address, and the networks around it whose entry it may share.
fn wider(address: IpNet) -> [IpNet; 4] {
    let bits = match address.addr() {
        IpAddr::V4(_) => [24, 16, 0],
        IpAddr::V6(_) => [48, 32, 0],
    };
    let [near, far, all] = bits.map(|bits| network(address.addr(), bits.min(address.prefix_len())));
    [address, near, far, all]
}

#[cfg(test)]
mod tests;
