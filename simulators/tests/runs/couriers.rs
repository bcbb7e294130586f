//! Couriers and orders at a courier desk, well-behaved and otherwise.

use std::collections::BTreeSet;

use crate::{
    audit::{failed, finding},
    courier_desk::{Desk, Faults, Habit},
    program::{Ended, run},
};

/// Some orders for a few couriers, with a good deal of trouble.
async fn run_couriers(desk: &Desk, more: &[&str]) -> Ended {
    let mut arguments = vec![
        "couriers",
        &desk.staff,
        "--orders=300",
        "--duplicates=30%",
        "--seed=7",
        "--format=json",
    ];
    arguments.extend(more);
    run(&arguments).await
}

#[tokio::test]
async fn every_order_is_told_of_and_every_check_holds() {
    let desk = Desk::open(Faults::default()).await;
    let ended = run_couriers(&desk, &[]).await;
    let report = ended.report();
    assert_eq!(ended.code, Some(0), "{report}");
    let couriers = &report["couriers"];
    assert_eq!(failed(couriers), [""; 0]);

    let book = desk.book();
    assert_eq!((book.orders.len(), book.couriers.len()), (300, 16));
    assert_eq!(couriers["acknowledged"], book.log.len());
    let outcomes = &couriers["outcomes"];
    assert!(outcomes["parked"].as_u64().unwrap() >= 75, "{report}");
    assert!(outcomes["duplicate"].as_u64().unwrap() > 50, "{report}");
    assert!(outcomes["assigned"].as_u64().unwrap() > 100, "{report}");
    assert!(outcomes["updated"].as_u64().unwrap() >= 176, "{report}");
    assert!(book.singles > 5 && book.lists > 5, "{book:?}");
    assert!(book.connections >= 9, "{}", book.connections);
    // No courier is reported before a quarter of the orders is.
    let first = book
        .log
        .iter()
        .position(|line| line["outcome"] == "updated");
    let before = book.log[..first.unwrap()].iter();
    let orders: BTreeSet<_> = before
        .map(|line| line["event"]["orderId"].to_string())
        .collect();
    assert!(orders.len() >= 75, "{}", orders.len());
}

#[tokio::test]
async fn a_desk_with_a_past_and_one_that_is_busy_and_hangs_up_cost_nothing_but_time() {
    let faults = Faults {
        hangs_up_every: Some(5),
        is_busy_every: Some(7),
        ..Faults::default()
    };
    let desk = Desk::open(faults).await;
    for times in 1..=2 {
        let ended = run_couriers(&desk, &["--connections=20"]).await;
        let report = ended.report();
        assert_eq!(ended.code, Some(0), "{report}");
        let couriers = &report["couriers"];
        assert!(couriers["retries"].as_u64().unwrap() > 10, "{report}");
        assert_eq!(couriers["given_up"], 0);
        assert_eq!(desk.book().orders.len(), 300 * times);
    }
}

#[tokio::test]
async fn every_fault_of_a_desk_is_found_out() {
    let cases = [
        (Habit::ForgetsOrders, "answers name one courier"),
        (Habit::HasAFavourite, "the log comes to the same again"),
        (Habit::ForgetsTheParked, "nobody idle beside the parked"),
        (Habit::Miscounts, "counts are those of the orders"),
        (Habit::KeepsOldNames, "couriers as said last"),
        (Habit::ShortensLists, "both questions agree"),
        (Habit::LogsNoDuplicates, "what was told is in the log"),
        (Habit::HidesOutcomes, "outcomes fit their events"),
        (Habit::KnowsNothing, "orders given once, or parked"),
    ];
    for (habit, check) in cases {
        let faults = Faults {
            habit: Some(habit),
            ..Faults::default()
        };
        let desk = Desk::open(faults).await;
        let ended = run_couriers(&desk, &["--patience=0s"]).await;
        let report = ended.report();
        assert_eq!(ended.code, Some(1), "{habit:?} {report}");
        let couriers = &report["couriers"];
        let failed = failed(couriers);
        assert!(failed.contains(&check), "{habit:?} {failed:?}");
        assert!(finding(couriers, check).contains("wrong"), "{report}");
    }
}

#[tokio::test]
async fn the_same_seed_tells_the_same_in_another_shop() {
    let mut runs = Vec::new();
    for seed in ["--seed=1", "--seed=1", "--seed=2"] {
        let desk = Desk::open(Faults::default()).await;
        let ended = run_couriers(&desk, &[seed, "--connections=1"]).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stdout);
        let book = desk.book();
        let outcomes = book.log.iter().map(|line| {
            let (event, unparked) = (&line["event"], &line["unparked"]);
            format!("{} {} {unparked}", line["outcome"], event["zone"])
        });
        runs.push(outcomes.collect::<Vec<_>>());
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}

#[tokio::test]
async fn nobody_listening_is_told_at_once() {
    // Bound but not listening: no other process can take the port during the test.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let door = format!("--staff=http://{}", socket.local_addr().unwrap());
    let ended = run(&["couriers", &door]).await;
    assert_eq!(ended.code, Some(1));
    let words = "cannot read GET /couriers beforehand: connection refused";
    assert!(ended.stderr.contains(words), "{}", ended.stderr);
}
