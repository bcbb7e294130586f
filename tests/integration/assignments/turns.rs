//! Plans that are asked for at the same time, that wait for their turn, or that no client waits for any longer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::available_parallelism;

use serde_json::{Value, json};
use tokio::sync::Barrier;

use super::{
    GIVEN, any_drivers, any_packages, assign, driver, expect_plan, holders, listed, lists, most,
    names, package, prepared, real_day, wanted,
};
use crate::client::{Answer, Ask, get, post, within};
use crate::packages::with;
use crate::shop::Shop;

/// Asks for all of these plans at once.
async fn at_once(shop: &Shop, wanted: Vec<Value>) -> Vec<(Value, Answer)> {
    let start = Arc::new(Barrier::new(wanted.len()));
    let asking: Vec<_> = wanted
        .into_iter()
        .map(|wanted| {
            let (door, start) = (shop.staff, Arc::clone(&start));
            tokio::spawn(async move {
                let mut connection = door.connect().await;
                start.wait().await;
                let answer = connection.ask(&assign(&wanted)).await;
                (wanted, answer)
            })
        })
        .collect();
    let mut answers = Vec::new();
    for asked in asking {
        answers.push(within("a plan", asked).await.unwrap());
    }
    answers
}

#[tokio::test]
async fn twenty_who_ask_for_the_same_plan_at_once_get_the_same_plan() {
    let day = real_day();
    let shop = prepared(&day).await;
    let wanted = wanted(&names(&day, "drivers"), 4);
    let answers = at_once(&shop, vec![wanted.clone(); 20]).await;
    let first = expect_plan(&day, &wanted, &answers[0].1);
    for (_, answer) in &answers {
        assert_eq!(expect_plan(&day, &wanted, answer), first);
    }
    let held = holders(&listed(&shop, "").await);
    assert_eq!(held.len(), most(&day, 4, &BTreeMap::new()));
    assert_eq!(shop.metrics().await.count(GIVEN), held.len());
    shop.close().await;
}

#[tokio::test]
async fn twenty_who_ask_for_overlapping_drivers_at_once_never_get_a_package_twice() {
    let day = lists(&any_drivers(10), &any_packages(45));
    let shop = prepared(&day).await;
    let drivers = names(&day, "drivers");
    let overlapping = (0..20).map(|number| {
        let some: Vec<_> = (0..4).map(|next| &drivers[(number + next) % 10]).collect();
        wanted(&some, 3 + u32::from(number % 2 == 0))
    });
    for (wanted, answer) in at_once(&shop, overlapping.collect()).await {
        // Another request may have given a driver more than this one asked for.
        expect_plan(&day, &with(&wanted, "max_per_driver", 4), &answer);
    }
    let held = holders(&listed(&shop, "").await);
    for name in &drivers {
        let has = held.values().filter(|holder| *holder == name).count();
        assert!((3..=4).contains(&has), "{name} has {has}");
    }
    let all = wanted(&drivers, 5);
    let answer = shop.staff.ask(assign(&all)).await;
    let plan = expect_plan(&day, &all, &answer);
    assert_eq!(plan.values().map(Vec::len).sum::<usize>(), 45);
    shop.close().await;
}

const RUNNING: &str = "odyssey_assignments_plans{state=\"running\"}";

const WAITING: &str = "odyssey_assignments_plans{state=\"waiting\"}";

const CANCELLED: &str = "odyssey_assignments_plans_cancelled_total";

/// Requests that may wait for their turn, as ARCHITECTURE.md states.
const PLANS_WAITING_MAX: usize = 100;

/// A day whose plan takes a second or two: nearly every package and every driver is of a kind of its own.
fn long_day() -> Value {
    const DRIVERS: usize = 300;
    const PACKAGES: usize = 12_000;
    let mut random = fastrand::Rng::with_seed(14);
    let mut halves = |most: u8| f64::from(random.u8(1..2 * most)) / 2.0;
    let drivers: Vec<Value> = (0..DRIVERS)
        .map(|number| {
            let start = number % 18;
            let rules = [
                (
                    "TIME_WINDOW",
                    json!({"start_hour": start, "end_hour": start + 5}),
                ),
                ("MAX_WEIGHT", json!({"limit_kg": halves(20)})),
                ("MAX_DISTANCE", json!({"max_km": halves(60)})),
            ];
            driver(&format!("d-{number:03}"), &rules)
        })
        .collect();
    let packages: Vec<Value> = (0..PACKAGES)
        .map(|number| {
            let mut package = package(&format!("p-{number:05}"));
            package["weight_kg"] = json!(halves(20));
            package["distance_km"] = json!(halves(60));
            package["delivery_hour"] = json!(number % 24);
            package
        })
        .collect();
    lists(&drivers, &packages)
}

/// A request for the long day's plan that changes nothing.
fn long_plan(day: &Value) -> Ask {
    let wanted = with(&wanted(&names(day, "drivers"), 39), "dry_run", true);
    post("/assign").json(&wanted)
}

#[tokio::test]
async fn a_client_that_leaves_has_its_plan_cancelled_long_before_it_would_be_done() {
    let day = long_day();
    let shop = prepared(&day).await;
    for number in 1..=3 {
        let leaving = shop.staff.hold(long_plan(&day));
        shop.until("it is planned", |now| now.count(RUNNING) == 1)
            .await;
        leaving.leave().await;
        // It is counted only if it ended before it was done.
        shop.until("its plan has ended", |now| {
            now.count(CANCELLED) == number && now.count(RUNNING) == 0
        })
        .await;
    }
    shop.close().await;
}

#[tokio::test]
async fn more_clients_than_processors_wait_for_their_turn_and_beyond_a_bound_are_told_to_come_back()
{
    let processors = available_parallelism().unwrap().get();
    let day = long_day();
    let shop = prepared(&day).await;
    let most = processors + PLANS_WAITING_MAX;
    let clients: Vec<_> = (0..most)
        .map(|_| shop.staff.hold(long_plan(&day)))
        .collect();
    shop.until("as many plan as may, and the others wait", |now| {
        assert!(now.count(RUNNING) <= processors);
        now.count(RUNNING) == processors && now.count(WAITING) == PLANS_WAITING_MAX
    })
    .await;
    let refused = shop.staff.ask(long_plan(&day)).await;
    refused.expect_problem(503, "planning-busy");
    assert!(refused.retry_after() >= 1);
    // The rest of the desk goes on.
    shop.staff.ask(get("/assignments")).await.expect(200);
    for client in clients {
        client.leave().await;
    }
    shop.until("nobody plans or waits", |now| {
        now.count(RUNNING) + now.count(WAITING) == 0
    })
    .await;
    shop.close().await;
}
