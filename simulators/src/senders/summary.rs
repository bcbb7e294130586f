//! The senders' part of the report.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::Serialize;

use super::ledger::Ledger;
use crate::{
    audit::{Check, Checks},
    pace::Speed,
    report::{row, row_unless_zero, status_name},
    visits::{Rate, Waits},
};

/// What became of the packages, and whether the server's account agrees.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    /// Part of the ids of this run: `package-RUN-NUMBER`, `recipient-RUN-NUMBER`.
    run: String,
    packages: Packages,
    preferences: Preferences,
    malformed: u64,
    given_up: u64,
    /// Of these, those that the server may have taken all the same.
    fate_unknown: u64,
    retries: u64,
    /// Answers to all requests, retries and duplicates among them.
    by_status: BTreeMap<u16, u64>,
    by_transport_error: BTreeMap<String, u64>,
    /// From sending a package to its acknowledgement, retries among it; none when none was acknowledged.
    latencies: Option<Waits>,
    checks: Checks,
}

#[derive(Debug, Serialize)]
struct Packages {
    acknowledged: u64,
    acknowledged_per_s: Rate,
    delivered: u64,
    dropped: u64,
    replays: u64,
    duplicates: u64,
    mismatches: u64,
}

#[derive(Debug, Serialize)]
struct Preferences {
    acknowledged: u64,
    /// Those that came after a newer one.
    outdated: u64,
}

impl Summary {
    /// `elapsed` is measured, from the first request to the last.
    pub(crate) fn of(
        run: String,
        ledger: &Ledger,
        checks: Vec<Check>,
        elapsed: Duration,
        speed: Speed,
    ) -> Self {
        let tally = &ledger.tally;
        let acknowledged = usize::try_from(tally.packages).unwrap_or(usize::MAX);
        Self {
            run,
            packages: Packages {
                acknowledged: tally.packages,
                acknowledged_per_s: Rate::of(acknowledged, elapsed, speed),
                delivered: tally.delivered().known(),
                dropped: tally.dropped().known(),
                replays: tally.replays,
                duplicates: tally.repeated,
                mismatches: tally.mismatched,
            },
            preferences: Preferences {
                acknowledged: tally.updates,
                outdated: tally.outdated,
            },
            malformed: tally.malformed,
            given_up: tally.given_up.times,
            fate_unknown: tally.fate_unknown,
            retries: tally.tries.retries,
            by_status: tally.tries.by_status.clone(),
            by_transport_error: tally.tries.by_transport_error.clone(),
            latencies: ledger.latencies.waits(speed),
            checks: checks.into(),
        }
    }

    /// The first of them is whether every request was acknowledged.
    pub(crate) fn checks(&self) -> &Checks {
        &self.checks
    }

    pub(crate) fn verdict(&self) -> String {
        let (packages, preferences) = (self.packages.acknowledged, self.preferences.acknowledged);
        self.checks.verdict(format!(
            "Every request was acknowledged and every check holds ({packages} packages, {preferences} preferences)."
        ))
    }

    pub(crate) fn waits(&self) -> Option<Waits> {
        self.latencies
    }

    pub(crate) fn acknowledged_per_s(&self) -> Rate {
        self.packages.acknowledged_per_s
    }

    pub(crate) fn write_figures(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let (packages, preferences) = (&self.packages, &self.preferences);
        writeln!(f, "\nPackages package-{}-…", self.run)?;
        row(f, "acknowledged", &packages.acknowledged)?;
        row(f, "  delivered", &packages.delivered)?;
        row(f, "  dropped", &packages.dropped)?;
        row_unless_zero(f, "  taken at an earlier try", count(packages.replays))?;
        row_unless_zero(f, "sent twice on purpose", count(packages.duplicates))?;
        row_unless_zero(
            f,
            "sent again with another field",
            count(packages.mismatches),
        )?;
        writeln!(f, "\nPreferences")?;
        row(f, "acknowledged", &preferences.acknowledged)?;
        row_unless_zero(f, "  after a newer one", count(preferences.outdated))?;
        writeln!(f, "\nRequests")?;
        row_unless_zero(f, "malformed on purpose", count(self.malformed))?;
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
