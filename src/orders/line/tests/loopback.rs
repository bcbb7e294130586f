//! The operations of the shared line's port over [`Line`]: the oracle of the stores' tests.
//!
//! What the line does not know is here: servers, pull ids, unconfirmed leases, claims by request, and the line clock.

mod asserted;
mod baristas;
mod customers;
mod elapsed;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::super::super::model::PickupNumber;
use super::super::super::store::{
    self, Answer, Call, Claim, Event, Fenced, Handed, Leased, Millis, Number, Operation, Placing,
    Purged, QUIET_AFTER, Record, Reply, Rules, ServerId, StoreError, StoredStage, TICK_MAX, Viewed,
    Welcome, millis,
};
use super::*;

/// Server, order, number, and whether it is a customer's: a member of the held set.
type Member = (ServerId, OrderId, u64, bool);

#[derive(Debug)]
pub(in crate::orders) struct Loopback {
    pub(in crate::orders) line: Line<u64, u64>,
    /// The line clock at zero.
    zero: Instant,
    clock: Millis,
    ticked: Option<Millis>,
    wall: Millis,
    orders: HashMap<OrderId, Extra>,
    attached: BTreeMap<Member, Attachment>,
    pulls: BTreeMap<Box<str>, Pull>,
    /// Pull ids by the numbers by which the line knows them.
    names: Vec<Box<str>>,
    /// Idle baristas of quiet servers, which the line does not see.
    aside: BTreeMap<Idle, (u64, Option<Box<str>>)>,
    servers: BTreeMap<ServerId, Known>,
    calls: BTreeMap<ServerId, (Number, Answer)>,
    blocked: BTreeMap<Box<str>, Millis>,
    pub(in crate::orders) events: Vec<Event>,
}

/// What the line does not know of an order.
#[derive(Debug, Clone, Default)]
struct Extra {
    claim: Option<Claim>,
    details: Option<Box<str>>,
    result: Option<Box<str>>,
    origin: Option<Box<str>>,
    attached: Option<Member>,
    report: Option<Box<str>>,
    keep: Option<Millis>,
    pull: Option<Box<str>>,
    lost_until: Option<Instant>,
    /// Cancelled because it had no customer any more.
    unwanted: bool,
}

#[derive(Debug, Clone)]
struct Pull {
    server: ServerId,
    is: Is,
}

#[derive(Debug, Clone)]
enum Is {
    Idle(Idle),
    Leased(OrderId, u32, Option<Box<Previous>>),
}

#[derive(Debug, Default)]
struct Known {
    ticked: Millis,
    /// What was attached or asserted since a `Hello` that has not been settled.
    named: Option<BTreeSet<Member>>,
    departed: bool,
}

fn configured(rules: &Rules) -> Config {
    Config {
        start_wait: Duration::ZERO,
        lease: Duration::from_millis(rules.lease),
        attempts_max: rules.attempts_max,
        reconnect_grace: Duration::from_millis(rules.reconnect_grace),
        promise_grace: Duration::from_millis(rules.promise_grace),
        replay: Duration::from_millis(rules.replay),
        remembered_max: usize::try_from(rules.remembered_max).unwrap(),
        waiting_max: usize::try_from(rules.waiting_max).unwrap(),
        ..super::rules()
    }
}

fn keyed(claim: &Claim, keep: Option<Millis>) -> Keyed {
    let (text, of, fingerprint) = match claim {
        Claim::Key { key, fingerprint } => {
            (key, "key", u64::from_str_radix(fingerprint, 16).unwrap())
        }
        Claim::Request(request) => (request, "request", 0),
    };
    // A key with its scope has a space, which a key has not.
    let text = text.replace(' ', "/");
    Keyed {
        key: IdempotencyKey::of_identity(text.as_bytes(), of).unwrap(),
        fingerprint,
        keep: keep.map(Duration::from_millis),
    }
}

fn stored(stage: Stage) -> StoredStage {
    match stage {
        Stage::Waiting => StoredStage::Waiting,
        Stage::Brewing => StoredStage::Brewing,
        Stage::Ready => StoredStage::Ready,
        Stage::Cancelled => StoredStage::Cancelled,
    }
}

fn wall_of(now: Now) -> Millis {
    Millis::try_from(now.wall.as_millisecond()).unwrap()
}

impl Loopback {
    pub(in crate::orders) fn new(rules: &Rules) -> Self {
        Self {
            line: Line::new(configured(rules)),
            zero: Instant::now() + Duration::from_secs(1_000_000),
            clock: 0,
            ticked: None,
            wall: 0,
            orders: HashMap::new(),
            attached: BTreeMap::new(),
            pulls: BTreeMap::new(),
            names: Vec::new(),
            aside: BTreeMap::new(),
            servers: BTreeMap::new(),
            calls: BTreeMap::new(),
            blocked: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    pub(in crate::orders) fn call(
        &mut self,
        call: &Call,
        time: Millis,
    ) -> Result<Answer, StoreError> {
        let latest = self.calls.get(&call.server);
        if let Some((_, answer)) = latest.filter(|(number, _)| *number == call.number) {
            return Ok(answer.clone());
        }
        let follows = latest.is_some_and(|(number, _)| number + 1 == call.number);
        let seen_all = call.seen <= self.events.len() as u64;
        if call.operations.first() != Some(&Operation::Hello) && !(follows && seen_all) {
            return Err(StoreError::Lost);
        }
        self.wall = self.wall.max(time);
        self.line.next_ticket = self.line.next_ticket.max(self.wall * 1000);
        self.ticked.get_or_insert(self.wall);
        self.line.rules = configured(&call.rules);
        let mut replies = Vec::new();
        for operation in &call.operations {
            self.set_quiet_aside();
            replies.push(self.apply(call.server, operation));
            self.tidy();
        }
        let answer = Answer {
            at: self.wall,
            replies,
        };
        self.calls
            .insert(call.server, (call.number, answer.clone()));
        Ok(answer)
    }

    fn clock(&self) -> Millis {
        let passed = self.wall - self.ticked.unwrap_or(self.wall);
        self.clock + passed.min(millis(TICK_MAX))
    }

    fn now(&self) -> Now {
        Now {
            instant: self.zero + Duration::from_millis(self.clock()),
            wall: Timestamp::from_millisecond(self.wall.cast_signed()).unwrap(),
        }
    }

    fn is_quiet(&self, server: ServerId) -> bool {
        let ticked = self.servers.get(&server).map_or(0, |known| known.ticked);
        ticked + millis(QUIET_AFTER) <= self.clock()
    }

    fn set_quiet_aside(&mut self) {
        let mut idle = std::mem::take(&mut self.line.idle);
        idle.append(&mut self.aside);
        for (place, (number, name)) in idle {
            let pull = &self.names[usize::try_from(number).unwrap()];
            let to = if self.is_quiet(self.pulls[pull].server) {
                &mut self.aside
            } else {
                &mut self.line.idle
            };
            to.insert(place, (number, name));
        }
    }

    /// Forgets what belongs to orders that have ended.
    fn tidy(&mut self) {
        let line = &self.line;
        let stage = |id: &OrderId| line.by_id.get(id).map(|&slot| line.entry(slot).order.stage);
        self.orders.retain(|id, _| stage(id).is_some());
        self.attached
            .retain(|member, _| stage(&member.1).is_some_and(|stage| !stage.is_final()));
        let ended = self
            .pulls
            .iter()
            .filter(|(name, pull)| !matches!(pull.is, Is::Idle(_)) && self.lease(name).is_none());
        let ended: Vec<Box<str>> = ended.map(|(name, _)| name.clone()).collect();
        for name in ended {
            self.pulls.remove(&name);
        }
        for (id, extra) in &mut self.orders {
            let member = extra
                .attached
                .filter(|member| self.attached.contains_key(member));
            extra.attached = member.filter(|_| self.line.by_id.contains_key(id));
        }
    }

    fn slot(&self, id: OrderId) -> Option<u32> {
        self.line.by_id.get(&id).copied()
    }

    fn record(&self, slot: u32) -> Record {
        let entry = self.line.entry(slot);
        let (order, extra) = (&entry.order, &self.orders[&entry.order.id]);
        let claim = extra.claim.clone().filter(|_| entry.keyed.is_some());
        let (key, fingerprint, request) = match claim {
            Some(Claim::Key { key, fingerprint }) => (Some(key), Some(fingerprint), None),
            Some(Claim::Request(request)) => (None, None, Some(request)),
            None => (None, None, None),
        };
        let members = self
            .attached
            .keys()
            .filter(|member| member.1 == order.id && !order.stage.is_final());
        let customers = members.clone().filter(|member| member.3).count();
        assert_eq!(
            entry.attached.len(),
            members.clone().count(),
            "the oracle counts as the line"
        );
        let attached = extra
            .attached
            .filter(|member| self.attached.contains_key(member) && !order.stage.is_final());
        Record {
            stage: stored(order.stage),
            attempts: order.attempts,
            placed: wall_of(order.placed),
            started: order.started.map(wall_of),
            ended: order.ended.map(wall_of),
            customer: order.customer.clone(),
            barista: order.barista.clone(),
            details: extra.details.clone().filter(|_| !order.stage.is_final()),
            result: extra.result.clone(),
            request_id: order.request_id.clone(),
            origin: extra.origin.clone(),
            delivered: order.delivered,
            promised: entry.promised,
            customers: u32::try_from(customers).unwrap(),
            watchers: u32::try_from(members.count() - customers).unwrap(),
            ticket: entry.ticket,
            expiries: entry.expiries,
            key,
            fingerprint,
            request,
            attached: attached.map(|(server, id, number, _)| {
                format!("{server}/{}/{number}/c", id.0.simple()).into()
            }),
            report: extra.report.clone(),
            number: order.number.map(|PickupNumber(number)| number),
            keep: extra.keep,
        }
    }

    fn leased(&self, slot: u32) -> Leased {
        let entry = self.line.entry(slot);
        let left = entry
            .deadline
            .unwrap()
            .saturating_duration_since(self.now().instant);
        Leased {
            id: entry.order.id,
            record: self.record(slot),
            expires: self.wall + millis(left),
        }
    }

    /// The order of a pull's lease that still holds.
    fn lease(&self, name: &str) -> Option<u32> {
        let Is::Leased(id, attempt, _) = self.pulls.get(name)?.is else {
            return None;
        };
        let slot = self.slot(id)?;
        let order = &self.line.entry(slot).order;
        let holds = order.stage == Stage::Brewing && order.attempts == attempt;
        let names = self.orders[&id].pull.as_deref() == Some(name);
        (holds && names).then_some(slot)
    }

    /// An order has a barista: by an event if they were idle.
    fn start(&mut self, name: &str, lease: Lease, was_idle: bool) {
        let (id, slot) = (lease.id, self.line.by_id[&lease.id]);
        let pull = self.pulls.get_mut(name).unwrap();
        pull.is = Is::Leased(id, lease.attempt, lease.previous);
        let to = was_idle.then(|| Handed {
            server: pull.server.to_string().into(),
            pull: name.into(),
        });
        self.orders.get_mut(&id).unwrap().pull = Some(name.into());
        let Leased {
            record, expires, ..
        } = self.leased(slot);
        self.events.push(Event::Started {
            id,
            record,
            expires,
            to,
        });
    }

    fn offered(&mut self, offer: Offer<u64>) {
        let name = self.names[usize::try_from(offer.barista).unwrap()].clone();
        self.start(&name, offer.lease, true);
    }

    /// The event of an order that has just been cancelled because it had no customer any more.
    fn dropped(&mut self, id: OrderId) {
        self.orders.get_mut(&id).unwrap().unwanted = true;
        self.cancelled(id, None);
    }

    /// The event of an order that has just been cancelled.
    fn cancelled(&mut self, id: OrderId, blocked: Option<Millis>) {
        self.attached.retain(|member, _| member.1 != id);
        self.events.push(match self.slot(id) {
            Some(slot) => Event::Cancelled {
                id,
                record: self.record(slot),
                blocked,
                unwanted: self.orders[&id].unwanted,
            },
            None => Event::Dropped { id },
        });
    }

    fn conclude(&mut self, slot: u32, blocked: Option<Millis>) {
        let (now, id) = (self.now(), self.line.entry(slot).order.id);
        self.line.step_out(now, slot);
        self.line.conclude(now, slot, Stage::Cancelled);
        self.cancelled(id, blocked);
    }

    /// An order claimed by request has no grace, except after its server was lost. False if it is cancelled.
    fn keep_by_request(&mut self, id: OrderId) -> bool {
        let extra = &self.orders[&id];
        let lost_until = extra.lost_until.filter(|&at| at > self.now().instant);
        if !matches!(extra.claim, Some(Claim::Request(_))) {
            return true;
        }
        let slot = self.line.by_id[&id];
        match lost_until {
            Some(at) => self.line.set_deadline(slot, Some(at)),
            None => self.line.drop_unwanted(self.now(), slot),
        }
        lost_until.is_some()
    }

    fn returned(&mut self, id: OrderId, returned: Returned<u64>) -> store::Returned {
        match returned {
            Returned::Offered(offer) => {
                self.offered(offer);
                store::Returned::Offered
            }
            Returned::Cancelled => {
                self.dropped(id);
                store::Returned::Cancelled
            }
            Returned::ToLine => {
                let entry = self.line.entry(self.line.by_id[&id]);
                let wanted = entry.promised || entry.attached.has_customer();
                if !wanted && !self.keep_by_request(id) {
                    self.dropped(id);
                    return store::Returned::Cancelled;
                }
                let record = self.record(self.line.by_id[&id]);
                self.events.push(Event::Returned { id, record });
                store::Returned::ToLine
            }
        }
    }

    fn leave(&mut self, member: Member, lost: bool) -> store::Left {
        let Some(attachment) = self.attached.remove(&member) else {
            return store::Left::Nothing;
        };
        let (now, id) = (self.now(), member.1);
        let mut others = self
            .attached
            .keys()
            .filter(|other| other.1 == id && other.3);
        if lost && member.3 && others.next().is_none() {
            let until = now.instant + self.line.rules.reconnect_grace;
            self.orders.get_mut(&id).unwrap().lost_until = Some(until);
        }
        match self.line.leave(now, attachment) {
            None => store::Left::Nothing,
            Some(Left::Kept) => store::Left::Kept,
            Some(Left::Graced) if self.keep_by_request(id) => store::Left::Graced,
            Some(Left::Graced | Left::Cancelled) => {
                self.dropped(id);
                store::Left::Cancelled
            }
        }
    }

    /// Stores an attachment; one that was there already counts once.
    fn attach(&mut self, server: ServerId, number: u64, customer: bool, attachment: Attachment) {
        let member = (server, attachment.id, number, customer);
        if let Some(named) = &mut self.servers.get_mut(&server).unwrap().named {
            named.insert(member);
        }
        if let Entry::Vacant(new) = self.attached.entry(member) {
            new.insert(attachment);
            if customer {
                self.orders.get_mut(&attachment.id).unwrap().lost_until = None;
            }
        } else {
            self.line.detach(attachment);
        }
    }

    fn apply(&mut self, server: ServerId, operation: &Operation) -> Reply {
        let now = self.now();
        match operation {
            Operation::Hello => Reply::Welcome(self.hello(server)),
            Operation::Assert(orders) => Reply::Asserted(
                orders
                    .iter()
                    .map(|order| self.assert(server, order))
                    .collect(),
            ),
            Operation::Settle { idle, unconfirmed } => self.settle(server, idle, unconfirmed),
            Operation::Place(placing) => Reply::Placed(self.place(server, placing)),
            Operation::Watch { id, attachment } => Reply::Watched(
                self.line
                    .watch(*id, *attachment)
                    .map_or(store::Watched::Not, |at| {
                        self.attach(server, *attachment, false, at);
                        store::Watched::Attached(self.record(self.line.by_id[id]))
                    }),
            ),
            Operation::Leave { id, attachment } => {
                let customer = (server, *id, *attachment, true);
                let watcher = (server, *id, *attachment, false);
                let is_customer = self.attached.contains_key(&customer);
                let member = if is_customer { customer } else { watcher };
                let departed = self.servers[&server].departed;
                Reply::Left(self.leave(member, departed))
            }
            Operation::Promise { id, attachment } => {
                let attached = &mut self.attached;
                let at = attached.remove(&(server, *id, *attachment, true));
                let at = at.or_else(|| attached.remove(&(server, *id, *attachment, false)));
                Reply::Promised(at.is_some_and(|at| self.line.promise(now, at)))
            }
            Operation::View { id, renew } => Reply::Viewed(self.view(*id, *renew)),
            Operation::Cancel { id } => Reply::Cancelled(self.cancel(*id)),
            Operation::Purge {
                origin,
                age,
                blocked,
            } => Reply::Purged(self.purge(origin, *age, *blocked)),
            Operation::Unblock { origin } => {
                if self.blocked.remove(origin).is_some() {
                    let origin = origin.clone();
                    self.events.push(Event::Unblocked { origin });
                }
                Reply::Done
            }
            Operation::Survey => Reply::Surveyed(Box::new(self.survey())),
            Operation::Shut { closed } => {
                let closed = closed
                    .as_deref()
                    .map(|text| serde_json::from_str(text).unwrap());
                self.line.shut(closed.map(Arc::new));
                Reply::Done
            }
            Operation::Tick => Reply::Ticked(Box::new(self.tick(server))),
            Operation::Depart(requests) => self.depart(server, requests),
            of_barista => self.apply_of_barista(server, of_barista),
        }
    }

    fn apply_of_barista(&mut self, server: ServerId, operation: &Operation) -> Reply {
        let now = self.now();
        match operation {
            Operation::Pull {
                pull,
                barista,
                waits,
            } => Reply::Pulled(self.pull(server, pull, barista.clone(), *waits)),
            Operation::Quit { pull } => Reply::Pulled(self.quit(server, pull)),
            Operation::Confirm { pulls } => {
                for name in pulls {
                    let pull = self.pulls.get(name);
                    if pull.is_some_and(|pull| {
                        pull.server == server && matches!(pull.is, Is::Leased(..))
                    }) {
                        self.pulls.remove(name);
                    }
                }
                Reply::Done
            }
            Operation::GiveBack { pull } => {
                let is_own = self
                    .pulls
                    .get(pull)
                    .is_some_and(|pull| pull.server == server);
                let holds = is_own && self.lease(pull).is_some();
                let over = store::Returned::Over;
                Reply::Returned(if holds { self.give_back(pull) } else { over })
            }
            Operation::Finish {
                id,
                attempt,
                report,
                result,
            } => Reply::Finished(self.finish(*id, *attempt, report, result.as_deref())),
            Operation::Extend { id, attempt } => {
                let extended = self.line.extend(now, *id, *attempt);
                Reply::Extended(self.fenced(extended, |this, _| this.leased(this.line.by_id[id])))
            }
            Operation::Release { id, attempt } => {
                let released = self.line.release(now, *id, *attempt);
                Reply::Released(self.fenced(released, |this, it| this.returned(*id, it)))
            }
            other => panic!("{other:?} is no barista's"),
        }
    }

    fn fenced<T, R>(
        &mut self,
        result: Result<T, FenceError>,
        map: impl FnOnce(&mut Self, T) -> R,
    ) -> Fenced<R> {
        match result {
            Ok(current) => Fenced::Current(map(self, current)),
            Err(FenceError::Unknown) => Fenced::Unknown,
            Err(FenceError::NotBrewing { stage }) => Fenced::NotBrewing(stored(stage)),
            Err(FenceError::Fenced { stage, current }) => Fenced::Another {
                stage: stored(stage),
                current,
            },
            Err(FenceError::Unavailable(_)) => unreachable!("it is in memory"),
        }
    }
}
