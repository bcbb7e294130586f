//! Who gets an order. Pure.
//!
//! An order goes to the courier of its zone who is available and has the least count (of those with as many: the smallest id);
//! the count then grows by one. If nobody is available it is parked, and given as soon as somebody is: the parked of a zone
//! by the time at which they were added, then by their ids.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::model::{
    AddCourier, AddOrder, Assignment, Courier, CourierId, Event, Join, OrderId, Outcome,
    Whereabouts, Zone,
};

/// How a courier is once this is said. `least` is the least count of those who are available in the zone that is named, others
/// than this courier.
pub fn courier(
    before: Option<&Courier>,
    said: AddCourier,
    join: Join,
    least: Option<u64>,
) -> Courier {
    let count = match (before, join) {
        // The same person, wherever they ride now.
        (Some(before), _) => before.count,
        (None, Join::Zero) => 0,
        (None, Join::Min) => least.unwrap_or(0),
    };
    Courier { said, count }
}

/// What an order that is said again comes to; nothing if it is new.
pub fn duplicate(before: Option<Whereabouts>) -> Option<Outcome> {
    before.map(Outcome::Duplicate)
}

/// What a new order comes to, `least` being who should get it.
pub fn order(least: Option<CourierId>) -> Outcome {
    least.map_or(Outcome::Parked, Outcome::Assigned)
}

/// Everything the desk knows, in memory: what an event log comes to when it is read from its beginning, and what a store must
/// agree with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Board {
    join: Join,
    couriers: BTreeMap<CourierId, Courier>,
    orders: BTreeMap<OrderId, Whereabouts>,
    available: BTreeMap<Zone, BTreeSet<(u64, CourierId)>>,
    parked: BTreeMap<Zone, BTreeSet<(Timestamp, OrderId)>>,
}

impl Board {
    /// Nobody and nothing yet.
    pub fn new(join: Join) -> Self {
        Self {
            join,
            couriers: BTreeMap::new(),
            orders: BTreeMap::new(),
            available: BTreeMap::new(),
            parked: BTreeMap::new(),
        }
    }

    /// What an event comes to, and what is assigned by it, in order.
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

    /// Everybody, by id.
    pub fn couriers(&self) -> &BTreeMap<CourierId, Courier> {
        &self.couriers
    }

    /// Every order, by id.
    pub fn orders(&self) -> &BTreeMap<OrderId, Whereabouts> {
        &self.orders
    }
}

#[cfg(test)]
mod tests;
