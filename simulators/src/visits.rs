//! What became of each customer, and the figures drawn from it.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use hyper::StatusCode;
use serde::Serialize;

use crate::{
    connection::TransportError,
    pace::{Span, Speed},
    shop::Receipt,
};

/// A week; the histogram counts longer waits as this long, and only the longest is reported beyond it.
const WAIT_MAX_US: u64 = 7 * 24 * 3600 * 1_000_000;

/// How a customer's visit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The shop answered, with this status.
    Answered(StatusCode),
    /// There was no complete answer.
    Failed(TransportError),
    /// The run was stopped while the customer was waiting.
    Unanswered,
}

impl Outcome {
    /// The one outcome that customers accept.
    pub(crate) fn is_served(self) -> bool {
        self == Self::Answered(StatusCode::OK)
    }
}

/// One customer's visit. Times are measured, not simulated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Visit {
    /// The customer's group, from 1.
    pub(crate) group: u32,
    /// When the customer was due, since the start of the run.
    pub(crate) arrived: Duration,
    /// From being due to the whole answer, the failure, or the end of the run. Counting from the due time and not
    /// from the first byte sent keeps a slow simulator from flattering the shop.
    pub(crate) wait: Duration,
    pub(crate) outcome: Outcome,
    pub(crate) receipt: Receipt,
}

/// The customers' part of the report.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) arrived: usize,
    /// Customers of the plan who had not come yet when the run was stopped.
    pub(crate) not_arrived: usize,
    pub(crate) served: usize,
    pub(crate) by_status: BTreeMap<u16, usize>,
    pub(crate) by_transport_error: BTreeMap<String, usize>,
    pub(crate) unanswered: usize,
    /// Waiting times of the served; none when no customer was served.
    pub(crate) waits: Option<Waits>,
    /// From the first arrival to the last answer.
    pub(crate) busy: Span,
    pub(crate) served_per_s: Rate,
    /// Customers started before someone who had ordered earlier, by the shop's own times; none when it gives none.
    pub(crate) out_of_turn: Option<usize>,
}

/// A rate per second of measured and of simulated time.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Rate {
    pub(crate) measured: f64,
    pub(crate) simulated: f64,
}

impl Rate {
    /// So many within `busy`, measured; zero within no time.
    pub(crate) fn of(times: usize, busy: Duration, speed: Speed) -> Self {
        let per_s = if busy.is_zero() {
            0.0
        } else {
            count(times) / busy.as_secs_f64()
        };
        Self {
            measured: per_s,
            simulated: speed.simulated_rate(per_s),
        }
    }
}

/// Waiting times as they come in; its size does not grow with their number.
#[derive(Debug)]
pub(crate) struct Recorder {
    /// Microseconds, to three significant figures.
    histogram: Histogram<u64>,
    max: Option<Duration>,
}

impl Default for Recorder {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, WAIT_MAX_US, 3)
            .expect("the bounds are in order and three figures are supported");
        Self {
            histogram,
            max: None,
        }
    }
}

impl Recorder {
    /// `wait` is measured.
    pub(crate) fn record(&mut self, wait: Duration) {
        let micros = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        self.histogram.saturating_record(micros);
        self.max = self.max.max(Some(wait));
    }

    /// None when nothing was recorded.
    pub(crate) fn waits(&self, speed: Speed) -> Option<Waits> {
        let max = self.max?;
        // A bucket's upper end may lie beyond the longest wait that there was.
        let at =
            |quantile| Duration::from_micros(self.histogram.value_at_quantile(quantile)).min(max);
        let span = |measured| Span::new(measured, speed);
        Some(Waits {
            p50: span(at(0.50)),
            p90: span(at(0.90)),
            p99: span(at(0.99)),
            max: span(max),
        })
    }
}

/// Percentiles of the waiting times.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Waits {
    pub(crate) p50: Span,
    pub(crate) p90: Span,
    pub(crate) p99: Span,
    pub(crate) max: Span,
}

impl Summary {
    /// `planned` is the number of customers that were to come.
    pub(crate) fn of(visits: &[Visit], planned: usize, speed: Speed) -> Self {
        let served = visits
            .iter()
            .filter(|visit| visit.outcome.is_served())
            .count();
        let first = visits.iter().map(|visit| visit.arrived).min();
        let last = visits.iter().map(|visit| visit.arrived + visit.wait).max();
        let busy = last
            .unwrap_or_default()
            .saturating_sub(first.unwrap_or_default());
        Self {
            arrived: visits.len(),
            not_arrived: planned.saturating_sub(visits.len()),
            served,
            by_status: by_status(visits),
            by_transport_error: by_transport_error(visits),
            unanswered: unanswered(visits),
            waits: Waits::of(visits, speed),
            busy: Span::new(busy, speed),
            served_per_s: Rate::of(served, busy, speed),
            out_of_turn: out_of_turn(visits),
        }
    }

    /// Whether every customer who came got a 200.
    pub(crate) fn all_served(&self) -> bool {
        self.served == self.arrived
    }
}

/// How often each status was the answer.
pub(crate) fn by_status(visits: &[Visit]) -> BTreeMap<u16, usize> {
    let mut times = BTreeMap::new();
    for visit in visits {
        if let Outcome::Answered(status) = visit.outcome {
            *times.entry(status.as_u16()).or_default() += 1;
        }
    }
    times
}

/// How often there was no answer, by the reason.
pub(crate) fn by_transport_error(visits: &[Visit]) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    for visit in visits {
        if let Outcome::Failed(error) = visit.outcome {
            *times.entry(error.to_string()).or_default() += 1;
        }
    }
    times
}

/// How many were still waiting when the run was stopped.
pub(crate) fn unanswered(visits: &[Visit]) -> usize {
    let waiting = |visit: &&Visit| visit.outcome == Outcome::Unanswered;
    visits.iter().filter(waiting).count()
}

impl Waits {
    /// Of the served; none when no customer was served.
    pub(crate) fn of(visits: &[Visit], speed: Speed) -> Option<Self> {
        let served = visits.iter().filter(|visit| visit.outcome.is_served());
        let mut recorder = Recorder::default();
        for visit in served {
            recorder.record(visit.wait);
        }
        recorder.waits(speed)
    }

    /// With their names, in order.
    pub(crate) fn named(&self) -> [(&'static str, Span); 4] {
        [
            ("p50", self.p50),
            ("p90", self.p90),
            ("p99", self.p99),
            ("max", self.max),
        ]
    }
}

/// A count as a factor; far below 2^52 here.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of customers are far below 2^52"
)]
pub(crate) fn count(number: usize) -> f64 {
    number as f64
}

/// Counts those who were started although someone who had ordered strictly earlier was started strictly later.
/// Orders that were brewed more than once are left out: their last start says nothing about the line.
fn out_of_turn(visits: &[Visit]) -> Option<usize> {
    let mut times: Vec<_> = visits
        .iter()
        .filter(|visit| {
            visit.outcome.is_served() && visit.receipt.attempts.is_none_or(|attempts| attempts == 1)
        })
        .filter_map(|visit| visit.receipt.placed_at.zip(visit.receipt.started_at))
        .collect();
    if times.is_empty() {
        return None;
    }
    // Orders placed within the clock's resolution of each other have no order to keep.
    times.sort_unstable();
    let mut latest_start = times[0].1;
    let mut overtakers = 0;
    for together in times.chunk_by(|a, b| a.0 == b.0) {
        overtakers += together
            .iter()
            .filter(|(_, started)| *started < latest_start)
            .count();
        let group_latest = together.iter().map(|(_, started)| *started).max();
        latest_start = latest_start.max(group_latest.unwrap_or(latest_start));
    }
    Some(overtakers)
}

#[cfg(test)]
pub(crate) mod tests {
    use jiff::Timestamp;

    use super::*;

    pub(crate) fn visit(wait_ms: u64, outcome: Outcome) -> Visit {
        Visit {
            group: 1,
            arrived: Duration::ZERO,
            wait: Duration::from_millis(wait_ms),
            outcome,
            receipt: Receipt::default(),
        }
    }

    pub(crate) const SERVED: Outcome = Outcome::Answered(StatusCode::OK);

    pub(crate) fn speed(factor: u32) -> Speed {
        factor.to_string().parse().unwrap()
    }

    fn receipt(placed_s: i64, started_s: i64, attempts: u32) -> Visit {
        Visit {
            receipt: Receipt {
                placed_at: Some(Timestamp::from_second(placed_s).unwrap()),
                started_at: Some(Timestamp::from_second(started_s).unwrap()),
                attempts: Some(attempts),
            },
            ..visit(1, SERVED)
        }
    }

    #[test]
    fn every_outcome_is_counted_once() {
        let visits = [
            visit(10, SERVED),
            visit(10, SERVED),
            visit(10, Outcome::Answered(StatusCode::SERVICE_UNAVAILABLE)),
            visit(10, Outcome::Failed(TransportError::Reset)),
            visit(10, Outcome::Unanswered),
        ];
        let summary = Summary::of(&visits, 7, speed(1));
        assert_eq!(
            (summary.arrived, summary.not_arrived, summary.served),
            (5, 2, 2)
        );
        assert_eq!(summary.by_status, BTreeMap::from([(200, 2), (503, 1)]));
        let errors = BTreeMap::from([("connection reset".to_owned(), 1)]);
        assert_eq!(summary.by_transport_error, errors);
        assert_eq!(summary.unanswered, 1);
        assert!(!summary.all_served());
    }

    #[test]
    fn another_success_than_200_is_not_what_was_ordered() {
        let visits = [visit(1, Outcome::Answered(StatusCode::ACCEPTED))];
        assert!(!Summary::of(&visits, 1, speed(1)).all_served());
    }

    #[test]
    fn percentiles_are_of_the_served_on_both_scales() {
        let mut visits: Vec<_> = (1..=1000).map(|ms| visit(ms, SERVED)).collect();
        visits.push(visit(90_000, Outcome::Failed(TransportError::Closed)));
        let waits = Summary::of(&visits, 1001, speed(100)).waits.unwrap();
        for (span, expected_ms) in [
            (waits.p50, 500),
            (waits.p90, 900),
            (waits.p99, 990),
            (waits.max, 1000),
        ] {
            let off = span.measured.abs_diff(Duration::from_millis(expected_ms));
            assert!(off <= Duration::from_millis(1), "{span:?}");
            assert_eq!(span.simulated, span.measured * 100);
        }
        assert_eq!(waits.max.measured, Duration::from_secs(1));
    }

    #[test]
    fn nobody_served_has_no_percentiles_and_no_rate() {
        let summary = Summary::of(&[visit(5, Outcome::Unanswered)], 1, speed(1));
        assert!(summary.waits.is_none());
        assert!(summary.served_per_s.measured.abs() < f64::EPSILON);
        let unserved = Summary::of(&[], 0, speed(1));
        assert!(unserved.all_served());
    }

    #[test]
    fn throughput_counts_from_first_arrival_to_last_answer() {
        let late = Visit {
            arrived: Duration::from_secs(6),
            ..visit(2_000, SERVED)
        };
        let early = Visit {
            arrived: Duration::from_secs(4),
            ..visit(1_000, SERVED)
        };
        let summary = Summary::of(&[early, late], 2, speed(10));
        assert_eq!(summary.busy.measured, Duration::from_secs(4));
        assert!((summary.served_per_s.measured - 0.5).abs() < 1e-9);
        assert!((summary.served_per_s.simulated - 0.05).abs() < 1e-9);
    }

    #[test]
    fn those_served_out_of_turn_are_found() {
        let kept = [receipt(1, 10, 1), receipt(2, 11, 1), receipt(3, 11, 1)];
        assert_eq!(out_of_turn(&kept), Some(0));
        let overtaken = [receipt(1, 12, 1), receipt(2, 11, 1), receipt(3, 13, 1)];
        assert_eq!(out_of_turn(&overtaken), Some(1));
        let brewed_again = [receipt(1, 12, 2), receipt(2, 11, 1), receipt(3, 13, 1)];
        assert_eq!(out_of_turn(&brewed_again), Some(0));
        let placed_together = [receipt(1, 12, 1), receipt(1, 11, 1)];
        assert_eq!(out_of_turn(&placed_together), Some(0));
        assert_eq!(out_of_turn(&[visit(1, SERVED)]), None);
    }
}
