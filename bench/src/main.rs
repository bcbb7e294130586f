//! Measures the server side by side with real peers, and prints one table.
//!
//! The README of this directory describes what is measured, and why it is fair. The way through the code: [`rounds`] takes
//! each [`subject`] in turn, starts its program ([`peers`]), and measures its speed ([`throughput`]) or what it holds
//! ([`memory`], [`streams`], [`addresses`]); to be refused takes [`refusals`]. The delivery desk has [`drones`], and
//! onlookers at its [`lists`]; whether it runs on and on is asked by [`mod@endless`]. The package desk has [`senders`],
//! and a [`large`] ledger that takes [`filling`]. The planner has [`plans`] of a [`mod@day`], and [`assigning`] over HTTP. The courier desk
//! receives orders from its [`mod@couriers`], and its store in Redis is compared with another way of [`dispatching`]. Where
//! answers are counted instead of seconds, the clients are a [`crowd`].
//! The [`disk`] that stores everything stands below the table. All of them are driven by one [`client`], whose
//! connections differ only in what they say ([`http`], [`gearman`], [`nats`], [`redis`]) and in where a message ends
//! ([`framing`]); what they saw is checked in the [`ledger`]. What the [`mod@line`] of orders itself costs was measured
//! before, by its own benchmark. The result is a [`table`] with a line on the [`machine`].

mod addresses;
mod assigning;
mod client;
mod couriers;
mod crowd;
mod day;
mod disk;
mod dispatching;
mod drones;
mod endless;
mod filling;
mod framing;
mod gearman;
mod http;
mod large;
mod ledger;
mod line;
mod lists;
mod machine;
mod memory;
mod nats;
mod peers;
mod plans;
mod redis;
mod refusals;
mod rounds;
mod senders;
mod streams;
mod subject;
mod table;
mod tally;
mod throughput;

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::peers::{Program, Programs};
use crate::rounds::{Extent, Section};
use crate::table::Table;

/// Measures the server side by side with real peers.
///
/// Every server is started by this program on a free port of the loopback network and stopped at the end. The exit
/// code says whether the measurements could be trusted; a missed target is shown in the table.
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
    /// Measure and print the table; this is done without a command, too.
    Run(Options),
}

#[derive(Args)]
struct Options {
    /// How often everything is measured; the median is judged.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Seconds of each measurement of speed, without its warm-up.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Measure only these, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "WHAT")]
    only: Vec<Part>,
    /// Connections to hold when memory is measured.
    #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    held: u32,
    /// Streams to hold on one HTTP/2 connection.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    streams: u32,
    /// Events of drones in all, when the delivery desk runs on and on.
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u32).range(1_000..=1_000_000_000))]
    events: u32,
    /// Packages in the ledger that is compared with an empty one.
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u32).range(1_000..=1_000_000_000))]
    packages: u32,
    /// Where the servers keep their data, each in a directory of its own that is gone afterwards; if not said, where
    /// temporary files are.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The server to measure, if not the one that was built beside this program.
    #[arg(long, value_name = "PROGRAM")]
    server: Option<PathBuf>,
    /// Also write the table into this file.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Cycles of three requests, next to bare hyper.
    Cycles,
    /// Cycles of two requests, next to gearmand and NATS.
    Next,
    /// Memory per held connection, next to all three.
    Memory,
    /// Memory per held HTTP/2 stream.
    Streams,
    /// The line itself, from the samples of its benchmark.
    Line,
    /// What flood control costs those it admits.
    Check,
    /// What an order costs that is refused.
    Refusing,
    /// Memory of flood control's tables.
    Addresses,
    /// Durable events per second, next to a no-op of the same stack, a commit for each and Redis.
    Deliveries,
    /// Speed and size of the delivery desk after very many events.
    Endless,
    /// The delivery desk's lists, next to a no-op of the same stack.
    Lists,
    /// Durable packages per second, next to a no-op of the same stack.
    Packages,
    /// Speed and size of the package desk with very many packages in its ledger.
    Ledger,
    /// Packages that the best plan carries, next to an independent solver.
    Optimum,
    /// The best plan of a large day, next to an independent solver on the explicit graph.
    Plan,
    /// A day assigned over HTTP and kept, next to first fit in Python.
    Assign,
    /// Durable decisions per second about orders for couriers, next to a no-op of the same stack; how evenly they are given.
    Couriers,
    /// Decisions of the couriers' store in Redis, next to the seed's way.
    CouriersRedis,
}

impl Part {
    /// Whether the result depends on what it takes to keep something.
    fn is_of_what_is_kept(self) -> bool {
        matches!(
            self,
            Part::Deliveries
                | Part::Endless
                | Part::Packages
                | Part::Ledger
                | Part::Assign
                | Part::Couriers
        )
    }

    /// The programs it takes.
    fn programs(self) -> &'static [Program] {
        match self {
            Part::Cycles => &[Program::Odyssey, Program::Bare],
            Part::Next => &[Program::Odyssey, Program::Gearmand, Program::Nats],
            Part::Memory => &[
                Program::Odyssey,
                Program::Bare,
                Program::Gearmand,
                Program::Nats,
            ],
            Part::Streams
            | Part::Check
            | Part::Refusing
            | Part::Addresses
            | Part::Endless
            | Part::Ledger => &[Program::Odyssey],
            Part::Deliveries => &[Program::Odyssey, Program::Noop, Program::Redis],
            Part::Lists | Part::Packages | Part::Couriers => &[Program::Odyssey, Program::Noop],
            Part::CouriersRedis => &[Program::Redis],
            Part::Line => &[],
            Part::Optimum | Part::Plan => &[Program::Planner, Program::Python],
            Part::Assign => &[Program::Odyssey, Program::Python],
        }
    }
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let options = match cli.command {
        Some(Command::Run(options)) => options,
        None => cli.options,
    };
    run(options)
}

fn run(options: Options) -> Result<()> {
    let parts = if options.only.is_empty() {
        Part::value_variants().to_vec()
    } else {
        options.only
    };
    let programs = Programs::locate(options.server, options.data)?;
    let mut taking_part = Vec::new();
    for program in parts.iter().flat_map(|part| part.programs()) {
        if !taking_part.contains(program) {
            programs.path(*program)?;
            taking_part.push(*program);
        }
    }
    let connections_max = memory::raise_descriptor_limit()?;
    ensure!(
        !parts.contains(&Part::Memory) || u64::from(options.held) <= connections_max,
        "{} connections need more open files than this user may have: raise `ulimit -Hn`, or hold at most {connections_max}",
        options.held
    );
    let extent = Extent {
        rounds: options.rounds,
        seconds: options.seconds,
        held: options.held,
        streams: options.streams,
        events: options.events,
        packages: options.packages,
    };

    let mut table = Table::default();
    let mut notes = Vec::new();
    let measured = parts.iter().try_for_each(|part| {
        let section = measure(*part, &programs, &extent)
            .with_context(|| format!("measuring {part:?} failed"))?;
        table.extend(section.rows);
        notes.extend(section.note);
        Ok(())
    });
    if !table.is_empty() {
        if !taking_part.is_empty() {
            notes.push(format!(
                "Medians of {} rounds, {} s per measurement of speed; {} customers, drones, onlookers or senders, and {} baristas.",
                options.rounds,
                options.seconds,
                rounds::CUSTOMERS,
                rounds::BARISTAS
            ));
        }
        if parts.iter().any(|part| part.is_of_what_is_kept()) {
            notes.push(format!(
                "8, 9, 11, 12, 15, 16: {}.",
                disk::describe(programs.data())?
            ));
        }
        notes.push(format!("{}.", machine::describe(&programs, &taking_part)?));
        let report = format!("{table}\n- {}\n", notes.join("\n- "));
        io::stdout().write_all(report.as_bytes())?;
        if let Some(file) = options.markdown.filter(|_| measured.is_ok()) {
            fs::write(&file, report).with_context(|| format!("writing {}", file.display()))?;
        }
    }
    measured
}

fn measure(part: Part, programs: &Programs, extent: &Extent) -> Result<Section> {
    match part {
        Part::Cycles => rounds::cycles(programs, extent),
        Part::Next => rounds::next(programs, extent),
        Part::Memory => rounds::memory(programs, extent),
        Part::Streams => rounds::held_streams(programs, extent),
        Part::Line => line::section(),
        Part::Check => rounds::check(programs, extent),
        Part::Refusing => rounds::refusing(programs, extent),
        Part::Addresses => rounds::many_addresses(programs, extent),
        Part::Deliveries => rounds::deliveries(programs, extent),
        Part::Endless => rounds::endless(programs, extent),
        Part::Lists => rounds::pages(programs, extent),
        Part::Packages => rounds::packages(programs, extent),
        Part::Ledger => rounds::large_ledger(programs, extent),
        Part::Optimum => rounds::optimum(programs),
        Part::Plan => rounds::plan(programs, extent),
        Part::Assign => rounds::assign(programs, extent),
        Part::Couriers => rounds::couriers(programs, extent),
        Part::CouriersRedis => rounds::couriers_redis(programs, extent),
    }
}
