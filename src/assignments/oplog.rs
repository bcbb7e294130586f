//! The operational log: assigned, given up and updated packages, one line of JSON each, for log readers. It is written after
//! the fact, and no request waits for it: the desk's state is in its store, not here.
//!
//! ```text
//!   note() -> queue -> one thread: file in the archive, or
//!                                  file in the spool -> a task: object in S3
//! ```
//!
//! # Guarantees
//! - **No request waits for it, or fails because of it.** The queue is bounded; what does not fit is dropped and counted.
//! - **Flushed lines survive a kill of the process**, unflushed ones do not. Each flush appends a gzip member, so that a file is
//!   readable at any time. Only complete files survive a power cut.
//! - **A line is in S3 once.** The object's key is the file's name, so that a repeated upload overwrites itself.
//! - **It is bounded.** The archive by a number of files, the spool by bytes, the queue by a number of entries.
//!
//! # Outages
//! - **The disk is full or fails:** entries wait in the queue; once that is full, new ones are lost. Retried every second.
//! - **S3 is down, or rejects the files:** they wait in the spool, and are retried with backoff. If the operator must repair
//!   something, such as a missing bucket or a policy, readiness fails. When the spool is full, the oldest stay and new entries are
//!   lost, until a quarter is free.
//! - **The server stops:** what is left is uploaded within a time limit, and the rest by the next start.
//!
//! The begin and the end of each are logged once; the metrics count lost entries, by reason.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use tokio::runtime;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub mod config;
mod entry;
mod file;
mod metrics;
#[cfg(feature = "aws")]
mod s3;
mod writer;

pub use config::Config;
pub use entry::{Cause, Entry, Kind};
pub use metrics::Metrics;
#[cfg(feature = "aws")]
pub use s3::{probe, provision};

use file::footprint;
use metrics::Lost;
use writer::Writer;

use crate::storage::{Condition, State, directory};

/// Subdirectory of the log's directory for files that wait for their upload.
const SPOOL: &str = "spool";

/// Where files go.
#[derive(Debug, Clone)]
pub enum Sink {
    /// The log's directory, with one subdirectory per day (UTC): `dt=2026-11-21/<instance>-<uuid>.ndjson.gz`.
    Files,
    /// A bucket: `<prefix>/dt=2026-11-21/hr=15/<instance>-<uuid>.ndjson.gz`, by the hour of the entries (UTC).
    /// The client's retries and timeouts are replaced by the log's own.
    #[cfg(feature = "aws")]
    S3(aws_sdk_s3::Client),
}

/// A handle to the log; cheap to clone. When the last one is dropped, queued entries are still written; to wait for that, call
/// [`Oplog::close`].
#[derive(Debug, Clone)]
pub struct Oplog {
    /// None: entries are discarded.
    inner: Option<Arc<Inner>>,
}

#[derive(Debug)]
struct Inner {
    sender: mpsc::Sender<Entry>,
    shared: Arc<Shared>,
    uploads: Option<AbortHandle>,
    /// Closed once the thread and the uploads have ended.
    ended: watch::Sender<()>,
}

/// State shared by the handles, the thread and the uploads.
#[derive(Debug)]
struct Shared {
    metrics: Metrics,
    /// Whether entries fit into the queue.
    queue: Condition,
    /// Whether lines are written.
    disk: Condition,
    /// Down while the operator must repair something, so that the bucket accepts files.
    bucket: Condition,
    /// Entries that left the queue, and are not in a file.
    unsaved: AtomicUsize,
    /// In whole blocks.
    spooled_bytes: AtomicU64,
    /// Cancelled when no more entries are accepted.
    closing: CancellationToken,
}

impl Oplog {
    /// Opens the log in a directory, which is created if it is missing, and starts the thread that writes it. With S3 it must be
    /// called inside a runtime, which must outlive the log. One process at a time: the lock of the data directory excludes a
    /// second.
    ///
    /// # Errors
    /// If the directory cannot be created.
    pub fn open(
        directory: PathBuf,
        sink: &Sink,
        config: Config,
        metrics: Metrics,
    ) -> io::Result<Self> {
        directory::create(&directory)?;
        let shared = Arc::new(Shared {
            metrics,
            queue: Condition::default(),
            disk: Condition::default(),
            bucket: Condition::default(),
            unsaved: AtomicUsize::default(),
            spooled_bytes: AtomicU64::default(),
            closing: CancellationToken::new(),
        });
        let (ended, alive) = watch::channel(());
        let (files, uploads) = match sink {
            Sink::Files => (None, None),
            #[cfg(feature = "aws")]
            Sink::S3(client) => {
                let (sender, files) = mpsc::unbounded_channel();
                let spool = directory.join(SPOOL);
                let uploads = s3::Uploads::new(client, config.clone(), spool, Arc::clone(&shared));
                let runtime = runtime::Handle::try_current().map_err(io::Error::other)?;
                let task = runtime.spawn(uploads.run(files, alive.clone()));
                (Some(sender), Some(task.abort_handle()))
            }
        };
        let (sender, receiver) = mpsc::channel(config.waiting_max);
        let writer = Writer {
            receiver,
            shared: Arc::clone(&shared),
            config,
            directory,
            uploads: files,
            current: None,
            is_full: false,
        };
        // Of its own: the writer blocks on the disk.
        let runtime = runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        let thread = thread::Builder::new().name("write oplog".to_owned());
        thread.spawn(move || {
            runtime.block_on(writer.run());
            drop(alive);
        })?;
        let inner = Inner {
            sender,
            shared,
            uploads,
            ended,
        };
        Ok(Self {
            inner: Some(Arc::new(inner)),
        })
    }

    /// Discards all entries: to describe the desk's API, and for tests.
    pub fn disabled() -> Self {
        Self { inner: None }
    }

    /// Queues entries. Never blocks and never fails; what does not fit is dropped and counted.
    pub fn note(&self, entries: Vec<Entry>) {
        let Some(Inner { sender, shared, .. }) = self.inner.as_deref() else {
            return;
        };
        for entry in entries {
            match sender.try_send(entry) {
                Ok(()) => {}
                Err(TrySendError::Closed(_)) => shared.metrics.lost(Lost::Closed, 1),
                Err(TrySendError::Full(_)) => {
                    shared.metrics.lost(Lost::QueueFull, 1);
                    if shared.queue.fails("too many entries are waiting") {
                        warn!(
                            "entries of the operational log are lost: too many are waiting to be written"
                        );
                    }
                }
            }
        }
    }

    /// Rejects new entries, writes the queued ones, and uploads them, within `patience`; the rest stays in the spool for the
    /// next start. Other handles may still exist.
    pub async fn close(&self, patience: Duration) {
        let Some(inner) = &self.inner else { return };
        inner.shared.closing.cancel();
        let ended = tokio::time::timeout(patience, inner.ended.closed()).await;
        if ended.is_err() {
            let bytes = inner.shared.spooled();
            warn!(
                bytes,
                "a part of the operational log stays in its spool until the next start"
            );
            // A partial upload does not exist in S3.
            if let Some(uploads) = &inner.uploads {
                uploads.abort();
            }
        }
    }

    /// Whether lines are written, and the bucket accepts them, since when, and why not; None if there is no log. A bucket that
    /// is temporarily unreachable counts as up.
    pub fn state(&self) -> Option<State> {
        let Shared { disk, bucket, .. } = &*self.inner.as_ref()?.shared;
        let is_written = disk.is_healthy();
        let first = if is_written && !bucket.is_healthy() {
            bucket
        } else {
            disk
        };
        Some(first.state())
    }

    pub fn update_gauges(&self) {
        let Some(Inner { sender, shared, .. }) = self.inner.as_deref() else {
            return;
        };
        let queued = sender.max_capacity() - sender.capacity();
        let waiting = queued + shared.unsaved.load(Relaxed);
        shared.metrics.show(waiting, shared.spooled());
    }
}

impl Shared {
    fn spooled(&self) -> u64 {
        self.spooled_bytes.load(Relaxed)
    }

    /// A file in the spool has another length.
    fn resized(&self, before: u64, after: u64) {
        self.spooled_bytes.fetch_add(footprint(after), Relaxed);
        self.spooled_bytes.fetch_sub(footprint(before), Relaxed);
    }
}

#[cfg(test)]
mod tests;
