//! The composition root: configuration becomes adapters, adapters become desks, desks become two routers.
//! The only file that sees everything; reading it tells what the process is made of.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use metrics::{describe_gauge, gauge};
use serde::Serialize;
use tracing::info;
use utoipa::openapi::OpenApi;

use crate::assignments::oplog::{self, Oplog};
use crate::assignments::{self, Assignments};
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
#[cfg(feature = "aws")]
use crate::storage::aws::Aws;
use crate::storage::directory::DataDirectory;
use crate::storage::sqlite::{self, Database};
use crate::telemetry::Registry;

/// The databases' files in the data directory.
const DELIVERIES_FILE: &str = "deliveries.db";
const PACKAGES_FILE: &str = "packages.db";
const ASSIGNMENTS_FILE: &str = "assignments.db";
/// The operational log's directory there.
const OPLOG_DIRECTORY: &str = "oplog";
/// How long the operational log may take to leave once everything else has ended.
const OPLOG_PATIENCE: Duration = Duration::from_secs(5);
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
    /// Nothing if they are kept in `DynamoDB`.
    assignments: Option<Database>,
    oplog: Oplog,
    /// Kept until the databases are closed.
    _directory: DataDirectory,
}

/// Where each desk keeps what it keeps.
struct Stores {
    deliveries: Arc<dyn deliveries::store::Store>,
    packages: Arc<dyn packages::store::Store>,
    assignments: Arc<dyn assignments::store::Store>,
    oplog: Oplog,
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
    assignments: Assignments,
    flood: Flood,
    limits: BodyLimits,
    manifest_limits: BodyLimits,
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
    /// If the data directory or an address cannot be had, more connections are configured than the limit of open files
    /// allows, or the manifest that is to be loaded is not acceptable.
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        let registry = registry()?;
        let [customers_seats, staff_seats] = seats(config, raise_open_files())?;
        let types = package_types(config)?;
        let engines = Engines::find(config).await?;
        let storage = Storage::open(config, &engines, &registry)?;
        let stores = Stores {
            deliveries: storage.deliveries(config),
            packages: storage.packages(config, &types),
            assignments: storage.assignments(config, &engines),
            oplog: storage.oplog.clone(),
        };
        let readiness = storage.readiness(&stores);
        let desks = Desks::new(config, stores, types, &registry);
        desks.load_manifest(config).await?;
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
        assignments: Arc::new(assignments::store::Closed),
        oplog: Oplog::nowhere(),
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

/// What is reached over the network.
struct Engines {
    #[cfg(feature = "aws")]
    aws: Option<Aws>,
}

impl Engines {
    #[cfg(not(feature = "aws"))]
    #[expect(clippy::unused_async, reason = "with the feature `aws` it waits")]
    async fn find(_: &Config) -> anyhow::Result<Self> {
        Ok(Self {})
    }

    /// Finds what is configured, and creates what is missing there if that is wanted.
    #[cfg(feature = "aws")]
    async fn find(config: &Config) -> anyhow::Result<Self> {
        let tables = config.assignments.store == config::AssignmentStore::DynamoDb;
        let bucket = config.oplog.sink == config::OplogSink::S3;
        if !(tables || bucket) {
            return Ok(Self { aws: None });
        }
        let aws = Aws::find().await;
        if config.aws.provision && tables {
            let names = Self::tables(config);
            let made = assignments::dynamodb::provision(&aws.dynamodb(), &names).await;
            made.context("cannot create the tables")?;
        }
        if config.aws.provision && bucket {
            let made = oplog::provision(&aws.s3(), &config.oplog.bucket).await;
            made.context("cannot create the bucket")?;
        }
        Ok(Self { aws: Some(aws) })
    }

    #[cfg(feature = "aws")]
    fn tables(config: &Config) -> assignments::dynamodb::Tables {
        assignments::dynamodb::Tables {
            assignments: config.assignments.table.clone(),
            packages: config.assignments.packages_table.clone(),
        }
    }

    /// Where the operational log goes; nothing if nowhere.
    #[cfg_attr(
        not(feature = "aws"),
        expect(
            clippy::unused_self,
            reason = "only the bucket is reached over the network"
        )
    )]
    fn sink(&self, config: &Config) -> Option<oplog::Sink> {
        match config.oplog.sink {
            config::OplogSink::None => None,
            config::OplogSink::Files => Some(oplog::Sink::Files),
            #[cfg(not(feature = "aws"))]
            config::OplogSink::S3 => None,
            #[cfg(feature = "aws")]
            config::OplogSink::S3 => self.aws.as_ref().map(|aws| oplog::Sink::S3 {
                client: aws.s3(),
                bucket: config.oplog.bucket.clone(),
                prefix: config.oplog.prefix.clone(),
            }),
        }
    }
}

impl Storage {
    fn open(config: &Config, engines: &Engines, registry: &Registry) -> anyhow::Result<Self> {
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
        let assignments = match config.assignments.store {
            config::AssignmentStore::DynamoDb => None,
            config::AssignmentStore::Sqlite => {
                Some(database(ASSIGNMENTS_FILE, assignments::sqlite::MIGRATIONS)?)
            }
        };
        let oplog = match engines.sink(config) {
            None => Oplog::nowhere(),
            Some(sink) => {
                let settings = oplog_settings(config, sink, directory.file(OPLOG_DIRECTORY));
                let opened = Oplog::open(settings, registry.register(oplog::Metrics::register));
                opened.context("cannot open the operational log")?
            }
        };
        Ok(Self {
            deliveries: database(DELIVERIES_FILE, deliveries::sqlite::MIGRATIONS)?,
            packages: database(PACKAGES_FILE, packages::sqlite::MIGRATIONS)?,
            assignments,
            oplog,
            _directory: directory,
        })
    }

    fn readiness(&self, stores: &Stores) -> Readiness {
        let databases = self.databases();
        let assignments = Arc::clone(&stores.assignments);
        Readiness::new(move || databases.iter().all(Database::is_well) && assignments.is_well())
    }

    fn databases(&self) -> Vec<Database> {
        let mut databases = vec![self.deliveries.clone(), self.packages.clone()];
        databases.extend(self.assignments.clone());
        databases
    }

    fn assignments(
        &self,
        config: &Config,
        engines: &Engines,
    ) -> Arc<dyn assignments::store::Store> {
        if let Some(database) = &self.assignments {
            return Arc::new(assignments::sqlite::Sqlite::new(database.clone()));
        }
        #[cfg(feature = "aws")]
        if let Some(aws) = &engines.aws {
            let tables = Engines::tables(config);
            let patience = assignments::dynamodb::Patience::default();
            return Arc::new(assignments::dynamodb::Dynamodb::new(aws, tables, patience));
        }
        // Not reached: the configuration is refused without the feature.
        let _ = (config, engines);
        Arc::new(assignments::store::Closed)
    }

    async fn close(self) {
        self.oplog.close(OPLOG_PATIENCE).await;
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
        let assignments = Assignments::new(
            stores.assignments,
            stores.oplog,
            registry.register(assignments::Metrics::register),
            config.assignments.strict,
        );
        Self {
            orders,
            deliveries,
            deliveries_for_customers: config.customers.deliveries,
            packages,
            assignments,
            flood,
            limits,
            manifest_limits: BodyLimits {
                max_bytes: config.assignments.manifest_max_bytes,
                timeout: config.assignments.manifest_timeout,
            },
        }
    }

    async fn load_manifest(&self, config: &Config) -> anyhow::Result<()> {
        let path = &config.assignments.manifest;
        if path.as_os_str().is_empty() {
            return Ok(());
        }
        let load = async {
            let mut file = std::fs::File::open(path)?;
            let (date, manifest) = assignments::routes::read_manifest(&mut file)?;
            let date = date.unwrap_or_else(assignments::service::today);
            self.assignments.keep_manifest(date, manifest).await?;
            anyhow::Ok(())
        };
        let of = || {
            let path = path.display();
            format!("configuration key `assignments.manifest`: cannot load `{path}`")
        };
        load.await.with_context(of)
    }
}

fn oplog_settings(config: &Config, sink: oplog::Sink, directory: PathBuf) -> oplog::Settings {
    let config = &config.oplog;
    oplog::Settings {
        directory,
        sink,
        instance: config.instance.clone(),
        file_bytes_max: config.file_max_bytes,
        files_max: config.files_max,
        batch_bytes_max: config.batch_max_bytes,
        batch_age: config.batch_age,
        spool_bytes_max: config.spool_max_bytes,
        waiting_max: config.waiting_max,
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
    let assignments = assignments::routes::Desk {
        assignments: desks.assignments.clone(),
        limits: desks.limits,
        manifest_limits: desks.manifest_limits,
    };
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
            .routes(assignments::routes::staff_routes(&assignments))
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
    let oplog = storage.oplog.clone();
    Scrape::new(registry.clone(), move || {
        desks.orders.show_figures();
        desks.flood.show_figures();
        oplog.show_figures();
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
