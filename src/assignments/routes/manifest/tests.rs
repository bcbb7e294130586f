use serde_json::json;

use super::*;

fn package() -> Value {
    json!({
        "package_id": "p", "weight_kg": 5, "is_perishable": false, "region": "north", "distance_km": 10,
        "is_express": false, "is_fragile": false, "hazmat_class": null, "temperature_c": 5,
        "delivery_hour": 12, "volume_m3": 0.1,
    })
}

fn manifest() -> Value {
    let rules = json!([{ "rule_id": "r", "code": "MAX_WEIGHT", "params": { "limit_kg": 10 } }, { "code": "EXPRESS_ONLY" }]);
    json!({
        "date": "2142-05-01",
        "drivers": [{ "driver_id": "d", "rules": rules }, { "driver_id": "e", "rules": [] }],
        "packages": [package()],
    })
}

/// Pointers to the mistakes, or the status of another problem.
fn told(json: &str) -> Result<Vec<String>, u64> {
    let Err(problem) = read(&mut json.as_bytes()) else {
        return Ok(Vec::new());
    };
    let problem = serde_json::to_value(problem).unwrap();
    if problem["status"] != 422 {
        return Err(problem["status"].as_u64().unwrap());
    }
    let errors = problem["errors"].as_array().unwrap();
    Ok(errors
        .iter()
        .map(|error| error["pointer"].as_str().unwrap().to_owned())
        .collect())
}

#[test]
fn an_acceptable_manifest_is_read() {
    let (date, read) = read(&mut manifest().to_string().as_bytes()).unwrap();
    assert_eq!(date, Some(jiff::civil::date(2142, 5, 1)));
    let written = serde_json::to_value(&read).unwrap();
    assert_eq!(
        written["drivers"][0]["rules"][0]["params"],
        json!({ "limit_kg": 10.0 })
    );
    assert_eq!(
        written["drivers"][0]["rules"][1],
        json!({ "code": "EXPRESS_ONLY", "params": {} })
    );
    assert_eq!(written["packages"][0]["hazmat_class"], Value::Null);
    assert_eq!(written["packages"][0].get("destination"), None);
    // Unknown fields are ignored; optional ones may be missing.
    let mut more = manifest();
    more["depot"] = json!({ "deep": [[[1]]] });
    more["packages"][0]["colour"] = json!("red");
    more["packages"][0]
        .as_object_mut()
        .unwrap()
        .remove("hazmat_class");
    more["packages"][0]["destination"] = json!("7 Under the Bridge");
    more.as_object_mut().unwrap().remove("date");
    assert_eq!(told(&more.to_string()), Ok(vec![]));
}

#[test]
fn each_mistake_has_its_place() {
    let wrong = json!("wrong");
    for (pointer, value) in [
        ("/date", json!("tomorrow")),
        ("/date", json!(20_261_121)),
        ("/drivers/0", json!(7)),
        ("/drivers/0/driver_id", json!("")),
        ("/drivers/0/driver_id", json!(1.5)),
        ("/drivers/0/driver_id", json!(true)),
        ("/drivers/1/driver_id", json!("d")),
        ("/drivers/0/rules", json!({})),
        ("/drivers/0/rules/0", json!("MAX_WEIGHT")),
        ("/drivers/0/rules/0/code", json!("MAX_HEIGHT")),
        ("/drivers/0/rules/0/code", json!(null)),
        ("/drivers/0/rules/0/params", json!([])),
        ("/drivers/0/rules/0/params/limit_kg", json!(-1)),
        ("/drivers/0/rules/0/rule_id", json!(5)),
        ("/packages/0", json!([])),
        ("/packages/0/package_id", json!("tab\t")),
        ("/packages/0/package_id", json!("x".repeat(129))),
        ("/packages/0/weight_kg", json!(-0.1)),
        ("/packages/0/weight_kg", wrong.clone()),
        ("/packages/0/is_perishable", json!(0)),
        ("/packages/0/region", json!("up")),
        ("/packages/0/distance_km", json!(null)),
        ("/packages/0/is_express", wrong.clone()),
        ("/packages/0/is_fragile", wrong.clone()),
        ("/packages/0/hazmat_class", json!(0)),
        ("/packages/0/hazmat_class", json!(1.5)),
        ("/packages/0/hazmat_class", json!(10)),
        ("/packages/0/temperature_c", json!(-300)),
        ("/packages/0/delivery_hour", json!(24)),
        ("/packages/0/volume_m3", json!([])),
        ("/packages/0/destination", json!("x".repeat(1001))),
    ] {
        let mut manifest = manifest();
        *manifest.pointer_mut(pointer).unwrap_or(&mut Value::Null) = value.clone();
        if pointer.ends_with("destination") {
            manifest["packages"][0]["destination"] = value.clone();
        }
        assert_eq!(
            told(&manifest.to_string()),
            Ok(vec![pointer.to_owned()]),
            "{pointer}: {value}"
        );
    }
}

#[test]
fn what_is_missing_is_told_and_so_is_everything_else() {
    let mut manifest = manifest();
    let package = manifest["packages"][0].as_object_mut().unwrap();
    package.remove("weight_kg");
    package.remove("region");
    manifest["drivers"][1] = json!({ "rules": [{}] });
    let expected = [
        "/drivers/1/driver_id",
        "/drivers/1/rules/0/code",
        "/packages/0/weight_kg",
        "/packages/0/region",
    ];
    assert_eq!(
        told(&manifest.to_string()),
        Ok(expected.map(str::to_owned).to_vec())
    );
    assert_eq!(
        told("{}"),
        Ok(vec!["/drivers".to_owned(), "/packages".to_owned()])
    );
}

#[test]
fn what_is_there_twice_is_told() {
    let mut twice = manifest();
    twice["packages"] = json!([package(), package()]);
    assert_eq!(
        told(&twice.to_string()),
        Ok(vec!["/packages/1/package_id".to_owned()])
    );
    let lists = r#"{"drivers": [], "packages": [], "drivers": []}"#;
    assert_eq!(told(lists), Ok(vec!["/drivers".to_owned()]));
}

#[test]
fn names_that_are_there_twice_are_told_as_they_are() {
    let mut twice = manifest();
    twice["drivers"][1]["driver_id"] = json!("d");
    let problem = read(&mut twice.to_string().as_bytes()).unwrap_err();
    assert_eq!(
        problem.to_string(),
        "/drivers/1/driver_id: There are two drivers \"d\"."
    );
}

#[test]
fn what_is_too_large_or_too_deep_is_told_with_its_place() {
    let mut large = manifest();
    large["packages"][0]["colour"] = json!("x".repeat(ELEMENT_BYTES_MAX));
    assert_eq!(told(&large.to_string()), Ok(vec!["/packages/0".to_owned()]));
    let deep = format!(
        r#"{{"drivers": [{}{}], "packages": []}}"#,
        "[".repeat(100),
        "]".repeat(100)
    );
    assert_eq!(told(&deep), Ok(vec!["/drivers/0".to_owned()]));
    let date = format!(
        r#"{{"date": [{}], "drivers": [], "packages": []}}"#,
        "0,".repeat(100_000) + "0"
    );
    assert_eq!(told(&date), Ok(vec!["/date".to_owned()]));
}

#[test]
fn mistakes_are_told_up_to_a_number() {
    let packages = vec![json!({}); 1000];
    let manifest = json!({ "drivers": [], "packages": packages }).to_string();
    assert_eq!(told(&manifest).unwrap().len(), MISTAKES_MAX);
    // What follows them is not read, not even checked for valid JSON.
    let broken = manifest.replace("]}", "oops");
    assert_eq!(told(&broken).unwrap().len(), MISTAKES_MAX);
}

#[test]
fn what_is_no_json_is_unreadable_and_what_is_no_object_unacceptable() {
    for text in [
        "",
        "{",
        "nonsense",
        r#"{"drivers": []"#,
        r#"{"drivers": [], "packages": []} x"#,
    ] {
        assert_eq!(told(text), Err(400), "{text:?}");
    }
    for (text, pointer) in [
        ("[]", ""),
        ("7", ""),
        (r#""drivers""#, ""),
        (r#"{"drivers": {}, "packages": []}"#, "/drivers"),
        (r#"{"drivers": [], "packages": "none"}"#, "/packages"),
    ] {
        assert_eq!(told(text), Ok(vec![pointer.to_owned()]), "{text:?}");
    }
}

#[test]
fn a_key_that_is_there_twice_is_refused_wherever_it_is_in_a_manifest() {
    let whole = manifest().to_string();
    for (once, twice, pointer) in [
        (r#""date":"#, r#""date":"2142-05-01","date":"#, "/date"),
        (r#""drivers":["#, r#""drivers":[],"drivers":["#, "/drivers"),
        (
            r#""packages":["#,
            r#""packages":[],"packages":["#,
            "/packages",
        ),
        (
            r#""weight_kg":5"#,
            r#""weight_kg":5,"weight_kg":6"#,
            "/packages/0/weight_kg",
        ),
        (
            r#""limit_kg":10"#,
            r#""limit_kg":10,"limit_kg":11"#,
            "/drivers/0/rules/0/params/limit_kg",
        ),
    ] {
        let doubled = whole.replacen(once, twice, 1);
        assert_ne!(doubled, whole, "{once}");
        let told = told(&doubled).unwrap();
        assert!(told.contains(&pointer.to_owned()), "{doubled}: {told:?}");
    }
}

#[test]
fn a_manifest_made_with_pandas_has_floats_for_integers_and_numbers_for_ids() {
    let mut pandas = manifest();
    pandas["drivers"][0]["driver_id"] = json!(7);
    pandas["packages"][0]["package_id"] = json!(12.0);
    pandas["packages"][0]["delivery_hour"] = json!(3.0);
    pandas["packages"][0]["hazmat_class"] = json!(9.0);
    let (_, read) = read(&mut pandas.to_string().as_bytes()).unwrap();
    assert_eq!(read.drivers[0].id.as_str(), "7");
    let package = &read.packages[0];
    assert_eq!(package.id.as_str(), "12");
    assert_eq!((package.delivery_hour, package.hazmat_class), (3, Some(9)));
}

#[test]
fn two_forms_of_the_same_name_are_one_name() {
    let mut manifest = manifest();
    manifest["drivers"][0]["driver_id"] = json!("Zo\u{eb}");
    manifest["drivers"][1]["driver_id"] = json!("Zoe\u{308}");
    assert_eq!(
        told(&manifest.to_string()),
        Ok(vec!["/drivers/1/driver_id".to_owned()])
    );
}
