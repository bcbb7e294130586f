//! Publishes events, and assignments until they are confirmed.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use aws_sdk_sns::types::PublishBatchRequestEntry;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::super::error::{PublishError, Unavailable};
use super::super::model::Event;
use super::super::service::Couriers;
use super::super::store::Outgoing;
use super::super::topic::{Published, Topic};
use super::dead_letters::{Attributes, Letter, dead_letter};
use super::health::{BACKOFF, Health, Overview, wait};
use super::message::{allowed, sendable};
use super::metrics::Metrics;
use super::provision::name_of;
use super::topology::Topology;
use crate::storage::aws::errors::{Action, CallError};
use crate::storage::preflight::Engine;

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
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(15);

/// A message with its index.
type Placed = (usize, String);

/// The result of publishing some messages.
#[derive(Default)]
struct PublishResult {
    /// Indices of confirmed messages.
    confirmed: BTreeSet<usize>,
    /// Messages that the topic never accepts, and why.
    refused: Vec<(Placed, CallError)>,
    /// Why the others are neither.
    call_error: Option<CallError>,
}

impl PublishResult {
    fn failed(call_error: CallError) -> Self {
        Self {
            call_error: Some(call_error),
            ..Self::default()
        }
    }

    fn add(&mut self, other: Self) {
        self.confirmed.extend(other.confirmed);
        self.refused.extend(other.refused);
        self.call_error = self.call_error.take().or(other.call_error);
    }

    /// Whether this message is confirmed or refused.
    fn is_settled(&self, place: usize) -> bool {
        let refused = self.refused.iter().any(|((one, _), _)| *one == place);
        refused || self.confirmed.contains(&place)
    }

    fn why_not_all(&mut self) -> CallError {
        let unknown = || CallError::transient("some were not confirmed");
        self.call_error.take().unwrap_or_else(unknown)
    }
}

/// Publishes messages in batches, several at once.
async fn publish(topology: &Topology, topic: &str, messages: Vec<Placed>) -> PublishResult {
    if let Err(error) = topology.ensure().await {
        return PublishResult::failed(CallError::transient(error.to_string()));
    }
    let mut result = PublishResult::default();
    let mut waiting = VecDeque::from(batches(messages));
    let mut running = JoinSet::new();
    loop {
        while running.len() < BATCHES_MAX
            && let Some(batch) = waiting.pop_front()
        {
            let (topology, topic) = (topology.clone(), topic.to_owned());
            running.spawn(async move { Box::pin(publish_batch(&topology, &topic, batch)).await });
        }
        match running.join_next().await {
            None => break,
            Some(Ok((of_batch, alone))) => {
                result.add(of_batch);
                waiting.extend(alone.into_iter().map(|message| vec![message]));
            }
            Some(Err(error)) => result.add(PublishResult::failed(CallError::transient(
                error.to_string(),
            ))),
        }
    }
    if result.call_error.is_some() {
        topology.mark_dirty();
    }
    result
}

/// Publishes one batch. If SNS refuses the whole batch because of one message, the messages are returned, to be published one
/// by one: the answer does not name the message.
async fn publish_batch(
    topology: &Topology,
    topic: &str,
    batch: Vec<Placed>,
) -> (PublishResult, Vec<Placed>) {
    let entries: Result<Vec<_>, _> = batch
        .iter()
        .map(|(place, message)| {
            let entry = PublishBatchRequestEntry::builder().id(place.to_string());
            entry.message(message).build()
        })
        .collect();
    let entries = match entries {
        Ok(entries) => entries,
        Err(error) => {
            return (
                PublishResult::failed(CallError::transient(error.to_string())),
                Vec::new(),
            );
        }
    };
    let send = topology.sns().publish_batch().topic_arn(topic);
    let send = send.set_publish_batch_request_entries(Some(entries));
    let done = match Box::pin(send.send()).await {
        Ok(done) => done,
        Err(error) => {
            let call_error = CallError::of_call(Engine::Sns, &error);
            if call_error.action != Action::DeadLetter {
                return (PublishResult::failed(call_error), Vec::new());
            }
            if batch.len() > 1 {
                return (PublishResult::default(), batch);
            }
            let mut result = PublishResult::default();
            let alone = batch
                .into_iter()
                .map(|message| (message, call_error.clone()));
            result.refused.extend(alone);
            return (result, Vec::new());
        }
    };
    let mut result = PublishResult::default();
    let confirmed = done.successful().iter();
    result
        .confirmed
        .extend(confirmed.filter_map(|entry| entry.id()?.parse::<usize>().ok()));
    for entry in done.failed() {
        let (code, message) = (entry.code(), entry.message());
        let call_error = CallError::of_entry(Engine::Sns, code, message, entry.sender_fault());
        let of_entry = |(place, _): &&Placed| entry.id().parse() == Ok(*place);
        match batch.iter().find(of_entry) {
            Some(message) if call_error.action == Action::DeadLetter => {
                result.refused.push((message.clone(), call_error));
            }
            _ => result.add(PublishResult::failed(call_error)),
        }
    }
    (result, Vec::new())
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

fn written<T: Serialize>(result: &[T]) -> serde_json::Result<Vec<Placed>> {
    let each = result.iter().enumerate();
    each.map(|(place, one)| Ok((place, sendable(serde_json::to_string(one)?))))
        .collect()
}

#[derive(Debug)]
pub(super) struct EventPublisher {
    topology: Topology,
    metrics: Metrics,
    health: Health,
}

impl EventPublisher {
    pub(super) fn new(topology: Topology, metrics: Metrics) -> Self {
        Self {
            topology,
            metrics,
            health: Health::new("announcing events"),
        }
    }

    async fn publish_events(&self, events: Vec<Event>) -> Result<(), PublishError> {
        let topic = &self.topology.endpoints().events_topic;
        let mut left = written(&events).map_err(|_| Unavailable::Failed)?;
        let mut refused = Vec::new();
        let mut backoff = BACKOFF;
        let deadline = Instant::now() + PUBLISH_TIMEOUT;
        loop {
            let sent = Box::pin(publish(&self.topology, topic, left.clone()));
            let result = timeout_at(deadline, sent).await;
            let mut result = result.unwrap_or_else(|_| {
                PublishResult::failed(CallError::transient("there was no answer in time"))
            });
            self.metrics
                .announced
                .increment(result.confirmed.len() as u64);
            left.retain(|(place, _)| !result.is_settled(*place));
            for ((place, _), call_error) in result.refused.drain(..) {
                let cause = call_error.cause;
                warn!(topic, cause, "the topic refuses an event");
                refused.push(place);
            }
            if left.is_empty() {
                self.health.works(topic);
                refused.sort_unstable();
                if refused.is_empty() {
                    return Ok(());
                }
                return Err(PublishError::Refused(refused));
            }
            let CallError { action, cause } = result.why_not_all();
            self.topology.mark_dirty();
            self.health.fails(topic, &cause);
            match action {
                Action::Refuse | Action::DeadLetter => {
                    error!(topic, cause, "SNS does not accept a request");
                    return Err(Unavailable::Failed.into());
                }
                // With `aws.provision` a missing topic is created before the next attempt.
                Action::NotReady if !self.topology.provisions() => {
                    return Err(Unavailable::Engine.into());
                }
                Action::NotReady | Action::Retry | Action::RetryUnknown => {}
            }
            let waited = timeout_at(deadline, sleep(backoff.next_wait())).await;
            if waited.is_err() {
                return Err(Unavailable::Engine.into());
            }
        }
    }
}

impl Topic for EventPublisher {
    fn publish(&self, events: Vec<Event>) -> Published<'_> {
        Box::pin(self.publish_events(events))
    }
}

/// Publishes the outbox.
pub(super) struct OutboxPublisher {
    topology: Topology,
    couriers: Couriers,
    metrics: Metrics,
    stop: CancellationToken,
    publishing: Health,
    reading: Health,
}

impl OutboxPublisher {
    pub(super) fn new(
        topology: Topology,
        couriers: Couriers,
        metrics: Metrics,
        stop: CancellationToken,
        overview: &Overview,
    ) -> Self {
        Self {
            topology,
            couriers,
            metrics,
            stop,
            publishing: overview.watch("publishing assignments"),
            reading: overview.watch("the outbox of assignments"),
        }
    }

    /// Runs until it is stopped.
    pub(super) async fn run(self) {
        let mut backoff = BACKOFF;
        while !self.stop.is_cancelled() {
            let goes_on = match Box::pin(self.round()).await {
                Ok(true) => {
                    backoff.reset();
                    true
                }
                Ok(false) => {
                    backoff.reset();
                    let woken = async {
                        tokio::select! {
                            () = self.couriers.decided() => {}
                            () = sleep(LOOK) => {}
                        }
                    };
                    self.stop.run_until_cancelled(woken).await.is_some()
                }
                Err(NotAll) => wait(&mut backoff, &self.stop).await,
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Publishes the oldest of the outbox. Whether there may be more.
    async fn round(&self) -> Result<bool, NotAll> {
        let topic = &self.topology.endpoints().assignments_topic;
        let outgoing = self.couriers.outgoing(PAGE).await;
        let outgoing = outgoing.map_err(|away| self.unreadable(away))?;
        if outgoing.is_empty() {
            return Ok(false);
        }
        let assignments: Vec<_> = outgoing.iter().map(|one| one.assignment).collect();
        let messages = written(&assignments).map_err(|_| self.unreadable(Unavailable::Failed))?;
        let mut result = publish(&self.topology, topic, messages).await;
        let published = result.confirmed.len() as u64;
        for ((place, message), call_error) in std::mem::take(&mut result.refused) {
            match self.dead_letter(&message, &call_error.cause).await {
                // It leaves the outbox like a confirmed one.
                Ok(()) => result.confirmed.extend([place]),
                Err(call_error) => result.add(PublishResult::failed(call_error)),
            }
        }
        let place = |place: &usize| outgoing.get(*place);
        let of = |one: &Outgoing| one.number;
        let numbers: Vec<u64> = result.confirmed.iter().filter_map(place).map(of).collect();
        let all = numbers.len() == outgoing.len();
        self.metrics.published.increment(published);
        if !numbers.is_empty() {
            let noted = self.couriers.mark_published(numbers).await;
            noted.map_err(|away| self.unreadable(away))?;
        }
        self.reading.works(topic);
        if all {
            self.publishing.works(topic);
            return Ok(true);
        }
        self.metrics.unpublished.increment(1);
        self.publishing.fails(topic, &result.why_not_all().cause);
        Err(NotAll)
    }

    /// Dead-letters an assignment that the topic never accepts, as a message of the queue of assignments.
    async fn dead_letter(&self, message: &str, cause: &str) -> Result<(), CallError> {
        let letter = Letter {
            id: "",
            body: message,
            attributes: &Attributes::new(),
            reason: &allowed(&format!("SNS refuses it: {cause}")),
            queue: name_of(&self.topology.endpoints().assignments_queue),
        };
        dead_letter(&self.topology, &letter).await
    }

    fn unreadable(&self, away: Unavailable) -> NotAll {
        self.reading.fails(
            &self.topology.endpoints().assignments_topic,
            &away.to_string(),
        );
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
