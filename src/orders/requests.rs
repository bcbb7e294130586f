//! What a line is asked, and what it answers at once.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::hold::{Held, IdleBarista, LeaseGuard};
use super::idempotency::Keyed;
use super::line::Permit;
use super::model::{Order, OrderId, Outcome};
use crate::values::json::Opaque;

/// A request for an order.
#[derive(Debug, Default)]
pub struct Wanted {
    pub customer: Option<Box<str>>,
    pub details: Option<Opaque>,
    /// None if flood control does not count it.
    pub origin: Option<IpNet>,
    pub request_id: Option<Box<str>>,
    pub keyed: Option<Keyed>,
    /// The proxy's id of the request, if the proxy sends it again when this server is lost.
    pub proxied: Option<Box<str>>,
    /// Dropped when the order is final.
    pub permit: Option<Permit>,
}

/// The immediate result of placing an order.
#[derive(Debug)]
pub enum Placement {
    Held(Held),
    /// In line without a held request.
    Promised(OrderId),
    /// The key's order is final.
    Replayed(Outcome),
}

/// A barista's request for an order.
#[derive(Debug, Default)]
pub struct Pulling {
    pub barista: Option<Box<str>>,
    /// As [`Wanted::proxied`].
    pub proxied: Option<Box<str>>,
    /// For the next order if none waits.
    pub waits: bool,
}

/// The immediate result of a pull.
#[derive(Debug)]
pub enum Taken {
    Lease(LeaseGuard),
    /// No order waits.
    Idle(IdleBarista),
    /// No order waits, and the barista does not, or the line is closed.
    Nothing,
}

impl Taken {
    /// Without waiting.
    pub fn lease(self) -> Option<LeaseGuard> {
        match self {
            Self::Lease(guard) => Some(guard),
            Self::Idle(_) | Self::Nothing => None,
        }
    }

    /// The lease, or none after `wait`.
    pub async fn within(self, wait: Duration) -> Option<LeaseGuard> {
        match self {
            Self::Idle(idle) => idle.within(wait).await,
            other => other.lease(),
        }
    }
}

/// A barista's report that an order is ready.
#[derive(Debug, Default)]
pub struct Finishing {
    /// Only if it is still the current one.
    pub attempt: Option<u32>,
    /// For the order's customers.
    pub result: Option<Opaque>,
    /// As [`Wanted::proxied`].
    pub proxied: Option<Box<str>>,
}

/// The result of a finish.
#[derive(Debug, Clone)]
pub struct Report {
    pub order: Arc<Order>,
    pub already: bool,
}
