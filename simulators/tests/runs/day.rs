//! A day at an assignment desk, well-behaved and otherwise.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{
    assignments::{Desk, Faults, Habit},
    audit::{failed, finding},
    program::{Ended, run},
};

/// Twelve drivers with many rules and a hundred packages, with a good deal of trouble.
async fn play(desk: &Desk, more: &[&str]) -> Ended {
    let mut arguments = vec![
        "day",
        &desk.staff,
        "--drivers=12",
        "--packages=100",
        "--max-per-driver=6",
        "--duplicates=30%",
        "--failures=20%",
        "--seed=7",
        "--format=json",
    ];
    arguments.extend(more);
    run(&arguments).await
}

#[tokio::test]
async fn a_day_is_played_to_its_end_and_every_check_holds() {
    let desk = Desk::open(Faults::default()).await;
    let ended = play(&desk, &[]).await;
    let report = ended.report();
    assert_eq!(ended.code, Some(0), "{report}");
    let day = &report["day"];
    assert_eq!(failed(day), [""; 0]);

    let book = desk.book();
    assert_eq!(day["assigned"], book.records.len());
    assert_eq!(day["left_behind"], 100 - book.records.len());
    assert!(book.records.len() > 40, "{report}");
    let ended = |status: &str| {
        let records = book.records.values();
        records.filter(|record| record["status"] == status).count()
    };
    assert_eq!(day["delivered"], ended("delivered"));
    assert_eq!(day["failed_to_deliver"], ended("failed_to_deliver"));
    assert!(ended("failed_to_deliver") > 0);
    assert_eq!(
        ended("delivered") + ended("failed_to_deliver"),
        book.records.len()
    );
    let once = 3 * book.records.len() as u64;
    let repeated = day["repeated"].as_u64().unwrap();
    assert!(repeated > 10, "{report}");
    assert_eq!(day["updates"], once + repeated);
    // A dry run, two shifts of four and one again, and four at the end.
    assert_eq!(day["plans"], 15);
    assert!(book.plans >= 15);
    assert!(day["strange"].as_u64().unwrap() > 3);
    assert!(day["assign_latencies"]["p50"]["measured_s"].is_f64());
}

#[tokio::test]
async fn a_server_that_hangs_up_and_is_busy_costs_nothing_but_time() {
    let faults = Faults {
        hangs_up_every: Some(7),
        is_busy_every: Some(11),
        ..Faults::default()
    };
    let desk = Desk::open(faults).await;
    let ended = play(&desk, &["--shifts=3"]).await;
    let report = ended.report();
    assert_eq!(ended.code, Some(0), "{report}");
    let day = &report["day"];
    assert!(day["retries"].as_u64().unwrap() > 20, "{report}");
    assert_eq!(day["given_up"], 0);
}

#[tokio::test]
async fn every_fault_of_a_desk_is_found_out() {
    let cases: [(&'static [Habit], &str); 11] = [
        (&[Habit::LosesAPackage], "manifest kept"),
        (&[Habit::IgnoresRules], "rules of the drivers"),
        (&[Habit::IgnoresTheCap], "nobody above the cap"),
        (&[Habit::IsGreedy], "as many as possible"),
        (&[Habit::ForgetsPlans], "plans only grow"),
        (&[Habit::KeepsDryRuns], "nothing kept of a dry run"),
        (&[Habit::HidesTheRest], "left behind exactly the rest"),
        (&[Habit::HidesTheIdle], "plans name every driver"),
        (&[Habit::ForgetsUpdates], "assignments by status"),
        (&[Habit::AcknowledgesAnything], "unknown ones refused"),
        (&[Habit::ShortensLists], "assignments by driver"),
    ];
    for (habits, check) in cases {
        let desk = Desk::open(Faults::of(habits)).await;
        // More drivers than packages for them: some have nothing.
        let more: &[&str] = match habits {
            [Habit::HidesTheIdle] => &["--packages=5", "--rules=0..0", "--patience=0s"],
            _ => &["--patience=0s"],
        };
        let ended = play(&desk, more).await;
        let report = ended.report();
        assert_eq!(ended.code, Some(1), "{habits:?} {report}");
        let failed = failed(&report["day"]);
        assert!(failed.contains(&check), "{habits:?} {failed:?}");
        assert!(finding(&report["day"], check).contains("wrong") || check == "manifest kept");
    }
}

#[tokio::test]
async fn lists_that_were_drawn_can_be_played_again_and_again() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("day.json");
    let file = file.to_str().unwrap();
    let draw = ["day", "--draw", file, "--drivers=5", "--packages=20"];
    let mut drawn = Vec::new();
    for seed in ["--seed=1", "--seed=2", "--seed=1"] {
        let ended = run(&[&draw[..], &[seed]].concat()).await;
        assert_eq!((ended.code, &ended.stdout[..]), (Some(0), ""));
        drawn.push(std::fs::read_to_string(file).unwrap());
    }
    assert_eq!(drawn[0], drawn[2]);
    assert_ne!(drawn[0], drawn[1]);
    let manifest: Value = serde_json::from_str(&drawn[0]).unwrap();
    let fields = |value: &Value| -> BTreeSet<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(
        fields(&manifest),
        ["drivers", "packages"].map(str::to_owned).into()
    );

    let desk = Desk::open(Faults::default()).await;
    for _ in 0..2 {
        let arguments = ["day", &desk.staff, "--manifest", file, "--format=json"];
        let ended = run(&arguments).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stdout);
        let sent = desk.book().manifest.clone();
        let id = sent["drivers"][0]["driver_id"].as_str().unwrap().to_owned();
        assert!(id.starts_with("driver_1-"), "{id}");
        let (sent, drawn) = (&sent["packages"][7], &manifest["packages"][7]);
        assert_eq!(fields(sent), fields(drawn));
        assert_eq!(sent["weight_kg"], drawn["weight_kg"]);
    }
    let kept = ["day", &desk.staff, "--manifest", file, "--keep-ids"];
    let ended = run(&kept).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
    assert!(
        ended.stdout.contains("every check holds"),
        "{}",
        ended.stdout
    );
    let ended = run(&kept).await;
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("has packages already"),
        "{}",
        ended.stderr
    );
}

#[tokio::test]
async fn nobody_listening_is_told_at_once() {
    // Bound but not listening: no other process can take the port during the test.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let door = format!("--staff=http://{}", socket.local_addr().unwrap());
    let ended = run(&["day", &door]).await;
    assert_eq!(ended.code, Some(1));
    let words = "cannot read GET /manifest beforehand: connection refused";
    assert!(ended.stderr.contains(words), "{}", ended.stderr);
}
