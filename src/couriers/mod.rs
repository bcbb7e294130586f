//! Couriers: every order finds its courier, and nothing that is told is lost.
//!
//! # The promise
//! An order goes to the available courier of its zone who was given the fewest orders ever. If nobody is available, it waits,
//! and is given as soon as somebody is. Whatever is told again changes nothing: an order stays with whom it was given to.
//! No event is a failure: each comes to something, and is in the log with what it came to.
//!
//! # The words
//! - **event**: what is told of a courier (who they are, where they ride, whether they are available) or of an order.
//! - **zone**: N, S, E or W.
//! - **count**: how many orders a courier was ever given. It goes with them to another zone.
//! - **parked**: without a courier, waiting for one. The parked of a zone are given by the time at which they were added.
//! - **outcome**: what an event came to: assigned, parked, updated, duplicate.
//! - **event log**: every event with its outcome, in the order in which they were applied. Told again from its beginning,
//!   to a new store, it comes to the same ([`replay`]).
//! - **outbox**: assignments that others are still to be told of, if there are others.
//! - **learned**: assignments that another process decided.
//!
//! ```text
//!   event -> one transaction: decision (`dispatch`), courier's count, order, place in the log, outbox -> outcome
//! ```
//!
//! # The rooms
//! The usual ones, [`metrics`], [`dispatch`], which decides, [`reading`], which understands what is told, [`replay`], which
//! tells the log again, [`topic`], through which others are told of events, and [`queues`] (feature `aws`), through which
//! events come, and assignments go, by SNS and SQS.
//!
//! # Deliberately absent
//! - Taking an order from a courier: those given stay given, also when the courier is no longer available.
//! - Finishing an order: nobody tells of it. Counts only grow.

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

pub use metrics::Metrics;
pub use service::Couriers;
