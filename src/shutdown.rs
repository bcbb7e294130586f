//! Signals and the shutdown sequence. The only listener for signals.
//!
//! | signal | meaning |
//! |---|---|
//! | SIGTERM, SIGINT (Ctrl-C), SIGQUIT | graceful shutdown; the second one, and one while the server opens, exits at once, with 128 plus its number |
//! | SIGHUP, a closed terminal | reload the configuration |
//! | SIGUSR1, SIGUSR2 | ignored |
//!
//! Held customers need baristas, so the listeners close one after the other:
//! 1. `/readyz` answers 503; the customers' listener stops accepting and closes its idle connections.
//! 2. With a shared line and another server, the connections of requests that came through a trusted proxy are closed without an
//!    answer: the proxy sends them there.
//! 3. The staff's listener serves until no request is held, or `shutdown.drain` is over.
//! 4. Requests still held are answered 503 with `Retry-After`; idle baristas 204.
//! 5. The staff's listener closes; answers being sent have [`FLUSH`] to finish. How they ended goes to a shared line.
//! 6. Message queues and the storage close, within [`CLOSE`] together.

use std::io;
use std::time::Duration;

use garde::Validate;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use crate::http::connection::Shutdown;
use crate::http::status::Readiness;
use crate::orders::Orders;
use crate::values::config::{text, within};

/// Time to send the last answers.
pub const FLUSH: Duration = Duration::from_secs(5);
/// Time for message queues and the storage to close.
pub const CLOSE: Duration = Duration::from_secs(10);
/// Interval between checks for held requests.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The section `shutdown`.
#[derive(Debug, Clone, Deserialize, Serialize, Validate)]
pub struct Config {
    #[serde(with = "text")]
    #[garde(custom(within("0s", "24h")))]
    pub drain: Duration,
}

/// The handled signals, and those whose default action would kill the process.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
    user_1: Signal,
    user_2: Signal,
    /// Whether one that stops the server was received.
    stopping: bool,
}

#[derive(Debug, Clone, Copy)]
pub enum SignalAction {
    /// Graceful shutdown.
    Stop(StopSignal),
    /// The second signal that stops the server: exit at once.
    Exit(StopSignal),
    /// Reload the configuration.
    Reload,
}

/// A signal that stops the server.
#[derive(Debug, Clone, Copy)]
pub struct StopSignal {
    pub name: &'static str,
    number: u8,
}

impl StopSignal {
    /// The exit code after this signal, as a shell reports it.
    pub fn exit_code(self) -> u8 {
        128 + self.number
    }
}

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    /// If a handler cannot be installed.
    pub fn take_over() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            user_1: signal(SignalKind::user_defined1())?,
            user_2: signal(SignalKind::user_defined2())?,
            stopping: false,
        })
    }

    /// What the next handled signal means. Cancel-safe.
    pub async fn next(&mut self) -> SignalAction {
        loop {
            let signal = tokio::select! {
                _ = self.terminate.recv() => return self.stop("SIGTERM", 15),
                _ = self.interrupt.recv() => return self.stop("SIGINT", 2),
                _ = self.quit.recv() => return self.stop("SIGQUIT", 3),
                _ = self.hangup.recv() => return SignalAction::Reload,
                _ = self.user_1.recv() => "SIGUSR1",
                _ = self.user_2.recv() => "SIGUSR2",
            };
            info!(signal, "a signal is ignored");
        }
    }

    fn stop(&mut self, name: &'static str, number: u8) -> SignalAction {
        let signal = StopSignal { name, number };
        if std::mem::replace(&mut self.stopping, true) {
            SignalAction::Exit(signal)
        } else {
            SignalAction::Stop(signal)
        }
    }
}

/// Tasks that run as long as the server. Each yields its name and result.
pub type Tasks = JoinSet<(&'static str, Result<(), JoinError>)>;

/// The parts that a shutdown stops.
#[derive(Debug)]
pub struct Stopping {
    /// Set first.
    pub readiness: Readiness,
    pub customers: Shutdown,
    pub staff: Shutdown,
    /// `shutdown.drain`.
    pub drain: watch::Receiver<Duration>,
}

impl Stopping {
    /// Runs steps 1 to 5.
    pub async fn shut_down(self, why: &str, orders: &Orders, listeners: &mut Tasks) {
        self.readiness.stop();
        self.customers.trigger();
        if orders.is_sound() {
            self.drain(why, orders).await;
        } else {
            error!("the order line is broken: the held customers cannot be served");
        }
        self.staff.trigger();
        let flushed = timeout(FLUSH, async {
            while listeners.join_next().await.is_some() {}
        });
        if flushed.await.is_err() {
            warn!("some connections did not close in time");
        }
        orders.flush().await;
    }

    async fn drain(&self, why: &str, orders: &Orders) {
        let handed_over = orders.hand_over().await;
        if handed_over > 0 {
            info!(handed_over, "the held requests continue at another server");
        }
        let held = orders.held();
        let drain = *self.drain.borrow();
        let drain_s = drain.as_secs();
        info!(
            signal = why,
            held, drain_s, "draining: no new customers; a second signal exits at once"
        );
        let served = timeout(drain, none_held(orders)).await.is_ok();
        let sent_away = orders.close();
        if !served && sent_away > 0 {
            warn!(
                sent_away,
                "`shutdown.drain` is over: the requests still held are answered 503"
            );
        }
    }
}

/// Waits for `closing` up to [`CLOSE`]; after that the process exits as in a crash.
pub async fn close(closing: impl Future<Output = ()>) {
    if timeout(CLOSE, closing).await.is_err() {
        let after_s = CLOSE.as_secs();
        warn!(
            after_s,
            "the storage did not close in time; acknowledged operations are durable"
        );
    } else {
        info!("closed");
    }
}

async fn none_held(orders: &Orders) {
    while orders.held() > 0 {
        sleep(POLL_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::Instant;

    use super::*;
    use crate::config::Config;

    #[tokio::test(start_paused = true)]
    async fn a_storage_that_never_closes_does_not_hold_up_the_end() {
        let began = Instant::now();
        close(pending()).await;
        assert_eq!(began.elapsed(), CLOSE);
        close(async {}).await;
        assert_eq!(began.elapsed(), CLOSE);
    }

    /// The seconds in a file, behind `key` and before `unit`.
    fn seconds(file: &str, key: &str, unit: &str) -> u64 {
        let lines = file.lines().map(str::trim);
        let mut values = lines.filter_map(|line| line.strip_prefix(key)?.strip_suffix(unit));
        values.next().unwrap().trim().parse().unwrap()
    }

    #[test]
    fn supervisors_wait_longer_than_going_down_takes() {
        let most = (Config::defaults().shutdown.drain + FLUSH + CLOSE).as_secs();
        let unit = include_str!("../packaging/systemd/odyssey.service");
        let compose = include_str!("../docker-compose.yml");
        for (what, waits) in [
            ("systemd", seconds(unit, "TimeoutStopSec=", "s")),
            ("compose", seconds(compose, "stop_grace_period:", "s")),
        ] {
            assert!(
                waits > most,
                "{what} kills after {waits} s, going down takes {most} s"
            );
        }
    }

    #[test]
    fn the_unit_sandboxes_the_server_and_knows_its_signals() {
        let unit = include_str!("../packaging/systemd/odyssey.service");
        for line in [
            "Type=notify",
            "ExecReload=/bin/kill -HUP $MAINPID",
            "KillSignal=SIGTERM",
            "DynamicUser=yes",
            "StateDirectory=odyssey",
            "ProtectSystem=strict",
            "NoNewPrivileges=yes",
            "CapabilityBoundingSet=",
            "SystemCallFilter=@system-service",
            "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
        ] {
            assert!(unit.lines().any(|found| found == line), "{line}");
        }
    }
}
