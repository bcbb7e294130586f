use tempfile::TempDir;

use super::super::error::Unavailable;
use super::super::model::PackageType;
use super::super::store::contract;
use super::*;
use crate::storage::sqlite::{Metrics, Settings};
use crate::telemetry::Registry;

const FILE: &str = "packages.db";

fn open(directory: &TempDir, types: &[&str], remember: Option<Duration>) -> Sqlite {
    let settings = Settings {
        path: directory.path().join(FILE),
        migrations: MIGRATIONS,
        queue_max: 1000,
        batch_max: 64,
        readers: 1,
    };
    let registry = Registry::new(&[]).unwrap();
    let metrics = registry.register(|| Metrics::register(&settings.path));
    let types: Vec<_> = types.iter().map(|&name| name.to_owned()).collect();
    let types = Arc::new(Types::new(&types, &[]).unwrap());
    Sqlite::new(Database::open(settings, metrics).unwrap(), types, remember)
}

const USUAL: [&str; 2] = ["personal", "marketing"];

contract::suite!(|| {
    let directory = tempfile::tempdir().unwrap();
    (open(&directory, &USUAL, None), directory)
});

async fn send(store: &Sqlite, name: &str, package_type: usize) -> Sent {
    let package = contract::package(name, PackageType(package_type));
    store.send(package).await.unwrap()
}

#[tokio::test]
async fn a_restart_with_other_types_forgets_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let before = open(&directory, &USUAL, None);
    let first = send(&before, "m", 1).await;
    before.database.close().await;
    // Another order, one more, and marketing is gone.
    let after = open(&directory, &["newsletter", "personal"], None);
    let found = after.package(contract::id("m")).await.unwrap();
    assert_eq!(found, Some(first.processed));
    send(&after, "n", 0).await;
    let statistics = after.statistics().await.unwrap();
    let names: Vec<_> = statistics.by_type.keys().map(String::as_str).collect();
    assert_eq!(names, ["marketing", "newsletter"]);
}

#[tokio::test]
async fn what_is_old_is_forgotten_and_still_counted() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, &USUAL, Some(Duration::from_nanos(1)));
    for name in ["a", "b", "c"] {
        assert!(!send(&store, name, 0).await.duplicate);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(store.package(contract::id("a")).await.unwrap(), None);
    assert!(!send(&store, "a", 0).await.duplicate);
    assert_eq!(store.statistics().await.unwrap().total().delivered, 4);
    let audit = audit(&directory.path().join(FILE)).unwrap();
    assert!(audit.agrees(), "{audit}");
    assert!(audit.lines[0].forgotten >= 2, "{audit}");
    // What is remembered for long is not forgotten.
    store.database.close().await;
    let store = open(&directory, &USUAL, Some(Duration::from_hours(1)));
    send(&store, "d", 0).await;
    assert!(send(&store, "d", 0).await.duplicate);
}

#[tokio::test]
async fn the_audit_agrees_until_somebody_meddles() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE);
    let store = open(&directory, &USUAL, None);
    send(&store, "a", 0).await;
    send(&store, "b", 1).await;
    // While the store is open.
    assert!(audit(&path).unwrap().agrees());
    store.database.close().await;
    assert!(audit(&path).unwrap().agrees());
    let meddler = Connection::open(&path).unwrap();
    meddler
        .execute("DELETE FROM packages WHERE id = 'a'", [])
        .unwrap();
    assert!(!audit(&path).unwrap().agrees());
    assert!(audit(&directory.path().join("other.db")).is_err());
}

#[tokio::test]
async fn a_package_takes_little_space() {
    const PACKAGES: u32 = 20_000;
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, &USUAL, None);
    let ids = (0..PACKAGES).map(|n| format!("01a1fe14-e004-7211-aca8-{n:012x}"));
    let sent: Vec<_> = ids
        .map(|name| {
            let store = store.clone();
            tokio::spawn(async move {
                loop {
                    let package = contract::package(&name, PackageType(0));
                    match store.send(package).await {
                        Err(Unavailable::Busy) => tokio::task::yield_now().await,
                        sent => break sent.unwrap(),
                    }
                }
            })
        })
        .collect();
    for sent in sent {
        sent.await.unwrap();
    }
    store.database.close().await;
    let bytes = std::fs::metadata(directory.path().join(FILE))
        .unwrap()
        .len();
    let each = bytes / u64::from(PACKAGES);
    assert!(each < 120, "{each} bytes each");
}
