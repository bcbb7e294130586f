use super::*;

/// A closed database with a few hundred pages.
async fn closed() -> TempDir {
    let shop = Shop::open();
    let filled = write(&shop.database, |connection| {
        for i in 0..300 {
            let cup = (format!("{i:03}"), vec![7u8; 2000]);
            connection.execute("INSERT INTO cups VALUES (?1, 1, ?2)", cup)?;
        }
        Ok(())
    });
    filled.await.unwrap().unwrap().unwrap();
    shop.database.close().await;
    shop.directory
}

fn pragma(path: &Path, name: &str) -> i64 {
    let connection = Connection::open(path).unwrap();
    connection
        .pragma_query_value(None, name, |row| row.get(0))
        .unwrap()
}

/// Why opening is refused.
fn refusal(directory: &Path) -> String {
    reopen(settings(directory)).unwrap_err().to_string()
}

#[tokio::test]
async fn a_fresh_file_gets_everything_at_once() {
    let shop = Shop::open();
    let path = shop.directory.path().join("cups.db");
    assert_eq!(pragma(&path, "user_version"), 1);
    assert_eq!(pragma(&path, "application_id"), 0x4F44_5974);
    // 2: incremental.
    assert_eq!(pragma(&path, "auto_vacuum"), 2);
    let settings = write(&shop.database, |connection| {
        let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        Ok((
            number("synchronous")?,
            number("foreign_keys")?,
            number("journal_size_limit")?,
        ))
    });
    assert_eq!(settings.await.unwrap(), Ok(Ok((2, 1, 8 << 20))));
    let mode = shop.database.read(|connection| {
        connection.pragma_query_value(None, "journal_mode", |row| row.get::<_, String>(0))
    });
    assert_eq!(mode.await.unwrap(), "wal");
}

#[tokio::test]
async fn an_empty_file_is_fresh_and_so_is_one_that_got_no_further() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cups.db");
    std::fs::write(&path, "").unwrap();
    reopen(settings(directory.path())).unwrap().close().await;
    assert_eq!(pragma(&path, "user_version"), 1);
    std::fs::remove_file(directory.path().join("cups.db-sums")).unwrap();
    std::fs::remove_file(&path).unwrap();
    let connection = Connection::open(&path).unwrap();
    connection
        .pragma_update(None, "journal_mode", "WAL")
        .unwrap();
    drop(connection);
    assert!(path.metadata().unwrap().len() > 0);
    reopen(settings(directory.path())).unwrap().close().await;
    assert_eq!(pragma(&path, "user_version"), 1);
}

#[tokio::test]
async fn migrations_are_applied_once_each_and_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cups.db");
    let with = |migrations| Settings {
        migrations,
        ..settings(directory.path())
    };
    let two: &[&str] = &[
        "CREATE TABLE a (x INTEGER); INSERT INTO a VALUES (1)",
        "INSERT INTO a SELECT x + 1 FROM a; CREATE TABLE b (x INTEGER)",
    ];
    reopen(with(&two[..1])).unwrap().close().await;
    assert_eq!(pragma(&path, "user_version"), 1);
    for _ in 0..3 {
        reopen(with(two)).unwrap().close().await;
        assert_eq!(pragma(&path, "user_version"), 2);
    }
    let connection = Connection::open(&path).unwrap();
    let sum = connection.query_row("SELECT sum(x) FROM a", [], |row| row.get::<_, i64>(0));
    assert_eq!(sum.unwrap(), 3);
    drop(connection);

    let newer = reopen(with(&two[..1])).unwrap_err();
    assert_eq!(
        newer.to_string(),
        format!(
            "`{}` was written by a newer version of odyssey (schema 2, this program knows 1)",
            path.display()
        )
    );
}

#[tokio::test]
async fn a_migration_that_breaks_leaves_the_file_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cups.db");
    let with = |migrations| Settings {
        migrations,
        ..settings(directory.path())
    };
    reopen(with(&["CREATE TABLE a (x)"])).unwrap().close().await;
    let breaks: &[&[&str]] = &[
        &["", "CREATE TABLE b (x)", "CREATE TABLE b (x)"],
        // Foreign keys are checked last.
        &[
            "",
            "CREATE TABLE b (x REFERENCES a (x)); INSERT INTO b VALUES (1); CREATE UNIQUE INDEX c ON a (x)",
        ],
    ];
    for migrations in breaks {
        let said = reopen(with(migrations)).unwrap_err().to_string();
        let start = format!("cannot migrate `{}` from schema 1 to ", path.display());
        assert!(said.starts_with(&start), "{said}");
        assert_eq!(pragma(&path, "user_version"), 1);
        let connection = Connection::open(&path).unwrap();
        assert!(connection.prepare("SELECT * FROM b").is_err());
    }
}

#[tokio::test]
async fn rebuilding_a_table_keeps_what_refers_to_it() {
    let directory = tempfile::tempdir().unwrap();
    let with = |migrations| Settings {
        migrations,
        ..settings(directory.path())
    };
    let steps: &[&str] = &[
        "CREATE TABLE a (id INTEGER PRIMARY KEY);
         CREATE TABLE b (a INTEGER REFERENCES a (id) ON DELETE CASCADE);
         INSERT INTO a VALUES (1); INSERT INTO b VALUES (1)",
        "CREATE TABLE new (id INTEGER PRIMARY KEY, size INTEGER);
         INSERT INTO new SELECT id, 0 FROM a; DROP TABLE a; ALTER TABLE new RENAME TO a",
    ];
    reopen(with(&steps[..1])).unwrap().close().await;
    let database = reopen(with(steps)).unwrap();
    let count = database.read(|connection| {
        connection.query_row("SELECT count(*) FROM b", [], |row| row.get::<_, i64>(0))
    });
    assert_eq!(count.await, Ok(1));
    let deleted = write(&database, |connection| {
        connection.execute("DELETE FROM a", [])?;
        Ok(connection.query_row("SELECT count(*) FROM b", [], |row| row.get::<_, i64>(0))?)
    });
    assert_eq!(
        deleted.await.unwrap(),
        Ok(Ok(0)),
        "foreign keys are on again"
    );
}

#[tokio::test]
async fn another_programs_file_is_refused_and_not_touched() {
    for (application, version, table) in
        [(0, 0, true), (0, 3, false), (77, 0, false), (77, 3, true)]
    {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cups.db");
        let connection = Connection::open(&path).unwrap();
        connection
            .pragma_update(None, "application_id", application)
            .unwrap();
        connection
            .pragma_update(None, "user_version", version)
            .unwrap();
        if table {
            connection.execute_batch("CREATE TABLE theirs (x)").unwrap();
        }
        drop(connection);
        let before = std::fs::read(&path).unwrap();
        let said = refusal(directory.path());
        assert!(
            said.contains("is another program's or another desk's database"),
            "{said}"
        );
        assert!(said.contains("cups.db"), "{said}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}

#[tokio::test]
async fn what_is_no_database_is_refused_and_not_touched() {
    for contents in [&b"a shopping list"[..], &[0; 5000], &[0xff; 9000], b"\n"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cups.db");
        std::fs::write(&path, contents).unwrap();
        let said = refusal(directory.path());
        assert_eq!(
            said,
            format!(
                "`{}` is not a database: move it aside, or restore a backup",
                path.display()
            )
        );
        assert_eq!(std::fs::read(&path).unwrap(), contents);
    }
}

#[tokio::test]
async fn a_file_that_was_cut_off_is_refused_wherever_it_was() {
    let whole = closed().await;
    let whole = std::fs::read(whole.path().join("cups.db")).unwrap();
    assert_eq!(whole.len() % 4096, 0);
    let pages = whole.len() / 4096;
    assert!(pages > 100);
    let mut random = fastrand::Rng::with_seed(7);
    let by_page = (1..pages).map(|page| page * 4096);
    let within = (1..pages).map(|page| page * 4096 + random.usize(1..4096));
    let lengths = by_page.chain([1, 4095, 4097, whole.len() - 1]);
    for length in lengths.chain(within.step_by(7)) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cups.db");
        std::fs::write(&path, &whole[..length]).unwrap();
        let said = refusal(directory.path());
        assert!(
            said.starts_with(&format!("`{}` is", path.display())),
            "{said}"
        );
        assert!(said.contains("restore a backup"), "{length}: {said}");
    }
}

/// The engine would discard the WAL.
#[tokio::test]
async fn a_log_without_its_file_is_not_thrown_away() {
    let shop = Shop::open();
    add(&shop.database, "kept").await.unwrap().unwrap().unwrap();
    let log = std::fs::read(shop.directory.path().join("cups.db-wal")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("cups.db-wal"), &log).unwrap();
    for _ in 0..2 {
        let said = refusal(directory.path());
        assert!(
            said.contains("cups.db` is damaged (empty or missing"),
            "{said}"
        );
        let left = std::fs::read(directory.path().join("cups.db-wal")).unwrap();
        assert_eq!(left, log);
        std::fs::write(directory.path().join("cups.db"), "").unwrap();
    }
}

/// With a WAL that would hide the damage if it were checkpointed.
#[tokio::test]
async fn a_page_that_was_written_over_is_refused_and_everything_left_as_it_was() {
    let directory = closed().await;
    let path = directory.path().join("cups.db");
    let database = reopen(settings(directory.path())).unwrap();
    add(&database, "in the log")
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let mut contents = std::fs::read(&path).unwrap();
    let log = std::fs::read(directory.path().join("cups.db-wal")).unwrap();
    database.close().await;
    let page = contents.len() / 4096 / 2 * 4096;
    contents[page..page + 4096].fill(0xAA);
    std::fs::write(&path, &contents).unwrap();
    std::fs::write(directory.path().join("cups.db-wal"), &log).unwrap();
    for _ in 0..2 {
        let said = refusal(directory.path());
        assert!(said.contains("cups.db` is damaged ("), "{said}");
        assert!(std::fs::read(&path).unwrap() == contents);
        assert!(std::fs::read(directory.path().join("cups.db-wal")).unwrap() == log);
    }
}

#[tokio::test]
async fn a_missing_directory_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let said = refusal(&directory.path().join("nowhere"));
    assert!(said.starts_with("cannot open `"), "{said}");
}

/// After a crash the WAL may end anywhere.
#[tokio::test]
async fn a_torn_log_has_the_beginning_of_what_was_written() {
    let shop = Shop::open();
    for i in 0..60 {
        let name = format!("{i:03}");
        add(&shop.database, name).await.unwrap().unwrap().unwrap();
    }
    let file = std::fs::read(shop.directory.path().join("cups.db")).unwrap();
    let log = std::fs::read(shop.directory.path().join("cups.db-wal")).unwrap();
    let expected = shop.names();
    let mut random = fastrand::Rng::with_seed(11);
    let mut most = 0;
    let lengths: Vec<usize> = (0..60).map(|_| random.usize(..log.len())).collect();
    for length in lengths.into_iter().chain([0, 10, log.len()]) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("cups.db"), &file).unwrap();
        let mut torn = log[..length].to_vec();
        // The last bytes may exist without being what was written.
        let noise = length.saturating_sub(random.usize(..32));
        if length < log.len() {
            torn[noise..].fill_with(|| random.u8(..));
        }
        std::fs::write(directory.path().join("cups.db-wal"), torn).unwrap();
        // Before the schema existed, there is nothing.
        let database = reopen(settings(directory.path())).unwrap();
        let found = database.read(names).await.unwrap();
        assert_eq!(found, expected[..found.len()], "{length}");
        most = most.max(found.len());
        let next = add(&database, "next").await.unwrap();
        assert_eq!(next, Ok(Ok(())));
        database.close().await;
    }
    assert_eq!(most, 60);
}
