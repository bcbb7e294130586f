//! Packages: sent at most once, never against the recipient's preference.
//!
//! # The promise
//! A package id is processed once, forever: however often and by how many senders it is sent, exactly one is answered
//! 201, and all others get the first outcome. A declined package is not delivered. The statistics always agree with
//! the ledger.
//!
//! # The words
//! - **package**: a request to deliver, identified by its **package id** alone. A repetition with other fields is a **mismatch**,
//!   and changes nothing.
//! - **type**: one of `packages.types`. A new type is a line of configuration.
//! - **preference**: whether a recipient accepts a type. Without one, a type is accepted unless it is in `packages.opt_in`.
//! - **outcome**: **delivered**, or **dropped** because the recipient had declined the type when the package was processed.
//! - **ledger**: one row per processed package.
//! - **rejected**: a malformed request. Only their number is stored: counted in memory, and stored at most four times a second, so
//!   that malformed requests cost no flush each. A crash loses the count of the last quarter of a second, a stop nothing.
//!
//! # Preferences do not depend on the order in which they arrive
//! Each type of each recipient has the preference with the latest timestamp, which the request contains. Of two with the same
//! timestamp, the refusal holds. An older one that arrives late changes nothing.
//!
//! A preference with a timestamp far in the future holds until then. `packages.future_max` bounds how far, and the staff can
//! **reset** a recipient: all preferences are deleted, and the next one is applied whatever its timestamp.
//!
//! ```text
//!   POST /packages -> one transaction: id in the ledger?  -- yes -->  its first outcome, duplicate
//!                                            | no
//!                                            v
//!                                 the recipient's preference, now  ->  a row, and a count
//! ```
//!
//! # Ledger size
//! At most once is forever, so a row stays forever. With `packages.remember` older rows expire as new ones are added,
//! and a package that is sent again after that is processed again.
//!
//! # Modules
//! The usual ones, [`metrics`], [`audit`], which recounts the ledger, and [`rules`]: which preference wins, and what it decides.
//!
//! # Deliberately absent
//! - Changing an outcome. A dropped package stays dropped, even if the recipient changes their preferences: a retry is the same
//!   request.
//! - A package's other fields: a row has the id, the outcome, and a digest of the rest, which detects a mismatch.

pub mod audit;
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
pub use service::Packages;
