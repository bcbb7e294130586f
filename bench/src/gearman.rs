//! Gearman's binary protocol: clients with foreground jobs, and workers.
//!
//! A packet is a magic word, a type and a length, four bytes each, and arguments with a zero byte between them. A
//! worker sends its result and its request for the next job in one write, as the measured server's `next` does.

use anyhow::{Context, Result, bail, ensure};

use crate::client::{Frame, Message, Received, Session, Turn};
use crate::ledger::Tally;
use crate::load::Load;

const REQUEST: &[u8] = b"\0REQ";
const RESPONSE: &[u8] = b"\0RES";
const HEAD_LEN: usize = 12;

const CAN_DO: u32 = 1;
const PRE_SLEEP: u32 = 4;
const NOOP: u32 = 6;
const SUBMIT_JOB: u32 = 7;
const JOB_CREATED: u32 = 8;
const GRAB_JOB: u32 = 9;
const NO_JOB: u32 = 10;
const JOB_ASSIGN: u32 = 11;
const WORK_COMPLETE: u32 = 13;

const FUNCTION: &[u8] = b"americano";

pub(crate) const JOBS: Load = Load {
    framing: first,
    listener: |server| server.customers,
    customer: |number, _| Box::new(Submitter(Tally::new(number))),
    worker: Some(|_| Box::new(Worker)),
    ..Load::HTTP
};

fn first(bytes: &[u8]) -> Result<Option<Frame>> {
    let Some(head) = bytes.first_chunk::<HEAD_LEN>() else {
        return Ok(None);
    };
    ensure!(
        head.starts_with(RESPONSE),
        "this is not a packet of gearmand's"
    );
    let end = HEAD_LEN + usize::try_from(word(&head[8..]))?;
    Ok((bytes.len() >= end).then_some((HEAD_LEN..end, end)))
}

/// The number in the first four bytes.
fn word(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .take(4)
        .fold(0, |number, &byte| number << 8 | u32::from(byte))
}

fn packet(out: &mut Vec<u8>, kind: u32, arguments: &[&[u8]]) {
    let separators = arguments.len().saturating_sub(1);
    let len = arguments
        .iter()
        .map(|argument| argument.len())
        .sum::<usize>()
        + separators;
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    out.extend_from_slice(REQUEST);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&len.to_be_bytes());
    for (at, argument) in arguments.iter().enumerate() {
        if at > 0 {
            out.push(0);
        }
        out.extend_from_slice(argument);
    }
}

/// Submits a foreground job, and waits for its result.
struct Submitter(Tally);

impl Session for Submitter {
    fn request(&mut self, out: &mut Vec<u8>) {
        // An empty unique id: no job is merged with another.
        packet(out, SUBMIT_JOB, &[FUNCTION, b"", &self.0.next()]);
    }

    fn receive(&mut self, message: Message, _: &mut Turn) -> Result<Received> {
        match word(&message.head[4..]) {
            JOB_CREATED => Ok(Received::Other),
            WORK_COMPLETE => self.0.expect(split(message.body)?.1),
            kind => bail!("a client received a packet of type {kind}"),
        }
    }
}

/// Grabs a job, returns its workload as its result, grabs the next; sleeps when there is none.
struct Worker;

impl Session for Worker {
    fn connected(&mut self, turn: &mut Turn) {
        turn.ledger.ready += 1;
        packet(turn.out, CAN_DO, &[FUNCTION]);
        packet(turn.out, GRAB_JOB, &[]);
    }

    fn receive(&mut self, message: Message, turn: &mut Turn) -> Result<Received> {
        match word(&message.head[4..]) {
            JOB_ASSIGN => {
                let (handle, rest) = split(message.body)?;
                let (_function, workload) = split(rest)?;
                turn.ledger.finish(Tally::read(workload)?, false);
                packet(turn.out, WORK_COMPLETE, &[handle, workload]);
                packet(turn.out, GRAB_JOB, &[]);
            }
            NO_JOB => packet(turn.out, PRE_SLEEP, &[]),
            NOOP => packet(turn.out, GRAB_JOB, &[]),
            kind => bail!("a worker received a packet of type {kind}"),
        }
        Ok(Received::Other)
    }
}

/// The first argument and what follows it.
fn split(arguments: &[u8]) -> Result<(&[u8], &[u8])> {
    let at = memchr::memchr(0, arguments).context("a packet with too few arguments")?;
    Ok((&arguments[..at], &arguments[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::tests::frames_are_found_at_every_split;

    fn response(kind: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        packet(&mut bytes, kind, &[body]);
        bytes[..4].copy_from_slice(RESPONSE);
        bytes
    }

    #[test]
    fn packets_are_found_however_they_arrive() {
        let stream = [
            response(NO_JOB, b""),
            response(JOB_CREATED, b"H:1"),
            response(WORK_COMPLETE, b"H:1\0\0RES"),
        ];
        let bodies: [&[u8]; 3] = [b"", b"H:1", b"H:1\0\0RES"];
        frames_are_found_at_every_split(first, &stream.concat(), &bodies);
        assert!(first(b"ERR unknown_command").is_err());
    }
}
