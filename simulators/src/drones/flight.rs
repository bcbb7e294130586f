//! Sends the events of the missions: each until it is acknowledged or refused, or the patience is at an end.
//! A mission whose event is given up is over, and ctrl-c leaves missions as they are.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    ledger::{Ledger, Log},
    mission::{Mission, Planner, Step},
};
use crate::{
    connection::Address,
    deliveries::{Acknowledgement, Event, Link},
    progress::Progress,
    resend::{Resender, Sent, locked},
};

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
                resender: Resender::new(self.patience, self.closing.clone(), number.into()),
                // Spread over the first leg: real drones do not start in one moment.
                pause: self.leg.mul_f64(f64::from(number) / f64::from(self.drones)),
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
    resender: Resender,
    /// Until the next event, measured.
    pause: Duration,
    fleet: Fleet,
    base: Arc<Base>,
}

impl Drone {
    async fn work(mut self) {
        while self.waits().await {
            let Some(mission) = self.base.next_mission() else {
                break;
            };
            self.fly(mission).await;
        }
        self.base.ledger().tally.tries.add(self.resender.tries);
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
        let may_be_taken = sent.may_be_taken();
        let Some((_, first)) = sent.acknowledged else {
            let mut ledger = self.base.ledger();
            ledger.given_up(log, event, may_be_taken, &sent.why);
            return false;
        };
        self.fleet.progress.event_acknowledged();
        self.base
            .ledger()
            .acknowledged(log, event, &first, due.elapsed(), may_be_taken);
        if step.is_repeated && !self.fleet.closing.is_cancelled() {
            let second = self.send(event).await.acknowledged;
            let second = second.map(|(_, answer)| answer);
            // A repetition that ctrl-c has cut short proves nothing.
            if second.is_some() || !self.fleet.closing.is_cancelled() {
                self.base.ledger().repeated(event, &first, second.as_ref());
            }
        }
        true
    }

    async fn send(&mut self, event: &Event) -> Sent<Acknowledgement> {
        self.link.report(event, &mut self.resender).await
    }
}
