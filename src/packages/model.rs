//! Packages, preferences, and what follows from them. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::Hasher;

use jiff::Timestamp;
use siphasher::sip::SipHasher24;

use crate::values::id;

/// The longest id of a package, a sender or a recipient, in characters.
pub const ID_CHARS_MAX: usize = 128;
/// The longest name of a type, in characters.
pub const TYPE_CHARS_MAX: usize = 64;
/// Types whose preference must be part of every update of preferences, if they are configured; others may be left out.
pub const ALWAYS_SAID: [&str; 2] = ["personal", "marketing"];

/// The name of a package, a sender or a recipient: 1 to [`ID_CHARS_MAX`] characters and at most [`id::bytes_max`] bytes,
/// none of them a control character, in NFC. Ids are asked for in paths, so none has a dot segment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(Box<str>);

impl Id {
    /// The id, or nothing if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let id = id::parse(text, ID_CHARS_MAX)?;
        id::is_addressable(&id).then(|| Self(id.into()))
    }

    /// In NFC.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A kind of package: its place among [`Types`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackageType(pub usize);

/// The kinds of packages there are.
#[derive(Debug, Clone)]
pub struct Types {
    /// Name, and whether it is taken by a recipient who has said nothing.
    kinds: Vec<(Box<str>, bool)>,
}

impl Types {
    /// These types, of which those in `opt_in` are only delivered to who asked for them.
    ///
    /// # Errors
    /// A sentence, if a name is none, comes twice, or stands in `opt_in` only.
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
        let kind = |name: &String| (name.as_str().into(), !opt_in.contains(name));
        Ok(Self {
            kinds: names.iter().map(kind).collect(),
        })
    }

    /// The type of this name.
    pub fn find(&self, name: &str) -> Option<PackageType> {
        let mut names = self.kinds.iter();
        names.position(|kind| &*kind.0 == name).map(PackageType)
    }

    /// All of them, as configured.
    pub fn all(&self) -> impl Iterator<Item = (PackageType, &str)> {
        let numbered = self.kinds.iter().enumerate();
        numbered.map(|(at, kind)| (PackageType(at), &*kind.0))
    }

    /// The type's name.
    pub fn name(&self, package_type: PackageType) -> &str {
        &self.kinds[package_type.0].0
    }

    /// Whether a recipient who has said nothing takes it.
    pub fn is_taken_by_default(&self, package_type: PackageType) -> bool {
        self.kinds[package_type.0].1
    }
}

/// A package to be processed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Its name; this alone identifies it.
    pub id: Id,
    /// When the sender began.
    pub timestamp: Timestamp,
    /// From whom.
    pub sender: Id,
    /// For whom.
    pub recipient: Id,
    /// Of what kind.
    pub package_type: PackageType,
}

impl Package {
    /// A digest of everything but the id. It stands in files, so it stays as it is: SipHash-2-4 with the key 0, of the
    /// timestamp in microseconds, then sender, recipient and type's name, each with its length before it.
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

/// What a recipient has said of one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word {
    /// When, by the request.
    pub timestamp: Timestamp,
    /// Whether it is taken.
    pub takes: bool,
}

impl Word {
    /// Which of two words holds: the later one, and of two at the same time the refusal. Neither order nor repetition
    /// changes what comes out.
    #[must_use]
    pub fn merged(self, other: Self) -> Self {
        match self.timestamp.cmp(&other.timestamp) {
            std::cmp::Ordering::Less => other,
            std::cmp::Ordering::Greater => self,
            std::cmp::Ordering::Equal => Self {
                takes: self.takes && other.takes,
                ..self
            },
        }
    }
}

/// What a recipient has said of some types.
pub type Words = BTreeMap<PackageType, Word>;

/// What a recipient says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// Who.
    pub recipient: Id,
    /// When.
    pub timestamp: Timestamp,
    /// Which types they take or do not; others stay as they are.
    pub takes: BTreeMap<PackageType, bool>,
}

impl Update {
    /// What holds once this was said too, and whether all of it holds.
    pub fn merged_into(&self, before: &Words) -> (Words, bool) {
        let mut after = before.clone();
        let mut applied = true;
        for (&package_type, &takes) in &self.takes {
            let said = Word {
                timestamp: self.timestamp,
                takes,
            };
            let word = after.entry(package_type).or_insert(said);
            *word = word.merged(said);
            applied &= *word == said;
        }
        (after, applied)
    }
}

/// What became of a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It was delivered.
    Delivered,
    /// The recipient had declined its type.
    Dropped,
}

impl Outcome {
    /// The word the API uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Dropped => "dropped",
        }
    }
}

/// A processed package, as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processed {
    /// What became of it.
    pub outcome: Outcome,
    /// The name of its type, which may no longer be configured.
    pub type_name: Box<str>,
    /// When the preference was said that decided; nothing if none had been said.
    pub preference_timestamp: Option<Timestamp>,
}

impl Processed {
    /// What becomes of a package of this type whose recipient has said this of it.
    pub fn decide(types: &Types, package_type: PackageType, word: Option<Word>) -> Self {
        let takes = word.map_or(types.is_taken_by_default(package_type), |word| word.takes);
        Self {
            outcome: if takes {
                Outcome::Delivered
            } else {
                Outcome::Dropped
            },
            type_name: types.name(package_type).into(),
            preference_timestamp: word.map(|word| word.timestamp),
        }
    }
}

/// What a sender is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The first outcome.
    pub processed: Processed,
    /// It had been sent before.
    pub duplicate: bool,
    /// ... with other fields.
    pub mismatch: bool,
}

/// How many packages of one type came to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Delivered.
    pub delivered: u64,
    /// Dropped.
    pub dropped: u64,
}

/// How many there were since the beginning.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Packages by type's name; of types that were configured once, too.
    pub by_type: BTreeMap<String, Tally>,
    /// Malformed requests.
    pub rejected: u64,
}

impl Statistics {
    /// All types together.
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
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn types(opt_in: &[&str]) -> Types {
        let owned = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
        Types::new(&owned(&["personal", "marketing"]), &owned(opt_in)).unwrap()
    }

    const PERSONAL: PackageType = PackageType(0);
    const MARKETING: PackageType = PackageType(1);

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
    fn without_a_word_the_default_decides_and_with_one_the_word() {
        let types = types(&["marketing"]);
        let decided = |package_type, word| Processed::decide(&types, package_type, word);
        assert_eq!(decided(PERSONAL, None).outcome, Outcome::Delivered);
        assert_eq!(decided(MARKETING, None).outcome, Outcome::Dropped);
        assert_eq!(decided(MARKETING, None).preference_timestamp, None);
        for (takes, outcome) in [(true, Outcome::Delivered), (false, Outcome::Dropped)] {
            let word = Word {
                timestamp: at(7),
                takes,
            };
            let processed = decided(PERSONAL, Some(word));
            assert_eq!(processed.outcome, outcome);
            assert_eq!(processed.preference_timestamp, Some(at(7)));
        }
    }

    #[test]
    fn an_update_that_is_too_old_is_not_applied() {
        let update = |second, takes| Update {
            recipient: Id::parse("ada").unwrap(),
            timestamp: at(second),
            takes: [(PERSONAL, takes)].into(),
        };
        let (words, applied) = update(5, true).merged_into(&Words::new());
        assert!(applied);
        assert_eq!(update(4, false).merged_into(&words), (words.clone(), false));
        assert_eq!(update(5, true).merged_into(&words), (words.clone(), true));
        let (refused, applied) = update(5, false).merged_into(&words);
        assert!(applied && !refused[&PERSONAL].takes);
        assert_eq!(update(5, true).merged_into(&refused), (refused, false));
    }

    #[test]
    fn the_digest_stays_what_it_is_in_the_files() {
        let package = Package {
            id: Id::parse("p").unwrap(),
            timestamp: at(1),
            sender: Id::parse("s").unwrap(),
            recipient: Id::parse("r").unwrap(),
            package_type: PERSONAL,
        };
        let digest = package.digest(&types(&[]));
        assert_eq!(digest, DIGEST);
        let other = Package {
            sender: Id::parse("sr").unwrap(),
            recipient: Id::parse("x").unwrap(),
            ..package.clone()
        };
        assert_ne!(other.digest(&types(&[])), digest);
        // The id is not part of it.
        let same = Package {
            id: Id::parse("q").unwrap(),
            ..package
        };
        assert_eq!(same.digest(&types(&[])), digest);
    }

    const DIGEST: u64 = 3_855_504_135_164_987_499;

    fn update() -> impl Strategy<Value = Update> {
        let takes =
            prop::collection::btree_map((0_usize..2).prop_map(PackageType), any::<bool>(), 1..3);
        (0_i64..6, takes).prop_map(|(second, takes)| Update {
            recipient: Id::parse("ada").unwrap(),
            timestamp: at(second),
            takes,
        })
    }

    proptest! {
        #[test]
        fn the_order_of_arrival_does_not_matter(
            (updates, permuted) in prop::collection::vec(update(), 1..12)
                .prop_flat_map(|updates| (Just(updates.clone()), Just(updates).prop_shuffle())),
        ) {
            let last = |updates: &[Update]| {
                let said = updates.iter();
                said.fold(Words::new(), |words, update| update.merged_into(&words).0)
            };
            prop_assert_eq!(last(&updates), last(&permuted));
            // Nor does being told twice.
            let twice = [updates.clone(), permuted].concat();
            prop_assert_eq!(last(&updates), last(&twice));
        }
    }
}
