//! Commands that are refused, lost or repeated on their way, and answers that are lost or late.

use std::time::Duration;

use testkit::proxy::{ANY, Fault, Proxy};
use testkit::until;

use super::*;

/// Couriers who move, and orders of which some wait and some are sent again.
fn events() -> Vec<Event> {
    use contract::{placed, says};

    vec![
        placed(1, Zone::N, 1),
        placed(2, Zone::N, 2),
        says(1, Zone::N, true),
        says(2, Zone::N, true),
        placed(3, Zone::N, 3),
        placed(3, Zone::N, 3),
        says(1, Zone::S, true),
        placed(4, Zone::S, 4),
        says(1, Zone::E, true),
        says(1, Zone::S, false),
        placed(5, Zone::S, 5),
        placed(1, Zone::W, 6),
        says(2, Zone::S, true),
    ]
}

async fn behind_a_proxy(server: &Server) -> (Redis, Proxy) {
    let proxy = Proxy::before_redis(server).await;
    let store = store(&format!("redis://{}", proxy.address), Join::Zero).await;
    (store, proxy)
}

/// Assignments that wait to be published.
async fn unpublished(store: &Redis) -> Vec<Assignment> {
    let outgoing = store.outgoing(100).await.unwrap();
    outgoing.iter().map(|it| it.assignment).collect()
}

#[tokio::test]
async fn a_command_that_arrives_twice_changes_nothing_the_second_time() {
    let [server, other] = [Server::start().await, Server::start().await];
    let once = store(&server.socket(), Join::Zero).await;
    let (twice, proxy) = behind_a_proxy(&other).await;
    proxy.all_but(ANY, 0, Fault::Repeated);
    for event in events() {
        let expected = contract::tell(&once, vec![event.clone()], contract::at(1)).await;
        let outcome = contract::tell(&twice, vec![event.clone()], contract::at(1)).await;
        assert_eq!(outcome, expected, "{event:?}");
    }
    proxy.end();
    assert_eq!(twice.orders().await, once.orders().await);
    assert_eq!(twice.couriers(None).await, once.couriers(None).await);
    assert_eq!(twice.parked(100).await, once.parked(100).await);
    assert_eq!(unpublished(&twice).await, unpublished(&once).await);
    let orders = [1, 2, 3, 4, 5].map(contract::order);
    contract::consistent(&twice, Join::Zero, &orders).await;
}

#[tokio::test]
async fn an_answer_that_is_later_than_its_limit_is_an_error_and_loses_nothing() {
    let server = Server::start().await;
    let (store, proxy) = behind_a_proxy(&server).await;
    contract::tell(
        &store,
        vec![contract::says(1, Zone::N, true)],
        contract::at(1),
    )
    .await;
    let event = || vec![(contract::placed(1, Zone::N, 1), contract::at(1))];
    proxy.all_but("EVALSHA", 0, Fault::AnswerDelayed(Duration::from_secs(60)));
    assert_eq!(store.apply(event()).await, Err(Unavailable::Engine));
    assert!(store.state().down.is_some());
    proxy.end();
    // It was carried out all the same.
    let decided = Whereabouts::With(contract::courier(1));
    until("it is acknowledged", async || {
        store.apply(event()).await == Ok(vec![Outcome::Duplicate(decided)])
    })
    .await;
    assert_eq!(store.state().down, None);
    assert_eq!(unpublished(&store).await.len(), 1);
    contract::consistent(&store, Join::Zero, &[contract::order(1)]).await;
}

#[tokio::test]
async fn a_command_that_is_refused_for_now_or_loses_its_connection_is_sent_again() {
    let server = Server::start().await;
    let (store, proxy) = behind_a_proxy(&server).await;
    let courier = contract::says(1, Zone::N, true);
    contract::tell(&store, vec![courier], contract::at(1)).await;
    let refused = |code| Fault::Error(code, 0);
    let faults = [
        refused("READONLY"),
        refused("LOADING"),
        refused("MASTERDOWN"),
        Fault::Lost,
        Fault::AnswerLost,
    ];
    for (number, fault) in (1..).zip(faults) {
        proxy.next("EVALSHA", &[fault]);
        let order = contract::placed(number, Zone::N, 1);
        let outcomes = contract::tell(&store, vec![order], contract::at(1)).await;
        let courier = contract::courier(1);
        let expected = match fault {
            Fault::AnswerLost => Outcome::Duplicate(Whereabouts::With(courier)),
            _ => Outcome::Assigned(courier),
        };
        assert_eq!(outcomes, [expected], "{fault:?}");
        assert!(proxy.is_over());
    }
    assert_eq!(unpublished(&store).await.len(), 5);
    let orders = [1, 2, 3, 4, 5].map(contract::order);
    contract::consistent(&store, Join::Zero, &orders).await;
}
