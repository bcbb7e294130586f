//! Couriers in Redis or Valkey, one server or a cluster, shared by several processes.
//!
//! # Layout
//! All keys share one hash tag, so that one script (`apply.lua`) decides about events, counts, assigns, parks, logs and fills the
//! outbox, atomically. In a cluster one node has the whole desk. Log and outbox are streams, which number their entries 1, 2, 3, ...
//! The tag ends with the number of the format; [`migration`] replays the log of the format before it.
//!
//! # Durability
//! That of Redis: `appendonly yes`, and `appendfsync always` if a power cut must not lose the last second.

pub mod migration;
mod notation;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use redis::{ErrorKind, RedisError, RedisResult};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use self::notation::{command, command_on, key, place_of};
use self::writer::{Job, Writer};
use super::error::Unavailable;
use super::model::{
    AddOrder, Assignment, Courier, CourierId, Event, Join, OrderId, Outcome, Whereabouts, Zone,
    ZoneSummary,
};
use super::store::{Answer, Outgoing, Recorded, Store};
use crate::storage::redis::{Redis as Client, Script};
use crate::storage::{Condition, State};

static REPLICATE: LazyLock<Script> = LazyLock::new(|| {
    let keys = ["orders", "replicated", "assigned"].map(key);
    Script::new(include_str!("redis/replicate.lua"), keys)
});

static ZONES: LazyLock<Script> = LazyLock::new(|| {
    let keys = [
        "couriers", "parked", "log", "tally", "turns:N", "turns:S", "turns:E", "turns:W",
    ];
    Script::new(include_str!("redis/zones.lua"), keys.map(key))
});

/// Entries of a stream: their ids, and the name and the value of their only field.
type Entries = Vec<(String, (String, String))>;

/// Most commands of a pipeline, fields of a command, and assignments of a script: each takes a few milliseconds at most.
const PAGE: usize = 1000;

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
        // Serialized here, not in the writer's task.
        let written = events
            .iter()
            .map(|(event, at)| notation::arguments(event, *at));
        let events = self.health.read_result(written.collect())?;
        let (answer, answered) = oneshot::channel();
        let job = Job { events, answer };
        self.jobs.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Unavailable::Busy,
            mpsc::error::TrySendError::Closed(_) => Unavailable::Stopped,
        })?;
        answered.await.unwrap_or(Err(Unavailable::Stopped))
    }

    fn read<'a, T: 'a>(
        &'a self,
        reading: impl Future<Output = RedisResult<T>> + Send + 'a,
    ) -> Answer<'a, T> {
        Box::pin(async move { self.health.read_result(reading.await) })
    }

    fn write<'a>(
        &'a self,
        writing: impl Future<Output = RedisResult<()>> + Send + 'a,
    ) -> Answer<'a, ()> {
        Box::pin(async move { self.health.write_result(writing.await) })
    }

    async fn find_order(&self, order: OrderId) -> RedisResult<Option<Whereabouts>> {
        let id = order.to_string();
        let of = |name| command("HGET", name, &[&id]);
        let answers = vec![of("orders"), of("replicated")];
        let answers: Vec<Option<String>> = self.client.ask_all(answers).await?;
        // A decision made here wins over a replicated one; a courier wins over parked.
        let couriers = || answers.iter().flatten();
        let first = couriers().find(|courier| !courier.is_empty());
        let found = first.or_else(|| couriers().next());
        found.map(|courier| place_of(courier)).transpose()
    }

    async fn find_orders_of(&self, courier: CourierId) -> RedisResult<Vec<OrderId>> {
        // ';' follows ':'.
        let (from, to) = (format!("[{courier}:"), format!("({courier};"));
        let members = command("ZRANGE", "assigned", &[&from, &to, "BYLEX"]);
        let members: Vec<String> = self.client.ask(members).await?;
        let ids = members
            .iter()
            .map(|member| notation::order_id(member.rsplit(':').next().unwrap_or_default()));
        let ids: BTreeSet<OrderId> = ids.collect::<RedisResult<_>>()?;
        Ok(ids.into_iter().collect())
    }

    async fn find_couriers(&self, zone: Option<Zone>) -> RedisResult<Vec<Courier>> {
        let all: BTreeMap<String, String> =
            self.client.ask(command("HGETALL", "couriers", &[])).await?;
        let couriers = all.iter().filter(|(field, _)| !field.contains(':'));
        let couriers = couriers.map(|(id, said)| {
            let id = notation::courier_id(id)?;
            notation::courier(id, said, all.get(&notation::count_field(id)))
        });
        let mut couriers: Vec<Courier> = couriers.collect::<RedisResult<_>>()?;
        couriers.retain(|known| zone.is_none_or(|zone| known.said.zone == zone));
        Ok(couriers)
    }

    async fn list_parked(&self, limit: usize) -> RedisResult<(Vec<AddOrder>, u64)> {
        let count: u64 = self.client.ask(command("ZCARD", "parked", &[])).await?;
        let Some(last) = limit.checked_sub(1) else {
            return Ok((Vec::new(), count));
        };
        let members = command("ZRANGE", "parked", &["0", &last.to_string()]);
        let members: Vec<String> = self.client.ask(members).await?;
        let orders = members.iter().map(|member| notation::parked(member));
        Ok((orders.collect::<RedisResult<_>>()?, count))
    }
}

/// The fields of a hash, some of them perhaps twice, without blocking Redis for long.
async fn scan_hash(client: &Client, key: &str) -> RedisResult<Vec<(String, String)>> {
    let mut fields = Vec::new();
    let mut cursor = "0".to_owned();
    loop {
        let scan = command_on(key, "HSCAN", &[&cursor, "COUNT", "1000"]);
        let (next, page): (String, Vec<(String, String)>) = client.ask(scan).await?;
        fields.extend(page);
        if next == "0" {
            return Ok(fields);
        }
        cursor = next;
    }
}

impl Store for Redis {
    fn apply(&self, events: Vec<(Event, Timestamp)>) -> Answer<'_, Vec<Outcome>> {
        Box::pin(self.job(events))
    }

    fn replicate(&self, assignments: Vec<Assignment>) -> Answer<'_, ()> {
        self.write(async move {
            for page in assignments.chunks(PAGE) {
                let ids = page
                    .iter()
                    .flat_map(|it| [it.order_id.to_string(), it.courier_id.to_string()]);
                let ids: Vec<String> = ids.collect();
                let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
                let (): () = self.client.run(&REPLICATE, &ids).await?;
            }
            Ok(())
        })
    }

    fn order(&self, order: OrderId) -> Answer<'_, Option<Whereabouts>> {
        self.read(self.find_order(order))
    }

    fn orders(&self) -> Answer<'_, Vec<(OrderId, Whereabouts)>> {
        self.read(async {
            let orders = scan_hash(&self.client, &key("orders")).await?;
            let orders = orders.iter().map(|(id, courier)| {
                let id = notation::order_id(id)?;
                Ok((id, place_of(courier)?))
            });
            let orders: BTreeMap<OrderId, Whereabouts> = orders.collect::<RedisResult<_>>()?;
            Ok(orders.into_iter().collect())
        })
    }

    fn orders_of(&self, courier: CourierId) -> Answer<'_, Vec<OrderId>> {
        self.read(self.find_orders_of(courier))
    }

    fn courier(&self, courier: CourierId) -> Answer<'_, Option<Courier>> {
        self.read(async move {
            let (id, count) = (courier.to_string(), notation::count_field(courier));
            let found = command("HMGET", "couriers", &[&id, &count]);
            let (said, count): (Option<String>, Option<String>) = self.client.ask(found).await?;
            said.map(|said| notation::courier(courier, &said, count.as_ref()))
                .transpose()
        })
    }

    fn couriers(&self, zone: Option<Zone>) -> Answer<'_, Vec<Courier>> {
        self.read(self.find_couriers(zone))
    }

    fn parked(&self, limit: usize) -> Answer<'_, (Vec<AddOrder>, u64)> {
        self.read(self.list_parked(limit))
    }

    fn zones(&self) -> Answer<'_, Vec<ZoneSummary>> {
        self.read(async {
            let no_arguments: [&str; 0] = [];
            let zones: Vec<[String; 8]> = self.client.run(&ZONES, &no_arguments).await?;
            let mut zones: Vec<_> = zones
                .iter()
                .map(notation::zone)
                .collect::<RedisResult<_>>()?;
            zones.sort_unstable_by_key(|summary| summary.zone);
            Ok(zones)
        })
    }

    fn events(&self, after: u64, limit: usize) -> Answer<'_, Vec<Recorded>> {
        self.read(async move {
            let (after, limit) = (format!("(0-{after}"), limit.to_string());
            let page = command("XRANGE", "log", &[&after, "+", "COUNT", &limit]);
            let entries: Entries = self.client.ask(page).await?;
            entries.iter().map(notation::recorded).collect()
        })
    }

    fn outgoing(&self, limit: usize) -> Answer<'_, Vec<Outgoing>> {
        self.read(async move {
            let limit = limit.to_string();
            let page = command("XRANGE", "outgoing", &["-", "+", "COUNT", &limit]);
            let entries: Entries = self.client.ask(page).await?;
            entries.iter().map(notation::outgoing).collect()
        })
    }

    fn mark_published(&self, numbers: Vec<u64>) -> Answer<'_, ()> {
        self.write(async move {
            let removals = numbers.chunks(PAGE).map(|numbers| {
                let mut removal = command("XDEL", "outgoing", &[]);
                for number in numbers {
                    removal.arg(format!("0-{number}"));
                }
                removal
            });
            let _: Vec<u64> = self.client.ask_all(removals.collect()).await?;
            Ok(())
        })
    }

    fn state(&self) -> State {
        self.health.0.state()
    }
}

#[cfg(test)]
mod tests;
