//! Publishes events, and assignments until they are confirmed.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use aws_sdk_sns::types::PublishBatchRequestEntry;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::super::error::{AnnounceError, Unavailable};
use super::super::model::Event;
use super::super::service::Couriers;
use super::super::store::Outgoing;
use super::super::topic::{Announced, Topic};
use super::chain::Chain;
use super::dead_letters::{Attributes, Letter, bury};
use super::health::{Health, Overview, Pauses, Trouble};
use super::message::{allowed, sendable};
use super::metrics::Metrics;
use super::provision::name_of;
use crate::storage::aws::errors::{Action, Service};

/// Most messages of a batch, and ...
const BATCH_MAX: usize = 10;
/// ... their total size: the maximum of SNS.
const BATCH_BYTES_MAX: usize = 256 << 10;
/// Batches in flight.
const BATCHES_MAX: usize = 8;
/// Assignments read from the outbox at once.
const PAGE: usize = BATCH_MAX * BATCHES_MAX;
/// How often the outbox is read without a decision here: another process may have decided.
const LOOK: Duration = Duration::from_secs(5);
/// Time limit for publishing events, retries included: a client waits for it.
const ANNOUNCING: Duration = Duration::from_secs(15);

/// A message with its index.
type Placed = (usize, String);

/// The result of publishing some messages.
#[derive(Default)]
struct Told {
    /// Indices of confirmed messages.
    confirmed: BTreeSet<usize>,
    /// Messages that the topic never accepts, and why.
    refused: Vec<(Placed, Trouble)>,
    /// Why the others are neither.
    trouble: Option<Trouble>,
}

impl Told {
    fn failed(trouble: Trouble) -> Self {
        Self {
            trouble: Some(trouble),
            ..Self::default()
        }
    }

    fn add(&mut self, other: Self) {
        self.confirmed.extend(other.confirmed);
        self.refused.extend(other.refused);
        self.trouble = self.trouble.take().or(other.trouble);
    }

    /// Whether this message is confirmed or refused.
    fn is_settled(&self, place: usize) -> bool {
        let refused = self.refused.iter().any(|((one, _), _)| *one == place);
        refused || self.confirmed.contains(&place)
    }

    fn why_not_all(&mut self) -> Trouble {
        let unknown = || Trouble::of("some were not confirmed");
        self.trouble.take().unwrap_or_else(unknown)
    }
}

/// Publishes messages in batches, several at once.
async fn publish(chain: &Chain, topic: &str, messages: Vec<Placed>) -> Told {
    if let Err(error) = chain.ensure().await {
        return Told::failed(Trouble::of(error.to_string()));
    }
    let mut told = Told::default();
    let mut waiting = VecDeque::from(batches(messages));
    let mut running = JoinSet::new();
    loop {
        while running.len() < BATCHES_MAX
            && let Some(batch) = waiting.pop_front()
        {
            let (chain, topic) = (chain.clone(), topic.to_owned());
            running.spawn(async move { Box::pin(publish_batch(&chain, &topic, batch)).await });
        }
        match running.join_next().await {
            None => break,
            Some(Ok((of_batch, alone))) => {
                told.add(of_batch);
                waiting.extend(alone.into_iter().map(|message| vec![message]));
            }
            Some(Err(error)) => told.add(Told::failed(Trouble::of(error.to_string()))),
        }
    }
    if told.trouble.is_some() {
        chain.suspect();
    }
    told
}

/// Publishes one batch. If SNS refuses the whole batch because of one message, the messages are returned, to be published one
/// by one: the answer does not name the message.
async fn publish_batch(chain: &Chain, topic: &str, batch: Vec<Placed>) -> (Told, Vec<Placed>) {
    let entries: Result<Vec<_>, _> = batch
        .iter()
        .map(|(place, message)| {
            let entry = PublishBatchRequestEntry::builder().id(place.to_string());
            entry.message(message).build()
        })
        .collect();
    let entries = match entries {
        Ok(entries) => entries,
        Err(error) => return (Told::failed(Trouble::of(error.to_string())), Vec::new()),
    };
    let send = chain.sns().publish_batch().topic_arn(topic);
    let send = send.set_publish_batch_request_entries(Some(entries));
    let done = match Box::pin(send.send()).await {
        Ok(done) => done,
        Err(error) => {
            let trouble = Trouble::of_call(Service::Sns, &error);
            if trouble.action != Action::DeadLetter {
                return (Told::failed(trouble), Vec::new());
            }
            if batch.len() > 1 {
                return (Told::default(), batch);
            }
            let mut told = Told::default();
            let alone = batch.into_iter().map(|message| (message, trouble.clone()));
            told.refused.extend(alone);
            return (told, Vec::new());
        }
    };
    let mut told = Told::default();
    let confirmed = done.successful().iter();
    told.confirmed
        .extend(confirmed.filter_map(|entry| entry.id()?.parse::<usize>().ok()));
    for entry in done.failed() {
        let (code, message) = (entry.code(), entry.message());
        let trouble = Trouble::of_entry(Service::Sns, code, message, entry.sender_fault());
        let of_entry = |(place, _): &&Placed| entry.id().parse() == Ok(*place);
        match batch.iter().find(of_entry) {
            Some(message) if trouble.action == Action::DeadLetter => {
                told.refused.push((message.clone(), trouble));
            }
            _ => told.add(Told::failed(trouble)),
        }
    }
    (told, Vec::new())
}

/// Splits messages into batches that SNS accepts. One that is too large is alone.
fn batches(messages: Vec<Placed>) -> Vec<Vec<Placed>> {
    let mut batches = Vec::new();
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for (place, message) in messages {
        let full = batch.len() == BATCH_MAX || bytes + message.len() > BATCH_BYTES_MAX;
        if full && !batch.is_empty() {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
        bytes += message.len();
        batch.push((place, message));
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

fn written<T: Serialize>(told: &[T]) -> serde_json::Result<Vec<Placed>> {
    let each = told.iter().enumerate();
    each.map(|(place, one)| Ok((place, sendable(serde_json::to_string(one)?))))
        .collect()
}

#[derive(Debug)]
pub(super) struct Announcer {
    chain: Chain,
    metrics: Metrics,
    health: Health,
}

impl Announcer {
    pub(super) fn new(chain: Chain, metrics: Metrics) -> Self {
        Self {
            chain,
            metrics,
            health: Health::new("announcing events"),
        }
    }

    async fn announce(&self, events: Vec<Event>) -> Result<(), AnnounceError> {
        let topic = &self.chain.places().events_topic;
        let mut left = written(&events).map_err(|_| Unavailable::Failed)?;
        let mut refused = Vec::new();
        // Dropped with the request.
        let (never, mut pauses) = (CancellationToken::new(), Pauses::default());
        let deadline = Instant::now() + ANNOUNCING;
        loop {
            let sent = Box::pin(publish(&self.chain, topic, left.clone()));
            let told = timeout_at(deadline, sent).await;
            let mut told =
                told.unwrap_or_else(|_| Told::failed(Trouble::of("there was no answer in time")));
            self.metrics
                .announced
                .increment(told.confirmed.len() as u64);
            left.retain(|(place, _)| !told.is_settled(*place));
            for ((place, _), trouble) in told.refused.drain(..) {
                let cause = trouble.cause;
                warn!(topic, cause, "the topic refuses an event");
                refused.push(place);
            }
            if left.is_empty() {
                self.health.works(topic);
                refused.sort_unstable();
                if refused.is_empty() {
                    return Ok(());
                }
                return Err(AnnounceError::Refused(refused));
            }
            let Trouble { action, cause } = told.why_not_all();
            self.chain.suspect();
            self.health.fails(topic, &cause);
            match action {
                Action::Refuse | Action::DeadLetter => {
                    error!(topic, cause, "SNS does not accept a request");
                    return Err(Unavailable::Failed.into());
                }
                // With `aws.provision` a missing topic is created before the next attempt.
                Action::NotReady if !self.chain.makes() => return Err(Unavailable::Engine.into()),
                Action::NotReady | Action::Retry | Action::RetryUnknown => {}
            }
            let waited = timeout_at(deadline, pauses.wait(&never)).await;
            if waited.is_err() {
                return Err(Unavailable::Engine.into());
            }
        }
    }
}

impl Topic for Announcer {
    fn announce(&self, events: Vec<Event>) -> Announced<'_> {
        Box::pin(self.announce(events))
    }
}

/// Publishes the outbox.
pub(super) struct Publisher {
    chain: Chain,
    couriers: Couriers,
    metrics: Metrics,
    stop: CancellationToken,
    publishing: Health,
    reading: Health,
}

impl Publisher {
    pub(super) fn new(
        chain: Chain,
        couriers: Couriers,
        metrics: Metrics,
        stop: CancellationToken,
        overview: &Overview,
    ) -> Self {
        Self {
            chain,
            couriers,
            metrics,
            stop,
            publishing: overview.watch("publishing assignments"),
            reading: overview.watch("the outbox of assignments"),
        }
    }

    /// Runs until it is stopped.
    pub(super) async fn run(self) {
        let mut pauses = Pauses::default();
        while !self.stop.is_cancelled() {
            let goes_on = match Box::pin(self.round()).await {
                Ok(true) => {
                    pauses.end();
                    true
                }
                Ok(false) => {
                    pauses.end();
                    let woken = async {
                        tokio::select! {
                            () = self.couriers.decided() => {}
                            () = sleep(LOOK) => {}
                        }
                    };
                    self.stop.run_until_cancelled(woken).await.is_some()
                }
                Err(NotAll) => pauses.wait(&self.stop).await,
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Publishes the oldest of the outbox. Whether there may be more.
    async fn round(&self) -> Result<bool, NotAll> {
        let topic = &self.chain.places().assignments_topic;
        let outgoing = self.couriers.outgoing(PAGE).await;
        let outgoing = outgoing.map_err(|away| self.unreadable(away))?;
        if outgoing.is_empty() {
            return Ok(false);
        }
        let assignments: Vec<_> = outgoing.iter().map(|one| one.assignment).collect();
        let messages = written(&assignments).map_err(|_| self.unreadable(Unavailable::Failed))?;
        let mut told = publish(&self.chain, topic, messages).await;
        let published = told.confirmed.len() as u64;
        for ((place, message), trouble) in std::mem::take(&mut told.refused) {
            match self.bury(&message, &trouble.cause).await {
                // It leaves the outbox like a confirmed one.
                Ok(()) => told.confirmed.extend([place]),
                Err(trouble) => told.add(Told::failed(trouble)),
            }
        }
        let place = |place: &usize| outgoing.get(*place);
        let of = |one: &Outgoing| one.number;
        let numbers: Vec<u64> = told.confirmed.iter().filter_map(place).map(of).collect();
        let all = numbers.len() == outgoing.len();
        self.metrics.published.increment(published);
        if !numbers.is_empty() {
            let noted = self.couriers.told(numbers).await;
            noted.map_err(|away| self.unreadable(away))?;
        }
        self.reading.works(topic);
        if all {
            self.publishing.works(topic);
            return Ok(true);
        }
        self.metrics.unpublished.increment(1);
        self.publishing.fails(topic, &told.why_not_all().cause);
        Err(NotAll)
    }

    /// Dead-letters an assignment that the topic never accepts, as a message of the queue of assignments.
    async fn bury(&self, message: &str, cause: &str) -> Result<(), Trouble> {
        let letter = Letter {
            id: "",
            body: message,
            attributes: &Attributes::new(),
            reason: &allowed(&format!("SNS refuses it: {cause}")),
            queue: name_of(&self.chain.places().assignments_queue),
        };
        bury(&self.chain, &letter).await
    }

    fn unreadable(&self, away: Unavailable) -> NotAll {
        self.reading
            .fails(&self.chain.places().assignments_topic, &away.to_string());
        NotAll
    }
}

/// Some messages are left in the outbox.
struct NotAll;

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(lengths: &[usize]) -> Vec<(usize, String)> {
        let each = lengths.iter().enumerate();
        each.map(|(place, length)| (place, "x".repeat(*length)))
            .collect()
    }

    #[test]
    fn batches_hold_what_sns_takes_and_lose_nothing() {
        let all = BATCH_BYTES_MAX;
        for (lengths, expected) in [
            (vec![], vec![]),
            (vec![0; 10], vec![10]),
            (vec![1; 25], vec![10, 10, 5]),
            (vec![all, 1], vec![1, 1]),
            (vec![all / 2, all / 2, 1], vec![2, 1]),
            (vec![all + 1, 1, 1], vec![1, 2]),
            (vec![1, all + 1, 1], vec![1, 1, 1]),
            (vec![60_000; 9], vec![4, 4, 1]),
        ] {
            let batches = batches(messages(&lengths));
            let sizes: Vec<usize> = batches.iter().map(Vec::len).collect();
            assert_eq!(sizes, expected, "{lengths:?}");
            let places: Vec<usize> = batches.iter().flatten().map(|(place, _)| *place).collect();
            assert_eq!(places, (0..lengths.len()).collect::<Vec<_>>());
        }
    }
}
