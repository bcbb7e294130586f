//! Readers see one snapshot, with everything that was answered.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

#[tokio::test]
async fn a_query_sees_everything_that_was_answered() {
    let shop = Shop::open();
    for i in 0..200 {
        add(&shop.database, i.to_string())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        let version = shop.database.version();
        let seen = shop.database.read(names).await;
        assert_eq!(seen.unwrap().len() as u64, version);
    }
}

#[tokio::test]
async fn a_query_of_several_statements_sees_one_state() {
    let shop = Shop::open();
    let database = shop.database.clone();
    let (first, has_read_first) = oneshot::channel();
    let (go_on, wait) = mpsc::channel();
    let query = tokio::spawn(async move {
        let query = database.read(move |connection| {
            let before = names(connection)?;
            first.send(()).unwrap();
            wait.recv().unwrap();
            Ok((before, names(connection)?))
        });
        query.await
    });
    has_read_first.await.unwrap();
    add(&shop.database, "between")
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    // The other reader sees it at the same time.
    let seen = shop.database.read(names).await;
    assert_eq!(seen.unwrap(), ["between"]);
    go_on.send(()).unwrap();
    assert_eq!(query.await.unwrap().unwrap(), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pair_that_is_written_together_is_read_together() {
    let shop = Shop::open();
    let over = Arc::new(AtomicBool::new(false));
    let reading = tokio::spawn({
        let (database, over) = (shop.database.clone(), Arc::clone(&over));
        async move {
            while !over.load(Ordering::SeqCst) {
                let seen = database.read(names).await;
                assert_eq!(seen.unwrap().len() % 2, 0);
            }
        }
    });
    for i in 0..200 {
        let pair = write(&shop.database, move |connection| {
            insert(connection, &format!("{i} left"))?;
            Ok(insert(connection, &format!("{i} right"))?)
        });
        pair.await.unwrap().unwrap().unwrap();
    }
    over.store(true, Ordering::SeqCst);
    reading.await.unwrap();
}

#[tokio::test]
async fn a_query_cannot_write_and_breaks_alone() {
    let shop = Shop::with(|settings| settings.readers = 1);
    let wrote = shop.database.read(|connection| insert(connection, "x"));
    assert_eq!(wrote.await, Err(Unavailable::Failed));
    let nonsense = shop
        .database
        .read(|connection| connection.execute_batch("SELECT nothing"));
    assert_eq!(nonsense.await, Err(Unavailable::Failed));
    let panicked = shop.database.read::<(), _>(|_| panic!("the cup fell"));
    assert_eq!(panicked.await, Err(Unavailable::Failed));
    let ended = shop
        .database
        .read(|connection| connection.execute_batch("COMMIT"));
    assert_eq!(ended.await, Ok(()));
    assert_eq!(shop.database.read(names).await, Ok(vec![]));
    assert!(shop.database.is_well());
}

#[tokio::test]
async fn too_many_queries_are_turned_away() {
    let shop = Shop::with(|settings| {
        settings.readers = 1;
        settings.queue_max = 2;
    });
    let (release, wait) = mpsc::channel::<Infallible>();
    let (started, has_started) = oneshot::channel();
    let read = |query: Box<dyn FnOnce(&Connection) + Send>| {
        let database = shop.database.clone();
        tokio::spawn(async move {
            let query = |connection: &Connection| {
                query(connection);
                Ok(())
            };
            database.read(query).await
        })
    };
    let first = read(Box::new(move |_| {
        started.send(()).unwrap();
        let _ = wait.recv();
    }));
    has_started.await.unwrap();
    let waiting = [read(Box::new(|_| ())), read(Box::new(|_| ()))];
    until("both queries wait", async || {
        shop.database.inner.queries.waiting() == 2
    })
    .await;
    assert_eq!(shop.database.read(names).await, Err(Unavailable::Busy));
    drop(release);
    assert_eq!(first.await.unwrap(), Ok(()));
    for one in waiting {
        assert_eq!(one.await.unwrap(), Ok(()));
    }
}
