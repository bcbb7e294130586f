//! Connections in numbers, and connections that behave badly: slow ones, silent ones, more than there is room for.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use testkit::until;
use tokio::io::AsyncReadExt;
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::client::{Connection, Door, Raw, Visitor, get, order, post, within};
use crate::shop::{Shop, Started, need_open_files};

/// The largest answer there is without keeping anything first, ...
pub(crate) const LARGEST: &str = "/docs/swagger-ui-bundle.js";
/// ... and its size.
pub(crate) const LARGEST_BYTES: usize = 1_526_593;

/// The memory of a process, in bytes.
pub(crate) fn resident_bytes(pid: Pid) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero()));
    let status = status.unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.unwrap().trim().strip_suffix(" kB").unwrap();
    kilobytes.parse::<usize>().unwrap() * 1024
}

/// Whose queues of a connection are counted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    /// The server's alone: the client's are on another machine.
    Servers,
    /// Both: the client is ours, too.
    Both,
}

/// What the kernel stores for the connections to this address: not acknowledged, or not read, in bytes.
pub(crate) fn queued_bytes(address: SocketAddr, ends: Ends) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = format!(":{:04X}", address.port());
    let queues = table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, remote) = (fields.next()?, fields.next()?);
        let is_open = fields.next()? == "01";
        let is_ours = local.ends_with(&port) || ends == Ends::Both && remote.ends_with(&port);
        let (unsent, unread) = fields.next()?.split_once(':')?;
        let queued = [unsent, unread].map(|hex| usize::from_str_radix(hex, 16).unwrap());
        (is_open && is_ours).then_some(queued.iter().sum::<usize>())
    });
    queues.sum()
}

/// Clients that ask for the largest answer, and read nothing of it but its first line.
pub(crate) async fn unread_downloads(door: Door, count: usize) -> Vec<Raw> {
    let mut downloads = Vec::new();
    for _ in 0..count {
        let mut raw = door.raw().await;
        raw.write(format!("GET {LARGEST} HTTP/1.1\r\nhost: shop\r\n\r\n"))
            .await;
        downloads.push(raw);
    }
    for raw in &mut downloads {
        let mut status = [0; 12];
        within("an answer begins", raw.0.read_exact(&mut status))
            .await
            .unwrap();
        assert_eq!(status.as_slice(), b"HTTP/1.1 200");
    }
    downloads
}

const SLOW: usize = 1000;
const HEADER: &[u8] = b"POST /order/ HTTP/1.1\r\nhost: shop\r\nx-slow: ";

/// Sends a header that never ends, a byte now and then, until the server has had enough of it.
async fn dribble(door: Door) {
    let mut raw = door.raw().await;
    for byte in HEADER.iter().chain(std::iter::repeat(&b'z')) {
        let mut rest = [0; 256];
        tokio::select! {
            read = raw.0.read(&mut rest) => match read {
                // A last word is fine.
                Ok(1..) => {}
                Ok(0) | Err(_) => return,
            },
            () = sleep(Duration::from_millis(100)) => {
                if raw.0.try_write(&[*byte]).is_err() {
                    return;
                }
            }
        }
    }
}

/// All customers order at once, and five baristas serve them.
async fn serve_regulars(shop: &Shop, count: usize) {
    let regulars: Vec<Visitor> = (0..count).map(|_| shop.customers.hold(order())).collect();
    let mut baristas = JoinSet::new();
    for _ in 0..5 {
        let staff = shop.staff;
        let share = count / 5;
        baristas.spawn(async move {
            let mut connection = staff.connect().await;
            serve(&mut connection, share).await;
        });
    }
    for regular in regulars {
        regular.answer().await.expect(200);
    }
    within("the baristas go home", baristas.join_all()).await;
}

/// Serves so many orders on one connection.
async fn serve(barista: &mut Connection, count: usize) {
    for _ in 0..count {
        let started = loop {
            let answer = barista.ask(&get("/start/?wait=10")).await;
            if answer.status == 200 {
                break Started::of(&answer.json());
            }
        };
        let finish = post(format!("/finish/?order_id={}", started.id));
        barista.ask(&finish).await.expect(200);
    }
}

#[tokio::test]
async fn a_thousand_connections_that_finish_no_header_are_closed_while_held_customers_stay() {
    need_open_files(4096);
    let shop = Shop::open(&[
        ("http.header_timeout", "1s"),
        ("log.level", "info"),
        ("flood.connections_max", "10000"),
    ])
    .await;
    let held = shop.customer(order()).await;
    let brewed = shop.start().await;
    let mut slow = JoinSet::new();
    for number in 0..SLOW {
        let door = shop.customers;
        if number % 2 == 0 {
            slow.spawn(dribble(door));
        } else {
            // These say nothing at all.
            slow.spawn(async move { drop(door.raw().await.rest().await) });
        }
    }
    let mut used = shop.customers.connect().await;
    used.ask(&get("/healthz")).await.expect(200);
    serve_regulars(&shop, 50).await;
    within("all of them are closed", slow.join_all()).await;
    used.closed().await;
    assert!(
        held.is_held(),
        "who has ordered may wait as long as it takes"
    );
    shop.finish(&brewed.id).await;
    held.answer().await.expect(200);
    assert_eq!(shop.metrics().await.placed(), 51);
    shop.close().await;
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_is_answered_408_and_orders_nothing() {
    let shop = Shop::open(&[("http.body_timeout", "200ms")]).await;
    let mut raw = shop.customers.raw().await;
    raw.write("POST /order/ HTTP/1.1\r\nhost: shop\r\ncontent-length: 1000\r\n\r\n{")
        .await;
    let answer = raw.rest().await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(
        answer.contains("urn:odyssey:problem:body-too-slow"),
        "{answer}"
    );
    drop(raw);
    assert_eq!(shop.metrics().await.placed(), 0);
    shop.close().await;
}

// --- Slow readers --------------------------------------------------------------------------------------------------

/// A client whose side holds next to nothing of what it has not read.
async fn small(door: Door) -> Raw {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    Raw(socket.connect(door.address).await.unwrap())
}

#[tokio::test]
async fn a_slow_reader_gets_all_of_an_answer_however_long_it_takes() {
    let settings = [("http.header_timeout", "1s"), ("http.write_timeout", "3s")];
    let shop = Shop::open(&settings).await;
    let mut raw = small(shop.customers).await;
    raw.write(format!(
        "GET {LARGEST} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n"
    ))
    .await;
    let mut taken = Vec::new();
    let mut piece = vec![0; 20_000];
    loop {
        let read = within("some of it comes", raw.0.read(&mut piece)).await;
        match read.unwrap() {
            0 => break,
            count => taken.extend_from_slice(&piece[..count]),
        }
        // In all longer than every time of this server.
        sleep(Duration::from_millis(60)).await;
    }
    let head = taken.windows(4).position(|end| end == b"\r\n\r\n").unwrap();
    assert_eq!(taken.len() - head - 4, LARGEST_BYTES);
    drop(raw);
    shop.close().await;
}

#[tokio::test]
async fn a_reader_who_takes_nothing_is_sent_away_and_who_is_held_stays() {
    let settings = [("http.header_timeout", "1s"), ("http.write_timeout", "1s")];
    let shop = Shop::open(&settings).await;
    let held = shop.customer(order()).await;
    let mut stuck = unread_downloads(shop.customers, 3).await;
    shop.until("they are sent away", |now| {
        now.connections("customers") == 1
    })
    .await;
    assert!(held.is_held());
    for raw in &mut stuck {
        let rest = raw.rest().await;
        assert!(rest.len() < LARGEST_BYTES, "it was all sent");
    }
    shop.serve_all().await;
    held.answer().await.expect(200);
    drop(stuck);
    shop.close().await;
}

#[tokio::test]
async fn three_hundred_unread_downloads_cost_little_memory() {
    let shop = Shop::open(&[("http.write_timeout", "5m"), ("log.level", "info")]).await;
    let first = shop.customers.ask(get(LARGEST)).await;
    assert_eq!(first.body.len(), LARGEST_BYTES);
    let before = resident_bytes(shop.pid());
    let downloads = unread_downloads(shop.customers, 300).await;
    let resident = resident_bytes(shop.pid()).saturating_sub(before);
    let queued = queued_bytes(shop.customers.address, Ends::Servers);
    assert!(queued > 0, "nothing waits to be read");
    assert!(
        resident + queued < 100 << 20,
        "{resident} and {queued} bytes"
    );
    drop(downloads);
    shop.close().await;
}

// --- Refusals that must arrive ---------------------------------------------------------------------------------------

#[tokio::test]
async fn a_refusal_reaches_a_client_that_sends_its_whole_body_before_it_reads() {
    const BODY_BYTES: usize = 4_000_000;
    let shop = Shop::open(&[]).await;
    for (door, head, status) in [
        (shop.customers, "POST /order/ HTTP/1.1\r\nhost: shop", 413),
        (shop.customers, "POST /packages HTTP/1.1\r\nhost: shop", 413),
        (shop.customers, "POST /nothing HTTP/1.1\r\nhost: shop", 404),
        (shop.customers, "PUT /order/ HTTP/1.1\r\nhost: shop", 405),
        (shop.customers, "POST /order/ HTTP/1.1", 400),
        (shop.staff, "POST /finish/ HTTP/1.1\r\nhost: shop", 413),
    ] {
        for framing in ["length", "chunks"] {
            let mut raw = door.raw().await;
            if framing == "length" {
                raw.write(format!("{head}\r\ncontent-length: {BODY_BYTES}\r\n\r\n"))
                    .await;
            } else {
                raw.write(format!(
                    "{head}\r\ntransfer-encoding: chunked\r\n\r\n{BODY_BYTES:x}\r\n"
                ))
                .await;
            }
            raw.write(vec![b' '; BODY_BYTES]).await;
            let answer = raw.one_answer().await;
            let expected = format!("HTTP/1.1 {status}");
            assert!(answer.starts_with(&expected), "{head}, {framing}: {answer}");
        }
    }
    shop.close().await;
}

/// The connections of a proxy are not counted, and all customers of a test come from one address.
const ALL_FROM_ONE_ADDRESS: (&str, &str) = ("flood.trusted_proxies", "127.0.0.1");

// --- More than there is room for -----------------------------------------------------------------------------------

#[tokio::test]
async fn beyond_the_cap_a_customer_waits_at_the_door_and_is_let_in_when_another_leaves() {
    let shop = Shop::open(&[ALL_FROM_ONE_ADDRESS, ("customers.connections_max", "5")]).await;
    let mut inside = Vec::new();
    for _ in 0..5 {
        inside.push(shop.customer(order()).await);
    }
    let sixth = shop.customers.hold(order());
    let seventh = shop.customers.hold(order());
    // The staff have a door of their own.
    let started = shop.start().await;
    shop.staff
        .expect(post(format!("/release/?order_id={}", started.id)), 200)
        .await;
    let full = shop.metrics().await;
    assert_eq!((full.placed(), full.connections("customers")), (5, 5));
    assert_eq!(
        full.count("odyssey_connections_max{listener=\"customers\"}"),
        5
    );

    inside.pop().unwrap().leave().await;
    let one_in = shop
        .until("one of them is let in", |now| now.placed() == 6)
        .await;
    assert!(one_in.connections("customers") <= 5);
    let barista = async {
        let mut connection = shop.staff.connect().await;
        serve(&mut connection, 6).await;
    };
    let customers = async {
        for customer in inside.into_iter().chain([sixth, seventh]) {
            customer.answer().await.expect(200);
        }
    };
    tokio::join!(barista, customers);
    shop.close().await;
}

#[tokio::test]
async fn a_health_check_is_answered_though_every_seat_is_taken_and_who_has_waited_longest_is_told()
{
    let shop = Shop::open(&[ALL_FROM_ONE_ADDRESS, ("customers.connections_max", "2")]).await;
    let inside = [shop.customer(order()).await, shop.customer(order()).await];
    let first = shop.customers.hold(order());
    for path in ["/healthz", "/readyz"] {
        shop.customers.ask(get(path)).await.expect(200);
    }
    // A connection that says nothing, and one that is slow to say what it wants.
    let silent = shop.customers.raw().await;
    let mut slow = shop.customers.raw().await;
    slow.write("GET /heal").await;
    shop.customers.ask(get("/healthz")).await.expect(200);
    slow.write("thz HTTP/1.1\r\nhost: shop\r\n\r\n").await;
    assert!(slow.one_answer().await.starts_with("HTTP/1.1 200"));
    assert!(first.is_held());
    // There is room for 64: with these, and those from before, the first is one too many.
    let waiting: Vec<_> = (0..64).map(|_| shop.customers.hold(order())).collect();
    let answer = first.answer().await;
    answer.expect_problem(503, "house-full");
    shop.customers.ask(get("/healthz")).await.expect(200);
    assert!(answer.retry_after() >= 1);
    assert_eq!(shop.metrics().await.placed(), 2);
    drop((silent, slow));
    for customer in waiting {
        customer.leave().await;
    }
    shop.serve_all().await;
    for customer in inside {
        customer.answer().await.expect(200);
    }
    shop.close().await;
}

#[tokio::test]
async fn with_few_open_files_the_staff_still_have_room_and_everybody_is_served() {
    let shop = Shop::open_with_files(300, &[ALL_FROM_ONE_ADDRESS]).await;
    // Some of them are let in, and no more wait than may.
    let customers: Vec<Visitor> = (0..100).map(|_| shop.customers.hold(order())).collect();
    let full = shop
        .until("the shop is full", |now| {
            now.connections("customers")
                == now.count("odyssey_connections_max{listener=\"customers\"}")
        })
        .await;
    let room = full.connections("customers");
    assert!((1..100).contains(&room), "{room}");
    let barista = async {
        let mut connection = shop.staff.connect().await;
        serve(&mut connection, 100).await;
    };
    let served = async {
        for customer in customers {
            customer.answer().await.expect(200);
        }
    };
    tokio::join!(barista, served);
    let log = shop.close().await;
    assert!(
        !log.contains("cannot accept"),
        "it never came to that: {log}"
    );
}

#[tokio::test]
async fn out_of_open_files_the_server_goes_on_with_whom_it_has_and_recovers() {
    let shop = Shop::open(&[("log.level", "info")]).await;
    let mut barista = shop.staff.connect().await;
    barista.ask(&get("/healthz")).await.expect(200);
    let files = || {
        std::fs::read_dir(format!("/proc/{}/fd", shop.pid()))
            .unwrap()
            .count() as u64
    };
    // Room for three more, whatever the configuration believed.
    let tight = Rlimit {
        current: Some(files() + 3),
        maximum: Some(files() + 3),
    };
    prlimit(Some(shop.pid()), Resource::Nofile, tight).unwrap();
    let customers: Vec<Visitor> = (0..20).map(|_| shop.customers.hold(order())).collect();
    until("the server notices", async || {
        shop.log().contains("cannot accept")
    })
    .await;
    let served = async {
        for customer in customers {
            customer.answer().await.expect(200);
        }
    };
    // Each who is served makes room for another.
    tokio::join!(serve(&mut barista, 20), served);
    drop(barista);
    // The staff's listener has room again, too.
    assert_eq!(shop.metrics().await.finished(true), 20);
    shop.close().await;
}

// --- A burst -------------------------------------------------------------------------------------------------------

const BURST: usize = THREADS * EACH as usize;

/// Connections that the kernel dropped because an accept queue was full; of the whole machine.
fn listen_drops() -> u64 {
    let netstat = std::fs::read_to_string("/proc/net/netstat").unwrap();
    let mut lines = netstat
        .lines()
        .filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let fields = names.split(' ').zip(values.split(' '));
    fields
        .filter(|(name, _)| ["ListenOverflows", "ListenDrops"].contains(name))
        .map(|(_, value)| value.parse::<u64>().unwrap())
        .sum()
}

/// How long the burst takes.
const BURST_TAKES: Duration = Duration::from_secs(1);
const THREADS: usize = 4;
const EACH: u32 = 2500;

struct Burst {
    took: Duration,
    slowest: Duration,
    drops: u64,
}

/// Ten thousand connect within a second, and then each asks something. Plain threads: what a connect takes is then the
/// kernel's time, not a runtime's.
fn burst(door: Door) -> Burst {
    let before = listen_drops();
    let begin = Instant::now();
    let connect = move || {
        let mut slowest = Duration::ZERO;
        let mut connections = Vec::with_capacity(EACH as usize);
        for number in 0..EACH {
            let due = BURST_TAKES * number / EACH;
            std::thread::sleep(due.saturating_sub(begin.elapsed()));
            let begin = Instant::now();
            connections.push(TcpStream::connect(door.address).unwrap());
            slowest = slowest.max(begin.elapsed());
        }
        (connections, slowest)
    };
    let threads: Vec<_> = (0..THREADS).map(|_| std::thread::spawn(connect)).collect();
    let connected: Vec<_> = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    let took = begin.elapsed();
    let slowest = connected.iter().map(|(_, slowest)| *slowest).max().unwrap();
    let mut connections: Vec<_> = connected
        .into_iter()
        .flat_map(|(connections, _)| connections)
        .collect();
    for connection in &mut connections {
        connection
            .set_read_timeout(Some(crate::shop::PATIENCE))
            .unwrap();
        connection
            .write_all(b"GET /healthz HTTP/1.1\r\nhost: shop\r\n\r\n")
            .unwrap();
    }
    for connection in &mut connections {
        let mut status = [0; 12];
        connection.read_exact(&mut status).unwrap();
        assert_eq!(status.as_slice(), b"HTTP/1.1 200");
    }
    Burst {
        took,
        slowest,
        drops: listen_drops() - before,
    }
}

#[tokio::test]
async fn ten_thousand_who_connect_at_once_are_all_answered_and_none_has_to_knock_twice() {
    need_open_files(BURST as u64 + 256);
    let shop = Shop::open(&[("log.level", "info"), ("flood.mode", "off")]).await;
    let door = shop.customers;
    let mut drops = Vec::new();
    // The counters are the whole machine's: a neighbour's drops are not held against this server, its own come again.
    for _ in 0..3 {
        let burst = tokio::task::spawn_blocking(move || burst(door))
            .await
            .unwrap();
        assert!(
            burst.took < Duration::from_secs(10),
            "this was no burst: {:?}",
            burst.took
        );
        drops.push((burst.drops, burst.slowest));
        shop.until("they are gone", |now| now.connections("customers") == 0)
            .await;
        // A repeated SYN is sent after a second.
        if burst.drops == 0 && burst.slowest < Duration::from_secs(1) {
            break;
        }
    }
    let last = *drops.last().unwrap();
    assert!(
        last.0 == 0 && last.1 < Duration::from_secs(1),
        "dropped, slowest connect: {drops:?}"
    );
    assert_eq!(
        shop.metrics().await.answers("customers", 200),
        drops.len() * BURST
    );
    shop.close().await;
}
