//! Couriers: a clean run, and one answer that is corrupted.

use serde_json::{Value, json};

use super::{Does, Rule, simulate, simulate_behind};
use crate::shop::Shop;

const EVENTS: (&str, &str) = ("POST", "/events");
const LOG: (&str, &str) = ("GET", "/couriers/events");
const COURIER: (&str, &str) = ("GET", "/courier");
const COURIERS: (&str, &str) = ("GET", "/couriers");
const ORDERS: (&str, &str) = ("GET", "/orders");
const PARKED: (&str, &str) = ("GET", "/couriers/parked");

/// The first request is of orders only.
const FEW: [&str; 8] = [
    "couriers",
    "--orders=24",
    "--couriers=8",
    "--connections=1",
    "--duplicates=0%",
    "--patience=10s",
    "--seed=1",
    "--progress=none",
];

const ONE_COURIER: &str = "answers name one courier";
const AS_LOGGED: &str = "all is as the log has it";

#[tokio::test]
async fn couriers_hold_against_a_server_that_does_what_it_should() {
    for (join, counts) in [("zero", "--join=zero"), ("min", "--join=min")] {
        let shop = Shop::open(&[("couriers.join", join)]).await;
        let arguments = ["couriers", "--orders=300", "--duplicates=30%", counts];
        let outcome = simulate(&shop, &arguments).await;
        assert_eq!(outcome.failed(), [""; 0], "{outcome}");
        assert_ne!(
            outcome.json()["couriers"]["outcomes"]["parked"],
            0,
            "{outcome}"
        );
        shop.close().await;
    }
}

#[tokio::test]
async fn each_corrupted_answer_about_couriers_fails_its_check() {
    let more = |number: &Value| json!(number.as_u64().unwrap() + 1);
    let another = |_: &Value| json!("00000000-0000-4000-8000-000000000000");
    for (route, nth, does, failed) in [
        (EVENTS, 1, Does::Drop, &[][..]),
        (EVENTS, 1, Does::Status(503), &[]),
        (EVENTS, 1, Does::Repeat, &[ONE_COURIER]),
        (
            EVENTS,
            1,
            Does::Alter("/0/outcome", |_| json!("assigned")),
            &["outcomes fit their events", ONE_COURIER],
        ),
        (
            LOG,
            1,
            Does::Alter("/events/0/outcome", |_| json!("updated")),
            &["the log comes to the same again"],
        ),
        (
            LOG,
            1,
            Does::Alter("/events/1/number", |_| json!(1)),
            &["the log comes to the same again"],
        ),
        (
            COURIER,
            1,
            Does::Alter("", another),
            &["both questions agree", ONE_COURIER, AS_LOGGED],
        ),
        (
            COURIERS,
            2,
            Does::Alter("/couriers/0/count", more),
            &["counts are those of the orders", AS_LOGGED],
        ),
        (
            COURIERS,
            2,
            Does::Alter("/couriers/0/name", |_| json!("Eve")),
            &["couriers as said last", AS_LOGGED],
        ),
        (
            ORDERS,
            1,
            Does::Alter("", |_| json!([])),
            &[
                "orders given once, or parked",
                "both questions agree",
                "counts are those of the orders",
            ],
        ),
        (PARKED, 1, Does::Alter("/total", more), &[AS_LOGGED]),
    ] {
        let rule = Rule { route, nth, does };
        // With the couriers of this run alone.
        let shop = Shop::open(&[]).await;
        let outcome = simulate_behind(&shop, rule, &FEW).await;
        assert_eq!(outcome.failed(), failed, "{rule:?}: {outcome}");
        shop.close().await;
    }
}
