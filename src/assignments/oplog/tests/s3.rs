//! Against an emulator.

use std::net::TcpListener;
use std::time::Instant;

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_sdk_s3::Client;
use aws_sdk_s3::types::ServerSideEncryption;
use testkit::aws::{Emulator, Service, endpoint};
use uuid::Uuid;

use super::super::config::Encryption;
use super::*;
use crate::storage::aws::Aws;

const STORED: &str = "odyssey_oplog_uploads_total{result=\"stored\"}";
const FAILED: &str = "odyssey_oplog_uploads_total{result=\"failed\"}";
const SPOOLED: &str = "odyssey_oplog_spooled_bytes";

/// A bucket of this test's own.
struct Bucket {
    client: Client,
    config: Config,
}

impl Bucket {
    async fn at(endpoint: &str) -> Self {
        let bucket = format!("oplog-{}", Uuid::new_v4());
        let client = Aws::emulated(endpoint).await.s3();
        let config = Config { bucket, ..config() };
        Self { client, config }
    }

    async fn provisioned() -> Self {
        let bucket = Self::at(&endpoint()).await;
        bucket.provision().await;
        bucket
    }

    async fn provision(&self) {
        provision(&self.client, &self.config.bucket).await.unwrap();
    }

    fn open(&self, directory: &Path) -> Shop {
        let sink = Sink::S3(self.client.clone());
        Shop::open(directory, &sink, self.config.clone())
    }

    /// The objects: key, entries; in the keys' order.
    async fn objects(&self) -> Vec<(String, Vec<usize>)> {
        let (client, bucket) = (&self.client, &self.config.bucket);
        let list = Box::pin(client.list_objects_v2().bucket(bucket).send()).await;
        let mut found = Vec::new();
        for object in list.unwrap().contents() {
            let key = object.key().unwrap();
            let got = Box::pin(client.get_object().bucket(bucket).key(key).send()).await;
            let got = got.unwrap();
            assert_eq!(got.content_type(), Some("application/x-ndjson"));
            assert_eq!(got.content_encoding(), None);
            let body = got.body.collect().await.unwrap().into_bytes();
            found.push((key.to_owned(), numbers(&body)));
        }
        found
    }
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory.join(SPOOL))
        .unwrap()
        .next()
        .is_none()
}

#[tokio::test]
async fn objects_are_where_the_hour_of_their_entries_says_and_have_every_line() {
    let mut bucket = Bucket::provisioned().await;
    bucket.provision().await;
    bucket.config.batch_age = PATIENCE;
    let dir = TempDir::new().unwrap();
    let shop = bucket.open(dir.path());
    shop.oplog
        .note(entries("2026-11-21T09:59:59.999999Z", 0..10));
    shop.oplog.note(entries("2026-11-21T10:00:00Z", 10..20));
    shop.oplog.note(entries("2142-01-01T00:00:00Z", 20..30));
    shop.close().await;
    let objects = bucket.objects().await;
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
    assert!(is_empty(dir.path()));
    assert_eq!((shop.value(STORED), shop.value(SPOOLED)), (3, 0));
}

#[tokio::test]
async fn a_batch_is_uploaded_at_its_age_and_at_its_size() {
    let mut bucket = Bucket::provisioned().await;
    for (batch_age, batch_max_bytes) in [(Duration::from_millis(50), 1 << 20), (PATIENCE, 1000)] {
        (bucket.config.batch_age, bucket.config.batch_max_bytes) = (batch_age, batch_max_bytes);
        let dir = TempDir::new().unwrap();
        let shop = bucket.open(dir.path());
        shop.oplog.note(entries(&today(), 0..10));
        until("it is uploaded", async || shop.value(STORED) > 0).await;
        shop.close().await;
    }
    let twice = (0..20).map(|number| number / 2);
    assert_eq!(all(&bucket.objects().await), twice.collect::<Vec<_>>());
}

#[tokio::test]
async fn an_outage_delays_lines_and_neither_loses_nor_doubles_any() {
    let emulator = Emulator::start().await;
    let bucket = Bucket::at(&emulator.endpoint()).await;
    bucket.provision().await;
    let dir = TempDir::new().unwrap();
    let shop = bucket.open(dir.path());
    shop.oplog.note(entries(&today(), 0..100));
    let uploaded = async |count| shop.written() == count && shop.value(SPOOLED) == 0;
    until("the first are uploaded", async || uploaded(100).await).await;
    // The emulator forgets when it is killed.
    let mut seen = all(&bucket.objects().await);
    let address = emulator.address;
    drop(emulator);
    shop.oplog.note(entries(&today(), 100..300));
    until("it fails again and again", async || shop.value(FAILED) >= 2).await;
    let emulator = Emulator::start_at(address).await;
    // There is no bucket yet: that is an outage, too.
    let failures = shop.value(FAILED);
    shop.oplog.note(entries(&today(), 300..400));
    until("it goes on failing", async || shop.value(FAILED) > failures).await;
    bucket.provision().await;
    until("all are uploaded", async || uploaded(400).await).await;
    shop.close().await;
    seen.extend(all(&bucket.objects().await));
    assert_eq!(seen, (0..400).collect::<Vec<_>>());
    drop(emulator);
}

#[tokio::test]
async fn a_full_spool_keeps_the_oldest_and_counts_the_others() {
    let mut bucket = Bucket::at(&endpoint()).await;
    // Sixteen blocks, of which a batch takes at least one.
    let max = 64 << 10;
    (bucket.config.spool_max_bytes, bucket.config.batch_max_bytes) = (max, 4096);
    let dir = TempDir::new().unwrap();
    let shop = bucket.open(dir.path());
    let mut noted = 0;
    until("the spool is full for long", async || {
        shop.oplog.note(entries(&today(), noted..noted + 10));
        noted += 10;
        shop.lost("spool_full") >= 100
    })
    .await;
    let count = || shop.written() + shop.lost("spool_full");
    until("all are written or lost", async || count() == noted as u64).await;
    assert!(shop.value(SPOOLED) <= max);
    assert!(shop.down().is_some_and(|down| down.contains("full")));
    let (written, lost) = (shop.written(), shop.lost("spool_full"));
    // The bucket appears, and there is room again.
    bucket.provision().await;
    until("the spool is empty", async || shop.value(SPOOLED) == 0).await;
    shop.oplog.note(entries(&today(), noted..noted + 10));
    shop.close().await;
    assert_eq!(shop.down(), None);
    let written = usize::try_from(written).unwrap();
    let kept: Vec<usize> = (0..written).chain(noted..noted + 10).collect();
    assert_eq!(all(&bucket.objects().await), kept);
    assert_eq!(shop.lost("spool_full"), lost);
}

#[tokio::test]
async fn what_cannot_be_uploaded_in_time_is_uploaded_by_the_next_start() {
    // Takes connections, and never answers.
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let nowhere = Bucket::at(&format!("http://{}", silent.local_addr().unwrap())).await;
    let dir = TempDir::new().unwrap();
    let shop = nowhere.open(dir.path());
    shop.oplog.note(entries(&today(), 0..50));
    let began = Instant::now();
    shop.oplog.close(Duration::from_secs(1)).await;
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(shop.written(), 50);
    fs::write(dir.path().join(SPOOL).join("notes.txt"), "not ours").unwrap();

    let bucket = Bucket::provisioned().await;
    bucket.open(dir.path()).close().await;
    assert_eq!(all(&bucket.objects().await), (0..50).collect::<Vec<_>>());
    let left = fs::read_dir(dir.path().join(SPOOL)).unwrap();
    assert_eq!(left.count(), 1, "notes.txt");
}

#[tokio::test]
async fn a_kill_after_an_upload_doubles_nothing() {
    let mut bucket = Bucket::provisioned().await;
    bucket.config.batch_age = PATIENCE;
    let dir = TempDir::new().unwrap();
    let shop = bucket.open(dir.path());
    shop.oplog.note(entries(&today(), 0..50));
    until("the lines are written", async || shop.written() == 50).await;
    let left = as_killed(dir.path());
    // Now the file is uploaded, which the copy does not record.
    shop.close().await;
    bucket.open(left.path()).close().await;
    let objects = bucket.objects().await;
    assert_eq!(objects.len(), 1);
    assert_eq!(all(&objects), (0..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_upload_asks_for_the_encryption_that_is_configured() {
    let mut bucket = Bucket::provisioned().await;
    let key = "arn:aws:kms:eu-west-2:123450000001:key/odyssey";
    for (sse, kms_key, expected) in [
        (Encryption::Aes256, "", ("AES256", None)),
        (Encryption::AwsKms, key, ("aws:kms", Some(key))),
    ] {
        expected.0.clone_into(&mut bucket.config.prefix);
        (bucket.config.sse, bucket.config.kms_key) = (sse, kms_key.to_owned());
        let dir = TempDir::new().unwrap();
        let shop = bucket.open(dir.path());
        shop.oplog.note(entries(&today(), 0..10));
        shop.close().await;
        let objects = bucket.objects().await;
        let object = objects.iter().find(|(key, _)| key.starts_with(expected.0));
        let head = bucket.client.head_object().bucket(&bucket.config.bucket);
        let head = Box::pin(head.key(&object.unwrap().0).send()).await.unwrap();
        let sse = head
            .server_side_encryption()
            .map(ServerSideEncryption::as_str);
        assert_eq!((sse, head.ssekms_key_id()), (Some(expected.0), expected.1));
    }
}

#[tokio::test]
async fn a_bucket_that_must_be_repaired_is_reported_and_one_that_is_slow_is_not() {
    for (code, status, is_reported) in [
        ("NoSuchBucket", 404, true),
        ("AccessDenied", 403, true),
        ("SlowDown", 503, false),
    ] {
        let refusing = Service::refusing(code, "on purpose", status).await;
        let bucket = Bucket::at(&refusing.endpoint).await;
        let dir = TempDir::new().unwrap();
        let shop = bucket.open(dir.path());
        assert_eq!(shop.down(), None);
        shop.oplog.note(entries(&today(), 0..10));
        until("it fails", async || shop.value(FAILED) >= 2).await;
        let down = shop.down();
        assert_eq!(down.is_some(), is_reported, "{code}: {down:?}");
        assert!(down.is_none_or(|down| down.contains(code)), "{code}");
        shop.oplog.close(Duration::from_millis(300)).await;
    }
}

#[tokio::test]
async fn without_credentials_uploads_fail_and_the_lines_wait_for_the_next_start() {
    let mut bucket = Bucket::at(&endpoint()).await;
    let missing = ProfileFileCredentialsProvider::builder().profile_name("none of this name");
    let own = bucket.client.config().to_builder();
    let own = own.credentials_provider(missing.build());
    bucket.client = Client::from_conf(own.build());
    let dir = TempDir::new().unwrap();
    let shop = bucket.open(dir.path());
    shop.oplog.note(entries(&today(), 0..10));
    until("it fails", async || shop.value(FAILED) > 0).await;
    shop.oplog.close(Duration::from_millis(300)).await;
    assert_eq!((shop.written(), shop.value(STORED)), (10, 0));
    assert!(!is_empty(dir.path()));
}
