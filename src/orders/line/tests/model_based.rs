//! Random sequences of operations, compared with a naive model.

mod model;

use proptest::prelude::*;

use self::model::{Known, LEASE, Model, REPLAY};
use super::*;

/// An operation of a customer, barista, operator or the clock. Numbers index existing items.
#[derive(Debug, Clone, Copy)]
enum Step {
    Place {
        key: Option<u8>,
        held: bool,
        from: usize,
    },
    Watch(usize),
    Leave(usize),
    Promise(usize),
    Cancel(usize),
    Pull {
        wait: bool,
    },
    Quit(usize),
    GiveBack(usize),
    Finish {
        order: usize,
        attempt: Option<u32>,
    },
    Extend {
        order: usize,
        attempt: Option<u32>,
    },
    Release {
        order: usize,
        attempt: Option<u32>,
    },
    /// An address is blocked that was refused since so many seconds ago.
    Purge(usize, u64),
    Ask(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let pick = || 0_usize..64;
    let attempt = || prop::option::weighted(0.3, 1_u32..4);
    prop_oneof![
        6 => (prop::option::weighted(0.4, 0_u8..4), prop::bool::weighted(0.8), 0..FROM.len())
            .prop_map(|(key, held, from)| Step::Place { key, held, from }),
        1 => pick().prop_map(Step::Watch),
        3 => pick().prop_map(Step::Leave),
        1 => pick().prop_map(Step::Promise),
        1 => pick().prop_map(Step::Cancel),
        5 => any::<bool>().prop_map(|wait| Step::Pull { wait }),
        1 => pick().prop_map(Step::Quit),
        1 => pick().prop_map(Step::GiveBack),
        4 => (pick(), attempt()).prop_map(|(order, attempt)| Step::Finish { order, attempt }),
        3 => (pick(), attempt()).prop_map(|(order, attempt)| Step::Extend { order, attempt }),
        1 => (pick(), attempt()).prop_map(|(order, attempt)| Step::Release { order, attempt }),
        1 => (0..FROM.len(), 0_u64..200).prop_map(|(from, ago)| Step::Purge(from, ago)),
        1 => pick().prop_map(Step::Ask),
        2 => prop_oneof![1_u64..80, Just(LEASE)].prop_map(Step::Pass),
    ]
}

/// Origins; the one without an address is not counted.
const FROM: [Option<&str>; 3] = [None, Some("192.0.2.1/32"), Some("192.0.2.2/32")];

/// The line, the model, and the handles of both.
struct World {
    line: TestLine,
    model: Model,
    clock: Clock,
    next: u32,
    attachments: Vec<(Attachment, u32)>,
    idles: Vec<(Idle, u32)>,
    /// Leases that could be given back.
    in_flight: Vec<Lease>,
    ids: Vec<OrderId>,
    /// Totals, as reported by the line with each step.
    placed: usize,
    finished: usize,
    cancelled: usize,
}

impl World {
    fn new() -> Self {
        Self {
            line: TestLine::new(rules()),
            model: Model::default(),
            clock: Clock::new(),
            next: 0,
            attachments: Vec::new(),
            idles: Vec::new(),
            in_flight: Vec::new(),
            ids: Vec::new(),
            placed: 0,
            finished: 0,
            cancelled: 0,
        }
    }

    fn offered(&mut self, got: Option<Offer<u32>>, expected: Option<(u32, OrderId, u32)>) {
        let seen = got
            .as_ref()
            .map(|offer| (offer.barista, offer.lease.id, offer.lease.attempt));
        assert_eq!(seen, expected, "who is offered what");
        self.in_flight.extend(got.map(|offer| offer.lease));
    }

    fn returned(&mut self, got: Option<Returned<u32>>, expected: Option<(u32, OrderId, u32)>) {
        let offer = match got {
            Some(Returned::Offered(offer)) => Some(offer),
            Some(Returned::Cancelled) => {
                self.cancelled += 1;
                None
            }
            Some(Returned::ToLine) | None => None,
        };
        self.offered(offer, expected);
    }

    fn pick(&self, at: usize) -> OrderId {
        // Sometimes an unknown order.
        self.ids
            .get(at % (self.ids.len() + 1))
            .copied()
            .unwrap_or(id(0))
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Place { key, held, from } => self.place(key, held, from),
            Step::Watch(at) => self.watch(at),
            Step::Leave(at) => self.leave(at),
            Step::Promise(at) => self.promise(at),
            Step::Cancel(at) => self.cancel(at),
            Step::Pull { wait } => self.pull(wait),
            Step::Quit(at) => self.quit(at),
            Step::GiveBack(at) => self.give_back(at),
            Step::Finish { order, attempt } => self.finish(order, attempt),
            Step::Extend { order, attempt } => self.extend(order, attempt),
            Step::Release { order, attempt } => self.release(order, attempt),
            Step::Purge(from, ago) => self.purge(from, ago),
            Step::Ask(at) => self.ask(at),
            Step::Pass(secs) => self.pass(secs),
        }
        self.compare();
    }

    fn place(&mut self, key: Option<u8>, held: bool, from: usize) {
        self.next += 1;
        let (receiver, now) = (held.then_some(self.next), self.clock.0);
        let mut new = order(u128::from(self.next), now);
        new.origin = FROM[from].map(|network| network.parse().unwrap());
        let new_id = new.id;
        let keyed = key.map(|key| super::key(&key.to_string()));
        let placed = self.line.place(now, new, keyed, receiver).unwrap();
        let known = key.and_then(|key| {
            self.model
                .orders
                .iter_mut()
                .find(|order| order.key == Some(key))
        });
        let attachment = match (placed, known) {
            (Placed::Replayed(outcome, back), Some(known)) => {
                assert!(known.stage.is_final());
                assert_eq!(back, receiver);
                let (Outcome::Ready(order) | Outcome::Cancelled(order)) = outcome else {
                    panic!()
                };
                assert_eq!((order.id, order.stage), (known.id, known.stage));
                None
            }
            (Placed::Joined { id, attachment }, Some(known)) => {
                assert!(!known.stage.is_final());
                assert_eq!(id, known.id);
                known.customers.extend(receiver);
                known.promised |= receiver.is_none();
                if known.stage == Stage::Waiting {
                    known.deadline = None;
                }
                self.model.renew(id);
                attachment
            }
            (
                Placed::New {
                    id,
                    attachment,
                    offer,
                },
                None,
            ) => {
                assert_eq!(id, new_id);
                self.ids.push(id);
                self.placed += 1;
                let ticket = self.model.ticket();
                self.model.orders.push(Known {
                    id,
                    key,
                    from,
                    placed: self.model.secs,
                    stage: Stage::Waiting,
                    ticket,
                    attempts: 0,
                    expiries: 0,
                    baristas: Vec::new(),
                    promised: receiver.is_none(),
                    customers: receiver.into_iter().collect(),
                    watchers: Vec::new(),
                    deadline: None,
                    forget_at: None,
                });
                let expected = self.model.meet(id);
                self.offered(offer, expected);
                attachment
            }
            (placed, known) => panic!("the line says {placed:?}, the model knows {known:?}"),
        };
        self.attachments.extend(attachment.zip(receiver));
    }

    fn watch(&mut self, at: usize) {
        self.next += 1;
        let (id, receiver) = (self.pick(at), self.next);
        let attachment = self.line.watch(id, receiver);
        let known = self.model.find(id).filter(|order| !order.stage.is_final());
        assert_eq!(attachment.is_some(), known.is_some());
        if let Some(known) = known {
            known.watchers.push(receiver);
        }
        self.attachments
            .extend(attachment.map(|attachment| (attachment, receiver)));
    }

    fn leave(&mut self, at: usize) {
        let Some(&(attachment, receiver)) = self.attachments.get(at) else {
            return;
        };
        let left = self.line.leave(self.clock.0, attachment);
        let before = self.model.orders.len();
        let order = self.model.find(attachment.order());
        let customer = order.is_some_and(|order| {
            order.watchers.retain(|&watcher| watcher != receiver);
            let count = order.customers.len();
            order.customers.retain(|&customer| customer != receiver);
            order.customers.len() < count && order.stage == Stage::Waiting
        });
        if customer {
            self.model.drop_if_unwanted(attachment.order());
        }
        let gone = self.model.orders.len() < before
            || customer
                && self
                    .model
                    .find(attachment.order())
                    .is_some_and(|o| o.stage == Stage::Cancelled);
        assert_eq!(left == Some(Left::Cancelled), gone);
        self.cancelled += usize::from(gone);
    }

    fn promise(&mut self, at: usize) {
        let Some(&(attachment, receiver)) = self.attachments.get(at) else {
            return;
        };
        let promised = self.line.promise(self.clock.0, attachment);
        let expected = self.model.find(attachment.order()).is_some_and(|order| {
            let attached =
                order.customers.contains(&receiver) || order.watchers.contains(&receiver);
            order.customers.retain(|&customer| customer != receiver);
            order.watchers.retain(|&watcher| watcher != receiver);
            order.promised |= attached;
            attached
        });
        assert_eq!(promised, expected);
        if expected {
            self.model.renew(attachment.order());
        }
    }

    fn ask(&mut self, at: usize) {
        let id = self.pick(at);
        let view = self.line.ask(self.clock.0, id);
        assert_eq!(view.is_some(), self.model.find(id).is_some());
        self.model.renew(id);
    }

    fn cancel(&mut self, at: usize) {
        let id = self.pick(at);
        let got = self.line.cancel(self.clock.0, id);
        match self.model.find(id).map(|order| order.stage) {
            None => assert!(matches!(got, Err(CancelError::Unknown))),
            Some(Stage::Waiting) => {
                let got = got.unwrap();
                assert!(!got.already);
                let mut receivers = got.receivers.to_vec();
                receivers.sort_unstable();
                assert_eq!(receivers, self.model.end(id, Stage::Cancelled));
                self.cancelled += 1;
            }
            Some(Stage::Cancelled) => {
                let got = got.unwrap();
                assert!(got.already && got.receivers.is_empty());
            }
            Some(stage) => {
                assert!(matches!(got, Err(CancelError::TooLate { stage: s }) if s == stage));
            }
        }
    }

    fn purge(&mut self, from: usize, ago: u64) {
        let Some(network) = FROM[from] else {
            return;
        };
        let ago = ago.min(self.model.secs);
        let (now, network) = (self.clock.0, network.parse().unwrap());
        let since = now.instant.checked_sub(Duration::from_secs(ago)).unwrap();
        let (mut receivers, purged) = self.line.purge(now, network, since);
        receivers.sort_unstable();
        let waiting = self.model.waiting().into_iter();
        let since = self.model.secs - ago;
        let theirs = waiting.filter(|order| order.from == from && order.placed > since);
        let theirs: Vec<_> = theirs.map(|order| order.id).collect();
        let told = theirs
            .iter()
            .flat_map(|&id| self.model.end(id, Stage::Cancelled));
        let mut told: Vec<_> = told.collect();
        told.sort_unstable();
        assert_eq!((receivers, purged), (told, theirs.len()));
        self.cancelled += purged;
    }

    fn pull(&mut self, wait: bool) {
        self.next += 1;
        let barista = self.next;
        let (name, reach) = (barista.to_string(), wait.then_some(barista));
        let got = self.line.pull(self.clock.0, Some(name.into()), reach);
        let first = self.model.waiting().first().map(|order| order.id);
        match (got, first) {
            (Pulled::Order(lease), Some(first)) => {
                let expected = self.model.grant_lease(first, barista);
                assert_eq!((lease.id, lease.attempt), expected);
                let known = self.model.find(first).unwrap();
                assert_eq!(
                    lease.customer_waiting,
                    !(known.customers.is_empty() && known.watchers.is_empty())
                );
                assert_eq!(
                    lease.presence == Presence::Held,
                    !known.customers.is_empty()
                );
                assert_eq!(
                    lease.presence == Presence::Gone,
                    !(known.promised || lease.customer_waiting)
                );
                self.in_flight.push(lease);
            }
            (Pulled::Idle(idle), None) if wait => {
                self.model.idle.push(barista);
                self.idles.push((idle, barista));
            }
            (Pulled::Nothing, None) if !wait => {}
            (got, first) => panic!("pulled {got:?}, first in line is {first:?}"),
        }
    }

    fn quit(&mut self, at: usize) {
        let Some(&(idle, barista)) = self.idles.get(at) else {
            return;
        };
        let was_idle = self.model.idle.contains(&barista);
        assert_eq!(self.line.quit(idle), was_idle);
        self.model.idle.retain(|&other| other != barista);
    }

    fn give_back(&mut self, at: usize) {
        if at >= self.in_flight.len() {
            return;
        }
        // Each lease is given back at most once, and only before its barista has it.
        let Lease {
            id,
            attempt,
            previous,
            ..
        } = self.in_flight.remove(at);
        let got = self.line.give_back(self.clock.0, id, attempt, previous);
        let theirs = self
            .model
            .find(id)
            .filter(|order| order.stage == Stage::Brewing && order.attempts == attempt);
        let expected = if let Some(order) = theirs {
            assert!(got.is_some());
            order.attempts -= 1;
            order.baristas.pop();
            self.model.back(id)
        } else {
            assert!(got.is_none());
            None
        };
        self.returned(got, expected);
    }

    fn finish(&mut self, at: usize, attempt: Option<u32>) {
        let id = self.pick(at);
        let got = self.line.finish(self.clock.0, id, attempt, None);
        let Some(order) = self.model.find(id) else {
            assert!(matches!(got, Err(FinishError::Unknown)));
            return;
        };
        let current = order.attempts + u32::from(order.stage == Stage::Waiting);
        let never =
            order.stage == Stage::Cancelled || order.stage == Stage::Waiting && order.attempts == 0;
        if never {
            assert!(matches!(got, Err(FinishError::NotStarted { .. })));
        } else if attempt.is_some_and(|attempt| attempt != current) {
            assert!(matches!(got, Err(FinishError::Fenced { current: c, .. }) if c == current));
        } else if order.stage == Stage::Ready {
            assert!(got.unwrap().already);
        } else {
            let attached = !(order.customers.is_empty() && order.watchers.is_empty());
            let finished = got.unwrap();
            assert_eq!(
                (finished.already, finished.order.delivered),
                (false, attached)
            );
            let mut receivers = finished.receivers.to_vec();
            receivers.sort_unstable();
            assert_eq!(
                receivers,
                self.model.end(id, Stage::Ready),
                "every attached request is answered once"
            );
            self.finished += 1;
        }
    }

    fn held_by_barista(&mut self, id: OrderId, attempt: Option<u32>) -> bool {
        self.model.find(id).is_some_and(|order| {
            order.stage == Stage::Brewing && attempt.is_none_or(|attempt| attempt == order.attempts)
        })
    }

    fn extend(&mut self, at: usize, attempt: Option<u32>) {
        let id = self.pick(at);
        let theirs = self.held_by_barista(id, attempt);
        assert_eq!(self.line.extend(self.clock.0, id, attempt).is_ok(), theirs);
        if theirs {
            let until = self.model.secs + LEASE;
            self.model.find(id).unwrap().deadline = Some(until);
        }
    }

    fn release(&mut self, at: usize, attempt: Option<u32>) {
        let id = self.pick(at);
        let theirs = self.held_by_barista(id, attempt);
        let got = self.line.release(self.clock.0, id, attempt);
        assert_eq!(got.is_ok(), theirs);
        if let Ok(returned) = got {
            let expected = self.model.back(id);
            self.returned(Some(returned), expected);
        }
    }

    fn pass(&mut self, secs: u64) {
        let now = self.clock.pass(secs);
        let elapsed = self.line.elapse(now);
        self.cancelled += elapsed.abandoned + elapsed.unasked;
        let mut expected = self.model.pass(secs).into_iter();
        for expired in elapsed.expired {
            let expected = match expired.returned {
                Returned::Offered(_) => expected.next(),
                Returned::ToLine | Returned::Cancelled => None,
            };
            self.returned(Some(expired.returned), expected);
        }
        assert_eq!(expected.next(), None);
    }

    fn compare(&mut self) {
        let now = self.clock.0;
        let figures = self.line.figures(now.instant);
        let at = |stage| {
            self.model
                .orders
                .iter()
                .filter(|order| order.stage == stage)
                .count()
        };
        let held = self
            .model
            .orders
            .iter()
            .map(|o| o.customers.len() + o.watchers.len())
            .sum();
        assert_eq!(figures.waiting, at(Stage::Waiting));
        assert_eq!(figures.brewing, at(Stage::Brewing));
        assert_eq!(
            (figures.ready, figures.cancelled),
            (at(Stage::Ready), at(Stage::Cancelled))
        );
        assert_eq!(
            self.placed,
            self.finished + self.cancelled + figures.waiting + figures.brewing,
            "every order is pending or has ended, once"
        );
        assert_eq!(
            (figures.held, figures.idle_baristas),
            (held, self.model.idle.len())
        );
        assert!(
            figures.waiting == 0 || figures.idle_baristas == 0,
            "no order waits while a barista is idle"
        );
        let positions: Vec<_> = self.model.waiting().iter().map(|order| order.id).collect();
        for (before, id) in positions.into_iter().enumerate() {
            assert_eq!(self.line.view(now, id).unwrap().position, Some(before + 1));
        }
        for id in &self.ids {
            let seen = self.line.view(now, *id).map(|view| view.order);
            let known = self.model.orders.iter().find(|order| order.id == *id);
            assert_eq!(
                seen.as_ref()
                    .map(|order| (order.stage, order.barista.as_deref())),
                known.map(|order| {
                    let barista = order.baristas.last().map(String::as_str);
                    (order.stage, barista)
                })
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_line_does_what_the_model_does(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        // In the end all leave, and the line is empty.
        for at in 0..world.idles.len() {
            world.step(Step::Quit(at));
        }
        for at in 0..world.attachments.len() {
            world.step(Step::Leave(at));
        }
        world.step(Step::Pass(LEASE));
        for at in 0..world.ids.len() {
            world.step(Step::Cancel(at));
        }
        for _ in 0..4 {
            let now = world.clock.pass(REPLAY + LEASE);
            world.line.elapse(now);
        }
        prop_assert_eq!(world.line.entries.len(), 0);
        prop_assert!(world.line.by_id.is_empty() && world.line.by_key.is_empty() && world.line.places.is_empty());
        prop_assert!(world.line.deadlines.is_empty() && world.line.remembered.is_empty());
        prop_assert_eq!((world.line.held, world.line.brewing.len(), world.line.ready), (0, 0, 0));
    }
}
