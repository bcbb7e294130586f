//! The storage engines in use, for operators: whether each works, since when, and what it failed with last.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use super::caching::no_store;
use super::status::Component;
use crate::storage::Failure;
use crate::values::time::Moment;

/// How busy an engine is.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Operations that wait.
    pub waiting: usize,
    /// The time that 99 % of the commits of the last ten minutes did not exceed; None if there were none.
    pub commit_p99: Option<Duration>,
}

/// A storage engine.
#[derive(Clone)]
pub struct Engine {
    component: Component,
    load: Option<Arc<dyn Fn() -> Load + Send + Sync>>,
}

impl Engine {
    /// Its component's name is the engine's.
    pub fn new(component: Component) -> Self {
        Self {
            component,
            load: None,
        }
    }

    #[must_use]
    pub fn with_load(self, load: impl Fn() -> Load + Send + Sync + 'static) -> Self {
        Self {
            load: Some(Arc::new(load)),
            ..self
        }
    }

    fn state(&self) -> EngineState {
        let state = self.component.state();
        let load = self.load.as_ref().map(|load| load());
        let p99 = load.and_then(|load| load.commit_p99);
        EngineState {
            name: self.component.name,
            well: state.down.is_none(),
            since: state.since.into(),
            last_error: state.last_failure.map(LastError::from),
            queue: load.map(|load| load.waiting),
            commit_p99_ms: p99.map(|p99| (p99.as_secs_f64() * 1e6).round() / 1e3),
        }
    }
}

/// All engines in use; cheap to clone.
#[derive(Clone)]
pub struct Engines(Arc<[Engine]>);

impl fmt::Debug for Engines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engines").finish_non_exhaustive()
    }
}

impl Engines {
    pub fn new(engines: Vec<Engine>) -> Self {
        Self(engines.into())
    }

    /// Those that are down first.
    pub fn states(&self) -> Vec<EngineState> {
        let mut states: Vec<_> = self.0.iter().map(Engine::state).collect();
        states.sort_by_key(|state| state.well);
        states
    }
}

/// A storage engine.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct EngineState {
    /// A database's file, or the engine.
    #[schema(example = "packages.db")]
    pub name: &'static str,
    /// Whether it works.
    pub well: bool,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    since: Moment,
    /// Also after it works again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    last_error: Option<LastError>,
    /// Operations that wait for the writer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    queue: Option<usize>,
    /// The time that 99 % of the commits of the last ten minutes did not exceed, within a sixteenth.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    commit_p99_ms: Option<f64>,
}

/// An engine's latest failure since the start.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = EngineError)]
struct LastError {
    detail: String,
    #[schema(value_type = String, format = DateTime)]
    at: Moment,
}

impl From<Failure> for LastError {
    fn from(Failure { reason, at }: Failure) -> Self {
        Self {
            detail: reason,
            at: Timestamp::into(at),
        }
    }
}

/// The storage engines.
#[derive(Debug, Serialize, ToSchema)]
struct EngineList {
    /// Those that are down first.
    engines: Vec<EngineState>,
}

/// List the storage engines
///
/// Those in use: the databases in the data directory, and what is reached over the network.
#[utoipa::path(
    get, path = "/engines", tag = "status", security(("token" = ["operator"])),
    responses((status = 200, description = "The engines", body = EngineList)),
)]
async fn list_engines(State(engines): State<Engines>) -> Response {
    let engines = engines.states();
    no_store(&EngineList { engines })
}

/// The route `/engines`.
pub fn engine_routes() -> [UtoipaMethodRouter<Engines>; 1] {
    [routes!(list_engines)]
}
