//! Accepting connections and serving them until they end or the server stops.
//!
//! HTTP/1.1 connections are served by hyper's plain HTTP/1 builder: unlike the automatic one it bounds the time to a
//! connection's first byte, and it uses less memory per connection. Where HTTP/2 is allowed, up to four bytes are read to
//! choose, and replayed to hyper.

use std::any::Any;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioTimer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;
use tracing::{debug, error, warn};

use super::activity::Activity;
use super::config::Http;
use super::connection::{Shutdown, Timeouts, serve_until_idle};
use super::edge::{Edge, said};
use super::guard::Peer;
use super::overflow::{OverflowQueue, Verdict};
use super::socket::Socket;
use super::streams::Streams;
use super::wire::Wire;
use crate::access::tls::{Acceptor, Certified};

/// HTTP/1.1: the largest request header, and hyper's largest send buffer.
const H1_BUFFER_MAX_BYTES: usize = 64 * 1024;
/// HTTP/2: the largest request header, decompressed.
const H2_HEADER_MAX_BYTES: u32 = 16 * 1024;
/// HTTP/2: h2's send buffer per stream.
const H2_SEND_BUFFER_BYTES: usize = 16 * 1024;
/// The first pause after a failed accept; it doubles up to [`ACCEPT_PAUSE_MAX`].
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long a health check's connection above the limit may last.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);

/// Decides whether a peer may have another connection; the [`Pass`] is dropped when that ends.
pub type Gate = dyn Fn(IpAddr) -> Option<Pass> + Send + Sync;
/// See [`Gate`]; none if the peer is not counted.
pub type Pass = Option<Box<dyn Any + Send>>;

#[derive(Debug, Clone)]
pub struct Settings {
    /// The listener's name in logs.
    pub name: &'static str,
    /// Also serve HTTP/2 with prior knowledge.
    pub h2c: bool,
    pub limit: ConnectionLimit,
    /// None: plain HTTP.
    pub tls: Option<Acceptor>,
    pub http: Http,
}

#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    edge: Edge,
    settings: Settings,
    overflow: Arc<OverflowQueue>,
    /// On shutdown no connection is accepted, and open ones end after their current request.
    shutdown: Shutdown,
    connections: TaskTracker,
}

/// A listener's open connections and their limit.
#[derive(Clone)]
pub struct ConnectionLimit {
    free: Arc<Semaphore>,
    max: usize,
    gate: Option<Arc<Gate>>,
}

impl fmt::Debug for ConnectionLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionLimit").finish_non_exhaustive()
    }
}

impl ConnectionLimit {
    pub fn new(max: usize) -> Self {
        let max = max.min(Semaphore::MAX_PERMITS);
        Self {
            free: Arc::new(Semaphore::new(max)),
            max,
            gate: None,
        }
    }

    #[must_use]
    pub fn with_gate(self, gate: impl Fn(IpAddr) -> Option<Pass> + Send + Sync + 'static) -> Self {
        Self {
            gate: Some(Arc::new(gate)),
            ..self
        }
    }

    fn admit(&self, peer: IpAddr) -> Option<Pass> {
        self.gate.as_ref().map_or(Some(None), |gate| gate(peer))
    }

    pub fn open(&self) -> usize {
        self.max - self.free.available_permits()
    }

    pub fn max(&self) -> usize {
        self.max
    }
}

impl Server {
    pub fn new(listener: TcpListener, edge: Edge, settings: Settings, shutdown: Shutdown) -> Self {
        Self {
            listener,
            edge,
            overflow: Arc::new(OverflowQueue::new(settings.tls.is_some())),
            settings,
            shutdown,
            connections: TaskTracker::new(),
        }
    }

    /// Accepts until shutdown, then returns once every connection has ended.
    pub async fn run(self) {
        let mut pause = ACCEPT_PAUSE;
        // The listening socket closes first: later connections are refused, not left in the backlog.
        while let Some(accepted) = self
            .shutdown
            .until_triggered(catch_panics(self.accept()))
            .await
        {
            match accepted {
                Ok(()) => pause = ACCEPT_PAUSE,
                Err(error) if is_peer_error(&error) => {
                    debug!(%error, "a connection broke before it was accepted");
                }
                Err(error) => {
                    // Out of descriptors or memory: wait until other connections end.
                    warn!(listener = self.settings.name, %error, pause_ms = pause.as_millis(), "cannot accept a connection");
                    self.shutdown.until_triggered(sleep(pause)).await;
                    pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
                }
            }
        }
        drop(self.listener);
        self.connections.close();
        self.connections.wait().await;
    }

    async fn accept(&self) -> io::Result<()> {
        self.overflow.has_room().await;
        let (stream, peer) = self.listener.accept().await?;
        let peer = peer.ip();
        let Some(pass) = self.settings.limit.admit(peer) else {
            let overflow = Arc::clone(&self.overflow);
            let connection = self.accepted(peer);
            self.connections.spawn(async move {
                if let Some((stream, _place)) = overflow.health_or_reject(stream).await {
                    connection.serve_one(stream).await;
                }
            });
            return Ok(());
        };
        let connection = self.accepted(peer);
        let free = Arc::clone(&self.settings.limit.free);
        match Arc::clone(&free).try_acquire_owned() {
            Ok(permit) => self.serve(connection, stream, (permit, pass)),
            Err(_) => self.wait(connection, stream, free, pass),
        }
        Ok(())
    }

    fn accepted(&self, peer: IpAddr) -> Accepted {
        Accepted {
            peer: Peer {
                address: peer,
                certificate: None,
            },
            tls: self.settings.tls.clone(),
            edge: self.edge.clone(),
            shutdown: self.shutdown.clone(),
            timeouts: Timeouts {
                idle: self.settings.http.header_timeout,
                stalled: self.settings.http.write_timeout,
            },
            h2_streams_max: (self.settings.h2c || self.settings.tls.is_some())
                .then_some(self.settings.http.h2_streams_max),
        }
    }

    /// `guards` are dropped when the connection ends.
    fn serve(&self, connection: Accepted, stream: TcpStream, guards: impl Send + 'static) {
        // With TLS there is always HTTP/2.
        if connection.h2_streams_max.is_some() {
            self.connections.spawn(async move {
                let _guards = guards;
                connection.serve_either(stream).await;
            });
        } else {
            let activity = Arc::new(Activity::begin());
            let wire = Wire::new(Socket::Plain(stream), Arc::clone(&activity));
            self.connections.spawn(async move {
                let _guards = guards;
                connection.serve_h1(wire, activity).await;
            });
        }
    }

    /// The limit is reached.
    fn wait(&self, connection: Accepted, stream: TcpStream, free: Arc<Semaphore>, pass: Pass) {
        let overflow = Arc::clone(&self.overflow);
        let place = overflow.enter();
        self.connections.spawn(async move {
            let _pass = pass;
            let shutdown = connection.shutdown.clone();
            let Some(verdict) = shutdown
                .until_triggered(overflow.wait(place, &stream, free))
                .await
            else {
                return;
            };
            match verdict {
                Verdict::Permit(_permit) => connection.serve_either(stream).await,
                Verdict::Health(_place) => connection.serve_one(stream).await,
                Verdict::Full => overflow.reject_full(stream).await,
            }
        });
    }
}

struct Accepted {
    peer: Peer,
    tls: Option<Acceptor>,
    edge: Edge,
    shutdown: Shutdown,
    timeouts: Timeouts,
    /// None where only HTTP/1.1 is served.
    h2_streams_max: Option<u32>,
}

impl Accepted {
    async fn serve_either(mut self, stream: TcpStream) {
        let socket = match self.tls.take() {
            None => Socket::Plain(stream),
            Some(tls) => match self.handshake(&tls, stream).await {
                Some(socket) => socket,
                None => return,
            },
        };
        let activity = Arc::new(Activity::begin());
        let mut wire = Wire::new(socket, Arc::clone(&activity));
        let Some(streams_max) = self.h2_streams_max else {
            return self.serve_h1(wire, activity).await;
        };
        let first = timeout(self.timeouts.idle, wire.speaks_h2());
        // Boxed: a connection of the other kind does not pay for the larger future.
        match self.shutdown.until_triggered(first).await {
            Some(Ok(Ok(true))) => Box::pin(self.serve_h2(wire, streams_max)).await,
            Some(Ok(Ok(false))) => Box::pin(self.serve_h1(wire, activity)).await,
            // Closed, silent for too long, or during shutdown.
            Some(Ok(Err(_)) | Err(_)) | None => {}
        }
    }

    /// A TLS handshake, within the time for a header, also the time that it waits for its turn. None if it failed.
    async fn handshake(&mut self, tls: &Acceptor, stream: TcpStream) -> Option<Socket> {
        // Boxed: a handshake's future is large, and the connection's lasts.
        let handshake = Box::pin(timeout(self.timeouts.idle, tls.accept(stream)));
        match self.shutdown.until_triggered(handshake).await? {
            Ok(Ok(stream)) => {
                self.peer.certificate = Certified::of(stream.get_ref().1).map(Box::new);
                Some(Socket::Tls(Box::new(stream)))
            }
            Ok(Err(error)) => {
                debug!(peer = %self.peer.address, %error, "a TLS handshake failed");
                None
            }
            Err(_) => None,
        }
    }

    /// Serves one request, and closes the connection. Without TLS: see `overflow`.
    async fn serve_one(self, stream: TcpStream) {
        let activity = Arc::new(Activity::begin());
        let wire = Wire::new(Socket::Plain(stream), Arc::clone(&activity));
        let served = self.serve_h1_while(wire, activity, false);
        let _ = timeout(HEALTH_TIMEOUT, served).await;
    }

    async fn serve_h1(self, wire: Wire, activity: Arc<Activity>) {
        self.serve_h1_while(wire, activity, true).await;
    }

    /// `keep_alive`: more than one request.
    async fn serve_h1_while(self, wire: Wire, activity: Arc<Activity>, keep_alive: bool) {
        let service = self.edge.service(self.peer, Arc::clone(&activity));
        // hyper's own header timeout would arm and disarm a timer for each request; see the module on connections.
        let connection = http1::Builder::new()
            .max_buf_size(H1_BUFFER_MAX_BYTES)
            .keep_alive(keep_alive)
            .serve_connection(wire, service);
        serve_until_idle(pin!(connection), &activity, self.timeouts, self.shutdown).await;
    }

    async fn serve_h2(self, wire: Wire, streams_max: u32) {
        let streams = Streams::default();
        let activity = Arc::new(Activity::begin().with_streams(streams.clone()));
        let service = self.edge.service(self.peer, Arc::clone(&activity));
        let connection = http2::Builder::new(streams)
            .timer(TokioTimer::new())
            .max_concurrent_streams(streams_max)
            .max_header_list_size(H2_HEADER_MAX_BYTES)
            .max_send_buf_size(H2_SEND_BUFFER_BYTES)
            // A vanished peer's streams must end too: TCP's own keepalive does the same for HTTP/1.1.
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(30))
            .serve_connection(wire.of(Arc::clone(&activity)), service);
        serve_until_idle(pin!(connection), &activity, self.timeouts, self.shutdown).await;
    }
}

/// Turns a panic while accepting into an error: otherwise the listener would look open and serve no one.
async fn catch_panics(accepting: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    let mut accepting = pin!(accepting);
    poll_fn(|cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| accepting.as_mut().poll(cx)));
        polled.unwrap_or_else(|panic| {
            let said = said(&*panic);
            error!(
                said,
                "accepting a connection panicked; the listener continues"
            );
            Poll::Ready(Err(io::Error::other("a bug; see the line before")))
        })
    })
    .await
}

/// The peer left while it was in the backlog (accept(2)).
fn is_peer_error(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, TimedOut,
    };
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted | TimedOut
    )
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::http::api::Api;
    use crate::http::guard::Guard;
    use crate::http::origin::Origins;
    use crate::http::recent::Problems;
    use crate::http::security::Security;
    use crate::telemetry::Registry;

    #[tokio::test]
    async fn a_listener_whose_accepting_panics_goes_on_until_it_is_stopped() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (registry, security) = (Registry::new(&[]), Security::open());
        let guard = Guard::new("customers", None, |peer, _| peer.into(), &registry);
        let edge = Edge::new(
            "customers",
            Api::new("", "", security),
            Origins::new("customers", &[], &[]),
            Arc::new(guard),
            (Problems::new(1), registry),
        );
        let limit = ConnectionLimit::new(1).with_gate(|_| panic!("a gate that cannot be asked"));
        let settings = Settings {
            name: "customers",
            h2c: false,
            limit,
            tls: None,
            http: crate::config::Config::defaults().http,
        };
        let shutdown = Shutdown::default();
        let serving = tokio::spawn(Server::new(listener, edge, settings, shutdown.clone()).run());
        for _ in 0..3 {
            let stream = TcpStream::connect(address).await.unwrap();
            stream.readable().await.unwrap();
            assert!(!serving.is_finished());
        }
        shutdown.trigger();
        serving.await.unwrap();
    }
}
