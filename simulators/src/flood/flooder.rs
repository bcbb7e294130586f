//! One visitor who orders thousands of coffees at once, always from the same address.
//!
//! The flooder has a thread of their own: making thousands of connections must not hold up the clocks of the regulars
//! who share this process.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use tokio::{
    runtime,
    task::{JoinSet, spawn_blocking},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    connection::{Address, Answer, Connection, TransportError},
    dribble::Slow,
    progress::Progress,
    shop::{Receipt, order_request},
    visits::{Ending, Visit},
};

/// How a flooder uses connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Connections {
    /// A new one for each order.
    New,
    /// One for order after order, as long as the shop keeps it open.
    Kept,
}

/// How a flooder speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Manner {
    /// As fast as it goes.
    Plain,
    /// The request's header a byte at a time.
    SlowHeader,
    /// The request's body a byte at a time.
    SlowBody,
    /// Reading the answer a byte at a time.
    SlowRead,
}

impl Manner {
    fn slow(self) -> Option<Slow> {
        match self {
            Self::Plain => None,
            Self::SlowHeader => Some(Slow::Header),
            Self::SlowBody => Some(Slow::Body),
            Self::SlowRead => Some(Slow::Read),
        }
    }
}

/// What a flooder does.
#[derive(Debug, Clone)]
pub(crate) struct Flooder {
    pub(crate) shop: Address,
    pub(crate) from: Ipv4Addr,
    pub(crate) orders: u32,
    /// Orders that may be without an answer at the same time.
    pub(crate) at_once: u32,
    pub(crate) connections: Connections,
    pub(crate) manner: Manner,
    /// Between two bytes of what is slow, measured.
    pub(crate) pause: Duration,
}

impl Flooder {
    /// Floods the shop until all orders have been answered or `over` is cancelled: then nothing more is ordered, and
    /// what has not been answered never will be. Returns what became of each order that was sent, by the time of
    /// sending.
    pub(crate) async fn flood(
        self,
        begun: Instant,
        progress: Arc<Progress>,
        over: CancellationToken,
    ) -> Result<Vec<Visit>> {
        let thread = move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.context("cannot start the flooder's thread")?;
            Ok(runtime.block_on(self.order_all(begun, progress, over)))
        };
        spawn_blocking(thread).await.context("the flooder fell")?
    }

    async fn order_all(
        self,
        begun: Instant,
        progress: Arc<Progress>,
        over: CancellationToken,
    ) -> Vec<Visit> {
        let flooder = Arc::new(self);
        let ordered = Arc::new(AtomicU32::new(0));
        let mut hands = JoinSet::new();
        for _ in 0..flooder.at_once.min(flooder.orders) {
            let hand = Hand {
                flooder: Arc::clone(&flooder),
                ordered: Arc::clone(&ordered),
                begun,
                progress: Arc::clone(&progress),
                over: over.clone(),
                connection: None,
            };
            hands.spawn(hand.order_in_turn());
        }
        let mut visits = hands.join_all().await.concat();
        visits.sort_unstable_by_key(|visit| visit.arrived);
        visits
    }
}

/// One of the flooder's many hands: a connection at a time, an order at a time.
struct Hand {
    flooder: Arc<Flooder>,
    /// Orders that all hands together have taken on.
    ordered: Arc<AtomicU32>,
    begun: Instant,
    progress: Arc<Progress>,
    over: CancellationToken,
    connection: Option<Connection>,
}

impl Hand {
    async fn order_in_turn(mut self) -> Vec<Visit> {
        let mut visits = Vec::new();
        while !self.over.is_cancelled() {
            let number = self.ordered.fetch_add(1, Relaxed) + 1;
            if number > self.flooder.orders {
                break;
            }
            let sent = Instant::now();
            self.progress.came();
            let over = self.over.clone();
            let answer = over.run_until_cancelled(self.order(number)).await;
            let (ending, receipt) = match answer {
                Some(Ok(answer)) => (Ending::Answered(answer.status), Receipt::read(&answer)),
                Some(Err(error)) => (Ending::Failed(error), Receipt::default()),
                None => (Ending::Unanswered, Receipt::default()),
            };
            self.progress.left(ending.is_served());
            visits.push(Visit {
                group: 0,
                arrived: sent - self.begun,
                wait: sent.elapsed(),
                ending,
                receipt,
            });
        }
        visits
    }

    async fn order(&mut self, number: u32) -> Result<Answer, TransportError> {
        let Flooder {
            shop,
            from,
            connections,
            manner,
            pause,
            ..
        } = &*self.flooder;
        let kept = self.connection.take().filter(Connection::is_open);
        let mut connection = if let Some(connection) = kept {
            connection
        } else {
            let slow = manner.slow().map(|slow| (slow, *pause));
            shop.connect_rudely(*from, slow).await?
        };
        let request = order_request(shop, &format!("flooder-order-{number}"));
        let answer = connection.exchange(request).await?;
        if *connections == Connections::Kept {
            self.connection = Some(connection);
        }
        Ok(answer)
    }
}
