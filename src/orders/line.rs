//! The line as a pure state machine: waiting orders, orders under a lease, idle baristas.
//! The queue of idle baristas is here too ([`Line::pull`]): the longest-idle one is served first.
//!
//! It has no lock, no clock and no channel: time is an argument, and the receivers of an outcome are returned. `C` reaches
//! an attached request, `B` an idle barista: channels in the service, numbers in tests. [`super::service`] is the only
//! caller, under one lock, so each call is atomic.
//!
//! Invariants after every call:
//! - no order waits while a barista is idle;
//! - every order in line has a held request, or a promise (202) or a key within its grace.

mod attached;
mod numbers;
mod places;
mod throughput;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use slab::Slab;
use smallvec::SmallVec;

use self::attached::Attached;
use self::numbers::Numbers;
use self::places::{Places, Ticket};
use self::throughput::ThroughputEstimate;
use super::config::Config;
use super::error::{CancelError, FenceError, FinishError, PlaceError};
use super::idempotency::{IdempotencyKey, Keyed};
use super::model::{
    CUPS_MAX, Closed, Crew, Cup, Lease, NEXT_MAX, Now, Order, OrderId, Outcome, Presence, Previous,
    RECENT_MAX, Stage, Survey, View,
};
use crate::values::json::Opaque;

/// Without a barista brewing, idle, pulling or reporting for this long, the crew is away. Longer than one `/start/` may
/// hold (55 s), so that a barista between two of them is not away.
pub(super) const AWAY_AFTER: Duration = Duration::from_secs(60);

/// A request attached to an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attachment {
    slot: u32,
    id: OrderId,
    number: u32,
}

impl Attachment {
    /// The order the request is attached to.
    pub fn order(&self) -> OrderId {
        self.id
    }

    /// Of a shared line, where a server numbers all its requests.
    pub(super) fn shared(id: OrderId, number: u64) -> Self {
        let bytes = number.to_le_bytes();
        let half = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Self {
            slot: half(4),
            id,
            number: half(0),
        }
    }

    /// See [`Attachment::shared`].
    pub(super) fn shared_number(&self) -> u64 {
        u64::from(self.slot) << 32 | u64::from(self.number)
    }
}

/// An idle barista's place among the idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Idle(pub(super) u64);

/// A lease for an idle barista: the caller sends it, or gives it back.
#[derive(Debug)]
#[must_use = "the order is this barista's now: it must be sent on, or given back"]
pub struct Offer<B> {
    pub barista: B,
    pub lease: Lease,
}

/// Released when the order becomes final or leaves the line, by its drop: flood control then stops counting it for its client.
pub type Permit = Box<dyn Any + Send + Sync>;

pub type Permits = SmallVec<[Permit; 1]>;

/// Orders that have changed in one step.
pub type Changed = SmallVec<[OrderId; 2]>;

/// The requests to answer after an order became final.
pub type Receivers<C> = SmallVec<[C; 1]>;

#[derive(Debug)]
pub enum Placed<C, B> {
    /// A new order; with an attachment if the request is held.
    New {
        /// The order.
        id: OrderId,
        /// The request's own handle, if it is held.
        attachment: Option<Attachment>,
        /// A barista was idle and has the lease already.
        offer: Option<Offer<B>>,
    },
    /// The key was known and its order is pending: the request joined it.
    Joined {
        /// The order.
        id: OrderId,
        /// The request's own handle, if it is held.
        attachment: Option<Attachment>,
    },
    /// The key was known and its order is final: the same answer again, and the unused receiver.
    Replayed(Outcome, Option<C>),
}

/// The effect of a customer's disconnect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    Cancelled,
    Graced,
    /// No effect: the order has other requests, is being brewed, or is final.
    Kept,
}

/// An order that was cancelled.
#[derive(Debug)]
pub struct Cancelled<C> {
    /// The order as it ended.
    pub order: Arc<Order>,
    pub already: bool,
    /// The attached requests, to be answered.
    pub receivers: Receivers<C>,
}

/// Where an order went whose lease ended.
#[derive(Debug)]
pub enum Returned<B> {
    /// At its place in line.
    ToLine,
    /// To the longest-idle barista.
    Offered(Offer<B>),
    /// Cancelled: its customer left during brewing.
    Cancelled,
}

/// The answer to a pull.
#[derive(Debug)]
pub enum Pulled {
    /// The oldest order.
    Order(Lease),
    /// No order waits; the barista is idle from now on.
    Idle(Idle),
    /// No order waits, and the barista does not wait for one.
    Nothing,
}

#[derive(Debug)]
pub struct Finished<C> {
    /// The order as it ended.
    pub order: Arc<Order>,
    pub already: bool,
    /// The attached requests, to be answered.
    pub receivers: Receivers<C>,
}

/// An order whose lease expired.
#[derive(Debug)]
pub struct Expired<B> {
    /// The order.
    pub id: OrderId,
    pub attempt: u32,
    pub barista: Option<Box<str>>,
    /// As [`Order::request_id`].
    pub request_id: Option<Box<str>>,
    /// It expired `attempts_max` times and went to the end of the line.
    pub moved_back: bool,
    pub returned: Returned<B>,
}

/// The effect of elapsed time.
#[derive(Debug)]
pub struct Elapsed<B> {
    pub expired: Vec<Expired<B>>,
    /// Orders cancelled because the customer did not reconnect within the grace.
    pub abandoned: usize,
    /// Promised orders cancelled because they were not polled.
    pub unasked: usize,
}

/// Counts for the gauges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Orders in line.
    pub waiting: usize,
    /// Orders with a barista.
    pub brewing: usize,
    /// Finished orders in memory.
    pub ready: usize,
    /// Cancelled orders in memory.
    pub cancelled: usize,
    /// Requests held for an order.
    pub held: usize,
    pub idle_baristas: usize,
    /// Age of the first in line.
    pub oldest_waiting: Duration,
}

#[derive(Debug)]
struct Entry<C> {
    order: Order,
    ticket: Ticket,
    /// Expired leases since the order last joined the end of the line.
    expiries: u32,
    /// A request was answered 202: the order stays without attached requests.
    promised: bool,
    /// Held as long as the order is pending, even if its requests leave.
    permit: Option<Permit>,
    keyed: Option<Keyed>,
    attached: Attached<C>,
    /// When the lease (brewing), or the grace or the promise (waiting), expires.
    deadline: Option<Instant>,
}

impl<C> Entry<C> {
    fn presence(&self) -> Presence {
        let attached = &self.attached;
        Presence::new(attached.has_customer(), !attached.is_empty(), self.promised)
    }
}

#[derive(Debug)]
pub struct Line<C, B> {
    rules: Config,
    entries: Slab<Entry<C>>,
    /// A sorted map on purpose: ids sort by the time of placing, so each operation touches the same few nodes, however long
    /// the line. A hash map would miss the cache each time.
    by_id: BTreeMap<OrderId, u32>,
    by_key: HashMap<IdempotencyKey, u32>,
    places: Places,
    next_ticket: Ticket,
    idle: BTreeMap<Idle, (B, Option<Box<str>>)>,
    next_idle: u64,
    deadlines: BTreeSet<(Instant, u32)>,
    remembered: VecDeque<(Instant, u32)>,
    /// Of `remembered`.
    ready: usize,
    /// Unsorted, and as few as there are baristas.
    brewing: Vec<u32>,
    numbers: Numbers,
    held: usize,
    throughput: ThroughputEstimate,
    /// Permits to be dropped by the caller: their `Drop` is not the line's.
    released: Permits,
    /// When a barista last pulled or reported.
    crew_seen: Option<Instant>,
    /// Orders that have changed, for the caller, who says so to those who watch them.
    changed: Changed,
    /// No new orders are taken.
    shut: Option<Arc<Closed>>,
    /// No order is placed any more.
    closed: bool,
}

impl<C, B> Line<C, B> {
    pub fn new(rules: Config) -> Self {
        Self {
            rules,
            entries: Slab::new(),
            by_id: BTreeMap::new(),
            by_key: HashMap::new(),
            places: Places::default(),
            next_ticket: 0,
            idle: BTreeMap::new(),
            next_idle: 0,
            deadlines: BTreeSet::new(),
            remembered: VecDeque::new(),
            ready: 0,
            brewing: Vec::new(),
            numbers: Numbers::new(),
            held: 0,
            throughput: ThroughputEstimate::new(),
            released: Permits::new(),
            crew_seen: None,
            changed: Changed::new(),
            shut: None,
            closed: false,
        }
    }

    /// Whether an order of this key is pending: a further request joins it.
    pub fn is_pending(&self, key: &IdempotencyKey) -> bool {
        let slot = self.by_key.get(key);
        slot.is_some_and(|&slot| !self.entry(slot).order.stage.is_final())
    }

    // --- Customers -------------------------------------------------------------------------------------------------

    /// A customer orders. With a `receiver` the request is held; without one the order is promised (202) at once.
    ///
    /// # Errors
    /// [`PlaceError::KeyReused`] if the key came with another body before; [`PlaceError::Closed`] after [`Line::shut`];
    /// [`PlaceError::Full`] if too many wait; [`PlaceError::Closing`] after [`Line::close`].
    pub fn place(
        &mut self,
        now: Now,
        order: Order,
        keyed: Option<Keyed>,
        receiver: Option<C>,
    ) -> Result<Placed<C, B>, PlaceError> {
        if self.closed {
            return Err(PlaceError::Closing);
        }
        if let Some(keyed) = &keyed
            && let Some(&slot) = self.by_key.get(&keyed.key)
        {
            return self.place_again(now, slot, keyed, receiver);
        }
        if let Some(closed) = &self.shut {
            return Err(PlaceError::Closed(Arc::clone(closed)));
        }
        if self.places.len() >= self.rules.waiting_max {
            self.advance(now.instant, true);
            return Err(PlaceError::Full {
                retry_after: self.estimate(now.instant, 0),
            });
        }
        let id = order.id;
        let key = keyed.as_ref().map(|keyed| keyed.key.clone());
        let number = self.numbers.take();
        let slot = slot_number(self.entries.insert(Entry {
            order: Order { number, ..order },
            ticket: self.next_ticket,
            expiries: 0,
            promised: receiver.is_none(),
            permit: None,
            keyed,
            attached: Attached::new(),
            deadline: None,
        }));
        self.next_ticket += 1;
        self.by_id.insert(id, slot);
        if let Some(key) = key {
            self.by_key.insert(key, slot);
        }
        let attachment = receiver.map(|receiver| self.attach(slot, true, receiver));
        let offer = self.enter(now, slot);
        self.renew_promise(now, slot);
        Ok(Placed::New {
            id,
            attachment,
            offer,
        })
    }

    fn place_again(
        &mut self,
        now: Now,
        slot: u32,
        again: &Keyed,
        receiver: Option<C>,
    ) -> Result<Placed<C, B>, PlaceError> {
        let entry = self.entry_mut(slot);
        let id = entry.order.id;
        match &mut entry.keyed {
            Some(keyed) if keyed.fingerprint == again.fingerprint => {
                keyed.keep = again.keep.or(keyed.keep);
            }
            _ => return Err(PlaceError::KeyReused { id }),
        }
        if let Some(outcome) = outcome_of(&entry.order) {
            return Ok(Placed::Replayed(outcome, receiver));
        }
        if receiver.is_none() {
            entry.promised = true;
        }
        if entry.order.stage == Stage::Waiting {
            // The customer is back: a running grace ends.
            self.set_deadline(slot, None);
            self.renew_promise(now, slot);
        }
        let attachment = receiver.map(|receiver| self.attach(slot, true, receiver));
        Ok(Placed::Joined { id, attachment })
    }

    /// Attaches a request that waits until the order is final, without being its customer. None if the order is unknown or
    /// final, or the line is closed.
    ///
    /// If an unwanted order is dropped, so is the receiver: the watcher looks again.
    pub fn watch(&mut self, id: OrderId, receiver: C) -> Option<Attachment> {
        let slot = *self.by_id.get(&id)?;
        if self.closed || self.entry(slot).order.stage.is_final() {
            return None;
        }
        Some(self.attach(slot, false, receiver))
    }

    /// A held request ended before its order was final. None if it was not a customer's, or is not attached any more.
    pub fn leave(&mut self, now: Now, attachment: Attachment) -> Option<Left> {
        let (slot, customer) = self.detach(attachment)?;
        customer.then(|| match self.entry(slot).order.stage {
            Stage::Waiting => self.settle_unwanted(now, slot),
            Stage::Brewing | Stage::Ready | Stage::Cancelled => Left::Kept,
        })
    }

    /// A held request is answered 202: it is detached, and the order stays. False if the order is final already.
    pub fn promise(&mut self, now: Now, attachment: Attachment) -> bool {
        let Some((slot, _)) = self.detach(attachment) else {
            return false;
        };
        self.entry_mut(slot).promised = true;
        self.renew_promise(now, slot);
        true
    }

    /// Stores a permit with a pending order. Returns it if the order is final, unknown, or has a permit already.
    pub fn store_permit(&mut self, id: OrderId, permit: Permit) -> Option<Permit> {
        // Nearly always the newest, which is found without comparing ids.
        let newest = self.by_id.last_key_value().filter(|(last, _)| **last == id);
        let slot = newest.map_or_else(|| self.by_id.get(&id).copied(), |(_, &slot)| Some(slot));
        match slot.map(|slot| self.entry_mut(slot)) {
            Some(entry) if entry.permit.is_none() && !entry.order.stage.is_final() => {
                entry.permit = Some(permit);
                None
            }
            _ => Some(permit),
        }
    }

    /// The orders that the steps so far have changed.
    pub fn take_changed(&mut self) -> Changed {
        std::mem::take(&mut self.changed)
    }

    /// The permits that the steps so far have released, to be dropped without the lock.
    pub fn take_released(&mut self) -> Permits {
        std::mem::take(&mut self.released)
    }

    /// Cancels this origin's waiting orders that were placed after `since`. Returns their attached requests and the number
    /// of orders.
    pub fn purge(&mut self, now: Now, origin: IpNet, since: Instant) -> (Vec<C>, usize) {
        let waiting = self.places.iter();
        let theirs: Vec<u32> = waiting
            .filter(|&slot| {
                let order = &self.entry(slot).order;
                order.origin == Some(origin) && order.placed.instant > since
            })
            .collect();
        let mut receivers = Vec::new();
        for &slot in &theirs {
            self.step_out(now, slot);
            let (_, attached) = self.conclude(now, slot, Stage::Cancelled);
            receivers.extend(attached);
        }
        (receivers, theirs.len())
    }

    /// Cancels an order, if it waits.
    ///
    /// # Errors
    /// [`CancelError::Unknown`]; [`CancelError::TooLate`] if it is being brewed or is ready. Cancelling twice is fine.
    pub fn cancel(&mut self, now: Now, id: OrderId) -> Result<Cancelled<C>, CancelError> {
        let slot = *self.by_id.get(&id).ok_or(CancelError::Unknown)?;
        match self.entry(slot).order.stage {
            Stage::Waiting => {
                self.step_out(now, slot);
                let (order, receivers) = self.conclude(now, slot, Stage::Cancelled);
                Ok(Cancelled {
                    order,
                    already: false,
                    receivers,
                })
            }
            Stage::Cancelled => Ok(Cancelled {
                order: Arc::new(self.entry(slot).order.clone()),
                already: true,
                receivers: Receivers::new(),
            }),
            stage @ (Stage::Brewing | Stage::Ready) => Err(CancelError::TooLate { stage }),
        }
    }

    /// As [`Line::view`], for the order's customer: renews `promise_grace`.
    pub fn ask(&mut self, now: Now, id: OrderId) -> Option<View> {
        let slot = *self.by_id.get(&id)?;
        self.renew_promise(now, slot);
        self.view(now, id)
    }

    /// The order with its place in line and estimated wait.
    pub fn view(&mut self, now: Now, id: OrderId) -> Option<View> {
        let slot = *self.by_id.get(&id)?;
        self.advance(now.instant, !self.places.is_empty());
        let entry = self.entry(slot);
        let mut view = View::of(entry.order.clone());
        match entry.order.stage {
            Stage::Waiting => {
                let before = self.places.count_before(entry.ticket);
                view.position = Some(before + 1);
                view.crew = Some(self.crew(now.instant));
                view.estimated_wait = self.estimate(now.instant, before);
                let placed = entry.order.placed;
                let until = entry.deadline.filter(|_| entry.promised);
                view.ask_before = until.map(|until| {
                    placed.wall_after(until.saturating_duration_since(placed.instant))
                });
            }
            Stage::Brewing => {
                view.estimated_wait = self.throughput.estimate_brewing(entry.order.brewed(now));
            }
            Stage::Ready | Stage::Cancelled => {}
        }
        Some(view)
    }

    /// Takes no new orders from now on, or takes them again. Those in line are served.
    pub fn shut(&mut self, closed: Option<Arc<Closed>>) {
        self.shut = closed;
    }

    /// See [`Survey`].
    pub fn survey(&mut self, now: Now) -> Survey {
        self.advance(now.instant, !self.places.is_empty());
        let orders = |slots: &[u32]| {
            let orders = slots.iter().map(|&slot| Order {
                details: None,
                result: None,
                ..self.entry(slot).order.clone()
            });
            orders.collect()
        };
        let next: Vec<u32> = self.places.iter().take(NEXT_MAX).collect();
        let latest = self.remembered.iter().rev().take(RECENT_MAX);
        let recent: Vec<u32> = latest
            .map(|&(_, slot)| slot)
            .filter(|&slot| self.entry(slot).order.stage == Stage::Ready)
            .collect();
        let mut brewing = self.brewing.clone();
        brewing.sort_unstable_by_key(|&slot| {
            let entry = self.entry(slot);
            (entry.deadline, entry.order.id)
        });
        brewing.truncate(CUPS_MAX);
        let cup = |slot| {
            let entry = self.entry(slot);
            let deadline = entry.deadline.unwrap_or(now.instant);
            Cup {
                order: entry.order.clone(),
                remaining: deadline.saturating_duration_since(now.instant),
                presence: entry.presence(),
            }
        };
        Survey {
            now,
            waiting: self.places.len(),
            idle_baristas: self.idle.len(),
            oldest_waiting: self.oldest_waiting(now.instant),
            estimated_wait: self.estimate(now.instant, self.places.len()),
            crew: self.crew(now.instant),
            closed: self.shut.clone(),
            next: orders(&next),
            cups: brewing.into_iter().map(cup).collect(),
            recent: orders(&recent),
        }
    }

    // --- Baristas --------------------------------------------------------------------------------------------------

    /// A barista asks for the oldest order. If none waits, a barista with `reach` becomes idle.
    pub fn pull(&mut self, now: Now, barista: Option<Box<str>>, reach: Option<B>) -> Pulled {
        self.see_crew(now.instant);
        if let Some((ticket, slot)) = self.places.first() {
            self.places.remove(ticket);
            if self.places.is_empty() {
                self.advance(now.instant, true);
            }
            return Pulled::Order(self.grant_lease(now, slot, barista));
        }
        match reach {
            Some(reach) if !self.closed => {
                let idle = Idle(self.next_idle);
                self.next_idle += 1;
                self.idle.insert(idle, (reach, barista));
                Pulled::Idle(idle)
            }
            _ => Pulled::Nothing,
        }
    }

    /// An idle barista no longer waits. False if a lease was already sent to them.
    pub fn quit(&mut self, idle: Idle) -> bool {
        self.idle.remove(&idle).is_some()
    }

    /// Undoes a lease that did not reach its barista. The order goes back to its own place, or to the next idle barista at
    /// once; the barista before is its latest again. None if that lease is over by now.
    pub fn give_back(
        &mut self,
        now: Now,
        id: OrderId,
        attempt: u32,
        previous: Option<Box<Previous>>,
    ) -> Option<Returned<B>> {
        let slot = *self.by_id.get(&id)?;
        let order = &mut self.entry_mut(slot).order;
        if order.stage != Stage::Brewing || order.attempts != attempt {
            return None;
        }
        order.attempts -= 1;
        let previous = previous.map(|previous| *previous);
        let Previous { started, barista } = previous.unwrap_or_default();
        order.started = started;
        order.barista = barista;
        Some(self.return_to_line(now, slot))
    }

    /// Makes an order ready, with a result for its customer. The first finish wins, from any barista, unless it names an
    /// `attempt` that is not current.
    ///
    /// # Errors
    /// [`FinishError::Unknown`]; [`FinishError::NotStarted`] if no barista ever had it, or it was cancelled;
    /// [`FinishError::Fenced`] if `attempt` is not the current one.
    pub fn finish(
        &mut self,
        now: Now,
        id: OrderId,
        attempt: Option<u32>,
        result: Option<Opaque>,
    ) -> Result<Finished<C>, FinishError> {
        let slot = *self.by_id.get(&id).ok_or(FinishError::Unknown)?;
        let order = &self.entry(slot).order;
        let stage = order.stage;
        if stage == Stage::Cancelled || (stage == Stage::Waiting && order.attempts == 0) {
            return Err(FinishError::NotStarted { stage });
        }
        let current = order.current_attempt();
        if attempt.is_some_and(|attempt| attempt != current) {
            return Err(FinishError::Fenced { stage, current });
        }
        if stage == Stage::Ready {
            return Ok(Finished {
                order: Arc::new(order.clone()),
                already: true,
                receivers: Receivers::new(),
            });
        }
        // Before the state changes: this barista still counts as at work, a late order as waiting.
        let waiting = !self.places.is_empty();
        self.advance(now.instant, waiting);
        if stage == Stage::Brewing {
            self.stop_brewing(slot);
        } else {
            // A late finish: the lease expired, and no other barista has finished it since.
            self.step_out(now, slot);
        }
        self.see_crew(now.instant);
        let brew = self.entry(slot).order.brewed(now);
        self.throughput.finished(brew, waiting);
        self.entry_mut(slot).order.result = result;
        let (order, receivers) = self.conclude(now, slot, Stage::Ready);
        Ok(Finished {
            order,
            already: false,
            receivers,
        })
    }

    /// Renews the lease from now.
    ///
    /// # Errors
    /// [`FenceError::Unknown`]; [`FenceError::NotBrewing`]; [`FenceError::Fenced`] if `attempt` is not the current one.
    pub fn extend(
        &mut self,
        now: Now,
        id: OrderId,
        attempt: Option<u32>,
    ) -> Result<Lease, FenceError> {
        let slot = self.brewing_slot(id, attempt)?;
        self.see_crew(now.instant);
        self.set_deadline(slot, Some(now.instant + self.rules.lease));
        self.changed.push(id);
        Ok(self.lease_of(now, slot))
    }

    /// Ends the lease: the order returns to its original place at once.
    ///
    /// # Errors
    /// As [`Line::extend`].
    pub fn release(
        &mut self,
        now: Now,
        id: OrderId,
        attempt: Option<u32>,
    ) -> Result<Returned<B>, FenceError> {
        let slot = self.brewing_slot(id, attempt)?;
        self.see_crew(now.instant);
        Ok(self.return_to_line(now, slot))
    }

    // --- Time ------------------------------------------------------------------------------------------------------

    /// When [`Line::elapse`] is next due, except for evicting final orders.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(at, _)| at)
    }

    /// Expires leases, graces and promises, and evicts final orders.
    pub fn elapse(&mut self, now: Now) -> Elapsed<B> {
        let mut elapsed = Elapsed {
            expired: Vec::new(),
            abandoned: 0,
            unasked: 0,
        };
        // Collected first: an order that goes to an idle barista gets a new deadline at once.
        let mut due = Vec::new();
        while let Some(&(at, slot)) = self.deadlines.first()
            && at <= now.instant
        {
            self.set_deadline(slot, None);
            due.push(slot);
        }
        // Oldest place first, so that the longest-idle barista gets the order that has waited longest.
        due.sort_by_key(|&slot| self.entry(slot).ticket);
        for slot in due {
            let entry = self.entry(slot);
            if entry.order.stage == Stage::Brewing {
                elapsed.expired.push(self.expire(now, slot));
            } else if entry.promised && !entry.attached.is_empty() {
                self.renew_promise(now, slot);
            } else if entry.promised {
                self.step_out(now, slot);
                self.conclude(now, slot, Stage::Cancelled);
                elapsed.unasked += 1;
            } else {
                self.drop_unwanted(now, slot);
                elapsed.abandoned += 1;
            }
        }
        self.forget_until(now.instant);
        elapsed
    }

    fn expire(&mut self, now: Now, slot: u32) -> Expired<B> {
        let attempts_max = self.rules.attempts_max;
        let back = self.next_ticket;
        let entry = self.entry_mut(slot);
        entry.expiries += 1;
        let moved_back = entry.expiries >= attempts_max;
        if moved_back {
            entry.expiries = 0;
            entry.ticket = back;
        }
        let (id, attempt) = (entry.order.id, entry.order.attempts);
        let barista = entry.order.barista.clone();
        let request_id = entry.order.request_id.clone();
        if moved_back {
            self.next_ticket += 1;
        }
        Expired {
            id,
            attempt,
            barista,
            request_id,
            moved_back,
            returned: self.return_to_line(now, slot),
        }
    }

    /// Closes the line for new orders. Returns all held requests and all idle baristas.
    pub fn close(&mut self) -> (Vec<C>, Vec<B>) {
        self.closed = true;
        let mut receivers = Vec::with_capacity(self.held);
        for (_, entry) in &mut self.entries {
            receivers.extend(entry.attached.take());
        }
        self.held = 0;
        let idle = std::mem::take(&mut self.idle);
        (
            receivers,
            idle.into_values().map(|(reach, _)| reach).collect(),
        )
    }

    /// Counts for the gauges.
    pub fn figures(&self, now: Instant) -> Figures {
        Figures {
            waiting: self.places.len(),
            brewing: self.brewing.len(),
            ready: self.ready,
            cancelled: self.remembered.len() - self.ready,
            held: self.held,
            idle_baristas: self.idle.len(),
            oldest_waiting: self.oldest_waiting(now).unwrap_or_default(),
        }
    }

    fn oldest_waiting(&self, now: Instant) -> Option<Duration> {
        let (_, first) = self.places.first()?;
        Some(now.saturating_duration_since(self.entry(first).order.placed.instant))
    }

    // --- Steps -----------------------------------------------------------------------------------------------------

    fn entry(&self, slot: u32) -> &Entry<C> {
        &self.entries[slot as usize]
    }

    fn entry_mut(&mut self, slot: u32) -> &mut Entry<C> {
        &mut self.entries[slot as usize]
    }

    fn attach(&mut self, slot: u32, customer: bool, receiver: C) -> Attachment {
        self.held += 1;
        let entry = self.entry_mut(slot);
        let number = entry.attached.add(customer, receiver);
        Attachment {
            slot,
            id: entry.order.id,
            number,
        }
    }

    fn detach(&mut self, attachment: Attachment) -> Option<(u32, bool)> {
        let slot = attachment.slot;
        let entry = self.entries.get_mut(slot as usize)?;
        if entry.order.id != attachment.id {
            return None;
        }
        let customer = entry.attached.remove(attachment.number)?;
        self.held -= 1;
        Some((slot, customer))
    }

    /// Inserts an order at its place, or leases it to the longest-idle barista.
    fn enter(&mut self, now: Now, slot: u32) -> Option<Offer<B>> {
        let entry = self.entry(slot);
        let (ticket, id) = (entry.ticket, entry.order.id);
        if let Some((_, (barista, name))) = self.idle.pop_first() {
            let lease = self.grant_lease(now, slot, name);
            return Some(Offer { barista, lease });
        }
        if self.places.is_empty() {
            self.advance(now.instant, false);
        }
        self.places.insert(ticket, slot);
        self.changed.push(id);
        None
    }

    fn grant_lease(&mut self, now: Now, slot: u32, barista: Option<Box<str>>) -> Lease {
        if self.brewing.is_empty() {
            // Account for the time before with the smaller crew.
            self.advance(now.instant, !self.places.is_empty());
        }
        let order = &mut self.entry_mut(slot).order;
        order.stage = Stage::Brewing;
        let previous = Previous {
            started: order.started.replace(now),
            barista: std::mem::replace(&mut order.barista, barista),
        };
        let previous = (order.attempts > 0).then(|| Box::new(previous));
        order.attempts += 1;
        let id = order.id;
        self.brewing.push(slot);
        self.changed.push(id);
        self.crew_seen = Some(now.instant);
        self.set_deadline(slot, Some(now.instant + self.rules.lease));
        Lease {
            previous,
            ..self.lease_of(now, slot)
        }
    }

    fn lease_of(&self, now: Now, slot: u32) -> Lease {
        let entry = self.entry(slot);
        Lease {
            id: entry.order.id,
            number: entry.order.number,
            customer: entry.order.customer.clone(),
            request_id: entry.order.request_id.clone(),
            details: entry.order.details.clone(),
            attempt: entry.order.attempts,
            placed_at: entry.order.placed.wall,
            waited: entry.order.waited(now),
            lease_expires_at: now.wall_after(self.rules.lease),
            remaining: self.rules.lease,
            customer_waiting: !entry.attached.is_empty(),
            presence: entry.presence(),
            previous: None,
            pull: 0,
        }
    }

    fn see_crew(&mut self, now: Instant) {
        let left = self.crew_left_at();
        if self.crew_seen.is_none() || left.is_some_and(|left| left <= now) {
            // Time without a crew is not measured.
            self.advance(now, !self.places.is_empty());
        }
        self.crew_seen = Some(now);
    }

    /// When the crew counts as away; none while a barista brews or is idle.
    fn crew_left_at(&self) -> Option<Instant> {
        if !self.brewing.is_empty() || !self.idle.is_empty() {
            return None;
        }
        self.crew_seen.map(|seen| seen + AWAY_AFTER)
    }

    fn crew(&self, now: Instant) -> Crew {
        let at_work = !self.brewing.is_empty() || !self.idle.is_empty();
        let seen = self
            .crew_seen
            .is_some_and(|seen| now.saturating_duration_since(seen) < AWAY_AFTER);
        if at_work || seen {
            Crew::Present
        } else {
            Crew::Away
        }
    }

    /// Advances the measurement to `now`. `waited`: an order was in line ever since the last call. Time without a crew does
    /// not count.
    fn advance(&mut self, now: Instant, waited: bool) {
        let waited = waited && self.crew_seen.is_some();
        match self.crew_left_at() {
            Some(left) if left < now => {
                self.throughput.advance(left, waited);
                self.throughput.advance(now, false);
            }
            _ => self.throughput.advance(now, waited),
        }
    }

    /// Time until an order with `before` others ahead of it is ready, if the crew is present and its pace is known.
    fn estimate(&self, now: Instant, before: usize) -> Option<Duration> {
        match self.crew(now) {
            Crew::Present => self.throughput.estimate(before, self.brewing.len()),
            Crew::Away => None,
        }
    }

    fn brewing_slot(&self, id: OrderId, attempt: Option<u32>) -> Result<u32, FenceError> {
        let slot = *self.by_id.get(&id).ok_or(FenceError::Unknown)?;
        let order = &self.entry(slot).order;
        let stage = order.stage;
        if stage != Stage::Brewing {
            return Err(FenceError::NotBrewing { stage });
        }
        let current = order.current_attempt();
        if attempt.is_some_and(|attempt| attempt != current) {
            return Err(FenceError::Fenced { stage, current });
        }
        Ok(slot)
    }

    fn stop_brewing(&mut self, slot: u32) {
        if let Some(at) = self.brewing.iter().position(|&other| other == slot) {
            self.brewing.swap_remove(at);
        }
        self.set_deadline(slot, None);
    }

    fn return_to_line(&mut self, now: Now, slot: u32) -> Returned<B> {
        if self.brewing.len() == 1 {
            self.advance(now.instant, !self.places.is_empty());
        }
        self.stop_brewing(slot);
        self.entry_mut(slot).order.stage = Stage::Waiting;
        if let Some(offer) = self.enter(now, slot) {
            return Returned::Offered(offer);
        }
        // The customer may have left during brewing.
        match self.settle_unwanted(now, slot) {
            Left::Cancelled => Returned::Cancelled,
            Left::Graced | Left::Kept => Returned::ToLine,
        }
    }

    /// Drops a waiting order without customer or promise: at once, or after the grace if it has a key.
    fn settle_unwanted(&mut self, now: Now, slot: u32) -> Left {
        let entry = self.entry(slot);
        if entry.promised || entry.attached.has_customer() {
            self.renew_promise(now, slot);
            return Left::Kept;
        }
        if let Some(keyed) = &entry.keyed {
            let keep = keyed.keep.unwrap_or(self.rules.reconnect_grace);
            self.set_deadline(slot, Some(now.instant + keep));
            return Left::Graced;
        }
        self.drop_unwanted(now, slot);
        Left::Cancelled
    }

    /// Renews the `promise_grace` of a promised order in line.
    fn renew_promise(&mut self, now: Now, slot: u32) {
        let entry = self.entry(slot);
        if entry.promised && entry.order.stage == Stage::Waiting {
            self.set_deadline(slot, Some(now.instant + self.rules.promise_grace));
        }
    }

    /// Removes an order and frees its key. If a barista has had it, it stays in memory as cancelled: that barista may still
    /// report it.
    fn drop_unwanted(&mut self, now: Now, slot: u32) {
        self.step_out(now, slot);
        let entry = self.entry_mut(slot);
        let was_started = entry.order.attempts > 0;
        if let Some(keyed) = entry.keyed.take() {
            self.by_key.remove(&keyed.key);
        }
        if was_started {
            self.conclude(now, slot, Stage::Cancelled);
        } else {
            let entry = self.entry(slot);
            let (id, number) = (entry.order.id, entry.order.number);
            self.changed.push(id);
            self.numbers.free(number);
            self.forget(slot);
        }
    }

    fn step_out(&mut self, now: Now, slot: u32) {
        let ticket = self.entry(slot).ticket;
        self.places.remove(ticket);
        if self.places.is_empty() {
            self.advance(now.instant, true);
        }
        self.set_deadline(slot, None);
    }

    fn set_deadline(&mut self, slot: u32, deadline: Option<Instant>) {
        let entry = &mut self.entries[slot as usize];
        if let Some(old) = std::mem::replace(&mut entry.deadline, deadline) {
            self.deadlines.remove(&(old, slot));
        }
        if let Some(new) = deadline {
            self.deadlines.insert((new, slot));
        }
    }

    /// Makes the order final. Returns the attached requests, to be answered.
    fn conclude(&mut self, now: Now, slot: u32, stage: Stage) -> (Arc<Order>, Receivers<C>) {
        let forget_at = now.instant + self.rules.replay;
        let entry = self.entry_mut(slot);
        entry.order.stage = stage;
        entry.order.details = None;
        entry.order.ended = Some(now);
        entry.order.delivered = stage == Stage::Ready && !entry.attached.is_empty();
        let permit = entry.permit.take();
        let receivers: Receivers<C> = entry.attached.take().collect();
        let order = Arc::new(entry.order.clone());
        self.numbers.free(order.number);
        self.changed.push(order.id);
        self.released.extend(permit);
        self.held -= receivers.len();
        self.ready += usize::from(stage == Stage::Ready);
        self.remembered.push_back((forget_at, slot));
        while self.remembered.len() > self.rules.remembered_max {
            self.forget_oldest();
        }
        (order, receivers)
    }

    fn forget_until(&mut self, now: Instant) {
        while self.remembered.front().is_some_and(|&(at, _)| at <= now) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, slot)) = self.remembered.pop_front() {
            self.ready -= usize::from(self.entry(slot).order.stage == Stage::Ready);
            self.forget(slot);
        }
    }

    /// Removes an order that is neither in line nor under a lease.
    fn forget(&mut self, slot: u32) {
        let entry = self.entries.remove(slot as usize);
        self.released.extend(entry.permit);
        self.held -= entry.attached.len();
        self.by_id.remove(&entry.order.id);
        if let Some(keyed) = entry.keyed {
            self.by_key.remove(&keyed.key);
        }
    }
}

fn slot_number(slot: usize) -> u32 {
    u32::try_from(slot)
        .expect("fewer than 2^32 orders fit into memory: each takes more than 200 bytes")
}

fn outcome_of(order: &Order) -> Option<Outcome> {
    match order.stage {
        Stage::Ready => Some(Outcome::Ready(Arc::new(order.clone()))),
        Stage::Cancelled => Some(Outcome::Cancelled(Arc::new(order.clone()))),
        Stage::Waiting | Stage::Brewing => None,
    }
}

#[cfg(test)]
pub(super) mod tests;
