//! The operational log: what was assigned, given up and updated, one line of JSON each, for those who read logs. It is told
//! after the fact, and nobody waits for it: the desk's memory is its store, not this.
//!
//! ```text
//!   note() -> queue -> one thread: segment (plain lines) -> packed file -> archive (files), or
//!                                                                       -> a task: object in S3
//! ```
//!
//! # The promise
//! - **No request waits for it, or fails because of it.** Entries go through a queue with an end; what does not fit is
//!   dropped and counted.
//! - **What was written is not lost when the process is killed.** A **segment** is written without a buffer of our own, and
//!   packed by the next start. The last line, if the kill cut it, is dropped: half a line is of no use, and a reader would
//!   stumble over it. Against a power cut, only complete files are flushed to the disk.
//! - **A packed file is complete or not there.** It is written under another name, flushed, and renamed; only then is the
//!   segment removed.
//! - **A line is in S3 once.** A segment's name says its object's key, so that what is uploaded again after a crash or a lost
//!   answer replaces itself.
//! - **It ends where it should.** The archive has a number of files, the spool a number of bytes, the queue a number of
//!   entries.
//!
//! # When something is away
//! - **The disk is full or fails:** entries wait in the queue; once that is full, the new ones are lost. It is tried again every
//!   second.
//! - **S3 is away, or refuses the files:** packed files wait in the spool, and are tried again, ever less often. If the operator
//!   must repair something, such as a missing bucket or a policy, readiness fails meanwhile. When the spool is full, the oldest stay and the new entries are lost, until something was uploaded and a quarter is free.
//! - **The server stops:** what is left is uploaded for as long as it may take, and what then remains by the next start.
//!
//! Each is said once when it begins, and once when it is over; the metrics count what is lost, and why.

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

mod entry;
mod metrics;
mod name;
#[cfg(feature = "aws")]
mod s3;
mod spool;
mod writer;

pub use entry::{Entry, Kind};
pub use metrics::Metrics;
#[cfg(feature = "aws")]
pub use s3::{probe, provision};

use metrics::Lost;
use spool::{Archive, Spool};
use writer::{Rotation, Shared, Writer};

use crate::storage::State;

/// Where lines are written and wait, below the log's directory.
const SPOOL: &str = "spool";
const HOUR_S: i64 = 3600;
const DAY_S: i64 = 24 * HOUR_S;

/// What the log is made of.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The log's own directory; made if it is missing. One process at a time may have it.
    pub directory: PathBuf,
    /// Where complete files go.
    pub sink: Sink,
    /// This server's name, which is part of each file's. Letters, digits, `.`, `_` and `-` are kept, 64 of them.
    pub instance: String,
    /// [`Sink::Files`]: a file is complete from this size on, in bytes of lines before they are packed.
    pub file_bytes_max: u64,
    /// [`Sink::Files`]: beyond as many files the oldest are removed.
    pub files_max: usize,
    /// `Sink::S3`: a file is complete from this size on, in bytes of lines before they are packed.
    pub batch_bytes_max: u64,
    /// `Sink::S3`: a file is complete from this age on.
    pub batch_age: Duration,
    /// What may wait on the disk until it is in the sink, in bytes; each file counts as whole blocks of 4 KiB. A file is
    /// complete at half of it at the latest.
    pub spool_bytes_max: u64,
    /// Entries that may wait in memory until they are written.
    pub waiting_max: usize,
}

/// Where complete files go.
#[derive(Debug, Clone)]
pub enum Sink {
    /// They stay in the log's directory, one directory per day (UTC): `dt=2026-11-21/<instance>-<uuid>.ndjson.gz`.
    Files,
    /// To a bucket: `<prefix>/dt=2026-11-21/hr=15/<instance>-<uuid>.ndjson.gz`, by the hour of their entries (UTC).
    #[cfg(feature = "aws")]
    S3 {
        /// How it is reached. Its tries and timeouts are replaced by the log's own.
        client: aws_sdk_s3::Client,
        /// The bucket. If it is missing, that is an outage like any other.
        bucket: String,
        /// What the keys begin with, without a slash at its end; may be empty.
        prefix: String,
        /// What each upload asks for.
        encryption: Encryption,
    },
}

/// How an object is encrypted.
#[cfg(feature = "aws")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encryption {
    /// As the bucket says.
    OfBucket,
    /// With keys of S3.
    Aes256,
    /// With this key of KMS; empty: the account's own for S3.
    Kms(String),
}

/// A handle to the log; cheap to clone. When the last one is dropped, what is queued is still written, and uploaded by the
/// next start; whoever wants to wait for that calls [`Oplog::close`].
#[derive(Clone)]
pub struct Oplog {
    /// Nothing: entries go nowhere.
    inner: Option<Arc<Inner>>,
}

struct Inner {
    /// Nothing once the log is closed.
    entrance: RwLock<Option<Sender<Vec<Entry>>>>,
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
    /// Opens the log, takes over what an earlier process left behind, and starts the thread that writes. With S3 it must be
    /// called inside a runtime, which is to outlive the log.
    ///
    /// # Errors
    /// If the directory cannot be made, read or written to. A full disk is no such reason.
    pub fn open(settings: Settings, metrics: Metrics) -> io::Result<Self> {
        let rotation = settings.rotation();
        let Settings {
            directory,
            sink,
            instance,
            files_max,
            spool_bytes_max,
            waiting_max,
            ..
        } = settings;
        let spool = directory.join(SPOOL);
        let archive = match &sink {
            Sink::Files => Some(Archive {
                directory,
                files_max,
            }),
            #[cfg(feature = "aws")]
            Sink::S3 { .. } => None,
        };
        let (spool, left, torn) = Spool::open(spool, archive, spool_bytes_max)?;
        let spool = Arc::new(spool);
        if !left.is_empty() {
            let files = left.len();
            info!(
                files,
                torn, "taking over lines of the operational log that an earlier process left"
            );
            metrics.lost(Lost::Torn, torn);
        }
        #[cfg(feature = "aws")]
        let uploads = match sink {
            Sink::Files => None,
            Sink::S3 {
                client,
                bucket,
                prefix,
                encryption,
            } => {
                let target = s3::Target {
                    client,
                    bucket,
                    prefix,
                    encryption,
                };
                let spool = Arc::clone(&spool);
                Some(s3::Uploads::start(target, spool, metrics.clone())?)
            }
        };
        let (entrance, exit) = channel();
        let (ended, alive) = watch::channel(());
        let shared = Arc::new(Shared::new(metrics, waiting_max));
        let writer = Writer::new(
            exit,
            Arc::clone(&shared),
            Arc::clone(&spool),
            rotation,
            name::instance(&instance),
            left,
        );
        let thread = thread::Builder::new().name("write oplog".to_owned());
        let thread = thread.spawn(move || {
            writer.run();
            drop(alive);
        })?;
        let inner = Inner {
            entrance: RwLock::new(Some(entrance)),
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

    /// A log that keeps nothing, counts nothing and has no thread: for describing the desk's API, and for tests.
    pub fn disabled() -> Self {
        Self { inner: None }
    }

    /// Writes entries down, some time. Never blocks and never fails; what does not fit is lost, from the end, and counted.
    pub fn note(&self, mut entries: Vec<Entry>) {
        let Some(inner) = &self.inner else { return };
        let entrance = inner.entrance.read();
        // Nothing that holds the lock can panic half-way.
        let entrance = entrance.unwrap_or_else(PoisonError::into_inner);
        let Some(entrance) = &*entrance else {
            inner.lost_at_the_end(entries.len());
            return;
        };
        let admitted = inner.shared.admit(entries.len());
        entries.truncate(admitted);
        if admitted > 0 && entrance.send(entries).is_err() {
            inner.shared.left(admitted);
            inner.lost_at_the_end(admitted);
        }
    }

    /// Takes nothing more in, writes what is queued, and brings it to the sink, for as long as `patience` lasts; what is left
    /// then stays in the spool for the next start. Other handles may still be there.
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

    /// Whether lines are written, and the bucket takes them, since when, and why not; nothing if there is no log. A bucket that
    /// is out of reach for a while counts as one that takes them.
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

    /// Brings the gauges up to date.
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

    /// From now on the thread waits for nothing, and ends when the queue is empty.
    fn begin_closing(&self) {
        self.shared.closing.store(true, Ordering::Release);
        let mut entrance = self
            .entrance
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        drop(entrance.take());
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
        // The file that is written to is in the spool too, and must not be all of it.
        let half = (self.spool_bytes_max / 2).max(1);
        match self.sink {
            Sink::Files => Rotation {
                period_s: DAY_S,
                bytes_max: self.file_bytes_max.min(half),
                age_max: None,
            },
            #[cfg(feature = "aws")]
            Sink::S3 { .. } => Rotation {
                period_s: HOUR_S,
                bytes_max: self.batch_bytes_max.min(half),
                age_max: Some(self.batch_age),
            },
        }
    }
}

#[cfg(test)]
mod tests;
