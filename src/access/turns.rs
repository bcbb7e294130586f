//! Fair turns for work that uses much processor time in one poll.
//!
//! A runtime polls its ready tasks one after the other. A thousand tasks that are ready at once and need 0.4 ms each would
//! make every other task wait for 0.4 s, so these get turns: between two of them, each worker polls all of its other ready
//! tasks, and sockets for new ones.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::Semaphore;
use tokio::task::yield_now;

/// First come, first served. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Turns(Arc<Semaphore>);

impl Turns {
    /// As many turns at once as there are workers.
    pub(super) fn new(workers: usize) -> Self {
        Self(Arc::new(Semaphore::new(workers)))
    }

    /// Polls `work` to its end, each time in a turn of its own. It holds none while it waits, for a network or anything else.
    pub(super) async fn take<F: Future>(&self, work: F) -> F::Output {
        let mut work = pin!(work);
        loop {
            // It is never closed.
            let turn = self.0.acquire().await;
            // tokio polls sockets before it resumes a task that has yielded, but may resume that task before those whose
            // sockets it found ready.
            yield_now().await;
            queue_again().await;
            let polled = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await;
            drop(turn);
            if let Poll::Ready(output) = polled {
                return output;
            }
            next_poll().await;
        }
    }
}

/// Resolves once all tasks that were ready before have been polled.
async fn queue_again() {
    poll_fn(|cx| {
        cx.waker().wake_by_ref();
        Poll::Ready(())
    })
    .await;
    next_poll().await;
}

/// Resolves when this task is polled again: when it is woken, also by what was polled just before.
async fn next_poll() {
    let mut polled_before = false;
    poll_fn(|_| {
        if polled_before {
            return Poll::Ready(());
        }
        polled_before = true;
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::AsyncReadExt;
    use tokio::net::UnixStream;
    use tokio::runtime::{Builder, Runtime};
    use tokio::sync::oneshot;
    use tokio::task::JoinSet;

    use super::*;

    const TASKS: usize = 100;
    /// Of each task, as a handshake has two flights.
    const STEPS: usize = 2;

    fn with_one_worker() -> [Runtime; 2] {
        let mut builders = [Builder::new_current_thread(), Builder::new_multi_thread()];
        builders[1].worker_threads(1);
        builders.map(|mut builder| builder.enable_all().build().unwrap())
    }

    /// A request arrives at a socket during each step.
    async fn serve_between_steps() {
        let turns = Turns::new(1);
        let (mut incoming, client) = UnixStream::pair().unwrap();
        let (client, served) = (Arc::new(client), Arc::new(AtomicUsize::new(0)));
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&served);
        let serving = tokio::spawn(async move {
            while incoming.read_u8().await.is_ok() {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        client.writable().await.unwrap();
        let mut tasks = JoinSet::new();
        for _ in 0..TASKS {
            let (turns, client) = (turns.clone(), Arc::clone(&client));
            let (served, requests) = (Arc::clone(&served), Arc::clone(&requests));
            tasks.spawn(async move {
                let steps = async {
                    for step in 1..=STEPS {
                        let requests = requests.fetch_add(1, Ordering::Relaxed);
                        assert_eq!(served.load(Ordering::Relaxed), requests);
                        client.try_write(b"x").unwrap();
                        if step < STEPS {
                            // As for the client's next flight.
                            yield_now().await;
                        }
                    }
                };
                turns.take(steps).await;
            });
        }
        while let Some(task) = tasks.join_next().await {
            task.unwrap();
        }
        drop(client);
        serving.await.unwrap();
        assert_eq!(served.load(Ordering::Relaxed), TASKS * STEPS);
    }

    #[test]
    fn what_arrives_during_a_step_is_served_before_the_next_one() {
        for runtime in with_one_worker() {
            runtime.block_on(async { tokio::spawn(serve_between_steps()).await.unwrap() });
        }
    }

    #[tokio::test]
    async fn work_that_waits_or_is_dropped_in_its_turn_holds_up_no_other() {
        let turns = Turns::new(1);
        let (answer, answered) = oneshot::channel();
        let waits = turns.take(answered);
        let mut waits = pin!(waits);
        while {
            assert!(poll_once(waits.as_mut()).await.is_pending());
            turns.0.available_permits() == 0
        } {}
        {
            // Has the turn, and is not resumed.
            let dropped = pin!(turns.take(async { unreachable!("it was dropped") }));
            assert!(poll_once(dropped).await.is_pending());
            assert_eq!(turns.0.available_permits(), 0);
        }
        assert_eq!(turns.take(async { 1 }).await, 1);
        answer.send(2).unwrap();
        assert_eq!(waits.await, Ok(2));
    }

    async fn poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
    }
}
