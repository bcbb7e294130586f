//! `simulators drones`: delivery drones that report the events of their missions, and a comparison of the server's
//! account with what it has acknowledged.

mod ledger;
mod mission;

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use hyper::{Method, header::HeaderValue};
use tokio::time::Instant;

use self::{
    ledger::{
        ACKNOWLEDGEMENTS, CRASHED, DELIVERED, DUPLICATES, GONE, HISTORIES, LATENCY, Ledger, Log,
        REPLAYS, SEQUENCES,
    },
    mission::{Planner, Step},
};
use crate::{
    audit::{Check, Counted, Figure},
    client::{Client, Sent, beforehand},
    crew::{Crew, Shared, run_id},
    deliveries::{Acknowledgement, Counts, Event, IDEMPOTENCY_KEY},
    options::{Credential, Output, Pace, StaffDoor, duration, share},
    outcome::{Outcome, Part},
    progress::{self, Progress},
    scenario::{Env, Scenario},
    tally::{FATE_UNKNOWN, GIVEN_UP, RETRIES, Rate},
};

/// Let delivery drones report their missions, and check that the server has kept what it acknowledged
///
/// Each drone keeps a connection and flies one mission after the other: the parcel is collected, the drone takes off
/// and lands, and delivers the parcel or crashes. An event without an answer, or answered 503, is sent again with the
/// same Idempotency-Key, so a server that restarts during the run costs nothing but time.
///
/// Ends when all missions have been flown; ctrl-c ends it earlier and leaves missions in the air as they are. In the
/// end GET /counts must have changed by just the missions that began and ended, and the histories of the last 200
/// missions must list just the acknowledged events in order. Other programs that send deliveries at the same time spoil the
/// comparison of the counts: tell so with --shared. The exit code is 0 only if every event was acknowledged and every
/// check holds.
#[derive(Debug, Args)]
#[command(mut_arg("speed", |speed| speed.default_value("100")))]
pub struct Options {
    #[command(flatten)]
    door: StaffDoor,
    #[command(flatten)]
    credential: Credential,
    #[command(flatten)]
    schedule: Schedule,
    #[command(flatten)]
    sending: Sending,
    #[command(flatten)]
    pub(crate) pace: Pace,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// How many missions there are and what they are like.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Missions")]
struct Schedule {
    /// Missions in all, 1 to 10000000
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    missions: u64,
    /// Fly missions without end, until ctrl-c
    #[arg(long, conflicts_with = "missions")]
    keep_flying: bool,
    /// Drones in the air at once, each with a connection of its own, 1 to 10000
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    fleet: u32,
    /// Most take-offs of a mission, 1 to 100; their number is uniform from 1
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    hops: u32,
    /// Share of missions that end in a crash, 0% to 100%
    #[arg(long, value_name = "SHARE", default_value = "5%", value_parser = share)]
    crashes: f64,
    /// Time between two events of a drone, simulated, 0s to 24h; 0s is as fast as the server answers
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    leg: Duration,
}

/// How events are sent and what is made of the answers.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Sending")]
struct Sending {
    /// How long an event that is not acknowledged is sent again and again, measured, 0s to 24h; 0s is once
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    patience: Duration,
    /// Share of events that are sent twice on purpose, with the same key, 0% to 100%; the answers must be equal
    #[arg(long, value_name = "SHARE", default_value = "2%", value_parser = share)]
    duplicates: f64,
    /// Others send deliveries to this server too: do not compare the counts
    #[arg(long)]
    shared: bool,
}

impl Schedule {
    /// None when there is no end of them.
    fn missions(&self) -> Option<u64> {
        (!self.keep_flying).then_some(self.missions)
    }
}

impl Scenario for Options {
    async fn run(&self, env: Env) -> Result<Outcome> {
        let server = self.credential.added_to(&self.door.staff_address)?;
        let before: Option<Counts> = if self.sending.shared {
            None
        } else {
            Some(beforehand(&server, "/counts").await?)
        };
        let crew = Crew {
            server,
            patience: self.sending.patience,
            closing: env.closing,
            progress: Progress::of_missions(self.schedule.missions().unwrap_or_default()),
        };
        let run = run_id();
        let shown = progress::show(&crew.progress, env.display);
        let begun = Instant::now();
        let ledger = self.fly(&crew, &run).await;
        let elapsed = begun.elapsed();
        drop(shown);
        let mut client = crew.client(0);
        let counted = match before {
            None => Counted::NotCompared,
            Some(before) => Counted::of(before, client.get("/counts").await),
        };
        let (ledger, broken_off) = compare(&mut client, ledger, self.sending.shared).await;
        let checks = checks(&ledger, &counted, broken_off.as_deref());
        let (events, missions) = (ledger.tally.get(SEQUENCES), ledger.begun);
        Ok(Outcome::new("drones", &self.pace, elapsed)
            .with(self.report(&run, &ledger, elapsed).checks(checks))
            .verdict(format!(
                "Every event was acknowledged and every check holds ({events} events, {missions} missions)."
            ))
            .drawn_from(&ledger.tally))
    }
}

impl Options {
    /// Flies all missions, or until the run is stopped.
    async fn fly(&self, crew: &Crew, run: &str) -> Ledger {
        let (schedule, duplicates) = (self.schedule.clone(), self.sending.duplicates);
        let planner = Planner::new(run.to_owned(), schedule, duplicates, self.pace.seed);
        let planner = Shared::new(planner);
        let ledger = Shared::new(Ledger::default());
        let fleet = self.schedule.fleet;
        let leg = self.pace.speed.measured(self.schedule.leg);
        let drones = (0..fleet).map(|number| {
            let drone = Drone {
                client: crew.client(number.into()),
                // Spread over the first leg: real drones do not start in one moment.
                pause: leg.mul_f64(f64::from(number) / f64::from(fleet)),
                leg,
                crew: crew.clone(),
                planner: planner.clone(),
                ledger: ledger.clone(),
            };
            drone.work()
        });
        crew.at_once(drones).await;
        ledger.into_inner()
    }

    fn report(&self, run: &str, ledger: &Ledger, elapsed: Duration) -> Part {
        let (tally, speed) = (&ledger.tally, self.pace.speed);
        let (n, waits) = (|name| tally.get(name), |name| tally.waits(name, speed));
        let unknown = n(FATE_UNKNOWN);
        let planned = self.schedule.missions();
        let events = n(SEQUENCES);
        let rate = Rate::of(events, elapsed, speed);
        let unfinished = ledger.begun - ledger.ended();
        let not_begun = planned.map_or(0, |planned| planned.saturating_sub(ledger.begun));
        let (retries, replays) = (n(RETRIES), n(REPLAYS));
        Part::new("drones")
            .data("run", run)
            .section(format!("Missions drone-{run}-…"))
            .data("missions.planned", planned)
            .figure("missions.begun", "begun", ledger.begun)
            .figure("missions.delivered", "delivered", n(DELIVERED))
            .figure("missions.crashed", "crashed", n(CRASHED))
            .count("missions.unfinished", "unfinished", unfinished)
            .note("not begun", not_begun)
            .section("Events")
            .figure("events.acknowledged", "acknowledged", events)
            .rate("events.acknowledged_per_s", "events acknowledged", rate)
            .count("events.given_up", "given up", tally.faults(GIVEN_UP).times)
            .count(
                "events.fate_unknown",
                "  which may have been taken",
                unknown,
            )
            .count(
                "events.retries",
                "sent again for want of an answer",
                retries,
            )
            .count("events.replays", "  which had been taken before", replays)
            .count("events.duplicates", "sent twice on purpose", n(DUPLICATES))
            .answers(tally)
            .waits("latencies", "From due to acknowledged", waits(LATENCY))
    }
}

/// Looks up the histories of the last missions, until one cannot be looked up: why not.
async fn compare(
    client: &mut Client,
    mut ledger: Ledger,
    shared: bool,
) -> (Ledger, Option<String>) {
    for log in ledger.take_recent() {
        let path = format!("/deliveries/{}/events", log.delivery_id);
        match client.look_up(&path).await {
            Ok(history) => ledger.compare(&log, history.as_ref(), shared),
            Err(failure) => return (ledger, Some(failure.to_string())),
        }
    }
    (ledger, None)
}

/// All that must hold.
fn checks(ledger: &Ledger, counted: &Counted<Counts>, broken_off: Option<&str>) -> Vec<Check> {
    let tally = &ledger.tally;
    let total: Figure<Counts> = |counts| counts.total;
    let ongoing: Figure<Counts> = |counts| counts.ongoing;
    let figures = [
        ("total of deliveries", total, ledger.total_growth()),
        ("ongoing deliveries", ongoing, ledger.ongoing_growth()),
    ];
    let [total, ongoing] = counted.changes("GET /counts", figures);
    let asked = "GET /deliveries/…/events";
    let mut histories = Check::of(HISTORIES, tally);
    if tally.get(GONE) > 0 {
        histories = histories.and(&format!("; {} no longer kept, as may be", tally.get(GONE)));
    }
    vec![
        Check::nothing_given_up(
            "every event acknowledged",
            "events",
            tally.get(SEQUENCES),
            tally,
        ),
        Check::of(SEQUENCES, tally),
        Check::of(ACKNOWLEDGEMENTS, tally),
        Check::of(DUPLICATES, tally),
        total,
        ongoing,
        histories.broken_off(asked, broken_off),
    ]
}

/// One drone, which flies one mission after the other. A mission whose event is given up is over.
struct Drone {
    client: Client,
    /// Until the next event, and between two, measured.
    pause: Duration,
    leg: Duration,
    crew: Crew,
    planner: Shared<Planner>,
    ledger: Shared<Ledger>,
}

impl Drone {
    async fn work(mut self) {
        while self.waits().await {
            let Some(mission) = self.planner.lock().next() else {
                break;
            };
            self.fly(mission).await;
        }
        self.ledger.lock().tally.merge(self.client.tally);
    }

    /// Waits for the next event to be due; false when the run was stopped.
    async fn waits(&mut self) -> bool {
        let pause = std::mem::replace(&mut self.pause, self.leg);
        self.crew.pause(pause).await
    }

    /// Sends the first event at once, and each other a leg after the one before it.
    async fn fly(&mut self, mission: Vec<Step>) {
        let Some(first) = mission.first() else {
            return;
        };
        let mut log = Log::of(first.event.delivery_id.clone());
        self.crew.progress.came();
        for (number, step) in mission.iter().enumerate() {
            if (number > 0 && !self.waits().await) || !self.take(step, &mut log).await {
                break;
            }
        }
        self.crew.progress.left(log.has_ended());
        self.ledger.lock().close(log);
    }

    /// Sends an event, twice if it is to be; false when the mission cannot go on.
    async fn take(&mut self, step: &Step, log: &mut Log) -> bool {
        let event = &step.event;
        let due = Instant::now();
        let sent = self.send(event).await;
        let may_be_taken = sent.may_be_taken();
        let Some((_, first)) = sent.acknowledged else {
            self.ledger
                .lock()
                .given_up(log, event, may_be_taken, &sent.why);
            return false;
        };
        self.crew.progress.event();
        self.ledger
            .lock()
            .acknowledged(log, event, &first, due.elapsed(), may_be_taken);
        if step.is_repeated && !self.crew.is_stopped() {
            let second = self.send(event).await;
            // A repetition that ctrl-c has cut short proves nothing.
            if second.answer().is_some() || !self.crew.is_stopped() {
                self.ledger.lock().repeated(event, &first, second.answer());
            }
        }
        true
    }

    async fn send(&mut self, event: &Event) -> Sent<Acknowledgement> {
        let mut request = self
            .client
            .request(Method::POST, &event.path(), Some(event.body()));
        let key = HeaderValue::from_str(&event.key).expect("a key is visible ASCII");
        request.headers_mut().insert(IDEMPOTENCY_KEY, key);
        self.client.send(&request, Acknowledgement::read).await
    }
}
