//! A socket whose owner is slow: one byte, a pause, one byte, as an attacker does who wants to keep a server
//! busy at little cost.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

/// What ends a request's header.
const HEADER_END: &[u8] = b"\r\n\r\n";

/// What is done slowly. The rest goes at full speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slow {
    /// The whole request, its header first.
    Header,
    /// What follows the first header.
    Body,
    /// Reading.
    Read,
}

/// A stream of which one direction dribbles. For one request; a second one would all count as body.
#[derive(Debug)]
pub(crate) struct Dribble<S> {
    stream: S,
    reads: Option<Drip>,
    writes: Option<Drip>,
    /// Whether a header is still to be written at full speed.
    header_first: bool,
}

impl<S> Dribble<S> {
    pub(crate) fn new(stream: S, slow: Slow, pause: Duration) -> Self {
        let drip = || Some(Drip::new(pause));
        Self {
            stream,
            reads: if slow == Slow::Read { drip() } else { None },
            writes: if slow == Slow::Read { None } else { drip() },
            header_first: slow == Slow::Body,
        }
    }
}

/// One byte at a time, with a pause after each.
#[derive(Debug)]
struct Drip {
    pause: Duration,
    pausing: Pin<Box<Sleep>>,
}

impl Drip {
    fn new(pause: Duration) -> Self {
        Self {
            pause,
            pausing: Box::pin(sleep(Duration::ZERO)),
        }
    }

    fn poll_pause(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.pausing.as_mut().poll(context)
    }

    fn dripped(&mut self) {
        let until = Instant::now() + self.pause;
        self.pausing.as_mut().reset(until);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Dribble<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, reads, .. } = &mut *self;
        let Some(drip) = reads else {
            return Pin::new(stream).poll_read(context, buffer);
        };
        ready!(drip.poll_pause(context));
        let mut byte = [0];
        let mut one = ReadBuf::new(&mut byte);
        ready!(Pin::new(stream).poll_read(context, &mut one))?;
        buffer.put_slice(one.filled());
        drip.dripped();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Dribble<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self {
            stream,
            writes,
            header_first,
            ..
        } = &mut *self;
        let Some(drip) = writes else {
            return Pin::new(stream).poll_write(context, bytes);
        };
        if *header_first {
            let end = bytes
                .windows(HEADER_END.len())
                .position(|window| window == HEADER_END)
                .map_or(bytes.len(), |start| start + HEADER_END.len());
            let written = ready!(Pin::new(stream).poll_write(context, &bytes[..end]))?;
            *header_first = !bytes[..written].ends_with(HEADER_END);
            return Poll::Ready(Ok(written));
        }
        ready!(drip.poll_pause(context));
        let one = &bytes[..bytes.len().min(1)];
        let written = ready!(Pin::new(stream).poll_write(context, one))?;
        drip.dripped();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const PAUSE: Duration = Duration::from_secs(1);
    const REQUEST: &[u8] = b"POST /order/ HTTP/1.1\r\n\r\nbody";

    /// Whole seconds until the request has been written and an answer of three bytes been read.
    async fn seconds(slow: Slow) -> (u64, u64) {
        let (near, mut far) = duplex(1024);
        let mut near = Dribble::new(near, slow, PAUSE);
        let begun = Instant::now();
        near.write_all(REQUEST).await.unwrap();
        let written = begun.elapsed().as_secs();
        let mut received = vec![0; REQUEST.len()];
        far.read_exact(&mut received).await.unwrap();
        assert_eq!(received, REQUEST);
        far.write_all(b"200").await.unwrap();
        let begun = Instant::now();
        near.read_exact(&mut [0; 3]).await.unwrap();
        (written, begun.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_is_slow_dribbles() {
        let all = u64::try_from(REQUEST.len()).unwrap();
        // There is no pause after the last byte.
        assert_eq!(seconds(Slow::Header).await, (all - 1, 0));
        assert_eq!(seconds(Slow::Body).await, (3, 0));
        assert_eq!(seconds(Slow::Read).await, (0, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_is_noticed_however_slowly_one_reads() {
        let (near, far) = duplex(1024);
        drop(far);
        let mut near = Dribble::new(near, Slow::Read, PAUSE);
        assert_eq!(near.read(&mut [0; 8]).await.unwrap(), 0);
    }
}
