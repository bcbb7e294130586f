use serde_json::{Value, json};

use super::*;

fn package(id: &str) -> Value {
    json!({
        "package_id": id, "weight_kg": 1.0, "is_perishable": true, "region": "west", "distance_km": 1.0,
        "is_express": false, "is_fragile": false, "hazmat_class": 1, "temperature_c": 0.0, "delivery_hour": 0,
        "volume_m3": 0.0,
    })
}

fn driver(id: &str, code: &str, params: &Value) -> Value {
    json!({ "driver_id": id, "rules": [{ "code": code, "params": params }] })
}

fn model(drivers: &[Value], packages: &[Value]) -> Result<Model, String> {
    let manifest = json!({ "drivers": drivers, "packages": packages });
    Model::new(serde_json::from_value(manifest).unwrap())
}

/// Code, parameters, attribute, a value that is admitted and one that is not.
const CASES: &str = r#"
    MAX_WEIGHT {"limit_kg":10} weight_kg 10.0 10.01
    NO_PERISHABLE {} is_perishable false true
    REGION_ONLY {"allowed_regions":["south","north"]} region "south" "east"
    MAX_DISTANCE {"max_km":50} distance_km 50 50.01
    EXPRESS_ONLY {} is_express true false
    FRAGILE_ONLY {} is_fragile true false
    HAZMAT_ALLOWED {"allowed_classes":[2,4]} hazmat_class 4 3
    HAZMAT_ALLOWED {"allowed_classes":[2,4]} hazmat_class null 1
    TEMP_CONTROL {"min_c":2,"max_c":8} temperature_c 2 1.99
    TEMP_CONTROL {"min_c":2,"max_c":8} temperature_c 8 8.01
    TIME_WINDOW {"start_hour":8,"end_hour":17} delivery_hour 8 7
    TIME_WINDOW {"start_hour":8,"end_hour":17} delivery_hour 17 18
    OVERSIZED {"min_volume_m3":0.5} volume_m3 0.5 0.49
"#;

#[test]
fn each_rule_judges_its_attribute_and_has_inclusive_bounds() {
    for case in CASES.trim().lines() {
        let [code, params, attribute, yes, no] = case.split_whitespace().collect::<Vec<_>>()[..]
        else {
            panic!("five columns: {case}")
        };
        let params = serde_json::from_str(params).unwrap();
        for (value, broken) in [(yes, None), (no, Some(code))] {
            let mut package = package("p");
            package[attribute] = serde_json::from_str(value).unwrap();
            let model = model(&[driver("d", code, &params)], &[package]).unwrap();
            assert_eq!(model.broken(0, 0), broken, "{case}: {value}");
        }
    }
}

#[test]
fn unknown_rules_and_repeated_ids_are_rejected() {
    for (code, params) in [("MAX_HEIGHT", json!({})), ("MAX_WEIGHT", json!({}))] {
        assert!(model(&[driver("d", code, &params)], &[]).is_err(), "{code}");
    }
    assert!(model(&[], &[package("p"), package("p")]).is_err());
}

/// `light` carries p1 and p3 only, `any` everything: p1, p2 (heavy), p3.
fn two_by_three() -> Model {
    let light = driver("light", "MAX_WEIGHT", &json!({ "limit_kg": 10 }));
    let any = json!({ "driver_id": "any", "rules": [] });
    let mut packages = ["p1", "p2", "p3"].map(package);
    packages[1]["weight_kg"] = json!(11);
    model(&[any, light], &packages).unwrap()
}

#[test]
fn the_most_that_can_be_carried_takes_moves_between_drivers() {
    let model = two_by_three();
    for (cap, held, most) in [
        (0, [None; 3], 0),
        // The first package is placed with `any`, and moved to make room for the heavy one.
        (1, [None; 3], 2),
        (2, [None; 3], 3),
        (1, [Some(0), None, None], 2),
        (1, [None, None, Some(0)], 2),
    ] {
        assert_eq!(model.most(&[0, 1], cap, &held.to_vec()), most, "{cap}");
    }
    assert_eq!(model.most(&[0, 1], 1, &vec![Some(0), None, Some(1)]), 2);
    assert_eq!(model.most(&[1], 5, &vec![None; 3]), 2);
}

/// The aspects that a plan with at most one package each breaks, if nothing was settled before.
fn broken(any: &[&str], light: &[&str], left: &[&str], before: Owners) -> Vec<&'static str> {
    let both = [("any", any), ("light", light)];
    let idle = both.iter().filter(|(_, packages)| packages.is_empty());
    let idle: Vec<_> = idle.map(|(driver, _)| driver).collect();
    let plan = json!({
        "assignments": { "any": any, "light": light },
        "unassigned_packages": left,
        "unassigned_drivers": idle,
    });
    let call = Call {
        drivers: &[0, 1],
        max_per_driver: 1,
        after: before.clone(),
        before,
        settled: Some(vec![None; 3]),
    };
    let judged = two_by_three().judge(&call, &serde_json::from_value(plan).unwrap());
    let broken = ASPECTS.into_iter().zip(judged.aspects);
    let broken = broken.filter(|(_, judgement)| judgement.is_err());
    broken.map(|(name, _)| name).collect()
}

#[test]
fn each_fault_of_a_plan_is_found_under_its_aspect() {
    let none = || vec![None; 3];
    let [_, cap, once, rules, rest, grows, largest] = ASPECTS;
    assert_eq!(broken(&["p2"], &["p1"], &["p3"], none()), [""; 0]);
    assert_eq!(broken(&["p2", "p3"], &["p1"], &[], none()), [cap]);
    assert_eq!(broken(&["p1"], &["p1"], &["p2", "p3"], none()), [once]);
    assert_eq!(broken(&["p1"], &["p2"], &["p3"], none()), [rules]);
    assert_eq!(broken(&["p2"], &["p1"], &["p3", "p1"], none()), [rest]);
    let before = vec![Some(0), None, None];
    assert_eq!(broken(&["p2"], &["p3"], &["p1"], before), [rest, grows]);
    // One move makes room for the heavy one.
    assert_eq!(broken(&["p1"], &[], &["p2", "p3"], none()), [largest]);
}
