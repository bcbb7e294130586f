//! The books of one measurement: what was asked, what was answered, by whom it was done.
//!
//! A fast answer that is wrong counts for nothing, so every party enters what it saw, and [`Ledger::balance`] refuses
//! a measurement in which the entries of customers and workers disagree. The books are plain numbers during the
//! measurement and are compared only after it, so that checking costs the client next to nothing.

use anyhow::{Result, ensure};

/// What the parties of one measurement have entered.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// While open, a customer who was answered asks again.
    pub(crate) open: bool,
    /// While holding, a worker keeps the work it was given to itself.
    pub(crate) holding: bool,
    /// Workers that can be given work.
    pub(crate) ready: usize,
    placed: u64,
    answers: u64,
    unconfirmed: u64,
    answered: Vec<u128>,
    finished: Vec<u128>,
}

impl Ledger {
    /// Empty books.
    pub(crate) fn new() -> Self {
        Ledger {
            open: false,
            holding: false,
            ready: 0,
            placed: 0,
            answers: 0,
            unconfirmed: 0,
            answered: Vec::new(),
            finished: Vec::new(),
        }
    }

    /// A customer has asked.
    pub(crate) fn place(&mut self) {
        self.placed += 1;
    }

    /// A customer was answered with an identity.
    pub(crate) fn answer(&mut self, identity: u128) {
        self.answers += 1;
        self.answered.push(identity);
    }

    /// A customer received the answer that all customers get.
    pub(crate) fn answer_alike(&mut self) {
        self.answers += 1;
    }

    /// A worker has reported work as done, and nothing will confirm it but the customer's answer.
    pub(crate) fn finish(&mut self, identity: u128) {
        self.finished.push(identity);
    }

    /// A worker has reported work as done and is owed a confirmation.
    pub(crate) fn finish_unconfirmed(&mut self, identity: u128) {
        self.finished.push(identity);
        self.unconfirmed += 1;
    }

    /// The confirmation has come.
    pub(crate) fn confirm(&mut self) {
        self.unconfirmed -= 1;
    }

    /// Customers' answers so far.
    pub(crate) fn answers(&self) -> u64 {
        self.answers
    }

    /// Work reported as done so far.
    pub(crate) fn finished(&self) -> usize {
        self.finished.len()
    }

    /// Whether every customer who asked was answered.
    pub(crate) fn everybody_answered(&self) -> bool {
        self.answers == self.placed
    }

    /// Whether no worker is owed a confirmation.
    pub(crate) fn everything_confirmed(&self) -> bool {
        self.unconfirmed == 0
    }

    /// The counts in one line, for the error when a wait times out.
    pub(crate) fn summary(&self) -> String {
        format!(
            "{} placed, {} answered, {} unconfirmed",
            self.placed, self.answers, self.unconfirmed
        )
    }

    /// The identities of all work reported as done, in order.
    pub(crate) fn into_finished(mut self) -> Vec<u128> {
        self.finished.sort_unstable();
        self.finished
    }

    /// Closes the books: one answer for every question, no two answers alike, and the customers' answers are exactly
    /// the work that was reported as done. Answers that are alike by intent are only counted.
    pub(crate) fn balance(mut self) -> Result<()> {
        ensure!(self.answers > 0, "nobody was answered");
        ensure!(
            self.everybody_answered(),
            "{} were placed but {} answered",
            self.placed,
            self.answers
        );
        ensure!(
            self.everything_confirmed(),
            "{} reports of finished work were not confirmed",
            self.unconfirmed
        );
        self.answered.sort_unstable();
        self.finished.sort_unstable();
        ensure!(
            self.answered.windows(2).all(|pair| pair[0] != pair[1]),
            "two customers were given the same identity"
        );
        ensure!(
            self.answered == self.finished,
            "customers were given {} identities, workers finished {}, and they are not the same",
            self.answered.len(),
            self.finished.len()
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Ledger;

    fn served(identities: &[u128]) -> Ledger {
        let mut ledger = Ledger::new();
        for &identity in identities {
            ledger.place();
            ledger.finish(identity);
            ledger.answer(identity);
        }
        ledger
    }

    #[test]
    fn books_in_which_all_agree_balance() {
        served(&[3, 1, 2]).balance().unwrap();
    }

    #[test]
    fn an_unanswered_customer_is_noticed() {
        let mut ledger = served(&[1]);
        ledger.place();
        assert!(ledger.balance().is_err());
    }

    #[test]
    fn one_identity_given_twice_is_noticed() {
        assert!(served(&[1, 1]).balance().is_err());
    }

    #[test]
    fn work_nobody_was_answered_for_is_noticed() {
        let mut ledger = served(&[1]);
        ledger.finish(2);
        assert!(ledger.balance().is_err());
    }

    #[test]
    fn a_missing_confirmation_is_noticed() {
        let mut ledger = served(&[1]);
        ledger.place();
        ledger.finish_unconfirmed(2);
        ledger.answer(2);
        assert!(ledger.balance().is_err());
    }

    #[test]
    fn a_measurement_without_any_answer_is_noticed() {
        assert!(Ledger::new().balance().is_err());
    }
}
