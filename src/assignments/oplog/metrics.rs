use std::fmt;

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

#[derive(Clone)]
pub struct Metrics {
    pub(super) written: Counter,
    lost: [Counter; REASONS.len()],
    waiting: Gauge,
    spooled: Gauge,
    #[cfg(feature = "aws")]
    pub(super) stored: Counter,
    #[cfg(feature = "aws")]
    pub(super) failed: Counter,
    #[cfg(feature = "aws")]
    pub(super) last_stored: Gauge,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Why entries are lost, in the order of [`REASONS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    QueueFull,
    SpoolFull,
    /// They could not be written until the log was closed.
    Disk,
    /// A kill cut the end of a file.
    Torn,
    /// They came after the log was closed.
    Closed,
}

const REASONS: [&str; 5] = ["queue_full", "spool_full", "disk", "torn", "closed"];
const WRITTEN: &str = "odyssey_oplog_entries_written_total";
const LOST: &str = "odyssey_oplog_entries_lost_total";
const WAITING: &str = "odyssey_oplog_waiting_entries";
const SPOOLED: &str = "odyssey_oplog_spooled_bytes";
#[cfg(feature = "aws")]
const UPLOADS: &str = "odyssey_oplog_uploads_total";
#[cfg(feature = "aws")]
const LAST_UPLOAD: &str = "odyssey_oplog_last_upload_timestamp_seconds";

impl Metrics {
    /// Registers all metrics with the current recorder (see [`crate::telemetry`]).
    pub fn register() -> Self {
        describe_counter!(
            WRITTEN,
            "Entries of the operational log that were written to its files"
        );
        describe_counter!(
            LOST,
            "Entries of the operational log that are lost, by reason"
        );
        describe_gauge!(
            WAITING,
            "Entries of the operational log in memory, not written yet"
        );
        let help = "Bytes on the disk that are not in the operational log's bucket yet, in blocks of 4 KiB";
        describe_gauge!(SPOOLED, help);
        #[cfg(feature = "aws")]
        {
            describe_counter!(
                UPLOADS,
                "Uploads of a file of the operational log, each with its retries, by result"
            );
            let help = "When the operational log was last uploaded, in Unix seconds; 0: not since the start";
            describe_gauge!(LAST_UPLOAD, help);
        }
        Self {
            written: counter!(WRITTEN),
            lost: REASONS.map(|reason| counter!(LOST, "reason" => reason)),
            waiting: gauge!(WAITING),
            spooled: gauge!(SPOOLED),
            #[cfg(feature = "aws")]
            stored: counter!(UPLOADS, "result" => "stored"),
            #[cfg(feature = "aws")]
            failed: counter!(UPLOADS, "result" => "failed"),
            #[cfg(feature = "aws")]
            last_stored: gauge!(LAST_UPLOAD),
        }
    }

    pub(super) fn lost(&self, reason: Lost, entries: u64) {
        self.lost[reason as usize].increment(entries);
    }

    #[expect(clippy::cast_precision_loss, reason = "nothing here comes near 2^52")]
    pub(super) fn show(&self, waiting: usize, spooled: u64) {
        self.waiting.set(waiting as f64);
        self.spooled.set(spooled as f64);
    }
}
