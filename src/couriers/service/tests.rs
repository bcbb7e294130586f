//! Concurrent changes of couriers, with a slow topic.

use super::super::sqlite::tests::fresh;
use super::super::store::contract;
use super::super::topic::Published;
use super::*;
use crate::couriers::model::Join;
use crate::telemetry::Registry;

/// A topic that never confirms events of this courier.
#[derive(Debug)]
struct Stuck(CourierId);

impl Topic for Stuck {
    fn publish(&self, events: Vec<Event>) -> Published<'_> {
        let stuck = events.iter().any(|event| match event {
            Event::Courier(said) => said.id == self.0,
            Event::Order(_) => false,
        });
        Box::pin(async move {
            if stuck {
                std::future::pending::<()>().await;
            }
            Ok(())
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_of_one_courier_waits_for_no_change_of_another() {
    let said = |number: u128| match contract::says(number, Zone::N, true) {
        Event::Courier(said) => said,
        Event::Order(_) => unreachable!("it is of a courier"),
    };
    let (stuck, other) = (said(1), said(2));
    let (store, _directory) = fresh(Join::Zero);
    let metrics = Registry::new(&[]).register(Metrics::register);
    let topic = Arc::new(Stuck(stuck.id));
    let desk = Couriers::new(Arc::new(store), metrics).with_topic(topic, true);
    let change = |said: AddCourier| {
        let desk = desk.clone();
        async move { desk.change(said.id, |_| Ok::<_, PublishError>(said)).await }
    };
    let waiting = tokio::spawn(change(stuck.clone()));
    // It holds the lock of its courier once another change of them would block.
    while desk.turn(stuck.id).try_lock().is_ok() {
        tokio::task::yield_now().await;
    }
    change(other).await.unwrap();
    assert!(!waiting.is_finished());
    waiting.abort();
}
