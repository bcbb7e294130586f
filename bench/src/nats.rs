//! NATS's text protocol: request and reply through an inbox of one's own, and a queue group of workers.

use std::io::Write;

use anyhow::{Context, Result, bail, ensure};
use memchr::memmem;

use crate::client::Talk;
use crate::framing::Frame;
use crate::ledger::Ledger;
use crate::tally::Tally;

/// No acknowledgement of every line, no checking of subjects: as the server's own clients connect.
const CONNECT: &[u8] =
    b"CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"raw\",\"version\":\"1\"}\r\n";
const SUBJECT: &str = "americano";
/// Longer lines are nothing the server says here.
const LINE_MAX_BYTES: usize = 16 * 1024;

/// The first operation in `bytes`: a line, and for a message the payload that its line announces.
pub(crate) fn first(bytes: &[u8]) -> Result<Option<Frame>> {
    let Some(line_len) = memmem::find(bytes, b"\r\n").map(|at| at + 2) else {
        ensure!(bytes.len() < LINE_MAX_BYTES, "a line does not end");
        return Ok(None);
    };
    if !bytes.starts_with(b"MSG ") {
        return Ok(Some(Frame {
            body: line_len..line_len,
            end: line_len,
        }));
    }
    let payload_len = fields(&bytes[..line_len])?
        .last()
        .context("a message without a length")?
        .parse::<usize>()?;
    let body = line_len..line_len + payload_len;
    let end = body.end + 2;
    Ok((bytes.len() >= end).then_some(Frame { body, end }))
}

fn fields(line: &[u8]) -> Result<std::str::SplitAsciiWhitespace<'_>> {
    Ok(str::from_utf8(line)?.split_ascii_whitespace())
}

/// Publishes a request with an inbox, waits for the reply in it, publishes the next.
pub(crate) struct Requester {
    tally: Tally,
    inbox: String,
}

impl Requester {
    /// The client with this number; no two have the same.
    pub(crate) fn new(number: u32) -> Self {
        Requester {
            tally: Tally::new(number),
            inbox: format!("_INBOX.{number}"),
        }
    }

    fn request(&mut self, ledger: &mut Ledger, out: &mut Vec<u8>) {
        ledger.place();
        publish(out, SUBJECT, Some(&self.inbox), self.tally.next());
    }
}

impl Talk for Requester {
    fn open(&mut self, ledger: &mut Ledger, out: &mut Vec<u8>) {
        out.extend_from_slice(CONNECT);
        line(out, &format!("SUB {} 1", self.inbox));
        self.request(ledger, out);
    }

    fn receive(
        &mut self,
        head: &[u8],
        body: &[u8],
        ledger: &mut Ledger,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        if !head.starts_with(b"MSG ") {
            return formality(head, out);
        }
        ledger.answer(self.tally.expect(body)?);
        if ledger.open {
            self.request(ledger, out);
        }
        Ok(())
    }
}

/// Replies to each request with its own payload; while the books say so, keeps the requests back.
pub(crate) struct Worker {
    held: Vec<(String, Vec<u8>)>,
}

impl Worker {
    /// A worker with nothing to do yet.
    pub(crate) fn new() -> Self {
        Worker { held: Vec::new() }
    }
}

impl Talk for Worker {
    fn open(&mut self, _: &mut Ledger, out: &mut Vec<u8>) {
        out.extend_from_slice(CONNECT);
        line(out, &format!("SUB {SUBJECT} baristas 1"));
        line(out, "PING");
    }

    fn receive(
        &mut self,
        head: &[u8],
        body: &[u8],
        ledger: &mut Ledger,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        if head == b"PONG\r\n" {
            // The subscription was taken before the PING was answered.
            ledger.ready += 1;
            return Ok(());
        }
        if !head.starts_with(b"MSG ") {
            return formality(head, out);
        }
        let reply_to = fields(head)?.nth(3).context("a request without an inbox")?;
        ledger.finish(Tally::read(body)?);
        if ledger.holding {
            self.held.push((reply_to.to_owned(), body.to_owned()));
        } else {
            publish(out, reply_to, None, body);
        }
        Ok(())
    }

    fn nudge(&mut self, _: &mut Ledger, out: &mut Vec<u8>) {
        for (reply_to, payload) in self.held.drain(..) {
            publish(out, &reply_to, None, &payload);
        }
    }
}

/// Protocol lines that are not messages.
fn formality(head: &[u8], out: &mut Vec<u8>) -> Result<()> {
    match head {
        b"PING\r\n" => line(out, "PONG"),
        b"PONG\r\n" => {}
        _ if head.starts_with(b"INFO ") => {}
        _ => bail!("the server has complained"),
    }
    Ok(())
}

fn line(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn publish(out: &mut Vec<u8>, subject: &str, reply_to: Option<&str>, payload: &[u8]) {
    out.extend_from_slice(b"PUB ");
    out.extend_from_slice(subject.as_bytes());
    out.push(b' ');
    if let Some(inbox) = reply_to {
        out.extend_from_slice(inbox.as_bytes());
        out.push(b' ');
    }
    let written = write!(out, "{}\r\n", payload.len());
    debug_assert!(written.is_ok(), "a vector takes all that is written");
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::{Framing, contract};

    #[test]
    fn operations_are_found_however_they_arrive() {
        let stream = b"INFO {\"max_payload\":1048576}\r\nPING\r\n\
            MSG americano 1 _INBOX.7 4\r\n\r\n\r\n\r\n\
            MSG _INBOX.7 1 0\r\n\r\nPONG\r\n";
        contract::holds_at_every_split(Framing::Nats, stream, &[b"", b"", b"\r\n\r\n", b"", b""]);
    }

    #[test]
    fn a_message_without_a_length_is_refused() {
        assert!(first(b"MSG americano 1 _INBOX.7\r\n").is_err());
    }

    #[test]
    fn a_complaint_of_the_server_ends_the_measurement() {
        let received = Requester::new(1).receive(
            b"-ERR 'Slow Consumer'\r\n",
            b"",
            &mut Ledger::new(),
            &mut Vec::new(),
        );
        assert!(received.is_err());
    }

    #[test]
    fn a_request_comes_back_as_its_reply() {
        let mut ledger = Ledger::new();
        let mut requester = Requester::new(7);
        let mut out = Vec::new();
        requester.request(&mut ledger, &mut out);
        assert_eq!(out, b"PUB americano _INBOX.7 16\r\n0000000700000001\r\n");

        out.clear();
        let request = b"MSG americano 1 _INBOX.7 16\r\n";
        Worker::new()
            .receive(request, b"0000000700000001", &mut ledger, &mut out)
            .unwrap();
        assert_eq!(out, b"PUB _INBOX.7 16\r\n0000000700000001\r\n");

        requester
            .receive(
                b"MSG _INBOX.7 1 16\r\n",
                b"0000000700000001",
                &mut ledger,
                &mut Vec::new(),
            )
            .unwrap();
        ledger.balance().unwrap();
    }

    #[test]
    fn a_holding_worker_replies_when_nudged() {
        let mut ledger = Ledger::new();
        ledger.holding = true;
        let mut worker = Worker::new();
        let mut out = Vec::new();
        worker
            .receive(
                b"MSG americano 1 _INBOX.7 16\r\n",
                b"0000000700000001",
                &mut ledger,
                &mut out,
            )
            .unwrap();
        assert!(out.is_empty());
        worker.nudge(&mut ledger, &mut out);
        assert_eq!(out, b"PUB _INBOX.7 16\r\n0000000700000001\r\n");
    }
}
