//! Assignments in `SQLite`.
//!
//! A **batch** has all packages that a driver got at once, in one row: a plan for a hundred drivers adds a hundred rows, however many
//! packages are in it. Packages are stored as the manifest described them, in JSON, each an array of its attributes: names would be
//! two thirds of what is flushed to the disk. A package's latest status is a row of its own; without one it is assigned.

mod list;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::Date;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use self::list::list;
use super::error::Refusal;
use super::model::{
    Assignment, Change, DriverChange, DriverCounts, DriverId, Filter, Held, Package, PackageId,
    Place, Region, Status, Update,
};
use super::store::{Answer, Changed, Listing, OnStored, Store, StoredManifest, Updated, Version};
use crate::storage::State;
use crate::storage::sqlite::{Abort, Database, Micros, application};

pub const APPLICATION: i32 = application(b'a');
/// See [`crate::storage::sqlite::Settings`]. Times are in microseconds since 1970, days as in RFC 3339.
pub const MIGRATIONS: &[&str] = &["
    CREATE TABLE manifests (
        day     TEXT PRIMARY KEY,
        version TEXT NOT NULL,
        body    BLOB NOT NULL
    ) STRICT;
    CREATE TABLE hands (
        number      INTEGER PRIMARY KEY,
        day         TEXT NOT NULL,
        driver      TEXT NOT NULL,
        assigned_at INTEGER NOT NULL,
        packages    TEXT NOT NULL
    ) STRICT;
    CREATE INDEX hands_by_driver ON hands (driver, day);
    CREATE INDEX hands_by_day ON hands (day, driver);
    CREATE TABLE statuses (
        day        TEXT NOT NULL,
        driver     TEXT NOT NULL,
        package    TEXT NOT NULL,
        status     TEXT NOT NULL,
        updated_at INTEGER NOT NULL,
        PRIMARY KEY (day, driver, package)
    ) STRICT, WITHOUT ROWID;
", "
    -- Names are compared in NFC, so they are stored in it. Those of packages within hands are normalized as they are read.
    UPDATE hands SET driver = nfc(driver) WHERE nfc(driver) <> driver;
    UPDATE OR IGNORE statuses SET driver = nfc(driver), package = nfc(package)
        WHERE nfc(driver) <> driver OR nfc(package) <> package;
"];

#[derive(Debug, Clone)]
pub struct Sqlite {
    database: Database,
}

impl Sqlite {
    /// The database must have been opened with [`MIGRATIONS`].
    pub fn new(database: Database) -> Self {
        Self { database }
    }
}

impl Store for Sqlite {
    fn store_manifest(&self, date: Date, manifest: StoredManifest) -> Answer<'_, ()> {
        Box::pin(self.database.commit(move |connection| {
            connection
                .prepare_cached("INSERT OR REPLACE INTO manifests VALUES (?, ?, ?)")?
                .execute(params![
                    Day(date),
                    manifest.version.to_string(),
                    &*manifest.body
                ])?;
            Ok(())
        }))
    }

    fn manifest_version(&self, date: Date) -> Answer<'_, Option<Version>> {
        Box::pin(self.database.read(move |connection| {
            connection
                .prepare_cached("SELECT version FROM manifests WHERE day = ?")?
                .query_row([Day(date)], version)
                .optional()
        }))
    }

    fn manifest(&self, date: Date) -> Answer<'_, Option<StoredManifest>> {
        Box::pin(self.database.read(move |connection| {
            let stored = |row: &Row<'_>| {
                let body: Vec<u8> = row.get(1)?;
                Ok(StoredManifest {
                    version: version(row)?,
                    body: body.into(),
                })
            };
            connection
                .prepare_cached("SELECT version, body FROM manifests WHERE day = ?")?
                .query_row([Day(date)], stored)
                .optional()
        }))
    }

    fn held(&self, date: Date) -> Answer<'_, Vec<Held>> {
        Box::pin(self.database.read(move |connection| held(connection, date)))
    }

    fn still_assigned(&self, date: Date, drivers: Vec<DriverId>) -> Answer<'_, Vec<Held>> {
        Box::pin(self.database.read(move |connection| {
            let asked: HashSet<DriverId> = drivers.into_iter().collect();
            let mut held = held(connection, date)?;
            held.retain(|held| asked.contains(&held.driver));
            let moved_on = moved_on(connection, date)?;
            held.retain(|held| !moved_on.contains(held));
            Ok(held)
        }))
    }

    fn counts(&self, date: Date) -> Answer<'_, Vec<DriverCounts>> {
        Box::pin(
            self.database
                .read(move |connection| counts(connection, date)),
        )
    }

    fn change(&self, change: Change, on_stored: OnStored) -> Answer<'_, Changed> {
        Box::pin(async move {
            let change = Arc::new(change);
            let changed = {
                let change = Arc::clone(&change);
                self.database
                    .write(move |connection| apply(connection, &change))
            };
            Ok(match changed.await? {
                Ok(()) => {
                    on_stored(&change.drivers);
                    Changed::Done
                }
                Err(Refused) => Changed::Outdated,
            })
        })
    }

    fn update(&self, update: Update) -> Answer<'_, Result<Updated, Refusal>> {
        Box::pin(
            self.database
                .write(move |connection| set_status(connection, &update)),
        )
    }

    fn list(&self, filter: Filter, after: Option<Place>, limit: usize) -> Answer<'_, Listing> {
        Box::pin(
            self.database
                .read(move |connection| list(connection, &filter, after.as_ref(), limit)),
        )
    }

    fn state(&self) -> State {
        self.database.state()
    }
}

/// The day has changed since the plan was made.
#[derive(Debug)]
struct Refused;

/// A day's column.
struct Day(Date);

impl ToSql for Day {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.to_string().into())
    }
}

impl FromSql for Day {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let date = value.as_str()?.parse().map(Self);
        date.map_err(|error| FromSqlError::Other(Box::new(error)))
    }
}

fn version(row: &Row<'_>) -> rusqlite::Result<Version> {
    let text: String = row.get(0)?;
    let version = u128::from_str_radix(&text, 16).map(Version);
    version.map_err(|error| unreadable(0, error))
}

/// A table has a value that was never written there.
fn unreadable(
    column: usize,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    let kind = rusqlite::types::Type::Text;
    rusqlite::Error::FromSqlConversionFailure(column, kind, Box::new(error))
}

/// A name that was validated before it was stored.
fn name<T>(parsed: Option<T>) -> rusqlite::Result<T> {
    parsed.ok_or(rusqlite::Error::InvalidQuery)
}

/// A package within a batch.
#[derive(Serialize, Deserialize)]
struct PackageRow(
    PackageId,
    f64,
    bool,
    Region,
    f64,
    bool,
    bool,
    Option<u8>,
    f64,
    u8,
    f64,
    Option<Box<str>>,
);

impl From<&Package> for PackageRow {
    fn from(package: &Package) -> Self {
        Self(
            package.id.clone(),
            package.weight_kg,
            package.is_perishable,
            package.region,
            package.distance_km,
            package.is_express,
            package.is_fragile,
            package.hazmat_class,
            package.temperature_c,
            package.delivery_hour,
            package.volume_m3,
            package.destination.clone(),
        )
    }
}

impl From<PackageRow> for Package {
    fn from(row: PackageRow) -> Self {
        Self {
            id: row.0,
            weight_kg: row.1,
            is_perishable: row.2,
            region: row.3,
            distance_km: row.4,
            is_express: row.5,
            is_fragile: row.6,
            hazmat_class: row.7,
            temperature_c: row.8,
            delivery_hour: row.9,
            volume_m3: row.10,
            destination: row.11,
        }
    }
}

fn packages(column: usize, json: &str) -> rusqlite::Result<Vec<Package>> {
    let rows: Vec<PackageRow> =
        serde_json::from_str(json).map_err(|error| unreadable(column, error))?;
    Ok(rows.into_iter().map(Package::from).collect())
}

fn packages_json(column: usize, packages: &[Package]) -> rusqlite::Result<String> {
    let rows: Vec<PackageRow> = packages.iter().map(PackageRow::from).collect();
    serde_json::to_string(&rows).map_err(|error| unreadable(column, error))
}

/// Everything that is held on a day.
fn held(connection: &Connection, date: Date) -> rusqlite::Result<Vec<Held>> {
    let mut batches =
        connection.prepare_cached("SELECT driver, packages FROM hands WHERE day = ?")?;
    let mut rows = batches.query([Day(date)])?;
    let mut held = Vec::new();
    while let Some(row) = rows.next()? {
        let driver = DriverId::stored(row.get_ref(0)?.as_str()?);
        let packages = packages(1, row.get_ref(1)?.as_str()?)?;
        let of_driver = |package: Package| Held {
            driver: driver.clone(),
            package: package.id,
        };
        held.extend(packages.into_iter().map(of_driver));
    }
    Ok(held)
}

/// The number of each driver's packages of a day, by status.
fn counts(connection: &Connection, date: Date) -> rusqlite::Result<Vec<DriverCounts>> {
    let mut moved_on: HashMap<String, Vec<(Status, u32)>> = HashMap::new();
    let mut statuses = connection.prepare_cached(
        "SELECT driver, status, count(*) FROM statuses WHERE day = ? GROUP BY driver, status",
    )?;
    let mut rows = statuses.query([Day(date)])?;
    while let Some(row) = rows.next()? {
        let status = name(Status::parse(row.get_ref(1)?.as_str()?))?;
        let of_driver = moved_on.entry(row.get(0)?).or_default();
        of_driver.push((status, row.get(2)?));
    }
    let of = |row: &Row<'_>| {
        let driver = row.get_ref(0)?.as_str()?;
        let moved_on = moved_on.get(driver).into_iter().flatten().copied();
        Ok(DriverCounts::new(
            DriverId::stored(driver),
            row.get(1)?,
            moved_on,
        ))
    };
    connection
        .prepare_cached(
            "SELECT driver, sum(json_array_length(packages)) FROM hands WHERE day = ?
             GROUP BY driver ORDER BY driver",
        )?
        .query_map([Day(date)], of)?
        .collect()
}

/// The packages of a day that are beyond [`Status::Assigned`].
fn moved_on(connection: &Connection, date: Date) -> rusqlite::Result<HashSet<Held>> {
    let assigned = Status::Assigned.as_str();
    let sql = "SELECT driver, package FROM statuses WHERE day = ? AND status <> ?";
    let held = |row: &Row<'_>| {
        Ok(Held {
            driver: DriverId::stored(row.get_ref(0)?.as_str()?),
            package: PackageId::stored(row.get_ref(1)?.as_str()?),
        })
    };
    connection
        .prepare_cached(sql)?
        .query_map(params![Day(date), assigned], held)?
        .collect()
}

/// Runs in the caller's transaction.
fn apply(connection: &Connection, change: &Change) -> Result<(), Abort<Refused>> {
    let held = held(connection, change.date)?;
    let mut holders: HashMap<&PackageId, &DriverId> = HashMap::with_capacity(held.len());
    let mut counts: HashMap<&DriverId, u32> = HashMap::new();
    for Held { driver, package } in &held {
        holders.insert(package, driver);
        *counts.entry(driver).or_default() += 1;
    }
    let gives_up = change.drivers.iter().any(|part| !part.given_up.is_empty());
    // Only packages that are given up must still be assigned.
    let moved_on = if gives_up {
        moved_on(connection, change.date)?
    } else {
        HashSet::new()
    };
    for of_driver in &change.drivers {
        let DriverChange {
            driver,
            held_before,
            given_up,
            ..
        } = of_driver;
        let mut fits = counts.get(driver).copied().unwrap_or_default() == *held_before;
        for package in given_up {
            let (driver, package) = (driver.clone(), package.clone());
            fits &= holders.remove(&package) == Some(&driver);
            fits &= !moved_on.contains(&Held { driver, package });
        }
        if !fits {
            return Err(Abort::Refused(Refused));
        }
    }
    for DriverChange { driver, given, .. } in &change.drivers {
        if given
            .iter()
            .any(|package| holders.insert(&package.id, driver).is_some())
        {
            return Err(Abort::Refused(Refused));
        }
    }
    for of_driver in &change.drivers {
        if !of_driver.given_up.is_empty() {
            give_up(connection, change.date, of_driver)?;
        }
        if !of_driver.given.is_empty() {
            let json = packages_json(3, &of_driver.given)?;
            connection
                .prepare_cached(
                    "INSERT INTO hands (day, driver, assigned_at, packages) VALUES (?, ?, ?, ?)",
                )?
                .execute(params![
                    Day(change.date),
                    of_driver.driver.as_str(),
                    Micros(change.at),
                    json
                ])?;
        }
    }
    Ok(())
}

/// Removes packages from a driver's batches.
fn give_up(connection: &Connection, date: Date, change: &DriverChange) -> rusqlite::Result<()> {
    let given_up: HashSet<&PackageId> = change.given_up.iter().collect();
    let driver = change.driver.as_str();
    let mut batches = connection
        .prepare_cached("SELECT number, packages FROM hands WHERE driver = ? AND day = ?")?;
    let numbered = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let rows = batches.query_map(params![driver, Day(date)], numbered)?;
    let batches: Vec<(i64, String)> = rows.collect::<Result<_, _>>()?;
    for (number, json) in batches {
        let mut packages = packages(1, &json)?;
        let before = packages.len();
        packages.retain(|package| !given_up.contains(&package.id));
        if packages.is_empty() {
            connection
                .prepare_cached("DELETE FROM hands WHERE number = ?")?
                .execute([number])?;
        } else if packages.len() < before {
            let json = packages_json(1, &packages)?;
            connection
                .prepare_cached("UPDATE hands SET packages = ? WHERE number = ?")?
                .execute(params![json, number])?;
        }
    }
    for package in &change.given_up {
        connection
            .prepare_cached("DELETE FROM statuses WHERE day = ? AND driver = ? AND package = ?")?
            .execute(params![Day(date), driver, package.as_str()])?;
    }
    Ok(())
}

/// Runs in the caller's transaction.
fn set_status(connection: &Connection, update: &Update) -> Result<Updated, Abort<Refusal>> {
    let &Update {
        ref driver,
        ref package,
        status,
        strict,
        at,
    } = update;
    let found = latest(connection, driver, package)?;
    let mut assignment = found.ok_or(Abort::Refused(Refusal::NoSuchAssignment))?;
    let from = assignment.status;
    if !from.may_become(status, strict) {
        return Err(Abort::Refused(Refusal::Final { status: from }));
    }
    connection
        .prepare_cached("INSERT OR REPLACE INTO statuses VALUES (?, ?, ?, ?, ?)")?
        .execute(params![
            Day(assignment.date),
            driver.as_str(),
            package.as_str(),
            status.as_str(),
            Micros(at)
        ])?;
    (assignment.status, assignment.updated_at) = (status, at);
    Ok(Updated { from, assignment })
}

/// The latest day's assignment of a package to a driver.
fn latest(
    connection: &Connection,
    driver: &DriverId,
    package: &PackageId,
) -> rusqlite::Result<Option<Assignment>> {
    let found = connection
        .prepare_cached(
            "SELECT day, assigned_at, described.value
             FROM hands JOIN json_each(hands.packages) AS described
             WHERE driver = ?1 AND instr(packages, ?2) > 0
               AND json_extract(described.value, '$[0]') = ?3
             ORDER BY day DESC LIMIT 1",
        )?
        .query_row(
            params![driver.as_str(), quoted(package), package.as_str()],
            |row| {
                let (Day(date), Micros(assigned_at)) = (row.get(0)?, row.get(1)?);
                let package: PackageRow = serde_json::from_str(row.get_ref(2)?.as_str()?)
                    .map_err(|error| unreadable(2, error))?;
                Ok((date, assigned_at, Package::from(package)))
            },
        )
        .optional()?;
    let Some((date, assigned_at, package)) = found else {
        return Ok(None);
    };
    let status = connection
        .prepare_cached(
            "SELECT package, status, updated_at FROM statuses
             WHERE day = ? AND driver = ? AND package = ?",
        )?
        .query_row(
            params![Day(date), driver.as_str(), package.id.as_str()],
            status_row,
        )
        .optional()?;
    let (status, updated_at) = status.map_or((Status::Assigned, assigned_at), |(_, status)| status);
    Ok(Some(Assignment {
        driver: driver.clone(),
        package,
        date,
        status,
        assigned_at,
        updated_at,
    }))
}

/// A package's latest status, and its time.
fn status_row(row: &Row<'_>) -> rusqlite::Result<(String, (Status, Timestamp))> {
    let status = name(Status::parse(row.get_ref(1)?.as_str()?))?;
    let Micros(updated_at) = row.get(2)?;
    Ok((row.get(0)?, (status, updated_at)))
}

/// A name as JSON: batches without it need not be parsed.
fn quoted(package: &PackageId) -> String {
    serde_json::Value::from(package.as_str()).to_string()
}

#[cfg(test)]
mod tests;
