//! The rules of a day, written down a second time: who may carry what, and which plan is a good one. Pure: no I/O, no clock.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Driver, Manifest, Package, Plan, Rule};

/// What must hold of every plan, in the order of [`Model::judge`].
pub const ASPECTS: [&str; 7] = [
    "plans name every driver",
    "nobody above the cap",
    "packages at most once",
    "rules of the drivers",
    "left behind exactly the rest",
    "plans only grow",
    "as many as possible",
];

/// What a rule says. Bounds are inclusive.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "code", content = "params", rename_all = "SCREAMING_SNAKE_CASE")]
enum Condition {
    MaxWeight { limit_kg: f64 },
    NoPerishable {},
    RegionOnly { allowed_regions: BTreeSet<String> },
    MaxDistance { max_km: f64 },
    ExpressOnly {},
    FragileOnly {},
    HazmatAllowed { allowed_classes: BTreeSet<u8> },
    TempControl { min_c: f64, max_c: f64 },
    TimeWindow { start_hour: u8, end_hour: u8 },
    Oversized { min_volume_m3: f64 },
}

impl Condition {
    fn of(rule: &Rule) -> Result<Self, String> {
        let written = json!({ "code": rule.code, "params": Value::from(rule.params.clone()) });
        serde_json::from_value(written).map_err(|error| error.to_string())
    }

    fn admits(&self, package: &Package) -> bool {
        match self {
            Self::MaxWeight { limit_kg } => package.weight_kg <= *limit_kg,
            Self::NoPerishable {} => !package.is_perishable,
            Self::RegionOnly { allowed_regions } => allowed_regions.contains(&package.region),
            Self::MaxDistance { max_km } => package.distance_km <= *max_km,
            Self::ExpressOnly {} => package.is_express,
            Self::FragileOnly {} => package.is_fragile,
            Self::HazmatAllowed { allowed_classes } => {
                let class = package.hazmat_class;
                class.is_none_or(|class| allowed_classes.contains(&class))
            }
            Self::TempControl { min_c, max_c } => {
                (*min_c..=*max_c).contains(&package.temperature_c)
            }
            Self::TimeWindow {
                start_hour,
                end_hour,
            } => (*start_hour..=*end_hour).contains(&package.delivery_hour),
            Self::Oversized { min_volume_m3 } => package.volume_m3 >= *min_volume_m3,
        }
    }
}

/// A day's lists, indexed. Drivers and packages are numbers from here on: their places in the lists.
#[derive(Debug)]
pub struct Model {
    pub manifest: Manifest,
    conditions: Vec<Vec<Condition>>,
    drivers: HashMap<String, usize>,
    packages: HashMap<String, usize>,
}

/// Each package's driver, if it has one.
pub type Owners = Vec<Option<usize>>;

/// A call of `POST /assign`, and what was assigned before.
#[derive(Debug)]
pub struct Call<'a> {
    /// Each once, ascending.
    pub drivers: &'a [usize],
    pub max_per_driver: u32,
    /// When the call was sent.
    pub before: Owners,
    /// When it was answered.
    pub after: Owners,
    /// Assignments that no plan may change; the rest must be the largest possible. None when concurrent calls ask for other
    /// drivers, so that the whole plan counts as settled.
    pub settled: Option<Owners>,
}

/// What a plan says, and what is wrong with it.
#[derive(Debug)]
pub struct Judged {
    /// Driver and package, those that are known by their ids.
    pub pairs: Vec<(usize, usize)>,
    /// Packages that the plan does not mention; another driver must have them.
    pub unmentioned: Vec<usize>,
    /// A finding for each of [`ASPECTS`] that does not hold.
    pub aspects: [Result<(), String>; ASPECTS.len()],
}

impl Model {
    /// # Errors
    ///
    /// A rule is unknown, or an id is there twice.
    pub fn new(manifest: Manifest) -> Result<Self, String> {
        let drivers = places("driver", manifest.drivers.iter().map(|driver| &driver.id))?;
        let packages = manifest.packages.iter().map(|package| &package.id);
        let packages = places("package", packages)?;
        let conditions = manifest.drivers.iter().map(|driver| {
            conditions(driver).map_err(|why| format!("a rule of {}: {why}", driver.id))
        });
        let conditions = conditions.collect::<Result<_, _>>()?;
        Ok(Self {
            manifest,
            conditions,
            drivers,
            packages,
        })
    }

    pub fn driver_id(&self, driver: usize) -> &str {
        &self.manifest.drivers[driver].id
    }

    pub fn package_id(&self, package: usize) -> &str {
        &self.manifest.packages[package].id
    }

    pub fn driver(&self, id: &str) -> Option<usize> {
        self.drivers.get(id).copied()
    }

    pub fn package(&self, id: &str) -> Option<usize> {
        self.packages.get(id).copied()
    }

    pub fn drivers(&self) -> usize {
        self.manifest.drivers.len()
    }

    pub fn packages(&self) -> usize {
        self.manifest.packages.len()
    }

    /// The code of a rule of the driver that the package breaks.
    pub fn broken(&self, driver: usize, package: usize) -> Option<&str> {
        let judged = &self.manifest.packages[package];
        let mut conditions = self.conditions[driver].iter();
        let broken = conditions.position(|condition| !condition.admits(judged))?;
        Some(&self.manifest.drivers[driver].rules[broken].code)
    }

    /// The most packages that the drivers can carry if those in `owners` stay where they are.
    pub fn most(&self, drivers: &[usize], max_per_driver: u32, owners: &Owners) -> usize {
        let mut search = Search::new(self, drivers, max_per_driver);
        for driver in owners.iter().flatten() {
            search.loads[*driver] += 1;
        }
        let free = (0..self.packages()).filter(|package| owners[*package].is_none());
        owners.iter().flatten().count() + free.filter(|package| search.place(*package)).count()
    }

    /// Compares these lists, in whatever order they are, with the manifest.
    ///
    /// # Errors
    ///
    /// How they differ.
    pub fn compare(&self, reported: &Manifest) -> Result<(), String> {
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
        let ids = |driver: &Driver| -> Vec<_> {
            driver.rules.iter().map(|rule| rule.id.clone()).collect()
        };
        ids(&self.manifest.drivers[place]) == ids(reported)
            && conditions(reported).as_ref() == Ok(&self.conditions[place])
    }

    /// Judges a plan: from the lists, the call, and what was known before.
    pub fn judge(&self, call: &Call<'_>, plan: &Plan) -> Judged {
        let reading = Reading::of(self, call, plan);
        let everything = 0..self.packages();
        let unmentioned = everything.filter(|package| {
            reading.owners[*package].is_none() && !reading.left.contains(package)
        });
        Judged {
            unmentioned: unmentioned.collect(),
            aspects: [
                reading.names_drivers(),
                reading.respects_the_cap(),
                reading.assigns_once(),
                reading.respects_the_rules(),
                reading.leaves_the_rest(),
                reading.grows(),
                reading.is_largest(),
            ],
            pairs: reading.pairs,
        }
    }
}

fn conditions(driver: &Driver) -> Result<Vec<Condition>, String> {
    driver.rules.iter().map(Condition::of).collect()
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

/// Searches for drivers with room, moving packages from driver to driver. By Berge's theorem a plan is the largest if and
/// only if there is no such path.
struct Search<'a> {
    model: &'a Model,
    drivers: &'a [usize],
    max_per_driver: u32,
    /// By driver, packages that cannot be moved among them.
    loads: Vec<u32>,
    /// The packages that can be moved, by driver.
    movable: Vec<Vec<usize>>,
}

impl<'a> Search<'a> {
    fn new(model: &'a Model, drivers: &'a [usize], max_per_driver: u32) -> Self {
        Self {
            model,
            drivers,
            max_per_driver,
            loads: vec![0; model.drivers()],
            movable: vec![Vec::new(); model.drivers()],
        }
    }

    /// A driver with room that one of these packages leads to, and from which package each driver was reached.
    fn room_for(&self, mut packages: Vec<usize>) -> Option<(usize, Vec<Option<usize>>)> {
        let mut reached_from = vec![None; self.loads.len()];
        let mut unseen = self.drivers.to_vec();
        while let Some(package) = packages.pop() {
            let able = |driver: &usize| self.model.broken(*driver, package).is_none();
            let (able, others): (Vec<_>, Vec<_>) = unseen.into_iter().partition(able);
            unseen = others;
            for driver in able {
                reached_from[driver] = Some(package);
                if self.loads[driver] < self.max_per_driver {
                    return Some((driver, reached_from));
                }
                packages.extend(&self.movable[driver]);
            }
        }
        None
    }

    /// Assigns one more package, if that is possible.
    fn place(&mut self, package: usize) -> bool {
        let Some((mut driver, reached_from)) = self.room_for(vec![package]) else {
            return false;
        };
        self.loads[driver] += 1;
        while let Some(moved) = reached_from[driver] {
            self.movable[driver].push(moved);
            if moved == package {
                break;
            }
            let before = reached_from
                .iter()
                .enumerate()
                .position(|(other, _)| other != driver && self.movable[other].contains(&moved));
            let Some(before) = before else { break };
            self.movable[before].retain(|other| *other != moved);
            driver = before;
        }
        true
    }
}

/// A plan with the call that it answers.
struct Reading<'a> {
    model: &'a Model,
    call: &'a Call<'a>,
    plan: &'a Plan,
    pairs: Vec<(usize, usize)>,
    owners: Owners,
    left: BTreeSet<usize>,
}

impl<'a> Reading<'a> {
    fn of(model: &'a Model, call: &'a Call<'a>, plan: &'a Plan) -> Self {
        let (mut pairs, mut owners) = (Vec::new(), vec![None; model.packages()]);
        for (driver, packages) in &plan.assignments {
            let Some(driver) = model.driver(driver) else {
                continue;
            };
            for package in packages.iter().filter_map(|id| model.package(id)) {
                pairs.push((driver, package));
                owners[package] = Some(driver);
            }
        }
        let left = plan.unassigned_packages.iter();
        Self {
            model,
            call,
            plan,
            pairs,
            owners,
            left: left.filter_map(|id| model.package(id)).collect(),
        }
    }

    fn id(&self, package: usize) -> &str {
        self.model.package_id(package)
    }

    /// Every driver of the call is a key, and no other; those without a package are in the list of unassigned drivers.
    fn names_drivers(&self) -> Result<(), String> {
        let id = |driver: &usize| self.model.driver_id(*driver);
        let asked: BTreeSet<_> = self.call.drivers.iter().map(id).collect();
        let named: BTreeSet<_> = self.plan.assignments.keys().map(String::as_str).collect();
        if let Some(driver) = asked.symmetric_difference(&named).next() {
            let is = if asked.contains(driver) {
                "is missing"
            } else {
                "was not asked for"
            };
            return Err(format!("{driver} {is}"));
        }
        let empty = self.plan.assignments.iter();
        let empty = empty.filter(|(_, packages)| packages.is_empty());
        let mut reported: Vec<_> = self.plan.unassigned_drivers.iter().collect();
        reported.sort_unstable();
        if empty.map(|(driver, _)| driver).eq(reported) {
            return Ok(());
        }
        Err("unassigned_drivers are not those without a package".to_owned())
    }

    fn respects_the_cap(&self) -> Result<(), String> {
        let most = self.call.max_per_driver;
        let mut plan = self.plan.assignments.iter();
        match plan.find(|(_, packages)| packages.len() > most as usize) {
            Some((driver, packages)) => Err(format!("{driver} has {} of {most}", packages.len())),
            None => Ok(()),
        }
    }

    /// Neither twice in the plan, nor another's already; and known.
    fn assigns_once(&self) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        for (driver, packages) in &self.plan.assignments {
            for id in packages {
                let Some(package) = self.model.package(id) else {
                    return Err(format!("{driver} has {id}, which nobody knows"));
                };
                if !seen.insert(package) {
                    return Err(format!("{id} is given twice"));
                }
                if let Some(owner) = self.call.after[package]
                    && self.model.driver(driver) != Some(owner)
                {
                    let owner = self.model.driver_id(owner);
                    return Err(format!("{driver} has {id}, which is {owner}'s"));
                }
            }
        }
        Ok(())
    }

    fn respects_the_rules(&self) -> Result<(), String> {
        for (driver, package) in &self.pairs {
            if let Some(code) = self.model.broken(*driver, *package) {
                let (driver, package) = (self.model.driver_id(*driver), self.id(*package));
                return Err(format!("{driver} has {package} against {code}"));
            }
        }
        Ok(())
    }

    /// The packages left behind are those without a driver.
    fn leaves_the_rest(&self) -> Result<(), String> {
        if self.left.len() != self.plan.unassigned_packages.len() {
            let what = "unassigned_packages names one twice, or one that nobody knows";
            return Err(what.to_owned());
        }
        for package in &self.left {
            let id = self.id(*package);
            if self.owners[*package].is_some() {
                return Err(format!("{id} is assigned and left behind"));
            }
            if let Some(owner) = self.call.before[*package] {
                let owner = self.model.driver_id(owner);
                return Err(format!("{id} is left behind and {owner}'s"));
            }
        }
        Ok(())
    }

    /// The drivers of the call have at least the packages that they had when it was sent.
    fn grows(&self) -> Result<(), String> {
        for (package, owner) in self.call.before.iter().enumerate() {
            if let Some(driver) = owner
                && self.call.drivers.binary_search(driver).is_ok()
                && self.owners[package] != *owner
            {
                let driver = self.model.driver_id(*driver);
                return Err(format!("{driver} no longer has {}", self.id(package)));
            }
        }
        Ok(())
    }

    /// No package that was left behind could be carried after all.
    fn is_largest(&self) -> Result<(), String> {
        let call = self.call;
        let mut search = Search::new(self.model, call.drivers, call.max_per_driver);
        for (driver, package) in &self.pairs {
            search.loads[*driver] += 1;
            let settled = call.settled.as_ref();
            if settled.is_some_and(|settled| settled[*package].is_none()) {
                search.movable[*driver].push(*package);
            }
        }
        match search.room_for(self.left.iter().copied().collect()) {
            None => Ok(()),
            Some((driver, _)) => Err(format!(
                "{} left behind, and {} could have carried one more",
                self.left.len(),
                self.model.driver_id(driver)
            )),
        }
    }
}

#[cfg(test)]
mod tests;
