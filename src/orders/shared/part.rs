//! What a server has of a shared line, and how the guards of held requests reach it.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{Notify, oneshot};
use tracing::debug;

use super::super::changes::Changes;
use super::super::error::{FinishError, Unavailable};
use super::super::hold::{Departures, Quit};
use super::super::line::{Attachment, Idle};
use super::super::metrics::Metrics;
use super::super::model::{Lease, OrderId, View};
use super::super::requests::Report;
use super::super::store::{Finished, Operation, Reply, Returned, Rules, ServerId, Store};
use super::convert::Clock;
use super::local::Local;
use super::pulls::Quitting;
use crate::storage::Condition;
use crate::values::soon::Soon;

/// Given an address, and for how long it is blocked; none if it is not any more.
pub(super) type OnBlock = Box<dyn Fn(IpNet, Option<Duration>) + Send + Sync>;

/// What all handles share.
pub(super) struct Part {
    pub(super) server: ServerId,
    pub(super) store: Arc<dyn Store>,
    pub(super) rules: Rules,
    /// Of orders that the store has not answered yet.
    pub(super) unplaced_max: usize,
    pub(super) metrics: Metrics,
    pub(super) changes: Changes,
    pub(super) clock: Clock,
    pub(super) local: Mutex<Local>,
    /// Operations are waiting, or the session was lost.
    pub(super) wake: Notify,
    pub(super) condition: Condition,
    /// Whether the events can be read.
    pub(super) events: Condition,
    pub(super) on_block: OnceLock<OnBlock>,
}

impl Part {
    pub(super) fn local(&self) -> MutexGuard<'_, Local> {
        #[cfg(test)]
        super::model_checked::may_be_overtaken();
        self.local
            .lock()
            .expect("a step that panicked leaves what is held here in an unknown state")
    }

    pub(super) fn ask(&self, operation: Operation) -> oneshot::Receiver<Reply> {
        let asked = self.local().ask(operation);
        self.wake.notify_one();
        asked
    }

    /// Without waiting for the reply.
    pub(super) fn tell(&self, operation: Operation) {
        self.local().tell(operation);
        self.wake.notify_one();
    }

    /// The proxy's id of a request, or one of its own: with it the store knows the request again.
    pub(super) fn name(&self, proxied: Option<Box<str>>, number: u64) -> Box<str> {
        match proxied {
            Some(id) => format!("proxy/{id}").into(),
            None => format!("{}/{number}", self.server).into(),
        }
    }

    pub(super) fn viewed(
        &self,
        id: OrderId,
        reply: Result<Reply, Unavailable>,
    ) -> Result<Option<View>, Unavailable> {
        match reply? {
            Reply::Viewed(viewed) => Ok(viewed.map(|viewed| self.clock.view(id, viewed))),
            _ => Err(Unavailable),
        }
    }

    pub(super) fn finished(&self, id: OrderId, finished: Finished) -> Result<Report, FinishError> {
        match finished {
            Finished::Ready { record, already } => {
                let order = Arc::new(self.clock.order(id, record));
                Ok(Report { order, already })
            }
            Finished::Unknown => Err(FinishError::Unknown),
            Finished::NotStarted(stage) => Err(FinishError::NotStarted {
                stage: stage.into(),
            }),
            Finished::Fenced { stage, current } => Err(FinishError::Fenced {
                stage: stage.into(),
                current,
            }),
        }
    }

    /// `id`: if it is known.
    pub(super) fn count_return(
        &self,
        id: Option<OrderId>,
        returned: Returned,
        requeued: &metrics::Counter,
    ) {
        match returned {
            Returned::ToLine | Returned::Offered => requeued.increment(1),
            Returned::Cancelled => self.metrics.cancelled_unwanted(id),
            Returned::Over => {}
        }
    }
}

impl Departures for Part {
    fn leave(&self, attachment: Attachment) {
        let number = attachment.shared_number();
        let mut local = self.local();
        match local.leave(number) {
            // It was answered.
            None => {}
            Some((id, None)) => {
                local.tell(Operation::Leave {
                    id,
                    attachment: number,
                });
                drop(local);
                self.wake.notify_one();
            }
            Some((_, unsent @ Some(_))) => {
                drop(local);
                drop(unsent);
            }
        }
    }

    fn promise(&self, attachment: Attachment) -> Soon<bool> {
        let number = attachment.shared_number();
        let asked = {
            let mut local = self.local();
            let Some(id) = local.order_of(number) else {
                return Soon::Now(false);
            };
            local.ask(Operation::Promise {
                id,
                attachment: number,
            })
        };
        self.wake.notify_one();
        // The session detaches the request if it is promised.
        Soon::later(async move { matches!(asked.await, Ok(Reply::Promised(true))) })
    }

    fn quit(&self, Idle(number): Idle) -> Quit {
        let mut local = self.local();
        match local.pulls.quit(number) {
            Quitting::Over => Quit::Sent,
            Quitting::Unsent => Quit::Gone,
            Quitting::Ask(pull) => {
                local.tell(Operation::Quit { pull });
                drop(local);
                self.wake.notify_one();
                Quit::Asked
            }
        }
    }

    fn confirm(&self, lease: &Lease) {
        // With the next call, which is soon.
        self.local().confirm(lease.pull);
        self.wake.notify_one();
    }

    fn give_back(&self, lease: &mut Lease) {
        debug!(order_id = %lease.id, attempt = lease.attempt, "a lease did not reach its barista");
        let mut local = self.local();
        if let Some(pull) = local.pulls.take(lease.pull) {
            local.tell(Operation::GiveBack { pull });
            drop(local);
            self.wake.notify_one();
        }
    }
}
