//! `POST /assign`: what a plan is, and what is refused.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    DAY, GIVEN, any_drivers, any_packages, assign, driver, expect_plan, holders, listed, lists,
    most, names, package, pointers, prepared, put_manifest, real_day, update, wanted,
};
use crate::client::post;
use crate::packages::with;
use crate::shop::{Shop, text};

/// The package of the seed's example.
const EXAMPLE: &str = "413a59e3-2583-4263-8e1c-8c5a632d03ae";

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
    let less = shop.staff.expect(assign(&wanted(&[name], 1)), 200).await;
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

#[tokio::test]
async fn a_reset_gives_up_what_is_still_assigned_to_those_who_are_asked_and_a_dry_run_nothing() {
    let shop = prepared(&lists(&any_drivers(3), &any_packages(9))).await;
    let all = ["d-00", "d-01", "d-02"];
    let ask = async |wanted: &Value| {
        let answer = shop.staff.ask(assign(wanted)).await;
        answer.expect(200)["assignments"].clone()
    };
    let dry = with(&wanted(&all, 3), "dry_run", true);
    let plan = ask(&dry).await;
    assert_eq!(listed(&shop, "").await, Vec::<Value>::new());
    assert_eq!(shop.metrics().await.count(GIVEN), 0);
    assert_eq!(ask(&wanted(&all, 3)).await, plan);
    let begun = text(&plan["d-00"][0]);
    let accepted = update("d-00", &begun, "accepted");
    shop.staff.ask(accepted).await.expect(200);
    let reset = with(&wanted(&all[..2], 0), "reset", true);
    let expected = json!({"d-00": [begun], "d-01": []});
    let before = listed(&shop, "").await;
    assert_eq!(ask(&with(&reset, "dry_run", true)).await, expected);
    assert_eq!(listed(&shop, "").await, before);
    assert_eq!(ask(&reset).await, expected);
    assert_eq!(holders(&listed(&shop, "").await).len(), 4);
    // What was given up can be given again.
    let again = ask(&wanted(&all, 3)).await;
    let held = holders(&listed(&shop, "").await);
    assert_eq!(held.len(), 9, "{again}");
    assert_eq!(held[&begun], "d-00");
    shop.close().await;
}

#[tokio::test]
async fn every_package_left_behind_knows_why_and_what_would_help_most_is_told() {
    let heavy = with(&package("heavy"), "weight_kg", 6);
    let day = lists(
        &[
            driver("a", &[("MAX_WEIGHT", json!({"limit_kg": 5}))]),
            driver("c", &[("EXPRESS_ONLY", json!({}))]),
        ],
        &[heavy, package("light 1"), package("light 2")],
    );
    let shop = prepared(&day).await;
    let wanted = with(&wanted(&["a", "c"], 1), "dry_run", true);
    let explain = |value: &str| {
        let path = format!("/assign?explain={value}");
        shop.staff.ask(post(path).json(&wanted))
    };
    let response = explain("true").await.expect(200);
    let left = response["unassigned_packages"].as_array().unwrap();
    let packages = response["explanation"]["packages"].as_array().unwrap();
    let explained: Vec<_> = packages.iter().map(|one| &one["package_id"]).collect();
    assert_eq!(explained, left.iter().collect::<Vec<_>>());
    assert_eq!(
        packages[0],
        json!({
            "package_id": "heavy", "reason": "rules", "able_drivers": 0,
            "refused_by": {"EXPRESS_ONLY": 1, "MAX_WEIGHT": 1},
        })
    );
    assert_eq!(packages[1]["reason"], "capacity");
    assert_eq!(packages[1]["able_drivers"], 1);
    // Without its rule c would carry one more.
    assert_eq!(response["explanation"]["relaxation"]["gain"], 1);
    let without = explain("false").await.expect(200);
    assert_eq!(without.get("explanation"), None);
    shop.close().await;
}

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
    let today = shop.staff.ask(assign(&wanted(&["d-00"], 1))).await;
    let problem = today.expect_problem(409, "manifest-missing");
    assert!(problem["date"].is_string(), "{problem}");
    let day = lists(&any_drivers(1), &any_packages(4));
    for date in [DAY, "2142-05-02"] {
        let day = with(&day, "date", date);
        shop.staff.expect(put_manifest(&day), 200).await;
    }
    // The cap is for the day, however often a plan is asked for.
    for (date, cap, has) in [
        (DAY, 3, 3),
        ("2142-05-02", 2, 2),
        (DAY, 2, 3),
        ("2142-05-02", 4, 4),
    ] {
        let wanted = with(&wanted(&["d-00"], cap), "date", date);
        let plan = shop.staff.expect(assign(&wanted), 200).await;
        let left = plan["unassigned_packages"].as_array().unwrap().len();
        assert_eq!(left, 4 - has, "{date}");
        let listed = listed(&shop, &format!("date={date}")).await;
        assert_eq!(listed.len(), has, "{date}");
    }
    shop.close().await;
}

#[tokio::test]
async fn a_request_for_a_plan_that_makes_no_sense_is_told_where() {
    let shop = prepared(&lists(&any_drivers(2), &any_packages(4))).await;
    let valid = wanted(&["d-00", "d-01"], 2);
    let drivers = |ids: Value| with(&valid, "driver_ids", ids);
    let long = "x".repeat(129);
    for (body, expected) in [
        (
            with(&valid, "max_per_driver", 10_001),
            &["/max_per_driver"][..],
        ),
        (with(&valid, "max_per_driver", 1.5), &["/max_per_driver"]),
        (
            with(&valid, "max_per_driver", Value::Null),
            &["/max_per_driver"],
        ),
        (drivers(json!([])), &["/driver_ids"]),
        (drivers(json!(["d-00", 7])), &["/driver_ids/1"]),
        (
            drivers(json!([long, "d-00", "a\n"])),
            &["/driver_ids/0", "/driver_ids/2"],
        ),
        (
            drivers(json!(["zoe", "d-00", "yan"])),
            &["/driver_ids/0", "/driver_ids/2"],
        ),
        (with(&valid, "date", "2142-02-30"), &["/date"]),
        (with(&valid, "dry_run", "yes"), &["/dry_run"]),
        (with(&valid, "reset", 1), &["/reset"]),
        (json!({}), &["/driver_ids", "/max_per_driver"]),
    ] {
        let answer = shop.staff.ask(assign(&body)).await;
        let mut reported = pointers(&answer);
        reported.sort();
        assert_eq!(reported, expected, "{body}: {answer}");
    }
    let answer = shop.staff.ask(assign(&drivers(json!(["zoë"])))).await;
    assert!(text(&answer.json()["detail"]).contains("zoë"), "{answer}");
    assert_eq!(listed(&shop, "").await, Vec::<Value>::new());
    // Unknown fields are ignored.
    let more = with(&valid, "explain", "no");
    shop.staff.ask(assign(&more)).await.expect(200);
    shop.close().await;
}
