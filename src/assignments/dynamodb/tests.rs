use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;
use testkit::aws::{Emulator, emulator, endpoint};
use testkit::proxy::Fault::{self, AnswerLost, Lost};
use testkit::proxy::{ANY, Proxy};
use testkit::until;
use tokio::time::Instant;
use uuid::Uuid;

use super::super::model::{Assignment, DriverChange};
use super::super::store::contract::{
    self, Applies, at, change, consistent, day, driver, held, id, listed, package, part, says,
};
use super::*;

const THROTTLED: Fault = Fault::Error("ProvisionedThroughputExceededException", 400);
const THROTTLED_INSIDE: Fault = Fault::Canceled("ThrottlingError");
const CONFLICT: Fault = Fault::Canceled("TransactionConflict");
const BROKEN: Fault = Fault::Error("InternalServerError", 500);
const FAULTS: &[Fault] = &[
    THROTTLED,
    THROTTLED_INSIDE,
    CONFLICT,
    BROKEN,
    Lost,
    AnswerLost,
];

/// Longer than any test may take: on a busy machine the emulator, which all tests share, may take long to answer.
const LONG: Duration = Duration::from_mins(10);

const HASTY: Patience = Patience {
    tries: 4,
    backoff: Duration::from_millis(2),
    retry: LONG,
    limit: LONG,
};

/// Accepts a few random faults in a row.
const PATIENT: Patience = Patience {
    tries: 6,
    backoff: Duration::from_millis(10),
    ..HASTY
};

/// Soon refuses what is throttled, and still waits for each answer.
const SOON_BUSY: Patience = Patience {
    retry: Duration::from_millis(50),
    ..HASTY
};

fn names() -> Tables {
    let unique = Uuid::new_v4().simple();
    Tables {
        assignments: format!("assignments-{unique}"),
        packages: format!("packages-{unique}"),
    }
}

/// A store in tables of its own.
async fn open(endpoint: &str, patience: Patience) -> Dynamodb {
    let aws = Aws::emulated(endpoint).await.without_timeouts();
    let tables = names();
    provision(&aws.dynamodb(), &tables).await.unwrap();
    Dynamodb::new(&aws, tables, patience)
}

/// A store in tables of its own, behind a proxy.
async fn behind_a_proxy(patience: Patience) -> (Dynamodb, Proxy) {
    let direct = open(&endpoint(), patience).await;
    let proxy = Proxy::isolating(emulator()).await;
    let aws = Aws::emulated(&proxy.endpoint()).await.without_timeouts();
    let store = Dynamodb::new(&aws, (*direct.tables).clone(), patience);
    (store, proxy)
}

/// The same tables by another time limit.
fn with(store: &Dynamodb, patience: Patience) -> Dynamodb {
    let calls = Calls::new(store.client.clone(), Arc::clone(&store.tables), patience);
    let store = store.clone();
    Dynamodb { calls, ..store }
}

contract::suite!(async || behind_a_proxy(PATIENT).await, 6);

async fn day_is(store: &Dynamodb, expected: &[(&str, &str)]) {
    let now = consistent(store).await;
    let now: Vec<_> = now.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(now, expected);
}

async fn changed(store: &Dynamodb, part: DriverChange) -> Result<Changed, Unavailable> {
    store.applied(change(vec![part])).await
}

const TRANSACTION: &str = "TransactWriteItems";

#[tokio::test]
async fn tables_that_exist_are_left_as_they_are() {
    let store = open(&endpoint(), HASTY).await;
    let given = part("ada", 0, &[], &["p"]);
    assert_eq!(changed(&store, given).await, Ok(Changed::Done));
    provision(&store.client, &store.tables).await.unwrap();
    day_is(&store, &[("ada", "p")]).await;
}

#[tokio::test]
async fn without_its_tables_it_does_not_work_and_says_so_at_once() {
    let aws = Aws::emulated(&endpoint()).await.without_timeouts();
    let store = Dynamodb::new(&aws, names(), HASTY);
    assert!(store.is_healthy());
    assert_eq!(store.held(day(0)).await, Err(Unavailable::Engine));
    assert!(!store.is_healthy());
    // Once they are there, it finds out by itself.
    provision(&store.client, &store.tables).await.unwrap();
    until("the store works", async || store.is_healthy()).await;
    day_is(&store, &[]).await;
}

#[tokio::test]
async fn what_passes_is_waited_for() {
    let (store, proxy) = behind_a_proxy(HASTY).await;
    for operation in [
        TRANSACTION,
        "UpdateItem",
        "Query",
        "Scan",
        "PutItem",
        "GetItem",
    ] {
        proxy.next(operation, &[THROTTLED, BROKEN, Lost]);
    }
    proxy.next(TRANSACTION, &[CONFLICT, THROTTLED_INSIDE, CONFLICT]);
    let given = part("ada", 0, &[], &["p", "q"]);
    assert_eq!(changed(&store, given).await, Ok(Changed::Done));
    let said = says("ada", "p", Status::Delivered, 2);
    store.update(said).await.unwrap().unwrap();
    let still = store.still_assigned(day(0), vec![driver("ada")]).await;
    assert_eq!(still.unwrap().len(), 1);
    assert_eq!(listed(&store, &Filter::default(), 10).await.len(), 2);
    let sheet = StoredManifest {
        version: Version(7),
        body: vec![1; 1000].into(),
    };
    store.store_manifest(day(0), sheet.clone()).await.unwrap();
    assert_eq!(store.manifest(day(0)).await.unwrap(), Some(sheet));
    let given = part("bo", 0, &[], &["r"]);
    assert_eq!(changed(&store, given).await, Ok(Changed::Done));
    assert!(proxy.is_over());
    day_is(&store, &[("ada", "p"), ("ada", "q"), ("bo", "r")]).await;
}

#[tokio::test]
async fn what_does_not_pass_is_said_and_nothing_is_kept() {
    let (store, proxy) = behind_a_proxy(SOON_BUSY).await;
    let given = || part("ada", 0, &[], &["p"]);
    for fault in [THROTTLED, CONFLICT, THROTTLED_INSIDE] {
        proxy.all_but(TRANSACTION, 0, fault);
        assert_eq!(changed(&store, given()).await, Err(Unavailable::Busy));
        assert!(store.is_healthy(), "it is busy");
    }
    proxy.end();
    let store = with(&store, HASTY);
    proxy.next(TRANSACTION, &[BROKEN, Lost, THROTTLED, BROKEN, BROKEN]);
    assert_eq!(changed(&store, given()).await, Err(Unavailable::Engine));
    assert!(!store.is_healthy());
    assert!(proxy.is_over());
    day_is(&store, &[]).await;
    assert!(store.is_healthy());
    assert_eq!(changed(&store, given()).await, Ok(Changed::Done));
    day_is(&store, &[("ada", "p")]).await;
}

/// A manifest of so many pieces.
fn sheet_of(version: u128, pieces: usize) -> StoredManifest {
    StoredManifest {
        version: Version(version),
        body: vec![version.to_le_bytes()[0]; (pieces - 1) * 350_000 + 1].into(),
    }
}

/// The keys of all items of manifests.
async fn items_of_manifests(store: &Dynamodb) -> BTreeSet<String> {
    let scan = store.client.scan().table_name(&store.tables.packages);
    let pages = scan.into_paginator().items().send();
    let items: Vec<Item> = pages.collect::<Result<_, _>>().await.unwrap();
    let names = items.iter().map(|item| {
        let of = |name| text_of(item, name).unwrap();
        format!("{} {}", of(SHARD), of(ITEM))
    });
    let is_of_manifest = |name: &String| name.contains("#manifest") || name.contains("#uploads");
    names.filter(is_of_manifest).collect()
}

#[tokio::test]
async fn a_manifest_that_is_throttled_is_kept_once_the_table_takes_it() {
    let (store, proxy) = behind_a_proxy(HASTY).await;
    // More often than a call may go unanswered.
    proxy.next("PutItem", &[THROTTLED; 6]);
    let sheet = sheet_of(1, 3);
    store.store_manifest(day(0), sheet.clone()).await.unwrap();
    assert!(proxy.is_over());
    assert!(store.manifest(day(0)).await.unwrap() == Some(sheet));
}

#[tokio::test]
async fn a_manifest_that_is_throttled_for_too_long_leaves_nothing_behind() {
    let (store, proxy) = behind_a_proxy(SOON_BUSY).await;
    let before = sheet_of(1, 2);
    store.store_manifest(day(0), before.clone()).await.unwrap();
    let items = items_of_manifests(&store).await;
    // Its place in the list of uploads, two of its pieces, and no more; then all but its head.
    for passed in [3, 5] {
        proxy.all_but("PutItem", passed, THROTTLED);
        let refused = store.store_manifest(day(0), sheet_of(2, 4)).await;
        assert_eq!(refused, Err(Unavailable::Busy));
        until("no piece is left", async || {
            items_of_manifests(&store).await == items
        })
        .await;
        assert!(store.manifest(day(0)).await.unwrap() == Some(before.clone()));
    }
    proxy.end();
    store.store_manifest(day(0), sheet_of(3, 1)).await.unwrap();
    // A head, a piece, and a place in the list.
    assert_eq!(items_of_manifests(&store).await.len(), 3);
}

#[tokio::test]
async fn a_manifest_whose_last_answer_is_lost_loses_no_pieces() {
    let (store, proxy) = behind_a_proxy(HASTY).await;
    store.store_manifest(day(0), sheet_of(1, 2)).await.unwrap();
    // All but its head are answered.
    proxy.all_but("PutItem", 3, AnswerLost);
    let sheet = sheet_of(2, 2);
    let told = store.store_manifest(day(0), sheet.clone()).await;
    assert_eq!(told, Err(Unavailable::Engine));
    proxy.end();
    assert!(store.manifest(day(0)).await.unwrap() == Some(sheet));
}

#[tokio::test]
async fn what_a_killed_process_left_of_a_manifest_is_removed_by_the_next_one() {
    let store = open(&endpoint(), HASTY).await;
    let now = Timestamp::now().as_second();
    let began = |hours_ago: i64| {
        let began = (now - hours_ago * 3600).cast_unsigned();
        Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, began, 0))
    };
    let (old, young) = (began(3), began(0));
    for (upload, pieces) in [(old, 2), (young, 1)] {
        let listed = values::place_of_day(format!("{}#uploads", day(0)), upload.to_string());
        let mut items = vec![listed];
        items[0].insert("pieces".to_owned(), values::count(pieces));
        items.extend((0..pieces).map(|number| {
            let item = format!("{upload}/{number:04}");
            values::place_of_day(format!("{}#manifest", day(0)), item)
        }));
        for item in items {
            let put = store.client.put_item().table_name(&store.tables.packages);
            Box::pin(put.set_item(Some(item)).send()).await.unwrap();
        }
    }
    store.store_manifest(day(0), sheet_of(1, 1)).await.unwrap();
    let items = items_of_manifests(&store).await;
    let of = |upload: Uuid| {
        items
            .iter()
            .filter(move |item| item.contains(&upload.to_string()))
    };
    assert_eq!(of(old).count(), 0, "{items:?}");
    // It may still be under way.
    assert_eq!(of(young).count(), 2, "{items:?}");
    assert_eq!(items.len(), 5, "{items:?}");
}

#[tokio::test]
async fn an_item_that_cannot_be_read_is_left_out_of_a_list() {
    let store = open(&endpoint(), HASTY).await;
    let given = part("ada", 0, &[], &["p", "q", "r"]);
    changed(&store, given).await.unwrap();
    let update = store.client.update_item();
    let update = update
        .table_name(&store.tables.assignments)
        .set_key(Some(key(&driver("ada"), &id("q"))))
        .update_expression("SET #status = :status")
        .expression_attribute_names("#status", STATUS)
        .expression_attribute_values(":status", text("mislaid"));
    Box::pin(update.send()).await.unwrap();
    let of_ada = Filter {
        driver: Some(driver("ada")),
        ..Filter::default()
    };
    for filter in [of_ada, Filter::default()] {
        let listing = store.list(filter, None, 10).await.unwrap();
        let names: Vec<_> = listing
            .assignments
            .iter()
            .map(|it| &it.package.id)
            .collect();
        assert_eq!(names, [&id("p"), &id("r")]);
    }
    // Its own update fails.
    let said = says("ada", "q", Status::Delivered, 2);
    assert_eq!(store.update(said).await.unwrap_err(), Unavailable::Failed);
}

#[tokio::test]
async fn a_change_whose_answer_was_lost_is_made_once() {
    let (store, proxy) = behind_a_proxy(HASTY).await;
    let steps = [
        (part("ada", 0, &[], &["p", "q"]), &[AnswerLost][..]),
        (part("ada", 2, &["p"], &[]), &[AnswerLost, Lost]),
        (
            part("ada", 1, &["q"], &["r", "p"]),
            &[AnswerLost, AnswerLost],
        ),
        (part("bo", 0, &[], &["q"]), &[BROKEN, AnswerLost, THROTTLED]),
    ];
    for (part, faults) in steps {
        proxy.next(TRANSACTION, faults);
        assert_eq!(changed(&store, part).await, Ok(Changed::Done));
        assert!(proxy.is_over());
    }
    day_is(&store, &[("ada", "p"), ("ada", "r"), ("bo", "q")]).await;
    // What stands in the way is not taken for one's own because an answer was lost.
    proxy.next(TRANSACTION, &[AnswerLost]);
    let taken = part("bo", 1, &[], &["s", "p"]);
    assert_eq!(changed(&store, taken).await, Ok(Changed::Outdated));
    let miscounted = part("bo", 0, &[], &["s"]);
    proxy.next(TRANSACTION, &[AnswerLost]);
    assert_eq!(changed(&store, miscounted).await, Ok(Changed::Outdated));
    assert!(proxy.is_over());
    day_is(&store, &[("ada", "p"), ("ada", "r"), ("bo", "q")]).await;
}

#[tokio::test]
async fn an_update_whose_answer_was_lost_tells_what_was_before() {
    let (store, proxy) = behind_a_proxy(HASTY).await;
    let given = part("ada", 0, &[], &["p"]);
    changed(&store, given).await.unwrap();
    proxy.next("UpdateItem", &[AnswerLost]);
    let strictly = Update {
        strict: true,
        ..says("ada", "p", Status::Delivered, 2)
    };
    let updated = store.update(strictly.clone()).await.unwrap().unwrap();
    assert_eq!(updated.from, Status::Assigned);
    assert_eq!(updated.assignment.status, Status::Delivered);
    // Said again later it is a retry, of which the store knows nothing.
    let again = Update {
        at: at(3),
        ..strictly
    };
    let again = store.update(again).await.unwrap().unwrap();
    assert_eq!(again.from, Status::Delivered);
    assert!(proxy.is_over());
}

#[tokio::test]
async fn a_large_change_that_was_interrupted_is_completed_by_asking_again() {
    let (store, proxy) = behind_a_proxy(HASTY).await;
    let names: Vec<_> = (0..60).map(|n| format!("p{n:03}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    // One transaction conflicts and the answer to the next is lost: the change completes. Later all answers are lost
    // in the middle of a second change.
    proxy.next(TRANSACTION, &[CONFLICT, Lost]);
    let whole = || part("ada", 0, &[], &names);
    assert_eq!(changed(&store, whole()).await, Ok(Changed::Done));
    let more: Vec<_> = (0..60).map(|n| format!("q{n:03}")).collect();
    let more: Vec<_> = more.iter().map(String::as_str).collect();
    let handle = tokio::spawn({
        let (store, part) = (store.clone(), part("bo", 0, &[], &more));
        async move { changed(&store, part).await }
    });
    let mut seen = 0;
    while seen == 0 {
        let now = store.held(day(0)).await;
        seen = now.map_or(1, |now| {
            now.iter().filter(|it| it.driver == driver("bo")).count()
        });
        if handle.is_finished() {
            break;
        }
    }
    proxy.all_but(ANY, 0, Lost);
    let outcome = handle.await.unwrap();
    assert!(matches!(
        outcome,
        Ok(Changed::Done) | Err(Unavailable::Engine)
    ));
    proxy.end();
    completed(&store, "bo", &more).await;
    assert_eq!(consistent(&store).await.len(), 120);
}

/// Asks as the service does: for what is not held yet, until all is.
async fn completed(store: &Dynamodb, name: &str, wanted: &[&str]) {
    for _ in 0..100 {
        let now = held(store, day(0)).await;
        let theirs = now.iter().filter(|pair| pair.0 == name);
        let theirs: BTreeSet<_> = theirs.map(|pair| pair.1.as_str()).collect();
        let rest = wanted.iter().filter(|package| !theirs.contains(*package));
        let rest: Vec<_> = rest.copied().collect();
        if rest.is_empty() {
            return;
        }
        changed(store, part(name, theirs.len(), &[], &rest))
            .await
            .unwrap();
    }
    panic!("it comes to no end");
}

#[tokio::test]
async fn an_engine_that_goes_and_comes_back_is_noticed() {
    let (store, proxy) = behind_a_proxy(HASTY).await;
    let given = || part("ada", 0, &[], &["p"]);
    proxy.all_but(ANY, 0, Lost);
    assert_eq!(changed(&store, given()).await, Err(Unavailable::Engine));
    assert_eq!(store.manifest(day(0)).await, Err(Unavailable::Engine));
    assert!(!store.is_healthy());
    proxy.end();
    // No request is needed for that.
    until("the store works", async || store.is_healthy()).await;
    assert_eq!(changed(&store, given()).await, Ok(Changed::Done));
    day_is(&store, &[("ada", "p")]).await;
}

#[tokio::test]
async fn an_engine_that_stands_still_is_given_up_in_time_and_loses_nothing() {
    let emulator = Emulator::start().await;
    let store = open(&emulator.endpoint(), HASTY).await;
    let given = part("ada", 0, &[], &["p"]);
    assert_eq!(changed(&store, given).await, Ok(Changed::Done));
    emulator.process.freeze();
    let limit = Duration::from_secs(1);
    let hurried = with(&store, Patience { limit, ..HASTY });
    let given = part("ada", 1, &[], &["q"]);
    let asked = Instant::now();
    assert_eq!(changed(&hurried, given).await, Err(Unavailable::Engine));
    assert!(asked.elapsed() >= limit);
    assert!(!hurried.is_healthy());
    emulator.process.thaw();
    until("the store works", async || hurried.is_healthy()).await;
    // What was asked while it stood still may be done or not, and may even be done only now.
    for _ in 0..100 {
        let now = held(&store, day(0)).await.len();
        let rest: &[&str] = if now == 1 { &["q"] } else { &[] };
        if changed(&store, part("ada", now, &[], rest)).await == Ok(Changed::Done) {
            break;
        }
    }
    day_is(&store, &[("ada", "p"), ("ada", "q")]).await;
}

#[tokio::test]
async fn whatever_goes_wrong_nothing_is_lost_or_doubled() {
    for seed in 0..3 {
        let (store, proxy) = behind_a_proxy(HASTY).await;
        proxy.chance(seed, 20, FAULTS);
        contract::plan_together(&store, |unavailable| unavailable != Unavailable::Failed).await;
        proxy.chance(seed, 0, FAULTS);
        contract::everything_is_planned_once(&store).await;
    }
}

#[tokio::test]
async fn a_list_goes_on_beyond_the_engines_pages() {
    let store = open(&endpoint(), HASTY).await;
    let mut given = part("ada", 0, &[], &[]);
    for n in 0..300 {
        let mut package = package(&format!("p{n:03}"));
        package.destination = Some("\u{1F4E6}".repeat(1000).into());
        given.given.push(package);
    }
    assert_eq!(changed(&store, given).await, Ok(Changed::Done));
    let first = id("p000");
    let last = id("p299");
    for name in [&first, &last] {
        let said = says("ada", name.as_str(), Status::Delivered, 2);
        store.update(said).await.unwrap().unwrap();
    }
    let delivered = |driver: Option<&str>| Filter {
        driver: driver.map(contract::driver),
        status: Some(Status::Delivered),
        ..Filter::default()
    };
    for filter in [delivered(None), delivered(Some("ada"))] {
        // The second one is a page away from the first.
        let listing = store.list(filter.clone(), None, 1).await.unwrap();
        let place = Place {
            driver: driver("ada"),
            date: None,
            package: first.clone(),
        };
        assert_eq!(listing.next, Some(place));
        let listing = store.list(filter, listing.next, 1).await.unwrap();
        let names: Vec<_> = listing
            .assignments
            .iter()
            .map(|it| &it.package.id)
            .collect();
        assert_eq!((names, listing.next), (vec![&last], None));
    }
    assert_eq!(listed(&store, &Filter::default(), 299).await.len(), 300);
    let still = store.still_assigned(day(0), vec![driver("ada")]).await;
    assert_eq!(still.unwrap().len(), 298);
}

#[tokio::test]
async fn a_place_that_is_elsewhere_is_the_end() {
    let store = open(&endpoint(), HASTY).await;
    let given = part("ada", 0, &[], &["p", "q"]);
    changed(&store, given).await.unwrap();
    let place = Some(Place {
        driver: driver("bo"),
        date: None,
        package: id("p"),
    });
    let filter = Filter {
        driver: Some(driver("ada")),
        ..Filter::default()
    };
    let listing = store.list(filter, place, 10).await.unwrap();
    assert_eq!((listing.assignments, listing.next), (vec![], None));
}

proptest! {
    #[test]
    fn numbers_come_back_as_they_were(weight in prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO) {
        let mut package = package("p");
        package.weight_kg = weight.abs();
        package.temperature_c = weight;
        let kept = Assignment {
            driver: driver("ada"),
            package,
            date: day(0),
            status: Status::InProgress,
            assigned_at: at(1),
            updated_at: at(2),
        };
        prop_assert_eq!(assignment(&values::item(&kept)), Some(kept));
    }
}

/// A change of these keys orphans the stored items.
#[test]
fn keys_are_what_they_were() {
    let texts = |key: Item| [SHARD, ITEM].map(|name| text_of(&key, name).unwrap().to_owned());
    let package = texts(values::package_key(day(0), &id("package_1")));
    let driver = texts(values::driver_key(day(0), &driver("driver_1")));
    assert_eq!(package, ["2142-01-31#0a", "package/package_1"]);
    assert_eq!(driver, ["2142-01-31#0e", "driver/driver_1"]);
}
