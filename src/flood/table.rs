//! The tracked addresses: counts, rates, and who is cut off until when. Bounded.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use ipnet::IpNet;
use tokio::time::Instant;

use super::client::network;

/// What an address may do. Times are longer than nothing.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Admissions that are not over.
    pub outstanding_max: u32,
    /// Admissions at once.
    pub burst: NonZeroU32,
    /// Time after which one more is admitted.
    pub refill: Duration,
    /// Refusals that cut an address off, ...
    pub cutoff_after: u32,
    /// ... within so long, ...
    pub cutoff_window: Duration,
    /// ... for so long.
    pub cutoff_for: Duration,
    /// Addresses tracked at most.
    pub addresses_max: usize,
}

/// Why somebody was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Too many admissions are not over.
    Outstanding,
    /// Too many in too short a time.
    Rate,
    /// Refused too often before.
    CutOff,
}

/// A refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Whose counts refused it: the address, or the network it shares an entry with.
    pub address: IpNet,
    /// Why.
    pub reason: Reason,
    /// When it may be worth trying again.
    pub retry_after: Duration,
    /// This refusal was the one too many: the address is cut off from now on.
    pub cut_off_now: bool,
}

/// An address that is cut off.
#[derive(Debug, Clone, Copy)]
pub struct CutOff {
    /// Who.
    pub address: IpNet,
    /// Until when.
    pub until: Instant,
    /// Refusals since it was tracked.
    pub refused: u64,
}

/// When somebody with too many outstanding admissions may try again: about the time a coffee takes.
const OUTSTANDING_RETRY: Duration = Duration::from_secs(30);

/// governor's view of tokio's clock, so that the paused clock of a test pauses the rates too.
#[derive(Debug, Clone, Copy, Default)]
struct TokioClock;

impl Clock for TokioClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        static START: OnceLock<Instant> = OnceLock::new();
        Nanos::from(START.get_or_init(Instant::now).elapsed())
    }
}

type Rate = RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Nanos>>;

#[derive(Debug)]
struct Entry {
    outstanding: u32,
    rate: Rate,
    /// Refusals in the window that began then.
    refusals: u32,
    window_began: Instant,
    refused: u64,
    cut_off_until: Option<Instant>,
    seen: Instant,
}

/// See the module.
#[derive(Debug)]
pub struct Table {
    limits: Limits,
    quota: Quota,
    entries: DashMap<IpNet, Entry>,
    /// Entries of the map; its own length takes a lock per shard.
    len: AtomicUsize,
}

impl Table {
    /// Nobody is tracked.
    ///
    /// # Panics
    /// If `refill` is zero, or a whole burst takes centuries to refill; the configuration's bounds exclude both.
    pub fn new(limits: Limits) -> Self {
        let quota = Quota::with_period(limits.refill)
            .expect("the refill is longer than nothing")
            .allow_burst(limits.burst);
        Self {
            limits,
            quota,
            entries: DashMap::new(),
            len: AtomicUsize::new(0),
        }
    }

    /// The limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Counts one more outstanding admission of this address, and says for which entry; [`Table::release`] takes it back.
    ///
    /// # Errors
    /// [`Refused`]; nothing is outstanding then.
    pub fn admit(&self, address: IpNet) -> Result<IpNet, Refused> {
        let now = Instant::now();
        self.with_entry(address, now, |entry, key| {
            entry.seen = now;
            if let Some(until) = entry.cut_off_until {
                if until > now {
                    entry.refused += 1;
                    return Err(Refused {
                        address: key,
                        reason: Reason::CutOff,
                        retry_after: until - now,
                        cut_off_now: false,
                    });
                }
                entry.cut_off_until = None;
                entry.refusals = 0;
            }
            // Counted first, checked then: what is checked before it is counted can be passed by many at once.
            entry.outstanding += 1;
            let refusal = if entry.outstanding > self.limits.outstanding_max {
                Some((Reason::Outstanding, OUTSTANDING_RETRY))
            } else {
                let checked = entry.rate.check();
                let wait = |not_until: governor::NotUntil<Nanos>| {
                    not_until.wait_time_from(TokioClock.now())
                };
                checked
                    .err()
                    .map(|not_until| (Reason::Rate, wait(not_until)))
            };
            let Some((reason, retry_after)) = refusal else {
                return Ok(key);
            };
            entry.outstanding -= 1;
            let cut_off_now = self.refuse(entry, now);
            Err(Refused {
                address: key,
                reason,
                retry_after: if cut_off_now {
                    self.limits.cutoff_for
                } else {
                    retry_after
                },
                cut_off_now,
            })
        })
    }

    /// Counts a refusal. True if it was the one too many.
    fn refuse(&self, entry: &mut Entry, now: Instant) -> bool {
        entry.refused += 1;
        if now - entry.window_began > self.limits.cutoff_window {
            entry.window_began = now;
            entry.refusals = 0;
        }
        entry.refusals += 1;
        let cut_off = entry.refusals >= self.limits.cutoff_after;
        if cut_off {
            entry.cut_off_until = Some(now + self.limits.cutoff_for);
        }
        cut_off
    }

    /// An admission is over. `key` is what [`Table::admit`] returned.
    pub fn release(&self, key: IpNet) {
        // An entry with something outstanding is never swept.
        if let Some(mut entry) = self.entries.get_mut(&key) {
            entry.outstanding = entry.outstanding.saturating_sub(1);
            entry.seen = Instant::now();
        }
    }

    /// How much longer this entry is cut off.
    pub fn cut_off_for(&self, key: IpNet) -> Option<Duration> {
        let until = self.entries.get(&key)?.cut_off_until?;
        until
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
    }

    /// Who is cut off, most refused first.
    pub fn cut_off(&self) -> Vec<CutOff> {
        let now = Instant::now();
        let mut cut_off: Vec<_> = self
            .entries
            .iter()
            .filter_map(|entry| {
                let until = entry.cut_off_until.filter(|&until| until > now)?;
                Some(CutOff {
                    address: *entry.key(),
                    until,
                    refused: entry.refused,
                })
            })
            .collect();
        cut_off.sort_unstable_by_key(|entry| (std::cmp::Reverse(entry.refused), entry.address));
        cut_off
    }

    /// Lets an address in again, with a clean slate. False if it was not cut off.
    pub fn let_back_in(&self, key: IpNet) -> bool {
        let now = Instant::now();
        self.entries.get_mut(&key).is_some_and(|mut entry| {
            let was_cut_off = entry.cut_off_until.take().is_some_and(|until| until > now);
            if was_cut_off {
                entry.refusals = 0;
                entry.rate = Rate::direct_with_clock(self.quota, TokioClock);
            }
            was_cut_off
        })
    }

    /// Forgets whoever could not be told from a newcomer: nothing outstanding, not cut off, and away for so long that the
    /// rate is full again and no refusal counts any more.
    pub fn sweep(&self) {
        let now = Instant::now();
        let refilled = self.limits.refill * self.limits.burst.get();
        let idle = refilled.max(self.limits.cutoff_window);
        let mut swept = 0;
        self.entries.retain(|_, entry| {
            let cut_off = entry.cut_off_until.is_some_and(|until| until > now);
            let keep = entry.outstanding > 0 || cut_off || now - entry.seen < idle;
            swept += usize::from(!keep);
            keep
        });
        self.len.fetch_sub(swept, Ordering::Relaxed);
        if swept > self.len() {
            self.entries.shrink_to_fit();
        }
    }

    /// How many addresses are tracked.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Nobody is tracked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Runs `step` on the entry of this address, or of the narrowest network around it that has an entry or room for one.
    fn with_entry<R>(
        &self,
        address: IpNet,
        now: Instant,
        step: impl FnOnce(&mut Entry, IpNet) -> R,
    ) -> R {
        let most = self.limits.addresses_max;
        // An eighth of the room for each wider ring, so that a flood of addresses cannot take it all at one width; the two
        // last entries, everybody with IPv4 and everybody with IPv6, always have room.
        let rings = wider(address);
        let rooms = [most - most / 4, most - most / 8, most - 2, usize::MAX];
        for (key, room) in rings.into_iter().zip(rooms) {
            if let Some(mut entry) = self.entries.get_mut(&key) {
                return step(&mut entry, key);
            }
            if self.take_room(room) {
                return match self.entries.entry(key) {
                    Slot::Occupied(mut taken) => {
                        // Somebody else was faster.
                        self.len.fetch_sub(1, Ordering::Relaxed);
                        step(taken.get_mut(), key)
                    }
                    Slot::Vacant(free) => step(&mut free.insert(self.newcomer(now)), key),
                };
            }
        }
        unreachable!("the widest ring always has room")
    }

    /// Counts one more entry if there are fewer than `room`.
    fn take_room(&self, room: usize) -> bool {
        self.len
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |len| {
                (len < room).then_some(len + 1)
            })
            .is_ok()
    }

    fn newcomer(&self, now: Instant) -> Entry {
        Entry {
            outstanding: 0,
            rate: Rate::direct_with_clock(self.quota, TokioClock),
            refusals: 0,
            window_began: now,
            refused: 0,
            cut_off_until: None,
            seen: now,
        }
    }
}

/// The address, and the networks around it in which it may have to share.
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
