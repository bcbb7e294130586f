//! The rule of dispatch, written down a second time: whose turn it is, which orders wait, and each courier's count. Pure: no
//! I/O, no clock.

use std::collections::{BTreeMap, BTreeSet};

use clap::ValueEnum;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A part of the town.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Zone {
    N,
    S,
    E,
    W,
}

impl Zone {
    pub const ALL: [Self; 4] = [Self::N, Self::S, Self::E, Self::W];
}

/// A courier's name, zone and availability, as of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Courier {
    #[serde(rename = "courierId")]
    pub id: String,
    pub name: String,
    pub zone: Zone,
    pub is_available: bool,
}

/// An order that needs a courier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    #[serde(rename = "orderId")]
    pub id: String,
    pub details: String,
    pub zone: Zone,
    /// To the microsecond, as the server stores it.
    pub added_at: Timestamp,
}

/// An event; its fields decide which variant it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Event {
    Courier(Courier),
    Order(Order),
}

impl Event {
    /// As it is sent.
    pub(crate) fn json(&self) -> String {
        serde_json::to_string(self).expect("an event is plain data")
    }
}

/// The kind of an event's outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Assigned,
    Parked,
    Updated,
    Duplicate,
}

/// The outcome of an event.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    #[serde(rename = "outcome")]
    pub kind: Kind,
    /// The order's courier, if it has one.
    #[serde(default)]
    pub courier_id: Option<String>,
    /// Orders that had waited and are assigned with this event.
    #[serde(default)]
    pub unparked: Option<u64>,
}

impl Outcome {
    fn of_order(kind: Kind, courier_id: Option<String>) -> Self {
        Self {
            kind,
            courier_id,
            unparked: None,
        }
    }
}

/// The count with which a new courier begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Join {
    /// With none.
    Zero,
    /// With the least of those available in the zone.
    Min,
}

/// A courier after some events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub latest: Courier,
    pub count: u64,
    /// The part of `count` that is not the courier's own orders.
    pub began_with: u64,
}

/// Couriers and orders after some events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    join: Join,
    pub couriers: BTreeMap<String, Known>,
    /// Each order's courier; none while the order is parked.
    pub orders: BTreeMap<String, Option<String>>,
    /// In the order of their turns.
    available: BTreeMap<Zone, BTreeSet<(u64, String)>>,
    /// In the order in which they will be assigned.
    parked: BTreeMap<Zone, BTreeSet<(Timestamp, String)>>,
}

impl Model {
    pub fn new(join: Join) -> Self {
        Self {
            join,
            couriers: BTreeMap::new(),
            orders: BTreeMap::new(),
            available: BTreeMap::new(),
            parked: BTreeMap::new(),
        }
    }

    /// Applies the event and returns its outcome. Appends new assignments, order and courier, to `assigned`.
    pub fn apply(&mut self, event: &Event, assigned: &mut Vec<(String, String)>) -> Outcome {
        match event {
            Event::Order(order) => self.add(order, assigned),
            Event::Courier(courier) => self.update(courier, assigned),
        }
    }

    fn add(&mut self, order: &Order, assigned: &mut Vec<(String, String)>) -> Outcome {
        if let Some(courier) = self.orders.get(&order.id) {
            return Outcome::of_order(Kind::Duplicate, courier.clone());
        }
        if let Some(courier) = self.assign(order.zone, &order.id, assigned) {
            return Outcome::of_order(Kind::Assigned, Some(courier));
        }
        let waiting = self.parked.entry(order.zone).or_default();
        waiting.insert((order.added_at, order.id.clone()));
        self.orders.insert(order.id.clone(), None);
        Outcome::of_order(Kind::Parked, None)
    }

    fn update(&mut self, latest: &Courier, assigned: &mut Vec<(String, String)>) -> Outcome {
        let before = self.couriers.remove(&latest.id);
        if let Some(before) = &before {
            let turns = self.available.entry(before.latest.zone).or_default();
            turns.remove(&(before.count, latest.id.clone()));
        }
        let turns = self.available.entry(latest.zone).or_default();
        let least = turns.first().map_or(0, |(count, _)| *count);
        let (count, began_with) = match (before, self.join) {
            (Some(before), _) => (before.count, before.began_with),
            (None, Join::Zero) => (0, 0),
            (None, Join::Min) => (least, least),
        };
        if latest.is_available {
            turns.insert((count, latest.id.clone()));
        }
        let known = Known {
            latest: latest.clone(),
            count,
            began_with,
        };
        self.couriers.insert(latest.id.clone(), known);
        let mut unparked = 0;
        while let Some(order) = self
            .parked
            .get(&latest.zone)
            .and_then(BTreeSet::first)
            .cloned()
        {
            if self.assign(latest.zone, &order.1, assigned).is_none() {
                break;
            }
            self.parked.entry(latest.zone).or_default().remove(&order);
            unparked += 1;
        }
        Outcome {
            kind: Kind::Updated,
            courier_id: None,
            unparked: Some(unparked),
        }
    }

    /// Assigns an order to the available courier whose turn it is and returns the courier; none if none is available.
    fn assign(
        &mut self,
        zone: Zone,
        order: &str,
        assigned: &mut Vec<(String, String)>,
    ) -> Option<String> {
        let turns = self.available.get_mut(&zone)?;
        let (count, id) = turns.pop_first()?;
        turns.insert((count + 1, id.clone()));
        if let Some(courier) = self.couriers.get_mut(&id) {
            courier.count = count + 1;
        }
        self.orders.insert(order.to_owned(), Some(id.clone()));
        assigned.push((order.to_owned(), id.clone()));
        Some(id)
    }

    /// The orders that wait in a zone, the longest waiting first.
    pub fn waiting(&self, zone: Zone) -> impl Iterator<Item = &str> {
        let waiting = self.parked.get(&zone).into_iter().flatten();
        waiting.map(|(_, id)| &id[..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn courier(id: &str, zone: Zone, is_available: bool) -> Event {
        Event::Courier(Courier {
            id: id.to_owned(),
            name: String::new(),
            zone,
            is_available,
        })
    }

    fn order(id: &str, second: i64) -> Event {
        Event::Order(Order {
            id: id.to_owned(),
            details: String::new(),
            zone: Zone::N,
            added_at: Timestamp::from_second(second).unwrap(),
        })
    }

    /// The assignments of the events, in order.
    fn assigned(join: Join, events: &[Event]) -> String {
        let (mut model, mut assigned) = (Model::new(join), Vec::new());
        for event in events {
            model.apply(event, &mut assigned);
        }
        let pairs = assigned
            .iter()
            .map(|(order, courier)| format!("{order}{courier}"));
        pairs.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_least_count_is_next_then_the_id_and_the_oldest_order_waits_no_longer() {
        let waiting = [order("2", 2), order("1", 1), order("3", 2)];
        let arrived = [courier("b", Zone::N, true), courier("a", Zone::N, true)];
        let later = [order("4", 0), order("5", 0), order("4", 0)];
        let events = [&waiting[..], &arrived, &later].concat();
        assert_eq!(assigned(Join::Zero, &events), "1b 2b 3b 4a 5a");
        assert_eq!(assigned(Join::Min, &events), "1b 2b 3b 4a 5b");
        let moved = [courier("b", Zone::S, true), courier("b", Zone::N, false)];
        let events = [&arrived[..], &[order("1", 1)], &moved, &[order("2", 1)]].concat();
        assert_eq!(assigned(Join::Zero, &events), "1a 2a");
    }
}
