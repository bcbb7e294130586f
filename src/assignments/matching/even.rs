//! Balances the load: of all ways to carry the same packages, one in which the loads are as even as possible.
//!
//! Loads are as even as possible when for each level the drivers, each counted up to that level, carry as many packages as any flow
//! bounded by that level could. A flow bounded by a level in the middle splits the network by its minimum cut: on the one side are
//! lots that need more than that level, and all driver classes that take them; on the other side that level is enough. Nothing
//! flows between the two in any even plan, so each side is bisected by itself.

use std::sync::Arc;

use fixedbitset::FixedBitSet;

use super::cancellation::{Cancellation, Cancelled};
use super::flow::{Flow, index};

/// Lots and driver classes without edges to others.
struct Part {
    lots: Vec<u32>,
    driver_classes: FixedBitSet,
    /// Every driver can be filled up to this level.
    low: u32,
    /// Everything is carried if no driver has more than this.
    high: u32,
}

/// A flow that carries all of `supply`, which must be feasible, with loads that are as even as possible. `room` is the capacity
/// of a driver class whose drivers have at most a given level; with `most` it is sufficient.
pub(super) fn even(
    takers: &Arc<[FixedBitSet]>,
    supply: &[u32],
    driver_classes: usize,
    room: impl Fn(usize, u32) -> u32,
    most: u32,
    cancellation: &Cancellation,
) -> Result<Vec<Vec<(u32, u32)>>, Cancelled> {
    let rooms = |level| {
        (0..driver_classes)
            .map(|driver_class| room(driver_class, level))
            .collect::<Vec<u32>>()
    };
    let lots = (0..supply.len()).filter(|&lot| supply[lot] > 0).map(index);
    let mut flows = vec![Vec::new(); supply.len()];
    let mut all = FixedBitSet::with_capacity(driver_classes);
    all.toggle_range(..);
    let mut parts = vec![Part {
        lots: lots.collect(),
        driver_classes: all,
        low: 0,
        high: most,
    }];
    while let Some(part) = parts.pop() {
        let Part {
            lots,
            driver_classes,
            low,
            high,
        } = &part;
        let (low, high) = (*low, *high);
        let last = high - low <= 1;
        let level = if last { low } else { low + (high - low) / 2 };
        let mut flow = Flow::new(
            Arc::clone(takers),
            supply.to_vec(),
            rooms(level),
            cancellation.clone(),
        );
        let mut others = driver_classes.clone();
        others.toggle_range(..);
        flow.close(&others);
        flow.saturate(lots)?;
        if last {
            for driver_class in driver_classes.ones() {
                flow.room[driver_class] += room(driver_class, high) - room(driver_class, low);
            }
            flow.saturate(lots)?;
            for &lot in lots {
                flows[lot as usize] = flow.outflow(lot as usize).to_vec();
            }
            continue;
        }
        let above = flow.reach(lots)?;
        let mut crews_below = driver_classes.clone();
        crews_below.difference_with(&above.driver_classes);
        let mut needs_more = FixedBitSet::with_capacity(supply.len());
        needs_more.extend(above.lots.iter().map(|&lot| lot as usize));
        let (lots_above, lots_below): (Vec<u32>, Vec<u32>) =
            lots.iter().partition(|&&lot| needs_more[lot as usize]);
        if !lots_above.is_empty() {
            parts.push(Part {
                lots: lots_above,
                driver_classes: above.driver_classes,
                low: level,
                high,
            });
        }
        if !lots_below.is_empty() {
            parts.push(Part {
                lots: lots_below,
                driver_classes: crews_below,
                low,
                high: level,
            });
        }
    }
    Ok(flows)
}
