//! `GET /`: a listener's name and pages; HTML for browsers, JSON for others.

use std::fmt;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use maud::html;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use super::html::{page, prefers_html};

/// A listener.
#[derive(Clone, Serialize, ToSchema)]
pub struct Index {
    /// The program.
    #[schema(example = "odyssey")]
    name: &'static str,
    #[schema(example = "0.1.0")]
    version: &'static str,
    /// customers or staff.
    #[schema(example = "customers")]
    listener: &'static str,
    /// Its purpose.
    description: &'static str,
    links: Vec<Link>,
}

/// A page.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Link {
    /// Its path.
    #[schema(example = "/docs")]
    pub href: &'static str,
    /// Its title.
    pub title: &'static str,
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").finish_non_exhaustive()
    }
}

/// The route `/`, with the common pages and these.
pub fn index_route(
    listener: &'static str,
    description: &'static str,
    more: &[Link],
) -> UtoipaMethodRouter {
    let usual = [
        ("/docs", "API documentation"),
        ("/openapi.json", "API description (OpenAPI 3.1)"),
        ("/healthz", "Whether the server is alive"),
        ("/readyz", "Whether it is ready to serve"),
    ];
    let usual = usual.map(|(href, title)| Link { href, title });
    let index = Index {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        listener,
        description,
        links: usual.iter().chain(more).cloned().collect(),
    };
    let (schemas, paths, methods) = routes!(show_index);
    (schemas, paths, methods.with_state(Arc::new(index)))
}

/// What is here
///
/// The listener's pages. HTML for clients that prefer it.
#[utoipa::path(
    get, path = "/", tag = "status",
    params(("Accept" = Option<String>, Header, description = "`text/html` for a page")),
    responses((status = 200, description = "The pages of this listener", content(
        (Index = "application/json"),
        (String = "text/html"),
    ))),
)]
async fn show_index(State(index): State<Arc<Index>>, headers: HeaderMap) -> Response {
    if !prefers_html(&headers) {
        let vary = HeaderValue::from_static("Accept");
        return ([(header::VARY, vary)], axum::Json(&*index)).into_response();
    }
    let content = html! {
        p { (index.description) }
        ul { @for link in &index.links { li { a href=(link.href) { (link.title) } } } }
        p { small { (index.name) " " (index.version) ", the listener of " (index.listener) } }
    };
    page("Odyssey", &content)
}
