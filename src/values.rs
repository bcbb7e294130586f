//! JSON (read, and written by hand where that matters: `object`), timestamps, ids, configured values, backoff, answers that are
//! there at once or later, and counts of the last ten minutes, the same for every desk.

pub mod backoff;
pub mod config;
pub mod id;
pub mod json;
pub mod object;
pub mod secret;
pub mod soon;
pub mod time;
pub mod window;
