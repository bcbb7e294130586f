//! The final comparison: what the shop answers to every question about this run, among themselves, with the events sent, and
//! with its log as the model replays it.

use std::collections::{BTreeMap, BTreeSet};

use hyper::{Method, StatusCode};
use serde::Deserialize;

use super::{
    ledger::{Ledger, ONE_COURIER},
    model::{Courier, Event, Join, Kind, Model, Order, Outcome, Zone},
};
use crate::{
    audit::Check,
    client::{Client, Failure},
    connection::Answer,
    tally::Tally,
};

/// Events of the log that are asked for at once.
const PAGE: usize = 1000;

const QUIET: &str = "nobody told anything meanwhile";
const LOG: &str = "the log comes to the same again";
const LOGGED: &str = "what was told is in the log";
const ONCE: &str = "orders given once, or parked";
const QUESTIONS: &str = "both questions agree";
const COUNTS: &str = "counts are those of the orders";
const IDLE: &str = "nobody idle beside the parked";
const LATEST: &str = "couriers as said last";
const AS_LOGGED: &str = "all is as the log has it";
/// What the final state is checked for, in addition to [`State::quiet`].
pub(super) const OF_STATE: [&str; 9] = [
    LOG,
    LOGGED,
    ONCE,
    QUESTIONS,
    ONE_COURIER,
    COUNTS,
    IDLE,
    LATEST,
    AS_LOGGED,
];

/// An event of the log.
#[derive(Debug, Deserialize)]
struct Recorded {
    number: u64,
    event: Event,
    #[serde(flatten)]
    outcome: Outcome,
}

/// A page of the log.
#[derive(Debug, Deserialize)]
struct Page {
    events: Vec<Recorded>,
    /// Where the log goes on, if it may.
    #[serde(default)]
    next: Option<u64>,
}

/// A courier as the shop shows them.
#[derive(Debug, Deserialize)]
pub(super) struct Shown {
    #[serde(flatten)]
    pub(super) latest: Courier,
    count: u64,
}

#[derive(Debug, Deserialize)]
struct Couriers {
    couriers: Vec<Shown>,
}

/// The orders that wait, as far as they are listed, and how many there are.
#[derive(Debug, Deserialize)]
struct Parked {
    orders: Vec<Order>,
    total: u64,
}

impl Parked {
    fn is_whole(&self) -> bool {
        count(self.orders.len()) >= self.total
    }
}

/// Where an order is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Whereabouts {
    With(String),
    Parked,
    /// The shop does not know the order.
    Unknown,
}

/// `GET /couriers`.
pub(super) async fn couriers(client: &mut Client) -> Result<Vec<Shown>, Failure> {
    let Couriers { couriers } = client.get("/couriers").await?;
    Ok(couriers)
}

/// `GET /courier`; why not, if there is no answer. The client counts it.
pub(super) async fn courier_of(client: &mut Client, order: &str) -> Result<Whereabouts, String> {
    let request = client.request(Method::GET, &format!("/courier?orderId={order}"), None);
    let sent = client.send(&request, whereabouts).await;
    sent.acknowledged.map(|(_, found)| found).ok_or(sent.why)
}

fn whereabouts(answer: &Answer) -> Option<Whereabouts> {
    let body = answer.value();
    match (answer.status, body["state"].as_str()) {
        (StatusCode::OK, _) => Some(Whereabouts::With(body.as_str()?.to_owned())),
        (StatusCode::NOT_FOUND, Some("parked")) => Some(Whereabouts::Parked),
        (StatusCode::NOT_FOUND, Some("unknown")) => Some(Whereabouts::Unknown),
        _ => None,
    }
}

/// All that was asked.
#[derive(Debug)]
pub(super) struct State {
    /// The state after replaying the log.
    model: Model,
    couriers: Vec<Shown>,
    parked: Parked,
    /// Of the orders of this run.
    courier_of: BTreeMap<String, Whereabouts>,
    /// Of the couriers of this run, and of any other courier with one of its orders.
    orders_of: BTreeMap<String, Vec<String>>,
    /// Events that changed something during the questions.
    concurrent: u64,
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

impl State {
    /// Asks everything, one question after the other, and checks the log.
    pub(super) async fn ask(
        client: &mut Client,
        ledger: &mut Ledger,
        join: Join,
    ) -> Result<Self, String> {
        let why = |failure: Failure| failure.to_string();
        let (model, last) = replay(client, ledger, join).await.map_err(why)?;
        let couriers = couriers(client).await.map_err(why)?;
        let parked = client.get("/couriers/parked").await.map_err(why)?;
        let mut places = BTreeMap::new();
        let mut all: BTreeSet<String> = ledger.couriers.keys().cloned().collect();
        for order in ledger.orders.keys() {
            let found = courier_of(client, order).await?;
            if let Whereabouts::With(courier) = &found {
                all.insert(courier.clone());
            }
            places.insert(order.clone(), found);
        }
        let mut orders_of = BTreeMap::new();
        for courier in all {
            let path = format!("/orders?courierId={courier}");
            orders_of.insert(courier, client.get(&path).await.map_err(why)?);
        }
        let mut concurrent = 0;
        let is_change = |recorded: &Recorded| recorded.outcome.kind != Kind::Duplicate;
        let rest = follow(client, last, |it| concurrent += u64::from(is_change(it)));
        rest.await.map_err(why)?;
        Ok(Self {
            model,
            couriers,
            parked,
            courier_of: places,
            orders_of,
            concurrent,
        })
    }

    /// Events during the questions make their answers unjudgeable.
    pub(super) fn quiet(&self) -> Check {
        let finding = match self.concurrent {
            0 => "nobody did".to_owned(),
            times => format!("{times} events: what the shop showed cannot be judged"),
        };
        Check::new(QUIET, self.concurrent == 0, finding)
    }

    /// All that must hold of the answers.
    pub(super) fn check(&self, ledger: &mut Ledger) {
        self.expect_places(ledger);
        self.expect_counts(ledger);
        self.expect_latest(ledger);
        self.expect_as_logged(&mut ledger.tally);
    }

    /// Every order that was acknowledged is in one courier's list and not among the parked, or the other way round; that
    /// courier is the one whom the shop names, the answers named, and the log has.
    fn expect_places(&self, ledger: &mut Ledger) {
        let parked = self.parked.orders.iter();
        let parked: BTreeSet<_> = parked.map(|order| &order.id[..]).collect();
        let mut lists: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (courier, orders) in &self.orders_of {
            for order in orders {
                lists.entry(order).or_default().push(courier);
            }
        }
        let tally = &mut ledger.tally;
        for (order, found) in &self.courier_of {
            let known = &ledger.orders[order];
            let listed = lists.get(&order[..]).map_or(&[][..], |listed| listed);
            let is_parked = parked.contains(&order[..]);
            let is_once = match found {
                Whereabouts::With(_) => listed.len() == 1 && !is_parked,
                Whereabouts::Parked => listed.is_empty() && (is_parked || !self.parked.is_whole()),
                Whereabouts::Unknown => !known.acknowledged && listed.is_empty(),
            };
            let what = || format!("{order}: {found:?}, listed of {listed:?}, parked: {is_parked}");
            tally.expect(ONCE, is_once, what);
            let named = match found {
                Whereabouts::With(courier) => Some(&courier[..]),
                Whereabouts::Parked | Whereabouts::Unknown => None,
            };
            let agrees = match named {
                Some(named) => listed.contains(&named),
                None => listed.is_empty(),
            };
            tally.expect(
                QUESTIONS,
                agrees && listed.iter().all(|it| Some(*it) == named),
                what,
            );
            let answered = known.courier.as_deref();
            tally.expect(ONE_COURIER, answered.is_none() || answered == named, || {
                format!("{order} was {answered:?}'s, but is {found:?}")
            });
            let logged = match self.model.orders.get(order) {
                Some(Some(courier)) => Whereabouts::With(courier.clone()),
                Some(None) => Whereabouts::Parked,
                None => Whereabouts::Unknown,
            };
            let what = || format!("{order}: {found:?}, not {logged:?}");
            tally.expect(AS_LOGGED, *found == logged, what);
        }
    }

    /// A count is what the courier began with and the orders in the list. No zone has both an available courier and a parked
    /// order.
    fn expect_counts(&self, ledger: &mut Ledger) {
        for (courier, orders) in &self.orders_of {
            let known = self.model.couriers.get(courier);
            let expected = known.map(|known| known.began_with + count(orders.len()));
            let mut shown = self.couriers.iter();
            let shown = shown.find(|shown| shown.latest.id == *courier);
            let shown = shown.map(|shown| shown.count);
            // An event of unknown outcome may never have introduced the courier; then there is nothing to count.
            let holds = shown == expected && (known.is_some() || orders.is_empty());
            let what = || format!("{courier}: {shown:?}, not {expected:?}");
            ledger.tally.expect(COUNTS, holds, what);
        }
        for zone in Zone::ALL {
            let mut couriers = self.couriers.iter().map(|shown| &shown.latest);
            let mut orders = self.parked.orders.iter();
            let courier = couriers.find(|latest| latest.zone == zone && latest.is_available);
            let both = courier.zip(orders.find(|order| order.zone == zone));
            ledger
                .tally
                .expect(IDLE, both.is_none(), || format!("{zone:?}: {both:?}"));
        }
    }

    /// Name, zone and availability are those of the last event.
    fn expect_latest(&self, ledger: &mut Ledger) {
        for (id, known) in &ledger.couriers {
            let mut shown = self.couriers.iter().map(|shown| &shown.latest);
            let shown = shown.find(|shown| shown.id == *id);
            let holds = !known.is_certain || shown == Some(&known.latest);
            let what = || format!("{shown:?}, not {:?}", known.latest);
            ledger.tally.expect(LATEST, holds, what);
        }
    }

    /// Couriers and parked orders are what replaying the log results in.
    fn expect_as_logged(&self, checks: &mut Tally) {
        let model = &self.model;
        let ids: BTreeSet<_> = self.couriers.iter().map(|shown| &shown.latest.id).collect();
        let (shown, logged) = (self.couriers.len(), model.couriers.len());
        if ids.len() != logged || shown != logged {
            checks.fault(AS_LOGGED, || format!("{shown} couriers, not {logged}"));
        }
        for shown in &self.couriers {
            let known = model.couriers.get(&shown.latest.id);
            let agrees = known
                .is_some_and(|known| known.latest == shown.latest && known.count == shown.count);
            checks.expect(AS_LOGGED, agrees, || format!("{shown:?}, not {known:?}"));
        }
        let total: usize = Zone::ALL
            .map(|zone| model.waiting(zone).count())
            .iter()
            .sum();
        let shown = self.parked.total;
        if shown != count(total) {
            checks.fault(AS_LOGGED, || format!("{shown} parked orders, not {total}"));
        }
        for zone in Zone::ALL {
            let listed = self.parked.orders.iter().filter(|order| order.zone == zone);
            let listed: Vec<&str> = listed.map(|order| &order.id[..]).collect();
            let waiting: Vec<&str> = model.waiting(zone).collect();
            let is_whole = !self.parked.is_whole() || listed.len() == waiting.len();
            if !is_whole || !waiting.starts_with(&listed) {
                let what = "others wait than are listed, or in another order";
                checks.fault(AS_LOGGED, || format!("{zone:?}: {what}"));
            }
        }
    }
}

/// Replays the log from its beginning: the state after it, and the number of its last event.
async fn replay(
    client: &mut Client,
    ledger: &mut Ledger,
    join: Join,
) -> Result<(Model, u64), Failure> {
    let (mut model, mut last) = (Model::new(join), 0);
    let checks = &mut ledger.tally;
    let mut missing = ledger.events.clone();
    follow(client, 0, |recorded| {
        let number = recorded.number;
        if number <= last {
            checks.fault(LOG, || format!("{number} after {last}"));
        }
        last = number;
        let event = recorded.event.json();
        if let Some(times) = missing.get_mut(&event) {
            *times = times.saturating_sub(1);
        }
        let expected = model.apply(&recorded.event, &mut Vec::new());
        checks.expect(LOG, expected == recorded.outcome, || {
            format!(
                "{number}: {event} came to {:?}, not {expected:?}",
                recorded.outcome
            )
        });
    })
    .await?;
    for (event, times) in missing {
        let what = || format!("{event}: {times} times less than acknowledged");
        checks.expect(LOGGED, times == 0, what);
    }
    Ok((model, last))
}

/// Reads the log after this event to its end.
async fn follow(
    client: &mut Client,
    after: u64,
    mut each: impl FnMut(&Recorded),
) -> Result<(), Failure> {
    let mut after = Some(after);
    while let Some(place) = after {
        let path = format!("/couriers/events?after={place}&limit={PAGE}");
        let page: Page = client.get(&path).await?;
        page.events.iter().for_each(&mut each);
        // A page that leads nowhere would be read forever.
        after = page.next.filter(|next| *next > place);
    }
    Ok(())
}
