//! What is stored of an address, or of the addresses that share an entry.

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
    pub(super) full_at: Instant,
    /// Refusals since `window_began`.
    pub(super) refusals: u32,
    pub(super) window_began: Instant,
    pub(super) refused: u64,
    /// Of the last refusal.
    pub(super) reason: Reason,
    pub(super) blocked_until: Option<Instant>,
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

    pub(super) fn is_blocked(&self, now: Instant) -> bool {
        self.blocked_until.is_some_and(|until| until > now)
    }
}
