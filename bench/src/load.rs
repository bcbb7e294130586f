//! A load: clients that send one request after the other to a server under full load, and workers if it needs any.
//!
//! A sample connects all of them, and counts the answers within a window after a warm-up. Then the ledger is closed: open
//! requests are answered and open confirmations arrive, and only a balanced ledger makes a sample.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::client::{Client, Framing, Session};
use crate::engine::{Bench, CLIENT_BUSY, Sample, Side, sample};
use crate::machine::{own_processor_time, processor_time};
use crate::programs::Server;
use crate::{access, couriers, deliveries, gearman, http, nats, orders, packages, redis};

pub(crate) const CUSTOMERS: u32 = 64;
pub(crate) const BARISTAS: u32 = 10;

/// A round's seconds are measured in samples, in turn with the other subjects', on new connections each: how the threads
/// of a server fall onto few processors differs from one set of connections to the next by a quarter and more.
const WINDOW: Duration = Duration::from_millis(500);
pub(crate) const WINDOWS_PER_SECOND: u32 = 2;
const WARM_UP: Duration = Duration::from_millis(250);

/// For what should take milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// A worker without a confirmation after this time is waiting for the next order, with which it comes.
const CONFIRMED_WITHIN: Duration = Duration::from_millis(5);
const LAST_ORDERS_MAX: u32 = 1000;

/// Opens a worker's session.
type Worker = fn(&Server) -> Box<dyn Session>;

#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) framing: Framing,
    /// Where clients connect; workers connect to the staff listener.
    pub(crate) listener: fn(&Server) -> SocketAddr,
    pub(crate) clients: u32,
    /// A client by its number.
    pub(crate) customer: fn(u32, &Server) -> Box<dyn Session>,
    pub(crate) worker: Option<Worker>,
    /// Work without a worker that is ready for it is lost.
    pub(crate) is_pushed: bool,
    /// Units of what is compared per answer.
    pub(crate) units_per_answer: f64,
    /// Brings a new server into the state in which it is measured.
    pub(crate) prepare: fn(&Server, &Bench) -> Result<()>,
    /// Compares a server's state with all answers that it has given.
    pub(crate) check: fn(&Server, u64) -> Result<()>,
}

impl Load {
    /// Clients of a desk, without workers.
    pub(crate) const HTTP: Load = Load {
        framing: http::first,
        listener: |server| server.staff,
        clients: CUSTOMERS,
        customer: |_, _| http::Repeat::boxed(b"", 200, |_, _| false),
        worker: None,
        is_pushed: false,
        units_per_answer: 1.0,
        prepare: |_, _| Ok(()),
        check: |_, _| Ok(()),
    };

    pub(crate) fn named(name: &str) -> Result<Load> {
        Ok(match name {
            "cycle" => orders::CYCLE,
            "next" => orders::NEXT,
            "blocked" => orders::BLOCKED,
            "accepted-tokens" => access::ACCEPTED,
            "tokens-without-role" => access::WITHOUT_ROLE,
            "unknown-tokens" => access::UNKNOWN,
            "limited-tokens" => access::LIMITED,
            "bare" => orders::BARE,
            "bare-request" => orders::BARE_REQUEST,
            "bare-held" => orders::BARE_HELD,
            "jobs" => gearman::JOBS,
            "requests" => nats::REQUESTS,
            "events" => deliveries::EVENTS,
            "events-noop" => deliveries::EVENTS_NOOP,
            "entries" => redis::ENTRIES,
            "list" => deliveries::LIST,
            "counts" => deliveries::COUNTS,
            "counts-noop" => deliveries::COUNTS_NOOP,
            "packages" => packages::ASCENDING,
            "packages-random" => packages::RANDOM,
            "orders" => couriers::ASCENDING,
            "orders-random" => couriers::RANDOM,
            "orders-listed" => couriers::LISTED,
            "orders-noop" => couriers::NOOP,
            _ => bail!("there is no load {name}"),
        })
    }

    /// Connects the workers and waits until all are ready.
    pub(crate) fn hire(&self, client: &mut Client, server: &Server, count: u32) -> Result<()> {
        let Some(worker) = self.worker else {
            return Ok(());
        };
        for _ in 0..count {
            client.hire(server.staff, worker(server))?;
        }
        client.run_while(PATIENCE, |ledger| ledger.ready < count)
    }
}

/// A load and its server, which runs throughout the rounds: a server without requests does not disturb the others.
pub(crate) struct Running {
    load: Load,
    server: Server,
    answers: u64,
}

impl Running {
    pub(crate) fn start(load: Load, server: Server, bench: &Bench) -> Result<Self> {
        server.explain((load.prepare)(&server, bench))?;
        Ok(Self {
            load,
            server,
            answers: 0,
        })
    }

    fn measure(&mut self) -> Result<Sample> {
        let (load, pid) = (self.load, self.server.pid());
        let mut client = Client::of(load.framing, &self.server)?;
        client.ledger.open = true;
        load.hire(&mut client, &self.server, BARISTAS)?;
        let first_customer = client.connections();
        for number in 0..load.clients {
            let (session, address) = (
                (load.customer)(number, &self.server),
                (load.listener)(&self.server),
            );
            client.enter(Ipv4Addr::LOCALHOST, address, session)?;
        }

        client.run_until(Instant::now() + WARM_UP)?;
        let before = processor_time(pid)?;
        let (begin, answers, own) = (Instant::now(), client.ledger.answers, own_processor_time()?);
        client.run_until(begin + WINDOW)?;
        let elapsed = begin.elapsed().as_secs_f64();
        let own = own_processor_time()?.saturating_sub(own);
        let used = processor_time(pid)?.saturating_sub(before).as_secs_f64();
        let answers = f64::from(u32::try_from(client.ledger.answers - answers)?);

        close(&mut client, first_customer)?;
        self.answers += client.ledger.answers;
        client.ledger.balance()?;
        Ok(sample([
            ("rate", answers * load.units_per_answer / elapsed),
            ("server-time", used * 1e9 / answers.max(1.0)),
            ("client-time", own.as_secs_f64() * 1e9 / answers.max(1.0)),
            (CLIENT_BUSY, own.as_secs_f64() / elapsed),
        ]))
    }
}

impl Side for Running {
    fn processes(&self) -> Option<Vec<u32>> {
        Some(vec![self.server.pid()])
    }

    fn sample(&mut self) -> Result<Sample> {
        let sample = self.measure();
        self.server.explain(sample)
    }

    fn end(&mut self) -> Result<()> {
        self.server
            .explain((self.load.check)(&self.server, self.answers))
    }
}

/// Waits for all answers and confirmations. A worker may be waiting for a confirmation that only comes together with the
/// next order; then a customer orders once more.
fn close(client: &mut Client, first_customer: usize) -> Result<()> {
    client.ledger.open = false;
    for _ in 0..LAST_ORDERS_MAX {
        client.run_while(PATIENCE, |ledger| !ledger.all_answered())?;
        if !client.ledger.all_confirmed() {
            client.run_until(Instant::now() + CONFIRMED_WITHIN)?;
        }
        if client.ledger.all_confirmed() {
            return Ok(());
        }
        client.ask(first_customer)?;
    }
    bail!("confirmations are missing: {}", client.ledger.summary())
}
