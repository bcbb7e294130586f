//! Connections without a seat: what is done with those that were accepted though every seat is taken, and with those that
//! are not let in.
//!
//! A health check must be answered when the house is full, or whoever asks takes the server for dead and ends it, with
//! everybody it holds. So a connection is looked at before it has a seat: health checks are served at once, all others wait
//! for a seat in the order in which they came. While as many wait as may, nobody else is let in until one has got its seat,
//! or the one that has waited longest has done so for some seconds: then it is told so (503).

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

/// Connections that wait for a seat. Each takes one of the files that the process keeps for itself.
const WAITING_MAX: usize = 64;
/// How long somebody waits at least. A burst that is over sooner is served whole.
const WAITS_AT_LEAST: Duration = Duration::from_secs(5);
/// How long a health check may take to arrive, and to be told from others.
const LOOK: Duration = Duration::from_secs(1);
/// How often the beginning of a request is looked at that has not wholly arrived.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// The largest header of one.
const HEALTH_HEADER_MAX_BYTES: usize = 2048;
/// Health checks that are served at once without a seat.
const HEALTH_MAX: usize = 16;
/// How requests begin that are served without a seat.
const HEALTH: [&[u8]; 4] = [
    b"GET /healthz",
    b"GET /readyz",
    b"HEAD /healthz",
    b"HEAD /readyz",
];
/// Connections that are being told why they are turned away; further ones are only closed.
const TURNED_AWAY_MAX: usize = 64;
/// How long such a connection has to read it.
const FAREWELL: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Vestibule {
    /// Since when they wait, and how they are told that they have waited long enough.
    waiting: Mutex<VecDeque<(Instant, oneshot::Sender<()>)>>,
    turned_away: Semaphore,
    health: Arc<Semaphore>,
}

/// A connection's place among those that wait; it hears when that is over.
#[derive(Debug)]
pub(super) struct Waiting(oneshot::Receiver<()>);

/// What becomes of a connection that waited.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It has a seat.
    Permit(OwnedSemaphorePermit),
    /// It asks whether the server is well, and needs none; this is its place instead.
    Health(OwnedSemaphorePermit),
    /// Too many came after it.
    Full,
}

impl Vestibule {
    pub(super) fn new() -> Self {
        Self {
            waiting: Mutex::default(),
            turned_away: Semaphore::new(TURNED_AWAY_MAX),
            health: Arc::new(Semaphore::new(HEALTH_MAX)),
        }
    }

    /// Until somebody else may be let in to wait.
    pub(super) async fn has_room(&self) {
        loop {
            {
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                if waiting.len() >= WAITING_MAX {
                    waiting.retain(|(_, one)| !one.is_closed());
                }
                let oldest = waiting.front().map(|(since, _)| since.elapsed());
                if waiting.len() < WAITING_MAX || oldest.is_some_and(|time| time >= WAITS_AT_LEAST)
                {
                    return;
                }
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Somebody more waits. If too many do, the one that has waited longest is told so.
    pub(super) fn enter(&self) -> Waiting {
        let (told, enough) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|(_, one)| !one.is_closed());
        waiting.push_back((Instant::now(), told));
        if waiting.len() > WAITING_MAX {
            // If it has just got its seat, nothing is lost.
            let _ = waiting.pop_front().map(|(_, oldest)| oldest.send(()));
        }
        Waiting(enough)
    }

    /// Waits for one of the free seats.
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

    /// Says that the house is full.
    pub(super) async fn turn_away_full(&self, stream: TcpStream) {
        let full = Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "house-full",
            "Too many connections",
            "Every connection that the server may have is open, and too many wait for one.",
        );
        self.turn_away(stream, full).await;
    }

    /// Resolves if the connection's first request is a health check, all of it, and there is a place for it.
    async fn health_check(&self, stream: &TcpStream) -> OwnedSemaphorePermit {
        // Boxed: it looks at a whole header.
        if Box::pin(asks_for_health(stream)).await
            && let Ok(place) = Arc::clone(&self.health).acquire_owned().await
        {
            return place;
        }
        pending().await
    }

    /// A place for a health check, though its address has too many connections. Nothing if it is none: then it has been told
    /// why it is turned away.
    pub(super) async fn health_or_too_many(
        &self,
        stream: TcpStream,
    ) -> Option<(TcpStream, OwnedSemaphorePermit)> {
        let look = {
            let Ok(_place) = self.turned_away.try_acquire() else {
                return None;
            };
            timeout(LOOK, self.health_check(&stream)).await
        };
        if let Ok(place) = look {
            return Some((stream, place));
        }
        self.turn_away_too_many(stream).await;
        None
    }

    async fn turn_away_too_many(&self, stream: TcpStream) {
        let too_many = Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-connections",
            "Too many connections",
            "This address, or a network that contains it, has as many connections open as it may.",
        );
        self.turn_away(stream, too_many).await;
    }

    async fn turn_away(&self, mut stream: TcpStream, problem: Problem) {
        let Ok(_place) = self.turned_away.try_acquire() else {
            return;
        };
        let answer = answer(problem.retry_after(Duration::from_secs(1)));
        let farewell = async {
            // Many clients take an answer that comes before the request for a mistake.
            stream.peek(&mut [0]).await?;
            stream.write_all(&answer).await?;
            stream.shutdown().await?;
            // A socket that is closed with unread bytes is reset, and the answer with it.
            let mut rest = [0; 1024];
            while stream.read(&mut rest).await? > 0 {}
            std::io::Result::Ok(())
        };
        // However it ends, the connection is closed.
        let _ = timeout(FAREWELL, farewell).await;
    }
}

/// Whether a connection's first request is a health check, once its header is there. One that does not come takes no place.
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
            sleep(LOOK_AGAIN).await;
        }
        false
    };
    timeout(LOOK, look).await.unwrap_or(false)
}

/// A problem as the bytes of an HTTP/1.1 answer after which the connection is closed.
fn answer(problem: Problem) -> Vec<u8> {
    let (mut head, body) = problem.into_response().into_parts();
    let body = whole(body).unwrap_or_default();
    edge::finish_headers(&mut head.headers, edge::new_request_id());
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
