//! Runs with a flooder, alone and among regulars.

use std::net::{IpAddr, Ipv4Addr};

use crate::{
    FAST, manners,
    program::{Ended, run},
    shop::{FloodControl, Manners, Shop},
    to_customers, to_staff,
};

const FLOODER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 66, 6));
const REGULARS: u64 = 60;
const ORDERS: u64 = 300;

/// A shop that admits ten orders of an address and cuts it off at the fifth refusal.
fn strict() -> Manners {
    Manners {
        flood_control: Some(FloodControl {
            held_max: 10,
            refused_max: 5,
        }),
        ..manners()
    }
}

/// A rush with a flood. One barista is far slower than the flooder, so there is always something to refuse.
async fn rush_with_flood(shop: &Shop, more: &[&str]) -> Ended {
    let (customers, staff) = (to_customers(shop), to_staff(shop));
    let mut arguments = vec![
        "rush",
        "--flood",
        "--flood-orders=300",
        &customers,
        &staff,
        FAST,
        "--count=1",
        "--group-min=60",
        "--group-max=60",
        "--spread=10m",
    ];
    arguments.extend(more);
    run(&arguments).await
}

#[tokio::test]
async fn regulars_among_a_flood_are_compared_with_themselves_without_it() {
    let shop = Shop::open(strict());
    let directory = tempfile::tempdir().unwrap();
    let picture = directory.path().join("rush.html");
    let report = format!("--report={}", picture.display());
    let ended = rush_with_flood(&shop, &["--format=json", &report]).await;
    let report = ended.report();
    assert_eq!(ended.code, Some(0), "{report}");

    let line = shop.line();
    let (flooders, regulars): (Vec<_>, Vec<_>) = line
        .guests
        .iter()
        .partition(|(address, _)| **address == FLOODER);
    assert_eq!(regulars.len() as u64, REGULARS);
    assert!(regulars.iter().all(|(_, guest)| guest.placed == 2));
    let flooder = flooders[0].1;

    assert_eq!(report["customers"]["by_status"]["200"], REGULARS);
    let comparison = &report["comparison"];
    assert_eq!(comparison["without_flood"]["by_status"]["200"], REGULARS);
    assert!(comparison["waits"]["ratios"]["p50"].as_f64().unwrap() > 0.0);
    let after = comparison["waits_after_cut_off"]["regulars"].as_u64();
    assert!(after.unwrap() < REGULARS, "{report}");
    assert!(
        comparison["cut_off"]["measured_s"].as_f64()
            > comparison["flood_came"]["measured_s"].as_f64()
    );

    let deeds = &report["flooder"];
    assert_eq!(deeds["sent"], flooder.placed);
    assert_eq!(deeds["cut_off"]["refused_by_shop"], flooder.refused);
    assert_eq!(
        deeds["cut_off"]["until"],
        flooder.cut_off_until.unwrap().to_string()
    );
    assert_eq!(deeds["coffees"]["started_after_cut_off"], 0);

    let picture = std::fs::read_to_string(picture).unwrap();
    let marks = picture.matches("class=\"customer served\"").count();
    assert_eq!(marks as u64, 2 * REGULARS);
    assert!(picture.contains("the flooder is cut off"));
}

#[tokio::test]
async fn a_flooder_who_is_not_cut_off_fails_the_rush_however_well_the_regulars_fare() {
    let lenient = Shop::open(Manners {
        flood_control: Some(FloodControl {
            held_max: 10,
            refused_max: u64::MAX,
        }),
        ..manners()
    });
    let ended = rush_with_flood(&lenient, &[]).await;
    assert_eq!(ended.code, Some(1));
    for words in [
        "Every regular got a 200 (60 of 60).",
        "The flooder was only refused from ",
    ] {
        assert!(ended.stdout.contains(words), "{}", ended.stdout);
    }

    let careless = Shop::open(manners());
    let ended = rush_with_flood(&careless, &["--flood-orders=20"]).await;
    assert_eq!(ended.code, Some(1));
    let words = "Whether the flooder was cut off cannot be told, GET /flood: 404 Not Found.";
    assert!(ended.stdout.contains(words), "{}", ended.stdout);
}

#[tokio::test]
async fn a_regular_refused_in_the_run_without_the_flood_fails_the_rush_too() {
    let shop = Shop::open(Manners {
        refuses: Some(7),
        ..strict()
    });
    let ended = rush_with_flood(&shop, &[]).await;
    assert_eq!(ended.code, Some(1));
    let words = "Without the flood 1 of 60 did not.";
    assert!(ended.stdout.contains(words), "{}", ended.stdout);
}

#[tokio::test]
async fn a_flooder_who_is_still_cut_off_from_before_is_let_in_first() {
    let shop = Shop::open(strict());
    for let_in_before in [0, 1] {
        let ended = rush_with_flood(&shop, &[]).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stdout);
        assert_eq!(shop.line().guests[&FLOODER].let_in, let_in_before);
    }
}

/// A flood of an unattended shop.
async fn flood(shop: &Shop, more: &[&str]) -> Ended {
    let customers = to_customers(shop);
    let mut arguments = vec!["flood", &customers, "--orders=300", "--format=json"];
    arguments.extend(more);
    run(&arguments).await
}

#[tokio::test]
async fn a_flooder_who_is_cut_off_has_done_what_he_could() {
    let shop = Shop::open(strict());
    let ended = flood(&shop, &[&to_staff(&shop)]).await;
    let report = ended.report();
    assert_eq!(ended.code, Some(0), "{report}");
    let deeds = &report["flooder"];
    assert_eq!(deeds["by_status"]["429"], ORDERS);
    assert_eq!(deeds["coffees"]["served"], 0);
    assert!(deeds["cut_off"]["after_s"].is_f64(), "{report}");
    assert!(deeds["only_refused_after_s"].is_f64(), "{report}");
    assert_eq!(report["seed"], serde_json::Value::Null);
    let line = shop.line();
    assert_eq!(line.guests[&FLOODER].placed, ORDERS);
    assert_eq!(line.customer_connections, ORDERS);
}

#[tokio::test]
async fn kept_connections_carry_one_order_after_the_other() {
    let shop = Shop::open(strict());
    let more = ["--connections=kept", "--at-once=30", "--from=127.0.66.7"];
    let ended = flood(&shop, &more).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
    assert_eq!(ended.report()["flooder"]["by_status"]["429"], ORDERS);
    let line = shop.line();
    assert_eq!(line.customer_connections, 30);
    let address: IpAddr = "127.0.66.7".parse().unwrap();
    assert_eq!(line.guests[&address].placed, ORDERS);
}

#[tokio::test]
async fn slow_floods_arrive_in_the_end() {
    for manner in ["slow-header", "slow-body", "slow-read"] {
        let shop = Shop::open(strict());
        let manner = format!("--manner={manner}");
        let ended = flood(&shop, &[&manner, "--pause=0s", "--orders=20"]).await;
        assert_eq!(ended.code, Some(0), "{manner} {}", ended.stdout);
        assert_eq!(ended.report()["flooder"]["by_status"]["429"], 20);
    }
}

#[tokio::test]
async fn a_flood_ends_after_its_time_and_leaves_the_line() {
    let shop = Shop::open(manners());
    let ended = flood(&shop, &["--for=50ms"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
    let deeds = &ended.report()["flooder"];
    assert_eq!(deeds["unanswered"], deeds["sent"]);
    shop.until(|line| line.waiting.is_empty()).await;
}

#[tokio::test]
async fn a_flood_of_a_closed_shop_fails() {
    // Bound but not listening: no other process can take the port during the test.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let door = format!("--customers=http://{}", socket.local_addr().unwrap());
    let ended = run(&["flood", &door, "--orders=10"]).await;
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stdout.contains("connection refused"),
        "{}",
        ended.stdout
    );
    assert!(ended.stdout.contains("The shop never answered."));
}
