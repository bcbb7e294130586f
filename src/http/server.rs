//! Accepting connections and serving them until they end or the server stops.
//!
//! HTTP/1.1 connections are served by hyper's plain HTTP/1 builder: unlike the automatic one it bounds the time to a
//! connection's first byte, and it keeps less memory per connection. Where HTTP/2 is allowed, the first four bytes are
//! looked at (not taken) to choose, so that HTTP/1.1 connections pay nothing else for it.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::edge::{Answer, Edge};

/// What an HTTP/2 client with prior knowledge sends first (RFC 9113, section 3.4); no HTTP/1.1 method begins so.
const H2_PREFACE_START: &[u8; 4] = b"PRI ";
/// How soon a connection whose first bytes came in pieces is looked at again.
const PREFACE_POLL: Duration = Duration::from_millis(20);
/// The first pause after a failed accept; it doubles up to [`ACCEPT_PAUSE_MAX`].
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long an idle HTTP/2 connection gets to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// How connections of one listener are served.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The listener's name in logs.
    pub name: &'static str,
    /// Serve HTTP/2 with prior knowledge too.
    pub h2c: bool,
    /// Open connections.
    pub seats: Seats,
    /// Time for a request's header, the first byte and idle keep-alive included; over HTTP/2, time without a request.
    pub header_timeout: Duration,
    /// Requests at once on one HTTP/2 connection.
    pub h2_streams_max: u32,
}

/// A listener and what it serves.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    edge: Edge,
    settings: Settings,
    /// Told to stop: no new connections, and open ones end after the request they are at.
    stop: Stop,
    connections: TaskTracker,
}

/// The connections a listener may have open, and has.
#[derive(Debug, Clone)]
pub struct Seats {
    free: Arc<Semaphore>,
    max: usize,
}

impl Seats {
    /// So many, all free.
    pub fn new(max: usize) -> Self {
        let max = max.min(Semaphore::MAX_PERMITS);
        Self {
            free: Arc::new(Semaphore::new(max)),
            max,
        }
    }

    /// Open connections.
    pub fn taken(&self) -> usize {
        self.max - self.free.available_permits()
    }

    /// Open connections at most.
    pub fn max(&self) -> usize {
        self.max
    }
}

/// Tells a listener to stop; cheap to clone.
///
/// A cancellation token alone would do, but looking at one takes a lock that all connections share, at every poll of
/// each. So a connection registers with the token once, to be woken, and from then on looks at a flag.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    flag: Arc<AtomicBool>,
    token: CancellationToken,
}

impl Stop {
    /// Stops the listener.
    pub fn stop(&self) {
        self.flag.store(true, Ordering::Release);
        self.token.cancel();
    }

    fn told(self) -> Told {
        Told {
            flag: Some(self.flag),
            woken: Box::pin(self.token.cancelled_owned()),
            registered: false,
        }
    }
}

/// One connection's view of [`Stop`].
struct Told {
    /// Gone once the connection knows.
    flag: Option<Arc<AtomicBool>>,
    woken: Pin<Box<WaitForCancellationFutureOwned>>,
    registered: bool,
}

impl Told {
    /// True once: when the connection has to hear of it.
    fn just_now(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.registered {
            self.registered = true;
            // Only to be woken; the flag tells.
            let _ = self.woken.as_mut().poll(cx);
        }
        self.flag
            .take_if(|flag| flag.load(Ordering::Acquire))
            .is_some()
    }
}

impl Server {
    /// Serves `edge` on `listener`.
    pub fn new(listener: TcpListener, edge: Edge, settings: Settings, stop: Stop) -> Self {
        Self {
            listener,
            edge,
            settings,
            stop,
            connections: TaskTracker::new(),
        }
    }

    /// Accepts until told to stop, then returns once every connection has ended.
    pub async fn run(self) {
        let mut pause = ACCEPT_PAUSE;
        // Stopping lets go of the listening socket first: whoever connects from then on is refused, not left waiting.
        while let Some(accepted) = self.stop.token.run_until_cancelled(self.accept()).await {
            match accepted {
                Ok((stream, seat)) => {
                    pause = ACCEPT_PAUSE;
                    self.serve(stream, seat);
                }
                Err(error) if is_the_peers(&error) => {
                    debug!(%error, "a connection broke before it was accepted");
                }
                Err(error) => {
                    // No descriptors or no memory left. Waiting lets others end; the listeners do not wait for one another.
                    warn!(listener = self.settings.name, %error, pause_ms = pause.as_millis(), "cannot accept a connection");
                    self.stop.token.run_until_cancelled(sleep(pause)).await;
                    pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
                }
            }
        }
        drop(self.listener);
        self.connections.close();
        self.connections.wait().await;
    }

    async fn accept(&self) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
        let free = &self.settings.seats.free;
        // A seat is waited for before a connection is, and taken after it: an empty house shows no seat taken.
        drop(free.acquire().await);
        let (stream, _) = self.listener.accept().await?;
        let seat = Arc::clone(free)
            .try_acquire_owned()
            .expect("only this loop takes seats, and one was free");
        Ok((stream, seat))
    }

    fn serve(&self, stream: TcpStream, seat: OwnedSemaphorePermit) {
        let edge = self.edge.clone();
        let stop = self.stop.clone();
        let header_timeout = self.settings.header_timeout;
        if self.settings.h2c {
            let streams_max = self.settings.h2_streams_max;
            self.connections.spawn(async move {
                let _seat = seat;
                let until = Instant::now() + header_timeout;
                match timeout_at(until, speaks_h2(&stream)).await {
                    // Boxed: a connection of the other kind does not pay for the larger future.
                    Ok(Ok(true)) => {
                        Box::pin(serve_h2(stream, edge, streams_max, header_timeout, stop)).await;
                    }
                    Ok(Ok(false)) => Box::pin(serve_h1(stream, edge, header_timeout, stop)).await,
                    // Gone, or silent for too long.
                    Ok(Err(_)) | Err(_) => {}
                }
            });
        } else {
            self.connections.spawn(async move {
                let _seat = seat;
                serve_h1(stream, edge, header_timeout, stop).await;
            });
        }
    }
}

/// The peer gave up while it was in the backlog (accept(2)); the next one may be fine.
fn is_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, TimedOut,
    };
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted | TimedOut
    )
}

/// Looks at the first bytes without taking them.
async fn speaks_h2(stream: &TcpStream) -> io::Result<bool> {
    let mut seen = [0; H2_PREFACE_START.len()];
    loop {
        let count = stream.peek(&mut seen).await?;
        if count == 0 || seen[..count] != H2_PREFACE_START[..count] {
            return Ok(false);
        }
        if count == seen.len() {
            return Ok(true);
        }
        sleep(PREFACE_POLL).await;
    }
}

async fn serve_h1(stream: TcpStream, edge: Edge, header_timeout: Duration, stop: Stop) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .serve_connection(TokioIo::new(stream), edge);
    let mut connection = pin!(connection);
    let mut told = stop.told();
    let served = poll_fn(|cx| {
        if told.just_now(cx) {
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx)
    });
    if let Err(error) = served.await {
        debug!(%error, "a connection ended early");
    }
}

async fn serve_h2(
    stream: TcpStream,
    edge: Edge,
    streams_max: u32,
    idle_timeout: Duration,
    stop: Stop,
) {
    let streams = Arc::new(Streams::default());
    let counted = Counted {
        edge,
        streams: Arc::clone(&streams),
    };
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams_max)
        // A vanished peer's streams must end too: TCP's own keepalive does the same for HTTP/1.1.
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(30))
        .serve_connection(TokioIo::new(stream), counted);
    let mut connection = pin!(connection);
    let mut told = stop.told();
    let mut serving = poll_fn(|cx| {
        if told.just_now(cx) {
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx)
    });
    let served = tokio::select! {
        served = &mut serving => served,
        () = streams.idle_for(idle_timeout) => {
            connection.as_mut().graceful_shutdown();
            // A request that crossed the goodbye is still served; only silence ends the connection.
            tokio::select! {
                served = connection.as_mut() => served,
                () = streams.idle_for(GOODBYE) => Ok(()),
            }
        }
    };
    if let Err(error) = served {
        debug!(%error, "a connection ended early");
    }
}

/// The open streams of one HTTP/2 connection: hyper bounds neither the handshake nor the time without any.
#[derive(Debug, Default)]
struct Streams {
    open: AtomicUsize,
    changed: Notify,
}

impl Streams {
    /// Returns once no stream was open for so long.
    async fn idle_for(&self, timeout: Duration) {
        loop {
            let changed = self.changed.notified();
            if self.open.load(Ordering::Relaxed) > 0 {
                changed.await;
            } else if tokio::time::timeout(timeout, changed).await.is_err() {
                return;
            }
        }
    }

    fn count(&self, change: impl FnOnce(&AtomicUsize)) {
        change(&self.open);
        self.changed.notify_waiters();
    }
}

/// Counts the streams of one connection on their way to the edge.
#[derive(Debug)]
struct Counted {
    edge: Edge,
    streams: Arc<Streams>,
}

impl hyper::service::Service<Request<Incoming>> for Counted {
    type Response = <Edge as hyper::service::Service<Request<Incoming>>>::Response;
    type Error = Infallible;
    type Future = CountedAnswer;

    fn call(&self, request: Request<Incoming>) -> CountedAnswer {
        self.streams.count(|open| {
            open.fetch_add(1, Ordering::Relaxed);
        });
        CountedAnswer {
            answer: self.edge.call(request),
            stream: OpenStream(Arc::clone(&self.streams)),
        }
    }
}

#[derive(Debug)]
struct OpenStream(Arc<Streams>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.count(|open| {
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

pin_project! {
    /// An answer on one stream; the stream counts as open until it is there, or dropped.
    #[derive(Debug)]
    struct CountedAnswer {
        #[pin]
        answer: Answer,
        stream: OpenStream,
    }
}

impl Future for CountedAnswer {
    type Output = <Answer as Future>::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().answer.poll(cx)
    }
}
