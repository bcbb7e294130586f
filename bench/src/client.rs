//! The client that drives every server: one thread, one epoll loop, plain sockets.
//!
//! On a small machine the client shares the processors with what it measures, so it is as cheap as a client can be and
//! the same for all: bytes built beforehand are written in one call, an answer is read in one call into one shared
//! buffer, and there is no task, timer, channel or lock. mio is used rather than an async runtime because a runtime
//! would add a wake-up and a poll to every message, which is a cost of the same order as the answer itself.
//!
//! What a connection says is a [`Talk`]; where its messages end is a [`Framing`]. The loop knows no protocol.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token};
use socket2::{Domain, Socket, Type};

use crate::framing::Framing;
use crate::ledger::Ledger;

/// A connection that takes longer is a failure, not a measurement.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Larger than any answer, so that one read empties a socket.
const SCRATCH_BYTES: usize = 64 * 1024;

/// One side of a conversation.
pub(crate) trait Talk {
    /// What is said as soon as the connection stands.
    fn open(&mut self, ledger: &mut Ledger, out: &mut Vec<u8>);

    /// A whole message has arrived. An error ends the measurement.
    fn receive(
        &mut self,
        head: &[u8],
        body: &[u8],
        ledger: &mut Ledger,
        out: &mut Vec<u8>,
    ) -> Result<()>;

    /// A word out of turn: a customer asks once more, a worker gives out what it has held back.
    fn nudge(&mut self, _ledger: &mut Ledger, _out: &mut Vec<u8>) {}
}

/// Those on one side of the counter.
pub(crate) type Side = Vec<Box<dyn Talk>>;

/// What a connection is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visit {
    /// For all that is said.
    Stay,
    /// For one question. The server closes it with its answer, and the next question comes on a new one. Because it is
    /// the server that closes, no port of the client's is left waiting.
    Once,
}

/// The two sides of one measurement, before they connect.
pub(crate) struct Crew {
    /// What both sides speak.
    pub(crate) framing: Framing,
    /// Those who ask, and where.
    pub(crate) customers: (SocketAddr, Side),
    /// How long they stay.
    pub(crate) visit: Visit,
    /// Those who do the work, and where.
    pub(crate) workers: (SocketAddr, Side),
}

/// All connections of one measurement, and its books.
pub(crate) struct Client {
    poll: Poll,
    events: Events,
    framing: Framing,
    connections: Vec<Connection>,
    scratch: Box<[u8]>,
    /// What the parties have entered.
    pub(crate) ledger: Ledger,
}

struct Connection {
    stream: TcpStream,
    source: Ipv4Addr,
    target: SocketAddr,
    visit: Visit,
    /// The server has closed it, as it should after a single visit.
    closed: bool,
    talk: Box<dyn Talk>,
    /// A message of which only the beginning has arrived.
    inbox: Vec<u8>,
    /// What the socket has not taken yet.
    outbox: Vec<u8>,
}

impl Client {
    /// A client without connections.
    pub(crate) fn new(framing: Framing) -> Result<Self> {
        Ok(Client {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            framing,
            connections: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            ledger: Ledger::new(),
        })
    }

    /// Connects from `source` and says the first words.
    pub(crate) fn connect(
        &mut self,
        source: Ipv4Addr,
        target: SocketAddr,
        talk: Box<dyn Talk>,
    ) -> Result<()> {
        self.visit(Visit::Stay, source, target, talk)
    }

    /// The same, for such a visit.
    pub(crate) fn visit(
        &mut self,
        visit: Visit,
        source: Ipv4Addr,
        target: SocketAddr,
        talk: Box<dyn Talk>,
    ) -> Result<()> {
        let token = Token(self.connections.len());
        let stream = dial(source, target, self.poll.registry(), token)?;
        let mut connection = Connection {
            stream,
            source,
            target,
            visit,
            closed: false,
            talk,
            inbox: Vec::new(),
            outbox: Vec::new(),
        };
        connection
            .talk
            .open(&mut self.ledger, &mut connection.outbox);
        connection.flush()?;
        self.connections.push(connection);
        Ok(())
    }

    /// Lets one connection speak out of turn.
    pub(crate) fn nudge(&mut self, index: usize) -> Result<()> {
        let connection = &mut self.connections[index];
        connection
            .talk
            .nudge(&mut self.ledger, &mut connection.outbox);
        match connection.visit {
            Visit::Stay => connection.flush(),
            Visit::Once => connection.come_again(self.poll.registry(), Token(index)),
        }
    }

    /// Carries messages until the time has come.
    pub(crate) fn run_until(&mut self, end: Instant) -> Result<()> {
        while self.turn(end)? {}
        Ok(())
    }

    /// Carries messages until the books say so; fails when that takes longer than `patience`.
    pub(crate) fn run_while(
        &mut self,
        patience: Duration,
        going: impl Fn(&Ledger) -> bool,
    ) -> Result<()> {
        let end = Instant::now() + patience;
        while going(&self.ledger) {
            ensure!(
                self.turn(end)?,
                "still not done after {} s: {}",
                patience.as_secs(),
                self.ledger.summary()
            );
        }
        Ok(())
    }

    /// One wait and all that came of it. False when `end` has been reached.
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
            if event.is_writable() && connection.visit == Visit::Stay {
                connection.flush()?;
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                connection.read(self.framing, &mut self.ledger, &mut self.scratch)?;
            }
            if connection.visit == Visit::Once {
                connection.come_again(self.poll.registry(), event.token())?;
            }
        }
        Ok(true)
    }
}

impl Connection {
    /// Reads what is there. A read that did not fill the buffer has emptied the socket, and saves the next call.
    fn read(&mut self, framing: Framing, ledger: &mut Ledger, scratch: &mut [u8]) -> Result<()> {
        loop {
            match self.stream.read(scratch) {
                Ok(0) if self.visit == Visit::Once => {
                    self.closed = true;
                    return Ok(());
                }
                Ok(0) => bail!("the server has closed a connection"),
                Ok(count) => {
                    self.take(framing, ledger, &scratch[..count])?;
                    if self.visit == Visit::Once {
                        // The end may have arrived together with the answer.
                        continue;
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

    /// Hands every whole message to the talk and keeps the rest.
    fn take(&mut self, framing: Framing, ledger: &mut Ledger, arrived: &[u8]) -> Result<()> {
        let mut stored = std::mem::take(&mut self.inbox);
        let mut bytes = if stored.is_empty() {
            arrived
        } else {
            stored.extend_from_slice(arrived);
            &stored
        };
        while let Some(frame) = framing.first(bytes)? {
            let (head, body) = (&bytes[..frame.body.start], &bytes[frame.body]);
            self.talk
                .receive(head, body, ledger, &mut self.outbox)
                .with_context(|| {
                    format!(
                        "on hearing {:?}",
                        String::from_utf8_lossy(&bytes[..frame.end])
                    )
                })?;
            bytes = &bytes[frame.end..];
        }
        self.inbox.extend_from_slice(bytes);
        Ok(())
    }

    /// Once the server has closed a single visit's connection, says what there is to say on a new one.
    fn come_again(&mut self, registry: &Registry, token: Token) -> Result<()> {
        if !self.closed || self.outbox.is_empty() {
            return Ok(());
        }
        registry.deregister(&mut self.stream)?;
        self.stream = dial(self.source, self.target, registry, token)?;
        self.closed = false;
        self.flush()?;
        ensure!(
            self.outbox.is_empty(),
            "a new connection did not take a request"
        );
        Ok(())
    }

    /// Writes what there is to say, as far as the socket takes it.
    fn flush(&mut self) -> Result<()> {
        while !self.outbox.is_empty() {
            match self.stream.write(&self.outbox) {
                Ok(count) if count == self.outbox.len() => self.outbox.clear(),
                Ok(count) => drop(self.outbox.drain(..count)),
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
    token: Token,
) -> Result<TcpStream> {
    let mut stream =
        connected(source, target).with_context(|| format!("connecting {source} to {target}"))?;
    let interests = Interest::READABLE | Interest::WRITABLE;
    registry.register(&mut stream, token, interests)?;
    Ok(stream)
}

fn connected(source: Ipv4Addr, target: SocketAddr) -> Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(IpAddr::V4(source), 0).into())?;
    socket.connect_timeout(&target.into(), CONNECT_TIMEOUT)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    Ok(TcpStream::from_std(socket.into()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Asks three times.
    struct Asking(u32);

    impl Talk for Asking {
        fn open(&mut self, ledger: &mut Ledger, out: &mut Vec<u8>) {
            self.0 += 1;
            ledger.place();
            out.extend_from_slice(b"?");
        }

        fn receive(
            &mut self,
            _: &[u8],
            body: &[u8],
            ledger: &mut Ledger,
            out: &mut Vec<u8>,
        ) -> Result<()> {
            ensure!(body == b"!", "another answer");
            ledger.answer_alike();
            if self.0 < 3 {
                self.open(ledger, out);
            }
            Ok(())
        }
    }

    /// Answers one question on each of so many connections, and closes them.
    fn answering_once(connections: u32) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for _ in 0..connections {
                let (mut stream, _) = listener.accept().unwrap();
                stream.read_exact(&mut [0]).unwrap();
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n!")
                    .unwrap();
            }
        });
        address
    }

    fn three_answers(visit: Visit, target: SocketAddr) -> Result<()> {
        let mut client = Client::new(Framing::Http)?;
        client.visit(visit, Ipv4Addr::LOCALHOST, target, Box::new(Asking(0)))?;
        client.run_while(Duration::from_secs(10), |ledger| ledger.answers() < 3)
    }

    #[test]
    fn each_question_of_a_single_visit_has_a_connection_of_its_own() {
        three_answers(Visit::Once, answering_once(3)).unwrap();
    }

    #[test]
    fn a_connection_that_is_to_stay_must_not_be_closed() {
        assert!(three_answers(Visit::Stay, answering_once(3)).is_err());
    }
}
