//! The one thread that writes: what waits together is committed together, and answered after that.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::watch;
use tracing::{error, warn};

use super::connection::{File, LOG_MAX, connected, empty_log, execute};
use super::error::is_of_engine;
use super::health::Health;
use super::metrics::Metrics;
use super::queue::Exit;
use super::work::{Operation, Ran};
use crate::storage::Unavailable;

/// How often an engine that failed is tried again when nobody else tries.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// Commits between two looks at the space that was freed, ...
const TIDY_EVERY: u32 = 256;
/// ... and while there is more of it than is given back at once.
const TIDY_AGAIN: u32 = 16;
/// Free pages that are kept to be used again: 1 MB.
const FREE_KEPT: u32 = 256;
/// Free pages that are given back at once: a few milliseconds' work.
const FREED_AT_ONCE: u32 = 256;
/// A log this long was not cut for a while, since somebody was always reading: it is worth waiting for them.
const LOG_TOO_LONG: u64 = 4 * LOG_MAX;

/// The writer's side of a database.
pub(super) struct Writer {
    file: File,
    /// Nothing after a failure, until the next batch or probe.
    connection: Option<Connection>,
    operations: Exit<Box<dyn Operation>>,
    batch_max: usize,
    health: Arc<Health>,
    metrics: Metrics,
    /// The next probe; only while the database is not well.
    probe_at: Option<Instant>,
    tidy_in: u32,
}

/// What a batch came to.
struct Kept {
    /// How long the commit took, if anything was changed.
    took: Option<Duration>,
}

impl Writer {
    pub(super) fn new(
        file: File,
        connection: Connection,
        operations: Exit<Box<dyn Operation>>,
        batch_max: usize,
        health: Arc<Health>,
        metrics: Metrics,
    ) -> Self {
        Self {
            file,
            connection: Some(connection),
            operations,
            batch_max: batch_max.max(1),
            health,
            metrics,
            probe_at: None,
            tidy_in: TIDY_EVERY,
        }
    }

    /// Writes until the queue is closed and empty. Ends after the readers, so that the last connection is its own: then
    /// the log is gone, and the file is all there is. `alive` is dropped last.
    pub(super) fn run(mut self, readers: Vec<JoinHandle<()>>, alive: watch::Receiver<()>) {
        let mut batch = Vec::with_capacity(self.batch_max);
        loop {
            let more = self
                .operations
                .fill(&mut batch, self.batch_max, self.probe_at);
            self.write(&mut batch);
            if !more {
                break;
            }
            if self.probe_at.is_some_and(|at| at <= Instant::now()) {
                self.probe();
            }
        }
        for reader in readers {
            // Readers catch what panics in them.
            let _ = reader.join();
        }
        if let Some(connection) = self.connection.take()
            && let Err(error) = empty_log(&connection)
        {
            // Nothing is lost: the next one to open the file finds the log.
            warn!(database = self.health.name, %error, "the log was not copied into the file");
        }
        // Closed, and taking nothing more in, before anybody hears that this is the end.
        drop(self);
        drop(alive);
    }

    /// Commits a batch and answers it. Leaves it empty.
    fn write(&mut self, batch: &mut Vec<Box<dyn Operation>>) {
        batch.retain(|operation| !operation.is_abandoned());
        if batch.is_empty() {
            return;
        }
        let answer = match self.commit(batch) {
            Ok(Kept { took }) => {
                self.metrics.committed(batch.len(), took);
                if took.is_some() {
                    self.kept();
                    self.health.changed();
                }
                Ok(())
            }
            Err(error) => {
                self.failed(&error);
                Err(Unavailable::Engine)
            }
        };
        for operation in batch.drain(..) {
            operation.answer(answer);
        }
        // After the answers: nobody waits for it.
        if answer.is_ok() {
            self.tidy();
        }
    }

    /// One transaction for all. An error is the engine's: nothing of the batch was kept.
    fn commit(&mut self, batch: &mut [Box<dyn Operation>]) -> rusqlite::Result<Kept> {
        let connection = connected(&mut self.connection, || self.file.writer())?;
        let before = connection.total_changes();
        execute(connection, "BEGIN IMMEDIATE")?;
        for operation in batch {
            run_one(connection, operation.as_mut(), &self.health)?;
        }
        let started = Instant::now();
        // Flushes only if something was changed.
        execute(connection, "COMMIT")?;
        let changed = connection.total_changes() != before;
        Ok(Kept {
            took: changed.then(|| started.elapsed()),
        })
    }

    /// The engine has kept something.
    fn kept(&mut self) {
        self.probe_at = None;
        self.health.works();
    }

    /// The engine has failed. Dropping the connection takes back whatever was not committed.
    fn failed(&mut self, error: &rusqlite::Error) {
        self.connection = None;
        self.probe_at = Some(Instant::now() + PROBE_EVERY);
        self.health.fails(error);
    }

    fn probe(&mut self) {
        match connected(&mut self.connection, || self.file.writer()).and_then(try_out) {
            Ok(()) => self.kept(),
            Err(error) => self.failed(&error),
        }
    }

    /// Gives freed space back, a little at a time, every now and then.
    fn tidy(&mut self) {
        self.tidy_in = self.tidy_in.saturating_sub(1);
        let Some(connection) = self.connection.as_ref().filter(|_| self.tidy_in == 0) else {
            return;
        };
        match give_back(connection, self.file.log_length()) {
            Ok(more) => self.tidy_in = if more { TIDY_AGAIN } else { TIDY_EVERY },
            Err(error) => self.failed(&error),
        }
    }
}

/// Runs one operation so that it can be taken back by itself. An error is the engine's.
fn run_one(
    connection: &Connection,
    operation: &mut dyn Operation,
    health: &Health,
) -> rusqlite::Result<()> {
    execute(connection, "SAVEPOINT operation")?;
    match operation.run(connection) {
        Ran::Keep => return execute(connection, "RELEASE operation"),
        Ran::Undo => {}
        // After some failures SQLite takes the whole transaction back by itself.
        Ran::Broken(error) if is_of_engine(&error) || connection.is_autocommit() => {
            return Err(error);
        }
        Ran::Broken(error) => {
            error!(database = health.name, %error, "an operation was not done, and is taken back");
        }
        Ran::Panicked(said) => {
            error!(
                database = health.name,
                said, "an operation panicked, and is taken back"
            );
        }
    }
    execute(connection, "ROLLBACK TO operation")?;
    execute(connection, "RELEASE operation")
}

/// Really writes, and needs space for it: two pages more than there were, which are free for others afterwards.
fn try_out(connection: &Connection) -> rusqlite::Result<()> {
    execute(connection, "BEGIN IMMEDIATE")?;
    execute(
        connection,
        "INSERT INTO storage_probe (filler) VALUES (randomblob(8192))",
    )?;
    execute(connection, "COMMIT")?;
    execute(connection, "DELETE FROM storage_probe")
}

/// Gives back some of the file's free pages, and cuts a log that has become too long. True if there is more to do.
fn give_back(connection: &Connection, log_length: u64) -> rusqlite::Result<bool> {
    if log_length > LOG_TOO_LONG {
        // Readers that stay in the way are tried again next time.
        empty_log(connection)?;
    }
    let free: u32 = connection
        .prepare_cached("PRAGMA freelist_count")?
        .query_row([], |row| row.get(0))?;
    if free <= FREE_KEPT {
        return Ok(false);
    }
    // One row per page: it is done when they are all fetched.
    let mut statement =
        connection.prepare(&format!("PRAGMA incremental_vacuum({FREED_AT_ONCE})"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(free > FREE_KEPT + FREED_AT_ONCE)
}
