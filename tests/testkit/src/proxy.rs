//! What may stand between a client and an engine, and what becomes of messages there.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::http::Request;
use crate::redis::Redis;
use crate::{Incoming, aws, http, resp};

/// Every operation.
pub const ANY: &str = "*";

/// What an error of a fault says.
const MESSAGE: &str = "on purpose";

/// What becomes of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Everything gets through.
    Open,
    /// Connections are closed, new ones too.
    Refused,
    /// Nothing gets through, and connections stay.
    Swallowed,
    /// Requests get through, answers do not, and connections stay.
    AnswersLost,
}

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It does not arrive, and its connection is closed.
    Lost,
    /// It is carried out; its connection is closed instead of an answer.
    AnswerLost,
    /// It is carried out; the answer takes so long.
    AnswerDelayed(Duration),
    /// It arrives twice; the client receives the first answer.
    Repeated,
    /// Its answer arrives twice.
    AnswerRepeated,
    /// It is answered with an error instead of being carried out: its code, and its HTTP status, which Redis does not have.
    Error(&'static str, u16),
    /// As a transaction of `DynamoDB`, it is canceled for this reason. What is no transaction is carried out.
    Canceled(&'static str),
}

/// Whose messages they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Engine {
    Redis,
    Aws,
}

impl Engine {
    fn request_length(self, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::Redis => resp::length(bytes),
            Self::Aws => http::length(bytes, false),
        }
    }

    fn operation(self, request: &[u8]) -> String {
        match self {
            Self::Redis => resp::name(request),
            Self::Aws => {
                let request = Request::read(request);
                let target = request.field("x-amz-target").unwrap_or_default();
                target.rsplit('.').next().unwrap_or_default().to_owned()
            }
        }
    }

    fn answer_length(self, bytes: &[u8], is_head: bool) -> Option<usize> {
        match self {
            Self::Redis => resp::length(bytes),
            Self::Aws if is_head => http::head(bytes),
            Self::Aws => http::length(bytes, true),
        }
    }

    /// The error that this fault is.
    fn error(self, request: &[u8], fault: Fault) -> Option<Vec<u8>> {
        let (code, status, canceled) = match fault {
            Fault::Error(code, status) => (code, status, None),
            Fault::Canceled(reason) => ("TransactionCanceledException", 400, Some(reason)),
            _ => return None,
        };
        Some(match self {
            Self::Redis => format!("-{code} {MESSAGE}\r\n").into_bytes(),
            Self::Aws => aws::error(&Request::read(request), code, MESSAGE, status, canceled),
        })
    }
}

/// What happens to which requests.
#[derive(Debug, Default)]
struct Script {
    /// To the next of these operations.
    next: VecDeque<(&'static str, Fault)>,
    /// To all of this operation but so many first ones.
    all_but: Option<(&'static str, usize, Fault)>,
    /// To this percentage.
    chance: Option<(Rng, u32, &'static [Fault])>,
}

impl Script {
    fn fault(&mut self, operation: &str) -> Option<Fault> {
        let is_meant = |of: &str| of == ANY || of == operation;
        if self.next.front().is_some_and(|(of, _)| is_meant(of)) {
            return self.next.pop_front().map(|(_, fault)| fault);
        }
        if let Some((of, first, fault)) = &mut self.all_but
            && is_meant(of)
        {
            let passes = *first > 0;
            *first = first.saturating_sub(1);
            return (!passes).then_some(*fault);
        }
        let (random, percent, faults) = self.chance.as_mut()?;
        let fault = (random.u32(..100) < *percent).then(|| random.choice(*faults).copied())??;
        let is_meant = operation == "TransactWriteItems" || !matches!(fault, Fault::Canceled(_));
        is_meant.then_some(fault)
    }
}

/// Where connections lead, and what becomes of what is on them.
#[derive(Debug, Clone, Copy)]
struct State {
    to: SocketAddr,
    way: Way,
    /// How often the connections that were open fell silent.
    silences: u32,
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    engine: Engine,
    script: Mutex<Script>,
    /// If requests are carried out one after the other: whose turn it is.
    turn: Option<Arc<tokio::sync::Mutex<()>>>,
    state: watch::Sender<State>,
}

/// Stands between clients and an engine.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

impl Proxy {
    /// Before this server.
    pub async fn before_redis(server: &Redis) -> Self {
        Self::before(Engine::Redis, server.address(), false).await
    }

    /// Before an emulator of Amazon's services.
    pub async fn before_emulator(emulator: SocketAddr) -> Self {
        Self::before(Engine::Aws, emulator, false).await
    }

    /// Before an emulator, which sees one request at a time. It does not isolate transactions: one that is canceled
    /// restores whole tables to their state when it began, and so loses what others wrote at the same time.
    pub async fn isolating(emulator: SocketAddr) -> Self {
        Self::before(Engine::Aws, emulator, true).await
    }

    async fn before(engine: Engine, to: SocketAddr, one_at_a_time: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = State {
            to,
            way: Way::Open,
            silences: 0,
        };
        let shared = Arc::new(Shared {
            engine,
            script: Mutex::default(),
            turn: one_at_a_time.then(Arc::default),
            state: watch::Sender::new(state),
        });
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, Arc::clone(&shared)));
        Self {
            address,
            shared,
            _serving: serving,
        }
    }

    /// The URL of Amazon's services behind it.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// New connections lead to another server. Open ones stay.
    pub fn lead_to(&self, server: &Redis) {
        let to = server.address();
        self.shared.state.send_modify(|state| state.to = to);
    }

    /// What becomes of everything, from now on.
    pub fn is_now(&self, way: Way) {
        self.shared.state.send_modify(|state| state.way = way);
    }

    /// Nothing gets through on the connections that are open now. New ones work.
    pub fn silence_open(&self) {
        self.shared.state.send_modify(|state| state.silences += 1);
    }

    /// What becomes of the next requests of this operation, one after another.
    pub fn next(&self, operation: &'static str, faults: &[Fault]) {
        let faults = faults.iter().map(|&fault| (operation, fault));
        self.script(|script| script.next.extend(faults));
    }

    /// Whether all that was to happen [next](Self::next) has happened.
    pub fn is_over(&self) -> bool {
        self.script(|script| script.next.is_empty())
    }

    /// What becomes of all requests of this operation but so many first ones, until it is ended.
    pub fn all_but(&self, operation: &'static str, first: usize, fault: Fault) {
        self.script(|script| script.all_but = Some((operation, first, fault)));
    }

    /// Ends [`all_but`](Self::all_but).
    pub fn end(&self) {
        self.script(|script| script.all_but = None);
    }

    /// Of a hundred requests, so many meet one of these faults.
    pub fn chance(&self, seed: u64, percent: u32, faults: &'static [Fault]) {
        let chance = (Rng::with_seed(seed), percent, faults);
        self.script(|script| script.chance = Some(chance));
    }

    fn script<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        change(&mut self.shared.script.lock().unwrap())
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let connection = Connection {
            began: *shared.state.borrow(),
            shared: Arc::clone(&shared),
        };
        connections.spawn(connection.relay(client));
    }
}

/// A request that was read, in the order of their answers.
struct Pending {
    fault: Option<Fault>,
    /// The answer, if the engine is not asked.
    error: Option<Vec<u8>>,
    /// Whether its answer has no body.
    is_head: bool,
    arrived: Instant,
    turn: Option<OwnedMutexGuard<()>>,
}

struct Connection {
    shared: Arc<Shared>,
    began: State,
}

impl Connection {
    async fn relay(self, client: TcpStream) {
        if self.began.way == Way::Refused {
            return;
        }
        let Ok(server) = TcpStream::connect(self.began.to).await else {
            return;
        };
        for stream in [&client, &server] {
            stream.set_nodelay(true).unwrap();
        }
        let ((from_client, to_client), (from_server, to_server)) =
            (client.into_split(), server.into_split());
        let (pending, waiting) = mpsc::unbounded_channel();
        let requests = async {
            self.requests(from_client, to_server, pending).await;
            // The answers end after the last one.
            std::future::pending::<()>().await;
        };
        let mut states = self.shared.state.subscribe();
        tokio::select! {
            () = requests => {}
            () = self.answers(from_server, to_client, waiting) => {}
            _ = states.wait_for(|state| state.way == Way::Refused) => {}
        }
    }

    async fn requests(
        &self,
        client: OwnedReadHalf,
        mut server: OwnedWriteHalf,
        pending: UnboundedSender<Pending>,
    ) {
        let engine = self.shared.engine;
        let mut client = Incoming::new(client);
        while let Some(request) = client.message(|all| engine.request_length(all)).await {
            self.unless_silent(&[Way::Swallowed]).await;
            let operation = engine.operation(&request);
            let fault = self.shared.script.lock().unwrap().fault(&operation);
            let error = fault.and_then(|fault| engine.error(&request, fault));
            let mut copies = 1;
            if fault == Some(Fault::Lost) || error.is_some() {
                copies = 0;
            } else if fault == Some(Fault::Repeated) {
                copies = 2;
            }
            let turn = match &self.shared.turn {
                Some(turn) if copies > 0 => Some(Arc::clone(turn).lock_owned().await),
                _ => None,
            };
            let read = Pending {
                fault,
                error,
                is_head: request.starts_with(b"HEAD "),
                arrived: Instant::now(),
                turn,
            };
            let is_sent = pending.send(read).is_ok();
            if !is_sent || server.write_all(&request.repeat(copies)).await.is_err() {
                return;
            }
        }
    }

    /// Ends with the server, or once the last request is answered.
    async fn answers(
        &self,
        server: OwnedReadHalf,
        mut client: OwnedWriteHalf,
        mut waiting: UnboundedReceiver<Pending>,
    ) {
        let engine = self.shared.engine;
        let mut server = Incoming::new(server);
        loop {
            let next = tokio::select! {
                biased;
                next = waiting.recv() => next,
                is_open = server.more() => if is_open { continue } else { return },
            };
            let Some(mut pending) = next else { return };
            if pending.fault == Some(Fault::Lost) {
                return;
            }
            let mut answer = pending.error.take();
            if answer.is_none() {
                let length = |all: &[u8]| engine.answer_length(all, pending.is_head);
                answer = server.message(length).await;
                if pending.fault == Some(Fault::Repeated) {
                    server.message(length).await;
                }
            }
            pending.turn = None;
            let mut copies = 1;
            match pending.fault {
                Some(Fault::AnswerLost) => return,
                Some(Fault::AnswerDelayed(delay)) => sleep_until(pending.arrived + delay).await,
                Some(Fault::AnswerRepeated) => copies = 2,
                _ => {}
            }
            self.unless_silent(&[Way::Swallowed, Way::AnswersLost])
                .await;
            let Some(answer) = answer else { return };
            // A client that has left reads none; the others are carried out all the same.
            drop(client.write_all(&answer.repeat(copies)).await);
        }
    }

    /// Returns, unless what there is must not get through; then never.
    async fn unless_silent(&self, ways: &[Way]) {
        let state = *self.shared.state.borrow();
        if ways.contains(&state.way) || state.silences > self.began.silences {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    /// Long enough for an answer that comes.
    const SILENCE: Duration = Duration::from_millis(200);

    struct Client(Incoming<OwnedReadHalf>, OwnedWriteHalf);

    impl Client {
        async fn of(proxy: &Proxy) -> Self {
            let (from, to) = TcpStream::connect(proxy.address)
                .await
                .unwrap()
                .into_split();
            Self(Incoming::new(from), to)
        }

        async fn send(&mut self, words: &[&str]) {
            drop(self.1.write_all(&resp::command(words)).await);
        }

        /// Nothing at the end of the connection.
        async fn answer(&mut self) -> Option<String> {
            let answer = self.0.message(resp::length).await?;
            Some(resp::text(&answer).unwrap_or_else(|error| error))
        }

        async fn ask(&mut self, words: &[&str]) -> Option<String> {
            self.send(words).await;
            self.answer().await
        }

        async fn is_silent(&mut self) -> bool {
            timeout(SILENCE, self.answer()).await.is_err()
        }
    }

    #[tokio::test]
    async fn each_fault_does_what_it_says() {
        let server = Redis::start().await;
        let proxy = Proxy::before_redis(&server).await;
        let mut client = Client::of(&proxy).await;
        proxy.next("INCR", &[Fault::Repeated, Fault::AnswerRepeated]);
        assert_eq!(client.ask(&["INCR", "a"]).await.as_deref(), Some("1"));
        assert_eq!(client.ask(&["INCR", "a"]).await.as_deref(), Some("3"));
        assert_eq!(client.answer().await.as_deref(), Some("3"));
        let delay = Duration::from_millis(50);
        proxy.next("INCR", &[Fault::AnswerDelayed(delay)]);
        let began = Instant::now();
        assert_eq!(client.ask(&["INCR", "a"]).await.as_deref(), Some("4"));
        assert!(began.elapsed() >= delay);
        proxy.all_but("INCR", 1, Fault::Error("READONLY", 0));
        assert_eq!(client.ask(&["INCR", "a"]).await.as_deref(), Some("5"));
        assert_eq!(
            client.ask(&["INCR", "a"]).await.as_deref(),
            Some("READONLY on purpose")
        );
        proxy.end();
        for (fault, left) in [(Fault::Lost, "5"), (Fault::AnswerLost, "6")] {
            let mut client = Client::of(&proxy).await;
            proxy.next("INCR", &[fault]);
            assert_eq!(client.ask(&["INCR", "a"]).await, None);
            assert_eq!(server.ask(&["GET", "a"]).await, left, "{fault:?}");
        }
        assert!(proxy.is_over());
        assert_eq!(client.ask(&["INCR", "a"]).await.as_deref(), Some("7"));
    }

    #[tokio::test]
    async fn each_way_does_what_it_says() {
        let server = Redis::start().await;
        let proxy = Proxy::before_redis(&server).await;
        let mut before = Client::of(&proxy).await;
        assert_eq!(before.ask(&["INCR", "a"]).await.as_deref(), Some("1"));
        proxy.silence_open();
        before.send(&["INCR", "a"]).await;
        assert!(before.is_silent().await);
        let mut client = Client::of(&proxy).await;
        assert_eq!(client.ask(&["INCR", "a"]).await.as_deref(), Some("2"));
        proxy.is_now(Way::AnswersLost);
        client.send(&["INCR", "a"]).await;
        assert!(client.is_silent().await);
        assert_eq!(server.ask(&["GET", "a"]).await, "3");
        let mut client = Client::of(&proxy).await;
        proxy.is_now(Way::Swallowed);
        client.send(&["INCR", "a"]).await;
        assert!(client.is_silent().await);
        proxy.is_now(Way::Refused);
        assert_eq!(client.answer().await, None);
        assert_eq!(before.answer().await, None);
        assert_eq!(Client::of(&proxy).await.ask(&["PING"]).await, None);
        proxy.is_now(Way::Open);
        let other = Redis::start().await;
        proxy.lead_to(&other);
        let mut client = Client::of(&proxy).await;
        assert_eq!(client.ask(&["INCR", "a"]).await.as_deref(), Some("1"));
        drop(other);
        assert_eq!(client.answer().await, None);
    }
}
