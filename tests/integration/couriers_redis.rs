//! Couriers in Redis, which several servers share, and which may go away.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::sleep;
use uuid::Uuid;

use crate::client::{Door, get, within};
use crate::couriers::{
    ZONES, courier, courier_of, kill_again_and_again, order, orders_of, play_scenarios, replayed,
    tell, told,
};
#[cfg(feature = "aws")]
use crate::couriers_queues::{scenarios, scenarios_of_two};
use crate::durability::Seed;
use crate::shop::{PATIENCE, Shop, odyssey, variable};

/// A Redis of a test's own that writes down what it answers, in a file of a directory that outlives it.
struct Redis {
    child: Child,
    directory: TempDir,
}

impl Redis {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            child: run(&directory),
            directory,
        }
    }

    fn url(&self) -> String {
        format!(
            "redis+unix://{}/redis.sock",
            self.directory.path().display()
        )
    }

    fn stop(&mut self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.child.wait().unwrap();
    }

    fn start_again(&mut self) {
        self.child = run(&self.directory);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Both fail if it has ended already, which is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn run(directory: &TempDir) -> Child {
    let socket = directory.path().join("redis.sock");
    // A server that was killed leaves it there.
    drop(std::fs::remove_file(&socket));
    let child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "redis-server", "--port", "0"])
        .args(["--unixsocket", "redis.sock", "--save", ""])
        .args(["--appendonly", "yes", "--appendfsync", "always"])
        .current_dir(directory.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server starts: `make test` installs it");
    let deadline = Instant::now() + PATIENCE;
    while std::os::unix::net::UnixStream::connect(&socket).is_err() {
        assert!(Instant::now() < deadline, "Redis does not start");
        std::thread::sleep(Duration::from_millis(2));
    }
    child
}

fn settings(url: &str) -> [(&str, &str); 2] {
    [("couriers.store", "redis"), ("redis.url", url)]
}

#[tokio::test]
async fn orders_told_of_before_their_couriers_find_them_in_redis_a_hundred_times_in_a_row() {
    let redis = Redis::start();
    play_scenarios(&settings(&redis.url())).await;
}

#[tokio::test]
async fn the_couriers_in_redis_of_a_server_that_is_killed_again_and_again_keep_their_orders() {
    let redis = Redis::start();
    kill_again_and_again(&settings(&redis.url())).await;
}

#[cfg(feature = "aws")]
#[tokio::test]
async fn orders_published_before_their_couriers_find_them_in_redis_a_hundred_times_in_a_row() {
    let redis = [Redis::start(), Redis::start()];
    let [dispatching, directing] = [redis[0].url(), redis[1].url()];
    scenarios(&settings(&dispatching), &settings(&directing)).await;
}

#[cfg(feature = "aws")]
#[tokio::test]
async fn two_dispatchers_on_one_queue_and_one_redis_give_each_order_once() {
    let redis = Redis::start();
    let url = redis.url();
    scenarios_of_two(&settings(&url)).await;
    let nowhere = tempfile::tempdir().unwrap();
    let said = replayed(nowhere.path(), &settings(&url));
    assert!(said.contains(" 100 orders, 0 of them parked"), "{said}");
}

/// Tells of events one by one, again and again until there is an answer. What each came to.
async fn tell_all(staff: Door, events: Vec<Value>) -> Vec<Value> {
    let mut outcomes = Vec::new();
    for event in events {
        loop {
            let answer = staff.ask(tell(&event)).await;
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

/// Orders of all zones, and couriers who come, go and move meanwhile.
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

/// At the end there is somebody everywhere: every order has a courier, each of both questions says so, and counts are
/// assignments.
async fn everything_is_assigned(staff: Door, orders: &[Uuid]) -> BTreeMap<Uuid, String> {
    for (number, zone) in (100..).zip(ZONES) {
        told(staff, &courier(Uuid::from_u128(number), zone, true)).await;
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
    let redis = Redis::start();
    let url = redis.url();
    let [one, other] = [
        Shop::open(&settings(&url)).await,
        Shop::open(&settings(&url)).await,
    ];
    let mut random = fastrand::Rng::with_seed(Seed::from_environment().0);
    let (orders, events) = a_busy_day(&mut random);
    // Both are told of everything, each in an order of its own, four at a time.
    let mut tellers = Vec::new();
    for shop in [&one, &other] {
        for _ in 0..2 {
            let mut events = events.clone();
            random.shuffle(&mut events);
            tellers.push((events.clone(), tokio::spawn(tell_all(shop.staff, events))));
        }
    }
    let mut answered: BTreeMap<String, String> = BTreeMap::new();
    let mut first = 0;
    for (events, teller) in tellers {
        for (event, outcome) in events.iter().zip(teller.await.unwrap()) {
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
    let nowhere = tempfile::tempdir().unwrap();
    replayed(nowhere.path(), &settings(&url));
}

/// Waits until the desk is ready, or is not.
async fn ready(staff: Door, status: u16) {
    while staff.ask(get("/readyz/couriers")).await.status != status {
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn redis_stopped_and_started_forgets_nothing_that_was_answered() {
    let mut redis = Redis::start();
    let url = redis.url();
    let shop = Shop::open(&settings(&url)).await;
    let mut random = fastrand::Rng::with_seed(Seed::from_environment().0);
    let (orders, events) = a_busy_day(&mut random);
    let teller = tokio::spawn(tell_all(shop.staff, events.clone()));
    let log = async || {
        let log = shop.staff.ask(get("/couriers/events?limit=1000")).await;
        (log.status == 200).then(|| log.json()["events"].as_array().unwrap().len())
    };
    for (kept, signal) in [(40, Signal::KILL), (100, Signal::TERM), (150, Signal::KILL)] {
        while log().await.is_some_and(|events| events < kept) {
            sleep(Duration::from_millis(2)).await;
        }
        redis.stop(signal);
        within("the staff hears of it", ready(shop.staff, 503)).await;
        let away = shop.staff.ask(get("/couriers")).await;
        away.expect_problem(503, "storage-down");
        // It turns no customer away.
        let ready_for_orders = shop.staff.ask(get("/readyz")).await.expect(200);
        assert_eq!(ready_for_orders["components"][4]["state"], "down");
        redis.start_again();
        within("the staff is served again", ready(shop.staff, 200)).await;
    }
    let outcomes = teller.await.unwrap();
    let whose = everything_is_assigned(shop.staff, &orders).await;
    for (event, outcome) in events.iter().zip(outcomes) {
        if let (Some(id), Some(courier)) =
            (event["orderId"].as_str(), outcome["courierId"].as_str())
        {
            assert_eq!(whose[&id.parse().unwrap()], courier);
        }
    }
    // Customers never heard of it.
    let customers = shop.customers.ask(get("/readyz")).await;
    assert_eq!(customers.status, 200);
    shop.close().await;
    let nowhere = tempfile::tempdir().unwrap();
    replayed(nowhere.path(), &settings(&url));
}

#[tokio::test]
async fn a_server_without_its_redis_says_which_key_is_wrong() {
    let mut command = odyssey();
    command.arg("serve");
    for (key, value) in settings("redis+unix:///nowhere/redis.sock") {
        command.env(variable(key), value);
    }
    let data = tempfile::tempdir().unwrap();
    command.env(variable("data_dir"), data.path());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("configuration key `redis.url`"), "{said}");
}
