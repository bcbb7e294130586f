//! What browsers may do on behalf of web pages: nothing for pages of other origins, whatever the route and the listener.

use hyper::Method;
use serde_json::{Value, json};

use crate::client::{Answer, Ask, Door, get, order, post};
use crate::metrics::Metrics;
use crate::shop::{Shop, text};

/// What a page of another origin can make a browser send.
const FOREIGN: [(&str, &str); 9] = [
    (
        "an image",
        "sec-fetch-site: cross-site | sec-fetch-mode: no-cors | sec-fetch-dest: image",
    ),
    (
        "a form",
        "sec-fetch-site: cross-site | sec-fetch-mode: navigate | sec-fetch-dest: document \
         | origin: https://evil.example | content-type: text/plain",
    ),
    (
        "a fetch without CORS",
        "sec-fetch-site: cross-site | sec-fetch-mode: no-cors | origin: https://evil.example",
    ),
    (
        "a preflight",
        "sec-fetch-site: cross-site | sec-fetch-mode: cors | origin: https://evil.example \
         | access-control-request-method: POST",
    ),
    (
        "a sandboxed frame",
        "sec-fetch-site: cross-site | origin: null",
    ),
    (
        "a frame that is navigated",
        "sec-fetch-site: cross-site | sec-fetch-mode: navigate | sec-fetch-dest: iframe",
    ),
    (
        "a page of another port",
        "sec-fetch-site: same-site | sec-fetch-mode: cors | origin: http://127.0.0.1:3000",
    ),
    ("no Fetch metadata", "origin: https://evil.example"),
    ("neither metadata nor a name", "origin: null"),
];

/// A request with these headers, of which each but the last is followed by a bar.
fn with(ask: Ask, headers: &str) -> Ask {
    let headers = headers
        .split(" | ")
        .filter_map(|header| header.split_once(": "));
    headers.fold(ask, |ask, (name, value)| ask.header(name, value))
}

/// Everything that a listener describes, and what else it serves.
async fn operations(door: Door, order_id: &str) -> Vec<(Method, String)> {
    let api = door.ask(get("/openapi.json")).await.expect(200);
    let described = api["paths"].as_object().unwrap().iter();
    let described = described.flat_map(|(path, methods)| {
        let path = path.replace("{order_id}", order_id);
        let methods = methods.as_object().unwrap().keys();
        methods
            .map(move |method| (method.to_uppercase().parse().unwrap(), path.clone()))
            .collect::<Vec<_>>()
    });
    let more = ["/docs", "/docs/", "/openapi.json", "/style.css", "/nothing"];
    let more = more.map(|path| (Method::GET, path.to_owned()));
    described.chain(more).collect()
}

/// What a request that took or counted something would change.
fn counted(metrics: &Metrics) -> [usize; 4] {
    [
        metrics.placed(),
        metrics.waiting(),
        metrics.count("odyssey_orders_started_total"),
        metrics
            .count("odyssey_flood_decisions_total{decision=\"admitted\",reason=\"within_limits\"}"),
    ]
}

#[tokio::test]
async fn a_page_of_another_origin_reaches_no_route_of_either_listener() {
    let shop = Shop::open(&[]).await;
    let id = shop.promised().await;
    let before = counted(&shop.metrics().await);
    for door in [shop.customers, shop.staff] {
        let mut connection = door.connect().await;
        for (method, path) in operations(door, &id).await {
            for (what, headers) in FOREIGN {
                let ask = with(Ask::new(method.clone(), path.as_str()), headers);
                let answer = connection.ask(&ask).await;
                assert_eq!(answer.status, 403, "{what}: {method} {path}: {answer}");
                answer.expect_problem(403, "cross-site");
                assert_eq!(answer.header("access-control-allow-origin"), None);
            }
        }
    }
    assert_eq!(counted(&shop.metrics().await), before);
    shop.serve_all().await;
    shop.close().await;
}

#[tokio::test]
async fn clients_that_are_no_browsers_and_pages_of_our_own_notice_nothing() {
    let shop = Shop::open(&[]).await;
    for client in [
        "",
        "user-agent: curl/8.5.0 | accept: */*",
        "user-agent: Java/21.0.2 | accept: text/html, image/gif, image/jpeg, */*; q=0.2",
        "sec-fetch-site: same-origin | sec-fetch-mode: cors | origin: OURS",
        // A form of a page that nginx has sent: `Referrer-Policy: no-referrer`.
        "sec-fetch-site: same-origin | sec-fetch-mode: navigate | sec-fetch-dest: document | origin: null",
    ] {
        let ask = |door: Door, ask: Ask| {
            let ours = format!("http://{}", door.address);
            door.ask(with(ask, &client.replace("OURS", &ours)))
        };
        let order = order().prefer("respond-async");
        ask(shop.customers, order).await.expect(202);
        let started = ask(shop.staff, post("/start/?barista=Bo"))
            .await
            .expect(200);
        let id = text(&started["order_id"]);
        let finish = post(format!("/finish/?order_id={id}"));
        ask(shop.staff, finish).await.expect(200);
        let unknown = ask(shop.customers, get("/nothing")).await;
        unknown.expect_problem(404, "no-such-path");
    }
    shop.close().await;
}

#[tokio::test]
async fn a_visit_takes_no_order_and_a_script_does() {
    let shop = Shop::open(&[]).await;
    shop.promised().await;
    for visit in [
        // An address that was entered, a link on a page of ours.
        "sec-fetch-site: none | sec-fetch-mode: navigate",
        "sec-fetch-site: same-origin | sec-fetch-mode: navigate",
        "sec-purpose: prefetch;prerender",
        "purpose: prefetch",
        // Over plain http to another machine browsers send no metadata.
        "user-agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 | accept-language: en-US,en;q=0.5",
    ] {
        for path in ["/start/", "/start?wait=1&barista=Bo"] {
            let answer = shop.staff.ask(with(get(path), visit)).await;
            answer.expect_problem(403, "not-by-visiting");
        }
    }
    let metrics = shop.metrics().await;
    assert_eq!((metrics.waiting(), metrics.brewing()), (1, 0));
    let page = "sec-fetch-site: same-origin | sec-fetch-mode: cors";
    let started = shop.staff.ask(with(post("/start/"), page)).await;
    let id = text(&started.expect(200)["order_id"]);
    shop.finish(&id).await;
    shop.close().await;
}

#[tokio::test]
async fn a_link_on_another_site_opens_a_page_and_nothing_else() {
    let shop = Shop::open(&[]).await;
    let id = shop.promised().await;
    let followed = "sec-fetch-site: cross-site | sec-fetch-mode: navigate | sec-fetch-dest: document \
 | accept: text/html,*/*;q=0.8";
    for door in [shop.customers, shop.staff] {
        let screen = if door.address == shop.staff.address {
            "/barista"
        } else {
            "/board"
        };
        for path in [screen, "/", "/docs", "/docs/", "/docs/index.html"] {
            let answer = door.ask(with(get(path), followed)).await;
            assert_eq!(answer.status, 200, "{path}: {answer}");
            let posted = door.ask(with(post(path), followed)).await;
            assert_eq!(posted.status, 403, "{path}: {posted}");
        }
        for path in [
            &format!("/orders/{id}"),
            "/statistics",
            "/metrics",
            "/flood",
        ] {
            let answer = door.ask(with(get(path), followed)).await;
            assert_eq!(answer.status, 403, "{path}: {answer}");
        }
    }
    shop.serve_all().await;
    shop.close().await;
}

#[tokio::test]
async fn the_staff_are_reached_under_known_hosts_only() {
    let at = async |door: Door, host: &str| door.ask(get("/healthz").header("host", host)).await;
    let shop = Shop::open(&[]).await;
    let rebound = at(shop.staff, "evil.example:8001").await;
    rebound.expect_problem(421, "misdirected");
    at(shop.customers, "evil.example").await.expect(200);
    at(shop.staff, "bar.localhost:8001").await.expect(200);
    shop.close().await;

    let hosts = [
        ("staff.hosts", "ip,*.bar.example"),
        ("customers.hosts", "shop.example"),
    ];
    let shop = Shop::open(&hosts).await;
    for (door, host, status) in [
        (shop.staff, "one.bar.example:8001", 200),
        (shop.staff, "localhost", 421),
        (shop.customers, "shop.example", 200),
        (shop.customers, "evil.example", 421),
    ] {
        assert_eq!(at(door, host).await.status, status, "{host}");
    }
    shop.close().await;
}

#[tokio::test]
async fn an_allowed_origin_orders_from_its_page_and_reads_every_answer() {
    let shop = Shop::open(&[("customers.origins", "https://shop.example")]).await;
    let page = "origin: https://shop.example | sec-fetch-site: cross-site | sec-fetch-mode: cors";
    let preflight = Ask::new(Method::OPTIONS, "/order/")
        .header("access-control-request-method", "POST")
        .header(
            "access-control-request-headers",
            "content-type,idempotency-key",
        );
    let answer = shop.customers.ask(with(preflight.clone(), page)).await;
    assert_eq!((answer.status, answer.body.len()), (204, 0), "{answer}");
    let allows = |answer: &Answer, header: &str, what: &str| {
        let header = answer.header(header).unwrap_or_default();
        assert!(header.to_ascii_lowercase().contains(what), "{answer}");
    };
    allows(
        &answer,
        "access-control-allow-origin",
        "https://shop.example",
    );
    for method in ["get", "post", "put", "delete"] {
        allows(&answer, "access-control-allow-methods", method);
    }
    for header in ["content-type", "idempotency-key", "prefer", "if-none-match"] {
        allows(&answer, "access-control-allow-headers", header);
    }
    allows(&answer, "access-control-max-age", "7200");

    let placed = with(order().prefer("respond-async"), page);
    let placed = shop
        .customers
        .ask(placed.json(&json!({"customer": "Ada"})))
        .await;
    placed.expect(202);
    allows(&placed, "access-control-expose-headers", "location");
    let unknown = shop.customers.ask(with(get("/nothing"), page)).await;
    unknown.expect_problem(404, "no-such-path");
    for answer in [&placed, &unknown] {
        allows(
            answer,
            "access-control-allow-origin",
            "https://shop.example",
        );
        assert_eq!(answer.header("access-control-allow-credentials"), None);
    }
    // Caches must know that others get another answer.
    let others = shop.customers.ask(get("/healthz")).await;
    for answer in [&placed, &unknown, &others] {
        allows(answer, "vary", "origin");
    }
    assert_eq!(others.header("access-control-allow-origin"), None);

    for (door, origin) in [
        (shop.customers, "https://evil.example"),
        (shop.staff, "https://shop.example"),
    ] {
        let refused = door.ask(preflight.clone().header("origin", origin)).await;
        refused.expect_problem(403, "cross-site");
    }
    shop.serve_all().await;
    shop.close().await;
}

#[tokio::test]
async fn a_misspelt_query_parameter_is_named_and_nothing_is_done() {
    let shop = Shop::open(&[]).await;
    let id = shop.promised().await;
    for door in [shop.customers, shop.staff] {
        let api = door.ask(get("/openapi.json")).await.expect(200);
        for (path, methods) in api["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let known = operation["parameters"].as_array().into_iter().flatten();
                let known = known.filter(|parameter| parameter["in"] == "query");
                let known: Vec<_> = known.map(|parameter| text(&parameter["name"])).collect();
                let method: Method = method.to_uppercase().parse().unwrap();
                let path = path.replace("{order_id}", &id);
                let path = format!("{path}?brista=Bo&brista=Cy");
                let answer = door.ask(Ask::new(method, path.as_str())).await;
                let problem = answer.expect_problem(400, "unreadable");
                let detail = text(&problem["detail"]);
                assert!(detail.contains("`brista`"), "{path}: {detail}");
                for known in known {
                    assert!(detail.contains(&format!("`{known}`")), "{path}: {detail}");
                }
                assert_eq!(problem["errors"][0]["parameter"], "brista", "{answer}");
            }
        }
    }
    let metrics = shop.metrics().await;
    assert_eq!(
        (metrics.placed(), metrics.waiting(), metrics.brewing()),
        (1, 1, 0)
    );
    shop.serve_all().await;
    shop.close().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_query_is_said_in_plain_words() {
    let shop = Shop::open(&[]).await;
    let id = shop.promised().await;
    let number = "must be a whole number, neither negative nor too large";
    let twice = "is there more than once";
    let flag = "must be true or false";
    let finish = format!("/finish/?order_id={id}&attempt=x");
    for (path, parameter, what) in [
        ("/start/?wait=soon", "wait", number),
        ("/start/?wait=-1", "wait", number),
        ("/start/?wait=", "wait", number),
        ("/start?wait=99999999999999999999", "wait", number),
        ("/start/?wait=1&wait=2", "wait", twice),
        ("/start/?barista=a&b%61rista=b", "barista", twice),
        (&finish, "attempt", number),
        ("/assign?explain=perhaps", "explain", flag),
    ] {
        let answer = shop.staff.ask(post(path)).await;
        let problem = answer.expect_problem(400, "unreadable");
        let message = format!("The query parameter `{parameter}` {what}.");
        assert_eq!(problem["detail"], Value::from(message), "{path}");
        assert_eq!(problem["errors"][0]["parameter"], parameter, "{path}");
    }
    // Written another way it is the same name; what is no parameter at all does no harm.
    let same = get("/start/?&%77ait=0&barista=Bo+Cy&");
    let same = shop.staff.ask(same).await.expect(200);
    assert_eq!(same["order_id"], id);
    shop.finish(&id).await;
    shop.close().await;
}
