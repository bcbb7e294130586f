//! What each signal does, in each phase of the server's life.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use testkit::{found, until};
use tokio::net::UnixDatagram;

use crate::client::{get, order, within};
use crate::shop::{Shop, odyssey, odyssey_by, variable};

const STOP: [(Signal, i32); 3] = [(Signal::INT, 130), (Signal::QUIT, 131), (Signal::TERM, 143)];

async fn logged(shop: &Shop, what: &str) {
    until(what, async || shop.log().contains(what)).await;
}

#[tokio::test]
async fn no_signal_drops_a_held_customer() {
    for (signal, text) in [
        (Signal::HUP, "the configuration was reloaded"),
        (Signal::USR1, "a signal is ignored"),
        (Signal::USR2, "a signal is ignored"),
        (Signal::TERM, "draining"),
        (Signal::INT, "draining"),
        (Signal::QUIT, "draining"),
    ] {
        let shop = Shop::open(&[]).await;
        let customer = shop.customer(order()).await;
        shop.signal(signal);
        logged(&shop, text).await;
        assert!(customer.is_held(), "{signal:?}");
        shop.serve_on_one_connection(1).await;
        customer.answer().await.expect(200);
        if text == "draining" {
            shop.ended_well().await;
        } else {
            shop.customers.ask(get("/readyz")).await.expect(200);
            shop.close().await;
        }
    }
}

// --- Opening -------------------------------------------------------------------------------------------------------

/// A pipe with a name.
fn pipe(path: &Path) -> PathBuf {
    let made = Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
    path.to_owned()
}

/// A server that is still opening; it is killed when the test ends otherwise.
struct Opening(Child, PathBuf);

impl Drop for Opening {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Opening {
    fn start(dir: &Path, settings: &[(&str, &str)]) -> Self {
        let mut command = odyssey();
        let log = dir.join("log");
        let ours = [
            ("customers.listen", "127.0.0.1:0"),
            ("staff.listen", "127.0.0.1:0"),
            ("log.format", "json"),
            // With one worker, a worker that waits is all of them.
            ("runtime.workers", "1"),
        ];
        for (key, value) in ours.iter().chain(settings) {
            command.env(variable(key), value);
        }
        command.arg("serve").current_dir(dir);
        command.stdout(Stdio::null());
        let child = command.stderr(fs::File::create(&log).unwrap()).spawn();
        Self(child.unwrap(), log)
    }

    async fn has_logged(&self, what: &str) {
        let text = || fs::read_to_string(&self.1).unwrap_or_default();
        until(what, async || text().contains(what)).await;
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.0;
        found("the server ends", async || child.try_wait().unwrap()).await
    }
}

#[tokio::test]
async fn a_server_that_waits_for_a_file_while_it_opens_can_be_stopped() {
    for (signal, code) in STOP {
        let dir = tempfile::tempdir().unwrap();
        let manifest = pipe(&dir.path().join("manifest.json"));
        let manifest = manifest.to_str().unwrap();
        let mut server = Opening::start(dir.path(), &[("assignments.manifest", manifest)]);
        server.has_logged("the data directory is locked").await;
        for (ignored, text) in [
            (Signal::HUP, "the configuration was reloaded"),
            (Signal::USR1, "SIGUSR1"),
            (Signal::USR2, "SIGUSR2"),
        ] {
            server.signal(ignored);
            server.has_logged(text).await;
        }
        server.signal(signal);
        assert_eq!(server.ended().await.code(), Some(code));
        server
            .has_logged("stopped before the server was open")
            .await;
    }
}

/// It accepts connections, and answers nothing.
#[cfg(feature = "redis")]
#[tokio::test]
async fn a_server_that_waits_for_a_silent_redis_can_be_stopped() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", silent.local_addr().unwrap());
    for (signal, code) in STOP {
        let dir = tempfile::tempdir().unwrap();
        let settings = [("couriers.store", "redis"), ("redis.url", &url)];
        let mut server = Opening::start(dir.path(), &settings);
        let (accepting, server_connects) = (silent.try_clone().unwrap(), "it connects");
        let accepted = tokio::task::spawn_blocking(move || accepting.accept().unwrap());
        let _connection = within(server_connects, accepted).await.unwrap();
        server.signal(signal);
        assert_eq!(server.ended().await.code(), Some(code));
    }
}

// --- Reloading -----------------------------------------------------------------------------------------------------

/// A shop whose configuration is in this file, the log's level, too.
async fn shop_with(file: &Path) -> Shop {
    let script = format!(
        "unset ODYSSEY_LOG__LEVEL; exec \"$0\" \"$@\" --config {}",
        file.display()
    );
    Shop::run(odyssey_by("sh", &["-c", &script]), &[]).await
}

#[tokio::test]
async fn sighup_reloads_what_it_can_and_names_what_needs_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("odyssey.toml");
    fs::write(&file, "[shutdown]\ndrain = \"24h\"\n").unwrap();
    let shop = shop_with(&file).await;
    let customer = shop.customer(order()).await;
    assert!(!shop.log().contains("\"level\":\"DEBUG\""));

    fs::write(
        &file,
        "[orders]\nlease = \"90s\"\n[log]\nlevel = \"odyssey=debug\"\n[shutdown]\ndrain = \"0s\"\n",
    )
    .unwrap();
    shop.signal(Signal::HUP);
    logged(&shop, "\"took_effect\":\"log.level, shutdown.drain\"").await;
    logged(&shop, "\"keys\":\"orders.lease\"").await;
    shop.staff.ask(get("/orders")).await;
    logged(&shop, "\"level\":\"DEBUG\"").await;

    for (broken, text) in [
        ("[orders\n", "line 1: "),
        ("[orders]\nlease = \"soon\"\n", "orders.lease"),
        (
            "[log]\nlevel = \"verbose\"\n",
            "error, warn, info, debug, trace or off",
        ),
    ] {
        fs::write(&file, broken).unwrap();
        shop.signal(Signal::HUP);
        until(text, async || {
            let log = shop.log();
            let mut lines = log.lines().rev();
            let line = lines.find(|line| line.contains("was not reloaded"));
            line.is_some_and(|line| line.contains(text))
        })
        .await;
    }
    fs::remove_file(&file).unwrap();
    let before = shop.log().matches("was not reloaded").count();
    shop.signal(Signal::HUP);
    until("a missing file is said", async || {
        shop.log().matches("was not reloaded").count() > before
    })
    .await;

    // The drain that was reloaded counts: a day is over at once.
    assert!(customer.is_held());
    shop.signal(Signal::TERM);
    customer.answer().await.expect_problem(503, "stopping");
    let mut shop = shop;
    assert_eq!(shop.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_closed_terminal_drops_no_customer() {
    let dir = tempfile::tempdir().unwrap();
    let stderr = pipe(&dir.path().join("stderr"));
    let terminal = fs::File::options()
        .read(true)
        .write(true)
        .open(&stderr)
        .unwrap();
    let script = format!("exec \"$0\" \"$@\" 2>{}", stderr.display());
    let shop = Shop::run(odyssey_by("sh", &["-c", &script]), &[]).await;
    let customer = shop.customer(order()).await;
    // The other end is closed: writes fail from now on.
    drop(terminal);
    shop.signal(Signal::HUP);
    shop.until("what was logged is lost", |now| {
        now.count("odyssey_log_lines_lost_total") > 0
    })
    .await;
    assert!(customer.is_held());
    shop.start().await;
    customer.leave().await;
    shop.signal(Signal::TERM);
    let mut shop = shop;
    assert_eq!(shop.ended().await.code(), Some(0));
}

// --- The service manager -------------------------------------------------------------------------------------------

#[tokio::test]
async fn the_service_manager_receives_every_change_of_state() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let hears = async |what: &str| {
        let mut message = [0; 1024];
        let received = within(what, manager.recv(&mut message)).await.unwrap();
        let text = String::from_utf8_lossy(&message[..received]).into_owned();
        assert!(text.lines().any(|line| line == what), "{what}: {text:?}");
        text
    };
    let mut command = odyssey();
    command.env("NOTIFY_SOCKET", &path);
    let shop = Shop::run(command, &[]).await;
    hears("READY=1").await;
    shop.signal(Signal::HUP);
    let reloading = hears("RELOADING=1").await;
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading:?}");
    hears("READY=1").await;
    shop.signal(Signal::TERM);
    hears("STOPPING=1").await;
    shop.ended_well().await;
}

// --- The log -------------------------------------------------------------------------------------------------------

/// Requests until lines of the log are lost; all are answered. At info only an address that is cut off is a line.
async fn talk_until_lines_are_lost(shop: &Shop) {
    let mut customers = shop.customers.connect().await;
    let mut asked = 0_u32;
    loop {
        // Far apart, so that no address is cut off for its neighbours' requests.
        let address = std::net::Ipv4Addr::from((asked / 2 + 1).wrapping_mul(0x9E37_79B1));
        let ask = order()
            .prefer("respond-async")
            .header("x-forwarded-for", address.to_string());
        let answer = within("an answer", customers.ask(&ask)).await;
        assert!([202, 429].contains(&answer.status), "{answer}");
        asked += 1;
        if asked.is_multiple_of(200) {
            let lost = shop.metrics().await.count("odyssey_log_lines_lost_total");
            if lost > 0 {
                return;
            }
            assert!(asked < 40_000, "no line was ever lost");
        }
    }
}

#[tokio::test]
async fn a_log_that_is_not_read_blocks_no_request() {
    let dir = tempfile::tempdir().unwrap();
    let stderr = pipe(&dir.path().join("stderr"));
    // It keeps the pipe open, and does not read.
    let reader = fs::File::options()
        .read(true)
        .write(true)
        .open(&stderr)
        .unwrap();
    let script = format!("exec \"$0\" \"$@\" 2>{} 1>&2", stderr.display());
    let settings = [
        ("log.level", "debug"),
        ("flood.trusted_proxies", "127.0.0.1"),
        ("flood.burst", "1"),
        ("flood.refill", "1h"),
        ("flood.cutoff_after", "1"),
        ("orders.waiting_max", "1000000"),
    ];
    let mut shop = Shop::run(odyssey_by("sh", &["-c", &script]), &settings).await;
    talk_until_lines_are_lost(&shop).await;
    shop.customers.ask(get("/healthz")).await.expect(200);
    // Read again, it says what is missing.
    let mut reading = std::io::BufReader::new(reader.try_clone().unwrap());
    let found = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        while !line.contains("log lines were lost") {
            line.clear();
            std::io::BufRead::read_line(&mut reading, &mut line).unwrap();
        }
        line
    });
    // There may be nothing to write otherwise.
    while !found.is_finished() {
        shop.customers.ask(get("/healthz")).await.expect(200);
    }
    let line: serde_json::Value = serde_json::from_str(&found.await.unwrap()).unwrap();
    assert!(line["lines"].as_u64().unwrap() > 0, "{line}");
    shop.signal(Signal::TERM);
    assert_eq!(shop.ended().await.code(), Some(0));
    drop(reader);
}

#[tokio::test]
async fn a_server_that_cannot_open_exits_although_its_log_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let stderr = pipe(&dir.path().join("stderr"));
    let mut reader = fs::File::options()
        .read(true)
        .write(true)
        .open(&stderr)
        .unwrap();
    // The pipe is full from the beginning.
    let flags = rustix::fs::fcntl_getfl(&reader).unwrap();
    rustix::fs::fcntl_setfl(&reader, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
    while reader.write_all(&[b'x'; 4096]).is_ok() {}
    rustix::fs::fcntl_setfl(&reader, flags).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let script = format!("exec \"$0\" \"$@\" 2>{} 1>&2", stderr.display());
    let mut command = odyssey_by("sh", &["-c", &script]);
    command.arg("serve").current_dir(dir.path());
    command.env(
        variable("customers.listen"),
        taken.local_addr().unwrap().to_string(),
    );
    command.env(variable("staff.listen"), "127.0.0.1:0");
    let mut server = Opening(command.spawn().unwrap(), PathBuf::new());
    assert_eq!(server.ended().await.code(), Some(1));
}

/// The lines that were logged with this message.
fn lines_of(log: &str, message: &str) -> Vec<serde_json::Value> {
    let lines = log.lines().map(|line| serde_json::from_str(line).unwrap());
    lines
        .filter(|line: &serde_json::Value| {
            line["message"]
                .as_str()
                .is_some_and(|text| text.contains(message))
        })
        .collect()
}

#[tokio::test]
async fn the_first_lines_say_what_runs_where_it_is_and_how_it_stops() {
    let shop = Shop::open(&[]).await;
    let urls = [shop.customers, shop.staff].map(|door| format!("http://{}", door.address));
    let log = shop.close().await;
    let one = |message| {
        let lines = lines_of(&log, message);
        assert_eq!(lines.len(), 1, "{message}: {log}");
        lines[0].clone()
    };
    let starts = one("Odyssey starts");
    assert_eq!(starts["version"], env!("CARGO_PKG_VERSION"));
    assert!(
        starts["commit"].is_string() && starts["features"].is_string(),
        "{starts}"
    );
    let configuration = one("configuration: ");
    assert_eq!(configuration["file"], "no file");
    let environment = configuration["environment"].as_str().unwrap();
    assert!(
        environment.contains("ODYSSEY_STAFF__LISTEN"),
        "{environment}"
    );
    assert!(
        !environment.contains("127.0.0.1"),
        "values may be secrets: {environment}"
    );
    let data = configuration["data_dir"].as_str().unwrap();
    assert!(data.starts_with('/') && data.ends_with("/data"), "{data}");
    for (message, url) in ["customers order here", "baristas and operators work here"]
        .into_iter()
        .zip(urls)
    {
        let line = one(message);
        assert_eq!(line["url"], url);
        assert_eq!(line["docs"], format!("{url}/docs"));
    }
    assert!(
        one("baristas and operators")["metrics"]
            .as_str()
            .unwrap()
            .ends_with("/metrics")
    );
    let ready = one("ready in ");
    assert!(
        ready["ready_ms"].is_u64() && ready["message"].as_str().unwrap().contains("Ctrl-C"),
        "{ready}"
    );
}

#[tokio::test]
async fn at_debug_what_baristas_do_names_the_customers_request() {
    let shop = Shop::open(&[]).await;
    let one = shop
        .customer(order().header("x-request-id", "customer-1"))
        .await;
    let start = get("/start/").header("x-request-id", "barista-1");
    let id = crate::shop::text(&shop.staff.ask(start).await.expect(200)["order_id"]);
    for path in ["extend", "release"] {
        let ask = crate::client::post(format!("/{path}/?order_id={id}"));
        shop.staff
            .expect(ask.header("x-request-id", "barista-1"), 200)
            .await;
    }
    shop.start().await;
    let finish = crate::client::post(format!("/finish/?order_id={id}"));
    shop.staff
        .expect(finish.header("x-request-id", "barista-1"), 200)
        .await;
    one.answer().await.expect(200);
    // An idle barista is given what a customer brings.
    let idle = shop
        .staff
        .hold(get("/start/?wait=50").header("x-request-id", "barista-2"));
    shop.until("the barista is idle", |now| now.idle_baristas() == 1)
        .await;
    let two = shop
        .customer(order().header("x-request-id", "customer-2"))
        .await;
    idle.answer().await.expect(200);
    two.leave().await;
    let log = shop.close().await;
    for (message, barista, customer, times) in [
        ("a barista gets an order", "barista-1", "customer-1", 1),
        ("a barista gets an order", "barista-2", "customer-2", 1),
        ("a barista extended a lease", "barista-1", "customer-1", 1),
        ("a barista gave an order back", "barista-1", "customer-1", 1),
        ("an order is ready", "barista-1", "customer-1", 1),
    ] {
        let lines = lines_of(&log, message);
        let both = lines.iter().filter(|line| {
            line["span"]["request_id"] == barista && line["customer_request_id"] == customer
        });
        assert_eq!(both.count(), times, "{message}, {barista}: {lines:?}");
    }
}
