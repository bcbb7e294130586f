//! Packages, preferences, and the decision between delivered and dropped. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::Hasher;

use jiff::Timestamp;
use siphasher::sip::SipHasher24;

use crate::values::id;

/// Longest id of a package, a sender or a recipient, in characters.
pub const ID_CHARS_MAX: usize = 128;
pub const TYPE_CHARS_MAX: usize = 64;
/// Types that every update of preferences must contain, if they are configured.
pub const ALWAYS_REQUIRED: [&str; 2] = ["personal", "marketing"];

/// The id of a package, a sender or a recipient: 1 to [`ID_CHARS_MAX`] characters and at most [`id::bytes_max`] bytes, without
/// control characters, in NFC. Ids are path segments, so `.` and `..` are excluded.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(Box<str>);

impl Id {
    pub fn parse(text: &str) -> Option<Self> {
        let id = id::parse(text, ID_CHARS_MAX)?;
        id::is_addressable(&id).then(|| Self(id.into()))
    }

    /// In NFC.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the ledger calls a package with this id, where each sender has ids of their own: an id has no control character, so
    /// no two of these are the same.
    #[must_use]
    pub fn of_sender(&self, sender: &Self) -> Self {
        Self(format!("{sender}\u{1f}{self}").into())
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A type of package: its index in [`Types`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackageType(pub usize);

/// The configured types of packages.
#[derive(Debug, Clone)]
pub struct Types {
    /// Name, and whether it is accepted without a preference.
    types: Vec<(Box<str>, bool)>,
}

impl Types {
    /// These types; those in `opt_in` are only delivered if the recipient has accepted them.
    ///
    /// # Errors
    /// A sentence, if a name is invalid, duplicate, or only in `opt_in`.
    pub fn new(names: &[String], opt_in: &[String]) -> Result<Self, String> {
        if names.is_empty() {
            return Err("there must be at least one type".to_owned());
        }
        for (at, name) in names.iter().enumerate() {
            let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            let fits = (1..=TYPE_CHARS_MAX).contains(&name.len()) && name.chars().all(letters);
            if !fits {
                return Err(format!(
                    "{name:?} is not a type: 1 to {TYPE_CHARS_MAX} of a-z, 0-9 and _"
                ));
            }
            if names[..at].contains(name) {
                return Err(format!("{name:?} comes twice"));
            }
        }
        if let Some(stray) = opt_in.iter().find(|name| !names.contains(name)) {
            return Err(format!("{stray:?} is not one of the types"));
        }
        let entry = |name: &String| (name.as_str().into(), !opt_in.contains(name));
        Ok(Self {
            types: names.iter().map(entry).collect(),
        })
    }

    pub fn find(&self, name: &str) -> Option<PackageType> {
        let mut names = self.types.iter();
        names.position(|entry| &*entry.0 == name).map(PackageType)
    }

    /// In the order of the configuration.
    pub fn all(&self) -> impl Iterator<Item = (PackageType, &str)> {
        let numbered = self.types.iter().enumerate();
        numbered.map(|(at, entry)| (PackageType(at), &*entry.0))
    }

    pub fn name(&self, package_type: PackageType) -> &str {
        &self.types[package_type.0].0
    }

    /// Whether it is accepted without a preference.
    pub fn is_accepted_by_default(&self, package_type: PackageType) -> bool {
        self.types[package_type.0].1
    }
}

/// A package to be processed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// This alone identifies it.
    pub id: Id,
    /// When the sender sent it.
    pub timestamp: Timestamp,
    pub sender: Id,
    pub recipient: Id,
    pub package_type: PackageType,
}

impl Package {
    /// A digest of everything except the id. It is stored, so its definition must not change: SipHash-2-4 with the key 0, of
    /// the timestamp in microseconds, then sender, recipient and type's name, each preceded by its length.
    pub fn digest(&self, types: &Types) -> u64 {
        let mut digest = SipHasher24::new();
        digest.write(&self.timestamp.as_microsecond().to_le_bytes());
        let name = types.name(self.package_type);
        for text in [self.sender.as_str(), self.recipient.as_str(), name] {
            digest.write(&(text.len() as u64).to_le_bytes());
            digest.write(text.as_bytes());
        }
        digest.finish()
    }
}

/// A recipient's preference for one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preference {
    /// From the request.
    pub timestamp: Timestamp,
    /// Whether the type is accepted.
    pub takes: bool,
}

/// A recipient's preferences by type.
pub type Preferences = BTreeMap<PackageType, Preference>;

/// An update of preferences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    pub recipient: Id,
    pub timestamp: Timestamp,
    /// Types that are not in it keep their preference.
    pub takes: BTreeMap<PackageType, bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    Delivered,
    /// The recipient had declined its type.
    Dropped,
}

impl Outcome {
    /// The API's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Dropped => "dropped",
        }
    }
}

/// A row of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processed {
    pub outcome: Outcome,
    /// The name of its type, which may no longer be configured.
    pub type_name: Box<str>,
    /// Timestamp of the preference that decided; None if there was none.
    pub preference_timestamp: Option<Timestamp>,
}

/// The answer to a sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The first outcome.
    pub processed: Processed,
    /// It was sent before, ...
    pub duplicate: bool,
    /// ... with other fields.
    pub mismatch: bool,
}

/// Packages of one type by outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    pub delivered: u64,
    pub dropped: u64,
}

/// Counts since the beginning.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Statistics {
    /// By the type's name, including types that are no longer configured.
    pub by_type: BTreeMap<String, Tally>,
    /// Malformed requests.
    pub rejected: u64,
}

impl Statistics {
    /// The sum of all types.
    pub fn total(&self) -> Tally {
        self.by_type
            .values()
            .fold(Tally::default(), |sum, tally| Tally {
                delivered: sum.delivered + tally.delivered,
                dropped: sum.dropped + tally.dropped,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types() -> Types {
        Types::new(&["personal".to_owned(), "marketing".to_owned()], &[]).unwrap()
    }

    const PERSONAL: PackageType = PackageType(0);

    #[test]
    fn types_are_checked() {
        for (names, opt_in, fits) in [
            (&["personal"][..], &[][..], true),
            (&["personal", "news_2"], &["news_2"], true),
            (&[], &[], false),
            (&["Personal"], &[], false),
            (&[""], &[], false),
            (&["a", "a"], &[], false),
            (&["a"], &["b"], false),
        ] {
            let owned = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
            let checked = Types::new(&owned(names), &owned(opt_in));
            assert_eq!(checked.is_ok(), fits, "{names:?} {opt_in:?}");
        }
    }

    #[test]
    fn an_id_has_1_to_128_characters_and_256_bytes() {
        assert!(Id::parse("").is_none());
        assert!(Id::parse("ü".repeat(128).as_str()).is_some());
        assert!(Id::parse("x".repeat(129).as_str()).is_none());
        assert!(Id::parse("\u{1f4e6}".repeat(64).as_str()).is_some());
        assert!(Id::parse("\u{1f4e6}".repeat(65).as_str()).is_none());
        for id in ["a\0", "..", "../a", "a/./b"] {
            assert!(Id::parse(id).is_none(), "{id:?}");
        }
        assert_eq!(Id::parse("Zoe\u{308}"), Id::parse("Zo\u{eb}"));
    }

    #[test]
    fn the_digest_stays_what_it_is_in_the_files() {
        let package = Package {
            id: Id::parse("p").unwrap(),
            timestamp: Timestamp::from_second(1).unwrap(),
            sender: Id::parse("s").unwrap(),
            recipient: Id::parse("r").unwrap(),
            package_type: PERSONAL,
        };
        let digest = package.digest(&types());
        assert_eq!(digest, DIGEST);
        let other = Package {
            sender: Id::parse("sr").unwrap(),
            recipient: Id::parse("x").unwrap(),
            ..package.clone()
        };
        assert_ne!(other.digest(&types()), digest);
        // The id is not part of it.
        let same = Package {
            id: Id::parse("q").unwrap(),
            ..package
        };
        assert_eq!(same.digest(&types()), digest);
    }

    const DIGEST: u64 = 3_855_504_135_164_987_499;
}
