//! What this server holds: customers' requests by order, baristas by pull, and the operations that the store has not seen yet.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use smallvec::SmallVec;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::super::idempotency::IdempotencyKey;
use super::super::line::{Permit, Permits};
use super::super::model::{Order, OrderId, Outcome, Stage};
use super::super::store::{
    Asserted, AttachmentNumber, Figures, IdlePull, Number, Operation, Record, Reply,
};
use super::pulls::{Pull, Pulls};

/// Final orders that are known here for a while: a request that joins one finds out that it is final by now. Their events and
/// replies are milliseconds apart.
const RECENT_MAX: usize = 1000;
/// Operations that wait, above which look-ups are refused.
const QUEUE_MAX: usize = 10_000;

/// An operation that waits for the next call.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) operation: Operation,
    /// None if the reply is not waited for.
    pub(super) reply: Option<oneshot::Sender<Reply>>,
    pub(super) since: Instant,
    /// It was in a call that failed.
    pub(super) has_failed: bool,
}

impl Queued {
    pub(super) fn new(operation: Operation, reply: Option<oneshot::Sender<Reply>>) -> Self {
        Self {
            operation,
            reply,
            since: Instant::now(),
            has_failed: false,
        }
    }
}

/// A held request.
#[derive(Debug)]
pub(super) struct Request {
    number: AttachmentNumber,
    /// A customer's; otherwise it only watches.
    is_customer: bool,
    /// A proxy sends it again when its connection breaks.
    is_proxied: bool,
    sender: oneshot::Sender<Outcome>,
}

impl Request {
    pub(super) fn new(
        number: AttachmentNumber,
        is_customer: bool,
        is_proxied: bool,
        sender: oneshot::Sender<Outcome>,
    ) -> Self {
        Self {
            number,
            is_customer,
            is_proxied,
            sender,
        }
    }

    pub(super) fn is_proxied(&self) -> bool {
        self.is_proxied
    }

    pub(super) fn answer(self, outcome: Outcome) {
        // A receiver that has left was handled by its own `Drop`.
        let _ = self.sender.send(outcome);
    }
}

/// An order of which this server knows.
#[derive(Debug)]
pub(super) struct Known {
    /// As last reported by the store; none before it has the order.
    record: Option<Record>,
    requests: SmallVec<[Request; 1]>,
    permits: Permits,
    key: Option<IdempotencyKey>,
    /// Placed here: it is known until it is final, even without requests.
    is_placed: bool,
    /// The store may have it.
    is_sent: bool,
}

impl Known {
    pub(super) fn new(key: Option<IdempotencyKey>, permit: Option<Permit>) -> Self {
        Self {
            record: None,
            requests: SmallVec::new(),
            permits: permit.into_iter().collect(),
            key,
            is_placed: true,
            is_sent: false,
        }
    }

    pub(super) fn attach(&mut self, request: Request) {
        self.requests.push(request);
    }
}

/// See [the module](self).
#[derive(Debug, Default)]
pub(super) struct Local {
    queue: VecDeque<Queued>,
    /// Orders that the store has not answered yet.
    pub(super) unplaced: usize,
    orders: HashMap<OrderId, Known>,
    /// Of `requests`.
    by_number: HashMap<AttachmentNumber, OrderId>,
    pub(super) keys: HashMap<IdempotencyKey, OrderId>,
    pub(super) pulls: Pulls,
    /// Leases whose answers were taken, for the next call.
    confirmed: Vec<Box<str>>,
    recent: VecDeque<OrderId>,
    final_outcomes: HashMap<OrderId, Outcome>,
    next_number: u64,
    /// The latest event.
    pub(super) seen: Number,
    pub(super) figures: Figures,
    /// Other servers that tick.
    pub(super) others: u32,
    /// The events have a gap, or say that this server was taken for dead.
    pub(super) is_lost: bool,
    /// The server is about to end: requests through a proxy go to another one.
    pub(super) departing: bool,
    pub(super) closed: bool,
}

impl Local {
    // --- Operations ------------------------------------------------------------------------------------------------

    pub(super) fn ask(&mut self, operation: Operation) -> oneshot::Receiver<Reply> {
        let (sender, receiver) = oneshot::channel();
        self.unplaced += usize::from(matches!(operation, Operation::Place(_)));
        self.queue.push_back(Queued::new(operation, Some(sender)));
        receiver
    }

    pub(super) fn tell(&mut self, operation: Operation) {
        self.queue.push_back(Queued::new(operation, None));
    }

    /// The operations of the next call: all that wait, up to `most`. Without those whose clients have left: they would cost
    /// a slow store time.
    pub(super) fn take_queue(&mut self, most: usize) -> Vec<Queued> {
        let mut taken = Vec::with_capacity(self.queue.len().min(most) + 1);
        if !self.confirmed.is_empty() {
            let pulls = std::mem::take(&mut self.confirmed);
            taken.push(Queued::new(Operation::Confirm { pulls }, None));
        }
        while taken.len() < most
            && let Some(queued) = self.queue.pop_front()
        {
            let is_closed = queued
                .reply
                .as_ref()
                .is_some_and(oneshot::Sender::is_closed);
            if self.is_wanted(&queued.operation, is_closed) {
                taken.push(queued);
            }
        }
        taken
    }

    /// Whether a client still waits for an operation that is about to be sent.
    fn is_wanted(&mut self, operation: &Operation, is_closed: bool) -> bool {
        match operation {
            Operation::View { .. }
            | Operation::Watch { .. }
            | Operation::Extend { .. }
            | Operation::Survey
            | Operation::Tick => !is_closed,
            Operation::Place(placing) => {
                let Some(known) = self.orders.get_mut(&placing.id) else {
                    self.unplaced = self.unplaced.saturating_sub(1);
                    return false;
                };
                known.is_sent = true;
                true
            }
            Operation::Pull { pull, .. } => self.pulls.is_sent(pull),
            _ => true,
        }
    }

    /// Whether so much waits that look-ups are refused.
    pub(super) fn is_overloaded(&self) -> bool {
        self.queue.len() > QUEUE_MAX
    }

    /// Puts the operations of a call that was not applied back to the front.
    pub(super) fn put_back(&mut self, operations: Vec<Queued>) {
        for queued in operations.into_iter().rev() {
            self.queue.push_front(queued);
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn has_confirmed(&self) -> bool {
        !self.confirmed.is_empty()
    }

    // --- Customers -------------------------------------------------------------------------------------------------

    /// A number for a request or a pull; they are not used again.
    pub(super) fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    pub(super) fn insert(&mut self, id: OrderId, known: Known) {
        for request in &known.requests {
            self.by_number.insert(request.number, id);
        }
        if let Some(key) = &known.key {
            self.keys.entry(key.clone()).or_insert(id);
        }
        self.orders.insert(id, known);
    }

    /// Attaches a request to an order that may be unknown here.
    pub(super) fn attach(&mut self, id: OrderId, request: Request) {
        self.by_number.insert(request.number, id);
        let known = self.orders.entry(id).or_insert_with(|| Known {
            is_placed: false,
            ..Known::new(None, None)
        });
        known.attach(request);
    }

    pub(super) fn order_of(&self, number: AttachmentNumber) -> Option<OrderId> {
        self.by_number.get(&number).copied()
    }

    /// A customer has left. The order from which the store must detach their request; none if it was answered already, or was
    /// never sent.
    pub(super) fn leave(&mut self, number: AttachmentNumber) -> Option<(OrderId, Option<Known>)> {
        let (id, _) = self.detach(number)?;
        let known = self.orders.get(&id);
        let is_unsent = known
            .is_some_and(|known| known.is_placed && !known.is_sent && known.requests.is_empty());
        // Its operation is passed over.
        let removed = if is_unsent { self.remove(id) } else { None };
        Some((id, removed))
    }

    /// Removes a request. None if it was answered already.
    pub(super) fn detach(&mut self, number: AttachmentNumber) -> Option<(OrderId, Request)> {
        let id = self.by_number.remove(&number)?;
        let known = self.orders.get_mut(&id)?;
        let at = known
            .requests
            .iter()
            .position(|request| request.number == number)?;
        let request = known.requests.remove(at);
        if known.requests.is_empty() && !known.is_placed {
            self.remove(id);
        }
        Some((id, request))
    }

    /// The store has an order as placed here.
    pub(super) fn placed(&mut self, id: OrderId, record: Record) {
        if let Some(known) = self.orders.get_mut(&id) {
            // An event may have been faster.
            known.record.get_or_insert(record);
        }
    }

    /// An order was not placed: its request joined another one. Returns the outcome if that is final by now.
    #[must_use]
    pub(super) fn joined(&mut self, id: OrderId, other: OrderId, record: Record) -> Option<Answer> {
        if id == other {
            // It was placed by a call that was sent again.
            self.placed(id, record);
            return None;
        }
        let joined = self.remove(id)?;
        for request in &joined.requests {
            self.by_number.insert(request.number, other);
        }
        if let Some(outcome) = self.final_outcomes.get(&other) {
            let outcome = outcome.clone();
            return Some(self.answer(joined, outcome));
        }
        let known = self.orders.entry(other).or_insert_with(|| Known {
            is_placed: false,
            ..Known::new(None, None)
        });
        known.record.get_or_insert(record);
        known.requests.extend(joined.requests);
        known.permits.extend(joined.permits);
        if let Some(key) = joined.key {
            self.keys.entry(key.clone()).or_insert(other);
            known.key.get_or_insert(key);
        }
        None
    }

    /// Removes an order that is not, or no longer, in line. Its requests get nothing.
    pub(super) fn remove(&mut self, id: OrderId) -> Option<Known> {
        let known = self.orders.remove(&id)?;
        for request in &known.requests {
            self.by_number.remove(&request.number);
        }
        if let Some(key) = &known.key
            && self.keys.get(key) == Some(&id)
        {
            self.keys.remove(key);
        }
        Some(known)
    }

    /// What an event says of an order that is not final.
    pub(super) fn changed(&mut self, id: OrderId, record: Record) {
        if let Some(known) = self.orders.get_mut(&id) {
            known.record = Some(record);
        }
    }

    /// An order is final.
    #[must_use]
    pub(super) fn ended(&mut self, id: OrderId, outcome: &Outcome) -> Option<Answer> {
        if self.final_outcomes.insert(id, outcome.clone()).is_none() {
            self.recent.push_back(id);
            if self.recent.len() > RECENT_MAX
                && let Some(oldest) = self.recent.pop_front()
            {
                self.final_outcomes.remove(&oldest);
            }
        }
        let known = self.remove(id)?;
        Some(self.answer(known, outcome.clone()))
    }

    fn answer(&mut self, known: Known, outcome: Outcome) -> Answer {
        for request in &known.requests {
            self.by_number.remove(&request.number);
        }
        Answer {
            requests: known.requests,
            _permits: known.permits,
            outcome,
        }
    }

    /// Whether a customer is held for the order here.
    pub(super) fn has_customer(&self, id: OrderId) -> bool {
        let known = self.orders.get(&id);
        known.is_some_and(|known| known.requests.iter().any(|request| request.is_customer))
    }

    /// The customers' requests that a proxy sends again.
    pub(super) fn proxied(&self) -> Vec<(OrderId, AttachmentNumber)> {
        let orders = self.orders.iter();
        let proxied = orders.flat_map(|(&id, known)| {
            let requests = known.requests.iter();
            requests
                .filter(|request| request.is_proxied)
                .map(move |request| (id, request.number))
        });
        proxied.collect()
    }

    /// Detaches all requests, or those that only watch. The store is to detach them, too.
    pub(super) fn take_requests(&mut self, watching_only: bool) -> Vec<Request> {
        let mut taken = Vec::new();
        for (&id, known) in &mut self.orders {
            let (out, stay) = std::mem::take(&mut known.requests)
                .into_iter()
                .partition::<SmallVec<_>, _>(|request| !(watching_only && request.is_customer));
            known.requests = stay;
            taken.extend(out.into_iter().map(|request| (id, request)));
        }
        let tell = |&(id, ref request): &(OrderId, Request)| Operation::Leave {
            id,
            attachment: request.number,
        };
        let left: Vec<Operation> = taken.iter().map(tell).collect();
        for operation in left {
            self.tell(operation);
        }
        let taken: Vec<Request> = taken.into_iter().map(|(_, request)| request).collect();
        for request in &taken {
            self.by_number.remove(&request.number);
        }
        taken
    }

    pub(super) fn requests(&self) -> usize {
        self.by_number.len()
    }

    /// All that the store has, for [`Operation::Assert`].
    pub(super) fn asserted(&self) -> Vec<Asserted> {
        let known = self.orders.iter();
        let asserted = known.filter_map(|(&id, known)| {
            let attachments = known.requests.iter();
            let record = known.record.as_ref()?;
            // Of others the customer has left.
            let is_wanted = !known.requests.is_empty() || record.promised || record.key.is_some();
            is_wanted.then(|| Asserted {
                id,
                record: record.clone(),
                attachments: attachments
                    .map(|request| (request.number, request.is_customer))
                    .collect(),
            })
        });
        asserted.collect()
    }

    // --- Baristas --------------------------------------------------------------------------------------------------

    /// The connection has taken the answer with this pull's lease.
    pub(super) fn confirm(&mut self, number: u64) {
        let pull = self.pulls.take(number);
        self.confirmed.extend(pull);
    }

    /// Forgets all waiting baristas: they get no order.
    pub(super) fn take_waiting_pulls(&mut self) -> Vec<Pull> {
        let taken = self.pulls.take_waiting();
        for pull in &taken {
            self.tell(Operation::Quit {
                pull: pull.id().into(),
            });
        }
        taken
    }

    /// Idle baristas and unconfirmed leases, for [`Operation::Settle`]: those that the store has seen.
    pub(super) fn baristas(&self) -> (Vec<IdlePull>, Vec<Box<str>>) {
        let queued = || self.queue.iter().map(|queued| &queued.operation);
        let unseen: HashSet<&str> = queued()
            .filter_map(|operation| match operation {
                Operation::Pull { pull, .. } => Some(&**pull),
                _ => None,
            })
            .collect();
        let (idle, mut unconfirmed) = self.pulls.known(&unseen);
        // Leases that are about to be given back.
        unconfirmed.extend(queued().filter_map(|operation| match operation {
            Operation::GiveBack { pull } => Some(pull.clone()),
            _ => None,
        }));
        (idle, unconfirmed)
    }
}

/// The requests of a final order, to be answered without the lock.
#[derive(Debug)]
#[must_use = "its requests wait for it"]
pub(super) struct Answer {
    requests: SmallVec<[Request; 1]>,
    /// Dropped without the lock, too: flood control takes locks of its own.
    _permits: Permits,
    outcome: Outcome,
}

impl Answer {
    pub(super) fn send(self) {
        for request in self.requests {
            request.answer(self.outcome.clone());
        }
    }
}

/// How the requests of a final order end.
pub(super) fn outcome_of(order: Order) -> Outcome {
    let order = Arc::new(order);
    match order.stage {
        Stage::Ready => Outcome::Ready(order),
        Stage::Waiting | Stage::Brewing | Stage::Cancelled => Outcome::Cancelled(order),
    }
}
