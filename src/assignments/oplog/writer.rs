use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tracing::{info, warn};

use super::entry::Entry;
use super::metrics::{Lost, Metrics};
use super::name::Name;
use super::spool::{Closed, Fullness, Segment, Spool};
use crate::storage::Condition;

/// Most bytes per write, plus one line.
const CHUNK_BYTES: usize = 64 << 10;
/// Interval of retries after a disk error.
const RETRY: Duration = Duration::from_secs(1);
/// How often the end of the day is checked.
const LOOK: Duration = Duration::from_secs(60);
/// When a file is complete.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rotation {
    /// Entries of different periods do not share a file; seconds.
    pub(super) period_s: i64,
    /// Size of the lines, in bytes.
    pub(super) bytes_max: u64,
    pub(super) age_max: Option<Duration>,
}

/// State shared by the thread and the callers.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) metrics: Metrics,
    /// Entries in memory.
    waiting: AtomicUsize,
    waiting_max: usize,
    /// Whether entries fit into memory.
    queue: Condition,
    /// The log is being closed: no more waiting.
    pub(super) closing: AtomicBool,
    /// Whether lines are written.
    pub(super) condition: Condition,
}

impl Shared {
    pub(super) fn new(metrics: Metrics, waiting_max: usize) -> Self {
        Self {
            metrics,
            waiting: AtomicUsize::new(0),
            waiting_max,
            queue: Condition::default(),
            closing: AtomicBool::new(false),
            condition: Condition::default(),
        }
    }

    /// Admits as many entries as fit into memory; the others are counted as lost.
    pub(super) fn admit(&self, entries: usize) -> usize {
        let mut admitted = 0;
        let admit = |waiting: usize| {
            admitted = entries.min(self.waiting_max.saturating_sub(waiting));
            Some(waiting + admitted)
        };
        // The closure always returns `Some`.
        let _ = self
            .waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, admit);
        let lost = entries - admitted;
        if lost > 0 {
            self.metrics.lost(Lost::QueueFull, lost as u64);
            if self.queue.fails("too many entries are waiting") {
                warn!(
                    "entries of the operational log are lost: too many are waiting to be written"
                );
            }
        }
        admitted
    }

    /// Removes entries from the count.
    pub(super) fn left(&self, entries: usize) {
        let before = self.waiting.fetch_sub(entries, Ordering::Relaxed);
        let waiting = before - entries;
        if waiting <= self.waiting_max / 2 && self.queue.works() {
            info!(
                "entries of the operational log are no longer lost: few are waiting to be written"
            );
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

/// Takes entries from the queue, writes and packs the files.
#[derive(Debug)]
pub(super) struct Writer {
    receiver: Receiver<Vec<Entry>>,
    shared: Arc<Shared>,
    spool: Arc<Spool>,
    rotation: Rotation,
    instance: String,
    /// Lines that are not in the file yet, their number, and the time of the first.
    pending: Vec<u8>,
    pending_lines: usize,
    first: Timestamp,
    /// The current file; None until the first write.
    segment: Option<Segment>,
    /// The period of the file's lines and of the pending ones.
    period: i64,
    /// Files to be packed, oldest first.
    closed: VecDeque<Closed>,
    /// The next attempt to pack after a failure.
    pack_again: Option<Instant>,
    fullness: Fullness,
    packing: Condition,
}

impl Writer {
    /// `left`: files of an earlier process.
    pub(super) fn new(
        receiver: Receiver<Vec<Entry>>,
        shared: Arc<Shared>,
        spool: Arc<Spool>,
        rotation: Rotation,
        instance: String,
        left: Vec<Closed>,
    ) -> Self {
        Self {
            receiver,
            shared,
            spool,
            rotation,
            instance,
            pending: Vec::new(),
            pending_lines: 0,
            first: Timestamp::UNIX_EPOCH,
            segment: None,
            period: 0,
            closed: left.into(),
            pack_again: None,
            fullness: Fullness::default(),
            packing: Condition::default(),
        }
    }

    /// Runs until all senders are dropped and all entries are written.
    pub(super) fn run(mut self) {
        loop {
            if self.is_due() {
                self.rotate();
            }
            self.pack();
            match self.receiver.recv_timeout(self.patience()) {
                Ok(entries) => {
                    self.take(&entries);
                    // All queued entries share the write.
                    while let Ok(entries) = self.receiver.try_recv() {
                        self.take(&entries);
                    }
                    self.flush();
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.rotate();
        self.pack_again = None;
        self.pack();
    }

    /// How long to wait for entries.
    fn patience(&self) -> Duration {
        let mut patience = match (&self.segment, self.rotation.age_max) {
            (Some(segment), Some(age_max)) => age_max.saturating_sub(segment.began.elapsed()),
            _ => LOOK,
        };
        if let Some(again) = self.pack_again {
            patience = patience.min(again.saturating_duration_since(Instant::now()));
        }
        patience
    }

    /// Whether the file is complete without further entries.
    fn is_due(&self) -> bool {
        let Some(segment) = &self.segment else {
            return false;
        };
        match self.rotation.age_max {
            Some(age_max) => segment.began.elapsed() >= age_max,
            None => self.period_of(Timestamp::now()) > self.period,
        }
    }

    fn period_of(&self, at: Timestamp) -> i64 {
        at.as_second().div_euclid(self.rotation.period_s)
    }

    fn take(&mut self, entries: &[Entry]) {
        for entry in entries {
            let period = self.period_of(entry.at);
            if period != self.period {
                self.flush();
                self.rotate();
                self.period = period;
            }
            if self.pending.is_empty() {
                self.first = entry.at;
            }
            entry.write_line(&mut self.pending);
            self.pending_lines += 1;
            let written = self.segment.as_ref().map_or(0, Segment::length);
            let complete = written + self.pending.len() as u64 >= self.rotation.bytes_max;
            if complete || self.pending.len() >= CHUNK_BYTES || self.is_due() {
                self.flush();
            }
        }
    }

    /// Writes the pending lines. Waits for a failing disk: new entries queue up in memory, and are lost only beyond its bound.
    fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let bytes = self.pending.len();
        if self
            .fullness
            .is_full(&self.spool, bytes, &self.shared.condition)
        {
            self.lose(Lost::SpoolFull);
        }
        while !self.pending.is_empty() {
            match self.write() {
                Ok(()) => self.wrote(),
                Err(error) => {
                    if self.shared.condition.fails(&error) {
                        warn!(%error, "cannot write the operational log; new entries wait in memory, as far as they fit");
                    }
                    if self.shared.closing.load(Ordering::Acquire) {
                        self.lose(Lost::Disk);
                    } else {
                        thread::park_timeout(RETRY);
                    }
                }
            }
        }
        let written = self.segment.as_ref().map_or(0, Segment::length);
        if written >= self.rotation.bytes_max || self.is_due() {
            self.rotate();
        }
    }

    fn write(&mut self) -> io::Result<()> {
        if self.segment.is_none() {
            let name = Name::new(self.first, &self.instance);
            self.segment = Some(self.spool.begin(name)?);
        }
        if let Some(segment) = &mut self.segment {
            self.spool.append(segment, &self.pending)?;
            segment.lines += self.pending_lines as u64;
        }
        Ok(())
    }

    fn wrote(&mut self) {
        self.shared.metrics.written(self.pending_lines as u64);
        self.forget();
        if self.shared.condition.works() {
            info!("the operational log can be written again");
        }
    }

    fn lose(&mut self, reason: Lost) {
        self.shared.metrics.lost(reason, self.pending_lines as u64);
        self.fullness.lost(self.pending_lines as u64);
        self.forget();
    }

    /// Removes the pending lines from memory.
    fn forget(&mut self) {
        self.pending.clear();
        self.shared.left(std::mem::take(&mut self.pending_lines));
    }

    fn rotate(&mut self) {
        if let Some(segment) = self.segment.take() {
            self.closed.push_back(segment.close());
            self.pack();
        }
    }

    /// Packs complete files; failures are retried later.
    fn pack(&mut self) {
        if self.pack_again.is_some_and(|again| Instant::now() < again) {
            return;
        }
        self.pack_again = None;
        while let Some(closed) = self.closed.front() {
            match self.spool.pack(closed) {
                Ok(()) => {
                    if self.packing.works() {
                        info!("files of the operational log can be packed again");
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let entries = closed.lines;
                    warn!(entries, "a file of the operational log was removed by hand");
                    self.shared.metrics.lost(Lost::Disk, entries);
                }
                Err(error) => {
                    if self.packing.fails(&error) {
                        warn!(%error, "cannot pack a file of the operational log; it stays uncompressed");
                    }
                    self.pack_again = Some(Instant::now() + RETRY);
                    return;
                }
            }
            self.closed.pop_front();
        }
    }
}
