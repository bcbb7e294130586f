//! The program under test as a child process.

use std::process::{Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::{Child, Command};

/// A run of `simulators` that has been started.
pub(crate) struct Running(Child);

/// How a run ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Starts `simulators` with these arguments, without a progress display where there would be one.
pub(crate) fn start(arguments: &[&str]) -> Running {
    let mut command = Command::new(env!("CARGO_BIN_EXE_simulators"));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    Running(command.spawn().unwrap())
}

/// Starts it and waits for its end.
pub(crate) async fn run(arguments: &[&str]) -> Ended {
    start(arguments).end().await
}

impl Running {
    /// What ctrl-c does.
    pub(crate) fn interrupt(&self) {
        let id = i32::try_from(self.0.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), Signal::INT).unwrap();
    }

    pub(crate) async fn end(self) -> Ended {
        let Output {
            status,
            stdout,
            stderr,
        } = self.0.wait_with_output().await.unwrap();
        Ended {
            code: status.code(),
            stdout: String::from_utf8(stdout).unwrap(),
            stderr: String::from_utf8(stderr).unwrap(),
        }
    }
}

impl Ended {
    /// The report of a run with `--format json`.
    pub(crate) fn report(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|_| panic!("{}{}", self.stdout, self.stderr))
    }
}
