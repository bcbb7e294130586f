//! Packages and their assignments to drivers. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::values::id;

/// Longest name of a driver or a package, in characters.
pub const ID_CHARS_MAX: usize = 128;
/// Longest destination, in characters.
pub const DESTINATION_CHARS_MAX: usize = 1000;
pub const MAX_PER_DRIVER: u32 = 10_000;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(from = "Box<str>")]
        pub struct $name(Arc<str>);

        /// Names that were stored before normalization.
        impl From<Box<str>> for $name {
            fn from(stored: Box<str>) -> Self {
                Self::stored(&stored)
            }
        }

        impl $name {
            /// A stored name, valid by the bounds of its time.
            pub fn stored(text: &str) -> Self {
                Self(id::nfc(text).into())
            }

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
    /// A driver's name: 1 to [`ID_CHARS_MAX`] characters and at most [`id::bytes_max`] bytes, without control characters, in
    /// NFC. Cheap to clone.
    DriverId
}
name! {
    /// A package's name: as [`DriverId`].
    PackageId
}

/// Parses an RFC 3339 date, `2142-05-01`, and no other form.
pub fn parse_day(text: &str) -> Option<Date> {
    let plain = text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    text.parse().ok().filter(|_| plain)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Region {
    North,
    East,
    South,
    West,
}

impl Region {
    pub const ALL: [Self; 4] = [Self::North, Self::East, Self::South, Self::West];

    /// The API's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::North => "north",
            Self::East => "east",
            Self::South => "south",
            Self::West => "west",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|region| region.as_str() == word)
    }

    /// The detail for an unknown one.
    pub fn known() -> String {
        format!(
            "The regions are {}.",
            Self::ALL.map(Self::as_str).join(", ")
        )
    }
}

/// A package of a manifest. Numbers are finite, and not negative except the temperature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Package {
    #[serde(rename = "package_id")]
    pub id: PackageId,
    pub weight_kg: f64,
    pub is_perishable: bool,
    pub region: Region,
    /// From the logistics centre.
    pub distance_km: f64,
    pub is_express: bool,
    pub is_fragile: bool,
    /// Class of dangerous goods, 1 to 9, as in the UN's model regulations.
    pub hazmat_class: Option<u8>,
    /// Transport temperature.
    pub temperature_c: f64,
    /// The hour at which it is due, 0 to 23.
    pub delivery_hour: u8,
    pub volume_m3: f64,
    /// The address, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<Box<str>>,
}

/// The least is the most urgent. Perishable packages first, then express ones, then by the hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Urgency(u8);

impl Urgency {
    pub const COUNT: usize = 4 * 24;

    /// From 0 to [`Urgency::COUNT`] - 1.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl Package {
    pub fn urgency(&self) -> Urgency {
        let group = 2 * u8::from(!self.is_perishable) + u8::from(!self.is_express);
        Urgency(24 * group + self.delivery_hour.min(23))
    }
}

/// The progress of a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Assigned,
    Accepted,
    InProgress,
    Delivered,
    FailedToDeliver,
}

impl Status {
    /// In the order of a typical delivery.
    pub const ALL: [Self; 5] = [
        Self::Assigned,
        Self::Accepted,
        Self::InProgress,
        Self::Delivered,
        Self::FailedToDeliver,
    ];

    /// The name in the API and in the stores.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Assigned => "assigned",
            Self::Accepted => "accepted",
            Self::InProgress => "in_progress",
            Self::Delivered => "delivered",
            Self::FailedToDeliver => "failed_to_deliver",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }

    pub fn is_final(self) -> bool {
        matches!(self, Self::Delivered | Self::FailedToDeliver)
    }

    /// Whether `next` may follow. Any may, unless `strict`: then a final status stays. The same status is a retry, and always
    /// allowed.
    pub fn may_become(self, next: Self, strict: bool) -> bool {
        !(strict && self.is_final()) || self == next
    }
}

/// A package's assignment to a driver.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    pub driver: DriverId,
    /// As the manifest described it then.
    pub package: Package,
    pub date: Date,
    pub status: Status,
    /// To the microsecond.
    pub assigned_at: Timestamp,
    /// The latest change of its status, to the microsecond.
    pub updated_at: Timestamp,
}

/// A driver's package on some day.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Held {
    pub driver: DriverId,
    pub package: PackageId,
}

/// A driver's packages of a day, by their status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverCounts {
    pub driver: DriverId,
    /// In the order of [`Status::ALL`].
    pub by_status: [u32; Status::ALL.len()],
}

impl DriverCounts {
    /// Of so many packages, these are beyond [`Status::Assigned`].
    pub fn new(
        driver: DriverId,
        held: u32,
        moved_on: impl IntoIterator<Item = (Status, u32)>,
    ) -> Self {
        let mut by_status = [0; Status::ALL.len()];
        for (status, count) in moved_on {
            by_status[status as usize] += count;
        }
        by_status[Status::Assigned as usize] = 0;
        let others: u32 = by_status.iter().sum();
        by_status[Status::Assigned as usize] = held.saturating_sub(others);
        Self { driver, by_status }
    }

    pub fn of(&self, status: Status) -> u32 {
        self.by_status[status as usize]
    }

    /// All of them.
    pub fn held(&self) -> u32 {
        self.by_status.iter().sum()
    }
}

/// One driver's part of a [`Change`].
#[derive(Debug, Clone, PartialEq)]
pub struct DriverChange {
    pub driver: DriverId,
    /// How many packages of the day they held when the plan was made.
    pub held_before: u32,
    /// Only packages that are still [`Status::Assigned`].
    pub given_up: Vec<PackageId>,
    /// Packages to assign, without a driver on that day once everything is given up.
    pub given: Vec<Package>,
}

/// A change of a day's assignments.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub date: Date,
    /// To the microsecond.
    pub at: Timestamp,
    /// Unique drivers.
    pub drivers: Vec<DriverChange>,
}

/// An update of an assignment's status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    pub driver: DriverId,
    pub package: PackageId,
    pub status: Status,
    /// Whether a final status stays.
    pub strict: bool,
    /// To the microsecond.
    pub at: Timestamp,
}

/// Conditions on assignments, all of which must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    pub driver: Option<DriverId>,
    pub package: Option<PackageId>,
    pub status: Option<Status>,
    pub date: Option<Date>,
}

/// A cursor: the list continues after this assignment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub driver: DriverId,
    /// Only if the store's order depends on it.
    pub date: Option<Date>,
    pub package: PackageId,
}

/// A day's plan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The packages of each requested driver, earlier ones of the day included; the most urgent first.
    pub assignments: BTreeMap<DriverId, Vec<PackageId>>,
    /// Packages of the manifest without a driver; the most urgent first.
    pub unassigned: Vec<PackageId>,
}

impl Plan {
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
