//! What one can do at the desk; a handle that is cheap to clone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;

use super::error::{AnnounceError, Unavailable};
use super::metrics::Metrics;
use super::model::{
    AddCourier, AddOrder, Assignment, Courier, CourierId, Event, OrderId, Outcome, Whereabouts,
    Zone,
};
use super::store::{Outgoing, Recorded, Store};
use super::topic::Topic;
use crate::storage::carried_through;

/// How often parked orders are counted: other processes may share the store.
const COUNT_PARKED_EVERY: Duration = Duration::from_secs(15);

/// The desk.
#[derive(Debug, Clone)]
pub struct Couriers {
    store: Arc<dyn Store>,
    metrics: Metrics,
    topic: Option<Arc<dyn Topic>>,
    /// Whether this process decides.
    dispatches: bool,
    /// Told when there may be something to tell others.
    decided: Arc<Notify>,
    /// By courier, held while a part of what is known of them is changed.
    changing: Arc<Mutex<HashMap<CourierId, Arc<tokio::sync::Mutex<()>>>>>,
}

/// What became of events that were taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TakenIn {
    /// They were applied: what each came to.
    Applied(Vec<Outcome>),
    /// So many were announced to whoever decides.
    Announced(usize),
}

impl Couriers {
    /// The desk, keeping everything in `store`, deciding by itself and telling nobody.
    pub fn new(store: Arc<dyn Store>, metrics: Metrics) -> Self {
        Self {
            store,
            metrics,
            topic: None,
            dispatches: true,
            decided: Arc::default(),
            changing: Arc::default(),
        }
    }

    /// The same, hearing of events by a topic, too. Who couriers are is announced there; and if this process does not
    /// dispatch, so is everything else.
    #[must_use]
    pub fn with_topic(self, topic: Arc<dyn Topic>, dispatches: bool) -> Self {
        Self {
            topic: Some(topic),
            dispatches,
            ..self
        }
    }

    /// Takes events in, one after the other; or announces them, if others decide.
    ///
    /// # Errors
    /// See [`AnnounceError`]. Some of them may have been taken in; sent again, they are duplicates, and nothing is doubled.
    pub async fn take_in(&self, events: Vec<Event>) -> Result<TakenIn, AnnounceError> {
        match &self.topic {
            Some(topic) if !self.dispatches => {
                let count = events.len();
                topic.announce(events).await?;
                Ok(TakenIn::Announced(count))
            }
            _ => Ok(TakenIn::Applied(self.decide(events).await?)),
        }
    }

    /// Decides about events, one after the other: what each came to.
    ///
    /// # Errors
    /// See [`Unavailable`]. The first of them may have been taken in; sent again, they are duplicates.
    pub async fn decide(&self, events: Vec<Event>) -> Result<Vec<Outcome>, Unavailable> {
        self.decide_holding(events, ()).await
    }

    /// As [`decide`](Self::decide); `held` is dropped once it is decided, even if the caller leaves before.
    async fn decide_holding(
        &self,
        events: Vec<Event>,
        held: impl Send + 'static,
    ) -> Result<Vec<Outcome>, Unavailable> {
        let now = now();
        let events = events.into_iter().map(|event| (event, now)).collect();
        let desk = self.clone();
        carried_through(async move {
            let outcomes = desk.store.apply(events).await;
            desk.metrics.taken_in(outcomes.as_deref());
            desk.decided.notify_one();
            drop(held);
            outcomes
        })
        .await
    }

    /// Waits until something was decided; at once, if that was so since it was waited for last.
    pub async fn decided(&self) {
        self.decided.notified().await;
    }

    /// Keeps assignments that were decided elsewhere.
    ///
    /// # Errors
    /// See [`Unavailable`]; it may be told again.
    pub async fn learn(&self, assignments: Vec<Assignment>) -> Result<(), Unavailable> {
        self.store.learn(assignments).await
    }

    /// What is still to be told to others, oldest first, `limit` at most.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub async fn outgoing(&self, limit: usize) -> Result<Vec<Outgoing>, Unavailable> {
        self.store.outgoing(limit).await
    }

    /// These were told.
    ///
    /// # Errors
    /// See [`Unavailable`]; they are told again then.
    pub async fn told(&self, numbers: Vec<u64>) -> Result<(), Unavailable> {
        self.store.told(numbers).await
    }

    /// Where an order is; nothing if nobody ever heard of it.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub async fn order(&self, order: OrderId) -> Result<Option<Whereabouts>, Unavailable> {
        self.store.order(order).await
    }

    /// The orders of a courier, by their ids; of a stranger, none.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub async fn orders_of(&self, courier: CourierId) -> Result<Vec<OrderId>, Unavailable> {
        self.store.orders_of(courier).await
    }

    /// Says how a courier is from now on, who was as `change` is told: to the topic if there is one, to the store otherwise. One
    /// at a time for each courier, so that of two changes of different parts neither is lost.
    ///
    /// # Errors
    /// What `change` or the topic refuses; see [`Unavailable`], when it may be said again.
    pub async fn change<E: From<Unavailable> + From<AnnounceError>>(
        &self,
        courier: CourierId,
        change: impl FnOnce(Option<&Courier>) -> Result<AddCourier, E>,
    ) -> Result<(), E> {
        let alone = self.turn(courier).lock_owned().await;
        let before = self.store.courier(courier).await?;
        let events = vec![Event::Courier(change(before.as_ref())?)];
        match &self.topic {
            Some(topic) => topic.announce(events).await?,
            None => self.decide_holding(events, alone).await.map(drop)?,
        }
        Ok(())
    }

    /// The lock of a courier.
    fn turn(&self, courier: CourierId) -> Arc<tokio::sync::Mutex<()>> {
        let mut changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that no request holds or waits for are not needed.
        changing.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(changing.entry(courier).or_default())
    }

    /// The couriers of a zone, or all, by their ids.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub async fn couriers(&self, zone: Option<Zone>) -> Result<Vec<Courier>, Unavailable> {
        self.store.couriers(zone).await
    }

    /// Orders that wait for a courier, the longest waiting first within each zone, `limit` at most; and how many there are.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub async fn parked(&self, limit: usize) -> Result<(Vec<AddOrder>, u64), Unavailable> {
        self.store.parked(limit).await
    }

    /// Keeps the gauge of parked orders right, for as long as it is polled.
    pub async fn count_parked(&self) {
        loop {
            // A store that is away leaves the count as it was.
            if let Ok((_, count)) = self.store.parked(0).await {
                self.metrics.parked(count);
            }
            tokio::time::sleep(COUNT_PARKED_EVERY).await;
        }
    }

    /// The event log after a place, `limit` events at most.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub async fn events(&self, after: u64, limit: usize) -> Result<Vec<Recorded>, Unavailable> {
        self.store.events(after, limit).await
    }
}

/// As precisely as it is kept.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

#[cfg(test)]
mod tests;
