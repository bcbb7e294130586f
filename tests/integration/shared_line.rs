//! One line at two servers, behind nginx: what becomes of customers when a server, nginx or Redis is lost, stopped or frozen.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use testkit::proxy::{Fault, Proxy};
use testkit::redis::Redis;
use testkit::until;
use tokio::time::sleep;

use crate::client::{get, order, post};
use crate::durability::Seed;
use crate::servers::{Crew, REDIS, Servers, all_ready, assert_in_order};
use crate::shop::Started;

/// Held at once.
const GROUP: usize = 200;
/// What Redis loses in the middle of a hand-over to an idle barista of another server waits for the end of its lease.
const SHORT_LEASE: [(&str, &str); 1] = [("orders.lease", "2s")];
/// Of a barista: a thousandth of what it takes in a shop.
const BREW: Duration = Duration::from_millis(40);

#[tokio::test]
async fn a_server_that_is_killed_costs_no_held_customer_an_answer_or_a_place() {
    let seed = Seed::from_environment();
    let mut random = fastrand::Rng::with_seed(seed.0);
    let mut servers = Servers::open(&[]).await;
    let customers = servers.customers(0..GROUP).await;
    servers.holds(GROUP).await;
    let crew = Crew::at_work(&servers, 10, BREW);
    sleep(Duration::from_millis(random.u64(0..500))).await;
    servers.kill(0).await;
    assert_in_order(&all_ready(customers).await);
    crew.go_home().await;
    servers.close().await;
}

#[tokio::test]
async fn a_server_that_is_killed_while_customers_arrive_costs_none_of_them_an_answer() {
    let seed = Seed::from_environment();
    let mut servers = Servers::open(&[]).await;
    let crew = Crew::at_work(&servers, 10, BREW);
    let mut customers = servers.customers(0..GROUP / 2).await;
    // Both have taken some requests; some of them are on their way.
    servers
        .kill(fastrand::Rng::with_seed(seed.0).usize(0..2))
        .await;
    customers.extend(servers.customers(GROUP / 2..GROUP).await);
    assert_in_order(&all_ready(customers).await);
    crew.go_home().await;
    servers.close().await;
}

#[tokio::test]
async fn a_group_behind_one_address_moves_to_the_other_server_without_a_refusal() {
    let mut servers = Servers::open(&[]).await;
    let mut customers = Vec::new();
    for number in 0..GROUP {
        customers.push(servers.customer_from("127.0.0.2", number).await);
    }
    servers.holds(GROUP).await;
    // One address goes to one server.
    let theirs = servers.fuller().await;
    assert_eq!(servers.shop(theirs).metrics().await.held(), GROUP);
    servers.kill(theirs).await;
    servers.holds(GROUP).await;
    let crew = Crew::at_work(&servers, 10, Duration::ZERO);
    assert_in_order(&all_ready(customers).await);
    crew.go_home().await;
    servers.close().await;
}

#[tokio::test]
async fn servers_that_are_restarted_one_after_the_other_hand_their_customers_over() {
    let mut servers = Servers::open(&[]).await;
    let customers = servers.customers(0..GROUP).await;
    servers.holds(GROUP).await;
    for at in [0, 1, 0, 1] {
        // The other server is known to be there.
        servers
            .shop(at)
            .until("a tick has passed", |now| now.waiting() == GROUP)
            .await;
        let took = servers.stop(at).await;
        assert!(took < Duration::from_secs(3), "{took:?}");
        servers.holds(GROUP).await;
        servers.start(at).await;
    }
    let crew = Crew::at_work(&servers, 10, Duration::ZERO);
    assert_in_order(&all_ready(customers).await);
    crew.go_home().await;
    servers.close().await;
}

#[tokio::test]
async fn redis_that_is_killed_and_comes_back_is_no_news_to_customers() {
    let mut servers = Servers::open(&[]).await;
    let customers = servers.customers(0..GROUP / 2).await;
    servers.holds(GROUP / 2).await;
    let crew = Crew::at_work(&servers, 10, BREW);
    servers.redis.process.kill();
    // Those who come while it is away are held, too.
    let late = servers.customers(GROUP / 2..GROUP).await;
    sleep(Duration::from_secs(3)).await;
    servers.redis.start_again().await;
    let mut answers = all_ready(customers).await;
    answers.extend(all_ready(late).await);
    assert_in_order(&answers);
    crew.go_home().await;
    servers.close().await;
}

#[tokio::test]
async fn redis_that_has_lost_everything_gets_all_who_wait_from_the_servers_in_their_places() {
    let servers = Servers::open(&[]).await;
    let customers = servers.customers(0..GROUP).await;
    servers.holds(GROUP).await;
    servers.redis.ask(&["FLUSHALL"]).await;
    for at in [0, 1] {
        let shop = servers.shop(at);
        shop.until("the server has asserted its customers", |now| {
            shop.log().contains("asserted again") && now.waiting() == GROUP
        })
        .await;
    }
    let crew = Crew::at_work(&servers, 10, BREW);
    assert_in_order(&all_ready(customers).await);
    crew.go_home().await;
    servers.close().await;
}

#[tokio::test]
async fn redis_that_loses_everything_while_baristas_work_costs_no_customer_an_answer() {
    let servers = Servers::open(&SHORT_LEASE).await;
    let customers = servers.customers(0..GROUP).await;
    servers.holds(GROUP).await;
    let crew = Crew::at_work(&servers, 10, BREW);
    sleep(Duration::from_millis(200)).await;
    servers.redis.ask(&["FLUSHALL"]).await;
    all_ready(customers).await;
    crew.go_home_after_a_loss().await;
    servers.close().await;
}

#[tokio::test]
async fn a_failover_to_a_replica_that_lags_behind_costs_no_customer_an_answer() {
    let primary = Redis::with(REDIS).await;
    let replica = Redis::replica_of(&primary).await;
    let proxy = Proxy::before_redis(&primary).await;
    let url = format!("redis://{}", proxy.address);
    let mut servers = Servers::on(primary, [url.clone(), url], &SHORT_LEASE).await;
    let mut customers = servers.customers(0..GROUP / 2).await;
    servers.holds(GROUP / 2).await;
    replica.is_in_sync(&servers.redis).await;
    // What happens from here on the replica does not get.
    replica.process.freeze();
    customers.extend(servers.customers(GROUP / 2..GROUP).await);
    servers.holds(GROUP).await;
    servers.redis.process.kill();
    replica.process.thaw();
    replica.promote().await;
    proxy.lead_to(&replica);
    let crew = Crew::at_work(&servers, 10, BREW);
    assert_in_order(&all_ready(customers).await);
    crew.go_home_after_a_loss().await;
    servers.close().await;
}

#[tokio::test]
async fn a_way_to_redis_that_loses_and_delays_costs_no_answer_and_gives_no_order_twice() {
    const FAULTS: [Fault; 3] = [
        Fault::Lost,
        Fault::AnswerLost,
        Fault::AnswerDelayed(Duration::from_millis(300)),
    ];
    let seed = Seed::from_environment();
    let redis = Redis::with(REDIS).await;
    let proxy = Proxy::before_redis(&redis).await;
    let urls = [format!("redis://{}", proxy.address), redis.url()];
    let servers = Servers::on(redis, urls, &[]).await;
    let mut customers = servers.customers(0..GROUP / 2).await;
    servers.holds(GROUP / 2).await;
    proxy.chance(seed.0, 10, &FAULTS);
    let crew = Crew::at_work(&servers, 10, BREW);
    customers.extend(servers.customers(GROUP / 2..GROUP).await);
    let answers = all_ready(customers).await;
    proxy.chance(seed.0, 0, &FAULTS);
    let (leases, refused) = crew.end().await;
    // A server whose calls are late for long enough is taken for dead: its baristas' orders get the next attempt.
    for refused in refused {
        refused.expect_problem(409, "attempt-outdated");
    }
    let attempts: BTreeSet<_> = leases
        .iter()
        .map(|lease| (&*lease.id, lease.attempt))
        .collect();
    assert_eq!(attempts.len(), leases.len(), "no attempt has two leases");
    let started: BTreeSet<_> = leases.iter().map(|lease| &*lease.id).collect();
    for ready in &answers {
        let id = ready["order_id"].as_str().unwrap();
        assert!(started.contains(id), "{id} was never started");
    }
    servers.close().await;
}

#[tokio::test]
async fn a_server_that_is_frozen_and_taken_for_dead_keeps_its_customers() {
    let servers = Servers::open(&[]).await;
    let customers = servers.customers(0..GROUP).await;
    servers.holds(GROUP).await;
    servers.shop(0).signal(Signal::STOP);
    servers
        .shop(1)
        .until("the frozen server is removed", |_| {
            servers
                .shop(1)
                .log()
                .contains("a server of the line is silent")
        })
        .await;
    servers.shop(0).signal(Signal::CONT);
    servers.holds(GROUP).await;
    let crew = Crew::at_work(&servers, 10, Duration::ZERO);
    all_ready(customers).await;
    crew.go_home().await;
    servers.close().await;
}

#[tokio::test]
async fn an_order_whose_barista_is_gone_returns_to_its_place_and_fences_them_at_any_server() {
    let servers = Servers::open(&[("orders.lease", "1s")]).await;
    let customers = servers.customers(0..2).await;
    servers.line_has(2).await;
    let first = Started::of(&servers.shop(0).pull("wait=0").await.expect(200));
    // A barista who waits at the other server gets it back, before the customer behind it.
    let second = servers.shop(1).pull("wait=0").await.expect(200);
    let again = Started::of(&servers.shop(1).pull("wait=20").await.expect(200));
    assert_eq!((&again.id, again.attempt), (&first.id, 2));
    let late = servers.shop(0).try_finish(&first.id, "&attempt=1").await;
    late.expect_problem(409, "attempt-outdated");
    let second = Started::of(&second);
    for started in [&again, &second] {
        let mut answer = servers.shop(1).try_finish(&started.id, "").await;
        if answer.status == 409 {
            answer = servers.shop(0).try_finish(&started.id, "").await;
        }
        answer.expect(200);
    }
    all_ready(customers).await;
    servers.close().await;
}

#[tokio::test]
async fn a_client_that_is_blocked_at_one_server_is_blocked_at_both_and_loses_its_places() {
    let servers = Servers::open(&[
        ("flood.outstanding_max", "20"),
        ("flood.cutoff_after", "10"),
    ])
    .await;
    let theirs = |ask: crate::client::Ask| ask.header("X-Forwarded-For", "198.51.100.7");
    let regulars = servers.customers(0..10).await;
    let before: Vec<_> = (0..20)
        .map(|_| servers.shop(0).customers.hold(theirs(order())))
        .collect();
    servers.holds(30).await;
    let refused = servers.shop(0).customers.ask(theirs(order())).await;
    refused.expect_problem(429, "too-many-outstanding");
    // The age of what is blocked is exact to the time of a call to Redis.
    sleep(Duration::from_millis(200)).await;
    // Since that refusal; at the other server, which counts for itself.
    let after: Vec<_> = (0..20)
        .map(|_| servers.shop(1).customers.hold(theirs(order())))
        .collect();
    servers.holds(50).await;
    until("the address is blocked", async || {
        let answer = servers.shop(0).customers.ask(theirs(order())).await;
        answer.expect(429)["type"] == "urn:odyssey:problem:cut-off"
    })
    .await;
    for visitor in after {
        visitor.answer().await.expect_problem(429, "cut-off");
    }
    servers.line_has(30).await;
    until("the other server refuses, too", async || {
        let answer = servers
            .shop(1)
            .customers
            .ask(theirs(order()).prefer("respond-async"))
            .await;
        answer.status == 429
    })
    .await;
    servers.holds(30).await;
    // Unblocked at the other server.
    let unblock = crate::client::delete("/flood/198.51.100.7");
    servers.shop(1).staff.ask(unblock).await.expect(200);
    until("the first server does not block it any more", async || {
        let answer = servers.shop(0).customers.ask(theirs(order())).await;
        answer.expect(429)["type"] == "urn:odyssey:problem:too-many-outstanding"
    })
    .await;
    let crew = Crew::at_work(&servers, 10, Duration::ZERO);
    all_ready(regulars).await;
    all_ready(before).await;
    servers.line_has(0).await;
    crew.go_home().await;
    servers.close().await;
}

#[tokio::test]
async fn customers_whose_address_was_blocked_after_they_came_move_like_all_others() {
    const LIMITS: [(&str, &str); 2] =
        [("flood.outstanding_max", "20"), ("flood.cutoff_after", "5")];
    let mut servers = Servers::open(&LIMITS).await;
    let mut customers = Vec::new();
    for number in 0..20 {
        customers.push(servers.customer_from("127.0.0.3", number).await);
    }
    servers.holds(20).await;
    until("the address is blocked", async || {
        let refused = servers.customer_from("127.0.0.3", 99).await.answer().await;
        refused.expect(429)["type"] == "urn:odyssey:problem:cut-off"
    })
    .await;
    let theirs = servers.fuller().await;
    servers.kill(theirs).await;
    servers.holds(20).await;
    let refused = servers.customer_from("127.0.0.3", 99).await.answer().await;
    refused.expect_problem(429, "cut-off");
    let crew = Crew::at_work(&servers, 3, Duration::ZERO);
    all_ready(customers).await;
    crew.go_home().await;
    servers.close().await;
}

#[tokio::test]
async fn a_customer_who_leaves_nginx_leaves_the_line_at_once_also_after_a_move() {
    let mut servers = Servers::open(&[]).await;
    let mut customers = servers.customers(0..20).await;
    servers.holds(20).await;
    servers.kill(0).await;
    servers.holds(20).await;
    for customer in customers.drain(..10) {
        customer.leave().await;
    }
    servers.holds(10).await;
    // Without a grace: far sooner than `orders.reconnect_grace`.
    servers.line_has(10).await;
    let crew = Crew::at_work(&servers, 3, Duration::ZERO);
    all_ready(customers).await;
    crew.go_home().await;
    servers.close().await;
}

#[tokio::test]
async fn a_reload_of_nginx_and_then_a_killed_server_cost_nothing() {
    let mut servers = Servers::open(&[]).await;
    let mut customers = servers.customers(0..GROUP / 2).await;
    servers.holds(GROUP / 2).await;
    servers.nginx.signal(Signal::HUP);
    customers.extend(servers.customers(GROUP / 2..GROUP).await);
    servers.holds(GROUP).await;
    let fuller = servers.fuller().await;
    servers.kill(fuller).await;
    let crew = Crew::at_work(&servers, 10, BREW);
    assert_in_order(&all_ready(customers).await);
    crew.go_home().await;
    servers.close().await;
}

#[tokio::test]
async fn baristas_who_wait_when_their_server_stops_or_is_killed_get_the_next_order() {
    let mut servers = Servers::open(&[]).await;
    for killed in [false, true] {
        // Through nginx; to whichever server.
        let waiting: Vec<_> = (0..6)
            .map(|_| servers.nginx.staff.hold(get("/start/?wait=50")))
            .collect();
        servers
            .shop(1)
            .until("all baristas are idle", |now| now.idle_baristas() == 6)
            .await;
        if killed {
            servers.kill(0).await;
        } else {
            servers.stop(0).await;
        }
        servers.start(0).await;
        let customers = servers.customers(0..6).await;
        let mut started = Vec::new();
        for barista in waiting {
            let answer = barista.answer().await;
            if answer.status == 200 {
                started.push(Started::of(&answer.json()));
            } else {
                assert_eq!(answer.status, 204, "{answer}");
            }
        }
        let crew = Crew::at_work(&servers, 2, Duration::ZERO);
        for order in started {
            let finish = post(format!("/finish/?order_id={}", order.id));
            servers.nginx.staff.ask(finish).await.expect(200);
        }
        all_ready(customers).await;
        crew.go_home().await;
    }
    servers.close().await;
}

#[tokio::test]
async fn a_key_names_one_order_at_both_servers_and_its_answer_is_replayed_at_either() {
    let servers = Servers::open(&[]).await;
    let keyed = |details: u32| {
        order()
            .key("one-order-at-two-servers")
            .json(&json!({"details": details}))
    };
    let first = servers.shop(0).customers.hold(keyed(1));
    servers.line_has(1).await;
    let second = servers.shop(1).customers.hold(keyed(1));
    servers.holds(2).await;
    let other = servers.shop(1).customers.ask(keyed(2)).await;
    other.expect_problem(422, "idempotency-key-reused");
    let started = Started::of(&servers.shop(1).pull("wait=0").await.expect(200));
    let finish = post(format!("/finish/?order_id={}", started.id)).json(&json!({"result": "hot"}));
    servers.shop(0).staff.ask(finish).await.expect(200);
    for visitor in [first, second] {
        assert_eq!(visitor.answer().await.expect(200)["result"], "hot");
    }
    for at in [0, 1] {
        let again = servers.shop(at).customers.ask(keyed(1)).await;
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
        assert_eq!(again.expect(200)["order_id"], started.id);
    }
    servers.close().await;
}

#[tokio::test]
async fn the_headers_of_a_proxy_count_only_from_a_trusted_one() {
    let servers = Servers::open(&[("flood.trusted_proxies", "127.9.9.9")]).await;
    let shop = servers.shop(0);
    let again = || {
        order()
            .header("Proxy-Request", "the-same")
            .header("Proxy-Resent", "1")
    };
    let [first, second] = [0, 1].map(|_| shop.customers.hold(again()));
    shop.until("each is an order of its own", |now| now.placed() == 2)
        .await;
    for _ in 0..2 {
        let started = shop.start().await;
        shop.finish(&started.id).await;
    }
    all_ready(vec![first, second]).await;
    servers.close().await;
}

#[tokio::test]
async fn a_request_that_a_proxy_sends_again_is_the_same_order_and_the_same_report() {
    let servers = Servers::open(&[]).await;
    let placing = || order().header("Proxy-Request", "customer-1");
    let first = servers.shop(0).customers.hold(placing());
    servers.line_has(1).await;
    let again = placing().header("Proxy-Resent", "1");
    let second = servers.shop(1).customers.hold(again);
    servers
        .shop(1)
        .until("the request is attached", |now| now.attached() == 1)
        .await;
    // The connection of the first try ends: it is not that of the customer any more.
    first.leave().await;
    servers.holds(1).await;
    let started = Started::of(&servers.shop(0).pull("wait=0").await.expect(200));
    assert!(started.customer_waiting);

    let path = format!("/finish/?order_id={}&attempt=1", started.id);
    for at in [1, 0] {
        let finish = post(path.clone()).header("Proxy-Request", "barista-1");
        let answer = servers.shop(at).staff.ask(finish).await.expect(200);
        assert_eq!(
            (&answer["delivered"], &answer["already"]),
            (&json!(true), &json!(false))
        );
    }
    let other = servers.shop(0).staff.ask(post(path)).await.expect(200);
    assert_eq!(other["already"], true);
    all_ready(vec![second]).await;
    servers.close().await;
}

#[tokio::test]
async fn a_customer_whose_proxy_sends_nothing_again_leaves_the_line_at_once() {
    let servers = Servers::open(&[]).await;
    let claimed = servers
        .shop(0)
        .customers
        .hold(order().header("Proxy-Request", "customer-2"));
    let keyed = servers
        .shop(0)
        .customers
        .hold(order().key("a-key-for-the-grace"));
    servers.line_has(2).await;
    claimed.leave().await;
    keyed.leave().await;
    // The order of the key has its grace.
    servers.line_has(1).await;
    let crew = Crew::at_work(&servers, 1, Duration::ZERO);
    servers.line_has(0).await;
    crew.go_home().await;
    servers.close().await;
}

#[tokio::test]
async fn the_last_server_serves_its_customers_before_it_ends() {
    let mut servers = Servers::open(&[]).await;
    servers.kill(1).await;
    let customers = servers.customers(0..3).await;
    servers.holds(3).await;
    let shop = servers.shop(0);
    shop.until("the other server does not count any more", |_| {
        shop.log().contains("a server of the line is silent")
    })
    .await;
    shop.signal(Signal::TERM);
    until("the server drains", async || {
        shop.log().contains("draining")
    })
    .await;
    shop.serve_on_one_connection(3).await;
    all_ready(customers).await;
    servers.ended_well(0).await;
}

#[tokio::test]
async fn while_redis_is_away_baristas_get_503_and_the_line_is_not_ready() {
    let mut servers = Servers::open(&[]).await;
    let customers = servers.customers(0..2).await;
    servers.holds(2).await;
    servers.redis.process.kill();
    let shop = servers.shop(0);
    let refused = shop.pull("wait=0").await;
    let problem = refused.expect_problem(503, "line-unavailable");
    assert_eq!(problem["retry_after_s"], 1);
    let unready = shop.staff.ask(get("/readyz/orders")).await;
    assert_eq!(unready.status, 503, "{unready}");
    // A barista who waits does so.
    let waiting = shop.staff.hold(get("/start/?wait=50"));
    servers.redis.start_again().await;
    let started = Started::of(&waiting.answer().await.expect(200));
    until("the report is accepted", async || {
        servers.shop(0).try_finish(&started.id, "").await.status == 200
    })
    .await;
    let crew = Crew::at_work(&servers, 1, Duration::ZERO);
    all_ready(customers).await;
    crew.go_home().await;
    servers.close().await;
}
