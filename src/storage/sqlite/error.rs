use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;
use thiserror::Error;

use crate::storage::displaced::Displaced;

/// The message names the file and what to do.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error("cannot open `{}`: {reason}", .path.display())]
    Unreadable {
        path: PathBuf,
        reason: rusqlite::Error,
    },
    /// The file is read-only; the engine would open it all the same.
    #[error("cannot write to `{}`: check its permissions", .path.display())]
    ReadOnly { path: PathBuf },
    #[error("`{}` is not a database: move it aside, or restore a backup", .path.display())]
    NotADatabase { path: PathBuf },
    /// The file, its WAL or its checksums were truncated, changed or replaced.
    #[error("`{}` is damaged ({detail}): move it aside, with its `-wal` and `-sums` files, or restore a backup in place of all three", .path.display())]
    Damaged { path: PathBuf, detail: String },
    /// A database, but not this desk's.
    #[error("`{}` is another program's or another desk's database: move it aside, or choose another data directory", .path.display())]
    Foreign { path: PathBuf },
    #[error("`{}` was written by a newer version of odyssey (schema {found}, this program knows {known})", .path.display())]
    Newer {
        path: PathBuf,
        found: u32,
        known: u32,
    },
    /// Readers and the writer need a WAL, and the file system does not permit one.
    #[error("the file system of `{}` permits no write-ahead log (the journal stays `{mode}`): choose a local disk", .path.display())]
    NoLog { path: PathBuf, mode: String },
    /// The migration failed; the file is unchanged.
    #[error("cannot migrate `{}` from schema {found} to {known}: {reason}", .path.display())]
    Migration {
        path: PathBuf,
        found: u32,
        known: u32,
        reason: rusqlite::Error,
    },
    #[error("cannot verify `{}`, or write its `-sums` file: {reason}", .path.display())]
    Unverifiable { path: PathBuf, reason: io::Error },
    #[error("cannot start a thread for `{}`: {reason}", .path.display())]
    Thread { path: PathBuf, reason: io::Error },
}

impl OpenError {
    /// The engine's error while a file is opened.
    pub(super) fn of(path: &Path, reason: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match reason.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Self::NotADatabase { path },
            Some(ErrorCode::DatabaseCorrupt) => Self::Damaged {
                path,
                detail: reason.to_string(),
            },
            _ => Self::Unreadable { path, reason },
        }
    }
}

/// Why a commit failed or must not be acknowledged.
#[derive(Debug, Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Engine(#[from] rusqlite::Error),
    /// A bug: what the operations after it wrote would not be in the batch's transaction.
    #[error("an operation has ended its batch's transaction")]
    Ended,
    /// Its files were moved.
    #[error(transparent)]
    Displaced(#[from] Displaced),
    /// The commit cannot be noted.
    #[error("the checksum file cannot be written: {0}")]
    Sums(io::Error),
    /// A page was found damaged before a checkpoint.
    #[error("the files are damaged: {0}")]
    Found(String),
    /// Damage was found before.
    #[error("the files are damaged")]
    Damaged,
}

/// Why an operation is not committed.
#[derive(Debug)]
pub enum Abort<E> {
    /// A decision: it is rolled back, and returned to the caller.
    Refused(E),
    /// A statement failed.
    Failed(rusqlite::Error),
}

impl<E> From<rusqlite::Error> for Abort<E> {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error)
    }
}

/// Whether the engine failed rather than one statement. The connection cannot be trusted then.
pub(super) fn is_of_engine(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::ReadOnly
                | ErrorCode::CannotOpen
                | ErrorCode::PermissionDenied
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::OutOfMemory
        )
    )
}
