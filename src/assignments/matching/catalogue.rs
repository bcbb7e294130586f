//! A day's lists, made ready for planning: which packages are the same to every driver.

use std::collections::HashMap;
use std::fmt;

use fixedbitset::FixedBitSet;

use super::flow::index;
use crate::assignments::model::{Driver, DriverId, Manifest, Package, PackageId};
use crate::assignments::rules::Rule;

/// The lists of a day. Making it takes a moment for large ones, and is done once for many plans.
pub struct Catalogue {
    /// By urgency, then by name: the order of everything that is planned.
    packages: Vec<Package>,
    drivers: Vec<Driver>,
    places: HashMap<PackageId, u32>,
    /// By driver: distinct rules, ascending.
    rules_of: HashMap<DriverId, Vec<usize>>,
    /// Rules of which no two say the same.
    rules: Vec<Rule>,
    kinds: Vec<Kind>,
}

/// Packages that pass the same rules.
struct Kind {
    passes: FixedBitSet,
    /// Places, ascending.
    packages: Vec<u32>,
}

impl fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalogue")
            .field("drivers", &self.drivers.len())
            .field("packages", &self.packages.len())
            .field("rules", &self.rules.len())
            .field("kinds", &self.kinds.len())
            .finish_non_exhaustive()
    }
}

impl Catalogue {
    /// Makes the lists ready.
    pub fn new(manifest: Manifest) -> Self {
        let Manifest {
            drivers,
            mut packages,
        } = manifest;
        packages.sort_by(|one, other| {
            let urgency = one.urgency().cmp(&other.urgency());
            urgency.then_with(|| one.id.cmp(&other.id))
        });
        let mut rules = Vec::new();
        let mut numbers: HashMap<(&str, String), usize> = HashMap::new();
        let mut rules_of = HashMap::with_capacity(drivers.len());
        for driver in &drivers {
            let number = |rule: &Rule| {
                let said = (rule.code(), rule.params().to_string());
                *numbers.entry(said).or_insert_with(|| {
                    rules.push(rule.clone());
                    rules.len() - 1
                })
            };
            let mut own: Vec<usize> = driver
                .rules
                .iter()
                .map(|named| &named.rule)
                .map(number)
                .collect();
            own.sort_unstable();
            own.dedup();
            rules_of.insert(driver.id.clone(), own);
        }
        let kinds = kinds(&packages, &rules);
        let named = |(place, package): (usize, &Package)| (package.id.clone(), index(place));
        let places = packages.iter().enumerate().map(named).collect();
        Self {
            packages,
            drivers,
            places,
            rules_of,
            rules,
            kinds,
        }
    }

    /// How many packages there are.
    pub fn packages(&self) -> usize {
        self.packages.len()
    }

    /// The drivers, as they were listed.
    pub fn drivers(&self) -> &[Driver] {
        &self.drivers
    }

    /// Whether there is such a driver.
    pub fn has_driver(&self, driver: &DriverId) -> bool {
        self.rules_of.contains_key(driver)
    }

    /// The package at a place.
    pub(super) fn package(&self, place: u32) -> &Package {
        &self.packages[place as usize]
    }

    /// A package's place.
    pub(super) fn place(&self, package: &PackageId) -> Option<u32> {
        self.places.get(package).copied()
    }

    /// A driver's distinct rules, ascending; none for a stranger.
    pub(super) fn rules_of(&self, driver: &DriverId) -> &[usize] {
        self.rules_of.get(driver).map_or(&[], Vec::as_slice)
    }

    /// All distinct rules.
    pub(super) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The places of each kind's packages.
    pub(super) fn kinds(&self) -> impl Iterator<Item = &[u32]> {
        self.kinds.iter().map(|kind| kind.packages.as_slice())
    }

    /// The rules that packages of a kind pass.
    pub(super) fn passes(&self, kind: usize) -> &FixedBitSet {
        &self.kinds[kind].passes
    }
}

/// The kinds, in the order of their most urgent packages.
fn kinds(packages: &[Package], rules: &[Rule]) -> Vec<Kind> {
    let mut numbers: HashMap<FixedBitSet, usize> = HashMap::new();
    let mut kinds: Vec<Kind> = Vec::new();
    for (place, package) in packages.iter().enumerate() {
        let mut passes = FixedBitSet::with_capacity(rules.len());
        for (number, rule) in rules.iter().enumerate() {
            passes.set(number, rule.judge(package).is_ok());
        }
        let number = *numbers.entry(passes).or_insert_with_key(|passes| {
            kinds.push(Kind {
                passes: passes.clone(),
                packages: Vec::new(),
            });
            kinds.len() - 1
        });
        kinds[number].packages.push(index(place));
    }
    kinds
}
