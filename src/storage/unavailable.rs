//! Why a storage engine does not answer.

use thiserror::Error;

/// Nothing was stored, except where [`Unavailable::Engine`] says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unavailable {
    /// The queue is full; the operation was not queued. A retry soon can help.
    #[error("the storage is busy")]
    Busy,
    /// The disk is full or fails, or the file is damaged. A retry later can help. If the engine fails between write and flush,
    /// it is unknown whether the write survives a power cut.
    #[error("the storage is down")]
    Engine,
    /// A bug: a statement that does not fit its tables, or a panic. A retry does not help; the log has the details.
    #[error("the operation failed")]
    Failed,
    /// The database was closed before the operation ran.
    #[error("the storage is closed")]
    Stopped,
}
