//! JSON (read, and written by hand where that matters: `object`), timestamps, ids, configured values and backoff, the same for
//! every desk.

pub mod backoff;
pub mod config;
pub mod id;
pub mod json;
pub mod object;
pub mod secret;
pub mod time;
