//! The programs that are measured: found, started on free ports with a directory of their own, and always stopped.
//!
//! A server is stopped when its [`Server`] is dropped. If this program itself is killed, the kernel stops it: each program
//! is started through `setpriv --pdeathsig`, which then becomes the program.

use std::env;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::{available_parallelism, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustls::ClientConfig;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::access;
use crate::machine::Pinned;
use crate::rows::{Origin, Program, ROWS, Subject};
use crate::tls;

const START_TIMEOUT: Duration = Duration::from_secs(20);
const POLL_EVERY: Duration = Duration::from_millis(20);
const LOG_TAIL_LINES: usize = 8;
/// What a token begins with.
const TOKEN_PREFIX: &str = "ody_";
/// Where the commands before the start put the server's certificate.
const CERTIFICATE: &str = "tls.crt";

/// As many threads as serve in the measured server by default: half of the processors, rounded up.
pub(crate) fn half_the_processors() -> usize {
    available_parallelism().map_or(1, |processors| processors.get().div_ceil(2))
}

/// A runtime with as many threads, for loads that run in this process.
pub(crate) fn runtime() -> Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder
        .worker_threads(half_the_processors())
        .enable_all()
        .build();
    runtime.context("starting a runtime")
}

/// Where the programs are.
pub(crate) struct Programs {
    server: Option<PathBuf>,
    /// This program.
    own: PathBuf,
    /// Where all programs have their directories.
    pub(crate) data: PathBuf,
    pub(crate) pinned: Option<Pinned>,
}

impl Programs {
    pub(crate) fn locate(
        server: Option<PathBuf>,
        data: Option<PathBuf>,
        pinned: Option<Pinned>,
    ) -> Result<Self> {
        let server = server.map(std::path::absolute).transpose()?;
        let own = env::current_exe().context("the path of this program")?;
        let data = data.unwrap_or_else(env::temp_dir);
        Ok(Programs {
            server,
            own,
            data,
            pinned,
        })
    }

    /// The path of a program, or what to do to have it.
    pub(crate) fn path(&self, name: &str) -> Result<PathBuf> {
        let Program {
            file, from, remedy, ..
        } = &ROWS.programs[name];
        let candidates: Vec<PathBuf> = match (from, &self.server) {
            (_, Some(server)) if name == "odyssey" => vec![server.clone()],
            (Origin::Build, _) => vec![self.own.with_file_name(file)],
            (Origin::Target, _) => self
                .own
                .ancestors()
                .skip(2)
                .take(1)
                .map(|dir| dir.join(file))
                .collect(),
            (Origin::Path, _) => {
                let path = env::var_os("PATH").unwrap_or_default();
                // Daemons are not on every user's path.
                let daemons = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
                env::split_paths(&path)
                    .chain(daemons)
                    .map(|dir| dir.join(file))
                    .collect()
            }
        };
        let found = candidates.into_iter().find(|path| path.is_file());
        found.with_context(|| format!("{file} is missing: run `{remedy}`"))
    }

    /// The name and version of a program.
    pub(crate) fn version(&self, name: &str) -> Result<String> {
        let output = Command::new(self.path(name)?).arg("--version").output();
        let output = output.context("asking for a version")?.stdout;
        let output = String::from_utf8_lossy(&output);
        Ok(format!(
            "{name} {}",
            version_in(&output).unwrap_or("(version unknown)")
        ))
    }

    pub(crate) fn directory(&self) -> Result<TempDir> {
        let dir = TempDir::with_prefix_in("odyssey-bench-", &self.data);
        dir.with_context(|| format!("in {}", self.data.display()))
    }

    /// A subject's program in this directory, with its arguments and settings and without those of this process's
    /// environment. It ends with this process. If it is pinned, it sees one processor, and has as many threads.
    pub(crate) fn command(&self, subject: &Subject, dir: &Path, port: u16) -> Result<Command> {
        let mut command = match self.pinned {
            None => Command::new("setpriv"),
            Some(Pinned { servers, .. }) => {
                let mut command = Command::new("taskset");
                command.args(["--cpu-list", &servers.to_string(), "setpriv"]);
                command
            }
        };
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(self.path(&subject.program)?);
        command.current_dir(dir).stdin(Stdio::null());
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("ODYSSEY_") {
                command.env_remove(name);
            }
        }
        command.env_remove("TOKIO_WORKER_THREADS");
        command.env("ODYSSEY_CUSTOMERS__LISTEN", "127.0.0.1:0");
        command.env("ODYSSEY_STAFF__LISTEN", "127.0.0.1:0");
        for argument in &ROWS.programs[&subject.program].arguments {
            let argument = argument.replace("{addresses}", "addresses.json");
            command.arg(argument.replace("{port}", &port.to_string()));
        }
        for (name, value) in subject
            .settings
            .iter()
            .flat_map(|settings| &ROWS.settings[settings])
        {
            if name == "arguments" {
                command.args(value.split(' '));
            } else if name != "before" {
                command.env(
                    name,
                    value.replace("{workers}", &half_the_processors().to_string()),
                );
            }
        }
        Ok(command)
    }

    /// Runs the commands of the program that its settings have `before` its start, in its directory. Returns the tokens
    /// that they printed.
    fn prepare(&self, subject: &Subject, dir: &Path) -> Result<Vec<String>> {
        let settings = subject.settings.iter();
        let commands = settings.filter_map(|name| ROWS.settings[name].get("before"));
        let mut tokens = Vec::new();
        for arguments in commands.flat_map(|commands| commands.split("; ")) {
            let mut command = Command::new(self.path(&subject.program)?);
            let output = command.args(arguments.split(' ')).current_dir(dir).output();
            let output = output.with_context(|| format!("running {arguments}"))?;
            ensure!(
                output.status.success(),
                "{arguments}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            let printed = String::from_utf8(output.stdout)?;
            let printed = printed
                .lines()
                .filter(|line| line.starts_with(TOKEN_PREFIX));
            tokens.extend(printed.map(str::to_owned));
        }
        Ok(tokens)
    }

    /// Starts a server and waits until it accepts connections.
    pub(crate) fn start(&self, subject: &Subject) -> Result<Server> {
        self.start_with(subject, &[])
    }

    /// The same, with environment variables in addition to its settings.
    pub(crate) fn start_with(&self, subject: &Subject, more: &[(&str, &str)]) -> Result<Server> {
        let dir = self.directory()?;
        let port = free_port()?;
        let tokens = self.prepare(subject, dir.path())?;
        let certificate = dir.path().join(CERTIFICATE);
        let tls = certificate.exists().then(|| tls::trusting(&certificate));
        let tls = tls.transpose()?;
        let log = File::create(dir.path().join("log"))?;
        let mut command = self.command(subject, dir.path(), port)?;
        command.envs(more.iter().copied());
        let child = command.stdout(log.try_clone()?).stderr(log).spawn();
        let child =
            child.with_context(|| format!("starting {} through setpriv", subject.program))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut server = Server {
            child,
            dir,
            customers: address,
            staff: address,
            tokens,
            tls,
        };
        let announces = ROWS.programs[&subject.program]
            .arguments
            .iter()
            .any(|text| text == "{addresses}");
        let accepting = server.await_addresses(announces);
        server.explain(accepting)?;
        Ok(server)
    }
}

/// The first word with a digit in it.
fn version_in(output: &str) -> Option<&str> {
    let mut words = output.split_ascii_whitespace();
    let word = words.find(|word| word.contains(|char: char| char.is_ascii_digit()))?;
    Some(word.trim_start_matches("v=").trim_start_matches('v'))
}

/// A running server. Dropping it stops it.
pub(crate) struct Server {
    child: Child,
    dir: TempDir,
    /// Where customers connect.
    pub(crate) customers: SocketAddr,
    /// Where workers connect.
    pub(crate) staff: SocketAddr,
    /// In the order of their creation. A barista's is the first.
    pub(crate) tokens: Vec<String>,
    /// Trusts its certificate; none without TLS.
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

impl Server {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The header's line of a barista's requests; empty where they need no token.
    pub(crate) fn authorization(&self) -> String {
        let token = self.tokens.first();
        token.map_or_else(String::new, |token| access::authorization(token))
    }

    /// Adds the end of the server's log to an error.
    pub(crate) fn explain<T>(&self, result: Result<T>) -> Result<T> {
        result.with_context(|| {
            let log = fs::read(self.dir.path().join("log")).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n");
            format!("the server's log ends:\n{tail}")
        })
    }

    fn await_addresses(&mut self, announces: bool) -> Result<()> {
        let end = Instant::now() + START_TIMEOUT;
        let file = self.dir.path().join("addresses.json");
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended at its start with {status}");
            }
            if let Some(addresses) = read_addresses(&file) {
                (self.customers, self.staff) = addresses;
                return Ok(());
            }
            if !announces && TcpStream::connect(self.staff).is_ok() {
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "it does not accept after {START_TIMEOUT:?}"
            );
            sleep(POLL_EVERY);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if the process is gone already.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn free_port() -> Result<u16> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("looking for a free port")?;
    Ok(listener.local_addr()?.port())
}

/// Nothing while the file is missing or incomplete.
fn read_addresses(file: &Path) -> Option<(SocketAddr, SocketAddr)> {
    let text = fs::read_to_string(file).ok()?;
    let addresses: serde_json::Value = serde_json::from_str(&text).ok()?;
    let address = |name: &str| {
        addresses
            .get(name)?
            .as_str()?
            .split_once("://")?
            .1
            .parse()
            .ok()
    };
    Some((address("customers")?, address("staff")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_the_processors_are_the_measured_servers_workers() {
        let defaults = odyssey::config::Config::load(None).unwrap();
        assert_eq!(half_the_processors(), defaults.workers());
    }
}
