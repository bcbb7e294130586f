//! Which event may follow which, the bounds, and the retention. Pure.

use super::config::{Config, Graph};
use super::error::Refusal;
use super::model::{Counts, EventType};

/// The types of event that are accepted next: `so_far` is the delivery's state and number of events; None if it has not
/// begun.
pub fn allowed(config: &Config, so_far: Option<(EventType, u32)>) -> Vec<EventType> {
    use EventType::{Crashed, Landed, ParcelCollected, ParcelDelivered, TakenOff};
    let Some((state, events)) = so_far else {
        return vec![ParcelCollected];
    };
    if state.is_final() {
        return Vec::new();
    }
    if events >= config.events_max {
        return vec![Crashed, ParcelDelivered];
    }
    match (config.graph, state) {
        (Graph::Free, _) => vec![TakenOff, Landed, Crashed, ParcelDelivered],
        (Graph::Strict, ParcelCollected) => vec![TakenOff],
        (Graph::Strict, TakenOff) => vec![Landed, Crashed],
        (Graph::Strict, _) => vec![TakenOff, ParcelDelivered],
    }
}

/// The event's sequence.
///
/// # Errors
/// [`Refusal::Illegal`] if it may not follow.
pub fn next(
    config: &Config,
    so_far: Option<(EventType, u32)>,
    event_type: EventType,
) -> Result<u32, Refusal> {
    let allowed = allowed(config, so_far);
    if allowed.contains(&event_type) {
        return Ok(so_far.map_or(0, |(_, events)| events) + 1);
    }
    Err(Refusal::Illegal {
        state: so_far.map(|(state, _)| state),
        allowed,
    })
}

/// Whether one more delivery may begin. The public may use half of the limit: the rest is reserved for the staff's drones.
///
/// # Errors
/// [`Refusal::TooManyOngoing`] if not.
pub fn begin(config: &Config, counts: Counts, is_public: bool) -> Result<(), Refusal> {
    let max = if is_public {
        config.ongoing_max.div_ceil(2)
    } else {
        config.ongoing_max
    };
    if counts.ongoing < max {
        Ok(())
    } else {
        Err(Refusal::TooManyOngoing)
    }
}

/// Deliveries are numbered by their first event, from 1: of `total` deliveries, the last number that is evicted once it is
/// finished.
pub fn evictable_up_to(config: &Config, total: u64) -> u64 {
    total.saturating_sub(config.kept)
}

#[cfg(test)]
mod tests {
    use super::super::model::EventType::{
        Crashed, Landed, ParcelCollected, ParcelDelivered, TakenOff,
    };
    use std::time::Duration;

    use super::*;

    fn config(graph: Graph) -> Config {
        Config {
            stale_after: Duration::from_secs(60),
            graph,
            events_max: 10,
            ongoing_max: 2,
            kept: 1000,
        }
    }

    #[test]
    fn the_first_event_is_the_collection_and_nothing_follows_a_final_one() {
        for graph in [Graph::Free, Graph::Strict] {
            let config = config(graph);
            assert_eq!(allowed(&config, None), [ParcelCollected]);
            for state in [Crashed, ParcelDelivered] {
                assert!(allowed(&config, Some((state, 3))).is_empty());
            }
            for state in EventType::ALL {
                assert!(!allowed(&config, Some((state, 3))).contains(&ParcelCollected));
            }
        }
    }

    #[test]
    fn the_free_graph_takes_any_order_and_the_strict_one_does_not() {
        let free = config(Graph::Free);
        let strict = config(Graph::Strict);
        for (state, event_type, is_strict) in [
            (ParcelCollected, TakenOff, true),
            (ParcelCollected, Landed, false),
            (ParcelCollected, Crashed, false),
            (ParcelCollected, ParcelDelivered, false),
            (TakenOff, Landed, true),
            (TakenOff, Crashed, true),
            (TakenOff, TakenOff, false),
            (TakenOff, ParcelDelivered, false),
            (Landed, TakenOff, true),
            (Landed, ParcelDelivered, true),
            (Landed, Landed, false),
            (Landed, Crashed, false),
        ] {
            assert_eq!(next(&free, Some((state, 4)), event_type), Ok(5));
            let answer = next(&strict, Some((state, 4)), event_type);
            assert_eq!(answer.is_ok(), is_strict, "{state:?} -> {event_type:?}");
            if let Err(Refusal::Illegal {
                state: told,
                allowed,
            }) = answer
            {
                assert_eq!(told, Some(state));
                assert!(!allowed.contains(&event_type));
            }
        }
    }

    #[test]
    fn a_delivery_that_has_too_much_to_tell_may_only_end() {
        let config = config(Graph::Free);
        assert_eq!(next(&config, Some((Landed, 9)), TakenOff), Ok(10));
        assert_eq!(
            next(&config, Some((TakenOff, 10)), Landed),
            Err(Refusal::Illegal {
                state: Some(TakenOff),
                allowed: vec![Crashed, ParcelDelivered]
            })
        );
        assert_eq!(next(&config, Some((TakenOff, 10)), Crashed), Ok(11));
    }

    #[test]
    fn only_so_many_are_ongoing_and_only_so_many_are_kept() {
        let config = config(Graph::Free);
        let counts = |ongoing| Counts { ongoing, total: 7 };
        let full = Err(Refusal::TooManyOngoing);
        assert_eq!(begin(&config, counts(1), false), Ok(()));
        assert_eq!(begin(&config, counts(2), false), full);
        assert_eq!(begin(&config, counts(0), true), Ok(()));
        assert_eq!(begin(&config, counts(1), true), full);
        for (total, last) in [(1, 0), (1000, 0), (1001, 1), (2500, 1500)] {
            assert_eq!(evictable_up_to(&config, total), last);
        }
    }
}
