use tempfile::TempDir;

use super::super::store::contract::{self, Applies};
use super::*;
use crate::storage::sqlite::{Metrics, Settings};
use crate::telemetry::Registry;

fn open(directory: &TempDir) -> Sqlite {
    let settings = Settings {
        path: directory.path().join("assignments.db"),
        application: APPLICATION,
        pinned: Vec::new(),
        migrations: MIGRATIONS,
        queue_max: 1000,
        batch_max: 64,
        readers: 1,
    };
    let registry = Registry::new(&[]);
    let metrics = registry.register(|| Metrics::register(&settings.path));
    Sqlite::new(Database::open(settings, metrics).unwrap())
}

contract::suite!(
    async || {
        let directory = tempfile::tempdir().unwrap();
        (open(&directory), directory)
    },
    64
);

#[tokio::test]
async fn a_restart_forgets_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let before = open(&directory);
    let given = vec![contract::part("ada", 0, &[], &["p", "q"])];
    let changed = before.applied(contract::change(given)).await.unwrap();
    assert_eq!(changed, Changed::Done);
    let listed = contract::listed(&before, &Filter::default(), 10).await;
    before.database.close().await;
    let after = open(&directory);
    assert_eq!(
        contract::listed(&after, &Filter::default(), 1).await,
        listed
    );
    assert_eq!(contract::held(&after, contract::day(0)).await.len(), 2);
}
