use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::ops::Range;
use std::path::Path;
use std::process::Command;

use flate2::read::MultiGzDecoder;
use jiff::Timestamp;
use tempfile::TempDir;
use testkit::until;

use super::super::model::{DriverId, PackageId, Status};
use super::file::{Current, Name, trim};
use super::*;
use crate::telemetry::Registry;

#[cfg(feature = "aws")]
mod s3;

/// Longer than anything here takes on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A log with its metrics.
struct Shop {
    oplog: Oplog,
    registry: Registry,
}

impl Shop {
    fn open(directory: &Path, sink: &Sink, config: Config) -> Self {
        let registry = Registry::new(&[]);
        let metrics = registry.register(Metrics::register);
        let oplog = Oplog::open(directory.to_owned(), sink, config, metrics).unwrap();
        Self { oplog, registry }
    }

    fn files(directory: &Path) -> Self {
        Self::open(directory, &Sink::Files, config())
    }

    /// The value of a metric.
    fn value(&self, name: &str) -> u64 {
        self.oplog.update_gauges();
        let text = self.registry.render();
        let value = text.lines().find_map(|line| line.strip_prefix(name));
        value.unwrap().trim().parse().unwrap()
    }

    fn written(&self) -> u64 {
        self.value("odyssey_oplog_entries_written_total")
    }

    fn lost(&self, reason: &str) -> u64 {
        let name = format!("odyssey_oplog_entries_lost_total{{reason=\"{reason}\"}}");
        self.value(&name)
    }

    fn down(&self) -> Option<String> {
        self.oplog.state().unwrap().down
    }

    async fn close(&self) {
        self.oplog.close(PATIENCE).await;
    }
}

fn config() -> Config {
    Config {
        instance: "shop".to_owned(),
        batch_age: Duration::from_millis(50),
        spool_max_bytes: 64 << 20,
        ..crate::config::Config::defaults().oplog
    }
}

/// Now, or a little earlier if the hour is about to end.
fn today() -> String {
    let safe = Timestamp::now() - jiff::SignedDuration::from_secs(1);
    safe.strftime("%Y-%m-%dT%H:00:00Z").to_string()
}

fn entries(at: &str, numbers: Range<usize>) -> Vec<Entry> {
    let entry = |number| Entry {
        at: at.parse().unwrap(),
        cause: "a \"quoted\" one".into(),
        kind: Kind::GiveUp,
        driver: DriverId::parse("Zoë").unwrap(),
        package: PackageId::parse(&format!("package_{number}")).unwrap(),
        from: Some(Status::InProgress),
        to: None,
    };
    numbers.map(entry).collect()
}

/// The numbers of a file's entries; it must be whole lines.
fn numbers(packed: &[u8]) -> Vec<usize> {
    let mut text = String::new();
    MultiGzDecoder::new(packed)
        .read_to_string(&mut text)
        .unwrap();
    assert!(text.ends_with('\n'), "half a line: {text}");
    let number = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let package = line["package_id"].as_str().unwrap();
        package.strip_prefix("package_").unwrap().parse().unwrap()
    };
    text.lines().map(number).collect()
}

/// The archive's files: day and name, entries; in the order of their names.
fn archived(directory: &Path) -> Vec<(String, Vec<usize>)> {
    let mut found = Vec::new();
    for day in fs::read_dir(directory).unwrap() {
        for file in fs::read_dir(day.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let name = path.strip_prefix(directory).unwrap().to_str().unwrap();
            found.push((name.to_owned(), numbers(&fs::read(&path).unwrap())));
        }
    }
    found.sort();
    found
}

/// All entries, sorted.
fn all(files: &[(String, Vec<usize>)]) -> Vec<usize> {
    let mut all: Vec<usize> = files
        .iter()
        .flat_map(|(_, numbers)| numbers.clone())
        .collect();
    all.sort_unstable();
    all
}

/// What a kill leaves: the directory as it is at this moment.
fn as_killed(directory: &Path) -> TempDir {
    let left = TempDir::new().unwrap();
    let mut copy = Command::new("cp");
    copy.arg("-r").arg(directory.join(".")).arg(left.path());
    assert!(copy.status().unwrap().success());
    left
}

#[test]
fn an_entry_is_one_line_of_json_with_every_field() {
    let [entry] = &entries("2142-11-21T23:59:59.000001Z", 1..2)[..] else {
        panic!("one entry")
    };
    let line = r#"{"at":"2142-11-21T23:59:59.000001Z","request_id":"a \"quoted\" one","kind":"give_up","driver_id":"Zoë","package_id":"package_1","from":"in_progress","to":null}"#;
    assert_eq!(
        String::from_utf8(entry.line()).unwrap(),
        format!("{line}\n")
    );
}

#[test]
fn an_instance_of_any_name_is_part_of_a_file_name_that_is_read_again() {
    for (instance, part) in [
        ("../Zoë/1", "..-Zo--1"),
        ("", "odyssey"),
        ("1.a_b", "1.a_b"),
    ] {
        let name = Name::new(Timestamp::UNIX_EPOCH, instance);
        let path = name.in_spool(Path::new(""));
        let file = path.to_str().unwrap();
        assert!(
            file.starts_with(&format!("1970-01-01T00-{part}-")),
            "{file}"
        );
        assert_eq!(Name::parse(file), Some(name));
        for foreign in [
            &file[1..],
            &file[..file.len() - 1],
            &file.replace('T', "x"),
            "ü.ndjson.gz",
        ] {
            assert_eq!(Name::parse(foreign), None, "{foreign}");
        }
    }
}

#[tokio::test]
async fn lines_are_readable_once_the_log_is_closed_and_later_ones_are_counted() {
    let dir = TempDir::new().unwrap();
    let shop = Shop::files(dir.path());
    shop.oplog.note(entries("2142-11-21T10:00:00Z", 0..3));
    shop.oplog.note(vec![]);
    shop.oplog.note(entries("2142-11-21T11:00:00Z", 3..5));
    shop.close().await;
    let archived = archived(dir.path());
    assert_eq!(archived.len(), 1);
    assert!(
        archived[0].0.starts_with("dt=2142-11-21/shop-"),
        "{archived:?}"
    );
    assert_eq!(archived[0].1, [0, 1, 2, 3, 4]);
    assert_eq!(shop.written(), 5);
    assert_eq!(shop.value("odyssey_oplog_waiting_entries"), 0);
    shop.oplog.note(entries(&today(), 5..7));
    shop.close().await;
    assert_eq!(shop.lost("closed"), 2);
}

#[tokio::test]
async fn a_file_is_complete_at_its_size_and_at_the_end_of_its_day_and_the_oldest_are_removed() {
    let dir = TempDir::new().unwrap();
    let foreign = dir.path().join("dt=2020-01-01/notes.txt");
    fs::create_dir(foreign.parent().unwrap()).unwrap();
    fs::write(&foreign, "not ours").unwrap();
    let (file_max_bytes, files_max) = (1000, 3);
    let shop = Shop::open(
        dir.path(),
        &Sink::Files,
        Config {
            file_max_bytes,
            files_max,
            ..config()
        },
    );
    // A line has some 160 bytes.
    shop.oplog.note(entries("2142-11-20T12:00:00Z", 0..10));
    shop.oplog.note(entries("2142-11-21T23:59:59Z", 10..20));
    shop.oplog.note(entries("2142-11-22T00:00:00Z", 20..22));
    shop.close().await;
    fs::remove_file(foreign).unwrap();
    let archived = archived(dir.path());
    let days = archived
        .iter()
        .map(|(name, numbers)| (&name[..13], numbers.len()));
    let expected = [
        ("dt=2142-11-21", 7),
        ("dt=2142-11-21", 3),
        ("dt=2142-11-22", 2),
    ];
    assert_eq!(days.collect::<Vec<_>>(), expected);
    assert_eq!(all(&archived), (10..22).collect::<Vec<_>>());
    assert!(!dir.path().join("dt=2142-11-20").exists(), "an empty day");
}

#[tokio::test]
async fn flushed_lines_survive_a_kill_except_those_of_a_torn_flush() {
    let dir = TempDir::new().unwrap();
    let shop = Shop::files(dir.path());
    shop.oplog.note(entries(&today(), 0..1000));
    until("the lines are written", async || shop.written() == 1000).await;
    let left = as_killed(dir.path());
    let path = left.path().join(&archived(dir.path())[0].0);
    // The begin of a flush, as a kill leaves it.
    let begin = fs::read(&path).unwrap()[..100].to_vec();
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(&begin).unwrap();
    let next = Shop::files(left.path());
    next.oplog.note(entries(&today(), 1000..1001));
    next.close().await;
    assert_eq!(all(&archived(left.path())), (0..1001).collect::<Vec<_>>());
    assert_eq!(next.lost("torn"), 1);
    shop.close().await;
}

/// Replaces a directory by a file. The writer may create the directory once more while it starts.
fn block(directory: &Path) {
    while fs::write(directory, "in the way").is_err() {
        drop(fs::remove_dir_all(directory));
    }
}

#[tokio::test]
async fn a_disk_that_fails_loses_only_what_does_not_fit_into_memory() {
    let dir = TempDir::new().unwrap();
    let directory = dir.path().join("oplog");
    let waiting_max = 50;
    let shop = Shop::open(
        &directory,
        &Sink::Files,
        Config {
            waiting_max,
            ..config()
        },
    );
    block(&directory);
    shop.oplog.note(entries(&today(), 0..1));
    until("it is reported", async || shop.down().is_some()).await;
    shop.oplog.note(entries(&today(), 1..1000));
    let lost = shop.lost("queue_full");
    assert!((900..1000).contains(&lost), "{lost}");
    assert_eq!(shop.written(), 0);
    fs::remove_file(&directory).unwrap();
    until("the lines are written", async || {
        shop.written() == 1000 - lost
    })
    .await;
    assert_eq!(shop.down(), None);
    shop.oplog.note(entries(&today(), 1000..1001));
    shop.close().await;
    let kept = all(&archived(&directory));
    assert_eq!((kept.len() as u64, kept.last()), (1001 - lost, Some(&1000)));
}

#[tokio::test]
async fn a_disk_that_stays_broken_does_not_delay_the_end() {
    let dir = TempDir::new().unwrap();
    let directory = dir.path().join("oplog");
    let shop = Shop::files(&directory);
    block(&directory);
    shop.oplog.note(entries(&today(), 0..100));
    shop.close().await;
    assert_eq!(shop.lost("disk"), 100);
}

#[test]
fn lines_that_a_full_disk_refuses_are_written_once_when_there_is_room() {
    let dir = TempDir::new().unwrap();
    let name = Name::new(Timestamp::now(), "shop");
    let path = name.in_archive(dir.path());
    let mut current = Current::new(name, path.clone());
    let lines: Vec<_> = entries(&today(), 0..2).iter().map(Entry::line).collect();
    current.push(&lines[0]);
    current.save().unwrap();
    current.clear();
    current.push(&lines[1]);
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let file = current.file.replace(full);
    let error = current.save().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    current.file = file;
    current.save().unwrap();
    drop(current);
    assert_eq!(trim(&path).unwrap(), 0);
    assert_eq!(all(&archived(dir.path())), [0, 1]);
}

#[tokio::test]
async fn a_log_whose_last_handle_is_dropped_still_writes_what_is_queued() {
    let dir = TempDir::new().unwrap();
    let Shop { oplog, registry } = Shop::files(dir.path());
    oplog.note(entries(&today(), 0..1000));
    drop(oplog);
    let written = || registry.render().contains("entries_written_total 1000\n");
    until("the lines are written", async || written()).await;
    assert_eq!(all(&archived(dir.path())), (0..1000).collect::<Vec<_>>());
}

#[test]
fn a_directory_that_cannot_be_one_stops_the_start() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let metrics = Registry::new(&[]).register(Metrics::register);
    let opened = Oplog::open(file.path().to_owned(), &Sink::Files, config(), metrics);
    assert!(opened.is_err());
}
