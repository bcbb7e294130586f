//! `simulators rush`: customers and baristas at once, until every customer has been answered.

use anyhow::Result;
use clap::Args;
use fastrand::Rng;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    arrival::Crowd,
    baristas::{self, Crew, Hours},
    customers::visit_all,
    options::{CustomersDoor, Output, Pace, Picture, StaffDoor},
    progress::{self, Progress},
    report::Report,
};

/// Customers and baristas at once, until every customer has been answered
///
/// ctrl-c ends it earlier: customers still waiting are then unanswered, and baristas give back their orders.
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
    pub(crate) pace: Pace,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) picture: Picture,
}

pub(crate) async fn run(options: &Options, closing: CancellationToken) -> Result<Report> {
    let picture = options.picture.prepare("rush")?;
    let plan = options.crowd.plan(&mut Rng::with_seed(options.pace.seed));
    let planned = plan.len();
    let progress = Progress::of_both(planned);
    let shown = progress::show(&progress, options.output.progress);
    let begun = Instant::now();

    let hours = Hours::until(closing.child_token());
    let staff = options.staff_door.staff_address.clone();
    let crew = baristas::work(staff, &options.crew, &options.pace, &progress, &hours);
    let shop = options.customers_door.customers_address.clone();
    let crowd = async {
        let visits = visit_all(shop, plan, options.pace.speed, progress.clone(), &closing).await;
        let elapsed = begun.elapsed();
        hours.close();
        (visits, elapsed)
    };
    let ((visits, elapsed), tally) = tokio::join!(crowd, crew);

    drop(shown);
    let mut report = Report::new("rush", &options.pace, elapsed);
    report.add_customers(&visits, planned);
    report.add_baristas(tally);
    report.draw(picture, &visits);
    Ok(report)
}
