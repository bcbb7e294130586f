//! The pages that every listener serves: alive, ready, documentation; and metrics for the staff.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, header};
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
    /// Its pages run scripts; nothing else does.
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
    response
}

/// The files of Swagger UI, each made when it is first asked for.
struct Documentation {
    config: Arc<utoipa_swagger_ui::Config<'static>>,
    made: Mutex<HashMap<String, Arc<Documented>>>,
    /// One is made at a time.
    making: tokio::sync::Mutex<()>,
}

struct Documented {
    version: String,
    file: File,
}

impl Documentation {
    fn new() -> Self {
        Self {
            // Without the badge of a validator, which would be asked on the Internet.
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
        let make = move || {
            Arc::new(Documented {
                version: files::version(&bytes),
                file: File::new(content_type, bytes),
            })
        };
        let file = tokio::task::spawn_blocking(make).await.ok()?;
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

    /// The page names its files relative to itself; with a base it works at /docs too, without a redirect. With their
    /// versions, they may be kept for ever.
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
