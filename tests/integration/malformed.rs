//! Requests that are wrong in every way: each is refused, the line is as it was, and the server goes on.

use serde_json::json;

use crate::client::{Ask, Door, Raw, Visitor, delete, get, order, post, within};
use crate::shop::Shop;

/// A line that must not change: one customer held, one order promised behind.
struct Line {
    shop: Shop,
    held: Visitor,
    promised: String,
}

impl Line {
    async fn open(settings: &[(&str, &str)]) -> Self {
        let shop = Shop::open(settings).await;
        let held = shop
            .customer(order().json(&json!({"customer": "first"})))
            .await;
        let promised = shop.promised().await;
        Self {
            shop,
            held,
            promised,
        }
    }

    /// Checks that nothing has changed, serves all customers and closes.
    async fn close_untouched(self) {
        let Self {
            shop,
            held,
            promised,
        } = self;
        let now = shop
            .until("only the held customer is connected", |now| {
                now.connections("customers") == 1
            })
            .await;
        assert_eq!(
            (now.placed(), now.waiting(), now.held()),
            (2, 2, 1),
            "{now}"
        );
        assert_eq!(
            (now.brewing(), now.count("odyssey_orders_started_total")),
            (0, 0),
            "{now}"
        );
        assert_eq!(shop.state(&promised).await["position"], 2);
        assert_eq!(shop.serve_all().await, ["first", ""]);
        held.answer().await.expect(200);
        shop.close().await;
    }
}

/// What comes back for these bytes; the client's sending side is closed behind them if `ends`.
async fn answer_to(door: Door, bytes: &[u8], ends: bool) -> String {
    use tokio::io::AsyncWriteExt;
    let mut raw: Raw = door.raw().await;
    // The server may refuse before all of it is sent.
    drop(raw.0.write_all(bytes).await);
    if ends {
        drop(raw.0.shutdown().await);
    }
    raw.rest().await
}

fn status(answer: &str) -> Option<u16> {
    answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

/// Requests that no route ever sees: each is refused with this status, and its connection closed.
async fn all_refused(requests: &[(&str, &str, u16)]) {
    let line = Line::open(&[]).await;
    for (what, bytes, expected) in requests {
        let answer = answer_to(line.shop.customers, bytes.as_bytes(), false).await;
        assert_eq!(status(&answer), Some(*expected), "{what}: {answer:?}");
    }
    line.close_untouched().await;
}

#[tokio::test]
async fn a_request_line_that_is_none_is_refused_and_the_connection_closed() {
    let huge = format!("GET /{} HTTP/1.1\r\n\r\n", "y".repeat(1_000_000));
    all_refused(&[
        ("a word", "HELLO\r\n\r\n", 400),
        ("a method alone", "GET\r\n\r\n", 400),
        ("two spaces", "GET  /  HTTP/1.1\r\n\r\n", 400),
        ("no version", "GET /\r\n\r\n", 400),
        ("a version to come", "GET / HTTP/3.0\r\n\r\n", 400),
        ("a TLS hello", "\x16\x03\x01\x02\x00\x01\x00\x01\x00", 400),
        ("a control character", "GET /\x01 HTTP/1.1\r\n\r\n", 400),
        ("a huge path", &huge, 431),
    ])
    .await;
}

#[tokio::test]
async fn headers_that_are_none_are_refused_and_the_connection_closed() {
    let get = "GET / HTTP/1.1\r\n";
    let many = format!("{get}{}\r\n", "x: y\r\n".repeat(200));
    let huge = format!("{get}x: {}\r\n\r\n", "y".repeat(1 << 20));
    all_refused(&[
        (
            "a space before the colon",
            "GET / HTTP/1.1\r\nhost : x\r\n\r\n",
            400,
        ),
        ("no colon", "GET / HTTP/1.1\r\nhost\r\n\r\n", 400),
        ("no name", "GET / HTTP/1.1\r\n: x\r\n\r\n", 400),
        ("a NUL", "GET / HTTP/1.1\r\nhost: a\0b\r\n\r\n", 400),
        ("a fold", "GET / HTTP/1.1\r\nx: a\r\n b\r\n\r\n", 400),
        ("too many", &many, 431),
        ("a huge one", &huge, 431),
    ])
    .await;
}

#[tokio::test]
async fn a_length_that_is_none_is_refused_and_the_connection_closed() {
    let with = |headers: &str| format!("POST /order/ HTTP/1.1\r\n{headers}\r\n\r\n{{}}");
    all_refused(&[
        ("a word", &with("content-length: two"), 400),
        ("nothing", &with("content-length:"), 400),
        ("negative", &with("content-length: -1"), 400),
        ("signed", &with("content-length: +2"), 400),
        ("hexadecimal", &with("content-length: 0x2"), 400),
        (
            "beyond 64 bits",
            &with("content-length: 99999999999999999999"),
            400,
        ),
        (
            "two of them",
            &with("content-length: 2\r\ncontent-length: 3"),
            400,
        ),
        ("two in one", &with("content-length: 2, 3"), 400),
        ("not chunked", &with("transfer-encoding: gzip"), 400),
        (
            "not chunked at the end",
            &with("transfer-encoding: chunked, gzip"),
            400,
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_body_that_is_framed_in_two_ways_or_breaks_off_orders_nothing() {
    let line = Line::open(&[]).await;
    let post = "POST /order/ HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n";
    let chunked = format!("{post}transfer-encoding: chunked\r\n");
    for (what, bytes, ends) in [
        (
            "a length and chunks",
            format!("{chunked}content-length: 30\r\n\r\n2\r\n{{]\r\n0\r\n\r\n"),
            false,
        ),
        (
            "chunks and a length",
            format!(
                "{post}content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{{]\r\n0\r\n\r\n"
            ),
            false,
        ),
        (
            "a chunk size that is no number",
            format!("{chunked}\r\nzz\r\n{{}}\r\n0\r\n\r\n"),
            false,
        ),
        (
            "a chunk size beyond 64 bits",
            format!("{chunked}\r\nfffffffffffffffff\r\n{{}}\r\n0\r\n\r\n"),
            false,
        ),
        (
            "a chunk longer than it says",
            format!("{chunked}\r\n1\r\n{{}}\r\n0\r\n\r\n"),
            false,
        ),
        (
            "a truncated chunk",
            format!("{chunked}\r\n20\r\n{{}}"),
            true,
        ),
        ("no last chunk", format!("{chunked}\r\n2\r\n{{}}\r\n"), true),
        (
            "a truncated body",
            format!("{post}content-length: 10\r\n\r\n{{}}"),
            true,
        ),
        ("a truncated header", format!("{post}content-len"), true),
    ] {
        let answer = answer_to(line.shop.customers, bytes.as_bytes(), ends).await;
        let refused = status(&answer).is_none_or(|status| (400..500).contains(&status));
        assert!(refused, "{what}: {answer:?}");
        // A client that still reads gets a problem of the application itself.
        if !ends {
            assert!(
                answer.contains("application/problem+json"),
                "{what}: {answer:?}"
            );
        }
    }
    line.close_untouched().await;
}

#[tokio::test]
async fn a_body_that_is_not_an_order_is_refused_with_its_place() {
    let line = Line::open(&[]).await;
    let deep = "[".repeat(1000);
    for (body, status, kind) in [
        ("{", 400, "unreadable"),
        ("{\"customer\":\"Ada\"", 400, "unreadable"),
        ("{\"customer\":\"Ada\"} {}", 400, "unreadable"),
        ("{'customer':'Ada'}", 400, "unreadable"),
        ("customer=Ada", 400, "unreadable"),
        (" ", 400, "unreadable"),
        (deep.as_str(), 422, "invalid"),
        ("null", 422, "invalid"),
        ("[]", 422, "invalid"),
        ("\"Ada\"", 422, "invalid"),
        ("7", 422, "invalid"),
        ("{\"customer\":7}", 422, "invalid"),
        ("{\"customer\":{\"name\":\"Ada\"}}", 422, "invalid"),
        ("{\"customer\":\"Ada\",\"customer\":\"Bo\"}", 422, "invalid"),
    ] {
        let answer = line.shop.customers.ask(order().body(body.to_owned())).await;
        let problem = answer.expect_problem(status, kind);
        assert_eq!(
            problem["errors"].is_array(),
            status == 422,
            "{body}: {problem}"
        );
    }
    for body in [
        &b"{\"customer\":\"\xff\"}"[..],
        b"\xef\xbb\xbf{}",
        b"\0\0\0\0",
    ] {
        let answer = line.shop.customers.ask(order().body(body)).await;
        answer.expect_problem(400, "unreadable");
    }
    line.close_untouched().await;
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_however_it_is_sent() {
    let line = Line::open(&[]).await;
    let answer = line
        .shop
        .customers
        .ask(order().body(vec![b' '; 65_537]))
        .await;
    answer.expect_problem(413, "body-too-large");
    // On the staff's side too, where no body is read for its own sake.
    let answer = line
        .shop
        .staff
        .ask(get("/start/").body(vec![b' '; 65_537]))
        .await;
    answer.expect_problem(413, "body-too-large");

    let head = "POST /order/ HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n";
    let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000)).repeat(17);
    let sized =
        |bytes: usize| format!("{head}content-length: {bytes}\r\n\r\n{}", " ".repeat(bytes));
    for (what, bytes) in [
        (
            "chunks",
            format!("{head}transfer-encoding: chunked\r\n\r\n{chunk}0\r\n\r\n"),
        ),
        (
            "a length alone",
            format!("{head}content-length: 1000000000000000000\r\n\r\n"),
        ),
        // The answer comes while these are still being sent, which not every client can read then.
        ("a megabyte", sized(1_000_000)),
        ("twenty megabytes", sized(20_000_000)),
    ] {
        let answer = answer_to(line.shop.customers, bytes.as_bytes(), false).await;
        assert_eq!(status(&answer), Some(413), "{what}: {answer:?}");
        assert!(
            answer.contains("urn:odyssey:problem:body-too-large"),
            "{what}: {answer:?}"
        );
    }
    line.close_untouched().await;
}

#[tokio::test]
async fn a_body_of_another_type_is_refused() {
    let line = Line::open(&[]).await;
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonp",
        "json",
        "",
        "image/svg+json",
    ] {
        let ask = order().header("Content-Type", kind).body("{}");
        line.shop
            .customers
            .ask(ask)
            .await
            .expect_problem(415, "not-json");
    }
    line.close_untouched().await;
}

#[tokio::test]
async fn a_request_that_fits_no_route_is_refused_on_both_sides() {
    let line = Line::open(&[]).await;
    let (customers, staff) = (line.shop.customers, line.shop.staff);
    for (door, ask, status, kind) in [
        (customers, get("/start/?wait=5"), 404, "no-such-path"),
        (customers, post("/finish/"), 404, "no-such-path"),
        (customers, get("/metrics"), 404, "no-such-path"),
        (customers, get("/orders/"), 404, "no-such-path"),
        (customers, post("//order/"), 404, "no-such-path"),
        (customers, post("/order/../order/x"), 404, "no-such-path"),
        (customers, post("/ORDER/"), 404, "no-such-path"),
        (customers, get("/order/"), 405, "no-such-method"),
        (
            customers,
            Ask::new("BREW".parse().unwrap(), "/order/"),
            405,
            "no-such-method",
        ),
        (customers, delete("/order/"), 405, "no-such-method"),
        (customers, post("/orders/1"), 405, "no-such-method"),
        (staff, order(), 404, "no-such-path"),
        (staff, delete("/start/"), 405, "no-such-method"),
        (staff, get("/finish/"), 405, "no-such-method"),
        (staff, get("/start/?wait=%zz"), 400, "unreadable"),
        (staff, get("/start/?wait=1;wait=2"), 400, "unreadable"),
        (staff, get("/start/?wait=NaN"), 400, "unreadable"),
    ] {
        door.ask(ask).await.expect_problem(status, kind);
    }
    line.close_untouched().await;
}

#[tokio::test]
async fn random_bytes_and_damaged_requests_leave_the_line_and_the_server_as_they_were() {
    let line = Line::open(&[("log.level", "info")]).await;
    let mut random = fastrand::Rng::with_seed(20_420_401);
    // None of these can place, start or finish an order, however it is damaged: not with one byte changed either.
    let requests = [
        "GET /orders/0191d5c8-7a9b-7000-8000-000000000000?wait=0 HTTP/1.1\r\nhost: shop\r\n\r\n",
        "DELETE /orders/0191d5c8-7a9b-7000-8000-000000000000 HTTP/1.1\r\nhost: shop\r\n\r\n",
        "PATCH /orders/x HTTP/1.1\r\nhost: shop\r\ncontent-type: application/json\r\ncontent-length: 16\r\n\r\n{\"customer\":\"A\"}",
        "POST /finish/?order_id=nobody&attempt=1&next=0 HTTP/1.1\r\nhost: shop\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "HEAD /start/?wait=5&barista=B HTTP/1.1\r\nhost: shop\r\nexpect: 100-continue\r\n\r\n",
    ];
    for round in 0..400 {
        let bytes: Vec<u8> = if round % 4 == 0 {
            let length = random.usize(1..2000);
            std::iter::repeat_with(|| random.u8(..))
                .take(length)
                .collect()
        } else {
            let mut bytes = requests[random.usize(..requests.len())].as_bytes().to_vec();
            for _ in 0..random.usize(1..6) {
                let at = random.usize(..bytes.len());
                match random.u8(..4) {
                    0 => bytes[at] = random.u8(..),
                    1 => bytes.truncate(at.max(1)),
                    2 => bytes.insert(at, random.u8(..)),
                    _ => drop(bytes.remove(at)),
                }
                if bytes.is_empty() {
                    bytes.push(b'\n');
                }
            }
            bytes
        };
        let door = if random.bool() {
            line.shop.customers
        } else {
            line.shop.staff
        };
        let what = format!("round {round} ends: {}", bytes.escape_ascii());
        within(&what, answer_to(door, &bytes, true)).await;
    }
    line.close_untouched().await;
}
