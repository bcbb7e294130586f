use std::fmt;

#[cfg(feature = "aws")]
use jiff::Timestamp;
use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

#[derive(Clone)]
pub struct Metrics {
    written: Counter,
    queue_full: Counter,
    spool_full: Counter,
    disk: Counter,
    torn: Counter,
    closed: Counter,
    waiting: Gauge,
    spooled: Gauge,
    #[cfg(feature = "aws")]
    stored: Counter,
    #[cfg(feature = "aws")]
    failed: Counter,
    #[cfg(feature = "aws")]
    last_stored: Gauge,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// The queue was full.
    QueueFull,
    /// The spool was full.
    SpoolFull,
    /// They could not be written until the log was closed, or their file is gone.
    Disk,
    /// A crash cut the last line of a file.
    Torn,
    /// They came after the log was closed.
    Closed,
}

const LOST: &str = "odyssey_oplog_entries_lost_total";
#[cfg(feature = "aws")]
const UPLOADS: &str = "odyssey_oplog_uploads_total";

impl Metrics {
    /// Registers all metrics with the current recorder (see [`crate::telemetry`]).
    pub fn register() -> Self {
        describe_counter!(
            "odyssey_oplog_entries_written_total",
            "Entries of the operational log that were written to its spool"
        );
        describe_counter!(
            LOST,
            "Entries of the operational log that are lost, by reason"
        );
        describe_gauge!(
            "odyssey_oplog_waiting_entries",
            "Entries of the operational log in memory, not written yet"
        );
        describe_gauge!(
            "odyssey_oplog_spooled_bytes",
            "Bytes on the disk that are not in the operational log's sink yet, in blocks of 4 KiB"
        );
        let lost = |reason: &'static str| counter!(LOST, "reason" => reason);
        #[cfg(feature = "aws")]
        let uploads = |result: &'static str| {
            describe_counter!(
                UPLOADS,
                "Attempts to upload a file of the operational log, by result"
            );
            counter!(UPLOADS, "result" => result)
        };
        #[cfg(feature = "aws")]
        describe_gauge!(
            "odyssey_oplog_last_upload_timestamp_seconds",
            "When the operational log was last uploaded, in Unix seconds; 0: not since the start"
        );
        Self {
            written: counter!("odyssey_oplog_entries_written_total"),
            queue_full: lost("queue_full"),
            spool_full: lost("spool_full"),
            disk: lost("disk"),
            torn: lost("torn"),
            closed: lost("closed"),
            waiting: gauge!("odyssey_oplog_waiting_entries"),
            spooled: gauge!("odyssey_oplog_spooled_bytes"),
            #[cfg(feature = "aws")]
            stored: uploads("stored"),
            #[cfg(feature = "aws")]
            failed: uploads("failed"),
            #[cfg(feature = "aws")]
            last_stored: gauge!("odyssey_oplog_last_upload_timestamp_seconds"),
        }
    }

    pub(super) fn written(&self, entries: u64) {
        self.written.increment(entries);
    }

    pub(super) fn lost(&self, reason: Lost, entries: u64) {
        match reason {
            Lost::QueueFull => &self.queue_full,
            Lost::SpoolFull => &self.spool_full,
            Lost::Disk => &self.disk,
            Lost::Torn => &self.torn,
            Lost::Closed => &self.closed,
        }
        .increment(entries);
    }

    #[cfg(feature = "aws")]
    pub(super) fn uploaded(&self, stored: bool) {
        if stored {
            self.stored.increment(1);
            self.last_stored
                .set(Timestamp::now().as_duration().as_secs_f64());
        } else {
            self.failed.increment(1);
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "nothing here comes near 2^52")]
    pub(super) fn show(&self, waiting: usize, spooled: u64) {
        self.waiting.set(waiting as f64);
        self.spooled.set(spooled as f64);
    }
}
