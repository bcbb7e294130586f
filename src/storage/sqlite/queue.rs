//! A queue with an end, before a thread or several. Whoever enters never waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::time::Instant;

use crate::storage::Unavailable;

/// Where work comes in.
pub(super) struct Entrance<T> {
    /// Nothing stands for the end. It has a place of its own, so that closing never waits either.
    sender: Sender<Option<T>>,
    waiting: Arc<AtomicUsize>,
    most: usize,
}

/// Where work is taken out.
pub(super) struct Exit<T> {
    receiver: Receiver<Option<T>>,
    waiting: Arc<AtomicUsize>,
}

/// A queue in which at most so much waits.
pub(super) fn queue<T>(most: usize) -> (Entrance<T>, Exit<T>) {
    let (sender, receiver) = mpsc::channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let entrance = Entrance {
        sender,
        waiting: Arc::clone(&waiting),
        most: most.max(1),
    };
    (entrance, Exit { receiver, waiting })
}

impl<T> Entrance<T> {
    /// Queues work, if there is room.
    ///
    /// # Errors
    /// [`Unavailable::Busy`] if there is none, [`Unavailable::Stopped`] if nobody takes work out any more.
    pub(super) fn push(&self, work: T) -> Result<(), Unavailable> {
        self.waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| {
                (waiting < self.most).then_some(waiting + 1)
            })
            .map_err(|_| Unavailable::Busy)?;
        self.sender.send(Some(work)).map_err(|_| {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            Unavailable::Stopped
        })
    }

    /// Tells one of those who take work out that nothing more comes after what is queued.
    pub(super) fn close(&self) {
        // Nobody there to be told: closed already.
        let _ = self.sender.send(None);
    }

    /// How much waits.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

impl<T> Exit<T> {
    /// The next piece of work; nothing at the end.
    pub(super) fn next(&self) -> Option<T> {
        self.taken(self.receiver.recv().ok().flatten())
    }

    /// Waits for work until then, and takes everything that waits with it, up to `most`. False at the end.
    pub(super) fn fill(&self, batch: &mut Vec<T>, most: usize, until: Option<Instant>) -> bool {
        let first = match until {
            None => self.receiver.recv().ok().flatten(),
            Some(until) => {
                let patience = until.saturating_duration_since(Instant::now());
                match self.receiver.recv_timeout(patience) {
                    Ok(first) => first,
                    Err(RecvTimeoutError::Timeout) => return true,
                    Err(RecvTimeoutError::Disconnected) => None,
                }
            }
        };
        let Some(first) = self.taken(first) else {
            return false;
        };
        batch.push(first);
        while batch.len() < most {
            match self.receiver.try_recv() {
                Ok(Some(work)) => batch.extend(self.taken(Some(work))),
                Ok(None) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => break,
            }
        }
        true
    }

    fn taken(&self, work: Option<T>) -> Option<T> {
        if work.is_some() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        work
    }
}
