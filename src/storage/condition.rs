//! Whether an engine works, since when, and why not.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

/// How it is at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Why it does not work; nothing if it does.
    pub down: Option<String>,
    /// Since when it is so.
    pub since: Timestamp,
}

impl State {
    /// It does not work, since now.
    pub fn down(reason: impl Display) -> Self {
        Self {
            down: Some(reason.to_string()),
            since: Timestamp::now(),
        }
    }

    /// It works, since now.
    pub fn well() -> Self {
        Self {
            down: None,
            since: Timestamp::now(),
        }
    }
}

/// Follows an engine. Its users report what they meet; a report that changes nothing costs one look at a flag.
#[derive(Debug)]
pub struct Condition {
    well: AtomicBool,
    state: Mutex<State>,
}

/// It works, since now.
impl Default for Condition {
    fn default() -> Self {
        Self {
            well: AtomicBool::new(true),
            state: Mutex::new(State::well()),
        }
    }
}

impl Condition {
    /// Whether it works.
    pub fn is_well(&self) -> bool {
        self.well.load(Ordering::Acquire)
    }

    /// How it is at the moment.
    pub fn state(&self) -> State {
        self.lock().clone()
    }

    /// It worked. True if it did not before.
    pub fn works(&self) -> bool {
        !self.is_well() && self.becomes(true, State::well)
    }

    /// It failed, for this reason. True if it worked before; the first reason stands.
    pub fn fails(&self, reason: impl Display) -> bool {
        self.is_well() && self.becomes(false, || State::down(reason))
    }

    fn becomes(&self, well: bool, state: impl FnOnce() -> State) -> bool {
        let mut now = self.lock();
        // Another thread may have been faster.
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
        assert!(!condition.is_well());
        let down = condition.state();
        assert_eq!(down.down.as_deref(), Some("disk full"));
        assert!(down.since >= before.since);
        assert_eq!(condition.state(), down);
        assert!(condition.works());
        assert!(condition.is_well());
        assert_eq!(condition.state().down, None);
    }
}
