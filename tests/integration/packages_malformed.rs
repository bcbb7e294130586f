//! Malformed requests at the package desk: each is refused, counted once, and nothing else happens.

use std::collections::BTreeMap;
use std::time::Instant;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use crate::client::{Answer, Ask, get, post, put, send};
use crate::durability::open;
use crate::packages::{counted, package, preferences, put_preferences, statistics, with};
use crate::shop::{Shop, text};

/// Requests that the generator makes; enough for each way to spoil one, many times over.
const GENERATED: usize = 800;
const TYPES: [&str; 2] = ["personal", "marketing"];

/// The answer's errors, each with its place in the body.
#[track_caller]
fn pointers(answer: &Answer) -> Vec<String> {
    let problem = answer.expect_problem(422, "invalid");
    let errors = problem["errors"].as_array().unwrap();
    assert!(!errors.is_empty(), "{answer}");
    for error in errors {
        assert!(!text(&error["detail"]).is_empty(), "{answer}");
    }
    errors.iter().map(|error| text(&error["pointer"])).collect()
}

/// Values that are wrong for a field: of an id, of a time, of a type, of a preference.
fn wrong_for(field: &str) -> Vec<Value> {
    let mut wrong = vec![json!(null), json!([]), json!({}), json!("")];
    wrong.extend(match field {
        "timestamp" => vec![
            json!(true),
            json!("yesterday"),
            json!("12:00"),
            json!("2142-05-01"),
            json!("2142-05-01T12:00:00"),
            json!("2142-13-01T12:00:00Z"),
            json!("2142-02-30T12:00:00Z"),
            json!("2142-05-01T25:00:00Z"),
            json!("5438923200"),
            json!("2142-05-01T12:00:60Z"),
            // Milliseconds, where seconds are meant.
            json!(1_767_225_600_000_u64),
            json!(1e300),
            json!(-1e300),
        ],
        "package_type" => vec![
            json!(1),
            json!(true),
            json!("newsletter"),
            json!("Personal"),
            json!("personal "),
        ],
        id if id.ends_with("_id") => vec![
            json!(true),
            json!(1.5),
            json!(1e30),
            json!("x".repeat(129)),
            json!("ü".repeat(129)),
            json!("📦".repeat(65)),
            json!("a\0b"),
            json!("a\n"),
            json!("../p"),
            json!(".."),
        ],
        _ => vec![json!(0), json!(1), json!("true"), json!("no")],
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
    let ada = shop
        .customers
        .ask(get("/preferences/ada"))
        .await
        .expect(200);
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
    for (path, valid) in [
        ("/packages", package("p")),
        ("/preferences", preferences(1, false, false)),
    ] {
        let ask = || {
            if path == "/packages" {
                post(path)
            } else {
                put(path)
            }
        };
        let json_type = "application/json";
        let whole = valid.to_string();
        let huge = with(&valid, "more", "x".repeat(1000)).to_string();
        let twice = format!("{whole}{whole}");
        let half = &whole[..whole.len() / 2];
        let deep = "[".repeat(900);
        for (content_type, body, status, kind) in [
            (json_type, "", 400, "unreadable"),
            (json_type, " ", 400, "unreadable"),
            (json_type, "hello", 400, "unreadable"),
            (json_type, half, 400, "unreadable"),
            (json_type, &twice, 400, "unreadable"),
            (json_type, "{\"package_id\": 1e999}", 400, "unreadable"),
            (json_type, "{'package_id': 'p'}", 400, "unreadable"),
            (json_type, "null", 422, "invalid"),
            (json_type, "7", 422, "invalid"),
            (json_type, "\"p\"", 422, "invalid"),
            (json_type, "[]", 422, "invalid"),
            (json_type, &deep, 422, "invalid"),
            ("text/plain", &whole, 415, "not-json"),
            ("application/x-www-form-urlencoded", &whole, 415, "not-json"),
            ("", &whole, 415, "not-json"),
            (json_type, &huge, 413, "body-too-large"),
        ] {
            let sent = ask().header("Content-Type", content_type);
            let answer = shop.customers.ask(sent.body(body.to_owned())).await;
            let problem = answer.expect_problem(status, kind);
            if status == 422 {
                assert_eq!(problem["errors"][0]["pointer"], "", "{body}: {answer}");
            }
            rejected += 1;
        }
        let no_text = ask().body(&b"{\"package_id\": \"\xff\"}"[..]);
        let answer = shop.customers.ask(no_text).await;
        answer.expect_problem(400, "unreadable");
        rejected += 1;
    }
    expect_untouched(&shop, rejected).await;
    // A wrong method or path does not count as a malformed request to this desk.
    let wrong = shop.customers.ask(post("/preferences").body("hello")).await;
    wrong.expect_problem(405, "no-such-method");
    expect_untouched(&shop, rejected).await;
    shop.close().await;
}

// --- Generated -----------------------------------------------------------------------------------------------------

/// What is to become of a request, by a check of its own.
fn is_valid(body: &[u8], types: &[&str], is_package: bool) -> Option<Map<String, Value>> {
    let Ok(Value::Object(object)) = serde_json::from_slice(body) else {
        return None;
    };
    // The same key twice: fewer are left than were written.
    let written = body.windows(2).filter(|two| two == b"\":").count();
    if written > object.len() {
        return None;
    }
    let moment = match &object.get("timestamp")? {
        Value::String(text) => text.parse::<Timestamp>().is_ok() && !text.contains(":60"),
        Value::Number(number) => {
            let years_there_are = Timestamp::MIN.as_second()..Timestamp::MAX.as_second();
            #[expect(
                clippy::cast_possible_truncation,
                reason = "beyond all years it saturates"
            )]
            let seconds = number.as_f64()?.floor() as i64;
            years_there_are.contains(&seconds)
        }
        _ => false,
    };
    let id = |name: &str| match object.get(name) {
        Some(Value::String(text)) => {
            let is_dots = |segment: &str| segment == "." || segment == "..";
            let fits = (1..=128).contains(&text.chars().count()) && text.len() <= 256;
            fits && !text.contains(char::is_control) && !text.split('/').any(is_dots)
        }
        Some(Value::Number(number)) => !number.is_f64(),
        _ => false,
    };
    let fits = if is_package {
        let known = object.get("package_type").and_then(Value::as_str);
        let ids = ["sender_id", "recipient_id", "package_id"];
        known.is_some_and(|known| types.contains(&known)) && ids.into_iter().all(id)
    } else {
        let message = |name: &&str| {
            object
                .get(&format!("{name}_preference"))
                .map(Value::is_boolean)
        };
        types.iter().all(|name| message(name) == Some(true)) && id("recipient_id")
    };
    (moment && fits).then_some(object)
}

/// Spoils a request, or almost.
fn mutated(valid: &Value, random: &mut fastrand::Rng) -> Vec<u8> {
    let mut body = valid.clone();
    let object = body.as_object_mut().unwrap();
    let field = random.choice(object.keys().cloned().collect::<Vec<_>>());
    let field = field.unwrap();
    match random.u8(..9) {
        0 => drop(object.remove(&field)),
        1 => {
            let wrong = random.choice(wrong_for(&field)).unwrap();
            object.insert(field, wrong);
        }
        2 => {
            let other = random.choice(object.values().cloned().collect::<Vec<_>>());
            object.insert(field, other.unwrap());
        }
        3 => {
            let value = object.remove(&field).unwrap();
            object.insert(field.to_uppercase(), value);
        }
        // No harm is done.
        4 => drop(object.insert("weight".to_owned(), json!(7))),
        _ => return with_other_bytes(body.to_string().into_bytes(), random),
    }
    body.to_string().into_bytes()
}

fn with_other_bytes(mut bytes: Vec<u8>, random: &mut fastrand::Rng) -> Vec<u8> {
    for _ in 0..random.usize(1..4) {
        if bytes.is_empty() {
            break;
        }
        let at = random.usize(..bytes.len());
        let byte = random.choice(*b"\"{}[]:,. 0e-ax\\\xff\0").unwrap();
        match random.u8(..5) {
            0 => bytes[at] = random.u8(..),
            1 => bytes[at] = byte,
            2 => bytes.insert(at, byte),
            3 => drop(bytes.remove(at)),
            _ => bytes.truncate(bytes.len() - bytes.len().min(random.usize(..4))),
        }
    }
    bytes
}

#[tokio::test]
async fn whatever_is_sent_is_either_processed_or_refused_and_counted() {
    let mut random = fastrand::Rng::with_seed(2142);
    let shop = Shop::open(&[]).await;
    let mut connection = shop.customers.connect().await;
    let (mut rejected, mut updated) = (0_u64, 0_u64);
    let mut ledger: BTreeMap<String, String> = BTreeMap::new();
    for index in 0..GENERATED {
        let is_package = index % 3 != 0;
        let (ask, valid) = if is_package {
            (post("/packages"), package(format!("p-{index}")))
        } else {
            (put("/preferences"), preferences(index, true, true))
        };
        let body = mutated(&valid, &mut random);
        let object = is_valid(&body, &TYPES, is_package);
        let what = format!("{is_package} {:?}", String::from_utf8_lossy(&body));
        let json = ask.header("Content-Type", "application/json");
        let answer = connection.ask(&json.body(body)).await;
        let Some(object) = object else {
            let refused = [(400, "unreadable"), (422, "invalid")];
            let found = refused.iter().find(|(status, _)| *status == answer.status);
            let (status, kind) = found.unwrap_or_else(|| panic!("{what}: {answer}"));
            answer.expect_problem(*status, kind);
            rejected += 1;
            continue;
        };
        if !is_package {
            assert!(answer.expect(200)["applied"].is_boolean(), "{what}");
            updated += 1;
            continue;
        }
        let id = match &object["package_id"] {
            Value::String(text) => text.clone(),
            number => number.to_string(),
        };
        let duplicate = ledger.contains_key(&id);
        let body = answer.expect(if duplicate { 200 } else { 201 });
        assert_eq!(body["package_id"], id, "{what}");
        assert_eq!(body["duplicate"], duplicate, "{what}");
        ledger
            .entry(id)
            .or_insert_with(|| text(&object["package_type"]));
    }
    // Spoilt well enough, and not too much.
    assert!(rejected > 300 && updated > 10, "{rejected} {updated}");
    assert!(ledger.len() > 50, "{ledger:?}");
    let now = connection.ask(&get("/statistics")).await.expect(200);
    assert_eq!(now["requests_rejected"], rejected);
    let processed = now["packages_delivered"].as_u64().unwrap();
    let dropped = now["packages_dropped"].as_u64().unwrap();
    assert_eq!(processed + dropped, ledger.len() as u64);
    for name in TYPES {
        let of_type = ledger.values().filter(|kind| *kind == name).count() as u64;
        let tally = &now["by_type"][name];
        let counted = tally["delivered"].as_u64().unwrap() + tally["dropped"].as_u64().unwrap();
        assert_eq!(counted, of_type, "{name}");
    }
    drop(connection);
    shop.close().await;
}

/// Malformed packages, and how many clients send them.
const MANY: usize = 10_000;
const CLIENTS: usize = 10;

#[tokio::test]
async fn ten_thousand_malformed_packages_cost_ten_commits_a_second_at_most_and_a_stop_loses_none() {
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
