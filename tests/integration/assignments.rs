//! The assignment desk: its answers to dispatchers and drivers, by situation.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Instant;

use flate2::read::MultiGzDecoder;
use hyper::Method;
use jiff::Timestamp;
use serde_json::{Value, json};
use simulators::assignments::model::ASPECTS;
use simulators::assignments::{self, Model};
use tokio::sync::Barrier;

use crate::client::{Answer, Ask, get, post, put, within};
use crate::durability::open;
use crate::packages::with;
use crate::shop::{Shop, text};

/// A day that is not today.
pub(crate) const DAY: &str = "2142-05-01";
pub(crate) const STATUSES: [&str; 5] = [
    "assigned",
    "accepted",
    "in_progress",
    "delivered",
    "failed_to_deliver",
];
/// The package of the seed's example.
const EXAMPLE: &str = "413a59e3-2583-4263-8e1c-8c5a632d03ae";

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

// --- The contract --------------------------------------------------------------------------------------------------

/// The lists that lead to the seed's example.
fn example() -> Value {
    let to = |id: &str, region: &str, hour: u64| {
        with(&with(&package(id), "region", region), "delivery_hour", hour)
    };
    lists(
        &[
            driver(
                "driver_1",
                &[("REGION_ONLY", json!({"allowed_regions": ["north"]}))],
            ),
            driver(
                "driver_2",
                &[("REGION_ONLY", json!({"allowed_regions": ["east"]}))],
            ),
            driver("driver_3", &[("EXPRESS_ONLY", json!({}))]),
        ],
        &[
            to("pkg-uuid4", "west", 7),
            to("pkg-uuid3", "east", 8),
            to("pkg-uuid2", "north", 10),
            to(EXAMPLE, "north", 9),
        ],
    )
}

#[tokio::test]
async fn the_requests_of_the_contract_are_answered_as_it_shows() {
    let shop = prepared(&example()).await;
    let body = r#"{
  "driver_ids": ["driver_1", "driver_2", "driver_3"],
  "max_per_driver": 10
}"#;
    let ask = post("/assign").header("Content-Type", "application/json");
    let answer = shop.staff.ask(ask.body(body)).await;
    assert_eq!(
        answer.expect(200),
        json!({
            "assignments": {
                "driver_1": [EXAMPLE, "pkg-uuid2"],
                "driver_2": ["pkg-uuid3"],
                "driver_3": [],
            },
            "unassigned_packages": ["pkg-uuid4"],
            "unassigned_drivers": ["driver_3"],
        })
    );
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let body = r#"{
  "driver_id": "driver_1",
  "package_id": "413a59e3-2583-4263-8e1c-8c5a632d03ae",
  "status": "in_progress"
}"#;
    let ask = post("/update").header("Content-Type", "application/json");
    let item = shop.staff.ask(ask.body(body)).await.expect(200);
    let mut expected = example()["packages"][3].clone();
    for (field, value) in [
        ("driver_id", json!("driver_1")),
        ("status", json!("in_progress")),
        ("date", item["date"].clone()),
        ("assigned_at", item["assigned_at"].clone()),
        ("updated_at", item["updated_at"].clone()),
    ] {
        expected[field] = value;
    }
    // Numbers are numbers, whether written 3 or 3.0.
    expected["distance_km"] = json!(3.0);
    assert_eq!(item, expected);
    let moment = |field: &str| text(&item[field]).parse::<Timestamp>().unwrap();
    assert!(moment("assigned_at") < moment("updated_at"), "{item}");
    for (driver, package) in [
        ("driver_2", EXAMPLE),
        ("driver_1", "pkg-uuid3"),
        ("driver_1", "pkg-uuid4"),
        ("driver_4", EXAMPLE),
        ("", ""),
    ] {
        let answer = shop.staff.ask(update(driver, package, "delivered")).await;
        answer.expect_problem(404, "assignment-unknown");
    }
    shop.close().await;
}

#[tokio::test]
async fn the_curl_line_of_the_contract_plans_two_packages_each() {
    let day = real_day();
    let shop = prepared(&day).await;
    let body = r#"{"driver_ids":["driver_1","driver_2"],"max_per_driver":2}"#;
    let ask = post("/assign").header("Content-Type", "application/json");
    let answer = shop.staff.ask(ask.body(body)).await;
    let wanted = serde_json::from_str(body).unwrap();
    let plan = expect_plan(&day, &wanted, &answer);
    let two: Value = json!({
        "drivers": &day["drivers"].as_array().unwrap()[..2], "packages": day["packages"],
    });
    let carried: usize = plan.values().map(Vec::len).sum();
    assert_eq!(carried, most(&two, 2, &BTreeMap::new()));
    shop.close().await;
}

#[tokio::test]
async fn a_real_day_is_planned_as_well_as_it_can_be_and_the_same_again_on_another() {
    let day = real_day();
    let shop = prepared(&day).await;
    let drivers = names(&day, "drivers");
    for cap in [0, 1, 3, 6, 10_000] {
        let wanted = with(&wanted(&drivers, cap), "dry_run", true);
        let answer = shop.staff.ask(assign(&wanted)).await;
        let plan = expect_plan(&day, &wanted, &answer);
        let carried: usize = plan.values().map(Vec::len).sum();
        assert_eq!(carried, most(&day, cap, &BTreeMap::new()), "{cap}");
    }
    // Whatever the order of the lists.
    let mut turned = with(&day, "date", DAY);
    for list in ["drivers", "packages"] {
        turned[list].as_array_mut().unwrap().reverse();
    }
    shop.staff.ask(put_manifest(&turned)).await.expect(200);
    let straight = wanted(&drivers, 3);
    let plan = shop.staff.ask(assign(&straight)).await;
    let turned: Vec<_> = drivers.iter().rev().collect();
    let turned = with(&wanted(&turned, 3), "date", DAY);
    let other = shop.staff.ask(assign(&turned)).await;
    assert_eq!(plan.expect(200), other.expect(200));
    shop.close().await;
}

// --- Again ---------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn asked_again_the_same_is_answered_and_what_was_given_stays_and_counts() {
    let day = real_day();
    let shop = prepared(&day).await;
    let drivers = names(&day, "drivers");
    let ask = |most| {
        let wanted = wanted(&drivers, most);
        let asked = shop.staff.ask(assign(&wanted));
        let day = &day;
        async move { (expect_plan(day, &wanted, &asked.await), wanted) }
    };
    let (first, again) = ask(2).await;
    for _ in 0..3 {
        let answer = shop.staff.ask(assign(&again)).await;
        assert_eq!(expect_plan(&day, &again, &answer), first);
    }
    assert_eq!(
        shop.metrics().await.count(GIVEN),
        listed(&shop, "").await.len()
    );
    // More for one of them, less for another: what they have they keep.
    let (name, has) = first.iter().find(|(_, has)| has.len() == 2).unwrap();
    let less = shop
        .staff
        .ask(assign(&wanted(&[name], 1)))
        .await
        .expect(200);
    assert_eq!(less["assignments"][name], json!(has));
    let (more, _) = ask(4).await;
    for (name, packages) in &first {
        let stored = packages.iter().all(|id| more[name].contains(id));
        assert!(stored, "{name} had {packages:?}, and has {:?}", more[name]);
    }
    let held = holders(&listed(&shop, "").await);
    assert_eq!(held.len(), more.values().map(Vec::len).sum::<usize>());
    let had: BTreeMap<_, _> = first
        .iter()
        .flat_map(|(name, has)| has.iter().map(|id| (id.clone(), name.clone())))
        .collect();
    assert_eq!(held.len(), most(&day, 4, &had));
    shop.close().await;
}

const GIVEN: &str = "odyssey_assignments_given_total";

#[tokio::test]
async fn the_cap_is_for_the_day_whoever_asks_and_however_often() {
    let day = lists(&any_drivers(3), &any_packages(10));
    let shop = prepared(&day).await;
    for (drivers, cap, has) in [
        (&["d-00"][..], 2, [2, 0, 0]),
        (&["d-00", "d-01"], 2, [2, 2, 0]),
        (&["d-00", "d-00", "d-00"], 3, [3, 2, 0]),
        (&["d-02"], 0, [3, 2, 0]),
        (&["d-02"], 10_000, [3, 2, 5]),
        (&["d-00", "d-01", "d-02"], 10_000, [3, 2, 5]),
    ] {
        let wanted = wanted(drivers, cap);
        let answer = shop.staff.ask(assign(&wanted)).await;
        // Duplicates collapse.
        let response = answer.expect(200);
        let asked: BTreeSet<_> = drivers.iter().copied().collect();
        assert_eq!(
            response["assignments"].as_object().unwrap().len(),
            asked.len()
        );
        for (name, has) in ["d-00", "d-01", "d-02"].into_iter().zip(has) {
            let held = listed(&shop, &format!("driver_id={name}")).await;
            assert_eq!(held.len(), has, "{name} after {wanted}");
        }
        let left = response["unassigned_packages"].as_array().unwrap();
        assert_eq!(left.len(), 10 - has.iter().sum::<usize>());
    }
    shop.close().await;
}

#[tokio::test]
async fn what_was_given_is_there_after_a_restart_and_counts() {
    let data = tempfile::tempdir().unwrap();
    let day = real_day();
    let drivers = names(&day, "drivers");
    let shop = open(data.path(), &[]).await;
    shop.staff
        .ask(put_manifest(&with(&day, "date", DAY)))
        .await
        .expect(200);
    let wanted = with(&wanted(&drivers, 3), "date", DAY);
    let first = shop.staff.ask(assign(&wanted)).await;
    let plan = expect_plan(&day, &wanted, &first);
    let (name, has) = plan.iter().find(|(_, has)| !has.is_empty()).unwrap();
    let item = shop.staff.ask(update(name, &has[0], "accepted")).await;
    let shown = shop.staff.ask(get(format!("/manifest?date={DAY}"))).await;
    let before = listed(&shop, "").await;
    shop.close().await;
    let shop = open(data.path(), &[]).await;
    assert_eq!(listed(&shop, "").await, before);
    assert!(before.contains(&item.expect(200)));
    let again = shop.staff.ask(get(format!("/manifest?date={DAY}"))).await;
    assert_eq!(
        (again.header("etag"), &again.body),
        (shown.header("etag"), &shown.body)
    );
    let again = shop.staff.ask(assign(&wanted)).await;
    assert_eq!(again.expect(200), first.expect(200));
    shop.close().await;
}

#[tokio::test]
async fn a_dry_run_tells_the_plan_and_gives_nothing() {
    let day = real_day();
    let shop = prepared(&day).await;
    let wanted = wanted(&names(&day, "drivers"), 5);
    let dry = with(&wanted, "dry_run", true);
    let plan = shop.staff.ask(assign(&dry)).await.expect(200);
    assert_eq!(listed(&shop, "").await, Vec::<Value>::new());
    assert_eq!(shop.metrics().await.count(GIVEN), 0);
    assert_eq!(shop.staff.ask(assign(&wanted)).await.expect(200), plan);
    let before = listed(&shop, "").await;
    let other = with(&with(&dry, "reset", true), "max_per_driver", 1);
    let answer = shop.staff.ask(assign(&other)).await;
    expect_plan(&day, &other, &answer);
    assert_eq!(listed(&shop, "").await, before);
    shop.close().await;
}

#[tokio::test]
async fn a_reset_gives_up_what_is_still_assigned_to_those_who_are_asked() {
    let day = lists(&any_drivers(3), &any_packages(9));
    let shop = prepared(&day).await;
    let all = ["d-00", "d-01", "d-02"];
    let ask = |wanted: Value| {
        let asked = shop.staff.ask(assign(&wanted));
        async move { asked.await.expect(200)["assignments"].clone() }
    };
    let first = ask(wanted(&all, 3)).await;
    let begun = text(&first["d-00"][0]);
    shop.staff
        .ask(update("d-00", &begun, "accepted"))
        .await
        .expect(200);
    // Said again to be assigned it is as if nothing had been said.
    let again = text(&first["d-00"][1]);
    for status in ["accepted", "assigned"] {
        shop.staff
            .ask(update("d-00", &again, status))
            .await
            .expect(200);
    }
    let reset = with(&wanted(&all[..2], 0), "reset", true);
    assert_eq!(ask(reset).await, json!({"d-00": [begun], "d-01": []}));
    let held = holders(&listed(&shop, "").await);
    let mut stored: BTreeMap<String, String> = BTreeMap::from([(begun.clone(), "d-00".to_owned())]);
    for id in first["d-02"].as_array().unwrap() {
        stored.insert(text(id), "d-02".to_owned());
    }
    assert_eq!(held, stored);
    // What was given up can be given again, to its driver too.
    let again = ask(wanted(&all, 3)).await;
    let held = holders(&listed(&shop, "").await);
    assert_eq!(held.len(), 9, "{again}");
    assert_eq!(held[&begun], "d-00");
    // A reset plans from the start; the same reset again changes nothing.
    let reset = with(&wanted(&all, 3), "reset", true);
    let anew = ask(reset.clone()).await;
    assert_eq!(holders(&listed(&shop, "").await)[&begun], "d-00");
    let before = listed(&shop, "").await;
    assert_eq!(before.len(), 9);
    assert_eq!(ask(reset).await, anew);
    assert_eq!(listed(&shop, "").await, before);
    shop.close().await;
}

// --- Why not -------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn every_package_left_behind_knows_why_and_what_would_help_most_is_told() {
    let rules = [
        ("MAX_WEIGHT", json!({"limit_kg": 5})),
        ("NO_PERISHABLE", json!({})),
    ];
    let heavy = |id: &str| with(&package(id), "weight_kg", 6);
    let day = lists(
        &[
            driver("a", &rules),
            driver("b", &rules[..1]),
            driver("c", &[("EXPRESS_ONLY", json!({}))]),
        ],
        &[
            heavy("heavy"),
            with(&heavy("heavy and spoils"), "is_perishable", true),
            package("light 1"),
            package("light 2"),
            package("light 3"),
        ],
    );
    let shop = prepared(&day).await;
    let wanted = with(&wanted(&["a", "b", "c"], 1), "dry_run", true);
    let explain = |value: &str| {
        let path = format!("/assign?explain={value}");
        shop.staff.ask(post(path).json(&wanted))
    };
    let response = explain("true").await.expect(200);
    let left = response["unassigned_packages"].as_array().unwrap();
    let packages = response["explanation"]["packages"].as_array().unwrap();
    let explained: Vec<_> = packages.iter().map(|one| &one["package_id"]).collect();
    assert_eq!(explained, left.iter().collect::<Vec<_>>());
    let why = |id: &str| packages.iter().find(|one| one["package_id"] == id).unwrap();
    assert_eq!(
        *why("heavy and spoils"),
        json!({
            "package_id": "heavy and spoils", "reason": "rules", "able_drivers": 0,
            "refused_by": {"EXPRESS_ONLY": 1, "MAX_WEIGHT": 2, "NO_PERISHABLE": 1},
        })
    );
    assert_eq!(
        why("heavy")["refused_by"],
        json!({"EXPRESS_ONLY": 1, "MAX_WEIGHT": 2})
    );
    let light: Vec<_> = packages
        .iter()
        .filter(|one| text(&one["package_id"]).starts_with("light"))
        .collect();
    let [light] = light[..] else {
        panic!("one light package must stay behind: {response}")
    };
    assert_eq!(light["reason"], "capacity");
    assert_eq!(light["able_drivers"], 2);
    // Without its rule c would carry one more; so would each driver with a cap of 2.
    assert_eq!(response["explanation"]["relaxation"]["gain"], 1);
    for without in [
        explain("false").await,
        shop.staff.ask(assign(&wanted)).await,
    ] {
        assert_eq!(without.expect(200).get("explanation"), None);
    }
    explain("maybe").await.expect_problem(400, "unreadable");
    shop.close().await;
}

#[tokio::test]
async fn a_plan_that_leaves_nothing_behind_has_nothing_to_explain() {
    let shop = prepared(&lists(&any_drivers(1), &any_packages(2))).await;
    let ask = post("/assign?explain=true").json(&wanted(&["d-00"], 2));
    let response = shop.staff.ask(ask).await.expect(200);
    assert_eq!(
        response["explanation"],
        json!({"packages": [], "relaxation": null})
    );
    shop.close().await;
}

// --- Days ----------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn all_drivers_of_a_large_day_can_be_named_in_one_request() {
    let drivers: Vec<Value> = (0..6000)
        .map(|number| driver(&format!("driver with a long name {number:04}"), &[]))
        .collect();
    let lists = lists(&drivers, &any_packages(10));
    let shop = prepared(&lists).await;
    let wanted = wanted(&names(&lists, "drivers"), 1);
    assert!(
        wanted.to_string().len() > 2 * 65_536,
        "more than other requests may have"
    );
    let plan = shop.staff.ask(assign(&wanted)).await.expect(200);
    assert_eq!(plan["unassigned_drivers"].as_array().unwrap().len(), 5990);
    assert_eq!(plan["unassigned_packages"], json!([]));
    shop.close().await;
}

#[tokio::test]
async fn each_day_has_its_own_lists_and_caps() {
    let shop = Shop::open(&[]).await;
    let one = with(&lists(&any_drivers(1), &any_packages(4)), "date", DAY);
    let other = with(&one, "date", "2142-05-02");
    for day in [&one, &other] {
        shop.staff.ask(put_manifest(day)).await.expect(200);
    }
    let today = shop.staff.ask(assign(&wanted(&["d-00"], 1))).await;
    let problem = today.expect_problem(409, "manifest-missing");
    assert!(problem["date"].is_string(), "{problem}");
    for (date, cap, has) in [
        (DAY, 3, 3),
        ("2142-05-02", 2, 2),
        (DAY, 2, 3),
        ("2142-05-02", 4, 4),
    ] {
        let wanted = with(&wanted(&["d-00"], cap), "date", date);
        let response = shop.staff.ask(assign(&wanted)).await.expect(200);
        assert_eq!(
            response["assignments"]["d-00"].as_array().unwrap().len(),
            has
        );
        let left = response["unassigned_packages"].as_array().unwrap().len();
        assert_eq!(left, 4 - has, "{date}");
        let listed = listed(&shop, &format!("date={date}")).await;
        assert_eq!(listed.len(), has, "{date}");
        assert!(listed.iter().all(|item| item["date"] == date));
    }
    // Of a pair that was given on several days the latest is meant.
    let item = shop.staff.ask(update("d-00", "p-000", "accepted")).await;
    assert_eq!(item.expect(200)["date"], "2142-05-02");
    shop.close().await;
}

// --- What is refused -----------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_request_for_a_plan_that_makes_no_sense_is_told_where() {
    let shop = prepared(&lists(&any_drivers(2), &any_packages(4))).await;
    let valid = wanted(&["d-00", "d-01"], 2);
    let long = "x".repeat(129);
    let mut missing = valid.clone();
    missing.as_object_mut().unwrap().remove("max_per_driver");
    for (body, expected) in [
        (with(&valid, "max_per_driver", -1), &["/max_per_driver"][..]),
        (with(&valid, "max_per_driver", 10_001), &["/max_per_driver"]),
        (with(&valid, "max_per_driver", "x"), &["/max_per_driver"]),
        (with(&valid, "max_per_driver", 1.5), &["/max_per_driver"]),
        (
            with(&valid, "max_per_driver", 5_000_000_000_u64),
            &["/max_per_driver"],
        ),
        (
            with(&valid, "max_per_driver", Value::Null),
            &["/max_per_driver"],
        ),
        (missing, &["/max_per_driver"]),
        (with(&valid, "driver_ids", json!([])), &["/driver_ids"]),
        (with(&valid, "driver_ids", "d-00"), &["/driver_ids"]),
        (
            with(&valid, "driver_ids", json!(["d-00", 7])),
            &["/driver_ids/1"],
        ),
        (
            with(&valid, "driver_ids", json!(["d-00", ""])),
            &["/driver_ids/1"],
        ),
        (
            with(&valid, "driver_ids", json!([long, "d-00", "a\n"])),
            &["/driver_ids/0", "/driver_ids/2"],
        ),
        (
            with(&valid, "driver_ids", json!(["zoe", "d-00", "yan"])),
            &["/driver_ids/0", "/driver_ids/2"],
        ),
        (with(&valid, "date", "tomorrow"), &["/date"]),
        (with(&valid, "date", "2142-02-30"), &["/date"]),
        (with(&valid, "dry_run", "yes"), &["/dry_run"]),
        (with(&valid, "reset", 1), &["/reset"]),
        (json!([]), &[""]),
        (json!({}), &["/driver_ids", "/max_per_driver"]),
    ] {
        let answer = shop.staff.ask(assign(&body)).await;
        let mut reported = pointers(&answer);
        reported.sort();
        // A field that is missing is missing in its object.
        let fits = reported == expected || (reported == [""] && expected.len() == 1);
        assert!(fits, "{body}: {answer}");
    }
    let unknown = with(&valid, "driver_ids", json!(["d-00", "zoë"]));
    let answer = shop.staff.ask(assign(&unknown)).await;
    assert!(text(&answer.json()["detail"]).contains("zoë"), "{answer}");
    // Unknown fields are ignored.
    let more = with(&valid, "explain", "no");
    assert_eq!(listed(&shop, "").await, Vec::<Value>::new());
    shop.staff.ask(assign(&more)).await.expect(200);
    shop.close().await;
}

#[tokio::test]
async fn a_body_that_is_no_object_of_json_is_refused_at_this_desk_too() {
    let shop = Shop::open(&[("http.body_max_bytes", "1000")]).await;
    let day = lists(&any_drivers(1), &any_packages(1));
    shop.staff.ask(put_manifest(&day)).await.expect(200);
    let json_type = "application/json";
    let update = json!({"driver_id": "d-00", "package_id": "p-000", "status": "accepted"});
    for (path, valid) in [("/assign", wanted(&["d-00"], 1)), ("/update", update)] {
        let whole = valid.to_string();
        let huge = with(&valid, "more", "x".repeat(1000)).to_string();
        for (content_type, body, status, kind) in [
            (json_type, "", 400, "unreadable"),
            (json_type, "hello", 400, "unreadable"),
            (json_type, &whole[..whole.len() - 1], 400, "unreadable"),
            (json_type, "null", 422, "invalid"),
            (json_type, "[]", 422, "invalid"),
            ("text/plain", &whole, 415, "not-json"),
            ("application/x-www-form-urlencoded", &whole, 415, "not-json"),
            (json_type, &huge, 413, "body-too-large"),
        ] {
            // A plan may name many drivers.
            if path == "/assign" && status == 413 {
                continue;
            }
            let ask = post(path).header("Content-Type", content_type);
            let answer = shop.staff.ask(ask.body(body.to_owned())).await;
            answer.expect_problem(status, kind);
        }
    }
    let mut huge = shop.staff.raw().await;
    let length = (2 << 20) + 1;
    huge.write(format!(
        "POST /assign HTTP/1.1\r\nHost: shop\r\nContent-Length: {length}\r\n\r\n"
    ))
    .await;
    let answer = huge.one_answer().await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    drop(huge);
    assert_eq!(listed(&shop, "").await, Vec::<Value>::new());
    shop.close().await;
}

#[tokio::test]
async fn paths_of_the_desk_answer_with_and_without_a_slash_to_the_staff_alone() {
    let day = lists(&any_drivers(1), &any_packages(1));
    let shop = prepared(&day).await;
    for slash in ["", "/"] {
        let at = |path: &str| format!("{path}{slash}");
        let ask = put(at("/manifest")).json(&day);
        shop.staff.ask(ask).await.expect(200);
        shop.staff.ask(get(at("/manifest"))).await.expect(200);
        let ask = post(at("/assign")).json(&wanted(&["d-00"], 1));
        let response = shop.staff.ask(ask).await.expect(200);
        assert_eq!(response["assignments"]["d-00"], json!(["p-000"]));
        let message = json!({"driver_id": "d-00", "package_id": "p-000", "status": "accepted"});
        shop.staff
            .ask(post(at("/update")).json(&message))
            .await
            .expect(200);
        let list = shop.staff.ask(get(at("/assignments"))).await.expect(200);
        assert_eq!(list["assignments"].as_array().unwrap().len(), 1);
    }
    for (path, allowed) in [
        ("/manifest", "GET,HEAD,PUT"),
        ("/assign", "POST"),
        ("/update/", "POST"),
        ("/assignments", "GET,HEAD"),
    ] {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] {
            let ask = Ask::new(method.parse::<Method>().unwrap(), path);
            let customers = shop.customers.ask(ask.clone()).await;
            assert_eq!(customers.status, 404, "{method} {path}: {customers}");
            if allowed.split(',').any(|word| word == method) {
                continue;
            }
            let answer = shop.staff.ask(ask).await;
            assert_eq!(answer.status, 405, "{method} {path}: {answer}");
            let allow: BTreeSet<_> = answer.header("allow").unwrap().split(',').collect();
            assert_eq!(allow, allowed.split(',').collect(), "{method} {path}");
        }
    }
    shop.close().await;
}

// --- At once -------------------------------------------------------------------------------------------------------

/// Asks for all of these plans at once.
async fn at_once(shop: &Shop, wanted: Vec<Value>) -> Vec<(Value, Answer)> {
    let start = Arc::new(Barrier::new(wanted.len()));
    let asking: Vec<_> = wanted
        .into_iter()
        .map(|wanted| {
            let (door, start) = (shop.staff, Arc::clone(&start));
            tokio::spawn(async move {
                let mut connection = door.connect().await;
                start.wait().await;
                let answer = connection.ask(&assign(&wanted)).await;
                (wanted, answer)
            })
        })
        .collect();
    let mut answers = Vec::new();
    for asked in asking {
        answers.push(within("a plan", asked).await.unwrap());
    }
    answers
}

#[tokio::test]
async fn twenty_who_ask_for_the_same_plan_at_once_get_the_same_plan() {
    let day = real_day();
    let shop = prepared(&day).await;
    let wanted = wanted(&names(&day, "drivers"), 4);
    let answers = at_once(&shop, vec![wanted.clone(); 20]).await;
    let first = expect_plan(&day, &wanted, &answers[0].1);
    for (_, answer) in &answers {
        assert_eq!(expect_plan(&day, &wanted, answer), first);
    }
    let held = holders(&listed(&shop, "").await);
    assert_eq!(held.len(), most(&day, 4, &BTreeMap::new()));
    assert_eq!(shop.metrics().await.count(GIVEN), held.len());
    shop.close().await;
}

#[tokio::test]
async fn twenty_who_ask_for_overlapping_drivers_at_once_never_get_a_package_twice() {
    let day = lists(&any_drivers(10), &any_packages(45));
    let shop = prepared(&day).await;
    let drivers = names(&day, "drivers");
    let overlapping = (0..20).map(|number| {
        let some: Vec<_> = (0..4).map(|next| &drivers[(number + next) % 10]).collect();
        wanted(&some, 3 + u32::from(number % 2 == 0))
    });
    for (wanted, answer) in at_once(&shop, overlapping.collect()).await {
        // Another request may have given a driver more than this one asked for.
        expect_plan(&day, &with(&wanted, "max_per_driver", 4), &answer);
    }
    let held = holders(&listed(&shop, "").await);
    for name in &drivers {
        let has = held.values().filter(|holder| *holder == name).count();
        assert!((3..=4).contains(&has), "{name} has {has}");
    }
    let all = wanted(&drivers, 5);
    let answer = shop.staff.ask(assign(&all)).await;
    let plan = expect_plan(&day, &all, &answer);
    assert_eq!(plan.values().map(Vec::len).sum::<usize>(), 45);
    shop.close().await;
}

// --- How far it has come -------------------------------------------------------------------------------------------

const RUNNING: &str = "odyssey_assignments_plans{state=\"running\"}";
const WAITING: &str = "odyssey_assignments_plans{state=\"waiting\"}";
const CANCELLED: &str = "odyssey_assignments_plans_cancelled_total";
/// Requests that may wait for their turn, as ARCHITECTURE.md states.
const PLANS_WAITING_MAX: usize = 100;

/// A day whose plan takes a second or two: nearly every package and every driver is of a kind of its own.
fn long_day() -> Value {
    const DRIVERS: usize = 300;
    const PACKAGES: usize = 12_000;
    let mut random = fastrand::Rng::with_seed(14);
    let mut halves = |most: u8| f64::from(random.u8(1..2 * most)) / 2.0;
    let drivers: Vec<Value> = (0..DRIVERS)
        .map(|number| {
            let start = number % 18;
            let rules = [
                (
                    "TIME_WINDOW",
                    json!({"start_hour": start, "end_hour": start + 5}),
                ),
                ("MAX_WEIGHT", json!({"limit_kg": halves(20)})),
                ("MAX_DISTANCE", json!({"max_km": halves(60)})),
            ];
            driver(&format!("d-{number:03}"), &rules)
        })
        .collect();
    let packages: Vec<Value> = (0..PACKAGES)
        .map(|number| {
            let mut package = package(&format!("p-{number:05}"));
            package["weight_kg"] = json!(halves(20));
            package["distance_km"] = json!(halves(60));
            package["delivery_hour"] = json!(number % 24);
            package
        })
        .collect();
    lists(&drivers, &packages)
}

/// A request for the long day's plan that changes nothing.
fn long_plan(day: &Value) -> Ask {
    let wanted = with(&wanted(&names(day, "drivers"), 39), "dry_run", true);
    post("/assign").json(&wanted)
}

#[tokio::test]
async fn a_client_that_leaves_has_its_plan_cancelled_long_before_it_would_be_done() {
    let day = long_day();
    let shop = prepared(&day).await;
    for number in 1..=3 {
        let leaving = shop.staff.hold(long_plan(&day));
        shop.until("it is planned", |now| now.count(RUNNING) == 1)
            .await;
        let left = Instant::now();
        leaving.leave().await;
        // It is counted only if it ended before it was done.
        shop.until("its plan has ended", |now| {
            now.count(CANCELLED) == number && now.count(RUNNING) == 0
        })
        .await;
        eprintln!("a plan was cancelled within {:?}", left.elapsed());
    }
    shop.close().await;
}

#[tokio::test]
async fn more_clients_than_processors_wait_for_their_turn_and_beyond_a_bound_are_told_to_come_back()
{
    let processors = available_parallelism().unwrap().get();
    let day = long_day();
    let shop = prepared(&day).await;
    let most = processors + PLANS_WAITING_MAX;
    let clients: Vec<_> = (0..most)
        .map(|_| shop.staff.hold(long_plan(&day)))
        .collect();
    shop.until("as many plan as may, and the others wait", |now| {
        assert!(now.count(RUNNING) <= processors);
        now.count(RUNNING) == processors && now.count(WAITING) == PLANS_WAITING_MAX
    })
    .await;
    let refused = shop.staff.ask(long_plan(&day)).await;
    refused.expect_problem(503, "planning-busy");
    assert!(refused.retry_after() >= 1);
    // The rest of the desk goes on.
    shop.staff.ask(get("/assignments")).await.expect(200);
    for client in clients {
        client.leave().await;
    }
    shop.until("nobody plans or waits", |now| {
        now.count(RUNNING) + now.count(WAITING) == 0
    })
    .await;
    shop.close().await;
}

#[tokio::test]
async fn sixty_who_ask_for_a_plan_at_once_all_get_it() {
    let day = real_day();
    let shop = prepared(&day).await;
    let wanted = with(&wanted(&names(&day, "drivers"), 4), "dry_run", true);
    for (wanted, answer) in at_once(&shop, vec![wanted; 60]).await {
        expect_plan(&day, &wanted, &answer);
    }
    shop.close().await;
}

#[tokio::test]
async fn any_status_may_follow_any_other_unless_it_is_strict() {
    for strict in [false, true] {
        let shop = Shop::open(&[("assignments.strict", &strict.to_string())]).await;
        let pairs = STATUSES.len() * STATUSES.len();
        let day = lists(&any_drivers(1), &any_packages(pairs));
        shop.staff.ask(put_manifest(&day)).await.expect(200);
        shop.staff
            .ask(assign(&wanted(&["d-00"], 100)))
            .await
            .expect(200);
        let mut connection = shop.staff.connect().await;
        let from_to = STATUSES
            .iter()
            .flat_map(|from| STATUSES.map(|to| (*from, to)));
        for ((from, to), id) in from_to.zip(names(&day, "packages")) {
            let mut say = async |status| connection.ask(&update("d-00", &id, status)).await;
            assert_eq!(say(from).await.expect(200)["status"], from);
            let is_final = ["delivered", "failed_to_deliver"].contains(&from);
            let answer = say(to).await;
            let stays = strict && is_final && from != to;
            if stays {
                let problem = answer.expect_problem(409, "status-final");
                assert_eq!(problem["current_status"], from);
            } else {
                assert_eq!(answer.expect(200)["status"], to);
            }
            let stored = listed(&shop, &format!("package_id={id}")).await;
            assert_eq!(stored[0]["status"], if stays { from } else { to });
        }
        drop(connection);
        shop.close().await;
    }
}

#[tokio::test]
async fn an_update_that_makes_no_sense_is_told_the_known_statuses() {
    let shop = prepared(&lists(&any_drivers(1), &any_packages(1))).await;
    shop.staff
        .ask(assign(&wanted(&["d-00"], 1)))
        .await
        .expect(200);
    for status in ["lost", "", "Delivered", "in progress"] {
        let answer = shop.staff.ask(update("d-00", "p-000", status)).await;
        assert_eq!(pointers(&answer), ["/status"], "{answer}");
        let detail = text(&answer.json()["detail"]);
        for known in STATUSES {
            assert!(detail.contains(known), "{known} is missing: {detail}");
        }
    }
    let valid = json!({"driver_id": "d-00", "package_id": "p-000", "status": "accepted"});
    for field in ["driver_id", "package_id", "status"] {
        for wrong in [json!(1.5), json!(null), json!(["d-00"])] {
            let message = post("/update").json(&with(&valid, field, wrong));
            let answer = shop.staff.ask(message).await;
            assert_eq!(pointers(&answer), [format!("/{field}")], "{answer}");
        }
        let mut missing = valid.clone();
        missing.as_object_mut().unwrap().remove(field);
        pointers(&shop.staff.ask(post("/update").json(&missing)).await);
    }
    assert_eq!(listed(&shop, "").await[0]["status"], "assigned");
    shop.close().await;
}

// --- Lists ---------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_list_shows_what_fits_all_that_is_said_page_by_page() {
    let shop = Shop::open(&[]).await;
    let day = lists(&any_drivers(3), &any_packages(24));
    for date in [DAY, "2142-05-02"] {
        shop.staff
            .ask(put_manifest(&with(&day, "date", date)))
            .await
            .expect(200);
        let wanted = wanted(&["d-00", "d-01", "d-02"], 8);
        let wanted = with(&wanted, "date", date);
        shop.staff.ask(assign(&wanted)).await.expect(200);
    }
    let all = listed(&shop, "limit=1000").await;
    assert_eq!(all.len(), 48);
    for item in all.iter().step_by(5) {
        let message = update(
            &text(&item["driver_id"]),
            &text(&item["package_id"]),
            "in_progress",
        );
        shop.staff.ask(message).await.expect(200);
    }
    let all = listed(&shop, "").await;
    let one = all[30].clone();
    let of_one = |field: &str| format!("{field}={}&", text(&one[field]));
    let fields = ["driver_id", "package_id", "status", "date"];
    for chosen in 0..16_usize {
        let chosen: Vec<_> = (0..4)
            .filter(|bit| chosen >> bit & 1 == 1)
            .map(|bit| fields[bit])
            .collect();
        let fits = |item: &&Value| chosen.iter().all(|field| item[*field] == one[*field]);
        let expected: Vec<_> = all.iter().filter(fits).cloned().collect();
        let query: Vec<_> = chosen.iter().map(|field| of_one(field)).collect();
        let query = query.concat();
        for limit in [1, 7, 1000] {
            let found = listed(&shop, &format!("{query}limit={limit}")).await;
            assert_eq!(found, expected, "{query} {limit}");
        }
    }
    let page = shop.staff.ask(get("/assignments?limit=48")).await;
    assert_eq!(page.expect(200).get("next"), None);
    assert_eq!(page.header("cache-control"), Some("no-store"));
    for unknown in [
        "driver_id=zoe",
        "package_id=",
        "driver_id=%00",
        "date=2142-05-03",
    ] {
        assert_eq!(
            listed(&shop, unknown).await,
            Vec::<Value>::new(),
            "{unknown}"
        );
    }
    shop.close().await;
}

#[tokio::test]
async fn a_list_that_cannot_be_is_told_the_parameter() {
    let shop = Shop::open(&[]).await;
    for (query, parameter) in [
        ("status=lost", "status"),
        ("status=", "status"),
        ("date=today", "date"),
        ("date=2142-13-01", "date"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=-1", "limit"),
        ("limit=many", "limit"),
        ("limit=", "limit"),
        ("cursor=", "cursor"),
        ("cursor=next", "cursor"),
        ("cursor=WyJhIl0", "cursor"),
        ("cursor=%F0%9F%98%80", "cursor"),
    ] {
        let answer = shop.staff.ask(get(format!("/assignments?{query}"))).await;
        let problem = answer.expect_problem(422, "invalid");
        assert_eq!(problem["errors"][0]["parameter"], parameter, "{answer}");
    }
    for query in ["status=lost", "status"] {
        let answer = shop.staff.ask(get(format!("/assignments?{query}"))).await;
        let detail = text(&answer.expect_problem(422, "invalid")["detail"]);
        assert!(
            STATUSES.iter().all(|known| detail.contains(known)),
            "{detail}"
        );
    }
    let answer = shop.staff.ask(get("/assignments?driver_id=%FF")).await;
    assert!([200, 400].contains(&answer.status), "{answer}");
    shop.close().await;
}

/// A query's value.
pub(crate) fn encoded(text: &str) -> String {
    let bytes: Vec<_> = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
    bytes.concat()
}

#[tokio::test]
async fn drivers_and_packages_of_any_name_are_found() {
    let long = "ü".repeat(128);
    let odd = [
        "Zoë 7",
        " a",
        "a ",
        "a",
        "A",
        "a/b",
        "a?b&c=d",
        "a+b",
        "a%2Fb",
        "\"'\\",
        "日本",
        "{id}",
        "..",
        "#",
        "a,b",
        "'; DROP TABLE hands",
        "🚚",
        &long,
    ];
    let drivers: Vec<_> = odd.iter().map(|name| driver(name, &[])).collect();
    let packages: Vec<_> = odd.iter().map(|name| package(name)).collect();
    let day = lists(&drivers, &packages);
    let shop = prepared(&day).await;
    let wanted = wanted(&odd, 1);
    let answer = shop.staff.ask(assign(&wanted)).await;
    let plan = expect_plan(&day, &wanted, &answer);
    for (name, packages) in &plan {
        let [id] = &packages[..] else {
            panic!("{name} has {packages:?}")
        };
        let item = shop
            .staff
            .ask(update(name, id, "delivered"))
            .await
            .expect(200);
        for query in [
            format!("driver_id={}", encoded(name)),
            format!("package_id={}", encoded(id)),
        ] {
            let found = listed(&shop, &query).await;
            assert_eq!(found, std::slice::from_ref(&item), "{query}");
        }
    }
    let paged = listed(&shop, "limit=1&status=delivered").await;
    assert_eq!(paged.len(), odd.len());
    assert_eq!(holders(&paged).len(), odd.len());
    shop.close().await;
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
    shop.staff
        .ask(id(assign(&wanted), "again"))
        .await
        .expect(200);
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
        .ask(refused)
        .await
        .expect_problem(404, "assignment-unknown");
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
    let response = shop
        .staff
        .ask(id(assign(&reset), "reset"))
        .await
        .expect(200);
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
    shop.staff
        .ask(assign(&wanted(&["d-00"], 3)))
        .await
        .expect(200);
    shop.staff
        .ask(update("d-00", "p-000", "accepted"))
        .await
        .expect(200);
    shop.close().await;
    assert!(!data.path().join("oplog").exists());
}
