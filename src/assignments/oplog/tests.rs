use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use flate2::read::GzDecoder;
use tempfile::TempDir;
use testkit::until;

use super::super::model::{DriverId, PackageId, Status};
use super::*;
use crate::telemetry::Registry;

#[cfg(feature = "aws")]
mod s3;

/// Longer than anything here takes on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A log with its directory and its metrics.
struct Shop {
    oplog: Oplog,
    registry: Registry,
}

impl Shop {
    fn open(settings: Settings) -> Self {
        let registry = Registry::new(&[]);
        let metrics = registry.register(Metrics::register);
        let oplog = Oplog::open(settings, metrics).unwrap();
        Self { oplog, registry }
    }

    /// What a metric says now.
    fn figure(&self, name: &str) -> u64 {
        self.oplog.update_gauges();
        let text = self.registry.render();
        let said = text.lines().find_map(|line| line.strip_prefix(name));
        let said = said.unwrap_or_else(|| panic!("no {name} in\n{text}"));
        said.trim().parse().unwrap()
    }

    fn written(&self) -> u64 {
        self.figure("odyssey_oplog_entries_written_total")
    }

    fn lost(&self, reason: &str) -> u64 {
        self.figure(&format!(
            "odyssey_oplog_entries_lost_total{{reason=\"{reason}\"}}"
        ))
    }

    fn note(&self, entries: Vec<Entry>) {
        let began = Instant::now();
        self.oplog.note(entries);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(2), "a request waited {took:?}");
    }

    fn spool(&self) -> &Spool {
        &self.oplog.inner.as_ref().unwrap().spool
    }
}

fn files(directory: &Path) -> Settings {
    Settings {
        directory: directory.to_owned(),
        sink: Sink::Files,
        config: Config {
            instance: "shop".to_owned(),
            batch_age: Duration::from_millis(50),
            spool_max_bytes: 64 << 20,
            ..crate::config::Config::defaults().oplog
        },
    }
}

/// Now, or a little earlier if the hour is about to end.
fn today() -> String {
    let now = jiff::Timestamp::now();
    let safe = now - jiff::SignedDuration::from_secs(1);
    safe.strftime("%Y-%m-%dT%H:00:00Z").to_string()
}

fn entry(at: &str, number: usize) -> Entry {
    Entry {
        at: at.parse().unwrap(),
        request_id: format!("request-{number}").into(),
        kind: Kind::Assign,
        driver: DriverId::parse("driver_1").unwrap(),
        package: PackageId::parse(&format!("package_{number}")).unwrap(),
        from: None,
        to: Some(Status::Assigned),
    }
}

fn entries(at: &str, numbers: std::ops::Range<usize>) -> Vec<Entry> {
    numbers.map(|number| entry(at, number)).collect()
}

/// The numbers of a packed file's entries; it must be whole lines.
fn numbers(packed: impl Read) -> Vec<usize> {
    let mut text = String::new();
    GzDecoder::new(packed).read_to_string(&mut text).unwrap();
    assert!(text.ends_with('\n'), "half a line: {text}");
    let line = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let package = line["package_id"].as_str().unwrap();
        package.strip_prefix("package_").unwrap().parse().unwrap()
    };
    text.lines().map(line).collect()
}

/// The archive's files below `directory`: day, name, entries; oldest first.
fn archived(directory: &Path) -> Vec<(String, String, Vec<usize>)> {
    let mut found = Vec::new();
    for day in fs::read_dir(directory).unwrap() {
        let day = day.unwrap();
        let date = day.file_name().into_string().unwrap();
        if !date.starts_with("dt=") {
            continue;
        }
        for file in fs::read_dir(day.path()).unwrap() {
            let file = file.unwrap();
            let name = file.file_name().into_string().unwrap();
            let entries = numbers(fs::File::open(file.path()).unwrap());
            found.push((date.clone(), name, entries));
        }
    }
    found.sort();
    found
}

fn spooled(directory: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(directory.join(SPOOL)).unwrap();
    files.map(|file| file.unwrap().path()).collect()
}

fn all(archived: &[(String, String, Vec<usize>)]) -> Vec<usize> {
    let numbers = archived.iter().flat_map(|(_, _, numbers)| numbers);
    numbers.copied().collect()
}

/// Nothing waits to be packed.
#[cfg(feature = "aws")]
fn is_packed(directory: &Path) -> bool {
    let files = spooled(directory);
    !files.is_empty() && files.iter().all(|file| file.extension().unwrap() == "gz")
}

/// What a kill leaves: the directory as it is at this moment.
fn as_killed(directory: &Path) -> TempDir {
    let left = TempDir::new().unwrap();
    fs::create_dir(left.path().join(SPOOL)).unwrap();
    for file in spooled(directory) {
        let name = file.file_name().unwrap();
        fs::copy(&file, left.path().join(SPOOL).join(name)).unwrap();
    }
    left
}

#[tokio::test]
async fn lines_are_readable_once_the_log_is_closed() {
    let dir = TempDir::new().unwrap();
    let shop = Shop::open(files(dir.path()));
    shop.note(entries("2142-11-21T10:00:00Z", 0..3));
    shop.note(vec![]);
    shop.note(entries("2142-11-21T11:00:00Z", 3..5));
    shop.oplog.close(PATIENCE).await;
    let archived = archived(dir.path());
    let [(day, name, numbers)] = &archived[..] else {
        panic!("one file, not {archived:?}")
    };
    assert_eq!(day, "dt=2142-11-21");
    assert!(name.starts_with("shop-"), "{name}");
    assert_eq!(*numbers, [0, 1, 2, 3, 4]);
    assert!(spooled(dir.path()).is_empty());
    assert_eq!(shop.written(), 5);
    assert_eq!(shop.figure("odyssey_oplog_spooled_bytes"), 0);
    assert_eq!(shop.figure("odyssey_oplog_waiting_entries"), 0);
}

#[tokio::test]
async fn a_file_is_complete_at_its_size_and_at_the_end_of_its_day() {
    let dir = TempDir::new().unwrap();
    let mut settings = files(dir.path());
    settings.config.file_max_bytes = 1000;
    let shop = Shop::open(settings);
    shop.note(entries("2142-11-21T23:59:59Z", 0..100));
    shop.note(entries("2142-11-22T00:00:00Z", 100..102));
    shop.oplog.close(PATIENCE).await;
    let archived = archived(dir.path());
    assert_eq!(all(&archived), (0..102).collect::<Vec<_>>());
    let days: Vec<&str> = archived.iter().map(|(day, ..)| day.as_str()).collect();
    assert_eq!(
        days.iter().filter(|day| **day == "dt=2142-11-22").count(),
        1
    );
    // A line has some 160 bytes.
    assert!((10..=25).contains(&days.len()), "{days:?}");
}

#[tokio::test]
async fn the_oldest_files_are_removed() {
    let dir = TempDir::new().unwrap();
    let mut settings = files(dir.path());
    settings.config.files_max = 3;
    fs::create_dir(dir.path().join("dt=2020-01-01")).unwrap();
    let foreign = dir.path().join("dt=2020-01-01/notes.txt");
    fs::write(&foreign, "not ours").unwrap();
    let shop = Shop::open(settings);
    for day in 1..=7 {
        shop.note(vec![entry(&format!("2142-11-0{day}T12:00:00Z"), day)]);
    }
    shop.oplog.close(PATIENCE).await;
    fs::remove_file(foreign).unwrap();
    assert_eq!(all(&archived(dir.path())), [5, 6, 7]);
    assert!(!dir.path().join("dt=2142-11-01").exists(), "an empty day");
}

#[tokio::test]
async fn what_was_written_survives_a_kill_but_for_half_a_line() {
    let dir = TempDir::new().unwrap();
    let shop = Shop::open(files(dir.path()));
    shop.note(entries(&today(), 0..1000));
    until("the lines are written", async || shop.written() == 1000).await;
    let left = as_killed(dir.path());
    let [segment] = &spooled(left.path())[..] else {
        panic!("one segment")
    };
    let mut torn = fs::read(segment).unwrap();
    torn.extend_from_slice(br#"{"at":"2026-11"#);
    fs::write(segment, torn).unwrap();
    // It was being packed, and nothing came of it.
    fs::write(segment.with_extension("ndjson.gz.part"), "half").unwrap();
    // A segment in which nothing but a torn line ever was.
    let empty = super::name::Name::new(today().parse().unwrap(), "shop");
    fs::write(left.path().join(SPOOL).join(empty.plain()), "{").unwrap();

    let next = Shop::open(files(left.path()));
    next.note(entries(&today(), 1000..1001));
    next.oplog.close(PATIENCE).await;
    let archived = archived(left.path());
    assert_eq!(archived.len(), 2);
    assert_eq!(all(&archived), (0..1001).collect::<Vec<_>>());
    assert_eq!(next.lost("torn"), 2);
    assert!(spooled(left.path()).is_empty());
    shop.oplog.close(PATIENCE).await;
}

#[tokio::test]
async fn a_kill_between_packing_and_removing_doubles_nothing() {
    let dir = TempDir::new().unwrap();
    let shop = Shop::open(files(dir.path()));
    shop.note(entries(&today(), 0..10));
    until("the lines are written", async || shop.written() == 10).await;
    let segment = spooled(dir.path()).remove(0);
    let lines = fs::read(&segment).unwrap();
    shop.oplog.close(PATIENCE).await;
    fs::write(&segment, lines).unwrap();
    Shop::open(files(dir.path())).oplog.close(PATIENCE).await;
    let archived = archived(dir.path());
    assert_eq!(archived.len(), 1);
    assert_eq!(all(&archived), (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_full_disk_loses_nothing_that_fits_into_memory_and_is_over_when_it_is() {
    let dir = TempDir::new().unwrap();
    let mut settings = files(dir.path());
    settings.config.waiting_max = 50;
    let shop = Shop::open(settings);
    shop.note(entries(&today(), 0..10));
    until("the lines are written", async || shop.written() == 10).await;
    // The first line that does not fit is written in part.
    shop.spool().room.store(100, Ordering::SeqCst);
    for number in 10..200 {
        shop.note(vec![entry(&today(), number)]);
    }
    let lost = shop.lost("queue_full");
    assert_eq!(lost, 140);
    assert_eq!(shop.written(), 10);
    let is_down = || shop.oplog.state().is_some_and(|state| state.down.is_some());
    until("it is known that nothing is written", async || is_down()).await;
    shop.spool().room.store(u64::MAX, Ordering::SeqCst);
    until("the lines are written", async || {
        shop.written() == 200 - lost
    })
    .await;
    assert!(!is_down());
    shop.note(entries(&today(), 200..210));
    shop.oplog.close(PATIENCE).await;
    let kept = all(&archived(dir.path()));
    assert_eq!(kept.len() as u64, 210 - lost);
    assert!(kept.is_sorted_by(|one, next| one < next), "{kept:?}");
    assert!(kept.ends_with(&(200..210).collect::<Vec<_>>()));
    assert_eq!(shop.lost("queue_full"), lost);
}

#[tokio::test]
async fn a_disk_that_stays_full_does_not_hold_up_the_end() {
    let dir = TempDir::new().unwrap();
    let shop = Shop::open(files(dir.path()));
    shop.note(entries(&today(), 0..10));
    until("the lines are written", async || shop.written() == 10).await;
    shop.spool().room.store(0, Ordering::SeqCst);
    shop.note(entries(&today(), 10..40));
    shop.oplog.close(PATIENCE).await;
    assert_eq!(shop.lost("disk"), 30);
    assert_eq!(all(&archived(dir.path())), (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_does_not_fit_into_the_queue_is_counted() {
    let dir = TempDir::new().unwrap();
    let mut settings = files(dir.path());
    settings.config.waiting_max = 10;
    let shop = Shop::open(settings);
    shop.note(entries(&today(), 0..25));
    assert_eq!(shop.lost("queue_full"), 15);
    until("the lines are written", async || shop.written() == 10).await;
    until("there is room", async || {
        shop.figure("odyssey_oplog_waiting_entries") == 0
    })
    .await;
    shop.note(entries(&today(), 25..30));
    shop.oplog.close(PATIENCE).await;
    let kept: Vec<usize> = (0..10).chain(25..30).collect();
    assert_eq!(all(&archived(dir.path())), kept);
}

#[tokio::test]
async fn what_comes_after_the_end_is_counted() {
    let dir = TempDir::new().unwrap();
    let shop = Shop::open(files(dir.path()));
    shop.oplog.close(PATIENCE).await;
    shop.note(entries(&today(), 0..7));
    assert_eq!(shop.lost("closed"), 7);
    shop.oplog.close(PATIENCE).await;
    let nowhere = Oplog::disabled();
    nowhere.note(entries(&today(), 0..7));
    nowhere.update_gauges();
    nowhere.close(PATIENCE).await;
}

#[tokio::test]
async fn many_who_note_at_once_lose_nothing() {
    let dir = TempDir::new().unwrap();
    let mut settings = files(dir.path());
    settings.config.file_max_bytes = 50_000;
    let shop = Shop::open(settings);
    let at = today();
    std::thread::scope(|scope| {
        for part in 0..8 {
            let (shop, at) = (&shop, &at);
            scope.spawn(move || {
                for number in part * 500..(part + 1) * 500 {
                    shop.note(vec![entry(at, number)]);
                }
            });
        }
    });
    shop.oplog.close(PATIENCE).await;
    let kept = all(&archived(dir.path()));
    assert_eq!(kept.len(), 4000);
    assert_eq!(kept.into_iter().collect::<BTreeSet<_>>().len(), 4000);
}

#[test]
fn a_log_whose_last_handle_is_dropped_still_writes_what_is_queued() {
    let dir = TempDir::new().unwrap();
    let shop = Shop::open(files(dir.path()));
    shop.note(entries(&today(), 0..1000));
    drop(shop);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let waits = async {
        // The thread is through when the spool is empty again.
        until("the lines are packed", async || {
            spooled(dir.path()).is_empty() && !archived(dir.path()).is_empty()
        })
        .await;
    };
    runtime.block_on(waits);
    assert_eq!(all(&archived(dir.path())), (0..1000).collect::<Vec<_>>());
}

#[test]
fn a_directory_that_cannot_be_one_stops_the_start() {
    let dir = TempDir::new().unwrap();
    let taken = dir.path().join("oplog");
    fs::write(&taken, "a file").unwrap();
    let metrics = Registry::new(&[]).register(Metrics::register);
    let opened = Oplog::open(files(&taken), metrics);
    assert!(opened.is_err());
}

#[tokio::test]
async fn a_directory_that_goes_away_stops_nothing_and_is_made_again() {
    let dir = TempDir::new().unwrap();
    let directory = dir.path().join("oplog");
    let shop = Shop::open(files(&directory));
    fs::remove_dir_all(&directory).unwrap();
    fs::write(&directory, "in the way").unwrap();
    shop.note(entries(&today(), 0..10));
    fs::remove_file(&directory).unwrap();
    until("the lines are written", async || shop.written() == 10).await;
    shop.oplog.close(PATIENCE).await;
    assert_eq!(all(&archived(&directory)), (0..10).collect::<Vec<_>>());
}
