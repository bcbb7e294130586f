//! What one can do at the desk; a handle that is cheap to clone.

use std::sync::Arc;

use jiff::Timestamp;

use super::error::Unavailable;
use super::metrics::Metrics;
use super::model::{
    AddCourier, AddOrder, Courier, CourierId, Event, OrderId, Outcome, Whereabouts, Zone,
};
use super::store::{Recorded, Store};

/// The desk.
#[derive(Debug, Clone)]
pub struct Couriers {
    store: Arc<dyn Store>,
    metrics: Metrics,
}

impl Couriers {
    /// The desk, keeping everything in `store`.
    pub fn new(store: Arc<dyn Store>, metrics: Metrics) -> Self {
        Self { store, metrics }
    }

    /// Takes events in, one after the other: what each came to.
    ///
    /// # Errors
    /// See [`Unavailable`]. The first of them may have been taken in; sent again, they are duplicates, and nothing is doubled.
    pub async fn take_in(&self, events: Vec<Event>) -> Result<Vec<Outcome>, Unavailable> {
        let outcomes = self.store.apply(events, now()).await;
        self.metrics.taken_in(outcomes.as_deref());
        outcomes
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

    /// A courier; nothing if nobody ever heard of them.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub async fn courier(&self, courier: CourierId) -> Result<Option<Courier>, Unavailable> {
        self.store.courier(courier).await
    }

    /// Says how a courier is from now on.
    ///
    /// # Errors
    /// See [`Unavailable`]; it may be said again.
    pub async fn say(&self, courier: AddCourier) -> Result<(), Unavailable> {
        self.take_in(vec![Event::Courier(courier)]).await?;
        Ok(())
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
