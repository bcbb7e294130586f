//! Receives events and publishes assignments by SNS and SQS.
//!
//! ```text
//!   events topic -> events queue -> dispatcher: decide, store -> outbox -> assignments topic
//!                                                                                |
//!                                   directory: replicate <- assignments queue <--'
//! ```
//!
//! # The promise
//! - **A message is deleted after it was stored**, never before. A redelivery changes nothing: at-least-once delivery has an
//!   exactly-once effect.
//! - **An assignment is published until SNS confirms it.** It waits in the store's outbox, which is written with the decision.
//! - **No valid message is dead-lettered by SQS.** While the store is down, received messages are retried, and stay invisible; they
//!   are not received again, so that no redrive policy counts them. No outcome of an event is a failure.
//! - **Only unparseable messages are dead-lettered**, by the consumer, with the reason and their own attributes; each is deleted
//!   after SQS confirmed the copy. They block no other message. [`redrive`] brings them back. An assignment that SNS never accepts
//!   is dead-lettered, too.
//!
//! # The words
//! - **topology**: the two topics, the two queues on them, and the dead-letter queue.
//! - **poison**: an unparseable message.
//! - **envelope**: the JSON in which SNS wraps a message without raw delivery.
//! - **held**: received, and invisible to others.
//!
//! # At the start
//! The [preflight](crate::storage::preflight) checks the topics and queues of this process ([`probes`]). No message is received
//! until all checks have passed: a dead-letter queue that is the events queue under another URL would receive each message that
//! is dead-lettered.
//!
//! # Outages
//! Everything is retried with random, growing backoff. The begin and the end of an outage are logged once. A restarted emulator has
//! lost the topology: if it may be provisioned, it is provisioned again ([`Topology`]).

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::config::{Config, Role};
use super::service::Couriers;
use super::topic::Topic;
use crate::storage::preflight::{Engine, Findings};

mod consumer;
mod dead_letters;
mod health;
mod message;
mod metrics;
mod probe;
mod provision;
mod publisher;
pub mod redrive;
mod topology;

pub use health::Overview;
pub use metrics::Metrics;
pub use probe::probes;
pub use provision::{Endpoints, NotProvisioned};
pub use topology::Topology;

use consumer::{Assignments, Consumer, Events};
use metrics::MessageKind;
use publisher::{EventPublisher, OutboxPublisher};

/// The port that publishes events to the events topic.
pub fn event_publisher(topology: &Topology, metrics: &Metrics) -> Arc<dyn Topic> {
    Arc::new(EventPublisher::new(topology.clone(), metrics.clone()))
}

pub const ENGINES: &[Engine] = &[Engine::Sns, Engine::Sqs];

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

#[derive(Debug)]
pub struct Queues {
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Cancelled once a task has ended, by itself or by a panic.
    ended: CancellationToken,
}

impl Queues {
    /// Starts the tasks; `overview` has their state. Messages are received once the checks of [`ENGINES`] in `findings` have
    /// passed. Needs a runtime.
    pub fn start(
        topology: &Topology,
        couriers: &Couriers,
        config: &Config,
        metrics: &Metrics,
        overview: &Overview,
        findings: &Findings,
    ) -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let ended = CancellationToken::new();
        let watched = |task: Task| {
            let end = ended.clone().drop_guard();
            tasks.spawn(async move {
                let _end = end;
                task.await;
            });
        };
        let of = |kind, queue: &str| consumer::Parts {
            topology: topology.clone(),
            queue: queue.to_owned(),
            couriers: couriers.clone(),
            visibility: config.visibility,
            counts: metrics.of(kind),
            stop: stop.clone(),
            overview: overview.clone(),
        };
        let after_checks = |consume: Task| -> Task {
            let (findings, stop) = (findings.clone(), stop.clone());
            Box::pin(async move {
                stop.run_until_cancelled(findings.pass(ENGINES)).await;
                consume.await;
            })
        };
        let endpoints = topology.endpoints();
        if config.has(Role::Dispatcher) {
            let consumer =
                Consumer::<Events>::new(of(MessageKind::Events, &endpoints.events_queue));
            watched(after_checks(Box::pin(Arc::new(consumer).run())));
            let publisher = OutboxPublisher::new(
                topology.clone(),
                couriers.clone(),
                metrics.clone(),
                stop.clone(),
                overview,
            );
            watched(Box::pin(publisher.run()));
        }
        if config.has(Role::Directory) {
            let parts = of(MessageKind::Assignments, &endpoints.assignments_queue);
            let consumer = Consumer::<Assignments>::new(parts);
            watched(after_checks(Box::pin(Arc::new(consumer).run())));
        }
        tasks.close();
        Self { tasks, stop, ended }
    }

    /// Returns once a task has ended by itself.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Stops receiving, finishes what is being stored, and returns the rest to its queue, within `patience`. What is left then
    /// is redelivered after its visibility timeout.
    pub async fn stop(self, patience: Duration) {
        self.stop.cancel();
        if timeout(patience, self.tasks.wait()).await.is_err() {
            warn!("some messages are left for redelivery");
        }
    }
}

#[cfg(test)]
mod tests;
