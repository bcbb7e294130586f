//! Packages: sent at most once, never against the recipient's wish.
//!
//! # The promise
//! A package id is processed once, for ever: however often and by how many it is sent, exactly one sender is told 201, and
//! everybody else the first outcome. What a recipient has declined is not delivered. The statistics always agree with the
//! ledger.
//!
//! # The words
//! - **package**: a request to deliver, named by its **package id**. The id alone identifies it; a retry that says something
//!   else is a **mismatch**, and changes nothing.
//! - **type**: what kind of package it is, of `packages.types`. A further type is a line of configuration.
//! - **preference**: whether a recipient takes a type. Without one, a type is taken unless it stands in `packages.opt_in`.
//! - **outcome**: **delivered**, or **dropped** because the recipient had declined the type when the package was processed.
//! - **ledger**: one row per package that was processed.
//! - **rejected**: a request that was malformed. Nothing of it is kept but that there was one: counted in memory, and stored
//!   four times a second at most, so that malformed requests cost no flush each. A crash loses the count of the last quarter
//!   of a second, a stop nothing.
//!
//! # Preferences do not depend on the order in which they arrive
//! Each type of each recipient has the word that was said last, by the timestamp in the request. Of two words with the same
//! timestamp, the refusal holds. A word that comes late and is older changes nothing.
//!
//! A word that is stamped far in the future holds until then, whoever sent it. `packages.future_max` bounds how far, and the
//! staff can **reset** a recipient: all their words are forgotten, and the next one holds whatever its timestamp.
//!
//! ```text
//!   POST /packages -> one transaction: id in the ledger?  -- yes -->  its first outcome, duplicate
//!                                            | no
//!                                            v
//!                                 the recipient's preference, now  ->  a row, and a count
//! ```
//!
//! # When the ledger becomes too large
//! At most once is for ever, so a row stays for ever. With `packages.remember` rows older than that are forgotten as new ones
//! come, and a package that is sent again after so long is processed again.
//!
//! # The rooms
//! The usual ones, [`metrics`], and [`audit`], which recounts the ledger.
//!
//! # Deliberately absent
//! - Taking a package back. What was dropped stays dropped, even if the recipient changes their mind: a retry is the same
//!   request.
//! - Who was sent what: a row has the id, the outcome, and a digest of the rest, by which a mismatch is seen.

pub mod audit;
pub mod error;
pub mod metrics;
pub mod model;
pub mod routes;
pub mod service;
pub mod sqlite;
pub mod store;

pub use metrics::Metrics;
pub use service::Packages;
