use tempfile::TempDir;

use super::super::replay::replay;
use super::super::store::contract;
use super::*;

fn open(directory: &TempDir, join: Join, publishes: bool) -> Sqlite {
    let database = Database::of_test(directory, APPLICATION, MIGRATIONS);
    Sqlite::new(database, join, publishes)
}

/// An empty store in its own directory.
pub(in super::super) fn fresh(join: Join) -> (Sqlite, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    (open(&directory, join, true), directory)
}

contract::suite!(async |join| fresh(join), 64);

#[tokio::test]
async fn nothing_waits_to_be_told_where_nobody_listens() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, Join::Zero, false);
    let events = vec![
        contract::says(1, Zone::N, true),
        contract::placed(1, Zone::N, 1),
    ];
    contract::tell(&store, events, contract::at(1)).await;
    assert!(store.outgoing(9).await.unwrap().is_empty());
}

#[tokio::test]
async fn zones_of_a_database_from_before_they_were_counted_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let before = open(&directory, Join::Zero, true);
    let events = vec![
        contract::says(1, Zone::N, true),
        contract::says(2, Zone::N, false),
        contract::placed(1, Zone::N, 1),
        contract::placed(2, Zone::S, 1),
    ];
    contract::tell(&before, events, contract::at(1)).await;
    let undone = before
        .database
        .commit(|connection| connection.execute_batch("DROP TABLE zones; PRAGMA user_version = 1"));
    undone.await.unwrap();
    before.database.close().await;
    let after = open(&directory, Join::Zero, true);
    let orders = [contract::order(1), contract::order(2)];
    contract::consistent(&after, Join::Zero, &orders).await;
}

#[tokio::test]
async fn a_restart_forgets_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let before = open(&directory, Join::Zero, true);
    let events = vec![
        contract::placed(1, Zone::N, 1),
        contract::says(1, Zone::N, true),
    ];
    contract::tell(&before, events, contract::at(1)).await;
    before.database.close().await;
    let after = open(&directory, Join::Zero, true);
    assert_eq!(after.outgoing(9).await.unwrap().len(), 1);
    contract::consistent(&after, Join::Zero, &[contract::order(1)]).await;
}

#[tokio::test]
async fn a_replay_tells_what_is_not_as_the_log_has_it() {
    let (live, _directory) = fresh(Join::Min);
    let events = vec![
        contract::placed(1, Zone::N, 1),
        contract::says(1, Zone::N, true),
        contract::says(2, Zone::N, true),
        contract::placed(2, Zone::N, 2),
        contract::placed(3, Zone::S, 3),
    ];
    contract::tell(&live, events, contract::at(1)).await;
    let (told, _directory) = fresh(Join::Min);
    let comparison = replay(&live, &told).await.unwrap();
    assert!(comparison.agrees(), "{comparison}");
    let counted = (comparison.events, comparison.couriers, comparison.orders);
    assert_eq!((counted, comparison.parked), ((5, 2, 3), 1));
    assert_eq!(
        told.events(0, 9).await.unwrap(),
        live.events(0, 9).await.unwrap()
    );
    let damage = |connection: &Connection| {
        connection.execute_batch(
            "UPDATE couriers SET count = 9 WHERE name = 'courier 2';
             DELETE FROM parked;
             UPDATE events SET outcome = '\"parked\"' WHERE number = 4;",
        )
    };
    live.database.commit(damage).await.unwrap();
    let (told, _directory) = fresh(Join::Min);
    let said = replay(&live, &told).await.unwrap().to_string();
    for expected in [
        "1 events have another outcome than in the log, event 4 first",
        "count: 9",
        "the wait of order 00000000-0000-0000-0000-0000ffff0003 is in the log, and not stored",
    ] {
        assert!(said.contains(expected), "{said}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]

    #[test]
    fn a_dispatcher_that_ends_between_any_two_steps_loses_and_doubles_nothing(events in contract::events(), seed: u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let open = async |_| open(&directory, Join::Zero, true);
            let close = async |store: Sqlite| store.database.close().await;
            contract::survives(open, close, events, seed, 1).await;
        });
    }
}
