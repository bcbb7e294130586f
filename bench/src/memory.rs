//! What one held request costs a server in resident memory.
//!
//! A fresh server serves one customer, so that what is needed once is there, and its resident memory is noted. Then
//! thousands of customers connect and ask while no worker takes orders. When the server's memory has settled it is noted
//! again; the difference is divided by the number held. Then the work is done, which verifies that each request was
//! held: every customer must be answered.
//!
//! Customers come from many addresses of the loopback network, few from each, as real ones do.

use std::fs;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::client::Client;
use crate::peers::Server;
use crate::subject::Subject;

/// For all held customers to be answered.
const PATIENCE: Duration = Duration::from_mins(1);
/// Between two looks at a server's memory.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Customers from one address.
const PER_ADDRESS: u32 = 200;
/// Addresses used within one /24 network.
const PER_NETWORK: u32 = 250;
/// Connections between two turns of the loop.
const BATCH: usize = 200;
const WORKERS: u32 = 10;
/// Descriptors in addition to those of held connections.
const SPARE_DESCRIPTORS: u64 = 200;

/// Resident bytes per held request.
pub(crate) fn per_held(subject: Subject, server: &Server, held: u32) -> Result<f64> {
    hold(subject, server, 1)?;
    let mut client = Client::new(subject.crew(server, 0, 0).framing)?;
    let idle = settled(&mut client, server.pid())?;
    let full = hold(subject, server, held)?;
    Ok(share(idle, full, held))
}

/// What each of `held` has of the growth.
pub(crate) fn share(idle: u64, full: u64, held: u32) -> f64 {
    let growth = u32::try_from(full.saturating_sub(idle) / 1024).unwrap_or(u32::MAX);
    f64::from(growth) * 1024.0 / f64::from(held)
}

/// Holds this many requests, reads the server's resident memory, and then has all requests answered.
fn hold(subject: Subject, server: &Server, held: u32) -> Result<u64> {
    let early = subject.needs_workers_first();
    let crew = subject.crew(server, held, if early { 1 } else { WORKERS });
    let mut client = Client::new(crew.framing)?;
    client.ledger.holding = true;
    let (staff, workers) = crew.workers;
    let (counter, customers) = crew.customers;
    let mut waiting = Some(workers);
    let mut first_worker = customers.len();
    if early {
        let workers = waiting.take().unwrap_or_default();
        first_worker = 0;
        let count = workers.len();
        for talk in workers {
            client.connect(Ipv4Addr::LOCALHOST, staff, talk)?;
        }
        client.run_while(PATIENCE, |ledger| ledger.ready < count)?;
    }
    for (number, talk) in (0..held).zip(customers) {
        client.connect(source(number), counter, talk)?;
        if usize::try_from(number)?.is_multiple_of(BATCH) {
            client.run_until(Instant::now() + Duration::from_millis(1))?;
        }
    }
    let resident = settled(&mut client, server.pid())?;

    client.ledger.holding = false;
    for talk in waiting.unwrap_or_default() {
        client.connect(Ipv4Addr::LOCALHOST, staff, talk)?;
    }
    client.nudge(first_worker)?;
    client.run_while(PATIENCE, |ledger| {
        !(ledger.everybody_answered() && ledger.everything_confirmed())
    })?;
    client.ledger.balance()?;
    Ok(resident)
}

/// The address the customer with this number comes from: 127.0.1.1 and on.
pub(crate) fn source(number: u32) -> Ipv4Addr {
    let address = number / PER_ADDRESS;
    let network = u32::from(Ipv4Addr::new(127, 0, 1, 1));
    Ipv4Addr::from(network + address / PER_NETWORK * 256 + address % PER_NETWORK)
}

/// A server's resident memory once it has settled.
pub(crate) fn settled(client: &mut Client, pid: u32) -> Result<u64> {
    let mut rest = Rest::new();
    loop {
        let resident = resident_bytes(pid)?;
        if rest.reached(resident) {
            return Ok(resident);
        }
        client.run_until(Instant::now() + LOOK_EVERY)?;
    }
}

/// Decides from samples of a server's memory when it has settled.
pub(crate) struct Rest {
    looks: Vec<u64>,
}

impl Rest {
    /// Looks that must agree.
    const AGREEING: usize = 6;
    /// Looks after which the memory of a server that never rests is taken as it is.
    const LOOKS_MAX: usize = 75;
    /// Difference that is no movement.
    const TOLERANCE_BYTES: u64 = 64 * 1024;

    /// Nothing seen yet.
    pub(crate) fn new() -> Self {
        Rest { looks: Vec::new() }
    }

    /// Whether, with this look, the last ones agree.
    pub(crate) fn reached(&mut self, resident: u64) -> bool {
        self.looks.push(resident);
        let last = &self.looks[self.looks.len().saturating_sub(Self::AGREEING)..];
        let (low, high) = last.iter().fold((u64::MAX, 0), |(low, high), &look| {
            (look.min(low), look.max(high))
        });
        let at_rest = last.len() == Self::AGREEING && high - low <= Self::TOLERANCE_BYTES;
        at_rest || self.looks.len() >= Self::LOOKS_MAX
    }
}

/// `VmRSS` of a process.
pub(crate) fn resident_bytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the server is gone")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("a process without VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

/// Raises the limit of open files as far as allowed, for this program and the servers it starts, and says how many
/// connections may be held.
pub(crate) fn raise_descriptor_limit() -> Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )
    .context("raising the limit of open files")?;
    Ok(limit
        .maximum
        .unwrap_or(u64::MAX)
        .saturating_sub(SPARE_DESCRIPTORS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn customers_come_from_many_addresses_and_few_from_each() {
        let mut counts: HashMap<Ipv4Addr, u32> = HashMap::new();
        for number in 0..60_000 {
            *counts.entry(source(number)).or_default() += 1;
        }
        assert_eq!(counts.len(), 300);
        assert!(counts.values().all(|&count| count == PER_ADDRESS));
        assert_eq!(source(0), Ipv4Addr::new(127, 0, 1, 1));
        assert_eq!(source(50_000), Ipv4Addr::new(127, 0, 2, 1));
        assert!(
            counts
                .keys()
                .all(|address| !matches!(address.octets()[3], 0 | 255))
        );
    }

    #[test]
    fn growth_is_shared_by_the_held() {
        assert!((share(1_000 * 1024, 11_000 * 1024, 1_000) - 10_240.0).abs() < f64::EPSILON);
        assert!(share(2, 1, 10).abs() < f64::EPSILON);
    }

    #[test]
    fn memory_rests_when_several_looks_agree() {
        let mut rest = Rest::new();
        let moving = [0, 50 << 20, 90 << 20, 100 << 20];
        let still = [100 << 20; 5];
        let reached: Vec<bool> = moving
            .into_iter()
            .chain(still)
            .map(|look| rest.reached(look))
            .collect();
        assert_eq!(reached.iter().position(|&reached| reached), Some(8));
    }

    #[test]
    fn memory_that_never_rests_is_taken_in_the_end() {
        let mut rest = Rest::new();
        let looks = (0..1000)
            .take_while(|&look| !rest.reached(look << 20))
            .count();
        assert_eq!(looks, Rest::LOOKS_MAX - 1);
    }

    #[test]
    fn our_own_memory_can_be_read() {
        assert!(resident_bytes(std::process::id()).unwrap() > 100_000);
    }
}
