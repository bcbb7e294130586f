//! HTTP/2 without TLS, by prior knowledge.

use std::net::Shutdown;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use crate::client::{Answer, Ask, Door, get, order, post, within};
use crate::connections::{LARGEST, LARGEST_BYTES, resident_bytes};
use crate::shop::{Shop, Started};

const PREFACE: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A SETTINGS frame without settings (RFC 9113, sections 4.1 and 6.5).
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

/// One HTTP/2 connection for many requests at once. Dropping it closes the socket.
struct Connection {
    door: Door,
    requests: http2::SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
    /// hyper keeps the connection open in its own task as long as a request sender exists.
    socket: std::net::TcpStream,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Fails if the server has closed it already.
        drop(self.socket.shutdown(Shutdown::Both));
    }
}

impl Connection {
    async fn open(door: Door) -> Self {
        Self::over(http2::Builder::new(TokioExecutor::new()), door).await
    }

    async fn over(protocol: http2::Builder<TokioExecutor>, door: Door) -> Self {
        let stream = TcpStream::connect(door.address).await.unwrap();
        let stream = stream.into_std().unwrap();
        let socket = stream.try_clone().unwrap();
        let stream = TcpStream::from_std(stream).unwrap();
        let handshake = protocol.handshake(TokioIo::new(stream));
        let (requests, driver) = within("the handshake", handshake).await.unwrap();
        Self {
            door,
            requests,
            // The sender of the request gets the error, so it is ignored here.
            driver: tokio::spawn(async { drop(driver.await) }),
            socket,
        }
    }

    /// A stream of its own; dropping the future resets it.
    fn ask(&self, ask: &Ask) -> impl Future<Output = Result<Answer, hyper::Error>> + Send + use<> {
        let mut requests = self.requests.clone();
        let request = ask.request(Some(self.door.address));
        async move {
            requests.ready().await?;
            Answer::read(requests.send_request(request).await?).await
        }
    }
}

#[tokio::test]
async fn a_thousand_orders_held_on_one_connection_are_all_served() {
    let shop = Shop::open(&[
        ("flood.mode", "off"),
        ("customers.h2c", "true"),
        ("staff.h2c", "true"),
        ("log.level", "info"),
    ])
    .await;
    let customers = Connection::open(shop.customers).await;
    let mut held = JoinSet::new();
    for _ in 0..1000 {
        held.spawn(customers.ask(&order()));
    }
    let full = shop.until("all are held", |now| now.held() == 1000).await;
    assert_eq!((full.waiting(), full.connections("customers")), (1000, 1));
    // HTTP/1.1 is spoken at the same door.
    let plain = shop.customer(order()).await;

    let staff = Connection::open(shop.staff).await;
    let mut baristas = JoinSet::new();
    for _ in 0..10 {
        let mut next = Started::of(&staff.ask(&get("/start/")).await.unwrap().expect(200));
        let staff = staff.requests.clone();
        let door = shop.staff;
        baristas.spawn(async move {
            let mut staff = staff;
            loop {
                let finish = post(format!("/finish/?order_id={}&next=0", next.id));
                staff.ready().await.unwrap();
                let response = staff
                    .send_request(finish.request(Some(door.address)))
                    .await
                    .unwrap();
                let both = Answer::read(response).await.unwrap().expect(200);
                assert_eq!(both["finished"]["delivered"], true);
                if both["next"].is_null() {
                    return;
                }
                next = Started::of(&both["next"]);
            }
        });
    }
    within("the baristas go home", baristas.join_all()).await;
    for answer in within("everybody is served", held.join_all()).await {
        let answer = answer.unwrap();
        assert_eq!(answer.expect(200)["status"], "ready");
        assert!(answer.header("x-request-id").is_some());
    }
    plain.answer().await.expect(200);
    drop((customers, staff));
    shop.close().await;
}

#[tokio::test]
async fn beyond_the_bound_of_one_connection_an_order_waits_until_another_is_served() {
    let settings = [("customers.h2c", "true"), ("http.h2_streams_max", "2")];
    let shop = Shop::open(&settings).await;
    let connection = Connection::open(shop.customers).await;
    // The client learns the bound with the first answer.
    connection.ask(&get("/healthz")).await.unwrap().expect(200);
    let mut held = JoinSet::new();
    for _ in 0..3 {
        held.spawn(connection.ask(&order()));
    }
    shop.until("two are held", |now| now.held() == 2).await;
    let started = shop.start().await;
    assert_eq!(shop.metrics().await.placed(), 2);
    shop.finish(&started.id).await;
    shop.until("the third is placed", |now| now.placed() == 3)
        .await;
    shop.serve_all().await;
    for answer in within("everybody is served", held.join_all()).await {
        answer.unwrap().expect(200);
    }
    drop(connection);
    shop.close().await;
}

#[tokio::test]
async fn a_customer_who_resets_a_stream_leaves_and_the_others_on_the_connection_stay() {
    let shop = Shop::open(&[("customers.h2c", "true")]).await;
    let connection = Connection::open(shop.customers).await;
    let staying = tokio::spawn(connection.ask(&order()));
    let leaving = tokio::spawn(connection.ask(&order()));
    shop.until("both are held", |now| now.held() == 2).await;
    leaving.abort();
    let after = shop.until("one has left", |now| now.held() == 1).await;
    assert_eq!((after.waiting(), after.cancelled("left")), (1, 1));
    shop.serve_all().await;
    within("the other is served", staying)
        .await
        .unwrap()
        .unwrap()
        .expect(200);
    drop(connection);
    shop.close().await;
}

#[tokio::test]
async fn a_connection_that_breaks_takes_all_its_customers_with_it() {
    let shop = Shop::open(&[("customers.h2c", "true")]).await;
    let connection = Connection::open(shop.customers).await;
    let mut held = JoinSet::new();
    for _ in 0..50 {
        held.spawn(connection.ask(&order()));
    }
    shop.until("all are held", |now| now.held() == 50).await;
    drop(connection);
    let after = shop.until("all have left", |now| now.held() == 0).await;
    assert_eq!((after.waiting(), after.cancelled("left")), (0, 50));
    held.shutdown().await;
    shop.close().await;
}

#[tokio::test]
async fn an_order_in_an_answer_that_never_leaves_goes_back_to_its_place_as_if_never_taken() {
    let shop = Shop::open(&[("staff.h2c", "true"), ("orders.lease", "1h")]).await;
    let id = shop.promised().await;
    let behind = shop.promised().await;
    // A client that takes headers and leaves no room for a body: the order stays in the server's hands.
    let mut protocol = http2::Builder::new(TokioExecutor::new());
    protocol.initial_stream_window_size(0);
    let mut staff = Connection::over(protocol, shop.staff).await;
    let start = get("/start/").request(Some(shop.staff.address));
    let answer = within("the headers come", staff.requests.send_request(start))
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(shop.state(&id).await["status"], "brewing");
    drop(answer);
    let after = shop.until("it is back", |now| now.brewing() == 0).await;
    assert_eq!((after.waiting(), after.requeued("undelivered")), (2, 1));
    let started = shop.start().await;
    assert_eq!((started.id.as_str(), started.attempt), (id.as_str(), 1));
    assert_eq!(shop.start().await.id, behind);
    shop.finish(&id).await;
    shop.finish(&behind).await;
    drop(staff);
    shop.close().await;
}

#[tokio::test]
async fn http2_is_refused_where_it_is_off() {
    let shop = Shop::open(&[]).await;
    for door in [shop.customers, shop.staff] {
        let mut raw = door.raw().await;
        raw.write(PREFACE).await;
        raw.write(SETTINGS).await;
        let answer = raw.rest().await;
        let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 400");
        assert!(refused, "{answer:?}");
    }
    shop.close().await;
}

#[tokio::test]
async fn the_first_bytes_may_come_in_pieces_whichever_protocol_they_begin() {
    let shop = Shop::open(&[("customers.h2c", "true")]).await;
    for pieces in [
        &["P", "RI * HT", "TP/2.0\r\n\r\nSM\r\n", "\r\n"][..],
        &["PRI", " * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
    ] {
        let mut raw = shop.customers.raw().await;
        raw.0.set_nodelay(true).unwrap();
        for piece in pieces {
            raw.write(piece).await;
            // Any pause must do; this one lets the server look at each piece by itself.
            sleep(Duration::from_millis(30)).await;
        }
        raw.write(SETTINGS).await;
        let mut frame = [0; 9];
        within("the server's settings", raw.0.read_exact(&mut frame))
            .await
            .unwrap();
        assert_eq!(frame[3], 4, "a SETTINGS frame comes first: {frame:?}");
    }
    for pieces in [
        &["G", "ET /hea", "lthz HTTP/1.1\r\nhost: shop\r\n", "\r\n"][..],
        &["PR", "OPFIND / HTTP/1.1\r\nhost: shop\r\n\r\n"],
    ] {
        let mut raw = shop.customers.raw().await;
        raw.0.set_nodelay(true).unwrap();
        for piece in pieces {
            raw.write(piece).await;
            sleep(Duration::from_millis(30)).await;
        }
        let answer = raw.one_answer().await;
        let expected = if pieces[0] == "G" {
            "HTTP/1.1 200"
        } else {
            "HTTP/1.1 405"
        };
        assert!(answer.starts_with(expected), "{answer}");
    }
    shop.close().await;
}

#[tokio::test]
async fn a_client_that_starts_http2_and_falls_silent_is_closed() {
    let shop = Shop::open(&[("customers.h2c", "true"), ("http.header_timeout", "1s")]).await;
    let mut silent = Vec::new();
    for bytes in [&b""[..], b"P", b"PRI ", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut raw = shop.customers.raw().await;
        raw.write(bytes).await;
        silent.push(raw);
    }
    for raw in &mut silent {
        raw.rest().await;
    }
    drop(silent);
    shop.close().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_one_with_a_held_order_is_not() {
    let shop = Shop::open(&[("customers.h2c", "true"), ("http.header_timeout", "1s")]).await;
    let mut idle = Connection::open(shop.customers).await;
    idle.ask(&get("/healthz")).await.unwrap().expect(200);
    let busy = Connection::open(shop.customers).await;
    let held = tokio::spawn(busy.ask(&order()));
    shop.until("one is held", |now| now.held() == 1).await;
    within("the idle one is closed", &mut idle.driver)
        .await
        .unwrap();
    // As long again for the other one.
    let mut another = Connection::open(shop.customers).await;
    within("an idle one is closed", &mut another.driver)
        .await
        .unwrap();
    assert!(!held.is_finished());
    shop.serve_all().await;
    within("the held one is served", held)
        .await
        .unwrap()
        .unwrap()
        .expect(200);
    drop((idle, another, busy));
    shop.close().await;
}

#[tokio::test]
async fn a_stream_nobody_reads_is_reset_and_a_slow_one_beside_it_is_served_to_its_end() {
    let shop = Shop::open(&[
        ("customers.h2c", "true"),
        ("http.header_timeout", "1s"),
        ("http.write_timeout", "3s"),
    ])
    .await;
    let mut protocol = http2::Builder::new(TokioExecutor::new());
    protocol.initial_stream_window_size(32 * 1024);
    let mut connection = Connection::over(protocol, shop.customers).await;
    let ask = get(LARGEST).request(Some(shop.customers.address));
    let stuck = connection.requests.send_request(ask.clone()).await.unwrap();
    let slow = connection.requests.send_request(ask).await.unwrap();
    assert!(stuck.status().is_success() && slow.status().is_success());
    let mut slow = slow.into_body();
    let mut taken = 0;
    while let Some(frame) = within("some of it comes", slow.frame()).await {
        let data = frame.unwrap().into_data().unwrap();
        taken += data.len();
        // In all longer than every time of this server.
        sleep(Duration::from_millis(60)).await;
    }
    assert_eq!(taken, LARGEST_BYTES);
    let stuck = within("the other one ends", stuck.into_body().collect()).await;
    assert!(stuck.is_err(), "it was not reset");
    connection.ask(&get("/healthz")).await.unwrap().expect(200);
    drop(connection);
    shop.close().await;
}

#[tokio::test]
async fn four_hundred_streams_that_take_nothing_cost_little_memory() {
    let settings = [("customers.h2c", "true"), ("http.write_timeout", "5m")];
    let shop = Shop::open(&settings).await;
    // The file is made, and what the first requests cost is spent.
    let first = shop.customers.ask(get(LARGEST)).await;
    assert_eq!(first.body.len(), LARGEST_BYTES);
    let before = resident_bytes(shop.pid());
    let mut protocol = http2::Builder::new(TokioExecutor::new());
    protocol.initial_stream_window_size(0);
    let connection = Connection::over(protocol, shop.customers).await;
    let mut heads = JoinSet::new();
    for _ in 0..400 {
        let mut requests = connection.requests.clone();
        let request = get(LARGEST).request(Some(shop.customers.address));
        heads.spawn(async move { requests.send_request(request).await.unwrap() });
    }
    let heads = within("all heads come", heads.join_all()).await;
    assert!(heads.iter().all(|head| head.status() == 200));
    let more = resident_bytes(shop.pid()).saturating_sub(before);
    assert!(more < 40 << 20, "{more} bytes");
    drop((heads, connection));
    shop.close().await;
}

#[tokio::test]
async fn held_streams_are_served_after_sigterm() {
    let shop = Shop::open(&[("customers.h2c", "true")]).await;
    let connection = Connection::open(shop.customers).await;
    let mut held = JoinSet::new();
    for _ in 0..20 {
        held.spawn(connection.ask(&order()));
    }
    shop.until("all are held", |now| now.held() == 20).await;
    shop.signal(rustix::process::Signal::TERM);
    while !shop.customers.refuses().await {}
    shop.serve_on_one_connection(20).await;
    for answer in within("everybody is served", held.join_all()).await {
        answer.unwrap().expect(200);
    }
    let log = shop.ended_well().await;
    assert!(!log.contains("did not close in time"), "{log}");
}
