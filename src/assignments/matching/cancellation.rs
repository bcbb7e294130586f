//! Ends a plan that nobody waits for any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use thiserror::Error;

/// A flag that a plan reads between its steps; cheap to clone, and all clones are one flag. A step takes some milliseconds
/// at most for 100,000 packages, and the flag is read a few thousand times a second.
#[derive(Debug, Clone, Default)]
pub struct Cancellation(Arc<AtomicBool>);

/// The plan ended without a result, because it was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the plan was cancelled")]
pub struct Cancelled;

/// Cancels when it is dropped.
#[derive(Debug)]
pub struct CancelOnDrop(Cancellation);

impl Cancellation {
    /// Ends the plan at its next look.
    pub fn cancel(&self) {
        // Nothing else is published with the flag.
        self.0.store(true, Ordering::Relaxed);
    }

    /// A guard that cancels when it is dropped.
    #[must_use]
    pub fn on_drop(&self) -> CancelOnDrop {
        CancelOnDrop(self.clone())
    }

    /// Whether the plan goes on.
    ///
    /// # Errors
    /// [`Cancelled`], if it does not.
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.0.load(Ordering::Relaxed) {
            return Err(Cancelled);
        }
        Ok(())
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
