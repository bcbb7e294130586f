//! The dispatch rule. Pure.
//!
//! An order is assigned to the available courier of its zone with the lowest count (ties: the smallest id); the count then grows
//! by one. Without an available courier it is parked until there is one: the parked orders of a zone by `added_at`, then by id.

use super::model::{AddCourier, Courier, CourierId, Join, Outcome, Whereabouts};

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

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::model::Zone;
    use super::*;

    fn said(zone: Zone) -> AddCourier {
        AddCourier {
            id: CourierId(Uuid::from_u128(1)),
            name: "somebody".into(),
            zone,
            is_available: true,
        }
    }

    #[test]
    fn a_newcomer_to_an_empty_zone_begins_with_none() {
        let newcomer = courier(None, said(Zone::N), Join::Min, None);
        assert_eq!(newcomer.count, 0);
        let known = Courier {
            count: 7,
            ..newcomer
        };
        assert_eq!(
            courier(Some(&known), said(Zone::S), Join::Min, Some(3)).count,
            7
        );
    }
}
