//! Decisions of two stores in one Redis, without HTTP between: the desk's, and the seed's way of deciding.
//!
//! Both are asked by as many tasks in the same runtime, each for one decision after the other, slice by slice in turn on the
//! same server, which forgets everything in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use odyssey::couriers::model::{
    AddCourier, AddOrder, CourierId, Event, Join, OrderId, Outcome, Zone,
};
use odyssey::couriers::redis::Redis;
use odyssey::couriers::store::Store;
use odyssey::storage::config;
use odyssey::storage::preflight::Findings;
use odyssey::storage::redis::Redis as Engine;
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::couriers::{AVAILABLE, courier_id};
use crate::machine::Time;
use crate::peers::{Manner, Program, Programs, half_the_workers};
use crate::senders::Ids;

/// How long to measure, and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// Repetitions.
    pub(crate) rounds: u32,
    /// Slices of each.
    pub(crate) slices: u32,
    /// Before anything is counted.
    pub(crate) warm_up: Duration,
    /// While it is counted.
    pub(crate) window: Duration,
    /// Who asks at once.
    pub(crate) tasks: u64,
}

/// Decisions per second, round by round.
#[derive(Debug, Default)]
pub(crate) struct Decided {
    /// The desk's store.
    pub(crate) ours: Vec<f64>,
    /// The seed's way.
    pub(crate) seed: Vec<f64>,
    /// The share of the machine that other programs used, of each round.
    pub(crate) others: Vec<f64>,
}

/// Measures both sides in turn, in a Redis that is run in this manner. Calls `report` after each round.
pub(crate) fn measure(
    programs: &Programs,
    manner: Manner,
    extent: Extent,
    mut report: impl FnMut(u32, f64, f64) -> Result<()>,
) -> Result<Decided> {
    let server = programs.start(Program::Redis, manner)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(half_the_workers())
        .enable_all()
        .build()
        .context("starting a runtime")?;
    let url = format!("redis://{}", server.staff);
    let deciding = async {
        let client = redis::Client::open(&url[..])?;
        let connection = client.get_multiplexed_async_connection().await?;
        let seed = Seed(connection.clone());
        let ours = desk(&url).await?;
        let mut decided = Decided::default();
        for round in 1..=extent.rounds {
            let before = Time::now([server.pid()].into_iter())?;
            let (mut ours_sum, mut seed_sum) = (0.0, 0.0);
            for _ in 0..extent.slices {
                flush(&connection).await?;
                ours_sum += rate(Desk(Arc::clone(&ours)), extent).await?;
                flush(&connection).await?;
                seed_sum += rate(seed.clone(), extent).await?;
            }
            let after = Time::now([server.pid()].into_iter())?;
            decided.others.push(after.others_since(before));
            let slices = f64::from(extent.slices);
            let (ours, seed) = (ours_sum / slices, seed_sum / slices);
            report(round, ours, seed)?;
            decided.ours.push(ours);
            decided.seed.push(seed);
        }
        anyhow::Ok(decided)
    };
    server.explain(runtime.block_on(deciding))
}

/// The desk's store in this Redis, with publishing enabled: it stores the outgoing messages, too.
async fn desk(url: &str) -> Result<Arc<dyn Store>> {
    let engine = Engine::connect(config::Redis::at(url), Findings::default())
        .await
        .context("reaching Redis")?;
    Ok(Arc::new(Redis::new(engine, Join::Zero, true, 1000)))
}

async fn flush(connection: &MultiplexedConnection) -> Result<()> {
    let mut flush = redis::cmd("FLUSHALL");
    flush.arg("SYNC");
    let flushed = flush.exec_async(&mut connection.clone()).await;
    flushed.context("forgetting everything")
}

/// A way of deciding.
trait Way: Clone + Send + 'static {
    /// Makes all couriers available, in the zones in turn.
    fn begin(&self) -> impl Future<Output = Result<()>> + Send;

    /// Assigns an order of a zone to the courier with the fewest orders there.
    fn decide(&self, order: String, zone: Zone) -> impl Future<Output = Result<()>> + Send;

    /// How many orders all couriers were given.
    fn given(&self) -> impl Future<Output = Result<u64>> + Send;
}

/// The zone of what has this number.
fn zone(number: u64) -> Zone {
    Zone::ALL[usize::try_from(number % 4).unwrap_or(0)]
}

/// Orders that were given a number.
static ORDERS: AtomicU64 = AtomicU64::new(0);

/// Decisions per second. The number of stored assignments must equal the number of decisions.
async fn rate<W: Way>(way: W, extent: Extent) -> Result<f64> {
    way.begin().await.context("making couriers available")?;
    let (decided, ended) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let mut deciding = JoinSet::new();
    for _ in 0..extent.tasks {
        let (way, decided, ended) = (way.clone(), Arc::clone(&decided), Arc::clone(&ended));
        deciding.spawn(async move {
            while !ended.load(Ordering::Relaxed) {
                let number = ORDERS.fetch_add(1, Ordering::Relaxed);
                let order = Ids::Random.name(number);
                way.decide(order, zone(number)).await?;
                decided.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    sleep(extent.warm_up).await;
    let (begin, before) = (Instant::now(), decided.load(Ordering::Relaxed));
    sleep(extent.window).await;
    let (elapsed, after) = (begin.elapsed(), decided.load(Ordering::Relaxed));
    ended.store(true, Ordering::Relaxed);
    while let Some(ended) = deciding.join_next().await {
        ended??;
    }
    let (given, decided) = (way.given().await?, decided.load(Ordering::Relaxed));
    ensure!(
        given == decided,
        "{decided} orders were decided about, and the couriers were given {given}"
    );
    Ok(f64::from(u32::try_from(after - before)?) / elapsed.as_secs_f64())
}

/// The desk's store, one event for each call.
#[derive(Clone)]
struct Desk(Arc<dyn Store>);

impl Way for Desk {
    async fn begin(&self) -> Result<()> {
        let couriers = (0..AVAILABLE).map(|number| {
            Ok(Event::Courier(AddCourier {
                id: CourierId(courier_id(number).parse()?),
                name: format!("Courier {number}").into(),
                zone: zone(number),
                is_available: true,
            }))
        });
        let couriers = couriers.collect::<Result<Vec<_>>>()?;
        let now = Timestamp::now();
        let couriers = couriers.into_iter().map(|courier| (courier, now));
        self.0.apply(couriers.collect()).await?;
        Ok(())
    }

    async fn decide(&self, order: String, zone: Zone) -> Result<()> {
        let at = Timestamp::from_microsecond(Timestamp::now().as_microsecond())?;
        let order = Event::Order(AddOrder {
            id: OrderId(order.parse()?),
            details: "Two coffees and a newspaper".into(),
            zone,
            added_at: at,
        });
        match self.0.apply(vec![(order, at)]).await?[..] {
            [Outcome::Assigned(_)] => Ok(()),
            ref other => bail!("an order came to {other:?}"),
        }
    }

    async fn given(&self) -> Result<u64> {
        let couriers = self.0.couriers(None).await?;
        Ok(couriers.iter().map(|courier| courier.count).sum())
    }
}

/// The seed's way: reads the courier with the fewest orders, increments the count, and stores the pair, with one round trip
/// each. Two concurrent calls may read the same courier, and the event itself is not stored.
#[derive(Clone)]
struct Seed(MultiplexedConnection);

impl Seed {
    fn turns(zone: Zone) -> String {
        format!("zone:{}", zone.as_str())
    }
}

impl Way for Seed {
    async fn begin(&self) -> Result<()> {
        let mut connection = self.0.clone();
        for number in 0..AVAILABLE {
            let turns = Self::turns(zone(number));
            let (): () = connection.zadd(turns, courier_id(number), 0).await?;
        }
        Ok(())
    }

    async fn decide(&self, order: String, zone: Zone) -> Result<()> {
        let mut connection = self.0.clone();
        let turns = Self::turns(zone);
        let least: Vec<String> = connection.zrange(&turns, 0, 0).await?;
        let [courier] = &least[..] else {
            bail!("nobody is available");
        };
        let _count: f64 = connection.zincr(&turns, courier, 1).await?;
        let (): () = connection.set(format!("order:{order}"), courier).await?;
        let added: u64 = connection.sadd(format!("courier:{courier}"), order).await?;
        ensure!(added == 1, "an order was there before");
        Ok(())
    }

    async fn given(&self) -> Result<u64> {
        let mut connection = self.0.clone();
        let mut given = 0;
        for number in 0..AVAILABLE {
            let orders: u64 = connection
                .scard(format!("courier:{}", courier_id(number)))
                .await?;
            given += orders;
        }
        Ok(given)
    }
}

#[cfg(test)]
mod tests {
    use odyssey::couriers::sqlite::{MIGRATIONS, Sqlite};
    use odyssey::storage::sqlite::{self, Database, Metrics};
    use odyssey::telemetry::Registry;
    use tempfile::TempDir;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn any_store_of_the_desk_can_be_asked() {
        let dir = TempDir::new().unwrap();
        let settings = sqlite::Settings {
            path: dir.path().join("couriers.db"),
            application: odyssey::couriers::sqlite::APPLICATION,
            pinned: Vec::new(),
            migrations: MIGRATIONS,
            queue_max: 1000,
            batch_max: 64,
            readers: 1,
        };
        let metrics = Registry::new(&[]).register(|| Metrics::register(&settings.path));
        let database = Database::open(settings, metrics).unwrap();
        let store = Arc::new(Sqlite::new(database, Join::Zero, false));
        let extent = Extent {
            rounds: 1,
            slices: 1,
            warm_up: Duration::from_millis(1),
            window: Duration::from_millis(100),
            tasks: 4,
        };
        // `rate` checks that the number of stored assignments equals the number of decisions.
        rate(Desk(store), extent).await.unwrap();
    }
}
