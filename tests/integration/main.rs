//! Odyssey as its users meet it: the real binary, on real sockets.
//!
//! Each test opens a [`shop::Shop`] of its own, on free ports, and closes it at the end; a shop refuses to close while
//! a client is left in it. Nothing here sleeps for luck: a test waits until what it waits for is so, and fails if that
//! takes longer than [`shop::PATIENCE`].

#![expect(
    clippy::unwrap_used,
    reason = "a test says what went wrong by panicking, its fixture too"
)]

mod client;
#[cfg(feature = "aws")]
mod emulator;
mod fleet;
mod metrics;
mod shop;
mod webdriver;

mod access;
mod assignments;
mod assignments_crash;
#[cfg(feature = "aws")]
mod assignments_dynamodb;
mod assignments_manifest;
mod browser;
mod commands;
mod configuration;
mod connections;
mod couriers;
#[cfg(feature = "aws")]
mod couriers_queues;
#[cfg(feature = "redis")]
mod couriers_redis;
mod damage;
mod deliveries;
mod description;
mod durability;
mod flood;
mod h2c;
#[cfg(feature = "aws")]
mod infra;
mod login;
mod malformed;
mod manifests;
mod many_rows;
mod nginx;
mod nginx_access;
mod nginx_resend;
mod observability;
mod operators;
mod orders_baristas;
mod orders_both_ways;
mod orders_customers;
mod orders_details;
mod orders_feeds;
mod orders_handover;
mod orders_leaving;
mod orders_line;
mod origins;
mod packages;
mod packages_crash;
mod packages_malformed;
mod pages;
#[cfg(feature = "aws")]
mod preflight;
#[cfg(all(feature = "aws", feature = "redis"))]
mod readme;
mod screens;
#[cfg(feature = "redis")]
mod servers;
mod sessions;
#[cfg(feature = "redis")]
mod shared_line;
mod shutdown;
mod signals;
mod simulators;
mod status;
mod tls;
mod values;
