//! The store's port.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use jiff::civil::Date;

use super::error::{Refusal, Unavailable};
use super::model::{
    Assignment, Change, DriverChange, DriverCounts, DriverId, Filter, Held, Place, Status, Update,
};
use crate::storage::State;

/// Boxed, so that the service is independent of the store's type.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Unavailable>> + Send + 'a>>;

/// Called with stored parts of a [`Change`]. Must not block.
pub type OnStored = Arc<dyn Fn(&[DriverChange]) + Send + Sync>;

/// A stored manifest: compressed JSON, up to some megabytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredManifest {
    /// Equal for equal lists of a day.
    pub version: Version,
    pub body: Arc<[u8]>,
}

/// A digest of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version(pub u128);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The result of a [`Change`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    Done,
    /// The day has changed since the plan was made. A store without atomic changes may have stored parts: what some drivers
    /// gave up, or some of what they got.
    Outdated,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Updated {
    /// The status before.
    pub from: Status,
    pub assignment: Assignment,
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// In the store's order.
    pub assignments: Vec<Assignment>,
    /// The next page's cursor, if there is one.
    pub next: Option<Place>,
}

/// Stores manifests and assignments. Every answered write is durable.
///
/// A package has at most one driver a day. If a driver gets the same package again on a later day, the record is that day's; whether
/// the earlier one is still listed depends on the store. After an assignment on an earlier day, which of the two records exists
/// depends on the store, too.
pub trait Store: fmt::Debug + Send + Sync {
    /// Replaces the day's manifest.
    fn store_manifest(&self, date: Date, manifest: StoredManifest) -> Answer<'_, ()>;

    fn manifest_version(&self, date: Date) -> Answer<'_, Option<Version>>;

    fn manifest(&self, date: Date) -> Answer<'_, Option<StoredManifest>>;

    /// Everything that is held on a day, in any order.
    fn held(&self, date: Date) -> Answer<'_, Vec<Held>>;

    /// The packages of these drivers that are still [`Status::Assigned`], in any order.
    fn still_assigned(&self, date: Date, drivers: Vec<DriverId>) -> Answer<'_, Vec<Held>>;

    /// How many packages each driver has on a day, by status; drivers by name, those with packages only.
    fn counts(&self, date: Date) -> Answer<'_, Vec<DriverCounts>>;

    /// Gives up and assigns packages, if for each driver the day has not changed since the plan: they hold as many packages,
    /// what is given up is theirs and still assigned, and what is assigned has no driver. Every stored part is passed to
    /// `on_stored` once, also if the rest fails.
    fn change(&self, change: Change, on_stored: OnStored) -> Answer<'_, Changed>;

    /// Sets a status, if the driver has the package, and the status [may follow](Status::may_become).
    fn update(&self, update: Update) -> Answer<'_, Result<Updated, Refusal>>;

    /// Matching assignments after a cursor, at most `limit`, or fewer if that took long; each exactly once if the list is
    /// followed until there is no `next`.
    fn list(&self, filter: Filter, after: Option<Place>, limit: usize) -> Answer<'_, Listing>;

    /// Whether writes succeed.
    fn is_healthy(&self) -> bool {
        self.state().down.is_none()
    }

    /// As [`Store::is_healthy`], with time and reason.
    fn state(&self) -> State;
}

/// The contract of every store.
#[cfg(test)]
pub(super) mod contract;
