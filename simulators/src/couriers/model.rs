//! The model: computes the outcome of each event, that is whose turn it is, which orders wait, and each courier's count.

use std::collections::{BTreeMap, BTreeSet};

use clap::ValueEnum;
use jiff::Timestamp;

use crate::courier_desk::{Courier, Event, Kind, Order, Outcome, Zone};

/// With which count a newcomer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Join {
    /// With none.
    Zero,
    /// With the least of those available in the zone.
    Min,
}

/// A courier after some events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) latest: Courier,
    /// What the shop must show.
    pub(crate) count: u64,
    /// Of which the courier was given none of the orders.
    pub(crate) began_with: u64,
}

/// Couriers and orders after some events.
#[derive(Debug)]
pub(crate) struct Model {
    join: Join,
    pub(crate) couriers: BTreeMap<String, Known>,
    /// Each order's courier; none while the order is parked.
    pub(crate) orders: BTreeMap<String, Option<String>>,
    /// In the order of their turns.
    available: BTreeMap<Zone, BTreeSet<(u64, String)>>,
    /// In the order in which they will be given.
    parked: BTreeMap<Zone, BTreeSet<(Timestamp, String)>>,
}

impl Model {
    pub(crate) fn new(join: Join) -> Self {
        Self {
            join,
            couriers: BTreeMap::new(),
            orders: BTreeMap::new(),
            available: BTreeMap::new(),
            parked: BTreeMap::new(),
        }
    }

    /// Applies the event and returns its expected outcome.
    pub(crate) fn apply(&mut self, event: &Event) -> Outcome {
        match event {
            Event::Order(order) => self.add(order),
            Event::Courier(courier) => self.say(courier),
        }
    }

    fn add(&mut self, order: &Order) -> Outcome {
        if let Some(courier) = self.orders.get(&order.id) {
            return Outcome::of_order(Kind::Duplicate, courier.clone());
        }
        if let Some(courier) = self.give(order.zone, &order.id) {
            return Outcome::of_order(Kind::Assigned, Some(courier));
        }
        let waiting = self.parked.entry(order.zone).or_default();
        waiting.insert((order.added_at, order.id.clone()));
        self.orders.insert(order.id.clone(), None);
        Outcome::of_order(Kind::Parked, None)
    }

    fn say(&mut self, latest: &Courier) -> Outcome {
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
        while let Some(order) = self.longest_waiting(latest.zone) {
            if self.give(latest.zone, &order.1).is_none() {
                break;
            }
            self.parked.entry(latest.zone).or_default().remove(&order);
            unparked += 1;
        }
        Outcome::updated(unparked)
    }

    fn longest_waiting(&self, zone: Zone) -> Option<(Timestamp, String)> {
        self.parked.get(&zone)?.first().cloned()
    }

    /// Assigns an order to the available courier whose turn it is and returns the courier; none if none is available.
    fn give(&mut self, zone: Zone, order: &str) -> Option<String> {
        let turns = self.available.get_mut(&zone)?;
        let (count, id) = turns.pop_first()?;
        turns.insert((count + 1, id.clone()));
        if let Some(courier) = self.couriers.get_mut(&id) {
            courier.count = count + 1;
        }
        self.orders.insert(order.to_owned(), Some(id.clone()));
        Some(id)
    }

    /// The orders that wait in a zone, the longest waiting first.
    pub(crate) fn waiting(&self, zone: Zone) -> impl Iterator<Item = &str> {
        let waiting = self.parked.get(&zone).into_iter().flatten();
        waiting.map(|(_, id)| &id[..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::courier_desk::tests::{courier, order};

    fn assigned(courier: &str) -> Outcome {
        Outcome::of_order(Kind::Assigned, Some(courier.to_owned()))
    }

    fn parked() -> Outcome {
        Outcome::of_order(Kind::Parked, None)
    }

    fn all(join: Join, story: Vec<(Event, Outcome)>) -> Model {
        let mut model = Model::new(join);
        for (event, expected) in story {
            assert_eq!(model.apply(&event), expected, "{event:?}");
        }
        model
    }

    #[test]
    fn the_least_count_is_next_and_of_equals_the_smaller_id() {
        let model = all(
            Join::Zero,
            vec![
                (courier("b", Zone::N, true), Outcome::updated(0)),
                (courier("a", Zone::N, true), Outcome::updated(0)),
                (courier("0", Zone::S, true), Outcome::updated(0)),
                (order("1", Zone::N, 0), assigned("a")),
                (order("2", Zone::N, 0), assigned("b")),
                (order("3", Zone::N, 0), assigned("a")),
                (courier("c", Zone::N, true), Outcome::updated(0)),
                (order("4", Zone::N, 0), assigned("c")),
                (
                    order("3", Zone::N, 0),
                    Outcome::of_order(Kind::Duplicate, Some("a".to_owned())),
                ),
            ],
        );
        assert_eq!(model.couriers["a"].count, 2);
    }

    #[test]
    fn who_waits_longest_is_given_first_once_somebody_is_available() {
        let model = all(
            Join::Zero,
            vec![
                (order("3", Zone::N, 5), parked()),
                (order("2", Zone::N, 7), parked()),
                (order("1", Zone::N, 7), parked()),
                (order("4", Zone::E, 1), parked()),
                (order("4", Zone::E, 1), {
                    Outcome::of_order(Kind::Duplicate, None)
                }),
                (courier("a", Zone::N, false), Outcome::updated(0)),
                (courier("b", Zone::S, true), Outcome::updated(0)),
            ],
        );
        let waiting: Vec<_> = model.waiting(Zone::N).collect();
        assert_eq!(waiting, ["3", "1", "2"]);
        let mut model = model;
        assert_eq!(
            model.apply(&courier("a", Zone::N, true)),
            Outcome::updated(3)
        );
        assert_eq!(model.waiting(Zone::N).count(), 0);
        assert_eq!(model.waiting(Zone::E).count(), 1);
        assert_eq!(model.orders["2"].as_deref(), Some("a"));
    }

    #[test]
    fn a_count_goes_along_and_whoever_is_not_available_gets_nothing() {
        let model = all(
            Join::Zero,
            vec![
                (courier("a", Zone::N, true), Outcome::updated(0)),
                (order("1", Zone::N, 0), assigned("a")),
                // A move may be reported as two events.
                (courier("a", Zone::N, false), Outcome::updated(0)),
                (courier("a", Zone::S, true), Outcome::updated(0)),
                (courier("b", Zone::S, true), Outcome::updated(0)),
                (order("2", Zone::S, 0), assigned("b")),
                (order("3", Zone::S, 0), assigned("a")),
                (order("4", Zone::N, 0), parked()),
            ],
        );
        assert_eq!(model.couriers["a"].count, 2);
    }

    #[test]
    fn a_newcomer_may_begin_with_the_least_of_the_zone() {
        let model = all(
            Join::Min,
            vec![
                (courier("a", Zone::N, true), Outcome::updated(0)),
                (order("1", Zone::N, 0), assigned("a")),
                (order("2", Zone::N, 0), assigned("a")),
                (courier("b", Zone::N, true), Outcome::updated(0)),
                (order("3", Zone::N, 0), assigned("a")),
                (order("4", Zone::N, 0), assigned("b")),
            ],
        );
        let Known {
            count, began_with, ..
        } = model.couriers["b"];
        assert_eq!((count, began_with), (3, 2));
    }
}
