//! The use cases of the desk; a handle that is cheap to clone.

use std::sync::Arc;

use super::error::Unavailable;
use super::metrics::Metrics;
use super::model::{Id, Package, PackageType, Processed, Sent, Statistics, Types, Update, Words};
use super::store::Store;
use crate::storage::carried_through;

/// The desk.
#[derive(Debug, Clone)]
pub struct Packages {
    store: Arc<dyn Store>,
    types: Arc<Types>,
    metrics: Metrics,
}

impl Packages {
    /// A desk for these types, which keeps everything in this store.
    pub fn new(store: Arc<dyn Store>, types: Arc<Types>, metrics: Metrics) -> Self {
        Self {
            store,
            types,
            metrics,
        }
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

    fn taken(&self, words: &Words) -> Vec<(PackageType, bool)> {
        let types = self.types.all();
        let taken = |(package_type, _)| {
            let word = words.get(&package_type);
            let by_default = self.types.is_taken_by_default(package_type);
            (package_type, word.map_or(by_default, |word| word.takes))
        };
        types.map(taken).collect()
    }

    /// Counts a malformed request; returns once no crash can take the count away, or it could not be kept.
    pub async fn reject(&self) {
        self.metrics.rejected();
        let store = Arc::clone(&self.store);
        // The request is refused in any case; what the log says of the storage says this too.
        let _ = carried_through(async move { store.reject().await }).await;
    }

    /// How many there were since the beginning; every type that is configured is among them.
    ///
    /// # Errors
    /// See [`Unavailable`].
    pub async fn statistics(&self) -> Result<Statistics, Unavailable> {
        let mut statistics = self.store.statistics().await?;
        for (_, name) in self.types.all() {
            statistics.by_type.entry(name.to_owned()).or_default();
        }
        Ok(statistics)
    }

    /// The kinds of packages there are.
    pub fn types(&self) -> &Types {
        &self.types
    }

    /// A number that changes whenever something was kept. Taken before a question it stands for what the answer tells,
    /// or less.
    pub fn version(&self) -> u64 {
        self.store.version()
    }
}
