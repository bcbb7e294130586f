//! The port: what the desk needs kept.

use std::fmt;
use std::pin::Pin;

use super::error::Unavailable;
use super::model::{Id, Package, Processed, Sent, Statistics, Update, Words};

/// An answer that takes its time. Boxed, so that the service need not know which store it has.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Unavailable>> + Send + 'a>>;

/// Keeps the ledger, the preferences and the statistics. A store is made with the desk's
/// [`Types`](super::model::Types), by which packages are decided inside the transaction that keeps them.
pub trait Store: fmt::Debug + Send + Sync {
    /// Processes a package, or finds that it was processed before. Answers once no crash can take it away.
    fn send(&self, package: Package) -> Answer<'_, Sent>;

    /// What became of a package; nothing if it was never processed, or is forgotten.
    fn package(&self, id: Id) -> Answer<'_, Option<Processed>>;

    /// Keeps what a recipient says: what holds from now on, and whether all of it does.
    fn update(&self, update: Update) -> Answer<'_, (Words, bool)>;

    /// What a recipient has said; empty for a stranger.
    fn words(&self, recipient: Id) -> Answer<'_, Words>;

    /// Forgets what a recipient has said: from then on they are a stranger. Answers once no crash can bring it back.
    fn reset(&self, recipient: Id) -> Answer<'_, ()>;

    /// Stores how many malformed requests there were since the beginning. A number below the stored one changes nothing, so
    /// a call that failed may be repeated.
    fn keep_rejected(&self, total: u64) -> Answer<'_, ()>;

    /// How many there were since the beginning.
    fn statistics(&self) -> Answer<'_, Statistics>;

    /// A number that changes whenever something was kept. Taken before a read it stands for what the read saw, or less.
    fn version(&self) -> u64;
}

/// A store that was never opened: for describing the desk's API.
#[derive(Debug, Clone, Copy)]
pub struct Closed;

fn closed<T: Send + 'static>() -> Answer<'static, T> {
    Box::pin(std::future::ready(Err(Unavailable::Stopped)))
}

impl Store for Closed {
    fn send(&self, _: Package) -> Answer<'_, Sent> {
        closed()
    }

    fn package(&self, _: Id) -> Answer<'_, Option<Processed>> {
        closed()
    }

    fn update(&self, _: Update) -> Answer<'_, (Words, bool)> {
        closed()
    }

    fn words(&self, _: Id) -> Answer<'_, Words> {
        closed()
    }

    fn reset(&self, _: Id) -> Answer<'_, ()> {
        closed()
    }

    fn keep_rejected(&self, _: u64) -> Answer<'_, ()> {
        closed()
    }

    fn statistics(&self) -> Answer<'_, Statistics> {
        closed()
    }

    fn version(&self) -> u64 {
        0
    }
}

/// What every store must do, whatever its engine.
#[cfg(test)]
pub(super) mod contract;
