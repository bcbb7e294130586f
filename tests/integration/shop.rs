//! The fixture: one running server, and what a test does with it.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
#[cfg(feature = "redis")]
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use serde_json::Value;
use tempfile::TempDir;
use testkit::found;
use tokio::time::sleep;

use crate::client::{Answer, Ask, Connection, Door, Visitor, get, order, post};
use crate::metrics::Metrics;

/// How long anything may take that a test waits for. Far more than it takes on a busy machine; only a failure waits
/// that long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How soon a condition is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The program, without the configuration of the user who runs the tests.
pub(crate) fn odyssey() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_odyssey"));
    forget_environment(&mut command);
    command
}

/// The program, started by another one: it comes after these arguments, followed by its own.
pub(crate) fn odyssey_by(starter: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(starter);
    forget_environment(&mut command);
    command.args(arguments);
    command.arg(env!("CARGO_BIN_EXE_odyssey"));
    command
}

/// `orders.lease` as `ODYSSEY_ORDERS__LEASE`.
pub(crate) fn variable(key: &str) -> String {
    format!("ODYSSEY_{}", key.to_uppercase().replace('.', "__"))
}

fn forget_environment(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ODYSSEY_") {
            command.env_remove(name);
        }
    }
}

/// With `SHARED_LINE=1` in the environment the line of each shop is in Redis.
#[cfg(feature = "redis")]
static ALL_SHARED: LazyLock<bool> =
    LazyLock::new(|| std::env::var_os("SHARED_LINE").is_some_and(|value| value == "1"));

/// A running server.
#[derive(Debug)]
pub(crate) struct Shop {
    child: Child,
    pub(crate) customers: Door,
    pub(crate) staff: Door,
    pub(crate) dir: TempDir,
}

impl Drop for Shop {
    /// Reached with a running server only if the test has failed, or says that it may be left so.
    fn drop(&mut self) {
        // Both fail if it has ended already, which is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "a failed test shows the server's log")]
            {
                eprintln!("--- the server's log ---\n{}", self.log());
            }
        }
    }
}

impl Shop {
    /// A shop with these settings; the rest has its defaults, except the ports and a talkative log.
    pub(crate) async fn open(settings: &[(&str, &str)]) -> Self {
        Self::run(odyssey(), settings).await
    }

    /// A shop that may open so many files.
    pub(crate) async fn open_with_files(files: u32, settings: &[(&str, &str)]) -> Self {
        let script = format!("ulimit -n {files}; exec \"$0\" \"$@\"");
        Self::run(odyssey_by("sh", &["-c", &script]), settings).await
    }

    /// A shop that is started by this command; it becomes the server, whose arguments are still to come.
    pub(crate) async fn run(mut command: Command, settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let addresses = dir.path().join("addresses.json");
        let log = File::create(log_file(dir.path())).unwrap();
        let ours = [
            ("customers.listen", "127.0.0.1:0"),
            ("staff.listen", "127.0.0.1:0"),
            // As by default, and what tests call it that write their own bytes.
            ("staff.hosts", "localhost,*.localhost,ip,shop,bar"),
            ("log.format", "json"),
            ("log.level", "info,odyssey=debug"),
        ];
        #[cfg(feature = "redis")]
        if *ALL_SHARED {
            crate::servers::share_line(&mut command).await;
        }
        for (key, value) in ours.iter().chain(settings) {
            command.env(variable(key), value);
        }
        command.args(["serve", "--addresses"]).arg(&addresses);
        // The data directory is relative to it.
        command.current_dir(dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(log).spawn().unwrap();
        // From here on its end is taken care of, whatever fails.
        let unused = Door::at(SocketAddr::from(([0, 0, 0, 0], 0)));
        let mut shop = Self {
            child,
            customers: unused,
            staff: unused,
            dir,
        };
        let opened = found("the addresses are written", async || {
            let ended = shop.child.try_wait().unwrap();
            assert!(ended.is_none(), "the server ended: {ended:?}");
            std::fs::read(&addresses).ok()
        });
        let opened: Value = serde_json::from_slice(&opened.await).unwrap();
        shop.customers = door(&opened["customers"]);
        shop.staff = door(&opened["staff"]);
        shop
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// What the server has logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(log_file(self.dir.path())).unwrap_or_default()
    }

    // --- Looking at it ---------------------------------------------------------------------------------------------

    pub(crate) async fn metrics(&self) -> Metrics {
        let answer = self.staff.ask(get("/metrics")).await;
        assert_eq!(answer.status, 200, "{answer}");
        Metrics::read(answer.text())
    }

    /// Waits until the metrics are as described, and returns them.
    pub(crate) async fn until(
        &self,
        what: &str,
        mut as_described: impl FnMut(&Metrics) -> bool,
    ) -> Metrics {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let metrics = self.metrics().await;
            if as_described(&metrics) {
                return metrics;
            }
            assert!(
                Instant::now() < deadline,
                "never so: {what}. What is so:\n{metrics}"
            );
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Where the order stands.
    pub(crate) async fn state(&self, id: &str) -> Value {
        let answer = self.customers.ask(get(format!("/orders/{id}"))).await;
        answer.expect(200)
    }

    // --- Customers -------------------------------------------------------------------------------------------------

    /// A customer whose order is in line (or with a barista) when this returns. One at a time.
    pub(crate) async fn customer(&self, ask: Ask) -> Visitor {
        let before = self.metrics().await;
        let visitor = self.customers.hold(ask);
        self.until("the order is placed, or joined", |now| {
            now.placed() + now.attached() > before.placed() + before.attached()
        })
        .await;
        visitor
    }

    /// A customer on this connection whose order is in line when this returns. One at a time.
    pub(crate) async fn customer_over(&self, mut connection: Connection, ask: Ask) -> Visitor {
        let before = self.metrics().await.placed();
        let visitor = Visitor::new(async move { connection.try_ask(&ask).await });
        self.until("the order is placed", |now| now.placed() > before)
            .await;
        visitor
    }

    /// An order for which no request is held; its id.
    pub(crate) async fn promised(&self) -> String {
        let answer = self.customers.ask(order().prefer("respond-async")).await;
        text(&answer.expect(202)["order_id"])
    }

    // --- Staff -----------------------------------------------------------------------------------------------------

    /// Takes the oldest order, which must be there.
    pub(crate) async fn start(&self) -> Started {
        Started::of(&self.staff.ask(get("/start/")).await.expect(200))
    }

    /// Takes what `/start/` gives for this query.
    pub(crate) async fn pull(&self, query: &str) -> Answer {
        self.staff.ask(get(format!("/start/?{query}"))).await
    }

    /// A barista who waits for an order, and is counted as idle when this returns. One at a time.
    pub(crate) async fn idle_barista(&self, query: &str) -> Visitor {
        let before = self.metrics().await.idle_baristas();
        let visitor = self.staff.hold(get(format!("/start/?wait=50&{query}")));
        self.until("the barista is idle", |now| now.idle_baristas() > before)
            .await;
        visitor
    }

    /// Reports the order ready, which must be possible.
    pub(crate) async fn finish(&self, id: &str) -> Value {
        self.try_finish(id, "").await.expect(200)
    }

    pub(crate) async fn try_finish(&self, id: &str, more: &str) -> Answer {
        let path = format!("/finish/?order_id={id}{more}");
        self.staff.ask(post(path)).await
    }

    /// Serves all customers in line, one after the other; the names in the order they were taken.
    pub(crate) async fn serve_all(&self) -> Vec<String> {
        let mut names = Vec::new();
        loop {
            let answer = self.pull("wait=0").await;
            if answer.status == 204 {
                return names;
            }
            let started = Started::of(&answer.expect(200));
            self.finish(&started.id).await;
            names.push(started.customer.unwrap_or_default());
        }
    }

    /// Serves so many, on one connection: after the last of them a server that is stopping is gone.
    pub(crate) async fn serve_on_one_connection(&self, count: usize) {
        let mut barista = self.staff.connect().await;
        for _ in 0..count {
            let started = Started::of(&barista.ask(&get("/start/")).await.expect(200));
            let finish = post(format!("/finish/?order_id={}", started.id));
            barista.ask(&finish).await.expect(200);
        }
    }

    // --- Its end ---------------------------------------------------------------------------------------------------

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits until the process has ended.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        found("the server ends", async || child.try_wait().unwrap()).await
    }

    /// Ends it as a crash does: at once, in the middle of whatever it is doing.
    pub(crate) async fn crash(mut self) {
        self.signal(Signal::KILL);
        let status = self.ended().await;
        assert_eq!(status.code(), None, "it had ended by itself: {status}");
    }

    /// Waits for an orderly end, after which nothing in the log speaks of a bug.
    pub(crate) async fn ended_well(mut self) -> String {
        let status = self.ended().await;
        assert_eq!(status.code(), Some(0), "{status}");
        let log = self.log();
        for line in log.lines() {
            let bad = line.contains("\"level\":\"ERROR\"") || line.contains("panicked");
            assert!(!bad, "the log says: {line}");
        }
        assert_no_secret(&log);
        log
    }

    /// Closes the shop, which must be empty: no request held, no barista idle, no connection open, no order that was
    /// placed and is counted nowhere.
    pub(crate) async fn close(self) -> String {
        self.until("nobody is left in the shop, and its orders add up", |now| {
            now.left_in_the_shop() == 0 && now.orders_add_up()
        })
        .await;
        self.signal(Signal::TERM);
        self.ended_well().await
    }
}

/// Checks that there is no token in a text: no `ody_`, id and secret.
#[track_caller]
pub(crate) fn assert_no_secret(text: &str) {
    for (at, _) in text.match_indices("ody_") {
        let rest = text[at + 4..].bytes().take(20);
        let is_token = rest.clone().take(12).all(|b| b.is_ascii_hexdigit())
            && rest.clone().nth(12) == Some(b'_');
        let around = text[at.saturating_sub(100)..].chars().take(200);
        assert!(!is_token, "a token: {}", around.collect::<String>());
    }
}

/// An order as `/start/` gives it.
#[derive(Debug, Clone)]
pub(crate) struct Started {
    pub(crate) id: String,
    pub(crate) customer: Option<String>,
    pub(crate) attempt: u64,
    pub(crate) customer_waiting: bool,
}

impl Started {
    #[track_caller]
    pub(crate) fn of(json: &Value) -> Self {
        Self {
            id: text(&json["order_id"]),
            customer: json["customer"].as_str().map(str::to_owned),
            attempt: json["attempt"].as_u64().unwrap(),
            customer_waiting: json["customer_waiting"].as_bool().unwrap(),
        }
    }
}

#[track_caller]
pub(crate) fn text(json: &Value) -> String {
    match json.as_str() {
        Some(text) => text.to_owned(),
        None => panic!("not a text: {json}"),
    }
}

fn log_file(dir: &Path) -> PathBuf {
    dir.join("log.json")
}

fn door(url: &Value) -> Door {
    let address = url.as_str().and_then(|url| url.split_once("://"));
    Door::at(address.unwrap().1.parse().unwrap())
}

/// Lets this test open so many files at once.
pub(crate) fn need_open_files(files: u64) {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    assert!(
        most >= files,
        "this test needs {files} open files, and the limit is {most}: raise it (ulimit -Hn)"
    );
    if limit.current.is_some_and(|current| current < files) {
        let raised = Rlimit {
            current: Some(files),
            maximum: limit.maximum,
        };
        setrlimit(Resource::Nofile, raised).unwrap();
    }
}

#[tokio::test]
async fn somebody_left_in_the_shop_is_seen() {
    let shop = Shop::open(&[]).await;
    let left = async |count: usize| {
        let what = format!("{count} are left");
        shop.until(&what, |now| now.left_in_the_shop() == count)
            .await;
    };
    left(0).await;
    let barista = shop.idle_barista("").await;
    // The barista, and the connection.
    left(2).await;
    let customer = shop.customer(order().prefer("wait=50")).await;
    barista.answer().await.expect(200);
    left(2).await;
    let connection = shop.customers.raw().await;
    left(3).await;
    drop(connection);
    customer.leave().await;
    left(0).await;
    shop.close().await;
}
