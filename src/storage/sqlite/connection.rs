//! Connections to one file, and how they are set up.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::storage::directory::sync_parent;
use crate::storage::place::Place;

/// How long somebody else's lock on the file is waited for: an operator's tool may write to it for a moment.
const BUSY_TIMEOUT: Duration = Duration::from_millis(250);
/// Statements that stay prepared per connection: a desk's, and those around them.
const STATEMENTS: usize = 64;
/// What the log before the file is cut to once it was copied into the file, in bytes. The writer copies it
/// after [`CHECKPOINT_AFTER`] pages, which are as much.
pub(super) const LOG_MAX: u64 = 8 << 20;
/// Frames after which the log is copied into the file. The engine would do so after 1000; a checkpoint has one flush more than
/// the engine's, that of the checksums, and half as many of them cost less.
pub(super) const CHECKPOINT_AFTER: u32 = 2000;

/// A database's file.
#[derive(Debug, Clone)]
pub(super) struct File {
    pub(super) path: PathBuf,
    /// Files that must stay where they are for as long as this one is open.
    pub(super) beside: Arc<[Place]>,
    /// A disk as small as a test wants it, in pages; 0: as large as it is. Connections learn of it when they are opened.
    #[cfg(test)]
    pub(super) pages_max: Arc<std::sync::atomic::AtomicU32>,
}

impl File {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            beside: Arc::default(),
            #[cfg(test)]
            pages_max: Arc::default(),
        }
    }

    /// A connection that leaves everything as it is unless it is told to write. Makes an empty file if there is none.
    pub(super) fn touch(&self) -> rusqlite::Result<Connection> {
        let create = OpenFlags::SQLITE_OPEN_CREATE;
        make(&self.path);
        connect(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE | create)
    }

    /// The writer's connection. The file must be there: one that vanished is not replaced by an empty one.
    pub(super) fn writer(&self) -> rusqlite::Result<Connection> {
        let connection = connect(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        set_up_writer(&connection)?;
        #[cfg(test)]
        match self.pages_max.load(std::sync::atomic::Ordering::SeqCst) {
            0 => {}
            pages => connection.pragma_update(None, "max_page_count", pages)?,
        }
        Ok(connection)
    }

    /// A reader's connection.
    pub(super) fn reader(&self) -> rusqlite::Result<Connection> {
        let connection = connect(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.pragma_update(None, "query_only", true)?;
        // The first read maps the log's index; from now on no space on the disk is needed for it.
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(connection)
    }

    /// Where its log is.
    pub(super) fn log(&self) -> PathBuf {
        beside(&self.path, "-wal")
    }

    /// Where its checksums are: see [`super::sums`].
    pub(super) fn sums(&self) -> PathBuf {
        beside(&self.path, "-sums")
    }

    /// The log's length now, in bytes.
    pub(super) fn log_length(&self) -> u64 {
        std::fs::metadata(self.log()).map_or(0, |log| log.len())
    }
}

/// A file whose name is this one's with something behind it.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut path = path.to_owned().into_os_string();
    path.push(ending);
    path.into()
}

/// Makes an empty file that only this user can read; the engine gives its log the same mode. If that fails, the engine will
/// say why when it opens the file.
pub(super) fn make(path: &Path) {
    let mut new = OpenOptions::new();
    if new
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .is_ok()
    {
        let _ = sync_parent(path);
    }
}

/// Makes a connection the writer's. Returns the journal that is used; anything but `wal` is of no use here.
pub(super) fn set_up_writer(connection: &Connection) -> rusqlite::Result<String> {
    let mode = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    // FULL flushes the log with every commit: what was answered survives a power cut. Checkpoints are the writer's own: see
    // [`super::integrity`].
    connection.execute_batch(&format!(
        "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA journal_size_limit = {LOG_MAX};
         PRAGMA wal_autocheckpoint = 0;"
    ))?;
    // In a new file the change of the journal stays a transaction until something is read; no checkpoint is possible before.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(mode)
}

/// What all connections have in common. No memory map: an error of the disk would be a signal instead of a result.
/// 8 MB of cache each hold the inner pages of some gigabytes.
fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Else a statement that could use a partial index is prepared anew whenever what is bound to it changes.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // The log is copied by the writer alone, and never into a file that may be damaged.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.execute_batch(
        "PRAGMA mmap_size = 0; PRAGMA cache_size = -8192; PRAGMA temp_store = MEMORY;",
    )?;
    Ok(connection)
}

/// The connection; opened again if there is none.
pub(super) fn connected(
    connection: &mut Option<Connection>,
    open: impl FnOnce() -> rusqlite::Result<Connection>,
) -> rusqlite::Result<&Connection> {
    let opened = match connection.take() {
        Some(opened) => opened,
        None => open()?,
    };
    Ok(connection.insert(opened))
}

/// Runs a statement that stays prepared.
pub(super) fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([])?;
    Ok(())
}

/// Lets the log vanish with the last connection, which this one is. It must be empty: see [`cut_log`].
pub(super) fn drop_log(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok(())
}

/// Cuts off a log that was copied into the file, checksums included. True if nobody was in the way.
pub(super) fn cut_log(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
        Ok(row.get::<_, i64>(0)? == 0)
    })
}
