//! The order line's metrics. Handles are registered once; counting is an atomic addition.

use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use tracing::field::display;
use tracing::{debug, warn};

use super::line::{Figures, Left};
use super::model::OrderId;
use crate::values::window::{Counts, SLOTS, Spread};

/// The desk's metric handles.
#[derive(Clone)]
pub struct Metrics {
    pub(super) placed: Counted,
    pub(super) attached: Counter,
    pub(super) handed_over: Counter,
    abandoned_requests: Counter,
    pub(super) replayed: Counter,
    pub(super) started: Counted,
    pub(super) finished_delivered: Counter,
    pub(super) finished_undelivered: Counter,
    pub(super) cancelled_deleted: Counter,
    pub(super) cancelled_left: Counter,
    cancelled_unwanted: Counter,
    pub(super) cancelled_abandoned: Counter,
    pub(super) cancelled_unasked: Counter,
    pub(super) cancelled_blocked: Counter,
    expired: Counter,
    requeued_expired: Counter,
    requeued_moved_back: Counter,
    pub(super) requeued_released: Counter,
    pub(super) requeued_undelivered: Counter,
    pub(super) wait: Histogram,
    pub(super) brew: Histogram,
    waiting: Gauge,
    brewing: Gauge,
    ready: Gauge,
    cancelled: Gauge,
    held: Gauge,
    idle_baristas: Gauge,
    oldest_waiting: Gauge,
    recent: Arc<Recent>,
}

/// A counter that also counts in the last ten minutes.
#[derive(Clone)]
pub(super) struct Counted {
    counter: Counter,
    recent: Arc<Recent>,
    counts: fn(&Recent) -> &Counts,
}

impl Counted {
    pub(super) fn increment(&self, count: u64) {
        self.counter.increment(count);
        self.recent.count(self.counts, count);
    }
}

/// This server's last ten minutes.
struct Recent {
    begun: Instant,
    placed: Counts,
    started: Counts,
    finished: Counts,
    wait: Spread,
    brew: Spread,
}

impl Recent {
    fn count(&self, of: fn(&Self) -> &Counts, count: u64) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        of(self).add(self.begun.elapsed(), count);
    }
}

/// What this server did in the last ten minutes.
#[derive(Debug, Clone)]
pub struct Rates {
    /// Orders that joined the line, in slots of 10 s; the last is that of this moment.
    pub placed: [u32; SLOTS],
    /// Leases granted.
    pub started: [u32; SLOTS],
    /// Orders finished.
    pub finished: [u32; SLOTS],
    /// The times in line that 50, 90 and 99 % of the finished orders do not exceed; None if none was finished.
    pub wait: Option<[Duration; 3]>,
    /// The same of the brewing times.
    pub brew: Option<[Duration; 3]>,
}

/// Name of the histogram of times in line, seconds.
pub const WAIT_SECONDS: &str = "odyssey_orders_wait_seconds";
/// Name of the histogram of brewing times, seconds.
pub const BREW_SECONDS: &str = "odyssey_orders_brew_seconds";
/// Upper bounds of both histograms' buckets, in seconds: a brew takes 30-60 s, a line of 200 some 15 minutes.
pub const BUCKETS_SECONDS: [f64; 14] = [
    0.01, 0.1, 1.0, 5.0, 15.0, 30.0, 45.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0,
];

impl Metrics {
    /// Registers everything with the recorder that is current (see [`crate::telemetry`]).
    pub fn register() -> Self {
        describe();
        let finished = |delivered: &'static str| counter!("odyssey_orders_finished_total", "delivered" => delivered);
        let cancelled =
            |reason: &'static str| counter!("odyssey_orders_cancelled_total", "reason" => reason);
        let requeued =
            |reason: &'static str| counter!("odyssey_orders_requeued_total", "reason" => reason);
        let orders = |stage: &'static str| gauge!("odyssey_orders", "stage" => stage);
        let recent = Arc::new(Recent {
            begun: Instant::now(),
            placed: Counts::default(),
            started: Counts::default(),
            finished: Counts::default(),
            wait: Spread::default(),
            brew: Spread::default(),
        });
        let counted = |counter, counts| Counted {
            counter,
            recent: Arc::clone(&recent),
            counts,
        };
        Self {
            placed: counted(counter!("odyssey_orders_placed_total"), |recent| {
                &recent.placed
            }),
            attached: counter!("odyssey_orders_attached_total"),
            handed_over: counter!("odyssey_orders_handed_over_total"),
            replayed: counter!("odyssey_orders_replayed_total"),
            started: counted(counter!("odyssey_orders_started_total"), |recent| {
                &recent.started
            }),
            finished_delivered: finished("true"),
            finished_undelivered: finished("false"),
            cancelled_deleted: cancelled("deleted"),
            abandoned_requests: counter!("odyssey_orders_abandoned_requests_total"),
            cancelled_left: cancelled("left"),
            cancelled_unwanted: cancelled("unwanted"),
            cancelled_abandoned: cancelled("abandoned"),
            cancelled_unasked: cancelled("unasked"),
            cancelled_blocked: cancelled("cut_off"),
            expired: counter!("odyssey_orders_expired_total"),
            requeued_expired: requeued("expired"),
            requeued_moved_back: requeued("moved_back"),
            requeued_released: requeued("released"),
            requeued_undelivered: requeued("undelivered"),
            wait: histogram!(WAIT_SECONDS),
            brew: histogram!(BREW_SECONDS),
            waiting: orders("waiting"),
            brewing: orders("brewing"),
            ready: orders("ready"),
            cancelled: orders("cancelled"),
            held: gauge!("odyssey_orders_held_requests"),
            idle_baristas: gauge!("odyssey_orders_idle_baristas"),
            oldest_waiting: gauge!("odyssey_orders_oldest_waiting_seconds"),
            recent,
        }
    }

    pub(super) fn left(&self, left: Left) {
        self.abandoned_requests.increment(1);
        if left == Left::Cancelled {
            self.cancelled_left.increment(1);
        }
    }

    /// Counts and logs a lease that expired. The counter of its order's return.
    pub(super) fn expired(&self, expired: &ExpiredLease<'_>) -> &Counter {
        self.expired.increment(1);
        let ExpiredLease {
            id,
            attempt,
            barista,
            request_id: customer_request_id,
            moved_back,
        } = *expired;
        let (order_id, barista) = (id, barista.unwrap_or("unnamed"));
        if moved_back {
            warn!(%order_id, attempt, barista, customer_request_id, "an order's lease expired too often: it goes to the end of the line");
            &self.requeued_moved_back
        } else {
            debug!(%order_id, attempt, barista, customer_request_id, "an order's lease expired: it returns to its place");
            &self.requeued_expired
        }
    }

    /// `id`: if it is known.
    pub(super) fn cancelled_unwanted(&self, id: Option<OrderId>) {
        self.cancelled_unwanted.increment(1);
        let order_id = id.map(display);
        debug!(
            order_id,
            "an order is cancelled instead of returning to the line: its customer has left"
        );
    }

    pub(super) fn finished(&self, delivered: bool, waited: Duration, brewed: Duration) {
        if delivered {
            self.finished_delivered.increment(1);
        } else {
            self.finished_undelivered.increment(1);
        }
        self.wait.record(waited);
        self.brew.record(brewed);
        let (recent, now) = (&self.recent, self.recent.begun.elapsed());
        recent.finished.add(now, 1);
        recent.wait.add(now, waited);
        recent.brew.add(now, brewed);
    }

    pub(super) fn rates(&self) -> Rates {
        const PERCENTS: [u32; 3] = [50, 90, 99];
        let (recent, now) = (&self.recent, self.recent.begun.elapsed());
        Rates {
            placed: recent.placed.series(now),
            started: recent.started.series(now),
            finished: recent.finished.series(now),
            wait: recent.wait.percentiles(now, PERCENTS),
            brew: recent.brew.percentiles(now, PERCENTS),
        }
    }

    pub(super) fn update(&self, figures: &Figures) {
        self.waiting.set(as_gauge(figures.waiting));
        self.brewing.set(as_gauge(figures.brewing));
        self.ready.set(as_gauge(figures.ready));
        self.cancelled.set(as_gauge(figures.cancelled));
        self.held.set(as_gauge(figures.held));
        self.idle_baristas.set(as_gauge(figures.idle_baristas));
        self.oldest_waiting.set(figures.oldest_waiting);
    }
}

fn describe() {
    describe_counter!("odyssey_orders_placed_total", "Orders that joined the line");
    describe_counter!(
        "odyssey_orders_attached_total",
        "Requests that joined a pending order by its idempotency key, or came again through the proxy after their server was lost"
    );
    describe_counter!(
        "odyssey_orders_handed_over_total",
        "Held requests that were handed over to another server at the end of this one"
    );
    describe_counter!(
        "odyssey_orders_replayed_total",
        "Requests answered again from a final order by its idempotency key"
    );
    describe_counter!("odyssey_orders_started_total", "Leases granted to baristas");
    describe_counter!(
        "odyssey_orders_finished_total",
        "Orders finished, by whether a request was attached"
    );
    describe_counter!(
        "odyssey_orders_cancelled_total",
        "Orders that ended without being finished, by reason: left (their customer left), unwanted (their customer left during brewing, found when they would have returned to the line), abandoned (a keyed customer did not reconnect), unasked (promised and not polled), deleted, cut_off (their address was blocked)"
    );
    describe_counter!(
        "odyssey_orders_abandoned_requests_total",
        "Held requests whose customer left before the answer"
    );
    describe_counter!("odyssey_orders_expired_total", "Leases that expired");
    describe_counter!(
        "odyssey_orders_requeued_total",
        "Orders that returned to the line, by reason"
    );
    describe_histogram!(WAIT_SECONDS, "Time in line of finished orders");
    describe_histogram!(BREW_SECONDS, "Time from the last start to the finish");
    describe_gauge!(
        "odyssey_orders",
        "Orders by stage; ready and cancelled ones while they are in memory"
    );
    describe_gauge!("odyssey_orders_held_requests", "Requests held for an order");
    describe_gauge!(
        "odyssey_orders_idle_baristas",
        "Baristas waiting for an order"
    );
    describe_gauge!(
        "odyssey_orders_oldest_waiting_seconds",
        "Age of the first in line"
    );
}

/// A lease that expired.
pub(super) struct ExpiredLease<'a> {
    pub(super) id: OrderId,
    pub(super) attempt: u32,
    pub(super) barista: Option<&'a str>,
    pub(super) request_id: Option<&'a str>,
    /// To the end of the line.
    pub(super) moved_back: bool,
}

#[expect(clippy::cast_precision_loss, reason = "no count here comes near 2^52")]
fn as_gauge(count: usize) -> f64 {
    count as f64
}
