//! Health, readiness and API documentation for every listener; metrics for the staff.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use super::files::{self, File};
use super::params::Path;
use super::problem::Problem;
use super::responses::{NotFound, problems};
use crate::storage::preflight::{Engine, Finding, Findings};
use crate::storage::{State as EngineState, Unavailable};
use crate::telemetry::Registry;
use crate::values::time::Moment;

/// A desk, or another part with a state of its own in `/readyz`.
#[derive(Clone)]
pub struct Component {
    name: &'static str,
    look: Arc<dyn Fn() -> EngineState + Send + Sync>,
    engines: &'static [Engine],
    findings: Findings,
}

impl Component {
    pub fn new(name: &'static str, look: impl Fn() -> EngineState + Send + Sync + 'static) -> Self {
        Self {
            name,
            look: Arc::new(look),
            engines: &[],
            findings: Findings::default(),
        }
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

    fn state(&self) -> EngineState {
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
    /// Whether reasons are shown: they name hosts and files.
    shows_reasons: bool,
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness").finish_non_exhaustive()
    }
}

impl Readiness {
    /// Of the customers' listener and of the staff's. The first component is the order line, which alone decides `/readyz`:
    /// other desks answer 503 themselves.
    pub fn of(components: Vec<Component>) -> [Self; 2] {
        let staff = Self {
            stopping: Arc::default(),
            components: components.into(),
            shows_reasons: true,
        };
        let customers = Self {
            shows_reasons: false,
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

    fn look_at(&self, component: &Component) -> ComponentState {
        let EngineState { down, since } = component.state();
        let state = if down.is_some() { "down" } else { "ok" };
        let reason = down.map(|reason| {
            if self.shows_reasons {
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
            checks: if self.shows_reasons {
                component.findings.of(component.engines)
            } else {
                Vec::new()
            },
        }
    }

    fn look_at_all(&self) -> Vec<ComponentState> {
        let components = self.components.iter();
        components
            .map(|component| self.look_at(component))
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
#[utoipa::path(get, path = "/healthz", tag = "status", responses((status = 200, description = "Alive", body = Status)))]
async fn healthz() -> Response {
    no_store(axum::Json(Status { status: "ok" }))
}

/// Alive? (the same as `/healthz`)
#[utoipa::path(get, path = "/health", tag = "status", responses((status = 200, description = "Alive", body = Status)))]
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
#[utoipa::path(get, path = "/readyz", tag = "status", responses(NotReady, (status = 200, description = "Ready", body = Ready)))]
async fn readyz(State(readiness): State<Readiness>) -> Response {
    let components = readiness.look_at_all();
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
#[utoipa::path(get, path = "/readyz/{desk}", tag = "status",
    params(("desk" = String, Path, description = "orders, deliveries, packages, assignments or couriers", example = "orders")),
    responses(NotReady, NotFound, (status = 200, description = "Ready", body = ReadyDesk)),
)]
async fn readyz_desk(
    State(readiness): State<Readiness>,
    Path(desk): Path<String>,
) -> Result<Response, Problem> {
    let mut components = readiness.components.iter();
    let Some(component) = components.find(|component| component.name == desk) else {
        return Err(no_such_desk(&readiness));
    };
    let is_line = component.name == readiness.components[0].name;
    let component = readiness.look_at(component);
    let problem = if readiness.is_stopping() {
        Problem::stopping()
    } else if !component.is_down() {
        let status = "ready";
        return Ok(no_store(axum::Json(ReadyDesk { status, component })));
    } else if is_line {
        broken_line()
    } else {
        Problem::from(Unavailable::Engine)
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
    refresh: Arc<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrape").finish_non_exhaustive()
    }
}

impl Scrape {
    pub fn new(registry: Registry, refresh: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            registry,
            refresh: Arc::new(refresh),
        }
    }
}

/// Metrics
///
/// In Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "status", responses(
    (status = 200, description = "All metrics", body = String, content_type = "text/plain; version=0.0.4"),
))]
async fn metrics(State(scrape): State<Scrape>) -> Response {
    (scrape.refresh)();
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    no_store(([(header::CONTENT_TYPE, text)], scrape.registry.render()))
}

/// The route `/metrics`.
pub fn metrics_routes() -> [UtoipaMethodRouter<Scrape>; 1] {
    [routes!(metrics)]
}

/// Swagger UI at `/docs`, for the description at `/openapi.json` of the same listener.
pub(crate) fn docs() -> Router {
    Router::new()
        .route("/docs", get(docs_index))
        .route("/docs/", get(docs_index))
        .route("/docs/{*file}", get(docs_file))
}

async fn docs_index(headers: HeaderMap) -> Response {
    documentation("index.html", None, &headers).await
}

async fn docs_file(
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    documentation(&name, query.as_deref(), &headers).await
}

async fn documentation(name: &str, query: Option<&str>, headers: &HeaderMap) -> Response {
    /// The only pages with scripts.
    const POLICY: HeaderValue = HeaderValue::from_static(
        "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'",
    );
    static DOCUMENTATION: LazyLock<Documentation> = LazyLock::new(Documentation::new);
    let Some(documented) = DOCUMENTATION.file(name).await else {
        return Problem::no_such_path().into_response();
    };
    let asked = query.and_then(|query| query.strip_prefix("v="));
    let is_versioned = asked == Some(&documented.version);
    let mut response = documented.file.answer(headers, is_versioned);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    response
}

/// The files of Swagger UI, each created on first use.
struct Documentation {
    config: Arc<utoipa_swagger_ui::Config<'static>>,
    made: Mutex<HashMap<String, Arc<Documented>>>,
    making: tokio::sync::Mutex<()>,
}

struct Documented {
    version: String,
    file: File,
}

impl Documentation {
    fn new() -> Self {
        Self {
            // Without the validator badge, which would call a server on the Internet.
            config: Arc::new(
                utoipa_swagger_ui::Config::from("/openapi.json").validator_url("none"),
            ),
            made: Mutex::default(),
            making: tokio::sync::Mutex::default(),
        }
    }

    async fn file(&self, name: &str) -> Option<Arc<Documented>> {
        if let Some(file) = self.made(name) {
            return Some(file);
        }
        let (content_type, bytes) = self.read(name)?;
        let _turn = self.making.lock().await;
        if let Some(file) = self.made(name) {
            return Some(file);
        }
        let compress = move || {
            Arc::new(Documented {
                version: files::version(&bytes),
                file: File::new(content_type, bytes),
            })
        };
        let file = tokio::task::spawn_blocking(compress).await.ok()?;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.insert(name.to_owned(), Arc::clone(&file));
        Some(file)
    }

    fn made(&self, name: &str) -> Option<Arc<Documented>> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.get(name).cloned()
    }

    fn read(&self, name: &str) -> Option<(HeaderValue, Bytes)> {
        let file = utoipa_swagger_ui::serve(name, Arc::clone(&self.config)).ok()??;
        let content_type = HeaderValue::from_str(&file.content_type).ok()?;
        let bytes = match file.bytes {
            Cow::Borrowed(bytes) => Bytes::from_static(bytes),
            Cow::Owned(bytes) => bytes.into(),
        };
        if name == "index.html" {
            let page = self.with_versions(&String::from_utf8_lossy(&bytes));
            return Some((content_type, page.into()));
        }
        Some((content_type, bytes))
    }

    /// The page names its files relatively; with a base it works at /docs too, without a redirect. Versioned, they may
    /// be cached forever.
    fn with_versions(&self, page: &str) -> String {
        let page = page.replace("<head>", "<head>\n    <base href=\"/docs/\" />");
        let mut parts = page.split("\"./");
        let mut versioned = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let name = part.split('"').next().unwrap_or_default();
            versioned += "\"./";
            versioned += name;
            if let Some((_, bytes)) = self.read(name) {
                versioned += "?v=";
                versioned += &files::version(&bytes);
            }
            versioned += &part[name.len()..];
        }
        versioned
    }
}
