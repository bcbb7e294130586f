//! What the server has said about who has what, and what it is therefore held to.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::{Timestamp, civil::Date};

use super::{plan, roster::Roster};
use crate::{
    assignments::{Item, Plan, Refusal, Status},
    audit::Faults,
    resend::{Sent, Tries},
    visits::Recorder,
};

/// What must hold of every plan, in the order of [`plan::judge`].
pub(crate) const ASPECTS: [&str; 7] = [
    "plans name every driver",
    "nobody above the cap",
    "packages at most once",
    "rules of the drivers",
    "left behind exactly the rest",
    "plans only grow",
    "as many as possible",
];

/// A call of `POST /assign`.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// Who was asked for, each once, ascending.
    pub(crate) drivers: Arc<[usize]>,
    pub(crate) max_per_driver: u32,
    /// The moment, as the book counts, at which it was sent.
    pub(crate) sent_at: u64,
    pub(crate) dry_run: bool,
    /// Assignments known at this moment are settled; the rest of the plan must be the best possible. None when concurrent
    /// calls ask for other drivers, so that the whole plan counts as settled.
    pub(crate) settled_at: Option<u64>,
}

impl Call {
    pub(crate) fn asks_for(&self, driver: usize) -> bool {
        self.drivers.binary_search(&driver).is_ok()
    }
}

/// A package that is assigned to a driver.
#[derive(Debug, Clone)]
pub(crate) struct Holding {
    pub(crate) driver: usize,
    /// The moment, as the book counts, since which it is known.
    pub(crate) known_at: u64,
    pub(crate) status: Status,
    /// An update was given up that the server may have taken.
    pub(crate) is_uncertain: bool,
    /// As the newest record had them.
    times: Option<Times>,
}

/// When a package was assigned, and when its status was last said.
pub(crate) type Times = (Timestamp, Timestamp);

/// A package that a plan did not mention, so another driver must have it.
#[derive(Debug)]
struct Unmentioned {
    package: usize,
    drivers: Arc<[usize]>,
}

/// Everything that is known of the day.
#[derive(Debug)]
pub(crate) struct Book {
    pub(crate) roster: Arc<Roster>,
    pub(crate) date: Date,
    /// By package.
    pub(crate) holdings: Vec<Option<Holding>>,
    /// Grows with every answer.
    moment: u64,
    pub(crate) aspects: [Faults; 7],
    unmentioned: Vec<Unmentioned>,
    /// Plans that were answered, dry runs among them.
    pub(crate) plans: u64,
    /// Requests that were acknowledged.
    pub(crate) acknowledged: u64,
    pub(crate) given_up: Faults,
    /// Of these, those that the server may have taken.
    pub(crate) fate_unknown: u64,
    /// Whether a call of `POST /assign` is among them: the server may have assigned packages that the book does not know of.
    pub(crate) may_have_assigned: bool,
    /// Calls whose client left before the answer.
    pub(crate) left: u64,
    pub(crate) updates: u64,
    pub(crate) misanswered: Faults,
    /// Updates that were sent twice on purpose.
    pub(crate) repeated: u64,
    /// Requests about things that the server does not know, and those of them that were not refused as they should.
    pub(crate) strange: u64,
    pub(crate) not_refused: Faults,
    pub(crate) assign_waits: Recorder,
    pub(crate) update_waits: Recorder,
    pub(crate) tries: Tries,
}

impl Book {
    pub(crate) fn new(roster: Arc<Roster>, date: Date) -> Self {
        Self {
            date,
            holdings: vec![None; roster.packages()],
            roster,
            moment: 0,
            aspects: Default::default(),
            unmentioned: Vec::new(),
            plans: 0,
            acknowledged: 0,
            given_up: Faults::default(),
            fate_unknown: 0,
            may_have_assigned: false,
            left: 0,
            updates: 0,
            misanswered: Faults::default(),
            repeated: 0,
            strange: 0,
            not_refused: Faults::default(),
            assign_waits: Recorder::default(),
            update_waits: Recorder::default(),
            tries: Tries::default(),
        }
    }

    /// The moment, for a call that is about to be sent.
    pub(crate) fn now(&self) -> u64 {
        self.moment
    }

    /// Who is known to have the package since this moment or longer.
    pub(crate) fn owner_at(&self, package: usize, moment: u64) -> Option<usize> {
        let holding = self.holdings[package].as_ref()?;
        (holding.known_at <= moment).then_some(holding.driver)
    }

    /// Packages that are assigned, with their place in the list.
    pub(crate) fn held(&self) -> impl Iterator<Item = (usize, &Holding)> {
        let holdings = self.holdings.iter().enumerate();
        holdings.filter_map(|(package, holding)| Some((package, holding.as_ref()?)))
    }

    /// Takes down what came of a request that had to be acknowledged.
    fn came<'a, T>(&mut self, what: impl FnOnce() -> String, sent: &'a Sent<T>) -> Option<&'a T> {
        if let Some((_, answer)) = &sent.acknowledged {
            self.acknowledged += 1;
            return Some(answer);
        }
        let why = &sent.why;
        self.given_up.note(|| format!("{}: {why}", what()));
        self.fate_unknown += u64::from(sent.may_be_taken());
        None
    }

    /// Takes down a request without a judgement; its answer, if there was one that could be read.
    pub(crate) fn sent<'a, T>(&mut self, what: &str, sent: &'a Sent<Option<T>>) -> Option<&'a T> {
        let answer = self.came(|| what.to_owned(), sent)?.as_ref();
        if answer.is_none() {
            self.given_up.note(|| format!("{what}: unreadable answer"));
        }
        answer
    }

    /// A plan was asked for. `wait` is measured.
    pub(crate) fn assigned(&mut self, call: &Call, sent: &Sent<Option<Plan>>, wait: Duration) {
        // A call that was not answered may have been taken, this try of it or an earlier one.
        self.may_have_assigned |= sent.acknowledged.is_none() && sent.may_be_taken();
        if let Some(plan) = self.sent("POST /assign", sent) {
            self.assign_waits.record(wait);
            self.judge(call, plan);
        }
    }

    /// Judges a plan, and enters it unless it was a dry run.
    pub(crate) fn judge(&mut self, call: &Call, plan: &Plan) {
        self.plans += 1;
        let judged = plan::judge(self, call, plan);
        for (faults, judgement) in self.aspects.iter_mut().zip(judged.aspects) {
            if let Err(what) = judgement {
                faults.note(|| what);
            }
        }
        let unmentioned = judged.unmentioned.into_iter();
        self.unmentioned.extend(unmentioned.map(|package| {
            let drivers = Arc::clone(&call.drivers);
            Unmentioned { package, drivers }
        }));
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
    pub(crate) fn settle(&mut self) {
        for Unmentioned { package, drivers } in std::mem::take(&mut self.unmentioned) {
            let owner = self.owner_at(package, u64::MAX);
            let elsewhere = owner.is_some_and(|owner| drivers.binary_search(&owner).is_err());
            if !elsewhere && !self.may_have_assigned {
                let id = self.roster.package_id(package);
                let what = || format!("{id} is neither assigned nor left behind");
                self.aspects[4].note(what);
            }
        }
    }

    /// The times of a package, as the newest record had them.
    pub(crate) fn times(&self, package: usize) -> Option<Times> {
        self.holdings[package].as_ref()?.times
    }

    /// An update was sent; `before` are the times that were known then. `wait` is measured. Whether it was acknowledged.
    pub(crate) fn updated(
        &mut self,
        package: usize,
        status: Status,
        sent: &Sent<Option<Item>>,
        before: Option<Times>,
        wait: Duration,
    ) -> bool {
        let id = self.roster.package_id(package).to_owned();
        let answered = self.came(|| format!("{id} {}", status.name()), sent);
        let Some(item) = answered else {
            if let Some(holding) = &mut self.holdings[package] {
                holding.is_uncertain |= sent.may_be_taken();
            }
            return false;
        };
        self.updates += 1;
        self.update_waits.record(wait);
        if let Some(holding) = &mut self.holdings[package] {
            holding.status = status;
        }
        let judgement = match item {
            Some(item) => self.record(package, item, before),
            None => Err("unreadable answer".to_owned()),
        };
        if let Err(what) = judgement {
            self.misanswered
                .note(|| format!("{id} {}: {what}", status.name()));
        }
        true
    }

    /// Compares a record of a package with what must be known of it, and takes its times down. `before` are those that
    /// were known when it was asked for: answers to two who ask at once may come in any order.
    pub(crate) fn record(
        &mut self,
        package: usize,
        item: &Item,
        before: Option<Times>,
    ) -> Result<(), String> {
        let roster = &self.roster;
        let Some(holding) = &mut self.holdings[package] else {
            return Err(format!(
                "{} has it, and nobody was given it",
                item.driver_id
            ));
        };
        let wrong = |field: &str, reported: &str, is: &str| {
            Err(format!("{field} {reported}, must be {is}"))
        };
        if item.package_id != roster.package_id(package) {
            return wrong("package_id", &item.package_id, roster.package_id(package));
        }
        let driver = roster.driver_id(holding.driver);
        if item.driver_id != driver {
            return wrong("driver_id", &item.driver_id, driver);
        }
        if item.date != self.date {
            return wrong("date", &item.date.to_string(), &self.date.to_string());
        }
        if item.status != holding.status && !holding.is_uncertain {
            return wrong("status", item.status.name(), holding.status.name());
        }
        if let Some(field) = item.difference(&roster.manifest.packages[package]) {
            return Err(format!("{field} is not as in the manifest"));
        }
        let (assigned_at, updated_at) = (item.assigned_at, item.updated_at);
        if updated_at < assigned_at {
            return Err(format!(
                "updated at {updated_at}, assigned at {assigned_at}"
            ));
        }
        if let Some((assigned_before, updated_before)) = before
            && (assigned_before != assigned_at || updated_at < updated_before)
        {
            return Err(format!(
                "assigned at {assigned_at} and updated at {updated_at}, before that at {assigned_before} and \
                 {updated_before}"
            ));
        }
        holding.times = holding.times.max(Some((assigned_at, updated_at)));
        Ok(())
    }

    /// Something was said about what the server does not know.
    pub(crate) fn refused(&mut self, what: &str, sent: &Sent<Refusal>) {
        self.strange += 1;
        let fault = match &sent.acknowledged {
            Some((_, refusal)) if refusal.is_problem => return,
            Some((status, _)) => format!("{status} without a problem"),
            None => sent.why.clone(),
        };
        self.not_refused.note(|| format!("{what}: {fault}"));
    }

    /// How many packages ended with this status.
    pub(crate) fn count(&self, status: Status) -> u64 {
        let such = self.held().filter(|(_, holding)| holding.status == status);
        u64::try_from(such.count()).unwrap_or(u64::MAX)
    }

    /// Packages that must be listed for a driver, or with a status, and those that may be.
    pub(crate) fn expected(&self, fits: impl Fn(&Holding) -> Fits) -> Expectation {
        let mut expectation = Expectation::default();
        for (package, holding) in self.held() {
            match fits(holding) {
                Fits::Yes => drop(expectation.must.insert(package)),
                Fits::Perhaps => drop(expectation.may.insert(package)),
                Fits::No => {}
            }
        }
        expectation
    }
}

/// Whether a package belongs in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fits {
    Yes,
    No,
    /// The book does not say.
    Perhaps,
}

/// The packages that a list must have, and others that it may have.
#[derive(Debug, Default)]
pub(crate) struct Expectation {
    pub(crate) must: BTreeSet<usize>,
    pub(crate) may: BTreeSet<usize>,
}

#[cfg(test)]
mod tests;
