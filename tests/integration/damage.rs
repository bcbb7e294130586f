//! Files that are not what was acknowledged, at every desk: the server refuses them, or answers 503, and `odyssey check` says
//! what is wrong. It never goes on as if nothing were missing.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::client::{Ask, Door, event, get, send};
use crate::durability::{Seed, number_from_environment, open, refused};
use crate::metrics::Metrics;
use crate::shop::{Shop, odyssey};
use crate::{assignments, couriers, packages};

/// Flipped bits at each desk, in its database and its log. `make soak` wants 500.
const FLIPS: u64 = 4;
const FLIPS_VARIABLE: &str = "SOAK_FLIPS";
/// The desks that keep a database.
const DESKS: [&str; 4] = ["deliveries", "packages", "assignments", "couriers"];

/// Something new at each desk.
fn writes(round: usize) -> Vec<Ask> {
    let mut writes = Vec::new();
    for number in 0..30 {
        let id = format!("{round}-{number}");
        writes.push(event(&id, "PARCEL_COLLECTED"));
        writes.push(event(&id, "TAKEN_OFF"));
        let order = Uuid::from_u128((round * 1000 + number) as u128 + 1);
        writes.push(couriers::post_events(&couriers::order(order, "N")));
    }
    let driver = format!("d-{round:02}");
    let wanted = assignments::wanted(&[driver], 7);
    let wanted = packages::with(&wanted, "date", assignments::DAY);
    writes.push(assignments::assign(&wanted));
    let courier = couriers::courier(Uuid::from_u128((round as u128 + 1) << 64), "N", true);
    writes.push(couriers::post_events(&courier));
    writes
}

async fn fill(shop: &Shop, round: usize) {
    for write in writes(round) {
        let answer = shop.staff.ask(write).await;
        assert!((200..300).contains(&answer.status), "{answer}");
    }
    for number in 0..30 {
        let package = packages::package(format!("{round}-{number}"));
        shop.customers.ask(send(&package)).await.expect(201);
    }
    let preferences =
        packages::preferences(assignments::DAY.to_owned() + "T12:00:00Z", true, round == 0);
    shop.customers
        .expect(packages::put_preferences(&preferences), 200)
        .await;
}

/// What the desks show.
async fn shown(shop: &Shop) -> Vec<Value> {
    let mut shown = Vec::new();
    let day = assignments::DAY;
    for path in [
        "/deliveries",
        "/counts",
        "/deliveries/0-7/events",
        "/deliveries/1-29/events",
        "/statistics",
        "/packages/0-3",
        "/packages/1-29",
        "/preferences/ada",
        &format!("/assignments?date={day}"),
        "/couriers",
        "/couriers/parked",
        "/couriers/events",
    ] {
        shown.push(shop.staff.ask(get(path)).await.expect(200));
    }
    shown
}

/// The directory of a server that was killed, and what it showed: some of it in the databases, the rest in their logs.
async fn killed() -> (TempDir, Vec<Value>) {
    let data = tempfile::tempdir().unwrap();
    let shop = open(data.path(), &[]).await;
    let drivers = assignments::any_drivers(2);
    let manifest = assignments::lists(&drivers, &assignments::any_packages(20));
    let manifest = packages::with(&manifest, "date", assignments::DAY);
    shop.staff.ask(assignments::put_manifest(&manifest)).await;
    fill(&shop, 0).await;
    shop.close().await;
    let shop = open(data.path(), &[]).await;
    fill(&shop, 1).await;
    let shown = shown(&shop).await;
    shop.crash().await;
    (data, shown)
}

fn copied(from: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let is_index = entry.file_name().to_string_lossy().ends_with("-shm");
        if entry.file_type().unwrap().is_file() && !is_index {
            fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
    }
    copy
}

fn check(arguments: &[&str]) -> Output {
    let mut command = odyssey();
    command.args(["check", "--output", "json"]).args(arguments);
    command.output().unwrap()
}

/// The exit code of `odyssey check` for this directory, and what it found at each desk.
fn checked(data: &Path) -> (i32, Value) {
    let output = check(&["--data", data.to_str().unwrap()]);
    let found = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code().unwrap(), found)
}

/// What was found in a desk's files.
fn verdict<'a>(found: &'a Value, desk: &str) -> &'a Value {
    let mut desks = found["databases"].as_array().unwrap().iter();
    let desk = desks.find(|found| found["database"] == desk).unwrap();
    &desk["findings"][0]["verdict"]
}

/// Flips a bit where it is, as a disk does.
fn flip(path: &Path, bit: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path);
    let file = file.unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, bit / 8).unwrap();
    file.write_all_at(&[byte[0] ^ (1 << (bit % 8))], bit / 8)
        .unwrap();
}

#[tokio::test]
async fn a_flipped_bit_is_refused_or_changes_nothing_at_any_desk() {
    let flips = number_from_environment(FLIPS_VARIABLE).unwrap_or(FLIPS);
    let seed = Seed::from_environment();
    let mut random = fastrand::Rng::with_seed(seed.0);
    let (data, expected) = killed().await;
    let (mut found, mut harmless) = (0, 0);
    for desk in DESKS {
        for number in 0..flips {
            let name = format!("{desk}.db{}", if number % 2 == 0 { "" } else { "-wal" });
            let copy = copied(data.path());
            let path = copy.path().join(&name);
            let bit = random.u64(0..8 * path.metadata().unwrap().len());
            flip(&path, bit);
            match checked(copy.path()) {
                (1, report) => {
                    assert_eq!(verdict(&report, desk), "damaged", "{name}, bit {bit}");
                    let sentence = refused(copy.path());
                    assert!(sentence.contains(&format!("{desk}.db` is")), "{sentence}");
                    found += 1;
                }
                // A page that is in the log, too, or a frame behind the last commit.
                (code, report) => {
                    assert_eq!(code, 0, "{name}, bit {bit}: {report}");
                    let shop = open(copy.path(), &[]).await;
                    assert_eq!(shown(&shop).await, expected, "{name}, bit {bit}");
                    shop.crash().await;
                    harmless += 1;
                }
            }
        }
    }
    eprintln!("{found} flipped bits were found, {harmless} changed nothing");
    assert!(found > 0);
    // Nothing was wrong before.
    assert_eq!(checked(data.path()).0, 0);
    let shop = open(data.path(), &[]).await;
    assert_eq!(shown(&shop).await, expected);
    shop.close().await;
}

/// Files' endings with what is in them then; nothing: they are gone.
type Changes = Vec<(&'static str, Option<Vec<u8>>)>;

#[tokio::test]
async fn files_that_were_taken_away_or_exchanged_are_refused_at_every_desk() {
    let (data, _) = killed().await;
    let (older, _) = killed().await;
    for (place, desk) in DESKS.into_iter().enumerate() {
        let other = DESKS[(place + 1) % DESKS.len()];
        let others = |ending: &str| data.path().join(format!("{other}.db{ending}"));
        let read = |path| fs::read(path).unwrap();
        let before = |ending: &str| read(older.path().join(format!("{desk}.db{ending}")));
        let cases: [(&str, Changes); 4] = [
            ("no log", vec![("-wal", None)]),
            ("no database", vec![("", None)]),
            (
                "another desk's files",
                ["", "-wal", "-sums"]
                    .map(|ending| (ending, Some(read(others(ending)))))
                    .into(),
            ),
            ("another server's log", vec![("-wal", Some(before("-wal")))]),
        ];
        for (case, changes) in cases {
            let copy = copied(data.path());
            for (ending, contents) in changes {
                let path = copy.path().join(format!("{desk}.db{ending}"));
                match contents {
                    Some(contents) => fs::write(path, contents).unwrap(),
                    None => fs::remove_file(path).unwrap(),
                }
            }
            let (code, report) = checked(copy.path());
            assert_eq!(code, 1, "{desk}, {case}: {report}");
            assert_eq!(verdict(&report, desk), "damaged", "{desk}, {case}");
            let sentence = refused(copy.path());
            let named = format!("{desk}.db` is");
            assert!(sentence.contains(&named), "{desk}, {case}: {sentence}");
        }
    }
}

/// Events that were acknowledged, with the moment at which each was sent.
type Acknowledged = Arc<Mutex<Vec<(String, Instant)>>>;

/// A drone that reports deliveries until `stop` is set, whatever the answers are.
async fn report(door: Door, drone: usize, acknowledged: Acknowledged, stop: Arc<AtomicBool>) {
    let mut connection = door.connect().await;
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let (id, sent) = (format!("{drone}-{number}"), Instant::now());
        let answer = connection.ask(&event(&id, "PARCEL_COLLECTED")).await;
        if answer.status == 201 {
            acknowledged.lock().unwrap().push((id, sent));
        } else {
            answer.expect_problem(503, "storage-down");
        }
    }
}

#[tokio::test]
async fn after_a_directory_was_moved_under_load_a_second_server_on_its_path_shares_no_event() {
    let around = tempfile::tempdir().unwrap();
    let (data, moved) = (around.path().join("data"), around.path().join("moved"));
    let first = open(&data, &[]).await;
    let manifest = assignments::lists(&assignments::any_drivers(3), &assignments::any_packages(20));
    let manifest = packages::with(&manifest, "date", assignments::DAY);
    first.staff.ask(assignments::put_manifest(&manifest)).await;
    let (acknowledged, stop) = (Acknowledged::default(), Arc::new(AtomicBool::new(false)));
    let drones: Vec<_> = (0..4)
        .map(|drone| {
            let (acknowledged, stop) = (Arc::clone(&acknowledged), Arc::clone(&stop));
            tokio::spawn(report(first.staff, drone, acknowledged, stop))
        })
        .collect();
    first
        .until("some events are acknowledged", |_| {
            acknowledged.lock().unwrap().len() > 50
        })
        .await;
    fs::rename(&data, &moved).unwrap();
    let second = open(&data, &[]).await;
    let began = Instant::now();
    for number in 0..20 {
        let collected = event(&format!("second-{number}"), "PARCEL_COLLECTED");
        second.staff.ask(collected).await.expect(201);
    }
    // Every desk of the first misses its files, without a write, too.
    first
        .until("every desk misses its files", all_well(0))
        .await;
    for desk in DESKS {
        let ready = first.staff.ask(get(format!("/readyz/{desk}"))).await;
        let problem = ready.expect_problem(503, "storage-down");
        let reason = problem["components"][0]["reason"].as_str().unwrap();
        assert!(reason.contains(data.to_str().unwrap()), "{reason}");
    }
    for write in writes(2) {
        let refused = first.staff.ask(write).await;
        refused.expect_problem(503, "storage-down");
    }
    let package = packages::package("refused");
    let refused = first.customers.ask(send(&package)).await;
    refused.expect_problem(503, "storage-down");
    stop.store(true, Ordering::Relaxed);
    for drone in drones {
        drone.await.unwrap();
    }
    let acknowledged = acknowledged.lock().unwrap().clone();
    let late: Vec<_> = acknowledged
        .iter()
        .filter(|(_, sent)| *sent > began)
        .collect();
    assert_eq!(late, Vec::<&(String, Instant)>::new());
    first.crash().await;
    second.close().await;
    // What the first acknowledged went along, all of it.
    let first = open(&moved, &[]).await;
    let list = first.staff.ask(get("/deliveries")).await.expect(200);
    let stored: BTreeSet<_> = list["deliveries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|delivery| delivery["delivery_id"].as_str().unwrap().to_owned())
        .collect();
    for (id, _) in &acknowledged {
        assert!(stored.contains(id), "{id} is missing");
    }
    first.close().await;
}

/// Every desk's storage keeps what it is given: 1, or not: 0.
fn all_well(well: usize) -> impl FnMut(&Metrics) -> bool {
    move |now| {
        let is = |desk| now.count(&format!("odyssey_storage_well{{database=\"{desk}\"}}")) == well;
        DESKS.into_iter().all(is)
    }
}

#[tokio::test]
async fn a_directory_that_is_removed_is_missed_and_one_that_is_moved_back_works_again() {
    let around = tempfile::tempdir().unwrap();
    let (data, moved) = (around.path().join("data"), around.path().join("moved"));
    let shop = open(&data, &[]).await;
    shop.staff.expect(event("a", "PARCEL_COLLECTED"), 201).await;
    fs::rename(&data, &moved).unwrap();
    shop.until("every desk misses its files", all_well(0)).await;
    shop.staff
        .expect_problem(event("a", "TAKEN_OFF"), 503, "storage-down")
        .await;
    // Coffee needs no disk.
    shop.staff.ask(get("/readyz")).await.expect(200);
    fs::rename(&moved, &data).unwrap();
    shop.until("every desk has its files again", all_well(1))
        .await;
    let answer = shop.staff.ask(event("a", "TAKEN_OFF")).await;
    assert_eq!(answer.expect(201)["sequence"], 2);
    fs::remove_dir_all(&data).unwrap();
    shop.until("every desk misses its files", all_well(0)).await;
    shop.staff
        .expect_problem(event("a", "LANDED"), 503, "storage-down")
        .await;
    assert!(!data.exists(), "nothing is made anew");
    shop.crash().await;
}

#[tokio::test]
async fn a_running_server_finds_a_flipped_bit_by_itself_and_when_it_is_asked() {
    let data = tempfile::tempdir().unwrap();
    let (used, _) = killed().await;
    for entry in fs::read_dir(copied(used.path()).path()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), data.path().join(entry.file_name())).unwrap();
    }
    let directory = data.path().to_str().unwrap();
    // Put into the files at the start, and again after an end in order.
    open(data.path(), &[]).await.close().await;
    assert_eq!(checked(data.path()).0, 0);
    let shop = open(data.path(), &[]).await;
    let url = format!("http://{}", shop.staff.address);
    let output = check(&["--url", &url]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let busy = check(&["--data", directory]);
    assert_eq!(busy.status.code(), Some(2), "{busy:?}");
    let message = String::from_utf8_lossy(&busy.stderr).into_owned();
    assert!(message.contains("in use by process"), "{message}");

    let file = data.path().join("packages.db");
    let bit = 8 * (file.metadata().unwrap().len() - 100);
    flip(&file, bit);
    let output = check(&["--url", &url]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["verdict"], "damaged");
    assert_eq!(verdict(&report, "packages"), "damaged");
    assert_eq!(verdict(&report, "deliveries"), "good");
    for path in ["/readyz/packages", "/statistics", "/packages/0-3"] {
        let answer = shop.staff.ask(get(path)).await;
        answer.expect_problem(503, "storage-down");
    }
    let now = shop.metrics().await;
    assert_eq!(now.count("odyssey_storage_sound{database=\"packages\"}"), 0);
    assert_eq!(now.count("odyssey_storage_sound{database=\"couriers\"}"), 1);
    shop.staff.ask(get("/readyz/deliveries")).await.expect(200);
    shop.crash().await;
    let sentence = refused(data.path());
    assert!(
        sentence.contains("packages.db` is damaged (page "),
        "{sentence}"
    );

    // By itself.
    flip(&file, bit);
    let shop = open(data.path(), &[("storage.check_every", "1s")]).await;
    flip(&file, bit);
    shop.until("the damage is found", |now| {
        now.count("odyssey_storage_sound{database=\"packages\"}") == 0
    })
    .await;
    let mut package = packages::package("refused");
    package["sender_id"] = json!("ada");
    shop.customers
        .expect_problem(send(&package), 503, "storage-down")
        .await;
    shop.crash().await;
}
