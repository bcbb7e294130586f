use tempfile::TempDir;

use super::super::error::Unavailable;
use super::super::model::PackageType;
use super::super::store::contract;
use super::*;

const FILE: &str = Database::TEST_FILE;

fn open(directory: &TempDir, types: &[&str], remember: Option<Duration>) -> Sqlite {
    let types: Vec<_> = types.iter().map(|&name| name.to_owned()).collect();
    let types = Arc::new(Types::new(&types, &[]).unwrap());
    Sqlite::new(
        Database::of_test(directory, APPLICATION, MIGRATIONS),
        types,
        remember,
    )
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
    // Another order, one more type, and marketing is gone.
    let after = open(&directory, &["newsletter", "personal"], None);
    let found = after.package(contract::id("m")).await.unwrap();
    assert_eq!(found, Some(first.processed));
    send(&after, "n", 0).await;
    let statistics = after.statistics().await.unwrap();
    let names: Vec<_> = statistics.by_type.keys().map(String::as_str).collect();
    assert_eq!(names, ["marketing", "newsletter"]);
}

#[tokio::test]
async fn what_was_stored_before_ids_were_normalized_is_found_in_either_form() {
    let directory = tempfile::tempdir().unwrap();
    let before = Database::of_test(&directory, APPLICATION, &MIGRATIONS[..1]);
    let rows = "
        INSERT INTO types VALUES (1, 'personal'), (2, 'marketing');
        INSERT INTO packages VALUES ('p-e\u{301}', 2, 7, NULL), ('q', 2, 7, NULL), ('\u{e9}', 2, 7, NULL),
            ('e\u{301}', 2, 8, NULL);
        INSERT INTO ages VALUES (1, 0, 'p-e\u{301}'), (2, 0, 'e\u{301}');
        INSERT INTO counts VALUES (2, 4, 0);
        INSERT INTO preferences VALUES ('Zo\u{eb}', 1, 5, 1), ('Zoe\u{308}', 1, 6, 0), ('Zoe\u{308}', 2, 6, 0),
            ('\u{e9}', 1, 5, 0), ('e\u{301}', 1, 5, 1), ('ada', 1, 5, 0);
    ";
    before
        .commit(|connection| connection.execute_batch(rows))
        .await
        .unwrap();
    before.close().await;
    let store = open(&directory, &USUAL, None);
    for id in ["p-\u{e9}", "q", "\u{e9}"] {
        assert!(
            store.package(contract::id(id)).await.unwrap().is_some(),
            "{id}"
        );
    }
    let takes = async |id: &str, package_type: usize| {
        let preferences = store.preferences(contract::id(id)).await.unwrap();
        preferences
            .get(&PackageType(package_type))
            .map(|preference| preference.takes)
    };
    assert_eq!(
        takes("Zo\u{eb}", 0).await,
        Some(false),
        "the later preference"
    );
    assert_eq!(takes("Zo\u{eb}", 1).await, Some(false));
    assert_eq!(
        takes("\u{e9}", 0).await,
        Some(false),
        "the refusal of two at the same time"
    );
    assert_eq!(takes("ada", 0).await, Some(false));
    let ages = store.database.read(|connection| {
        let mut ages = connection.prepare("SELECT id FROM ages ORDER BY place")?;
        ages.query_map([], |row| row.get::<_, String>(0))?
            .collect::<Result<Vec<_>, _>>()
    });
    // The row that keeps its old id expires under it.
    assert_eq!(ages.await.unwrap(), ["p-\u{e9}", "e\u{301}"]);
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
    // Within `remember` nothing expires.
    store.database.close().await;
    let store = open(&directory, &USUAL, Some(Duration::from_hours(1)));
    send(&store, "d", 0).await;
    assert!(send(&store, "d", 0).await.duplicate);
}

/// Ages follow the storage's clock, which continues where it ended: with a wall clock that is two hours ahead of it, a package
/// that is remembered for one hour is still a duplicate.
#[tokio::test]
async fn a_wall_clock_that_is_two_hours_ahead_forgets_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let hour = Some(Duration::from_hours(1));
    let store = open(&directory, &USUAL, hour);
    send(&store, "a", 0).await;
    store.database.close().await;
    let path = directory.path().join(FILE);
    // Changed on purpose: so without its checksums.
    std::fs::remove_file(directory.path().join(FILE.to_owned() + "-sums")).unwrap();
    let meddler = Connection::open(&path).unwrap();
    let two_hours = Duration::from_hours(2).as_micros();
    meddler
        .execute_batch(&format!(
            "UPDATE ages SET processed_at = processed_at - {two_hours};
             UPDATE storage_clock SET time = time - {two_hours};"
        ))
        .unwrap();
    drop(meddler);
    let store = open(&directory, &USUAL, hour);
    let behind = Timestamp::now().duration_since(store.database.clock().now());
    assert!(behind > SignedDuration::from_mins(119), "{behind:?}");
    for name in ["b", "c"] {
        send(&store, name, 0).await;
    }
    assert!(send(&store, "a", 0).await.duplicate);
    assert_eq!(store.statistics().await.unwrap().total().delivered, 3);
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
