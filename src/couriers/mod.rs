//! Couriers: assigns every order to a courier, and loses no event.
//!
//! # The promise
//! An order goes to the available courier of its zone who was assigned the fewest orders so far. Without one it is parked, and
//! assigned as soon as a courier is available. Redelivered events change nothing: an order stays with its courier.
//! Every event has an outcome; the log stores each event with it.
//!
//! # The words
//! - **event**: a report about a courier (name, zone, availability) or an order.
//! - **zone**: N, S, E or W.
//! - **count**: how many orders a courier was assigned so far. It follows the courier to another zone.
//! - **parked**: without a courier, waiting for one. The parked orders of a zone are assigned by `added_at`.
//! - **outcome**: the result of an event: assigned, parked, updated, duplicate.
//! - **event log**: every event with its outcome, in the order in which they were applied. Replaying it into an empty store
//!   reproduces the state ([`replay`]).
//! - **outbox**: assignments that are not published yet, if they are to be.
//! - **replicated**: assignments that another process decided.
//!
//! ```text
//!   event -> one transaction: decision (`dispatch`), courier's count, order, log entry, outbox -> outcome
//! ```
//!
//! # Modules
//! The usual ones, and [`dispatch`], the rule; [`reading`], which parses events; [`replay`], which replays the log; [`topic`], the
//! port to which events are published; and [`queues`] (feature `aws`), which receives events and publishes assignments by SNS
//! and SQS.
//!
//! # Deliberately absent
//! - Taking an order from a courier: an assignment stays, also when the courier is no longer available.
//! - Finishing an order: there is no such event. Counts only grow.

pub mod config;
pub mod dispatch;
pub mod error;
pub mod metrics;
pub mod model;
#[cfg(feature = "aws")]
pub mod queues;
pub mod reading;
#[cfg(feature = "redis")]
pub mod redis;
pub mod replay;
pub mod routes;
pub mod service;
pub mod sqlite;
pub mod store;
pub mod topic;

pub use config::Config;
pub use metrics::Metrics;
pub use service::Couriers;
