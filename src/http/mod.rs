//! What both listeners share; it knows no desk.
//!
//! A connection is accepted by [`server`] and lives in [`connection`], by its [`activity`]; a request passes [`edge`] (request id, counting, logging, the last resort
//! for panics) into a router. Desks read requests with [`body`] and [`params`], answer mistakes with [`problem`], and
//! describe themselves through [`api`]. [`status`] has the pages that every listener serves.

pub mod activity;
pub mod api;
pub mod body;
pub mod connection;
pub mod edge;
pub mod listen;
pub mod params;
pub mod problem;
pub mod server;
pub mod status;

pub use api::Api;
pub use problem::Problem;
