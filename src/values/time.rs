//! RFC 3339 timestamps in microseconds.

use std::cell::Cell;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Serialize, Serializer};

/// Fractional digits that the parser accepts.
const DIGITS_MAX: usize = 9;
/// Microseconds of a day.
const DAY_MICROS: u64 = 86_400_000_000;
const LEAP: &str = "60";

/// Reads RFC 3339. Fractional digits beyond the sixth are truncated.
///
/// A leap second (`23:59:60` UTC on the last day of a month) is read as the last microsecond before midnight: after
/// everything in the second before it, and before everything of the next day. Two different times within it are equal.
pub fn parse(text: &str) -> Option<Timestamp> {
    let Some(written) = Written::of(text) else {
        return to_micros(text.parse().ok()?);
    };
    let minute = written.clock.strip_suffix(LEAP);
    let clock = minute.map_or_else(|| written.clock.into(), |minute| format!("{minute}59"));
    let (separator, digits) = match written.fraction.len() {
        0 => ("", ""),
        length => (".", &written.fraction[..length.min(DIGITS_MAX)]),
    };
    let Written { date, zone, .. } = written;
    let at: Timestamp = format!("{date}T{clock}{separator}{digits}{zone}")
        .parse()
        .ok()?;
    if minute.is_none() {
        return to_micros(at);
    }
    let second = Timestamp::from_second(at.as_second()).ok()?;
    ends_a_month(second)
        .then(|| Timestamp::from_microsecond(second.as_microsecond() + 999_999).ok())
        .flatten()
}

/// Reads seconds since 1970, rounded to microseconds.
pub fn from_seconds(seconds: f64) -> Option<Timestamp> {
    let micros = (seconds * 1e6).round();
    // The range of timestamps, within which the conversion is exact.
    if !(-1e18..1e18).contains(&micros) {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "it was checked, and rounded"
    )]
    Timestamp::from_microsecond(micros as i64).ok()
}

/// The parts of a timestamp that the parser does not read as RFC 3339 defines them.
struct Written<'a> {
    date: &'a str,
    clock: &'a str,
    fraction: &'a str,
    zone: &'a str,
}

impl<'a> Written<'a> {
    /// The parts, if there is a leap second or a long fraction among them.
    fn of(text: &'a str) -> Option<Self> {
        let (date, rest) = text.split_once(['T', 't', ' '])?;
        let (time, zone) = rest.split_at(rest.find(['Z', 'z', '+', '-'])?);
        let (clock, fraction) = time.split_once(['.', ',']).unwrap_or((time, ""));
        let is_leap = clock.len() >= "HHMM60".len() && clock.ends_with(LEAP);
        let is_number = fraction.bytes().all(|digit| digit.is_ascii_digit());
        let is_special = is_number && (is_leap || fraction.len() > DIGITS_MAX);
        is_special.then_some(Self {
            date,
            clock,
            fraction,
            zone,
        })
    }
}

fn to_micros(at: Timestamp) -> Option<Timestamp> {
    Timestamp::from_microsecond(at.as_microsecond()).ok()
}

/// Whether this is the last second of a month, in UTC.
fn ends_a_month(second: Timestamp) -> bool {
    let at = second.to_zoned(TimeZone::UTC);
    let midnight = (at.hour(), at.minute(), at.second()) == (23, 59, 59);
    midnight && at.date() == at.date().last_of_month()
}

/// RFC 3339 in UTC, always with six fractional digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(pub Timestamp);

impl From<Timestamp> for Moment {
    fn from(at: Timestamp) -> Self {
        Self(at)
    }
}

thread_local! {
    /// Cache of the last day since the epoch and its date: the calendar costs more than the rest of an answer.
    static DAY: Cell<(i64, [u8; 10])> = const { Cell::new((i64::MIN, [0; 10])) };
}

impl Moment {
    /// The date of this day, from the epoch on.
    fn date(self, day: i64) -> [u8; 10] {
        let (last, mut date) = DAY.get();
        if last != day {
            date.copy_from_slice(&format!("{:.6}", self.0).as_bytes()[..10]);
            DAY.set((day, date));
        }
        date
    }
}

impl Moment {
    /// Its text; none before 1970.
    pub(super) fn digits(self) -> Option<[u8; 27]> {
        let micros = u64::try_from(self.0.as_microsecond()).ok()?;
        let (day, of_day) = (micros / DAY_MICROS, micros % DAY_MICROS);
        let (second, micros) = (of_day / 1_000_000, of_day % 1_000_000);
        let mut text = *b"1970-01-01T00:00:00.000000Z";
        text[..10].copy_from_slice(&self.date(day.cast_signed()));
        let mut two_digits = |place: usize, number: u64| {
            let number = u8::try_from(number % 100).unwrap_or_default();
            text[place] = b'0' + number / 10;
            text[place + 1] = b'0' + number % 10;
        };
        two_digits(11, second / 3600);
        two_digits(14, second / 60 % 60);
        two_digits(17, second % 60);
        two_digits(20, micros / 10_000);
        two_digits(22, micros / 100);
        two_digits(24, micros);
        Some(text)
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.digits() {
            Some(digits) => {
                serializer.serialize_str(std::str::from_utf8(&digits).unwrap_or_default())
            }
            None => serializer.collect_str(&format_args!("{:.6}", self.0)),
        }
    }
}

/// Serializes a timestamp as [`Moment`].
///
/// # Errors
/// The serializer's.
pub fn shown<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    Moment(*at).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_read_to_the_microsecond_with_leap_seconds_and_any_number_of_digits() {
        for (text, shown) in [
            ("2142-05-01T12:00:00Z", "2142-05-01T12:00:00.000000Z"),
            ("2142-05-01t12:00:00.5z", "2142-05-01T12:00:00.500000Z"),
            ("2142-05-01T14:00:00+02:00", "2142-05-01T12:00:00.000000Z"),
            (
                "2142-05-01T12:00:00.123456789Z",
                "2142-05-01T12:00:00.123456Z",
            ),
            (
                "2142-05-01T12:00:00.1234567899Z",
                "2142-05-01T12:00:00.123456Z",
            ),
            (
                "2142-05-01T12:00:00.99999999999999999999999999999999999999Z",
                "2142-05-01T12:00:00.999999Z",
            ),
            ("2142-06-30T23:59:60Z", "2142-06-30T23:59:59.999999Z"),
            ("2142-06-30T23:59:60.5Z", "2142-06-30T23:59:59.999999Z"),
            (
                "2142-06-30T23:59:60.00000000000Z",
                "2142-06-30T23:59:59.999999Z",
            ),
            ("1990-12-31T15:59:60-08:00", "1990-12-31T23:59:59.999999Z"),
            ("2143-01-01T01:59:60+02:00", "2142-12-31T23:59:59.999999Z"),
            ("1969-12-31T23:59:60Z", "1969-12-31T23:59:59.999999Z"),
        ] {
            let read = parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(serde_json::to_value(Moment(read)).unwrap(), shown, "{text}");
        }
    }

    #[test]
    fn a_time_is_shown_in_the_same_way_whichever_was_shown_before() {
        let at = |second, nanos| Timestamp::new(second, nanos).unwrap();
        for at in [
            at(0, 0),
            at(0, 999_999_999),
            at(1, 0),
            at(1, 42_999),
            at(1, 1_000),
            at(0, 1),
            at(86_399, 999_999_999),
            at(86_400, 0),
            at(951_868_799, 0),
            at(1_709_164_800, 5_000_000),
            at(-1, -500_000_000),
            at(0, -1_000),
            Timestamp::MIN,
            at(4_102_444_799, 123_456_789),
            Timestamp::MAX,
            at(4_102_444_799, 7),
        ] {
            let shown = serde_json::to_value(Moment(at)).unwrap();
            assert_eq!(shown, format!("{at:.6}"), "{at:?}");
        }
    }

    #[test]
    fn what_is_no_timestamp_is_not_read() {
        for text in [
            "",
            "yesterday",
            "2142-05-01",
            "2142-05-01T12:00:00",
            "2142-13-01T12:00:00Z",
            "2142-05-01T12:00:61Z",
            // No leap second is there, ...
            "2142-05-01T12:00:60Z",
            "2142-06-30T23:59:60+02:00",
            "2142-06-29T23:59:60Z",
            "21420630T120060Z",
            // ... nor a minute 60.
            "2142-06-30T23:60Z",
            "2142-05-01T12:00:00.12345678901x2Z",
            "2142-05-01T12:00:00.Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_leap_second_is_after_the_second_before_it_and_before_the_next_day() {
        let at = |text: &str| parse(text).unwrap();
        assert!(at("2142-06-30T23:59:60Z") > at("2142-06-30T23:59:59.9Z"));
        assert!(at("2142-06-30T23:59:60Z") >= at("2142-06-30T23:59:59.999999999Z"));
        assert!(at("2142-06-30T23:59:60.999999Z") < at("2142-07-01T00:00:00Z"));
    }
}
