//! Servers with customers and baristas around one line: the smallest service that the port allows.

use std::collections::{BTreeMap, BTreeSet};

use super::super::super::store::{
    Asserted, Finished, IdlePull, Placed, Pulled, Record, StoredStage,
};
use super::*;

pub(super) const SHOP: Rules = Rules {
    lease: 20_000,
    attempts_max: 3,
    reconnect_grace: 20_000,
    promise_grace: 20_000,
    replay: 600_000,
    remembered_max: 10_000,
    waiting_max: 10_000,
};

/// One start of the program.
struct TestServer {
    redis: Redis,
    id: ServerId,
    number: Number,
    seen: Number,
    is_up: bool,
    /// Calls after which it ends.
    fuse: Option<u32>,
    /// What it holds: the record as last seen, and the attachment of its customer.
    room: BTreeMap<OrderId, (Record, u64, usize)>,
}

/// A customer whose proxy sends the request again when a server is lost.
struct Customer {
    server: Option<usize>,
    answered: Option<StoredStage>,
}

#[derive(Debug, Clone)]
enum Barista {
    Free,
    /// Until there is an answer, the request is sent again.
    Asks(Box<str>),
    Idle(Box<str>, usize),
    Has {
        pull: Box<str>,
        server: usize,
        id: OrderId,
        attempt: u32,
        confirmed: bool,
    },
}

/// A barista's order: until when, and whether it may be another's all the same.
struct Hand {
    pull: Box<str>,
    expires: Millis,
    lost: bool,
}

pub(super) struct Shop {
    servers: Vec<TestServer>,
    customers: Vec<Customer>,
    baristas: Vec<Barista>,
    hands: BTreeMap<OrderId, Hand>,
    pub(super) random: fastrand::Rng,
    /// How often, of 100, a call is sent again.
    pub(super) repeats: u8,
    /// Redis loses nothing: no order is in two hands, and no report is refused.
    pub(super) is_strict: bool,
    orders: u64,
    pulls: u64,
    started: u64,
    pub(super) calls: u64,
    pub(super) resyncs: u64,
}

impl Shop {
    pub(super) async fn open(redis: &Redis, servers: u64, seed: u64) -> Self {
        let mut shop = Self {
            servers: Vec::new(),
            customers: Vec::new(),
            baristas: vec![Barista::Free; 4],
            hands: BTreeMap::new(),
            random: fastrand::Rng::with_seed(seed),
            repeats: 0,
            is_strict: true,
            orders: 0,
            pulls: 0,
            started: 0,
            calls: 0,
            resyncs: 0,
        };
        for number in 0..servers {
            shop.servers.push(TestServer::new(redis, number + 1));
            shop.hello(usize::try_from(number).unwrap()).await;
        }
        shop.started = servers;
        shop
    }

    /// The first server ends with its call of this number.
    pub(super) fn ends_after(&mut self, calls: u32) {
        self.servers[0].fuse = Some(calls);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.servers.iter().any(|server| !server.is_up)
    }

    /// Another server in the place of each that has ended.
    async fn start_again(&mut self) {
        for at in 0..self.servers.len() {
            if !self.servers[at].is_up {
                self.started += 1;
                self.servers[at] = TestServer::new(&self.servers[at].redis, self.started);
                self.hello(at).await;
            }
        }
    }

    fn up(&mut self) -> usize {
        let up = (0..self.servers.len()).filter(|&at| self.servers[at].is_up);
        let up: Vec<usize> = up.collect();
        up[self.random.usize(..up.len())]
    }

    /// The replies; none if the server ends with this call. After a loss, it is sent once the server is known again.
    async fn call(&mut self, at: usize, operations: Vec<Operation>) -> Option<Vec<Reply>> {
        for _ in 0..5 {
            match self.call_once(at, operations.clone()).await {
                Ok(replies) => return replies,
                Err(StoreError::Lost) => self.hello(at).await,
                Err(error) => panic!("{error}"),
            }
        }
        panic!("a server that says hello is known");
    }

    async fn call_once(
        &mut self,
        at: usize,
        operations: Vec<Operation>,
    ) -> Result<Option<Vec<Reply>>, StoreError> {
        let again = self.random.u8(0..100) < self.repeats;
        self.calls += 1;
        let server = &mut self.servers[at];
        server.number += 1;
        let call = Call {
            server: server.id,
            number: server.number,
            seen: server.seen,
            rules: SHOP,
            operations,
        };
        let answer = server.redis.call(&call).await?;
        if again {
            assert_eq!(server.redis.call(&call).await?, answer, "it is repeated");
        }
        if let Some(fuse) = &mut server.fuse {
            *fuse -= 1;
            if *fuse == 0 {
                self.end(at);
                return Ok(None);
            }
        }
        Ok(Some(answer.replies))
    }

    fn end(&mut self, at: usize) {
        self.servers[at].is_up = false;
        for customer in &mut self.customers {
            customer.server = customer.server.filter(|&server| server != at);
        }
        for barista in &mut self.baristas {
            match barista.clone() {
                Barista::Idle(pull, server) if server == at => *barista = Barista::Asks(pull),
                Barista::Has {
                    pull,
                    server,
                    id,
                    confirmed: false,
                    ..
                } if server == at => {
                    if let Some(hand) = self.hands.get_mut(&id) {
                        hand.lost = true;
                    }
                    *barista = Barista::Asks(pull);
                }
                _ => {}
            }
        }
    }

    /// `Hello`, and what the server holds, if it holds anything.
    async fn hello(&mut self, at: usize) {
        self.resyncs += 1;
        let (mut idle, mut unconfirmed) = (Vec::new(), Vec::new());
        for barista in &self.baristas {
            match barista {
                Barista::Idle(pull, server) if *server == at => idle.push(IdlePull {
                    pull: pull.clone(),
                    barista: None,
                }),
                Barista::Has {
                    pull,
                    server,
                    confirmed: false,
                    ..
                } if *server == at => unconfirmed.push(pull.clone()),
                _ => {}
            }
        }
        let mut held: Vec<Asserted> = Vec::new();
        for (id, (record, attachment, _)) in &self.servers[at].room {
            held.push(Asserted {
                id: *id,
                record: record.clone(),
                attachments: vec![(*attachment, true)],
            });
        }
        held.sort_by_key(|order| order.record.ticket);
        let ids: Vec<OrderId> = held.iter().map(|order| order.id).collect();
        let operations = vec![
            Operation::Hello,
            Operation::Assert(held),
            Operation::Settle { idle, unconfirmed },
        ];
        let replies = self.call_once(at, operations).await.unwrap();
        let Some(
            [
                Reply::Welcome(welcome),
                Reply::Asserted(finals),
                Reply::Done,
            ],
        ) = replies.as_deref()
        else {
            assert!(replies.is_none(), "{replies:?}");
            return;
        };
        self.servers[at].seen = welcome.event;
        for (id, record) in ids.into_iter().zip(finals) {
            if let Some(record) = record {
                self.answer(at, id, record.stage);
            }
        }
    }

    fn answer(&mut self, at: usize, id: OrderId, stage: StoredStage) {
        if let Some((_, _, customer)) = self.servers[at].room.remove(&id) {
            self.customers[customer].answered = Some(stage);
        }
    }

    async fn place(&mut self, customer: usize) {
        let at = self.up();
        self.orders += 1;
        let placing = Placing {
            claim: Some(by_request(&format!("customer-{customer}"))),
            ..placing(self.orders, Some(self.orders))
        };
        let (own, attachment) = (placing.id, self.orders);
        let Some(mut replies) = self
            .call(at, vec![Operation::Place(Box::new(placing))])
            .await
        else {
            return;
        };
        let (id, record) = match replies.pop() {
            Some(Reply::Placed(Placed::New(record))) => (own, record),
            Some(Reply::Placed(Placed::Joined(id, record))) => (id, record),
            Some(Reply::Placed(Placed::Replayed(_, record))) => {
                self.customers[customer].answered = Some(record.stage);
                return;
            }
            other => panic!("{other:?}"),
        };
        self.customers[customer].server = Some(at);
        let held = (record, attachment, customer);
        self.servers[at].room.insert(id, held);
    }

    async fn leave(&mut self) {
        let at = self.up();
        let Some((&id, &(_, attachment, customer))) = self.servers[at].room.iter().next() else {
            return;
        };
        self.servers[at].room.remove(&id);
        self.customers[customer].answered = Some(StoredStage::Cancelled);
        let leave = Operation::Leave { id, attachment };
        self.call(at, vec![leave]).await;
    }

    /// Reads what happened, and answers who is held.
    pub(super) async fn poll(&mut self, at: usize) {
        let server = &self.servers[at];
        let events = match server.redis.events_now(server.seen).await {
            Ok(events) => events,
            Err(StoreError::Lost) => return self.hello(at).await,
            Err(error) => panic!("{error}"),
        };
        for (number, event) in events {
            self.servers[at].seen = number;
            match event {
                Event::Started {
                    id,
                    record,
                    expires,
                    to,
                } => {
                    let own = self.servers[at].id.to_string();
                    if let Some(to) = to.filter(|to| *to.server == *own) {
                        let attempt = record.attempts;
                        self.take(at, &to.pull, id, attempt, expires, true);
                    }
                    self.learn(at, id, record);
                }
                Event::Returned { id, record } => self.learn(at, id, record),
                Event::Ready { id, .. } => self.answer(at, id, StoredStage::Ready),
                Event::Cancelled { id, .. } | Event::Dropped { id } => {
                    // It was lost on its way: the request is sent again.
                    if let Some((_, _, customer)) = self.servers[at].room.remove(&id) {
                        assert!(!self.is_strict, "a held order is not cancelled");
                        self.customers[customer].server = None;
                    }
                }
                Event::Blocked(_) | Event::Unblocked { .. } => {}
            }
        }
    }

    fn learn(&mut self, at: usize, id: OrderId, record: Record) {
        if let Some(held) = self.servers[at].room.get_mut(&id) {
            held.0 = record;
        }
    }

    /// A barista has an order, by an answer or as an idle one.
    fn take(
        &mut self,
        at: usize,
        pull: &str,
        id: OrderId,
        attempt: u32,
        expires: Millis,
        idle: bool,
    ) {
        let barista = self.baristas.iter_mut().find(|barista| match barista {
            Barista::Idle(of, server) => idle && **of == *pull && *server == at,
            Barista::Asks(of) => !idle && **of == *pull,
            _ => false,
        });
        let Some(barista) = barista else {
            assert!(idle, "a barista asked");
            return;
        };
        *barista = Barista::Has {
            pull: pull.into(),
            server: at,
            id,
            attempt,
            confirmed: false,
        };
        let hand = Hand {
            pull: pull.into(),
            expires,
            lost: false,
        };
        if let Some(before) = self.hands.insert(id, hand) {
            let is_over = before.lost || before.expires <= self.servers[at].redis.at();
            assert!(
                !self.is_strict || is_over || *before.pull == *pull,
                "{id} is in two hands"
            );
        }
    }

    async fn advance(&mut self, number: usize) {
        match self.baristas[number].clone() {
            Barista::Free => {
                self.pulls += 1;
                self.baristas[number] = Barista::Asks(format!("pull-{}", self.pulls).into());
            }
            Barista::Asks(pull) => {
                let at = self.up();
                let ask = Operation::Pull {
                    pull: pull.clone(),
                    barista: None,
                    waits: true,
                };
                match self.call(at, vec![ask]).await.as_deref() {
                    None => {}
                    Some([Reply::Pulled(Pulled::Order(leased))]) => {
                        let attempt = leased.record.attempts;
                        self.take(at, &pull, leased.id, attempt, leased.expires, false);
                    }
                    Some([Reply::Pulled(Pulled::Idle)]) => {
                        self.baristas[number] = Barista::Idle(pull, at);
                    }
                    other => panic!("{other:?}"),
                }
            }
            Barista::Idle(pull, at) => {
                if self.random.u8(0..10) == 0 {
                    self.quit(number, pull, at).await;
                }
            }
            Barista::Has {
                pull,
                server,
                id,
                confirmed: false,
                attempt,
            } => {
                if self.random.u8(0..8) == 0 {
                    self.baristas[number] = Barista::Free;
                    self.hands.remove(&id);
                    self.call(server, vec![Operation::GiveBack { pull }]).await;
                } else {
                    self.baristas[number] = Barista::Has {
                        pull: pull.clone(),
                        server,
                        id,
                        attempt,
                        confirmed: true,
                    };
                    let pulls = vec![pull];
                    self.call(server, vec![Operation::Confirm { pulls }]).await;
                }
            }
            Barista::Has {
                pull, id, attempt, ..
            } => self.finish(number, &pull, id, attempt).await,
        }
    }

    async fn quit(&mut self, number: usize, pull: Box<str>, at: usize) {
        let quit = Operation::Quit { pull: pull.clone() };
        let replies = self.call(at, vec![quit]).await;
        match replies.as_deref() {
            None => {}
            Some([Reply::Pulled(Pulled::Nothing)]) => self.baristas[number] = Barista::Free,
            Some([Reply::Pulled(Pulled::Order(leased))]) => {
                let attempt = leased.record.attempts;
                self.take(at, &pull, leased.id, attempt, leased.expires, true);
            }
            other => panic!("{other:?}"),
        }
    }

    async fn finish(&mut self, number: usize, pull: &str, id: OrderId, attempt: u32) {
        let at = self.up();
        let report = Operation::Finish {
            id,
            attempt: Some(attempt),
            report: format!("of {pull}").into(),
            result: None,
        };
        let Some(replies) = self.call(at, vec![report]).await else {
            // The report is sent again.
            return;
        };
        self.baristas[number] = Barista::Free;
        let own = self.hands.get(&id).is_some_and(|hand| *hand.pull == *pull);
        let hand = own.then(|| self.hands.remove(&id)).flatten();
        let counts = matches!(
            replies[..],
            [Reply::Finished(Finished::Ready { already: false, .. })]
        );
        let held = hand.is_some_and(|hand| hand.expires > self.servers[at].redis.at());
        assert!(counts || !held || !self.is_strict, "{replies:?}");
    }

    /// Something happens.
    pub(super) async fn step(&mut self) {
        match self.random.u8(0..20) {
            0..=3 => {
                self.customers.push(Customer {
                    server: None,
                    answered: None,
                });
                self.place(self.customers.len() - 1).await;
            }
            4 => self.leave().await,
            5..=6 => self.place_again().await,
            7..=14 => {
                let number = self.random.usize(..self.baristas.len());
                self.advance(number).await;
            }
            15..=17 => {
                let at = self.up();
                self.poll(at).await;
            }
            _ => self.tick().await,
        }
    }

    /// A request that lost its server comes through another.
    async fn place_again(&mut self) {
        let orphan = |customer: &Customer| customer.server.is_none() && customer.answered.is_none();
        if let Some(orphan) = self.customers.iter().position(orphan) {
            self.place(orphan).await;
        }
    }

    async fn tick(&mut self) {
        self.servers[0].redis.pass(700);
        for at in 0..self.servers.len() {
            if self.servers[at].is_up {
                self.call(at, vec![Operation::Tick]).await;
            }
        }
    }

    /// All requests come back, and baristas serve until no customer waits. Orders are taken by ticket.
    pub(super) async fn serve_all(&mut self) {
        self.start_again().await;
        for round in 0..400 {
            self.tick().await;
            for at in 0..self.servers.len() {
                self.poll(at).await;
            }
            for _ in 0..self.customers.len() {
                self.place_again().await;
            }
            if self.customers.iter().all(|it| it.answered.is_some()) {
                return;
            }
            // Baristas at work finish, and then one takes all.
            for number in 0..self.baristas.len() {
                match &self.baristas[number] {
                    Barista::Idle(pull, at) => {
                        let (pull, at) = (pull.clone(), *at);
                        self.quit(number, pull, at).await;
                    }
                    Barista::Asks(_) | Barista::Has { .. } => self.advance(number).await,
                    Barista::Free => {}
                }
            }
            let is_free = |barista: &Barista| matches!(barista, Barista::Free);
            if round >= 2 && self.baristas.iter().all(is_free) {
                self.serve_by_ticket().await;
            }
        }
        panic!("a customer is never answered");
    }

    async fn serve_by_ticket(&mut self) {
        let (mut tickets, mut pulled) = (Vec::new(), BTreeSet::new());
        loop {
            let (at, pull) = (self.up(), format!("last-{}", self.pulls));
            self.pulls += 1;
            let ask = Operation::Pull {
                pull: pull.as_str().into(),
                barista: None,
                waits: false,
            };
            let confirm = Operation::Confirm {
                pulls: vec![pull.into()],
            };
            let replies = self.call(at, vec![ask, confirm]).await.unwrap();
            let Reply::Pulled(Pulled::Order(leased)) = &replies[0] else {
                break;
            };
            tickets.push(leased.record.ticket);
            pulled.insert(leased.id);
        }
        assert!(tickets.is_sorted(), "they are taken by ticket: {tickets:?}");
        for id in pulled {
            let at = self.up();
            let report = format!("last of {id}").into();
            let finish = Operation::Finish {
                id,
                attempt: None,
                report,
                result: None,
            };
            self.call(at, vec![finish]).await;
        }
    }

    pub(super) fn customers(&self) -> usize {
        self.customers.len()
    }
}

impl TestServer {
    fn new(redis: &Redis, id: u64) -> Self {
        Self {
            redis: redis.as_another_server(),
            id: ServerId(id),
            number: 0,
            seen: 0,
            is_up: true,
            fuse: None,
            room: BTreeMap::new(),
        }
    }
}
