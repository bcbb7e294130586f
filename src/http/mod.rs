//! What both listeners share; it knows no desk.
//!
//! A connection is accepted by [`server`], waits in its `vestibule` if there is no seat, and lives in [`connection`], by its [`activity`] and, over HTTP/2, its [`streams`]; its
//! bytes pass [`wire`]. A request passes [`edge`] (request id, counting, logging, security headers, the last resort for
//! panics), which rejects browsers on behalf of foreign pages ([`origin`]) and what is not described, into a router. Desks read requests with [`body`]
//! and [`params`], answer mistakes with [`problem`], and describe themselves through [`api`]; what is asked for often and
//! changes seldom is a [`caching`], what never changes is in [`files`]. [`status`] and [`index`] have the pages that every
//! listener serves.

pub mod activity;
pub mod api;
pub mod body;
pub mod caching;
pub mod connection;
mod described;
pub mod edge;
pub mod files;
mod html;
pub mod index;
pub mod listen;
pub mod origin;
pub mod params;
pub mod problem;
pub mod responses;
mod scan;
pub mod server;
pub mod status;
pub mod streams;
mod vestibule;
pub mod wire;

pub use api::Api;
pub use problem::Problem;
