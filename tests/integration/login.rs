//! Logging in with a real browser: what a person sees, what the browser stores, and what pages of other origins can do with it.

use serde_json::{Value, json};
use testkit::found;

use crate::access::{Tokens, shop_of_bo};
use crate::browser::{evil, foreign_site};
use crate::client::{Door, get};
use crate::metrics::Metrics;
use crate::shop::{Shop, assert_no_secret, odyssey, text};
use crate::webdriver::{Browser, key};

/// Requests of [`evil`] and [`thief`] that the staff's listener refuses, at least: a browser may leave a prefetch out, and
/// without Fetch metadata some lead to the login page.
const ATTEMPTS: usize = 15;
const LOCAL: &str = "127.0.0.1";

/// The origin of a listener under a name of this machine.
fn origin(door: Door, host: &str) -> String {
    format!("http://{host}:{}", door.address.port())
}

/// Enters the token on the page `/login` of this origin, with the keyboard.
async fn log_in(browser: &Browser, origin: &str, token: &str) {
    browser.visit(&format!("{origin}/login")).await;
    enter(browser, token).await;
    browser.arrives_at(&format!("{origin}/")).await;
}

/// Enters a token on the page that is open.
async fn enter(browser: &Browser, token: &str) {
    let field = browser.find("#token").await;
    field.type_in(&format!("{token}{}", key::ENTER)).await;
}

/// Checks that the token is nowhere on the page, in its addresses, or in what the console has got since the last call.
async fn assert_hidden(browser: &Browser, token: &str) {
    let addresses =
        "return performance.getEntries().map(entry => entry.name).join(' ') + document.referrer";
    let shown = [
        browser.url().await,
        browser.title().await,
        browser.source().await,
        text(&browser.run(addresses).await),
        format!("{:?}", browser.console().await),
    ];
    for shown in shown {
        assert_no_secret(&shown);
        assert!(!shown.contains(&token[17..]), "{shown}");
    }
}

/// Checks that the page's address has one cookie: the session, which no script reads and no other site's page sends.
async fn assert_session(browser: &Browser, secure: bool) {
    let cookies = browser.cookies().await;
    let [cookie] = &cookies[..] else {
        panic!("one cookie is expected: {cookies:?}")
    };
    let facts = ["name", "httpOnly", "sameSite", "secure", "path"].map(|fact| cookie[fact].clone());
    let wanted = [
        json!("odyssey_session"),
        json!(true),
        json!("Strict"),
        json!(secure),
        json!("/"),
    ];
    assert_eq!(facts, wanted, "{cookie}");
    assert_eq!(browser.run("return document.cookie").await, "");
}

/// The status and the JSON of a request that a script of the open page sends.
async fn fetch(browser: &Browser, method: &str, path: &str) -> (Value, Value) {
    let script = format!(
        "return fetch({}, {{method: {}}}).then(async answer => [answer.status, await answer.text()])",
        json!(path),
        json!(method)
    );
    let answer = browser.run(&script).await;
    let body = serde_json::from_str(&text(&answer[1])).unwrap_or_default();
    (answer[0].clone(), body)
}

#[tokio::test]
async fn a_barista_who_opens_a_protected_page_enters_a_token_and_is_back_at_the_page() {
    let (_tokens, token, shop) = shop_of_bo().await;
    let id = shop.promised().await;
    let staff = origin(shop.staff, LOCAL);
    let [page, login] =
        [format!("/orders/{id}"), "/login".to_owned()].map(|path| staff.clone() + &path);
    let browser = Browser::open(&[]).await;
    browser.visit(&page).await;
    browser.arrives_at(&login).await;
    assert_eq!(browser.title().await, "Log in");
    // First one that another shop issued.
    let foreign = Tokens::create().issue("barista");
    enter(&browser, &foreign).await;
    let alert = browser.find("[role=alert]").await.text().await;
    assert!(alert.contains("The token is not valid."), "{alert}");
    assert_eq!(browser.url().await, login);
    assert_hidden(&browser, &foreign).await;
    assert!(browser.cookies().await.is_empty());
    enter(&browser, &token).await;
    browser.arrives_at(&page).await;
    assert!(browser.find("body").await.text().await.contains(&id));
    assert_session(&browser, false).await;
    assert_hidden(&browser, &token).await;

    browser.visit(&login).await;
    let said = browser.find("main").await.text().await;
    assert!(said.contains("logged in as bo (barista)"), "{said}");
    assert_hidden(&browser, &token).await;
    browser.find("a[href='/logout']").await.click().await;
    browser.arrives_at(&login).await;
    assert!(browser.cookies().await.is_empty());
    let said = browser.find("main").await.text().await;
    assert!(!said.contains("logged in"), "{said}");
    browser.visit(&page).await;
    browser.arrives_at(&login).await;
    assert_hidden(&browser, &token).await;
    drop(browser);
    shop.serve_all().await;
    // The log has no token either: `close` looks for them.
    let log = shop.close().await;
    assert!(log.contains("a browser logged in") && !log.contains(&token[17..]));
}

#[tokio::test]
async fn a_browser_whose_token_is_revoked_is_sent_to_the_login_page_again() {
    let (tokens, token, shop) = shop_of_bo().await;
    let id = shop.promised().await;
    let staff = origin(shop.staff, LOCAL);
    let page = format!("{staff}/orders/{id}");
    let browser = Browser::open(&[]).await;
    log_in(&browser, &staff, &token).await;
    browser.visit(&page).await;
    assert_eq!(browser.url().await, page);
    assert!(tokens.run(&["revoke", "--name", "bo"]).status.success());
    found("the page leads to the form", async || {
        browser.visit(&page).await;
        browser.url().await.contains("/login?next=").then_some(())
    })
    .await;
    // The browser has its cookie still, and is not said to be logged in.
    assert_session(&browser, false).await;
    let said = browser.find("main").await.text().await;
    assert!(!said.contains("logged in"), "{said}");
    // The same name with a new token, by which the page opens again.
    let next = tokens.issue_with(&["--role", "barista", "--name", "bo"]);
    let door = shop.staff.with_token(&next);
    let look = async || {
        let answer = door.ask(get(format!("/orders/{id}"))).await;
        (answer.status == 200).then_some(())
    };
    found("the new token is valid", look).await;
    enter(&browser, &next).await;
    browser.arrives_at(&page).await;
    drop(browser);
    shop.serve_all().await;
    shop.close().await;
}

#[tokio::test]
async fn a_barista_logs_in_where_the_browser_sends_no_fetch_metadata() {
    let (_tokens, token, shop) = shop_of_bo().await;
    shop.promised().await;
    // Over plain HTTP, browsers send it to localhost and loopback addresses only.
    let staff = origin(shop.staff, "shop");
    let browser = Browser::open(&[]).await;
    log_in(&browser, &staff, &token).await;
    assert_session(&browser, false).await;
    browser.visit(&format!("{staff}/docs")).await;
    assert_eq!(browser.run("return isSecureContext").await, false);
    let (status, started) = fetch(&browser, "POST", "/start/").await;
    assert_eq!(status, 200, "{started}");
    drop(browser);
    shop.finish(&text(&started["order_id"])).await;
    shop.close().await;
}

#[tokio::test]
async fn a_browser_logs_in_over_tls_and_sends_its_cookie_nowhere_else() {
    let tokens = Tokens::create();
    let token = tokens.issue_with(&["--role", "barista", "--name", "bo"]);
    let dir = tempfile::tempdir().unwrap();
    let [certificate, key] =
        ["shop.pem", "shop.key"].map(|name| dir.path().join(name).display().to_string());
    let mut create = odyssey();
    create.args([
        "certificate",
        "self-signed",
        "--certificate",
        &certificate,
        "--key",
        &key,
    ]);
    let created = create.output().unwrap();
    assert!(created.status.success(), "{created:?}");
    let settings = [
        ("tls.certificate_file", &*certificate),
        ("tls.key_file", &*key),
    ];
    let shop = tokens.locked(&settings).await;
    let staff = format!("https://localhost:{}", shop.staff.address.port());
    let browser = Browser::open(&["--ignore-certificate-errors"]).await;
    log_in(&browser, &staff, &token).await;
    assert_session(&browser, true).await;
    browser.visit(&format!("{staff}/docs")).await;
    let protocol = "return performance.getEntriesByType('navigation')[0].nextHopProtocol";
    assert_eq!(browser.run(protocol).await, "h2");
    assert_eq!(fetch(&browser, "POST", "/start/").await.0, 204);
    assert_hidden(&browser, &token).await;
    drop(browser);
    shop.signal(rustix::process::Signal::TERM);
    shop.ended_well().await;
}

/// Opens an operation of Swagger UI, which is the page, and sends it as it is.
async fn open_operation(browser: &Browser, method: &str, path: &str) {
    let place = format!(
        "return [...document.querySelectorAll('.opblock-{method}')].find(block => block.querySelector('[data-path=\"{path}\"]'))"
    );
    let script = format!(
        "const block = (() => {{ {place} }})(); if (block) block.id = 'tried'; return block"
    );
    browser.until("the operation is there", &script).await;
    browser
        .find("#tried .opblock-summary-control")
        .await
        .click()
        .await;
    browser.find("#tried .try-out__btn").await.click().await;
}

/// Sends the operation that is open; what is shown of the answer, with its status first.
async fn execute(browser: &Browser) -> String {
    // No answer of an earlier time is taken for this one's.
    let clear =
        "const clear = document.querySelector('#tried .btn-clear'); if (clear) clear.click()";
    browser.run(clear).await;
    browser.find("#tried .execute").await.click().await;
    browser
        .find("#tried .live-responses-table .response")
        .await
        .text()
        .await
}

#[tokio::test]
async fn a_barista_who_is_logged_in_takes_orders_from_the_documentation() {
    let (_tokens, token, shop) = shop_of_bo().await;
    let staff = origin(shop.staff, LOCAL);
    let browser = Browser::open(&[]).await;
    browser.visit(&format!("{staff}/docs")).await;
    assert_eq!(fetch(&browser, "POST", "/start/").await.0, 401);
    log_in(&browser, &staff, &token).await;
    browser.visit(&format!("{staff}/docs")).await;
    // By a script of the page, and by Swagger UI itself.
    let first = shop.promised().await;
    let (status, started) = fetch(&browser, "POST", "/start/").await;
    assert_eq!(status, 200, "{started}");
    assert_eq!(text(&started["order_id"]), first);
    let second = shop.promised().await;
    open_operation(&browser, "post", "/start/").await;
    let answer = execute(&browser).await;
    assert!(
        answer.starts_with("200") && answer.contains(&second),
        "{answer}"
    );
    assert_hidden(&browser, &token).await;
    for id in [first, second] {
        let (_, finished) = fetch(&browser, "POST", &format!("/finish/?order_id={id}")).await;
        assert_eq!(finished["barista"], "bo", "{finished}");
    }
    drop(browser);
    shop.close().await;
}

#[tokio::test]
async fn the_documentation_sends_a_token_that_was_entered_there_and_forgets_it() {
    let (_tokens, token, shop) = shop_of_bo().await;
    let id = shop.promised().await;
    let docs = format!("{}/docs", origin(shop.staff, LOCAL));
    let browser = Browser::open(&[]).await;
    browser.visit(&docs).await;
    open_operation(&browser, "post", "/start/").await;
    let answer = execute(&browser).await;
    assert!(answer.starts_with("401"), "{answer}");
    browser.find(".auth-wrapper .authorize").await.click().await;
    let field = browser.find("#auth-bearer-value").await;
    field.type_in(&format!("{token}{}", key::ENTER)).await;
    browser.find(".modal-ux .btn-done").await.click().await;
    let answer = execute(&browser).await;
    assert!(
        answer.starts_with("200") && answer.contains(&id),
        "{answer}"
    );
    let stored =
        "const stores = [localStorage, sessionStorage].map(store => JSON.stringify({...store}));
        return stores.join() + document.cookie + JSON.stringify(history.state)";
    let stored = browser.run(stored).await;
    assert_no_secret(&text(&stored));
    assert!(browser.cookies().await.is_empty());
    browser.visit(&docs).await;
    open_operation(&browser, "post", "/start/").await;
    let answer = execute(&browser).await;
    assert!(answer.starts_with("401"), "{answer}");
    assert_hidden(&browser, &token).await;
    drop(browser);
    shop.finish(&id).await;
    shop.close().await;
}

/// A page that reads an address of the staff's listener in every way that a page of another origin has, takes an order, logs
/// out, and logs in as another. `read()` waits until each has ended, and returns what they have read, which should be nothing.
fn thief(staff: &str, page: &str) -> String {
    format!(
        r#"<iframe id="framed" src="{staff}{page}"></iframe><iframe id="docs" src="{staff}/docs"></iframe>
<img src="{staff}{page}"><img src="{staff}/logout"><iframe src="{staff}/logout"></iframe>
<script src="{staff}{page}"></script>
<form id="taking" method="post" action="{staff}/start/"></form>
<form id="entering" method="post" target="entered" action="{staff}/login"><input name="token" value="x"></form><iframe name="entered"></iframe>
<script>
  entering.submit();
  const loaded = new Promise(resolve => addEventListener("load", resolve));
  const attempt = (path, options) => fetch("{staff}" + path, {{credentials: "include", ...options}}).then(answer => answer.text(), () => "");
  const attempts = [
    attempt("{page}"), attempt("{page}", {{mode: "no-cors"}}), attempt("{page}", {{headers: {{"X-Request-Id": "a"}}}}),
    attempt("/start/", {{method: "POST"}}), attempt("/start/", {{method: "POST", mode: "no-cors"}}),
    attempt("/start/"), attempt("/logout", {{mode: "no-cors"}}),
  ];
  const inside = frame => {{ try {{ return frame.contentWindow.document.body.innerText }} catch {{ return "" }} }};
  const read = async () => {{
    await loaded;
    return (await Promise.all(attempts)).join("") + inside(framed) + inside(docs);
  }};
</script>"#
    )
}

/// Opens the page of the other origin in a browser that is logged in, and lets it try everything.
async fn try_everything(browser: &Browser, shop: &Shop, foreign: &str, staff: &str, id: &str) {
    let refused = |now: &Metrics| {
        let by_status = ["401", "403"].map(|status| {
            now.count(&format!(
                "odyssey_http_answers_total{{listener=\"staff\",status=\"{status}\"}}"
            ))
        });
        by_status.iter().sum::<usize>()
    };
    let before = refused(&shop.metrics().await);
    browser.visit(foreign).await;
    assert_eq!(browser.run("return read()").await, "", "{foreign}");
    shop.until("it tried everything", |now| {
        refused(now) >= before + ATTEMPTS
    })
    .await;
    for navigation in [
        format!("location = '{staff}/orders/{id}'"),
        format!("location = '{staff}/logout'"),
        "taking.submit()".to_owned(),
    ] {
        browser.visit(foreign).await;
        browser.run(&navigation).await;
        let left = format!("return location.origin == '{staff}' && document.body?.innerText");
        let text = text(&browser.until("it has left", &left).await);
        // Without Fetch metadata, the navigation is one without the cookie.
        let refused = text.contains("A page of another site sent this");
        assert!(
            refused || text.starts_with("Log in"),
            "{navigation}: {text}"
        );
    }
    browser.visit(foreign).await;
    opens_a_tab_and_reads_nothing(browser, &format!("{staff}/docs")).await;
}

#[tokio::test]
async fn a_page_of_another_origin_reads_and_changes_nothing_in_a_browser_that_is_logged_in() {
    let (_tokens, token, shop) = shop_of_bo().await;
    let id = shop.promised().await;
    let page = format!("/orders/{id}");
    // Another site, to whose requests the browser adds no cookie; another port of the same one, to whose it does; and where
    // it sends no Fetch metadata.
    for (host, foreign) in [
        (LOCAL, "evil.example"),
        (LOCAL, LOCAL),
        ("shop", "evil.example"),
    ] {
        let [staff, customers] = [shop.staff, shop.customers].map(|door| origin(door, host));
        let bare = |origin: &str| origin.trim_start_matches("http://").to_owned();
        let content = evil(&bare(&customers), &bare(&staff), &id) + &thief(&staff, &page);
        let port = foreign_site(content).await;
        let browser = Browser::open(&[]).await;
        log_in(&browser, &staff, &token).await;
        let foreign = format!("http://{foreign}:{port}/");
        try_everything(&browser, &shop, &foreign, &staff, &id).await;
        let metrics = shop.metrics().await;
        let started = metrics.count("odyssey_orders_started_total");
        assert_eq!(
            (metrics.placed(), metrics.waiting(), started),
            (1, 1, 0),
            "{metrics}"
        );
        // The session has outlived it.
        browser.visit(&format!("{staff}/docs")).await;
        assert_session(&browser, false).await;
        assert_eq!(fetch(&browser, "GET", &page).await.0, 200);
        // Only a page of the listener takes an order.
        if host == "shop" {
            assert_eq!(fetch(&browser, "POST", "/start/").await.0, 200);
        }
    }
    shop.finish(&id).await;
    shop.close().await;
}

/// The page opens one of the listener in a new tab, which loads, and cannot look into it.
async fn opens_a_tab_and_reads_nothing(browser: &Browser, url: &str) {
    let tabs = browser.tabs().await;
    browser.run(&format!("window.opened = open('{url}')")).await;
    let new = found("the tab is open", async || {
        let now = browser.tabs().await;
        now.into_iter().find(|tab| !tabs.contains(tab))
    });
    browser.switch(&new.await).await;
    browser.find(".opblock").await;
    browser.switch(&tabs[0]).await;
    let look =
        "try { return window.opened.document.body.innerText } catch (error) { return error.name }";
    assert_eq!(browser.run(look).await, "SecurityError");
}

/// The lowest contrast of a text with its background on the page, and whether the page is wider than the window.
const LOOK: &str = r#"
  const rgb = color => color.match(/[\d.]+/g).map(Number);
  const luminance = color => {
    const [r, g, b] = rgb(color).map(part => part / 255).map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const canvas = document.body.appendChild(document.createElement("i"));
  canvas.style.setProperty("background-color", "Canvas");
  const ground = getComputedStyle(canvas).backgroundColor;
  canvas.remove();
  const behind = element => {
    if (!element) return ground;
    const color = getComputedStyle(element).backgroundColor;
    return rgb(color)[3] === 0 ? behind(element.parentElement) : color;
  };
  const contrast = element => {
    const [a, b] = [getComputedStyle(element).color, behind(element)].map(luminance);
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const texts = [...document.querySelectorAll("h1, p, strong, a, label, input:not([type=hidden]), button, small, code")];
  return {contrast: Math.min(...texts.map(contrast)), fits: document.documentElement.scrollWidth <= innerWidth};
"#;

#[tokio::test]
async fn the_login_page_is_legible_in_light_and_dark_on_a_phone_and_needs_no_mouse() {
    let (_tokens, token, shop) = shop_of_bo().await;
    let staff = origin(shop.staff, LOCAL);
    let browser = Browser::open(&[]).await;
    let mut screens = Vec::new();
    for scheme in ["light", "dark"] {
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        browser.devtools("Emulation.setEmulatedMedia", &media).await;
        for width in [320, 1280] {
            let screen = json!({"width": width, "height": 640, "deviceScaleFactor": 1, "mobile": width == 320});
            browser
                .devtools("Emulation.setDeviceMetricsOverride", &screen)
                .await;
            browser.visit(&format!("{staff}/login")).await;
            enter(&browser, "wrong").await;
            // With everything that there may be on it.
            browser.find("[role=alert]").await;
            let look = browser.run(LOOK).await;
            assert!(
                look["contrast"].as_f64().unwrap() >= 4.5,
                "{scheme}, {width}: {look}"
            );
            assert_eq!(look["fits"], true, "{scheme}, {width}");
            screens.push(browser.screenshot().await);
        }
    }
    assert!(
        screens[0] != screens[2],
        "dark is another screen than light"
    );
    // The field has the keyboard, and a name; the button is next.
    let focused =
        "return document.activeElement.labels[0]?.innerText || document.activeElement.innerText";
    assert_eq!(browser.run(focused).await, "Token");
    browser
        .find("#token")
        .await
        .type_in(&format!("{token}{}", key::TAB))
        .await;
    assert_eq!(browser.run(focused).await, "Log in");
    browser.find("button").await.type_in(key::ENTER).await;
    browser.arrives_at(&format!("{staff}/")).await;
    drop(browser);
    shop.close().await;
}
