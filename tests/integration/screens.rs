//! The screens in a real browser: what a customer, a barista and the people before the board see, and what happens when the
//! connection or the server is gone.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::found;

use crate::access::shop_of_bo;
use crate::client::{Door, delete, get, order, post, put};
use crate::shop::{Shop, text};
use crate::webdriver::{Browser, Element, key};

/// A phone's window, and a tablet's.
pub(crate) const PHONE: [u32; 2] = [390, 844];
const TABLET: [u32; 2] = [1024, 768];
pub(crate) const TELEVISION: [u32; 2] = [1920, 1080];

/// The address of a page.
pub(crate) fn url(door: Door, path: &str) -> String {
    format!("http://127.0.0.1:{}{path}", door.address.port())
}

pub(crate) async fn window(browser: &Browser, [width, height]: [u32; 2]) {
    let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
    browser
        .devtools("Emulation.setDeviceMetricsOverride", &size)
        .await;
}

async fn offline(browser: &Browser, offline: bool) {
    let conditions =
        json!({"offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1});
    browser.devtools("Network.enable", &json!({})).await;
    browser
        .devtools("Network.emulateNetworkConditions", &conditions)
        .await;
}

/// A browser at the order page.
async fn customer(shop: &Shop) -> Browser {
    let browser = Browser::open(&[]).await;
    window(&browser, PHONE).await;
    browser.visit(&url(shop.customers, "/")).await;
    browser.find("#press:not(:disabled)").await;
    browser
}

/// Orders, under this name.
async fn press(browser: &Browser, name: &str) {
    browser.find("#name").await.type_in(name).await;
    browser.find("#press").await.click().await;
}

/// Waits for a state of the page.
async fn shows(browser: &Browser, view: &str) {
    let script = format!("return document.body.dataset.view === '{view}'");
    browser
        .until(&format!("the page shows {view}"), &script)
        .await;
}

/// Waits until an element is displayed with this in its text.
pub(crate) async fn says<'a>(browser: &'a Browser, selector: &str, part: &str) -> Element<'a> {
    let script = format!(
        "const found = document.querySelector({}); return found?.checkVisibility() && found.textContent.includes({})",
        json!(selector),
        json!(part)
    );
    browser
        .until(&format!("{selector} says {part}"), &script)
        .await;
    browser.find(selector).await
}

/// The console's lines that a defect of a page would write; a refused request is one of the browser's own.
pub(crate) async fn assert_quiet(browser: &Browser) {
    let lines = browser.console().await;
    let unexpected = lines.iter().filter(|line| line["source"] != "network");
    assert_eq!(unexpected.collect::<Vec<_>>(), Vec::<&Value>::new());
}

/// Nothing is wider than the window; a page that scrolls has a bar beside it.
pub(crate) async fn assert_fits(browser: &Browser) {
    let fits = browser
        .run("return document.documentElement.scrollWidth <= innerWidth")
        .await;
    assert_eq!(fits, true);
}

async fn key_of(browser: &Browser) -> String {
    let stored = browser
        .run("return JSON.parse(localStorage['odyssey.order'] ?? 'null')?.key ?? ''")
        .await;
    text(&stored)
}

/// The line, as the console sees it.
async fn line(shop: &Shop, query: &str) -> Value {
    shop.staff.expect(get(format!("/line{query}")), 200).await
}

async fn set_door(shop: &Shop, door: Value) {
    shop.staff.expect(put("/line/door").json(&door), 200).await;
}

// --- The order page ------------------------------------------------------------------------------------------------

#[tokio::test]
async fn an_order_survives_a_reload_with_its_key_and_its_place() {
    let shop = Shop::open(&[]).await;
    let ahead = shop.promised().await;
    let browser = customer(&shop).await;
    press(&browser, "Ada").await;
    shows(&browser, "waiting").await;
    says(&browser, "#place", "2").await;
    let (key, number) = (
        key_of(&browser).await,
        browser.find("#waiting-number").await,
    );
    let number = number.text().await;
    browser.visit(&url(shop.customers, "/")).await;
    says(&browser, "#waiting-number", &number).await;
    says(&browser, "#place", "2").await;
    assert_eq!(key_of(&browser).await, key);
    let now = line(&shop, "").await;
    assert_eq!(now["waiting"], 2, "one order of each: {now}");
    assert!(browser.title().await.starts_with(&number));
    assert_fits(&browser).await;
    assert_quiet(&browser).await;
    shop.customers
        .expect(delete(format!("/orders/{ahead}")), 200)
        .await;
    says(&browser, "#place", "1").await;
    shop.serve_all().await;
    shows(&browser, "ready").await;
    drop(browser);
    shop.close().await;
}

#[tokio::test]
async fn a_customer_who_is_offline_for_a_while_keeps_the_place_and_sees_until_when() {
    let shop = Shop::open(&[("orders.reconnect_grace", "1s")]).await;
    let browser = customer(&shop).await;
    press(&browser, "Ada").await;
    says(&browser, "#place", "1").await;
    let key = key_of(&browser).await;
    offline(&browser, true).await;
    says(&browser, "#offline", "Your place is kept until").await;
    says(&browser, "#place", "1").await;
    shop.until("the request is gone", |now| now.held() == 0)
        .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    offline(&browser, false).await;
    browser
        .until(
            "it is live again",
            "return document.querySelector('#offline').hidden",
        )
        .await;
    assert_eq!(key_of(&browser).await, key);
    assert_eq!(line(&shop, "").await["waiting"], 1);
    shop.serve_all().await;
    shows(&browser, "ready").await;
    drop(browser);
    shop.close().await;
}

#[tokio::test]
async fn a_page_whose_order_the_server_has_lost_says_so_and_offers_to_order_again() {
    let shop = Shop::open(&[]).await;
    let browser = customer(&shop).await;
    press(&browser, "Ada").await;
    shows(&browser, "waiting").await;
    let address = shop.customers.address.to_string();
    shop.crash().await;
    says(&browser, "#offline", "Connection lost").await;
    let shop = Shop::open(&[("customers.listen", &address)]).await;
    shows(&browser, "ended").await;
    says(&browser, "#ended-title", "Your order is gone").await;
    assert_eq!(key_of(&browser).await, "");
    assert_eq!(
        line(&shop, "").await["waiting"],
        0,
        "none was placed by itself"
    );
    browser.find("#ended .again").await.click().await;
    shows(&browser, "open").await;
    drop(browser);
    shop.close().await;
}

#[tokio::test]
async fn a_coffee_that_is_ready_is_shown_at_once_in_every_way_there_is() {
    let shop = Shop::open(&[]).await;
    let browser = customer(&shop).await;
    browser
        .run("window.vibrated = []; navigator.vibrate = pattern => vibrated.push(pattern)")
        .await;
    press(&browser, "Ada").await;
    shows(&browser, "waiting").await;
    let started = shop
        .staff
        .expect(post("/start/?wait=0&barista=Bo"), 200)
        .await;
    shows(&browser, "making").await;
    says(&browser, "#maker", "Bo is making it now").await;
    let (id, number) = (text(&started["order_id"]), text(&started["number"]));
    shop.finish(&id).await;
    let finished = Instant::now();
    shows(&browser, "ready").await;
    // 300 ms on a quiet machine.
    assert!(finished.elapsed() < Duration::from_secs(3));
    says(&browser, "#ready-number", &number).await;
    says(&browser, "#collect", "Ada, please collect it").await;
    assert_eq!(browser.title().await, format!("☕ {number} ready"));
    assert_eq!(
        browser.run("return vibrated").await,
        json!([[200, 100, 200]])
    );
    assert_eq!(key_of(&browser).await, "");
    assert_quiet(&browser).await;
    drop(browser);
    shop.close().await;
}

#[tokio::test]
async fn a_customer_whose_order_came_back_from_a_barista_waits_again_without_an_error() {
    let shop = Shop::open(&[("orders.lease", "2s")]).await;
    let browser = customer(&shop).await;
    press(&browser, "").await;
    shows(&browser, "waiting").await;
    shop.pull("wait=0").await.expect(200);
    shows(&browser, "making").await;
    shows(&browser, "waiting").await;
    says(&browser, "#again-soon", "your turn again").await;
    assert!(browser.find("#place").await.text().await == "1");
    shop.serve_all().await;
    drop(browser);
    shop.close().await;
}

#[tokio::test]
async fn a_refused_order_can_be_tried_again_when_the_server_said_and_not_before() {
    let shop = Shop::open(&[("flood.burst", "1"), ("flood.refill", "15s")]).await;
    let browser = customer(&shop).await;
    shop.promised().await;
    press(&browser, "Ada").await;
    shows(&browser, "refused").await;
    let left = says(&browser, "#retry", "Try again in 0:")
        .await
        .text()
        .await;
    let seconds: u32 = left.rsplit(':').next().unwrap().parse().unwrap();
    assert!((1..=15).contains(&seconds), "{left}");
    let disabled = "return document.querySelector('#retry').disabled";
    assert_eq!(browser.run(disabled).await, true);
    browser.find("#retry:not(:disabled)").await.click().await;
    shows(&browser, "waiting").await;
    assert_quiet(&browser).await;
    shop.serve_all().await;
    shows(&browser, "ready").await;
    drop(browser);
    shop.close().await;
}

#[tokio::test]
async fn a_customer_whose_address_is_blocked_while_waiting_sees_until_when() {
    let settings = [("flood.outstanding_max", "1"), ("flood.cutoff_after", "3")];
    let shop = Shop::open(&settings).await;
    let first = shop.promised().await;
    shop.customers
        .expect_problem(order(), 429, "too-many-outstanding")
        .await;
    shop.customers
        .expect(delete(format!("/orders/{first}")), 200)
        .await;
    let browser = customer(&shop).await;
    press(&browser, "Ada").await;
    shows(&browser, "waiting").await;
    for _ in 0..2 {
        assert_eq!(shop.customers.ask(order()).await.status, 429);
    }
    shows(&browser, "refused").await;
    says(
        &browser,
        "#refused-title",
        "Orders from this network are stopped",
    )
    .await;
    says(&browser, "#refused-text", "Please ask at the counter").await;
    browser.find("#request-id").await;
    assert_eq!(key_of(&browser).await, "");
    drop(browser);
    shop.close().await;
}

#[tokio::test]
async fn a_closed_line_and_a_full_one_say_so() {
    let shop = Shop::open(&[("orders.waiting_max", "1")]).await;
    let browser = customer(&shop).await;
    shop.promised().await;
    press(&browser, "Ada").await;
    shows(&browser, "refused").await;
    says(&browser, "#refused-title", "The line is full").await;
    shop.serve_all().await;
    set_door(
        &shop,
        json!({"open": false, "message": {"en": "Back at 14:00"}}),
    )
    .await;
    browser.visit(&url(shop.customers, "/")).await;
    shows(&browser, "closed").await;
    says(&browser, "#closed-message", "Back at 14:00").await;
    assert_quiet(&browser).await;
    set_door(&shop, json!({"open": true})).await;
    browser.visit(&url(shop.customers, "/")).await;
    shows(&browser, "open").await;
    says(&browser, "#line", "No one is in line").await;
    // It closes while the page is open.
    set_door(&shop, json!({"open": false})).await;
    press(&browser, "").await;
    shows(&browser, "closed").await;
    assert_eq!(key_of(&browser).await, "");
    drop(browser);
    shop.close().await;
}

#[tokio::test]
async fn a_line_without_baristas_shows_no_estimate() {
    let shop = Shop::open(&[]).await;
    let browser = customer(&shop).await;
    press(&browser, "Ada").await;
    says(&browser, "#place", "1").await;
    let state = shop.customers.expect(get("/board"), 200).await;
    let estimate = browser
        .run("const of = document.querySelector('#estimate'); return of.hidden ? '' : of.textContent")
        .await;
    let shown = text(&estimate);
    if state["crew"] == "away" {
        assert!(shown.contains("No barista is at work"), "{shown}");
    } else {
        assert_eq!(shown, "", "nothing is measured");
    }
    shop.serve_all().await;
    shows(&browser, "ready").await;
    drop(browser);
    shop.close().await;
}

#[tokio::test]
async fn eight_tabs_of_a_customer_share_one_request_and_show_the_same_place() {
    let shop = Shop::open(&[]).await;
    let browser = customer(&shop).await;
    press(&browser, "Ada").await;
    says(&browser, "#place", "1").await;
    for _ in 1..8 {
        browser.run("window.open('/')").await;
    }
    let tabs = found("the tabs are open", async || {
        Some(browser.tabs().await).filter(|tabs| tabs.len() == 8)
    });
    let tabs = tabs.await;
    for tab in &tabs {
        browser.switch(tab).await;
        says(&browser, "#place", "1").await;
    }
    assert_eq!(shop.metrics().await.held(), 1);
    assert_eq!(line(&shop, "").await["waiting"], 1);
    // Another tab takes over from the one that is closed.
    browser.switch(&tabs[0]).await;
    browser.run("setTimeout(() => window.close())").await;
    browser.switch(&tabs[7]).await;
    shop.until("another tab holds it", |now| now.held() == 1)
        .await;
    shop.serve_all().await;
    for tab in &tabs[1..] {
        browser.switch(tab).await;
        shows(&browser, "ready").await;
    }
    drop(browser);
    shop.close().await;
}

// --- The board -----------------------------------------------------------------------------------------------------

/// An order of this customer that is ready; its number.
async fn ready_order(shop: &Shop, name: &str) -> String {
    let placed = order()
        .json(&json!({ "customer": name }))
        .prefer("respond-async");
    shop.customers.expect(placed, 202).await;
    let started = shop.staff.expect(post("/start/?wait=0"), 200).await;
    shop.finish(&text(&started["order_id"])).await;
    text(&started["number"])
}

#[tokio::test]
async fn the_board_shows_a_coffee_that_is_ready_for_a_while_and_no_name() {
    let shop = Shop::open(&[("pages.ready_for", "4s")]).await;
    let browser = Browser::open(&[]).await;
    browser.visit(&url(shop.customers, "/board")).await;
    says(&browser, "#connection", "live").await;
    let number = ready_order(&shop, "Ada Lovelace").await;
    let finished = Instant::now();
    says(&browser, "#ready-list", &number).await;
    // One second on a quiet machine.
    assert!(finished.elapsed() < Duration::from_secs(4));
    let shown = browser.find("body").await.text().await;
    assert!(!shown.contains("Ada"), "{shown}");
    let gone = "return document.querySelector('#ready-list').children.length === 0";
    browser.until("it leaves the board", gone).await;
    assert!(finished.elapsed() >= Duration::from_secs(3));
    assert_quiet(&browser).await;
    drop(browser);
    shop.close().await;
}

#[tokio::test]
async fn a_board_with_names_shows_a_first_name_and_an_initial() {
    let shop = Shop::open(&[("pages.board", "names")]).await;
    let browser = Browser::open(&[]).await;
    browser.visit(&url(shop.customers, "/board")).await;
    ready_order(&shop, "Ada Lovelace").await;
    says(&browser, "#ready-list", "Ada L.").await;
    drop(browser);
    shop.close().await;
}

#[tokio::test]
async fn a_full_board_fits_on_a_television_and_on_a_phone_without_scrolling() {
    let shop = Shop::open(&[]).await;
    for _ in 0..14 {
        ready_order(&shop, "Ada").await;
    }
    for _ in 0..40 {
        shop.promised().await;
    }
    for _ in 0..13 {
        shop.pull("wait=0").await.expect(200);
    }
    let browser = Browser::open(&[]).await;
    for size in [TELEVISION, TABLET, PHONE] {
        window(&browser, size).await;
        browser.visit(&url(shop.customers, "/board")).await;
        says(&browser, "#ready-more", "+2").await;
        says(&browser, "#making-more", "+1").await;
        says(&browser, "#next-more", "+3").await;
        let clipped = browser
            .run("return [...document.querySelectorAll('.column')].filter(column => column.scrollHeight > column.clientHeight + 1 || column.scrollWidth > column.clientWidth + 1).map(column => column.id)")
            .await;
        assert_eq!(clipped, json!([]), "{size:?}");
        assert_fits(&browser).await;
        let lower = "return document.documentElement.scrollHeight - innerHeight";
        assert_eq!(browser.run(lower).await, 0, "{size:?}");
    }
    drop(browser);
    while let Some(cup) = line(&shop, "").await["cups"].get(0) {
        shop.finish(&text(&cup["order_id"])).await;
    }
    shop.serve_all().await;
    shop.close().await;
}

#[tokio::test]
async fn a_board_without_a_server_says_that_it_may_be_out_of_date() {
    let shop = Shop::open(&[]).await;
    let browser = Browser::open(&[]).await;
    browser.visit(&url(shop.customers, "/board")).await;
    says(&browser, "#connection", "live").await;
    shop.crash().await;
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let said = text(
            &browser
                .run("return document.querySelector('#connection').textContent")
                .await,
        );
        if said.contains("may be out of date") {
            break;
        }
        assert!(Instant::now() < deadline, "{said}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

// --- The console ---------------------------------------------------------------------------------------------------

/// A browser at the console of a barista.
async fn console(shop: &Shop, name: &str) -> Browser {
    let browser = Browser::open(&[]).await;
    window(&browser, TABLET).await;
    enter(&browser, shop, name).await;
    browser
}

async fn enter(browser: &Browser, shop: &Shop, name: &str) {
    browser
        .visit(&url(shop.staff, &format!("/barista?barista={name}")))
        .await;
    says(browser, "#connection", "live").await;
}

/// Presses a key that is not meant for a field.
async fn strike(browser: &Browser, keys: &str) {
    browser.find("body").await.type_in(keys).await;
}

/// Waits until so many cups are in hand, and young cards accept presses.
async fn has_cups(browser: &Browser, count: usize) {
    let script = format!("return document.querySelectorAll('.held').length === {count}");
    browser.until(&format!("{count} cups"), &script).await;
    tokio::time::sleep(Duration::from_millis(350)).await;
}

#[tokio::test]
async fn three_cups_have_the_servers_clocks_though_the_tablets_clock_is_wrong() {
    let shop = Shop::open(&[]).await;
    for _ in 0..3 {
        shop.promised().await;
    }
    let browser = Browser::open(&[]).await;
    window(&browser, TABLET).await;
    let wrong = "const now = Date.now.bind(Date); Date.now = () => now() + 3600000;";
    browser
        .devtools(
            "Page.addScriptToEvaluateOnNewDocument",
            &json!({ "source": wrong }),
        )
        .await;
    enter(&browser, &shop, "Bo").await;
    for count in 1..=3 {
        strike(&browser, "n").await;
        has_cups(&browser, count).await;
    }
    let state = line(&shop, "?barista=Bo").await;
    let shown = browser
        .run("return [...document.querySelectorAll('.held .lease strong')].map(clock => clock.textContent)")
        .await;
    for (cup, shown) in state["cups"]
        .as_array()
        .unwrap()
        .iter()
        .zip(shown.as_array().unwrap())
    {
        let shown = text(shown);
        let (minutes, seconds) = shown.trim_end_matches(" !").split_once(':').unwrap();
        let shown_secs = minutes.parse::<u64>().unwrap() * 60 + seconds.parse::<u64>().unwrap();
        let secs = cup["lease_remaining_ms"].as_u64().unwrap() / 1000;
        assert!(shown_secs.abs_diff(secs) <= 2, "{shown_secs} {secs}");
    }
    // Full hands.
    assert_eq!(
        browser
            .run("return document.querySelector('#take').disabled")
            .await,
        true
    );
    assert_quiet(&browser).await;
    for count in [2, 1, 0] {
        strike(&browser, "\u{e008}1\u{e000}").await;
        has_cups(&browser, count).await;
    }
    drop(browser);
    shop.close().await;
}

#[tokio::test]
async fn cups_are_back_after_a_reload() {
    let shop = Shop::open(&[]).await;
    shop.promised().await;
    let browser = console(&shop, "Bo").await;
    browser.find("#take").await.click().await;
    has_cups(&browser, 1).await;
    enter(&browser, &shop, "Bo").await;
    has_cups(&browser, 1).await;
    browser.find(".held .main").await.click().await;
    has_cups(&browser, 0).await;
    // It waits for the next one by itself.
    says(&browser, "#idle-title", "Waiting for the next order").await;
    shop.promised().await;
    has_cups(&browser, 1).await;
    browser.find(".actions .plain").await.click().await;
    has_cups(&browser, 0).await;
    drop(browser);
    shop.close().await;
}

#[tokio::test]
async fn a_finish_without_a_connection_is_sent_later_and_counted_once() {
    let shop = Shop::open(&[]).await;
    shop.promised().await;
    let browser = console(&shop, "Bo").await;
    strike(&browser, "n").await;
    has_cups(&browser, 1).await;
    offline(&browser, true).await;
    says(&browser, "#offline", "Connection lost").await;
    browser.find(".actions .plain").await.click().await;
    says(&browser, ".note", "as soon as the connection is back").await;
    offline(&browser, false).await;
    has_cups(&browser, 0).await;
    let finished = shop
        .until("it is finished", |now| now.finished(false) == 1)
        .await;
    assert_eq!(finished.brewing(), 0);
    drop(browser);
    shop.close().await;
}

#[tokio::test]
async fn a_cup_whose_lease_ran_out_must_not_be_handed_out() {
    let shop = Shop::open(&[("orders.lease", "2s")]).await;
    let id = shop.promised().await;
    let browser = console(&shop, "Bo").await;
    strike(&browser, "n").await;
    has_cups(&browser, 1).await;
    says(&browser, ".held .note", "Do not hand it out").await;
    let attempt = "&attempt=1";
    assert_eq!(shop.try_finish(&id, attempt).await.status, 409);
    browser.find(".dismiss").await.click().await;
    has_cups(&browser, 0).await;
    // Lost while the page could not know: the finish is refused.
    strike(&browser, "n").await;
    has_cups(&browser, 1).await;
    offline(&browser, true).await;
    says(&browser, "#offline", "Connection lost").await;
    browser.find(".actions .plain").await.click().await;
    shop.until("the lease ran out", |now| now.waiting() == 1)
        .await;
    offline(&browser, false).await;
    says(&browser, ".held .note", "Do not hand it out").await;
    drop(browser);
    shop.serve_all().await;
    shop.close().await;
}

#[tokio::test]
async fn a_barista_who_pauses_is_handed_no_order() {
    let shop = Shop::open(&[]).await;
    let [bo, cy] = [console(&shop, "Bo").await, console(&shop, "Cy").await];
    strike(&bo, "n").await;
    says(&bo, "#idle-title", "Waiting for the next order").await;
    shop.until("Bo waits", |now| now.idle_baristas() == 1).await;
    strike(&cy, "n").await;
    shop.until("Cy waits, too", |now| now.idle_baristas() == 2)
        .await;
    bo.find("#pause").await.click().await;
    says(&bo, "#paused", "Paused").await;
    shop.until("Bo does not wait", |now| now.idle_baristas() == 1)
        .await;
    shop.promised().await;
    has_cups(&cy, 1).await;
    has_cups(&bo, 0).await;
    strike(&cy, "\u{e008}1\u{e000}").await;
    has_cups(&cy, 0).await;
    drop((bo, cy));
    shop.close().await;
}

#[tokio::test]
async fn the_console_works_by_keyboard_alone() {
    let shop = Shop::open(&[("orders.lease", "30s")]).await;
    shop.promised().await;
    let browser = Browser::open(&[]).await;
    window(&browser, TABLET).await;
    browser.visit(&url(shop.staff, "/barista")).await;
    browser
        .find("#who-name")
        .await
        .type_in(&format!("Bo{}", key::ENTER))
        .await;
    says(&browser, "#connection", "live").await;
    strike(&browser, "n").await;
    has_cups(&browser, 1).await;
    let remaining = async || {
        let state = line(&shop, "?barista=Bo").await;
        state["cups"][0]["lease_remaining_ms"].as_u64().unwrap()
    };
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = remaining().await;
    strike(&browser, "e1").await;
    found("the lease is longer", async || {
        (remaining().await > before).then_some(())
    })
    .await;
    browser
        .until(
            "the answer is there",
            "return document.querySelector('.note').textContent === ''",
        )
        .await;
    strike(&browser, "g1").await;
    has_cups(&browser, 0).await;
    assert_eq!(line(&shop, "").await["waiting"], 1);
    strike(&browser, "n").await;
    has_cups(&browser, 1).await;
    strike(&browser, "1").await;
    has_cups(&browser, 0).await;
    says(&browser, "#idle-title", "Waiting for the next order").await;
    strike(&browser, "?").await;
    browser.find("#help .main").await.click().await;
    assert_quiet(&browser).await;
    drop(browser);
    shop.close().await;
}

#[tokio::test]
async fn a_console_whose_session_ended_leads_to_the_login_page_and_back() {
    let (_tokens, token, shop) = shop_of_bo().await;
    let browser = Browser::open(&[]).await;
    let page = url(shop.staff, "/barista");
    let log_in = async || {
        browser.arrives_at(&url(shop.staff, "/login")).await;
        let keys = format!("{token}{}", key::ENTER);
        browser.find("#token").await.type_in(&keys).await;
        browser.arrives_at(&page).await;
    };
    browser.visit(&format!("{page}?barista=bo")).await;
    log_in().await;
    says(&browser, "#connection", "live").await;
    browser
        .devtools("Network.clearBrowserCookies", &json!({}))
        .await;
    browser.find("#take").await.click().await;
    says(&browser, "#signed-out", "You are logged out").await;
    browser.find("#log-in").await.click().await;
    log_in().await;
    says(&browser, "#connection", "live").await;
    drop(browser);
    shop.close().await;
}

// --- All pages -----------------------------------------------------------------------------------------------------

#[tokio::test]
async fn every_page_is_narrow_enough_for_a_small_phone_and_speaks_german() {
    let shop = Shop::open(&[]).await;
    let browser = Browser::open(&[]).await;
    for (door, path, word) in [
        (shop.customers, "/?lang=de", "Americano bestellen"),
        (shop.customers, "/board?lang=de", "Fertig"),
        (shop.staff, "/barista?lang=de&barista=Bo", "Nächste nehmen"),
    ] {
        for size in [[320, 640], PHONE, TABLET, TELEVISION] {
            window(&browser, size).await;
            browser.visit(&url(door, path)).await;
            says(&browser, "body", word).await;
            assert_fits(&browser).await;
        }
        let requests = "return performance.getEntriesByType('resource').map(entry => entry.name).filter(name => !name.startsWith(location.origin))";
        assert_eq!(browser.run(requests).await, json!([]), "{path}");
        assert_quiet(&browser).await;
    }
    drop(browser);
    shop.close().await;
}
