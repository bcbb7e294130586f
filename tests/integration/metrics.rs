//! One look at `/metrics`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Prometheus' text format, as far as this server uses it.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    /// Kind by metric.
    pub(crate) kinds: BTreeMap<String, String>,
    /// Every sample, by its series as it is written: `name{label="value"}`.
    samples: BTreeMap<String, f64>,
}

impl fmt::Display for Metrics {
    /// What is not zero, without the histograms.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (series, value) in &self.samples {
            if *value != 0.0 && !series.contains("_bucket") {
                writeln!(f, "{series} {value}")?;
            }
        }
        Ok(())
    }
}

impl Metrics {
    pub(crate) fn read(text: &str) -> Self {
        let mut read = Self {
            kinds: BTreeMap::new(),
            samples: BTreeMap::new(),
        };
        for line in text.lines().filter(|line| !line.is_empty()) {
            let is_new = if let Some(typed) = line.strip_prefix("# TYPE ") {
                let (name, kind) = typed.split_once(' ').unwrap();
                read.kinds
                    .insert(name.to_owned(), kind.to_owned())
                    .is_none()
            } else if let Some(help) = line.strip_prefix("# HELP ") {
                help.split_once(' ')
                    .is_some_and(|(_, help)| !help.is_empty())
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
                let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
                read.samples.insert(series.to_owned(), value).is_none()
            };
            assert!(is_new, "twice, or without a text: {line}");
        }
        read
    }

    /// Names, labels and values.
    pub(crate) fn samples(&self) -> impl Iterator<Item = (&str, BTreeMap<&str, &str>, f64)> {
        self.samples.iter().map(|(series, value)| {
            let (name, labels) = series.split_once('{').unwrap_or((series.as_str(), "}"));
            let labels = labels
                .strip_suffix('}')
                .unwrap_or_else(|| panic!("{series}"));
            // No label value of this server has a comma or a quote.
            let labels = labels.split(',').filter(|label| !label.is_empty());
            let labels = labels.map(|label| {
                let (label, value) = label
                    .split_once("=\"")
                    .unwrap_or_else(|| panic!("{series}"));
                assert!(is_name(label), "{series}");
                (
                    label,
                    value
                        .strip_suffix('"')
                        .unwrap_or_else(|| panic!("{series}")),
                )
            });
            assert!(is_name(name), "{series}");
            (name, labels.collect(), *value)
        })
    }

    /// Labels and values of a metric.
    pub(crate) fn of(&self, name: &str) -> Vec<(BTreeMap<&str, &str>, f64)> {
        let samples = self.samples().filter(|(sample, ..)| *sample == name);
        samples.map(|(_, labels, value)| (labels, value)).collect()
    }

    /// The values of a label that occur.
    pub(crate) fn values(&self, name: &str, label: &str) -> BTreeSet<&str> {
        let samples = self.of(name).into_iter();
        samples
            .filter_map(|(labels, _)| labels.get(label).copied())
            .collect()
    }

    /// A count; zero if the series is not there (yet).
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts are small whole numbers"
    )]
    pub(crate) fn count(&self, series: &str) -> usize {
        self.samples.get(series).copied().unwrap_or(0.0) as usize
    }

    pub(crate) fn waiting(&self) -> usize {
        self.count("odyssey_orders{stage=\"waiting\"}")
    }

    pub(crate) fn brewing(&self) -> usize {
        self.count("odyssey_orders{stage=\"brewing\"}")
    }

    /// Requests held for an order.
    pub(crate) fn held(&self) -> usize {
        self.count("odyssey_orders_held_requests")
    }

    pub(crate) fn idle_baristas(&self) -> usize {
        self.count("odyssey_orders_idle_baristas")
    }

    pub(crate) fn placed(&self) -> usize {
        self.count("odyssey_orders_placed_total")
    }

    pub(crate) fn attached(&self) -> usize {
        self.count("odyssey_orders_attached_total")
    }

    pub(crate) fn finished(&self, delivered: bool) -> usize {
        self.count(&format!(
            "odyssey_orders_finished_total{{delivered=\"{delivered}\"}}"
        ))
    }

    pub(crate) fn cancelled(&self, reason: &str) -> usize {
        self.count(&format!(
            "odyssey_orders_cancelled_total{{reason=\"{reason}\"}}"
        ))
    }

    /// Whether every order that was placed has been finished or cancelled, or is pending.
    pub(crate) fn orders_add_up(&self) -> bool {
        let cancelled = self.samples.iter().filter_map(|(series, count)| {
            series
                .starts_with("odyssey_orders_cancelled_total{")
                .then_some(*count)
        });
        let ended = self.finished(true) + self.finished(false);
        #[expect(clippy::cast_precision_loss, reason = "counts are small whole numbers")]
        let pending = (ended + self.waiting() + self.brewing()) as f64;
        let placed = self.samples["odyssey_orders_placed_total"];
        (placed - cancelled.sum::<f64>() - pending).abs() < 0.5
    }

    pub(crate) fn requeued(&self, reason: &str) -> usize {
        self.count(&format!(
            "odyssey_orders_requeued_total{{reason=\"{reason}\"}}"
        ))
    }

    pub(crate) fn answers(&self, listener: &str, status: u16) -> usize {
        self.count(&format!(
            "odyssey_http_answers_total{{listener=\"{listener}\",status=\"{status}\"}}"
        ))
    }

    pub(crate) fn connections(&self, listener: &str) -> usize {
        self.count(&format!("odyssey_connections{{listener=\"{listener}\"}}"))
    }

    /// Requests, baristas and connections, except the connection that asks.
    pub(crate) fn left_in_the_shop(&self) -> usize {
        let visitors = self.held() + self.idle_baristas();
        visitors + self.connections("customers") + self.connections("staff") - 1
    }
}

fn is_name(text: &str) -> bool {
    let letters = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    letters && text.starts_with(|first: char| !first.is_ascii_digit())
}
