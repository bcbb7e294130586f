//! The checks at the end of a report.

use serde_json::Value;

/// The checks of this part of a report that failed.
pub(crate) fn failed(part: &Value) -> Vec<&str> {
    let checks = part["checks"].as_array().unwrap();
    let failed = checks.iter().filter(|check| check["outcome"] == "failed");
    failed
        .map(|check| check["name"].as_str().unwrap())
        .collect()
}

/// The figures behind a check.
pub(crate) fn finding<'a>(part: &'a Value, name: &str) -> &'a str {
    let checks = part["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == name).unwrap();
    check["finding"].as_str().unwrap()
}
