//! What one held request costs a server in resident memory.
//!
//! A new server serves one customer, and its memory is read. Then thousands of customers connect and send a request while
//! no worker takes any. When the memory has settled it is read again; the difference is divided by the number held. Then
//! the work is done, which verifies that each request was held: every customer must be answered.
//!
//! Customers come from many addresses of the loopback network, few from each, as real ones do.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use odyssey::http::listen::raise_open_files;

use crate::client::Client;
use crate::engine::{Bench, Sample, Side, sample};
use crate::load::{BARISTAS, Load};
use crate::machine::memory_bytes;
use crate::programs::Server;
use crate::rows::Subject;

/// For all held customers to be answered.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
pub(crate) const READ_EVERY: Duration = Duration::from_millis(200);
/// Far below the default limits of an address.
const PER_ADDRESS: u32 = 200;
/// Addresses of one /24 network.
const PER_NETWORK: u32 = 250;
/// Connections between two turns of the loop.
const BATCH: u32 = 200;
/// Open files in addition to held connections.
const SPARE_FILES: u64 = 200;

/// Held requests of a new server.
pub(crate) struct Held<'a> {
    pub(crate) subject: &'static Subject,
    pub(crate) load: Load,
    pub(crate) bench: &'a Bench,
}

impl Held<'_> {
    /// The server's resident memory while it holds so many requests. All of them are answered afterwards.
    fn hold(&self, server: &Server, held: u32) -> Result<u64> {
        let load = self.load;
        let mut client = Client::of(load.framing, server)?;
        client.ledger.holding = true;
        if load.is_pushed {
            load.hire(&mut client, server, 1)?;
        }
        for number in 0..held {
            let (session, address) = ((load.customer)(number, server), (load.listener)(server));
            client.enter(source(number), address, session)?;
            if number.is_multiple_of(BATCH) {
                client.run_until(Instant::now() + Duration::from_millis(1))?;
            }
        }
        while client.is_handshaking() {
            client.run_until(Instant::now() + READ_EVERY)?;
        }
        let resident = settled(&mut client, server)?;
        if !load.is_pushed {
            load.hire(&mut client, server, BARISTAS)?;
        }
        client.release()?;
        client.run_while(PATIENCE, |ledger| {
            !(ledger.all_answered() && ledger.all_confirmed())
        })?;
        client.ledger.balance()?;
        Ok(resident)
    }
}

impl Side for Held<'_> {
    fn sample(&mut self) -> Result<Sample> {
        let (held, open_files) = (self.bench.held, raise_open_files());
        ensure!(
            u64::from(held) + SPARE_FILES <= open_files,
            "{held} connections need more open files than {open_files}: raise `ulimit -Hn`, or hold fewer"
        );
        let server = self.bench.programs.start(self.subject)?;
        let measure = || {
            self.hold(&server, 1)?;
            let idle = settled(&mut Client::new(self.load.framing)?, &server)?;
            Ok(share(idle, self.hold(&server, held)?, held))
        };
        Ok(sample([("per-held", server.explain(measure())?)]))
    }
}

/// The growth per held request, in bytes, from a growth in steps of 1024 bytes.
pub(crate) fn share(idle: u64, full: u64, held: u32) -> f64 {
    let kib = u32::try_from(full.saturating_sub(idle) / 1024).unwrap_or(u32::MAX);
    f64::from(kib) * 1024.0 / f64::from(held)
}

/// The address of the customer with this number: 127.0.1.1 and on.
fn source(number: u32) -> Ipv4Addr {
    let address = number / PER_ADDRESS;
    let network = Ipv4Addr::new(127, 0, 1, 1).to_bits();
    Ipv4Addr::from_bits(network + address / PER_NETWORK * 256 + address % PER_NETWORK)
}

/// A server's resident memory once it has settled.
fn settled(client: &mut Client, server: &Server) -> Result<u64> {
    let mut rest = Rest::default();
    while !rest.is_reached(server)? {
        client.run_until(Instant::now() + READ_EVERY)?;
    }
    Ok(rest.last())
}

/// Decides from readings of a server's memory when it has settled.
#[derive(Default)]
pub(crate) struct Rest(Vec<u64>);

impl Rest {
    /// Readings that must agree.
    const AGREEING: usize = 6;
    /// After so many readings the memory of a server that never rests is taken as it is.
    const READINGS_MAX: usize = 75;
    const TOLERANCE_BYTES: u64 = 64 * 1024;

    /// Reads the server's memory.
    pub(crate) fn is_reached(&mut self, server: &Server) -> Result<bool> {
        Ok(self.add(memory_bytes(&server.pid().to_string(), "VmRSS:")?))
    }

    fn add(&mut self, resident: u64) -> bool {
        self.0.push(resident);
        let last = &self.0[self.0.len().saturating_sub(Self::AGREEING)..];
        let (low, high) = (last.iter().min(), last.iter().max());
        let span = high.zip(low).map_or(0, |(high, low)| high - low);
        let is_at_rest = last.len() == Self::AGREEING && span <= Self::TOLERANCE_BYTES;
        is_at_rest || self.0.len() >= Self::READINGS_MAX
    }

    pub(crate) fn last(&self) -> u64 {
        self.0.last().copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_at_rest_when_several_readings_agree() {
        let mut rest = Rest::default();
        let moving = [0, 50 << 20, 90 << 20, 100 << 20];
        let readings = moving.into_iter().chain([100 << 20; 5]);
        let reached: Vec<bool> = readings.map(|reading| rest.add(reading)).collect();
        assert_eq!(reached.iter().position(|&reached| reached), Some(8));
    }
}
