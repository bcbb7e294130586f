//! The desk's operations; a handle that is cheap to clone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;

use super::error::{PublishError, Unavailable};
use super::metrics::Metrics;
use super::model::{
    AddCourier, AddOrder, Assignment, Courier, CourierId, Event, OrderId, Outcome, Whereabouts,
    Zone, ZoneSummary,
};
use super::store::{Outgoing, Recorded, Store};
use super::topic::Topic;
use crate::storage::carried_through;

/// How often parked orders are counted: other processes may share the store.
const COUNT_PARKED_EVERY: Duration = Duration::from_secs(15);

#[derive(Debug, Clone)]
pub struct Couriers {
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    topic: Option<Arc<dyn Topic>>,
    /// Whether this process decides.
    dispatches: bool,
    /// Notified when the outbox may have grown.
    decided: Arc<Notify>,
    /// A lock per courier, held while some of their fields are changed.
    changing: Arc<Mutex<HashMap<CourierId, Arc<tokio::sync::Mutex<()>>>>>,
}

/// What happened to submitted events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submitted {
    /// They were applied, with these outcomes.
    Applied(Vec<Outcome>),
    /// So many were published for the dispatcher.
    Published(usize),
}

impl Couriers {
    /// A desk that decides by itself and publishes nothing.
    pub fn new(store: Arc<dyn Store>, metrics: Metrics) -> Self {
        Self {
            store,
            metrics: Arc::new(metrics),
            topic: None,
            dispatches: true,
            decided: Arc::default(),
            changing: Arc::default(),
        }
    }

    /// With a topic. Changes of couriers are published there, and, unless this process dispatches, all events.
    #[must_use]
    pub fn with_topic(self, topic: Arc<dyn Topic>, dispatches: bool) -> Self {
        Self {
            topic: Some(topic),
            dispatches,
            ..self
        }
    }

    /// Applies events in order, or publishes them if another process decides.
    ///
    /// # Errors
    /// See [`PublishError`]. Some of them may have been applied; sent again, they are duplicates.
    pub async fn submit(&self, events: Vec<Event>) -> Result<Submitted, PublishError> {
        match &self.topic {
            Some(topic) if !self.dispatches => {
                let count = events.len();
                topic.publish(events).await?;
                Ok(Submitted::Published(count))
            }
            _ => Ok(Submitted::Applied(self.decide(events).await?)),
        }
    }

    /// Applies events in order; returns their outcomes.
    ///
    /// # Errors
    /// See [`Unavailable`]. The first of them may have been applied; sent again, they are duplicates.
    pub async fn decide(&self, events: Vec<Event>) -> Result<Vec<Outcome>, Unavailable> {
        self.decide_holding(events, ()).await
    }

    /// As [`decide`](Self::decide); `guard` is dropped once the events are decided, even if the caller leaves before.
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
            desk.metrics.submitted(outcomes.as_deref());
            desk.decided.notify_one();
            drop(held);
            outcomes
        })
        .await
    }

    /// Waits for the next decision; returns at once if there was one since the last call.
    pub async fn decided(&self) {
        self.decided.notified().await;
    }

    /// Stores assignments that another process decided. Idempotent.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub async fn replicate(&self, assignments: Vec<Assignment>) -> Result<(), Unavailable> {
        self.store.replicate(assignments).await
    }

    /// Unpublished assignments, oldest first, at most `limit`.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub async fn outgoing(&self, limit: usize) -> Result<Vec<Outgoing>, Unavailable> {
        self.store.outgoing(limit).await
    }

    /// Removes published assignments from the outbox.
    ///
    /// # Errors
    /// See [`Unavailable`]; they are published again then.
    pub async fn mark_published(&self, numbers: Vec<u64>) -> Result<(), Unavailable> {
        self.store.mark_published(numbers).await
    }

    /// Where an order is; None if it is unknown.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub async fn order(&self, order: OrderId) -> Result<Option<Whereabouts>, Unavailable> {
        self.store.order(order).await
    }

    /// The orders of a courier, by id; none if the courier is unknown.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub async fn orders_of(&self, courier: CourierId) -> Result<Vec<OrderId>, Unavailable> {
        self.store.orders_of(courier).await
    }

    /// Changes a courier: `change` gets the current state, and its event goes to the topic if there is one, to the store otherwise. One
    /// change at a time per courier, so that concurrent changes of different fields are not lost.
    ///
    /// # Errors
    /// What `change` or the topic refuses; [`Unavailable`], after which a retry is safe.
    pub async fn change<E: From<Unavailable> + From<PublishError>>(
        &self,
        courier: CourierId,
        change: impl FnOnce(Option<&Courier>) -> Result<AddCourier, E>,
    ) -> Result<(), E> {
        let alone = self.turn(courier).lock_owned().await;
        let before = self.store.courier(courier).await?;
        let events = vec![Event::Courier(change(before.as_ref())?)];
        match &self.topic {
            Some(topic) => topic.publish(events).await?,
            None => self.decide_holding(events, alone).await.map(drop)?,
        }
        Ok(())
    }

    fn turn(&self, courier: CourierId) -> Arc<tokio::sync::Mutex<()>> {
        let mut changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        // Drops the locks that no request holds or waits for.
        changing.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(changing.entry(courier).or_default())
    }

    /// The couriers of a zone, or all, by id.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub async fn couriers(&self, zone: Option<Zone>) -> Result<Vec<Courier>, Unavailable> {
        self.store.couriers(zone).await
    }

    /// Parked orders, the longest waiting first within each zone, at most `limit`; and how many there are.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub async fn parked(&self, limit: usize) -> Result<(Vec<AddOrder>, u64), Unavailable> {
        self.store.parked(limit).await
    }

    /// The couriers and the parked orders of every zone.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub async fn zones(&self) -> Result<Vec<ZoneSummary>, Unavailable> {
        self.store.zones().await
    }

    /// None if the courier is unknown.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub async fn courier(&self, courier: CourierId) -> Result<Option<Courier>, Unavailable> {
        self.store.courier(courier).await
    }

    /// Updates the gauge of parked orders. Never ends.
    pub async fn count_parked(&self) {
        loop {
            // If the store is down, the gauge stays as it was.
            if let Ok((_, count)) = self.store.parked(0).await {
                self.metrics.parked(count);
            }
            tokio::time::sleep(COUNT_PARKED_EVERY).await;
        }
    }

    /// At most `limit` events of the log after `after`.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub async fn events(&self, after: u64, limit: usize) -> Result<Vec<Recorded>, Unavailable> {
        self.store.events(after, limit).await
    }
}

/// As precise as the stores.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

#[cfg(test)]
mod tests;
