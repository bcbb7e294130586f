//! Going down: signals, one deadline, and the order in which things close. The only listener for signals.
//!
//! Held customers need baristas, so the two listeners cannot close together:
//! 1. `/readyz` says 503; the customers' listener stops accepting, idle connections there end.
//! 2. The staff's listener goes on until nobody is held, or `shutdown.drain` is over.
//! 3. Whoever is still held gets 503 with `Retry-After`; idle baristas get 204.
//! 4. The staff's listener closes too, and answers on their way get five seconds to leave.
//!
//! A second signal ends the process at once.

use std::io;
use std::process;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::http::connection::Stop;
use crate::http::status::Readiness;
use crate::orders::Orders;

/// How long answers may take to leave once everything is decided.
const FLUSH: Duration = Duration::from_secs(5);
/// How often it is looked whether anybody is still held.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The exit code after a second signal: 128 and SIGTERM's number, as a shell would report it.
const ENDED_AT_ONCE: i32 = 143;

/// The signals that stop the server.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes over SIGTERM and SIGINT from here on.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn take_over() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// What going down works with.
#[derive(Debug)]
pub struct Stopping {
    /// Told first.
    pub readiness: Readiness,
    /// Stops the customers' listener.
    pub customers: Stop,
    /// Stops the staff's listener.
    pub staff: Stop,
    /// How long held customers may still be served.
    pub drain: Duration,
}

impl Stopping {
    /// Waits for a signal, then closes everything in order. Returns when the process may end.
    pub async fn run(
        self,
        mut signals: Signals,
        orders: &Orders,
        customers: JoinHandle<()>,
        staff: JoinHandle<()>,
    ) {
        let name = signals.next().await;
        let orderly = self.go_down(name, orders, customers, staff);
        tokio::select! {
            () = orderly => info!("closed"),
            name = signals.next() => {
                warn!(signal = name, held = orders.figures().held, "a second signal: ending at once");
                process::exit(ENDED_AT_ONCE);
            }
        }
    }

    async fn go_down(
        self,
        signal: &'static str,
        orders: &Orders,
        customers: JoinHandle<()>,
        staff: JoinHandle<()>,
    ) {
        let held = orders.figures().held;
        info!(
            signal,
            held,
            drain_s = self.drain.as_secs(),
            "stopping: no new customers"
        );
        self.readiness.stop();
        self.customers.stop();
        let served = timeout(self.drain, nobody_is_held(orders)).await.is_ok();
        let sent_away = orders.close();
        if !served && sent_away > 0 {
            warn!(
                sent_away,
                "the drain is over: the customers still held are sent away"
            );
        }
        self.staff.stop();
        let flushed = timeout(FLUSH, async { tokio::join!(customers, staff) }).await;
        if flushed.is_err() {
            warn!("some connections did not end in time");
        }
    }
}

/// Returns once no request is held.
async fn nobody_is_held(orders: &Orders) {
    while orders.figures().held > 0 {
        sleep(LOOK_EVERY).await;
    }
}
