//! The crew's measured throughput, for the estimated wait.

use std::time::{Duration, Instant};

/// Time constant of the exponential decay. Minutes, because the crew changes over minutes.
const MEMORY: Duration = Duration::from_mins(5);
/// Weight of one brew in the moving average.
const BREW_WEIGHT: f64 = 1.0 / 16.0;

/// Finishes per second of time with a line, decaying, and the mean brew.
///
/// Only time with orders in line counts: then the crew is fully used, and its output is its capacity.
#[derive(Debug)]
pub(super) struct ThroughputEstimate {
    busy_secs: f64,
    finishes: f64,
    /// Time with orders in line since the last finish.
    quiet_secs: f64,
    brew_secs: Option<f64>,
    seen: Option<Instant>,
}

impl ThroughputEstimate {
    pub(super) fn new() -> Self {
        Self {
            busy_secs: 0.0,
            finishes: 0.0,
            quiet_secs: 0.0,
            brew_secs: None,
            seen: None,
        }
    }

    /// `waited`: an order was in line ever since the last call.
    pub(super) fn advance(&mut self, now: Instant, waited: bool) {
        let seen = self.seen.replace(now).filter(|_| waited);
        let passed = seen.map_or(Duration::ZERO, |seen| now.saturating_duration_since(seen));
        if !passed.is_zero() {
            let secs = passed.as_secs_f64();
            let decay = (-secs / MEMORY.as_secs_f64()).exp();
            self.busy_secs = self.busy_secs * decay + secs;
            self.finishes *= decay;
            self.quiet_secs += secs;
        }
    }

    /// An order was finished after `brew`; `waiting`: others were in line.
    pub(super) fn finished(&mut self, brew: Duration, waiting: bool) {
        if waiting {
            self.finishes += 1.0;
        }
        self.quiet_secs = 0.0;
        let secs = brew.as_secs_f64();
        self.brew_secs = Some(match self.brew_secs {
            None => secs,
            Some(mean) => mean + (secs - mean) * BREW_WEIGHT,
        });
    }

    /// Time until an order with `before` others ahead of it in line is ready, with `brewing` under way. None before the
    /// first finish.
    ///
    /// A turn takes no less than the time since the last finish divided by the crew, so the estimate grows while nothing is
    /// finished, and is back at the measured pace with the next finish.
    pub(super) fn estimate(&self, before: usize, brewing: usize) -> Option<Duration> {
        let brew = self.brew_secs?;
        #[expect(
            clippy::cast_precision_loss,
            reason = "a crew is far smaller than 2^52"
        )]
        let crew = brewing.max(1) as f64;
        let measured = if self.finishes > 0.0 {
            self.busy_secs / self.finishes
        } else {
            brew / crew
        };
        let per_order = measured.max(self.quiet_secs / crew);
        #[expect(
            clippy::cast_precision_loss,
            reason = "a line is far shorter than 2^52"
        )]
        let turn = (before + 1) as f64 * per_order;
        Duration::try_from_secs_f64(turn + brew).ok()
    }

    /// Remaining time of a brew after `so_far`: up to the mean brew; an overdue one, as long again as it is overdue.
    pub(super) fn estimate_brewing(&self, so_far: Duration) -> Option<Duration> {
        let brew = Duration::try_from_secs_f64(self.brew_secs?).ok()?;
        Some(brew.abs_diff(so_far))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_crew_that_finishes_one_every_5_seconds_is_measured_so() {
        let start = Instant::now();
        let mut throughput = ThroughputEstimate::new();
        assert_eq!(
            throughput.estimate(0, 1),
            None,
            "no estimate before the first finish"
        );
        throughput.advance(start, true);
        for n in 1..=100 {
            throughput.advance(start + Duration::from_secs(5 * n), true);
            throughput.finished(Duration::from_secs(45), true);
        }
        let estimate = throughput.estimate(9, 10).unwrap().as_secs_f64();
        assert!(
            (94.0..96.0).contains(&estimate),
            "10 turns of 5 s and a brew of 45 s, got {estimate}"
        );
        assert_eq!(
            throughput.estimate_brewing(Duration::from_secs(40)),
            Some(Duration::from_secs(5))
        );
        assert_eq!(
            throughput.estimate_brewing(Duration::from_secs(45 + 20)),
            Some(Duration::from_secs(20)),
            "overdue"
        );
    }

    proptest! {
        #[test]
        fn an_estimate_is_never_less_than_the_quiet_time_divided_by_the_crew(
            steps in prop::collection::vec((1_u64..120, any::<bool>(), any::<bool>()), 1..40),
            before in 0_usize..50,
            crew in 0_usize..12,
        ) {
            let mut now = Instant::now();
            let mut throughput = ThroughputEstimate::new();
            throughput.advance(now, false);
            throughput.finished(Duration::from_secs(30), false);
            let mut quiet = 0;
            for (secs, waited, finished) in steps {
                let earlier = throughput.estimate(before, crew).unwrap();
                now += Duration::from_secs(secs);
                throughput.advance(now, waited);
                quiet += if waited { secs } else { 0 };
                let estimate = throughput.estimate(before, crew).unwrap();
                let floor = Duration::from_secs(quiet) / u32::try_from(crew.max(1)).unwrap();
                prop_assert!(estimate + Duration::from_micros(1) >= floor, "{estimate:?} < {floor:?}");
                prop_assert!(estimate + Duration::from_micros(1) >= earlier, "it grows while nothing happens");
                prop_assert!(estimate <= throughput.estimate(before + 1, crew).unwrap(), "a later place waits longer");
                prop_assert!(estimate >= throughput.estimate(before, crew + 1).unwrap(), "a larger crew is no slower");
                if finished {
                    throughput.finished(Duration::from_secs(30), waited);
                    quiet = 0;
                }
            }
        }
    }

    #[test]
    fn before_a_line_was_ever_drained_the_crew_at_work_is_the_measure() {
        let mut throughput = ThroughputEstimate::new();
        throughput.finished(Duration::from_secs(40), false);
        assert_eq!(
            throughput.estimate(9, 10),
            Some(Duration::from_secs(10 * 4 + 40))
        );
    }

    #[test]
    fn an_idle_night_does_not_slow_the_measured_pace() {
        let start = Instant::now();
        let mut throughput = ThroughputEstimate::new();
        throughput.advance(start, true);
        for n in 1..=20 {
            throughput.advance(start + Duration::from_secs(5 * n), true);
            throughput.finished(Duration::from_secs(30), true);
        }
        let evening = throughput.estimate(0, 1);
        throughput.advance(start + Duration::from_secs(40_000), false);
        assert_eq!(throughput.estimate(0, 1), evening);
    }

    #[test]
    fn a_crew_that_slows_down_is_noticed_within_minutes() {
        let start = Instant::now();
        let mut throughput = ThroughputEstimate::new();
        throughput.advance(start, true);
        for n in 1..=200_u64 {
            throughput.advance(start + Duration::from_secs(n), true);
            throughput.finished(Duration::from_secs(10), true);
        }
        for n in 1..=90_u64 {
            throughput.advance(start + Duration::from_secs(200 + 10 * n), true);
            throughput.finished(Duration::from_secs(10), true);
        }
        let turn = throughput.estimate(0, 1).unwrap().as_secs_f64() - 10.0;
        assert!((6.0..10.5).contains(&turn), "got {turn}");
    }
}
