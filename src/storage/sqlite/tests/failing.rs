//! A disk that is full, and later not: every caller gets an error, nothing stored is lost, and the database recovers by itself.

use std::sync::atomic::Ordering;

use rusqlite::ffi;

use super::*;

impl Shop {
    /// Makes the disk so small that nothing more fits. The writer's next connection sees it.
    async fn fill_the_disk(&self) {
        let pages_max = Arc::clone(&self.database.inner.file.pages_max);
        let full = write(&self.database, move |connection| {
            let pages =
                |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, u32>(0));
            let pages = pages("page_count")?;
            pages_max.store(pages, Ordering::SeqCst);
            Ok(connection.pragma_update(None, "max_page_count", pages)?)
        });
        full.await.unwrap().unwrap().unwrap();
    }

    fn enlarge_the_disk(&self) {
        self.database
            .inner
            .file
            .pages_max
            .store(1_000_000, Ordering::SeqCst);
    }
}

/// An operation that needs space.
fn add_large(database: &Database, name: &'static str) -> JoinHandle<Written<()>> {
    write(database, move |connection| {
        let sql = "INSERT INTO cups VALUES (?1, 1, randomblob(20000))";
        connection.execute(sql, [name])?;
        Ok(())
    })
}

#[tokio::test]
async fn a_full_disk_is_said_and_recovered_from() {
    let shop = Shop::open();
    add(&shop.database, "before")
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    shop.fill_the_disk().await;
    let version = shop.database.version();
    let full = add_large(&shop.database, "large").await.unwrap();
    assert_eq!(full, Err(Unavailable::Engine));
    assert!(!shop.database.is_well());
    assert_eq!(shop.metric("odyssey_storage_well"), 0);
    assert_eq!(shop.database.version(), version);
    // What is there can still be read.
    assert_eq!(shop.database.read(names).await.unwrap(), ["before"]);
    // Several probes later it is still full.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(!shop.database.is_well());
    let full = add_large(&shop.database, "large").await.unwrap();
    assert_eq!(full, Err(Unavailable::Engine));

    shop.enlarge_the_disk();
    until("the database works", async || shop.database.is_well()).await;
    assert_eq!(shop.metric("odyssey_storage_well"), 1);
    let fits = add_large(&shop.database, "large").await.unwrap();
    assert_eq!(fits, Ok(Ok(())));
    assert_eq!(shop.names(), ["before", "large"]);
    let left = Connection::open(shop.directory.path().join("cups.db")).unwrap();
    let left = left.query_row("SELECT count(*) FROM storage_probe", [], |row| {
        row.get::<_, i64>(0)
    });
    assert_eq!(left.unwrap(), 0);
}

#[tokio::test]
async fn an_engine_that_fails_takes_the_whole_batch_back() {
    let shop = Shop::open();
    shop.fill_the_disk().await;
    let held = shop.hold().await;
    let batch = [
        add(&shop.database, "small before"),
        add_large(&shop.database, "large"),
        add(&shop.database, "small after"),
        write::<()>(&shop.database, |_| Err(Abort::Refused("no"))),
    ];
    shop.waiting(4).await;
    held.release().await;
    for one in batch {
        assert_eq!(one.await.unwrap(), Err(Unavailable::Engine));
    }
    assert!(!shop.database.is_well());
    assert_eq!(shop.names(), [""; 0]);
}

/// An engine failure as `rusqlite` returns it.
fn failure(code: i32) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
}

const FAILURES: [i32; 7] = [
    ffi::SQLITE_FULL,
    ffi::SQLITE_IOERR_FSYNC,
    ffi::SQLITE_CORRUPT,
    ffi::SQLITE_NOTADB,
    ffi::SQLITE_READONLY_DBMOVED,
    ffi::SQLITE_CANTOPEN,
    ffi::SQLITE_NOMEM,
];

#[tokio::test]
async fn every_failure_of_the_engine_takes_the_batch_back() {
    let shop = Shop::open();
    for code in FAILURES {
        let held = shop.hold().await;
        let neighbour = add(&shop.database, "neighbour");
        let failing = write::<()>(&shop.database, move |_| Err(failure(code).into()));
        shop.waiting(2).await;
        held.release().await;
        assert_eq!(neighbour.await.unwrap(), Err(Unavailable::Engine), "{code}");
        assert_eq!(failing.await.unwrap(), Err(Unavailable::Engine), "{code}");
        assert!(!shop.database.is_well());
        assert_eq!(shop.names(), [""; 0]);
        let next = add(&shop.database, "next").await.unwrap();
        assert_eq!(next, Ok(Ok(())), "{code}");
        assert!(shop.database.is_well());
        let tidied = write(&shop.database, |connection| {
            Ok(connection.execute("DELETE FROM cups", [])?)
        });
        assert_eq!(tidied.await.unwrap(), Ok(Ok(1)));
    }
}

#[tokio::test]
async fn a_reader_that_fails_opens_the_file_again() {
    let shop = Shop::with(|settings| settings.readers = 1);
    add(&shop.database, "kept").await.unwrap().unwrap().unwrap();
    for code in FAILURES {
        let failed = shop.database.read::<(), _>(move |connection| {
            // It is lost with this connection.
            connection.pragma_update(None, "cache_size", 1234)?;
            Err(failure(code))
        });
        assert_eq!(failed.await, Err(Unavailable::Engine), "{code}");
        let mark = shop.database.read(|connection| {
            connection.pragma_query_value(None, "cache_size", |row| row.get::<_, i64>(0))
        });
        assert_ne!(mark.await.unwrap(), 1234);
        assert_eq!(shop.database.read(names).await.unwrap(), ["kept"]);
    }
}

#[tokio::test]
async fn whatever_is_kept_meanwhile_ends_the_failure() {
    let shop = Shop::open();
    shop.fill_the_disk().await;
    let full = add_large(&shop.database, "large").await.unwrap();
    assert_eq!(full, Err(Unavailable::Engine));
    // A read commits nothing, and so proves nothing.
    let looked = write(&shop.database, |connection| Ok(names(connection)?));
    assert_eq!(looked.await.unwrap(), Ok(Ok(vec![])));
    assert!(!shop.database.is_well());
    // This one fits into a free page.
    add(&shop.database, "small")
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(shop.database.is_well());
}

#[tokio::test]
async fn a_commit_that_fails_fails_for_all() {
    const WITH_LIDS: &[&str] = &[
        SCHEMA[0],
        "CREATE TABLE lids (cup TEXT REFERENCES cups (name) DEFERRABLE INITIALLY DEFERRED)",
    ];
    let shop = Shop::with(|settings| settings.migrations = WITH_LIDS);
    let held = shop.hold().await;
    let innocent = add(&shop.database, "innocent");
    let deferred = write(&shop.database, |connection| {
        connection.execute("INSERT INTO lids VALUES ('nobody''s')", [])?;
        Ok(())
    });
    shop.waiting(2).await;
    held.release().await;
    assert_eq!(innocent.await.unwrap(), Err(Unavailable::Engine));
    assert_eq!(deferred.await.unwrap(), Err(Unavailable::Engine));
    assert_eq!(shop.names(), [""; 0]);
    add(&shop.database, "after")
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(shop.database.is_well());
}

/// Another process's lock is waited for up to the timeout; then the engine counts as down, until the lock is gone.
#[tokio::test]
async fn a_file_that_somebody_locks_is_said_and_recovered_from() {
    let shop = Shop::open();
    let tool = Connection::open(shop.directory.path().join("cups.db")).unwrap();
    tool.execute_batch("BEGIN IMMEDIATE").unwrap();
    let locked = add(&shop.database, "locked").await.unwrap();
    assert_eq!(locked, Err(Unavailable::Engine));
    assert!(!shop.database.is_well());
    tool.execute_batch("ROLLBACK").unwrap();
    until("the database works", async || shop.database.is_well()).await;
    assert_eq!(shop.names(), [""; 0]);
}

/// A vanished file is not silently replaced by an empty one.
#[tokio::test]
async fn a_file_that_vanished_is_not_made_anew() {
    let shop = Shop::open();
    add(&shop.database, "kept").await.unwrap().unwrap().unwrap();
    shop.fill_the_disk().await;
    let path = shop.directory.path().join("cups.db");
    let aside = shop.directory.path().join("aside.db");
    std::fs::rename(&path, &aside).unwrap();
    let full = add_large(&shop.database, "large").await.unwrap();
    assert_eq!(full, Err(Unavailable::Engine));
    shop.enlarge_the_disk();
    let missing = add(&shop.database, "missing").await.unwrap();
    assert_eq!(missing, Err(Unavailable::Engine));
    assert!(!path.exists());
    std::fs::rename(&aside, &path).unwrap();
    until("the database works", async || shop.database.is_well()).await;
    assert_eq!(shop.names(), ["kept"]);
}
