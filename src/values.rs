//! JSON (read, and written by hand where that matters: `object`), timestamps, ids, configured values, backoff, and answers that
//! are there at once or later, the same for every desk.

pub mod backoff;
pub mod config;
pub mod id;
pub mod json;
pub mod object;
pub mod secret;
pub mod soon;
pub mod time;
