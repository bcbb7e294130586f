//! Tells topics: of events that are announced, and of assignments until that is confirmed.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_sns::types::PublishBatchRequestEntry;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::super::error::Unavailable;
use super::super::model::Event;
use super::super::service::Couriers;
use super::super::store::{Answer, Outgoing};
use super::super::topic::Topic;
use super::chain::Chain;
use super::health::{Health, Overview, Pauses, Trouble};
use super::metrics::Metrics;

/// Messages of a batch at most, and ...
const BATCH_MAX: usize = 10;
/// ... their bytes together: SNS takes no more.
const BATCH_BYTES_MAX: usize = 256 << 10;
/// Batches on their way at once.
const BATCHES_MAX: usize = 8;
/// Assignments that are read from the outbox together.
const PAGE: usize = BATCH_MAX * BATCHES_MAX;
/// How often the outbox is looked into although nobody has decided anything here: another process may have.
const LOOK: Duration = Duration::from_secs(5);
/// How long announcing may take with all its tries: somebody waits for it.
const ANNOUNCING: Duration = Duration::from_secs(15);

/// What of some messages is confirmed, by their places, and why not all is.
struct Told {
    confirmed: BTreeSet<usize>,
    trouble: Option<Trouble>,
}

/// Publishes messages in batches, several at once.
async fn publish(chain: &Chain, topic: &str, messages: Vec<(usize, String)>) -> Told {
    let mut told = Told {
        confirmed: BTreeSet::new(),
        trouble: None,
    };
    if let Err(error) = chain.ensure().await {
        told.trouble = Some(Trouble::of(error.to_string()));
        return told;
    }
    let mut running = JoinSet::new();
    for batch in batches(messages) {
        if running.len() >= BATCHES_MAX {
            told.add(running.join_next().await);
        }
        let publish = chain.sns().publish_batch().topic_arn(topic);
        running.spawn(async move {
            let entries: Result<Vec<_>, _> = batch
                .into_iter()
                .map(|(place, message)| {
                    let entry = PublishBatchRequestEntry::builder().id(place.to_string());
                    entry.message(message).build()
                })
                .collect();
            let entries = entries.map_err(|error| Trouble::of(error.to_string()))?;
            let sent = publish.set_publish_batch_request_entries(Some(entries));
            let done = Box::pin(sent.send()).await?;
            let confirmed: Vec<usize> = done
                .successful()
                .iter()
                .filter_map(|entry| entry.id()?.parse().ok())
                .collect();
            let failed = done.failed().first().map(|entry| {
                let message = entry.message().unwrap_or_default();
                Trouble::of(format!("{}: {message}", entry.code()))
            });
            Ok((confirmed, failed))
        });
    }
    while !running.is_empty() {
        told.add(running.join_next().await);
    }
    if told.trouble.is_some() {
        chain.suspect();
    }
    told
}

type Published = Result<(Vec<usize>, Option<Trouble>), Trouble>;

impl Told {
    fn add(&mut self, ended: Option<Result<Published, tokio::task::JoinError>>) {
        match ended {
            None => {}
            Some(Ok(Ok((confirmed, trouble)))) => {
                self.confirmed.extend(confirmed);
                self.trouble = self.trouble.take().or(trouble);
            }
            Some(Ok(Err(trouble))) => self.trouble = Some(trouble),
            Some(Err(error)) => self.trouble = Some(Trouble::of(error.to_string())),
        }
    }
}

/// Messages in batches that SNS takes. One that is too large by itself is alone.
fn batches(messages: Vec<(usize, String)>) -> Vec<Vec<(usize, String)>> {
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

/// Messages with their places.
fn written<T: Serialize>(told: &[T]) -> serde_json::Result<Vec<(usize, String)>> {
    let each = told.iter().enumerate();
    each.map(|(place, one)| Ok((place, serde_json::to_string(one)?)))
        .collect()
}

/// Announces events.
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

    async fn announce(&self, events: Vec<Event>) -> Result<(), Unavailable> {
        let topic = &self.chain.places().events_topic;
        let mut left = written(&events).map_err(|_| Unavailable::Failed)?;
        // What waits is ended with the request.
        let (never, mut pauses) = (CancellationToken::new(), Pauses::default());
        let deadline = Instant::now() + ANNOUNCING;
        loop {
            let sent = Box::pin(publish(&self.chain, topic, left.clone()));
            let told = timeout_at(deadline, sent).await;
            let told = told.unwrap_or_else(|_| Told {
                confirmed: BTreeSet::new(),
                trouble: Some(Trouble::of("there was no answer in time")),
            });
            self.metrics
                .announced
                .increment(told.confirmed.len() as u64);
            left.retain(|(place, _)| !told.confirmed.contains(place));
            if left.is_empty() {
                self.health.works(topic);
                return Ok(());
            }
            let trouble = told
                .trouble
                .unwrap_or_else(|| Trouble::of("some were not confirmed"));
            self.chain.suspect();
            self.health.fails(topic, &trouble.cause);
            let waited = timeout_at(deadline, pauses.wait(&never)).await;
            if waited.is_err() {
                return Err(Unavailable::Engine);
            }
        }
    }
}

impl Topic for Announcer {
    fn announce(&self, events: Vec<Event>) -> Answer<'_, ()> {
        Box::pin(self.announce(events))
    }
}

/// Tells of what is in the outbox.
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

    /// Publishes until it is stopped.
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

    /// Tells of the oldest of the outbox. Whether there may be more.
    async fn round(&self) -> Result<bool, NotAll> {
        let topic = &self.chain.places().assignments_topic;
        let outgoing = self.couriers.outgoing(PAGE).await;
        let outgoing = outgoing.map_err(|away| self.unreadable(away))?;
        if outgoing.is_empty() {
            return Ok(false);
        }
        let assignments: Vec<_> = outgoing.iter().map(|one| one.assignment).collect();
        let messages = written(&assignments).map_err(|_| self.unreadable(Unavailable::Failed))?;
        let told = publish(&self.chain, topic, messages).await;
        let place = |place: &usize| outgoing.get(*place);
        let of = |one: &Outgoing| one.number;
        let numbers: Vec<u64> = told.confirmed.iter().filter_map(place).map(of).collect();
        let all = numbers.len() == outgoing.len();
        self.metrics.published.increment(numbers.len() as u64);
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
        let trouble = told
            .trouble
            .unwrap_or_else(|| Trouble::of("some were not confirmed"));
        self.publishing.fails(topic, &trouble.cause);
        Err(NotAll)
    }

    fn unreadable(&self, away: Unavailable) -> NotAll {
        self.reading
            .fails(&self.chain.places().assignments_topic, &away.to_string());
        NotAll
    }
}

/// Something is left.
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
