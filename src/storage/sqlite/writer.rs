//! The one thread that writes: queued operations are committed together, and answered after that.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::watch;
use tracing::warn;

use super::batch;
use super::connection::{
    CHECKPOINT_AFTER, File, WAL_LIMIT_BYTES, checkpoint_truncate, connected, execute,
    remove_wal_on_close,
};
use super::error::Failure;
use super::health::Health;
use super::integrity::{self, Mode, Shared};
use super::metrics::Metrics;
use super::migrations::store_clock;
use super::queue::Receiver;
use super::work::Operation;
use crate::storage::Unavailable;
use crate::storage::clock::Clock;

/// Interval of probe writes while the engine is down.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// How often the files' places are checked while nothing is written.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// How often the clock is stored while there are writes.
const STORE_CLOCK_EVERY: Duration = Duration::from_secs(10);
/// Commits between two incremental vacuums, ...
const VACUUM_EVERY: u32 = 256;
/// ... and while more than [`VACUUM_PAGES`] pages are free.
const VACUUM_AGAIN: u32 = 16;
/// Free pages that stay in the file for reuse: 1 MB.
const FREE_PAGES_RESERVED: u32 = 256;
/// Free pages returned per vacuum: takes a few milliseconds.
const VACUUM_PAGES: u32 = 256;
/// Frames after which a checkpoint that a reader blocked is retried.
const CHECKPOINT_AGAIN: u32 = 250;
/// A WAL this long was not truncated for a while, since there were always readers: wait for them.
const WAL_TOO_LONG_BYTES: u64 = 4 * WAL_LIMIT_BYTES;

pub(super) struct Writer {
    file: File,
    /// None after a failure, until the next batch or probe.
    connection: Option<Connection>,
    integrity: Shared,
    clock: Clock,
    operations: Receiver<Box<dyn Operation>>,
    batch_max: usize,
    health: Arc<Health>,
    metrics: Metrics,
    /// The next check of the files' places; a probe write while the database is down.
    check_at: Instant,
    store_clock_at: Instant,
    /// Frames in the WAL at which it is checkpointed.
    checkpoint_at: u32,
    vacuum_in: u32,
}

struct Commit {
    /// How long the commit took, if anything was changed.
    took: Option<Duration>,
}

impl Writer {
    pub(super) fn new(
        file: File,
        opened: (Connection, Shared, Clock),
        operations: Receiver<Box<dyn Operation>>,
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
            check_at: now + CHECK_EVERY,
            store_clock_at: now + STORE_CLOCK_EVERY,
            checkpoint_at: CHECKPOINT_AFTER,
            vacuum_in: VACUUM_EVERY,
        }
    }

    /// Writes until the queue is closed and empty. Ends after the readers, so that the last connection is its own: then the WAL
    /// is removed. `alive` is dropped last.
    pub(super) fn run(mut self, readers: Vec<JoinHandle<()>>, alive: watch::Receiver<()>) {
        let mut batch = Vec::with_capacity(self.batch_max);
        loop {
            let more = self
                .operations
                .recv_batch(&mut batch, self.batch_max, Some(self.check_at));
            self.write(&mut batch);
            if !more {
                break;
            }
            if self.check_at <= Instant::now() {
                self.check();
            }
        }
        for reader in readers {
            // Readers catch panics of their queries.
            let _ = reader.join();
        }
        match self.close() {
            Ok(()) => {}
            Err(Failure::Found(detail)) => self.health.found_damaged(&detail),
            // Nothing is lost: the next process to open the file finds the WAL.
            Err(error) => {
                warn!(database = self.health.name, %error, "the WAL was not checkpointed");
            }
        }
        // Closed and rejecting new work before `alive` reports the end.
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
            Ok(Commit { took }) => {
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
        // After the answers: no caller waits for it.
        if answer.is_ok() {
            self.maintain();
        }
    }

    /// One transaction for the batch. After an error it was not committed, or it was and must not be acknowledged: its files
    /// were moved, or the commit could not be noted.
    fn commit(&mut self, batch: &mut [Box<dyn Operation>]) -> Result<Commit, Failure> {
        let connection = usable(
            &mut self.connection,
            &self.file,
            &self.integrity,
            &self.health,
        )?;
        let changed = batch::begin(connection, batch, &self.health.name)?;
        let started = Instant::now();
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
        Ok(Commit {
            took: changed.then(|| started.elapsed()),
        })
    }

    /// The engine has failed. Dropping the connection rolls back.
    fn failed(&mut self, failure: &Failure) {
        self.connection = None;
        self.check_at = Instant::now() + PROBE_EVERY;
        match failure {
            Failure::Found(detail) => self.health.found_damaged(detail),
            failure => self.health.fails(failure),
        }
    }

    /// Checks that the files were not moved; while the database is down, makes a probe write.
    fn check(&mut self) {
        self.check_at = Instant::now() + CHECK_EVERY;
        let was_up = self.health.works_so_far();
        let checked = usable(
            &mut self.connection,
            &self.file,
            &self.integrity,
            &self.health,
        )
        .and_then(|connection| {
            if was_up {
                Ok(integrity::lock(&self.integrity).in_place()?)
            } else {
                probe_write(connection)?;
                integrity::lock(&self.integrity).acknowledge(connection)
            }
        });
        match checked {
            Ok(()) if !was_up => self.health.works(),
            // A check has logged it already; the next one may clear it.
            Ok(()) | Err(Failure::Damaged) => {}
            Err(failure) => self.failed(&failure),
        }
    }

    /// Checkpoints the WAL when it is long enough, and from time to time returns free pages to the file system.
    fn maintain(&mut self) {
        if let Err(failure) = self.try_to_maintain() {
            self.failed(&failure);
        }
    }

    fn try_to_maintain(&mut self) -> Result<(), Failure> {
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
                // It is retried; the WAL has everything, and commits fail once it cannot grow.
                Err(Failure::Engine(error)) => {
                    self.checkpoint_at = frames + CHECKPOINT_AGAIN;
                    warn!(database = self.health.name, %error, "the WAL was not checkpointed");
                }
                Err(failure) => return Err(failure),
            }
        }
        self.vacuum_in = self.vacuum_in.saturating_sub(1);
        if self.vacuum_in > 0 {
            return Ok(());
        }
        // Readers that still block it are waited for next time.
        if self.file.wal_length() > WAL_TOO_LONG_BYTES
            && integrity.checkpoint(connection, Mode::Full)?
        {
            checkpoint_truncate(connection)?;
        }
        let more = incremental_vacuum(connection)?;
        integrity.committed(connection)?;
        self.vacuum_in = if more { VACUUM_AGAIN } else { VACUUM_EVERY };
        Ok(())
    }

    /// Checkpoints the WAL and removes it. Not if another process reads it, or the file was moved.
    fn close(&mut self) -> Result<(), Failure> {
        let Some(connection) = self.connection.take().filter(|_| self.health.is_sound()) else {
            return Ok(());
        };
        let mut integrity = integrity::lock(&self.integrity);
        integrity.in_place()?;
        integrity.settle(&connection)?;
        // On a full disk there is no room for it: after the restart the clock is a little behind.
        if store_clock(&connection, &self.clock).is_ok() {
            integrity.committed(&connection)?;
        }
        if integrity.checkpoint(&connection, Mode::Full)? && checkpoint_truncate(&connection)? {
            integrity.close()?;
            remove_wal_on_close(&connection)?;
        }
        Ok(())
    }
}

/// The connection, opened again if there is none. Whether the files were moved is checked after the commit, before the
/// acknowledgement.
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

/// A write that needs space: two more pages, which are free for others afterwards.
fn probe_write(connection: &Connection) -> rusqlite::Result<()> {
    execute(connection, "BEGIN IMMEDIATE")?;
    execute(
        connection,
        "INSERT INTO storage_probe (filler) VALUES (randomblob(8192))",
    )?;
    execute(connection, "COMMIT")?;
    execute(connection, "DELETE FROM storage_probe")
}

/// Returns some free pages to the file system. True if there are more.
fn incremental_vacuum(connection: &Connection) -> rusqlite::Result<bool> {
    let free: u32 = connection
        .prepare_cached("PRAGMA freelist_count")?
        .query_row([], |row| row.get(0))?;
    if free <= FREE_PAGES_RESERVED {
        return Ok(false);
    }
    // One row per page: all must be fetched.
    let mut statement =
        connection.prepare(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(free > FREE_PAGES_RESERVED + VACUUM_PAGES)
}
