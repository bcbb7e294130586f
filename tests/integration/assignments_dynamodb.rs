//! Days that several servers share, in tables of an emulator; and the operational log in a bucket of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;
use rustix::process::Signal;
use serde_json::Value;
use testkit::aws::{emulator, endpoint};
use testkit::proxy::{Proxy, Way};
use testkit::until;
use tokio::sync::Barrier;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::assignments::{
    DAY, STATUSES, any_drivers, any_packages, assign, expect_plan, holders, line, listed, lists,
    most, names, pointers, put_manifest, real_day, timeless, unpacked, update, wanted,
};
use crate::client::{Answer, Ask, Door, get};
use crate::emulator::{odyssey_at, sdk};
use crate::packages::with;
use crate::shop::{Shop, text, variable};

/// How long a request may go on being refused because others are at the same day, or because the engine was away.
const PERSISTENCE: Duration = Duration::from_secs(60);
/// How long a request may take whose every call goes unanswered.
const SILENCE: Duration = Duration::from_secs(60);

// --- The emulator --------------------------------------------------------------------------------------------------

/// What a server shares with others: tables, a bucket, and the way to them.
#[derive(Debug, Clone)]
struct Shared {
    endpoint: String,
    table: String,
    packages_table: String,
    bucket: String,
}

impl Shared {
    /// Names of this test's own, at the emulator itself.
    fn new() -> Self {
        let own = Uuid::new_v4();
        Self {
            endpoint: endpoint(),
            table: format!("assignments-{own}"),
            packages_table: format!("packages-{own}"),
            bucket: format!("log-{own}"),
        }
    }

    fn through(self, proxy: &Proxy) -> Self {
        Self {
            endpoint: proxy.endpoint(),
            ..self
        }
    }

    /// A server that keeps its days in the tables.
    async fn open(&self, settings: &[(&str, &str)]) -> Shop {
        let ours = [
            ("assignments.store", "dynamodb"),
            ("assignments.table", &self.table),
            ("assignments.packages_table", &self.packages_table),
            ("aws.provision", "true"),
        ];
        self.run(&[&ours, settings].concat()).await
    }

    /// A server that keeps its log in the bucket.
    async fn open_logging(&self, data: &Path) -> Shop {
        self.run(&[
            ("data_dir", data.to_str().unwrap()),
            ("oplog.sink", "s3"),
            ("oplog.bucket", &self.bucket),
            ("oplog.instance", "one of many"),
            ("oplog.batch_age", "100ms"),
            ("aws.provision", "true"),
        ])
        .await
    }

    async fn run(&self, settings: &[(&str, &str)]) -> Shop {
        Shop::run(odyssey_at(&self.endpoint), settings).await
    }

    fn dynamodb() -> aws_sdk_dynamodb::Client {
        aws_sdk_dynamodb::Client::new(&sdk(&endpoint()))
    }

    fn s3() -> aws_sdk_s3::Client {
        let config = aws_sdk_s3::config::Builder::from(&sdk(&endpoint()));
        aws_sdk_s3::Client::from_conf(config.force_path_style(true).build())
    }

    /// The bucket's objects by their keys.
    async fn objects(&self) -> BTreeMap<String, Vec<Value>> {
        let client = Self::s3();
        let list = client.list_objects_v2().bucket(&self.bucket).send();
        let list = Box::pin(list).await.unwrap();
        assert_ne!(list.is_truncated(), Some(true));
        let mut objects = BTreeMap::new();
        for object in list.contents() {
            let key = object.key().unwrap();
            let got = client.get_object().bucket(&self.bucket).key(key).send();
            let body = Box::pin(got).await.unwrap().body.collect().await.unwrap();
            objects.insert(key.to_owned(), unpacked(&body.into_bytes()));
        }
        objects
    }
}

/// Asks again as long as the answer is to retry later.
async fn persistently(door: Door, ask: Ask) -> Answer {
    let deadline = Instant::now() + PERSISTENCE;
    loop {
        let answer = patiently(door, ask.clone()).await;
        if answer.status != 503 {
            return answer;
        }
        expect_unavailable(&answer);
        assert!(Instant::now() < deadline, "still so: {answer}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// One request, which may take as long as silence does.
async fn patiently(door: Door, ask: Ask) -> Answer {
    let asked = async { door.connect().await.ask(&ask).await };
    timeout(SILENCE, Box::pin(asked)).await.unwrap()
}

#[track_caller]
fn expect_unavailable(answer: &Answer) {
    let kind = text(&answer.json()["type"]);
    assert!(
        ["storage-busy", "storage-down"]
            .iter()
            .any(|known| kind.ends_with(known)),
        "{answer}"
    );
    answer.expect_problem(503, kind.rsplit(':').next().unwrap());
    assert!(answer.retry_after() >= 1, "{answer}");
}

/// Ends a server whose log rightly speaks of errors.
async fn close_after_an_outage(mut shop: Shop) {
    shop.signal(Signal::TERM);
    let status = shop.ended().await;
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(!shop.log().contains("panicked"));
}

// --- One server ----------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_day_is_kept_in_tables_from_its_lists_to_its_last_update() {
    let shared = Shared::new();
    let shop = shared.open(&[("assignments.strict", "true")]).await;
    let day = with(&real_day(), "date", DAY);
    let path = format!("/manifest?date={DAY}");
    let all = with(&wanted(&names(&day, "drivers"), 4), "date", DAY);
    let missing = shop.staff.ask(assign(&all)).await;
    missing.expect_problem(409, "manifest-missing");
    shop.staff.ask(put_manifest(&day)).await.expect(200);
    let shown = shop.staff.ask(get(path.as_str())).await;
    assert_eq!(
        names(&shown.expect(200), "packages"),
        names(&day, "packages")
    );
    let answer = shop.staff.ask(assign(&all)).await;
    let plan = expect_plan(&day, &all, &answer);
    let carried: usize = plan.values().map(Vec::len).sum();
    assert_eq!(carried, most(&day, 4, &BTreeMap::new()));
    let (name, has) = plan.iter().find(|(_, has)| has.len() > 3).unwrap();
    for (id, status) in has.iter().zip(STATUSES) {
        let item = shop.staff.ask(update(name, id, status)).await.expect(200);
        assert_eq!(item["status"], status);
    }
    let final_one = shop.staff.ask(update(name, &has[3], "accepted")).await;
    assert_eq!(
        final_one.expect_problem(409, "status-final")["current_status"],
        "delivered"
    );
    let unknown = shop
        .staff
        .ask(update("driver_0", &has[0], "accepted"))
        .await;
    unknown.expect_problem(404, "assignment-unknown");
    expect_item(&shared, name, &has[2]).await;
    let found = listed(&shop, "limit=7").await;
    assert_eq!(holders(&found).len(), carried);
    let of_one = listed(&shop, &format!("driver_id={name}&limit=1")).await;
    assert_eq!(of_one.len(), has.len());
    let of_package = listed(&shop, &format!("package_id={}", has[1])).await;
    assert_eq!(of_package[0]["status"], "accepted");
    assert_eq!(listed(&shop, "status=delivered").await.len(), 1);
    shop.close().await;
    // The next one finds the tables as they are, and everything in them.
    let shop = shared.open(&[]).await;
    let again = shop.staff.ask(get(path)).await;
    assert_eq!(
        (again.header("etag"), again.body.clone()),
        (shown.header("etag"), shown.body.clone())
    );
    let again = shop.staff.ask(assign(&all)).await;
    assert_eq!(expect_plan(&day, &all, &again), plan);
    let reset = with(&with(&all, "reset", true), "max_per_driver", 0);
    let response = shop.staff.ask(assign(&reset)).await.expect(200);
    let stored: BTreeSet<_> = has[1..].iter().cloned().collect();
    let left: BTreeSet<String> =
        serde_json::from_value(response["assignments"][name].clone()).unwrap();
    assert_eq!(left, stored);
    assert_eq!(holders(&listed(&shop, "").await).len(), 3);
    shop.close().await;
}

/// The item is as the contract has it.
async fn expect_item(shared: &Shared, driver: &str, package: &str) {
    let key = |text: &str| AttributeValue::S(text.to_owned());
    let got = Shared::dynamodb().get_item().table_name(&shared.table);
    let got = got
        .key("driver_id", key(driver))
        .key("package_id", key(package));
    let item = Box::pin(got.send()).await.unwrap().item.unwrap();
    assert_eq!(item["status"].as_s().unwrap(), "in_progress");
    assert!(
        item.len() > 6,
        "with what is known of the package: {item:?}"
    );
}

// --- Several servers -----------------------------------------------------------------------------------------------

#[tokio::test]
async fn two_servers_that_plan_the_same_day_at_once_never_give_a_package_twice() {
    let shared = Shared::new();
    let first = shared.open(&[]).await;
    let second = shared.open(&[]).await;
    let mut day = real_day();
    for driver in day["drivers"].as_array_mut().unwrap() {
        driver["rules"].as_array_mut().unwrap().truncate(1);
    }
    first.staff.ask(put_manifest(&day)).await.expect(200);
    let drivers = names(&day, "drivers");
    let doors = [first.staff, second.staff];
    let start = Arc::new(Barrier::new(8));
    let planning: Vec<_> = (0..8)
        .map(|number| {
            let some: Vec<_> = (0..5)
                .map(|next| &drivers[(number * 3 + next) % 10])
                .collect();
            let (door, start) = (doors[number % 2], Arc::clone(&start));
            let most = 2 + u32::try_from(number % 3).unwrap();
            let some = wanted(&some, most);
            tokio::spawn(async move {
                start.wait().await;
                let answer = persistently(door, assign(&some)).await;
                (some, answer)
            })
        })
        .collect();
    for planned in planning {
        let (some, answer) = timeout(PERSISTENCE + SILENCE, planned)
            .await
            .unwrap()
            .unwrap();
        // Others may have asked for up to 4.
        expect_plan(&day, &with(&some, "max_per_driver", 4), &answer);
    }
    let held = holders(&listed(&second, "").await);
    for name in &drivers {
        let has = held.values().filter(|holder| *holder == name).count();
        assert!(has <= 4, "{name} has {has}");
    }
    // Together they complete the day, and then agree.
    let all = wanted(&drivers, 6);
    let asked = doors.map(|door| tokio::spawn(persistently(door, assign(&all))));
    let mut plans = Vec::new();
    for asked in asked {
        let answer = timeout(PERSISTENCE + SILENCE, asked)
            .await
            .unwrap()
            .unwrap();
        plans.push(expect_plan(&day, &all, &answer));
    }
    assert_eq!(plans[0], plans[1]);
    let complete = holders(&listed(&first, "").await);
    assert_eq!(complete.len(), most(&day, 6, &held));
    assert_eq!(complete, holders(&listed(&second, "").await));
    let (package, driver) = complete.first_key_value().unwrap();
    let item = second
        .staff
        .expect(update(driver, package, "accepted"), 200)
        .await;
    let seen = listed(&first, &format!("package_id={package}")).await;
    assert_eq!(seen, [item]);
    first.close().await;
    second.close().await;
}

#[tokio::test]
async fn a_manifest_that_one_server_replaces_is_the_other_ones_too() {
    let shared = Shared::new();
    let first = shared.open(&[]).await;
    let second = shared.open(&[]).await;
    for count in [1, 3, 2] {
        let day = lists(&any_drivers(count), &any_packages(6));
        first.staff.ask(put_manifest(&day)).await.expect(200);
        let shown = second.staff.ask(get("/manifest")).await.expect(200);
        assert_eq!(names(&shown, "drivers").len(), count);
        let all = with(&wanted(&names(&day, "drivers"), 1), "dry_run", true);
        let answer = second.staff.ask(assign(&all)).await;
        expect_plan(&day, &all, &answer);
    }
    let gone = second.staff.ask(assign(&wanted(&["d-02"], 1))).await;
    assert_eq!(pointers(&gone), ["/driver_ids/0"]);
    first.close().await;
    second.close().await;
}

// --- Outages -------------------------------------------------------------------------------------------------------

async fn ready(shop: &Shop, status: u16) {
    until("readiness changes", async || {
        shop.staff.ask(get("/readyz/assignments")).await.status == status
    })
    .await;
}

/// Half of a day was given when the engine goes away.
#[tokio::test]
async fn while_the_tables_refuse_it_is_said_and_the_same_request_completes_afterwards() {
    let proxy = Proxy::before_emulator(emulator()).await;
    let shared = Shared::new().through(&proxy);
    let shop = shared.open(&[]).await;
    let day = real_day();
    shop.staff.ask(put_manifest(&day)).await.expect(200);
    let drivers = names(&day, "drivers");
    let half = wanted(&drivers, 2);
    let answer = shop.staff.ask(assign(&half)).await;
    let before = expect_plan(&day, &half, &answer);
    let held = holders(&listed(&shop, "").await);
    let (package, driver) = held.first_key_value().unwrap();
    proxy.is_now(Way::Refused);
    let all = wanted(&drivers, 5);
    // All at once: each waits for its own silence.
    let asked = [
        assign(&all),
        update(driver, package, "accepted"),
        get("/assignments"),
        put_manifest(&day),
    ];
    let asked = asked.map(|ask| tokio::spawn(patiently(shop.staff, ask)));
    for asked in asked {
        expect_unavailable(&asked.await.unwrap());
    }
    ready(&shop, 503).await;
    // Other desks do not mind.
    shop.promised().await;
    proxy.is_now(Way::Open);
    ready(&shop, 200).await;
    let item = persistently(shop.staff, update(driver, package, "accepted")).await;
    assert_eq!(item.expect(200)["status"], "accepted");
    let answer = persistently(shop.staff, assign(&all)).await;
    let after = expect_plan(&day, &all, &answer);
    for (name, packages) in &before {
        assert!(packages.iter().all(|id| after[name].contains(id)), "{name}");
    }
    let complete = holders(&listed(&shop, "").await);
    assert_eq!(complete.len(), after.values().map(Vec::len).sum::<usize>());
    assert_eq!(complete.len(), most(&day, 5, &held));
    shop.serve_all().await;
    close_after_an_outage(shop).await;
}

// --- The operational log -------------------------------------------------------------------------------------------

const STORED: &str = "odyssey_oplog_uploads_total{result=\"stored\"}";
const FAILED: &str = "odyssey_oplog_uploads_total{result=\"failed\"}";

/// Says something of the package, and what will be in the log of it.
async fn message(shop: &Shop, request: &str, from: &str, to: &str) -> String {
    let ask = update("d-00", "p-000", to).header("X-Request-Id", request);
    shop.staff.ask(ask).await.expect(200);
    line(request, "update", ["d-00", "p-000"], [Some(from), Some(to)])
}

#[tokio::test]
async fn the_operational_log_is_in_the_bucket_with_every_line_after_an_outage() {
    let proxy = Proxy::before_emulator(emulator()).await;
    let shared = Shared::new().through(&proxy);
    let data = tempfile::tempdir().unwrap();
    let shop = shared.open_logging(data.path()).await;
    let day = with(&lists(&any_drivers(1), &any_packages(3)), "date", DAY);
    shop.staff.ask(put_manifest(&day)).await.expect(200);
    let all = with(&wanted(&["d-00"], 3), "date", DAY);
    let ask = assign(&all).header("X-Request-Id", "the-plan");
    shop.staff.ask(ask).await.expect(200);
    let mut expected: Vec<String> = names(&day, "packages")
        .iter()
        .map(|id| line("the-plan", "assign", ["d-00", id], [None, Some("assigned")]))
        .collect();
    let now = shop
        .until("the plan is in the bucket", |now| now.count(STORED) > 0)
        .await;
    let stored = now.count(STORED);
    assert_eq!(shared.objects().await.values().flatten().count(), 3);
    // The bucket is unreachable, in both ways; the desk's answers do not change.
    for way in [Way::Refused, Way::AnswersLost] {
        let failed = shop.metrics().await.count(FAILED);
        proxy.is_now(way);
        let lost = format!("while-{way:?}");
        expected.push(message(&shop, &lost, "assigned", "assigned").await);
        if way == Way::Refused {
            shop.until("it is noticed", |now| now.count(FAILED) > failed)
                .await;
        }
        proxy.is_now(Way::Refused);
        shop.until("it is noticed", |now| now.count(FAILED) > failed)
            .await;
        proxy.is_now(Way::Open);
        shop.until("it is made up for", |now| {
            now.count(STORED) > stored && now.count("odyssey_oplog_spooled_bytes") == 0
        })
        .await;
    }
    // Away for so long that the server goes first.
    proxy.is_now(Way::Refused);
    expected.push(message(&shop, "the-last-word", "assigned", "delivered").await);
    shop.close().await;
    proxy.is_now(Way::Open);
    let shop = shared.open_logging(data.path()).await;
    shop.until("what was left is in the bucket", |now| {
        now.count(STORED) > 0
    })
    .await;
    expected.push(message(&shop, "after-all", "delivered", "accepted").await);
    shop.close().await;
    expect_objects(&shared.objects().await, expected);
}

/// By a name of which no other is known, as `bucket.localhost` would be: by a variable, and by a profile.
#[tokio::test]
async fn a_bucket_at_an_address_of_its_own_is_asked_for_without_a_name_of_its_own() {
    let address = format!("http://localhost:{}", emulator().port());
    let profile = tempfile::NamedTempFile::new().unwrap();
    let lines =
        format!("[default]\nservices = here\n[services here]\ns3 =\n  endpoint_url = {address}\n");
    std::fs::write(profile.path(), lines).unwrap();
    let profile = profile.path().to_str().unwrap();
    for (name, value) in [
        ("AWS_ENDPOINT_URL_S3", address.as_str()),
        ("AWS_CONFIG_FILE", profile),
    ] {
        let shared = Shared::new();
        let data = tempfile::tempdir().unwrap();
        let mut command = odyssey_at(&shared.endpoint);
        command.env_remove("AWS_ENDPOINT_URL").env(name, value);
        let shop = Shop::run(
            command,
            &[
                ("data_dir", data.path().to_str().unwrap()),
                ("oplog.sink", "s3"),
                ("oplog.bucket", &shared.bucket),
                ("oplog.batch_age", "100ms"),
                ("oplog.sse", "aws:kms"),
                ("oplog.kms_key", "alias/odyssey"),
                ("aws.provision", "true"),
            ],
        )
        .await;
        let day = lists(&any_drivers(1), &any_packages(1));
        shop.staff.ask(put_manifest(&day)).await.expect(200);
        shop.staff.expect(assign(&wanted(&["d-00"], 1)), 200).await;
        shop.until("it is in the bucket", |now| now.count(STORED) > 0)
            .await;
        let objects = shared.objects().await;
        assert_eq!(objects.len(), 1, "{name}");
        let key = objects.keys().next().unwrap();
        let head = Shared::s3().head_object().bucket(&shared.bucket).key(key);
        let head = Box::pin(head.send()).await.unwrap();
        assert_eq!(head.ssekms_key_id(), Some("alias/odyssey"));
        shop.close().await;
    }
}

/// Without a session, the error is about signing in, not about a build that does not support such profiles.
#[tokio::test]
async fn a_profile_of_single_sign_on_is_understood() {
    let home = tempfile::tempdir().unwrap();
    let profile = home.path().join("config");
    let lines = "[default]\nsso_session = ours\nsso_account_id = 123450000001\nsso_role_name = odyssey\n\
                 [sso-session ours]\nsso_region = eu-west-2\nsso_start_url = https://ours.awsapps.com/start\n";
    std::fs::write(&profile, lines).unwrap();
    let mut command = odyssey_at(&endpoint());
    command
        .args(["couriers", "redrive"])
        .env("HOME", home.path());
    command.env("AWS_CONFIG_FILE", &profile);
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        command.env_remove(name);
    }
    let run = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = timeout(SILENCE, run).await.unwrap().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        message.contains("SSO") && !message.contains("cargo feature"),
        "{message}"
    );
}

/// These lines are in the objects, each once, and each object is where the hour of its lines says.
#[track_caller]
fn expect_objects(objects: &BTreeMap<String, Vec<Value>>, mut expected: Vec<String>) {
    let mut found = Vec::new();
    for (key, lines) in objects {
        let parts: Vec<_> = key.split('/').collect();
        let &["logs", day, hour, file] = &parts[..] else {
            panic!("{key}")
        };
        let id = file.strip_suffix(".ndjson.gz").unwrap();
        let (instance, id) = id.split_at(id.len() - 36);
        assert!(
            instance.starts_with("one") && instance.ends_with('-'),
            "{key}"
        );
        id.parse::<Uuid>().unwrap();
        for line in lines {
            let at: Timestamp = text(&line["at"]).parse().unwrap();
            assert_eq!(
                at.strftime("dt=%Y-%m-%d/hr=%H").to_string(),
                format!("{day}/{hour}")
            );
            found.push(timeless(line));
        }
    }
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

/// What the program says that must not start: its last line.
async fn refused(settings: [(&str, &str); 2]) -> String {
    let dir = tempfile::tempdir().unwrap();
    // Nothing listens on port 1.
    let mut command = odyssey_at("http://127.0.0.1:1");
    command.arg("serve").env_remove("RUST_BACKTRACE");
    let ours = [
        ("aws.provision", "true"),
        ("data_dir", dir.path().to_str().unwrap()),
        ("customers.listen", "127.0.0.1:0"),
        ("staff.listen", "127.0.0.1:0"),
    ];
    for (key, value) in ours.into_iter().chain(settings) {
        command.env(variable(key), value);
    }
    let run = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = timeout(SILENCE, run).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(!message.contains("panicked"), "{message}");
    message.lines().last().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_server_that_cannot_create_what_it_is_to_create_does_not_start() {
    let (tables, bucket) = tokio::join!(
        refused([("assignments.store", "dynamodb"), ("oplog.sink", "files")]),
        refused([("oplog.sink", "s3"), ("oplog.bucket", "log")]),
    );
    for (sentence, words) in [
        (tables, "cannot create the tables"),
        (bucket, "cannot create the bucket"),
    ] {
        let starts = sentence.starts_with("odyssey: ");
        assert!(starts && sentence.contains(words), "{sentence}");
    }
}
