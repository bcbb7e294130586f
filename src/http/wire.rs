//! A connection's bytes, between the socket and hyper. What hyper does not do:
//!
//! - **A client that has left is noticed.** hyper stops reading while bytes behind the open request (a bare CRLF, a
//!   pipelined request) wait in its buffer, and so does not see the end of the stream. Each poll of a connection that holds
//!   a request reads ahead here; the bytes go to hyper later.
//! - **A client that reads nothing is noticed**: [`Activity`] has since when the socket accepts no bytes.
//! - **An answer to a request that was not read to its end arrives.** A socket that is closed with unread bytes is reset,
//!   and the answer is lost. So the sending side is closed first, and what still arrives is dropped.

use std::fmt;
use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::activity::Activity;
use super::socket::Socket;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::io::{AsyncRead, ReadBuf};

/// The preface of an HTTP/2 client with prior knowledge (RFC 9113, section 3.4); no HTTP/1.1 method begins like this.
const H2_PREFACE_START: &[u8] = b"PRI ";
/// Read-ahead behind an open request; a client that sends more is not waiting for its answer.
const AHEAD_MAX_BYTES: usize = 64 * 1024;
/// Bytes that are drained from a half-closed connection.
const LINGER_MAX_BYTES: usize = 8 * 1024 * 1024;

/// One connection's socket.
pub struct Wire {
    socket: TokioIo<Socket>,
    activity: Arc<Activity>,
    /// Bytes that were read ahead.
    ahead: Vec<u8>,
    /// hyper waits for bytes, and will see the end of the stream itself.
    reads: bool,
    /// The last write was refused.
    stalls: bool,
    /// Bytes left to drain, once half-closed.
    linger: Option<usize>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").finish_non_exhaustive()
    }
}

impl Wire {
    pub(super) fn new(socket: Socket, activity: Arc<Activity>) -> Self {
        Self {
            socket: TokioIo::new(socket),
            activity,
            ahead: Vec::new(),
            reads: false,
            stalls: false,
            linger: None,
        }
    }

    /// The same bytes, with another activity.
    #[must_use]
    pub fn of(mut self, activity: Arc<Activity>) -> Self {
        self.activity = activity;
        self
    }

    /// Whether HTTP/2 was agreed on, or else the first bytes begin it; waits for them.
    ///
    /// # Errors
    /// If the socket is broken.
    pub async fn speaks_h2(&mut self) -> io::Result<bool> {
        if let Some(agreed) = self.socket.inner().agreed_on_h2() {
            return Ok(agreed);
        }
        while self.ahead.len() < H2_PREFACE_START.len() {
            let mut bytes = [0; H2_PREFACE_START.len()];
            let missing = &mut bytes[self.ahead.len()..];
            let socket = self.socket.inner().tcp();
            socket.readable().await?;
            let count = match socket.try_read(missing) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            self.ahead.extend_from_slice(&missing[..count]);
            if count == 0 || !H2_PREFACE_START.starts_with(&self.ahead) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads ahead behind the open request.
    fn look_ahead(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let mut chunk = [0; 512];
        while let Poll::Ready(count) = self.poll_chunk(cx, &mut chunk)? {
            if count == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the client disconnected",
                ));
            }
            if self.ahead.len() + count > AHEAD_MAX_BYTES {
                let detail = "too many bytes behind an open request";
                return Err(io::Error::new(io::ErrorKind::InvalidData, detail));
            }
            self.ahead.extend_from_slice(&chunk[..count]);
        }
        Ok(())
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>, chunk: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut chunk = ReadBuf::new(chunk);
        let socket = Pin::new(self.socket.inner_mut());
        ready!(socket.poll_read(cx, &mut chunk))?;
        Poll::Ready(Ok(chunk.filled().len()))
    }

    fn note(&mut self, written: &Poll<io::Result<usize>>) {
        let stalls = written.is_pending();
        if stalls != mem::replace(&mut self.stalls, stalls) {
            if stalls {
                self.activity.stalls();
            } else {
                self.activity.flows();
            }
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.activity.is_given_up() {
            // A reset: otherwise the kernel would go on sending what the client does not read. Fails on a broken socket
            // only.
            let _ = SockRef::from(self.socket.inner().tcp()).set_linger(Some(Duration::ZERO));
        }
    }
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            let polled = Pin::new(&mut self.socket).poll_read(cx, buffer);
            self.reads = polled.is_pending();
            return polled;
        }
        let count = buffer.remaining().min(self.ahead.len());
        let rest = self.ahead.split_off(count);
        buffer.put_slice(&mem::replace(&mut self.ahead, rest));
        self.reads = false;
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.note(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, slices);
        self.note(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    /// hyper flushes at the end of each poll, after it has read.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.reads && self.activity.streams().is_none() && self.activity.holds_a_request() {
            self.look_ahead(cx)?;
        }
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.socket).poll_shutdown(cx))?;
            self.linger = Some(LINGER_MAX_BYTES);
        }
        let mut chunk = [0; 4096];
        while let Some(left @ 1..) = self.linger {
            match self.poll_chunk(cx, &mut chunk) {
                Poll::Ready(Ok(count @ 1..)) => self.linger = Some(left.saturating_sub(count)),
                Poll::Pending if left < LINGER_MAX_BYTES || self.activity.body_is_unread() => {
                    if !self.activity.is_lingering() {
                        self.activity.linger();
                    }
                    return Poll::Pending;
                }
                Poll::Ready(_) | Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
