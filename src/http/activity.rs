//! What a connection is doing: how many of its requests are open, and since when none is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// How many requests of one connection are open, and since when none is.
#[derive(Debug)]
pub struct Activity {
    opened: Instant,
    open: AtomicU32,
    /// Milliseconds from `opened` to the end of the last request.
    idle_since_ms: AtomicU64,
}

impl Activity {
    /// A connection that has just been opened.
    pub fn begin() -> Self {
        Self {
            opened: Instant::now(),
            open: AtomicU32::new(0),
            idle_since_ms: AtomicU64::new(0),
        }
    }

    /// Counts a request as open until the guard is dropped.
    pub fn request(self: &Arc<Self>) -> OpenRequest {
        self.open.fetch_add(1, Ordering::Relaxed);
        OpenRequest(Arc::clone(self))
    }

    /// Since when no request is open; nothing while one is.
    pub fn idle_since(&self) -> Option<Instant> {
        // The end of a request stores the time first, so whoever sees none open sees its time.
        if self.open.load(Ordering::Acquire) > 0 {
            return None;
        }
        let idle_since_ms = self.idle_since_ms.load(Ordering::Relaxed);
        Some(self.opened + Duration::from_millis(idle_since_ms))
    }
}

/// An open request; see [`Activity::request`].
#[derive(Debug)]
pub struct OpenRequest(Arc<Activity>);

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let activity = &self.0;
        let since_opened = activity.opened.elapsed().as_millis();
        let ms = u64::try_from(since_opened).unwrap_or(u64::MAX);
        activity.idle_since_ms.store(ms, Ordering::Relaxed);
        activity.open.fetch_sub(1, Ordering::Release);
    }
}
