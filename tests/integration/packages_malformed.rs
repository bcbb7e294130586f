//! Malformed requests at the package desk: each is refused, counted once, and nothing else happens.

use std::time::Instant;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::assignments::pointers;
use crate::client::{Ask, get, post, put, send};
use crate::durability::open;
use crate::packages::{counted, package, preferences, put_preferences, statistics, with};
use crate::shop::{Shop, text};

const TYPES: [&str; 2] = ["personal", "marketing"];

/// Values that are wrong for a field: of an id, of a time, of a type, of a preference.
fn wrong_for(field: &str) -> Vec<Value> {
    let mut wrong = vec![json!(null), json!([]), json!({}), json!("")];
    wrong.extend(match field {
        "timestamp" => vec![
            json!(true),
            json!("2142-05-01"),
            json!("5438923200"),
            // Milliseconds, where seconds are meant.
            json!(1_767_225_600_000_u64),
            json!(-1e300),
        ],
        "package_type" => vec![json!(1), json!("newsletter"), json!("Personal")],
        id if id.ends_with("_id") => vec![
            json!(true),
            json!(1.5),
            json!(1e30),
            json!("x".repeat(129)),
            json!("a\0b"),
            json!("../p"),
        ],
        _ => vec![json!(0), json!("true")],
    });
    wrong
}

#[tokio::test]
async fn a_field_that_is_missing_or_wrong_is_pointed_at_and_the_request_counted_once() {
    let shop = Shop::open(&[]).await;
    let mut connection = shop.customers.connect().await;
    let mut rejected = 0;
    let send = |body: &Value| send(body);
    for (valid, ask) in [
        (package("p"), &send as &(dyn Fn(&Value) -> Ask + Sync)),
        (preferences(1, false, false), &put_preferences),
    ] {
        for field in valid.as_object().unwrap().keys() {
            let mut missing = valid.clone();
            missing.as_object_mut().unwrap().remove(field);
            let wrong = wrong_for(field)
                .into_iter()
                .map(|wrong| with(&valid, field, wrong));
            for body in wrong.chain([missing]) {
                let answer = connection.ask(&ask(&body)).await;
                assert_eq!(pointers(&answer), [format!("/{field}")], "{body}");
                if field == "package_type" && !body[field].is_null() {
                    let detail = text(&answer.json()["detail"]);
                    assert!(TYPES.iter().all(|known| detail.contains(known)), "{detail}");
                }
                rejected += 1;
                let now = connection.ask(&get("/statistics")).await.expect(200);
                assert_eq!(now["requests_rejected"], rejected, "{body}");
            }
        }
        // One answer reports all errors.
        let answer = connection.ask(&ask(&json!({"package_ID": "p"}))).await;
        rejected += 1;
        let reported = pointers(&answer);
        assert_eq!(reported.len(), valid.as_object().unwrap().len(), "{answer}");
    }
    expect_untouched(&shop, rejected).await;
    drop(connection);
    shop.close().await;
}

/// Nothing is in the ledger or among the preferences, and so many requests were rejected.
async fn expect_untouched(shop: &Shop, rejected: u64) {
    assert_eq!(statistics(shop).await, counted([0, 0], [0, 0], rejected));
    let answer = shop.customers.ask(get("/packages/p")).await;
    answer.expect_problem(404, "package-unknown");
    let ada = shop.customers.expect(get("/preferences/ada"), 200).await;
    assert_eq!(
        (&ada["personal_preference"], &ada["marketing_preference"]),
        (&json!(true), &json!(true))
    );
    let now = shop.metrics().await;
    let counter = now.count("odyssey_packages_rejected_total");
    assert_eq!(counter as u64, rejected);
}

#[tokio::test]
async fn a_body_that_is_no_object_of_json_is_refused_and_counted() {
    let shop = Shop::open(&[("http.body_max_bytes", "1000")]).await;
    let mut rejected = 0;
    for ask in [post("/packages"), put("/preferences")] {
        for (content_type, body, status, kind) in [
            ("application/json", "hello".to_owned(), 400, "unreadable"),
            ("application/json", "[]".to_owned(), 422, "invalid"),
            ("text/plain", "{}".to_owned(), 415, "not-json"),
            ("application/json", " ".repeat(1001), 413, "body-too-large"),
        ] {
            let sent = ask.clone().header("Content-Type", content_type).body(body);
            let answer = shop.customers.ask(sent).await;
            answer.expect_problem(status, kind);
            rejected += 1;
        }
    }
    expect_untouched(&shop, rejected).await;
    // A wrong method or path does not count as a malformed request to this desk.
    let wrong = shop.customers.ask(post("/preferences").body("hello")).await;
    wrong.expect_problem(405, "no-such-method");
    expect_untouched(&shop, rejected).await;
    shop.close().await;
}

/// Malformed packages, and how many clients send them.
const MANY: usize = 1000;
const CLIENTS: usize = 10;

#[tokio::test]
async fn a_thousand_malformed_packages_cost_ten_commits_a_second_at_most_and_a_stop_loses_none() {
    const COMMITS: &str = "odyssey_storage_commits_total{database=\"packages\"}";
    let data = tempfile::tempdir().unwrap();
    let shop = open(data.path(), &[("flood.mode", "off")]).await;
    let before = shop.metrics().await.count(COMMITS);
    let begun = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let door = shop.customers;
        clients.spawn(async move {
            let mut connection = door.connect().await;
            let wrong = with(&package("wrong"), "package_type", "none");
            for _ in 0..MANY / CLIENTS {
                let answer = connection.ask(&send(&wrong)).await;
                answer.expect_problem(422, "invalid");
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    let commits = shop.metrics().await.count(COMMITS) - before;
    let seconds = begun.elapsed().as_secs_f64();
    let rejected = |now: Value| now["requests_rejected"].as_u64();
    let many = Some(MANY as u64);
    assert_eq!(rejected(statistics(&shop).await), many);
    eprintln!("{MANY} malformed packages in {seconds:.1} s: {commits} commits");
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let rate = commits as f64 / seconds.max(1.0);
    assert!(rate <= 10.0, "{commits} commits in {seconds} s");
    shop.close().await;
    let shop = open(data.path(), &[("flood.mode", "off")]).await;
    assert_eq!(rejected(statistics(&shop).await), many);
    shop.close().await;
}
