//! What the shop shows in the end: its whole log, and what it answers to every question about this run.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    ledger::Ledger,
    model::{Join, Model},
};
use crate::{
    audit::Faults,
    courier_desk::{Kind, Link, Parked, Recorded, Shown, Whereabouts},
    resend::insist,
    shop::Failure,
};

/// The log, read from its beginning.
#[derive(Debug)]
pub(crate) struct Log {
    /// The state after replaying all its events.
    pub(crate) model: Model,
    /// The number of the last one.
    last: u64,
    /// How many there were.
    pub(crate) events: u64,
    /// How often each event is in the log, by its JSON; only for the acknowledged events of this run.
    pub(crate) times: BTreeMap<String, u64>,
    /// Events with a wrong outcome, or with a wrong number.
    pub(crate) faults: Faults,
    /// Events that changed something after the log was read, before all questions were answered.
    pub(crate) concurrent: u64,
}

impl Log {
    /// An empty one, in which these events are looked for.
    pub(crate) fn new<'a>(join: Join, events: impl Iterator<Item = &'a String>) -> Self {
        Self {
            model: Model::new(join),
            last: 0,
            events: 0,
            times: events.map(|event| (event.clone(), 0)).collect(),
            faults: Faults::default(),
            concurrent: 0,
        }
    }

    pub(crate) fn add(&mut self, recorded: &Recorded) {
        let number = recorded.number;
        if number <= self.last {
            let last = self.last;
            self.faults.note(|| format!("{number} after {last}"));
        }
        self.last = number;
        self.events += 1;
        if let Some(times) = self.times.get_mut(&recorded.event.json()) {
            *times += 1;
        }
        let expected = self.model.apply(&recorded.event);
        if expected != recorded.outcome {
            let (event, outcome) = (recorded.event.json(), &recorded.outcome);
            self.faults
                .note(|| format!("{number}: {event} came to {outcome:?}, not {expected:?}"));
        }
    }

    /// Adds an event that was logged during the lookups.
    pub(crate) fn add_later(&mut self, recorded: &Recorded) {
        self.last = recorded.number;
        self.concurrent += u64::from(recorded.outcome.kind != Kind::Duplicate);
    }
}

/// All that was asked.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) log: Log,
    pub(crate) couriers: Vec<Shown>,
    pub(crate) parked: Parked,
    /// Of the orders of this run.
    pub(crate) courier_of: BTreeMap<String, Whereabouts>,
    /// Of the couriers of this run, and of any other courier with one of its orders.
    pub(crate) orders_of: BTreeMap<String, Vec<String>>,
}

impl State {
    /// Asks everything, one question after the other. Each is asked again for as long as the `patience`, measured, lasts.
    pub(crate) async fn ask(
        link: &mut Link,
        ledger: &Ledger,
        join: Join,
        patience: Duration,
    ) -> Result<Self, Failure> {
        let mut log = Log::new(join, ledger.events.keys());
        read_on(link, &mut log, patience, Log::add).await?;
        let couriers = insist(patience, async || link.couriers().await).await?;
        let parked = insist(patience, async || link.parked().await).await?;
        let mut courier_of = BTreeMap::new();
        let mut all: BTreeSet<&String> = ledger.couriers.keys().collect();
        for order in ledger.orders.keys() {
            let found = insist(patience, async || link.courier_of(order).await).await?;
            courier_of.insert(order.clone(), found);
        }
        for found in courier_of.values() {
            if let Whereabouts::With(courier) = found {
                all.insert(courier);
            }
        }
        let mut orders_of = BTreeMap::new();
        for courier in all {
            let orders = insist(patience, async || link.orders_of(courier).await).await?;
            orders_of.insert(courier.clone(), orders);
        }
        read_on(link, &mut log, patience, Log::add_later).await?;
        Ok(Self {
            log,
            couriers,
            parked,
            courier_of,
            orders_of,
        })
    }
}

/// Reads the log to its end, from where it was read to.
async fn read_on(
    link: &mut Link,
    log: &mut Log,
    patience: Duration,
    add: fn(&mut Log, &Recorded),
) -> Result<(), Failure> {
    let mut after = Some(log.last);
    while let Some(place) = after {
        let page = insist(patience, async || link.events(place).await).await?;
        for recorded in &page.events {
            add(log, recorded);
        }
        // A page that leads nowhere would be read forever.
        after = page.next.filter(|next| *next > place);
    }
    Ok(())
}
