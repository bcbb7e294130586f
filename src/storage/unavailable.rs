//! Why an engine gives no answer, whichever engine it is.

use thiserror::Error;

/// Why there is no answer. Nothing was kept, except where [`Unavailable::Engine`] says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unavailable {
    /// Too many are waiting already; it was not taken in. Worth trying again soon.
    #[error("the storage is busy")]
    Busy,
    /// The engine could not keep or read it: the disk is full or fails, or the file is damaged. Worth trying again later.
    /// In the one moment between writing and flushing nobody can tell whether it will be there after a power cut.
    #[error("the storage does not work")]
    Engine,
    /// It broke by itself: a statement that does not fit its tables, or a panic. A mistake of the program; trying again
    /// does not help. The log tells more.
    #[error("the operation failed")]
    Failed,
    /// The database was closed before it was its turn.
    #[error("the storage is closed")]
    Stopped,
}
