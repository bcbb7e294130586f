//! Judges a plan: from the lists, from what was asked for, and from what was known before.

use std::collections::BTreeSet;

use super::book::{ASPECTS, Book, Call};
use crate::assignments::Plan;

/// What a plan says, and what is wrong with it.
#[derive(Debug)]
pub(crate) struct Judged {
    /// Driver and package; those that are known by their ids.
    pub(crate) pairs: Vec<(usize, usize)>,
    /// Packages that it does not mention, and that may be another driver's.
    pub(crate) unmentioned: Vec<usize>,
    /// One judgement for each of [`ASPECTS`].
    pub(crate) aspects: [Result<(), String>; ASPECTS.len()],
}

/// A plan, read.
struct Reading<'a> {
    book: &'a Book,
    call: &'a Call,
    plan: &'a Plan,
    pairs: Vec<(usize, usize)>,
    /// By package.
    owners: Vec<Option<usize>>,
    /// How many packages each driver has, by driver.
    loads: Vec<u32>,
    left: BTreeSet<usize>,
}

/// Judges a plan.
pub(crate) fn judge(book: &Book, call: &Call, plan: &Plan) -> Judged {
    let reading = Reading::of(book, call, plan);
    let (unmentioned, rest) = reading.rest();
    let aspects = [
        reading.names_drivers(),
        reading.keeps_the_cap(),
        reading.gives_once(),
        reading.keeps_the_rules(),
        rest,
        reading.grows(),
        reading.is_best(),
    ];
    Judged {
        pairs: reading.pairs,
        unmentioned,
        aspects,
    }
}

impl<'a> Reading<'a> {
    fn of(book: &'a Book, call: &'a Call, plan: &'a Plan) -> Self {
        let roster = &book.roster;
        let mut pairs = Vec::new();
        let mut owners = vec![None; roster.packages()];
        let mut loads = vec![0; roster.drivers()];
        for (driver, packages) in &plan.assignments {
            let Some(driver) = roster.driver(driver) else {
                continue;
            };
            for package in packages.iter().filter_map(|id| roster.package(id)) {
                pairs.push((driver, package));
                owners[package] = Some(driver);
                loads[driver] += 1;
            }
        }
        let left = plan.unassigned_packages.iter();
        Self {
            book,
            call,
            plan,
            pairs,
            owners,
            loads,
            left: left.filter_map(|id| roster.package(id)).collect(),
        }
    }

    /// Every driver of the call is a key, and no other; those without a package are also in the list of unassigned drivers.
    fn names_drivers(&self) -> Result<(), String> {
        let id = |driver: &usize| self.book.roster.driver_id(*driver);
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
        if !empty.map(|(driver, _)| driver).eq(reported) {
            return Err("unassigned_drivers are not those without a package".to_owned());
        }
        Ok(())
    }

    fn keeps_the_cap(&self) -> Result<(), String> {
        let most = self.call.max_per_driver;
        let mut plan = self.plan.assignments.iter();
        let above =
            plan.find(|(_, packages)| u32::try_from(packages.len()).is_ok_and(|n| n > most));
        match above {
            Some((driver, packages)) => Err(format!("{driver} has {} of {most}", packages.len())),
            None => Ok(()),
        }
    }

    /// Neither twice in the plan, nor another's already; and known.
    fn gives_once(&self) -> Result<(), String> {
        let roster = &self.book.roster;
        let mut seen = BTreeSet::new();
        for (driver, packages) in &self.plan.assignments {
            for id in packages {
                let Some(package) = roster.package(id) else {
                    return Err(format!("{driver} has {id}, which nobody knows"));
                };
                if !seen.insert(package) {
                    return Err(format!("{id} is given twice"));
                }
                if let Some(owner) = self.book.owner_at(package, u64::MAX)
                    && roster.driver(driver) != Some(owner)
                {
                    let owner = roster.driver_id(owner);
                    return Err(format!("{driver} has {id}, which is {owner}'s"));
                }
            }
        }
        Ok(())
    }

    fn keeps_the_rules(&self) -> Result<(), String> {
        let roster = &self.book.roster;
        for (driver, package) in &self.pairs {
            if let Some(code) = roster.broken(*driver, *package) {
                let (driver, package) = (roster.driver_id(*driver), roster.package_id(*package));
                return Err(format!("{driver} has {package} against {code}"));
            }
        }
        Ok(())
    }

    /// The packages left behind are those without a driver. Packages that the plan does not mention are judged later.
    fn rest(&self) -> (Vec<usize>, Result<(), String>) {
        let roster = &self.book.roster;
        let everything = 0..roster.packages();
        let unmentioned = everything
            .filter(|package| self.owners[*package].is_none() && !self.left.contains(package))
            .collect();
        let reported = &self.plan.unassigned_packages;
        if self.left.len() != reported.len() {
            let what = "unassigned_packages names one twice, or one that nobody knows";
            return (unmentioned, Err(what.to_owned()));
        }
        for package in &self.left {
            let id = || roster.package_id(*package);
            if self.owners[*package].is_some() {
                return (
                    unmentioned,
                    Err(format!("{} is assigned and left behind", id())),
                );
            }
            if let Some(owner) = self.book.owner_at(*package, self.call.sent_at) {
                let owner = roster.driver_id(owner);
                return (
                    unmentioned,
                    Err(format!("{} is left behind and {owner}'s", id())),
                );
            }
        }
        (unmentioned, Ok(()))
    }

    /// Drivers keep the packages that they had when the call was sent.
    fn grows(&self) -> Result<(), String> {
        for (package, holding) in self.book.held() {
            let is_due =
                holding.known_at <= self.call.sent_at && self.call.asks_for(holding.driver);
            if is_due && self.owners[package] != Some(holding.driver) {
                let roster = &self.book.roster;
                let (driver, package) =
                    (roster.driver_id(holding.driver), roster.package_id(package));
                return Err(format!("{driver} no longer has {package}"));
            }
        }
        Ok(())
    }

    /// No package that was left behind could be carried after all, by moving packages that were not settled before from
    /// driver to driver. By Berge's theorem the plan is then the largest.
    fn is_best(&self) -> Result<(), String> {
        let roster = &self.book.roster;
        let mut by_driver = vec![Vec::new(); roster.drivers()];
        let settled = |package| match self.call.settled_at {
            Some(moment) => self.book.owner_at(package, moment).is_some(),
            None => true,
        };
        for (driver, package) in &self.pairs {
            if !settled(*package) {
                by_driver[*driver].push(*package);
            }
        }
        let mut unseen = self.call.drivers.to_vec();
        let mut waiting: Vec<_> = self.left.iter().copied().collect();
        while let Some(package) = waiting.pop() {
            let (seen, others) = unseen
                .into_iter()
                .partition(|driver| roster.may_carry(*driver, package));
            unseen = others;
            let seen: Vec<usize> = seen;
            for driver in seen {
                if self.loads[driver] < self.call.max_per_driver {
                    let id = roster.driver_id(driver);
                    return Err(format!(
                        "{} left behind, and {id} could have carried one more",
                        self.left.len()
                    ));
                }
                waiting.append(&mut by_driver[driver]);
            }
        }
        Ok(())
    }
}
