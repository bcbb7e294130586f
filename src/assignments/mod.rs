//! Assignments: the day's packages given to the day's drivers, within their rules ([`rules`]), by the best plan there is.

pub mod error;
pub mod matching;
pub mod model;
pub mod rules;
pub mod store;
