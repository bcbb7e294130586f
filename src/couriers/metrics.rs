use std::fmt;

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

use super::error::Unavailable;
use super::model::Outcome;

pub struct Metrics {
    assigned: Counter,
    parked: Counter,
    updated: Counter,
    duplicates: Counter,
    unavailable: Counter,
    unparked: Counter,
    waiting: Gauge,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

const EVENTS: &str = "odyssey_couriers_events_total";
const UNPARKED: &str = "odyssey_couriers_unparked_total";
const PARKED: &str = "odyssey_couriers_parked";

impl Metrics {
    /// Registers all metrics with the current recorder (see [`crate::telemetry`]).
    pub fn register() -> Self {
        describe_counter!(EVENTS, "Events of couriers and orders, by outcome");
        describe_counter!(UNPARKED, "Parked orders that were assigned");
        describe_gauge!(PARKED, "Parked orders");
        let events = |outcome: &'static str| counter!(EVENTS, "outcome" => outcome);
        Self {
            assigned: events("assigned"),
            parked: events("parked"),
            updated: events("updated"),
            duplicates: events("duplicate"),
            unavailable: events("unavailable"),
            unparked: counter!(UNPARKED),
            waiting: gauge!(PARKED),
        }
    }

    pub(super) fn parked(&self, count: u64) {
        self.waiting.set(as_gauge(count));
    }

    pub(super) fn submitted(&self, outcomes: Result<&[Outcome], &Unavailable>) {
        let Ok(outcomes) = outcomes else {
            self.unavailable.increment(1);
            return;
        };
        for outcome in outcomes {
            match outcome {
                Outcome::Assigned(_) => &self.assigned,
                Outcome::Parked => {
                    self.waiting.increment(1);
                    &self.parked
                }
                Outcome::Updated { unparked } => {
                    self.unparked.increment(*unparked);
                    self.waiting.decrement(as_gauge(*unparked));
                    &self.updated
                }
                Outcome::Duplicate(_) => &self.duplicates,
            }
            .increment(1);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "no count here comes near 2^52")]
fn as_gauge(count: u64) -> f64 {
    count as f64
}
