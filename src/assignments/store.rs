//! The port: what the desk needs kept.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use jiff::civil::Date;
use tokio::sync::mpsc::UnboundedSender;

use super::error::{Refusal, Unavailable};
use super::model::{
    Assignment, Change, DriverChange, DriverId, Filter, Held, Place, Status, Update,
};
use crate::storage::State;

/// An answer that takes its time. Boxed, so that the service need not know which store it has.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Unavailable>> + Send + 'a>>;

/// A manifest as it is kept: compressed JSON, up to some megabytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sheet {
    /// Which one of its day it is: the same lists have the same.
    pub version: Version,
    /// The bytes.
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

/// What became of a [`Change`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// All of it is kept.
    Done,
    /// The day is no longer as the change took it to be. Of a store that cannot keep it all at once, parts may be kept: what
    /// some drivers gave up, or a number of what they were given.
    Outdated,
}

/// A status that was updated.
#[derive(Debug, Clone, PartialEq)]
pub struct Updated {
    /// What it was before.
    pub from: Status,
    /// As it is now.
    pub assignment: Assignment,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// In the store's order.
    pub assignments: Vec<Assignment>,
    /// Where it goes on, if it does.
    pub next: Option<Place>,
}

/// Keeps manifests and assignments. Whatever is answered is kept: no crash can take it away.
///
/// A package has one driver a day at most. A driver who is given the same package again on a later day has that day's record
/// from then on; whether the earlier one can still be listed is the store's affair. Of a driver who is given it on an earlier
/// day afterwards, it is the store's affair, too, which of the two records there is.
pub trait Store: fmt::Debug + Send + Sync {
    /// Replaces the day's manifest.
    fn keep_manifest(&self, date: Date, sheet: Sheet) -> Answer<'_, ()>;

    /// Which manifest the day has.
    fn manifest_version(&self, date: Date) -> Answer<'_, Option<Version>>;

    /// The day's manifest.
    fn manifest(&self, date: Date) -> Answer<'_, Option<Sheet>>;

    /// Everything that is held on a day, by whomever, in any order.
    fn held(&self, date: Date) -> Answer<'_, Vec<Held>>;

    /// What of it these drivers hold that is still [`Status::Assigned`], in any order.
    fn still_assigned(&self, date: Date, drivers: Vec<DriverId>) -> Answer<'_, Vec<Held>>;

    /// Gives up and gives. It is kept if, for each driver in it, the day is as the change takes it to be: they hold as many
    /// packages, what is given up is theirs and still assigned, and what is given is nobody's. Whatever part of it is kept is
    /// told to `kept`, also if the rest is not.
    fn change(&self, change: Change, kept: UnboundedSender<DriverChange>) -> Answer<'_, Changed>;

    /// Keeps a status, if the driver has the package, and it [may follow](Status::may_become).
    fn update(&self, update: Update) -> Answer<'_, Result<Updated, Refusal>>;

    /// Assignments that fit, from a place on, `limit` at most, or fewer where that took long; each exactly once if the list is
    /// followed until there is no `next`.
    fn list(&self, filter: Filter, after: Option<Place>, limit: usize) -> Answer<'_, Listing>;

    /// Whether what must be kept can be.
    fn is_healthy(&self) -> bool {
        self.state().down.is_none()
    }

    /// As [`Store::is_well`], with its time and reason.
    fn state(&self) -> State;
}

/// A store that was never opened: for describing the desk's API.
#[derive(Debug, Clone, Copy)]
pub struct Closed;

fn closed<T: Send + 'static>() -> Answer<'static, T> {
    Box::pin(std::future::ready(Err(Unavailable::Stopped)))
}

impl Store for Closed {
    fn keep_manifest(&self, _: Date, _: Sheet) -> Answer<'_, ()> {
        closed()
    }

    fn manifest_version(&self, _: Date) -> Answer<'_, Option<Version>> {
        closed()
    }

    fn manifest(&self, _: Date) -> Answer<'_, Option<Sheet>> {
        closed()
    }

    fn held(&self, _: Date) -> Answer<'_, Vec<Held>> {
        closed()
    }

    fn still_assigned(&self, _: Date, _: Vec<DriverId>) -> Answer<'_, Vec<Held>> {
        closed()
    }

    fn change(&self, _: Change, _: UnboundedSender<DriverChange>) -> Answer<'_, Changed> {
        closed()
    }

    fn update(&self, _: Update) -> Answer<'_, Result<Updated, Refusal>> {
        closed()
    }

    fn list(&self, _: Filter, _: Option<Place>, _: usize) -> Answer<'_, Listing> {
        closed()
    }

    fn state(&self) -> State {
        State::down("the store was never opened")
    }
}

/// What every store must do, whatever its engine.
#[cfg(test)]
pub(super) mod contract;
