//! The couriers' message queues.

#[cfg(feature = "aws")]
use std::time::Duration;

use super::engines::Engines;
use crate::config::Config;
use crate::couriers::Couriers;
#[cfg(feature = "aws")]
use crate::couriers::{self, config::Role, queues};
use crate::http::status::Component;
#[cfg(feature = "aws")]
use crate::storage::preflight::Findings;
use crate::telemetry::Registry;

/// Time to process or release messages once the listeners have closed.
#[cfg(feature = "aws")]
const PATIENCE: Duration = Duration::from_secs(5);

/// The queues before the start.
#[derive(Debug)]
pub(super) struct Messages {
    #[cfg(feature = "aws")]
    queues: Option<(queues::Topology, couriers::Config, queues::Metrics)>,
    #[cfg(feature = "aws")]
    overview: queues::Overview,
    #[cfg(feature = "aws")]
    findings: Findings,
}

/// The running queues.
pub(super) struct Running {
    #[cfg(feature = "aws")]
    queues: Option<queues::Queues>,
}

#[cfg(not(feature = "aws"))]
#[expect(clippy::unused_self, reason = "used with the feature `aws`")]
impl Messages {
    pub(super) fn new(_: &Config, _: &Engines, _: &Registry) -> Self {
        Self {}
    }

    pub(super) fn attach(&self, _: &mut Couriers) {}

    pub(super) fn component(&self, _: &'static str) -> Option<Component> {
        None
    }

    pub(super) fn start(self, _: &Couriers) -> Running {
        Running {}
    }
}

#[cfg(not(feature = "aws"))]
#[expect(clippy::unused_async, reason = "used with the feature `aws`")]
impl Running {
    pub(super) async fn ended(&self) {
        std::future::pending::<()>().await;
    }

    pub(super) async fn stop(self) {}
}

#[cfg(feature = "aws")]
impl Messages {
    pub(super) fn new(config: &Config, engines: &Engines, registry: &Registry) -> Self {
        // Registered without queues, too: an alert on a missing metric never fires.
        let metrics = registry.register(queues::Metrics::register);
        let queues = engines.topology.clone();
        let queues = queues.map(|topology| (topology, config.couriers.clone(), metrics));
        Self {
            queues,
            overview: queues::Overview::default(),
            findings: engines.preflight.findings().clone(),
        }
    }

    /// The desk publishes to the topic from now on.
    pub(super) fn attach(&self, couriers: &mut Couriers) {
        if let Some((topology, config, metrics)) = &self.queues {
            let topic = queues::event_publisher(topology, metrics);
            *couriers = couriers
                .clone()
                .with_topic(topic, config.has(Role::Dispatcher));
        }
    }

    /// Of this name; none without queues.
    pub(super) fn component(&self, name: &'static str) -> Option<Component> {
        self.queues.as_ref()?;
        let overview = self.overview.clone();
        let component = Component::new(name, move || overview.state());
        Some(component.on(queues::ENGINES, &self.findings))
    }

    /// Needs a runtime.
    pub(super) fn start(self, couriers: &Couriers) -> Running {
        let Self {
            queues,
            overview,
            findings,
        } = self;
        let queues = queues.map(|(topology, config, metrics)| {
            queues::Queues::start(&topology, couriers, &config, &metrics, &overview, &findings)
        });
        Running { queues }
    }
}

#[cfg(feature = "aws")]
impl Running {
    /// Returns once a task has ended unexpectedly.
    pub(super) async fn ended(&self) {
        match &self.queues {
            Some(queues) => queues.ended().await,
            None => std::future::pending().await,
        }
    }

    /// Stops receiving; messages under way are finished.
    pub(super) async fn stop(self) {
        if let Some(queues) = self.queues {
            queues.stop(PATIENCE).await;
        }
    }
}
