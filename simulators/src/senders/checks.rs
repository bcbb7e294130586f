//! What must hold after a run: the server's account of it against what it has acknowledged.

use super::{
    ledger::{Ledger, Tally},
    preference::Preference,
};
use crate::{
    audit::{Check, Counted, Faults, Figure},
    packages::{Fate, Package, Preferences, Statistics, Stored},
};

/// Recipients whose preferences are compared at the end, at most.
pub(crate) const RECIPIENTS_MAX: usize = 200;

/// The server's final answers about a sample of packages or recipients, compared with the ledger.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    pub(crate) all: u64,
    /// Those whose expected state is unknown.
    unknown: u64,
    faults: Faults,
    /// Why not all could be looked up.
    pub(crate) broken_off: Option<String>,
}

/// All that must hold.
pub(crate) fn all(
    tally: &Tally,
    counted: &Counted<Statistics>,
    packages: &Compared,
    preferences: &Compared,
) -> Vec<Check> {
    let requests = tally.packages + tally.updates;
    let mut checks = vec![
        Check::nothing_given_up(
            "every request acknowledged",
            "packages and preferences",
            requests,
            &tally.given_up,
            tally.fate_unknown,
        ),
        Check::without("fates of the packages", &tally.wrong_fate, tally.judged),
        Check::without("each package new once", &tally.not_once, tally.packages),
        Check::without("acknowledgements", &tally.misnamed, tally.packages),
        Check::without("duplicates", &tally.unequal, tally.repeated),
        Check::without("mismatches", &tally.unmarked, tally.mismatched),
        Check::without("answers to preferences", &tally.misjudged, tally.updates),
        Check::without(
            "malformed requests rejected",
            &tally.not_rejected,
            tally.malformed,
        ),
    ];
    checks.extend(statistics(tally, counted));
    checks.push(packages.check("packages kept", "GET /packages/…"));
    checks.push(preferences.check("preferences kept", "GET /preferences/…"));
    checks
}

fn statistics(tally: &Tally, counted: &Counted<Statistics>) -> [Check; 7] {
    let figures: [(_, Figure<Statistics>); 7] = [
        ("packages delivered", |reported| reported.packages_delivered),
        ("packages dropped", |reported| reported.packages_dropped),
        ("personal delivered", |reported| {
            reported.by_type.personal.delivered
        }),
        ("personal dropped", |reported| {
            reported.by_type.personal.dropped
        }),
        ("marketing delivered", |reported| {
            reported.by_type.marketing.delivered
        }),
        ("marketing dropped", |reported| {
            reported.by_type.marketing.dropped
        }),
        ("requests rejected", |reported| reported.requests_rejected),
    ];
    let growth = tally.growth();
    let number = std::array::from_fn(|number| {
        let (name, figure) = figures[number];
        (name, figure, growth[number])
    });
    counted.changes("GET /statistics", number)
}

impl Compared {
    /// Compares the server's record of a package; none when the server does not know it.
    pub(crate) fn add_package(&mut self, package: &Package, fate: Fate, kept: Option<&Stored>) {
        self.all += 1;
        let fault = match kept {
            None => "the server does not know it".to_owned(),
            Some(kept) => match kept.difference(package, fate) {
                None => return,
                Some(field) => format!("{field} is {}", kept.0[field]),
            },
        };
        self.faults
            .note(|| format!("{}: {fault}", package.package_id));
    }

    /// Compares the server's preferences of a recipient.
    pub(crate) fn add_recipient(
        &mut self,
        id: &str,
        preference: Preference,
        reported: &Preferences,
    ) {
        self.all += 1;
        let Some((personal, marketing)) = preference.known() else {
            self.unknown += 1;
            return;
        };
        let expected = Preferences {
            recipient_id: id.to_owned(),
            personal_preference: personal,
            marketing_preference: marketing,
        };
        if *reported != expected {
            let words = |of: &Preferences| {
                let word = |wanted| if wanted { "yes" } else { "no" };
                let (personal, marketing) = (of.personal_preference, of.marketing_preference);
                format!("personal {}, marketing {}", word(personal), word(marketing))
            };
            self.faults.note(|| {
                let (recipient, reported) = (&reported.recipient_id, words(reported));
                format!(
                    "{id}: told {reported} of {recipient}, must be {}",
                    words(&expected)
                )
            });
        }
    }

    fn check(&self, name: &'static str, asked: &str) -> Check {
        let broken_off = self.broken_off.as_deref();
        let known = self.all - self.unknown;
        let mut check = Check::looked_up(name, asked, &self.faults, known, broken_off);
        if broken_off.is_none() && self.unknown > 0 {
            let unknown = self.unknown;
            check.finding = format!("{}; {unknown} of unknown fate", check.finding);
        }
        check
    }
}

impl Ledger {
    /// The recipients to be compared: first those whose preference was ever updated; not more than
    /// [`RECIPIENTS_MAX`].
    pub(crate) fn compared_recipients(&self) -> Vec<&(String, Preference)> {
        let mut recipients: Vec<_> = self.recipients.iter().collect();
        recipients.sort_unstable_by_key(|(id, preference)| (!preference.is_set(), id));
        recipients.truncate(RECIPIENTS_MAX);
        recipients
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        audit::Outcome,
        packages::{
            ByType, Fates, PackageType, Rejected, Updated,
            tests::{handled, package},
        },
        senders::{
            ledger::tests::{acknowledged, given_up},
            malformed::spoiled,
            preference::tests::{after, update},
        },
    };

    const BEFORE: Statistics = Statistics {
        packages_delivered: 100,
        packages_dropped: 50,
        requests_rejected: 7,
        by_type: ByType {
            personal: Fates {
                delivered: 60,
                dropped: 20,
            },
            marketing: Fates {
                delivered: 40,
                dropped: 30,
            },
        },
    };

    type FigureMut = fn(&mut Statistics) -> &mut u64;

    type Wrong<'a> = &'a dyn Fn(&mut Ledger);

    /// One package delivered, one malformed request rejected.
    fn sent() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.send(&[acknowledged(handled(true, Fate::Delivered))]);
        let package = package(PackageType::Personal);
        let malformed = spoiled(0, &package, &update(1, true, true));
        ledger.malformed(&malformed, &acknowledged(Rejected { is_problem: true }));
        ledger
    }

    fn proper() -> Statistics {
        let mut after = BEFORE;
        after.packages_delivered += 1;
        after.by_type.personal.delivered += 1;
        after.requests_rejected += 1;
        after
    }

    fn failed_of(ledger: &Ledger, counted: &Counted<Statistics>) -> Vec<&'static str> {
        let compared = Compared::default();
        let checks = all(&ledger.tally, counted, &compared, &compared);
        let failed = checks
            .iter()
            .filter(|check| check.outcome == Outcome::Failed);
        failed.map(|check| check.name).collect()
    }

    fn failed(ledger: &Ledger, after: Statistics) -> Vec<&'static str> {
        failed_of(ledger, &Counted::BeforeAndAfter(BEFORE, after))
    }

    #[test]
    fn a_proper_run_holds_in_everything() {
        assert_eq!(failed(&sent(), proper()), [""; 0]);
    }

    #[test]
    fn statistics_that_are_off_by_one_fail_under_their_name() {
        let figures: [(&str, FigureMut); 7] = [
            ("packages delivered", |reported| {
                &mut reported.packages_delivered
            }),
            ("packages dropped", |reported| {
                &mut reported.packages_dropped
            }),
            ("personal delivered", |reported| {
                &mut reported.by_type.personal.delivered
            }),
            ("personal dropped", |reported| {
                &mut reported.by_type.personal.dropped
            }),
            ("marketing delivered", |reported| {
                &mut reported.by_type.marketing.delivered
            }),
            ("marketing dropped", |reported| {
                &mut reported.by_type.marketing.dropped
            }),
            ("requests rejected", |reported| {
                &mut reported.requests_rejected
            }),
        ];
        for (name, figure) in figures {
            for by in [-1, 1] {
                let mut wrong = proper();
                let figure = figure(&mut wrong);
                *figure = figure.strict_add_signed(by);
                assert_eq!(failed(&sent(), wrong), [name]);
            }
        }
    }

    #[test]
    fn statistics_that_could_not_be_read_fail_and_those_of_a_shared_server_are_skipped() {
        let unreadable = Counted::Unreadable("connection refused".to_owned());
        assert_eq!(failed_of(&sent(), &unreadable).len(), 7);
        let nothing = Compared::default();
        let checks = all(&sent().tally, &Counted::NotCompared, &nothing, &nothing);
        let skipped = checks
            .iter()
            .filter(|check| check.outcome == Outcome::Skipped);
        assert_eq!(skipped.count(), 7);
    }

    #[test]
    fn a_malformed_request_of_unknown_fate_admits_one_more_and_says_so() {
        let mut ledger = sent();
        let package = package(PackageType::Personal);
        let malformed = spoiled(0, &package, &update(1, true, true));
        let lost = crate::resend::Sent {
            uncertain: 1,
            ..acknowledged(Rejected { is_problem: true })
        };
        ledger.malformed(&malformed, &lost);
        for (rejected, holds) in [(8, false), (9, true), (10, true), (11, false)] {
            let mut after = proper();
            after.requests_rejected = rejected;
            let failed = failed(&ledger, after);
            assert_eq!(failed.is_empty(), holds, "{rejected}");
        }
        let nothing = Compared::default();
        let counted = Counted::BeforeAndAfter(BEFORE, proper());
        let checks = all(&ledger.tally, &counted, &nothing, &nothing);
        let rejected = checks
            .iter()
            .find(|check| check.name == "requests rejected")
            .unwrap();
        assert_eq!(
            rejected.finding,
            "7 to 8: +1, expected +2 to +3 (1 of unknown fate)"
        );
    }

    #[test]
    fn faults_of_the_answers_fail_under_their_names() {
        let package = package(PackageType::Personal);
        let fate = Fate::Delivered;
        let old = || acknowledged(handled(false, fate));
        let wrongs: [(&str, Wrong); 6] = [
            ("each package new once", &|ledger| {
                ledger.repeated(&package, fate, &acknowledged(handled(true, fate)));
            }),
            ("duplicates", &|ledger| {
                ledger.repeated(&package, Fate::Dropped, &old());
            }),
            ("mismatches", &|ledger| {
                ledger.mismatched(&package, fate, &old());
            }),
            ("answers to preferences", &|ledger| {
                let answer = acknowledged(Updated(json!({})));
                let mut preference = Preference::default();
                ledger.updated(&mut preference, &update(1, true, true), &answer);
            }),
            ("malformed requests rejected", &|ledger| {
                let malformed = spoiled(0, &package, &update(1, true, true));
                ledger.malformed(&malformed, &given_up(0));
            }),
            ("every request acknowledged", &|ledger| {
                ledger.send(&[given_up(0)]);
            }),
        ];
        for (name, wrong) in wrongs {
            let mut ledger = sent();
            wrong(&mut ledger);
            assert_eq!(failed(&ledger, proper()), [name]);
        }
        let mut ledger = sent();
        let mut misnamed = handled(true, fate);
        misnamed.body["package_id"] = json!("package-2");
        ledger.sent(
            &package,
            Some(Fate::Dropped),
            &[acknowledged(misnamed)],
            std::time::Duration::ZERO,
        );
        let mut after = proper();
        after.packages_delivered += 1;
        after.by_type.personal.delivered += 1;
        assert_eq!(
            failed(&ledger, after),
            ["fates of the packages", "acknowledgements"]
        );
    }

    #[test]
    fn packages_must_be_known_and_as_they_were_answered() {
        let package = package(PackageType::Personal);
        let kept = |status: &str| {
            let mut body = package.json();
            body["sender_id"] = json!("17");
            body["status"] = json!(status);
            Stored(body)
        };
        for (kept, finding) in [
            (Some(kept("delivered")), "1 right"),
            (
                Some(kept("dropped")),
                "1 of 1 wrong; first package-1: status is \"dropped\"",
            ),
            (
                None,
                "1 of 1 wrong; first package-1: the server does not know it",
            ),
        ] {
            let mut compared = Compared::default();
            compared.add_package(&package, Fate::Delivered, kept.as_ref());
            let check = compared.check("packages kept", "GET");
            assert_eq!(check.finding, finding);
            let holds = kept.is_some_and(|kept| kept.0["status"] == "delivered");
            assert_eq!(check.outcome == Outcome::Ok, holds);
        }
    }

    #[test]
    fn preferences_must_be_those_of_the_newest_update_unless_nobody_knows() {
        let reported = |personal, marketing| Preferences {
            recipient_id: "one".to_owned(),
            personal_preference: personal,
            marketing_preference: marketing,
        };
        let preference = after(&[update(1, true, false)]);
        for (reported, holds) in [
            (reported(true, false), true),
            (reported(true, true), false),
            (reported(false, false), false),
        ] {
            let mut compared = Compared::default();
            compared.add_recipient("one", preference, &reported);
            let check = compared.check("preferences kept", "GET");
            assert_eq!(check.outcome == Outcome::Ok, holds);
        }
        let mut compared = Compared::default();
        compared.add_recipient("two", preference, &reported(true, false));
        let check = compared.check("preferences kept", "GET");
        assert_eq!(check.outcome, Outcome::Failed, "told of another");

        let mut unknown = preference;
        unknown.forget();
        let mut compared = Compared::default();
        compared.add_recipient("one", unknown, &reported(true, true));
        let check = compared.check("preferences kept", "GET");
        assert_eq!(check.outcome, Outcome::Ok);
        assert_eq!(check.finding, "0 right; 1 of unknown fate");
    }

    #[test]
    fn what_could_not_be_looked_up_fails() {
        let compared = Compared {
            broken_off: Some("connection refused".to_owned()),
            ..Compared::default()
        };
        let check = compared.check("packages kept", "GET /packages/…");
        assert_eq!(check.outcome, Outcome::Failed);
        assert_eq!(check.finding, "GET /packages/…: connection refused");
    }

    #[test]
    fn recipients_with_a_preference_are_compared_first() {
        let mut ledger = Ledger::default();
        for number in 0..RECIPIENTS_MAX {
            let stranger = (format!("a{number}"), Preference::default());
            ledger.recipients.push(stranger);
        }
        let set = ("b".to_owned(), after(&[update(1, true, true)]));
        ledger.recipients.push(set);
        let compared = ledger.compared_recipients();
        assert_eq!(compared.len(), RECIPIENTS_MAX);
        assert_eq!(compared[0].0, "b");
    }
}
