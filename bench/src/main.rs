//! Measures the server side by side with real peers, and prints one table.
//!
//! README.md describes what is measured, and why it is fair. `rows.toml` says what is compared ([`rows`]): two subjects,
//! which are programs in one use ([`programs`]). The [`engine`] samples the subjects of an experiment in turn. Most are a
//! [`load`] of clients, which one [`client`] drives; they differ in what they send ([`orders`], [`deliveries`],
//! [`mod@packages`], [`couriers`] and [`access`] in [`http`], with or without [`mod@tls`]; [`gearman`], [`nats`], [`redis`]), and the [`ledger`] checks what they
//! received. Others hold requests ([`memory`], [`streams`]), measure cycles beside other clients ([`disturbed`]), plan days
//! ([`planner`]), or need no server ([`mod@line`], [`dispatching`], [`shared`], [`access`]). The result is a [`table`] with notes on the [`machine`].
//! Where a server's time goes is a table of its own ([`mod@profile`]).

mod access;
mod client;
mod couriers;
mod deliveries;
mod dispatching;
mod disturbed;
mod engine;
mod gearman;
mod http;
mod ledger;
mod line;
mod load;
mod machine;
mod memory;
mod nats;
mod noop;
mod orders;
mod packages;
mod planner;
mod profile;
mod programs;
mod redis;
mod rows;
mod shared;
mod streams;
mod table;
mod tls;

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Args, Parser, Subcommand};

use crate::engine::Bench;
use crate::machine::Pinned;
use crate::programs::Programs;
use crate::rows::{Experiment, ROWS};
use crate::table::Table;

/// The measured server's, for its no-op counterpart and its planner.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Measures the server side by side with real peers.
///
/// Every server is started by this program on a free port of the loopback network and stopped at the end. The exit
/// code says whether the measurements are valid; a missed target is shown in the table.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(Subcommand)]
enum Command {
    /// Measure and print the table, as without a command.
    Run(Options),
    /// Print where a cycle's time goes in the servers, with Linux's perf; says so if it cannot be used.
    Profile {
        /// Subjects of rows.toml whose drive is a load.
        #[arg(default_values = ["cycle", "ideal"])]
        subjects: Vec<String>,
        #[command(flatten)]
        setting: Setting,
    },
    /// The measured server without a desk.
    #[command(hide = true)]
    Noop {
        #[arg(long)]
        port: u16,
    },
    /// Plan a day with the measured server's planner, and print what it took.
    #[command(hide = true)]
    Plan {
        manifest: PathBuf,
        max_per_driver: u32,
    },
}

#[derive(Args)]
struct Options {
    /// How often everything is measured; the median is judged.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Measure only these, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "ROW", value_parser = names())]
    only: Vec<String>,
    /// Connections to hold when memory is measured.
    #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    held: u32,
    /// Streams to hold on one HTTP/2 connection.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    streams: u32,
    /// Also write the table into this file.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    #[command(flatten)]
    setting: Setting,
}

#[derive(Args)]
struct Setting {
    /// Seconds of each measurement of speed, without its warm-up.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Run the servers on one processor, with one worker, and the client on another.
    #[arg(long)]
    pin: bool,
    /// Where the servers store their data, each in a directory of its own that is removed afterwards. By default where
    /// temporary files are.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The server to measure, instead of the one that was built next to this program.
    #[arg(long, value_name = "PROGRAM")]
    server: Option<PathBuf>,
}

impl Setting {
    /// Must be called before any thread is started.
    fn programs(self) -> Result<Programs> {
        let pinned = self.pin.then(Pinned::divide).transpose()?;
        Programs::locate(self.server, self.data, pinned)
    }
}

fn names() -> PossibleValuesParser {
    let experiments = ROWS.experiments.iter();
    let values = experiments.map(|one| PossibleValue::new(&*one.name).help(&*one.about));
    PossibleValuesParser::new(values)
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Run(options)) => run(options),
        Some(Command::Profile { subjects, setting }) => {
            let seconds = setting.seconds;
            let table = profile::profile(setting.programs()?, &subjects, seconds)?;
            Ok(io::stdout().write_all(table.as_bytes())?)
        }
        Some(Command::Noop { port }) => noop::run(port),
        Some(Command::Plan {
            manifest,
            max_per_driver,
        }) => planner::plan_day(&manifest, max_per_driver),
        None => run(cli.options),
    }
}

fn run(options: Options) -> Result<()> {
    let Options {
        rounds,
        only,
        held,
        streams,
        markdown,
        setting,
    } = options;
    let is_chosen = |one: &&Experiment| only.is_empty() || only.contains(&one.name);
    let chosen: Vec<&Experiment> = ROWS.experiments.iter().filter(is_chosen).collect();
    let seconds = setting.seconds;
    let programs = setting.programs()?;
    let is_pinned = programs.pinned.is_some();
    let mut taking_part: Vec<&str> = Vec::new();
    let experiments = chosen.iter();
    for key in experiments.flat_map(|experiment| experiment.subjects(is_pinned)) {
        let program = &*ROWS.subjects[key].program;
        programs.path(program)?;
        if !taking_part.contains(&program) {
            taking_part.push(program);
        }
    }

    let bench = Bench {
        programs,
        rounds,
        seconds,
        held,
        streams,
    };
    let (mut table, mut notes) = (Table::default(), Vec::new());
    // What was measured before an error is shown, too.
    let measured = chosen.iter().try_for_each(|experiment| {
        let measured = experiment.run(&bench);
        let (lines, note) = measured.with_context(|| format!("measuring {}", experiment.name))?;
        table.0.extend(lines);
        notes.extend(note);
        Ok(())
    });
    if !table.0.is_empty() {
        notes.extend(conditions(&bench, &chosen, &taking_part)?);
        let report = format!("{table}\n- {}\n", notes.join("\n- "));
        io::stdout().write_all(report.as_bytes())?;
        if let Some(file) = markdown.filter(|_| measured.is_ok()) {
            fs::write(&file, report).with_context(|| format!("writing {}", file.display()))?;
        }
    }
    measured
}

/// Notes on how and where everything was measured.
fn conditions(bench: &Bench, chosen: &[&Experiment], taking_part: &[&str]) -> Result<Vec<String>> {
    let Bench {
        rounds,
        seconds,
        programs,
        ..
    } = bench;
    let (customers, baristas) = (load::CUSTOMERS, load::BARISTAS);
    let mut notes = vec![format!(
        "Medians of {rounds} rounds, {seconds} s per measurement of speed; {customers} clients, and {baristas} baristas."
    )];
    if let Some(Pinned { servers, client }) = programs.pinned {
        notes.push(format!(
            "The servers run on processor {servers}, with one worker each, and the client on processor {client}."
        ));
    }
    let stored = chosen.iter().filter(|experiment| experiment.stored);
    let stored: Vec<&str> = stored.map(|experiment| experiment.number()).collect();
    if !stored.is_empty() {
        let disk = machine::describe_disk(&programs.data)?;
        notes.push(format!("{}: {disk}.", stored.join(", ")));
    }
    notes.push(format!("{}.", machine::describe(programs, taking_part)?));
    Ok(notes)
}
