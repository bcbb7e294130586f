//! What outlives the process: one directory, and databases in it. It knows no desk and no HTTP; a desk's `sqlite.rs`
//! brings its tables and its statements, and finds everything else here.
//!
//! # The promise
//! What was answered is kept: a write is answered after it was committed and flushed to the disk, never before. What could
//! not be kept is said at once, and loses nothing that was kept before. What is no longer as it was answered is refused or
//! said, never passed over: see `sqlite/integrity.rs`.
//!
//! # The words
//! - **data directory**: where all files are ([`directory`]). One process at a time has it.
//! - **database**: one file ([`sqlite`]) with one writer and several readers.
//! - **operation**: what one caller wants written. It is kept as a whole or not at all, whatever its neighbours do.
//! - **batch**: the operations that were waiting together; they share one transaction and one flush.
//! - **query**: what one caller wants read. It sees one state, however many statements it has.
//! - **version**: a number that grows with what is kept; caches key on it.
//! - **well**: the last thing the engine was asked to keep was kept.
//! - **checksum file**: what each page of a database adds up to, and how far its log was acknowledged.
//! - **sound**: the last check found the files as they were acknowledged.
//! - **place**: the path of an open file, and which file that is ([`place`]).
//! - **probe**: a small write, every second while a database is not well, which finds out when it is again.
//!
//! ```text
//!                    full disk, I/O error, damage                    a commit, or a probe's
//!      well  --------------------------------------->  not well  ---------------------------->  well
//! ```
//!
//! # Bounded
//! Queues have an end ([`Unavailable::Busy`]). Space that was freed is used again or given back, and the log before
//! the file is cut to its size.
//!
//! # Deliberately absent
//! - Repeating what failed: the caller knows whether it is still wanted.
//! - Several processes on one directory: a file has one writer.
//! - SQL: it lives with the desk whose tables it names.

#[cfg(feature = "aws")]
pub mod aws;
pub mod clock;
pub mod directory;
pub mod place;
pub mod preflight;
#[cfg(feature = "redis")]
pub mod redis;
pub mod sqlite;

mod carried;
mod condition;
mod unavailable;

pub use carried::{CarriedThrough, carried_through};
pub use clock::Clock;
pub use condition::{Condition, FreeSpace, SpaceLow, State};
pub use unavailable::Unavailable;
