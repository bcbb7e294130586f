//! Couriers in Redis or Valkey, one server or a cluster, shared by several processes.
//!
//! # Layout
//! All keys of a zone share one hash tag, so that one script ([`zone.lua`](self)) decides about an event, counts, assigns, parks,
//! logs and fills the outbox, atomically. Two things span zones:
//! - an **order**: its first event is stored under its id before it is applied, and the log refers to it. A later event of the
//!   same order, in whichever zone, is led to the first one's zone, and applies that one first if its writer died before.
//! - a **courier** who moves: their home key has their zone. They *leave* one zone, which stores what they take along, *arrive* in
//!   the other, and then the home key is updated; any process finishes a move that another one began. The log has them as
//!   unavailable in the old zone before they appear in the new one.
//!
//! # Numbers
//! A number of the log is `max(microseconds, last + 1) * 4 + zone index`: it grows from event to event without a counter that all
//! zones share. An event is listed once no smaller number can be assigned any more. Readers make sure of that: a zone whose clock
//! is behind the largest number is advanced past it (a hybrid logical clock), so that clock skew and steps hide no events.
//!
//! # Durability
//! That of Redis: `appendonly yes`, and `appendfsync always` if a power cut must not lose the last second.

mod notation;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, RedisResult, Script, Value};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use self::notation::{Number, event_of, first_key, replicated_key, replicated_of_key, zone_key};
use self::writer::{Job, Writer};
use super::error::Unavailable;
use super::model::{
    AddOrder, Assignment, Courier, CourierId, Event, Join, OrderId, Outcome, Whereabouts, Zone,
};
use super::store::{Answer, Outgoing, Recorded, Store};
use crate::storage::redis::{Call, Redis as Client};
use crate::storage::{Condition, State};

/// Cheap to clone; its task ends with the last clone.
#[derive(Debug, Clone)]
pub struct Redis {
    client: Client,
    jobs: mpsc::Sender<Job>,
    health: Health,
}

/// Whether the last write succeeded.
#[derive(Debug, Clone, Default)]
struct Health(Arc<Condition>);

impl Health {
    fn is_healthy(&self) -> bool {
        self.0.is_healthy()
    }

    /// Maps the answer to a read. A server that answers reads may still refuse writes.
    fn read_result<T>(&self, answer: RedisResult<T>) -> Result<T, Unavailable> {
        answer.map_err(|error| {
            // Redis answers, but the request is wrong: a bug.
            if is_mistake(&error) {
                error!(%error, "Redis returned an invalid answer");
                return Unavailable::Failed;
            }
            if self.0.fails(&error) {
                warn!(%error, "Redis fails");
            }
            Unavailable::Engine
        })
    }

    /// Maps the answer to a write.
    fn write_result<T>(&self, answer: RedisResult<T>) -> Result<T, Unavailable> {
        let written = self.read_result(answer)?;
        if self.0.works() {
            info!("Redis works again");
        }
        Ok(written)
    }
}

fn is_mistake(error: &RedisError) -> bool {
    use redis::ServerErrorKind::{CrossSlot, NoSub, NotBusy};

    matches!(
        error.kind(),
        ErrorKind::UnexpectedReturnType | ErrorKind::Server(CrossSlot | NoSub | NotBusy)
    )
}

/// An answer that is not what was stored.
fn invalid_answer(what: &'static str) -> RedisError {
    (ErrorKind::UnexpectedReturnType, what).into()
}

impl Redis {
    /// `publishes`: whether assignments go to the outbox. `queue_max`: the bound of the queue of requests; beyond it,
    /// [`Unavailable::Busy`]. Needs a runtime.
    pub fn new(client: Client, join: Join, publishes: bool, queue_max: usize) -> Self {
        let (jobs, waiting) = mpsc::channel(queue_max);
        let health = Health::default();
        let writer = Writer::new(client.clone(), join, publishes, health.clone());
        tokio::spawn(writer.run(waiting));
        Self {
            client,
            jobs,
            health,
        }
    }

    async fn job(&self, events: Vec<(Event, Timestamp)>) -> Result<Vec<Outcome>, Unavailable> {
        let (answer, answered) = oneshot::channel();
        let job = Job { events, answer };
        self.jobs.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Unavailable::Busy,
            mpsc::error::TrySendError::Closed(_) => Unavailable::Stopped,
        })?;
        answered.await.unwrap_or(Err(Unavailable::Stopped))
    }

    /// Asks each zone the same; the answers in the order of the zones.
    async fn each_zone<T: FromRedisValue + Send + 'static>(
        &self,
        question: impl Fn(Zone) -> Cmd,
    ) -> RedisResult<Vec<T>> {
        self.client.ask_all(Zone::ALL.map(question).into()).await
    }

    async fn find_order(&self, order: OrderId) -> RedisResult<Option<Whereabouts>> {
        let id = order.to_string();
        let decided = |zone| command("HGET", &zone_key(zone, "orders"), &[&id]);
        let mut questions: Vec<Cmd> = Zone::ALL.map(decided).into();
        questions.push(command("GET", &replicated_key(order), &[]));
        let answers: Vec<Option<String>> = self.client.ask_all(questions).await?;
        let mut found = None;
        // A decision made here wins over a replicated one, which is asked for last; a courier wins over parked.
        for courier in answers.iter().flatten() {
            found = Some(notation::place_of(courier)?);
            if found != Some(Whereabouts::Parked) {
                break;
            }
        }
        Ok(found)
    }

    /// Stores the order's courier before the courier's order: a repetition completes a partial write.
    async fn replicate_all(&self, assignments: Vec<Assignment>) -> RedisResult<()> {
        let decided = assignments.iter().flat_map(|assignment| {
            let id = assignment.order_id.to_string();
            Zone::ALL.map(|zone| command("HGET", &zone_key(zone, "orders"), &[&id]))
        });
        // Most were decided here if dispatcher and directory share one Redis.
        let decided: Vec<Option<String>> = self.client.ask_all(decided.collect()).await?;
        let has_courier =
            |of_zone: &Option<String>| of_zone.as_ref().is_some_and(|it| !it.is_empty());
        let news: Vec<Assignment> = assignments
            .into_iter()
            .zip(decided.chunks(Zone::ALL.len()))
            .filter(|(_, decided)| !decided.iter().any(has_courier))
            .map(|(assignment, _)| assignment)
            .collect();
        let claims = news.iter().map(|assignment| {
            let courier = assignment.courier_id.to_string();
            let mut claim = command("SET", &replicated_key(assignment.order_id), &[&courier]);
            claim.arg("NX").arg("GET");
            claim
        });
        let firsts: Vec<Option<String>> = self.client.ask_all(claims.collect()).await?;
        let mut additions = Vec::with_capacity(news.len());
        for (assignment, first) in news.iter().zip(firsts) {
            let courier = match first {
                Some(first) => courier_id(&first)?,
                None => assignment.courier_id,
            };
            let order = assignment.order_id.to_string();
            additions.push(command("SADD", &replicated_of_key(courier), &[&order]));
        }
        let _: Vec<u64> = self.client.ask_all(additions).await?;
        Ok(())
    }

    async fn find_orders_of(&self, courier: CourierId) -> RedisResult<Vec<OrderId>> {
        // ';' follows ':'.
        let (from, to) = (format!("[{courier}:"), format!("({courier};"));
        let given = |zone| command("ZRANGEBYLEX", &zone_key(zone, "given"), &[&from, &to]);
        let mut questions: Vec<Cmd> = Zone::ALL.map(given).into();
        questions.push(command("SMEMBERS", &replicated_of_key(courier), &[]));
        let answers: Vec<Vec<String>> = self.client.ask_all(questions).await?;
        let ids = answers.iter().flatten().map(|member| {
            let id = member.rsplit(':').next().unwrap_or_default();
            order_id(id)
        });
        let ids: BTreeSet<OrderId> = ids.collect::<RedisResult<_>>()?;
        Ok(ids.into_iter().collect())
    }

    /// A courier, looked up in all zones: one who moves is in the old zone, between zones, or in the new one.
    async fn find_courier(&self, courier: CourierId) -> RedisResult<Option<Courier>> {
        let id = courier.to_string();
        let of = |(zone, name)| command("HGET", &zone_key(zone, name), &[&id]);
        let answers: Vec<Option<String>> =
            self.client.ask_all(everywhere().map(of).collect()).await?;
        let mut known = Known::default();
        for (zone, answers) in Zone::ALL.into_iter().zip(answers.chunks(PLACES.len())) {
            known.add(courier, zone, answers.iter().map(Option::as_deref))?;
        }
        Ok(known.0.remove(&courier).map(|(_, courier)| courier))
    }

    async fn list_couriers(&self) -> RedisResult<Vec<Courier>> {
        let of = |(zone, name)| command("HGETALL", &zone_key(zone, name), &[]);
        let answers: Vec<BTreeMap<String, String>> =
            self.client.ask_all(everywhere().map(of).collect()).await?;
        let mut known = Known::default();
        for (zone, answers) in Zone::ALL.into_iter().zip(answers.chunks(PLACES.len())) {
            let ids: BTreeSet<&String> = answers.iter().flat_map(BTreeMap::keys).collect();
            for id in ids {
                let of_courier = answers.iter().map(|it| it.get(id).map(String::as_str));
                known.add(courier_id(id)?, zone, of_courier)?;
            }
        }
        Ok(known.0.into_values().map(|(_, courier)| courier).collect())
    }

    async fn list_parked(&self, limit: usize) -> RedisResult<(Vec<AddOrder>, u64)> {
        let counts: Vec<u64> = self
            .each_zone(|zone| command("ZCARD", &zone_key(zone, "parked"), &[]))
            .await?;
        // Sorted by letter.
        let zones = [Zone::E, Zone::N, Zone::S, Zone::W];
        let last = limit.saturating_sub(1).to_string();
        let mut orders = Vec::new();
        for zone in zones {
            if orders.len() >= limit {
                break;
            }
            let key = zone_key(zone, "parked");
            let places: Vec<String> = self
                .client
                .ask(command("ZRANGE", &key, &["0", &last]))
                .await?;
            if places.is_empty() {
                continue;
            }
            let ids = places.iter().filter_map(|place| place.rsplit(':').next());
            let ids = ids.map(order_id).collect::<RedisResult<Vec<_>>>()?;
            for event in self.firsts(&ids).await? {
                if let Event::Order(order) = event {
                    orders.push(order);
                }
            }
        }
        orders.truncate(limit);
        Ok((orders, counts.iter().sum()))
    }

    async fn list_outgoing(&self, limit: usize) -> RedisResult<Vec<Outgoing>> {
        let last = limit.saturating_sub(1).to_string();
        let answers: Vec<Vec<(String, String)>> = self
            .each_zone(|zone| {
                let key = zone_key(zone, "outgoing");
                command("ZRANGE", &key, &["0", &last, "WITHSCORES"])
            })
            .await?;
        let mut outgoing = Vec::new();
        for (zone, of_zone) in Zone::ALL.into_iter().zip(answers) {
            for (member, score) in of_zone {
                let (order, courier) = member
                    .split_once(':')
                    .ok_or_else(|| invalid_answer("not an assignment"))?;
                outgoing.push(Outgoing {
                    number: Number::of_score(&score, zone)?.as_u64(),
                    assignment: Assignment {
                        order_id: order_id(order)?,
                        courier_id: courier_id(courier)?,
                    },
                });
            }
        }
        outgoing.sort_by_key(|it| it.number);
        outgoing.truncate(limit);
        Ok(outgoing)
    }

    /// The first events of these orders.
    async fn firsts(&self, orders: &[OrderId]) -> RedisResult<Vec<Event>> {
        let first = |&order: &OrderId| command("GET", &first_key(order), &[]);
        let texts: Vec<Option<String>> = self
            .client
            .ask_all(orders.iter().map(first).collect())
            .await?;
        let missing = || invalid_answer("an order without its first event");
        let event = |text: Option<String>| event_of(&text.ok_or_else(missing)?);
        texts.into_iter().map(event).collect()
    }

    async fn list_events(&self, after: u64, limit: usize) -> RedisResult<Vec<Recorded>> {
        let entries = self.entries(after, limit).await?;
        let of_orders = entries.iter().filter_map(|(_, fields)| fields.get("order"));
        let ids: Vec<OrderId> = of_orders
            .map(|id| order_id(id))
            .collect::<RedisResult<_>>()?;
        let mut firsts = self.firsts(&ids).await?.into_iter();
        let recorded = entries.iter().map(|(number, fields)| {
            let first = fields.get("order").and_then(|_| firsts.next());
            Ok(Recorded {
                number: *number,
                at: notation::time_of(field(fields, "at")?)?,
                event: first.map_or_else(|| event_of(field(fields, "event")?), Ok)?,
                outcome: notation::outcome_of(field(fields, "outcome")?)?,
            })
        });
        recorded.collect()
    }

    /// The log after a number, in order, up to the entry before which no other can be inserted any more. Each zone returns its
    /// next number. A zone that would assign a smaller number than another already has (clock skew, or a clock that was set
    /// back) is advanced past that number first.
    async fn entries(
        &self,
        after: u64,
        limit: usize,
    ) -> RedisResult<Vec<(u64, BTreeMap<String, String>)>> {
        let asked = |zone, floor: u64| Call {
            keys: vec![zone_key(zone, "log"), zone_key(zone, "clock")],
            arguments: vec![
                Number::first_after(after, zone).stream_id(),
                limit.to_string(),
                floor.to_string(),
            ],
        };
        let mut zones = Vec::with_capacity(Zone::ALL.len());
        let answers: Vec<(u64, Entries)> = self
            .client
            .run_all(&LOG, &Zone::ALL.map(|zone| asked(zone, 0)))
            .await?;
        for (zone, (next, entries)) in Zone::ALL.into_iter().zip(answers) {
            zones.push((zone, next, numbered(zone, entries)?));
        }
        let given = zones.iter().flat_map(|(_, _, entries)| entries);
        let past = given
            .map(|(number, _)| number.tick() + 1)
            .max()
            .unwrap_or(0);
        let behind: Vec<usize> = (0..zones.len())
            .filter(|&place| zones[place].1 < past)
            .collect();
        let calls: Vec<Call> = behind
            .iter()
            .map(|&place| asked(zones[place].0, past))
            .collect();
        let answers: Vec<(u64, Entries)> = self.client.run_all(&LOG, &calls).await?;
        for (place, (next, entries)) in behind.into_iter().zip(answers) {
            let zone = zones[place].0;
            zones[place] = (zone, next, numbered(zone, entries)?);
        }
        let until = zones.iter().map(|(_, next, _)| *next).min().unwrap_or(0);
        let entries = zones.into_iter().flat_map(|(_, _, entries)| entries);
        let mut entries: Vec<_> = entries
            .filter(|(number, _)| number.tick() < until)
            .map(|(number, fields)| (number.as_u64(), fields))
            .collect();
        entries.sort_by_key(|(number, _)| *number);
        entries.truncate(limit);
        Ok(entries)
    }

    async fn all_orders(&self) -> RedisResult<Vec<(OrderId, Whereabouts)>> {
        let mut orders = BTreeMap::new();
        for zone in Zone::ALL {
            let key = zone_key(zone, "orders");
            let mut cursor = "0".to_owned();
            loop {
                let scan = command("HSCAN", &key, &[&cursor, "COUNT", "1000"]);
                let (next, page): (String, Vec<(String, String)>) = self.client.ask(scan).await?;
                for (id, courier) in page {
                    orders.insert(order_id(&id)?, notation::place_of(&courier)?);
                }
                if next == "0" {
                    break;
                }
                cursor = next;
            }
        }
        Ok(orders.into_iter().collect())
    }
}

/// Entries of a stream: ids, and fields with their values.
type Entries = Vec<(String, BTreeMap<String, String>)>;

/// Entries of a zone's log, with its next number.
static LOG: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("redis/read_log.lua")));

fn numbered(zone: Zone, entries: Entries) -> RedisResult<Vec<(Number, BTreeMap<String, String>)>> {
    let numbered = entries
        .into_iter()
        .map(|(id, fields)| Ok((Number::of_stream_id(&id, zone)?, fields)));
    numbered.collect()
}

/// Keys that may have a courier, per zone.
const PLACES: [&str; 3] = ["couriers", "counts", "leaving"];

fn everywhere() -> impl Iterator<Item = (Zone, &'static str)> {
    let of_zone = |zone| PLACES.map(|place| (zone, place));
    Zone::ALL.into_iter().flat_map(of_zone)
}

/// Couriers with their sequence (the number of their moves): of several states the latest counts.
#[derive(Debug, Default)]
struct Known(BTreeMap<CourierId, (u64, Courier)>);

impl Known {
    /// What a zone has of a courier, in the order of [`PLACES`].
    fn add<'a>(
        &mut self,
        id: CourierId,
        zone: Zone,
        mut places: impl Iterator<Item = Option<&'a str>>,
    ) -> RedisResult<()> {
        let [said, count, leaving] = PLACES.map(|_| places.next().flatten());
        if let (Some(said), Some(count)) = (said, count) {
            let (sequence, courier) = notation::said_of(id, zone, said, count)?;
            self.latest(sequence, courier);
        }
        if let Some(takes) = leaving {
            let (sequence, courier) = notation::Takes::read(takes)?.on_the_way()?;
            self.latest(sequence, courier);
        }
        Ok(())
    }

    fn latest(&mut self, sequence: u64, courier: Courier) {
        let known = self.0.entry(courier.said.id);
        let known = known.or_insert_with(|| (sequence, courier.clone()));
        if known.0 < sequence {
            *known = (sequence, courier);
        }
    }
}

fn command(name: &str, key: &str, arguments: &[&str]) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(key).arg(arguments);
    command
}

fn courier_id(text: &str) -> RedisResult<CourierId> {
    let id = text
        .parse()
        .map_err(|_| invalid_answer("not a courier's id"))?;
    Ok(CourierId(id))
}

fn order_id(text: &str) -> RedisResult<OrderId> {
    let id = text
        .parse()
        .map_err(|_| invalid_answer("not an order's id"))?;
    Ok(OrderId(id))
}

fn field<'a>(fields: &'a BTreeMap<String, String>, name: &str) -> RedisResult<&'a str> {
    let field = fields.get(name).map(String::as_str);
    field.ok_or_else(|| invalid_answer("an entry of a stream lacks a field"))
}

impl Store for Redis {
    fn apply(&self, events: Vec<(Event, Timestamp)>) -> Answer<'_, Vec<Outcome>> {
        Box::pin(self.job(events))
    }

    fn replicate(&self, assignments: Vec<Assignment>) -> Answer<'_, ()> {
        Box::pin(async {
            self.health
                .write_result(self.replicate_all(assignments).await)
        })
    }

    fn order(&self, order: OrderId) -> Answer<'_, Option<Whereabouts>> {
        Box::pin(async move { self.health.read_result(self.find_order(order).await) })
    }

    fn orders(&self) -> Answer<'_, Vec<(OrderId, Whereabouts)>> {
        Box::pin(async { self.health.read_result(self.all_orders().await) })
    }

    fn orders_of(&self, courier: CourierId) -> Answer<'_, Vec<OrderId>> {
        Box::pin(async move { self.health.read_result(self.find_orders_of(courier).await) })
    }

    fn courier(&self, courier: CourierId) -> Answer<'_, Option<Courier>> {
        Box::pin(async move { self.health.read_result(self.find_courier(courier).await) })
    }

    fn couriers(&self, zone: Option<Zone>) -> Answer<'_, Vec<Courier>> {
        Box::pin(async move {
            let mut couriers = self.health.read_result(self.list_couriers().await)?;
            couriers.retain(|known| zone.is_none_or(|zone| known.said.zone == zone));
            Ok(couriers)
        })
    }

    fn parked(&self, limit: usize) -> Answer<'_, (Vec<AddOrder>, u64)> {
        Box::pin(async move { self.health.read_result(self.list_parked(limit).await) })
    }

    fn events(&self, after: u64, limit: usize) -> Answer<'_, Vec<Recorded>> {
        Box::pin(async move {
            let events = self.list_events(after, limit).await;
            self.health.read_result(events)
        })
    }

    fn outgoing(&self, limit: usize) -> Answer<'_, Vec<Outgoing>> {
        Box::pin(async move {
            let outgoing = self.list_outgoing(limit).await;
            self.health.read_result(outgoing)
        })
    }

    fn mark_published(&self, numbers: Vec<u64>) -> Answer<'_, ()> {
        Box::pin(async move {
            let removals = numbers.into_iter().map(|number| {
                let (zone, number) = Number::of(number);
                let score = number.score();
                let key = zone_key(zone, "outgoing");
                command("ZREMRANGEBYSCORE", &key, &[&score, &score])
            });
            let removals: RedisResult<Vec<Value>> = self.client.ask_all(removals.collect()).await;
            self.health.write_result(removals.map(drop))
        })
    }

    fn state(&self) -> State {
        self.health.0.state()
    }
}

#[cfg(test)]
mod tests;
