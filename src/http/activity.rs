//! A connection's activity: open requests, since when it is idle, and since when its client reads nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::streams::Streams;

/// No bytes wait to be sent.
const FLOWING: u64 = u64::MAX;

#[derive(Debug)]
pub struct Activity {
    opened: Instant,
    open: AtomicU32,
    /// Milliseconds from `opened` to the end of the last request or the last sent byte.
    idle_since_ms: AtomicU64,
    /// Milliseconds from `opened` to the socket's last accepted bytes, while more wait; else [`FLOWING`].
    stalled_since_ms: AtomicU64,
    /// HTTP/1.1: the open request's body is not fully read.
    unread: AtomicBool,
    /// HTTP/1.1: the open request's answer is there, and leaves with the next poll.
    put_off: AtomicBool,
    /// Half-closed: what the client still sends is dropped.
    lingering: AtomicBool,
    given_up: AtomicBool,
    streams: Option<Streams>,
}

impl Activity {
    /// An HTTP/1.1 connection that has just been opened.
    pub fn begin() -> Self {
        Self {
            opened: Instant::now(),
            open: AtomicU32::new(0),
            idle_since_ms: AtomicU64::new(0),
            stalled_since_ms: AtomicU64::new(FLOWING),
            unread: AtomicBool::new(false),
            put_off: AtomicBool::new(false),
            lingering: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
            streams: None,
        }
    }

    #[must_use]
    pub fn with_streams(mut self, streams: Streams) -> Self {
        self.streams = Some(streams);
        self
    }

    pub fn streams(&self) -> Option<&Streams> {
        self.streams.as_ref()
    }

    /// Counts a request as open until the guard is dropped.
    pub fn request(self: &Arc<Self>) -> OpenRequest {
        self.open.fetch_add(1, Ordering::Relaxed);
        OpenRequest(Arc::clone(self))
    }

    /// None while a request is open or bytes wait to be sent.
    pub fn idle_since(&self) -> Option<Instant> {
        // The end of a request stores the time before the count.
        if self.open.load(Ordering::Acquire) > 0 || self.stalled_since().is_some() {
            return None;
        }
        Some(self.at(self.idle_since_ms.load(Ordering::Relaxed)))
    }

    /// Since when the client reads nothing, while bytes wait to be sent.
    pub fn stalled_since(&self) -> Option<Instant> {
        let since = self.stalled_since_ms.load(Ordering::Acquire);
        (since != FLOWING).then(|| self.at(since))
    }

    /// The socket accepts no bytes for now.
    pub fn stalls(&self) {
        self.stalled_since_ms.store(self.now(), Ordering::Release);
    }

    /// The socket accepts bytes again.
    pub fn flows(&self) {
        self.idle_since_ms.store(self.now(), Ordering::Relaxed);
        self.stalled_since_ms.store(FLOWING, Ordering::Release);
    }

    pub fn body_is_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    pub fn set_unread(&self, unread: bool) {
        self.unread.store(unread, Ordering::Relaxed);
    }

    pub fn set_put_off(&self, put_off: bool) {
        self.put_off.store(put_off, Ordering::Relaxed);
    }

    /// Whether an open request is fully read and waits: further bytes belong to a later request.
    pub fn holds_a_request(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
            && !self.body_is_unread()
            && !self.put_off.load(Ordering::Relaxed)
    }

    /// Whether the connection is half-closed.
    pub fn is_lingering(&self) -> bool {
        self.lingering.load(Ordering::Relaxed)
    }

    pub fn linger(&self) {
        self.idle_since_ms.store(self.now(), Ordering::Relaxed);
        self.lingering.store(true, Ordering::Relaxed);
    }

    /// Whether the connection is to be reset: its client reads nothing.
    pub fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(FLOWING - 1)
    }

    fn at(&self, ms: u64) -> Instant {
        self.opened + Duration::from_millis(ms)
    }
}

/// An open request; see [`Activity::request`].
#[derive(Debug)]
pub struct OpenRequest(Arc<Activity>);

impl OpenRequest {
    pub fn activity(&self) -> &Arc<Activity> {
        &self.0
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let activity = &self.0;
        activity
            .idle_since_ms
            .store(activity.now(), Ordering::Relaxed);
        activity.open.fetch_sub(1, Ordering::Release);
    }
}
