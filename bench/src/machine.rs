//! The machine: its description and its processors, the processor time and the memory that programs use, and the cost of
//! a flush to its disk. A measurement says nothing without them.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::engine::{Sample, Side, sample};
use crate::programs::Programs;
use crate::rows::{Origin, ROWS};
use crate::table::Spread;

/// What a database writes at the least.
const BLOCK: [u8; 4096] = [7; 4096];
const FLUSHES: u32 = 200;

/// The processors of a run: one for the servers, which run in turn, and another for this process, the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pinned {
    pub(crate) servers: u32,
    pub(crate) client: u32,
}

impl Pinned {
    /// The first and the last processor that this process may use: on most machines no two threads of one core. This
    /// process is bound to the last; it must not have started a thread before.
    pub(crate) fn divide() -> Result<Self> {
        let status = fs::read_to_string("/proc/self/status").context("reading /proc")?;
        let mut lines = status.lines();
        let allowed = lines.find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let pinned = Self::of(allowed.unwrap_or_default())
            .context("--pin needs two processors; run without it")?;
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", "--pid", &pinned.client.to_string()]);
        let status = command
            .arg(std::process::id().to_string())
            .stdout(Stdio::null())
            .status();
        let bound = status.context("starting taskset")?.success();
        ensure!(bound, "taskset failed");
        Ok(pinned)
    }

    /// From the kernel's list of processors, such as `0-3,8`.
    fn of(allowed: &str) -> Option<Self> {
        let numbers = allowed.trim().split([',', '-']).map(str::parse);
        let numbers: Vec<u32> = numbers.collect::<Result<_, _>>().ok()?;
        let (servers, client) = (*numbers.first()?, *numbers.last()?);
        (servers != client).then_some(Self { servers, client })
    }
}

/// One line on the machine and the versions of the programs that took part.
pub(crate) fn describe(programs: &Programs, taking_part: &[&str]) -> Result<String> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    // Also those that this process may not use.
    let is_core = |line: &&str| line.starts_with("processor");
    let cores = processor.lines().filter(is_core).count();
    let mut names = processor
        .lines()
        .filter_map(|line| line.strip_prefix("model name"));
    let model = names.find_map(|name| name.split_once(':'));
    let model = model.map_or("model unknown", |(_, name)| name.trim());
    let mut parts = vec![format!("{cores} cores ({model}), Linux {}", kernel.trim())];
    // The others were built with the measured server, with its Cargo.lock.
    let has_version =
        |name: &&&str| **name == "odyssey" || ROWS.programs[**name].from != Origin::Build;
    for program in taking_part.iter().filter(has_version) {
        parts.push(programs.version(program)?);
    }
    Ok(parts.join(", "))
}

/// Processor time in the kernel's ticks.
#[derive(Clone, Copy)]
pub(crate) struct Ticks {
    all: u64,
    busy: u64,
    ours: u64,
}

impl Ticks {
    /// Of the machine, and of this program and the processes of all sides; nothing if one of them starts others.
    pub(crate) fn used_by(sides: &[Box<dyn Side + '_>]) -> Result<Option<Self>> {
        let processes: Option<Vec<Vec<u32>>> = sides.iter().map(|side| side.processes()).collect();
        let Some(processes) = processes else {
            return Ok(None);
        };
        let machine = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
        let (all, busy) = machine_ticks(&machine).context("processor time in /proc/stat")?;
        let mut ours = 0;
        for pid in processes.concat().into_iter().chain([std::process::id()]) {
            let process =
                fs::read_to_string(format!("/proc/{pid}/stat")).context("a server is gone")?;
            ours += process_ticks(&process).context("a server's processor time")?;
        }
        Ok(Some(Ticks { all, busy, ours }))
    }

    /// The share of the machine's time since `earlier` that was used neither by us nor by the kernel's interrupts.
    pub(crate) fn others_since(self, earlier: Ticks) -> f64 {
        let others = (self.busy - earlier.busy).saturating_sub(self.ours - earlier.ours);
        let count = |ticks: u64| f64::from(u32::try_from(ticks).unwrap_or(u32::MAX));
        count(others) / count((self.all - earlier.all).max(1))
    }
}

/// All time, and that of programs and of a host that took the processor away.
fn machine_ticks(stat: &str) -> Option<(u64, u64)> {
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

/// In user and kernel mode. The process's name may contain anything, so what follows it is read.
fn process_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// Processor time of all threads of a process, to the nanosecond: ticks are too coarse for half a second.
pub(crate) fn processor_time(pid: u32) -> Result<Duration> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).context("a server is gone")? {
        match fs::read_to_string(thread?.path().join("schedstat")) {
            // The thread ended after the directory was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            text => {
                nanoseconds += on_processor(&text.context("reading a schedstat")?)?;
            }
        }
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Of this thread.
pub(crate) fn own_processor_time() -> Result<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").context("reading a schedstat")?;
    Ok(Duration::from_nanos(on_processor(&text)?))
}

/// Gives this thread the lowest priority: others that become runnable preempt it.
pub(crate) fn yield_to_others() -> Result<()> {
    let this = fs::read_link("/proc/thread-self").context("reading /proc")?;
    let mut command = Command::new("renice");
    command.args(["-n", "19", "-p"]).args(this.file_name());
    let status = command.stdout(Stdio::null()).status();
    ensure!(
        status.context("starting renice")?.success(),
        "renice failed"
    );
    Ok(())
}

/// The first number; the time in the queue for a processor and the number of turns follow.
fn on_processor(schedstat: &str) -> Result<u64> {
    let used = schedstat.split_ascii_whitespace().next();
    Ok(used.context("an empty schedstat")?.parse()?)
}

/// A process's resident memory, now (`VmRSS:`) or at its peak (`VmHWM:`).
pub(crate) fn memory_bytes(pid: &str, name: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the server is gone")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let line = line.with_context(|| format!("a process without {name}"))?;
    let kib = line.trim().trim_end_matches(" kB");
    Ok(kib.parse::<u64>()? * 1024)
}

/// The file system of a directory, and the cost of a flush in it.
pub(crate) fn describe_disk(dir: &Path) -> Result<String> {
    let file = tempfile::tempfile_in(dir);
    let mut file = file.with_context(|| format!("creating a file in {}", dir.display()))?;
    let appended = flush(&mut file, SeekFrom::End(0))? * 1e6;
    let in_place = flush(&mut file, SeekFrom::Start(0))? * 1e6;
    let found = Command::new("findmnt")
        .args(["-no", "FSTYPE", "-T"])
        .arg(dir)
        .output();
    let kind = found.context("asking findmnt for the file system")?.stdout;
    Ok(format!(
        "the data are on {}, where a write of 4 KiB and its fdatasync take {appended:.0} µs at the end of a file and \
         {in_place:.0} µs within it (medians of {FLUSHES})",
        String::from_utf8_lossy(&kind).trim()
    ))
}

/// Flushes within a file, as those of a write-ahead log that has reached its size.
pub(crate) struct Flushes(File);

impl Flushes {
    pub(crate) fn in_directory(dir: &Path) -> Result<Self> {
        let mut file = tempfile::tempfile_in(dir).context("creating a file")?;
        file.write_all(&BLOCK)?;
        Ok(Self(file))
    }
}

impl Side for Flushes {
    fn processes(&self) -> Option<Vec<u32>> {
        Some(Vec::new())
    }

    fn sample(&mut self) -> Result<Sample> {
        let took = flush(&mut self.0, SeekFrom::Start(0))?;
        Ok(sample([("flush", took)]))
    }
}

/// The median time of writing a block and flushing it, in seconds.
fn flush(file: &mut File, at: SeekFrom) -> Result<f64> {
    let mut took = Vec::new();
    for _ in 0..FLUSHES {
        file.seek(at)?;
        let begin = Instant::now();
        file.write_all(&BLOCK)?;
        file.sync_data()?;
        took.push(begin.elapsed().as_secs_f64());
    }
    Ok(Spread::new(&took).median())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_client_get_different_processors() {
        let pinned = |servers, client| Some(Pinned { servers, client });
        assert_eq!(Pinned::of("\t0-1\n"), pinned(0, 1));
        assert_eq!(Pinned::of("2,4-7,9"), pinned(2, 9));
        assert_eq!(Pinned::of("3"), None);
        assert_eq!(Pinned::of(""), None);
    }

    #[test]
    fn processor_time_is_read_from_the_kernels_lists() {
        let machine = "cpu  10 20 30 40 50 60 70 80 5 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n";
        assert_eq!(machine_ticks(machine), Some((360, 140)));
        let process = "7 (a) strange) name) S 1 7 7 0 -1 4194560 100 0 0 0 11 22 0 0 20 0 3 0";
        assert_eq!(process_ticks(process), Some(33));
        assert!(Ticks::used_by(&[]).unwrap().is_some());
    }
}
