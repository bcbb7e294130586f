//! Cross-site requests: a web page of another origin must not use a listener through a user's browser (CSRF). See `docs/adr`
//! for the choices.
//!
//! Checked before routing, so that a rejected request takes no order and counts for no limit. Other clients send none of
//! these headers, except `Host`.

use axum::body::Body;
use axum::http::header;
use axum::http::{HeaderValue, Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};

use super::headers::Scan;
use super::hosts::Hosts;
use super::problem::Problem;

/// What a page of an allowed origin may send (CORS).
const CORS_METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");
const CORS_REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "Authorization, Content-Type, Idempotency-Key, If-None-Match, Prefer, Traceparent, X-Request-Id",
);
/// Further response headers that it may read.
const CORS_RESPONSE_HEADERS: HeaderValue = HeaderValue::from_static(
    "ETag, Idempotency-Replayed, Location, Preference-Applied, RateLimit, RateLimit-Policy, Retry-After, X-Request-Id",
);
/// Seconds for which a browser need not ask again; Chromium caps it at this.
const CORS_MAX_AGE: HeaderValue = HeaderValue::from_static("7200");
const CORS_VARY: HeaderValue = HeaderValue::from_static("Origin");

/// A listener's hosts, and the origins that may use it.
#[derive(Debug)]
pub struct Origins {
    hosts: Hosts,
    allowed: Box<[HeaderValue]>,
}

/// Why a request does not reach its route.
#[derive(Debug, Clone)]
pub(crate) enum Rejection {
    Problem(Problem),
    /// A preflight from this origin.
    Preflight(HeaderValue),
    /// A browser is sent here to log in.
    LogIn(HeaderValue),
}

impl Origins {
    /// For a listener's `hosts` (names, `*.` and a name, `ip`, or `*`), used by its own pages and those of `allowed` origins.
    pub fn new(listener: &'static str, hosts: &[String], allowed: &[String]) -> Self {
        let origin = |text: &String| HeaderValue::from_str(&text.to_ascii_lowercase()).ok();
        Self {
            hosts: Hosts::new(listener, hosts),
            // An empty variable is an empty list.
            allowed: allowed
                .iter()
                .filter(|text| !text.is_empty())
                .filter_map(origin)
                .collect(),
        }
    }

    /// Whether answers differ by `Origin`.
    pub(super) fn vary(&self) -> bool {
        !self.allowed.is_empty()
    }

    /// The allowed foreign origin that may read the answer, if a page of one asks.
    ///
    /// # Errors
    /// [`Rejection`]: 400 for no host or several, 421 for another one, 403 for a page of another site, or the answer to a
    /// preflight.
    pub(super) fn check<B>(
        &self,
        request: &Request<B>,
        scan: &Scan<'_>,
    ) -> Result<Option<HeaderValue>, Rejection> {
        let host = self.hosts.check(request, scan)?;
        let site = scan.fetch_site.map(HeaderValue::as_bytes);
        let origin = scan.origin;
        if let Some(origin) = origin.filter(|origin| self.allowed.contains(origin)) {
            let asks_first = request.method() == Method::OPTIONS && scan.requested_method.is_some();
            return if asks_first {
                Err(Rejection::Preflight(origin.clone()))
            } else {
                Ok(Some(origin.clone()))
            };
        }
        let foreign = match origin {
            Some(origin) => is_another_site(site) || !is_ours(origin, host, site),
            None => is_another_site(site) && !opens_a_page(request, scan),
        };
        if foreign {
            return Err(cross_site().into());
        }
        if takes_an_order(request) && is_a_visit(scan) {
            return Err(not_by_visiting().into());
        }
        Ok(None)
    }
}

impl From<Problem> for Rejection {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        match self {
            Self::Problem(problem) => problem.into_response(),
            // The edge adds `Access-Control-Allow-Origin`.
            Self::Preflight(_) => {
                let mut response = StatusCode::NO_CONTENT.into_response();
                let headers = response.headers_mut();
                headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, CORS_METHODS);
                headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, CORS_REQUEST_HEADERS);
                headers.insert(header::ACCESS_CONTROL_MAX_AGE, CORS_MAX_AGE);
                response
            }
            Self::LogIn(location) => {
                let headers = [
                    (header::LOCATION, location),
                    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
                ];
                (StatusCode::SEE_OTHER, headers).into_response()
            }
        }
    }
}

pub(super) fn allow(response: &mut Response<Body>, origin: HeaderValue) {
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, CORS_RESPONSE_HEADERS);
}

pub(super) fn vary(response: &mut Response<Body>) {
    response.headers_mut().append(header::VARY, CORS_VARY);
}

fn is_another_site(site: Option<&[u8]>) -> bool {
    matches!(site, Some(b"cross-site" | b"same-site"))
}

fn is_ours(origin: &HeaderValue, host: Option<&str>, site: Option<&[u8]>) -> bool {
    // A form on a page with `Referrer-Policy: no-referrer`, as nginx sends it, names no origin even to its own.
    let unnamed = origin == "null" && site == Some(b"same-origin");
    unnamed || origin.to_str().is_ok_and(|origin| is_of(origin, host))
}

/// Whether an origin has this host. The scheme is not compared: TLS ends at a proxy.
fn is_of(origin: &str, host: Option<&str>) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else {
        return false;
    };
    let default = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let bare = |authority: &str| {
        let bare = authority.strip_suffix(default).unwrap_or(authority);
        bare.to_ascii_lowercase()
    };
    host.is_some_and(|host| bare(host) == bare(authority))
}

/// The one unsafe GET.
pub(super) fn takes_an_order<B>(request: &Request<B>) -> bool {
    matches!(request.uri().path(), "/start" | "/start/") && request.method() == Method::GET
}

/// Whether a browser navigates or prefetches.
fn is_a_visit(scan: &Scan<'_>) -> bool {
    let looks_ahead = scan
        .purposes
        .iter()
        .flatten()
        .any(|purpose| purpose.as_bytes().starts_with(b"pre"));
    scan.fetch_mode.is_some_and(|mode| mode == "navigate")
        || looks_ahead
        // Browsers send Fetch metadata only over https and to localhost; over plain http an image looks like this.
        // PowerShell also claims Mozilla, but sends no `Accept-Language`.
        || scan.fetch_site.is_none()
            && scan.accept_language.is_some()
            && scan
                .user_agent
                .is_some_and(|agent| agent.as_bytes().starts_with(b"Mozilla/"))
}

/// Whether it is a top-level navigation to a page.
fn opens_a_page<B>(request: &Request<B>, scan: &Scan<'_>) -> bool {
    let path = request.uri().path();
    (matches!(path, "/" | "/board" | "/barista" | "/docs" | "/login") || path.starts_with("/docs/"))
        && (request.method() == Method::GET || request.method() == Method::HEAD)
        && scan.fetch_mode.is_some_and(|mode| mode == "navigate")
        && scan.fetch_dest.is_some_and(|dest| dest == "document")
}

fn cross_site() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "cross-site",
        "A page of another site sent this",
        "Requests that a browser sends on behalf of another site's page are not served here (Sec-Fetch-Site, Origin).",
    )
}

fn not_by_visiting() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "not-by-visiting",
        "An order is not taken by visiting a page",
        "A browser takes an order with POST; GET is for scripts.",
    )
}

#[cfg(test)]
mod tests {
    use axum::http::Version;

    use super::*;

    fn request(method: &str, uri: &str, headers: &[(&str, &str)]) -> Request<()> {
        // Of which a host need not be named.
        let version = Version::HTTP_10;
        let mut request = Request::builder().version(version).method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn status(origins: &Origins, request: &Request<()>) -> u16 {
        match origins.check(request, &Scan::of(request.headers())) {
            Ok(_) => 200,
            Err(rejection) => rejection.into_response().status().as_u16(),
        }
    }

    #[test]
    fn an_origin_is_ours_by_host_and_port() {
        for (origin, host, ours) in [
            ("http://localhost:8001", "localhost:8001", true),
            ("http://localhost", "localhost:80", true),
            ("https://Shop.example", "shop.example", true),
            ("https://shop.example", "shop.example:443", true),
            ("http://localhost:3000", "localhost:8001", false),
            ("http://localhost", "localhost:8001", false),
            ("https://shop.example", "shop.example:80", false),
            ("https://evil.example", "shop.example", false),
            ("null", "shop.example", false),
            ("file://", "", false),
            ("moz-extension://shop.example", "shop.example", false),
        ] {
            assert_eq!(is_of(origin, Some(host)), ours, "{origin} {host}");
        }
    }

    #[test]
    fn only_an_allowed_origin_is_answered_a_preflight() {
        let any = strings(&["*"]);
        let origins = Origins::new("customers", &any, &strings(&["https://shop.example"]));
        let ask = |origin, method: &str| {
            let asked = [
                ("host", "api.example"),
                ("origin", origin),
                ("sec-fetch-site", "cross-site"),
                ("access-control-request-method", "POST"),
            ];
            status(&origins, &request(method, "/order/", &asked))
        };
        assert_eq!(ask("https://shop.example", "OPTIONS"), 204);
        assert_eq!(ask("https://shop.example", "POST"), 200);
        assert_eq!(ask("https://shop.example.evil", "OPTIONS"), 403);
        assert_eq!(ask("http://shop.example", "POST"), 403);
        assert_eq!(ask("null", "POST"), 403);
    }

    #[test]
    fn an_image_where_browsers_send_no_fetch_metadata_takes_no_order_and_scripts_do() {
        let origins = Origins::new("staff", &strings(&["*"]), &[]);
        let mozilla = (
            "user-agent",
            "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0",
        );
        let german = ("accept-language", "de,en;q=0.5");
        for (headers, served) in [
            (&[mozilla, german][..], false),
            // PowerShell; Node; curl.
            (&[("user-agent", "Mozilla/5.0 PowerShell/7.4")], true),
            (&[("user-agent", "node"), ("accept-language", "*")], true),
            (&[("user-agent", "curl/8.5.0")], true),
            (&[], true),
        ] {
            let get = status(&origins, &request("GET", "/start/?wait=1", headers));
            assert_eq!(get, if served { 200 } else { 403 }, "{headers:?}");
            let post = status(&origins, &request("POST", "/start/", headers));
            assert_eq!(post, 200, "{headers:?}");
        }
    }
}
