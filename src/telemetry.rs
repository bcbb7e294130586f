//! Logs and the metrics registry.

pub mod config;
mod histograms;
mod logs;
mod lossy;

use std::fmt;
use std::sync::Arc;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use self::histograms::Histograms;
pub use self::logs::{Logs, init_logs};

/// A server's metrics.
#[derive(Clone)]
pub struct Registry {
    recorder: Arc<Histograms>,
    handle: PrometheusHandle,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

impl Registry {
    /// With the bucket bounds of histograms by name, rising.
    pub fn new(histograms: &[(&'static str, &'static [f64])]) -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        Self {
            recorder: Arc::new(Histograms::new(recorder, histograms)),
            handle,
        }
    }

    /// Runs `register`; its handles belong to this registry. There is no global one, so that several servers can run in one
    /// process.
    pub fn register<T>(&self, register: impl FnOnce() -> T) -> T {
        metrics::with_local_recorder(&*self.recorder, register)
    }

    /// In Prometheus' text format.
    pub fn render(&self) -> String {
        let mut text = self.handle.render();
        self.recorder.render(&mut text);
        text
    }
}
