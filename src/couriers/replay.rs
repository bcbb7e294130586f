//! Replays the event log into an empty store: does it reproduce the stored state?

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::sleep;

use super::error::Unavailable;
use super::model::{Courier, CourierId, Event, OrderId, Whereabouts};
use super::store::{Recorded, Store};

/// Whether log and stored state agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    pub events: u64,
    /// Couriers in the replayed state.
    pub couriers: usize,
    /// Orders in the replayed state.
    pub orders: usize,
    /// Parked ones of `orders`.
    pub parked: usize,
    /// The first `DIFFERENCES_MAX` differences, as sentences.
    pub differences: Vec<String>,
}

/// Most differences that are reported.
const DIFFERENCES_MAX: usize = 10;
/// No limit.
const ALL: usize = u32::MAX as usize;
/// Events per read.
const PAGE: usize = 1000;
/// How often the state is read again because of new events or a difference: a concurrent event may be visible in one place and
/// not yet in another.
const ATTEMPTS: u32 = 50;
/// Pause before the next attempt.
const PAUSE: Duration = Duration::from_millis(100);

/// Replays the log of `live` into `fresh`, an empty store, and compares their states. Events that arrive in `live` at the same time
/// are replayed, too. Both stores must have the same `Join`.
///
/// # Errors
/// See [`Unavailable`]; [`Unavailable::Busy`] if there were always new events between two reads.
pub async fn replay(live: &dyn Store, fresh: &dyn Store) -> Result<Comparison, Unavailable> {
    let mut log = Log::default();
    log.read(live, fresh).await?;
    let mut compared = None;
    for _ in 0..ATTEMPTS {
        let stored = State::of(live).await?;
        if log.read(live, fresh).await? {
            continue;
        }
        let comparison = log.compare(&stored, &State::of(fresh).await?);
        // A difference within the log is final.
        if comparison.agrees() || log.differing > 0 {
            return Ok(comparison);
        }
        let same = compared.replace(comparison.clone()) == Some(comparison);
        if same && !log.read(live, fresh).await? {
            break;
        }
        sleep(PAUSE).await;
    }
    compared.ok_or(Unavailable::Busy)
}

/// The progress of a replay.
#[derive(Debug, Default)]
struct Log {
    events: u64,
    last: u64,
    /// Events whose outcome differs from the logged one; the first of them.
    differing: u64,
    first_differing: Option<u64>,
}

impl Log {
    /// Replays what the log has by now; whether there was anything.
    async fn read(&mut self, live: &dyn Store, fresh: &dyn Store) -> Result<bool, Unavailable> {
        let before = self.events;
        loop {
            let page = live.events(self.last, PAGE).await?;
            let events: Vec<(Event, Timestamp)> = page
                .iter()
                .map(|recorded| (recorded.event.clone(), recorded.at))
                .collect();
            let outcomes = fresh.apply(events).await?;
            for (
                Recorded {
                    number, outcome, ..
                },
                now,
            ) in page.iter().zip(outcomes)
            {
                self.events += 1;
                self.last = *number;
                if *outcome != now {
                    self.differing += 1;
                    self.first_differing.get_or_insert(*number);
                }
            }
            if page.len() < PAGE {
                return Ok(self.events > before);
            }
        }
    }

    fn compare(&self, stored: &State, log: &State) -> Comparison {
        let mut differences = Vec::new();
        if let Some(first) = self.first_differing {
            let count = self.differing;
            differences.push(format!(
                "{count} events have another outcome than in the log, event {first} first"
            ));
        }
        differ("courier", &stored.couriers, &log.couriers, &mut differences);
        differ("order", &stored.orders, &log.orders, &mut differences);
        differ(
            "the wait of order",
            &stored.waiting,
            &log.waiting,
            &mut differences,
        );
        differences.truncate(DIFFERENCES_MAX);
        let parked = |place: &&Whereabouts| matches!(place, Whereabouts::Parked);
        Comparison {
            events: self.events,
            couriers: log.couriers.len(),
            orders: log.orders.len(),
            parked: log.orders.values().filter(parked).count(),
            differences,
        }
    }
}

struct State {
    couriers: BTreeMap<CourierId, Courier>,
    orders: BTreeMap<OrderId, Whereabouts>,
    /// Parked orders that are found when a courier becomes available.
    waiting: BTreeMap<OrderId, Timestamp>,
}

impl State {
    async fn of(store: &dyn Store) -> Result<Self, Unavailable> {
        let couriers = store.couriers(None).await?;
        let couriers = couriers.into_iter().map(|known| (known.said.id, known));
        let (parked, _) = store.parked(ALL).await?;
        Ok(Self {
            waiting: parked.iter().map(|it| (it.id, it.added_at)).collect(),
            couriers: couriers.collect(),
            orders: store.orders().await?.into_iter().collect(),
        })
    }
}

fn differ<K: Ord + fmt::Display, V: PartialEq + fmt::Debug>(
    what: &str,
    stored: &BTreeMap<K, V>,
    log: &BTreeMap<K, V>,
    differences: &mut Vec<String>,
) {
    for (id, stored) in stored {
        match log.get(id) {
            None => differences.push(format!("{what} {id} is stored, and not in the log")),
            Some(by_log) if by_log != stored => {
                differences.push(format!("{what} {id} is {stored:?}, by the log {by_log:?}"));
            }
            Some(_) => {}
        }
    }
    for id in log.keys().filter(|id| !stored.contains_key(id)) {
        differences.push(format!("{what} {id} is in the log, and not stored"));
    }
}

impl Comparison {
    pub fn agrees(&self) -> bool {
        self.differences.is_empty()
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            events,
            couriers,
            orders,
            parked,
            differences,
        } = self;
        write!(
            f,
            "{events} events: {couriers} couriers, {orders} orders, {parked} of them parked"
        )?;
        for difference in differences {
            write!(f, "\n{difference}")?;
        }
        if differences.is_empty() {
            f.write_str("\nThe log replays to the stored state.")?;
        }
        Ok(())
    }
}
