//! The desk's use cases; a handle that is cheap to clone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, OnceCell};

use super::error::{SpaceLow, Unavailable};
use super::metrics::Metrics;
use super::model::{
    Id, Package, PackageType, Preferences, Processed, Sent, Statistics, Types, Update,
};
use super::store::Store;
use crate::storage::{FreeSpace, carried_through};

/// Interval of commits for malformed requests alone.
const STORE_EVERY: Duration = Duration::from_millis(250);

#[derive(Debug, Clone)]
pub struct Packages {
    store: Arc<dyn Store>,
    types: Arc<Types>,
    future_max: Option<Duration>,
    space: FreeSpace,
    rejected: Arc<Rejected>,
    metrics: Arc<Metrics>,
}

/// The number of malformed requests. They are counted in memory and stored a few times a second: otherwise each would cost a
/// flush.
#[derive(Debug, Default)]
struct Rejected {
    /// The stored number before this process; read before this process stores one.
    before: OnceCell<u64>,
    /// Counted by this process.
    counted: AtomicU64,
    more: Notify,
}

impl Rejected {
    fn counted(&self) -> u64 {
        self.counted.load(Ordering::Relaxed)
    }
}

impl Packages {
    /// `future_max`: how far ahead of the clock a preference's timestamp may be; None for any. `space`: what must be free,
    /// since only the public writes here.
    pub fn new(
        store: Arc<dyn Store>,
        types: Arc<Types>,
        future_max: Option<Duration>,
        space: FreeSpace,
        metrics: Metrics,
    ) -> Self {
        Self {
            store,
            types,
            future_max,
            space,
            rejected: Arc::default(),
            metrics: Arc::new(metrics),
        }
    }

    /// # Errors
    /// [`SpaceLow`], if less than the minimum is free.
    pub fn check_space(&self) -> Result<(), SpaceLow> {
        self.space.check()
    }

    /// Processes a package, unless it was sent before. Durable once it has answered.
    ///
    /// # Errors
    /// See [`Unavailable`]; a retry is safe.
    pub async fn send(&self, package: Package) -> Result<Sent, Unavailable> {
        let (store, metrics) = (Arc::clone(&self.store), Arc::clone(&self.metrics));
        carried_through(async move {
            let sent = store.send(package).await;
            metrics.sent(&sent);
            sent
        })
        .await
    }

    /// # Errors
    /// See [`Unavailable`].
    pub async fn package(&self, id: Id) -> Result<Option<Processed>, Unavailable> {
        self.store.package(id).await
    }

    /// Applies an update: the preferences after it, by type, and whether all of it was applied.
    ///
    /// # Errors
    /// See [`Unavailable`]; a retry is safe.
    pub async fn update(
        &self,
        update: Update,
    ) -> Result<(Vec<(PackageType, bool)>, bool), Unavailable> {
        let (store, metrics) = (Arc::clone(&self.store), Arc::clone(&self.metrics));
        let updated = carried_through(async move {
            let (preferences, applied) = store.update(update).await?;
            metrics.updated(applied);
            Ok((preferences, applied))
        });
        let (preferences, applied) = updated.await?;
        Ok((self.effective(&preferences), applied))
    }

    /// A recipient's preferences by type, defaults included.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub async fn preferences(
        &self,
        recipient: Id,
    ) -> Result<Vec<(PackageType, bool)>, Unavailable> {
        let preferences = self.store.preferences(recipient).await?;
        Ok(self.effective(&preferences))
    }

    /// Whether a recipient has set a preference.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub async fn has_preferences(&self, recipient: Id) -> Result<bool, Unavailable> {
        Ok(!self.store.preferences(recipient).await?.is_empty())
    }

    /// Deletes a recipient's preferences: the defaults hold, and the next preference is applied whatever its timestamp, also an older
    /// one that arrives late: nothing is left to compare it to.
    ///
    /// # Errors
    /// See [`Unavailable`]; a retry is safe.
    pub async fn reset(&self, recipient: Id) -> Result<Vec<(PackageType, bool)>, Unavailable> {
        let (store, metrics) = (Arc::clone(&self.store), Arc::clone(&self.metrics));
        let reset = carried_through(async move {
            store.reset(recipient).await?;
            metrics.reset();
            Ok(())
        });
        reset.await?;
        Ok(self.effective(&Preferences::new()))
    }

    /// The latest timestamp that a preference may have now; None if it may have any.
    pub fn latest(&self, now: Timestamp) -> Option<Timestamp> {
        let ahead = SignedDuration::try_from(self.future_max?).unwrap_or(SignedDuration::MAX);
        Some(now.checked_add(ahead).unwrap_or(Timestamp::MAX))
    }

    fn effective(&self, preferences: &Preferences) -> Vec<(PackageType, bool)> {
        let types = self.types.all();
        let taken = |(package_type, _)| {
            let preference = preferences.get(&package_type);
            let by_default = self.types.is_accepted_by_default(package_type);
            (
                package_type,
                preference.map_or(by_default, |preference| preference.takes),
            )
        };
        types.map(taken).collect()
    }

    /// Counts a malformed request, in memory; see [`Packages::store_counts`].
    pub fn reject(&self) {
        self.metrics.rejected();
        self.rejected.counted.fetch_add(1, Ordering::Relaxed);
        self.rejected.more.notify_one();
    }

    /// Stores the number of malformed requests every `STORE_EVERY` while there are new ones. Never ends. A crash loses those of
    /// the last interval; a stop none, if [`Packages::store_rejected`] follows.
    pub async fn store_counts(&self) {
        loop {
            self.rejected.more.notified().await;
            tokio::time::sleep(STORE_EVERY).await;
            if self.store_rejected().await.is_err() {
                // Retried until it succeeds. The storage logs the failure.
                self.rejected.more.notify_one();
            }
        }
    }

    /// Stores the number of malformed requests.
    ///
    /// # Errors
    /// See [`Unavailable`]; a retry is safe.
    pub async fn store_rejected(&self) -> Result<(), Unavailable> {
        if self.rejected.counted() == 0 {
            return Ok(());
        }
        let stored = async { Ok(self.store.statistics().await?.rejected) };
        let before = *self.rejected.before.get_or_try_init(|| stored).await?;
        let total = before + self.rejected.counted();
        self.store.store_rejected(total).await
    }

    /// Counts since the beginning, including all configured types.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub async fn statistics(&self) -> Result<Statistics, Unavailable> {
        let mut statistics = self.store.statistics().await?;
        // If `before` is not set, this process has stored nothing yet.
        let stored = statistics.rejected;
        let before = self.rejected.before.get_or_init(async || stored).await;
        statistics.rejected = before + self.rejected.counted();
        for (_, name) in self.types.all() {
            statistics.by_type.entry(name.to_owned()).or_default();
        }
        Ok(statistics)
    }

    pub fn types(&self) -> &Types {
        &self.types
    }

    /// Changes with every commit and count. Read before a query it is a lower bound of what the query saw.
    pub fn version(&self) -> u64 {
        // Both only grow, so their sum never repeats.
        self.store.version() + self.rejected.counted()
    }
}

#[cfg(test)]
mod tests;
