//! Assignments: assigns the day's packages to the day's drivers, within their rules, by the best plan there is.
//!
//! # The promise
//! A plan carries as many packages as any plan could, as evenly and with as many urgent ones as that permits, and explains every
//! package that stays behind. Assignments stay: a repeated request changes nothing, and no package has two drivers on one day,
//! however many plans are made at the same time.
//!
//! # The words
//! - **[`manifest`]**: a day's two lists, drivers and packages. It can be replaced; assignments from an earlier one stay.
//! - **rule**: a condition of a driver on packages; all of a driver's rules must hold. Ten codes ([`rules`]).
//! - **plan**: which driver takes which packages ([`matching`]).
//! - **held**: assigned on that day, by this plan or an earlier one; it counts against `max_per_driver`, and is not assigned again.
//! - **assignment**: a driver's package, with its status. Any status may follow any other; if `assignments.strict`, nothing
//!   follows a final one.
//! - **operational log**: one line for every package that is assigned, given up or updated ([`oplog`]), for log readers. It is
//!   written after the fact, and no request waits for it.
//!
//! ```text
//!   POST /assign -> what is held? -> plan, off the runtime -> store it, if the day has not changed -> answer
//!                        ^                                              | no, another planner was first
//!                        '----------------------------------------------'
//! ```
//!
//! # Disconnects
//! Planning takes a processor for up to some seconds. As many plans run at once as there are processors, further ones wait in FIFO
//! order, and beyond a bound requests are answered 503. A plan whose client disconnects is cancelled, and assigns nothing. A plan
//! that is being stored is stored, even if the client disconnects.
//!
//! # Two stores
//! [`sqlite`] for one server; `dynamodb` (feature `aws`) for tables that several servers share. The first stores a plan
//! atomically; the second driver by driver, and after an outage a repeated request completes it.
//!
//! # Modules
//! The usual ones, [`metrics`], those named above, and [`turns`]: as many plans at once as there are processors.
//!
//! # Deliberately absent
//! - A graph of statuses: the logistics centre has none.
//! - Routes, hours of work, the size of a van: no rule needs them.

pub mod config;
#[cfg(feature = "aws")]
pub mod dynamodb;
pub mod error;
pub mod manifest;
pub mod matching;
pub mod metrics;
pub mod model;
pub mod oplog;
pub mod routes;
pub mod rules;
pub mod service;
pub mod sqlite;
pub mod store;
pub mod turns;

pub use config::Config;
pub use metrics::Metrics;
pub use service::Assignments;
