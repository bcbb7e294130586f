//! Commands on stored data, with or without a running server.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use tokio::runtime::Runtime;

use super::{Source, output};
use crate::app;
use crate::config::Config;

#[derive(Debug, Subcommand)]
pub enum Packages {
    /// Recount the ledger and compare it with the statistics
    ///
    /// Exit code 0 if they agree. A server may be running on the same data directory.
    Audit {
        #[command(flatten)]
        source: Source,
    },
}

#[derive(Debug, Subcommand)]
pub enum Couriers {
    /// Replay the event log into a new store and compare it with the stored state
    ///
    /// Exit code 0 if they agree. A server may be running. `couriers.join` must have the value that the log was written
    /// with.
    Replay {
        #[command(flatten)]
        source: Source,
        /// Write the new store to this directory, as couriers.db, to replace a lost or damaged one
        #[arg(long, value_name = "DIRECTORY")]
        into: Option<PathBuf>,
    },
    /// Redrive messages from the dead-letter queue to their source queues
    ///
    /// Each message that is there at the start is sent again with its attributes, and deleted once the source queue has it.
    /// Messages that are still unparseable return, with their reason. Servers may be running.
    #[cfg(feature = "aws")]
    Redrive {
        #[command(flatten)]
        source: Source,
        /// Only list the messages with their reasons
        ///
        /// SQS counts this as a reception, so a dead-letter queue with its own redrive policy is refused. Listed messages
        /// are visible again when the command ends; if it is killed, after 5 minutes.
        #[arg(long)]
        dry_run: bool,
    },
}

impl Packages {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let Self::Audit { source } = self;
        let audit = app::audit_packages(&source.load()?)?;
        output::print(&format!("{audit}\n"))?;
        anyhow::ensure!(
            audit.agrees(),
            "the statistics do not agree with the ledger"
        );
        Ok(())
    }
}

impl Couriers {
    pub(super) fn run(self, runtime: &Runtime) -> anyhow::Result<()> {
        match self {
            Self::Replay { source, into } => replay(runtime, &source.load()?, into.as_deref()),
            #[cfg(feature = "aws")]
            Self::Redrive { source, dry_run } => redrive(runtime, &source.load()?, dry_run),
        }
    }
}

fn replay(runtime: &Runtime, config: &Config, into: Option<&Path>) -> anyhow::Result<()> {
    let comparison = runtime.block_on(app::replay_couriers(config, into))?;
    output::print(&format!("{comparison}\n"))?;
    anyhow::ensure!(
        comparison.agrees(),
        "replaying the log does not reproduce the stored state"
    );
    Ok(())
}

#[cfg(feature = "aws")]
fn redrive(runtime: &Runtime, config: &Config, dry_run: bool) -> anyhow::Result<()> {
    let mut listed = Ok(());
    let mut list = |line: &str| {
        if listed.is_ok() {
            listed = output::print(&format!("{line}\n"));
        }
    };
    let redriven = runtime.block_on(app::redrive_couriers(config, dry_run, &mut list))?;
    listed?;
    let would = if dry_run { "would go " } else { "" };
    output::print(&format!("{would}{redriven}\n"))
}
