//! The assignment desk: what its tests share, and its operational log. By endpoint: [`plans`], several of them at once in
//! [`turns`], [`lists`] and updates.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use jiff::Timestamp;
use serde_json::{Value, json};
use simulators::assignments::model::ASPECTS;
use simulators::assignments::{self, Model};

use crate::client::{Answer, Ask, get, post, put, within};
use crate::durability::open;
use crate::packages::with;
use crate::shop::{Shop, text};

mod lists;
mod plans;
mod turns;

/// A day that is not today.
pub(crate) const DAY: &str = "2142-05-01";
pub(crate) const STATUSES: [&str; 5] = [
    "assigned",
    "accepted",
    "in_progress",
    "delivered",
    "failed_to_deliver",
];

/// Who has which packages.
pub(crate) type Plan = BTreeMap<String, Vec<String>>;

// --- Manifests -----------------------------------------------------------------------------------------------------

/// A package that any driver may carry.
pub(crate) fn package(id: &str) -> Value {
    json!({
        "package_id": id, "weight_kg": 1.5, "is_perishable": false, "region": "north", "distance_km": 3,
        "is_express": false, "is_fragile": false, "hazmat_class": null, "temperature_c": 18.5, "delivery_hour": 12,
        "volume_m3": 0.25,
    })
}

/// A driver with these rules: codes with their parameters.
pub(crate) fn driver(id: &str, rules: &[(&str, Value)]) -> Value {
    let rules = rules
        .iter()
        .map(|(code, params)| json!({"code": code, "params": params}));
    json!({"driver_id": id, "rules": rules.collect::<Vec<_>>()})
}

pub(crate) fn lists(drivers: &[Value], packages: &[Value]) -> Value {
    json!({"drivers": drivers, "packages": packages})
}

/// `count` packages that any driver may carry, from `p-000`.
pub(crate) fn any_packages(count: usize) -> Vec<Value> {
    (0..count)
        .map(|number| package(&format!("p-{number:03}")))
        .collect()
}

/// So many drivers who carry anything: `d-00` and on.
pub(crate) fn any_drivers(count: usize) -> Vec<Value> {
    (0..count)
        .map(|number| driver(&format!("d-{number:02}"), &[]))
        .collect()
}

pub(crate) fn data_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

/// A real day: ten drivers, sixty packages.
pub(crate) fn real_day() -> Value {
    serde_json::from_slice(&fs::read(data_file("day-10x60.json")).unwrap()).unwrap()
}

/// The names in one of a manifest's lists.
pub(crate) fn names(manifest: &Value, list: &str) -> Vec<String> {
    let name = if list == "drivers" {
        "driver_id"
    } else {
        "package_id"
    };
    let listed = manifest[list].as_array().unwrap();
    listed.iter().map(|one| text(&one[name])).collect()
}

// --- Requests ------------------------------------------------------------------------------------------------------

pub(crate) fn put_manifest(manifest: &Value) -> Ask {
    put("/manifest").json(manifest)
}

pub(crate) fn wanted<T: AsRef<str>>(drivers: &[T], most: u32) -> Value {
    let drivers: Vec<_> = drivers.iter().map(AsRef::as_ref).collect();
    json!({"driver_ids": drivers, "max_per_driver": most})
}

pub(crate) fn assign(wanted: &Value) -> Ask {
    post("/assign").json(wanted)
}

pub(crate) fn update(driver: &str, package: &str, status: &str) -> Ask {
    let update = json!({"driver_id": driver, "package_id": package, "status": status});
    post("/update").json(&update)
}

/// A shop that has this manifest for today.
pub(crate) async fn prepared(manifest: &Value) -> Shop {
    let shop = Shop::open(&[]).await;
    shop.staff.ask(put_manifest(manifest)).await.expect(200);
    shop
}

/// All assignments that fit this query, page by page.
pub(crate) async fn listed(shop: &Shop, query: &str) -> Vec<Value> {
    let mut connection = shop.staff.connect().await;
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let ask = get(format!("/assignments?{query}{cursor}"));
        let page = within("a page", connection.ask(&ask)).await.expect(200);
        found.extend(page["assignments"].as_array().unwrap().iter().cloned());
        let Some(next) = page.get("next") else {
            return found;
        };
        cursor = format!("&cursor={}", text(next));
    }
}

/// Who has which package, of a list in which none is twice.
#[track_caller]
pub(crate) fn holders(listed: &[Value]) -> BTreeMap<String, String> {
    let mut holders = BTreeMap::new();
    for item in listed {
        let before = holders.insert(text(&item["package_id"]), text(&item["driver_id"]));
        assert_eq!(before, None, "it has two drivers: {item}");
    }
    holders
}

// --- What a plan must be -------------------------------------------------------------------------------------------

fn model(manifest: &Value) -> Model {
    Model::new(serde_json::from_value(manifest.clone()).unwrap()).unwrap()
}

/// The most packages that all listed drivers can carry that day, if those in `held` stay where they are.
pub(crate) fn most(manifest: &Value, cap: u32, held: &BTreeMap<String, String>) -> usize {
    let model = model(manifest);
    let mut owners = vec![None; model.packages()];
    for (package, driver) in held {
        owners[model.package(package).unwrap()] = model.driver(driver);
    }
    let drivers: Vec<usize> = (0..model.drivers()).collect();
    model.most(&drivers, cap, &owners)
}

/// Checks that an answer is a plan: these drivers, no package twice, none too many, none against a rule. Returns who has what.
#[track_caller]
pub(crate) fn expect_plan(manifest: &Value, wanted: &Value, answer: &Answer) -> Plan {
    let response = answer.expect(200);
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer}");
    let members: Vec<_> = response.as_object().unwrap().keys().collect();
    let expected = ["assignments", "unassigned_drivers", "unassigned_packages"];
    assert_eq!(members, expected);
    let plan: assignments::Plan = serde_json::from_value(response).unwrap();
    assert!(plan.unassigned_drivers.is_sorted(), "{answer}");
    let model = model(manifest);
    let asked: BTreeSet<String> = serde_json::from_value(wanted["driver_ids"].clone()).unwrap();
    let mut drivers: Vec<_> = asked.iter().map(|id| model.driver(id).unwrap()).collect();
    drivers.sort_unstable();
    let cap = wanted["max_per_driver"].as_u64().unwrap();
    let nothing = vec![None; model.packages()];
    let call = assignments::model::Call {
        drivers: &drivers,
        max_per_driver: cap.try_into().unwrap(),
        before: nothing.clone(),
        after: nothing,
        settled: None,
    };
    let judged = model.judge(&call, &plan);
    // The last aspects are about plans before and beside this one.
    for (aspect, judgement) in ASPECTS.iter().zip(judged.aspects).take(5) {
        assert_eq!(judgement, Ok(()), "{aspect}: {answer}");
    }
    plan.assignments
}

/// The places that an answer says are wrong.
#[track_caller]
pub(crate) fn pointers(answer: &Answer) -> Vec<String> {
    let problem = answer.expect_problem(422, "invalid");
    let errors = problem["errors"].as_array().unwrap();
    assert!(!errors.is_empty(), "{answer}");
    for error in errors {
        assert!(!text(&error["detail"]).is_empty(), "{answer}");
    }
    errors.iter().map(|error| text(&error["pointer"])).collect()
}

const GIVEN: &str = "odyssey_assignments_given_total";

/// A query's value.
pub(crate) fn encoded(text: &str) -> String {
    let bytes: Vec<_> = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
    bytes.concat()
}

// --- The operational log -------------------------------------------------------------------------------------------

/// Unpacks lines of the operational log.
#[track_caller]
pub(crate) fn unpacked(bytes: &[u8]) -> Vec<Value> {
    let mut lines = String::new();
    MultiGzDecoder::new(bytes)
        .read_to_string(&mut lines)
        .unwrap();
    assert!(lines.ends_with('\n'), "the last line is cut");
    let lines = lines.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// All lines of the operational log in a data directory, after the server has ended.
pub(crate) fn logged(data: &Path) -> Vec<Value> {
    let mut found = Vec::new();
    let log = data.join("oplog");
    for entry in fs::read_dir(&log).unwrap() {
        let day = entry.unwrap();
        let name = day.file_name().into_string().unwrap();
        if name == "spool" {
            let left: Vec<_> = fs::read_dir(day.path()).unwrap().collect();
            assert!(left.is_empty(), "left in the spool: {left:?}");
            continue;
        }
        assert!(name.starts_with("dt="), "{name}");
        for file in fs::read_dir(day.path()).unwrap() {
            let path = file.unwrap().path();
            let name = path.to_str().unwrap();
            assert!(name.ends_with(".ndjson.gz"), "{name}");
            found.extend(unpacked(&fs::read(path).unwrap()));
        }
    }
    found
}

/// A line without its time, which must be one.
#[track_caller]
pub(crate) fn timeless(line: &Value) -> String {
    let mut line = line.clone();
    let at = line.as_object_mut().unwrap().remove("at").unwrap();
    text(&at).parse::<Timestamp>().unwrap();
    line.to_string()
}

/// A line of the operational log, except its time.
pub(crate) fn line(
    request: &str,
    kind: &str,
    [driver, package]: [&str; 2],
    from_to: [Option<&str>; 2],
) -> String {
    json!({
        "request_id": request, "kind": kind, "driver_id": driver, "package_id": package, "from": from_to[0],
        "to": from_to[1],
    })
    .to_string()
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort_unstable();
    lines
}

#[tokio::test]
async fn the_operational_log_has_a_line_for_whatever_was_given_given_up_and_updated() {
    let data = tempfile::tempdir().unwrap();
    let shop = open(data.path(), &[]).await;
    let day = with(&lists(&any_drivers(2), &any_packages(6)), "date", DAY);
    shop.staff.ask(put_manifest(&day)).await.expect(200);
    let id = |ask: Ask, id: &str| ask.header("X-Request-Id", id);
    let wanted = with(&wanted(&["d-00", "d-01"], 3), "date", DAY);
    let mut expected = Vec::new();
    let assigned = Some("assigned");
    let dry = with(&wanted, "dry_run", true);
    shop.staff.ask(id(assign(&dry), "dry")).await.expect(200);
    let answer = shop.staff.ask(id(assign(&wanted), "first")).await;
    let plan = expect_plan(&day, &wanted, &answer);
    for (name, packages) in &plan {
        for package in packages {
            expected.push(line("first", "assign", [name, package], [None, assigned]));
        }
    }
    shop.staff.expect(id(assign(&wanted), "again"), 200).await;
    let done = &plan["d-00"][0];
    for (request, from, to) in [
        ("u-1", "assigned", "accepted"),
        ("u-2", "accepted", "failed_to_deliver"),
        ("u-3", "failed_to_deliver", "failed_to_deliver"),
    ] {
        let message = id(update("d-00", done, to), request);
        shop.staff.ask(message).await.expect(200);
        expected.push(line(
            request,
            "update",
            ["d-00", done],
            [Some(from), Some(to)],
        ));
    }
    let refused = id(update("d-01", done, "delivered"), "refused");
    shop.staff
        .expect_problem(refused, 404, "assignment-unknown")
        .await;
    let refused = id(
        assign(&with(&wanted, "driver_ids", json!(["zoe"]))),
        "refused",
    );
    pointers(&shop.staff.ask(refused).await);
    // The first driver may carry nothing more; their packages, except finished ones, go to the other.
    let mut changed = day.clone();
    changed["drivers"][0] = driver("d-00", &[("EXPRESS_ONLY", json!({}))]);
    shop.staff.ask(put_manifest(&changed)).await.expect(200);
    let reset = with(&with(&wanted, "reset", true), "max_per_driver", 6);
    let response = shop.staff.expect(id(assign(&reset), "reset"), 200).await;
    assert_eq!(response["assignments"]["d-00"], json!([done]));
    for package in plan["d-00"].iter().filter(|package| *package != done) {
        expected.push(line(
            "reset",
            "give_up",
            ["d-00", package],
            [assigned, None],
        ));
        expected.push(line("reset", "assign", ["d-01", package], [None, assigned]));
    }
    shop.close().await;
    let found = logged(data.path()).iter().map(timeless).collect();
    assert_eq!(sorted(found), sorted(expected));
}

#[tokio::test]
async fn an_operational_log_that_goes_nowhere_writes_nothing() {
    let data = tempfile::tempdir().unwrap();
    let shop = open(data.path(), &[("oplog.sink", "none")]).await;
    let day = lists(&any_drivers(1), &any_packages(3));
    shop.staff.ask(put_manifest(&day)).await.expect(200);
    shop.staff.expect(assign(&wanted(&["d-00"], 3)), 200).await;
    shop.staff
        .expect(update("d-00", "p-000", "accepted"), 200)
        .await;
    shop.close().await;
    assert!(!data.path().join("oplog").exists());
}
