//! The counts of each zone. They change in the transaction of the events, one statement per zone, however many events there are.

use rusqlite::{Connection, OptionalExtension, params};

use super::super::model::{Courier, Zone, ZoneSummary};
use crate::storage::sqlite::Micros;

/// How the counts of the zones change.
#[derive(Debug, Default)]
pub(super) struct Tally([Change; Zone::ALL.len()]);

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    available: i64,
    unavailable: i64,
    pub(super) given: i64,
    pub(super) parked: i64,
}

impl Tally {
    pub(super) fn of(&mut self, zone: Zone) -> &mut Change {
        &mut self.0[zone as usize]
    }

    /// A courier comes (1) or goes (-1).
    pub(super) fn count(&mut self, courier: &Courier, by: i64) {
        let change = self.of(courier.said.zone);
        change.given += by * i64::try_from(courier.count).unwrap_or(i64::MAX);
        if courier.said.is_available {
            change.available += by;
        } else {
            change.unavailable += by;
        }
    }

    /// So many parked orders of a zone were given to its couriers.
    pub(super) fn unparked(&mut self, zone: Zone, count: usize) {
        let (change, count) = (self.of(zone), i64::try_from(count).unwrap_or(i64::MAX));
        change.parked -= count;
        change.given += count;
    }

    pub(super) fn store(&self, connection: &Connection) -> rusqlite::Result<()> {
        let changed = Zone::ALL.iter().zip(&self.0);
        for (zone, change) in changed.filter(|(_, change)| **change != Change::default()) {
            connection
                .prepare_cached(
                    "UPDATE zones SET available = available + ?2, unavailable = unavailable + ?3,
                         given = given + ?4, parked = parked + ?5
                     WHERE zone = ?1",
                )?
                .execute(params![
                    zone.as_str(),
                    change.available,
                    change.unavailable,
                    change.given,
                    change.parked
                ])?;
        }
        Ok(())
    }
}

/// Every zone.
pub(super) fn all(connection: &Connection) -> rusqlite::Result<Vec<ZoneSummary>> {
    let each = Zone::ALL.into_iter().map(|zone| summary(connection, zone));
    each.collect()
}

fn summary(connection: &Connection, zone: Zone) -> rusqlite::Result<ZoneSummary> {
    let end = |order: &str| {
        let sql = format!(
            "SELECT count FROM couriers WHERE available = 1 AND zone = ? ORDER BY count {order} LIMIT 1"
        );
        let mut statement = connection.prepare_cached(&sql)?;
        statement
            .query_row([zone.as_str()], |row| row.get(0))
            .optional()
    };
    let oldest = connection
        .prepare_cached("SELECT added_at FROM parked WHERE zone = ? ORDER BY added_at LIMIT 1")?
        .query_row([zone.as_str()], |row| row.get(0).map(|Micros(at)| at))
        .optional()?;
    let mut counts = connection
        .prepare_cached("SELECT available, unavailable, given, parked FROM zones WHERE zone = ?")?;
    let (least, most) = (end("ASC")?, end("DESC")?);
    counts.query_row([zone.as_str()], |row| {
        Ok(ZoneSummary {
            zone,
            available: row.get(0)?,
            unavailable: row.get(1)?,
            given: row.get(2)?,
            least,
            most,
            parked: row.get(3)?,
            oldest_parked: oldest,
        })
    })
}
