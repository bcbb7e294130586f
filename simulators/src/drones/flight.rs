//! Sends the events of the missions: each until it is acknowledged or refused, or the patience is at an end.
//!
//! | situation | what a drone does |
//! |---|---|
//! | no answer (refused, reset, closed, silence) | connects anew and sends the same key again, ever later, up to 2 s |
//! | 503, 429 or another server error | sends the same key again after `Retry-After`, or ever later, up to 2 s |
//! | any other status but 201 | gives the mission up |
//! | no acknowledgement within `--patience` | gives the mission up; whether the event was taken may be unknown |
//! | ctrl-c | waits up to 2 s for the answer that is under way, and leaves the mission as it is |

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fastrand::Rng;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    ledger::{Ledger, Log},
    mission::{Mission, Planner, Step},
};
use crate::{
    backoff::Backoff,
    connection::{Address, TransportError},
    deliveries::{Acknowledgement, Event, Link, Reply},
    progress::Progress,
};

/// A server that keeps the connection and says nothing for this long, measured, has lost the event.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Measured time for the answers that are under way when everything stops.
const GOODBYE_MAX: Duration = Duration::from_secs(2);
/// Pauses before another try are up to so much longer, so that a whole fleet does not come back in one moment.
const JITTER: f64 = 0.25;

/// Drones that fly one mission after the other, each over a connection of its own.
#[derive(Debug, Clone)]
pub(crate) struct Fleet {
    pub(crate) server: Address,
    /// Missions in the air at once, at most.
    pub(crate) drones: u32,
    /// Between two events of a drone, measured.
    pub(crate) leg: Duration,
    /// From when an event is due to when it is given up, measured.
    pub(crate) patience: Duration,
    pub(crate) progress: Arc<Progress>,
    pub(crate) closing: CancellationToken,
}

/// What the drones of a fleet share. Locked for moments, never while one waits.
#[derive(Debug)]
struct Base {
    planner: Mutex<Planner>,
    ledger: Mutex<Ledger>,
}

impl Base {
    fn next_mission(&self) -> Option<Mission> {
        locked(&self.planner).next()
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        locked(&self.ledger)
    }
}

/// A drone that panicked ends the run anyhow.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fleet {
    /// Flies all missions, or until `closing` is cancelled, and returns what became of them.
    pub(crate) async fn fly(self, planner: Planner) -> Ledger {
        let base = Arc::new(Base {
            planner: Mutex::new(planner),
            ledger: Mutex::default(),
        });
        let mut flying = JoinSet::new();
        for number in 0..self.drones {
            let drone = Drone {
                link: Link::new(self.server.clone()),
                // Spread over the first leg: real drones do not start in one moment.
                pause: self.leg.mul_f64(f64::from(number) / f64::from(self.drones)),
                chance: Rng::with_seed(number.into()),
                fleet: self.clone(),
                base: Arc::clone(&base),
            };
            flying.spawn(drone.work());
        }
        flying.join_all().await;
        let base = Arc::into_inner(base).expect("the drones have ended");
        base.ledger
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// One drone.
struct Drone {
    link: Link,
    /// Until the next event, measured.
    pause: Duration,
    /// Only for the jitter: what is flown is planned elsewhere.
    chance: Rng,
    fleet: Fleet,
    base: Arc<Base>,
}

/// How the sending of an event ended.
struct Sent {
    /// None when it was given up.
    acknowledgement: Option<Acknowledgement>,
    /// Whether there was a try, besides the one that was acknowledged, that the server may have taken.
    may_be_taken: bool,
    /// Why it was given up.
    why: String,
}

impl Drone {
    async fn work(mut self) {
        while self.waits().await {
            let Some(mission) = self.base.next_mission() else {
                return;
            };
            self.fly(mission).await;
        }
    }

    /// Waits for the next event to be due; false when the run was stopped.
    async fn waits(&mut self) -> bool {
        let pause = std::mem::replace(&mut self.pause, self.fleet.leg);
        let closing = &self.fleet.closing;
        let waited = closing.run_until_cancelled(sleep(pause)).await;
        waited.is_some() && !closing.is_cancelled()
    }

    /// Sends the first event at once, and each other a leg after the one before it.
    async fn fly(&mut self, mission: Mission) {
        let Some(first) = mission.steps.first() else {
            return;
        };
        let mut log = Log::of(first.event.delivery_id.clone());
        self.fleet.progress.mission_began();
        for (number, step) in mission.steps.iter().enumerate() {
            if number > 0 && !self.waits().await {
                break;
            }
            if !self.take(step, &mut log).await {
                break;
            }
        }
        self.fleet.progress.mission_ended(!log.has_ended());
        self.base.ledger().close(log);
    }

    /// Sends an event, twice if it is to be; false when the mission cannot go on.
    async fn take(&mut self, step: &Step, log: &mut Log) -> bool {
        let event = &step.event;
        let due = Instant::now();
        let sent = self.send(event).await;
        let Some(first) = sent.acknowledgement else {
            let mut ledger = self.base.ledger();
            ledger.given_up(log, event, sent.may_be_taken, &sent.why);
            return false;
        };
        self.fleet.progress.event_acknowledged();
        self.base
            .ledger()
            .acknowledged(log, event, &first, due.elapsed(), sent.may_be_taken);
        if step.is_repeated && !self.fleet.closing.is_cancelled() {
            let second = self.send(event).await.acknowledgement;
            // A repetition that ctrl-c has cut short proves nothing.
            if second.is_some() || !self.fleet.closing.is_cancelled() {
                self.base.ledger().repeated(event, &first, second.as_ref());
            }
        }
        true
    }

    async fn send(&mut self, event: &Event) -> Sent {
        let closing = self.fleet.closing.clone();
        let deadline = Instant::now() + self.fleet.patience;
        let mut backoff = Backoff::default();
        let mut may_be_taken = false;
        loop {
            let reply = self.attempt(event).await;
            self.base.ledger().answered(&reply);
            let (why, asked) = match reply {
                Ok(Reply::Acknowledged(acknowledgement)) => {
                    return Sent {
                        acknowledgement: Some(acknowledgement),
                        may_be_taken,
                        why: String::new(),
                    };
                }
                Ok(Reply::Refused { status, problem }) => {
                    return given_up(format!("{status} {problem}"), may_be_taken);
                }
                Ok(Reply::Later {
                    status,
                    retry_after,
                }) => {
                    // An engine that broke down meanwhile may have written the event before it did.
                    may_be_taken |= status.is_server_error();
                    (status.to_string(), retry_after)
                }
                Err(error) => {
                    may_be_taken |= !error.is_of_connecting();
                    (error.to_string(), None)
                }
            };
            let left = deadline.saturating_duration_since(Instant::now());
            // The last try is when the patience ends, unless the server has asked not to be bothered by then.
            if left.is_zero() || asked.is_some_and(|asked| asked > left) {
                return given_up(why, may_be_taken);
            }
            let pause = asked.unwrap_or_else(|| backoff.next());
            let pause = pause.mul_f64(1.0 + JITTER * self.chance.f64()).min(left);
            if closing.run_until_cancelled(sleep(pause)).await.is_none() {
                return given_up(format!("{why}, then the run was stopped"), may_be_taken);
            }
            self.base.ledger().retried();
        }
    }

    /// Sends it once.
    async fn attempt(&mut self, event: &Event) -> Result<Reply, TransportError> {
        let closing = self.fleet.closing.clone();
        tokio::select! {
            biased;
            reply = timeout(ANSWER_WITHIN, self.link.report(event)) => {
                reply.unwrap_or(Err(TransportError::TimedOut))
            }
            () = goodbye_is_over(&closing) => Err(TransportError::TimedOut),
        }
    }
}

fn given_up(why: String, may_be_taken: bool) -> Sent {
    Sent {
        acknowledgement: None,
        may_be_taken,
        why,
    }
}

async fn goodbye_is_over(closing: &CancellationToken) {
    closing.cancelled().await;
    sleep(GOODBYE_MAX).await;
}
