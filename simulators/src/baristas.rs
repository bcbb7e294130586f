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

use std::{collections::BTreeMap, future::pending, ops::AddAssign, sync::Arc, time::Duration};

use anyhow::Result;
use clap::Args;
use fastrand::Rng;
use serde::Serialize;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    backoff::Backoff,
    connection::Address,
    options::{Output, Pace, StaffDoor, duration},
    pace::Speed,
    progress::{self, Progress},
    report::Report,
    shop::{Counter, Failure, Finished, Order},
};

/// A shop that does not hold `/start/` is asked this often at most.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// Measured time for the last calls when everything stops.
const GOODBYE_MAX: Duration = Duration::from_secs(2);

/// Let a crew of baristas pull orders, brew them and report them ready
///
/// Each barista keeps a connection, asks for the oldest order, brews it and reports it ready.
/// Runs until ctrl-c (which gives back what is being brewed), --for or --idle-for.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) door: StaffDoor,
    #[command(flatten)]
    pub(crate) crew: Crew,
    #[command(flatten)]
    pub(crate) shift: Shift,
    #[command(flatten)]
    pub(crate) pace: Pace,
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
pub(crate) struct Shift {
    /// End after this long, simulated, 0s to 24h; what is being brewed is finished
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub(crate) length: Option<Duration>,
    /// End when nothing has been brewing for this long, simulated, 0s to 24h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) idle_for: Option<Duration>,
}

pub(crate) async fn run(options: &Options, closing: CancellationToken) -> Result<Report> {
    let progress = Progress::of_baristas();
    let shown = progress::show(&progress, options.output.progress);
    let begun = Instant::now();
    let hours = Hours::until(closing);
    let shop = options.door.staff_address.clone();
    let crew = work(shop, &options.crew, &options.pace, &progress, &hours);
    let clock = async {
        options.shift.end(options.pace.speed, &progress).await;
        hours.last_orders.cancel();
        // The crew decides when it is done.
        pending::<()>().await;
    };
    let tally = tokio::select! {
        tally = crew => tally,
        () = clock => Tally::default(),
    };
    let mut report = Report::new("baristas", &options.pace, begun.elapsed());
    drop(shown);
    report.add_baristas(tally);
    Ok(report)
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
            match (self.idle_for, progress.brewing()) {
                (Some(length), Some(brewing)) => idle(brewing, speed.measured(length)).await,
                _ => pending().await,
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
        total += tally;
    }
    total
}

/// What a crew did, by count.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Tally {
    /// Orders taken.
    pub(crate) started: usize,
    /// Coffees whose finish the shop has acknowledged.
    pub(crate) finished: usize,
    /// Of these, coffees whose customer had gone.
    pub(crate) customer_gone: usize,
    /// Of these, finishes that the shop had heard before.
    pub(crate) already_finished: usize,
    /// Coffees that the shop refused, or that could not be reported before the end.
    pub(crate) not_finished: usize,
    /// Orders given back unbrewed because the run was stopped.
    pub(crate) given_back: usize,
    /// Answers other than the expected ones, by status.
    pub(crate) unexpected_status: BTreeMap<u16, usize>,
    /// Answers of status 200 that could not be read.
    pub(crate) unreadable: usize,
    pub(crate) by_transport_error: BTreeMap<String, usize>,
    /// Whether the shop ever answered.
    pub(crate) shop_reached: bool,
}

impl Tally {
    fn failed(&mut self, failure: Failure) {
        match failure {
            Failure::Transport(error) => {
                *self
                    .by_transport_error
                    .entry(error.to_string())
                    .or_default() += 1;
            }
            Failure::Status(status) => {
                *self.unexpected_status.entry(status.as_u16()).or_default() += 1;
            }
            Failure::Unreadable => self.unreadable += 1,
        }
        self.shop_reached |= !matches!(failure, Failure::Transport(_));
    }

    fn acknowledged(&mut self, finished: &Finished) {
        self.shop_reached = true;
        self.finished += 1;
        self.customer_gone += usize::from(finished.delivered == Some(false));
        self.already_finished += usize::from(finished.already);
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.started += other.started;
        self.finished += other.finished;
        self.customer_gone += other.customer_gone;
        self.already_finished += other.already_finished;
        self.not_finished += other.not_finished;
        self.given_back += other.given_back;
        self.unreadable += other.unreadable;
        self.shop_reached |= other.shop_reached;
        for (status, times) in other.unexpected_status {
            *self.unexpected_status.entry(status).or_default() += times;
        }
        for (error, times) in other.by_transport_error {
            *self.by_transport_error.entry(error).or_default() += times;
        }
    }
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
            self.tally.started += 1;
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
                    self.tally.shop_reached = true;
                    if order.is_some() {
                        return order;
                    }
                    backoff = Backoff::default();
                    ASK_EVERY.saturating_sub(asked.elapsed())
                }
                Err(failure) => {
                    self.tally.failed(failure);
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
                    self.tally.acknowledged(&finished);
                    self.progress.coffee_brewed();
                    return next;
                }
                Err(failure) => {
                    self.tally.failed(failure);
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
        self.tally.not_finished += 1;
        None
    }

    async fn give_back(&mut self, order: &Order) {
        match timeout(GOODBYE_MAX, self.counter.release(order)).await {
            Ok(Ok(())) => self.tally.given_back += 1,
            Ok(Err(failure)) => {
                self.tally.failed(failure);
                self.tally.not_finished += 1;
            }
            Err(_) => self.tally.not_finished += 1,
        }
    }
}

async fn goodbye_is_over(closing: &CancellationToken) {
    closing.cancelled().await;
    sleep(GOODBYE_MAX).await;
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::connection::TransportError;

    fn crew(brew_min_s: u64, brew_max_s: u64) -> Crew {
        Crew {
            count: 10,
            brew_min: Duration::from_secs(brew_min_s),
            brew_max: Duration::from_secs(brew_max_s),
            wait: 20,
            next: false,
        }
    }

    #[test]
    fn brewing_times_cover_the_whole_range() {
        let crew = crew(30, 60);
        let mut chance = Rng::with_seed(1);
        let mut times: Vec<_> = (0..1000).map(|_| crew.brewing_time(&mut chance)).collect();
        times.sort_unstable();
        assert!(times[0] >= Duration::from_secs(30) && times[0] < Duration::from_secs(31));
        assert!(times[999] <= Duration::from_mins(1) && times[999] > Duration::from_secs(59));
        assert!((44..=46).contains(&times[500].as_secs()));
    }

    #[test]
    fn tallies_add_up() {
        let mut one = Tally::default();
        one.failed(Failure::Transport(TransportError::Refused));
        assert!(!one.shop_reached);
        let mut other = Tally::default();
        other.failed(Failure::Transport(TransportError::Refused));
        other.failed(Failure::Status(StatusCode::CONFLICT));
        other.acknowledged(&Finished {
            delivered: Some(false),
            already: true,
        });
        one += other;
        assert_eq!(one.by_transport_error["connection refused"], 2);
        assert_eq!(one.unexpected_status[&409], 1);
        assert_eq!(
            (one.finished, one.customer_gone, one.already_finished),
            (1, 1, 1)
        );
        assert!(one.shop_reached);
    }

    /// Reads one request's head and answers it; the connection stays open.
    async fn answer(stream: &mut TcpStream, body: &str) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let length = body.len();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(answer.as_bytes()).await.unwrap();
        let head = String::from_utf8(head).unwrap();
        head.lines().next().unwrap().to_owned()
    }

    /// One barista at a shop that hands out one order; what the shop is asked after `then` happened to the hours
    /// while the coffee was being brewed, and what the barista did.
    async fn asked_after(brew_s: u64, then: impl Fn(&Hours)) -> (String, Tally) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shop = format!("http://{}", listener.local_addr().unwrap());
        let progress = Progress::of_baristas();
        let hours = Hours::until(CancellationToken::new());
        let mut crew = crew(brew_s, brew_s);
        crew.count = 1;
        let pace = Pace {
            speed: "1000".parse().unwrap(),
            seed: 1,
        };
        let staff = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let asked = answer(&mut stream, r#"{"order_id": "a b", "attempt": 2}"#).await;
            assert_eq!(asked, "GET /start/?wait=20&barista=barista-1 HTTP/1.1");
            let mut brewing = progress.brewing().unwrap();
            brewing.wait_for(|now| *now == 1).await.unwrap();
            then(&hours);
            answer(&mut stream, "{}").await
        };
        tokio::join!(
            staff,
            work(shop.parse().unwrap(), &crew, &pace, &progress, &hours)
        )
    }

    #[tokio::test]
    async fn a_barista_stopped_while_brewing_gives_the_order_back() {
        let (asked, tally) = asked_after(24 * 3600, Hours::close).await;
        assert_eq!(asked, "POST /release/?order_id=a%20b HTTP/1.1");
        assert_eq!((tally.started, tally.given_back, tally.finished), (1, 1, 0));
    }

    #[tokio::test]
    async fn a_barista_whose_shift_ends_while_brewing_finishes_the_coffee() {
        let (asked, tally) = asked_after(100, |hours| hours.last_orders.cancel()).await;
        assert_eq!(asked, "POST /finish/?order_id=a%20b&attempt=2 HTTP/1.1");
        assert_eq!((tally.started, tally.given_back, tally.finished), (1, 0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_shift_ends_after_its_length_in_simulated_time() {
        let shift = Shift {
            length: Some(Duration::from_secs(100)),
            idle_for: None,
        };
        let begun = Instant::now();
        shift
            .end("10".parse().unwrap(), &Progress::of_baristas())
            .await;
        assert_eq!(begun.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_crew_leaves_only_after_being_idle_in_one_stretch() {
        let progress = Progress::of_baristas();
        let shift = Shift {
            length: None,
            idle_for: Some(Duration::from_mins(1)),
        };
        let begun = Instant::now();
        let coffee_meanwhile = async {
            sleep(Duration::from_secs(50)).await;
            let brewing = progress.brew();
            sleep(Duration::from_secs(100)).await;
            drop(brewing);
        };
        tokio::join!(shift.end("1".parse().unwrap(), &progress), coffee_meanwhile);
        assert_eq!(begun.elapsed().as_secs(), 210);
    }
}
