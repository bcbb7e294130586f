//! Signals, and the order in which things close. The only listener for signals.
//!
//! | signal | meaning |
//! |---|---|
//! | SIGTERM, SIGINT (Ctrl-C), SIGQUIT | stop in order; the second one ends the process at once, with 128 and its number |
//! | SIGHUP, a closed terminal | reload the configuration |
//! | SIGUSR1, SIGUSR2 | ignored |
//!
//! Held customers need baristas, so the two listeners cannot close together:
//! 1. `/readyz` says 503; the customers' listener stops accepting, idle connections there end.
//! 2. The staff's listener goes on until nobody is held, or `shutdown.drain` is over.
//! 3. Whoever is still held gets 503 with `Retry-After`; idle baristas get 204.
//! 4. The staff's listener closes too, and answers on their way get [`FLUSH`] to leave.
//! 5. Messages and the storage close, within [`CLOSE`] together.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use crate::http::connection::Shutdown;
use crate::http::status::Readiness;
use crate::orders::Orders;

/// How long answers may take to leave once everything is decided.
pub const FLUSH: Duration = Duration::from_secs(5);
/// How long messages and the storage may take to close.
pub const CLOSE: Duration = Duration::from_secs(10);
/// How often it is looked whether anybody is still held.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The signals that have a meaning here, and those whose default is to kill.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
    user_1: Signal,
    user_2: Signal,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy)]
pub enum Asked {
    /// An orderly end.
    Stop(StopSignal),
    /// The configuration, read again.
    Reload,
}

/// A signal that stops the server.
#[derive(Debug, Clone, Copy)]
pub struct StopSignal {
    /// Its name.
    pub name: &'static str,
    number: u8,
}

impl StopSignal {
    /// The exit code of a process that ends because of it, as a shell reports it.
    pub fn exit_code(self) -> u8 {
        128 + self.number
    }
}

impl Signals {
    /// Takes the signals over from here on.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn take_over() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            user_1: signal(SignalKind::user_defined1())?,
            user_2: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next signal that asks for something. No signal is lost if the future is dropped.
    pub async fn next(&mut self) -> Asked {
        let stop = |name, number| Asked::Stop(StopSignal { name, number });
        loop {
            let signal = tokio::select! {
                _ = self.terminate.recv() => return stop("SIGTERM", 15),
                _ = self.interrupt.recv() => return stop("SIGINT", 2),
                _ = self.quit.recv() => return stop("SIGQUIT", 3),
                _ = self.hangup.recv() => return Asked::Reload,
                _ = self.user_1.recv() => "SIGUSR1",
                _ = self.user_2.recv() => "SIGUSR2",
            };
            info!(signal, "a signal is ignored: it has no meaning here");
        }
    }
}

/// Tasks that serve as long as the server does. Each yields its name, and how it ended.
pub type Tasks = JoinSet<(&'static str, Result<(), JoinError>)>;

/// What going down works with.
#[derive(Debug)]
pub struct Stopping {
    /// Told first.
    pub readiness: Readiness,
    /// Stops the customers' listener.
    pub customers: Shutdown,
    /// Stops the staff's listener.
    pub staff: Shutdown,
    /// How long held customers may still be served.
    pub drain: watch::Receiver<Duration>,
}

impl Stopping {
    /// Closes both listeners in order.
    pub async fn go_down(self, why: &str, orders: &Orders, listeners: &mut Tasks) {
        self.readiness.stop();
        self.customers.trigger();
        if orders.is_sound() {
            self.drain(why, orders).await;
        } else {
            error!("the order line is broken: the customers still held get no coffee");
        }
        self.staff.trigger();
        let flushed = timeout(FLUSH, async {
            while listeners.join_next().await.is_some() {}
        });
        if flushed.await.is_err() {
            warn!("some connections did not end in time");
        }
    }

    async fn drain(&self, why: &str, orders: &Orders) {
        let held = orders.figures().held;
        let drain = *self.drain.borrow();
        let drain_s = drain.as_secs();
        info!(
            signal = why,
            held, drain_s, "stopping: no new customers; a second signal ends it at once"
        );
        let served = timeout(drain, nobody_is_held(orders)).await.is_ok();
        let sent_away = orders.close();
        if !served && sent_away > 0 {
            warn!(
                sent_away,
                "the drain is over: the customers still held are sent away"
            );
        }
    }
}

/// Lets `closing` take as long as [`CLOSE`]; what is not closed then ends with the process, as in a crash.
pub async fn close(closing: impl Future<Output = ()>) {
    if timeout(CLOSE, closing).await.is_err() {
        let after_s = CLOSE.as_secs();
        warn!(
            after_s,
            "the storage did not close in time; acknowledged operations are safe all the same"
        );
    } else {
        info!("closed");
    }
}

/// Returns once no request is held.
async fn nobody_is_held(orders: &Orders) {
    while orders.figures().held > 0 {
        sleep(LOOK_EVERY).await;
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
