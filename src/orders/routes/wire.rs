//! JSON types of the order line. Those of a cycle's answers are written by hand; a test compares them with their schemas.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::model::{CUSTOMER_CHARS_MAX, Crew, DRINK, Label, Lease, Order, Stage, View};
use super::super::requests::Report;
use crate::values::json::{Fields, Opaque, Read};
use crate::values::object::{WriteJson, object};
use crate::values::time::Moment;

/// An order, as a customer sends it.
#[derive(Debug, ToSchema)]
pub(super) struct NewOrder {
    /// The customer's name, 1 to 200 characters.
    #[schema(min_length = 1, max_length = 200, example = "Ada")]
    pub(super) customer: Option<String>,
    /// Any JSON, which the barista receives with the order; as compact text at most `orders.details_max_bytes` long.
    #[schema(value_type = Option<serde_json::Value>)]
    pub(super) details: Option<Opaque>,
}

impl Read for NewOrder {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let customer = fields.maybe("customer", |fields| {
            fields.text("customer", 1..=CUSTOMER_CHARS_MAX)
        });
        Some(Self {
            customer: customer?.map(str::to_owned),
            details: fields.look("details").map(Opaque::new),
        })
    }
}

/// What a barista reports with a finished order.
#[derive(Debug, ToSchema)]
pub(super) struct FinishReport {
    /// Any JSON, which the customers of the order receive; as compact text at most `orders.details_max_bytes` long.
    #[schema(value_type = Option<serde_json::Value>)]
    pub(super) result: Option<Opaque>,
}

impl Read for FinishReport {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        // Reports an error if it is not an object.
        fields.is_object().then(|| Self {
            result: fields.look("result").map(Opaque::new),
        })
    }
}

/// A coffee that is ready.
#[derive(Debug, ToSchema)]
pub(super) struct ReadyOrder {
    /// UUID version 7.
    pub(super) order_id: Uuid,
    /// The pick-up number, which is called at the counter.
    #[schema(value_type = String, example = "A47")]
    pub(super) number: Label,
    #[schema(example = "americano")]
    pub(super) drink: &'static str,
    #[schema(example = "ready")]
    pub(super) status: &'static str,
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
    /// What the barista reported with it.
    #[schema(value_type = Option<serde_json::Value>)]
    pub(super) result: Option<Opaque>,
}

impl ReadyOrder {
    pub(super) fn of(order: &Order) -> Self {
        // A ready order has both; `placed` is a fallback that is never used.
        let started = order.started.unwrap_or(order.placed);
        let ended = order.ended.unwrap_or(order.placed);
        Self {
            order_id: order.id.0,
            number: order.label(),
            drink: DRINK,
            status: order.stage.as_str(),
            customer: order.customer.clone(),
            attempts: order.attempts,
            placed_at: order.placed.wall.into(),
            started_at: started.wall.into(),
            finished_at: ended.wall.into(),
            waited_ms: millis(order.waited(ended)),
            brew_ms: millis(order.brewed(ended)),
            result: order.result.clone(),
        }
    }
}

impl WriteJson for ReadyOrder {
    fn write(&self, json: &mut Vec<u8>) {
        object(json, |object| {
            object
                .put("\"order_id\":", &self.order_id)
                .put("\"number\":", self.number.as_str())
                .put("\"drink\":", self.drink)
                .put("\"status\":", self.status)
                .put_some("\"customer\":", self.customer.as_deref())
                .put("\"attempts\":", &self.attempts)
                .put("\"placed_at\":", &self.placed_at)
                .put("\"started_at\":", &self.started_at)
                .put("\"finished_at\":", &self.finished_at)
                .put("\"waited_ms\":", &self.waited_ms)
                .put("\"brew_ms\":", &self.brew_ms)
                .put_some("\"result\":", self.result.as_ref());
        });
    }
}

/// An order as its customer sees it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OrderState {
    /// UUID version 7.
    pub(super) order_id: Uuid,
    /// The pick-up number, which is called at the counter.
    #[schema(example = "A47")]
    pub(super) number: String,
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
    /// While brewing: who makes it, if they gave a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) barista: Option<Box<str>>,
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
    /// What the barista reported with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub(super) result: Option<Opaque>,
}

impl From<View> for OrderState {
    fn from(view: View) -> Self {
        let order = view.order;
        Self {
            order_id: order.id.0,
            number: order.label().as_str().to_owned(),
            drink: DRINK,
            status: order.stage.as_str(),
            customer: order.customer,
            position: view.position,
            estimated_wait_ms: view.estimated_wait.map(millis),
            barista: order.barista.filter(|_| order.stage == Stage::Brewing),
            crew: view.crew.map(Crew::as_str),
            ask_before: view.ask_before.map(Moment::from),
            attempts: order.attempts,
            placed_at: order.placed.wall.into(),
            started_at: order.started.map(|at| at.wall.into()),
            finished_at: order.ended.map(|at| at.wall.into()),
            result: order.result,
        }
    }
}

/// An order, as a barista gets it.
#[derive(Debug, ToSchema)]
pub(super) struct StartedOrder {
    /// UUID version 7.
    pub(super) order_id: Uuid,
    /// The pick-up number, which is called at the counter.
    #[schema(value_type = String, example = "A47")]
    pub(super) number: Label,
    #[schema(example = "americano")]
    pub(super) drink: &'static str,
    pub(super) customer: Option<Box<str>>,
    /// What its customer sent with it.
    #[schema(value_type = Option<serde_json::Value>)]
    pub(super) details: Option<Opaque>,
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
    /// Until then, for clients whose clocks differ, milliseconds.
    pub(super) lease_remaining_ms: u64,
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
            number: Label::of(lease.number, lease.id),
            drink: DRINK,
            customer: lease.customer.clone(),
            details: lease.details.clone(),
            attempt: lease.attempt,
            placed_at: lease.placed_at.into(),
            waited_ms: millis(lease.waited),
            lease_expires_at: lease.lease_expires_at.into(),
            lease_remaining_ms: millis(lease.remaining),
            customer_waiting: lease.customer_waiting,
            customer_presence: lease.presence.as_str(),
        }
    }
}

impl WriteJson for StartedOrder {
    fn write(&self, json: &mut Vec<u8>) {
        object(json, |object| {
            object
                .put("\"order_id\":", &self.order_id)
                .put("\"number\":", self.number.as_str())
                .put("\"drink\":", self.drink)
                .put_some("\"customer\":", self.customer.as_deref())
                .put_some("\"details\":", self.details.as_ref())
                .put("\"attempt\":", &self.attempt)
                .put("\"placed_at\":", &self.placed_at)
                .put("\"waited_ms\":", &self.waited_ms)
                .put("\"lease_expires_at\":", &self.lease_expires_at)
                .put("\"lease_remaining_ms\":", &self.lease_remaining_ms)
                .put("\"customer_waiting\":", &self.customer_waiting)
                .put("\"customer_presence\":", self.customer_presence);
        });
    }
}

/// A coffee reported ready.
#[derive(Debug, ToSchema)]
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

impl WriteJson for FinishedOrder {
    fn write(&self, json: &mut Vec<u8>) {
        object(json, |object| {
            object
                .put("\"order_id\":", &self.order_id)
                .put("\"status\":", self.status)
                .put("\"delivered\":", &self.delivered)
                .put("\"already\":", &self.already)
                .put("\"attempts\":", &self.attempts)
                .put_some("\"barista\":", self.barista.as_deref())
                .put("\"finished_at\":", &self.finished_at)
                .put("\"waited_ms\":", &self.waited_ms)
                .put("\"brew_ms\":", &self.brew_ms);
        });
    }
}

/// The answer to a finish with `next`.
#[derive(Debug, ToSchema)]
pub(super) struct FinishedAndNext {
    pub(super) finished: FinishedOrder,
    /// The next order, as from `/start/`; null if none waits.
    pub(super) next: Option<StartedOrder>,
}

impl WriteJson for FinishedAndNext {
    fn write(&self, json: &mut Vec<u8>) {
        object(json, |object| {
            object
                .put("\"finished\":", &self.finished)
                .put("\"next\":", &self.next);
        });
    }
}

/// The answer to a finish: plain, or with `next`.
#[derive(Debug, ToSchema)]
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
    /// Until then, for clients whose clocks differ, milliseconds.
    pub(super) lease_remaining_ms: u64,
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

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;
    use utoipa::PartialSchema;
    use utoipa::openapi::RefOr;
    use utoipa::openapi::schema::Schema;

    use super::super::super::model::OrderId;
    use super::super::to_json;
    use super::*;

    fn names<T: PartialSchema>() -> BTreeSet<String> {
        match T::schema() {
            RefOr::T(Schema::Object(object)) => object.properties.into_keys().collect(),
            _ => panic!("no object"),
        }
    }

    fn written(value: &impl WriteJson) -> Value {
        serde_json::from_slice(&to_json(value)).unwrap()
    }

    fn keys(value: &Value) -> BTreeSet<String> {
        value.as_object().unwrap().keys().cloned().collect()
    }

    #[test]
    fn an_answer_that_is_written_by_hand_has_the_fields_of_its_schema() {
        let at = Moment(jiff::Timestamp::UNIX_EPOCH);
        let name = || Some("A \"B\"".into());
        let order_id = Uuid::from_u128(1);
        let opaque = || Opaque::parse(r#"{"sugar":2}"#);
        let ready = ReadyOrder {
            order_id,
            number: Label::of(None, OrderId(order_id)),
            drink: DRINK,
            status: "ready",
            customer: name(),
            attempts: 2,
            placed_at: at,
            started_at: at,
            finished_at: at,
            waited_ms: 3,
            brew_ms: 4,
            result: opaque(),
        };
        assert_eq!(written(&ready)["result"], serde_json::json!({ "sugar": 2 }));
        assert_eq!(keys(&written(&ready)), names::<ReadyOrder>());
        let started = StartedOrder {
            order_id,
            number: Label::of(None, OrderId(order_id)),
            drink: DRINK,
            customer: name(),
            details: opaque(),
            attempt: 1,
            placed_at: at,
            waited_ms: 2,
            lease_expires_at: at,
            lease_remaining_ms: 5,
            customer_waiting: true,
            customer_presence: "held",
        };
        assert_eq!(keys(&written(&started)), names::<StartedOrder>());
        let finished = FinishedOrder {
            order_id,
            status: "ready",
            delivered: true,
            already: false,
            attempts: 1,
            barista: name(),
            finished_at: at,
            waited_ms: 2,
            brew_ms: 3,
        };
        assert_eq!(keys(&written(&finished)), names::<FinishedOrder>());
        assert_eq!(written(&finished)["barista"], "A \"B\"");
        let both = FinishedAndNext {
            finished,
            next: None,
        };
        assert_eq!(keys(&written(&both)), names::<FinishedAndNext>());
        assert_eq!(written(&both)["next"], Value::Null);
        let anonymous = StartedOrder {
            customer: None,
            details: None,
            ..started
        };
        assert!(written(&anonymous).get("customer").is_none());
        assert!(written(&anonymous).get("details").is_none());
    }
}
