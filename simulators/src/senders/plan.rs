//! What a sender is to do, planned before it does it.

use fastrand::Rng;

use super::malformed::{self, WAYS};
use crate::packages::{Form, Malformed, Moment, Package, PackageType, SenderId, Update};

/// The longest id that the contract permits, in characters. Every so many ids are this long.
const ID_MAX: usize = 128;
const LONG_ID_EVERY: u64 = 50;
/// A package that is to be sent again later is so after 1 to this many others of the same sender.
const LATER_MAX: u64 = 20;
/// An update's time is up to this many seconds off its place among the updates of its recipient, either way: some come
/// after newer ones, and some are of the same second.
const SHUFFLED_BY: i64 = 3;

/// What the requests of a run are like. Shares are 0 to 1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Traits {
    /// Share of packages that are marketing; the others are personal.
    pub(crate) marketing: f64,
    /// Share of errands that are an update of a preference instead of a package.
    pub(crate) preferences: f64,
    /// Share of packages that are sent twice.
    pub(crate) duplicates: f64,
    /// Share of packages that are sent again with another field.
    pub(crate) mismatches: f64,
    /// Malformed requests in addition, as a share of the errands.
    pub(crate) malformed: f64,
}

/// One thing that a sender does.
#[derive(Debug, Clone)]
pub(crate) enum Errand {
    Send(Parcel),
    Update {
        /// Of the sender's own recipients, from 0.
        recipient: usize,
        update: Update,
    },
    SendMalformed(Malformed),
}

/// A package, and what else is done with it.
#[derive(Debug, Clone)]
pub(crate) struct Parcel {
    pub(crate) package: Package,
    /// Of the sender's own recipients, from 0.
    pub(crate) recipient: usize,
    pub(crate) again: Option<Again>,
    /// The same package with another field, to be sent when this one has been acknowledged.
    pub(crate) mismatch: Option<Package>,
}

/// How a package is sent a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// Over the second connection, while the first is under way.
    Meanwhile,
    /// When the first has been acknowledged.
    Then { over_second: bool },
    /// After so many other errands.
    Later { errands: u64, over_second: bool },
}

/// Where the names of a sender's ids come from, and how many there are of what.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// Unlike that of any other run; at most 90 characters of `[A-Za-z0-9-]`.
    pub(crate) run: String,
    /// This sender, from 0, of so many.
    pub(crate) number: u64,
    pub(crate) senders: u64,
    /// Of all senders together.
    pub(crate) errands: u64,
    pub(crate) recipients: u64,
    /// The second of the first updates.
    pub(crate) began: i64,
}

impl Part {
    /// This sender's share of so many things.
    fn of(&self, all: u64) -> u64 {
        all / self.senders + u64::from(self.number < all % self.senders)
    }

    /// The number, from 1, that the n-th of this sender's things has among those of all.
    fn place(&self, nth: u64) -> u64 {
        nth * self.senders + self.number + 1
    }

    fn id(&self, kind: &str, number: u64) -> String {
        let id = format!("{kind}-{}-{number}", self.run);
        if number.is_multiple_of(LONG_ID_EVERY) {
            // A hyphen first, so that no number becomes another.
            format!("{:x<ID_MAX$}", format!("{id}-"))
        } else {
            id
        }
    }

    /// Every second sender's id is a number.
    fn sender(&self) -> SenderId {
        if self.number.is_multiple_of(2) {
            SenderId::Text(self.id("sender", self.number + 1))
        } else {
            SenderId::Number(1_000_000 + self.number)
        }
    }

    /// The ids of this sender's own recipients; no other sender uses them.
    pub(crate) fn recipients(&self) -> Vec<String> {
        let own = 0..self.of(self.recipients);
        own.map(|nth| self.id("recipient", self.place(nth)))
            .collect()
    }
}

/// Plans the errands of one sender; the same seed plans the same ones.
#[derive(Debug)]
pub(crate) struct Planner {
    part: Part,
    traits: Traits,
    recipients: Vec<String>,
    /// Updates so far, by recipient.
    updates: Vec<i64>,
    left: u64,
    packages: u64,
    malformed: u64,
    /// Planned already; a malformed request goes before it.
    next: Option<Errand>,
    chance: Rng,
}

impl Planner {
    /// There must be a recipient for every sender.
    pub(crate) fn new(part: Part, traits: Traits, seed: u64) -> Self {
        let recipients = part.recipients();
        Self {
            left: part.of(part.errands),
            updates: vec![0; recipients.len()],
            recipients,
            traits,
            packages: 0,
            malformed: 0,
            next: None,
            // A large odd factor keeps the senders of neighbouring seeds apart.
            chance: Rng::with_seed(
                seed.wrapping_add(part.number.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
            ),
            part,
        }
    }

    fn happens(&mut self, share: f64) -> bool {
        self.chance.f64() < share
    }

    fn recipient(&mut self) -> usize {
        self.chance.usize(..self.recipients.len())
    }

    fn form(&mut self) -> Form {
        Form::ALL[self.chance.usize(..Form::ALL.len())]
    }

    fn errand(&mut self) -> Errand {
        let recipient = self.recipient();
        if self.happens(self.traits.preferences) {
            self.updates[recipient] += 1;
            let update = self.update(recipient);
            return Errand::Update { recipient, update };
        }
        self.packages += 1;
        let package_id = self.part.id("package", self.part.place(self.packages - 1));
        let package = self.package(recipient, package_id);
        let again = self.happens(self.traits.duplicates);
        let again = again.then(|| self.again());
        let mismatch = self.happens(self.traits.mismatches);
        let mismatch = mismatch.then(|| self.mismatch(&package));
        Errand::Send(Parcel {
            package,
            recipient,
            again,
            mismatch,
        })
    }

    fn package(&mut self, recipient: usize, package_id: String) -> Package {
        let marketing = self.happens(self.traits.marketing);
        Package {
            timestamp: Moment {
                // Around the times of the updates: it must not matter which is older.
                second: self.part.began + self.chance.i64(0..60),
                form: self.form(),
            },
            sender: self.part.sender(),
            recipient_id: self.recipients[recipient].clone(),
            package_id,
            kind: if marketing {
                PackageType::Marketing
            } else {
                PackageType::Personal
            },
        }
    }

    /// An update of the time at which it is, more or less.
    fn update(&mut self, recipient: usize) -> Update {
        let shuffled = self.chance.i64(-SHUFFLED_BY..=SHUFFLED_BY);
        Update {
            timestamp: Moment {
                second: self.part.began + self.updates[recipient] + shuffled,
                form: self.form(),
            },
            recipient_id: self.recipients[recipient].clone(),
            personal: self.chance.bool(),
            marketing: self.chance.bool(),
        }
    }

    fn again(&mut self) -> Again {
        let over_second = self.chance.bool();
        match self.chance.u8(..3) {
            0 => Again::Meanwhile,
            1 => Again::Then { over_second },
            _ => Again::Later {
                errands: self.chance.u64(1..=LATER_MAX),
                over_second,
            },
        }
    }

    /// The same package with one field changed.
    fn mismatch(&mut self, package: &Package) -> Package {
        let mut other = package.clone();
        match self.chance.u8(..4) {
            0 => other.timestamp.second += 1,
            1 => other.sender = SenderId::Text(format!("another-{}", self.part.run)),
            2 => other.recipient_id = format!("stranger-{}", self.part.run),
            _ => other.kind = package.kind.other(),
        }
        other
    }

    /// Spoils a package that is never sent otherwise, or what would be the newest update of a recipient.
    fn spoiled(&mut self) -> Malformed {
        let recipient = self.recipient();
        self.malformed += 1;
        let package_id = self
            .part
            .id("malformed", self.part.place(self.malformed - 1));
        let package = self.package(recipient, package_id);
        let mut update = self.update(recipient);
        update.timestamp.second += 2 * SHUFFLED_BY;
        malformed::spoiled(self.chance.usize(..WAYS), &package, &update)
    }
}

impl Iterator for Planner {
    type Item = Errand;

    fn next(&mut self) -> Option<Errand> {
        if let Some(next) = self.next.take() {
            return Some(next);
        }
        self.left = self.left.checked_sub(1)?;
        let errand = self.errand();
        if self.happens(self.traits.malformed) {
            self.next = Some(errand);
            return Some(Errand::SendMalformed(self.spoiled()));
        }
        Some(errand)
    }
}

#[cfg(test)]
mod tests {
    use std::{cmp::Ordering, collections::BTreeSet};

    use super::*;
    use crate::senders::preference::Preference;

    const TRAITS: Traits = Traits {
        marketing: 0.5,
        preferences: 0.1,
        duplicates: 0.05,
        mismatches: 0.01,
        malformed: 0.02,
    };

    fn part(number: u64, senders: u64) -> Part {
        Part {
            run: "run".to_owned(),
            number,
            senders,
            errands: 20_003,
            recipients: 503,
            began: 1_700_000_000,
        }
    }

    /// The errands of all of so many senders, each with its own.
    fn plan(traits: Traits, senders: u64, seed: u64) -> Vec<Vec<Errand>> {
        let of = |number| Planner::new(part(number, senders), traits, seed).collect();
        (0..senders).map(of).collect()
    }

    fn parcels(plan: &[Vec<Errand>]) -> Vec<&Parcel> {
        let mut parcels = Vec::new();
        for errand in plan.iter().flatten() {
            if let Errand::Send(parcel) = errand {
                parcels.push(parcel);
            }
        }
        parcels
    }

    #[test]
    fn all_errands_are_divided_among_the_senders() {
        for senders in [1, 7, 64] {
            let plan = plan(TRAITS, senders, 1);
            let malformed = |errand: &&Errand| matches!(errand, Errand::SendMalformed(_));
            let all = plan.iter().flatten();
            assert_eq!(all.filter(|errand| !malformed(errand)).count(), 20_003);
        }
    }

    #[test]
    fn ids_are_unlike_each_other_and_within_the_contract_and_recipients_have_one_sender() {
        let plan = plan(TRAITS, 7, 2);
        let parcels = parcels(&plan);
        let ids: BTreeSet<_> = parcels
            .iter()
            .map(|parcel| &parcel.package.package_id)
            .collect();
        assert_eq!(ids.len(), parcels.len());
        assert!(ids.iter().any(|id| id.len() == ID_MAX));
        let permitted = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        assert!(
            ids.iter()
                .all(|id| id.len() <= ID_MAX && id.bytes().all(permitted))
        );
        let own: Vec<_> = (0..7).map(|number| part(number, 7).recipients()).collect();
        let all: BTreeSet<_> = own.iter().flatten().collect();
        assert_eq!(all.len(), 503);
        for (own, errands) in own.iter().zip(&plan) {
            for errand in errands {
                match errand {
                    Errand::Send(parcel) => {
                        assert_eq!(own[parcel.recipient], parcel.package.recipient_id);
                    }
                    Errand::Update { recipient, update } => {
                        assert_eq!(own[*recipient], update.recipient_id);
                    }
                    Errand::SendMalformed(_) => {}
                }
            }
        }
    }

    #[test]
    fn shares_are_kept_on_average_and_at_their_ends() {
        let whole = plan(TRAITS, 3, 3);
        let parcels = parcels(&whole);
        let count = |which: fn(&&&Parcel) -> bool| parcels.iter().filter(which).count();
        assert!(
            (17_500..=18_500).contains(&parcels.len()),
            "{}",
            parcels.len()
        );
        let marketing = count(|parcel| parcel.package.kind == PackageType::Marketing);
        assert!((8_500..=9_500).contains(&marketing), "{marketing}");
        let again = count(|parcel| parcel.again.is_some());
        assert!((750..=1_050).contains(&again), "{again}");
        let mismatches = count(|parcel| parcel.mismatch.is_some());
        assert!((120..=240).contains(&mismatches), "{mismatches}");
        let malformed = whole.iter().flatten().count() - 20_003;
        assert!((300..=500).contains(&malformed), "{malformed}");

        let [none, all] = [0.0, 1.0].map(|share| {
            let traits = Traits {
                marketing: share,
                preferences: 0.0,
                duplicates: share,
                mismatches: share,
                malformed: share,
            };
            plan(traits, 3, 3)
        });
        for (plan, expected) in [(none, false), (all, true)] {
            for parcel in self::parcels(&plan) {
                let is_marketing = parcel.package.kind == PackageType::Marketing;
                let shares = [
                    is_marketing,
                    parcel.again.is_some(),
                    parcel.mismatch.is_some(),
                ];
                assert_eq!(shares, [expected; 3]);
            }
            let all = plan.iter().flatten().count();
            assert_eq!(all, if expected { 40_006 } else { 20_003 });
        }
    }

    #[test]
    fn updates_come_before_after_and_with_the_newest() {
        let mut ages = Vec::new();
        for errands in plan(TRAITS, 7, 4) {
            let mut preferences = vec![Preference::default(); 503];
            for errand in errands {
                if let Errand::Update { recipient, update } = errand {
                    ages.push(preferences[recipient].age_of(&update));
                    preferences[recipient].apply(&update);
                }
            }
        }
        for age in [Ordering::Less, Ordering::Equal, Ordering::Greater] {
            let times = ages.iter().filter(|other| **other == age).count();
            assert!(times > 50, "{age:?} {times}");
        }
    }

    #[test]
    fn a_mismatch_differs_in_one_field_that_is_not_its_id() {
        let traits = Traits {
            mismatches: 1.0,
            ..TRAITS
        };
        let mut fields = BTreeSet::new();
        for parcel in parcels(&plan(traits, 3, 5)) {
            let [sent, other] =
                [&parcel.package, parcel.mismatch.as_ref().unwrap()].map(Package::json);
            let all = sent.as_object().unwrap().keys();
            let differing: Vec<_> = all
                .filter(|field| sent[*field] != other[*field])
                .cloned()
                .collect();
            assert_eq!(differing.len(), 1, "{sent} {other}");
            fields.extend(differing);
        }
        let expected = ["package_type", "recipient_id", "sender_id", "timestamp"];
        assert!(fields.iter().eq(expected), "{fields:?}");
    }

    #[test]
    fn packages_are_sent_again_in_every_way() {
        let traits = Traits {
            duplicates: 1.0,
            ..TRAITS
        };
        let plan = plan(traits, 3, 6);
        let ways = parcels(&plan).into_iter().filter_map(|parcel| parcel.again);
        let mut times = [0; 5];
        for way in ways {
            let number = match way {
                Again::Meanwhile => 0,
                Again::Then { over_second } => 1 + usize::from(over_second),
                Again::Later {
                    errands,
                    over_second,
                } => {
                    assert!((1..=LATER_MAX).contains(&errands));
                    3 + usize::from(over_second)
                }
            };
            times[number] += 1;
        }
        assert!(times.iter().all(|times| *times > 1000), "{times:?}");
    }

    #[test]
    fn the_same_seed_plans_the_same_errands_and_senders_differ() {
        let printed = |seed| format!("{:?}", plan(TRAITS, 2, seed));
        assert_eq!(printed(7), printed(7));
        assert_ne!(printed(7), printed(8));
        let kinds = |errands: &Vec<Errand>| -> Vec<_> {
            let kind = |errand: &Errand| match errand {
                Errand::Send(parcel) => Some(parcel.package.kind),
                _ => None,
            };
            errands.iter().map(kind).collect()
        };
        let plan = plan(TRAITS, 2, 7);
        assert_ne!(kinds(&plan[0])[..100], kinds(&plan[1])[..100]);
    }
}
