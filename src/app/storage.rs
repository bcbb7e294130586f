//! The data directory, and each desk's store.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tracing::info;

use super::engines::Engines;
use crate::assignments::oplog::config::Destination;
use crate::assignments::oplog::{self, Oplog};
use crate::config::Config;
use crate::couriers::config::Role;
use crate::http::engines::Load;
use crate::http::status::Component;
use crate::storage::FreeSpace;
use crate::storage::directory::DataDirectory;
use crate::storage::preflight::{Engine, Findings};
use crate::storage::sqlite::{self, Database};
use crate::telemetry::Registry;
use crate::{assignments, couriers, deliveries, http, orders, packages};

/// A desk's database in the data directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Desk {
    pub(super) file: &'static str,
    pub(super) application: i32,
    pub(super) migrations: &'static [&'static str],
    /// See [`sqlite::Invariant`].
    pub(super) invariants: &'static [sqlite::Invariant],
}

impl Desk {
    pub(super) fn settings(&self, config: &Config, path: PathBuf) -> sqlite::Settings {
        sqlite::Settings {
            path,
            application: self.application,
            pinned: Vec::new(),
            migrations: self.migrations,
            queue_max: config.storage.queue_max,
            batch_max: config.storage.batch_max,
            readers: config.storage.readers,
        }
    }
}

const DELIVERIES: Desk = Desk {
    file: "deliveries.db",
    application: deliveries::sqlite::APPLICATION,
    migrations: deliveries::sqlite::MIGRATIONS,
    invariants: deliveries::sqlite::INVARIANTS,
};
pub(super) const PACKAGES: Desk = Desk {
    file: "packages.db",
    application: packages::sqlite::APPLICATION,
    migrations: packages::sqlite::MIGRATIONS,
    invariants: packages::sqlite::INVARIANTS,
};
const ASSIGNMENTS: Desk = Desk {
    file: "assignments.db",
    application: assignments::sqlite::APPLICATION,
    migrations: assignments::sqlite::MIGRATIONS,
    invariants: &[],
};
pub(super) const COURIERS: Desk = Desk {
    file: "couriers.db",
    application: couriers::sqlite::APPLICATION,
    migrations: couriers::sqlite::MIGRATIONS,
    invariants: &[],
};
pub(super) const DESKS: [Desk; 4] = [DELIVERIES, PACKAGES, ASSIGNMENTS, COURIERS];
/// The operational log, below the data directory.
const OPLOG_DIRECTORY: &str = "oplog";
/// Time to flush the operational log at shutdown.
const OPLOG_PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Storage {
    pub(super) deliveries: Database,
    pub(super) packages: Database,
    /// None with `DynamoDB`.
    pub(super) assignments: Option<Database>,
    /// None with Redis.
    pub(super) couriers: Option<Database>,
    pub(super) oplog: Oplog,
    /// Free space of the data directory's file system.
    pub(super) space: FreeSpace,
    /// Locked until the databases are closed.
    _directory: DataDirectory,
}

/// Each desk's store.
pub(super) struct Stores {
    pub(super) deliveries: Arc<dyn deliveries::store::Store>,
    pub(super) packages: Arc<dyn packages::store::Store>,
    pub(super) assignments: Arc<dyn assignments::store::Store>,
    pub(super) couriers: Arc<dyn couriers::store::Store>,
    /// None if it is in memory.
    pub(super) line: Option<Arc<dyn orders::store::Store>>,
    pub(super) oplog: Oplog,
    /// Writes of the public need this.
    pub(super) space: FreeSpace,
}

impl Storage {
    pub(super) fn open(
        config: &Config,
        engines: &Engines,
        registry: &Registry,
    ) -> anyhow::Result<Self> {
        let directory = DataDirectory::open(&config.data_dir)?;
        info!(path = %directory.path().display(), "the data directory is locked");
        let space = FreeSpace::new(directory.path(), config.storage.free_min);
        space.measure();
        let database = |desk: &Desk| {
            let settings = sqlite::Settings {
                pinned: vec![directory.lock_place().clone()],
                ..desk.settings(config, directory.file(desk.file))
            };
            let metrics = registry.register(|| sqlite::Metrics::register(&settings.path));
            Database::open(settings, metrics)
        };
        let deliveries = database(&DELIVERIES)?;
        let packages = database(&PACKAGES)?;
        let assignments = match config.assignments.store {
            assignments::config::StoreKind::DynamoDb => None,
            assignments::config::StoreKind::Sqlite => Some(database(&ASSIGNMENTS)?),
        };
        let couriers = match config.couriers.store {
            couriers::config::StoreKind::Redis => None,
            couriers::config::StoreKind::Sqlite => Some(database(&COURIERS)?),
        };
        let oplog = match engines.sink(config) {
            None => Oplog::disabled(),
            Some(sink) => {
                let directory = directory.file(OPLOG_DIRECTORY);
                let metrics = registry.register(oplog::Metrics::register);
                let opened = Oplog::open(directory, &sink, config.oplog.clone(), metrics);
                opened.context("cannot open the operational log")?
            }
        };
        Ok(Self {
            deliveries,
            packages,
            assignments,
            couriers,
            oplog,
            space,
            _directory: directory,
        })
    }

    /// The desks with storage, and the operational log if it is on, for `/readyz`.
    pub(super) fn components(
        &self,
        config: &Config,
        stores: &Stores,
        findings: &Findings,
    ) -> Vec<Component> {
        let (deliveries, packages) = (self.deliveries.clone(), self.packages.clone());
        let space = self.space.clone();
        let assignments = Arc::clone(&stores.assignments);
        let couriers = Arc::clone(&stores.couriers);
        let oplog = self.oplog.clone();
        let oplog = oplog.state().map(|opened| {
            Component::new("oplog", move || {
                oplog.state().unwrap_or_else(|| opened.clone())
            })
            .on(&[Engine::S3], findings)
        });
        let couriers = Component::new("couriers", move || couriers.state());
        let couriers = match config.couriers.store {
            couriers::config::StoreKind::Sqlite => couriers,
            couriers::config::StoreKind::Redis => couriers.on(&[Engine::Redis], findings),
        };
        let mut components = vec![
            Component::new("deliveries", move || deliveries.state()),
            // Only the public writes there.
            Component::new("packages", move || {
                let (state, space) = (packages.state(), space.state());
                if state.down.is_none() && space.down.is_some() {
                    return space;
                }
                state
            }),
            Component::new("assignments", move || assignments.state())
                .on(&[Engine::DynamoDb], findings),
            couriers,
        ];
        components.extend(oplog);
        components
    }

    /// The storage engines in use, except those of the line and of messages.
    pub(super) fn engines(
        &self,
        config: &Config,
        stores: &Stores,
        findings: &Findings,
    ) -> Vec<http::engines::Engine> {
        let databases = [
            (&DELIVERIES, Some(&self.deliveries)),
            (&PACKAGES, Some(&self.packages)),
            (&ASSIGNMENTS, self.assignments.as_ref()),
            (&COURIERS, self.couriers.as_ref()),
        ];
        let databases = databases
            .into_iter()
            .filter_map(|(desk, database)| Some((desk, database?.clone())));
        let mut engines: Vec<_> = databases
            .map(|(desk, database)| {
                let seen = database.clone();
                let component = Component::new(desk.file, move || database.state());
                http::engines::Engine::new(component).with_load(move || Load {
                    waiting: seen.waiting(),
                    commit_p99: seen.commit_p99(),
                })
            })
            .collect();
        let mut add = |component: Component, on: &'static [Engine]| {
            engines.push(http::engines::Engine::new(component.on(on, findings)));
        };
        if self.assignments.is_none() {
            let store = Arc::clone(&stores.assignments);
            add(
                Component::new("dynamodb", move || store.state()),
                &[Engine::DynamoDb],
            );
        }
        if self.couriers.is_none() {
            let store = Arc::clone(&stores.couriers);
            let component = Component::new("redis (couriers)", move || store.state());
            add(component, &[Engine::Redis]);
        }
        let oplog = self.oplog.clone();
        if let Some(opened) = oplog.state() {
            let (name, on): (_, &[Engine]) = match config.oplog.sink {
                Destination::S3 => ("s3", &[Engine::S3]),
                Destination::Files | Destination::None => ("oplog", &[]),
            };
            let look = move || oplog.state().unwrap_or_else(|| opened.clone());
            add(Component::new(name, look), on);
        }
        engines
    }

    pub(super) fn databases(&self) -> Vec<Database> {
        let mut databases = vec![self.deliveries.clone(), self.packages.clone()];
        databases.extend(self.assignments.clone());
        databases.extend(self.couriers.clone());
        databases
    }

    pub(super) fn assignments(
        &self,
        config: &Config,
        engines: &Engines,
    ) -> Arc<dyn assignments::store::Store> {
        if let Some(database) = &self.assignments {
            return Arc::new(assignments::sqlite::Sqlite::new(database.clone()));
        }
        #[cfg(feature = "aws")]
        if let Some(aws) = &engines.aws {
            let tables = (&config.assignments).into();
            let patience = assignments::dynamodb::Patience::default();
            return Arc::new(assignments::dynamodb::Dynamodb::new(aws, tables, patience));
        }
        let _ = (config, engines);
        unreachable!(
            "the store is DynamoDB: `Engines` has a client, or the configuration is refused"
        )
    }

    pub(super) fn couriers(
        &self,
        config: &Config,
        engines: &Engines,
    ) -> Arc<dyn couriers::store::Store> {
        let publishes = config.couriers.has(Role::Dispatcher);
        if let Some(database) = self.couriers.clone() {
            let join = config.couriers.join;
            return Arc::new(couriers::sqlite::Sqlite::new(database, join, publishes));
        }
        #[cfg(feature = "redis")]
        if let Some(redis) = &engines.redis {
            return couriers_in_redis(config, redis.clone(), publishes);
        }
        let _ = (engines, publishes);
        unreachable!("the store is Redis: `Engines` has a client, or the configuration is refused")
    }

    pub(super) async fn close(self) {
        self.oplog.close(OPLOG_PATIENCE).await;
        for database in self.databases() {
            database.close().await;
        }
    }

    pub(super) fn packages(
        &self,
        config: &Config,
        types: &Arc<packages::model::Types>,
    ) -> Arc<dyn packages::store::Store> {
        Arc::new(packages::sqlite::Sqlite::new(
            self.packages.clone(),
            Arc::clone(types),
            config.packages.remember,
        ))
    }

    pub(super) fn deliveries(&self, config: &Config) -> Arc<dyn deliveries::store::Store> {
        Arc::new(deliveries::sqlite::Sqlite::new(
            self.deliveries.clone(),
            config.deliveries.clone(),
        ))
    }
}

#[cfg(feature = "redis")]
pub(super) fn couriers_in_redis(
    config: &Config,
    redis: crate::storage::redis::Redis,
    publishes: bool,
) -> Arc<dyn couriers::store::Store> {
    let (join, queue_max) = (config.couriers.join, config.storage.queue_max);
    Arc::new(couriers::redis::Redis::new(
        redis, join, publishes, queue_max,
    ))
}
