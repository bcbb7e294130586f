//! What can go wrong with a courier or an order, without HTTP: nothing but that nobody could be asked. Malformed events never
//! come this far, and everything that can happen to a well-formed one is an outcome.

pub use crate::storage::Unavailable;
