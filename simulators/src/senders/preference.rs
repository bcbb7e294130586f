//! What a recipient wants, as far as it is known here.

use std::cmp::Ordering;

use crate::packages::{Fate, PackageType, Update};

/// The preference that must hold, after the updates so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Preference {
    /// The second of the newest update; none when there was none.
    newest: Option<i64>,
    personal: bool,
    marketing: bool,
    /// An update was given up, and the server may have taken it or not.
    is_unknown: bool,
}

impl Default for Preference {
    /// Everything is accepted.
    fn default() -> Self {
        Self {
            newest: None,
            personal: true,
            marketing: true,
            is_unknown: false,
        }
    }
}

impl Preference {
    /// How an update's time compares to that of the newest so far.
    pub(crate) fn age_of(&self, update: &Update) -> Ordering {
        Some(update.timestamp.second).cmp(&self.newest)
    }

    /// The newest update wins, in whatever order they come. Of two of the same second a refusal wins, type by type.
    pub(crate) fn apply(&mut self, update: &Update) {
        match self.age_of(update) {
            Ordering::Less => {}
            Ordering::Equal => {
                self.personal &= update.personal;
                self.marketing &= update.marketing;
            }
            Ordering::Greater => {
                self.newest = Some(update.timestamp.second);
                (self.personal, self.marketing) = (update.personal, update.marketing);
            }
        }
    }

    /// For the rest of the run the server's state is unknown.
    pub(crate) fn forget(&mut self) {
        self.is_unknown = true;
    }

    /// Whether there was any update.
    pub(crate) fn is_set(&self) -> bool {
        self.newest.is_some()
    }

    /// Personal and marketing; none when they are unknown.
    pub(crate) fn known(&self) -> Option<(bool, bool)> {
        (!self.is_unknown).then_some((self.personal, self.marketing))
    }

    /// The expected fate of a package of this type that is processed now; none when it is unknown.
    pub(crate) fn fate_of(&self, kind: PackageType) -> Option<Fate> {
        let (personal, marketing) = self.known()?;
        let wanted = match kind {
            PackageType::Personal => personal,
            PackageType::Marketing => marketing,
        };
        Some(if wanted {
            Fate::Delivered
        } else {
            Fate::Dropped
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::packages::{Form, Moment};

    pub(crate) fn update(second: i64, personal: bool, marketing: bool) -> Update {
        Update {
            timestamp: Moment {
                second,
                form: Form::UnixSeconds,
            },
            recipient_id: "recipient-1".to_owned(),
            personal,
            marketing,
        }
    }

    /// What holds after these updates.
    pub(crate) fn after(updates: &[Update]) -> Preference {
        let mut preference = Preference::default();
        for update in updates {
            preference.apply(update);
        }
        preference
    }

    #[test]
    fn a_stranger_accepts_everything() {
        let stranger = Preference::default();
        assert_eq!(stranger.known(), Some((true, true)));
        assert!(!stranger.is_set());
        for kind in [PackageType::Personal, PackageType::Marketing] {
            assert_eq!(stranger.fate_of(kind), Some(Fate::Delivered));
        }
    }

    #[test]
    fn the_newest_update_wins_in_whatever_order_they_come() {
        let updates = [
            update(1, false, false),
            update(3, true, false),
            update(2, false, true),
        ];
        for order in [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ] {
            let preference = after(&order.map(|number| updates[number].clone()));
            assert_eq!(preference.known(), Some((true, false)), "{order:?}");
            let fate = preference.fate_of(PackageType::Marketing);
            assert_eq!(fate, Some(Fate::Dropped));
        }
    }

    #[test]
    fn of_two_at_the_same_time_a_refusal_wins_by_type() {
        let (one, other) = (update(5, true, false), update(5, false, true));
        assert_eq!(
            after(&[one.clone(), other.clone()]).known(),
            Some((false, false))
        );
        assert_eq!(after(&[other, one]).known(), Some((false, false)));
    }

    #[test]
    fn what_was_forgotten_stays_unknown() {
        let mut preference = after(&[update(1, false, false)]);
        preference.forget();
        preference.apply(&update(2, true, true));
        assert_eq!(preference.known(), None);
        assert_eq!(preference.fate_of(PackageType::Personal), None);
    }
}
