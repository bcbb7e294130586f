//! The events sent and their outcomes, and what the shop must therefore report.

use std::{collections::BTreeMap, time::Duration};

use super::{
    model::{Courier, Event, Kind, Outcome},
    plan::Request,
};
use crate::{
    client::{Failure, Sent},
    tally::Tally,
};

pub(super) const OUTCOMES: &str = "outcomes fit their events";
pub(super) const ONE_COURIER: &str = "answers name one courier";
/// From sending a request to its acknowledgement.
pub(super) const LATENCY: &str = "request";

/// An order that was sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct OfOrder {
    /// At least once.
    pub(super) acknowledged: bool,
    /// Answers that took it for a new one.
    firsts: u64,
    /// An event of the order has an unknown outcome: an answer that took it for a new one may have been lost.
    uncertain: bool,
    /// Whom the answers named.
    pub(super) courier: Option<String>,
}

/// A courier's last event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OfCourier {
    pub(super) latest: Courier,
    /// False when the outcome of that event is unknown.
    pub(super) is_certain: bool,
}

/// The books of a run.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) orders: BTreeMap<String, OfOrder>,
    pub(super) couriers: BTreeMap<String, OfCourier>,
    /// How often each event was acknowledged, by its JSON.
    pub(super) events: BTreeMap<String, u64>,
    /// Acknowledged events, including redelivered ones.
    pub(super) acknowledged: u64,
    /// Acknowledged requests.
    pub(super) requests: u64,
    /// By outcome, as far as outcomes were answered.
    pub(super) outcomes: BTreeMap<Kind, u64>,
    pub(super) tally: Tally,
}

impl Ledger {
    /// Enters what became of a request.
    pub(super) fn record(
        &mut self,
        request: &Request,
        sent: &Sent<Result<Vec<Outcome>, Failure>>,
        took: Duration,
    ) {
        let Some(outcomes) = sent.answer() else {
            return self.gave_up(request, &sent.why, sent.may_be_taken());
        };
        self.acknowledge(request, sent.may_be_taken(), took);
        let outcomes = outcomes.as_deref().unwrap_or_default();
        if outcomes.len() != request.events.len() {
            let (events, answers) = (request.events.len(), outcomes.len());
            let what = || format!("{events} events, {answers} outcomes");
            self.tally.fault(OUTCOMES, what);
        }
        for (event, outcome) in request.events.iter().zip(outcomes) {
            *self.outcomes.entry(outcome.kind).or_default() += 1;
            self.answered(event, outcome);
        }
    }

    /// Enters an acknowledged request; `uncertain`: the outcomes of its events are not all known.
    pub(super) fn acknowledge(&mut self, request: &Request, uncertain: bool, took: Duration) {
        self.tally.record(LATENCY, took);
        self.requests += 1;
        for event in &request.events {
            self.acknowledged += 1;
            *self.events.entry(event.json()).or_default() += 1;
            match event {
                Event::Order(order) => {
                    let order = self.orders.entry(order.id.clone()).or_default();
                    order.acknowledged = true;
                    order.uncertain |= uncertain;
                }
                Event::Courier(courier) => self.set_latest(courier, true),
            }
        }
    }

    /// Enters a request that was not acknowledged; `may_be_taken`: the shop may have taken it.
    pub(super) fn gave_up(&mut self, request: &Request, why: &str, may_be_taken: bool) {
        self.tally.given_up(may_be_taken, || why.to_owned());
        for event in request.events.iter().filter(|_| may_be_taken) {
            match event {
                Event::Order(order) => {
                    self.orders.entry(order.id.clone()).or_default().uncertain = true;
                }
                Event::Courier(courier) => self.set_latest(courier, false),
            }
        }
    }

    fn set_latest(&mut self, courier: &Courier, is_certain: bool) {
        let entry = OfCourier {
            latest: courier.clone(),
            is_certain,
        };
        self.couriers.insert(courier.id.clone(), entry);
    }

    fn answered(&mut self, event: &Event, outcome: &Outcome) {
        let Outcome {
            kind,
            courier_id,
            unparked,
        } = outcome;
        let fits = match (event, kind) {
            (Event::Courier(_), Kind::Updated) => courier_id.is_none() && unparked.is_some(),
            (Event::Order(_), Kind::Assigned) => courier_id.is_some(),
            (Event::Order(_), Kind::Parked) => courier_id.is_none(),
            (Event::Order(_), Kind::Duplicate) => true,
            _ => false,
        };
        let what = || format!("{} came to {kind:?}", event.json());
        self.tally.expect(OUTCOMES, fits, what);
        let (Event::Order(order), true) = (event, fits) else {
            return;
        };
        let known = self.orders.entry(order.id.clone()).or_default();
        known.firsts += u64::from(*kind != Kind::Duplicate);
        match (&known.courier, courier_id) {
            (Some(first), Some(other)) if first != other => {
                let what = format!("{} is {first}'s, then {other}'s", order.id);
                self.tally.fault(ONE_COURIER, || what);
            }
            (None, Some(_)) => known.courier.clone_from(courier_id),
            _ => {}
        }
    }

    /// Enters, after the last event, which orders were new more than once, or never. Not for a topic, which answers no
    /// outcomes.
    pub(super) fn close(&mut self) {
        for (id, order) in &self.orders {
            let firsts = order.firsts;
            let is_lost = firsts == 0 && order.uncertain;
            if firsts != 1 && order.acknowledged && !is_lost {
                let what = || format!("{id} was new {firsts} times");
                self.tally.fault(ONE_COURIER, what);
            }
        }
    }
}
