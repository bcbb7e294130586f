//! Pages for people: `GET /`, and problems, where a client prefers HTML.

use hyper::Method;
use serde_json::Value;

use crate::client::{Answer, Ask, Door, get, post};
use crate::shop::{Shop, text};

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

/// What every page must be, whatever it says.
#[track_caller]
fn is_a_page(page: &Answer) {
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8"),
        "{page}"
    );
    assert_eq!(page.header("vary"), Some("Accept"), "{page}");
    let policy = page.header("content-security-policy").unwrap_or_default();
    assert!(
        policy.starts_with("default-src 'none'; style-src 'self'"),
        "{page}"
    );
    let html = page.text();
    for part in [
        "<!DOCTYPE html><html lang=\"en\">",
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">",
        "<meta name=\"color-scheme\" content=\"light dark\">",
    ] {
        assert!(html.contains(part), "{part} is missing: {page}");
    }
    for forbidden in [
        "<script", "style=\"", "<style", "onclick", "http://", "https://",
    ] {
        assert!(!html.contains(forbidden), "{forbidden}: {page}");
    }
}

/// As it stands in HTML.
fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}

#[tokio::test]
async fn both_listeners_say_what_is_here_to_people_and_to_programs() {
    let shop = Shop::open(&[]).await;
    for (door, name) in [(shop.customers, "customers"), (shop.staff, "staff")] {
        let json = door.ask(get("/").header("accept", "*/*")).await;
        assert_eq!(json.header("vary"), Some("Accept"), "{json}");
        let index = json.expect(200);
        assert_eq!(index["listener"], name);
        assert_eq!(index["version"], env!("CARGO_PKG_VERSION"));
        let page = door.ask(get("/").header("accept", BROWSER)).await;
        // Customers get the page to order, operators the overview.
        assert_eq!(page.status, 200, "{page}");
        let screen = format!(
            "/ui/{}.js",
            if name == "staff" { "operator" } else { "order" }
        );
        assert!(page.text().contains(&screen), "{screen} in {page}");
        let links = index["links"].as_array().unwrap();
        let hrefs: Vec<_> = links.iter().map(|link| text(&link["href"])).collect();
        for path in ["/docs", "/openapi.json", "/healthz", "/readyz"] {
            assert!(hrefs.iter().any(|href| href == path), "{path} in {index}");
        }
        assert_eq!(hrefs.contains(&"/metrics".to_owned()), name == "staff");
        for link in links {
            let href = text(&link["href"]);
            assert_eq!(door.ask(get(href.as_str())).await.status, 200, "{href}");
        }
        for (path, kind) in [
            ("/style.css", "text/css; charset=utf-8"),
            ("/icon.svg", "image/svg+xml"),
        ] {
            let file = door.ask(get(path)).await;
            assert_eq!(
                (file.status, file.header("content-type")),
                (200, Some(kind)),
                "{file}"
            );
        }
    }
    shop.close().await;
}

#[tokio::test]
async fn a_screen_may_use_scripts_of_its_own_listener_and_nothing_else() {
    let shop = Shop::open(&[]).await;
    for (door, path) in [
        (shop.customers, "/"),
        (shop.customers, "/board"),
        (shop.staff, "/"),
        (shop.staff, "/barista"),
    ] {
        for (accepted, asked, language) in [
            ("en-GB", "", "en"),
            ("de-AT,en;q=0.5", "", "de"),
            ("en", "?lang=de", "de"),
        ] {
            let ask = get(format!("{path}{asked}")).header("accept", BROWSER);
            let page = door.ask(ask.header("accept-language", accepted)).await;
            assert_eq!(page.status, 200, "{page}");
            let html = page.text();
            assert!(
                html.contains(&format!("<html lang=\"{language}\">")),
                "{html}"
            );
            for (header, value) in [
                ("content-type", "text/html; charset=utf-8"),
                ("content-language", language),
                ("cache-control", "no-cache"),
                ("vary", "Accept, Accept-Language"),
                ("referrer-policy", "no-referrer"),
                ("x-content-type-options", "nosniff"),
                ("cross-origin-opener-policy", "same-origin"),
                ("cross-origin-resource-policy", "same-origin"),
            ] {
                assert_eq!(page.header(header), Some(value), "{header}: {page}");
            }
            let policy = page.header("content-security-policy").unwrap();
            assert!(
                policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"),
                "{policy}"
            );
            assert!(!policy.contains("unsafe"), "{policy}");
        }
        let unknown = get(format!("{path}?language=de")).header("accept", BROWSER);
        assert_eq!(door.ask(unknown).await.status, 400);
    }
    shop.close().await;
}

#[tokio::test]
async fn without_pages_the_api_is_the_same() {
    let shop = Shop::open(&[("pages.enabled", "false")]).await;
    let ask = |path: &str| get(path).header("accept", BROWSER);
    let index = shop.customers.ask(ask("/")).await;
    assert_eq!(index.status, 200, "{index}");
    is_a_page(&index);
    let board = shop.customers.ask(ask("/board")).await.expect(200);
    assert_eq!(board["open"], true);
    let console = shop.staff.ask(ask("/barista")).await;
    assert_eq!(console.status, 404, "{console}");
    shop.close().await;
}

#[tokio::test]
async fn a_file_of_the_screens_is_sent_compressed_and_only_once() {
    let shop = Shop::open(&[]).await;
    for (door, path, kind) in [
        (
            shop.customers,
            "/ui/order.js",
            "text/javascript; charset=utf-8",
        ),
        (shop.customers, "/ui/base.css", "text/css; charset=utf-8"),
        (
            shop.staff,
            "/ui/barista.js",
            "text/javascript; charset=utf-8",
        ),
        (shop.staff, "/ui/de.json", "application/json"),
    ] {
        let ask = || get(path).header("accept-encoding", "gzip");
        let file = door.ask(ask()).await;
        assert_eq!(
            (file.status, file.header("content-type")),
            (200, Some(kind)),
            "{path}"
        );
        assert_eq!(file.header("content-encoding"), Some("gzip"), "{path}");
        assert_eq!(file.header("cache-control"), Some("no-cache"), "{path}");
        let etag = file.header("etag").unwrap();
        let again = door.ask(ask().header("if-none-match", etag)).await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
        door.expect_problem(get(format!("{path}x")), 404, "no-such-path")
            .await;
    }
    shop.close().await;
}

#[tokio::test]
async fn a_problem_is_a_page_for_those_who_prefer_html_with_all_that_programs_are_told() {
    let shop = Shop::open(&[("flood.outstanding_max", "1")]).await;
    shop.promised().await;
    let foreign = |ask: Ask| ask.header("sec-fetch-site", "cross-site");
    let assign = || post("/assign").header("content-type", "application/json");
    let (customers, staff) = (shop.customers, shop.staff);
    let requests: [(Door, u16, Ask); 10] = [
        (customers, 404, get("/nothing")),
        (customers, 405, Ask::new(Method::PUT, "/order/")),
        (customers, 400, get("/orders/1")),
        (
            customers,
            400,
            get("/orders/1?%3Cscript%3Ealert(1)%3C/script%3E&b"),
        ),
        (customers, 429, post("/order/")),
        (
            customers,
            415,
            post("/packages")
                .header("content-type", "text/plain")
                .body("x"),
        ),
        (customers, 403, foreign(post("/order/"))),
        (staff, 421, get("/").header("host", "evil.example")),
        (staff, 422, get("/couriers?zone=%3Cb%3E")),
        (staff, 422, assign().body("{\"driver_ids\": []}")),
    ];
    for (door, status, ask) in requests {
        let ask = ask.header("x-request-id", "request-7");
        let json = door.ask(ask.clone()).await;
        let page = door.ask(ask.header("accept", BROWSER)).await;
        assert_eq!(
            (json.status, page.status),
            (status, status),
            "{json} {page}"
        );
        is_a_page(&page);
        for header in ["cache-control", "allow", "x-request-id", "ratelimit-policy"] {
            assert_eq!(json.header(header), page.header(header), "{header}: {page}");
        }
        assert_eq!(
            json.headers.contains_key("retry-after"),
            page.headers.contains_key("retry-after")
        );
        let problem = json.json();
        let errors = problem["errors"].as_array().into_iter().flatten();
        let message = errors.flat_map(|error| error.as_object().unwrap().values());
        let message = message.chain(["type", "title", "detail"].map(|member| &problem[member]));
        for words in message.filter_map(Value::as_str).chain(["request-7"]) {
            assert!(page.text().contains(&escaped(words)), "{words} in {page}");
        }
    }
    shop.serve_all().await;
    shop.close().await;
}
