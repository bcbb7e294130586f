//! Assignments: the day's packages given to the day's drivers, within their rules, by the best plan there is.
//!
//! # The promise
//! A plan carries as many packages as any plan could, as evenly and with as many urgent ones as that permits, and every
//! package that stays behind knows why. What was given stays given: asking again changes nothing, and no package has two
//! drivers on one day, whoever plans at the same time.
//!
//! # The words
//! - **manifest**: a day's two lists, drivers and packages. A day's manifest can be replaced; what was given by an earlier one
//!   stays.
//! - **rule**: what a package must satisfy for a driver; all of a driver's rules must hold. Ten codes ([`rules`]).
//! - **plan**: which driver takes which packages ([`matching`]).
//! - **held**: given on that day, by this plan or an earlier one; it counts against `max_per_driver`, and is given to nobody
//!   else.
//! - **assignment**: a package that a driver has, with its status. Any status may follow any other; if `assignments.strict`,
//!   nothing follows a final one.
//! - **operational log**: one line for every package that is given, given up or updated ([`oplog`]), for those who read
//!   logs. It is told after the fact, and nobody waits for it.
//!
//! ```text
//!   POST /assign -> what is held? -> plan, off the runtime -> keep it, if the day is still as it was -> answer
//!                        ^                                              | no, somebody was faster
//!                        '----------------------------------------------'
//! ```
//!
//! # Who leaves when
//! Planning takes a processor for up to some seconds. As many plans run at once as there are processors, further ones wait
//! for their turn, first come, first served, and beyond a bound requests are answered 503. A plan whose client disconnects
//! is cancelled, and gives nothing. A plan that is being stored is stored, whoever leaves.
//!
//! # Two stores
//! [`sqlite`] for one server; `dynamodb` (feature `aws`) for tables that several servers share. In one, a plan is kept as a
//! whole; in the other driver by driver, and what an outage cuts off is completed by asking again.
//!
//! # The rooms
//! The usual ones, [`metrics`], those named above, and [`turns`]: as many plans at once as there are processors.
//!
//! # Deliberately absent
//! - A graph of statuses: the logistics centre has given none.
//! - Routes, hours of work, the size of a van: no rule speaks of them.

#[cfg(feature = "aws")]
pub mod dynamodb;
pub mod error;
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

pub use metrics::Metrics;
pub use service::Assignments;
