//! The real program against a small shop and small delivery, package, assignment and courier desks, over real
//! sockets.
//!
//! Nothing here waits for a length of time: tests wait for what was seen on the other side, or for the program's end.
#![expect(
    clippy::unwrap_used,
    reason = "a test says what went wrong by panicking, in its helpers too"
)]

mod assignments;
mod audit;
mod courier_desk;
mod couriers;
mod day;
mod deliveries;
mod drones;
mod floods;
mod packages;
mod program;
mod senders;
mod server;
mod shop;

use program::{run, start};
use shop::{Manners, Shop};

/// A polite shop with a fault or two.
fn manners() -> Manners {
    Manners::default()
}

/// Brewing takes 3 to 6 ms at this speed.
const FAST: &str = "--speed=10000";

fn to_customers(shop: &Shop) -> String {
    format!("--customers={}", shop.customers)
}

fn to_staff(shop: &Shop) -> String {
    format!("--staff={}", shop.staff)
}

#[tokio::test]
async fn a_rush_serves_two_whole_groups_in_turn_and_draws_everybody() {
    let shop = Shop::open(manners());
    let directory = tempfile::tempdir().unwrap();
    let report_dir = directory.path().join("made/by/the/run");
    let ended = run(&[
        "rush",
        &to_customers(&shop),
        &to_staff(&shop),
        FAST,
        "--groups=2",
        "--every=30s",
        "--seed=7",
        "--format=json",
        &format!("--report-dir={}", report_dir.display()),
    ])
    .await;
    let report = ended.report();
    assert_eq!(ended.code, Some(0), "{report}");

    let line = shop.line();
    assert!((200..=400).contains(&line.placed), "{}", line.placed);
    assert_eq!(report["customers"]["by_status"]["200"], line.placed);
    assert_eq!(
        report["customers"]["by_transport_error"],
        serde_json::json!({})
    );
    assert_eq!(report["baristas"]["finished"], line.placed);
    assert_eq!(report["customers"]["out_of_turn"], 0);
    assert!(line.started.is_sorted(), "{:?}", line.started);
    assert_eq!(line.customer_connections, line.placed);
    assert_eq!(line.customers.len() as u64, line.placed);
    assert!((1..=10).contains(&line.baristas.len()));
    assert!(
        line.baristas
            .iter()
            .all(|name| name.starts_with("barista-"))
    );

    let picture = std::fs::read_to_string(report_dir.join("rush.html")).unwrap();
    let marks = picture.matches("class=\"customer served\"").count();
    assert_eq!(marks as u64, line.placed);
    assert!(picture.contains("group 2"));
}

#[tokio::test]
async fn the_same_seed_sends_the_same_crowd() {
    let mut crowds = Vec::new();
    for seed in ["--seed=1", "--seed=1", "--seed=2"] {
        let shop = Shop::open(manners());
        let ended = run(&["rush", &to_customers(&shop), &to_staff(&shop), FAST, seed]).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stdout);
        crowds.push(shop.line().placed);
    }
    assert_eq!(crowds[0], crowds[1]);
    assert_ne!(crowds[0], crowds[2]);
}

#[tokio::test]
async fn customers_come_from_the_addresses_of_a_network_in_turn() {
    let shop = Shop::open(manners());
    let ended = rush_of_twenty(&shop, &["--from=127.0.1.0/28"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
    let line = shop.line();
    let placed: Vec<_> = line.guests.values().map(|guest| guest.placed).collect();
    assert_eq!(placed, [[2; 6].as_slice(), &[1; 8]].concat());
    let first = line.guests.keys().next().unwrap();
    assert_eq!(first.to_string(), "127.0.1.1");
}

/// A rush of twenty against this shop.
async fn rush_of_twenty(shop: &Shop, more: &[&str]) -> program::Ended {
    let (customers, staff) = (to_customers(shop), to_staff(shop));
    let mut arguments = vec![
        "rush",
        &customers,
        &staff,
        FAST,
        "--group-min=20",
        "--group-max=20",
    ];
    arguments.extend(more);
    run(&arguments).await
}

#[tokio::test]
async fn one_customer_refused_is_named_and_fails_the_run() {
    let shop = Shop::open(Manners {
        refuses: Some(5),
        ..manners()
    });
    let ended = rush_of_twenty(&shop, &[]).await;
    assert_eq!(ended.code, Some(1));
    let words: Vec<_> = ended.stdout.split_whitespace().collect();
    let text = words.join(" ");
    assert!(
        text.contains("200 OK 19 503 Service Unavailable 1"),
        "{text}"
    );
    assert!(
        text.contains("1 of 20 customers did not get a 200."),
        "{text}"
    );
}

#[tokio::test]
async fn one_connection_dropped_is_named_and_fails_the_run() {
    let shop = Shop::open(Manners {
        hangs_up_on: Some(20),
        ..manners()
    });
    let ended = rush_of_twenty(&shop, &["--format=json"]).await;
    assert_eq!(ended.code, Some(1));
    let customers = &ended.report()["customers"];
    assert_eq!(customers["by_status"]["200"], 19);
    assert_eq!(
        customers["by_transport_error"]["connection closed before the answer"],
        1
    );
}

#[tokio::test]
async fn a_shop_that_serves_the_newest_first_is_found_out() {
    let shop = Shop::open(Manners {
        newest_first: true,
        opens_after: 20,
        ..manners()
    });
    let ended = rush_of_twenty(&shop, &["--count=1", "--format=json"]).await;
    assert_eq!(ended.code, Some(0));
    let out_of_turn = ended.report()["customers"]["out_of_turn"].as_u64().unwrap();
    assert!(out_of_turn >= 10, "{out_of_turn}");
}

#[tokio::test]
async fn a_finish_whose_answer_was_lost_is_reported_again() {
    for next in [false, true] {
        let shop = Shop::open(Manners {
            loses_the_answer_to_the_finish_of: Some(3),
            ..manners()
        });
        let more: &[&str] = if next {
            &["--format=json", "--next"]
        } else {
            &["--format=json"]
        };
        let ended = rush_of_twenty(&shop, more).await;
        let report = ended.report();
        assert_eq!(ended.code, Some(0), "{report}");
        assert_eq!(report["baristas"]["finished"], 20);
        assert_eq!(
            report["baristas"]["by_transport_error"]["connection closed before the answer"],
            1
        );
    }
}

#[tokio::test]
async fn next_takes_the_orders_with_the_finishes() {
    let shop = Shop::open(manners());
    let ended = rush_of_twenty(&shop, &["--count=2", "--next", "--format=json"]).await;
    let report = ended.report();
    assert_eq!(ended.code, Some(0), "{report}");
    assert_eq!(report["baristas"]["started"], 20);
    assert_eq!(report["baristas"]["finished"], 20);
    assert!(shop.line().start_calls <= 2, "{}", shop.line().start_calls);
}

#[tokio::test]
async fn baristas_whose_connection_is_closed_each_time_connect_anew() {
    let shop = Shop::open(Manners {
        closes_staff_connections: true,
        ..manners()
    });
    let ended = rush_of_twenty(&shop, &["--format=json"]).await;
    let report = ended.report();
    assert_eq!(ended.code, Some(0), "{report}");
    assert_eq!(report["baristas"]["finished"], 20);
    assert_eq!(
        report["baristas"]["by_transport_error"],
        serde_json::json!({})
    );
}

#[tokio::test]
async fn customers_and_baristas_work_as_two_programs() {
    let shop = Shop::open(manners());
    let customers = start(&["customers", &to_customers(&shop), FAST, "--format=json"]);
    let baristas = start(&["baristas", &to_staff(&shop), FAST, "--format=json"]);
    let customers = customers.end().await;
    baristas.interrupt();
    let baristas = baristas.end().await;
    let (crowd, crew) = (customers.report(), baristas.report());
    assert_eq!(
        (customers.code, baristas.code),
        (Some(0), Some(0)),
        "{crowd} {crew}"
    );
    assert_eq!(crowd["customers"]["served"], shop.line().placed);
    assert_eq!(crew["baristas"]["finished"], shop.line().placed);
}

#[tokio::test]
async fn baristas_without_work_go_home() {
    let shop = Shop::open(manners());
    for end in ["--idle-for=1m", "--for=1m"] {
        let ended = run(&["baristas", &to_staff(&shop), FAST, end]).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stdout);
        assert!(
            ended.stdout.contains("The shift is over."),
            "{}",
            ended.stdout
        );
    }
}

#[tokio::test]
async fn customers_stopped_while_waiting_are_unanswered_and_leave_the_line() {
    let shop = Shop::open(manners());
    let customers = start(&[
        "customers",
        &to_customers(&shop),
        "--group-min=30",
        "--group-max=30",
        "--groups=2",
        "--arrival=steady",
        "--every=24h",
        "--format=json",
    ]);
    shop.until(|line| line.waiting.len() == 30).await;
    customers.interrupt();
    let ended = customers.end().await;
    assert_eq!(ended.code, Some(1));
    let report = ended.report();
    assert_eq!(report["customers"]["unanswered"], 30, "{report}");
    assert_eq!(report["customers"]["not_arrived"], 30, "{report}");
    shop.until(|line| line.waiting.is_empty()).await;
}

#[tokio::test]
async fn baristas_stopped_while_brewing_give_their_orders_back() {
    let shop = Shop::open(manners());
    let door = to_customers(&shop);
    let customers = start(&["customers", &door, "--group-min=3", "--group-max=3"]);
    shop.until(|line| line.waiting.len() == 3).await;
    let hour = ["--brew-min=1h", "--brew-max=1h"];
    let baristas = start(&[
        "baristas",
        &to_staff(&shop),
        "--count=2",
        hour[0],
        hour[1],
        "--format=json",
    ]);
    shop.until(|line| line.brewing.len() == 2).await;
    baristas.interrupt();
    let ended = baristas.end().await;
    assert_eq!(ended.code, Some(0));
    // The shop knows when it has handed an order over, not when the barista has read that; an order that was
    // still on its way stays with the shop's lease.
    let line = shop.line();
    assert_eq!(ended.report()["baristas"]["given_back"], line.released);
    assert_eq!(line.released + line.brewing.len() as u64, 2);
    assert_eq!(line.waiting.len() + line.brewing.len(), 3);
    drop(line);
    customers.interrupt();
    assert_eq!(customers.end().await.code, Some(1));
}

#[tokio::test]
async fn nobody_listening_is_a_transport_error_for_each() {
    // Bound but not listening: no other process can take the port during the test.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let closed = format!("http://{}", socket.local_addr().unwrap());
    let group = ["--group-min=4", "--group-max=4"];
    let door = format!("--customers={closed}");
    let ended = run(&["customers", &door, group[0], group[1], "--format=json"]).await;
    assert_eq!(ended.code, Some(1));
    let errors = &ended.report()["customers"]["by_transport_error"];
    assert_eq!(errors["connection refused"], 4);

    let ended = run(&["baristas", &format!("--staff={closed}"), "--for=100ms"]).await;
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stdout.contains("The shop never answered."),
        "{}",
        ended.stdout
    );
}

#[tokio::test]
async fn wrong_usage_is_told_from_an_unhappy_customer() {
    for arguments in [
        &["rush", "--group-min=9", "--group-max=8"][..],
        &["customers", "--speed=0"],
        &["flood", "--from=::1"],
        &["flood", "--connections=kept", "--manner=slow-read"],
        &["rush", "--flood-orders=5"],
        &["drones", "--missions=5", "--keep-flying"],
        &["drones", "--crashes=5"],
        &["senders", "--recipients=0"],
        &["couriers", "--connections=1001"],
        &["rush", "--flood", "--flood-from=127.1.2.3"],
        &["open"],
        &[],
    ] {
        let ended = run(arguments).await;
        assert_eq!(ended.code, Some(2), "{arguments:?}");
        assert!(ended.stderr.contains("help"), "{}", ended.stderr);
        assert_eq!(ended.stdout, "", "{arguments:?}");
    }
}

#[tokio::test]
async fn a_picture_that_cannot_be_written_is_told_before_anybody_comes() {
    let shop = Shop::open(manners());
    let ended = run(&[
        "customers",
        &to_customers(&shop),
        "--report=/nowhere/picture.html",
    ])
    .await;
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("cannot write /nowhere/picture.html"),
        "{}",
        ended.stderr
    );
    assert_eq!(shop.line().placed, 0);
}
