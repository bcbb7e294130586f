//! What can go wrong with a package, without HTTP: nothing but that nobody could be asked. What is malformed never comes this
//! far, and what was sent before is an answer.

pub use crate::storage::{SpaceLow, Unavailable};
