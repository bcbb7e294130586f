//! Deliveries in `SQLite`.
//!
//! A delivery's number is its place by first event; the total is the last number. Evicted deliveries are deleted in the transaction
//! of the event that evicts them.

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::config::Config;
use super::error::{RecordError, Refusal, Unavailable};
use super::model::{Counts, Delivery, DeliveryId, Event, EventType, History};
use super::rules;
use super::store::{Answer, NewEvent, Recorded, Store};
use crate::storage::sqlite::{Abort, Database, Invariant, Micros, application};

pub const APPLICATION: i32 = application(b'd');
/// See [`crate::storage::sqlite::Settings`].
pub const MIGRATIONS: &[&str] = &["
    CREATE TABLE deliveries (
        number     INTEGER PRIMARY KEY,
        id         TEXT NOT NULL UNIQUE,
        state      INTEGER NOT NULL,
        events     INTEGER NOT NULL,
        started_at INTEGER NOT NULL,  -- microseconds since 1970
        updated_at INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX deliveries_over ON deliveries (number) WHERE state >= 4;
    CREATE TABLE events (
        delivery    INTEGER NOT NULL,
        sequence    INTEGER NOT NULL,
        type        INTEGER NOT NULL,
        received_at INTEGER NOT NULL,  -- microseconds since 1970
        key         TEXT,
        PRIMARY KEY (delivery, sequence)
    ) STRICT, WITHOUT ROWID;
    CREATE UNIQUE INDEX events_by_key ON events (delivery, key) WHERE key IS NOT NULL;
    CREATE TABLE counts (
        only    INTEGER PRIMARY KEY CHECK (only = 1),
        ongoing INTEGER NOT NULL,
        total   INTEGER NOT NULL
    ) STRICT;
    INSERT INTO counts VALUES (1, 0, 0);
"];

pub const INVARIANTS: &[Invariant] = &[
    Invariant {
        name: "the ongoing deliveries are as many as were counted",
        broken: "SELECT 1 FROM counts WHERE ongoing <> (SELECT count(*) FROM deliveries WHERE state < 4)",
    },
    Invariant {
        name: "every delivery has all its events",
        broken: "SELECT 1 FROM deliveries
                 WHERE events <> (SELECT count(*) FROM events WHERE delivery = number)",
    },
];

/// Most deliveries that are evicted with each new one.
pub const EVICTED_PER_EVENT: u32 = 20;

#[derive(Debug, Clone)]
pub struct Sqlite {
    database: Database,
    config: Config,
}

impl Sqlite {
    /// The database must have been opened with [`MIGRATIONS`].
    pub fn new(database: Database, config: Config) -> Self {
        Self { database, config }
    }

    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Unavailable> {
        self.database.read(query).await
    }
}

impl Store for Sqlite {
    fn record(&self, event: NewEvent) -> Answer<'_, Recorded, RecordError> {
        let config = self.config.clone();
        Box::pin(async move {
            let done = self
                .database
                .write(move |connection| record(connection, &config, &event))
                .await?;
            Ok(done?)
        })
    }

    fn ongoing(&self) -> Answer<'_, Vec<Delivery>> {
        Box::pin(self.read(|connection| {
            let mut deliveries = connection.prepare_cached(
                "SELECT id, state, events, started_at, updated_at FROM deliveries WHERE state < 4 ORDER BY number",
            )?;
            deliveries.query_map([], delivery)?.collect()
        }))
    }

    fn delivery(&self, id: DeliveryId) -> Answer<'_, Option<Delivery>> {
        Box::pin(self.read(move |connection| Ok(find(connection, &id)?.map(|found| found.1))))
    }

    fn history(&self, id: DeliveryId) -> Answer<'_, Option<History>> {
        Box::pin(self.read(move |connection| {
            let Some((number, delivery)) = find(connection, &id)? else {
                return Ok(None);
            };
            let mut events = connection.prepare_cached(
                "SELECT sequence, type, received_at FROM events WHERE delivery = ? ORDER BY sequence",
            )?;
            let events = events.query_map([number], event)?.collect::<Result<_, _>>()?;
            Ok(Some(History { delivery, events }))
        }))
    }

    fn event(&self, id: DeliveryId, sequence: u32) -> Answer<'_, Option<Event>> {
        Box::pin(self.read(move |connection| {
            connection
                .prepare_cached(
                    "SELECT sequence, type, received_at FROM events
                     WHERE delivery = (SELECT number FROM deliveries WHERE id = ?) AND sequence = ?",
                )?
                .query_row(params![id.as_str(), sequence], event)
                .optional()
        }))
    }

    fn counts(&self) -> Answer<'_, Counts> {
        Box::pin(self.read(counts))
    }

    fn version(&self) -> u64 {
        self.database.version()
    }
}

impl From<Refusal> for Abort<Refusal> {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Runs in the caller's transaction.
fn record(
    connection: &Connection,
    config: &Config,
    new: &NewEvent,
) -> Result<Recorded, Abort<Refusal>> {
    let Some((number, before)) = find(connection, &new.delivery)? else {
        return begin(connection, config, new);
    };
    if let Some(first) = sent_before(connection, number, new)? {
        return if first.event_type == new.event_type {
            Ok(Recorded::Replayed(first))
        } else {
            let before = first.event_type;
            Err(Refusal::KeyReused { before }.into())
        };
    }
    let event = Event {
        sequence: rules::next(config, Some((before.state, before.events)), new.event_type)?,
        event_type: new.event_type,
        // Clocks are set back, and requests overtake one another.
        received_at: new.received_at.max(before.updated_at),
    };
    add(connection, number, &event, new.key.as_deref())?;
    connection
        .prepare_cached(
            "UPDATE deliveries SET state = ?, events = ?, updated_at = ? WHERE number = ?",
        )?
        .execute(params![
            event.event_type,
            event.sequence,
            Micros(event.received_at),
            number
        ])?;
    if event.event_type.is_final() {
        connection
            .prepare_cached("UPDATE counts SET ongoing = ongoing - 1")?
            .execute([])?;
    }
    Ok(Recorded::New(event))
}

fn begin(
    connection: &Connection,
    config: &Config,
    new: &NewEvent,
) -> Result<Recorded, Abort<Refusal>> {
    let sequence = rules::next(config, None, new.event_type)?;
    let counts = counts(connection)?;
    rules::begin(config, counts, new.is_public)?;
    let number = counts.total + 1;
    let event = Event {
        sequence,
        event_type: new.event_type,
        received_at: new.received_at,
    };
    connection
        .prepare_cached("INSERT INTO deliveries VALUES (?1, ?2, ?3, ?4, ?5, ?5)")?
        .execute(params![
            number,
            new.delivery.as_str(),
            event.event_type,
            event.sequence,
            Micros(event.received_at)
        ])?;
    add(connection, number, &event, new.key.as_deref())?;
    connection
        .prepare_cached("UPDATE counts SET ongoing = ongoing + 1, total = ?")?
        .execute([number])?;
    evict(connection, rules::evictable_up_to(config, number))?;
    Ok(Recorded::New(event))
}

/// Deletes the oldest finished deliveries with numbers up to `evictable_up_to`, a bounded number, so that other operations do not
/// wait. The rest, after `deliveries.kept` was lowered, is deleted with later deliveries.
fn evict(connection: &Connection, evictable_up_to: u64) -> rusqlite::Result<()> {
    let over: Vec<u64> = connection
        .prepare_cached(
            "SELECT number FROM deliveries WHERE state >= 4 AND number <= ? ORDER BY number LIMIT ?",
        )?
        .query_map(params![evictable_up_to, EVICTED_PER_EVENT], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for number in over {
        connection
            .prepare_cached("DELETE FROM events WHERE delivery = ?")?
            .execute([number])?;
        connection
            .prepare_cached("DELETE FROM deliveries WHERE number = ?")?
            .execute([number])?;
    }
    Ok(())
}

fn add(
    connection: &Connection,
    number: u64,
    event: &Event,
    key: Option<&str>,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT INTO events VALUES (?, ?, ?, ?, ?)")?
        .execute(params![
            number,
            event.sequence,
            event.event_type,
            Micros(event.received_at),
            key
        ])?;
    Ok(())
}

fn sent_before(
    connection: &Connection,
    number: u64,
    new: &NewEvent,
) -> rusqlite::Result<Option<Event>> {
    let Some(key) = &new.key else {
        return Ok(None);
    };
    connection
        .prepare_cached(
            "SELECT sequence, type, received_at FROM events WHERE delivery = ? AND key = ?",
        )?
        .query_row(params![number, key], event)
        .optional()
}

fn find(connection: &Connection, id: &DeliveryId) -> rusqlite::Result<Option<(u64, Delivery)>> {
    connection
        .prepare_cached(
            "SELECT id, state, events, started_at, updated_at, number FROM deliveries WHERE id = ?",
        )?
        .query_row([id.as_str()], |row| Ok((row.get(5)?, delivery(row)?)))
        .optional()
}

fn counts(connection: &Connection) -> rusqlite::Result<Counts> {
    connection
        .prepare_cached("SELECT ongoing, total FROM counts")?
        .query_row([], |row| {
            Ok(Counts {
                ongoing: row.get(0)?,
                total: row.get(1)?,
            })
        })
}

fn delivery(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    let (Micros(started_at), Micros(updated_at)) = (row.get(3)?, row.get(4)?);
    Ok(Delivery {
        id: DeliveryId::stored(row.get_ref(0)?.as_str()?),
        state: row.get(1)?,
        events: row.get(2)?,
        started_at,
        updated_at,
    })
}

fn event(row: &Row<'_>) -> rusqlite::Result<Event> {
    let Micros(received_at) = row.get(2)?;
    Ok(Event {
        sequence: row.get(0)?,
        event_type: row.get(1)?,
        received_at,
    })
}

/// The numbers are stored, so they must not change; final states are from 4 on.
fn number(event_type: EventType) -> i64 {
    match event_type {
        EventType::ParcelCollected => 1,
        EventType::TakenOff => 2,
        EventType::Landed => 3,
        EventType::Crashed => 4,
        EventType::ParcelDelivered => 5,
    }
}

impl ToSql for EventType {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(number(*self).into())
    }
}

impl FromSql for EventType {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let found = value.as_i64()?;
        Self::ALL
            .into_iter()
            .find(|&event_type| number(event_type) == found)
            .ok_or(FromSqlError::OutOfRange(found))
    }
}

#[cfg(test)]
mod tests;
