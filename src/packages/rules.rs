//! Which of two preferences wins, and what a preference decides about a package.

use super::model::{Outcome, PackageType, Preference, Preferences, Processed, Types, Update};

impl Preference {
    /// Which of two preferences holds: the later one, and of two with the same timestamp the refusal. The result does not
    /// depend on order or repetition.
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

impl Update {
    /// The preferences after this update, and whether all of it was applied.
    pub fn merged_into(&self, before: &Preferences) -> (Preferences, bool) {
        let mut after = before.clone();
        let mut applied = true;
        for (&package_type, &takes) in &self.takes {
            let new = Preference {
                timestamp: self.timestamp,
                takes,
            };
            let preference = after.entry(package_type).or_insert(new);
            *preference = preference.merged(new);
            applied &= *preference == new;
        }
        (after, applied)
    }
}

impl Processed {
    /// The outcome of a package of this type, given the recipient's preference for it.
    pub fn decide(
        types: &Types,
        package_type: PackageType,
        preference: Option<Preference>,
    ) -> Self {
        let takes = preference.map_or(types.is_accepted_by_default(package_type), |preference| {
            preference.takes
        });
        Self {
            outcome: if takes {
                Outcome::Delivered
            } else {
                Outcome::Dropped
            },
            type_name: types.name(package_type).into(),
            preference_timestamp: preference.map(|preference| preference.timestamp),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::super::model::Id;
    use super::*;

    const PERSONAL: PackageType = PackageType(0);
    const MARKETING: PackageType = PackageType(1);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn types(opt_in: &[&str]) -> Types {
        let owned = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
        Types::new(&owned(&["personal", "marketing"]), &owned(opt_in)).unwrap()
    }

    #[test]
    fn without_a_word_the_default_decides_and_with_one_the_word() {
        let types = types(&["marketing"]);
        let decided =
            |package_type, preference| Processed::decide(&types, package_type, preference);
        assert_eq!(decided(PERSONAL, None).outcome, Outcome::Delivered);
        assert_eq!(decided(MARKETING, None).outcome, Outcome::Dropped);
        assert_eq!(decided(MARKETING, None).preference_timestamp, None);
        for (takes, outcome) in [(true, Outcome::Delivered), (false, Outcome::Dropped)] {
            let preference = Preference {
                timestamp: at(7),
                takes,
            };
            let processed = decided(PERSONAL, Some(preference));
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
        let (preferences, applied) = update(5, true).merged_into(&Preferences::new());
        assert!(applied);
        assert_eq!(
            update(4, false).merged_into(&preferences),
            (preferences.clone(), false)
        );
        assert_eq!(
            update(5, true).merged_into(&preferences),
            (preferences.clone(), true)
        );
        let (refused, applied) = update(5, false).merged_into(&preferences);
        assert!(applied && !refused[&PERSONAL].takes);
        assert_eq!(update(5, true).merged_into(&refused), (refused, false));
    }

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
                let updates = updates.iter();
                updates.fold(Preferences::new(), |preferences, update| update.merged_into(&preferences).0)
            };
            prop_assert_eq!(last(&updates), last(&permuted));
            // Nor does a repetition.
            let twice = [updates.clone(), permuted].concat();
            prop_assert_eq!(last(&updates), last(&twice));
        }
    }
}
