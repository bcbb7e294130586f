//! What the server has acknowledged, and what it is therefore held to. Its size grows with the recipients, not with the
//! packages.

use std::{cmp::Ordering, collections::VecDeque, time::Duration};

use hyper::StatusCode;

use super::preference::Preference;
use crate::{
    audit::{Expected, Faults},
    packages::{
        Fate, Handled, Malformed, Package, PackageType, Rejected, Update, Updated, is_rejection,
    },
    resend::{Sent, Tries},
    visits::Recorder,
};

/// Packages that are looked up at the end: the last ones that were acknowledged.
pub(crate) const LOOKED_UP_MAX: usize = 200;

/// How many packages became what.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ByFate {
    known: u64,
    /// Packages that were given up and may have become this.
    unknown: u64,
}

impl ByFate {
    pub(crate) fn known(self) -> u64 {
        self.known
    }

    fn expected(self) -> Expected {
        Expected::of(self.known, self.unknown)
    }

    fn with(self, other: Self) -> Self {
        Self {
            known: self.known + other.known,
            unknown: self.unknown + other.unknown,
        }
    }
}

/// Packages of one type.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct OfType {
    pub(crate) delivered: ByFate,
    pub(crate) dropped: ByFate,
}

impl OfType {
    fn of(&mut self, fate: Fate) -> &mut ByFate {
        match fate {
            Fate::Delivered => &mut self.delivered,
            Fate::Dropped => &mut self.dropped,
        }
    }
}

/// Counts of requests, and what was wrong with their answers.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) tries: Tries,
    pub(crate) personal: OfType,
    pub(crate) marketing: OfType,
    /// Packages that were acknowledged.
    pub(crate) packages: u64,
    /// Packages whose answer said that they had been seen before: an earlier try had been taken after all.
    pub(crate) replays: u64,
    /// Updates of preferences that were acknowledged.
    pub(crate) updates: u64,
    /// Of these, those that were older than another.
    pub(crate) outdated: u64,
    /// Packages and updates that were given up: refused, or not acknowledged before the patience was at an end or the
    /// run stopped.
    pub(crate) given_up: Faults,
    /// Of these, those that the server may have taken.
    pub(crate) fate_unknown: u64,
    /// Packages whose fate is known here beforehand.
    pub(crate) judged: u64,
    pub(crate) wrong_fate: Faults,
    /// Packages that were not new exactly once.
    pub(crate) not_once: Faults,
    /// Answers to packages that do not name them, or contradict themselves.
    pub(crate) misnamed: Faults,
    /// Packages that were sent twice on purpose, and those of them that were not answered like the first time.
    pub(crate) repeated: u64,
    pub(crate) unequal: Faults,
    /// Packages that were sent again with another field, and those of them of which the answer does not say so.
    pub(crate) mismatched: u64,
    pub(crate) unmarked: Faults,
    /// Malformed requests, and those of them that were not rejected as they should.
    pub(crate) malformed: u64,
    pub(crate) not_rejected: Faults,
    /// Answers to updates that do not say what must hold.
    pub(crate) misjudged: Faults,
    /// Requests that the server must have counted as rejected, and tries that it may also have counted as rejected.
    rejected: u64,
    rejected_unknown: u64,
}

impl Tally {
    pub(crate) fn delivered(&self) -> ByFate {
        self.personal.delivered.with(self.marketing.delivered)
    }

    pub(crate) fn dropped(&self) -> ByFate {
        self.personal.dropped.with(self.marketing.dropped)
    }

    /// By how much the server's figures must have grown: delivered, dropped, the same for personal and for marketing
    /// packages, and rejected.
    pub(crate) fn growth(&self) -> [Expected; 7] {
        [
            self.delivered().expected(),
            self.dropped().expected(),
            self.personal.delivered.expected(),
            self.personal.dropped.expected(),
            self.marketing.delivered.expected(),
            self.marketing.dropped.expected(),
            Expected::of(self.rejected, self.rejected_unknown),
        ]
    }

    fn of(&mut self, kind: PackageType) -> &mut OfType {
        match kind {
            PackageType::Personal => &mut self.personal,
            PackageType::Marketing => &mut self.marketing,
        }
    }

    /// A proper request that was refused as if it were malformed counts as that with the server.
    fn refused(&mut self, status: Option<StatusCode>) {
        self.rejected += u64::from(status.is_some_and(is_rejection));
    }

    fn give_up(&mut self, what: &str, why: &str, may_be_taken: bool) {
        self.given_up.note(|| format!("{what}: {why}"));
        self.fate_unknown += u64::from(may_be_taken);
    }
}

/// The requests of a run.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) tally: Tally,
    pub(crate) latencies: Recorder,
    /// The last that were acknowledged, oldest first; not more than [`LOOKED_UP_MAX`].
    pub(crate) recent: VecDeque<(Package, Fate)>,
    /// Of the senders that are done.
    pub(crate) recipients: Vec<(String, Preference)>,
}

impl Ledger {
    /// A package was sent for the first time, over one connection or over two at once; its fate, when it was
    /// acknowledged with one. `expected` is none when the expected fate is unknown. `wait` is measured.
    pub(crate) fn sent(
        &mut self,
        package: &Package,
        expected: Option<Fate>,
        sent: &[Sent<Handled>],
        wait: Duration,
    ) -> Option<Fate> {
        let may_be_taken = sent.iter().any(Sent::may_be_taken);
        let answers: Vec<_> = sent
            .iter()
            .filter_map(|sent| Some(&sent.acknowledged.as_ref()?.1))
            .collect();
        let mut given_up = sent.iter().filter(|sent| sent.acknowledged.is_none());
        for refused in given_up.clone() {
            self.tally.refused(refused.refused);
        }
        if let Some(Sent { why, .. }) = given_up.next() {
            // Of two concurrent requests, the other's answer has the outcome.
            let is_unknown = may_be_taken && answers.is_empty();
            self.tally.give_up(&package.package_id, why, is_unknown);
        }
        let Some(first) = answers.first() else {
            if may_be_taken {
                self.may_be(package.kind, expected);
            }
            return None;
        };
        self.latencies.record(wait);
        let tally = &mut self.tally;
        tally.packages += 1;
        for answer in &answers {
            if !answer.names(package) || answer.is_mismatch() {
                tally.misnamed.note(|| describe(package, answer));
            }
        }
        let created = answers.iter().filter(|answer| answer.created).count();
        if created > 1 || (created == 0 && !may_be_taken) {
            let id = &package.package_id;
            let first = || format!("{id}: {created} of {} answers were 201", answers.len());
            tally.not_once.note(first);
        }
        tally.replays += u64::from(created == 0);
        if sent.len() > 1 {
            tally.repeated += 1;
            if answers.iter().any(|other| other.fate() != first.fate()) {
                tally.unequal.note(|| describe(package, answers[1]));
            }
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
        let tally = &mut self.tally;
        tally.of(package.kind).of(fate).known += 1;
        if let Some(expected) = expected {
            tally.judged += 1;
            if fate != expected {
                let (id, kind) = (&package.package_id, package.kind.name());
                tally
                    .wrong_fate
                    .note(|| format!("{id} ({kind}) is {fate}, must be {expected}"));
            }
        }
        self.recent.push_back((package.clone(), fate));
        if self.recent.len() > LOOKED_UP_MAX {
            self.recent.pop_front();
        }
    }

    /// A package that the server may have taken, with its expected fate, if that is known.
    fn may_be(&mut self, kind: PackageType, expected: Option<Fate>) {
        for fate in [Fate::Delivered, Fate::Dropped] {
            if expected.is_none_or(|expected| expected == fate) {
                self.tally.of(kind).of(fate).unknown += 1;
            }
        }
    }

    /// An acknowledged package was sent again as it was.
    pub(crate) fn repeated(&mut self, package: &Package, fate: Fate, sent: &Sent<Handled>) {
        let tally = &mut self.tally;
        tally.repeated += 1;
        tally.refused(sent.refused);
        let fault = match &sent.acknowledged {
            None => format!("{} again: {}", package.package_id, sent.why),
            Some((_, second)) if second.created => {
                tally.not_once.note(|| describe(package, second));
                return;
            }
            Some((_, second))
                if second.fate() != Some(fate)
                    || !second.names(package)
                    || second.is_mismatch() =>
            {
                format!("{}, {fate} before", describe(package, second))
            }
            Some(_) => return,
        };
        tally.unequal.note(|| fault);
    }

    /// An acknowledged package was sent again with another field.
    pub(crate) fn mismatched(&mut self, other: &Package, fate: Fate, sent: &Sent<Handled>) {
        let tally = &mut self.tally;
        tally.mismatched += 1;
        tally.refused(sent.refused);
        let fault = match &sent.acknowledged {
            None => format!("{} again: {}", other.package_id, sent.why),
            Some((_, second)) if second.created => {
                tally.not_once.note(|| describe(other, second));
                return;
            }
            Some((_, second))
                if second.fate() != Some(fate) || !second.names(other) || !second.is_mismatch() =>
            {
                format!("{}, {fate} before", describe(other, second))
            }
            Some(_) => return,
        };
        tally.unmarked.note(|| fault);
    }

    /// An update was sent; `preference` is what held before it, and then what holds after it.
    pub(crate) fn updated(
        &mut self,
        preference: &mut Preference,
        update: &Update,
        sent: &Sent<Updated>,
    ) {
        let tally = &mut self.tally;
        let Some((_, Updated(body))) = &sent.acknowledged else {
            tally.refused(sent.refused);
            let what = format!("preference of {}", update.recipient_id);
            tally.give_up(&what, &sent.why, sent.may_be_taken());
            if sent.may_be_taken() {
                preference.forget();
            }
            return;
        };
        tally.updates += 1;
        let age = preference.age_of(update);
        let is_unknown = preference.known().is_none();
        tally.outdated += u64::from(age == Ordering::Less);
        preference.apply(update);
        let is_right = body["recipient_id"] == update.recipient_id.as_str()
            && match age {
                Ordering::Less => body["applied"] == false,
                // The contract does not say whether one of the same time is applied.
                Ordering::Equal => body["applied"].is_boolean(),
                // An earlier try may have been, and this one is then of the same time; or one of unknown fate, and this one
                // may be older.
                Ordering::Greater if sent.may_be_taken() || is_unknown => {
                    body["applied"].is_boolean()
                }
                Ordering::Greater => {
                    body["applied"] == true
                        && body["personal_preference"] == update.personal
                        && body["marketing_preference"] == update.marketing
                }
            };
        if !is_right {
            tally
                .misjudged
                .note(|| format!("{}: {body} to {}", update.recipient_id, update.json()));
        }
    }

    /// A request was sent that the server must not take.
    pub(crate) fn malformed(&mut self, malformed: &Malformed, sent: &Sent<Rejected>) {
        let tally = &mut self.tally;
        tally.malformed += 1;
        // Each of these may have been rejected before its answer was lost.
        tally.rejected_unknown += sent.uncertain;
        let fault = match &sent.acknowledged {
            Some((status, answer)) => {
                tally.rejected += 1;
                if answer.is_problem {
                    return;
                }
                format!("{status} without a problem")
            }
            None => sent.why.clone(),
        };
        tally
            .not_rejected
            .note(|| format!("{}: {fault}", malformed.name));
    }
}

/// A package and what was answered to it.
fn describe(package: &Package, answer: &Handled) -> String {
    let status = if answer.created { 201 } else { 200 };
    format!("{}: {status} {}", package.package_id, answer.body)
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        packages::tests::{handled, package},
        senders::{malformed::spoiled, preference::tests::update},
    };

    pub(crate) fn acknowledged<T>(answer: T) -> Sent<T> {
        Sent {
            acknowledged: Some((StatusCode::OK, answer)),
            uncertain: 0,
            refused: None,
            why: String::new(),
        }
    }

    pub(crate) fn given_up<T>(uncertain: u64) -> Sent<T> {
        Sent {
            acknowledged: None,
            uncertain,
            refused: None,
            why: "connection reset".to_owned(),
        }
    }

    /// The same, after a try whose answer was lost.
    fn retried<T>(answer: T) -> Sent<T> {
        Sent {
            uncertain: 1,
            ..acknowledged(answer)
        }
    }

    impl Ledger {
        /// `package-1` was sent for the first time and must be delivered.
        pub(crate) fn send(&mut self, sent: &[Sent<Handled>]) -> Option<Fate> {
            let expected = Some(Fate::Delivered);
            self.sent(
                &package(PackageType::Personal),
                expected,
                sent,
                Duration::ZERO,
            )
        }
    }

    fn new() -> Handled {
        handled(true, Fate::Delivered)
    }

    fn old() -> Handled {
        handled(false, Fate::Delivered)
    }

    #[test]
    fn a_package_must_be_new_exactly_once() {
        for (sent, faults) in [
            (vec![acknowledged(new())], 0),
            (vec![acknowledged(old())], 1),
            (vec![retried(old())], 0),
            (vec![retried(new())], 0),
            (vec![acknowledged(new()), acknowledged(old())], 0),
            (vec![acknowledged(old()), acknowledged(new())], 0),
            (vec![acknowledged(new()), acknowledged(new())], 1),
            (vec![acknowledged(old()), acknowledged(old())], 1),
            (vec![acknowledged(old()), retried(old())], 0),
            (vec![retried(new()), acknowledged(new())], 1),
            (vec![acknowledged(old()), given_up(1)], 0),
            (vec![acknowledged(old()), given_up(0)], 1),
        ] {
            let mut ledger = Ledger::default();
            assert_eq!(ledger.send(&sent), Some(Fate::Delivered));
            assert_eq!(ledger.tally.not_once.times, faults, "{sent:?}");
            assert_eq!(ledger.tally.packages, 1);
            assert_eq!(ledger.tally.delivered().known(), 1);
            assert_eq!(ledger.recent.len(), 1);
            let given_up = sent.iter().any(|sent| sent.acknowledged.is_none());
            assert_eq!(ledger.tally.given_up.times, u64::from(given_up));
            assert_eq!(ledger.tally.fate_unknown, 0);
        }
    }

    #[test]
    fn the_server_is_held_to_its_own_word_even_where_it_is_wrong() {
        let mut ledger = Ledger::default();
        let dropped = acknowledged(handled(true, Fate::Dropped));
        assert_eq!(ledger.send(&[dropped]), Some(Fate::Dropped));
        let tally = &ledger.tally;
        assert_eq!((tally.judged, tally.wrong_fate.times), (1, 1));
        assert_eq!(tally.dropped().known(), 1);
        let first = tally.wrong_fate.first.as_deref();
        assert_eq!(
            first,
            Some("package-1 (personal) is dropped, must be delivered")
        );
    }

    #[test]
    fn what_nobody_knows_widens_what_is_expected_by_just_that() {
        let package = package(PackageType::Marketing);
        for (expected, delivered, dropped) in [(Some(Fate::Dropped), 0, 1), (None, 1, 1)] {
            let mut ledger = Ledger::default();
            let fate = ledger.sent(&package, expected, &[given_up(2)], Duration::ZERO);
            assert_eq!(fate, None);
            let growth = ledger.tally.growth();
            assert_eq!(growth[0], Expected::of(0, delivered));
            assert_eq!(growth[1], Expected::of(0, dropped));
            assert_eq!(growth[3], Expected::of(0, 0));
            assert_eq!(growth[5], Expected::of(0, dropped));
            assert_eq!(ledger.tally.fate_unknown, 1);
        }
        let mut ledger = Ledger::default();
        ledger.sent(&package, None, &[given_up(0)], Duration::ZERO);
        assert_eq!(ledger.tally.growth(), [Expected::of(0, 0); 7]);
        assert_eq!(ledger.tally.given_up.times, 1);
        assert_eq!(ledger.tally.fate_unknown, 0);
    }

    #[test]
    fn a_proper_request_refused_as_malformed_counts_as_that() {
        let mut ledger = Ledger::default();
        for (status, rejected) in [(422, 1), (409, 1), (400, 2)] {
            let refused = Sent {
                refused: StatusCode::from_u16(status).ok(),
                ..given_up(0)
            };
            ledger.send(&[refused]);
            assert_eq!(ledger.tally.growth()[6], Expected::of(rejected, 0));
        }
    }

    #[test]
    fn a_repetition_must_be_answered_like_the_first_time() {
        let package = package(PackageType::Personal);
        let mut marked = old();
        marked.body["mismatch"] = json!(true);
        for (sent, unequal, not_once) in [
            (acknowledged(old()), 0, 0),
            (acknowledged(new()), 0, 1),
            (acknowledged(handled(false, Fate::Dropped)), 1, 0),
            (acknowledged(marked), 1, 0),
            (given_up(1), 1, 0),
        ] {
            let mut ledger = Ledger::default();
            ledger.repeated(&package, Fate::Delivered, &sent);
            let tally = &ledger.tally;
            assert_eq!(tally.repeated, 1);
            let faults = (tally.unequal.times, tally.not_once.times);
            assert_eq!(faults, (unequal, not_once), "{sent:?}");
        }
    }

    #[test]
    fn two_at_once_must_be_answered_alike() {
        for (fate, faults) in [(Fate::Delivered, 0), (Fate::Dropped, 1)] {
            let mut ledger = Ledger::default();
            ledger.send(&[acknowledged(new()), acknowledged(handled(false, fate))]);
            assert_eq!(ledger.tally.unequal.times, faults);
            assert_eq!(ledger.tally.repeated, 1);
        }
    }

    #[test]
    fn a_mismatch_must_be_marked_and_answered_like_the_first_time() {
        let package = package(PackageType::Personal);
        let marked = |mut answer: Handled| {
            answer.body["mismatch"] = json!(true);
            acknowledged(answer)
        };
        for (sent, unmarked, not_once) in [
            (marked(old()), 0, 0),
            (acknowledged(old()), 1, 0),
            (marked(handled(false, Fate::Dropped)), 1, 0),
            (marked(new()), 0, 1),
            (given_up(0), 1, 0),
        ] {
            let mut ledger = Ledger::default();
            ledger.mismatched(&package, Fate::Delivered, &sent);
            let tally = &ledger.tally;
            let faults = (tally.unmarked.times, tally.not_once.times);
            assert_eq!(faults, (unmarked, not_once), "{sent:?}");
        }
    }

    fn update_answer(applied: &Value, personal: bool, marketing: bool) -> Updated {
        Updated(json!({
            "recipient_id": "recipient-1",
            "personal_preference": personal,
            "marketing_preference": marketing,
            "applied": applied,
        }))
    }

    #[test]
    fn an_update_must_be_applied_if_it_is_the_newest() {
        let (yes, no) = (json!(true), json!(false));
        for (second, answer, faults) in [
            (11, acknowledged(update_answer(&yes, false, false)), 0),
            (11, acknowledged(update_answer(&no, false, false)), 1),
            (11, acknowledged(update_answer(&yes, false, true)), 1),
            (11, retried(update_answer(&no, false, false)), 0),
            (10, acknowledged(update_answer(&yes, false, false)), 0),
            (10, acknowledged(update_answer(&no, false, false)), 0),
            (
                10,
                acknowledged(update_answer(&Value::Null, false, false)),
                1,
            ),
            (9, acknowledged(update_answer(&no, true, true)), 0),
            (9, acknowledged(update_answer(&yes, false, false)), 1),
            (9, acknowledged(Updated(Value::Null)), 1),
        ] {
            let mut ledger = Ledger::default();
            let mut preference = Preference::default();
            preference.apply(&update(10, true, true));
            ledger.updated(&mut preference, &update(second, false, false), &answer);
            assert_eq!(
                ledger.tally.misjudged.times, faults,
                "{second} {:?}",
                answer.acknowledged
            );
            let holds = second < 10;
            assert_eq!(preference.known(), Some((holds, holds)));
        }
    }

    #[test]
    fn an_update_of_unknown_fate_leaves_nothing_known() {
        for (uncertain, known) in [(0, Some((true, true))), (1, None)] {
            let mut ledger = Ledger::default();
            let mut preference = Preference::default();
            ledger.updated(
                &mut preference,
                &update(1, false, false),
                &given_up(uncertain),
            );
            assert_eq!(preference.known(), known);
            assert_eq!(ledger.tally.given_up.times, 1);
            // The lost one may be newer than the next.
            let no = acknowledged(update_answer(&json!(false), false, false));
            ledger.updated(&mut preference, &update(0, false, false), &no);
            assert_eq!(ledger.tally.misjudged.times, 1 - uncertain);
        }
    }

    #[test]
    fn a_malformed_request_must_be_rejected_and_counts_for_each_try() {
        let package = package(PackageType::Personal);
        let malformed = spoiled(0, &package, &update(1, true, true));
        let rejected = |is_problem| Rejected { is_problem };
        for (sent, faults, expected) in [
            (acknowledged(rejected(true)), 0, Expected::of(1, 0)),
            (acknowledged(rejected(false)), 1, Expected::of(1, 0)),
            (retried(rejected(true)), 0, Expected::of(1, 1)),
            (given_up(3), 1, Expected::of(0, 3)),
        ] {
            let mut ledger = Ledger::default();
            ledger.malformed(&malformed, &sent);
            assert_eq!(ledger.tally.not_rejected.times, faults, "{sent:?}");
            assert_eq!(ledger.tally.growth()[6], expected);
        }
    }

    #[test]
    fn only_the_last_packages_are_kept() {
        let mut ledger = Ledger::default();
        for _ in 0..=LOOKED_UP_MAX {
            ledger.send(&[acknowledged(new())]);
        }
        assert_eq!(ledger.recent.len(), LOOKED_UP_MAX);
    }
}
