//! A proxy before the server that corrupts the answers of one route, so that a scenario has something to find.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Mutex;
use tokio::task::{AbortHandle, JoinSet};

/// What happens to which requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    /// Method and path, in which `*` is one segment.
    pub(crate) route: (&'static str, &'static str),
    /// The number of the request on this route, from 1; 0 is every one.
    pub(crate) nth: usize,
    pub(crate) does: Does,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Does {
    /// The server answers, and the client's connection is closed instead.
    Drop,
    /// The request reaches the server twice, one after the other; the client receives the second answer.
    Repeat,
    /// The request does not reach the server; the client receives this status.
    Status(u16),
    /// The field of the answer at this pointer is replaced by what the function makes of it. One that is missing is null,
    /// and added.
    Alter(&'static str, fn(&Value) -> Value),
}

/// How often the rule has matched a request, and how often it was carried out.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    matched: AtomicUsize,
    done: AtomicUsize,
}

impl Counts {
    pub(crate) fn done(&self) -> usize {
        self.done.load(Relaxed)
    }
}

/// The proxy; it ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    serving: AbortHandle,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Proxy {
    pub(crate) async fn before(server: SocketAddr, rule: Rule, counts: Arc<Counts>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            // Its connections end with it.
            let mut connections = JoinSet::new();
            loop {
                let (stream, peer) = listener.accept().await.unwrap();
                let way = Way {
                    server,
                    client: peer.ip(),
                    rule,
                    counts: Arc::clone(&counts),
                    connection: Mutex::new(None),
                };
                connections.spawn(way.serve(stream));
                while connections.try_join_next().is_some() {}
            }
        });
        let serving = serving.abort_handle();
        Self { address, serving }
    }
}

/// The client's connection is closed.
#[derive(Debug)]
struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("closed on purpose")
    }
}

impl std::error::Error for Closed {}

/// From one connection of a client to one of the server.
struct Way {
    server: SocketAddr,
    /// The server limits what one address does, so the proxy comes from the client's.
    client: IpAddr,
    rule: Rule,
    counts: Arc<Counts>,
    connection: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

impl Way {
    async fn serve(self, stream: TcpStream) {
        let service = service_fn(|request| self.answer(request));
        // It ends with an error if the client leaves, or if an answer is dropped.
        let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        drop(served.await);
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Closed> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(|_| Closed)?.to_bytes();
        let request = Request::from_parts(head, Full::new(body));
        let Some(does) = self.fault(&request) else {
            return self.forward(request).await;
        };
        if let Does::Status(status) = does {
            self.counts.done.fetch_add(1, Relaxed);
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            return Ok(response);
        }
        let response = self.forward(request.clone()).await?;
        let response = match does {
            Does::Drop => Err(Closed),
            Does::Repeat => self.forward(request).await,
            Does::Alter(pointer, change) => match altered(response, pointer, change).await {
                Ok(response) => Ok(response),
                Err(untouched) => return Ok(untouched),
            },
            Does::Status(_) => unreachable!("it was answered above"),
        };
        self.counts.done.fetch_add(1, Relaxed);
        response
    }

    fn fault(&self, request: &Request<Full<Bytes>>) -> Option<Does> {
        let (method, path) = self.rule.route;
        let segments = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
        let (wanted, found) = (segments(path), segments(request.uri().path()));
        let is_meant = request.method() == method
            && wanted.len() == found.len()
            && wanted
                .iter()
                .zip(found)
                .all(|(wanted, found)| wanted == "*" || *wanted == found);
        if !is_meant {
            return None;
        }
        let number = self.counts.matched.fetch_add(1, Relaxed) + 1;
        (self.rule.nth == 0 || self.rule.nth == number).then_some(self.rule.does)
    }

    async fn forward(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Full<Bytes>>, Closed> {
        let mut connection = self.connection.lock().await;
        let reused = connection.take().filter(|reused| !reused.is_closed());
        let mut requests = match reused {
            Some(reused) => reused,
            None => self.connect().await.ok_or(Closed)?,
        };
        requests.ready().await.map_err(|_| Closed)?;
        let response = requests.send_request(request).await.map_err(|_| Closed)?;
        let (mut head, body) = response.into_parts();
        let body = body.collect().await.map_err(|_| Closed)?.to_bytes();
        *connection = Some(requests);
        // The length is that of the body as it is sent on.
        head.headers.remove(TRANSFER_ENCODING);
        head.headers.remove(CONTENT_LENGTH);
        Ok(Response::from_parts(head, Full::new(body)))
    }

    async fn connect(&self) -> Option<SendRequest<Full<Bytes>>> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(self.client, 0)).unwrap();
        let stream = socket.connect(self.server).await.ok()?;
        let (requests, driver) = handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(driver);
        Some(requests)
    }
}

/// The answer with another field; as it was if it is not JSON.
async fn altered(
    response: Response<Full<Bytes>>,
    pointer: &str,
    change: fn(&Value) -> Value,
) -> Result<Response<Full<Bytes>>, Response<Full<Bytes>>> {
    let (head, body) = response.into_parts();
    let Ok(body) = body.collect().await;
    let bytes = body.to_bytes();
    let Ok(mut json) = serde_json::from_slice::<Value>(&bytes) else {
        return Err(Response::from_parts(head, Full::new(bytes)));
    };
    let place = match (json.pointer(pointer).is_some(), pointer.rsplit_once('/')) {
        (false, Some((parent, field))) => {
            let parent = json.pointer_mut(parent);
            parent.map(|parent| &mut parent[field])
        }
        _ => json.pointer_mut(pointer),
    };
    let Some(place) = place else {
        return Err(Response::from_parts(head, Full::new(bytes)));
    };
    *place = change(place);
    Ok(Response::from_parts(
        head,
        Full::new(json.to_string().into()),
    ))
}
