//! A line that several servers share: this server's part of it.
//!
//! The store ([`super::store`]) decides; here is who is held by this server, and how each is reached. Every operation goes through
//! one queue, so this server's operations are applied in their order, many in one call. A request is registered here before it
//! is sent to the store: an event about it never comes too early.
//!
//! `local` is what is held, `pulls` the baristas of it, `part` what all handles share, `session` the conversation with the store, `convert` maps its records.

mod convert;
mod local;
#[cfg(test)]
mod model_checked;
mod part;
mod pulls;
mod session;

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use self::convert::{Clock, stored_key};
use self::local::{Known, Request, outcome_of};
use self::part::Part;
use self::pulls::Pull;
use super::changes::Changes;
use super::config::Config;
use super::error::{CancelError, FenceError, FinishError, PlaceError, Unavailable};
use super::hold::{At, Held, IdleBarista};
use super::idempotency::IdempotencyKey;
use super::line::{Attachment, Figures, Idle};
use super::metrics::{Metrics, Rates};
use super::model::{Closed, Lease, Order, OrderId, Outcome, Survey, View};
use super::requests::{Finishing, Placement, Pulling, Report, Taken, Wanted};
use super::store::{
    self, Claim, Fenced, ITEMS_MAX, Operation, Placed, Placing, Pulled, Reply, ServerId, Store,
    Watched, millis,
};
use crate::storage::{Condition, State};
use crate::values::id::unique;
use crate::values::soon::Soon;

/// How long a barista's request waits for the store. A customer's waits as long as it takes.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the end of the server waits for the store.
const FLUSH: Duration = Duration::from_secs(1);
/// How long a scrape waits for the store, which then has older figures.
const SCRAPE: Duration = Duration::from_millis(500);

/// A handle to this server's part of a shared line; cheap to clone.
#[derive(Clone)]
pub struct Shared {
    part: Arc<Part>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    /// `server`: random. Nothing is asked before [`Shared::run`].
    pub fn new(store: Arc<dyn Store>, server: ServerId, rules: &Config, metrics: Metrics) -> Self {
        Self {
            part: Arc::new(Part {
                server,
                store,
                rules: rules.into(),
                unplaced_max: rules.waiting_max,
                metrics,
                changes: Changes::default(),
                clock: Clock::start(),
                local: Mutex::default(),
                wake: Notify::new(),
                condition: Condition::default(),
                events: Condition::default(),
                on_block: OnceLock::new(),
            }),
        }
    }

    /// Calls `on_block` when an address is blocked or unblocked by any server.
    pub fn when_blocked(&self, on_block: impl Fn(IpNet, Option<Duration>) + Send + Sync + 'static) {
        // Only the first counts.
        let _ = self.part.on_block.set(Box::new(on_block));
    }

    pub fn changes(&self) -> &Changes {
        &self.part.changes
    }

    pub fn is_sound(&self) -> bool {
        !self.part.local.is_poisoned()
    }

    /// Whether the store answers.
    pub fn state(&self) -> State {
        if self.part.condition.is_healthy() {
            return self.part.events.state();
        }
        self.part.condition.state()
    }

    /// See [`super::service::Orders::place`].
    pub fn place(&self, wanted: Wanted, waits: bool) -> Soon<Result<Placement, PlaceError>> {
        let part = &self.part;
        let id = OrderId(unique(super::memory::now().wall));
        let key = wanted.keyed.as_ref().map(|keyed| keyed.key.clone());
        let keep = wanted.keyed.as_ref().and_then(|keyed| keyed.keep);
        let claim = match wanted.keyed {
            Some(keyed) => Some(Claim::Key {
                key: stored_key(&keyed.key),
                fingerprint: format!("{:016x}", keyed.fingerprint).into(),
            }),
            None => wanted.proxied.clone().map(Claim::Request),
        };
        let mut placing = Placing {
            id,
            claim,
            customer: wanted.customer,
            details: wanted.details.map(|details| details.text().into()),
            request_id: wanted.request_id,
            origin: wanted.origin.map(|origin| origin.to_string().into()),
            attachment: None,
            keep: keep.map(millis),
        };
        let mut known = Known::new(key, wanted.permit);
        let mut held = None;
        let asked = {
            let mut local = part.local();
            let moves = local.others > 0 && wanted.proxied.is_some();
            if moves && (local.departing || local.closed) {
                return Soon::Now(Err(PlaceError::HandedOver));
            }
            if local.closed {
                return Soon::Now(Err(PlaceError::Closing));
            }
            if local.unplaced >= part.unplaced_max {
                return Soon::Now(Err(PlaceError::Full { retry_after: None }));
            }
            if waits {
                let (sender, receiver) = oneshot::channel();
                let number = local.number();
                placing.attachment = Some(number);
                let is_proxied = wanted.proxied.is_some();
                known.attach(Request::new(number, true, is_proxied, sender));
                held = Some(Held::new(
                    self.at(),
                    Attachment::shared(id, number),
                    receiver,
                ));
            }
            local.insert(id, known);
            local.ask(Operation::Place(Box::new(placing)))
        };
        part.wake.notify_one();
        let part = Arc::clone(part);
        Soon::later(async move { placed(&part, id, held, asked.await) })
    }

    /// Whether an order of this key is pending here.
    pub fn is_pending(&self, key: &IdempotencyKey) -> bool {
        self.part.local().keys.contains_key(key)
    }

    /// Blocks the address everywhere, and cancels its waiting orders that were placed after `since`.
    pub fn purge(&self, origin: IpNet, since: Instant, blocked_for: Duration) {
        self.part.tell(Operation::Purge {
            origin: origin.to_string().into(),
            age: millis(since.elapsed()),
            blocked: millis(blocked_for),
        });
    }

    /// Unblocks the address everywhere.
    pub fn unblock(&self, origin: IpNet) {
        let origin = origin.to_string().into();
        self.part.tell(Operation::Unblock { origin });
    }

    /// `renew`: for its customer, which renews a promise.
    pub fn view(&self, id: OrderId, renew: bool) -> Soon<Result<Option<View>, Unavailable>> {
        if self.part.local().is_overloaded() {
            return Soon::Now(Err(Unavailable));
        }
        let asked = self.part.ask(Operation::View { id, renew });
        let part = Arc::clone(&self.part);
        Soon::later(async move { part.viewed(id, patiently(asked).await) })
    }

    /// As [`Shared::view`], of an order that was just promised: its customer waits as long as it takes.
    pub fn view_promised(&self, id: OrderId) -> Soon<Result<Option<View>, Unavailable>> {
        let asked = self.part.ask(Operation::View { id, renew: false });
        let part = Arc::clone(&self.part);
        Soon::later(async move { part.viewed(id, asked.await.map_err(|_| Unavailable)) })
    }

    /// See [`super::service::Orders::ask_within`].
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn ask_within(
        &self,
        id: OrderId,
        wait: Duration,
    ) -> Result<Option<View>, Unavailable> {
        let (sender, receiver) = oneshot::channel();
        let (held, asked) = {
            let mut local = self.part.local();
            let number = local.number();
            local.attach(id, Request::new(number, false, false, sender));
            let attachment = Attachment::shared(id, number);
            let held = Held::new(self.at(), attachment, receiver);
            let asked = local.ask(Operation::Watch {
                id,
                attachment: number,
            });
            (held, asked)
        };
        self.part.wake.notify_one();
        if let Ok(Reply::Watched(Watched::Attached(_))) = patiently(asked).await {
            // Final or timed out: the order as it is then is the answer.
            let _ = timeout(wait, held).await;
        }
        self.view(id, true).get().await
    }

    /// Cancels an order; its held requests are answered, wherever they are held.
    pub fn cancel(&self, id: OrderId) -> Soon<Result<Arc<Order>, CancelError>> {
        let asked = self.part.ask(Operation::Cancel { id });
        let part = Arc::clone(&self.part);
        Soon::later(async move {
            use store::Cancelled::{Already, Now, TooLate, Unknown};

            match patiently(asked).await? {
                Reply::Cancelled(Now(record) | Already(record)) => {
                    Ok(Arc::new(part.clock.order(id, record)))
                }
                Reply::Cancelled(TooLate(stage)) => Err(CancelError::TooLate {
                    stage: stage.into(),
                }),
                Reply::Cancelled(Unknown) => Err(CancelError::Unknown),
                _ => Err(Unavailable.into()),
            }
        })
    }

    /// The oldest order. While the store does not answer, a barista who waits is held.
    pub fn pull(&self, pulling: Pulling) -> Soon<Result<Taken, Unavailable>> {
        let Pulling {
            barista,
            proxied,
            waits,
        } = pulling;
        let (sender, receiver) = oneshot::channel();
        let (idle, asked) = {
            let mut local = self.part.local();
            if local.closed {
                return Soon::Now(Ok(Taken::Nothing));
            }
            let number = local.number();
            let pull = self.part.name(proxied, number);
            let operation = Operation::Pull {
                pull: pull.clone(),
                barista: barista.clone(),
                waits,
            };
            local.pulls.add(number, Pull::new(pull, barista, sender));
            let idle = IdleBarista::new(self.at(), Idle(number), receiver);
            (idle, local.ask(operation))
        };
        self.part.wake.notify_one();
        Soon::later(async move {
            match patiently(asked).await {
                Ok(Reply::Pulled(Pulled::Order(_))) => {
                    Ok(idle.await.map_or(Taken::Nothing, Taken::Lease))
                }
                Ok(Reply::Pulled(Pulled::Nothing)) => Ok(Taken::Nothing),
                Ok(Reply::Pulled(Pulled::Idle)) => Ok(Taken::Idle(idle)),
                _ if waits => Ok(Taken::Idle(idle)),
                _ => Err(Unavailable),
            }
        })
    }

    /// Makes the order ready; its held requests are answered, wherever they are held.
    pub fn finish(&self, id: OrderId, finishing: Finishing) -> Soon<Result<Report, FinishError>> {
        let asked = {
            let mut local = self.part.local();
            let number = local.number();
            let report = self.part.name(finishing.proxied, number);
            local.ask(Operation::Finish {
                id,
                attempt: finishing.attempt,
                report,
                result: finishing.result.map(|result| result.text().into()),
            })
        };
        self.part.wake.notify_one();
        let part = Arc::clone(&self.part);
        Soon::later(async move {
            match patiently(asked).await? {
                Reply::Finished(finished) => part.finished(id, finished),
                _ => Err(Unavailable.into()),
            }
        })
    }

    /// Renews the lease from now.
    pub fn extend(&self, id: OrderId, attempt: Option<u32>) -> Soon<Result<Lease, FenceError>> {
        let asked = self.part.ask(Operation::Extend { id, attempt });
        let lease = Duration::from_millis(self.part.rules.lease);
        Soon::later(async move {
            match patiently(asked).await? {
                Reply::Extended(extended) => {
                    fenced(extended).map(|leased| convert::lease(leased, lease, 0))
                }
                _ => Err(Unavailable.into()),
            }
        })
    }

    /// Ends the lease: the order returns to its place.
    pub fn release(&self, id: OrderId, attempt: Option<u32>) -> Soon<Result<(), FenceError>> {
        let asked = self.part.ask(Operation::Release { id, attempt });
        Soon::later(async move {
            match patiently(asked).await? {
                Reply::Released(released) => fenced(released).map(drop),
                _ => Err(Unavailable.into()),
            }
        })
    }

    pub fn survey(&self) -> Soon<Result<Survey, Unavailable>> {
        let asked = self.part.ask(Operation::Survey);
        let part = Arc::clone(&self.part);
        Soon::later(async move {
            match patiently(asked).await? {
                Reply::Surveyed(surveyed) => Ok(part.clock.survey(*surveyed)),
                _ => Err(Unavailable),
            }
        })
    }

    /// Takes no new orders from now on, at any server, or takes them again.
    pub fn shut(&self, closed: Option<&Closed>) -> Soon<Result<(), Unavailable>> {
        let closed = closed.and_then(|closed| serde_json::to_string(closed).ok());
        let asked = self.part.ask(Operation::Shut {
            closed: closed.map(String::into_boxed_str),
        });
        let part = Arc::clone(&self.part);
        Soon::later(async move {
            patiently(asked).await?;
            part.changes.announce_any();
            Ok(())
        })
    }

    /// Ends the requests that a proxy sends again: another server continues to hold them. Returns how many; none without another
    /// server.
    pub async fn hand_over(&self) -> usize {
        // Another server may be there since a moment. Without the store the latest tick counts.
        let _ = patiently(self.part.ask(Operation::Tick)).await;
        let (requests, watching, asked) = {
            let mut local = self.part.local();
            if local.others == 0 {
                return 0;
            }
            local.departing = true;
            let requests = local.proxied();
            let watching = local.take_requests(true);
            let mut asked: Vec<_> = requests
                .chunks(ITEMS_MAX)
                .map(|some| local.ask(Operation::Depart(some.to_vec())))
                .collect();
            let idle = local.pulls.quit_all();
            asked.extend(
                idle.into_iter()
                    .map(|pull| local.ask(Operation::Quit { pull })),
            );
            (requests, watching, asked)
        };
        self.part.wake.notify_one();
        for request in watching {
            // Answered with the order as it is.
            request.answer(Outcome::Closing);
        }
        // Without the store they are handed over all the same: it finds them detached once this server is silent.
        let _ = timeout(PATIENCE, async {
            for asked in asked {
                let _ = asked.await;
            }
        })
        .await;
        let mut handed_over = 0;
        for (_, number) in requests {
            let request = self.part.local().detach(number);
            if let Some((_, request)) = request {
                handed_over += 1;
                request.answer(Outcome::HandedOver);
            }
        }
        self.part.metrics.handed_over.increment(handed_over as u64);
        handed_over
    }

    /// See [`super::service::Orders::close`].
    pub fn close(&self) -> usize {
        let (requests, pulls, moves) = {
            let mut local = self.part.local();
            local.closed = true;
            (
                local.take_requests(false),
                local.take_waiting_pulls(),
                local.others > 0,
            )
        };
        self.part.wake.notify_one();
        let held = requests.len();
        for request in requests {
            let outcome = if moves && request.is_proxied() {
                Outcome::HandedOver
            } else {
                Outcome::Closing
            };
            request.answer(outcome);
        }
        drop(pulls);
        held
    }

    /// Waits until the store has all that was said so far, for a second at most.
    pub async fn flush(&self) {
        let last = self.part.ask(Operation::Confirm { pulls: Vec::new() });
        if timeout(FLUSH, last).await.is_err() {
            warn!("the line's store does not know how the last requests ended");
        }
    }

    /// Requests held here.
    pub fn held(&self) -> usize {
        self.part.local().requests()
    }

    /// Those of the whole line, of the latest tick; held requests are this server's.
    pub fn figures(&self) -> Figures {
        let local = self.part.local();
        convert::figures(&local.figures, local.requests())
    }

    /// What this server did in the last ten minutes.
    pub fn rates(&self) -> Rates {
        self.part.metrics.rates()
    }

    /// With the figures of this moment, if the store answers soon.
    pub fn update_gauges(&self) -> Soon<()> {
        let (asked, line) = (self.part.ask(Operation::Tick), self.clone());
        Soon::later(async move {
            let _ = timeout(SCRAPE, asked).await;
            line.part.metrics.update(&line.figures());
        })
    }

    /// Talks to the store. Never returns.
    pub async fn run(&self) {
        session::run(&self.part).await;
    }

    fn at(&self) -> At {
        Arc::clone(&self.part).into()
    }
}

/// What a request for an order is answered, once the store has replied. The session has updated what is held here.
fn placed(
    part: &Part,
    id: OrderId,
    held: Option<Held>,
    reply: Result<Reply, oneshot::error::RecvError>,
) -> Result<Placement, PlaceError> {
    let Ok(Reply::Placed(placed)) = reply else {
        return Err(Unavailable.into());
    };
    let in_line =
        |held: Option<Held>, id| Ok(held.map_or(Placement::Promised(id), Placement::Held));
    match placed {
        Placed::New(_) => {
            debug!(order_id = %id, "an order joined the line");
            in_line(held, id)
        }
        Placed::Joined(other, _) => {
            debug!(order_id = %other, "a request joined its pending order");
            let held = held.map(|mut held| {
                held.joined(other);
                held
            });
            in_line(held, other)
        }
        refused => {
            // The store has attached nothing.
            if let Some(held) = held {
                held.disarm();
            }
            match refused {
                Placed::Replayed(other, record) => {
                    let outcome = outcome_of(part.clock.order(other, record));
                    Ok(Placement::Replayed(outcome))
                }
                Placed::KeyReused(other) => Err(PlaceError::KeyReused { id: other }),
                Placed::Full(retry_after) => Err(PlaceError::Full {
                    retry_after: retry_after.map(Duration::from_millis),
                }),
                Placed::Shut(closed) => Err(PlaceError::Closed(Arc::new(convert::closed(&closed)))),
                Placed::Blocked(remaining) => Err(PlaceError::Blocked {
                    remaining: Duration::from_millis(remaining),
                }),
                Placed::New(_) | Placed::Joined(..) => unreachable!("matched above"),
            }
        }
    }
}

/// The reply, if it comes soon. What was asked is done all the same.
async fn patiently(asked: oneshot::Receiver<Reply>) -> Result<Reply, Unavailable> {
    match timeout(PATIENCE, asked).await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(_)) | Err(_) => Err(Unavailable),
    }
}

fn fenced<T>(answer: Fenced<T>) -> Result<T, FenceError> {
    match answer {
        Fenced::Current(current) => Ok(current),
        Fenced::Unknown => Err(FenceError::Unknown),
        Fenced::NotBrewing(stage) => Err(FenceError::NotBrewing {
            stage: stage.into(),
        }),
        Fenced::Another { stage, current } => Err(FenceError::Fenced {
            stage: stage.into(),
            current,
        }),
    }
}
