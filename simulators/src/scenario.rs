//! What a scenario is.

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use crate::{options::Display, outcome::Outcome};

/// A subcommand: its options, and what it does. Every one has an [`Output`](crate::options::Output) in a field `output`.
pub(crate) trait Scenario {
    /// What the command line's grammar cannot say: options that contradict each other.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// Runs until it is over or stopped.
    async fn run(&self, env: Env) -> Result<Outcome>;
}

/// What a run gets from outside.
#[derive(Debug, Clone)]
pub struct Env {
    /// Stops the run; what is known by then is reported.
    pub closing: CancellationToken,
    pub display: Display,
}

impl Env {
    /// Shows nothing and is never stopped.
    pub fn quiet() -> Self {
        Self {
            closing: CancellationToken::new(),
            display: Display::None,
        }
    }
}
