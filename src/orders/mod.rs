//! The order line: every customer is held until the coffee is ready.
//!
//! # The promise
//! A customer who has sent `POST /order/` gets 200, however long it takes, or has left. Orders are taken oldest first.
//! No order is lost between the line and a barista, and while a lease holds nobody else gets the order.
//!
//! # The words
//! - **place**: an order joins the end of the line. **Held**: its request waits for the answer.
//! - **pull**: a barista takes the oldest order, under a **lease**. Each hand-over has its number, the **attempt**.
//! - **away**: the crew, when no barista has been at work, idle, asking or reporting for a minute.
//! - **idle**: a barista who waits for an order. The longest idle is served first.
//! - **finish**: a barista reports the order ready; everybody held for it is answered.
//! - **promise**: a request was answered 202; its order stays in line with nobody attached.
//!
//! # The states of an order
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
//! # When somebody leaves
//! - A customer without a key, before brewing: the order leaves the line with them, at once.
//! - A customer with a key, before brewing: the place is kept for `orders.reconnect_grace`.
//! - A customer who was told 202, before brewing: the place is kept while somebody asks about the order at least every
//!   `orders.promise_grace`.
//! - A customer while it is brewed: brewing goes on; the finish says that nobody received it.
//! - A barista before the hand-over: gets nothing; the order keeps its place and goes to the next barista at once.
//! - A barista after the hand-over: the lease runs out, and the order returns to its original place, with the next
//!   attempt. After `orders.attempts_max` times it goes behind the line, so that it cannot block everybody.
//! - A customer who is gone when the order would return to the line: it is cancelled then; with a key, after the grace.
//!   A barista who reports it afterwards is answered that it was cancelled.
//! - Somebody whose address is cut off ([`crate::flood`]): their waiting orders leave the line and are answered 429; what is
//!   being brewed is finished.
//! - The server, told to stop: it goes on until nobody is held or `shutdown.drain` is over; then 503 for the rest.
//!
//! # The rooms
//! Besides the usual ones: [`mod@line`], the pure state machine; [`hold`], the futures whose dropping means leaving;
//! [`metrics`], what is counted.
//!
//! # Deliberately absent
//! - A store. Whoever waits is waiting on a connection of this process, and a connection cannot be stored.
//! - A menu. The customers drink americano.
//! - A limit on how long a customer is held.

pub mod error;
pub mod hold;
pub mod line;
pub mod metrics;
pub mod model;
pub mod routes;
pub mod service;

pub use line::Rules;
pub use metrics::Metrics;
pub use service::Orders;
