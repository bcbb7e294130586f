//! A manifest, prepared for planning: packages are grouped into equivalence classes.

use std::collections::HashMap;
use std::fmt;

use fixedbitset::FixedBitSet;

use super::flow::index;
use crate::assignments::manifest::{Driver, Manifest};
use crate::assignments::model::{DriverId, Package, PackageId, Urgency};
use crate::assignments::rules::Rule;

/// Building it takes a moment for large manifests; it is cached for many plans.
pub struct Catalogue {
    /// By urgency, then by name: the order of all plans.
    packages: Vec<Package>,
    drivers: Vec<Driver>,
    /// Indices of `packages`, sorted by name.
    by_name: Vec<u32>,
    /// By driver: distinct rules, ascending.
    rules_of: HashMap<DriverId, Vec<usize>>,
    /// Distinct rules.
    rules: Vec<Rule>,
    package_classes: Vec<PackageClass>,
}

/// Packages that pass the same rules.
struct PackageClass {
    passes: FixedBitSet,
    /// Indices, ascending.
    packages: Vec<u32>,
}

impl fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalogue")
            .field("drivers", &self.drivers.len())
            .field("packages", &self.packages.len())
            .field("rules", &self.rules.len())
            .field("package_classes", &self.package_classes.len())
            .finish_non_exhaustive()
    }
}

impl Catalogue {
    pub fn new(manifest: Manifest) -> Self {
        let Manifest { drivers, packages } = manifest;
        let (packages, by_name) = by_urgency(packages);
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
        let package_classes = package_classes(&packages, &rules);
        Self {
            packages,
            drivers,
            by_name,
            rules_of,
            rules,
            package_classes,
        }
    }

    pub fn packages(&self) -> usize {
        self.packages.len()
    }

    /// In the order of the manifest.
    pub fn drivers(&self) -> &[Driver] {
        &self.drivers
    }

    pub fn has_driver(&self, driver: &DriverId) -> bool {
        self.rules_of.contains_key(driver)
    }

    pub fn has_package(&self, package: &PackageId) -> bool {
        self.place(package).is_some()
    }

    pub(super) fn package(&self, place: u32) -> &Package {
        &self.packages[place as usize]
    }

    /// A package's index.
    pub(super) fn place(&self, package: &PackageId) -> Option<u32> {
        let name = |&place: &u32| self.package(place).id.cmp(package);
        let found = self.by_name.binary_search_by(name).ok()?;
        Some(self.by_name[found])
    }

    /// A driver's distinct rules, ascending; none for an unknown driver.
    pub(super) fn rules_of(&self, driver: &DriverId) -> &[usize] {
        self.rules_of.get(driver).map_or(&[], Vec::as_slice)
    }

    pub(super) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The packages of each class, by index.
    pub(super) fn package_classes(&self) -> impl Iterator<Item = &[u32]> {
        self.package_classes
            .iter()
            .map(|package_class| package_class.packages.as_slice())
    }

    /// The rules that the packages of a class pass.
    pub(super) fn passes(&self, package_class: usize) -> &FixedBitSet {
        &self.package_classes[package_class].passes
    }
}

/// Packages by urgency, then by name, and their indices sorted by name.
///
/// Names are scattered in memory, so each key has the name's prefix, which decides nearly every comparison.
fn by_urgency(packages: Vec<Package>) -> (Vec<Package>, Vec<u32>) {
    let mut names: Vec<(u64, u32)> = packages
        .iter()
        .enumerate()
        .map(|(number, package)| (beginning(package.id.as_str()), index(number)))
        .collect();
    names.sort_unstable_by(|&(one, at), &(other, there)| {
        let whole = || packages[at as usize].id.cmp(&packages[there as usize].id);
        one.cmp(&other).then_with(whole)
    });
    // Counting sort by urgency: stable, so names stay sorted.
    let mut next = [0; Urgency::COUNT];
    for package in &packages {
        next[package.urgency().index()] += 1;
    }
    let mut before = 0;
    for next in &mut next {
        before += std::mem::replace(next, before);
    }
    let mut numbers = vec![0; packages.len()];
    let by_name = names.into_iter().map(|(_, number)| {
        let next = &mut next[packages[number as usize].urgency().index()];
        numbers[*next as usize] = number;
        *next += 1;
        *next - 1
    });
    let by_name = by_name.collect();
    let mut packages: Vec<Option<Package>> = packages.into_iter().map(Some).collect();
    let sorted = numbers
        .into_iter()
        .filter_map(|number| packages[number as usize].take());
    (sorted.collect(), by_name)
}

/// The first eight bytes; ordered like names.
fn beginning(name: &str) -> u64 {
    let mut bytes = [0; 8];
    for (byte, letter) in bytes.iter_mut().zip(name.bytes()) {
        *byte = letter;
    }
    u64::from_be_bytes(bytes)
}

/// The package classes, in the order of their most urgent packages.
///
/// Rules are evaluated 64 at a time, as the bits of a number: packages of one class so far are split by differing bits.
fn package_classes(packages: &[Package], rules: &[Rule]) -> Vec<PackageClass> {
    let mut kind_of = vec![0_u32; packages.len()];
    for rules in rules.chunks(u64::BITS as usize) {
        let mut numbers: HashMap<(u32, u64), u32> = HashMap::new();
        for (package, package_class) in packages.iter().zip(&mut kind_of) {
            let passes = |word, (bit, rule): (usize, &Rule)| {
                word | u64::from(rule.judge(package).is_ok()) << bit
            };
            let word = rules.iter().enumerate().fold(0, passes);
            let new = index(numbers.len());
            *package_class = *numbers.entry((*package_class, word)).or_insert(new);
        }
    }
    let mut package_classes: Vec<PackageClass> = Vec::new();
    for (place, (package, package_class)) in packages.iter().zip(kind_of).enumerate() {
        // Classes are numbered in the order of their first package.
        if package_class as usize == package_classes.len() {
            let mut passes = FixedBitSet::with_capacity(rules.len());
            for (number, rule) in rules.iter().enumerate() {
                passes.set(number, rule.judge(package).is_ok());
            }
            package_classes.push(PackageClass {
                passes,
                packages: Vec::new(),
            });
        }
        package_classes[package_class as usize]
            .packages
            .push(index(place));
    }
    package_classes
}
