//! Events that come through SNS and SQS, and assignments that are told in the same way.
//!
//! ```text
//!   events topic -> events queue -> dispatcher: decide, keep -> outbox -> assignments topic
//!                                                                              |
//!                                   directory: learn, keep <- assignments queue
//! ```
//!
//! # The promise
//! - **A message is deleted after the store has it**, never before. Whatever is delivered twice changes nothing the second
//!   time, so that "at least once" becomes "exactly once".
//! - **An assignment is told until SNS has confirmed it.** It waits in the store's outbox, which is written with the decision.
//! - **No good message dies.** While the store is away, messages are kept invisible, and tried again; they are not received
//!   anew, so that no redrive policy ever takes them. What an event comes to is never a failure.
//! - **Only what nobody can ever understand goes to the dead-letter queue**, sent there by us with the reason and its own
//!   attributes; it is deleted after that was confirmed. It holds nobody up. [`redrive`] brings it back. An assignment that SNS
//!   never accepts goes there, too.
//!
//! # The words
//! - **chain**: the two topics, the two queues on them, and the dead-letter queue.
//! - **poison**: a message that nobody can understand.
//! - **envelope**: what SNS puts around a message that is not delivered raw.
//! - **to hold**: to have received a message, and keep it invisible.
//!
//! # At the start
//! The [preflight](crate::storage::preflight) asks for the topics and queues of this process ([`probes`]). No message is received
//! until all of its checks have passed: a dead-letter queue that is the events queue under another URL would receive each
//! message that it gives away.
//!
//! # When something is away
//! Everything is tried again with growing pauses, some part of them random. It is said once when that begins, and once when it
//! is over. An emulator that was restarted has forgotten the chain: if it may be made, it is made anew ([`Chain`]).

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::service::Couriers;
use super::topic::Topic;
use crate::storage::preflight::{Engine, Findings};

mod chain;
mod consumer;
mod dead_letters;
mod health;
mod message;
mod metrics;
mod probe;
mod provision;
mod publisher;
pub mod redrive;

pub use chain::{Chain, NotProvisioned, Places};
pub use health::Overview;
pub use metrics::Metrics;
pub use probe::probes;

use consumer::{Assignments, Consumer, Events};
use metrics::Heard;
use publisher::{Announcer, Publisher};

/// What a process does with messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Whether it hears of events, decides, and tells of assignments.
    pub dispatches: bool,
    /// Whether it hears of assignments.
    pub learns: bool,
    /// How long a message that was received is nobody else's; whole seconds, more are made of what is over. From 1 s to 12 h.
    pub visibility: Duration,
}

/// Announces events to the chain's topic.
pub fn announcer(chain: &Chain, metrics: &Metrics) -> Arc<dyn Topic> {
    Arc::new(Announcer::new(chain.clone(), metrics.clone()))
}

/// The engines that messages come and go through.
pub const ENGINES: &[Engine] = &[Engine::Sns, Engine::Sqs];

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The tasks that hear and tell.
#[derive(Debug)]
pub struct Queues {
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Cancelled once a task has ended, by itself or by a panic.
    ended: CancellationToken,
}

impl Queues {
    /// Starts them; `overview` has their state. Messages are received once the checks of [`ENGINES`] in `findings` have passed.
    /// Needs a runtime.
    pub fn start(
        chain: &Chain,
        couriers: &Couriers,
        settings: Settings,
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
        let of = |heard, queue: &str| consumer::Parts {
            chain: chain.clone(),
            queue: queue.to_owned(),
            couriers: couriers.clone(),
            visibility: settings.visibility,
            counts: metrics.of(heard),
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
        let places = chain.places();
        if settings.dispatches {
            let consumer = Consumer::<Events>::new(of(Heard::Events, &places.events_queue));
            watched(after_checks(Box::pin(Arc::new(consumer).run())));
            let publisher = Publisher::new(
                chain.clone(),
                couriers.clone(),
                metrics.clone(),
                stop.clone(),
                overview,
            );
            watched(Box::pin(publisher.run()));
        }
        if settings.learns {
            let parts = of(Heard::Assignments, &places.assignments_queue);
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

    /// Takes nothing more in, finishes what is being kept, and gives the rest back to its queue, for as long as `patience`
    /// lasts. What is left then is received again after its visibility.
    pub async fn stop(self, patience: Duration) {
        self.stop.cancel();
        if timeout(patience, self.tasks.wait()).await.is_err() {
            warn!("some messages are left to be received again");
        }
    }
}

#[cfg(test)]
mod tests;
