//! Commands that work on what a server has stored, beside a running server or without one.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use tokio::runtime::Runtime;

use super::{Source, output};
use crate::app;
use crate::config::Config;

/// `odyssey packages`.
#[derive(Debug, Subcommand)]
pub enum Packages {
    /// Count the ledger anew and compare it with the statistics
    ///
    /// Exit code 0 if they agree. A server may be running on the same data directory.
    Audit {
        #[command(flatten)]
        source: Source,
    },
}

/// `odyssey couriers`.
#[derive(Debug, Subcommand)]
pub enum Couriers {
    /// Tell the event log again, to a new store, and compare what it comes to with what is kept
    ///
    /// Exit code 0 if they agree. A server may be running meanwhile. Newcomers begin as `couriers.join` says, which must be as it was.
    Replay {
        #[command(flatten)]
        source: Source,
        /// Keep the new store in this directory, as couriers.db: to go on with, should what is kept be lost or wrong
        #[arg(long, value_name = "DIRECTORY")]
        into: Option<PathBuf>,
    },
    /// Bring messages back from the dead-letter queue to the queue they came from
    ///
    /// What is there when it begins is sent again as it was, with its own attributes, and deleted there once the other queue has
    /// it. What still nobody understands comes back, with its reason. Servers may be running meanwhile.
    #[cfg(feature = "aws")]
    Redrive {
        #[command(flatten)]
        source: Source,
        /// Only list the messages with their reasons, and leave them where they are
        ///
        /// SQS counts each look as a reception. A dead-letter queue with a redrive policy of its own would lose messages to that,
        /// and is refused. Listed messages are visible to others again when the list ends; if it is killed, after 5 minutes.
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
    anyhow::ensure!(comparison.agrees(), "the log does not come to what is kept");
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
