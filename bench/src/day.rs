//! Days of the logistics centre: its own three, and a large one that is drawn as they were.

use serde_json::{Value, json};

use crate::senders::{mixed, uuid};

/// A day that is known, and what is known of it.
pub(crate) struct Known {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its lists, as JSON.
    pub(crate) manifest: &'static str,
    /// Packages that the best plan carries with [`CAP`].
    pub(crate) best: u32,
    /// Packages that are carried if each driver, in the order of the list, takes the first that fit.
    pub(crate) greedy: u32,
}

/// Packages of one driver at most, on the days that are known.
pub(crate) const CAP: u32 = 10;

macro_rules! known {
    ($name:literal, $best:literal, $greedy:literal) => {
        Known {
            name: $name,
            manifest: include_str!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../tests/data/",
                $name,
                ".json"
            )),
            best: $best,
            greedy: $greedy,
        }
    };
}

/// The days that are known.
pub(crate) const DAYS: [Known; 3] = [
    known!("day-10x60", 35, 34),
    known!("day-99x990-few-rules", 990, 973),
    MANY_RULES,
];
/// The one of them on which most stays behind.
pub(crate) const MANY_RULES: Known = known!("day-99x990-many-rules", 868, 793);

/// The seed of a drawn day.
const SEED: u64 = 0xda1;
const REGIONS: [&str; 4] = ["north", "east", "south", "west"];
/// Hours of a day.
const HOURS: u64 = 24;
/// Rules of one driver.
const RULES: std::ops::RangeInclusive<u64> = 2..=4;
/// Codes of rules.
const CODES: usize = 10;

/// Numbers that look random, the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 += 1;
        mixed(self.0)
    }

    /// Below `end`, which is small: then no number is noticeably more frequent than another.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll() % end as u64).unwrap_or_default()
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 0
    }

    fn uuid(&mut self) -> String {
        uuid(self.roll() & !0xf000 | 0x4000, self.roll())
    }

    /// From `low` to `high` hundredths.
    fn hundredths(&mut self, low: i32, high: i32) -> f64 {
        let span = usize::try_from(high - low).unwrap_or_default() + 1;
        let drawn = low + i32::try_from(self.below(span)).unwrap_or_default();
        f64::from(drawn) / 100.0
    }

    /// So many of them, each at most once, in any order.
    fn some_of<T: Clone>(&mut self, all: &[T], count: usize) -> Vec<T> {
        let mut left = all.to_vec();
        (0..count)
            .map(|_| left.swap_remove(self.below(left.len())))
            .collect()
    }

    fn rule(&mut self, code: usize) -> Value {
        let (code, params) = match code {
            0 => ("MAX_WEIGHT", json!({ "limit_kg": 10 })),
            1 => ("NO_PERISHABLE", json!({})),
            2 => {
                let regions = self.some_of(&REGIONS, 2);
                ("REGION_ONLY", json!({ "allowed_regions": regions }))
            }
            3 => ("MAX_DISTANCE", json!({ "max_km": 50 })),
            4 => ("EXPRESS_ONLY", json!({})),
            5 => ("FRAGILE_ONLY", json!({})),
            6 => {
                let count = 1 + self.below(2);
                let classes = self.some_of(&[1, 2, 3, 4], count);
                ("HAZMAT_ALLOWED", json!({ "allowed_classes": classes }))
            }
            7 => ("TEMP_CONTROL", json!({ "min_c": 2, "max_c": 8 })),
            8 => ("TIME_WINDOW", json!({ "start_hour": 8, "end_hour": 17 })),
            _ => ("OVERSIZED", json!({ "min_volume_m3": 0.5 })),
        };
        json!({ "rule_id": self.uuid(), "code": code, "params": params })
    }

    fn driver(&mut self, number: u32) -> Value {
        let codes: Vec<usize> = (0..CODES).collect();
        let span = usize::try_from(RULES.end() - RULES.start() + 1).unwrap_or_default();
        let count = usize::try_from(*RULES.start()).unwrap_or_default() + self.below(span);
        let codes = self.some_of(&codes, count);
        let rules: Vec<Value> = codes.into_iter().map(|code| self.rule(code)).collect();
        json!({ "driver_id": format!("driver_{}", number + 1), "rules": rules })
    }

    fn package(&mut self) -> Value {
        let class = self.below(5);
        json!({
            "package_id": self.uuid(),
            "weight_kg": self.hundredths(50, 2000),
            "is_perishable": self.coin(),
            "region": REGIONS[self.below(REGIONS.len())],
            "distance_km": self.hundredths(100, 10_000),
            "is_express": self.coin(),
            "is_fragile": self.coin(),
            "hazmat_class": (class > 0).then_some(class),
            "temperature_c": self.hundredths(-500, 2500),
            "delivery_hour": self.roll() % HOURS,
            "volume_m3": self.hundredths(10, 300),
        })
    }
}

/// A day's lists as JSON: drivers with two to four rules of ten codes, and packages, with the parameters and the ranges of
/// the days that are known. The same each time.
pub(crate) fn drawn(drivers: u32, packages: u32) -> String {
    let mut dice = Dice(SEED);
    let drivers: Vec<Value> = (0..drivers).map(|number| dice.driver(number)).collect();
    let packages: Vec<Value> = (0..packages).map(|_| dice.package()).collect();
    json!({ "drivers": drivers, "packages": packages }).to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use odyssey::assignments::manifest::Manifest;
    use odyssey::assignments::rules::Rule;

    use super::*;

    #[test]
    fn a_drawn_day_is_one_the_server_takes_and_the_same_each_time() {
        let drawn_day = drawn(200, 500);
        assert_eq!(drawn_day, drawn(200, 500));
        let day: Manifest = serde_json::from_str(&drawn_day).unwrap();
        assert_eq!((day.drivers.len(), day.packages.len()), (200, 500));
        let names: BTreeSet<_> = day.packages.iter().map(|package| &package.id).collect();
        assert_eq!(names.len(), 500);
        let mut counts = BTreeSet::new();
        let mut seen = BTreeSet::new();
        for driver in &day.drivers {
            let codes: BTreeSet<_> = driver.rules.iter().map(|rule| rule.rule.code()).collect();
            assert_eq!(codes.len(), driver.rules.len(), "no code twice");
            counts.insert(codes.len());
            seen.extend(codes);
        }
        assert_eq!(counts, BTreeSet::from([2, 3, 4]));
        assert_eq!(seen.len(), Rule::CODES.len());
    }

    #[test]
    fn the_known_days_are_as_large_as_their_names_say() {
        let sizes = DAYS.map(|day| {
            let day: Manifest = serde_json::from_str(day.manifest).unwrap();
            (day.drivers.len(), day.packages.len())
        });
        assert_eq!(sizes, [(10, 60), (99, 990), (99, 990)]);
    }
}
