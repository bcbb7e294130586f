//! One address asks for too much: it is refused, then cut off; no other client notices.

use serde_json::json;

use crate::client::{Answer, Ask, Visitor, delete, get, order, send};
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

async fn ask_from(shop: &Shop, from: &str, ask: Ask) -> Answer {
    shop.customers.connect_from(from).await.ask(&ask).await
}

/// A customer from this address who is in line when this returns.
async fn customer_from(shop: &Shop, from: &str, ask: Ask) -> Visitor {
    let connection = shop.customers.connect_from(from).await;
    shop.customer_over(connection, ask).await
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
async fn a_flooder_is_cut_off_what_he_placed_since_he_was_refused_goes_and_all_else_stays() {
    let shop = Shop::open(&SMALL).await;
    let brewing = order().json(&json!({"customer": "brewing"}));
    let first = customer_from(&shop, FLOODER, brewing).await;
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
    let settings = [("flood.outstanding_max", "1"), ("flood.cutoff_after", "1")];
    let shop = Shop::open(&settings).await;
    let held = customer_from(&shop, FLOODER, order()).await;
    ask_from(&shop, FLOODER, order()).await.expect(429);
    held.leave().await;
    shop.until("the line is empty", |now| now.waiting() == 0)
        .await;
    let refused = ask_from(&shop, FLOODER, order()).await;
    refused.expect_problem(429, "cut-off");
    let back = || delete(format!("/flood/{FLOODER}"));
    assert_eq!(shop.staff.expect(back(), 200).await["address"], FLOODER);
    shop.staff.expect_problem(back(), 404, "not-cut-off").await;
    let nobody = delete("/flood/nobody");
    shop.staff.expect_problem(nobody, 400, "unreadable").await;
    let again = customer_from(&shop, FLOODER, order()).await;
    shop.serve_all().await;
    again.answer().await.expect(200);
    shop.close().await;
}

#[tokio::test]
async fn an_order_whose_customer_may_come_back_goes_on_counting_and_they_can_join_it() {
    let shop = Shop::open(&[("flood.outstanding_max", "1")]).await;
    let keyed = || order().key("a-key-of-16-or-more");
    let leaves = customer_from(&shop, FLOODER, keyed()).await;
    leaves.leave().await;
    shop.until("nobody is held", |now| now.held() == 0).await;
    let refused = ask_from(&shop, FLOODER, order()).await;
    refused.expect_problem(429, "too-many-outstanding");
    let mut connection = shop.customers.connect_from(FLOODER).await;
    let back = Visitor::new(async move { connection.try_ask(&keyed()).await });
    shop.until("they are back", |now| now.held() == 1).await;
    shop.serve_all().await;
    back.answer().await.expect(200);
    // All of it is over.
    let again = customer_from(&shop, FLOODER, order()).await;
    shop.serve_all().await;
    again.answer().await.expect(200);
    shop.close().await;
}

#[tokio::test]
async fn whichever_way_an_order_ends_it_no_longer_counts() {
    let settings = [
        ("flood.outstanding_max", "1"),
        ("flood.cutoff_after", "1000"),
    ];
    let shop = Shop::open(&settings).await;
    // Each of these would be refused if the one before it still counted.
    let served = customer_from(&shop, FLOODER, order()).await;
    shop.serve_all().await;
    served.answer().await.expect(200);
    customer_from(&shop, FLOODER, order()).await.leave().await;
    shop.until("they have left", |now| now.held() == 0).await;
    let not_json = order().header("Content-Type", "text/plain").body("x");
    for (malformed, status) in [
        (order().json(&json!({"customer": 1})), 422),
        (not_json, 415),
        (order().key("bad key"), 400),
    ] {
        ask_from(&shop, FLOODER, malformed).await.expect(status);
    }
    let promised = || order().prefer("respond-async");
    let first = ask_from(&shop, FLOODER, promised()).await.expect(202);
    // A promised order is open until it is ready, though no request is held for it.
    ask_from(&shop, FLOODER, order())
        .await
        .expect_problem(429, "too-many-outstanding");
    let cancel = delete(format!("/orders/{}", text(&first["order_id"])));
    shop.customers.ask(cancel).await.expect(200);
    ask_from(&shop, FLOODER, promised().key("k"))
        .await
        .expect(202);
    shop.serve_all().await;
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
    let mut writer = shop.customers.connect_from(FLOODER).await;
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
        let mut connection = shop.customers.connect_from(FLOODER).await;
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
    let mut again = shop.customers.connect_from(FLOODER).await;
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
