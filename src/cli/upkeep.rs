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
    /// Migrate the couriers in Redis from the format of an earlier version
    ///
    /// Stop all servers first. The event log is replayed into the present format, and the result compared: exit code 0 if it
    /// agrees. `couriers.join` must have the value that the log was written with. The old keys stay; an interrupted migration
    /// starts again.
    #[cfg(feature = "redis")]
    Migrate {
        #[command(flatten)]
        source: Source,
        /// Delete the old keys, once the migrated couriers agree with them
        #[arg(long)]
        delete_old: bool,
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
            #[cfg(feature = "redis")]
            Self::Migrate { source, delete_old } => migrate(runtime, &source.load()?, delete_old),
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

#[cfg(feature = "redis")]
fn migrate(runtime: &Runtime, config: &Config, delete_old: bool) -> anyhow::Result<()> {
    let migration = runtime.block_on(app::migrate_couriers(config, delete_old))?;
    output::print(&format!("{migration}\n"))?;
    anyhow::ensure!(
        migration.agrees(),
        "the migrated couriers do not agree with the old ones, which stay as they are"
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
