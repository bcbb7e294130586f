//! Connections to one file, and how they are set up.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::storage::directory::sync_parent;

/// How long somebody else's lock on the file is waited for: an operator's tool may write to it for a moment.
const BUSY_TIMEOUT: Duration = Duration::from_millis(250);
/// Statements that stay prepared per connection: a desk's, and those around them.
const STATEMENTS: usize = 64;
/// What the log before the file is cut to once it was copied into the file, in bytes. The engine copies it
/// after a thousand pages, which are as much.
pub(super) const LOG_MAX: u64 = 4 << 20;

/// A database's file.
#[derive(Debug, Clone)]
pub(super) struct File {
    pub(super) path: PathBuf,
    /// A disk as small as a test wants it, in pages; 0: as large as it is. Connections learn of it when they are opened.
    #[cfg(test)]
    pub(super) pages_max: std::sync::Arc<std::sync::atomic::AtomicU32>,
}

impl File {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            #[cfg(test)]
            pages_max: std::sync::Arc::default(),
        }
    }

    /// A connection that leaves everything as it is unless it is told to write; closing it copies no log into a file
    /// that may be damaged. Makes an empty file if there is none.
    pub(super) fn touch(&self) -> rusqlite::Result<Connection> {
        let create = OpenFlags::SQLITE_OPEN_CREATE;
        make(&self.path);
        let connection = connect(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE | create)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        Ok(connection)
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

    /// The log's length now, in bytes.
    pub(super) fn log_length(&self) -> u64 {
        let mut path = self.path.clone().into_os_string();
        path.push("-wal");
        std::fs::metadata(path).map_or(0, |log| log.len())
    }
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
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    let mode = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    // FULL flushes the log with every commit: what was answered survives a power cut.
    connection.execute_batch(&format!(
        "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA journal_size_limit = {LOG_MAX};"
    ))?;
    Ok(mode)
}

/// What all connections have in common. No memory map: an error of the disk would be a signal instead of a result.
/// 8 MB of cache each hold the inner pages of some gigabytes.
fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Else a statement that could use a partial index is prepared anew whenever what is bound to it changes.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
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

/// Copies the log into the file and cuts it off. True if nobody was in the way.
pub(super) fn empty_log(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
        Ok(row.get::<_, i64>(0)? == 0)
    })
}
