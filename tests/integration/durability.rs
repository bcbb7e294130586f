//! Acknowledged data survives, whatever happens to the process or the disk; data that cannot be stored is refused.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::client::{Ask, delete, event, get, order, send, within};
use crate::fleet::Fleet;
use crate::packages::{package, preferences, put_preferences, with};
use crate::shop::{Shop, odyssey, odyssey_by, text, variable};

/// How often the server is killed. `make soak` wants a thousand.
const ROUNDS: u64 = 30;
/// Overrides the number of rounds.
pub(crate) const ROUNDS_VARIABLE: &str = "SOAK_ROUNDS";
/// Repeats a run's random decisions; which event is on its way at which moment is the machine's.
const SEED_VARIABLE: &str = "SOAK_SEED";
/// So many that none is ever pushed out.
const ALL: u64 = 10_000_000;

pub(crate) fn number_from_environment(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    let number = value.parse();
    Some(number.unwrap_or_else(|_| panic!("{name} must be a number, not {value:?}")))
}

/// Says with which seed a test has failed.
pub(crate) struct Seed(pub(crate) u64);

impl Seed {
    pub(crate) fn from_environment() -> Self {
        Self(number_from_environment(SEED_VARIABLE).unwrap_or_else(|| fastrand::u64(..)))
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "a failed test says how to repeat it")]
            {
                eprintln!("--- {SEED_VARIABLE}={} decides the same again ---", self.0);
            }
        }
    }
}

/// A shop that keeps its data here, with these settings.
pub(crate) async fn open(data: &Path, settings: &[(&str, &str)]) -> Shop {
    let data = ("data_dir", data.to_str().unwrap());
    Shop::open(&[settings, &[data]].concat()).await
}

/// The program, about to be started on this data directory.
fn serve(data: &Path) -> Command {
    let mut command = odyssey();
    command.arg("serve").env(variable("data_dir"), data);
    command
        .env(variable("customers.listen"), "127.0.0.1:0")
        .env(variable("staff.listen"), "127.0.0.1:0")
        .env_remove("RUST_BACKTRACE");
    command
}

/// What the program says that must not start here: its last line.
#[track_caller]
pub(crate) fn refused(data: &Path) -> String {
    let output = serve(data).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let message = String::from_utf8(output.stderr).unwrap();
    let sentence = message.lines().last().unwrap_or_default().to_owned();
    assert!(sentence.starts_with("odyssey: "), "{message}");
    assert!(!message.contains("panicked"), "{message}");
    sentence
}

/// The files of a data directory with their contents, except the lock, which names the last process.
fn files(data: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(data).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension() != Some(OsStr::new("lock")) {
            let content = fs::read(&path).unwrap();
            found.insert(path, content);
        }
    }
    found
}

// --- Ends ----------------------------------------------------------------------------------------------------------

/// A start that is killed before the server answers requests, or soon afterwards.
pub(crate) async fn start_that_is_cut_short(data: &Path, random: &mut fastrand::Rng) {
    let mut command = serve(data);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    sleep(Duration::from_micros(random.u64(0..60_000))).await;
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn a_server_that_is_killed_again_and_again_keeps_what_it_acknowledged() {
    let rounds = number_from_environment(ROUNDS_VARIABLE).unwrap_or(ROUNDS);
    let seed = Seed::from_environment();
    let mut random = fastrand::Rng::with_seed(seed.0);
    let data = tempfile::tempdir().unwrap();
    let mut fleet = Fleet::default();
    let mut stored = ALL;
    for _ in 0..rounds {
        if random.u8(..4) == 0 {
            start_that_is_cut_short(data.path(), &mut random).await;
        }
        let kept_before = stored;
        stored = random.choice([3, 20, ALL]).unwrap();
        let setting = stored.to_string();
        let shop = open(data.path(), &[("deliveries.kept", &setting)]).await;
        fleet.check(&shop, kept_before).await;
        fleet.resend(&shop).await;
        let mut flying = fleet.take_off(&shop, &mut random).await;
        fleet.acknowledged += flying.until(random.u64(0..100)).await;
        sleep(Duration::from_micros(random.u64(0..5000))).await;
        shop.crash().await;
        fleet.land(flying).await;
    }
    let shop = open(data.path(), &[]).await;
    fleet.check(&shop, stored).await;
    fleet.resend(&shop).await;
    assert!(fleet.acknowledged > rounds, "{fleet:?}");
    let (acknowledged, replayed) = (fleet.acknowledged, fleet.replayed);
    eprintln!(
        "{rounds} crashes, {acknowledged} events acknowledged, {replayed} kept without an answer"
    );
    shop.close().await;
}

#[tokio::test]
async fn a_server_that_is_stopped_in_the_midst_of_it_keeps_what_it_acknowledged() {
    let mut random = fastrand::Rng::with_seed(1511);
    let data = tempfile::tempdir().unwrap();
    let mut fleet = Fleet::default();
    for _ in 0..5 {
        let shop = open(data.path(), &[]).await;
        fleet.check(&shop, ALL).await;
        fleet.resend(&shop).await;
        let mut flying = fleet.take_off(&shop, &mut random).await;
        fleet.acknowledged += flying.until(random.u64(1..100)).await;
        shop.signal(Signal::TERM);
        shop.ended_well().await;
        fleet.land(flying).await;
        let left: Vec<_> = files(data.path()).into_keys().collect();
        let files = [
            "assignments.db",
            "couriers.db",
            "deliveries.db",
            "packages.db",
        ];
        let files = files.map(|file| [file.to_owned(), format!("{file}-sums")]);
        let files = files
            .concat()
            .into_iter()
            .map(|file| data.path().join(file));
        assert_eq!(left, files.collect::<Vec<_>>(), "no log is left");
    }
    let shop = open(data.path(), &[]).await;
    fleet.check(&shop, ALL).await;
    shop.close().await;
}

#[tokio::test]
async fn a_second_server_is_told_who_has_the_directory_and_the_first_goes_on() {
    let data = tempfile::tempdir().unwrap();
    let shop = open(data.path(), &[]).await;
    shop.staff
        .ask(event("a", "PARCEL_COLLECTED"))
        .await
        .expect(201);
    let sentence = refused(data.path());
    let first = format!("in use by process {} on ", shop.pid().as_raw_nonzero());
    for preferences in [data.path().to_str().unwrap(), &first] {
        assert!(
            sentence.contains(preferences),
            "{preferences} is missing: {sentence}"
        );
    }
    let answer = shop.staff.ask(event("a", "TAKEN_OFF")).await;
    assert_eq!(answer.expect(201)["sequence"], 2);
    // Even a crash gives it free.
    shop.crash().await;
    let shop = open(data.path(), &[]).await;
    let answer = shop.staff.ask(event("a", "LANDED")).await;
    assert_eq!(answer.expect(201)["sequence"], 3);
    shop.close().await;
}

// --- Files that cannot be used -------------------------------------------------------------------------------------

/// A data directory in which a server has kept something, and its file.
async fn used() -> (TempDir, PathBuf) {
    let data = tempfile::tempdir().unwrap();
    let shop = open(data.path(), &[]).await;
    for drone in 0..100 {
        let collected = event(&format!("drone-{drone}"), "PARCEL_COLLECTED");
        shop.staff.ask(collected).await.expect(201);
    }
    shop.close().await;
    let file = data.path().join("deliveries.db");
    (data, file)
}

/// The server does not start, says why in a sentence with these words, and touches nothing; reading may leave an empty log
/// and its index behind.
#[track_caller]
fn refused_and_untouched(data: &Path, all_preferences: &[&str]) {
    let before = files(data);
    let sentence = refused(data);
    let file = data.join("deliveries.db");
    for preferences in [&[file.to_str().unwrap()], all_preferences].concat() {
        assert!(
            sentence.contains(preferences),
            "{preferences} is missing: {sentence}"
        );
    }
    let mut after = files(data);
    after.retain(|path, content| {
        let name = path.to_string_lossy();
        let empty_log = name.ends_with("-shm") || name.ends_with("-wal") && content.is_empty();
        before.contains_key(path) || !empty_log
    });
    assert!(after == before, "something was changed: {sentence}");
}

#[tokio::test]
async fn a_file_of_a_newer_program_is_left_alone() {
    let (data, file) = used().await;
    // An intended change of a file includes the removal of its checksums.
    fs::remove_file(data.path().join("deliveries.db-sums")).unwrap();
    let database = Connection::open(&file).unwrap();
    database.pragma_update(None, "user_version", 99).unwrap();
    database.close().unwrap();
    refused_and_untouched(data.path(), &["newer version", "schema 99"]);
    // It was nothing but the number.
    let database = Connection::open(&file).unwrap();
    database.pragma_update(None, "user_version", 1).unwrap();
    database.close().unwrap();
    let shop = open(data.path(), &[]).await;
    let counts = shop.staff.ask(get("/counts")).await.expect(200);
    assert_eq!(counts, json!({"ongoing": 100, "total": 100}));
    shop.close().await;
}

#[tokio::test]
async fn a_file_that_was_cut_off_is_left_alone() {
    let (data, file) = used().await;
    let whole = fs::read(&file).unwrap();
    for length in [whole.len() - 1, whole.len() / 2, 5000, 512] {
        fs::write(&file, &whole[..length]).unwrap();
        refused_and_untouched(data.path(), &["restore a backup"]);
    }
    fs::write(&file, &whole).unwrap();
    open(data.path(), &[]).await.close().await;
}

#[tokio::test]
async fn a_file_that_is_something_else_is_left_alone() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("deliveries.db");
    let letter = "Dear crew, ".repeat(1000);
    for text in ["x", "hello\n", letter.as_str()] {
        fs::write(&file, text).unwrap();
        refused_and_untouched(data.path(), &["is not a database", "move it aside"]);
    }
    fs::remove_file(&file).unwrap();
    let database = Connection::open(&file).unwrap();
    database
        .execute_batch("CREATE TABLE letters (text TEXT)")
        .unwrap();
    database.close().unwrap();
    refused_and_untouched(
        data.path(),
        &["another program's or another desk's database"],
    );
}

#[test]
fn a_file_in_place_of_the_directory_is_named() {
    let around = tempfile::tempdir().unwrap();
    let file = around.path().join("data");
    fs::write(&file, "a letter").unwrap();
    for data in [file.clone(), file.join("below")] {
        let sentence = refused(&data);
        for preferences in ["cannot create the data directory", data.to_str().unwrap()] {
            assert!(
                sentence.contains(preferences),
                "{preferences} is missing: {sentence}"
            );
        }
    }
    assert_eq!(fs::read(&file).unwrap(), b"a letter");
}

// --- Too little room -----------------------------------------------------------------------------------------------

/// The server on a disk of 6 MB, which is mounted here for it alone, and gone when it ends.
fn on_a_small_disk(at: &Path) -> Command {
    const MOUNT: &str = "mount -t tmpfs -o size=6m odyssey \"$0\" && exec \"$@\"";
    let at = at.to_str().unwrap();
    let mut message = String::new();
    // As root (`-m`), or as any user (`-rm`) where user namespaces are permitted.
    for namespaces in ["-m", "-rm"] {
        let tried = Command::new("unshare")
            .args([namespaces, "sh", "-c", MOUNT, at, "true"])
            .output()
            .expect("unshare is installed (util-linux)");
        if tried.status.success() {
            return odyssey_by("unshare", &[namespaces, "sh", "-c", MOUNT, at]);
        }
        message.push_str(&String::from_utf8_lossy(&tried.stderr));
    }
    panic!(
        "this test needs a small disk, and neither `unshare -m` nor `unshare -rm` may mount one: \
         run it as root, or permit user namespaces. {message}"
    );
}

/// Fills a disk to its last byte.
fn fill(ballast: &Path) {
    let mut file = fs::File::create(ballast).unwrap();
    for size in [65536, 4096, 1] {
        let lead = vec![7; size];
        while file.write_all(&lead).is_ok() {}
    }
}

#[tokio::test]
async fn a_full_disk_is_said_loses_nothing_and_is_over_once_there_is_room() {
    let disk = tempfile::tempdir().unwrap();
    let data = disk.path().to_str().unwrap();
    let settings = [("data_dir", data), ("storage.free_min", "0")];
    let shop = Shop::run(on_a_small_disk(disk.path()), &settings).await;
    // Only the server and what it starts see the disk; this is its view of it.
    let root = format!("/proc/{}/root{data}", shop.pid().as_raw_nonzero());
    let ballast = Path::new(&root).join("ballast");
    let mut stored = Vec::new();
    let mut collected = shop.staff.ask(event("a", "PARCEL_COLLECTED")).await;
    for _ in 0..2 {
        stored.push(collected.expect(201));
        fill(&ballast);
        // What the file and its log have left takes some more.
        let refused = loop {
            let answer = shop.staff.ask(event("a", "LANDED")).await;
            if answer.status != 201 {
                break answer;
            }
            stored.push(answer.expect(201));
        };
        refused.expect_problem(503, "storage-down");
        assert!(refused.retry_after() >= 1);
        for (door, shows_reasons) in [(shop.customers, false), (shop.staff, true)] {
            let ready = door.ask(get("/readyz/deliveries")).await;
            let problem = ready.expect_problem(503, "storage-down");
            assert!(ready.retry_after() >= 1);
            let down = &problem["components"][0];
            assert_eq!(
                (&down["name"], &down["state"]),
                (&"deliveries".into(), &"down".into())
            );
            let reason = down["reason"].as_str().unwrap();
            assert_eq!(reason.contains("full"), shows_reasons, "{reason}");
            // Coffee needs no disk.
            let ready = door.ask(get("/readyz")).await.expect(200);
            assert_eq!(&ready["components"][1], down);
            door.ask(get("/readyz/orders")).await.expect(200);
            door.ask(get("/healthz")).await.expect(200);
        }
        let customer = shop.customer(order()).await;
        shop.serve_on_one_connection(1).await;
        customer.answer().await.expect(200);
        let well = "odyssey_storage_well{database=\"deliveries\"}";
        assert_eq!(shop.metrics().await.count(well), 0);
        expect_stored(&shop, &stored).await;
        fs::remove_file(&ballast).unwrap();
        // That needs no report from a drone.
        shop.until("the storage works again", |now| now.count(well) == 1)
            .await;
        shop.staff.ask(get("/readyz/deliveries")).await.expect(200);
        expect_stored(&shop, &stored).await;
        collected = shop.staff.ask(event("a", "TAKEN_OFF")).await;
    }
    stored.push(collected.expect(201));
    expect_stored(&shop, &stored).await;
    shop.signal(Signal::TERM);
    let mut shop = shop;
    let status = shop.ended().await;
    assert_eq!(status.code(), Some(0), "{status}");
    let log = shop.log();
    for message in [
        "the storage is down: writes fail until it works again",
        "the storage works again",
    ] {
        assert_eq!(log.matches(message).count(), 2, "{message}");
    }
    assert!(!log.contains("panicked"), "{log}");
}

/// What the public writes, as this listener's client asks for it.
fn public_writes() -> [Ask; 3] {
    [
        send(&package("p")),
        put_preferences(&preferences(1, true, true)),
        event("a", "LANDED"),
    ]
}

#[tokio::test]
async fn with_too_little_space_the_public_stops_writing_first_and_the_staff_goes_on() {
    // As much as no disk has.
    let settings = [
        ("storage.free_min", "1125899906842624"),
        ("customers.deliveries", "true"),
    ];
    let shop = Shop::open(&settings).await;
    shop.staff
        .ask(event("a", "PARCEL_COLLECTED"))
        .await
        .expect(201);
    for ask in public_writes() {
        let refused = shop.customers.ask(ask).await;
        refused.expect_problem(503, "storage-low");
        assert!(refused.retry_after() >= 1);
    }
    // Malformed is malformed, and reading goes on.
    let wrong = with(&package("p"), "package_type", "none");
    let answer = shop.customers.ask(send(&wrong)).await;
    answer.expect_problem(422, "invalid");
    for path in ["/statistics", "/preferences/ada"] {
        shop.customers.ask(get(path)).await.expect(200);
    }
    shop.staff.ask(event("a", "TAKEN_OFF")).await.expect(201);
    shop.staff.ask(delete("/preferences/ada")).await.expect(200);
    let customer = shop.customer(order()).await;
    shop.serve_on_one_connection(1).await;
    customer.answer().await.expect(200);
    for (door, shows_reasons) in [(shop.customers, false), (shop.staff, true)] {
        let ready = door.ask(get("/readyz/packages")).await;
        let problem = ready.expect_problem(503, "storage-down");
        let reason = text(&problem["components"][0]["reason"]);
        assert_eq!(
            reason.contains("storage.free_min"),
            shows_reasons,
            "{reason}"
        );
        door.ask(get("/readyz/deliveries")).await.expect(200);
        door.ask(get("/readyz")).await.expect(200);
    }
    let free = shop.metrics().await.count("odyssey_storage_free_bytes");
    assert_ne!(free, 0);
    shop.close().await;
}

#[tokio::test]
async fn once_there_is_space_again_the_public_writes_again() {
    let disk = tempfile::tempdir().unwrap();
    let data = disk.path().to_str().unwrap();
    let settings = [("data_dir", data), ("storage.free_min", "3000000")];
    let shop = Shop::run(on_a_small_disk(disk.path()), &settings).await;
    let root = format!("/proc/{}/root{data}", shop.pid().as_raw_nonzero());
    let ballast = Path::new(&root).join("ballast");
    let sent = async |id: &str| shop.customers.ask(send(&package(id))).await;
    sent("before").await.expect(201);
    fs::write(&ballast, vec![7; 3_500_000]).unwrap();
    let free = "odyssey_storage_free_bytes";
    shop.until("the ballast is noticed", |now| now.count(free) < 3_000_000)
        .await;
    sent("meanwhile").await.expect_problem(503, "storage-low");
    fs::remove_file(&ballast).unwrap();
    shop.until("the space is noticed", |now| now.count(free) > 3_500_000)
        .await;
    sent("meanwhile").await.expect(201);
    shop.staff.ask(get("/readyz/packages")).await.expect(200);
    let log = shop.close().await;
    for message in [
        "too little space is left: public writes are refused",
        "there is enough free space again; public writes are accepted",
    ] {
        assert_eq!(log.matches(message).count(), 1, "{message}");
    }
}

/// What the desk shows is exactly what it has acknowledged.
async fn expect_stored(shop: &Shop, stored: &[serde_json::Value]) {
    let history = shop.staff.ask(get("/deliveries/a/events")).await;
    let mut history = history.expect(200);
    for event in history["events"].as_array_mut().unwrap() {
        event["delivery_id"] = json!("a");
    }
    assert_eq!(history["events"], json!(stored));
    let list = shop.staff.ask(get("/deliveries")).await.expect(200);
    assert_eq!(list["deliveries"][0]["events"], stored.len());
}

// --- Too much at once ----------------------------------------------------------------------------------------------

const NO_ROOM: [(&str, &str); 2] = [("storage.queue_max", "1"), ("storage.batch_max", "1")];

/// 64 drones report at once, one delivery each; returns how many were asked to retry later. `down`: a `storage-down`
/// is permitted, too.
async fn a_burst(shop: &Shop, name: &str, down: bool) -> usize {
    let mut connections = Vec::new();
    for _ in 0..64 {
        connections.push(shop.staff.connect().await);
    }
    let drones: Vec<_> = connections
        .into_iter()
        .enumerate()
        .map(|(drone, mut connection)| {
            let id = format!("{name}-{drone}");
            tokio::spawn(async move {
                let answer = connection.ask(&event(&id, "PARCEL_COLLECTED")).await;
                (id, answer)
            })
        })
        .collect();
    let mut busy = 0;
    for drone in drones {
        let (id, answer) = within("a drone is answered", drone).await.unwrap();
        let found = shop.staff.ask(get(format!("/deliveries/{id}"))).await;
        if answer.status == 201 {
            found.expect(200);
            continue;
        }
        found.expect_problem(404, "delivery-unknown");
        assert!(answer.retry_after() >= 1, "{answer}");
        if down && answer.json()["type"] == "urn:odyssey:problem:storage-down" {
            continue;
        }
        answer.expect_problem(503, "storage-busy");
        busy += 1;
    }
    busy
}

#[tokio::test]
async fn when_the_queue_is_full_a_drone_is_told_and_what_was_acknowledged_is_kept() {
    let data = tempfile::tempdir().unwrap();
    let shop = open(data.path(), &NO_ROOM).await;
    let busy = a_burst(&shop, "drone", false).await;
    let counts = shop.staff.ask(get("/counts")).await.expect(200);
    assert_eq!(counts, json!({"ongoing": 64 - busy, "total": 64 - busy}));
    let now = shop.metrics().await;
    let refused = "odyssey_deliveries_refused_total{reason=\"unavailable\"}";
    assert_eq!(now.count(refused), busy);
    shop.close().await;
    let shop = open(data.path(), &NO_ROOM).await;
    assert_eq!(shop.staff.ask(get("/counts")).await.expect(200), counts);
    shop.close().await;
}

#[tokio::test]
async fn while_somebody_locks_the_file_the_queue_fills_and_it_works_again_afterwards() {
    let data = tempfile::tempdir().unwrap();
    let shop = open(data.path(), &NO_ROOM).await;
    let locker = Connection::open(data.path().join("deliveries.db")).unwrap();
    locker.execute_batch("BEGIN IMMEDIATE").unwrap();
    let fills = async {
        let mut burst = 0;
        while a_burst(&shop, &format!("locked-{burst}"), true).await == 0 {
            burst += 1;
        }
    };
    within("somebody finds the queue full", fills).await;
    let counts = shop.staff.ask(get("/counts")).await.expect(200);
    assert_eq!(counts, json!({"ongoing": 0, "total": 0}));
    locker.execute_batch("COMMIT").unwrap();
    locker.close().unwrap();
    let ready = async {
        while shop.staff.ask(get("/readyz/deliveries")).await.status != 200 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    within("the storage works again", ready).await;
    shop.staff
        .ask(event("a", "PARCEL_COLLECTED"))
        .await
        .expect(201);
    shop.signal(Signal::TERM);
    let mut shop = shop;
    assert_eq!(shop.ended().await.code(), Some(0));
}
