//! Workers at once, and what they share.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{client::Client, connection::Address, progress::Progress};

/// The clients of a run, with what they share.
#[derive(Debug, Clone)]
pub(crate) struct Crew {
    pub(crate) server: Address,
    /// From the first try of a request to giving it up, measured.
    pub(crate) patience: Duration,
    pub(crate) closing: CancellationToken,
    pub(crate) progress: Arc<Progress>,
}

impl Crew {
    /// A patient client; `number` makes its jitter unlike that of others.
    pub(crate) fn client(&self, number: u64) -> Client {
        let client = Client::new(self.server.clone());
        client.patient(self.patience, self.closing.clone(), number)
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.closing.is_cancelled()
    }

    /// False when the run was stopped.
    pub(crate) async fn pause(&self, measured: Duration) -> bool {
        let waited = self.closing.run_until_cancelled(sleep(measured)).await;
        waited.is_some() && !self.is_stopped()
    }

    /// A task for each; their results in the order in which they ended.
    pub(crate) async fn at_once<T: Send + 'static>(
        &self,
        tasks: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
    ) -> Vec<T> {
        let tasks: JoinSet<T> = tasks.into_iter().collect();
        tasks.join_all().await
    }
}

/// State that workers share; a clone is the same state.
#[derive(Debug, Default)]
pub(crate) struct Shared<T>(Arc<Mutex<T>>);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Shared<T> {
    pub(crate) fn new(state: T) -> Self {
        Self(Arc::new(Mutex::new(state)))
    }

    /// Locks briefly, never while one waits. A poisoned lock is used: the panic ends the run anyhow.
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Panics if it is still shared.
    pub(crate) fn into_inner(self) -> T {
        let state = Arc::into_inner(self.0).expect("the workers have ended");
        state.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Unlike that of any other run: the moment, and chance that no seed repeats. At most 90 characters, hexadecimal
/// digits and a hyphen; ids that are made of it and a number are unlike those of any other run too.
pub(crate) fn run_id() -> String {
    let moment = Timestamp::now().as_millisecond();
    format!("{moment:x}-{:06x}", fastrand::u32(..1 << 24))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_have_names_of_their_own_that_leave_room_for_a_number() {
        let (one, other) = (run_id(), run_id());
        assert_ne!(one, other);
        assert!(one.len() <= 90, "{one}");
    }
}
