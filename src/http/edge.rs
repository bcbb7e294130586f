//! Where every request enters and every answer leaves, on both listeners: request ids, counting by status, one log line
//! per request (at debug), and 500 for a handler that panics.
//!
//! It is written as one hyper service with one future, not as a stack of layers: a held order keeps all of this in
//! memory for as long as its customer waits.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use axum::response::IntoResponse;
use axum::routing::future::RouteFuture;
use axum::{Extension, Router};
use hyper::body::Incoming;
use metrics::{Counter, counter, describe_counter};
use pin_project_lite::pin_project;
use tower::Service;
use tracing::{Level, Span, debug, debug_span, enabled, error};
use uuid::Uuid;

use super::activity::{Activity, OpenRequest};
use super::api::Api;
use super::html;
use super::origin::{self, Origins, Rejection};
use super::params::Known;
use super::problem::Problem;
use crate::telemetry::Registry;

/// The longest request id that is taken over from a request, in characters.
pub const REQUEST_ID_CHARS_MAX: usize = 128;

static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// One listener's edge; cheap to clone.
#[derive(Clone)]
pub struct Edge {
    // One pointer: every connection has it.
    shared: Arc<Shared>,
}

struct Shared {
    router: Router,
    /// Answers what is rejected before it is routed.
    rejecting: Router,
    origins: Origins,
    known: Known,
    answers: Arc<Answers>,
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edge").finish_non_exhaustive()
    }
}

impl Edge {
    /// Requests of `listener` that `origins` lets in go to the routes of `api`, and their answers are counted in `registry`.
    pub fn new(listener: &'static str, api: Api, origins: Origins, registry: Registry) -> Self {
        registry.register(|| {
            describe_counter!(ANSWERS, "Answers by listener and status");
        });
        let reject = async |Extension(rejection): Extension<Rejection>| rejection;
        let shared = Shared {
            known: Known::of(&api.openapi()),
            router: api.into_router(),
            rejecting: Router::new().fallback(reject),
            answers: Arc::new(Answers {
                listener,
                vary: origins.vary(),
                registry,
                by_status: std::array::from_fn(|_| OnceLock::new()),
            }),
            origins,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The way in for a connection, whose `activity` its requests keep.
    pub fn entrance(self, peer: IpAddr, activity: Arc<Activity>) -> Entrance {
        Entrance {
            edge: self,
            peer,
            activity,
        }
    }
}

impl Shared {
    /// Where a request goes, and what is done to its answer.
    fn way(&self, request: &mut Request<Incoming>) -> (&Router, Option<Box<Finish>>) {
        let allowed = self.origins.check(request);
        let known = || self.known.check(request).map_err(Rejection::from);
        let (router, readable_by) = match allowed.and_then(|origin| known().map(|()| origin)) {
            Ok(origin) => (&self.router, origin),
            Err(rejection) => {
                let origin = match &rejection {
                    Rejection::Preflight(origin) => Some(origin.clone()),
                    Rejection::Problem(_) => None,
                };
                request.extensions_mut().insert(rejection);
                (&self.rejecting, origin)
            }
        };
        let html = html::prefers_html(request.headers());
        let finish =
            (html || readable_by.is_some()).then(|| Box::new(Finish { html, readable_by }));
        (router, finish)
    }
}

/// Who asks; every request carries it in its extensions.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Where the connection comes from.
    pub peer: IpAddr,
    /// The request's id, as the answer will carry it.
    pub request_id: HeaderValue,
}

/// One connection's way in.
#[derive(Debug)]
pub struct Entrance {
    edge: Edge,
    peer: IpAddr,
    activity: Arc<Activity>,
}

const ANSWERS: &str = "odyssey_http_answers_total";

/// Counters by status, each registered when it is first needed.
struct Answers {
    listener: &'static str,
    /// They differ by `Origin`.
    vary: bool,
    registry: Registry,
    by_status: [OnceLock<Counter>; 500],
}

impl Answers {
    fn count(&self, status: u16) {
        let Some(slot) = self.by_status.get(usize::from(status).wrapping_sub(100)) else {
            return;
        };
        slot.get_or_init(|| {
            self.registry.register(
                || counter!(ANSWERS, "listener" => self.listener, "status" => status.to_string()),
            )
        })
        .increment(1);
    }
}

impl hyper::service::Service<Request<Incoming>> for Entrance {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, mut request: Request<Incoming>) -> Answer {
        let open = self.activity.request();
        let id = request_id(request.headers());
        request.extensions_mut().insert(Caller {
            peer: self.peer,
            request_id: id.clone(),
        });
        let shared = &*self.edge.shared;
        let answers = Arc::clone(&shared.answers);
        let span = if enabled!(Level::DEBUG) {
            span(&id, answers.listener, &request)
        } else {
            Span::none()
        };
        let (router, finish) = shared.way(&mut request);
        let inner = span.in_scope(|| router.clone().call(request));
        Answer {
            inner,
            finish,
            id: Some(id),
            answers,
            span,
            open,
        }
    }
}

/// Everything that is logged on behalf of this request carries these.
fn span(id: &HeaderValue, listener: &str, request: &Request<Incoming>) -> Span {
    let trace_id = request.headers().get("traceparent").and_then(trace_id);
    debug_span!(
        "request",
        request_id = id.to_str().unwrap_or_default(),
        trace_id,
        listener,
        method = %request.method(),
        path = request.uri().path(),
    )
}

/// The id the client chose, if it is sane, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    headers
        .get(&X_REQUEST_ID)
        .filter(|id| {
            (1..=REQUEST_ID_CHARS_MAX).contains(&id.len())
                && id.as_bytes().iter().all(u8::is_ascii_graphic)
        })
        .map_or_else(new_request_id, |id| {
            // A copy of its own: a slice of the request's header would keep the connection's whole buffer alive.
            HeaderValue::from_bytes(id.as_bytes()).unwrap_or_else(|_| new_request_id())
        })
}

fn new_request_id() -> HeaderValue {
    let mut text = Uuid::encode_buffer();
    let text = Uuid::new_v4().hyphenated().encode_lower(&mut text);
    HeaderValue::from_str(text).expect("hexadecimal digits and hyphens are a header value")
}

/// The trace id of a W3C `traceparent` header (Trace Context, level 1, section 3.2).
fn trace_id(header: &HeaderValue) -> Option<&str> {
    let mut fields = header.to_str().ok()?.split('-');
    let (version, trace_id) = (fields.next()?, fields.next()?);
    let hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let sane = version.len() == 2
        && hex(version)
        && version != "ff"
        && trace_id.len() == 32
        && hex(trace_id)
        && trace_id.bytes().any(|digit| digit != b'0');
    sane.then_some(trace_id)
}

/// What is done to an answer that goes to a browser.
#[derive(Debug)]
struct Finish {
    /// A problem becomes a page.
    html: bool,
    /// Pages of this origin may read it.
    readable_by: Option<HeaderValue>,
}

impl Finish {
    fn apply(self, mut response: Response<Body>, id: Option<&HeaderValue>) -> Response<Body> {
        if self.html {
            let id = id.and_then(|id| id.to_str().ok());
            response = html::problem_as_page(response, id.unwrap_or_default());
        }
        if let Some(origin) = self.readable_by {
            origin::allow(&mut response, origin);
        }
        response
    }
}

pin_project! {
    /// A request on its way through the router.
    pub struct Answer {
        #[pin]
        inner: RouteFuture<Infallible>,
        id: Option<HeaderValue>,
        // Only of those who need it: a held order costs memory for each byte.
        finish: Option<Box<Finish>>,
        answers: Arc<Answers>,
        span: Span,
        open: OpenRequest,
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").finish_non_exhaustive()
    }
}

impl Future for Answer {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let _entered = this.span.enter();
        let polled = catch_unwind(AssertUnwindSafe(|| this.inner.poll(cx)));
        let mut response = match polled {
            Ok(poll) => match ready!(poll) {
                Ok(response) => response,
                Err(never) => match never {},
            },
            Err(panic) => {
                let said = panic
                    .downcast_ref::<&str>()
                    .copied()
                    .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
                    .unwrap_or("something that is not text");
                let request_id = this.id.as_ref().and_then(|id| id.to_str().ok());
                error!(request_id, said, "a request handler panicked");
                Problem::bug().into_response()
            }
        };
        let status = response.status().as_u16();
        this.answers.count(status);
        debug!(status, "answered");
        if let Some(finish) = this.finish.take() {
            response = finish.apply(response, this.id.as_ref());
        }
        if this.answers.vary {
            origin::vary(&mut response);
        }
        if let Some(id) = this.id.take() {
            response.headers_mut().insert(X_REQUEST_ID.clone(), id);
        }
        Poll::Ready(Ok(response))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_sane_request_id_is_taken_over() {
        for (given, kept) in [
            ("abc-123", true),
            ("0191d5c8-7a9b-7000-8000-000000000000", true),
            ("", false),
            ("two words", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("x-request-id", HeaderValue::from_static(given));
            assert_eq!(request_id(&headers) == given, kept, "{given:?}");
        }
        let mut headers = HeaderMap::new();
        let long = HeaderValue::from_str(&"x".repeat(129)).unwrap();
        headers.insert("x-request-id", long.clone());
        assert_ne!(request_id(&headers), long);
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }

    #[test]
    fn the_trace_id_is_read_from_a_valid_traceparent_only() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        for (header, found) in [
            (format!("00-{id}-00f067aa0ba902b7-01"), Some(id)),
            (format!("ff-{id}-00f067aa0ba902b7-01"), None),
            (format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)), None),
            (
                format!("00-{}-00f067aa0ba902b7-01", id.to_uppercase()),
                None,
            ),
            ("00-short-00f067aa0ba902b7-01".to_owned(), None),
            ("nonsense".to_owned(), None),
        ] {
            let header = HeaderValue::from_str(&header).unwrap();
            assert_eq!(trace_id(&header), found, "{header:?}");
        }
    }
}
