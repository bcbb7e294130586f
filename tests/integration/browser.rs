//! A real browser, Debian's Chromium without a screen: what pages of other origins try, and whether the shipped pages work
//! in it.

use std::process::{Command, Stdio};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::client::order;
use crate::nginx::Nginx;
use crate::shop::Shop;

/// Of Chromium in all tests. `evil.example` is this machine, and so is `shop`, a name for which it sends no Fetch metadata.
pub(crate) const SWITCHES: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP evil.example 127.0.0.1, MAP shop 127.0.0.1",
];

/// What the browser has made of a page once nothing moves any more: its document, and what it wrote into the console.
struct Visit {
    document: String,
    console: Vec<String>,
}

/// Opens an address.
async fn visit(url: String) -> Visit {
    let profile = tempfile::tempdir().unwrap();
    let mut browser = Command::new("chromium");
    browser
        .args(SWITCHES)
        .args(["--enable-logging=stderr", "--log-level=0"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        // Pages may take so much of their own time, in milliseconds, however long that takes.
        .args(["--virtual-time-budget=10000", "--dump-dom", &url])
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || browser.output());
    let output = output.await.unwrap();
    let output = output.expect("Chromium is installed (scripts/install-tools.sh test)");
    assert!(output.status.success(), "{output:?}");
    let log = String::from_utf8_lossy(&output.stderr);
    let console = log.lines().filter(|line| line.contains("CONSOLE"));
    Visit {
        document: String::from_utf8(output.stdout).unwrap(),
        console: console.map(str::to_owned).collect(),
    }
}

/// A web server that answers every request with one page.
pub(crate) async fn foreign_site(page: String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let length = page.len();
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
            );
            // The browser may have left.
            drop(stream.read(&mut [0; 8192]).await);
            drop(stream.write_all(format!("{head}{page}").as_bytes()).await);
            drop(stream.shutdown().await);
        }
    });
    port
}

/// A page that tries to take an order in every way there is, and to spend an address's orders, at these listeners (host and
/// port).
pub(crate) fn evil(customers: &str, staff: &str, order_id: &str) -> String {
    format!(
        r#"<!DOCTYPE html><title>evil</title>
<link rel="prefetch" href="http://{staff}/start/?a">
<img src="http://{staff}/start/?b">
<script src="http://{staff}/start/?c"></script>
<iframe name="start" src="http://{staff}/start/?d"></iframe>
<iframe name="finish"></iframe><iframe name="order"></iframe>
<form id="f1" method="post" target="finish" enctype="text/plain" action="http://{staff}/finish/?order_id={order_id}"><input name="a"></form>
<form id="f2" method="post" target="order" action="http://{customers}/order/"></form>
<script>
  f1.submit(); f2.submit();
  const send = (url, options) => fetch(url, {{mode: "no-cors", credentials: "include", ...options}}).catch(() => 0);
  send("http://{staff}/start/");
  send("http://{staff}/start/", {{method: "POST"}});
  send("http://{staff}/events", {{method: "POST", body: new Blob(["[]"])}});
  send("http://{customers}/order/", {{method: "POST"}});
  send("http://{customers}/packages", {{method: "DELETE", mode: "cors"}});
  navigator.sendBeacon("http://{staff}/start/");
</script>"#
    )
}

#[tokio::test]
async fn a_page_of_another_origin_that_a_barista_has_open_takes_no_order() {
    let shop = Shop::open(&[]).await;
    let id = shop.promised().await;
    let [customers, staff] = [shop.customers, shop.staff].map(|door| door.address.to_string());
    let port = foreign_site(evil(&customers, &staff, &id)).await;
    // Another site, and another port of the same one.
    for host in ["evil.example", "127.0.0.1"] {
        let seen = visit(format!("http://{host}:{port}/")).await;
        assert!(seen.document.contains("evil"), "{}", seen.document);
    }
    let refused = |listener: &str| {
        format!("odyssey_http_answers_total{{listener=\"{listener}\",status=\"403\"}}")
    };
    let metrics = shop.metrics().await;
    assert!(
        metrics.count(&refused("staff")) >= 10,
        "it tried: {metrics}"
    );
    assert!(
        metrics.count(&refused("customers")) >= 4,
        "it tried: {metrics}"
    );
    let started = metrics.count("odyssey_orders_started_total");
    assert_eq!(
        (metrics.placed(), metrics.waiting(), started),
        (1, 1, 0),
        "{metrics}"
    );

    // The same machine under a foreign name.
    let staff = shop.staff.address.port();
    let rebound = visit(format!("http://evil.example:{staff}/")).await;
    assert!(
        rebound.document.contains("Not a host of this listener"),
        "{}",
        rebound.document
    );
    shop.serve_all().await;
    shop.close().await;
}

#[tokio::test]
async fn the_shipped_pages_work_in_a_browser_without_a_word_in_its_console() {
    let shop = Shop::open(&[]).await;
    let nginx = Nginx::before(&shop, &[]).await;
    let held = shop.customer(order()).await;
    for door in [shop.customers, nginx.customers, shop.staff, nginx.staff] {
        let is_customers =
            [shop.customers.address, nginx.customers.address].contains(&door.address);
        // The screens have tests of their own (`screens.rs`, `operators.rs`): their streams do not end.
        for (path, shown) in [
            ("/docs", "opblock-summary"),
            ("/start/", "An order is not taken by visiting a page"),
            ("/statistics?brista=Bo", "brista"),
        ] {
            if path == "/start/" && is_customers {
                continue;
            }
            let seen = visit(format!("http://{}{path}", door.address)).await;
            assert!(seen.document.contains(shown), "{path}: {}", seen.document);
            // What is refused is there as a page, and as a line of the browser's own.
            let unexpected = seen
                .console
                .iter()
                .filter(|line| !line.contains("the server responded with"));
            assert_eq!(
                unexpected.collect::<Vec<_>>(),
                Vec::<&String>::new(),
                "{path}"
            );
        }
    }
    assert!(held.is_held());
    drop(nginx);
    shop.serve_all().await;
    held.answer().await.expect(200);
    shop.close().await;
}
