//! Sends events over several connections at once, each with one request after the other; or publishes them to a topic.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    ledger::Ledger,
    plan::{Phase, Request},
    sns::Topic,
};
use crate::{
    backoff::Backoff,
    connection::Address,
    courier_desk::{Courier, Event, Link, Shown, Whereabouts},
    progress::Progress,
    resend::{Resender, locked},
};

/// Between two looks at what has become of an event that was published.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// The clients of a run, with what they share.
#[derive(Debug, Clone)]
pub(crate) struct Office {
    pub(crate) shop: Address,
    /// The topic that events are published to; none when they are sent to the shop.
    pub(crate) topic: Option<Topic>,
    /// From the first try of a request to giving it up, and for an event that was published to be known; measured.
    pub(crate) patience: Duration,
    pub(crate) progress: Arc<Progress>,
    pub(crate) closing: CancellationToken,
}

impl Office {
    /// Sends one phase after the other, or until `closing` is cancelled, and returns what was answered.
    pub(crate) async fn work(self, phases: [Phase; 2]) -> Ledger {
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        for phase in phases {
            let mut publishing = JoinSet::new();
            for (number, requests) in (0..).zip(phase) {
                let publisher = Publisher {
                    link: Link::new(self.shop.clone()),
                    resender: Resender::new(self.patience, self.closing.clone(), number),
                    office: self.clone(),
                    ledger: Arc::clone(&ledger),
                };
                publishing.spawn(publisher.work(requests));
            }
            publishing.join_all().await;
            if self.topic.is_some() {
                self.await_orders(&ledger).await;
            }
        }
        let ledger = Arc::into_inner(ledger).expect("the publishers have ended");
        let mut ledger = ledger.into_inner().unwrap_or_else(PoisonError::into_inner);
        if self.topic.is_none() {
            ledger.close();
        }
        ledger
    }

    /// Waits until the shop knows every order that was published, as long as the patience lasts. What it does not know then
    /// is found out at the end.
    async fn await_orders(&self, ledger: &Mutex<Ledger>) {
        let orders: Vec<String> = locked(ledger).orders.keys().cloned().collect();
        let mut link = Link::new(self.shop.clone());
        let deadline = Instant::now() + self.patience;
        for order in orders {
            loop {
                let found = timeout_at(deadline, Box::pin(link.courier_of(&order))).await;
                let is_known = |found: Whereabouts| found != Whereabouts::Unknown;
                if found.is_ok_and(|found| found.is_ok_and(is_known)) || !self.again(deadline).await
                {
                    break;
                }
            }
        }
    }

    /// Waits until it is time for another look; false when there is to be none.
    async fn again(&self, deadline: Instant) -> bool {
        if Instant::now() >= deadline {
            return false;
        }
        let waited = self.closing.run_until_cancelled(sleep(LOOK_AGAIN_AFTER));
        waited.await.is_some()
    }
}

/// One connection's side.
struct Publisher {
    link: Link,
    resender: Resender,
    office: Office,
    ledger: Arc<Mutex<Ledger>>,
}

impl Publisher {
    async fn work(mut self, requests: Vec<Request>) {
        let topic = self.office.topic.clone();
        for request in requests {
            if self.office.closing.is_cancelled() {
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
        let tries = std::mem::take(&mut self.resender.tries);
        self.ledger().tries.add(tries);
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        locked(&self.ledger)
    }

    async fn post(&mut self, request: &Request) {
        let progress = Arc::clone(&self.office.progress);
        for _ in &request.events {
            progress.customer_came();
        }
        let began = Instant::now();
        let sent = self.link.post(request.body(), &mut self.resender).await;
        self.ledger().record(request, &sent, began.elapsed());
        for _ in &request.events {
            progress.customer_left(sent.acknowledged.is_some());
        }
    }

    /// Publishes an event. A queue keeps no order, so the next of the same courier is not published before the shop has heard
    /// this one.
    async fn publish(&mut self, topic: &Topic, event: Event) {
        self.office.progress.customer_came();
        let began = Instant::now();
        let deadline = began + self.office.patience;
        let mut backoff = Backoff::default();
        let request = Request {
            events: vec![event],
            is_list: false,
        };
        let published = loop {
            match topic.publish(request.body()).await {
                Err(_) if Instant::now() < deadline && !self.office.closing.is_cancelled() => {
                    self.resender.tries.retries += 1;
                    sleep(backoff.next()).await;
                }
                published => break published,
            }
        };
        match &published {
            Ok(()) => self.ledger().passed_on(&request, began.elapsed()),
            Err(why) => self.ledger().gave_up(&request, why, true),
        }
        if let (Ok(()), [Event::Courier(courier)]) = (&published, &request.events[..]) {
            self.await_courier(courier).await;
        }
        self.office.progress.customer_left(published.is_ok());
    }

    async fn await_courier(&mut self, courier: &Courier) {
        let deadline = Instant::now() + self.office.patience;
        let is_so = |shown: &Shown| shown.latest == *courier;
        loop {
            let shown = timeout_at(deadline, Box::pin(self.link.couriers())).await;
            let is_shown = |all: Vec<Shown>| all.iter().any(is_so);
            if shown.is_ok_and(|shown| shown.is_ok_and(is_shown))
                || !self.office.again(deadline).await
            {
                return;
            }
        }
    }
}
