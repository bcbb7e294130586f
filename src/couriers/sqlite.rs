//! Couriers in `SQLite`: an event, its decision and its outbox entry are one transaction.

mod zones;

use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use self::zones::Tally;
use super::dispatch;
use super::model::{
    AddCourier, AddOrder, Assignment, Courier, CourierId, Event, Join, OrderId, Outcome,
    Whereabouts, Zone, ZoneSummary,
};
use super::store::{Answer, Outgoing, Recorded, Store};
use crate::storage::State;
use crate::storage::sqlite::{Database, Micros, application};

pub const APPLICATION: i32 = application(b'c');
/// See [`crate::storage::sqlite::Settings`]. Times are in microseconds since 1970. An order without a courier is in `parked`;
/// its details are only there and in the log. `learned` has replicated assignments. `zones` has what would need a look at every
/// courier.
pub const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE couriers (
        id        BLOB PRIMARY KEY,
        name      TEXT NOT NULL,
        zone      TEXT NOT NULL,
        available INTEGER NOT NULL,
        count     INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX turns ON couriers (zone, count, id) WHERE available = 1;
    CREATE TABLE orders (
        id      BLOB PRIMARY KEY,
        courier BLOB
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX orders_of ON orders (courier, id) WHERE courier IS NOT NULL;
    CREATE TABLE parked (
        zone     TEXT NOT NULL,
        added_at INTEGER NOT NULL,
        id       BLOB NOT NULL,
        details  TEXT NOT NULL,
        PRIMARY KEY (zone, added_at, id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE events (
        number  INTEGER PRIMARY KEY,
        at      INTEGER NOT NULL,
        event   TEXT NOT NULL,
        outcome TEXT NOT NULL
    ) STRICT;
    CREATE TABLE outgoing (
        number  INTEGER PRIMARY KEY AUTOINCREMENT,
        placed  BLOB NOT NULL,
        courier BLOB NOT NULL
    ) STRICT;
    CREATE TABLE learned (
        id      BLOB PRIMARY KEY,
        courier BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX learned_of ON learned (courier, id);
",
    "
    CREATE TABLE zones (
        zone        TEXT PRIMARY KEY,
        available   INTEGER NOT NULL,
        unavailable INTEGER NOT NULL,
        given       INTEGER NOT NULL,
        parked      INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    INSERT INTO zones
    SELECT column1,
        (SELECT count(*) FROM couriers WHERE zone = column1 AND available = 1),
        (SELECT count(*) FROM couriers WHERE zone = column1 AND available = 0),
        (SELECT ifnull(sum(count), 0) FROM couriers WHERE zone = column1),
        (SELECT count(*) FROM parked WHERE zone = column1)
    FROM (VALUES ('N'), ('S'), ('E'), ('W'));
",
];

#[derive(Debug, Clone)]
pub struct Sqlite {
    database: Database,
    join: Join,
    /// Whether assignments go to the outbox.
    publishes: bool,
}

impl Sqlite {
    /// The database must have been opened with [`MIGRATIONS`].
    pub fn new(database: Database, join: Join, publishes: bool) -> Self {
        Self {
            database,
            join,
            publishes,
        }
    }
}

impl Store for Sqlite {
    fn apply(&self, events: Vec<(Event, Timestamp)>) -> Answer<'_, Vec<Outcome>> {
        let (join, publishes) = (self.join, self.publishes);
        // Serialized here, not on the writer's thread.
        let events = events.into_iter().map(|(event, at)| {
            let text = serde_json::to_string(&event);
            (event, at, text)
        });
        let events: Vec<_> = events.collect();
        Box::pin(self.database.commit(move |connection| {
            let mut tally = Tally::default();
            let each = events.iter().map(|(event, at, text)| {
                let text = text.as_ref().map_err(written)?;
                let (outcome, assignments) = apply(connection, event, join, &mut tally)?;
                record(connection, text, *at, outcome)?;
                for assignment in assignments.iter().filter(|_| publishes) {
                    tell(connection, *assignment)?;
                }
                Ok(outcome)
            });
            let outcomes = each.collect::<rusqlite::Result<_>>()?;
            tally.store(connection)?;
            Ok(outcomes)
        }))
    }

    fn replicate(&self, assignments: Vec<Assignment>) -> Answer<'_, ()> {
        Box::pin(self.database.commit(move |connection| {
            for Assignment {
                order_id,
                courier_id,
            } in &assignments
            {
                connection
                    .prepare_cached(
                        "INSERT OR IGNORE INTO learned SELECT ?1, ?2
                         WHERE NOT EXISTS (SELECT 1 FROM orders WHERE id = ?1 AND courier IS NOT NULL)",
                    )?
                    .execute([order_id.0, courier_id.0])?;
            }
            Ok(())
        }))
    }

    fn order(&self, order: OrderId) -> Answer<'_, Option<Whereabouts>> {
        Box::pin(self.database.read(move |connection| {
            let decided = whereabouts(connection, order)?;
            if let Some(Whereabouts::With(_)) = decided {
                return Ok(decided);
            }
            let replicated = connection
                .prepare_cached("SELECT courier FROM learned WHERE id = ?")?
                .query_row([order.0], place)
                .optional()?;
            Ok(replicated.or(decided))
        }))
    }

    fn orders(&self) -> Answer<'_, Vec<(OrderId, Whereabouts)>> {
        Box::pin(self.database.read(|connection| {
            connection
                .prepare_cached("SELECT courier, id FROM orders ORDER BY id")?
                .query_map([], |row| Ok((OrderId(row.get(1)?), place(row)?)))?
                .collect()
        }))
    }

    fn orders_of(&self, courier: CourierId) -> Answer<'_, Vec<OrderId>> {
        Box::pin(self.database.read(move |connection| {
            connection
                .prepare_cached(
                    "SELECT id FROM orders WHERE courier = ?1 UNION SELECT id FROM learned WHERE courier = ?1
                     ORDER BY id",
                )?
                .query_map([courier.0], |row| Ok(OrderId(row.get(0)?)))?
                .collect()
        }))
    }

    fn courier(&self, courier: CourierId) -> Answer<'_, Option<Courier>> {
        Box::pin(
            self.database
                .read(move |connection| find(connection, courier)),
        )
    }

    fn couriers(&self, zone: Option<Zone>) -> Answer<'_, Vec<Courier>> {
        Box::pin(self.database.read(move |connection| {
            connection
                .prepare_cached(
                    "SELECT id, name, zone, available, count FROM couriers
                     WHERE ?1 IS NULL OR zone = ?1 ORDER BY id",
                )?
                .query_map([zone.map(Zone::as_str)], courier)?
                .collect()
        }))
    }

    fn parked(&self, limit: usize) -> Answer<'_, (Vec<AddOrder>, u64)> {
        Box::pin(self.database.read(move |connection| {
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let orders = connection
                .prepare_cached(
                    "SELECT id, details, zone, added_at FROM parked
                     ORDER BY zone, added_at, id LIMIT ?",
                )?
                .query_map([limit], |row| {
                    let Micros(added_at) = row.get(3)?;
                    Ok(AddOrder {
                        id: OrderId(row.get(0)?),
                        details: row.get(1)?,
                        zone: zone(row, 2)?,
                        added_at,
                    })
                })?
                .collect::<Result<_, _>>()?;
            let count = connection
                .prepare_cached("SELECT count(*) FROM parked")?
                .query_row([], |row| row.get(0))?;
            Ok((orders, count))
        }))
    }

    fn zones(&self) -> Answer<'_, Vec<ZoneSummary>> {
        Box::pin(self.database.read(zones::all))
    }

    fn events(&self, after: u64, limit: usize) -> Answer<'_, Vec<Recorded>> {
        Box::pin(self.database.read(move |connection| {
            let after = i64::try_from(after).unwrap_or(i64::MAX);
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            connection
                .prepare_cached(
                    "SELECT number, at, event, outcome FROM events WHERE number > ? ORDER BY number LIMIT ?",
                )?
                .query_map([after, limit], recorded)?
                .collect()
        }))
    }

    fn outgoing(&self, limit: usize) -> Answer<'_, Vec<Outgoing>> {
        Box::pin(self.database.read(move |connection| {
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            connection
                .prepare_cached(
                    "SELECT number, placed, courier FROM outgoing ORDER BY number LIMIT ?",
                )?
                .query_map([limit], |row| {
                    let assignment = Assignment {
                        order_id: OrderId(row.get(1)?),
                        courier_id: CourierId(row.get(2)?),
                    };
                    Ok(Outgoing {
                        number: row.get(0)?,
                        assignment,
                    })
                })?
                .collect()
        }))
    }

    fn mark_published(&self, numbers: Vec<u64>) -> Answer<'_, ()> {
        Box::pin(self.database.commit(move |connection| {
            for number in &numbers {
                connection
                    .prepare_cached("DELETE FROM outgoing WHERE number = ?")?
                    .execute([number])?;
            }
            Ok(())
        }))
    }

    fn state(&self) -> State {
        self.database.state()
    }
}

fn recorded(row: &Row<'_>) -> rusqlite::Result<Recorded> {
    let Micros(at) = row.get(1)?;
    Ok(Recorded {
        number: row.get(0)?,
        at,
        event: json(row, 2)?,
        outcome: json(row, 3)?,
    })
}

/// Where an order is; column 0 is its courier.
fn place(row: &Row<'_>) -> rusqlite::Result<Whereabouts> {
    let courier: Option<Uuid> = row.get(0)?;
    let with = |courier| Whereabouts::With(CourierId(courier));
    Ok(courier.map_or(Whereabouts::Parked, with))
}

/// Decides about an event and stores the result, in the caller's transaction.
fn apply(
    connection: &Connection,
    event: &Event,
    join: Join,
    tally: &mut Tally,
) -> rusqlite::Result<(Outcome, Vec<Assignment>)> {
    match event {
        Event::Order(order) => add_order(connection, order, tally),
        Event::Courier(said) => add_courier(connection, said.clone(), join, tally),
    }
}

fn add_order(
    connection: &Connection,
    added: &AddOrder,
    tally: &mut Tally,
) -> rusqlite::Result<(Outcome, Vec<Assignment>)> {
    let least = least(connection, added.zone)?;
    // Without `RETURNING`, which fills a temporary table with each execution.
    let inserted = connection
        .prepare_cached("INSERT INTO orders VALUES (?, ?) ON CONFLICT DO NOTHING")?
        .execute(params![added.id.0, least.map(|courier| courier.0)])?;
    if inserted == 0 {
        let known = dispatch::duplicate(whereabouts(connection, added.id)?);
        return Ok((
            known.ok_or(rusqlite::Error::QueryReturnedNoRows)?,
            Vec::new(),
        ));
    }
    let outcome = dispatch::order(least);
    let Outcome::Assigned(courier_id) = outcome else {
        park(connection, added)?;
        tally.of(added.zone).parked += 1;
        return Ok((outcome, Vec::new()));
    };
    count_up(connection, courier_id)?;
    tally.of(added.zone).given += 1;
    let assignment = Assignment {
        order_id: added.id,
        courier_id,
    };
    Ok((outcome, vec![assignment]))
}

fn park(connection: &Connection, order: &AddOrder) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT INTO parked VALUES (?, ?, ?, ?)")?
        .execute(params![
            order.zone.as_str(),
            Micros(order.added_at),
            order.id.0,
            order.details
        ])?;
    Ok(())
}

fn add_courier(
    connection: &Connection,
    said: AddCourier,
    join: Join,
    tally: &mut Tally,
) -> rusqlite::Result<(Outcome, Vec<Assignment>)> {
    let before = find(connection, said.id)?;
    let least_count = connection
        .prepare_cached(
            "SELECT count FROM couriers WHERE available = 1 AND zone = ? AND id <> ?
             ORDER BY count, id LIMIT 1",
        )?
        .query_row(params![said.zone.as_str(), said.id.0], |row| row.get(0))
        .optional()?;
    let after = dispatch::courier(before.as_ref(), said, join, least_count);
    if let Some(before) = &before {
        tally.count(before, -1);
    }
    tally.count(&after, 1);
    let Courier { said, count } = after;
    connection
        .prepare_cached("INSERT OR REPLACE INTO couriers VALUES (?, ?, ?, ?, ?)")?
        .execute(params![
            said.id.0,
            said.name,
            said.zone.as_str(),
            said.is_available,
            count
        ])?;
    let mut assignments = Vec::new();
    while let Some(courier_id) = least(connection, said.zone)? {
        let Some(order_id) = unpark(connection, said.zone)? else {
            break;
        };
        connection
            .prepare_cached("UPDATE orders SET courier = ? WHERE id = ?")?
            .execute(params![courier_id.0, order_id.0])?;
        count_up(connection, courier_id)?;
        assignments.push(Assignment {
            order_id,
            courier_id,
        });
    }
    tally.unparked(said.zone, assignments.len());
    let unparked = assignments.len() as u64;
    Ok((Outcome::Updated { unparked }, assignments))
}

/// The courier whose turn it is.
fn least(connection: &Connection, zone: Zone) -> rusqlite::Result<Option<CourierId>> {
    connection
        .prepare_cached(
            "SELECT id FROM couriers WHERE available = 1 AND zone = ? ORDER BY count, id LIMIT 1",
        )?
        .query_row([zone.as_str()], |row| Ok(CourierId(row.get(0)?)))
        .optional()
}

/// Removes the longest waiting order from the parked ones.
fn unpark(connection: &Connection, zone: Zone) -> rusqlite::Result<Option<OrderId>> {
    connection
        .prepare_cached(
            "DELETE FROM parked WHERE (zone, added_at, id) = (
                SELECT zone, added_at, id FROM parked WHERE zone = ? ORDER BY added_at, id LIMIT 1
             ) RETURNING id",
        )?
        .query_row([zone.as_str()], |row| Ok(OrderId(row.get(0)?)))
        .optional()
}

fn count_up(connection: &Connection, courier: CourierId) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE couriers SET count = count + 1 WHERE id = ?")?
        .execute([courier.0])?;
    Ok(())
}

fn whereabouts(connection: &Connection, order: OrderId) -> rusqlite::Result<Option<Whereabouts>> {
    connection
        .prepare_cached("SELECT courier FROM orders WHERE id = ?")?
        .query_row([order.0], place)
        .optional()
}

fn find(connection: &Connection, id: CourierId) -> rusqlite::Result<Option<Courier>> {
    connection
        .prepare_cached("SELECT id, name, zone, available, count FROM couriers WHERE id = ?")?
        .query_row([id.0], courier)
        .optional()
}

fn courier(row: &Row<'_>) -> rusqlite::Result<Courier> {
    Ok(Courier {
        said: AddCourier {
            id: CourierId(row.get(0)?),
            name: row.get(1)?,
            zone: zone(row, 2)?,
            is_available: row.get(3)?,
        },
        count: row.get(4)?,
    })
}

fn zone(row: &Row<'_>, column: usize) -> rusqlite::Result<Zone> {
    let letter = row.get_ref(column)?.as_str()?;
    Zone::parse(letter).ok_or(rusqlite::Error::InvalidQuery)
}

fn json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    serde_json::from_str(text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
    })
}

fn written(error: &serde_json::Error) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(error.to_string().into())
}

fn record(
    connection: &Connection,
    event: &str,
    at: Timestamp,
    outcome: Outcome,
) -> rusqlite::Result<()> {
    let outcome = serde_json::to_string(&outcome).map_err(|error| written(&error))?;
    connection
        .prepare_cached("INSERT INTO events (at, event, outcome) VALUES (?, ?, ?)")?
        .execute(params![Micros(at), event, outcome])?;
    Ok(())
}

fn tell(connection: &Connection, assignment: Assignment) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT INTO outgoing (placed, courier) VALUES (?, ?)")?
        .execute([assignment.order_id.0, assignment.courier_id.0])?;
    Ok(())
}

#[cfg(test)]
pub(super) mod tests;
