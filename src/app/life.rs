//! The server process: the runtime; open, serve, reload, shut down. What blocks is done on other threads, so that signals are
//! received in every phase.

use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Instant;

use anyhow::Context;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use super::reload::Reload;
use super::{Addresses, App};
use crate::config::Config;
use crate::shutdown::{SignalAction, Signals};
use crate::telemetry::Logs;
use crate::{notify, version};

#[derive(Debug)]
pub struct Start {
    pub config: Config,
    /// The configuration file.
    pub file: Option<PathBuf>,
    pub logs: Logs,
    /// Start of the process.
    pub began: Instant,
}

/// How many tasks are polled before one is that another thread has woken. Storage answers from a thread of its own: with the
/// default of 31 each of its answers waits for that many requests, which cost a tenth of the events per second.
const OTHER_THREADS_EVERY: u32 = 8;

/// The runtime of a server with so many workers. With one, the main thread is the worker: there is no synchronization between
/// several, which is 5 % of a cycle.
///
/// # Errors
/// If the system gives no threads or files for it.
pub fn runtime(workers: usize) -> io::Result<Runtime> {
    let mut builder = if workers > 1 {
        Builder::new_multi_thread()
    } else {
        Builder::new_current_thread()
    };
    builder
        .worker_threads(workers)
        .global_queue_interval(OTHER_THREADS_EVERY)
        .enable_all()
        .build()
}

/// Opens a server and serves until a signal or a fault; returns the exit code. `opened` is called once both listeners are
/// open. Needs a runtime.
///
/// # Errors
/// If it cannot be opened.
pub async fn serve(
    start: Start,
    opened: impl FnOnce(&Addresses) -> anyhow::Result<()>,
) -> anyhow::Result<u8> {
    let mut signals = Signals::take_over().context("cannot listen for signals")?;
    let Start {
        config,
        file,
        logs,
        began,
    } = start;
    log_start(&config, file.as_ref());
    let reload = Reload::new(config.clone(), file, logs.clone());
    let drain = reload.drain();
    // Opening blocks on files, locks and networks: on a worker, no signal would be received.
    let mut opening = spawn_blocking(move || {
        let opening = App::open(&config, &logs, drain);
        Handle::current().block_on(opening)
    });
    let app = loop {
        tokio::select! {
            app = &mut opening => break app.context("opening the server panicked")??,
            action = signals.next() => match action {
                SignalAction::Reload => reload.begin(false, Vec::new()),
                SignalAction::Stop(signal) | SignalAction::Exit(signal) => {
                    info!(signal = signal.name, "stopped before the server was open");
                    return Ok(signal.exit_code());
                }
            },
        }
    };
    let addresses = app.addresses();
    opened(&addresses)?;
    log_urls(&addresses, began);
    let watched = app.watched();
    let (stop, stopped) = oneshot::channel();
    let mut stop = Some(stop);
    let mut running = pin!(app.run(stopped));
    notify::ready();
    loop {
        tokio::select! {
            sound = &mut running => return Ok(u8::from(!sound)),
            action = signals.next() => match action {
                SignalAction::Reload => reload.begin(stop.is_some(), watched.clone()),
                SignalAction::Stop(signal) => {
                    notify::stopping();
                    if let Some(stop) = stop.take() {
                        // Fails if it shuts down already.
                        let _ = stop.send(signal.name);
                    }
                }
                SignalAction::Exit(signal) => {
                    warn!(signal = signal.name, "a second signal: exiting at once");
                    return Ok(signal.exit_code());
                }
            },
        }
    }
}

fn log_start(config: &Config, file: Option<&PathBuf>) {
    info!(
        version = version::VERSION,
        commit = version::COMMIT,
        features = version::FEATURES.join(", "),
        pid = std::process::id(),
        "Odyssey starts"
    );
    let file = file.map_or_else(|| "no file".to_owned(), |file| file.display().to_string());
    // Names only: values may be secrets.
    let variables = config.variables();
    let environment = if variables.is_empty() {
        "no variables".to_owned()
    } else {
        variables.join(", ")
    };
    let data_dir =
        std::path::absolute(&config.data_dir).unwrap_or_else(|_| config.data_dir.clone());
    info!(
        file,
        environment,
        data_dir = %data_dir.display(),
        "configuration: the built-in defaults, then the file, then the environment (`odyssey config` prints the outcome)"
    );
}

/// Logs the URLs.
fn log_urls(addresses: &Addresses, began: Instant) {
    let Addresses { customers, staff } = addresses;
    info!(
        url = customers,
        docs = format!("{customers}/docs"),
        "customers order here"
    );
    info!(
        url = staff,
        docs = format!("{staff}/docs"),
        metrics = format!("{staff}/metrics"),
        "baristas and operators work here"
    );
    let ready_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    info!(
        ready_ms,
        "ready in {ready_ms} ms; Ctrl-C or SIGTERM stops the server once held customers are served, SIGHUP reloads the configuration"
    );
}
