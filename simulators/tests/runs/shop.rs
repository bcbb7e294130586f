//! A small shop that keeps the contract, so that the simulators can be watched without the real one:
//! a line in order of arrival, held requests, finishes, releases, and a few bad manners on demand.

mod guests;

pub(crate) use guests::FloodControl;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{
    net::TcpSocket,
    sync::{oneshot, watch},
    time::timeout,
};

use self::guests::Guest;

/// What this shop does wrong. Orders are numbered from 1.
#[derive(Debug, Clone, Default)]
pub(crate) struct Manners {
    /// Answers this order with 503 at once.
    pub(crate) refuses: Option<u64>,
    /// Hangs up on this order.
    pub(crate) hangs_up_on: Option<u64>,
    /// Hands out the newest order instead of the oldest.
    pub(crate) newest_first: bool,
    /// Hands out nothing until this many orders have been placed.
    pub(crate) opens_after: u64,
    /// Takes note of this order's first finish and hangs up instead of answering.
    pub(crate) loses_the_answer_to_the_finish_of: Option<u64>,
    /// Closes a barista's connection after every answer.
    pub(crate) closes_staff_connections: bool,
    /// Refuses an address with too many orders; without it there is no list of cut-off addresses either.
    pub(crate) flood_control: Option<FloodControl>,
}

/// What has happened so far.
#[derive(Debug, Default)]
pub(crate) struct Line {
    pub(crate) placed: u64,
    pub(crate) waiting: VecDeque<u64>,
    /// The attempt of each order being brewed.
    pub(crate) brewing: BTreeMap<u64, u32>,
    /// Orders by the time of their (first) start.
    pub(crate) started: Vec<u64>,
    pub(crate) finished: BTreeSet<u64>,
    pub(crate) released: u64,
    pub(crate) start_calls: u64,
    pub(crate) customer_connections: u64,
    pub(crate) customers: BTreeSet<String>,
    pub(crate) baristas: BTreeSet<String>,
    /// By the address they come from.
    pub(crate) guests: BTreeMap<IpAddr, Guest>,
    held: BTreeMap<u64, Held>,
    answers_lost: BTreeSet<u64>,
}

#[derive(Debug)]
struct Held {
    guest: IpAddr,
    placed_at: Timestamp,
    started_at: Option<Timestamp>,
    attempts: u32,
    answer: oneshot::Sender<Reply>,
}

pub(crate) struct Shop {
    pub(crate) customers: String,
    pub(crate) staff: String,
    line: Arc<watch::Sender<Line>>,
}

type Reply = Response<Full<Bytes>>;

impl Shop {
    pub(crate) fn open(manners: Manners) -> Self {
        let line = Arc::new(watch::Sender::new(Line::default()));
        let desk = Desk {
            line: Arc::clone(&line),
            manners,
        };
        Self {
            customers: desk.clone().listen(Door::Customers),
            staff: desk.listen(Door::Staff),
            line,
        }
    }

    /// Waits until the line is as described.
    pub(crate) async fn until(&self, as_described: impl FnMut(&Line) -> bool) {
        let mut line = self.line.subscribe();
        let reached = timeout(Duration::from_secs(30), line.wait_for(as_described)).await;
        assert!(
            reached.is_ok(),
            "never came to be: {:?}",
            self.line.borrow()
        );
    }

    /// What has happened so far.
    pub(crate) fn line(&self) -> watch::Ref<'_, Line> {
        self.line.borrow()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Customers,
    Staff,
}

#[derive(Clone)]
struct Desk {
    line: Arc<watch::Sender<Line>>,
    manners: Manners,
}

impl Desk {
    /// Serves one door until the test's runtime ends; returns its base URL.
    fn listen(self, door: Door) -> String {
        // The usual backlog of 128 overflows when a whole group comes at once, and costs them a second.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let listener = socket.listen(4096).unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, peer) = listener.accept().await.unwrap();
                if door == Door::Customers {
                    self.line.send_modify(|line| line.customer_connections += 1);
                }
                let desk = self.clone();
                let service = service_fn(move |request| {
                    let desk = desk.clone();
                    async move { desk.answer(door, peer.ip(), request).await }
                });
                let keep = door == Door::Customers || !self.manners.closes_staff_connections;
                tokio::spawn(async move {
                    let connection = http1::Builder::new()
                        .keep_alive(keep)
                        .serve_connection(TokioIo::new(stream), service);
                    // Visitors who leave are part of the game.
                    drop(connection.await);
                });
            }
        });
        format!("http://{address}")
    }

    /// An error makes hyper hang up without a word.
    async fn answer(
        &self,
        door: Door,
        guest: IpAddr,
        request: Request<Incoming>,
    ) -> io::Result<Reply> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let query = Query::of(head.uri.query().unwrap_or_default());
        match (door, &head.method, head.uri.path()) {
            (Door::Customers, &Method::POST, "/order/") => self.order(guest, &body).await,
            (Door::Staff, &Method::GET, "/start/") => Ok(self.start(&query).await),
            (Door::Staff, &Method::POST, "/finish/") => self.finish(&query).await,
            (Door::Staff, &Method::POST, "/release/") => Ok(self.release(&query)),
            (Door::Staff, method, path) if self.manners.flood_control.is_some() => {
                Ok(self.flood_list(method, path))
            }
            _ => Ok(status(StatusCode::NOT_FOUND)),
        }
    }

    async fn order(&self, guest: IpAddr, body: &[u8]) -> io::Result<Reply> {
        let order: Value = serde_json::from_slice(body)?;
        let (answer, answered) = oneshot::channel();
        let mut number = 0;
        self.line.send_modify(|line| {
            line.placed += 1;
            number = line.placed;
            line.customers
                .extend(order["customer"].as_str().map(str::to_owned));
            line.guests.entry(guest).or_default().placed += 1;
        });
        if self.manners.refuses == Some(number) {
            return Ok(status(StatusCode::SERVICE_UNAVAILABLE));
        }
        if self.manners.hangs_up_on == Some(number) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if let Some(control) = &self.manners.flood_control {
            let mut admitted = false;
            self.line
                .send_modify(|line| admitted = line.admits(guest, control));
            if !admitted {
                return Ok(status(StatusCode::TOO_MANY_REQUESTS));
            }
        }
        self.line.send_modify(|line| {
            let held = Held {
                guest,
                placed_at: Timestamp::now(),
                started_at: None,
                attempts: 0,
                answer,
            };
            line.held.insert(number, held);
            line.waiting.push_back(number);
        });
        let _place = Place {
            line: &self.line,
            number,
        };
        answered.await.map_err(io::Error::other)
    }

    async fn start(&self, query: &Query) -> Reply {
        self.line.send_modify(|line| {
            line.start_calls += 1;
            line.baristas
                .extend(query.text("barista").map(str::to_owned));
        });
        match self.next(query.number("wait").unwrap_or(0)).await {
            Some(order) => json_reply(&order),
            None => status(StatusCode::NO_CONTENT),
        }
    }

    /// Hands out an order, waiting for one.
    async fn next(&self, wait_s: u64) -> Option<Value> {
        let mut seen = self.line.subscribe();
        let taking = async {
            loop {
                seen.mark_unchanged();
                let mut taken = None;
                self.line.send_if_modified(|line| {
                    taken = line.take(&self.manners);
                    taken.is_some()
                });
                if taken.is_some() {
                    return taken;
                }
                // The line lives as long as this desk.
                seen.changed().await.ok()?;
            }
        };
        timeout(Duration::from_secs(wait_s), taking).await.ok()?
    }

    async fn finish(&self, query: &Query) -> io::Result<Reply> {
        let Some(number) = query.number("order_id") else {
            return Ok(status(StatusCode::BAD_REQUEST));
        };
        let mut outcome = Err(StatusCode::NOT_FOUND);
        let mut lost = false;
        self.line.send_modify(|line| {
            outcome = line.finish(number, query.number("attempt"));
            lost = self.manners.loses_the_answer_to_the_finish_of == Some(number)
                && line.answers_lost.insert(number);
        });
        if lost {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let finished = match outcome {
            Ok(finished) => finished,
            Err(refusal) => return Ok(status(refusal)),
        };
        Ok(match query.number("next") {
            None => json_reply(&finished),
            Some(wait_s) => {
                let next = self.next(wait_s).await;
                json_reply(&json!({ "finished": finished, "next": next }))
            }
        })
    }

    fn release(&self, query: &Query) -> Reply {
        let mut known = false;
        self.line.send_modify(|line| {
            let number = query.number("order_id").unwrap_or_default();
            known = line.brewing.remove(&number).is_some();
            if known {
                line.released += 1;
                line.waiting.push_front(number);
            }
        });
        status(if known {
            StatusCode::OK
        } else {
            StatusCode::CONFLICT
        })
    }
}

impl Line {
    fn take(&mut self, manners: &Manners) -> Option<Value> {
        if self.placed < manners.opens_after {
            return None;
        }
        let number = if manners.newest_first {
            self.waiting.pop_back()?
        } else {
            self.waiting.pop_front()?
        };
        let held = self.held.get_mut(&number)?;
        held.attempts += 1;
        held.started_at = Some(Timestamp::now());
        self.brewing.insert(number, held.attempts);
        self.started.push(number);
        Some(
            json!({ "order_id": number.to_string(), "drink": "americano", "attempt": held.attempts }),
        )
    }

    fn finish(&mut self, number: u64, attempt: Option<u64>) -> Result<Value, StatusCode> {
        let id = number.to_string();
        if self.finished.contains(&number) {
            return Ok(json!({ "order_id": id, "delivered": true, "already": true }));
        }
        let current = self
            .brewing
            .get(&number)
            .copied()
            .ok_or(StatusCode::CONFLICT)?;
        if attempt.is_some_and(|attempt| attempt != u64::from(current)) {
            return Err(StatusCode::CONFLICT);
        }
        self.brewing.remove(&number);
        self.finished.insert(number);
        let delivered = self.held.remove(&number).is_some_and(|held| {
            let receipt = json!({
                "order_id": id,
                "status": "ready",
                "attempts": held.attempts,
                "placed_at": held.placed_at,
                "started_at": held.started_at,
            });
            held.answer.send(json_reply(&receipt)).is_ok()
        });
        Ok(json!({ "order_id": id, "delivered": delivered, "already": false }))
    }
}

/// A held customer; dropped when they leave, and then their order leaves the line.
struct Place<'a> {
    line: &'a watch::Sender<Line>,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.line.send_modify(|line| {
            line.held.remove(&self.number);
            line.waiting.retain(|waiting| *waiting != self.number);
        });
    }
}

struct Query(BTreeMap<String, String>);

impl Query {
    /// Nothing in these tests needs decoding.
    fn of(text: &str) -> Self {
        let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
        Self(
            pairs
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        )
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }
}

fn json_reply(body: &Value) -> Reply {
    Response::new(Full::new(body.to_string().into()))
}

fn status(code: StatusCode) -> Reply {
    let mut reply = Response::new(Full::default());
    *reply.status_mut() = code;
    reply
}
