//! Visitors. Each is one connection that no pool shares, so that a test decides when it is dropped.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::shop::PATIENCE;

/// A request, before it has a connection.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    method: Method,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    body: Bytes,
}

pub(crate) fn get(path: impl Into<String>) -> Ask {
    Ask::new(Method::GET, path)
}

pub(crate) fn post(path: impl Into<String>) -> Ask {
    Ask::new(Method::POST, path)
}

pub(crate) fn put(path: impl Into<String>) -> Ask {
    Ask::new(Method::PUT, path)
}

pub(crate) fn delete(path: impl Into<String>) -> Ask {
    Ask::new(Method::DELETE, path)
}

/// `POST /order/` without a body.
pub(crate) fn order() -> Ask {
    post("/order/")
}

/// What a drone reports of its delivery.
pub(crate) fn event(delivery: &str, event_type: &str) -> Ask {
    post(format!("/deliveries/{delivery}/events")).json(&json!({"type": event_type}))
}

/// What a sender sends.
pub(crate) fn send(package: &Value) -> Ask {
    post("/packages").json(package)
}

impl Ask {
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn key(self, key: impl Into<String>) -> Self {
        self.header("Idempotency-Key", key)
    }

    pub(crate) fn prefer(self, preference: &str) -> Self {
        self.header("Prefer", preference)
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn json(self, value: &Value) -> Self {
        self.header("Content-Type", "application/json")
            .body(value.to_string())
    }

    /// As hyper wants it: in origin form on HTTP/1.1, with the authority on HTTP/2.
    pub(crate) fn request(&self, authority: Option<SocketAddr>) -> Request<Full<Bytes>> {
        let path = if *ALL_BY_ROUTER {
            by_router(&self.path)
        } else {
            self.path.clone()
        };
        let uri = match authority {
            Some(address) => format!("http://{address}{path}"),
            None => path,
        };
        let mut request = Request::builder().method(self.method.clone()).uri(uri);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request.body(Full::new(self.body.clone())).unwrap()
    }
}

/// With `BY_ROUTER=1` in the environment the suite's requests take the router's way, also those that have a fast path.
static ALL_BY_ROUTER: LazyLock<bool> =
    LazyLock::new(|| std::env::var_os("BY_ROUTER").is_some_and(|value| value == "1"));

/// The same request for the server, but one that its fast path leaves to the router: there is an empty pair in the query.
pub(crate) fn by_router(whole: &str) -> String {
    let (path, query) = whole.split_once('?').unwrap_or((whole, ""));
    if matches!(path.trim_matches('/'), "order" | "start" | "finish") {
        format!("{path}?&{query}")
    } else {
        whole.to_owned()
    }
}

/// A complete answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = String::from_utf8_lossy(&self.body);
        write!(f, "{} {:?} {body}", self.status, self.headers)
    }
}

impl Answer {
    pub(crate) async fn read<B>(response: hyper::Response<B>) -> Result<Self, B::Error>
    where
        B: hyper::body::Body,
    {
        let (head, body) = response.into_parts();
        Ok(Self {
            status: head.status.as_u16(),
            headers: head.headers,
            body: body.collect().await?.to_bytes(),
        })
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {self}"))
    }

    /// The body of an answer that must have this status.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self}");
        if self.body.is_empty() {
            return Value::Null;
        }
        self.json()
    }

    /// Checks that it is a problem of this status and kind (RFC 9457), and returns its members.
    #[track_caller]
    pub(crate) fn expect_problem(&self, status: u16, kind: &str) -> Value {
        assert_eq!(self.status, status, "{self}");
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self}"
        );
        assert_eq!(self.header("cache-control"), Some("no-store"), "{self}");
        assert!(self.header("x-request-id").is_some(), "{self}");
        let problem = self.json();
        assert_eq!(
            problem["type"],
            format!("urn:odyssey:problem:{kind}"),
            "{self}"
        );
        assert_eq!(problem["status"], status, "{self}");
        let after = self
            .header("retry-after")
            .and_then(|secs| secs.parse().ok());
        assert_eq!(problem["retry_after_s"].as_u64(), after, "{self}");
        for member in ["title", "detail"] {
            let text = problem[member].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{member} is missing: {self}");
        }
        problem
    }

    /// `Retry-After` in seconds.
    #[track_caller]
    pub(crate) fn retry_after(&self) -> u64 {
        let header = self.header("retry-after");
        header
            .and_then(|secs| secs.parse().ok())
            .unwrap_or_else(|| panic!("no sane Retry-After: {self}"))
    }
}

/// A listener's address, and how it is entered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    /// The token of requests that have no other; leaked.
    pub(crate) token: Option<&'static str>,
    /// Leaked; None: plain HTTP.
    pub(crate) tls: Option<&'static Arc<ClientConfig>>,
}

impl Door {
    pub(crate) fn at(address: SocketAddr) -> Self {
        Self {
            address,
            token: None,
            tls: None,
        }
    }

    pub(crate) fn with_token(self, token: &str) -> Self {
        let token = Some(&*token.to_owned().leak());
        Self { token, ..self }
    }

    pub(crate) fn without_token(self) -> Self {
        Self {
            token: None,
            ..self
        }
    }

    /// Bytes, without HTTP.
    pub(crate) async fn raw(self) -> Raw {
        Raw(TcpStream::connect(self.address).await.unwrap())
    }

    pub(crate) async fn connect(self) -> Connection {
        let stream = TcpStream::connect(self.address).await.unwrap();
        self.over(stream).await
    }

    /// From this address of this machine, which has all of 127.0.0.0/8.
    pub(crate) async fn connect_from(self, from: &str) -> Connection {
        let socket = TcpSocket::new_v4().unwrap();
        let from: IpAddr = from.parse().unwrap();
        socket.bind(SocketAddr::new(from, 0)).unwrap();
        self.over(socket.connect(self.address).await.unwrap()).await
    }

    pub(crate) async fn over(self, stream: TcpStream) -> Connection {
        stream.set_nodelay(true).unwrap();
        let Some(tls) = self.tls else {
            return self.speak(stream).await;
        };
        let name = ServerName::try_from("localhost").unwrap();
        // Boxed: most tests need no TLS, and its futures are large.
        let tls = TlsConnector::from(Arc::clone(tls)).connect(name, stream);
        let tls = Box::pin(tls).await.unwrap();
        Box::pin(self.speak(tls)).await
    }

    async fn speak(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Connection {
        let (requests, driver) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        Connection {
            door: self,
            requests,
            // The sender of the request gets the error, so it is ignored here.
            driver: tokio::spawn(async { drop(driver.await) }),
        }
    }

    /// One request on a connection of its own, answered.
    pub(crate) async fn ask(self, ask: Ask) -> Answer {
        let what = format!("{ask:?} is answered");
        // Boxed: tests ask often, and what they ask would otherwise make all of their futures large.
        let answered = Box::pin(async { self.connect().await.ask(&ask).await });
        within(&what, answered).await
    }

    /// The body of an answer that must have this status.
    pub(crate) async fn expect(self, ask: Ask, status: u16) -> Value {
        self.ask(ask).await.expect(status)
    }

    /// The members of a problem that must be of this status and kind.
    pub(crate) async fn expect_problem(self, ask: Ask, status: u16, kind: &str) -> Value {
        self.ask(ask).await.expect_problem(status, kind)
    }

    /// One request on a connection of its own, which goes on while the test does something else.
    pub(crate) fn hold(self, ask: Ask) -> Visitor {
        let what = format!("{ask:?} is answered");
        let task = tokio::spawn(async move { self.connect().await.try_ask(&ask).await });
        Visitor { what, task }
    }

    /// An event stream, which must begin.
    pub(crate) async fn events(self, ask: Ask) -> Events {
        let ask = ask.header("accept", "text/event-stream");
        let mut connection = self.connect().await;
        let response = connection.send(&ask).await.unwrap();
        if response.headers()["content-type"] != "text/event-stream" {
            Answer::read(response).await.unwrap().expect(200);
            unreachable!("it is no stream");
        }
        Events {
            _connection: connection,
            body: response.into_body(),
            text: String::new(),
        }
    }

    /// Whether the address refuses connections.
    pub(crate) async fn refuses(self) -> bool {
        match TcpStream::connect(self.address).await {
            Ok(_) => false,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        }
    }
}

/// An open HTTP/1.1 connection. Dropping it closes the socket.
#[derive(Debug)]
pub(crate) struct Connection {
    door: Door,
    requests: http1::SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    pub(crate) async fn ask(&mut self, ask: &Ask) -> Answer {
        let answer = self.try_ask(ask).await;
        answer.unwrap_or_else(|error| panic!("no answer to {ask:?}: {error:?}"))
    }

    pub(crate) async fn try_ask(&mut self, ask: &Ask) -> Result<Answer, hyper::Error> {
        Answer::read(self.send(ask).await?).await
    }

    async fn send(&mut self, ask: &Ask) -> Result<hyper::Response<Incoming>, hyper::Error> {
        self.requests.ready().await?;
        let mut request = ask.request(None);
        let host = self.door.address.to_string();
        let headers = request.headers_mut();
        headers.entry(HOST).or_insert(host.parse().unwrap());
        if let Some(token) = self.door.token {
            let bearer = format!("Bearer {token}").parse().unwrap();
            headers.entry(AUTHORIZATION).or_insert(bearer);
        }
        self.requests.send_request(request).await
    }

    /// Waits until the server has closed it.
    pub(crate) async fn closed(&mut self) {
        within("the connection is closed", &mut self.driver)
            .await
            .unwrap();
    }
}

/// An open event stream. Dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Events {
    _connection: Connection,
    body: Incoming,
    /// What was read, and is no whole event yet.
    text: String,
}

impl Events {
    /// The name and the data of the next event; none at the end. Comments are passed over.
    pub(crate) async fn next(&mut self) -> Option<(String, Value)> {
        within("there is another event", self.try_next())
            .await
            .unwrap()
    }

    /// As [`Events::next`], or the error by which the stream broke.
    pub(crate) async fn try_next(&mut self) -> Result<Option<(String, Value)>, hyper::Error> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let field = |name| block.lines().find_map(|line| line.strip_prefix(name));
                let event = field("event: ").map(|name| {
                    let data = field("data: ").unwrap();
                    (name.to_owned(), serde_json::from_str(data).unwrap())
                });
                self.text = rest.into();
                if event.is_some() {
                    return Ok(event);
                }
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(frame) => {
                    let bytes = frame?.into_data().unwrap();
                    self.text.push_str(str::from_utf8(&bytes).unwrap());
                }
            }
        }
    }

    /// The data of the next event, which must have this name.
    pub(crate) async fn expect(&mut self, name: &str) -> Value {
        let (next, data) = self.next().await.expect("the stream goes on");
        assert_eq!(next, name, "{data}");
        data
    }

    /// The data of the first event of which this is so.
    pub(crate) async fn until(&mut self, holds: impl Fn(&Value) -> bool) -> Value {
        loop {
            let (_, data) = self.next().await.expect("the stream goes on");
            if holds(&data) {
                return data;
            }
        }
    }

    pub(crate) async fn expect_end(&mut self) {
        assert_eq!(self.next().await, None);
    }
}

/// A request that is under way.
#[derive(Debug)]
pub(crate) struct Visitor {
    what: String,
    task: JoinHandle<Result<Answer, hyper::Error>>,
}

impl Drop for Visitor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Visitor {
    /// A request that this future makes.
    pub(crate) fn new(
        request: impl Future<Output = Result<Answer, hyper::Error>> + Send + 'static,
    ) -> Self {
        Self {
            what: "a visitor is answered".to_owned(),
            task: tokio::spawn(request),
        }
    }

    pub(crate) async fn answer(mut self) -> Answer {
        let what = self.what.clone();
        let answer = within(&what, &mut self.task).await.unwrap();
        answer.unwrap_or_else(|error| panic!("not so: {what}: {error:?}"))
    }

    /// Closes the connection, answered or not.
    pub(crate) async fn leave(mut self) {
        self.task.abort();
        drop((&mut self.task).await);
    }

    /// Whether nothing has come back yet.
    pub(crate) fn is_held(&self) -> bool {
        !self.task.is_finished()
    }
}

/// A socket on which the test writes every byte itself.
#[derive(Debug)]
pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Everything until the server closes; a reset counts as closing.
    pub(crate) async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        // What came before a reset has been read.
        drop(within("the server closes", self.0.read_to_end(&mut bytes)).await);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// One answer with a `Content-Length` (or without a body), as text.
    pub(crate) async fn one_answer(&mut self) -> String {
        within("an answer", async {
            let mut bytes = Vec::new();
            loop {
                let text = String::from_utf8_lossy(&bytes);
                if let Some((head, body)) = text.split_once("\r\n\r\n") {
                    let length = head
                        .to_ascii_lowercase()
                        .lines()
                        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())
                        .unwrap_or(0);
                    if body.len() >= length {
                        return text.into_owned();
                    }
                }
                let byte = self.0.read_u8().await;
                bytes.push(byte.unwrap_or_else(|error| panic!("{error} after {text:?}")));
            }
        })
        .await
    }
}

/// Bounds a wait for something that must happen.
pub(crate) async fn within<T>(what: &str, happens: impl Future<Output = T>) -> T {
    let happened = timeout(PATIENCE, happens).await;
    happened.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}
