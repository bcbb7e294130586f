//! Failovers while decisions are made: how soon they are acknowledged again, and what becomes of those that were.
//!
//! Redis replicates after it has answered, so a failover may lose what the new primary never had. What it had must stay, and no
//! order may be given twice.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use testkit::proxy::Proxy;
use testkit::redis::Cluster;
use testkit::until;
use tokio::task::JoinSet;
use tokio::time::sleep;
use uuid::Uuid;

use super::*;

/// How often each failover happens in a run of its own. `make soak` wants 20.
const RUNS_VARIABLE: &str = "SOAK_FAILOVERS";
/// How soon orders are to be acknowledged again. Asserted by `make soak`, which runs one test at a time.
const LIMIT: Duration = Duration::from_secs(5);
/// Decisions that are acknowledged before a failover, and after it.
const BETWEEN: usize = 100;

/// How the new primary comes about, and what the old one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Situation {
    /// The old one follows the new one, and refuses writes. Then they change places again.
    Demoted,
    /// The old one stands still.
    Frozen,
    /// The old one is alive, but nothing gets through on the connections to it.
    Silent,
    /// A Sentinel promotes the new one because the old one stands still.
    Sentinel,
    /// The nodes of a cluster elect the new one because the old one stands still.
    Cluster,
}

/// The servers of a run.
enum Servers {
    Pair(Server, Server, Proxy),
    Watched(Server, Server, Server),
    Cluster(Cluster),
}

impl Servers {
    async fn start(situation: Situation) -> Self {
        if situation == Situation::Cluster {
            return Self::Cluster(Cluster::with_replica().await);
        }
        let first = Server::start().await;
        let second = Server::replica_of(&first).await;
        if situation == Situation::Sentinel {
            let sentinel = Server::sentinel(&first, "shop").await;
            return Self::Watched(first, second, sentinel);
        }
        let proxy = Proxy::before_redis(&first).await;
        Self::Pair(first, second, proxy)
    }

    fn config(&self) -> config::Redis {
        match self {
            Self::Pair(_, _, proxy) => config::Redis::at(&format!("redis://{}", proxy.address)),
            Self::Watched(_, _, sentinel) => config::Redis {
                sentinels: vec![sentinel.url().into()],
                sentinel_primary: "shop".to_owned(),
                ..config::Redis::at("redis://anywhere.invalid")
            },
            Self::Cluster(cluster) => config::Redis::at(&cluster.primaries[1].url()),
        }
    }

    /// The primary, its replica, and those that stay what they are.
    fn nodes(&self) -> (&Server, &Server, &[Server]) {
        match self {
            Self::Pair(first, second, _) | Self::Watched(first, second, _) => (first, second, &[]),
            Self::Cluster(cluster) => {
                let (first, replica) = cluster.first_and_replica();
                (first, replica, &cluster.primaries[1..])
            }
        }
    }

    /// Fails over; the orders that the new primary has at once, and when clients can reach it.
    async fn fail_over(&self, situation: Situation) -> (BTreeSet<OrderId>, Instant) {
        let (first, second, others) = self.nodes();
        second.is_in_sync(first).await;
        match (self, situation) {
            (Self::Pair(_, _, proxy), Situation::Demoted) => {
                return change_places(first, second, proxy).await;
            }
            (Self::Pair(_, _, proxy), Situation::Silent) => {
                proxy.silence_open();
                proxy.lead_to(second);
                second.promote().await;
            }
            (Self::Pair(_, _, proxy), _) => {
                first.process.freeze();
                proxy.lead_to(second);
                second.promote().await;
            }
            _ => {
                first.process.freeze();
                second.is_promoted().await;
            }
        }
        let began = Instant::now();
        let mut has = orders_of(second).await;
        for other in others {
            has.extend(orders_of(other).await);
        }
        (has, began)
    }
}

/// The replica is promoted, and the primary demoted.
async fn change_places(
    primary: &Server,
    replica: &Server,
    proxy: &Proxy,
) -> (BTreeSet<OrderId>, Instant) {
    replica.is_in_sync(primary).await;
    replica.promote().await;
    let has = orders_of(replica).await;
    primary.follow(replica).await;
    proxy.lead_to(replica);
    (has, Instant::now())
}

/// The orders that a server has.
async fn orders_of(server: &Server) -> BTreeSet<OrderId> {
    // A node of a cluster refuses other commands for keys of other nodes.
    let orders = key("orders");
    if server.ask(&["KEYS", &orders]).await.is_empty() {
        return BTreeSet::new();
    }
    let orders = server.ask(&["HKEYS", &orders]).await;
    let ids = orders.lines().map(|id| OrderId(id.parse().unwrap()));
    ids.collect()
}

/// A decision that was acknowledged.
struct Acknowledged {
    order: OrderId,
    courier: CourierId,
    /// Failovers before the order was sent for the first time.
    after: usize,
}

/// What those who send orders share.
struct Book {
    store: Redis,
    acknowledged: Mutex<Vec<Acknowledged>>,
    failovers: AtomicUsize,
    closes: AtomicUsize,
}

impl Book {
    /// Sends one order until it is acknowledged.
    async fn send(&self, zone: Zone) {
        let order = OrderId(Uuid::new_v4());
        let after = self.failovers.load(Ordering::SeqCst);
        let event = Event::Order(AddOrder {
            id: order,
            details: "Buy something".into(),
            zone,
            added_at: contract::at(1),
        });
        let courier = loop {
            match self
                .store
                .apply(vec![(event.clone(), contract::at(1))])
                .await
            {
                Ok(outcomes) => match outcomes[..] {
                    [
                        Outcome::Assigned(courier) | Outcome::Duplicate(Whereabouts::With(courier)),
                    ] => break courier,
                    _ => panic!("the zone has couriers: {outcomes:?}"),
                },
                Err(Unavailable::Engine) => sleep(Duration::from_millis(10)).await,
                Err(other) => panic!("{other}"),
            }
        };
        self.acknowledged.lock().unwrap().push(Acknowledged {
            order,
            courier,
            after,
        });
    }

    async fn send_all(self: Arc<Self>, zone: Zone) {
        while self.closes.load(Ordering::SeqCst) == 0 {
            self.send(zone).await;
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until so many more are acknowledged.
    async fn more(&self) {
        let count = || self.acknowledged.lock().unwrap().len();
        let enough = count() + BETWEEN;
        until("orders are acknowledged", async || count() >= enough).await;
    }

    /// How long it takes until an order of each zone is acknowledged.
    async fn writes_again(self: &Arc<Self>, began: Instant) -> Duration {
        let mut zones = JoinSet::new();
        for zone in Zone::ALL {
            let book = Arc::clone(self);
            zones.spawn(async move { book.send(zone).await });
        }
        zones.join_all().await;
        began.elapsed()
    }
}

/// What became of a run.
#[derive(Debug, Default)]
struct Report {
    took: Vec<Duration>,
    acknowledged: usize,
    /// Acknowledged by the old primary, and never replicated.
    not_replicated: usize,
    /// Lost although the new primary had them.
    lost: usize,
    doubled: usize,
}

async fn run(situation: Situation) -> Report {
    let servers = Servers::start(situation).await;
    let client = Client::connect(servers.config(), Findings::default())
        .await
        .unwrap();
    let book = Arc::new(Book {
        store: Redis::new(client, Join::Zero, true, 1000),
        acknowledged: Mutex::default(),
        failovers: AtomicUsize::default(),
        closes: AtomicUsize::default(),
    });
    let store = &book.store;
    let couriers = Zone::ALL.into_iter().cycle().zip(1..9);
    let couriers = couriers.map(|(zone, number)| contract::says(number, zone, true));
    contract::tell(store, couriers.collect(), contract::at(1)).await;
    let mut senders = JoinSet::new();
    for zone in Zone::ALL {
        senders.spawn(Arc::clone(&book).send_all(zone));
    }
    book.more().await;
    let (mut had, began) = servers.fail_over(situation).await;
    book.failovers.fetch_add(1, Ordering::SeqCst);
    let mut report = Report::default();
    report.took.push(book.writes_again(began).await);
    book.more().await;
    match &servers {
        Servers::Pair(first, second, proxy) if situation == Situation::Demoted => {
            let (has, began) = change_places(second, first, proxy).await;
            had.extend(has);
            book.failovers.fetch_add(1, Ordering::SeqCst);
            report.took.push(book.writes_again(began).await);
        }
        // It takes itself for the primary still.
        _ => servers.nodes().0.process.thaw(),
    }
    book.more().await;
    book.closes.fetch_add(1, Ordering::SeqCst);
    senders.join_all().await;
    let decided = store.orders().await.unwrap();
    let last = book.failovers.load(Ordering::SeqCst);
    let acknowledged = std::mem::take(&mut *book.acknowledged.lock().unwrap());
    report.acknowledged = acknowledged.len();
    let courier_of: BTreeMap<OrderId, Whereabouts> = decided.iter().copied().collect();
    for one in acknowledged {
        match courier_of.get(&one.order) {
            Some(Whereabouts::With(courier)) if *courier == one.courier => {}
            Some(_) => report.doubled += 1,
            None if one.after == last || had.contains(&one.order) => report.lost += 1,
            None => report.not_replicated += 1,
        }
    }
    let mut outgoing = BTreeMap::new();
    for it in store.outgoing(1_000_000).await.unwrap() {
        let Assignment {
            order_id,
            courier_id,
        } = it.assignment;
        let before = outgoing.insert(order_id, courier_id);
        report.doubled += usize::from(before.is_some());
    }
    let announced = outgoing
        .into_iter()
        .map(|(order, courier)| (order, Whereabouts::With(courier)));
    assert_eq!(announced.collect::<Vec<_>>(), decided);
    let orders: Vec<OrderId> = courier_of.into_keys().collect();
    contract::consistent(store, Join::Zero, &orders).await;
    report
}

async fn fails_over(situation: Situation) {
    let runs = std::env::var(RUNS_VARIABLE).map_or(1, |runs| runs.parse().unwrap());
    let mut all = Report::default();
    for number in 1..=runs {
        let report = run(situation).await;
        eprintln!("{situation:?} {number}: {report:?}");
        all.took.extend(report.took);
        all.acknowledged += report.acknowledged;
        all.not_replicated += report.not_replicated;
        all.lost += report.lost;
        all.doubled += report.doubled;
    }
    all.took.sort();
    let (median, longest) = (all.took[all.took.len() / 2], all.took[all.took.len() - 1]);
    eprintln!("{situation:?}: median {median:?}, longest {longest:?}, {all:?}");
    assert_eq!((all.lost, all.doubled), (0, 0));
    assert!(runs == 1 || longest < LIMIT, "{longest:?}");
}

#[tokio::test]
async fn a_failover_from_a_primary_that_is_demoted_and_back_loses_and_doubles_nothing() {
    fails_over(Situation::Demoted).await;
}

#[tokio::test]
async fn a_failover_from_a_primary_that_is_frozen_loses_and_doubles_nothing() {
    fails_over(Situation::Frozen).await;
}

#[tokio::test]
async fn a_failover_from_a_primary_that_is_silent_loses_and_doubles_nothing() {
    fails_over(Situation::Silent).await;
}

#[tokio::test]
async fn a_failover_by_a_sentinel_loses_and_doubles_nothing() {
    fails_over(Situation::Sentinel).await;
}

#[tokio::test]
async fn a_failover_in_a_cluster_loses_and_doubles_nothing() {
    fails_over(Situation::Cluster).await;
}
