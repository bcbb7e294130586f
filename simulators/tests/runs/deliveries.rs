//! A small delivery desk that keeps the contract, so that drones can be watched without the real one: events in order,
//! keys that are remembered, counts, histories, and a few faults on demand.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    ops::RangeInclusive,
    sync::Arc,
    time::{Duration, Instant},
};

use http_body_util::BodyExt as _;
use hyper::{
    Method, Request, StatusCode,
    body::Incoming,
    header::{HeaderValue, LOCATION, RETRY_AFTER},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{sync::watch, time::timeout};

use crate::server::{Reply, reply, serve};

/// What this desk does wrong. Posts of events are numbered from 1, in the order in which they arrive.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    /// Acknowledges the event of this post and does not keep it.
    pub(crate) loses: Option<u64>,
    /// Takes the event of this post and hangs up instead of answering.
    pub(crate) hangs_up_after: Option<u64>,
    /// Hangs up on these posts without a look at them, as if it were being restarted.
    pub(crate) is_down_for: Option<RangeInclusive<u64>>,
    /// Answers this post with 503 and this `Retry-After`, in seconds.
    pub(crate) is_busy_at: Option<(u64, u64)>,
    /// Answers this post with 409.
    pub(crate) refuses: Option<u64>,
    /// Skips a number for the event of this post.
    pub(crate) skips_at: Option<u64>,
    /// Remembers a key, and does not say so.
    pub(crate) hides_replays: bool,
    /// Counts one delivery too few once there are any.
    pub(crate) miscounts: bool,
    /// Answers nothing but events once this many posts have come.
    pub(crate) tells_nothing_after: Option<u64>,
}

/// What has happened so far.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) posts: u64,
    pub(crate) connections: u64,
    pub(crate) deliveries: BTreeMap<String, Delivery>,
    /// When each key came, and came again.
    pub(crate) arrivals: BTreeMap<String, Vec<Instant>>,
    answers: BTreeMap<String, Value>,
}

#[derive(Debug, Default)]
pub(crate) struct Delivery {
    pub(crate) events: Vec<Value>,
    state: String,
    sequence: u64,
}

impl Delivery {
    pub(crate) fn is_ongoing(&self) -> bool {
        self.allowed() != [""; 0]
    }

    fn allowed(&self) -> &'static [&'static str] {
        match &*self.state {
            "" => &["PARCEL_COLLECTED"],
            "PARCEL_COLLECTED" => &["TAKEN_OFF"],
            "TAKEN_OFF" => &["LANDED", "CRASHED"],
            "LANDED" => &["TAKEN_OFF", "PARCEL_DELIVERED"],
            _ => &[],
        }
    }
}

pub(crate) struct Desk {
    pub(crate) staff: String,
    book: Arc<watch::Sender<Book>>,
}

impl Desk {
    pub(crate) async fn open(faults: Faults) -> Self {
        let book = Arc::new(watch::Sender::new(Book::default()));
        let clerk = Clerk {
            book: Arc::clone(&book),
            faults,
        };
        let came = {
            let book = Arc::clone(&book);
            move || book.send_modify(|book| book.connections += 1)
        };
        let address = serve(came, move |request| {
            let clerk = clerk.clone();
            async move { clerk.answer(request).await }
        });
        let staff = format!("--staff=http://{}", address.await);
        Self { staff, book }
    }

    /// Waits until the book is as described.
    pub(crate) async fn until(&self, as_described: impl FnMut(&Book) -> bool) {
        let mut book = self.book.subscribe();
        let reached = timeout(Duration::from_secs(30), book.wait_for(as_described)).await;
        assert!(
            reached.is_ok(),
            "never came to be: {:?}",
            self.book.borrow()
        );
    }

    /// What has happened so far.
    pub(crate) fn book(&self) -> watch::Ref<'_, Book> {
        self.book.borrow()
    }
}

#[derive(Clone)]
struct Clerk {
    book: Arc<watch::Sender<Book>>,
    faults: Faults,
}

impl Clerk {
    /// An error makes hyper hang up without a word.
    async fn answer(&self, request: Request<Incoming>) -> io::Result<Reply> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let path: Vec<_> = head.uri.path().split('/').skip(1).collect();
        match (&head.method, &path[..]) {
            (&Method::POST, ["deliveries", id, "events"]) => {
                let key = head.headers["idempotency-key"].to_str().unwrap();
                let event: Value = serde_json::from_slice(&body)?;
                let mut answer = Ok(reply(StatusCode::INTERNAL_SERVER_ERROR, &Value::Null));
                self.book.send_modify(|book| {
                    answer = book.take(&self.faults, id, key, event["type"].as_str().unwrap());
                });
                answer
            }
            (&Method::GET, path) => {
                let book = self.book.borrow();
                if self
                    .faults
                    .tells_nothing_after
                    .is_some_and(|after| book.posts >= after)
                {
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                Ok(book.show(&self.faults, path))
            }
            _ => Ok(reply(StatusCode::NOT_FOUND, &Value::Null)),
        }
    }
}

impl Book {
    pub(crate) fn ongoing(&self) -> usize {
        let ongoing = |delivery: &&Delivery| delivery.is_ongoing();
        self.deliveries.values().filter(ongoing).count()
    }

    fn show(&self, faults: &Faults, path: &[&str]) -> Reply {
        match path {
            ["counts"] => {
                let total = self.deliveries.len();
                let total = total.saturating_sub(usize::from(faults.miscounts));
                let counts = json!({ "ongoing": self.ongoing(), "total": total });
                reply(StatusCode::OK, &counts)
            }
            ["deliveries", id, "events"] => match self.deliveries.get(*id) {
                Some(delivery) => {
                    let history = json!({
                        "delivery_id": id,
                        "state": delivery.state,
                        "ongoing": delivery.is_ongoing(),
                        "events": delivery.events,
                    });
                    reply(StatusCode::OK, &history)
                }
                None => reply(StatusCode::NOT_FOUND, &Value::Null),
            },
            _ => reply(StatusCode::NOT_FOUND, &Value::Null),
        }
    }

    fn take(&mut self, faults: &Faults, id: &str, key: &str, kind: &str) -> io::Result<Reply> {
        self.posts += 1;
        let is_this = |fault: Option<u64>| fault == Some(self.posts);
        let arrivals = self.arrivals.entry(key.to_owned()).or_default();
        arrivals.push(Instant::now());
        if let Some(down) = &faults.is_down_for
            && down.contains(&self.posts)
        {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if let Some((post, seconds)) = faults.is_busy_at
            && is_this(Some(post))
        {
            let mut busy = reply(StatusCode::SERVICE_UNAVAILABLE, &Value::Null);
            busy.headers_mut().insert(RETRY_AFTER, seconds.into());
            return Ok(busy);
        }
        if let Some(first) = self.answers.get(key) {
            return Ok(created(first, !faults.hides_replays));
        }
        let (skips, loses) = (is_this(faults.skips_at), is_this(faults.loses));
        let (refuses, hangs_up) = (is_this(faults.refuses), is_this(faults.hangs_up_after));
        let known = self.deliveries.get(id);
        let (state, allowed) = match known {
            Some(delivery) => (Some(&delivery.state), delivery.allowed()),
            None => (None, Delivery::default().allowed()),
        };
        if refuses || !allowed.contains(&kind) {
            let problem = json!({ "title": "Conflict", "state": state, "allowed": allowed });
            return Ok(reply(StatusCode::CONFLICT, &problem));
        }
        let delivery = self.deliveries.entry(id.to_owned()).or_default();
        kind.clone_into(&mut delivery.state);
        delivery.sequence += 1 + u64::from(skips);
        let (sequence, received_at) = (delivery.sequence, Timestamp::now());
        if !loses {
            let event = json!({ "sequence": sequence, "type": kind, "received_at": received_at });
            delivery.events.push(event);
        }
        let answer = json!({
            "delivery_id": id,
            "sequence": sequence,
            "type": kind,
            "received_at": received_at,
        });
        self.answers.insert(key.to_owned(), answer.clone());
        if hangs_up {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(created(&answer, false))
    }

    /// Keys that came more than once.
    pub(crate) fn repeated(&self) -> BTreeSet<&str> {
        let repeated = self.arrivals.iter().filter(|(_, times)| times.len() > 1);
        repeated.map(|(key, _)| &**key).collect()
    }
}

fn created(answer: &Value, is_replay: bool) -> Reply {
    let mut created = reply(StatusCode::CREATED, answer);
    let (id, sequence) = (&answer["delivery_id"], &answer["sequence"]);
    let place = format!("/deliveries/{}/events/{sequence}", id.as_str().unwrap());
    let headers = created.headers_mut();
    headers.insert(LOCATION, place.parse().unwrap());
    if is_replay {
        headers.insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
    created
}
