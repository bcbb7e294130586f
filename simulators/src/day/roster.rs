//! The day's lists as a whole: who is who, and who may carry what.

use std::collections::{HashMap, HashSet};

use super::rules::Condition;
use crate::assignments::{Driver, Manifest};

/// The longest id that the contract permits, in characters.
const ID_CHARS_MAX: usize = 128;

/// The lists, indexed. Drivers and packages are numbers from here on: their places in the lists.
#[derive(Debug)]
pub(crate) struct Roster {
    pub(crate) manifest: Manifest,
    conditions: Vec<Vec<Condition>>,
    drivers: HashMap<String, usize>,
    packages: HashMap<String, usize>,
}

impl Roster {
    /// Why not, if a rule is none or an id is there twice.
    pub(crate) fn of(manifest: Manifest) -> Result<Self, String> {
        let drivers = places("driver", manifest.drivers.iter().map(|driver| &driver.id))?;
        let packages = places(
            "package",
            manifest.packages.iter().map(|package| &package.id),
        )?;
        let read = |driver: &Driver| driver.rules.iter().map(Condition::of).collect();
        let conditions = manifest.drivers.iter().map(|driver| {
            let read: Result<_, String> = read(driver);
            read.map_err(|why| format!("a rule of {}: {why}", driver.id))
        });
        let conditions = conditions.collect::<Result<_, _>>()?;
        Ok(Self {
            manifest,
            conditions,
            drivers,
            packages,
        })
    }

    pub(crate) fn driver_id(&self, driver: usize) -> &str {
        &self.manifest.drivers[driver].id
    }

    pub(crate) fn package_id(&self, package: usize) -> &str {
        &self.manifest.packages[package].id
    }

    pub(crate) fn driver(&self, id: &str) -> Option<usize> {
        self.drivers.get(id).copied()
    }

    pub(crate) fn package(&self, id: &str) -> Option<usize> {
        self.packages.get(id).copied()
    }

    pub(crate) fn drivers(&self) -> usize {
        self.manifest.drivers.len()
    }

    pub(crate) fn packages(&self) -> usize {
        self.manifest.packages.len()
    }

    /// Whether the package satisfies all rules of the driver.
    pub(crate) fn may_carry(&self, driver: usize, package: usize) -> bool {
        let package = &self.manifest.packages[package];
        let mut conditions = self.conditions[driver].iter();
        conditions.all(|condition| condition.admits(package))
    }

    /// The code of a rule of the driver that the package does not satisfy.
    pub(crate) fn broken(&self, driver: usize, package: usize) -> Option<&str> {
        let judged = &self.manifest.packages[package];
        let mut both = self.conditions[driver]
            .iter()
            .zip(&self.manifest.drivers[driver].rules);
        let broken = both.find(|(condition, _)| !condition.admits(judged));
        broken.map(|(_, rule)| &rule.code[..])
    }

    /// Whether these lists say the same, in whatever order; what they say otherwise, if not.
    pub(crate) fn compare(&self, reported: &Manifest) -> Result<(), String> {
        let lengths = |manifest: &Manifest| (manifest.drivers.len(), manifest.packages.len());
        let (reported_lengths, sent_lengths) = (lengths(reported), lengths(&self.manifest));
        if reported_lengths != sent_lengths {
            return Err(format!(
                "told (drivers, packages) {reported_lengths:?}, sent {sent_lengths:?}"
            ));
        }
        let mut seen = HashSet::new();
        for driver in &reported.drivers {
            let place = self.driver(&driver.id);
            if !place.is_some_and(|place| seen.insert(place) && self.is_same(place, driver)) {
                return Err(format!("{} is not as it was sent", driver.id));
            }
        }
        seen.clear();
        for package in &reported.packages {
            let place = self.package(&package.id);
            let same = |place: usize| self.manifest.packages[place] == *package;
            if !place.is_some_and(|place| seen.insert(place) && same(place)) {
                return Err(format!("{} is not as it was sent", package.id));
            }
        }
        Ok(())
    }

    fn is_same(&self, place: usize, reported: &Driver) -> bool {
        let (sent, conditions) = (&self.manifest.drivers[place], &self.conditions[place]);
        let ids = |driver: &Driver| -> Vec<_> {
            driver.rules.iter().map(|rule| rule.id.clone()).collect()
        };
        let reported_conditions: Result<Vec<_>, _> =
            reported.rules.iter().map(Condition::of).collect();
        ids(sent) == ids(reported) && reported_conditions.as_ref() == Ok(conditions)
    }
}

fn places<'a>(
    kind: &str,
    ids: impl Iterator<Item = &'a String>,
) -> Result<HashMap<String, usize>, String> {
    let mut places = HashMap::new();
    for (place, id) in ids.enumerate() {
        if places.insert(id.clone(), place).is_some() {
            return Err(format!("the {kind} {id} is in the lists twice"));
        }
    }
    Ok(places)
}

/// The lists with ids that no other run has.
pub(crate) fn renamed(mut manifest: Manifest, run: &str) -> Result<Manifest, String> {
    let drivers = manifest.drivers.iter_mut().map(|driver| &mut driver.id);
    let packages = manifest.packages.iter_mut().map(|package| &mut package.id);
    for id in drivers.chain(packages) {
        id.push('-');
        id.push_str(run);
        if id.chars().count() > ID_CHARS_MAX {
            return Err(format!("{id} would be too long; see --keep-ids"));
        }
    }
    Ok(manifest)
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;
    use crate::assignments::{Rule, tests::package};

    pub(crate) fn driver(id: &str, rules: &serde_json::Value) -> Driver {
        serde_json::from_value(json!({ "driver_id": id, "rules": rules })).unwrap()
    }

    /// `d1` takes light packages only, `d2` everything; `p2` is heavy.
    pub(crate) fn two_by_three() -> Roster {
        let light =
            json!([{ "rule_id": "r1", "code": "MAX_WEIGHT", "params": { "limit_kg": 10 } }]);
        let mut packages = ["p1", "p2", "p3"].map(package);
        packages[1].weight_kg = 11.0;
        let drivers = vec![driver("d1", &light), driver("d2", &json!([]))];
        let packages = packages.into();
        Roster::of(Manifest { drivers, packages }).unwrap()
    }

    #[test]
    fn a_driver_carries_what_satisfies_all_rules() {
        let roster = two_by_three();
        assert!(roster.may_carry(0, 0));
        assert!(!roster.may_carry(0, 1));
        assert!(roster.may_carry(1, 1));
        assert_eq!(roster.broken(0, 1), Some("MAX_WEIGHT"));
        assert_eq!(roster.broken(0, 0), None);
    }

    #[test]
    fn lists_must_be_told_as_they_were_sent() {
        let roster = two_by_three();
        let reported = roster.manifest.clone();
        assert_eq!(roster.compare(&reported), Ok(()));
        let mut reordered = reported.clone();
        reordered.packages.reverse();
        assert_eq!(roster.compare(&reordered), Ok(()));
        let changes: [fn(&mut Manifest); 7] = [
            |reported| drop(reported.packages.pop()),
            |reported| reported.packages[1] = reported.packages[0].clone(),
            |reported| reported.packages[1].weight_kg = 11.5,
            |reported| reported.drivers[1] = reported.drivers[0].clone(),
            |reported| reported.drivers[0].rules.clear(),
            |reported| reported.drivers[0].rules[0].id = None,
            |reported| {
                let limit = json!({ "limit_kg": 9 });
                reported.drivers[0].rules[0].params = limit.as_object().unwrap().clone();
            },
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut other = reported.clone();
            change(&mut other);
            assert!(roster.compare(&other).is_err(), "{number}");
        }
    }

    #[test]
    fn lists_that_cannot_be_played_are_told() {
        let mut twice = two_by_three().manifest;
        twice.packages[1].id = "p1".to_owned();
        assert!(Roster::of(twice).unwrap_err().contains("p1"));
        let mut unknown = two_by_three().manifest;
        unknown.drivers[1].rules.push(Rule {
            id: None,
            code: "MAX_HEIGHT".to_owned(),
            params: serde_json::Map::new(),
        });
        assert!(Roster::of(unknown).unwrap_err().contains("a rule of d2"));
    }

    #[test]
    fn lists_are_renamed_as_a_whole_if_the_ids_leave_room() {
        let named = renamed(two_by_three().manifest, "run").unwrap();
        assert_eq!(named.drivers[1].id, "d2-run");
        assert_eq!(named.packages[2].id, "p3-run");
        let mut long = two_by_three().manifest;
        long.packages[0].id = "x".repeat(125);
        assert!(renamed(long, "run").is_err());
    }
}
