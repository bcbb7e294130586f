//! Drone deliveries: drones report events of their missions, the staff sees which missions are ongoing.
//!
//! # The promise
//! An event that was answered 201 is durable, and in order. The counts always agree with the events. The database does not grow
//! without bound.
//!
//! # The words
//! - **delivery**: a mission, with an id that its drone chooses: 1 to 128 characters of `[A-Za-z0-9._~-]`.
//! - **event**: one report, of one of five types. Its **sequence** is its place in the delivery, from 1.
//! - **state**: the type of the latest event. `CRASHED` and `PARCEL_DELIVERED` are **final**.
//! - **ongoing**: not in a final state. **stale**: ongoing, and without an event for longer than `deliveries.stale_after`.
//! - **idempotency key**: an `Idempotency-Key` or `event_id`; it identifies a repeated event within its delivery.
//!
//! ```text
//!                              +-------------+
//!                              v             |
//!   PARCEL_COLLECTED  --->  TAKEN_OFF <-> LANDED        in any order, unless deliveries.graph is "strict"
//!                              |  \        /  |
//!                              v   v      v   v
//!                           CRASHED   PARCEL_DELIVERED
//! ```
//!
//! The first event is `PARCEL_COLLECTED`, and only the first; nothing follows a final one.
//!
//! # Retention
//! The last `deliveries.kept` deliveries by their first event, and every ongoing one however old. A finished one beyond that is
//! evicted when the next delivery begins. The total since the beginning stays.
//!
//! # Bounds
//! At most `deliveries.ongoing_max` are ongoing; a further one is answered 503 with `Retry-After`. A delivery has at most
//! `deliveries.events_max` events; beyond that only a final one is accepted.
//!
//! # Modules
//! The usual ones, [`metrics`], and [`rules`], by which a store decides about an event in the transaction that stores it.
//!
//! # Deliberately absent
//! - Recognising an evicted delivery: a new one may have its id. Drones choose unique ids.
//! - Correcting an event: events are only appended.

pub mod config;
pub mod error;
pub mod metrics;
pub mod model;
pub mod routes;
pub mod rules;
pub mod service;
pub mod sqlite;
pub mod store;

pub use config::Config;
pub use metrics::Metrics;
pub use service::Deliveries;
