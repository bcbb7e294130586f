//! The requests of a cycle have two ways through the server: the fast path, and the router for whatever is unusual. Both must
//! give the same answers. [`by_router`] says the same in a way that the router must read: so each request is sent to two shops,
//! as it is to one, and by the router to the other. `make test` also runs all tests of orders with every request by the router.

use std::collections::HashMap;

use hyper::Method;
use serde_json::{Value, json};

use crate::client::{Answer, Ask, by_router, get, order, post};
use crate::shop::{Shop, text};

const UNKNOWN: &str = "0191d5c8-7a9b-7000-8000-000000000000";

/// A shop, and the orders that are known there; the same position is the same order in both shops.
struct Side {
    shop: Shop,
    by_router: bool,
    orders: Vec<String>,
    positions: HashMap<String, usize>,
}

impl Side {
    async fn open(by_router: bool, settings: &[(&str, &str)]) -> Self {
        Self {
            shop: Shop::open(settings).await,
            by_router,
            orders: Vec::new(),
            positions: HashMap::new(),
        }
    }

    /// The request on this side's way.
    fn on_its_way(&self, mut ask: Ask) -> Ask {
        if self.by_router {
            ask.path = by_router(&ask.path);
        }
        ask
    }

    async fn ask(&mut self, is_staff: bool, ask: Ask) -> String {
        let door = if is_staff {
            self.shop.staff
        } else {
            self.shop.customers
        };
        let answer = door.ask(self.on_its_way(ask)).await;
        self.normalized(&answer)
    }

    async fn ask_staff(&self, ask: Ask) -> Answer {
        self.shop.staff.ask(self.on_its_way(ask)).await
    }

    /// What does not differ between two shops: an order is named by its position, a time by being one.
    fn normalized(&mut self, answer: &Answer) -> String {
        let mut headers: Vec<_> = answer
            .headers
            .iter()
            .filter(|(name, _)| !matches!(name.as_str(), "date" | "content-length"))
            .map(|(name, value)| {
                let value = value.to_str().unwrap();
                let is_ours = name == "x-request-id" && value != "mine";
                let value = if is_ours { "new" } else { value };
                format!("{name}: {}", self.named(value))
            })
            .collect();
        headers.sort();
        let body = if let Ok(json) = serde_json::from_slice(&answer.body) {
            self.named_json(json).to_string()
        } else {
            let id = answer.header("x-request-id").unwrap();
            answer.text().replace(id, "its id")
        };
        format!("{} {headers:?} {body}", answer.status)
    }

    fn named(&mut self, value: &str) -> String {
        let id = value.rsplit('/').next().unwrap_or(value);
        if id == UNKNOWN || uuid::Uuid::try_parse(id).is_err() {
            return value.to_owned();
        }
        let next = self.positions.len();
        let position = *self.positions.entry(id.to_owned()).or_insert_with(|| {
            self.orders.push(id.to_owned());
            next
        });
        value.replace(id, &format!("order {position}"))
    }

    fn named_json(&mut self, json: Value) -> Value {
        match json {
            Value::Object(members) => {
                let named = members.into_iter().map(|(key, value)| {
                    let is_time =
                        key.ends_with("_at") || key.ends_with("_ms") || key == "ask_before";
                    let value = if is_time && !value.is_null() {
                        json!("a time")
                    } else {
                        self.named_json(value)
                    };
                    (key, value)
                });
                Value::Object(named.collect())
            }
            Value::Array(items) => {
                let named = items.into_iter().map(|item| self.named_json(item));
                Value::Array(named.collect())
            }
            Value::String(text) => json!(self.named(&text)),
            other => other,
        }
    }
}

async fn both(settings: &[(&str, &str)]) -> [Side; 2] {
    [
        Side::open(false, settings).await,
        Side::open(true, settings).await,
    ]
}

fn with_headers(ask: Ask, headers: &[(&str, &str)]) -> Ask {
    headers
        .iter()
        .fold(ask, |ask, (name, value)| ask.header(name, *value))
}

/// Headers that the server may look at.
const HEADERS: [&[(&str, &str)]; 14] = [
    &[],
    &[("Idempotency-Key", "a-key-of-enough-characters")],
    &[("Idempotency-Key", "another-key-of-characters")],
    &[("Idempotency-Key", "not visible")],
    &[("Idempotency-Key", "")],
    &[("Accept", "text/html")],
    &[("X-Request-Id", "mine")],
    &[("X-Request-Id", "not mine")],
    &[("Content-Type", "text/plain")],
    &[("Expect", "100-continue")],
    &[("Origin", "http://elsewhere.example")],
    &[("Sec-Fetch-Site", "cross-site")],
    &[("X-Forwarded-For", "203.0.113.7")],
    &[("X-Forwarded-For", "unreadable")],
];

#[tokio::test]
async fn whatever_a_customer_sends_is_answered_alike_on_both_ways() {
    let mut sides = both(&[("flood.mode", "off")]).await;
    let bodies: [Option<&str>; 4] = [None, Some(r#"{"customer": "Ada"}"#), Some("{}"), Some("{")];
    let mut count = 0;
    for method in [Method::POST, Method::GET, Method::HEAD, Method::PUT] {
        for path in ["/order/", "/order", "/order/?", "/order/?x=1"] {
            for prefer in ["respond-async", "wait=0, handling=lenient"] {
                for headers in HEADERS {
                    for body in bodies {
                        let ask = Ask::new(method.clone(), path).prefer(prefer);
                        let mut ask = with_headers(ask, headers);
                        if let Some(body) = body {
                            ask = ask.header("Content-Type", "application/json").body(body);
                        }
                        let [fast, routed] = &mut sides;
                        let (fast, routed) = tokio::join!(
                            fast.ask(false, ask.clone()),
                            routed.ask(false, ask.clone())
                        );
                        assert_eq!(fast, routed, "{ask:?}");
                        count += usize::from(fast.starts_with("202"));
                    }
                }
            }
        }
    }
    assert!(count > 150, "only {count} were orders");
    for side in sides {
        side.shop.serve_all().await;
        side.shop.close().await;
    }
}

#[tokio::test]
async fn whatever_a_barista_sends_is_answered_alike_on_both_ways() {
    let mut sides = both(&[("flood.mode", "off"), ("orders.start_wait", "0s")]).await;
    for _ in 0..1500 {
        let ask = order().prefer("respond-async");
        for side in &mut sides {
            let answer = side.shop.customers.ask(ask.clone()).await;
            side.normalized(&answer);
        }
    }
    let queries = [
        "",
        "wait=0",
        "wait=0&barista=Bo",
        "barista=",
        "barista=B%C3%B6",
        "wait=56",
        "wait=x",
        "wait=-1",
        "wait=+1",
        "wait=007",
        "wait=0&wait=0",
        "order_id={}",
        "order_id={}&attempt=1",
        "order_id={}&attempt=9",
        "order_id={}&attempt=0x1",
        "order_id={}&next=0",
        "order_id={}&next=0&barista=Bo",
        "order_id={}&next=99",
        "order_id={}&order_id={}",
        "order_id=",
        "order_id=7",
        "order_id=00000000-0000-0000-0000-00000000000g",
        "order_id=0191d5c8-7a9b-7000-8000-000000000000",
        "attempt=1",
        "next=0",
        "x=1",
        "wait",
        "=",
        "wait=0&",
        "order_id={}&attempt=4294967296",
    ];
    let mut position = 0;
    let mut finished = 0;
    for method in [Method::POST, Method::GET, Method::HEAD, Method::DELETE] {
        for path in ["/start/", "/start", "/finish/", "/finish"] {
            for query in queries {
                for headers in &HEADERS[4..] {
                    let mut answers = Vec::new();
                    for side in &mut sides {
                        let query = query.replace("{}", &side.orders[position]);
                        let separator = if query.is_empty() { "" } else { "?" };
                        let ask = Ask::new(method.clone(), format!("{path}{separator}{query}"));
                        answers.push(side.ask(true, with_headers(ask, headers)).await);
                    }
                    let [fast, routed] = &answers[..] else {
                        unreachable!("there are two sides")
                    };
                    assert_eq!(fast, routed, "{method} {path} {query} {headers:?}");
                    if fast.starts_with("200") && path.starts_with("/finish") {
                        finished += 1;
                        position += 1;
                    }
                }
            }
        }
    }
    assert!(finished > 60, "only {finished} were finished");
    for side in sides {
        side.shop.serve_all().await;
        side.shop.close().await;
    }
}

#[tokio::test]
async fn a_customer_who_is_held_is_answered_alike_on_both_ways() {
    let reports = ["", "&attempt=1", "&next=0", "&next=0&barista=Bo"];
    let mut answers = Vec::new();
    for mut side in both(&[("orders.start_wait", "0s")]).await {
        let mut of_side = Vec::new();
        for (number, report) in reports.into_iter().enumerate() {
            for ask in [
                order(),
                order().json(&json!({"customer": "Ada"})),
                order().key(format!("a-key-of-enough-characters-{number}")),
                order().prefer("wait=50"),
                order().header("Accept", "text/html"),
                order().header("X-Request-Id", "mine"),
            ] {
                let visitor = side.shop.customer(side.on_its_way(ask.clone())).await;
                let started = side.ask_staff(get("/start/?barista=Bo")).await;
                let id = text(&started.expect(200)["order_id"]);
                let finish = post(format!("/finish/?order_id={id}{report}"));
                let finished = side.ask_staff(finish).await;
                let ready = visitor.answer().await;
                for answer in [started, finished, ready] {
                    assert_eq!(answer.status, 200, "{ask:?}");
                    of_side.push(side.normalized(&answer));
                }
                // Of a key the same answer again, without one a further order.
                if ask
                    .headers
                    .iter()
                    .any(|(name, _)| name == "Idempotency-Key")
                {
                    let again = side.ask(false, ask).await;
                    assert!(again.contains("idempotency-replayed"), "{again}");
                    of_side.push(again);
                }
            }
        }
        side.shop.close().await;
        answers.push(of_side);
    }
    assert_eq!(answers[0].len(), reports.len() * (6 * 3 + 1));
    assert_eq!(answers[0], answers[1]);
}
