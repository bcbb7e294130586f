//! JSON, timestamps and ids, the same for every desk. Pure.

pub mod id;
pub mod json;
pub mod time;
