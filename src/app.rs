//! The composition root: configuration becomes adapters, adapters become desks, desks become two routers.
//! The only file that sees everything; reading it tells what the process is made of.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use metrics::{describe_gauge, gauge};
use serde::Serialize;
use tracing::info;
use utoipa::openapi::OpenApi;

use crate::config::{self, Config, Count};
use crate::deliveries::{self, Deliveries};
use crate::flood::{self, Flood};
use crate::http::Api;
use crate::http::body::BodyLimits;
use crate::http::connection::Stop;
use crate::http::edge::Edge;
use crate::http::listen::{listen, raise_open_files};
use crate::http::server::{Seats, Server, Settings};
use crate::http::status::{Readiness, Scrape, health_routes, metrics_route};
use crate::orders::{self, Orders};
use crate::packages::{self, Packages};
use crate::shutdown::{Signals, Stopping};
use crate::storage::directory::DataDirectory;
use crate::storage::sqlite::{self, Database};
use crate::telemetry::Registry;

/// The databases' files in the data directory.
const DELIVERIES_FILE: &str = "deliveries.db";
const PACKAGES_FILE: &str = "packages.db";
/// Open files that are not connections: the runtime's, the logs', the listeners', and some to spare.
const FILES_RESERVED: u64 = 256;
/// The staff's connections where nothing else is configured.
const STAFF_CONNECTIONS: u64 = 1000;

/// The server, listening but not yet serving.
#[derive(Debug)]
pub struct App {
    customers: Door,
    staff: Door,
    desks: Desks,
    storage: Storage,
    registry: Registry,
    readiness: Readiness,
    drain: Duration,
}

/// What outlives the process.
#[derive(Debug)]
struct Storage {
    deliveries: Database,
    packages: Database,
    /// Kept until the databases are closed.
    _directory: DataDirectory,
}

/// Where each desk keeps what it keeps.
struct Stores {
    deliveries: Arc<dyn deliveries::store::Store>,
    packages: Arc<dyn packages::store::Store>,
}

/// Where the server can be reached.
#[derive(Debug, Clone, Serialize)]
pub struct Addresses {
    /// The customers' listener, as a URL.
    pub customers: String,
    /// The staff's listener, as a URL.
    pub staff: String,
}

/// The desks, as handles.
#[derive(Debug, Clone)]
struct Desks {
    orders: Orders,
    deliveries: Deliveries,
    /// Whether customers' drones may report.
    deliveries_for_customers: bool,
    packages: Packages,
    flood: Flood,
    limits: BodyLimits,
}

/// A listener that is open.
#[derive(Debug)]
struct Door {
    address: SocketAddr,
    server: Server,
    stop: Stop,
}

impl App {
    /// Builds everything and opens both listeners. Needs a runtime.
    ///
    /// # Errors
    /// If the data directory or an address cannot be had, or more connections are configured than the limit of open files
    /// allows.
    pub fn open(config: &Config) -> anyhow::Result<Self> {
        let registry = registry()?;
        let [customers_seats, staff_seats] = seats(config, raise_open_files())?;
        let types = package_types(config)?;
        let storage = Storage::open(config, &registry)?;
        let readiness = storage.readiness();
        let stores = Stores {
            deliveries: storage.deliveries(config),
            packages: storage.packages(config, &types),
        };
        let desks = Desks::new(config, stores, types, &registry);
        let scrape = scrape(
            &registry,
            &desks,
            &storage,
            [&customers_seats, &staff_seats],
        );
        let [customers, staff] = apis(&desks, &readiness, scrape);
        let door = |name, listener, seats, api: Api| {
            let edge = Edge::new(name, api.into_router(), registry.clone());
            Door::open(name, listener, seats, edge, &config.http)
        };
        Ok(Self {
            customers: door(
                "customers",
                &config.customers.listener(),
                customers_seats,
                customers,
            )?,
            staff: door("staff", &config.staff, staff_seats, staff)?,
            desks,
            storage,
            registry,
            readiness,
            drain: config.shutdown.drain,
        })
    }

    /// Where the server can be reached, with the ports that were really taken.
    pub fn addresses(&self) -> Addresses {
        Addresses {
            customers: format!("http://{}", self.customers.address),
            staff: format!("http://{}", self.staff.address),
        }
    }

    /// Serves until a signal comes, then goes down in order (see [`crate::shutdown`]).
    pub async fn run(self, signals: Signals) {
        let Self {
            customers,
            staff,
            desks,
            storage,
            registry,
            readiness,
            drain,
        } = self;
        let stopping = Stopping {
            readiness,
            customers: customers.stop,
            staff: staff.stop,
            drain,
        };
        let background = async {
            tokio::join!(
                desks.orders.keep_time(),
                desks.flood.sweep(),
                registry.fold()
            );
        };
        let customers = tokio::spawn(customers.server.run());
        let staff = tokio::spawn(staff.server.run());
        tokio::select! {
            () = background => {}
            () = stopping.run(signals, &desks.orders, customers, staff) => {}
        }
        storage.close().await;
    }
}

/// The description of both listeners' API: customers, staff.
///
/// # Errors
/// If the metrics registry cannot be made.
pub fn openapi(config: &Config) -> anyhow::Result<[OpenApi; 2]> {
    let registry = registry()?;
    let stores = Stores {
        deliveries: Arc::new(deliveries::store::Closed),
        packages: Arc::new(packages::store::Closed),
    };
    let desks = Desks::new(config, stores, package_types(config)?, &registry);
    let scrape = Scrape::new(registry, || ());
    let readiness = Readiness::new(|| true);
    Ok(apis(&desks, &readiness, scrape).map(|api| api.openapi()))
}

/// Counts the ledger of packages anew, in the data directory of this configuration. A server may be running on it.
///
/// # Errors
/// If the ledger cannot be read.
pub fn audit_packages(config: &Config) -> anyhow::Result<packages::audit::Audit> {
    let path = config.data_dir.join(PACKAGES_FILE);
    Ok(packages::sqlite::audit(&path)?)
}

fn package_types(config: &Config) -> anyhow::Result<Arc<packages::model::Types>> {
    let config::Packages { types, opt_in, .. } = &config.packages;
    packages::model::Types::new(types, opt_in)
        .map(Arc::new)
        .map_err(|detail| {
            anyhow::anyhow!("configuration keys `packages.types`, `packages.opt_in`: {detail}")
        })
}

impl Storage {
    fn open(config: &Config, registry: &Registry) -> anyhow::Result<Self> {
        let directory = DataDirectory::open(&config.data_dir)?;
        info!(path = %directory.path().display(), "the data directory is ours");
        let database = |name, migrations| {
            let settings = sqlite::Settings {
                path: directory.file(name),
                migrations,
                queue_max: config.storage.queue_max,
                batch_max: config.storage.batch_max,
                readers: config.storage.readers,
            };
            let metrics = registry.register(|| sqlite::Metrics::register(&settings.path));
            Database::open(settings, metrics)
        };
        Ok(Self {
            deliveries: database(DELIVERIES_FILE, deliveries::sqlite::MIGRATIONS)?,
            packages: database(PACKAGES_FILE, packages::sqlite::MIGRATIONS)?,
            _directory: directory,
        })
    }

    fn readiness(&self) -> Readiness {
        let databases = self.databases();
        Readiness::new(move || databases.iter().all(Database::is_well))
    }

    fn databases(&self) -> [Database; 2] {
        [self.deliveries.clone(), self.packages.clone()]
    }

    async fn close(self) {
        for database in self.databases() {
            database.close().await;
        }
    }

    fn packages(
        &self,
        config: &Config,
        types: &Arc<packages::model::Types>,
    ) -> Arc<dyn packages::store::Store> {
        let remember = match config.packages.remember {
            config::Time::Forever => None,
            config::Time::For(time) => Some(time),
        };
        Arc::new(packages::sqlite::Sqlite::new(
            self.packages.clone(),
            Arc::clone(types),
            remember,
        ))
    }

    fn deliveries(&self, config: &Config) -> Arc<dyn deliveries::store::Store> {
        let config::Deliveries {
            kept,
            ongoing_max,
            events_max,
            stale_after: _,
            graph,
        } = config.deliveries;
        let rules = deliveries::rules::Rules {
            graph: match graph {
                config::DeliveryGraph::Free => deliveries::rules::Graph::Free,
                config::DeliveryGraph::Strict => deliveries::rules::Graph::Strict,
            },
            events_max,
            ongoing_max,
            kept,
        };
        Arc::new(deliveries::sqlite::Sqlite::new(
            self.deliveries.clone(),
            rules,
        ))
    }
}

impl Desks {
    fn new(
        config: &Config,
        stores: Stores,
        types: Arc<packages::model::Types>,
        registry: &Registry,
    ) -> Self {
        let limits = BodyLimits {
            max_bytes: config.http.body_max_bytes,
            timeout: config.http.body_timeout,
        };
        let config::Orders {
            lease,
            attempts_max,
            reconnect_grace,
            replay,
            remembered_max,
            waiting_max,
        } = config.orders;
        let rules = orders::Rules {
            lease,
            attempts_max,
            reconnect_grace,
            replay,
            remembered_max,
            waiting_max,
        };
        let orders = Orders::new(rules, registry.register(orders::Metrics::register));
        let flood = flood(&config.flood, registry);
        // Whoever is cut off leaves the line.
        let line = orders.clone();
        flood.on_cut_off(move |address, time| line.purge(address, time));
        let deliveries = Deliveries::new(
            stores.deliveries,
            config.deliveries.stale_after,
            registry.register(deliveries::Metrics::register),
        );
        let packages = Packages::new(
            stores.packages,
            types,
            registry.register(packages::Metrics::register),
        );
        Self {
            orders,
            deliveries,
            deliveries_for_customers: config.customers.deliveries,
            packages,
            flood,
            limits,
        }
    }
}

fn flood(config: &config::Flood, registry: &Registry) -> Flood {
    let settings = flood::Settings {
        mode: match config.mode {
            config::FloodMode::Enforce => flood::Mode::Enforce,
            config::FloodMode::Observe => flood::Mode::Observe,
            config::FloodMode::Off => flood::Mode::Off,
        },
        proxies: flood::client::Proxies {
            trusted: config.trusted_proxies.clone(),
            ipv6_prefix: config.ipv6_prefix,
        },
        exempt: config.exempt.clone(),
        limits: flood::table::Limits {
            outstanding_max: config.outstanding_max,
            burst: config.burst,
            refill: config.refill,
            cutoff_after: config.cutoff_after,
            cutoff_window: config.cutoff_window,
            cutoff_for: config.cutoff_for,
            addresses_max: config.addresses_max,
        },
    };
    Flood::new(settings, registry.register(flood::Metrics::register))
}

/// Both listeners' routes: customers, staff.
fn apis(desks: &Desks, readiness: &Readiness, scrape: Scrape) -> [Api; 2] {
    let orders = orders::routes::Desk {
        orders: desks.orders.clone(),
        flood: desks.flood.clone(),
        limits: desks.limits,
    };
    let deliveries = deliveries::routes::Desk::new(desks.deliveries.clone(), desks.limits);
    let packages = packages::routes::Desk::new(desks.packages.clone(), desks.limits);
    let mut customers = Api::new(
        "Odyssey: customers",
        "The public side: orders are placed and held until they are ready, packages are sent.",
    );
    if desks.deliveries_for_customers {
        customers = customers.routes(deliveries::routes::customer_routes(&deliveries));
    }
    let staff = Api::new(
        "Odyssey: staff",
        "The inner side: baristas, drones and operators. Not for the public network.",
    );
    [
        customers
            .routes(orders::routes::customer_routes(&orders))
            .routes(packages::routes::customer_routes(&packages))
            .routes(health_routes(readiness.clone())),
        staff
            .routes(orders::routes::staff_routes(&orders))
            .routes(deliveries::routes::staff_routes(&deliveries))
            .routes(packages::routes::staff_routes(&packages))
            .routes(flood::routes::staff_routes(&desks.flood))
            .routes(health_routes(readiness.clone()))
            .routes([metrics_route(scrape)]),
    ]
}

fn registry() -> anyhow::Result<Registry> {
    let buckets: &[f64] = &orders::metrics::BUCKETS_SECONDS;
    Registry::new(&[
        (orders::metrics::WAIT_SECONDS, buckets),
        (orders::metrics::BREW_SECONDS, buckets),
        (
            sqlite::metrics::OPERATIONS_PER_COMMIT,
            &sqlite::metrics::BUCKETS_OPERATIONS,
        ),
        (
            sqlite::metrics::COMMIT_SECONDS,
            &sqlite::metrics::BUCKETS_SECONDS,
        ),
    ])
    .context("cannot set up the metrics")
}

fn scrape(
    registry: &Registry,
    desks: &Desks,
    storage: &Storage,
    [customers, staff]: [&Seats; 2],
) -> Scrape {
    const OPEN: &str = "odyssey_connections";
    const MOST: &str = "odyssey_connections_max";
    let doors = registry.register(|| {
        describe_gauge!(OPEN, "Open connections");
        describe_gauge!(MOST, "Connections that may be open");
        describe_gauge!("odyssey_build_info", "Always 1; the labels tell what runs");
        gauge!("odyssey_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1);
        [("customers", customers), ("staff", staff)].map(|(listener, seats)| {
            gauge!(MOST, "listener" => listener).set(count(seats.max()));
            (gauge!(OPEN, "listener" => listener), seats.clone())
        })
    });
    let desks = desks.clone();
    let databases = storage.databases();
    Scrape::new(registry.clone(), move || {
        desks.orders.show_figures();
        desks.flood.show_figures();
        for database in &databases {
            database.show_figures();
        }
        for (open, seats) in &doors {
            open.set(count(seats.taken()));
        }
    })
}

fn count(connections: usize) -> f64 {
    u32::try_from(connections).map_or(f64::INFINITY, f64::from)
}

/// Connections for customers and staff, within the limit of open files. The staff's are set apart: without baristas no
/// customer is ever served.
fn seats(config: &Config, open_files: u64) -> anyhow::Result<[Seats; 2]> {
    let usable = open_files.saturating_sub(FILES_RESERVED).max(2);
    let staff = match config.staff.connections_max {
        Count::Auto => STAFF_CONNECTIONS.min(usable / 4).max(1),
        Count::Exactly(count) => count as u64,
    };
    let customers = match config.customers.connections_max {
        Count::Auto => usable.saturating_sub(staff).max(1),
        Count::Exactly(count) => count as u64,
    };
    if staff.saturating_add(customers) > usable {
        bail!(
            "configuration keys `customers.connections_max` and `staff.connections_max`: {customers} and {staff} \
             connections need more than the {open_files} files this process may open (ulimit -n), {FILES_RESERVED} of \
             which are set apart"
        );
    }
    Ok([customers, staff].map(|seats| Seats::new(usize::try_from(seats).unwrap_or(usize::MAX))))
}

impl Door {
    fn open(
        name: &'static str,
        listener: &config::Listener,
        seats: Seats,
        edge: Edge,
        http: &config::Http,
    ) -> anyhow::Result<Self> {
        let key = format!("{name}.listen");
        let socket = listen(listener.listen, http.backlog).with_context(|| {
            format!(
                "configuration key `{key}`: cannot listen on {}",
                listener.listen
            )
        })?;
        let address = socket.local_addr()?;
        info!(%address, connections_max = seats.max(), h2c = listener.h2c, "the {name} listener is open");
        let settings = Settings {
            name,
            h2c: listener.h2c,
            seats,
            header_timeout: http.header_timeout,
            h2_streams_max: http.h2_streams_max,
        };
        let stop = Stop::default();
        Ok(Self {
            address,
            server: Server::new(socket, edge, settings, stop.clone()),
            stop,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_stay_below_the_limit_of_open_files() {
        let mut config = Config::load(None).unwrap();
        for (open_files, customers, staff) in
            [(20_000, 18_744, 1000), (1024, 576, 192), (100, 1, 1)]
        {
            let [c, s] = seats(&config, open_files).unwrap();
            assert_eq!((c.max(), s.max()), (customers, staff), "{open_files}");
        }
        config.customers.connections_max = Count::Exactly(900);
        assert!(seats(&config, 1024).is_err());
        assert!(seats(&config, 2048).is_ok());
    }

    #[test]
    fn each_listener_describes_what_it_serves_and_nothing_else() {
        let config = Config::load(None).unwrap();
        let [customers, staff] = openapi(&config).unwrap();
        let paths = |api: &OpenApi| api.paths.paths.keys().cloned().collect::<Vec<_>>();
        let health = ["/health", "/healthz"];
        assert_eq!(
            paths(&customers),
            [
                &health[..],
                &[
                    "/order/",
                    "/orders/{order_id}",
                    "/packages",
                    "/packages/{package_id}",
                    "/preferences",
                    "/preferences/{recipient_id}",
                    "/readyz",
                    "/statistics",
                ]
            ]
            .concat()
        );
        assert_eq!(
            paths(&staff),
            [
                &[
                    "/counts",
                    "/deliveries",
                    "/deliveries/{delivery_id}",
                    "/deliveries/{delivery_id}/events",
                    "/deliveries/{delivery_id}/events/{sequence}",
                    "/extend/",
                    "/finish/",
                    "/flood",
                    "/flood/{address}",
                ],
                &health[..],
                &["/metrics", "/readyz", "/release/", "/start/", "/statistics"]
            ]
            .concat()
        );
    }
}
