//! `simulators`: customers, baristas, a flooder, delivery drones, senders of packages, a day's drivers and couriers for a
//! running shop.
//!
//! One subcommand per kind of visitor, one file per subcommand. They know the shop only by its HTTP contract.
//!
//! | file | what it holds |
//! |---|---|
//! | `customers`, `baristas`, `rush`, `flood`, `drones`, `senders`, `day`, `couriers` | the subcommands: options, behaviour |
//! | `options` | options that several subcommands share, and how they are read |
//! | `arrival`, `sources` | who comes when and from which address, planned before the run |
//! | `flooder` | the one who orders thousands of coffees at once |
//! | `cut_off` | watches for the moment at which an address is cut off |
//! | `pace` | measured and simulated time |
//! | `shop`, `deliveries`, `packages`, `assignments`, `courier_desk` | the HTTP contract as a client sees it |
//! | `connection` | one HTTP/1.1 connection; the only place that opens sockets |
//! | `dribble` | a socket whose owner takes their time |
//! | `visits`, `deeds` | what became of each customer and of the flooder's orders, and the figures drawn from it |
//! | `backoff`, `resend` | pauses between tries, and sending again with patience |
//! | `ids` | ids in the form that the contracts ask for |
//! | `audit` | what must hold after a run, and the text of each finding |
//! | `comparison` | the same rush without and with a flood |
//! | `progress` | the live display |
//! | `report`, `plot` | the report as text or JSON, and its picture |
//! | `stop` | signals |
//!
//! Exit codes: 0 when every customer who came got a 200 (and a flooder among them was cut off), or every drone's event
//! and every request of the senders, of a day and of couriers was acknowledged and every check holds; 1 when not,
//! or the run failed; 2 for a wrong command line.

mod arrival;
mod assignments;
mod audit;
mod backoff;
mod baristas;
mod comparison;
mod connection;
mod courier_desk;
mod couriers;
mod customers;
mod cut_off;
mod day;
mod deeds;
mod deliveries;
mod dribble;
mod drones;
mod flood;
mod flooder;
mod ids;
mod options;
mod pace;
mod packages;
mod plot;
mod progress;
mod report;
mod resend;
mod rush;
mod senders;
mod shop;
mod sources;
mod stop;
mod visits;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};

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

#[derive(Debug, Subcommand)]
enum Command {
    Customers(customers::Options),
    Baristas(baristas::Options),
    Rush(rush::Options),
    Flood(flood::Options),
    Drones(drones::Options),
    Senders(senders::Options),
    Day(day::Options),
    Couriers(couriers::Options),
}

impl Command {
    fn name(&self) -> &'static str {
        match self {
            Self::Customers(_) => "customers",
            Self::Baristas(_) => "baristas",
            Self::Rush(_) => "rush",
            Self::Flood(_) => "flood",
            Self::Drones(_) => "drones",
            Self::Senders(_) => "senders",
            Self::Day(_) => "day",
            Self::Couriers(_) => "couriers",
        }
    }

    /// What the command line's grammar cannot say: options that contradict each other.
    fn check(&self) -> Result<(), String> {
        match self {
            Self::Customers(options) => options.crowd.check(),
            Self::Baristas(options) => options.crew.check(),
            Self::Rush(options) => options.check(),
            Self::Flood(options) => options.flood.check(),
            Self::Drones(_) | Self::Senders(_) | Self::Day(_) | Self::Couriers(_) => Ok(()),
        }
    }
}

/// One thread is plenty for thousands of people who mostly wait. It also starts them in the order in which they come,
/// so that a picture by order of arrival shows the shop's order and not a scheduler's, and leaves the other cores to a
/// shop on the same machine.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let CommandLine { command } = CommandLine::parse();
    if let Err(contradiction) = command.check() {
        refuse(command.name(), contradiction);
    }
    // Boxed: as large as the largest subcommand's.
    match Box::pin(run(command)).await {
        Ok(code) => code,
        Err(error) => {
            report::complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    stop::raise_descriptor_limit();
    let closing = stop::on_signal()?;
    let (report, output) = match command {
        Command::Customers(options) => (customers::run(&options, closing).await?, options.output),
        Command::Baristas(options) => (baristas::run(&options, closing).await?, options.output),
        Command::Rush(options) => (rush::run(&options, closing).await?, options.output),
        Command::Flood(options) => (flood::run(&options, closing).await?, options.output),
        Command::Drones(options) => (drones::run(&options, closing).await?, options.output),
        Command::Senders(options) => (senders::run(&options, closing).await?, options.output),
        Command::Couriers(options) => (couriers::run(&options, closing).await?, options.output),
        Command::Day(options) => match day::run(&options, closing).await? {
            Some(report) => (report, options.output),
            None => return Ok(ExitCode::SUCCESS),
        },
    };
    report.print(output.format)?;
    Ok(report.exit_code())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_the_shop() {
        let line = CommandLine::parse_from(["simulators", "rush"]);
        let Command::Rush(options) = line.command else {
            panic!("rush was asked for")
        };
        assert_eq!(options.crew.count, 10);
        assert_eq!(
            (options.crowd.group_min, options.crowd.group_max),
            (100, 200)
        );
        assert_eq!(options.crew.brew_min.as_secs(), 30);
        assert_eq!(options.crew.brew_max.as_secs(), 60);
        assert!(options.picture.prepare("rush").unwrap().is_none());
    }

    #[test]
    fn drones_fly_at_a_hundredfold_speed_unless_told_otherwise() {
        for (line, speed) in [
            (&["simulators", "drones"][..], 100.0),
            (&["simulators", "drones", "--speed=2"], 2.0),
        ] {
            let Command::Drones(options) = CommandLine::parse_from(line).command else {
                panic!("drones were asked for")
            };
            assert!((options.pace.speed.factor() - speed).abs() < f64::EPSILON);
        }
    }

    #[test]
    fn the_last_of_a_repeated_option_counts() {
        let line = CommandLine::parse_from(["simulators", "rush", "--groups=2", "--groups=3"]);
        let Command::Rush(options) = line.command else {
            panic!("rush was asked for")
        };
        assert_eq!(options.crowd.groups, 3);
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
