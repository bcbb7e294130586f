//! Accepting connections and serving them until they end or the server stops.
//!
//! HTTP/1.1 connections are served by hyper's plain HTTP/1 builder: unlike the automatic one it bounds the time to a
//! connection's first byte, and it keeps less memory per connection. Where HTTP/2 is allowed, the first four bytes are
//! looked at (not taken) to choose, so that HTTP/1.1 connections pay nothing else for it.

use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::activity::Activity;
use super::connection::{Stop, serve_until_idle};
use super::edge::Edge;

/// What an HTTP/2 client with prior knowledge sends first (RFC 9113, section 3.4); no HTTP/1.1 method begins so.
const H2_PREFACE_START: &[u8; 4] = b"PRI ";
/// How soon a connection whose first bytes came in pieces is looked at again.
const PREFACE_POLL: Duration = Duration::from_millis(20);
/// The first pause after a failed accept; it doubles up to [`ACCEPT_PAUSE_MAX`].
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);

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
        while let Some(accepted) = self.stop.unless_told(self.accept()).await {
            match accepted {
                Ok((stream, peer, seat)) => {
                    pause = ACCEPT_PAUSE;
                    self.serve(stream, peer, seat);
                }
                Err(error) if is_the_peers(&error) => {
                    debug!(%error, "a connection broke before it was accepted");
                }
                Err(error) => {
                    // No descriptors or no memory left. Waiting lets others end; the listeners do not wait for one another.
                    warn!(listener = self.settings.name, %error, pause_ms = pause.as_millis(), "cannot accept a connection");
                    self.stop.unless_told(sleep(pause)).await;
                    pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
                }
            }
        }
        drop(self.listener);
        self.connections.close();
        self.connections.wait().await;
    }

    async fn accept(&self) -> io::Result<(TcpStream, IpAddr, OwnedSemaphorePermit)> {
        let free = &self.settings.seats.free;
        // A seat is waited for before a connection is, and taken after it: an empty house shows no seat taken.
        drop(free.acquire().await);
        let (stream, peer) = self.listener.accept().await?;
        let seat = Arc::clone(free)
            .try_acquire_owned()
            .expect("only this loop takes seats, and one was free");
        Ok((stream, peer.ip(), seat))
    }

    fn serve(&self, stream: TcpStream, peer: IpAddr, seat: OwnedSemaphorePermit) {
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
                        Box::pin(serve_h2(
                            stream,
                            peer,
                            edge,
                            streams_max,
                            header_timeout,
                            stop,
                        ))
                        .await;
                    }
                    Ok(Ok(false)) => {
                        Box::pin(serve_h1(stream, peer, edge, header_timeout, stop)).await;
                    }
                    // Gone, or silent for too long.
                    Ok(Err(_)) | Err(_) => {}
                }
            });
        } else {
            self.connections.spawn(async move {
                let _seat = seat;
                serve_h1(stream, peer, edge, header_timeout, stop).await;
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

async fn serve_h1(stream: TcpStream, peer: IpAddr, edge: Edge, idle_max: Duration, stop: Stop) {
    let activity = Arc::new(Activity::begin());
    let service = edge.entrance(peer, Arc::clone(&activity));
    // hyper's own header timeout would arm and disarm a timer for each request; see the module on connections.
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    serve_until_idle(pin!(connection), &activity, idle_max, stop).await;
}

async fn serve_h2(
    stream: TcpStream,
    peer: IpAddr,
    edge: Edge,
    streams_max: u32,
    idle_max: Duration,
    stop: Stop,
) {
    let activity = Arc::new(Activity::begin());
    let service = edge.entrance(peer, Arc::clone(&activity));
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams_max)
        // A vanished peer's streams must end too: TCP's own keepalive does the same for HTTP/1.1.
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(30))
        .serve_connection(TokioIo::new(stream), service);
    serve_until_idle(pin!(connection), &activity, idle_max, stop).await;
}
