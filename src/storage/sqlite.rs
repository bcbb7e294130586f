//! A database file with one writer and several readers, each a thread with its own connection.
//!
//! ```text
//!   write(operation) -> queue -> writer: BEGIN | operation | operation | ... | COMMIT -> answers
//!   read(query)      -> queue -> readers: BEGIN | query | COMMIT -> answer
//! ```
//!
//! - **Group commit.** A flush to the disk costs as much for one operation as for sixty. The writer takes all queued operations,
//!   commits them together, and then answers. It never delays a single operation to wait for more.
//! - **Operations are isolated.** One that is refused, fails or panics is rolled back alone: see `sqlite/batch.rs`.
//! - **Engine failures affect the whole batch.** A full disk or an I/O error rolls back the batch, and each operation gets
//!   [`Unavailable::Engine`]. The connection is opened again for the next batch; a probe write finds out when the cause is gone.
//! - **Abandoned operations:** if the caller leaves before the writer took its operation, it does not run; afterwards it is
//!   committed all the same.
//! - **Damage is detected.** WAL and pages are verified when the file is opened, and on request ([`Database::check`]); files that
//!   were moved or replaced accept no writes. See `sqlite/integrity.rs`.
//! - **Readers never wait for the writer**, nor it for them: the WAL has the old state and the new.

mod batch;
pub mod check;
mod connection;
mod error;
mod health;
mod integrity;
pub mod metrics;
mod migrations;
mod pages;
mod queue;
mod readers;
mod sums;
mod values;
mod wal;
mod work;
mod writer;

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

pub use check::Invariant;
pub use error::{Abort, OpenError};
pub use metrics::Metrics;
pub use pages::application;
pub use values::Micros;

use connection::File;
use health::Health;
use integrity::Integrity;
use queue::{Sender, queue};
use readers::Reader;
use work::{Operation, Query, Read, Write};
use writer::Writer;

use crate::storage::clock::Clock;
use crate::storage::displaced::Place;
use crate::storage::{State, Unavailable};

#[derive(Debug, Clone)]
pub struct Settings {
    /// Created if it is missing. Its name without the extension is the database's name in logs and metrics.
    pub path: PathBuf,
    /// Marks the desk's files: see [`application`].
    pub application: i32,
    /// Files that must not move while the database is open, such as the directory's lock.
    pub pinned: Vec<Place>,
    /// Schema migrations, each a script; a migration's number is its index, from 1 on. They are only ever appended. No deferred
    /// constraints: these would fail at the commit, with the whole batch.
    pub migrations: &'static [&'static str],
    /// Bound of the queue of operations, and of the queue of queries. Beyond that: [`Unavailable::Busy`].
    pub queue_max: usize,
    /// Most operations per commit.
    pub batch_max: usize,
    /// Reader threads.
    pub readers: usize,
}

/// A handle to a database; cheap to clone. When the last one is dropped, queued operations still run; to wait for them, call
/// [`Database::close`].
#[derive(Clone)]
pub struct Database {
    inner: Arc<Inner>,
}

struct Inner {
    operations: Sender<Box<dyn Operation>>,
    queries: Sender<Box<dyn Query>>,
    readers: usize,
    health: Arc<Health>,
    /// Owned by the writer: gone when the files are closed.
    integrity: Weak<Mutex<Integrity>>,
    /// One check at a time.
    checking: Mutex<()>,
    clock: Clock,
    metrics: Metrics,
    /// Closed once the writer, the last thread, has ended.
    ended: watch::Sender<()>,
    #[cfg(test)]
    file: File,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("name", &self.inner.health.name)
            .finish_non_exhaustive()
    }
}

impl Database {
    /// Opens the file, verifies it, migrates its schema, and starts the threads. Blocking: reads the whole file.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(settings: Settings, metrics: Metrics) -> Result<Self, OpenError> {
        let Settings {
            path,
            application,
            pinned,
            migrations,
            queue_max,
            batch_max,
            readers,
        } = settings;
        let health = Arc::new(Health::new(metrics::name(&path)));
        let file = File {
            pinned: pinned.into(),
            ..File::new(path)
        };
        let opened = migrations::open(&file, application, migrations)?;
        metrics.checked(true);
        let (integrity, clock) = (opened.integrity.shared(), opened.clock);
        let (queries, exit) = queue(queue_max);
        let exit = Arc::new(Mutex::new(exit));
        let mut threads = Vec::new();
        for _ in 0..readers.max(1) {
            let connection = file.reader();
            let connection = connection.map_err(|error| OpenError::of(&file.path, error))?;
            let (file, exit, health) = (file.clone(), Arc::clone(&exit), Arc::clone(&health));
            let reader = Reader::new(file.clone(), connection, exit, Arc::clone(&health));
            threads.push(start(&file, &health, "read", move || reader.run())?);
        }
        let (operations, exit) = queue(queue_max);
        let (ended, alive) = watch::channel(());
        let writer = Writer::new(
            file.clone(),
            (opened.connection, Arc::clone(&integrity), clock.clone()),
            exit,
            batch_max,
            Arc::clone(&health),
            metrics.clone(),
        );
        let readers = threads.len();
        start(&file, &health, "write", move || writer.run(threads, alive))?;
        let inner = Inner {
            operations,
            queries,
            readers,
            health,
            integrity: Arc::downgrade(&integrity),
            checking: Mutex::default(),
            clock,
            metrics,
            ended,
            #[cfg(test)]
            file,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Runs `operation` on the writer's thread, and answers after its commit with its result or its refusal. It must be short
    /// and must not block: all other operations wait for it. It changes rows and nothing else, neither the schema nor settings nor
    /// transactions, since it runs again if another operation of its batch is rolled back. A refusal before the first change is
    /// cheap; after it, the whole batch runs again.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub async fn write<T, E, F>(&self, operation: F) -> Result<Result<T, E>, Unavailable>
    where
        F: Fn(&Connection) -> Result<T, Abort<E>> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let operation = Box::new(Write::new(operation, answer));
        self.inner.operations.try_send(operation)?;
        answered.await.unwrap_or(Err(Unavailable::Stopped))
    }

    /// As [`Database::write`], for an operation that never refuses.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub async fn commit<T, F>(&self, operation: F) -> Result<T, Unavailable>
    where
        F: Fn(&Connection) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let committed =
            self.write(move |connection| Ok::<T, Abort<Infallible>>(operation(connection)?));
        match committed.await? {
            Ok(value) => Ok(value),
            Err(never) => match never {},
        }
    }

    /// Runs `query` on a reader's thread. All its statements see one snapshot, which has every write that was answered before.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub async fn read<T, F>(&self, query: F) -> Result<T, Unavailable>
    where
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        self.inner
            .queries
            .try_send(Box::new(Read { query, answer }))?;
        answered.await.unwrap_or(Err(Unavailable::Stopped))
    }

    /// Grows with every commit that changed something, acknowledged or not, before its answers are sent, and when damage is
    /// found. Read before a query it is a lower bound of what the query saw. Starts at 0 when the database is opened.
    pub fn version(&self) -> u64 {
        self.inner.health.version()
    }

    /// Whether writes succeed. False from the engine's first failure until the next successful commit, and once the database is
    /// closed.
    pub fn is_healthy(&self) -> bool {
        self.inner.health.is_healthy() && !self.inner.ended.is_closed()
    }

    /// As [`Database::is_healthy`], with time and reason.
    pub fn state(&self) -> State {
        if self.inner.ended.is_closed() {
            return State::down("the database is closed");
        }
        self.inner.health.state()
    }

    /// The clock for ages: it is stored with the data.
    pub fn clock(&self) -> Clock {
        self.inner.clock.clone()
    }

    /// Operations that wait for the writer.
    pub fn waiting(&self) -> usize {
        self.inner.operations.waiting()
    }

    /// The time that 99 % of the commits of the last ten minutes did not exceed; None if there were none.
    pub fn commit_p99(&self) -> Option<Duration> {
        self.inner.metrics.commit_p99()
    }

    pub fn update_gauges(&self) {
        self.inner.metrics.show(self.waiting(), self.is_healthy());
    }

    /// Runs queued operations, rejects new ones ([`Unavailable::Stopped`]), and returns once the WAL is checkpointed and the
    /// file closed. Other handles may still exist.
    pub async fn close(&self) {
        for _ in 0..self.inner.readers {
            self.inner.queries.close();
        }
        self.inner.operations.close();
        self.inner.ended.closed().await;
    }
}

/// Runs one query, on one snapshot, on a file that another process may be writing to. Does not migrate the schema.
///
/// # Errors
/// [`OpenError::Unreadable`] and its likes, if the file is not there, not a database, or without what is asked for.
pub fn query_file<T>(
    path: &Path,
    query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> Result<T, OpenError> {
    let looked = File::new(path.to_owned()).reader().and_then(|connection| {
        connection.execute_batch("BEGIN")?;
        query(&connection)
    });
    looked.map_err(|error| OpenError::of(path, error))
}

/// Copies one snapshot of a file that another process may be writing to, into a new file.
///
/// # Errors
/// As [`query_file`]; or if the copy cannot be written.
pub fn copy(path: &Path, to: &Path) -> Result<(), OpenError> {
    let copied = File::new(path.to_owned()).reader().and_then(|connection| {
        // Only the source is query-only.
        connection.pragma_update(None, "query_only", false)?;
        connection::make(to);
        connection.execute("VACUUM INTO ?", [to.to_string_lossy()])
    });
    copied.map(drop).map_err(|error| OpenError::of(path, error))
}

/// The kernel shows the first 15 bytes of a thread's name.
fn start(
    file: &File,
    health: &Health,
    does: &str,
    run: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, OpenError> {
    let name = format!("{does} {}", health.name);
    let started = thread::Builder::new().name(name).spawn(run);
    started.map_err(|reason| OpenError::Thread {
        path: file.path.clone(),
        reason,
    })
}

#[cfg(test)]
impl Database {
    pub(crate) const TEST_FILE: &str = "test.db";

    /// A database for a store's tests: [`Database::TEST_FILE`] in this directory.
    pub(crate) fn of_test(
        directory: &tempfile::TempDir,
        application: i32,
        migrations: &'static [&'static str],
    ) -> Self {
        let settings = Settings {
            path: directory.path().join(Self::TEST_FILE),
            application,
            pinned: Vec::new(),
            migrations,
            queue_max: 1000,
            batch_max: 64,
            readers: 1,
        };
        let metrics = Metrics::register(&settings.path);
        Self::open(settings, metrics).unwrap()
    }
}

#[cfg(test)]
mod tests;
