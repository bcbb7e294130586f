//! The public door: Debian's nginx with the shipped configuration, in front of the real binary. Only ports, files and,
//! where a test says so, times differ (`nginx/variant.sh`).

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::sleep;

use crate::client::{Answer, Ask, Connection, Door, Visitor, get, order, post};
use crate::shop::{Shop, eventually};

/// The application believes nginx, which comes from here.
const BEHIND_NGINX: (&str, &str) = ("flood.trusted_proxies", "127.0.0.1");

/// nginx, stopped when it is dropped.
struct Nginx {
    process: Child,
    dir: TempDir,
    customers: Door,
    staff: Door,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // QUIT: it is told to end in order, and does, because nobody is held any more.
        let _ = kill_process(Pid::from_child(&self.process), Signal::QUIT);
        let _ = self.process.wait();
    }
}

/// An address for nginx, which cannot be told to take any port. Between finding it free and nginx taking it nobody else may
/// get it: so it is none of those that the kernel gives out (from 32768 on), and each process looks in another place.
fn free_address() -> SocketAddr {
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

fn variant(customers: SocketAddr, staff: SocketAddr, times: &[&str]) -> (TempDir, Door, Door) {
    let dir = tempfile::tempdir().unwrap();
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("nginx/variant.sh");
    let doors = [free_address(), free_address()];
    let addresses = [doors[0], doors[1], customers, staff].map(|address| address.to_string());
    let made = Command::new(script)
        .arg(dir.path())
        .args(addresses)
        .args(times)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let [customers, staff] = doors.map(|address| Door { address });
    (dir, customers, staff)
}

impl Nginx {
    async fn before(shop: &Shop, times: &[&str]) -> Self {
        Self::between(shop.customers.address, shop.staff.address, times).await
    }

    async fn between(customers: SocketAddr, staff: SocketAddr, times: &[&str]) -> Self {
        let (dir, customers, staff) = variant(customers, staff, times);
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
        eventually("nginx listens", || {
            std::net::TcpStream::connect(nginx.customers.address).ok()
        })
        .await;
        nginx
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    async fn connect_from(&self, from: &str) -> Connection {
        let socket = TcpSocket::new_v4().unwrap();
        let from: IpAddr = from.parse().unwrap();
        socket.bind(SocketAddr::new(from, 0)).unwrap();
        let stream = socket.connect(self.customers.address).await.unwrap();
        self.customers.over(stream).await
    }

    async fn ask_from(&self, from: &str, ask: Ask) -> Answer {
        self.connect_from(from).await.ask(&ask).await
    }

    /// A customer from this address who is in line when this returns.
    async fn customer_from(&self, shop: &Shop, from: &str, ask: Ask) -> Visitor {
        let before = shop.metrics().await.placed();
        let mut connection = self.connect_from(from).await;
        let visitor = Visitor::new(async move { connection.try_ask(&ask).await });
        shop.until("the order is placed", |now| now.placed() > before)
            .await;
        visitor
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
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("server"), Some("nginx"), "no version");
    assert_eq!(answer.headers.get_all("x-request-id").iter().count(), 1);
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
    eventually("nginx has reloaded", || {
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        log.contains("gracefully shutting down").then_some(())
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
    // The application would admit all: it is the door that refuses.
    let shop = Shop::open(&[BEHIND_NGINX, ("flood.mode", "off")]).await;
    let nginx = Nginx::before(&shop, &[]).await;
    let mut connection = nginx.connect_from("127.0.66.6").await;
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
    // Somebody else is not concerned.
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
    // 250 held and 100 refused; the door lets 400 through.
    let flood: Vec<_> = (0..250)
        .map(|_| {
            let from = nginx.connect_from("127.0.66.6");
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
    let mut connection = nginx.connect_from("127.0.66.6").await;
    for _ in 0..100 {
        connection.ask(&order()).await.expect(429);
    }
    for visitor in held {
        visitor.answer().await.expect_problem(429, "cut-off");
    }
    assert_eq!(shop.serve_all().await, ["regular"]);
    regular.answer().await.expect(200);
    drop((connection, nginx));
    shop.close().await;
}

#[tokio::test]
async fn a_broken_connection_to_the_application_is_not_tried_again() {
    // An application that takes each request and hangs up.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let hangs_up = tokio::spawn(async move {
        let mut seen = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let read = stream.read(&mut request).await.unwrap_or(0);
            if request[..read].starts_with(b"GET /last") {
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                    .await;
                break;
            }
            seen.push(read);
        }
        seen.len()
    });
    let nginx = Nginx::between(address, address, &[]).await;
    nginx
        .staff
        .ask(get("/start/"))
        .await
        .expect_problem(502, "unreachable");
    nginx
        .customers
        .ask(order())
        .await
        .expect_problem(502, "unreachable");
    nginx.staff.ask(get("/last")).await.expect(200);
    assert_eq!(hangs_up.await.unwrap(), 2, "each request arrived once");
}

#[tokio::test]
async fn a_kept_connection_that_the_application_closes_is_no_bad_gateway() {
    // The application gives up idle connections after a second, the door long before that.
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
                // Around the moment at which the door gives its own connection up.
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
