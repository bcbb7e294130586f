//! The contract of a store: each adapter runs [`suite!`] in its tests.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use simulators::deliveries::{Model, model};

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

fn modelled(event_type: EventType) -> model::EventType {
    let mut all = model::EventType::ALL.into_iter();
    let same = all.find(|kind| kind.name() == event_type.as_str());
    same.unwrap()
}

pub(in super::super) async fn agrees_with_the_model(
    store: impl Store,
    rules: Config,
    events: Vec<NewEvent>,
) {
    let mut model = Model::new(rules.ongoing_max, rules.kept);
    let mut names = BTreeSet::new();
    for event in events {
        let (name, kind) = (event.delivery.to_string(), modelled(event.event_type));
        let expected = model.record(&name, kind, event.key.as_deref());
        names.insert(name);
        let recorded = match store.record(event.clone()).await {
            Ok(Recorded::New(event)) => model::Recorded::New(event.sequence.into()),
            Ok(Recorded::Replayed(event)) => model::Recorded::Replayed(event.sequence.into()),
            Err(_) => model::Recorded::Refused,
        };
        assert_eq!(recorded, expected, "{event:?}");
        let counts = Counts {
            ongoing: model.ongoing().count() as u64,
            total: model.total(),
        };
        assert_eq!(store.counts().await.unwrap(), counts);
    }
    assert!(ongoing(&store).await.iter().eq(model.ongoing()));
    for name in &names {
        let found = event_types(&store, name).await;
        let found = found.map(|found| found.into_iter().map(modelled).collect::<Vec<_>>());
        let expected = model
            .delivery(name)
            .map(|delivery| delivery.events().collect());
        assert_eq!(found, expected, "{name}");
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
            fn it_agrees_with_the_model(events in contract::sequences()) {
                let open: fn(Config) -> _ = $open;
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                let rules = contract::small_rules();
                let (store, _beside) = open(rules.clone());
                runtime.block_on(contract::agrees_with_the_model(store, rules, events));
            }
        }
    };
}
pub(in super::super) use suite;
