//! `GET /`: a listener's name and pages; HTML for browsers, JSON for others.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use maud::html;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use super::html::{page, prefers_html};

/// A listener.
#[derive(Debug, Serialize, ToSchema)]
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
    /// In place of the list, for browsers.
    #[serde(skip)]
    page: Option<Page>,
}

/// A page of a listener, which is not the list of its pages.
pub type Page = fn(&HeaderMap, &Uri) -> Response;

/// A page.
#[derive(Debug, Serialize, ToSchema)]
struct Link {
    /// Its path.
    #[schema(example = "/docs")]
    href: &'static str,
    /// Its title.
    title: &'static str,
}

impl Index {
    /// The common pages, and `more`. Browsers get `page` if there is one, else the list.
    pub fn new(
        listener: &'static str,
        description: &'static str,
        more: &[(&'static str, &'static str)],
        page: Option<Page>,
    ) -> Arc<Self> {
        let usual = [
            ("/docs", "API documentation"),
            ("/openapi.json", "API description (OpenAPI 3.1)"),
            ("/healthz", "Whether the server is alive"),
            ("/readyz", "Whether it is ready to serve"),
        ];
        let links = usual.iter().chain(more);
        Arc::new(Self {
            name: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
            listener,
            description,
            links: links.map(|&(href, title)| Link { href, title }).collect(),
            page,
        })
    }
}

/// The route `/`.
pub fn index_routes() -> [UtoipaMethodRouter<Arc<Index>>; 1] {
    [routes!(show_index)]
}

/// What is here
///
/// The listener's pages. HTML for clients that prefer it; on the customers' listener that is the page to order.
#[utoipa::path(
    get, path = "/", tag = "status", security(()),
    params(
        ("Accept" = Option<String>, Header, description = "`text/html` for a page"),
        ("lang" = Option<String>, Query, description = "Language of the page to order: `en` or `de`. Default: by `Accept-Language`"),
    ),
    responses((status = 200, description = "The pages of this listener", content(
        (Index = "application/json"),
        (String = "text/html"),
    ))),
)]
async fn show_index(State(index): State<Arc<Index>>, uri: Uri, headers: HeaderMap) -> Response {
    if !prefers_html(&headers) {
        let vary = HeaderValue::from_static("Accept");
        return ([(header::VARY, vary)], axum::Json(&*index)).into_response();
    }
    if let Some(page) = index.page {
        return page(&headers, &uri);
    }
    let content = html! {
        p { (index.description) }
        ul { @for link in &index.links { li { a href=(link.href) { (link.title) } } } }
        p { small { (index.name) " " (index.version) ", the listener of " (index.listener) } }
    };
    page("Odyssey", &content)
}
