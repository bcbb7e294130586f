//! Applies events: queued requests are batched, with one round trip for up to [`EVENTS_PER_SCRIPT`].

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use redis::RedisResult;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::super::error::Unavailable;
use super::super::model::{Join, Outcome};
use super::Health;
use super::notation::{command, invalid_answer, key, outcome_of};
use crate::storage::redis::{Redis as Client, Script, is_refused_for_now};

static APPLY: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("apply.lua"), KEYS.map(key)));
/// In the order in which `apply.lua` has them.
pub(super) const KEYS: [&str; 11] = [
    "couriers", "orders", "assigned", "parked", "log", "outgoing", "turns:N", "turns:S", "turns:E",
    "turns:W", "tally",
];

/// Most requests of a batch.
const BATCH_MAX: usize = 256;
/// Batches in progress: while Redis decides about one, the next one is written.
const LANES: usize = 2;
/// Most events per script call. A call blocks Redis for some 15 µs per event; with 100, less than a fiftieth of the cost is that
/// of the call itself, and other clients wait for 2 ms at most, unless a courier becomes available to many parked orders.
const EVENTS_PER_SCRIPT: usize = 100;
/// Interval of probing Redis after a failure.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// Backoff of retries: a restarted server is back within them.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(400),
];

/// A request, and the channel for its outcomes.
#[derive(Debug)]
pub(super) struct Job {
    /// See [`arguments`](super::notation::arguments).
    pub(super) events: Vec<[String; 4]>,
    pub(super) answer: oneshot::Sender<Result<Vec<Outcome>, Unavailable>>,
}

#[derive(Debug)]
pub(super) struct Writer {
    client: Client,
    health: Health,
    /// The first arguments of the script.
    desk: [&'static str; 2],
}

impl Writer {
    pub(super) fn new(client: Client, join: Join, publishes: bool, health: Health) -> Self {
        let join = match join {
            Join::Zero => "zero",
            Join::Min => "min",
        };
        Self {
            client,
            health,
            desk: [if publishes { "1" } else { "0" }, join],
        }
    }

    /// Runs until the last handle is dropped.
    pub(super) async fn run(self, mut waiting: mpsc::Receiver<Job>) {
        let writer = Arc::new(self);
        let lanes = Arc::new(Semaphore::new(LANES));
        let mut rounds = interval(PROBE_EVERY);
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
                _ = rounds.tick() => writer.probe().await,
            }
        }
    }

    async fn work(&self, jobs: Vec<Job>) {
        let events: Vec<&[String; 4]> = jobs.iter().flat_map(|job| &job.events).collect();
        let mut outcomes = Vec::with_capacity(events.len());
        let failed = self.persist(&events, &mut outcomes).await.err();
        let mut outcomes = outcomes.into_iter();
        for Job { events, answer } in jobs {
            let of_request: Vec<Outcome> = outcomes.by_ref().take(events.len()).collect();
            let answered = if of_request.len() == events.len() {
                Ok(of_request)
            } else {
                Err(failed.unwrap_or(Unavailable::Failed))
            };
            // The caller may have left.
            let _ = answer.send(answered);
        }
    }

    /// Applies the events that have no outcome yet; retries during a short outage.
    async fn persist(
        &self,
        events: &[&[String; 4]],
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), Unavailable> {
        let mut pauses = PAUSES.into_iter();
        loop {
            match (self.apply(events, outcomes).await, pauses.next()) {
                // Requests that were queued through the outage are not delayed again.
                (Err(error), Some(pause))
                    if error.is_io_error() && !error.is_timeout() || is_refused_for_now(&error) =>
                {
                    sleep(pause).await;
                }
                (done, _) => return self.health.write_result(done),
            }
        }
    }

    /// In order: one script after the other.
    async fn apply(&self, events: &[&[String; 4]], outcomes: &mut Vec<Outcome>) -> RedisResult<()> {
        for part in events[outcomes.len()..].chunks(EVENTS_PER_SCRIPT) {
            let of_events = part.iter().copied().flatten().map(String::as_str);
            let arguments: Vec<&str> = self.desk.into_iter().chain(of_events).collect();
            let decided: Vec<String> = self.client.run(&APPLY, &arguments).await?;
            if decided.len() != part.len() {
                return Err(invalid_answer("an event has no outcome"));
            }
            let decided: RedisResult<Vec<Outcome>> =
                decided.iter().map(|text| outcome_of(text)).collect();
            outcomes.extend(decided?);
        }
        Ok(())
    }

    /// After a failure, whether Redis accepts writes again.
    async fn probe(&self) {
        if !self.health.is_healthy() {
            let probe = command("SET", "probe", &["0"]);
            let probed: RedisResult<String> = self.client.ask(probe).await;
            // It is recorded; no caller waits for it.
            let _ = self.health.write_result(probed);
        }
    }
}
