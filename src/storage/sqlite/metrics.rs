//! Handles are made once; counting is an atomic addition.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};

use crate::values::window::Spread;

/// Labelled with the database's name.
#[derive(Clone)]
pub struct Metrics {
    commits: Counter,
    operations: Counter,
    operations_per_commit: Histogram,
    commit: Histogram,
    queue_depth: Gauge,
    well: Gauge,
    sound: Gauge,
    checked: Gauge,
    begun: Instant,
    recent_commits: Arc<Spread>,
}

/// Histogram of operations per commit.
pub const OPERATIONS_PER_COMMIT: &str = "odyssey_storage_operations_per_commit";
pub const BUCKETS_OPERATIONS: [f64; 10] =
    [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];
/// Histogram of commit times, in seconds.
pub const COMMIT_SECONDS: &str = "odyssey_storage_commit_seconds";
/// A flush takes 50 µs on a good disk, 10 ms on a spinning one, and a commit with a checkpoint some times that.
pub const BUCKETS_SECONDS: [f64; 12] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5,
];

impl Metrics {
    /// Registers everything with the recorder that is current (see [`crate::telemetry`]), for the database in this file.
    pub fn register(path: &Path) -> Self {
        const COMMITS: &str = "odyssey_storage_commits_total";
        const OPERATIONS: &str = "odyssey_storage_operations_total";
        const QUEUE_DEPTH: &str = "odyssey_storage_queue_depth";
        const WELL: &str = "odyssey_storage_well";
        const SOUND: &str = "odyssey_storage_sound";
        const CHECKED: &str = "odyssey_storage_checked_timestamp_seconds";
        describe_counter!(COMMITS, "Commits that changed something");
        describe_counter!(
            OPERATIONS,
            "Operations in batches that were committed, refused ones included"
        );
        describe_histogram!(OPERATIONS_PER_COMMIT, "Operations that shared a commit");
        describe_histogram!(COMMIT_SECONDS, "Time a commit took, its flush included");
        describe_gauge!(QUEUE_DEPTH, "Operations that wait for the writer");
        describe_gauge!(WELL, "1 while writes to the storage succeed, 0 otherwise");
        describe_gauge!(
            SOUND,
            "1 if the last check, the one at the start included, found no damage, 0 otherwise"
        );
        describe_gauge!(
            CHECKED,
            "When the files were checked last, seconds since 1970"
        );
        let database = name(path);
        Self {
            commits: counter!(COMMITS, "database" => database.clone()),
            operations: counter!(OPERATIONS, "database" => database.clone()),
            operations_per_commit: histogram!(OPERATIONS_PER_COMMIT, "database" => database.clone()),
            commit: histogram!(COMMIT_SECONDS, "database" => database.clone()),
            queue_depth: gauge!(QUEUE_DEPTH, "database" => database.clone()),
            well: gauge!(WELL, "database" => database.clone()),
            sound: gauge!(SOUND, "database" => database.clone()),
            checked: gauge!(CHECKED, "database" => database),
            begun: Instant::now(),
            recent_commits: Arc::default(),
        }
    }

    /// `took`: the commit's time, if anything was changed.
    pub(super) fn committed(&self, operations: usize, took: Option<Duration>) {
        self.operations.increment(operations as u64);
        if let Some(took) = took {
            self.commits.increment(1);
            self.operations_per_commit.record(as_value(operations));
            self.commit.record(took);
            self.recent_commits.add(self.begun.elapsed(), took);
        }
    }

    /// The time that 99 % of the commits of the last ten minutes did not exceed; None if there were none.
    pub(super) fn commit_p99(&self) -> Option<Duration> {
        let found = self.recent_commits.percentiles(self.begun.elapsed(), [99]);
        found.map(|[p99]| p99)
    }

    pub(super) fn checked(&self, sound: bool) {
        self.sound.set(f64::from(u8::from(sound)));
        self.checked
            .set(Timestamp::now().as_duration().as_secs_f64());
    }

    pub(super) fn show(&self, waiting: usize, well: bool) {
        self.queue_depth.set(as_value(waiting));
        self.well.set(f64::from(u8::from(well)));
    }
}

/// A database's name: its file's, without the extension.
pub(super) fn name(path: &Path) -> String {
    path.file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn as_value(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}
