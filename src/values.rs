//! JSON, timestamps, ids and configured values, the same for every desk. Pure.

pub mod config;
pub mod id;
pub mod json;
pub mod secret;
pub mod time;
