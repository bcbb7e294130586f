//! The promises of a database, each broken on purpose where it could be. No test waits for a moment: it waits for what it
//! wants to see.

mod batches;
mod damage;
mod failing;
mod opening;
mod reading;
mod space;

use std::convert::Infallible;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use tempfile::TempDir;
use testkit::until;
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinHandle;

use super::*;
use crate::telemetry::Registry;

const SCHEMA: &[&str] = &[
    "CREATE TABLE cups (name TEXT PRIMARY KEY, size INTEGER NOT NULL, filler BLOB) STRICT, WITHOUT ROWID",
];

/// A database in a directory of its own.
struct Shop {
    database: Database,
    registry: Registry,
    directory: TempDir,
}

impl Shop {
    fn open() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let registry = Registry::new(&[]);
        let mut settings = settings(directory.path());
        change(&mut settings);
        let metrics = registry.register(|| Metrics::register(&settings.path));
        let database = Database::open(settings, metrics).unwrap();
        Self {
            database,
            registry,
            directory,
        }
    }

    /// A metric's value as it is scraped.
    fn metric(&self, name: &str) -> u64 {
        self.database.update_gauges();
        let line = format!("{name}{{database=\"cups\"}} ");
        let text = self.registry.render();
        let value = text.lines().find_map(|said| said.strip_prefix(&line));
        value.map_or(0, |value| value.parse().unwrap())
    }

    fn commits(&self) -> u64 {
        self.metric("odyssey_storage_commits_total")
    }

    /// The names in the file, read over a connection of its own.
    fn names(&self) -> Vec<String> {
        names_in(&self.directory.path().join("cups.db"))
    }

    /// Keeps the writer busy until what is returned is dropped.
    async fn hold(&self) -> Held {
        let (release, wait) = mpsc::channel::<Infallible>();
        let (started, mut has_started) = unbounded_channel();
        let done = write(&self.database, move |_| {
            started.send(()).unwrap();
            let _ = wait.recv();
            Ok(())
        });
        has_started.recv().await.unwrap();
        Held { release, done }
    }

    /// Waits until so much waits for the writer.
    async fn waiting(&self, count: usize) {
        until("so many operations wait", async || {
            self.database.inner.operations.waiting() == count
        })
        .await;
    }
}

struct Held {
    release: mpsc::Sender<Infallible>,
    done: JoinHandle<Written<()>>,
}

impl Held {
    async fn release(self) {
        let Self { release, done } = self;
        drop(release);
        done.await.unwrap().unwrap().unwrap();
    }
}

type Written<T> = Result<Result<T, &'static str>, Unavailable>;

fn settings(directory: &Path) -> Settings {
    Settings {
        path: directory.join("cups.db"),
        application: application(b't'),
        pinned: Vec::new(),
        migrations: SCHEMA,
        queue_max: 1000,
        batch_max: 64,
        readers: 2,
    }
}

fn reopen(settings: Settings) -> Result<Database, OpenError> {
    let metrics = Metrics::register(&settings.path);
    Database::open(settings, metrics)
}

/// Starts the write at once, whether or not the caller awaits the result.
fn write<T: Send + 'static>(
    database: &Database,
    operation: impl Fn(&Connection) -> Result<T, Abort<&'static str>> + Send + 'static,
) -> JoinHandle<Written<T>> {
    let database = database.clone();
    tokio::spawn(async move { database.write(operation).await })
}

/// The usual operation.
fn add(database: &Database, name: impl Into<String>) -> JoinHandle<Written<()>> {
    let name = name.into();
    write(database, move |connection| Ok(insert(connection, &name)?))
}

fn insert(connection: &Connection, name: &str) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("INSERT INTO cups VALUES (?1, 1, NULL)")?;
    statement.execute([name])?;
    Ok(())
}

fn names_in(path: &Path) -> Vec<String> {
    let connection = Connection::open(path).unwrap();
    names(&connection).unwrap()
}

fn names(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("SELECT name FROM cups ORDER BY name")?;
    let names = statement.query_map([], |row| row.get(0))?;
    names.collect()
}
