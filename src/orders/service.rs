//! The handle around the line: one lock, short await-free sections, and one-shot channels to held requests.
//!
//! Nothing is sent under the lock. A lease whose receiver has left comes back from the channel and returns to the line.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{Level, debug, enabled, warn};

use super::config::Config;
use super::error::{CancelError, FenceError, FinishError, PlaceError};
use super::hold::{Departures, Held, IdleBarista, LeaseGuard};
use super::idempotency::{IdempotencyKey, Keyed};
use super::line::{
    Attachment, Cancelled, Figures, Finished, Idle, Left, Line, Offer, Permit, Placed, Pulled,
    Returned,
};
use super::metrics::Metrics;
use super::model::{Lease, Now, Order, OrderId, Outcome, Previous, View};
use crate::values::id::unique;

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

pub type Orders = Desk<Mutex<LockedLine>>;

/// A handle to the order desk; cheap to clone.
pub struct Desk<X> {
    shop: Arc<Shop<X>>,
}

struct Shop<X> {
    line: X,
    metrics: Metrics,
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

/// A request for an order.
#[derive(Debug, Default)]
pub struct Wanted {
    pub customer: Option<Box<str>>,
    /// None if flood control does not count it.
    pub origin: Option<IpNet>,
    pub request_id: Option<Box<str>>,
    pub keyed: Option<Keyed>,
    /// Dropped when the order is final.
    pub permit: Option<Permit>,
}

/// The immediate result of placing an order.
#[derive(Debug)]
pub enum Placement<D: Departures> {
    Held(Held<D>),
    /// In line without a held request.
    Promised(OrderId),
    /// The key's order is final.
    Replayed(Outcome),
}

/// The result of a finish.
#[derive(Debug, Clone)]
pub struct Report {
    pub order: Arc<Order>,
    pub already: bool,
}

impl<X: LineLock> Desk<X> {
    pub fn new(rules: Config, metrics: Metrics) -> Self {
        Self {
            shop: Arc::new(Shop {
                line: X::new(Line::new(rules)),
                metrics,
            }),
        }
    }

    /// False once a step of the line has panicked.
    pub fn is_sound(&self) -> bool {
        !self.shop.line.is_poisoned()
    }

    /// Places an order, or joins the one of the same key. `hold`: the request waits for it.
    ///
    /// # Errors
    /// See [`PlaceError`].
    pub fn place(&self, wanted: Wanted, hold: bool) -> Result<Placement<Self>, PlaceError> {
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
            ..Order::new(OrderId(unique(now.wall)), wanted.customer, now)
        };
        let (keyed, mut permit) = (wanted.keyed, wanted.permit);
        let placed = self.step(|line| {
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
                    self.send(offer);
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
                Placement::Held(Held::new(self.clone(), attachment, receiver))
            }
            _ => Placement::Promised(id),
        })
    }

    /// See [`Line::is_pending`].
    pub fn is_pending(&self, key: &IdempotencyKey) -> bool {
        self.step(|line| line.is_pending(key))
    }

    /// Cancels this origin's waiting orders that were placed after `since`; their requests end as [`Outcome::Blocked`].
    /// Returns how many orders were cancelled.
    pub fn purge(&self, origin: IpNet, since: Instant, blocked_for: Duration) -> usize {
        let now = now();
        let (receivers, count) = self.step(|line| line.purge(now, origin, since.into_std()));
        self.shop.metrics.cancelled_blocked.increment(count as u64);
        send_all(receivers, &Outcome::Blocked(blocked_for));
        count
    }

    /// As [`Desk::view`], for its customer: renews a promise.
    pub fn ask(&self, id: OrderId) -> Option<View> {
        let now = now();
        self.step(|line| line.ask(now, id))
    }

    pub fn view(&self, id: OrderId) -> Option<View> {
        let now = now();
        self.step(|line| line.view(now, id))
    }

    /// As [`Desk::ask`], once the order is final, or after `wait`, whichever comes first.
    pub async fn ask_within(&self, id: OrderId, wait: Duration) -> Option<View> {
        let (sender, receiver) = oneshot::channel();
        if let Some(attachment) = self.step(|line| line.watch(id, sender)) {
            let watch = Held::new(self.clone(), attachment, receiver);
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
        } = self.step(|line| line.cancel(now, id))?;
        if !already {
            self.shop.metrics.cancelled_deleted.increment(1);
            debug!(order_id = %id, "an order was cancelled");
        }
        send_all(receivers, &Outcome::Cancelled(Arc::clone(&order)));
        Ok(order)
    }

    /// The oldest order, if one waits.
    pub fn pull(&self, barista: Option<Box<str>>) -> Option<LeaseGuard<Self>> {
        let now = now();
        match self.step(|line| line.pull(now, barista, None)) {
            Pulled::Order(lease) => Some(self.guard(lease)),
            Pulled::Idle(_) | Pulled::Nothing => None,
        }
    }

    /// The oldest order, as soon as one waits, or none after `wait`.
    #[cfg(test)]
    pub async fn pull_within(
        &self,
        barista: Option<Box<str>>,
        wait: Duration,
    ) -> Option<LeaseGuard<Self>> {
        match self.pull_or_wait(barista) {
            Ok(guard) => guard,
            Err(idle) => idle.within(wait).await,
        }
    }

    /// The oldest order, or a future for the next one.
    ///
    /// # Errors
    /// [`IdleBarista`] if no order waits.
    pub fn pull_or_wait(
        &self,
        barista: Option<Box<str>>,
    ) -> Result<Option<LeaseGuard<Self>>, IdleBarista<Self>> {
        let now = now();
        let (sender, receiver) = oneshot::channel();
        match self.step(|line| line.pull(now, barista, Some(sender))) {
            Pulled::Order(lease) => Ok(Some(self.guard(lease))),
            Pulled::Idle(idle) => Err(IdleBarista::new(self.clone(), idle, receiver)),
            Pulled::Nothing => Ok(None),
        }
    }

    fn guard(&self, lease: Lease) -> LeaseGuard<Self> {
        self.shop.metrics.started.increment(1);
        LeaseGuard::new(self.clone(), lease)
    }

    /// Makes the order ready; its held requests are answered.
    ///
    /// # Errors
    /// See [`FinishError`].
    pub fn finish(&self, id: OrderId, attempt: Option<u32>) -> Result<Report, FinishError> {
        let now = now();
        let Finished {
            order,
            already,
            receivers,
        } = self.step(|line| line.finish(now, id, attempt))?;
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
        let lease = self.step(|line| line.extend(now, id, attempt))?;
        let (attempt, customer_request_id) = (lease.attempt, lease.request_id.as_deref());
        debug!(order_id = %id, attempt, customer_request_id, "a barista extended a lease");
        Ok(lease)
    }

    /// # Errors
    /// See [`FenceError`].
    pub fn release(&self, id: OrderId, attempt: Option<u32>) -> Result<(), FenceError> {
        let now = now();
        let returned = self.step(|line| line.release(now, id, attempt))?;
        let customer_request_id = self.request_id(id);
        debug!(order_id = %id, customer_request_id, "a barista gave an order back");
        self.record_return(id, returned, &self.shop.metrics.requeued_released);
        Ok(())
    }

    /// Expires leases and graces and evicts final orders. Never returns.
    pub async fn run_timers(&self) {
        loop {
            let tick = Instant::now() + TICK;
            let next = self.step(|line| line.next_deadline());
            let until = next.map_or(tick, |next| Instant::from_std(next).min(tick));
            tokio::time::sleep_until(until).await;
            self.elapse(now());
        }
    }

    /// See [`Line::elapse`].
    pub fn elapse(&self, now: Now) {
        let elapsed = self.step(|line| line.elapse(now));
        let metrics = &self.shop.metrics;
        metrics
            .cancelled_abandoned
            .increment(elapsed.abandoned as u64);
        metrics.cancelled_unasked.increment(elapsed.unasked as u64);
        for expired in elapsed.expired {
            metrics.expired.increment(1);
            let barista = expired.barista.as_deref().unwrap_or("unnamed");
            let (order_id, attempt) = (expired.id, expired.attempt);
            let customer_request_id = expired.request_id.as_deref();
            let requeued = if expired.moved_back {
                warn!(%order_id, attempt, barista, customer_request_id, "an order's lease expired too often: it goes to the end of the line");
                &metrics.requeued_moved_back
            } else {
                debug!(%order_id, attempt, barista, customer_request_id, "an order's lease expired: it returns to its place");
                &metrics.requeued_expired
            };
            self.record_return(order_id, expired.returned, requeued);
        }
    }

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
            Returned::Cancelled => self.cancelled_unwanted(id),
        }
    }

    fn cancelled_unwanted(&self, id: OrderId) {
        self.shop.metrics.cancelled_unwanted.increment(1);
        debug!(order_id = %id, "an order is cancelled instead of returning to the line: its customer has left");
    }

    /// Closes the line: every held request ends as [`Outcome::Closing`], idle baristas get none. Returns how many requests
    /// were held.
    pub fn close(&self) -> usize {
        let (receivers, baristas) = self.step(Line::close);
        let held = receivers.len();
        send_all(receivers, &Outcome::Closing);
        drop(baristas);
        held
    }

    /// The figures of this moment.
    pub fn figures(&self) -> Figures {
        let now = Instant::now().into_std();
        self.step(|line| line.figures(now))
    }

    pub fn update_gauges(&self) {
        self.shop.metrics.update(&self.figures());
    }

    /// The id of the request that placed the order; only at log level debug.
    fn request_id(&self, id: OrderId) -> Option<Box<str>> {
        if !enabled!(Level::DEBUG) {
            return None;
        }
        self.view(id)?.order.request_id
    }

    /// Sends a lease to its barista; if they have left, the order returns to the line, or goes to the next idle one.
    fn send(&self, offer: Offer<oneshot::Sender<Lease>>) {
        let Offer {
            mut barista,
            mut lease,
        } = offer;
        loop {
            let Err(unsent) = barista.send(lease) else {
                self.shop.metrics.started.increment(1);
                return;
            };
            let (now, id) = (now(), unsent.id);
            let back =
                |line: &mut LockedLine| line.give_back(now, id, unsent.attempt, unsent.previous);
            match self.step(back) {
                Some(Returned::Offered(next)) => Offer { barista, lease } = next,
                Some(Returned::Cancelled) => return self.cancelled_unwanted(id),
                Some(Returned::ToLine) | None => return,
            }
        }
    }

    fn step<R>(&self, step: impl FnOnce(&mut LockedLine) -> R) -> R {
        // The permits are dropped without the lock: flood control takes locks of its own.
        let (result, _released) = self
            .shop
            .line
            .with(|line| (step(line), line.take_released()));
        result
    }
}

impl<X: LineLock> Departures for Desk<X> {
    fn leave(&self, attachment: Attachment) {
        let now = now();
        let left = self.step(|line| line.leave(now, attachment));
        if let Some(left) = left {
            self.shop.metrics.left(left);
            debug!(order_id = %attachment.order(), cancelled = left == Left::Cancelled, "a customer has left");
        }
    }

    fn promise(&self, attachment: Attachment) -> bool {
        let now = now();
        self.step(|line| line.promise(now, attachment))
    }

    fn quit(&self, idle: Idle) -> bool {
        self.step(|line| line.quit(idle))
    }

    fn give_back(&self, id: OrderId, attempt: u32, previous: Option<Box<Previous>>) {
        let customer_request_id = self.request_id(id);
        debug!(order_id = %id, attempt, customer_request_id, "a lease did not reach its barista");
        let now = now();
        if let Some(returned) = self.step(|line| line.give_back(now, id, attempt, previous)) {
            self.record_return(id, returned, &self.shop.metrics.requeued_undelivered);
        }
    }
}

fn now() -> Now {
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
