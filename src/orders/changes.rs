//! Says that orders have changed to those who watch them: what they are now, a watcher looks up. So one that is slow sees the
//! latest state, and nothing queues for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::model::OrderId;

/// A handle; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Of `orders`: most orders are watched by no one, which is known without the lock.
    watched: AtomicUsize,
    orders: Mutex<HashMap<OrderId, watch::Sender<()>>>,
    any: watch::Sender<()>,
    /// Grows with each change.
    generation: AtomicU64,
}

impl Changes {
    /// These orders have changed.
    pub fn announce(&self, orders: &[OrderId]) {
        let shared = &*self.shared;
        if orders.is_empty() {
            return;
        }
        self.announce_any();
        if shared.watched.load(Ordering::SeqCst) > 0 {
            let watched = shared.orders();
            for sender in orders.iter().filter_map(|order| watched.get(order)) {
                sender.send_replace(());
            }
        }
    }

    /// The line has changed, whichever order it was.
    pub fn announce_any(&self) {
        self.shared.generation.fetch_add(1, Ordering::Release);
        if self.shared.any.receiver_count() > 0 {
            self.shared.any.send_replace(());
        }
    }

    /// Changes of an order from now on; also of one that is unknown.
    pub fn of(&self, order: OrderId) -> Watching {
        let shared = &self.shared;
        let mut orders = shared.orders();
        let sender = orders.entry(order).or_default();
        let changed = sender.subscribe();
        shared.watched.store(orders.len(), Ordering::SeqCst);
        Watching {
            shared: Arc::clone(shared),
            order,
            changed,
        }
    }

    /// Another number after each change.
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// Changes of any order from now on.
    pub fn of_any(&self) -> watch::Receiver<()> {
        self.shared.any.subscribe()
    }
}

impl Shared {
    fn orders(&self) -> MutexGuard<'_, HashMap<OrderId, watch::Sender<()>>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches an order until it is dropped.
#[derive(Debug)]
pub struct Watching {
    shared: Arc<Shared>,
    order: OrderId,
    changed: watch::Receiver<()>,
}

impl Watching {
    /// Returns once it has changed since the last call. Cancel-safe.
    pub async fn changed(&mut self) {
        // The sender is there as long as this.
        let _ = self.changed.changed().await;
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut orders = self.shared.orders();
        if orders
            .get(&self.order)
            .is_some_and(|sender| sender.receiver_count() == 1)
        {
            orders.remove(&self.order);
        }
        self.shared.watched.store(orders.len(), Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;
    use uuid::Uuid;

    use super::*;

    async fn is_changed(watching: &mut Watching) -> bool {
        timeout(Duration::from_secs(1), watching.changed())
            .await
            .is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_watcher_hears_of_its_order_only_and_once_for_all_changes_since() {
        let [one, other] = [1, 2].map(|n| OrderId(Uuid::from_u128(n)));
        let changes = Changes::default();
        let (mut first, mut second) = (changes.of(one), changes.of(one));
        let any = changes.of_any();
        changes.announce(&[other]);
        assert!(any.has_changed().unwrap());
        assert!(!is_changed(&mut first).await);
        changes.announce(&[one]);
        changes.announce(&[other, one]);
        assert!(is_changed(&mut first).await);
        assert!(!is_changed(&mut first).await);
        drop(first);
        assert!(is_changed(&mut second).await, "others go on");
        drop(second);
        assert_eq!(changes.shared.watched.load(Ordering::SeqCst), 0);
        assert!(changes.shared.orders().is_empty());
    }
}
