mod disturbed;
mod failover;
mod migrated;

use testkit::redis::{Redis as Server, SharedCluster};

use super::super::replay::replay;
use super::super::store::contract;
use super::*;
use crate::storage::config;
use crate::storage::preflight::Findings;

async fn connect(url: &str) -> Client {
    Client::connect(config::Redis::at(url), Findings::default())
        .await
        .unwrap()
}

async fn store(url: &str, join: Join) -> Redis {
    Redis::new(connect(url).await, join, true, 1000)
}

/// The rights that `docs/operating.md` gives are enough for everything that the desk does.
#[tokio::test]
async fn a_user_with_the_least_rights_can_do_everything() {
    let text = include_str!("../../../docs/operating.md");
    let rights = text
        .lines()
        .find_map(|line| line.strip_prefix("ACL SETUSER odyssey "));
    let rights = rights
        .expect("they are written down")
        .replace("PASSWORD", "secret");
    let more = text
        .lines()
        .find_map(|line| line.strip_prefix("The command needs some more rights: `"));
    let more = more.and_then(|line| line.split('`').next()).unwrap();
    let server = Server::start().await;
    let rights = rights.split(' ');
    let user: Vec<&str> = ["ACL", "SETUSER", "odyssey"]
        .into_iter()
        .chain(rights)
        .collect();
    server.ask(&user).await;
    let url = format!("{}?user=odyssey&pass=secret", server.socket());
    let store = store(&url, Join::Min).await;
    let events = vec![
        contract::placed(1, Zone::N, 1),
        contract::says(1, Zone::N, true),
        contract::says(1, Zone::S, true),
        contract::says(1, Zone::S, false),
        contract::placed(2, Zone::W, 2),
    ];
    contract::tell(&store, events, contract::at(1)).await;
    let orders = [contract::order(1), contract::order(2)];
    contract::consistent(&store, Join::Min, &orders).await;
    assert_eq!(store.orders().await.unwrap().len(), 2);
    let outgoing = store.outgoing(10).await.unwrap();
    let numbers = outgoing.iter().map(|it| it.number);
    store.mark_published(numbers.collect()).await.unwrap();
    let learned = Assignment {
        order_id: contract::order(9),
        courier_id: contract::courier(1),
    };
    store.replicate(vec![learned]).await.unwrap();
    assert!(store.order(contract::order(9)).await.unwrap().is_some());
    assert_eq!(store.state().down, None);
    assert!(!migration::is_needed(&store.client).await.unwrap());
    // The migration, and no server, needs more.
    server.ask(&["FLUSHALL"]).await;
    let more = ["ACL", "SETUSER", "odyssey"]
        .into_iter()
        .chain(more.split(' '));
    migrated::write_old(&connect(&server.socket()).await, "").await;
    assert!(
        migration::migrate(&store.client, Join::Zero, true)
            .await
            .is_err()
    );
    server.ask(&more.collect::<Vec<&str>>()).await;
    let migration = migration::migrate(&store.client, Join::Zero, true).await;
    assert!(migration.unwrap().agrees());
}

/// A server of an earlier version has applied events, or all are from before there was a tally.
#[tokio::test]
async fn a_tally_that_lacks_events_is_made_again() {
    let server = Server::start().await;
    let store = store(&server.socket(), Join::Zero).await;
    let orders = [1, 2, 3].map(contract::order);
    let key = key("tally");
    for (number, stale) in [
        (1, &["DEL", &key][..]),
        (2, &["HSET", &key, "at", "0-1", "N:given", "7"]),
        (3, &["HDEL", &key, "at"]),
    ] {
        let zone = if number == 2 { Zone::S } else { Zone::N };
        let events = vec![
            contract::says(number, Zone::N, number == 3),
            contract::placed(number, zone, 1),
        ];
        contract::tell(&store, events, contract::at(1)).await;
        server.ask(stale).await;
        // Applied without counting.
        let again = vec![contract::says(number, Zone::N, true)];
        contract::tell(&store, again, contract::at(2)).await;
        let known = &orders[..usize::try_from(number).unwrap()];
        contract::consistent(&store, Join::Zero, known).await;
    }
}

mod one_server {
    use super::*;

    contract::suite!(
        async |join| {
            let server = Server::start().await;
            (store(&server.socket(), join).await, server)
        },
        48
    );
}

mod a_cluster {
    use super::*;

    contract::suite!(
        async |join| {
            let cluster = SharedCluster::lock().await;
            (store(&cluster.url(), join).await, cluster)
        },
        24
    );

    #[tokio::test]
    async fn all_keys_are_on_one_node() {
        let cluster = SharedCluster::lock().await;
        let store = store(&cluster.url(), Join::Zero).await;
        let everywhere = Zone::ALL.into_iter().zip(1..);
        let orders = everywhere.map(|(zone, number)| contract::placed(number, zone, 1));
        contract::tell(&store, orders.collect(), contract::at(1)).await;
        let keys = cluster.ask_all(&["KEYS", "*"]).await;
        let with_keys = keys.iter().filter(|keys| !keys.is_empty()).count();
        assert_eq!(with_keys, 1, "{keys:?}");
    }

    #[tokio::test]
    async fn what_the_earlier_version_has_written_to_several_nodes_is_migrated() {
        let cluster = SharedCluster::lock().await;
        migrated::migrates(&connect(&cluster.url()).await).await;
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]

    #[test]
    fn two_dispatchers_that_end_between_any_two_steps_lose_and_double_nothing(events in contract::events(), seed: u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = Server::start().await;
            let open = async |commands: Option<i64>| {
                let client = connect(&server.socket()).await;
                let client = match commands {
                    Some(commands) => client.ending_after(commands),
                    None => client,
                };
                Redis::new(client, Join::Zero, true, 1000)
            };
            contract::survives(open, async |_| (), events, seed, 2).await;
        });
    }
}

#[tokio::test]
async fn the_log_told_again_to_a_database_comes_to_what_is_in_redis() {
    let server = Server::start().await;
    let live = store(&server.socket(), Join::Min).await;
    let mut events = vec![
        contract::placed(1, Zone::N, 1),
        contract::placed(2, Zone::E, 1),
    ];
    events.extend((1..5).map(|number| contract::says(number, Zone::N, true)));
    events.extend((3..9).map(|number| contract::placed(number, Zone::N, 2)));
    events.push(contract::says(1, Zone::E, true));
    contract::tell(&live, events, contract::at(1)).await;
    let (fresh, _directory) = super::super::sqlite::tests::fresh(Join::Min);
    let comparison = replay(&live, &fresh).await.unwrap();
    assert!(comparison.agrees(), "{comparison}");
    assert_eq!((comparison.couriers, comparison.orders), (4, 8));
}

/// Numbers without gaps, from 1 on, also those of duplicates and of several events of one script.
#[tokio::test]
async fn events_are_numbered_from_1_on_without_a_gap() {
    let server = Server::start().await;
    let store = store(&server.socket(), Join::Zero).await;
    let mut events = vec![contract::says(1, Zone::N, true)];
    events.extend((0..250).map(|number| contract::placed(number % 200, Zone::N, 1)));
    contract::tell(&store, events, contract::at(1)).await;
    let numbers = async |after, limit| {
        let events = store.events(after, limit).await.unwrap();
        events.iter().map(|it| it.number).collect::<Vec<u64>>()
    };
    assert_eq!(numbers(0, 1000).await, (1..=251).collect::<Vec<u64>>());
    assert_eq!(numbers(249, 1).await, [250]);
    assert!(numbers(251, 10).await.is_empty());
}

/// More than one command of the script can take, in both directions.
#[tokio::test]
async fn thousands_of_parked_orders_find_their_courier_at_once_and_in_their_order() {
    let server = Server::start().await;
    let store = store(&server.socket(), Join::Zero).await;
    // The last one was placed first.
    let numbered = (0..2500).zip((0..2500).rev());
    let orders = numbered.map(|(number, second)| contract::placed(number, Zone::N, second));
    contract::tell(&store, orders.collect(), contract::at(1)).await;
    assert_eq!(store.parked(0).await, Ok((Vec::new(), 2500)));
    assert_eq!(store.parked(2100).await.unwrap().0.len(), 2100);
    let ida = vec![contract::says(1, Zone::N, true)];
    let outcomes = contract::tell(&store, ida, contract::at(2)).await;
    assert_eq!(outcomes, [Outcome::Updated { unparked: 2500 }]);
    let outgoing = store.outgoing(2500).await.unwrap();
    let assigned = outgoing.iter().map(|it| it.assignment.order_id);
    assert!(assigned.eq((0..2500).rev().map(contract::order)));
    let numbers = outgoing.iter().map(|it| it.number);
    store.mark_published(numbers.collect()).await.unwrap();
    assert!(store.outgoing(1).await.unwrap().is_empty());
    let orders: Vec<OrderId> = (0..2500).map(contract::order).collect();
    contract::consistent(&store, Join::Zero, &orders).await;
}

#[tokio::test]
async fn whoever_moves_is_seen_once_whenever_one_looks() {
    let server = Server::start().await;
    let [store, other] = [
        store(&server.socket(), Join::Zero).await,
        store(&server.socket(), Join::Zero).await,
    ];
    contract::tell(
        &store,
        vec![contract::says(1, Zone::N, true)],
        contract::at(1),
    )
    .await;
    let moving = tokio::spawn(async move {
        for round in 0..200 {
            let to = Zone::ALL[round % 4];
            contract::tell(&store, vec![contract::says(1, to, true)], contract::at(2)).await;
        }
    });
    let mut looks = 0;
    while !moving.is_finished() {
        assert_eq!(other.couriers(None).await.unwrap().len(), 1);
        let id = contract::courier(1);
        assert!(other.courier(id).await.unwrap().is_some());
        looks += 1;
    }
    moving.await.unwrap();
    assert!(looks > 10, "{looks}");
}

#[tokio::test]
async fn a_script_that_was_forgotten_is_sent_again_and_runs_once() {
    let server = Server::start().await;
    let client = connect(&server.socket()).await;
    let script = Script::new("return redis.call('INCR', KEYS[1])", ["count".to_owned()]);
    // Another client flushes the cache again and again: no call runs twice, and none is missing.
    let emptied = client.clone();
    let emptying = tokio::spawn(async move {
        loop {
            let mut flush = redis::cmd("SCRIPT");
            flush.arg("FLUSH");
            let _: Result<String, _> = emptied.ask(flush).await;
        }
    });
    for number in 1..=500 {
        let count: u64 = client.run::<_, &str>(&script, &[]).await.unwrap();
        assert_eq!(count, number);
    }
    emptying.abort();
}
