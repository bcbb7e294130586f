//! Operations and queries as the threads see them: a closure, and a channel for its answer.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::error::{Abort, is_of_engine};
use crate::storage::Unavailable;

/// An operation in the writer's queue.
pub(super) trait Operation: Send {
    /// Whether its caller has left.
    fn is_abandoned(&self) -> bool;
    /// May be called again, after a rollback: the last outcome counts.
    fn run(&mut self, connection: &Connection) -> OpOutcome;
    /// Answers with the operation's outcome if its batch was committed, with the reason otherwise.
    fn answer(self: Box<Self>, batch: Result<(), Unavailable>);
}

/// How an operation ended.
pub(super) enum OpOutcome {
    /// To be committed.
    Commit,
    /// It was refused: to be rolled back.
    Rollback,
    /// A statement failed: to be rolled back, if the engine still can.
    Failed(rusqlite::Error),
    /// It panicked, with this message: to be rolled back.
    Panicked(String),
}

pub(super) type Written<T, E> = Result<Result<T, E>, Unavailable>;

pub(super) struct Write<F, T, E> {
    operation: F,
    outcome: Written<T, E>,
    answer: oneshot::Sender<Written<T, E>>,
}

impl<F, T, E> Write<F, T, E> {
    pub(super) fn new(operation: F, answer: oneshot::Sender<Written<T, E>>) -> Self {
        Self {
            operation,
            outcome: Err(Unavailable::Failed),
            answer,
        }
    }
}

impl<F, T, E> Operation for Write<F, T, E>
where
    F: Fn(&Connection) -> Result<T, Abort<E>> + Send,
    T: Send,
    E: Send,
{
    fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }

    fn run(&mut self, connection: &Connection) -> OpOutcome {
        let (outcome, ended) = match guarded(|| (self.operation)(connection)) {
            Ok(Ok(value)) => (Ok(Ok(value)), OpOutcome::Commit),
            Ok(Err(Abort::Refused(reason))) => (Ok(Err(reason)), OpOutcome::Rollback),
            Ok(Err(Abort::Failed(error))) => (Err(Unavailable::Failed), OpOutcome::Failed(error)),
            Err(message) => (Err(Unavailable::Failed), OpOutcome::Panicked(message)),
        };
        self.outcome = outcome;
        ended
    }

    fn answer(self: Box<Self>, batch: Result<(), Unavailable>) {
        let outcome = match batch {
            Ok(()) => self.outcome,
            Err(unavailable) => Err(unavailable),
        };
        // The caller may have left.
        let _ = self.answer.send(outcome);
    }
}

/// A query in the readers' queue.
pub(super) trait Query: Send {
    /// Whether its caller has left.
    fn is_abandoned(&self) -> bool;
    /// Runs it and answers.
    ///
    /// # Errors
    /// Why the answer is [`Unavailable::Engine`] or [`Unavailable::Failed`].
    fn run(self: Box<Self>, connection: &Connection) -> Result<(), QueryError>;
    /// Answers without having run.
    fn reject(self: Box<Self>, unavailable: Unavailable);
}

pub(super) enum QueryError {
    /// The engine failed; the connection is useless.
    Engine(rusqlite::Error),
    Statement(rusqlite::Error),
    Panicked(String),
}

pub(super) struct Read<F, T> {
    pub(super) query: F,
    pub(super) answer: oneshot::Sender<Result<T, Unavailable>>,
}

impl<F, T> Query for Read<F, T>
where
    F: FnOnce(&Connection) -> rusqlite::Result<T> + Send,
    T: Send,
{
    fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }

    fn run(self: Box<Self>, connection: &Connection) -> Result<(), QueryError> {
        let Self { query, answer } = *self;
        let (outcome, broken) = match guarded(|| query(connection)) {
            Ok(Ok(value)) => (Ok(value), Ok(())),
            Ok(Err(error)) if is_of_engine(&error) && !is_attempt_to_write(&error) => {
                (Err(Unavailable::Engine), Err(QueryError::Engine(error)))
            }
            Ok(Err(error)) => (Err(Unavailable::Failed), Err(QueryError::Statement(error))),
            Err(message) => (Err(Unavailable::Failed), Err(QueryError::Panicked(message))),
        };
        let _ = answer.send(outcome);
        broken
    }

    fn reject(self: Box<Self>, unavailable: Unavailable) {
        let _ = self.answer.send(Err(unavailable));
    }
}

/// A query that writes is a bug, not an engine failure; a file that became read-only has an extended code.
fn is_attempt_to_write(error: &rusqlite::Error) -> bool {
    error
        .sqlite_error()
        .is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_READONLY)
}

/// Catches a panic and returns its message. The caller rolls back the transaction.
fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let message = panic
            .downcast_ref::<&str>()
            .map(|message| (*message).to_owned());
        message
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default()
    })
}
