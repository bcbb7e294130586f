use tempfile::TempDir;

use super::super::config::Graph;
use super::super::store::contract;
use super::*;

fn open(directory: &TempDir, rules: Config) -> Sqlite {
    Sqlite::new(Database::of_test(directory, APPLICATION, MIGRATIONS), rules)
}

contract::suite!(|rules| {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, rules);
    (store, directory)
});

#[tokio::test]
async fn what_was_recorded_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let rules = contract::rules();
    let before = open(&directory, rules.clone());
    contract::record(&before, "a", EventType::ParcelCollected).await;
    contract::record(&before, "a", EventType::TakenOff).await;
    let history = before.history(contract::id("a")).await.unwrap();
    before.database.close().await;
    let after = open(&directory, rules);
    assert_eq!(after.history(contract::id("a")).await.unwrap(), history);
    let counts = Counts {
        ongoing: 1,
        total: 1,
    };
    assert_eq!(after.counts().await.unwrap(), counts);
}

#[tokio::test]
async fn nothing_is_left_of_what_was_pushed_out() {
    let directory = tempfile::tempdir().unwrap();
    let rules = Config {
        kept: 2,
        graph: Graph::Free,
        ..contract::rules()
    };
    let store = open(&directory, rules);
    for n in 0..10 {
        let id = format!("d{n}");
        contract::record(&store, &id, EventType::ParcelCollected).await;
        contract::record(&store, &id, EventType::Crashed).await;
    }
    let rows = store.read(|connection| {
        let count = |table| {
            let sql = format!("SELECT count(*) FROM {table}");
            connection.query_row(&sql, [], |row| row.get::<_, u32>(0))
        };
        Ok((count("deliveries")?, count("events")?))
    });
    assert_eq!(rows.await.unwrap(), (2, 4));
}

#[tokio::test]
async fn after_kept_was_lowered_the_rest_goes_a_few_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, contract::rules());
    for n in 0..50 {
        let id = format!("d{n}");
        contract::record(&store, &id, EventType::ParcelCollected).await;
        contract::record(&store, &id, EventType::Crashed).await;
    }
    store.database.close().await;
    let lowered = Config {
        kept: 3,
        ..contract::rules()
    };
    let store = open(&directory, lowered);
    let mut left = Vec::new();
    for n in 50..54 {
        let id = format!("d{n}");
        contract::record(&store, &id, EventType::ParcelCollected).await;
        let rows = store.read(|connection| {
            connection.query_row("SELECT count(*) FROM deliveries", [], |row| {
                row.get::<_, u32>(0)
            })
        });
        left.push(rows.await.unwrap());
        contract::record(&store, &id, EventType::Crashed).await;
    }
    assert_eq!(left, [31, 12, 3, 3]);
}
