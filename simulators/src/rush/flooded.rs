//! `simulators rush --flood`: the same rush twice, the second time with a flooder among the regulars.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::Result;
use clap::Args;
use fastrand::Rng;
use tokio::time::{Instant, sleep_until, timeout};

use super::{Options, Rush, once};
use crate::{
    arrival::{Arrival, Crowd},
    baristas,
    client::admitted,
    comparison::Comparison,
    connection::Address,
    customers::ALL_SERVED,
    flood::{Connections, Deeds, Flooder, Manner, forgive, let_loose},
    options::duration,
    outcome::{Outcome, Part},
    progress::Progress,
    scenario::Env,
    shop::BLOCKED,
    sources::Sources,
    visits::{Summary, by_arrival, distribution},
};

/// The regulars' default addresses: more than any crowd here has people.
const REGULARS_FROM: &str = "127.1.0.0/16";

/// How long the flooder may go on after the last regular was served: time enough to send it all and be cut off.
const FLOOD_ENDS_WITHIN: Duration = Duration::from_secs(5);

/// A flooder in the midst of the regulars.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Flood")]
pub(crate) struct Flood {
    /// Let the same rush happen twice, the second time with a flooder, and compare; regulars then come from addresses
    /// of their own, those of 127.1.0.0/16 unless --from says otherwise
    #[arg(long = "flood")]
    pub(super) wanted: bool,
    /// Orders that the flooder sends at once, 1 to 100000
    #[arg(id = "flood_orders", long = "flood-orders", value_name = "N", requires = "wanted", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    orders: u32,
    /// Address of this machine that the flooder comes from, IPv4
    #[arg(
        id = "flood_from",
        long = "flood-from",
        value_name = "ADDRESS",
        requires = "wanted",
        default_value = "127.0.66.6"
    )]
    from: Ipv4Addr,
    /// When the flooder comes after the start, simulated, 0s to 24h [default: with the middle one of the regulars]
    #[arg(id = "flood_after", long = "flood-after", value_name = "TIME", requires = "wanted", value_parser = duration)]
    after: Option<Duration>,
}

impl Flood {
    pub(super) fn check(&self, crowd: &Crowd) -> Result<(), String> {
        let regulars_from = crowd.from.unwrap_or_else(regulars_from);
        if self.wanted && regulars_from.contains(self.from) {
            return Err(format!(
                "--flood-from {} is one of the regulars' addresses, {regulars_from}",
                self.from
            ));
        }
        Ok(())
    }

    /// Simulated time of the flood since the start of the run.
    fn due(&self, plan: &[Arrival]) -> Duration {
        let middle = plan.get(plan.len() / 2).map(|arrival| arrival.due);
        self.after.or(middle).unwrap_or_default()
    }
}

fn regulars_from() -> Sources {
    REGULARS_FROM.parse().expect("the constant is a network")
}

pub(super) async fn run(options: &Options, staff: Address, env: &Env) -> Result<Outcome> {
    admitted(&staff, BLOCKED).await?;
    let crowd = Crowd {
        from: Some(options.crowd.from.unwrap_or_else(regulars_from)),
        ..options.crowd.clone()
    };
    let plan = crowd.plan(&mut Rng::with_seed(options.pace.seed));
    let planned = plan.len();
    let flooder = Flooder {
        shop: options.customers_door.customers_address.clone(),
        from: options.flood.from,
        orders: options.flood.orders,
        at_once: options.flood.orders,
        connections: Connections::New,
        manner: Manner::Plain,
        pause: Duration::ZERO,
    };
    forgive(staff.clone(), flooder.from).await;

    let progress = Progress::of_rush(Some("without flood"), planned);
    let without = once(options, staff.clone(), plan.clone(), progress, env).await;
    let (with, flood) = Box::pin(with_flood(options, staff, plan, flooder, env)).await?;

    let times = flood.as_ref().map(|(came, deeds)| deeds.times(*came));
    let times = times.unwrap_or_default();
    let speed = options.pace.speed;
    let summary = Summary::of(&with.visits, planned, speed);
    let comparison = Comparison::of(&without.visits, &with.visits, planned, times, speed);
    let deeds = flood.as_ref().map(|(_, deeds)| deeds);
    let mut outcome = Outcome::new("rush", &options.pace, with.elapsed)
        .with(summary.part("Regulars, with the flood"))
        .with(baristas::part(&with.tally))
        .requires(ALL_SERVED, summary.all_served())
        .requires(
            "every customer served without the flood",
            comparison.without_flood.all_served(),
        )
        .requires(
            "flooder cut off",
            deeds.is_some_and(|deeds| deeds.cut_off.is_some()),
        )
        .verdict_in_any_case(summary.sentence("regular"))
        .draws(by_arrival(&without.visits, ", without the flood", &[]))
        .draws(by_arrival(&with.visits, ", with the flood", &times.moments()))
        .draws(distribution(&with.visits, Some(&without.visits)));
    outcome.findings = comparison.findings(deeds);
    if let Some(deeds) = deeds {
        outcome = outcome.with(deeds.part());
    }
    let blocks = comparison.blocks();
    let part = Part::of("comparison", &comparison);
    Ok(outcome.with(blocks.into_iter().fold(part, Part::block)))
}

/// The rush, and a flooder among its customers: when the flooder came, and what became of it; none if it was stopped
/// before.
async fn with_flood(
    options: &Options,
    staff: Address,
    plan: Vec<Arrival>,
    flooder: Flooder,
    env: &Env,
) -> Result<(Rush, Option<(Duration, Deeds)>)> {
    let flood_due = options.pace.speed.measured(options.flood.due(&plan));
    let progress = Progress::of_rush(Some("with flood"), plan.len());
    let begun = Instant::now();
    let over = env.closing.child_token();
    let flood_over = env.closing.child_token();
    let watched = staff.clone();
    let rush = async {
        let rush = once(options, staff, plan, progress, env).await;
        // On a busy machine the regulars may all be served before the flood has been sent.
        let _late = timeout(FLOOD_ENDS_WITHIN, flood_over.cancelled()).await;
        over.cancel();
        rush
    };
    let flood = async {
        over.run_until_cancelled(sleep_until(begun + flood_due))
            .await?;
        let came = begun.elapsed();
        let progress = Progress::of_customers(0);
        let deeds = let_loose(flooder, Some(watched), progress, over.clone()).await;
        flood_over.cancel();
        Some(deeds.map(|deeds| (came, deeds)))
    };
    let (rush, flood) = tokio::join!(rush, flood);
    Ok((rush, flood.transpose()?))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        crowd: Crowd,
        #[command(flatten)]
        flood: Flood,
    }

    fn due(arguments: &[&str]) -> Duration {
        let line = Line::parse_from([&["rush", "--flood"], arguments].concat());
        let plan = line.crowd.plan(&mut Rng::with_seed(1));
        line.flood.due(&plan)
    }

    #[test]
    fn the_flooder_comes_with_the_middle_one_of_the_regulars() {
        let steady = [
            "--arrival=steady",
            "--every=10m",
            "--group-min=100",
            "--group-max=100",
        ];
        let of_groups = |groups| due(&[&steady[..], &[groups]].concat());
        assert_eq!(of_groups("--groups=1"), Duration::ZERO);
        assert_eq!(of_groups("--groups=2"), Duration::from_mins(10));
        assert_eq!(of_groups("--groups=3"), Duration::from_mins(10));
        assert_eq!(due(&["--flood-after=7m"]), Duration::from_mins(7));
    }

    #[test]
    fn a_flooder_among_the_regulars_addresses_is_a_contradiction() {
        let check = |arguments: &[&str]| {
            let line = Line::parse_from([&["rush", "--flood"], arguments].concat());
            line.flood.check(&line.crowd)
        };
        assert!(check(&[]).is_ok());
        assert!(check(&["--flood-from=127.1.0.9"]).is_err());
        assert!(check(&["--from=127.0.0.0/16"]).is_err());
        assert!(check(&["--from=127.0.1.0/24", "--flood-from=127.1.0.9"]).is_ok());
    }
}
