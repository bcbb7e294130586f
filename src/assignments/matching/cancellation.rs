use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use thiserror::Error;

/// A shared flag that a plan reads between its steps; cheap to clone. A step takes some milliseconds at most for 100,000
/// packages, and the flag is read a few thousand times a second.
#[derive(Debug, Clone, Default)]
pub struct Cancellation(Arc<AtomicBool>);

/// The plan was cancelled and has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the plan was cancelled")]
pub struct Cancelled;

#[derive(Debug)]
pub struct CancelOnDrop(Cancellation);

impl Cancellation {
    /// Ends the plan when it reads the flag next.
    pub fn cancel(&self) {
        // Nothing else is published with the flag.
        self.0.store(true, Ordering::Relaxed);
    }

    #[must_use]
    pub fn on_drop(&self) -> CancelOnDrop {
        CancelOnDrop(self.clone())
    }

    ///
    /// # Errors
    /// [`Cancelled`], if it was.
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
