use tempfile::TempDir;

use super::super::store::contract;
use super::*;
use crate::storage::sqlite::{Metrics, Settings};
use crate::telemetry::Registry;

fn open(directory: &TempDir, join: Join, tells: bool) -> Sqlite {
    let settings = Settings {
        path: directory.path().join("couriers.db"),
        migrations: MIGRATIONS,
        queue_max: 1000,
        batch_max: 64,
        readers: 1,
    };
    let registry = Registry::new(&[]).unwrap();
    let metrics = registry.register(|| Metrics::register(&settings.path));
    Sqlite::new(Database::open(settings, metrics).unwrap(), join, tells)
}

contract::suite!(
    async |join| {
        let directory = tempfile::tempdir().unwrap();
        (open(&directory, join, true), directory)
    },
    64
);

#[tokio::test]
async fn nothing_waits_to_be_told_where_nobody_listens() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, Join::Zero, false);
    let events = vec![
        contract::says(1, Zone::N, true),
        contract::placed(1, Zone::N, 1),
    ];
    store.apply(events, contract::at(1)).await.unwrap();
    assert!(store.outgoing(9).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_restart_forgets_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let before = open(&directory, Join::Zero, true);
    let events = vec![
        contract::placed(1, Zone::N, 1),
        contract::says(1, Zone::N, true),
    ];
    before.apply(events, contract::at(1)).await.unwrap();
    before.database.close().await;
    let after = open(&directory, Join::Zero, true);
    assert_eq!(after.outgoing(9).await.unwrap().len(), 1);
    contract::consistent(&after, Join::Zero, &[contract::order(1)]).await;
}
