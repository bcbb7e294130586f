//! What comes and goes beside the listeners: the couriers' messages.

#[cfg(feature = "aws")]
use std::time::Duration;

use super::engines::Engines;
use crate::config::Config;
use crate::couriers::Couriers;
use crate::http::status::Component;
#[cfg(feature = "aws")]
use crate::storage::preflight::Findings;
use crate::telemetry::Registry;
#[cfg(feature = "aws")]
use crate::{config, couriers::queues};

/// How long messages may take to be kept, or given back, once the listeners have stopped.
#[cfg(feature = "aws")]
const PATIENCE: Duration = Duration::from_secs(5);

/// Messages, before they come and go.
#[derive(Debug)]
pub(super) struct Messages {
    #[cfg(feature = "aws")]
    queues: Option<(queues::Topology, queues::Settings, queues::Metrics)>,
    #[cfg(feature = "aws")]
    overview: queues::Overview,
    #[cfg(feature = "aws")]
    findings: Findings,
}

/// Messages that come and go.
pub(super) struct Running {
    #[cfg(feature = "aws")]
    queues: Option<queues::Queues>,
}

#[cfg(not(feature = "aws"))]
#[expect(
    clippy::unused_self,
    reason = "with the feature `aws` there may be some"
)]
impl Messages {
    pub(super) fn new(_: &Config, _: &Engines, _: &Registry) -> Self {
        Self {}
    }

    pub(super) fn plug_in(&self, _: &mut Couriers) {}

    pub(super) fn component(&self) -> Option<Component> {
        None
    }

    pub(super) fn start(self, _: &Couriers) -> Running {
        Running {}
    }
}

#[cfg(not(feature = "aws"))]
#[expect(
    clippy::unused_async,
    reason = "with the feature `aws` there may be some"
)]
impl Running {
    pub(super) async fn ended(&self) {
        std::future::pending::<()>().await;
    }

    pub(super) async fn stop(self) {}
}

/// What this process does with messages.
#[cfg(feature = "aws")]
pub(super) fn settings(config: &Config) -> queues::Settings {
    let couriers = &config.couriers;
    queues::Settings {
        dispatches: couriers.has(config::CourierRole::Dispatcher),
        replicates: couriers.has(config::CourierRole::Directory),
        visibility: couriers.visibility,
    }
}

#[cfg(feature = "aws")]
impl Messages {
    pub(super) fn new(config: &Config, engines: &Engines, registry: &Registry) -> Self {
        let settings = settings(config);
        // Without queues, too: an alert on what is not there would never fire, and never be missed.
        let metrics = registry.register(queues::Metrics::register);
        let queues = engines.topology.clone();
        let queues = queues.map(|topology| (topology, settings, metrics));
        Self {
            queues,
            overview: queues::Overview::default(),
            findings: engines.preflight.findings().clone(),
        }
    }

    /// The desk announces to the topic from now on.
    pub(super) fn plug_in(&self, couriers: &mut Couriers) {
        if let Some((topology, settings, metrics)) = &self.queues {
            let topic = queues::event_publisher(topology, metrics);
            *couriers = couriers.clone().beside(topic, settings.dispatches);
        }
    }

    /// How they come and go, as `/readyz` shows it; nothing without queues.
    pub(super) fn component(&self) -> Option<Component> {
        self.queues.as_ref()?;
        let overview = self.overview.clone();
        let component = Component::new("messages", move || overview.state());
        Some(component.on(queues::ENGINES, &self.findings))
    }

    /// Lets them come and go. Needs a runtime.
    pub(super) fn start(self, couriers: &Couriers) -> Running {
        let Self {
            queues,
            overview,
            findings,
        } = self;
        let queues = queues.map(|(topology, settings, metrics)| {
            queues::Queues::start(
                &topology, couriers, settings, &metrics, &overview, &findings,
            )
        });
        Running { queues }
    }
}

#[cfg(feature = "aws")]
impl Running {
    /// Returns once a task has ended by itself.
    pub(super) async fn ended(&self) {
        match &self.queues {
            Some(queues) => queues.ended().await,
            None => std::future::pending().await,
        }
    }

    /// No more come; what is under way may end.
    pub(super) async fn stop(self) {
        if let Some(queues) = self.queues {
            queues.stop(PATIENCE).await;
        }
    }
}
