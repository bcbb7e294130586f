//! Random operations of three servers, in Redis and in the oracle.

use std::collections::{BTreeSet, HashMap};

use super::super::super::line::tests::loopback::Loopback;
use super::super::super::store::{Asserted, IdlePull, Placed, Pulled, Record, StoredStage};
use super::*;

const SEQUENCES: u64 = 60;
const STEPS: usize = 200;
/// What must have been among the replies.
const KINDS: &str = "Asserted Cancelled-Already Cancelled-Now Cancelled-TooLate Cancelled-Unknown Extended-Another \
    Extended-Current Extended-NotBrewing Extended-Unknown Finished-Fenced Finished-NotStarted Finished-Ready Finished-Unknown \
    Left-Cancelled Left-Graced Left-Kept Left-Nothing Placed-Blocked Placed-Full Placed-Joined Placed-KeyReused Placed-New \
    Placed-Replayed Placed-Shut Promised-false Promised-true Pulled-Idle Pulled-Nothing Pulled-Order Purged Released-Another \
    Released-Current Released-NotBrewing Released-Unknown Returned-Cancelled Returned-Offered Returned-Over Returned-ToLine Surveyed \
    Ticked-abandoned Ticked-expired Ticked-moved Ticked-removed Ticked-unasked Viewed-None Viewed-Some Watched-Attached \
    Watched-Not Welcome";

#[derive(Debug)]
struct Actor {
    server: ServerId,
    number: Number,
    seen: Number,
    /// Calls of others before it goes on.
    frozen: u32,
}

struct World<'a> {
    redis: &'a Redis,
    oracle: Loopback,
    random: fastrand::Rng,
    actors: Vec<Actor>,
    orders: u64,
    pulls: u64,
    attachments: Vec<(usize, OrderId, u64)>,
    /// As last seen.
    records: HashMap<OrderId, Record>,
    attempts: HashMap<OrderId, u32>,
    events: Number,
    kinds: BTreeSet<String>,
    log: Vec<String>,
}

impl World<'_> {
    fn order(&mut self) -> OrderId {
        // A few of the latest, and one that never was.
        id(self
            .orders
            .saturating_sub(self.random.u64(0..14))
            .max(u64::from(self.random.u8(..) > 250)))
    }

    fn pull_id(&mut self) -> Box<str> {
        format!("pull-{}", self.pulls.saturating_sub(self.random.u64(0..8))).into()
    }

    fn attempt(&mut self) -> Option<u32> {
        self.random.bool().then(|| self.random.u32(1..4))
    }

    fn origin(&mut self) -> Box<str> {
        format!("192.0.2.{}/32", self.random.u8(1..4)).into()
    }

    fn placing(&mut self, actor: usize) -> Operation {
        let again = self.orders > 0 && self.random.u8(0..12) == 0;
        self.orders += u64::from(!again);
        let claim = match self.random.u8(0..6) {
            0 | 1 => Some(Claim::Key {
                key: format!("key-{}", self.random.u8(0..5)).into(),
                fingerprint: if self.random.u8(0..5) == 0 { "b" } else { "a" }.into(),
            }),
            2 | 3 => Some(by_request(&format!("request-{}", self.random.u8(0..6)))),
            _ => None,
        };
        let attachment = (self.random.u8(0..4) > 0).then(|| self.random.u64(0..30));
        if let Some(number) = attachment {
            self.attachments.push((actor, id(self.orders), number));
        }
        let origin = self.random.bool().then(|| self.origin());
        let customer = self.random.bool().then(|| "Zoë".into());
        Operation::Place(Box::new(Placing {
            claim,
            customer,
            keep: self.random.bool().then(|| self.random.u64(1..5000)),
            details: self.random.bool().then(|| r#"{"milk":true}"#.into()),
            request_id: self.random.bool().then(|| "request".into()),
            origin,
            ..placing(self.orders, attachment)
        }))
    }

    fn attached(&mut self, actor: usize) -> (OrderId, u64) {
        let own = self.attachments.iter().rev().filter(|it| it.0 == actor);
        let own: Vec<_> = own.take(6).collect();
        if own.is_empty() || self.random.u8(0..10) == 0 {
            return (self.order(), 0);
        }
        let (_, id, number) = own[self.random.usize(..own.len())];
        (*id, *number)
    }

    fn operation(&mut self, actor: usize) -> Operation {
        let id = self.order();
        match self.random.u8(0..40) {
            0..=7 => self.placing(actor),
            8 => {
                let attachment = self.random.u64(30..60);
                self.attachments.push((actor, id, attachment));
                Operation::Watch { id, attachment }
            }
            9..=11 => {
                let (id, attachment) = self.attached(actor);
                Operation::Leave { id, attachment }
            }
            12 => {
                let (id, attachment) = self.attached(actor);
                Operation::Promise { id, attachment }
            }
            13 | 14 => Operation::View {
                id,
                renew: self.random.bool(),
            },
            15 => Operation::Cancel { id },
            16..=21 => {
                let again = self.random.u8(0..5) == 0;
                self.pulls += u64::from(!again);
                let pull = if again {
                    self.pull_id()
                } else {
                    format!("pull-{}", self.pulls).into()
                };
                let barista = self.random.bool().then(|| "Bo".into());
                Operation::Pull {
                    pull,
                    barista,
                    waits: self.random.bool(),
                }
            }
            22 => Operation::Quit {
                pull: self.pull_id(),
            },
            23 | 24 => Operation::Confirm {
                pulls: vec![self.pull_id(), self.pull_id()],
            },
            25 | 26 => Operation::GiveBack {
                pull: self.pull_id(),
            },
            27..=30 => Operation::Finish {
                id,
                attempt: self.attempt(),
                report: format!("report-{}", self.random.u8(0..3)).into(),
                result: self.random.bool().then(|| r#""hot""#.into()),
            },
            31 => Operation::Extend {
                id,
                attempt: self.attempt(),
            },
            32 => Operation::Release {
                id,
                attempt: self.attempt(),
            },
            33 if self.random.bool() => Operation::Purge {
                origin: self.origin(),
                age: self.random.u64(0..9000),
                blocked: self.random.u64(0..3) * 2500,
            },
            34 => match self.random.u8(0..8) {
                0 => Operation::Shut {
                    closed: Some(r#"{"message":{"en":"Back soon"}}"#.into()),
                },
                1..=3 => Operation::Shut { closed: None },
                _ => Operation::Unblock {
                    origin: self.origin(),
                },
            },
            36 => Operation::Survey,
            35 if self.random.u8(0..4) == 0 => {
                let requests = (0..self.random.usize(0..4)).map(|_| self.attached(actor));
                Operation::Depart(requests.collect())
            }
            _ => Operation::Tick,
        }
    }

    /// `Hello`, with what the server may hold.
    fn resync(&mut self, actor: usize) -> Vec<Operation> {
        let mut operations = vec![Operation::Hello];
        if self.random.u8(0..5) == 0 {
            return operations;
        }
        let mut pending: Vec<(OrderId, Record)> = self
            .records
            .iter()
            .map(|(id, record)| (*id, record.clone()))
            .collect();
        pending.sort_by_key(|(id, _)| *id);
        pending.retain(|(id, record)| {
            let is_final = matches!(record.stage, StoredStage::Ready | StoredStage::Cancelled);
            (!is_final || self.random.u8(0..8) == 0)
                && self.random.bool()
                && id.0.as_u128() + 20 > self.orders.into()
        });
        let asserted = pending.into_iter().map(|(id, record)| {
            let count = self.random.usize(0..3);
            let attachments = (0..count).map(|n| (90 + n as u64, self.random.u8(0..4) > 0));
            let attachments: Vec<(u64, bool)> = attachments.collect();
            Asserted {
                id,
                record,
                attachments,
            }
        });
        let asserted: Vec<Asserted> = asserted.collect();
        for order in &asserted {
            let numbers = order.attachments.iter().map(|(number, _)| *number);
            self.attachments
                .extend(numbers.map(|number| (actor, order.id, number)));
        }
        operations.push(Operation::Assert(asserted));
        if self.random.u8(0..5) > 0 {
            let mut idle: Vec<Box<str>> =
                (0..self.random.u8(0..3)).map(|_| self.pull_id()).collect();
            idle.sort();
            idle.dedup();
            let idle = idle.into_iter().map(|pull| IdlePull {
                pull,
                barista: Some("Io".into()),
            });
            operations.push(Operation::Settle {
                idle: idle.collect(),
                unconfirmed: (0..self.random.u8(0..3)).map(|_| self.pull_id()).collect(),
            });
        }
        operations
    }

    /// Sends a call to both, and compares; true if the server must say `Hello`.
    async fn call(&mut self, actor: usize, operations: Vec<Operation>) -> bool {
        let redo = self.random.u8(0..10) == 0;
        let actor = &mut self.actors[actor];
        actor.number += 1;
        let call = Call {
            server: actor.server,
            number: actor.number,
            seen: actor.seen,
            rules: RULES,
            operations,
        };
        let at = self.redis.at();
        self.log.push(format!("{} {call:?}", at - BEGIN));
        let expected = self.oracle.call(&call, at);
        let answer = self.redis.call(&call).await;
        match (answer, expected) {
            (Err(StoreError::Lost), Err(StoreError::Lost)) => return true,
            (Ok(answer), Ok(expected)) => {
                let redone = if redo {
                    self.redis.call(&call).await.ok()
                } else {
                    None
                };
                assert!(!redo || redone.as_ref() == Some(&answer), "it is repeated");
                assert_eq!(answer.at, expected.at);
                let replies = answer.replies.iter().zip(expected.replies);
                for ((reply, mut expected), operation) in replies.zip(&call.operations) {
                    allow_rounding(reply, &mut expected);
                    assert_eq!(reply, &expected);
                    self.learn(operation, reply);
                }
            }
            (answer, expected) => panic!("{answer:?}, expected {expected:?}"),
        }
        let undoes = call.operations.iter().any(|operation| {
            matches!(
                operation,
                Operation::GiveBack { .. } | Operation::Settle { .. }
            )
        });
        for operation in &call.operations {
            if let Operation::Assert(orders) = operation {
                // Some are put back as they were.
                for order in orders {
                    self.attempts.remove(&order.id);
                }
            }
        }
        self.compare_events(undoes).await;
        let seen = self.random.u64(0..3);
        let actor = self.actors.iter_mut().find(|it| it.server == call.server);
        actor.unwrap().seen = self.events.saturating_sub(seen);
        let broken = self.redis.broken(RULES).await;
        assert!(broken.is_empty(), "{broken:?}");
        false
    }

    async fn compare_events(&mut self, undoes: bool) {
        let events = self.redis.events_now(self.events).await.unwrap();
        let before = usize::try_from(self.events).unwrap();
        let expected = self.oracle.events[before..].to_vec();
        let events: Vec<Event> = events.into_values().collect();
        assert_eq!(events, expected);
        self.events += events.len() as u64;
        for event in events {
            match event {
                Event::Started { id, record, .. } => {
                    let attempts = record.attempts;
                    let before = self.attempts.insert(id, attempts);
                    let grows = before.is_none_or(|before| attempts == before + 1);
                    assert!(grows || undoes, "each lease has the next attempt");
                    self.records.insert(id, record);
                }
                Event::Returned { id, record } => {
                    let attempts = record.attempts;
                    let before = self.attempts.insert(id, attempts).unwrap_or(attempts);
                    assert!(attempts == before || (attempts + 1 == before && undoes));
                    self.records.insert(id, record);
                }
                Event::Ready { id, record } | Event::Cancelled { id, record, .. } => {
                    self.records.insert(id, record);
                }
                Event::Dropped { .. } | Event::Blocked(_) | Event::Unblocked { .. } => {}
            }
        }
    }

    fn learn(&mut self, operation: &Operation, reply: &Reply) {
        self.kinds.extend(kinds(reply));
        if let Reply::Placed(Placed::New(record)) = reply
            && let Operation::Place(placing) = operation
        {
            self.records.insert(placing.id, record.clone());
        }
        if let Reply::Pulled(Pulled::Order(leased)) = reply {
            self.records.insert(leased.id, leased.record.clone());
        }
    }

    async fn step(&mut self) {
        let pass = match self.random.u8(0..100) {
            0 => 3_600_000,
            1..=30 => 0,
            31..=70 => self.random.u64(1..300),
            _ => self.random.u64(300..2600),
        };
        self.redis.pass(pass);
        let actor = self.random.usize(..self.actors.len());
        if self.actors[actor].frozen > 0 {
            self.actors[actor].frozen -= 1;
            return;
        }
        if self.random.u8(0..60) == 0 {
            self.actors[actor].frozen = self.random.u32(1..12);
        }
        let count = self.random.usize(1..4);
        let operations = (0..count).map(|_| self.operation(actor)).collect();
        if self.call(actor, operations).await {
            let resync = self.resync(actor);
            assert!(
                !self.call(actor, resync).await,
                "a server that says hello is known"
            );
        }
        if self.random.u16(0..150) == 0 {
            // The crew is away.
            for _ in 0..35 {
                self.redis.pass(2000);
                if !self.call(actor, vec![Operation::Tick]).await {
                    continue;
                }
                let resync = self.resync(actor);
                self.call(actor, resync).await;
            }
        }
    }
}

/// The names of a reply and its variant.
fn kinds(reply: &Reply) -> Vec<String> {
    let text = format!("{reply:?}");
    let mut words = text.split(|c: char| !c.is_alphanumeric());
    let (name, variant) = (words.next().unwrap(), words.next().unwrap_or_default());
    match reply {
        Reply::Ticked(ticked) => {
            let moved = ticked.expired.iter().filter(|it| it.moved_back).count();
            let counts = [
                (ticked.abandoned > 0, "abandoned"),
                (!ticked.expired.is_empty(), "expired"),
                (moved > 0, "moved"),
                (ticked.removed > 0, "removed"),
                (ticked.unasked > 0, "unasked"),
            ];
            let counts = counts.iter().filter(|(is_so, _)| *is_so);
            counts.map(|(_, what)| format!("{name}-{what}")).collect()
        }
        Reply::Asserted(_) | Reply::Surveyed(_) | Reply::Welcome(_) | Reply::Purged(_) => {
            vec![name.to_owned()]
        }
        _ => vec![format!("{name}-{variant}")],
    }
}

/// An estimate may be rounded otherwise.
fn allow_rounding(reply: &Reply, expected: &mut Reply) {
    let (wait, expected) = match (reply, expected) {
        (Reply::Viewed(Some(viewed)), Reply::Viewed(Some(expected))) => {
            (viewed.estimated_wait, &mut expected.estimated_wait)
        }
        (Reply::Surveyed(surveyed), Reply::Surveyed(expected)) => {
            (surveyed.estimated_wait, &mut expected.estimated_wait)
        }
        (Reply::Placed(Placed::Full(wait)), Reply::Placed(Placed::Full(expected))) => {
            (*wait, expected)
        }
        _ => return,
    };
    if let (Some(wait), Some(close)) = (wait, *expected)
        && wait.abs_diff(close) <= 1 + close / 1_000_000_000
    {
        *expected = Some(wait);
    }
}

/// Prints what was done if it fails.
struct Printed<'a>(World<'a>, u64);

impl Drop for Printed<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = &self.0.log;
            let last = &log[log.len().saturating_sub(60)..];
            eprintln!("seed {}: {}", self.1, last.join("\n"));
        }
    }
}

async fn compare(redis: &Redis, seed: u64) -> (usize, BTreeSet<String>) {
    let actor = |server| Actor {
        server: ServerId(server),
        number: 0,
        seen: 0,
        frozen: 0,
    };
    let mut world = Printed(
        World {
            redis,
            oracle: Loopback::new(&RULES),
            random: fastrand::Rng::with_seed(seed),
            actors: vec![actor(0xa), actor(0xb), actor(0xc)],
            orders: 0,
            pulls: 0,
            attachments: Vec::new(),
            records: HashMap::new(),
            attempts: HashMap::new(),
            events: 0,
            kinds: BTreeSet::new(),
            log: Vec::new(),
        },
        seed,
    );
    for _ in 0..STEPS {
        world.0.step().await;
    }
    (world.0.log.len(), std::mem::take(&mut world.0.kinds))
}

#[tokio::test]
async fn the_script_does_what_the_line_does() {
    let server = Server::start().await;
    let redis = line(&server).await;
    let first = std::env::var("SEED").ok().map(|seed| seed.parse().unwrap());
    let (first, count) = first.map_or((1, SEQUENCES * soak()), |seed| (seed, 1));
    let (mut calls, mut kinds) = (0, BTreeSet::new());
    for seed in first..first + count {
        redis.command(&["FLUSHALL"]).await;
        let (more, of) = compare(&redis, seed).await;
        calls += more;
        kinds.extend(of);
    }
    eprintln!("{count} sequences, {calls} calls");
    let missing: Vec<&str> = KINDS
        .split_whitespace()
        .filter(|kind| !kinds.contains(*kind))
        .collect();
    assert!(count == 1 || missing.is_empty(), "{missing:?}");
}
