//! Event streams (server-sent events; HTML standard, section 9.2). A feed gives states, not changes: each connection begins with
//! the state of that moment, and a client that reads slowly gets the latest one, so nothing queues for it and nothing has to be
//! replayed.
//!
//! The streams of a listener are bounded, have a comment when nothing was sent for a while, and end when the listener shuts
//! down. A client that reads nothing is reset as with any other answer ([`super::connection`]).

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::config::Pages;
use super::connection::Shutdown;
use super::problem::Problem;
use super::reply::HangUp;

/// How long a browser waits before it connects again.
const RETRY: Duration = Duration::from_secs(2);
/// How long a client waits that was one too many.
const FULL_RETRY: Duration = Duration::from_secs(30);
/// nginx passes it on at once in any case; other proxies do with this.
const UNBUFFERED: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The event streams of a listener; cheap to clone.
#[derive(Clone)]
pub struct Feeds {
    free: Arc<Semaphore>,
    beat: Duration,
    shutdown: Shutdown,
}

impl fmt::Debug for Feeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feeds").finish_non_exhaustive()
    }
}

/// What a feed shows.
pub trait Source: Send + 'static {
    /// The next event, once there is one; none at the end.
    fn next(&mut self) -> impl Future<Output = Option<Sent>> + Send;

    /// Whether it ends with the listener; else it ends by itself, and until then the listener waits for it.
    const ENDS_WITH_LISTENER: bool = true;
}

/// What a feed sends.
#[derive(Debug)]
pub enum Sent {
    /// A name, and JSON in one line.
    Event(&'static str, String),
    /// The connection ends at once.
    HangUp,
}

impl Feeds {
    pub fn new(pages: &Pages, shutdown: Shutdown) -> Self {
        Self {
            free: Arc::new(Semaphore::new(pages.streams_max)),
            beat: pages.beat,
            shutdown,
        }
    }

    /// A place for one stream.
    ///
    /// # Errors
    /// 503 if `pages.streams_max` are open.
    pub fn open(&self) -> Result<Feed, Problem> {
        let place = Arc::clone(&self.free).try_acquire_owned();
        Ok(Feed {
            place: place.map_err(|_| too_many())?,
            beat: self.beat,
            shutdown: self.shutdown.clone(),
        })
    }
}

/// A place among the streams of a listener.
pub struct Feed {
    place: OwnedSemaphorePermit,
    beat: Duration,
    shutdown: Shutdown,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").finish_non_exhaustive()
    }
}

/// Where a stream stands.
enum Stage<S> {
    Begin(S),
    Goes(S),
    Ended,
}

impl Feed {
    /// 200 with the events of `source`.
    pub fn answer<S: Source>(self, source: S) -> Response {
        let Self {
            place,
            beat,
            shutdown,
        } = self;
        let begin = (Stage::Begin(source), shutdown, place);
        let events = unfold(begin, async |(stage, shutdown, place)| {
            let (event, stage) = match stage {
                Stage::Begin(source) => (Ok(Event::default().retry(RETRY)), Stage::Goes(source)),
                Stage::Goes(source) => next_of(source, &shutdown).await?,
                Stage::Ended => return None,
            };
            Some((event, (stage, shutdown, place)))
        });
        let beats = KeepAlive::new().interval(beat).text("beat");
        let mut response = Sse::new(events).keep_alive(beats).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::VARY, HeaderValue::from_static("Accept"));
        headers.insert(UNBUFFERED, HeaderValue::from_static("no"));
        response
    }
}

async fn next_of<S: Source>(
    mut source: S,
    shutdown: &Shutdown,
) -> Option<(Result<Event, HangUp>, Stage<S>)> {
    let sent = if S::ENDS_WITH_LISTENER {
        match shutdown.until_triggered(source.next()).await {
            Some(sent) => sent?,
            None => return Some((Ok(event("stopping", "{}")), Stage::Ended)),
        }
    } else {
        source.next().await?
    };
    Some(match sent {
        Sent::Event(name, json) => (Ok(event(name, &json)), Stage::Goes(source)),
        Sent::HangUp => (Err(HangUp), Stage::Ended),
    })
}

fn event(name: &str, json: &str) -> Event {
    Event::default().event(name).data(json)
}

/// Whether a client asks for events.
pub fn accepts_events(headers: &HeaderMap) -> bool {
    let fields = headers.get_all(header::ACCEPT).iter();
    let mut ranges = fields
        .filter_map(|field| field.to_str().ok())
        .flat_map(|field| field.split(','))
        .map(|range| range.split(';').next().unwrap_or_default().trim());
    ranges.any(|range| range.eq_ignore_ascii_case("text/event-stream"))
}

fn too_many() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "too-many-streams",
        "Too many event streams are open",
        "This listener has as many event streams as it may have; ask without one, or try again later.",
    )
    .retry_after(FULL_RETRY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_for_those_who_name_them() {
        for (accept, events) in [
            ("text/event-stream", true),
            ("application/json;q=0.5, Text/Event-Stream;q=1", true),
            ("text/*", false),
            ("*/*", false),
            ("", false),
        ] {
            let headers = [(header::ACCEPT, HeaderValue::from_str(accept).unwrap())];
            assert_eq!(
                accepts_events(&headers.into_iter().collect()),
                events,
                "{accept}"
            );
        }
    }
}
