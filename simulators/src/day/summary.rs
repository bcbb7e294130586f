//! The day's part of the report, and all that must hold of it.

use std::{collections::BTreeMap, fmt, time::Duration};

use jiff::civil::Date;
use serde::Serialize;

use super::{
    book::{ASPECTS, Book},
    lists::Compared,
};
use crate::{
    assignments::Status,
    audit::{Check, Checks},
    pace::Speed,
    report::{row, row_unless_zero, status_name},
    visits::{Rate, Waits},
};

/// What the server was asked in the end, and once before.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    /// How the manifest that the server returned differs from the one it was sent.
    pub(crate) manifest: Option<String>,
    /// The records after a dry run, of which there must be none.
    pub(crate) after_dry_run: Compared,
    pub(crate) by_driver: Compared,
    pub(crate) by_status: Compared,
    pub(crate) by_package: Compared,
}

/// All that must hold. The first of them is whether every request was acknowledged.
pub(crate) fn checks(book: &Book, audit: &Audit) -> Vec<Check> {
    let manifest = match &audit.manifest {
        None => "told as it was sent".to_owned(),
        Some(what) => what.clone(),
    };
    let mut checks = vec![
        Check::nothing_given_up(
            "every request acknowledged",
            "manifest, plans and updates",
            book.acknowledged,
            &book.given_up,
            book.fate_unknown,
        ),
        Check::new("manifest kept", audit.manifest.is_none(), manifest),
    ];
    let aspects = ASPECTS.iter().zip(&book.aspects);
    checks.extend(aspects.map(|(name, faults)| Check::without(name, faults, book.plans)));
    checks.extend([
        audit.after_dry_run.check("nothing kept of a dry run"),
        Check::without("answers to updates", &book.misanswered, book.updates),
        Check::without("unknown ones refused", &book.not_refused, book.strange),
        audit.by_driver.check("assignments by driver"),
        audit.by_status.check("assignments by status"),
        audit.by_package.check("assignments by package"),
    ]);
    checks
}

/// What became of the day, and whether the server's account agrees.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    date: Date,
    drivers: usize,
    packages: usize,
    assigned: usize,
    left_behind: usize,
    delivered: u64,
    failed_to_deliver: u64,
    plans: u64,
    /// Calls whose client left before the answer, on purpose.
    left: u64,
    updates: u64,
    updates_per_s: Rate,
    /// Of these, those that were sent twice on purpose.
    repeated: u64,
    strange: u64,
    given_up: u64,
    /// Of these, those that the server may have taken all the same.
    fate_unknown: u64,
    retries: u64,
    /// Answers to manifests, plans and updates, retries among them.
    by_status: BTreeMap<u16, u64>,
    by_transport_error: BTreeMap<String, u64>,
    /// From asking for a plan to its answer, retries among it; none when none was answered.
    assign_latencies: Option<Waits>,
    /// From sending an update to its acknowledgement, retries among it; none when none was acknowledged.
    update_latencies: Option<Waits>,
    checks: Checks,
}

impl Summary {
    /// `updating` is measured, from the first update to the last.
    pub(crate) fn of(book: &Book, audit: &Audit, updating: Duration) -> Self {
        let speed = Speed::REAL_TIME;
        let assigned = book.held().count();
        let packages = book.roster.packages();
        let updates = usize::try_from(book.updates).unwrap_or(usize::MAX);
        Self {
            date: book.date,
            drivers: book.roster.drivers(),
            packages,
            assigned,
            left_behind: packages - assigned,
            delivered: book.count(Status::Delivered),
            failed_to_deliver: book.count(Status::FailedToDeliver),
            plans: book.plans,
            left: book.left,
            updates: book.updates,
            updates_per_s: Rate::of(updates, updating, speed),
            repeated: book.repeated,
            strange: book.strange,
            given_up: book.given_up.times,
            fate_unknown: book.fate_unknown,
            retries: book.tries.retries,
            by_status: book.tries.by_status.clone(),
            by_transport_error: book.tries.by_transport_error.clone(),
            assign_latencies: book.assign_waits.waits(speed),
            update_latencies: book.update_waits.waits(speed),
            checks: checks(book, audit).into(),
        }
    }

    pub(crate) fn checks(&self) -> &Checks {
        &self.checks
    }

    pub(crate) fn verdict(&self) -> String {
        let (assigned, packages) = (self.assigned, self.packages);
        self.checks.verdict(format!(
            "The day is over and every check holds ({assigned} of {packages} packages assigned, {} delivered).",
            self.delivered
        ))
    }

    /// Of plans and of updates.
    pub(crate) fn waits(&self) -> [Option<Waits>; 2] {
        [self.assign_latencies, self.update_latencies]
    }

    pub(crate) fn updates_per_s(&self) -> Rate {
        self.updates_per_s
    }

    pub(crate) fn write_figures(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        writeln!(f, "\nThe day {}", self.date)?;
        row(f, "drivers", &self.drivers)?;
        row(f, "packages", &self.packages)?;
        row(f, "  assigned", &self.assigned)?;
        row(f, "  left behind", &self.left_behind)?;
        row(f, "delivered", &self.delivered)?;
        row(f, "failed to deliver", &self.failed_to_deliver)?;
        writeln!(f, "\nRequests")?;
        row(f, "plans answered", &self.plans)?;
        row_unless_zero(f, "  asked for and left before", count(self.left))?;
        row(f, "updates acknowledged", &self.updates)?;
        row_unless_zero(f, "  sent twice on purpose", count(self.repeated))?;
        row_unless_zero(f, "about what is not", count(self.strange))?;
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
