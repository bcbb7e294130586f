//! Lists of assignments, page by page.

use std::collections::HashMap;

use jiff::civil::Date;
use rusqlite::{Connection, Row, params};

use super::super::model::{Assignment, DriverId, Filter, ID_CHARS_MAX, PackageId, Place, Status};
use super::super::store::Listing;
use super::{Day, packages, quoted, status_row};
use crate::storage::sqlite::Micros;

/// Most batches that are read for one page; then the page ends, however short it is.
const BATCHES_MAX: usize = 10_000;

/// Assignments by driver, then by day, then by package.
pub(super) fn list(
    connection: &Connection,
    filter: &Filter,
    after: Option<&Place>,
    limit: usize,
) -> rusqlite::Result<Listing> {
    // Each uses an index; `1` means no condition.
    let (only, from) = match (&filter.driver, filter.date) {
        (Some(_), Some(_)) => ("driver = ?3 AND day = ?4", "1"),
        (Some(_), None) => ("driver = ?3", "day >= coalesce(?2, '')"),
        (None, Some(_)) => ("day = ?4", "driver >= ?1"),
        (None, None) => ("1", "(driver, day) >= (?1, coalesce(?2, ''))"),
    };
    let mut batches = connection.prepare_cached(&format!(
        "SELECT driver, day, assigned_at, packages FROM hands
         WHERE {only} AND {from} AND (?5 IS NULL OR instr(packages, ?5) > 0)
         ORDER BY driver, day",
    ))?;
    let mut rows = batches.query(params![
        after.map_or("", |place| place.driver.as_str()),
        after.and_then(|place| place.date).map(Day),
        filter.driver.as_ref().map(DriverId::as_str),
        filter.date.map(Day),
        filter.package.as_ref().map(quoted)
    ])?;
    let mut found: Vec<Assignment> = Vec::new();
    // The batches of one driver and day are sorted together.
    let mut group: Vec<Assignment> = Vec::new();
    let mut key: Option<(DriverId, Date)> = None;
    let mut read = 0;
    let end = |found: &mut Vec<Assignment>, group: &mut Vec<Assignment>| {
        group.sort_unstable_by(|one, other| one.package.id.cmp(&other.package.id));
        let seen = |assignment: &Assignment| after.is_some_and(|after| place(assignment) <= *after);
        found.extend(group.drain(..).filter(|assignment| !seen(assignment)));
    };
    while let Some(row) = rows.next()? {
        let Day(date) = row.get(1)?;
        let new = (DriverId::stored(row.get_ref(0)?.as_str()?), date);
        if let Some(old) = key.replace(new.clone()).filter(|old| *old != new) {
            end(&mut found, &mut group);
            if found.len() > limit {
                break;
            }
            if read >= BATCHES_MAX {
                let next = Some(end_of(old));
                return Ok(Listing {
                    assignments: found,
                    next,
                });
            }
        }
        read += 1;
        read_batch(connection, row, filter, &mut group)?;
    }
    end(&mut found, &mut group);
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(place);
    Ok(Listing {
        assignments: found,
        next,
    })
}

/// The cursor behind all assignments of a driver and day.
fn end_of((driver, date): (DriverId, Date)) -> Place {
    // As many bytes as the longest name.
    let last = char::MAX.to_string().repeat(ID_CHARS_MAX / 2);
    Place {
        driver,
        date: Some(date),
        package: PackageId::stored(&last),
    }
}

fn place(assignment: &Assignment) -> Place {
    Place {
        driver: assignment.driver.clone(),
        date: Some(assignment.date),
        package: assignment.package.id.clone(),
    }
}

/// The matching assignments of a batch, whose row has driver, day, time and packages.
fn read_batch(
    connection: &Connection,
    row: &Row<'_>,
    filter: &Filter,
    found: &mut Vec<Assignment>,
) -> rusqlite::Result<()> {
    let driver = DriverId::stored(row.get_ref(0)?.as_str()?);
    let (Day(date), Micros(assigned_at)) = (row.get(1)?, row.get(2)?);
    let mut statement = connection.prepare_cached(
        "SELECT package, status, updated_at FROM statuses WHERE day = ? AND driver = ?",
    )?;
    let statuses = statement.query_map(params![Day(date), driver.as_str()], status_row)?;
    let statuses: HashMap<_, _> = statuses.collect::<Result<_, _>>()?;
    for package in packages(3, row.get_ref(3)?.as_str()?)? {
        let status = statuses.get(package.id.as_str()).copied();
        let (status, updated_at) = status.unwrap_or((Status::Assigned, assigned_at));
        let fits = filter
            .package
            .as_ref()
            .is_none_or(|wanted| *wanted == package.id)
            && filter.status.is_none_or(|wanted| wanted == status);
        if fits {
            found.push(Assignment {
                driver: driver.clone(),
                package,
                date,
                status,
                assigned_at,
                updated_at,
            });
        }
    }
    Ok(())
}
