//! The operational log: assigned, given up and updated packages, one line of JSON each, for log readers. It is written after
//! the fact, and no request waits for it: the desk's state is in its store, not here.
//!
//! ```text
//!   note() -> queue -> one thread: segment (plain lines) -> packed file -> archive (files), or
//!                                                                       -> a task: object in S3
//! ```
//!
//! # The promise
//! - **No request waits for it, or fails because of it.** Entries go through a bounded queue; what does not fit is dropped and
//!   counted.
//! - **Written lines survive a kill of the process.** A **segment** is written without user-space buffering, and packed by the next
//!   start. A torn last line is dropped: readers could not parse it. Only complete files are flushed, and so survive a power cut.
//! - **A packed file is complete or does not exist.** It is written under another name, flushed, and renamed; only then is the
//!   segment removed.
//! - **A line is in S3 once.** The object's key is derived from the segment's name, so that a repeated upload, after a crash or a lost
//!   answer, overwrites itself.
//! - **It is bounded.** The archive by a number of files, the spool by bytes, the queue by a number of entries.
//!
//! # Outages
//! - **The disk is full or fails:** entries wait in the queue; once that is full, new ones are lost. Retried every second.
//! - **S3 is down, or rejects the files:** packed files wait in the spool, and are retried with backoff. If the operator must repair
//!   something, such as a missing bucket or a policy, readiness fails. When the spool is full, the oldest stay and new entries are
//!   lost, until a file was uploaded and a quarter is free.
//! - **The server stops:** what is left is uploaded within a time limit, and the rest by the next start.
//!
//! The begin and the end of each are logged once; the metrics count lost entries, by reason.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::{self, Thread};
use std::time::Duration;

use tokio::sync::watch;
use tracing::{info, warn};

pub mod config;
mod entry;
mod metrics;
mod name;
#[cfg(feature = "aws")]
mod s3;
mod spool;
mod writer;

pub use config::Config;
pub use entry::{Entry, Kind};
pub use metrics::Metrics;
#[cfg(feature = "aws")]
pub use s3::{probe, provision};

use metrics::Lost;
use spool::{Archive, Spool};
use writer::{Rotation, Shared, Writer};

use crate::storage::State;

/// Subdirectory of the log's directory for files that are written or wait.
const SPOOL: &str = "spool";
const HOUR_S: i64 = 3600;
const DAY_S: i64 = 24 * HOUR_S;

#[derive(Debug, Clone)]
pub struct Settings {
    /// Created if it is missing. Used by one process at a time.
    pub directory: PathBuf,
    pub sink: Sink,
    pub config: Config,
}

/// Where complete files go.
#[derive(Debug, Clone)]
pub enum Sink {
    /// The log's directory, with one subdirectory per day (UTC): `dt=2026-11-21/<instance>-<uuid>.ndjson.gz`.
    Files,
    /// A bucket: `<prefix>/dt=2026-11-21/hr=15/<instance>-<uuid>.ndjson.gz`, by the hour of the entries (UTC).
    /// The client's retries and timeouts are replaced by the log's own.
    #[cfg(feature = "aws")]
    S3(aws_sdk_s3::Client),
}

/// A handle to the log; cheap to clone. When the last one is dropped, queued entries are still written, and uploaded by the
/// next start; to wait for that, call [`Oplog::close`].
#[derive(Clone)]
pub struct Oplog {
    /// None: entries are discarded.
    inner: Option<Arc<Inner>>,
}

struct Inner {
    /// None once the log is closed.
    sender: RwLock<Option<Sender<Vec<Entry>>>>,
    shared: Arc<Shared>,
    spool: Arc<Spool>,
    thread: Thread,
    /// Closed once the thread has ended.
    ended: watch::Sender<()>,
    #[cfg(feature = "aws")]
    uploads: Option<s3::Uploads>,
}

impl fmt::Debug for Oplog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = self.inner.is_some();
        f.debug_struct("Oplog").field("open", &open).finish()
    }
}

impl Oplog {
    /// Opens the log, takes over the files of an earlier process, and starts the writer thread. With S3 it must be called inside a
    /// runtime, which must outlive the log.
    ///
    /// # Errors
    /// If the directory cannot be created, read or written to. A full disk is not an error.
    pub fn open(settings: Settings, metrics: Metrics) -> io::Result<Self> {
        let rotation = settings.rotation();
        let Settings {
            directory,
            sink,
            config,
        } = settings;
        let spool = directory.join(SPOOL);
        let archive = match &sink {
            Sink::Files => Some(Archive {
                directory,
                files_max: config.files_max,
            }),
            #[cfg(feature = "aws")]
            Sink::S3(_) => None,
        };
        let (spool, left, torn) = Spool::open(spool, archive, config.spool_max_bytes)?;
        let spool = Arc::new(spool);
        if !left.is_empty() {
            let files = left.len();
            info!(
                files,
                torn, "taking over files of the operational log of an earlier process"
            );
            metrics.lost(Lost::Torn, torn);
        }
        #[cfg(feature = "aws")]
        let uploads = match sink {
            Sink::Files => None,
            Sink::S3(client) => {
                let config = config.clone();
                let target = s3::Target { client, config };
                let spool = Arc::clone(&spool);
                Some(s3::Uploads::start(target, spool, metrics.clone())?)
            }
        };
        let (sender, receiver) = channel();
        let (ended, alive) = watch::channel(());
        let shared = Arc::new(Shared::new(metrics, config.waiting_max));
        let writer = Writer::new(
            receiver,
            Arc::clone(&shared),
            Arc::clone(&spool),
            rotation,
            name::instance(&config.instance),
            left,
        );
        let thread = thread::Builder::new().name("write oplog".to_owned());
        let thread = thread.spawn(move || {
            writer.run();
            drop(alive);
        })?;
        let inner = Inner {
            sender: RwLock::new(Some(sender)),
            shared,
            spool,
            thread: thread.thread().clone(),
            ended,
            #[cfg(feature = "aws")]
            uploads,
        };
        Ok(Self {
            inner: Some(Arc::new(inner)),
        })
    }

    /// Discards all entries: to describe the desk's API, and for tests.
    pub fn disabled() -> Self {
        Self { inner: None }
    }

    /// Queues entries. Never blocks and never fails; what does not fit is dropped, from the end, and counted.
    pub fn note(&self, mut entries: Vec<Entry>) {
        let Some(inner) = &self.inner else { return };
        let sender = inner.sender.read();
        // No holder of the lock can panic half-way.
        let sender = sender.unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = &*sender else {
            inner.lost_at_the_end(entries.len());
            return;
        };
        let admitted = inner.shared.admit(entries.len());
        entries.truncate(admitted);
        if admitted > 0 && sender.send(entries).is_err() {
            inner.shared.left(admitted);
            inner.lost_at_the_end(admitted);
        }
    }

    /// Rejects new entries, writes the queued ones, and uploads them, within `patience`; the rest stays in the spool for the
    /// next start. Other handles may still exist.
    pub async fn close(&self, patience: Duration) {
        let Some(inner) = &self.inner else { return };
        inner.begin_closing();
        let finished = tokio::time::timeout(patience, inner.finish()).await;
        #[cfg(feature = "aws")]
        if let Some(uploads) = &inner.uploads {
            uploads.abort();
        }
        if finished.is_err() {
            let bytes = inner.spool.holds().bytes;
            warn!(
                bytes,
                "a part of the operational log stays in its spool until the next start"
            );
        }
    }

    /// Whether lines are written, and the bucket accepts them, since when, and why not; None if there is no log. A bucket that
    /// is temporarily unreachable counts as up.
    pub fn state(&self) -> Option<State> {
        let inner = self.inner.as_ref()?;
        let writing = inner.shared.condition.state();
        #[cfg(feature = "aws")]
        if let (None, Some(uploads)) = (&writing.down, &inner.uploads) {
            let uploading = uploads.state();
            if uploading.down.is_some() {
                return Some(uploading);
            }
        }
        Some(writing)
    }

    pub fn update_gauges(&self) {
        let Some(inner) = &self.inner else { return };
        let bytes = inner.spool.holds().bytes;
        inner.shared.metrics.show(inner.shared.waiting(), bytes);
    }
}

impl Inner {
    fn lost_at_the_end(&self, entries: usize) {
        self.shared.metrics.lost(Lost::Closed, entries as u64);
    }

    /// From now on the thread does not wait, and ends when the queue is empty.
    fn begin_closing(&self) {
        self.shared.closing.store(true, Ordering::Release);
        let mut sender = self.sender.write().unwrap_or_else(PoisonError::into_inner);
        drop(sender.take());
        self.thread.unpark();
    }

    async fn finish(&self) {
        self.ended.closed().await;
        #[cfg(feature = "aws")]
        if let Some(uploads) = &self.uploads {
            uploads.finish().await;
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.begin_closing();
    }
}

impl Settings {
    fn rotation(&self) -> Rotation {
        // The current file is in the spool too, and must not be all of it.
        let half = (self.config.spool_max_bytes / 2).max(1);
        match self.sink {
            Sink::Files => Rotation {
                period_s: DAY_S,
                bytes_max: self.config.file_max_bytes.min(half),
                age_max: None,
            },
            #[cfg(feature = "aws")]
            Sink::S3(_) => Rotation {
                period_s: HOUR_S,
                bytes_max: self.config.batch_max_bytes.min(half),
                age_max: Some(self.config.batch_age),
            },
        }
    }
}

#[cfg(test)]
mod tests;
