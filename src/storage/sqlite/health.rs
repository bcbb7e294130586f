//! What the writer and the handles both look at: the version, and whether the engine keeps what it is given.

use std::sync::atomic::{AtomicU64, Ordering};

use tracing::{error, info};

use crate::storage::{Condition, State};

/// Shared by the writer, who sets it, and the handles, who ask.
#[derive(Debug)]
pub(super) struct Health {
    /// The database's name in the log.
    pub(super) name: String,
    version: AtomicU64,
    condition: Condition,
}

impl Health {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            version: AtomicU64::new(0),
            condition: Condition::default(),
        }
    }

    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(super) fn is_well(&self) -> bool {
        self.condition.is_well()
    }

    pub(super) fn state(&self) -> State {
        self.condition.state()
    }

    /// A commit changed something. Called before its answers are sent.
    pub(super) fn changed(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// The engine has kept something. Tells so once.
    pub(super) fn works(&self) {
        if self.condition.works() {
            info!(database = self.name, "the storage works again");
        }
    }

    /// The engine has failed. Tells so once, however many operations it concerns.
    pub(super) fn fails(&self, error: &rusqlite::Error) {
        if self.condition.fails(error) {
            error!(database = self.name, %error, "the storage does not work: nothing is kept until it does");
        }
    }
}
