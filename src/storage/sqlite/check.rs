//! Checks a database's files on request.
//!
//! Without a server everything is checked, including the engine's own structures and the desk's rows. A running server checks its
//! WAL, and its files page by page against their checksums; it takes turns with the writer, a quarter of a megabyte at a time. The
//! lock is not fair: the writer may wait until a check is finished.

use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde::Serialize;
use utoipa::ToSchema;

use super::connection::File;
use super::integrity::{Extent, Fault, Integrity, lock};
use super::{Database, metrics};

/// An invariant of a desk's rows.
#[derive(Debug, Clone, Copy)]
pub struct Invariant {
    pub name: &'static str,
    /// A query that returns a row only if the invariant is broken.
    pub broken: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Only checked while no server runs.
    Skipped,
    Good,
    /// It could not be found out.
    Unchecked,
    Damaged,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = CheckedThing)]
pub struct Finding {
    /// `files`: pages, log and checksums are as they were acknowledged; `structure`: trees and indexes; `references`:
    /// foreign keys; `rows`: the desk's invariants.
    #[schema(example = "files")]
    pub check: &'static str,
    /// `good`, `damaged`, `unchecked` if the check failed, `skipped` if it runs offline only.
    #[schema(value_type = String, example = "good")]
    pub verdict: Verdict,
    /// What was read and found, or why it was not checked.
    pub detail: String,
}

/// The result for a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = CheckedDatabase)]
pub struct Report {
    /// Its name.
    #[schema(example = "deliveries")]
    pub database: String,
    /// Duration, milliseconds.
    pub took_ms: u64,
    /// Check by check.
    pub findings: Vec<Finding>,
}

/// What is checked while no server runs.
#[derive(Debug)]
pub struct Offline<'a> {
    pub path: PathBuf,
    pub application: i32,
    pub invariants: &'a [Invariant],
}

const FILES: &str = "files";
const STRUCTURE: &str = "structure";
const REFERENCES: &str = "references";
const ROWS: &str = "rows";

impl Report {
    /// The worst of its findings.
    pub fn verdict(&self) -> Verdict {
        let verdicts = self.findings.iter().map(|found| found.verdict);
        verdicts.max().unwrap_or(Verdict::Unchecked)
    }
}

impl Finding {
    fn new(check: &'static str, verdict: Verdict, detail: impl Into<String>) -> Self {
        Self {
            check,
            verdict,
            detail: detail.into(),
        }
    }

    fn good(check: &'static str, detail: impl Into<String>) -> Self {
        Self::new(check, Verdict::Good, detail)
    }

    fn damaged(check: &'static str, detail: impl Into<String>) -> Self {
        Self::new(check, Verdict::Damaged, detail)
    }

    fn unchecked(check: &'static str, detail: impl Into<String>) -> Self {
        Self::new(check, Verdict::Unchecked, detail)
    }

    /// Pages, WAL and head together.
    fn of_files(checked: Result<Extent, Fault>) -> Self {
        match checked {
            Ok(Extent {
                pages,
                frames,
                commits,
            }) => {
                let detail = format!("{pages} pages, {frames} frames in the WAL, commit {commits}");
                Self::good(FILES, detail)
            }
            Err(Fault::Damaged(detail)) => Self::damaged(FILES, detail),
            Err(Fault::Foreign) => {
                Self::damaged(FILES, "it is another desk's or another program's database")
            }
            Err(Fault::Unreadable(reason)) => Self::unchecked(FILES, reason.to_string()),
        }
    }
}

impl Offline<'_> {
    /// Checks everything. No server may be running on the file. Changes nothing; reading may leave an empty WAL and its index
    /// behind.
    pub fn check(&self) -> Report {
        let began = Instant::now();
        Report {
            database: metrics::name(&self.path),
            findings: self.findings(),
            took_ms: in_ms(began.elapsed()),
        }
    }

    fn findings(&self) -> Vec<Finding> {
        let file = File::new(self.path.clone());
        let mut findings = Vec::new();
        match Integrity::examine(&file, self.application) {
            Ok(Some((_, extent))) => findings.push(Finding::of_files(Ok(extent))),
            Ok(None) if !self.path.exists() => {
                return vec![Finding::unchecked(FILES, "there is no such file")];
            }
            Ok(None) => findings.push(Finding::unchecked(
                FILES,
                "there is no checksum file: a server that opens it creates one",
            )),
            Err(fault) => findings.push(Finding::of_files(Err(fault))),
        }
        let sound = findings
            .iter()
            .all(|found| found.verdict != Verdict::Damaged);
        if !sound {
            // The engine would take a damaged WAL for a short one.
            let others = [STRUCTURE, REFERENCES, ROWS];
            let skipped = |check| Finding::unchecked(check, "the files are damaged");
            findings.extend(others.map(skipped));
            return findings;
        }
        match file.reader() {
            Ok(connection) => findings.extend([
                rows_of(STRUCTURE, &connection, "PRAGMA integrity_check(1)", |row| {
                    row != "ok"
                }),
                rows_of(REFERENCES, &connection, "PRAGMA foreign_key_check", |_| {
                    true
                }),
                self.rows(&connection),
            ]),
            Err(error) => findings.push(Finding::unchecked(STRUCTURE, error.to_string())),
        }
        findings
    }

    fn rows(&self, connection: &Connection) -> Finding {
        let broken = |invariant: &&Invariant| connection.prepare(invariant.broken)?.exists([]);
        for invariant in self.invariants {
            match broken(&invariant) {
                Ok(false) => {}
                Ok(true) => return Finding::damaged(ROWS, format!("broken: {}", invariant.name)),
                Err(error) => return Finding::unchecked(ROWS, error.to_string()),
            }
        }
        match self.invariants.len() {
            0 => Finding::good(ROWS, "no invariants are known"),
            1 => Finding::good(ROWS, self.invariants[0].name),
            many => Finding::good(ROWS, format!("{many} invariants hold")),
        }
    }
}

/// A check by a query that returns bad rows only if something is wrong.
fn rows_of(
    check: &'static str,
    connection: &Connection,
    sql: &str,
    is_bad: impl Fn(&str) -> bool,
) -> Finding {
    let first = || -> rusqlite::Result<Option<String>> {
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        let row = rows.next()?;
        row.map(|row| Ok(row.get_ref(0)?.as_str().unwrap_or_default().to_owned()))
            .transpose()
    };
    match first() {
        // The engine puts the name of the database on a line before the finding.
        Ok(Some(row)) if is_bad(&row) => {
            Finding::damaged(check, row.lines().last().unwrap_or_default())
        }
        Ok(_) => Finding::good(check, "ok"),
        Err(error) => Finding::damaged(check, error.to_string()),
    }
}

impl Database {
    /// Checks the files while they are in use: pages and WAL against their checksums. Blocking: reads the whole file.
    /// Concurrent callers take turns. [`Database::state`] and the gauges show the result; after damage writes and reads fail
    /// until a check finds none.
    pub fn check(&self) -> Report {
        let turn = self.inner.checking.lock();
        let _turn = turn.unwrap_or_else(PoisonError::into_inner);
        let began = Instant::now();
        let files = match self.check_files() {
            Some(checked) => Finding::of_files(checked),
            None => Finding::unchecked(FILES, "the database is closed"),
        };
        let health = &self.inner.health;
        match files.verdict {
            Verdict::Good => health.found_sound(),
            Verdict::Damaged => health.found_damaged(&files.detail),
            Verdict::Unchecked | Verdict::Skipped => {}
        }
        if files.verdict != Verdict::Unchecked {
            self.inner.metrics.checked(files.verdict == Verdict::Good);
        }
        let offline = |check| Finding::new(check, Verdict::Skipped, "checked while no server runs");
        Report {
            database: health.name.clone(),
            findings: vec![
                files,
                offline(STRUCTURE),
                offline(REFERENCES),
                offline(ROWS),
            ],
            took_ms: in_ms(began.elapsed()),
        }
    }

    /// None if the database is closed.
    fn check_files(&self) -> Option<Result<Extent, Fault>> {
        let mut next = Some(1);
        while let Some(first) = next {
            let integrity = self.inner.integrity.upgrade()?;
            let mut integrity = lock(&integrity);
            next = match integrity.check_some(first) {
                Ok(next) => next,
                Err(fault) => {
                    // Otherwise the next process would checkpoint the WAL over it.
                    let _ = integrity.verify_again();
                    return Some(Err(fault));
                }
            };
        }
        let integrity = self.inner.integrity.upgrade()?;
        let checked = lock(&integrity).check_head();
        Some(checked)
    }
}

fn in_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
