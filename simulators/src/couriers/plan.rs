//! The events of a run, drawn before it begins: the same seed draws the same events, except for the ids, which are new.

use std::iter::repeat_n;

use fastrand::Rng;
use jiff::{SignedDuration, Timestamp};

use super::{
    Events,
    model::{Courier, Event, Order, Zone},
};
use crate::ids::uuid;

/// Events of one request at most.
const EVENTS_MAX: usize = 1000;

/// One in so many orders is reported before any courier is.
const EARLY_ONE_IN: usize = 4;
/// When the first order was added.
const BEGAN: Timestamp = Timestamp::constant(1_626_603_730, 0);
/// Orders were added within so many seconds of it, some at the same moment.
const ADDED_WITHIN_S: i64 = 600;
/// Most events of a request; now and then it is as many as there may be.
const LIST_MAX: usize = 40;
const LARGE_LIST_ONE_IN: u32 = 50;

/// The events of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) events: Vec<Event>,
    /// Sent as a list, even with a single event.
    pub(super) is_list: bool,
}

impl Request {
    pub(super) fn body(&self) -> String {
        let events: Vec<_> = self.events.iter().map(Event::json).collect();
        if self.is_list {
            return format!("[{}]", events.join(","));
        }
        events.concat()
    }
}

/// Each connection's requests, which it sends one after the other. All events of a courier use one connection.
pub(super) type Phase = Vec<Vec<Request>>;

/// What the next event is about.
#[derive(Debug, Clone)]
enum Turn {
    Order(Event),
    /// The next of the courier with this number.
    Of(usize),
}

/// A run: orders, and after all of them, couriers and further orders. Ids begin with the digits of `run`.
pub(super) fn draw(extent: &Events, connections: usize, seed: u64, run: u64) -> [Phase; 2] {
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

    let mut phases = [(); 2].map(|()| vec![Vec::<Event>::new(); connections]);
    let mut anywhere = chance.fork();
    let mut somewhere = || anywhere.usize(..connections);
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
                phases[1][courier % connections].extend(copies);
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

/// All events of a courier: most come available, and then one thing changes at a time.
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
