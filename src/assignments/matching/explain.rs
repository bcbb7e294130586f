//! Why packages stay behind, and which single relaxation would help most.

use std::collections::BTreeMap;

use super::cancellation::Cancelled;
use super::flow::index;
use super::{Catalogue, Network, Planned};
use crate::assignments::model::{DriverId, PackageId};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Each package without a driver; the most urgent first.
    pub packages: Vec<LeftBehind>,
    /// None if every package has a driver, or no single relaxation helps.
    pub relaxation: Option<Relaxation>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftBehind {
    pub package: PackageId,
    /// Drivers whose rules permit it: they have reached the maximum.
    pub able: usize,
    /// By rule code, the drivers whose rules refuse it; a driver with several refusing rules counts for each.
    pub refused: BTreeMap<&'static str, usize>,
}

/// One constraint less, and how many more packages would have a driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relaxation {
    pub what: Relaxed,
    pub gain: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Relaxed {
    /// `max_per_driver` is one more.
    MaxPerDriver { to: u32 },
    /// One driver without one rule.
    Rule {
        driver: DriverId,
        rule: Option<Box<str>>,
        code: &'static str,
    },
}

impl Planned {
    ///
    /// # Errors
    /// [`Cancelled`], if the plan's [`Cancellation`](super::Cancellation) says so.
    pub fn explain(&self, catalogue: &Catalogue) -> Result<Explanation, Cancelled> {
        let network = &self.network;
        let mut packages: Vec<(u32, LeftBehind)> = Vec::new();
        for lot in &network.lots {
            network.cancellation.check()?;
            if lot.chosen.len() == lot.packages.len() {
                continue;
            }
            let (able, refused) = network.refusals(catalogue, lot.package_class);
            let mut chosen = lot.chosen.iter().peekable();
            for &place in &lot.packages {
                if chosen.next_if_eq(&&place).is_none() {
                    let package = catalogue.package(place).id.clone();
                    packages.push((
                        place,
                        LeftBehind {
                            package,
                            able,
                            refused: refused.clone(),
                        },
                    ));
                }
            }
        }
        packages.sort_unstable_by_key(|&(place, _)| place);
        Ok(Explanation {
            packages: packages.into_iter().map(|(_, left)| left).collect(),
            relaxation: network.best_relaxation(catalogue)?,
        })
    }
}

/// A rule that could be dropped.
struct Candidate {
    /// Upper bound of the gain.
    bound: u64,
    driver_class: usize,
    rule: usize,
    /// The lots that the driver class would take, too.
    lots: Vec<u32>,
}

impl Network {
    /// The number of drivers who take this package class, and of those who refuse it, by rule code.
    fn refusals(
        &self,
        catalogue: &Catalogue,
        package_class: usize,
    ) -> (usize, BTreeMap<&'static str, usize>) {
        let (mut able, mut refused) = (0, BTreeMap::new());
        for driver_class in &self.driver_classes {
            let passes = catalogue.passes(package_class);
            let failed = driver_class.rules.iter().filter(|&&rule| !passes[rule]);
            let mut codes: Vec<_> = failed.map(|&rule| catalogue.rules()[rule].code()).collect();
            codes.sort_unstable();
            codes.dedup();
            if codes.is_empty() {
                able += driver_class.drivers.len();
            }
            for code in codes {
                *refused.entry(code).or_default() += driver_class.drivers.len();
            }
        }
        (able, refused)
    }

    fn best_relaxation(&self, catalogue: &Catalogue) -> Result<Option<Relaxation>, Cancelled> {
        let left: Vec<u32> = (0..self.lots.len())
            .filter(|&lot| self.flow.supply[lot] > 0)
            .map(index)
            .collect();
        if left.is_empty() {
            return Ok(None);
        }
        let mut best = self.one_more_each(&left)?;
        for candidate in self.candidates(catalogue, &left)? {
            let beaten = best
                .as_ref()
                .is_some_and(|best| best.gain >= candidate.bound);
            if candidate.bound == 0 || beaten {
                break;
            }
            let gain = self.without_rule(&candidate, &left)?;
            if gain > best.as_ref().map_or(0, |best| best.gain) {
                let what = self.named(catalogue, &candidate);
                best = Some(Relaxation { what, gain });
            }
        }
        Ok(best)
    }

    fn one_more_each(&self, left: &[u32]) -> Result<Option<Relaxation>, Cancelled> {
        let to = self.max_per_driver + 1;
        let mut flow = self.flow.clone();
        for (room, driver_class) in flow.room.iter_mut().zip(&self.driver_classes) {
            *room += driver_class.room(to) - driver_class.room(self.max_per_driver);
        }
        let gain = flow.saturate(left)?;
        let what = Relaxed::MaxPerDriver { to };
        Ok((gain > 0).then_some(Relaxation { what, gain }))
    }

    /// Rules without which more packages may be carried, by their upper bounds.
    ///
    /// The minimum cut finds them: a rule must separate a lot on the source side from a driver class on the sink side. A driver class on
    /// the source side is full, whatever else it could take.
    fn candidates(&self, catalogue: &Catalogue, left: &[u32]) -> Result<Vec<Candidate>, Cancelled> {
        let reached = self.flow.clone().reach(left)?;
        let all_left: u64 = self.flow.supply.iter().copied().map(u64::from).sum();
        let mut candidates = Vec::new();
        for (number, driver_class) in self.driver_classes.iter().enumerate() {
            self.cancellation.check()?;
            if reached.driver_classes[number] {
                continue;
            }
            let mut newly: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
            for &lot in &reached.lots {
                let passes = catalogue.passes(self.lots[lot as usize].package_class);
                let mut failed = driver_class.rules.iter().filter(|&&rule| !passes[rule]);
                if let (Some(&rule), None) = (failed.next(), failed.next()) {
                    newly.entry(rule).or_default().push(lot);
                }
            }
            for (rule, mut lots) in newly {
                lots.sort_unstable();
                let packages = |&lot: &u32| self.lots[lot as usize].packages.len() as u64;
                let offered = lots.iter().map(packages).sum();
                let bound = all_left
                    .min(offered)
                    .min(u64::from(self.room_of_one(number)));
                candidates.push(Candidate {
                    bound,
                    driver_class: number,
                    rule,
                    lots,
                });
            }
        }
        // Ties: the first by name.
        candidates.sort_by_key(|candidate| {
            let code = catalogue.rules()[candidate.rule].code();
            (
                std::cmp::Reverse(candidate.bound),
                candidate.driver_class,
                code,
            )
        });
        Ok(candidates)
    }

    /// The room of the class's least loaded driver.
    fn room_of_one(&self, driver_class: usize) -> u32 {
        let held = self.driver_classes[driver_class]
            .drivers
            .iter()
            .map(|driver| driver.held);
        self.max_per_driver
            .saturating_sub(held.min().unwrap_or_default())
    }

    /// How much more is carried if one driver of the class lacked this rule: the gain if the whole class lacked it, bounded by
    /// the room of one driver. The drivers of a class are interchangeable, and the gain by one edge of the network grows with
    /// its capacity, one by one, up to where another cut bounds it.
    fn without_rule(&self, candidate: &Candidate, left: &[u32]) -> Result<u64, Cancelled> {
        let mut flow = self.flow.clone();
        flow.let_take(candidate.driver_class, &candidate.lots);
        let gain = flow.saturate(left)?;
        Ok(gain.min(u64::from(self.room_of_one(candidate.driver_class))))
    }

    fn named(&self, catalogue: &Catalogue, candidate: &Candidate) -> Relaxed {
        let members = &self.driver_classes[candidate.driver_class].drivers;
        let least = members.iter().min_by_key(|driver| driver.held);
        let driver = least.expect("a driver class is not empty").id.clone();
        let rule = &catalogue.rules()[candidate.rule];
        let named = catalogue
            .drivers()
            .iter()
            .find(|listed| listed.id == driver);
        let mut named = named.into_iter().flat_map(|driver| &driver.rules);
        let named = named.find(|named| named.rule == *rule);
        Relaxed::Rule {
            driver,
            rule: named.and_then(|named| named.id.clone()),
            code: rule.code(),
        }
    }
}
