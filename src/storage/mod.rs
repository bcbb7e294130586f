//! Durable storage: one directory, and databases in it. It knows no desk and no HTTP; a desk's `sqlite.rs` has its tables and
//! statements.
//!
//! # The promise
//! A write is answered after it was committed and flushed to the disk, never before. A write that fails is answered at once, and
//! loses nothing that was stored before. Data that no longer is as it was answered is refused or reported, never ignored: see
//! `sqlite/integrity.rs`.
//!
//! # The words
//! - **data directory**: has all files ([`directory`]). One process at a time holds its lock.
//! - **database**: one file ([`sqlite`]) with one writer and several readers.
//! - **operation**: one caller's write. It is committed as a whole or not at all, whatever its neighbours do.
//! - **batch**: the operations that were queued together; they share one transaction and one flush.
//! - **query**: one caller's read. It sees one snapshot, however many statements it has.
//! - **version**: a number that grows with every commit; caches use it as a key.
//! - **well**: the engine's last commit succeeded.
//! - **checksum file**: a checksum of each page of a database, and how far its WAL was acknowledged.
//! - **sound**: the last check found no damage.
//! - **place**: the path of an open file, and which file that is ([`displaced`]).
//! - **probe**: a small write, every second while a database is not well, which finds out when it is again.
//!
//! ```text
//!                    full disk, I/O error, damage                    a commit, or a probe's
//!      well  --------------------------------------->  not well  ---------------------------->  well
//! ```
//!
//! # Bounded
//! Queues are bounded ([`Unavailable::Busy`]). Freed space is used again or returned to the file system, and the WAL is
//! truncated after checkpoints.
//!
//! # Deliberately absent
//! - Retries: the caller knows whether the operation is still wanted.
//! - Several processes on one directory: a file has one writer.
//! - SQL: it lives with the desk whose tables it names.

#[cfg(feature = "aws")]
pub mod aws;
pub mod clock;
pub mod config;
pub mod directory;
pub mod displaced;
pub mod preflight;
#[cfg(feature = "redis")]
pub mod redis;
pub mod sqlite;

mod carried;
mod condition;
mod free_space;
mod unavailable;

pub use carried::{CarriedThrough, carried_through};
pub use clock::Clock;
pub use condition::{Condition, Failure, State};
pub use free_space::{FreeSpace, SpaceLow};
pub use unavailable::Unavailable;
