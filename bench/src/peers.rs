//! The servers that are measured: found, started on free ports with a directory of their own, and always stopped.
//!
//! A server is stopped when its [`Server`] goes out of scope. Should this program itself be killed, the kernel does
//! it: each server is started through `setpriv --pdeathsig`, which then becomes the server.

use std::env;
use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::{available_parallelism, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const START_TIMEOUT: Duration = Duration::from_secs(20);
/// A server that stops has its log to copy into its file.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// Ends of a log are quoted this far.
const LOG_TAIL_LINES: usize = 8;

/// Room for a burst of connections, as all servers here have.
const BACKLOG: &str = "4096";

/// The one place for the measured server's environment: ports to choose, all else as a user has it.
const ODYSSEY: &[(&str, &str)] = &[
    ("ODYSSEY_CUSTOMERS__LISTEN", "127.0.0.1:0"),
    ("ODYSSEY_STAFF__LISTEN", "127.0.0.1:0"),
];
/// Limits so high that no request is refused at any speed, with all clients counted and checked: all customers of a
/// measurement of speed come from one address.
const ODYSSEY_GENEROUS: &[(&str, &str)] = &[
    ("ODYSSEY_FLOOD__BURST", "1000000"),
    ("ODYSSEY_FLOOD__REFILL", "1us"),
    ("ODYSSEY_FLOOD__OUTSTANDING_MAX", "1000000"),
    // A proxy's connections are not counted; its orders are, where it says nothing else.
    ("ODYSSEY_FLOOD__TRUSTED_PROXIES", "127.0.0.1/32"),
];
/// Flood control off: the server does not even count clients.
const ODYSSEY_UNCHECKED: &[(&str, &str)] = &[("ODYSSEY_FLOOD__MODE", "off")];
/// Cuts an address off for longer than any measurement; the threshold is the default.
const ODYSSEY_UNFORGIVING: &[(&str, &str)] = &[("ODYSSEY_FLOOD__CUTOFF_FOR", "24h")];
/// What makes the client a proxy, whose word is taken for where its customers come from.
const ODYSSEY_BEHIND_PROXY: &[(&str, &str)] = &[("ODYSSEY_FLOOD__TRUSTED_PROXIES", "127.0.0.1/32")];
/// What a longer line than the default needs in addition.
const ODYSSEY_LONG_LINE: &[(&str, &str)] = &[("ODYSSEY_ORDERS__WAITING_MAX", "20000")];
/// What orders over HTTP/2 need in addition.
const ODYSSEY_STREAMS: &[(&str, &str)] = &[("ODYSSEY_CUSTOMERS__H2C", "true")];

/// What gives each operation a commit and a flush of its own.
const ODYSSEY_COMMIT_EACH: &[(&str, &str)] = &[("ODYSSEY_STORAGE__BATCH_MAX", "1")];

/// Redis keeps every entry before it answers, and does nothing else for what it keeps: no snapshots, and no rewriting of
/// its log however long it becomes.
const REDIS: &[&str] = &[
    "--bind",
    "127.0.0.1",
    "--appendonly",
    "yes",
    "--appendfsync",
    "always",
    "--auto-aof-rewrite-percentage",
    "0",
    "--save",
    "",
    "--tcp-backlog",
    BACKLOG,
];

/// The same, but it keeps nothing on the disk.
const REDIS_FORGETFUL: &[&str] = &["--appendonly", "no"];

/// Python with its packages, in the directory of the build, where `install-peers.sh` puts them.
const PYTHON: &str = "peers/bin/python";
/// What Python answers when it is asked for its version.
const PYTHON_VERSIONS: &str = "import platform, numpy, scipy; \
    print(f'{platform.python_version()}, numpy {numpy.__version__}, scipy {scipy.__version__}')";

/// How many threads serve in a program on tokio that does not say so itself; without it, one per processor.
const TOKIO_WORKERS: &str = "TOKIO_WORKER_THREADS";

/// A program that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// The measured server.
    Odyssey,
    /// The barest hyper server.
    Bare,
    /// Gearman's job server.
    Gearmand,
    /// The NATS server.
    Nats,
    /// The measured server's stack without a desk.
    Noop,
    /// Redis.
    Redis,
    /// The measured server's planner of days; it answers once and ends.
    Planner,
    /// Python with numpy and scipy; what it runs is given to it.
    Python,
}

/// How a program is to be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// As it comes.
    Usual,
    /// With a commit for each operation.
    CommitEach,
    /// Checking all clients, refusing none.
    Generous,
    /// Checking no client.
    Unchecked,
    /// Cutting off for long.
    Unforgiving,
    /// Believing the client where its customers come from.
    BehindProxy,
    /// Ready to hold more requests than usual.
    Holding,
    /// Ready for HTTP/2 on plain connections.
    Streams,
    /// With a single I/O thread.
    OneThread,
    /// With the threads of [`half_the_workers`].
    HalfTheWorkers,
    /// Keeping everything in memory alone.
    Forgetful,
}

/// As many threads as serve in the measured server by default: half of the processors, rounded up.
pub(crate) fn half_the_workers() -> usize {
    available_parallelism().map_or(1, |processors| processors.get().div_ceil(2))
}

/// Where the programs are.
pub(crate) struct Programs {
    odyssey: PathBuf,
    bare: PathBuf,
    noop: PathBuf,
    planner: PathBuf,
    python: PathBuf,
    /// Where all servers have their directories.
    data: PathBuf,
}

impl Programs {
    /// The measured server as given, else beside this program, where the build puts all of them. Their data go where it
    /// is said, else where temporary files are.
    pub(crate) fn locate(server: Option<PathBuf>, data: Option<PathBuf>) -> Result<Self> {
        let own = env::current_exe().context("where this program is")?;
        let sibling = |name: &str| own.with_file_name(name);
        // The directory of the whole build; this program lies one level below it.
        let target = own.ancestors().nth(2).context("where the build is")?;
        Ok(Programs {
            odyssey: server.unwrap_or_else(|| sibling("odyssey")),
            bare: sibling("bare"),
            noop: sibling("noop"),
            planner: sibling("planner"),
            python: target.join(PYTHON),
            data: data.unwrap_or_else(env::temp_dir),
        })
    }

    /// Where all servers have their directories.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// The path of a program, or what to do to have it.
    pub(crate) fn path(&self, program: Program) -> Result<PathBuf> {
        match program {
            Program::Odyssey => built(&self.odyssey, "cargo build --release -p odyssey"),
            Program::Bare => built(&self.bare, "cargo build --release -p bench"),
            Program::Gearmand => installed("gearmand", "gearman-job-server"),
            Program::Nats => installed("nats-server", "nats-server"),
            Program::Noop => built(&self.noop, "cargo build --release -p bench"),
            Program::Redis => installed("redis-server", "redis-server"),
            Program::Planner => built(&self.planner, "cargo build --release -p bench"),
            Program::Python => built(&self.python, "bench/install-peers.sh"),
        }
    }

    /// What a program says its version is.
    pub(crate) fn version(&self, program: Program) -> Result<String> {
        let mut command = Command::new(self.path(program)?);
        match program {
            Program::Python => command.args(["-c", PYTHON_VERSIONS]),
            _ => command.arg("--version"),
        };
        let stdout = command.output().context("asking for a version")?;
        let stdout = String::from_utf8_lossy(&stdout.stdout);
        if program == Program::Python {
            return Ok(format!("Python {}", stdout.trim()));
        }
        let name = match program {
            Program::Odyssey => "odyssey",
            Program::Bare => "bare",
            Program::Gearmand => "gearmand",
            Program::Nats => "nats-server",
            Program::Noop => "noop",
            Program::Redis => "redis-server",
            Program::Planner => "planner",
            Program::Python => "Python",
        };
        Ok(format!(
            "{name} {}",
            version_in(&stdout).unwrap_or("(version unknown)")
        ))
    }

    /// A program that is no server, to be given its arguments. It ends with this one.
    pub(crate) fn command(&self, program: Program) -> Result<Command> {
        Ok(under_our_death(&self.path(program)?))
    }

    /// What a program that is no server says until it ends. Nothing if it takes longer than `limit`: then it is stopped.
    /// It must not say more than a pipe holds.
    pub(crate) fn stdout(&self, mut command: Command, limit: Duration) -> Result<Option<String>> {
        let mut child = command
            .current_dir(&self.data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting a program through setpriv")?;
        let end = Instant::now() + limit;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if Instant::now() >= end {
                child.kill()?;
                child.wait()?;
                return Ok(None);
            }
            sleep(Duration::from_millis(20));
        };
        ensure!(status.success(), "{command:?} ended with {status}");
        let mut stdout = String::new();
        let mut output = child.stdout.take().context("a program's output")?;
        output.read_to_string(&mut stdout)?;
        Ok(Some(stdout))
    }

    /// Starts a program and waits until it accepts connections.
    pub(crate) fn start(&self, program: Program, manner: Manner) -> Result<Server> {
        let dir = TempDir::with_prefix_in("odyssey-bench-", &self.data);
        let dir = dir.with_context(|| format!("in {}", self.data.display()))?;
        self.start_in(Arc::new(dir), program, manner)
    }

    /// The same, where another server may have left what it kept.
    pub(crate) fn start_in(
        &self,
        dir: Arc<TempDir>,
        program: Program,
        manner: Manner,
    ) -> Result<Server> {
        let path = self.path(program)?;
        let announced = dir.path().join("addresses.json");
        // It may contain the addresses of an earlier server.
        if announced.exists() {
            fs::remove_file(&announced)?;
        }
        let mut command = under_our_death(&path);
        let port = instruct(&mut command, program, manner, dir.path(), &announced)?;
        let log = dir.path().join("log");
        let file = File::create(&log)?;
        command
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let child = command
            .spawn()
            .with_context(|| format!("starting {} through setpriv", path.display()))?;
        let mut server = Server {
            program,
            child,
            dir,
            customers: unknown(),
            staff: unknown(),
        };
        server.await_addresses(port, &announced)?;
        Ok(server)
    }

    /// Runs the measured server's program to recount the ledger of packages in this directory. Fails if the statistics do
    /// not agree with it.
    pub(crate) fn audit_packages(&self, dir: &Path) -> Result<()> {
        let mut command = Command::new(self.path(Program::Odyssey)?);
        odyssey_environment(&mut command, Manner::Usual);
        let audit = command
            .args(["packages", "audit"])
            .current_dir(dir)
            .output()
            .context("auditing")?;
        ensure!(
            audit.status.success(),
            "the audit failed:\n{}{}",
            String::from_utf8_lossy(&audit.stdout),
            String::from_utf8_lossy(&audit.stderr)
        );
        Ok(())
    }
}

/// Sets a program's arguments and environment. Returns the port, unless the program chooses and announces one itself.
fn instruct(
    command: &mut Command,
    program: Program,
    manner: Manner,
    dir: &Path,
    announced: &Path,
) -> Result<Option<u16>> {
    match program {
        Program::Odyssey => {
            command.arg("serve").arg("--addresses").arg(announced);
            odyssey_environment(command, manner);
            return Ok(None);
        }
        Program::Noop => {
            command.arg("--addresses").arg(announced);
            odyssey_environment(command, manner);
            return Ok(None);
        }
        Program::Bare => {
            command.arg("--addresses").arg(announced);
            if manner == Manner::Holding {
                command.arg("--hold");
            }
            command.env_remove(TOKIO_WORKERS);
            if manner == Manner::HalfTheWorkers {
                command.env(TOKIO_WORKERS, half_the_workers().to_string());
            }
            return Ok(None);
        }
        Program::Planner | Program::Python => bail!("{program:?} is no server"),
        Program::Gearmand | Program::Nats | Program::Redis => {}
    }
    let port = free_port()?;
    command.args(["--port", &port.to_string()]);
    match program {
        Program::Gearmand => {
            command.args(["--listen", "127.0.0.1", "--log-file", "stderr"]);
            command.args(["--backlog", BACKLOG]);
            if manner == Manner::OneThread {
                command.args(["--threads", "1"]);
            }
            command.arg("--pid-file").arg(dir.join("pid"));
        }
        Program::Redis => {
            command.args(REDIS);
            if manner == Manner::Forgetful {
                command.args(REDIS_FORGETFUL);
            }
        }
        _ => {
            command.args(["--addr", "127.0.0.1"]);
        }
    }
    Ok(Some(port))
}

/// The first word in what a program says of its version that has a digit in it.
fn version_in(stdout: &str) -> Option<&str> {
    let mut words = stdout.split_ascii_whitespace();
    let word = words.find(|word| word.contains(|char: char| char.is_ascii_digit()))?;
    Some(word.trim_start_matches("v=").trim_start_matches('v'))
}

/// A running server. Dropping it stops it.
pub(crate) struct Server {
    program: Program,
    child: Child,
    dir: Arc<TempDir>,
    /// Where customers connect.
    pub(crate) customers: SocketAddr,
    /// Where workers connect.
    pub(crate) staff: SocketAddr,
}

impl Server {
    /// Process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its directory; what it keeps is in it.
    pub(crate) fn directory(&self) -> &Path {
        self.dir.path()
    }

    /// Stops it as an operator does, and waits until it has closed its files. Returns its directory.
    pub(crate) fn stop(mut self) -> Result<Arc<TempDir>> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("a server's process id")?, Signal::TERM)?;
        let end = Instant::now() + STOP_TIMEOUT;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(Instant::now() < end, "{self} does not stop");
            sleep(Duration::from_millis(20));
        };
        ensure!(
            status.success(),
            "{self} stopped with {status}; its log ends:\n{}",
            self.log_tail()
        );
        Ok(Arc::clone(&self.dir))
    }

    /// Adds the end of the server's log to an error.
    pub(crate) fn explain<T>(&self, result: Result<T>) -> Result<T> {
        result.with_context(|| format!("measuring {self}; its log ends:\n{}", self.log_tail()))
    }

    /// A known port, or one the server writes into a file once it accepts.
    fn await_addresses(&mut self, port: Option<u16>, announced: &Path) -> Result<()> {
        let end = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "{self} ended at its start with {status}; its log ends:\n{}",
                    self.log_tail()
                );
            }
            let found = match port {
                Some(port) => accepting(port),
                None => read_addresses(announced),
            };
            if let Some((customers, staff)) = found {
                (self.customers, self.staff) = (customers, staff);
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "{self} does not accept after {} s; its log ends:\n{}",
                START_TIMEOUT.as_secs(),
                self.log_tail()
            );
            sleep(Duration::from_millis(20));
        }
    }

    fn log_tail(&self) -> String {
        let text = fs::read(self.dir.path().join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} (process {})", self.program, self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when the process is gone already, which is what is wanted.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn under_our_death(path: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(path);
    command
}

/// The server's defaults: nothing is inherited but what stands at the head of this file.
fn odyssey_environment(command: &mut Command, manner: Manner) {
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("ODYSSEY_") {
            command.env_remove(name);
        }
    }
    command.envs(ODYSSEY.iter().copied());
    let further: &[&[(&str, &str)]] = match manner {
        Manner::Usual | Manner::OneThread | Manner::HalfTheWorkers | Manner::Forgetful => &[],
        Manner::Generous => &[ODYSSEY_GENEROUS],
        Manner::CommitEach => &[ODYSSEY_COMMIT_EACH],
        Manner::Unchecked => &[ODYSSEY_UNCHECKED],
        Manner::Unforgiving => &[ODYSSEY_UNFORGIVING],
        Manner::BehindProxy => &[ODYSSEY_BEHIND_PROXY],
        Manner::Holding => &[ODYSSEY_LONG_LINE],
        Manner::Streams => &[ODYSSEY_GENEROUS, ODYSSEY_STREAMS],
    };
    command.envs(further.iter().copied().flatten().copied());
}

fn built(path: &Path, how: &str) -> Result<PathBuf> {
    ensure!(
        path.is_file(),
        "{} is missing; build it with `{how}`",
        path.display()
    );
    Ok(path.to_owned())
}

/// Looks where daemons are, too: they are not on every user's path.
fn installed(name: &str, package: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|dir: PathBuf| dir.join(name))
        .find(|candidate| candidate.is_file())
        .with_context(|| format!("{name} is missing; install Debian's package {package} (bench/install-peers.sh does)"))
}

fn free_port() -> Result<u16> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("looking for a free port")?;
    Ok(listener.local_addr()?.port())
}

fn unknown() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

fn accepting(port: u16) -> Option<(SocketAddr, SocketAddr)> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect(address)
        .is_ok()
        .then_some((address, address))
}

/// Nothing while the file is not there or not complete.
fn read_addresses(file: &Path) -> Option<(SocketAddr, SocketAddr)> {
    let text = fs::read_to_string(file).ok()?;
    let addresses: serde_json::Value = serde_json::from_str(&text).ok()?;
    let address = |name: &str| {
        addresses
            .get(name)?
            .as_str()?
            .strip_prefix("http://")?
            .parse()
            .ok()
    };
    Some((address("customers")?, address("staff")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_once_they_are_complete() {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("addresses.json");
        let text = r#"{"customers":"http://127.0.0.1:81","staff":"http://127.0.0.1:82"}"#;
        assert_eq!(read_addresses(&file), None);
        fs::write(&file, &text[..40]).unwrap();
        assert_eq!(read_addresses(&file), None);
        fs::write(&file, text).unwrap();
        assert_eq!(
            read_addresses(&file),
            Some((([127, 0, 0, 1], 81).into(), ([127, 0, 0, 1], 82).into()))
        );
    }

    #[test]
    fn half_the_workers_are_those_of_the_measured_server() {
        let defaults = odyssey::config::Config::load(None).unwrap();
        assert_eq!(half_the_workers(), defaults.workers());
    }

    #[test]
    fn a_version_is_found_whatever_stands_around_it() {
        assert_eq!(version_in("odyssey 0.1.0\n"), Some("0.1.0"));
        assert_eq!(version_in("nats-server: v2.9.10\n"), Some("2.9.10"));
        let redis = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64\n";
        assert_eq!(version_in(redis), Some("7.0.15"));
        assert_eq!(version_in("unknown"), None);
    }

    #[test]
    fn a_missing_peer_is_named_with_its_package() {
        let error = installed("no-such-peer", "its-package")
            .unwrap_err()
            .to_string();
        assert!(error.contains("Debian's package its-package"), "{error}");
    }
}
