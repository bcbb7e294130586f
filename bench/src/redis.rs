//! Redis: events as entries of streams, one `XADD` at a time on each connection, in RESP2.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use memchr::memmem;

use crate::client::{Frame, Message, Received, Session, Turn};
use crate::deliveries::{COLLECTED, Course};
use crate::load::Load;

/// Streams of one connection, used in turn: with 64 connections as many as the deliveries that the measured server stores.
const STREAMS: u32 = 16;
const LINE_MAX_BYTES: usize = 1024;

pub(crate) const ENTRIES: Load = Load {
    framing: first,
    customer: |connection, _| {
        Box::new(Recorder {
            connection,
            mission: 0,
            course: Course::new(connection),
        })
    },
    ..Load::HTTP
};

/// A line, and for a bulk string the bytes that its line announces.
fn first(bytes: &[u8]) -> Result<Option<Frame>> {
    let Some(line_len) = memmem::find(bytes, b"\r\n").map(|at| at + 2) else {
        ensure!(bytes.len() < LINE_MAX_BYTES, "a line does not end");
        return Ok(None);
    };
    let Some(announced) = bytes[..line_len].strip_prefix(b"$") else {
        return Ok(Some((line_len..line_len, line_len)));
    };
    let announced = str::from_utf8(announced)?.trim_end();
    let len: usize = announced
        .parse()
        .with_context(|| format!("a bulk string of length {announced:?}"))?;
    let body = line_len..line_len + len;
    let end = body.end + 2;
    Ok((bytes.len() >= end).then_some((body, end)))
}

/// Adds one mission's events to a stream, then the next one's to another.
struct Recorder {
    connection: u32,
    mission: u32,
    course: Course,
}

impl Recorder {
    fn add(&mut self, event: &str, out: &mut Vec<u8>) {
        self.mission += u32::from(event == COLLECTED);
        let key = format!("mission:{}:{}", self.connection, self.mission % STREAMS);
        let time = SystemTime::now().duration_since(UNIX_EPOCH);
        let time = time.unwrap_or_default().as_micros().to_string();
        // About a thousand entries at most, cut where it is cheapest: at complete nodes.
        let limit = ["MAXLEN", "~", "1000"];
        let words = [
            &["XADD", &key][..],
            &limit,
            &["*", "type", event, "time", &time],
        ]
        .concat();
        // Writing into a vector does not fail.
        let _ = write!(out, "*{}\r\n", words.len());
        for word in words {
            let _ = write!(out, "${}\r\n{word}\r\n", word.len());
        }
    }
}

impl Session for Recorder {
    fn request(&mut self, out: &mut Vec<u8>) {
        let event = self.course.next();
        self.add(event, out);
    }

    fn last_request(&mut self, out: &mut Vec<u8>) -> bool {
        let event = self.course.end();
        event.map(|event| self.add(event, out)).is_some()
    }

    fn receive(&mut self, message: Message, _: &mut Turn) -> Result<Received> {
        let added = message.head.starts_with(b"$") && is_entry_id(message.body);
        ensure!(added, "the entry was not added");
        Ok(Received::Answer)
    }
}

/// Milliseconds, a hyphen, a number among those of the same millisecond.
fn is_entry_id(body: &[u8]) -> bool {
    let is_number = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let hyphen = memchr::memchr(b'-', body);
    hyphen.is_some_and(|at| is_number(&body[..at]) && is_number(&body[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::tests::frames_are_found_at_every_split;

    #[test]
    fn answers_are_found_however_they_arrive() {
        let stream = b"$4\r\n1-23\r\n+OK\r\n$0\r\n\r\n-ERR no\r\n:7\r\n$2\r\n\r\n\r\n";
        let bodies: [&[u8]; 6] = [b"1-23", b"", b"", b"", b"", b"\r\n"];
        frames_are_found_at_every_split(first, stream, &bodies);
        for wrong in [&b"$-1\r\n"[..], b"$many\r\n", &[b'x'; LINE_MAX_BYTES]] {
            assert!(first(wrong).is_err());
        }
    }
}
