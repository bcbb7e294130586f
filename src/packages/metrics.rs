use std::fmt;

use metrics::{Counter, counter, describe_counter};

use super::error::Unavailable;
use super::model::{Outcome, Sent};

pub struct Metrics {
    delivered: Counter,
    dropped: Counter,
    duplicates: Counter,
    mismatches: Counter,
    unavailable: Counter,
    rejected: Counter,
    applied: Counter,
    outdated: Counter,
    reset: Counter,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

const SENT: &str = "odyssey_packages_sent_total";
const PREFERENCES: &str = "odyssey_packages_preferences_total";

impl Metrics {
    /// Registers all metrics with the current recorder (see [`crate::telemetry`]).
    pub fn register() -> Self {
        describe_counter!(SENT, "Requests to send a package, by result");
        describe_counter!(
            "odyssey_packages_rejected_total",
            "Malformed requests to send a package or to update preferences"
        );
        describe_counter!(PREFERENCES, "Updates and resets of preferences, by result");
        let sent = |result: &'static str| counter!(SENT, "result" => result);
        let updates = |result: &'static str| counter!(PREFERENCES, "result" => result);
        Self {
            delivered: sent("delivered"),
            dropped: sent("dropped"),
            duplicates: sent("duplicate"),
            mismatches: sent("mismatch"),
            unavailable: sent("unavailable"),
            rejected: counter!("odyssey_packages_rejected_total"),
            applied: updates("applied"),
            outdated: updates("outdated"),
            reset: updates("reset"),
        }
    }

    pub(super) fn sent(&self, sent: &Result<Sent, Unavailable>) {
        let counter = match sent {
            Ok(sent) if sent.mismatch => &self.mismatches,
            Ok(sent) if sent.duplicate => &self.duplicates,
            Ok(sent) => match sent.processed.outcome {
                Outcome::Delivered => &self.delivered,
                Outcome::Dropped => &self.dropped,
            },
            Err(_) => &self.unavailable,
        };
        counter.increment(1);
    }

    pub(super) fn updated(&self, applied: bool) {
        if applied {
            &self.applied
        } else {
            &self.outdated
        }
        .increment(1);
    }

    pub(super) fn reset(&self) {
        self.reset.increment(1);
    }

    pub(super) fn rejected(&self) {
        self.rejected.increment(1);
    }
}
