//! State that the writer and the handles share: the version, and whether writes succeed.

use std::sync::atomic::{AtomicU64, Ordering};

use tracing::{error, info};

use super::error::Failure;
use crate::storage::{Condition, State};

/// Set by the writer, read by the handles.
#[derive(Debug)]
pub(super) struct Health {
    /// The database's name in logs.
    pub(super) name: String,
    version: AtomicU64,
    condition: Condition,
    /// Whether the checks so far found no damage.
    sound: Condition,
}

impl Health {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            version: AtomicU64::new(0),
            condition: Condition::default(),
            sound: Condition::default(),
        }
    }

    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.condition.is_healthy() && self.is_sound()
    }

    /// Whether the engine accepts writes, apart from damage that a check has found.
    pub(super) fn works_so_far(&self) -> bool {
        self.condition.is_healthy()
    }

    pub(super) fn state(&self) -> State {
        let sound = self.sound.state();
        if sound.down.is_some() {
            return sound;
        }
        self.condition.state()
    }

    /// Whether no check has found damage. After damage, writes and reads fail.
    pub(super) fn is_sound(&self) -> bool {
        self.sound.is_healthy()
    }

    /// A check has found no damage.
    pub(super) fn found_sound(&self) {
        if self.sound.works() {
            info!(database = self.name, "the files are sound again");
        }
    }

    /// Damage was found; logged once. Makes cached responses stale, so that a damaged desk is never answered from memory.
    pub(super) fn found_damaged(&self, detail: &str) {
        if self.sound.fails(format!("the files are damaged: {detail}")) {
            error!(
                database = self.name,
                detail,
                "the files are damaged: reads and writes are refused until they are repaired"
            );
        }
        // Last: who sees this version reads nothing.
        self.changed();
    }

    /// A commit changed something. Called before its answers are sent, whatever they are.
    pub(super) fn changed(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// A commit succeeded. Logged once.
    pub(super) fn works(&self) {
        if self.condition.works() {
            info!(database = self.name, "the storage works again");
        }
    }

    /// The engine has failed. Logged once, however many operations failed.
    pub(super) fn fails(&self, error: &Failure) {
        if self.condition.fails(error) {
            error!(database = self.name, %error, "the storage is down: writes fail until it works again");
        }
    }
}
