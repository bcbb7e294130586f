//! Opens a file: checks that it is ours and undamaged, then migrates its schema.
//!
//! Nothing is changed before these checks.

use std::io;
use std::path::Path;

use jiff::Timestamp;
use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, OptionalExtension};
use tracing::{info, warn};

use super::connection::{File, set_up_writer};
use super::error::{Failure, OpenError, is_of_engine};
use super::integrity::Integrity;
use super::pages::ANY_DESK;
use super::values::Micros;
use crate::storage::clock::Clock;
use crate::values::id;

/// The storage's own tables: see `probe_write` in [`super::writer`], and [`Clock`].
const OWN_TABLES: &str = "
    CREATE TABLE IF NOT EXISTS storage_probe (id INTEGER PRIMARY KEY, filler BLOB NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS storage_clock (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        time INTEGER NOT NULL  -- microseconds since 1970
    ) STRICT;
";

/// A file that is open for writing.
pub(super) struct Opened {
    pub(super) connection: Connection,
    pub(super) integrity: Integrity,
    pub(super) clock: Clock,
}

/// Opens the file and migrates it; the connection is the writer's. Reads the whole file.
///
/// # Errors
/// See [`OpenError`].
pub(super) fn open(
    file: &File,
    application: i32,
    migrations: &[&str],
) -> Result<Opened, OpenError> {
    let path = file.path.as_path();
    let failed = |error| OpenError::of(path, error);
    check_traces(file)?;
    let examined = Integrity::examine(file, application);
    let examined = examined.map_err(|fault| fault.into_open_error(path))?;
    let connection = file.touch().map_err(failed)?;
    if connection.is_readonly(rusqlite::MAIN_DB).map_err(failed)? {
        return Err(OpenError::ReadOnly { path: path.into() });
    }
    let known = u32::try_from(migrations.len()).unwrap_or(u32::MAX);
    let origin = examine(&connection, application, migrations).map_err(failed)?;
    let found = match origin {
        Origin::Fresh => 0,
        Origin::Ours(found) if found <= known => found,
        Origin::Ours(found) => {
            let path = path.to_owned();
            return Err(OpenError::Newer { path, found, known });
        }
        Origin::Foreign => return Err(OpenError::Foreign { path: path.into() }),
    };
    if examined.is_none() {
        check_pages(&connection, path)?;
    }
    if matches!(origin, Origin::Fresh) {
        // Only possible before the first table: incremental vacuum.
        connection
            .pragma_update(None, "auto_vacuum", "INCREMENTAL")
            .map_err(failed)?;
    }
    let mode = set_up_writer(&connection).map_err(failed)?;
    if mode != "wal" {
        let path = path.to_owned();
        return Err(OpenError::NoLog { path, mode });
    }
    let mut integrity = match examined {
        Some((integrity, _)) => integrity,
        None => adopt(file, application, &connection, &origin)?,
    };
    let unnoted = |failure| match failure {
        Failure::Engine(error) => OpenError::of(path, error),
        Failure::Found(detail) => OpenError::Damaged {
            path: path.to_owned(),
            detail,
        },
        failure => OpenError::Unverifiable {
            path: path.to_owned(),
            reason: io::Error::other(failure),
        },
    };
    integrity.begin(&connection).map_err(unnoted)?;
    bring_up_to_date(&connection, application, migrations, found, known).map_err(|reason| {
        OpenError::Migration {
            path: path.to_owned(),
            found,
            known,
            reason,
        }
    })?;
    let clock = start_clock(&connection).map_err(failed)?;
    integrity.committed(&connection).map_err(unnoted)?;
    Ok(Opened {
        connection,
        integrity,
        clock,
    })
}

/// Computes the checksums of a file that has none because it is new, or older than they are. The WAL is checkpointed first.
fn adopt(
    file: &File,
    application: i32,
    connection: &Connection,
    origin: &Origin,
) -> Result<Integrity, OpenError> {
    let path = file.path.as_path();
    if matches!(origin, Origin::Fresh) {
        info!(path = %path.display(), "a new database");
    } else {
        warn!(path = %path.display(), "a database without a checksum file: its structure was checked, and checksums are computed");
    }
    let failed = |error| OpenError::of(path, error);
    let copied = connection
        .query_row("PRAGMA wal_checkpoint(FULL)", [], |row| {
            Ok(row.get::<_, i64>(0)? == 0)
        })
        .map_err(failed)?;
    let unverifiable = |reason| OpenError::Unverifiable {
        path: path.to_owned(),
        reason,
    };
    if !copied {
        return Err(unverifiable(io::Error::other(
            "another program is reading it",
        )));
    }
    check_length(connection, path)?;
    Integrity::create(file, application).map_err(unverifiable)
}

/// Restores the clock's stored time. A full disk does not prevent the start.
fn start_clock(connection: &Connection) -> rusqlite::Result<Clock> {
    let stored = connection
        .query_row("SELECT time FROM storage_clock", [], |row| row.get(0))
        .optional()?;
    let time = stored.map_or_else(Timestamp::now, |Micros(time)| time);
    let clock = Clock::starting_at(time);
    match store_clock(connection, &clock) {
        Err(error) if is_of_engine(&error) => {
            warn!(%error, "the time cannot be stored");
            Ok(clock)
        }
        stored => stored.map(|()| clock),
    }
}

/// Stores the clock's time.
pub(super) fn store_clock(connection: &Connection, clock: &Clock) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO storage_clock VALUES (1, ?)")?
        .execute([Micros(clock.now())])?;
    Ok(())
}

enum Origin {
    Fresh,
    /// This program's, with this schema version.
    Ours(u32),
    Foreign,
}

/// Reads the header and the schema.
fn examine(
    connection: &Connection,
    application: i32,
    migrations: &[&str],
) -> rusqlite::Result<Origin> {
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let things: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let (found, version) = (number("application_id")?, number("user_version")?);
    Ok(match (found, u32::try_from(version)) {
        (0, Ok(0)) if things == 0 => Origin::Fresh,
        (found, Ok(version)) if found == application => Origin::Ours(version),
        // Identified by its tables, for known versions.
        (ANY_DESK, Ok(version)) if fits(connection, migrations, version)? => Origin::Ours(version),
        _ => Origin::Foreign,
    })
}

/// Whether a file of this version has the tables of these migrations; a newer version cannot be judged.
fn fits(connection: &Connection, migrations: &[&str], version: u32) -> rusqlite::Result<bool> {
    let Some(applied) = migrations.get(..version as usize) else {
        return Ok(true);
    };
    let model = Connection::open_in_memory()?;
    define_nfc(&model)?;
    applied
        .iter()
        .try_for_each(|migration| model.execute_batch(migration))?;
    Ok(tables(&model)? == tables(connection)?)
}

fn tables(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut tables = connection.prepare(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'storage!_%' ESCAPE '!' ORDER BY name",
    )?;
    tables.query_map([], |row| row.get(0))?.collect()
}

/// Rejects what the engine would take for a fresh file although it is none.
fn check_traces(file: &File) -> Result<(), OpenError> {
    let path = file.path.clone();
    match length(&path) {
        // It would discard the WAL.
        0 if file.wal_length() > 0 => Err(OpenError::Damaged {
            path,
            detail: "empty or missing, while its `-wal` file is not".to_owned(),
        }),
        // It treats a single byte as an empty file.
        1 => Err(OpenError::NotADatabase { path }),
        _ => Ok(()),
    }
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
}

fn check_pages(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let found: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|error| OpenError::of(path, error))?;
    if found == "ok" {
        return Ok(());
    }
    // The engine puts the name of the database on a line before the finding.
    let detail = found.lines().last().unwrap_or_default().to_owned();
    let path = path.to_owned();
    Err(OpenError::Damaged { path, detail })
}

/// Rejects a file that was truncated within or before a page that was not read yet.
fn check_length(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let number = |name: &str| {
        let value = connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        value.map_err(|error| OpenError::of(path, error))
    };
    let expected = number("page_count")? * number("page_size")?;
    let length = length(path);
    if i64::try_from(length).is_ok_and(|length| length < expected) {
        let path = path.to_owned();
        let detail = format!("{length} bytes long instead of {expected}");
        return Err(OpenError::Damaged { path, detail });
    }
    Ok(())
}

/// Defines `nfc(text)` for migrations: the normal form in which ids are compared.
fn define_nfc(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("nfc", 1, flags, |arguments| {
        let text = arguments.get_raw(0).as_str()?;
        Ok(id::nfc(text).into_owned())
    })
}

/// Applies missing migrations in one transaction.
fn bring_up_to_date(
    connection: &Connection,
    application: i32,
    migrations: &[&str],
    found: u32,
    known: u32,
) -> rusqlite::Result<()> {
    // With foreign keys on, rebuilding a table would delete rows that refer to it. They are checked as a whole afterwards. The
    // switch does nothing inside a transaction.
    connection.pragma_update(None, "foreign_keys", false)?;
    define_nfc(connection)?;
    let transaction = connection.unchecked_transaction()?;
    transaction.execute_batch(OWN_TABLES)?;
    let missing = migrations.get(found as usize..).unwrap_or_default();
    for migration in missing {
        transaction.execute_batch(migration)?;
    }
    if !missing.is_empty() {
        let dangling = transaction
            .prepare("PRAGMA foreign_key_check")?
            .exists([])?;
        if dangling {
            return Err(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CONSTRAINT_FOREIGNKEY),
                Some("rows refer to others that are not there".to_owned()),
            ));
        }
        transaction.pragma_update(None, "user_version", known)?;
    }
    let marked =
        transaction.pragma_query_value(None, "application_id", |row| row.get::<_, i32>(0))?;
    if marked != application {
        transaction.pragma_update(None, "application_id", application)?;
    }
    transaction.commit()?;
    connection.pragma_update(None, "foreign_keys", true)
}
