//! The contract of a store: each adapter runs [`suite!`] in its tests.

use std::sync::Arc;

use jiff::Timestamp;
use proptest::prelude::*;
use simulators::packages::{Fate, Model};

use super::super::model::{Outcome, PackageType, Preference, Tally, Types};
use super::*;

pub(in super::super) fn types() -> Arc<Types> {
    let names = ["personal", "marketing"].map(str::to_owned);
    Arc::new(Types::new(&names, &[]).unwrap())
}

const PERSONAL: PackageType = PackageType(0);
const MARKETING: PackageType = PackageType(1);

pub(in super::super) fn id(text: &str) -> Id {
    Id::parse(text).unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub(in super::super) fn package(name: &str, package_type: PackageType) -> Package {
    Package {
        id: id(name),
        timestamp: at(1000),
        sender: id("sender"),
        recipient: id("ada"),
        package_type,
    }
}

fn says(second: i64, personal: bool, marketing: bool) -> Update {
    Update {
        recipient: id("ada"),
        timestamp: at(second),
        takes: [(PERSONAL, personal), (MARKETING, marketing)].into(),
    }
}

async fn outcome(store: &impl Store, package: Package) -> Outcome {
    store.send(package).await.unwrap().processed.outcome
}

async fn tallies(store: &impl Store) -> (Tally, u64) {
    let statistics = store.statistics().await.unwrap();
    (statistics.total(), statistics.rejected)
}

pub(in super::super) async fn a_package_is_processed_once(store: impl Store) {
    let before = store.version();
    let first = store.send(package("p", PERSONAL)).await.unwrap();
    assert!(!first.duplicate && !first.mismatch);
    assert_eq!(first.processed.outcome, Outcome::Delivered);
    assert_ne!(store.version(), before);
    let again = store.send(package("p", PERSONAL)).await.unwrap();
    assert!(again.duplicate && !again.mismatch);
    assert_eq!(again.processed, first.processed);
    assert_eq!(
        store.package(id("p")).await.unwrap(),
        Some(first.processed.clone())
    );
    assert_eq!(store.package(id("q")).await.unwrap(), None);
    let one = Tally {
        delivered: 1,
        dropped: 0,
    };
    assert_eq!(tallies(&store).await, (one, 0));
}

pub(in super::super) async fn whatever_else_a_retry_says_the_id_identifies(store: impl Store) {
    let first = store.send(package("p", PERSONAL)).await.unwrap();
    let original = || package("p", PERSONAL);
    let others = [
        package("p", MARKETING),
        Package {
            timestamp: at(1001),
            ..original()
        },
        Package {
            sender: id("another"),
            ..original()
        },
        Package {
            recipient: id("bo"),
            ..original()
        },
    ];
    for other in others {
        let sent = store.send(other).await.unwrap();
        assert!(sent.duplicate && sent.mismatch);
        assert_eq!(sent.processed, first.processed);
    }
    assert!(!store.send(original()).await.unwrap().mismatch);
}

pub(in super::super) async fn what_is_declined_is_dropped_and_stays_dropped(store: impl Store) {
    let (preferences, applied) = store.update(says(7, true, false)).await.unwrap();
    assert!(applied);
    let preference = |takes| Preference {
        timestamp: at(7),
        takes,
    };
    assert_eq!(
        preferences,
        [(PERSONAL, preference(true)), (MARKETING, preference(false))].into()
    );
    assert_eq!(store.preferences(id("ada")).await.unwrap(), preferences);
    assert!(store.preferences(id("stranger")).await.unwrap().is_empty());
    let dropped = store.send(package("m", MARKETING)).await.unwrap();
    assert_eq!(dropped.processed.outcome, Outcome::Dropped);
    assert_eq!(dropped.processed.preference_timestamp, Some(at(7)));
    assert_eq!(
        outcome(&store, package("p", PERSONAL)).await,
        Outcome::Delivered
    );
    // A new preference only affects later packages.
    store.update(says(8, true, true)).await.unwrap();
    let again = store.send(package("m", MARKETING)).await.unwrap();
    assert!(again.duplicate);
    assert_eq!(again.processed, dropped.processed);
    assert_eq!(
        outcome(&store, package("n", MARKETING)).await,
        Outcome::Delivered
    );
    let statistics = store.statistics().await.unwrap();
    let marketing = Tally {
        delivered: 1,
        dropped: 1,
    };
    assert_eq!(statistics.by_type["marketing"], marketing);
}

pub(in super::super) async fn an_older_word_changes_nothing(store: impl Store) {
    store.update(says(7, false, true)).await.unwrap();
    let (preferences, applied) = store.update(says(6, true, false)).await.unwrap();
    assert!(!applied);
    assert!(!preferences[&PERSONAL].takes && preferences[&MARKETING].takes);
    // With the same timestamp the refusal holds, for each type by itself.
    let (preferences, applied) = store.update(says(7, true, false)).await.unwrap();
    assert!(!applied);
    assert!(!preferences[&PERSONAL].takes && !preferences[&MARKETING].takes);
    assert_eq!(store.preferences(id("ada")).await.unwrap(), preferences);
}

pub(in super::super) async fn malformed_requests_are_counted(store: impl Store) {
    // A repeated, or late, number changes nothing.
    for (total, stored) in [(2, 2), (3, 3), (3, 3), (1, 3)] {
        store.store_rejected(total).await.unwrap();
        assert_eq!(tallies(&store).await, (Tally::default(), stored));
    }
}

pub(in super::super) async fn after_a_reset_any_word_holds_whatever_its_time(store: impl Store) {
    let others = Update {
        recipient: id("bo"),
        ..says(9, false, false)
    };
    let (preferences, _) = store.update(others).await.unwrap();
    store
        .update(says(250_000_000_000, false, false))
        .await
        .unwrap();
    let (_, applied) = store.update(says(7, true, true)).await.unwrap();
    assert!(!applied, "shut out");
    let dropped = store.send(package("p", PERSONAL)).await.unwrap();
    // A reset is idempotent, and possible without preferences.
    for recipient in ["ada", "ada", "stranger"] {
        store.reset(id(recipient)).await.unwrap();
    }
    assert!(store.preferences(id("ada")).await.unwrap().is_empty());
    assert_eq!(store.preferences(id("bo")).await.unwrap(), preferences);
    let (_, applied) = store.update(says(1, true, false)).await.unwrap();
    assert!(applied);
    assert_eq!(
        outcome(&store, package("q", PERSONAL)).await,
        Outcome::Delivered
    );
    // Processed packages keep their outcome.
    let again = store.send(package("p", PERSONAL)).await.unwrap();
    assert!(again.duplicate);
    assert_eq!(again.processed, dropped.processed);
}

pub(in super::super) async fn of_many_at_once_one_is_the_first(
    store: impl Store + Clone + 'static,
) {
    let senders: Vec<_> = (0..64)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.send(package("p", PERSONAL)).await.unwrap() })
        })
        .collect();
    let mut firsts = 0;
    for sender in senders {
        firsts += u32::from(!sender.await.unwrap().duplicate);
    }
    assert_eq!(firsts, 1);
    assert_eq!(tallies(&store).await.0.delivered, 1);
}

/// A call of the store.
#[derive(Debug, Clone)]
pub(in super::super) enum Step {
    Send(Package),
    Update(Update),
    Reject,
}

fn recipient() -> impl Strategy<Value = Id> {
    (0_u8..3).prop_map(|n| id(&format!("r{n}")))
}

fn step() -> impl Strategy<Value = Step> {
    let package_type = (0_usize..2).prop_map(PackageType);
    let send = (0_u8..20, recipient(), package_type).prop_map(|(n, recipient, package_type)| {
        Step::Send(Package {
            recipient,
            ..package(&format!("p{n}"), package_type)
        })
    });
    let takes =
        prop::collection::btree_map((0_usize..2).prop_map(PackageType), any::<bool>(), 1..3);
    let update = (recipient(), 0_i64..5, takes).prop_map(|(recipient, second, takes)| {
        Step::Update(Update {
            recipient,
            timestamp: at(second),
            takes,
        })
    });
    prop_oneof![4 => send, 3 => update, 1 => Just(Step::Reject)]
}

pub(in super::super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..60)
}

pub(in super::super) async fn agrees_with_the_model(store: impl Store, steps: Vec<Step>) {
    let types = types();
    let (mut model, mut rejected) = (Model::<Package, PackageType>::default(), 0);
    for step in steps {
        match step {
            Step::Send(package) => {
                let (id, recipient) = (package.id.to_string(), package.recipient.to_string());
                let kind = package.package_type;
                let expected = model.send(&id, &recipient, kind, package.clone());
                let sent = store.send(package).await.unwrap();
                assert_eq!(fate(sent.processed.outcome), expected.fate);
                let actual = (sent.duplicate, sent.mismatch);
                assert_eq!(actual, (expected.duplicate, expected.mismatch));
            }
            Step::Update(update) => {
                let expected = model.preferences(update.recipient.as_str());
                let takes = update.takes.iter().map(|(kind, takes)| (*kind, *takes));
                let holds = expected.apply(update.timestamp.as_second(), takes);
                let (preferences, applied) = store.update(update).await.unwrap();
                assert_eq!(applied, holds);
                for (package_type, _) in types.all() {
                    let preference = preferences.get(&package_type);
                    let preference = preference
                        .map(|preference| (preference.timestamp.as_second(), preference.takes));
                    assert_eq!(preference, expected.newest(package_type));
                }
            }
            Step::Reject => {
                rejected += 1;
                store.store_rejected(rejected).await.unwrap();
            }
        }
    }
    let statistics = store.statistics().await.unwrap();
    for (package_type, _) in types.all() {
        let tally = statistics.by_type.get(types.name(package_type));
        let tally = tally.copied().unwrap_or_default();
        assert_eq!(tally.delivered, model.count(package_type, Fate::Delivered));
        assert_eq!(tally.dropped, model.count(package_type, Fate::Dropped));
    }
    assert_eq!(statistics.rejected, rejected);
}

fn fate(outcome: Outcome) -> Fate {
    match outcome {
        Outcome::Delivered => Fate::Delivered,
        Outcome::Dropped => Fate::Dropped,
    }
}

/// Runs the contract against the stores that `$open` creates: from nothing to a store and a guard.
macro_rules! suite {
    ($open:expr) => {
        macro_rules! situation {
            ($name:ident) => {
                #[tokio::test]
                async fn $name() {
                    let open: fn() -> _ = $open;
                    let (store, _beside) = open();
                    contract::$name(store).await;
                }
            };
        }
        situation!(a_package_is_processed_once);
        situation!(whatever_else_a_retry_says_the_id_identifies);
        situation!(what_is_declined_is_dropped_and_stays_dropped);
        situation!(an_older_word_changes_nothing);
        situation!(malformed_requests_are_counted);
        situation!(after_a_reset_any_word_holds_whatever_its_time);
        situation!(of_many_at_once_one_is_the_first);

        proptest::proptest! {
            #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

            #[test]
            fn it_agrees_with_the_model(steps in contract::steps()) {
                let open: fn() -> _ = $open;
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                let (store, _beside) = open();
                runtime.block_on(contract::agrees_with_the_model(store, steps));
            }
        }
    };
}
pub(in super::super) use suite;
