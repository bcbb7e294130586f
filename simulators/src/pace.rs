//! Two scales of time: measured (what the clock here shows) and simulated (what would have passed in the shop).
//!
//! Everything on the command line is simulated time, everything that is clocked is measured time;
//! only [`Speed`] converts between them, so that no figure is ever on an unknown scale.

use std::{str::FromStr, time::Duration};

use serde::{Serialize, Serializer};

/// How many simulated seconds pass in one measured second. 0.01 to 100,000.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(transparent)]
pub(crate) struct Speed(f64);

impl Speed {
    const MIN: f64 = 0.01;
    const MAX: f64 = 100_000.0;

    /// For durations in real time.
    pub(crate) const REAL_TIME: Self = Self(1.0);

    /// From the shop's time to the clock's.
    pub(crate) fn measured(self, simulated: Duration) -> Duration {
        simulated.div_f64(self.0)
    }

    /// From the clock's time to the shop's.
    pub(crate) fn simulated(self, measured: Duration) -> Duration {
        measured.mul_f64(self.0)
    }

    /// From a measured rate per second to a simulated one.
    pub(crate) fn simulated_rate(self, measured: f64) -> f64 {
        measured / self.0
    }

    /// Whether both scales are the same, so that naming both would only confuse.
    pub(crate) fn is_real_time(self) -> bool {
        (self.0 - 1.0).abs() < f64::EPSILON
    }

    /// The bare factor.
    pub(crate) fn factor(self) -> f64 {
        self.0
    }
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(factor) if (Self::MIN..=Self::MAX).contains(&factor) => Ok(Self(factor)),
            _ => Err(format!(
                "expected a factor between {} and {}",
                Self::MIN,
                Self::MAX
            )),
        }
    }
}

/// A span of time on both scales, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Span {
    #[serde(rename = "measured_s", serialize_with = "seconds")]
    pub(crate) measured: Duration,
    #[serde(rename = "simulated_s", serialize_with = "seconds")]
    pub(crate) simulated: Duration,
}

impl Span {
    pub(crate) fn new(measured: Duration, speed: Speed) -> Self {
        Self {
            measured,
            simulated: speed.simulated(measured),
        }
    }
}

/// A duration as a number of seconds.
pub(crate) fn seconds<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    // Microseconds are as fine as the histogram behind these figures.
    serializer.serialize_f64((span.as_secs_f64() * 1e6).round() / 1e6)
}

/// A duration that there may not be.
#[expect(
    clippy::ref_option,
    reason = "this is the form in which serde hands over a field"
)]
pub(crate) fn maybe_seconds<S: Serializer>(
    span: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match span {
        Some(span) => seconds(span, serializer),
        None => serializer.serialize_none(),
    }
}

/// A duration as one would say it: `3.2 ms`, `450 ms`, `12.3 s`, `6 min 01 s`, `1 h 05 min`.
pub(crate) fn spoken(span: Duration) -> String {
    let seconds = span.as_secs_f64();
    let whole = round_to_whole(seconds);
    if seconds < 0.00995 {
        format!("{:.1} ms", seconds * 1e3)
    } else if seconds < 0.9995 {
        format!("{:.0} ms", seconds * 1e3)
    } else if seconds < 59.95 {
        format!("{seconds:.1} s")
    } else if whole < 3600 {
        format!("{} min {:02} s", whole / 60, whole % 60)
    } else {
        let minutes = round_to_whole(seconds / 60.0);
        format!("{} h {:02} min", minutes / 60, minutes % 60)
    }
}

/// Nearest whole number; durations here are far below where this could lose anything.
fn round_to_whole(value: f64) -> u64 {
    Duration::from_secs_f64(value.round()).as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_converts_both_ways() {
        let speed: Speed = "100".parse().unwrap();
        assert_eq!(
            speed.measured(Duration::from_secs(30)),
            Duration::from_millis(300)
        );
        assert_eq!(
            speed.simulated(Duration::from_millis(300)),
            Duration::from_secs(30)
        );
        assert!((speed.simulated_rate(20.0) - 0.2).abs() < 1e-9);
        assert!(!speed.is_real_time());
        assert!("1".parse::<Speed>().unwrap().is_real_time());
    }

    #[test]
    fn speed_has_bounds() {
        for text in ["0", "-1", "100001", "NaN", "inf", "fast", ""] {
            assert!(text.parse::<Speed>().is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_spoken_without_odd_roundings() {
        for (millis, words) in [
            (0, "0.0 ms"),
            (7, "7.0 ms"),
            (450, "450 ms"),
            (1_000, "1.0 s"),
            (59_940, "59.9 s"),
            (59_960, "1 min 00 s"),
            (361_000, "6 min 01 s"),
            (3_599_900, "1 h 00 min"),
            (3_900_000, "1 h 05 min"),
        ] {
            assert_eq!(spoken(Duration::from_millis(millis)), words);
        }
    }
}
