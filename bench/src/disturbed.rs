//! The time of a cycle beside clients that disturb: wrong tokens, as many accepted ones, or bursts of TLS handshakes.
//!
//! Customers order at a fixed rate, far below what the server can serve, whatever became of earlier orders: a server that
//! pauses is not spared the orders of its pause. A cycle's time is that from the order to its answer. All the while the
//! orders of further customers are being brewed; in the end all of them must be served.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;
use std::time::{Duration, Instant};

use anyhow::Result;
use odyssey::http::listen::raise_open_files;
use serde::Deserialize;

use crate::access::presenter;
use crate::client::{Client, Message, Received, Session, Turn};
use crate::engine::{Sample, Side, percentile, sample};
use crate::http;
use crate::load::CUSTOMERS;
use crate::machine::yield_to_others;
use crate::memory::PATIENCE;
use crate::orders::{Customer, barista};
use crate::programs::Server;

const ORDERS_PER_MILLISECOND: usize = 2;
/// So many that a connection's last order is answered before the next one is due, even after a pause.
const ORDERING: u32 = 512;
/// So many that one is free for each order, also when a request takes milliseconds.
const BARISTAS: u32 = 100;
const BREWED: u32 = 200;
const TOKENS_PER_MILLISECOND: usize = 10;
/// Connections of one burst, and the time between the beginnings of two.
const HANDSHAKES: u32 = 1000;
const BURST_EVERY: Duration = Duration::from_secs(1);
const WARM_UP: Duration = Duration::from_millis(500);
const TICK: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Disturbance {
    Nothing,
    /// Unknown tokens, forwarded for so many clients by each connection. Of few clients most are answered 429; of many,
    /// each is answered 401 and logged.
    WrongTokens(u32),
    /// A known token in as many requests, each answered 404: what that many requests cost without their refusal.
    AcceptedTokens,
    /// Connections that all begin their handshake at once.
    Handshakes,
}

pub(crate) struct Disturbed {
    pub(crate) server: Server,
    pub(crate) by: Disturbance,
    pub(crate) window: Duration,
}

impl Disturbed {
    fn measure(&self) -> Result<Sample> {
        raise_open_files();
        let (server, ended) = (&self.server, AtomicBool::new(false));
        let mut brewed = brew(server)?;
        let (latencies, rate) = scope(|scope| {
            let disturbing = scope.spawn(|| self.by.until(&ended, server));
            let latencies = cycles(server, self.window);
            ended.store(true, Ordering::Relaxed);
            (latencies, disturbing.join().expect("no panic"))
        });
        let (mut latencies, rate) = (latencies?, rate?);
        brewed.release()?;
        complete(&mut brewed)?;
        brewed.ledger.balance()?;
        let [median, p99] = [50, 99].map(|percent| percentile(&mut latencies, percent));
        let figures = [("median", median), ("p99", p99), ("disturbing", rate)];
        Ok(sample(figures))
    }
}

impl Side for Disturbed {
    fn processes(&self) -> Option<Vec<u32>> {
        Some(vec![self.server.pid()])
    }

    fn sample(&mut self) -> Result<Sample> {
        self.server.explain(self.measure())
    }
}

/// Customers whose orders are being brewed until the client is released.
fn brew(server: &Server) -> Result<Client> {
    let mut client = Client::of(http::first, server)?;
    client.ledger.holding = true;
    for _ in 0..BREWED {
        client.hire(server.staff, barista(false, server.authorization()))?;
        client.enter(Ipv4Addr::LOCALHOST, server.customers, Box::new(Customer))?;
    }
    client.run_while(PATIENCE, |ledger| ledger.finished() < BREWED as usize)?;
    Ok(client)
}

fn complete(client: &mut Client) -> Result<()> {
    client.run_while(PATIENCE, |ledger| {
        !(ledger.all_answered() && ledger.all_confirmed())
    })
}

/// How long each cycle of the window took.
fn cycles(server: &Server, window: Duration) -> Result<Vec<Duration>> {
    let mut client = Client::of(http::first, server)?;
    for _ in 0..BARISTAS {
        client.hire(server.staff, barista(false, server.authorization()))?;
    }
    for _ in 0..ORDERING {
        let customer = Box::<TimedCustomer>::default();
        client.enter(Ipv4Addr::LOCALHOST, server.customers, customer)?;
    }
    complete(&mut client)?;
    for time in [WARM_UP, window] {
        client.ledger.latencies.clear();
        let end = Instant::now() + time;
        pace(&mut client, ORDERING, ORDERS_PER_MILLISECOND, || {
            Instant::now() >= end
        })?;
    }
    complete(&mut client)?;
    let latencies = std::mem::take(&mut client.ledger.latencies);
    client.ledger.balance()?;
    Ok(latencies)
}

/// Has the last `clients` connections send requests in turn, at a fixed rate. What could not be sent in time is sent late.
fn pace(
    client: &mut Client,
    clients: u32,
    per_millisecond: usize,
    is_over: impl Fn() -> bool,
) -> Result<()> {
    let clients = clients as usize;
    let first = client.connections() - clients;
    let (begin, mut sent) = (Instant::now(), 0);
    while !is_over() {
        let due = usize::try_from(begin.elapsed().as_millis())? * per_millisecond;
        for number in sent..due {
            client.ask(first + number % clients)?;
        }
        sent = due;
        client.run_until(Instant::now() + TICK)?;
    }
    Ok(())
}

#[derive(Default)]
struct TimedCustomer(VecDeque<Instant>);

impl Session for TimedCustomer {
    fn request(&mut self, out: &mut Vec<u8>) {
        self.0.push_back(Instant::now());
        Customer.request(out);
    }

    fn receive(&mut self, message: Message, turn: &mut Turn) -> Result<Received> {
        let latency = self.0.pop_front().map(|placed| placed.elapsed());
        turn.ledger.latencies.extend(latency);
        Customer.receive(message, turn)
    }
}

impl Disturbance {
    /// Disturbs until the end. Returns how many requests were answered per second. What a burst of handshakes takes of the
    /// client's processor must not show as the server's.
    fn until(self, ended: &AtomicBool, server: &Server) -> Result<f64> {
        let begin = Instant::now();
        let is_over = || ended.load(Ordering::Relaxed);
        let answers = match self {
            Disturbance::Nothing => 0,
            Disturbance::WrongTokens(clients) => {
                let session = |number| presenter(number, None, clients, &[401, 429]);
                tokens(server, session, is_over)?
            }
            Disturbance::AcceptedTokens => {
                let session = |number| presenter(number, server.tokens.first(), 1, &[404]);
                tokens(server, session, is_over)?
            }
            Disturbance::Handshakes => {
                yield_to_others()?;
                handshakes(server, is_over)?
            }
        };
        Ok(f64::from(u32::try_from(answers)?) / begin.elapsed().as_secs_f64())
    }
}

fn tokens(
    server: &Server,
    session: impl Fn(u32) -> Box<dyn Session>,
    is_over: impl Fn() -> bool,
) -> Result<u64> {
    let mut client = Client::of(http::first, server)?;
    for number in 0..CUSTOMERS {
        client.enter(Ipv4Addr::LOCALHOST, server.staff, session(number))?;
    }
    pace(&mut client, CUSTOMERS, TOKENS_PER_MILLISECOND, is_over)?;
    complete(&mut client)?;
    Ok(client.ledger.answers)
}

/// Bursts from different addresses: the ports of closed connections stay in use for a while.
fn handshakes(server: &Server, is_over: impl Fn() -> bool) -> Result<u64> {
    let mut answers = 0;
    for burst in (1..=u8::MAX).cycle().take_while(|_| !is_over()) {
        let next = Instant::now() + BURST_EVERY;
        let source = Ipv4Addr::new(127, 0, 2, burst);
        let mut client = Client::of(http::first, server)?;
        for _ in 0..HANDSHAKES {
            client.enter(source, server.customers, Box::new(Knock))?;
        }
        client.release()?;
        complete(&mut client)?;
        answers += client.ledger.answers;
        client.run_until(next)?;
    }
    Ok(answers)
}

/// Connects at once, and sends its only request when it is released.
struct Knock;

impl Session for Knock {
    fn receive(&mut self, message: Message, _: &mut Turn) -> Result<Received> {
        http::expect(message, 200)?;
        Ok(Received::Answer)
    }

    fn release(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&http::get("/healthz"));
    }
}
