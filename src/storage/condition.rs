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
}

impl State {
    pub fn down(reason: impl Display) -> Self {
        Self {
            down: Some(reason.to_string()),
            since: Timestamp::now(),
        }
    }

    pub fn well() -> Self {
        Self {
            down: None,
            since: Timestamp::now(),
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
        now.down = reason;
        true
    }

    fn becomes(&self, well: bool, state: impl FnOnce() -> State) -> bool {
        let mut now = self.lock();
        // Another thread may have been first.
        let changes = self.well.swap(well, Ordering::AcqRel) != well;
        if changes {
            *now = state();
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
        assert_eq!(condition.state().down, None);
    }

    #[test]
    fn a_reason_that_is_replaced_keeps_its_beginning() {
        let condition = Condition::default();
        assert!(condition.fails_because("no answer yet"));
        assert!(!condition.is_healthy());
        let State { since, .. } = condition.state();
        assert!(condition.fails_because("no such queue"));
        assert!(!condition.fails_because("no such queue"));
        assert_eq!(
            condition.state(),
            State {
                down: Some("no such queue".to_owned()),
                since
            }
        );
        assert!(condition.works());
        assert_eq!(condition.state().down, None);
    }
}
