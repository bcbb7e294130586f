//! Whether an engine works, since when, and why not.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Why it does not work; None if it does.
    pub down: Option<String>,
    pub since: Timestamp,
    /// The latest failure, also after it works again.
    pub last_failure: Option<Failure>,
}

/// Why an engine did not work, and from when on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub reason: String,
    pub at: Timestamp,
}

impl State {
    pub fn down(reason: impl Display) -> Self {
        Self::down_since(reason, Timestamp::now())
    }

    pub fn down_since(reason: impl Display, since: Timestamp) -> Self {
        let reason = reason.to_string();
        Self {
            down: Some(reason.clone()),
            since,
            last_failure: Some(Failure { reason, at: since }),
        }
    }

    pub fn well() -> Self {
        Self {
            down: None,
            since: Timestamp::now(),
            last_failure: None,
        }
    }
}

/// Follows an engine's health. Its users report successes and failures; a report that changes nothing costs one atomic load.
#[derive(Debug)]
pub struct Condition {
    well: AtomicBool,
    state: Mutex<State>,
}

impl Default for Condition {
    fn default() -> Self {
        Self {
            well: AtomicBool::new(true),
            state: Mutex::new(State::well()),
        }
    }
}

impl Condition {
    pub fn is_healthy(&self) -> bool {
        self.well.load(Ordering::Acquire)
    }

    pub fn state(&self) -> State {
        self.lock().clone()
    }

    /// Reports a success. True if the engine was down.
    pub fn works(&self) -> bool {
        !self.is_healthy() && self.becomes(true, State::well)
    }

    /// Reports a failure. True if the engine was up; while it is down the first reason stands.
    pub fn fails(&self, reason: impl Display) -> bool {
        self.is_healthy() && self.becomes(false, || State::down(reason))
    }

    /// Reports a failure whose reason replaces an earlier one. True if the reason is new.
    pub fn fails_because(&self, reason: impl Display) -> bool {
        let reason = Some(reason.to_string());
        let mut now = self.lock();
        if now.down == reason {
            return false;
        }
        if self.well.swap(false, Ordering::AcqRel) {
            now.since = Timestamp::now();
        }
        let at = Timestamp::now();
        now.last_failure = reason.clone().map(|reason| Failure { reason, at });
        now.down = reason;
        true
    }

    fn becomes(&self, well: bool, state: impl FnOnce() -> State) -> bool {
        let mut now = self.lock();
        // Another thread may have been first.
        let changes = self.well.swap(well, Ordering::AcqRel) != well;
        if changes {
            let before = now.last_failure.take();
            *now = state();
            now.last_failure = now.last_failure.take().or(before);
        }
        changes
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_seen_once_with_its_reason_and_its_time() {
        let condition = Condition::default();
        assert!(!condition.works());
        let before = condition.state();
        assert_eq!(before.down, None);
        assert!(condition.fails("disk full"));
        assert!(!condition.fails("read-only"));
        assert!(!condition.is_healthy());
        let down = condition.state();
        assert_eq!(down.down.as_deref(), Some("disk full"));
        assert!(down.since >= before.since);
        assert_eq!(condition.state(), down);
        assert!(condition.works());
        assert!(condition.is_healthy());
        let up = condition.state();
        assert_eq!(up.down, None);
        assert_eq!(up.last_failure, down.last_failure);
        assert!(
            up.last_failure
                .is_some_and(|last| last.reason == "disk full")
        );
    }

    #[test]
    fn a_reason_that_is_replaced_keeps_its_beginning() {
        let condition = Condition::default();
        assert!(condition.fails_because("no answer yet"));
        assert!(!condition.is_healthy());
        let State { since, .. } = condition.state();
        assert!(condition.fails_because("no such queue"));
        assert!(!condition.fails_because("no such queue"));
        let now = condition.state();
        assert_eq!(
            (now.down.as_deref(), now.since),
            (Some("no such queue"), since)
        );
        assert!(
            now.last_failure
                .is_some_and(|last| last.reason == "no such queue")
        );
        assert!(condition.works());
        assert_eq!(condition.state().down, None);
    }
}
