//! Builds the desks from their stores and configuration, and the routes of each listener.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use super::access::securities;
use super::check::{Checks, check_routes};
use super::storage::Stores;
use crate::access::config::{CustomersAuth, StaffAuth};
use crate::assignments::{self, Assignments};
use crate::config::Config;
use crate::couriers::{self, Couriers};
use crate::deliveries::{self, Deliveries};
use crate::flood::routes::limited;
use crate::flood::{self, Flood};
use crate::http::Api;
use crate::http::body::BodyLimits;
use crate::http::build::{Build, build_routes};
use crate::http::config::{BoardKind, Pages};
use crate::http::engines::{Engine, Engines, engine_routes};
use crate::http::feed::Feeds;
use crate::http::index::{Index, Page, index_routes};
use crate::http::login::{Login, login_routes};
use crate::http::pages::{console_routes, operator_page, order_page};
use crate::http::recent::{Problems, problem_routes};
use crate::http::status::{Readiness, Scrape, health_routes, metrics_routes};
use crate::orders::routes::{CustomersFastPath, StaffFastPath};
use crate::orders::screens::Screens;
use crate::orders::shared::Shared;
use crate::orders::store::ServerId;
use crate::orders::{self, Orders};
use crate::overview::service::Sources;
use crate::overview::{self, Overview};
use crate::packages::{self, Packages};
use crate::storage::FreeSpace;
use crate::telemetry::Registry;

#[derive(Debug, Clone)]
pub(super) struct Desks {
    pub(super) orders: Orders,
    /// Default `wait` of `/start/`.
    pub(super) start_wait: Duration,
    pub(super) details_max_bytes: usize,
    pub(super) keep_max: Duration,
    pub(super) pages: Pages,
    pub(super) deliveries: Deliveries,
    pub(super) packages: Packages,
    pub(super) assignments: Assignments,
    pub(super) couriers: Couriers,
    pub(super) flood: Flood,
    /// Writes of the public need free space.
    pub(super) space: FreeSpace,
    /// Package ids are the sender's own.
    pub(super) by_sender: bool,
    pub(super) limits: BodyLimits,
    pub(super) manifest_limits: BodyLimits,
    pub(super) events_limits: BodyLimits,
}

impl Desks {
    pub(super) fn new(
        config: &Config,
        stores: Stores,
        types: Arc<packages::model::Types>,
        connections_max: usize,
        registry: &Registry,
    ) -> Self {
        let limits = config.http.body_limits();
        let (orders, flood) = orders_and_flood(config, stores.line, connections_max, registry);
        let deliveries = Deliveries::new(
            stores.deliveries,
            config.deliveries.stale_after,
            registry.register(deliveries::Metrics::register),
        );
        let packages = Packages::new(
            stores.packages,
            types,
            config.packages.future_max,
            stores.space.clone(),
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
            start_wait: config.orders.start_wait,
            details_max_bytes: config.orders.details_max_bytes,
            keep_max: config.orders.keep_max,
            pages: config.pages.clone(),
            deliveries,
            packages,
            assignments,
            couriers: Couriers::new(
                stores.couriers,
                registry.register(couriers::Metrics::register),
            ),
            flood,
            space: stores.space,
            by_sender: config.customers.auth == CustomersAuth::Tokens,
            limits,
            events_limits: BodyLimits {
                max_bytes: config.couriers.events_max_bytes,
                ..limits
            },
            manifest_limits: BodyLimits {
                max_bytes: config.assignments.manifest_max_bytes,
                timeout: config.assignments.manifest_timeout,
            },
        }
    }

    pub(super) async fn load_manifest(&self, config: &Config) -> anyhow::Result<()> {
        let path = &config.assignments.manifest;
        if path.as_os_str().is_empty() {
            return Ok(());
        }
        let load = async {
            let mut file = std::fs::File::open(path)?;
            let (date, manifest) = assignments::routes::read_manifest(&mut file)?;
            let date = date.unwrap_or_else(assignments::service::today);
            self.assignments.store_manifest(date, manifest).await?;
            anyhow::Ok(())
        };
        let of = || {
            let path = path.display();
            format!("configuration key `assignments.manifest`: cannot load `{path}`")
        };
        load.await.with_context(of)
    }
}

/// The order line, and flood control, which cancels the waiting orders of a blocked client. `store`: of a shared line.
fn orders_and_flood(
    config: &Config,
    store: Option<Arc<dyn orders::store::Store>>,
    connections_max: usize,
    registry: &Registry,
) -> (Orders, Flood) {
    let rules = config.orders.clone();
    let limits =
        flood::table::Limits::new(config.flood.clone(), rules.waiting_max, connections_max);
    let line_metrics = registry.register(orders::Metrics::register);
    let orders = match store {
        None => Orders::in_memory(rules, line_metrics),
        Some(store) => Orders::Shared(Shared::new(store, random(), &rules, line_metrics)),
    };
    let metrics = registry.register(flood::Metrics::register);
    // A blocked client's orders since its first refusal are cancelled.
    let line = orders.clone();
    let on_block = move |address, since, time| line.purge(address, since, time);
    let flood = Flood::new(limits, metrics, on_block);
    if let Orders::Shared(line) = &orders {
        // What one server blocks, all do.
        let table = flood.clone();
        line.when_blocked(move |address, blocked| table.follow(address, blocked));
        let line = line.clone();
        flood.when_unblocked(move |address| line.unblock(address));
    }
    (orders, flood)
}

fn random() -> ServerId {
    ServerId(uuid::Uuid::new_v4().as_u64_pair().0)
}

/// What operators see of the server itself.
pub(super) struct Observed {
    pub(super) problems: Problems,
    pub(super) engines: Engines,
    pub(super) build: Arc<Build>,
    /// From when on a waiting customer is late, and very late.
    pub(super) late: [Duration; 2],
}

impl Observed {
    pub(super) fn new(config: &Config, engines: Vec<Engine>) -> Self {
        let pages = &config.pages;
        Self {
            problems: Problems::new(pages.problems_max),
            engines: Engines::new(engines),
            build: Build::new(config.not_default(), pages),
            late: [pages.late_after, pages.very_late_after],
        }
    }
}

/// The states of all routes.
pub(super) struct States {
    /// Of customers and staff.
    orders: [orders::routes::Desk; 2],
    /// At the customers' listener.
    public_deliveries: deliveries::routes::Desk,
    deliveries: deliveries::routes::Desk,
    packages: packages::routes::Desk,
    assignments: assignments::routes::Desk,
    couriers: couriers::routes::Desk,
    flood: Flood,
    /// Of customers and staff.
    readiness: [Readiness; 2],
    scrape: Scrape,
    checks: Checks,
    /// At the staff's listener.
    login: Login,
    observed: Observed,
    overview: overview::routes::Desk,
}

impl States {
    pub(super) fn new(
        desks: &Desks,
        feeds: [Feeds; 2],
        readiness: [Readiness; 2],
        scrape: Scrape,
        checks: Checks,
        login: Login,
        observed: Observed,
    ) -> Self {
        let limits = desks.limits;
        let screens = Screens::new(desks.orders.clone());
        let overview = overview::routes::Desk {
            feeds: feeds[1].clone(),
            overview: Overview::new(Sources {
                orders: desks.orders.clone(),
                screens: screens.clone(),
                flood: desks.flood.clone(),
                deliveries: desks.deliveries.clone(),
                packages: desks.packages.clone(),
                assignments: desks.assignments.clone(),
                couriers: desks.couriers.clone(),
                problems: observed.problems.clone(),
                engines: observed.engines.clone(),
                late: observed.late,
            }),
        };
        let public = desks.deliveries.clone().public(desks.space.clone());
        Self {
            orders: feeds.map(|feeds| orders::routes::Desk {
                orders: desks.orders.clone(),
                flood: desks.flood.clone(),
                limits,
                start_wait: desks.start_wait,
                details_max_bytes: desks.details_max_bytes,
                keep_max: desks.keep_max,
                screens: screens.clone(),
                pages: desks.pages.clone(),
                feeds,
            }),
            public_deliveries: deliveries::routes::Desk::new(public, limits),
            deliveries: deliveries::routes::Desk::new(desks.deliveries.clone(), limits),
            packages: packages::routes::Desk::new(desks.packages.clone(), limits, desks.by_sender),
            assignments: assignments::routes::Desk::new(
                desks.assignments.clone(),
                limits,
                desks.manifest_limits,
            ),
            couriers: couriers::routes::Desk {
                couriers: desks.couriers.clone(),
                limits: desks.events_limits,
            },
            flood: desks.flood.clone(),
            readiness,
            scrape,
            checks,
            login,
            observed,
            overview,
        }
    }
}

/// The routes of customers and staff; only described without `states`.
pub(super) fn apis(config: &Config, states: Option<&States>) -> [Api; 2] {
    let public =
        "The public API: orders are placed and held until they are ready, packages are sent.";
    let inner = "The internal API: baristas, drones and operators. Not for the public network.";
    let flood = states.map(|of| &of.flood);
    let [public_security, inner_security] = securities(config);
    let mut customers = Api::new("Odyssey: customers", public, public_security);
    if config.customers.deliveries {
        let routes = limited(deliveries::routes::customer_routes(), flood);
        customers = customers.routes(routes, states.map(|of| &of.public_deliveries));
    }
    let packages = limited(packages::routes::customer_routes(), flood);
    let pages = [order_page as Page, operator_page];
    let [order_page, operators_page] = pages.map(|page| config.pages.enabled.then_some(page));
    let console = config.pages.enabled.then(console_routes);
    let console = console.into_iter().flatten();
    let [of_customers, of_staff] = [
        Index::new("customers", public, &customers_links(config), order_page),
        Index::new("staff", inner, &staff_links(config), operators_page),
    ];
    let [orders, staffs_orders] = [0, 1].map(|at| states.map(|of| &of.orders[at]));
    let observed = states.map(|of| &of.observed);
    let of_customers_fast = orders.map(|desk| Arc::new(CustomersFastPath(desk.clone())) as _);
    let of_staff_fast = staffs_orders.map(|desk| Arc::new(StaffFastPath(desk.clone())) as _);
    [
        customers
            .routes(orders::routes::customer_routes(), orders)
            .with_fast_path(of_customers_fast)
            .routes(packages, states.map(|of| &of.packages))
            .routes(index_routes(), Some(&of_customers))
            .routes(health_routes(), states.map(|of| &of.readiness[0])),
        Api::new("Odyssey: staff", inner, inner_security)
            .routes(orders::routes::staff_routes(), staffs_orders)
            .with_fast_path(of_staff_fast)
            .routes(
                deliveries::routes::staff_routes(),
                states.map(|of| &of.deliveries),
            )
            .routes(
                packages::routes::staff_routes(),
                states.map(|of| &of.packages),
            )
            .routes(
                assignments::routes::staff_routes(),
                states.map(|of| &of.assignments),
            )
            .routes(
                couriers::routes::staff_routes(),
                states.map(|of| &of.couriers),
            )
            .routes(flood::routes::staff_routes(), flood)
            .routes(index_routes(), Some(&of_staff))
            .routes(console, Some(&()))
            .routes(health_routes(), states.map(|of| &of.readiness[1]))
            .routes(metrics_routes(), states.map(|of| &of.scrape))
            .routes(check_routes(), states.map(|of| &of.checks))
            .routes(login_routes(), states.map(|of| &of.login))
            .routes(problem_routes(), observed.map(|of| &of.problems))
            .routes(engine_routes(), observed.map(|of| &of.engines))
            .routes(build_routes(), observed.map(|of| &of.build))
            .routes(
                overview::routes::staff_routes(),
                states.map(|of| &of.overview),
            ),
    ]
}

/// Paths of a listener that not every listener has, and their titles.
type Links = Vec<(&'static str, &'static str)>;

fn customers_links(config: &Config) -> Links {
    let has_board = config.pages.board != BoardKind::Off;
    let links = has_board.then_some((
        "/board",
        "The board: what is ready, in the making, and next",
    ));
    links.into_iter().collect()
}

fn staff_links(config: &Config) -> Links {
    let mut links = vec![("/metrics", "Metrics, for Prometheus")];
    if config.pages.enabled {
        links.push(("/barista", "The baristas' console"));
    }
    if config.staff.auth == StaffAuth::Tokens {
        links.push(("/login", "Log in or out"));
    }
    links
}

pub(super) fn package_types(config: &Config) -> anyhow::Result<Arc<packages::model::Types>> {
    let packages::Config { types, opt_in, .. } = &config.packages;
    packages::model::Types::new(types, opt_in)
        .map(Arc::new)
        .map_err(|detail| {
            anyhow::anyhow!("configuration keys `packages.types`, `packages.opt_in`: {detail}")
        })
}

#[cfg(test)]
mod fairness;
