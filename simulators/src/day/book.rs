//! What the server has said about who has what, and what it is therefore held to.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::{Timestamp, civil::Date};

use crate::{
    assignments::{
        Item, Model, Plan, Status,
        model::{self, ASPECTS, Owners},
    },
    client::{Failure, Sent},
    tally::Tally,
};

pub(super) const DRY_RUN: &str = "nothing kept of a dry run";
pub(super) const ANSWERS: &str = "answers to updates";
pub(super) const REFUSALS: &str = "unknown ones refused";
pub(super) const BY_DRIVER: &str = "assignments by driver";
pub(super) const BY_STATUS: &str = "assignments by status";
pub(super) const BY_PACKAGE: &str = "assignments by package";
/// Plans that were answered, dry runs among them.
pub(super) const PLANS: &str = "plans";
/// Requests that were acknowledged.
pub(super) const ACKNOWLEDGED: &str = "acknowledged";
/// Calls whose client left before the answer.
pub(super) const LEFT: &str = "left";
/// Updates that were sent twice on purpose.
pub(super) const REPEATED: &str = "repeated";
/// From asking for a plan to its answer, and from sending an update to its acknowledgement.
pub(super) const ASSIGN: &str = "plan";
pub(super) const UPDATE: &str = "update";

/// A call of `POST /assign`. Moments are numbers of answers.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// Each once, ascending.
    pub(super) drivers: Arc<[usize]>,
    pub(super) max_per_driver: u32,
    pub(super) sent_at: u64,
    pub(super) dry_run: bool,
    /// Assignments known at this moment are settled: see [`model::Call::settled`].
    pub(super) settled_at: Option<u64>,
}

/// A package that is assigned to a driver.
#[derive(Debug, Clone)]
pub(super) struct Holding {
    pub(super) driver: usize,
    /// The moment since which it is known.
    known_at: u64,
    pub(super) status: Status,
    /// An update was given up that the server may have taken.
    pub(super) is_uncertain: bool,
    /// As the newest record had them.
    times: Option<Times>,
}

/// When a package was assigned, and when its status was last updated.
pub(super) type Times = (Timestamp, Timestamp);

/// Everything that is known of the day.
#[derive(Debug)]
pub(super) struct Book {
    pub(super) model: Arc<Model>,
    pub(super) date: Date,
    pub(super) tally: Tally,
    /// By package.
    holdings: Vec<Option<Holding>>,
    moment: u64,
    /// Packages that a plan for these drivers did not mention, so another driver must have them.
    unmentioned: Vec<(usize, Arc<[usize]>)>,
    /// A call of `POST /assign` was given up: the server may have assigned packages that the book does not know of.
    pub(super) may_have_assigned: bool,
    /// Why a list could not be followed to its end, by check.
    pub(super) broken_off: BTreeMap<&'static str, String>,
    /// Records of the lists, by check.
    pub(super) records: BTreeMap<&'static str, usize>,
}

impl Book {
    pub(super) fn new(model: Arc<Model>, date: Date) -> Self {
        Self {
            date,
            tally: Tally::default(),
            holdings: vec![None; model.packages()],
            model,
            moment: 0,
            unmentioned: Vec::new(),
            may_have_assigned: false,
            broken_off: BTreeMap::new(),
            records: BTreeMap::new(),
        }
    }

    /// The moment, for a call that is about to be sent.
    pub(super) fn now(&self) -> u64 {
        self.moment
    }

    /// Each package's driver, as far as known since this moment or longer.
    fn owners_at(&self, moment: u64) -> Owners {
        let holdings = self.holdings.iter().map(Option::as_ref);
        let known = holdings.map(|holding| holding.filter(|it| it.known_at <= moment));
        known.map(|holding| holding.map(|it| it.driver)).collect()
    }

    pub(super) fn owner(&self, package: usize) -> Option<usize> {
        self.holdings[package]
            .as_ref()
            .map(|holding| holding.driver)
    }

    /// Packages that are assigned, with their place in the list.
    pub(super) fn held(&self) -> impl Iterator<Item = (usize, &Holding)> {
        let holdings = self.holdings.iter().enumerate();
        holdings.filter_map(|(package, holding)| Some((package, holding.as_ref()?)))
    }

    /// Enters the outcome of a request that had to be acknowledged.
    fn enter<'a, T>(&mut self, what: impl FnOnce() -> String, sent: &'a Sent<T>) -> Option<&'a T> {
        let answer = sent.answer();
        if answer.is_some() {
            self.tally.count(ACKNOWLEDGED);
        } else {
            let what = || format!("{}: {}", what(), sent.why);
            self.tally.given_up(sent.may_be_taken(), what);
        }
        answer
    }

    /// Enters a request without a judgement; its answer, if there was one that could be read.
    pub(super) fn sent<'a, T>(
        &mut self,
        what: &str,
        sent: &'a Sent<Result<T, Failure>>,
    ) -> Option<&'a T> {
        let answer = self.enter(|| what.to_owned(), sent)?.as_ref().ok();
        if answer.is_none() {
            self.tally
                .given_up(false, || format!("{what}: unreadable answer"));
        }
        answer
    }

    /// A plan was asked for. `wait` is measured.
    pub(super) fn assigned(
        &mut self,
        call: &Call,
        sent: &Sent<Result<Plan, Failure>>,
        wait: Duration,
    ) {
        // A call that was not answered may have been taken, this try of it or an earlier one.
        self.may_have_assigned |= sent.acknowledged.is_none() && sent.may_be_taken();
        if let Some(plan) = self.sent("POST /assign", sent) {
            self.tally.record(ASSIGN, wait);
            self.judge(call, plan);
        }
    }

    /// Judges a plan, and enters it unless it was a dry run.
    fn judge(&mut self, call: &Call, plan: &Plan) {
        self.tally.count(PLANS);
        let asked = model::Call {
            drivers: &call.drivers,
            max_per_driver: call.max_per_driver,
            before: self.owners_at(call.sent_at),
            after: self.owners_at(u64::MAX),
            settled: call.settled_at.map(|moment| self.owners_at(moment)),
        };
        let judged = self.model.judge(&asked, plan);
        for (name, judgement) in ASPECTS.into_iter().zip(judged.aspects) {
            let holds = judgement.is_ok();
            let what = || judgement.err().unwrap_or_default();
            self.tally.expect(name, holds, what);
        }
        let unmentioned = judged.unmentioned.into_iter();
        self.unmentioned
            .extend(unmentioned.map(|package| (package, Arc::clone(&call.drivers))));
        self.moment += 1;
        if call.dry_run {
            return;
        }
        for (driver, package) in judged.pairs {
            self.holdings[package].get_or_insert(Holding {
                driver,
                known_at: self.moment,
                status: Status::Assigned,
                is_uncertain: false,
                times: None,
            });
        }
    }

    /// After the last plan: a package that a plan did not mention must be another driver's.
    pub(super) fn settle(&mut self) {
        for (package, drivers) in std::mem::take(&mut self.unmentioned) {
            let is_asked = |owner| drivers.binary_search(&owner).is_ok();
            if self.owner(package).is_none_or(is_asked) && !self.may_have_assigned {
                let id = self.model.package_id(package);
                let what = || format!("{id} is neither assigned nor left behind");
                self.tally.fault(ASPECTS[4], what);
            }
        }
    }

    /// The times of a package, as the newest record had them.
    pub(super) fn times(&self, package: usize) -> Option<Times> {
        self.holdings[package].as_ref()?.times
    }

    /// An update was sent; `before` are the times that were known then. `wait` is measured. Whether it was acknowledged.
    pub(super) fn updated(
        &mut self,
        package: usize,
        status: Status,
        sent: &Sent<Result<Item, Failure>>,
        before: Option<Times>,
        wait: Duration,
    ) -> bool {
        let what = format!("{} {}", self.model.package_id(package), status.name());
        let answered = self.enter(|| what.clone(), sent);
        let holding = self.holdings[package].as_mut();
        let Some(item) = answered else {
            if let Some(holding) = holding {
                holding.is_uncertain |= sent.may_be_taken();
            }
            return false;
        };
        if let Some(holding) = holding {
            holding.status = status;
        }
        self.tally.record(UPDATE, wait);
        let judgement = match item {
            Ok(item) => self.record(package, item, before),
            Err(failure) => Err(failure.to_string()),
        };
        self.tally.expect(ANSWERS, judgement.is_ok(), || {
            format!("{what}: {}", judgement.err().unwrap_or_default())
        });
        true
    }

    /// Compares a record of a package with what must be known of it, and enters its times. `before` are those that were known
    /// when it was asked for: answers to two concurrent requests may come in any order.
    pub(super) fn record(
        &mut self,
        package: usize,
        item: &Item,
        before: Option<Times>,
    ) -> Result<(), String> {
        let Some(holding) = &mut self.holdings[package] else {
            return Err(format!(
                "{} has it, and nobody was given it",
                item.driver_id
            ));
        };
        let (id, driver) = (
            self.model.package_id(package),
            self.model.driver_id(holding.driver),
        );
        let (date, other_date) = (self.date.to_string(), item.date.to_string());
        let (status, other_status) = (holding.status.name(), item.status.name());
        let is_same = other_status == status || holding.is_uncertain;
        let status = if is_same { other_status } else { status };
        for (field, reported, expected) in [
            ("package_id", &item.package_id[..], id),
            ("driver_id", &item.driver_id, driver),
            ("date", &other_date, &date),
            ("status", other_status, status),
        ] {
            if reported != expected {
                return Err(format!("{field} {reported}, must be {expected}"));
            }
        }
        if let Some(field) = item.difference(&self.model.manifest.packages[package]) {
            return Err(format!("{field} is not as in the manifest"));
        }
        let (assigned_at, updated_at) = (item.assigned_at, item.updated_at);
        let (assigned_before, updated_before) = before.unwrap_or((assigned_at, assigned_at));
        if assigned_at != assigned_before || updated_at < updated_before {
            return Err(format!(
                "assigned at {assigned_at} and updated at {updated_at}, before that at {assigned_before} and \
                 {updated_before}"
            ));
        }
        holding.times = holding.times.max(Some((assigned_at, updated_at)));
        Ok(())
    }

    /// A request about what the server does not know; the answer is whether it was refused with a problem.
    pub(super) fn refused(&mut self, what: &str, sent: &Sent<bool>) {
        self.tally
            .expect(REFUSALS, sent.answer() == Some(&true), || {
                let fault = match &sent.acknowledged {
                    Some((status, _)) => format!("{status} without a problem"),
                    None => sent.why.clone(),
                };
                format!("{what}: {fault}")
            });
    }

    /// How many packages ended with this status.
    pub(super) fn count(&self, status: Status) -> u64 {
        self.held()
            .map(|(_, holding)| u64::from(holding.status == status))
            .sum()
    }

    /// The packages that belong in a list, and those that may or may not (`None`).
    pub(super) fn expected(
        &self,
        belongs: impl Fn(usize, &Holding) -> Option<bool>,
    ) -> Expectation {
        let mut expectation = Expectation::default();
        for (package, holding) in self.held() {
            match belongs(package, holding) {
                Some(true) => drop(expectation.must.insert(package)),
                None => drop(expectation.may.insert(package)),
                Some(false) => {}
            }
        }
        expectation
    }
}

/// The packages that a list must have, and others that it may have.
#[derive(Debug, Default)]
pub(super) struct Expectation {
    pub(super) must: BTreeSet<usize>,
    pub(super) may: BTreeSet<usize>,
}
