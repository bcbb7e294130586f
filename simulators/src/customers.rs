//! `simulators customers`: groups of customers who order and wait for as long as it takes.
//!
//! Each customer has a connection of their own, sends one order and waits without a time-out.
//! A run ends when all have been answered, or when it is stopped: customers still waiting are then unanswered.

use std::{net::Ipv4Addr, sync::Arc};

use anyhow::Result;
use clap::Args;
use fastrand::Rng;
use jiff::Timestamp;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    arrival::{Arrival, Crowd},
    connection::Address,
    options::{CustomersDoor, Output, Pace, Picture},
    pace::Speed,
    progress::{self, Progress},
    report::Report,
    shop::{self, Receipt},
    visits::{Outcome, Visit},
};

/// Send groups of customers who order and wait for as long as it takes
///
/// Each customer sends one order on a connection of their own and waits without a time-out.
/// Ends when all have been answered; ctrl-c ends it earlier and still reports.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) door: CustomersDoor,
    #[command(flatten)]
    pub(crate) crowd: Crowd,
    #[command(flatten)]
    pub(crate) pace: Pace,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) picture: Picture,
}

pub(crate) async fn run(options: &Options, closing: CancellationToken) -> Result<Report> {
    let picture = options.picture.prepare("customers")?;
    let plan = options.crowd.plan(&mut Rng::with_seed(options.pace.seed));
    let planned = plan.len();
    let progress = Progress::of_customers(planned);
    let shown = progress::show(&progress, options.output.progress);
    let shop = options.door.customers_address.clone();
    let begun = Instant::now();
    let visits = visit_all(shop, plan, options.pace.speed, progress, &closing).await;
    let mut report = Report::new("customers", &options.pace, begun.elapsed());
    drop(shown);
    report.add_customers(&visits, planned);
    report.draw(picture, &visits, None);
    Ok(report)
}

/// Has each customer of the plan arrive on time, and returns their visits in order of arrival.
/// When `closing` is cancelled no further customer comes and those who wait leave.
pub(crate) async fn visit_all(
    shop: Address,
    plan: Vec<Arrival>,
    speed: Speed,
    progress: Arc<Progress>,
    closing: &CancellationToken,
) -> Vec<Visit> {
    let begun = Instant::now();
    let shop = Arc::new(shop);
    let mut waiting = JoinSet::new();
    for (number, arrival) in plan.into_iter().enumerate() {
        let due = begun + speed.measured(arrival.due);
        tokio::select! {
            biased;
            () = closing.cancelled() => break,
            () = sleep_until(due) => {}
        }
        let (shop, progress, closing) = (Arc::clone(&shop), Arc::clone(&progress), closing.clone());
        progress.customer_came();
        waiting.spawn(async move {
            let customer = format!("group-{}-customer-{}", arrival.group, number + 1);
            let (outcome, receipt) =
                wait_for_coffee(&shop, arrival.from, &customer, &closing).await;
            let wait = due.elapsed();
            progress.customer_left(outcome.is_served());
            let visit = Visit {
                group: arrival.group,
                arrived: due - begun,
                wait,
                outcome,
                receipt,
            };
            (number, visit)
        });
    }
    let mut visits = waiting.join_all().await;
    visits.sort_unstable_by_key(|(number, visit)| (visit.arrived, noted(visit), *number));
    visits.into_iter().map(|(_, visit)| visit).collect()
}

/// Customers who come at the same moment have no order among themselves until the shop has noted them down; those whom
/// it noted within the same tick of its clock stand as they were started, and those whom it did not note come last.
fn noted(visit: &Visit) -> (Timestamp, Timestamp) {
    let Receipt {
        placed_at,
        started_at,
        ..
    } = visit.receipt;
    (
        placed_at.unwrap_or(Timestamp::MAX),
        started_at.unwrap_or(Timestamp::MAX),
    )
}

async fn wait_for_coffee(
    shop: &Address,
    from: Option<Ipv4Addr>,
    customer: &str,
    closing: &CancellationToken,
) -> (Outcome, Receipt) {
    let answer = tokio::select! {
        biased;
        answer = shop::order(shop, from, customer) => answer,
        () = closing.cancelled() => return (Outcome::Unanswered, Receipt::default()),
    };
    match answer {
        Ok(answer) => (Outcome::Answered(answer.status), Receipt::read(&answer)),
        Err(error) => (Outcome::Failed(error), Receipt::default()),
    }
}
