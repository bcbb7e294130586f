//! Cycles of a line that servers share, and of two plain lists in Redis, without HTTP in between.
//!
//! Each way has a Redis of its own and is called by as many tasks. A task places an order, takes the oldest one, reports it
//! ready, and waits for its own. What a steady rate of orders waits for is measured with the same two servers in this process;
//! what two idle servers cost, with the program itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use odyssey::config::Config;
use odyssey::orders;
use odyssey::orders::Orders;
use odyssey::orders::hold::Held;
use odyssey::orders::model::OrderId;
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
use tokio::time::interval;

use crate::engine::{Sample, Side, percentile, sample};
use crate::load::{BARISTAS, CUSTOMERS};
use crate::machine::processor_time;
use crate::programs::{Programs, Server, runtime};
use crate::rows::{Drive, Subject};

const WARM_UP: Duration = Duration::from_millis(250);
const WINDOW: Duration = Duration::from_millis(500);
/// Between two orders at a steady rate: 500 per second.
const BETWEEN: Duration = Duration::from_millis(2);
/// How long idle servers are watched.
const IDLE: Duration = Duration::from_secs(20);
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
                let held = place(orders).await?;
                let id = take(orders).await?.context("no order came")?;
                finish(orders, id).await?;
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

async fn place(orders: &Orders) -> Result<Held> {
    match orders.place(Wanted::default(), true).get().await? {
        Placement::Held(held) => Ok(held),
        placed => anyhow::bail!("the request is not held: {placed:?}"),
    }
}

/// The oldest order, or the next one if there is one soon.
async fn take(orders: &Orders) -> Result<Option<OrderId>> {
    let pulling = Pulling {
        waits: true,
        ..Pulling::default()
    };
    let taken: Taken = orders.pull(pulling).get().await?;
    let guard = taken.within(WINDOW * 20).await;
    Ok(guard.map(|guard| {
        let id = guard.lease().id;
        guard.confirm();
        id
    }))
}

async fn finish(orders: &Orders, id: OrderId) -> Result<()> {
    let report = orders.finish(id, Finishing::default()).get().await?;
    ensure!(!report.already, "an order was finished twice");
    Ok(())
}

/// Orders at a steady rate to one of two servers; baristas at the other one serve them at once.
pub(crate) struct Steady {
    sharing: Sharing,
    window: Duration,
}

impl Steady {
    pub(crate) fn start(server: Server, window: Duration) -> Result<Self> {
        let sharing = Sharing::start(Way::LineOfTwo, server)?;
        Ok(Self { sharing, window })
    }
}

impl Side for Steady {
    fn processes(&self) -> Option<Vec<u32>> {
        self.sharing.processes()
    }

    fn sample(&mut self) -> Result<Sample> {
        let Sharing {
            runtime,
            shops,
            server,
        } = &self.sharing;
        let [Shop::Line(customers), Shop::Line(staff)] = &shops[..] else {
            anyhow::bail!("there are not two servers");
        };
        server.explain(runtime.block_on(at_a_steady_rate(customers, staff, self.window)))
    }
}

/// When the reports of orders were sent.
type Reported = Arc<Mutex<HashMap<OrderId, Instant>>>;

/// An order's time is that from its sending, which no other one delays, to the answer that it is in line; and that from its
/// barista's report to its customer's answer.
async fn at_a_steady_rate(customers: &Orders, staff: &Orders, window: Duration) -> Result<Sample> {
    let reported = Reported::default();
    let mut crew = JoinSet::new();
    for _ in 0..BARISTAS {
        crew.spawn(serve(staff.clone(), Arc::clone(&reported)));
    }
    let (mut orders, mut due) = (JoinSet::new(), interval(BETWEEN));
    let begin = Instant::now() + WARM_UP;
    while begin.elapsed() < window {
        due.tick().await;
        let customers = customers.clone();
        orders.spawn(async move {
            let sent = Instant::now();
            let held = place(&customers).await?;
            let (placed, id) = (sent.elapsed(), held.order());
            held.await;
            anyhow::Ok((sent, placed, id, Instant::now()))
        });
    }
    let (mut in_line, mut answered) = (Vec::new(), Vec::new());
    while let Some(order) = orders.join_next().await {
        let (sent, placed, id, at) = order??;
        if sent >= begin {
            let reported = reported.lock().expect("no panic").remove(&id);
            let reported = reported.context("an order was answered without a report")?;
            in_line.push(placed);
            answered.push(at - reported);
        }
    }
    ensure!(
        crew.len() == BARISTAS as usize && crew.try_join_next().is_none(),
        "a barista failed"
    );
    crew.shutdown().await;
    Ok(sample([
        ("placed", percentile(&mut in_line, 50)),
        ("placed-p99", percentile(&mut in_line, 99)),
        ("answered", percentile(&mut answered, 50)),
    ]))
}

async fn serve(staff: Orders, reported: Reported) -> Result<()> {
    loop {
        if let Some(id) = take(&staff).await? {
            reported
                .lock()
                .expect("no panic")
                .insert(id, Instant::now());
            finish(&staff, id).await?;
        }
    }
}

/// Two servers that share a line, and its Redis, without a request.
pub(crate) struct Idle([Server; 3]);

impl Idle {
    pub(crate) fn start(redis: Server, programs: &Programs) -> Result<Self> {
        let subject = Subject {
            name: "an idle server".to_owned(),
            program: "odyssey".to_owned(),
            settings: None,
            drive: Drive::Idle,
            expect: BTreeMap::new(),
        };
        let url = format!("redis://{}", redis.staff);
        let shared = [
            ("ODYSSEY_ORDERS__STORE", "redis"),
            ("ODYSSEY_REDIS__URL", &url),
        ];
        let start = || programs.start_with(&subject, &shared);
        Ok(Self([start()?, start()?, redis]))
    }

    fn used(&self) -> Result<Duration> {
        self.0
            .iter()
            .map(|server| processor_time(server.pid()))
            .sum()
    }
}

impl Side for Idle {
    fn processes(&self) -> Option<Vec<u32>> {
        Some(self.0.iter().map(Server::pid).collect())
    }

    fn sample(&mut self) -> Result<Sample> {
        std::thread::sleep(WARM_UP * 4);
        let before = self.used()?;
        std::thread::sleep(IDLE);
        let used = self.used()?.saturating_sub(before);
        Ok(sample([("busy", used.as_secs_f64() / IDLE.as_secs_f64())]))
    }
}
