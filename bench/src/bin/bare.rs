//! A minimal hyper server: what HTTP/1.1 costs before any line of orders.
//!
//! Every request gets the same 200 with the static body `ok`. The body is not padded to the size of an order's answer: the
//! smallest answer is the harder comparison for the measured server. As that server it runs on tokio's multi-threaded
//! runtime, one task per connection, HTTP/1.1 only, keep-alive. It has the system's allocator, and tokio's one worker per
//! processor unless `TOKIO_WORKER_THREADS` says otherwise. There is no router, no timer, no log, no metric.
//!
//! With `--hold` every request waits for a request to `/release`: the lowest cost of a held connection.

use std::convert::Infallible;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use clap::Parser;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;

/// A minimal hyper server: a fixed 200.
#[derive(Parser)]
struct Options {
    /// The port of the loopback network.
    #[arg(long)]
    port: u16,
    /// Hold every request until one for `/release`.
    #[arg(long)]
    hold: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(([127, 0, 0, 1], options.port).into())?;
    let listener = socket.listen(4096)?;
    let released = Arc::new(Notify::new());
    loop {
        let (stream, _) = listener.accept().await.context("accepting")?;
        stream.set_nodelay(true)?;
        if options.hold {
            tokio::spawn(hold(stream, Arc::clone(&released)));
        } else {
            tokio::spawn(answer(stream));
        }
    }
}

/// Answers at once, until the client disconnects.
async fn answer(stream: TcpStream) {
    let service = service_fn(async |_: Request<Incoming>| Ok::<_, Infallible>(ok()));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let _ended = connection.await;
}

/// Holds each request until one for `/release` arrives on any connection.
async fn hold(stream: TcpStream, released: Arc<Notify>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let released = Arc::clone(&released);
        async move {
            if request.uri().path() == "/release" {
                released.notify_waiters();
            } else {
                drop(request);
                released.notified().await;
            }
            Ok::<_, Infallible>(ok())
        }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let _ended = connection.await;
}

fn ok() -> Response<Full<Bytes>> {
    Response::new(Full::new(Bytes::from_static(b"ok")))
}
