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
    options::{CustomersDoor, Output, Pace},
    outcome::Outcome,
    pace::Speed,
    progress::{self, Progress},
    scenario::{Env, Scenario},
    shop::{self, Receipt},
    visits::{Ending, Summary, Visit, by_arrival, distribution},
};

/// The check of the order line: every customer who came got a 200.
pub(crate) const ALL_SERVED: &str = "every customer served";

/// Send groups of customers who order and wait for as long as it takes
///
/// Each customer sends one order on a connection of their own and waits without a time-out.
/// Ends when all have been answered; ctrl-c ends it earlier and still reports.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    door: CustomersDoor,
    #[command(flatten)]
    crowd: Crowd,
    #[command(flatten)]
    pace: Pace,
    #[command(flatten)]
    pub(crate) output: Output,
}

impl Scenario for Options {
    fn check(&self) -> Result<(), String> {
        self.crowd.check()
    }

    async fn run(&self, env: Env) -> Result<Outcome> {
        let plan = self.crowd.plan(&mut Rng::with_seed(self.pace.seed));
        let planned = plan.len();
        let progress = Progress::of_customers(planned);
        let shown = progress::show(&progress, env.display);
        let shop = self.door.customers_address.clone();
        let begun = Instant::now();
        let visits = visit_all(shop, plan, self.pace.speed, progress, &env.closing).await;
        let outcome = Outcome::new("customers", &self.pace, begun.elapsed());
        drop(shown);
        let summary = Summary::of(&visits, planned, self.pace.speed);
        Ok(of_customers(outcome, &visits, &summary))
    }
}

/// A run of customers is in order only if every one who came got a 200.
pub(crate) fn of_customers(outcome: Outcome, visits: &[Visit], summary: &Summary) -> Outcome {
    outcome
        .with(summary.part("Customers"))
        .requires(ALL_SERVED, summary.all_served())
        .verdict_in_any_case(summary.sentence("customer"))
        .draws(by_arrival(visits, "", &[]))
        .draws(distribution(visits, None))
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
        progress.came();
        waiting.spawn(async move {
            let customer = format!("group-{}-customer-{}", arrival.group, number + 1);
            let (ending, receipt) =
                wait_for_coffee(&shop, arrival.from, &customer, &closing).await;
            let wait = due.elapsed();
            progress.left(ending.is_served());
            let visit = Visit {
                group: arrival.group,
                arrived: due - begun,
                wait,
                ending,
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
) -> (Ending, Receipt) {
    let answer = tokio::select! {
        biased;
        answer = shop::order(shop, from, customer) => answer,
        () = closing.cancelled() => return (Ending::Unanswered, Receipt::default()),
    };
    match answer {
        Ok(answer) => (Ending::Answered(answer.status), Receipt::read(&answer)),
        Err(error) => (Ending::Failed(error), Receipt::default()),
    }
}
