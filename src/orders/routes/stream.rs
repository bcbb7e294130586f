//! An order as an event stream: for the request that is held for it, and for those who only watch.

use std::time::Duration;

use axum::response::Response;
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use super::super::changes::Watching;
use super::super::hold::Held;
use super::super::model::{OrderId, Outcome, Stage, View};
use super::super::service::Orders;
use super::problems::{cancelled, unknown_order};
use super::to_json;
use super::wire::{OrderState, ReadyOrder};
use crate::flood::Admission;
use crate::flood::routes::purged;
use crate::http::Problem;
use crate::http::feed::{Feed, Sent, Source};

/// How long a store that does not answer is left alone.
const UNAVAILABLE: Duration = Duration::from_secs(1);
/// The state of an order that is not in line is looked up this often without a change, which also renews a promise.
const SELDOM: Duration = Duration::from_secs(60);

/// The answer to a held request, event by event.
pub(super) fn held_stream(
    feed: Feed,
    orders: Orders,
    held: Held,
    joined: Option<Admission>,
) -> Response {
    let order = Shown::new(orders, held.order());
    feed.answer(HeldOrder {
        held: Some(held),
        order,
        _joined: joined,
    })
}

/// The end of an order that has already ended.
pub(super) fn outcome_stream(feed: Feed, outcome: Outcome) -> Response {
    feed.answer(Ended(Some(outcome)))
}

/// An order for those who only watch.
pub(super) fn watching_stream(
    feed: Feed,
    orders: Orders,
    view: View,
    admission: Admission,
) -> Response {
    let id = view.order.id;
    feed.answer(WatchedOrder {
        first: Some(view),
        order: Shown::new(orders, id),
        has_ended: false,
        _admission: admission,
    })
}

/// An order as it was last sent.
struct Shown {
    orders: Orders,
    id: OrderId,
    changed: Watching,
    sent: Option<Place>,
    /// When it is looked up again.
    due: Instant,
}

/// What a stream sends again if it has changed.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Place {
    stage: Stage,
    attempts: u32,
    position: Option<usize>,
    is_crew_away: bool,
    estimated: Option<Duration>,
}

impl Place {
    fn of(view: &View) -> Self {
        Self {
            stage: view.order.stage,
            attempts: view.order.attempts,
            position: view.position,
            is_crew_away: view.crew == Some(super::super::model::Crew::Away),
            estimated: view.estimated_wait,
        }
    }

    /// An estimate that is a tenth longer or shorter is another one.
    fn differs(self, other: Self) -> bool {
        let is_close = match (self.estimated, other.estimated) {
            (Some(one), Some(two)) => one.abs_diff(two) * 10 <= one.max(two),
            (one, two) => one == two,
        };
        let with = |place| Self {
            estimated: None,
            ..place
        };
        !is_close || with(self) != with(other)
    }

    /// A pull changes the place of all who wait: those far behind look less often.
    fn every(self) -> Duration {
        Duration::from_secs(match self.position {
            Some(..=10) => 1,
            Some(..=100) => 5,
            Some(_) => 15,
            None => return SELDOM,
        })
    }
}

impl Shown {
    fn new(orders: Orders, id: OrderId) -> Self {
        Self {
            changed: orders.changes().of(id),
            orders,
            id,
            sent: None,
            due: Instant::now(),
        }
    }

    /// Waits until it is to be looked up. Cancel-safe.
    async fn wait(&mut self) {
        if self.sent.is_some() {
            tokio::select! {
                () = self.changed.changed() => {}
                () = sleep_until(self.due) => {}
            }
        } else {
            sleep_until(self.due).await;
        }
    }

    /// The order; none if it could not be looked up.
    async fn look(&mut self) -> Option<Option<View>> {
        let viewed = self.orders.ask(self.id).get().await;
        let wait = match &viewed {
            Ok(Some(view)) => Place::of(view).every(),
            Ok(None) => SELDOM,
            Err(_) => UNAVAILABLE,
        };
        self.due = Instant::now() + wait;
        viewed.ok()
    }

    /// The event of a state that has changed since the last one.
    fn event(&mut self, view: View) -> Option<Sent> {
        let place = Place::of(&view);
        if self.sent.is_some_and(|sent| !sent.differs(place)) {
            return None;
        }
        self.sent = Some(place);
        Some(Sent::Event(
            view.order.stage.as_str(),
            json(&OrderState::from(view)),
        ))
    }
}

struct HeldOrder {
    /// None once it has ended.
    held: Option<Held>,
    order: Shown,
    _joined: Option<Admission>,
}

impl Source for HeldOrder {
    // The line answers it before the listener closes.
    const ENDS_WITH_LISTENER: bool = false;

    async fn next(&mut self) -> Option<Sent> {
        let held = self.held.as_mut()?;
        loop {
            let order = &mut self.order;
            let look = async {
                order.wait().await;
                order.look().await
            };
            let looked = tokio::select! {
                biased;
                outcome = &mut *held => {
                    self.held = None;
                    return Some(ending(&outcome));
                }
                looked = look => looked,
            };
            // One that has ended is about to be answered.
            let pending = looked.flatten().filter(|view| !view.order.stage.is_final());
            if let Some(event) = pending.and_then(|view| self.order.event(view)) {
                return Some(event);
            }
        }
    }
}

struct WatchedOrder {
    first: Option<View>,
    order: Shown,
    has_ended: bool,
    _admission: Admission,
}

impl Source for WatchedOrder {
    async fn next(&mut self) -> Option<Sent> {
        loop {
            if self.has_ended {
                return None;
            }
            let looked = if let Some(first) = self.first.take() {
                Some(Some(first))
            } else {
                self.order.wait().await;
                self.order.look().await
            };
            let Some(view) = looked else {
                continue;
            };
            let Some(view) = view else {
                self.has_ended = true;
                return Some(problem("gone", unknown_order()));
            };
            if view.order.stage.is_final() {
                self.has_ended = true;
                return Some(final_event(&view.order));
            }
            if let Some(event) = self.order.event(view) {
                return Some(event);
            }
        }
    }
}

struct Ended(Option<Outcome>);

impl Source for Ended {
    async fn next(&mut self) -> Option<Sent> {
        self.0.take().as_ref().map(ending)
    }
}

/// The last event of a held request.
fn ending(outcome: &Outcome) -> Sent {
    match outcome {
        Outcome::Ready(order) | Outcome::Cancelled(order) => final_event(order),
        Outcome::Blocked(time) => problem("blocked", purged(*time)),
        Outcome::Closing => problem("stopping", Problem::stopping()),
        Outcome::HandedOver => Sent::HangUp,
    }
}

fn final_event(order: &super::super::model::Order) -> Sent {
    if order.stage == Stage::Ready {
        let json = to_json(&ReadyOrder::of(order));
        return Sent::Event("ready", String::from_utf8_lossy(&json).into_owned());
    }
    problem("cancelled", cancelled(order))
}

fn problem(name: &'static str, problem: impl Into<Problem>) -> Sent {
    Sent::Event(name, json(&problem.into()))
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "{}".to_owned())
}
