//! The one thread that writes: what waits together is committed together, and answered after that.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::watch;
use tracing::{error, warn};

use super::connection::{CHECKPOINT_AFTER, File, LOG_MAX, connected, cut_log, drop_log, execute};
use super::error::{Failure, is_of_engine};
use super::health::Health;
use super::integrity::{self, Mode, Shared};
use super::metrics::Metrics;
use super::migrations::store_clock;
use super::queue::Exit;
use super::work::{Operation, Ran};
use crate::storage::Unavailable;
use crate::storage::clock::Clock;

/// How often an engine that failed is tried again when nobody else tries.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// How often the files' places are looked at while nothing is written.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the clock is stored while something is written.
const STORE_CLOCK_EVERY: Duration = Duration::from_secs(10);
/// Commits between two looks at the space that was freed, ...
const TIDY_EVERY: u32 = 256;
/// ... and while there is more of it than is given back at once.
const TIDY_AGAIN: u32 = 16;
/// Free pages that are kept to be used again: 1 MB.
const FREE_KEPT: u32 = 256;
/// Free pages that are given back at once: a few milliseconds' work.
const FREED_AT_ONCE: u32 = 256;
/// Frames after which a checkpoint that a reader was in the way of is tried again.
const CHECKPOINT_AGAIN: u32 = 250;
/// A log this long was not cut for a while, since somebody was always reading: it is worth waiting for them.
const LOG_TOO_LONG: u64 = 4 * LOG_MAX;

/// The writer's side of a database.
pub(super) struct Writer {
    file: File,
    /// Nothing after a failure, until the next batch or probe.
    connection: Option<Connection>,
    integrity: Shared,
    clock: Clock,
    operations: Exit<Box<dyn Operation>>,
    batch_max: usize,
    health: Arc<Health>,
    metrics: Metrics,
    /// The next look at the files' places; a probe while the database is not well.
    look_at: Instant,
    store_clock_at: Instant,
    /// Frames in the log at which it is copied into the file.
    checkpoint_at: u32,
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
        opened: (Connection, Shared, Clock),
        operations: Exit<Box<dyn Operation>>,
        batch_max: usize,
        health: Arc<Health>,
        metrics: Metrics,
    ) -> Self {
        let (connection, integrity, clock) = opened;
        let now = Instant::now();
        Self {
            file,
            connection: Some(connection),
            integrity,
            clock,
            operations,
            batch_max: batch_max.max(1),
            health,
            metrics,
            look_at: now + LOOK_EVERY,
            store_clock_at: now + STORE_CLOCK_EVERY,
            checkpoint_at: CHECKPOINT_AFTER,
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
                .fill(&mut batch, self.batch_max, Some(self.look_at));
            self.write(&mut batch);
            if !more {
                break;
            }
            if self.look_at <= Instant::now() {
                self.look();
            }
        }
        for reader in readers {
            // Readers catch what panics in them.
            let _ = reader.join();
        }
        match self.close() {
            Ok(()) => {}
            Err(Failure::Found(detail)) => self.health.found_damaged(&detail),
            // Nothing is lost: the next one to open the file finds the log.
            Err(error) => {
                warn!(database = self.health.name, %error, "the log was not copied into the file");
            }
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
                    self.health.works();
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

    /// One transaction for all. After an error the batch was not kept, or it was and must not be acknowledged: its files are
    /// elsewhere, or it could not be noted.
    fn commit(&mut self, batch: &mut [Box<dyn Operation>]) -> Result<Kept, Failure> {
        let connection = usable(
            &mut self.connection,
            &self.file,
            &self.integrity,
            &self.health,
        )?;
        let before = connection.total_changes();
        execute(connection, "BEGIN IMMEDIATE")?;
        for operation in batch {
            run_one(connection, operation.as_mut(), &self.health)?;
        }
        let started = Instant::now();
        let changed = connection.total_changes() != before;
        if changed && self.store_clock_at <= started {
            store_clock(connection, &self.clock)?;
            self.store_clock_at = started + STORE_CLOCK_EVERY;
        }
        // Flushes only if something was changed.
        execute(connection, "COMMIT")?;
        if changed {
            // Acknowledged or not, readers see it from now on.
            self.health.changed();
            integrity::lock(&self.integrity).acknowledge(connection)?;
        }
        Ok(Kept {
            took: changed.then(|| started.elapsed()),
        })
    }

    /// The engine has failed. Dropping the connection takes back whatever was not committed.
    fn failed(&mut self, failure: &Failure) {
        self.connection = None;
        self.look_at = Instant::now() + PROBE_EVERY;
        match failure {
            Failure::Found(detail) => self.health.found_damaged(detail),
            failure => self.health.fails(failure),
        }
    }

    /// Whether what is kept now would stay; while the database is not well, whether it keeps something.
    fn look(&mut self) {
        self.look_at = Instant::now() + LOOK_EVERY;
        let well = self.health.works_so_far();
        let looked = usable(
            &mut self.connection,
            &self.file,
            &self.integrity,
            &self.health,
        )
        .and_then(|connection| {
            if well {
                Ok(integrity::lock(&self.integrity).in_place()?)
            } else {
                try_out(connection)?;
                integrity::lock(&self.integrity).acknowledge(connection)
            }
        });
        match looked {
            Ok(()) if !well => self.health.works(),
            // A check has said so already, and the next one may take it back.
            Ok(()) | Err(Failure::Damaged) => {}
            Err(failure) => self.failed(&failure),
        }
    }

    /// Copies the log into the file when it is long enough, and every now and then gives freed space back, a little at a
    /// time.
    fn tidy(&mut self) {
        if let Err(failure) = self.try_to_tidy() {
            self.failed(&failure);
        }
    }

    fn try_to_tidy(&mut self) -> Result<(), Failure> {
        let Some(connection) = &self.connection else {
            return Ok(());
        };
        let mut integrity = integrity::lock(&self.integrity);
        let frames = integrity.frames_noted();
        if frames < CHECKPOINT_AFTER {
            self.checkpoint_at = CHECKPOINT_AFTER;
        } else if frames >= self.checkpoint_at {
            match integrity.checkpoint(connection, Mode::Passive) {
                Ok(true) => self.checkpoint_at = CHECKPOINT_AFTER,
                Ok(false) => self.checkpoint_at = frames + CHECKPOINT_AGAIN,
                // It is tried again; the log has everything, and commits fail once it cannot grow.
                Err(Failure::Engine(error)) => {
                    self.checkpoint_at = frames + CHECKPOINT_AGAIN;
                    warn!(database = self.health.name, %error, "the log was not copied into the file");
                }
                Err(failure) => return Err(failure),
            }
        }
        self.tidy_in = self.tidy_in.saturating_sub(1);
        if self.tidy_in > 0 {
            return Ok(());
        }
        // Readers that stay in the way are tried again next time.
        if self.file.log_length() > LOG_TOO_LONG && integrity.checkpoint(connection, Mode::Full)? {
            cut_log(connection)?;
        }
        let more = give_back(connection)?;
        integrity.committed(connection)?;
        self.tidy_in = if more { TIDY_AGAIN } else { TIDY_EVERY };
        Ok(())
    }

    /// Copies the log into the file, and removes it; the file is all there is then. Not if somebody else reads it, or it is
    /// not where it was opened.
    fn close(&mut self) -> Result<(), Failure> {
        let Some(connection) = self.connection.take().filter(|_| self.health.is_sound()) else {
            return Ok(());
        };
        let mut integrity = integrity::lock(&self.integrity);
        integrity.in_place()?;
        integrity.settle(&connection)?;
        // On a full disk there is no room for it: it goes on a little behind.
        if store_clock(&connection, &self.clock).is_ok() {
            integrity.committed(&connection)?;
        }
        if integrity.checkpoint(&connection, Mode::Full)? && cut_log(&connection)? {
            integrity.close()?;
            drop_log(&connection)?;
        }
        Ok(())
    }
}

/// The connection, opened again if there is none. Whether the files stayed where they were shows after the commit, before
/// anything is acknowledged.
fn usable<'a>(
    connection: &'a mut Option<Connection>,
    file: &File,
    integrity: &Shared,
    health: &Health,
) -> Result<&'a Connection, Failure> {
    if !health.is_sound() {
        return Err(Failure::Damaged);
    }
    let mut integrity = integrity::lock(integrity);
    if connection.is_none() {
        // Another file at the path must not be opened.
        integrity.in_place()?;
    }
    let connection = connected(connection, || file.writer())?;
    integrity.settle(connection)?;
    Ok(connection)
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

/// Gives back some of the file's free pages. True if there is more to do.
fn give_back(connection: &Connection) -> rusqlite::Result<bool> {
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
