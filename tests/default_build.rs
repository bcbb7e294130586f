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
fn what_needs_a_feature_is_refused_with_its_key() {
    for (key, value) in [
        ("assignments.store", "dynamodb"),
        ("oplog.sink", "s3"),
        ("couriers.events", "sqs"),
        ("couriers.store", "redis"),
    ] {
        let mut config = odyssey();
        config.arg("config").env(variable(key), value);
        let output = config.env(variable("oplog.bucket"), "log").output();
        let output = output.unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{key}");
        assert!(error.contains(&format!("`{key}`")), "{error}");
    }
}
