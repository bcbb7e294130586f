//! Operations and queries as the threads see them: something that runs once, and somebody who waits for the answer.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::error::{Undone, is_of_engine};
use crate::storage::Unavailable;

/// An operation on its way through the writer.
pub(super) trait Operation: Send {
    /// Nobody waits for its answer any more.
    fn is_abandoned(&self) -> bool;
    /// Runs it; called once.
    fn run(&mut self, connection: &Connection) -> Ran;
    /// Answers: what it came to if its batch was kept, and why not otherwise.
    fn answer(self: Box<Self>, batch: Result<(), Unavailable>);
}

/// How an operation ended.
pub(super) enum Ran {
    /// It wants to be kept.
    Keep,
    /// It was refused: to be taken back.
    Undo,
    /// A statement was not done: to be taken back, if the engine still can.
    Broken(rusqlite::Error),
    /// It panicked, saying this: to be taken back.
    Panicked(String),
}

/// What the caller of an operation is told.
pub(super) type Written<T, E> = Result<Result<T, E>, Unavailable>;

/// An operation, and whom to answer.
pub(super) struct Write<F, T, E> {
    operation: Option<F>,
    outcome: Written<T, E>,
    answer: oneshot::Sender<Written<T, E>>,
}

impl<F, T, E> Write<F, T, E> {
    pub(super) fn new(operation: F, answer: oneshot::Sender<Written<T, E>>) -> Self {
        Self {
            operation: Some(operation),
            outcome: Err(Unavailable::Failed),
            answer,
        }
    }
}

impl<F, T, E> Operation for Write<F, T, E>
where
    F: FnOnce(&Connection) -> Result<T, Undone<E>> + Send,
    T: Send,
    E: Send,
{
    fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }

    fn run(&mut self, connection: &Connection) -> Ran {
        let operation = self.operation.take().expect("an operation runs once");
        match guarded(|| operation(connection)) {
            Ok(Ok(value)) => {
                self.outcome = Ok(Ok(value));
                Ran::Keep
            }
            Ok(Err(Undone::Refused(reason))) => {
                self.outcome = Ok(Err(reason));
                Ran::Undo
            }
            Ok(Err(Undone::Failed(error))) => Ran::Broken(error),
            Err(said) => Ran::Panicked(said),
        }
    }

    fn answer(self: Box<Self>, batch: Result<(), Unavailable>) {
        let outcome = match batch {
            Ok(()) => self.outcome,
            Err(unavailable) => Err(unavailable),
        };
        // Whoever has left meanwhile does not want to know.
        let _ = self.answer.send(outcome);
    }
}

/// A query on its way through a reader.
pub(super) trait Query: Send {
    /// Nobody waits for its answer any more.
    fn is_abandoned(&self) -> bool;
    /// Runs it and answers.
    ///
    /// # Errors
    /// Why the answer is [`Unavailable::Engine`] or [`Unavailable::Failed`].
    fn run(self: Box<Self>, connection: &Connection) -> Result<(), Broken>;
    /// Answers without having run.
    fn turn_away(self: Box<Self>, unavailable: Unavailable);
}

/// Why a query has no result.
pub(super) enum Broken {
    /// The engine fails; the connection is of no use any more.
    Engine(rusqlite::Error),
    /// A statement was not done.
    Statement(rusqlite::Error),
    /// It panicked, saying this.
    Panicked(String),
}

/// A query, and whom to answer.
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

    fn run(self: Box<Self>, connection: &Connection) -> Result<(), Broken> {
        let Self { query, answer } = *self;
        let (outcome, broken) = match guarded(|| query(connection)) {
            Ok(Ok(value)) => (Ok(value), Ok(())),
            Ok(Err(error)) if is_of_engine(&error) && !is_attempt_to_write(&error) => {
                (Err(Unavailable::Engine), Err(Broken::Engine(error)))
            }
            Ok(Err(error)) => (Err(Unavailable::Failed), Err(Broken::Statement(error))),
            Err(said) => (Err(Unavailable::Failed), Err(Broken::Panicked(said))),
        };
        let _ = answer.send(outcome);
        broken
    }

    fn turn_away(self: Box<Self>, unavailable: Unavailable) {
        let _ = self.answer.send(Err(unavailable));
    }
}

/// A query that writes is the program's mistake, not the engine's; a file that turned read-only has a longer code.
fn is_attempt_to_write(error: &rusqlite::Error) -> bool {
    error
        .sqlite_error()
        .is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_READONLY)
}

/// Runs somebody else's code; a panic becomes what it said. What it may have left half done is taken back by whoever
/// calls this, with the transaction.
fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let said = panic.downcast_ref::<&str>().map(|said| (*said).to_owned());
        said.or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default()
    })
}
