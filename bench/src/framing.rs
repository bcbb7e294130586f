//! Where one message ends and the next begins.
//!
//! The protocols differ for the client in this alone: given the bytes that have arrived, is a whole message
//! there, and which part of it is the body. Everything else the client does is the same for all of them.

use std::ops::Range;

use anyhow::Result;

use crate::{gearman, http, nats, redis};

/// A protocol's way to mark the end of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// HTTP/1.1 responses whose length is announced.
    Http,
    /// Gearman's binary packets.
    Gearman,
    /// NATS's text protocol.
    Nats,
    /// Redis' protocol, RESP2, as far as it answers one entry at a time.
    Redis,
}

/// The extent of the first whole message in some bytes. What stands before the body is the head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Where the body is.
    pub(crate) body: Range<usize>,
    /// Where the next message begins.
    pub(crate) end: usize,
}

impl Framing {
    /// The first message in `bytes`, or nothing yet if more must arrive.
    pub(crate) fn first(self, bytes: &[u8]) -> Result<Option<Frame>> {
        match self {
            Framing::Http => http::first(bytes),
            Framing::Gearman => gearman::first(bytes),
            Framing::Nats => nats::first(bytes),
            Framing::Redis => redis::first(bytes),
        }
    }
}

/// What every framing is held to, whatever its protocol.
#[cfg(test)]
pub(crate) mod contract {
    use super::Framing;

    /// Cuts `stream` in two at every byte, and also into single bytes, and expects the same `bodies` each time.
    pub(crate) fn holds_at_every_split(framing: Framing, stream: &[u8], bodies: &[&[u8]]) {
        for cut in 0..=stream.len() {
            assert_eq!(
                read(framing, &[&stream[..cut], &stream[cut..]]),
                bodies,
                "cut at {cut}"
            );
        }
        let single: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(read(framing, &single), bodies, "byte by byte");
    }

    fn read(framing: Framing, pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut arrived = Vec::new();
        let mut bodies = Vec::new();
        for piece in pieces {
            arrived.extend_from_slice(piece);
            while let Some(frame) = framing.first(&arrived).unwrap() {
                bodies.push(arrived[frame.body.clone()].to_vec());
                arrived.drain(..frame.end);
            }
        }
        assert!(arrived.is_empty(), "{} bytes left over", arrived.len());
        bodies
    }
}
