//! Drones against a delivery desk, well-behaved and otherwise.

use std::time::Duration;

use serde_json::Value;

use crate::{
    audit,
    deliveries::{Desk, Faults},
    program::{Ended, run, start},
};

/// Twenty missions, as fast as the desk answers, nothing sent twice unless asked for.
async fn fly(desk: &Desk, more: &[&str]) -> Ended {
    let mut arguments = vec![
        "drones",
        &desk.staff,
        "--missions=20",
        "--fleet=4",
        "--leg=0s",
        "--duplicates=0%",
        "--seed=7",
        "--format=json",
    ];
    arguments.extend(more);
    run(&arguments).await
}

/// The checks that failed.
fn failed(report: &Value) -> Vec<&str> {
    audit::failed(&report["drones"])
}

/// The figures behind a check.
fn finding<'a>(report: &'a Value, name: &str) -> &'a str {
    audit::finding(&report["drones"], name)
}

#[tokio::test]
async fn every_mission_is_flown_and_every_check_holds() {
    let desk = Desk::open(Faults::default()).await;
    let ended = fly(&desk, &["--duplicates=30%", "--crashes=30%"]).await;
    let report = ended.report();
    assert_eq!(ended.code, Some(0), "{report}");
    assert_eq!(failed(&report), [""; 0]);

    let book = desk.book();
    let drones = &report["drones"];
    assert_eq!(book.deliveries.len(), 20);
    assert_eq!(book.ongoing(), 0);
    let (delivered, crashed) = (
        &drones["missions"]["delivered"],
        &drones["missions"]["crashed"],
    );
    assert_eq!(delivered.as_u64().unwrap() + crashed.as_u64().unwrap(), 20);
    assert!(crashed.as_u64().unwrap() > 0, "{report}");
    let events = book
        .deliveries
        .values()
        .map(|delivery| delivery.events.len());
    let events = events.sum::<usize>() as u64;
    assert_eq!(drones["events"]["acknowledged"], events);
    let repeated = book.repeated().len() as u64;
    assert!(repeated > 0);
    assert_eq!(drones["events"]["duplicates"], repeated);
    assert_eq!(drones["by_status"]["201"], book.posts);
    assert_eq!(book.posts, events + repeated);
    assert!(drones["latencies"]["p99"]["measured_s"].as_f64().unwrap() > 0.0);
    // A drone each, the counts beforehand, and the comparison afterwards.
    assert_eq!(book.connections, 4 + 2);
}

#[tokio::test]
async fn a_second_run_with_the_same_seed_is_other_deliveries_on_the_same_desk() {
    let desk = Desk::open(Faults::default()).await;
    for missions in [20, 40] {
        let ended = fly(&desk, &[]).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stdout);
        assert_eq!(desk.book().deliveries.len(), missions);
    }
}

#[tokio::test]
async fn the_report_in_text_names_checks_with_their_figures() {
    let desk = Desk::open(Faults::default()).await;
    let ended = fly(&desk, &["--format=text"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
    let words: Vec<_> = ended.stdout.split_whitespace().collect();
    let text = words.join(" ");
    for words in [
        "begun 20 ",
        "total of deliveries ok 0 to 20: +20, expected +20",
        "ongoing deliveries ok 0 to 0: +0, expected +0",
        "histories of the last missions ok 20 right",
        "Every event was acknowledged and every check holds (",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[tokio::test]
async fn an_acknowledged_event_that_is_lost_is_found_out() {
    let desk = Desk::open(Faults {
        loses: Some(30),
        ..Faults::default()
    })
    .await;
    let ended = fly(&desk, &["--format=text"]).await;
    assert_eq!(ended.code, Some(1));
    let words = "FAILED: histories of the last missions.";
    assert!(ended.stdout.contains(words), "{}", ended.stdout);
    assert!(ended.stdout.contains("1 of 20 wrong; first drone-"));
}

#[tokio::test]
async fn an_event_whose_answer_was_lost_is_sent_again_and_is_a_replay() {
    let desk = Desk::open(Faults {
        hangs_up_after: Some(30),
        ..Faults::default()
    })
    .await;
    let ended = fly(&desk, &[]).await;
    let report = ended.report();
    assert_eq!(ended.code, Some(0), "{report}");
    let drones = &report["drones"];
    assert_eq!(drones["events"]["retries"], 1);
    assert_eq!(drones["events"]["replays"], 1);
    let errors = &drones["by_transport_error"];
    assert_eq!(errors["connection closed before the answer"], 1);
    assert_eq!(desk.book().repeated().len(), 1);
}

#[tokio::test]
async fn a_desk_that_is_down_for_a_while_costs_nothing_but_retries() {
    let desk = Desk::open(Faults {
        is_down_for: Some(20..=31),
        ..Faults::default()
    })
    .await;
    let ended = fly(&desk, &[]).await;
    let report = ended.report();
    assert_eq!(ended.code, Some(0), "{report}");
    assert_eq!(report["drones"]["events"]["retries"], 12);
    assert_eq!(report["drones"]["events"]["replays"], 0);
}

#[tokio::test]
async fn a_busy_desk_is_given_the_time_that_it_asks_for() {
    let desk = Desk::open(Faults {
        is_busy_at: Some((10, 1)),
        ..Faults::default()
    })
    .await;
    let ended = fly(&desk, &[]).await;
    let report = ended.report();
    assert_eq!(ended.code, Some(0), "{report}");
    assert_eq!(report["drones"]["by_status"]["503"], 1);
    let book = desk.book();
    let repeated = book.repeated();
    let [key] = repeated.iter().collect::<Vec<_>>()[..] else {
        panic!("one event was sent twice: {repeated:?}")
    };
    let times = &book.arrivals[*key];
    assert!(times[1] - times[0] >= Duration::from_secs(1), "{times:?}");
}

#[tokio::test]
async fn a_desk_that_asks_for_more_than_the_patience_is_given_up_at_once() {
    let desk = Desk::open(Faults {
        is_busy_at: Some((1, 3600)),
        ..Faults::default()
    })
    .await;
    let ended = fly(&desk, &[]).await;
    let report = ended.report();
    assert_eq!(ended.code, Some(1));
    assert_eq!(failed(&report), ["every event acknowledged"]);
    assert_eq!(report["drones"]["events"]["retries"], 0);
    assert_eq!(report["drones"]["missions"]["begun"], 19);
}

#[tokio::test]
async fn wrong_counts_fail_unless_they_are_not_compared() {
    let desk = Desk::open(Faults {
        miscounts: true,
        ..Faults::default()
    })
    .await;
    let ended = fly(&desk, &[]).await;
    let report = ended.report();
    assert_eq!(ended.code, Some(1));
    assert_eq!(failed(&report), ["total of deliveries"]);
    assert_eq!(
        finding(&report, "total of deliveries"),
        "0 to 19: +19, expected +20"
    );
    let ended = fly(&desk, &["--shared"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
}

#[tokio::test]
async fn an_event_of_unknown_fate_widens_the_counts_by_one_and_fails_the_run() {
    let desk = Desk::open(Faults {
        hangs_up_after: Some(1),
        ..Faults::default()
    })
    .await;
    let ended = fly(&desk, &["--patience=0s"]).await;
    let report = ended.report();
    assert_eq!(ended.code, Some(1));
    assert_eq!(failed(&report), ["every event acknowledged"]);
    assert_eq!(report["drones"]["events"]["fate_unknown"], 1);
    assert_eq!(
        finding(&report, "total of deliveries"),
        "0 to 20: +20, expected +19 to +20 (1 of unknown fate)"
    );
    assert_eq!(
        finding(&report, "ongoing deliveries"),
        "0 to 1: +1, expected +0 to +1 (1 of unknown fate)"
    );
}

#[tokio::test]
async fn a_refused_event_ends_its_mission_and_is_told_with_the_reason() {
    let desk = Desk::open(Faults {
        refuses: Some(2),
        ..Faults::default()
    })
    .await;
    let ended = fly(&desk, &["--fleet=1"]).await;
    let report = ended.report();
    assert_eq!(ended.code, Some(1));
    assert_eq!(failed(&report), ["every event acknowledged"]);
    let finding = finding(&report, "every event acknowledged");
    let reason =
        r#"TAKEN_OFF: 409 Conflict Conflict, state "PARCEL_COLLECTED", allowed ["TAKEN_OFF"]"#;
    assert!(finding.contains(reason), "{finding}");
    assert_eq!(report["drones"]["missions"]["unfinished"], 1);
    assert_eq!(desk.book().ongoing(), 1);
}

#[tokio::test]
async fn a_replay_that_is_not_marked_and_a_gap_in_the_sequence_are_found_out() {
    let desk = Desk::open(Faults {
        hides_replays: true,
        ..Faults::default()
    })
    .await;
    let ended = fly(&desk, &["--duplicates=100%"]).await;
    assert_eq!(ended.code, Some(1));
    assert_eq!(failed(&ended.report()), ["duplicates"]);

    let desk = Desk::open(Faults {
        skips_at: Some(9),
        ..Faults::default()
    })
    .await;
    let ended = fly(&desk, &[]).await;
    assert_eq!(ended.code, Some(1));
    let expected = ["sequences", "histories of the last missions"];
    assert_eq!(failed(&ended.report()), expected);
}

#[tokio::test]
async fn a_desk_that_tells_nothing_in_the_end_fails_what_cannot_be_compared() {
    let desk = Desk::open(Faults {
        tells_nothing_after: Some(20),
        ..Faults::default()
    })
    .await;
    let ended = fly(&desk, &["--patience=0s"]).await;
    assert_eq!(ended.code, Some(1));
    let expected = [
        "total of deliveries",
        "ongoing deliveries",
        "histories of the last missions",
    ];
    assert_eq!(failed(&ended.report()), expected);
}

#[tokio::test]
async fn ctrl_c_leaves_missions_in_the_air_and_still_checks() {
    let desk = Desk::open(Faults::default()).await;
    let drones = start(&[
        "drones",
        &desk.staff,
        "--keep-flying",
        "--fleet=1",
        "--leg=24h",
        "--speed=1",
        "--duplicates=0",
        "--format=json",
    ]);
    desk.until(|book| book.posts == 1).await;
    drones.interrupt();
    let ended = drones.end().await;
    let report = ended.report();
    assert_eq!(ended.code, Some(0), "{report}");
    assert_eq!(report["drones"]["missions"]["unfinished"], 1);
    assert_eq!(report["drones"]["missions"]["planned"], Value::Null);
    let finding = finding(&report, "ongoing deliveries");
    assert_eq!(finding, "0 to 1: +1, expected +1");
    assert_eq!(desk.book().ongoing(), 1);
}

#[tokio::test]
async fn nobody_listening_is_told_at_once_and_leaves_nothing_unknown() {
    // Bound but not listening: no other process can take the port during the test.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let door = format!("--staff=http://{}", socket.local_addr().unwrap());
    let ended = run(&["drones", &door]).await;
    assert_eq!(ended.code, Some(1));
    let words = "cannot read GET /counts beforehand: connection refused";
    assert!(ended.stderr.contains(words), "{}", ended.stderr);
    assert_eq!(ended.stdout, "");

    let once = ["--shared", "--patience=0s", "--missions=3", "--leg=0s"];
    let ended = run(&[
        "drones",
        &door,
        "--format=json",
        once[0],
        once[1],
        once[2],
        once[3],
    ])
    .await;
    let report = ended.report();
    assert_eq!(ended.code, Some(1));
    assert_eq!(failed(&report), ["every event acknowledged"]);
    let drones = &report["drones"];
    assert_eq!(drones["by_transport_error"]["connection refused"], 3);
    // What was never sent leaves nothing unknown.
    assert_eq!(drones["events"]["fate_unknown"], 0);
    assert_eq!(drones["missions"]["begun"], 0);
}
