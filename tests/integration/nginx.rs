//! The public door: Debian's nginx with the shipped configuration, in front of the real binary. Only ports, files and,
//! where a test says so, times differ (`nginx/variant.sh`).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{found, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::sleep;
use uuid::Uuid;

use crate::assignments::{data_file, names, wanted};
use crate::client::{Answer, Ask, Connection, Door, Visitor, get, order, post, put, send};
use crate::connections::{
    Ends, LARGEST, LARGEST_BYTES, queued_bytes, resident_bytes, unread_downloads,
};
use crate::couriers;
use crate::packages::package;
use crate::shop::Shop;

/// The application believes nginx, which comes from here.
pub(crate) const BEHIND_NGINX: (&str, &str) = ("flood.trusted_proxies", "127.0.0.1");

/// nginx, stopped when it is dropped.
pub(crate) struct Nginx {
    process: Child,
    pub(crate) dir: TempDir,
    pub(crate) customers: Door,
    pub(crate) staff: Door,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // QUIT is a graceful stop, and ends at once because no request is held any more.
        let _ = kill_process(Pid::from_child(&self.process), Signal::QUIT);
        let _ = self.process.wait();
    }
}

/// An address for nginx, which cannot listen on port 0. No other process may take it before nginx does: so it is
/// outside the kernel's ephemeral ports (from 32768 on), and each process starts the search at another port.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(16);
    let candidates = std::iter::repeat_with(|| {
        let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        SocketAddr::from(([127, 0, 0, 1], 10_000 + u16::try_from(offset).unwrap()))
    });
    candidates
        .take(20_000)
        .find(|address| std::net::TcpListener::bind(address).is_ok())
        .expect("some port is free")
}

/// The shipped configuration in a directory of its own, and its doors.
pub(crate) fn variant(
    customers: SocketAddr,
    staff: SocketAddr,
    times: &[&str],
) -> (TempDir, Door, Door) {
    variant_of(&customers.to_string(), &staff.to_string(), times)
}

/// As [`variant`], with lists of addresses.
pub(crate) fn variant_of(customers: &str, staff: &str, times: &[&str]) -> (TempDir, Door, Door) {
    let dir = tempfile::tempdir().unwrap();
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("nginx/variant.sh");
    let doors = [free_address(), free_address()];
    let [listen, staff_listen] = doors.map(|address| address.to_string());
    let made = Command::new(script)
        .arg(dir.path())
        .args([&*listen, &*staff_listen, customers, staff])
        .args(times)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let [customers, staff] = doors.map(Door::at);
    (dir, customers, staff)
}

impl Nginx {
    pub(crate) async fn before(shop: &Shop, times: &[&str]) -> Self {
        Self::between(shop.customers.address, shop.staff.address, times).await
    }

    async fn between(customers: SocketAddr, staff: SocketAddr, times: &[&str]) -> Self {
        Self::start(variant(customers, staff, times)).await
    }

    pub(crate) async fn start((dir, customers, staff): (TempDir, Door, Door)) -> Self {
        let process = Command::new("nginx")
            .args([
                "-p",
                dir.path().to_str().unwrap(),
                "-c",
                "nginx.conf",
                "-g",
                "daemon off;",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx is installed (scripts/install-tools.sh test)");
        let nginx = Self {
            process,
            dir,
            customers,
            staff,
        };
        found("nginx listens", async || {
            std::net::TcpStream::connect(nginx.customers.address).ok()
        })
        .await;
        nginx
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// The processes that serve.
    fn workers(&self) -> Vec<Pid> {
        let master = self.process.id();
        let children = format!("/proc/{master}/task/{master}/children");
        let children = std::fs::read_to_string(children).unwrap();
        let children = children.split_whitespace().map(|pid| pid.parse().unwrap());
        children.map(|pid| Pid::from_raw(pid).unwrap()).collect()
    }

    async fn ask_from(&self, from: &str, ask: Ask) -> Answer {
        self.customers.connect_from(from).await.ask(&ask).await
    }

    /// A customer from this address who is in line when this returns.
    async fn customer_from(&self, shop: &Shop, from: &str, ask: Ask) -> Visitor {
        let connection = self.customers.connect_from(from).await;
        shop.customer_over(connection, ask).await
    }
}

#[tokio::test]
async fn an_order_is_held_at_the_door_and_served_through_it() {
    let shop = Shop::open(&[BEHIND_NGINX]).await;
    let nginx = Nginx::before(&shop, &[]).await;
    let customer = nginx.customer_from(&shop, "127.0.0.1", order()).await;
    let started = nginx.staff.ask(get("/start/")).await.expect(200);
    let finish = format!(
        "/finish/?order_id={}",
        started["order_id"].as_str().unwrap()
    );
    nginx.staff.ask(post(finish)).await.expect(200);
    let answer = customer.answer().await;
    answer.expect(200);
    for header in [
        "x-content-type-options",
        "x-frame-options",
        "referrer-policy",
        "content-security-policy",
    ] {
        assert_eq!(answer.headers.get_all(header).iter().count(), 1, "{header}");
    }
    assert_eq!(answer.header("server"), Some("nginx"), "no version");
    assert_eq!(answer.headers.get_all("x-request-id").iter().count(), 1);
    drop(nginx);
    shop.close().await;
}

#[tokio::test]
async fn three_hundred_unread_downloads_through_the_door_cost_little_memory() {
    let shop = Shop::open(&[
        BEHIND_NGINX,
        ("http.write_timeout", "5m"),
        ("log.level", "info"),
    ])
    .await;
    let nginx = Nginx::before(&shop, &["send_timeout=5m"]).await;
    // The file is made, and what the first requests cost is spent.
    let first = nginx.customers.ask(get(LARGEST)).await;
    assert_eq!(first.body.len(), LARGEST_BYTES);
    let resident = || {
        let workers = nginx.workers();
        let processes = workers.into_iter().chain([shop.pid()]);
        processes.map(resident_bytes).sum::<usize>()
    };
    let before = resident();
    let downloads = unread_downloads(nginx.customers, 300).await;
    let resident = resident().saturating_sub(before);
    let queued = queued_bytes(nginx.customers.address, Ends::Servers)
        + queued_bytes(shop.customers.address, Ends::Both);
    assert!(queued > 0, "nothing waits to be read");
    assert!(
        resident + queued < 100 << 20,
        "{resident} and {queued} bytes"
    );
    drop(downloads);
    drop(nginx);
    shop.close().await;
}

#[tokio::test]
async fn a_held_order_outlives_every_short_time_of_the_door() {
    let shop = Shop::open(&[BEHIND_NGINX]).await;
    let short = [
        "client_header_timeout=1s",
        "client_body_timeout=1s",
        "send_timeout=1s",
        "keepalive_timeout=1s",
        "proxy_send_timeout=1s",
        "proxy_connect_timeout=1s",
        "upstream_keepalive=1s",
    ];
    let nginx = Nginx::before(&shop, &short).await;
    let customer = nginx.customer_from(&shop, "127.0.0.1", order()).await;
    // The passing of time is what is tried: all of these times twice over.
    sleep(Duration::from_millis(2500)).await;
    assert!(customer.is_held());
    shop.serve_all().await;
    customer.answer().await.expect(200);
    drop(nginx);
    shop.close().await;
}

#[tokio::test]
async fn the_time_that_would_end_a_held_order_is_a_day_and_nothing_is_sent_twice() {
    // With a second instead of a day, a second is what it takes.
    let shop = Shop::open(&[BEHIND_NGINX]).await;
    let nginx = Nginx::before(&shop, &["proxy_read_timeout=1s"]).await;
    let customer = nginx.customer_from(&shop, "127.0.0.1", order()).await;
    let answer = customer.answer().await;
    answer.expect_problem(504, "too-late");
    shop.until("the order has left the line", |now| now.held() == 0)
        .await;
    drop(nginx);
    shop.close().await;

    let (dir, ..) = variant(free_address(), free_address(), &[]);
    let effective = Command::new("nginx")
        .args(["-T", "-p", dir.path().to_str().unwrap(), "-c", "nginx.conf"])
        .output()
        .unwrap();
    let effective = String::from_utf8(effective.stdout).unwrap();
    let directives: Vec<_> = effective.lines().map(str::trim).collect();
    for directive in [
        "proxy_read_timeout 24h;",
        "proxy_next_upstream off;",
        "proxy_ignore_client_abort off;",
        "proxy_set_header X-Forwarded-For $remote_addr;",
        "proxy_set_header X-Request-Id $request_id;",
        "client_header_timeout 5s;",
        "server_tokens off;",
    ] {
        assert!(
            directives.contains(&directive),
            "{directive} is not in force:\n{effective}"
        );
    }
}

#[tokio::test]
async fn a_customer_who_leaves_the_door_leaves_the_line() {
    let shop = Shop::open(&[BEHIND_NGINX]).await;
    let nginx = Nginx::before(&shop, &[]).await;
    let stays = nginx.customer_from(&shop, "127.0.0.1", order()).await;
    let leaves = nginx.customer_from(&shop, "127.0.0.1", order()).await;
    leaves.leave().await;
    shop.until("one has left the line", |now| now.waiting() == 1)
        .await;
    shop.serve_all().await;
    stays.answer().await.expect(200);
    drop(nginx);
    shop.close().await;
}

#[tokio::test]
async fn a_door_that_is_killed_takes_its_customers_out_of_the_line() {
    let shop = Shop::open(&[BEHIND_NGINX]).await;
    // One process, so that killing it kills all of it.
    let nginx = Nginx::before(&shop, &[]).await;
    let customer = nginx.customer_from(&shop, "127.0.0.1", order()).await;
    nginx.signal(Signal::TERM);
    shop.until("the line is empty", |now| now.waiting() == 0)
        .await;
    drop(customer);
    drop(nginx);
    shop.close().await;
}

#[tokio::test]
async fn a_reload_keeps_who_is_held() {
    let shop = Shop::open(&[BEHIND_NGINX]).await;
    let nginx = Nginx::before(&shop, &[]).await;
    let customer = nginx.customer_from(&shop, "127.0.0.1", order()).await;
    nginx.signal(Signal::HUP);
    // The new workers are there once a new connection is served while the log says so.
    let log = nginx.dir.path().join("error.log");
    until("nginx has reloaded", async || {
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        log.contains("gracefully shutting down")
    })
    .await;
    let newcomer = nginx.customer_from(&shop, "127.0.0.1", order()).await;
    assert!(customer.is_held());
    shop.serve_all().await;
    customer.answer().await.expect(200);
    newcomer.answer().await.expect(200);
    drop(nginx);
    shop.close().await;
}

#[tokio::test]
async fn what_is_too_much_even_for_the_door_gets_the_same_kind_of_answer() {
    // The application would admit all requests: nginx refuses.
    let shop = Shop::open(&[BEHIND_NGINX, ("flood.mode", "off")]).await;
    let nginx = Nginx::before(&shop, &[]).await;
    let mut connection = nginx.customers.connect_from("127.0.66.6").await;
    let ask = order().prefer("respond-async");
    let mut admitted = 0;
    let refused = loop {
        let answer = connection.ask(&ask).await;
        if answer.status == 429 {
            break answer;
        }
        answer.expect(202);
        admitted += 1;
        assert!(admitted < 1000, "the door lets everything through");
    };
    assert!(
        admitted >= 350,
        "the application must see enough to cut off: {admitted}"
    );
    refused.expect_problem(429, "address-too-busy");
    assert_eq!(refused.retry_after(), 60);
    assert!(refused.header("x-request-id").is_some());
    // Another address is not affected.
    nginx
        .ask_from("127.0.0.1", order().prefer("respond-async"))
        .await
        .expect(202);
    drop(connection);
    drop(nginx);
    shop.serve_on_one_connection(admitted + 1).await;
    shop.close().await;
}

#[tokio::test]
async fn what_a_client_writes_about_its_address_counts_for_nothing() {
    let shop = Shop::open(&[BEHIND_NGINX, ("flood.outstanding_max", "1")]).await;
    let nginx = Nginx::before(&shop, &[]).await;
    let pretend = |address: &str| {
        order()
            .header("X-Forwarded-For", address)
            .prefer("respond-async")
    };
    nginx
        .ask_from("127.0.66.6", pretend("198.51.100.1"))
        .await
        .expect(202);
    nginx
        .ask_from("127.0.66.6", pretend("198.51.100.2"))
        .await
        .expect_problem(429, "too-many-outstanding");
    nginx
        .ask_from("127.0.66.7", pretend("198.51.100.1"))
        .await
        .expect(202);
    shop.serve_all().await;
    drop(nginx);
    shop.close().await;
}

#[tokio::test]
async fn a_flooder_is_cut_off_through_the_door_and_a_regular_is_served() {
    let shop = Shop::open(&[BEHIND_NGINX]).await;
    let nginx = Nginx::before(&shop, &[]).await;
    let regular = nginx
        .customer_from(
            &shop,
            "127.0.0.1",
            order().json(&json!({"customer": "regular"})),
        )
        .await;
    // 250 held and 100 refused; nginx lets 400 through.
    let flood: Vec<_> = (0..250)
        .map(|_| {
            let from = nginx.customers.connect_from("127.0.66.6");
            async {
                let mut connection = from.await;
                Visitor::new(async move { connection.try_ask(&order()).await })
            }
        })
        .collect();
    let mut held = Vec::new();
    for visitor in flood {
        held.push(visitor.await);
    }
    shop.until("the flooder's orders are in line", |now| {
        now.waiting() == 251
    })
    .await;
    let mut connection = nginx.customers.connect_from("127.0.66.6").await;
    for _ in 0..100 {
        connection.ask(&order()).await.expect(429);
    }
    let refused = connection.ask(&order()).await;
    refused.expect_problem(429, "cut-off");
    let next = nginx.customers.connect_from("127.0.0.1").await;
    let next = Visitor::new(async move { { next }.try_ask(&order()).await });
    shop.until("a regular joins them", |now| now.waiting() == 252)
        .await;
    // What was in line before the first refusal may be a colleague's, and stays.
    assert_eq!(shop.serve_all().await[0], "regular");
    for visitor in held.into_iter().chain([regular, next]) {
        visitor.answer().await.expect(200);
    }
    drop((connection, nginx));
    shop.close().await;
}

#[tokio::test]
async fn a_kept_connection_that_the_application_closes_is_no_bad_gateway() {
    // The application closes idle connections after a second, nginx long before that.
    let shop = Shop::open(&[
        BEHIND_NGINX,
        ("http.header_timeout", "1s"),
        ("flood.mode", "off"),
    ])
    .await;
    let nginx = Nginx::before(&shop, &["upstream_keepalive=300ms"]).await;
    let lanes = (0..16_u64).map(|lane| {
        let door = nginx.customers;
        tokio::spawn(async move {
            let mut connection = door.connect().await;
            for round in 0..12 {
                let answer = connection.ask(&order().prefer("respond-async")).await;
                answer.expect(202);
                // Around the moment at which nginx closes its own connection.
                sleep(Duration::from_millis(240 + (lane * 12 + round) % 120)).await;
            }
        })
    });
    for lane in lanes.collect::<Vec<_>>() {
        lane.await.unwrap();
    }
    assert_eq!(shop.metrics().await.placed(), 16 * 12);
    drop(nginx);
    shop.serve_on_one_connection(16 * 12).await;
    shop.close().await;
}

#[tokio::test]
async fn slow_readers_and_slow_senders_at_the_door_disturb_nobody() {
    let shop = Shop::open(&[BEHIND_NGINX, ("log.level", "info")]).await;
    let nginx = Nginx::before(&shop, &[]).await;
    let mut slow = Vec::new();
    for n in 0..250 {
        let mut sender = nginx.customers.raw().await;
        sender
            .write(format!(
                "POST /order/ HTTP/1.1\r\nhost: shop\r\ncontent-length: 9000\r\nx-n: {n}\r\n\r\n{{"
            ))
            .await;
        let mut reader = nginx.customers.raw().await;
        reader
            .write("GET /openapi.json HTTP/1.1\r\nhost: shop\r\n\r\n".repeat(2))
            .await;
        slow.extend([sender, reader]);
    }
    let regular = nginx.customer_from(&shop, "127.0.0.2", order()).await;
    shop.serve_all().await;
    regular.answer().await.expect(200);
    assert_eq!(shop.metrics().await.placed(), 1);
    drop(slow);
    drop(nginx);
    shop.close().await;
}

#[tokio::test]
async fn a_whole_day_and_a_thousand_events_pass_the_staffs_door() {
    let shop = Shop::open(&[BEHIND_NGINX]).await;
    let nginx = Nginx::before(&shop, &[]).await;
    let day = std::fs::read(data_file("day-99x990-many-rules.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&day).unwrap();
    let json = |ask: Ask| ask.header("Content-Type", "application/json");
    nginx
        .staff
        .expect(json(put("/manifest")).body(day), 200)
        .await;
    // As large as a manifest may be: white space means nothing to JSON.
    let mut largest = manifest.to_string().into_bytes();
    largest.resize(32 << 20, b' ');
    nginx
        .staff
        .expect(json(put("/manifest/")).body(largest), 200)
        .await;
    let mut wanted = wanted(&names(&manifest, "drivers"), 10)
        .to_string()
        .into_bytes();
    wanted.resize(2 << 20, b' ');
    nginx
        .staff
        .expect(json(post("/assign")).body(wanted), 200)
        .await;
    let events: Vec<_> = (0..1000)
        .map(|_| couriers::order(Uuid::new_v4(), "N"))
        .collect();
    let outcomes = couriers::publish_events(nginx.staff, &json!(events)).await;
    assert_eq!(outcomes.len(), 1000);
    drop(nginx);
    shop.close().await;
}

#[tokio::test]
async fn a_body_that_is_too_large_for_its_door_and_path_is_refused_with_the_bound() {
    let shop = Shop::open(&[BEHIND_NGINX]).await;
    let nginx = Nginx::before(&shop, &[]).await;
    let (customers, staff) = (nginx.customers, nginx.staff);
    for (door, line, most) in [
        (customers, "POST /order/", 65_536),
        (customers, "PUT /manifest", 65_536),
        (customers, "POST /events", 65_536),
        (staff, "PUT /manifest", 32 << 20),
        (staff, "PUT /manifest/?date=2142-05-01", 32 << 20),
        (staff, "POST /events/", 4 << 20),
        (staff, "POST /assign?dry_run=true", 2 << 20),
        (
            staff,
            "PATCH /courier/0191d5c8-7a9b-7000-8000-000000000000",
            4 << 20,
        ),
        (staff, "POST /update", 65_536),
    ] {
        let mut raw = door.raw().await;
        let length = most + 1;
        raw.write(format!(
            "{line} HTTP/1.1\r\nhost: shop\r\ncontent-length: {length}\r\n\r\n"
        ))
        .await;
        let answer = raw.one_answer().await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{line}: {answer}");
        for words in [
            "content-type: application/problem+json".to_owned(),
            format!("At most {most} bytes are accepted."),
        ] {
            assert!(
                answer.to_lowercase().contains(&words.to_lowercase()),
                "{line}: {answer}"
            );
        }
    }
    drop(nginx);
    shop.close().await;
}

#[tokio::test]
async fn the_page_of_the_doors_own_errors_is_a_problem_too_when_it_is_asked_for() {
    let shop = Shop::open(&[BEHIND_NGINX]).await;
    let nginx = Nginx::before(&shop, &[]).await;
    for door in [nginx.customers, nginx.staff] {
        for ask in [get("/.problem"), post("/.problem"), get("/.problem?x=y")] {
            door.ask(ask).await.expect_problem(404, "no-such-path");
        }
    }
    drop(nginx);
    shop.close().await;
}

#[tokio::test]
async fn a_header_that_is_never_finished_is_given_up() {
    let shop = Shop::open(&[BEHIND_NGINX]).await;
    let nginx = Nginx::before(&shop, &["client_header_timeout=1s"]).await;
    for door in [nginx.customers, nginx.staff] {
        let mut raw = door.raw().await;
        raw.write("POST /order/ HTTP/1.1\r\nhost: shop\r\nx-slow: ")
            .await;
        assert_eq!(raw.rest().await, "");
    }
    drop(nginx);
    shop.close().await;
}

/// An application that answers every request with the request itself.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            let head = format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                request.len()
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&request).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn what_a_browser_says_about_a_request_reaches_the_application() {
    let application = echo().await;
    let nginx = Nginx::between(application, application, &[]).await;
    let message = [
        ("Host", "shop.example:8080"),
        ("Origin", "http://shop.example:8080"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Mode", "navigate"),
        ("Sec-Fetch-Dest", "image"),
        ("Sec-Purpose", "prefetch"),
        ("Purpose", "prefetch"),
    ];
    for door in [nginx.customers, nginx.staff] {
        let mut raw = door.raw().await;
        let lines = message.map(|(name, value)| format!("{name}: {value}\r\n"));
        let lines = lines.concat();
        raw.write(format!("GET /start/ HTTP/1.1\r\n{lines}\r\n"))
            .await;
        let seen = raw.one_answer().await;
        for (name, value) in message {
            let line = format!("\r\n{name}: {value}\r\n");
            assert_eq!(seen.matches(&line).count(), 1, "{line:?}: {seen}");
        }
    }
}

/// The key by which nginx counts a visitor.
async fn counted(mut connection: Connection, address: &str) -> Vec<u8> {
    let ask = get("/visitor").header("X-Real-IP", address);
    connection.ask(&ask).await.body.to_vec()
}

#[tokio::test]
async fn ipv4_visitors_are_counted_one_by_one_however_their_address_is_written() {
    let unused = free_address();
    let (dir, customers, staff) = variant(unused, unused, &[]);
    let listen = dir.path().join("site/listen-customers.conf");
    // Shows the key of all three zones. The header stands for a load balancer, for addresses that this machine has not.
    let mut lines = std::fs::read_to_string(&listen).unwrap();
    lines += "location = /visitor { return 200 $visitor; }\n";
    lines += "set_real_ip_from 127.0.0.1;\nreal_ip_header X-Real-IP;\n";
    let has_ipv6 = std::net::TcpListener::bind("[::]:0").is_ok();
    let mapped = free_address();
    if has_ipv6 {
        let listen = format!("listen [::]:{} ipv6only=off;\n", mapped.port());
        lines += &listen;
    }
    std::fs::write(&listen, lines).unwrap();
    let nginx = Nginx::start((dir, customers, staff)).await;
    let net = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets()[..8].to_vec();
    for (address, key) in [
        ("192.0.2.7", vec![192, 0, 2, 7]),
        ("::ffff:192.0.2.7", vec![192, 0, 2, 7]),
        ("::ffff:192.0.2.8", vec![192, 0, 2, 8]),
        ("::ffff:0.0.0.0", vec![0, 0, 0, 0]),
        ("::ffff:10.255.255.10", vec![10, 255, 255, 10]),
        ("64:ff9b::192.0.2.7", vec![192, 0, 2, 7]),
        ("64:ff9b::192.0.2.8", vec![192, 0, 2, 8]),
        ("64:ff9b:1::192.0.2.8", net("64:ff9b:1::")),
        ("64:ff9b::1:192.0.2.8", net("64:ff9b::")),
        ("2001:db8:1:2:3:4:5:6", net("2001:db8:1:2::")),
        ("2001:db8:1:2::7", net("2001:db8:1:2::")),
        ("::1", net("::")),
    ] {
        let connection = nginx.customers.connect_from("127.0.0.1").await;
        assert_eq!(counted(connection, address).await, key, "{address}");
    }
    if has_ipv6 {
        let door = Door::at(mapped);
        for last in [6, 7] {
            let connection = door.connect_from(&format!("127.0.66.{last}")).await;
            assert_eq!(counted(connection, "").await, [127, 0, 66, last]);
        }
    }
}

#[tokio::test]
async fn the_location_of_every_package_leads_through_the_door_to_it() {
    let shop = Shop::open(&[BEHIND_NGINX]).await;
    let nginx = Nginx::before(&shop, &[]).await;
    let mut connection = nginx.customers.connect_from("127.0.0.1").await;
    let longest = "\u{1f4e6}".repeat(64);
    for id in [
        "p-1", "a/b", "/a", "a/", "a//b", "...", "..a", "a..", ".a/b.", "a b", "a+b", "a%b",
        "%2e%2e", "a?b#c", "a\\b", "a;b=c", "a&b", "\u{e9}", "\"<>'", "*", "~", "12", &longest,
    ] {
        let sent = connection.ask(&send(&package(id))).await;
        assert_eq!(sent.expect(201)["package_id"], id);
        let location = sent.header("location").unwrap().to_owned();
        let found = connection.ask(&get(location.clone())).await;
        assert_eq!(found.expect(200)["package_id"], id, "{location}");
    }
    // What no path can lead to is refused.
    for id in [".", "..", "../p", "a/../b", "a/./b", "a/..", "a\0b", "a\nb"] {
        let refused = connection.ask(&send(&package(id))).await;
        refused.expect_problem(422, "invalid");
    }
    drop(connection);
    drop(nginx);
    shop.close().await;
}

#[tokio::test]
async fn the_screens_keep_their_own_policy_behind_nginx() {
    let shop = Shop::open(&[BEHIND_NGINX]).await;
    let nginx = Nginx::before(&shop, &[]).await;
    for (ours, behind, path) in [
        (shop.customers, nginx.customers, "/"),
        (shop.customers, nginx.customers, "/board"),
        (shop.staff, nginx.staff, "/barista"),
        (shop.customers, nginx.customers, "/ui/order.js"),
    ] {
        let ask = || get(path).header("accept", "text/html");
        let [direct, passed] = [ours.ask(ask()).await, behind.ask(ask()).await];
        assert_eq!(
            (direct.status, passed.status),
            (200, 200),
            "{path}: {passed}"
        );
        // The order page has the address for the command line.
        let [ours, behind] = [ours, behind].map(|door| door.address.to_string());
        assert_eq!(passed.text().replace(&behind, &ours), direct.text());
        for header in [
            "content-security-policy",
            "referrer-policy",
            "x-content-type-options",
            "etag",
        ] {
            let all = passed.headers.get_all(header).iter().count();
            // Where the program sends none, nginx has its own.
            if let Some(ours) = direct.header(header) {
                assert_eq!(passed.header(header), Some(ours), "{path}: {header}");
            }
            assert!(
                all <= 1,
                "browsers apply every policy that is there: {passed}"
            );
        }
    }
    drop(nginx);
    shop.close().await;
}

#[tokio::test]
async fn a_page_behind_a_door_may_use_it_and_a_page_of_another_origin_may_not() {
    let shop = Shop::open(&[BEHIND_NGINX]).await;
    let nginx = Nginx::before(&shop, &[]).await;
    for (door, ask) in [
        (nginx.customers, order().prefer("respond-async")),
        (nginx.staff, post("/start/")),
    ] {
        for (site, origin) in [
            ("cross-site", "https://evil.example".to_owned()),
            // The application itself is another origin than nginx.
            ("same-site", format!("http://{}", shop.staff.address)),
            ("same-site", "http://127.0.0.1".to_owned()),
        ] {
            let foreign = ask.clone().header("sec-fetch-site", site);
            let answer = door.ask(foreign.header("origin", origin)).await;
            answer.expect_problem(403, "cross-site");
        }
        let ours = format!("http://{}", door.address);
        let ours = ask
            .header("sec-fetch-site", "same-origin")
            .header("origin", ours);
        let answer = door.ask(ours).await;
        assert!([200, 202].contains(&answer.status), "{answer}");
        let page = door.ask(get("/").header("accept", "text/html")).await;
        let policies = page.headers.get_all("content-security-policy");
        for policy in policies {
            let policy = policy.to_str().unwrap();
            assert!(policy.contains("style-src 'self'"), "{policy}");
        }
    }
    let rebound = get("/healthz").header("host", "evil.example");
    nginx
        .staff
        .expect_problem(rebound, 421, "misdirected")
        .await;
    let metrics = shop.metrics().await;
    assert_eq!((metrics.placed(), metrics.brewing()), (1, 1), "{metrics}");
    drop(nginx);
    shop.close().await;
}
