//! `simulators couriers`: reports orders and couriers, and compares the shop's account with its own.

mod checks;
mod ledger;
mod model;
mod plan;
mod publishing;
mod sns;
mod state;
mod summary;

use std::time::Duration;

use anyhow::{Result, anyhow};
use clap::Args;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use self::summary::Summary;
use self::{
    model::Join,
    plan::{Extent, Phase},
    publishing::Office,
    sns::Topic,
    state::State,
};
use crate::{
    courier_desk::Link,
    options::{Output, Pace, StaffDoor, any_seed, duration, share},
    pace::Speed,
    progress::{self, Progress},
    report::Report,
    resend::{insist, patience_at_the_end},
    shop::Failure,
};

/// Report orders and couriers, and check that every order finds the courier whose turn it is
///
/// A quarter of the orders is reported before any courier; then couriers come, go, move and are renamed while the other
/// orders are reported, over several connections at once, singly and in lists. Some events are sent twice, some of the
/// orders before the first request has been answered. A request without an answer, or answered 503, is sent again, so a
/// server that is killed and started again during the run costs nothing but time.
///
/// Ends when all events are sent; ctrl-c ends it earlier. In the end the shop's log is read from its first event and played
/// through a model of the simulator's own, and what the shop answers about every order and courier must agree with it, with
/// what was sent, and with itself. No other client may report events during this comparison. The exit code is 0 only if
/// every event was acknowledged and every check holds.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) door: StaffDoor,
    #[command(flatten)]
    events: Events,
    #[command(flatten)]
    publishing: Publishing,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// What there is to tell.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Events")]
struct Events {
    /// Orders, 1 to 1000000
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    orders: u64,
    /// Couriers, 1 to 10000
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    couriers: u64,
    /// How often each courier comes, goes, moves or is renamed, 0 to 100
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=100))]
    changes: u32,
    /// Share of events that are sent again on purpose, 0% to 100%
    #[arg(long, value_name = "SHARE", default_value = "10%", value_parser = share)]
    duplicates: f64,
    /// With which count newcomers begin, as the shop is configured (couriers.join)
    #[arg(long, value_enum, default_value_t = Join::Zero)]
    join: Join,
}

/// How the events are sent.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Publishing")]
struct Publishing {
    /// Connections at once, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    connections: u32,
    /// Publish every event to this topic of Amazon's SNS instead of telling it to the shop; needs a build with the feature `aws`
    #[arg(long, value_name = "ARN")]
    topic_arn: Option<String>,
    /// How long a request that is not acknowledged is sent again and again, and how long an event that was published may take
    /// to be known, measured, 0s to 24h; 0s is once
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    patience: Duration,
    /// Seed of the random numbers, for a run that can be repeated [default: drawn, and reported]
    #[arg(long, value_name = "NUMBER", default_value_t = any_seed(), hide_default_value = true)]
    seed: u64,
}

impl Options {
    /// All events of the run, of orders and couriers with new ids.
    fn draw(&self) -> [Phase; 2] {
        let (events, publishing) = (&self.events, &self.publishing);
        let extent = Extent {
            orders: events.orders,
            couriers: events.couriers,
            changes: events.changes,
            connections: usize::try_from(publishing.connections).unwrap_or(1),
            duplicates: events.duplicates,
        };
        plan::draw(extent, publishing.seed, fastrand::u64(..))
    }
}

pub(crate) async fn run(options: &Options, closing: CancellationToken) -> Result<Report> {
    let publishing = &options.publishing;
    let shop = options.door.staff_address.clone();
    let topic = match publishing.topic_arn.clone() {
        Some(arn) => Some(Topic::connect(arn).await?),
        None => None,
    };
    let mut link = Link::new(shop.clone());
    // No retries: a mistyped address is reported at once.
    let asked = insist(Duration::ZERO, async || link.couriers().await);
    let failed = |failure: Failure| anyhow!("cannot read GET /couriers beforehand: {failure}");
    asked.await.map_err(failed)?;

    let phases = options.draw();
    let requests = phases.iter().flatten().flatten();
    let events: usize = requests.map(|request| request.events.len()).sum();
    let progress = Progress::of_senders(u64::try_from(events).unwrap_or(u64::MAX));
    let shown = progress::show(&progress, options.output.progress);
    let begun = Instant::now();
    let office = Office {
        shop,
        topic,
        patience: publishing.patience,
        progress,
        closing: closing.clone(),
    };
    let ledger = office.work(phases).await;
    let elapsed = begun.elapsed();
    drop(shown);
    let patience = patience_at_the_end(publishing.patience, &closing);
    let join = options.events.join;
    let state = Box::pin(State::ask(&mut link, &ledger, join, patience)).await;
    let checks = checks::all(&ledger, &state);
    let pace = Pace {
        speed: Speed::REAL_TIME,
        seed: publishing.seed,
    };
    let mut report = Report::new("couriers", &pace, elapsed);
    report.add_couriers(Summary::of(&ledger, checks, elapsed));
    Ok(report)
}
