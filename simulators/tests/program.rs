//! The program: exit codes, and what is written where. No server is needed for that.

#![expect(clippy::unwrap_used, reason = "a test reports a failure by panicking")]

use std::process::{Command, Output};

fn simulators(arguments: &[&str]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_simulators"));
    program.args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn wrong_usage_ends_with_2_and_names_the_option() {
    for (arguments, named) in [
        (&["rush", "--groups=0"][..], "--groups"),
        (&["rush", "--group-min=300"], "--group-min"),
        (&["swim"], "swim"),
    ] {
        let output = simulators(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let errors = text(&output.stderr);
        assert!(
            errors.starts_with("error: ") && errors.contains(named),
            "{errors}"
        );
    }
}

#[test]
fn an_unreachable_server_ends_with_1_and_is_named_beforehand_or_reported() {
    let closed = "--staff=http://127.0.0.1:1";
    let output = simulators(&["drones", closed]);
    assert_eq!(output.status.code(), Some(1));
    let expected = "simulators: cannot read GET /counts beforehand: connection refused\n";
    assert_eq!(text(&output.stderr), expected);
    let output = simulators(&["baristas", closed, "--for=100ms", "--format=json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ok"], false);
}

#[test]
fn lists_that_are_only_drawn_end_with_0_and_without_a_report() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("day.json");
    let output = simulators(&["day", "--seed=1", "--draw", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout.is_empty() && file.exists());
}
