//! The use cases of the desk; a handle that is cheap to clone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, OnceCell};

use super::error::{SpaceLow, Unavailable};
use super::metrics::Metrics;
use super::model::{Id, Package, PackageType, Processed, Sent, Statistics, Types, Update, Words};
use super::store::Store;
use crate::storage::{FreeSpace, carried_through};

/// Time between two commits for malformed requests alone.
const KEEP_EVERY: Duration = Duration::from_millis(250);

/// The desk.
#[derive(Debug, Clone)]
pub struct Packages {
    store: Arc<dyn Store>,
    types: Arc<Types>,
    future_max: Option<Duration>,
    space: FreeSpace,
    rejected: Arc<Rejected>,
    metrics: Metrics,
}

/// How many malformed requests there were. They are counted here and stored a few times a second: whoever sends nothing
/// else costs no flush for each.
#[derive(Debug, Default)]
struct Rejected {
    /// Since the beginning, before this process; read before this process stores a number for the first time.
    before: OnceCell<u64>,
    /// By this process.
    counted: AtomicU64,
    more: Notify,
}

impl Rejected {
    fn counted(&self) -> u64 {
        self.counted.load(Ordering::Relaxed)
    }
}

impl Packages {
    /// A desk for these types, which keeps everything in this store. `future_max`: how far ahead of the clock a preference
    /// may be stamped; nothing for any time. `space`: what must be left, as the public alone writes here.
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
            metrics,
        }
    }

    /// Whether there is space for a package or a preference.
    ///
    /// # Errors
    /// [`SpaceLow`], if too little is left.
    pub fn check_space(&self) -> Result<(), SpaceLow> {
        self.space.check()
    }

    /// Sends a package, if it was not sent before. Once this has answered, no crash can take it away.
    ///
    /// # Errors
    /// See [`Unavailable`]; the package may be sent again.
    pub async fn send(&self, package: Package) -> Result<Sent, Unavailable> {
        let Self { store, metrics, .. } = self.clone();
        carried_through(async move {
            let sent = store.send(package).await;
            metrics.sent(&sent);
            sent
        })
        .await
    }

    /// What became of a package.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub async fn package(&self, id: Id) -> Result<Option<Processed>, Unavailable> {
        self.store.package(id).await
    }

    /// Keeps what a recipient says: what they take from now on, by type, and whether all that was said holds.
    ///
    /// # Errors
    /// See [`Unavailable`]; it may be said again.
    pub async fn update(
        &self,
        update: Update,
    ) -> Result<(Vec<(PackageType, bool)>, bool), Unavailable> {
        let Self { store, metrics, .. } = self.clone();
        let updated = carried_through(async move {
            let (words, applied) = store.update(update).await?;
            metrics.updated(applied);
            Ok((words, applied))
        });
        let (words, applied) = updated.await?;
        Ok((self.taken(&words), applied))
    }

    /// What a recipient takes, by type.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub async fn preferences(
        &self,
        recipient: Id,
    ) -> Result<Vec<(PackageType, bool)>, Unavailable> {
        let words = self.store.words(recipient).await?;
        Ok(self.taken(&words))
    }

    /// Forgets what a recipient has said: the defaults hold, and the next preference is applied whatever its timestamp. So is
    /// an older one that is still on its way: nothing remains by which it could be told from a new one.
    ///
    /// # Errors
    /// See [`Unavailable`]; it may be repeated.
    pub async fn reset(&self, recipient: Id) -> Result<Vec<(PackageType, bool)>, Unavailable> {
        let Self { store, metrics, .. } = self.clone();
        let reset = carried_through(async move {
            store.reset(recipient).await?;
            metrics.reset();
            Ok(())
        });
        reset.await?;
        Ok(self.taken(&Words::new()))
    }

    /// The latest timestamp that a preference may have now; nothing if it may have any.
    pub fn latest(&self, now: Timestamp) -> Option<Timestamp> {
        let ahead = SignedDuration::try_from(self.future_max?).unwrap_or(SignedDuration::MAX);
        Some(now.checked_add(ahead).unwrap_or(Timestamp::MAX))
    }

    fn taken(&self, words: &Words) -> Vec<(PackageType, bool)> {
        let types = self.types.all();
        let taken = |(package_type, _)| {
            let word = words.get(&package_type);
            let by_default = self.types.is_taken_by_default(package_type);
            (package_type, word.map_or(by_default, |word| word.takes))
        };
        types.map(taken).collect()
    }

    /// Counts a malformed request, in memory; see [`Packages::keep_counts`].
    pub fn reject(&self) {
        self.metrics.rejected();
        self.rejected.counted.fetch_add(1, Ordering::Relaxed);
        self.rejected.more.notify_one();
    }

    /// Stores the number of malformed requests `KEEP_EVERY` so often while there are new ones, for as long as it is polled.
    /// A crash loses those of the last such time; a stop none, if [`Packages::keep_rejected`] follows.
    pub async fn keep_counts(&self) {
        loop {
            self.rejected.more.notified().await;
            tokio::time::sleep(KEEP_EVERY).await;
            if self.keep_rejected().await.is_err() {
                // Until it succeeds. What the log says of the storage says this too.
                self.rejected.more.notify_one();
            }
        }
    }

    /// Stores the number of malformed requests.
    ///
    /// # Errors
    /// See [`Unavailable`]; it may be repeated.
    pub async fn keep_rejected(&self) -> Result<(), Unavailable> {
        if self.rejected.counted() == 0 {
            return Ok(());
        }
        let stored = async { Ok(self.store.statistics().await?.rejected) };
        let before = *self.rejected.before.get_or_try_init(|| stored).await?;
        let total = before + self.rejected.counted();
        self.store.keep_rejected(total).await
    }

    /// How many there were since the beginning; every type that is configured is among them.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub async fn statistics(&self) -> Result<Statistics, Unavailable> {
        let mut statistics = self.store.statistics().await?;
        // If nobody has read it yet, this process has stored nothing yet: what was read is from before.
        let stored = statistics.rejected;
        let before = self.rejected.before.get_or_init(async || stored).await;
        statistics.rejected = before + self.rejected.counted();
        for (_, name) in self.types.all() {
            statistics.by_type.entry(name.to_owned()).or_default();
        }
        Ok(statistics)
    }

    /// The kinds of packages there are.
    pub fn types(&self) -> &Types {
        &self.types
    }

    /// A number that changes whenever something was kept or counted. Taken before a question it stands for what the answer
    /// tells, or less.
    pub fn version(&self) -> u64 {
        // Both only grow, so their sum never comes to the same again.
        self.store.version() + self.rejected.counted()
    }
}

#[cfg(test)]
mod tests;
