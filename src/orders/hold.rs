//! Three cancel-safe guards: a request held for an order, a barista held for work, and a lease whose answer is not sent
//! yet.
//!
//! hyper drops the future of a request whose client disconnects, so every rule about leaving is in a `Drop` here:
//! - [`Held`] dropped: the customer left; the line decides whether the order is cancelled.
//! - [`IdleBarista`] dropped: they get no order; a lease already sent goes back to its own place.
//! - [`LeaseGuard`] dropped unconfirmed: the answer never reached the connection; the order goes back to its own place.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::line::{Attachment, Idle};
use super::model::{Lease, OrderId, Outcome};
use crate::values::soon::Soon;

/// How long a shared line may take to say whether it has sent a lease to a barista who stops waiting.
const ASKED: Duration = Duration::from_secs(2);

/// A line, as far as the guards need it.
pub trait Departures: Send + Sync {
    fn leave(&self, attachment: Attachment);
    /// False if the order is final already.
    fn promise(&self, attachment: Attachment) -> Soon<bool>;
    fn quit(&self, idle: Idle) -> Quit;
    /// The lease's answer was taken.
    fn confirm(&self, lease: &Lease);
    /// The lease did not reach its barista.
    fn give_back(&self, lease: &mut Lease);
}

/// What became of a barista who no longer waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quit {
    Gone,
    /// A lease was sent to them.
    Sent,
    /// The line has been asked: the lease comes, or its sender is dropped.
    Asked,
}

/// The line of a guard.
#[derive(Clone)]
pub(super) struct At(Arc<dyn Departures>);

impl fmt::Debug for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("At").finish_non_exhaustive()
    }
}

impl<D: Departures + 'static> From<Arc<D>> for At {
    fn from(line: Arc<D>) -> Self {
        Self(line)
    }
}

/// A request held until its order is final. Resolves to the outcome.
#[derive(Debug)]
pub struct Held {
    at: At,
    attachment: Attachment,
    outcome: oneshot::Receiver<Outcome>,
    disarmed: bool,
}

impl Held {
    pub(super) fn new(at: At, attachment: Attachment, outcome: oneshot::Receiver<Outcome>) -> Self {
        Self {
            at,
            attachment,
            outcome,
            disarmed: false,
        }
    }

    pub fn order(&self) -> OrderId {
        self.attachment.order()
    }

    /// The request is attached to another order than the one that was made for it.
    pub(super) fn joined(&mut self, id: OrderId) {
        self.attachment = Attachment::shared(id, self.attachment.shared_number());
    }

    /// The request was never attached.
    pub(super) fn disarm(mut self) {
        self.disarmed = true;
    }

    /// Detaches the request (202); the order stays in line. Itself, if the order is final already: the outcome is ready.
    pub fn promise(self) -> Soon<Result<(), Self>> {
        self.at.0.promise(self.attachment).map(move |promised| {
            if promised {
                self.disarm();
                return Ok(());
            }
            Err(self)
        })
    }
}

impl Future for Held {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        Pin::new(&mut self.outcome).poll(cx).map(|outcome| {
            self.disarmed = true;
            outcome.unwrap_or(Outcome::Closing)
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.disarmed {
            self.at.0.leave(self.attachment);
        }
    }
}

/// A barista held until there is an order. Resolves to its lease, or to none when the line closes.
#[derive(Debug)]
pub struct IdleBarista {
    at: At,
    idle: Idle,
    work: oneshot::Receiver<Lease>,
    disarmed: bool,
}

impl IdleBarista {
    pub(super) fn new(at: At, idle: Idle, work: oneshot::Receiver<Lease>) -> Self {
        Self {
            at,
            idle,
            work,
            disarmed: false,
        }
    }

    /// The lease, or none after `wait`.
    pub async fn within(mut self, wait: Duration) -> Option<LeaseGuard> {
        match timeout(wait, &mut self).await {
            Ok(guard) => guard,
            Err(_) => self.stop().await,
        }
    }

    /// Stops waiting. A lease that was sent at that moment is returned.
    pub async fn stop(mut self) -> Option<LeaseGuard> {
        match self.at.0.quit(self.idle) {
            Quit::Gone => {
                self.disarmed = true;
                None
            }
            Quit::Sent => {
                self.disarmed = true;
                let lease = self.sent();
                lease.map(|lease| LeaseGuard::new(self.at.clone(), lease))
            }
            // Dropped after that, it gives back a lease that comes later.
            Quit::Asked => timeout(ASKED, &mut self).await.unwrap_or(None),
        }
    }

    fn sent(&mut self) -> Option<Lease> {
        // Close first: from here on the sender fails, and a lease sent before can still be received.
        self.work.close();
        self.work.try_recv().ok()
    }
}

impl Future for IdleBarista {
    type Output = Option<LeaseGuard>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.work).poll(cx).map(|lease| {
            self.disarmed = true;
            let lease = lease.ok()?;
            Some(LeaseGuard::new(self.at.clone(), lease))
        })
    }
}

impl Drop for IdleBarista {
    fn drop(&mut self) {
        if self.disarmed || self.at.0.quit(self.idle) == Quit::Gone {
            return;
        }
        // A lease that comes later meets a closed channel, and its sender gives it back.
        if let Some(mut lease) = self.sent() {
            self.at.0.give_back(&mut lease);
        }
    }
}

/// A lease whose answer the barista's connection has not taken.
#[derive(Debug)]
pub struct LeaseGuard {
    at: At,
    lease: Lease,
    confirmed: bool,
}

impl LeaseGuard {
    pub(super) fn new(at: At, lease: Lease) -> Self {
        Self {
            at,
            lease,
            confirmed: false,
        }
    }

    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// The connection has taken the answer: from here on the lease's deadline counts.
    pub fn confirm(mut self) {
        self.confirmed = true;
        self.at.0.confirm(&self.lease);
    }
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        if !self.confirmed {
            self.at.0.give_back(&mut self.lease);
        }
    }
}
