//! The command line, and every command except `serve`.
//!
//! - `client`: `health`, `order`, `start`, `finish`, `line` and `flood`, which call a running server over `http`.
//! - `check`: checks of stored data and shared engines.
//! - `token`, `certificate`: what the listeners' credentials are made of.
//! - `upkeep`: `packages` and `couriers`, which work on stored data.
//! - `paper`: `openapi`, `completions` and `man`, which describe the program.
//! - `output`: tables, JSON, and the end of a pipe.
//!
//! Exit codes: 0 on success; 1 on failure, with one sentence on standard error; 2 for wrong usage, or if `check` could not
//! check.

mod certificate;
mod check;
mod client;
mod http;
mod output;
mod paper;
mod tls;
mod token;
mod upkeep;

use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use tokio::runtime::Runtime;

use crate::config::{self, Config};

/// Takes an order at the counter, holds the customer's request until the order is ready, and sees it to the doorstep.
#[derive(Debug, Parser)]
#[command(name = "odyssey", version = crate::version::line(), arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server: customers on one listener, staff on the other
    ///
    /// Without options it serves customers on 127.0.0.1:8000 and staff on 127.0.0.1:8001. SIGTERM, SIGINT or SIGQUIT shuts
    /// it down: held customers get their coffee first, within shutdown.drain. SIGHUP reloads the configuration.
    #[command(
        after_help = "Every key can come from the environment: orders.lease is ODYSSEY_ORDERS__LEASE.\n`odyssey config --defaults` prints the manual of all keys."
    )]
    Serve {
        #[command(flatten)]
        source: Source,
        /// Write the addresses that were bound to this file, once both listeners are open
        ///
        /// As JSON with the members `customers` and `staff`, both URLs; for scripts that start the server with port 0.
        #[arg(long, value_name = "FILE")]
        addresses: Option<PathBuf>,
    },
    /// Print the effective configuration as TOML
    ///
    /// The defaults, the file and the environment, merged.
    Config {
        #[command(flatten)]
        source: Source,
        /// Print the default configuration instead, with its comments: the manual of all keys
        #[arg(long)]
        defaults: bool,
    },
    /// Check the health of a running server
    ///
    /// Exit code 0 if the URL answers 2xx within 3 seconds, else 1 and a sentence. For containers' health checks.
    Health(client::Health),
    /// Order an americano and wait until it is ready
    ///
    /// Prints the order once a barista has reported it ready, however long that takes. Ctrl-C leaves the line.
    Order(client::Order),
    /// Take the oldest order, as a barista
    ///
    /// You have it until `lease_expires_at`; after that it returns to its place in line.
    Start(client::Start),
    /// Report an order ready, as a barista
    ///
    /// The customer's request is answered.
    Finish(client::Finish),
    /// Show the state of the line
    ///
    /// Waiting orders, orders being brewed, the oldest's waiting time, held requests, idle baristas.
    Line(client::Line),
    /// Addresses blocked by flood control
    #[command(subcommand)]
    Flood(client::Flood),
    /// Check the integrity of the stored data
    ///
    /// Reads every database in the data directory with its WAL, and checks each page's checksum, the last acknowledged
    /// commit, the database's structures, and each desk's invariants. No server may be running on the directory; with --url a
    /// running server checks its files, with --engines the shared engines are checked. Exit code 0 if all is good, 1 if
    /// something is damaged, 2 if something could not be checked.
    Check(check::Check),
    /// Create, list and revoke tokens
    ///
    /// The server that reads the file as its `access.tokens_file` sees a change within a second.
    #[command(subcommand)]
    Token(token::Token),
    /// Create certificates
    #[command(subcommand)]
    Certificate(certificate::Certificate),
    /// Maintain packages
    #[command(subcommand)]
    Packages(upkeep::Packages),
    /// Maintain couriers
    #[command(subcommand)]
    Couriers(upkeep::Couriers),
    /// Print the API description, `OpenAPI` 3.1 as JSON
    Openapi {
        /// Whose API
        #[arg(long, value_enum, default_value_t = paper::Listener::Both)]
        listener: paper::Listener,
    },
    /// Print completions for a shell
    ///
    /// For bash: `odyssey completions bash > /etc/bash_completion.d/odyssey`.
    Completions {
        /// Which shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print the manual page odyssey(1)
    ///
    /// Each command has its own page; --dir writes all of them: `odyssey man --dir /usr/local/share/man/man1`.
    Man {
        /// Write the pages of all commands to this directory, as odyssey.1, odyssey-order.1 and so on
        #[arg(long, value_name = "DIRECTORY")]
        dir: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub struct Source {
    /// Configuration file (TOML); its keys override the defaults
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl Source {
    /// # Errors
    /// See [`config::ConfigError`].
    pub fn load(&self) -> anyhow::Result<Config> {
        Ok(Config::load(self.config.as_deref())?)
    }
}

/// Wrong usage that argument parsing cannot detect.
#[derive(Debug)]
struct Misuse(String);

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Misuse {}

/// Something could not be checked.
#[derive(Debug)]
struct Unchecked(String);

impl fmt::Display for Unchecked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unchecked {}

/// The exit code of a result; the reason of a failure goes to standard error.
pub fn exit_code(ended: anyhow::Result<()>) -> ExitCode {
    let Err(error) = ended else {
        return ExitCode::SUCCESS;
    };
    // Not logged: logging may not be set up.
    let _ = writeln!(std::io::stderr(), "odyssey: {error:#}");
    let is_neither = error.is::<Misuse>() || error.is::<Unchecked>();
    ExitCode::from(if is_neither { 2 } else { 1 })
}

/// Runs any command except [`Command::Serve`].
///
/// # Errors
/// If the command failed.
///
/// # Panics
/// With [`Command::Serve`].
pub fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve { .. } => unreachable!("main runs the server"),
        Command::Config { defaults: true, .. } => output::print(config::DEFAULTS),
        Command::Config { source, .. } => output::print(&source.load()?.to_toml()),
        Command::Health(health) => runtime()?.block_on(health.run()),
        Command::Order(order) => runtime()?.block_on(order.run()),
        Command::Start(start) => runtime()?.block_on(start.run()),
        Command::Finish(finish) => runtime()?.block_on(finish.run()),
        Command::Line(line) => runtime()?.block_on(line.run()),
        Command::Flood(flood) => runtime()?.block_on(flood.run()),
        Command::Check(check) => check.run(&runtime()?),
        Command::Token(token) => token.run(),
        Command::Certificate(certificate) => certificate.run(),
        Command::Packages(packages) => packages.run(),
        Command::Couriers(couriers) => couriers.run(&runtime()?),
        Command::Openapi { listener } => paper::openapi(listener),
        Command::Completions { shell } => paper::completions(shell),
        Command::Man { dir } => paper::man(dir.as_deref()),
    }
}

fn runtime() -> anyhow::Result<Runtime> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime
        .enable_all()
        .build()
        .context("cannot start the runtime")
}
