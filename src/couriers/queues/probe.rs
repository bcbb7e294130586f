//! Probes the queues of a process at its start. Until each has answered once, `/readyz/messages` is down and says which key names
//! a queue that does not exist, may not be read, or is another key's queue under another URL.
//!
//! A mistyped dead-letter queue would otherwise be noticed with the first poison, weeks later.

use std::sync::Arc;

use aws_sdk_sqs::error::ProvideErrorMetadata;
use aws_sdk_sqs::types::QueueAttributeName;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Settings;
use super::chain::Chain;
use super::health::{Overview, Pauses};
use crate::storage::Condition;
use crate::storage::aws::told;

/// Probes the queues until all of them have answered.
pub(super) struct Probe {
    chain: Chain,
    /// URLs, by the configuration keys that name them.
    queues: Vec<(&'static str, String)>,
    stop: CancellationToken,
    condition: Arc<Condition>,
}

impl Probe {
    /// From now on `overview` is down, until [`run`](Self::run) had all answers.
    pub(super) fn new(
        chain: Chain,
        settings: Settings,
        stop: CancellationToken,
        overview: &Overview,
    ) -> Self {
        let places = chain.places();
        let queues = [
            (
                "couriers.events_queue_url",
                &places.events_queue,
                settings.dispatches,
            ),
            (
                "couriers.assignments_queue_url",
                &places.assignments_queue,
                settings.learns,
            ),
            ("couriers.dead_letter_queue_url", &places.dead_letters, true),
        ];
        let used = queues.into_iter().filter(|(.., used)| *used);
        let queues = used.map(|(key, url, _)| (key, url.clone())).collect();
        let condition = overview.condition();
        condition.fails_because("the queues have not answered yet");
        Self {
            chain,
            queues,
            stop,
            condition,
        }
    }

    /// Probes until all have answered, then waits for the stop: a task that ends earlier would end the server.
    pub(super) async fn run(self) {
        let mut pauses = Pauses::default();
        loop {
            match self.stop.run_until_cancelled(self.ask_all()).await {
                None => return,
                Some(Ok(())) => break,
                Some(Err(reason)) => {
                    if self.condition.fails_because(&reason) {
                        warn!(
                            reason,
                            "a queue of the couriers cannot be used, and is probed again"
                        );
                    }
                }
            }
            if !pauses.wait(&self.stop).await {
                return;
            }
        }
        if self.condition.works() {
            info!("the queues of the couriers exist and answer");
        }
        self.stop.cancelled().await;
    }

    /// What is wrong with the first queue that does not answer, or that has already answered under another key.
    async fn ask_all(&self) -> Result<(), String> {
        let mut arns: Vec<(&str, String)> = Vec::new();
        for (key, url) in &self.queues {
            let wrong = |cause: String| format!("configuration key `{key}`: {url}: {cause}");
            let Some(arn) = self.ask(url).await.map_err(wrong)? else {
                continue;
            };
            if let Some((other, _)) = arns.iter().find(|(_, known)| *known == arn) {
                return Err(wrong(format!("it is {arn}, which `{other}` names too")));
            }
            arns.push((*key, arn));
        }
        Ok(())
    }

    /// A queue's ARN, if it tells one; the cause without a request id, so that the same cause reads the same.
    async fn ask(&self, url: &str) -> Result<Option<String>, String> {
        let get = self.chain.sqs().get_queue_attributes().queue_url(url);
        let get = get.attribute_names(QueueAttributeName::QueueArn);
        match Box::pin(get.send()).await {
            Ok(got) => Ok(got
                .attributes
                .and_then(|mut it| it.remove(&QueueAttributeName::QueueArn))),
            Err(error) => Err(match (error.code(), error.message()) {
                (Some(code), Some(message)) => format!("{code}: {message}"),
                _ => told(&error),
            }),
        }
    }
}
