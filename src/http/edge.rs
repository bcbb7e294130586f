//! Handles every request and answer of both listeners: request ids, rejections before routing, metrics by status and route,
//! security headers, one log line per request (at debug), and 500 for a handler that panics.
//!
//! One hyper service with one future, not a stack of layers: each held order has it in memory.

use std::any::Any;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::mem;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use axum::body::{Body, HttpBody as _};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use axum::response::IntoResponse;
use axum::routing::future::RouteFuture;
use axum::{Extension, Router};
use hyper::body::Incoming;
use ipnet::IpNet;
use metrics::{Counter, counter, describe_counter, describe_histogram, histogram};
use pin_project_lite::pin_project;
use tower::Service;
use tracing::{Level, Span, debug, debug_span, enabled, error};

use super::activity::{Activity, OpenRequest};
use super::api::Api;
use super::described::{Described, Route};
use super::guard::{Guard, Peer, may_log_in, shown};
use super::headers::Scan;
use super::html;
use super::login;
use super::origin::{self, Origins, Rejection};
use super::params::Caller;
use super::problem::Problem;
use super::recent::{self, Asked, Problems};
use super::reply::{Bare, FastPath, HangUp, Reply};
use super::request_id::{request_id, trace_id};
use super::transfer::{Leaving, arriving};
use crate::telemetry::Registry;

static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

#[derive(Clone)]
pub struct Edge {
    // One pointer: every connection has it.
    shared: Arc<Shared>,
}

struct Shared {
    /// Of the described paths.
    router: Router,
    /// Of all other paths: nothing there needs a credential.
    pages: Router,
    /// Rejects requests before routing.
    rejecting: Router,
    fast_path: Option<Arc<dyn FastPath>>,
    origins: Origins,
    guard: Arc<Guard>,
    seen: Arc<Seen>,
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edge").finish_non_exhaustive()
    }
}

impl Edge {
    /// Requests that `origins` and `guard` accept go to the routes of `api` and are measured in `registry`. Problems are
    /// recorded.
    pub fn new(
        listener: &'static str,
        api: Api,
        origins: Origins,
        guard: Arc<Guard>,
        (problems, registry): (Problems, Registry),
    ) -> Self {
        let described = Described::by(&api.openapi());
        let reject = async |Extension(rejection): Extension<Rejection>| rejection;
        let fast_path = api.fast_path();
        let [router, pages] = api.into_routers();
        let shared = Shared {
            router,
            pages,
            fast_path,
            rejecting: Router::new().fallback(reject),
            seen: Arc::new(Seen::new(
                listener,
                origins.vary(),
                described,
                (problems, registry),
                Arc::clone(&guard),
            )),
            origins,
            guard,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The service of one connection; its requests count in `activity`.
    pub fn service(self, peer: Peer, activity: Arc<Activity>) -> EdgeService {
        EdgeService {
            edge: self,
            peer,
            activity,
        }
    }
}

impl Shared {
    fn way(&self, request: &mut Request<Incoming>, route: &Route, peer: &Peer) -> Way<'_> {
        let scan = Scan::of(request.headers());
        let request_id = request_id(scan.request_id);
        let html = scan.accept.is_some() && html::prefers_html(request.headers());
        let forwarded = scan.forwarded_for.is_some();
        let client = forwarded.then(|| self.guard.client(peer.address, request.headers()));
        let (mut readable_by, mut granted) = (None, None);
        let checked = self.origins.check(request, &scan).and_then(|origin| {
            readable_by = origin;
            let requirement = route.requirement(request.method());
            granted = self.guard.check(request, &scan, requirement, peer)?;
            route.check_query(request.method(), request.uri())?;
            Ok(())
        });
        let fast_path = checked.is_ok() && route.is_described() && self.fast_path.is_some();
        let router = match checked {
            Ok(()) if route.is_described() => &self.router,
            Ok(()) => &self.pages,
            Err(rejection) => {
                let rejection = match rejection {
                    Rejection::Preflight(origin) => {
                        readable_by = Some(origin.clone());
                        Rejection::Preflight(origin)
                    }
                    Rejection::Problem(problem)
                        if html && self.guard.has_sessions() && may_log_in(request, &problem) =>
                    {
                        Rejection::LogIn(login::location(request.uri()))
                    }
                    rejection => rejection,
                };
                request.extensions_mut().insert(rejection);
                &self.rejecting
            }
        };
        let finish =
            (html || readable_by.is_some()).then(|| Box::new(Finish { html, readable_by }));
        Way {
            router,
            fast_path,
            caller: Caller {
                peer: peer.address,
                request_id,
                granted,
            },
            finish,
            client,
        }
    }
}

struct Way<'a> {
    router: &'a Router,
    /// False for a request that was refused, or whose path is not described.
    fast_path: bool,
    caller: Caller,
    finish: Option<Box<Finish>>,
    /// By the word of a proxy. A problem is recorded with it, when the request is gone.
    client: Option<IpNet>,
}

/// The service of one connection.
#[derive(Debug)]
pub struct EdgeService {
    edge: Edge,
    peer: Peer,
    activity: Arc<Activity>,
}

const ANSWERS: &str = "odyssey_http_answers_total";
const ABANDONED: &str = "odyssey_http_abandoned_total";
/// Name of the histogram of times from a request's header to its answer's, seconds.
pub const REQUEST_SECONDS: &str = "odyssey_http_request_seconds";
/// Upper bounds of its buckets, in seconds: from computed answers to held ones.
pub const BUCKETS_SECONDS: [f64; 12] = [
    0.0005, 0.002, 0.005, 0.02, 0.05, 0.2, 0.5, 2.0, 5.0, 30.0, 60.0, 300.0,
];

/// A listener's request metrics. Each handle is registered on first use.
struct Seen {
    listener: &'static str,
    /// Add `Vary: Origin`.
    vary: bool,
    registry: Registry,
    by_status: [OnceLock<Counter>; 500],
    abandoned: Counter,
    described: Described,
    problems: Problems,
    guard: Arc<Guard>,
}

impl Seen {
    fn new(
        listener: &'static str,
        vary: bool,
        described: Described,
        (problems, registry): (Problems, Registry),
        guard: Arc<Guard>,
    ) -> Self {
        let abandoned = registry.register(|| {
            describe_counter!(ANSWERS, "Answers by listener and status");
            describe_counter!(
                ABANDONED,
                "Requests whose clients left before there was an answer"
            );
            describe_histogram!(
                REQUEST_SECONDS,
                "Times from a request's header to its answer's, by route; a held order's is its wait"
            );
            counter!(ABANDONED, "listener" => listener)
        });
        Self {
            listener,
            vary,
            registry,
            by_status: std::array::from_fn(|_| OnceLock::new()),
            abandoned,
            described,
            problems,
            guard,
        }
    }

    fn answered(&self, status: u16, route: usize, seconds: f64) {
        if let Some(slot) = self.by_status.get(usize::from(status).wrapping_sub(100)) {
            let register =
                || counter!(ANSWERS, "listener" => self.listener, "status" => status.to_string());
            slot.get_or_init(|| self.registry.register(register))
                .increment(1);
        }
        let Route {
            path,
            seconds: slot,
            ..
        } = self.described.route(route);
        let register =
            || histogram!(REQUEST_SECONDS, "listener" => self.listener, "route" => path.clone());
        slot.get_or_init(|| self.registry.register(register))
            .record(seconds);
    }
}

impl hyper::service::Service<Request<Incoming>> for EdgeService {
    type Response = Response<Leaving>;
    type Error = HangUp;
    type Future = Answer;

    fn call(&self, mut request: Request<Incoming>) -> Answer {
        let open = self.activity.request();
        let shared = &*self.edge.shared;
        let seen = &shared.seen;
        let mut record = Record {
            route: seen.described.find(request.uri().path()),
            begun: Instant::now(),
            seen: Arc::clone(seen),
            answered: false,
            method: recent::name_of(request.method()),
            peer: self.peer.address,
            client: None,
        };
        let route = seen.described.route(record.route);
        let Way {
            router,
            fast_path,
            caller,
            finish,
            client,
        } = shared.way(&mut request, route, &self.peer);
        record.client = client;
        let span = if enabled!(Level::DEBUG) {
            self.span(&request, &caller)
        } else {
            Span::none()
        };
        let has_body = !request.body().is_end_stream();
        let is_stream = self.activity.streams().is_some();
        if !is_stream {
            self.activity.set_unread(has_body);
        }
        let (inner, id) = if fast_path && !has_body {
            let fresh = Fresh {
                shared: Arc::clone(&self.edge.shared),
                request,
                caller,
            };
            (Inner::Fresh(Box::new(fresh)), None)
        } else {
            let id = caller.request_id.clone();
            let request = request.map(|body| arriving(body, &self.activity));
            (
                span.in_scope(|| Inner::routed(router, request, caller)),
                Some(id),
            )
        };
        Answer {
            inner,
            finish,
            id,
            record,
            span,
            open: Some(open),
            is_due: is_stream,
        }
    }
}

/// An accepted request without a body that was not looked at yet. As the router's future does, it waits for its first poll: a
/// client may have left already.
struct Fresh {
    shared: Arc<Shared>,
    request: Request<Incoming>,
    caller: Caller,
}

impl Fresh {
    /// The fast path's way if it knows the request, else the router's; and the request's id.
    fn way(self) -> (Inner, HeaderValue) {
        let Self {
            shared,
            request,
            caller,
        } = self;
        let bare = Bare {
            method: request.method(),
            uri: request.uri(),
            version: request.version(),
            headers: request.headers(),
            caller: &caller,
        };
        let fast_path = shared.fast_path.as_deref();
        let reply = fast_path.and_then(|fast_path| fast_path.reply(&bare));
        if let Some(reply) = reply {
            return (reply.into(), caller.request_id);
        }
        let id = caller.request_id.clone();
        let request = request.map(|_| Body::empty());
        (Inner::routed(&shared.router, request, caller), id)
    }
}

impl EdgeService {
    /// The span of a request's log lines.
    fn span(&self, request: &Request<Incoming>, caller: &Caller) -> Span {
        let headers = request.headers();
        let trace_id = headers.get("traceparent").and_then(trace_id);
        let shared = &self.edge.shared;
        debug_span!(
            "request",
            request_id = caller.request_id.to_str().unwrap_or_default(),
            trace_id,
            listener = shared.seen.listener,
            client = shown(shared.guard.client(caller.peer, headers)),
            identity = caller.granted.as_ref().map(|granted| &*granted.identity.name),
            method = %request.method(),
            path = request.uri().path(),
        )
    }
}

/// Changes to a browser's answer.
#[derive(Debug)]
struct Finish {
    /// Render problems as HTML.
    html: bool,
    /// The CORS origin that may read it.
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

/// A request until it is answered.
struct Record {
    seen: Arc<Seen>,
    route: usize,
    begun: Instant,
    answered: bool,
    method: &'static str,
    peer: IpAddr,
    client: Option<IpNet>,
}

impl Record {
    /// The answer, recorded if it is a problem.
    fn answered(&mut self, response: Response<Body>, id: Option<&HeaderValue>) -> Response<Body> {
        self.answered = true;
        let (status, took) = (response.status(), self.begun.elapsed());
        let seconds = took.as_secs_f64();
        self.seen.answered(status.as_u16(), self.route, seconds);
        debug!(
            status = status.as_u16(),
            duration_ms = in_ms(seconds),
            "answered"
        );
        if !status.is_client_error() && !status.is_server_error() {
            return response;
        }
        let seen = &self.seen;
        let asked = || Asked {
            request_id: id,
            listener: seen.listener,
            method: self.method,
            route: &seen.described.route(self.route).path,
            client: self.client(),
        };
        seen.problems.record(response, self.begun + took, asked)
    }

    fn client(&self) -> String {
        let guard = &self.seen.guard;
        let peer = || guard.client(self.peer, &HeaderMap::new());
        shown(self.client.unwrap_or_else(peer))
    }

    fn handed_over(&mut self) {
        self.answered = true;
        debug!("the request is handed over to another server");
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.answered {
            self.seen.abandoned.increment(1);
        }
    }
}

fn in_ms(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e3
}

pin_project! {
    /// A request on its way to its answer.
    pub struct Answer {
        inner: Inner,
        id: Option<HeaderValue>,
        // Boxed if needed: a held order costs memory for each byte.
        finish: Option<Box<Finish>>,
        record: Record,
        span: Span,
        open: Option<OpenRequest>,
        // Whether the answer may leave as soon as it is there.
        is_due: bool,
    }

    impl PinnedDrop for Answer {
        fn drop(this: Pin<&mut Self>) {
            let record = &this.record;
            if !record.answered {
                let _entered = this.span.enter();
                let seconds = record.begun.elapsed().as_secs_f64();
                debug!(duration_ms = in_ms(seconds), "the client disconnected");
            }
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").finish_non_exhaustive()
    }
}

impl Future for Answer {
    type Output = Result<Response<Leaving>, HangUp>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let _entered = this.span.enter();
        let polled = catch_unwind(AssertUnwindSafe(|| {
            if let Some(fresh) = this.inner.take_fresh() {
                let id = this.id.insert(fresh.caller.request_id.clone());
                (*this.inner, *id) = fresh.way();
            }
            this.inner.poll(cx)
        }));
        let mut response = match polled {
            Ok(response) => ready!(response),
            Err(panic) => match this.id {
                Some(id) => panicked(&*panic, id),
                None => Problem::bug().into_response(),
            },
        };
        if response.extensions().get::<HangUp>().is_some() {
            this.record.handed_over();
            return Poll::Ready(Err(HangUp));
        }
        if !mem::replace(this.is_due, true) {
            // Put off by one turn of the task, in which its worker polls the other tasks that are ready. So their requests are
            // read before the first answer is written, and the answers are written one after the other: a client with many
            // connections wakes once for all of them. Waking it is a large part of what an answer costs.
            *this.inner = Inner::Now(Some(response));
            set_put_off(this.open.as_ref(), true);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        set_put_off(this.open.as_ref(), false);
        response = this.record.answered(response, this.id.as_ref());
        if let Some(finish) = this.finish.take() {
            response = finish.apply(response, this.id.as_ref());
        }
        if this.record.seen.vary {
            origin::vary(&mut response);
        }
        if let Some(id) = this.id.take() {
            finish_headers(response.headers_mut(), id);
        }
        let open = this.open.take();
        Poll::Ready(Ok(response.map(|body| Leaving::new(body, open))))
    }
}

fn set_put_off(open: Option<&OpenRequest>, put_off: bool) {
    if let Some(open) = open {
        open.activity().set_put_off(put_off);
    }
}

/// A request's way to its answer. What waits is boxed: each connection has room for the answer itself, and no more.
enum Inner {
    Fresh(Box<Fresh>),
    /// None once it was taken.
    Now(Option<Response<Body>>),
    Later(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
    Routed(Pin<Box<RouteFuture<Infallible>>>),
}

impl From<Reply> for Inner {
    fn from(reply: Reply) -> Self {
        match reply {
            Reply::Now(response) => Self::Now(Some(response)),
            Reply::Later(response) => Self::Later(response),
        }
    }
}

impl Inner {
    fn routed(router: &Router, mut request: Request<Body>, caller: Caller) -> Self {
        request.extensions_mut().insert(caller);
        Self::Routed(Box::pin(router.clone().call(request)))
    }

    fn take_fresh(&mut self) -> Option<Fresh> {
        match mem::replace(self, Self::Now(None)) {
            Self::Fresh(fresh) => Some(*fresh),
            other => {
                *self = other;
                None
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Response<Body>> {
        match self {
            Self::Fresh(_) => unreachable!("it was taken"),
            Self::Now(response) => Poll::Ready(response.take().expect("polled once")),
            Self::Later(response) => response.as_mut().poll(cx),
            Self::Routed(response) => response.as_mut().poll(cx).map(|Ok(response)| response),
        }
    }
}

/// 500, for a handler that panicked.
fn panicked(panic: &(dyn Any + Send), request_id: &HeaderValue) -> Response<Body> {
    let (said, request_id) = (said(panic), request_id.to_str().ok());
    error!(request_id, said, "a request handler panicked");
    Problem::bug().into_response()
}

/// The message of a panic.
pub(super) fn said(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("something that is not text")
}

pub(super) fn finish_headers(headers: &mut HeaderMap, request_id: HeaderValue) {
    secure(headers);
    headers.insert(X_REQUEST_ID.clone(), request_id);
}

/// Security headers, unless the answer has a policy of its own. HTML pages add more, and nginx sets them on all answers.
fn secure(headers: &mut HeaderMap) {
    const NOTHING: HeaderValue =
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(NOTHING);
}
