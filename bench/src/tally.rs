//! The identity of a request for servers that do not give one: sixteen hexadecimal digits that travel with the work.
//!
//! The customer's number and a running number, so no two requests of a measurement are alike, and a result that
//! reaches the wrong customer, or the right one twice, is noticed.

use std::io::Write;

use anyhow::{Result, ensure};

/// The running number of one customer's requests.
pub(crate) struct Tally {
    current: u64,
    written: Vec<u8>,
}

impl Tally {
    /// The first request will be number one.
    pub(crate) fn new(customer: u32) -> Self {
        Tally {
            current: u64::from(customer) << 32,
            written: Vec::with_capacity(16),
        }
    }

    /// The next request's identity, as it is sent.
    pub(crate) fn next(&mut self) -> &[u8] {
        self.current += 1;
        self.written.clear();
        let written = write!(self.written, "{:016x}", self.current);
        debug_assert!(written.is_ok(), "a vector takes all that is written");
        &self.written
    }

    /// Accepts the outstanding request's identity and nothing else.
    pub(crate) fn expect(&self, result: &[u8]) -> Result<u128> {
        ensure!(
            result == self.written,
            "a customer was given somebody else's result"
        );
        Ok(u128::from(self.current))
    }

    /// The identity that came with some work.
    pub(crate) fn read(workload: &[u8]) -> Result<u128> {
        ensure!(workload.len() == 16, "the workload has changed on its way");
        Ok(u128::from_str_radix(str::from_utf8(workload)?, 16)?)
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn a_worker_reads_what_the_customer_wrote() {
        let mut tally = Tally::new(7);
        let first = Tally::read(tally.next()).unwrap();
        let second = Tally::read(tally.next()).unwrap();
        assert_eq!((first, second), (7 << 32 | 1, 7 << 32 | 2));
    }

    #[test]
    fn only_the_outstanding_identity_is_accepted() {
        let mut tally = Tally::new(1);
        let earlier = tally.next().to_vec();
        let current = tally.next().to_vec();
        assert!(tally.expect(&earlier).is_err());
        assert!(tally.expect(&current).is_ok());
        assert!(Tally::new(2).expect(&current).is_err());
    }
}
