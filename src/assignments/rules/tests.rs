use serde_json::json;

use super::*;
use crate::values::json::Mistake;

/// A package that satisfies all rules that do not require something special.
fn usual() -> Value {
    json!({
        "package_id": "p", "weight_kg": 5, "is_perishable": false, "region": "north", "distance_km": 10,
        "is_express": false, "is_fragile": false, "hazmat_class": null, "temperature_c": 5,
        "delivery_hour": 12, "volume_m3": 0.1,
    })
}

fn rule(code: &str, params: &Value) -> Result<Rule, Vec<Mistake>> {
    json::get(&json!({"code": code, "params": params}))
}

/// Rules at their bounds: code, parameters, the attribute, values that pass, values that do not.
const TABLE: &str = r#"
MAX_WEIGHT | {"limit_kg": 10} | weight_kg | [0, 9.99, 10] | [10.01, 1e300]
MAX_WEIGHT | {"limit_kg": 0} | weight_kg | [0] | [0.01]
NO_PERISHABLE | {} | is_perishable | [false] | [true]
REGION_ONLY | {"allowed_regions": ["south", "north"]} | region | ["north", "south"] | ["east", "west"]
MAX_DISTANCE | {"max_km": 50} | distance_km | [0, 49.9, 50] | [50.01]
EXPRESS_ONLY | {} | is_express | [true] | [false]
FRAGILE_ONLY | {} | is_fragile | [true] | [false]
HAZMAT_ALLOWED | {"allowed_classes": [3, 1]} | hazmat_class | [null, 1, 3] | [2, 4, 9]
TEMP_CONTROL | {"min_c": 2, "max_c": 8} | temperature_c | [2, 5.5, 8] | [1.99, 8.01, -20]
TEMP_CONTROL | {"min_c": -5, "max_c": -5} | temperature_c | [-5] | [-5.01, -4.99]
TIME_WINDOW | {"start_hour": 8, "end_hour": 17} | delivery_hour | [8, 12, 17] | [0, 7, 18, 23]
TIME_WINDOW | {"start_hour": 0, "end_hour": 23} | delivery_hour | [0, 23] | []
OVERSIZED | {"min_volume_m3": 0.5} | volume_m3 | [0.5, 3] | [0.49, 0]
"#;

#[test]
fn each_rule_judges_at_its_bounds() {
    for row in TABLE.lines().filter(|row| !row.is_empty()) {
        let [code, params, attribute, pass, fail] = row.split(" | ").collect::<Vec<_>>()[..] else {
            panic!("five columns: {row}")
        };
        let rule = rule(code, &serde_json::from_str(params).unwrap()).unwrap();
        for (values, passes) in [(pass, true), (fail, false)] {
            for value in serde_json::from_str::<Vec<Value>>(values).unwrap() {
                let mut package = usual();
                package[attribute] = value.clone();
                let package: Package = serde_json::from_value(package).unwrap();
                let judged = rule.judge(&package);
                assert_eq!(judged.is_ok(), passes, "{row}: {value}: {judged:?}");
            }
        }
    }
    for code in Rule::CODES {
        let there = TABLE.lines().any(|row| row.starts_with(code));
        assert!(there, "{code} is in the table");
    }
}

#[test]
fn an_attribute_without_a_rule_does_not_matter() {
    let package: Package = serde_json::from_value(usual()).unwrap();
    let heavy = Package {
        weight_kg: 1e9,
        ..package.clone()
    };
    let far = rule("MAX_DISTANCE", &json!({"max_km": 10})).unwrap();
    assert_eq!(far.judge(&heavy), Ok(()));
    assert_eq!(far.judge(&package), Ok(()));
}

#[test]
fn a_reason_tells_what_and_by_how_much() {
    let package: Package = serde_json::from_value(usual()).unwrap();
    for (code, params, said) in [
        (
            "MAX_WEIGHT",
            json!({"limit_kg": 4.5}),
            "its weight of 5 kg is above 4.5 kg",
        ),
        (
            "OVERSIZED",
            json!({"min_volume_m3": 0.5}),
            "its volume of 0.1 m³ is below 0.5 m³",
        ),
        (
            "REGION_ONLY",
            json!({"allowed_regions": ["east"]}),
            "its region is north",
        ),
        (
            "TIME_WINDOW",
            json!({"start_hour": 13, "end_hour": 14}),
            "its delivery hour 12 is below 13",
        ),
        ("EXPRESS_ONLY", json!({}), "it is not express"),
    ] {
        let reason = rule(code, &params).unwrap().judge(&package).unwrap_err();
        assert_eq!(reason.to_string(), said);
    }
}

/// Code, parameters, and the one that is named.
const INVALID: &str = r#"
MAX_WEIGHT | {} | limit_kg
MAX_WEIGHT | {"limit_kg": "10"} | limit_kg
MAX_WEIGHT | {"limit_kg": -1} | limit_kg
MAX_WEIGHT | {"limit_kg": null} | limit_kg
REGION_ONLY | {"allowed_regions": []} | allowed_regions
REGION_ONLY | {"allowed_regions": "north"} | allowed_regions
REGION_ONLY | {"allowed_regions": ["north", "up"]} | allowed_regions/1
MAX_DISTANCE | {"max_kn": 3} | max_km
HAZMAT_ALLOWED | {"allowed_classes": [0]} | allowed_classes/0
HAZMAT_ALLOWED | {"allowed_classes": [1.5]} | allowed_classes/0
HAZMAT_ALLOWED | {"allowed_classes": [257]} | allowed_classes/0
TEMP_CONTROL | {"min_c": 2} | max_c
TEMP_CONTROL | {"min_c": 8, "max_c": 2} | max_c
TIME_WINDOW | {"start_hour": 8, "end_hour": 24} | end_hour
TIME_WINDOW | {"start_hour": 17, "end_hour": 8} | end_hour
TIME_WINDOW | {"start_hour": 8.5, "end_hour": 9} | start_hour
OVERSIZED | {"min_volume_m3": -0.5} | min_volume_m3
"#;

#[test]
fn parameters_that_are_none_are_named() {
    for row in INVALID.lines().filter(|row| !row.is_empty()) {
        let [code, params, param] = row.split(" | ").collect::<Vec<_>>()[..] else {
            panic!("three columns: {row}")
        };
        let wrong = rule(code, &serde_json::from_str(params).unwrap()).expect_err(row);
        assert_eq!(wrong[0].pointer, format!("/params/{param}"), "{row}");
    }
    let unknown = rule("MAX_HEIGHT", &json!({})).expect_err("there is no such code");
    assert_eq!(unknown[0].pointer, "/code");
}

#[test]
fn a_wrong_value_is_named() {
    for (code, params, begins) in [
        (
            json!("REGION_ONLY"),
            json!({"allowed_regions": ["up"]}),
            "\"up\" is no region. The regions are ",
        ),
        (
            json!("HAZMAT_ALLOWED"),
            json!({"allowed_classes": [1, 0]}),
            "0 is no class. The classes are ",
        ),
        (
            json!("MAX_HEIGHT"),
            json!({}),
            "There is no rule \"MAX_HEIGHT\". The codes are ",
        ),
        (json!(7), json!({}), "It must be a text."),
    ] {
        let wrong = json::get::<Rule>(&json!({"code": code, "params": params})).unwrap_err();
        assert!(wrong[0].detail.starts_with(begins), "{}", wrong[0].detail);
    }
}

#[test]
fn a_rule_is_read_as_it_is_written() {
    for (code, params) in [
        ("MAX_WEIGHT", json!({"limit_kg": 10.0})),
        ("NO_PERISHABLE", json!({})),
        ("REGION_ONLY", json!({"allowed_regions": ["north", "west"]})),
        ("MAX_DISTANCE", json!({"max_km": 50.5})),
        ("EXPRESS_ONLY", json!({})),
        ("FRAGILE_ONLY", json!({})),
        ("HAZMAT_ALLOWED", json!({"allowed_classes": [1, 4]})),
        ("TEMP_CONTROL", json!({"min_c": -2.0, "max_c": 8.0})),
        ("TIME_WINDOW", json!({"start_hour": 8, "end_hour": 17})),
        ("OVERSIZED", json!({"min_volume_m3": 0.5})),
    ] {
        let written = json!({"code": code, "params": params});
        let rule: Rule = serde_json::from_value(written.clone()).unwrap();
        assert_eq!(serde_json::to_value(&rule).unwrap(), written);
    }
    let [one, other] = [json!(["east", "north", "east"]), json!(["north", "east"])]
        .map(|regions| rule("REGION_ONLY", &json!({"allowed_regions": regions})).unwrap());
    assert_eq!(one.params(), other.params());
}
