//! What a million addresses leave behind in the server's memory.
//!
//! The server takes this program for a proxy and believes its `X-Forwarded-For`. Every address sends one order that is
//! well-formed but cannot be accepted, with the idempotency key of another one: flood control counts the address, the order
//! ends with 422, and nothing stays but the address in the tables. When these are full, newcomers share entries, and an entry that too many share refuses with 429.
//!
//! One customer is known before the others come. It must get its coffees all the same, in their midst and after them.

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::client::{Client, Talk};
use crate::framing::Framing;
use crate::http::{Customer, status};
use crate::ledger::Ledger;
use crate::memory::settled;
use crate::peers::Server;
use crate::subject::Subject;

/// Addresses that come by.
pub(crate) const COUNT: u32 = 1_000_000;
/// Connections of the proxy; each asks for one address after the other.
const CONNECTIONS: u32 = 64;
/// For the million.
const PATIENCE: Duration = Duration::from_mins(5);
/// For a coffee.
const COFFEE_PATIENCE: Duration = Duration::from_secs(10);
/// Who is known before and served in between and afterwards; none of the million.
const REGULAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const FIRST_ORDER: &[u8] =
    b"POST /order/ HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Forwarded-For: 198.51.100.7\r\n\
    Idempotency-Key: the-key-of-the-first-order\r\nContent-Length: 0\r\n\r\n";
const REGULAR_ORDER: &[u8] =
    b"POST /order/ HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Forwarded-For: 198.51.100.7\r\nContent-Length: 0\r\n\r\n";

/// What came of it.
pub(crate) struct Growth {
    /// Of the server's resident memory.
    pub(crate) bytes: f64,
    /// Addresses that were not refused.
    pub(crate) admitted: u32,
}

/// Resident bytes that a million addresses have added.
pub(crate) fn growth(server: &Server) -> Result<Growth> {
    serve_regular(server, FIRST_ORDER)?;
    let admitted = Rc::new(Cell::new(0));
    let mut client = Client::new(Framing::Http)?;
    // The connections are there before, with all buffers they need: they ask for one and the same address first.
    for first in 0..CONNECTIONS {
        let stranger = Stranger {
            number: first,
            admitted: Rc::clone(&admitted),
        };
        client.connect(Ipv4Addr::LOCALHOST, server.customers, Box::new(stranger))?;
    }
    client.run_while(PATIENCE, |ledger| !ledger.everybody_answered())?;
    let before = settled(&mut client, server.pid())?;
    admitted.set(0);

    client.ledger.open = true;
    for connection in 0..CONNECTIONS {
        client.nudge(usize::try_from(connection)?)?;
    }
    let half = client.ledger.answers() + u64::from(COUNT / 2);
    client.run_while(PATIENCE, |ledger| ledger.answers() < half)?;
    serve_regular(server, REGULAR_ORDER)?;
    client.run_while(PATIENCE, |ledger| !ledger.everybody_answered())?;
    let asked = client.ledger.answers();
    ensure!(
        asked == u64::from(CONNECTIONS + COUNT),
        "{asked} requests were answered"
    );
    let after = settled(&mut client, server.pid())?;
    client.ledger.balance()?;
    serve_regular(server, REGULAR_ORDER)?;
    let kib = u32::try_from(after.saturating_sub(before) / 1024)?;
    Ok(Growth {
        bytes: f64::from(kib) * 1024.0,
        admitted: admitted.get(),
    })
}

/// The regular orders and gets a coffee.
fn serve_regular(server: &Server, order: &'static [u8]) -> Result<()> {
    let (framing, baristas) = Subject::baristas(1);
    let mut client = Client::new(framing)?;
    for barista in baristas {
        client.connect(Ipv4Addr::LOCALHOST, server.staff, barista)?;
    }
    client.connect(
        Ipv4Addr::LOCALHOST,
        server.customers,
        Box::new(Customer(order)),
    )?;
    client.run_while(COFFEE_PATIENCE, |ledger| {
        !(ledger.everybody_answered() && ledger.everything_confirmed())
    })?;
    client.ledger.balance()
}

/// Asks for the address with its number, then for every so many further ones.
struct Stranger {
    number: u32,
    admitted: Rc<Cell<u32>>,
}

impl Talk for Stranger {
    fn open(&mut self, ledger: &mut Ledger, out: &mut Vec<u8>) {
        ask(REGULAR, ledger, out);
    }

    fn receive(
        &mut self,
        head: &[u8],
        _: &[u8],
        ledger: &mut Ledger,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        match status(head)? {
            422 => self.admitted.set(self.admitted.get() + 1),
            429 => {}
            status => bail!("an order that cannot be accepted was answered {status}"),
        }
        ledger.answer_alike();
        if ledger.open {
            self.nudge(ledger, out);
        }
        Ok(())
    }

    fn nudge(&mut self, ledger: &mut Ledger, out: &mut Vec<u8>) {
        if self.number < COUNT {
            ask(address(self.number), ledger, out);
            self.number += CONNECTIONS;
        }
    }
}

/// An order with the key of another, which cannot be accepted.
fn ask(address: Ipv4Addr, ledger: &mut Ledger, out: &mut Vec<u8>) {
    ledger.place();
    let text = format!(
        "POST /order/ HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Forwarded-For: {address}\r\n\
         Idempotency-Key: the-key-of-the-first-order\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n\
         {{\"customer\":\"x\"}}"
    );
    out.extend_from_slice(text.as_bytes());
}

/// The address with this number: no two are alike, and neighbours in number are far apart, so that as few as can be have
/// a network in common.
fn address(number: u32) -> Ipv4Addr {
    // An odd factor maps the numbers of 32 bits onto themselves; this one, of the golden ratio, spreads them evenly.
    let address = Ipv4Addr::from((number + 1).wrapping_mul(0x9e37_79b9));
    match address {
        // The proxy itself, and the regular, are no strangers: numbers past the last one stand in for them.
        Ipv4Addr::LOCALHOST => Ipv4Addr::from((COUNT + 1).wrapping_mul(0x9e37_79b9)),
        REGULAR => Ipv4Addr::from((COUNT + 2).wrapping_mul(0x9e37_79b9)),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_million_addresses_are_a_million() {
        let addresses: HashSet<Ipv4Addr> = (0..COUNT).map(address).collect();
        assert_eq!(addresses.len(), 1_000_000);
        assert!(!addresses.contains(&REGULAR));
        assert!(!addresses.contains(&Ipv4Addr::LOCALHOST));
    }

    #[test]
    fn the_first_addresses_have_no_network_in_common() {
        let networks: HashSet<u32> = (0..100_000)
            .map(|number| address(number).to_bits() >> 8)
            .collect();
        assert_eq!(networks.len(), 100_000);
    }

    #[test]
    fn the_announced_length_is_that_of_the_body() {
        let mut out = Vec::new();
        let mut stranger = Stranger {
            number: 0,
            admitted: Rc::default(),
        };
        stranger.nudge(&mut Ledger::new(), &mut out);
        let text = String::from_utf8(out).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
        assert!(head.contains(&format!("X-Forwarded-For: {}\r\n", address(0))));
        assert_eq!(stranger.number, CONNECTIONS);
    }

    #[test]
    fn the_regular_is_who_it_says() {
        let text = String::from_utf8(REGULAR_ORDER.to_vec()).unwrap();
        assert!(text.contains(&format!("X-Forwarded-For: {REGULAR}\r\n")));
    }
}
