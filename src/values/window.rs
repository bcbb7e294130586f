//! Counts and durations of the last ten minutes, without a lock: each costs one atomic update.
//!
//! Time is an argument: what has passed since the owner began. A cell has the number of its slot next to its count, so that a
//! slot of ten minutes ago needs no clearing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Slots of [`Counts`].
pub const SLOTS: usize = 60;
/// The time of one of them.
pub const SLOT: Duration = Duration::from_secs(10);

/// Slots of [`Spread`], a minute each.
const MINUTES: usize = 10;
/// Buckets per power of two: a bucket's middle is within a sixteenth of all its values.
const PER_OCTAVE: usize = 8;
/// Up to 2^37 µs, which is 38 hours.
const BUCKETS: usize = 35 * PER_OCTAVE;

/// The number of a slot.
fn slot(now: Duration, length: Duration) -> u64 {
    now.as_secs() / length.as_secs()
}

/// A slot's number in the upper half, its count in the lower.
#[derive(Debug, Default)]
struct Cell(AtomicU64);

impl Cell {
    fn add(&self, slot: u64, count: u32) {
        let fresh = (slot << 32) | u64::from(count);
        let added = |old: u64| {
            Some(if old >> 32 < slot {
                fresh
            } else {
                old.saturating_add(count.into())
            })
        };
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, added);
    }

    /// Zero if it has another slot's count.
    fn of(&self, slot: u64) -> u32 {
        let now = self.0.load(Ordering::Relaxed);
        let count = u32::try_from(now & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        if now >> 32 == slot { count } else { 0 }
    }
}

/// How often something happened, in [`SLOTS`] slots of [`SLOT`].
#[derive(Debug)]
pub struct Counts([Cell; SLOTS]);

impl Default for Counts {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Cell::default()))
    }
}

impl Counts {
    pub fn add(&self, now: Duration, count: u32) {
        let slot = slot(now, SLOT);
        self.0[index(slot, SLOTS)].add(slot, count);
    }

    /// The oldest first; the last is that of this moment.
    pub fn series(&self, now: Duration) -> [u32; SLOTS] {
        let last = slot(now, SLOT);
        std::array::from_fn(|place| {
            let back = (SLOTS - 1 - place) as u64;
            last.checked_sub(back)
                .map_or(0, |slot| self.0[index(slot, SLOTS)].of(slot))
        })
    }

    pub fn total(&self, now: Duration) -> u64 {
        self.series(now).iter().map(|&count| u64::from(count)).sum()
    }
}

fn index(slot: u64, slots: usize) -> usize {
    usize::try_from(slot % slots as u64).unwrap_or_default()
}

/// Durations, in buckets that grow with them.
#[derive(Debug)]
pub struct Spread {
    /// By minute, then by bucket.
    cells: Box<[Cell]>,
}

impl Default for Spread {
    fn default() -> Self {
        let cells = (0..MINUTES * BUCKETS).map(|_| Cell::default());
        Self {
            cells: cells.collect(),
        }
    }
}

impl Spread {
    pub fn add(&self, now: Duration, took: Duration) {
        let minute = slot(now, Duration::from_secs(60));
        let place = index(minute, MINUTES) * BUCKETS + bucket(took);
        self.cells[place].add(minute, 1);
    }

    /// The durations that so many percent do not exceed, of the last ten minutes, within a sixteenth. None if there were none.
    pub fn percentiles<const N: usize>(
        &self,
        now: Duration,
        percents: [u32; N],
    ) -> Option<[Duration; N]> {
        let last = slot(now, Duration::from_secs(60));
        let mut counts = [0; BUCKETS];
        for minute in (last.saturating_sub(MINUTES as u64 - 1))..=last {
            let from = index(minute, MINUTES) * BUCKETS;
            for (count, cell) in counts.iter_mut().zip(&self.cells[from..from + BUCKETS]) {
                *count += u64::from(cell.of(minute));
            }
        }
        let total: u64 = counts.iter().sum();
        (total > 0).then(|| {
            percents.map(|percent| {
                let rank = (total * u64::from(percent)).div_ceil(100).max(1);
                let mut seen = 0;
                let found = counts.iter().position(|&count| {
                    seen += count;
                    seen >= rank
                });
                middle(found.unwrap_or(BUCKETS - 1))
            })
        })
    }
}

fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let Some(octave) = micros.checked_ilog2().filter(|&octave| octave >= 3) else {
        return usize::try_from(micros).unwrap_or_default();
    };
    let part = usize::try_from((micros >> (octave - 3)) & 7).unwrap_or_default();
    let bucket = (octave as usize - 2) * PER_OCTAVE + part;
    bucket.min(BUCKETS - 1)
}

fn middle(bucket: usize) -> Duration {
    if bucket < PER_OCTAVE {
        return Duration::from_micros(bucket as u64);
    }
    let (octave, part) = (bucket / PER_OCTAVE - 1, bucket % PER_OCTAVE);
    let from = ((PER_OCTAVE + part) as u64) << octave;
    Duration::from_micros(from + (1 << octave) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn counts_are_forgotten_after_ten_minutes() {
        let counts = Counts::default();
        counts.add(secs(3), 2);
        counts.add(secs(9), 1);
        counts.add(secs(10), 4);
        let series = counts.series(secs(11));
        assert_eq!(series[SLOTS - 2..], [3, 4]);
        assert_eq!(counts.total(secs(599)), 7);
        assert_eq!(counts.total(secs(600)), 4);
        assert_eq!(counts.total(secs(610)), 0);
        counts.add(secs(605), 5);
        assert_eq!(counts.total(secs(605)), 9);
        // Hours later.
        assert_eq!(counts.total(secs(100_000)), 0);
    }

    #[test]
    fn a_late_count_does_not_undo_a_newer_slot() {
        let counts = Counts::default();
        counts.add(secs(600), 1);
        counts.add(secs(0), 1);
        assert_eq!(counts.total(secs(600)), 2);
    }

    #[test]
    fn percentiles_are_within_a_sixteenth() {
        let spread = Spread::default();
        assert_eq!(spread.percentiles(secs(0), [50]), None);
        for micros in 1..=100_000 {
            spread.add(secs(micros / 1000), Duration::from_micros(micros));
        }
        let found = spread.percentiles(secs(100), [1, 50, 90, 99]).unwrap();
        for (found, micros) in found.iter().zip([1000, 50_000, 90_000, 99_000]) {
            let error = found.as_secs_f64() / (f64::from(micros) * 1e-6) - 1.0;
            assert!(error.abs() < 1.0 / 16.0, "{found:?} for {micros} µs");
        }
        assert_eq!(spread.percentiles(secs(60 * 12), [50]), None);
    }

    #[test]
    fn every_duration_has_a_bucket() {
        for micros in [0, 1, 7, 8, 9, 15, 16, 1_000_000, u64::MAX] {
            let bucket = bucket(Duration::from_micros(micros));
            assert!(bucket < BUCKETS, "{micros}");
        }
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
        let middles: Vec<_> = (0..BUCKETS).map(middle).collect();
        assert!(middles.is_sorted());
        for (at, middle) in middles.into_iter().enumerate() {
            assert_eq!(bucket(middle), at);
        }
    }
}
