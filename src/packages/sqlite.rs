//! Packages in `SQLite`.
//!
//! A package's row has its id, its kind (type and outcome in one number), a digest of its other fields, and the timestamp of the
//! preference that decided: some forty bytes plus the id. The statistics are rows of their own, counted in the transaction that
//! adds the package.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::audit::{Audit, Line};
use super::model::{
    Id, Outcome, Package, Preference, Preferences, Processed, Sent, Statistics, Types, Update,
};
use super::store::{Answer, Store};
use crate::storage::sqlite::{self, Database, Invariant, Micros, OpenError, application};

pub const APPLICATION: i32 = application(b'p');
/// See [`crate::storage::sqlite::Settings`]. Times are in microseconds since 1970. A kind is twice the type's number, plus one
/// if the package was dropped.
pub const MIGRATIONS: &[&str] = &["
    CREATE TABLE types (
        number INTEGER PRIMARY KEY,
        name   TEXT NOT NULL UNIQUE
    ) STRICT;
    CREATE TABLE packages (
        id            TEXT PRIMARY KEY,
        kind          INTEGER NOT NULL,
        digest        INTEGER NOT NULL,
        preference_at INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE ages (
        place        INTEGER PRIMARY KEY,
        processed_at INTEGER NOT NULL,
        id           TEXT NOT NULL
    ) STRICT;
    CREATE TABLE preferences (
        recipient TEXT NOT NULL,
        type      INTEGER NOT NULL,
        said_at   INTEGER NOT NULL,
        takes     INTEGER NOT NULL,
        PRIMARY KEY (recipient, type)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE counts (
        kind      INTEGER PRIMARY KEY,
        packages  INTEGER NOT NULL,
        forgotten INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE rejected (
        only     INTEGER PRIMARY KEY CHECK (only = 1),
        requests INTEGER NOT NULL
    ) STRICT;
    INSERT INTO rejected VALUES (1, 0);
", "
    -- Ids are compared in NFC, so they are stored in it. Of the preferences of two forms the later one holds, and of two at
    -- the same time the refusal. A package that was processed under both forms stays as it is.
    INSERT OR REPLACE INTO preferences
        SELECT id, type, said_at, takes FROM (
            SELECT nfc(recipient) AS id, type, said_at, takes,
                row_number() OVER (PARTITION BY nfc(recipient), type ORDER BY said_at DESC, takes) AS place
            FROM preferences
        ) WHERE place = 1 AND id IN (SELECT nfc(recipient) FROM preferences WHERE nfc(recipient) <> recipient);
    DELETE FROM preferences WHERE nfc(recipient) <> recipient;
    UPDATE ages SET id = nfc(id)
        WHERE nfc(id) <> id AND NOT EXISTS (SELECT 1 FROM packages WHERE packages.id = nfc(ages.id));
    UPDATE OR IGNORE packages SET id = nfc(id) WHERE nfc(id) <> id;
"];

pub const INVARIANTS: &[Invariant] = &[Invariant {
    name: "the statistics agree with the ledger",
    broken: "SELECT 1 FROM counts
             WHERE packages <> forgotten + (SELECT count(*) FROM packages WHERE packages.kind = counts.kind)",
}];

/// Rows that are expired with each new one, so that the ledger shrinks if `packages.remember` does.
const EXPIRED_PER_PACKAGE: u32 = 4;

#[derive(Debug, Clone)]
pub struct Sqlite {
    database: Database,
    types: Arc<Types>,
    remember: Option<Duration>,
}

impl Sqlite {
    /// The database must have been opened with [`MIGRATIONS`]. Rows expire after `remember`, or never.
    pub fn new(database: Database, types: Arc<Types>, remember: Option<Duration>) -> Self {
        Self {
            database,
            types,
            remember,
        }
    }
}

impl Store for Sqlite {
    fn send(&self, package: Package) -> Answer<'_, Sent> {
        let (types, remember) = (Arc::clone(&self.types), self.remember);
        let now = self.database.clock().now();
        Box::pin(self.database.commit(move |connection| {
            let sent = send(connection, &types, &package)?;
            if let Some(remember) = remember.filter(|_| !sent.duplicate) {
                expire_old(connection, &package.id, now, remember)?;
            }
            Ok(sent)
        }))
    }

    fn package(&self, id: Id) -> Answer<'_, Option<Processed>> {
        Box::pin(
            self.database
                .read(move |connection| Ok(find(connection, &id)?.map(|found| found.0))),
        )
    }

    fn update(&self, update: Update) -> Answer<'_, (Preferences, bool)> {
        let types = Arc::clone(&self.types);
        Box::pin(self.database.commit(move |connection| {
            let before = preferences(connection, &types, &update.recipient)?;
            let (after, applied) = update.merged_into(&before);
            for (package_type, preference) in &after {
                if before.get(package_type) != Some(preference) {
                    let number = type_number(connection, types.name(*package_type))?;
                    connection
                        .prepare_cached("INSERT OR REPLACE INTO preferences VALUES (?, ?, ?, ?)")?
                        .execute(params![
                            update.recipient.as_str(),
                            number,
                            Micros(preference.timestamp),
                            preference.takes
                        ])?;
                }
            }
            Ok((after, applied))
        }))
    }

    fn preferences(&self, recipient: Id) -> Answer<'_, Preferences> {
        let types = Arc::clone(&self.types);
        Box::pin(
            self.database
                .read(move |connection| preferences(connection, &types, &recipient)),
        )
    }

    fn reset(&self, recipient: Id) -> Answer<'_, ()> {
        Box::pin(self.database.commit(move |connection| {
            connection
                .prepare_cached("DELETE FROM preferences WHERE recipient = ?")?
                .execute([recipient.as_str()])?;
            Ok(())
        }))
    }

    fn store_rejected(&self, total: u64) -> Answer<'_, ()> {
        Box::pin(self.database.commit(move |connection| {
            connection
                .prepare_cached("UPDATE rejected SET requests = ?1 WHERE requests < ?1")?
                .execute([total])?;
            Ok(())
        }))
    }

    fn statistics(&self) -> Answer<'_, Statistics> {
        Box::pin(self.database.read(|connection| {
            let mut statistics = Statistics::default();
            let mut counts = connection.prepare_cached(
                "SELECT name, kind % 2, packages FROM counts JOIN types ON number = kind / 2",
            )?;
            let mut rows = counts.query([])?;
            while let Some(row) = rows.next()? {
                let tally = statistics.by_type.entry(row.get(0)?).or_default();
                match outcome(row.get(1)?) {
                    Outcome::Delivered => tally.delivered = row.get(2)?,
                    Outcome::Dropped => tally.dropped = row.get(2)?,
                }
            }
            statistics.rejected = connection
                .prepare_cached("SELECT requests FROM rejected")?
                .query_row([], |row| row.get(0))?;
            Ok(statistics)
        }))
    }

    fn version(&self) -> u64 {
        self.database.version()
    }
}

/// Runs in the caller's transaction. Written for a package that is new, as nearly all are.
fn send(connection: &Connection, types: &Types, package: &Package) -> rusqlite::Result<Sent> {
    let digest = package.digest(types).cast_signed();
    let name = types.name(package.package_type);
    let known = type_and_preference(connection, name, &package.recipient)?;
    if known.is_none()
        && let Some(first) = find(connection, &package.id)?
    {
        // A type is stored with its first package.
        return Ok(duplicate(first, digest));
    }
    let (number, preference) = match known {
        Some(known) => known,
        None => (type_number(connection, name)?, None),
    };
    let processed = Processed::decide(types, package.package_type, preference);
    let kind = 2 * number + i64::from(processed.outcome == Outcome::Dropped);
    let inserted = connection
        .prepare_cached("INSERT INTO packages VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING")?
        .execute(params![
            package.id.as_str(),
            kind,
            digest,
            processed.preference_timestamp.map(Micros)
        ])?;
    if inserted == 0 {
        let first = find(connection, &package.id)?;
        let first = first.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        return Ok(duplicate(first, digest));
    }
    connection
        .prepare_cached(
            "INSERT INTO counts VALUES (?, 1, 0) ON CONFLICT DO UPDATE SET packages = packages + 1",
        )?
        .execute([kind])?;
    Ok(Sent {
        processed,
        duplicate: false,
        mismatch: false,
    })
}

/// `first`: the outcome and the digest of the package that was sent first.
fn duplicate(first: (Processed, i64), digest: i64) -> Sent {
    Sent {
        processed: first.0,
        duplicate: true,
        mismatch: digest != first.1,
    }
}

/// The tables' number of a type that they have, and the recipient's preference for it.
fn type_and_preference(
    connection: &Connection,
    name: &str,
    recipient: &Id,
) -> rusqlite::Result<Option<(i64, Option<Preference>)>> {
    connection
        .prepare_cached(
            "SELECT said_at, takes, number
             FROM types LEFT JOIN preferences ON recipient = ? AND type = number WHERE name = ?",
        )?
        .query_row([recipient.as_str(), name], |row| {
            let is_known = row.get_ref(0)? != ValueRef::Null;
            let preference = is_known.then(|| preference(row)).transpose()?;
            Ok((row.get(2)?, preference))
        })
        .optional()
}

/// Stores the age of a new row, and deletes expired ones. Ages are measured by the storage's clock: a jump of the wall clock
/// expires nothing.
fn expire_old(
    connection: &Connection,
    id: &Id,
    now: Timestamp,
    remember: Duration,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT INTO ages (processed_at, id) VALUES (?, ?)")?
        .execute(params![Micros(now), id.as_str()])?;
    let remember = SignedDuration::try_from(remember).unwrap_or(SignedDuration::MAX);
    let Ok(oldest) = now.checked_sub(remember) else {
        return Ok(());
    };
    let old: Vec<(i64, String)> = connection
        .prepare_cached("SELECT place, id, processed_at FROM ages ORDER BY place LIMIT ?")?
        .query_map([EXPIRED_PER_PACKAGE], |row| {
            let Micros(processed_at) = row.get(2)?;
            Ok((processed_at < oldest).then_some((row.get(0)?, row.get(1)?)))
        })?
        .filter_map(Result::transpose)
        .collect::<Result<_, _>>()?;
    for (place, id) in old {
        connection
            .prepare_cached("DELETE FROM ages WHERE place = ?")?
            .execute([place])?;
        let kind: Option<i64> = connection
            .prepare_cached("DELETE FROM packages WHERE id = ? RETURNING kind")?
            .query_row([id], |row| row.get(0))
            .optional()?;
        connection
            .prepare_cached("UPDATE counts SET forgotten = forgotten + 1 WHERE kind = ?")?
            .execute([kind])?;
    }
    Ok(())
}

/// The ledger's row of this id: its outcome, and its digest.
fn find(connection: &Connection, id: &Id) -> rusqlite::Result<Option<(Processed, i64)>> {
    connection
        .prepare_cached(
            "SELECT kind % 2, name, preference_at, digest
             FROM packages JOIN types ON number = kind / 2 WHERE id = ?",
        )?
        .query_row([id.as_str()], |row| {
            let processed = Processed {
                outcome: outcome(row.get(0)?),
                type_name: row.get(1)?,
                preference_timestamp: row.get::<_, Option<Micros>>(2)?.map(|Micros(at)| at),
            };
            Ok((processed, row.get(3)?))
        })
        .optional()
}

fn outcome(dropped: bool) -> Outcome {
    if dropped {
        Outcome::Dropped
    } else {
        Outcome::Delivered
    }
}

fn preference(row: &Row<'_>) -> rusqlite::Result<Preference> {
    let Micros(timestamp) = row.get(0)?;
    Ok(Preference {
        timestamp,
        takes: row.get(1)?,
    })
}

/// A recipient's preferences for the configured types; preferences for other types stay in the table.
fn preferences(
    connection: &Connection,
    types: &Types,
    recipient: &Id,
) -> rusqlite::Result<Preferences> {
    let mut statement = connection.prepare_cached(
        "SELECT said_at, takes, name FROM preferences JOIN types ON number = type WHERE recipient = ?",
    )?;
    let rows = statement.query_map([recipient.as_str()], |row| {
        let package_type = types.find(row.get_ref(2)?.as_str()?);
        Ok(package_type.zip(Some(preference(row)?)))
    })?;
    rows.filter_map(Result::transpose).collect()
}

/// The tables' number of a type; a new type gets the next one.
fn type_number(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    let known = connection
        .prepare_cached("SELECT number FROM types WHERE name = ?")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    if let Some(number) = known {
        return Ok(number);
    }
    connection
        .prepare_cached("INSERT INTO types (name) VALUES (?)")?
        .execute([name])?;
    Ok(connection.last_insert_rowid())
}

/// Recounts the ledger in this file, and compares it to the statistics. A server may use the file at the same time.
///
/// # Errors
/// See [`OpenError`].
pub fn audit(path: &Path) -> Result<Audit, OpenError> {
    sqlite::query_file(path, |connection| {
        let mut lines: BTreeMap<i64, Line> = BTreeMap::new();
        let mut counts = connection.prepare(
            "SELECT kind, name, packages, forgotten FROM counts JOIN types ON number = kind / 2",
        )?;
        let mut rows = counts.query([])?;
        while let Some(row) = rows.next()? {
            let kind = row.get(0)?;
            let mut line = line(kind, row.get(1)?);
            line.counted = row.get(2)?;
            line.forgotten = row.get(3)?;
            lines.insert(kind, line);
        }
        let mut ledger = connection.prepare(
            "SELECT kind, name, count(*) FROM packages JOIN types ON number = kind / 2 GROUP BY kind",
        )?;
        let mut rows = ledger.query([])?;
        while let Some(row) = rows.next()? {
            let kind = row.get(0)?;
            let name = row.get(1)?;
            lines.entry(kind).or_insert_with(|| line(kind, name)).ledger = row.get(2)?;
        }
        Ok(Audit {
            lines: lines.into_values().collect(),
        })
    })
}

fn line(kind: i64, type_name: String) -> Line {
    Line {
        type_name,
        outcome: outcome(kind % 2 == 1),
        ledger: 0,
        forgotten: 0,
        counted: 0,
    }
}

#[cfg(test)]
mod tests;
