//! Sends events over several connections at once, each with one request after the other; or publishes them to a topic.

use std::{mem, time::Duration};

use hyper::{Method, StatusCode};
use tokio::time::{Instant, sleep};

use super::{
    ANSWER_MAX_BYTES,
    ledger::Ledger,
    model::{Courier, Event, Outcome},
    plan::{Phase, Request},
    sns::Topic,
    state::{Whereabouts, courier_of, couriers},
};
use crate::{
    client::{Backoff, Client, Failure},
    connection::Answer,
    crew::{Crew, Shared},
    tally::RETRIES,
};

/// Between two looks at the outcome of an event that was published.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// A 202 is an acknowledgement, also when its body is not the contract's.
fn accepted(answer: &Answer) -> Option<Result<Vec<Outcome>, Failure>> {
    (answer.status == StatusCode::ACCEPTED).then(|| answer.json())
}

/// Sends one phase after the other, or until the run is stopped: to the shop, unless there is a topic.
pub(super) async fn publish(crew: &Crew, topic: Option<&Topic>, phases: [Phase; 2]) -> Ledger {
    let ledger = Shared::new(Ledger::default());
    for phase in phases {
        let publishers = (0..).zip(phase).map(|(number, requests)| {
            let publisher = Publisher {
                client: crew.client(number).taking_answers_up_to(ANSWER_MAX_BYTES),
                crew: crew.clone(),
                topic: topic.cloned(),
                ledger: ledger.clone(),
            };
            publisher.work(requests)
        });
        crew.at_once(publishers).await;
        if topic.is_some() {
            let orders: Vec<_> = ledger.lock().orders.keys().cloned().collect();
            await_orders(crew, orders).await;
        }
    }
    let mut ledger = ledger.into_inner();
    if topic.is_none() {
        ledger.close();
    }
    ledger
}

/// A client for looks at published events, which are repeated here, and not by the client.
fn observer(crew: &Crew) -> Client {
    Client::new(crew.server.clone()).taking_answers_up_to(ANSWER_MAX_BYTES)
}

/// Waits until the shop knows every order that was published, as long as the patience lasts. What it does not know then is
/// found out at the end.
async fn await_orders(crew: &Crew, orders: Vec<String>) {
    let mut client = observer(crew);
    let deadline = Instant::now() + crew.patience;
    for order in orders {
        loop {
            let found = courier_of(&mut client, &order).await;
            let is_known = found.is_ok_and(|found| found != Whereabouts::Unknown);
            if is_known || !look_again(crew, deadline).await {
                break;
            }
        }
    }
}

/// Waits until it is time for another look; false when there is to be none.
async fn look_again(crew: &Crew, deadline: Instant) -> bool {
    Instant::now() < deadline && crew.pause(LOOK_AGAIN_AFTER).await
}

/// One connection's side.
struct Publisher {
    client: Client,
    crew: Crew,
    topic: Option<Topic>,
    ledger: Shared<Ledger>,
}

impl Publisher {
    async fn work(mut self, requests: Vec<Request>) {
        let topic = self.topic.take();
        for request in requests {
            if self.crew.is_stopped() {
                break;
            }
            match &topic {
                None => self.post(&request).await,
                // A message is one event.
                Some(topic) => {
                    for event in request.events {
                        self.publish(topic, event).await;
                    }
                }
            }
        }
        let tally = mem::take(&mut self.client.tally);
        self.ledger.lock().tally.merge(tally);
    }

    async fn post(&mut self, request: &Request) {
        let progress = &self.crew.progress;
        request.events.iter().for_each(|_| progress.came());
        let began = Instant::now();
        let posted = self
            .client
            .request(Method::POST, "/events", Some(request.body()));
        let sent = self.client.send(&posted, accepted).await;
        self.ledger.lock().record(request, &sent, began.elapsed());
        let acknowledged = sent.answer().is_some();
        request
            .events
            .iter()
            .for_each(|_| progress.left(acknowledged));
    }

    /// Publishes an event. A queue keeps no order, so the next of the same courier is not published before the shop has
    /// received this one.
    async fn publish(&mut self, topic: &Topic, event: Event) {
        self.crew.progress.came();
        let began = Instant::now();
        let deadline = began + self.crew.patience;
        let mut backoff = Backoff::default();
        let request = Request {
            events: vec![event],
            is_list: false,
        };
        let published = loop {
            match topic.publish(request.body()).await {
                Err(_) if Instant::now() < deadline && !self.crew.is_stopped() => {
                    self.client.tally.count(RETRIES);
                    sleep(backoff.next()).await;
                }
                published => break published,
            }
        };
        match &published {
            Ok(()) => self
                .ledger
                .lock()
                .acknowledge(&request, true, began.elapsed()),
            Err(why) => self.ledger.lock().gave_up(&request, why, true),
        }
        if let (Ok(()), [Event::Courier(courier)]) = (&published, &request.events[..]) {
            self.await_courier(courier).await;
        }
        self.crew.progress.left(published.is_ok());
    }

    async fn await_courier(&self, courier: &Courier) {
        let mut client = observer(&self.crew);
        let deadline = Instant::now() + self.crew.patience;
        loop {
            let shown = couriers(&mut client).await;
            let is_shown = shown.is_ok_and(|all| all.iter().any(|it| it.latest == *courier));
            if is_shown || !look_again(&self.crew, deadline).await {
                return;
            }
        }
    }
}
