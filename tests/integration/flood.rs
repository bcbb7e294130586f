//! One address asks for too much: it is refused, then cut off; no other client notices.

use std::net::{IpAddr, SocketAddr};

use serde_json::json;
use tokio::net::TcpSocket;

use crate::client::{Answer, Ask, Connection, Visitor, delete, get, order, send};
use crate::orders_line::text_time;
use crate::shop::{Shop, text};

/// The whole 127.0.0.0/8 is this machine: each of its addresses can be another client.
const FLOODER: &str = "127.0.66.6";
const REGULAR: &str = "127.0.0.1";

/// Small limits, so that a few requests are a flood.
const SMALL: [(&str, &str); 3] = [
    ("flood.outstanding_max", "5"),
    ("flood.burst", "20"),
    ("flood.cutoff_after", "10"),
];

async fn connect_from(shop: &Shop, from: &str) -> Connection {
    let socket = TcpSocket::new_v4().unwrap();
    let from: IpAddr = from.parse().unwrap();
    socket.bind(SocketAddr::new(from, 0)).unwrap();
    let stream = socket.connect(shop.customers.address).await.unwrap();
    shop.customers.over(stream).await
}

async fn ask_from(shop: &Shop, from: &str, ask: Ask) -> Answer {
    connect_from(shop, from).await.ask(&ask).await
}

/// A customer from this address who is in line when this returns.
async fn customer_from(shop: &Shop, from: &str, ask: Ask) -> Visitor {
    let before = shop.metrics().await.placed();
    let mut connection = connect_from(shop, from).await;
    let visitor = Visitor::new(async move { connection.try_ask(&ask).await });
    shop.until("the order is placed", |now| now.placed() > before)
        .await;
    visitor
}

async fn flood_until_cut_off(shop: &Shop) {
    for _ in 0..10 {
        let answer = ask_from(shop, FLOODER, order()).await;
        assert_eq!(answer.status, 429, "{answer}");
    }
}

#[tokio::test]
async fn a_group_of_200_behind_one_address_passes_untouched() {
    let shop = Shop::open(&[]).await;
    let group: Vec<_> = (0..200).map(|_| shop.customers.hold(order())).collect();
    shop.until("the group is in line", |now| now.waiting() == 200)
        .await;
    shop.serve_on_one_connection(200).await;
    for customer in group {
        customer.answer().await.expect(200);
    }
    shop.close().await;
}

#[tokio::test]
async fn who_has_too_many_orders_open_is_told_when_to_come_back() {
    let shop = Shop::open(&SMALL).await;
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(customer_from(&shop, FLOODER, order()).await);
    }
    let refused = ask_from(&shop, FLOODER, order()).await;
    refused.expect_problem(429, "too-many-outstanding");
    assert!(refused.retry_after() >= 1);
    assert_eq!(refused.header("ratelimit-policy"), Some("\"open\";q=5"));
    assert!(
        refused
            .header("ratelimit")
            .unwrap()
            .starts_with("\"open\";r=0;t=")
    );
    // Another address is not affected, and a customer who leaves makes room.
    let regular = customer_from(&shop, REGULAR, order()).await;
    held.pop().unwrap().leave().await;
    shop.until("one has left", |now| now.waiting() == 5).await;
    held.push(customer_from(&shop, FLOODER, order()).await);
    shop.serve_all().await;
    regular.answer().await.expect(200);
    for customer in held {
        customer.answer().await.expect(200);
    }
    shop.close().await;
}

#[tokio::test]
async fn who_orders_too_fast_is_refused_by_the_rate() {
    let shop = Shop::open(&[("flood.burst", "3"), ("flood.refill", "1h")]).await;
    for _ in 0..3 {
        ask_from(&shop, FLOODER, order().prefer("respond-async"))
            .await
            .expect(202);
    }
    let refused = ask_from(&shop, FLOODER, order()).await;
    refused.expect_problem(429, "too-many-requests");
    assert!((3590..=3600).contains(&refused.retry_after()), "{refused}");
    shop.serve_all().await;
    shop.close().await;
}

#[tokio::test]
async fn a_flooder_is_cut_off_what_he_placed_since_he_was_refused_goes_and_all_else_stays() {
    let shop = Shop::open(&SMALL).await;
    let first = customer_from(
        &shop,
        FLOODER,
        order().json(&json!({"customer": "brewing"})),
    )
    .await;
    let started = shop.start().await;
    let mut his = Vec::new();
    let mut regulars = Vec::new();
    for n in 0..4 {
        his.push(customer_from(&shop, FLOODER, order()).await);
        let name = json!({"customer": format!("regular {n}")});
        regulars.push(customer_from(&shop, REGULAR, order().json(&name)).await);
    }
    // One too many is refused; what comes in after that is excess.
    ask_from(&shop, FLOODER, order()).await.expect(429);
    shop.finish(&started.id).await;
    first.answer().await.expect(200);
    let excess = customer_from(&shop, FLOODER, order()).await;
    for _ in 0..9 {
        ask_from(&shop, FLOODER, order()).await.expect(429);
    }
    let answer = excess.answer().await;
    answer.expect_problem(429, "cut-off");
    assert!(answer.retry_after() > 500);
    let now = shop
        .until("the excess has left", |now| now.waiting() == 8)
        .await;
    assert_eq!(now.count("odyssey_flood_purged_total"), 1);
    assert_eq!(
        (now.cancelled("cut_off"), now.count("odyssey_flood_cut_off")),
        (1, 1)
    );
    // Nothing new of his comes in, and he is listed.
    ask_from(&shop, FLOODER, order())
        .await
        .expect_problem(429, "cut-off");
    let flood = shop.staff.ask(get("/flood")).await.expect(200);
    assert_eq!(flood["mode"], "enforce");
    assert_eq!(flood["cut_off"][0]["address"], FLOODER);
    let listed = &flood["cut_off"][0];
    assert_eq!(listed["refused"], 11);
    assert_eq!(listed["reason"], "outstanding");
    assert!(text_time(&listed["since"]) < text_time(&listed["until"]));
    // All others are served in their order.
    let served = shop.serve_all().await;
    let regular_ones: Vec<_> = served
        .iter()
        .filter(|name| name.starts_with("regular"))
        .collect();
    assert_eq!(
        regular_ones,
        ["regular 0", "regular 1", "regular 2", "regular 3"]
    );
    assert_eq!(served.len(), 8);
    for customer in regulars.into_iter().chain(his) {
        customer.answer().await.expect(200);
    }
    shop.close().await;
}

#[tokio::test]
async fn who_is_let_back_in_may_order_again_at_once() {
    let shop = Shop::open(&SMALL).await;
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(customer_from(&shop, FLOODER, order()).await);
    }
    flood_until_cut_off(&shop).await;
    held.pop().unwrap().leave().await;
    shop.until("one has left", |now| now.waiting() == 4).await;
    ask_from(&shop, FLOODER, order())
        .await
        .expect_problem(429, "cut-off");
    let back = shop.staff.ask(delete(format!("/flood/{FLOODER}"))).await;
    assert_eq!(back.expect(200)["address"], FLOODER);
    shop.staff
        .ask(delete(format!("/flood/{FLOODER}")))
        .await
        .expect_problem(404, "not-cut-off");
    shop.staff
        .ask(delete("/flood/nobody"))
        .await
        .expect_problem(400, "unreadable");
    let again = customer_from(&shop, FLOODER, order()).await;
    held.push(again);
    shop.serve_all().await;
    for customer in held {
        customer.answer().await.expect(200);
    }
    shop.close().await;
}

#[tokio::test]
async fn an_order_whose_customer_may_come_back_goes_on_counting_and_they_can_join_it() {
    let shop = Shop::open(&SMALL).await;
    let keys: Vec<_> = (0..5).map(|n| format!("a-key-of-16-or-more-{n}")).collect();
    for key in &keys {
        customer_from(&shop, FLOODER, order().key(key))
            .await
            .leave()
            .await;
    }
    let all = shop.until("nobody is held", |now| now.held() == 0).await;
    assert_eq!(all.waiting(), 5);
    let refused = ask_from(&shop, FLOODER, order()).await;
    refused.expect_problem(429, "too-many-outstanding");
    let mut back = Vec::new();
    for key in &keys {
        let mut connection = connect_from(&shop, FLOODER).await;
        let ask = order().key(key);
        back.push(Visitor::new(async move { connection.try_ask(&ask).await }));
    }
    shop.until("all are back", |now| now.held() == 5).await;
    shop.serve_all().await;
    for customer in back {
        customer.answer().await.expect(200);
    }
    // All of it is over.
    let again = customer_from(&shop, FLOODER, order()).await;
    shop.serve_all().await;
    again.answer().await.expect(200);
    shop.close().await;
}

#[tokio::test]
async fn whichever_way_an_order_ends_it_no_longer_counts() {
    let shop = Shop::open(&[
        ("flood.outstanding_max", "1"),
        ("flood.cutoff_after", "1000"),
    ])
    .await;
    // Each of these would be refused if the one before it still counted.
    let served = customer_from(&shop, FLOODER, order()).await;
    shop.serve_all().await;
    served.answer().await.expect(200);
    customer_from(&shop, FLOODER, order()).await.leave().await;
    shop.until("they have left", |now| now.held() == 0).await;
    ask_from(&shop, FLOODER, order().json(&json!({"customer": 1})))
        .await
        .expect(422);
    ask_from(
        &shop,
        FLOODER,
        order().header("Content-Type", "text/plain").body("x"),
    )
    .await
    .expect(415);
    ask_from(&shop, FLOODER, order().key("bad key"))
        .await
        .expect(400);
    let promised = ask_from(&shop, FLOODER, order().prefer("respond-async"))
        .await
        .expect(202);
    // A promised order is open until it is ready, though no request is held for it.
    ask_from(&shop, FLOODER, order())
        .await
        .expect_problem(429, "too-many-outstanding");
    shop.customers
        .ask(delete(format!("/orders/{}", text(&promised["order_id"]))))
        .await
        .expect(200);
    let promised = ask_from(&shop, FLOODER, order().prefer("respond-async").key("k"))
        .await
        .expect(202);
    let started = shop.start().await;
    assert_eq!(started.id, text(&promised["order_id"]));
    shop.finish(&started.id).await;
    ask_from(&shop, FLOODER, order().key("k")).await.expect(200);
    let last = customer_from(&shop, FLOODER, order()).await;
    shop.serve_all().await;
    last.answer().await.expect(200);
    shop.close().await;
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_client_counts_for_themselves_and_nobody_can_pretend() {
    let settings = [
        ("flood.outstanding_max", "1"),
        ("flood.trusted_proxies", "127.0.0.9"),
    ];
    let shop = Shop::open(&settings).await;
    let via = |forwarded: &str| {
        order()
            .header("X-Forwarded-For", forwarded)
            .prefer("respond-async")
    };
    ask_from(&shop, "127.0.0.9", via("198.51.100.1"))
        .await
        .expect(202);
    ask_from(&shop, "127.0.0.9", via("198.51.100.2"))
        .await
        .expect(202);
    ask_from(&shop, "127.0.0.9", via("203.0.113.5, 198.51.100.1"))
        .await
        .expect(429);
    // Without the proxy the header is not trusted.
    ask_from(&shop, FLOODER, via("198.51.100.3"))
        .await
        .expect(202);
    ask_from(&shop, FLOODER, via("198.51.100.4"))
        .await
        .expect(429);
    shop.serve_all().await;
    shop.close().await;
}

#[tokio::test]
async fn a_proxy_that_sends_rubbish_counts_for_itself_and_is_logged_once() {
    let settings = [
        ("flood.outstanding_max", "1"),
        ("flood.trusted_proxies", "127.0.0.9"),
    ];
    let shop = Shop::open(&settings).await;
    let rubbish = || {
        order()
            .header("X-Forwarded-For", "unknown")
            .prefer("respond-async")
    };
    ask_from(&shop, "127.0.0.9", rubbish()).await.expect(202);
    for _ in 0..3 {
        ask_from(&shop, "127.0.0.9", rubbish()).await.expect(429);
    }
    assert_eq!(
        shop.metrics().await.count("odyssey_flood_malformed_total"),
        4
    );
    shop.serve_all().await;
    let log = shop.close().await;
    assert_eq!(
        log.matches("X-Forwarded-For that cannot be read").count(),
        1
    );
}

#[tokio::test]
async fn when_only_observed_a_flood_is_counted_and_let_in() {
    let settings = [&SMALL[..], &[("flood.mode", "observe")]].concat();
    let shop = Shop::open(&settings).await;
    let mut held = Vec::new();
    for _ in 0..16 {
        held.push(customer_from(&shop, FLOODER, order()).await);
    }
    let now = shop.metrics().await;
    let observed = |reason: &str| {
        now.count(&format!(
            "odyssey_flood_decisions_total{{decision=\"observed\",reason=\"{reason}\"}}"
        ))
    };
    assert_eq!((observed("outstanding"), observed("cut_off")), (10, 1));
    assert_eq!(
        (now.waiting(), now.count("odyssey_flood_purged_total")),
        (16, 0)
    );
    shop.serve_all().await;
    for customer in held {
        customer.answer().await.expect(200);
    }
    shop.close().await;
}

#[tokio::test]
async fn the_exempt_are_never_counted() {
    let settings = [&SMALL[..], &[("flood.exempt", "127.0.66.0/24")]].concat();
    let shop = Shop::open(&settings).await;
    for _ in 0..30 {
        ask_from(&shop, FLOODER, order().prefer("respond-async"))
            .await
            .expect(202);
    }
    assert_eq!(shop.metrics().await.count("odyssey_flood_addresses"), 0);
    shop.serve_all().await;
    shop.close().await;
}

#[tokio::test]
async fn networks_and_clients_match_in_every_spelling() {
    let shop = Shop::open(&[
        ("flood.trusted_proxies", "::ffff:127.0.0.0/104"),
        (
            "flood.exempt",
            "2001:db8:1::5,2001:db8:2::/72,::ffff:198.51.100.0/120",
        ),
        ("flood.outstanding_max", "1"),
    ])
    .await;
    let mut promised = 0;
    for (first, second, status) in [
        // Exempt, narrower than the /64 that counts.
        ("2001:db8:1::5", "2001:db8:1::5", 202),
        ("2001:db8:2::5", "2001:db8:2:0:ff::", 202),
        ("198.51.100.1", "::ffff:198.51.100.1", 202),
        ("64:ff9b::198.51.100.2", "198.51.100.2", 202),
        // Not exempt: neighbours of those who are.
        ("2001:db8:1::6", "2001:db8:1::7", 429),
        ("2001:db8:2:0:100::", "2001:db8:2:0:ffff::", 429),
        // The same client.
        ("192.0.2.1", "192.0.2.1:443", 429),
        ("192.0.2.2", "\"192.0.2.2\"", 429),
        ("192.0.2.3", "[::ffff:192.0.2.3]:443", 429),
        ("192.0.2.4", "64:ff9b::192.0.2.4", 429),
        ("2001:db8:3::1", "[2001:db8:3::1]", 429),
        ("fe80::1%eth0", "[fe80::1]:443", 429),
        // Neighbours behind one translator.
        ("64:ff9b::192.0.2.5", "64:ff9b::192.0.2.6", 202),
    ] {
        for (spelling, status) in [(first, 202), (second, status)] {
            let ask = order()
                .prefer("respond-async")
                .header("X-Forwarded-For", spelling);
            let answer = shop.customers.ask(ask).await;
            assert_eq!(answer.status, status, "{first}, {second}: {answer}");
            promised += usize::from(answer.status == 202);
        }
    }
    shop.serve_on_one_connection(promised).await;
    shop.close().await;
}

#[tokio::test]
async fn a_colleague_who_floods_takes_none_of_the_others_behind_their_address_out_of_the_line() {
    let shop = Shop::open(&[]).await;
    let office: Vec<_> = (0..200).map(|_| shop.customers.hold(order())).collect();
    shop.until("the office is in line", |now| now.waiting() == 200)
        .await;
    let mut flooder = shop.customers.connect().await;
    for _ in 0..1000 {
        flooder.ask(&order().prefer("respond-async")).await;
    }
    let refused = flooder.ask(&order()).await;
    refused.expect_problem(429, "cut-off");
    drop(flooder);
    assert!(office.iter().all(Visitor::is_held));
    shop.serve_all().await;
    for colleague in office {
        colleague.answer().await.expect(200);
    }
    shop.close().await;
}

#[tokio::test]
async fn everything_that_customers_write_has_a_rate_and_held_requests_a_bound() {
    let shop = Shop::open(&[
        ("flood.outstanding_max", "2"),
        ("flood.burst", "2"),
        ("flood.refill", "1h"),
    ])
    .await;
    let package = |n: usize| {
        json!({
            "timestamp": "2142-05-01T12:00:00Z", "sender_id": "berta", "recipient_id": "ada",
            "package_id": n, "package_type": "marketing",
        })
    };
    let mut writer = connect_from(&shop, FLOODER).await;
    let first = writer.ask(&send(&package(0))).await;
    let policy = first.header("ratelimit-policy").unwrap();
    assert_eq!(policy, "\"writes\";q=20;w=7200", "{first}");
    assert_eq!(first.header("ratelimit"), Some("\"writes\";r=19"));
    let refused = loop {
        let answer = writer.ask(&send(&package(1))).await;
        if answer.status == 429 {
            break answer;
        }
    };
    refused.expect_problem(429, "too-many-requests");
    assert!(refused.retry_after() > 60);
    drop(writer);
    // What is asked costs nothing of it; what is held is bounded by itself.
    let promised = shop.promised().await;
    let path = format!("/orders/{promised}?wait=55");
    let held: Vec<_> = (0..2)
        .map(|_| shop.customers.hold(get(path.clone())))
        .collect();
    shop.until("both are held", |now| now.held() == 2).await;
    let third = shop.customers.ask(get(path)).await;
    third.expect_problem(429, "too-many-outstanding");
    let plain = shop.customers.ask(get(format!("/orders/{promised}"))).await;
    plain.expect(200);
    shop.serve_all().await;
    for watcher in held {
        watcher.answer().await.expect(200);
    }
    shop.close().await;
}

#[tokio::test]
async fn one_address_has_so_many_connections_and_the_next_is_told_so() {
    let shop = Shop::open(&[("flood.connections_max", "3")]).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut connection = connect_from(&shop, FLOODER).await;
        connection.ask(&get("/healthz")).await.expect(200);
        open.push(connection);
    }
    let refused = ask_from(&shop, FLOODER, order()).await;
    refused.expect_problem(429, "too-many-connections");
    assert!(refused.retry_after() >= 1);
    // The health check answers an address at its limit, too, and then closes the connection.
    let healthy = ask_from(&shop, FLOODER, get("/healthz")).await;
    healthy.expect(200);
    assert_eq!(healthy.header("connection"), Some("close"));
    shop.customers.ask(get("/healthz")).await.expect(200);
    let now = shop.metrics().await;
    assert_eq!(
        now.count("odyssey_flood_connections_refused_total{decision=\"refused\"}"),
        2
    );
    // One that ends makes room for another.
    drop(open.pop());
    shop.until("one has ended", |now| now.connections("customers") == 2)
        .await;
    let mut again = connect_from(&shop, FLOODER).await;
    again.ask(&get("/healthz")).await.expect(200);
    drop((open, again));
    shop.close().await;
}

#[tokio::test]
async fn the_list_of_those_who_are_cut_off_comes_in_pages() {
    let shop = Shop::open(&[
        ("flood.trusted_proxies", "127.0.0.1"),
        ("flood.burst", "1"),
        ("flood.refill", "1h"),
        ("flood.cutoff_after", "1"),
    ])
    .await;
    let mut connection = shop.customers.connect().await;
    for n in 1..=5 {
        let from = order()
            .prefer("respond-async")
            .header("x-forwarded-for", format!("192.0.{n}.1"));
        connection.ask(&from).await.expect(202);
        for _ in 0..n {
            connection.ask(&from).await.expect(429);
        }
    }
    let mut listed = Vec::new();
    let mut path = "/flood?limit=2".to_owned();
    loop {
        let page = shop.staff.ask(get(path)).await.expect(200);
        assert_eq!(page["cut_off_count"], 5);
        let cut_off = page["cut_off"].as_array().unwrap();
        listed.extend(cut_off.iter().map(|one| text(&one["address"])));
        let Some(next) = page.get("next") else { break };
        path = format!("/flood?limit=2&cursor={}", text(next).replace('/', "%2F"));
    }
    let addresses = (1..=5).rev().map(|n| format!("192.0.{n}.1"));
    assert_eq!(listed, addresses.collect::<Vec<_>>(), "most refused first");
    for (query, parameter) in [("limit=0", "limit"), ("cursor=x", "cursor")] {
        let refused = shop.staff.ask(get(format!("/flood?{query}"))).await;
        let problem = refused.expect_problem(422, "invalid");
        assert_eq!(problem["errors"][0]["parameter"], parameter);
    }
    drop(connection);
    let limits = shop.staff.ask(get("/flood")).await.expect(200)["limits"].clone();
    assert_eq!(limits["provider_max"], 400);
    shop.serve_all().await;
    shop.close().await;
}
