//! Logs and the metrics registry.

mod logs;
mod lossy;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

pub use self::logs::{Logs, init_logs};

/// How often histograms are folded together. Between folds each observation is kept by itself, so a server that nobody
/// scrapes would otherwise grow.
const FOLD_EVERY: Duration = Duration::from_secs(5);

/// One process's metrics: what was registered inside [`Registry::register`], and how it is shown.
#[derive(Clone)]
pub struct Registry {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

impl Registry {
    /// A registry whose histograms of these names have these buckets.
    ///
    /// # Errors
    /// If a histogram has no buckets.
    pub fn new(histograms: &[(&str, &[f64])]) -> Result<Self, BuildError> {
        let mut builder = PrometheusBuilder::new();
        for (name, buckets) in histograms {
            let name = Matcher::Full((*name).to_owned());
            builder = builder.set_buckets_for_metric(name, buckets)?;
        }
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        Ok(Self {
            recorder: Arc::new(recorder),
            handle,
        })
    }

    /// Runs `register`; the handles it makes belong to this registry. There is no global one, so that several servers
    /// can live in one process.
    pub fn register<T>(&self, register: impl FnOnce() -> T) -> T {
        metrics::with_local_recorder(&*self.recorder, register)
    }

    /// Everything in Prometheus' text format.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Keeps the memory of histograms bounded, for as long as it is polled.
    pub async fn fold(&self) {
        loop {
            tokio::time::sleep(FOLD_EVERY).await;
            self.handle.run_upkeep();
        }
    }
}
