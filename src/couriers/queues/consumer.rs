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
use super::chain::{Chain, WAIT};
use super::dead_letters::{Attributes, Letter, bury};
use super::health::{Health, Overview, Pauses, Trouble};
use super::message::understand;
use super::metrics::Counts;
use super::provision::name_of;
use crate::storage::aws::errors::Service;
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
const BURY_TRIES: u32 = 3;
/// Time limit for returning messages when the process ends.
const GIVE_BACK: Duration = Duration::from_secs(2);

/// How the messages of a queue are handled.
pub(super) trait Hears: Send + Sync + 'static {
    /// A parsed message.
    type Said: Clone + Send + Sync;

    fn read(value: &serde_json::Value) -> Result<Self::Said, Vec<Mistake>>;

    fn keep(
        couriers: &Couriers,
        said: Vec<Self::Said>,
    ) -> impl Future<Output = Result<(), Unavailable>> + Send;
}

/// Decides about events.
#[derive(Debug)]
pub(super) struct Events;

impl Hears for Events {
    type Said = Event;

    fn read(value: &serde_json::Value) -> Result<Event, Vec<Mistake>> {
        reading::event(value)
    }

    async fn keep(couriers: &Couriers, said: Vec<Event>) -> Result<(), Unavailable> {
        couriers.decide(said).await.map(drop)
    }
}

/// Replicates assignments.
#[derive(Debug)]
pub(super) struct Assignments;

impl Hears for Assignments {
    type Said = Assignment;

    fn read(value: &serde_json::Value) -> Result<Assignment, Vec<Mistake>> {
        reading::assignment(value)
    }

    async fn keep(couriers: &Couriers, said: Vec<Assignment>) -> Result<(), Unavailable> {
        couriers.learn(said).await
    }
}

pub(super) struct Parts {
    pub(super) chain: Chain,
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
    keeping: Health,
    burying: Health,
    deleting: Health,
    hears: PhantomData<H>,
}

enum Kept {
    Yes,
    /// The process ends; the outcome is unknown.
    Stopped,
    /// A bug, not an outage.
    Broken,
}

impl<H: Hears> Consumer<H> {
    pub(super) fn new(parts: Parts) -> Self {
        let watch = |what| parts.overview.watch(what);
        Self {
            receiving: watch("receiving messages"),
            keeping: watch("storing messages"),
            burying: watch("sending to the dead-letter queue"),
            deleting: watch("deleting messages"),
            parts,
            hears: PhantomData,
        }
    }

    /// Runs until it is stopped; returns when no batch is in progress.
    pub(super) async fn run(self: Arc<Self>) {
        let Parts { stop, counts, .. } = &self.parts;
        let seats = Arc::new(Semaphore::new(BATCHES_MAX));
        let works = TaskTracker::new();
        let mut pauses = Pauses::default();
        loop {
            let next = async {
                let seat = Arc::clone(&seats).acquire_owned().await.ok()?;
                Some((seat, self.receive().await))
            };
            let Some(Some((seat, received))) = stop.run_until_cancelled(Box::pin(next)).await
            else {
                break;
            };
            match received {
                Ok(messages) => {
                    self.receiving.works(&self.parts.queue);
                    pauses.end();
                    counts.received.increment(messages.len() as u64);
                    if !messages.is_empty() {
                        let this = Arc::clone(&self);
                        works.spawn(async move {
                            Box::pin(this.work(messages)).await;
                            drop(seat);
                        });
                    }
                }
                Err(trouble) => {
                    self.failed(&self.receiving, &counts.not_received, &trouble);
                    if !pauses.wait(stop).await {
                        break;
                    }
                }
            }
        }
        works.close();
        works.wait().await;
    }

    fn failed(&self, health: &Health, count: &Counter, trouble: &Trouble) {
        count.increment(1);
        self.parts.chain.suspect();
        health.fails(&self.parts.queue, &trouble.cause);
    }

    async fn receive(&self) -> Result<Vec<Message>, Trouble> {
        let Parts { chain, queue, .. } = &self.parts;
        let made = chain.ensure().await;
        made.map_err(|error| Trouble::of(error.to_string()))?;
        let receive = chain.waiting().receive_message().queue_url(queue);
        let receive = receive
            .max_number_of_messages(BATCH_MAX)
            .wait_time_seconds(seconds(WAIT))
            .visibility_timeout(seconds(self.parts.visibility))
            // For dead letters.
            .message_attribute_names("All");
        let received = Box::pin(receive.send()).await?;
        Ok(received.messages.unwrap_or_default())
    }

    /// Works on a batch until every message is deleted, or left for redelivery.
    async fn work(&self, messages: Vec<Message>) {
        let held = Held::default();
        let (mut understood, mut poison) = (Vec::new(), Vec::new());
        for (number, message) in messages.into_iter().enumerate() {
            let Some(receipt) = message.receipt_handle else {
                continue;
            };
            held.lock().insert(number, receipt);
            let body = message.body.unwrap_or_default();
            let id = message.message_id.unwrap_or_default();
            match understand(&body, H::read) {
                Ok(said) => understood.push(Understood { number, id, said }),
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
        counts.understood.increment(understood.len() as u64);
        counts.poison.increment(poison.len() as u64);
        let work = async {
            tokio::join!(
                self.keep_all(&held, understood),
                self.bury_all(&held, poison)
            )
        };
        tokio::select! {
            _ = work => {}
            () = self.hold_on(&held) => {}
        }
        // Messages are only left when the process ends.
        let left = held.entries();
        if !left.is_empty() {
            let given = self.change_visibility(&left, 0);
            let _ = timeout(GIVE_BACK, given).await;
        }
    }

    async fn keep_all(&self, held: &Held, understood: Vec<Understood<H::Said>>) {
        if understood.is_empty() {
            return;
        }
        let numbers = understood.iter().map(|one| one.number).collect();
        let said = understood.iter().map(|one| one.said.clone()).collect();
        match self.keep(said).await {
            Kept::Yes => return self.delete(held, numbers).await,
            Kept::Stopped => return,
            Kept::Broken => {}
        }
        // One of them triggers a bug; the others are stored without it.
        for Understood { number, id, said } in understood {
            match self.keep(vec![said]).await {
                Kept::Yes => self.delete(held, vec![number]).await,
                Kept::Stopped => return,
                Kept::Broken => {
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

    async fn keep(&self, said: Vec<H::Said>) -> Kept {
        let Parts {
            couriers,
            counts,
            queue,
            stop,
            ..
        } = &self.parts;
        let count = said.len() as u64;
        let mut pauses = Pauses::default();
        loop {
            match H::keep(couriers, said.clone()).await {
                Ok(()) => {
                    self.keeping.works(queue);
                    counts.kept.increment(count);
                    return Kept::Yes;
                }
                Err(Unavailable::Stopped) => return Kept::Stopped,
                Err(Unavailable::Failed) => return Kept::Broken,
                Err(away @ (Unavailable::Busy | Unavailable::Engine)) => {
                    counts.not_kept.increment(1);
                    self.keeping.fails(queue, &away.to_string());
                }
            }
            if !pauses.wait(stop).await {
                return Kept::Stopped;
            }
        }
    }

    async fn bury_all(&self, held: &Held, mut poison: Vec<Poison>) {
        let mut pauses = Pauses::default();
        while !poison.is_empty() {
            let (mut left, mut buried) = (Vec::new(), Vec::new());
            for one in poison {
                if !left.is_empty() {
                    left.push(one);
                    continue;
                }
                match self.bury(&one).await {
                    Ok(()) => buried.push(one.number),
                    Err(trouble) => {
                        self.failed(&self.burying, &self.parts.counts.not_buried, &trouble);
                        left.push(one);
                    }
                }
            }
            self.delete(held, buried).await;
            if left.is_empty() {
                return self.burying.works(&self.parts.queue);
            }
            if !pauses.wait(&self.parts.stop).await {
                return;
            }
            if pauses.failures() >= BURY_TRIES {
                for one in &left {
                    held.lock().remove(&one.number);
                }
                return;
            }
            poison = left;
        }
    }

    async fn bury(&self, poison: &Poison) -> Result<(), Trouble> {
        let letter = Letter {
            id: &poison.id,
            body: &poison.body,
            attributes: &poison.attributes,
            reason: &poison.reason,
            queue: name_of(&self.parts.queue),
        };
        bury(&self.parts.chain, &letter).await
    }

    /// Deletes messages; those that fail are redelivered, which changes nothing.
    async fn delete(&self, held: &Held, numbers: Vec<usize>) {
        let Parts {
            chain,
            queue,
            counts,
            stop,
            ..
        } = &self.parts;
        let mut pauses = Pauses::default();
        let mut left = held.entries();
        left.retain(|(number, _)| numbers.contains(number));
        while !left.is_empty() {
            let entries = left.iter().map(|(number, receipt)| {
                let entry = DeleteMessageBatchRequestEntry::builder().id(number.to_string());
                entry.receipt_handle(receipt).build()
            });
            let entries: Result<Vec<_>, _> = entries.collect();
            let Ok(entries) = entries else { return };
            let delete = chain.sqs().delete_message_batch().queue_url(queue);
            let trouble = match Box::pin(delete.set_entries(Some(entries)).send()).await {
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
                        Trouble::of_entry(Service::Sqs, code, message, entry.sender_fault())
                    });
                    failed.unwrap_or_else(|| Trouble::of("some were not deleted"))
                }
                Err(error) => Trouble::from(error),
            };
            self.failed(&self.deleting, &counts.not_deleted, &trouble);
            if pauses.failures() + 1 >= DELETE_TRIES || !pauses.wait(stop).await {
                break;
            }
        }
        for (number, _) in left {
            held.lock().remove(&number);
        }
    }

    /// Extends the visibility of held messages. Never ends.
    async fn hold_on(&self, held: &Held) {
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
                Err(trouble) => debug!(cause = trouble.cause, "messages may be redelivered"),
            }
        }
    }

    /// Makes messages invisible for so many seconds; returns those whose receipts have expired.
    async fn change_visibility(
        &self,
        entries: &[(usize, String)],
        visibility: i32,
    ) -> Result<Vec<usize>, Trouble> {
        let Parts { chain, queue, .. } = &self.parts;
        let each = entries.iter().map(|(number, receipt)| {
            ChangeMessageVisibilityBatchRequestEntry::builder()
                .id(number.to_string())
                .receipt_handle(receipt)
                .visibility_timeout(visibility)
                .build()
        });
        let each: Result<Vec<_>, _> = each.collect();
        let each = each.map_err(|error| Trouble::of(error.to_string()))?;
        let change = chain
            .sqs()
            .change_message_visibility_batch()
            .queue_url(queue);
        let done = Box::pin(change.set_entries(Some(each)).send()).await?;
        let lost = entries.iter().map(|(number, _)| *number);
        let lost = lost.filter(|number| {
            of(&done.failed, *number).is_some_and(BatchResultErrorEntry::sender_fault)
        });
        Ok(lost.collect())
    }
}

struct Understood<S> {
    number: usize,
    id: String,
    said: S,
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
