//! SIGHUP: reads the file and the environment again, and applies the keys that can change at runtime; then tokens and
//! certificates.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use crate::access::watch::Watched;
use crate::config::Config;
use crate::notify;
use crate::telemetry::Logs;

/// Reloads the configuration; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Reload {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: Option<PathBuf>,
    logs: Logs,
    drain: watch::Sender<Duration>,
    in_force: Mutex<Config>,
}

impl Reload {
    pub(super) fn new(config: Config, file: Option<PathBuf>, logs: Logs) -> Self {
        let inner = Inner {
            file,
            logs,
            drain: watch::Sender::new(config.shutdown.drain),
            in_force: Mutex::new(config),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The current `shutdown.drain`.
    pub(super) fn drain(&self) -> watch::Receiver<Duration> {
        self.inner.drain.subscribe()
    }

    /// In the background, so that signals are received while files are read. `serving`: the service manager was notified
    /// that the server is ready.
    pub(super) fn begin(&self, serving: bool, watched: Vec<Arc<Watched>>) {
        let inner = Arc::clone(&self.inner);
        spawn_blocking(move || {
            if serving {
                notify::reloading();
            }
            inner.reload();
            // Also if they seem unchanged: some file systems show changes late.
            for files in &watched {
                files.read_again();
            }
            if serving {
                notify::ready();
            }
        });
    }
}

impl Inner {
    fn reload(&self) {
        // Concurrent reloads would report each other's changes.
        let mut in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        match Config::load(self.file.as_deref()) {
            Ok(new) => self.take_over(&mut in_force, &new),
            Err(error) => {
                error!(%error, "the configuration was not reloaded: the old one stays in force");
            }
        }
    }

    fn take_over(&self, in_force: &mut Config, new: &Config) {
        let (mut took_effect, mut need_restart) = (Vec::new(), Vec::new());
        for key in in_force.changes(new) {
            match key.as_str() {
                "log.level" => {
                    if let Err(error) = self.logs.set_level(&new.log) {
                        error!(%error, "the log level was not changed");
                        continue;
                    }
                    in_force.log.level.clone_from(&new.log.level);
                }
                "shutdown.drain" => {
                    in_force.shutdown.drain = new.shutdown.drain;
                    self.drain.send_replace(new.shutdown.drain);
                }
                _ => {
                    need_restart.push(key);
                    continue;
                }
            }
            took_effect.push(key);
        }
        if !need_restart.is_empty() {
            let keys = need_restart.join(", ");
            warn!(
                keys,
                "these keys were changed but need a restart; the old values stay in force"
            );
        }
        let keys = took_effect.join(", ");
        info!(took_effect = keys, "the configuration was reloaded");
    }
}
