//! What a drone is to do, planned before it starts: the events of its mission, in order.

use fastrand::Rng;

use super::Schedule;
use crate::deliveries::{Event, EventType};

/// An event of a mission.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) event: Event,
    /// Whether it is sent a second time although it has been acknowledged.
    pub(super) is_repeated: bool,
}

/// Plans one mission after the other; the same seed plans the same ones, whichever drone flies them.
#[derive(Debug)]
pub(super) struct Planner {
    run: String,
    schedule: Schedule,
    /// Share of events that are sent twice.
    duplicates: f64,
    /// None when there is no end of them.
    left: Option<u64>,
    planned: u64,
    chance: Rng,
}

impl Planner {
    /// `run` makes the missions' names unlike those of any other run; at most 90 characters of `[A-Za-z0-9._~-]`.
    pub(super) fn new(run: String, schedule: Schedule, duplicates: f64, seed: u64) -> Self {
        Self {
            run,
            left: schedule.missions(),
            schedule,
            duplicates,
            planned: 0,
            chance: Rng::with_seed(seed),
        }
    }

    /// A drone crashes in the air: instead of landing after one of its take-offs.
    fn course(&mut self) -> Vec<EventType> {
        let hops = self.chance.u32(1..=self.schedule.hops);
        let crashes = self.chance.f64() < self.schedule.crashes;
        let mut course = vec![EventType::ParcelCollected];
        for hop in 1..=hops {
            course.push(EventType::TakenOff);
            course.push(if crashes && hop == hops {
                EventType::Crashed
            } else {
                EventType::Landed
            });
        }
        if !crashes {
            course.push(EventType::ParcelDelivered);
        }
        course
    }
}

impl Iterator for Planner {
    /// From the parcel's collection to its delivery or the crash.
    type Item = Vec<Step>;

    fn next(&mut self) -> Option<Vec<Step>> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1)?;
        }
        self.planned += 1;
        let delivery_id = format!("drone-{}-{}", self.run, self.planned);
        let steps = self.course().into_iter().enumerate();
        let steps = steps.map(|(number, kind)| Step {
            event: Event {
                key: format!("{delivery_id}-{}", number + 1),
                delivery_id: delivery_id.clone(),
                kind,
            },
            is_repeated: self.chance.f64() < self.duplicates,
        });
        Some(steps.collect())
    }
}
