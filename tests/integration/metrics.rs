//! One look at `/metrics`.

use std::collections::BTreeMap;
use std::fmt;

/// Every sample, by its series as it is written: `name{label="value"}`.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
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
    /// Reads the text format as far as this server uses it.
    pub(crate) fn read(text: &str) -> Self {
        let sample = |line: &str| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        };
        let lines = text.lines();
        let samples = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self {
            samples: samples.map(sample).collect(),
        }
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
