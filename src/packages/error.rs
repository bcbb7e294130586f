//! The desk's only error is that the store does not answer. Malformed requests are rejected before, and a duplicate is an
//! answer.

pub use crate::storage::{SpaceLow, Unavailable};
