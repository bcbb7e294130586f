//! JSON types of the order line.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::model::{CUSTOMER_CHARS_MAX, Crew, DRINK, Lease, Order, View};
use super::super::service::Report;
use crate::values::json::{Fields, Read};
use crate::values::time::Moment;

/// An order, as a customer sends it.
#[derive(Debug, ToSchema)]
pub(super) struct NewOrder {
    /// The customer's name, 1 to 200 characters.
    #[schema(min_length = 1, max_length = 200, example = "Ada")]
    pub(super) customer: Option<String>,
}

impl Read for NewOrder {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let customer = fields.maybe("customer", |fields| {
            fields.text("customer", 1..=CUSTOMER_CHARS_MAX)
        });
        Some(Self {
            customer: customer?.map(str::to_owned),
        })
    }
}

/// A coffee that is ready.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReadyOrder {
    /// UUID version 7.
    pub(super) order_id: Uuid,
    #[schema(example = "americano")]
    pub(super) drink: &'static str,
    #[schema(example = "ready")]
    pub(super) status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) customer: Option<Box<str>>,
    /// Leases so far.
    #[schema(minimum = 1)]
    pub(super) attempts: u32,
    #[schema(value_type = String, format = DateTime)]
    pub(super) placed_at: Moment,
    #[schema(value_type = String, format = DateTime)]
    pub(super) started_at: Moment,
    #[schema(value_type = String, format = DateTime)]
    pub(super) finished_at: Moment,
    /// Time in line, milliseconds.
    pub(super) waited_ms: u64,
    /// From the last start to the finish, milliseconds.
    pub(super) brew_ms: u64,
}

impl ReadyOrder {
    pub(super) fn of(order: &Order) -> Self {
        // A ready order has both; `placed` is a fallback that is never used.
        let started = order.started.unwrap_or(order.placed);
        let ended = order.ended.unwrap_or(order.placed);
        Self {
            order_id: order.id.0,
            drink: DRINK,
            status: order.stage.as_str(),
            customer: order.customer.clone(),
            attempts: order.attempts,
            placed_at: order.placed.wall.into(),
            started_at: started.wall.into(),
            finished_at: ended.wall.into(),
            waited_ms: millis(order.waited(ended)),
            brew_ms: millis(order.brewed(ended)),
        }
    }
}

/// An order as its customer sees it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OrderState {
    /// UUID version 7.
    pub(super) order_id: Uuid,
    #[schema(example = "americano")]
    pub(super) drink: &'static str,
    /// waiting, brewing, ready or cancelled.
    #[schema(example = "waiting")]
    pub(super) status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) customer: Option<Box<str>>,
    /// Place in line while waiting; 1 is next.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, nullable = false)]
    pub(super) position: Option<usize>,
    /// By the crew's measured pace, milliseconds; absent while nothing is measured or the crew is away.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) estimated_wait_ms: Option<u64>,
    /// While waiting: `present`, or `away` without a barista for a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "present")]
    pub(super) crew: Option<&'static str>,
    /// While waiting, of an order that was promised (202): it is cancelled unless it is polled before then.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = DateTime, nullable = false)]
    pub(super) ask_before: Option<Moment>,
    /// Leases so far.
    pub(super) attempts: u32,
    #[schema(value_type = String, format = DateTime)]
    pub(super) placed_at: Moment,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = DateTime, nullable = false)]
    pub(super) started_at: Option<Moment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = DateTime, nullable = false)]
    pub(super) finished_at: Option<Moment>,
}

impl From<View> for OrderState {
    fn from(view: View) -> Self {
        let order = view.order;
        Self {
            order_id: order.id.0,
            drink: DRINK,
            status: order.stage.as_str(),
            customer: order.customer,
            position: view.position,
            estimated_wait_ms: view.estimated_wait.map(millis),
            crew: view.crew.map(Crew::as_str),
            ask_before: view.ask_before.map(Moment::from),
            attempts: order.attempts,
            placed_at: order.placed.wall.into(),
            started_at: order.started.map(|at| at.wall.into()),
            finished_at: order.ended.map(|at| at.wall.into()),
        }
    }
}

/// An order, as a barista gets it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StartedOrder {
    /// UUID version 7.
    pub(super) order_id: Uuid,
    #[schema(example = "americano")]
    pub(super) drink: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) customer: Option<Box<str>>,
    /// The number of the lease.
    #[schema(minimum = 1)]
    pub(super) attempt: u32,
    #[schema(value_type = String, format = DateTime)]
    pub(super) placed_at: Moment,
    /// Time in line, milliseconds.
    pub(super) waited_ms: u64,
    /// Until then the order is this barista's, unless extended.
    #[schema(value_type = String, format = DateTime)]
    pub(super) lease_expires_at: Moment,
    /// Whether a request is held for it right now.
    pub(super) customer_waiting: bool,
    /// `held`: a customer's request is held for it. `watching`: none is, but its customer was answered 202 and polls, or a
    /// request waits for its state to change. `gone`: the customer left; one with an idempotency key may reconnect.
    #[schema(example = "held")]
    pub(super) customer_presence: &'static str,
}

impl StartedOrder {
    pub(super) fn of(lease: &Lease) -> Self {
        Self {
            order_id: lease.id.0,
            drink: DRINK,
            customer: lease.customer.clone(),
            attempt: lease.attempt,
            placed_at: lease.placed_at.into(),
            waited_ms: millis(lease.waited),
            lease_expires_at: lease.lease_expires_at.into(),
            customer_waiting: lease.customer_waiting,
            customer_presence: lease.presence.as_str(),
        }
    }
}

/// A coffee reported ready.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FinishedOrder {
    /// UUID version 7.
    pub(super) order_id: Uuid,
    #[schema(example = "ready")]
    pub(super) status: &'static str,
    /// Whether a request was held for it.
    pub(super) delivered: bool,
    /// It had been reported before.
    pub(super) already: bool,
    /// Leases so far.
    #[schema(minimum = 1)]
    pub(super) attempts: u32,
    /// The latest barista, if they gave a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) barista: Option<Box<str>>,
    #[schema(value_type = String, format = DateTime)]
    pub(super) finished_at: Moment,
    /// Time in line, milliseconds.
    pub(super) waited_ms: u64,
    /// From the last start to the finish, milliseconds.
    pub(super) brew_ms: u64,
}

impl FinishedOrder {
    pub(super) fn of(Report { order, already }: &Report) -> Self {
        let ended = order.ended.unwrap_or(order.placed);
        Self {
            order_id: order.id.0,
            status: order.stage.as_str(),
            delivered: order.delivered,
            already: *already,
            attempts: order.attempts,
            barista: order.barista.clone(),
            finished_at: ended.wall.into(),
            waited_ms: millis(order.waited(ended)),
            brew_ms: millis(order.brewed(ended)),
        }
    }
}

/// The answer to a finish with `next`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FinishedAndNext {
    pub(super) finished: FinishedOrder,
    /// The next order, as from `/start/`; null if none waits.
    pub(super) next: Option<StartedOrder>,
}

/// The answer to a finish: plain, or with `next`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes the two forms to readers of the API")]
pub(super) enum FinishAnswer {
    Plain(FinishedOrder),
    WithNext(FinishedAndNext),
}

/// A renewed lease.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ExtendedOrder {
    /// UUID version 7.
    pub(super) order_id: Uuid,
    /// The number of the lease.
    #[schema(minimum = 1)]
    pub(super) attempt: u32,
    #[schema(value_type = String, format = DateTime)]
    pub(super) lease_expires_at: Moment,
    /// Whether a request is held for it right now.
    pub(super) customer_waiting: bool,
    /// `held`: a customer's request is held for it. `watching`: none is, but its customer was answered 202 and polls, or a
    /// request waits for its state to change. `gone`: the customer left; one with an idempotency key may reconnect.
    #[schema(example = "held")]
    pub(super) customer_presence: &'static str,
}

/// An order given back.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReleasedOrder {
    /// UUID version 7.
    pub(super) order_id: Uuid,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
