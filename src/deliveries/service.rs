//! The use cases of the desk; a handle that is cheap to clone.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::error::{RecordError, SpaceLow, Unavailable};
use super::metrics::Metrics;
use super::model::{Counts, Delivery, DeliveryId, Event, EventType, History};
use super::store::{NewEvent, Recorded, Store};
use crate::storage::{Clock, FreeSpace, carried_through};

/// The desk.
#[derive(Debug, Clone)]
pub struct Deliveries {
    store: Arc<dyn Store>,
    stale_after: Duration,
    /// Advances with the uptime.
    clock: Clock,
    /// What must be left for the public's events; nothing for the staff's.
    space: Option<FreeSpace>,
    metrics: Metrics,
}

impl Deliveries {
    /// A desk that keeps its deliveries in this store.
    pub fn new(store: Arc<dyn Store>, stale_after: Duration, metrics: Metrics) -> Self {
        Self {
            store,
            stale_after,
            clock: Clock::starting_at(Timestamp::now()),
            space: None,
            metrics,
        }
    }

    /// The desk as the public meets it, which takes nothing in while too little space is left.
    #[must_use]
    pub fn public(self, space: FreeSpace) -> Self {
        Self {
            space: Some(space),
            ..self
        }
    }

    /// Whether there is space for an event.
    ///
    /// # Errors
    /// [`SpaceLow`], if this is the public's desk and too little is left.
    pub fn check_space(&self) -> Result<(), SpaceLow> {
        self.space.as_ref().map_or(Ok(()), FreeSpace::check)
    }

    /// Records an event. Once this has answered, no crash can take it away.
    ///
    /// # Errors
    /// See [`RecordError`]; nothing of the event is kept then.
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
        let (store, metrics) = (Arc::clone(&self.store), self.metrics.clone());
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

    /// One delivery.
    ///
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

    /// One event.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub async fn event(&self, id: DeliveryId, sequence: u32) -> Result<Option<Event>, Unavailable> {
        self.store.event(id, sequence).await
    }

    /// How many deliveries there are.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub async fn counts(&self) -> Result<Counts, Unavailable> {
        self.store.counts().await
    }

    /// Silence after which an ongoing delivery is stale.
    pub fn stale_after(&self) -> Duration {
        self.stale_after
    }

    /// The time by which silence is measured: the wall clock's, unless that is ahead of the uptime. A clock that jumps ahead
    /// makes nobody silent.
    pub fn time(&self) -> Timestamp {
        Timestamp::now().min(self.clock.now())
    }

    /// A number that changes whenever something was recorded. Taken before a question it stands for what the answer
    /// tells, or less.
    pub fn version(&self) -> u64 {
        self.store.version()
    }
}

/// The time, as precisely as every store keeps it: in microseconds.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}
