//! Many at one server who stay from slice to slice, where it is how many answers there are that is given, and the time that is
//! looked at.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::client::{Client, Talk};
use crate::framing::Framing;
use crate::machine::Time;
use crate::peers::Server;

/// For a slice, and for a one-line result; a slow disk does a few hundred flushes a second.
const PATIENCE: Duration = Duration::from_hours(1);

/// So many at one server.
pub(crate) struct Crowd {
    client: Client,
}

impl Crowd {
    /// Connects them; each says its first words.
    pub(crate) fn start<T: Talk + 'static>(
        address: SocketAddr,
        count: u32,
        make: impl Fn(u32) -> T,
    ) -> Result<Self> {
        let mut client = Client::new(Framing::Http)?;
        client.ledger.open = true;
        for number in 0..count {
            client.connect(Ipv4Addr::LOCALHOST, address, Box::new(make(number)))?;
        }
        Ok(Crowd { client })
    }

    /// So many answers; returns how many a second. Before and after it, each waits at most for one answer.
    pub(crate) fn receive(&mut self, answers: u32) -> Result<f64> {
        let (begin, before) = (Instant::now(), self.client.ledger.answers());
        let enough = before + u64::from(answers);
        self.client
            .run_while(PATIENCE, |ledger| ledger.answers() < enough)?;
        let answers = u32::try_from(self.client.ledger.answers() - before)?;
        Ok(f64::from(answers) / begin.elapsed().as_secs_f64())
    }

    /// Starts no new requests and waits until all are answered. Returns the total number of answers.
    pub(crate) fn end(mut self) -> Result<u64> {
        self.client.ledger.open = false;
        self.client
            .run_while(PATIENCE, |ledger| !ledger.everybody_answered())?;
        let answers = self.client.ledger.answers();
        self.client.ledger.balance()?;
        Ok(answers)
    }
}

/// What came of two crowds in turn.
#[derive(Debug)]
pub(crate) struct Turns {
    /// Answers per second of each, slice by slice.
    pub(crate) rates: [Vec<f64>; 2],
    /// All answers of each.
    pub(crate) answers: [u64; 2],
    /// The share of the machine that other programs used during the measurement.
    pub(crate) others: f64,
}

/// Lets two crowds be answered in turn, so many times each, so many answers each time.
pub(crate) fn in_turn(
    mut sides: [(&Server, Crowd); 2],
    slices: u32,
    answers: u32,
) -> Result<Turns> {
    let pids = [sides[0].0.pid(), sides[1].0.pid()];
    let before = Time::now(pids.into_iter())?;
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..slices {
        for ((server, crowd), rates) in sides.iter_mut().zip(&mut rates) {
            rates.push(server.explain(crowd.receive(answers))?);
        }
    }
    let others = Time::now(pids.into_iter())?.others_since(before);
    let [one, other] = sides.map(|(server, crowd)| server.explain(crowd.end()));
    Ok(Turns {
        rates,
        answers: [one?, other?],
        others,
    })
}
