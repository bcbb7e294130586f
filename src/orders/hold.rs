//! Three cancel-safe guards: a request held for an order, a barista held for work, and a lease whose answer is not sent
//! yet.
//!
//! hyper drops the future of a request whose client disconnects, so every rule about leaving is in a `Drop` here:
//! - [`Held`] dropped: the customer left; the line decides whether the order is cancelled.
//! - [`IdleBarista`] dropped: they get no order; a lease already sent goes back to its own place.
//! - [`LeaseGuard`] dropped unconfirmed: the answer never reached the connection; the order goes back to its own place.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot;

use super::line::{Attachment, Idle};
use super::model::{Lease, OrderId, Outcome, Previous};

/// The line, as far as the guards need it; the methods are those of [`super::line::Line`]. Cheap to clone.
pub trait Departures: Clone + Unpin {
    fn leave(&self, attachment: Attachment);
    fn promise(&self, attachment: Attachment) -> bool;
    fn quit(&self, idle: Idle) -> bool;
    fn give_back(&self, id: OrderId, attempt: u32, previous: Option<Box<Previous>>);
}

/// A request held until its order is final. Resolves to the outcome.
#[derive(Debug)]
pub struct Held<D: Departures> {
    desk: D,
    attachment: Attachment,
    outcome: oneshot::Receiver<Outcome>,
    disarmed: bool,
}

impl<D: Departures> Held<D> {
    pub(super) fn new(
        desk: D,
        attachment: Attachment,
        outcome: oneshot::Receiver<Outcome>,
    ) -> Self {
        Self {
            desk,
            attachment,
            outcome,
            disarmed: false,
        }
    }

    pub fn order(&self) -> OrderId {
        self.attachment.order()
    }

    /// Detaches the request (202); the order stays in line.
    ///
    /// # Errors
    /// Itself, if the order is final already: the outcome is ready.
    pub fn promise(mut self) -> Result<(), Self> {
        if self.desk.promise(self.attachment) {
            self.disarmed = true;
            return Ok(());
        }
        Err(self)
    }
}

impl<D: Departures> Future for Held<D> {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        Pin::new(&mut self.outcome).poll(cx).map(|outcome| {
            self.disarmed = true;
            outcome.unwrap_or(Outcome::Closing)
        })
    }
}

impl<D: Departures> Drop for Held<D> {
    fn drop(&mut self) {
        if !self.disarmed {
            self.desk.leave(self.attachment);
        }
    }
}

/// A barista held until there is an order. Resolves to its lease, or to none when the line closes.
#[derive(Debug)]
pub struct IdleBarista<D: Departures> {
    desk: D,
    idle: Idle,
    work: oneshot::Receiver<Lease>,
    disarmed: bool,
}

impl<D: Departures> IdleBarista<D> {
    pub(super) fn new(desk: D, idle: Idle, work: oneshot::Receiver<Lease>) -> Self {
        Self {
            desk,
            idle,
            work,
            disarmed: false,
        }
    }

    /// The lease, or none after `wait`.
    pub async fn within(mut self, wait: Duration) -> Option<LeaseGuard<D>> {
        match tokio::time::timeout(wait, &mut self).await {
            Ok(guard) => guard,
            Err(_) => self.stop(),
        }
    }

    /// Stops waiting. A lease that was sent at that moment is returned.
    pub fn stop(mut self) -> Option<LeaseGuard<D>> {
        let lease = self.withdraw();
        lease.map(|lease| LeaseGuard::new(self.desk.clone(), lease))
    }

    fn withdraw(&mut self) -> Option<Lease> {
        self.disarmed = true;
        if self.desk.quit(self.idle) {
            return None;
        }
        // Close first: from here on the sender fails, and a lease sent before can still be received.
        self.work.close();
        self.work.try_recv().ok()
    }
}

impl<D: Departures> Future for IdleBarista<D> {
    type Output = Option<LeaseGuard<D>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.work).poll(cx).map(|lease| {
            self.disarmed = true;
            let lease = lease.ok()?;
            Some(LeaseGuard::new(self.desk.clone(), lease))
        })
    }
}

impl<D: Departures> Drop for IdleBarista<D> {
    fn drop(&mut self) {
        if self.disarmed {
            return;
        }
        if let Some(lease) = self.withdraw() {
            self.desk.give_back(lease.id, lease.attempt, lease.previous);
        }
    }
}

/// A lease whose answer the barista's connection has not taken.
#[derive(Debug)]
pub struct LeaseGuard<D: Departures> {
    desk: D,
    lease: Lease,
    confirmed: bool,
}

impl<D: Departures> LeaseGuard<D> {
    pub(super) fn new(desk: D, lease: Lease) -> Self {
        Self {
            desk,
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
    }
}

impl<D: Departures> Drop for LeaseGuard<D> {
    fn drop(&mut self) {
        if !self.confirmed {
            let previous = self.lease.previous.take();
            self.desk
                .give_back(self.lease.id, self.lease.attempt, previous);
        }
    }
}
