//! Services that answer as a test wants, for what no emulator does.

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::errors::Service;

/// Serves on a free port until the set is dropped: its address. A request that is answered with an error loses its connection.
pub(crate) async fn serve<A, F, E>(answer: A) -> (String, JoinSet<()>)
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response<Full<Bytes>>, E>> + Send + 'static,
    E: Error + Send + Sync + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            connections.spawn(async move {
                let connection = hyper::server::conn::http1::Builder::new();
                let stream = TokioIo::new(stream);
                drop(
                    connection
                        .serve_connection(stream, service_fn(answer))
                        .await,
                );
            });
        }
    });
    (address, serving)
}

/// An error in the format of its service.
pub(crate) fn refusal(
    service: Service,
    code: &str,
    message: &str,
    status: u16,
) -> Response<Full<Bytes>> {
    let fault = format!("<Code>{code}</Code><Message>{message}</Message>");
    let (kind, body) = match service {
        Service::All | Service::DynamoDb => {
            let kind = format!("com.amazonaws.dynamodb.v20120810#{code}");
            (
                "application/x-amz-json-1.0",
                json!({"__type": kind, "message": message}).to_string(),
            )
        }
        Service::Sqs => {
            let kind = format!("com.amazonaws.sqs#{code}");
            (
                "application/x-amz-json-1.0",
                json!({"__type": kind, "message": message}).to_string(),
            )
        }
        Service::Sns => (
            "text/xml",
            format!("<ErrorResponse><Error><Type>Sender</Type>{fault}</Error></ErrorResponse>"),
        ),
        Service::S3 => ("application/xml", format!("<Error>{fault}</Error>")),
    };
    let response = Response::builder().status(status);
    let response = response.header("content-type", kind);
    response.body(Full::from(body)).unwrap()
}

/// A service that answers every request with the same error.
pub(crate) struct Refusing {
    pub(crate) address: String,
    requests: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Refusing {
    pub(crate) async fn with(service: Service, code: &str, message: &str, status: u16) -> Self {
        let requests = Arc::new(AtomicUsize::new(0));
        let (code, message, seen) = (code.to_owned(), message.to_owned(), Arc::clone(&requests));
        let (address, serving) = serve(move |request: Request<Incoming>| {
            let (code, message, seen) = (code.clone(), message.clone(), Arc::clone(&seen));
            async move {
                // Read to its end, so that the client does not meet a reset connection.
                drop(request.into_body().collect().await);
                seen.fetch_add(1, Ordering::Relaxed);
                Ok::<_, Infallible>(refusal(service, &code, &message, status))
            }
        })
        .await;
        Self {
            address,
            requests,
            _serving: serving,
        }
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}
