//! Histograms with fixed buckets: an observation is two additions.
//!
//! The exporter's own store each observation with its time until they are aggregated: that costs more than all other
//! metrics of a request, and memory in between.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use metrics_exporter_prometheus::PrometheusRecorder;

/// Records histograms itself; counters and gauges go to the exporter.
pub(super) struct Histograms {
    others: PrometheusRecorder,
    /// Upper bounds by name, rising.
    bounds: HashMap<&'static str, &'static [f64]>,
    kept: Mutex<BTreeMap<String, Family>>,
}

/// The histograms of one name.
#[derive(Default)]
struct Family {
    help: SharedString,
    /// By their formatted labels.
    series: BTreeMap<String, Arc<Buckets>>,
}

/// One histogram.
struct Buckets {
    bounds: &'static [f64],
    /// Observations per bucket, those above all bounds last.
    counts: Box<[AtomicU64]>,
    /// The sum of all observations: an `f64`'s bits.
    sum: AtomicU64,
}

impl Histograms {
    /// A name without bounds has one bucket.
    pub(super) fn new(
        others: PrometheusRecorder,
        bounds: &[(&'static str, &'static [f64])],
    ) -> Self {
        Self {
            others,
            bounds: bounds.iter().copied().collect(),
            kept: Mutex::default(),
        }
    }

    /// Appends all of them in Prometheus' text format.
    pub(super) fn render(&self, text: &mut String) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, family) in kept.iter().filter(|(_, family)| !family.series.is_empty()) {
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "# HELP {name} {}\n# TYPE {name} histogram",
                family.help
            );
            for (labels, buckets) in &family.series {
                let _ = buckets.render(text, name, labels);
            }
            text.push('\n');
        }
    }

    fn family<R>(&self, name: &str, change: impl FnOnce(&mut Family) -> R) -> R {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        change(kept.entry(name.to_owned()).or_default())
    }
}

impl Recorder for Histograms {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.others.describe_counter(name, unit, help);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.others.describe_gauge(name, unit, help);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.family(name.as_str(), |family| family.help = help);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.others.register_counter(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.others.register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let bounds = self.bounds.get(key.name()).copied().unwrap_or_default();
        self.family(key.name(), |family| {
            let series = family.series.entry(labels(key));
            let buckets = series.or_insert_with(|| Arc::new(Buckets::new(bounds)));
            Histogram::from_arc(Arc::clone(buckets))
        })
    }
}

fn labels(key: &Key) -> String {
    let label = |label: &metrics::Label| {
        let value = label.value().replace('\\', r"\\").replace('"', "\\\"");
        format!("{}=\"{}\"", label.key(), value.replace('\n', r"\n"))
    };
    key.labels().map(label).collect::<Vec<_>>().join(",")
}

impl Buckets {
    fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0.0_f64.to_bits()),
        }
    }

    fn render(&self, text: &mut String, name: &str, labels: &str) -> fmt::Result {
        let comma = if labels.is_empty() { "" } else { "," };
        let bounds = self.bounds.iter().map(f64::to_string);
        let mut count = 0;
        for (bound, bucket) in bounds.chain(["+Inf".to_owned()]).zip(&self.counts) {
            count += bucket.load(Ordering::Relaxed);
            writeln!(
                text,
                "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}"
            )?;
        }
        let braced = if labels.is_empty() {
            String::new()
        } else {
            format!("{{{labels}}}")
        };
        let sum = f64::from_bits(self.sum.load(Ordering::Relaxed));
        writeln!(
            text,
            "{name}_sum{braced} {sum}\n{name}_count{braced} {count}"
        )
    }
}

impl HistogramFn for Buckets {
    fn record(&self, value: f64) {
        let bucket = self.bounds.partition_point(|&bound| bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let add = |sum| Some((f64::from_bits(sum) + value).to_bits());
        // Retries until it succeeds.
        let _ = self
            .sum
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

#[cfg(test)]
mod tests {
    use metrics::{describe_histogram, histogram};

    use crate::telemetry::Registry;

    #[test]
    fn observations_are_counted_by_bucket_and_summed_up() {
        let registry = Registry::new(&[("wait", &[0.5, 2.0])]);
        let (plain, labelled) = registry.register(|| {
            describe_histogram!("wait", "How long");
            let labelled = histogram!("wait", "route" => "/a\"b\\c\n");
            (histogram!("wait"), labelled)
        });
        for seconds in [0.25, 0.5, 0.75, 2.0, 3.0] {
            plain.record(seconds);
        }
        labelled.record(1.0);
        let text = registry.render();
        for line in [
            "# HELP wait How long",
            "# TYPE wait histogram",
            "wait_bucket{le=\"0.5\"} 2",
            "wait_bucket{le=\"2\"} 4",
            "wait_bucket{le=\"+Inf\"} 5",
            "wait_sum 6.5",
            "wait_count 5",
            r#"wait_bucket{route="/a\"b\\c\n",le="0.5"} 0"#,
            r#"wait_bucket{route="/a\"b\\c\n",le="2"} 1"#,
            r#"wait_sum{route="/a\"b\\c\n"} 1"#,
            r#"wait_count{route="/a\"b\\c\n"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn the_same_histogram_registered_twice_counts_on() {
        let registry = Registry::new(&[("wait", &[1.0])]);
        for _ in 0..2 {
            registry.register(|| histogram!("wait")).record(0.5);
        }
        assert!(registry.render().contains("wait_count 2\n"));
    }
}
