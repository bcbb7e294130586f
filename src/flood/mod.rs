//! Flood control: who may have how much of what is scarce. It knows nothing of orders; whoever takes something in asks it
//! first.
//!
//! # The promise
//! Nobody, however many requests they send from however many addresses of one provider's network, can fill the line, or keep
//! others from being served. A group of 200 behind one shared address passes untouched. `docs/adr/0004` says why it is built
//! so, and what many networks can do.
//!
//! # Who is who
//! - **address**: who is asking ([`client`]): the peer, or what a trusted proxy says; an IPv6 network of `flood.ipv6_prefix`.
//! - **origin**: an address, or one of the networks that contain it ([`networks`]): a subscriber (IPv6 /56), a site (/48, IPv4
//!   /24), a provider (/32, /16). Whoever attacks has as many addresses as they like, but not other people's networks.
//!
//! # What is scarce, and who may have how much
//! | | an origin may have |
//! |---|---|
//! | places in line | `flood.outstanding_max` open orders of an address or a subscriber, `flood.network_max` of a provider, half-way between for a site. From half of `orders.waiting_max` open orders on, less and less, down to one; the last sixteenth is for addresses with nothing in line. |
//! | held requests (`?wait=`) | as many as open orders |
//! | writes per second | an address has `flood.burst` orders, and one more every `flood.refill`. Any other write costs a tenth of an order, and also takes from what its subscriber may write, as much as an address, and its provider, 1.6 times that. |
//! | connections | `flood.connections_max` of an address or a subscriber, half of `customers.connections_max` of a provider, half-way between for a site, and never more than half of all; those of trusted proxies are not counted |
//!
//! What is open counts until its [`Admission`] is dropped, exactly once, and is counted at every width. An order's stays with the
//! order for as long as it is pending, whoever leaves; a held request's ends with the request. Cancelling an order is free.
//!
//! # Who is cut off
//! An address that was refused `flood.cutoff_after` times within `flood.cutoff_window`, for its rate or for what it has open
//! itself. For `flood.cutoff_for` everything it writes is refused at once, and what it placed since the first of those
//! refusals is taken away ([`Flood::on_block`]): what it had placed before stays, for it may be a colleague's.
//!
//! ```text
//!              refused too often                      cutoff_for is over, or DELETE /flood/{address}
//!   admitted ---------------------->  cut off  ------------------------------------------------->  admitted
//! ```
//!
//! # What is never done
//! - A refusal for what neighbours have open, or because the line is nearly full, is never held against an address.
//! - An entry that several addresses share is never cut off, and nothing is taken away for it.
//! - What is malformed leaves no entry behind.
//!
//! # Bounded memory
//! At most `flood.addresses_max` addresses are tracked ([`table`]), half of them of each family. One whose state cannot be told
//! from a newcomer's makes room at once. When the table is full all the same, newcomers share a rate per network: /24, then
//! /16, then everybody (IPv6: /48, /32, everybody). Networks are known only while something of them is open.
//!
//! # Deliberately absent
//! - A list of bad addresses that survives a restart: a firewall is the place for that.
//! - Guessing who is behind an address: whoever shares one shares its limits.

pub mod client;
pub mod metrics;
pub mod networks;
pub mod routes;
pub mod table;

mod admission;

pub use admission::{Admission, Flood, Mode, Settings};
pub use metrics::Metrics;
pub use table::Ask;
