//! A database file with one writer and several readers, each a thread with its own connection.
//!
//! ```text
//!   write(operation) -> queue -> writer: BEGIN | SAVEPOINT operation RELEASE | ... | COMMIT -> answers
//!   read(query)      -> queue -> readers: BEGIN | query | COMMIT -> answer
//! ```
//!
//! - **Flushing is shared.** A flush to the disk costs as much for one operation as for sixty. The writer takes whatever
//!   waits, keeps it with one commit, and only then answers. Nobody waits for company: an operation that comes alone is
//!   committed alone.
//! - **Operations do not know their neighbours.** Each has a savepoint; what is refused, breaks or panics is taken back by
//!   itself.
//! - **The engine fails for all.** A full disk or an I/O error takes the whole batch back, and everybody in it is told
//!   ([`Unavailable::Engine`]). The connection is opened again for the next batch; a probe finds out by itself when the
//!   cause is gone.
//! - **Whoever leaves** before the writer took the operation leaves no trace; afterwards it is kept as if they were there.
//! - **Damage is noticed.** Log and pages are verified when the file is opened, and on request ([`Database::check`]); files that
//!   are not where they were opened keep nothing. `sqlite/integrity.rs` says how.
//! - **Readers never wait for the writer**, nor it for them: the log before the file (WAL) has the old state and the new.

pub mod check;
mod connection;
mod error;
mod health;
mod integrity;
mod log;
pub mod metrics;
mod migrations;
mod queue;
mod readers;
mod sums;
mod values;
mod work;
mod writer;

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::thread::{self, JoinHandle};

use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

pub use check::Invariant;
pub use error::{OpenError, Undone};
pub use metrics::Metrics;
pub use migrations::application;
pub use values::Micros;

use connection::File;
use health::Health;
use integrity::Integrity;
use queue::{Entrance, queue};
use readers::Reader;
use work::{Operation, Query, Read, Write};
use writer::Writer;

use crate::storage::clock::Clock;
use crate::storage::place::Place;
use crate::storage::{State, Unavailable};

/// What a database is made of.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The file; made if it is missing. Its name without the ending is the database's name in the log and the metrics.
    pub path: PathBuf,
    /// Marks the desk's files: see [`application`].
    pub application: i32,
    /// Files that must stay where they are for as long as the database is open, such as the directory's lock.
    pub beside: Vec<Place>,
    /// The schema, step by step, each a script; a step's number is its place, from 1 on. Steps are only ever appended.
    /// No deferred constraints: they would show at the commit, and fail the whole batch.
    pub migrations: &'static [&'static str],
    /// Operations that may wait, and queries that may wait. Beyond that: [`Unavailable::Busy`].
    pub queue_max: usize,
    /// Operations that share a commit at most.
    pub batch_max: usize,
    /// Threads that read.
    pub readers: usize,
}

/// A handle to a database; cheap to clone. When the last one is dropped, what is queued is still done; whoever wants to
/// wait for that, or has handles in too many places, calls [`Database::close`].
#[derive(Clone)]
pub struct Database {
    inner: Arc<Inner>,
}

struct Inner {
    operations: Entrance<Box<dyn Operation>>,
    queries: Entrance<Box<dyn Query>>,
    readers: usize,
    health: Arc<Health>,
    /// The writer's: gone when it has closed the files.
    integrity: Weak<Mutex<Integrity>>,
    /// One check at a time.
    checking: Mutex<()>,
    clock: Clock,
    metrics: Metrics,
    /// Closed once the writer, who ends last, has ended.
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
    /// Opens the file, verifies it, brings its schema up to date, and starts the threads. Blocks for as long as that takes:
    /// all of the file is read.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(settings: Settings, metrics: Metrics) -> Result<Self, OpenError> {
        let Settings {
            path,
            application,
            beside,
            migrations,
            queue_max,
            batch_max,
            readers,
        } = settings;
        let health = Arc::new(Health::new(metrics::name(&path)));
        let file = File {
            beside: beside.into(),
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

    /// Runs `operation` on the writer's thread, and answers after its commit: what it returned, or why it refused itself.
    /// It should be short, and not wait for anything: everybody else's operation waits for it. Transactions are not its
    /// business.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub async fn write<T, E, F>(&self, operation: F) -> Result<Result<T, E>, Unavailable>
    where
        F: FnOnce(&Connection) -> Result<T, Undone<E>> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let operation = Box::new(Write::new(operation, answer));
        self.inner.operations.push(operation)?;
        answered.await.unwrap_or(Err(Unavailable::Stopped))
    }

    /// As [`Database::write`], for an operation that never refuses itself.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub async fn keep<T, F>(&self, operation: F) -> Result<T, Unavailable>
    where
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let kept = self.write(|connection| Ok::<T, Undone<Infallible>>(operation(connection)?));
        match kept.await? {
            Ok(kept) => Ok(kept),
            Err(never) => match never {},
        }
    }

    /// Runs `query` on a reader's thread. All its statements see one state, in which everything is that was answered
    /// before.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub async fn read<T, F>(&self, query: F) -> Result<T, Unavailable>
    where
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        self.inner.queries.push(Box::new(Read { query, answer }))?;
        answered.await.unwrap_or(Err(Unavailable::Stopped))
    }

    /// Grows with every commit that changed something, acknowledged or not, before its answers are sent, and when damage is found. Taken before a read it is a lower
    /// bound of what the read saw. It begins at 0 each time the database is opened.
    pub fn version(&self) -> u64 {
        self.inner.health.version()
    }

    /// Whether what is written is kept. False from the engine's first failure on until something was kept again, and
    /// once the database is closed.
    pub fn is_healthy(&self) -> bool {
        self.inner.health.is_healthy() && !self.inner.ended.is_closed()
    }

    /// As [`Database::is_well`], with its time and reason.
    pub fn state(&self) -> State {
        if self.inner.ended.is_closed() {
            return State::down("the database is closed");
        }
        self.inner.health.state()
    }

    /// The clock by which ages go: it is stored with the data.
    pub fn clock(&self) -> Clock {
        self.inner.clock.clone()
    }

    /// Brings the gauges up to date.
    pub fn update_gauges(&self) {
        let waiting = self.inner.operations.waiting();
        self.inner.metrics.show(waiting, self.is_healthy());
    }

    /// Finishes what is queued, takes nothing more in ([`Unavailable::Stopped`]), and returns once the file is closed,
    /// its log copied into it. Other handles may still be there.
    pub async fn close(&self) {
        for _ in 0..self.inner.readers {
            self.inner.queries.close();
        }
        self.inner.operations.close();
        self.inner.ended.closed().await;
    }
}

/// Reads a file that another process may be writing to: one query, which sees one state. Nothing is brought up to date.
///
/// # Errors
/// [`OpenError::Unreadable`] and its likes, if the file is not there, not a database, or without what is asked for.
pub fn look<T>(
    path: &Path,
    query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> Result<T, OpenError> {
    let looked = File::new(path.to_owned()).reader().and_then(|connection| {
        connection.execute_batch("BEGIN")?;
        query(&connection)
    });
    looked.map_err(|error| OpenError::of(path, error))
}

/// Copies a file that another process may be writing to: one state of it, into a file that is not there yet.
///
/// # Errors
/// As [`look`]; or if the copy cannot be written.
pub fn copy(path: &Path, to: &Path) -> Result<(), OpenError> {
    let copied = File::new(path.to_owned()).reader().and_then(|connection| {
        // Only what it reads is never written to.
        connection.pragma_update(None, "query_only", false)?;
        connection::make(to);
        connection.execute("VACUUM INTO ?", [to.to_string_lossy()])
    });
    copied.map(drop).map_err(|error| OpenError::of(path, error))
}

/// Starts a thread that is named after what it does. The kernel shows the first 15 bytes of the name.
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
mod tests;
