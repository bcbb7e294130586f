//! Odyssey takes an order at the counter, holds the customer's request until the order is ready, and sees it to the
//! doorstep.
//!
//! Modules, from the outside in:
//! - [`app`]: the composition root; the only module that depends on all others.
//! - [`config`], [`telemetry`], [`shutdown`], [`notify`]: start, logs and metrics, shutdown, service manager.
//! - [`cli`]: the command line; every command except the server itself.
//! - [`version`]: which build this is.
//! - [`access`]: tokens, identities and TLS.
//! - [`flood`]: admission by client address.
//! - [`http`]: what both listeners share.
//! - [`values`]: JSON, timestamps and ids, the same for every desk; pure.
//! - [`storage`]: durable storage and its engines.
//! - The desks: [`orders`], the order line; [`deliveries`], drone deliveries; [`packages`], sending packages;
//!   [`assignments`], packages assigned to drivers; [`couriers`], orders assigned to couriers. Every desk has the same
//!   layout.
//!
//! `ARCHITECTURE.md` describes the design.

pub mod access;
pub mod app;
pub mod assignments;
pub mod cli;
pub mod config;
pub mod couriers;
pub mod deliveries;
pub mod flood;
pub mod http;
pub mod notify;
pub mod orders;
pub mod overview;
pub mod packages;
pub mod shutdown;
pub mod storage;
pub mod telemetry;
pub mod values;
pub mod version;
