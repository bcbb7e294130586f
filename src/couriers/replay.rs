//! Telling the event log again, from its beginning, to a store that is new: does it come to what is kept?

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::sleep;

use super::error::Unavailable;
use super::model::{Courier, CourierId, Event, OrderId, Whereabouts};
use super::store::{Recorded, Store};

/// Whether the log and what is kept agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// Events in the log.
    pub events: u64,
    /// Couriers, as the log has it.
    pub couriers: usize,
    /// Orders, as the log has it.
    pub orders: usize,
    /// Of them, parked.
    pub parked: usize,
    /// What does not agree, in words; a few of many.
    pub differences: Vec<String>,
}

/// Differences that are told.
const TOLD_MAX: usize = 10;
/// More than there ever are.
const ALL: usize = u32::MAX as usize;
/// Events that are read at once.
const PAGE: usize = 1000;
/// How often what is kept is read again because more happened meanwhile, or because it does not agree: what happens just then may
/// be seen in one place and not in another.
const ATTEMPTS: u32 = 50;
/// How long to wait before that.
const PAUSE: Duration = Duration::from_millis(100);

/// Tells `fresh`, an empty store, what is in the log of `live`, and compares what both keep then. What happens to `live` meanwhile
/// is told, too. Both begin newcomers in the same way.
///
/// # Errors
/// See [`Unavailable`]; [`Unavailable::Busy`] if so much happens that what is kept could not be read between two events.
pub async fn replay(live: &dyn Store, fresh: &dyn Store) -> Result<Comparison, Unavailable> {
    let mut log = Log::default();
    log.read(live, fresh).await?;
    let mut compared = None;
    for _ in 0..ATTEMPTS {
        let kept = State::of(live).await?;
        if log.read(live, fresh).await? {
            continue;
        }
        let comparison = log.compare(&kept, &State::of(fresh).await?);
        // What the log itself says does not change.
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

/// How far the log was told again.
#[derive(Debug, Default)]
struct Log {
    events: u64,
    last: u64,
    /// Events that came to something else than was kept; the first of them.
    differing: u64,
    first_differing: Option<u64>,
}

impl Log {
    /// Tells what is in the log by now; whether there was anything.
    async fn read(&mut self, live: &dyn Store, fresh: &dyn Store) -> Result<bool, Unavailable> {
        let before = self.events;
        loop {
            let page = live.events(self.last, PAGE).await?;
            let told: Vec<(Event, Timestamp)> = page
                .iter()
                .map(|recorded| (recorded.event.clone(), recorded.at))
                .collect();
            let outcomes = fresh.apply(told).await?;
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

    fn compare(&self, kept: &State, log: &State) -> Comparison {
        let mut differences = Vec::new();
        if let Some(first) = self.first_differing {
            let count = self.differing;
            differences.push(format!(
                "{count} events come to something else than was kept, event {first} first"
            ));
        }
        differ("courier", &kept.couriers, &log.couriers, &mut differences);
        differ("order", &kept.orders, &log.orders, &mut differences);
        differ(
            "the wait of order",
            &kept.waiting,
            &log.waiting,
            &mut differences,
        );
        differences.truncate(TOLD_MAX);
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

/// What a store keeps.
struct State {
    couriers: BTreeMap<CourierId, Courier>,
    orders: BTreeMap<OrderId, Whereabouts>,
    /// Orders that are found when somebody becomes available.
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
    kept: &BTreeMap<K, V>,
    log: &BTreeMap<K, V>,
    differences: &mut Vec<String>,
) {
    for (id, kept) in kept {
        match log.get(id) {
            None => differences.push(format!("{what} {id} is kept, and not in the log")),
            Some(by_log) if by_log != kept => {
                differences.push(format!("{what} {id} is {kept:?}, by the log {by_log:?}"));
            }
            Some(_) => {}
        }
    }
    for id in log.keys().filter(|id| !kept.contains_key(id)) {
        differences.push(format!("{what} {id} is in the log, and not kept"));
    }
}

impl Comparison {
    /// Whether nothing differs.
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
            f.write_str("\nThe log comes to what is kept.")?;
        }
        Ok(())
    }
}
