//! Couriers in Redis, which several servers share, and which may go away.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::redis::Redis;
use testkit::until;
use tokio::time::sleep;
use uuid::Uuid;

use crate::client::{Door, get};
use crate::couriers::{
    ZONES, courier, courier_of, kill_again_and_again, order, orders_of, play_scenarios,
    post_events, publish_events, replayed, scenarios_to_run,
};
#[cfg(feature = "aws")]
use crate::couriers_queues::{scenarios, scenarios_of_two};
use crate::durability::Seed;
use crate::shop::{Shop, odyssey, variable};

fn settings(url: &str) -> [(&str, &str); 2] {
    [("couriers.store", "redis"), ("redis.url", url)]
}

#[tokio::test]
async fn orders_told_of_before_their_couriers_find_them_in_redis_many_times_in_a_row() {
    let redis = Redis::durable().await;
    play_scenarios(&settings(&redis.socket())).await;
}

#[tokio::test]
async fn the_couriers_in_redis_of_a_server_that_is_killed_again_and_again_keep_their_orders() {
    let redis = Redis::durable().await;
    kill_again_and_again(&settings(&redis.socket())).await;
}

#[cfg(feature = "aws")]
#[tokio::test]
async fn orders_published_before_their_couriers_find_them_in_redis_many_times_in_a_row() {
    let redis = [Redis::durable().await, Redis::durable().await];
    let [dispatching, directing] = [redis[0].socket(), redis[1].socket()];
    scenarios(&settings(&dispatching), &settings(&directing)).await;
}

#[cfg(feature = "aws")]
#[tokio::test]
async fn two_dispatchers_on_one_queue_and_one_redis_give_each_order_once() {
    let redis = Redis::durable().await;
    let url = redis.socket();
    scenarios_of_two(&settings(&url)).await;
    let unused = tempfile::tempdir().unwrap();
    let message = replayed(unused.path(), &settings(&url));
    let orders = format!(" {} orders, 0 of them parked", 4 * scenarios_to_run());
    assert!(message.contains(&orders), "{message}");
}

/// Sends events one by one, each until it is accepted; returns their outcomes.
async fn publish_all(staff: Door, events: Vec<Value>) -> Vec<Value> {
    let mut outcomes = Vec::new();
    for event in events {
        loop {
            let answer = staff.ask(post_events(&event)).await;
            if answer.status == 202 {
                outcomes.push(answer.json()[0].clone());
                break;
            }
            answer.expect_problem(503, "storage-down");
            sleep(Duration::from_millis(10)).await;
        }
    }
    outcomes
}

/// Orders of all zones, and couriers who come, go and move between them.
fn a_busy_day(random: &mut fastrand::Rng) -> (Vec<Uuid>, Vec<Value>) {
    let orders: Vec<Uuid> = (0..200).map(|_| Uuid::new_v4()).collect();
    let mut events = Vec::new();
    for &id in &orders {
        events.push(order(id, ZONES[random.usize(..4)]));
        if random.u8(..3) == 0 {
            let id = Uuid::from_u128(random.u128(1..9));
            events.push(courier(id, ZONES[random.usize(..4)], random.u8(..4) > 0));
        }
    }
    (orders, events)
}

/// Adds an available courier to each zone; then every order has a courier, both lookups agree, and counts are
/// assignments.
async fn everything_is_assigned(staff: Door, orders: &[Uuid]) -> BTreeMap<Uuid, String> {
    for (number, zone) in (100..).zip(ZONES) {
        publish_events(staff, &courier(Uuid::from_u128(number), zone, true)).await;
    }
    let mut whose = BTreeMap::new();
    for &id in orders {
        let courier = courier_of(staff, id).await;
        whose.insert(id, courier.as_str().unwrap().to_owned());
    }
    let known = staff.ask(get("/couriers")).await.expect(200);
    let mut assigned = 0;
    for known in known["couriers"].as_array().unwrap() {
        let id: Uuid = known["courierId"].as_str().unwrap().parse().unwrap();
        let orders = orders_of(staff, id).await;
        assert_eq!(known["count"], json!(orders.len()), "{known}");
        assigned += orders.len();
        for order in orders {
            assert_eq!(whose[&order.parse().unwrap()], id.to_string());
        }
    }
    assert_eq!(assigned, orders.len());
    whose
}

#[tokio::test]
async fn two_dispatchers_on_one_redis_never_assign_an_order_twice() {
    let redis = Redis::durable().await;
    let url = redis.socket();
    let [one, other] = [
        Shop::open(&settings(&url)).await,
        Shop::open(&settings(&url)).await,
    ];
    let mut random = fastrand::Rng::with_seed(Seed::from_environment().0);
    let (orders, events) = a_busy_day(&mut random);
    // Both servers receive every event twice, in four streams at once, each in its own order.
    let mut publishers = Vec::new();
    for shop in [&one, &other] {
        for _ in 0..2 {
            let mut events = events.clone();
            random.shuffle(&mut events);
            publishers.push((
                events.clone(),
                tokio::spawn(publish_all(shop.staff, events)),
            ));
        }
    }
    let mut answered: BTreeMap<String, String> = BTreeMap::new();
    let mut first = 0;
    for (events, publisher) in publishers {
        for (event, outcome) in events.iter().zip(publisher.await.unwrap()) {
            let Some(id) = event["orderId"].as_str() else {
                assert_eq!(outcome["outcome"], "updated");
                continue;
            };
            first += usize::from(outcome["outcome"] != "duplicate");
            if let Some(courier) = outcome["courierId"].as_str() {
                let before = answered.insert(id.to_owned(), courier.to_owned());
                assert!(before.is_none_or(|before| before == courier), "{id}");
            }
        }
    }
    assert_eq!(first, orders.len(), "each is new to exactly one");
    let whose = everything_is_assigned(one.staff, &orders).await;
    for (id, courier) in answered {
        assert_eq!(whose[&id.parse().unwrap()], courier);
    }
    assert_eq!(everything_is_assigned(other.staff, &orders).await, whose);
    for shop in [one, other] {
        shop.close().await;
    }
    let unused = tempfile::tempdir().unwrap();
    replayed(unused.path(), &settings(&url));
}

/// Waits until the desk is ready, or is not.
async fn ready(staff: Door, status: u16) {
    until("readiness changes", async || {
        staff.ask(get("/readyz/couriers")).await.status == status
    })
    .await;
}

#[tokio::test]
async fn redis_stopped_and_started_forgets_nothing_that_was_answered() {
    let mut redis = Redis::durable().await;
    let url = redis.socket();
    let shop = Shop::open(&settings(&url)).await;
    let mut random = fastrand::Rng::with_seed(Seed::from_environment().0);
    let (orders, events) = a_busy_day(&mut random);
    let publisher = tokio::spawn(publish_all(shop.staff, events.clone()));
    let log = async || {
        let log = shop.staff.ask(get("/couriers/events?limit=1000")).await;
        (log.status == 200).then(|| log.json()["events"].as_array().unwrap().len())
    };
    for (stored, is_killed) in [(40, true), (100, false), (150, true)] {
        while log().await.is_some_and(|events| events < stored) {
            sleep(Duration::from_millis(2)).await;
        }
        if is_killed {
            redis.process.kill();
        } else {
            redis.process.terminate();
        }
        ready(shop.staff, 503).await;
        let away = shop.staff.ask(get("/couriers")).await;
        away.expect_problem(503, "storage-down");
        // It turns no customer away.
        let ready_for_orders = shop.staff.ask(get("/readyz")).await.expect(200);
        assert_eq!(ready_for_orders["components"][4]["state"], "down");
        redis.start_again().await;
        ready(shop.staff, 200).await;
    }
    let outcomes = publisher.await.unwrap();
    let whose = everything_is_assigned(shop.staff, &orders).await;
    for (event, outcome) in events.iter().zip(outcomes) {
        if let (Some(id), Some(courier)) =
            (event["orderId"].as_str(), outcome["courierId"].as_str())
        {
            assert_eq!(whose[&id.parse().unwrap()], courier);
        }
    }
    // The customers' listener is not affected.
    let customers = shop.customers.ask(get("/readyz")).await;
    assert_eq!(customers.status, 200);
    shop.close().await;
    let unused = tempfile::tempdir().unwrap();
    replayed(unused.path(), &settings(&url));
}

/// Tries to start a server with these settings, which it refuses: what it says.
fn refusal(mut command: Command, settings: &[(&str, &str)]) -> String {
    let data = tempfile::tempdir().unwrap();
    command.arg("serve").env(variable("data_dir"), data.path());
    for (key, value) in settings {
        command.env(variable(key), value);
    }
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_server_without_its_redis_says_which_key_is_wrong() {
    let message = refusal(odyssey(), &settings("redis+unix:///nowhere/redis.sock"));
    assert!(
        message.contains("configuration key `redis.url`"),
        "{message}"
    );
}

/// Runs a command on couriers to its end, successfully; returns what it says.
fn command(arguments: &[&str], settings: &[(&str, &str)]) -> String {
    let mut command = odyssey();
    command.args(arguments);
    for (key, value) in settings {
        command.env(variable(key), value);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn couriers_in_the_format_of_an_earlier_version_are_refused_until_they_are_migrated() {
    let redis = Redis::start().await;
    for line in include_str!("../data/couriers-in-redis-format-1.jsonl").lines() {
        let command: Vec<String> = serde_json::from_str(line).unwrap();
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        redis.ask(&command).await;
    }
    let url = redis.socket();
    let message = refusal(odyssey(), &settings(&url));
    assert!(message.contains("`odyssey couriers migrate`"), "{message}");
    let migrate = ["couriers", "migrate"];
    let message = command(&migrate, &settings(&url));
    let expected = "16 events, 3 couriers, 8 orders, 3 outgoing, 2 parked\n";
    assert_eq!(message, expected);
    let shop = Shop::open(&settings(&url)).await;
    let parked = shop.staff.ask(get("/couriers/parked")).await.expect(200);
    assert_eq!(parked["orders"].as_array().unwrap().len(), 2, "{parked}");
    shop.close().await;
    let message = command(&["couriers", "migrate", "--delete-old"], &settings(&url));
    assert!(message.contains("The old keys are deleted."), "{message}");
    let unused = tempfile::tempdir().unwrap();
    let message = replayed(unused.path(), &settings(&url));
    assert!(message.contains(" 8 orders, 2 of them parked"), "{message}");
}

#[tokio::test]
async fn redis_over_tls_is_reached_if_its_authority_is_trusted_and_refused_otherwise() {
    let redis = Redis::with_tls().await;
    let url = format!("rediss://{}", redis.address());
    let message = refusal(odyssey(), &settings(&url));
    assert!(
        message.contains("configuration key `redis.url`"),
        "{message}"
    );
    assert!(message.contains("certificate"), "{message}");
    let mut trusting = odyssey();
    trusting.env("SSL_CERT_FILE", redis.authority());
    let shop = Shop::run(trusting, &settings(&url)).await;
    let [id, ada] = [Uuid::new_v4(), Uuid::new_v4()];
    publish_events(
        shop.staff,
        &json!([order(id, "N"), courier(ada, "N", true)]),
    )
    .await;
    assert_eq!(courier_of(shop.staff, id).await, json!(ada));
    shop.close().await;
}

#[tokio::test]
async fn redis_without_memory_refuses_orders_and_loses_none_that_was_acknowledged() {
    let redis = Redis::start().await;
    let shop = Shop::open(&settings(&redis.url())).await;
    let ada = Uuid::new_v4();
    publish_events(shop.staff, &courier(ada, "N", true)).await;
    let memory = redis.ask(&["INFO", "memory"]).await;
    let used = memory
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    let used: u64 = used.unwrap().parse().unwrap();
    let limit = (used + 500_000).to_string();
    redis.ask(&["CONFIG", "SET", "maxmemory", &limit]).await;
    let mut acknowledged = Vec::new();
    let refused = loop {
        let orders: [Uuid; 20] = std::array::from_fn(|_| Uuid::new_v4());
        let events: Vec<Value> = orders.iter().map(|id| order(*id, "N")).collect();
        let answer = shop.staff.ask(post_events(&json!(events))).await;
        if answer.status != 202 {
            answer.expect_problem(503, "storage-down");
            break events;
        }
        acknowledged.extend(orders);
    };
    assert!(!acknowledged.is_empty(), "it refused the first");
    ready(shop.staff, 503).await;
    for id in &acknowledged {
        assert_eq!(courier_of(shop.staff, *id).await, json!(ada));
    }
    redis.ask(&["CONFIG", "SET", "maxmemory", "0"]).await;
    ready(shop.staff, 200).await;
    publish_events(shop.staff, &json!(refused)).await;
    let orders = orders_of(shop.staff, ada).await;
    assert_eq!(orders.len(), acknowledged.len() + refused.len());
    shop.close().await;
}

#[tokio::test]
async fn redis_that_begins_to_evict_is_refused_at_the_next_connection() {
    let redis = Redis::start().await;
    let shop = Shop::open(&settings(&redis.url())).await;
    let policy = async |policy: &str| {
        redis
            .ask(&["CONFIG", "SET", "maxmemory-policy", policy])
            .await;
    };
    policy("allkeys-lru").await;
    redis.ask(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    ready(shop.staff, 503).await;
    let answer = shop
        .staff
        .ask(post_events(&order(Uuid::new_v4(), "N")))
        .await;
    answer.expect_problem(503, "storage-down");
    until("the log names the policy", async || {
        shop.log().contains("it is allkeys-lru")
    })
    .await;
    policy("noeviction").await;
    ready(shop.staff, 200).await;
    publish_events(shop.staff, &order(Uuid::new_v4(), "N")).await;
    shop.close().await;
}
