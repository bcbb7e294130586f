//! Runs a batch in one transaction, and each operation in it completely or not at all.
//!
//! A savepoint per operation costs processor time, mostly for copies of the pages that the operation changes, and nearly every
//! operation is committed. So a batch first runs without savepoints. An operation that is not committed leaves no trace if it has
//! changed nothing. If it has, the whole batch is rolled back and runs again, with a savepoint per operation.
//!
//! What makes this equivalent to a savepoint each time:
//!
//! - An operation's only effects are changed rows and its outcome, so it can run twice: the outcome of the last run counts.
//!   Operations are [`Fn`].
//! - `total_changes` counts every changed row. It counts no schema changes and no settings: operations make none.
//! - An operation does not end the transaction. After each one it is checked that there is one: the next would commit by itself.

use rusqlite::Connection;
use tracing::error;

use super::connection::execute;
use super::error::{Failure, is_of_engine};
use super::work::{OpOutcome, Operation};

/// Begins a transaction and runs the batch in it. Returns whether something was changed.
///
/// # Errors
/// If the engine fails: nothing of the batch may be committed.
pub(super) fn begin(
    connection: &Connection,
    batch: &mut [Box<dyn Operation>],
    database: &str,
) -> Result<bool, Failure> {
    let mut undone = Vec::new();
    let changed = run_batch(connection, batch, &mut undone);
    for outcome in undone {
        log(database, &outcome);
    }
    changed
}

fn run_batch(
    connection: &Connection,
    batch: &mut [Box<dyn Operation>],
    undone: &mut Vec<OpOutcome>,
) -> Result<bool, Failure> {
    let mut before = begin_empty(connection)?;
    if !run_all(connection, batch, undone)? {
        execute(connection, "ROLLBACK")?;
        undone.clear();
        before = begin_empty(connection)?;
        for operation in batch {
            run_in_savepoint(connection, operation.as_mut(), undone)?;
        }
    }
    Ok(connection.total_changes() != before)
}

/// Returns the number of changes so far.
fn begin_empty(connection: &Connection) -> rusqlite::Result<u64> {
    execute(connection, "BEGIN IMMEDIATE")?;
    Ok(connection.total_changes())
}

/// Runs the batch without savepoints. False if an operation that is not committed has changed something: the transaction must
/// be rolled back.
fn run_all(
    connection: &Connection,
    batch: &mut [Box<dyn Operation>],
    undone: &mut Vec<OpOutcome>,
) -> Result<bool, Failure> {
    let mut before = connection.total_changes();
    for operation in batch {
        let outcome = run(connection, operation.as_mut())?;
        let after = connection.total_changes();
        if !matches!(outcome, OpOutcome::Commit) {
            if after != before {
                return Ok(false);
            }
            undone.push(outcome);
        }
        before = after;
    }
    Ok(true)
}

fn run_in_savepoint(
    connection: &Connection,
    operation: &mut dyn Operation,
    undone: &mut Vec<OpOutcome>,
) -> Result<(), Failure> {
    execute(connection, "SAVEPOINT operation")?;
    let outcome = run(connection, operation)?;
    if !matches!(outcome, OpOutcome::Commit) {
        execute(connection, "ROLLBACK TO operation")?;
        undone.push(outcome);
    }
    Ok(execute(connection, "RELEASE operation")?)
}

/// # Errors
/// If the engine has failed. After some failures it rolls back the whole transaction by itself.
fn run(connection: &Connection, operation: &mut dyn Operation) -> Result<OpOutcome, Failure> {
    let outcome = operation.run(connection);
    let has_ended = connection.is_autocommit();
    match outcome {
        OpOutcome::Failed(error) if has_ended || is_of_engine(&error) => Err(error.into()),
        _ if has_ended => Err(Failure::Ended),
        outcome => Ok(outcome),
    }
}

/// Refusals are decisions and not logged.
fn log(database: &str, outcome: &OpOutcome) {
    match outcome {
        OpOutcome::Commit | OpOutcome::Rollback => {}
        OpOutcome::Failed(error) => {
            error!(database, %error, "an operation failed and is rolled back");
        }
        OpOutcome::Panicked(panic_message) => {
            error!(
                database,
                panic_message, "an operation panicked and is rolled back"
            );
        }
    }
}
