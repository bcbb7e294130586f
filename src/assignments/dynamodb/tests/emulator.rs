//! The emulator, and a proxy before it that does what an emulator does not: it throttles, lets transactions meet, fails, and
//! loses requests and answers.
//!
//! It also lets one request through at a time. The emulator does not isolate transactions: one that is canceled puts the
//! whole tables back as they were when it began, with whatever others wrote meanwhile.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::storage::aws::testkit::serve;

/// The shared emulator.
pub(super) fn shared() -> String {
    std::env::var("EMULATOR_ADDRESS")
        .expect("EMULATOR_ADDRESS names an emulator of AWS: `make test` provides it")
}

/// An emulator of our own, which can be frozen.
pub(super) struct Emulator {
    child: Child,
    pub(super) endpoint: String,
}

impl Emulator {
    pub(super) async fn start() -> Self {
        let program = std::env::var("EMULATOR_PROGRAM")
            .expect("EMULATOR_PROGRAM is the emulator of AWS: `make test` provides it");
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let child = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", &address.port().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let emulator = Self {
            child,
            endpoint: format!("http://{address}"),
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(address).await.is_err() {
            assert!(Instant::now() < deadline, "the emulator does not start");
            sleep(Duration::from_millis(50)).await;
        }
        emulator
    }

    pub(super) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub(super) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(id, signal).unwrap();
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // It ends a frozen one, too.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What becomes of a request instead of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is refused: there are too many.
    Throttled,
    /// It is refused, as a transaction can be: there are too many.
    ThrottledInside,
    /// It is refused: it met another transaction.
    Conflict,
    /// It fails with a 500, undone.
    Broken,
    /// It does not arrive.
    Unheard,
    /// It is done, but the answer is lost.
    Unanswered,
}

const FAULTS: [Fault; 6] = [
    Fault::Throttled,
    Fault::ThrottledInside,
    Fault::Conflict,
    Fault::Broken,
    Fault::Unheard,
    Fault::Unanswered,
];

#[derive(Debug, Default)]
struct Script {
    /// What happens to the next requests of these operations.
    next: Mutex<VecDeque<(&'static str, Fault)>>,
    /// What happens to all requests of this operation but so many first ones.
    all_but: Mutex<Option<(&'static str, usize, Fault)>>,
    /// Chance faults for this percentage of requests.
    chance: Mutex<Option<(fastrand::Rng, u32)>>,
    /// Nothing arrives at all.
    cut: AtomicBool,
    /// Whose turn it is.
    turn: tokio::sync::Mutex<()>,
}

impl Script {
    fn fault(&self, operation: &str) -> Option<Fault> {
        if self.cut.load(Ordering::SeqCst) {
            return Some(Fault::Unheard);
        }
        let mut next = self.next.lock().unwrap();
        if next.front().is_some_and(|fault| fault.0 == operation) {
            return next.pop_front().map(|fault| fault.1);
        }
        if let Some((of, first, fault)) = self.all_but.lock().unwrap().as_mut()
            && *of == operation
        {
            let passes = *first > 0;
            *first = first.saturating_sub(1);
            return (!passes).then_some(*fault);
        }
        let mut chance = self.chance.lock().unwrap();
        let (random, percent) = chance.as_mut()?;
        if random.u32(..100) >= *percent {
            return None;
        }
        let fault = *random.choice(&FAULTS).unwrap();
        let transactional = matches!(fault, Fault::ThrottledInside | Fault::Conflict);
        (operation == "TransactWriteItems" || !transactional).then_some(fault)
    }
}

/// Stands before the emulator.
pub(super) struct Proxy {
    pub(super) endpoint: String,
    script: Arc<Script>,
    _serving: JoinSet<()>,
}

impl Proxy {
    pub(super) async fn before(emulator: &str) -> Self {
        let emulator: SocketAddr = emulator
            .trim_start_matches("http://")
            .trim_end_matches('/')
            .parse()
            .expect("an address and a port");
        let script = Arc::new(Script::default());
        let its_script = Arc::clone(&script);
        let (endpoint, serving) = serve(move |request| {
            let script = Arc::clone(&its_script);
            async move { answer(&script, emulator, request).await }
        })
        .await;
        Self {
            endpoint,
            script,
            _serving: serving,
        }
    }

    /// The next requests of this operation fare so, one after another.
    pub(super) fn next(&self, operation: &'static str, faults: &[Fault]) {
        let faults = faults.iter().map(|&fault| (operation, fault));
        self.script.next.lock().unwrap().extend(faults);
    }

    /// All requests of this operation fare so from now on, but for so many first ones; until it is ended.
    pub(super) fn all_but(&self, operation: &'static str, first: usize, fault: Fault) {
        *self.script.all_but.lock().unwrap() = Some((operation, first, fault));
    }

    pub(super) fn end(&self) {
        *self.script.all_but.lock().unwrap() = None;
    }

    /// Whether everything that was to happen has happened.
    pub(super) fn is_over(&self) -> bool {
        self.script.next.lock().unwrap().is_empty()
    }

    /// Of a hundred requests so many fare badly.
    pub(super) fn chance(&self, seed: u64, percent: u32) {
        let chance = Some((fastrand::Rng::with_seed(seed), percent));
        *self.script.chance.lock().unwrap() = chance;
    }

    pub(super) fn cut(&self, cut: bool) {
        self.script.cut.store(cut, Ordering::SeqCst);
    }
}

fn refusal(code: &str, status: u16, reason: Option<&str>) -> Response<Full<Bytes>> {
    let body = serde_json::json!({
        "__type": format!("com.amazonaws.dynamodb.v20120810#{code}"),
        "message": "on purpose",
        "CancellationReasons": reason.map(|code| [
            serde_json::json!({"Code": "None"}),
            serde_json::json!({"Code": code, "Message": "on purpose"}),
        ]),
    });
    Response::builder()
        .status(status)
        .header("content-type", "application/x-amz-json-1.0")
        .body(Full::from(body.to_string()))
        .unwrap()
}

/// An error closes the connection.
async fn answer(
    script: &Arc<Script>,
    emulator: SocketAddr,
    request: Request<Incoming>,
) -> io::Result<Response<Full<Bytes>>> {
    let lost = || io::Error::other("on purpose");
    let target = request.headers().get("x-amz-target");
    let target = target
        .and_then(|target| target.to_str().ok())
        .unwrap_or_default();
    let operation = target.rsplit('.').next().unwrap_or_default();
    let fault = script.fault(operation);
    let canceled = |reason| refusal("TransactionCanceledException", 400, Some(reason));
    match fault {
        None | Some(Fault::Unanswered) => {}
        Some(Fault::Throttled) => {
            let code = "ProvisionedThroughputExceededException";
            return Ok(refusal(code, 400, None));
        }
        Some(Fault::ThrottledInside) => return Ok(canceled("ThrottlingError")),
        Some(Fault::Conflict) => return Ok(canceled("TransactionConflict")),
        Some(Fault::Broken) => return Ok(refusal("InternalServerError", 500, None)),
        Some(Fault::Unheard) => return Err(lost()),
    }
    let script = Arc::clone(script);
    // On its own, so that its turn lasts until the emulator has answered, even when the client does not wait for it.
    let forwarded = tokio::spawn(async move {
        let _turn = script.turn.lock().await;
        forward(emulator, request).await
    });
    let response = forwarded.await?.map_err(io::Error::other)?;
    match fault {
        None => Ok(response),
        Some(_) => Err(lost()),
    }
}

async fn forward(
    emulator: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
    let (head, body) = request.into_parts();
    let body = Full::new(body.collect().await?.to_bytes());
    let stream = TokioIo::new(TcpStream::connect(emulator).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    let mut driving = JoinSet::new();
    driving.spawn(async move { Ok::<_, Infallible>(connection.await.is_ok()) });
    let response = sender.send_request(Request::from_parts(head, body)).await?;
    let (head, body) = response.into_parts();
    let body = Full::new(body.collect().await?.to_bytes());
    Ok(Response::from_parts(head, body))
}
