//! What operators see of the server itself: the latest problems, the storage engines, the build.

use serde_json::{Value, json};
use testkit::found;
use uuid::Uuid;

use crate::assignments::{any_drivers, any_packages, assign, lists, prepared, update, wanted};
use crate::client::{event, get, order, send};
use crate::couriers::{courier, order as placed, publish_events};
use crate::packages::package;
use crate::screens::{PHONE, TELEVISION, assert_fits, assert_quiet, says, url, window};
use crate::shop::{Shop, text};
use crate::webdriver::{Browser, key};

#[tokio::test]
async fn problems_of_both_listeners_are_listed_with_the_request_ids_of_the_log() {
    let shop = Shop::open(&[("pages.problems_max", "2"), ("flood.outstanding_max", "1")]).await;
    let ask = get("/orders/1").header("x-request-id", "first");
    shop.customers
        .ask(ask)
        .await
        .expect_problem(400, "unreadable");
    let ask = get("/deliveries/none").header("x-request-id", "second");
    shop.staff
        .ask(ask)
        .await
        .expect_problem(404, "delivery-unknown");
    let listed = shop.staff.ask(get("/problems")).await.expect(200);
    assert_eq!(listed["latest"], 2, "{listed}");
    let first = &listed["problems"][0];
    for (member, value) in [
        ("number", json!(1)),
        ("request_id", json!("first")),
        ("listener", json!("customers")),
        ("method", json!("GET")),
        ("route", json!("/orders/{order_id}")),
        ("status", json!(400)),
        ("type", json!("urn:odyssey:problem:unreadable")),
        ("client", json!("127.0.0.1")),
    ] {
        assert_eq!(first[member], value, "{first}");
    }
    // What is answered well, and what is refused for its rate, is not listed.
    shop.promised().await;
    for _ in 0..3 {
        assert_eq!(shop.customers.ask(order()).await.status, 429);
    }
    let listed = shop.staff.ask(get("/problems?after=2")).await.expect(200);
    assert_eq!(
        (&listed["latest"], &listed["refused"], &listed["problems"]),
        (&json!(2), &json!(3), &json!([]))
    );
    // The oldest is evicted.
    shop.customers.ask(get("/nothing")).await;
    let listed = shop.staff.ask(get("/problems")).await.expect(200);
    let numbers = listed["problems"].as_array().unwrap().iter();
    let numbers: Vec<_> = numbers.map(|problem| &problem["number"]).collect();
    assert_eq!(numbers, [&json!(2), &json!(3)], "{listed}");
    let wrong = shop.staff.ask(get("/problems?after=x")).await;
    wrong.expect_problem(422, "invalid");
    shop.serve_all().await;
    shop.close().await;
}

#[tokio::test]
async fn a_problem_has_the_address_that_a_trusted_proxy_names() {
    let shop = Shop::open(&[("flood.trusted_proxies", "127.0.0.0/8")]).await;
    let ask = get("/nothing").header("x-forwarded-for", "192.0.2.7");
    shop.customers.ask(ask).await;
    let listed = shop.staff.ask(get("/problems")).await.expect(200);
    assert_eq!(listed["problems"][0]["client"], "192.0.2.7", "{listed}");
    shop.close().await;
}

#[tokio::test]
async fn engines_are_listed_with_their_load_and_their_last_error() {
    let shop = Shop::open(&[]).await;
    let report = event("drone-7", "PARCEL_COLLECTED");
    shop.staff.ask(report).await.expect(201);
    let engine = async |name: &str| {
        let listed = shop.staff.ask(get("/engines")).await.expect(200);
        let engines = listed["engines"].as_array().unwrap().iter();
        let found = engines.clone().find(|engine| engine["name"] == name);
        found
            .unwrap_or_else(|| panic!("{name} in {listed}"))
            .clone()
    };
    for name in [
        "deliveries.db",
        "packages.db",
        "assignments.db",
        "couriers.db",
        "oplog",
    ] {
        let engine = engine(name).await;
        assert_eq!(engine["well"], true, "{engine}");
        assert_eq!(engine.get("last_error"), None, "{engine}");
        let since: jiff::Timestamp = text(&engine["since"]).parse().unwrap();
        assert!(since <= jiff::Timestamp::now());
    }
    let deliveries = engine("deliveries.db").await;
    assert_eq!(deliveries["queue"], 0, "{deliveries}");
    let p99 = deliveries["commit_p99_ms"].as_f64().unwrap();
    assert!((0.001..20_000.0).contains(&p99), "{deliveries}");
    assert_eq!(engine("couriers.db").await.get("commit_p99_ms"), None);
    shop.close().await;
}

#[tokio::test]
async fn the_build_names_the_keys_that_are_not_the_default() {
    let shop = Shop::open(&[("orders.lease", "3m")]).await;
    let build = shop.staff.ask(get("/build")).await.expect(200);
    assert_eq!(build["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(build["config"]["orders.lease"], "3m");
    assert_eq!(build["config"].get("orders.waiting_max"), None);
    let started: jiff::Timestamp = text(&build["started_at"]).parse().unwrap();
    assert!(started <= jiff::Timestamp::now());
    assert!(matches!(build["features"], Value::Array(_)), "{build}");
    shop.close().await;
}

// --- The state of every desk ---------------------------------------------------------------------------------------

#[tokio::test]
async fn each_zone_is_summed_up_without_a_list_of_its_couriers() {
    let shop = Shop::open(&[]).await;
    let ids: Vec<Uuid> = (1..=6).map(Uuid::from_u128).collect();
    let events = json!([
        courier(ids[0], "N", true),
        courier(ids[1], "N", true),
        courier(ids[2], "N", false),
        placed(ids[3], "N"),
        placed(ids[4], "N"),
        placed(ids[5], "S"),
    ]);
    publish_events(shop.staff, &events).await;
    let zones = shop.staff.expect(get("/couriers/zones"), 200).await;
    let zones = zones["zones"].as_array().unwrap();
    assert_eq!(
        zones[0],
        json!({"zone": "N", "available": 2, "unavailable": 1, "given": 2, "min": 1, "max": 1, "parked": 0})
    );
    assert_eq!(
        (&zones[1]["zone"], &zones[1]["parked"]),
        (&json!("S"), &json!(1))
    );
    assert_eq!(zones[1]["oldest_parked_at"], "2021-07-18T10:22:10.170682Z");
    assert_eq!(zones[1].get("min"), None);
    shop.close().await;
}

#[tokio::test]
async fn a_day_is_summed_up_by_driver_and_status() {
    let shop = prepared(&lists(&any_drivers(2), &any_packages(5))).await;
    let before = shop.staff.expect(get("/assignments/summary"), 200).await;
    assert_eq!(
        (&before["drivers"], &before["unassigned"]),
        (&json!([]), &json!(5))
    );
    let plan = assign(&wanted(&["d-00", "d-01"], 2));
    let plan = shop.staff.expect(plan, 200).await;
    let first = text(&plan["assignments"]["d-00"][0]);
    shop.staff
        .expect(update("d-00", &first, "delivered"), 200)
        .await;
    let after = shop.staff.expect(get("/assignments/summary"), 200).await;
    assert_eq!(
        (&after["unassigned"], &after["max_per_driver"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(
        after["drivers"][0],
        json!({"driver_id": "d-00", "held": 2, "assigned": 1, "accepted": 0, "in_progress": 0,
               "delivered": 1, "failed_to_deliver": 0})
    );
    assert_eq!(after["drivers"][1]["assigned"], 2);
    let other = get("/assignments/summary?date=2142-05-01");
    let other = shop.staff.expect(other, 200).await;
    assert_eq!(
        other,
        json!({"date": "2142-05-01", "drivers": []}),
        "no list, no plan"
    );
    let wrong = get("/assignments/summary?date=tomorrow");
    shop.staff.expect_problem(wrong, 422, "invalid").await;
    shop.close().await;
}

#[tokio::test]
async fn the_overview_has_the_state_of_every_desk() {
    let shop = Shop::open(&[("deliveries.stale_after", "1s"), ("pages.late_after", "7s")]).await;
    shop.promised().await;
    shop.promised().await;
    shop.serve_all().await;
    shop.promised().await;
    let report = event("drone-7", "PARCEL_COLLECTED");
    shop.staff.expect(report, 201).await;
    let sent = send(&package("p-1"));
    shop.customers.ask(sent).await;
    shop.customers.ask(get("/nothing")).await;
    let state = found("a state with a stale drone", async || {
        let state = shop.staff.expect(get("/overview"), 200).await;
        (state["deliveries"]["stale"] == 1).then_some(state)
    });
    let state = state.await;
    assert_eq!(state["line"]["waiting"], 1, "{state}");
    assert_eq!(state["line"]["late_ms"], 7000, "{state}");
    let sum = |series: &Value| -> u64 {
        let slots = series.as_array().unwrap();
        assert_eq!(slots.len(), 60);
        slots.iter().filter_map(Value::as_u64).sum()
    };
    let rates = ["placed", "started", "finished"].map(|name| sum(&state["rates"][name]));
    assert_eq!(rates, [3, 2, 2], "{state}");
    assert!(state["rates"]["wait"]["p99_ms"].is_u64(), "{state}");
    assert_eq!(state["flood"]["mode"], "enforce", "{state}");
    assert_eq!(state["deliveries"]["listed"][0]["delivery_id"], "drone-7");
    assert_eq!(state["packages"]["delivered"], 1, "{state}");
    assert_eq!(state["plan"]["held"], 0, "{state}");
    assert_eq!(state["couriers"].as_array().unwrap().len(), 4);
    assert!(state["engines"].as_array().unwrap().len() >= 4);
    assert_eq!(state["problems"][0]["status"], 404, "{state}");
    shop.serve_all().await;
    shop.close().await;
}

#[tokio::test]
async fn things_of_all_desks_are_found_by_their_ids_exact_ones_first() {
    let shop = prepared(&lists(&any_drivers(1), &any_packages(1))).await;
    let order = shop.promised().await;
    for delivery in ["drone-71", "drone-7"] {
        let report = event(delivery, "PARCEL_COLLECTED");
        shop.staff.expect(report, 201).await;
    }
    shop.customers.ask(send(&package("letter"))).await;
    shop.staff.expect(assign(&wanted(&["d-00"], 1)), 200).await;
    let (bo, parcel) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let events = json!([courier(bo, "N", true), placed(parcel, "N")]);
    publish_events(shop.staff, &events).await;
    let ask = get("/nothing").header("x-request-id", "lost-and-found");
    shop.customers.ask(ask).await;
    let search = async |text: &str| {
        let found = shop
            .staff
            .expect(get(format!("/search?q={text}")), 200)
            .await;
        let found = found["found"].as_array().unwrap().iter();
        let each = found.map(|one| format!("{} {}", text_of(one, "kind"), text_of(one, "id")));
        each.collect::<Vec<_>>()
    };
    assert_eq!(search(&order).await, [format!("order {order}")]);
    assert_eq!(
        search("drone-7").await,
        ["delivery drone-7", "delivery drone-71"]
    );
    assert_eq!(search("letter").await, ["package letter"]);
    assert_eq!(search("d-00").await, ["driver d-00"]);
    assert_eq!(search("p-000").await, ["assignment p-000"]);
    assert_eq!(search(&bo.to_string()).await, [format!("courier {bo}")]);
    assert_eq!(
        search(&parcel.to_string()).await,
        [format!("courier-order {parcel}")]
    );
    for text in ["lost-and-found", "lost"] {
        assert_eq!(search(text).await, ["request lost-and-found"]);
    }
    assert!(search("nothing-of-the-kind").await.is_empty());
    for wrong in ["/search", "/search?q=", "/search?q=%20"] {
        shop.staff.expect_problem(get(wrong), 422, "invalid").await;
    }
    shop.serve_all().await;
    shop.close().await;
}

fn text_of(one: &Value, member: &str) -> String {
    text(&one[member])
}

#[cfg(feature = "redis")]
#[tokio::test]
async fn an_engine_that_hangs_is_down_within_seconds_and_hangs_no_overview() {
    let redis = testkit::redis::Redis::start().await;
    let url = redis.socket();
    let settings = [("couriers.store", "redis"), ("redis.url", url.as_str())];
    let shop = Shop::open(&settings).await;
    let first = shop.staff.expect(get("/overview"), 200).await;
    assert!(first["couriers"].is_array(), "{first}");
    redis.process.freeze();
    let begun = std::time::Instant::now();
    let state = found("Redis is down", async || {
        let state = shop.staff.expect(get("/overview"), 200).await;
        let down = &state["engines"][0];
        (down["name"] == "redis (couriers)" && down["well"] == false).then_some(state)
    });
    let state = state.await;
    assert!(begun.elapsed().as_secs() < 8, "{:?}", begun.elapsed());
    assert_eq!(state.get("couriers"), None, "{state}");
    assert!(state["engines"][0]["last_error"]["detail"].is_string());
    redis.process.thaw();
    found("Redis works again", async || {
        let state = shop.staff.expect(get("/overview"), 200).await;
        state["couriers"].is_array().then_some(())
    })
    .await;
    shop.close().await;
}

// --- The page ------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn an_address_that_is_let_in_leaves_the_page_and_can_order_again() {
    let shop = Shop::open(&[
        ("flood.trusted_proxies", "127.0.0.0/8"),
        ("flood.outstanding_max", "1"),
        ("flood.cutoff_after", "3"),
    ])
    .await;
    let from = || {
        order()
            .prefer("respond-async")
            .header("x-forwarded-for", "192.0.2.7")
    };
    for _ in 0..5 {
        shop.customers.ask(from()).await;
    }
    assert_eq!(shop.customers.ask(from()).await.status, 429);
    shop.serve_all().await;
    let browser = Browser::open(&[]).await;
    window(&browser, TELEVISION).await;
    browser.visit(&url(shop.staff, "/?lang=en")).await;
    says(&browser, "#blocked-rows", "192.0.2.7").await;
    browser.find("#blocked-rows button").await.click().await;
    says(
        &browser,
        "#confirm-text",
        "192.0.2.7 can order again at once",
    )
    .await;
    browser.find("#confirm-yes").await.click().await;
    let gone = "return document.querySelectorAll('#blocked-rows tr').length === 0";
    browser.until("the row is gone", gone).await;
    assert_eq!(shop.customers.ask(from()).await.status, 202);
    assert_quiet(&browser).await;
    drop(browser);
    shop.serve_all().await;
    shop.close().await;
}

#[tokio::test]
async fn a_search_by_keyboard_opens_the_place_of_a_thing() {
    let shop = Shop::open(&[]).await;
    for delivery in ["drone-7", "drone-71"] {
        let report = event(delivery, "PARCEL_COLLECTED");
        shop.staff.expect(report, 201).await;
    }
    let browser = Browser::open(&[]).await;
    window(&browser, PHONE).await;
    browser.visit(&url(shop.staff, "/?lang=en")).await;
    says(&browser, "#drone-rows", "drone-71").await;
    assert_fits(&browser).await;
    browser.find("body").await.type_in("/").await;
    let focus = "return document.activeElement.id === 'search'";
    browser.until("the search has the focus", focus).await;
    let search = browser.find("#search").await;
    search.type_in("drone-7").await;
    says(&browser, "#found", "drone-71").await;
    search.type_in(key::DOWN).await;
    search.type_in(key::ENTER).await;
    says(&browser, "#thing-title", "drone-71").await;
    says(&browser, "#thing-facts", "PARCEL_COLLECTED").await;
    says(&browser, "#thing-tables", "PARCEL_COLLECTED").await;
    assert_fits(&browser).await;
    assert_quiet(&browser).await;
    browser
        .visit(&url(shop.staff, "/?lang=en#/deliveries/nothing"))
        .await;
    says(&browser, "#thing-none", "was evicted").await;
    drop(browser);
    shop.close().await;
}
