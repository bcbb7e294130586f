//! Senders: a clean run, and one answer that is corrupted.

use serde_json::{Value, json};

use super::{Does, Rule, simulate, simulate_behind};
use crate::shop::Shop;

const PACKAGES: (&str, &str) = ("POST", "/packages");
const PREFERENCES: (&str, &str) = ("PUT", "/preferences");
const STATISTICS: (&str, &str) = ("GET", "/statistics");
const STORED: (&str, &str) = ("GET", "/packages/*");
const WISHES: (&str, &str) = ("GET", "/preferences/*");

/// What fails when the server is held to a wrong fate of a personal package.
const WRONG_FATE: &[&str] = &[
    "fates of the packages",
    "packages delivered",
    "packages dropped",
    "personal delivered",
    "personal dropped",
    "packages kept",
];

/// Of one sender, so that the requests have an order.
fn arguments(more: &'static str) -> Vec<&'static str> {
    let all = "senders --senders=1 --recipients=1 --packages=2 --marketing=0% --preferences=0% --duplicates=0% \
               --mismatches=0% --malformed=0% --patience=10s --seed=1 --progress=none";
    all.split(' ').chain(more.split_whitespace()).collect()
}

#[tokio::test]
async fn senders_hold_against_a_server_that_does_what_it_should() {
    let shop = Shop::open(&[]).await;
    // Few recipients, so that some of their preferences come out of order; with this seed a fixed number of them.
    let arguments = [
        "senders",
        "--senders=8",
        "--recipients=16",
        "--seed=1",
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

/// Further arguments, the answers to which requests, the first of them that is corrupted, how, and the checks that fail.
type Case = (
    &'static str,
    (&'static str, &'static str),
    usize,
    Does,
    &'static [&'static str],
);

async fn expect_failures(cases: &[Case]) {
    let shop = Shop::open(&[]).await;
    for (more, route, nth, does, failed) in cases {
        let rule = Rule {
            route: *route,
            nth: *nth,
            does: *does,
        };
        let outcome = simulate_behind(&shop, rule, &arguments(more)).await;
        assert_eq!(outcome.failed(), *failed, "{rule:?}: {outcome}");
    }
    shop.close().await;
}

fn not(flag: &Value) -> Value {
    json!(!flag.as_bool().unwrap())
}

fn dropped(_: &Value) -> Value {
    json!("dropped")
}

#[tokio::test]
async fn each_corrupted_answer_to_a_sender_fails_its_check() {
    let another = Does::Alter("/package_id", |_| json!("another"));
    let unmarked = Does::Alter("/mismatch", |_| json!(false));
    let wishes = "--preferences=100%";
    expect_failures(&[
        ("", PACKAGES, 1, Does::Drop, &[]),
        ("", PACKAGES, 1, Does::Status(503), &[]),
        ("", PACKAGES, 1, Does::Repeat, &["each package new once"]),
        ("", PACKAGES, 2, another, &["acknowledgements"]),
        ("", PACKAGES, 2, Does::Alter("/status", dropped), WRONG_FATE),
        (
            "--duplicates=100%",
            PACKAGES,
            2,
            Does::Alter("/status", dropped),
            &["duplicates"],
        ),
        ("--mismatches=100%", PACKAGES, 2, unmarked, &["mismatches"]),
        (
            "--malformed=100%",
            PACKAGES,
            1,
            Does::Status(200),
            &["malformed requests rejected"],
        ),
        (wishes, PREFERENCES, 1, Does::Drop, &[]),
        (wishes, PREFERENCES, 1, Does::Repeat, &[]),
        (
            wishes,
            PREFERENCES,
            1,
            Does::Alter("/applied", not),
            &["answers to preferences"],
        ),
    ])
    .await;
}

#[tokio::test]
async fn each_corrupted_account_of_the_packages_fails_its_check() {
    let more = |number: &Value| json!(number.as_u64().unwrap() + 1);
    expect_failures(&[
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
    ])
    .await;
}
