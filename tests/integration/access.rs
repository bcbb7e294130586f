//! Tokens and roles: who may do what at a locked shop.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Output;

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::found;
use tokio::time::Instant;

use crate::client::{Answer, Ask, Door, event, get, order, post, send};
use crate::packages::{package, preferences, put_preferences, with};
use crate::shop::{Shop, assert_no_secret, odyssey, text};

const ROLES: [&str; 9] = [
    "barista",
    "drone",
    "dispatcher",
    "driver",
    "courier-feed",
    "operator",
    "scraper",
    "sender",
    "recipient-service",
];

/// A file of tokens.
pub(crate) struct Tokens {
    dir: TempDir,
}

impl Tokens {
    pub(crate) fn create() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.dir.path().join("tokens.toml")
    }

    /// `odyssey token` with these arguments.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let mut command = odyssey();
        command.arg("token").args(arguments);
        command.arg("--file").arg(self.file()).output().unwrap()
    }

    /// A new token of this role, with the role as its name.
    pub(crate) fn issue(&self, role: &str) -> String {
        self.issue_with(&["--role", role, "--name", role])
    }

    pub(crate) fn issue_with(&self, arguments: &[&str]) -> String {
        let output = self.run(&[&["new"], arguments].concat());
        assert!(output.status.success(), "{output:?}");
        let token = String::from_utf8(output.stdout).unwrap();
        token.trim_end().to_owned()
    }

    /// A shop whose listeners both require tokens; its staff door has an operator's.
    pub(crate) async fn locked(&self, more: &[(&str, &str)]) -> Shop {
        let operator = self.issue("operator");
        let file = self.file().display().to_string();
        let settings = [
            ("staff.auth", "tokens"),
            ("customers.auth", "tokens"),
            ("customers.deliveries", "true"),
            ("access.tokens_file", &*file),
        ];
        let mut shop = Shop::open(&[&settings, more].concat()).await;
        shop.staff = shop.staff.with_token(&operator);
        shop
    }
}

/// A locked shop, and the token of its barista bo.
pub(crate) async fn shop_of_bo() -> (Tokens, String, Shop) {
    let tokens = Tokens::create();
    let token = tokens.issue_with(&["--role", "barista", "--name", "bo"]);
    let shop = tokens.locked(&[]).await;
    (tokens, token, shop)
}

/// The operations of a listener, and what each requires: the roles of each, None if it is open.
struct Operation {
    ask: Ask,
    name: String,
    roles: Option<BTreeSet<String>>,
    /// Open, but a credential must be valid.
    optional: bool,
}

async fn operations(door: Door) -> Vec<Operation> {
    let api = door.without_token().expect(get("/openapi.json"), 200).await;
    let mut found = Vec::new();
    for (path, item) in api["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let security = operation["security"].as_array();
            let security = security.unwrap_or_else(|| panic!("{method} {path} declares nothing"));
            let optional = security.contains(&json!({}));
            let token = security
                .iter()
                .find_map(|scheme| scheme["token"].as_array());
            let roles = token.map(|roles| roles.iter().map(text).collect());
            // Well-formed or not does not matter: what counts is whether it is admitted.
            let filled = path.replace("{order_id}", "0191d5c8-7a9b-7000-8000-000000000000");
            let filled = filled
                .replace("{sequence}", "1")
                .replace("{address}", "192.0.2.1");
            let filled = filled.split('{').enumerate().map(|(at, part)| match at {
                0 => part.to_owned(),
                _ => format!("own{}", part.split_once('}').unwrap().1),
            });
            let method = method.to_uppercase();
            let ask = Ask::new(method.parse().unwrap(), filled.collect::<String>());
            found.push(Operation {
                ask: ask.header("Content-Type", "application/json"),
                name: format!("{method} {path}"),
                roles,
                optional,
            });
        }
    }
    found
}

fn kind(answer: &Answer) -> Option<String> {
    let is_problem = answer.header("content-type") == Some("application/problem+json");
    is_problem.then(|| {
        let kind = text(&answer.json()["type"]);
        kind.trim_start_matches("urn:odyssey:problem:").to_owned()
    })
}

#[tokio::test]
async fn every_operation_admits_the_roles_of_its_description_and_no_other() {
    let tokens = Tokens::create();
    let by_role = ROLES.map(|role| (role, tokens.issue(role)));
    let shop = tokens
        .locked(&[
            ("orders.start_wait", "0s"),
            ("flood.trusted_proxies", "127.0.0.1/32"),
        ])
        .await;
    let mut restricted = 0;
    // Each request comes from an address of its own: too many refusals of one are answered 429.
    let mut addresses = (1..=254).flat_map(|a| (1..=254).map(move |b| format!("198.18.{a}.{b}")));
    for door in [shop.customers, shop.staff] {
        for operation in operations(door).await {
            let held = operation.name == "POST /order/";
            let ask = if held {
                operation.ask.clone().prefer("respond-async")
            } else {
                operation.ask.clone()
            };
            let mut elsewhere = || {
                ask.clone()
                    .header("X-Forwarded-For", addresses.next().unwrap())
            };
            let anonymous = door.without_token().ask(elsewhere()).await;
            let refused = kind(&anonymous).as_deref() == Some("credential-missing");
            let open = operation.roles.is_none() || operation.optional;
            assert_eq!(refused, !open, "{}: {anonymous}", operation.name);
            restricted += usize::from(!open);
            for (role, token) in &by_role {
                let answer = door.with_token(token).ask(elsewhere()).await;
                let refused = kind(&answer).as_deref() == Some("role-missing");
                let may = operation
                    .roles
                    .as_ref()
                    .is_none_or(|roles| roles.contains(*role));
                assert_eq!(refused, !may, "{} as {role}: {answer}", operation.name);
                assert_ne!(answer.status, 401, "{} as {role}: {answer}", operation.name);
                assert_eq!(
                    answer.header("www-authenticate").is_some(),
                    !may,
                    "{} as {role}: {answer}",
                    operation.name
                );
            }
        }
    }
    assert!(restricted > 35, "{restricted} operations need a token");
    // No other way of writing a path goes round it.
    for path in [
        "/start",
        "/start/",
        "/%73tart/",
        "//start/",
        "/start//",
        "/START/",
        "/./start/",
    ] {
        let answer = shop.staff.without_token().ask(post(path)).await;
        assert!(matches!(answer.status, 401 | 404), "{path}: {answer}");
    }
    shop.serve_all().await;
    shop.close().await;
}

#[tokio::test]
async fn a_wrong_expired_revoked_malformed_or_repeated_token_is_refused_and_said_why() {
    let tokens = Tokens::create();
    let good = tokens.issue("barista");
    let revoked = tokens.issue_with(&["--role", "barista", "--name", "eve"]);
    let expiring = tokens.issue_with(&["--role", "barista", "--name", "bo", "--not-after", "1s"]);
    let shop = tokens.locked(&[]).await;
    let staff = shop.staff.without_token();
    let ask = |authorization: &str| {
        let ask = get("/start/?wait=0").header("Authorization", authorization);
        async move { staff.ask(ask).await }
    };
    ask(&format!("Bearer {good}")).await.expect(204);
    ask(&format!("bearer {good} ")).await.expect(204);
    let secret = &good[17..];
    for authorization in [
        format!("Bearer {}", good.replace(secret, &"A".repeat(43))),
        format!("Bearer ody_000000000000_{secret}"),
        format!("Bearer {}", &good[1..]),
        format!("Bearer {good}{good}"),
        format!("Bearer {}", "x".repeat(8000)),
        good.clone(),
        format!("Basic {good}"),
        "Bearer".to_owned(),
        String::new(),
    ] {
        let answer = ask(&authorization).await;
        answer.expect_problem(401, "credential-invalid");
        let challenge = "Bearer realm=\"odyssey\", error=\"invalid_token\"";
        let header = answer.header("www-authenticate");
        assert_eq!(header, Some(challenge), "{answer}");
    }
    let missing = staff.ask(get("/start/?wait=0")).await;
    missing.expect_problem(401, "credential-missing");
    assert_eq!(
        missing.header("www-authenticate"),
        Some("Bearer realm=\"odyssey\"")
    );
    let bearer = format!("Bearer {good}");
    let twice = get("/start/?wait=0").header("Authorization", &*bearer);
    let twice = staff.ask(twice.header("Authorization", &*bearer)).await;
    twice.expect_problem(400, "unreadable");
    found("the token expires", async || {
        let answer = ask(&format!("Bearer {expiring}")).await;
        (answer.status == 401).then(|| answer.expect_problem(401, "credential-expired"))
    })
    .await;
    let begun = Instant::now();
    assert!(tokens.run(&["revoke", "--name", "eve"]).status.success());
    found("the revoked token is refused", async || {
        let answer = ask(&format!("Bearer {revoked}")).await;
        (answer.status == 401).then(|| answer.expect_problem(401, "credential-invalid"))
    })
    .await;
    assert!(
        begun.elapsed().as_secs() < 10,
        "it took {:?}",
        begun.elapsed()
    );
    ask(&format!("Bearer {good}")).await.expect(204);
    let metrics = shop.metrics().await;
    let refused = |reason: &str| {
        let name = "odyssey_access_refused_total";
        metrics.count(&format!("{name}{{listener=\"staff\",reason=\"{reason}\"}}"))
    };
    assert_eq!(refused("missing"), 1);
    assert!(
        refused("malformed") >= 6 && refused("unknown") >= 3 && refused("expired") >= 1,
        "{metrics}"
    );
    assert_eq!(
        metrics.count("odyssey_access_required{listener=\"staff\"}"),
        1
    );
    shop.close().await;
}

#[tokio::test]
async fn many_refused_credentials_are_answered_429_and_a_valid_one_is_still_accepted() {
    let tokens = Tokens::create();
    let shop = tokens.locked(&[]).await;
    let mut connection = shop.staff.without_token().connect().await;
    let wrong = get("/start/?wait=0").header("Authorization", "Bearer wrong");
    let mut statuses = BTreeSet::new();
    for _ in 0..300 {
        statuses.insert(connection.ask(&wrong).await.status);
    }
    assert_eq!(statuses, BTreeSet::from([401, 429]));
    let answer = connection.ask(&wrong).await;
    if answer.status == 429 {
        answer.expect_problem(429, "too-many-refused");
        assert_eq!(answer.retry_after(), 1);
    }
    shop.staff.ask(get("/start/?wait=0")).await.expect(204);
    drop(connection);
    let log = shop.close().await;
    let lines = log
        .lines()
        .filter(|line| line.contains("a credential was refused"));
    assert!(lines.count() < 250, "each refusal has a line");
}

/// The answer to a token that is for another subject.
#[track_caller]
fn mismatch(answer: &Answer) {
    answer.expect_problem(403, "subject-mismatch");
}

#[tokio::test]
async fn a_drone_reports_and_reads_its_own_deliveries_only() {
    let tokens = Tokens::create();
    let drone = tokens.issue_with(&["--role", "drone", "--name", "n", "--subject", "drone-7"]);
    let shop = tokens.locked(&[]).await;
    for door in [
        shop.staff.with_token(&drone),
        shop.customers.with_token(&drone),
    ] {
        for (delivery, own) in [
            ("drone-7", true),
            ("drone-7.0042", true),
            ("drone-70", false),
            ("drone", false),
        ] {
            let answer = door.ask(event(delivery, "PARCEL_COLLECTED")).await;
            assert_eq!(
                kind(&answer).as_deref() == Some("subject-mismatch"),
                !own,
                "{delivery}: {answer}"
            );
        }
    }
    let staff = shop.staff.with_token(&drone);
    staff.ask(get("/deliveries/drone-7")).await.expect(200);
    mismatch(&staff.ask(get("/deliveries/drone-8")).await);
    mismatch(&staff.ask(get("/deliveries/drone-8/events")).await);
    mismatch(&staff.ask(get("/deliveries/drone-8/events/1")).await);
    shop.close().await;
}

#[tokio::test]
async fn an_identity_acts_for_its_subject_only() {
    let tokens = Tokens::create();
    let token =
        |role, subject| tokens.issue_with(&["--role", role, "--name", "n", "--subject", subject]);
    let driver = token("driver", "ada");
    let (sender, other) = (token("sender", "acme"), token("sender", "bolt"));
    let service = token("recipient-service", "zoe");
    let shop = tokens.locked(&[]).await;
    // Drivers.
    let update = |driver: &str| {
        let body = json!({"driver_id": driver, "package_id": "p", "status": "accepted"});
        post("/update").json(&body)
    };
    let door = shop.staff.with_token(&driver);
    mismatch(&door.ask(update("eve")).await);
    let own = door.ask(update("ada")).await;
    assert_ne!(own.status, 403, "{own}");
    // Senders: as themselves, with ids of their own.
    let package = |sender: &str| send(&with(&package("1"), "sender_id", sender));
    let (acme, bolt) = (
        shop.customers.with_token(&sender),
        shop.customers.with_token(&other),
    );
    mismatch(&acme.ask(package("bolt")).await);
    acme.ask(get("/packages/1"))
        .await
        .expect_problem(404, "package-unknown");
    acme.ask(package("acme")).await.expect(201);
    acme.ask(get("/packages/1")).await.expect(200);
    bolt.ask(get("/packages/1"))
        .await
        .expect_problem(404, "package-unknown");
    mismatch(&bolt.ask(get("/packages/1?sender=acme")).await);
    bolt.ask(package("bolt")).await.expect(201);
    let again = acme.ask(package("acme")).await;
    assert_eq!(again.status, 200, "{again}");
    shop.staff
        .ask(get("/packages/1"))
        .await
        .expect_problem(404, "package-unknown");
    shop.staff
        .ask(get("/packages/1?sender=bolt"))
        .await
        .expect(200);
    // Recipients' services.
    let preferences = |recipient: &str| {
        let now = jiff::Timestamp::now().to_string();
        put_preferences(&with(
            &preferences(now, true, false),
            "recipient_id",
            recipient,
        ))
    };
    let zoe = shop.customers.with_token(&service);
    mismatch(&zoe.ask(preferences("ada")).await);
    mismatch(&zoe.ask(get("/preferences/ada")).await);
    let set = zoe.ask(preferences("zoe")).await;
    assert_eq!(set.status, 200, "{set}");
    zoe.ask(get("/preferences/zoe")).await.expect(200);
    shop.close().await;
}

#[tokio::test]
async fn an_order_needs_no_token_and_an_idempotency_key_that_comes_with_one_is_its_holder_s() {
    let tokens = Tokens::create();
    let (ada, eve) = (
        tokens.issue_with(&["--role", "sender", "--name", "ada"]),
        tokens.issue_with(&["--role", "sender", "--name", "eve"]),
    );
    let barista = tokens.issue_with(&[
        "--role",
        "barista",
        "--name",
        "token of bo",
        "--subject",
        "bo",
    ]);
    let shop = tokens.locked(&[]).await;
    let key = "a-key-of-more-than-16-characters";
    let keyed = || order().prefer("respond-async").key(key);
    let mut ids = BTreeSet::new();
    for door in [
        shop.customers,
        shop.customers.with_token(&ada),
        shop.customers.with_token(&eve),
        shop.customers.with_token(&ada),
    ] {
        ids.insert(text(&door.ask(keyed()).await.expect(202)["order_id"]));
    }
    assert_eq!(ids.len(), 3);
    shop.customers
        .with_token("wrong")
        .ask(keyed())
        .await
        .expect_problem(401, "credential-invalid");
    // The barista's name is the token's subject, unless another is given.
    let staff = shop.staff.with_token(&barista);
    for (query, name) in [("", "bo"), ("?barista=Zo%C3%AB", "Zoë")] {
        let started = staff.ask(post(format!("/start/{query}"))).await.expect(200);
        let finish = format!("/finish/?order_id={}", text(&started["order_id"]));
        assert_eq!(staff.ask(post(finish)).await.expect(200)["barista"], name);
    }
    shop.signal(rustix::process::Signal::KILL);
}

#[tokio::test]
async fn a_server_beyond_this_machine_does_not_start_without_access_control() {
    let tokens = Tokens::create();
    tokens.issue("operator");
    let file = tokens.file().display().to_string();
    for (settings, said) in [
        (
            vec![("staff.listen", "0.0.0.0:0")],
            "configuration key `staff.auth`: `staff.listen` is beyond",
        ),
        (
            vec![("staff.listen", "[::]:0")],
            "configuration key `staff.auth`: `staff.listen` is beyond",
        ),
        (
            vec![("staff.auth", "tokens")],
            "configuration key `staff.auth`: it needs `access.tokens_file`",
        ),
        (
            vec![("customers.auth", "tokens")],
            "configuration key `customers.auth`: it needs `access.tokens_file`",
        ),
        (
            vec![
                ("staff.auth", "tokens"),
                ("access.tokens_file", "missing.toml"),
            ],
            "configuration key `access.tokens_file`: tokens file `missing.toml`",
        ),
        (
            vec![("staff.auth", "mtls")],
            "configuration key `staff.auth`: it needs `tls.client_ca_file`",
        ),
        (vec![("staff.auth", "basic")], "must be"),
        (vec![("tls.certificate_file", "a.pem")], "go together"),
        (
            vec![("tls.client_ca_file", "a.pem")],
            "client certificates need TLS",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut command = odyssey();
        command.arg("serve").current_dir(dir.path());
        command.env("ODYSSEY_CUSTOMERS__LISTEN", "127.0.0.1:0");
        command.env("ODYSSEY_STAFF__LISTEN", "127.0.0.1:0");
        for (key, value) in &settings {
            command.env(crate::shop::variable(key), value);
        }
        let output = command.output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{settings:?}: {log}");
        assert!(log.contains(said), "{settings:?}: {log}");
    }
    // Knowingly, or with tokens.
    let mut open = Shop::open(&[("staff.listen", "0.0.0.0:0"), ("staff.auth", "none")]).await;
    open.staff = local(open.staff);
    assert!(open.log().contains("may act as staff"), "{}", open.log());
    open.staff.ask(get("/start/?wait=0")).await.expect(204);
    open.close().await;
    let settings = [
        ("staff.listen", "0.0.0.0:0"),
        ("staff.auth", "tokens"),
        ("access.tokens_file", &*file),
    ];
    let locked = Shop::open(&settings).await;
    local(locked.staff)
        .ask(get("/start/?wait=0"))
        .await
        .expect_problem(401, "credential-missing");
    local(locked.staff).ask(get("/healthz")).await.expect(200);
    drop(locked);
}

/// The address at 127.0.0.1 of a listener on all addresses.
fn local(door: Door) -> Door {
    Door {
        address: ([127, 0, 0, 1], door.address.port()).into(),
        ..door
    }
}

#[tokio::test]
async fn tokens_are_replaced_while_200_customers_are_held_and_all_are_served() {
    let tokens = Tokens::create();
    let first = tokens.issue("barista");
    let shop = tokens.locked(&[]).await;
    let customers: Vec<_> = (0..200).map(|_| shop.customers.hold(order())).collect();
    shop.until("200 are held", |now| now.held() == 200).await;
    let mut token = first;
    let mut served = 0;
    while served < 200 {
        let door = shop.staff.with_token(&token);
        for _ in 0..50 {
            let started = door.ask(post("/start/?wait=0")).await.expect(200);
            let finish = format!("/finish/?order_id={}", text(&started["order_id"]));
            door.ask(post(finish)).await.expect(200);
            served += 1;
        }
        // A second token of the same name, and the first is revoked by its id.
        let next = tokens.issue("barista");
        let id = token[4..16].to_owned();
        assert!(tokens.run(&["revoke", "--id", &id]).status.success());
        found("the new token is valid, the old one is not", async || {
            let new = shop
                .staff
                .with_token(&next)
                .ask(get("/orders/0191d5c8-7a9b-7000-8000-000000000000"))
                .await;
            let old = door
                .ask(get("/orders/0191d5c8-7a9b-7000-8000-000000000000"))
                .await;
            (new.status == 404 && old.status == 401).then_some(())
        })
        .await;
        token = next;
    }
    for customer in customers {
        customer.answer().await.expect(200);
    }
    shop.close().await;
}

#[tokio::test]
async fn a_barista_whose_token_is_revoked_while_no_order_waits_gets_none() {
    let (tokens, token, shop) = shop_of_bo().await;
    let bo = shop.staff.with_token(&token);
    let waits = bo.hold(post("/start/?wait=55"));
    // The report counts; the order after it is not bo's.
    let first = shop.customers.hold(order());
    let started = waits.answer().await.expect(200);
    let finish = format!("/finish/?next=55&order_id={}", text(&started["order_id"]));
    let (waits, finishes) = (bo.hold(post("/start/?wait=55")), bo.hold(post(finish)));
    first.answer().await.expect(200);
    shop.until("bo waits twice", |now| now.idle_baristas() == 2)
        .await;
    assert!(tokens.run(&["revoke", "--name", "bo"]).status.success());
    waits
        .answer()
        .await
        .expect_problem(401, "credential-invalid");
    assert_eq!(finishes.answer().await.expect(200)["next"], Value::Null);
    let second = shop.customers.hold(order());
    let started = shop.start().await;
    shop.finish(&started.id).await;
    second.answer().await.expect(200);
    shop.close().await;
}

#[tokio::test]
async fn a_broken_tokens_file_leaves_the_old_tokens_in_force_and_is_reported_until_it_is_mended() {
    let tokens = Tokens::create();
    let shop = tokens.locked(&[]).await;
    let good = std::fs::read_to_string(tokens.file()).unwrap();
    std::fs::write(tokens.file(), format!("{good}\n[[token]]\nid = 7\n")).unwrap();
    let reason = found("it is reported", async || {
        let answer = shop.staff.ask(get("/readyz/access")).await;
        (answer.status == 503).then(|| answer.to_string())
    });
    let reason = reason.await;
    assert!(
        reason.contains("tokens.toml") && reason.contains("line "),
        "{reason}"
    );
    // The shop itself is ready, and open to those who were admitted before.
    shop.staff.ask(get("/readyz")).await.expect(200);
    shop.staff.ask(get("/start/?wait=0")).await.expect(204);
    std::fs::write(tokens.file(), &good).unwrap();
    found("it is mended", async || {
        let answer = shop.staff.ask(get("/readyz/access")).await;
        (answer.status == 200).then_some(())
    })
    .await;
    let digest = good.split("sha256 = \"").nth(1).unwrap()[..64].to_owned();
    let log = shop.log();
    assert!(
        log.contains("the old ones stay in force") && !log.contains(&digest),
        "{log}"
    );
    assert_no_secret(&log);
    shop.signal(rustix::process::Signal::TERM);
}

#[tokio::test]
async fn no_command_prints_a_secret_except_the_one_that_creates_it() {
    let tokens = Tokens::create();
    let token = tokens.issue_with(&["--role", "barista", "--role", "drone", "--name", "bo"]);
    let shop = tokens.locked(&[]).await;
    let file = tokens.dir.path().join("bo.token");
    std::fs::write(&file, format!("{token}\n")).unwrap();
    let url = format!("http://{}", shop.staff.address);
    let run = |arguments: &[&str], token: Option<&str>| {
        let mut command = odyssey();
        command
            .args(arguments)
            .envs(token.map(|token| ("ODYSSEY_TOKEN", token)));
        command.output().unwrap()
    };
    let by_file = [
        "start",
        "--url",
        &url,
        "--token-file",
        file.to_str().unwrap(),
    ];
    for (arguments, token, code, said) in [
        (&by_file[..], None, 0, "No order is waiting."),
        (
            &["start", "--url", &url],
            Some(&*token),
            0,
            "No order is waiting.",
        ),
        (
            &["start", "--url", &url],
            None,
            1,
            "A token is needed (401)",
        ),
        (
            &["start", "--url", &url],
            Some("wrong"),
            1,
            "The token is not valid (401)",
        ),
        (
            &["line", "--url", &url],
            Some(&*token),
            1,
            "do not allow this (403)",
        ),
        (
            &["start", "--url", &url, "--token-file", "/missing"],
            None,
            1,
            "cannot read /missing",
        ),
    ] {
        let output = run(arguments, token);
        let printed = format!("{output:?}");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {printed}");
        assert!(printed.contains(said), "{arguments:?}: {printed}");
        assert_no_secret(&printed);
    }
    shop.close().await;
}

#[test]
fn tokens_are_listed_without_their_secrets_and_wrong_usage_changes_nothing() {
    let tokens = Tokens::create();
    let token = tokens.issue_with(&["--role", "barista", "--role", "drone", "--name", "bo"]);
    let listed = tokens.run(&["list"]);
    let table = String::from_utf8(listed.stdout).unwrap();
    assert!(
        table.contains("barista drone") && table.contains("valid"),
        "{table}"
    );
    let stored = std::fs::read_to_string(tokens.file()).unwrap();
    let json = tokens.run(&["list", "--output", "json"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["tokens"][0]["name"], "bo");
    for text in [&table, &stored, &json.to_string()] {
        assert_no_secret(text);
        assert!(!text.contains(&token[17..]), "{text}");
    }
    let none = tokens.run(&["revoke", "--name", "unknown"]);
    assert_eq!(none.status.code(), Some(1), "{none:?}");
    for wrong in [
        &["new", "--role", "chef", "--name", "bo"][..],
        &["new", "--name", "bo"],
        &["new", "--role", "barista", "--name", "b\no"],
        &[
            "new",
            "--role",
            "barista",
            "--name",
            "bo",
            "--not-after",
            "2001-01-01T00:00:00Z",
        ],
        &[
            "new",
            "--role",
            "barista",
            "--name",
            "bo",
            "--not-after",
            "soon",
        ],
        &["revoke"],
    ] {
        assert!(!tokens.run(wrong).status.success(), "{wrong:?}");
    }
    assert_eq!(std::fs::read_to_string(tokens.file()).unwrap(), stored);
}
