//! What an operator looks at: the state of every desk at once, and a search over all of them. It reads the desks' services, and
//! knows no storage.
//!
//! - **One state for all who look.** It is composed at most once a second, however many ask; the plan of the day, which reads
//!   all of its assignments, at most every 15 s.
//! - **A desk that does not answer is left out.** Each has two seconds; `engines` says what is down.
//! - **Bounded**: lists have the first [`state::LISTED_MAX`], those in trouble first, and say how many there are.
//!
//! A client that disconnects changes nothing: a state that is being composed is composed for the others.

pub mod routes;
pub mod search;
pub mod service;
pub mod state;

pub use service::Overview;
