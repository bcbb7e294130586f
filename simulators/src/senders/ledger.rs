//! What the server has acknowledged, and what it is therefore held to. Its size grows with the recipients, not with the
//! packages.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use hyper::StatusCode;
use serde_json::Value;

use crate::{
    audit::{Expected, Figure},
    client::Sent,
    packages::{Fate, Handled, Malformed, Package, PackageType, Preferences, Update, is_rejection},
    tally::Tally,
};

/// Packages that are looked up at the end, the last that were acknowledged; and recipients.
const LOOKED_UP_MAX: usize = 200;

pub(super) const FATES: &str = "fates of the packages";
pub(super) const NEW_ONCE: &str = "each package new once";
pub(super) const ACKNOWLEDGEMENTS: &str = "acknowledgements";
pub(super) const DUPLICATES: &str = "duplicates";
pub(super) const MISMATCHES: &str = "mismatches";
pub(super) const ANSWERS: &str = "answers to preferences";
pub(super) const REJECTED: &str = "malformed requests rejected";
pub(super) const PACKAGES: &str = "packages kept";
pub(super) const PREFERENCES: &str = "preferences kept";
/// Packages whose answer said that an earlier try had been taken.
pub(super) const REPLAYS: &str = "replays";
/// Updates that came after a newer one.
pub(super) const OUTDATED: &str = "outdated";
/// Recipients whose preferences are not known.
pub(super) const UNKNOWN: &str = "unknown";
/// From sending a package to its acknowledgement.
pub(super) const LATENCY: &str = "package";

/// The requests of a run, what was wrong with their answers, and what the server must report.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) tally: Tally,
    /// Packages by what became of them, and those that were given up and may have become this.
    fates: BTreeMap<(PackageType, Fate), (u64, u64)>,
    /// Requests that the server must have counted as rejected, and tries that it may also have counted as rejected.
    rejected: (u64, u64),
    /// The last packages that were acknowledged, oldest first.
    pub(super) recent: VecDeque<(Package, Fate)>,
    /// Of the senders that are done.
    pub(super) recipients: Vec<(String, Preferences)>,
}

impl Ledger {
    /// How many packages had this fate, of a type or of all, and how many more may have had it.
    pub(super) fn fates(&self, kind: Option<PackageType>, fate: Fate) -> (u64, u64) {
        let such = self.fates.iter();
        let such =
            such.filter(|((of, had), _)| *had == fate && kind.is_none_or(|kind| kind == *of));
        such.fold((0, 0), |sum, (_, more)| (sum.0 + more.0, sum.1 + more.1))
    }

    /// By how much each of the [`figures`] must have grown.
    pub(super) fn growth(&self) -> [(&'static str, Figure<[u64; 7]>, Expected); 7] {
        use Fate::{Delivered, Dropped};
        use PackageType::{Marketing, Personal};
        let of = |kind, fate| {
            let (known, unknown) = self.fates(kind, fate);
            Expected::of(known, unknown)
        };
        let rejected = Expected::of(self.rejected.0, self.rejected.1);
        [
            ("packages delivered", |it| it[0], of(None, Delivered)),
            ("packages dropped", |it| it[1], of(None, Dropped)),
            (
                "personal delivered",
                |it| it[2],
                of(Some(Personal), Delivered),
            ),
            ("personal dropped", |it| it[3], of(Some(Personal), Dropped)),
            (
                "marketing delivered",
                |it| it[4],
                of(Some(Marketing), Delivered),
            ),
            (
                "marketing dropped",
                |it| it[5],
                of(Some(Marketing), Dropped),
            ),
            ("requests rejected", |it| it[6], rejected),
        ]
    }

    /// The recipients to be compared: first those whose preferences were ever updated.
    pub(super) fn compared_recipients(&mut self) -> Vec<(String, Preferences)> {
        let mut recipients = std::mem::take(&mut self.recipients);
        recipients
            .sort_unstable_by(|(a, of_a), (b, of_b)| (!of_a.is_set(), a).cmp(&(!of_b.is_set(), b)));
        recipients.truncate(LOOKED_UP_MAX);
        recipients
    }

    /// Compares the server's record of a package; none when the server does not know it.
    pub(super) fn compare_package(
        &mut self,
        package: &Package,
        fate: Fate,
        stored: Option<&Value>,
    ) {
        let fault = match stored {
            None => Some("the server does not know it".to_owned()),
            Some(stored) => package.difference(fate, stored),
        };
        let what = || {
            format!(
                "{}: {}",
                package.package_id,
                fault.clone().unwrap_or_default()
            )
        };
        self.tally.expect(PACKAGES, fault.is_none(), what);
    }

    /// Compares the server's preferences of a recipient.
    pub(super) fn compare_recipient(&mut self, id: &str, expected: &Preferences, reported: &Value) {
        let wants = PackageType::ALL.map(|kind| expected.accepts(kind));
        let [Some(personal), Some(marketing)] = wants else {
            return self.tally.count(UNKNOWN);
        };
        let holds = reported["recipient_id"] == id
            && reported["personal_preference"] == personal
            && reported["marketing_preference"] == marketing;
        self.tally.expect(PREFERENCES, holds, || {
            format!("{id}: told {reported}, must be personal {personal}, marketing {marketing}")
        });
    }

    /// A proper request that was refused as if it were malformed counts as that with the server.
    fn refused(&mut self, status: Option<StatusCode>) {
        self.rejected.0 += u64::from(status.is_some_and(is_rejection));
    }

    /// A package was sent for the first time, over one connection or over two at once; its fate, when it was
    /// acknowledged with one. `expected` is none when the expected fate is unknown. `wait` is measured.
    pub(super) fn sent(
        &mut self,
        package: &Package,
        expected: Option<Fate>,
        sent: &[Sent<Handled>],
        wait: Duration,
    ) -> Option<Fate> {
        let may_be_taken = sent.iter().any(Sent::may_be_taken);
        let (answered, given_up): (Vec<_>, Vec<_>) =
            sent.iter().partition(|sent| sent.acknowledged.is_some());
        let answers: Vec<_> = answered.iter().filter_map(|sent| sent.answer()).collect();
        for given_up in &given_up {
            self.refused(given_up.refused);
        }
        if let Some(Sent { why, .. }) = given_up.first() {
            // Of two concurrent requests, the other's answer has the outcome.
            let is_unknown = may_be_taken && answers.is_empty();
            self.tally
                .given_up(is_unknown, || format!("{}: {why}", package.package_id));
        }
        let Some(first) = answers.first() else {
            if may_be_taken {
                self.may_be(package.kind, expected);
            }
            return None;
        };
        self.tally.record(LATENCY, wait);
        let wrong = answers
            .iter()
            .find(|answer| !answer.names(package) || answer.is_mismatch());
        let what = || wrong.map_or_else(String::new, |wrong| describe(package, wrong));
        self.tally.expect(ACKNOWLEDGEMENTS, wrong.is_none(), what);
        let created = answers.iter().filter(|answer| answer.created).count();
        let is_once = created == 1 || (created == 0 && may_be_taken);
        self.tally.expect(NEW_ONCE, is_once, || {
            let id = &package.package_id;
            format!("{id}: {created} of {} answers were 201", answers.len())
        });
        self.tally.add(REPLAYS, u64::from(created == 0));
        if let [_, second] = &sent {
            let other = second.answer().unwrap_or(first);
            let is_same = other.fate() == first.fate();
            self.tally
                .expect(DUPLICATES, is_same, || describe(package, other));
        }
        let Some(fate) = first.fate() else {
            self.may_be(package.kind, None);
            return None;
        };
        self.became(package, fate, expected);
        Some(fate)
    }

    /// The server said so; it is held to that, right or wrong.
    fn became(&mut self, package: &Package, fate: Fate, expected: Option<Fate>) {
        self.fates.entry((package.kind, fate)).or_default().0 += 1;
        if let Some(expected) = expected {
            self.tally.expect(FATES, fate == expected, || {
                let (id, kind) = (&package.package_id, package.kind.name());
                format!("{id} ({kind}) is {fate}, must be {expected}")
            });
        }
        self.recent.push_back((package.clone(), fate));
        if self.recent.len() > LOOKED_UP_MAX {
            self.recent.pop_front();
        }
    }

    /// A package that the server may have taken, with its expected fate, if that is known.
    fn may_be(&mut self, kind: PackageType, expected: Option<Fate>) {
        for fate in Fate::ALL {
            if expected.is_none_or(|expected| expected == fate) {
                self.fates.entry((kind, fate)).or_default().1 += 1;
            }
        }
    }

    /// An acknowledged package was sent again as it was, or with another field (`is_mismatch`).
    pub(super) fn again(
        &mut self,
        other: &Package,
        fate: Fate,
        is_mismatch: bool,
        sent: &Sent<Handled>,
    ) {
        let check = if is_mismatch { MISMATCHES } else { DUPLICATES };
        self.refused(sent.refused);
        let Some(second) = sent.answer() else {
            let what = || format!("{} again: {}", other.package_id, sent.why);
            return self.tally.expect(check, false, what);
        };
        if second.created {
            self.tally.fault(NEW_ONCE, || describe(other, second));
        }
        let is_same = second.created
            || (second.fate() == Some(fate)
                && second.names(other)
                && second.is_mismatch() == is_mismatch);
        let what = || format!("{}, {fate} before", describe(other, second));
        self.tally.expect(check, is_same, what);
    }

    /// An update was sent; `preferences` are what held before it, and then what holds after it.
    pub(super) fn updated(
        &mut self,
        preferences: &mut Preferences,
        update: &Update,
        sent: &Sent<Value>,
    ) {
        let Some(body) = sent.answer() else {
            self.refused(sent.refused);
            let what = || format!("preference of {}: {}", update.recipient_id, sent.why);
            self.tally.given_up(sent.may_be_taken(), what);
            if sent.may_be_taken() {
                preferences.forget();
            }
            return;
        };
        let second = update.timestamp.second;
        self.tally
            .add(OUTDATED, u64::from(preferences.latest() > Some(second)));
        let applied = preferences.apply(second, update.takes());
        let tells = |kind: PackageType| &body[format!("{}_preference", kind.name())];
        // An update of unknown outcome may be newer than this one.
        let is_so = |kind: PackageType| {
            preferences
                .accepts(kind)
                .is_none_or(|is| *tells(kind) == is)
        };
        let is_known = preferences.accepts(PackageType::Personal).is_some();
        let is_right = body["recipient_id"] == update.recipient_id.as_str()
            && body["applied"]
                .as_bool()
                .is_some_and(|is| is == applied || !is_known)
            && PackageType::ALL.into_iter().all(is_so);
        self.tally.expect(ANSWERS, is_right, || {
            format!("{}: {body} to {}", update.recipient_id, update.json())
        });
    }

    /// A request was sent that the server must not take; the answer is whether it was a problem.
    pub(super) fn malformed(&mut self, malformed: &Malformed, sent: &Sent<bool>) {
        self.rejected.0 += u64::from(sent.acknowledged.is_some());
        // Each of these may have been rejected before its answer was lost.
        self.rejected.1 += sent.uncertain;
        let is_rejected = sent.answer() == Some(&true);
        self.tally.expect(REJECTED, is_rejected, || {
            let fault = match &sent.acknowledged {
                Some((status, _)) => format!("{status} without a problem"),
                None => sent.why.clone(),
            };
            format!("{}: {fault}", malformed.name)
        });
    }
}

/// The figures of `GET /statistics`; one that is missing is zero.
pub(super) fn figures(statistics: &Value) -> [u64; 7] {
    [
        "/packages_delivered",
        "/packages_dropped",
        "/by_type/personal/delivered",
        "/by_type/personal/dropped",
        "/by_type/marketing/delivered",
        "/by_type/marketing/dropped",
        "/requests_rejected",
    ]
    .map(|pointer| statistics.pointer(pointer).and_then(Value::as_u64))
    .map(Option::unwrap_or_default)
}

/// A package and what was answered to it.
fn describe(package: &Package, answer: &Handled) -> String {
    let status = if answer.created { 201 } else { 200 };
    format!("{}: {status} {}", package.package_id, answer.body)
}
