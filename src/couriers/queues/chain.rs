//! The topics and queues, and the way to them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::Mutex;

use super::provision::provision;
use crate::storage::aws::Aws;

/// How long a queue without messages is asked for one: as long as SQS allows.
pub(super) const WAIT: Duration = Duration::from_secs(20);

/// Where topics and queues are: topics by their ARNs, queues by their URLs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Places {
    /// Where events are announced.
    pub events_topic: String,
    /// Where the dispatcher hears of them.
    pub events_queue: String,
    /// Where assignments are told of.
    pub assignments_topic: String,
    /// Where the directory hears of them.
    pub assignments_queue: String,
    /// Where messages go that nobody understands.
    pub dead_letters: String,
}

/// A topic or a queue that could not be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{name}: {cause}")]
pub struct NotProvisioned {
    /// Which.
    pub name: String,
    /// Why.
    pub cause: String,
}

/// The way to topics and queues; cheap to clone.
#[derive(Clone)]
pub struct Chain {
    inner: Arc<Inner>,
}

struct Inner {
    sns: aws_sdk_sns::Client,
    sqs: aws_sdk_sqs::Client,
    waiting: aws_sdk_sqs::Client,
    places: Places,
    /// What is to be made if it is missing; nothing if it is not to be made.
    wanted: Option<Places>,
    /// How often something was suspected to be missing.
    suspicions: AtomicU64,
    /// How many of them were seen to. Held while what is missing is made.
    seen_to: Mutex<u64>,
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = &self.inner.places;
        f.debug_struct("Chain").field("places", places).finish()
    }
}

impl Chain {
    /// The way to what is configured. If `make`, what is missing is made first: under its name in the ARN or URL, or, where that
    /// is empty, as events-topic, events-queue, assignments-topic, assignments-queue and dead-letter-queue.
    ///
    /// # Errors
    /// What could not be made.
    pub async fn open(aws: &Aws, configured: Places, make: bool) -> Result<Self, NotProvisioned> {
        let (sns, sqs) = (aws.sns(), aws.sqs());
        let wanted = make.then(|| configured.clone());
        let places = match &wanted {
            Some(wanted) => Box::pin(provision(&sns, &sqs, wanted)).await?,
            None => configured,
        };
        let inner = Inner {
            sns,
            sqs,
            waiting: aws.sqs_waiting(WAIT),
            places,
            wanted,
            suspicions: AtomicU64::new(0),
            seen_to: Mutex::new(0),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    pub(super) fn places(&self) -> &Places {
        &self.inner.places
    }

    pub(super) fn sns(&self) -> &aws_sdk_sns::Client {
        &self.inner.sns
    }

    pub(super) fn sqs(&self) -> &aws_sdk_sqs::Client {
        &self.inner.sqs
    }

    /// For receiving.
    pub(super) fn waiting(&self) -> &aws_sdk_sqs::Client {
        &self.inner.waiting
    }

    /// Whether what is missing is made.
    pub(super) fn makes(&self) -> bool {
        self.inner.wanted.is_some()
    }

    /// A call has failed. Whoever is behind it may have forgotten everything, as emulators do that are restarted.
    pub(super) fn suspect(&self) {
        self.inner.suspicions.fetch_add(1, Ordering::Release);
    }

    /// Makes what is missing, if that is wanted and something may be. Asked before anything is published, too: a topic that
    /// somebody else is just making has no queue on it yet, and what it is told is lost.
    ///
    /// # Errors
    /// What could not be made.
    pub(super) async fn ensure(&self) -> Result<(), NotProvisioned> {
        let inner = &self.inner;
        let Some(wanted) = &inner.wanted else {
            return Ok(());
        };
        let mut seen_to = inner.seen_to.lock().await;
        let suspicions = inner.suspicions.load(Ordering::Acquire);
        if *seen_to < suspicions {
            Box::pin(provision(&inner.sns, &inner.sqs, wanted)).await?;
            *seen_to = suspicions;
        }
        Ok(())
    }
}
