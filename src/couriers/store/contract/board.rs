//! The oracle of the contract: the dispatch rule, applied to a state in memory.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::couriers::dispatch;
use crate::couriers::model::{
    AddCourier, AddOrder, Assignment, Courier, CourierId, Event, Join, OrderId, Outcome,
    Whereabouts, Zone,
};

/// The desk's state: what replaying an event log produces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Board {
    join: Join,
    couriers: BTreeMap<CourierId, Courier>,
    orders: BTreeMap<OrderId, Whereabouts>,
    available: BTreeMap<Zone, BTreeSet<(u64, CourierId)>>,
    parked: BTreeMap<Zone, BTreeSet<(Timestamp, OrderId)>>,
}

impl Board {
    pub(super) fn new(join: Join) -> Self {
        Self {
            join,
            couriers: BTreeMap::new(),
            orders: BTreeMap::new(),
            available: BTreeMap::new(),
            parked: BTreeMap::new(),
        }
    }

    /// The outcome of an event, and its assignments in order.
    pub(super) fn apply(&mut self, event: &Event) -> (Outcome, Vec<Assignment>) {
        match event {
            Event::Order(order) => self.add_order(order),
            Event::Courier(courier) => self.add_courier(courier.clone()),
        }
    }

    fn add_order(&mut self, added: &AddOrder) -> (Outcome, Vec<Assignment>) {
        if let Some(outcome) = dispatch::duplicate(self.orders.get(&added.id).copied()) {
            return (outcome, Vec::new());
        }
        let outcome = dispatch::order(self.least(added.zone));
        let Outcome::Assigned(courier) = outcome else {
            self.orders.insert(added.id, Whereabouts::Parked);
            let parked = self.parked.entry(added.zone).or_default();
            parked.insert((added.added_at, added.id));
            return (outcome, Vec::new());
        };
        (outcome, vec![self.give(added.id, courier)])
    }

    fn add_courier(&mut self, said: AddCourier) -> (Outcome, Vec<Assignment>) {
        let (id, zone) = (said.id, said.zone);
        if let Some(before) = self.couriers.get(&id) {
            let place = (before.count, id);
            self.available
                .entry(before.said.zone)
                .or_default()
                .remove(&place);
        }
        let least = self.available.get(&zone).and_then(BTreeSet::first);
        let least = least.map(|&(count, _)| count);
        let known = dispatch::courier(self.couriers.get(&id), said, self.join, least);
        if known.said.is_available {
            self.available
                .entry(zone)
                .or_default()
                .insert((known.count, id));
        }
        self.couriers.insert(id, known);
        let mut assignments = Vec::new();
        while let Some(courier) = self.least(zone) {
            let Some((_, order)) = self.parked.entry(zone).or_default().pop_first() else {
                break;
            };
            assignments.push(self.give(order, courier));
        }
        let unparked = assignments.len() as u64;
        (Outcome::Updated { unparked }, assignments)
    }

    fn least(&self, zone: Zone) -> Option<CourierId> {
        let first = self.available.get(&zone).and_then(BTreeSet::first);
        first.map(|&(_, courier)| courier)
    }

    fn give(&mut self, order_id: OrderId, courier_id: CourierId) -> Assignment {
        self.orders.insert(order_id, Whereabouts::With(courier_id));
        if let Some(courier) = self.couriers.get_mut(&courier_id) {
            let available = self.available.entry(courier.said.zone).or_default();
            available.remove(&(courier.count, courier_id));
            courier.count += 1;
            available.insert((courier.count, courier_id));
        }
        Assignment {
            order_id,
            courier_id,
        }
    }

    pub(super) fn couriers(&self) -> &BTreeMap<CourierId, Courier> {
        &self.couriers
    }

    pub(super) fn orders(&self) -> &BTreeMap<OrderId, Whereabouts> {
        &self.orders
    }
}

#[cfg(test)]
mod tests;
