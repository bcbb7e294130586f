//! A day: a clean run, and one answer that is corrupted.

use serde_json::{Value, json};

use super::{Does, Rule, simulate, simulate_behind};
use crate::client::get;
use crate::shop::Shop;

const MANIFEST: (&str, &str) = ("GET", "/manifest");
const ASSIGN: (&str, &str) = ("POST", "/assign");
const UPDATE: (&str, &str) = ("POST", "/update");
const LISTS: (&str, &str) = ("GET", "/assignments");

/// Three drivers; the first plan is the dry run, the second for an unknown driver, and the eighth one of those whose client
/// waits.
const DAY: [&str; 11] = [
    "day",
    "--drivers=3",
    "--packages=9",
    "--rules=few",
    "--max-per-driver=2",
    "--shifts=1",
    "--concurrency=1",
    "--duplicates=0%",
    "--patience=10s",
    "--seed=1",
    "--progress=none",
];

#[tokio::test]
async fn a_day_holds_against_a_server_that_does_what_it_should() {
    let shop = Shop::open(&[]).await;
    let arguments = [
        "day",
        "--drivers=30",
        "--packages=200",
        "--duplicates=30%",
        "--shifts=3",
    ];
    let outcome = simulate(&shop, &arguments).await;
    assert_eq!(outcome.failed(), [""; 0], "{outcome}");
    let report = &outcome.json()["day"];
    assert_ne!(report["delivered"], 0, "{outcome}");
    assert_ne!(report["strange"], 0, "{outcome}");
    shop.close().await;
}

#[tokio::test]
async fn lists_that_are_drawn_once_can_be_played_as_they_are() {
    let shop = Shop::open(&[]).await;
    let files = ["one.json", "other.json"].map(|name| shop.dir.path().join(name));
    for file in &files {
        let draw = format!("--draw={}", file.display());
        let arguments = ["day", "--drivers=5", "--packages=30", "--seed=7", &draw];
        assert!(simulate(&shop, &arguments).await.ok());
    }
    let [one, other] = files.each_ref().map(|file| std::fs::read(file).unwrap());
    assert_eq!(one, other, "the same seed draws the same");
    let manifest = format!("--manifest={}", files[0].display());
    let outcome = simulate(&shop, &["day", "--keep-ids", &manifest]).await;
    assert_eq!(outcome.failed(), [""; 0], "{outcome}");
    let listed = shop.staff.ask(get("/manifest")).await.expect(200);
    assert_eq!(listed["drivers"].as_array().unwrap().len(), 5);
    shop.close().await;
}

/// Takes the first driver's packages away.
fn robbed(plan: &Value) -> Value {
    let mut plan = plan.clone();
    let assignments = plan["assignments"].as_object_mut().unwrap();
    let (driver, packages) = assignments
        .iter_mut()
        .find(|(_, packages)| packages[0].is_string())
        .unwrap();
    let (driver, packages) = (driver.clone(), packages.take());
    plan["assignments"][&driver] = json!([]);
    let left = plan["unassigned_packages"].as_array_mut().unwrap();
    left.extend(packages.as_array().unwrap().clone());
    let idle = plan["unassigned_drivers"].as_array_mut().unwrap();
    idle.push(json!(driver));
    idle.sort_by_key(ToString::to_string);
    plan
}

#[tokio::test]
async fn each_corrupted_answer_of_a_day_fails_its_check() {
    let shop = Shop::open(&[]).await;
    let without_last = |list: &Value| json!(list.as_array().unwrap().split_last().unwrap().1);
    let heavier = |kg: &Value| json!(kg.as_f64().unwrap() + 1.0);
    for (route, nth, does, failed) in [
        (ASSIGN, 8, Does::Drop, &[][..]),
        (ASSIGN, 8, Does::Repeat, &[]),
        (UPDATE, 2, Does::Drop, &[]),
        (UPDATE, 2, Does::Repeat, &[]),
        (
            MANIFEST,
            2,
            Does::Alter("/packages/0/weight_kg", heavier),
            &["manifest kept"],
        ),
        (
            ASSIGN,
            1,
            Does::Alter("/assignments/another", |_| json!([])),
            &["plans name every driver"],
        ),
        (
            ASSIGN,
            1,
            Does::Alter("/unassigned_packages/0", |_| json!("p")),
            &["left behind exactly the rest"],
        ),
        (ASSIGN, 1, Does::Alter("", robbed), &["as many as possible"]),
        (ASSIGN, 2, Does::Status(404), &["unknown ones refused"]),
        (
            UPDATE,
            2,
            Does::Alter("/status", |_| json!("assigned")),
            &["answers to updates"],
        ),
        (
            UPDATE,
            2,
            Does::Alter("/weight_kg", heavier),
            &["answers to updates"],
        ),
        (
            LISTS,
            4,
            Does::Alter("/assignments", without_last),
            &["assignments by driver"],
        ),
    ] {
        let rule = Rule { route, nth, does };
        let outcome = simulate_behind(&shop, rule, &DAY).await;
        assert_eq!(outcome.failed(), failed, "{rule:?}: {outcome}");
    }
    shop.close().await;
}
