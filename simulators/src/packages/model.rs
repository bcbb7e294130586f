//! The rules of packages and preferences, written down a second time. Pure: no I/O, no clock.

use std::collections::BTreeMap;

/// What becomes of a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    Delivered,
    Dropped,
}

/// What a recipient wants, by type of package `T`: the newest update decides, a refusal among those of the same second, and
/// a recipient who has not declined a type accepts it.
#[derive(Debug, Clone)]
pub struct Preferences<T> {
    /// The second of the newest update, and whether it declines.
    newest: BTreeMap<T, (i64, bool)>,
    is_unknown: bool,
}

impl<T> Default for Preferences<T> {
    fn default() -> Self {
        Self {
            newest: BTreeMap::new(),
            is_unknown: false,
        }
    }
}

impl<T: Ord + Copy> Preferences<T> {
    /// Applies an update; whether all of it holds afterwards.
    pub fn apply(&mut self, second: i64, takes: impl IntoIterator<Item = (T, bool)>) -> bool {
        let mut applied = true;
        for (kind, takes) in takes {
            let update = (second, !takes);
            let newest = self.newest.entry(kind).or_insert(update);
            *newest = update.max(*newest);
            applied &= *newest == update;
        }
        applied
    }

    /// The second of the update that decides, and whether the type is accepted; none for the default.
    pub fn newest(&self, kind: T) -> Option<(i64, bool)> {
        let (second, declines) = self.newest.get(&kind)?;
        Some((*second, !declines))
    }

    /// Whether there was any update.
    pub fn is_set(&self) -> bool {
        !self.newest.is_empty()
    }

    /// The latest second of an update; no update is older than the default.
    pub fn latest(&self) -> Option<i64> {
        self.newest.values().map(|(second, _)| *second).max()
    }

    /// An update has an unknown outcome, and so has everything after it.
    pub fn forget(&mut self) {
        self.is_unknown = true;
    }

    /// None when it is unknown.
    pub fn accepts(&self, kind: T) -> Option<bool> {
        let accepts = self.newest(kind).is_none_or(|(_, accepts)| accepts);
        (!self.is_unknown).then_some(accepts)
    }

    /// The fate of a package of this type that is processed now; none when it is unknown.
    pub fn fate_of(&self, kind: T) -> Option<Fate> {
        let fate = |accepts| {
            if accepts {
                Fate::Delivered
            } else {
                Fate::Dropped
            }
        };
        self.accepts(kind).map(fate)
    }
}

/// All packages and preferences: each id is processed once, and every further request gets the first outcome.
#[derive(Debug, Clone)]
pub struct Model<P, T> {
    recipients: BTreeMap<String, Preferences<T>>,
    packages: BTreeMap<String, (P, T, Fate)>,
}

impl<P, T> Default for Model<P, T> {
    fn default() -> Self {
        Self {
            recipients: BTreeMap::new(),
            packages: BTreeMap::new(),
        }
    }
}

/// The expected answer to a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Processed {
    pub fate: Fate,
    /// Whether the id was known already, ...
    pub duplicate: bool,
    /// ... with other fields.
    pub mismatch: bool,
}

impl<P: PartialEq, T: Ord + Copy> Model<P, T> {
    pub fn preferences(&mut self, recipient: &str) -> &mut Preferences<T> {
        self.recipients.entry(recipient.to_owned()).or_default()
    }

    pub fn send(&mut self, id: &str, recipient: &str, kind: T, package: P) -> Processed {
        if let Some((first, _, fate)) = self.packages.get(id) {
            return Processed {
                fate: *fate,
                duplicate: true,
                mismatch: *first != package,
            };
        }
        let declined = self.preferences(recipient).fate_of(kind);
        let fate = declined.unwrap_or(Fate::Delivered);
        self.packages.insert(id.to_owned(), (package, kind, fate));
        Processed {
            fate,
            duplicate: false,
            mismatch: false,
        }
    }

    /// How many packages of a type had this fate.
    pub fn count(&self, kind: T, fate: Fate) -> u64 {
        let such = self.packages.values();
        let such = such.filter(|(_, of, had)| *of == kind && *had == fate);
        such.map(|_| 1).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_update_wins_in_whatever_order_they_come_and_a_refusal_of_the_same_second() {
        let updates = [(1, false), (3, true), (2, false), (3, false)];
        for first in 0..4 {
            let mut preferences = Preferences::default();
            assert_eq!(preferences.fate_of('p'), Some(Fate::Delivered));
            let order = updates.iter().cycle().skip(first).take(4);
            for (second, takes) in order {
                preferences.apply(*second, [('p', *takes)]);
            }
            assert_eq!(preferences.newest('p'), Some((3, false)), "{first}");
            assert_eq!(preferences.fate_of('p'), Some(Fate::Dropped));
            assert!(!preferences.apply(3, [('p', true)]));
            preferences.forget();
            assert_eq!(preferences.fate_of('p'), None);
        }
    }
}
