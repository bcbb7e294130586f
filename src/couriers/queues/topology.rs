//! The topics and queues, and their clients.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;

use super::provision::{Endpoints, NotProvisioned, provision};
use crate::storage::aws::Aws;

/// Long-poll wait: the maximum of SQS.
pub(super) const WAIT: Duration = Duration::from_secs(20);

/// Cheap to clone.
#[derive(Clone)]
pub struct Topology {
    inner: Arc<Inner>,
}

struct Inner {
    sns: aws_sdk_sns::Client,
    sqs: aws_sdk_sqs::Client,
    waiting: aws_sdk_sqs::Client,
    endpoints: Endpoints,
    /// What to create if it is missing; None without `aws.provision`.
    wanted: Option<Endpoints>,
    /// Incremented when a call failed: something may be missing.
    generation: AtomicU64,
    /// The generation up to which everything was provisioned. Locked while provisioning.
    provisioned: Mutex<u64>,
}

impl fmt::Debug for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoints = &self.inner.endpoints;
        f.debug_struct("Topology")
            .field("endpoints", endpoints)
            .finish()
    }
}

impl Topology {
    /// Clients for what is configured. With `make`, missing topics and queues are created first: under the name in the ARN or URL, or,
    /// where that is empty, as events-topic, events-queue, assignments-topic, assignments-queue and dead-letter-queue.
    ///
    /// # Errors
    /// What could not be created.
    pub async fn open(
        aws: &Aws,
        configured: Endpoints,
        make: bool,
    ) -> Result<Self, NotProvisioned> {
        let (sns, sqs) = (aws.sns(), aws.sqs());
        let wanted = make.then(|| configured.clone());
        let endpoints = match &wanted {
            Some(wanted) => Box::pin(provision(&sns, &sqs, wanted)).await?,
            None => configured,
        };
        let inner = Inner {
            sns,
            sqs,
            waiting: aws.sqs_waiting(WAIT),
            endpoints,
            wanted,
            generation: AtomicU64::new(0),
            provisioned: Mutex::new(0),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    pub(super) fn endpoints(&self) -> &Endpoints {
        &self.inner.endpoints
    }

    pub(super) fn sns(&self) -> &aws_sdk_sns::Client {
        &self.inner.sns
    }

    pub(super) fn sqs(&self) -> &aws_sdk_sqs::Client {
        &self.inner.sqs
    }

    /// For long polls.
    pub(super) fn waiting(&self) -> &aws_sdk_sqs::Client {
        &self.inner.waiting
    }

    /// Whether missing topics and queues are created.
    pub(super) fn provisions(&self) -> bool {
        self.inner.wanted.is_some()
    }

    /// A call has failed. A restarted emulator may have lost everything.
    pub(super) fn mark_dirty(&self) {
        self.inner.generation.fetch_add(1, Ordering::Release);
    }

    /// Creates what is missing, if that is allowed and a call has failed. Called before every publish, too: a topic that another process
    /// is just creating has no queue on it yet, and messages to it would be lost.
    ///
    /// # Errors
    /// What could not be created.
    pub(super) async fn ensure(&self) -> Result<(), NotProvisioned> {
        let inner = &self.inner;
        let Some(wanted) = &inner.wanted else {
            return Ok(());
        };
        let mut provisioned = inner.provisioned.lock().await;
        let generation = inner.generation.load(Ordering::Acquire);
        if *provisioned < generation {
            Box::pin(provision(&inner.sns, &inner.sqs, wanted)).await?;
            *provisioned = generation;
        }
        Ok(())
    }
}
