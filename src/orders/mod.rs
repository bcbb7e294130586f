//! The order line: every customer is held until the coffee is ready.
//!
//! # Guarantees
//! `POST /order/` is answered 200, however long it takes, or its customer has left. Orders are taken oldest first. No order
//! is lost between the line and a barista, and an order has one lease at a time.
//!
//! # Terms
//! - **place**: an order joins the end of the line. **Held**: its request waits for the answer.
//! - **pull**: a barista takes the oldest order, under a **lease**. Leases of an order are numbered: the **attempt**.
//! - **away**: the crew, when no barista has been at work, idle, asking or reporting for a minute.
//! - **idle**: a barista who waits for an order. The longest idle is served first.
//! - **finish**: a barista reports the order ready; every request held for it is answered.
//! - **promise**: a request was answered 202; its order stays in line without an attached request.
//!
//! # States of an order
//! ```text
//!            place                    pull                     finish
//!   (new) ----------->  waiting  --------------->  brewing  ------------->  ready
//!                        |   ^                        |
//!     customer leaves,   |   |  lease runs out,       |
//!     DELETE             |   |  release, barista gone |
//!                        v   +------------------------+
//!                    cancelled                (to its own place)
//! ```
//!
//! # Disconnects
//! - A customer without a key, before brewing: the order leaves the line with them, at once.
//! - A customer with a key, before brewing: the order keeps its place for `orders.reconnect_grace`.
//! - A customer who was answered 202, before brewing: the order keeps its place while it is polled at least every
//!   `orders.promise_grace`.
//! - A customer during brewing: brewing goes on; the answer to the finish has `delivered: false`.
//! - A barista before the connection took the answer: the order keeps its place and goes to the next barista at once.
//! - A barista whose token is revoked while no order waits: the request ends with 401.
//! - A barista after that: the lease expires, and the order returns to its original place, with the next attempt. After
//!   `orders.attempts_max` expiries it goes to the end of the line, so that it cannot block the head.
//! - A customer who is gone when the order would return to the line: it is cancelled then; with a key, after the grace. A
//!   later finish is answered 409.
//! - A client whose address is blocked ([`crate::flood`]): its waiting orders leave the line and are answered 429; orders
//!   being brewed are finished.
//! - The server on shutdown: it drains until no request is held or `shutdown.drain` is over, and answers 503 to the rest.
//!
//! # Modules
//! [`mod@line`]: the pure state machine. [`idempotency`]: the keys of retries. [`hold`]: futures whose `Drop` means that a
//! client left. [`memory`]: a line in memory behind its lock. [`shared`]: this server's part of a line that several servers
//! share; [`store`]: its port, `redis` the store. [`service`]: either of them; [`requests`]: what both are asked; [`changes`]: who watches them; [`screens`]: the line as a whole. [`metrics`]: counters and gauges.
//!
//! # Deliberately absent
//! - Division of one line over several nodes of a store: strict order is one counter.
//! - A menu: customers drink americano.
//! - A limit on how long a customer is held.

pub mod changes;
pub mod config;
pub mod error;
pub mod hold;
pub mod idempotency;
pub mod line;
pub mod memory;
pub mod metrics;
pub mod model;
#[cfg(feature = "redis")]
pub mod redis;
pub mod requests;
pub mod routes;
pub mod screens;
pub mod service;
pub mod shared;
pub mod store;

pub use config::Config;
pub use metrics::Metrics;
pub use service::Orders;
