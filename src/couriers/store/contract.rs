//! The contract of a store: each adapter runs [`suite!`] in its tests.

mod board;

use std::collections::{BTreeMap, BTreeSet};
use std::task::Poll;

use proptest::prelude::*;
use uuid::Uuid;

use self::board::Board;
use super::super::model::{AddCourier, Join};
use super::*;

pub(in super::super) fn courier(number: u128) -> CourierId {
    CourierId(Uuid::from_u128(number))
}

pub(in super::super) fn order(number: u128) -> OrderId {
    OrderId(Uuid::from_u128(0xFFFF_0000 + number))
}

pub(in super::super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub(in super::super) fn says(number: u128, zone: Zone, is_available: bool) -> Event {
    Event::Courier(AddCourier {
        id: courier(number),
        name: format!("courier {number}").into(),
        zone,
        is_available,
    })
}

pub(in super::super) fn placed(number: u128, zone: Zone, second: i64) -> Event {
    Event::Order(AddOrder {
        id: order(number),
        details: "Buy \"something\", ü".into(),
        zone,
        added_at: at(second),
    })
}

pub(in super::super) async fn tell(
    store: &impl Store,
    events: Vec<Event>,
    at: Timestamp,
) -> Vec<Outcome> {
    let events = events.into_iter().map(|event| (event, at)).collect();
    store.apply(events).await.unwrap()
}

async fn comes_to(store: &impl Store, event: Event) -> Outcome {
    let outcomes = tell(store, vec![event], at(9)).await;
    let [outcome] = outcomes[..] else {
        panic!("one event, one outcome: {outcomes:?}")
    };
    outcome
}

async fn counts(store: &impl Store) -> Vec<(CourierId, u64)> {
    let couriers = store.couriers(None).await.unwrap();
    couriers
        .iter()
        .map(|known| (known.said.id, known.count))
        .collect()
}

/// What `zones` says is what all couriers and parked orders say.
async fn zones_agree(store: &impl Store) {
    let couriers = store.couriers(None).await.unwrap();
    let (parked, _) = store.parked(usize::MAX >> 1).await.unwrap();
    let expected = Zone::ALL.map(|zone| {
        let here = couriers.iter().filter(|known| known.said.zone == zone);
        let available = || here.clone().filter(|known| known.said.is_available);
        let waiting = parked.iter().filter(|order| order.zone == zone);
        ZoneSummary {
            zone,
            available: available().count() as u64,
            unavailable: here.clone().count() as u64 - available().count() as u64,
            given: here.clone().map(|known| known.count).sum(),
            least: available().map(|known| known.count).min(),
            most: available().map(|known| known.count).max(),
            parked: waiting.clone().count() as u64,
            oldest_parked: waiting.map(|order| order.added_at).min(),
        }
    });
    assert_eq!(store.zones().await.unwrap(), expected);
}

/// Counts equal assignments, every order is in one place, and the log replays to the stored state.
pub(in super::super) async fn consistent(store: &impl Store, join: Join, orders: &[OrderId]) {
    let mut places = BTreeMap::new();
    for &id in orders {
        places.insert(
            id,
            store.order(id).await.unwrap().expect("it was published of"),
        );
    }
    let mut given = BTreeMap::new();
    for place in places.values() {
        if let Whereabouts::With(courier) = place {
            *given.entry(*courier).or_insert(0) += 1;
        }
    }
    let couriers = store.couriers(None).await.unwrap();
    for known in &couriers {
        let id = known.said.id;
        let of_courier = store.orders_of(id).await.unwrap();
        assert_eq!(
            of_courier.len() as u64,
            given.get(&id).copied().unwrap_or_default()
        );
        assert!(
            of_courier
                .iter()
                .all(|order| places[order] == Whereabouts::With(id))
        );
        if join == Join::Zero {
            assert_eq!(known.count, of_courier.len() as u64, "{known:?}");
        }
        assert_eq!(store.courier(id).await.unwrap().as_ref(), Some(known));
    }
    zones_agree(store).await;
    let (parked, total) = store.parked(1000).await.unwrap();
    let parked: BTreeSet<OrderId> = parked.iter().map(|order| order.id).collect();
    let expected = places
        .iter()
        .filter(|(_, place)| **place == Whereabouts::Parked);
    assert_eq!(parked, expected.map(|(id, _)| *id).collect());
    assert_eq!(total, parked.len() as u64);
    let mut board = Board::new(join);
    let mut after = 0;
    loop {
        let events = store.events(after, 3).await.unwrap();
        let Some(last) = events.last() else { break };
        assert!(events.iter().is_sorted_by_key(|event| event.number));
        assert!(events[0].number > after);
        after = last.number;
        for recorded in &events {
            assert_eq!(board.apply(&recorded.event).0, recorded.outcome);
        }
    }
    assert_eq!(board.couriers(), couriers);
    assert_eq!(board.orders(), places);
    assert_eq!(
        store.orders().await.unwrap(),
        places.into_iter().collect::<Vec<_>>()
    );
}

pub(in super::super) async fn an_order_goes_to_whoever_was_given_least(store: impl Store) {
    for (number, zone) in [(2, Zone::N), (1, Zone::N), (3, Zone::S)] {
        let outcome = comes_to(&store, says(number, zone, true)).await;
        assert_eq!(outcome, Outcome::Updated { unparked: 0 });
    }
    for (number, to) in [(1, 1), (2, 2), (3, 1), (4, 2)] {
        let outcome = comes_to(&store, placed(number, Zone::N, 1)).await;
        assert_eq!(outcome, Outcome::Assigned(courier(to)), "order {number}");
    }
    assert_eq!(
        store.orders_of(courier(1)).await.unwrap(),
        [order(1), order(3)]
    );
    assert_eq!(store.orders_of(courier(99)).await.unwrap(), []);
    assert_eq!(
        counts(&store).await,
        [(courier(1), 2), (courier(2), 2), (courier(3), 0)]
    );
    consistent(&store, Join::Zero, &[1, 2, 3, 4].map(order)).await;
}

pub(in super::super) async fn orders_before_couriers_wait_in_their_order(store: impl Store) {
    for (number, zone, second) in [(1, Zone::N, 30), (2, Zone::S, 20), (3, Zone::N, 10)] {
        assert_eq!(
            comes_to(&store, placed(number, zone, second)).await,
            Outcome::Parked
        );
    }
    let (parked, total) = store.parked(2).await.unwrap();
    let ids: Vec<OrderId> = parked.iter().map(|order| order.id).collect();
    assert_eq!((ids, total), (vec![order(3), order(1)], 3));
    assert_eq!(
        comes_to(&store, says(5, Zone::E, true)).await,
        Outcome::Updated { unparked: 0 }
    );
    assert_eq!(
        comes_to(&store, says(6, Zone::N, false)).await,
        Outcome::Updated { unparked: 0 }
    );
    assert_eq!(
        comes_to(&store, says(6, Zone::N, true)).await,
        Outcome::Updated { unparked: 2 }
    );
    assert_eq!(
        store.order(order(2)).await.unwrap(),
        Some(Whereabouts::Parked)
    );
    assert_eq!(store.order(order(9)).await.unwrap(), None);
    assert_eq!(
        comes_to(&store, says(7, Zone::S, true)).await,
        Outcome::Updated { unparked: 1 }
    );
    let outgoing = store.outgoing(10).await.unwrap();
    let published: Vec<_> = outgoing
        .iter()
        .map(|it| (it.assignment.order_id, it.assignment.courier_id))
        .collect();
    assert_eq!(
        published,
        [
            (order(3), courier(6)),
            (order(1), courier(6)),
            (order(2), courier(7))
        ]
    );
    consistent(&store, Join::Zero, &[1, 2, 3].map(order)).await;
}

pub(in super::super) async fn what_is_told_again_changes_nothing(store: impl Store) {
    assert_eq!(
        comes_to(&store, placed(1, Zone::N, 1)).await,
        Outcome::Parked
    );
    let again = comes_to(&store, placed(1, Zone::S, 2)).await;
    assert_eq!(again, Outcome::Duplicate(Whereabouts::Parked));
    comes_to(&store, says(1, Zone::N, true)).await;
    comes_to(&store, says(2, Zone::N, true)).await;
    let again = comes_to(&store, placed(1, Zone::N, 1)).await;
    assert_eq!(again, Outcome::Duplicate(Whereabouts::With(courier(1))));
    assert_eq!(counts(&store).await, [(courier(1), 1), (courier(2), 0)]);
    consistent(&store, Join::Zero, &[order(1)]).await;
}

pub(in super::super) async fn a_courier_told_of_again_keeps_the_count(store: impl Store) {
    comes_to(&store, says(1, Zone::N, true)).await;
    comes_to(&store, placed(1, Zone::N, 1)).await;
    // In another zone now: the count follows, and the orders stay.
    comes_to(&store, says(1, Zone::S, true)).await;
    assert_eq!(
        comes_to(&store, placed(2, Zone::N, 2)).await,
        Outcome::Parked
    );
    comes_to(&store, says(2, Zone::S, true)).await;
    assert_eq!(
        comes_to(&store, placed(3, Zone::S, 3)).await,
        Outcome::Assigned(courier(2))
    );
    // Not available: no new orders, the assigned ones stay.
    comes_to(&store, says(1, Zone::S, false)).await;
    comes_to(&store, says(2, Zone::S, false)).await;
    assert_eq!(
        comes_to(&store, placed(4, Zone::S, 4)).await,
        Outcome::Parked
    );
    assert_eq!(store.orders_of(courier(1)).await.unwrap(), [order(1)]);
    let known = store.courier(courier(1)).await.unwrap().unwrap();
    assert_eq!(
        (known.count, known.said.zone, known.said.is_available),
        (1, Zone::S, false)
    );
    let of_south = store.couriers(Some(Zone::S)).await.unwrap();
    assert_eq!(of_south.len(), 2);
    assert!(store.couriers(Some(Zone::N)).await.unwrap().is_empty());
    consistent(&store, Join::Zero, &[1, 2, 3, 4].map(order)).await;
}

pub(in super::super) async fn what_was_told_is_not_told_again(store: impl Store) {
    comes_to(&store, says(1, Zone::N, true)).await;
    let orders = (1..=5).map(|number| placed(number, Zone::N, 1)).collect();
    tell(&store, orders, at(9)).await;
    let outgoing = store.outgoing(3).await.unwrap();
    assert_eq!(outgoing.len(), 3);
    store
        .mark_published(outgoing.iter().map(|it| it.number).collect())
        .await
        .unwrap();
    // Redelivered late.
    store
        .mark_published(outgoing.iter().map(|it| it.number).collect())
        .await
        .unwrap();
    let rest = store.outgoing(9).await.unwrap();
    let ids: Vec<OrderId> = rest.iter().map(|it| it.assignment.order_id).collect();
    assert_eq!(ids, [order(4), order(5)]);
}

pub(in super::super) async fn what_was_decided_elsewhere_is_known(store: impl Store) {
    fn replicated(orders: &[u128], to: u128) -> impl Iterator<Item = Assignment> {
        orders.iter().map(move |&number| Assignment {
            order_id: order(number),
            courier_id: courier(to),
        })
    }
    let outcomes = tell(
        &store,
        vec![
            placed(1, Zone::N, 1),
            says(1, Zone::S, true),
            placed(2, Zone::S, 1),
        ],
        at(1),
    )
    .await;
    assert_eq!(outcomes[2], Outcome::Assigned(courier(1)));
    // Two of them are decided here: one has its courier, the other gets one.
    let assignments = replicated(&[1, 2, 3], 7).chain(replicated(&[4], 1));
    store.replicate(assignments.collect()).await.unwrap();
    store
        .replicate(replicated(&[3], 8).collect())
        .await
        .unwrap();
    for (number, with) in [(1, 7), (2, 1), (3, 7), (4, 1)] {
        let place = store.order(order(number)).await.unwrap();
        assert_eq!(place, Some(Whereabouts::With(courier(with))), "{number}");
    }
    let orders = store.orders_of(courier(7)).await.unwrap();
    assert_eq!(orders, [order(1), order(3)]);
    let orders = store.orders_of(courier(1)).await.unwrap();
    assert_eq!(orders, [order(2), order(4)]);
    assert!(store.orders_of(courier(8)).await.unwrap().is_empty());
    assert_eq!(counts(&store).await, [(courier(1), 1)]);
}

pub(in super::super) async fn a_hundred_couriers_share_evenly(store: impl Store) {
    let couriers = (0..100).map(|number| says(number, Zone::W, true)).collect();
    tell(&store, couriers, at(1)).await;
    for batch in 0..5 {
        let orders = (0..201)
            .map(|number| placed(batch * 1000 + number, Zone::W, 1))
            .collect();
        tell(&store, orders, at(2)).await;
    }
    let counts: Vec<u64> = counts(&store)
        .await
        .iter()
        .map(|&(_, count)| count)
        .collect();
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    assert!(most - least <= 1, "{counts:?}");
    assert_eq!(counts.iter().sum::<u64>(), 1005);
}

pub(in super::super) fn events() -> impl Strategy<Value = Vec<Event>> {
    let zone = (0..4_usize).prop_map(|number| Zone::ALL[number]);
    let courier = (0..6_u128, zone.clone(), any::<bool>());
    let courier = courier.prop_map(|(number, zone, available)| says(number, zone, available));
    let order = (0..25_u128, zone, 0..100_i64);
    let order = order.prop_map(|(number, zone, second)| placed(number, zone, second));
    proptest::collection::vec(prop_oneof![2 => courier, 5 => order], 0..60)
}

/// Whatever the events and batches: the store agrees with the in-memory board.
pub(in super::super) async fn agrees_with_a_board(
    store: impl Store,
    join: Join,
    events: Vec<Event>,
) {
    let mut board = Board::new(join);
    let mut published = Vec::new();
    for (number, piece) in events.chunks(7).enumerate() {
        let at = at(number.try_into().unwrap());
        let outcomes = tell(&store, piece.to_vec(), at).await;
        for (event, outcome) in piece.iter().zip(outcomes) {
            let (expected, assignments) = board.apply(event);
            assert_eq!(outcome, expected, "{event:?}");
            published.extend(assignments);
        }
    }
    let outgoing = store.outgoing(1000).await.unwrap();
    let mut outgoing: Vec<Assignment> = outgoing.iter().map(|it| it.assignment).collect();
    // The order between two zones is undefined.
    let zone = |assignment: &Assignment| {
        let mut placed = events.iter().filter_map(|event| match event {
            Event::Order(order) if order.id == assignment.order_id => Some(order.zone),
            _ => None,
        });
        placed.next()
    };
    outgoing.sort_by_key(zone);
    published.sort_by_key(zone);
    assert_eq!(outgoing, published);
    let orders: Vec<OrderId> = board.orders().keys().copied().collect();
    for (id, place) in board.orders() {
        assert_eq!(store.order(id).await.unwrap(), Some(place));
    }
    assert_eq!(store.couriers(None).await.unwrap(), board.couriers());
    consistent(&store, join, &orders).await;
}

/// Polls all futures concurrently.
async fn all_at_once<T>(work: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut work: Vec<_> = work.into_iter().map(|it| (Box::pin(it), None)).collect();
    std::future::poll_fn(|context| {
        let mut open = 0;
        for (future, done) in work.iter_mut().filter(|(_, done)| done.is_none()) {
            match future.as_mut().poll(context) {
                Poll::Ready(output) => *done = Some(output),
                Poll::Pending => open += 1,
            }
        }
        if open == 0 {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    work.into_iter().filter_map(|(_, done)| done).collect()
}

/// How often a process ends before the last run.
const LIVES: usize = 12;

/// One dispatcher: receives shuffled events, publishes assignments, and ends between any two steps; what it did not finish is
/// redelivered. Returns what it published.
async fn dispatcher<S: Store>(
    open: &impl AsyncFn(Option<i64>) -> S,
    close: &impl AsyncFn(S),
    mut waiting: Vec<Event>,
    mut random: fastrand::Rng,
) -> Vec<Assignment> {
    let mut told_of = Vec::new();
    for life in 0..=LIVES {
        let mortal = life < LIVES;
        let store = open(mortal.then(|| random.i64(1..40))).await;
        loop {
            random.shuffle(&mut waiting);
            let batch = waiting.len().min(random.usize(1..=10));
            let events = waiting[..batch].iter().cloned();
            let events = events.map(|event| (event, at(life.try_into().unwrap())));
            let applied = store.apply(events.collect()).await;
            if applied.is_err() || (mortal && random.u8(..6) == 0) {
                assert!(mortal, "{applied:?}");
                break;
            }
            waiting.drain(..batch);
            let Ok(outgoing) = store.outgoing(random.usize(1..20)).await else {
                break;
            };
            if outgoing.is_empty() && waiting.is_empty() {
                close(store).await;
                return told_of;
            }
            told_of.extend(outgoing.iter().map(|it| it.assignment));
            if mortal && random.u8(..6) == 0 {
                break;
            }
            let numbers = outgoing.iter().map(|it| it.number).collect();
            if store.mark_published(numbers).await.is_err() {
                break;
            }
        }
        close(store).await;
    }
    panic!("the last life has no end");
}

/// Concurrent dispatchers, each with all events, some of them twice: every order has one courier or is parked, counts equal
/// assignments, all of them were published, and the log replays to the stored state.
pub(in super::super) async fn survives<S: Store>(
    open: impl AsyncFn(Option<i64>) -> S,
    close: impl AsyncFn(S),
    events: Vec<Event>,
    seed: u64,
    dispatchers: usize,
) {
    let mut random = fastrand::Rng::with_seed(seed);
    let work: Vec<_> = (0..dispatchers)
        .map(|_| {
            let mut heard = events.clone();
            heard.extend(events.iter().filter(|_| random.u8(..4) == 0).cloned());
            dispatcher(&open, &close, heard, random.fork())
        })
        .collect();
    let mut told_of = BTreeMap::new();
    for assignments in all_at_once(work).await {
        for assignment in assignments {
            let first = told_of.insert(assignment.order_id, assignment.courier_id);
            assert!(
                first.is_none_or(|first| first == assignment.courier_id),
                "one order, two couriers: {assignment:?}"
            );
        }
    }
    let store = open(None).await;
    let placed = events.iter().filter_map(|event| match event {
        Event::Order(order) => Some(order.id),
        Event::Courier(_) => None,
    });
    let orders: BTreeSet<OrderId> = placed.collect();
    let orders: Vec<OrderId> = orders.into_iter().collect();
    consistent(&store, Join::Zero, &orders).await;
    for order in orders {
        let with = match store.order(order).await.unwrap() {
            Some(Whereabouts::With(courier)) => Some(courier),
            _ => None,
        };
        assert_eq!(told_of.get(&order).copied(), with, "{order}");
    }
    close(store).await;
}

/// Runs the contract against the stores that `$open` creates: an async closure from [`Join`] to a store with an outbox, and a
/// guard. `$cases`: how often it is compared with a board.
macro_rules! suite {
    ($open:expr, $cases:expr) => {
        macro_rules! situation {
            ($name:ident) => {
                #[tokio::test]
                async fn $name() {
                    let open = $open;
                    let (store, _beside) = open(Join::Zero).await;
                    contract::$name(store).await;
                }
            };
        }
        situation!(an_order_goes_to_whoever_was_given_least);
        situation!(orders_before_couriers_wait_in_their_order);
        situation!(what_is_told_again_changes_nothing);
        situation!(a_courier_told_of_again_keeps_the_count);
        situation!(what_was_told_is_not_told_again);
        situation!(what_was_decided_elsewhere_is_known);
        situation!(a_hundred_couriers_share_evenly);

        proptest::proptest! {
            #![proptest_config(proptest::prelude::ProptestConfig::with_cases($cases))]

            #[test]
            fn it_agrees_with_a_board(events in contract::events(), min: bool) {
                let join = if min { Join::Min } else { Join::Zero };
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let open = $open;
                    let (store, _beside) = open(join).await;
                    contract::agrees_with_a_board(store, join, events).await;
                });
            }
        }
    };
}
pub(in super::super) use suite;
