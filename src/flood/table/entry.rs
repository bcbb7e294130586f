//! What is stored of an address, or of the addresses that share an entry; and what a refusal does to it: when it is blocked,
//! for how long, and since when its orders are purged.

use std::num::NonZeroU32;
use std::sync::OnceLock;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

use super::Reason;
use crate::flood::config::Config;

/// tokio's clock for governor, so that a test's paused clock pauses the rates.
#[derive(Debug, Clone, Copy, Default)]
struct TokioClock;

impl Clock for TokioClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        static START: OnceLock<Instant> = OnceLock::new();
        Nanos::from(START.get_or_init(Instant::now).elapsed())
    }
}

type Rate = RateLimiter<NotKeyed, InMemoryState, TokioClock, StateInformationMiddleware>;

#[derive(Debug)]
pub(super) struct Entry {
    rate: Rate,
    /// When the rate is full again.
    full_at: Instant,
    /// Refusals since `window_began`.
    refusals: u32,
    window_began: Instant,
    refused: u64,
    /// Of the last refusal.
    reason: Reason,
    blocked_until: Option<Instant>,
    /// Writes under way, which may turn out to be malformed.
    pub(super) pending: u32,
    /// It has sent a well-formed request: malformed ones leave no entry behind.
    pub(super) known: bool,
}

impl Entry {
    pub(super) fn new(quota: Quota, now: Instant) -> Self {
        Self {
            rate: RateLimiter::direct_with_clock(quota, TokioClock).with_middleware(),
            full_at: now,
            refusals: 0,
            window_began: now,
            refused: 0,
            reason: Reason::Rate,
            blocked_until: None,
            pending: 0,
            known: false,
        }
    }

    /// Takes `cost` of its rate. Returns what is left, or the time until there is enough.
    pub(super) fn take(
        &mut self,
        quota: Quota,
        cost: NonZeroU32,
        now: Instant,
    ) -> Result<u32, Duration> {
        match self.rate.check_n(cost) {
            Ok(Ok(state)) => {
                let left = state.remaining_burst_capacity();
                let missing = quota.burst_size().get().saturating_sub(left);
                self.full_at = now + quota.replenish_interval() * missing;
                Ok(left)
            }
            Ok(Err(not_until)) => Err(not_until.wait_time_from(TokioClock.now())),
            Err(_) => unreachable!("a burst has room for one order at least"),
        }
    }

    /// Only malformed requests have come from here.
    pub(super) fn is_forgettable(&self) -> bool {
        !self.known && self.pending == 0 && self.refusals == 0 && self.blocked_until.is_none()
    }

    /// Not blocked, the rate is full, and no refusal counts.
    pub(super) fn is_as_new(&self, now: Instant, config: &Config) -> bool {
        let no_refusal_counts =
            self.refusals == 0 || now - self.window_began > config.cutoff_window;
        !self.is_blocked(now) && self.full_at <= now && no_refusal_counts
    }
}

/// What a refusal does.
impl Entry {
    /// Counts a refusal; with as many as [`Config::cutoff_after`] within [`Config::cutoff_window`] the address is blocked, for
    /// [`Config::cutoff_for`]. If this refusal blocks it: since when its refusals count. Orders that it placed since then are
    /// purged.
    pub(super) fn refuse(
        &mut self,
        reason: Reason,
        is_shared: bool,
        now: Instant,
        config: &Config,
    ) -> Option<Instant> {
        self.refused += 1;
        // A shared entry does not show which of its addresses floods.
        if is_shared || !is_its_own(reason) {
            return None;
        }
        if now - self.window_began > config.cutoff_window || self.refusals == 0 {
            self.window_began = now;
            self.refusals = 0;
        }
        self.refusals += 1;
        self.reason = reason;
        let blocked = self.refusals >= config.cutoff_after;
        blocked.then(|| {
            self.blocked_until = Some(now + config.cutoff_for);
            self.window_began
        })
    }

    /// Blocks it from now on.
    pub(super) fn block(&mut self, now: Instant, time: Duration) {
        if !self.is_blocked(now) {
            self.window_began = now;
        }
        self.blocked_until = Some(now + time);
    }

    /// If it is blocked, counts a refusal, and returns for how much longer it is blocked.
    pub(super) fn refuse_if_blocked(&mut self, now: Instant) -> Option<Duration> {
        let (_, left) = self.blocked_since(now)?;
        self.refused += 1;
        Some(left)
    }

    /// After a block that is over, refusals are counted from zero.
    pub(super) fn forget_past_block(&mut self) {
        if self.blocked_until.take().is_some() {
            self.refusals = 0;
        }
    }

    /// If it is blocked: since when its refusals count, and for how much longer it is blocked.
    pub(super) fn blocked_since(&self, now: Instant) -> Option<(Instant, Duration)> {
        let left = self.blocked_until?.checked_duration_since(now)?;
        (!left.is_zero()).then_some((self.window_began, left))
    }

    pub(super) fn is_blocked(&self, now: Instant) -> bool {
        self.blocked_since(now).is_some()
    }

    /// Of the last refusal that counted.
    pub(super) fn reason(&self) -> Reason {
        self.reason
    }

    /// Refusals since it is tracked.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }
}

/// Whether a refusal counts towards a block: not for what its neighbours do.
fn is_its_own(reason: Reason) -> bool {
    match reason {
        Reason::Outstanding | Reason::Rate | Reason::Blocked => true,
        Reason::Network | Reason::Scarce => false,
    }
}
