//! Freed space is used again or returned; the WAL stays short.

use super::*;

fn length(shop: &Shop, file: &str) -> u64 {
    let path = shop.directory.path().join(file);
    path.metadata().map_or(0, |file| file.len())
}

#[tokio::test]
async fn twenty_thousand_that_come_and_go_leave_a_small_file() {
    let shop = Shop::open();
    let mut log_max = 0;
    for round in 0..200_u32 {
        let writes: Vec<_> = (0..100)
            .map(|i| {
                let number = round * 100 + i;
                write(&shop.database, move |connection| {
                    connection
                        .prepare_cached("INSERT INTO cups VALUES (?1, 1, zeroblob(500))")?
                        .execute([number.to_string()])?;
                    if let Some(old) = number.checked_sub(100) {
                        connection
                            .prepare_cached("DELETE FROM cups WHERE name = ?1")?
                            .execute([old.to_string()])?;
                    }
                    Ok(())
                })
            })
            .collect();
        for one in writes {
            one.await.unwrap().unwrap().unwrap();
        }
        log_max = log_max.max(length(&shop, "cups.db-wal"));
    }
    assert_eq!(shop.names().len(), 100);
    // The WAL is checkpointed after two thousand pages; the batch that reaches them comes on top.
    assert!(log_max < 10 << 20, "{log_max}");
    shop.database.close().await;
    let file = length(&shop, "cups.db");
    assert!(file < 1 << 20, "{file}");
}

#[tokio::test]
async fn space_that_a_large_deletion_freed_is_given_back() {
    let shop = Shop::open();
    let filled = write(&shop.database, |connection| {
        for i in 0..3000 {
            let sql = "INSERT INTO cups VALUES (?1, 1, zeroblob(4000))";
            connection.execute(sql, [i.to_string()])?;
        }
        Ok(())
    });
    filled.await.unwrap().unwrap().unwrap();
    let emptied = write(&shop.database, |connection| {
        Ok(connection.execute("DELETE FROM cups", [])?)
    });
    assert_eq!(emptied.await.unwrap(), Ok(Ok(3000)));
    for i in 0..600 {
        add(&shop.database, i.to_string())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
    shop.database.close().await;
    let file = length(&shop, "cups.db");
    assert!(file < 2 << 20, "{file}");
}

/// A reader with an open snapshot prevents the WAL's truncation; once it is gone, the WAL is short again.
#[tokio::test]
async fn a_log_that_a_reader_made_long_is_cut_afterwards() {
    let shop = Shop::open();
    let database = shop.database.clone();
    let (release, wait) = mpsc::channel::<Infallible>();
    let (started, has_started) = oneshot::channel();
    let reading = tokio::spawn(async move {
        let query = database.read(move |connection| {
            names(connection)?;
            started.send(()).unwrap();
            let _ = wait.recv();
            Ok(())
        });
        query.await
    });
    has_started.await.unwrap();
    for i in 0..18 {
        let filled = write(&shop.database, move |connection| {
            let sql = "INSERT INTO cups VALUES (?1, 1, zeroblob(2000000))";
            connection.execute(sql, [format!("large {i}")])?;
            Ok(())
        });
        filled.await.unwrap().unwrap().unwrap();
    }
    assert!(length(&shop, "cups.db-wal") > 32 << 20);
    drop(release);
    reading.await.unwrap().unwrap();
    for i in 0..300 {
        add(&shop.database, i.to_string())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
    let log = length(&shop, "cups.db-wal");
    assert!(log <= 8 << 20, "{log}");
}
