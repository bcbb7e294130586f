//! How many customers a server answers per second under full load.
//!
//! All parties connect and keep their connections. After a warm-up the answers within the window are counted. Then
//! the books are closed: who is still waiting is answered, who is owed a confirmation gets it, and only balanced
//! books make a measurement.

use std::net::Ipv4Addr;
use std::ops::{AddAssign, Div};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::time::{ClockId, clock_gettime};

use crate::client::{Client, Crew};
use crate::machine::time_on_processor;

/// For what should take milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a confirmation that is on its way may take before a worker is thought to be waiting for work.
const ON_ITS_WAY: Duration = Duration::from_millis(5);
const NUDGES_MAX: u32 = 1000;

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Before anything is counted.
    pub(crate) warm_up: Duration,
    /// While it is counted.
    pub(crate) window: Duration,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Speed {
    /// Answers to customers.
    pub(crate) answers_per_second: f64,
    /// The share of one core that the client used. Near 1, the client was the limit and not the server.
    pub(crate) client_busy: f64,
    /// Processor time of the server per second, in seconds.
    pub(crate) server_busy: f64,
}

impl Speed {
    /// The server's processor time per answer, in nanoseconds.
    pub(crate) fn server_nanoseconds(self) -> f64 {
        self.server_busy * 1e9 / self.answers_per_second
    }
}

impl AddAssign for Speed {
    fn add_assign(&mut self, other: Self) {
        self.answers_per_second += other.answers_per_second;
        self.client_busy += other.client_busy;
        self.server_busy += other.server_busy;
    }
}

impl Div<f64> for Speed {
    type Output = Self;

    fn div(self, count: f64) -> Self {
        Speed {
            answers_per_second: self.answers_per_second / count,
            client_busy: self.client_busy / count,
            server_busy: self.server_busy / count,
        }
    }
}

/// Measures one crew at its server, which has this process id.
pub(crate) fn measure(crew: Crew, server: u32, pace: Pace) -> Result<Speed> {
    let mut client = Client::new(crew.framing)?;
    client.ledger.open = true;
    let (address, workers) = crew.workers;
    let first_customer = workers.len();
    for talk in workers {
        client.connect(Ipv4Addr::LOCALHOST, address, talk)?;
    }
    client.run_while(PATIENCE, |ledger| ledger.ready < first_customer)?;
    let (address, customers) = crew.customers;
    for talk in customers {
        client.visit(crew.visit, Ipv4Addr::LOCALHOST, address, talk)?;
    }

    client.run_until(Instant::now() + pace.warm_up)?;
    let used = time_on_processor(server)?;
    let (begin, answers, worked) = (Instant::now(), client.ledger.answers(), own_time());
    client.run_until(begin + pace.window)?;
    let (elapsed, worked) = (
        begin.elapsed().as_secs_f64(),
        own_time().saturating_sub(worked),
    );
    let used = time_on_processor(server)?.saturating_sub(used);
    let answers = u32::try_from(client.ledger.answers() - answers)?;

    last_orders(&mut client, first_customer)?;
    client.ledger.balance()?;
    Ok(Speed {
        answers_per_second: f64::from(answers) / elapsed,
        client_busy: worked.as_secs_f64() / elapsed,
        server_busy: used.as_secs_f64() / elapsed,
    })
}

/// Has all parties receive what they are owed. A worker may be waiting for a confirmation that only comes together with
/// the next order; then a customer orders once more.
fn last_orders(client: &mut Client, customer: usize) -> Result<()> {
    client.ledger.open = false;
    for _ in 0..NUDGES_MAX {
        client.run_while(PATIENCE, |ledger| !ledger.everybody_answered())?;
        if !client.ledger.everything_confirmed() {
            client.run_until(Instant::now() + ON_ITS_WAY)?;
        }
        if client.ledger.everything_confirmed() {
            return Ok(());
        }
        client.nudge(customer)?;
    }
    bail!("confirmations stay out: {}", client.ledger.summary())
}

/// Processor time of this thread.
fn own_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.try_into().unwrap_or(0),
        time.tv_nsec.try_into().unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use super::Speed;

    #[test]
    fn an_answers_time_is_its_share_of_the_servers() {
        let speed = Speed {
            answers_per_second: 50_000.0,
            client_busy: 1.0,
            server_busy: 0.5,
        };
        assert!((speed.server_nanoseconds() - 10_000.0).abs() < 1e-6);
        let mut sum = speed;
        sum += speed;
        assert!(((sum / 2.0).server_nanoseconds() - 10_000.0).abs() < 1e-6);
    }
}
