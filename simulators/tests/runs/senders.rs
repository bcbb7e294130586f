//! Senders against a package desk, well-behaved and otherwise.

use serde_json::Value;

use crate::{
    audit::{failed, finding},
    packages::{Desk, Faults, Habit},
    program::{Ended, run, start},
};

/// Three hundred errands with a good deal of trouble of every kind, as fast as the desk answers.
async fn send(desk: &Desk, more: &[&str]) -> Ended {
    let mut arguments = vec![
        "senders",
        &desk.customers,
        "--packages=300",
        "--senders=4",
        "--recipients=12",
        "--preferences=30%",
        "--duplicates=20%",
        "--mismatches=10%",
        "--malformed=60%",
        "--seed=7",
        "--format=json",
    ];
    arguments.extend(more);
    run(&arguments).await
}

/// The checks of a run against a desk with these faults that fail.
async fn failed_at(faults: Faults) -> Vec<String> {
    let desk = Desk::open(faults).await;
    let ended = send(&desk, &[]).await;
    let report = ended.report();
    let failed = failed(&report["senders"]);
    assert_eq!(ended.code, Some(i32::from(!failed.is_empty())), "{report}");
    failed.into_iter().map(str::to_owned).collect()
}

#[tokio::test]
async fn every_package_is_sent_and_every_check_holds() {
    let desk = Desk::open(Faults::default()).await;
    let ended = send(&desk, &[]).await;
    let report = ended.report();
    assert_eq!(ended.code, Some(0), "{report}");
    let senders = &report["senders"];
    assert_eq!(failed(senders), [""; 0]);

    let book = desk.book();
    let packages = &senders["packages"];
    assert_eq!(packages["acknowledged"], book.packages.len());
    assert_eq!(packages["delivered"], book.count(None, "delivered"));
    assert_eq!(packages["dropped"], book.count(None, "dropped"));
    assert!(book.count(None, "dropped") > 0);
    let updates = senders["preferences"]["acknowledged"].as_u64().unwrap();
    assert_eq!(book.packages.len() as u64 + updates, 300);
    assert!(senders["preferences"]["outdated"].as_u64().unwrap() > 0);
    assert_eq!(senders["malformed"], book.rejected);
    assert!(book.rejected > 50);
    let times = book.packages.values().map(|package| package.times - 1);
    let again = [&packages["duplicates"], &packages["mismatches"]];
    let again: u64 = again.map(|again| again.as_u64().unwrap()).iter().sum();
    assert_eq!(times.sum::<u64>(), again);
    assert_eq!(senders["by_status"]["201"], book.packages.len());
    assert_eq!(senders["retries"], 0);
    // Two for each sender, the statistics beforehand, and the comparison afterwards.
    assert_eq!(book.connections, 2 * 4 + 2);
    assert!(senders["latencies"]["p99"]["measured_s"].as_f64().unwrap() > 0.0);
}

#[tokio::test]
async fn a_second_run_with_the_same_seed_is_other_packages_on_the_same_desk() {
    let desk = Desk::open(Faults::default()).await;
    let mut known = 0;
    for _ in 0..2 {
        let ended = send(&desk, &[]).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stdout);
        let packages = desk.book().packages.len();
        assert!(packages > known);
        known = packages;
    }
    let packages = desk.book().packages.len();
    assert!(
        packages.is_multiple_of(2),
        "the same number each time: {packages}"
    );
}

#[tokio::test]
async fn the_report_in_text_names_checks_with_their_figures() {
    let desk = Desk::open(Faults::default()).await;
    let ended = send(&desk, &["--format=text", "--preferences=0%"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
    let words: Vec<_> = ended.stdout.split_whitespace().collect();
    let text = words.join(" ");
    for words in [
        "acknowledged 300 ",
        "packages delivered ok 0 to 300: +300, expected +300",
        "packages dropped ok 0 to 0: +0, expected +0",
        "fates of the packages ok 300 right",
        "packages kept ok 200 right",
        "preferences kept ok 12 right",
        "Every request was acknowledged and every check holds (300 packages, 0 preferences).",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[tokio::test]
async fn a_desk_that_delivers_twice_is_found_out() {
    let faults = Faults::of(&[Habit::ForgetsPackages]);
    let failed = failed_at(faults).await;
    for name in ["each package new once", "packages delivered"] {
        assert!(failed.iter().any(|failed| failed == name), "{failed:?}");
    }
}

#[tokio::test]
async fn a_desk_that_delivers_what_nobody_wants_is_found_out() {
    let faults = Faults::of(&[Habit::IgnoresPreferences]);
    // Its statistics and what it keeps agree with what it has said.
    assert_eq!(failed_at(faults).await, ["fates of the packages"]);
}

#[tokio::test]
async fn a_desk_that_keeps_the_preference_that_came_last_is_found_out() {
    let faults = Faults::of(&[Habit::LastPreferenceWins]);
    let failed = failed_at(faults).await;
    for name in ["fates of the packages", "preferences kept"] {
        assert!(failed.iter().any(|failed| failed == name), "{failed:?}");
    }
}

#[tokio::test]
async fn wrong_statistics_fail_unless_they_are_not_compared() {
    let rejected = Faults::of(&[Habit::MiscountsRejected]);
    let types = Faults::of(&[Habit::MiscountsTypes]);
    for (faults, expected) in [
        (rejected, "requests rejected"),
        (types, "marketing delivered"),
    ] {
        let desk = Desk::open(faults).await;
        let ended = send(&desk, &[]).await;
        assert_eq!(ended.code, Some(1));
        assert_eq!(failed(&ended.report()["senders"]), [expected]);
        let ended = send(&desk, &["--shared"]).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stdout);
    }
}

#[tokio::test]
async fn a_rejection_without_a_problem_and_a_hidden_mismatch_are_found_out() {
    let faults = Faults::of(&[Habit::RejectsWithoutAProblem, Habit::HidesMismatches]);
    let expected = ["mismatches", "malformed requests rejected"];
    assert_eq!(failed_at(faults).await, expected);
}

#[tokio::test]
async fn a_request_whose_answer_was_lost_is_sent_again_and_nothing_is_wrong() {
    let desk = Desk::open(Faults {
        hangs_up_every: Some(9),
        ..Faults::default()
    })
    .await;
    let ended = send(&desk, &[]).await;
    let report = ended.report();
    assert_eq!(ended.code, Some(0), "{report}");
    let senders = &report["senders"];
    let retries = senders["retries"].as_u64().unwrap();
    assert_eq!(retries, desk.book().requests / 9);
    assert!(senders["packages"]["replays"].as_u64().unwrap() > 0);
    // Malformed requests among them may have been counted twice.
    let finding = finding(senders, "requests rejected");
    assert!(finding.contains(" of unknown fate)"), "{finding}");
    let finding = self::finding(senders, "packages delivered");
    assert!(!finding.contains("unknown"), "{finding}");
}

#[tokio::test]
async fn a_desk_that_is_down_or_busy_now_and_then_costs_nothing_but_retries() {
    let desk = Desk::open(Faults {
        is_down_for: Some(100..=119),
        is_busy_every: Some(25),
        ..Faults::default()
    })
    .await;
    let ended = send(&desk, &[]).await;
    let report = ended.report();
    assert_eq!(ended.code, Some(0), "{report}");
    let senders = &report["senders"];
    assert!(senders["retries"].as_u64().unwrap() >= 20, "{report}");
    assert_eq!(senders["packages"]["replays"], 0);
    assert_eq!(
        senders["packages"]["acknowledged"],
        desk.book().packages.len()
    );
}

#[tokio::test]
async fn requests_of_unknown_fate_widen_the_statistics_and_fail_the_run() {
    let desk = Desk::open(Faults {
        hangs_up_every: Some(50),
        ..Faults::default()
    })
    .await;
    let once = [
        "--patience=0s",
        "--malformed=0%",
        "--duplicates=0%",
        "--mismatches=0%",
    ];
    let ended = send(&desk, &once).await;
    let report = ended.report();
    assert_eq!(ended.code, Some(1));
    let senders = &report["senders"];
    assert_eq!(failed(senders), ["every request acknowledged"]);
    assert_eq!(senders["fate_unknown"], 6);
}

#[tokio::test]
async fn a_desk_that_tells_nothing_in_the_end_fails_what_cannot_be_compared() {
    let desk = Desk::open(Faults {
        tells_nothing_after: Some(1),
        ..Faults::default()
    })
    .await;
    let ended = send(&desk, &["--patience=0s"]).await;
    assert_eq!(ended.code, Some(1));
    let report = ended.report();
    let failed = failed(&report["senders"]);
    assert_eq!(failed.len(), 7 + 2, "{failed:?}");
    assert_eq!(failed[7..], ["packages kept", "preferences kept"]);
}

#[tokio::test]
async fn ctrl_c_ends_a_run_at_a_low_rate_and_still_checks() {
    let desk = Desk::open(Faults::default()).await;
    let senders = start(&[
        "senders",
        &desk.customers,
        "--senders=1",
        "--rate=1",
        "--malformed=0",
        "--duplicates=0",
        "--mismatches=0",
        "--format=json",
    ]);
    desk.until(|book| book.requests == 1).await;
    senders.interrupt();
    let ended = senders.end().await;
    let report = ended.report();
    assert_eq!(ended.code, Some(0), "{report}");
    let kept = &report["senders"]["checks"].as_array().unwrap();
    assert!(!kept.is_empty());
}

#[tokio::test]
async fn nobody_listening_is_told_at_once() {
    // Bound but not listening: no other process can take the port during the test.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let door = format!("--customers=http://{}", socket.local_addr().unwrap());
    let ended = run(&["senders", &door]).await;
    assert_eq!(ended.code, Some(1));
    let words = "cannot read GET /statistics beforehand: connection refused";
    assert!(ended.stderr.contains(words), "{}", ended.stderr);
    assert_eq!(ended.stdout, "");

    let once = ["--shared", "--patience=0s", "--packages=3", "--malformed=0"];
    let mut arguments = vec!["senders", &door, "--format=json"];
    arguments.extend(once);
    let ended = run(&arguments).await;
    let report = ended.report();
    assert_eq!(ended.code, Some(1));
    let senders = &report["senders"];
    assert_eq!(senders["given_up"], 3);
    // What was never sent leaves nothing unknown.
    assert_eq!(senders["fate_unknown"], 0);
    assert_eq!(senders["packages"]["acknowledged"], Value::from(0));
    let expected = ["every request acknowledged", "preferences kept"];
    assert_eq!(failed(senders), expected);
}
