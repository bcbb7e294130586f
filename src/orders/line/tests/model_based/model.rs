//! The naive model of the line.

use super::{OrderId, Stage};

/// An order in the model: plain fields, found by scanning.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) id: OrderId,
    pub(super) key: Option<u8>,
    pub(super) from: usize,
    pub(super) placed: u64,
    pub(super) stage: Stage,
    pub(super) ticket: u64,
    pub(super) attempts: u32,
    pub(super) expiries: u32,
    /// The baristas of its attempts.
    pub(super) baristas: Vec<String>,
    pub(super) promised: bool,
    pub(super) customers: Vec<u32>,
    pub(super) watchers: Vec<u32>,
    pub(super) deadline: Option<u64>,
    pub(super) forget_at: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) secs: u64,
    pub(super) orders: Vec<Known>,
    pub(super) idle: Vec<u32>,
    pub(super) tickets: u64,
}

pub(super) const LEASE: u64 = 120;
const GRACE: u64 = 60;
const PROMISE: u64 = 300;
pub(super) const REPLAY: u64 = 600;

impl Model {
    pub(super) fn find(&mut self, id: OrderId) -> Option<&mut Known> {
        self.orders.iter_mut().find(|order| order.id == id)
    }

    pub(super) fn forget(&mut self, id: OrderId) {
        self.orders.retain(|order| order.id != id);
    }

    pub(super) fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    pub(super) fn waiting(&self) -> Vec<&Known> {
        let mut waiting: Vec<_> = self
            .orders
            .iter()
            .filter(|o| o.stage == Stage::Waiting)
            .collect();
        waiting.sort_by_key(|order| order.ticket);
        waiting
    }

    pub(super) fn grant_lease(&mut self, id: OrderId, barista: u32) -> (OrderId, u32) {
        let until = self.secs + LEASE;
        let order = self.find(id).unwrap();
        order.stage = Stage::Brewing;
        order.attempts += 1;
        order.baristas.push(barista.to_string());
        order.deadline = Some(until);
        (id, order.attempts)
    }

    /// A waiting order goes to an idle barista, or is dropped if it has neither customer nor promise.
    pub(super) fn meet(&mut self, id: OrderId) -> Option<(u32, OrderId, u32)> {
        if !self.idle.is_empty() {
            let barista = self.idle.remove(0);
            let (id, attempt) = self.grant_lease(id, barista);
            return Some((barista, id, attempt));
        }
        self.drop_if_unwanted(id);
        None
    }

    pub(super) fn drop_if_unwanted(&mut self, id: OrderId) {
        let (now, order) = (self.secs, self.find(id).unwrap());
        if order.promised || !order.customers.is_empty() {
            self.renew(id);
            return;
        }
        if order.key.is_some() {
            order.deadline = Some(now + GRACE);
        } else {
            self.drop_it(id);
        }
    }

    pub(super) fn renew(&mut self, id: OrderId) {
        let now = self.secs;
        if let Some(order) = self.find(id)
            && order.promised
            && order.stage == Stage::Waiting
        {
            order.deadline = Some(now + PROMISE);
        }
    }

    pub(super) fn drop_it(&mut self, id: OrderId) {
        let order = self.find(id).unwrap();
        order.key = None;
        if order.attempts > 0 {
            self.end(id, Stage::Cancelled);
        } else {
            self.forget(id);
        }
    }

    pub(super) fn end(&mut self, id: OrderId, stage: Stage) -> Vec<u32> {
        let forget_at = self.secs + REPLAY;
        let order = self.find(id).unwrap();
        order.stage = stage;
        order.deadline = None;
        order.forget_at = Some(forget_at);
        let mut receivers = std::mem::take(&mut order.customers);
        receivers.append(&mut order.watchers);
        receivers.sort_unstable();
        receivers
    }

    pub(super) fn back(&mut self, id: OrderId) -> Option<(u32, OrderId, u32)> {
        let order = self.find(id).unwrap();
        order.stage = Stage::Waiting;
        order.deadline = None;
        self.meet(id)
    }

    pub(super) fn pass(&mut self, secs: u64) -> Vec<(u32, OrderId, u32)> {
        self.secs += secs;
        let now = self.secs;
        let mut due: Vec<_> = self
            .orders
            .iter()
            .filter(|order| order.deadline.is_some_and(|at| at <= now))
            .map(|order| (order.ticket, order.id))
            .collect();
        due.sort_unstable();
        let mut offers = Vec::new();
        for (_, id) in due {
            let order = self.find(id).unwrap();
            if order.stage == Stage::Waiting {
                let is_held = !order.customers.is_empty() || !order.watchers.is_empty();
                match (order.promised, is_held) {
                    (true, true) => self.renew(id),
                    (true, false) => drop(self.end(id, Stage::Cancelled)),
                    (false, _) => self.drop_it(id),
                }
                continue;
            }
            let back = self.tickets + 1;
            let order = self.find(id).unwrap();
            order.expiries += 1;
            if order.expiries == 3 {
                order.expiries = 0;
                order.ticket = back;
                self.tickets = back;
            }
            offers.extend(self.back(id));
        }
        self.orders
            .retain(|order| order.forget_at.is_none_or(|at| at > now));
        offers
    }
}
