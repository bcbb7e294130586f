//! Couriers and orders over HTTP, with a server that may end at any moment.

use std::collections::BTreeSet;
use std::path::Path;

use hyper::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::{Ask, Door, get, post};
use crate::durability::{number_from_environment, open};
use crate::shop::{Shop, odyssey, text, variable};
use crate::simulators::holds_while_killed;

/// How often the server is killed. `make soak` wants a thousand.
const ROUNDS: u64 = 10;
/// How often the scenario is played.
const SCENARIOS: u64 = 10;
/// Overrides that number; `make soak` runs a hundred.
const SCENARIOS_VARIABLE: &str = "SOAK_SCENARIOS";

pub(crate) fn scenarios_to_run() -> u64 {
    number_from_environment(SCENARIOS_VARIABLE).unwrap_or(SCENARIOS)
}

pub(crate) const ZONES: [&str; 4] = ["N", "S", "E", "W"];

pub(crate) fn courier(id: Uuid, zone: &str, available: bool) -> Value {
    json!({"courierId": id, "name": format!("courier {id}"), "zone": zone, "isAvailable": available})
}

pub(crate) fn order(id: Uuid, zone: &str) -> Value {
    json!({"orderId": id, "details": "Buy something", "zone": zone, "addedAt": "2021-07-18T10:22:10.170682Z"})
}

pub(crate) fn post_events(events: &Value) -> Ask {
    post("/events").json(events)
}

pub(crate) fn patch(courier: Uuid, message: &Value) -> Ask {
    Ask::new(Method::PATCH, format!("/courier/{courier}")).json(message)
}

/// Sends events; returns their outcomes.
pub(crate) async fn publish_events(door: Door, events: &Value) -> Vec<Value> {
    let outcomes = door.ask(post_events(events)).await.expect(202);
    outcomes.as_array().unwrap().clone()
}

pub(crate) async fn courier_of(door: Door, order: Uuid) -> Value {
    door.ask(get(format!("/courier?orderId={order}")))
        .await
        .expect(200)
}

pub(crate) async fn orders_of(door: Door, courier: Uuid) -> BTreeSet<String> {
    let orders = door
        .expect(get(format!("/orders?courierId={courier}")), 200)
        .await;
    orders.as_array().unwrap().iter().map(text).collect()
}

/// What `odyssey couriers replay` says of this data directory; it is content.
pub(crate) fn replayed(data: &Path, settings: &[(&str, &str)]) -> String {
    let mut command = odyssey();
    command.args(["couriers", "replay"]);
    command.env(variable("data_dir"), data);
    for (key, value) in settings {
        command.env(variable(key), value);
    }
    let output = command.output().unwrap();
    let message = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{message}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    message
}

#[tokio::test]
async fn orders_told_of_before_their_couriers_find_them_many_times_in_a_row() {
    play_scenarios(&[]).await;
}

/// Four orders, two in the north and two in the south, before John and Fred.
pub(crate) async fn play_scenarios(settings: &[(&str, &str)]) {
    let data = tempfile::tempdir().unwrap();
    let shop = open(data.path(), settings).await;
    let count = scenarios_to_run();
    for _ in 0..count {
        let orders: [Uuid; 4] = std::array::from_fn(|_| Uuid::new_v4());
        for (order_id, zone) in orders.iter().zip(["N", "S", "N", "S"]) {
            let outcomes = publish_events(shop.staff, &order(*order_id, zone)).await;
            assert_eq!(outcomes, [json!({"outcome": "parked"})]);
        }
        let waiting = shop
            .staff
            .ask(get(format!("/courier?orderId={}", orders[0])))
            .await;
        waiting.expect_problem(404, "order-parked");
        let [john, fred] = [Uuid::new_v4(), Uuid::new_v4()];
        for (id, zone) in [(john, "N"), (fred, "S")] {
            let outcomes = publish_events(shop.staff, &courier(id, zone, true)).await;
            assert_eq!(outcomes, [json!({"outcome": "updated", "unparked": 2})]);
        }
        for (place, id) in orders.iter().enumerate() {
            let whose = [john, fred][place % 2];
            assert_eq!(courier_of(shop.staff, *id).await, json!(whose));
        }
        let expected = |places: [usize; 2]| places.map(|place| orders[place].to_string()).into();
        assert_eq!(orders_of(shop.staff, john).await, expected([0, 2]));
        assert_eq!(orders_of(shop.staff, fred).await, expected([1, 3]));
        for id in [john, fred] {
            let done = shop
                .staff
                .ask(patch(id, &json!({"available": false})))
                .await;
            assert_eq!(done.expect(200), json!(true));
        }
    }
    shop.close().await;
    let message = replayed(data.path(), settings);
    let (events, couriers, orders) = (8 * count, 2 * count, 4 * count);
    let expected =
        format!("{events} events: {couriers} couriers, {orders} orders, 0 of them parked");
    assert!(message.starts_with(&expected), "{message}");
}

#[tokio::test]
async fn a_list_of_events_is_applied_as_a_whole_and_in_its_order() {
    let shop = Shop::open(&[]).await;
    let [ada, bo] = [Uuid::from_u128(1), Uuid::from_u128(2)];
    let orders: Vec<Uuid> = (10..13).map(Uuid::from_u128).collect();
    let events = json!([
        order(orders[0], "W"),
        courier(bo, "W", true),
        courier(ada, "W", true),
        order(orders[1], "W"),
        order(orders[2], "W"),
        order(orders[1], "W"),
    ]);
    let outcomes = publish_events(shop.staff, &events).await;
    assert_eq!(
        Value::from(outcomes),
        json!([
            {"outcome": "parked"},
            {"outcome": "updated", "unparked": 1},
            {"outcome": "updated", "unparked": 0},
            {"outcome": "assigned", "courierId": ada},
            {"outcome": "assigned", "courierId": ada},
            {"outcome": "duplicate", "courierId": ada},
        ])
    );
    let log = shop
        .staff
        .expect(get("/couriers/events?limit=4"), 200)
        .await;
    assert_eq!(log["next"], 4);
    assert_eq!(log["events"][3]["event"], events[3]);
    assert_eq!(log["events"][3]["courierId"], json!(ada));
    let rest = shop
        .staff
        .expect(get("/couriers/events?after=4&limit=4"), 200)
        .await;
    assert_eq!(rest["events"].as_array().unwrap().len(), 2);
    assert_eq!(rest.get("next"), None);
    let west = shop.staff.ask(get("/couriers?zone=W")).await.expect(200);
    assert_eq!(
        west["couriers"],
        json!([
            {"courierId": ada, "name": format!("courier {ada}"), "zone": "W", "isAvailable": true, "count": 2},
            {"courierId": bo, "name": format!("courier {bo}"), "zone": "W", "isAvailable": true, "count": 1},
        ])
    );
    let none = shop.staff.ask(get("/couriers?zone=N")).await.expect(200);
    assert_eq!(none, json!({"couriers": []}));
    assert_eq!(
        shop.staff.ask(get("/status")).await.expect(200),
        json!({"status": "ok"})
    );
    shop.close().await;
}

#[tokio::test]
async fn malformed_events_are_pointed_at_and_nothing_is_applied() {
    let shop = Shop::open(&[]).await;
    let good = courier(Uuid::from_u128(1), "N", true);
    let place = |name: &str, value: Value| {
        let mut event = order(Uuid::from_u128(2), "N");
        event[name] = value;
        event
    };
    let named = |name: &str, available: Value| json!({"courierId": Uuid::nil(), "name": name, "zone": "N", "isAvailable": available});
    for (event, name) in [
        (json!(7), ""),
        (json!({}), ""),
        (place("courierId", json!(Uuid::nil())), ""),
        (place("orderId", json!("no id")), "/orderId"),
        (place("zone", json!("n")), "/zone"),
        (place("addedAt", json!("yesterday")), "/addedAt"),
        (place("details", json!("x".repeat(10_001))), "/details"),
        (named("", json!(true)), "/name"),
        (named("A", json!(1)), "/isAvailable"),
    ] {
        for (body, pointer) in [
            (event.clone(), name.to_owned()),
            (json!([good, event]), format!("/1{name}")),
        ] {
            let refused = shop
                .staff
                .expect_problem(post_events(&body), 422, "invalid")
                .await;
            assert_eq!(refused["errors"][0]["pointer"], pointer, "{body}");
        }
    }
    let many = json!(vec![good; 1001]);
    shop.staff
        .expect_problem(post_events(&many), 422, "invalid")
        .await;
    shop.staff
        .expect_problem(post("/events").body("nonsense"), 400, "unreadable")
        .await;
    let log = shop.staff.ask(get("/couriers/events")).await.expect(200);
    assert_eq!(log, json!({"events": []}));
    assert_eq!(
        publish_events(shop.staff, &json!([])).await,
        Vec::<Value>::new()
    );
    shop.close().await;
}

#[tokio::test]
async fn a_patch_changes_what_it_says_and_needs_everything_of_a_stranger() {
    let shop = Shop::open(&[]).await;
    let id = Uuid::from_u128(7);
    let missing = shop.staff.ask(patch(id, &json!({"name": "Ada"}))).await;
    let missing = missing.expect_problem(422, "invalid");
    let pointers: Vec<_> = missing["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| &error["pointer"])
        .collect();
    assert_eq!(pointers, ["/zone", "/available"]);
    publish_events(shop.staff, &order(Uuid::from_u128(8), "S")).await;
    let message = json!({"name": "Ada", "zone": "S", "available": true});
    assert_eq!(
        shop.staff.ask(patch(id, &message)).await.expect(200),
        json!(true)
    );
    assert_eq!(courier_of(shop.staff, Uuid::from_u128(8)).await, json!(id));
    shop.staff
        .expect(patch(id, &json!({"zone": "E"})), 200)
        .await;
    let known = shop.staff.ask(get("/couriers")).await.expect(200);
    let expected =
        json!([{"courierId": id, "name": "Ada", "zone": "E", "isAvailable": true, "count": 1}]);
    assert_eq!(known["couriers"], expected);
    shop.staff
        .expect_problem(patch(id, &json!({"zone": "Z"})), 422, "invalid")
        .await;
    let unknown = Ask::new(Method::PATCH, "/courier/7").json(&message);
    shop.staff.ask(unknown).await.expect_problem(422, "invalid");
    shop.close().await;
}

#[tokio::test]
async fn two_who_change_different_parts_at_once_change_both() {
    let shop = Shop::open(&[]).await;
    let id = Uuid::from_u128(7);
    for round in 0..50 {
        publish_events(shop.staff, &courier(id, "S", true)).await;
        let name = format!("Ada {round}");
        let (message, renamed) = (json!({"available": false}), json!({"name": name}));
        let (left, renamed) = tokio::join!(
            shop.staff.ask(patch(id, &message)),
            shop.staff.ask(patch(id, &renamed)),
        );
        for answer in [left, renamed] {
            assert_eq!(answer.expect(200), json!(true));
        }
        let known = shop.staff.ask(get("/couriers")).await.expect(200);
        let known = &known["couriers"][0];
        assert_eq!(known["name"], json!(name));
        assert_eq!(known["isAvailable"], json!(false));
    }
    shop.close().await;
}

#[tokio::test]
async fn questions_that_make_no_sense_are_told_the_parameter() {
    let shop = Shop::open(&[]).await;
    for path in [
        "/orders",
        "/orders?courierId=7",
        "/courier",
        "/courier?orderId=x",
        "/couriers?zone=X",
        "/couriers/events?after=-1",
        "/couriers/events?limit=0",
        "/couriers/events?limit=1001",
    ] {
        shop.staff.expect_problem(get(path), 422, "invalid").await;
    }
    let unknown = format!("/courier?orderId={}", Uuid::nil());
    let unknown = shop
        .staff
        .expect_problem(get(unknown), 404, "courier-order-unknown")
        .await;
    assert_eq!(unknown["state"], "unknown");
    assert!(orders_of(shop.staff, Uuid::nil()).await.is_empty());
    shop.close().await;
}

#[tokio::test]
async fn the_couriers_of_a_server_that_is_killed_again_and_again_keep_their_orders() {
    kill_again_and_again(&[]).await;
}

pub(crate) async fn kill_again_and_again(settings: &[(&str, &str)]) {
    // More to publish than to ask for.
    let arguments = [
        "couriers",
        "--orders=150",
        "--changes=60",
        "--duplicates=30%",
    ];
    let replay = |data: &Path| drop(replayed(data, settings));
    holds_while_killed(ROUNDS, settings, &arguments, replay).await;
}
