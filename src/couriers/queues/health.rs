//! Failures: what a failed call means, how long to wait after it, and saying it once.

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::BatchResultErrorEntry;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::storage::aws::{backoff, told};

/// The wait after the first failure; it doubles with each further one.
const WAIT: Duration = Duration::from_millis(250);
/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Why a call failed.
#[derive(Debug, Clone)]
pub(super) struct Trouble {
    /// Whether the same call, made again, fails again.
    pub(super) refused: bool,
    /// What the service says.
    pub(super) cause: String,
}

impl Trouble {
    pub(super) fn of(cause: impl Into<String>) -> Self {
        let cause = cause.into();
        Self {
            refused: false,
            cause,
        }
    }

    /// What a part of a batch that failed means.
    pub(super) fn of_entry(entry: &BatchResultErrorEntry) -> Self {
        Self {
            refused: entry.sender_fault(),
            cause: format!("{}: {}", entry.code(), entry.message().unwrap_or_default()),
        }
    }
}

impl<E> From<SdkError<E, HttpResponse>> for Trouble
where
    E: ProvideErrorMetadata + Error + 'static,
{
    fn from(error: SdkError<E, HttpResponse>) -> Self {
        let code = error.code().unwrap_or_default();
        let refused = [
            "InvalidAttributeValue",
            "InvalidMessageContents",
            "InvalidParameterValue",
            "InvalidParameterValueException",
            "ReceiptHandleIsInvalid",
        ]
        .contains(&code);
        Self {
            refused,
            cause: told(&error),
        }
    }
}

/// Whether there is no such queue.
pub(super) fn is_missing<E>(error: &SdkError<E, HttpResponse>) -> bool
where
    E: ProvideErrorMetadata,
{
    let code = error.code().unwrap_or_default();
    code == "QueueDoesNotExist" || code == "AWS.SimpleQueueService.NonExistentQueue"
}

/// Pauses that grow with every failure.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    failures: u32,
}

impl Pauses {
    /// So many failures so far.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// It went well.
    pub(super) fn end(&mut self) {
        self.failures = 0;
    }

    /// Waits after a failure. False if it was ended by `stop`.
    pub(super) async fn wait(&mut self, stop: &CancellationToken) -> bool {
        self.failures = self.failures.saturating_add(1);
        let wait = backoff(self.failures, WAIT, WAIT_MAX);
        let stopped = stop.run_until_cancelled(tokio::time::sleep(wait)).await;
        stopped.is_some()
    }
}

/// Whether something goes well. Each change is logged, once.
#[derive(Debug)]
pub(super) struct Health {
    what: &'static str,
    fails: AtomicBool,
}

impl Health {
    /// Of something that is called so in the log.
    pub(super) fn new(what: &'static str) -> Self {
        Self {
            what,
            fails: AtomicBool::new(false),
        }
    }

    /// It failed.
    pub(super) fn fails(&self, place: &str, cause: &str) {
        if !self.fails.swap(true, Ordering::Relaxed) {
            warn!(place, cause, "{} fails, and is tried again", self.what);
        }
    }

    /// It went well.
    pub(super) fn works(&self, place: &str) {
        if self.fails.load(Ordering::Relaxed) && self.fails.swap(false, Ordering::Relaxed) {
            info!(place, "{} works again", self.what);
        }
    }
}
