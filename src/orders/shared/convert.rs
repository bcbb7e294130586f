//! The store's records as orders, leases and views.

use std::time::{Duration, Instant};

use ipnet::IpNet;
use jiff::Timestamp;

use super::super::idempotency::IdempotencyKey;
use super::super::line;
use super::super::model::{Crew, Lease, Now, Order, OrderId, Presence, View};
use super::super::store::{Figures, Leased, Millis, Record, Viewed};
use crate::values::json::Opaque;

/// The store's clock as moments of both of this process's clocks. Of the instants only differences count.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    instant: Instant,
    at: Millis,
}

impl Clock {
    pub(super) fn start() -> Self {
        let at = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
        Self {
            instant: Instant::now(),
            at,
        }
    }

    fn now(self, at: Millis) -> Now {
        let instant = if at >= self.at {
            self.instant
                .checked_add(Duration::from_millis(at - self.at))
        } else {
            self.instant
                .checked_sub(Duration::from_millis(self.at - at))
        };
        Now {
            instant: instant.unwrap_or(self.instant),
            wall: wall(at),
        }
    }

    pub(super) fn order(self, id: OrderId, record: Record) -> Order {
        Order {
            id,
            customer: record.customer,
            origin: record
                .origin
                .and_then(|origin| origin.parse::<IpNet>().ok()),
            request_id: record.request_id,
            details: record.details.and_then(|text| Opaque::parse(&text)),
            result: record.result.and_then(|text| Opaque::parse(&text)),
            stage: record.stage.into(),
            placed: self.now(record.placed),
            started: record.started.map(|at| self.now(at)),
            ended: record.ended.map(|at| self.now(at)),
            barista: record.barista,
            attempts: record.attempts,
            delivered: record.delivered,
        }
    }

    pub(super) fn view(self, id: OrderId, viewed: Viewed) -> View {
        let crew = |present| if present { Crew::Present } else { Crew::Away };
        View {
            order: self.order(id, viewed.record),
            position: viewed
                .position
                .and_then(|place| usize::try_from(place).ok()),
            estimated_wait: viewed.estimated_wait.map(Duration::from_millis),
            crew: viewed.crew_present.map(crew),
            ask_before: viewed.ask_before.map(wall),
        }
    }
}

/// `pull`: see [`Lease::pull`].
pub(super) fn lease(leased: Leased, pull: u64) -> Lease {
    let Leased {
        id,
        record,
        expires,
    } = leased;
    let (placed, started) = (record.placed, record.started.unwrap_or(record.placed));
    Lease {
        id,
        attempt: record.attempts,
        placed_at: wall(placed),
        waited: Duration::from_millis(started.saturating_sub(placed)),
        lease_expires_at: wall(expires),
        customer_waiting: record.customers + record.watchers > 0,
        presence: if record.customers > 0 {
            Presence::Held
        } else if record.promised || record.watchers > 0 {
            Presence::Watching
        } else {
            Presence::Gone
        },
        customer: record.customer,
        request_id: record.request_id,
        details: record.details.and_then(|text| Opaque::parse(&text)),
        previous: None,
        pull,
    }
}

fn wall(at: Millis) -> Timestamp {
    let at = i64::try_from(at).ok();
    at.and_then(|at| Timestamp::from_millisecond(at).ok())
        .unwrap_or(Timestamp::MAX)
}

/// A key with its scope, as text.
pub(super) fn stored_key(key: &IdempotencyKey) -> Box<str> {
    key.with_scope().into()
}

/// The line's figures; `held` is this server's, so that those of all servers can be added.
pub(super) fn figures(figures: &Figures, held: usize) -> line::Figures {
    let count = |count| usize::try_from(count).unwrap_or(usize::MAX);
    line::Figures {
        waiting: count(figures.waiting),
        brewing: count(figures.brewing),
        ready: count(figures.ready),
        cancelled: count(figures.cancelled),
        held,
        idle_baristas: count(figures.idle_baristas),
        oldest_waiting: Duration::from_millis(figures.oldest_waiting),
    }
}
