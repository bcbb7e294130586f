//! Where and with what the numbers were taken, and whether other programs used the machine at the same time: a number
//! without that says nothing.

use std::fs;
use std::io;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::peers::{Program, Programs};

/// The lock file this program was built with: it knows which hyper the bare server is.
const LOCK: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock"));

/// One line on the machine and the versions of the programs that took part.
pub(crate) fn describe(programs: &Programs, taking_part: &[Program]) -> Result<String> {
    let cores = available_parallelism().context("counting cores")?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut parts = vec![
        format!("{cores} cores ({})", processor()),
        format!("Linux {}", kernel.trim()),
    ];
    for &program in taking_part {
        if matches!(program, Program::Noop | Program::Planner) {
            // They are the measured server's library.
            continue;
        }
        parts.push(match program {
            Program::Bare => format!(
                "bare hyper {}",
                locked_version(LOCK, "hyper").unwrap_or("(unknown)")
            ),
            _ => programs.version(program)?,
        });
    }
    Ok(parts.join(", "))
}

/// Processor time, in the kernel's ticks: of the whole machine, and of the programs that were meant to use it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time {
    all: u64,
    busy: u64,
    ours: u64,
}

impl Time {
    /// Until now; `ours` are this program and the given ones.
    pub(crate) fn now(servers: impl Iterator<Item = u32>) -> Result<Self> {
        let machine =
            fs::read_to_string("/proc/stat").context("reading the machine's processor time")?;
        let (all, busy) = machine_time(&machine).context("the machine's processor time")?;
        let mut ours = 0;
        for pid in servers.chain([std::process::id()]) {
            let process =
                fs::read_to_string(format!("/proc/{pid}/stat")).context("a server is gone")?;
            ours += process_time(&process).context("a server's processor time")?;
        }
        Ok(Time { all, busy, ours })
    }

    /// The share of the machine's time since `earlier` that was used by others: neither servers nor this program, nor
    /// the kernel's own interrupts.
    pub(crate) fn others_since(self, earlier: Time) -> f64 {
        let others = (self.busy - earlier.busy).saturating_sub(self.ours - earlier.ours);
        let share = |ticks: u64| f64::from(u32::try_from(ticks).unwrap_or(u32::MAX));
        share(others) / share((self.all - earlier.all).max(1))
    }
}

/// Processor time that the threads of a program have used so far, to the nanosecond: the kernel's ticks are too coarse
/// for half a second.
pub(crate) fn time_on_processor(pid: u32) -> Result<Duration> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).context("a server is gone")? {
        match fs::read_to_string(thread?.path().join("schedstat")) {
            // The thread ended after the directory was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            text => {
                let text = text.context("reading a thread's processor time")?;
                nanoseconds += thread_time(&text).context("a thread's processor time")?;
            }
        }
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// A thread's time on a processor; its time in the queue for one and the number of its turns follow.
fn thread_time(schedstat: &str) -> Option<u64> {
    schedstat.split_ascii_whitespace().next()?.parse().ok()
}

/// All time, and that of programs and of a host that took the processor away.
fn machine_time(stat: &str) -> Option<(u64, u64)> {
    let ticks = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_ascii_whitespace();
    let ticks: Vec<u64> = ticks.map_while(|ticks| ticks.parse().ok()).collect();
    let [
        user,
        nice,
        system,
        _idle,
        _waiting,
        _irq,
        _softirq,
        steal,
        ..,
    ] = ticks[..]
    else {
        return None;
    };
    Some((ticks.iter().take(8).sum(), user + nice + system + steal))
}

/// A process's time, in its own code and in the kernel. Its name may contain anything, so what follows it is read.
fn process_time(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    model.map_or_else(
        || "model unknown".to_owned(),
        |(_, name)| name.trim().to_owned(),
    )
}

/// The first version of a package that a lock file names.
fn locked_version<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let mut lines = lock
        .lines()
        .skip_while(|line| *line != format!("name = \"{package}\""));
    lines
        .nth(1)?
        .strip_prefix("version = \"")?
        .strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_stands_below_the_name() {
        let lock = "[[package]]\nname = \"hyper-util\"\nversion = \"0.1.2\"\n\n[[package]]\nname = \"hyper\"\nversion = \"1.2.3\"\n";
        assert_eq!(locked_version(lock, "hyper"), Some("1.2.3"));
        assert_eq!(locked_version(lock, "axum"), None);
    }

    #[test]
    fn time_of_others_is_what_is_neither_ours_nor_idle() {
        let before = Time {
            all: 1000,
            busy: 500,
            ours: 100,
        };
        let after = Time {
            all: 1200,
            busy: 650,
            ours: 200,
        };
        assert!((after.others_since(before) - 0.25).abs() < 1e-9);
    }

    #[test]
    fn processor_time_is_read_from_the_kernels_lists() {
        let machine = "cpu  10 20 30 40 50 60 70 80 5 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n";
        assert_eq!(machine_time(machine), Some((360, 140)));
        let process = "7 (a) strange) name) S 1 7 7 0 -1 4194560 100 0 0 0 11 22 0 0 20 0 3 0";
        assert_eq!(process_time(process), Some(33));
        assert!(Time::now(std::iter::empty()).is_ok());
    }

    #[test]
    fn a_threads_time_is_the_first_number_of_its_schedule() {
        assert_eq!(thread_time("123456789 42 7\n"), Some(123_456_789));
        assert_eq!(thread_time(""), None);
        assert_eq!(thread_time("much 42 7\n"), None);
    }

    #[test]
    fn time_on_the_processor_only_grows() {
        let before = time_on_processor(std::process::id()).unwrap();
        let mut sum = 0_u64;
        while time_on_processor(std::process::id()).unwrap() == before {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(before > Duration::ZERO);
    }
}
