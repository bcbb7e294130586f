//! Failures: what a failed call means, how long to wait after it, and saying it once.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::storage::aws::errors::{self, Action, Service};
use crate::storage::aws::{backoff, told};
use crate::storage::{Condition, State};

/// The wait after the first failure; it doubles with each further one.
const WAIT: Duration = Duration::from_millis(250);
/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Why a call failed.
#[derive(Debug, Clone)]
pub(super) struct Trouble {
    /// What is done about it.
    pub(super) action: Action,
    /// What the service says.
    pub(super) cause: String,
}

impl Trouble {
    /// A failure that a retry can end.
    pub(super) fn of(cause: impl Into<String>) -> Self {
        let cause = cause.into();
        Self {
            action: Action::Retry,
            cause,
        }
    }

    /// What a failed call of this service means.
    pub(super) fn of_call<E>(service: Service, error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        Self {
            action: errors::action(service, error),
            cause: told(error),
        }
    }

    /// What a part of a batch that failed means.
    pub(super) fn of_entry(
        service: Service,
        code: &str,
        message: Option<&str>,
        sender_fault: bool,
    ) -> Self {
        let message = message.unwrap_or_default();
        Self {
            action: errors::action_of_part(service, code, message, sender_fault),
            cause: format!("{code}: {message}"),
        }
    }
}

impl<E> From<SdkError<E, HttpResponse>> for Trouble
where
    E: ProvideErrorMetadata + Error + 'static,
{
    /// Most calls are calls of SQS.
    fn from(error: SdkError<E, HttpResponse>) -> Self {
        Self::of_call(Service::Sqs, &error)
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
    condition: Arc<Condition>,
}

/// Everything that a process does with messages; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Overview(Arc<Mutex<Vec<Arc<Condition>>>>);

impl Overview {
    /// A condition that counts here from now on.
    pub(super) fn condition(&self) -> Arc<Condition> {
        let condition = Arc::default();
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watched.push(Arc::clone(&condition));
        condition
    }

    /// The health of something, which counts here from now on.
    pub(super) fn watch(&self, what: &'static str) -> Health {
        let condition = self.condition();
        Health { what, condition }
    }

    /// How it is: what fails first is the reason; if nothing does, since when that is so.
    pub fn state(&self) -> State {
        let watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let states = watched.iter().map(|condition| condition.state());
        let (failing, well): (Vec<_>, Vec<_>) = states.partition(|state| state.down.is_some());
        let first = failing.into_iter().min_by_key(|state| state.since);
        let latest = || well.into_iter().max_by_key(|state| state.since);
        first.or_else(latest).unwrap_or_else(State::well)
    }
}

impl Health {
    /// Of something that is called so in the log.
    pub(super) fn new(what: &'static str) -> Self {
        Self {
            what,
            condition: Arc::default(),
        }
    }

    /// It failed.
    pub(super) fn fails(&self, place: &str, cause: &str) {
        let what = self.what;
        if self.condition.fails(format_args!("{what} fails: {cause}")) {
            warn!(place, cause, "{what} fails, and is tried again");
        }
    }

    /// It went well.
    pub(super) fn works(&self, place: &str) {
        if self.condition.works() {
            info!(place, "{} works again", self.what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_among_many_is_the_reason_until_it_works_again() {
        let overview = Overview::default();
        assert_eq!(overview.state().down, None);
        let [receiving, keeping] = ["receiving", "keeping"].map(|what| overview.watch(what));
        assert_eq!(overview.state().down, None);
        keeping.fails("a queue", "away");
        let reason = overview.state().down;
        assert_eq!(reason.as_deref(), Some("keeping fails: away"));
        receiving.fails("a queue", "gone");
        let reason = overview.state().down;
        assert_eq!(reason.as_deref(), Some("keeping fails: away"));
        keeping.works("a queue");
        let reason = overview.state().down;
        assert_eq!(reason.as_deref(), Some("receiving fails: gone"));
        receiving.works("a queue");
        assert_eq!(overview.state().down, None);
    }
}
