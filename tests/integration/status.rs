//! The pages of both listeners: alive, ready, described, measured.

use std::collections::BTreeSet;

use hyper::Method;
use serde_json::{Value, json};

use crate::assignments::{any_drivers, any_packages, assign, lists, put_manifest, wanted};
use crate::client::{Ask, Door, event, get, order};
use crate::metrics::Metrics;
use crate::shop::{Shop, odyssey, text};

#[tokio::test]
async fn both_listeners_say_that_they_are_alive_and_ready() {
    let shop = Shop::open(&[]).await;
    for door in [shop.customers, shop.staff] {
        for (path, word) in [
            ("/healthz", "ok"),
            ("/health", "ok"),
            ("/readyz", "ready"),
            ("/readyz/orders", "ready"),
        ] {
            for path in [path.to_owned(), format!("{path}/")] {
                let answer = door.ask(get(path)).await;
                assert_eq!(answer.expect(200)["status"], word);
                assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer}");
                assert_eq!(
                    answer.header("content-type"),
                    Some("application/json"),
                    "{answer}"
                );
                assert!(answer.header("x-request-id").is_some(), "{answer}");
            }
            let head = door.ask(Ask::new(Method::HEAD, path)).await;
            assert_eq!((head.status, head.body.len()), (200, 0), "{head}");
        }
    }
    shop.close().await;
}

#[tokio::test]
async fn readyz_lists_every_desk_and_each_has_its_own() {
    let shop = Shop::open(&[]).await;
    let desks = [
        "orders",
        "deliveries",
        "packages",
        "assignments",
        "couriers",
        "oplog",
    ];
    for door in [shop.customers, shop.staff] {
        let ready = door.ask(get("/readyz")).await.expect(200);
        let components = ready["components"].as_array().unwrap();
        let listed: Vec<_> = components.iter().map(|one| text(&one["name"])).collect();
        assert_eq!(listed, desks);
        for component in components {
            assert_eq!(component["state"], "ok");
            assert_eq!(component.get("reason"), None);
            let since: jiff::Timestamp = text(&component["since"]).parse().unwrap();
            assert!(since <= jiff::Timestamp::now());
            let path = format!("/readyz/{}", text(&component["name"]));
            let own = door.ask(get(path)).await.expect(200);
            assert_eq!(
                (&own["status"], &own["component"]),
                (&json!("ready"), component)
            );
        }
        let unknown = door.ask(get("/readyz/coffee")).await;
        let problem = unknown.expect_problem(404, "no-such-desk");
        let detail = text(&problem["detail"]);
        assert!(desks.iter().all(|desk| detail.contains(desk)), "{detail}");
    }
    shop.close().await;
}

// --- The description -----------------------------------------------------------------------------------------------

async fn description(door: Door) -> Value {
    let answer = door.ask(get("/openapi.json")).await;
    assert_eq!(
        answer.header("content-type"),
        Some("application/json"),
        "{answer}"
    );
    let slashed = door.ask(get("/openapi.json/")).await;
    assert_eq!(answer.body, slashed.body);
    answer.expect(200)
}

fn references(json: &Value, found: &mut BTreeSet<String>) {
    match json {
        Value::Object(members) => {
            found.extend(
                members
                    .get("$ref")
                    .and_then(Value::as_str)
                    .map(str::to_owned),
            );
            members
                .values()
                .for_each(|member| references(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

/// What only the customers' listener serves.
const CUSTOMER_PATHS: [&str; 6] = [
    "/order/",
    "/orders/{order_id}",
    "/packages",
    "/packages/{package_id}",
    "/preferences",
    "/preferences/{recipient_id}",
];

/// What only the staff's listener serves.
const STAFF_PATHS: [&str; 28] = [
    "/assign",
    "/assignments",
    "/counts",
    "/courier",
    "/courier/{courier_id}",
    "/couriers",
    "/couriers/events",
    "/couriers/parked",
    "/deliveries",
    "/deliveries/{delivery_id}",
    "/deliveries/{delivery_id}/events",
    "/deliveries/{delivery_id}/events/{sequence}",
    "/events",
    "/extend/",
    "/finish/",
    "/flood",
    "/flood/{address}",
    "/manifest",
    "/metrics",
    "/orders",
    "/orders/{order_id}",
    "/packages/{package_id}",
    "/preferences/{recipient_id}",
    "/release/",
    "/start/",
    "/status",
    "/storage/check",
    "/update",
];

/// A path that asks for the id of a courier or of an order.
fn is_of_couriers(path: &str) -> bool {
    path.starts_with("/courier/") || ["/courier", "/orders", "/orders/"].contains(&path)
}

#[tokio::test]
async fn each_listener_describes_itself_in_openapi_3_1_and_does_what_it_says() {
    let shop = Shop::open(&[("orders.start_wait", "0s")]).await;
    let id = shop.promised().await;
    let common = [
        "/",
        "/health",
        "/healthz",
        "/readyz",
        "/readyz/{desk}",
        "/statistics",
    ];
    for (door, own) in [
        (shop.customers, &CUSTOMER_PATHS[..]),
        (shop.staff, &STAFF_PATHS),
    ] {
        let api = description(door).await;
        assert!(
            text(&api["openapi"]).starts_with("3.1"),
            "{}",
            api["openapi"]
        );
        for member in ["title", "version", "description"] {
            assert!(
                api["info"][member].is_string(),
                "{member} of {}",
                api["info"]
            );
        }
        let paths = api["paths"].as_object().unwrap();
        let described: BTreeSet<_> = paths.keys().map(String::as_str).collect();
        let expected: BTreeSet<_> = own.iter().copied().chain(common).collect();
        assert_eq!(described, expected);
        let mut used = BTreeSet::new();
        references(&api, &mut used);
        for reference in used {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(api.pointer(pointer).is_some(), "{reference} leads nowhere");
        }
        for (path, methods) in paths {
            for (method, operation) in methods.as_object().unwrap() {
                let what = format!("{method} {path}");
                let responses = operation["responses"].as_object().unwrap();
                assert!(
                    !text(&operation["summary"]).is_empty(),
                    "{what} has no summary"
                );
                let method: Method = method.to_uppercase().parse().unwrap();
                let mut ask = Ask::new(method, path.replace("{order_id}", &id));
                if path == "/order/" {
                    ask = ask.prefer("respond-async");
                }
                let answer = door.ask(ask).await;
                let status = answer.status.to_string();
                assert!(
                    responses.contains_key(&status),
                    "{what} does not mention {answer}"
                );
                let content = &responses[&status]["content"];
                if let Some(kind) = answer.header("content-type") {
                    let essence = |kind: &str| kind.split(';').next().unwrap().to_owned();
                    let kinds: Vec<_> = content
                        .as_object()
                        .unwrap()
                        .keys()
                        .map(|kind| essence(kind))
                        .collect();
                    assert!(kinds.contains(&essence(kind)), "{what}: {kinds:?}");
                }
                let fields = answer.status < 300
                    && answer.header("content-type") == Some("application/json");
                if fields {
                    let schema = &content["application/json"]["schema"];
                    has_the_described_fields(&what, &api, schema, &answer.json());
                }
            }
        }
    }
    shop.serve_all().await;
    shop.close().await;
}

/// Every field that is promised is there, and there is none that is not described.
fn has_the_described_fields(what: &str, api: &Value, schema: &Value, answer: &Value) {
    let schema = match schema["$ref"].as_str() {
        Some(reference) => api.pointer(&reference[1..]).unwrap(),
        None => schema,
    };
    let described = schema["properties"].as_object();
    let described = described.unwrap_or_else(|| panic!("{what} has no fields described: {schema}"));
    for required in schema["required"].as_array().into_iter().flatten() {
        let field = text(required);
        assert!(
            answer.get(&field).is_some(),
            "{what}: {field} is missing in {answer}"
        );
    }
    for field in answer.as_object().unwrap().keys() {
        assert!(
            described.contains_key(field),
            "{what}: {field} is not described"
        );
    }
}

#[tokio::test]
async fn the_description_can_be_read_as_pages_with_all_they_need() {
    let shop = Shop::open(&[]).await;
    for door in [shop.customers, shop.staff] {
        let page = door.ask(get("/docs")).await;
        assert_eq!(page.status, 200, "{page}");
        assert!(
            page.header("content-type")
                .unwrap()
                .starts_with("text/html")
        );
        let slashed = door.ask(get("/docs/")).await;
        assert_eq!(page.body, slashed.body);
        let html = page.text();
        assert!(html.contains("<base href=\"/docs/\""), "{html}");
        let linked = html
            .split(['"', '\''])
            .filter_map(|text| text.strip_prefix("./"));
        let linked: BTreeSet<_> = linked.filter(|name| name.contains('.')).collect();
        assert!(linked.len() >= 3, "styles and scripts: {linked:?}");
        let mut names_the_description = false;
        for name in linked {
            let file = door.ask(get(format!("/docs/{name}"))).await;
            assert_eq!(file.status, 200, "{name}: {:?}", file.headers);
            names_the_description |= String::from_utf8_lossy(&file.body).contains("/openapi.json");
        }
        assert!(
            names_the_description,
            "no script says where the description is"
        );
        let none = door.ask(get("/docs/nothing.js")).await;
        none.expect_problem(404, "no-such-path");
    }
    shop.close().await;
}

#[tokio::test]
async fn what_never_changes_is_sent_once_and_compressed() {
    let shop = Shop::open(&[]).await;
    let page = shop.customers.ask(get("/docs")).await;
    let versioned = page.text().split('"');
    let versioned = versioned.filter(|text| text.starts_with("./") && text.contains("?v="));
    let versioned: Vec<_> = versioned
        .map(|text| format!("/docs/{}", &text[2..]))
        .collect();
    assert!(versioned.len() >= 3, "{page}");
    for (path, is_versioned) in [
        ("/openapi.json", false),
        ("/docs", false),
        ("/docs/index.css?v=0", false),
    ]
    .map(|(path, is_versioned)| (path.to_owned(), is_versioned))
    .into_iter()
    .chain(versioned.into_iter().map(|path| (path, true)))
    {
        let ask = || get(path.clone()).header("Accept-Encoding", "gzip, br");
        let first = shop.customers.ask(ask()).await;
        let plain = shop.customers.ask(get(path.clone())).await;
        assert_eq!((first.status, plain.status), (200, 200), "{path}");
        if plain.body.len() > 1000 {
            assert_eq!(first.header("content-encoding"), Some("gzip"), "{path}");
            assert_eq!(first.header("vary"), Some("accept-encoding"), "{path}");
            assert!(first.body.len() < plain.body.len() / 2, "{path}");
            let mut unpacked = Vec::new();
            let mut reader = flate2::read::GzDecoder::new(&first.body[..]);
            std::io::Read::read_to_end(&mut reader, &mut unpacked).unwrap();
            assert_eq!(unpacked, plain.body, "{path}");
        }
        assert_eq!(plain.header("content-encoding"), None, "{path}");
        let caching = first.header("cache-control").unwrap();
        assert_eq!(caching.contains("immutable"), is_versioned, "{path}");
        let etag = first.header("etag").unwrap();
        let again = shop
            .customers
            .ask(ask().header("If-None-Match", etag))
            .await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
        assert_eq!(again.header("etag"), Some(etag), "{path}");
    }
    shop.close().await;
}

#[tokio::test]
async fn every_answer_says_what_browsers_must_not_do_with_it() {
    let shop = Shop::open(&[]).await;
    for door in [shop.customers, shop.staff] {
        for (path, policy) in [
            ("/healthz", "default-src 'none'"),
            ("/nothing", "default-src 'none'"),
            ("/order/", "default-src 'none'"),
            ("/openapi.json", "default-src 'none'"),
            ("/docs", "default-src 'self'"),
            ("/docs/index.css", "default-src 'self'"),
        ] {
            let answer = door.ask(get(path)).await;
            let kind = answer.header("x-content-type-options");
            assert_eq!(kind, Some("nosniff"), "{path}");
            if path.starts_with("/docs") {
                let referrer = answer.header("referrer-policy");
                assert_eq!(referrer, Some("no-referrer"), "{path}");
            }
            let message = answer.header("content-security-policy").unwrap();
            assert!(message.starts_with(policy), "{path}: {message}");
            assert!(
                message.ends_with("frame-ancestors 'none'"),
                "{path}: {message}"
            );
        }
    }
    shop.close().await;
}

// --- What is not there ---------------------------------------------------------------------------------------------

#[tokio::test]
async fn nothing_is_ever_a_redirect_and_what_is_not_there_says_so() {
    // The line is empty.
    let shop = Shop::open(&[("orders.start_wait", "0s")]).await;
    for (door, name) in [(shop.customers, "customers"), (shop.staff, "staff")] {
        let api = description(door).await;
        let mut paths: Vec<String> = api["paths"].as_object().unwrap().keys().cloned().collect();
        let more = [
            "/",
            "/docs",
            "/openapi.json",
            "/metrics",
            "/nothing",
            "/order",
            "/docs/..",
            "/*",
        ];
        paths.extend(more.map(str::to_owned));
        for path in paths {
            let bare = path.trim_end_matches('/');
            for path in [bare.to_owned(), format!("{bare}/"), format!("{bare}//")] {
                if path.is_empty() {
                    continue;
                }
                for method in ["GET", "HEAD", "PUT", "OPTIONS", "BREW"] {
                    let ask = Ask::new(method.parse().unwrap(), path.as_str());
                    let answer = door.ask(ask).await;
                    let what = format!("{name} {method} {path}: {answer}");
                    assert!(!(300..400).contains(&answer.status), "{what}");
                    assert!(answer.status < 500, "{what}");
                    assert!(answer.header("x-request-id").is_some(), "{what}");
                    if method == "HEAD" {
                        continue;
                    }
                    match answer.status {
                        404 if path.starts_with("/orders") => {}
                        // No client has sent today's manifest.
                        404 if ["/manifest", "/manifest/"].contains(&path.as_str())
                            && name == "staff" =>
                        {
                            answer.expect_problem(404, "manifest-unknown");
                        }
                        // The braces of a description's path make an id like any other, which no client has sent.
                        404 if path.starts_with("/packages/{") && !path.ends_with("//") => {
                            answer.expect_problem(404, "package-unknown");
                        }
                        // As an empty name is.
                        404 if path == "/readyz//"
                            || path.starts_with("/readyz/{") && !path.ends_with("//") =>
                        {
                            answer.expect_problem(404, "no-such-desk");
                        }
                        404 => {
                            answer.expect_problem(404, "no-such-path");
                        }
                        405 => {
                            answer.expect_problem(405, "no-such-method");
                            let allow = answer.header("allow").unwrap_or_default();
                            assert!(!allow.is_empty() && !allow.contains(method), "{what}");
                        }
                        // The braces of a description's path make no id.
                        422 if path.starts_with("/deliveries/") => {
                            answer.expect_problem(422, "invalid");
                        }
                        // It is not said whose, and the braces make no id here either.
                        422 if name == "staff" && is_of_couriers(path.as_str()) => {
                            answer.expect_problem(422, "invalid");
                        }
                        // Between two slashes there is an id, but it is empty.
                        422 if ["/packages//", "/preferences//"].contains(&path.as_str()) => {
                            answer.expect_problem(422, "invalid");
                        }
                        status if status >= 400 => {
                            answer.expect_problem(status, "unreadable");
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    shop.customers
        .ask(get("/metrics"))
        .await
        .expect_problem(404, "no-such-path");
    shop.close().await;
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let shop = Shop::open(&[]).await;
    for (door, path, allowed) in [
        (shop.customers, "/order/", &["POST"][..]),
        (shop.customers, "/order", &["POST"]),
        (shop.customers, "/orders/1", &["DELETE", "GET", "HEAD"]),
        (shop.customers, "/packages", &["POST"]),
        (shop.customers, "/packages/1", &["GET", "HEAD"]),
        (shop.customers, "/preferences/1", &["GET", "HEAD"]),
        (shop.customers, "/statistics", &["GET", "HEAD"]),
        (shop.customers, "/healthz", &["GET", "HEAD"]),
        (shop.customers, "/docs", &["GET", "HEAD"]),
        (shop.staff, "/", &["GET", "HEAD"]),
        (shop.staff, "/start/", &["GET", "POST"]),
        (shop.staff, "/start", &["GET", "POST"]),
        (shop.staff, "/finish/", &["POST"]),
        (shop.staff, "/extend/", &["POST"]),
        (shop.staff, "/release", &["POST"]),
        (shop.staff, "/metrics", &["GET", "HEAD"]),
        (shop.staff, "/statistics/", &["GET", "HEAD"]),
        (shop.staff, "/counts/", &["GET", "HEAD"]),
        (shop.staff, "/assign", &["POST"]),
        (shop.staff, "/update/", &["POST"]),
        (shop.staff, "/assignments", &["GET", "HEAD"]),
        (shop.staff, "/deliveries", &["GET", "HEAD"]),
        (shop.staff, "/deliveries/1", &["GET", "HEAD"]),
        (shop.staff, "/deliveries/1/events", &["GET", "HEAD", "POST"]),
        (shop.staff, "/deliveries/1/events/1/", &["GET", "HEAD"]),
    ] {
        let answer = door.ask(Ask::new(Method::PUT, path)).await;
        answer.expect_problem(405, "no-such-method");
        let allow = answer.header("allow").unwrap();
        let allow: BTreeSet<_> = allow.split(',').map(str::trim).collect();
        // RFC 9110, section 9.1: HEAD need not be listed for it to be there, but must not be where it is not.
        let expected: BTreeSet<_> = allowed.iter().copied().collect();
        assert_eq!(allow, expected, "{path}");
    }
    shop.close().await;
}

// --- Metrics -------------------------------------------------------------------------------------------------------

/// What is measured, and its kind.
const METRICS: [(&str, &str); 50] = [
    ("odyssey_orders", "gauge"),
    ("odyssey_orders_oldest_waiting_seconds", "gauge"),
    ("odyssey_orders_held_requests", "gauge"),
    ("odyssey_orders_idle_baristas", "gauge"),
    ("odyssey_orders_wait_seconds", "histogram"),
    ("odyssey_orders_brew_seconds", "histogram"),
    ("odyssey_orders_placed_total", "counter"),
    ("odyssey_orders_started_total", "counter"),
    ("odyssey_orders_finished_total", "counter"),
    ("odyssey_orders_cancelled_total", "counter"),
    ("odyssey_orders_abandoned_requests_total", "counter"),
    ("odyssey_orders_expired_total", "counter"),
    ("odyssey_orders_requeued_total", "counter"),
    ("odyssey_orders_attached_total", "counter"),
    ("odyssey_orders_replayed_total", "counter"),
    ("odyssey_deliveries_events_total", "counter"),
    ("odyssey_deliveries_replayed_total", "counter"),
    ("odyssey_deliveries_refused_total", "counter"),
    ("odyssey_packages_sent_total", "counter"),
    ("odyssey_packages_rejected_total", "counter"),
    ("odyssey_packages_preferences_total", "counter"),
    ("odyssey_assignments_given_total", "counter"),
    ("odyssey_assignments_given_up_total", "counter"),
    ("odyssey_assignments_conflicts_total", "counter"),
    ("odyssey_assignments_updates_total", "counter"),
    ("odyssey_assignments_plan_seconds", "histogram"),
    ("odyssey_assignments_plans", "gauge"),
    ("odyssey_assignments_plans_cancelled_total", "counter"),
    ("odyssey_assignments_plans_rejected_total", "counter"),
    ("odyssey_oplog_entries_written_total", "counter"),
    ("odyssey_oplog_entries_lost_total", "counter"),
    ("odyssey_oplog_waiting_entries", "gauge"),
    ("odyssey_oplog_spooled_bytes", "gauge"),
    ("odyssey_storage_commits_total", "counter"),
    ("odyssey_storage_operations_total", "counter"),
    ("odyssey_storage_operations_per_commit", "histogram"),
    ("odyssey_storage_commit_seconds", "histogram"),
    ("odyssey_storage_queue_depth", "gauge"),
    ("odyssey_storage_well", "gauge"),
    ("odyssey_storage_sound", "gauge"),
    ("odyssey_storage_checked_timestamp_seconds", "gauge"),
    ("odyssey_clock_jump_seconds", "gauge"),
    ("odyssey_storage_free_bytes", "gauge"),
    ("odyssey_storage_free_min_bytes", "gauge"),
    ("odyssey_http_answers_total", "counter"),
    ("odyssey_http_abandoned_total", "counter"),
    ("odyssey_http_request_seconds", "histogram"),
    ("odyssey_connections", "gauge"),
    ("odyssey_connections_max", "gauge"),
    ("odyssey_build_info", "gauge"),
];

#[tokio::test]
async fn everything_worth_watching_is_in_the_metrics_of_the_staff() {
    let shop = Shop::open(&[]).await;
    let visitor = shop.customer(order()).await;
    shop.serve_all().await;
    visitor.answer().await.expect(200);
    shop.promised().await;
    let collected = event("drone-7", "PARCEL_COLLECTED");
    shop.staff.ask(collected).await.expect(201);
    let day = lists(&any_drivers(1), &any_packages(2));
    shop.staff.ask(put_manifest(&day)).await.expect(200);
    let plan = assign(&wanted(&["d-00"], 1));
    shop.staff.ask(plan).await.expect(200);

    let answer = shop.staff.ask(get("/metrics")).await;
    let kind = answer.header("content-type").unwrap();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let metrics = Metrics::read(answer.text());
    for (name, kind) in METRICS {
        assert_eq!(
            metrics.kinds.get(name).map(String::as_str),
            Some(kind),
            "{name}"
        );
        let sample = if kind == "histogram" {
            format!("{name}_count")
        } else {
            name.to_owned()
        };
        assert!(!metrics.of(&sample).is_empty(), "{name} has no value");
    }
    assert_eq!(
        metrics.values("odyssey_orders", "stage"),
        BTreeSet::from(["brewing", "cancelled", "ready", "waiting"])
    );
    for name in ["odyssey_connections", "odyssey_connections_max"] {
        assert_eq!(
            metrics.values(name, "listener"),
            BTreeSet::from(["customers", "staff"])
        );
    }
    let version = metrics.values("odyssey_build_info", "version");
    assert_eq!(version, BTreeSet::from([env!("CARGO_PKG_VERSION")]));
    let commit = metrics.values("odyssey_build_info", "commit");
    assert_eq!(commit, BTreeSet::from([env!("ODYSSEY_COMMIT")]));
    let status = metrics.values("odyssey_http_answers_total", "status");
    assert!(
        status.is_superset(&BTreeSet::from(["200", "202"])),
        "{status:?}"
    );
    let [(_, oldest)] = metrics.of("odyssey_orders_oldest_waiting_seconds")[..] else {
        panic!("one value");
    };
    assert!(oldest > 0.0, "somebody is in line");
    shop.serve_all().await;
    shop.close().await;
}

#[tokio::test]
async fn requests_are_measured_by_route_and_logged_with_their_time_and_client() {
    let shop = Shop::open(&[("flood.trusted_proxies", "127.0.0.1")]).await;
    let ask = get("/orders/nobody").header("X-Forwarded-For", "192.0.2.7");
    shop.customers.ask(ask).await;
    shop.customers.ask(get("/nothing")).await;
    let gone = shop.customer(order()).await;
    gone.leave().await;
    let abandoned = "odyssey_http_abandoned_total{listener=\"customers\"}";
    let metrics = shop
        .until("a client has left", |now| now.count(abandoned) == 1)
        .await;
    for (route, count) in [("/orders/{order_id}", 1), ("none", 1), ("/order/", 0)] {
        let series = format!(
            "odyssey_http_request_seconds_count{{listener=\"customers\",route=\"{route}\"}}"
        );
        assert_eq!(metrics.count(&series), count, "{series}");
    }
    let log = shop.close().await;
    let line = log.lines().find(|line| line.contains("/orders/nobody"));
    let line: Value = serde_json::from_str(line.unwrap()).unwrap();
    assert_eq!(line["span"]["client"], "192.0.2.7", "{line}");
    assert!(line["duration_ms"].is_number(), "{line}");
    assert!(log.contains("the client disconnected"), "{log}");
}

#[tokio::test]
async fn the_metrics_are_in_the_text_format_and_add_up() {
    let shop = Shop::open(&[]).await;
    for _ in 0..5 {
        shop.promised().await;
    }
    shop.serve_all().await;
    let answer = shop.staff.ask(get("/metrics/")).await;
    assert!(answer.text().ends_with('\n'), "the last line must end");
    let metrics = Metrics::read(answer.text());
    for (name, ..) in metrics.samples() {
        let bases = ["_bucket", "_sum", "_count"].map(|suffix| name.strip_suffix(suffix));
        let is_histogram = |base: &&str| {
            metrics
                .kinds
                .get(*base)
                .is_some_and(|kind| kind == "histogram")
        };
        let base = bases.into_iter().flatten().find(is_histogram);
        assert!(
            metrics.kinds.contains_key(base.unwrap_or(name)),
            "{name} has no type"
        );
    }
    for name in ["odyssey_orders_wait_seconds", "odyssey_orders_brew_seconds"] {
        let buckets = metrics.of(&format!("{name}_bucket")).into_iter();
        let buckets = buckets.map(|(labels, count)| (labels["le"].parse().unwrap(), count));
        let mut buckets: Vec<(f64, f64)> = buckets.collect();
        buckets.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        assert!(
            buckets.is_sorted_by_key(|(_, count)| *count),
            "{name}: {buckets:?}"
        );
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, 5.0)), "{name}");
        assert_eq!(
            metrics.of(&format!("{name}_count"))[0].1.to_string(),
            "5",
            "{name}"
        );
        assert!(metrics.of(&format!("{name}_sum"))[0].1 > 0.0, "{name}");
    }
    shop.close().await;
}

#[tokio::test]
async fn a_health_check_tells_a_server_that_is_well_from_one_that_is_not() {
    let shop = Shop::open(&[]).await;
    let base = format!("http://{}", shop.customers.address);
    let health = |url: String| {
        let mut command = odyssey();
        command.args(["health", &url]);
        tokio::task::spawn_blocking(move || command.output().unwrap())
    };
    let well = health(format!("{base}/healthz")).await.unwrap();
    assert!(well.status.success() && well.stderr.is_empty(), "{well:?}");
    for (url, message) in [
        (format!("{base}/nowhere"), "404"),
        ("http://127.0.0.1:1/healthz".to_owned(), "cannot connect"),
        ("ftp://127.0.0.1/".to_owned(), "plain http://"),
        ("/healthz".to_owned(), "plain http://"),
    ] {
        let unwell = health(url).await.unwrap();
        assert!(!unwell.status.success());
        let stderr = String::from_utf8(unwell.stderr).unwrap();
        assert!(stderr.contains(message), "{stderr}");
    }
    shop.close().await;
}
