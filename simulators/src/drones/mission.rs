//! What a drone is to do, planned before it starts: the events of its mission, in order.

use fastrand::Rng;

use crate::deliveries::{Event, EventType};

/// What the missions of a run are like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Traits {
    /// Take-offs of a mission: uniform from 1 to this.
    pub(crate) hops_max: u32,
    /// Share of missions that end in a crash, 0 to 1.
    pub(crate) crashes: f64,
    /// Share of events that are sent twice on purpose, 0 to 1.
    pub(crate) duplicates: f64,
}

/// A mission, from the parcel's collection to its delivery or the crash.
#[derive(Debug, Clone)]
pub(crate) struct Mission {
    pub(crate) steps: Vec<Step>,
}

/// An event of a mission.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) event: Event,
    /// Whether it is sent a second time although it has been acknowledged.
    pub(crate) is_repeated: bool,
}

/// Plans one mission after the other; the same seed plans the same ones, whichever drone flies them.
#[derive(Debug)]
pub(crate) struct Planner {
    run: String,
    traits: Traits,
    /// None when there is no end of them.
    left: Option<u64>,
    planned: u64,
    chance: Rng,
}

impl Planner {
    /// `run` makes the missions' names unlike those of any other run; at most 90 characters of `[A-Za-z0-9._~-]`.
    pub(crate) fn new(run: String, traits: Traits, missions: Option<u64>, seed: u64) -> Self {
        Self {
            run,
            traits,
            left: missions,
            planned: 0,
            chance: Rng::with_seed(seed),
        }
    }

    /// A drone crashes in the air: instead of landing after one of its take-offs.
    fn course(&mut self) -> Vec<EventType> {
        let hops = self.chance.u32(1..=self.traits.hops_max);
        let crashes = self.chance.f64() < self.traits.crashes;
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
    type Item = Mission;

    fn next(&mut self) -> Option<Mission> {
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
            is_repeated: self.chance.f64() < self.traits.duplicates,
        });
        Some(Mission {
            steps: steps.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const TRAITS: Traits = Traits {
        hops_max: 3,
        crashes: 0.05,
        duplicates: 0.02,
    };

    fn plan(traits: Traits, missions: u64, seed: u64) -> Vec<Mission> {
        Planner::new("run".to_owned(), traits, Some(missions), seed).collect()
    }

    fn course(mission: &Mission) -> Vec<EventType> {
        mission.steps.iter().map(|step| step.event.kind).collect()
    }

    #[test]
    fn a_mission_goes_from_the_collection_over_whole_hops_to_one_end() {
        for mission in plan(TRAITS, 1000, 1) {
            let course = course(&mission);
            let (first, rest) = course.split_first().unwrap();
            let (last, middle) = rest.split_last().unwrap();
            assert_eq!(*first, EventType::ParcelCollected);
            assert!(last.is_final());
            assert!(middle.iter().all(|kind| !kind.is_final()), "{course:?}");
            let take_offs = middle
                .iter()
                .filter(|kind| **kind == EventType::TakenOff)
                .count();
            assert!((1..=3).contains(&take_offs), "{course:?}");
            let landed_last = middle.last() == Some(&EventType::Landed);
            assert_eq!(landed_last, *last == EventType::ParcelDelivered);
            for pair in middle.chunks(2) {
                assert_eq!(pair[0], EventType::TakenOff, "{course:?}");
                assert!(pair.get(1).is_none_or(|kind| *kind == EventType::Landed));
            }
        }
    }

    #[test]
    fn shares_are_kept_on_average_and_at_their_ends() {
        let missions = plan(TRAITS, 10_000, 2);
        let crashed = missions
            .iter()
            .filter(|mission| course(mission).last() == Some(&EventType::Crashed))
            .count();
        assert!((400..=600).contains(&crashed), "{crashed}");
        let steps: Vec<_> = missions.iter().flat_map(|mission| &mission.steps).collect();
        let repeated = steps.iter().filter(|step| step.is_repeated).count() * 1000 / steps.len();
        assert!((15..=25).contains(&repeated), "{repeated} per mille");
        for (share, all) in [(0.0, false), (1.0, true)] {
            let traits = Traits {
                crashes: share,
                duplicates: share,
                ..TRAITS
            };
            for mission in plan(traits, 100, 3) {
                let last = course(&mission).pop();
                assert_eq!(last == Some(EventType::Crashed), all);
                assert!(mission.steps.iter().all(|step| step.is_repeated == all));
            }
        }
    }

    #[test]
    fn names_and_keys_are_unlike_each_other_and_within_the_contract() {
        let missions = plan(TRAITS, 500, 4);
        let events: Vec<_> = missions
            .iter()
            .flat_map(|mission| mission.steps.iter().map(|step| &step.event))
            .collect();
        let ids: BTreeSet<_> = events.iter().map(|event| &event.delivery_id).collect();
        let keys: BTreeSet<_> = events.iter().map(|event| &event.key).collect();
        assert_eq!((ids.len(), keys.len()), (500, events.len()));
        let permitted = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
        assert!(
            ids.iter()
                .all(|id| id.len() <= 128 && id.bytes().all(permitted))
        );
        assert!(ids.contains(&"drone-run-500".to_owned()));
    }

    #[test]
    fn the_same_seed_plans_the_same_missions() {
        let courses = |seed| -> Vec<_> { plan(TRAITS, 50, seed).iter().map(course).collect() };
        assert_eq!(courses(5), courses(5));
        assert_ne!(courses(5), courses(6));
    }

    #[test]
    fn missions_without_end_have_none() {
        let planner = Planner::new("run".to_owned(), TRAITS, None, 7);
        assert_eq!(planner.take(5000).count(), 5000);
    }
}
