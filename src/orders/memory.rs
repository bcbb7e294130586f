//! The line in this process's memory: one lock, short await-free sections, and one-shot channels to held requests.
//!
//! Nothing is sent under the lock. A lease whose receiver has left comes back from the channel and returns to the line.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{Level, debug, enabled};

use super::changes::Changes;
use super::config::Config;
use super::error::{CancelError, FenceError, FinishError, PlaceError};
use super::hold::{At, Departures, Held, IdleBarista, LeaseGuard, Quit};
use super::idempotency::IdempotencyKey;
use super::line::{
    Attachment, Cancelled, Figures, Finished, Idle, Left, Line, Offer, Placed, Pulled, Returned,
};
use super::metrics::{ExpiredLease, Metrics, Rates};
use super::model::{Closed, Lease, Now, Order, OrderId, Outcome, Survey, View};
use super::requests::{Placement, Report, Taken, Wanted};
use crate::values::id::unique;
use crate::values::json::Opaque;
use crate::values::soon::Soon;

/// The longest sleep of [`Desk::run_timers`]. The configuration allows no shorter lease or grace, so it is never late for a
/// new one.
pub const TICK: Duration = Duration::from_secs(1);

/// The line behind the lock: held requests and idle baristas are reached through one-shot channels.
pub type LockedLine = Line<oneshot::Sender<Outcome>, oneshot::Sender<Lease>>;

/// The standard mutex in the server, a model checker's in its tests.
pub trait LineLock: Send + Sync + 'static {
    fn new(line: LockedLine) -> Self;
    fn with<R>(&self, step: impl FnOnce(&mut LockedLine) -> R) -> R;
    fn is_poisoned(&self) -> bool {
        false
    }
}

impl LineLock for Mutex<LockedLine> {
    fn new(line: LockedLine) -> Self {
        Self::new(line)
    }

    fn with<R>(&self, step: impl FnOnce(&mut LockedLine) -> R) -> R {
        let mut line = self
            .lock()
            .expect("a step that panicked leaves the line in an unknown state");
        step(&mut line)
    }

    fn is_poisoned(&self) -> bool {
        self.is_poisoned()
    }
}

pub type Memory = Desk<Mutex<LockedLine>>;

/// A handle to the order desk; cheap to clone.
pub struct Desk<X> {
    shop: Arc<Shop<X>>,
}

struct Shop<X> {
    line: X,
    metrics: Metrics,
    changes: Changes,
}

impl<X> Clone for Desk<X> {
    fn clone(&self) -> Self {
        Self {
            shop: Arc::clone(&self.shop),
        }
    }
}

impl<X> fmt::Debug for Desk<X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

impl<X: LineLock> Desk<X> {
    pub fn new(rules: Config, metrics: Metrics) -> Self {
        Self {
            shop: Arc::new(Shop {
                line: X::new(Line::new(rules)),
                metrics,
                changes: Changes::default(),
            }),
        }
    }

    pub fn changes(&self) -> &Changes {
        &self.shop.changes
    }

    /// False once a step of the line has panicked.
    pub fn is_sound(&self) -> bool {
        !self.shop.line.is_poisoned()
    }

    /// Places an order, or joins the one of the same key. `hold`: the request waits for it.
    ///
    /// # Errors
    /// See [`PlaceError`].
    pub fn place(&self, wanted: Wanted, hold: bool) -> Result<Placement, PlaceError> {
        let (sender, receiver) = if hold {
            let (sender, receiver) = oneshot::channel();
            (Some(sender), Some(receiver))
        } else {
            (None, None)
        };
        let now = now();
        let order = Order {
            origin: wanted.origin,
            request_id: wanted.request_id,
            details: wanted.details,
            ..Order::new(OrderId(unique(now.wall)), wanted.customer, now)
        };
        let (keyed, mut permit) = (wanted.keyed, wanted.permit);
        let placed = self.shop.step(|line| -> Result<_, PlaceError> {
            let placed = line.place(now, order, keyed, sender)?;
            if let Placed::New { id, .. } = placed
                && let Some(new) = permit.take()
            {
                permit = line.store_permit(id, new);
            }
            Ok(placed)
        })?;
        let metrics = &self.shop.metrics;
        let (id, attachment) = match placed {
            Placed::New {
                id,
                attachment,
                offer,
            } => {
                metrics.placed.increment(1);
                debug!(order_id = %id, "an order joined the line");
                if let Some(offer) = offer {
                    self.shop.send(offer);
                }
                (id, attachment)
            }
            Placed::Joined { id, attachment } => {
                metrics.attached.increment(1);
                debug!(order_id = %id, "a request joined its pending order");
                (id, attachment)
            }
            Placed::Replayed(outcome, _) => {
                metrics.replayed.increment(1);
                return Ok(Placement::Replayed(outcome));
            }
        };
        Ok(match (attachment, receiver) {
            (Some(attachment), Some(receiver)) => {
                Placement::Held(Held::new(self.at(), attachment, receiver))
            }
            _ => Placement::Promised(id),
        })
    }

    /// See [`Line::is_pending`].
    pub fn is_pending(&self, key: &IdempotencyKey) -> bool {
        self.shop.step(|line| line.is_pending(key))
    }

    /// Cancels this origin's waiting orders that were placed after `since`; their requests end as [`Outcome::Blocked`].
    /// Returns how many orders were cancelled.
    pub fn purge(&self, origin: IpNet, since: Instant, blocked_for: Duration) -> usize {
        let now = now();
        let (receivers, count) = self
            .shop
            .step(|line| line.purge(now, origin, since.into_std()));
        self.shop.metrics.cancelled_blocked.increment(count as u64);
        send_all(receivers, &Outcome::Blocked(blocked_for));
        count
    }

    /// As [`Desk::view`], for its customer: renews a promise.
    pub fn ask(&self, id: OrderId) -> Option<View> {
        let now = now();
        self.shop.step(|line| line.ask(now, id))
    }

    pub fn view(&self, id: OrderId) -> Option<View> {
        let now = now();
        self.shop.step(|line| line.view(now, id))
    }

    /// As [`Desk::ask`], once the order is final, or after `wait`, whichever comes first.
    pub async fn ask_within(&self, id: OrderId, wait: Duration) -> Option<View> {
        let (sender, receiver) = oneshot::channel();
        if let Some(attachment) = self.shop.step(|line| line.watch(id, sender)) {
            let watch = Held::new(self.at(), attachment, receiver);
            // Final or timed out: the order as it is then is the answer.
            let _ = tokio::time::timeout(wait, watch).await;
        }
        self.ask(id)
    }

    /// Cancels an order; its held requests are answered.
    ///
    /// # Errors
    /// See [`CancelError`].
    pub fn cancel(&self, id: OrderId) -> Result<Arc<Order>, CancelError> {
        let now = now();
        let Cancelled {
            order,
            already,
            receivers,
        } = self.shop.step(|line| line.cancel(now, id))?;
        if !already {
            self.shop.metrics.cancelled_deleted.increment(1);
            debug!(order_id = %id, "an order was cancelled");
        }
        send_all(receivers, &Outcome::Cancelled(Arc::clone(&order)));
        Ok(order)
    }

    /// The oldest order. If none waits and the barista does, a future for the next one.
    pub fn pull(&self, barista: Option<Box<str>>, waits: bool) -> Taken {
        let now = now();
        if !waits {
            return match self.shop.step(|line| line.pull(now, barista, None)) {
                Pulled::Order(lease) => Taken::Lease(self.guard(lease)),
                Pulled::Idle(_) | Pulled::Nothing => Taken::Nothing,
            };
        }
        let (sender, receiver) = oneshot::channel();
        match self.shop.step(|line| line.pull(now, barista, Some(sender))) {
            Pulled::Order(lease) => Taken::Lease(self.guard(lease)),
            Pulled::Idle(idle) => Taken::Idle(IdleBarista::new(self.at(), idle, receiver)),
            Pulled::Nothing => Taken::Nothing,
        }
    }

    fn at(&self) -> At {
        Arc::clone(&self.shop).into()
    }

    fn guard(&self, lease: Lease) -> LeaseGuard {
        self.shop.metrics.started.increment(1);
        LeaseGuard::new(self.at(), lease)
    }

    /// Makes the order ready; its held requests are answered.
    ///
    /// # Errors
    /// See [`FinishError`].
    pub fn finish(
        &self,
        id: OrderId,
        attempt: Option<u32>,
        result: Option<Opaque>,
    ) -> Result<Report, FinishError> {
        let now = now();
        let Finished {
            order,
            already,
            receivers,
        } = self
            .shop
            .step(|line| line.finish(now, id, attempt, result))?;
        if !already {
            let (waited, brewed) = (order.waited(now), order.brewed(now));
            self.shop.metrics.finished(order.delivered, waited, brewed);
            let customer_request_id = order.request_id.as_deref();
            debug!(order_id = %id, customer_request_id, delivered = order.delivered, "an order is ready");
        }
        send_all(receivers, &Outcome::Ready(Arc::clone(&order)));
        Ok(Report { order, already })
    }

    /// Renews the lease from now.
    ///
    /// # Errors
    /// See [`FenceError`].
    pub fn extend(&self, id: OrderId, attempt: Option<u32>) -> Result<Lease, FenceError> {
        let now = now();
        let lease = self.shop.step(|line| line.extend(now, id, attempt))?;
        let (attempt, customer_request_id) = (lease.attempt, lease.request_id.as_deref());
        debug!(order_id = %id, attempt, customer_request_id, "a barista extended a lease");
        Ok(lease)
    }

    /// # Errors
    /// See [`FenceError`].
    pub fn release(&self, id: OrderId, attempt: Option<u32>) -> Result<(), FenceError> {
        let now = now();
        let returned = self.shop.step(|line| line.release(now, id, attempt))?;
        let customer_request_id = self.shop.request_id(id);
        debug!(order_id = %id, customer_request_id, "a barista gave an order back");
        self.shop
            .record_return(id, returned, &self.shop.metrics.requeued_released);
        Ok(())
    }

    /// Expires leases and graces and evicts final orders. Never returns.
    pub async fn run_timers(&self) {
        loop {
            let tick = Instant::now() + TICK;
            let next = self.shop.step(|line| line.next_deadline());
            let until = next.map_or(tick, |next| Instant::from_std(next).min(tick));
            tokio::time::sleep_until(until).await;
            self.elapse(now());
        }
    }

    /// See [`Line::elapse`].
    pub fn elapse(&self, now: Now) {
        let elapsed = self.shop.step(|line| line.elapse(now));
        let metrics = &self.shop.metrics;
        metrics
            .cancelled_abandoned
            .increment(elapsed.abandoned as u64);
        metrics.cancelled_unasked.increment(elapsed.unasked as u64);
        for expired in elapsed.expired {
            let requeued = metrics.expired(&ExpiredLease {
                id: expired.id,
                attempt: expired.attempt,
                barista: expired.barista.as_deref(),
                request_id: expired.request_id.as_deref(),
                moved_back: expired.moved_back,
            });
            self.shop
                .record_return(expired.id, expired.returned, requeued);
        }
    }

    /// Closes the line: every held request ends as [`Outcome::Closing`], idle baristas get none. Returns how many requests
    /// were held.
    pub fn close(&self) -> usize {
        let (receivers, baristas) = self.shop.step(Line::close);
        let held = receivers.len();
        send_all(receivers, &Outcome::Closing);
        drop(baristas);
        held
    }

    /// See [`Line::survey`].
    pub fn survey(&self) -> Survey {
        let now = now();
        self.shop.step(|line| line.survey(now))
    }

    /// See [`Line::shut`].
    pub fn shut(&self, closed: Option<Arc<Closed>>) {
        self.shop.step(|line| line.shut(closed));
        self.shop.changes.announce_any();
    }

    /// The figures of this moment.
    pub fn figures(&self) -> Figures {
        let now = Instant::now().into_std();
        self.shop.step(|line| line.figures(now))
    }

    /// What happened in the last ten minutes.
    pub fn rates(&self) -> Rates {
        self.shop.metrics.rates()
    }

    pub fn update_gauges(&self) {
        self.shop.metrics.update(&self.figures());
    }
}

impl<X: LineLock> Shop<X> {
    /// Counts the return of an order, and sends a new lease on.
    fn record_return(
        &self,
        id: OrderId,
        returned: Returned<oneshot::Sender<Lease>>,
        requeued: &metrics::Counter,
    ) {
        match returned {
            Returned::ToLine => requeued.increment(1),
            Returned::Offered(offer) => {
                requeued.increment(1);
                self.send(offer);
            }
            Returned::Cancelled => self.metrics.cancelled_unwanted(Some(id)),
        }
    }

    /// The id of the request that placed the order; only at log level debug.
    fn request_id(&self, id: OrderId) -> Option<Box<str>> {
        if !enabled!(Level::DEBUG) {
            return None;
        }
        let now = now();
        self.step(|line| line.view(now, id))?.order.request_id
    }

    /// Sends a lease to its barista; if they have left, the order returns to the line, or goes to the next idle one.
    fn send(&self, offer: Offer<oneshot::Sender<Lease>>) {
        let Offer {
            mut barista,
            mut lease,
        } = offer;
        loop {
            let Err(unsent) = barista.send(lease) else {
                self.metrics.started.increment(1);
                return;
            };
            let (now, id) = (now(), unsent.id);
            let back =
                |line: &mut LockedLine| line.give_back(now, id, unsent.attempt, unsent.previous);
            match self.step(back) {
                Some(Returned::Offered(next)) => Offer { barista, lease } = next,
                Some(Returned::Cancelled) => return self.metrics.cancelled_unwanted(Some(id)),
                Some(Returned::ToLine) | None => return,
            }
        }
    }

    fn step<R>(&self, step: impl FnOnce(&mut LockedLine) -> R) -> R {
        // The permits are dropped without the lock: flood control takes locks of its own.
        let (result, _released, changed) = self
            .line
            .with(|line| (step(line), line.take_released(), line.take_changed()));
        self.changes.announce(&changed);
        result
    }
}

impl<X: LineLock> Departures for Shop<X> {
    fn leave(&self, attachment: Attachment) {
        let now = now();
        let left = self.step(|line| line.leave(now, attachment));
        if let Some(left) = left {
            self.metrics.left(left);
            debug!(order_id = %attachment.order(), cancelled = left == Left::Cancelled, "a customer has left");
        }
    }

    fn promise(&self, attachment: Attachment) -> Soon<bool> {
        let now = now();
        Soon::Now(self.step(|line| line.promise(now, attachment)))
    }

    fn quit(&self, idle: Idle) -> Quit {
        if self.step(|line| line.quit(idle)) {
            Quit::Gone
        } else {
            Quit::Sent
        }
    }

    fn confirm(&self, _: &Lease) {}

    fn give_back(&self, lease: &mut Lease) {
        let (id, attempt, previous) = (lease.id, lease.attempt, lease.previous.take());
        let customer_request_id = self.request_id(id);
        debug!(order_id = %id, attempt, customer_request_id, "a lease did not reach its barista");
        let now = now();
        if let Some(returned) = self.step(|line| line.give_back(now, id, attempt, previous)) {
            self.record_return(id, returned, &self.metrics.requeued_undelivered);
        }
    }
}

pub(super) fn now() -> Now {
    Now {
        instant: Instant::now().into_std(),
        // Whole milliseconds, as shown on the wire.
        wall: Timestamp::from_millisecond(Timestamp::now().as_millisecond())
            .unwrap_or(Timestamp::UNIX_EPOCH),
    }
}

/// A receiver that has left was handled by its own `Drop`.
fn send_all(receivers: impl IntoIterator<Item = oneshot::Sender<Outcome>>, outcome: &Outcome) {
    for receiver in receivers {
        let _ = receiver.send(outcome.clone());
    }
}

#[cfg(test)]
mod model_checked;
#[cfg(test)]
mod tests;
