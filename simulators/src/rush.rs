//! `simulators rush`: customers and baristas at once, until every customer has been answered.

mod flooded;

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use clap::Args;
use fastrand::Rng;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    arrival::{Arrival, Crowd},
    baristas::{self, Crew, Hours, Tally},
    customers::visit_all,
    options::{CustomersDoor, Output, Pace, Picture, StaffDoor},
    progress::{self, Progress},
    report::Report,
    visits::Visit,
};

/// Customers and baristas at once, until every customer has been answered
///
/// ctrl-c ends it earlier: customers still waiting are then unanswered, and baristas give back their orders.
/// With --flood the same rush runs twice, without and with a flooder, and the report compares the two.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) customers_door: CustomersDoor,
    #[command(flatten)]
    pub(crate) staff_door: StaffDoor,
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
    #[command(flatten)]
    pub(crate) picture: Picture,
}

impl Options {
    pub(crate) fn check(&self) -> Result<(), String> {
        self.crowd.check()?;
        self.crew.check()?;
        self.flood.check(&self.crowd)
    }
}

pub(crate) async fn run(options: &Options, closing: CancellationToken) -> Result<Report> {
    let picture = options.picture.prepare("rush")?;
    if options.flood.wanted {
        return Box::pin(flooded::run(options, picture, &closing)).await;
    }
    let plan = options.crowd.plan(&mut Rng::with_seed(options.pace.seed));
    let planned = plan.len();
    let progress = Progress::of_both(planned);
    let rush = once(options, plan, progress, &closing).await;
    let mut report = Report::new("rush", &options.pace, rush.elapsed);
    report.add_customers(&rush.visits, planned);
    report.add_baristas(rush.tally);
    report.draw(picture, &rush.visits, None);
    Ok(report)
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
    plan: Vec<Arrival>,
    progress: Arc<Progress>,
    closing: &CancellationToken,
) -> Rush {
    let shown = progress::show(&progress, options.output.progress);
    let begun = Instant::now();
    let hours = Hours::until(closing.child_token());
    let staff = options.staff_door.staff_address.clone();
    let crew = baristas::work(staff, &options.crew, &options.pace, &progress, &hours);
    let shop = options.customers_door.customers_address.clone();
    let crowd = async {
        let visits = visit_all(shop, plan, options.pace.speed, progress.clone(), closing).await;
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
