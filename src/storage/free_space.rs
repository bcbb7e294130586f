//! Whether the data directory's file system has enough free space for public writes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use thiserror::Error;
use tracing::{debug, info, warn};

use super::condition::{Condition, State};

/// How often the space is measured.
const MEASURE_EVERY: Duration = Duration::from_secs(1);
/// Hysteresis: once space was low, a sixteenth more than the minimum must be free. Otherwise the state would flap at the
/// boundary.
const MARGIN: u64 = 16;

/// Measures the free space of a directory's file system; cheap to clone. Public writes are refused before the disk is full, so
/// that the staff's desks go on.
#[derive(Debug, Clone)]
pub struct FreeSpace {
    watched: Arc<Watched>,
}

#[derive(Debug)]
struct Watched {
    directory: PathBuf,
    min_bytes: u64,
    free_bytes: AtomicU64,
    condition: Condition,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("too little space is left")]
pub struct SpaceLow;

impl FreeSpace {
    /// At least `min_bytes` must be free; 0 for any. Until the first measurement there is enough.
    pub fn new(directory: impl Into<PathBuf>, min_bytes: u64) -> Self {
        Self {
            watched: Arc::new(Watched {
                directory: directory.into(),
                min_bytes,
                free_bytes: AtomicU64::new(u64::MAX),
                condition: Condition::default(),
            }),
        }
    }

    /// # Errors
    /// [`SpaceLow`], if less than the minimum is free.
    pub fn check(&self) -> Result<(), SpaceLow> {
        if self.watched.condition.is_healthy() {
            Ok(())
        } else {
            Err(SpaceLow)
        }
    }

    pub fn state(&self) -> State {
        self.watched.condition.state()
    }

    pub fn min_bytes(&self) -> u64 {
        self.watched.min_bytes
    }

    /// Free bytes at the last measurement.
    pub fn free_bytes(&self) -> u64 {
        self.watched.free_bytes.load(Ordering::Relaxed)
    }

    /// Measures. Blocks for as long as the file system takes to answer.
    pub fn measure(&self) {
        match rustix::fs::statvfs(&self.watched.directory) {
            Ok(found) => self.found(found.f_bavail.saturating_mul(found.f_frsize)),
            // If the directory is gone, its databases report that.
            Err(error) => debug!(%error, "the free space cannot be measured"),
        }
    }

    /// Measures every second. Never ends.
    pub async fn watch(&self) {
        loop {
            tokio::time::sleep(MEASURE_EVERY).await;
            let space = self.clone();
            // The runtime reports a panic; the next measurement is made in any case.
            let _ = tokio::task::spawn_blocking(move || space.measure()).await;
        }
    }

    fn found(&self, free_bytes: u64) {
        let Watched {
            min_bytes,
            condition,
            ..
        } = &*self.watched;
        self.watched.free_bytes.store(free_bytes, Ordering::Relaxed);
        let enough = if condition.is_healthy() {
            *min_bytes
        } else {
            min_bytes.saturating_add(min_bytes / MARGIN)
        };
        if free_bytes >= enough {
            if condition.works() {
                info!(
                    free_bytes,
                    "there is enough free space again; public writes are accepted"
                );
            }
        } else if condition.fails(format_args!(
            "{free_bytes} bytes are free for the data directory, fewer than storage.free_min ({min_bytes})"
        )) {
            warn!(
                free_bytes,
                min_bytes, "too little space is left: public writes are refused"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_low_below_the_minimum_and_until_there_is_some_more_than_that() {
        let space = FreeSpace::new("/", 1600);
        assert_eq!(space.check(), Ok(()), "nothing is measured yet");
        for (free_bytes, enough) in [
            (1600, true),
            (1599, false),
            (1600, false),
            (1699, false),
            (1700, true),
            (1600, true),
            (0, false),
            (u64::MAX, true),
        ] {
            space.found(free_bytes);
            assert_eq!(space.check().is_ok(), enough, "{free_bytes}");
            assert_eq!(space.free_bytes(), free_bytes);
        }
        space.found(7);
        let reason = space.state().down.unwrap();
        assert!(reason.starts_with("7 bytes are free"), "{reason}");
    }

    #[test]
    fn without_a_minimum_there_is_always_enough() {
        let space = FreeSpace::new("/", 0);
        space.found(0);
        assert_eq!(space.check(), Ok(()));
        space.measure();
        assert_ne!(space.free_bytes(), 0);
    }

    #[test]
    fn what_cannot_be_measured_changes_nothing() {
        let space = FreeSpace::new("/nowhere/at/all", 1);
        space.measure();
        assert_eq!(space.check(), Ok(()));
    }
}
