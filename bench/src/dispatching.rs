//! Decisions of the couriers' store in Redis, and of the plain commands that do the same with fewer guarantees, without
//! HTTP in between.
//!
//! Each way has a Redis of its own and is called by as many tasks, each for one decision after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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
use serde::Deserialize;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::couriers::{AVAILABLE, courier_id};
use crate::engine::{Sample, Side, sample};
use crate::load::CUSTOMERS;
use crate::packages::Ids;
use crate::programs::{Server, runtime};

const WARM_UP: Duration = Duration::from_millis(250);
const WINDOW: Duration = Duration::from_millis(500);

static ORDERS: AtomicU64 = AtomicU64::new(0);

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Way {
    /// The store, one event for each call. It also stores the outgoing message.
    Store,
    /// Reads the courier with the fewest orders, increments the count, and stores the pair: four commands, one after the
    /// other. Two concurrent calls may read the same courier, and the event itself is not stored.
    Commands,
}

#[derive(Clone)]
enum Decider {
    Store(Arc<dyn Store>),
    Commands(MultiplexedConnection),
}

/// Tasks that decide.
pub(crate) struct Deciding {
    runtime: Runtime,
    decider: Decider,
    connection: MultiplexedConnection,
    server: Server,
}

impl Deciding {
    pub(crate) fn start(way: Way, server: Server) -> Result<Self> {
        let runtime = runtime()?;
        let url = format!("redis://{}", server.staff);
        let (connection, decider) = runtime.block_on(async {
            let client = redis::Client::open(&url[..])?;
            let connection = client.get_multiplexed_async_connection().await?;
            let decider = match way {
                Way::Store => {
                    let engine =
                        Engine::connect(config::Redis::at(&url), Findings::default()).await;
                    let engine = engine.context("connecting to Redis")?;
                    Decider::Store(Arc::new(Redis::new(engine, Join::Zero, true, 1000)))
                }
                Way::Commands => Decider::Commands(connection.clone()),
            };
            anyhow::Ok((connection, decider))
        })?;
        Ok(Self {
            runtime,
            decider,
            connection,
            server,
        })
    }
}

impl Side for Deciding {
    fn processes(&self) -> Option<Vec<u32>> {
        Some(vec![self.server.pid()])
    }

    /// Begins with an empty Redis.
    fn sample(&mut self) -> Result<Sample> {
        let (decider, mut connection) = (self.decider.clone(), self.connection.clone());
        let rate = self.runtime.block_on(async move {
            let flushed = redis::cmd("FLUSHALL")
                .arg("SYNC")
                .exec_async(&mut connection)
                .await;
            flushed.context("flushing Redis")?;
            rate(decider).await
        });
        Ok(sample([("rate", self.server.explain(rate)?)]))
    }
}

fn zone(number: u64) -> Zone {
    Zone::ALL[usize::try_from(number % 4).unwrap_or(0)]
}

/// Decisions per second. The couriers must have as many orders as were decided.
async fn rate(decider: Decider) -> Result<f64> {
    decider.begin().await.context("making couriers available")?;
    let begin = Instant::now() + WARM_UP;
    let end = begin + WINDOW;
    let mut tasks = JoinSet::new();
    for _ in 0..CUSTOMERS {
        let decider = decider.clone();
        tasks.spawn(async move {
            let (mut made, mut counted) = (0, 0);
            while Instant::now() < end {
                let number = ORDERS.fetch_add(1, Ordering::Relaxed);
                let order = Ids::Random.name(number);
                decider.decide(order, zone(number)).await?;
                made += 1;
                counted += u32::from((begin..end).contains(&Instant::now()));
            }
            anyhow::Ok((made, counted))
        });
    }
    let (mut made, mut counted) = (0, 0);
    while let Some(task) = tasks.join_next().await {
        let (by_task, counted_by_task) = task??;
        made += by_task;
        counted += counted_by_task;
    }
    let given = decider.given().await?;
    ensure!(
        given == made,
        "{made} orders were decided, and the couriers have {given}"
    );
    Ok(f64::from(counted) / WINDOW.as_secs_f64())
}

impl Decider {
    /// Makes all couriers available, in the zones in turn.
    async fn begin(&self) -> Result<()> {
        match self {
            Decider::Store(store) => {
                let now = Timestamp::now();
                let couriers = (0..AVAILABLE).map(|number| {
                    let courier = AddCourier {
                        id: CourierId(courier_id(number).parse()?),
                        name: format!("Courier {number}").into(),
                        zone: zone(number),
                        is_available: true,
                    };
                    Ok((Event::Courier(courier), now))
                });
                store.apply(couriers.collect::<Result<_>>()?).await?;
            }
            Decider::Commands(connection) => {
                for number in 0..AVAILABLE {
                    let key = by_orders(zone(number));
                    let (): () = connection.clone().zadd(key, courier_id(number), 0).await?;
                }
            }
        }
        Ok(())
    }

    /// Assigns an order to the courier of its zone with the fewest orders.
    async fn decide(&self, order: String, zone: Zone) -> Result<()> {
        match self {
            Decider::Store(store) => {
                let at = Timestamp::from_microsecond(Timestamp::now().as_microsecond())?;
                let id = OrderId(order.parse()?);
                let details = "Two coffees and a newspaper".into();
                let order = Event::Order(AddOrder {
                    id,
                    details,
                    zone,
                    added_at: at,
                });
                match store.apply(vec![(order, at)]).await?[..] {
                    [Outcome::Assigned(_)] => {}
                    ref other => bail!("the outcome of an order was {other:?}"),
                }
            }
            Decider::Commands(connection) => {
                let mut connection = connection.clone();
                let key = by_orders(zone);
                let fewest: Vec<String> = connection.zrange(&key, 0, 0).await?;
                let courier = fewest.first().context("no courier is available")?;
                let _count: f64 = connection.zincr(&key, courier, 1).await?;
                let (): () = connection.set(format!("order:{order}"), courier).await?;
                let added: u64 = connection.sadd(format!("courier:{courier}"), order).await?;
                ensure!(added == 1, "the order had been there before");
            }
        }
        Ok(())
    }

    /// The number of orders of all couriers.
    async fn given(&self) -> Result<u64> {
        match self {
            Decider::Store(store) => {
                let couriers = store.couriers(None).await?;
                Ok(couriers.iter().map(|courier| courier.count).sum())
            }
            Decider::Commands(connection) => {
                let mut given = 0;
                for number in 0..AVAILABLE {
                    let key = format!("courier:{}", courier_id(number));
                    given += connection.clone().scard::<_, u64>(key).await?;
                }
                Ok(given)
            }
        }
    }
}

fn by_orders(zone: Zone) -> String {
    format!("zone:{}", zone.as_str())
}
