//! Pauses between tries.

use std::time::Duration;

/// Measured time between two tries when the shop is unwell: from the first to the second, doubling.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Pauses between tries, doubling up to a bound. Measured time: it is the shop here that needs the rest.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    tries: u32,
}

impl Backoff {
    pub(crate) fn next(&mut self) -> Duration {
        let pause = BACKOFF_FIRST.saturating_mul(1 << self.tries.min(16));
        self.tries += 1;
        pause.min(BACKOFF_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..8).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1600, 2000, 2000]);
    }
}
