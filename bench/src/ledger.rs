//! The ledger of one measurement: what was requested, what was answered, and which worker did it.
//!
//! A fast answer that is wrong counts for nothing, so every session records what it saw, and [`Ledger::balance`] rejects
//! a measurement in which the records of clients and workers disagree. They are compared only after the measurement, so
//! that checking costs the client next to nothing.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::client::Received;

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// While open, a client that was answered sends its next request.
    pub(crate) open: bool,
    /// While holding, a worker that is pushed work does not answer it.
    pub(crate) holding: bool,
    /// Workers that can receive work.
    pub(crate) ready: u32,
    pub(crate) placed: u64,
    pub(crate) answers: u64,
    /// Of the answers to clients that measure them.
    pub(crate) latencies: Vec<Duration>,
    unconfirmed: u64,
    answered: Vec<u128>,
    finished: Vec<u128>,
}

impl Ledger {
    /// Records what a client received; says whether that was the answer to its request.
    pub(crate) fn received(&mut self, received: Received) -> bool {
        match received {
            Received::Other => return false,
            Received::Answer => {}
            Received::Identity(identity) => self.answered.push(identity),
        }
        self.answers += 1;
        true
    }

    /// A worker has reported work as done. With `confirmed`, the server owes it a confirmation.
    pub(crate) fn finish(&mut self, identity: u128, confirmed: bool) {
        self.finished.push(identity);
        self.unconfirmed += u64::from(confirmed);
    }

    pub(crate) fn confirm(&mut self) {
        self.unconfirmed -= 1;
    }

    pub(crate) fn finished(&self) -> usize {
        self.finished.len()
    }

    /// The identities of all finished work, in order.
    pub(crate) fn into_finished(mut self) -> Vec<u128> {
        self.finished.sort_unstable();
        self.finished
    }

    pub(crate) fn all_answered(&self) -> bool {
        self.answers == self.placed
    }

    pub(crate) fn all_confirmed(&self) -> bool {
        self.unconfirmed == 0
    }

    pub(crate) fn summary(&self) -> String {
        let Ledger {
            placed,
            answers,
            unconfirmed,
            ..
        } = self;
        format!("{placed} requests, {answers} answers, {unconfirmed} unconfirmed")
    }

    /// One answer for every request, no two answers alike, and the clients' answers are exactly the work that workers
    /// reported as done. Answers without an identity are only counted.
    pub(crate) fn balance(mut self) -> Result<()> {
        let complete = self.answers > 0 && self.all_answered() && self.all_confirmed();
        ensure!(
            complete,
            "the measurement is incomplete: {}",
            self.summary()
        );
        self.answered.sort_unstable();
        self.finished.sort_unstable();
        let unique = self.answered.windows(2).all(|pair| pair[0] != pair[1]);
        ensure!(unique, "two clients were given the same identity");
        ensure!(
            self.answered == self.finished,
            "clients received {} identities, workers finished {}, and they are not the same",
            self.answered.len(),
            self.finished.len()
        );
        Ok(())
    }
}

/// The identity of requests to servers that give none: sixteen hexadecimal digits that travel with the work.
pub(crate) struct Tally(u64);

impl Tally {
    /// The client's number and a running number, so that no two requests of a measurement are alike.
    pub(crate) fn new(client: u32) -> Self {
        Tally(u64::from(client) << 32)
    }

    pub(crate) fn next(&mut self) -> [u8; 16] {
        self.0 += 1;
        let mut digits = *b"0123456789abcdef";
        let hex = digits;
        for (digit, &byte) in digits.chunks_exact_mut(2).zip(self.0.to_be_bytes().iter()) {
            digit.copy_from_slice(&[hex[usize::from(byte >> 4)], hex[usize::from(byte & 15)]]);
        }
        digits
    }

    /// Accepts the identity of the open request and nothing else.
    pub(crate) fn expect(&self, result: &[u8]) -> Result<Received> {
        let identity = Self::read(result)?;
        ensure!(
            identity == u128::from(self.0),
            "a client received another client's result"
        );
        Ok(Received::Identity(identity))
    }

    pub(crate) fn read(workload: &[u8]) -> Result<u128> {
        ensure!(workload.len() == 16, "the workload was changed on its way");
        Ok(u128::from_str_radix(str::from_utf8(workload)?, 16)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(identities: &[u128]) -> Ledger {
        let mut ledger = Ledger::default();
        for &identity in identities {
            ledger.placed += 1;
            ledger.finish(identity, false);
            ledger.received(Received::Identity(identity));
        }
        ledger
    }

    #[test]
    fn records_that_agree_balance() {
        served(&[3, 1, 2]).balance().unwrap();
    }

    #[test]
    fn records_that_disagree_do_not_balance() {
        let wrong: [fn(&mut Ledger); 4] = [
            |unanswered| unanswered.placed += 1,
            |unclaimed| unclaimed.finish(2, false),
            |unconfirmed| unconfirmed.unconfirmed += 1,
            |empty| *empty = Ledger::default(),
        ];
        for wrong in wrong {
            let mut ledger = served(&[1]);
            wrong(&mut ledger);
            assert!(ledger.balance().is_err());
        }
        assert!(served(&[1, 1]).balance().is_err());
    }

    #[test]
    fn only_the_identity_of_the_open_request_is_accepted() {
        let mut tally = Tally::new(1);
        let (earlier, current) = (tally.next(), tally.next());
        assert_eq!(Tally::read(&current).unwrap(), 1 << 32 | 2);
        assert!(tally.expect(&earlier).is_err());
        assert!(tally.expect(&current).is_ok());
        assert!(Tally::new(2).expect(&current).is_err());
    }
}
