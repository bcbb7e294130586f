//! `simulators rush`: customers and baristas at once, until every customer has been answered.

mod flooded;

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use clap::Args;
use fastrand::Rng;
use tokio::time::Instant;

use crate::{
    arrival::{Arrival, Crowd},
    baristas::{self, Crew, Hours},
    client::admitted,
    connection::Address,
    customers::{of_customers, visit_all},
    options::{Credential, CustomersDoor, Output, Pace, StaffDoor},
    outcome::Outcome,
    progress::{self, Progress},
    scenario::{Env, Scenario},
    shop::UNKNOWN_ORDER,
    tally::Tally,
    visits::{Summary, Visit},
};

/// Customers and baristas at once, until every customer has been answered
///
/// ctrl-c ends it earlier: customers still waiting are then unanswered, and baristas give back their orders.
/// With --flood the same rush runs twice, without and with a flooder, and the report compares the two.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    pub(crate) customers_door: CustomersDoor,
    #[command(flatten)]
    pub(crate) staff_door: StaffDoor,
    #[command(flatten)]
    pub(crate) credential: Credential,
    #[command(flatten)]
    pub(crate) crowd: Crowd,
    #[command(flatten)]
    pub(crate) crew: Crew,
    #[command(flatten)]
    pub(crate) flood: flooded::Flood,
    #[command(flatten)]
    pub(crate) pace: Pace,
    #[command(flatten)]
    pub(crate) output: Output,
}

impl Scenario for Options {
    fn check(&self) -> Result<(), String> {
        self.crowd.check()?;
        self.crew.check()?;
        self.flood.check(&self.crowd)
    }

    async fn run(&self, env: Env) -> Result<Outcome> {
        let staff = self.credential.added_to(&self.staff_door.staff_address)?;
        admitted(&staff, UNKNOWN_ORDER).await?;
        if self.flood.wanted {
            return Box::pin(flooded::run(self, staff, &env)).await;
        }
        let plan = self.crowd.plan(&mut Rng::with_seed(self.pace.seed));
        let planned = plan.len();
        let progress = Progress::of_rush(None, planned);
        let rush = once(self, staff, plan, progress, &env).await;
        let summary = Summary::of(&rush.visits, planned, self.pace.speed);
        let outcome = Outcome::new("rush", &self.pace, rush.elapsed);
        let outcome = of_customers(outcome, &rush.visits, &summary);
        Ok(outcome.with(baristas::part(&rush.tally)))
    }
}

/// The outcome of a rush for all customers.
struct Rush {
    visits: Vec<Visit>,
    elapsed: Duration,
    tally: Tally,
}

/// Has all customers of the plan come, and the crew work until all of them have been answered.
async fn once(
    options: &Options,
    staff: Address,
    plan: Vec<Arrival>,
    progress: Arc<Progress>,
    env: &Env,
) -> Rush {
    let shown = progress::show(&progress, env.display);
    let begun = Instant::now();
    let hours = Hours::until(env.closing.child_token());
    let crew = baristas::work(staff, &options.crew, &options.pace, &progress, &hours);
    let shop = options.customers_door.customers_address.clone();
    let crowd = async {
        let speed = options.pace.speed;
        let visits = visit_all(shop, plan, speed, progress.clone(), &env.closing).await;
        let elapsed = begun.elapsed();
        hours.close();
        (visits, elapsed)
    };
    let ((visits, elapsed), tally) = tokio::join!(crowd, crew);
    drop(shown);
    Rush {
        visits,
        elapsed,
        tally,
    }
}
