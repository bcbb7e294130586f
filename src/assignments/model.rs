//! Drivers, packages, manifests and assignments. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::rules::Rule;
use crate::values::id;

/// The longest name of a driver or a package, in characters.
pub const ID_CHARS_MAX: usize = 128;
/// The longest destination, in characters.
pub const DESTINATION_CHARS_MAX: usize = 1000;
/// The largest `max_per_driver`.
pub const MAX_PER_DRIVER: u32 = 10_000;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(from = "Box<str>")]
        pub struct $name(Arc<str>);

        /// What was stored before names were normalized is read as if they had been.
        impl From<Box<str>> for $name {
            fn from(stored: Box<str>) -> Self {
                Self::stored(&stored)
            }
        }

        impl $name {
            /// A name that was stored, by whatever bounds were in force then.
            pub fn stored(text: &str) -> Self {
                Self(id::nfc(text).into())
            }

            /// The name, or nothing if it is none.
            pub fn parse(text: &str) -> Option<Self> {
                id::parse(text, ID_CHARS_MAX).map(|id| Self(id.into()))
            }

            /// In NFC.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// A driver's name: 1 to [`ID_CHARS_MAX`] characters and at most [`id::bytes_max`] bytes, none of them a control
    /// character, in NFC. Cheap to clone.
    DriverId
}
name! {
    /// A package's name: 1 to [`ID_CHARS_MAX`] characters and at most [`id::bytes_max`] bytes, none of them a control
    /// character, in NFC. Cheap to clone.
    PackageId
}

/// The day that is written so, as RFC 3339 has it: `2142-05-01`, and nothing else that means a day or a time.
pub fn parse_day(text: &str) -> Option<Date> {
    let plain = text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    text.parse().ok().filter(|_| plain)
}

/// Where a package goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Region {
    /// North.
    North,
    /// East.
    East,
    /// South.
    South,
    /// West.
    West,
}

impl Region {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::North, Self::East, Self::South, Self::West];

    /// The word the API uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::North => "north",
            Self::East => "east",
            Self::South => "south",
            Self::West => "west",
        }
    }

    /// The region of this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|region| region.as_str() == word)
    }
}

/// A package of the day. Numbers are finite, and not negative but for the temperature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Package {
    /// Its name.
    #[serde(rename = "package_id")]
    pub id: PackageId,
    /// Kilograms.
    pub weight_kg: f64,
    /// Whether it spoils.
    pub is_perishable: bool,
    /// Where it goes.
    pub region: Region,
    /// Kilometres from the logistics centre.
    pub distance_km: f64,
    /// Whether it is express.
    pub is_express: bool,
    /// Whether it breaks.
    pub is_fragile: bool,
    /// Class of dangerous goods (1 to 9, as the UN's model regulations number them), if it is any.
    pub hazmat_class: Option<u8>,
    /// Degrees Celsius at which it is carried.
    pub temperature_c: f64,
    /// The hour at which it is due, 0 to 23.
    pub delivery_hour: u8,
    /// Cubic metres.
    pub volume_m3: f64,
    /// Where it goes, as an address, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<Box<str>>,
}

/// How much a package presses; the least presses most. Perishable ones first, then express ones, then by the hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Urgency(u8);

impl Urgency {
    /// How many there are.
    pub const COUNT: usize = 4 * 24;

    /// Its number, from 0.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl Package {
    /// How much it presses.
    pub fn urgency(&self) -> Urgency {
        let group = 2 * u8::from(!self.is_perishable) + u8::from(!self.is_express);
        Urgency(24 * group + self.delivery_hour.min(23))
    }
}

/// A driver of the day.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Driver {
    /// Their name.
    #[serde(rename = "driver_id")]
    pub id: DriverId,
    /// What a package must satisfy for them, all of it.
    pub rules: Vec<NamedRule>,
}

/// A rule as a manifest has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NamedRule {
    /// Its name, if it has one.
    #[serde(rename = "rule_id", default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Box<str>>,
    /// What it says.
    #[serde(flatten)]
    pub rule: Rule,
}

/// A day's lists. No driver and no package is in it twice.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Manifest {
    /// Who drives.
    pub drivers: Vec<Driver>,
    /// What is to be delivered.
    pub packages: Vec<Package>,
}

/// How far a package has come with its driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Given to the driver.
    Assigned,
    /// The driver knows.
    Accepted,
    /// On the way.
    InProgress,
    /// Done.
    Delivered,
    /// Not done.
    FailedToDeliver,
}

impl Status {
    /// All of them, in the order in which a story goes.
    pub const ALL: [Self; 5] = [
        Self::Assigned,
        Self::Accepted,
        Self::InProgress,
        Self::Delivered,
        Self::FailedToDeliver,
    ];

    /// The word the API uses, and engines keep.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Assigned => "assigned",
            Self::Accepted => "accepted",
            Self::InProgress => "in_progress",
            Self::Delivered => "delivered",
            Self::FailedToDeliver => "failed_to_deliver",
        }
    }

    /// The status of this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }

    /// Whether the story is over with it.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Delivered | Self::FailedToDeliver)
    }

    /// Whether this one may follow. Any may, unless `strict`: then a final one stays. The same one again changes nothing,
    /// and always may: it is a retry.
    pub fn may_become(self, next: Self, strict: bool) -> bool {
        !(strict && self.is_final()) || self == next
    }
}

/// A package that was given to a driver.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// To whom.
    pub driver: DriverId,
    /// What, as the manifest described it then.
    pub package: Package,
    /// For which day.
    pub date: Date,
    /// How far it has come.
    pub status: Status,
    /// When it was given, to the microsecond.
    pub assigned_at: Timestamp,
    /// When its status was last said, to the microsecond.
    pub updated_at: Timestamp,
}

/// A package that a driver has on some day.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Held {
    /// Who.
    pub driver: DriverId,
    /// What.
    pub package: PackageId,
}

/// What of a day is changed for one driver, together.
#[derive(Debug, Clone, PartialEq)]
pub struct DriverChange {
    /// Whose.
    pub driver: DriverId,
    /// How many packages of the day they hold, as far as the planner knew.
    pub held_before: u32,
    /// Packages that are taken from them; only those that are still [`Status::Assigned`].
    pub given_up: Vec<PackageId>,
    /// Packages that are given to them, which nobody holds on that day once everything is given up.
    pub given: Vec<Package>,
}

/// What of a day is changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Which day.
    pub date: Date,
    /// When it is done, to the microsecond.
    pub at: Timestamp,
    /// For whom; nobody is in it twice.
    pub drivers: Vec<DriverChange>,
}

/// A word on how far a package has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// Who says it.
    pub driver: DriverId,
    /// Of what.
    pub package: PackageId,
    /// How far.
    pub status: Status,
    /// Whether a final status stays.
    pub strict: bool,
    /// When it is said, to the microsecond.
    pub at: Timestamp,
}

/// Which assignments are asked for: those that fit all that is said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Of this driver.
    pub driver: Option<DriverId>,
    /// Of this package.
    pub package: Option<PackageId>,
    /// Of this status.
    pub status: Option<Status>,
    /// Of this day.
    pub date: Option<Date>,
}

/// Where a list goes on: after this assignment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The last one's driver.
    pub driver: DriverId,
    /// The last one's day, if the store's order goes by it.
    pub date: Option<Date>,
    /// The last one's package.
    pub package: PackageId,
}

/// A planned day: by driver, and what nobody has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// What each driver holds that was asked for, earlier ones of the day included; what presses most first.
    pub assignments: BTreeMap<DriverId, Vec<PackageId>>,
    /// Packages of the manifest that no driver holds; what presses most first.
    pub unassigned: Vec<PackageId>,
}

impl Plan {
    /// How many names are in it.
    pub fn items(&self) -> usize {
        let assigned = self.assignments.values().map(|packages| 1 + packages.len());
        assigned.sum::<usize>() + self.unassigned.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_bounds() {
        assert!(DriverId::parse("driver_1").is_some());
        assert!(DriverId::parse("Zoë 7").is_some());
        assert!(DriverId::parse(&"ü".repeat(ID_CHARS_MAX)).is_some());
        let many_bytes = "\u{1f4e6}".repeat(ID_CHARS_MAX / 2 + 1);
        for bad in ["", "a\nb", "\0", &"x".repeat(ID_CHARS_MAX + 1), &many_bytes] {
            assert!(PackageId::parse(bad).is_none(), "{bad:?}");
        }
        assert_eq!(PackageId::stored(&many_bytes).as_str(), many_bytes);
    }

    #[test]
    fn a_name_is_compared_in_one_form_also_if_it_was_stored_in_another() {
        let name = DriverId::parse("Zo\u{eb}").unwrap();
        assert_eq!(DriverId::parse("Zoe\u{308}"), Some(name.clone()));
        let stored: DriverId = serde_json::from_str("\"Zoe\u{308}\"").unwrap();
        assert_eq!(stored, name);
        assert_eq!(serde_json::to_value(name).unwrap(), "Zo\u{eb}");
    }

    #[test]
    fn a_day_is_written_in_one_way() {
        assert_eq!(parse_day("2142-05-01"), Some(jiff::civil::date(2142, 5, 1)));
        for other in [
            "2142-05-01T10:00:00+02:00",
            "21420501",
            "-009999-01-01",
            "2142-5-1",
            "2142-02-30",
            "2142-05-01 ",
            "tomorrow",
            "",
        ] {
            assert_eq!(parse_day(other), None, "{other:?}");
        }
    }

    #[test]
    fn every_word_is_read_as_it_is_written() {
        for status in Status::ALL {
            assert_eq!(Status::parse(status.as_str()), Some(status));
            let json = serde_json::to_value(status).unwrap();
            assert_eq!(json, status.as_str());
        }
        for region in Region::ALL {
            assert_eq!(Region::parse(region.as_str()), Some(region));
            assert_eq!(serde_json::to_value(region).unwrap(), region.as_str());
        }
        assert_eq!(Status::parse("Delivered"), None);
    }

    #[test]
    fn final_ones_stay_if_it_is_strict() {
        for from in Status::ALL {
            for to in Status::ALL {
                assert!(from.may_become(to, false));
                let stays = from.is_final() && from != to;
                assert_eq!(from.may_become(to, true), !stays, "{from:?} to {to:?}");
            }
        }
    }
}
