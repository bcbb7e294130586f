//! The pages of both listeners: alive, ready, described, measured.

use std::collections::BTreeSet;

use hyper::Method;
use serde_json::{Value, json};

use crate::assignments::{any_drivers, any_packages, assign, lists, put_manifest, wanted};
use crate::client::{Answer, Ask, Door, event, get, order, post, send};
use crate::metrics::Metrics;
use crate::packages::package;
use crate::shop::{Shop, text};

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
    let elsewhere = [
        (
            shop.customers,
            "/start/ /finish/ /metrics /deliveries /assign",
        ),
        (shop.staff, "/order/ /packages /preferences"),
    ];
    for (door, others) in elsewhere {
        let api = description(door).await;
        let served = api["paths"].as_object().unwrap().keys();
        // A form is answered with a redirect; a test of its own is in access.rs.
        let served = served
            .map(String::as_str)
            .filter(|path| !matches!(*path, "/login" | "/logout"))
            .chain(["/", "/docs", "/openapi.json"]);
        for path in served.chain(["/nothing", "/docs/..", "/*"]) {
            let bare = path.trim_end_matches('/');
            for path in [format!("{bare}/"), format!("{bare}//"), bare.to_owned()] {
                if !path.is_empty() {
                    expect_no_redirect(door, &path).await;
                }
            }
        }
        let nowhere = "//order/ /ORDER/ /order/../order/x /orders/1/x /deliveries/a/events/1/type";
        for path in others.split(' ').chain(nowhere.split(' ')) {
            let answer = door.ask(post(path)).await;
            answer.expect_problem(404, "no-such-path");
        }
    }
    shop.close().await;
}

/// Whatever is asked there, in whatever way: it is answered, or a problem of the right kind.
async fn expect_no_redirect(door: Door, path: &str) {
    for method in ["GET", "HEAD", "PUT", "OPTIONS", "BREW"] {
        let answer = door.ask(Ask::new(method.parse().unwrap(), path)).await;
        let what = format!("{method} {path}: {answer}");
        assert!(!(300..400).contains(&answer.status), "{what}");
        assert!(answer.header("x-request-id").is_some(), "{what}");
        // HEAD has no body to be read.
        if answer.status < 400 || method == "HEAD" {
            continue;
        }
        let kinds = match answer.status {
            // The braces of a description's path make an id like any other, which no client has sent.
            404 => "no-such-path no-such-desk package-unknown manifest-unknown order-unknown",
            405 => "no-such-method",
            422 => "invalid",
            400 => "unreadable",
            _ => panic!("{what}"),
        };
        let kind = text(&answer.json()["type"]);
        let kind = kind.rsplit(':').next().unwrap();
        assert!(kinds.split(' ').any(|known| known == kind), "{what}");
        answer.expect_problem(answer.status, kind);
    }
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones_on_every_path() {
    let shop = Shop::open(&[]).await;
    for door in [shop.customers, shop.staff] {
        for (path, methods) in description(door).await["paths"].as_object().unwrap() {
            let methods = methods.as_object().unwrap().keys();
            let mut allowed: BTreeSet<_> = methods.map(|method| method.to_uppercase()).collect();
            // RFC 9110, section 9.1: HEAD is where GET is. Here, except where GET takes an order.
            if allowed.contains("GET") && path != "/start/" {
                allowed.insert("HEAD".to_owned());
            }
            let bare = path.trim_end_matches('/');
            for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "BREW"] {
                for path in [format!("{bare}/"), bare.to_owned()] {
                    if path.is_empty() || allowed.contains(method) {
                        continue;
                    }
                    let answer = door.ask(Ask::new(method.parse().unwrap(), &path)).await;
                    assert_eq!(answer.status, 405, "{method} {path}: {answer}");
                    let listed = answer.header("allow").unwrap().split(',');
                    let listed: BTreeSet<_> = listed.map(|name| name.trim().to_owned()).collect();
                    assert_eq!(listed, allowed, "{method} {path}");
                }
            }
        }
    }
    shop.close().await;
}

#[tokio::test]
async fn every_path_answers_with_and_without_a_slash_and_to_head() {
    let shop = Shop::open(&[]).await;
    let id = shop.promised().await;
    shop.serve_all().await;
    shop.customers.ask(send(&package("p"))).await.expect(201);
    let collected = event("d", "PARCEL_COLLECTED");
    shop.staff.ask(collected).await.expect(201);
    // Each answer has an id and a time of its own.
    let headers = |answer: &Answer| {
        let mut headers = answer.headers.clone();
        for own in ["x-request-id", "date"] {
            assert!(headers.remove(own).is_some(), "{own}: {answer}");
        }
        (answer.status, headers)
    };
    for door in [shop.customers, shop.staff] {
        for (path, methods) in description(door).await["paths"].as_object().unwrap() {
            if methods.get("get").is_none() || ["/", "/start/", "/metrics"].contains(&&**path) {
                continue;
            }
            let path = path.replace("{order_id}", &id).replace("{sequence}", "1");
            let path = path.replace("{package_id}", "p");
            let path = path
                .replace("{delivery_id}", "d")
                .replace("{desk}", "orders");
            let plain = door.ask(get(&path)).await;
            for path in [format!("{path}/"), path] {
                let again = door.ask(get(&path)).await;
                assert_eq!((again.status, &again.body), (plain.status, &plain.body));
                let head = door.ask(Ask::new(Method::HEAD, &path)).await;
                assert_eq!(headers(&head), headers(&plain), "{path}");
                assert_eq!(head.body.len(), 0, "{head}");
            }
        }
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

/// A shop in which something has happened at each desk, as histograms begin with an observation.
pub(crate) async fn busy() -> Shop {
    let shop = Shop::open(&[]).await;
    let visitor = shop.customer(order()).await;
    shop.serve_all().await;
    visitor.answer().await.expect(200);
    shop.promised().await;
    let collected = event("drone-7", "PARCEL_COLLECTED");
    shop.staff.expect(collected, 201).await;
    let day = lists(&any_drivers(1), &any_packages(2));
    shop.staff.expect(put_manifest(&day), 200).await;
    let plan = assign(&wanted(&["d-00"], 1));
    shop.staff.expect(plan, 200).await;
    shop
}

#[tokio::test]
async fn everything_worth_watching_is_in_the_metrics_of_the_staff() {
    let shop = busy().await;
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
