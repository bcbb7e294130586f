//! `simulators couriers`: reports orders and couriers, and compares the shop's account with its own.

mod ledger;
pub mod model;
mod plan;
mod publishing;
mod sns;
mod state;

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde_json::Value;
use tokio::time::Instant;

pub use self::model::Model;
use self::{
    ledger::{LATENCY, Ledger, OUTCOMES},
    model::{Join, Kind},
    plan::Phase,
    publishing::publish,
    sns::Topic,
    state::{OF_STATE, State},
};
use crate::{
    audit::Check,
    client::beforehand,
    crew::Crew,
    options::{Credential, Output, Pace, StaffDoor, any_seed, duration, share},
    outcome::{Outcome, Part},
    pace::Speed,
    progress::{self, Progress},
    scenario::{Env, Scenario},
    tally::{FATE_UNKNOWN, GIVEN_UP, RETRIES, Rate},
};

/// A list of orders or couriers has no pages.
const ANSWER_MAX_BYTES: usize = 256 * 1024 * 1024;

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
pub struct Options {
    #[command(flatten)]
    door: StaffDoor,
    #[command(flatten)]
    credential: Credential,
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
        let connections = usize::try_from(self.publishing.connections).unwrap_or(1);
        let seed = self.publishing.seed;
        plan::draw(&self.events, connections, seed, fastrand::u64(..))
    }
}

impl Scenario for Options {
    async fn run(&self, env: Env) -> Result<Outcome> {
        let server = self.credential.added_to(&self.door.staff_address)?;
        let topic = match self.publishing.topic_arn.clone() {
            Some(arn) => Some(Topic::connect(arn).await?),
            None => None,
        };
        beforehand::<Value>(&server, "/couriers").await?;
        let phases = self.draw();
        let requests = phases.iter().flatten().flatten();
        let events: usize = requests.map(|request| request.events.len()).sum();
        let crew = Crew {
            server,
            patience: self.publishing.patience,
            closing: env.closing,
            progress: Progress::of_requests(events as u64),
        };
        let shown = progress::show(&crew.progress, env.display);
        let begun = Instant::now();
        let mut ledger = publish(&crew, topic.as_ref(), phases).await;
        let elapsed = begun.elapsed();
        drop(shown);
        // Its counts are not the run's.
        let mut client = crew.client(0).taking_answers_up_to(ANSWER_MAX_BYTES);
        let join = self.events.join;
        let state = Box::pin(State::ask(&mut client, &mut ledger, join)).await;
        let checks = checks(&mut ledger, &state);
        let (orders, couriers) = (ledger.orders.len(), ledger.couriers.len());
        Ok(Outcome::new("couriers", &Pace::real_time(self.publishing.seed), elapsed)
            .with(report(&ledger, elapsed).checks(checks))
            .verdict(format!(
                "Every event was acknowledged and every check holds ({orders} orders, {couriers} couriers)."
            ))
            .drawn_from(&ledger.tally))
    }
}

fn report(ledger: &Ledger, elapsed: Duration) -> Part {
    let (tally, speed) = (&ledger.tally, Speed::REAL_TIME);
    let (n, waits) = (|name| tally.get(name), |name| tally.waits(name, speed));
    let unknown = n(FATE_UNKNOWN);
    let rate = Rate::of(ledger.acknowledged, elapsed, speed);
    let mut part = Part::new("couriers")
        .section("Events")
        .figure("orders", "orders", ledger.orders.len() as u64)
        .figure("couriers", "couriers", ledger.couriers.len() as u64)
        .figure("acknowledged", "events acknowledged", ledger.acknowledged)
        .rate("acknowledged_per_s", "events acknowledged", rate);
    for (kind, path, label) in [
        (Kind::Assigned, "outcomes.assigned", "  assigned"),
        (Kind::Parked, "outcomes.parked", "  parked"),
        (Kind::Updated, "outcomes.updated", "  updated"),
        (Kind::Duplicate, "outcomes.duplicate", "  duplicates"),
    ] {
        if let Some(times) = ledger.outcomes.get(&kind) {
            part = part.figure(path, label, *times);
        }
    }
    part.section("Requests")
        .figure("requests", "acknowledged", ledger.requests)
        .count("given_up", "given up", tally.faults(GIVEN_UP).times)
        .count("fate_unknown", "  which may have been taken", unknown)
        .count("retries", "sent again for want of an answer", n(RETRIES))
        .answers(tally)
        .waits("latencies", "From sent to acknowledged", waits(LATENCY))
}

/// All that must hold. `state` is why not all could be asked.
fn checks(ledger: &mut Ledger, state: &Result<State, String>) -> Vec<Check> {
    if let Ok(state) = state {
        state.check(ledger);
    }
    let tally = &ledger.tally;
    let mut checks = vec![
        Check::nothing_given_up(
            "every event acknowledged",
            "events",
            ledger.acknowledged,
            tally,
        ),
        Check::without(OUTCOMES, &tally.faults(OUTCOMES), ledger.acknowledged),
    ];
    match state {
        Ok(state) => {
            checks.push(state.quiet());
            checks.extend(OF_STATE.map(|name| Check::of(name, tally)));
        }
        Err(why) => {
            let finding = format!("not all could be asked: {why}");
            checks.push(Check::new("the shop's final state", false, finding));
        }
    }
    checks
}
