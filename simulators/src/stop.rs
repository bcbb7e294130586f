//! How a run is stopped from outside, and the one process limit that a crowd runs into.

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What a shell reports for a process that ctrl-c ended.
const INTERRUPTED: i32 = 130;

/// A token that the first ctrl-c (or SIGTERM) cancels: the run then stops and still reports.
/// The second one ends the process at once.
pub(crate) fn on_signal() -> anyhow::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let closing = CancellationToken::new();
    let token = closing.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if token.is_cancelled() {
                std::process::exit(INTERRUPTED);
            }
            token.cancel();
        }
    });
    Ok(closing)
}

/// Each held customer is an open file, and the usual soft limit is 1024. Where the limit cannot be raised
/// the customers beyond it are counted as transport errors, by name, so failing here would add nothing.
pub(crate) fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised).ok();
}
