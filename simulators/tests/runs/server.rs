//! What the small desks have in common: a listener on a port of its own, and answers in JSON.

use std::{io, net::SocketAddr};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;

pub(crate) type Reply = Response<Full<Bytes>>;

/// Answers every request on every connection until the test ends. An error makes hyper hang up without a word. `came`
/// is called for each connection.
pub(crate) async fn serve<A, F>(came: impl Fn() + Send + 'static, answer: A) -> SocketAddr
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = io::Result<Reply>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            came();
            let service = service_fn(answer.clone());
            tokio::spawn(async move {
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                // Visitors who leave are part of the game.
                drop(connection.await);
            });
        }
    });
    address
}

pub(crate) fn reply(status: StatusCode, body: &Value) -> Reply {
    let mut reply = Response::new(Full::new(body.to_string().into()));
    *reply.status_mut() = status;
    reply
}
