//! HTTP/1.1: where an answer ends, how requests are written, and a connection for one request at a time.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use memchr::{memchr, memmem};

use crate::client::{Frame, Message, Received, Session, Turn};

/// No server measured here has a longer head.
const HEAD_MAX_BYTES: usize = 16 * 1024;
const TIMEOUT: Duration = Duration::from_secs(30);

/// A response without a body says so with its status or a length of 0.
pub(crate) fn first(bytes: &[u8]) -> Result<Option<Frame>> {
    let Some(head_len) = memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4) else {
        ensure!(
            bytes.len() < HEAD_MAX_BYTES,
            "the head of an answer does not end"
        );
        return Ok(None);
    };
    let head = &bytes[..head_len];
    let body_len = match content_length(head)? {
        Some(len) => len,
        None if status(head)? == 204 => 0,
        None => bail!(
            "an answer without a length: {:?}",
            String::from_utf8_lossy(head)
        ),
    };
    let end = head_len + body_len;
    Ok((bytes.len() >= end).then_some((head_len..end, end)))
}

fn content_length(head: &[u8]) -> Result<Option<usize>> {
    const NAME: &[u8] = b"content-length:";
    for line in head.split(|&byte| byte == b'\n') {
        if line.len() > NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME) {
            let value = str::from_utf8(&line[NAME.len()..])?.trim();
            return Ok(Some(
                value
                    .parse()
                    .with_context(|| format!("the length {value:?}"))?,
            ));
        }
    }
    Ok(None)
}

pub(crate) fn status(head: &[u8]) -> Result<u16> {
    let digits = head
        .strip_prefix(b"HTTP/1.1 ")
        .and_then(|rest| rest.get(..3));
    Ok(str::from_utf8(digits.context("this is not an HTTP/1.1 answer")?)?.parse()?)
}

pub(crate) fn expect(message: Message, expected: u16) -> Result<()> {
    let status = status(message.head)?;
    ensure!(
        status == expected,
        "the status is {status} instead of {expected}"
    );
    Ok(())
}

/// What follows the first occurrence of `name`.
pub(crate) fn after<'a>(body: &'a [u8], name: &str) -> Result<&'a [u8]> {
    let at = memmem::find(body, name.as_bytes());
    let at = at.with_context(|| format!("an answer without {name}"))?;
    Ok(&body[at + name.len()..])
}

/// The text between `name`, which ends with a quotation mark, and the next one.
pub(crate) fn text_after<'a>(body: &'a [u8], name: &str) -> Result<&'a [u8]> {
    let text = after(body, name)?;
    Ok(&text[..memchr(b'"', text).context("a text that does not end")?])
}

pub(crate) fn contains(body: &[u8], text: &str) -> bool {
    memmem::find(body, text.as_bytes()).is_some()
}

/// Appends a request with a JSON body.
pub(crate) fn write_json(out: &mut Vec<u8>, method: &str, path: &str, body: &str) {
    let head = [
        method,
        " ",
        path,
        " HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: ",
    ];
    for part in head {
        out.extend_from_slice(part.as_bytes());
    }
    // Writing into a vector does not fail.
    let _ = write!(out, "{}\r\n\r\n{body}", body.len());
}

pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").into_bytes()
}

pub(crate) fn json(method: &str, path: &str, body: &str) -> Vec<u8> {
    let mut request = Vec::new();
    write_json(&mut request, method, path, body);
    request
}

/// A client that sends the same request again and again.
pub(crate) struct Repeat {
    pub(crate) request: &'static [u8],
    pub(crate) status: u16,
    /// Whether a body is right, given the first one that this client received.
    pub(crate) is_right: fn(first: &[u8], body: &[u8]) -> bool,
    first: Option<Vec<u8>>,
}

impl Repeat {
    pub(crate) fn boxed(
        request: &'static [u8],
        status: u16,
        is_right: fn(&[u8], &[u8]) -> bool,
    ) -> Box<dyn Session> {
        Box::new(Repeat {
            request,
            status,
            is_right,
            first: None,
        })
    }
}

impl Session for Repeat {
    fn request(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.request);
    }

    fn receive(&mut self, message: Message, _: &mut Turn) -> Result<Received> {
        expect(message, self.status)?;
        let first = self.first.get_or_insert_with(|| message.body.to_vec());
        ensure!(
            (self.is_right)(first, message.body),
            "this is not the right answer"
        );
        Ok(Received::Answer)
    }
}

/// A keep-alive connection for one request at a time.
pub(crate) struct Connection {
    stream: TcpStream,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn expect(self, status: u16) -> Result<Self> {
        let text = String::from_utf8_lossy(&self.body);
        ensure!(
            self.status == status,
            "{} instead of {status}: {text}",
            self.status
        );
        Ok(self)
    }
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).context("connecting to the server")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self { stream })
    }

    pub(crate) fn ask(&mut self, request: &[u8]) -> Result<Answer> {
        let mut received = Vec::with_capacity(1 << 16);
        let mut piece = vec![0; 1 << 16];
        self.stream.write_all(request)?;
        let (body, end) = loop {
            let count = self.stream.read(&mut piece)?;
            ensure!(count > 0, "the server has closed the connection");
            received.extend_from_slice(&piece[..count]);
            if let Some(frame) = first(&received)? {
                break frame;
            }
        };
        ensure!(received.len() == end, "more than one answer");
        let status = status(&received)?;
        Ok(Answer {
            status,
            body: received.split_off(body.start),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::tests::{frames_are_found_at_every_split, receive};
    use crate::ledger::Ledger;

    #[test]
    fn answers_are_found_however_they_arrive() {
        let stream =
            b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello\
            HTTP/1.1 204 No Content\r\ndate: now\r\n\r\n\
            HTTP/1.1 404 Not Found\r\nContent-Length:0\r\n\r\n\
            HTTP/1.1 200 OK\r\nCONTENT-LENGTH: 4\r\n\r\n\r\n\r\n";
        frames_are_found_at_every_split(first, stream, &[b"hello", b"", b"", b"\r\n\r\n"]);
    }

    #[test]
    fn an_answer_without_a_length_is_rejected() {
        assert!(first(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
        assert!(first(b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n").is_err());
        assert!(first(&vec![b'x'; HEAD_MAX_BYTES]).is_err());
    }

    #[test]
    fn a_repeated_request_must_get_the_first_answer_again() {
        let mut repeat = Repeat::boxed(b"?", 200, |first, body| first == body);
        let mut is_right =
            |head: &[u8], body| receive(&mut *repeat, &mut Ledger::default(), head, body).is_ok();
        assert!(!is_right(b"HTTP/1.1 304 Not Modified", b"one"));
        assert!(is_right(b"HTTP/1.1 200 OK", b"one"));
        assert!(is_right(b"HTTP/1.1 200 OK", b"one"));
        assert!(!is_right(b"HTTP/1.1 200 OK", b"two"));
    }
}
