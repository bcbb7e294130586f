//! Flood control: admission of requests and connections by client address. It knows nothing of orders; handlers ask it
//! first.
//!
//! # Guarantees
//! No client, with any number of requests from any number of addresses in one provider's network, can fill the line or
//! starve others. A group of 200 behind one shared address is not limited. `docs/adr/0004` has the reasons, and what an
//! attack from many networks can do.
//!
//! # Terms
//! - **address**: the client ([`client`]): the peer, or the one named by a trusted proxy; for IPv6 a network of
//!   `flood.ipv6_prefix`.
//! - **origin**: an address, or one of the networks that contain it ([`networks`]): a subscriber (IPv6 /56), a site (/48,
//!   IPv4 /24), a provider (/32, /16). An attacker has as many addresses as they like, but not other people's networks.
//!
//! # Limits
//! | | limit of an origin |
//! |---|---|
//! | places in line | `flood.outstanding_max` open orders of an address or a subscriber, `flood.network_max` of a provider, half-way between for a site. From half of `orders.waiting_max` open orders on, the share shrinks, down to one; the last sixteenth is for addresses with nothing in line. |
//! | held requests (`?wait=`) | as many as open orders |
//! | writes per second | an address has `flood.burst` orders, and one more every `flood.refill`. Any other write costs a tenth of an order, and also takes from what its subscriber may write, as much as an address, and its provider, 1.6 times that. |
//! | connections | `flood.connections_max` of an address or a subscriber, half of `customers.connections_max` of a provider, half-way between for a site, and never more than half of all; those of trusted proxies are not counted |
//!
//! Each open item counts at every width until its [`Admission`] is dropped. An order's is held as long as the order is
//! pending, even if its customer leaves; a held request's ends with the request. Cancelling an order is free.
//!
//! # Blocking
//! An address is blocked after `flood.cutoff_after` refusals within `flood.cutoff_window`, for its rate or its own open
//! items. For `flood.cutoff_for` all its writes are refused, and the orders it placed since the first of those refusals are
//! cancelled (`on_block` of [`Flood::new`]); earlier ones stay, since they may be a colleague's.
//!
//! ```text
//!              refused too often              cutoff_for is over, or DELETE /flood/{address}
//!   admitted ------------------->  blocked  ----------------------------------------------->  admitted
//! ```
//!
//! # Invariants
//! - A refusal for what neighbours have open, or because the line is nearly full, never counts towards a block.
//! - An entry that several addresses share is never blocked, and none of its orders is cancelled.
//! - A malformed request leaves no entry behind.
//!
//! # Bounded memory
//! At most `flood.addresses_max` addresses are tracked ([`table`]), half of them of each family. An entry in its initial
//! state is evicted first. When the table is full all the same, newcomers share a rate per network: /24, then /16, then all
//! (IPv6: /48, /32, all). Networks are tracked only while they have open items.
//!
//! # Deliberately absent
//! - A block list that survives a restart: that belongs in a firewall.
//! - Telling users behind one address apart: they share its limits.

pub mod client;
pub mod config;
pub mod metrics;
pub mod networks;
pub mod routes;
pub mod table;

mod admission;

pub use admission::{Admission, Blocked, Flood};
pub use config::Config;
pub use metrics::Metrics;
pub use table::Ask;
