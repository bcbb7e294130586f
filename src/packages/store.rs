//! The store's port.

use std::fmt;
use std::pin::Pin;

use super::error::Unavailable;
use super::model::{Id, Package, Preferences, Processed, Sent, Statistics, Update};

/// Boxed, so that the service is independent of the store's type.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Unavailable>> + Send + 'a>>;

/// Stores the ledger, the preferences and the statistics. A store is created with the desk's [`Types`](super::model::Types), by
/// which it decides about a package in the transaction that adds it.
pub trait Store: fmt::Debug + Send + Sync {
    /// Processes a package, or returns its first outcome. Durable once it has answered.
    fn send(&self, package: Package) -> Answer<'_, Sent>;

    /// A package's outcome; None if it was never processed, or has expired.
    fn package(&self, id: Id) -> Answer<'_, Option<Processed>>;

    /// Applies an update: the preferences after it, and whether all of it was applied.
    fn update(&self, update: Update) -> Answer<'_, (Preferences, bool)>;

    /// A recipient's preferences; empty if there are none.
    fn preferences(&self, recipient: Id) -> Answer<'_, Preferences>;

    /// Deletes a recipient's preferences. Durable once it has answered.
    fn reset(&self, recipient: Id) -> Answer<'_, ()>;

    /// Stores the number of malformed requests since the beginning. A number below the stored one changes nothing, so a failed
    /// call can be retried.
    fn store_rejected(&self, total: u64) -> Answer<'_, ()>;

    fn statistics(&self) -> Answer<'_, Statistics>;

    /// Changes with every commit. Read before a query it is a lower bound of what the query saw.
    fn version(&self) -> u64;
}

/// The contract of every store.
#[cfg(test)]
pub(super) mod contract;
