//! Where a cycle's time goes: samples of a server's processor time under a load, by the code that used it.
//!
//! Linux's `perf` interrupts the server while it runs, some 2,000 times per second of its processor time. A sample in the
//! kernel counts for the system call that it is in. Any other counts for a source file: the program is one piece of inlined
//! code, so the file is that of the innermost function, inlined ones included, that has a group in [`USER`]. So the
//! standard library and small helpers count for their callers.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::engine::{Bench, Side};
use crate::load::WINDOWS_PER_SECOND;
use crate::programs::Programs;
use crate::rows::{Drive, ROWS};
use crate::table::{Spread, aligned};

/// No divisor of a timer's usual rates, so that samples do not follow a timer.
const SAMPLES_PER_SECOND: &str = "1999";
const REMEDY: &str =
    "install linux-perf and binutils, and run as root or with kernel.perf_event_paranoid at most 1";

const RECORDED: &str = "perf.data";

/// Names, and parts of paths or symbols. The first group that has a part of a frame is the frame's.
type Groups = &'static [(&'static str, &'static [&'static str])];

/// A system call that jumps to its function, such as `do_writev`, has no frame.
const KERNEL: Groups = &[
    ("kernel: reading", &["sys_read", "sys_recv", "do_readv"]),
    (
        "kernel: writing, and the client's receiving",
        &["sys_write", "sys_send", "do_writev"],
    ),
    (
        "kernel: waiting, waking, switching",
        &["sys_epoll", "sys_futex", "schedule"],
    ),
    ("kernel: anything else", &[""]),
];

const USER: Groups = &[
    ("hyper", &["/hyper-", "/http-body", "/httparse-"]),
    ("headers, URIs", &["/http-1"]),
    (
        "metrics and logs",
        &["/metrics", "/tracing", "src/telemetry"],
    ),
    ("flood control", &["src/flood/"]),
    (
        "JSON, dates, ids",
        &["/serde", "/jiff-", "/uuid-", "/itoa-", "src/values"],
    ),
    (
        "router, extractors, edge",
        &[
            "/axum-",
            "/matchit-",
            "/tower",
            "/form_urlencoded-",
            "src/http/",
            "src/access/",
            "src/orders/routes",
        ],
    ),
    ("line and service", &["src/orders/", "src/bin/ideal.rs"]),
    ("runtime", &["/tokio-", "/mio-"]),
    ("allocator", &["jemalloc", "_rjem_"]),
    ("memory copies, libc, anything else", &[""]),
];

fn group(groups: Groups, frames: &[&str]) -> &'static str {
    let (rest, named) = groups.split_last().expect("groups are not empty");
    let of = |frame: &&str| {
        let has_part = |parts: &[&str]| parts.iter().any(|part| frame.contains(part));
        named.iter().find(|(_, parts)| has_part(parts))
    };
    frames.iter().find_map(of).unwrap_or(rest).0
}

/// The table, or why there is none.
pub(crate) fn profile(programs: Programs, subjects: &[String], seconds: u32) -> Result<String> {
    let dir = programs.directory()?;
    let missing = [
        record(dir.path(), &["-e", "cpu-clock:k", "--", "true"]),
        command("addr2line", &["--version"]),
    ];
    for mut command in missing {
        if !command.status().is_ok_and(|status| status.success()) {
            let name = command.get_program().display();
            return Ok(format!("no profile: {name} cannot be used: {REMEDY}\n"));
        }
    }
    let bench = Bench {
        programs,
        rounds: 1,
        seconds,
        held: 0,
        streams: 0,
    };
    let (mut headings, mut profiles) = (vec!["where, µs of the server's time".to_owned()], vec![]);
    for key in subjects {
        let subject = ROWS.subjects.get(key);
        let subject = subject.with_context(|| format!("there is no subject {key}"))?;
        ensure!(matches!(subject.drive, Drive::Load(_)), "{key} is no load");
        headings.extend([subject.name.clone(), "share".to_owned()]);
        let mut server = subject.start(&bench)?;
        profiles.push(Profile::of(&mut *server, seconds, dir.path())?);
    }
    let groups = KERNEL.iter().chain(USER).map(|&(name, _)| name);
    let lines = groups.chain(["all"]).map(|name| {
        let cells = profiles.iter().flat_map(|profile| profile.cells(name));
        [name.to_owned()].into_iter().chain(cells).collect()
    });
    Ok(aligned(&headings, lines.collect()))
}

fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Records into a file of this directory.
fn record(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = command("perf", &["record", "-o", RECORDED]);
    command.args(arguments).current_dir(dir);
    command
}

/// Of one server under its load.
struct Profile {
    /// Processor time for each answer, in microseconds, while nothing was recorded.
    server_time: f64,
    samples: BTreeMap<&'static str, u32>,
}

impl Profile {
    fn of(server: &mut dyn Side, seconds: u32, dir: &Path) -> Result<Self> {
        let [pid] = server.processes().unwrap_or_default()[..] else {
            bail!("a load has one server");
        };
        let mut times = Vec::new();
        for _ in 0..seconds * WINDOWS_PER_SECOND {
            times.push(server.sample()?["server-time"] / 1e3);
        }
        let (pid, seconds) = (pid.to_string(), seconds.to_string());
        let what = ["-e", "cpu-clock", "-F", SAMPLES_PER_SECOND];
        let whose = ["--call-graph", "fp", "-p", &pid, "--", "sleep", &seconds];
        let mut recording = record(dir, &[&what[..], &whose].concat()).spawn()?;
        let recorded = loop {
            match recording.try_wait()? {
                Some(status) => break status.success(),
                None => drop(server.sample()?),
            }
        };
        ensure!(recorded, "perf did not record process {pid}");
        let mut script = command("perf", &["script", "--no-inline", "-F", "ip,sym,dso"]);
        script.args(["-i", RECORDED]).current_dir(dir);
        let script = script.stdout(Stdio::piped()).output()?;
        ensure!(script.status.success(), "perf script failed");
        let script = String::from_utf8_lossy(&script.stdout);
        let samples = grouped(&script, &Program::of(&pid)?, dir)?;
        ensure!(!samples.is_empty(), "perf recorded no sample");
        Ok(Self {
            server_time: Spread::new(&times).median(),
            samples,
        })
    }

    /// The time and the share of a group.
    fn cells(&self, name: &str) -> [String; 2] {
        let all: u32 = self.samples.values().sum();
        let samples = if name == "all" {
            all
        } else {
            self.samples.get(name).copied().unwrap_or_default()
        };
        let share = f64::from(samples) / f64::from(all);
        [
            format!("{:.2}", self.server_time * share),
            format!("{:.1} %", share * 100.0),
        ]
    }
}

/// Samples by group. In perf's output a frame is a line, innermost first, and an empty line ends a sample.
fn grouped(script: &str, program: &Program, dir: &Path) -> Result<BTreeMap<&'static str, u32>> {
    let mut samples = BTreeMap::new();
    let mut in_program: HashMap<u64, (&str, u32)> = HashMap::new();
    for sample in script.split("\n\n") {
        let frames: Vec<Frame> = sample.lines().filter_map(Frame::read).collect();
        let Some(leaf) = frames.first() else {
            continue;
        };
        if leaf.object == program.name {
            in_program.entry(leaf.address).or_insert((leaf.symbol, 0)).1 += 1;
            continue;
        }
        let (groups, frames) = if leaf.is_kernel() {
            let is_kernel = |frame: &&Frame| frame.is_kernel();
            (KERNEL, frames.iter().take_while(is_kernel).collect())
        } else {
            (USER, vec![leaf])
        };
        let symbols: Vec<&str> = frames.iter().map(|frame| frame.symbol).collect();
        *samples.entry(group(groups, &symbols)).or_default() += 1;
    }
    let files = program.files(in_program.keys().copied(), dir)?;
    for (address, (symbol, count)) in in_program {
        let files = files.get(&address).map(Vec::as_slice).unwrap_or_default();
        let frames = files.iter().map(String::as_str).chain([symbol]);
        let group = group(USER, &frames.collect::<Vec<_>>());
        *samples.entry(group).or_default() += count;
    }
    Ok(samples)
}

/// A line of perf's output.
struct Frame<'a> {
    /// Of a program or a library, the place in its file.
    address: u64,
    symbol: &'a str,
    object: &'a str,
}

impl<'a> Frame<'a> {
    /// An address in hexadecimal digits, the symbol, and in parentheses the program, the library or the kernel.
    fn read(line: &'a str) -> Option<Self> {
        let (address, rest) = line.trim_start().split_once(' ')?;
        let (symbol, object) = rest.strip_suffix(')')?.rsplit_once(" (")?;
        Some(Self {
            address: u64::from_str_radix(address, 16).ok()?,
            symbol,
            object,
        })
    }

    /// The upper half of the addresses is the kernel's.
    fn is_kernel(&self) -> bool {
        self.address >> 63 == 1
    }
}

/// A running program's file.
struct Program {
    name: String,
    /// What its linker added to places of code in the file to get their addresses.
    shift: u64,
}

impl Program {
    fn of(pid: &str) -> Result<Self> {
        let name = fs::read_link(format!("/proc/{pid}/exe"))?;
        let name = name.to_string_lossy().into_owned();
        let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let shift = shift(&maps, &name).context("a program without code")?;
        Ok(Self { name, shift })
    }

    /// The source file of each function at an address, inlined ones first.
    fn files(
        &self,
        addresses: impl Iterator<Item = u64>,
        dir: &Path,
    ) -> Result<HashMap<u64, Vec<String>>> {
        let mut lines = String::new();
        for address in addresses {
            // Writing to a string cannot fail.
            let _ = writeln!(lines, "{:#x}", address + self.shift);
        }
        if lines.is_empty() {
            return Ok(HashMap::new());
        }
        let list = dir.join("addresses");
        fs::write(&list, lines)?;
        let mut addr2line = command("addr2line", &["-a", "-i", "-e"]);
        addr2line.arg(&self.name).stdin(File::open(list)?);
        let found = addr2line.stdout(Stdio::piped()).output()?.stdout;
        let mut files: HashMap<u64, Vec<String>> = HashMap::new();
        let mut current = Vec::new();
        for line in String::from_utf8_lossy(&found).lines().rev() {
            match line.strip_prefix("0x") {
                None => current.push(line.to_owned()),
                Some(digits) => {
                    let address = u64::from_str_radix(digits, 16)? - self.shift;
                    current.reverse();
                    files.insert(address, std::mem::take(&mut current));
                }
            }
        }
        Ok(files)
    }
}

/// From a process's mappings: a program's first one is that of its first address.
fn shift(maps: &str, name: &str) -> Option<u64> {
    let number = |digits| u64::from_str_radix(digits, 16).ok();
    let own = maps.lines().filter(|line| line.ends_with(name));
    let mut first = None;
    for line in own {
        let mut fields = line.split_ascii_whitespace();
        let start = number(fields.next()?.split_once('-')?.0)?;
        let first = *first.get_or_insert(start);
        let (access, offset) = (fields.next()?, number(fields.next()?)?);
        if access.contains('x') {
            return (start - first).checked_sub(offset);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_counts_for_its_system_call_or_its_innermost_known_file() {
        let program = Program {
            name: "/server".to_owned(),
            shift: 0,
        };
        let script = "\n\tffffffff81000010 __schedule ([kernel.kallsyms])\n\
            \tffffffff81000020 do_epoll_wait ([kernel.kallsyms])\n\
            \tffffffff81000030 __x64_sys_epoll_wait ([kernel.kallsyms])\n\
            \t            fe00 __read (/lib/libc.so.6)\n\n\
            \n\tffffffff81000040 tcp_ack ([kernel.kallsyms])\n\
            \tffffffff81000050 do_writev ([kernel.kallsyms])\n\n\
            \n\tffffffff81000060 page_fault ([kernel.kallsyms])\n\n\
            \n\t            fe10 memcpy (/lib/libc.so.6)\n\n\
            \n\t            fe20 _rjem_malloc (/lib/other.so)\n\n";
        let samples = grouped(script, &program, Path::new("unused")).unwrap();
        let expected = [
            ("allocator", 1),
            ("kernel: anything else", 1),
            ("kernel: waiting, waking, switching", 1),
            ("kernel: writing, and the client's receiving", 1),
            ("memory copies, libc, anything else", 1),
        ];
        assert_eq!(samples.into_iter().collect::<Vec<_>>(), expected);
        let inlined = [
            "/rustc/0/library/core/src/option.rs:7",
            "/registry/tokio-1.0.0/src/sync/oneshot.rs:9",
            "/odyssey/src/orders/service.rs:1",
        ];
        assert_eq!(group(USER, &inlined), "runtime");
        assert_eq!(
            group(USER, &inlined[..1]),
            "memory copies, libc, anything else"
        );
    }

    #[test]
    fn addresses_of_code_are_found_where_the_linker_shifted_them() {
        let maps = "5000-6000 r--p 00000000 fe:00 7 /server\n\
            7000-9000 r-xp 00001000 fe:00 7 /server\n\
            9000-a000 r-xp 00001000 fe:00 8 /lib/libc.so.6\n";
        assert_eq!(shift(maps, "/server"), Some(0x1000));
        assert_eq!(shift(maps, "/other"), None);
    }
}
