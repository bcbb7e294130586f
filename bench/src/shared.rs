//! Cycles of a line that servers share, and of two plain lists in Redis, without HTTP in between.
//!
//! Each way has a Redis of its own and is called by as many tasks. A task places an order, takes the oldest one, reports it
//! ready, and waits for its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use odyssey::config::Config;
use odyssey::orders;
use odyssey::orders::Orders;
use odyssey::orders::redis::Redis;
use odyssey::orders::requests::{Finishing, Placement, Pulling, Taken, Wanted};
use odyssey::orders::shared::Shared;
use odyssey::orders::store::ServerId;
use odyssey::storage::config;
use odyssey::storage::preflight::Findings;
use odyssey::storage::redis::Redis as Engine;
use odyssey::telemetry::Registry;
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use serde::Deserialize;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::engine::{Sample, Side, sample};
use crate::load::CUSTOMERS;
use crate::machine::processor_time;
use crate::programs::{Server, runtime};

const WARM_UP: Duration = Duration::from_millis(250);
const WINDOW: Duration = Duration::from_millis(500);
const LINE: &str = "line";
const READY: &str = "ready";

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Way {
    /// A server's part of the line, with all that it does.
    Line,
    /// As if two servers had the line: half of the tasks each.
    LineOfTwo,
    /// An order goes onto a list and is taken off, then onto and off another one: four commands, one after the other. Nothing is
    /// held, leased, numbered or remembered.
    Lists,
}

#[derive(Clone)]
enum Shop {
    Line(Orders),
    Lists(MultiplexedConnection),
}

/// Tasks that play cycles.
pub(crate) struct Sharing {
    runtime: Runtime,
    shops: Vec<Shop>,
    server: Server,
}

impl Sharing {
    pub(crate) fn start(way: Way, server: Server) -> Result<Self> {
        let runtime = runtime()?;
        let url = format!("redis://{}", server.staff);
        let shops = runtime.block_on(async {
            match way {
                Way::Line => Ok(vec![line(&url, 1).await?]),
                Way::LineOfTwo => Ok(vec![line(&url, 1).await?, line(&url, 2).await?]),
                Way::Lists => {
                    let client = redis::Client::open(&url[..])?;
                    let connection = client.get_multiplexed_async_connection().await?;
                    anyhow::Ok(vec![Shop::Lists(connection)])
                }
            }
        })?;
        Ok(Self {
            runtime,
            shops,
            server,
        })
    }
}

/// A server's part of the line.
async fn line(url: &str, server: u64) -> Result<Shop> {
    let engine = Engine::connect(config::Redis::at(url), Findings::default()).await?;
    let store = Redis::open(engine, "bench").await?;
    let metrics = Registry::new(&[]).register(orders::Metrics::register);
    let rules = Config::load(None)?.orders;
    let line = Shared::new(Arc::new(store), ServerId(server), &rules, metrics);
    let orders = Orders::Shared(line);
    let running = orders.clone();
    tokio::spawn(async move { running.run().await });
    Ok(Shop::Line(orders))
}

impl Side for Sharing {
    fn processes(&self) -> Option<Vec<u32>> {
        Some(vec![self.server.pid()])
    }

    /// The server's time is that of Redis.
    fn sample(&mut self) -> Result<Sample> {
        let pid = self.server.pid();
        let shops = self.shops.clone();
        let measured = self.runtime.block_on(async move {
            let begin = Instant::now() + WARM_UP;
            let mut tasks = JoinSet::new();
            for shop in shops.iter().cycle().take(CUSTOMERS as usize) {
                let shop = shop.clone();
                tasks.spawn(async move {
                    let mut counted = 0;
                    while Instant::now() < begin + WINDOW {
                        shop.cycle().await?;
                        counted += u32::from((begin..begin + WINDOW).contains(&Instant::now()));
                    }
                    anyhow::Ok(counted)
                });
            }
            tokio::time::sleep_until(begin.into()).await;
            let before = processor_time(pid)?;
            tokio::time::sleep_until((begin + WINDOW).into()).await;
            let used = processor_time(pid)?.saturating_sub(before);
            let mut counted = 0;
            while let Some(task) = tasks.join_next().await {
                counted += task??;
            }
            anyhow::Ok((f64::from(counted), used.as_secs_f64()))
        });
        let (cycles, used) = self.server.explain(measured)?;
        Ok(sample([
            ("rate", cycles / WINDOW.as_secs_f64()),
            ("server-time", used * 1e9 / cycles.max(1.0)),
        ]))
    }
}

impl Shop {
    async fn cycle(&self) -> Result<()> {
        match self {
            Self::Line(orders) => {
                let placed = orders.place(Wanted::default(), true).get().await?;
                let Placement::Held(held) = placed else {
                    anyhow::bail!("the request is not held: {placed:?}");
                };
                let pulling = Pulling {
                    waits: true,
                    ..Pulling::default()
                };
                let taken: Taken = orders.pull(pulling).get().await?;
                let guard = taken.within(WINDOW * 20).await.context("no order came")?;
                let id = guard.lease().id;
                guard.confirm();
                let report = orders.finish(id, Finishing::default()).get().await?;
                ensure!(!report.already, "an order was finished twice");
                held.await;
            }
            Self::Lists(connection) => {
                let mut connection = connection.clone();
                for list in [LINE, READY] {
                    let (): () = connection.lpush(list, "0191d5c8-7a9b-7000-8000").await?;
                    let order: Option<String> = connection.rpop(list, None).await?;
                    ensure!(order.is_some(), "an order is missing");
                }
            }
        }
        Ok(())
    }
}
