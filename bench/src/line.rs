//! What one order costs the line itself, from placed to finished, with a short line and with a very long one.
//!
//! Everything else of a request (the connection, the channels, the clock, the id) is left out: this is the state machine
//! alone, under its default bounds. Each time the newest order joins behind all others and the oldest is served, so the
//! length stays the same.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use jiff::Timestamp;
use odyssey::config::Config;
use odyssey::orders;
use odyssey::orders::line::{Line, Pulled};
use odyssey::orders::model::{Now, Order, OrderId};

use crate::engine::{Sample, Side, sample};

/// Finished orders that the line remembers: the default, reached before anything is measured, so that each order also
/// evicts one.
const REMEMBERED_MAX: u32 = 100_000;
/// Orders of a sample.
const ORDERS: u32 = 200_000;

pub(crate) struct Shop {
    line: Line<u32, u32>,
    now: Now,
    ids: u128,
}

impl Shop {
    pub(crate) fn with_waiting(waiting: u32) -> Result<Self> {
        let rules = orders::Config {
            remembered_max: REMEMBERED_MAX as usize,
            waiting_max: waiting as usize + 1,
            ..Config::load(None)?.orders
        };
        let now = Now {
            instant: Instant::now(),
            wall: Timestamp::now(),
        };
        let mut shop = Self {
            line: Line::new(rules),
            now,
            ids: 0,
        };
        for _ in 0..waiting {
            shop.place()?;
        }
        for _ in 0..REMEMBERED_MAX + waiting {
            shop.serve()?;
        }
        Ok(shop)
    }

    /// Ascending ids, as those of version 7 are: the time in the high bits, noise in the low ones.
    fn place(&mut self) -> Result<()> {
        self.ids += 1;
        let noise = self.ids.wrapping_mul(0x9e37_79b9_7f4a_7c15) & 0xffff_ffff;
        let id = OrderId(uuid::Uuid::from_u128(self.ids << 64 | noise));
        let order = Order::new(id, None, self.now);
        if black_box(self.line.place(self.now, order, None, Some(0))).is_err() {
            bail!("an order was not accepted");
        }
        Ok(())
    }

    fn serve(&mut self) -> Result<()> {
        self.now.instant += Duration::from_micros(10);
        self.place()?;
        let Pulled::Order(lease) = self.line.pull(self.now, None, None) else {
            bail!("no order waits");
        };
        if black_box(self.line.finish(self.now, lease.id, Some(1), None)).is_err() {
            bail!("an order was not finished");
        }
        Ok(())
    }
}

impl Side for Shop {
    fn processes(&self) -> Option<Vec<u32>> {
        Some(Vec::new())
    }

    fn sample(&mut self) -> Result<Sample> {
        let begin = Instant::now();
        for _ in 0..ORDERS {
            self.serve()?;
        }
        let nanoseconds = begin.elapsed().as_secs_f64() * 1e9;
        Ok(sample([("per-order", nanoseconds / f64::from(ORDERS))]))
    }
}
