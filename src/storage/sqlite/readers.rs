//! Reader threads. Each has its own connection; all share one queue.

use std::sync::{Arc, Mutex};

use rusqlite::Connection;
use tracing::error;

use super::connection::{File, connected, execute};
use super::health::Health;
use super::queue::Receiver;
use super::work::{Query, QueryError};
use crate::storage::Unavailable;

/// The readers' queue: one reader at a time waits for work, the others wait for the lock.
pub(super) type Queries = Arc<Mutex<Receiver<Box<dyn Query>>>>;

pub(super) struct Reader {
    file: File,
    /// None after a failure, until the next query.
    connection: Option<Connection>,
    queries: Queries,
    health: Arc<Health>,
    /// The last query found the engine failing; logged.
    failing: bool,
}

impl Reader {
    pub(super) fn new(
        file: File,
        connection: Connection,
        queries: Queries,
        health: Arc<Health>,
    ) -> Self {
        Self {
            file,
            connection: Some(connection),
            queries,
            health,
            failing: false,
        }
    }

    pub(super) fn run(mut self) {
        while let Some(query) = self.next() {
            if query.is_abandoned() {
                continue;
            }
            if self.health.is_sound() {
                self.read(query);
            } else {
                query.reject(Unavailable::Engine);
            }
        }
    }

    fn next(&self) -> Option<Box<dyn Query>> {
        let queries = self.queries.lock();
        let queries = queries.expect("receiving does not panic");
        queries.recv()
    }

    fn read(&mut self, query: Box<dyn Query>) {
        let connection = match self.begin() {
            Ok(connection) => connection,
            Err(error) => {
                self.failed(&error);
                query.reject(Unavailable::Engine);
                return;
            }
        };
        let ran = query.run(connection);
        // Nothing to commit; it ends the snapshot, so that the WAL can be truncated.
        let ended = execute(connection, "COMMIT");
        match ran {
            Ok(()) => {}
            Err(QueryError::Engine(error)) => {
                self.failed(&error);
                return;
            }
            Err(QueryError::Statement(error)) => {
                error!(database = self.health.name, %error, "a query failed");
            }
            Err(QueryError::Panicked(panic_message)) => {
                error!(
                    database = self.health.name,
                    panic_message, "a query panicked"
                );
            }
        }
        match ended {
            Ok(()) => self.failing = false,
            Err(error) => self.failed(&error),
        }
    }

    /// The connection, in a read transaction: all statements see one snapshot.
    fn begin(&mut self) -> rusqlite::Result<&Connection> {
        let connection = connected(&mut self.connection, || self.file.reader())?;
        execute(connection, "BEGIN")?;
        Ok(connection)
    }

    fn failed(&mut self, error: &rusqlite::Error) {
        self.connection = None;
        if !self.failing {
            self.failing = true;
            error!(database = self.health.name, %error, "the storage cannot be read");
        }
    }
}
