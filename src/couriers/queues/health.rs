//! Failures of calls: backoff, and logging them once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::storage::{Condition, State};
use crate::values::backoff::Backoff;

pub(super) const BACKOFF: Backoff =
    Backoff::new(Duration::from_millis(250), Duration::from_secs(5));

/// Waits after a failure. False if `stop` was cancelled.
pub(super) async fn wait(backoff: &mut Backoff, stop: &CancellationToken) -> bool {
    let waited = tokio::time::sleep(backoff.next_wait());
    stop.run_until_cancelled(waited).await.is_some()
}

/// Whether the queue does not exist.
pub(super) fn is_missing<E>(error: &SdkError<E, HttpResponse>) -> bool
where
    E: ProvideErrorMetadata,
{
    let code = error.code().unwrap_or_default();
    code == "QueueDoesNotExist" || code == "AWS.SimpleQueueService.NonExistentQueue"
}

/// Whether one activity succeeds. Each change is logged, once.
#[derive(Debug)]
pub(super) struct Health {
    what: &'static str,
    condition: Arc<Condition>,
}

/// The health of all activities; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Overview(Arc<Mutex<Vec<Arc<Condition>>>>);

impl Overview {
    /// Adds a condition.
    pub(super) fn condition(&self) -> Arc<Condition> {
        let condition = Arc::default();
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watched.push(Arc::clone(&condition));
        condition
    }

    /// Adds an activity.
    pub(super) fn watch(&self, what: &'static str) -> Health {
        let condition = self.condition();
        Health { what, condition }
    }

    /// The first failing activity; if none fails, since when.
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
    /// `what`: its name in logs.
    pub(super) fn new(what: &'static str) -> Self {
        Self {
            what,
            condition: Arc::default(),
        }
    }

    pub(super) fn fails(&self, place: &str, cause: &str) {
        let what = self.what;
        if self.condition.fails(format_args!("{what} fails: {cause}")) {
            warn!(place, cause, "{what} fails; retrying");
        }
    }

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
