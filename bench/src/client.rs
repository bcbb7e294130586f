//! The client that drives every server: one thread, one epoll loop, plain sockets.
//!
//! On a small machine the client shares the processors with what it measures, so it is as cheap as a client can be and
//! the same for all: requests are built in memory and written in one call, an answer is read in one call into one shared
//! buffer, and there is no task, timer, channel or lock. mio is used rather than an async runtime because a runtime
//! would add a wake-up and a poll to every message, which is a cost of the same order as the answer itself.
//!
//! What a connection sends is a [`Session`]; where its messages end is a [`Framing`]. The loop knows no protocol.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token};
use rustls::ClientConfig;
use socket2::{Domain, Socket, Type};

use crate::ledger::Ledger;
use crate::programs::Server;
use crate::tls::Tls;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Larger than any answer, so that one read empties a socket.
const SCRATCH_BYTES: usize = 64 * 1024;

/// Where the body of the first complete message is, and where the next message begins. What precedes the body is the head.
pub(crate) type Frame = (Range<usize>, usize);

/// Finds the first message; `None` if more bytes must arrive.
pub(crate) type Framing = fn(&[u8]) -> Result<Option<Frame>>;

/// A message that has arrived.
#[derive(Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) head: &'a [u8],
    pub(crate) body: &'a [u8],
}

/// What a session may change.
pub(crate) struct Turn<'a> {
    pub(crate) ledger: &'a mut Ledger,
    /// What is sent.
    pub(crate) out: &'a mut Vec<u8>,
}

/// What a message was to the client that received it.
#[derive(Clone, Copy)]
pub(crate) enum Received {
    /// Part of the protocol, or work for a worker.
    Other,
    /// The answer to the request, the same for all clients.
    Answer,
    /// The answer to the request, with the identity of the work that was done for it.
    Identity(u128),
}

/// One client's or worker's side of the protocol.
pub(crate) trait Session {
    /// Sent once, when the connection is established.
    fn connected(&mut self, _: &mut Turn) {}

    /// A client's next request.
    fn request(&mut self, _out: &mut Vec<u8>) {}

    /// A client's last request, once no further ones are wanted; false if none is needed.
    fn last_request(&mut self, _out: &mut Vec<u8>) -> bool {
        false
    }

    /// An error ends the measurement.
    fn receive(&mut self, message: Message, turn: &mut Turn) -> Result<Received>;

    /// Answers the work that was held back while [`Ledger::holding`].
    fn release(&mut self, _out: &mut Vec<u8>) {}
}

/// All connections of one measurement, and its ledger.
pub(crate) struct Client {
    poll: Poll,
    events: Events,
    framing: Framing,
    connections: Vec<Connection>,
    scratch: Box<[u8]>,
    /// None for connections without TLS.
    tls: Option<Arc<ClientConfig>>,
    pub(crate) ledger: Ledger,
}

struct Connection {
    stream: TcpStream,
    tls: Option<Box<Tls>>,
    session: Box<dyn Session>,
    /// A message of which only the beginning has arrived.
    inbox: Vec<u8>,
    /// What the socket has not taken yet.
    outbox: Vec<u8>,
}

impl Client {
    pub(crate) fn new(framing: Framing) -> Result<Self> {
        Ok(Client {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            framing,
            connections: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            tls: None,
            ledger: Ledger::default(),
        })
    }

    /// With TLS if the server has it.
    pub(crate) fn of(framing: Framing, server: &Server) -> Result<Self> {
        Ok(Client {
            tls: server.tls.clone(),
            ..Client::new(framing)?
        })
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Connects a worker.
    pub(crate) fn hire(&mut self, target: SocketAddr, session: Box<dyn Session>) -> Result<()> {
        let connection = self.connect(Ipv4Addr::LOCALHOST, target, session)?;
        connection.flush()
    }

    /// Connects a client from `source`, which sends its first request, if it has one yet. With it a TLS handshake begins.
    pub(crate) fn enter(
        &mut self,
        source: Ipv4Addr,
        target: SocketAddr,
        session: Box<dyn Session>,
    ) -> Result<()> {
        self.ledger.placed += 1;
        let connection = self.connect(source, target, session)?;
        connection.session.request(&mut connection.outbox);
        if connection.outbox.is_empty() {
            return Ok(());
        }
        connection.flush()
    }

    fn connect(
        &mut self,
        source: Ipv4Addr,
        target: SocketAddr,
        mut session: Box<dyn Session>,
    ) -> Result<&mut Connection> {
        let stream = dial(source, target, self.poll.registry(), self.connections.len())?;
        let tls = self.tls.as_ref().map(Tls::open).transpose()?;
        let mut outbox = Vec::new();
        session.connected(&mut Turn {
            ledger: &mut self.ledger,
            out: &mut outbox,
        });
        Ok(self.connections.push_mut(Connection {
            stream,
            tls,
            session,
            inbox: Vec::new(),
            outbox,
        }))
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        let mut tls = self.connections.iter().filter_map(|one| one.tls.as_ref());
        tls.any(|tls| tls.is_handshaking())
    }

    /// Has the client of one connection send a request, although none is due.
    pub(crate) fn ask(&mut self, index: usize) -> Result<()> {
        let connection = &mut self.connections[index];
        self.ledger.placed += 1;
        connection.session.request(&mut connection.outbox);
        connection.flush()
    }

    /// Has all workers answer what they have held back.
    pub(crate) fn release(&mut self) -> Result<()> {
        self.ledger.holding = false;
        for connection in &mut self.connections {
            connection.session.release(&mut connection.outbox);
            connection.flush()?;
        }
        Ok(())
    }

    pub(crate) fn run_until(&mut self, end: Instant) -> Result<()> {
        while self.turn(end)? {}
        Ok(())
    }

    /// Fails if the condition still holds after `patience`.
    pub(crate) fn run_while(
        &mut self,
        patience: Duration,
        condition: impl Fn(&Ledger) -> bool,
    ) -> Result<()> {
        let end = Instant::now() + patience;
        while condition(&self.ledger) {
            ensure!(
                self.turn(end)?,
                "not done after {patience:?}: {}",
                self.ledger.summary()
            );
        }
        Ok(())
    }

    /// One wait, and everything that has arrived. False when `end` has been reached.
    fn turn(&mut self, end: Instant) -> Result<bool> {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        match self.poll.poll(&mut self.events, Some(left)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            polled => polled.context("waiting for sockets")?,
        }
        for event in &self.events {
            let connection = &mut self.connections[event.token().0];
            if event.is_writable() {
                connection.flush()?;
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                connection.read(self.framing, &mut self.ledger, &mut self.scratch)?;
            }
        }
        Ok(true)
    }
}

impl Connection {
    /// A read that did not fill the buffer has emptied the socket, and saves the next call.
    fn read(&mut self, framing: Framing, ledger: &mut Ledger, scratch: &mut [u8]) -> Result<()> {
        loop {
            match self.stream.read(scratch) {
                Ok(0) => bail!("the server has closed a connection"),
                Ok(count) => {
                    match &mut self.tls {
                        None => self.take(framing, ledger, &scratch[..count])?,
                        Some(tls) => {
                            let plain = tls.decrypt(&scratch[..count])?;
                            self.take(framing, ledger, &plain)?;
                        }
                    }
                    self.flush()?;
                    if count < scratch.len() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("reading an answer"),
            }
        }
    }

    /// Passes every complete message to the session, and sends the next request after an answer.
    fn take(&mut self, framing: Framing, ledger: &mut Ledger, arrived: &[u8]) -> Result<()> {
        let mut stored = std::mem::take(&mut self.inbox);
        let mut bytes = arrived;
        if !stored.is_empty() {
            stored.extend_from_slice(arrived);
            bytes = &stored;
        }
        while let Some((body, end)) = framing(bytes)? {
            let message = Message {
                head: &bytes[..body.start],
                body: &bytes[body],
            };
            let out = &mut self.outbox;
            let received = self.session.receive(message, &mut Turn { ledger, out });
            let received = received.with_context(|| {
                format!("received {:?}", String::from_utf8_lossy(&bytes[..end]))
            })?;
            if ledger.received(received) {
                if ledger.open {
                    ledger.placed += 1;
                    self.session.request(&mut self.outbox);
                } else if self.session.last_request(&mut self.outbox) {
                    ledger.placed += 1;
                }
            }
            bytes = &bytes[end..];
        }
        self.inbox.extend_from_slice(bytes);
        Ok(())
    }

    /// Writes as much as the socket takes.
    fn flush(&mut self) -> Result<()> {
        let outbox = match &mut self.tls {
            None => &mut self.outbox,
            Some(tls) => tls.encrypt(&mut self.outbox)?,
        };
        while !outbox.is_empty() {
            match self.stream.write(outbox) {
                Ok(count) if count == outbox.len() => outbox.clear(),
                Ok(count) => drop(outbox.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("writing a request"),
            }
        }
        Ok(())
    }
}

fn dial(
    source: Ipv4Addr,
    target: SocketAddr,
    registry: &Registry,
    index: usize,
) -> Result<TcpStream> {
    let connected = || -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(IpAddr::V4(source), 0).into())?;
        socket.connect_timeout(&target.into(), CONNECT_TIMEOUT)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(socket.into());
        let interests = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut stream, Token(index), interests)?;
        Ok(stream)
    };
    connected().with_context(|| format!("connecting {source} to {target}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Cuts `stream` in two at every byte, and also into single bytes, and expects the same `bodies` each time.
    pub(crate) fn frames_are_found_at_every_split(
        framing: Framing,
        stream: &[u8],
        bodies: &[&[u8]],
    ) {
        let read = |pieces: &[&[u8]]| {
            let (mut arrived, mut found) = (Vec::new(), Vec::new());
            for piece in pieces {
                arrived.extend_from_slice(piece);
                while let Some((body, end)) = framing(&arrived).unwrap() {
                    found.push(arrived[body].to_vec());
                    arrived.drain(..end);
                }
            }
            assert!(arrived.is_empty(), "{} bytes left over", arrived.len());
            found
        };
        for cut in 0..=stream.len() {
            assert_eq!(
                read(&[&stream[..cut], &stream[cut..]]),
                bodies,
                "cut at {cut}"
            );
        }
        let single: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(read(&single), bodies, "byte by byte");
    }

    /// Passes a message to a session, and returns what it sends.
    pub(crate) fn receive(
        session: &mut dyn Session,
        ledger: &mut Ledger,
        head: &[u8],
        body: &[u8],
    ) -> Result<Vec<u8>> {
        let mut sent = Vec::new();
        let out = &mut sent;
        let received = session.receive(Message { head, body }, &mut Turn { ledger, out })?;
        ledger.received(received);
        Ok(sent)
    }
}
