//! Odyssey takes an order at the counter, holds the customer's request until the order is ready, and sees it to the
//! doorstep.
//!
//! The map of the crate, from the outside in:
//! - [`app`] puts everything together; the only module that sees everything.
//! - [`config`], [`telemetry`], [`shutdown`], [`notify`]: how the process starts, what it tells, how it ends.
//! - [`cli`]: the command line; every command except the server itself.
//! - [`version`]: which build this is.
//! - [`flood`]: admission by client address; knows no desk.
//! - [`http`]: what both listeners share; knows no desk.
//! - [`values`]: how values are written, at every desk alike; pure, and knows no desk.
//! - [`storage`]: what outlives the process; knows no desk.
//! - The desks: [`orders`], the order line; [`deliveries`], drone deliveries; [`packages`], sending packages; [`assignments`],
//!   the day's packages given to drivers; [`couriers`], orders given to couriers. Every desk has the same rooms; see its module.
//!
//! `ARCHITECTURE.md` describes the design.

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
pub mod packages;
pub mod shutdown;
pub mod storage;
pub mod telemetry;
pub mod values;
pub mod version;
