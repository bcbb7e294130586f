//! The part of a run of couriers in the report.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::Serialize;

use super::ledger::Ledger;
use crate::{
    audit::{Check, Checks},
    courier_desk::Kind,
    pace::Speed,
    report::{row, row_unless_zero, status_name},
    visits::{Rate, Waits},
};

/// What became of the events, and whether the shop's account agrees.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    orders: usize,
    couriers: usize,
    /// Acknowledged events, including redelivered ones.
    acknowledged: u64,
    acknowledged_per_s: Rate,
    /// Requests that they came in; over a topic, messages.
    requests: u64,
    /// Events by outcome, as far as outcomes were answered.
    outcomes: BTreeMap<Kind, u64>,
    given_up: u64,
    /// Of these, those that may have been taken all the same.
    fate_unknown: u64,
    retries: u64,
    /// Answers to all requests, retries among them.
    by_status: BTreeMap<u16, u64>,
    by_transport_error: BTreeMap<String, u64>,
    /// From sending a request to its acknowledgement, retries among it; none when none was acknowledged.
    latencies: Option<Waits>,
    checks: Checks,
}

impl Summary {
    /// `elapsed` is measured, from the first request to the last.
    pub(crate) fn of(ledger: &Ledger, checks: Vec<Check>, elapsed: Duration) -> Self {
        let speed = Speed::REAL_TIME;
        let acknowledged = usize::try_from(ledger.acknowledged).unwrap_or(usize::MAX);
        Self {
            orders: ledger.orders.len(),
            couriers: ledger.couriers.len(),
            acknowledged: ledger.acknowledged,
            acknowledged_per_s: Rate::of(acknowledged, elapsed, speed),
            requests: ledger.requests,
            outcomes: ledger.outcomes.clone(),
            given_up: ledger.given_up.times,
            fate_unknown: ledger.fate_unknown,
            retries: ledger.tries.retries,
            by_status: ledger.tries.by_status.clone(),
            by_transport_error: ledger.tries.by_transport_error.clone(),
            latencies: ledger.latencies.waits(speed),
            checks: checks.into(),
        }
    }

    /// The first of them is whether every event was acknowledged.
    pub(crate) fn checks(&self) -> &Checks {
        &self.checks
    }

    pub(crate) fn verdict(&self) -> String {
        let (orders, couriers) = (self.orders, self.couriers);
        self.checks.verdict(format!(
            "Every event was acknowledged and every check holds ({orders} orders, {couriers} couriers)."
        ))
    }

    pub(crate) fn waits(&self) -> Option<Waits> {
        self.latencies
    }

    pub(crate) fn acknowledged_per_s(&self) -> Rate {
        self.acknowledged_per_s
    }

    pub(crate) fn write_figures(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        writeln!(f, "\nEvents")?;
        row(f, "orders", &self.orders)?;
        row(f, "couriers", &self.couriers)?;
        row(f, "events acknowledged", &self.acknowledged)?;
        for (kind, times) in &self.outcomes {
            let name = match kind {
                Kind::Assigned => "  assigned",
                Kind::Parked => "  parked",
                Kind::Updated => "  updated",
                Kind::Duplicate => "  duplicates",
            };
            row(f, name, times)?;
        }
        writeln!(f, "\nRequests")?;
        row(f, "acknowledged", &self.requests)?;
        row_unless_zero(f, "given up", count(self.given_up))?;
        row_unless_zero(f, "  which may have been taken", count(self.fate_unknown))?;
        row_unless_zero(f, "sent again for want of an answer", count(self.retries))?;
        for (status, times) in &self.by_status {
            row(f, &status_name(*status), times)?;
        }
        for (error, times) in &self.by_transport_error {
            row(f, error, times)?;
        }
        Ok(())
    }
}
