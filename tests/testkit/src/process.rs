use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// A process of a test's own. It ends with the test, frozen or not.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        // Even if the test is killed.
        let mut tied = Command::new("setpriv");
        tied.args(["--pdeathsig", "KILL"])
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some(directory) = command.get_current_dir() {
            tied.current_dir(directory);
        }
        Self(tied.spawn().unwrap())
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    /// Nothing is answered any more, and connections stay.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// The end of [`freeze`](Self::freeze).
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Asks it to end, and waits until it has.
    pub fn terminate(&mut self) {
        self.signal(Signal::TERM);
        self.0.wait().unwrap();
    }

    /// Ends it without a warning.
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail if it has ended, which is what is wanted.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A port of 127.0.0.1 at which nothing listens now. Another process may take it before the caller does.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}
