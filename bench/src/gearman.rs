//! Gearman's binary protocol: clients with foreground jobs, and workers.
//!
//! A packet is a magic word, a type and a length, four bytes each, and arguments with a zero byte between them. A
//! worker sends its result and its wish for the next job in one write, as the measured server's `next` does.

use anyhow::{Context, Result, bail, ensure};

use crate::client::Talk;
use crate::framing::Frame;
use crate::ledger::Ledger;
use crate::tally::Tally;

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

/// What the workers can do.
const FUNCTION: &[u8] = b"americano";

/// The first packet in `bytes`.
pub(crate) fn first(bytes: &[u8]) -> Result<Option<Frame>> {
    let Some(head) = bytes.first_chunk::<HEAD_LEN>() else {
        return Ok(None);
    };
    ensure!(
        head.starts_with(RESPONSE),
        "this is not a packet of gearmand's"
    );
    let end = HEAD_LEN + usize::try_from(word(&head[8..]))?;
    Ok((bytes.len() >= end).then_some(Frame {
        body: HEAD_LEN..end,
        end,
    }))
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

/// Submits a foreground job, waits for its result, submits the next.
pub(crate) struct Submitter {
    tally: Tally,
}

impl Submitter {
    /// The client with this number; no two have the same.
    pub(crate) fn new(number: u32) -> Self {
        Submitter {
            tally: Tally::new(number),
        }
    }
}

impl Talk for Submitter {
    fn open(&mut self, ledger: &mut Ledger, out: &mut Vec<u8>) {
        ledger.place();
        // An empty unique id: no job is merged with another.
        packet(out, SUBMIT_JOB, &[FUNCTION, b"", self.tally.next()]);
    }

    fn receive(
        &mut self,
        head: &[u8],
        body: &[u8],
        ledger: &mut Ledger,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        match word(&head[4..]) {
            JOB_CREATED => Ok(()),
            WORK_COMPLETE => {
                let (_handle, result) = split(body)?;
                ledger.answer(self.tally.expect(result)?);
                if ledger.open {
                    self.open(ledger, out);
                }
                Ok(())
            }
            kind => bail!("a client was sent a packet of type {kind}"),
        }
    }
}

/// Grabs a job, reports what it was given as its result, grabs the next; sleeps when there is none.
pub(crate) struct Worker;

impl Talk for Worker {
    fn open(&mut self, ledger: &mut Ledger, out: &mut Vec<u8>) {
        ledger.ready += 1;
        packet(out, CAN_DO, &[FUNCTION]);
        packet(out, GRAB_JOB, &[]);
    }

    fn receive(
        &mut self,
        head: &[u8],
        body: &[u8],
        ledger: &mut Ledger,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        match word(&head[4..]) {
            JOB_ASSIGN => {
                let (handle, rest) = split(body)?;
                let (_function, workload) = split(rest)?;
                ledger.finish(Tally::read(workload)?);
                packet(out, WORK_COMPLETE, &[handle, workload]);
                packet(out, GRAB_JOB, &[]);
            }
            NO_JOB => packet(out, PRE_SLEEP, &[]),
            NOOP => packet(out, GRAB_JOB, &[]),
            kind => bail!("a worker was sent a packet of type {kind}"),
        }
        Ok(())
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
    use crate::framing::{Framing, contract};

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
        ]
        .concat();
        contract::holds_at_every_split(Framing::Gearman, &stream, &[b"", b"H:1", b"H:1\0\0RES"]);
    }

    #[test]
    fn what_is_no_packet_is_refused() {
        assert!(first(b"ERR unknown_command").is_err());
    }

    #[test]
    fn arguments_are_separated_but_not_terminated() {
        let mut out = Vec::new();
        packet(&mut out, SUBMIT_JOB, &[b"f", b"", b"data"]);
        assert_eq!(out, b"\0REQ\0\0\0\x07\0\0\0\x07f\0\0data");
    }

    #[test]
    fn a_worker_reports_and_asks_in_one_write() {
        let mut ledger = Ledger::new();
        let mut out = Vec::new();
        let mut submitter = Submitter::new(3);
        submitter.open(&mut ledger, &mut out);
        let workload = out[out.len() - 16..].to_vec();
        out.clear();

        let assigned = [b"H:1\0americano\0", &workload[..]].concat();
        Worker
            .receive(
                &response(JOB_ASSIGN, b"")[..HEAD_LEN],
                &assigned,
                &mut ledger,
                &mut out,
            )
            .unwrap();
        let mut expected = Vec::new();
        packet(&mut expected, WORK_COMPLETE, &[b"H:1", &workload]);
        packet(&mut expected, GRAB_JOB, &[]);
        assert_eq!(out, expected);

        let result = [b"H:1\0", &workload[..]].concat();
        submitter
            .receive(
                &response(WORK_COMPLETE, b"")[..HEAD_LEN],
                &result,
                &mut ledger,
                &mut Vec::new(),
            )
            .unwrap();
        ledger.balance().unwrap();
    }
}
