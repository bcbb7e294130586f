//! The drones' part of the report.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::Serialize;

use super::ledger::Ledger;
use crate::{
    audit::{Check, Checks},
    pace::Speed,
    report::{row, row_unless_zero, status_name},
    visits::{Rate, Waits},
};

/// What became of the missions, and whether the server's account agrees.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    /// Part of the names of this run's deliveries: `drone-RUN-NUMBER`.
    run: String,
    missions: Missions,
    events: Events,
    /// Answers to events, retries and duplicates among them.
    by_status: BTreeMap<u16, u64>,
    by_transport_error: BTreeMap<String, u64>,
    /// From when an event was due to its acknowledgement, retries among it; none when none was acknowledged.
    latencies: Option<Waits>,
    checks: Checks,
}

#[derive(Debug, Serialize)]
struct Missions {
    /// None when there was no end of them.
    planned: Option<u64>,
    begun: u64,
    delivered: u64,
    crashed: u64,
    /// Begun, and their end not acknowledged.
    unfinished: u64,
}

#[derive(Debug, Serialize)]
struct Events {
    acknowledged: u64,
    acknowledged_per_s: Rate,
    given_up: u64,
    /// Of these, those that the server may have taken all the same.
    fate_unknown: u64,
    retries: u64,
    replays: u64,
    duplicates: u64,
}

impl Summary {
    /// `elapsed` is measured, from the first event to the last.
    pub(crate) fn of(
        run: String,
        planned: Option<u64>,
        ledger: &Ledger,
        checks: Vec<Check>,
        elapsed: Duration,
        speed: Speed,
    ) -> Self {
        let tally = &ledger.tally;
        let acknowledged = usize::try_from(tally.acknowledged).unwrap_or(usize::MAX);
        Self {
            run,
            missions: Missions {
                planned,
                begun: tally.begun,
                delivered: tally.delivered,
                crashed: tally.crashed,
                unfinished: tally.begun - tally.ended(),
            },
            events: Events {
                acknowledged: tally.acknowledged,
                acknowledged_per_s: Rate::of(acknowledged, elapsed, speed),
                given_up: tally.given_up.times,
                fate_unknown: tally.fate_unknown,
                retries: tally.tries.retries,
                replays: tally.replays,
                duplicates: tally.repeated,
            },
            by_status: tally.tries.by_status.clone(),
            by_transport_error: tally.tries.by_transport_error.clone(),
            latencies: ledger.latencies.waits(speed),
            checks: checks.into(),
        }
    }

    /// The first of them is whether every event was acknowledged.
    pub(crate) fn checks(&self) -> &Checks {
        &self.checks
    }

    pub(crate) fn verdict(&self) -> String {
        let (events, missions) = (self.events.acknowledged, self.missions.begun);
        self.checks.verdict(format!(
            "Every event was acknowledged and every check holds ({events} events, {missions} missions)."
        ))
    }

    pub(crate) fn waits(&self) -> Option<Waits> {
        self.latencies
    }

    pub(crate) fn acknowledged_per_s(&self) -> Rate {
        self.events.acknowledged_per_s
    }

    pub(crate) fn write_figures(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let (missions, events) = (&self.missions, &self.events);
        writeln!(f, "\nMissions drone-{}-…", self.run)?;
        row(f, "begun", &missions.begun)?;
        row(f, "delivered", &missions.delivered)?;
        row(f, "crashed", &missions.crashed)?;
        row_unless_zero(f, "unfinished", count(missions.unfinished))?;
        if let Some(planned) = missions.planned {
            let not_begun = count(planned.saturating_sub(missions.begun));
            row_unless_zero(f, "not begun", not_begun)?;
        }
        writeln!(f, "\nEvents")?;
        row(f, "acknowledged", &events.acknowledged)?;
        row_unless_zero(f, "given up", count(events.given_up))?;
        row_unless_zero(f, "  which may have been taken", count(events.fate_unknown))?;
        row_unless_zero(f, "sent again for want of an answer", count(events.retries))?;
        row_unless_zero(f, "  which had been taken before", count(events.replays))?;
        row_unless_zero(f, "sent twice on purpose", count(events.duplicates))?;
        for (status, times) in &self.by_status {
            row(f, &status_name(*status), times)?;
        }
        for (error, times) in &self.by_transport_error {
            row(f, error, times)?;
        }
        Ok(())
    }
}
