//! nginx in front of a locked server: credentials pass through it, and its logs have none. Its commented lines about TLS work
//! as they are, with other ports, files and names.

use std::path::Path;

use testkit::found;
#[cfg(feature = "redis")]
use {rustix::process::Signal, testkit::redis::Redis};

use crate::access::Tokens;
#[cfg(feature = "redis")]
use crate::client::Visitor;
use crate::client::{Answer, Ask, Door, get, order, post};
#[cfg(feature = "redis")]
use crate::nginx::variant_of;
use crate::nginx::{BEHIND_NGINX, Nginx, variant};
#[cfg(feature = "redis")]
use crate::servers::{REDIS, shared_line};
use crate::shop::{Shop, assert_no_secret, text};
use crate::tls::Authority;

/// How a line begins that is in force in place of the one without TLS.
const ABOUT_TLS: [&str; 5] = [
    "listen 443 ssl ",
    "listen 8443 ssl ",
    "ssl_",
    "proxy_pass https:",
    "proxy_ssl_",
];

/// A file of `site/` whose lines about TLS are in force, changed as described; the lines without TLS are not.
fn with_tls(dir: &Path, name: &str, changes: &[(&str, &str)]) {
    let file = dir.join("site").join(name);
    let shipped = std::fs::read_to_string(&file).unwrap();
    let mut lines = String::new();
    let mut uncommented = 0;
    for line in shipped.lines() {
        let directive = line.strip_prefix("# ").filter(|line| {
            line.ends_with(';') && ABOUT_TLS.iter().any(|begins| line.starts_with(begins))
        });
        let Some(directive) = directive else {
            let is_plain = line.starts_with("listen ") || line.starts_with("proxy_pass ");
            if !is_plain {
                lines.push_str(line);
                lines.push('\n');
            }
            continue;
        };
        uncommented += 1;
        let mut directive = directive.to_owned();
        for (shipped, here) in changes {
            directive = directive.replace(shipped, here);
        }
        lines.push_str(&directive);
        lines.push('\n');
    }
    assert!(uncommented >= 4, "{name}: {uncommented} lines about TLS");
    std::fs::write(file, lines).unwrap();
}

/// nginx with TLS to both sides, which admits staff with a certificate of this authority only. It trusts the application if
/// `trusted` signed its certificate.
async fn nginx_with_tls(shop: &Shop, authority: &Authority, trusted: &Authority) -> Nginx {
    let (dir, customers, staff) = variant(shop.customers.address, shop.staff.address, &[]);
    let ports = [customers, staff].map(|door| format!("listen {} ssl", door.address));
    let (certificate, key) = (authority.path("proxy.pem"), authority.path("proxy.key"));
    let (staff_ca, application_ca) = (authority.path("ca.pem"), trusted.path("ca.pem"));
    let changes = [
        ("listen 443 ssl", &*ports[0]),
        ("listen 8443 ssl", &*ports[1]),
        ("/etc/nginx/tls/shop.crt", &*certificate),
        ("/etc/nginx/tls/shop.key", &*key),
        ("/etc/nginx/tls/staff-ca.crt", &*staff_ca),
        ("/etc/nginx/tls/application.crt", &*application_ca),
        ("shop.example", "localhost"),
    ];
    for name in [
        "listen-customers.conf",
        "listen-staff.conf",
        "to-customers.conf",
        "to-staff.conf",
    ] {
        with_tls(dir.path(), name, &changes);
    }
    let mut nginx = Nginx::start((dir, customers, staff)).await;
    let tls = |certificate| Some(authority.client(certificate));
    nginx.customers.tls = tls(None);
    nginx.staff.tls = tls(Some("bo"));
    nginx
}

fn log_in(token: &str) -> Ask {
    post("/login")
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(format!("token={token}"))
}

/// An order that is placed, taken and finished through both doors.
async fn serve_one(shop: &Shop, nginx: &Nginx, staff: Door) {
    let customer = nginx.customers.hold(order());
    shop.until("the order is placed", |now| now.placed() == 1)
        .await;
    let started = staff.expect(get("/start/"), 200).await;
    let finish = format!("/finish/?order_id={}", text(&started["order_id"]));
    staff.expect(post(finish), 200).await;
    customer.answer().await.expect(200);
}

#[cfg(feature = "redis")]
#[tokio::test]
async fn with_tls_to_two_servers_the_orders_of_a_lost_one_are_sent_again() {
    let authority = Authority::create();
    authority.sign("shop", |_| ());
    let files = [authority.path("shop.pem"), authority.path("shop.key")];
    let redis = Redis::with(REDIS).await;
    let url = redis.url();
    let mut shops = Vec::new();
    for _ in 0..2 {
        let [store, url] = shared_line(&url);
        let certificate = ("tls.certificate_file", &*files[0]);
        let key = ("tls.key_file", &*files[1]);
        let mut shop = Shop::open(&[BEHIND_NGINX, store, url, certificate, key]).await;
        shop.customers.tls = Some(authority.client(None));
        shop.staff.tls = shop.customers.tls;
        shops.push(shop);
    }
    let list = |door: fn(&Shop) -> Door| {
        let addresses = shops.iter().map(|shop| door(shop).address.to_string());
        addresses.collect::<Vec<_>>().join(",")
    };
    let made = variant_of(&list(|shop| shop.customers), &list(|shop| shop.staff), &[]);
    let application_ca = authority.path("ca.pem");
    let changes = [
        ("/etc/nginx/tls/application.crt", &*application_ca),
        ("shop.example", "localhost"),
    ];
    for name in ["to-customers.conf", "to-staff.conf"] {
        with_tls(made.0.path(), name, &changes);
    }
    let nginx = Nginx::start(made).await;
    let customers = (1..=20).map(|number| {
        let door = nginx.customers;
        Visitor::new(async move {
            let mut connection = door.connect_from(&format!("127.0.9.{number}")).await;
            connection.try_ask(&order()).await
        })
    });
    let customers: Vec<_> = customers.collect();
    let stopped = shops.pop().unwrap();
    stopped
        .until("all are in line, some here", |now| {
            now.waiting() == 20 && now.held() > 0
        })
        .await;
    stopped.crash().await;
    let shop = shops.pop().unwrap();
    shop.until("all are held here", |now| now.held() == 20)
        .await;
    for _ in 0..20 {
        let started = nginx.staff.expect(get("/start/"), 200).await;
        let finish = format!("/finish/?order_id={}", text(&started["order_id"]));
        nginx.staff.expect(post(finish), 200).await;
    }
    for customer in customers {
        customer.answer().await.expect(200);
    }
    drop(nginx);
    shop.signal(Signal::TERM);
    shop.ended_well().await;
}

/// The cookie of an answer that logs a browser in.
fn cookie(answer: &Answer) -> &str {
    assert_eq!(answer.status, 303, "{answer}");
    answer.header("set-cookie").unwrap()
}

/// Both logs of nginx, once each of these paths is in one of them.
async fn logs(nginx: &Nginx, paths: &[&str]) -> String {
    found("the requests are logged", async || {
        let read = |name| std::fs::read_to_string(nginx.dir.path().join(name)).unwrap();
        let logs = read("access.log") + &read("error.log");
        paths.iter().all(|path| logs.contains(path)).then_some(logs)
    })
    .await
}

#[tokio::test]
async fn tokens_and_sessions_open_the_staff_listener_through_nginx_and_are_not_in_its_logs() {
    let tokens = Tokens::create();
    let token = tokens.issue("barista");
    let shop = tokens.locked(&[BEHIND_NGINX]).await;
    let nginx = Nginx::before(&shop, &[]).await;
    nginx
        .staff
        .expect_problem(get("/start/"), 401, "credential-missing")
        .await;
    serve_one(&shop, &nginx, nginx.staff.with_token(&token)).await;
    let answer = nginx.staff.ask(log_in(&token)).await;
    let cookie = cookie(&answer);
    assert!(!cookie.contains("Secure"), "{cookie}");
    let session = cookie.split(';').next().unwrap();
    let with_session = |ask: Ask| ask.header("Cookie", session);
    let own = with_session(post("/start/?wait=0")).header("Sec-Fetch-Site", "same-origin");
    nginx.staff.expect(own, 204).await;
    nginx
        .staff
        .expect_problem(with_session(post("/start/?wait=1")), 403, "cross-site")
        .await;
    let logs = logs(&nginx, &["/login", "/start/?wait=0", "/start/?wait=1"]).await;
    assert_no_secret(&logs);
    assert!(!logs.contains(session), "{logs}");
    drop(nginx);
    shop.close().await;
}

#[tokio::test]
async fn nginx_with_tls_to_both_sides_asks_staff_for_a_certificate_and_the_application_for_a_token()
{
    let authority = Authority::create();
    for name in ["shop", "proxy", "bo"] {
        authority.sign(name, |_| ());
    }
    let tokens = Tokens::create();
    let token = tokens.issue("barista");
    let files = [authority.path("shop.pem"), authority.path("shop.key")];
    let settings = [
        BEHIND_NGINX,
        ("tls.certificate_file", &*files[0]),
        ("tls.key_file", &*files[1]),
    ];
    let mut shop = tokens.locked(&settings).await;
    shop.customers.tls = Some(authority.client(None));
    shop.staff.tls = Some(authority.client(None));
    let nginx = nginx_with_tls(&shop, &authority, &authority).await;
    serve_one(&shop, &nginx, nginx.staff.with_token(&token)).await;
    // The browser's side counts, not nginx's connection to the application.
    let answer = nginx.staff.ask(log_in(&token)).await;
    assert!(cookie(&answer).contains("; Secure"), "{answer}");
    // Each lock by itself.
    nginx
        .staff
        .expect_problem(get("/start/"), 401, "credential-missing")
        .await;
    let without_certificate = Door {
        tls: Some(authority.client(None)),
        ..nginx.staff.with_token(&token)
    };
    without_certificate
        .expect_problem(get("/start/"), 403, "staff-only")
        .await;
    let plain = Door::at(nginx.staff.address).ask(get("/start/")).await;
    assert_eq!(plain.status, 400, "{plain}");
    assert_no_secret(&logs(&nginx, &["/login"]).await);
    drop(nginx);
    // An application that another authority vouches for.
    let other = Authority::create();
    let nginx = nginx_with_tls(&shop, &authority, &other).await;
    nginx
        .customers
        .expect_problem(order(), 502, "unreachable")
        .await;
    drop(nginx);
    shop.close().await;
}
