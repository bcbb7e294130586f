//! The store's records as orders, leases and views.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use jiff::Timestamp;

use super::super::idempotency::IdempotencyKey;
use super::super::line;
use super::super::model::{
    Closed, Crew, Cup, Lease, Now, Order, OrderId, PickupNumber, Presence, Survey, View,
};
use super::super::store::{Figures, Leased, Millis, Record, Surveyed, Viewed};
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
            number: record.number.map(PickupNumber),
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

    pub(super) fn survey(self, surveyed: Surveyed) -> Survey {
        let orders = |orders: Vec<(OrderId, Record)>| {
            let orders = orders.into_iter();
            orders.map(|(id, record)| self.order(id, record)).collect()
        };
        let cup = |leased: Leased| Cup {
            presence: presence(&leased.record),
            order: self.order(leased.id, leased.record),
            remaining: Duration::from_millis(leased.expires.saturating_sub(surveyed.at)),
        };
        let count = |count| usize::try_from(count).unwrap_or(usize::MAX);
        Survey {
            now: self.now(surveyed.at),
            waiting: count(surveyed.waiting),
            idle_baristas: count(surveyed.idle_baristas),
            oldest_waiting: surveyed.oldest_waiting.map(Duration::from_millis),
            estimated_wait: surveyed.estimated_wait.map(Duration::from_millis),
            crew: crew(surveyed.crew_present),
            closed: surveyed.closed.map(|text| Arc::new(closed(&text))),
            next: orders(surveyed.next),
            cups: surveyed.cups.into_iter().map(cup).collect(),
            recent: orders(surveyed.recent),
        }
    }

    pub(super) fn view(self, id: OrderId, viewed: Viewed) -> View {
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

/// `remaining`: see [`Lease::remaining`]; `pull`: see [`Lease::pull`].
pub(super) fn lease(leased: Leased, remaining: Duration, pull: u64) -> Lease {
    let Leased {
        id,
        record,
        expires,
    } = leased;
    let (placed, started) = (record.placed, record.started.unwrap_or(record.placed));
    Lease {
        id,
        number: record.number.map(PickupNumber),
        attempt: record.attempts,
        placed_at: wall(placed),
        waited: Duration::from_millis(started.saturating_sub(placed)),
        lease_expires_at: wall(expires),
        remaining,
        customer_waiting: record.customers + record.watchers > 0,
        presence: presence(&record),
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

fn presence(record: &Record) -> Presence {
    Presence::new(record.customers > 0, record.watchers > 0, record.promised)
}

fn crew(present: bool) -> Crew {
    if present { Crew::Present } else { Crew::Away }
}

/// Text of another form is a line that is closed without a reason.
pub(super) fn closed(text: &str) -> Closed {
    serde_json::from_str(text).unwrap_or(Closed {
        message: BTreeMap::new(),
        until: None,
    })
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
