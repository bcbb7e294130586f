//! Draws a day's lists from a seeded generator: the same seed draws the same ones.

use std::{ops::RangeInclusive, str::FromStr};

use fastrand::Rng;
use serde_json::{Value, json};

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
pub(crate) struct RuleCount {
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

/// What is to be drawn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) drivers: u32,
    pub(crate) packages: u32,
    pub(crate) rules: RuleCount,
}

/// Draws the lists. More drivers leave the packages alone, and more of either those that were there.
pub(crate) fn manifest(size: Size, seed: u64) -> Manifest {
    let mut chance = Rng::with_seed(seed);
    let (mut of_drivers, mut of_packages) = (chance.fork(), chance.fork());
    let drivers = 1..=size.drivers;
    let packages = 0..size.packages;
    Manifest {
        drivers: drivers
            .map(|number| driver(number, size.rules, &mut of_drivers))
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::day::rules::Condition;

    fn drawn(drivers: u32, packages: u32, rules: &str, seed: u64) -> Manifest {
        let rules = rules.parse().unwrap();
        let size = Size {
            drivers,
            packages,
            rules,
        };
        manifest(size, seed)
    }

    #[test]
    fn the_same_seed_draws_the_same_lists_and_another_seed_others() {
        assert_eq!(drawn(9, 90, "many", 7), drawn(9, 90, "many", 7));
        assert_ne!(drawn(9, 90, "many", 7), drawn(9, 90, "many", 8));
        let (small, large) = (drawn(9, 90, "many", 7), drawn(20, 200, "many", 7));
        assert_eq!(small.drivers[..], large.drivers[..9]);
        assert_eq!(small.packages[..], large.packages[..90]);
    }

    type Attribute = fn(&Package) -> f64;

    #[test]
    fn every_attribute_fills_its_range_and_stays_within_it() {
        let packages = drawn(0, 5000, "few", 1).packages;
        let attributes: [(Attribute, f64, f64); 5] = [
            (|package| package.weight_kg, 0.5, 20.0),
            (|package| package.distance_km, 1.0, 100.0),
            (|package| package.temperature_c, -5.0, 25.0),
            (|package| package.volume_m3, 0.1, 3.0),
            (|package| f64::from(package.delivery_hour), 0.0, 23.0),
        ];
        for (attribute, least, most) in attributes {
            let values = packages.iter().map(attribute);
            let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), value| {
                (low.min(value), high.max(value))
            });
            let slack = (most - least) / 100.0;
            assert!((least..=least + slack).contains(&low), "{low} {least}");
            assert!((most - slack..=most).contains(&high), "{high} {most}");
        }
        let classes: BTreeSet<_> = packages
            .iter()
            .map(|package| package.hazmat_class)
            .collect();
        assert_eq!(
            classes,
            BTreeSet::from([None, Some(1), Some(2), Some(3), Some(4)])
        );
        let regions: BTreeSet<_> = packages.iter().map(|package| &package.region[..]).collect();
        assert_eq!(regions, BTreeSet::from(REGIONS));
        let ids: BTreeSet<_> = packages.iter().map(|package| &package.id).collect();
        assert_eq!(ids.len(), packages.len());
        assert!(
            ids.iter().all(|id| id.len() == 36 && &id[14..15] == "4"),
            "{ids:?}"
        );
        let flags: [fn(&Package) -> bool; 3] = [
            |package| package.is_perishable,
            |package| package.is_express,
            |package| package.is_fragile,
        ];
        for flag in flags {
            let yes = packages.iter().filter(|package| flag(package)).count();
            assert!((2300..2700).contains(&yes), "{yes}");
        }
    }

    #[test]
    fn every_driver_has_as_many_rules_as_were_asked_for_of_codes_that_are_known() {
        for (rules, fewest, most) in [
            ("few", 0, 2),
            ("many", 2, 4),
            ("3..3", 3, 3),
            ("0..10", 0, 10),
        ] {
            let drivers = drawn(500, 0, rules, 1).drivers;
            let counts: BTreeSet<_> = drivers.iter().map(|driver| driver.rules.len()).collect();
            assert!(counts.into_iter().eq(fewest..=most), "{rules}");
            for driver in &drivers {
                let codes: BTreeSet<_> = driver.rules.iter().map(|rule| &rule.code).collect();
                assert_eq!(codes.len(), driver.rules.len());
                for rule in &driver.rules {
                    match Condition::of(rule).unwrap() {
                        Condition::RegionOnly { allowed_regions } => {
                            assert_eq!(allowed_regions.len(), 2);
                        }
                        Condition::HazmatAllowed { allowed_classes } => {
                            assert!((1..=2).contains(&allowed_classes.len()));
                            assert!(allowed_classes.iter().all(|class| CLASSES.contains(class)));
                        }
                        _ => {}
                    }
                }
            }
            assert_eq!(drivers[499].id, "driver_500");
        }
    }

    #[test]
    fn a_number_of_rules_has_bounds() {
        for text in ["", "some", "1", "3..2", "0..11", "-1..2", "1..=2", "a..b"] {
            assert!(text.parse::<RuleCount>().is_err(), "{text}");
        }
    }
}
