//! Races between the guards of requests, the session with the store, and its events, under thousands of schedules of a model
//! checker. The store is the oracle of the stores' tests. A lost order shows as a deadlock: its customer waits forever.
//!
//! The code that runs is the server's own, with tokio's channels. At every acquisition of its lock and on the way of every call,
//! another task may come first. Time passes only where a scenario says so: until then no patience ends.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use shuttle::future::{JoinHandle, block_on, spawn, yield_now};
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Runner, thread};
use tokio::runtime::{Builder, Runtime};

use super::super::idempotency::Keyed;
use super::super::line::tests::loopback::Loopback;
use super::super::line::tests::rules;
use super::super::store::{Answer, Answering, Call, Event, Millis, Number, StoreError, TICK_MAX};
use super::*;

/// Of each kind. `make soak` wants three thousand.
const SCHEDULES: usize = 300;
/// A debug build's frames are large.
const STACK: usize = 1 << 18;
/// When scenarios begin, in milliseconds since 1970.
const BEGIN: Millis = 1_800_000_000_000;
/// Less than a tick may move the line clock.
const LEASE: Duration = Duration::from_millis(1900);
/// Switches to other tasks on the way of a call, an answer or events.
const DELAY_MAX: u32 = 8;
/// How far the clock moves at a time: far less than anyone's patience.
const STEP: Duration = Duration::from_millis(20);

/// In a model check, the lock that is about to be acquired may be another's first.
pub(super) fn may_be_overtaken() {
    if shuttle::current::try_get_current_task().is_some() {
        switch();
    }
}

/// Another task may come first. Without a hint to the scheduler that this one has nothing to do.
fn switch() {
    thread::sleep(Duration::ZERO);
}

/// Others may do a lot in the meantime, also in a random schedule.
fn delay() {
    for _ in 0..thread_rng().gen_range(0..DELAY_MAX) {
        switch();
    }
}

/// Random schedules, and schedules with few preemptions (PCT), which find deep races that random ones miss.
fn explore(scenario: impl Fn(&Model) + Send + Sync + Copy + 'static) {
    let mut clock = Builder::new_current_thread();
    clock.enable_time().start_paused(true);
    let clock = Arc::new(clock.build().unwrap());
    let _entered = clock.enter();
    let play = {
        let clock = Arc::clone(&clock);
        move || scenario(&Model::new(&clock))
    };
    let schedules = std::env::var("SOAK_SCHEDULES").ok();
    let schedules = schedules.map_or(SCHEDULES, |schedules| schedules.parse().unwrap());
    let mut config = shuttle::Config::new();
    config.stack_size = STACK;
    Runner::new(RandomScheduler::new(schedules), config.clone()).run(play.clone());
    Runner::new(PctScheduler::new(3, schedules), config).run(play);
}

/// What all servers of a model share.
struct Oracle {
    line: Mutex<Loopback>,
    began: Instant,
    news: Notify,
    /// How often it has lost everything.
    losses: AtomicU64,
    /// Calls that may still meet a fault.
    faults: AtomicUsize,
    /// Of the first server: none gets through.
    are_calls_held: AtomicBool,
    released: Notify,
}

impl Oracle {
    fn new() -> Self {
        Self {
            line: Mutex::new(Loopback::new(&(&configured()).into())),
            began: Instant::now(),
            news: Notify::new(),
            losses: AtomicU64::new(0),
            faults: AtomicUsize::new(0),
            are_calls_held: AtomicBool::new(false),
            released: Notify::new(),
        }
    }

    fn hold_calls(&self, are_held: bool) {
        self.are_calls_held.store(are_held, Ordering::Relaxed);
        self.released.notify_waiters();
    }

    fn happened(&self) -> Number {
        self.line.lock().unwrap().events.len() as u64
    }

    fn loses_everything(&self) {
        *self.line.lock().unwrap() = Loopback::new(&(&configured()).into());
        self.losses.fetch_add(1, Ordering::Relaxed);
        self.news.notify_waiters();
    }

    /// On the way of a call or an answer.
    fn may_be_lost(&self, what: &str) -> Result<(), StoreError> {
        delay();
        let left = self.faults.load(Ordering::Relaxed);
        if left == 0 || thread_rng().gen_bool(0.7) {
            return Ok(());
        }
        self.faults.store(left - 1, Ordering::Relaxed);
        Err(StoreError::Unavailable(what.into()))
    }
}

/// A server's way to it.
struct Way {
    oracle: Arc<Oracle>,
    /// The losses that this server knows of: without them, events of the same numbers would be taken for those that were lost.
    losses: AtomicU64,
}

impl Way {
    async fn apply(&self, call: &Call) -> Result<Answer, StoreError> {
        self.oracle.may_be_lost("a call")?;
        while call.server == ServerId(1) && self.oracle.are_calls_held.load(Ordering::Relaxed) {
            self.oracle.released.notified().await;
        }
        if call.operations.first() == Some(&Operation::Hello) {
            let losses = self.oracle.losses.load(Ordering::Relaxed);
            self.losses.store(losses, Ordering::Relaxed);
        }
        let time = BEGIN + millis(self.oracle.began.elapsed());
        let answer = self.oracle.line.lock().unwrap().call(call, time);
        self.oracle.news.notify_waiters();
        self.oracle.may_be_lost("an answer")?;
        answer
    }

    fn read(&self, after: Number) -> Result<BTreeMap<Number, Event>, StoreError> {
        if self.losses.load(Ordering::Relaxed) < self.oracle.losses.load(Ordering::Relaxed) {
            return Err(StoreError::Lost);
        }
        let line = self.oracle.line.lock().unwrap();
        let seen = usize::try_from(after).unwrap();
        let events = line.events.get(seen..).ok_or(StoreError::Lost)?;
        Ok((after + 1..).zip(events.iter().cloned()).collect())
    }
}

impl Store for Way {
    fn call<'a>(&'a self, call: &'a Call) -> Answering<'a, Answer> {
        Box::pin(self.apply(call))
    }

    fn events(&self, after: Number) -> Answering<'_, BTreeMap<Number, Event>> {
        Box::pin(async move {
            loop {
                let news = self.oracle.news.notified();
                let events = self.read(after)?;
                if !events.is_empty() {
                    delay();
                    return Ok(events);
                }
                news.await;
            }
        })
    }
}

fn configured() -> Config {
    Config {
        lease: LEASE,
        ..rules()
    }
}

/// A line of two servers.
struct Model {
    oracle: Arc<Oracle>,
    clock: Arc<Runtime>,
    servers: [Shared; 2],
    sessions: [JoinHandle<()>; 2],
}

impl Model {
    fn new(clock: &Arc<Runtime>) -> Self {
        let oracle = Arc::new(Oracle::new());
        let servers = [1, 2].map(|number| {
            let way = Way {
                oracle: Arc::clone(&oracle),
                losses: AtomicU64::new(0),
            };
            let (rules, metrics) = (configured(), Metrics::register());
            Shared::new(Arc::new(way), ServerId(number), &rules, metrics)
        });
        let sessions = servers.each_ref().map(|server| {
            let server = server.clone();
            spawn(async move { server.run().await })
        });
        Self {
            oracle,
            clock: Arc::clone(clock),
            servers,
            sessions,
        }
    }

    fn pass(&self, time: Duration) {
        self.clock.block_on(tokio::time::advance(time));
    }

    /// From here on time passes, step by step among those of the others.
    fn time_passes(&self) {
        let clock = Arc::clone(&self.clock);
        drop(spawn(async move {
            loop {
                clock.block_on(tokio::time::advance(STEP));
                yield_now().await;
            }
        }));
    }

    /// A customer, until they are answered.
    fn customer(&self, at: usize, wanted: Wanted) -> JoinHandle<Outcome> {
        let server = self.servers[at].clone();
        spawn(async move {
            match server.place(wanted, true).get().await {
                Ok(Placement::Held(held)) => held.await,
                Ok(Placement::Replayed(outcome)) => outcome,
                other => panic!("neither held nor answered: {other:?}"),
            }
        })
    }

    /// A barista who takes an order, waiting for it, and leaves with it unconfirmed, or stops waiting.
    fn leaver(&self, at: usize) -> JoinHandle<()> {
        let server = self.servers[at].clone();
        spawn(async move {
            match pull(&server, true).await {
                Ok(Taken::Idle(idle)) if thread_rng().gen_bool(0.5) => drop(idle.stop().await),
                Ok(Taken::Idle(idle)) => drop(idle.await),
                other => drop(other),
            }
        })
    }

    /// A barista who serves one order. Its id and attempt.
    fn barista(&self, at: usize) -> JoinHandle<(OrderId, u32)> {
        let server = self.servers[at].clone();
        spawn(async move { serve(&server).await })
    }

    /// Asks the store, for as long as it takes.
    fn ask(&self, at: usize, operation: &Operation) {
        while block_on(self.servers[at].part.ask(operation.clone())).is_err() {}
    }

    /// A request that is in line.
    fn held(&self, at: usize, wanted: Wanted) -> Held {
        match block_on(self.servers[at].place(wanted, true).get()) {
            Ok(Placement::Held(held)) => held,
            other => panic!("it is not held: {other:?}"),
        }
    }

    /// Waits until these servers have sent all, and read all events.
    fn settle(&self, servers: &[usize]) {
        let mut before = None;
        loop {
            for &at in servers {
                self.ask(at, &Operation::Confirm { pulls: Vec::new() });
            }
            let happened = self.oracle.happened();
            let is_settled = servers.iter().all(|&at| {
                let local = self.servers[at].part.local();
                local.is_idle() && local.seen == happened
            });
            // What was on its way at that moment was flushed since.
            if is_settled && before == Some(happened) {
                return;
            }
            before = is_settled.then_some(happened);
            thread::yield_now();
        }
    }

    /// In the end, of a scenario after which these servers are left.
    fn assert_empty(&self, servers: &[usize]) {
        self.settle(servers);
        for &at in servers {
            self.ask(at, &Operation::Tick);
            assert_eq!(self.servers[at].held(), 0);
            let figures = self.servers[at].part.local().figures;
            let left = (figures.waiting, figures.brewing, figures.held);
            assert_eq!((left, figures.idle_baristas), ((0, 0, 0), 0));
        }
    }
}

async fn pull(server: &Shared, waits: bool) -> Result<Taken, Unavailable> {
    let pulling = Pulling {
        waits,
        ..Pulling::default()
    };
    server.pull(pulling).get().await
}

/// Takes an order and reports it ready, also while the store does not answer.
async fn serve(server: &Shared) -> (OrderId, u32) {
    loop {
        let guard = match pull(server, true).await {
            Ok(Taken::Idle(idle)) => idle.await,
            Ok(other) => other.lease(),
            Err(Unavailable) => None,
        };
        let Some(guard) = guard else { continue };
        let (id, attempt) = (guard.lease().id, guard.lease().attempt);
        guard.confirm();
        loop {
            match finish(server, id, Some(attempt)).await {
                Ok(_) => return (id, attempt),
                Err(FinishError::Unavailable(_)) => {}
                // The lease has expired, or the store has lost it.
                Err(_) => break,
            }
        }
    }
}

async fn finish(server: &Shared, id: OrderId, attempt: Option<u32>) -> Result<Report, FinishError> {
    let finishing = Finishing {
        attempt,
        ..Finishing::default()
    };
    server.finish(id, finishing).get().await
}

/// A request with a key, always the same.
fn keyed() -> Wanted {
    let key = IdempotencyKey::parse(b"k", IpAddr::from([127, 0, 0, 1]).into());
    let keyed = Keyed {
        key: key.unwrap(),
        fingerprint: 0,
        keep: None,
    };
    Wanted {
        keyed: Some(keyed),
        ..Wanted::default()
    }
}

fn answer(customer: JoinHandle<Outcome>) -> Arc<Order> {
    match block_on(customer).unwrap() {
        Outcome::Ready(order) => order,
        other => panic!("{other:?}"),
    }
}

/// Ends a request at any moment, and waits until it has ended.
fn leave<T>(request: JoinHandle<T>) {
    request.abort();
    let _ = block_on(request);
}

/// Customers at both servers, baristas who leave while idle, with a lease on its way, or with one received, and others who serve.
fn everyone_is_served(model: &Model) -> BTreeSet<(OrderId, u32)> {
    let customers = [0, 1].map(|at| model.customer(at, Wanted::default()));
    let leavers = [0, 1].map(|at| model.leaver(at));
    let baristas = [0, 1].map(|at| model.barista(at));
    leavers.into_iter().for_each(leave);
    let leases = baristas.map(|barista| block_on(barista).unwrap());
    let orders = customers.map(|customer| answer(customer).id);
    let leases = BTreeSet::from(leases);
    assert_eq!(leases.len(), 2, "no attempt has two leases: {leases:?}");
    assert!(
        orders
            .iter()
            .all(|id| leases.iter().any(|lease| lease.0 == *id))
    );
    leases
}

#[test]
fn whoever_drops_a_hand_over_the_order_is_served_in_the_end() {
    explore(|model| {
        let leases = everyone_is_served(model);
        assert!(
            leases.iter().all(|&(_, attempt)| attempt == 1),
            "what did not reach a barista is not counted: {leases:?}"
        );
        model.assert_empty(&[0, 1]);
    });
}

#[test]
fn calls_and_answers_that_are_lost_change_nothing() {
    explore(|model| {
        model.oracle.faults.store(4, Ordering::Relaxed);
        model.time_passes();
        everyone_is_served(model);
        model.settle(&[0, 1]);
    });
}

#[test]
fn a_store_that_loses_everything_gets_all_customers_again() {
    explore(|model| {
        model.time_passes();
        let customers = [0, 1].map(|at| model.customer(at, Wanted::default()));
        let baristas = [0, 1].map(|at| {
            let server = model.servers[at].clone();
            spawn(async move {
                loop {
                    serve(&server).await;
                }
            })
        });
        let oracle = Arc::clone(&model.oracle);
        let loss = spawn(async move {
            yield_now().await;
            oracle.loses_everything();
        });
        let [first, second] = customers.map(|customer| answer(customer).id);
        assert_ne!(first, second);
        block_on(loss).unwrap();
        baristas.into_iter().for_each(leave);
    });
}

#[test]
fn a_customer_who_leaves_is_gone_or_brewed_for_never_both() {
    explore(|model| {
        let customer = model.customer(0, Wanted::default());
        let server = model.servers[1].clone();
        let barista = spawn(async move {
            let guard = pull(&server, false).await.unwrap().lease()?;
            let id = guard.lease().id;
            guard.confirm();
            Some(finish(&server, id, None).await.unwrap())
        });
        leave(customer);
        let report = block_on(barista).unwrap();
        assert!(report.is_none_or(|report| !report.already));
        model.assert_empty(&[0, 1]);
    });
}

#[test]
fn two_requests_with_one_key_at_two_servers_make_one_order() {
    explore(|model| {
        let customers = [0, 1].map(|at| model.customer(at, keyed()));
        let (id, _) = block_on(model.barista(1)).unwrap();
        assert_eq!(customers.map(|customer| answer(customer).id), [id, id]);
        model.assert_empty(&[0, 1]);
    });
}

#[test]
fn a_request_that_joins_an_order_and_leaves_is_not_held() {
    explore(|model| {
        let stays = model.held(0, keyed());
        leave(model.customer(1, keyed()));
        model.settle(&[0, 1]);
        model.ask(0, &Operation::Tick);
        assert_eq!(model.servers[0].part.local().figures.held, 1);
        block_on(model.barista(1)).unwrap();
        assert!(matches!(block_on(stays), Outcome::Ready(_)));
        model.assert_empty(&[0, 1]);
    });
}

#[test]
fn a_server_that_is_taken_for_dead_keeps_its_customers() {
    explore(|model| {
        let held = model.held(0, Wanted::default());
        model.oracle.hold_calls(true);
        for _ in 0..4 {
            model.pass(TICK_MAX);
            model.ask(1, &Operation::Tick);
        }
        let barista = model.barista(1);
        model.time_passes();
        model.oracle.hold_calls(false);
        assert!(matches!(block_on(held), Outcome::Ready(_)));
        block_on(barista).unwrap();
    });
}

#[test]
fn a_request_that_is_sent_again_when_its_server_is_killed_is_one_order() {
    explore(|model| {
        // A call of the first server may come after that of the other one, and detach the request there: it is asserted again.
        model.time_passes();
        let proxied = || Wanted {
            proxied: Some("request-1".into()),
            ..Wanted::default()
        };
        let server = model.servers[0].clone();
        let first = spawn(async move {
            // Without its session a request has no answer that anyone reads.
            if let Ok(Placement::Held(held)) = server.place(proxied(), true).get().await {
                held.await;
            }
        });
        let barista = model.barista(1);
        model.sessions[0].abort();
        leave(first);
        let again = model.customer(1, proxied());
        let order = answer(again);
        assert_eq!(order.id, block_on(barista).unwrap().0);
        model.assert_empty(&[1]);
    });
}

#[test]
fn an_idle_barista_who_stops_gets_the_order_or_leaves_it_to_the_next() {
    explore(|model| {
        let server = model.servers[0].clone();
        let stops = spawn(async move {
            let guard = match pull(&server, true).await.unwrap() {
                Taken::Idle(idle) => idle.stop().await,
                other => other.lease(),
            };
            let id = guard.as_ref()?.lease().id;
            guard?.confirm();
            Some(finish(&server, id, Some(1)).await.unwrap().already)
        });
        let customer = model.customer(1, Wanted::default());
        let next = model.barista(1);
        match block_on(stops).unwrap() {
            Some(already) => {
                assert!(!already);
                leave(next);
            }
            None => assert_eq!(block_on(next).unwrap().1, 1),
        }
        answer(customer);
        model.assert_empty(&[0, 1]);
    });
}

#[test]
fn a_promise_and_a_finish_at_once_give_one_of_the_two_answers() {
    explore(|model| {
        let held = model.held(0, Wanted::default());
        let id = held.order();
        let promising = spawn(async move { held.promise().get().await });
        let barista = model.barista(1);
        assert_eq!(block_on(barista).unwrap(), (id, 1));
        let view = block_on(model.servers[1].view(id, false).get())
            .unwrap()
            .unwrap();
        match block_on(promising).unwrap() {
            Ok(()) => assert!(!view.order.delivered, "it was answered 202"),
            Err(held) => {
                assert!(matches!(block_on(held), Outcome::Ready(_)));
                assert!(view.order.delivered);
            }
        }
        model.assert_empty(&[0, 1]);
    });
}

#[test]
fn when_a_lease_runs_out_only_the_first_finish_counts() {
    explore(|model| {
        let [here, there] = model.servers.clone();
        let customer = model.customer(0, Wanted::default());
        let Ok(taken) = block_on(pull(&there, true)) else {
            panic!("the store answers");
        };
        let guard = block_on(taken.within(LEASE * 10)).unwrap();
        let id = guard.lease().id;
        guard.confirm();
        model.settle(&[0, 1]);
        let slow = spawn(async move { finish(&there, id, None).await.unwrap().already });
        model.pass(LEASE + STEP);
        let ticking = here.clone();
        let tick = spawn(async move { ticking.update_gauges().get().await });
        let second = spawn(async move {
            let guard = pull(&here, false).await.unwrap().lease()?;
            assert_eq!(guard.lease().attempt, 2);
            guard.confirm();
            // Fenced, or done already, if the slow one was faster in the end.
            let report = finish(&here, id, Some(2)).await;
            Some(report.is_ok_and(|report| !report.already))
        });
        let first_counted = !block_on(slow).unwrap();
        block_on(tick).unwrap();
        let second_counted = block_on(second).unwrap().unwrap_or(false);
        assert!(first_counted ^ second_counted, "exactly one finish counts");
        assert_eq!(answer(customer).id, id);
        model.assert_empty(&[0, 1]);
    });
}
