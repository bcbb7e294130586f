//! Applies events: queued requests are batched, with two round trips for all orders of a batch.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use jiff::Timestamp;
use redis::{RedisResult, Script};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::super::error::Unavailable;
use super::super::model::{AddCourier, AddOrder, Event, Join, Outcome, Zone};
use super::notation::{
    Takes, event_of, first_key, home_key, micros, outcome_of, placed, written, zone_key, zone_keys,
};
use super::{Health, command, invalid_answer};
use crate::storage::redis::{Call, Redis as Client, is_refused_for_now};

pub(super) static ZONE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("zone.lua")));
static HOME: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("home.lua")));

/// Most requests of a batch.
const BATCH_MAX: usize = 256;
/// Batches in progress: while Redis decides about one, the next one is written.
const LANES: usize = 2;
/// Most orders per script call: it blocks its node for some 20 µs per order.
const ORDERS_PER_SCRIPT: usize = 100;
/// Interval of completing unfinished moves, and of probing Redis after a failure.
const MAINTAIN_EVERY: Duration = Duration::from_secs(1);
/// Backoff of retries: a restarted server is back within them.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(400),
];
/// Attempts of a courier's event while other processes move the same courier.
const MOVES: usize = 100;

/// A request, and the channel for its outcomes.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) events: Vec<(Event, Timestamp)>,
    pub(super) answer: oneshot::Sender<Result<Vec<Outcome>, Unavailable>>,
}

#[derive(Debug)]
pub(super) struct Writer {
    client: Client,
    health: Health,
    desk: Desk,
}

/// Settings that the scripts need.
#[derive(Debug, Clone, Copy)]
struct Desk {
    publishes: &'static str,
    join: &'static str,
}

/// An event, and its outcome once there is one.
struct Pending {
    event: Event,
    at: Timestamp,
    outcome: Option<Outcome>,
}

impl Writer {
    pub(super) fn new(client: Client, join: Join, publishes: bool, health: Health) -> Self {
        let desk = Desk {
            publishes: if publishes { "1" } else { "0" },
            join: match join {
                Join::Zero => "zero",
                Join::Min => "min",
            },
        };
        Self {
            client,
            health,
            desk,
        }
    }

    /// Runs until the last handle is dropped.
    pub(super) async fn run(self, mut waiting: mpsc::Receiver<Job>) {
        let writer = Arc::new(self);
        let lanes = Arc::new(Semaphore::new(LANES));
        let mut rounds = interval(MAINTAIN_EVERY);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // While all lanes are in use, the queue grows into a larger batch.
            let Ok(lane) = Arc::clone(&lanes).acquire_owned().await else {
                return;
            };
            let mut jobs = Vec::new();
            tokio::select! {
                count = waiting.recv_many(&mut jobs, BATCH_MAX) => {
                    if count == 0 {
                        return;
                    }
                    let writer = Arc::clone(&writer);
                    tokio::spawn(async move {
                        writer.work(jobs).await;
                        drop(lane);
                    });
                }
                _ = rounds.tick() => {
                    // No caller waits for this.
                    let _ = writer.maintain().await;
                }
            }
        }
    }

    async fn work(&self, jobs: Vec<Job>) {
        let mut pending = Vec::new();
        let mut asked = Vec::with_capacity(jobs.len());
        for Job { events, answer } in jobs {
            asked.push((events.len(), answer));
            pending.extend(events.into_iter().map(|(event, at)| Pending {
                event,
                at,
                outcome: None,
            }));
        }
        let failed = self.persist(&mut pending).await.err();
        let mut outcomes = pending.into_iter().map(|pending| pending.outcome);
        for (count, answer) in asked {
            let of_request: Option<Vec<Outcome>> = outcomes.by_ref().take(count).collect();
            let failed = failed.unwrap_or(Unavailable::Failed);
            // The caller may have left.
            let _ = answer.send(of_request.ok_or(failed));
        }
    }

    /// Applies what has no outcome yet; retries during a short outage.
    async fn persist(&self, pending: &mut [Pending]) -> Result<(), Unavailable> {
        for pause in PAUSES {
            match self.apply(pending).await {
                // Requests that were queued through the outage are not delayed again.
                Err(error)
                    if error.is_io_error() && !error.is_timeout() || is_refused_for_now(&error) =>
                {
                    sleep(pause).await;
                }
                done => return self.health.write_result(done),
            }
        }
        self.health.write_result(self.apply(pending).await)
    }

    /// In order, except that orders of different zones are independent.
    async fn apply(&self, pending: &mut [Pending]) -> RedisResult<()> {
        let is_order = |pending: &Pending| matches!(pending.event, Event::Order(_));
        let runs = pending.chunk_by_mut(|one, next| is_order(one) && is_order(next));
        for run in runs {
            match &run[0].event {
                Event::Order(_) => self.add_orders(run).await?,
                Event::Courier(said) if run[0].outcome.is_none() => {
                    let outcome = self.add_courier(said, run[0].at).await?;
                    run[0].outcome = Some(outcome);
                }
                Event::Courier(_) => {}
            }
        }
        Ok(())
    }

    async fn add_orders(&self, run: &mut [Pending]) -> RedisResult<()> {
        let mut claimed = Vec::with_capacity(run.len());
        for (place, pending) in run.iter().enumerate() {
            if let (Event::Order(order), None) = (&pending.event, pending.outcome) {
                let text = written(&pending.event)?;
                claimed.push((place, order, text, pending.at));
            }
        }
        let claims = claimed.iter().map(|(_, order, text, _)| {
            let mut claim = command("SET", &first_key(order.id), &[text]);
            claim.arg("NX").arg("GET");
            claim
        });
        let firsts: Vec<Option<String>> = self.client.ask_all(claims.collect()).await?;
        let mut by_zone: BTreeMap<Zone, Vec<ReportedOrder>> = BTreeMap::new();
        for ((place, order, text, at), first) in claimed.into_iter().zip(firsts) {
            let reported = ReportedOrder::of(place, order, text, at, first)?;
            by_zone.entry(reported.zone).or_default().push(reported);
        }
        // One part of each zone at a time.
        for part in 0.. {
            let parts: Vec<(Zone, &[ReportedOrder])> = by_zone
                .iter()
                .filter_map(|(&zone, orders)| {
                    Some((zone, orders.chunks(ORDERS_PER_SCRIPT).nth(part)?))
                })
                .collect();
            if parts.is_empty() {
                break;
            }
            for (place, outcome) in self.decide(&parts).await? {
                run[place].outcome = Some(outcome);
            }
        }
        Ok(())
    }

    /// Decides about orders, each zone's by themselves; returns outcomes by index.
    async fn decide(
        &self,
        parts: &[(Zone, &[ReportedOrder])],
    ) -> RedisResult<Vec<(usize, Outcome)>> {
        let calls = parts.iter().map(|(zone, part)| {
            let arguments = part.iter().flat_map(ReportedOrder::arguments);
            self.call(*zone, "orders", arguments)
        });
        let calls: Vec<Call> = calls.collect();
        let answers: Vec<Vec<String>> = self.client.run_all(&ZONE, &calls).await?;
        let mut decided = Vec::new();
        for ((_, part), outcomes) in parts.iter().zip(answers) {
            if outcomes.len() != part.len() {
                return Err(invalid_answer("an order has no outcome"));
            }
            for (order, outcome) in part.iter().zip(outcomes) {
                decided.push((order.place, outcome_of(&outcome)?));
            }
        }
        Ok(decided)
    }

    async fn add_courier(&self, said: &AddCourier, at: Timestamp) -> RedisResult<Outcome> {
        let event = written(&Event::Courier(said.clone()))?;
        let (id, at) = (said.id.to_string(), micros(at));
        for _ in 0..MOVES {
            let (home, sequence) = self.home(said, "claim", said.zone, "1").await?;
            let (done, answer) = if home == said.zone {
                let available = flag(said.is_available);
                let say = [&*at, &id, &sequence, &said.name, available, &event];
                self.zone(home, "say", &say).await?
            } else {
                let leave = [&*at, &id, &sequence, home.as_str(), &event];
                self.zone(home, "leave", &leave).await?
            };
            match (done.as_str(), home == said.zone) {
                ("done", true) => return outcome_of(&answer),
                ("done", false) => return self.arrive(home, &Takes::read(&answer)?).await,
                // Another process was faster, and may have died before finishing.
                _ if answer.is_empty() => {}
                _ => {
                    self.arrive(home, &Takes::read(&answer)?).await?;
                }
            }
        }
        Err((
            redis::ErrorKind::Io,
            "other processes keep moving this courier",
        )
            .into())
    }

    /// Completes a move that was begun.
    async fn arrive(&self, from: Zone, takes: &Takes) -> RedisResult<Outcome> {
        let Takes { said, .. } = takes;
        let id = said.id.to_string();
        let arrive = [
            &*takes.at,
            &id,
            &takes.sequence,
            &said.name,
            flag(said.is_available),
            &takes.event,
            &takes.count,
            &takes.number,
        ];
        let (_, outcome) = self.zone(said.zone, "arrive", &arrive).await?;
        self.home(said, "move", said.zone, &takes.sequence).await?;
        self.zone(from, "forget", &[&id, &takes.sequence]).await?;
        outcome_of(&outcome)
    }

    /// Completes unfinished moves; after a failure, probes whether Redis accepts writes again.
    async fn maintain(&self) -> Result<(), Unavailable> {
        if !self.health.is_healthy() {
            let probe = command("SET", "odyssey:couriers:probe", &["0"]);
            let probed: RedisResult<String> = self.client.ask(probe).await;
            self.health.write_result(probed)?;
        }
        self.health.read_result(self.finish_moves().await)
    }

    /// Completes all moves that were begun.
    async fn finish_moves(&self) -> RedisResult<()> {
        let leaving = Zone::ALL.map(|zone| command("HVALS", &zone_key(zone, "leaving"), &[]));
        let leaving: Vec<Vec<String>> = self.client.ask_all(leaving.into()).await?;
        for (from, takes) in Zone::ALL.into_iter().zip(leaving) {
            for takes in takes {
                self.arrive(from, &Takes::read(&takes)?).await?;
            }
        }
        Ok(())
    }

    /// A courier's zone, and how often they moved.
    async fn home(
        &self,
        said: &AddCourier,
        verb: &str,
        zone: Zone,
        sequence: &str,
    ) -> RedisResult<(Zone, String)> {
        let call = Call {
            keys: vec![home_key(said.id)],
            arguments: [verb, zone.as_str(), sequence].map(str::to_owned).into(),
        };
        let (zone, sequence): (String, String) = self.client.run(&HOME, call).await?;
        let zone = Zone::parse(&zone).ok_or_else(|| invalid_answer("not a zone"))?;
        Ok((zone, sequence))
    }

    async fn zone(
        &self,
        zone: Zone,
        verb: &str,
        arguments: &[&str],
    ) -> RedisResult<(String, String)> {
        let arguments = arguments.iter().map(|&argument| argument.to_owned());
        self.client
            .run(&ZONE, self.call(zone, verb, arguments))
            .await
    }

    fn call(&self, zone: Zone, verb: &str, arguments: impl Iterator<Item = String>) -> Call {
        let Desk { publishes, join } = self.desk;
        let first = [verb, publishes, join].map(str::to_owned);
        Call {
            keys: zone_keys(zone),
            arguments: first.into_iter().chain(arguments).collect(),
        }
    }
}

fn flag(is_available: bool) -> &'static str {
    if is_available { "1" } else { "0" }
}

/// A reported order, with its first report.
struct ReportedOrder {
    /// Index in the batch.
    place: usize,
    /// The zone of the first report.
    zone: Zone,
    at: String,
    id: String,
    placed: String,
    /// The current report, if it differs.
    again: String,
}

impl ReportedOrder {
    /// As the script expects it.
    fn arguments(&self) -> [String; 4] {
        [&self.at, &self.id, &self.placed, &self.again].map(String::clone)
    }

    fn of(
        place: usize,
        order: &AddOrder,
        text: String,
        at: Timestamp,
        first: Option<String>,
    ) -> RedisResult<Self> {
        let other = first.filter(|first| *first != text);
        let (zone, placed, again) = match other {
            None => (order.zone, placed(order), String::new()),
            Some(other) => {
                let Event::Order(first) = event_of(&other)? else {
                    return Err(invalid_answer("a courier is no order"));
                };
                (first.zone, placed(&first), text)
            }
        };
        Ok(Self {
            place,
            zone,
            at: micros(at),
            id: order.id.to_string(),
            placed,
            again,
        })
    }
}
