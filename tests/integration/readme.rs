//! Runs the console blocks of README.md and of each page in `docs/`, unchanged and in their order: no command may fail or be unknown.
//!
//! [`RULES`] says how each command is tried; a command without a rule fails the test. Every document starts with an empty directory
//! and without a server. Ports are replaced by free ones, and `target/quick/odyssey` is the program under test.

use std::collections::HashMap;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use testkit::{found, until};

use crate::client::{Door, get, order};
use crate::shop::{PATIENCE, variable};

/// How a command of a document is tried.
#[derive(Debug, Clone, Copy)]
enum Rule {
    /// It starts the server that the following commands talk to, in place of the previous one.
    Serves,
    /// It is an engine that listens on this port of the document.
    Engine(u16),
    /// It waits for a barista, beside the commands after it, and prints `ready` once one has finished its order.
    Held,
    /// It succeeds.
    Runs,
    /// It succeeds as soon as a message has arrived.
    RunsSoon,
    /// It succeeds once this address is cut off.
    RunsCutOff(&'static str),
    /// It takes minutes, or a network, and has tests of its own: here its target must exist in the Makefile.
    Make,
    /// It needs Docker: its profile must exist in docker-compose.yml.
    Compose,
    /// It takes minutes, and has tests of its own: its scenario must exist in simulators/.
    Simulator,
    /// It needs replicas and Sentinels: here its program must exist, and the port must be the first argument.
    Replicated,
}

/// How each command is tried, by how it begins; the first that fits decides. Variables before a command do not count.
const RULES: &[(&str, Rule)] = &[
    ("make run", Rule::Serves),
    (
        "cargo run --profile quick --features aws -- serve",
        Rule::Serves,
    ),
    (
        "cargo run --profile quick --features redis -- serve",
        Rule::Serves,
    ),
    ("target/quick/odyssey serve", Rule::Serves),
    ("scripts/emulator ", Rule::Engine(9911)),
    ("redis-server ", Rule::Engine(6379)),
    ("redis-cli -p ", Rule::Replicated),
    ("target/quick/odyssey order", Rule::Held),
    ("curl -X POST localhost:8000/order/", Rule::Held),
    (
        "target/quick/odyssey flood unblock 192.0.2.7",
        Rule::RunsCutOff("192.0.2.7"),
    ),
    ("curl 'localhost:8001/courier?", Rule::RunsSoon),
    ("target/quick/odyssey ", Rule::Runs),
    ("ORDER_ID=", Rule::Runs),
    ("ODYSSEY_TOKEN=", Rule::Runs),
    ("printf ", Rule::Runs),
    ("curl ", Rule::Runs),
    ("export ", Rule::Runs),
    ("aws sns publish ", Rule::Runs),
    ("make ", Rule::Make),
    ("docker compose ", Rule::Compose),
    (
        "cargo run --profile quick -p simulators -- ",
        Rule::Simulator,
    ),
];

/// What the commands find on their way: curl fails on a problem, and the AWS command line is a request to the emulator.
const PRELUDE: &str = r#"
set -euo pipefail
aws() {
  local topic= message=
  while (($#)); do
    case $1 in
    --topic-arn) topic=$2 ;;
    --message) message=$2 ;;
    esac
    shift
  done
  curl "$AWS_ENDPOINT_URL/" \
    -H "Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/$AWS_REGION/sns/aws4_request, SignedHeaders=host, Signature=0" \
    --data-urlencode Action=Publish --data-urlencode Version=2010-03-31 \
    --data-urlencode "TopicArn=$topic" --data-urlencode "Message=$message"
}
"#;

#[tokio::test]
async fn every_command_of_the_readme_and_the_docs_does_what_it_says() {
    let mut typed = 0;
    for document in documents() {
        let commands = commands(&fs::read_to_string(repository().join(&document)).unwrap());
        if commands.is_empty() {
            continue;
        }
        let mut reader = Reader::new(&document);
        for command in &commands {
            reader.types(command).await;
        }
        reader.closes().await;
        typed += commands.len();
    }
    assert!(typed > 40, "only {typed} commands");
}

#[test]
fn the_readme_and_the_page_of_each_desk_have_commands() {
    let documents = documents();
    for page in [
        "README.md",
        "docs/orders.md",
        "docs/deliveries.md",
        "docs/packages.md",
        "docs/assignments.md",
        "docs/couriers.md",
        "docs/access.md",
    ] {
        assert!(documents.iter().any(|document| document == page), "{page}");
        let text = fs::read_to_string(repository().join(page)).unwrap();
        assert!(!commands(&text).is_empty(), "{page}");
    }
}

#[test]
fn commands_are_read_from_console_blocks_only_and_joined_where_they_go_on() {
    let text = "```sh\nno\n```\nno\n```console\none\n\ntwo \\\n  more\n```\nno\n```console\nthree  # why\n```\n";
    assert_eq!(commands(text), ["one", "two \\\n  more", "three  # why"]);
}

#[test]
#[should_panic(expected = "RULES")]
fn a_command_that_nothing_is_known_of_fails() {
    rule("make-believe");
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README.md and the pages of `docs/`, not those of its folders, which are not instructions.
fn documents() -> Vec<String> {
    let pages = fs::read_dir(repository().join("docs")).unwrap();
    let mut documents: Vec<String> = pages
        .map(|page| page.unwrap().path())
        .filter(|page| page.extension().is_some_and(|extension| extension == "md"))
        .map(|page| format!("docs/{}", page.file_name().unwrap().display()))
        .collect();
    documents.sort();
    documents.insert(0, "README.md".to_owned());
    documents
}

/// Every command of every console block; one that goes on after a backslash is one.
fn commands(text: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    let mut inside = false;
    let mut goes_on = false;
    for line in text.lines() {
        match line {
            "```console" => inside = true,
            "```" => inside = false,
            line if !inside || line.trim().is_empty() => {}
            line if goes_on => {
                let command = commands.last_mut().unwrap();
                command.push('\n');
                command.push_str(line);
                goes_on = line.ends_with('\\');
            }
            line => {
                commands.push(line.to_owned());
                goes_on = line.ends_with('\\');
            }
        }
    }
    commands
}

/// A command without the variables that are set for it.
fn bare(command: &str) -> &str {
    let mut rest = command.trim_start_matches(['\\', '\n', ' ']);
    while let Some((word, more)) = rest.split_once(' ') {
        let variable = word.split_once('=').is_some_and(|(name, value)| {
            name.starts_with(|letter: char| letter.is_ascii_uppercase()) && !value.starts_with("$(")
        });
        if !variable {
            break;
        }
        rest = more.trim_start_matches(['\\', '\n', ' ']);
    }
    rest
}

fn rule(command: &str) -> Rule {
    let bare = bare(command);
    let found = RULES.iter().find(|(begins, _)| bare.starts_with(begins));
    match found {
        Some((_, rule)) => *rule,
        None => panic!(
            "a document has a new command: say in RULES (tests/integration/readme.rs) how it is tried: {command}"
        ),
    }
}

/// A user with a few shells who runs the commands of one document.
struct Reader {
    document: String,
    dir: TempDir,
    /// A free port for each port in the documents.
    ports: HashMap<u16, u16>,
    server: Option<Child>,
    engines: Vec<Child>,
    held: Vec<(String, Child)>,
}

impl Drop for Reader {
    /// What still runs when a test has failed, and engines, which store nothing.
    fn drop(&mut self) {
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "a failed test shows the log")]
            {
                let log = fs::read_to_string(self.dir.path().join("log"));
                eprintln!(
                    "--- servers and engines of {} ---\n{}",
                    self.document,
                    log.unwrap_or_default()
                );
            }
        }
        let held = self.held.iter_mut().map(|(_, child)| child);
        for child in self.server.iter_mut().chain(&mut self.engines).chain(held) {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

impl Reader {
    fn new(document: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::create_dir_all(at("target/quick")).unwrap();
        fs::create_dir_all(at("home/.local/share/bash-completion/completions")).unwrap();
        symlink(env!("CARGO_BIN_EXE_odyssey"), at("target/quick/odyssey")).unwrap();
        symlink(repository().join("tests"), at("tests")).unwrap();
        fs::write(at("prelude"), PRELUDE).unwrap();
        fs::write(at("variables"), "").unwrap();
        fs::write(at("home/.curlrc"), "silent\nshow-error\nfail-with-body\n").unwrap();
        fs::write(at("odyssey.toml"), "[orders]\nlease = \"3m\"\n").unwrap();
        // Open until all are found, so that all differ. None begins like a port in the documents.
        let mut free = std::iter::repeat_with(|| {
            TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap()
        })
        .map(|listener| (listener.local_addr().unwrap().port(), listener))
        .filter(|(port, _)| !port.to_string().starts_with("4566"));
        let listeners = [8000, 8001, 4566, 6379, 9911].map(|port| (port, free.next().unwrap()));
        let ports = listeners.iter().map(|(port, (free, _))| (*port, *free));
        Self {
            document: document.to_owned(),
            ports: ports.collect(),
            dir,
            server: None,
            engines: Vec::new(),
            held: Vec::new(),
        }
    }

    async fn types(&mut self, command: &str) {
        let rule = rule(command);
        match rule {
            Rule::Serves => self.serves(command).await,
            Rule::Engine(port) => self.engine(command, port).await,
            Rule::Held => self.holds(command).await,
            Rule::Runs => self.runs(command),
            Rule::RunsSoon => {
                found(command, async || self.tries(command).ok()).await;
            }
            Rule::RunsCutOff(address) => {
                self.cut_off(address).await;
                self.runs(command);
            }
            Rule::Make => {
                let make = bare(command).split('#').next().unwrap().trim();
                let targets = make.trim_start_matches("make").split_whitespace();
                let mut dry = Command::new("make");
                dry.env_remove("MAKEFLAGS").arg("-n").args(targets);
                let output = dry.current_dir(repository()).output().unwrap();
                assert!(output.status.success(), "{command}: {output:?}");
            }
            Rule::Compose => Self::compose(command),
            Rule::Simulator => {
                let name = bare(command).rsplit(' ').next().unwrap();
                let scenario = repository().join(format!("simulators/src/{name}"));
                let exists = scenario.is_dir() || scenario.with_extension("rs").is_file();
                assert!(exists, "{command}: there is no {}", scenario.display());
            }
            Rule::Replicated => {
                let mut words = command.split_whitespace();
                let program = words.next().unwrap();
                let port = words.nth(1).unwrap().parse::<u16>();
                assert!(port.is_ok(), "{command}: {port:?}");
                let output = Command::new(program).arg("--version").output().unwrap();
                assert!(output.status.success(), "{command}: {output:?}");
            }
        }
    }

    /// A shell in which the command is typed, with the variables that were set before.
    fn shell(&self, command: &str) -> Command {
        let mut typed = command.to_owned();
        for (port, free) in &self.ports {
            for before in [":", "-p ", "--port "] {
                typed = typed.replace(&format!("{before}{port}"), &format!("{before}{free}"));
            }
        }
        let script = format!(". ./prelude\nset -a\n. ./variables\n{typed}\n");
        let mut shell = Command::new("bash");
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("ODYSSEY_") || name.starts_with("AWS_") {
                shell.env_remove(&*name);
            }
        }
        for (key, port) in [("customers.listen", 8000), ("staff.listen", 8001)] {
            shell.env(variable(key), format!("127.0.0.1:{}", self.ports[&port]));
        }
        shell.env(variable("flood.trusted_proxies"), "127.0.0.1/32");
        shell.env("HOME", self.dir.path().join("home"));
        shell.args(["-c", &script]).current_dir(self.dir.path());
        shell.stdin(Stdio::null());
        shell
    }

    fn tries(&self, command: &str) -> Result<String, String> {
        // What it sets is there for the next one.
        let remembered = format!("{command}\nexport -p > variables");
        let output = self.shell(&remembered).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            return Ok(text(&output.stdout));
        }
        let message = text(&output.stdout) + &text(&output.stderr);
        Err(format!(
            "{command}\nended with {}:\n{message}",
            output.status
        ))
    }

    fn runs(&self, command: &str) {
        if let Err(failure) = self.tries(command) {
            panic!("{failure}");
        }
    }

    /// Runs it beside the others, as the only process of its shell.
    fn starts(&self, command: &str, output: Stdio) -> Child {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))
            .unwrap();
        let mut shell = self.shell(command);
        shell.stdout(output).stderr(log).spawn().unwrap()
    }

    async fn serves(&mut self, command: &str) {
        self.stops_server().await;
        if command.contains(":4566") {
            // LocalStack is a container; the emulator stands in for it.
            self.engine("scripts/emulator -H 127.0.0.1 -p 4566", 4566)
                .await;
        }
        let bare = bare(command);
        let (variables, _) = command.split_at(command.len() - bare.len());
        let serve = bare
            .strip_prefix("target/quick/odyssey ")
            .unwrap_or("serve");
        let command = format!("{variables} exec target/quick/odyssey {serve}");
        self.server = Some(self.starts(&command, Stdio::null()));
        self.until_open(8001).await;
        if !command.contains("TLS__") {
            self.door(8001).ask(get("/readyz")).await.expect(200);
        }
    }

    async fn engine(&mut self, command: &str, port: u16) {
        let here = format!("{}/scripts/", repository().display());
        let command = command.replace("scripts/", &here);
        let engine = self.starts(&format!("exec {command}"), Stdio::null());
        self.engines.push(engine);
        self.until_open(port).await;
    }

    async fn until_open(&self, port: u16) {
        let address = self.door(port).address;
        until("something listens", async || {
            std::net::TcpStream::connect(address).is_ok()
        })
        .await;
    }

    fn door(&self, port: u16) -> Door {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports[&port]));
        Door::at(address)
    }

    async fn waiting(&self) -> usize {
        let metrics = self.door(8001).ask(get("/metrics")).await;
        crate::metrics::Metrics::read(metrics.text()).waiting()
    }

    async fn holds(&mut self, command: &str) {
        let child = self.starts(command, Stdio::piped());
        self.held.push((command.to_owned(), child));
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.waiting().await == 0 {
            assert!(
                tokio::time::Instant::now() < deadline,
                "not in line: {command}"
            );
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// So many orders from one address, through a proxy, that it is refused and then cut off.
    async fn cut_off(&self, address: &str) {
        let mut customers = self.door(8000).connect().await;
        let ask = order()
            .prefer("respond-async")
            .header("X-Forwarded-For", address);
        for _ in 0..1000 {
            let answer = customers.ask(&ask).await;
            if answer.status == 429 && answer.text().contains("cut-off") {
                return;
            }
        }
        panic!("{address} is not cut off");
    }

    fn compose(command: &str) {
        let file = fs::read_to_string(repository().join("docker-compose.yml")).unwrap();
        let mut words = command.split_whitespace();
        while let Some(word) = words.next() {
            match word {
                "--profile" => {
                    let profile = words.next().unwrap();
                    let exists = file.contains(&format!("profiles: [{profile}]"));
                    assert!(exists, "{command}: no such profile");
                }
                "--env-file" => {
                    let file = repository().join(words.next().unwrap());
                    assert!(file.is_file(), "{command}: {}", file.display());
                }
                _ => {}
            }
        }
    }

    /// Each order that was waited for has been finished; the server ends in order.
    async fn stops_server(&mut self) {
        for (command, mut child) in std::mem::take(&mut self.held) {
            let status = found(&command, async || child.try_wait().unwrap()).await;
            let output = child.wait_with_output().unwrap();
            let message = String::from_utf8_lossy(&output.stdout);
            assert!(
                status.success() && message.contains("ready"),
                "{command}: {message}"
            );
        }
        if let Some(mut server) = self.server.take() {
            kill_process(Pid::from_child(&server), Signal::TERM).unwrap();
            let status = found("the server ends", async || server.try_wait().unwrap()).await;
            assert!(status.success(), "{status}");
        }
    }

    async fn closes(mut self) {
        self.stops_server().await;
    }
}
