//! The build without features, which `make run` starts. All other tests run with every feature.

#![cfg(not(any(feature = "aws", feature = "redis")))]
#![expect(
    clippy::unwrap_used,
    dead_code,
    reason = "a test reports a failure by panicking, and needs a part of the fixture"
)]

#[path = "integration/client.rs"]
mod client;
#[path = "integration/metrics.rs"]
mod metrics;
#[path = "integration/shop.rs"]
mod shop;

use client::order;
use shop::{Shop, odyssey, variable};

#[tokio::test]
async fn an_order_is_held_until_it_is_ready() {
    let shop = Shop::open(&[]).await;
    let customer = shop.customer(order()).await;
    shop.serve_all().await;
    customer.answer().await.expect(200);
    shop.close().await;
}

#[test]
fn what_needs_a_feature_is_refused_with_its_key_before_anything_is_created() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    for (key, value, feature) in [
        ("assignments.store", "dynamodb", "aws"),
        ("oplog.sink", "s3", "aws"),
        ("couriers.events", "sqs", "aws"),
        ("couriers.store", "redis", "redis"),
    ] {
        let mut server = odyssey();
        server.arg("serve").env(variable(key), value);
        server.env(variable("oplog.bucket"), "log");
        let output = server.env(variable("data_dir"), &data).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{key}");
        assert!(output.stdout.is_empty(), "{output:?}");
        for word in [format!("`{key}`"), format!("the feature `{feature}`")] {
            assert!(error.contains(&word), "{word} is missing: {error}");
        }
        assert!(!data.exists(), "{key}");
    }
}
