use tempfile::TempDir;

use super::super::store::contract::{self, Applies};
use super::*;

fn open(directory: &TempDir) -> Sqlite {
    Sqlite::new(Database::of_test(directory, APPLICATION, MIGRATIONS))
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
