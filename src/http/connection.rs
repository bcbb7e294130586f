//! Serves one connection until it is idle for too long, its client reads nothing, or the server shuts down.
//!
//! Idle means that no request is open: waiting for the first byte, for the rest of a header, for a handshake, or between
//! requests. A request is open until its answer has been sent. One timer per connection covers both timeouts; hyper's timer
//! per request costs 2 % of a cycle.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, Write};
use hyper::server::conn::{http1, http2};
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tracing::debug;

use super::activity::Activity;
use super::edge::EdgeService;
use super::streams::Streams;

/// How long a connection without an open request has to close after a graceful shutdown.
const CLOSE_GRACE: Duration = Duration::from_secs(1);
/// How long a half-closed connection waits for its client to close.
const LINGER: Duration = Duration::from_secs(5);

/// Timeouts of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// Without an open request.
    pub idle: Duration,
    /// Without reading from an answer.
    pub stalled: Duration,
}

/// A connection of either protocol.
pub trait Connection: Future<Output = hyper::Result<()>> {
    /// Ends after the open requests.
    fn end(self: Pin<&mut Self>);
}

impl<I: Read + Write + Unpin + 'static> Connection for http1::Connection<I, EdgeService> {
    fn end(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I: Read + Write + Unpin + 'static> Connection for http2::Connection<I, EdgeService, Streams> {
    fn end(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Serves a connection until it ends, times out, or the server shuts down. Open requests are served to their end; a
/// connection whose client reads nothing is reset.
pub async fn serve_until_idle(
    mut connection: Pin<&mut impl Connection>,
    activity: &Activity,
    mut timeouts: Timeouts,
    shutdown: Shutdown,
) {
    let mut watch = shutdown.watch();
    let mut ending = false;
    let mut timer = pin!(sleep(timeouts.idle.min(timeouts.stalled)));
    let ended = poll_fn(|cx| {
        let mut end = watch.poll_triggered(cx);
        loop {
            if end {
                ending = true;
                timeouts.idle = CLOSE_GRACE;
                connection.as_mut().end();
                timer.as_mut().reset(Instant::now() + timeouts.idle);
            }
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            if !ending && activity.is_lingering() {
                ending = true;
                timeouts.idle = LINGER;
                timer.as_mut().reset(Instant::now() + timeouts.idle);
            }
            loop {
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                match check_timeouts(activity, timeouts) {
                    TimeoutCheck::Again(at) => timer.as_mut().reset(at),
                    TimeoutCheck::Idle if ending => return Poll::Ready(Ok(())),
                    TimeoutCheck::Idle => break,
                    TimeoutCheck::Stalled => {
                        debug!("a connection is reset: its client reads nothing of the answer");
                        activity.give_up();
                        return Poll::Ready(Ok(()));
                    }
                }
            }
            end = true;
        }
    });
    if let Err(error) = ended.await {
        debug!(%error, "a connection ended early");
    }
}

enum TimeoutCheck {
    /// No timeout; check again at this time.
    Again(Instant),
    /// No open request for too long.
    Idle,
    /// The client reads nothing for too long.
    Stalled,
}

fn check_timeouts(activity: &Activity, timeouts: Timeouts) -> TimeoutCheck {
    let now = Instant::now();
    if let Some(since) = activity.stalled_since() {
        let due = since + timeouts.stalled;
        return if due <= now {
            TimeoutCheck::Stalled
        } else {
            TimeoutCheck::Again(due)
        };
    }
    let streams = activity.streams();
    let stream_due = streams.and_then(|streams| streams.reset_stalled(now, timeouts.stalled));
    // A busy connection cannot time out before a whole period has passed.
    let idle_due = activity.idle_since().unwrap_or(now) + timeouts.idle;
    if idle_due <= now {
        return TimeoutCheck::Idle;
    }
    let due = idle_due.min(now + timeouts.stalled);
    TimeoutCheck::Again(stream_due.map_or(due, |stream_due| due.min(stream_due)))
}

/// Shuts a listener down; cheap to clone.
///
/// Polling a cancellation token takes a lock that all connections share. So a connection registers with the token once, to
/// be woken, and then polls an atomic flag.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    flag: Arc<AtomicBool>,
    token: CancellationToken,
}

impl Shutdown {
    pub fn trigger(&self) {
        self.flag.store(true, Ordering::Release);
        self.token.cancel();
    }

    /// The output of `future`, or none after [`Shutdown::trigger`].
    pub async fn until_triggered<F: Future>(&self, future: F) -> Option<F::Output> {
        self.token.run_until_cancelled(future).await
    }

    fn watch(self) -> ShutdownWatch {
        ShutdownWatch {
            flag: Some(self.flag),
            woken: Box::pin(self.token.cancelled_owned()),
            registered: false,
        }
    }
}

/// One connection's view of [`Shutdown`].
struct ShutdownWatch {
    /// None once it was seen.
    flag: Option<Arc<AtomicBool>>,
    woken: Pin<Box<WaitForCancellationFutureOwned>>,
    registered: bool,
}

impl fmt::Debug for ShutdownWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShutdownWatch").finish_non_exhaustive()
    }
}

impl ShutdownWatch {
    /// True once.
    fn poll_triggered(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.registered {
            self.registered = true;
            // Only to be woken; the flag decides.
            let _ = self.woken.as_mut().poll(cx);
        }
        self.flag
            .take_if(|flag| flag.load(Ordering::Acquire))
            .is_some()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Sleep;

    use super::*;

    /// A connection that ends a second after it was asked to, or never.
    struct Fake {
        asked: Option<Pin<Box<Sleep>>>,
        ends: bool,
    }

    impl Future for Fake {
        type Output = hyper::Result<()>;

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
            let ends = self.ends;
            match &mut self.asked {
                Some(asked) if ends => asked.as_mut().poll(cx).map(Ok),
                _ => Poll::Pending,
            }
        }
    }

    impl Connection for Fake {
        fn end(mut self: Pin<&mut Self>) {
            self.asked = Some(Box::pin(sleep(Duration::from_millis(500))));
        }
    }

    const TIMEOUTS: Timeouts = Timeouts {
        idle: Duration::from_secs(30),
        stalled: Duration::from_secs(20),
    };

    async fn lasted(activity: &Arc<Activity>, shutdown: Shutdown, ends: bool) -> Duration {
        let before = Instant::now();
        let fake = pin!(Fake { asked: None, ends });
        serve_until_idle(fake, activity, TIMEOUTS, shutdown).await;
        before.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_never_asks_for_anything_is_closed() {
        let activity = Arc::new(Activity::begin());
        let lasted = lasted(&activity, Shutdown::default(), true).await;
        assert!((30_500..30_510).contains(&lasted.as_millis()), "{lasted:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_end_when_asked_is_dropped() {
        let activity = Arc::new(Activity::begin());
        let lasted = lasted(&activity, Shutdown::default(), false).await;
        assert!((31_000..31_010).contains(&lasted.as_millis()), "{lasted:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_counts_from_the_end_of_the_last_request() {
        let activity = Arc::new(Activity::begin());
        let request = activity.request();
        let serving = lasted(&activity, Shutdown::default(), true);
        let requests = async {
            sleep(Duration::from_secs(100)).await;
            drop(request);
            sleep(Duration::from_secs(29)).await;
            drop(activity.request());
        };
        let (lasted, ()) = tokio::join!(serving, requests);
        assert!(
            (159_500..159_600).contains(&lasted.as_millis()),
            "{lasted:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_server_stops_an_open_request_is_still_served() {
        let activity = Arc::new(Activity::begin());
        let shutdown = Shutdown::default();
        let request = activity.request();
        let serving = lasted(&activity, shutdown.clone(), false);
        let stopping = async {
            sleep(Duration::from_secs(5)).await;
            shutdown.trigger();
            sleep(Duration::from_secs(40)).await;
            drop(request);
        };
        let (lasted, ()) = tokio::join!(serving, stopping);
        assert!((46_000..47_100).contains(&lasted.as_millis()), "{lasted:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_given_up_and_one_that_takes_a_little_is_not() {
        let activity = Arc::new(Activity::begin());
        let serving = lasted(&activity, Shutdown::default(), true);
        let sending = async {
            let request = activity.request();
            sleep(Duration::from_secs(100)).await;
            drop(request);
            // The answer is still being sent.
            for _ in 0..10 {
                activity.stalls();
                sleep(Duration::from_secs(19)).await;
                activity.flows();
            }
            activity.stalls();
        };
        let (lasted, ()) = tokio::join!(serving, sending);
        assert!(
            (310_000..310_100).contains(&lasted.as_millis()),
            "{lasted:?}"
        );
        assert!(activity.is_given_up());
    }
}
