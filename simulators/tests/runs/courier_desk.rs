//! A small courier desk that keeps the contract, so that couriers can be watched without the real one: each order to the one
//! with the fewest, or parked, a log of everything, and a few faults on demand.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use http_body_util::BodyExt as _;
use hyper::{Method, Request, StatusCode, body::Incoming};
use serde_json::{Value, json};

use crate::server::{Reply, reply, serve};

/// Orders that are listed as parked at most.
const PARKED_MAX: usize = 1000;

/// What this desk does wrong from beginning to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Habit {
    /// Takes every order for a new one.
    ForgetsOrders,
    /// Gives orders to the courier with the smallest id.
    HasAFavourite,
    /// Leaves parked what is parked.
    ForgetsTheParked,
    /// Shows one order too many for each courier.
    Miscounts,
    /// Never takes note of another name.
    KeepsOldNames,
    /// Lists one order of a courier too few.
    ShortensLists,
    /// Does not log redelivered events.
    LogsNoDuplicates,
    /// Answers with one outcome too few.
    HidesOutcomes,
    /// Applies events but reports none of them.
    KnowsNothing,
}

/// What this desk does wrong. Requests with events are numbered from 1.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    pub(crate) habit: Option<Habit>,
    /// Takes every so many requests and hangs up instead of answering.
    pub(crate) hangs_up_every: Option<u64>,
    /// Answers every so many requests with 503, without a look at them.
    pub(crate) is_busy_every: Option<u64>,
}

/// What has happened so far.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) requests: u64,
    pub(crate) connections: u64,
    /// What was said last, and how many they were given.
    pub(crate) couriers: BTreeMap<String, (Value, u64)>,
    /// The order as it was sent, and its courier.
    pub(crate) orders: BTreeMap<String, (Value, Option<String>)>,
    pub(crate) log: Vec<Value>,
    /// Lists of events, and events alone.
    pub(crate) lists: u64,
    pub(crate) singles: u64,
}

pub(crate) struct Desk {
    pub(crate) staff: String,
    book: Arc<Mutex<Book>>,
}

impl Desk {
    pub(crate) async fn open(faults: Faults) -> Self {
        let book = Arc::new(Mutex::new(Book::default()));
        let came = {
            let book = Arc::clone(&book);
            move || book.lock().unwrap().connections += 1
        };
        let clerk = Arc::clone(&book);
        let address = serve(came, move |request| {
            let clerk = Arc::clone(&clerk);
            async move { answer(&clerk, faults, request).await }
        });
        let staff = format!("--staff=http://{}", address.await);
        Self { staff, book }
    }

    /// What has happened so far.
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }
}

async fn answer(
    book: &Mutex<Book>,
    faults: Faults,
    request: Request<Incoming>,
) -> io::Result<Reply> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let mut book = book.lock().unwrap();
    if head.method == Method::GET {
        let query = head.uri.query().unwrap_or_default().split('&');
        let query: BTreeMap<&str, &str> = query.filter_map(|pair| pair.split_once('=')).collect();
        return Ok(book.show(faults.habit, head.uri.path(), &query));
    }
    book.requests += 1;
    let number = book.requests;
    let is_nth = |every: Option<u64>| every.is_some_and(|every| number.is_multiple_of(every));
    if is_nth(faults.is_busy_every) {
        return Ok(reply(StatusCode::SERVICE_UNAVAILABLE, &Value::Null));
    }
    let mut outcomes = match serde_json::from_slice(&body) {
        Ok(Value::Array(events)) => {
            book.lists += 1;
            let outcomes = events.iter();
            let outcomes = outcomes.map(|event| book.take(faults.habit, event));
            outcomes.collect::<Vec<_>>()
        }
        Ok(event) => {
            book.singles += 1;
            vec![book.take(faults.habit, &event)]
        }
        Err(_) => return Ok(reply(StatusCode::BAD_REQUEST, &Value::Null)),
    };
    if is_nth(faults.hangs_up_every) {
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    if faults.habit == Some(Habit::HidesOutcomes) {
        outcomes.pop();
    }
    Ok(reply(StatusCode::ACCEPTED, &json!(outcomes)))
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap().to_owned()
}

impl Book {
    fn take(&mut self, habit: Option<Habit>, event: &Value) -> Value {
        let outcome = if event["courierId"].is_string() {
            self.say(habit, event)
        } else {
            self.add(habit, event)
        };
        if habit != Some(Habit::LogsNoDuplicates) || outcome["outcome"] != "duplicate" {
            // Numbers may have gaps.
            let mut line = json!({ "number": 2 * self.log.len() + 1, "at": "2026-11-21T12:00:00Z", "event": event });
            let fields = outcome.as_object().unwrap().clone();
            line.as_object_mut().unwrap().extend(fields);
            self.log.push(line);
        }
        outcome
    }

    fn say(&mut self, habit: Option<Habit>, event: &Value) -> Value {
        let id = text(event, "courierId");
        let mut latest = event.clone();
        let count = match self.couriers.get(&id) {
            Some((before, count)) => {
                if habit == Some(Habit::KeepsOldNames) {
                    latest["name"] = before["name"].clone();
                }
                *count
            }
            None => 0,
        };
        self.couriers.insert(id, (latest, count));
        let mut unparked = 0;
        let zone = text(event, "zone");
        while let Some(order) = self.longest_parked(&zone)
            && habit != Some(Habit::ForgetsTheParked)
            && let Some(courier) = self.next(habit, &zone)
        {
            self.give(&order, courier);
            unparked += 1;
        }
        json!({ "outcome": "updated", "unparked": unparked })
    }

    fn add(&mut self, habit: Option<Habit>, event: &Value) -> Value {
        let id = text(event, "orderId");
        if let Some((_, courier)) = self.orders.get(&id)
            && habit != Some(Habit::ForgetsOrders)
        {
            return match courier {
                Some(courier) => json!({ "outcome": "duplicate", "courierId": courier }),
                None => json!({ "outcome": "duplicate" }),
            };
        }
        self.orders.insert(id.clone(), (event.clone(), None));
        match self.next(habit, &text(event, "zone")) {
            Some(courier) => {
                self.give(&id, courier.clone());
                json!({ "outcome": "assigned", "courierId": courier })
            }
            None => json!({ "outcome": "parked" }),
        }
    }

    fn next(&self, habit: Option<Habit>, zone: &str) -> Option<String> {
        let couriers = self.couriers.iter();
        let available = couriers
            .filter(|(_, (latest, _))| latest["zone"] == zone && latest["isAvailable"] == true);
        let counted = available.map(|(id, (_, count))| match habit {
            Some(Habit::HasAFavourite) => (0, id),
            _ => (*count, id),
        });
        counted.min().map(|(_, id)| id.clone())
    }

    fn give(&mut self, order: &str, courier: String) {
        self.couriers.get_mut(&courier).unwrap().1 += 1;
        self.orders.get_mut(order).unwrap().1 = Some(courier);
    }

    fn parked(&self) -> Vec<&Value> {
        let orders = self.orders.values();
        let parked = orders.filter(|(_, courier)| courier.is_none());
        let mut parked: Vec<&Value> = parked.map(|(order, _)| order).collect();
        let moment = |order: &Value| -> jiff::Timestamp { text(order, "addedAt").parse().unwrap() };
        parked.sort_by_key(|order| (text(order, "zone"), moment(order), text(order, "orderId")));
        parked
    }

    fn longest_parked(&self, zone: &str) -> Option<String> {
        let mut parked = self.parked().into_iter();
        let order = parked.find(|order| order["zone"] == zone)?;
        Some(text(order, "orderId"))
    }

    fn show(&self, habit: Option<Habit>, path: &str, query: &BTreeMap<&str, &str>) -> Reply {
        let body = match path {
            "/courier" => match self.orders.get(query["orderId"]) {
                Some((_, courier)) if habit != Some(Habit::KnowsNothing) => match courier {
                    Some(courier) => json!(courier),
                    None => return reply(StatusCode::NOT_FOUND, &json!({ "state": "parked" })),
                },
                _ => return reply(StatusCode::NOT_FOUND, &json!({ "state": "unknown" })),
            },
            "/orders" => {
                let of = |courier: &Option<String>| courier.as_deref() == Some(query["courierId"]);
                let orders = self.orders.iter().filter(|(_, (_, courier))| of(courier));
                let skipped = usize::from(habit == Some(Habit::ShortensLists));
                let orders: Vec<_> = orders.map(|(id, _)| id).skip(skipped).collect();
                json!(orders)
            }
            "/couriers" => {
                let more = u64::from(habit == Some(Habit::Miscounts));
                let shown = self.couriers.values().map(|(latest, count)| {
                    let mut shown = latest.clone();
                    shown["count"] = json!(count + more);
                    shown
                });
                json!({ "couriers": shown.collect::<Vec<_>>() })
            }
            "/couriers/parked" => {
                let parked = self.parked();
                let listed = &parked[..parked.len().min(PARKED_MAX)];
                json!({ "orders": listed, "total": parked.len() })
            }
            "/couriers/events" => {
                let after: u64 = query["after"].parse().unwrap();
                let limit: usize = query["limit"].parse().unwrap();
                let rest = self.log.iter();
                let rest = rest.filter(|line| line["number"].as_u64() > Some(after));
                let page: Vec<_> = rest.take(limit).collect();
                let mut body = json!({ "events": page });
                if page.len() == limit {
                    body["next"] = page[limit - 1]["number"].clone();
                }
                body
            }
            _ => return reply(StatusCode::NOT_FOUND, &Value::Null),
        };
        reply(StatusCode::OK, &body)
    }
}
