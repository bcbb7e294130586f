use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, UnboundedSender};
use tokio::time::timeout;
use tracing::{info, warn};

use super::entry::Entry;
use super::file::{Current, Name, footprint, oldest_first, trim};
use super::metrics::Lost;
use super::{Config, SPOOL, Shared};
use crate::storage::directory;

/// Interval of flushes: the lines of one share a gzip member.
const FLUSH: Duration = Duration::from_millis(250);
/// Most bytes of a flush, plus one line.
const FLUSH_BYTES_MAX: usize = 32 << 10;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Interval of retries after a disk error.
const RETRY: Duration = Duration::from_secs(1);

/// A complete file in the spool, and its length in bytes.
pub(super) type Waiting = (Name, u64);

/// Takes entries from the queue, and writes the files.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) receiver: Receiver<Entry>,
    pub(super) shared: Arc<Shared>,
    pub(super) config: Config,
    pub(super) directory: PathBuf,
    /// None: files are archived.
    pub(super) uploads: Option<UnboundedSender<Waiting>>,
    pub(super) current: Option<Current>,
    /// Entries are dropped until a quarter of the spool is free: the log has one gap instead of many.
    pub(super) is_full: bool,
}

impl Writer {
    /// Runs until the log is closed and all entries are written.
    pub(super) async fn run(mut self) {
        if let Err(error) = self.recover() {
            warn!(%error, "cannot take over the operational log's files of an earlier process");
        }
        let closing = self.shared.closing.clone();
        while !self.receiver.is_closed() {
            let interval = FLUSH.min(self.config.batch_age);
            if timeout(interval, closing.cancelled()).await.is_ok() {
                self.receiver.close();
            }
            while let Ok(entry) = self.receiver.try_recv() {
                self.take(&entry).await;
            }
            self.flush().await;
            // An archived file is complete, and on the disk, after a day at most.
            let age_max = match self.uploads {
                Some(_) => self.config.batch_age,
                None => DAY,
            };
            let is_old = |current: &Current| current.began.elapsed() >= age_max;
            if self.current.as_ref().is_some_and(is_old) {
                self.complete().await;
            }
        }
        // Those that were being queued.
        while let Some(entry) = self.receiver.recv().await {
            self.take(&entry).await;
        }
        self.complete().await;
    }

    /// Takes over the files of an earlier process. A kill may have torn the end of the newest.
    fn recover(&self) -> io::Result<()> {
        let directory = match self.uploads {
            Some(_) => self.directory.join(SPOOL),
            None => self.directory.clone(),
        };
        directory::create(&directory)?;
        let files = oldest_first(&directory)?;
        let torn = files.last().map_or(Ok(0), |newest| trim(newest));
        let torn = torn.unwrap_or_else(|error| {
            warn!(%error, "cannot check the newest file of the operational log");
            0
        });
        self.shared.metrics.lost(Lost::Torn, torn);
        let spool = self.directory.join(SPOOL);
        let spooled = fs::read_dir(&spool).map_or(0, Iterator::count);
        let taken_over = if self.uploads.is_some() {
            files.len()
        } else {
            0
        };
        if spooled > taken_over {
            let (files, spool) = (spooled - taken_over, spool.display());
            warn!(files, %spool, "files of another sink or of an earlier version stay where they are");
        }
        let Some(uploads) = &self.uploads else {
            return Ok(());
        };
        if !files.is_empty() {
            let files = files.len();
            info!(
                files,
                torn, "uploading files of the operational log of an earlier process"
            );
        }
        for path in files {
            // The newest may have been removed.
            let Ok(file) = fs::metadata(&path) else {
                continue;
            };
            let name = path.file_name().and_then(|name| name.to_str());
            if let Some(name) = name.and_then(Name::parse) {
                self.shared.resized(0, file.len());
                let _ = uploads.send((name, file.len()));
            } else {
                warn!(path = %path.display(), "this is not a file of the operational log; it stays");
            }
        }
        Ok(())
    }

    async fn take(&mut self, entry: &Entry) {
        let is_uploaded = self.uploads.is_some();
        let is_other = |current: &Current| !current.name.is_of(entry.at, is_uploaded);
        if self.current.as_ref().is_some_and(is_other) {
            self.complete().await;
        }
        let current = self.current.get_or_insert_with(|| {
            let name = Name::new(entry.at, &self.config.instance);
            let path = if is_uploaded {
                name.in_spool(&self.directory.join(SPOOL))
            } else {
                name.in_archive(&self.directory)
            };
            Current::new(name, path)
        });
        current.push(&entry.line());
        self.shared.unsaved.store(current.unsaved_entries, Relaxed);
        let Config {
            batch_max_bytes,
            file_max_bytes,
            spool_max_bytes,
            ..
        } = self.config;
        let bytes_max = if is_uploaded {
            batch_max_bytes
        } else {
            file_max_bytes
        };
        // The current file is in the spool too, and must not be all of it.
        if current.bytes >= bytes_max.min(spool_max_bytes / 2) {
            self.complete().await;
        } else if current.unsaved.len() >= FLUSH_BYTES_MAX {
            self.flush().await;
        }
    }

    /// Writes the lines to the file. Waits for a failing disk: new entries queue up in memory, and are lost only beyond its bound.
    async fn flush(&mut self) {
        let Self {
            current: Some(current),
            shared,
            ..
        } = self
        else {
            return;
        };
        if current.unsaved.is_empty() {
            return;
        }
        let max = self.config.spool_max_bytes;
        let limit = if self.is_full { max / 4 * 3 } else { max };
        let bytes = footprint(current.unsaved.len() as u64);
        self.is_full = self.uploads.is_some() && shared.spooled() + bytes > limit;
        let said = "the spool of the operational log is full: entries are lost until the oldest are uploaded";
        if self.is_full && shared.disk.fails(said) {
            warn!("{said}");
        }
        let before = current.length;
        let mut lost = self.is_full.then_some(Lost::SpoolFull);
        while lost.is_none()
            && let Err(error) = current.save()
        {
            if shared.disk.fails(&error) {
                warn!(%error, "cannot write the operational log; new entries wait in memory, as far as they fit");
            }
            // Ends at once when the log is closed.
            let _ = timeout(RETRY, shared.closing.cancelled()).await;
            lost = shared.closing.is_cancelled().then_some(Lost::Disk);
        }
        let entries = current.clear();
        shared.unsaved.store(0, Relaxed);
        if let Some(reason) = lost {
            shared.metrics.lost(reason, entries);
            return;
        }
        shared.metrics.written.increment(entries);
        if self.uploads.is_some() {
            shared.resized(before, current.length);
        }
        if shared.disk.works() {
            info!("the operational log can be written again");
        }
        if self.receiver.len() <= self.receiver.max_capacity() / 2 && shared.queue.works() {
            info!(
                "entries of the operational log are no longer lost: few are waiting to be written"
            );
        }
    }

    /// Flushes the file to the disk, and uploads or archives it; the next entry begins another one.
    async fn complete(&mut self) {
        self.flush().await;
        let Some(Current {
            name,
            path,
            file: Some(file),
            length,
            ..
        }) = self.current.take()
        else {
            return;
        };
        if length == 0 {
            // Nothing could be written to it. If it cannot be removed either, the next start does it.
            drop(file);
            let _ = fs::remove_file(&path);
            return;
        }
        // Without a part of a member that could not be written.
        let synced = file.set_len(length).and_then(|()| file.sync_all());
        let synced = synced.and_then(|()| directory::sync_parent(&path));
        if let Err(error) = synced
            && self.shared.disk.fails(&error)
        {
            warn!(%error, "a file of the operational log may not survive a power cut");
        }
        if let Some(uploads) = &self.uploads {
            let _ = uploads.send((name, length));
        } else if let Err(error) = self.prune() {
            warn!(%error, "cannot remove old files of the operational log");
        }
    }

    /// Removes the oldest files of the archive.
    fn prune(&self) -> io::Result<()> {
        let files = oldest_first(&self.directory)?;
        let too_many = files.len().saturating_sub(self.config.files_max);
        for path in &files[..too_many] {
            fs::remove_file(path)?;
            // Only an empty one can be removed.
            let _ = path.parent().map(fs::remove_dir);
        }
        Ok(())
    }
}
