//! Opening a file: whose it is, whether it is whole, and bringing its schema up to date.
//!
//! Nothing is changed before the file is known to be ours and whole.

use std::path::Path;

use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;

use super::connection::{File, empty_log, set_up_writer};
use super::error::OpenError;
use crate::values::id;

/// Marks our files: "ODYS".
const APPLICATION: i32 = 0x4F44_5953;
/// Files up to this length, in bytes, are checked page by page when they are opened: a tenth of a second or two. Of longer
/// ones only the header, the schema and the length are looked at: a restart must not take minutes.
const CHECKED_MAX: u64 = 64 << 20;
/// What the storage keeps for itself: see the probe in [`super::writer`].
const OWN_TABLES: &str = "CREATE TABLE IF NOT EXISTS storage_probe (id INTEGER PRIMARY KEY, filler BLOB NOT NULL) STRICT";

/// Opens the file and brings it to the schema of `migrations`; the connection is the writer's.
///
/// # Errors
/// See [`OpenError`].
pub(super) fn open(file: &File, migrations: &[&str]) -> Result<Connection, OpenError> {
    let path = file.path.as_path();
    let failed = |error| OpenError::of(path, error);
    check_traces(file)?;
    let connection = file.touch().map_err(failed)?;
    if connection.is_readonly(rusqlite::MAIN_DB).map_err(failed)? {
        return Err(OpenError::ReadOnly { path: path.into() });
    }
    let known = u32::try_from(migrations.len()).unwrap_or(u32::MAX);
    let origin = examine(&connection).map_err(failed)?;
    let found = match origin {
        Origin::Fresh => 0,
        Origin::Ours(found) if found <= known => found,
        Origin::Ours(found) => {
            let path = path.to_owned();
            return Err(OpenError::Newer { path, found, known });
        }
        Origin::Foreign => return Err(OpenError::Foreign { path: path.into() }),
    };
    check_pages(&connection, path)?;
    if matches!(origin, Origin::Fresh) {
        // Before the first table or never: freed pages can be given back a few at a time.
        connection
            .pragma_update(None, "auto_vacuum", "INCREMENTAL")
            .map_err(failed)?;
    }
    let mode = set_up_writer(&connection).map_err(failed)?;
    if mode != "wal" {
        let path = path.to_owned();
        return Err(OpenError::NoLog { path, mode });
    }
    check_length(&connection, path)?;
    bring_up_to_date(&connection, migrations, found, known).map_err(|reason| {
        OpenError::Migration {
            path: path.to_owned(),
            found,
            known,
            reason,
        }
    })?;
    Ok(connection)
}

enum Origin {
    /// Nothing in it yet.
    Fresh,
    /// This program's, with this schema.
    Ours(u32),
    /// Somebody else's.
    Foreign,
}

/// Whose file it is. Reads the header and the schema.
fn examine(connection: &Connection) -> rusqlite::Result<Origin> {
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let things: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(
        match (number("application_id")?, number("user_version")?, things) {
            (APPLICATION, version, _) => {
                u32::try_from(version).map_or(Origin::Foreign, Origin::Ours)
            }
            (0, 0, 0) => Origin::Fresh,
            _ => Origin::Foreign,
        },
    )
}

/// What the engine would take for a fresh file although it is none.
fn check_traces(file: &File) -> Result<(), OpenError> {
    let path = file.path.clone();
    match length(&path) {
        // It would throw the log away.
        0 if file.log_length() > 0 => Err(OpenError::Damaged {
            path,
            detail: "empty or missing, while its `-wal` file is not".to_owned(),
        }),
        // It counts a single byte as none.
        1 => Err(OpenError::NotADatabase { path }),
        _ => Ok(()),
    }
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
}

fn check_pages(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    if length(path) > CHECKED_MAX {
        return Ok(());
    }
    let found: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|error| OpenError::of(path, error))?;
    if found == "ok" {
        return Ok(());
    }
    // It puts the name of the database before what it found, on a line of its own.
    let detail = found.lines().last().unwrap_or_default().to_owned();
    let path = path.to_owned();
    Err(OpenError::Damaged { path, detail })
}

/// A file that was cut off within or before a page that nothing was read from yet. What the log still has of it is put
/// back first; if that is not possible, on a full disk, the file may well be short.
fn check_length(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    if !matches!(empty_log(connection), Ok(true)) {
        return Ok(());
    }
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

/// Lets migrations call `nfc(text)`, the normal form in which ids are compared.
fn define_nfc(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("nfc", 1, flags, |arguments| {
        let text = arguments.get_raw(0).as_str()?;
        Ok(id::nfc(text).into_owned())
    })
}

/// Applies what is missing, all of it or nothing.
fn bring_up_to_date(
    connection: &Connection,
    migrations: &[&str],
    found: u32,
    known: u32,
) -> rusqlite::Result<()> {
    // With foreign keys on, rebuilding a table would delete what refers to it. They are checked as a whole instead.
    // The switch does nothing inside a transaction.
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
    if found == 0 {
        transaction.pragma_update(None, "application_id", APPLICATION)?;
    }
    transaction.commit()?;
    connection.pragma_update(None, "foreign_keys", true)
}
