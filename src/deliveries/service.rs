//! The desk's use cases; a handle that is cheap to clone.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::error::{RecordError, SpaceLow, Unavailable};
use super::metrics::Metrics;
use super::model::{Counts, Delivery, DeliveryId, Event, EventType, History};
use super::store::{NewEvent, Recorded, Store};
use crate::storage::{Clock, FreeSpace, carried_through};

#[derive(Debug, Clone)]
pub struct Deliveries {
    store: Arc<dyn Store>,
    stale_after: Duration,
    /// Advances with the uptime.
    clock: Clock,
    /// What must be free for the public's events; None for the staff's.
    space: Option<FreeSpace>,
    metrics: Arc<Metrics>,
}

impl Deliveries {
    pub fn new(store: Arc<dyn Store>, stale_after: Duration, metrics: Metrics) -> Self {
        Self {
            store,
            stale_after,
            clock: Clock::starting_at(Timestamp::now()),
            space: None,
            metrics: Arc::new(metrics),
        }
    }

    /// The desk for the public, which accepts no events while space is low.
    #[must_use]
    pub fn public(self, space: FreeSpace) -> Self {
        Self {
            space: Some(space),
            ..self
        }
    }

    /// # Errors
    /// [`SpaceLow`], if this is the public's desk and less than the minimum is free.
    pub fn check_space(&self) -> Result<(), SpaceLow> {
        self.space.as_ref().map_or(Ok(()), FreeSpace::check)
    }

    /// Records an event. Durable once it has answered.
    ///
    /// # Errors
    /// See [`RecordError`]; nothing of the event is stored then.
    pub async fn record(
        &self,
        delivery: DeliveryId,
        event_type: EventType,
        key: Option<Box<str>>,
    ) -> Result<Recorded, RecordError> {
        let event = NewEvent {
            delivery,
            event_type,
            key,
            received_at: now(),
            is_public: self.space.is_some(),
        };
        let (store, metrics) = (Arc::clone(&self.store), Arc::clone(&self.metrics));
        carried_through(async move {
            let recorded = store.record(event).await;
            metrics.recorded(&recorded);
            recorded
        })
        .await
    }

    /// All ongoing deliveries, oldest first.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub async fn ongoing(&self) -> Result<Vec<Delivery>, Unavailable> {
        self.store.ongoing().await
    }

    /// # Errors
    /// See [`Unavailable`].
    pub async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>, Unavailable> {
        self.store.delivery(id).await
    }

    /// One delivery with all its events.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub async fn history(&self, id: DeliveryId) -> Result<Option<History>, Unavailable> {
        self.store.history(id).await
    }

    /// # Errors
    /// See [`Unavailable`].
    pub async fn event(&self, id: DeliveryId, sequence: u32) -> Result<Option<Event>, Unavailable> {
        self.store.event(id, sequence).await
    }

    /// # Errors
    /// See [`Unavailable`].
    pub async fn counts(&self) -> Result<Counts, Unavailable> {
        self.store.counts().await
    }

    /// Time without an event after which an ongoing delivery is stale.
    pub fn stale_after(&self) -> Duration {
        self.stale_after
    }

    /// The time for staleness: the wall clock's, but never ahead of the uptime. A jump of the wall clock makes no delivery
    /// stale.
    pub fn time(&self) -> Timestamp {
        Timestamp::now().min(self.clock.now())
    }

    /// Changes with every recorded event. Read before a query it is a lower bound of what the query saw.
    pub fn version(&self) -> u64 {
        self.store.version()
    }
}

/// The time in microseconds, the stores' precision.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}
