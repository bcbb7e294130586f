//! The network: lots on one side, driver classes on the other, and the flow from lots to classes. Maximum flow by blocking
//! flows along shortest paths (Dinic, 1970; on such a network with unit capacities it is Hopcroft and Karp's, 1973).
//!
//! A lot is a number of packages that the same driver classes take; a driver class is a number of drivers who take the same lots.
//! Edges are not stored: a lot has a bit for each class that takes it, so a search checks 64 of them at once, and only flow takes
//! memory.

use std::sync::Arc;

use fixedbitset::FixedBitSet;
use smallvec::SmallVec;

use super::cancellation::{Cancellation, Cancelled};

/// Distance of an unreached node.
const NEVER: u32 = u32::MAX;

/// The flow from one lot: classes ascending, amounts above 0. Most lots of a small day go to one class or two.
type Outflow = SmallVec<[(u32, u32); 2]>;

#[derive(Debug, Clone)]
pub(super) struct Flow {
    /// By lot: the driver classes that take it.
    takers: Arc<[FixedBitSet]>,
    /// By lot: packages without a class.
    pub(super) supply: Vec<u32>,
    /// By driver class: its remaining capacity.
    pub(super) room: Vec<u32>,
    /// By lot.
    outflows: Vec<Outflow>,
    /// By driver class: lots with flow to it. Lots whose flow has ended are removed lazily.
    sources: Vec<Vec<u32>>,
    /// Driver classes from which no search finds a path any more; they are skipped.
    closed: FixedBitSet,
    cancellation: Cancellation,
}

/// What a search from lots with supply reaches.
pub(super) struct Reached {
    /// In the order in which they were reached.
    pub(super) lots: Vec<u32>,
    pub(super) driver_classes: FixedBitSet,
}

/// A search's distances from the lots with supply.
struct Layers {
    lots: Vec<u32>,
    /// By distance: driver classes that may still lead on.
    driver_classes: Vec<FixedBitSet>,
    /// By driver class: the next of its sources to try.
    next_source: Vec<usize>,
    reached: Reached,
    /// The last layer has exactly the driver classes with room.
    found: bool,
}

/// A step of a path in progress: from this lot to this class.
#[derive(Clone, Copy)]
struct Step {
    lot: u32,
    driver_class: u32,
}

impl Flow {
    /// A network without flow. `takers` are each lot's classes. Searches end with [`Cancelled`] once `cancellation` is set; the
    /// flow is useless then.
    pub(super) fn new(
        takers: Arc<[FixedBitSet]>,
        supply: Vec<u32>,
        room: Vec<u32>,
        cancellation: Cancellation,
    ) -> Self {
        let driver_classes = room.len();
        Self {
            takers,
            outflows: vec![Outflow::new(); supply.len()],
            supply,
            room,
            sources: vec![Vec::new(); driver_classes],
            closed: FixedBitSet::with_capacity(driver_classes),
            cancellation,
        }
    }

    /// Removes these driver classes. They must have no flow.
    pub(super) fn close(&mut self, driver_classes: &FixedBitSet) {
        self.closed.union_with(driver_classes);
    }

    /// Makes all driver classes searchable again: after room or edges were added.
    pub(super) fn reopen(&mut self) {
        self.closed.clear();
    }

    /// Adds edges from these lots to a driver class.
    pub(super) fn let_take(&mut self, driver_class: usize, lots: &[u32]) {
        let mut takers = self.takers.to_vec();
        for &lot in lots {
            takers[lot as usize].insert(driver_class);
        }
        self.takers = takers.into();
    }

    /// The flow from a lot, by driver class.
    pub(super) fn outflow(&self, lot: usize) -> &[(u32, u32)] {
        &self.outflows[lot]
    }

    /// Maximizes the flow; returns how much was added.
    pub(super) fn saturate(&mut self, lots: &[u32]) -> Result<u64, Cancelled> {
        let mut added = self.saturate_directly(lots)?;
        // No supply is left: nothing to search for.
        while lots.iter().any(|&lot| self.supply[lot as usize] > 0) {
            let mut layers = self.search(lots)?;
            if !layers.found {
                break;
            }
            for &lot in lots {
                while self.supply[lot as usize] > 0 {
                    self.cancellation.check()?;
                    match self.augment(lot, &mut layers) {
                        0 => break,
                        amount => added += u64::from(amount),
                    }
                }
            }
        }
        Ok(added)
    }

    /// The first layer without a search: lots flow to classes with room. This is most of the flow.
    fn saturate_directly(&mut self, lots: &[u32]) -> Result<u64, Cancelled> {
        let mut open = self.closed.clone();
        open.toggle_range(..);
        for (driver_class, &room) in self.room.iter().enumerate() {
            if room == 0 {
                open.remove(driver_class);
            }
        }
        let mut added = 0;
        for &lot in lots {
            self.cancellation.check()?;
            while self.supply[lot as usize] > 0 {
                let Some(driver_class) = first_common(&open, &self.takers[lot as usize]) else {
                    break;
                };
                let step = Step {
                    lot,
                    driver_class: index(driver_class),
                };
                added += u64::from(self.send(&[step]));
                if self.room[driver_class] == 0 {
                    open.remove(driver_class);
                }
            }
        }
        Ok(added)
    }

    /// As [`Flow::saturate`]; supply that is left has no path and never will: whatever it could reach is full of what can go
    /// nowhere else. That part of the network is closed, which saves searching it again. Correct only as long as room does not
    /// grow.
    pub(super) fn saturate_and_close(&mut self, lots: &[u32]) -> Result<u64, Cancelled> {
        let added = self.saturate(lots)?;
        if lots.iter().any(|&lot| self.supply[lot as usize] > 0) {
            let reached = self.reach(lots)?;
            self.close(&reached.driver_classes);
        }
        Ok(added)
    }

    /// What is reachable from lots with supply, directly or by taking a class's flow from another lot. With a maximum flow this
    /// is the source side of the minimum cut (Ford and Fulkerson, 1956): every class in it is full.
    pub(super) fn reach(&mut self, lots: &[u32]) -> Result<Reached, Cancelled> {
        Ok(self.search(lots)?.reached)
    }

    /// Layers from the lots with supply outwards, up to the first classes with room.
    fn search(&mut self, lots: &[u32]) -> Result<Layers, Cancelled> {
        let driver_classes = self.room.len();
        let with_supply = lots.iter().filter(|&&lot| self.supply[lot as usize] > 0);
        let mut layers = Layers {
            lots: vec![NEVER; self.supply.len()],
            driver_classes: Vec::new(),
            next_source: vec![0; driver_classes],
            reached: Reached {
                lots: with_supply.copied().collect(),
                driver_classes: FixedBitSet::with_capacity(driver_classes),
            },
            found: false,
        };
        for &lot in &layers.reached.lots {
            layers.lots[lot as usize] = 0;
        }
        let mut unseen = self.closed.clone();
        unseen.toggle_range(..);
        let (mut distance, mut frontier) = (0, 0..layers.reached.lots.len());
        while !frontier.is_empty() && !layers.found {
            self.cancellation.check()?;
            let mut here = FixedBitSet::with_capacity(driver_classes);
            for &lot in &layers.reached.lots[frontier.clone()] {
                add_common(&mut here, &self.takers[lot as usize], &unseen);
            }
            unseen.difference_with(&here);
            layers.reached.driver_classes.union_with(&here);
            distance += 1;
            frontier.start = frontier.end;
            layers.found = here.ones().any(|driver_class| self.room[driver_class] > 0);
            if layers.found {
                let full: Vec<usize> = here
                    .ones()
                    .filter(|&driver_class| self.room[driver_class] == 0)
                    .collect();
                for driver_class in full {
                    here.remove(driver_class);
                }
            } else {
                for driver_class in here.ones() {
                    self.look_behind(driver_class, distance, &mut layers);
                }
            }
            frontier.end = layers.reached.lots.len();
            layers.driver_classes.push(here);
        }
        Ok(layers)
    }

    /// Adds the lots with flow to this class to the next layer.
    fn look_behind(&mut self, driver_class: usize, distance: u32, layers: &mut Layers) {
        let outflows = &self.outflows;
        let sources = &mut self.sources[driver_class];
        sources.retain(|&lot| amount(&outflows[lot as usize], index(driver_class)) > 0);
        for &lot in &*sources {
            let seen = &mut layers.lots[lot as usize];
            if *seen == NEVER {
                *seen = distance;
                layers.reached.lots.push(lot);
            }
        }
    }

    /// Augments along one path of the layers from a lot. 0 if there is none: then dead ends were removed from the layers.
    fn augment(&mut self, from: u32, layers: &mut Layers) -> u32 {
        let mut path: Vec<Step> = Vec::new();
        let mut lot = from;
        loop {
            // From this lot to a class one layer further.
            let depth = path.len();
            let next = layers.driver_classes.get(depth);
            let next = next.and_then(|driver_classes| {
                first_common(driver_classes, &self.takers[lot as usize])
            });
            let Some(driver_class) = next else {
                // A dead end, and so is the class's flow from it.
                let Some(step) = path.pop() else { return 0 };
                layers.next_source[step.driver_class as usize] += 1;
                lot = step.lot;
                match self.source(step, path.len(), layers) {
                    Some(source) => {
                        path.push(step);
                        lot = source;
                    }
                    None => layers.driver_classes[path.len()].remove(step.driver_class as usize),
                }
                continue;
            };
            let step = Step {
                lot,
                driver_class: index(driver_class),
            };
            if self.room[driver_class] > 0 {
                path.push(step);
                return self.send(&path);
            }
            // The class is full: it would have to release flow from another lot.
            match self.source(step, depth, layers) {
                Some(source) => {
                    path.push(step);
                    lot = source;
                }
                None => layers.driver_classes[depth].remove(driver_class),
            }
        }
    }

    /// A lot with flow to the step's class from which the layers lead on.
    fn source(&self, step: Step, depth: usize, layers: &mut Layers) -> Option<u32> {
        let driver_class = step.driver_class as usize;
        let wanted = index(depth) + 1;
        let sources = &self.sources[driver_class];
        let next = &mut layers.next_source[driver_class];
        while let Some(&lot) = sources.get(*next) {
            if layers.lots[lot as usize] == wanted
                && amount(&self.outflows[lot as usize], step.driver_class) > 0
            {
                return Some(lot);
            }
            *next += 1;
        }
        None
    }

    /// Augments by the path's capacity, which is at least 1.
    fn send(&mut self, path: &[Step]) -> u32 {
        let (first, last) = (path[0], path[path.len() - 1]);
        let mut most = self.supply[first.lot as usize].min(self.room[last.driver_class as usize]);
        for pair in path.windows(2) {
            let flows = amount(&self.outflows[pair[1].lot as usize], pair[0].driver_class);
            most = most.min(flows);
        }
        self.supply[first.lot as usize] -= most;
        self.room[last.driver_class as usize] -= most;
        for (place, step) in path.iter().enumerate() {
            self.add(step.lot, step.driver_class, most);
            if let Some(next) = path.get(place + 1) {
                take(
                    &mut self.outflows[next.lot as usize],
                    step.driver_class,
                    most,
                );
            }
        }
        most
    }

    fn add(&mut self, lot: u32, driver_class: u32, amount: u32) {
        let outflow = &mut self.outflows[lot as usize];
        match outflow.binary_search_by_key(&driver_class, |flow| flow.0) {
            Ok(place) => outflow[place].1 += amount,
            Err(place) => {
                outflow.insert(place, (driver_class, amount));
                self.sources[driver_class as usize].push(lot);
            }
        }
    }
}

fn amount(outflow: &Outflow, driver_class: u32) -> u32 {
    let place = outflow.binary_search_by_key(&driver_class, |flow| flow.0);
    place.map_or(0, |place| outflow[place].1)
}

fn take(outflow: &mut Outflow, driver_class: u32, amount: u32) {
    if let Ok(place) = outflow.binary_search_by_key(&driver_class, |flow| flow.0) {
        outflow[place].1 -= amount;
        if outflow[place].1 == 0 {
            outflow.remove(place);
        }
    }
}

/// `all |= one & other`.
fn add_common(all: &mut FixedBitSet, one: &FixedBitSet, other: &FixedBitSet) {
    let common = one.as_slice().iter().zip(other.as_slice());
    for (all, (one, other)) in all.as_mut_slice().iter_mut().zip(common) {
        *all |= one & other;
    }
}

/// The first bit that is in both.
fn first_common(one: &FixedBitSet, other: &FixedBitSet) -> Option<usize> {
    let common = one.as_slice().iter().zip(other.as_slice());
    let mut common = common.map(|(one, other)| one & other).enumerate();
    let (place, word) = common.find(|&(_, word)| word != 0)?;
    Some(place * usize::BITS as usize + word.trailing_zeros() as usize)
}

/// Lots and classes are numbered in 32 bits.
pub(super) fn index(number: usize) -> u32 {
    u32::try_from(number).expect("a manifest has fewer than 2^32 drivers and packages")
}
