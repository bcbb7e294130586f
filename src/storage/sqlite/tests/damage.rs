//! Damage is detected: a flipped bit, a file that is truncated, swapped, removed or restored from before. What opens all the
//! same has everything that was acknowledged.

use std::fs;

use super::check::{Offline, Verdict};
use super::*;

/// Flipped bits per test; `make soak` sets more.
fn flips() -> u64 {
    let flips = std::env::var("SOAK_FLIPS").ok();
    flips.map_or(20, |flips| flips.parse().unwrap())
}

/// The files of a database whose process was killed: some pages in the file, some in the log, some in both.
fn killed(rows: u32) -> (TempDir, Vec<String>) {
    let shop = Shop::open();
    for i in 0..rows {
        shop.put(&format!("{i:04}"), 700);
    }
    // The WAL is reset after this.
    shop.checkpoint();
    for i in 0..rows / 10 {
        shop.put(&format!("later {i:04}"), 700);
    }
    let copy = copied(shop.directory.path());
    (copy, shop.names())
}

impl Shop {
    fn put(&self, name: &str, size: usize) {
        let row = (name.to_owned(), vec![7_u8; size]);
        futures_ready(self.database.commit(move |connection| {
            let mut insert =
                connection.prepare_cached("INSERT OR REPLACE INTO cups VALUES (?1, 1, ?2)")?;
            insert.execute((&row.0, &row.1))
        }));
    }

    fn checkpoint(&self) {
        let integrity = self.database.inner.integrity.upgrade().unwrap();
        let connection = self.database.inner.file.writer().unwrap();
        let mut integrity = integrity::lock(&integrity);
        let all = integrity
            .checkpoint(&connection, integrity::Mode::Full)
            .unwrap();
        assert!(all);
    }
}

/// Blocks this thread; the database's own threads make the progress.
fn futures_ready<T>(kept: impl Future<Output = Result<T, Unavailable>>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(kept).unwrap()
}

fn copied(from: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if !path.to_string_lossy().ends_with("-shm") {
            fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    copy
}

/// The rows after opening, or why it failed.
fn opened(directory: &Path) -> Result<Vec<String>, String> {
    let database = reopen(settings(directory)).map_err(|error| error.to_string())?;
    let found = futures_ready(database.read(names));
    futures_ready(async {
        database.close().await;
        Ok(())
    });
    Ok(found)
}

fn offline(directory: &Path) -> Verdict {
    let target = Offline {
        path: directory.join("cups.db"),
        application: application(b't'),
        invariants: &[],
    };
    target.check().verdict()
}

fn flip(path: &Path, bit: u64) {
    let mut bytes = fs::read(path).unwrap();
    let at = usize::try_from(bit / 8).unwrap();
    bytes[at] ^= 1 << (bit % 8);
    fs::write(path, bytes).unwrap();
}

/// As a disk does it, while the file is open: it is not closed again, or the engine would lose its locks.
fn flip_in_place(path: &Path, bit: u64) {
    use std::os::unix::fs::FileExt;
    let file = fs::OpenOptions::new().read(true).write(true).open(path);
    let file = std::mem::ManuallyDrop::new(file.unwrap());
    let mut byte = [0];
    file.read_exact_at(&mut byte, bit / 8).unwrap();
    file.write_all_at(&[byte[0] ^ 1], bit / 8).unwrap();
}

#[test]
fn what_was_killed_is_whole_and_goes_on() {
    let (directory, expected) = killed(300);
    assert_eq!(offline(directory.path()), Verdict::Good);
    assert_eq!(opened(directory.path()), Ok(expected.clone()));
    // It was closed: there is no WAL.
    assert!(!directory.path().join("cups.db-wal").exists());
    assert_eq!(offline(directory.path()), Verdict::Good);
    assert_eq!(opened(directory.path()), Ok(expected));
}

#[test]
fn a_flipped_bit_loses_nothing_in_silence() {
    let (whole, expected) = killed(300);
    let mut random = fastrand::Rng::with_seed(14);
    let (mut refused, mut harmless) = (0, 0);
    for name in ["cups.db", "cups.db-wal", "cups.db-sums"] {
        for _ in 0..flips() {
            let directory = copied(whole.path());
            let path = directory.path().join(name);
            let bit = random.u64(0..8 * path.metadata().unwrap().len());
            flip(&path, bit);
            let verdict = offline(directory.path());
            match opened(directory.path()) {
                Ok(found) => {
                    assert_eq!(found, expected, "{name}: bit {bit}");
                    assert_ne!(verdict, Verdict::Damaged, "{name}: bit {bit}");
                    harmless += 1;
                }
                Err(said) => {
                    assert!(said.contains("cups.db` is"), "{said}");
                    assert_eq!(verdict, Verdict::Damaged, "{name}: bit {bit}: {said}");
                    refused += 1;
                }
            }
        }
    }
    // Pages that are in the WAL, frames behind the last commit and the space between head and sums do not matter.
    assert!(
        refused > flips() / 2,
        "{refused} refused, {harmless} harmless"
    );
}

#[test]
fn a_log_that_was_cut_taken_away_or_exchanged_is_refused() {
    let (whole, expected) = killed(300);
    let (other, _) = killed(20);
    let log = fs::read(whole.path().join("cups.db-wal")).unwrap();
    let frame = 4096 + 24;
    let cases: [(&str, Option<Vec<u8>>); 6] = [
        ("taken away", None),
        ("empty", Some(Vec::new())),
        ("cut", Some(log[..32 + 20 * frame].to_vec())),
        ("cut within a frame", Some(log[..20 * frame].to_vec())),
        ("only its beginning", Some(log[..32 + 2 * frame].to_vec())),
        (
            "another one",
            Some(fs::read(other.path().join("cups.db-wal")).unwrap()),
        ),
    ];
    for (case, contents) in cases {
        let directory = copied(whole.path());
        let path = directory.path().join("cups.db-wal");
        fs::remove_file(&path).unwrap();
        if let Some(contents) = &contents {
            fs::write(&path, contents).unwrap();
        }
        let said = opened(directory.path()).unwrap_err();
        assert!(said.contains("`-wal` file"), "{case}: {said}");
        assert_eq!(offline(directory.path()), Verdict::Damaged, "{case}");
        // Put back unchanged, it is valid.
        fs::write(&path, &log).unwrap();
        assert_eq!(opened(directory.path()), Ok(expected.clone()), "{case}");
    }
    // A WAL that appears next to a file that was closed.
    let directory = copied(whole.path());
    opened(directory.path()).unwrap();
    fs::write(directory.path().join("cups.db-wal"), &log).unwrap();
    let said = opened(directory.path()).unwrap_err();
    assert!(said.contains("closed without a WAL"), "{said}");
}

#[test]
fn a_file_that_was_cut_or_put_back_from_before_is_refused() {
    let (whole, expected) = killed(300);
    let before = killed(100).0;
    let file = fs::read(whole.path().join("cups.db")).unwrap();
    for length in [0, 1, 4095, 4096, file.len() / 2, file.len() - 4096] {
        let directory = copied(whole.path());
        fs::write(directory.path().join("cups.db"), &file[..length]).unwrap();
        match opened(directory.path()) {
            // The WAL has what was truncated.
            Ok(found) => assert_eq!(found, expected, "{length}"),
            Err(said) => assert!(said.contains("cups.db` is"), "{length}: {said}"),
        }
    }
    for name in ["cups.db", "cups.db-sums"] {
        let directory = copied(whole.path());
        let older = before.path().join(name);
        fs::copy(older, directory.path().join(name)).unwrap();
        let said = opened(directory.path()).unwrap_err();
        assert!(said.contains("cups.db` is damaged"), "{name}: {said}");
    }
    assert_eq!(opened(whole.path()), Ok(expected));
}

#[test]
fn another_desks_file_is_refused_with_its_checksums_or_without() {
    let (whole, _) = killed(20);
    let other = |directory: &Path| {
        let settings = Settings {
            application: application(b'u'),
            ..settings(directory)
        };
        reopen(settings).unwrap_err().to_string()
    };
    for name in ["none", "cups.db-sums", "cups.db-wal"] {
        let directory = copied(whole.path());
        let _ = fs::remove_file(directory.path().join(name));
        let said = other(directory.path());
        assert!(said.contains("another desk's database"), "{name}: {said}");
    }
}

#[test]
fn a_file_without_checksums_is_checked_by_the_engine_and_gets_them() {
    let (directory, expected) = killed(100);
    let sums = directory.path().join("cups.db-sums");
    fs::remove_file(&sums).unwrap();
    assert_eq!(offline(directory.path()), Verdict::Unchecked);
    assert_eq!(opened(directory.path()), Ok(expected.clone()));
    assert!(sums.exists());
    assert_eq!(offline(directory.path()), Verdict::Good);
    assert_eq!(opened(directory.path()), Ok(expected));
}

/// An operator's tool that writes and checkpoints while the database is open: no false alarm afterwards.
#[test]
fn what_another_program_writes_meanwhile_is_no_damage() {
    let shop = Shop::open();
    shop.put("before", 5000);
    shop.checkpoint();
    let tool = Connection::open(shop.directory.path().join("cups.db")).unwrap();
    for name in ["tool 1", "tool 2", "tool 3"] {
        insert(&tool, name).unwrap();
        let copied = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
        let busy = tool.query_row("PRAGMA wal_checkpoint(RESTART)", [], copied);
        assert_eq!(busy, Ok(0));
    }
    drop(tool);
    shop.put("after", 100);
    shop.checkpoint();
    shop.put("in the log", 100);
    let expected = shop.names();
    assert_eq!(expected.len(), 6);
    assert_eq!(shop.database.check().verdict(), Verdict::Good);
    let copy = copied(shop.directory.path());
    assert_eq!(opened(copy.path()), Ok(expected));
}

/// A process that ends at any moment leaves files that can be opened: the WAL checkpointed in part, the checksums written in
/// part, the WAL reset.
#[test]
fn files_as_they_were_at_any_moment_are_whole() {
    let shop = Shop::open();
    let mut random = fastrand::Rng::with_seed(3);
    for round in 0..40 {
        let before = copied(shop.directory.path());
        let size = random.usize(100..9000);
        shop.put(&format!("{round:04}"), size);
        let names = shop.names();
        let after = copied(shop.directory.path());
        assert_eq!(opened(after.path()), Ok(names.clone()), "{round}");
        // Committed, and the head not written yet.
        let after = copied(shop.directory.path());
        let sums = "cups.db-sums";
        fs::copy(before.path().join(sums), after.path().join(sums)).unwrap();
        assert_eq!(opened(after.path()), Ok(names.clone()), "{round}: noted");
        if random.u8(..3) > 0 {
            continue;
        }
        let logged = copied(shop.directory.path());
        shop.checkpoint();
        // Checkpointed, and the checksums not written yet, or some of them.
        let after = copied(shop.directory.path());
        let old = fs::read(logged.path().join(sums)).unwrap();
        fs::write(after.path().join(sums), &old).unwrap();
        assert_eq!(opened(after.path()), Ok(names.clone()), "{round}: copied");
        let after = copied(shop.directory.path());
        let mut partly = fs::read(after.path().join(sums)).unwrap();
        let kept = random.usize(512..=partly.len()).min(old.len());
        partly[..kept].copy_from_slice(&old[..kept]);
        fs::write(after.path().join(sums), &partly).unwrap();
        assert_eq!(opened(after.path()), Ok(names), "{round}: partly");
    }
}

#[tokio::test]
async fn a_running_database_finds_a_flipped_bit_and_turns_everybody_away() {
    let shop = Shop::open();
    for i in 0..50 {
        let row = (i.to_string(), vec![7_u8; 3000]);
        let put = shop.database.commit(move |connection| {
            connection.execute("INSERT INTO cups VALUES (?1, 1, ?2)", (&row.0, &row.1))
        });
        put.await.unwrap();
    }
    shop.checkpoint();
    assert_eq!(shop.database.check().verdict(), Verdict::Good);
    assert_eq!(shop.metric("odyssey_storage_sound"), 1);
    let path = shop.directory.path().join("cups.db");
    let bit = 8 * (path.metadata().unwrap().len() - 1000);
    let flip_in_place = || flip_in_place(&path, bit);
    flip_in_place();
    let warmed = shop.database.version();
    let report = shop.database.check();
    // No cached response is used any more.
    assert!(shop.database.version() > warmed);
    assert_eq!(report.verdict(), Verdict::Damaged);
    assert!(report.findings[0].detail.contains("page "), "{report:?}");
    assert!(!shop.database.is_healthy());
    assert_eq!(shop.metric("odyssey_storage_sound"), 0);
    assert!(shop.database.state().down.unwrap().contains("damaged"));
    let refused = add(&shop.database, "refused").await.unwrap();
    assert_eq!(refused, Err(Unavailable::Engine));
    assert_eq!(shop.database.read(names).await, Err(Unavailable::Engine));
    flip_in_place();
    assert_eq!(shop.database.check().verdict(), Verdict::Good);
    add(&shop.database, "kept").await.unwrap().unwrap().unwrap();
}

/// A page is read damaged, changed, and logged: checkpointed, it would count as valid.
#[test]
fn a_damaged_page_that_was_changed_is_not_copied_and_found_after_a_restart_too() {
    let shop = Shop::open();
    for i in 0..100 {
        shop.put(&format!("{i:04}"), 300);
    }
    futures_ready(async {
        shop.database.close().await;
        Ok(())
    });
    // No connection has the page in its cache.
    let directory = copied(shop.directory.path());
    let database = reopen(settings(directory.path())).unwrap();
    let path = directory.path().join("cups.db");
    let bytes = fs::read(copied(shop.directory.path()).path().join("cups.db")).unwrap();
    let row = bytes
        .windows(4)
        .rposition(|found| found == b"0050")
        .unwrap();
    let bit = 8 * (row as u64 + 20);
    flip_in_place(&path, bit);
    let near = |connection: &Connection| insert(connection, "0050 near");
    futures_ready(database.commit(near));
    let integrity = database.inner.integrity.upgrade().unwrap();
    let copy = || {
        let connection = database.inner.file.writer().unwrap();
        integrity::lock(&integrity).checkpoint(&connection, integrity::Mode::Full)
    };
    let found = copy().unwrap_err().to_string();
    assert!(found.contains("is not what was written"), "{found}");
    assert_eq!(database.check().verdict(), Verdict::Damaged);
    let copied_damaged = copied(directory.path());
    let said = opened(copied_damaged.path()).unwrap_err();
    assert!(said.contains("is damaged"), "{said}");
    assert_eq!(offline(copied_damaged.path()), Verdict::Damaged);
    // The file is valid again; the WAL's copy of that page is not.
    flip_in_place(&path, bit);
    assert_eq!(database.check().verdict(), Verdict::Damaged);
    assert!(copy().is_err());
    drop(integrity);
}

/// A reader blocks the rest: what was copied is neither the old page nor damage.
#[test]
fn a_log_that_was_copied_in_part_is_copied_in_whole_later() {
    let shop = Shop::open();
    for i in 0..50 {
        shop.put(&format!("{i:04}"), 700);
    }
    shop.checkpoint();
    for i in 0..20 {
        shop.put(&format!("{i:04}"), 600);
    }
    let reader = Connection::open(shop.directory.path().join("cups.db")).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    names(&reader).unwrap();
    for i in 0..50 {
        shop.put(&format!("{i:04}"), 500);
    }
    let integrity = shop.database.inner.integrity.upgrade().unwrap();
    let connection = shop.database.inner.file.writer().unwrap();
    let copy = || integrity::lock(&integrity).checkpoint(&connection, integrity::Mode::Passive);
    assert!(!copy().unwrap());
    for i in 0..50 {
        shop.put(&format!("{i:04}"), 400);
    }
    assert!(!copy().unwrap());
    drop(reader);
    assert!(copy().unwrap());
    assert_eq!(shop.database.check().verdict(), Verdict::Good);
}

#[tokio::test]
async fn a_file_that_is_not_where_it_was_keeps_nothing_until_it_is_back() {
    let shop = Shop::open();
    add(&shop.database, "before")
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    for name in ["cups.db", "cups.db-wal", "cups.db-sums"] {
        let path = shop.directory.path().join(name);
        let aside = shop.directory.path().join("aside");
        fs::rename(&path, &aside).unwrap();
        // The periodic check of the writer notices it without a request.
        until("the database fails", async || !shop.database.is_healthy()).await;
        // That is no damage.
        assert_eq!(shop.database.check().verdict(), Verdict::Unchecked);
        let reason = shop.database.state().down.unwrap();
        assert!(reason.contains(name), "{reason}");
        fs::copy(&aside, &path).unwrap();
        let refused = add(&shop.database, "refused").await.unwrap();
        assert_eq!(refused, Err(Unavailable::Engine), "{name}");
        fs::rename(&aside, &path).unwrap();
        until("the database works", async || shop.database.is_healthy()).await;
    }
    assert_eq!(shop.names(), ["before"]);
    add(&shop.database, "after")
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    shop.database.close().await;
    assert_eq!(offline(shop.directory.path()), Verdict::Good);
}

/// A commit that could not be noted is read all the same: no cached response may outlive it.
#[tokio::test]
async fn what_was_kept_and_not_acknowledged_is_a_change_for_readers() {
    let shop = Shop::open();
    add(&shop.database, "before")
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let path = shop.directory.path().join("cups.db");
    let aside = shop.directory.path().join("aside");
    let warmed = shop.database.version();
    fs::rename(&path, &aside).unwrap();
    let refused = add(&shop.database, "kept").await.unwrap();
    fs::rename(&aside, &path).unwrap();
    assert_eq!(refused, Err(Unavailable::Engine));
    let names = shop.database.read(names).await.unwrap();
    // The look of each second may have noticed before: then it was not committed.
    let kept = names.len() == 2;
    assert_eq!(shop.database.version() > warmed, kept, "{names:?}");
    until("the database works", async || shop.database.is_healthy()).await;
}
