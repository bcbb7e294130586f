//! Migration of data that the version before this format has written: recorded commands that write its keys.

use super::migration::{Migration, is_needed, migrate};
use super::*;

const OLD: &str = include_str!("../../../../tests/data/couriers-in-redis-format-1.jsonl");

async fn ask(client: &Client, command: &[String]) {
    let mut asked = redis::cmd(&command[0]);
    asked.arg(&command[1..]);
    let _: redis::Value = client.ask(asked).await.unwrap();
}

/// Writes old keys; those that begin with `only`.
pub(super) async fn write_old(client: &Client, only: &str) {
    for line in OLD.lines() {
        let command: Vec<String> = serde_json::from_str(line).unwrap();
        if command[1].starts_with(only) {
            ask(client, &command).await;
        }
    }
}

fn order(number: u32) -> OrderId {
    OrderId(
        format!("00000000-0000-4000-9000-{number:012}")
            .parse()
            .unwrap(),
    )
}

fn courier(number: u32) -> CourierId {
    CourierId(
        format!("00000000-0000-4000-8000-{number:012}")
            .parse()
            .unwrap(),
    )
}

async fn is_as_it_was(store: &Redis) {
    let couriers = store.couriers(None).await.unwrap();
    let said = |known: &Courier| (known.said.zone, known.said.is_available, known.count);
    let expected = [(Zone::S, true, 4), (Zone::N, false, 1), (Zone::E, true, 1)];
    assert_eq!(couriers.iter().map(said).collect::<Vec<_>>(), expected);
    let places = [
        (1, Some(1)),
        (2, Some(1)),
        (3, None),
        (4, Some(1)),
        (5, Some(2)),
        (6, Some(1)),
        (7, None),
        (8, Some(3)),
    ];
    let places = places.map(|(number, with)| {
        let with = with.map(|number| Whereabouts::With(courier(number)));
        (order(number), with.unwrap_or(Whereabouts::Parked))
    });
    assert_eq!(store.orders().await.unwrap(), places);
    let outgoing = store.outgoing(10).await.unwrap();
    let outgoing: Vec<OrderId> = outgoing.iter().map(|it| it.assignment.order_id).collect();
    assert_eq!(outgoing, [order(5), order(6), order(8)]);
    let events = store.events(0, 100).await.unwrap();
    assert!(events.iter().map(|it| it.number).eq(1..=16));
    assert_eq!(events[0].at, "2023-11-14T22:13:21Z".parse().unwrap());
    let ids: Vec<OrderId> = (1..=8).map(order).collect();
    contract::consistent(store, Join::Zero, &ids).await;
    // Replicated ones are not in the log.
    assert_eq!(
        store.orders_of(courier(9)).await.unwrap(),
        [order(91), order(92)]
    );
    let place = store.order(order(93)).await.unwrap();
    assert_eq!(place, Some(Whereabouts::With(courier(8))));
}

fn agreed() -> Migration {
    let counts = [
        ("couriers", 3),
        ("orders", 8),
        ("outgoing", 3),
        ("parked", 2),
    ];
    Migration {
        events: 16,
        counts: counts.map(|(name, count)| (name, [count, count])).into(),
        differing: None,
        deleted: false,
    }
}

/// Every key, of all nodes.
async fn keys(client: &Client) -> BTreeSet<String> {
    let mut keys = redis::cmd("KEYS");
    client.ask(keys.arg("*").clone()).await.unwrap()
}

fn is_current(key: &str) -> bool {
    key.starts_with("{odyssey:couriers:2}:")
}

pub(super) async fn migrates(client: &Client) {
    write_old(client, "").await;
    let old = keys(client).await;
    assert!(is_needed(client).await.unwrap());
    // The first attempt was interrupted.
    let rest = command("XADD", "log", &["0-*", "e", "u0 1 {}"]);
    let _: String = client.ask(rest).await.unwrap();
    let migration = migrate(client, Join::Zero, false).await.unwrap();
    assert_eq!(migration, agreed());
    assert!(migration.agrees());
    let store = Redis::new(client.clone(), Join::Zero, true, 1000);
    is_as_it_was(&store).await;
    assert!(old.is_subset(&keys(client).await));
    assert!(!is_needed(client).await.unwrap());
    // The next call only deletes the old keys.
    let deleted = Migration {
        deleted: true,
        ..Migration::default()
    };
    assert_eq!(migrate(client, Join::Zero, true).await.unwrap(), deleted);
    is_as_it_was(&store).await;
    assert!(keys(client).await.iter().all(|key| is_current(key)));
    assert!(!is_needed(client).await.unwrap());
}

#[tokio::test]
async fn what_the_earlier_version_has_written_is_migrated_and_then_deleted() {
    let server = Server::start().await;
    migrates(&connect(&server.socket()).await).await;
}

#[tokio::test]
async fn a_directory_without_a_log_is_migrated() {
    let server = Server::start().await;
    let client = connect(&server.socket()).await;
    write_old(&client, "odyssey:couriers:learned").await;
    assert!(is_needed(&client).await.unwrap());
    let migration = migrate(&client, Join::Zero, true).await.unwrap();
    assert!(migration.agrees() && migration.deleted, "{migration}");
    let store = Redis::new(client.clone(), Join::Zero, true, 1000);
    assert_eq!(
        store.orders_of(courier(9)).await.unwrap(),
        [order(91), order(92)]
    );
    assert!(keys(&client).await.iter().all(|key| is_current(key)));
}

#[tokio::test]
async fn a_new_redis_needs_no_migration() {
    let server = Server::start().await;
    let client = connect(&server.socket()).await;
    assert!(!is_needed(&client).await.unwrap());
    let migration = migrate(&client, Join::Zero, false).await.unwrap();
    assert_eq!(migration.to_string(), "There is nothing to migrate.");
}

#[tokio::test]
async fn what_the_earlier_version_writes_after_a_migration_is_not_overlooked_and_its_data_not_deleted()
 {
    let server = Server::start().await;
    let client = connect(&server.socket()).await;
    write_old(&client, "").await;
    migrate(&client, Join::Zero, false).await.unwrap();
    assert!(!is_needed(&client).await.unwrap());
    let later = [
        "XADD",
        "{odyssey:couriers:W}:log",
        "9000000000000000-0",
        "outcome",
        "p",
    ];
    ask(&client, &later.map(str::to_owned)).await;
    assert!(is_needed(&client).await.unwrap());
    let old = keys(&client).await;
    let refused = migrate(&client, Join::Zero, true).await.unwrap_err();
    assert!(refused.to_string().contains("servers of both versions"));
    assert_eq!(keys(&client).await, old);
}

/// With another rule for newcomers than the log was written with.
#[tokio::test]
async fn a_migration_that_does_not_agree_leaves_everything_as_it_was() {
    let server = Server::start().await;
    let client = connect(&server.socket()).await;
    write_old(&client, "").await;
    let old = keys(&client).await;
    let migration = migrate(&client, Join::Min, true).await.unwrap();
    assert!(!migration.agrees() && !migration.deleted, "{migration}");
    assert!(old.is_subset(&keys(&client).await));
    assert!(is_needed(&client).await.unwrap());
}

#[tokio::test]
async fn data_that_cannot_be_migrated_is_refused_with_the_reason() {
    let server = Server::start().await;
    let client = connect(&server.socket()).await;
    write_old(&client, "").await;
    let refused = async || {
        let refused = migrate(&client, Join::Zero, true).await;
        refused.unwrap_err().to_string()
    };
    let moving = ["HSET", "{odyssey:couriers:S}:leaving", "1", "3"].map(str::to_owned);
    ask(&client, &moving).await;
    assert!(refused().await.contains("between two zones"));
    // A server of the earlier version was started on data of this one.
    let format = command("SET", "format", &["new"]);
    let _: String = client.ask(format).await.unwrap();
    assert!(refused().await.contains("servers of both versions"));
    assert!(is_needed(&client).await.unwrap());
}
