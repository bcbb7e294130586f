//! What a sender is to do, planned before it does it.

use fastrand::Rng;
use serde_json::{Value, json};

use super::{
    Errands, Trouble,
    malformed::{self, WAYS},
};
use crate::packages::{Form, Malformed, Moment, Package, PackageType, Update};

/// The longest id that the contract permits, in characters. Every so many ids are this long.
const ID_MAX: usize = 128;
const LONG_ID_EVERY: u64 = 50;
/// A package that is to be sent again later is so after 1 to this many others of the same sender.
const LATER_MAX: u64 = 20;
/// An update's time is up to this many seconds off its place among the updates of its recipient, either way: some come
/// after newer ones, and some are of the same second.
const SHUFFLED_BY: i64 = 3;

/// One thing that a sender does. Recipients are numbers: the sender's own, from 0.
#[derive(Debug)]
pub(super) enum Errand {
    Send(Parcel),
    Update { recipient: usize, update: Update },
    SendMalformed(Malformed),
}

/// A package, and what else is done with it.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) package: Package,
    pub(super) recipient: usize,
    pub(super) again: Option<Again>,
    /// The same package with another field, to be sent when this one has been acknowledged.
    pub(super) mismatch: Option<Package>,
}

/// How a package is sent a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// Over the second connection, while the first is under way.
    Meanwhile,
    /// When the first has been acknowledged.
    Then { over_second: bool },
    /// After so many other errands.
    Later { errands: u64, over_second: bool },
}

/// Where the names of a sender's ids come from, and how many there are of what.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// Unlike that of any other run; at most 90 characters of `[A-Za-z0-9-]`.
    pub(super) run: String,
    /// This sender, from 0.
    pub(super) number: u64,
    /// Of all senders together, of whom there are not more than recipients.
    pub(super) all: Errands,
    /// The second of the first updates.
    pub(super) began: i64,
    /// Each sender has package ids of its own, as where the server requires tokens: the same id of another sender is another
    /// package.
    pub(super) own_ids: bool,
}

impl Part {
    /// This sender's share of so many things.
    fn of(&self, all: u64) -> u64 {
        all / self.all.senders + u64::from(self.number < all % self.all.senders)
    }

    /// The id of the n-th of this sender's things, numbered from 1 among those of all senders.
    fn nth_id(&self, kind: &str, nth: u64) -> String {
        self.id(kind, nth * self.all.senders + self.number + 1)
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
    fn sender(&self) -> Value {
        if self.number.is_multiple_of(2) {
            json!(self.id("sender", self.number + 1))
        } else {
            json!(1_000_000 + self.number)
        }
    }

    /// The ids of this sender's own recipients; no other sender uses them.
    pub(super) fn recipients(&self) -> Vec<String> {
        let own = 0..self.of(self.all.recipients);
        own.map(|nth| self.nth_id("recipient", nth)).collect()
    }
}

/// Plans the errands of one sender; the same seed plans the same ones.
#[derive(Debug)]
pub(super) struct Planner {
    part: Part,
    trouble: Trouble,
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
    pub(super) fn new(part: Part, trouble: Trouble, seed: u64) -> Self {
        let recipients = part.recipients();
        // A large odd factor keeps the senders of neighbouring seeds apart.
        let apart = part.number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Self {
            left: part.of(part.all.packages),
            updates: vec![0; recipients.len()],
            recipients,
            trouble,
            packages: 0,
            malformed: 0,
            next: None,
            chance: Rng::with_seed(seed.wrapping_add(apart)),
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
        if self.happens(self.part.all.preferences) {
            self.updates[recipient] += 1;
            let update = self.update(recipient);
            return Errand::Update { recipient, update };
        }
        let package_id = self.part.nth_id("package", self.packages);
        self.packages += 1;
        let package = self.package(recipient, package_id);
        let again = self.happens(self.trouble.duplicates);
        let again = again.then(|| self.again());
        let mismatch = self.happens(self.trouble.mismatches);
        let mismatch = mismatch.then(|| self.mismatch(&package));
        Errand::Send(Parcel {
            package,
            recipient,
            again,
            mismatch,
        })
    }

    fn package(&mut self, recipient: usize, package_id: String) -> Package {
        let marketing = self.happens(self.part.all.marketing);
        Package {
            timestamp: Moment {
                // Around the times of the updates: it must not matter which is older.
                second: self.part.began + self.chance.i64(0..60),
                form: self.form(),
            },
            sender_id: self.part.sender(),
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
            takes: [self.chance.bool(), self.chance.bool()],
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
            1 if !self.part.own_ids => {
                other.sender_id = json!(format!("another-{}", self.part.run));
            }
            2 => other.recipient_id = format!("stranger-{}", self.part.run),
            _ => other.kind = package.kind.other(),
        }
        other
    }

    /// Spoils a package that is never sent otherwise, or what would be the newest update of a recipient.
    fn spoiled(&mut self) -> Malformed {
        let recipient = self.recipient();
        let package_id = self.part.nth_id("malformed", self.malformed);
        self.malformed += 1;
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
        if self.happens(self.trouble.malformed) {
            self.next = Some(errand);
            return Some(Errand::SendMalformed(self.spoiled()));
        }
        Some(errand)
    }
}
