mod disturbed;
mod failover;

use testkit::redis::{Redis as Server, SharedCluster};

use super::super::replay::replay;
use super::super::store::contract;
use super::*;
use crate::storage::config;
use crate::storage::preflight::Findings;
use crate::storage::redis::Call;

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
    async fn zones_are_on_several_nodes() {
        let cluster = SharedCluster::lock().await;
        let store = store(&cluster.url(), Join::Zero).await;
        let everywhere = Zone::ALL.into_iter().zip(1..);
        let orders = everywhere.map(|(zone, number)| contract::placed(number, zone, 1));
        contract::tell(&store, orders.collect(), contract::at(1)).await;
        let keys = cluster.ask_all(&["KEYS", "{odyssey:couriers:*"]).await;
        let with_zones = keys.iter().filter(|keys| !keys.is_empty()).count();
        assert!(with_zones > 1, "a test on one node shows nothing");
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

/// A process that restarted or stalled acts on a home zone that is out of date.
#[tokio::test]
async fn what_somebody_begins_who_has_slept_moves_nobody_back() {
    let server = Server::start().await;
    let store = store(&server.socket(), Join::Zero).await;
    let moves = [Zone::N, Zone::S, Zone::E].map(|zone| contract::says(7, zone, true));
    contract::tell(&store, moves.into(), contract::at(1)).await;
    let courier = contract::courier(7).to_string();
    let event = notation::written(&contract::says(7, Zone::N, true)).unwrap();
    let client = connect(&server.socket()).await;
    let ask = async |zone, verb: &str, arguments: &[&str]| {
        let arguments = [&[verb, "1", "zero", "1", &courier], arguments].concat();
        let call = Call {
            keys: notation::zone_keys(zone),
            arguments: arguments.into_iter().map(str::to_owned).collect(),
        };
        let answer: (String, String) = client.run(&writer::ZONE, call).await.unwrap();
        answer
    };
    let gone = ("gone".to_owned(), String::new());
    // They were in N first, where they were new, and went to S, and then to E.
    assert_eq!(ask(Zone::N, "say", &["1", "Ada", "1", &event]).await, gone);
    assert_eq!(ask(Zone::N, "leave", &["1", "N", &event]).await, gone);
    assert_eq!(ask(Zone::S, "say", &["2", "Ada", "1", &event]).await, gone);
    let (done, _) = ask(Zone::S, "arrive", &["2", "Ada", "1", &event, "0", "1"]).await;
    assert_eq!(done, "done");
    // The same while they are between two zones.
    let (done, takes) = ask(Zone::E, "leave", &["3", "E", &event]).await;
    assert_eq!(done, "done");
    let arrive = ["3", "Ada", "1", &event, "0", "1"];
    let (done, _) = ask(Zone::E, "arrive", &arrive).await;
    assert_eq!(done, "done");
    let say = ask(Zone::E, "say", &["3", "Ada", "1", &event]).await;
    assert_eq!(say, ("gone".to_owned(), takes));
    let couriers = store.couriers(None).await.unwrap();
    assert_eq!(couriers.len(), 1);
    assert_eq!(couriers[0].said.zone, Zone::N);
}

#[tokio::test]
async fn events_are_shown_at_once_and_in_their_order_after_a_clock_that_was_ahead_is_put_right() {
    let server = Server::start().await;
    let store = store(&server.socket(), Join::Zero).await;
    let client = connect(&server.socket()).await;
    contract::tell(
        &store,
        vec![contract::says(1, Zone::N, true)],
        contract::at(1),
    )
    .await;
    // An hour ahead, as its node's clock was.
    let ahead = (Timestamp::now().as_microsecond() + 3_600_000_000).to_string();
    let set = command("SET", &zone_key(Zone::N, "clock"), &[&ahead]);
    let _: String = client.ask(set).await.unwrap();
    let mut shown = store.events(0, 100).await.unwrap().len();
    assert_eq!(shown, 1);
    for (courier, zone) in [
        (2, Zone::N),
        (3, Zone::S),
        (4, Zone::N),
        (5, Zone::W),
        (6, Zone::E),
    ] {
        contract::tell(
            &store,
            vec![contract::says(courier, zone, true)],
            contract::at(2),
        )
        .await;
        let events = store.events(0, 100).await.unwrap();
        shown += 1;
        assert_eq!(events.len(), shown, "each is shown at once");
        let Event::Courier(last) = &events[shown - 1].event else {
            panic!("{events:?}");
        };
        assert_eq!(last.id, contract::courier(courier), "behind all before");
    }
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
async fn after_a_script_was_forgotten_only_the_calls_that_failed_are_sent_again() {
    let server = Server::start().await;
    let client = connect(&server.socket()).await;
    let script = redis::Script::new("return redis.call('INCR', KEYS[1])");
    let call = |key: &str| Call {
        keys: vec![key.to_owned()],
        arguments: Vec::new(),
    };
    let flush = || {
        let mut flush = redis::cmd("SCRIPT");
        flush.arg("FLUSH");
        flush
    };
    // A cache that is empty from the start: each is called once.
    let _: String = client.ask(flush()).await.unwrap();
    let calls = [call("a"), call("b")];
    let answers: Vec<u64> = client.run_all(&script, &calls).await.unwrap();
    assert_eq!(answers, [1, 1]);
    // Another client flushes the cache again and again: no call runs twice.
    let emptied = client.clone();
    let emptying = tokio::spawn(async move {
        loop {
            let _: Result<String, _> = emptied.ask(flush()).await;
        }
    });
    let calls: Vec<Call> = (0..100).map(|place| call(&format!("k{place}"))).collect();
    let mut sent = 0;
    for _ in 0..200 {
        sent += 1;
        // If it is forgotten twice in a row, that is an error; what was called was called once all the same.
        let _: Result<Vec<u64>, _> = client.run_all(&script, &calls).await;
    }
    emptying.abort();
    let counts = calls.iter().map(|call| {
        let mut get = redis::cmd("GET");
        get.arg(&call.keys);
        get
    });
    let counts: Vec<Option<u64>> = client.ask_all(counts.collect()).await.unwrap();
    let most = counts.into_iter().flatten().max();
    assert!(most.is_some_and(|most| most <= sent), "{most:?} of {sent}");
}
