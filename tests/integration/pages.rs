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
        assert_eq!(page.status, 200, "{page}");
        is_a_page(&page);
        let links = index["links"].as_array().unwrap();
        let hrefs: Vec<_> = links.iter().map(|link| text(&link["href"])).collect();
        for path in ["/docs", "/openapi.json", "/healthz", "/readyz"] {
            assert!(hrefs.iter().any(|href| href == path), "{path} in {index}");
        }
        assert_eq!(hrefs.contains(&"/metrics".to_owned()), name == "staff");
        for link in links {
            let (href, title) = (text(&link["href"]), text(&link["title"]));
            let anchor = format!("<a href=\"{href}\">{}</a>", escaped(&title));
            assert!(page.text().contains(&anchor), "{anchor} in {page}");
            assert_eq!(door.ask(get(href.as_str())).await.status, 200, "{href}");
        }
        for (path, kind) in [
            ("/style.css", "text/css; charset=utf-8"),
            ("/icon.svg", "image/svg+xml"),
        ] {
            assert!(page.text().contains(&format!("href=\"{path}\"")), "{page}");
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
