//! A connection whose owner is slow: one byte, a pause, one byte, as an attacker does who wants to keep a server busy at
//! little cost.

use std::{io, time::Duration};

use tokio::{
    io::{
        AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, duplex, split,
    },
    net::TcpStream,
    time::sleep,
};

/// What ends a request's header.
const HEADER_END: &[u8] = b"\r\n\r\n";
/// Bytes that the two sides may be apart.
const BUFFER_BYTES: usize = 1;

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

/// A stream to the other side of this one, with a pause after each byte of what is slow. The connection ends as soon as
/// the stream is dropped or the server has closed it.
pub(crate) fn dribbled(server: TcpStream, slow: Slow, pause: Duration) -> DuplexStream {
    let (near, far) = duplex(BUFFER_BYTES);
    tokio::spawn(async move {
        let (from_client, to_client) = split(far);
        let (from_server, to_server) = split(server);
        let (sends, reads) = match slow {
            Slow::Header => (Some(&b""[..]), None),
            Slow::Body => (Some(HEADER_END), None),
            Slow::Read => (None, Some(&b""[..])),
        };
        tokio::select! {
            _ = pump(from_client, to_server, sends, pause) => {}
            _ = pump(from_server, to_client, reads, pause) => {}
        }
    });
    near
}

/// Copies byte by byte until the end, slowly once this has been copied.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    slow_after: Option<&[u8]>,
    pause: Duration,
) -> io::Result<()> {
    let mut copied = Vec::new();
    loop {
        let byte = from.read_u8().await?;
        to.write_all(&[byte]).await?;
        let Some(mark) = slow_after else { continue };
        if copied.ends_with(mark) {
            sleep(pause).await;
        } else {
            copied.push(byte);
        }
    }
}
