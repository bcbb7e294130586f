//! A bounded queue for one or more threads. Senders never wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, TryRecvError};
use std::time::Instant;

use crate::storage::Unavailable;

pub(super) struct Sender<T> {
    /// None stands for the end. It has a slot of its own, so that closing never waits either.
    channel: mpsc::Sender<Option<T>>,
    waiting: Arc<AtomicUsize>,
    most: usize,
}

pub(super) struct Receiver<T> {
    channel: mpsc::Receiver<Option<T>>,
    waiting: Arc<AtomicUsize>,
}

/// A queue of at most `most` items.
pub(super) fn queue<T>(most: usize) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let sender = Sender {
        channel: sender,
        waiting: Arc::clone(&waiting),
        most: most.max(1),
    };
    let receiver = Receiver {
        channel: receiver,
        waiting,
    };
    (sender, receiver)
}

impl<T> Sender<T> {
    /// # Errors
    /// [`Unavailable::Busy`] if the queue is full, [`Unavailable::Stopped`] if there is no receiver.
    pub(super) fn try_send(&self, work: T) -> Result<(), Unavailable> {
        self.waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| {
                (waiting < self.most).then_some(waiting + 1)
            })
            .map_err(|_| Unavailable::Busy)?;
        self.channel.send(Some(work)).map_err(|_| {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            Unavailable::Stopped
        })
    }

    /// Ends the queue for one receiver, after what is queued.
    pub(super) fn close(&self) {
        // No receiver: closed already.
        let _ = self.channel.send(None);
    }

    /// Items in the queue.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

impl<T> Receiver<T> {
    /// The next item; None at the end.
    pub(super) fn recv(&self) -> Option<T> {
        self.received(self.channel.recv().ok().flatten())
    }

    /// Waits for an item until then, and takes all queued items, up to `most`. False at the end.
    pub(super) fn recv_batch(
        &self,
        batch: &mut Vec<T>,
        most: usize,
        until: Option<Instant>,
    ) -> bool {
        let first = match until {
            None => self.channel.recv().ok().flatten(),
            Some(until) => {
                let patience = until.saturating_duration_since(Instant::now());
                match self.channel.recv_timeout(patience) {
                    Ok(first) => first,
                    Err(RecvTimeoutError::Timeout) => return true,
                    Err(RecvTimeoutError::Disconnected) => None,
                }
            }
        };
        let Some(first) = self.received(first) else {
            return false;
        };
        batch.push(first);
        while batch.len() < most {
            match self.channel.try_recv() {
                Ok(Some(work)) => batch.extend(self.received(Some(work))),
                Ok(None) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => break,
            }
        }
        true
    }

    fn received(&self, work: Option<T>) -> Option<T> {
        if work.is_some() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        work
    }
}
