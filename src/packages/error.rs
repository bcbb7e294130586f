//! What can go wrong with a package, without HTTP.

use thiserror::Error;

/// Why nobody could be asked. Nothing is lost that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unavailable {
    /// Too many are waiting already; worth trying again at once.
    #[error("the store is busy")]
    Busy,
    /// The engine is down; worth trying again later.
    #[error("the store is down")]
    Down,
    /// The server is being stopped.
    #[error("the store is closed")]
    Closed,
    /// A mistake in the program; the log has it.
    #[error("the store failed")]
    Bug,
}
