//! Logs: written to standard error without blocking, with a level that can change at runtime.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io::{IsTerminal, Write};
use std::panic;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, counter, describe_counter};
use tracing::error;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry as Spans, fmt as lines, reload};

use super::Registry;
use super::config::{Log, LogFormat};
use super::lossy::Lossy;

/// How long the exit waits for the last lines.
const FLUSH: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub struct Logs {
    lines: Arc<Lossy>,
    targets: reload::Handle<Targets, Spans>,
}

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logs").finish_non_exhaustive()
    }
}

impl Logs {
    /// Sets the level; the format stays.
    ///
    /// # Errors
    /// A sentence, if the level does not parse.
    pub fn set_level(&self, log: &Log) -> Result<(), String> {
        let targets = log.targets()?;
        let set = self.targets.reload(targets);
        set.map_err(|error| error.to_string())
    }

    /// Writes an unformatted line after those logged before.
    pub fn say(&self, line: &str) {
        let _ = (&*self.lines).write_all(format!("{line}\n").as_bytes());
    }

    /// Returns once every line is written, or after a second. Call it last: the exit waits for no thread.
    pub fn flush(&self) {
        self.lines.flush(FLUSH);
    }

    /// A function that updates the counter of lost lines.
    pub fn count_lost(&self, registry: &Registry) -> impl Fn() + Send + Sync + use<> {
        const LOST: &str = "odyssey_log_lines_lost_total";
        let lost: Counter = registry.register(|| {
            describe_counter!(
                LOST,
                "Log lines lost because standard error was not read fast enough"
            );
            counter!(LOST)
        });
        let lines = Arc::clone(&self.lines);
        move || lost.absolute(lines.lost())
    }
}

/// Installs the log; panics of any thread are logged, too.
///
/// # Errors
/// A sentence, if the level does not parse or logging was set up before.
pub fn init_logs(log: &Log) -> Result<Logs, String> {
    let (targets, handle) = reload::Layer::new(log.targets()?);
    let terminal = std::io::stderr().is_terminal();
    let json = match log.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !terminal,
    };
    let lossy = Lossy::start(std::io::stderr()).map_err(|error| error.to_string())?;
    let lossy = Arc::new(lossy);
    let layer = lines::layer().with_writer(Arc::clone(&lossy));
    let layer = if json {
        layer
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .boxed()
    } else {
        layer.with_ansi(terminal).boxed()
    };
    tracing_subscriber::registry()
        .with(targets)
        .with(layer)
        .try_init()
        .map_err(|error| error.to_string())?;
    // The standard hook writes to standard error, and blocks if it is not read.
    panic::set_hook(Box::new(|panic| {
        let backtrace = Backtrace::capture();
        let captured = backtrace.status() == BacktraceStatus::Captured;
        let backtrace = captured.then(|| backtrace.to_string());
        error!(backtrace, "{panic}");
    }));
    Ok(Logs {
        lines: lossy,
        targets: handle,
    })
}
