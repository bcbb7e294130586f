//! Reading the event log again, from its beginning: does it come to what is kept?

use std::fmt;

use super::dispatch::Board;
use super::model::{Courier, Join, OrderId, Whereabouts};
use super::store::Recorded;

/// What the log comes to, as far as it was read.
#[derive(Debug)]
pub struct Replay {
    board: Board,
    events: u64,
    /// Events whose outcome is another one than was kept; the first of them.
    differing: u64,
    first_differing: Option<u64>,
}

/// Whether the log and what is kept agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// Events in the log.
    pub events: u64,
    /// Couriers, as the log has it.
    pub couriers: usize,
    /// Orders, as the log has it.
    pub orders: usize,
    /// Of them, parked.
    pub parked: usize,
    /// What does not agree, in words; a few of many.
    pub differences: Vec<String>,
}

/// Differences that are told.
const TOLD_MAX: usize = 10;

impl Replay {
    /// An empty log.
    pub fn new(join: Join) -> Self {
        Self {
            board: Board::new(join),
            events: 0,
            differing: 0,
            first_differing: None,
        }
    }

    /// The next event of the log.
    pub fn read(&mut self, recorded: &Recorded) {
        let (outcome, _) = self.board.apply(&recorded.event);
        self.events += 1;
        if outcome != recorded.outcome {
            self.differing += 1;
            self.first_differing.get_or_insert(recorded.number);
        }
    }

    /// Compares what the log came to with what is kept.
    pub fn compare(
        &self,
        couriers: impl IntoIterator<Item = Courier>,
        orders: impl IntoIterator<Item = (OrderId, Whereabouts)>,
    ) -> Comparison {
        let mut differences = Vec::new();
        if let Some(first) = self.first_differing {
            let count = self.differing;
            differences.push(format!(
                "{count} events come to something else than was kept, event {first} first"
            ));
        }
        let mut seen = 0;
        for kept in couriers {
            seen += 1;
            let id = kept.said.id;
            match self.board.couriers().get(&id) {
                None => differences.push(format!("courier {id} is not in the log")),
                Some(replayed) if *replayed != kept => {
                    differences.push(format!("courier {id} is {kept:?}, by the log {replayed:?}"));
                }
                Some(_) => {}
            }
        }
        let known = self.board.couriers().len();
        if seen != known {
            differences.push(format!("{seen} couriers are kept, by the log {known}"));
        }
        let mut seen = 0;
        for (id, kept) in orders {
            seen += 1;
            match self.board.orders().get(&id) {
                None => differences.push(format!("order {id} is not in the log")),
                Some(&replayed) if replayed != kept => {
                    differences.push(format!("order {id} is {kept:?}, by the log {replayed:?}"));
                }
                Some(_) => {}
            }
        }
        let known = self.board.orders().len();
        if seen != known {
            differences.push(format!("{seen} orders are kept, by the log {known}"));
        }
        let parked = |place: &&Whereabouts| matches!(place, Whereabouts::Parked);
        differences.truncate(TOLD_MAX);
        Comparison {
            events: self.events,
            couriers: self.board.couriers().len(),
            orders: known,
            parked: self.board.orders().values().filter(parked).count(),
            differences,
        }
    }
}

impl Comparison {
    /// Whether nothing differs.
    pub fn agrees(&self) -> bool {
        self.differences.is_empty()
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            events,
            couriers,
            orders,
            parked,
            differences,
        } = self;
        write!(
            f,
            "{events} events: {couriers} couriers, {orders} orders, {parked} of them parked"
        )?;
        for difference in differences {
            write!(f, "\n{difference}")?;
        }
        if differences.is_empty() {
            f.write_str("\nThe log comes to what is kept.")?;
        }
        Ok(())
    }
}
