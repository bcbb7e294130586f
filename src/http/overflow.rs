//! Connections above the limit: accepted ones that wait for a permit, and ones that the gate refuses.
//!
//! Health checks must be answered even at the limit, or an orchestrator kills the server with all the requests it holds. So
//! a connection without a permit is peeked at: health checks are served at once, others wait for a permit first in, first
//! out. While the queue is full no connection is accepted, until a permit is free, or the oldest has waited for
//! [`WAIT_MIN`] and is answered 503.

use std::collections::VecDeque;
use std::fmt::Write;
use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::IntoResponse;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::edge;
use super::html::whole;
use super::problem::Problem;
use super::request_id::new_request_id;

/// Connections that wait for a permit. Each uses one of the process's reserved file descriptors.
const WAITING_MAX: usize = 64;
/// The least time in the queue. A shorter burst is served completely.
const WAIT_MIN: Duration = Duration::from_secs(5);
/// Time for a health check's header to arrive.
const HEADER_TIMEOUT: Duration = Duration::from_secs(1);
/// Time between two peeks at an incomplete header.
const PEEK_INTERVAL: Duration = Duration::from_millis(20);
/// The largest header of a health check.
const HEALTH_HEADER_MAX_BYTES: usize = 2048;
/// Health checks served at once.
const HEALTH_MAX: usize = 16;
/// Requests served without a permit.
const HEALTH: [&[u8]; 4] = [
    b"GET /healthz",
    b"GET /readyz",
    b"HEAD /healthz",
    b"HEAD /readyz",
];
/// Rejections under way; further connections are closed without an answer.
const REJECTIONS_MAX: usize = 64;
/// Time for the client to read the rejection.
const REJECT_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct OverflowQueue {
    /// Since when each waits, and the channel that rejects it.
    waiting: Mutex<VecDeque<(Instant, oneshot::Sender<()>)>>,
    rejections: Semaphore,
    health: Arc<Semaphore>,
    /// Under TLS a connection is not peeked at: health checks wait as others do, and a rejected connection is closed.
    tls: bool,
}

/// A connection's place in the queue; resolves when it is rejected.
#[derive(Debug)]
pub(super) struct Waiting(oneshot::Receiver<()>);

/// How waiting ends.
#[derive(Debug)]
pub(super) enum Verdict {
    Permit(OwnedSemaphorePermit),
    /// A health check, with a permit of its own.
    Health(OwnedSemaphorePermit),
    /// The queue was full.
    Full,
}

impl OverflowQueue {
    pub(super) fn new(tls: bool) -> Self {
        Self {
            waiting: Mutex::default(),
            rejections: Semaphore::new(REJECTIONS_MAX),
            health: Arc::new(Semaphore::new(HEALTH_MAX)),
            tls,
        }
    }

    /// Resolves when the queue has room.
    pub(super) async fn has_room(&self) {
        loop {
            {
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                if waiting.len() >= WAITING_MAX {
                    waiting.retain(|(_, one)| !one.is_closed());
                }
                let oldest = waiting.front().map(|(since, _)| since.elapsed());
                if waiting.len() < WAITING_MAX || oldest.is_some_and(|time| time >= WAIT_MIN) {
                    return;
                }
            }
            sleep(PEEK_INTERVAL).await;
        }
    }

    /// Enters the queue. If it overflows, the oldest connection is rejected.
    pub(super) fn enter(&self) -> Waiting {
        let (told, enough) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|(_, one)| !one.is_closed());
        waiting.push_back((Instant::now(), told));
        if waiting.len() > WAITING_MAX {
            // Fails if it has just got its permit.
            let _ = waiting.pop_front().map(|(_, oldest)| oldest.send(()));
        }
        Waiting(enough)
    }

    pub(super) async fn wait(
        &self,
        Waiting(enough): Waiting,
        stream: &TcpStream,
        free: Arc<Semaphore>,
    ) -> Verdict {
        tokio::select! {
            biased;
            Ok(permit) = free.acquire_owned() => Verdict::Permit(permit),
            place = self.health_check(stream) => Verdict::Health(place),
            _ = enough => Verdict::Full,
        }
    }

    pub(super) async fn reject_full(&self, stream: TcpStream) {
        let full = Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "house-full",
            "Too many connections",
            "Every connection that the server may have is open, and too many wait for one.",
        );
        self.reject(stream, full).await;
    }

    /// Resolves once the connection's first request is a complete health check and has a permit.
    async fn health_check(&self, stream: &TcpStream) -> OwnedSemaphorePermit {
        // Boxed: it has a buffer for the header.
        if !self.tls
            && Box::pin(asks_for_health(stream)).await
            && let Ok(place) = Arc::clone(&self.health).acquire_owned().await
        {
            return place;
        }
        pending().await
    }

    /// Admits a health check of an address at its limit. None otherwise: then it was answered 429.
    pub(super) async fn health_or_reject(
        &self,
        stream: TcpStream,
    ) -> Option<(TcpStream, OwnedSemaphorePermit)> {
        if self.tls {
            return None;
        }
        let look = {
            let Ok(_place) = self.rejections.try_acquire() else {
                return None;
            };
            timeout(HEADER_TIMEOUT, self.health_check(&stream)).await
        };
        if let Ok(place) = look {
            return Some((stream, place));
        }
        self.reject_too_many(stream).await;
        None
    }

    async fn reject_too_many(&self, stream: TcpStream) {
        let too_many = Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-connections",
            "Too many connections",
            "This address, or a network that contains it, has as many connections open as it may.",
        );
        self.reject(stream, too_many).await;
    }

    async fn reject(&self, mut stream: TcpStream, problem: Problem) {
        if self.tls {
            return;
        }
        let Ok(_place) = self.rejections.try_acquire() else {
            return;
        };
        let answer = answer(problem.retry_after(Duration::from_secs(1)));
        let rejection = async {
            // Many clients reject an answer that comes before the request.
            stream.peek(&mut [0]).await?;
            stream.write_all(&answer).await?;
            stream.shutdown().await?;
            // A socket that is closed with unread bytes is reset, and the answer with it.
            let mut rest = [0; 1024];
            while stream.read(&mut rest).await? > 0 {}
            std::io::Result::Ok(())
        };
        // Closed in any case.
        let _ = timeout(REJECT_TIMEOUT, rejection).await;
    }
}

/// Whether a connection's first request is a health check, once its header has arrived.
async fn asks_for_health(stream: &TcpStream) -> bool {
    let mut begins = [0; HEALTH_HEADER_MAX_BYTES];
    let look = async {
        while let Ok(count) = stream.peek(&mut begins).await {
            let begins = &begins[..count];
            let is_one = HEALTH.iter().any(|health| begins.starts_with(health));
            let may_be = HEALTH.iter().any(|health| health.starts_with(begins));
            if is_one && begins.windows(4).any(|end| end == b"\r\n\r\n") {
                return true;
            }
            if count == 0 || count == HEALTH_HEADER_MAX_BYTES || !(is_one || may_be) {
                break;
            }
            sleep(PEEK_INTERVAL).await;
        }
        false
    };
    timeout(HEADER_TIMEOUT, look).await.unwrap_or(false)
}

/// A problem as the bytes of an HTTP/1.1 answer after which the connection is closed.
fn answer(problem: Problem) -> Vec<u8> {
    let (mut head, body) = problem.into_response().into_parts();
    let body = whole(body).unwrap_or_default();
    edge::finish_headers(&mut head.headers, new_request_id());
    let mut text = format!("HTTP/1.1 {}\r\n", head.status);
    for (name, value) in &head.headers {
        // Writing to a string does not fail.
        let _ = write!(text, "{name}: {}\r\n", value.to_str().unwrap_or_default());
    }
    let _ = write!(
        text,
        "content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    [text.as_bytes(), &body].concat()
}
