//! What both listeners share. It depends on no desk.
//!
//! [`server`] accepts connections, queues those above the limit in `overflow`, and serves each with [`connection`], which
//! watches its [`activity`] and, over HTTP/2, its [`streams`], over a [`wire`]. [`edge`] handles every request before the
//! router: request id, metrics, log, security headers, panics; the most frequent requests it answers without the router
//! ([`reply`]); [`request_id`] has the ids. It rejects cross-site requests ([`origin`]), requests for other hosts
//! (`hosts`), requests without the credential ([`guard`]) that the route requires ([`security`]), and undocumented
//! parameters. Browsers get a session by [`login`]. Desks read requests with [`body`] and [`params`], answer errors with [`problem`], and describe themselves
//! through [`api`]. [`caching`] and [`files`] answer with an `ETag`, [`feed`] with an event stream. [`status`] and [`index`] are
//! the pages that every listener serves; [`pages`] are the screens. Operators also have the [`recent`] problems, the storage
//! [`engines`], and the [`build`].

pub mod activity;
pub mod api;
pub mod body;
pub mod build;
pub mod caching;
pub mod config;
pub mod connection;
mod described;
mod docs;
pub mod edge;
pub mod engines;
pub mod feed;
pub mod files;
pub mod guard;
mod headers;
mod hosts;
mod html;
pub mod index;
pub mod listen;
pub mod login;
pub mod origin;
mod overflow;
pub mod pages;
pub mod params;
pub mod problem;
pub mod recent;
pub mod reply;
pub mod request_id;
pub mod responses;
pub mod security;
pub mod server;
mod socket;
pub mod status;
pub mod streams;
mod transfer;
pub mod wire;

pub use api::Api;
pub use problem::Problem;
