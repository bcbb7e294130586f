//! The line as its screens show it: surveyed at most five times a second, however many look at it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep_until};

use super::error::Unavailable;
use super::model::Survey;
use super::service::Orders;

/// How old a survey may be.
const FRESH: Duration = Duration::from_millis(200);

/// A handle; cheap to clone.
#[derive(Debug, Clone)]
pub struct Screens {
    orders: Orders,
    latest: Arc<Mutex<Option<Latest>>>,
}

#[derive(Debug)]
struct Latest {
    at: Instant,
    /// Of the line's changes, before it was surveyed.
    generation: u64,
    survey: Arc<Survey>,
}

impl Screens {
    pub fn new(orders: Orders) -> Self {
        Self {
            orders,
            latest: Arc::default(),
        }
    }

    /// The line with all that has changed so far.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn survey(&self) -> Result<Arc<Survey>, Unavailable> {
        let mut latest = self.latest.lock().await;
        if let Some(known) = &*latest
            && known.at.elapsed() < FRESH
        {
            if known.generation == self.orders.changes().generation() {
                return Ok(Arc::clone(&known.survey));
            }
            // All others who ask wait for the same one.
            sleep_until(known.at + FRESH).await;
        }
        let generation = self.orders.changes().generation();
        let survey = Arc::new(self.orders.survey().get().await?);
        *latest = Some(Latest {
            at: Instant::now(),
            generation,
            survey: Arc::clone(&survey),
        });
        Ok(survey)
    }

    /// Changes from now on.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.orders.changes().of_any()
    }
}
