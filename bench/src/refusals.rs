//! Orders from an address that is cut off, and the orders that cause the cut-off.
//!
//! The server has its default limits. One connection places orders without waiting for its coffees until an answer says
//! that it is cut off, as a flooder is: first its burst is accepted, then orders are refused, then the address is cut off
//! and what it had waiting is taken away. From then on every order from it must be refused.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use memchr::memmem;

use crate::client::{Client, Talk};
use crate::framing::Framing;
use crate::http::status;
use crate::ledger::Ledger;
use crate::peers::Server;

/// Orders without waiting for the coffee.
const ORDER_ASYNC: &[u8] =
    b"POST /order/ HTTP/1.1\r\nHost: 127.0.0.1\r\nPrefer: respond-async\r\nContent-Length: 0\r\n\r\n";
/// A part of the answer to a client that is cut off.
const CUT_OFF: &[u8] = b"urn:odyssey:problem:cut-off";
/// For a few hundred orders.
const PATIENCE: Duration = Duration::from_secs(10);

/// Has this program's address cut off.
pub(crate) fn be_cut_off(server: &Server) -> Result<()> {
    let mut client = Client::new(Framing::Http)?;
    client.connect(Ipv4Addr::LOCALHOST, server.customers, Box::new(Flooder))?;
    client.run_while(PATIENCE, |ledger| !ledger.everybody_answered())
}

/// Orders until it is cut off.
struct Flooder;

impl Talk for Flooder {
    fn open(&mut self, ledger: &mut Ledger, out: &mut Vec<u8>) {
        ledger.place();
        out.extend_from_slice(ORDER_ASYNC);
    }

    fn receive(
        &mut self,
        head: &[u8],
        body: &[u8],
        ledger: &mut Ledger,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        match status(head)? {
            429 if is_cut_off(body) => {}
            202 | 429 => self.open(ledger, out),
            status => bail!("a flooder was answered {status}"),
        }
        ledger.answer_alike();
        Ok(())
    }
}

/// Sends this order from an address that is cut off, reads the refusal, orders again.
pub(crate) struct Outcast(pub(crate) &'static [u8]);

impl Talk for Outcast {
    fn open(&mut self, ledger: &mut Ledger, out: &mut Vec<u8>) {
        ledger.place();
        out.extend_from_slice(self.0);
    }

    fn receive(
        &mut self,
        head: &[u8],
        body: &[u8],
        ledger: &mut Ledger,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        ensure!(
            status(head)? == 429 && is_cut_off(body),
            "somebody who is cut off was not told so"
        );
        ledger.answer_alike();
        if ledger.open {
            self.open(ledger, out);
        }
        Ok(())
    }
}

fn is_cut_off(body: &[u8]) -> bool {
    memmem::find(body, CUT_OFF).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::ORDER;

    const REFUSED: &[u8] = b"HTTP/1.1 429 Too Many Requests";

    fn received(
        ledger: &mut Ledger,
        talk: &mut dyn Talk,
        head: &[u8],
        body: &[u8],
    ) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        talk.receive(head, body, ledger, &mut out).map(|()| out)
    }

    #[test]
    fn a_flooder_goes_on_until_it_is_cut_off() {
        let mut ledger = Ledger::new();
        Flooder.open(&mut ledger, &mut Vec::new());
        let accepted = received(&mut ledger, &mut Flooder, b"HTTP/1.1 202 Accepted", b"{}");
        assert_eq!(accepted.unwrap(), ORDER_ASYNC);
        let refused = received(&mut ledger, &mut Flooder, REFUSED, b"{}");
        assert_eq!(refused.unwrap(), ORDER_ASYNC);
        assert!(!ledger.everybody_answered());
        assert_eq!(
            received(&mut ledger, &mut Flooder, REFUSED, CUT_OFF).unwrap(),
            b""
        );
        assert!(ledger.everybody_answered());
        assert!(
            received(
                &mut ledger,
                &mut Flooder,
                b"HTTP/1.1 503 Service Unavailable",
                b""
            )
            .is_err()
        );
    }

    #[test]
    fn an_outcast_accepts_nothing_but_its_refusal() {
        let mut ledger = Ledger::new();
        ledger.open = true;
        let mut outcast = Outcast(ORDER);
        outcast.open(&mut ledger, &mut Vec::new());
        assert_eq!(
            received(&mut ledger, &mut outcast, REFUSED, CUT_OFF).unwrap(),
            ORDER
        );
        assert!(received(&mut ledger, &mut outcast, REFUSED, b"{}").is_err());
        assert!(received(&mut ledger, &mut outcast, b"HTTP/1.1 200 OK", CUT_OFF).is_err());
    }
}
