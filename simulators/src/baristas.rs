//! `simulators baristas`: a crew that pulls orders, brews them and reports them ready.
//!
//! | situation | what a barista does |
//! |---|---|
//! | the shop cannot be reached, or is unwell | tries again, a little later each time, up to 2 s |
//! | no order within `--wait` | asks again |
//! | a finish was not answered | reports it again: a repeated finish is harmless |
//! | a finish is refused (409, 404) | counts it and goes on: someone else finished that order |
//! | the shift ends (`--for`, `--idle-for`) | takes no more, finishes what is being brewed |
//! | ctrl-c | gives back what is being brewed, so that it need not wait for its lease |

use std::{future::pending, sync::Arc, time::Duration};

use anyhow::Result;
use clap::Args;
use fastrand::Rng;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    client::{Backoff, Failure, GOODBYE_MAX, admitted, goodbye_is_over},
    connection::Address,
    options::{Credential, Output, Pace, StaffDoor, duration},
    outcome::{Outcome, Part},
    pace::Speed,
    progress::{self, Progress},
    scenario::{Env, Scenario},
    shop::{Counter, Finished, Order, UNKNOWN_ORDER},
    tally::Tally,
};

/// A shop that does not hold `/start/` is asked this often at most.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// Orders taken.
const STARTED: &str = "started";
/// Coffees whose finish the shop has acknowledged.
const FINISHED: &str = "finished";
/// Of these, coffees whose customer had gone.
const CUSTOMER_GONE: &str = "customer_gone";
/// Of these, finishes that the shop had received before.
const ALREADY_FINISHED: &str = "already_finished";
/// Coffees that the shop refused, or that could not be reported before the end.
const NOT_FINISHED: &str = "not_finished";
/// Orders given back unbrewed because the run was stopped.
const GIVEN_BACK: &str = "given_back";
/// Answers of status 200 that could not be read.
const UNREADABLE: &str = "unreadable";
/// Answers of the shop, of whatever kind.
const REACHED: &str = "reached";

/// The check of a run that expects nothing but a shop that answers.
pub(crate) const SHOP_REACHED: &str = "shop reached";

/// Let a crew of baristas pull orders, brew them and report them ready
///
/// Each barista keeps a connection, asks for the oldest order, brews it and reports it ready.
/// Runs until ctrl-c (which gives back what is being brewed), --for or --idle-for.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    door: StaffDoor,
    #[command(flatten)]
    credential: Credential,
    #[command(flatten)]
    crew: Crew,
    #[command(flatten)]
    shift: Shift,
    #[command(flatten)]
    pace: Pace,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// The crew and how it brews.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Crew")]
pub(crate) struct Crew {
    /// Number of baristas, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) count: u32,
    /// Shortest brewing time, simulated, 0s to 24h; times are uniform
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub(crate) brew_min: Duration,
    /// Longest brewing time, simulated, 0s to 24h
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub(crate) brew_max: Duration,
    /// How long the shop may hold the question for an order, in measured seconds, 0 to 55
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=55))]
    pub(crate) wait: u32,
    /// Ask for the next order in the same call that reports one ready
    #[arg(long)]
    pub(crate) next: bool,
}

impl Crew {
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.brew_min > self.brew_max {
            return Err("--brew-min is above --brew-max".to_owned());
        }
        Ok(())
    }

    fn brewing_time(&self, rng: &mut Rng) -> Duration {
        self.brew_min
            + self
                .brew_max
                .saturating_sub(self.brew_min)
                .mul_f64(rng.f64())
    }
}

/// When the crew goes home by itself.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Shift")]
struct Shift {
    /// End after this long, simulated, 0s to 24h; what is being brewed is finished
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    length: Option<Duration>,
    /// End when nothing has been brewing for this long, simulated, 0s to 24h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    idle_for: Option<Duration>,
}

impl Scenario for Options {
    fn check(&self) -> Result<(), String> {
        self.crew.check()
    }

    async fn run(&self, env: Env) -> Result<Outcome> {
        let shop = self.credential.added_to(&self.door.staff_address)?;
        admitted(&shop, UNKNOWN_ORDER).await?;
        let progress = Progress::of_baristas();
        let shown = progress::show(&progress, env.display);
        let begun = Instant::now();
        let hours = Hours::until(env.closing);
        let crew = work(shop, &self.crew, &self.pace, &progress, &hours);
        let clock = async {
            self.shift.end(self.pace.speed, &progress).await;
            hours.last_orders.cancel();
            // The crew decides when it is done.
            pending::<()>().await;
        };
        let tally = tokio::select! {
            tally = crew => tally,
            () = clock => Tally::default(),
        };
        let outcome = Outcome::new("baristas", &self.pace, begun.elapsed());
        drop(shown);
        // Baristas meet refusals in the course of their work; only a shop that never answered puts a run out of order.
        let is_reached = tally.get(REACHED) > 0 || tally.by_transport_error.is_empty();
        let verdict = if is_reached {
            "The shift is over."
        } else {
            "The shop never answered."
        };
        Ok(outcome
            .with(part(&tally))
            .requires(SHOP_REACHED, is_reached)
            .verdict_in_any_case(verdict.to_owned()))
    }
}

impl Shift {
    /// Returns when the shift is over; never, when it has no end.
    async fn end(&self, speed: Speed, progress: &Progress) {
        let over = async {
            match self.length {
                Some(length) => sleep(speed.measured(length)).await,
                None => pending().await,
            }
        };
        let idle = async {
            match self.idle_for {
                Some(length) => idle(progress.brewing(), speed.measured(length)).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = over => {}
            () = idle => {}
        }
    }
}

/// Returns when nothing has been brewing for `length`, measured.
async fn idle(mut brewing: watch::Receiver<u32>, length: Duration) {
    // The sending half belongs to the progress of the whole run, so neither wait ends for want of it.
    while brewing.wait_for(|now| *now == 0).await.is_ok() {
        if timeout(length, brewing.changed()).await.is_err() {
            return;
        }
    }
}

/// When a crew works.
#[derive(Debug, Clone)]
pub(crate) struct Hours {
    /// Cancelled when no more orders are taken; what is being brewed is finished.
    last_orders: CancellationToken,
    /// Cancelled when everything is dropped; cancels `last_orders` too.
    closing: CancellationToken,
}

impl Hours {
    pub(crate) fn until(closing: CancellationToken) -> Self {
        Self {
            last_orders: closing.child_token(),
            closing,
        }
    }

    /// Ends them now.
    pub(crate) fn close(&self) {
        self.closing.cancel();
    }
}

/// Lets the crew work until its hours are over, and returns what it did.
pub(crate) async fn work(
    shop: Address,
    crew: &Crew,
    pace: &Pace,
    progress: &Arc<Progress>,
    hours: &Hours,
) -> Tally {
    let mut chance = Rng::with_seed(pace.seed);
    let mut working = JoinSet::new();
    for number in 1..=crew.count {
        let barista = Barista {
            counter: Counter::new(shop.clone(), format!("barista-{number}")),
            crew: crew.clone(),
            speed: pace.speed,
            chance: chance.fork(),
            progress: Arc::clone(progress),
            hours: hours.clone(),
            tally: Tally::default(),
        };
        working.spawn(barista.work());
    }
    let mut total = Tally::default();
    for tally in working.join_all().await {
        total.merge(tally);
    }
    total
}

/// The baristas' part of the report.
pub(crate) fn part(tally: &Tally) -> Part {
    Part::new("baristas")
        .section("Baristas")
        .figure(STARTED, "orders taken", tally.get(STARTED))
        .figure(FINISHED, "coffees finished", tally.get(FINISHED))
        .count(CUSTOMER_GONE, "  whose customer had gone", tally.get(CUSTOMER_GONE))
        .count(ALREADY_FINISHED, "  reported before", tally.get(ALREADY_FINISHED))
        .count(NOT_FINISHED, "coffees not finished", tally.get(NOT_FINISHED))
        .count(GIVEN_BACK, "orders given back", tally.get(GIVEN_BACK))
        .count(UNREADABLE, "unreadable answers", tally.get(UNREADABLE))
        // Answers other than the expected ones.
        .data("unexpected_status", &tally.by_status)
        .data("by_transport_error", &tally.by_transport_error)
        .rows_of(tally)
        .data("shop_reached", tally.get(REACHED) > 0)
}

fn failed(tally: &mut Tally, failure: Failure) {
    match failure {
        Failure::Transport(error) => {
            let times = tally.by_transport_error.entry(error.to_string());
            *times.or_default() += 1;
            return;
        }
        Failure::Status(status) => *tally.by_status.entry(status.as_u16()).or_default() += 1,
        Failure::Unreadable => tally.count(UNREADABLE),
    }
    tally.count(REACHED);
}

fn acknowledged(tally: &mut Tally, finished: &Finished) {
    tally.count(REACHED);
    tally.count(FINISHED);
    tally.add(CUSTOMER_GONE, u64::from(finished.delivered == Some(false)));
    tally.add(ALREADY_FINISHED, u64::from(finished.already));
}

/// One barista at work.
struct Barista {
    counter: Counter,
    crew: Crew,
    speed: Speed,
    chance: Rng,
    progress: Arc<Progress>,
    hours: Hours,
    tally: Tally,
}

impl Barista {
    async fn work(mut self) -> Tally {
        let mut handed = None;
        loop {
            let order = match handed.take() {
                Some(order) => order,
                None => match self.take_order().await {
                    Some(order) => order,
                    None => return self.tally,
                },
            };
            self.tally.count(STARTED);
            if self.brew().await {
                handed = self.report_ready(&order).await;
            } else {
                self.give_back(&order).await;
            }
        }
    }

    /// Asks until there is an order; none when no more are taken.
    async fn take_order(&mut self) -> Option<Order> {
        let last_orders = self.hours.last_orders.clone();
        let mut backoff = Backoff::default();
        while !last_orders.is_cancelled() {
            let asked = Instant::now();
            let answer = tokio::select! {
                // An order that has been handed over is not left lying.
                biased;
                answer = self.counter.start(self.crew.wait) => answer,
                () = last_orders.cancelled() => return None,
            };
            let pause = match answer {
                Ok(order) => {
                    self.tally.count(REACHED);
                    if order.is_some() {
                        return order;
                    }
                    backoff = Backoff::default();
                    ASK_EVERY.saturating_sub(asked.elapsed())
                }
                Err(failure) => {
                    failed(&mut self.tally, failure);
                    backoff.next()
                }
            };
            last_orders.run_until_cancelled(sleep(pause)).await;
        }
        None
    }

    /// False when everything closed before the coffee was ready.
    async fn brew(&mut self) -> bool {
        let time = self
            .speed
            .measured(self.crew.brewing_time(&mut self.chance));
        let _brewing = self.progress.brew();
        tokio::select! {
            biased;
            () = self.hours.closing.cancelled() => false,
            () = sleep(time) => true,
        }
    }

    /// Reports the coffee ready until the shop has taken note of it, and returns the next order if one was handed
    /// over with the answer.
    async fn report_ready(&mut self, order: &Order) -> Option<Order> {
        let hours = self.hours.clone();
        let mut backoff = Backoff::default();
        loop {
            let takes_next = self.crew.next && !hours.last_orders.is_cancelled();
            let answer = if takes_next {
                tokio::select! {
                    biased;
                    answer = self.counter.finish_and_start(order, self.crew.wait) => answer,
                    // The shop is waiting for the next order, not for us: report without asking for one.
                    () = hours.last_orders.cancelled() => continue,
                }
            } else {
                tokio::select! {
                    biased;
                    answer = self.counter.finish(order) => answer.map(|finished| (finished, None)),
                    () = goodbye_is_over(&hours.closing) => break,
                }
            };
            match answer {
                Ok((finished, next)) => {
                    acknowledged(&mut self.tally, &finished);
                    self.progress.event();
                    return next;
                }
                Err(failure) => {
                    failed(&mut self.tally, failure);
                    if !failure.is_temporary() || hours.closing.is_cancelled() {
                        break;
                    }
                }
            }
            hours
                .closing
                .run_until_cancelled(sleep(backoff.next()))
                .await;
        }
        self.tally.count(NOT_FINISHED);
        None
    }

    async fn give_back(&mut self, order: &Order) {
        match timeout(GOODBYE_MAX, self.counter.release(order)).await {
            Ok(Ok(())) => self.tally.count(GIVEN_BACK),
            Ok(Err(failure)) => {
                failed(&mut self.tally, failure);
                self.tally.count(NOT_FINISHED);
            }
            Err(_) => self.tally.count(NOT_FINISHED),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brewing_times_cover_the_whole_range() {
        let crew = Crew {
            count: 10,
            brew_min: Duration::from_secs(30),
            brew_max: Duration::from_secs(60),
            wait: 20,
            next: false,
        };
        let mut chance = Rng::with_seed(1);
        let mut times: Vec<_> = (0..1000).map(|_| crew.brewing_time(&mut chance)).collect();
        times.sort_unstable();
        assert!(times[0] >= Duration::from_secs(30) && times[0] < Duration::from_secs(31));
        assert!(times[999] <= Duration::from_mins(1) && times[999] > Duration::from_secs(59));
        assert!((44..=46).contains(&times[500].as_secs()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_crew_leaves_only_after_being_idle_in_one_stretch() {
        let progress = Progress::of_baristas();
        let shift = |length, idle_for| Shift { length, idle_for };
        let minute = Some(Duration::from_secs(60));
        let begun = Instant::now();
        let coffee = async {
            sleep(Duration::from_secs(50)).await;
            let brewing = progress.brew();
            sleep(Duration::from_secs(100)).await;
            drop(brewing);
        };
        let idle = shift(None, minute);
        tokio::join!(idle.end(Speed::REAL_TIME, &progress), coffee);
        assert_eq!(begun.elapsed().as_secs(), 210);
        let begun = Instant::now();
        let tenfold = "10".parse().unwrap();
        shift(minute, None).end(tenfold, &progress).await;
        assert_eq!(begun.elapsed().as_secs(), 6);
    }
}
