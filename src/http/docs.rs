//! Swagger UI at `/docs`, for the description at `/openapi.json` of the same listener.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use axum::Router;
use axum::extract::RawQuery;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;

use super::files::{self, File};
use super::params::Path;
use super::problem::Problem;

pub(super) fn routes() -> Router {
    Router::new()
        .route("/docs", get(index))
        .route("/docs/", get(index))
        .route("/docs/{*file}", get(file))
}

async fn index(headers: HeaderMap) -> Response {
    documentation("index.html", None, &headers).await
}

async fn file(Path(name): Path<String>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
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
