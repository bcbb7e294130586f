//! The order desk: a line in memory, or one that several servers share. Answers of the line in memory are there at once.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::Instant;

use super::changes::Changes;
use super::config::Config;
use super::error::{CancelError, FenceError, FinishError, PlaceError, Unavailable};
use super::idempotency::IdempotencyKey;
use super::line::Figures;
use super::memory::Memory;
use super::metrics::{Metrics, Rates};
use super::model::{Closed, Lease, Order, OrderId, Survey, View};
use super::requests::{Finishing, Placement, Pulling, Report, Taken, Wanted};
use super::shared::Shared;
use crate::values::soon::Soon;

/// A handle to the order desk; cheap to clone.
#[derive(Debug, Clone)]
pub enum Orders {
    Memory(Memory),
    Shared(Shared),
}

impl Orders {
    /// A line in memory.
    pub fn in_memory(rules: Config, metrics: Metrics) -> Self {
        Self::Memory(Memory::new(rules, metrics))
    }

    /// Whether other servers have the same line.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Shared(_))
    }

    /// False once the line cannot go on in this process.
    pub fn is_sound(&self) -> bool {
        match self {
            Self::Memory(line) => line.is_sound(),
            Self::Shared(line) => line.is_sound(),
        }
    }

    /// Places an order, or joins the one of the same key. `hold`: the request waits for it.
    pub fn place(&self, wanted: Wanted, hold: bool) -> Soon<Result<Placement, PlaceError>> {
        match self {
            Self::Memory(line) => Soon::Now(line.place(wanted, hold)),
            Self::Shared(line) => line.place(wanted, hold),
        }
    }

    /// Whether an order of this key is pending: a further request joins it. In a shared line only orders of this server are
    /// seen.
    pub fn is_pending(&self, key: &IdempotencyKey) -> bool {
        match self {
            Self::Memory(line) => line.is_pending(key),
            Self::Shared(line) => line.is_pending(key),
        }
    }

    /// Cancels this origin's waiting orders that were placed after `since`; their requests end as
    /// [`Outcome::Blocked`](super::model::Outcome).
    /// Returns how many orders were cancelled; a shared line counts them later.
    pub fn purge(&self, origin: IpNet, since: Instant, blocked_for: Duration) -> usize {
        match self {
            Self::Memory(line) => line.purge(origin, since, blocked_for),
            Self::Shared(line) => {
                line.purge(origin, since, blocked_for);
                0
            }
        }
    }

    /// Other servers of a shared line stop refusing the address.
    pub fn unblock(&self, origin: IpNet) {
        match self {
            Self::Memory(_) => {}
            Self::Shared(line) => line.unblock(origin),
        }
    }

    /// As [`Orders::view`], for its customer: renews a promise.
    pub fn ask(&self, id: OrderId) -> Soon<Result<Option<View>, Unavailable>> {
        match self {
            Self::Memory(line) => Soon::Now(Ok(line.ask(id))),
            Self::Shared(line) => line.view(id, true),
        }
    }

    pub fn view(&self, id: OrderId) -> Soon<Result<Option<View>, Unavailable>> {
        match self {
            Self::Memory(line) => Soon::Now(Ok(line.view(id))),
            Self::Shared(line) => line.view(id, false),
        }
    }

    /// As [`Orders::view`], of an order that was just promised: waits for a shared line as long as it takes.
    pub fn view_promised(&self, id: OrderId) -> Soon<Result<Option<View>, Unavailable>> {
        match self {
            Self::Memory(line) => Soon::Now(Ok(line.view(id))),
            Self::Shared(line) => line.view_promised(id),
        }
    }

    /// As [`Orders::ask`], once the order is final, or after `wait`, whichever comes first.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn ask_within(
        &self,
        id: OrderId,
        wait: Duration,
    ) -> Result<Option<View>, Unavailable> {
        match self {
            Self::Memory(line) => Ok(line.ask_within(id, wait).await),
            Self::Shared(line) => line.ask_within(id, wait).await,
        }
    }

    /// Cancels an order; its held requests are answered.
    pub fn cancel(&self, id: OrderId) -> Soon<Result<Arc<Order>, CancelError>> {
        match self {
            Self::Memory(line) => Soon::Now(line.cancel(id)),
            Self::Shared(line) => line.cancel(id),
        }
    }

    /// The oldest order. If none waits and the barista does, a future for the next one.
    pub fn pull(&self, pulling: Pulling) -> Soon<Result<Taken, Unavailable>> {
        match self {
            Self::Memory(line) => Soon::Now(Ok(line.pull(pulling.barista, pulling.waits))),
            Self::Shared(line) => line.pull(pulling),
        }
    }

    /// Makes the order ready; its held requests are answered.
    pub fn finish(&self, id: OrderId, finishing: Finishing) -> Soon<Result<Report, FinishError>> {
        match self {
            Self::Memory(line) => Soon::Now(line.finish(id, finishing.attempt, finishing.result)),
            Self::Shared(line) => line.finish(id, finishing),
        }
    }

    /// Renews the lease from now.
    pub fn extend(&self, id: OrderId, attempt: Option<u32>) -> Soon<Result<Lease, FenceError>> {
        match self {
            Self::Memory(line) => Soon::Now(line.extend(id, attempt)),
            Self::Shared(line) => line.extend(id, attempt),
        }
    }

    /// Ends the lease: the order returns to its place.
    pub fn release(&self, id: OrderId, attempt: Option<u32>) -> Soon<Result<(), FenceError>> {
        match self {
            Self::Memory(line) => Soon::Now(line.release(id, attempt)),
            Self::Shared(line) => line.release(id, attempt),
        }
    }

    /// Says which orders have changed, at this server or any other.
    pub fn changes(&self) -> &Changes {
        match self {
            Self::Memory(line) => line.changes(),
            Self::Shared(line) => line.changes(),
        }
    }

    pub fn survey(&self) -> Soon<Result<Survey, Unavailable>> {
        match self {
            Self::Memory(line) => Soon::Now(Ok(line.survey())),
            Self::Shared(line) => line.survey(),
        }
    }

    /// Takes no new orders from now on, or takes them again. Those in line are served.
    pub fn shut(&self, closed: Option<Arc<Closed>>) -> Soon<Result<(), Unavailable>> {
        match self {
            Self::Memory(line) => {
                line.shut(closed);
                Soon::Now(Ok(()))
            }
            Self::Shared(line) => line.shut(closed.as_deref()),
        }
    }

    /// Expires leases and graces and evicts final orders; a shared line is also kept in touch with. Never returns.
    pub async fn run(&self) {
        match self {
            Self::Memory(line) => line.run_timers().await,
            Self::Shared(line) => line.run().await,
        }
    }

    /// Ends the requests that come back through another server, if there is one: [`HandedOver`](super::model::Outcome). Returns how many.
    pub async fn hand_over(&self) -> usize {
        match self {
            Self::Memory(_) => 0,
            Self::Shared(line) => line.hand_over().await,
        }
    }

    /// Closes the line: every held request ends as [`Closing`](super::model::Outcome), idle baristas get none. Returns how many requests
    /// were held.
    pub fn close(&self) -> usize {
        match self {
            Self::Memory(line) => line.close(),
            Self::Shared(line) => line.close(),
        }
    }

    /// Waits until a shared line has all that was said so far.
    pub async fn flush(&self) {
        if let Self::Shared(line) = self {
            line.flush().await;
        }
    }

    /// Requests held here.
    pub fn held(&self) -> usize {
        match self {
            Self::Memory(line) => line.figures().held,
            Self::Shared(line) => line.held(),
        }
    }

    /// The figures of this moment; of a shared line those of the latest tick.
    pub fn figures(&self) -> Figures {
        match self {
            Self::Memory(line) => line.figures(),
            Self::Shared(line) => line.figures(),
        }
    }

    /// What this server did in the last ten minutes.
    pub fn rates(&self) -> Rates {
        match self {
            Self::Memory(line) => line.rates(),
            Self::Shared(line) => line.rates(),
        }
    }

    pub fn update_gauges(&self) -> Soon<()> {
        match self {
            Self::Memory(line) => {
                line.update_gauges();
                Soon::Now(())
            }
            Self::Shared(line) => line.update_gauges(),
        }
    }
}
