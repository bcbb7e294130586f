//! Parses the command line and hands over to the application.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;
use odyssey::app::{self, App};
use odyssey::config::Config;
use odyssey::probe::probe;
use odyssey::shutdown::Signals;
use odyssey::telemetry;
use tokio::runtime::Runtime;

/// Held connections: each keeps two buffers of 8 KiB that are mostly untouched. This allocator leaves the untouched pages
/// to the system, which is worth 4 KB per held customer against the system's (see ARCHITECTURE.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Takes an order at the counter, holds the customer's request until the order is ready, and sees it to the doorstep.
#[derive(Debug, Parser)]
#[command(version = odyssey::version::line(), arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server: customers on one listener, staff on the other
    ///
    /// Without options it serves customers on 127.0.0.1:8000 and staff on 127.0.0.1:8001. SIGTERM or SIGINT stops it in
    /// order: held customers get their coffee first, for as long as shutdown.drain allows.
    #[command(
        after_help = "Every key can come from the environment: orders.lease is ODYSSEY_ORDERS__LEASE.\n`odyssey config --defaults` prints the manual of all keys."
    )]
    Serve {
        #[command(flatten)]
        source: Source,
        /// Write the addresses that were bound to this file, once both listeners are open
        ///
        /// As JSON with the members `customers` and `staff`, both URLs; for whoever starts the server with port 0 and has to
        /// find it.
        #[arg(long, value_name = "FILE")]
        addresses: Option<PathBuf>,
    },
    /// Print the effective configuration as TOML
    ///
    /// What the server would run with: the defaults, the file and the environment put together.
    Config {
        #[command(flatten)]
        source: Source,
        /// Print the default configuration instead, with its comments: the manual of all keys
        #[arg(long)]
        defaults: bool,
    },
    /// Ask a running server whether it is well
    ///
    /// Exit code 0 if the URL answers 2xx within 3 seconds, else 1 and a sentence. For containers' health checks.
    Health {
        /// What to ask for
        #[arg(default_value = "http://127.0.0.1:8000/healthz")]
        url: String,
    },
    /// What concerns packages
    #[command(subcommand)]
    Packages(PackagesCommand),
    /// What concerns couriers
    #[command(subcommand)]
    Couriers(CouriersCommand),
    /// Print the API description, `OpenAPI` 3.1 as JSON
    Openapi {
        /// Whose API
        #[arg(long, value_enum, default_value_t = Listener::Both)]
        listener: Listener,
    },
}

#[derive(Debug, Subcommand)]
enum PackagesCommand {
    /// Count the ledger anew and compare it with the statistics
    ///
    /// Exit code 0 if they agree. A server may be running on the same data directory.
    Audit {
        #[command(flatten)]
        source: Source,
    },
}

#[derive(Debug, Subcommand)]
enum CouriersCommand {
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
    /// What is there when it begins is sent again as it was, and deleted there once the other queue has it. What still nobody
    /// understands comes back, with its reason. Servers may be running meanwhile.
    #[cfg(feature = "aws")]
    Redrive {
        #[command(flatten)]
        source: Source,
        /// Only list the messages with their reasons, and leave them where they are
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Args)]
struct Source {
    /// Configuration file (TOML); its keys override the defaults
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Listener {
    /// The public side
    Customers,
    /// The inner side
    Staff,
    /// Both in one document
    Both,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line that can be read; logging may not be set up.
            let _ = writeln!(std::io::stderr(), "odyssey: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve { source, addresses } => serve(&load(&source)?, addresses.as_deref()),
        Command::Config { defaults: true, .. } => print(odyssey::config::DEFAULTS),
        Command::Config { source, .. } => print(&load(&source)?.to_toml()),
        Command::Health { url } => health(&url),
        Command::Packages(PackagesCommand::Audit { source }) => audit_packages(&load(&source)?),
        Command::Couriers(CouriersCommand::Replay { source, into }) => {
            replay_couriers(&load(&source)?, into.as_deref())
        }
        #[cfg(feature = "aws")]
        Command::Couriers(CouriersCommand::Redrive { source, dry_run }) => {
            redrive_couriers(&load(&source)?, dry_run)
        }
        Command::Openapi { listener } => print(&openapi(listener)?),
    }
}

fn load(source: &Source) -> anyhow::Result<Config> {
    Ok(Config::load(source.config.as_deref())?)
}

fn serve(config: &Config, addresses: Option<&Path>) -> anyhow::Result<()> {
    telemetry::init_logs(&config.log).map_err(anyhow::Error::msg)?;
    let now = Timestamp::now();
    if now < Timestamp::UNIX_EPOCH {
        // HTTP has no dates before 1970: hyper panics at the first answer.
        anyhow::bail!("the clock says {now:.0}, which is before 1970; set the clock");
    }
    config.log_passed_over();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.workers())
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let signals = Signals::take_over().context("cannot listen for signals")?;
        let app = App::open(config).await?;
        if let Some(file) = addresses {
            write_whole(file, &serde_json::to_vec(&app.addresses())?)
                .with_context(|| format!("cannot write the addresses to {}", file.display()))?;
        }
        app.run(signals).await;
        anyhow::Ok(())
    })?;
    // Whatever is still open after the deadline ends here, with the process.
    runtime.shutdown_background();
    Ok(())
}

fn health(url: &str) -> anyhow::Result<()> {
    for_a_moment()?.block_on(probe(url))
}

/// A runtime for a command that ends by itself.
fn for_a_moment() -> anyhow::Result<Runtime> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

/// Whoever waits for the file sees all of it or nothing.
fn write_whole(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut partial = file.to_owned().into_os_string();
    partial.push(".partial");
    std::fs::write(&partial, bytes)?;
    std::fs::rename(&partial, file)
}

fn openapi(listener: Listener) -> anyhow::Result<String> {
    let [customers, staff] = app::openapi(&Config::load(None)?)?;
    let api = match listener {
        Listener::Customers => customers,
        Listener::Staff => staff,
        Listener::Both => {
            let mut both = staff.merge_from(customers);
            "Odyssey".clone_into(&mut both.info.title);
            both.info.description =
                Some("Customers' and staff's listeners in one document.".to_owned());
            both
        }
    };
    Ok(api.to_pretty_json()? + "\n")
}

fn audit_packages(config: &Config) -> anyhow::Result<()> {
    let audit = app::audit_packages(config)?;
    print(&format!("{audit}\n"))?;
    anyhow::ensure!(
        audit.agrees(),
        "the statistics do not agree with the ledger"
    );
    Ok(())
}

fn replay_couriers(config: &Config, into: Option<&Path>) -> anyhow::Result<()> {
    let comparison = for_a_moment()?.block_on(app::replay_couriers(config, into))?;
    print(&format!("{comparison}\n"))?;
    anyhow::ensure!(comparison.agrees(), "the log does not come to what is kept");
    Ok(())
}

#[cfg(feature = "aws")]
fn redrive_couriers(config: &Config, dry_run: bool) -> anyhow::Result<()> {
    let mut listed = Ok(());
    let mut list = |line: &str| {
        if listed.is_ok() {
            listed = print(&format!("{line}\n"));
        }
    };
    let redriven = for_a_moment()?.block_on(app::redrive_couriers(config, dry_run, &mut list))?;
    listed?;
    let would = if dry_run { "would go " } else { "" };
    print(&format!("{would}{redriven}\n"))
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}
