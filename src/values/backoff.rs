//! Exponential backoff with jitter.

use std::time::Duration;

use uuid::Uuid;

/// How long to wait before the next attempt: between half and all of `first`, doubled with each failure up to `longest`. Random, so
/// that many servers do not come back at once.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            failures: 0,
        }
    }

    /// With this longest wait, if it is shorter. Waits stay random.
    #[must_use]
    pub fn at_most(self, longest: Duration) -> Self {
        Self {
            longest: self.longest.min(longest),
            ..self
        }
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// A success: the next wait is the first again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Counts a failure, and returns how long to wait after it.
    pub fn next_wait(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.wait(Uuid::new_v4().as_u128())
    }

    fn wait(&self, random: u128) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(16);
        let half = (self.first * 2_u32.pow(doublings)).min(self.longest) / 2;
        let part = random % half.as_micros().max(1);
        half + Duration::from_micros(u64::try_from(part).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bound_and_differ() {
        let backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(30));
        for (failures, from_ms, to_ms) in [
            (1, 125, 250),
            (2, 250, 500),
            (5, 2000, 4000),
            (8, 15_000, 30_000),
            (u32::MAX, 15_000, 30_000),
        ] {
            let backoff = Backoff {
                failures,
                ..backoff
            };
            let waits = [0, 1, 7_919_777, u128::MAX].map(|random| backoff.wait(random).as_millis());
            for wait in waits {
                assert!((from_ms..=to_ms).contains(&wait), "{failures}: {wait} ms");
            }
            assert_ne!(waits[0], waits[2]);
        }
    }

    #[test]
    fn a_lower_bound_keeps_the_waits_random() {
        let lowered = Backoff::new(Duration::from_millis(250), Duration::from_secs(30));
        let lowered = Backoff {
            failures: 9,
            ..lowered.at_most(Duration::from_millis(500))
        };
        let waits = [0, 7_919_777].map(|random| lowered.wait(random).as_millis());
        assert!(waits.iter().all(|wait| (250..=500).contains(wait)));
        assert_ne!(waits[0], waits[1]);
    }

    #[test]
    fn a_success_begins_again() {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
        for _ in 0..5 {
            backoff.next_wait();
        }
        assert_eq!(backoff.failures(), 5);
        backoff.reset();
        assert!(backoff.next_wait() <= Duration::from_millis(10));
    }
}
