//! Amazon's services: an emulator of them, and services that answer as a test wants, for what no emulator does.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

pub use crate::http::Request;
use crate::{Incoming, Process, free_port, http, until, variable};

/// The address of the emulator that this test, a process of its own, shares with others.
pub fn emulator() -> SocketAddr {
    let endpoints = variable("EMULATOR_ADDRESSES");
    let endpoints: Vec<&str> = endpoints.split_whitespace().collect();
    let endpoint = endpoints[std::process::id() as usize % endpoints.len()];
    let address = endpoint.strip_prefix("http://").unwrap();
    address.trim_end_matches('/').parse().unwrap()
}

/// Its URL.
pub fn endpoint() -> String {
    format!("http://{}", emulator())
}

/// An emulator of a test's own. It forgets everything when it ends.
#[derive(Debug)]
pub struct Emulator {
    /// May be frozen.
    pub process: Process,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Emulator {
    /// On a free port.
    pub async fn start() -> Self {
        Self::start_at(([127, 0, 0, 1], free_port()).into()).await
    }

    /// At an address that another one had.
    pub async fn start_at(address: SocketAddr) -> Self {
        let port = address.port().to_string();
        let mut command = Command::new(variable("EMULATOR_PROGRAM"));
        let process = Process::start(command.args(["-H", "127.0.0.1", "-p", &port]));
        until("the emulator listens", async || {
            TcpStream::connect(address).await.is_ok()
        })
        .await;
        Self { process, address }
    }

    /// Its URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// An error in the format of the service that this request is for; `canceled`, the reason of a canceled transaction.
pub fn error(
    request: &Request,
    code: &str,
    message: &str,
    status: u16,
    canceled: Option<&str>,
) -> Vec<u8> {
    let fault = format!("<Code>{code}</Code><Message>{message}</Message>");
    let target = request.field("x-amz-target").unwrap_or_default();
    let json = |shape: &str| {
        let mut error = json!({"__type": format!("{shape}#{code}"), "message": message});
        if let Some(reason) = canceled {
            let none = json!({"Code": "None"});
            error["CancellationReasons"] = json!([none, {"Code": reason, "Message": message}]);
        }
        http::answer(status, "application/x-amz-json-1.0", &error.to_string())
    };
    if target.starts_with("DynamoDB_") {
        json("com.amazonaws.dynamodb.v20120810")
    } else if target.starts_with("AmazonSQS.") {
        json("com.amazonaws.sqs")
    } else if request.body.starts_with(b"Action=") {
        let error =
            format!("<ErrorResponse><Error><Type>Sender</Type>{fault}</Error></ErrorResponse>");
        http::answer(status, "text/xml", &error)
    } else {
        http::answer(
            status,
            "application/xml",
            &format!("<Error>{fault}</Error>"),
        )
    }
}

/// An answer of a service that works.
pub fn answer(content_type: &str, body: &str) -> Vec<u8> {
    http::answer(200, content_type, body)
}

/// A service that answers as a test wants, until it is dropped.
#[derive(Debug)]
pub struct Service {
    /// Its URL.
    pub endpoint: String,
    requests: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Service {
    /// On a free port.
    pub async fn start<F>(answer: impl Fn(Request) -> F + Clone + Send + 'static) -> Self
    where
        F: Future<Output = Vec<u8>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&requests);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (answer, count) = (answer.clone(), Arc::clone(&count));
                connections.spawn(async move {
                    let (from, mut to) = client.into_split();
                    let mut from = Incoming::new(from);
                    while let Some(request) = from.message(|all| http::length(all, false)).await {
                        count.fetch_add(1, Ordering::Relaxed);
                        let answer = answer(Request::read(&request)).await;
                        if to.write_all(&answer).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self {
            endpoint,
            requests,
            _serving: serving,
        }
    }

    /// Answers every request with the same error, in the format of the service that is asked.
    pub async fn refusing(code: &str, message: &str, status: u16) -> Self {
        let (code, message) = (code.to_owned(), message.to_owned());
        Self::start(move |request| {
            let refused = error(&request, &code, &message, status, None);
            std::future::ready(refused)
        })
        .await
    }

    /// Requests so far.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}
