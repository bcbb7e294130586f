//! The conversation with the store: numbered calls, one at a time; the events; and both from the start again when the store has
//! lost what it knew of this server.

use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, error, info, warn};

use super::super::metrics::ExpiredLease;
use super::super::model::{OrderId, Outcome};
use super::super::store::{
    Answer, Blocked, Call, Event, Handed, ITEMS_MAX, Leased, Left, Number, Operation, Placed,
    Pulled, Purged, Record, Reply, StoreError, Ticked, Welcome,
};
use super::super::{line, store};
use super::convert::lease;
use super::local::{Local, Queued, outcome_of};
use super::part::Part;
use crate::values::backoff::Backoff;

/// Operations of a call at most, so that none waits for long behind others.
const OPERATIONS_MAX: usize = 64;
/// Between two ticks.
const TICK: Duration = Duration::from_secs(1);
/// How long confirmed leases wait for another operation.
const CONFIRM_AFTER: Duration = Duration::from_millis(20);
/// Between two attempts of a call.
const RETRIES: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));

/// Runs until it is dropped.
pub(super) async fn run(part: &Part) {
    // The generation of the session; 0 while the store does not know this server.
    let (generation, known) = watch::channel(0);
    let mut session = Session {
        part,
        number: 0,
        generation,
    };
    tokio::join!(session.run(), read_events(part, known));
}

struct Session<'a> {
    part: &'a Part,
    /// Of the latest call.
    number: Number,
    generation: watch::Sender<u64>,
}

impl Session<'_> {
    async fn run(&mut self) {
        let mut sessions = 0;
        let mut pauses = RETRIES;
        loop {
            if self.introduce().await.is_err() {
                // Lost again in the middle of it.
                sleep(pauses.next_wait()).await;
                continue;
            }
            sessions += 1;
            self.generation.send_replace(sessions);
            let began = Instant::now();
            self.talk().await;
            self.generation.send_replace(0);
            if began.elapsed() > TICK * 5 {
                pauses = RETRIES;
            } else {
                sleep(pauses.next_wait()).await;
            }
            warn!("the line's store has lost what it knew of this server: it is asserted again");
        }
    }

    /// Makes this server and all that it holds known to the store.
    async fn introduce(&mut self) -> Result<(), StoreError> {
        let welcome = match self.say(vec![Operation::Hello]).await?.pop() {
            Some(Reply::Welcome(welcome)) => welcome,
            other => return Err(unexpected(other.as_ref())),
        };
        let Welcome { event, blocked } = welcome;
        let asserted = {
            let mut local = self.part.local();
            local.seen = event;
            local.asserted()
        };
        for blocked in blocked {
            self.part.blocked(&blocked);
        }
        let count = asserted.len();
        for some in asserted.chunks(ITEMS_MAX) {
            let replies = self.say(vec![Operation::Assert(some.to_vec())]).await?;
            let [Reply::Asserted(records)] = &*replies else {
                return Err(unexpected(replies.first()));
            };
            for (asserted, record) in some.iter().zip(records) {
                if let Some(record) = record {
                    self.part.is_now(asserted.id, record.clone());
                }
            }
        }
        let (idle, unconfirmed) = self.part.local().baristas();
        self.say(vec![Operation::Settle { idle, unconfirmed }])
            .await?;
        info!(
            orders = count,
            "the line's store knows what this server holds"
        );
        Ok(())
    }

    /// Calls until the session is lost.
    async fn talk(&mut self) {
        let mut next_tick = Instant::now();
        loop {
            let is_due = self.wait(next_tick).await;
            if std::mem::take(&mut self.part.local().is_lost) {
                return;
            }
            let mut batch = self.part.local().take_queue(OPERATIONS_MAX);
            if is_due {
                batch.push(Queued::new(Operation::Tick, None));
            }
            if batch.is_empty() {
                continue;
            }
            let operations = batch.iter().map(sent).collect();
            match self.say(operations).await {
                Ok(replies) => {
                    let ticked = self.part.replied(batch, replies);
                    if let Some(ticked) = ticked {
                        let pause = if ticked.more {
                            Duration::ZERO
                        } else {
                            let due = ticked.next_due.map_or(TICK, Duration::from_millis);
                            // A deadline is met a little late, never early.
                            (due + Duration::from_millis(1)).min(TICK)
                        };
                        next_tick = Instant::now() + pause;
                    }
                }
                Err(StoreError::Failed(_)) => {
                    self.part.failed(batch);
                    return;
                }
                Err(_) => {
                    batch.retain(|queued| !matches!(queued.operation, Operation::Tick));
                    self.part.local().put_back(batch);
                    return;
                }
            }
        }
    }

    /// Waits for operations or the next tick. Returns whether the tick is due.
    async fn wait(&self, next_tick: Instant) -> bool {
        let mut until = next_tick;
        loop {
            let (is_idle, has_confirmed) = {
                let local = self.part.local();
                (local.is_idle() && !local.is_lost, local.has_confirmed())
            };
            let now = Instant::now();
            if !is_idle || until <= now {
                return next_tick <= now;
            }
            if has_confirmed {
                // Usually there is an operation soon with which they can be sent.
                until = until.min(now + CONFIRM_AFTER);
            }
            tokio::select! {
                () = self.part.wake.notified() => {}
                () = sleep_until(until) => {}
            }
        }
    }

    /// Calls, again and again while the store does not answer.
    async fn say(&mut self, operations: Vec<Operation>) -> Result<Vec<Reply>, StoreError> {
        self.number += 1;
        let expected = operations.len();
        let part = self.part;
        let call = Call {
            server: part.server,
            number: self.number,
            seen: part.local().seen,
            rules: part.rules,
            operations,
        };
        let mut retries = RETRIES;
        loop {
            match part.store.call(&call).await {
                Ok(Answer { replies, .. }) if replies.len() == expected => {
                    if part.condition.works() {
                        info!("the line's store answers again");
                    }
                    return Ok(replies);
                }
                Ok(Answer { replies, .. }) => return Err(unexpected(replies.first())),
                Err(StoreError::Lost) => return Err(StoreError::Lost),
                Err(error @ StoreError::Failed(_)) => {
                    // The callers of this call are answered 503; what is held is asserted.
                    error!(%error, "the line's store has failed");
                    return Err(error);
                }
                Err(error) => {
                    if part.condition.fails(&error) {
                        warn!(%error, "the line's store does not answer: customers wait on");
                    }
                    sleep(retries.next_wait()).await;
                }
            }
        }
    }
}

/// An operation as it is now.
fn sent(queued: &Queued) -> Operation {
    let mut operation = queued.operation.clone();
    if let Operation::Purge { age, .. } = &mut operation {
        *age = age.saturating_add(store::millis(queued.since.elapsed()));
    }
    operation
}

fn unexpected(reply: Option<&Reply>) -> StoreError {
    error!(
        ?reply,
        "the line's store has given a reply to another question"
    );
    StoreError::Lost
}

/// Follows the events.
async fn read_events(part: &Part, mut known: watch::Receiver<u64>) {
    let mut retries = RETRIES;
    loop {
        let Ok(generation) = known
            .wait_for(|&generation| generation > 0)
            .await
            .map(|it| *it)
        else {
            return;
        };
        let seen = part.local().seen;
        let read = tokio::select! {
            read = part.store.events(seen) => read,
            _ = known.changed() => continue,
        };
        if *known.borrow() != generation {
            continue;
        }
        match read {
            Ok(events) => {
                retries = RETRIES;
                if part.events.works() {
                    info!("the line's events can be read again");
                }
                for (number, event) in events {
                    part.happened(event);
                    part.local().seen = number;
                }
            }
            Err(StoreError::Lost) => {
                // The next call says so, too: it names an event that the store does not have; or there is a gap.
                part.lose();
                let _ = known.changed().await;
            }
            Err(error) => {
                if part.events.fails(&error) {
                    warn!(%error, "the line's events cannot be read: answers may be late");
                }
                let wait = retries.next_wait();
                if matches!(error, StoreError::Failed(_)) {
                    // Assertions get what this event would have said.
                    part.lose();
                }
                sleep(wait).await;
            }
        }
    }
}

impl Part {
    /// The session begins again with the next call.
    fn lose(&self) {
        self.local().is_lost = true;
        self.wake.notify_one();
    }

    /// Of a call that failed nothing is known. What has the same effect twice is sent once more; the other callers are answered
    /// 503.
    fn failed(&self, batch: Vec<Queued>) {
        let mut again = Vec::new();
        for mut queued in batch {
            let is_repeatable = matches!(
                queued.operation,
                Operation::Place(_) | Operation::Leave { .. } | Operation::GiveBack { .. }
            );
            if is_repeatable && !queued.has_failed {
                queued.has_failed = true;
                again.push(queued);
            } else if let Operation::Place(placing) = &queued.operation {
                let mut local = self.local();
                local.unplaced = local.unplaced.saturating_sub(1);
                let removed = local.remove(placing.id);
                drop(local);
                drop(removed);
            }
        }
        self.local().put_back(again);
    }

    /// Applies the replies to what is held here, then passes them on.
    fn replied(&self, batch: Vec<Queued>, replies: Vec<Reply>) -> Option<Box<Ticked>> {
        let mut tick = None;
        for (queued, reply) in batch.into_iter().zip(replies) {
            match &reply {
                Reply::Ticked(ticked) => {
                    self.ticked(ticked);
                    tick = Some(ticked.clone());
                }
                reply => self.apply(&queued.operation, reply),
            }
            if let Some(waiting) = queued.reply {
                // The caller may have left.
                let _ = waiting.send(reply);
            }
        }
        tick
    }

    fn apply(&self, operation: &Operation, reply: &Reply) {
        match (operation, reply) {
            (Operation::Place(placing), Reply::Placed(placed)) => {
                self.placed(placing.id, placing.attachment, placed);
            }
            (Operation::Promise { attachment, .. }, Reply::Promised(true))
            | (Operation::Watch { attachment, .. }, Reply::Watched(store::Watched::Not)) => {
                drop(self.local().detach(*attachment));
            }
            (Operation::Leave { .. }, Reply::Left(left)) => {
                let left = match left {
                    Left::Cancelled => line::Left::Cancelled,
                    Left::Graced => line::Left::Graced,
                    Left::Kept => line::Left::Kept,
                    Left::Nothing => return,
                };
                self.metrics.left(left);
            }
            (Operation::Pull { pull, .. } | Operation::Quit { pull }, Reply::Pulled(pulled)) => {
                self.pulled(pull, pulled, matches!(operation, Operation::Quit { .. }));
            }
            (Operation::GiveBack { .. }, Reply::Returned(returned)) => {
                self.count_return(None, *returned, &self.metrics.requeued_undelivered);
            }
            (
                Operation::Finish { id, .. },
                Reply::Finished(store::Finished::Ready { record, already }),
            ) => {
                if !already {
                    let order = self.clock.order(*id, record.clone());
                    let ended = order.ended.unwrap_or(order.placed);
                    let (waited, brewed) = (order.waited(ended), order.brewed(ended));
                    self.metrics.finished(order.delivered, waited, brewed);
                    let customer_request_id = order.request_id.as_deref();
                    debug!(order_id = %id, customer_request_id, delivered = order.delivered, "an order is ready");
                }
                self.ended(*id, record.clone(), None);
            }
            (Operation::Release { id, .. }, Reply::Released(store::Fenced::Current(returned))) => {
                debug!(order_id = %id, "a barista gave an order back");
                self.count_return(Some(*id), *returned, &self.metrics.requeued_released);
            }
            (Operation::Cancel { id }, Reply::Cancelled(store::Cancelled::Now(record))) => {
                self.metrics.cancelled_deleted.increment(1);
                debug!(order_id = %id, "an order was cancelled");
                self.ended(*id, record.clone(), None);
            }
            (
                Operation::Purge {
                    origin,
                    age,
                    blocked,
                },
                Reply::Purged(Purged { count, more }),
            ) => {
                self.metrics.cancelled_blocked.increment(*count);
                if *more {
                    self.tell(Operation::Purge {
                        origin: origin.clone(),
                        age: *age,
                        blocked: *blocked,
                    });
                }
            }
            _ => {}
        }
    }

    fn placed(&self, id: OrderId, attachment: Option<u64>, placed: &Placed) {
        let mut local = self.local();
        local.unplaced = local.unplaced.saturating_sub(1);
        match placed {
            Placed::New(record) => {
                self.metrics.placed.increment(1);
                local.placed(id, record.clone());
                drop(local);
                self.changes.announce(&[id]);
            }
            Placed::Joined(other, record) => {
                self.metrics.attached.increment(1);
                let left = attachment.filter(|&number| local.order_of(number).is_none());
                if let Some(attachment) = left {
                    // It left before the store said which order it was.
                    local.tell(Operation::Leave {
                        id: *other,
                        attachment,
                    });
                }
                let answer = local.joined(id, *other, record.clone());
                drop(local);
                if let Some(answer) = answer {
                    answer.send();
                }
            }
            Placed::Replayed(..)
            | Placed::KeyReused(_)
            | Placed::Shut(_)
            | Placed::Full(_)
            | Placed::Blocked(_) => {
                if matches!(placed, Placed::Replayed(..)) {
                    self.metrics.replayed.increment(1);
                }
                let removed = local.remove(id);
                drop(local);
                drop(removed);
            }
        }
    }

    /// The reply to a barista's pull, or to the end of their waiting.
    fn pulled(&self, pull: &str, pulled: &Pulled, is_quit: bool) {
        match pulled {
            Pulled::Order(leased) => self.lease(pull, Leased::clone(leased)),
            Pulled::Idle => {}
            Pulled::Nothing => {
                let mut local = self.local();
                let number = local.pulls.number_of(pull);
                // After a quit a lease may have been sent by its event, and be on its way to the barista.
                let number = number.filter(|&number| !(is_quit && local.pulls.is_leased(number)));
                if let Some(number) = number {
                    // Drops the sender: there is no order.
                    local.pulls.take(number);
                }
            }
        }
    }

    /// Sends a lease to its barista, or gives it back.
    fn lease(&self, pull: &str, leased: Leased) {
        let mut local = self.local();
        let Some(number) = local.pulls.number_of(pull) else {
            local.tell(Operation::GiveBack { pull: pull.into() });
            return;
        };
        let Some(sender) = local.pulls.lease_to(number) else {
            // Sent already.
            return;
        };
        drop(local);
        let remaining = Duration::from_millis(self.rules.lease);
        let lease = lease(leased, remaining, number);
        if sender.send(lease).is_err() {
            let mut local = self.local();
            if let Some(pull) = local.pulls.take(number) {
                local.tell(Operation::GiveBack { pull });
            }
        } else {
            self.metrics.started.increment(1);
        }
    }

    /// An order is as in this record.
    fn is_now(&self, id: OrderId, record: Record) {
        if record.ended.is_some() {
            self.ended(id, record, None);
        } else {
            self.changed(id, record);
        }
    }

    /// The requests of a final order are answered.
    pub(super) fn ended(&self, id: OrderId, record: Record, blocked: Option<u64>) {
        let outcome = match blocked {
            Some(time) => Outcome::Blocked(Duration::from_millis(time)),
            None => outcome_of(self.clock.order(id, record)),
        };
        let answer = self.local().ended(id, &outcome);
        if let Some(answer) = answer {
            answer.send();
        }
        self.changes.announce(&[id]);
    }

    fn changed(&self, id: OrderId, record: Record) {
        self.local().changed(id, record);
        self.changes.announce(&[id]);
    }

    fn happened(&self, event: Event) {
        match event {
            Event::Started {
                id,
                record,
                expires,
                to,
            } => {
                self.changed(id, record.clone());
                let me = self.server.to_string();
                if let Some(Handed { server, pull }) = to
                    && *server == *me
                {
                    let leased = Leased {
                        id,
                        record,
                        expires,
                    };
                    self.lease(&pull, leased);
                    self.wake.notify_one();
                }
            }
            Event::Returned { id, record } => self.changed(id, record),
            Event::Ready { id, record } => self.ended(id, record, None),
            Event::Cancelled { id, unwanted, .. } if unwanted && self.local().has_customer(id) => {
                // This server was taken for dead.
                self.lose();
            }
            Event::Cancelled {
                id,
                record,
                blocked,
                ..
            } => self.ended(id, record, blocked),
            Event::Dropped { id } => {
                let mut local = self.local();
                if local.has_customer(id) {
                    // This server was taken for dead.
                    drop(local);
                    self.lose();
                } else {
                    let removed = local.remove(id);
                    drop(local);
                    drop(removed);
                    self.changes.announce(&[id]);
                }
            }
            Event::Blocked(blocked) => self.blocked(&blocked),
            Event::Unblocked { origin } => self.tell_flood(&origin, None),
        }
    }

    fn blocked(&self, Blocked { origin, remaining }: &Blocked) {
        self.tell_flood(origin, Some(Duration::from_millis(*remaining)));
    }

    fn tell_flood(&self, origin: &str, blocked: Option<Duration>) {
        if let (Some(on_block), Ok(origin)) = (self.on_block.get(), origin.parse::<IpNet>()) {
            on_block(origin, blocked);
        }
    }

    fn ticked(&self, ticked: &Ticked) {
        let have_changed = {
            let local: &mut Local = &mut self.local();
            local.others = ticked.others;
            // Also by other servers' customers, of whom there are no events.
            let before = std::mem::replace(&mut local.figures, ticked.figures);
            local.figures.without_age() != before.without_age()
        };
        if have_changed {
            self.changes.announce_any();
        }
        let metrics = &self.metrics;
        metrics
            .cancelled_abandoned
            .increment(u64::from(ticked.abandoned));
        metrics
            .cancelled_unasked
            .increment(u64::from(ticked.unasked));
        if ticked.removed > 0 {
            warn!(
                servers = ticked.removed,
                "a server of the line is silent: what it held is released"
            );
        }
        for expired in &ticked.expired {
            let requeued = metrics.expired(&ExpiredLease {
                id: expired.id,
                attempt: expired.attempt,
                barista: expired.barista.as_deref(),
                request_id: expired.request_id.as_deref(),
                moved_back: expired.moved_back,
            });
            self.count_return(Some(expired.id), expired.returned, requeued);
        }
    }
}
