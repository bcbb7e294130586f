//! The oracle of the contract: the simulators' model, in which the dispatch rule is written down a second time.

use std::collections::BTreeMap;

use simulators::couriers::model::{self, Kind, Model};

use crate::couriers::model::{
    AddCourier, Assignment, Courier, CourierId, Event, Join, OrderId, Outcome, Whereabouts,
};

/// The desk's state: what replaying an event log produces.
#[derive(Debug, Clone)]
pub(super) struct Board(Model);

impl Board {
    pub(super) fn new(join: Join) -> Self {
        Self(Model::new(match join {
            Join::Zero => model::Join::Zero,
            Join::Min => model::Join::Min,
        }))
    }

    /// The outcome of an event, and its assignments in order.
    pub(super) fn apply(&mut self, event: &Event) -> (Outcome, Vec<Assignment>) {
        let mut assigned = Vec::new();
        let outcome = self.0.apply(&converted(event), &mut assigned);
        let place = outcome
            .courier_id
            .map_or(Whereabouts::Parked, |courier| with(&courier));
        let outcome = match (outcome.kind, place) {
            (Kind::Updated, _) => Outcome::Updated {
                unparked: outcome.unparked.unwrap(),
            },
            (Kind::Duplicate, place) => Outcome::Duplicate(place),
            (Kind::Assigned, Whereabouts::With(courier)) => Outcome::Assigned(courier),
            (Kind::Assigned | Kind::Parked, _) => Outcome::Parked,
        };
        let assigned = assigned.into_iter().map(|(order, courier)| Assignment {
            order_id: OrderId(order.parse().unwrap()),
            courier_id: CourierId(courier.parse().unwrap()),
        });
        (outcome, assigned.collect())
    }

    pub(super) fn couriers(&self) -> Vec<Courier> {
        let couriers = self.0.couriers.values();
        let couriers = couriers.map(|known| Courier {
            said: said(&known.latest),
            count: known.count,
        });
        couriers.collect()
    }

    pub(super) fn orders(&self) -> BTreeMap<OrderId, Whereabouts> {
        let orders = self.0.orders.clone().into_iter();
        let orders = orders.map(|(order, courier)| {
            let place = courier.map_or(Whereabouts::Parked, |courier| with(&courier));
            (OrderId(order.parse().unwrap()), place)
        });
        orders.collect()
    }
}

fn with(courier: &str) -> Whereabouts {
    Whereabouts::With(CourierId(courier.parse().unwrap()))
}

/// Both are the API's JSON.
fn converted(event: &Event) -> model::Event {
    serde_json::from_value(serde_json::to_value(event).unwrap()).unwrap()
}

fn said(latest: &model::Courier) -> AddCourier {
    serde_json::from_value(serde_json::to_value(latest).unwrap()).unwrap()
}
