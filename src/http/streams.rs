//! The streams of an HTTP/2 connection, each a task, so that one whose client reads nothing is reset alone.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::rt::Executor;
use tokio::task::{self, AbortHandle};
use tokio::time::Instant;
use tracing::debug;

#[derive(Debug, Clone, Default)]
pub struct Streams {
    running: Arc<Mutex<HashMap<task::Id, Stream>>>,
}

#[derive(Debug)]
struct Stream {
    task: AbortHandle,
    /// Since when the client has not read the last piece.
    stalled_since: Option<Instant>,
}

impl Streams {
    /// Marks whether the current task's stream waits for its client.
    pub fn set_stalled(&self, stalled: bool) {
        if let Some(id) = task::try_id()
            && let Some(stream) = self.running().get_mut(&id)
        {
            stream.stalled_since = stalled.then(Instant::now);
        }
    }

    /// Resets the streams whose clients have read nothing for `patience`. Returns when the next one could be due.
    pub fn reset_stalled(&self, now: Instant, patience: Duration) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        self.running().retain(|_, stream| {
            let Some(due) = stream.stalled_since.map(|since| since + patience) else {
                return true;
            };
            if due <= now {
                debug!("a stream is reset: its client reads nothing of the answer");
                // Dropping its future makes h2 send RST_STREAM.
                stream.task.abort();
                return false;
            }
            next = Some(next.map_or(due, |next| next.min(due)));
            true
        });
        next
    }

    fn running(&self) -> MutexGuard<'_, HashMap<task::Id, Stream>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let streams = self.clone();
        // Locked until the task is stored: it may end before this returns.
        let mut running = self.running();
        let task = tokio::spawn(async move {
            stream.await;
            streams.running().remove(&task::id());
        });
        let task = task.abort_handle();
        running.insert(
            task.id(),
            Stream {
                task,
                stalled_since: None,
            },
        );
    }
}
