//! Redis: events as entries of streams, one `XADD` at a time on each connection.
//!
//! RESP2, and of it what answers an `XADD`: a bulk string with the entry's id, or an error. Everything else ends the
//! measurement.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use memchr::memmem;

use crate::client::Talk;
use crate::drones::Course;
use crate::framing::Frame;
use crate::ledger::Ledger;

/// Streams of one connection, taken in turn: with 64 connections as many as deliveries that the measured server keeps.
const STREAMS: u32 = 16;
/// Longer lines are no answer to an entry.
const LINE_MAX_BYTES: usize = 1024;

/// The first answer in `bytes`: a line, and for a bulk string the bytes that its line announces.
pub(crate) fn first(bytes: &[u8]) -> Result<Option<Frame>> {
    let Some(line_len) = memmem::find(bytes, b"\r\n").map(|at| at + 2) else {
        ensure!(bytes.len() < LINE_MAX_BYTES, "a line does not end");
        return Ok(None);
    };
    let Some(announced) = bytes[..line_len].strip_prefix(b"$") else {
        return Ok(Some(Frame {
            body: line_len..line_len,
            end: line_len,
        }));
    };
    let announced = str::from_utf8(announced)?.trim_end();
    let len: usize = announced
        .parse()
        .with_context(|| format!("a bulk string of the length {announced:?}"))?;
    let body = line_len..line_len + len;
    let end = body.end + 2;
    Ok((bytes.len() >= end).then_some(Frame { body, end }))
}

/// Adds one mission's events to a stream, then the next one's to another.
pub(crate) struct Recorder {
    connection: u32,
    mission: u32,
    course: Course,
    request: Vec<u8>,
}

impl Recorder {
    /// The connection with this number; no two have the same.
    pub(crate) fn new(number: u32) -> Self {
        Recorder {
            connection: number,
            mission: 0,
            course: Course::new(number),
            request: Vec::new(),
        }
    }

    fn add(&mut self, ledger: &mut Ledger, out: &mut Vec<u8>) {
        let Some(word) = self.course.next(ledger.open) else {
            return;
        };
        if word.is_first() {
            self.mission += 1;
        }
        let key = format!("mission:{}:{}", self.connection, self.mission % STREAMS);
        let time = SystemTime::now().duration_since(UNIX_EPOCH);
        let time = time.unwrap_or_default().as_micros().to_string();
        // About a thousand entries at most, cut where it is cheapest: whole nodes.
        let words = [
            "XADD",
            &key,
            "MAXLEN",
            "~",
            "1000",
            "*",
            "type",
            word.text(),
            "time",
            &time,
        ];
        ledger.place();
        self.request.clear();
        command(&mut self.request, &words);
        out.extend_from_slice(&self.request);
    }
}

impl Talk for Recorder {
    fn open(&mut self, ledger: &mut Ledger, out: &mut Vec<u8>) {
        self.add(ledger, out);
    }

    fn receive(
        &mut self,
        head: &[u8],
        body: &[u8],
        ledger: &mut Ledger,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        ensure!(
            head.starts_with(b"$") && is_entry_id(body),
            "the entry was not added"
        );
        ledger.answer_alike();
        self.add(ledger, out);
        Ok(())
    }
}

/// Milliseconds, a hyphen, a number among those of the same millisecond.
fn is_entry_id(body: &[u8]) -> bool {
    let digits = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let hyphen = memchr::memchr(b'-', body);
    hyphen.is_some_and(|at| digits(&body[..at]) && digits(&body[at + 1..]))
}

fn command(out: &mut Vec<u8>, words: &[&str]) {
    let mut written = write!(out, "*{}\r\n", words.len());
    for word in words {
        written = written.and_then(|()| write!(out, "${}\r\n{word}\r\n", word.len()));
    }
    debug_assert!(written.is_ok(), "a vector takes all that is written");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::{Framing, contract};

    #[test]
    fn answers_are_found_however_they_arrive() {
        let stream = b"$4\r\n1-23\r\n+OK\r\n$0\r\n\r\n-ERR no\r\n:7\r\n$2\r\n\r\n\r\n";
        contract::holds_at_every_split(
            Framing::Redis,
            stream,
            &[b"1-23", b"", b"", b"", b"", b"\r\n"],
        );
    }

    #[test]
    fn what_is_no_answer_to_an_entry_is_refused() {
        assert!(first(b"$-1\r\n").is_err());
        assert!(first(b"$many\r\n").is_err());
        assert!(first(&vec![b'x'; LINE_MAX_BYTES]).is_err());
    }

    #[test]
    fn an_event_is_an_entry_of_its_missions_stream() {
        let mut ledger = Ledger::new();
        ledger.open = true;
        let mut out = Vec::new();
        let mut recorder = Recorder::new(7);
        recorder.open(&mut ledger, &mut out);
        let start = b"*10\r\n$4\r\nXADD\r\n$11\r\nmission:7:1\r\n$6\r\nMAXLEN\r\n$1\r\n~\r\n$4\r\n1000\r\n$1\r\n*\r\n\
            $4\r\ntype\r\n$16\r\nPARCEL_COLLECTED\r\n$4\r\ntime\r\n$16\r\n";
        assert!(out.starts_with(start), "{}", String::from_utf8_lossy(&out));

        out.clear();
        recorder
            .receive(b"$4\r\n", b"17-0", &mut ledger, &mut out)
            .unwrap();
        assert!(memmem::find(&out, b"TAKEN_OFF").is_some());
        assert!(memmem::find(&out, b"mission:7:1\r\n").is_some());
    }

    #[test]
    fn only_the_id_of_an_entry_says_that_it_was_added() {
        let mut ledger = Ledger::new();
        for (head, body) in [
            (&b"-ERR no\r\n"[..], &b""[..]),
            (b"+OK\r\n", b""),
            (b"$2\r\n", b"no"),
            (b"$2\r\n", b"1-"),
        ] {
            let received = Recorder::new(1).receive(head, body, &mut ledger, &mut Vec::new());
            assert!(received.is_err());
        }
    }
}
