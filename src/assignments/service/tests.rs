//! The service on a store in a file, and on one that is changed concurrently.

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::json;
use tempfile::TempDir;

use super::super::error::Refusal;
use super::super::model::DriverCounts;
use super::super::sqlite::{APPLICATION, MIGRATIONS, Sqlite};
use super::super::store::{Answer, OnStored, StoredManifest};
use super::*;
use crate::storage::State;
use crate::storage::sqlite::Database;
use crate::telemetry::Registry;

const DATE: Date = jiff::civil::date(2142, 5, 1);

fn store(directory: &TempDir) -> Sqlite {
    Sqlite::new(Database::of_test(directory, APPLICATION, MIGRATIONS))
}

fn desk(store: impl Store + 'static, strict: bool) -> Assignments {
    let registry = Registry::new(&[]);
    let metrics = registry.register(Metrics::register);
    Assignments::new(Arc::new(store), Oplog::disabled(), metrics, strict)
}

/// Two drivers without rules and one for express packages only; six packages, of which two are express.
fn manifest() -> Manifest {
    let package = |number: u8| {
        json!({
            "package_id": format!("p{number}"), "weight_kg": 5, "is_perishable": false, "region": "north",
            "distance_km": 10, "is_express": number < 2, "is_fragile": false, "temperature_c": 5,
            "delivery_hour": number, "volume_m3": 0.1,
        })
    };
    let manifest = json!({
        "drivers": [
            { "driver_id": "ada", "rules": [] },
            { "driver_id": "bo", "rules": [] },
            { "driver_id": "cy", "rules": [{ "code": "EXPRESS_ONLY" }] },
        ],
        "packages": (0..6).map(package).collect::<Vec<_>>(),
    });
    serde_json::from_value(manifest).unwrap()
}

fn request(drivers: &[&str], max_per_driver: u32) -> Request {
    Request {
        drivers: drivers
            .iter()
            .map(|name| DriverId::parse(name).unwrap())
            .collect(),
        max_per_driver,
        date: DATE,
        dry_run: false,
        reset: false,
        explain: false,
    }
}

/// Drivers with their packages, and what is left.
fn by_driver(assigned: &Assigned) -> (Vec<(&str, Vec<&str>)>, Vec<&str>) {
    let hands = assigned.plan.assignments.iter();
    let hands = hands.map(|(driver, hand)| {
        (
            driver.as_str(),
            hand.iter().map(PackageId::as_str).collect(),
        )
    });
    (
        hands.collect(),
        assigned
            .plan
            .unassigned
            .iter()
            .map(PackageId::as_str)
            .collect(),
    )
}

async fn opened(directory: &TempDir) -> Assignments {
    let desk = desk(store(directory), false);
    desk.store_manifest(DATE, manifest()).await.unwrap();
    desk
}

#[tokio::test]
async fn a_retry_answers_the_same_and_gives_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let desk = opened(&directory).await;
    let first = desk.assign(request(&["ada", "cy"], 2), "r").await.unwrap();
    assert_eq!(
        by_driver(&first),
        (
            vec![("ada", vec!["p2", "p3"]), ("cy", vec!["p0", "p1"])],
            vec!["p4", "p5"]
        )
    );
    let again = desk.assign(request(&["cy", "ada"], 2), "r").await.unwrap();
    assert_eq!(again.plan, first.plan);
    let held = desk.desk.store.held(DATE).await.unwrap();
    assert_eq!(held.len(), 4);
}

#[tokio::test]
async fn what_others_hold_is_not_given_again() {
    let directory = tempfile::tempdir().unwrap();
    let desk = opened(&directory).await;
    desk.assign(request(&["ada"], 4), "r").await.unwrap();
    let later = desk.assign(request(&["bo"], 4), "r").await.unwrap();
    assert_eq!(by_driver(&later), (vec![("bo", vec!["p4", "p5"])], vec![]));
}

#[tokio::test]
async fn a_dry_run_tells_the_same_and_gives_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let desk = opened(&directory).await;
    let dry = Request {
        dry_run: true,
        ..request(&["ada", "bo"], 3)
    };
    let planned = desk.assign(dry, "r").await.unwrap();
    assert!(desk.desk.store.held(DATE).await.unwrap().is_empty());
    let given = desk.assign(request(&["ada", "bo"], 3), "r").await.unwrap();
    assert_eq!(given.plan, planned.plan);
}

#[tokio::test]
async fn a_reset_gives_up_what_is_still_assigned_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let desk = opened(&directory).await;
    desk.assign(request(&["ada", "bo"], 3), "r").await.unwrap();
    let [ada, p0] = ["ada", "p0"];
    let (ada, p0) = (DriverId::parse(ada).unwrap(), PackageId::parse(p0).unwrap());
    desk.update(ada, p0, Status::Accepted, "r").await.unwrap();
    let reset = Request {
        reset: true,
        ..request(&["ada"], 1)
    };
    let dry = Request {
        dry_run: true,
        ..reset.clone()
    };
    let planned = desk.assign(dry, "r").await.unwrap();
    let after = desk.assign(reset, "r").await.unwrap();
    assert_eq!(after.plan, planned.plan);
    let (hands, left) = by_driver(&after);
    assert_eq!(hands, [("ada", vec!["p0"])], "what was accepted stays");
    assert_eq!(left.len(), 2, "what bo has is not touched: {left:?}");
    assert_eq!(desk.desk.store.held(DATE).await.unwrap().len(), 4);
}

#[tokio::test]
async fn a_reset_frees_what_a_driver_holds_who_is_no_longer_in_the_manifest() {
    let directory = tempfile::tempdir().unwrap();
    let desk = opened(&directory).await;
    desk.assign(request(&["ada"], 3), "r").await.unwrap();
    let (ada, p0) = (
        DriverId::parse("ada").unwrap(),
        PackageId::parse("p0").unwrap(),
    );
    desk.update(ada, p0, Status::Accepted, "r").await.unwrap();
    let mut without = manifest();
    without.drivers.remove(0);
    desk.store_manifest(DATE, without).await.unwrap();
    let refused = desk.assign(request(&["ada"], 3), "r").await.unwrap_err();
    assert!(
        matches!(refused, AssignError::UnknownDrivers(_)),
        "{refused:?}"
    );
    let reset = |drivers: &[&str]| Request {
        reset: true,
        ..request(drivers, 9)
    };
    // A mistyped driver who holds nothing is an error as without reset.
    let refused = desk.assign(reset(&["ada", "adda"]), "r").await.unwrap_err();
    assert!(
        matches!(refused, AssignError::UnknownDrivers(_)),
        "{refused:?}"
    );
    // Alone: freed, and assigned to no other.
    let after = desk.assign(reset(&["ada"]), "r").await.unwrap();
    let (hands, left) = by_driver(&after);
    assert_eq!(hands, [("ada", vec!["p0"])], "what was accepted stays");
    assert_eq!(left.len(), 5);
    // With others: they get what was freed.
    let after = desk.assign(reset(&["ada", "bo"]), "r").await.unwrap();
    let (hands, left) = by_driver(&after);
    assert_eq!(hands[0], ("ada", vec!["p0"]));
    assert_eq!((hands[1].0, hands[1].1.len(), left.len()), ("bo", 5, 0));
}

#[tokio::test]
async fn the_cap_is_for_the_day() {
    let directory = tempfile::tempdir().unwrap();
    let desk = opened(&directory).await;
    desk.assign(request(&["ada"], 2), "r").await.unwrap();
    let more = desk.assign(request(&["ada"], 3), "r").await.unwrap();
    assert_eq!(by_driver(&more).0, [("ada", vec!["p0", "p1", "p2"])]);
    let less = desk.assign(request(&["ada"], 1), "r").await.unwrap();
    assert_eq!(less.plan, more.plan, "what was given stays");
}

#[tokio::test]
async fn a_plan_needs_a_manifest_and_its_drivers() {
    let directory = tempfile::tempdir().unwrap();
    let desk = opened(&directory).await;
    let strangers = request(&["ada", "zoe", "yan"], 1);
    let unknown = ["yan", "zoe"].map(|name| DriverId::parse(name).unwrap());
    assert_eq!(
        desk.assign(strangers, "r").await.unwrap_err(),
        AssignError::UnknownDrivers(unknown.to_vec())
    );
    let tomorrow = DATE.tomorrow().unwrap();
    let request = Request {
        date: tomorrow,
        ..request(&["ada"], 1)
    };
    let missing = AssignError::NoManifest(tomorrow);
    assert_eq!(desk.assign(request, "r").await.unwrap_err(), missing);
}

#[tokio::test]
async fn a_new_manifest_is_planned_with_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(&directory);
    let desk = desk(store.clone(), false);
    desk.store_manifest(DATE, manifest()).await.unwrap();
    desk.assign(request(&["ada"], 1), "r").await.unwrap();
    let mut other = manifest();
    other.packages.truncate(2);
    let before = desk.manifest(DATE).await.unwrap().unwrap();
    let kept = desk.store_manifest(DATE, other.clone()).await.unwrap();
    assert_eq!((kept.drivers, kept.packages), (3, 2));
    let after = desk.manifest(DATE).await.unwrap().unwrap();
    assert_ne!(after.version, before.version);
    let shown: Manifest = serde_json::from_slice(&after.json).unwrap();
    assert_eq!(shown, other);
    let planned = desk.assign(request(&["ada", "bo"], 9), "r").await.unwrap();
    assert_eq!(
        by_driver(&planned),
        (vec![("ada", vec!["p0"]), ("bo", vec!["p1"])], vec![])
    );
    // A desk without this manifest in its cache finds it, too.
    let other = self::desk(store, false);
    let again = other.assign(request(&["ada", "bo"], 9), "r").await.unwrap();
    assert_eq!(again.plan, planned.plan);
}

#[tokio::test]
async fn a_final_status_stays_if_the_desk_is_strict() {
    let directory = tempfile::tempdir().unwrap();
    let desk = desk(store(&directory), true);
    desk.store_manifest(DATE, manifest()).await.unwrap();
    desk.assign(request(&["ada"], 1), "r").await.unwrap();
    let (ada, p0) = (
        DriverId::parse("ada").unwrap(),
        PackageId::parse("p0").unwrap(),
    );
    let say = |status| desk.update(ada.clone(), p0.clone(), status, "r");
    let updated = say(Status::Delivered).await.unwrap();
    assert_eq!(
        (updated.from, updated.assignment.status),
        (Status::Assigned, Status::Delivered)
    );
    assert!(say(Status::Delivered).await.is_ok(), "a retry");
    let refused = say(Status::InProgress).await.unwrap_err();
    let stays = Refusal::Final {
        status: Status::Delivered,
    };
    assert_eq!(refused, UpdateError::Refused(stays));
}

/// A store on which another planner is faster for some time: it takes a package before each of so many changes.
#[derive(Debug)]
struct Contended {
    store: Sqlite,
    others: AtomicU32,
    date: Date,
    packages: Vec<Package>,
}

/// What may be taken: the packages of the manifest, and many more.
fn many() -> Manifest {
    let mut many = manifest();
    for number in 0..20 {
        let id = PackageId::parse(&format!("q{number}")).unwrap();
        let package = Package {
            id,
            ..many.packages[5].clone()
        };
        many.packages.push(package);
    }
    many
}

impl Store for Contended {
    fn store_manifest(&self, date: Date, manifest: StoredManifest) -> Answer<'_, ()> {
        self.store.store_manifest(date, manifest)
    }

    fn manifest_version(&self, date: Date) -> Answer<'_, Option<Version>> {
        self.store.manifest_version(date)
    }

    fn manifest(&self, date: Date) -> Answer<'_, Option<StoredManifest>> {
        self.store.manifest(date)
    }

    fn held(&self, date: Date) -> Answer<'_, Vec<Held>> {
        self.store.held(date)
    }

    fn counts(&self, date: Date) -> Answer<'_, Vec<DriverCounts>> {
        self.store.counts(date)
    }

    fn still_assigned(&self, date: Date, drivers: Vec<DriverId>) -> Answer<'_, Vec<Held>> {
        self.store.still_assigned(date, drivers)
    }

    fn change(&self, change: Change, on_stored: OnStored) -> Answer<'_, Changed> {
        Box::pin(async move {
            let other = self
                .others
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                    left.checked_sub(1)
                });
            if other.is_ok() {
                let held = self.store.held(self.date).await?;
                let free = |package: &&Package| held.iter().all(|held| held.package != package.id);
                let driver = DriverId::parse("bo").unwrap();
                let given = self.packages.iter().find(free).cloned();
                let held_before = held.iter().filter(|held| held.driver == driver).count();
                let taken = DriverChange {
                    driver,
                    held_before: held_before.try_into().unwrap(),
                    given_up: vec![],
                    given: given.into_iter().collect(),
                };
                let theirs = Change {
                    date: self.date,
                    at: change.at,
                    drivers: vec![taken],
                };
                self.store.change(theirs, Arc::new(|_| {})).await?;
            }
            self.store.change(change, on_stored).await
        })
    }

    fn update(&self, update: Update) -> Answer<'_, Result<Updated, Refusal>> {
        self.store.update(update)
    }

    fn list(&self, filter: Filter, after: Option<Place>, limit: usize) -> Answer<'_, Listing> {
        self.store.list(filter, after, limit)
    }

    fn state(&self) -> State {
        self.store.state()
    }
}

#[tokio::test(start_paused = true)]
async fn a_plan_is_made_anew_when_somebody_was_faster() {
    let directory = tempfile::tempdir().unwrap();
    let contended = Contended {
        store: store(&directory),
        others: AtomicU32::new(3),
        date: DATE,
        packages: manifest().packages,
    };
    let desk = desk(contended, false);
    desk.store_manifest(DATE, manifest()).await.unwrap();
    let assigned = desk.assign(request(&["ada"], 9), "r").await.unwrap();
    assert_eq!(
        by_driver(&assigned),
        (vec![("ada", vec!["p3", "p4", "p5"])], vec![])
    );
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_is_always_too_late_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let contended = Contended {
        store: store(&directory),
        others: AtomicU32::new(u32::MAX),
        date: DATE,
        packages: many().packages,
    };
    let desk = desk(contended, false);
    desk.store_manifest(DATE, many()).await.unwrap();
    let busy = desk.assign(request(&["ada"], 99), "r").await.unwrap_err();
    assert_eq!(busy, AssignError::Unavailable(Unavailable::Busy));
}
