//! What the writer and the handles both look at: the version, and whether the engine keeps what it is given.

use std::sync::atomic::{AtomicU64, Ordering};

use tracing::{error, info};

use super::error::Failure;
use crate::storage::{Condition, State};

/// Shared by the writer, who sets it, and the handles, who ask.
#[derive(Debug)]
pub(super) struct Health {
    /// The database's name in the log.
    pub(super) name: String,
    version: AtomicU64,
    condition: Condition,
    /// Whether the files are what was acknowledged, as far as they were checked.
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

    /// Whether the engine keeps what it is given, damage that a check has found apart.
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

    /// Whether no check has found damage. While one has, nothing is kept or read.
    pub(super) fn is_sound(&self) -> bool {
        self.sound.is_healthy()
    }

    /// A check has found the files to be what was acknowledged.
    pub(super) fn found_sound(&self) {
        if self.sound.works() {
            info!(database = self.name, "the files are sound again");
        }
    }

    /// Damage was found. Says so once. What was rendered before is stale from then on: no page of a damaged desk is answered
    /// from memory.
    pub(super) fn found_damaged(&self, detail: &str) {
        if self.sound.fails(format!("the files are damaged: {detail}")) {
            error!(
                database = self.name,
                detail, "the files are damaged: nothing is kept or read until they are repaired"
            );
        }
        // After that: whoever sees this version reads nothing.
        self.changed();
    }

    /// A commit changed something. Called before its answers are sent, and whatever they are.
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
    pub(super) fn fails(&self, error: &Failure) {
        if self.condition.fails(error) {
            error!(database = self.name, %error, "the storage does not work: nothing is kept until it does");
        }
    }
}
