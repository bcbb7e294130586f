use std::fmt;
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};

use super::error::UpdateError;
use super::model::Status;

/// Histogram of planning times, in seconds.
pub const PLAN_SECONDS: &str = "odyssey_assignments_plan_seconds";
/// A small day takes a millisecond, a hundred thousand packages some tenths of a second.
pub const BUCKETS_SECONDS: [f64; 9] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];

#[derive(Clone)]
pub struct Metrics {
    given: Counter,
    given_up: Counter,
    conflicts: Counter,
    plan_seconds: Histogram,
    plans_running: Gauge,
    plans_waiting: Gauge,
    plans_cancelled: Counter,
    plans_rejected: Counter,
    updates: [Counter; Status::ALL.len()],
    refused: Counter,
    unavailable: Counter,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

const GIVEN: &str = "odyssey_assignments_given_total";
const GIVEN_UP: &str = "odyssey_assignments_given_up_total";
const CONFLICTS: &str = "odyssey_assignments_conflicts_total";
const UPDATES: &str = "odyssey_assignments_updates_total";
const PLANS: &str = "odyssey_assignments_plans";
const PLANS_CANCELLED: &str = "odyssey_assignments_plans_cancelled_total";
const PLANS_REJECTED: &str = "odyssey_assignments_plans_rejected_total";

/// The gauge of a plan in progress.
#[derive(Debug, Clone, Copy)]
pub(super) enum PlanGauge {
    Running,
    Waiting,
}

/// Counts a plan until it is dropped.
pub(super) struct Counted(Gauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

impl Metrics {
    /// Registers all metrics with the current recorder (see [`crate::telemetry`]).
    pub fn register() -> Self {
        describe_counter!(GIVEN, "Packages assigned to drivers");
        describe_counter!(GIVEN_UP, "Packages that drivers gave up");
        describe_counter!(
            CONFLICTS,
            "Plans that were repeated because the day had changed"
        );
        describe_counter!(UPDATES, "Updates of a status, by result");
        describe_histogram!(PLAN_SECONDS, "Seconds that planning a day takes");
        describe_gauge!(
            PLANS,
            "Plans, explanations and manifests that run on a thread of their own, or wait for their turn"
        );
        describe_counter!(
            PLANS_CANCELLED,
            "Plans that were cancelled because their client disconnected"
        );
        describe_counter!(
            PLANS_REJECTED,
            "Requests that were answered 503 because too many were planning or waiting"
        );
        let updates = |result: &'static str| counter!(UPDATES, "result" => result);
        Self {
            given: counter!(GIVEN),
            given_up: counter!(GIVEN_UP),
            conflicts: counter!(CONFLICTS),
            plan_seconds: histogram!(PLAN_SECONDS),
            plans_running: gauge!(PLANS, "state" => "running"),
            plans_waiting: gauge!(PLANS, "state" => "waiting"),
            plans_cancelled: counter!(PLANS_CANCELLED),
            plans_rejected: counter!(PLANS_REJECTED),
            updates: Status::ALL.map(|status| updates(status.as_str())),
            refused: updates("refused"),
            unavailable: updates("unavailable"),
        }
    }

    pub(super) fn planned(&self, took: Duration) {
        self.plan_seconds.record(took);
    }

    /// Counts a plan until the result is dropped.
    pub(super) fn plan(&self, gauge: PlanGauge) -> Counted {
        let gauge = match gauge {
            PlanGauge::Running => &self.plans_running,
            PlanGauge::Waiting => &self.plans_waiting,
        };
        gauge.increment(1);
        Counted(gauge.clone())
    }

    pub(super) fn cancelled(&self) {
        self.plans_cancelled.increment(1);
    }

    pub(super) fn turned_away(&self) {
        self.plans_rejected.increment(1);
    }

    pub(super) fn conflicted(&self) {
        self.conflicts.increment(1);
    }

    pub(super) fn changed(&self, given: usize, given_up: usize) {
        self.given.increment(given as u64);
        self.given_up.increment(given_up as u64);
    }

    pub(super) fn updated(&self, result: Result<Status, &UpdateError>) {
        match result {
            Ok(status) => &self.updates[status as usize],
            Err(UpdateError::Refused(_)) => &self.refused,
            Err(UpdateError::Unavailable(_)) => &self.unavailable,
        }
        .increment(1);
    }
}
