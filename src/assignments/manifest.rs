//! A day's lists: its drivers with their rules, and its packages. Pure.

use serde::{Deserialize, Serialize};

use super::model::{DriverId, Package};
use super::rules::Rule;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Driver {
    #[serde(rename = "driver_id")]
    pub id: DriverId,
    /// All must permit a package.
    pub rules: Vec<NamedRule>,
}

/// A rule of a manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NamedRule {
    #[serde(rename = "rule_id", default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Box<str>>,
    #[serde(flatten)]
    pub rule: Rule,
}

/// A day's lists. Drivers and packages are unique.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Manifest {
    pub drivers: Vec<Driver>,
    pub packages: Vec<Package>,
}
