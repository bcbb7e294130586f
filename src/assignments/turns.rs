//! Planning takes turns: as many plans run at once as there are processors, further requests wait in FIFO order, and beyond a
//! bound they are rejected. A plan is cancelled when its client disconnects.
//!
//! A request enters once (`Turns::enter`), and takes a turn for each piece of work (`Visit::turn`, `Turn::run`). It reads its inputs
//! after it has the turn, so a waiting request needs no memory for them, and its view of the day is fresh.
//!
//! The turn is held by the work's thread: a plan whose client has left occupies its processor, and so its turn, until it reads
//! the flag.

use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::error;

use super::error::{Crowded, Unavailable};
use super::matching::{CancelOnDrop, Cancellation, Cancelled};
use super::metrics::{Metrics, PlanGauge};

/// Requests that may wait for a turn to plan. Each holds its list of drivers, at most 2 MiB.
pub(super) const WAITING_MAX: usize = 100;
/// Timeout of a request that waits for a turn; then the desk is busy.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(30);

/// Planning is CPU-bound: more plans than processors would only slow down the others.
pub(super) fn at_once() -> usize {
    available_parallelism().map_or(1, NonZero::get)
}

/// Semaphores for plans, and for requests that wait.
#[derive(Debug)]
pub(super) struct Turns {
    /// For requests that plan or wait.
    places: Arc<Semaphore>,
    /// For work that runs. Tokio's semaphore is fair: FIFO.
    work: Arc<Semaphore>,
    metrics: Metrics,
}

/// A request that plans or waits. Dropping it, as happens when its client disconnects, cancels its work.
#[derive(Debug)]
pub(super) struct Visit {
    _place: OwnedSemaphorePermit,
    turns: Arc<Semaphore>,
    cancellation: Cancellation,
    _cancels: CancelOnDrop,
    metrics: Metrics,
}

/// The right to run one piece of work.
#[derive(Debug)]
pub(super) struct Turn {
    permit: OwnedSemaphorePermit,
    cancellation: Cancellation,
    metrics: Metrics,
}

impl Turns {
    /// `at_once`: pieces of work that run; `waiting_max`: further requests that wait.
    pub(super) fn new(at_once: usize, waiting_max: usize, metrics: Metrics) -> Self {
        Self {
            places: Arc::new(Semaphore::new(at_once + waiting_max)),
            work: Arc::new(Semaphore::new(at_once)),
            metrics,
        }
    }

    /// Admits a request.
    ///
    /// # Errors
    /// [`Crowded`], if too many plan or wait already.
    pub(super) fn enter(&self) -> Result<Visit, Crowded> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| {
            self.metrics.turned_away();
            Crowded
        })?;
        let cancellation = Cancellation::default();
        Ok(Visit {
            _place: place,
            turns: Arc::clone(&self.work),
            _cancels: cancellation.on_drop(),
            cancellation,
            metrics: self.metrics.clone(),
        })
    }
}

impl Visit {
    /// Waits for a turn, at most [`WAIT_MAX`].
    ///
    /// # Errors
    /// [`Crowded`], if there was none in that time.
    pub(super) async fn turn(&self) -> Result<Turn, Crowded> {
        let waiting = self.metrics.plan(PlanGauge::Waiting);
        let permit = timeout(WAIT_MAX, Arc::clone(&self.turns).acquire_owned()).await;
        drop(waiting);
        Ok(Turn {
            permit: permit.ok().and_then(Result::ok).ok_or(Crowded)?,
            cancellation: self.cancellation.clone(),
            metrics: self.metrics.clone(),
        })
    }
}

impl Turn {
    /// Runs the work on a blocking thread, and ends the turn with it.
    ///
    /// # Errors
    /// [`Unavailable::Failed`], if it panicked.
    pub(super) async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce(&Cancellation) -> Result<T, Cancelled> + Send + 'static,
    ) -> Result<T, Unavailable> {
        let Self {
            permit,
            cancellation,
            metrics,
        } = self;
        let done = spawn_blocking(move || {
            // Dropped in the reverse order, however the work ends.
            let _permit = permit;
            let _running = metrics.plan(PlanGauge::Running);
            let done = work(&cancellation);
            if done.is_err() {
                metrics.cancelled();
            }
            done
        });
        match done.await {
            Ok(Ok(done)) => Ok(done),
            // The visit is over: no reader is left.
            Ok(Err(Cancelled)) => Err(Unavailable::Stopped),
            Err(error) => {
                error!(%error, "planning panicked");
                Err(Unavailable::Failed)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Mutex, mpsc};

    use tokio::sync::oneshot;
    use tokio::task::JoinSet;

    use super::*;
    use crate::telemetry::Registry;

    fn turns(at_once: usize, waiting_max: usize) -> (Registry, Turns) {
        let registry = Registry::new(&[]);
        let metrics = registry.register(Metrics::register);
        (registry, Turns::new(at_once, waiting_max, metrics))
    }

    /// Whether the exposition has this sample.
    fn has(registry: &Registry, sample: &str) -> bool {
        registry.render().lines().any(|line| line == sample)
    }

    #[tokio::test]
    async fn more_clients_than_processors_all_have_their_turn_and_never_more_at_once() {
        let (registry, turns) = turns(2, 18);
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut clients = JoinSet::new();
        for _ in 0..20 {
            let visit = turns.enter().unwrap();
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            clients.spawn(async move {
                let turn = visit.turn().await.unwrap();
                let work = move |_: &Cancellation| {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::yield_now();
                    now.fetch_sub(1, Ordering::SeqCst);
                    Ok(())
                };
                turn.run(work).await.unwrap();
            });
        }
        assert_eq!(turns.enter().unwrap_err(), Crowded);
        while let Some(done) = clients.join_next().await {
            done.unwrap();
        }
        assert!(most.load(Ordering::SeqCst) <= 2, "{most:?}");
        turns.enter().unwrap();
        assert!(has(&registry, "odyssey_assignments_plans_rejected_total 1"));
    }

    #[tokio::test]
    async fn whoever_came_first_has_the_turn_first() {
        let (_, turns) = turns(1, 9);
        let order = Arc::new(Mutex::new(Vec::new()));
        let first = turns.enter().unwrap();
        let held = first.turn().await.unwrap();
        let mut clients = JoinSet::new();
        for number in 0..9 {
            let (visit, order) = (turns.enter().unwrap(), Arc::clone(&order));
            let (asking, asked) = oneshot::channel();
            clients.spawn(async move {
                let turn = visit.turn();
                tokio::pin!(turn);
                let polled = std::future::poll_fn(|cx| {
                    std::task::Poll::Ready(turn.as_mut().poll(cx).is_pending())
                });
                assert!(polled.await);
                asking.send(()).unwrap();
                let turn = turn.await.unwrap();
                let work = move |_: &Cancellation| {
                    order.lock().unwrap().push(number);
                    Ok(())
                };
                turn.run(work).await.unwrap();
            });
            asked.await.unwrap();
        }
        drop(held);
        while let Some(done) = clients.join_next().await {
            done.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), (0..9).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_client_that_leaves_ends_its_plan_and_the_next_one_has_the_turn() {
        let (registry, turns) = turns(1, 1);
        let visit = turns.enter().unwrap();
        let (beginning, begun) = oneshot::channel();
        let (ending, ended) = mpsc::channel();
        let leaving = tokio::spawn(async move {
            let turn = visit.turn().await.unwrap();
            let work = move |cancellation: &Cancellation| {
                beginning.send(()).unwrap();
                // Never ends by itself.
                let cancelled = loop {
                    if let Err(cancelled) = cancellation.check() {
                        break cancelled;
                    }
                    std::thread::yield_now();
                };
                ending.send(()).unwrap();
                Err::<(), _>(cancelled)
            };
            turn.run(work).await
        });
        begun.await.unwrap();
        assert!(has(
            &registry,
            "odyssey_assignments_plans{state=\"running\"} 1"
        ));
        leaving.abort();
        assert!(leaving.await.unwrap_err().is_cancelled());
        let next = turns.enter().unwrap();
        let turn = next.turn().await.unwrap();
        ended.recv().unwrap();
        for sample in [
            "odyssey_assignments_plans{state=\"running\"} 0",
            "odyssey_assignments_plans{state=\"waiting\"} 0",
            "odyssey_assignments_plans_cancelled_total 1",
        ] {
            assert!(has(&registry, sample), "{sample}");
        }
        assert_eq!(turn.run(|_| Ok(7)).await, Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_too_long_is_told_that_the_desk_is_busy() {
        let (_, turns) = turns(1, 1);
        let (first, second) = (turns.enter().unwrap(), turns.enter().unwrap());
        let _held = first.turn().await.unwrap();
        assert_eq!(second.turn().await.unwrap_err(), Crowded);
    }
}
