//! Customers, baristas, a rush without and with a flood, and a flooder.

use serde_json::{Value, json};
use simulators::Env;
use testkit::until;

use super::{Does, Rule, simulate, simulate_behind, simulate_until};
use crate::client::order;
use crate::shop::Shop;

const ORDER: (&str, &str) = ("POST", "/order/");
const START: (&str, &str) = ("GET", "/start/");
const FINISH: (&str, &str) = ("POST", "/finish/");
const FLOOD: (&str, &str) = ("GET", "/flood");

const ALL_SERVED: &str = "every customer served";

/// Two groups of five, a minute apart, at a thousandfold speed. Two baristas need 3 s for the last of each.
pub(super) const RUSH: [&str; 9] = [
    "rush",
    "--groups=2",
    "--group-min=5",
    "--group-max=5",
    "--arrival=steady",
    "--every=1m",
    "--speed=1000",
    "--count=2",
    "--seed=1",
];

/// Soon enough that an order whose barista is lost is brewed again within a test.
const LEASE: (&str, &str) = ("orders.lease", "1s");

fn with<'a>(arguments: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [arguments, more].concat()
}

#[tokio::test]
async fn a_rush_serves_every_customer_in_turn_and_draws_it() {
    let shop = Shop::open(&[]).await;
    let page = shop.dir.path().join("pages/rush.html");
    let directory = format!("--report-dir={}", shop.dir.path().join("pages").display());
    for more in [&["--spread=30s", &directory][..], &["--next"]] {
        let outcome = simulate(&shop, &with(&RUSH, more)).await;
        assert!(outcome.ok(), "{outcome}");
        let json = outcome.json();
        assert_eq!(json["customers"]["by_status"], json!({ "200": 10 }));
        assert_eq!(json["customers"]["out_of_turn"], 0);
        assert_eq!(json["baristas"]["finished"], 10);
    }
    let page = std::fs::read_to_string(page).unwrap();
    assert_eq!(page.matches("class=\"mark-of served\"").count(), 10);
    for reference in ["http:", "src=", "href=", "@import", "url(", "<script"] {
        assert!(!page.contains(reference), "{reference}");
    }
    shop.close().await;
}

#[tokio::test]
async fn a_customer_without_a_200_fails_the_rush() {
    let shop = Shop::open(&[]).await;
    for does in [Does::Drop, Does::Status(503), Does::Status(202)] {
        let rule = Rule {
            route: ORDER,
            nth: 3,
            does,
        };
        let outcome = simulate_behind(&shop, rule, &RUSH).await;
        assert_eq!(outcome.failed(), [ALL_SERVED], "{does:?}: {outcome}");
        let served = &outcome.json()["customers"]["by_status"]["200"];
        assert_eq!(*served, 9, "{does:?}: {outcome}");
        let verdict = "1 of 10 customers did not get a 200.";
        assert!(outcome.to_string().contains(verdict), "{outcome}");
    }
    shop.close().await;
}

/// What happens to a barista costs no customer a coffee. The figure at the pointer shows that it happened.
#[tokio::test]
async fn a_barista_who_loses_an_answer_costs_no_customer_the_coffee() {
    let shop = Shop::open(&[LEASE]).await;
    let unknown = |_: &Value| json!("01900000-0000-7000-8000-000000000000");
    for (route, does, pointer) in [
        (FINISH, Does::Drop, "/baristas/already_finished"),
        (FINISH, Does::Repeat, "/baristas/already_finished"),
        (FINISH, Does::Status(503), "/baristas/unexpected_status/503"),
        (START, Does::Status(500), "/baristas/unexpected_status/500"),
        (
            START,
            Does::Alter("/order_id", unknown),
            "/baristas/not_finished",
        ),
        (START, Does::Drop, "/baristas/by_transport_error"),
    ] {
        let rule = Rule {
            route,
            nth: 2,
            does,
        };
        let outcome = simulate_behind(&shop, rule, &RUSH).await;
        assert!(outcome.ok(), "{rule:?}: {outcome}");
        let json = outcome.json();
        let found = json.pointer(pointer).unwrap();
        assert!(*found == 1 || found.is_object(), "{rule:?}: {outcome}");
    }
    shop.close().await;
}

#[tokio::test]
async fn a_customer_served_out_of_turn_is_reported() {
    let shop = Shop::open(&[]).await;
    let rule = Rule {
        route: ORDER,
        nth: 1,
        does: Does::Alter("/started_at", |_| json!("2100-01-01T00:00:00Z")),
    };
    let outcome = simulate_behind(&shop, rule, &RUSH).await;
    assert!(outcome.ok(), "{outcome}");
    assert_ne!(outcome.json()["customers"]["out_of_turn"], 0, "{outcome}");
    shop.close().await;
}

#[tokio::test]
async fn a_flooded_rush_compares_both_runs_and_each_can_fail() {
    let shop = Shop::open(&[]).await;
    let flooded = with(&RUSH, &["--flood", "--flood-orders=600", "--brew-max=30s"]);
    let outcome = simulate(&shop, &flooded).await;
    assert!(outcome.ok(), "{outcome}");
    let json = outcome.json();
    assert_eq!(json["comparison"]["without_flood"]["served"], 10);
    assert!(json["flooder"]["by_status"]["429"].as_u64().unwrap() > 0);
    assert!(json["flooder"]["cut_off"]["after_s"].is_number(), "{json}");
    for (route, nth, does, failed) in [
        (
            ORDER,
            2,
            Does::Drop,
            "every customer served without the flood",
        ),
        (
            FLOOD,
            0,
            Does::Alter("/cut_off", |_| json!([])),
            "flooder cut off",
        ),
        (FLOOD, 0, Does::Status(404), "flooder cut off"),
    ] {
        let rule = Rule { route, nth, does };
        let outcome = simulate_behind(&shop, rule, &flooded).await;
        assert_eq!(outcome.failed(), [failed], "{rule:?}: {outcome}");
    }
    shop.close().await;
}

#[tokio::test]
async fn a_flooder_reports_when_it_is_refused_and_when_it_is_cut_off() {
    let shop = Shop::open(&[]).await;
    let flood = ["flood", "--orders=600", "--for=2s"];
    let outcome = simulate(&shop, &flood).await;
    assert!(outcome.ok(), "{outcome}");
    let flooder = &outcome.json()["flooder"];
    let refused = flooder["by_status"]["429"].as_u64().unwrap();
    assert_eq!(refused + flooder["unanswered"].as_u64().unwrap(), 600);
    assert!(flooder["first_429_after_s"].is_number(), "{flooder}");
    assert!(flooder["cut_off"]["until"].is_string(), "{flooder}");
    let rule = Rule {
        route: FLOOD,
        nth: 0,
        does: Does::Status(404),
    };
    let other = with(&flood, &["--from=127.0.66.7"]);
    let outcome = simulate_behind(&shop, rule, &other).await;
    let json = outcome.json();
    assert_eq!(json["flooder"]["list_unreadable"], "404 Not Found");
    shop.close().await;
}

#[tokio::test]
async fn a_flooder_of_any_manner_reaches_the_server() {
    let shop = Shop::open(&[]).await;
    for manner in [
        &["--manner=slow-header", "--pause=1ms"][..],
        &["--manner=slow-body", "--pause=1ms"],
        &["--manner=slow-read", "--pause=1ms"],
        &["--connections=kept"],
    ] {
        let few = ["flood", "--orders=5", "--for=1s", "--from=127.0.66.8"];
        let outcome = simulate(&shop, &with(&few, manner)).await;
        assert!(outcome.ok(), "{outcome}");
        assert_eq!(outcome.json()["flooder"]["sent"], 5, "{outcome}");
    }
    shop.close().await;
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_fails_each_run() {
    let closed = format!("http://127.0.0.1:{}", testkit::free_port());
    let [customers, staff] = ["customers", "staff"].map(|option| format!("--{option}={closed}"));
    for (arguments, failed) in [
        (
            &["customers", "--group-max=100", &customers][..],
            ALL_SERVED,
        ),
        (&["baristas", "--for=100ms", &staff], "shop reached"),
        (&["flood", "--orders=10", &customers], "shop reached"),
    ] {
        let outcome = simulators::run(arguments, Env::quiet()).await.unwrap();
        assert_eq!(outcome.failed(), [failed], "{outcome}");
    }
}

#[tokio::test]
async fn a_shift_serves_the_customers_who_are_there_and_then_is_over() {
    let shop = Shop::open(&[]).await;
    let baristas = async { simulate(&shop, &["baristas", "--speed=1000", "--idle-for=10m"]).await };
    let group = ["--group-min=7", "--group-max=7", "--arrival=at-once"];
    let customers = async { simulate(&shop, &with(&["customers"], &group)).await };
    let (customers, baristas) = tokio::join!(customers, baristas);
    assert!(customers.ok() && baristas.ok(), "{customers}\n{baristas}");
    assert_eq!(customers.json()["customers"]["served"], 7);
    assert_eq!(baristas.json()["baristas"]["finished"], 7);
    shop.close().await;
}

#[tokio::test]
async fn customers_who_are_stopped_leave_and_baristas_give_back_what_they_brew() {
    let shop = Shop::open(&[]).await;
    let customer = shop.customers.hold(order());
    let baristas = Env::quiet();
    let customers = Env::quiet();
    let [stop_baristas, stop_customers] = [&baristas, &customers].map(|env| env.closing.clone());
    let brewing = simulate_until(&shop, baristas, &["baristas", "--count=1"]);
    let waiting = ["customers", "--group-min=4", "--group-max=4"];
    let waiting = simulate_until(&shop, customers, &waiting);
    let stopping = async {
        let all = async || shop.metrics().await.placed() == 5;
        until("all orders are placed", all).await;
        let taken = async || shop.metrics().await.idle_baristas() == 0;
        until("the barista has taken one", taken).await;
        stop_customers.cancel();
        stop_baristas.cancel();
    };
    let (brewing, waiting, ()) = tokio::join!(brewing, waiting, stopping);
    assert_eq!(waiting.failed(), [ALL_SERVED], "{waiting}");
    assert_eq!(waiting.json()["customers"]["unanswered"], 4);
    let baristas = &brewing.json()["baristas"];
    assert_eq!(baristas["given_back"], 1, "{brewing}");
    customer.leave().await;
    shop.close().await;
}
