//! Senders: a clean run, and one answer that is corrupted.

use serde_json::{Value, json};

use super::{Does, Rule, simulate, simulate_behind};
use crate::shop::Shop;

const PACKAGES: (&str, &str) = ("POST", "/packages");
const PREFERENCES: (&str, &str) = ("PUT", "/preferences");
const STATISTICS: (&str, &str) = ("GET", "/statistics");
const STORED: (&str, &str) = ("GET", "/packages/*");
const WISHES: (&str, &str) = ("GET", "/preferences/*");

/// Of one sender, so that the requests have an order.
fn arguments(more: &'static str) -> Vec<&'static str> {
    let all = "senders --senders=1 --recipients=1 --packages=2 --marketing=0% --preferences=0% --duplicates=0% \
               --mismatches=0% --malformed=0% --patience=10s --seed=1 --progress=none";
    all.split(' ').chain(more.split_whitespace()).collect()
}

#[tokio::test]
async fn senders_hold_against_a_server_that_does_what_it_should() {
    let shop = Shop::open(&[]).await;
    let arguments = [
        "senders",
        "--packages=1000",
        "--duplicates=30%",
        "--mismatches=10%",
        "--malformed=20%",
    ];
    let outcome = simulate(&shop, &arguments).await;
    assert_eq!(outcome.failed(), [""; 0], "{outcome}");
    let report = &outcome.json()["senders"];
    assert_ne!(report["packages"]["dropped"], 0, "{outcome}");
    assert_ne!(report["preferences"]["outdated"], 0, "{outcome}");
    shop.close().await;
}

#[tokio::test]
async fn each_corrupted_answer_to_a_sender_fails_its_check() {
    let shop = Shop::open(&[]).await;
    let more = |number: &Value| json!(number.as_u64().unwrap() + 1);
    let not = |flag: &Value| json!(!flag.as_bool().unwrap());
    let dropped = |_: &Value| json!("dropped");
    let another = |_: &Value| json!("another");
    for (more_arguments, route, nth, does, failed) in [
        ("", PACKAGES, 1, Does::Drop, &[][..]),
        ("", PACKAGES, 1, Does::Status(503), &[]),
        ("", PACKAGES, 1, Does::Repeat, &["each package new once"]),
        (
            "",
            PACKAGES,
            2,
            Does::Alter("/package_id", another),
            &["acknowledgements"],
        ),
        (
            "",
            PACKAGES,
            2,
            Does::Alter("/status", dropped),
            &[
                "fates of the packages",
                "packages delivered",
                "packages dropped",
                "personal delivered",
                "personal dropped",
                "packages kept",
            ],
        ),
        (
            "--duplicates=100%",
            PACKAGES,
            2,
            Does::Alter("/status", dropped),
            &["duplicates"],
        ),
        (
            "--mismatches=100%",
            PACKAGES,
            2,
            Does::Alter("/mismatch", |_| json!(false)),
            &["mismatches"],
        ),
        (
            "--malformed=100%",
            PACKAGES,
            1,
            Does::Status(200),
            &["malformed requests rejected"],
        ),
        ("--preferences=100%", PREFERENCES, 1, Does::Drop, &[]),
        ("--preferences=100%", PREFERENCES, 1, Does::Repeat, &[]),
        (
            "--preferences=100%",
            PREFERENCES,
            1,
            Does::Alter("/applied", not),
            &["answers to preferences"],
        ),
        (
            "",
            STATISTICS,
            2,
            Does::Alter("/requests_rejected", more),
            &["requests rejected"],
        ),
        (
            "",
            STORED,
            1,
            Does::Alter("/status", dropped),
            &["packages kept"],
        ),
        ("", STORED, 1, Does::Status(404), &["packages kept"]),
        (
            "",
            WISHES,
            1,
            Does::Alter("/personal_preference", not),
            &["preferences kept"],
        ),
    ] {
        let rule = Rule { route, nth, does };
        let outcome = simulate_behind(&shop, rule, &arguments(more_arguments)).await;
        assert_eq!(outcome.failed(), failed, "{rule:?}: {outcome}");
    }
    shop.close().await;
}
