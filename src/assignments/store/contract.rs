//! The contract of a store: each adapter runs [`suite!`] in its tests.
//!
//! An outdated change may be stored in part (see [`Changed::Outdated`]), so the contract after one is what holds for every store: a
//! package has one driver, and what is held, listed and counted is the same.
//!
//! Unspecified: an earlier day's record of a driver and a package that became a later day's.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{Timestamp, ToSpan};
use proptest::prelude::*;

use super::super::model::{Package, PackageId, Region};
use super::*;

/// A change whose stored parts are not reported.
pub(in super::super) trait Applies: Store {
    fn applied(&self, change: Change) -> Answer<'_, Changed> {
        self.change(change, Arc::new(|_| {}))
    }
}

impl<S: Store + ?Sized> Applies for S {}

pub(in super::super) fn driver(name: &str) -> DriverId {
    DriverId::parse(name).unwrap()
}

pub(in super::super) fn id(name: &str) -> PackageId {
    PackageId::parse(name).unwrap()
}

pub(in super::super) fn day(number: i64) -> Date {
    jiff::civil::date(2142, 1, 31) + number.days()
}

pub(in super::super) fn at(second: i64) -> Timestamp {
    Timestamp::from_microsecond(second * 1_000_000 + 1).unwrap()
}

pub(in super::super) fn package(name: &str) -> Package {
    Package {
        id: id(name),
        weight_kg: 1.25,
        is_perishable: true,
        region: Region::East,
        distance_km: 0.1 + 0.2,
        is_express: false,
        is_fragile: true,
        hazmat_class: Some(3),
        temperature_c: -18.5,
        delivery_hour: 23,
        volume_m3: 0.0,
        destination: Some("Zoë's, 7 Ünder \"the\" Bridge".into()),
    }
}

/// A part of a change: a driver who holds so many gives up these, and gets those.
pub(in super::super) fn part(
    name: &str,
    held_before: usize,
    given_up: &[&str],
    given: &[&str],
) -> DriverChange {
    DriverChange {
        driver: driver(name),
        held_before: held_before.try_into().unwrap(),
        given_up: given_up.iter().map(|name| id(name)).collect(),
        given: given.iter().map(|name| package(name)).collect(),
    }
}

pub(in super::super) fn change(drivers: Vec<DriverChange>) -> Change {
    Change {
        date: day(0),
        at: at(1),
        drivers,
    }
}

async fn done(store: &impl Store, drivers: Vec<DriverChange>) {
    let changed = store.applied(change(drivers)).await.unwrap();
    assert_eq!(changed, Changed::Done);
}

async fn outdated(store: &impl Store, drivers: Vec<DriverChange>) {
    let changed = store.applied(change(drivers)).await.unwrap();
    assert_eq!(changed, Changed::Outdated);
}

fn pairs(held: impl IntoIterator<Item = Held>) -> Vec<(String, String)> {
    let pair = |held: Held| (held.driver.to_string(), held.package.to_string());
    let mut pairs: Vec<_> = held.into_iter().map(pair).collect();
    pairs.sort();
    pairs
}

/// The holders of a day's packages, in order; no package twice.
pub(in super::super) async fn held(store: &impl Store, date: Date) -> Vec<(String, String)> {
    let pairs = pairs(store.held(date).await.unwrap());
    let packages: BTreeSet<_> = pairs.iter().map(|pair| &pair.1).collect();
    assert_eq!(packages.len(), pairs.len(), "two drivers: {pairs:?}");
    pairs
}

fn held_of(assignments: &[Assignment]) -> Vec<(String, String)> {
    let held = |it: &Assignment| Held {
        driver: it.driver.clone(),
        package: it.package.id.clone(),
    };
    pairs(assignments.iter().map(held))
}

/// All pages of a list.
pub(in super::super) async fn listed(
    store: &impl Store,
    filter: &Filter,
    limit: usize,
) -> Vec<Assignment> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let listing = store.list(filter.clone(), after, limit).await.unwrap();
        assert!(listing.assignments.len() <= limit);
        all.extend(listing.assignments);
        after = listing.next;
        if after.is_none() {
            return all;
        }
    }
}

fn of_day(date: Date) -> Filter {
    Filter {
        date: Some(date),
        ..Filter::default()
    }
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |&(a, b): &(&str, &str)| (a.to_owned(), b.to_owned());
    pairs.iter().map(owned).collect()
}

/// What is held, listed and counted is this.
async fn day_is(store: &impl Store, expected: &[(&str, &str)]) {
    assert_eq!(consistent(store).await, owned(expected));
}

/// What is held and listed is the same, and each count is the number of what is held; returns it.
pub(in super::super) async fn consistent(store: &impl Store) -> Vec<(String, String)> {
    let all = held(store, day(0)).await;
    let listed = listed(store, &of_day(day(0)), 1000).await;
    assert_eq!(held_of(&listed), all);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (driver, _) in &all {
        *counts.entry(driver).or_default() += 1;
    }
    let looks = counts
        .iter()
        .map(|(driver, held)| part(driver, *held, &[], &[]));
    done(store, looks.collect()).await;
    all
}

pub(in super::super) fn says(name: &str, of: &str, status: Status, second: i64) -> Update {
    Update {
        driver: driver(name),
        package: id(of),
        status,
        strict: false,
        at: at(second),
    }
}

fn stored_manifest(version: u128, bytes: usize) -> StoredManifest {
    let mut random = fastrand::Rng::with_seed(u64::try_from(version % 1000).unwrap());
    let body: Vec<u8> = std::iter::repeat_with(|| random.u8(..))
        .take(bytes)
        .collect();
    StoredManifest {
        version: Version(version),
        body: body.into(),
    }
}

pub(in super::super) async fn a_manifest_is_kept_and_replaced(store: impl Store) {
    assert_eq!(store.manifest(day(0)).await.unwrap(), None);
    assert_eq!(store.manifest_version(day(0)).await.unwrap(), None);
    // From large to small and back; the largest version has all digits.
    for (version, bytes) in [
        (1, 10),
        (u128::MAX, 1_000_000),
        (3, 350_000),
        (4, 0),
        (1, 10),
    ] {
        let manifest = stored_manifest(version, bytes);
        store
            .store_manifest(day(0), manifest.clone())
            .await
            .unwrap();
        let version = store.manifest_version(day(0)).await.unwrap();
        assert_eq!(version, Some(manifest.version));
        assert!(store.manifest(day(0)).await.unwrap() == Some(manifest));
    }
    // An equal manifest is the same; other days have others.
    store
        .store_manifest(day(0), stored_manifest(1, 10))
        .await
        .unwrap();
    store
        .store_manifest(day(1), stored_manifest(2, 20))
        .await
        .unwrap();
    assert!(store.manifest(day(0)).await.unwrap() == Some(stored_manifest(1, 10)));
    assert!(store.manifest(day(1)).await.unwrap() == Some(stored_manifest(2, 20)));
    assert_eq!(store.manifest(day(2)).await.unwrap(), None);
    // The package has no driver.
    assert_eq!(held(&store, day(0)).await, []);
}

pub(in super::super) async fn a_manifest_is_whole_while_others_replace_it(
    store: impl Store + Clone + 'static,
) {
    store
        .store_manifest(day(0), stored_manifest(1, 500_000))
        .await
        .unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for version in 1..5 {
        let store = store.clone();
        tasks.spawn(async move {
            for _ in 0..2 {
                let manifest = stored_manifest(version, 500_000);
                store.store_manifest(day(0), manifest).await.unwrap();
            }
        });
    }
    while !tasks.is_empty() {
        // A reader of a manifest that is replaced again and again may get `Busy`.
        match store.manifest(day(0)).await {
            Ok(found) => {
                let found = found.expect("there is one");
                assert!(found == stored_manifest(found.version.0, 500_000), "mixed");
            }
            Err(unavailable) => assert_eq!(unavailable, Unavailable::Busy),
        }
        if let Some(ended) = tasks.try_join_next() {
            ended.unwrap();
        }
        tokio::task::yield_now().await;
    }
    let last = store.manifest(day(0)).await.unwrap().unwrap();
    assert!(last == stored_manifest(last.version.0, 500_000));
}

pub(in super::super) async fn a_change_keeps_all_of_it(store: impl Store) {
    let mut plain = package("plain");
    plain.hazmat_class = None;
    plain.destination = None;
    plain.weight_kg = 1e300;
    plain.distance_km = 1e-300;
    plain.volume_m3 = 123_456_789_012_345_680_000.0;
    let mut first = part("ada", 0, &[], &["p", "q"]);
    first.given.push(plain);
    let second = part("bo", 0, &[], &["r #:/{}"]);
    done(&store, vec![first.clone(), second]).await;
    day_is(
        &store,
        &[
            ("ada", "p"),
            ("ada", "plain"),
            ("ada", "q"),
            ("bo", "r #:/{}"),
        ],
    )
    .await;
    for package in first.given {
        let filter = Filter {
            package: Some(package.id.clone()),
            ..Filter::default()
        };
        let expected = Assignment {
            driver: driver("ada"),
            package,
            date: day(0),
            status: Status::Assigned,
            assigned_at: at(1),
            updated_at: at(1),
        };
        assert_eq!(listed(&store, &filter, 10).await, [expected]);
    }
    assert_eq!(held(&store, day(1)).await, []);
    done(&store, vec![part("ada", 3, &[], &["s"])]).await;
    done(&store, vec![part("ada", 4, &["q", "p", "s"], &[])]).await;
    day_is(&store, &[("ada", "plain"), ("bo", "r #:/{}")]).await;
    // What was given up can be assigned again, to the same driver, too, even in the same change.
    done(&store, vec![part("ada", 1, &["plain"], &["plain", "p"])]).await;
    done(&store, vec![]).await;
    day_is(&store, &[("ada", "p"), ("ada", "plain"), ("bo", "r #:/{}")]).await;
}

pub(in super::super) async fn a_day_that_is_otherwise_is_outdated(store: impl Store) {
    done(&store, vec![part("ada", 0, &[], &["p", "q"])]).await;
    let said = says("ada", "q", Status::Accepted, 2);
    store.update(said).await.unwrap().unwrap();
    let otherwise = [
        // They hold another number of packages.
        part("ada", 0, &[], &["r"]),
        part("ada", 1, &["p"], &[]),
        part("ada", 3, &[], &["r"]),
        part("ada", 3, &[], &[]),
        part("ada", 0, &[], &[]),
        part("bo", 1, &[], &["r"]),
        // Another driver holds it.
        part("ada", 2, &[], &["r", "p"]),
        part("bo", 0, &[], &["r", "p"]),
        part("bo", 0, &[], &["p", "r"]),
        // It is no longer assigned.
        part("ada", 2, &["p", "q"], &[]),
        part("ada", 2, &["q"], &[]),
        // It is not theirs, or has no driver, or is more than they have.
        part("bo", 0, &["p"], &[]),
        part("ada", 2, &["r"], &[]),
        part("bo", 0, &["r"], &[]),
        part("bo", 1, &["p"], &[]),
    ];
    for part in otherwise {
        outdated(&store, vec![part]).await;
        day_is(&store, &[("ada", "p"), ("ada", "q")]).await;
    }
    // The same package for two drivers.
    outdated(
        &store,
        vec![part("bo", 0, &[], &["x"]), part("cy", 0, &[], &["x"])],
    )
    .await;
    consistent(&store).await;
}

pub(in super::super) async fn of_an_outdated_change_nothing_is_torn(store: impl Store) {
    done(&store, vec![part("ada", 0, &[], &["p"])]).await;
    outdated(
        &store,
        vec![
            part("bo", 0, &[], &["q", "r"]),
            part("cy", 0, &[], &["s", "p", "t"]),
            part("di", 0, &[], &["u", "v"]),
        ],
    )
    .await;
    let now = consistent(&store).await;
    let has = |driver: &str, package: &str| now.contains(&(driver.to_owned(), package.to_owned()));
    assert!(has("ada", "p"));
    assert_eq!(has("bo", "q"), has("bo", "r"));
    assert_eq!(has("di", "u"), has("di", "v"));
    assert!(!has("cy", "s") && !has("cy", "t"));
}

pub(in super::super) async fn a_package_goes_from_one_driver_to_another(store: impl Store) {
    done(
        &store,
        vec![part("ada", 0, &[], &["p", "q"]), part("bo", 0, &[], &["r"])],
    )
    .await;
    // In both orders of the drivers.
    done(
        &store,
        vec![
            part("ada", 2, &["p"], &["r"]),
            part("bo", 1, &["r"], &["p"]),
        ],
    )
    .await;
    day_is(&store, &[("ada", "q"), ("ada", "r"), ("bo", "p")]).await;
}

/// More than an engine can store in one transaction, for each driver.
pub(in super::super) async fn a_large_change_is_one(store: impl Store) {
    let names: Vec<_> = (0..180).map(|n| format!("p{n:03}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let drivers = ["ada", "bo", "cy"];
    let parts = drivers.iter().zip(names.chunks(60));
    let parts: Vec<_> = parts
        .map(|(name, given)| part(name, 0, &[], given))
        .collect();
    done(&store, parts).await;
    assert_eq!(held(&store, day(0)).await.len(), 180);
    consistent(&store).await;
    let all = listed(&store, &Filter::default(), 7).await;
    assert_eq!(held_of(&all), held(&store, day(0)).await);
    // All packages of one driver go to another, who has so many already.
    let moved = &names[..60];
    done(
        &store,
        vec![part("bo", 60, &[], moved), part("ada", 60, moved, &[])],
    )
    .await;
    let now = held(&store, day(0)).await;
    assert_eq!(now.iter().filter(|pair| pair.0 == "bo").count(), 120);
    consistent(&store).await;
}

pub(in super::super) async fn a_later_day_replaces_the_record(store: impl Store) {
    done(&store, vec![part("ada", 0, &[], &["p", "q"])]).await;
    let said = says("ada", "p", Status::Delivered, 2);
    store.update(said).await.unwrap().unwrap();
    let later = Change {
        date: day(1),
        at: at(3),
        drivers: vec![part("ada", 0, &[], &["p"]), part("bo", 0, &[], &["q"])],
    };
    assert_eq!(store.applied(later).await.unwrap(), Changed::Done);
    let expected = owned(&[("ada", "p"), ("bo", "q")]);
    assert_eq!(held(&store, day(1)).await, expected);
    let listed_then = listed(&store, &of_day(day(1)), 10).await;
    assert_eq!(held_of(&listed_then), expected);
    let ours = &listed_then[listed_then
        .iter()
        .position(|it| it.driver == driver("ada"))
        .unwrap()];
    assert_eq!(
        (ours.status, ours.assigned_at, ours.updated_at),
        (Status::Assigned, at(3), at(3))
    );
    // Another pair of the earlier day is unchanged.
    let before = listed(&store, &of_day(day(0)), 10).await;
    assert!(held_of(&before).contains(&owned(&[("ada", "q")])[0]));
}

pub(in super::super) async fn a_status_is_kept(store: impl Store) {
    done(&store, vec![part("ada", 0, &[], &["p"])]).await;
    let mut from = Status::Assigned;
    let there = Status::ALL.into_iter();
    let and_back = there.clone().rev();
    for (second, status) in (2..).zip(there.chain(and_back)) {
        let updated = store
            .update(says("ada", "p", status, second))
            .await
            .unwrap();
        let updated = updated.unwrap();
        assert_eq!(updated.from, from);
        let expected = Assignment {
            driver: driver("ada"),
            package: package("p"),
            date: day(0),
            status,
            assigned_at: at(1),
            updated_at: at(second),
        };
        assert_eq!(updated.assignment, expected);
        assert_eq!(listed(&store, &Filter::default(), 10).await, [expected]);
        from = status;
    }
    day_is(&store, &[("ada", "p")]).await;
    let records = listed(&store, &Filter::default(), 10).await;
    counted(&store, day(0), &records).await;
}

pub(in super::super) async fn a_status_of_what_nobody_gave_is_refused(store: impl Store) {
    done(&store, vec![part("ada", 0, &[], &["p", "q"])]).await;
    done(&store, vec![part("ada", 2, &["q"], &[])]).await;
    for (name, of) in [("ada", "x"), ("bo", "p"), ("ada", "q")] {
        for strict in [false, true] {
            let said = Update {
                strict,
                ..says(name, of, Status::Delivered, 2)
            };
            let refused = store.update(said).await.unwrap();
            assert_eq!(refused, Err(Refusal::NoSuchAssignment));
        }
    }
    day_is(&store, &[("ada", "p")]).await;
    assert_eq!(listed(&store, &Filter::default(), 10).await.len(), 1);
}

pub(in super::super) async fn a_final_status_stays_if_it_is_strict(store: impl Store) {
    done(&store, vec![part("ada", 0, &[], &["p"])]).await;
    let strictly = |status, second| Update {
        strict: true,
        ..says("ada", "p", status, second)
    };
    for last in [Status::Delivered, Status::FailedToDeliver] {
        store
            .update(says("ada", "p", last, 2))
            .await
            .unwrap()
            .unwrap();
        for next in Status::ALL {
            let answer = store.update(strictly(next, 3)).await.unwrap();
            if next == last {
                let again = answer.unwrap();
                assert_eq!((again.from, again.assignment.status), (last, last));
            } else {
                assert_eq!(answer, Err(Refusal::Final { status: last }));
            }
        }
        // Without `strict` a final status can be changed.
        let back = says("ada", "p", Status::InProgress, 4);
        assert_eq!(store.update(back).await.unwrap().unwrap().from, last);
        let on = store.update(strictly(Status::Accepted, 5)).await.unwrap();
        assert_eq!(on.unwrap().from, Status::InProgress);
    }
}

pub(in super::super) async fn only_what_is_still_assigned_is_told(store: impl Store) {
    let drivers = vec![
        part("ada", 0, &[], &["p", "q"]),
        part("bo", 0, &[], &["r"]),
        part("cy", 0, &[], &["s"]),
    ];
    done(&store, drivers).await;
    let later = Change {
        date: day(1),
        at: at(2),
        drivers: vec![part("ada", 0, &[], &["t"])],
    };
    assert_eq!(store.applied(later).await.unwrap(), Changed::Done);
    let said = says("ada", "q", Status::Accepted, 3);
    store.update(said).await.unwrap().unwrap();
    for (date, names, expected) in [
        (0, &["ada", "bo"][..], &[("ada", "p"), ("bo", "r")][..]),
        (0, &["ada", "ada", "nobody"], &[("ada", "p")]),
        (0, &[], &[]),
        (1, &["ada", "bo", "cy"], &[("ada", "t")]),
        (2, &["ada"], &[]),
    ] {
        let drivers = names.iter().map(|name| driver(name)).collect();
        let still = store.still_assigned(day(date), drivers).await.unwrap();
        assert_eq!(pairs(still), owned(expected));
    }
    // Changed back, it is assigned again.
    let said = says("ada", "q", Status::Assigned, 4);
    store.update(said).await.unwrap().unwrap();
    let still = store.still_assigned(day(0), vec![driver("ada")]).await;
    assert_eq!(pairs(still.unwrap()), owned(&[("ada", "p"), ("ada", "q")]));
}

pub(in super::super) async fn a_list_has_what_fits_exactly_once(store: impl Store) {
    let names: Vec<_> = (0..9).map(|n| format!("p{n}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    done(
        &store,
        vec![
            part("ada", 0, &[], &names[..5]),
            part("bo", 0, &[], &names[5..]),
        ],
    )
    .await;
    let later = Change {
        date: day(1),
        at: at(2),
        // The packages of another driver, so that a package has two records.
        drivers: vec![
            part("ada", 0, &[], &names[5..7]),
            part("cy", 0, &[], &names[..2]),
        ],
    };
    assert_eq!(store.applied(later).await.unwrap(), Changed::Done);
    for (name, of) in [("ada", "p0"), ("ada", "p6"), ("bo", "p6"), ("cy", "p1")] {
        let said = says(name, of, Status::Delivered, 3);
        store.update(said).await.unwrap().unwrap();
    }
    let all = listed(&store, &Filter::default(), 100).await;
    assert_eq!(all.len(), 13);
    let some_or_none = |names: &[&str]| -> Vec<Option<String>> {
        let names = names.iter().map(|&name| Some(name.to_owned()));
        names.chain([None]).collect()
    };
    for driver_name in some_or_none(&["ada", "cy", "nobody"]) {
        for package_name in some_or_none(&["p0", "p6", "nothing"]) {
            for status in [None, Some(Status::Assigned), Some(Status::Delivered)] {
                for date in [None, Some(day(0)), Some(day(1))] {
                    let filter = Filter {
                        driver: driver_name.as_deref().map(driver),
                        package: package_name.as_deref().map(id),
                        status,
                        date,
                    };
                    let expected: Vec<_> = all.iter().filter(|it| fits(&filter, it)).collect();
                    let n = expected.len();
                    let expected = held_of(&expected.into_iter().cloned().collect::<Vec<_>>());
                    let limits = BTreeSet::from([1, 2, 3, n.max(2) - 1, n.max(1), n + 1]);
                    for limit in limits {
                        let found = listed(&store, &filter, limit).await;
                        assert_eq!(held_of(&found), expected, "{filter:?} by {limit}");
                    }
                    // A list that ends with its page has no cursor.
                    let whole = store.list(filter, None, n.max(1)).await.unwrap();
                    assert_eq!((whole.assignments.len(), whole.next), (n, None));
                }
            }
        }
    }
}

fn fits(filter: &Filter, assignment: &Assignment) -> bool {
    let is = |it: &Assignment| {
        filter
            .driver
            .as_ref()
            .is_none_or(|driver| *driver == it.driver)
            && filter
                .package
                .as_ref()
                .is_none_or(|package| *package == it.package.id)
    };
    is(assignment)
        && filter
            .status
            .is_none_or(|status| status == assignment.status)
        && filter.date.is_none_or(|date| date == assignment.date)
}

pub(in super::super) async fn of_many_planners_at_once_one_gives_each_package(
    store: impl Store + Clone + 'static,
) {
    plan_together(&store, |unavailable| unavailable == Unavailable::Busy).await;
    everything_is_planned_once(&store).await;
}

/// Several planners assign the same packages at once, each in its own way, and retry when the store is not available.
pub(in super::super) async fn plan_together(
    store: &(impl Store + Clone + 'static),
    passes: fn(Unavailable) -> bool,
) {
    let mut planners = tokio::task::JoinSet::new();
    for planner in 0..6 {
        let store = store.clone();
        planners.spawn(async move { plan(&store, planner, passes).await });
    }
    while let Some(ended) = planners.join_next().await {
        ended.unwrap();
    }
}

const PLANNED: usize = 24;

/// Assigns free packages, round robin, until there are none. A planner that is too late reads the day again.
async fn plan(store: &impl Store, planner: usize, passes: fn(Unavailable) -> bool) {
    for _ in 0..1000 {
        let now = match store.held(day(0)).await {
            Ok(now) => pairs(now),
            Err(unavailable) => {
                assert!(passes(unavailable), "{unavailable}");
                continue;
            }
        };
        let free = (0..PLANNED).map(|n| format!("p{n}"));
        let free: Vec<_> = free
            .filter(|name| now.iter().all(|pair| pair.1 != *name))
            .collect();
        if free.is_empty() {
            return;
        }
        let parts = (0..3).map(|n| {
            let name = format!("d{n}");
            let before = now.iter().filter(|pair| pair.0 == name).count();
            let given = free.iter().skip((n + planner) % 3).step_by(3);
            let given: Vec<_> = given.map(String::as_str).collect();
            part(&name, before, &[], &given)
        });
        if let Err(unavailable) = store.applied(change(parts.collect())).await {
            assert!(passes(unavailable), "{unavailable}");
        }
    }
    panic!("it comes to no end");
}

/// The invariants after [`plan_together`].
pub(in super::super) async fn everything_is_planned_once(store: &impl Store) {
    assert_eq!(consistent(store).await.len(), PLANNED);
}

/// A call of the store.
#[derive(Debug, Clone)]
pub(in super::super) enum Step {
    /// For each driver, the error of their count and what they give up; and who gets each package.
    Change(i64, BTreeMap<u8, (u32, BTreeSet<u8>)>, BTreeMap<u8, u8>),
    Update(u8, i64, u8, Status, bool),
    Still(i64, BTreeSet<u8>),
}

pub(in super::super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let wrong = prop_oneof![9 => Just(0_u32), 1 => Just(1_u32)];
    let given_up = prop::collection::btree_set(0_u8..6, 0..3);
    let parts = prop::collection::btree_map(0_u8..3, (wrong, given_up), 0..3);
    let given = prop::collection::btree_map(0_u8..6, 0_u8..3, 0..4);
    let change =
        (0_i64..2, parts, given).prop_map(|(d, parts, given)| Step::Change(d, parts, given));
    let status = prop::sample::select(&Status::ALL[..]);
    let update = (0_u8..3, 0_i64..2, 0_u8..6, status, any::<bool>())
        .prop_map(|(who, d, what, status, strict)| Step::Update(who, d, what, status, strict));
    let still = (0_i64..2, prop::collection::btree_set(0_u8..3, 0..3))
        .prop_map(|(d, who)| Step::Still(d, who));
    prop::collection::vec(prop_oneof![5 => change, 4 => update, 1 => still], 1..12)
}

/// A naive store: all records, searched each time. Days have packages of their own.
#[derive(Debug, Default)]
struct Naive {
    records: Vec<Assignment>,
}

fn of(d: i64, n: u8) -> String {
    format!("{d}-p{n}")
}

impl Naive {
    fn of_day(&self, date: Date) -> Vec<Assignment> {
        let records = self.records.iter().filter(|it| it.date == date);
        records.cloned().collect()
    }

    fn held(&self, date: Date, driver: &DriverId) -> usize {
        let records = self.records.iter();
        records
            .filter(|it| it.date == date && it.driver == *driver)
            .count()
    }

    /// Whether the day is as it says; then it is applied.
    fn change(&mut self, change: &Change) -> bool {
        let mut after = self.records.clone();
        for part in &change.drivers {
            if self.held(change.date, &part.driver) != part.held_before as usize {
                return false;
            }
            for package in &part.given_up {
                let fits = |it: &Assignment| {
                    (&it.driver, &it.package.id) == (&part.driver, package)
                        && it.status == Status::Assigned
                };
                let Some(place) = after.iter().position(fits) else {
                    return false;
                };
                after.remove(place);
            }
        }
        for part in &change.drivers {
            for package in &part.given {
                if after.iter().any(|it| it.package.id == package.id) {
                    return false;
                }
                after.push(Assignment {
                    driver: part.driver.clone(),
                    package: package.clone(),
                    date: change.date,
                    status: Status::Assigned,
                    assigned_at: change.at,
                    updated_at: change.at,
                });
            }
        }
        self.records = after;
        true
    }

    fn update(&mut self, update: &Update) -> Result<Updated, Refusal> {
        let fits = |it: &&mut Assignment| {
            (&it.driver, &it.package.id) == (&update.driver, &update.package)
        };
        let found = self.records.iter_mut().find(fits);
        let found = found.ok_or(Refusal::NoSuchAssignment)?;
        let from = found.status;
        if !from.may_become(update.status, update.strict) {
            return Err(Refusal::Final { status: from });
        }
        found.status = update.status;
        found.updated_at = update.at;
        let assignment = found.clone();
        Ok(Updated { from, assignment })
    }

    /// The change of a step.
    fn asked(
        &self,
        d: i64,
        second: i64,
        parts: BTreeMap<u8, (u32, BTreeSet<u8>)>,
        given: BTreeMap<u8, u8>,
    ) -> Change {
        let mut drivers: BTreeMap<u8, DriverChange> = BTreeMap::new();
        let empty = |who| {
            let name = format!("d{who}");
            part(&name, self.held(day(d), &driver(&name)), &[], &[])
        };
        for (who, (wrong, given_up)) in parts {
            let part = drivers.entry(who).or_insert_with(|| empty(who));
            part.held_before += wrong;
            part.given_up = given_up.into_iter().map(|n| id(&of(d, n))).collect();
        }
        for (what, who) in given {
            let part = drivers.entry(who).or_insert_with(|| empty(who));
            part.given.push(package(&of(d, what)));
        }
        Change {
            date: day(d),
            at: at(second),
            drivers: drivers.into_values().collect(),
        }
    }
}

/// `counts` has these assignments of a day, by driver and status.
async fn counted(store: &impl Store, date: Date, expected: &[Assignment]) {
    let mut counts: BTreeMap<DriverId, BTreeMap<Status, u32>> = BTreeMap::new();
    for it in expected {
        let of_driver = counts.entry(it.driver.clone()).or_default();
        *of_driver.entry(it.status).or_default() += 1;
    }
    let counts = counts.into_iter().map(|(driver, by_status)| {
        let held = by_status.values().sum();
        DriverCounts::new(driver, held, by_status)
    });
    let found = store.counts(date).await.unwrap();
    assert_eq!(found, counts.collect::<Vec<_>>());
}

pub(in super::super) async fn agrees_with_a_naive_one(store: impl Store, steps: Vec<Step>) {
    let mut naive = Naive::default();
    for (second, step) in (10..).zip(steps) {
        match step {
            Step::Change(d, parts, given) => {
                let change = naive.asked(d, second, parts, given);
                let expected = if naive.change(&change) {
                    Changed::Done
                } else {
                    Changed::Outdated
                };
                assert_eq!(store.applied(change).await.unwrap(), expected);
                if expected == Changed::Outdated {
                    // Parts may be stored.
                    naive.records = listed(&store, &Filter::default(), 100).await;
                }
            }
            Step::Update(who, d, what, status, strict) => {
                let update = Update {
                    strict,
                    ..says(&format!("d{who}"), &of(d, what), status, second)
                };
                let expected = naive.update(&update);
                assert_eq!(store.update(update).await.unwrap(), expected);
            }
            Step::Still(d, who) => {
                let drivers: Vec<_> = who.iter().map(|who| driver(&format!("d{who}"))).collect();
                let mut expected = naive.of_day(day(d));
                expected.retain(|it| it.status == Status::Assigned && drivers.contains(&it.driver));
                let still = store.still_assigned(day(d), drivers).await.unwrap();
                assert_eq!(pairs(still), held_of(&expected));
            }
        }
    }
    for d in 0..2 {
        let expected = naive.of_day(day(d));
        assert_eq!(held(&store, day(d)).await, held_of(&expected));
        counted(&store, day(d), &expected).await;
        let mut found = listed(&store, &of_day(day(d)), 3).await;
        for found in &mut found {
            let same = |it: &&Assignment| it.package.id == found.package.id;
            assert_eq!(Some(&*found), expected.iter().find(same));
        }
        assert_eq!(found.len(), expected.len());
    }
    consistent(&store).await;
}

/// Runs the contract against the stores that `$open` creates: an async closure from nothing to a store and a guard. `$cases`:
/// how often the store is compared with a naive one.
macro_rules! suite {
    ($open:expr, $cases:expr) => {
        macro_rules! situation {
            ($name:ident) => {
                #[tokio::test]
                async fn $name() {
                    let open = $open;
                    let (store, _beside) = open().await;
                    contract::$name(store).await;
                }
            };
        }
        situation!(a_manifest_is_kept_and_replaced);
        situation!(a_manifest_is_whole_while_others_replace_it);
        situation!(a_change_keeps_all_of_it);
        situation!(a_day_that_is_otherwise_is_outdated);
        situation!(of_an_outdated_change_nothing_is_torn);
        situation!(a_package_goes_from_one_driver_to_another);
        situation!(a_large_change_is_one);
        situation!(a_later_day_replaces_the_record);
        situation!(a_status_is_kept);
        situation!(a_status_of_what_nobody_gave_is_refused);
        situation!(a_final_status_stays_if_it_is_strict);
        situation!(only_what_is_still_assigned_is_told);
        situation!(a_list_has_what_fits_exactly_once);
        situation!(of_many_planners_at_once_one_gives_each_package);

        proptest::proptest! {
                    #![proptest_config(proptest::prelude::ProptestConfig::with_cases($cases))]

                    #[test]
                    fn it_agrees_with_a_naive_one(steps in contract::steps()) {
                        let runtime = tokio::runtime::Builder::new_current_thread()
                            .enable_all()
                            .build()
                            .unwrap();
                        runtime.block_on(async {
                            let open = $open;
        let (store, _beside) = open().await;
                            contract::agrees_with_a_naive_one(store, steps).await;
                        });
                    }
                }
    };
}
pub(in super::super) use suite;
