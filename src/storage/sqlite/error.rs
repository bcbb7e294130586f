//! What can go wrong with a database: when it is opened, and afterwards.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;
use thiserror::Error;

use crate::storage::place::Displaced;

/// Why a database was not opened. Its sentence names the file, and what can be done.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The engine cannot get at it.
    #[error("cannot open `{}`: {reason}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the engine said.
        reason: rusqlite::Error,
    },
    /// The system permits reading it only; the engine would open it all the same.
    #[error("cannot write to `{}`: see to its permissions", .path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// It is something else.
    #[error("`{}` is not a database: move it aside, or restore a backup", .path.display())]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// It, its log or its checksums were cut off, written into, or replaced.
    #[error("`{}` is damaged ({detail}): move it aside, with its `-wal` and `-sums` files, or restore a backup in place of all three", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found first.
        detail: String,
    },
    /// It is a database, but not this desk's.
    #[error("`{}` is another program's or another desk's database: move it aside, or choose another data directory", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A newer program was here; what it wrote cannot be judged.
    #[error("`{}` was written by a newer version of odyssey (schema {found}, this program knows {known})", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// The program's.
        known: u32,
    },
    /// Readers and the writer need a log before the file, and the file system does not permit one.
    #[error("the file system of `{}` permits no write-ahead log (the journal stays `{mode}`): choose a local disk", .path.display())]
    NoLog {
        /// The file.
        path: PathBuf,
        /// The journal that is used instead.
        mode: String,
    },
    /// The schema could not be brought up to date; the file is as it was.
    #[error("cannot bring `{}` from schema {found} to {known}: {reason}", .path.display())]
    Migration {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// The program's.
        known: u32,
        /// What the engine said.
        reason: rusqlite::Error,
    },
    /// Whether it is whole cannot be found out, or noted.
    #[error("cannot verify `{}`, or write its `-sums` file: {reason}", .path.display())]
    Unverifiable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// No thread for it.
    #[error("cannot start a thread for `{}`: {reason}", .path.display())]
    Thread {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
}

impl OpenError {
    /// What the engine's error means while a file is opened.
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

/// Why a database does not keep what it is given.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// The engine says so.
    #[error(transparent)]
    Engine(#[from] rusqlite::Error),
    /// Its files are elsewhere.
    #[error(transparent)]
    Displaced(#[from] Displaced),
    /// What was committed cannot be noted.
    #[error("the checksum file cannot be written: {0}")]
    Sums(io::Error),
    /// A page was found damaged before the log was copied over it.
    #[error("the files are damaged: {0}")]
    Found(String),
    /// Damage was found before.
    #[error("the files are damaged")]
    Damaged,
}

/// Why an operation does not want to be kept.
#[derive(Debug)]
pub enum Undone<E> {
    /// A decision: it is taken back, and the caller is told.
    Refused(E),
    /// The engine did not do a statement.
    Failed(rusqlite::Error),
}

impl<E> From<rusqlite::Error> for Undone<E> {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error)
    }
}

/// Whether it is the engine that fails, rather than one statement. What follows on the same connection cannot be trusted.
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
