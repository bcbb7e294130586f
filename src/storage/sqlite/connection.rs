use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::storage::directory::sync_parent;
use crate::storage::displaced::Place;

/// Timeout for another process's lock on the file: an operator's tool may write to it for a moment.
const BUSY_TIMEOUT: Duration = Duration::from_millis(250);
/// Prepared statements cached per connection: a desk's and the storage's own.
const STATEMENTS: usize = 64;
/// The WAL is truncated to this size after a checkpoint, in bytes: as much as [`CHECKPOINT_AFTER`] pages.
pub(super) const WAL_LIMIT_BYTES: u64 = 8 << 20;
/// Frames after which the WAL is checkpointed. The engine's default is 1000; a checkpoint here has one flush more, that of the
/// checksums, so half as many of them cost less.
pub(super) const CHECKPOINT_AFTER: u32 = 2000;

#[derive(Debug, Clone)]
pub(super) struct File {
    pub(super) path: PathBuf,
    /// Files that must not move while this one is open.
    pub(super) pinned: Arc<[Place]>,
    /// A test's disk size in pages; 0: unlimited. Read when a connection is opened.
    #[cfg(test)]
    pub(super) pages_max: Arc<std::sync::atomic::AtomicU32>,
}

impl File {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            pinned: Arc::default(),
            #[cfg(test)]
            pages_max: Arc::default(),
        }
    }

    /// A connection that changes nothing by itself. Creates an empty file if there is none.
    pub(super) fn touch(&self) -> rusqlite::Result<Connection> {
        let create = OpenFlags::SQLITE_OPEN_CREATE;
        make(&self.path);
        connect(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE | create)
    }

    /// The writer's connection. The file must exist: a vanished file is not replaced by an empty one.
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

    pub(super) fn reader(&self) -> rusqlite::Result<Connection> {
        let connection = connect(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.pragma_update(None, "query_only", true)?;
        // The first read maps the WAL's index; from now on it needs no disk space.
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(connection)
    }

    pub(super) fn wal(&self) -> PathBuf {
        with_suffix(&self.path, "-wal")
    }

    /// See [`super::sums`].
    pub(super) fn sums(&self) -> PathBuf {
        with_suffix(&self.path, "-sums")
    }

    /// The WAL's length now, in bytes.
    pub(super) fn wal_length(&self) -> u64 {
        std::fs::metadata(self.wal()).map_or(0, |wal| wal.len())
    }
}

pub(super) fn with_suffix(path: &Path, ending: &str) -> PathBuf {
    let mut path = path.to_owned().into_os_string();
    path.push(ending);
    path.into()
}

/// Creates an empty file that only this user can read; the engine gives its WAL the same mode. If this fails, the engine
/// reports why when it opens the file.
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

/// Sets up the writer's connection. Returns the journal mode; only `wal` is usable.
pub(super) fn set_up_writer(connection: &Connection) -> rusqlite::Result<String> {
    let mode = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    // FULL flushes the WAL with every commit: what was answered survives a power cut. The writer checkpoints itself: see
    // [`super::integrity`].
    connection.execute_batch(&format!(
        "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA journal_size_limit = {WAL_LIMIT_BYTES};
         PRAGMA wal_autocheckpoint = 0;"
    ))?;
    // In a new file the change of the journal mode is an open transaction until something is read; no checkpoint is possible
    // before.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(mode)
}

/// Settings of all connections. No memory map: an I/O error would be a signal instead of a result. 8 MB of cache hold the inner
/// pages of some gigabytes.
fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Otherwise a statement that could use a partial index is prepared again whenever its parameters change.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // Only the writer checkpoints, and never into a file that may be damaged.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.execute_batch(
        "PRAGMA mmap_size = 0; PRAGMA cache_size = -8192; PRAGMA temp_store = MEMORY;",
    )?;
    Ok(connection)
}

/// The connection; opened if there is none.
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

pub(super) fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([])?;
    Ok(())
}

/// Lets the engine remove the WAL with the last connection, which this one is. It must be empty: see [`checkpoint_truncate`].
pub(super) fn remove_wal_on_close(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok(())
}

/// Truncates a WAL that was checkpointed, checksums included. True unless a reader blocked it.
pub(super) fn checkpoint_truncate(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
        Ok(row.get::<_, i64>(0)? == 0)
    })
}
