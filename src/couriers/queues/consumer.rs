//! Receives the messages of a queue.
//!
//! ```text
//!   receive -> hold -> parsed: store all of a batch at once -> delete
//!                  '-> poison: send to the dead-letter queue -> delete
//! ```
//!
//! Held messages stay invisible until they are deleted or returned.

use std::collections::BTreeMap;
use std::future::pending;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry,
    DeleteMessageBatchRequestEntry, Message,
};
use metrics::Counter;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error};

use super::super::error::Unavailable;
use super::super::model::{Assignment, Event};
use super::super::reading;
use super::super::service::Couriers;
use super::dead_letters::{Attributes, Letter, dead_letter};
use super::health::{BACKOFF, Health, Overview, wait};
use super::message::parse;
use super::metrics::Counts;
use super::provision::name_of;
use super::topology::{Topology, WAIT};
use crate::storage::aws::errors::CallError;
use crate::storage::preflight::Engine;
use crate::values::json::Mistake;

/// Most messages of a batch: the maximum of SQS.
pub(super) const BATCH_MAX: i32 = 10;
/// Batches in progress. While the store is down, as many are held, and no more are received.
const BATCHES_MAX: usize = 8;
/// Visibility is extended after this fraction of it has passed: 1/3.
const VISIBILITY_PARTS: u32 = 3;
/// Attempts to delete stored messages. After them they are redelivered, which changes nothing.
const DELETE_TRIES: u32 = 5;
/// Attempts to dead-letter poison, on top of the client's own. After them it is redelivered, to free its slot.
const DEAD_LETTER_TRIES: u32 = 3;
/// Time limit for returning messages when the process ends.
const RETURN_TIMEOUT: Duration = Duration::from_secs(2);

/// How the messages of a queue are handled.
pub(super) trait Handler: Send + Sync + 'static {
    /// A parsed message.
    type Payload: Clone + Send + Sync;

    fn read(value: &serde_json::Value) -> Result<Self::Payload, Vec<Mistake>>;

    fn store(
        couriers: &Couriers,
        payload: Vec<Self::Payload>,
    ) -> impl Future<Output = Result<(), Unavailable>> + Send;
}

/// Decides about events.
#[derive(Debug)]
pub(super) struct Events;

impl Handler for Events {
    type Payload = Event;

    fn read(value: &serde_json::Value) -> Result<Event, Vec<Mistake>> {
        reading::event(value)
    }

    async fn store(couriers: &Couriers, payload: Vec<Event>) -> Result<(), Unavailable> {
        couriers.decide(payload).await.map(drop)
    }
}

/// Replicates assignments.
#[derive(Debug)]
pub(super) struct Assignments;

impl Handler for Assignments {
    type Payload = Assignment;

    fn read(value: &serde_json::Value) -> Result<Assignment, Vec<Mistake>> {
        reading::assignment(value)
    }

    async fn store(couriers: &Couriers, payload: Vec<Assignment>) -> Result<(), Unavailable> {
        couriers.replicate(payload).await
    }
}

pub(super) struct Parts {
    pub(super) topology: Topology,
    pub(super) queue: String,
    pub(super) couriers: Couriers,
    pub(super) visibility: Duration,
    pub(super) counts: Counts,
    pub(super) stop: CancellationToken,
    pub(super) overview: Overview,
}

pub(super) struct Consumer<H> {
    parts: Parts,
    receiving: Health,
    storing: Health,
    dead_lettering: Health,
    deleting: Health,
    handler: PhantomData<H>,
}

enum StoreOutcome {
    Stored,
    /// The process ends; the outcome is unknown.
    Stopped,
    /// A bug, not an outage.
    Failed,
}

impl<H: Handler> Consumer<H> {
    pub(super) fn new(parts: Parts) -> Self {
        let watch = |what| parts.overview.watch(what);
        Self {
            receiving: watch("receiving messages"),
            storing: watch("storing messages"),
            dead_lettering: watch("sending to the dead-letter queue"),
            deleting: watch("deleting messages"),
            parts,
            handler: PhantomData,
        }
    }

    /// Runs until it is stopped; returns when no batch is in progress.
    pub(super) async fn run(self: Arc<Self>) {
        let Parts { stop, counts, .. } = &self.parts;
        let slots = Arc::new(Semaphore::new(BATCHES_MAX));
        let works = TaskTracker::new();
        let mut backoff = BACKOFF;
        loop {
            let next = async {
                let slot = Arc::clone(&slots).acquire_owned().await.ok()?;
                Some((slot, self.receive().await))
            };
            let Some(Some((slot, received))) = stop.run_until_cancelled(Box::pin(next)).await
            else {
                break;
            };
            match received {
                Ok(messages) => {
                    self.receiving.works(&self.parts.queue);
                    backoff.reset();
                    counts.received.increment(messages.len() as u64);
                    if !messages.is_empty() {
                        let this = Arc::clone(&self);
                        works.spawn(async move {
                            Box::pin(this.work(messages)).await;
                            drop(slot);
                        });
                    }
                }
                Err(call_error) => {
                    self.failed(&self.receiving, &counts.not_received, &call_error);
                    if !wait(&mut backoff, stop).await {
                        break;
                    }
                }
            }
        }
        works.close();
        works.wait().await;
    }

    fn failed(&self, health: &Health, count: &Counter, call_error: &CallError) {
        count.increment(1);
        self.parts.topology.mark_dirty();
        health.fails(&self.parts.queue, &call_error.cause);
    }

    async fn receive(&self) -> Result<Vec<Message>, CallError> {
        let Parts {
            topology, queue, ..
        } = &self.parts;
        let made = topology.ensure().await;
        made.map_err(|error| CallError::transient(error.to_string()))?;
        let receive = topology.waiting().receive_message().queue_url(queue);
        let receive = receive
            .max_number_of_messages(BATCH_MAX)
            .wait_time_seconds(seconds(WAIT))
            .visibility_timeout(seconds(self.parts.visibility))
            // For dead letters.
            .message_attribute_names("All");
        let received = Box::pin(receive.send()).await;
        let received = received.map_err(|error| CallError::of_call(Engine::Sqs, &error))?;
        Ok(received.messages.unwrap_or_default())
    }

    /// Works on a batch until every message is deleted, or left for redelivery.
    async fn work(&self, messages: Vec<Message>) {
        let held = Held::default();
        let (mut parsed, mut poison) = (Vec::new(), Vec::new());
        for (number, message) in messages.into_iter().enumerate() {
            let Some(receipt) = message.receipt_handle else {
                continue;
            };
            held.lock().insert(number, receipt);
            let body = message.body.unwrap_or_default();
            let id = message.message_id.unwrap_or_default();
            match parse(&body, H::read) {
                Ok(payload) => parsed.push(ParsedMessage {
                    number,
                    id,
                    payload,
                }),
                Err(reason) => poison.push(Poison {
                    number,
                    id,
                    body,
                    attributes: message.message_attributes.unwrap_or_default(),
                    reason,
                }),
            }
        }
        let counts = &self.parts.counts;
        counts.understood.increment(parsed.len() as u64);
        counts.poison.increment(poison.len() as u64);
        let work = async {
            tokio::join!(
                self.store_all(&held, parsed),
                self.dead_letter_all(&held, poison)
            )
        };
        tokio::select! {
            _ = work => {}
            () = self.extend_visibility(&held) => {}
        }
        // Messages are only left when the process ends.
        let left = held.entries();
        if !left.is_empty() {
            let given = self.change_visibility(&left, 0);
            let _ = timeout(RETURN_TIMEOUT, given).await;
        }
    }

    async fn store_all(&self, held: &Held, parsed: Vec<ParsedMessage<H::Payload>>) {
        if parsed.is_empty() {
            return;
        }
        let numbers = parsed.iter().map(|one| one.number).collect();
        let payload = parsed.iter().map(|one| one.payload.clone()).collect();
        match self.store(payload).await {
            StoreOutcome::Stored => return self.delete(held, numbers).await,
            StoreOutcome::Stopped => return,
            StoreOutcome::Failed => {}
        }
        // One of them triggers a bug; the others are stored without it.
        for ParsedMessage {
            number,
            id,
            payload,
        } in parsed
        {
            match self.store(vec![payload]).await {
                StoreOutcome::Stored => self.delete(held, vec![number]).await,
                StoreOutcome::Stopped => return,
                StoreOutcome::Failed => {
                    let queue = name_of(&self.parts.queue);
                    error!(
                        queue,
                        message_id = id,
                        "a message cannot be stored; it will be redelivered"
                    );
                    held.lock().remove(&number);
                }
            }
        }
    }

    async fn store(&self, payload: Vec<H::Payload>) -> StoreOutcome {
        let Parts {
            couriers,
            counts,
            queue,
            stop,
            ..
        } = &self.parts;
        let count = payload.len() as u64;
        let mut backoff = BACKOFF;
        loop {
            match H::store(couriers, payload.clone()).await {
                Ok(()) => {
                    self.storing.works(queue);
                    counts.kept.increment(count);
                    return StoreOutcome::Stored;
                }
                Err(Unavailable::Stopped) => return StoreOutcome::Stopped,
                Err(Unavailable::Failed) => return StoreOutcome::Failed,
                Err(away @ (Unavailable::Busy | Unavailable::Engine)) => {
                    counts.not_stored.increment(1);
                    self.storing.fails(queue, &away.to_string());
                }
            }
            if !wait(&mut backoff, stop).await {
                return StoreOutcome::Stopped;
            }
        }
    }

    async fn dead_letter_all(&self, held: &Held, mut poison: Vec<Poison>) {
        let mut backoff = BACKOFF;
        while !poison.is_empty() {
            let (mut left, mut buried) = (Vec::new(), Vec::new());
            for one in poison {
                if !left.is_empty() {
                    left.push(one);
                    continue;
                }
                match self.dead_letter(&one).await {
                    Ok(()) => buried.push(one.number),
                    Err(call_error) => {
                        self.failed(
                            &self.dead_lettering,
                            &self.parts.counts.not_buried,
                            &call_error,
                        );
                        left.push(one);
                    }
                }
            }
            self.delete(held, buried).await;
            if left.is_empty() {
                return self.dead_lettering.works(&self.parts.queue);
            }
            if !wait(&mut backoff, &self.parts.stop).await {
                return;
            }
            if backoff.failures() >= DEAD_LETTER_TRIES {
                for one in &left {
                    held.lock().remove(&one.number);
                }
                return;
            }
            poison = left;
        }
    }

    async fn dead_letter(&self, poison: &Poison) -> Result<(), CallError> {
        let letter = Letter {
            id: &poison.id,
            body: &poison.body,
            attributes: &poison.attributes,
            reason: &poison.reason,
            queue: name_of(&self.parts.queue),
        };
        dead_letter(&self.parts.topology, &letter).await
    }

    /// Deletes messages; those that fail are redelivered, which changes nothing.
    async fn delete(&self, held: &Held, numbers: Vec<usize>) {
        let Parts {
            topology,
            queue,
            counts,
            stop,
            ..
        } = &self.parts;
        let mut backoff = BACKOFF;
        let mut left = held.entries();
        left.retain(|(number, _)| numbers.contains(number));
        while !left.is_empty() {
            let entries = left.iter().map(|(number, receipt)| {
                let entry = DeleteMessageBatchRequestEntry::builder().id(number.to_string());
                entry.receipt_handle(receipt).build()
            });
            let entries: Result<Vec<_>, _> = entries.collect();
            let Ok(entries) = entries else { return };
            let delete = topology.sqs().delete_message_batch().queue_url(queue);
            let call_error = match Box::pin(delete.set_entries(Some(entries)).send()).await {
                Ok(done) => {
                    left.retain(|(number, _)| {
                        let failed = of(&done.failed, *number);
                        let again = failed.is_some_and(|failed| !failed.sender_fault());
                        if !again {
                            held.lock().remove(number);
                            counts.deleted.increment(u64::from(failed.is_none()));
                        }
                        again
                    });
                    if left.is_empty() {
                        return self.deleting.works(queue);
                    }
                    let failed = done.failed.first().map(|entry| {
                        let (code, message) = (entry.code(), entry.message());
                        CallError::of_entry(Engine::Sqs, code, message, entry.sender_fault())
                    });
                    failed.unwrap_or_else(|| CallError::transient("some were not deleted"))
                }
                Err(error) => CallError::of_call(Engine::Sqs, &error),
            };
            self.failed(&self.deleting, &counts.not_deleted, &call_error);
            if backoff.failures() + 1 >= DELETE_TRIES || !wait(&mut backoff, stop).await {
                break;
            }
        }
        for (number, _) in left {
            held.lock().remove(&number);
        }
    }

    /// Extends the visibility of held messages. Never ends.
    async fn extend_visibility(&self, held: &Held) {
        let visibility = self.parts.visibility;
        loop {
            sleep(visibility / VISIBILITY_PARTS).await;
            let entries = held.entries();
            if entries.is_empty() {
                // The batch is about to end.
                return pending().await;
            }
            match self.change_visibility(&entries, seconds(visibility)).await {
                Ok(lost) => {
                    for number in lost {
                        held.lock().remove(&number);
                    }
                }
                Err(call_error) => debug!(cause = call_error.cause, "messages may be redelivered"),
            }
        }
    }

    /// Makes messages invisible for so many seconds; returns those whose receipts have expired.
    async fn change_visibility(
        &self,
        entries: &[(usize, String)],
        visibility: i32,
    ) -> Result<Vec<usize>, CallError> {
        let Parts {
            topology, queue, ..
        } = &self.parts;
        let each = entries.iter().map(|(number, receipt)| {
            ChangeMessageVisibilityBatchRequestEntry::builder()
                .id(number.to_string())
                .receipt_handle(receipt)
                .visibility_timeout(visibility)
                .build()
        });
        let each: Result<Vec<_>, _> = each.collect();
        let each = each.map_err(|error| CallError::transient(error.to_string()))?;
        let change = topology
            .sqs()
            .change_message_visibility_batch()
            .queue_url(queue);
        let done = Box::pin(change.set_entries(Some(each)).send()).await;
        let done = done.map_err(|error| CallError::of_call(Engine::Sqs, &error))?;
        let lost = entries.iter().map(|(number, _)| *number);
        let lost = lost.filter(|number| {
            of(&done.failed, *number).is_some_and(BatchResultErrorEntry::sender_fault)
        });
        Ok(lost.collect())
    }
}

struct ParsedMessage<S> {
    number: usize,
    id: String,
    payload: S,
}

struct Poison {
    number: usize,
    id: String,
    body: String,
    attributes: Attributes,
    reason: String,
}

/// Receipts of held messages, by their index in the batch.
#[derive(Default)]
struct Held(Mutex<BTreeMap<usize, String>>);

impl Held {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, String>> {
        // No holder of the lock can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entries(&self) -> Vec<(usize, String)> {
        let held = self.lock();
        held.iter()
            .map(|(number, receipt)| (*number, receipt.clone()))
            .collect()
    }
}

/// The failed entry of this index.
fn of(failed: &[BatchResultErrorEntry], number: usize) -> Option<&BatchResultErrorEntry> {
    failed
        .iter()
        .find(|failed| failed.id().parse() == Ok(number))
}

/// Rounded up to whole seconds, the unit of SQS.
pub(super) fn seconds(time: Duration) -> i32 {
    let up = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    i32::try_from(up).unwrap_or(i32::MAX)
}
