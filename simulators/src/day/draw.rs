//! Draws a day's lists from a seeded generator: the same seed draws the same ones.

use std::{ops::RangeInclusive, str::FromStr};

use fastrand::Rng;
use serde_json::{Value, json};

use super::Lists;
use crate::{
    assignments::{Driver, Manifest, Package, Rule},
    ids::uuid,
};

/// Codes of rules. Each driver has a code once at most.
const CODES: [&str; 10] = [
    "MAX_WEIGHT",
    "NO_PERISHABLE",
    "REGION_ONLY",
    "MAX_DISTANCE",
    "EXPRESS_ONLY",
    "FRAGILE_ONLY",
    "HAZMAT_ALLOWED",
    "TEMP_CONTROL",
    "TIME_WINDOW",
    "OVERSIZED",
];
const REGIONS: [&str; 4] = ["north", "east", "south", "west"];
const CLASSES: RangeInclusive<u8> = 1..=4;
/// Hundredths of what the attribute is measured in.
const WEIGHTS: RangeInclusive<i32> = 50..=2000;
const DISTANCES: RangeInclusive<i32> = 100..=10_000;
const TEMPERATURES: RangeInclusive<i32> = -500..=2500;
const VOLUMES: RangeInclusive<i32> = 10..=300;

/// How many rules a driver has, from the fewest to the most; each number is as likely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RuleCount {
    fewest: usize,
    most: usize,
}

impl FromStr for RuleCount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (fewest, most) = match text {
            "few" => (0, 2),
            "many" => (2, 4),
            range => {
                let bounds = range.split_once("..");
                let bound = |text: &str| text.trim().parse().ok();
                let bounds = bounds.and_then(|(a, b)| Some((bound(a)?, bound(b)?)));
                bounds.ok_or("expected few, many, or a range such as 1..3")?
            }
        };
        if fewest > most || most > CODES.len() {
            let codes = CODES.len();
            return Err(format!(
                "expected A..B with A not above B and B not above {codes}"
            ));
        }
        Ok(Self { fewest, most })
    }
}

/// Draws the lists. More drivers leave the packages alone, and more of either those that were there.
pub(super) fn manifest(lists: &Lists) -> Manifest {
    let mut chance = Rng::with_seed(lists.seed);
    let (mut of_drivers, mut of_packages) = (chance.fork(), chance.fork());
    let drivers = 1..=lists.drivers;
    let packages = 0..lists.packages;
    Manifest {
        drivers: drivers
            .map(|number| driver(number, lists.rules, &mut of_drivers))
            .collect(),
        packages: packages.map(|_| package(&mut of_packages)).collect(),
    }
}

fn driver(number: u32, rules: RuleCount, chance: &mut Rng) -> Driver {
    let times = chance.usize(rules.fewest..=rules.most);
    let rules = chance.choose_multiple(CODES, times).into_iter();
    Driver {
        id: format!("driver_{number}"),
        rules: rules.map(|code| rule(code, chance)).collect(),
    }
}

fn rule(code: &str, chance: &mut Rng) -> Rule {
    let params = match code {
        "MAX_WEIGHT" => json!({ "limit_kg": 10 }),
        "REGION_ONLY" => json!({ "allowed_regions": chance.choose_multiple(REGIONS, 2) }),
        "MAX_DISTANCE" => json!({ "max_km": 50 }),
        "HAZMAT_ALLOWED" => {
            let classes = chance.usize(1..=2);
            json!({ "allowed_classes": chance.choose_multiple(CLASSES, classes) })
        }
        "TEMP_CONTROL" => json!({ "min_c": 2, "max_c": 8 }),
        "TIME_WINDOW" => json!({ "start_hour": 8, "end_hour": 17 }),
        "OVERSIZED" => json!({ "min_volume_m3": 0.5 }),
        _ => json!({}),
    };
    let Value::Object(params) = params else {
        unreachable!("the parameters of every code are an object")
    };
    Rule {
        id: Some(uuid(chance.u128(..))),
        code: code.to_owned(),
        params,
    }
}

fn package(chance: &mut Rng) -> Package {
    let hundredths = |range, chance: &mut Rng| f64::from(chance.i32(range)) / 100.0;
    Package {
        id: uuid(chance.u128(..)),
        weight_kg: hundredths(WEIGHTS, chance),
        is_perishable: chance.bool(),
        region: REGIONS[chance.usize(..REGIONS.len())].to_owned(),
        distance_km: hundredths(DISTANCES, chance),
        is_express: chance.bool(),
        is_fragile: chance.bool(),
        hazmat_class: match chance.u8(0..=*CLASSES.end()) {
            0 => None,
            class => Some(class),
        },
        temperature_c: hundredths(TEMPERATURES, chance),
        delivery_hour: chance.u8(..24),
        volume_m3: hundredths(VOLUMES, chance),
        destination: None,
    }
}
