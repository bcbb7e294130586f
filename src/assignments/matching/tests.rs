use std::path::Path;

use serde_json::{Value, json};
use simulators::assignments::Model;

use super::explain::{Relaxation, Relaxed};
use super::*;
use crate::assignments::manifest::{Driver, Manifest, NamedRule};

/// A seeded random generator.
struct Dice(fastrand::Rng);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0.usize(..end)
    }

    fn rule(&mut self) -> Value {
        let regions = ["north", "east", "south", "west"];
        let (code, params) = match self.below(7) {
            0 => ("MAX_WEIGHT", json!({ "limit_kg": 10 })),
            1 => ("NO_PERISHABLE", json!({})),
            2 => (
                "REGION_ONLY",
                json!({ "allowed_regions": [regions[self.below(4)], regions[self.below(4)]] }),
            ),
            3 => ("EXPRESS_ONLY", json!({})),
            4 => ("FRAGILE_ONLY", json!({})),
            5 => (
                "HAZMAT_ALLOWED",
                json!({ "allowed_classes": [1 + self.below(4)] }),
            ),
            _ => ("TIME_WINDOW", json!({ "start_hour": 8, "end_hour": 17 })),
        };
        json!({ "rule_id": format!("r{}", self.below(1000)), "code": code, "params": params })
    }

    fn manifest(&mut self, drivers: usize, packages: usize) -> Manifest {
        let drivers: Vec<Value> = (0..drivers)
            .map(|number| {
                let rules: Vec<_> = (0..self.below(3)).map(|_| self.rule()).collect();
                json!({ "driver_id": format!("d{number}"), "rules": rules })
            })
            .collect();
        let regions = ["north", "east", "south", "west"];
        let packages: Vec<Value> = (0..packages)
            .map(|number| {
                json!({
                    "package_id": format!("p{number}"), "weight_kg": 5 * self.below(5),
                    "is_perishable": self.0.bool(), "region": regions[self.below(4)], "distance_km": 10,
                    "is_express": self.0.bool(), "is_fragile": self.0.bool(),
                    "hazmat_class": if self.0.bool() { Value::Null } else { json!(1 + self.below(4)) },
                    "temperature_c": 5, "delivery_hour": self.below(24), "volume_m3": 1,
                })
            })
            .collect();
        serde_json::from_value(json!({ "drivers": drivers, "packages": packages })).unwrap()
    }
}

fn all_drivers(manifest: &Manifest) -> BTreeSet<DriverId> {
    manifest
        .drivers
        .iter()
        .map(|driver| driver.id.clone())
        .collect()
}

fn planned(manifest: &Manifest, max_per_driver: u32, held: &[Held]) -> (Catalogue, Planned) {
    let catalogue = Catalogue::new(manifest.clone());
    let drivers = all_drivers(manifest);
    let planned = plan(
        &catalogue,
        &Request {
            drivers: &drivers,
            max_per_driver,
            held,
        },
        &Cancellation::default(),
    );
    (catalogue, planned.unwrap())
}

fn accepts(driver: &Driver, package: &Package) -> bool {
    driver
        .rules
        .iter()
        .all(|named| named.rule.judge(package).is_ok())
}

/// What makes one plan better than another; the least is the best: packages left, loads from the largest on, urgencies.
type Worth = (usize, Vec<u32>, Vec<Urgency>);

fn worth(manifest: &Manifest, hands: &BTreeMap<DriverId, Vec<PackageId>>) -> Worth {
    let mut loads: Vec<u32> = hands.values().map(|hand| index(hand.len())).collect();
    loads.sort_unstable_by_key(|&load| std::cmp::Reverse(load));
    let carried = hands.values().flatten();
    let of = |id: &PackageId| manifest.packages.iter().find(|package| package.id == *id);
    let mut urgencies: Vec<Urgency> = carried.filter_map(of).map(Package::urgency).collect();
    urgencies.sort_unstable();
    (manifest.packages.len() - urgencies.len(), loads, urgencies)
}

/// The best worth of any plan, by exhaustive search.
fn best(manifest: &Manifest, max_per_driver: u32, held: &[Held]) -> Worth {
    let mut hands: BTreeMap<DriverId, Vec<PackageId>> = manifest
        .drivers
        .iter()
        .map(|driver| (driver.id.clone(), Vec::new()))
        .collect();
    for Held { driver, package } in held {
        hands.get_mut(driver).unwrap().push(package.clone());
    }
    let free = manifest
        .packages
        .iter()
        .filter(|package| held.iter().all(|held| held.package != package.id));
    let free: Vec<&Package> = free.collect();
    let mut found = worth(manifest, &hands);
    try_all(
        manifest,
        max_per_driver as usize,
        &free,
        &mut hands,
        &mut found,
    );
    found
}

fn try_all(
    manifest: &Manifest,
    most: usize,
    free: &[&Package],
    hands: &mut BTreeMap<DriverId, Vec<PackageId>>,
    found: &mut Worth,
) {
    let Some((package, rest)) = free.split_first() else {
        *found = worth(manifest, hands).min(found.clone());
        return;
    };
    try_all(manifest, most, rest, hands, found);
    for driver in &manifest.drivers {
        if hands[&driver.id].len() < most && accepts(driver, package) {
            hands.get_mut(&driver.id).unwrap().push(package.id.clone());
            try_all(manifest, most, rest, hands, found);
            hands.get_mut(&driver.id).unwrap().pop();
        }
    }
}

/// No driver has what they may not carry, or more than they may, and every package is in exactly one place.
fn assert_sound(manifest: &Manifest, max_per_driver: u32, held: &[Held], planned: &Planned) {
    let mut seen = BTreeSet::new();
    for driver in &manifest.drivers {
        let hand = &planned.plan.assignments[&driver.id];
        let before = held.iter().filter(|held| held.driver == driver.id).count();
        assert!(
            hand.len() <= before.max(max_per_driver as usize),
            "{driver:?} has {hand:?}"
        );
        for id in hand {
            assert!(seen.insert(id.clone()), "{id} is there once");
        }
        for package in planned.given.get(&driver.id).into_iter().flatten() {
            assert!(accepts(driver, package), "{driver:?} may carry {package:?}");
            assert!(hand.contains(&package.id));
        }
    }
    for id in &planned.plan.unassigned {
        assert!(seen.insert(id.clone()), "{id} is there once");
    }
    assert!(
        manifest
            .packages
            .iter()
            .all(|package| seen.contains(&package.id))
    );
}

#[test]
fn small_plans_are_as_good_as_the_best_of_all_plans() {
    for seed in 0..300 {
        let mut dice = Dice(fastrand::Rng::with_seed(seed));
        let (drivers, packages) = (1 + dice.below(3), dice.below(7));
        let manifest = dice.manifest(drivers, packages);
        let most = index(dice.below(4));
        let mut held = Vec::new();
        for package in &manifest.packages {
            if most > 0 && dice.below(5) == 0 {
                let driver = manifest.drivers[dice.below(drivers)].id.clone();
                held.push(Held {
                    driver,
                    package: package.id.clone(),
                });
            }
        }
        let (_, planned) = planned(&manifest, most, &held);
        assert_sound(&manifest, most, &held, &planned);
        let found = worth(&manifest, &planned.plan.assignments);
        assert_eq!(
            found,
            best(&manifest, most, &held),
            "seed {seed}: {manifest:#?} {held:?}"
        );
    }
}

/// The number of packages that can be carried, by the simulators' reading of the rules and their search.
fn most_carried(manifest: &Manifest, max_per_driver: u32) -> usize {
    let manifest = serde_json::to_value(manifest).unwrap();
    let model = Model::new(serde_json::from_value(manifest).unwrap()).unwrap();
    let drivers: Vec<usize> = (0..model.drivers()).collect();
    model.most(&drivers, max_per_driver, &vec![None; model.packages()])
}

#[test]
fn larger_plans_carry_as_many_as_a_second_algorithm() {
    for seed in 0..200 {
        let mut dice = Dice(fastrand::Rng::with_seed(1000 + seed));
        let (drivers, packages) = (1 + dice.below(12), dice.below(80));
        let manifest = dice.manifest(drivers, packages);
        let most = index(dice.below(9));
        let (_, planned) = planned(&manifest, most, &[]);
        assert_sound(&manifest, most, &[], &planned);
        let carried = packages - planned.plan.unassigned.len();
        assert_eq!(carried, most_carried(&manifest, most), "seed {seed}");
    }
}

/// For each level, drivers counted up to it carry as many as any plan could: then no load is more even.
#[test]
fn larger_plans_are_even_at_every_level() {
    for seed in 0..60 {
        let mut dice = Dice(fastrand::Rng::with_seed(2000 + seed));
        let (drivers, packages) = (2 + dice.below(10), 20 + dice.below(60));
        let manifest = dice.manifest(drivers, packages);
        let most = 20;
        let (_, planned) = planned(&manifest, most, &[]);
        for level in 0..=most {
            let loads = planned.plan.assignments.values().map(Vec::len);
            let up_to: usize = loads.map(|load| load.min(level as usize)).sum();
            assert_eq!(
                up_to,
                most_carried(&manifest, level),
                "seed {seed}, level {level}"
            );
        }
    }
}

fn day(name: &str) -> Manifest {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn the_centre_s_days_are_planned_as_an_independent_solver_says() {
    for (name, optimum) in [
        ("day-10x60.json", 35),
        ("day-99x990-few-rules.json", 990),
        ("day-99x990-many-rules.json", 868),
    ] {
        let manifest = day(name);
        let (_, planned) = planned(&manifest, 10, &[]);
        assert_sound(&manifest, 10, &[], &planned);
        let carried = manifest.packages.len() - planned.plan.unassigned.len();
        assert_eq!(carried, optimum, "{name}");
        assert_eq!(carried, most_carried(&manifest, 10), "{name}");
    }
}

#[test]
fn a_plan_depends_on_what_is_listed_and_not_on_the_order() {
    let manifest = day("day-99x990-many-rules.json");
    let mut plans = Vec::new();
    for seed in 0..5 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut manifest = manifest.clone();
        rng.shuffle(&mut manifest.drivers);
        rng.shuffle(&mut manifest.packages);
        for driver in &mut manifest.drivers {
            rng.shuffle(&mut driver.rules);
        }
        let (catalogue, planned) = planned(&manifest, 8, &[]);
        plans.push((planned.plan.clone(), planned.explain(&catalogue).unwrap()));
    }
    assert!(!plans[0].0.unassigned.is_empty());
    assert!(plans.iter().all(|plan| *plan == plans[0]));
}

#[test]
fn what_is_held_stays_and_the_rest_is_added() {
    let manifest = day("day-99x990-many-rules.json");
    let (_, whole) = planned(&manifest, 10, &[]);
    let all = whole.plan.assignments.iter();
    let mut held: Vec<Held> = all
        .flat_map(|(driver, hand)| hand.iter().map(|package| (driver.clone(), package.clone())))
        .map(|(driver, package)| Held { driver, package })
        .collect();
    let (_, again) = planned(&manifest, 10, &held);
    assert_eq!(again.plan, whole.plan, "a retry adds nothing");
    assert!(again.given.is_empty());
    // A part of the best plan is completed to one that carries as much.
    fastrand::Rng::with_seed(1).shuffle(&mut held);
    held.truncate(400);
    let (_, completed) = planned(&manifest, 10, &held);
    assert_sound(&manifest, 10, &held, &completed);
    assert_eq!(completed.plan.unassigned.len(), whole.plan.unassigned.len());
    for Held { driver, package } in &held {
        assert!(completed.plan.assignments[driver].contains(package));
    }
}

#[test]
fn what_is_no_longer_listed_is_still_held() {
    let manifest = day("day-10x60.json");
    let driver = manifest.drivers[0].id.clone();
    let package = PackageId::parse("of yesterday's list").unwrap();
    let held = [Held {
        driver: driver.clone(),
        package: package.clone(),
    }];
    let (_, planned) = planned(&manifest, 1, &held);
    assert_eq!(planned.plan.assignments[&driver], [package], "it counts");
}

/// The best gain by one relaxation, by planning again with each.
fn best_gain(manifest: &Manifest, max_per_driver: u32) -> usize {
    let before = most_carried(manifest, max_per_driver);
    let mut best = most_carried(manifest, max_per_driver + 1) - before;
    for driver in 0..manifest.drivers.len() {
        for rule in 0..manifest.drivers[driver].rules.len() {
            let mut without = manifest.clone();
            let removed = without.drivers[driver].rules.remove(rule);
            // A duplicate is the same rule.
            without.drivers[driver].rules.retain(|named| {
                named.rule.params() != removed.rule.params()
                    || named.rule.code() != removed.rule.code()
            });
            best = best.max(most_carried(&without, max_per_driver) - before);
        }
    }
    best
}

#[test]
fn the_relaxation_that_is_named_helps_as_much_as_any_and_as_is_said() {
    let (mut by_rule, mut by_cap, mut none) = (0, 0, 0);
    for seed in 0..150 {
        let mut dice = Dice(fastrand::Rng::with_seed(3000 + seed));
        let (drivers, packages) = (1 + dice.below(5), 5 + dice.below(25));
        let mut manifest = dice.manifest(drivers, packages);
        // Two drivers of a class.
        let mut twin = manifest.drivers[0].clone();
        twin.id = DriverId::parse("twin").unwrap();
        manifest.drivers.push(twin);
        let most = 1 + index(dice.below(6));
        let (catalogue, planned) = planned(&manifest, most, &[]);
        let explanation = planned.explain(&catalogue).unwrap();
        let before = most_carried(&manifest, most);
        let gain = best_gain(&manifest, most);
        let Some(Relaxation { what, gain: said }) = explanation.relaxation else {
            assert_eq!(gain, 0, "seed {seed}");
            none += 1;
            continue;
        };
        assert_eq!(
            usize::try_from(said).unwrap(),
            gain,
            "seed {seed}: {what:?}"
        );
        match what {
            Relaxed::MaxPerDriver { to } => {
                by_cap += 1;
                assert_eq!(most_carried(&manifest, to) - before, gain);
            }
            Relaxed::Rule { driver, rule, code } => {
                by_rule += 1;
                let driver = manifest
                    .drivers
                    .iter_mut()
                    .find(|listed| listed.id == driver);
                let rules = &mut driver.unwrap().rules;
                let dropped = rules
                    .iter()
                    .find(|named| named.id == rule && named.rule.code() == code);
                let dropped = dropped.unwrap().rule.clone();
                rules.retain(|NamedRule { rule, .. }| *rule != dropped);
                assert_eq!(most_carried(&manifest, most) - before, gain);
            }
        }
    }
    assert!(
        by_rule > 10 && by_cap > 10 && none > 10,
        "{by_rule} {by_cap} {none}"
    );
}

#[test]
fn each_package_left_behind_knows_why() {
    let mut dice = Dice(fastrand::Rng::with_seed(7));
    let mut manifest = dice.manifest(3, 3);
    let rules = |rules: Value| serde_json::from_value::<Vec<NamedRule>>(rules).unwrap();
    manifest.drivers[0].rules = rules(json!([{"code": "EXPRESS_ONLY"}]));
    manifest.drivers[1].rules = rules(
        json!([{"code": "EXPRESS_ONLY"}, {"code": "MAX_WEIGHT", "params": {"limit_kg": 10}}]),
    );
    manifest.drivers[2].rules = rules(json!([{"code": "MAX_WEIGHT", "params": {"limit_kg": 20}}]));
    for (package, (express, weight, hour)) in
        manifest
            .packages
            .iter_mut()
            .zip([(true, 5.0, 1), (false, 15.0, 2), (false, 30.0, 3)])
    {
        (
            package.is_express,
            package.weight_kg,
            package.delivery_hour,
            package.is_perishable,
        ) = (express, weight, hour, false);
    }
    let (catalogue, nothing) = planned(&manifest, 0, &[]);
    let explanation = nothing.explain(&catalogue).unwrap();
    let explanation: Vec<_> = explanation
        .packages
        .iter()
        .map(|left| (left.package.as_str(), left.able, left.refused.clone()))
        .collect();
    assert_eq!(
        explanation,
        [
            ("p0", 3, [].into()),
            ("p1", 1, [("EXPRESS_ONLY", 2), ("MAX_WEIGHT", 1)].into()),
            ("p2", 0, [("EXPRESS_ONLY", 2), ("MAX_WEIGHT", 2)].into()),
        ]
    );
    let (catalogue, planned) = planned(&manifest, 9, &[]);
    let explanation = planned.explain(&catalogue).unwrap();
    assert_eq!(explanation.packages.len(), 1);
    let gain = Relaxation {
        what: Relaxed::Rule {
            driver: DriverId::parse("d0").unwrap(),
            rule: None,
            code: "EXPRESS_ONLY",
        },
        gain: 1,
    };
    assert_eq!(explanation.relaxation, Some(gain));
}

#[test]
fn a_plan_that_nobody_waits_for_ends_without_a_result() {
    let manifest = day("day-99x990-many-rules.json");
    let catalogue = Catalogue::new(manifest.clone());
    let drivers = all_drivers(&manifest);
    let request = Request {
        drivers: &drivers,
        max_per_driver: 10,
        held: &[],
    };
    let cancellation = Cancellation::default();
    let planned = plan(&catalogue, &request, &cancellation).unwrap();
    assert!(planned.explain(&catalogue).is_ok());
    drop(cancellation.on_drop());
    assert_eq!(planned.explain(&catalogue), Err(Cancelled));
    let again = plan(&catalogue, &request, &cancellation);
    assert_eq!(again.unwrap_err(), Cancelled);
}
