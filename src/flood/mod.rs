//! Flood control: admission by client address. It knows nothing of orders; whoever takes something in asks it first.
//!
//! # The promise
//! One address, however many requests it sends, can neither fill the line nor keep the crew busy; everybody else never
//! notices. A group of 200 behind one shared address passes untouched.
//!
//! # The words
//! - **address**: who is asking ([`client`]): the peer, or what a trusted proxy says; an IPv6 network of `flood.ipv6_prefix`.
//! - **outstanding**: admissions that are not over. At most `flood.outstanding_max` per address.
//! - **rate**: `flood.burst` at once, and one more every `flood.refill`.
//! - **refused**: not admitted, for one of these two; told to come back later.
//! - **cut off**: refused `flood.cutoff_after` times within `flood.cutoff_window`. For `flood.cutoff_for` everything is refused at
//!   once, and what the address had waiting is taken away ([`Flood::on_cut_off`]).
//!
//! ```text
//!              refused too often                      cutoff_for is over, or DELETE /flood/{address}
//!   admitted ---------------------->  cut off  ------------------------------------------------->  admitted
//! ```
//!
//! # When somebody leaves
//! An [`Admission`] counts as outstanding until it is dropped, however the request ends; it is dropped exactly once.
//!
//! # Bounded memory
//! At most `flood.addresses_max` addresses are tracked ([`table`]). Idle ones are swept. When the table is full, newcomers
//! share an entry per network: /24, then /16, then everybody (IPv6: /48, /32, everybody). Who is cut off stays so for the
//! whole time.
//!
//! # Deliberately absent
//! - A list of bad addresses that survives a restart: a firewall is the place for that.
//! - Guessing who is behind an address: whoever shares one shares its limits.

pub mod client;
pub mod metrics;
pub mod routes;
pub mod table;

mod admission;

pub use admission::{Admission, Flood, Mode, Settings};
pub use metrics::Metrics;
