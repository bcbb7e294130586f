//! Migration from the format before this one, which had a hash tag per zone, and a log per zone whose numbers were made of the
//! time.
//!
//! The old logs are replayed in the order of their numbers. Unpublished and replicated assignments are not in a log; they are
//! copied. The old keys stay until they are deleted by a call of its own. No server may run at the same time.

use std::collections::BTreeMap;
use std::fmt;

use redis::{Cmd, ErrorKind, RedisError, RedisResult};

use super::super::model::{Assignment, Join, Zone};
use super::super::store::{Recorded, Store};
use super::notation::{self, command, command_on, invalid_answer};
use super::writer::KEYS;
use super::{Client, PAGE, Redis};

/// The zones in the order in which a number, divided by 4, leaves 0, 1, 2, 3.
const ZONES: [(u64, Zone); 4] = [(0, Zone::N), (1, Zone::S), (2, Zone::E), (3, Zone::W)];
/// The old keys of a zone.
const OLD_NAMES: [&str; 11] = [
    "couriers", "counts", "turns", "orders", "parked", "given", "leaving", "left", "log",
    "outgoing", "clock",
];
/// Of the old keys of no zone.
const OLD_PREFIX: &str = "odyssey:couriers:";
/// Old keys of replicated assignments, one per courier.
const OLD_REPLICATED: &str = "learned-of:";
/// Values of the key `format`: no old data was found, or it was migrated, followed by the number of its last event.
const NEW: &str = "new";
const MIGRATED: &str = "migrated ";

/// The result of a migration.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Migration {
    pub events: u64,
    /// By name: in the old format, and in this one.
    pub counts: BTreeMap<&'static str, [u64; 2]>,
    /// The number of the first event whose outcome differs from the logged one.
    pub differing: Option<u64>,
    /// Whether the old keys were deleted.
    pub deleted: bool,
}

impl Migration {
    pub fn agrees(&self) -> bool {
        self.differing.is_none() && self.counts.values().all(|[old, new]| old == new)
    }
}

impl fmt::Display for Migration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.counts.is_empty() {
            f.write_str("There is nothing to migrate.")?;
        } else {
            write!(f, "{} events", self.events)?;
        }
        for (name, [old, new]) in &self.counts {
            write!(f, ", {new} {name}")?;
            if old != new {
                write!(f, " (there were {old})")?;
            }
        }
        if let Some(number) = self.differing {
            write!(f, "\nEvent {number} has another outcome than in the log.")?;
        }
        if self.deleted {
            f.write_str("\nThe old keys are deleted.")?;
        }
        Ok(())
    }
}

/// Whether Redis has data of the old format that was not migrated.
///
/// # Errors
/// If Redis does not answer.
pub async fn is_needed(client: &Client) -> RedisResult<bool> {
    let format: Option<String> = client.ask(command("GET", "format", &[])).await?;
    if let Some(last) = format.as_deref().and_then(|it| it.strip_prefix(MIGRATED)) {
        // Events of an earlier version that was started after the migration are not in this format.
        let newer = old_pages(client, notation::number(last)?, 1).await?;
        return Ok(newer.iter().any(|page| !page.is_empty()));
    }
    let logs = ZONES.map(|(_, zone)| old("EXISTS", zone, "log", &[]));
    let logs: Vec<u64> = client.ask_all(logs.into()).await?;
    if logs.contains(&1) {
        return Ok(true);
    }
    if format.is_some() {
        return Ok(false);
    }
    // A directory has no log. Looking through all keys takes up to a second; it is done once.
    let is_old = !old_keys(client, OLD_REPLICATED).await?.is_empty();
    if !is_old {
        // If Redis refuses writes, the next start looks again.
        let _: RedisResult<String> = client.ask(command("SET", "format", &[NEW])).await;
    }
    Ok(is_old)
}

/// Migrates, if that is needed; with `deletes_old`, deletes the old keys of an earlier or this migration.
///
/// # Errors
/// If Redis does not answer, or has data in both formats.
pub async fn migrate(client: &Client, join: Join, deletes_old: bool) -> RedisResult<Migration> {
    let mut migration = Migration::default();
    if is_needed(client).await? {
        let last;
        (migration, last) = replay(client, join).await?;
        if !migration.agrees() {
            return Ok(migration);
        }
        let format = format!("{MIGRATED}{last}");
        let _: String = client.ask(command("SET", "format", &[&format])).await?;
    }
    if deletes_old {
        delete_old(client).await?;
        migration.deleted = true;
    }
    Ok(migration)
}

/// Replays the old logs into this format, and copies what is not in a log; returns the number of the last event too.
async fn replay(client: &Client, join: Join) -> RedisResult<(Migration, u64)> {
    let format: Option<String> = client.ask(command("GET", "format", &[])).await?;
    if format.is_some() {
        return Err(refused("servers of both versions have written to it"));
    }
    if old_count(client, "HLEN", "leaving").await? > 0 {
        return Err(refused(
            "a courier is between two zones: start the earlier version for a second",
        ));
    }
    // An interrupted migration starts again.
    let names = KEYS.iter().chain(&["replicated"]);
    let deletions = names.map(|name| command("UNLINK", name, &[]));
    let _: Vec<u64> = client.ask_all(deletions.collect()).await?;
    // Replayed assignments stay out of the outbox: most were published.
    let store = Redis::new(client.clone(), join, false, 1);
    let (mut migration, last) = replay_logs(client, &store).await?;
    copy_outgoing(client).await?;
    copy_replicated(client, &store).await?;
    // A courier has two fields.
    for (name, old_command, new_command, fields) in [
        ("couriers", "HLEN", "HLEN", 2),
        ("orders", "HLEN", "HLEN", 1),
        ("parked", "ZCARD", "ZCARD", 1),
        ("outgoing", "ZCARD", "XLEN", 1),
    ] {
        let before = old_count(client, old_command, name).await?;
        let after: u64 = client.ask(command(new_command, name, &[])).await?;
        migration.counts.insert(name, [before, after / fields]);
    }
    Ok((migration, last))
}

async fn replay_logs(client: &Client, store: &Redis) -> RedisResult<(Migration, u64)> {
    let mut migration = Migration::default();
    let mut after = 0;
    loop {
        let recorded = old_events(client, after, PAGE).await?;
        let Some(last) = recorded.last() else {
            return Ok((migration, after));
        };
        after = last.number;
        let events = recorded.iter().map(|it| (it.event.clone(), it.at));
        let outcomes = store.apply(events.collect()).await;
        let outcomes = outcomes.map_err(|_| refused("it fails, see the log"))?;
        migration.events += outcomes.len() as u64;
        let mut pairs = recorded.iter().zip(outcomes);
        let differing = pairs.find(|(recorded, outcome)| recorded.outcome != *outcome);
        let differing = differing.map(|(recorded, _)| recorded.number);
        migration.differing = migration.differing.or(differing);
    }
}

/// The next entries of each old log after a number: the id and the fields of each.
async fn old_pages(
    client: &Client,
    after: u64,
    limit: usize,
) -> RedisResult<Vec<Vec<(String, BTreeMap<String, String>)>>> {
    let count = limit.to_string();
    let pages = ZONES.map(|(index, zone)| {
        let from = format!("{}-0", (after + 4 - index) / 4);
        old("XRANGE", zone, "log", &[&from, "+", "COUNT", &count])
    });
    client.ask_all(pages.into()).await
}

/// The next events of the old logs after a number, which is the time of the zone, times 4, plus the index of the zone.
async fn old_events(client: &Client, after: u64, limit: usize) -> RedisResult<Vec<Recorded>> {
    let mut entries = Vec::new();
    for ((index, _), page) in ZONES.iter().zip(old_pages(client, after, limit).await?) {
        for (id, fields) in page {
            let time = notation::number(id.strip_suffix("-0").unwrap_or_default())?;
            entries.push((time * 4 + index, fields));
        }
    }
    entries.sort_by_key(|(number, _)| *number);
    // All that are left were among the first `limit` of their zone.
    entries.truncate(limit);
    let mut recorded = Vec::with_capacity(entries.len());
    // An entry has the event itself, or the id of an order, whose event has a key of its own.
    let orders = entries.iter().filter_map(|(_, fields)| {
        fields
            .get("order")
            .map(|id| old_without_zone("GET", &format!("order:{id}")))
    });
    let orders: Vec<String> = client.ask_all(orders.collect()).await?;
    let mut orders = orders.iter();
    for (number, fields) in &entries {
        let field = |name| {
            let field: Option<&String> = fields.get(name);
            field.ok_or_else(|| invalid_answer("an entry of an old log lacks a field"))
        };
        let first = fields.get("order").and_then(|_| orders.next());
        let event = first.map_or_else(|| field("event"), Ok)?;
        recorded.push(Recorded {
            number: *number,
            at: notation::time_of(field("at")?)?,
            event: notation::event_of(event)?,
            outcome: notation::outcome_of(field("outcome")?)?,
        });
    }
    Ok(recorded)
}

/// Copies the unpublished assignments, in the order of their numbers.
async fn copy_outgoing(client: &Client) -> RedisResult<()> {
    let all = ["0", "-1", "WITHSCORES"];
    let zones = ZONES.map(|(_, zone)| old("ZRANGE", zone, "outgoing", &all));
    let zones: Vec<Vec<(String, u64)>> = client.ask_all(zones.into()).await?;
    let zones = ZONES.iter().zip(zones);
    let outgoing = zones.flat_map(|((index, _), members)| {
        let numbered = members.into_iter();
        numbered.map(move |(member, time)| (time * 4 + index, member))
    });
    let outgoing: BTreeMap<u64, String> = outgoing.collect();
    for member in outgoing.values() {
        let add = command("XADD", "outgoing", &["0-*", "a", member]);
        let _: String = client.ask(add).await?;
    }
    Ok(())
}

/// Copies the replicated assignments.
async fn copy_replicated(client: &Client, store: &Redis) -> RedisResult<()> {
    for (courier, orders) in old_replicated(client).await? {
        let courier_id = notation::courier_id(&courier)?;
        let assignments = orders.iter().map(|order| {
            let order_id = notation::order_id(order)?;
            Ok(Assignment {
                order_id,
                courier_id,
            })
        });
        let assignments = assignments.collect::<RedisResult<_>>()?;
        let stored = store.replicate(assignments).await;
        stored.map_err(|_| refused("it fails, see the log"))?;
    }
    Ok(())
}

/// The couriers with replicated orders.
async fn old_replicated(client: &Client) -> RedisResult<Vec<(String, Vec<String>)>> {
    let mut replicated = Vec::new();
    for key in old_keys(client, OLD_REPLICATED).await? {
        let orders = client.ask(command_on(&key, "SMEMBERS", &[])).await?;
        let courier = key.rsplit(':').next().unwrap_or_default();
        replicated.push((courier.to_owned(), orders));
    }
    Ok(replicated)
}

/// The old keys of no zone that begin with this, after the prefix of all of them.
async fn old_keys(client: &Client, begin: &str) -> RedisResult<Vec<String>> {
    let keys = command_on(&format!("{OLD_PREFIX}{begin}*"), "KEYS", &[]);
    client.ask(keys).await
}

/// Deletes the old keys, those of no zone first: the logs tell that there is something to delete.
async fn delete_old(client: &Client) -> RedisResult<()> {
    let keys = old_keys(client, "").await?;
    for page in keys.chunks(PAGE) {
        let deletions = page.iter().map(|key| command_on(key, "UNLINK", &[]));
        let _: Vec<u64> = client.ask_all(deletions.collect()).await?;
    }
    for (_, zone) in ZONES {
        let deletions = OLD_NAMES.map(|name| old("UNLINK", zone, name, &[]));
        let _: Vec<u64> = client.ask_all(deletions.into()).await?;
    }
    Ok(())
}

fn old_key(zone: Zone, name: &str) -> String {
    format!("{{odyssey:couriers:{}}}:{name}", zone.as_str())
}

/// A command on an old key of a zone.
fn old(name: &str, zone: Zone, key_name: &str, arguments: &[&str]) -> Cmd {
    command_on(&old_key(zone, key_name), name, arguments)
}

/// A command on an old key that belongs to no zone.
fn old_without_zone(name: &str, key: &str) -> Cmd {
    command_on(&format!("{OLD_PREFIX}{key}"), name, &[])
}

/// The sum over the zones.
async fn old_count(client: &Client, name: &str, key_name: &str) -> RedisResult<u64> {
    let counts = ZONES.map(|(_, zone)| old(name, zone, key_name, &[]));
    let counts: Vec<u64> = client.ask_all(counts.into()).await?;
    Ok(counts.iter().sum())
}

fn refused(why: &'static str) -> RedisError {
    let error = "the couriers in Redis cannot be migrated";
    (ErrorKind::InvalidClientConfig, error, why.to_owned()).into()
}
