//! Counting malformed requests, on a store in memory.

use std::sync::Mutex;

use super::super::model::{Outcome, Tally};
use super::super::store::Answer;
use super::*;
use crate::telemetry::Registry;

/// Stores the number of malformed requests, and counts the calls.
#[derive(Debug, Default)]
struct Numbers {
    rejected: AtomicU64,
    stored: AtomicU64,
    down: Mutex<bool>,
}

impl Numbers {
    fn answer<T: Send + 'static>(&self, value: T) -> Answer<'_, T> {
        let down = *self.down.lock().unwrap();
        Box::pin(std::future::ready(if down {
            Err(Unavailable::Engine)
        } else {
            Ok(value)
        }))
    }
}

/// Gives the test access to the desk's store.
#[derive(Debug, Clone, Default)]
struct Shared(Arc<Numbers>);

impl Store for Shared {
    fn send(&self, _: Package) -> Answer<'_, Sent> {
        let processed = Processed {
            outcome: Outcome::Delivered,
            type_name: "personal".into(),
            preference_timestamp: None,
        };
        self.0.answer(Sent {
            processed,
            duplicate: false,
            mismatch: false,
        })
    }

    fn package(&self, _: Id) -> Answer<'_, Option<Processed>> {
        self.0.answer(None)
    }

    fn update(&self, _: Update) -> Answer<'_, (Preferences, bool)> {
        self.0.answer((Preferences::new(), true))
    }

    fn preferences(&self, _: Id) -> Answer<'_, Preferences> {
        self.0.answer(Preferences::new())
    }

    fn reset(&self, _: Id) -> Answer<'_, ()> {
        self.0.answer(())
    }

    fn store_rejected(&self, total: u64) -> Answer<'_, ()> {
        if !*self.0.down.lock().unwrap() {
            self.0.rejected.fetch_max(total, Ordering::Relaxed);
            self.0.stored.fetch_add(1, Ordering::Relaxed);
        }
        self.0.answer(())
    }

    fn statistics(&self) -> Answer<'_, Statistics> {
        self.0.answer(Statistics {
            by_type: [("personal".to_owned(), Tally::default())].into(),
            rejected: self.0.rejected.load(Ordering::Relaxed),
        })
    }

    fn version(&self) -> u64 {
        self.0.stored.load(Ordering::Relaxed)
    }
}

fn desk(store: &Shared, future_max: Option<Duration>) -> Packages {
    let types = Types::new(&["personal".to_owned()], &[]).unwrap();
    let registry = Registry::new(&[]);
    let metrics = registry.register(Metrics::register);
    Packages::new(
        Arc::new(store.clone()),
        Arc::new(types),
        future_max,
        FreeSpace::new("", 0),
        metrics,
    )
}

async fn rejected(desk: &Packages) -> u64 {
    desk.statistics().await.unwrap().rejected
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_malformed_requests_are_shown_at_once_and_stored_four_times_a_second() {
    let store = Shared::default();
    store.0.rejected.store(7, Ordering::Relaxed);
    let desk = desk(&store, None);
    let counting = desk.clone();
    let counts = tokio::spawn(async move { counting.store_counts().await });
    let begun = tokio::time::Instant::now();
    for number in 1..=10_000 {
        let before = desk.version();
        desk.reject();
        assert_ne!(desk.version(), before);
        assert_eq!(rejected(&desk).await, 7 + number);
        if number % 10 == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    assert_eq!(begun.elapsed().as_secs(), 2);
    // The last ones were counted while others were being stored.
    tokio::time::sleep(STORE_EVERY * 3).await;
    assert_eq!(store.0.rejected.load(Ordering::Relaxed), 10_007);
    let stored = store.0.stored.load(Ordering::Relaxed);
    assert!((7..=10).contains(&stored), "{stored} commits in 2 s");
    // Without new ones nothing is stored.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(store.0.stored.load(Ordering::Relaxed), stored);
    counts.abort();
}

#[tokio::test(start_paused = true)]
async fn what_is_malformed_while_the_storage_is_down_is_stored_once_it_is_up() {
    let store = Shared::default();
    let desk = desk(&store, None);
    let counting = desk.clone();
    let counts = tokio::spawn(async move { counting.store_counts().await });
    *store.0.down.lock().unwrap() = true;
    desk.reject();
    tokio::time::sleep(Duration::from_secs(5)).await;
    *store.0.down.lock().unwrap() = false;
    tokio::time::sleep(STORE_EVERY * 2).await;
    assert_eq!(store.0.rejected.load(Ordering::Relaxed), 1);
    assert_eq!(rejected(&desk).await, 1);
    counts.abort();
}

#[tokio::test]
async fn a_desk_that_is_closed_stores_what_it_counted() {
    let store = Shared::default();
    let before = desk(&store, None);
    before.store_rejected().await.unwrap();
    assert_eq!(
        store.0.stored.load(Ordering::Relaxed),
        0,
        "nothing to store"
    );
    before.reject();
    before.store_rejected().await.unwrap();
    let after = desk(&store, None);
    after.reject();
    assert_eq!(rejected(&after).await, 2);
}

#[test]
fn a_preference_may_be_stamped_as_far_ahead_as_is_configured() {
    let store = Shared::default();
    let now = Timestamp::from_second(1000).unwrap();
    assert_eq!(desk(&store, None).latest(now), None);
    let minute = desk(&store, Some(Duration::from_secs(60)));
    let latest = Timestamp::from_second(1060).unwrap();
    assert_eq!(minute.latest(now), Some(latest));
    assert_eq!(minute.latest(Timestamp::MAX), Some(Timestamp::MAX));
}
