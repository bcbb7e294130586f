//! Computes the best plan for a day. Pure.
//!
//! # What is best
//! 1. **As many** packages have a driver as any plan could reach.
//! 2. Of such plans, one whose load is **as even as possible**: no driver could pass a package, directly or through others, to one
//!    who has two less. Packages that are held already count.
//! 3. Of those, one that takes the **most urgent** packages: perishable ones first, then express ones, then those that are due
//!    earliest.
//!
//! The plan does not depend on the order of the lists.
//!
//! # Why 2 and 3 are independent
//! Which packages a plan carries, and how many each driver has, can be chosen separately: if one largest plan carries the packages A,
//! and another loads the drivers by B, then there is one that carries A and loads by B (Mendelsohn and Dulmage, 1958, with a driver
//! as many places as they have packages). So the packages are chosen first, then the load is balanced with those alone.
//!
//! # How
//! - **Package classes** (`catalogue`): equivalence classes of packages that pass the same rules. A day of a hundred thousand
//!   packages has some thousand classes; a class is a number in the flow.
//! - **Driver classes**: equivalence classes of drivers with the same rules.
//! - **Choosing**: packages enter the network (`flow`) by urgency; a package is chosen if it can be carried together with all that
//!   were chosen before. That this greedy choice is optimal is the matroid property of matchable sets (Edmonds and Fulkerson, 1965).
//! - **Balancing** (`even`): by flows with bounded loads, bisecting the bounds.
//! - **Explaining** ([`explain`]): why the rest stays behind, and which dropped rule would help most, by the minimum cut.
//! - **Cancelling** ([`Cancellation`]): every long loop reads a flag, and the plan ends without a result.

mod cancellation;
mod catalogue;
mod even;
pub mod explain;
mod flow;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use fixedbitset::FixedBitSet;

pub use cancellation::{CancelOnDrop, Cancellation, Cancelled};
pub use catalogue::Catalogue;
pub use explain::Explanation;

use self::flow::{Flow, index};
use super::model::{DriverId, Held, Package, PackageId, Plan, Urgency};

#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// All of them are in the catalogue.
    pub drivers: &'a BTreeSet<DriverId>,
    /// Including the packages that a driver holds already.
    pub max_per_driver: u32,
    /// Packages that have a driver already, requested or not.
    pub held: &'a [Held],
}

#[derive(Debug, Clone)]
pub struct Planned {
    pub plan: Plan,
    /// Newly assigned packages by driver; drivers without any are not in it.
    pub given: BTreeMap<DriverId, Vec<Package>>,
    network: Network,
}

/// Drivers with the same rules.
#[derive(Debug, Clone)]
struct DriverClass {
    /// Distinct rules of the catalogue, ascending.
    rules: Vec<usize>,
    /// By name.
    drivers: Vec<Member>,
}

#[derive(Debug, Clone)]
struct Member {
    id: DriverId,
    /// Packages held before the plan.
    held: u32,
}

impl DriverClass {
    /// The number of packages that they can take together so that none of them has more than `level`.
    fn room(&self, level: u32) -> u32 {
        let room = self
            .drivers
            .iter()
            .map(|driver| level.saturating_sub(driver.held));
        room.fold(0, u32::saturating_add)
    }
}

/// Packages of one class without a driver.
#[derive(Debug, Clone)]
struct Lot {
    package_class: usize,
    /// Indices into the catalogue's order of urgency, ascending.
    packages: Vec<u32>,
    /// Those that are carried.
    chosen: Vec<u32>,
}

/// The network of a request, with a maximum flow in it.
#[derive(Debug, Clone)]
struct Network {
    driver_classes: Vec<DriverClass>,
    lots: Vec<Lot>,
    takers: Arc<[FixedBitSet]>,
    /// The remaining supply are the packages without a driver.
    flow: Flow,
    max_per_driver: u32,
    cancellation: Cancellation,
}

///
/// # Errors
/// [`Cancelled`], if `cancellation` says so.
pub fn plan(
    catalogue: &Catalogue,
    request: &Request<'_>,
    cancellation: &Cancellation,
) -> Result<Planned, Cancelled> {
    cancellation.check()?;
    let mut network = Network::new(catalogue, request, cancellation)?;
    network.choose(catalogue)?;
    let given = network.share()?;
    let plan = summarized(catalogue, request, &given);
    cancellation.check()?;
    let given = given.into_iter().filter(|(_, places)| !places.is_empty());
    let packages = |places: Vec<u32>| {
        places
            .iter()
            .map(|&place| catalogue.package(place).clone())
            .collect()
    };
    let given = given
        .map(|(driver, places)| (driver, packages(places)))
        .collect();
    Ok(Planned {
        plan,
        given,
        network,
    })
}

impl Network {
    fn new(
        catalogue: &Catalogue,
        request: &Request<'_>,
        cancellation: &Cancellation,
    ) -> Result<Self, Cancelled> {
        let mut holds: HashMap<&DriverId, u32> = HashMap::new();
        let mut taken = FixedBitSet::with_capacity(catalogue.packages());
        for Held { driver, package } in request.held {
            *holds.entry(driver).or_default() += 1;
            if let Some(place) = catalogue.place(package) {
                taken.insert(place as usize);
            }
        }
        let mut driver_classes: BTreeMap<&[usize], Vec<Member>> = BTreeMap::new();
        for id in request.drivers {
            let held = holds.get(id).copied().unwrap_or_default();
            let member = Member {
                id: id.clone(),
                held,
            };
            driver_classes
                .entry(catalogue.rules_of(id))
                .or_default()
                .push(member);
        }
        let driver_class = |(rules, drivers): (&[usize], _)| DriverClass {
            rules: rules.to_vec(),
            drivers,
        };
        let mut driver_classes: Vec<DriverClass> =
            driver_classes.into_iter().map(driver_class).collect();
        // Rules are numbered in the manifest's order; names do not depend on it.
        driver_classes.sort_by(|one, other| one.drivers[0].id.cmp(&other.drivers[0].id));
        let lots: Vec<Lot> = catalogue
            .package_classes()
            .enumerate()
            .map(|(package_class, packages)| Lot {
                package_class,
                packages: packages
                    .iter()
                    .copied()
                    .filter(|&place| !taken[place as usize])
                    .collect(),
                chosen: Vec::new(),
            })
            .filter(|lot| !lot.packages.is_empty())
            .collect();
        let takers = takers(catalogue, &driver_classes, &lots, cancellation)?;
        let room = driver_classes
            .iter()
            .map(|driver_class| driver_class.room(request.max_per_driver))
            .collect();
        let flow = Flow::new(
            Arc::clone(&takers),
            vec![0; lots.len()],
            room,
            cancellation.clone(),
        );
        Ok(Self {
            driver_classes,
            lots,
            takers,
            flow,
            max_per_driver: request.max_per_driver,
            cancellation: cancellation.clone(),
        })
    }

    /// Chooses the packages that are carried: by urgency, each that can be carried with all that were chosen before.
    fn choose(&mut self, catalogue: &Catalogue) -> Result<(), Cancelled> {
        let mut by_urgency: Vec<Vec<(u32, u32)>> = vec![Vec::new(); Urgency::COUNT];
        for (lot, packages) in self.lots.iter().enumerate() {
            for &place in &packages.packages {
                let of_urgency = &mut by_urgency[catalogue.package(place).urgency().index()];
                match of_urgency.last_mut() {
                    Some((last, count)) if *last == index(lot) => *count += 1,
                    _ => of_urgency.push((index(lot), 1)),
                }
            }
        }
        let mut from = vec![0; self.lots.len()];
        let mut left = vec![0; self.lots.len()];
        for supplies in by_urgency {
            let lots: Vec<u32> = supplies.iter().map(|&(lot, _)| lot).collect();
            for &(lot, count) in &supplies {
                self.flow.supply[lot as usize] = count;
            }
            self.flow.saturate_and_close(&lots)?;
            for (lot, count) in supplies {
                let lot = lot as usize;
                let without = std::mem::take(&mut self.flow.supply[lot]);
                let Lot {
                    packages, chosen, ..
                } = &mut self.lots[lot];
                let these = &packages[from[lot]..][..count as usize];
                chosen.extend(&these[..(count - without) as usize]);
                from[lot] += count as usize;
                left[lot] += without;
            }
        }
        self.flow.supply = left;
        self.flow.reopen();
        Ok(())
    }

    /// Distributes the chosen packages: by driver, in the order of urgency.
    fn share(&self) -> Result<BTreeMap<DriverId, Vec<u32>>, Cancelled> {
        let supply = self.lots.iter().map(|lot| index(lot.chosen.len()));
        let supply: Vec<u32> = supply.collect();
        let room = |driver_class: usize, level| self.driver_classes[driver_class].room(level);
        let most = self.max_per_driver;
        let driver_classes = self.driver_classes.len();
        let flows = even::even(
            &self.takers,
            &supply,
            driver_classes,
            room,
            most,
            &self.cancellation,
        )?;
        let mut by_crew: Vec<Vec<u32>> = vec![Vec::new(); self.driver_classes.len()];
        for (lot, outflow) in self.lots.iter().zip(flows) {
            let mut chosen = lot.chosen.iter();
            for (driver_class, amount) in outflow {
                by_crew[driver_class as usize].extend(chosen.by_ref().take(amount as usize));
            }
        }
        let mut shares = BTreeMap::new();
        for (driver_class, mut places) in self.driver_classes.iter().zip(by_crew) {
            places.sort_unstable();
            deal(driver_class, &places, &mut shares);
        }
        Ok(shares)
    }
}

/// By lot, the driver classes that take it: all except those with a rule that its package class does not pass.
fn takers(
    catalogue: &Catalogue,
    driver_classes: &[DriverClass],
    lots: &[Lot],
    cancellation: &Cancellation,
) -> Result<Arc<[FixedBitSet]>, Cancelled> {
    let mut with_rule =
        vec![FixedBitSet::with_capacity(driver_classes.len()); catalogue.rules().len()];
    for (number, driver_class) in driver_classes.iter().enumerate() {
        for &rule in &driver_class.rules {
            with_rule[rule].insert(number);
        }
    }
    let takers = lots.iter().map(|lot| {
        cancellation.check()?;
        let mut takers = FixedBitSet::with_capacity(driver_classes.len());
        for rule in catalogue.passes(lot.package_class).zeroes() {
            takers.union_with(&with_rule[rule]);
        }
        takers.toggle_range(..);
        Ok(takers)
    });
    takers.collect()
}

/// Deals a class's packages to its drivers, the most urgent first, in turn, so that loads end as even as possible; drivers who
/// hold less get more, and ties are broken by name.
fn deal(driver_class: &DriverClass, places: &[u32], shares: &mut BTreeMap<DriverId, Vec<u32>>) {
    let all = index(places.len());
    // The highest level to which every driver can be filled.
    let (mut level, mut above) = (0, u32::MAX);
    while above - level > 1 {
        let middle = level + (above - level) / 2;
        if driver_class.room(middle) <= all {
            level = middle;
        } else {
            above = middle;
        }
    }
    let mut over = all - driver_class.room(level);
    let mut quotas: Vec<u32> = driver_class
        .drivers
        .iter()
        .map(|driver| {
            let one_more = u32::from(driver.held <= level && over > 0);
            over -= one_more;
            level.saturating_sub(driver.held) + one_more
        })
        .collect();
    let mut hands: Vec<Vec<u32>> = vec![Vec::new(); driver_class.drivers.len()];
    let mut places = places.iter();
    while quotas.iter().any(|&quota| quota > 0) {
        for (quota, hand) in quotas.iter_mut().zip(&mut hands) {
            if *quota > 0 {
                *quota -= 1;
                hand.extend(places.next());
            }
        }
    }
    for (driver, hand) in driver_class.drivers.iter().zip(hands) {
        shares.insert(driver.id.clone(), hand);
    }
}

fn summarized(
    catalogue: &Catalogue,
    request: &Request<'_>,
    given: &BTreeMap<DriverId, Vec<u32>>,
) -> Plan {
    let mut without = FixedBitSet::with_capacity(catalogue.packages());
    without.toggle_range(..);
    let mut hands: BTreeMap<&DriverId, (Vec<u32>, Vec<&PackageId>)> = request
        .drivers
        .iter()
        .map(|driver| (driver, Default::default()))
        .collect();
    for Held { driver, package } in request.held {
        let place = catalogue.place(package);
        if let Some(place) = place {
            without.remove(place as usize);
        }
        if let Some((places, elsewhere)) = hands.get_mut(driver) {
            match place {
                Some(place) => places.push(place),
                // The manifest was replaced since; the assignment stays.
                None => elsewhere.push(package),
            }
        }
    }
    for (driver, new) in given {
        if let Some((places, _)) = hands.get_mut(driver) {
            places.extend(new);
        }
        for &place in new {
            without.remove(place as usize);
        }
    }
    let assignments = hands
        .into_iter()
        .map(|(driver, (mut places, mut elsewhere))| {
            places.sort_unstable();
            elsewhere.sort_unstable();
            let known = places.into_iter().map(|place| &catalogue.package(place).id);
            (driver.clone(), known.chain(elsewhere).cloned().collect())
        });
    Plan {
        assignments: assignments.collect(),
        unassigned: without
            .ones()
            .map(|place| catalogue.package(index(place)).id.clone())
            .collect(),
    }
}

#[cfg(test)]
mod tests;
