//! `simulators drones`: delivery drones that report the events of their missions, and a comparison of the server's
//! account with what it has acknowledged.

mod checks;
mod flight;
mod ledger;
mod mission;
mod summary;

use std::time::Duration;

use anyhow::{Result, anyhow};
use clap::Args;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use self::summary::Summary;
use self::{
    checks::Compared,
    flight::Fleet,
    ledger::Ledger,
    mission::{Planner, Traits},
};
use crate::{
    audit::Counted,
    deliveries::Link,
    options::{Output, Pace, StaffDoor, duration, share},
    progress::{self, Progress},
    report::Report,
    resend::{insist, patience_at_the_end, run_id},
    shop::Failure,
};

/// Let delivery drones report their missions, and check that the server has kept what it acknowledged
///
/// Each drone keeps a connection and flies one mission after the other: the parcel is collected, the drone takes off
/// and lands, and delivers the parcel or crashes. An event without an answer, or answered 503, is sent again with the
/// same Idempotency-Key, so a server that restarts during the run costs nothing but time.
///
/// Ends when all missions have been flown; ctrl-c ends it earlier and leaves missions in the air as they are. In the
/// end GET /counts must have changed by just the missions that began and ended, and the histories of the last 200
/// missions must list just the acknowledged events in order. Other programs that send deliveries at the same time spoil the
/// comparison of the counts: tell so with --shared. The exit code is 0 only if every event was acknowledged and every
/// check holds.
#[derive(Debug, Args)]
#[command(mut_arg("speed", |speed| speed.default_value("100")))]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) door: StaffDoor,
    #[command(flatten)]
    schedule: Schedule,
    #[command(flatten)]
    sending: Sending,
    #[command(flatten)]
    pub(crate) pace: Pace,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// How many missions there are and what they are like.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Missions")]
struct Schedule {
    /// Missions in all, 1 to 10000000
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    missions: u64,
    /// Fly missions without end, until ctrl-c
    #[arg(long, conflicts_with = "missions")]
    keep_flying: bool,
    /// Drones in the air at once, each with a connection of its own, 1 to 10000
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    fleet: u32,
    /// Most take-offs of a mission, 1 to 100; their number is uniform from 1
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    hops: u32,
    /// Share of missions that end in a crash, 0% to 100%
    #[arg(long, value_name = "SHARE", default_value = "5%", value_parser = share)]
    crashes: f64,
    /// Time between two events of a drone, simulated, 0s to 24h; 0s is as fast as the server answers
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    leg: Duration,
}

/// How events are sent and what is made of the answers.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Sending")]
struct Sending {
    /// How long an event that is not acknowledged is sent again and again, measured, 0s to 24h; 0s is once
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    patience: Duration,
    /// Share of events that are sent twice on purpose, with the same key, 0% to 100%; the answers must be equal
    #[arg(long, value_name = "SHARE", default_value = "2%", value_parser = share)]
    duplicates: f64,
    /// Others send deliveries to this server too: do not compare the counts
    #[arg(long)]
    shared: bool,
}

impl Schedule {
    /// None when there is no end of them.
    fn missions(&self) -> Option<u64> {
        (!self.keep_flying).then_some(self.missions)
    }
}

pub(crate) async fn run(options: &Options, closing: CancellationToken) -> Result<Report> {
    let Options {
        schedule, sending, ..
    } = options;
    let server = options.door.staff_address.clone();
    let before = if sending.shared {
        None
    } else {
        // No retries: a mistyped address is reported at once.
        let asked = insist(Duration::ZERO, async || {
            Link::new(server.clone()).counts().await
        });
        let failed = |failure: Failure| anyhow!("cannot read GET /counts beforehand: {failure}");
        Some(asked.await.map_err(failed)?)
    };
    let run = run_id();
    let traits = Traits {
        hops_max: schedule.hops,
        crashes: schedule.crashes,
        duplicates: sending.duplicates,
    };
    let missions = schedule.missions();
    let planner = Planner::new(run.clone(), traits, missions, options.pace.seed);
    let progress = Progress::of_drones(missions.unwrap_or_default());
    let shown = progress::show(&progress, options.output.progress);
    let begun = Instant::now();
    let fleet = Fleet {
        server: server.clone(),
        drones: schedule.fleet,
        leg: options.pace.speed.measured(schedule.leg),
        patience: sending.patience,
        progress,
        closing: closing.clone(),
    };
    let ledger = fleet.fly(planner).await;
    let elapsed = begun.elapsed();
    drop(shown);
    let patience = patience_at_the_end(sending.patience, &closing);
    let mut link = Link::new(server);
    let counted = match before {
        None => Counted::NotCompared,
        Some(before) => {
            let after = insist(patience, async || link.counts().await).await;
            Counted::of(before, after)
        }
    };
    let compared = compare(&mut link, &ledger, sending.shared, patience).await;
    let checks = checks::all(&ledger.tally, &counted, &compared);
    let speed = options.pace.speed;
    let mut report = Report::new("drones", &options.pace, elapsed);
    report.add_drones(Summary::of(run, missions, &ledger, checks, elapsed, speed));
    Ok(report)
}

/// Looks up the histories of the last missions, until one cannot be looked up.
async fn compare(link: &mut Link, ledger: &Ledger, shared: bool, patience: Duration) -> Compared {
    let mut compared = Compared::default();
    for log in ledger.recent() {
        let asked = insist(patience, async || link.history(&log.delivery_id).await);
        match asked.await {
            Ok(history) => {
                let pushed_out = ledger.may_be_unknown(log, shared);
                compared.add(log, history.as_ref(), pushed_out);
            }
            Err(failure) => {
                compared.broken_off = Some(failure.to_string());
                break;
            }
        }
    }
    compared
}
