//! NATS's text protocol: request and reply with an inbox for each client, and a queue group of workers.

use std::io::Write;

use anyhow::{Context, Result, bail, ensure};
use memchr::memmem;

use crate::client::{Frame, Message, Received, Session, Turn};
use crate::ledger::Tally;
use crate::load::Load;

/// Without acknowledgements of every line and checks of subjects, as the server's own clients connect.
const CONNECT: &str =
    "CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"raw\",\"version\":\"1\"}\r\n";
const SUBJECT: &str = "americano";
const LINE_MAX_BYTES: usize = 16 * 1024;

pub(crate) const REQUESTS: Load = Load {
    framing: first,
    listener: |server| server.customers,
    customer: |number, _| {
        let inbox = format!("_INBOX.{number}");
        Box::new(Requester {
            tally: Tally::new(number),
            inbox,
        })
    },
    worker: Some(|_| Box::new(Worker { held: Vec::new() })),
    is_pushed: true,
    ..Load::HTTP
};

/// A line, and for a message the payload that its line announces.
fn first(bytes: &[u8]) -> Result<Option<Frame>> {
    let Some(line_len) = memmem::find(bytes, b"\r\n").map(|at| at + 2) else {
        ensure!(bytes.len() < LINE_MAX_BYTES, "a line does not end");
        return Ok(None);
    };
    if !bytes.starts_with(b"MSG ") {
        return Ok(Some((line_len..line_len, line_len)));
    }
    let announced = fields(&bytes[..line_len])?.last();
    let payload_len: usize = announced.context("a message without a length")?.parse()?;
    let body = line_len..line_len + payload_len;
    let end = body.end + 2;
    Ok((bytes.len() >= end).then_some((body, end)))
}

fn fields(line: &[u8]) -> Result<std::str::SplitAsciiWhitespace<'_>> {
    Ok(str::from_utf8(line)?.split_ascii_whitespace())
}

/// Publishes a request with its inbox, and waits for the reply in it.
struct Requester {
    tally: Tally,
    inbox: String,
}

impl Session for Requester {
    fn connected(&mut self, turn: &mut Turn) {
        write(turn.out, &[CONNECT, "SUB ", &self.inbox, " 1\r\n"]);
    }

    fn request(&mut self, out: &mut Vec<u8>) {
        publish(out, SUBJECT, &self.inbox, &self.tally.next());
    }

    fn receive(&mut self, message: Message, turn: &mut Turn) -> Result<Received> {
        if message.head.starts_with(b"MSG ") {
            return self.tally.expect(message.body);
        }
        protocol_line(message.head, turn.out)
    }
}

/// Replies to each request with its own payload, unless it holds requests.
struct Worker {
    held: Vec<(String, Vec<u8>)>,
}

impl Session for Worker {
    fn connected(&mut self, turn: &mut Turn) {
        let subscription = ["SUB ", SUBJECT, " baristas 1\r\nPING\r\n"];
        write(turn.out, &[&[CONNECT], &subscription[..]].concat());
    }

    fn receive(&mut self, message: Message, turn: &mut Turn) -> Result<Received> {
        let Message { head, body } = message;
        if head == b"PONG\r\n" {
            // The server took the subscription before it answered the PING.
            turn.ledger.ready += 1;
        }
        if !head.starts_with(b"MSG ") {
            return protocol_line(head, turn.out);
        }
        let inbox = fields(head)?.nth(3).context("a request without an inbox")?;
        turn.ledger.finish(Tally::read(body)?, false);
        if turn.ledger.holding {
            self.held.push((inbox.to_owned(), body.to_owned()));
        } else {
            publish(turn.out, inbox, "", body);
        }
        Ok(Received::Other)
    }

    fn release(&mut self, out: &mut Vec<u8>) {
        for (inbox, payload) in self.held.drain(..) {
            publish(out, &inbox, "", &payload);
        }
    }
}

fn protocol_line(head: &[u8], out: &mut Vec<u8>) -> Result<Received> {
    match head {
        b"PING\r\n" => write(out, &["PONG\r\n"]),
        b"PONG\r\n" => {}
        _ if head.starts_with(b"INFO ") => {}
        _ => bail!("the server reports an error"),
    }
    Ok(Received::Other)
}

fn write(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Without an inbox for the reply if `inbox` is empty.
fn publish(out: &mut Vec<u8>, subject: &str, inbox: &str, payload: &[u8]) {
    let space = if inbox.is_empty() { "" } else { " " };
    write(out, &["PUB ", subject, " ", inbox, space]);
    // Writing into a vector does not fail.
    let _ = write!(out, "{}\r\n", payload.len());
    out.extend_from_slice(payload);
    write(out, &["\r\n"]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::tests::frames_are_found_at_every_split;

    #[test]
    fn operations_are_found_however_they_arrive() {
        let stream = b"INFO {\"max_payload\":1048576}\r\nPING\r\n\
            MSG americano 1 _INBOX.7 4\r\n\r\n\r\n\r\n\
            MSG _INBOX.7 1 0\r\n\r\nPONG\r\n";
        frames_are_found_at_every_split(first, stream, &[b"", b"", b"\r\n\r\n", b"", b""]);
        assert!(first(b"MSG americano 1 _INBOX.7\r\n").is_err());
        assert!(protocol_line(b"-ERR 'Slow Consumer'\r\n", &mut Vec::new()).is_err());
    }
}
