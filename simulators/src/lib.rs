//! Customers, baristas, a flooder, delivery drones, senders of packages, a day's drivers and couriers for a running server.
//!
//! Each scenario is a subcommand and a file of its own, which knows the server by its HTTP contract only. It is registered
//! in one line of `scenarios!`, below.
//!
//! | file | what it holds |
//! |---|---|
//! | `customers`, `baristas`, `rush`, `flood`, `drones`, `senders`, `day`, `couriers` | the scenarios |
//! | `scenario` | what a scenario is |
//! | `outcome`, `audit`, `tally` | what became of a run: figures, checks and counts, as JSON and as text |
//! | `plot` | the page of a run |
//! | `crew`, `client`, `connection`, `dribble` | workers at once, their patience, and the only place that opens sockets |
//! | `options`, `pace`, `sources`, `arrival` | shared options: time, addresses, arrivals planned before the run |
//! | `shop`, `visits`, `comparison` | the order line as clients see it, and the figures drawn from their orders |
//! | `deliveries`, `packages`, `assignments`, `couriers::model` | the desks' contracts and models, without I/O |
//! | `progress` | the live display |
//!
//! Exit codes: 0 when every check of the scenario holds; 1 when not, or the run failed; 2 for a wrong command line.

mod arrival;
pub mod assignments;
mod audit;
mod client;
mod comparison;
mod connection;
mod crew;
pub mod deliveries;
mod dribble;
mod ids;
mod options;
mod outcome;
mod pace;
pub mod packages;
mod plot;
mod progress;
mod scenario;
mod shop;
mod sources;
mod tally;
mod visits;

use std::{
    io::{Write as _, stderr},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::scenario::Scenario;
pub use self::{
    audit::{Check, Verdict},
    options::Display,
    outcome::Outcome,
    scenario::Env,
};

/// What a shell reports for a process that ctrl-c ended.
const INTERRUPTED: i32 = 130;

/// The module of each scenario, and its name in the command line.
macro_rules! scenarios {
    ($($module:ident: $name:ident,)*) => {
        $(pub mod $module;)*

        #[derive(Debug, Subcommand)]
        enum Command {
            $($name($module::Options),)*
        }

        impl Command {
            fn name(&self) -> &'static str {
                match self {
                    $(Self::$name(_) => stringify!($module),)*
                }
            }

            fn output(&self) -> &options::Output {
                match self {
                    $(Self::$name(options) => &options.output,)*
                }
            }

            /// What the command line's grammar cannot say: options that contradict each other.
            fn check(&self) -> Result<(), String> {
                match self {
                    $(Self::$name(options) => options.check(),)*
                }
            }

            /// Boxed: as large as the largest scenario's.
            async fn run(&self, env: Env) -> anyhow::Result<Outcome> {
                match self {
                    $(Self::$name(options) => Box::pin(options.run(env)).await,)*
                }
            }
        }
    };
}

scenarios! {
    customers: Customers,
    baristas: Baristas,
    rush: Rush,
    flood: Flood,
    drones: Drones,
    senders: Senders,
    day: Day,
    couriers: Couriers,
}

/// Customers, baristas, a flooder, delivery drones, senders of packages, a day's drivers and couriers for a running Odyssey.
///
/// They speak HTTP only, count every status and every transport error, and end with a report of the waiting times.
/// Durations are written 500ms, 30s, 2m, 1h30m; they are the shop's (simulated) time and shrink by --speed.
#[derive(Debug, Parser)]
#[command(
    name = "simulators",
    version,
    args_override_self = true,
    max_term_width = 100,
    after_help = "Exit codes: 0 every customer who came got a 200, and a flooder among them was cut off, and every \
                  event of a drone or a courier and request of a sender or of a day was acknowledged and every check of them \
                  holds, or the lists were drawn; 1 it is \
                  not so, or the run failed; 2 wrong usage."
)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

/// The program.
pub async fn main() -> ExitCode {
    let CommandLine { command } = CommandLine::parse();
    if let Err(contradiction) = command.check() {
        refuse(command.name(), contradiction);
    }
    raise_descriptor_limit();
    match report(&command).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn report(command: &Command) -> anyhow::Result<bool> {
    let env = Env {
        closing: until_signal()?,
        display: command.output().progress,
    };
    let outcome = outcome(command, env).await?;
    outcome.print(command.output().format)?;
    Ok(outcome.ok())
}

async fn outcome(command: &Command, env: Env) -> anyhow::Result<Outcome> {
    let picture = command.output().prepare_picture(command.name())?;
    let mut outcome = command.run(env).await?;
    if let Some(file) = picture {
        outcome.draw(file);
    }
    Ok(outcome)
}

/// Runs a scenario in this process, for tests; the arguments are those of the command line.
///
/// # Errors
///
/// The arguments are wrong, or the run itself failed.
pub async fn run(arguments: &[&str], env: Env) -> anyhow::Result<Outcome> {
    let line = std::iter::once(&"simulators").chain(arguments);
    let CommandLine { command } = CommandLine::try_parse_from(line)?;
    command.check().map_err(anyhow::Error::msg)?;
    outcome(&command, env).await
}

/// Ends the process as the command line's parser does for a wrong option: usage on stderr, code 2.
fn refuse(subcommand: &str, contradiction: String) -> ! {
    let mut whole = CommandLine::command();
    whole.build();
    let place = whole.find_subcommand_mut(subcommand);
    let command = place.expect("the subcommand was just parsed");
    command
        .error(ErrorKind::ValueValidation, contradiction)
        .exit()
}

/// Reports an error of the run itself on standard error.
pub(crate) fn complain(trouble: &str) {
    // With standard error closed there is no place left to report to.
    drop(writeln!(stderr(), "simulators: {trouble}"));
}

/// A token that the first ctrl-c (or SIGTERM) cancels: the run then stops and still reports.
/// The second one ends the process at once.
fn until_signal() -> anyhow::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let closing = CancellationToken::new();
    let token = closing.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if token.is_cancelled() {
                std::process::exit(INTERRUPTED);
            }
            token.cancel();
        }
    });
    Ok(closing)
}

/// Each held customer is an open file, and the usual soft limit is 1024. Where the limit cannot be raised
/// the customers beyond it are counted as transport errors, by name, so failing here would add nothing.
fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn drones_fly_at_a_hundredfold_speed_and_the_last_of_a_repeated_option_counts() {
        for (line, speed) in [
            (&["simulators", "drones"][..], 100.0),
            (&["simulators", "drones", "--speed=3", "--speed=2"], 2.0),
        ] {
            let Command::Drones(options) = CommandLine::parse_from(line).command else {
                panic!("drones were asked for")
            };
            assert!((options.pace.speed.factor() - speed).abs() < f64::EPSILON);
        }
    }

    #[test]
    fn a_smallest_above_the_largest_is_a_contradiction() {
        for line in [
            ["simulators", "customers", "--group-min=201"],
            ["simulators", "baristas", "--brew-min=61s"],
            ["simulators", "rush", "--brew-max=29s"],
        ] {
            let command = CommandLine::parse_from(line).command;
            assert!(command.check().is_err(), "{line:?}");
        }
    }

    #[test]
    fn values_out_of_bounds_are_usage_errors() {
        for arguments in [
            ["customers", "--groups=0"],
            ["customers", "--speed=0"],
            ["customers", "--every=soon"],
            ["customers", "--customers=https://example.org"],
            ["baristas", "--wait=56"],
            ["baristas", "--count=0"],
            ["baristas", "--for=-1s"],
            ["drones", "--missions=0"],
            ["drones", "--fleet=0"],
            ["drones", "--hops=0"],
            ["drones", "--crashes=5"],
            ["senders", "--packages=0"],
            ["senders", "--senders=0"],
            ["senders", "--rate=0"],
            ["senders", "--malformed=2"],
            ["day", "--drivers=0"],
            ["day", "--packages=0"],
            ["day", "--rules=4..2"],
            ["day", "--max-per-driver=10001"],
            ["day", "--date=today"],
            ["day", "--failures=2"],
            ["day", "--shifts=0"],
            ["day", "--concurrency=0"],
            ["couriers", "--orders=0"],
            ["couriers", "--couriers=10001"],
            ["couriers", "--connections=0"],
            ["couriers", "--duplicates=2"],
            ["couriers", "--join=max"],
        ] {
            let line = std::iter::once("simulators").chain(arguments);
            let refused = CommandLine::try_parse_from(line).expect_err(arguments[1]);
            assert_eq!(refused.exit_code(), 2, "{arguments:?}");
        }
    }
}
