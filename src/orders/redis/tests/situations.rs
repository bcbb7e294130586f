//! Single situations.

use super::super::super::store::{Fenced, Placed, Pulled};
use super::*;

/// Orders that wait while they are measured.
const ORDERS: u64 = 5000;

/// A server that makes calls.
struct Caller<'a> {
    redis: &'a Redis,
    server: ServerId,
    number: Number,
    rules: Rules,
}

impl<'a> Caller<'a> {
    async fn hello(redis: &'a Redis, server: u64, rules: Rules) -> Self {
        let server = ServerId(server);
        let mut caller = Self {
            redis,
            server,
            number: 0,
            rules,
        };
        caller.all(vec![Operation::Hello]).await.unwrap();
        caller
    }

    async fn all(&mut self, operations: Vec<Operation>) -> Result<Vec<Reply>, StoreError> {
        self.number += 1;
        let call = Call {
            server: self.server,
            number: self.number,
            seen: 0,
            rules: self.rules,
            operations,
        };
        Ok(self.redis.call(&call).await?.replies)
    }

    async fn one(&mut self, operation: Operation) -> Reply {
        self.all(vec![operation]).await.unwrap().pop().unwrap()
    }

    async fn place(&mut self, number: u64) {
        let placing = Box::new(placing(number, Some(number)));
        let placed = self.one(Operation::Place(placing)).await;
        assert!(
            matches!(placed, Reply::Placed(Placed::New(_))),
            "{placed:?}"
        );
    }

    async fn pull(&mut self, pull: &str) -> Pulled {
        let pull = Operation::Pull {
            pull: pull.into(),
            barista: None,
            waits: true,
        };
        match self.one(pull).await {
            Reply::Pulled(pulled) => pulled,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn the_longest_idle_barista_is_served_first_whichever_server_they_came_through() {
    let server = Server::start().await;
    let redis = line(&server).await;
    let mut random = fastrand::Rng::with_seed(5);
    for _ in 0..50 {
        redis.command(&["FLUSHALL"]).await;
        let mut servers = [
            Caller::hello(&redis, 1, shop::SHOP).await,
            Caller::hello(&redis, 2, shop::SHOP).await,
        ];
        let mut expected = Vec::new();
        for barista in 0..10 {
            let at = random.usize(..2);
            let pull = format!("{barista}");
            assert_eq!(servers[at].pull(&pull).await, Pulled::Idle);
            expected.push((servers[at].server.to_string(), pull));
        }
        // A request that comes again, through the other server, is idle as long as before.
        let again = random.usize(..10);
        let other = usize::from(expected[again].0 == servers[0].server.to_string());
        assert_eq!(servers[other].pull(&expected[again].1).await, Pulled::Idle);
        expected[again].0 = servers[other].server.to_string();
        for order in 1..=10 {
            servers[random.usize(..2)].place(order).await;
        }
        let events = redis.events_now(0).await.unwrap();
        let handed = events.into_values().map(|event| match event {
            Event::Started {
                id: order,
                to: Some(to),
                ..
            } => (order, to.server.to_string(), to.pull.to_string()),
            other => panic!("{other:?}"),
        });
        let expected = (1..)
            .zip(expected)
            .map(|(n, (server, pull))| (id(n), server, pull));
        assert!(handed.eq(expected));
    }
}

#[tokio::test]
async fn an_hour_without_a_tick_ends_no_lease_and_no_grace() {
    let server = Server::start().await;
    let redis = line(&server).await;
    let mut caller = Caller::hello(&redis, 1, RULES).await;
    caller.place(1).await;
    assert!(matches!(caller.pull("p").await, Pulled::Order(_)));
    let promised = Box::new(placing(2, None));
    caller.one(Operation::Place(promised)).await;
    for passed in [3_600_000, 1000] {
        redis.pass(passed);
        let Reply::Ticked(ticked) = caller.one(Operation::Tick).await else {
            panic!("it ticks");
        };
        assert_eq!(
            (ticked.expired.len(), ticked.unasked, ticked.removed),
            (0, 0, 0)
        );
    }
    // The promise ends after five seconds with ticks, and the lease after six.
    for expected in [(0, 1), (1, 0)] {
        redis.pass(2000);
        let Reply::Ticked(ticked) = caller.one(Operation::Tick).await else {
            panic!("it ticks");
        };
        assert_eq!((ticked.expired.len(), ticked.unasked), expected);
    }
}

#[tokio::test]
async fn any_text_is_stored_as_it_is() {
    let server = Server::start().await;
    let redis = line(&server).await;
    let mut caller = Caller::hello(&redis, 1, shop::SHOP).await;
    let long = "x".repeat(16 * 1024);
    let texts = [
        "",
        "\0",
        "a\nb\r\n",
        "\"'\\",
        "{}/:%s%d",
        "☕🏴‍☠️𝄞",
        &long,
        "nil",
    ];
    for (number, text) in (1..).zip(texts) {
        let text = || Some(Box::<str>::from(text));
        let fingerprint = text().unwrap();
        let wanted = Placing {
            claim: text().map(|key| Claim::Key { key, fingerprint }),
            customer: text(),
            details: text(),
            request_id: text(),
            origin: text(),
            ..placing(number, Some(u64::MAX >> 12))
        };
        let placed = caller.one(Operation::Place(Box::new(wanted.clone()))).await;
        let Reply::Placed(Placed::New(record)) = placed else {
            panic!("{placed:?}");
        };
        let texts = [
            &record.customer,
            &record.details,
            &record.request_id,
            &record.origin,
            &record.key,
            &record.fingerprint,
        ];
        assert!(texts.into_iter().all(|it| *it == text()));
        let pull = Operation::Pull {
            pull: text().unwrap(),
            barista: text(),
            waits: false,
        };
        for _ in 0..2 {
            let Reply::Pulled(Pulled::Order(leased)) = caller.one(pull.clone()).await else {
                panic!("it is pulled, and again");
            };
            assert_eq!((leased.id, &leased.record.barista), (id(number), &text()));
        }
        let finish = Operation::Finish {
            id: id(number),
            attempt: Some(1),
            report: text().unwrap(),
            result: text(),
        };
        caller.one(finish).await;
        let again = caller.one(Operation::Place(Box::new(wanted))).await;
        let Reply::Placed(Placed::Replayed(_, record)) = again else {
            panic!("{again:?}");
        };
        assert_eq!((record.result, record.report), (text(), text()));
        caller
            .one(Operation::Purge {
                origin: text().unwrap(),
                age: 1000,
                blocked: 0,
            })
            .await;
    }
    let events = redis.events_now(0).await.unwrap();
    assert_eq!(events.len(), texts.len() * 2);
    let nothing = Operation::Extend {
        id: id(999),
        attempt: None,
    };
    assert_eq!(caller.one(nothing).await, Reply::Extended(Fenced::Unknown));
}

#[tokio::test]
async fn events_are_waited_for_on_a_connection_of_their_own() {
    let server = Server::start().await;
    let redis = line(&server).await;
    let mut caller = Caller::hello(&redis, 1, shop::SHOP).await;
    let (events, ()) = tokio::join!(redis.events(0), async {
        caller.place(1).await;
        caller.pull("p").await;
    });
    assert_eq!(events.unwrap().into_keys().collect::<Vec<_>>(), [1]);
    redis
        .command(&["XTRIM", &redis.events, "MAXLEN", "0"])
        .await;
    caller.place(2).await;
    caller.pull("q").await;
    let lost = redis.events(0).await;
    assert!(matches!(lost, Err(StoreError::Lost)), "{lost:?}");
    assert_eq!(redis.events(1).await.unwrap().len(), 1);
}

#[tokio::test]
async fn numbers_that_are_given_again_are_noticed() {
    let server = Server::start().await;
    let redis = line(&server).await;
    let [first, other] = [redis.as_another_server(), redis.as_another_server()];
    let mut caller = Caller::hello(&first, 1, shop::SHOP).await;
    for order in 1..=2 {
        caller.place(order).await;
        caller.pull(&format!("p{order}")).await;
    }
    assert_eq!(first.events_now(0).await.unwrap().len(), 2);
    redis.command(&["FLUSHALL"]).await;
    redis.pass(1);
    let mut caller = Caller::hello(&other, 2, shop::SHOP).await;
    for order in 3..=5 {
        caller.place(order).await;
        caller.pull(&format!("p{order}")).await;
    }
    let lost = first.events_now(2).await;
    assert!(matches!(lost, Err(StoreError::Lost)), "{lost:?}");
    assert_eq!(other.events_now(0).await.unwrap().len(), 3);
}

#[tokio::test]
async fn more_than_one_operation_may_do_is_done_by_several() {
    let server = Server::start().await;
    let redis = line(&server).await;
    let rules = Rules {
        promise_grace: 3000,
        ..shop::SHOP
    };
    let mut caller = Caller::hello(&redis, 1, rules).await;
    for chunk in 0..9 {
        let placed = (0..50).map(|n| {
            let origin = (chunk < 5).then(|| "192.0.2.1/32".into());
            let number = chunk * 50 + n + 1;
            Operation::Place(Box::new(Placing {
                origin,
                ..placing(number, None)
            }))
        });
        caller.all(placed.collect()).await.unwrap();
    }
    let purge = Operation::Purge {
        origin: "192.0.2.1/32".into(),
        age: 1000,
        blocked: 1000,
    };
    let mut purged = Vec::new();
    for _ in 0..2 {
        if let Reply::Purged(it) = caller.one(purge.clone()).await {
            purged.push((it.count, it.more));
        }
    }
    assert_eq!(purged, [(200, true), (50, false)]);
    // 200 promises end.
    redis.pass(2000);
    caller.one(Operation::Tick).await;
    redis.pass(2000);
    let Reply::Ticked(ticked) = caller.one(Operation::Tick).await else {
        panic!("it ticks");
    };
    assert_eq!(
        (ticked.unasked, ticked.more, ticked.figures.waiting),
        (200, true, 0)
    );
    let Reply::Ticked(ticked) = caller.one(Operation::Tick).await else {
        panic!("it ticks");
    };
    assert_eq!((ticked.unasked, ticked.more), (0, false));
    assert!(redis.broken(rules).await.is_empty());
}

/// Prints what a cycle costs, and how much memory an order takes.
#[tokio::test]
async fn an_order_that_waits_takes_less_than_a_kilobyte() {
    let server = Server::start().await;
    let redis = line(&server).await;
    let mut caller = Caller::hello(&redis, 1, shop::SHOP).await;
    let used = async || -> u64 {
        let info = server.ask(&["INFO", "memory"]).await;
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix("used_memory:"));
        line.unwrap().trim().parse().unwrap()
    };
    let before = used().await;
    let keyed = |number: u64| {
        let claim = Claim::Key {
            key: format!("0191d5c8-7a9b-7000-8000-{number:012}").into(),
            fingerprint: "0123456789abcdef".into(),
        };
        Operation::Place(Box::new(Placing {
            claim: Some(claim),
            customer: Some("Ann Example".into()),
            origin: Some("192.0.2.1/32".into()),
            ..placing(number, Some(number))
        }))
    };
    for chunk in 0..ORDERS / 50 {
        let placed = (1..=50).map(|n| keyed(chunk * 50 + n)).collect();
        caller.all(placed).await.unwrap();
    }
    let each = (used().await - before) / ORDERS;
    redis.command(&["CONFIG", "RESETSTAT"]).await;
    for batch in [1, 8] {
        for number in 0..ORDERS / 20 {
            let (first, mut calls) = (
                ORDERS + number * batch + batch * 100_000,
                [vec![], vec![], vec![]],
            );
            for n in 0..batch {
                let pull: Box<str> = format!("pull-{}", first + n).into();
                calls[0].push(keyed(first + n));
                calls[1].push(Operation::Pull {
                    pull: pull.clone(),
                    barista: None,
                    waits: false,
                });
                calls[2].push(Operation::Confirm {
                    pulls: vec![pull.clone()],
                });
                calls[2].push(Operation::Finish {
                    id: id(first + n),
                    attempt: None,
                    report: pull,
                    result: None,
                });
            }
            let [place, pull, mut finish] = calls;
            caller.all(place).await.unwrap();
            // The order that was pulled is an older one.
            for (at, reply) in (0..).zip(caller.all(pull).await.unwrap()) {
                if let Reply::Pulled(Pulled::Order(leased)) = reply
                    && let Operation::Finish { id, .. } = &mut finish[at * 2 + 1]
                {
                    *id = leased.id;
                }
            }
            caller.all(finish).await.unwrap();
        }
        let stats = server.ask(&["INFO", "commandstats"]).await;
        let stats = stats.lines().find(|line| line.contains("cmdstat_evalsha"));
        eprintln!(
            "{batch} operations a call, {} cycles: {}",
            ORDERS / 20 * batch,
            stats.unwrap()
        );
        redis.command(&["CONFIG", "RESETSTAT"]).await;
    }
    eprintln!("{each} bytes for each waiting keyed order");
    assert!(each < 1024, "{each} bytes");
}
