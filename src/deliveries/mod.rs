//! Drone deliveries: a drone reports what happens on its mission, the staff sees which missions are under way.
//!
//! # The promise
//! An event that was answered 201 is kept: whatever happens to the process, it is there when it comes back, in its order.
//! The counts always agree with the events. The desk runs for ever without growing.
//!
//! # The words
//! - **delivery**: a mission, named by its drone: 1 to 128 characters of `[A-Za-z0-9._~-]`.
//! - **event**: one report, of one of five types. Its **sequence** is its place in the delivery, from 1.
//! - **state**: the type of the latest event. `CRASHED` and `PARCEL_DELIVERED` are **final**.
//! - **ongoing**: not in a final state. **stale**: ongoing, and silent for longer than `deliveries.stale_after`.
//! - **key**: an `Idempotency-Key` or `event_id`, by which an event that is sent again is recognised within its delivery.
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
//! # What is kept
//! The last `deliveries.kept` deliveries by their first event, and every ongoing one however old. A finished one beyond
//! that goes when the next delivery begins. The total since the beginning stays.
//!
//! # Bounds
//! At most `deliveries.ongoing_max` are ongoing; a further one is told to come back. A delivery has at most
//! `deliveries.events_max` events; beyond that only a final one is accepted.
//!
//! # The rooms
//! The usual ones, [`metrics`], and [`rules`], which decide on an event: a store asks them inside the transaction that keeps
//! it.
//!
//! # Deliberately absent
//! - Knowing a delivery again after it is no longer kept: its id may then begin anew. Drones choose ids that are unique.
//! - Correcting what was reported: events are only ever added.

pub mod error;
pub mod metrics;
pub mod model;
pub mod routes;
pub mod rules;
pub mod service;
pub mod sqlite;
pub mod store;

pub use metrics::Metrics;
pub use service::Deliveries;
