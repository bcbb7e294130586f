//! The events of a run, drawn before it begins: the same seed draws the same events, except for the ids, which are new.

use std::iter::repeat_n;

use fastrand::Rng;
use jiff::{SignedDuration, Timestamp};

use crate::{
    courier_desk::{Courier, EVENTS_MAX, Event, Order, Zone},
    ids::uuid,
};

/// One in so many orders is reported before any courier is.
const EARLY_ONE_IN: usize = 4;
/// When the first order was added.
const BEGAN: Timestamp = Timestamp::constant(1_626_603_730, 0);
/// Orders were added within so many seconds of it, some at the same moment.
const ADDED_WITHIN_S: i64 = 600;
/// Most events of a request; now and then it is as many as there may be.
const LIST_MAX: usize = 40;
const LARGE_LIST_ONE_IN: u32 = 50;

/// How much there is to tell.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) orders: u64,
    pub(crate) couriers: u64,
    /// Of each courier, after the first event.
    pub(crate) changes: u32,
    pub(crate) connections: usize,
    /// Share of events that are sent again.
    pub(crate) duplicates: f64,
}

/// The events of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) events: Vec<Event>,
    /// Sent as a list, even with a single event.
    pub(crate) is_list: bool,
}

impl Request {
    pub(crate) fn body(&self) -> String {
        let events: Vec<_> = self.events.iter().map(Event::json).collect();
        if self.is_list {
            return format!("[{}]", events.join(","));
        }
        events.concat()
    }
}

/// Each connection's requests, which it sends one after the other. All events of a courier use one connection.
pub(crate) type Phase = Vec<Vec<Request>>;

/// What the next event is about.
#[derive(Debug, Clone)]
enum Turn {
    Order(Event),
    /// The next that is said of the courier with this number.
    Of(usize),
}

/// A run: orders, and after all of them, couriers and further orders. Ids begin with the digits of `run`.
pub(crate) fn draw(extent: Extent, seed: u64, run: u64) -> [Phase; 2] {
    let mut chance = Rng::with_seed(seed);
    let mut id = {
        let mut chance = chance.fork();
        move || uuid(u128::from(run) << 64 | u128::from(chance.u64(..)))
    };
    let orders: Vec<Event> = (0..extent.orders)
        .map(|_| Event::Order(order(id(), &mut chance)))
        .collect();
    let couriers: Vec<_> = (0..extent.couriers)
        .map(|number| story(id(), number, extent.changes, &mut chance))
        .collect();
    let early = orders.len().div_ceil(EARLY_ONE_IN);
    let (early, late) = orders.split_at(early);

    let mut phases = [(); 2].map(|()| vec![Vec::<Event>::new(); extent.connections]);
    let mut anywhere = chance.fork();
    let mut somewhere = || anywhere.usize(..extent.connections);
    // A redelivered event of the same phase may arrive before the first.
    let mut orders_by_phase = [early.to_vec(), late.to_vec()];
    for (number, event) in orders.iter().enumerate() {
        if chance.f64() < extent.duplicates {
            let first = usize::from(number >= early.len());
            orders_by_phase[chance.usize(first..2)].push(event.clone());
        }
    }
    let [mut early, late] = orders_by_phase;
    chance.shuffle(&mut early);
    for event in early {
        phases[0][somewhere()].push(event);
    }
    let stories = couriers.iter().enumerate();
    let turns = stories.flat_map(|(courier, story)| repeat_n(Turn::Of(courier), story.len()));
    let mut turns: Vec<Turn> = turns.chain(late.into_iter().map(Turn::Order)).collect();
    chance.shuffle(&mut turns);
    let mut stories: Vec<_> = couriers.into_iter().map(Vec::into_iter).collect();
    for turn in turns {
        match turn {
            Turn::Order(event) => phases[1][somewhere()].push(event),
            Turn::Of(courier) => {
                // Of a courier the last event counts, so it is redelivered before the next.
                let times = 1 + usize::from(chance.f64() < extent.duplicates);
                let event = stories[courier].next().map(Event::Courier);
                let copies = event.into_iter().flat_map(|event| repeat_n(event, times));
                phases[1][courier % extent.connections].extend(copies);
            }
        }
    }
    phases.map(|phase| {
        let connections = phase.into_iter();
        connections
            .map(|events| requests(events, &mut chance))
            .collect()
    })
}

fn zone(chance: &mut Rng) -> Zone {
    Zone::ALL[chance.usize(..Zone::ALL.len())]
}

fn order(id: String, chance: &mut Rng) -> Order {
    // Half a second and a microsecond are the only fractions, so that some are added at the same moment.
    let micros = 500_000 * chance.i64(0..2 * ADDED_WITHIN_S) + chance.i64(0..2);
    Order {
        details: format!("{} parcels", chance.u8(1..)),
        zone: zone(chance),
        added_at: BEGAN + SignedDuration::from_micros(micros),
        id,
    }
}

/// All that is said of a courier: most come available, and then one thing changes at a time.
fn story(id: String, number: u64, changes: u32, chance: &mut Rng) -> Vec<Courier> {
    let mut courier = Courier {
        name: format!("Courier {number}"),
        zone: zone(chance),
        is_available: chance.u8(..4) > 0,
        id,
    };
    let mut story = vec![courier.clone()];
    for change in 1..=changes {
        match chance.u8(..10) {
            0..6 => courier.is_available = !courier.is_available,
            6..9 => courier.zone = zone(chance),
            _ => courier.name = format!("Courier {number}, {change} times renamed"),
        }
        story.push(courier.clone());
    }
    story
}

/// Single events and lists of them.
fn requests(events: Vec<Event>, chance: &mut Rng) -> Vec<Request> {
    let mut requests = Vec::new();
    let mut events = events.into_iter().peekable();
    while events.peek().is_some() {
        let is_list = chance.bool();
        let most = if chance.u32(..LARGE_LIST_ONE_IN) == 0 {
            EVENTS_MAX
        } else {
            chance.usize(1..=LIST_MAX)
        };
        let count = if is_list { most } else { 1 };
        requests.push(Request {
            events: events.by_ref().take(count).collect(),
            is_list,
        });
    }
    requests
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    const EXTENT: Extent = Extent {
        orders: 400,
        couriers: 20,
        changes: 5,
        connections: 3,
        duplicates: 0.25,
    };

    fn events(phase: &Phase) -> impl Iterator<Item = &Event> {
        phase.iter().flatten().flat_map(|request| &request.events)
    }

    fn ids(phases: &[Phase; 2]) -> BTreeSet<String> {
        let all = phases.iter().flat_map(events);
        all.map(|event| match event {
            Event::Courier(courier) => courier.id.clone(),
            Event::Order(order) => order.id.clone(),
        })
        .collect()
    }

    #[test]
    fn the_same_seed_tells_the_same_of_others() {
        assert_eq!(draw(EXTENT, 7, 1), draw(EXTENT, 7, 1));
        let (one, other) = (draw(EXTENT, 7, 1), draw(EXTENT, 7, 2));
        assert!(ids(&one).is_disjoint(&ids(&other)));
        let sizes = |phases: &[Phase; 2]| -> Vec<usize> {
            let requests = phases.iter().flatten().flatten();
            requests.map(|request| request.events.len()).collect()
        };
        assert_eq!(sizes(&one), sizes(&other));
        assert_ne!(sizes(&one), sizes(&draw(EXTENT, 8, 1)));
    }

    #[test]
    fn a_quarter_of_the_orders_comes_before_any_courier_and_all_come() {
        let phases = draw(EXTENT, 7, 1);
        assert!(events(&phases[0]).all(|event| matches!(event, Event::Order(_))));
        let early: BTreeSet<_> = events(&phases[0]).map(Event::json).collect();
        assert_eq!(early.len(), 100);
        let mut times: BTreeMap<String, u32> = BTreeMap::new();
        for event in phases.iter().flat_map(events) {
            if matches!(event, Event::Order(_)) {
                *times.entry(event.json()).or_default() += 1;
            }
        }
        assert_eq!(times.len(), 400);
        let twice = times.values().filter(|times| **times == 2).count();
        assert!((60..140).contains(&twice), "{twice}");
        let again = events(&phases[1]).filter(|event| early.contains(&event.json()));
        assert!(again.count() > 5);
    }

    #[test]
    fn all_of_a_courier_is_told_over_one_connection_and_duplicates_at_once() {
        let [_, phase] = draw(EXTENT, 7, 1);
        let mut whose = BTreeMap::new();
        let mut stories: BTreeMap<String, Vec<Courier>> = BTreeMap::new();
        for (connection, requests) in phase.iter().enumerate() {
            for event in requests.iter().flat_map(|request| &request.events) {
                if let Event::Courier(courier) = event {
                    assert_eq!(*whose.entry(&courier.id).or_insert(connection), connection);
                    let story = stories.entry(courier.id.clone()).or_default();
                    if story.last() != Some(courier) {
                        story.push(courier.clone());
                    }
                }
            }
        }
        assert_eq!(stories.len(), 20);
        let changes = stories.values().map(Vec::len).sum::<usize>();
        // A move may be to where the courier is.
        assert!((90..=120).contains(&changes), "{changes}");
        let moved = stories.values().filter(|story| {
            let zones: BTreeSet<_> = story.iter().map(|courier| courier.zone).collect();
            zones.len() > 1
        });
        assert!(moved.count() > 5);
    }

    #[test]
    fn single_events_are_objects_and_others_lists() {
        let [phase, _] = draw(EXTENT, 7, 1);
        let requests: Vec<_> = phase.iter().flatten().collect();
        assert!(requests.iter().any(|request| request.is_list));
        for request in requests {
            let body: serde_json::Value = serde_json::from_str(&request.body()).unwrap();
            assert_eq!(body.is_array(), request.is_list);
            assert!((1..=EVENTS_MAX).contains(&request.events.len()));
        }
    }
}
