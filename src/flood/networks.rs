//! Open items per network around an address, and their limits.
//!
//! An attacker has all addresses of its networks, but not other people's networks. So open items are counted for every
//! network around an address, at the widths in which addresses are assigned. A network is tracked only while it has open
//! items, so memory is bounded by those.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard};

use foldhash::fast::RandomState;
use ipnet::IpNet;

use super::client::network;

/// Kinds of open items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An order that is neither ready nor cancelled, held or promised.
    Order,
    /// A request held until an order's state changes.
    Watch,
    /// A connection to the customers' listener.
    Connection,
}

const KINDS: usize = 3;

/// A width at which networks are assigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// One address: an IPv6 network of `flood.ipv6_prefix`, or an IPv4 address.
    Address,
    /// An IPv6 /56, which a home connection has (RIPE-690).
    Subscriber,
    /// An IPv6 /48 or an IPv4 /24, which a company has, and the least that is routed by itself.
    Site,
    /// An IPv6 /32 or an IPv4 /16: a provider's, or a part of it.
    Provider,
}

impl Level {
    pub(super) const ALL: [Self; 4] = [Self::Address, Self::Subscriber, Self::Site, Self::Provider];

    /// The name in metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Subscriber => "subscriber",
            Self::Site => "site",
            Self::Provider => "provider",
        }
    }
}

/// The limits of open items.
#[derive(Debug, Clone, Copy)]
pub struct Shares {
    /// An address, or a subscriber.
    pub address_max: u32,
    /// A provider's network; a site's limit is half-way between.
    pub network_max: u32,
    /// In all.
    pub places: usize,
}

/// One in this many places is reserved for addresses with nothing in line.
const RESERVED: u32 = 16;

impl Shares {
    /// The limit of an origin of this level.
    pub(super) fn max(&self, level: Level) -> u32 {
        let network_max = self.network_max.max(self.address_max);
        match level {
            Level::Address | Level::Subscriber => self.address_max,
            Level::Site => self.address_max.midpoint(network_max),
            Level::Provider => network_max,
        }
    }

    /// A limit of `max` while `open` are open in all: whole while half of the places are free, then shrinking to one. The
    /// last places are reserved for addresses that have none.
    fn left(&self, max: u32, open: usize) -> u32 {
        let usual = self.places - self.places / RESERVED as usize;
        let free = usual.saturating_sub(open) as u64;
        if free == 0 {
            return 0;
        }
        let span = (usual - self.places / 2).max(1) as u64;
        u32::try_from(u64::from(max) * free / span).map_or(max, |left| left.clamp(1, max))
    }

    /// Whether limits shrink with so many open. A line of a few places has none to reserve.
    fn are_smaller(&self, open: usize) -> bool {
        self.places >= RESERVED as usize && open >= self.places / 2
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    /// It is at its limit.
    Itself,
    /// A network around it is.
    Network,
    /// Its limit is smaller because the line is nearly full.
    Scarce,
}

/// Counts of open items.
///
/// One lock: an order looks at three or four networks, and all of them together cost less than a lock for each.
#[derive(Debug, Default)]
pub struct Networks(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// By [`Kind`].
    open: HashMap<IpNet, [u32; KINDS], RandomState>,
    totals: [usize; KINDS],
}

impl Networks {
    /// Counts one more for this address and its networks, if all of them may have it.
    pub(super) fn take(&self, address: IpNet, kind: Kind, shares: &Shares) -> Result<(), Denied> {
        self.counts().take(address, kind, shares)
    }

    /// Counts one more, whether or not it may be: it was admitted before, by another server.
    pub(super) fn add(&self, address: IpNet, kind: Kind) {
        let mut counts = self.counts();
        for (_, network) in levels(address) {
            counts.count(network, kind, u32::MAX);
        }
        counts.totals[kind as usize] += 1;
    }

    /// Undoes [`Networks::take`] and [`Networks::add`].
    pub(super) fn give_back(&self, address: IpNet, kind: Kind) {
        let mut counts = self.counts();
        for (_, network) in levels(address) {
            counts.give_back(network, kind);
        }
        counts.totals[kind as usize] -= 1;
    }

    pub fn open(&self, network: IpNet, kind: Kind) -> u32 {
        self.counts().open(network, kind)
    }

    pub fn total(&self, kind: Kind) -> usize {
        self.counts().totals[kind as usize]
    }

    pub fn is_empty(&self) -> bool {
        self.counts().open.is_empty()
    }

    /// The most that one origin has open, by level.
    pub(super) fn largest(&self, kind: Kind) -> [u32; 4] {
        let mut largest = [0; 4];
        for (network, open) in &self.counts().open {
            let level = level(*network) as usize;
            largest[level] = open[kind as usize].max(largest[level]);
        }
        largest
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0
            .lock()
            .expect("a panic while counting leaves wrong counts")
    }
}

impl Counts {
    fn take(&mut self, address: IpNet, kind: Kind, shares: &Shares) -> Result<(), Denied> {
        let open = self.totals[kind as usize];
        let is_scarce = shares.are_smaller(open);
        let is_newcomer = is_scarce && self.is_newcomer(address, kind);
        for (level, network) in levels(address) {
            let max = shares.max(level);
            let left = match level {
                _ if !is_scarce => max,
                Level::Address | Level::Subscriber if is_newcomer => max,
                // Of the last places, too, a network has a few.
                Level::Site | Level::Provider if is_newcomer => {
                    shares.left(max, open).max(max.div_ceil(RESERVED))
                }
                _ => shares.left(max, open),
            };
            if self.count(network, kind, left) {
                continue;
            }
            for (_, narrower) in levels(address).take_while(|&(inner, _)| inner < level) {
                self.give_back(narrower, kind);
            }
            return Err(if left < max && self.open(network, kind) < max {
                Denied::Scarce
            } else if level == Level::Address {
                Denied::Itself
            } else {
                Denied::Network
            });
        }
        self.totals[kind as usize] += 1;
        Ok(())
    }

    fn is_newcomer(&self, address: IpNet, kind: Kind) -> bool {
        let subscriber = levels(address).filter(|&(level, _)| level <= Level::Subscriber);
        let mut open = subscriber.map(|(_, network)| self.open(network, kind));
        open.all(|open| open == 0)
    }

    fn open(&self, network: IpNet, kind: Kind) -> u32 {
        let open = self.open.get(&network);
        open.map_or(0, |open| open[kind as usize])
    }

    fn count(&mut self, network: IpNet, kind: Kind, max: u32) -> bool {
        if max == 0 {
            return false;
        }
        let open = self.open.entry(network).or_default();
        let open = &mut open[kind as usize];
        let fits = *open < max;
        *open += u32::from(fits);
        fits
    }

    fn give_back(&mut self, network: IpNet, kind: Kind) {
        if let Entry::Occupied(mut open) = self.open.entry(network) {
            let one = &mut open.get_mut()[kind as usize];
            *one = one.saturating_sub(1);
            if *open.get() == [0; KINDS] {
                open.remove();
            }
        }
    }
}

/// The address and the networks that contain it, the narrowest first.
pub(super) fn levels(address: IpNet) -> impl Iterator<Item = (Level, IpNet)> {
    let wider: &[(Level, u8)] = match address.addr() {
        IpAddr::V4(_) => &[(Level::Site, 24), (Level::Provider, 16)],
        IpAddr::V6(_) => &[
            (Level::Subscriber, 56),
            (Level::Site, 48),
            (Level::Provider, 32),
        ],
    };
    let wider = wider
        .iter()
        .filter(move |&&(_, bits)| bits < address.prefix_len());
    let wider = wider.map(move |&(level, bits)| (level, network(address.addr(), bits)));
    std::iter::once((Level::Address, address)).chain(wider)
}

/// The level of what is counted.
fn level(network: IpNet) -> Level {
    match (network, network.prefix_len()) {
        (IpNet::V4(_), 24) | (IpNet::V6(_), 48) => Level::Site,
        (IpNet::V4(_), 16) | (IpNet::V6(_), 32) => Level::Provider,
        (IpNet::V6(_), 56) => Level::Subscriber,
        _ => Level::Address,
    }
}
