//! The checks of the shared engines: before a component is ready, and by `odyssey check --engines`.

use std::process::Command;

use serde_json::Value;
use testkit::aws::endpoint;
use testkit::until;
use tokio::task::spawn_blocking;
use uuid::Uuid;

use crate::client::get;
use crate::emulator::odyssey_at;
use crate::shop::{Shop, variable};

/// Names of this test's own at the emulator, for all engines of AWS.
fn settings() -> Vec<(&'static str, String)> {
    let own = Uuid::new_v4();
    let topic = |of: &str| format!("arn:aws:sns:eu-west-2:123450000001:{of}-{own}");
    let queue = |of: &str| format!("{}/123450000001/{of}-{own}", endpoint());
    vec![
        ("assignments.store", "dynamodb".to_owned()),
        ("assignments.table", format!("assignments-{own}")),
        ("assignments.packages_table", format!("packages-{own}")),
        ("oplog.sink", "s3".to_owned()),
        ("oplog.bucket", format!("log-{own}")),
        ("couriers.events", "sqs".to_owned()),
        ("couriers.events_topic_arn", topic("events")),
        ("couriers.events_queue_url", queue("events")),
        ("couriers.assignments_topic_arn", topic("assignments")),
        ("couriers.assignments_queue_url", queue("assignments")),
        ("couriers.dead_letter_queue_url", queue("dead")),
    ]
}

const CHECKS: [&str; 8] = [
    "assignments.table",
    "assignments.packages_table",
    "oplog.bucket",
    "couriers.events_topic_arn",
    "couriers.assignments_topic_arn",
    "couriers.events_queue_url",
    "couriers.assignments_queue_url",
    "couriers.dead_letter_queue_url",
];
const COMPONENTS: [&str; 3] = ["assignments", "oplog", "messages"];

async fn open(settings: &[(&'static str, String)]) -> Shop {
    let settings: Vec<_> = settings
        .iter()
        .map(|(key, value)| (*key, &**value))
        .collect();
    Shop::run(odyssey_at(&endpoint()), &settings).await
}

/// The exit code of `odyssey check --engines`, and its findings.
async fn check(settings: &[(&'static str, String)]) -> (Option<i32>, Vec<Value>) {
    let mut command: Command = odyssey_at(&endpoint());
    command.args(["check", "--engines", "--output", "json"]);
    for (key, value) in settings {
        command.env(variable(key), value);
    }
    let output = spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let findings = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.code(), findings)
}

/// Waits until each component is in this state.
async fn are(shop: &Shop, status: u16) {
    for component in COMPONENTS {
        let path = format!("/readyz/{component}");
        until("readiness changes", async || {
            shop.staff.ask(get(&path)).await.status == status
        })
        .await;
    }
}

#[tokio::test]
async fn engines_without_what_is_configured_are_named_check_by_check_until_it_is_there() {
    let names = settings();
    let outcomes = |findings: &[Value]| {
        let outcome = |found: &Value| {
            let check = found["check"].as_str().unwrap().to_owned();
            (check, found["outcome"].as_str().unwrap().to_owned())
        };
        findings.iter().map(outcome).collect::<Vec<_>>()
    };
    let all = |outcome: &str| CHECKS.map(|check| (check.to_owned(), outcome.to_owned()));
    let (code, findings) = check(&names).await;
    assert_eq!(
        (code, outcomes(&findings)),
        (Some(1), all("failed").to_vec())
    );
    let shop = open(&names).await;
    are(&shop, 503).await;
    // Each check, its key and the reason.
    let seen = || async {
        let ready = shop.staff.ask(get("/readyz")).await.expect(200);
        let components = ready["components"].as_array().unwrap().clone();
        let checks = components.iter().filter_map(|one| one["checks"].as_array());
        checks.flatten().cloned().collect::<Vec<_>>()
    };
    until("each check has failed", async || {
        outcomes(&seen().await) == all("failed")
    })
    .await;
    let of_messages = shop.staff.ask(get("/readyz/messages")).await;
    let reason = of_messages.json()["components"][0]["reason"].to_string();
    assert!(
        reason.contains("SNS: couriers.events_topic_arn"),
        "{reason}"
    );
    let log = shop.log();
    for check in CHECKS {
        let is_its_line = |line: &&str| {
            line.contains("engine check failed") && line.contains(&format!("\"{check}\""))
        };
        assert_eq!(log.lines().filter(is_its_line).count(), 1, "{check}");
    }
    // What a stranger sees names no host.
    let public = shop.customers.ask(get("/readyz")).await;
    assert!(!public.text().contains("couriers.events"), "{public}");
    // Another server makes what is missing.
    let making = [&names[..], &[("aws.provision", "true".to_owned())]].concat();
    let maker = open(&making).await;
    are(&maker, 200).await;
    are(&shop, 200).await;
    assert_eq!(outcomes(&seen().await), all("passed"));
    let (code, findings) = check(&names).await;
    assert_eq!(
        (code, outcomes(&findings)),
        (Some(0), all("passed").to_vec())
    );
    maker.close().await;
    shop.close().await;
}
