//! Clients that read the delivery desk's lists, the hundred deliveries on them, and a concurrent reporter of events.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use memchr::memmem;

use crate::client::{Client, Talk};
use crate::drones::{Drone, Rhythm, Sequences};
use crate::framing::Framing;
use crate::http::status;
use crate::ledger::Ledger;
use crate::peers::Server;

/// Asks for the ongoing deliveries.
pub(crate) const LIST: &[u8] = b"GET /deliveries HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
/// Asks for how many there are.
pub(crate) const COUNTS: &[u8] = b"GET /counts HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
/// Deliveries on the list.
const ONGOING: usize = 100;
/// Between two events of the one who reports while others look.
const REPORT_EVERY: Duration = Duration::from_millis(10);
/// For what should take milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether what is looked at may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Every answer must be the first one again, to the byte.
    Never,
    /// Every answer must be a list with at least as many deliveries as there were.
    MayCome,
}

/// Asks in these words, looks at the answer, asks again.
pub(crate) struct Onlooker {
    words: &'static [u8],
    change: Change,
    first: Option<Vec<u8>>,
}

impl Onlooker {
    /// An onlooker that has not read a list yet.
    pub(crate) fn new(words: &'static [u8], change: Change) -> Self {
        Onlooker {
            words,
            change,
            first: None,
        }
    }
}

impl Talk for Onlooker {
    fn open(&mut self, ledger: &mut Ledger, out: &mut Vec<u8>) {
        ledger.place();
        out.extend_from_slice(self.words);
    }

    fn receive(
        &mut self,
        head: &[u8],
        body: &[u8],
        ledger: &mut Ledger,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        ensure!(
            status(head)? == 200 && !body.is_empty(),
            "an onlooker was shown nothing"
        );
        match (self.change, &self.first) {
            (Change::Never, None) => self.first = Some(body.to_vec()),
            (Change::Never, Some(first)) => {
                ensure!(body == first, "what is looked at has changed");
            }
            (Change::MayCome, _) => {
                ensure!(count(body) >= ONGOING, "deliveries are missing on the list");
            }
        }
        ledger.answer_alike();
        if ledger.open {
            self.open(ledger, out);
        }
        Ok(())
    }
}

/// How many deliveries are on a list.
fn count(list: &[u8]) -> usize {
    memmem::find_iter(list, b"\"delivery_id\"").count()
}

/// Lets a hundred deliveries begin.
pub(crate) fn begin(server: &Server) -> Result<()> {
    let mut client = Client::new(Framing::Http)?;
    client.ledger.open = true;
    for index in 0..ONGOING {
        let drone = Drone::new(0, Sequences::Counted, Rhythm::WhenNudged);
        client.connect(Ipv4Addr::LOCALHOST, server.staff, Box::new(drone))?;
        client.nudge(index)?;
    }
    client.run_while(PATIENCE, |ledger| !ledger.everybody_answered())?;
    client.ledger.balance()
}

/// The list as it is now.
pub(crate) fn fetch(server: &Server) -> Result<Vec<u8>> {
    let list = exchange_once(server.staff, LIST.to_vec())?;
    ensure!(
        count(&list) == ONGOING,
        "{} deliveries are on the list, not {ONGOING}",
        count(&list)
    );
    Ok(list)
}

/// Gives the no-op server a list to show.
pub(crate) fn lay_out(server: &Server, list: &[u8]) -> Result<()> {
    let length = list.len();
    let mut words =
        format!("PUT /deliveries HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\r\n")
            .into_bytes();
    words.extend_from_slice(list);
    let shown = exchange_once(server.staff, words)?;
    ensure!(shown == list, "the no-op server shows another list");
    Ok(())
}

/// One request, and the body of its answer.
pub(crate) fn exchange_once(address: SocketAddr, words: Vec<u8>) -> Result<Vec<u8>> {
    exchange(address, words, 200)
}

/// The same, with this status.
pub(crate) fn exchange(address: SocketAddr, words: Vec<u8>, status: u16) -> Result<Vec<u8>> {
    let received = Rc::new(RefCell::new(Vec::new()));
    let mut client = Client::new(Framing::Http)?;
    let talk = Once {
        words,
        status,
        received: Rc::clone(&received),
    };
    client.connect(Ipv4Addr::LOCALHOST, address, Box::new(talk))?;
    client.run_while(PATIENCE, |ledger| !ledger.everybody_answered())?;
    Ok(received.take())
}

/// Says one thing and keeps the answer.
struct Once {
    words: Vec<u8>,
    status: u16,
    received: Rc<RefCell<Vec<u8>>>,
}

impl Talk for Once {
    fn open(&mut self, ledger: &mut Ledger, out: &mut Vec<u8>) {
        ledger.place();
        out.extend_from_slice(&self.words);
    }

    fn receive(
        &mut self,
        head: &[u8],
        body: &[u8],
        ledger: &mut Ledger,
        _: &mut Vec<u8>,
    ) -> Result<()> {
        ensure!(status(head)? == self.status, "the request was refused");
        body.clone_into(&mut self.received.borrow_mut());
        ledger.answer_alike();
        Ok(())
    }
}

/// A drone in a thread of its own that reports a hundred events a second.
pub(crate) struct Trickle {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

impl Trickle {
    /// Begins at once.
    pub(crate) fn start(server: &Server) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (target, stopped) = (server.staff, Arc::clone(&stop));
        let thread = thread::spawn(move || trickle(target, &stopped));
        Trickle { stop, thread }
    }

    /// Ends the mission under way. Returns the first error of its requests.
    pub(crate) fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow!("the drone's thread panicked"))?
    }
}

fn trickle(target: SocketAddr, stop: &AtomicBool) -> Result<()> {
    let mut client = Client::new(Framing::Http)?;
    client.ledger.open = true;
    let drone = Drone::new(1, Sequences::Counted, Rhythm::WhenNudged);
    client.connect(Ipv4Addr::LOCALHOST, target, Box::new(drone))?;
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        client.nudge(0)?;
        due += REPORT_EVERY;
        client.run_until(due)?;
        // On a slow disk it is fewer than a hundred a second: an event waits for the one before.
        client.run_while(PATIENCE, |ledger| !ledger.everybody_answered())?;
    }
    client.ledger.open = false;
    client.nudge(0)?;
    client.run_while(PATIENCE, |ledger| !ledger.everybody_answered())?;
    client.ledger.balance()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &[u8] = b"HTTP/1.1 200 OK";

    fn received(onlooker: &mut Onlooker, head: &[u8], body: &[u8]) -> Result<()> {
        onlooker.receive(head, body, &mut Ledger::new(), &mut Vec::new())
    }

    #[test]
    fn what_never_changes_must_be_the_same_to_the_byte() {
        let mut onlooker = Onlooker::new(COUNTS, Change::Never);
        assert!(received(&mut onlooker, OK, b"").is_err());
        assert!(received(&mut onlooker, b"HTTP/1.1 304 Not Modified", b"x").is_err());
        received(&mut onlooker, OK, b"one").unwrap();
        received(&mut onlooker, OK, b"one").unwrap();
        assert!(received(&mut onlooker, OK, b"two").is_err());
    }

    #[test]
    fn what_may_change_must_still_be_whole() {
        let mut onlooker = Onlooker::new(LIST, Change::MayCome);
        let list = |count| r#"{"delivery_id":"a"}"#.repeat(count).into_bytes();
        received(&mut onlooker, OK, &list(100)).unwrap();
        received(&mut onlooker, OK, &list(101)).unwrap();
        assert!(received(&mut onlooker, OK, &list(99)).is_err());
    }
}
