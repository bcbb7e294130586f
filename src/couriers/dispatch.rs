//! The dispatch rule. Pure.
//!
//! An order is assigned to the available courier of its zone with the lowest count (ties: the smallest id); the count then grows
//! by one. Without an available courier it is parked until there is one: the parked orders of a zone by `added_at`, then by id.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::model::{
    AddCourier, AddOrder, Assignment, Courier, CourierId, Event, Join, OrderId, Outcome,
    Whereabouts, Zone,
};

/// A courier's state after this event. `least` is the lowest count of the other available couriers in the event's zone.
pub fn courier(
    before: Option<&Courier>,
    said: AddCourier,
    join: Join,
    least: Option<u64>,
) -> Courier {
    let count = match (before, join) {
        // The count follows the courier into another zone.
        (Some(before), _) => before.count,
        (None, Join::Zero) => 0,
        (None, Join::Min) => least.unwrap_or(0),
    };
    Courier { said, count }
}

/// The outcome of an order that was reported before; None if it is new.
pub fn duplicate(before: Option<Whereabouts>) -> Option<Outcome> {
    before.map(Outcome::Duplicate)
}

/// The outcome of a new order; `least` is the courier whose turn it is.
pub fn order(least: Option<CourierId>) -> Outcome {
    least.map_or(Outcome::Parked, Outcome::Assigned)
}

/// The desk's state in memory: what replaying an event log produces, and the oracle for the stores' tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Board {
    join: Join,
    couriers: BTreeMap<CourierId, Courier>,
    orders: BTreeMap<OrderId, Whereabouts>,
    available: BTreeMap<Zone, BTreeSet<(u64, CourierId)>>,
    parked: BTreeMap<Zone, BTreeSet<(Timestamp, OrderId)>>,
}

impl Board {
    pub fn new(join: Join) -> Self {
        Self {
            join,
            couriers: BTreeMap::new(),
            orders: BTreeMap::new(),
            available: BTreeMap::new(),
            parked: BTreeMap::new(),
        }
    }

    /// The outcome of an event, and its assignments in order.
    pub fn apply(&mut self, event: &Event) -> (Outcome, Vec<Assignment>) {
        match event {
            Event::Order(order) => self.add_order(order),
            Event::Courier(courier) => self.add_courier(courier.clone()),
        }
    }

    fn add_order(&mut self, added: &AddOrder) -> (Outcome, Vec<Assignment>) {
        if let Some(outcome) = duplicate(self.orders.get(&added.id).copied()) {
            return (outcome, Vec::new());
        }
        let outcome = order(self.least(added.zone));
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
        let known = courier(self.couriers.get(&id), said, self.join, least);
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

    pub fn couriers(&self) -> &BTreeMap<CourierId, Courier> {
        &self.couriers
    }

    pub fn orders(&self) -> &BTreeMap<OrderId, Whereabouts> {
        &self.orders
    }
}

#[cfg(test)]
mod tests;
