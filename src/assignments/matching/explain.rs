//! Why packages stay behind, and what would help most.

use std::collections::BTreeMap;

use super::cancellation::Cancelled;
use super::flow::index;
use super::{Catalogue, Network, Planned};
use crate::assignments::model::{DriverId, PackageId};

/// Why packages stay behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Each package without a driver; what presses most first.
    pub packages: Vec<LeftBehind>,
    /// Which single relaxation would help most; none if everything is carried, or no single one helps.
    pub relaxation: Option<Relaxation>,
}

/// Why a package stays behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftBehind {
    /// Which.
    pub package: PackageId,
    /// How many of the drivers no rule keeps from it: they have as many as they may.
    pub able: usize,
    /// How many of the drivers are kept from taking it by a rule of this code; one by several counts for each.
    pub refused: BTreeMap<&'static str, usize>,
}

/// One thing less to respect, and how many more packages would be carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relaxation {
    /// What.
    pub what: Relaxed,
    /// How many more.
    pub gain: u64,
}

/// What is no longer respected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Relaxed {
    /// Everybody may have one package more.
    MaxPerDriver {
        /// As many as this.
        to: u32,
    },
    /// One driver has one rule less.
    Rule {
        /// Whose.
        driver: DriverId,
        /// Its name, if it has one.
        rule: Option<Box<str>>,
        /// Its code.
        code: &'static str,
    },
}

impl Planned {
    /// Why packages stay behind.
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
            let (able, refused) = network.refusals(catalogue, lot.kind);
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
    /// More than this it cannot bring.
    bound: u64,
    crew: usize,
    rule: usize,
    /// What the crew would take, too.
    lots: Vec<u32>,
}

impl Network {
    /// How many drivers take this kind, and how many do not by which rules.
    fn refusals(
        &self,
        catalogue: &Catalogue,
        kind: usize,
    ) -> (usize, BTreeMap<&'static str, usize>) {
        let (mut able, mut refused) = (0, BTreeMap::new());
        for crew in &self.crews {
            let passes = catalogue.passes(kind);
            let failed = crew.rules.iter().filter(|&&rule| !passes[rule]);
            let mut codes: Vec<_> = failed.map(|&rule| catalogue.rules()[rule].code()).collect();
            codes.sort_unstable();
            codes.dedup();
            if codes.is_empty() {
                able += crew.drivers.len();
            }
            for code in codes {
                *refused.entry(code).or_default() += crew.drivers.len();
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
        for (room, crew) in flow.room.iter_mut().zip(&self.crews) {
            *room += crew.room(to) - crew.room(self.max_per_driver);
        }
        let gain = flow.saturate(left)?;
        let what = Relaxed::MaxPerDriver { to };
        Ok((gain > 0).then_some(Relaxation { what, gain }))
    }

    /// Rules whose absence may help, by how much it may at most.
    ///
    /// The minimum cut tells which: a rule must stand between a lot on the side of what is left behind and a crew on the other
    /// side. A crew on this side is full, whatever else it could take.
    fn candidates(&self, catalogue: &Catalogue, left: &[u32]) -> Result<Vec<Candidate>, Cancelled> {
        let reached = self.flow.clone().reach(left)?;
        let all_left: u64 = self.flow.supply.iter().copied().map(u64::from).sum();
        let mut candidates = Vec::new();
        for (number, crew) in self.crews.iter().enumerate() {
            self.cancellation.check()?;
            if reached.crews[number] {
                continue;
            }
            let mut newly: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
            for &lot in &reached.lots {
                let passes = catalogue.passes(self.lots[lot as usize].kind);
                let mut failed = crew.rules.iter().filter(|&&rule| !passes[rule]);
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
                    crew: number,
                    rule,
                    lots,
                });
            }
        }
        // Of those that bring as much the first by name.
        candidates.sort_by_key(|candidate| {
            let code = catalogue.rules()[candidate.rule].code();
            (std::cmp::Reverse(candidate.bound), candidate.crew, code)
        });
        Ok(candidates)
    }

    /// What the driver of a crew who holds least can take.
    fn room_of_one(&self, crew: usize) -> u32 {
        let held = self.crews[crew].drivers.iter().map(|driver| driver.held);
        self.max_per_driver
            .saturating_sub(held.min().unwrap_or_default())
    }

    /// How much more is carried if one driver of the crew had this rule less. What the whole crew would gain by it, bounded by
    /// what one of them can take: the drivers of a crew stand in for one another, and the gain by one edge of the network grows
    /// with its capacity, one by one, up to where another cut bounds it.
    fn without_rule(&self, candidate: &Candidate, left: &[u32]) -> Result<u64, Cancelled> {
        let mut flow = self.flow.clone();
        flow.let_take(candidate.crew, &candidate.lots);
        let gain = flow.saturate(left)?;
        Ok(gain.min(u64::from(self.room_of_one(candidate.crew))))
    }

    fn named(&self, catalogue: &Catalogue, candidate: &Candidate) -> Relaxed {
        let members = &self.crews[candidate.crew].drivers;
        let least = members.iter().min_by_key(|driver| driver.held);
        let driver = least.expect("a crew has somebody").id.clone();
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
