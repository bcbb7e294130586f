//! The events sent and their outcomes, and what the shop must therefore report.

use std::{collections::BTreeMap, time::Duration};

use super::plan::Request;
use crate::{
    audit::Faults,
    courier_desk::{Courier, Event, Kind, Outcome},
    resend::{Sent, Tries},
    visits::Recorder,
};

/// What is known of an order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OfOrder {
    /// At least once.
    pub(crate) acknowledged: bool,
    /// Answers that took it for a new one.
    firsts: u64,
    /// An event of the order has an unknown outcome: an answer that took it for a new one may have been lost.
    uncertain: bool,
    /// Whom the answers named.
    pub(crate) courier: Option<String>,
}

/// What was said of a courier last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OfCourier {
    pub(crate) latest: Courier,
    /// False when the outcome of that event is unknown.
    pub(crate) is_certain: bool,
}

/// The books of a run.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) orders: BTreeMap<String, OfOrder>,
    pub(crate) couriers: BTreeMap<String, OfCourier>,
    /// How often each event was acknowledged, by its JSON.
    pub(crate) events: BTreeMap<String, u64>,
    /// Acknowledged events, including redelivered ones.
    pub(crate) acknowledged: u64,
    /// Acknowledged requests.
    pub(crate) requests: u64,
    /// By outcome, as far as outcomes were answered.
    pub(crate) outcomes: BTreeMap<Kind, u64>,
    /// Answers that contradict the events sent.
    pub(crate) misanswered: Faults,
    /// Answers about orders that do not go with each other.
    pub(crate) contradictions: Faults,
    pub(crate) given_up: Faults,
    /// Of these, requests that may have been taken all the same.
    pub(crate) fate_unknown: u64,
    /// From sending to the acknowledgement, retries among it.
    pub(crate) latencies: Recorder,
    pub(crate) tries: Tries,
}

impl Ledger {
    /// Enters what became of a request.
    pub(crate) fn record(
        &mut self,
        request: &Request,
        sent: &Sent<Option<Vec<Outcome>>>,
        took: Duration,
    ) {
        let Some((_, outcomes)) = &sent.acknowledged else {
            self.gave_up(request, &sent.why, sent.may_be_taken());
            return;
        };
        self.acknowledge(request, sent.may_be_taken(), took);
        let outcomes = outcomes.as_deref().unwrap_or_default();
        if outcomes.len() != request.events.len() {
            let (events, answers) = (request.events.len(), outcomes.len());
            self.misanswered
                .note(|| format!("{events} events, {answers} outcomes"));
        }
        for (event, outcome) in request.events.iter().zip(outcomes) {
            *self.outcomes.entry(outcome.kind).or_default() += 1;
            self.answered(event, outcome);
        }
    }

    /// Enters a request that the topic accepted; its events' outcomes are unknown.
    pub(crate) fn passed_on(&mut self, request: &Request, took: Duration) {
        self.acknowledge(request, true, took);
    }

    fn acknowledge(&mut self, request: &Request, uncertain: bool, took: Duration) {
        self.latencies.record(took);
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
    pub(crate) fn gave_up(&mut self, request: &Request, why: &str, may_be_taken: bool) {
        self.given_up.note(|| why.to_owned());
        self.fate_unknown += u64::from(may_be_taken);
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
        if !fits {
            self.misanswered
                .note(|| format!("{} came to {kind:?}", event.json()));
            return;
        }
        let Event::Order(order) = event else {
            return;
        };
        let known = self.orders.entry(order.id.clone()).or_default();
        known.firsts += u64::from(*kind != Kind::Duplicate);
        match (&known.courier, courier_id) {
            (Some(first), Some(other)) if first != other => {
                let what = format!("{} is {first}'s, then {other}'s", order.id);
                self.contradictions.note(|| what);
            }
            (None, Some(_)) => known.courier.clone_from(courier_id),
            _ => {}
        }
    }

    /// Enters, after the last event, which orders were taken for new ones more than once, or never. Not for a topic, which
    /// answers no outcomes.
    pub(crate) fn close(&mut self) {
        for (id, order) in &self.orders {
            let firsts = order.firsts;
            let is_lost = firsts == 0 && order.uncertain;
            if firsts != 1 && order.acknowledged && !is_lost {
                self.contradictions
                    .note(|| format!("{id} was new {firsts} times"));
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use hyper::StatusCode;

    use super::*;
    use crate::courier_desk::{
        Zone,
        tests::{courier, order},
    };

    pub(crate) fn request(event: Event) -> Request {
        Request {
            events: vec![event],
            is_list: false,
        }
    }

    /// A ledger of these events with these outcomes.
    pub(crate) fn ledger(answered: Vec<(Event, Outcome)>) -> Ledger {
        let mut ledger = Ledger::default();
        for (event, outcome) in answered {
            ledger.record(&request(event), &sent(vec![outcome], 0), Duration::ZERO);
        }
        ledger.close();
        ledger
    }

    fn sent(outcomes: Vec<Outcome>, uncertain: u64) -> Sent<Option<Vec<Outcome>>> {
        Sent {
            acknowledged: Some((StatusCode::ACCEPTED, Some(outcomes))),
            uncertain,
            refused: None,
            why: String::new(),
        }
    }

    fn of(kind: Kind, courier: &str) -> Outcome {
        Outcome::of_order(kind, Some(courier.to_owned()))
    }

    fn parked() -> Outcome {
        Outcome::of_order(Kind::Parked, None)
    }

    fn placed() -> Event {
        order("1", Zone::N, 0)
    }

    #[test]
    fn answers_that_go_together_are_no_contradiction() {
        let stories = [
            vec![of(Kind::Assigned, "a"), of(Kind::Duplicate, "a")],
            vec![of(Kind::Duplicate, "a"), of(Kind::Assigned, "a")],
            vec![parked(), of(Kind::Duplicate, "a")],
            vec![of(Kind::Duplicate, "a"), parked()],
        ];
        for outcomes in stories {
            let answered = outcomes.into_iter().map(|outcome| (placed(), outcome));
            let ledger = ledger(answered.collect());
            let faults = (ledger.misanswered.times, ledger.contradictions.times);
            assert_eq!(faults, (0, 0));
        }
    }

    #[test]
    fn another_courier_and_an_order_that_is_new_twice_or_never_are_found_out() {
        let stories = [
            vec![of(Kind::Assigned, "a"), of(Kind::Duplicate, "b")],
            vec![of(Kind::Assigned, "a"), of(Kind::Assigned, "a")],
            vec![parked(), parked()],
            vec![of(Kind::Duplicate, "a")],
        ];
        for outcomes in stories {
            let answered = outcomes.into_iter().map(|outcome| (placed(), outcome));
            let ledger = ledger(answered.collect());
            assert_eq!(ledger.contradictions.times, 1);
        }
    }

    #[test]
    fn an_order_may_be_known_already_if_an_answer_was_lost() {
        let mut ledger = Ledger::default();
        let retried = sent(vec![of(Kind::Duplicate, "a")], 1);
        ledger.record(&request(placed()), &retried, Duration::ZERO);
        ledger.close();
        assert_eq!(ledger.contradictions.times, 0);
    }

    #[test]
    fn outcomes_that_do_not_go_with_their_events_are_found_out() {
        let update = courier("a", Zone::N, true);
        let wrong = [
            (update.clone(), parked()),
            (update, of(Kind::Updated, "a")),
            (placed(), Outcome::updated(0)),
            (placed(), Outcome::of_order(Kind::Assigned, None)),
            (placed(), of(Kind::Parked, "a")),
        ];
        for answered in wrong {
            assert_eq!(ledger(vec![answered]).misanswered.times, 1);
        }
        let mut ledger = Ledger::default();
        ledger.record(&request(placed()), &sent(Vec::new(), 0), Duration::ZERO);
        assert_eq!(ledger.misanswered.times, 1);
    }

    #[test]
    fn what_was_given_up_may_have_been_heard() {
        let mut ledger = Ledger::default();
        let update = |available| request(courier("a", Zone::N, available));
        ledger.passed_on(&update(true), Duration::ZERO);
        ledger.gave_up(&update(false), "no", false);
        assert!(ledger.couriers["a"].is_certain);
        assert!(ledger.couriers["a"].latest.is_available);
        ledger.gave_up(&update(false), "silence", true);
        assert!(!ledger.couriers["a"].is_certain);
        assert_eq!((ledger.given_up.times, ledger.fate_unknown), (2, 1));
        ledger.gave_up(&request(placed()), "silence", true);
        assert!(!ledger.orders["1"].acknowledged);
    }
}
