//! JSON types of the screens.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::model::{Closed, Cup, Order, Survey};
use super::wire::millis;
use crate::http::config::BoardKind;
use crate::values::json::Opaque;
use crate::values::time::Moment;

/// Numbers of a kind on the board.
const READY_MAX: usize = 12;
const MAKING_MAX: usize = 12;
/// Finished orders of the staff's line.
const RECENT_MAX: usize = 24;

/// Whether the line takes orders.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Door {
    open: bool,
    /// What customers read while it is closed, by language.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(required = false, value_type = BTreeMap<String, String>)]
    message: BTreeMap<String, String>,
    /// When it is expected to open again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = DateTime, nullable = false)]
    until: Option<Moment>,
}

impl Door {
    pub(super) fn of(closed: Option<&Closed>) -> Self {
        let closed = closed.cloned();
        Self {
            open: closed.is_none(),
            until: closed
                .as_ref()
                .and_then(|closed| closed.until)
                .map(Moment::from),
            message: closed.map(|closed| closed.message).unwrap_or_default(),
        }
    }
}

/// The board above the counter. A time is that of the moment when this was made.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Board {
    #[serde(flatten)]
    #[schema(inline)]
    door: Door,
    /// Orders in line.
    waiting: usize,
    /// Of a new order, by the crew's measured pace, milliseconds; absent while nothing is measured or the crew is away.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    estimated_wait_ms: Option<u64>,
    /// `present`, or `away` without a barista for a minute.
    #[schema(example = "present")]
    crew: &'static str,
    /// At most 12, the latest first, for `pages.ready_for`.
    ready: Vec<BoardReady>,
    /// Further ones.
    ready_more: usize,
    /// At most 12.
    making: Vec<BoardNumber>,
    making_more: usize,
    /// The first 24 in line.
    next: Vec<BoardNumber>,
}

/// An order on the board.
#[derive(Debug, Serialize, ToSchema)]
struct BoardNumber {
    /// The pick-up number.
    #[schema(example = "A47")]
    number: String,
}

/// A ready order on the board.
#[derive(Debug, Serialize, ToSchema)]
struct BoardReady {
    /// The pick-up number.
    #[schema(example = "A47")]
    number: String,
    /// The first name and an initial, if `pages.board` is `names`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "Ada L.")]
    name: Option<String>,
    /// For so long, milliseconds.
    ready_ms: u64,
}

impl Board {
    pub(super) fn of(survey: &Survey, kind: BoardKind, ready_for: Duration) -> Self {
        let age = |order: &Order| {
            let ended = order
                .ended
                .map_or(survey.now.instant, |ended| ended.instant);
            survey.now.instant.saturating_duration_since(ended)
        };
        let fresh = survey.recent.iter().filter(|order| age(order) < ready_for);
        let count = fresh.clone().count();
        let ready = fresh.take(READY_MAX).map(|order| BoardReady {
            number: order.label().as_str().to_owned(),
            name: match kind {
                BoardKind::Names => order.customer.as_deref().map(short_name),
                BoardKind::Numbers | BoardKind::Off => None,
            },
            ready_ms: millis(age(order)),
        });
        let number = |order: &Order| BoardNumber {
            number: order.label().as_str().to_owned(),
        };
        let making = survey.cups.iter().take(MAKING_MAX);
        Self {
            door: Door::of(survey.closed.as_deref()),
            waiting: survey.waiting,
            estimated_wait_ms: survey.estimated_wait.map(millis),
            crew: survey.crew.as_str(),
            ready: ready.collect(),
            ready_more: count.saturating_sub(READY_MAX),
            making: making.map(|cup| number(&cup.order)).collect(),
            making_more: survey.cups.len().saturating_sub(MAKING_MAX),
            next: survey.next.iter().map(number).collect(),
        }
    }
}

/// `Ada L.` of `Ada Lovelace`.
fn short_name(name: &str) -> String {
    let mut words = name.split_whitespace();
    let first = words.next().unwrap_or_default();
    match words.next_back().and_then(|last| last.chars().next()) {
        Some(initial) => format!("{first} {initial}."),
        None => first.to_owned(),
    }
}

/// The line, for its staff. A time is that of the moment when this was made.
#[derive(Debug, Serialize, ToSchema)]
pub struct LineState {
    #[serde(flatten)]
    #[schema(inline)]
    door: Door,
    /// Orders in line.
    waiting: usize,
    /// Orders with a barista.
    brewing: usize,
    idle_baristas: usize,
    /// Age of the first in line, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    oldest_waiting_ms: Option<u64>,
    /// Of a new order, by the crew's measured pace, milliseconds; absent while nothing is measured or the crew is away.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    estimated_wait_ms: Option<u64>,
    /// `present`, or `away` without a barista for a minute.
    #[schema(example = "present")]
    crew: &'static str,
    /// The first 24 in line.
    next: Vec<LineNext>,
    /// Orders with a barista, at most 100; those of `barista`, if that is named.
    cups: Vec<LineCup>,
    /// The latest 24 that are ready, the latest first.
    recent: Vec<LineReady>,
}

/// An order in line.
#[derive(Debug, Serialize, ToSchema)]
struct LineNext {
    #[serde(flatten)]
    #[schema(inline)]
    order: LineOrder,
    /// Leases so far.
    attempts: u32,
    /// Time in line, milliseconds.
    waited_ms: u64,
}

/// An order with a barista.
#[derive(Debug, Serialize, ToSchema)]
struct LineCup {
    #[serde(flatten)]
    #[schema(inline)]
    order: LineOrder,
    /// What its customer sent with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    details: Option<Opaque>,
    /// The barista, if they gave a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    barista: Option<Box<str>>,
    /// The number of the lease.
    #[schema(minimum = 1)]
    attempt: u32,
    /// Time in line, milliseconds.
    waited_ms: u64,
    /// Since the barista took it, milliseconds.
    brewing_ms: u64,
    /// Until the lease ends, milliseconds.
    lease_remaining_ms: u64,
    /// As in the answer to `/start/`.
    #[schema(example = "held")]
    customer_presence: &'static str,
}

/// An order that is ready.
#[derive(Debug, Serialize, ToSchema)]
struct LineReady {
    #[serde(flatten)]
    #[schema(inline)]
    order: LineOrder,
    /// The barista, if they gave a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    barista: Option<Box<str>>,
    /// Whether a request was held for it.
    delivered: bool,
    /// For so long, milliseconds.
    ready_ms: u64,
}

/// Which order it is.
#[derive(Debug, Serialize, ToSchema)]
struct LineOrder {
    /// UUID version 7.
    order_id: Uuid,
    /// The pick-up number.
    #[schema(example = "A47")]
    number: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    customer: Option<Box<str>>,
}

impl LineOrder {
    fn of(order: &Order) -> Self {
        Self {
            order_id: order.id.0,
            number: order.label().as_str().to_owned(),
            customer: order.customer.clone(),
        }
    }
}

impl LineState {
    /// Of a survey; with the cups of this barista only, if one is named.
    pub fn of(survey: &Survey, barista: Option<&str>) -> Self {
        let now = survey.now;
        let is_theirs = |cup: &&Cup| barista.is_none() || cup.order.barista.as_deref() == barista;
        let next = survey.next.iter().map(|order| LineNext {
            order: LineOrder::of(order),
            attempts: order.attempts,
            waited_ms: millis(order.waited(now)),
        });
        let cups = survey.cups.iter().filter(is_theirs).map(|cup| LineCup {
            order: LineOrder::of(&cup.order),
            details: cup.order.details.clone(),
            barista: cup.order.barista.clone(),
            attempt: cup.order.attempts,
            waited_ms: millis(cup.order.waited(now)),
            brewing_ms: millis(cup.order.brewed(now)),
            lease_remaining_ms: millis(cup.remaining),
            customer_presence: cup.presence.as_str(),
        });
        let recent = survey
            .recent
            .iter()
            .take(RECENT_MAX)
            .map(|order| LineReady {
                order: LineOrder::of(order),
                barista: order.barista.clone(),
                delivered: order.delivered,
                ready_ms: order.ended.map_or(0, |ended| {
                    millis(now.instant.saturating_duration_since(ended.instant))
                }),
            });
        Self {
            door: Door::of(survey.closed.as_deref()),
            waiting: survey.waiting,
            brewing: survey.cups.len(),
            idle_baristas: survey.idle_baristas,
            oldest_waiting_ms: survey.oldest_waiting.map(millis),
            estimated_wait_ms: survey.estimated_wait.map(millis),
            crew: survey.crew.as_str(),
            next: next.collect(),
            cups: cups.collect(),
            recent: recent.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_board_shows_no_more_of_a_name_than_its_owner_needs() {
        for (name, shown) in [
            ("Ada", "Ada"),
            ("Ada Lovelace", "Ada L."),
            ("  Ada  King  Lovelace ", "Ada L."),
            ("Zoë Ångström", "Zoë Å."),
            ("", ""),
        ] {
            assert_eq!(short_name(name), shown);
        }
    }
}
