//! The pages that every listener serves: alive, ready, documentation; and metrics for the staff.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use super::params::Path;
use super::problem::Problem;
use crate::storage::Unavailable;
use crate::telemetry::Registry;

/// Whether the server is willing to take more work; shared by both listeners and the shutdown.
#[derive(Clone)]
pub struct Readiness {
    stopping: Arc<AtomicBool>,
    able: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness").finish_non_exhaustive()
    }
}

impl Readiness {
    /// Willing, and as long as `able` says so, able: whether everything works that requests need.
    pub fn new(able: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self {
            stopping: Arc::default(),
            able: Arc::new(able),
        }
    }

    /// Stops together with this one, but is able as long as `able` says so.
    #[must_use]
    pub fn beside(&self, able: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self {
            stopping: Arc::clone(&self.stopping),
            able: Arc::new(able),
        }
    }

    /// From now on `/readyz` says 503.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
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
/// The process runs and answers.
#[utoipa::path(get, path = "/healthz", tag = "status", responses((status = 200, description = "Alive", body = Status)))]
async fn healthz() -> Response {
    no_store(axum::Json(Status { status: "ok" }))
}

/// Alive? (the same as `/healthz`)
#[utoipa::path(get, path = "/health", tag = "status", responses((status = 200, description = "Alive", body = Status)))]
async fn health() -> Response {
    healthz().await
}

/// Ready?
///
/// Willing and able to take work; not while the server is being stopped, or cannot keep what it must.
#[utoipa::path(get, path = "/readyz", tag = "status", responses(
    (status = 200, description = "Ready", body = Status),
    (status = 503, description = "Being stopped, or the storage does not work", body = Problem, content_type = "application/problem+json"),
))]
async fn readyz(State(readiness): State<Readiness>) -> Response {
    if readiness.stopping.load(Ordering::Relaxed) {
        Problem::stopping().into_response()
    } else if !(readiness.able)() {
        Problem::from(Unavailable::Engine).into_response()
    } else {
        no_store(axum::Json(Status { status: "ready" }))
    }
}

/// The routes `/healthz`, `/health` and `/readyz`.
pub fn health_routes(readiness: Readiness) -> [UtoipaMethodRouter; 3] {
    let (schemas, paths, methods) = routes!(readyz);
    [
        routes!(healthz),
        routes!(health),
        (schemas, paths, methods.with_state(readiness)),
    ]
}

/// What `/metrics` needs: the registry, and what sets the gauges to the moment's figures first.
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
    /// Before each scrape of `registry`, `refresh` is called.
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
pub fn metrics_route(scrape: Scrape) -> UtoipaMethodRouter {
    let (schemas, paths, methods) = routes!(metrics);
    (schemas, paths, methods.with_state(scrape))
}

/// Swagger UI at `/docs`, for the description at `/openapi.json` of the same listener.
pub(crate) fn docs() -> Router {
    // Without the badge of a validator, which would be asked on the Internet.
    let config = utoipa_swagger_ui::Config::from("/openapi.json").validator_url("none");
    let config = Arc::new(config);
    Router::new()
        .route("/docs", get(docs_index))
        .route("/docs/", get(docs_index))
        .route("/docs/{*file}", get(docs_file))
        .with_state(config)
}

type SwaggerConfig = Arc<utoipa_swagger_ui::Config<'static>>;

async fn docs_index(State(config): State<SwaggerConfig>) -> Response {
    swagger_file("index.html", config)
}

async fn docs_file(State(config): State<SwaggerConfig>, Path(file): Path<String>) -> Response {
    swagger_file(&file, config)
}

fn swagger_file(path: &str, config: SwaggerConfig) -> Response {
    let Ok(Some(file)) = utoipa_swagger_ui::serve(path, config) else {
        return Problem::no_such_path().into_response();
    };
    let mut bytes = file.bytes.into_owned();
    if path == "index.html" {
        // The page names its files relative to itself; with a base it works at /docs too, without a redirect.
        let page = String::from_utf8_lossy(&bytes)
            .replace("<head>", "<head>\n    <base href=\"/docs/\" />");
        bytes = page.into_bytes();
    }
    ([(header::CONTENT_TYPE, file.content_type)], bytes).into_response()
}
