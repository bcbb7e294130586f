//! What clients send and are shown in the same way at every desk: bodies, ids, timestamps.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::{Value, json};

use crate::client::{Ask, Door, get, order, post, put, send};
use crate::packages::{package, preferences, put_preferences, with};
use crate::shop::{Shop, odyssey_by, text};

const COURIER: &str = "a97261aa-2907-498e-aa24-3bce25590a46";
const ORDER: &str = "a97261aa-2907-498e-aa24-3bce25590a47";

fn an_order_for_a_courier(added_at: &str) -> Value {
    json!({"orderId": ORDER, "details": "tea", "zone": "N", "addedAt": added_at})
}

/// Every request with a body: where, how, and what it accepts.
fn writes(shop: &Shop) -> [(Door, Ask, Value); 9] {
    let patch = format!("/courier/{COURIER}");
    let patch = Ask::new("PATCH".parse().unwrap(), patch);
    [
        (shop.customers, post("/order/"), json!({"customer": "Ada"})),
        (shop.customers, post("/packages"), package("p")),
        (
            shop.customers,
            put("/preferences"),
            preferences(1, true, true),
        ),
        (
            shop.staff,
            post("/deliveries/d/events"),
            json!({"type": "PARCEL_COLLECTED"}),
        ),
        (
            shop.staff,
            put("/manifest"),
            json!({"drivers": [], "packages": []}),
        ),
        (
            shop.staff,
            post("/assign"),
            json!({"driver_ids": ["d"], "max_per_driver": 1}),
        ),
        (
            shop.staff,
            post("/update"),
            json!({"driver_id": "d", "package_id": "p", "status": "accepted"}),
        ),
        (
            shop.staff,
            post("/events"),
            an_order_for_a_courier("2142-05-01T12:00:00Z"),
        ),
        (shop.staff, patch, json!({"available": true})),
    ]
}

fn of_type(ask: &Ask, content_type: &str) -> Ask {
    ask.clone().header("Content-Type", content_type)
}

#[tokio::test]
async fn a_body_in_another_format_encoding_or_charset_is_refused_at_every_desk() {
    let shop = Shop::open(&[]).await;
    for (door, ask, valid) in writes(&shop) {
        let valid = valid.to_string();
        for content_type in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/jsonp",
            "image/svg+json",
            "",
        ] {
            let answer = door
                .ask(of_type(&ask, content_type).body(valid.clone()))
                .await;
            answer.expect_problem(415, "not-json");
        }
        for coding in ["gzip", "br", "identity, deflate", "x-unknown"] {
            let ask = of_type(&ask, "application/json").header("Content-Encoding", coding);
            let answer = door.ask(ask.body(valid.clone())).await;
            answer.expect_problem(415, "body-encoded");
            assert_eq!(answer.header("accept-encoding"), Some("identity"));
        }
        for charset in ["utf-16", "\"UTF-16LE\"", "iso-8859-1", "utf-7"] {
            let content_type = format!("application/json; charset={charset}");
            let ask = of_type(&ask, &content_type).body(valid.clone());
            let answer = door.ask(ask).await;
            answer.expect_problem(415, "not-utf-8");
            // It would say that another coding helps (RFC 9110, section 12.5.3).
            assert_eq!(answer.header("accept-encoding"), None);
        }
        for content_type in [
            "application/json; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
        ] {
            let ask = of_type(&ask, content_type).header("Content-Encoding", "identity");
            door.ask(ask.body("{"))
                .await
                .expect_problem(400, "unreadable");
        }
    }
    shop.close().await;
}

/// Words of the parser, which mean nothing to a client.
const PARSERS_WORDS: &[&str] = &[
    "at line",
    "expected",
    "missing field",
    "invalid type",
    "invalid value",
    "unknown variant",
    "EOF",
    "trailing",
    "duplicate field",
    "did not match",
    "recursion",
];

#[tokio::test]
async fn a_malformed_body_is_refused_in_the_same_words_at_every_desk() {
    let shop = Shop::open(&[]).await;
    for (door, ask, valid) in writes(&shop) {
        let field = valid.as_object().unwrap().keys().next().unwrap();
        let whole = valid.to_string();
        let twice = format!("{{\"{field}\": {}, {}", valid[field], &whole[1..]);
        let deep = format!("{{\"{field}\": {}{}}}", "[".repeat(500), "]".repeat(500));
        let wrong = with(&valid, field, json!({"no": "value"})).to_string();
        for body in [&b"\xff"[..], b"\xef\xbb\xbf{}", b"\0\0\0\0"] {
            let answer = door.ask(ask.clone().body(body)).await;
            answer.expect_problem(400, "unreadable");
        }
        for (body, status) in [
            (" ", 400),
            ("{", 400),
            ("nonsense", 400),
            ("{'a': 'b'}", 400),
            (&whole[..whole.len() - 1], 400),
            (&format!("{whole} {whole}"), 400),
            ("{\"a\": \"\\ud800\"}", 400),
            ("{\"a\": 1e999}", 400),
            ("null", 422),
            ("7", 422),
            ("\"text\"", 422),
            ("[]", 422),
            (&twice, 422),
            (&deep, 422),
            (&wrong, 422),
        ] {
            // A list of events is accepted, an empty one too.
            if body == "[]" && ask.path == "/events" {
                continue;
            }
            // The manifest is skipped over what it does not know.
            let skipped = ask.path == "/manifest" && body.starts_with("{\"a\"");
            let answer = door.ask(ask.clone().body(body.to_owned())).await;
            let kind = ["invalid", "unreadable"][usize::from(status == 400)];
            let problem = if skipped {
                answer.json()
            } else {
                answer.expect_problem(status, kind)
            };
            let printed = problem.to_string();
            let leaked = PARSERS_WORDS.iter().find(|word| printed.contains(**word));
            assert_eq!(leaked, None, "{} {body}: {printed}", ask.path);
            if body == twice {
                assert_eq!(
                    problem["errors"][0]["pointer"],
                    format!("/{field}"),
                    "{printed}"
                );
                assert!(printed.contains("This field is duplicated."), "{printed}");
            }
        }
    }
    shop.close().await;
}

#[tokio::test]
async fn an_id_with_a_control_character_is_refused_at_every_desk() {
    let shop = Shop::open(&[]).await;
    let listed = |driver: &str, package: &str| {
        let day = include_str!("../data/day-10x60.json");
        let mut day: Value = serde_json::from_str(day).unwrap();
        day["drivers"][0]["driver_id"] = driver.into();
        day["packages"][0]["package_id"] = package.into();
        put("/manifest").json(&day)
    };
    for (bad, encoded) in [("a\0b", "a%00b"), ("\u{85}", "%C2%85")] {
        for (door, ask) in [
            (shop.customers, send(&package(bad))),
            (shop.customers, send(&with(&package("p"), "sender_id", bad))),
            (
                shop.customers,
                send(&with(&package("p"), "recipient_id", bad)),
            ),
            (
                shop.customers,
                put_preferences(&with(&preferences(1, true, true), "recipient_id", bad)),
            ),
            (shop.customers, get(format!("/packages/{encoded}"))),
            (shop.customers, get(format!("/preferences/{encoded}"))),
            (shop.staff, listed(bad, "p")),
            (shop.staff, listed("d", bad)),
            (
                shop.staff,
                post("/assign").json(&json!({"driver_ids": [bad], "max_per_driver": 1})),
            ),
            (
                shop.staff,
                post("/deliveries/d/events")
                    .json(&json!({"type": "PARCEL_COLLECTED", "event_id": bad})),
            ),
            (
                shop.staff,
                post(format!("/deliveries/{encoded}/events"))
                    .json(&json!({"type": "PARCEL_COLLECTED"})),
            ),
        ] {
            let path = ask.path.clone();
            let answer = door.ask(ask).await;
            assert_eq!(answer.status, 422, "{path} {bad:?}: {answer}");
        }
    }
    shop.close().await;
}

#[tokio::test]
async fn a_timestamp_is_read_alike_at_every_desk() {
    let shop = Shop::open(&[]).await;
    for (number, (at, accepted)) in [
        ("2142-05-01T12:00:00.1234567890123Z", true),
        ("2142-06-30T15:59:60-08:00", true),
        ("2142-05-01T12:00:60Z", false),
        ("2142-05-01", false),
        ("1969-12-31T23:59:59.5Z", true),
    ]
    .into_iter()
    .enumerate()
    {
        let sent = with(&package(format!("p-{number}")), "timestamp", at);
        let order = an_order_for_a_courier(at);
        for (door, ask, success) in [
            (shop.customers, send(&sent), 201),
            (
                shop.customers,
                put_preferences(&preferences(at, true, true)),
                200,
            ),
            (shop.staff, post("/events").json(&order), 202),
        ] {
            let expected = if accepted { success } else { 422 };
            let path = ask.path.clone();
            let answer = door.ask(ask).await;
            assert_eq!(answer.status, expected, "{path} {at}: {answer}");
        }
    }
    shop.close().await;
}

/// Every timestamp in an answer.
fn timestamps(json: &Value) -> Vec<String> {
    match json {
        Value::Array(list) => list.iter().flat_map(timestamps).collect(),
        Value::Object(object) => object.values().flat_map(timestamps).collect(),
        Value::String(text) if text.parse::<jiff::Timestamp>().is_ok() => vec![text.clone()],
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn all_answers_show_timestamps_in_one_form() {
    let shop = Shop::open(&[]).await;
    let day = include_str!("../data/day-10x60.json");
    let plan = json!({"driver_ids": ["driver_1"], "max_per_driver": 1});
    let promised = shop.customers.ask(order().prefer("respond-async")).await;
    let promised = promised.expect(202);
    let placed = text(&promised["order_id"]);
    shop.staff.ask(put("/manifest").body(day)).await.expect(200);
    let asks = [
        (shop.staff, post("/assign").json(&plan)),
        (
            shop.staff,
            post("/deliveries/d/events").json(&json!({"type": "PARCEL_COLLECTED"})),
        ),
        (
            shop.staff,
            post("/events").json(&an_order_for_a_courier("2142-05-01T12:00:00Z")),
        ),
        (
            shop.customers,
            put_preferences(&preferences("2142-05-01T12:00:00.5Z", false, true)),
        ),
        (shop.customers, send(&package("p"))),
    ];
    for (door, ask) in asks {
        let answer = door.ask(ask).await;
        assert!((200..300).contains(&answer.status), "{answer}");
    }
    let mut shown = timestamps(&promised);
    for (door, path, least) in [
        (shop.customers, format!("/orders/{placed}"), 1),
        (shop.staff, "/start/".to_owned(), 2),
        (shop.customers, format!("/orders/{placed}"), 2),
        (shop.staff, "/deliveries".to_owned(), 2),
        (shop.staff, "/deliveries/d/events".to_owned(), 1),
        (shop.staff, "/assignments".to_owned(), 2),
        (shop.staff, "/couriers/parked".to_owned(), 1),
        (shop.staff, "/couriers/events".to_owned(), 2),
        (shop.customers, "/packages/p".to_owned(), 1),
        (shop.customers, "/readyz".to_owned(), 5),
    ] {
        let answer = door.ask(get(path.clone())).await.expect(200);
        let found = timestamps(&answer);
        assert!(found.len() >= least, "{path}: {answer}");
        shown.extend(found);
    }
    for at in shown {
        let form = "2142-05-01T12:00:00.000000Z";
        let is_alike = |(one, other): (char, char)| {
            one == other || (one.is_ascii_digit() && other.is_ascii_digit())
        };
        let fits = at.len() == form.len() && at.chars().zip(form.chars()).all(is_alike);
        assert!(fits, "{at}");
    }
    let finish = format!("/finish/?order_id={placed}");
    shop.staff.ask(post(finish)).await.expect(200);
    shop.close().await;
}

#[tokio::test]
async fn a_recipient_who_declined_in_one_unicode_form_is_not_sent_to_in_another() {
    let shop = Shop::open(&[]).await;
    let [composed, decomposed] = ["Zo\u{eb}", "Zoe\u{308}"];
    let declines = with(&preferences(1, false, false), "recipient_id", composed);
    shop.customers.expect(put_preferences(&declines), 200).await;
    let sent = with(&package("p-\u{e9}"), "recipient_id", decomposed);
    let first = shop.customers.ask(send(&sent)).await.expect(201);
    assert_eq!(first["status"], "dropped");
    // The package's own id is the same in both forms, too.
    let again = with(&sent, "package_id", "p-e\u{301}");
    let again = shop.customers.ask(send(&again)).await.expect(200);
    assert_eq!(again["duplicate"], true);
    assert_eq!(again["package_id"], "p-\u{e9}");
    for path in ["/preferences/Zo%C3%AB", "/preferences/Zoe%CC%88"] {
        let taken = shop.customers.ask(get(path)).await.expect(200);
        assert_eq!(taken["personal_preference"], false, "{path}");
    }
    shop.close().await;
}

#[tokio::test]
async fn an_order_sent_again_with_the_same_json_written_differently_is_the_same_order() {
    let shop = Shop::open(&[]).await;
    let place = async |body: &str| {
        let ask = order().key("the-same-key").prefer("respond-async");
        shop.customers.ask(ask.body(body.to_owned())).await
    };
    let first = place(r#"{"customer": "Zoë", "note": [1]}"#)
        .await
        .expect(202);
    for same in [
        r#"{"customer":"Zoë","note":[1]}"#,
        r#"{ "note": [1.0], "customer": "Zo\u00eb" }"#,
    ] {
        let again = place(same).await.expect(202);
        assert_eq!(again["order_id"], first["order_id"], "{same}");
    }
    let other = place(r#"{"customer": "Ada", "note": [1]}"#).await;
    assert_eq!(other.status, 422, "{other}");
    shop.serve_all().await;
    shop.close().await;
}

/// A clock that is wrong, for a process that is started with it.
const SHIM: &str = r"
#include <time.h>
#include <sys/syscall.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *at) {
    int failed = syscall(SYS_clock_gettime, clock, at);
    if (clock == CLOCK_REALTIME) at->tv_sec -= 3000000000;
    return failed;
}
";

#[test]
fn a_server_whose_clock_is_before_1970_says_so_and_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let (source, library) = (dir.path().join("clock.c"), dir.path().join("clock.so"));
    fs::write(&source, SHIM).unwrap();
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .status();
    assert!(built.unwrap().success());
    let preload = format!("LD_PRELOAD={}", library.display());
    let mut command = odyssey_by("env", &[&preload]);
    let output = command
        .arg("serve")
        .current_dir(dir.path())
        .output()
        .unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(message.contains("the clock says 19"), "{message}");
    assert!(message.contains("before 1970; set the clock"), "{message}");
}

#[tokio::test]
async fn what_is_stored_is_readable_for_this_user_only() {
    let shop = Shop::open(&[]).await;
    shop.customers.ask(send(&package("p"))).await.expect(201);
    let data = shop.dir.path().join("data");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    let mut databases = 0;
    for entry in fs::read_dir(&data).unwrap() {
        let path = entry.unwrap().path();
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&path), expected, "{}", path.display());
        databases += u32::from(path.extension().is_some_and(|ending| ending == "db"));
    }
    assert!(databases >= 4, "{databases}");
    shop.close().await;
}
