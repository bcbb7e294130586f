//! How values are written, at every desk alike: JSON, timestamps, ids. Pure.

pub mod id;
pub mod json;
pub mod time;
