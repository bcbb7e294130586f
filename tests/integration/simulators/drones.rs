//! Drones: a clean run, and one answer that is corrupted.

use serde_json::{Value, json};
use simulators::Env;
use testkit::until;

use super::{Does, Rule, simulate, simulate_behind, simulate_until};
use crate::client::get;
use crate::shop::Shop;

const EVENTS: (&str, &str) = ("POST", "/deliveries/*/events");
const HISTORY: (&str, &str) = ("GET", "/deliveries/*/events");
const COUNTS: (&str, &str) = ("GET", "/counts");

/// Two missions of four events, one after the other.
const MISSIONS: [&str; 11] = [
    "drones",
    "--fleet=1",
    "--missions=2",
    "--hops=1",
    "--leg=0s",
    "--crashes=0%",
    "--duplicates=0%",
    "--patience=10s",
    "--seed=1",
    "--speed=1",
    "--progress=none",
];

#[tokio::test]
async fn drones_hold_against_a_server_that_does_what_it_should() {
    let shop = Shop::open(&[]).await;
    let arguments = [
        "drones",
        "--missions=300",
        "--leg=0s",
        "--duplicates=20%",
        "--crashes=50%",
    ];
    let outcome = simulate(&shop, &arguments).await;
    assert_eq!(outcome.failed(), [""; 0], "{outcome}");
    let report = &outcome.json()["drones"];
    assert_eq!(report["missions"]["begun"], 300, "{outcome}");
    shop.close().await;
}

#[tokio::test]
async fn drones_that_fly_without_end_are_stopped_and_leave_missions_as_they_are() {
    let shop = Shop::open(&[]).await;
    let env = Env::quiet();
    let closing = env.closing.clone();
    let arguments = [
        "drones",
        "--keep-flying",
        "--leg=0s",
        "--fleet=4",
        "--hops=50",
    ];
    let after_some = async {
        until("some missions have begun", async || {
            let counts = shop.staff.ask(get("/counts")).await.expect(200);
            counts["total"].as_u64().unwrap() > 6
        })
        .await;
        closing.cancel();
    };
    let (outcome, ()) = tokio::join!(simulate_until(&shop, env, &arguments), after_some);
    assert_eq!(outcome.failed(), [""; 0], "{outcome}");
    assert!(outcome.json()["drones"]["missions"]["planned"].is_null());
    shop.close().await;
}

#[tokio::test]
async fn each_corrupted_answer_to_a_drone_fails_its_check() {
    let shop = Shop::open(&[]).await;
    let more = |number: &Value| json!(number.as_u64().unwrap() + 1);
    for (route, nth, does, failed) in [
        (EVENTS, 2, Does::Drop, &[][..]),
        (EVENTS, 2, Does::Status(503), &[]),
        (EVENTS, 2, Does::Repeat, &["acknowledgements"]),
        (
            EVENTS,
            2,
            Does::Alter("/type", |_| json!("LANDED")),
            &["acknowledgements"],
        ),
        (
            EVENTS,
            2,
            Does::Alter("/received_at", |_| json!(null)),
            &["acknowledgements"],
        ),
        (
            EVENTS,
            2,
            Does::Alter("/sequence", more),
            &["sequences", "acknowledgements"],
        ),
        (
            COUNTS,
            2,
            Does::Alter("/total", more),
            &["total of deliveries"],
        ),
        (
            COUNTS,
            2,
            Does::Alter("/ongoing", more),
            &["ongoing deliveries"],
        ),
        (
            HISTORY,
            1,
            Does::Alter("/ongoing", |_| json!(true)),
            &["histories of the last missions"],
        ),
        (
            HISTORY,
            2,
            Does::Alter("/events/1/sequence", more),
            &["histories of the last missions"],
        ),
        (
            HISTORY,
            2,
            Does::Status(404),
            &["histories of the last missions"],
        ),
    ] {
        let rule = Rule { route, nth, does };
        let outcome = simulate_behind(&shop, rule, &MISSIONS).await;
        assert_eq!(outcome.failed(), failed, "{rule:?}: {outcome}");
    }
    // Every event is sent twice, and the second answer is another one.
    let rule = Rule {
        route: EVENTS,
        nth: 4,
        does: Does::Alter("/received_at", |_| json!("2026-01-01T00:00:00Z")),
    };
    let twice = MISSIONS.map(|argument| argument.replace("duplicates=0%", "duplicates=100%"));
    let outcome = simulate_behind(&shop, rule, &twice.each_ref().map(String::as_str)).await;
    assert_eq!(outcome.failed(), ["duplicates"], "{outcome}");
    shop.close().await;
}
