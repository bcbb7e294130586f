//! What one order costs the line itself, place + start + finish, with a short line and with a very long one.
//!
//! Everything else of a request (the connection, the channels, the clock, the id) is left out: this is the state machine
//! alone, under its default bounds. In each round the newest order joins behind all the others and the oldest is served,
//! so the length stays the same.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use jiff::Timestamp;
use odyssey::config::Config;
use odyssey::orders;
use odyssey::orders::line::{Line, Pulled};
use odyssey::orders::model::{Now, Order, OrderId};
use uuid::Uuid;

/// How many orders are remembered after they are finished: the default, reached before anything is measured, so that
/// each round also forgets one.
const REMEMBERED_MAX: usize = 100_000;

struct Shop {
    line: Line<u32, u32>,
    now: Now,
    ids: u128,
}

impl Shop {
    fn with_waiting(waiting: usize) -> Self {
        let defaults = Config::load(None).expect("the defaults are valid");
        let rules = orders::Config {
            remembered_max: REMEMBERED_MAX,
            waiting_max: waiting + 1,
            ..defaults.orders
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
            shop.place();
        }
        for _ in 0..REMEMBERED_MAX + waiting {
            shop.round();
        }
        shop
    }

    /// Rising, as version 7 ids are: the time in the high bits, noise in the low ones.
    fn next_id(&mut self) -> OrderId {
        self.ids += 1;
        let noise = self.ids.wrapping_mul(0x9e37_79b9_7f4a_7c15) & 0xffff_ffff;
        OrderId(Uuid::from_u128(self.ids << 64 | noise))
    }

    fn place(&mut self) {
        let order = Order::new(self.next_id(), None, self.now);
        black_box(self.line.place(self.now, order, None, Some(0))).expect("there is room");
    }

    fn round(&mut self) {
        self.now.instant += Duration::from_micros(10);
        self.place();
        let Pulled::Order(lease) = self.line.pull(self.now, None, None) else {
            unreachable!("somebody always waits")
        };
        black_box(self.line.finish(self.now, lease.id, Some(1))).expect("it was just started");
    }
}

fn place_start_finish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("place+start+finish");
    for waiting in [100, 10_000, 1_000_000] {
        let mut shop = Shop::with_waiting(waiting);
        group.bench_function(BenchmarkId::from_parameter(waiting), |bencher| {
            bencher.iter(|| shop.round());
        });
    }
    group.finish();
}

criterion_group!(benches, place_start_finish);
criterion_main!(benches);
