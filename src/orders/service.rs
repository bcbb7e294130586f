//! The handle around the line: one lock, short sections without an await, and channels to whoever is held.
//!
//! Nothing is sent while the lock is held. What a channel does not deliver, because its receiver has left meanwhile,
//! comes back here and returns to the line.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{Level, debug, enabled, warn};

use super::error::{CancelError, FenceError, FinishError, PlaceError};
use super::hold::{Held, IdleBarista, LeaseGuard};
use super::line::{
    Attachment, Cancelled, Figures, Finished, Idle, Left, Line, Offer, Permit, Placed, Pulled,
    Returned, Rules,
};
use super::metrics::Metrics;
use super::model::{IdempotencyKey, Keyed, Lease, Now, Order, OrderId, Outcome, Previous, View};
use crate::values::id::unique;

/// How often the clock is looked at when no lease or grace ends earlier. No lease or grace may be shorter (the
/// configuration holds that), so a keeper that sleeps this long at most is never late for a new one.
pub const TICK: Duration = Duration::from_secs(1);

/// The line as the service keeps it: held requests and idle baristas are reached through one-shot channels.
pub type LockedLine = Line<oneshot::Sender<Outcome>, oneshot::Sender<Lease>>;

/// The one lock around the line. The standard mutex in the server; a model checker's in its tests.
pub trait LineLock: Send + Sync + 'static {
    /// A lock around this line.
    fn new(line: LockedLine) -> Self;
    /// Runs one step with the line to itself.
    fn with<R>(&self, step: impl FnOnce(&mut LockedLine) -> R) -> R;
    /// Whether a step panicked, after which there is no further one.
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
            .expect("a panic inside a step would have left the line half changed: nothing may go on from there");
        step(&mut line)
    }

    fn is_poisoned(&self) -> bool {
        self.is_poisoned()
    }
}

/// The order desk's handle as the server uses it.
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

/// An order as somebody wants to place it.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Whom the coffee is for.
    pub customer: Option<Box<str>>,
    /// Where it comes from; nothing if nobody counts.
    pub origin: Option<IpNet>,
    /// The request's id, for the log.
    pub request_id: Option<Box<str>>,
    /// Its idempotency key.
    pub keyed: Option<Keyed>,
    /// Kept with a new order until it is final, or has left the line.
    pub permit: Option<Permit>,
}

/// What a customer gets at once.
#[derive(Debug)]
pub enum Placement<X: LineLock> {
    /// A place in line, and the request held for it.
    Held(Held<X>),
    /// A place in line that nobody holds on to.
    Promised(OrderId),
    /// The answer the same request had before.
    Replayed(Outcome),
}

/// What a barista gets who reports a coffee.
#[derive(Debug, Clone)]
pub struct Report {
    /// The order as it ended.
    pub order: Arc<Order>,
    /// It had been reported before.
    pub already: bool,
}

impl<X: LineLock> Desk<X> {
    /// An empty line.
    pub fn new(rules: Rules, metrics: Metrics) -> Self {
        Self {
            shop: Arc::new(Shop {
                line: X::new(Line::new(rules)),
                metrics,
            }),
        }
    }

    /// Whether it can serve: no step of the line has panicked.
    pub fn is_sound(&self) -> bool {
        !self.shop.line.is_poisoned()
    }

    /// Places an order, or joins the one of the same key. `hold`: the request waits for it.
    ///
    /// # Errors
    /// See [`PlaceError`].
    pub fn place(&self, wanted: Wanted, hold: bool) -> Result<Placement<X>, PlaceError> {
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

    /// Whether an order of this key is pending: to place it again is to join it.
    pub fn is_pending(&self, key: &IdempotencyKey) -> bool {
        self.step(|line| line.is_pending(key))
    }

    /// Takes every order out of the line that this origin placed after `since`, and that nobody has started; requests held
    /// for them are told that their address is cut off for so long. Returns how many orders it were.
    pub fn purge(&self, origin: IpNet, since: Instant, blocked_for: Duration) -> usize {
        let now = now();
        let (receivers, count) = self.step(|line| line.purge(now, origin, since.into_std()));
        self.shop.metrics.cancelled_blocked.increment(count as u64);
        tell(receivers, &Outcome::Blocked(blocked_for));
        count
    }

    /// As [`Desk::view`], for its customer: a promised order stays in line for as long as it is asked about.
    pub fn ask(&self, id: OrderId) -> Option<View> {
        let now = now();
        self.step(|line| line.ask(now, id))
    }

    /// The order as it stands; nothing if it is unknown.
    pub fn view(&self, id: OrderId) -> Option<View> {
        let now = now();
        self.step(|line| line.view(now, id))
    }

    /// As [`Desk::ask`], once the order is final, or after `wait`, whichever comes first.
    pub async fn ask_within(&self, id: OrderId, wait: Duration) -> Option<View> {
        let (sender, receiver) = oneshot::channel();
        if let Some(attachment) = self.step(|line| line.watch(id, sender)) {
            let watch = Held::new(self.clone(), attachment, receiver);
            // However it ends, the order as it stands then is the answer.
            let _ = tokio::time::timeout(wait, watch).await;
        }
        self.ask(id)
    }

    /// Takes an order out of the line; requests held for it are told.
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
        tell(receivers, &Outcome::Cancelled(Arc::clone(&order)));
        Ok(order)
    }

    /// The oldest order, if somebody waits.
    pub fn pull(&self, barista: Option<Box<str>>) -> Option<LeaseGuard<X>> {
        let now = now();
        match self.step(|line| line.pull(now, barista, None)) {
            Pulled::Order(lease) => Some(self.guard(lease)),
            Pulled::Idle(_) | Pulled::Nothing => None,
        }
    }

    /// The oldest order, as soon as somebody waits, or nothing after `wait`.
    pub async fn pull_within(
        &self,
        barista: Option<Box<str>>,
        wait: Duration,
    ) -> Option<LeaseGuard<X>> {
        if wait.is_zero() {
            return self.pull(barista);
        }
        match self.pull_or_wait(barista) {
            Ok(guard) => guard,
            Err(mut idle) => match tokio::time::timeout(wait, &mut idle).await {
                Ok(guard) => guard,
                Err(_) => idle.stop(),
            },
        }
    }

    /// The oldest order, or a place among the idle baristas.
    ///
    /// # Errors
    /// The place among the idle, to be awaited or dropped, if nobody waits.
    pub fn pull_or_wait(
        &self,
        barista: Option<Box<str>>,
    ) -> Result<Option<LeaseGuard<X>>, IdleBarista<X>> {
        let now = now();
        let (sender, receiver) = oneshot::channel();
        match self.step(|line| line.pull(now, barista, Some(sender))) {
            Pulled::Order(lease) => Ok(Some(self.guard(lease))),
            Pulled::Idle(idle) => Err(IdleBarista::new(self.clone(), idle, receiver)),
            Pulled::Nothing => Ok(None),
        }
    }

    fn guard(&self, lease: Lease) -> LeaseGuard<X> {
        self.shop.metrics.started.increment(1);
        LeaseGuard::new(self.clone(), lease)
    }

    /// The coffee is ready; everybody held for it is told.
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
        tell(receivers, &Outcome::Ready(Arc::clone(&order)));
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
        debug!(order_id = %id, attempt, customer_request_id, "a barista keeps an order for another lease");
        Ok(lease)
    }

    /// Gives the order back to its original place at once.
    ///
    /// # Errors
    /// See [`FenceError`].
    pub fn release(&self, id: OrderId, attempt: Option<u32>) -> Result<(), FenceError> {
        let now = now();
        let returned = self.step(|line| line.release(now, id, attempt))?;
        let customer_request_id = self.request_id(id);
        debug!(order_id = %id, customer_request_id, "a barista gave an order back");
        self.settle(id, returned, &self.shop.metrics.requeued_released);
        Ok(())
    }

    /// Lets leases and graces run out, and forgets, for as long as it is polled.
    pub async fn run_timers(&self) {
        loop {
            let tick = Instant::now() + TICK;
            let next = self.step(|line| line.next_deadline());
            let until = next.map_or(tick, |next| Instant::from_std(next).min(tick));
            tokio::time::sleep_until(until).await;
            self.elapse(now());
        }
    }

    /// Everything whose time has come by `now`.
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
                warn!(%order_id, attempt, barista, customer_request_id, "an order's lease ran out too often: it goes behind the line");
                &metrics.requeued_moved_back
            } else {
                debug!(%order_id, attempt, barista, customer_request_id, "an order's lease ran out: it returns to its place");
                &metrics.requeued_expired
            };
            self.settle(order_id, expired.returned, requeued);
        }
    }

    /// Counts where an order went that its barista no longer has, and sends it on.
    fn settle(
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
        debug!(order_id = %id, "an order would return to the line, but its customer has left: it is cancelled");
    }

    /// Closing time: every held request is told so, idle baristas go home, and nothing more is placed.
    /// Returns how many requests were held.
    pub fn close(&self) -> usize {
        let (receivers, baristas) = self.step(Line::close);
        let held = receivers.len();
        tell(receivers, &Outcome::Closing);
        drop(baristas);
        held
    }

    /// The figures of this moment.
    pub fn figures(&self) -> Figures {
        let now = Instant::now().into_std();
        self.step(|line| line.figures(now))
    }

    /// Sets the gauges to this moment's figures.
    pub fn update_gauges(&self) {
        self.shop.metrics.update(&self.figures());
    }

    pub(super) fn leave(&self, attachment: Attachment) {
        let now = now();
        let left = self.step(|line| line.leave(now, attachment));
        if let Some(left) = left {
            self.shop.metrics.left(left);
            debug!(order_id = %attachment.order(), cancelled = left == Left::Cancelled, "a customer has left");
        }
    }

    pub(super) fn promise(&self, attachment: Attachment) -> bool {
        let now = now();
        self.step(|line| line.promise(now, attachment))
    }

    pub(super) fn quit(&self, idle: Idle) -> bool {
        self.step(|line| line.quit(idle))
    }

    /// A hand-over that did not reach its barista never happened.
    pub(super) fn give_back(&self, id: OrderId, attempt: u32, previous: Option<Box<Previous>>) {
        let customer_request_id = self.request_id(id);
        debug!(order_id = %id, attempt, customer_request_id, "a hand-over did not reach its barista");
        let now = now();
        if let Some(returned) = self.step(|line| line.give_back(now, id, attempt, previous)) {
            self.settle(id, returned, &self.shop.metrics.requeued_undelivered);
        }
    }

    /// Who placed the order, where the log has a use for it.
    fn request_id(&self, id: OrderId) -> Option<Box<str>> {
        if !enabled!(Level::DEBUG) {
            return None;
        }
        self.view(id)?.order.request_id
    }

    /// Sends an order to the barista it was given to; if they have left, to the next one, until it is somewhere safe.
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
        self.shop.line.with(step)
    }
}

fn now() -> Now {
    Now {
        instant: Instant::now().into_std(),
        // Whole milliseconds are what is shown; more digits would only be noise on the wire.
        wall: Timestamp::from_millisecond(Timestamp::now().as_millisecond())
            .unwrap_or(Timestamp::UNIX_EPOCH),
    }
}

/// Tells everybody. A receiver that has left has been taken care of by its own leaving.
fn tell(receivers: impl IntoIterator<Item = oneshot::Sender<Outcome>>, outcome: &Outcome) {
    for receiver in receivers {
        let _ = receiver.send(outcome.clone());
    }
}

#[cfg(test)]
mod model_checked;
#[cfg(test)]
mod tests;
