//! Values of configuration sections as they are written, and their bounds.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use garde::Error;
use ipnet::IpNet;
use jiff::SignedDuration;
use jiff::fmt::friendly::{Designator, Spacing, SpanParser, SpanPrinter};
use serde::{Deserialize, Deserializer, de};

const FOREVER: &str = "forever";

/// What a section refuses that needs the feature `aws`.
pub const WITHOUT_AWS: &str = "this build is without the feature `aws`";

/// A value that is written as text.
pub trait Text: Sized {
    /// # Errors
    /// A sentence on the wrong text.
    fn read(text: &str) -> Result<Self, String>;

    fn write(&self) -> String;
}

/// Such as `90s`, `2m`, `1h 30m`.
impl Text for Duration {
    fn read(text: &str) -> Result<Self, String> {
        let duration = SpanParser::new().parse_duration(text).ok();
        duration
            .and_then(|duration| Self::try_from(duration).ok())
            .ok_or_else(|| format!("{text:?} is not a duration such as 90s, 2m or 1h 30m"))
    }

    fn write(&self) -> String {
        let printer = SpanPrinter::new()
            .designator(Designator::Compact)
            .spacing(Spacing::BetweenUnits);
        SignedDuration::try_from(*self).map_or_else(
            |_| format!("{}s", self.as_secs()),
            |duration| printer.duration_to_string(&duration),
        )
    }
}

/// `forever` is none.
impl Text for Option<Duration> {
    fn read(text: &str) -> Result<Self, String> {
        let time = (text != FOREVER).then(|| Duration::read(text));
        time.transpose()
    }

    fn write(&self) -> String {
        self.map_or_else(|| FOREVER.to_owned(), |time| time.write())
    }
}

/// An address with a port. Names are not resolved: DNS must not decide where this process listens.
impl Text for SocketAddr {
    fn read(text: &str) -> Result<Self, String> {
        let local = text.strip_prefix("localhost:");
        let local = local.map(|port| format!("127.0.0.1:{port}"));
        local.as_deref().unwrap_or(text).parse().map_err(|_| {
            "it must be an IP address with a port, such as 127.0.0.1:8000, 0.0.0.0:8000 or [::1]:8000; localhost:8000 is \
             127.0.0.1:8000, other names are not looked up"
                .to_owned()
        })
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

/// For `#[serde(with)]`.
pub(crate) mod text {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use super::Text;

    pub(crate) fn serialize<T: Text, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&value.write())
    }

    pub(crate) fn deserialize<'de, T: Text, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        T::read(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// For `#[serde(with)]`: counts, or `auto`, which is none.
pub(crate) mod auto {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
    use serde_json::Value;

    const AUTO: &str = "auto";

    #[expect(clippy::ref_option, reason = "serde calls it with the field")]
    pub(crate) fn serialize<S: Serializer>(
        count: &Option<usize>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match count {
            None => serializer.serialize_str(AUTO),
            Some(count) => count.serialize(serializer),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<usize>, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let count = match value.as_str() {
            Some(AUTO) => return Ok(None),
            // The environment has only text.
            Some(text) => text.parse().ok(),
            None => value.as_u64().and_then(|count| count.try_into().ok()),
        };
        let expected = || de::Error::custom("it must be a number from 1, or \"auto\"");
        count.ok_or_else(expected).map(Some)
    }
}

/// Networks such as `10.0.0.0/8`, or single addresses.
///
/// # Errors
/// If one is neither.
pub fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let network = |text: &str| {
        let address = || text.parse::<IpAddr>().map(IpNet::from);
        text.parse::<IpNet>().or_else(|_| address()).map_err(|_| {
            de::Error::custom(format!(
                "{text:?} is neither an address nor a network such as 10.0.0.0/8"
            ))
        })
    };
    let texts = Vec::<String>::deserialize(deserializer)?;
    let texts = texts.iter().map(|text| text.trim());
    let texts = texts.filter(|text| !text.is_empty());
    texts.map(network).collect()
}

/// A value with bounds, which are written as in `config.default.toml`.
pub trait Bounded {
    type Bound: Copy + Display;

    fn is_within(&self, least: Self::Bound, most: Self::Bound) -> bool;
}

macro_rules! bounded_numbers {
    ($($number:ty),*) => {$(
        impl Bounded for $number {
            type Bound = Self;

            fn is_within(&self, least: Self, most: Self) -> bool {
                (least..=most).contains(self)
            }
        }
    )*};
}

bounded_numbers!(u8, u32, u64, usize);

impl Bounded for Duration {
    type Bound = &'static str;

    fn is_within(&self, least: &'static str, most: &'static str) -> bool {
        let [least, most] = [least, most].map(Self::read);
        least.is_ok_and(|least| least <= *self) && most.is_ok_and(|most| *self <= most)
    }
}

/// `auto` and `forever` are within all bounds.
impl<T: Bounded> Bounded for Option<T> {
    type Bound = T::Bound;

    fn is_within(&self, least: T::Bound, most: T::Bound) -> bool {
        let value = self.as_ref();
        value.is_none_or(|value| value.is_within(least, most))
    }
}

/// Accepts values within these bounds; for `#[garde(custom)]`, as all that follow.
pub fn within<T: Bounded>(
    least: T::Bound,
    most: T::Bound,
) -> impl FnOnce(&T, &()) -> garde::Result {
    move |value, ()| {
        if value.is_within(least, most) {
            return Ok(());
        }
        Err(Error::new(format!("it must be from {least} to {most}")))
    }
}

/// Refuses the value if this is so, mostly because of another key of its section.
pub fn refuse_if<T: ?Sized>(
    is_wrong: bool,
    detail: impl Display,
) -> impl FnOnce(&T, &()) -> garde::Result {
    move |_, ()| {
        if is_wrong {
            return Err(Error::new(detail));
        }
        Ok(())
    }
}

/// Accepts lists of texts that fit; `what` says what each of them must be.
pub fn each(fits: fn(&str) -> bool, what: &str) -> impl FnOnce(&[String], &()) -> garde::Result {
    move |texts, ()| match texts.iter().find(|text| !text.is_empty() && !fits(text)) {
        Some(text) => Err(Error::new(format!("{text:?} is not {what}"))),
        None => Ok(()),
    }
}
