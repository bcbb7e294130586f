//! Against an emulator.

use std::net::TcpListener;

use aws_sdk_s3::Client;
use aws_sdk_s3::types::ServerSideEncryption;
use testkit::aws::{Emulator, Service, endpoint};
use testkit::free_port;
use uuid::Uuid;

use super::super::config::Encryption;
use super::*;
use crate::storage::aws::Aws;

async fn shared() -> Client {
    Aws::emulated(&endpoint()).await.s3()
}

/// A bucket of this test's own.
fn bucket() -> String {
    format!("oplog-{}", Uuid::new_v4())
}

fn s3(directory: &Path, client: &Client, bucket: &str) -> Settings {
    let mut settings = files(directory);
    settings.sink = Sink::S3(client.clone());
    settings.config.bucket = bucket.to_owned();
    settings
}

/// The bucket's objects: key, entries; in the keys' order.
async fn objects(client: &Client, bucket: &str) -> Vec<(String, Vec<usize>)> {
    let mut found = Vec::new();
    let mut pages = client
        .list_objects_v2()
        .bucket(bucket)
        .into_paginator()
        .send();
    while let Some(page) = pages.next().await {
        for object in page.unwrap().contents() {
            let key = object.key().unwrap();
            let got = Box::pin(client.get_object().bucket(bucket).key(key).send()).await;
            let got = got.unwrap();
            assert_eq!(got.content_type(), Some("application/x-ndjson"));
            assert_eq!(got.content_encoding(), None);
            let body = got.body.collect().await.unwrap().into_bytes();
            found.push((key.to_owned(), numbers(&body[..])));
        }
    }
    found
}

fn all_of(objects: &[(String, Vec<usize>)]) -> Vec<usize> {
    let mut numbers: Vec<usize> = objects.iter().flat_map(|(_, all)| all.clone()).collect();
    numbers.sort_unstable();
    numbers
}

async fn client_at(port: u16) -> Client {
    Aws::emulated(&format!("http://127.0.0.1:{port}"))
        .await
        .s3()
}

#[tokio::test]
async fn objects_are_where_the_hour_of_their_entries_says_and_have_every_line() {
    let (client, bucket) = (shared().await, bucket());
    provision(&client, &bucket).await.unwrap();
    provision(&client, &bucket).await.unwrap();
    let dir = TempDir::new().unwrap();
    let mut settings = s3(dir.path(), &client, &bucket);
    settings.config.batch_age = PATIENCE;
    let shop = Shop::open(settings);
    shop.note(entries("2026-11-21T09:59:59.999999Z", 0..10));
    shop.note(entries("2026-11-21T10:00:00Z", 10..20));
    shop.note(entries("2142-01-01T00:00:00Z", 20..30));
    shop.oplog.close(PATIENCE).await;
    let objects = objects(&client, &bucket).await;
    assert_eq!(objects.len(), 3);
    for ((key, numbers), (hour, from)) in objects.iter().zip([
        ("dt=2026-11-21/hr=09", 0),
        ("dt=2026-11-21/hr=10", 10),
        ("dt=2142-01-01/hr=00", 20),
    ]) {
        assert!(key.starts_with(&format!("logs/{hour}/shop-")), "{key}");
        assert!(key.ends_with(".ndjson.gz"), "{key}");
        assert_eq!(*numbers, (from..from + 10).collect::<Vec<_>>());
    }
    assert!(spooled(dir.path()).is_empty());
    let stored = "odyssey_oplog_uploads_total{result=\"stored\"}";
    assert_eq!(shop.figure(stored), 3);
}

#[tokio::test]
async fn a_batch_is_uploaded_at_its_age_and_at_its_size() {
    let (client, bucket) = (shared().await, bucket());
    provision(&client, &bucket).await.unwrap();
    let dir = TempDir::new().unwrap();
    let shop = Shop::open(s3(dir.path(), &client, &bucket));
    shop.note(entries(&today(), 0..10));
    let stored = "odyssey_oplog_uploads_total{result=\"stored\"}";
    until("it is old enough", async || shop.figure(stored) == 1).await;
    shop.oplog.close(PATIENCE).await;

    let mut settings = s3(dir.path(), &client, &bucket);
    (settings.config.batch_age, settings.config.batch_max_bytes) = (PATIENCE, 1000);
    let shop = Shop::open(settings);
    shop.note(entries(&today(), 10..20));
    until("it is large enough", async || shop.figure(stored) == 1).await;
    shop.oplog.close(PATIENCE).await;
    let objects = objects(&client, &bucket).await;
    assert_eq!(all_of(&objects), (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_outage_delays_lines_and_neither_loses_nor_doubles_any() {
    let emulator = Emulator::start().await;
    let client = client_at(emulator.address.port()).await;
    provision(&client, "outage").await.unwrap();
    let dir = TempDir::new().unwrap();
    let shop = Shop::open(s3(dir.path(), &client, "outage"));
    shop.note(entries(&today(), 0..100));
    until("the first are uploaded", async || {
        shop.written() == 100 && spooled(dir.path()).is_empty()
    })
    .await;
    // The emulator forgets when it is killed.
    let mut seen = all_of(&objects(&client, "outage").await);

    let address = emulator.address;
    drop(emulator);
    let failed = "odyssey_oplog_uploads_total{result=\"failed\"}";
    for number in 100..300 {
        shop.note(vec![entry(&today(), number)]);
    }
    until("it fails again and again", async || {
        shop.figure(failed) >= 2
    })
    .await;
    let emulator = Emulator::start_at(address).await;
    // There is no bucket yet: that is an outage, too.
    let failures = shop.figure(failed);
    shop.note(entries(&today(), 300..400));
    until("it goes on failing", async || {
        shop.figure(failed) > failures
    })
    .await;
    provision(&client, "outage").await.unwrap();
    shop.note(entries(&today(), 400..500));
    until("all are uploaded", async || {
        shop.written() == 500 && spooled(dir.path()).is_empty()
    })
    .await;
    shop.oplog.close(PATIENCE).await;
    seen.extend(all_of(&objects(&client, "outage").await));
    assert_eq!(seen, (0..500).collect::<Vec<_>>());
    assert_eq!(shop.figure("odyssey_oplog_spooled_bytes"), 0);
    drop(emulator);
}

#[tokio::test]
async fn a_full_spool_keeps_the_oldest_and_counts_the_others() {
    let (client, bucket) = (shared().await, bucket());
    let dir = TempDir::new().unwrap();
    let mut settings = s3(dir.path(), &client, &bucket);
    // Ten blocks, of which a batch takes at least one.
    (
        settings.config.spool_max_bytes,
        settings.config.batch_max_bytes,
    ) = (40 << 10, 2000);
    let shop = Shop::open(settings);
    let mut noted = 0;
    until("the spool is full for long", async || {
        shop.note(entries(&today(), noted..noted + 10));
        noted += 10;
        shop.lost("spool_full") >= 100
    })
    .await;
    until("all are written or lost", async || {
        shop.figure("odyssey_oplog_waiting_entries") == 0
    })
    .await;
    assert!(shop.figure("odyssey_oplog_spooled_bytes") <= 40 << 10);
    let (written, lost) = (shop.written(), shop.lost("spool_full"));
    assert_eq!(written + lost, noted as u64);
    // The bucket appears, and there is room again.
    provision(&client, &bucket).await.unwrap();
    until("the spool is empty", async || {
        spooled(dir.path()).is_empty()
    })
    .await;
    shop.note(entries(&today(), noted..noted + 10));
    shop.oplog.close(PATIENCE).await;
    let written = usize::try_from(written).unwrap();
    let kept: Vec<usize> = (0..written).chain(noted..noted + 10).collect();
    assert_eq!(all_of(&objects(&client, &bucket).await), kept);
    assert_eq!(shop.lost("spool_full"), lost);
}

#[tokio::test]
async fn what_cannot_be_uploaded_in_time_is_uploaded_by_the_next_start() {
    // Takes connections, and never answers.
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let nowhere = client_at(silent.local_addr().unwrap().port()).await;
    let (client, bucket) = (shared().await, bucket());
    let dir = TempDir::new().unwrap();
    let shop = Shop::open(s3(dir.path(), &nowhere, &bucket));
    shop.note(entries(&today(), 0..50));
    let began = Instant::now();
    shop.oplog.close(Duration::from_millis(300)).await;
    assert!(began.elapsed() < Duration::from_secs(10));
    until("the file is packed", async || is_packed(dir.path())).await;

    provision(&client, &bucket).await.unwrap();
    let next = Shop::open(s3(dir.path(), &client, &bucket));
    next.oplog.close(PATIENCE).await;
    let objects = objects(&client, &bucket).await;
    assert_eq!(all_of(&objects), (0..50).collect::<Vec<_>>());
    assert!(spooled(dir.path()).is_empty());
}

#[tokio::test]
async fn a_kill_after_an_upload_doubles_nothing() {
    let (client, bucket) = (shared().await, bucket());
    provision(&client, &bucket).await.unwrap();
    let dir = TempDir::new().unwrap();
    let mut settings = s3(dir.path(), &client, &bucket);
    settings.config.batch_age = PATIENCE;
    let shop = Shop::open(settings);
    shop.note(entries(&today(), 0..50));
    until("the lines are written", async || shop.written() == 50).await;
    let left = as_killed(dir.path());
    // Now the file is uploaded, which the copy does not record.
    shop.oplog.close(PATIENCE).await;
    let next = Shop::open(s3(left.path(), &client, &bucket));
    next.oplog.close(PATIENCE).await;
    let objects = objects(&client, &bucket).await;
    assert_eq!(objects.len(), 1);
    assert_eq!(all_of(&objects), (0..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn files_that_waited_for_s3_are_archived_when_the_sink_is_files() {
    let dir = TempDir::new().unwrap();
    let away = client_at(free_port()).await;
    let shop = Shop::open(s3(dir.path(), &away, "away"));
    shop.note(entries("2026-11-21T10:00:00Z", 0..10));
    shop.oplog.close(Duration::from_millis(300)).await;
    until("the file is packed", async || is_packed(dir.path())).await;
    Shop::open(files(dir.path())).oplog.close(PATIENCE).await;
    let archived = archived(dir.path());
    assert_eq!(archived[0].0, "dt=2026-11-21");
    assert_eq!(all(&archived), (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_upload_asks_for_the_encryption_that_is_configured() {
    let (client, bucket) = (shared().await, bucket());
    provision(&client, &bucket).await.unwrap();
    let key = "arn:aws:kms:eu-west-2:123450000001:key/odyssey";
    for (encryption, expected) in [
        (Encryption::Aes256, ("AES256", None)),
        (Encryption::AwsKms, ("aws:kms", Some(key))),
    ] {
        let dir = TempDir::new().unwrap();
        let mut settings = s3(dir.path(), &client, &bucket);
        expected.0.clone_into(&mut settings.config.prefix);
        (settings.config.sse, settings.config.kms_key) = (encryption, key.to_owned());
        let shop = Shop::open(settings);
        shop.note(entries(&today(), 0..10));
        shop.oplog.close(PATIENCE).await;
        let list = client.list_objects_v2().bucket(&bucket);
        let list = Box::pin(list.prefix(expected.0).send()).await.unwrap();
        let [object] = list.contents() else {
            panic!("one object: {list:?}")
        };
        let head = client.head_object().bucket(&bucket);
        let head = head.key(object.key().unwrap()).send();
        let head = Box::pin(head).await.unwrap();
        let sse = head
            .server_side_encryption()
            .map(ServerSideEncryption::as_str);
        assert_eq!((sse, head.ssekms_key_id()), (Some(expected.0), expected.1));
    }
}

#[tokio::test]
async fn a_bucket_that_somebody_must_repair_is_said_and_one_that_is_slow_is_not() {
    let failed = "odyssey_oplog_uploads_total{result=\"failed\"}";
    for (code, status, is_said) in [
        ("NoSuchBucket", 404, true),
        ("AccessDenied", 403, true),
        ("SlowDown", 503, false),
    ] {
        let refusing = Service::refusing(code, "on purpose", status).await;
        let client = Aws::emulated(&refusing.endpoint).await.s3();
        let dir = TempDir::new().unwrap();
        let shop = Shop::open(s3(dir.path(), &client, "bucket"));
        assert_eq!(shop.oplog.state().unwrap().down, None);
        shop.note(entries(&today(), 0..10));
        until("it fails", async || shop.figure(failed) >= 2).await;
        let down = shop.oplog.state().unwrap().down;
        assert_eq!(down.is_some(), is_said, "{code}: {down:?}");
        let named = down.is_none_or(|down| down.contains(code));
        assert!(named, "{code}");
        shop.oplog.close(Duration::from_millis(300)).await;
    }
}
