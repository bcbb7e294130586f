//! Counts, faults and latencies by name: one type for all scenarios.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::time::Instant;

use crate::pace::{Span, Speed};

/// The count that [`Client::send`](crate::client::Client::send) makes: a request was sent again because it had not been
/// acknowledged.
pub(crate) const RETRIES: &str = "retries";

/// Requests that were given up: refused, or not acknowledged before the patience was over or the run was stopped.
pub(crate) const GIVEN_UP: &str = "given up";
/// Of these, those that the server may have accepted.
pub(crate) const FATE_UNKNOWN: &str = "fate unknown";

/// Texts that are stored of the faults of one name.
const TEXTS_MAX: usize = 10;
/// A week; the histogram counts longer latencies as this long, and only the longest is reported beyond it.
const LATENCY_MAX_US: u64 = 7 * 24 * 3600 * 1_000_000;
/// Latencies of one name that are stored for the page.
const POINTS_MAX: usize = 4000;

/// What was counted in a run, or by one of its clients. Its size does not grow with the run.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Tally {
    pub(crate) by_status: BTreeMap<u16, u64>,
    pub(crate) by_transport_error: BTreeMap<String, u64>,
    #[serde(skip)]
    counts: BTreeMap<&'static str, u64>,
    #[serde(skip)]
    faults: BTreeMap<&'static str, Faults>,
    #[serde(skip)]
    latencies: BTreeMap<&'static str, Latencies>,
}

impl Tally {
    pub(crate) fn count(&mut self, name: &'static str) {
        self.add(name, 1);
    }

    pub(crate) fn add(&mut self, name: &'static str, times: u64) {
        *self.counts.entry(name).or_default() += times;
    }

    pub(crate) fn get(&self, name: &'static str) -> u64 {
        self.counts.get(name).copied().unwrap_or_default()
    }

    /// Counts one more examined of this name, and a fault if it does not hold.
    pub(crate) fn expect(
        &mut self,
        name: &'static str,
        holds: bool,
        what: impl FnOnce() -> String,
    ) {
        self.count(name);
        if !holds {
            self.fault(name, what);
        }
    }

    pub(crate) fn fault(&mut self, name: &'static str, what: impl FnOnce() -> String) {
        self.faults.entry(name).or_default().note(what);
    }

    /// A request was not acknowledged.
    pub(crate) fn given_up(&mut self, may_be_taken: bool, what: impl FnOnce() -> String) {
        self.fault(GIVEN_UP, what);
        self.add(FATE_UNKNOWN, may_be_taken.into());
    }

    pub(crate) fn faults(&self, name: &'static str) -> Faults {
        self.faults.get(name).cloned().unwrap_or_default()
    }

    /// `latency` is measured and ends now.
    pub(crate) fn record(&mut self, name: &'static str, latency: Duration) {
        let latencies = self.latencies.entry(name).or_default();
        latencies.record(Instant::now(), latency);
    }

    /// None when nothing was recorded.
    pub(crate) fn waits(&self, name: &'static str, speed: Speed) -> Option<Waits> {
        self.latencies.get(name)?.waits(speed)
    }

    /// Latencies by name, each with the moment at which it ended; a sample if there were many.
    pub(crate) fn points(&self) -> impl Iterator<Item = (&'static str, &[(Instant, Duration)])> {
        let all = self.latencies.iter();
        all.map(|(name, latencies)| (*name, &latencies.points[..]))
    }

    pub(crate) fn merge(&mut self, other: Self) {
        add_all(&mut self.by_status, other.by_status);
        add_all(&mut self.by_transport_error, other.by_transport_error);
        add_all(&mut self.counts, other.counts);
        for (name, faults) in other.faults {
            self.faults.entry(name).or_default().merge(faults);
        }
        for (name, latencies) in other.latencies {
            self.latencies.entry(name).or_default().merge(latencies);
        }
    }
}

fn add_all<K: Ord>(to: &mut BTreeMap<K, u64>, from: BTreeMap<K, u64>) {
    for (key, times) in from {
        *to.entry(key).or_default() += times;
    }
}

/// How often something was wrong, and what it was the first times.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    pub(crate) times: u64,
    pub(crate) texts: Vec<String>,
}

impl Faults {
    pub(crate) fn note(&mut self, what: impl FnOnce() -> String) {
        self.times += 1;
        if self.texts.len() < TEXTS_MAX {
            self.texts.push(what());
        }
    }

    pub(crate) fn first(&self) -> Option<&str> {
        self.texts.first().map(String::as_str)
    }

    fn merge(&mut self, other: Self) {
        self.times += other.times;
        self.texts.extend(other.texts);
        self.texts.truncate(TEXTS_MAX);
    }
}

/// Latencies as they come in.
#[derive(Debug, Clone)]
pub(crate) struct Latencies {
    /// Microseconds, to three significant figures.
    histogram: Histogram<u64>,
    max: Option<Duration>,
    points: Vec<(Instant, Duration)>,
    /// One in so many becomes a point.
    stride: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3);
        Self {
            histogram: histogram.expect("the bounds are in order and three figures are supported"),
            max: None,
            points: Vec::new(),
            stride: 1,
        }
    }
}

impl Latencies {
    /// `latency` is measured and ended at this moment.
    pub(crate) fn record(&mut self, at: Instant, latency: Duration) {
        if self.histogram.len().is_multiple_of(self.stride) {
            self.points.push((at, latency));
            self.thin_out();
        }
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.histogram.saturating_record(micros);
        self.max = self.max.max(Some(latency));
    }

    fn thin_out(&mut self) {
        while self.points.len() > POINTS_MAX {
            let mut is_even = false;
            self.points.retain(|_| {
                is_even = !is_even;
                is_even
            });
            self.stride *= 2;
        }
    }

    fn merge(&mut self, other: Self) {
        let added = self.histogram.add(other.histogram);
        added.expect("all histograms have the same bounds");
        self.max = self.max.max(other.max);
        self.points.extend(other.points);
        self.stride = self.stride.max(other.stride);
        self.thin_out();
    }

    /// None when nothing was recorded.
    pub(crate) fn waits(&self, speed: Speed) -> Option<Waits> {
        let max = self.max?;
        // A bucket's upper end may lie beyond the longest latency that there was.
        let at = |quantile| Duration::from_micros(self.histogram.value_at_quantile(quantile));
        let span = |measured: Duration| Span::new(measured.min(max), speed);
        Some(Waits {
            p50: span(at(0.50)),
            p90: span(at(0.90)),
            p99: span(at(0.99)),
            max: span(max),
        })
    }
}

/// Percentiles of waiting times, or what is drawn from them.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Waits<T = Span> {
    pub(crate) p50: T,
    pub(crate) p90: T,
    pub(crate) p99: T,
    pub(crate) max: T,
}

impl<T: Copy> Waits<T> {
    /// With their names, in order.
    pub(crate) fn named(&self) -> [(&'static str, T); 4] {
        [
            ("p50", self.p50),
            ("p90", self.p90),
            ("p99", self.p99),
            ("max", self.max),
        ]
    }
}

/// A rate per second of measured and of simulated time.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Rate {
    pub(crate) measured: f64,
    pub(crate) simulated: f64,
}

impl Rate {
    /// So many within `busy`, measured; zero within no time.
    pub(crate) fn of(times: u64, busy: Duration, speed: Speed) -> Self {
        let per_s = if busy.is_zero() {
            0.0
        } else {
            as_f64(times) / busy.as_secs_f64()
        };
        Self {
            measured: per_s,
            simulated: speed.simulated_rate(per_s),
        }
    }

    /// A rate per second at a scale that leaves it readable.
    pub(crate) fn spoken(per_s: f64) -> String {
        if per_s >= 1.0 {
            format!("{per_s:.1}/s")
        } else if per_s * 60.0 >= 1.0 {
            format!("{:.1}/min", per_s * 60.0)
        } else {
            format!("{:.1}/h", per_s * 3600.0)
        }
    }
}

/// A count as a factor.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of requests are far below 2^52"
)]
pub(crate) fn as_f64(number: u64) -> f64 {
    number as f64
}

/// A length as a count.
pub(crate) fn as_u64(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_on_both_scales_also_when_merged() {
        let speed: Speed = "100".parse().unwrap();
        let mut tallies = [Tally::default(), Tally::default()];
        assert!(tallies[0].waits("wait", speed).is_none());
        for (index, tally) in (0..1000).zip([0, 1].iter().cycle()) {
            tallies[*tally].record("wait", Duration::from_millis(index + 1));
        }
        let [mut all, other] = tallies;
        all.merge(other);
        let waits = all.waits("wait", speed).unwrap();
        for ((name, span), expected_ms) in waits.named().into_iter().zip([500, 900, 990, 1000]) {
            let off = span.measured.abs_diff(Duration::from_millis(expected_ms));
            assert!(off <= Duration::from_millis(1), "{name} {span:?}");
            assert_eq!(span.simulated, span.measured * 100);
        }
        assert_eq!(waits.max.measured, Duration::from_secs(1));
    }

    #[test]
    fn counts_add_up_and_texts_have_a_bound() {
        let mut all = Tally::default();
        for number in 0..20_u64 {
            let mut tally = Tally::default();
            tally.expect("even", number % 2 == 0, || format!("{number} is odd"));
            all.merge(tally);
        }
        assert_eq!((all.get("even"), all.get("odd")), (20, 0));
        let faults = all.faults("even");
        assert_eq!((faults.times, faults.texts.len()), (10, 10));
        assert_eq!(faults.first(), Some("1 is odd"));
    }

    #[test]
    fn points_are_a_sample_with_a_bound() {
        let mut latencies = Latencies::default();
        for _ in 0..3 * POINTS_MAX {
            latencies.record(Instant::now(), Duration::from_millis(1));
        }
        assert!((POINTS_MAX / 2..=POINTS_MAX).contains(&latencies.points.len()));
    }

    #[test]
    fn rates_are_readable_and_zero_within_no_time() {
        assert_eq!(Rate::spoken(22.44), "22.4/s");
        assert_eq!(Rate::spoken(0.2244), "13.5/min");
        assert_eq!(Rate::spoken(0.002_244), "8.1/h");
        let speed = "10".parse().unwrap();
        let rate = Rate::of(2, Duration::from_secs(4), speed);
        assert!((rate.measured - 0.5).abs() < 1e-9 && (rate.simulated - 0.05).abs() < 1e-9);
        assert!(Rate::of(2, Duration::ZERO, speed).measured.abs() < f64::EPSILON);
    }
}
