//! The day's lists: what is refused and where, how they are shown, and how large and how slow they may be.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::assignments::{
    DAY, any_drivers, any_packages, assign, data_file, driver, expect_plan, lists, names, pointers,
    prepared, put_manifest, real_day, wanted,
};
use crate::client::{Answer, Ask, Door, get, put, within};
use crate::durability::open;
use crate::packages::with;
use crate::shop::{Shop, odyssey, text, variable};

/// The largest manifest unless something else is configured.
const LARGEST: usize = 32 << 20;
/// How long a manifest of that size may take here, without optimization, beside other tests.
const LONG: Duration = Duration::from_secs(150);
/// By how much of its size the largest manifest may make the server grow while it is read, prepared for planning, and
/// compressed.
const GROWTH_MAX: usize = 4;

fn three_and_three() -> Value {
    let rules = [
        ("MAX_WEIGHT", json!({"limit_kg": 5})),
        ("NO_PERISHABLE", json!({})),
    ];
    let mut drivers = any_drivers(2);
    drivers.push(driver("with rules", &rules));
    lists(&drivers, &any_packages(3))
}

async fn expect_no_manifest(shop: &Shop, query: &str) {
    let answer = shop.staff.ask(get(format!("/manifest{query}"))).await;
    answer.expect_problem(404, "manifest-unknown");
}

#[tokio::test]
async fn all_mistakes_are_told_at_once_up_to_a_hundred() {
    let shop = Shop::open(&[]).await;
    let packages = any_packages(500).into_iter();
    let heavy = packages.map(|package| with(&package, "weight_kg", "heavy"));
    let wrong = lists(&any_drivers(1), &heavy.collect::<Vec<_>>());
    let answer = shop.staff.ask(put_manifest(&wrong)).await;
    let expected = (0..100).map(|place| format!("/packages/{place}/weight_kg"));
    assert_eq!(pointers(&answer), expected.collect::<Vec<_>>());
    let mut mixed = three_and_three();
    mixed["drivers"][2]["rules"][0]["code"] = json!("FAST_ONLY");
    mixed["packages"][1]["region"] = json!("up");
    let answer = shop.staff.ask(put_manifest(&mixed)).await;
    let expected = ["/drivers/2/rules/0/code", "/packages/1/region"];
    assert_eq!(pointers(&answer), expected);
    // Both say what there is.
    for (place, known) in [(0, "EXPRESS_ONLY"), (1, "south")] {
        let detail = text(&answer.json()["errors"][place]["detail"]);
        assert!(detail.contains(known), "{answer}");
    }
    expect_no_manifest(&shop, "").await;
    shop.close().await;
}

#[tokio::test]
async fn a_manifest_is_shown_as_it_was_kept_until_it_is_replaced() {
    let shop = Shop::open(&[]).await;
    expect_no_manifest(&shop, "").await;
    let day = with(&real_day(), "date", DAY);
    let stored = shop.staff.ask(put_manifest(&day)).await;
    assert_eq!(
        stored.expect(200),
        json!({"date": DAY, "drivers": 10, "packages": 60})
    );
    expect_no_manifest(&shop, "").await;
    expect_no_manifest(&shop, "?date=2142-05-02").await;
    let path = format!("/manifest?date={DAY}");
    let shown = shop.staff.ask(get(path.as_str())).await;
    let reported = shown.expect(200);
    assert_eq!(reported["date"], DAY);
    for list in ["drivers", "packages"] {
        assert_eq!(names(&reported, list), names(&day, list));
    }
    let package = &reported["packages"][7];
    for (field, value) in day["packages"][7].as_object().unwrap() {
        let same = value.as_f64().is_some() && value.as_f64() == package[field].as_f64();
        assert!(same || package[field] == *value, "{field}: {package}");
    }
    // What is shown can be sent.
    shop.staff.ask(put_manifest(&reported)).await.expect(200);
    let tag = shown.header("etag").unwrap().to_owned();
    let known = |tag: &str| get(path.as_str()).header("If-None-Match", tag);
    let answer = shop.staff.ask(known(&tag)).await;
    assert_eq!((answer.status, answer.body.len()), (304, 0), "{answer}");
    // Read on behalf of plans too, whose lists are then others.
    let wanted = with(&wanted(&["driver_1"], 1), "date", DAY);
    shop.staff.ask(assign(&wanted)).await.expect(200);
    let other = with(&lists(&any_drivers(2), &any_packages(1)), "date", DAY);
    shop.staff.ask(put_manifest(&other)).await.expect(200);
    let answer = shop.staff.ask(known(&tag)).await;
    assert_eq!(names(&answer.expect(200), "drivers"), ["d-00", "d-01"]);
    assert_eq!(
        pointers(&shop.staff.ask(assign(&wanted)).await),
        ["/driver_ids/0"]
    );
    let answer = shop.staff.ask(get("/manifest?date=tomorrow")).await;
    let problem = answer.expect_problem(422, "invalid");
    assert_eq!(problem["errors"][0]["parameter"], "date");
    shop.close().await;
}

// --- Large ones ----------------------------------------------------------------------------------------------------

/// A manifest of exactly so many bytes, with a thousand drivers.
fn of_bytes(bytes: usize) -> (Bytes, usize) {
    let drivers = (0..1000).map(|number| {
        let limit = json!({"limit_kg": 10 + number % 7});
        let region = ["north", "east", "south", "west"][number % 4];
        let regions = json!({"allowed_regions": [region]});
        driver(
            &format!("driver_{number}"),
            &[("MAX_WEIGHT", limit), ("REGION_ONLY", regions)],
        )
    });
    let drivers = json!(drivers.collect::<Vec<_>>()).to_string();
    let mut text = format!("{{\"date\":\"{DAY}\",\"drivers\":{drivers},\"packages\":[");
    let mut count = 0;
    while text.len() + 500 < bytes {
        let comma = if count == 0 { "" } else { "," };
        let region = ["north", "east", "south", "west"][count % 4];
        write!(
            text,
            "{comma}{{\"package_id\":\"00000000-0000-4000-8000-{count:012}\",\"weight_kg\":{}.{:02},\
             \"is_perishable\":false,\"region\":\"{region}\",\"distance_km\":{}.5,\"is_express\":false,\
             \"is_fragile\":true,\"hazmat_class\":null,\"temperature_c\":18.25,\"delivery_hour\":{},\
             \"volume_m3\":0.75}}",
            1 + count % 20,
            count % 100,
            count % 90,
            count % 24,
        )
        .unwrap();
        count += 1;
    }
    text.push_str("]}");
    let missing = bytes - text.len();
    text.push_str(&" ".repeat(missing));
    (text.into(), count)
}

/// The most memory that the server has ever had, in bytes.
fn peak(shop: &Shop) -> usize {
    let status = format!("/proc/{}/status", shop.pid().as_raw_nonzero());
    let status = fs::read_to_string(status).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.unwrap().trim().strip_suffix(" kB").unwrap();
    kibibytes.parse::<usize>().unwrap() << 10
}

async fn ask_for_long(door: Door, ask: Ask) -> Answer {
    let answered = async { door.connect().await.ask(&ask).await };
    timeout(LONG, Box::pin(answered)).await.unwrap()
}

#[tokio::test]
async fn a_manifest_of_16_mib_is_taken_without_being_held_in_memory_several_times() {
    let shop = Shop::open(&[]).await;
    let (body, count) = of_bytes(LARGEST / 2);
    assert!(count > 50_000, "{count}");
    let before = peak(&shop);
    let ask = put("/manifest").body(body);
    let answer = ask_for_long(shop.staff, ask).await;
    let stored = json!({"date": DAY, "drivers": 1000, "packages": count});
    assert_eq!(answer.expect(200), stored);
    let grown = peak(&shop) - before;
    assert!(grown < GROWTH_MAX * LARGEST / 2, "{grown}");
    let shown = ask_for_long(shop.staff, get(format!("/manifest?date={DAY}"))).await;
    assert_eq!(shown.status, 200);
    assert_eq!(shown.text().matches("\"package_id\"").count(), count);
    shop.close().await;
}

/// Sends this head and then this body, bit by bit, while listening; whatever was heard until the server closed.
async fn received_while_sending(door: Door, head: String, body: Bytes) -> String {
    let (mut incoming, mut outgoing) = door.raw().await.0.into_split();
    let sending = tokio::spawn(async move {
        // A server that has heard enough may close.
        if outgoing.write_all(head.as_bytes()).await.is_ok() {
            drop(outgoing.write_all(&body).await);
        }
        outgoing
    });
    let mut answer = Vec::new();
    let listening = async {
        let mut piece = vec![0; 4096];
        while let Ok(count @ 1..) = incoming.read(&mut piece).await {
            answer.extend_from_slice(&piece[..count]);
            if answer.ends_with(b"}") {
                break;
            }
        }
    };
    timeout(LONG, Box::pin(listening)).await.unwrap();
    sending.abort();
    String::from_utf8(answer).unwrap()
}

#[track_caller]
fn expect_too_large(received: &str) {
    assert!(received.starts_with("HTTP/1.1 413 "), "{received}");
    assert!(
        received.contains("urn:odyssey:problem:body-too-large"),
        "{received}"
    );
}

#[tokio::test]
async fn a_larger_manifest_is_refused_in_words_that_reach_the_sender() {
    let shop = Shop::open(&[]).await;
    let body = Bytes::from(vec![b' '; LARGEST + 1]);
    let head = |length: &str| {
        format!(
            "PUT /manifest HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\n{length}\r\n\r\n"
        )
    };
    let sized = head(&format!("Content-Length: {}", body.len()));
    expect_too_large(&received_while_sending(shop.staff, sized, body.clone()).await);
    // The usual client listens only once it has said everything.
    let answer = ask_for_long(shop.staff, put("/manifest").body(body)).await;
    answer.expect_problem(413, "body-too-large");
    // Who asks first need not say anything.
    let mut careful = shop.staff.raw().await;
    careful
        .write(head("Expect: 100-continue\r\nContent-Length: 34000000"))
        .await;
    expect_too_large(&careful.one_answer().await);
    drop(careful);
    expect_no_manifest(&shop, &format!("?date={DAY}")).await;
    shop.close().await;
}

#[tokio::test]
async fn a_manifest_of_unknown_length_is_refused_once_it_is_too_large() {
    let most = 1 << 20;
    let setting = most.to_string();
    let shop = Shop::open(&[("assignments.manifest_max_bytes", &setting)]).await;
    for (bytes, is_taken) in [(most, true), (most + 1, false), (3 * most, false)] {
        let (body, _) = of_bytes(bytes);
        let mut chunks = Vec::new();
        for chunk in body.chunks(60_000) {
            chunks.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
            chunks.extend_from_slice(chunk);
            chunks.extend(b"\r\n");
        }
        chunks.extend(b"0\r\n\r\n");
        let head = "PUT /manifest/ HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n";
        let message = received_while_sending(shop.staff, head.to_owned(), chunks.into()).await;
        if is_taken {
            assert!(message.starts_with("HTTP/1.1 200 "), "{message}");
        } else {
            expect_too_large(&message);
        }
        // As large, with its length said before.
        let answer = ask_for_long(shop.staff, put("/manifest").body(body)).await;
        assert_eq!(answer.status, if is_taken { 200 } else { 413 }, "{answer}");
    }
    shop.close().await;
}

// --- Slow ones -----------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_manifest_that_takes_too_long_is_given_up() {
    let shop = Shop::open(&[("assignments.manifest_timeout", "1s")]).await;
    let whole = three_and_three().to_string();
    let head = format!(
        "PUT /manifest HTTP/1.1\r\nHost: shop\r\nContent-Length: {}\r\n\r\n",
        whole.len()
    );
    let mut slow = shop.staff.raw().await;
    slow.write(&head).await;
    slow.write(&whole[..whole.len() - 1]).await;
    let answer = slow.one_answer().await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(
        answer.contains("urn:odyssey:problem:body-too-slow"),
        "{answer}"
    );
    drop(slow);
    expect_no_manifest(&shop, "").await;
    shop.close().await;
}

#[tokio::test]
async fn a_manifest_that_breaks_off_leaves_no_trace() {
    let before = three_and_three();
    let shop = prepared(&before).await;
    let (body, _) = of_bytes(200_000);
    let body = std::str::from_utf8(&body)
        .unwrap()
        .replace(&format!("\"date\":\"{DAY}\","), "");
    let whole = body.trim_end();
    let length = format!("Content-Length: {}", whole.len() + 1);
    for (header, body) in [
        (length.as_str(), &whole[..whole.len() / 2]),
        // All of the JSON, but not all of the body.
        (length.as_str(), whole),
        (
            "Transfer-Encoding: chunked",
            &format!("{:x}\r\n{whole}\r\n", whole.len()),
        ),
    ] {
        let mut broken = shop.staff.raw().await;
        broken
            .write(format!(
                "PUT /manifest HTTP/1.1\r\nHost: shop\r\n{header}\r\n\r\n"
            ))
            .await;
        broken.write(body).await;
        drop(broken);
        shop.until("the sender's end is noticed", |now| {
            now.left_in_the_shop() == 0
        })
        .await;
        let shown = shop.staff.ask(get("/manifest")).await.expect(200);
        assert_eq!(names(&shown, "packages"), names(&before, "packages"));
    }
    shop.close().await;
}

/// Each takes memory and a thread, so the desk reads two at a time; planning does not slow down.
#[tokio::test]
async fn manifests_that_do_not_end_keep_nobody_from_planning() {
    let lists = three_and_three();
    let shop = prepared(&lists).await;
    let mut slow = Vec::new();
    for _ in 0..40 {
        let mut one = shop.staff.raw().await;
        one.write(
            "PUT /manifest HTTP/1.1\r\nHost: shop\r\nContent-Length: 1000\r\n\r\n{\"drivers\":[",
        )
        .await;
        slow.push(one);
    }
    let plan = assign(&wanted(&names(&lists, "drivers"), 9));
    shop.staff.ask(plan).await.expect(200);
    shop.staff.ask(get("/manifest")).await.expect(200);
    // Any two of them are being read; the others get a 503, because the desk is busy.
    let busy = slow.pop().unwrap().one_answer().await;
    assert!(busy.starts_with("HTTP/1.1 503 "), "{busy}");
    assert!(busy.to_lowercase().contains("retry-after: 1\r\n"), "{busy}");
    drop(slow);
    shop.until("the senders' end is noticed", |now| {
        now.left_in_the_shop() == 0
    })
    .await;
    shop.staff.ask(put_manifest(&lists)).await.expect(200);
    shop.close().await;
}

/// As a tree of values it would take a hundred times as much memory as it has bytes.
#[tokio::test]
async fn a_driver_who_is_too_large_is_refused_without_being_held_in_memory() {
    let shop = Shop::open(&[]).await;
    let rules = vec!["{\"a\":0}"; 500_000].join(",");
    let body =
        format!("{{\"drivers\":[{{\"driver_id\":\"d\",\"rules\":[{rules}]}}],\"packages\":[]}}");
    let bytes = body.len();
    let before = peak(&shop);
    let ask = put("/manifest")
        .header("content-type", "application/json")
        .body(body);
    let refused = ask_for_long(shop.staff, ask).await;
    assert_eq!(refused.status, 422, "{refused}");
    assert_eq!(pointers(&refused), ["/drivers/0"]);
    let growth = peak(&shop) - before;
    assert!(growth < GROWTH_MAX * bytes, "{growth} bytes for {bytes}");
    shop.close().await;
}

// --- At the start --------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_manifest_in_a_file_is_loaded_at_the_start() {
    let data = tempfile::tempdir().unwrap();
    let file = data_file("day-10x60.json");
    let setting = ("assignments.manifest", file.to_str().unwrap());
    let day = real_day();
    let shop = open(data.path(), &[setting]).await;
    let wanted = wanted(&names(&day, "drivers"), 3);
    let answer = shop.staff.ask(assign(&wanted)).await;
    let plan = expect_plan(&day, &wanted, &answer);
    // It replaces the stored manifest of its day, as if it were sent.
    shop.staff
        .expect(put_manifest(&three_and_three()), 200)
        .await;
    shop.close().await;
    let shop = open(data.path(), &[setting]).await;
    let answer = shop.staff.ask(assign(&wanted)).await;
    assert_eq!(expect_plan(&day, &wanted, &answer), plan);
    shop.close().await;
    // With a date it is that day's.
    let dated = data.path().join("dated.json");
    fs::write(&dated, with(&day, "date", DAY).to_string()).unwrap();
    let setting = ("assignments.manifest", dated.to_str().unwrap());
    let shop = open(data.path(), &[setting]).await;
    let shown = shop.staff.ask(get(format!("/manifest?date={DAY}"))).await;
    assert_eq!(names(&shown.expect(200), "drivers"), names(&day, "drivers"));
    shop.close().await;
}

#[tokio::test]
async fn a_manifest_that_cannot_be_loaded_stops_the_start_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let mut wrong = three_and_three();
    wrong["packages"][1]["weight_kg"] = json!("heavy");
    for (path, word) in [
        (dir.path().join("missing.json"), "No such file"),
        (dir.path().to_path_buf(), "directory"),
        (file("half.json", "{\"drivers\": ["), "not JSON"),
        (
            file("wrong.json", &wrong.to_string()),
            "/packages/1/weight_kg",
        ),
    ] {
        let message = within("the start fails", refused(path.clone(), dir.path())).await;
        for word in [
            "odyssey: ",
            "`assignments.manifest`",
            path.to_str().unwrap(),
            word,
        ] {
            assert!(message.contains(word), "{word} is missing: {message}");
        }
        assert!(!message.contains("panicked"), "{message}");
    }
}

/// What the program says that must not start with this manifest.
async fn refused(manifest: std::path::PathBuf, around: &Path) -> String {
    let mut command = odyssey();
    command
        .arg("serve")
        .env(variable("assignments.manifest"), manifest)
        .env(variable("data_dir"), around.join("data"))
        .env(variable("customers.listen"), "127.0.0.1:0")
        .env(variable("staff.listen"), "127.0.0.1:0")
        .env_remove("RUST_BACKTRACE");
    let run = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = run.await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let message = String::from_utf8(output.stderr).unwrap();
    message.lines().last().unwrap_or_default().to_owned()
}
