//! The composition root: configuration becomes adapters, adapters become desks, desks become two routers. The only module
//! that depends on all others. `engines` are reached over the network, `storage` is the data directory, `desks` use both,
//! `messages` runs the couriers' queues.

mod access;
mod check;
mod commands;
mod desks;
mod engines;
mod life;
mod messages;
mod reload;
mod storage;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use metrics::{describe_gauge, gauge};
use serde::Serialize;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinError;
use tracing::{error, info};
use utoipa::openapi::OpenApi;

use self::access::Access;
use self::check::Checks;
pub use self::check::{Checked, check_directory};
#[cfg(feature = "redis")]
pub use self::commands::migrate_couriers;
#[cfg(feature = "aws")]
pub use self::commands::redrive_couriers;
pub use self::commands::{audit_packages, check_engines, replay_couriers};
use self::desks::{Desks, Observed, States, apis, package_types};
use self::engines::Engines;
pub use self::life::{Start, runtime, serve};
use self::messages::Messages;
use self::storage::{Storage, Stores};
use crate::access::watch::{Watched, keep_looking};
use crate::config::Config;
use crate::flood::Flood;
use crate::http::connection::Shutdown;
use crate::http::edge::{self, Edge};
use crate::http::engines::Engine;
use crate::http::feed::Feeds;
use crate::http::listen::{self, raise_open_files};
use crate::http::login::Login;
use crate::http::origin::Origins;
use crate::http::recent::Problems;
use crate::http::server::{ConnectionLimit, Server, Settings};
use crate::http::status::{Component, Readiness, Scrape};
use crate::orders::Orders;
use crate::shutdown::{self, Stopping, Tasks};
pub use crate::storage::preflight::Outcome;
use crate::storage::preflight::{Engine as Shared, Findings, Preflight};
use crate::storage::{Condition, clock, sqlite};
use crate::telemetry::{Logs, Registry};
use crate::{assignments, orders, version};

/// File descriptors reserved for the runtime, the logs and the listeners.
const FILES_RESERVED: u64 = 256;
/// The least number of connections to start with.
const CONNECTIONS_MIN: u64 = 32;
/// The staff's connections with `auto`.
const STAFF_CONNECTIONS: u64 = 1000;

/// The server, bound but not yet accepting.
#[derive(Debug)]
pub struct App {
    customers: Listener,
    staff: Listener,
    desks: Desks,
    messages: Messages,
    preflight: Preflight,
    storage: Storage,
    checks: Checks,
    check_every: Duration,
    watched: Vec<Arc<Watched>>,
    wall: clock::Metrics,
    /// Of customers and staff.
    readiness: [Readiness; 2],
    drain: watch::Receiver<Duration>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Addresses {
    /// URL of the customers' listener.
    pub customers: String,
    /// URL of the staff's listener.
    pub staff: String,
}

/// A bound listener.
#[derive(Debug)]
struct Listener {
    address: SocketAddr,
    scheme: &'static str,
    server: Server,
    shutdown: Shutdown,
}

impl App {
    /// Builds everything and opens both listeners. Needs a runtime.
    ///
    /// # Errors
    /// If the staff's listener would be open by mistake, the data directory or an address cannot be used, more connections are configured than the limit of open files
    /// allows, or the configured manifest is not acceptable.
    pub async fn open(
        config: &Config,
        logs: &Logs,
        drain: watch::Receiver<Duration>,
    ) -> anyhow::Result<Self> {
        access::check(config)?;
        let registry = registry();
        let [customers_limit, staff_limit] = connection_limits(config, raise_open_files())?;
        let types = package_types(config)?;
        let engines = Box::pin(Engines::find(config)).await?;
        let storage = Storage::open(config, &engines, &registry)?;
        let stores = Stores {
            deliveries: storage.deliveries(config),
            packages: storage.packages(config, &types),
            assignments: storage.assignments(config, &engines),
            couriers: storage.couriers(config, &engines),
            line: Box::pin(engines.line(config)).await?,
            oplog: storage.oplog.clone(),
            space: storage.space.clone(),
        };
        let mut components = storage.components(config, &stores, engines.preflight.findings());
        let mut in_use = storage.engines(config, &stores, engines.preflight.findings());
        let mut desks = Desks::new(config, stores, types, customers_limit.max(), &registry);
        components.insert(0, order_line(config, &desks, engines.preflight.findings()));
        let messages = Messages::new(config, &engines, &registry);
        components.extend(messages.component("messages"));
        in_use.extend(line_engine(&desks, engines.preflight.findings()));
        in_use.extend(messages.component("sqs").map(Engine::new));
        let observed = Observed::new(config, in_use);
        let access = Access::open(config, &config.data_dir, &desks.flood, &registry)?;
        components.extend(access.component());
        let readiness = Readiness::of(components, !config.staff.auth.is_required());
        messages.attach(&mut desks.couriers);
        desks.load_manifest(config).await?;
        let scrape = scrape(
            &registry,
            &desks,
            &storage,
            [&customers_limit, &staff_limit],
            [Box::new(logs.count_lost(&registry)), access.update_gauges()],
        );
        let checks = Checks::new(storage.databases());
        let login = Login::new(Arc::clone(&access.guards[1]), config.tls.is_on());
        let problems = observed.problems.clone();
        let shutdowns = [Shutdown::default(), Shutdown::default()];
        let feeds = shutdowns
            .clone()
            .map(|shutdown| Feeds::new(&config.pages, shutdown));
        let states = States::new(
            &desks,
            feeds,
            readiness.clone(),
            scrape,
            checks.clone(),
            login,
            observed,
        );
        let limits = gated(config, [customers_limit, staff_limit], &desks.flood);
        let [customers, staff] = listeners(
            config,
            &access,
            &states,
            (problems, &registry),
            limits.into_iter().zip(shutdowns),
        )?;
        Ok(Self {
            customers,
            staff,
            watched: access.watched,
            desks,
            messages,
            preflight: engines.preflight,
            storage,
            checks,
            check_every: config.storage.check_every,
            wall: registry.register(clock::Metrics::register),
            readiness,
            drain,
        })
    }

    /// The bound addresses, with the actual ports.
    pub fn addresses(&self) -> Addresses {
        Addresses {
            customers: self.customers.url(),
            staff: self.staff.url(),
        }
    }

    /// The files that are read again while the server runs.
    fn watched(&self) -> Vec<Arc<Watched>> {
        self.watched.clone()
    }

    /// Serves until `stop` names a signal, or a task has ended unexpectedly; then shuts down (see [`shutdown`]). False
    /// after a fault.
    pub async fn run(self, stop: oneshot::Receiver<&'static str>) -> bool {
        let Self {
            customers,
            staff,
            desks,
            messages,
            preflight,
            storage,
            checks,
            check_every,
            watched,
            wall,
            readiness: [readiness, _],
            drain,
        } = self;
        let stopping = Stopping {
            readiness,
            customers: customers.shutdown,
            staff: staff.shutdown,
            drain,
        };
        let messages = messages.start(&desks.couriers);
        let (mut listeners, mut background) = (Tasks::new(), Tasks::new());
        supervise(
            &mut listeners,
            "the customers' listener",
            customers.server.run(),
        );
        supervise(&mut listeners, "the staff's listener", staff.server.run());
        supervise_desks(&mut background, &desks);
        let space = storage.space.clone();
        supervise(&mut background, "the free space monitor", async move {
            space.watch().await;
        });
        supervise(&mut background, "the engine checks", preflight.run());
        supervise(
            &mut background,
            "the storage check",
            checks.keep_checking(check_every),
        );
        if !watched.is_empty() {
            let watching = keep_looking(watched);
            supervise(
                &mut background,
                "the watch on tokens and certificates",
                watching,
            );
        }
        supervise(
            &mut background,
            "the wall clock monitor",
            clock::watch(wall),
        );
        let (signal, sound) = tokio::select! {
            Ok(signal) = stop => (signal, true),
            Some(ended) = listeners.join_next() => (fault(ended), false),
            Some(ended) = background.join_next() => (fault(ended), false),
            () = messages.ended() => {
                error!("a task that receives or publishes couriers' messages has ended unexpectedly");
                ("none", false)
            }
        };
        stopping
            .shut_down(signal, &desks.orders, &mut listeners)
            .await;
        shutdown::close(async {
            messages.stop().await;
            // If it cannot be stored, the log of the storage says why.
            let _ = desks.packages.store_rejected().await;
            storage.close().await;
        })
        .await;
        sound
    }
}

/// The limits of both listeners, with what a connection has to pass before it counts.
fn gated(
    config: &Config,
    [customers, staff]: [ConnectionLimit; 2],
    flood: &Flood,
) -> [ConnectionLimit; 2] {
    let gate = flood.clone();
    let staff = if config.staff.auth.is_required() {
        Access::gate(staff, flood)
    } else {
        staff
    };
    [customers.with_gate(move |peer| gate.connect(peer)), staff]
}

/// Runs the tasks of the desks.
fn supervise_desks(background: &mut Tasks, desks: &Desks) {
    let (orders, flood) = (desks.orders.clone(), desks.flood.clone());
    supervise(background, "the order line", async move {
        orders.run().await;
    });
    supervise(background, "flood control's sweeper", async move {
        flood.sweep().await;
    });
    let packages = desks.packages.clone();
    supervise(background, "the package desk's counts", async move {
        packages.store_counts().await;
    });
    let couriers = desks.couriers.clone();
    supervise(background, "the count of parked orders", async move {
        couriers.count_parked().await;
    });
}

/// Runs a task for the lifetime of the server; its end or panic is reported through `tasks`.
fn supervise(
    tasks: &mut Tasks,
    name: &'static str,
    task: impl Future<Output = ()> + Send + 'static,
) {
    let task = tokio::spawn(task);
    tasks.spawn(async move { (name, task.await) });
}

/// A task ended unexpectedly: exit, so that the supervisor restarts the server.
fn fault(ended: Result<(&'static str, Result<(), JoinError>), JoinError>) -> &'static str {
    let (task, how) = match ended {
        Ok((task, Ok(()))) => (task, "it returned".to_owned()),
        Ok((task, Err(error))) => (task, error.to_string()),
        Err(error) => ("a task", error.to_string()),
    };
    error!(
        task,
        how, "a task of the server has ended unexpectedly: shutting down"
    );
    "none"
}

fn order_line(config: &Config, desks: &Desks, findings: &Findings) -> Component {
    let (orders, condition) = (desks.orders.clone(), Condition::default());
    let component = Component::new("orders", move || {
        if !orders.is_sound() {
            condition.fails("a step of the order line panicked; it needs a restart");
        }
        match &orders {
            Orders::Shared(line) if condition.is_healthy() => line.state(),
            _ => condition.state(),
        }
    });
    match config.orders.store {
        orders::config::StoreKind::Memory => component,
        orders::config::StoreKind::Redis => component.on(&[Shared::Redis], findings),
    }
}

/// Redis, if the line is there.
fn line_engine(desks: &Desks, findings: &Findings) -> Option<Engine> {
    let Orders::Shared(line) = desks.orders.clone() else {
        return None;
    };
    let component = Component::new("redis (line)", move || line.state());
    Some(Engine::new(component.on(&[Shared::Redis], findings)))
}

/// The API descriptions of customers and staff.
///
/// # Errors
/// If the package types are not acceptable.
pub fn openapi(config: &Config) -> anyhow::Result<[OpenApi; 2]> {
    package_types(config)?;
    Ok(apis(config, None).map(|api| api.openapi()))
}

fn registry() -> Registry {
    let buckets: &[f64] = &orders::metrics::BUCKETS_SECONDS;
    Registry::new(&[
        (edge::REQUEST_SECONDS, &edge::BUCKETS_SECONDS),
        (orders::metrics::WAIT_SECONDS, buckets),
        (orders::metrics::BREW_SECONDS, buckets),
        (
            assignments::metrics::PLAN_SECONDS,
            &assignments::metrics::BUCKETS_SECONDS,
        ),
        (
            sqlite::metrics::OPERATIONS_PER_COMMIT,
            &sqlite::metrics::BUCKETS_OPERATIONS,
        ),
        (
            sqlite::metrics::COMMIT_SECONDS,
            &sqlite::metrics::BUCKETS_SECONDS,
        ),
    ])
}

fn scrape(
    registry: &Registry,
    desks: &Desks,
    storage: &Storage,
    [customers, staff]: [&ConnectionLimit; 2],
    others: [Box<dyn Fn() + Send + Sync>; 2],
) -> Scrape {
    const OPEN: &str = "odyssey_connections";
    const MOST: &str = "odyssey_connections_max";
    let listeners = registry.register(|| {
        describe_gauge!(OPEN, "Open connections");
        describe_gauge!(MOST, "Connections that may be open");
        describe_gauge!(
            "odyssey_build_info",
            "Always 1; the labels have the version"
        );
        gauge!("odyssey_build_info", "version" => version::VERSION, "commit" => version::COMMIT)
            .set(1);
        [("customers", customers), ("staff", staff)].map(|(listener, limit)| {
            gauge!(MOST, "listener" => listener).set(count(limit.max()));
            (gauge!(OPEN, "listener" => listener), limit.clone())
        })
    });
    let desks = desks.clone();
    let databases = storage.databases();
    let oplog = storage.oplog.clone();
    let space = storage.space.clone();
    let free_bytes = registry.register(|| {
        const FREE: &str = "odyssey_storage_free_bytes";
        const LEAST: &str = "odyssey_storage_free_min_bytes";
        describe_gauge!(FREE, "Free bytes of the data directory's file system");
        describe_gauge!(
            LEAST,
            "Free bytes below which writes of the public are refused"
        );
        gauge!(LEAST).set(bytes(space.min_bytes()));
        gauge!(FREE)
    });
    Scrape::new(registry.clone(), move || {
        desks.flood.update_gauges();
        oplog.update_gauges();
        free_bytes.set(bytes(space.free_bytes()));
        for update in &others {
            update();
        }
        for database in &databases {
            database.update_gauges();
        }
        for (open, limit) in &listeners {
            open.set(count(limit.open()));
        }
        desks.orders.update_gauges()
    })
}

#[expect(
    clippy::cast_precision_loss,
    reason = "some bytes of petabytes do not matter"
)]
fn bytes(bytes: u64) -> f64 {
    bytes as f64
}

fn count(connections: usize) -> f64 {
    u32::try_from(connections).map_or(f64::INFINITY, f64::from)
}

/// Connection limits of customers and staff, within the limit of open files. The staff's are reserved: without baristas no
/// customer is served.
fn connection_limits(config: &Config, open_files: u64) -> anyhow::Result<[ConnectionLimit; 2]> {
    let usable = open_files.saturating_sub(FILES_RESERVED);
    let listeners = [
        config.customers.connections_max,
        config.staff.connections_max,
    ];
    if usable < CONNECTIONS_MIN && listeners.contains(&None) {
        bail!(
            "this process may open {open_files} files (ulimit -n), {FILES_RESERVED} of which are reserved; it needs at \
             least {}, and one more for each connection that is held",
            FILES_RESERVED + CONNECTIONS_MIN
        );
    }
    let staff = match config.staff.connections_max {
        None => STAFF_CONNECTIONS.min(usable / 4).max(1),
        Some(count) => count as u64,
    };
    let customers = match config.customers.connections_max {
        None => usable.saturating_sub(staff).max(1),
        Some(count) => count as u64,
    };
    if staff.saturating_add(customers) > usable {
        bail!(
            "configuration keys `customers.connections_max` and `staff.connections_max`: {customers} and {staff} \
             connections need more than the {open_files} files this process may open (ulimit -n), {FILES_RESERVED} of \
             which are reserved"
        );
    }
    Ok([customers, staff]
        .map(|limit| ConnectionLimit::new(usize::try_from(limit).unwrap_or(usize::MAX))))
}

/// Opens the listeners of customers and staff.
fn listeners(
    config: &Config,
    access: &Access,
    states: &States,
    (problems, registry): (Problems, &Registry),
    limits: impl Iterator<Item = (ConnectionLimit, Shutdown)>,
) -> anyhow::Result<[Listener; 2]> {
    let (customers, staff) = (&config.customers, &config.staff);
    let sections = [
        (
            customers.listen,
            customers.h2c,
            &customers.hosts,
            &*customers.origins,
        ),
        (staff.listen, staff.h2c, &staff.hosts, &[]),
    ];
    let apis = apis(config, Some(states));
    let mut opened = Vec::new();
    for (at, ((name, (limit, shutdown)), ((listen, h2c, hosts, origins), api))) in
        ["customers", "staff"]
            .into_iter()
            .zip(limits)
            .zip(sections.into_iter().zip(apis))
            .enumerate()
    {
        let origins = Origins::new(name, hosts, origins);
        let guard = Arc::clone(&access.guards[at]);
        let edge = Edge::new(
            name,
            api,
            origins,
            guard,
            (problems.clone(), registry.clone()),
        );
        let settings = Settings {
            name,
            h2c,
            limit,
            tls: access.acceptors.as_ref().map(|all| all[at].clone()),
            http: config.http.clone(),
        };
        opened.push(Listener::open(listen, edge, settings, shutdown)?);
    }
    Ok(opened.try_into().expect("two were opened"))
}

impl Listener {
    fn open(
        listen: SocketAddr,
        edge: Edge,
        settings: Settings,
        shutdown: Shutdown,
    ) -> anyhow::Result<Self> {
        let name = settings.name;
        let socket = listen::listen(listen, settings.http.backlog).with_context(|| {
            format!("configuration key `{name}.listen`: cannot listen on {listen}")
        })?;
        let address = socket.local_addr()?;
        let tls = settings.tls.is_some();
        info!(%address, connections_max = settings.limit.max(), h2c = settings.h2c, tls, "the {name} listener is open");
        Ok(Self {
            address,
            scheme: if tls { "https" } else { "http" },
            server: Server::new(socket, edge, settings, shutdown.clone()),
            shutdown,
        })
    }

    fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_stay_below_the_limit_of_open_files() {
        let mut config = Config::defaults();
        for (open_files, customers, staff) in
            [(20_000, 18_744, 1000), (1024, 576, 192), (288, 24, 8)]
        {
            let [c, s] = connection_limits(&config, open_files).unwrap();
            assert_eq!((c.max(), s.max()), (customers, staff), "{open_files}");
        }
        for open_files in [0, 64, 256, 287] {
            let refused = connection_limits(&config, open_files)
                .unwrap_err()
                .to_string();
            assert!(refused.contains("at least 288"), "{refused}");
        }
        config.customers.connections_max = Some(900);
        assert!(connection_limits(&config, 1024).is_err());
        assert!(connection_limits(&config, 2048).is_ok());
    }

    #[test]
    fn each_listener_describes_what_it_serves_and_nothing_else() {
        let config = Config::defaults();
        let [customers, staff] = openapi(&config).unwrap();
        let paths = |api: &OpenApi| {
            let paths: Vec<_> = api.paths.paths.keys().map(String::as_str).collect();
            paths.join(" ")
        };
        assert_eq!(
            paths(&customers),
            "/ /board /health /healthz /order/ /orders/{order_id} /packages /packages/{package_id} /preferences \
             /preferences/{recipient_id} /readyz /readyz/{desk} /statistics"
        );
        assert_eq!(
            paths(&staff),
            "/ /assign /assignments /assignments/summary /barista /build /counts /courier /courier/{courier_id} /couriers /couriers/events /couriers/parked /couriers/zones \
             /deliveries /deliveries/{delivery_id} /deliveries/{delivery_id}/events \
             /deliveries/{delivery_id}/events/{sequence} /engines /events /extend/ /finish/ /flood /flood/{address} /health \
             /healthz /line /line/door /login /logout /manifest /metrics /orders /orders/{order_id} /overview /packages/{package_id} \
             /preferences/{recipient_id} /problems /readyz /readyz/{desk} /release/ /search /start/ /statistics /status /storage/check \
             /update"
        );
    }
}
