//! The barest possible hyper server: what HTTP/1.1 costs before any line of orders.
//!
//! Every request gets the same 200 with the static body `ok`. The body is deliberately not padded to the size of an
//! order's answer: the smallest answer needs no argument about the right size, and the comparison is the harder one for
//! the measured server. Like that server it runs on tokio's multi-threaded runtime, one task per connection, HTTP/1.1
//! only, keep-alive. It has the system's allocator, and tokio's one worker per processor unless `TOKIO_WORKER_THREADS`
//! says otherwise. There is no router, no timer, no log, no metric.
//!
//! With `--hold` every request waits for a request to `/release`: the lowest cost of a held connection.

use std::convert::Infallible;
use std::fs;
use std::path::PathBuf;
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
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// The barest possible hyper server: a fixed 200.
#[derive(Parser)]
struct Options {
    /// Where to write the addresses once the server accepts, in the form the measured server uses.
    #[arg(long, value_name = "FILE")]
    addresses: PathBuf,
    /// Hold every request until `/release` is asked for.
    #[arg(long)]
    hold: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    let listener = socket.listen(4096)?;
    announce(&options.addresses, &listener)?;

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

/// Writes the address under both names a server has, complete or not at all.
fn announce(file: &PathBuf, listener: &TcpListener) -> anyhow::Result<()> {
    let url = format!("http://{}", listener.local_addr()?);
    let text = serde_json::json!({ "customers": url, "staff": url }).to_string();
    let draft = file.with_extension("draft");
    fs::write(&draft, text).with_context(|| format!("writing {}", draft.display()))?;
    fs::rename(&draft, file).with_context(|| format!("writing {}", file.display()))
}

/// Answers at once, for as long as the client stays. How the connection ends is the client's affair.
async fn answer(stream: TcpStream) {
    let service = service_fn(async |_: Request<Incoming>| Ok::<_, Infallible>(ok()));
    let _ended = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// Holds each request until a client requests `/release`.
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
    let _ended = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn ok() -> Response<Full<Bytes>> {
    Response::new(Full::new(Bytes::from_static(b"ok")))
}
