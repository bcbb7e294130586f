//! The contract of a store: each adapter runs [`suite!`] in its tests.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::super::config::{Config, Graph};
use super::super::error::Refusal;
use super::super::model::EventType::{Crashed, Landed, ParcelCollected, ParcelDelivered, TakenOff};
use super::*;

pub(in super::super) fn rules() -> Config {
    Config {
        stale_after: Duration::from_secs(60),
        graph: Graph::Free,
        events_max: 1000,
        ongoing_max: 10_000,
        kept: 1000,
    }
}

pub(in super::super) fn id(name: &str) -> DeliveryId {
    DeliveryId::parse(name).unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn event(delivery: &str, event_type: EventType) -> NewEvent {
    NewEvent {
        delivery: id(delivery),
        event_type,
        key: None,
        received_at: at(1_000_000),
        is_public: false,
    }
}

fn keyed(delivery: &str, event_type: EventType, key: &str) -> NewEvent {
    NewEvent {
        key: Some(key.into()),
        ..event(delivery, event_type)
    }
}

pub(in super::super) async fn record(store: &impl Store, delivery: &str, event_type: EventType) {
    store.record(event(delivery, event_type)).await.unwrap();
}

/// The types of a delivery's stored events, in order.
async fn event_types(store: &impl Store, delivery: &str) -> Option<Vec<EventType>> {
    let history = store.history(id(delivery)).await.unwrap()?;
    assert_eq!(history.delivery.events as usize, history.events.len());
    assert_eq!(
        Some(history.delivery.state),
        history.events.last().map(|event| event.event_type)
    );
    let sequences = history.events.iter().map(|event| event.sequence);
    assert!(sequences.eq(1..=history.delivery.events));
    Some(
        history
            .events
            .iter()
            .map(|event| event.event_type)
            .collect(),
    )
}

async fn ongoing(store: &impl Store) -> Vec<String> {
    let deliveries = store.ongoing().await.unwrap();
    deliveries.iter().map(|d| d.id.to_string()).collect()
}

pub(in super::super) async fn an_event_is_kept_in_its_place(store: impl Store) {
    let before = store.version();
    for (n, event_type) in [ParcelCollected, TakenOff, Landed].into_iter().enumerate() {
        let recorded = store.record(event("a", event_type)).await.unwrap();
        let Recorded::New(event) = recorded else {
            panic!("{recorded:?}")
        };
        assert_eq!(event.sequence as usize, n + 1);
        let stored = store.event(id("a"), event.sequence).await.unwrap();
        assert_eq!(stored, Some(event));
    }
    assert_ne!(store.version(), before);
    assert_eq!(
        event_types(&store, "a").await.unwrap(),
        [ParcelCollected, TakenOff, Landed]
    );
    assert_eq!(store.event(id("a"), 4).await.unwrap(), None);
    assert_eq!(store.event(id("b"), 1).await.unwrap(), None);
    assert_eq!(event_types(&store, "b").await, None);
    assert_eq!(store.delivery(id("b")).await.unwrap(), None);
}

pub(in super::super) async fn what_may_not_follow_leaves_no_trace(store: impl Store) {
    let refused = store.record(event("a", TakenOff)).await;
    let illegal = Refusal::Illegal {
        state: None,
        allowed: vec![ParcelCollected],
    };
    assert_eq!(refused, Err(illegal.into()));
    assert_eq!(store.counts().await.unwrap(), Counts::default());
    record(&store, "a", ParcelCollected).await;
    record(&store, "a", ParcelDelivered).await;
    for event_type in EventType::ALL {
        let illegal = Refusal::Illegal {
            state: Some(ParcelDelivered),
            allowed: vec![],
        };
        let refused = store.record(event("a", event_type)).await;
        assert_eq!(refused, Err(illegal.into()));
    }
    assert_eq!(event_types(&store, "a").await.unwrap().len(), 2);
}

pub(in super::super) async fn a_keyed_event_is_kept_once(store: impl Store) {
    let first = store.record(keyed("a", ParcelCollected, "k1")).await;
    let Ok(Recorded::New(first)) = first else {
        panic!("{first:?}")
    };
    record(&store, "a", TakenOff).await;
    let late = NewEvent {
        received_at: at(2_000_000),
        ..keyed("a", ParcelCollected, "k1")
    };
    assert_eq!(store.record(late).await, Ok(Recorded::Replayed(first)));
    let reused = Refusal::KeyReused {
        before: ParcelCollected,
    };
    let other = store.record(keyed("a", Landed, "k1")).await;
    assert_eq!(other, Err(reused.into()));
    // A key is scoped to its delivery, and valid after the delivery's end.
    let elsewhere = store.record(keyed("b", ParcelCollected, "k1")).await;
    assert!(matches!(elsewhere, Ok(Recorded::New(_))));
    let end = store.record(keyed("a", Crashed, "k2")).await.unwrap();
    let Recorded::New(end) = end else {
        panic!("{end:?}")
    };
    let again = store.record(keyed("a", Crashed, "k2")).await;
    assert_eq!(again, Ok(Recorded::Replayed(end)));
    assert_eq!(
        event_types(&store, "a").await.unwrap(),
        [ParcelCollected, TakenOff, Crashed]
    );
}

pub(in super::super) async fn times_do_not_run_backwards(store: impl Store) {
    record(&store, "a", ParcelCollected).await;
    let early = NewEvent {
        received_at: at(5),
        ..event("a", TakenOff)
    };
    store.record(early).await.unwrap();
    let delivery = store.delivery(id("a")).await.unwrap().unwrap();
    assert_eq!(delivery.started_at, delivery.updated_at);
}

pub(in super::super) async fn the_ongoing_are_listed_oldest_first(store: impl Store) {
    for name in ["b", "a", "c"] {
        record(&store, name, ParcelCollected).await;
    }
    record(&store, "b", TakenOff).await;
    assert_eq!(ongoing(&store).await, ["b", "a", "c"]);
    record(&store, "a", Crashed).await;
    assert_eq!(ongoing(&store).await, ["b", "c"]);
    let counts = Counts {
        ongoing: 2,
        total: 3,
    };
    assert_eq!(store.counts().await.unwrap(), counts);
}

/// With `kept` at 3.
pub(in super::super) async fn one_too_many_pushes_out_the_oldest_that_is_over(store: impl Store) {
    for name in ["flying", "first", "second"] {
        record(&store, name, ParcelCollected).await;
    }
    record(&store, "first", ParcelDelivered).await;
    record(&store, "second", Crashed).await;
    record(&store, "third", ParcelCollected).await;
    // The last three are first, second, third; the one that still flies stays, too.
    for name in ["flying", "first", "second", "third"] {
        assert!(event_types(&store, name).await.is_some(), "{name}");
    }
    record(&store, "fourth", ParcelCollected).await;
    assert_eq!(event_types(&store, "first").await, None);
    assert!(event_types(&store, "flying").await.is_some());
    // Once it is over, it can be queried until the next one begins.
    record(&store, "flying", ParcelDelivered).await;
    assert!(event_types(&store, "flying").await.is_some());
    record(&store, "fifth", ParcelCollected).await;
    assert_eq!(event_types(&store, "flying").await, None);
    let counts = Counts {
        ongoing: 3,
        total: 6,
    };
    assert_eq!(store.counts().await.unwrap(), counts);
}

/// With `ongoing_max` at 2.
pub(in super::super) async fn only_so_many_are_ongoing(store: impl Store) {
    record(&store, "a", ParcelCollected).await;
    record(&store, "b", ParcelCollected).await;
    let refused = store.record(event("c", ParcelCollected)).await;
    assert_eq!(refused, Err(Refusal::TooManyOngoing.into()));
    record(&store, "a", Landed).await;
    record(&store, "a", ParcelDelivered).await;
    record(&store, "c", ParcelCollected).await;
    assert_eq!(ongoing(&store).await, ["b", "c"]);
}

/// A delivery of a naive store.
#[derive(Debug, Clone)]
struct Plain {
    number: usize,
    name: String,
    events: Vec<(EventType, Option<String>)>,
}

#[derive(Debug, Default)]
struct Naive {
    deliveries: Vec<Plain>,
    total: usize,
}

impl Naive {
    fn is_over(delivery: &Plain) -> bool {
        delivery.events.last().is_some_and(|last| last.0.is_final())
    }

    fn ongoing(&self) -> Vec<&Plain> {
        let ongoing = self.deliveries.iter();
        ongoing
            .filter(|delivery| !Self::is_over(delivery))
            .collect()
    }

    /// True if the event is accepted.
    fn record(&mut self, rules: &Config, new: &NewEvent) -> bool {
        let name = new.delivery.to_string();
        let key = new.key.as_deref().map(str::to_owned);
        let ongoing = self.ongoing().len() as u64;
        let found = self.deliveries.iter_mut().find(|d| d.name == name);
        if let Some(delivery) = found {
            let sent_before = delivery.events.iter();
            let mut sent_before = sent_before.filter(|event| key.is_some() && event.1 == key);
            if let Some(first) = sent_before.next() {
                return first.0 == new.event_type;
            }
            let accepted = !Self::is_over(delivery) && new.event_type != ParcelCollected;
            if accepted {
                delivery.events.push((new.event_type, key));
            }
            return accepted;
        }
        if new.event_type != ParcelCollected || ongoing >= rules.ongoing_max {
            return false;
        }
        self.total += 1;
        self.deliveries.push(Plain {
            number: self.total,
            name,
            events: vec![(ParcelCollected, key)],
        });
        let last_kept = self
            .total
            .saturating_sub(usize::try_from(rules.kept).unwrap());
        self.deliveries
            .retain(|delivery| delivery.number > last_kept || !Self::is_over(delivery));
        true
    }
}

fn new_event() -> impl Strategy<Value = NewEvent> {
    let event_type = prop_oneof![
        4 => Just(ParcelCollected),
        2 => Just(TakenOff),
        2 => Just(Landed),
        1 => Just(Crashed),
        2 => Just(ParcelDelivered),
    ];
    let key = prop::option::weighted(0.3, 0_u8..3);
    (0_u8..12, event_type, key).prop_map(|(name, event_type, key)| NewEvent {
        key: key.map(|key| key.to_string().into()),
        ..event(&name.to_string(), event_type)
    })
}

pub(in super::super) fn sequences() -> impl Strategy<Value = Vec<NewEvent>> {
    prop::collection::vec(new_event(), 1..80)
}

/// Small bounds, so that all of them are reached.
pub(in super::super) fn small_rules() -> Config {
    Config {
        ongoing_max: 5,
        kept: 4,
        ..rules()
    }
}

pub(in super::super) async fn agrees_with_a_naive_one(
    store: impl Store,
    rules: Config,
    events: Vec<NewEvent>,
) {
    let mut naive = Naive::default();
    let mut names = BTreeSet::new();
    for event in events {
        let accepted = naive.record(&rules, &event);
        names.insert(event.delivery.to_string());
        let recorded = store.record(event.clone()).await;
        assert_eq!(recorded.is_ok(), accepted, "{event:?}: {recorded:?}");
        let counts = Counts {
            ongoing: naive.ongoing().len() as u64,
            total: naive.total as u64,
        };
        assert_eq!(store.counts().await.unwrap(), counts);
    }
    let expected: Vec<_> = naive.ongoing().iter().map(|d| d.name.clone()).collect();
    assert_eq!(ongoing(&store).await, expected);
    for name in &names {
        let expected = naive.deliveries.iter().find(|d| &d.name == name);
        let expected = expected.map(|d| d.events.iter().map(|event| event.0).collect::<Vec<_>>());
        assert_eq!(event_types(&store, name).await, expected, "{name}");
    }
}

/// Runs the contract against the stores that `$open` creates: from rules to a store and a guard.
macro_rules! suite {
    ($open:expr) => {
        macro_rules! situation {
            ($name:ident, $rules:expr) => {
                #[tokio::test]
                async fn $name() {
                    let open: fn(Config) -> _ = $open;
                    let (store, _beside) = open($rules);
                    contract::$name(store).await;
                }
            };
        }
        situation!(an_event_is_kept_in_its_place, contract::rules());
        situation!(what_may_not_follow_leaves_no_trace, contract::rules());
        situation!(a_keyed_event_is_kept_once, contract::rules());
        situation!(times_do_not_run_backwards, contract::rules());
        situation!(the_ongoing_are_listed_oldest_first, contract::rules());
        situation!(
            one_too_many_pushes_out_the_oldest_that_is_over,
            Config {
                kept: 3,
                ..contract::rules()
            }
        );
        situation!(
            only_so_many_are_ongoing,
            Config {
                ongoing_max: 2,
                ..contract::rules()
            }
        );

        proptest::proptest! {
            #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

            #[test]
            fn it_agrees_with_a_naive_one(events in contract::sequences()) {
                let open: fn(Config) -> _ = $open;
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                let rules = contract::small_rules();
                let (store, _beside) = open(rules.clone());
                runtime.block_on(contract::agrees_with_a_naive_one(store, rules, events));
            }
        }
    };
}
pub(in super::super) use suite;
