//! Queued operations share a commit and are isolated from one another.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

#[tokio::test]
async fn fifty_that_wait_share_one_commit() {
    let shop = Shop::open();
    let held = shop.hold().await;
    let before = shop.commits();
    let waiting: Vec<_> = (0..50)
        .map(|i| add(&shop.database, format!("{i:02}")))
        .collect();
    shop.waiting(50).await;
    assert_eq!(shop.metric("odyssey_storage_queue_depth"), 50);
    assert!(waiting.iter().all(|one| !one.is_finished()));
    held.release().await;
    for one in waiting {
        one.await.unwrap().unwrap().unwrap();
        // The first answer comes after the one commit of all.
        assert_eq!(shop.commits(), before + 1);
        assert_eq!(shop.names().len(), 50);
    }
    assert_eq!(shop.metric("odyssey_storage_operations_total"), 51);
    assert_eq!(shop.metric("odyssey_storage_queue_depth"), 0);
}

#[tokio::test]
async fn a_batch_has_an_end() {
    let shop = Shop::with(|settings| settings.batch_max = 8);
    let held = shop.hold().await;
    let waiting: Vec<_> = (0..20)
        .map(|i| add(&shop.database, i.to_string()))
        .collect();
    shop.waiting(20).await;
    held.release().await;
    for one in waiting {
        one.await.unwrap().unwrap().unwrap();
    }
    assert_eq!(shop.commits(), 3);
}

#[tokio::test]
async fn an_answer_comes_after_the_commit() {
    let shop = Shop::open();
    for i in 0..20 {
        add(&shop.database, format!("{i:02}"))
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!(shop.names().len(), i + 1);
    }
}

#[tokio::test]
async fn refused_broken_and_panicking_ones_are_taken_back_alone() {
    let shop = Shop::open();
    add(&shop.database, "taken")
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let held = shop.hold().await;
    let first = add(&shop.database, "first");
    let refused = write::<()>(&shop.database, |connection| {
        insert(connection, "refused")?;
        Err(Abort::Refused("no"))
    });
    let second = add(&shop.database, "second");
    let broken = write(&shop.database, |connection| {
        insert(connection, "broken")?;
        Ok(insert(connection, "taken")?)
    });
    let third = add(&shop.database, "third");
    let nonsense = write(&shop.database, |connection| {
        insert(connection, "nonsense")?;
        Ok(connection.execute_batch("SELECT nothing FROM nowhere")?)
    });
    let panicking = write::<()>(&shop.database, |connection| {
        insert(connection, "panicking")?;
        panic!("the cup fell");
    });
    let last = add(&shop.database, "last");
    shop.waiting(8).await;
    let before = shop.commits();
    held.release().await;
    assert_eq!(refused.await.unwrap(), Ok(Err("no")));
    for failed in [broken, nonsense, panicking] {
        assert_eq!(failed.await.unwrap(), Err(Unavailable::Failed));
    }
    for kept in [first, second, third, last] {
        assert_eq!(kept.await.unwrap(), Ok(Ok(())));
    }
    assert_eq!(shop.names(), ["first", "last", "second", "taken", "third"]);
    assert_eq!(shop.commits(), before + 1);
    assert!(shop.database.is_healthy());
    // The thread still runs.
    add(&shop.database, "after")
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

/// How an operation of [`batch_of`] ends.
#[derive(Clone, Copy)]
enum End {
    Committed,
    RefusedUnchanged,
    FailsUnchanged,
    PanicsUnchanged,
    RefusedAfterChange,
    FailsAfterChange,
    PanicsAfterChange,
}

impl End {
    fn changes_first(self) -> bool {
        matches!(
            self,
            Self::Committed
                | Self::RefusedAfterChange
                | Self::FailsAfterChange
                | Self::PanicsAfterChange
        )
    }

    fn result(self) -> Written<()> {
        match self {
            Self::Committed => Ok(Ok(())),
            Self::RefusedUnchanged | Self::RefusedAfterChange => Ok(Err("no")),
            _ => Err(Unavailable::Failed),
        }
    }

    fn end(self, connection: &Connection) -> Result<(), Abort<&'static str>> {
        match self {
            Self::Committed => Ok(()),
            Self::RefusedUnchanged | Self::RefusedAfterChange => Err(Abort::Refused("no")),
            Self::FailsUnchanged | Self::FailsAfterChange => Ok(insert(connection, "taken")?),
            Self::PanicsUnchanged | Self::PanicsAfterChange => panic!("the cup fell"),
        }
    }
}

/// Runs these operations in one batch. Each adds a row with its number before it ends, unless it ends unchanged. Exactly those
/// that are committed may leave a row; returns how often each ran.
async fn batch_of<const N: usize>(ends: [End; N]) -> [usize; N] {
    let shop = Shop::open();
    add(&shop.database, "taken")
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let held = shop.hold().await;
    let before = shop.commits();
    let runs = ends.map(|_| Arc::<AtomicUsize>::default());
    let mut batch = Vec::new();
    for (number, (end, runs)) in ends.into_iter().zip(&runs).enumerate() {
        let runs = Arc::clone(runs);
        batch.push(write(&shop.database, move |connection| {
            runs.fetch_add(1, Ordering::Relaxed);
            if end.changes_first() {
                insert(connection, &number.to_string())?;
            }
            end.end(connection)
        }));
        // Spawned tasks may reach the queue in another order.
        shop.waiting(number + 1).await;
    }
    held.release().await;
    let mut expected = Vec::new();
    for (number, (one, end)) in batch.into_iter().zip(ends).enumerate() {
        assert_eq!(one.await.unwrap(), end.result(), "operation {number}");
        if matches!(end, End::Committed) {
            expected.push(number.to_string());
        }
    }
    expected.push("taken".to_owned());
    assert_eq!(shop.names(), expected);
    assert_eq!(shop.commits(), before + 1);
    assert!(shop.database.is_healthy());
    runs.map(|runs| runs.load(Ordering::Relaxed))
}

#[tokio::test]
async fn operations_that_end_unchanged_are_not_run_again_nor_are_the_others() {
    use End::{Committed, FailsUnchanged, PanicsUnchanged, RefusedUnchanged};
    let runs = batch_of([
        Committed,
        RefusedUnchanged,
        FailsUnchanged,
        PanicsUnchanged,
        Committed,
    ]);
    assert_eq!(runs.await, [1; 5]);
}

#[tokio::test]
async fn the_third_of_five_is_refused_fails_or_panics_after_a_change() {
    use End::{Committed, FailsAfterChange, PanicsAfterChange, RefusedAfterChange};
    for end in [RefusedAfterChange, FailsAfterChange, PanicsAfterChange] {
        let runs = batch_of([Committed, Committed, end, Committed, Committed]);
        assert_eq!(runs.await, [2, 2, 2, 1, 1]);
    }
}

#[tokio::test]
async fn two_of_one_batch_fail_after_a_change_and_nothing_runs_a_third_time() {
    use End::{Committed, FailsAfterChange, PanicsAfterChange, RefusedUnchanged};
    let runs = batch_of([
        Committed,
        FailsAfterChange,
        RefusedUnchanged,
        PanicsAfterChange,
        FailsAfterChange,
        Committed,
    ]);
    assert_eq!(runs.await, [2, 2, 1, 1, 1, 1]);
}

#[tokio::test]
async fn an_operation_that_ends_the_transaction_fails_the_batch_and_no_other() {
    let shop = Shop::open();
    let rogue = write(&shop.database, |connection| {
        Ok(connection.execute_batch("ROLLBACK")?)
    });
    assert_eq!(rogue.await.unwrap(), Err(Unavailable::Engine));
    let held = shop.hold().await;
    let rogue = write(&shop.database, |connection| {
        Ok(connection.execute_batch("ROLLBACK")?)
    });
    shop.waiting(1).await;
    let neighbour = add(&shop.database, "neighbour");
    shop.waiting(2).await;
    held.release().await;
    assert_eq!(rogue.await.unwrap(), Err(Unavailable::Engine));
    assert_eq!(neighbour.await.unwrap(), Err(Unavailable::Engine));
    assert_eq!(shop.names(), [""; 0]);
    add(&shop.database, "after")
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(shop.database.is_healthy());
}

#[tokio::test]
async fn when_the_queue_is_full_nothing_is_lost() {
    let shop = Shop::with(|settings| settings.queue_max = 5);
    let held = shop.hold().await;
    let waiting: Vec<_> = (0..5).map(|i| add(&shop.database, i.to_string())).collect();
    shop.waiting(5).await;
    for _ in 0..3 {
        let busy = add(&shop.database, "late").await.unwrap();
        assert_eq!(busy, Err(Unavailable::Busy));
    }
    held.release().await;
    for one in waiting {
        assert_eq!(one.await.unwrap(), Ok(Ok(())));
    }
    assert_eq!(shop.names(), ["0", "1", "2", "3", "4"]);
    add(&shop.database, "late").await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn whoever_leaves_before_it_began_leaves_no_trace() {
    let shop = Shop::open();
    let held = shop.hold().await;
    let gone = add(&shop.database, "gone");
    shop.waiting(1).await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    let stays = add(&shop.database, "stays");
    shop.waiting(2).await;
    held.release().await;
    assert_eq!(stays.await.unwrap(), Ok(Ok(())));
    assert_eq!(shop.names(), ["stays"]);
}

#[tokio::test]
async fn whoever_leaves_after_it_began_is_kept_like_the_others() {
    let shop = Shop::open();
    let (release, wait) = mpsc::channel::<Infallible>();
    let (started, mut has_started) = unbounded_channel();
    let gone = write(&shop.database, move |connection| {
        insert(connection, "gone")?;
        started.send(()).unwrap();
        let _ = wait.recv();
        Ok(())
    });
    has_started.recv().await.unwrap();
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    drop(release);
    add(&shop.database, "next").await.unwrap().unwrap().unwrap();
    assert_eq!(shop.names(), ["gone", "next"]);
}

#[tokio::test]
async fn the_version_grows_with_what_is_kept_and_only_then() {
    let shop = Shop::open();
    assert_eq!(shop.database.version(), 0);
    for i in 1..=5 {
        add(&shop.database, i.to_string())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!(shop.database.version(), i);
    }
    let looked = write(&shop.database, |connection| Ok(names(connection)?.len()));
    assert_eq!(looked.await.unwrap(), Ok(Ok(5)));
    assert_eq!((shop.database.version(), shop.commits()), (5, 5));
}

#[tokio::test]
async fn closing_finishes_what_is_queued_and_leaves_no_log() {
    let shop = Shop::open();
    let held = shop.hold().await;
    let waiting: Vec<_> = (0..100)
        .map(|i| add(&shop.database, i.to_string()))
        .collect();
    shop.waiting(100).await;
    let closing = tokio::spawn({
        let database = shop.database.clone();
        async move { database.close().await }
    });
    held.release().await;
    closing.await.unwrap();
    for one in waiting {
        assert_eq!(one.await.unwrap(), Ok(Ok(())));
    }
    assert!(!shop.database.is_healthy());
    let late = add(&shop.database, "late").await.unwrap();
    assert_eq!(late, Err(Unavailable::Stopped));
    let read = shop.database.read(names).await;
    assert_eq!(read.unwrap_err(), Unavailable::Stopped);
    shop.database.close().await;
    let files = std::fs::read_dir(shop.directory.path()).unwrap();
    let files: BTreeSet<_> = files.map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files, ["cups.db", "cups.db-sums"].map(Into::into).into());
    assert_eq!(shop.names().len(), 100);
}

#[tokio::test]
async fn dropping_the_last_handle_finishes_what_is_queued() {
    let shop = Shop::open();
    let held = shop.hold().await;
    // The caller has dropped its answer's receiver, but not the operation.
    let Shop {
        database,
        directory,
        ..
    } = shop;
    let (done, mut is_done) = unbounded_channel();
    let waiting = write(&database, move |connection| {
        insert(connection, "queued")?;
        done.send(()).unwrap();
        Ok(())
    });
    until("the operation waits", async || {
        database.inner.operations.waiting() == 1
    })
    .await;
    drop(database);
    held.release().await;
    waiting.await.unwrap().unwrap().unwrap();
    is_done.recv().await.unwrap();
    until("the WAL is removed", async || {
        !directory.path().join("cups.db-wal").exists()
    })
    .await;
    assert_eq!(names_in(&directory.path().join("cups.db")), ["queued"]);
}
