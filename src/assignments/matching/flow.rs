//! The network: lots on one side, crews on the other, and what flows from lots to crews. Maximum flow by blocking flows along
//! shortest paths (Dinic, 1970; on such a network with one unit each it is Hopcroft and Karp's, 1973).
//!
//! A lot is a number of packages that the same crews take; a crew is a number of drivers who take the same lots. Edges are
//! not stored: a lot has a bit for each crew that takes it, so a search looks at 64 of them at once, and only what flows
//! takes memory.

use std::sync::Arc;

use fixedbitset::FixedBitSet;
use smallvec::SmallVec;

use super::cancellation::{Cancellation, Cancelled};

/// Far away: not reached.
const NEVER: u32 = u32::MAX;

/// What flows from one lot: crews ascending, amounts above 0. Most lots of a small day go to one crew or two.
type Outflow = SmallVec<[(u32, u32); 2]>;

/// The network, and the flow in it.
#[derive(Debug, Clone)]
pub(super) struct Flow {
    /// By lot: the crews that take it.
    takers: Arc<[FixedBitSet]>,
    /// By lot: packages that have no crew yet.
    pub(super) supply: Vec<u32>,
    /// By crew: packages it can still take.
    pub(super) room: Vec<u32>,
    /// By lot.
    outflows: Vec<Outflow>,
    /// By crew: lots of which something flows here. Some have stopped; they are forgotten when they are looked at.
    sources: Vec<Vec<u32>>,
    /// Crews out of which no search finds a way any more; none is looked at again.
    closed: FixedBitSet,
    cancellation: Cancellation,
}

/// What a search from lots with supply reaches.
pub(super) struct Reached {
    /// Lots, in the order in which they were reached.
    pub(super) lots: Vec<u32>,
    /// Crews.
    pub(super) crews: FixedBitSet,
}

/// One search's view: how far away everything is from the lots with supply.
struct Layers {
    lots: Vec<u32>,
    /// By distance: the crews there that may still lead on.
    crews: Vec<FixedBitSet>,
    /// By crew: the next of its sources to look at.
    next_source: Vec<usize>,
    reached: Reached,
    /// There are crews with room in the last layer, and only those.
    found: bool,
}

/// A step of a path under way: from this lot to this crew.
#[derive(Clone, Copy)]
struct Step {
    lot: u32,
    crew: u32,
}

impl Flow {
    /// Nothing flows yet. `takers` are each lot's crews. Searches end with [`Cancelled`] once `cancellation` says so; what
    /// flows then is of no use.
    pub(super) fn new(
        takers: Arc<[FixedBitSet]>,
        supply: Vec<u32>,
        room: Vec<u32>,
        cancellation: Cancellation,
    ) -> Self {
        let crews = room.len();
        Self {
            takers,
            outflows: vec![Outflow::new(); supply.len()],
            supply,
            room,
            sources: vec![Vec::new(); crews],
            closed: FixedBitSet::with_capacity(crews),
            cancellation,
        }
    }

    /// As if these crews were not there. Nothing must flow to them.
    pub(super) fn close(&mut self, crews: &FixedBitSet) {
        self.closed.union_with(crews);
    }

    /// Looks at everything again: for when there is more room, or more that takes.
    pub(super) fn reopen(&mut self) {
        self.closed.clear();
    }

    /// Lets a crew take these lots, too.
    pub(super) fn let_take(&mut self, crew: usize, lots: &[u32]) {
        let mut takers = self.takers.to_vec();
        for &lot in lots {
            takers[lot as usize].insert(crew);
        }
        self.takers = takers.into();
    }

    /// What flows from a lot, by crew.
    pub(super) fn outflow(&self, lot: usize) -> &[(u32, u32)] {
        &self.outflows[lot]
    }

    /// Lets flow as much as can. How much was added.
    pub(super) fn saturate(&mut self, lots: &[u32]) -> Result<u64, Cancelled> {
        let mut added = self.saturate_directly(lots)?;
        // Nothing is left: there is nothing to search for.
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

    /// Lets flow what finds a crew with room at once, which is most: the first layer's work, without a search.
    fn saturate_directly(&mut self, lots: &[u32]) -> Result<u64, Cancelled> {
        let mut open = self.closed.clone();
        open.toggle_range(..);
        for (crew, &room) in self.room.iter().enumerate() {
            if room == 0 {
                open.remove(crew);
            }
        }
        let mut added = 0;
        for &lot in lots {
            self.cancellation.check()?;
            while self.supply[lot as usize] > 0 {
                let Some(crew) = first_common(&open, &self.takers[lot as usize]) else {
                    break;
                };
                let step = Step {
                    lot,
                    crew: index(crew),
                };
                added += u64::from(self.send(&[step]));
                if self.room[crew] == 0 {
                    open.remove(crew);
                }
            }
        }
        Ok(added)
    }

    /// As [`Flow::saturate`]; what is left over then has no way, and never will have: whatever it could reach is full, and
    /// filled by what can go nowhere else. That part of the network is closed, which saves searching it again. Right only as
    /// long as room does not grow.
    pub(super) fn saturate_and_close(&mut self, lots: &[u32]) -> Result<u64, Cancelled> {
        let added = self.saturate(lots)?;
        if lots.iter().any(|&lot| self.supply[lot as usize] > 0) {
            let reached = self.reach(lots)?;
            self.close(&reached.crews);
        }
        Ok(added)
    }

    /// What lots with supply lead to, directly or by taking from a crew what another lot sent there. If the flow is a maximum,
    /// this is the minimum cut's side of the sources (Ford and Fulkerson, 1956): every crew in it is full.
    pub(super) fn reach(&mut self, lots: &[u32]) -> Result<Reached, Cancelled> {
        Ok(self.search(lots)?.reached)
    }

    /// Layers from the lots with supply outwards, up to the first crews with room.
    fn search(&mut self, lots: &[u32]) -> Result<Layers, Cancelled> {
        let crews = self.room.len();
        let with_supply = lots.iter().filter(|&&lot| self.supply[lot as usize] > 0);
        let mut layers = Layers {
            lots: vec![NEVER; self.supply.len()],
            crews: Vec::new(),
            next_source: vec![0; crews],
            reached: Reached {
                lots: with_supply.copied().collect(),
                crews: FixedBitSet::with_capacity(crews),
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
            let mut here = FixedBitSet::with_capacity(crews);
            for &lot in &layers.reached.lots[frontier.clone()] {
                add_common(&mut here, &self.takers[lot as usize], &unseen);
            }
            unseen.difference_with(&here);
            layers.reached.crews.union_with(&here);
            distance += 1;
            frontier.start = frontier.end;
            layers.found = here.ones().any(|crew| self.room[crew] > 0);
            if layers.found {
                let full: Vec<usize> = here.ones().filter(|&crew| self.room[crew] == 0).collect();
                for crew in full {
                    here.remove(crew);
                }
            } else {
                for crew in here.ones() {
                    self.look_behind(crew, distance, &mut layers);
                }
            }
            frontier.end = layers.reached.lots.len();
            layers.crews.push(here);
        }
        Ok(layers)
    }

    /// Reaches the lots that a crew would have to let go of.
    fn look_behind(&mut self, crew: usize, distance: u32, layers: &mut Layers) {
        let outflows = &self.outflows;
        let sources = &mut self.sources[crew];
        sources.retain(|&lot| amount(&outflows[lot as usize], index(crew)) > 0);
        for &lot in &*sources {
            let seen = &mut layers.lots[lot as usize];
            if *seen == NEVER {
                *seen = distance;
                layers.reached.lots.push(lot);
            }
        }
    }

    /// Sends something from a lot along one path of the layers. Nothing if there is none: then what led nowhere is out of the
    /// layers.
    fn augment(&mut self, from: u32, layers: &mut Layers) -> u32 {
        let mut path: Vec<Step> = Vec::new();
        let mut lot = from;
        loop {
            // From this lot to a crew one further.
            let depth = path.len();
            let next = layers.crews.get(depth);
            let next = next.and_then(|crews| first_common(crews, &self.takers[lot as usize]));
            let Some(crew) = next else {
                // The lot leads nowhere, and neither does the crew's flow from it.
                let Some(step) = path.pop() else { return 0 };
                layers.next_source[step.crew as usize] += 1;
                lot = step.lot;
                match self.source(step, path.len(), layers) {
                    Some(source) => {
                        path.push(step);
                        lot = source;
                    }
                    None => layers.crews[path.len()].remove(step.crew as usize),
                }
                continue;
            };
            let step = Step {
                lot,
                crew: index(crew),
            };
            if self.room[crew] > 0 {
                path.push(step);
                return self.send(&path);
            }
            // The crew is full: it would have to let go of what comes from another lot.
            match self.source(step, depth, layers) {
                Some(source) => {
                    path.push(step);
                    lot = source;
                }
                None => layers.crews[depth].remove(crew),
            }
        }
    }

    /// A lot of which something flows to the step's crew, and from which the layers lead on.
    fn source(&self, step: Step, depth: usize, layers: &mut Layers) -> Option<u32> {
        let crew = step.crew as usize;
        let wanted = index(depth) + 1;
        let sources = &self.sources[crew];
        let next = &mut layers.next_source[crew];
        while let Some(&lot) = sources.get(*next) {
            if layers.lots[lot as usize] == wanted
                && amount(&self.outflows[lot as usize], step.crew) > 0
            {
                return Some(lot);
            }
            *next += 1;
        }
        None
    }

    /// Sends as much along the path as it bears, which is something.
    fn send(&mut self, path: &[Step]) -> u32 {
        let (first, last) = (path[0], path[path.len() - 1]);
        let mut most = self.supply[first.lot as usize].min(self.room[last.crew as usize]);
        for pair in path.windows(2) {
            let flows = amount(&self.outflows[pair[1].lot as usize], pair[0].crew);
            most = most.min(flows);
        }
        self.supply[first.lot as usize] -= most;
        self.room[last.crew as usize] -= most;
        for (place, step) in path.iter().enumerate() {
            self.add(step.lot, step.crew, most);
            if let Some(next) = path.get(place + 1) {
                take(&mut self.outflows[next.lot as usize], step.crew, most);
            }
        }
        most
    }

    fn add(&mut self, lot: u32, crew: u32, amount: u32) {
        let outflow = &mut self.outflows[lot as usize];
        match outflow.binary_search_by_key(&crew, |flow| flow.0) {
            Ok(place) => outflow[place].1 += amount,
            Err(place) => {
                outflow.insert(place, (crew, amount));
                self.sources[crew as usize].push(lot);
            }
        }
    }
}

fn amount(outflow: &Outflow, crew: u32) -> u32 {
    let place = outflow.binary_search_by_key(&crew, |flow| flow.0);
    place.map_or(0, |place| outflow[place].1)
}

fn take(outflow: &mut Outflow, crew: u32, amount: u32) {
    if let Ok(place) = outflow.binary_search_by_key(&crew, |flow| flow.0) {
        outflow[place].1 -= amount;
        if outflow[place].1 == 0 {
            outflow.remove(place);
        }
    }
}

/// What is in both `one` and `other` comes into `all`.
fn add_common(all: &mut FixedBitSet, one: &FixedBitSet, other: &FixedBitSet) {
    let common = one.as_slice().iter().zip(other.as_slice());
    for (all, (one, other)) in all.as_mut_slice().iter_mut().zip(common) {
        *all |= one & other;
    }
}

/// The first that is in both.
fn first_common(one: &FixedBitSet, other: &FixedBitSet) -> Option<usize> {
    let common = one.as_slice().iter().zip(other.as_slice());
    let mut common = common.map(|(one, other)| one & other).enumerate();
    let (place, word) = common.find(|&(_, word)| word != 0)?;
    Some(place * usize::BITS as usize + word.trailing_zeros() as usize)
}

/// Lots and crews are numbered in 32 bits.
pub(super) fn index(number: usize) -> u32 {
    u32::try_from(number).expect("a manifest has fewer than 2^32 drivers and packages")
}
