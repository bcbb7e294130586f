//! The life of one connection: served until it has been idle for too long, or the server stops.
//!
//! Idle means that no request is open: waiting for the first byte, for the rest of a header, for a handshake, or between
//! requests. One timer per connection watches over it; a timer per request, as hyper would keep, costs 2 % of a cycle.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, Write};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioExecutor;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tracing::debug;

use super::activity::Activity;
use super::edge::Entrance;

/// How long a connection without an open request has to end by itself, once it was asked to.
const GOODBYE: Duration = Duration::from_secs(1);

/// A connection of either protocol.
pub trait Connection: Future<Output = hyper::Result<()>> {
    /// Ends after the requests that are open.
    fn end(self: Pin<&mut Self>);
}

impl<I: Read + Write + Unpin + 'static> Connection for http1::Connection<I, Entrance> {
    fn end(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I: Read + Write + Unpin + 'static> Connection
    for http2::Connection<I, Entrance, TokioExecutor>
{
    fn end(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Serves the connection until it ends, has been idle for `idle_max`, or the server stops; in the last two cases open
/// requests are served to their end.
pub async fn serve_until_idle(
    mut connection: Pin<&mut impl Connection>,
    activity: &Activity,
    idle_max: Duration,
    stop: Stop,
) {
    let mut told = stop.told();
    let mut patience = idle_max;
    let mut ending = false;
    let mut timer = pin!(sleep(patience));
    let ended = poll_fn(|cx| {
        let must_stop = told.just_now(cx);
        if must_stop {
            ending = true;
            patience = GOODBYE;
            connection.as_mut().end();
            timer.as_mut().reset(Instant::now() + patience);
        }
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            return Poll::Ready(ended);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if !is_over(activity, timer.as_mut(), patience) {
                continue;
            }
            if ending {
                return Poll::Ready(Ok(()));
            }
            ending = true;
            patience = GOODBYE;
            connection.as_mut().end();
            timer.as_mut().reset(Instant::now() + patience);
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
        }
        Poll::Pending
    });
    if let Err(error) = ended.await {
        debug!(%error, "a connection ended early");
    }
}

/// Whether the connection has been idle for as long as it may; if not, the timer is set to when that could be.
fn is_over(activity: &Activity, timer: Pin<&mut Sleep>, patience: Duration) -> bool {
    let now = Instant::now();
    // Whoever is busy now cannot be over before a whole patience has passed.
    let over_at = activity.idle_since().unwrap_or(now) + patience;
    if over_at <= now {
        return true;
    }
    timer.reset(over_at);
    false
}

/// Tells a listener to stop; cheap to clone.
///
/// A cancellation token alone would do, but looking at one takes a lock that all connections share, at every poll of
/// each. So a connection registers with the token once, to be woken, and from then on looks at a flag.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    flag: Arc<AtomicBool>,
    token: CancellationToken,
}

impl Stop {
    /// Stops the listener.
    pub fn stop(&self) {
        self.flag.store(true, Ordering::Release);
        self.token.cancel();
    }

    /// What `future` resolves to, or nothing once the listener was told to stop.
    pub async fn unless_told<F: Future>(&self, future: F) -> Option<F::Output> {
        self.token.run_until_cancelled(future).await
    }

    fn told(self) -> Told {
        Told {
            flag: Some(self.flag),
            woken: Box::pin(self.token.cancelled_owned()),
            registered: false,
        }
    }
}

/// One connection's view of [`Stop`].
struct Told {
    /// Gone once the connection knows.
    flag: Option<Arc<AtomicBool>>,
    woken: Pin<Box<WaitForCancellationFutureOwned>>,
    registered: bool,
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Told").finish_non_exhaustive()
    }
}

impl Told {
    /// True once: when the connection has to hear of it.
    fn just_now(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.registered {
            self.registered = true;
            // Only to be woken; the flag tells.
            let _ = self.woken.as_mut().poll(cx);
        }
        self.flag
            .take_if(|flag| flag.load(Ordering::Acquire))
            .is_some()
    }
}

#[cfg(test)]
mod tests {
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

    const IDLE_MAX: Duration = Duration::from_secs(30);

    async fn lasted(activity: &Arc<Activity>, stop: Stop, ends: bool) -> Duration {
        let before = Instant::now();
        let fake = pin!(Fake { asked: None, ends });
        serve_until_idle(fake, activity, IDLE_MAX, stop).await;
        before.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_never_asks_for_anything_is_closed() {
        let activity = Arc::new(Activity::begin());
        let lasted = lasted(&activity, Stop::default(), true).await;
        assert!((30_500..30_510).contains(&lasted.as_millis()), "{lasted:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_end_when_asked_is_dropped() {
        let activity = Arc::new(Activity::begin());
        let lasted = lasted(&activity, Stop::default(), false).await;
        assert!((31_000..31_010).contains(&lasted.as_millis()), "{lasted:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_counts_from_the_end_of_the_last_request() {
        let activity = Arc::new(Activity::begin());
        let request = activity.request();
        let serving = lasted(&activity, Stop::default(), true);
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
        let stop = Stop::default();
        let request = activity.request();
        let serving = lasted(&activity, stop.clone(), false);
        let stopping = async {
            sleep(Duration::from_secs(5)).await;
            stop.stop();
            sleep(Duration::from_secs(40)).await;
            drop(request);
        };
        let (lasted, ()) = tokio::join!(serving, stopping);
        assert!((46_000..47_100).contains(&lasted.as_millis()), "{lasted:?}");
    }
}
