//! Health and readiness for every listener; metrics for the staff.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use super::params::{Actor, Path};
use super::problem::Problem;
use super::responses::{NotFound, problems};
use crate::storage::preflight::{Engine, Finding, Findings};
use crate::storage::{State as EngineState, Unavailable};
use crate::telemetry::Registry;
use crate::values::soon::Soon;
use crate::values::time::Moment;

/// A desk, or another part with a state of its own in `/readyz`.
#[derive(Clone)]
pub struct Component {
    pub(super) name: &'static str,
    look: Arc<dyn Fn() -> EngineState + Send + Sync>,
    engines: &'static [Engine],
    findings: Findings,
    /// What it answers while it is down.
    problem: fn() -> Problem,
}

impl Component {
    pub fn new(name: &'static str, look: impl Fn() -> EngineState + Send + Sync + 'static) -> Self {
        Self {
            name,
            look: Arc::new(look),
            engines: &[],
            findings: Findings::default(),
            problem: || Problem::from(Unavailable::Engine),
        }
    }

    /// With this answer while it is down, in place of that of a storage.
    #[must_use]
    pub fn answering(self, problem: fn() -> Problem) -> Self {
        Self { problem, ..self }
    }

    /// Depends on these shared engines, if they are used: it is down while one of their checks is pending or has failed.
    #[must_use]
    pub fn on(self, engines: &'static [Engine], findings: &Findings) -> Self {
        Self {
            engines,
            findings: findings.clone(),
            ..self
        }
    }

    pub(super) fn state(&self) -> EngineState {
        // A failed check names the setting or the key.
        let checked = self.findings.state(self.engines);
        checked.unwrap_or_else(|| (self.look)())
    }
}

/// Shared by the listeners and the shutdown.
#[derive(Clone)]
pub struct Readiness {
    stopping: Arc<AtomicBool>,
    /// The first is the order line, which decides `/readyz`.
    components: Arc<[Component]>,
    reasons: Reasons,
}

/// To whom reasons are shown: they name hosts and files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reasons {
    Hidden,
    /// Shown with a valid credential.
    Identified,
    Everyone,
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness").finish_non_exhaustive()
    }
}

impl Readiness {
    /// Of the customers' listener and of the staff's. The first component is the order line, which alone decides `/readyz`:
    /// other desks answer 503 themselves. `staff_is_open`: the staff's listener requires no credential.
    pub fn of(components: Vec<Component>, staff_is_open: bool) -> [Self; 2] {
        let staff = Self {
            stopping: Arc::default(),
            components: components.into(),
            reasons: if staff_is_open {
                Reasons::Everyone
            } else {
                Reasons::Identified
            },
        };
        let customers = Self {
            reasons: Reasons::Hidden,
            ..staff.clone()
        };
        [customers, staff]
    }

    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn shows_reasons(&self, actor: &Actor) -> bool {
        match self.reasons {
            Reasons::Hidden => false,
            Reasons::Identified => actor.name().is_some(),
            Reasons::Everyone => true,
        }
    }

    fn look_at(&self, component: &Component, actor: &Actor) -> ComponentState {
        let shows_reasons = self.shows_reasons(actor);
        let EngineState { down, since, .. } = component.state();
        let state = if down.is_some() { "down" } else { "ok" };
        let reason = down.map(|reason| {
            if shows_reasons {
                reason
            } else {
                "See the log or the staff's listener for the cause.".to_owned()
            }
        });
        ComponentState {
            name: component.name,
            state,
            since: since.into(),
            reason,
            checks: if shows_reasons {
                component.findings.of(component.engines)
            } else {
                Vec::new()
            },
        }
    }

    fn look_at_all(&self, actor: &Actor) -> Vec<ComponentState> {
        let components = self.components.iter();
        components
            .map(|component| self.look_at(component, actor))
            .collect()
    }
}

/// The state of a desk.
#[derive(Debug, Serialize, ToSchema)]
struct ComponentState {
    /// The desk.
    #[schema(example = "orders")]
    name: &'static str,
    /// `ok` or `down`.
    #[schema(example = "ok")]
    state: &'static str,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    since: Moment,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason: Option<String>,
    /// Checks of its shared engines; on the staff's listener only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checks: Vec<Finding>,
}

impl ComponentState {
    fn is_down(&self) -> bool {
        self.state == "down"
    }
}

/// The server is ready.
#[derive(Debug, Serialize, ToSchema)]
struct Ready {
    /// `ready`.
    #[schema(example = "ready")]
    status: &'static str,
    /// Every desk; a desk that is down answers 503 itself.
    components: Vec<ComponentState>,
}

/// A desk is ready.
#[derive(Debug, Serialize, ToSchema)]
struct ReadyDesk {
    /// `ready`.
    #[schema(example = "ready")]
    status: &'static str,
    /// The desk.
    component: ComponentState,
}

/// An answer of one word.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Status {
    /// The word.
    #[schema(example = "ok")]
    status: &'static str,
}

fn no_store(answer: impl IntoResponse) -> Response {
    let header = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (header, answer).into_response()
}

/// Alive?
///
/// The process answers.
#[utoipa::path(get, path = "/healthz", tag = "status", security(()), responses((status = 200, description = "Alive", body = Status)))]
async fn healthz() -> Response {
    no_store(axum::Json(Status { status: "ok" }))
}

/// Alive? (the same as `/healthz`)
#[utoipa::path(get, path = "/health", tag = "status", security(()), responses((status = 200, description = "Alive", body = Status)))]
async fn health() -> Response {
    healthz().await
}

problems! {
    /// Of `/readyz` and `/readyz/{desk}`.
    struct NotReady {
        503: "Stopping, or down; the member `components` has the states",
    }
}

/// Ready?
///
/// Whether the order line takes orders, and the state of every desk. 503 during shutdown. A desk whose storage is down
/// answers 503 itself and is listed as `down`; the order line needs no storage.
#[utoipa::path(get, path = "/readyz", tag = "status", security((), ("token" = [])), responses(NotReady, (status = 200, description = "Ready", body = Ready)))]
async fn readyz(State(readiness): State<Readiness>, actor: Actor) -> Response {
    let components = readiness.look_at_all(&actor);
    let problem = if readiness.is_stopping() {
        Problem::stopping()
    } else if components.first().is_some_and(ComponentState::is_down) {
        broken_line()
    } else {
        let status = "ready";
        return no_store(axum::Json(Ready { status, components }));
    };
    with_components(problem, &components).into_response()
}

/// Is this desk ready?
///
/// For load balancers and alerts on one desk.
#[utoipa::path(get, path = "/readyz/{desk}", tag = "status", security((), ("token" = [])),
    params(("desk" = String, Path, description = "orders, deliveries, packages, assignments or couriers", example = "orders")),
    responses(NotReady, NotFound, (status = 200, description = "Ready", body = ReadyDesk)),
)]
async fn readyz_desk(
    State(readiness): State<Readiness>,
    actor: Actor,
    Path(desk): Path<String>,
) -> Result<Response, Problem> {
    let mut components = readiness.components.iter();
    let Some(component) = components.find(|component| component.name == desk) else {
        return Err(no_such_desk(&readiness));
    };
    let is_line = component.name == readiness.components[0].name;
    let down = component.problem;
    let component = readiness.look_at(component, &actor);
    let problem = if readiness.is_stopping() {
        Problem::stopping()
    } else if !component.is_down() {
        let status = "ready";
        return Ok(no_store(axum::Json(ReadyDesk { status, component })));
    } else if is_line {
        broken_line()
    } else {
        down()
    };
    Err(with_components(problem, &[component]))
}

fn with_components(problem: Problem, components: &[ComponentState]) -> Problem {
    problem.with("components", serde_json::json!(components))
}

fn broken_line() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "line-broken",
        "The order line cannot serve",
        "The server needs a restart; see the log.",
    )
    .retry_after(Duration::from_secs(5))
}

fn no_such_desk(readiness: &Readiness) -> Problem {
    let names: Vec<_> = readiness.components.iter().map(|desk| desk.name).collect();
    Problem::new(
        StatusCode::NOT_FOUND,
        "no-such-desk",
        "There is no such desk",
        format!("The desks are {}.", names.join(", ")),
    )
}

/// The routes `/healthz`, `/health`, `/readyz` and `/readyz/{desk}`.
pub fn health_routes() -> [UtoipaMethodRouter<Readiness>; 4] {
    [
        routes!(healthz),
        routes!(health),
        routes!(readyz),
        routes!(readyz_desk),
    ]
}

/// A registry, and a function that updates its gauges before each scrape.
#[derive(Clone)]
pub struct Scrape {
    registry: Registry,
    refresh: Arc<dyn Fn() -> Soon<()> + Send + Sync>,
}

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrape").finish_non_exhaustive()
    }
}

impl Scrape {
    /// `refresh`: updates the gauges.
    pub fn new(registry: Registry, refresh: impl Fn() -> Soon<()> + Send + Sync + 'static) -> Self {
        Self {
            registry,
            refresh: Arc::new(refresh),
        }
    }
}

/// Metrics
///
/// In Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "status", security(("token" = ["scraper"])), responses(
    (status = 200, description = "All metrics", body = String, content_type = "text/plain; version=0.0.4"),
))]
async fn metrics(State(scrape): State<Scrape>) -> Response {
    (scrape.refresh)().get().await;
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    no_store(([(header::CONTENT_TYPE, text)], scrape.registry.render()))
}

/// The route `/metrics`.
pub fn metrics_routes() -> [UtoipaMethodRouter<Scrape>; 1] {
    [routes!(metrics)]
}
