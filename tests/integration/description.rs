//! The descriptions of both listeners, as others read them: a validator of `OpenAPI`, and schemathesis, which asks what they
//! say may be asked and compares the answers with what they promise.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use hyper::Uri;
use serde_json::Value;

use crate::client::{Ask, Door, get};
use crate::durability::number_from_environment;
use crate::shop::{Shop, odyssey, text};

/// Of each operation. `make soak` wants fifty.
const EXAMPLES: u64 = 5;
const EXAMPLES_VARIABLE: &str = "SOAK_EXAMPLES";
/// What is left of schemathesis' checks: whether it is refused what a schema allows is not one of ours. A schema cannot say
/// that a driver must be in the day's lists, which parameters a rule has, or what a cursor is.
const CHECKS_LEFT_OUT: &str = "positive_data_acceptance";

/// A program of the virtual environment that `scripts/install-tools.sh test` makes.
fn tool(name: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = root.join("target/api/bin").join(name);
    assert!(
        program.exists(),
        "{} is missing: scripts/install-tools.sh test",
        program.display()
    );
    Command::new(program)
}

async fn run(mut command: Command) -> String {
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    let output = output.unwrap().unwrap();
    let message = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{message}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    message
}

#[tokio::test]
async fn both_descriptions_are_valid_openapi() {
    let dir = tempfile::tempdir().unwrap();
    for listener in ["customers", "staff"] {
        let mut command = odyssey();
        command.args(["openapi", "--listener", listener]);
        let file = dir.path().join(format!("{listener}.json"));
        let description = run(command).await;
        std::fs::write(&file, &description).unwrap();
        let mut validator = tool("python");
        validator.args(["-m", "openapi_spec_validator"]).arg(&file);
        run(validator).await;

        // What the validator does not look at.
        let api: Value = serde_json::from_str(&description).unwrap();
        let mut ids = BTreeSet::new();
        for (what, operation) in operations(&api) {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{what}: {id} is there twice");
            assert!(!text(&operation["summary"]).is_empty(), "{what}");
            for (status, response) in operation["responses"].as_object().unwrap() {
                let description = response["description"].as_str().unwrap_or_default();
                assert!(!description.is_empty(), "{what}: {status} is not described");
                let content = response["content"].as_object().into_iter().flatten();
                for (kind, _) in content {
                    let problem = kind == "application/problem+json";
                    assert_eq!(
                        problem,
                        status.as_str() >= "400",
                        "{what}: {status} is {kind}"
                    );
                    let plain = kind.starts_with("text/plain");
                    assert!(
                        !plain || what == "GET /metrics",
                        "{what}: {status} is {kind}"
                    );
                }
            }
        }
    }
}

/// By method and path.
fn operations(api: &Value) -> BTreeMap<String, Value> {
    let paths = api["paths"].as_object().unwrap().iter();
    let operations = paths.flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().iter();
        methods.map(move |(method, operation)| {
            let what = format!("{} {path}", method.to_uppercase());
            (what, operation.clone())
        })
    });
    operations.collect()
}

/// Which operation was answered with which status.
type Seen = BTreeSet<(String, u16)>;

/// Lets schemathesis ask. What it was answered is returned.
async fn schemathesis(door: Door, api: &Value, dir: &Path) -> Seen {
    let report = dir.join(format!("{}.har", door.address.port()));
    let examples = number_from_environment(EXAMPLES_VARIABLE).unwrap_or(EXAMPLES);
    let mut command = tool("schemathesis");
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemathesis.toml");
    command
        // It leaves files there.
        .current_dir(dir)
        .arg("--config-file")
        .arg(config)
        .arg("run")
        .arg(format!("http://{}/openapi.json", door.address))
        .args([
            "--phases",
            "coverage,fuzzing",
            "--seed",
            "1",
            "--max-examples",
            &examples.to_string(),
        ])
        .args(["--exclude-checks", CHECKS_LEFT_OUT, "--warnings", "off"])
        .args(["--request-timeout", "20", "--no-shrink"])
        .args(["--report-har-path"])
        .arg(&report);
    run(command).await;
    let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    let entries = report["log"]["entries"].as_array().unwrap();
    let seen = entries.iter().filter_map(|entry| {
        let path = text(&entry["request"]["url"])
            .parse::<Uri>()
            .ok()?
            .path()
            .to_owned();
        let operation = described(api, &text(&entry["request"]["method"]), &path)?;
        let status = entry["response"]["status"].as_u64()?;
        Some((operation, u16::try_from(status).ok()?))
    });
    seen.collect()
}

/// The operation that a request is for; a path without parameters before one with them.
fn described(api: &Value, method: &str, path: &str) -> Option<String> {
    let paths = api["paths"].as_object().unwrap();
    let fits = |template: &str| {
        let (template, path) = (template.split('/'), path.split('/'));
        template.clone().count() == path.clone().count()
            && template
                .zip(path)
                .all(|(wanted, found)| wanted == found || wanted.starts_with('{'))
    };
    let literal = paths.contains_key(path).then_some(path);
    let template = literal.or_else(|| paths.keys().map(String::as_str).find(|path| fits(path)))?;
    let item = &paths[template];
    item.get(method.to_lowercase())
        .is_some()
        .then(|| format!("{method} {template}"))
}

/// Queries and headers that are refused, or answered 304.
const REFUSED: [(&str, &str); 5] = [
    ("brista=Bo", ""),
    ("", "sec-fetch-site: cross-site\r\n"),
    ("", "content-length: 1000000000\r\n"),
    ("", "content-type: text/plain\r\ncontent-length: 1\r\n"),
    ("", "if-none-match: *\r\n"),
];
/// More than the one byte that is sent.
const SLOW: (&str, &str) = ("", "content-length: 2\r\n");

/// Asks each operation for what it may be refused with whatever it does.
async fn refusals(door: Door, api: &Value, requests: &[(&str, &str)]) -> Seen {
    let mut seen = Seen::new();
    for (operation, description) in operations(api) {
        let (method, path) = operation.split_once(' ').unwrap();
        // An id of whatever kind.
        let path = path
            .replace("{address}", "192.0.2.7")
            .replace("{sequence}", "1");
        let path = match path.split_once('{') {
            Some((head, rest)) => {
                let (_, tail) = rest.split_once('}').unwrap();
                format!("{head}0191d5c8-7a9b-7000-8000-000000000000{tail}")
            }
            None => path,
        };
        let parameters = description["parameters"].as_array().into_iter().flatten();
        let waits = parameters
            .filter(|parameter| parameter["name"] == "wait")
            .count();
        let path = if waits > 0 {
            format!("{path}?wait=0")
        } else {
            path
        };
        let tail = if waits > 0 { "&" } else { "?" };
        let typed = "content-type: application/json\r\n";
        for (query, headers) in requests {
            let query = if query.is_empty() {
                String::new()
            } else {
                format!("{tail}{query}")
            };
            let typed = if headers.contains("content-type") {
                ""
            } else {
                typed
            };
            let host = door.address;
            let head = format!(
                "{method} {path}{query} HTTP/1.1\r\nhost: {host}\r\nprefer: wait=0\r\n{typed}{headers}"
            );
            let mut raw = door.raw().await;
            // One byte of a body, if there is one.
            raw.write(format!("{head}connection: close\r\n\r\n{{"))
                .await;
            let answer = raw.rest().await;
            let status = answer.get(9..12).and_then(|status| status.parse().ok());
            seen.extend(status.map(|status| (operation.clone(), status)));
        }
        let foreign = Ask::new(method.parse().unwrap(), path).header("host", "evil.example");
        seen.insert((operation.clone(), door.ask(foreign).await.status));
    }
    seen
}

/// What is described and not reached here, with the reason and the tests that reach it. An operation may be any.
const REACHED_ELSEWHERE: [(&str, &[u16], &str); 19] = [
    ("", &[429], "takes a flood: flood.rs"),
    (
        "",
        &[503],
        "takes a full line or disk, or an engine that is away: orders_customers.rs, durability.rs",
    ),
    (
        "GET /orders/{order_id}",
        &[200, 422],
        "takes an order's id, and a wait out of bounds: orders_customers.rs, orders_baristas.rs",
    ),
    (
        "DELETE /orders/{order_id}",
        &[409],
        "takes a barista: orders_customers.rs",
    ),
    (
        "POST /order/",
        &[200, 409],
        "takes a barista, or who cancels: orders_customers.rs",
    ),
    (
        "GET /start/",
        &[200, 204],
        "POST is asked first: orders_baristas.rs",
    ),
    (
        "POST /extend/",
        &[200, 409],
        "takes an order that was started: orders_baristas.rs",
    ),
    (
        "POST /finish/",
        &[200, 409],
        "takes an order that was started: orders_baristas.rs",
    ),
    (
        "POST /release/",
        &[200, 409],
        "takes an order that was started: orders_baristas.rs",
    ),
    (
        "POST /storage/check",
        &[409],
        "takes a check that is running: src/app/check.rs",
    ),
    ("GET /login", &[200], "takes tokens: login.rs"),
    (
        "POST /login",
        &[303, 401],
        "takes tokens: access.rs, login.rs",
    ),
    (
        "GET /board",
        &[404],
        "needs `pages.board = \"off\"`: orders_feeds.rs",
    ),
    ("GET /courier", &[404], "takes an order's id: couriers.rs"),
    (
        "GET /manifest",
        &[404],
        "takes a day without lists: assignments_manifest.rs",
    ),
    ("DELETE /flood/{address}", &[200], "takes a flood: flood.rs"),
    ("POST /login", &[303, 401], "takes a token: access.rs"),
    (
        "POST /assign",
        &[200, 409],
        "takes drivers of the day's lists, or no lists: assignments/plans.rs",
    ),
    (
        "POST /update",
        &[200, 409],
        "takes a package that was given: assignments/lists.rs",
    ),
];

#[tokio::test]
async fn both_listeners_answer_as_they_are_described_and_every_description_is_reached() {
    let settings = [
        ("flood.mode", "off"),
        ("log.level", "info"),
        ("customers.hosts", "ip"),
    ];
    let impatient = [
        ("http.body_timeout", "100ms"),
        ("assignments.manifest_timeout", "1s"),
    ];
    let shop = Shop::open(&settings).await;
    let impatient = Shop::open(&[&settings[..], &impatient].concat()).await;
    let dir = tempfile::tempdir().unwrap();
    let mut missing = Vec::new();
    // One after the other: what is a customer's order for one is a barista's for the other.
    for (door, impatient_door) in [
        (shop.customers, impatient.customers),
        (shop.staff, impatient.staff),
    ] {
        let api = door.ask(get("/openapi.json")).await.expect(200);
        let mut seen = schemathesis(door, &api, dir.path()).await;
        seen.extend(refusals(door, &api, &REFUSED).await);
        seen.extend(refusals(impatient_door, &api, &[SLOW]).await);
        for (operation, description) in operations(&api) {
            for status in description["responses"].as_object().unwrap().keys() {
                let status: u16 = status.parse().unwrap();
                let elsewhere = REACHED_ELSEWHERE.iter().any(|(known, statuses, _)| {
                    statuses.contains(&status) && (known.is_empty() || *known == operation)
                });
                if !elsewhere && !seen.contains(&(operation.clone(), status)) {
                    missing.push(format!("{operation} {status}"));
                }
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new());
    for shop in [shop, impatient] {
        shop.serve_all().await;
        shop.close().await;
    }
}
