//! Requests that are wrong in every way: each is refused, the line is as it was, and the server goes on.

use serde_json::json;

use crate::client::{Door, Raw, Visitor, get, order, within};
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

/// Requests that no route ever sees.
#[tokio::test]
async fn a_head_that_is_none_is_refused_and_the_connection_closed() {
    let line = Line::open(&[]).await;
    let huge_path = format!("GET /{} HTTP/1.1\r\n\r\n", "y".repeat(1_000_000));
    let head = |lines: &str| format!("GET / HTTP/1.1\r\n{lines}\r\n\r\n");
    let body = |lines: &str| format!("POST /order/ HTTP/1.1\r\n{lines}\r\n\r\n{{}}");
    for (what, bytes, expected) in [
        ("a word", "HELLO\r\n\r\n", 400),
        ("a method alone", "GET\r\n\r\n", 400),
        ("two spaces", "GET  /  HTTP/1.1\r\n\r\n", 400),
        ("no version", "GET /\r\n\r\n", 400),
        ("a version to come", "GET / HTTP/3.0\r\n\r\n", 400),
        ("a TLS hello", "\x16\x03\x01\x02\x00\x01\x00\x01\x00", 400),
        ("a control character", "GET /\x01 HTTP/1.1\r\n\r\n", 400),
        ("a huge path", &huge_path, 431),
        ("a space before the colon", &head("host : x"), 400),
        ("no colon", &head("host"), 400),
        ("no name", &head(": x"), 400),
        ("a NUL", &head("host: a\0b"), 400),
        ("a fold", &head("x: a\r\n b"), 400),
        ("too many headers", &head(&"x: y\r\n".repeat(200)), 431),
        (
            "a huge header",
            &head(&format!("x: {}", "y".repeat(1 << 20))),
            431,
        ),
        ("a length that is a word", &body("content-length: two"), 400),
        ("no length", &body("content-length:"), 400),
        ("a negative length", &body("content-length: -1"), 400),
        ("a signed length", &body("content-length: +2"), 400),
        ("a hexadecimal length", &body("content-length: 0x2"), 400),
        (
            "a length beyond 64 bits",
            &body("content-length: 99999999999999999999"),
            400,
        ),
        (
            "two lengths",
            &body("content-length: 2\r\ncontent-length: 3"),
            400,
        ),
        ("two lengths in one", &body("content-length: 2, 3"), 400),
        ("not chunked", &body("transfer-encoding: gzip"), 400),
        (
            "not chunked at the end",
            &body("transfer-encoding: chunked, gzip"),
            400,
        ),
    ] {
        let answer = answer_to(line.shop.customers, bytes.as_bytes(), false).await;
        assert_eq!(status(&answer), Some(expected), "{what}: {answer:?}");
    }
    line.close_untouched().await;
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
async fn a_body_that_is_too_large_is_refused_however_it_is_sent() {
    let line = Line::open(&[]).await;
    // On the staff's side too, where no body is read for its own sake.
    let start = get("/start/").body(vec![b' '; 65_537]);
    let answer = line.shop.staff.ask(start).await;
    answer.expect_problem(413, "body-too-large");

    let head = "POST /order/ HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n";
    let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000)).repeat(17);
    let chunks = format!("{head}transfer-encoding: chunked\r\n\r\n{chunk}0\r\n\r\n");
    let length = format!("{head}content-length: 1000000000000000000\r\n\r\n");
    // The answer comes while this is still being sent, which not every client can read then.
    let body = " ".repeat(20_000_000);
    let large = format!("{head}content-length: 20000000\r\n\r\n{body}");
    for (what, bytes) in [
        ("chunks", chunks),
        ("a length alone", length),
        ("twenty megabytes", large),
    ] {
        let answer = answer_to(line.shop.customers, bytes.as_bytes(), false).await;
        assert_eq!(status(&answer), Some(413), "{what}: {answer:?}");
        let kind = "urn:odyssey:problem:body-too-large";
        assert!(answer.contains(kind), "{what}: {answer:?}");
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
